//! `fantail publish` against the running server, and what it sends.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Output, Stdio};

use fantail::wire::frame::Opcode;

use crate::reload::ConfigFile;
use crate::server::{PATIENCE, Server, command, nobody};

/// Runs `fantail publish` with this standard input.
fn publish(arguments: &[&str], environment: &[(&str, &str)], input: &[u8]) -> Output {
    let mut all = vec!["publish"];
    all.extend_from_slice(arguments);
    let mut child = command(&all, environment).stdin(Stdio::piped()).spawn().expect("the binary starts");
    // It may have ended for wrong usage without reading.
    let _ = child.stdin.take().expect("piped").write_all(input);
    child.wait_with_output().expect("it ends")
}

#[test]
fn arguments_and_input_reach_subscribers() {
    let server = Server::start(&[], &[]);
    let admin = server.admin.to_string();
    let mut subscriber = server.websocket("/ws/a%20b/%C3%A9%3F");
    let output = publish(&["--admin", &admin, "a b/é?", "hello"], &[], b"not read");
    assert!(output.status.success(), "{output:?}");
    let answer: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&answer["offset"], &answer["subscribers"]), (&1.into(), &1.into()));
    assert_eq!(subscriber.text(), "hello");
    // The variable that configures the server says where its admin port is, too.
    let variable = [("FANTAIL_SERVER_ADMIN", admin.as_str())];
    assert!(publish(&["a b/é?"], &variable, b"from input\n").status.success());
    assert_eq!(subscriber.text(), "from input\n");
    assert!(publish(&["--binary", "a b/é?", "-"], &variable, &[0, 255]).status.success());
    let frame = subscriber.frame();
    assert_eq!((frame.opcode, frame.payload), (Opcode::Binary, vec![0, 255]));
}

/// The server's own file is at hand and looks like what is asked for.
#[test]
fn a_file_of_server_keys_is_told_from_a_key() {
    for text in ["publish:0123456789abcdef\nread:fedcba9876543210\n", "# ours\nadmin:0123456789abcdef\n"] {
        let file = ConfigFile::new(text);
        let output = publish(&["--key-file", file.path(), "t", "m"], &[], b"");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains("admin.keys_file") && said.contains("the secret of one alone"), "{said}");
        assert!(!said.contains("0123456789"), "{said}");
    }
    let variable = [("FANTAIL_ADMIN_KEY", "publish+read:0123456789abcdef")];
    let output = publish(&["t", "m"], &variable, b"");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

#[test]
fn refusals_are_1_and_wrong_usage_is_2() {
    let server = Server::start(&[], &[]);
    let admin = server.admin.to_string();
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    let output = publish(&["--admin", &admin, "a*b", "x"], &[], b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("refused with 400"), "{output:?}");
    let output = publish(&["--admin", &admin, "t"], &[], &[0xff]);
    assert!(said(&output).contains("not UTF-8; publish it with --binary"), "{output:?}");
    let output = publish(&["--admin", &server.listen.to_string(), "t", "m"], &[], b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("refused with 404: not here: this is the client port"), "{output:?}");
    for wrong in
        [&[][..], &["--admin", "h:1/x", "t", "m"], &["", "m"], &["--key-file", "/nonexistent", "t", "m"]]
    {
        assert_eq!(publish(wrong, &[], b"").status.code(), Some(2), "{wrong:?}");
    }
    let (_held, nobody) = nobody();
    let output = publish(&["--admin", &nobody.to_string(), "t", "m"], &[], b"");
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("cannot publish through"), "{output:?}");
}

#[test]
fn a_key_is_sent_and_never_shown() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let server = std::thread::spawn(move || {
        let mut requests = Vec::new();
        for _ in 0..2 {
            let (mut stream, _) = listener.accept().expect("a client");
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
            let mut held = Vec::new();
            let mut byte = [0];
            while !held.ends_with(b"\r\n\r\nm") {
                assert_eq!(stream.read(&mut byte).expect("a request"), 1);
                held.push(byte[0]);
            }
            stream.write_all(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno").expect("it reads");
            requests.push(String::from_utf8(held).expect("text"));
        }
        requests
    });
    let file = ConfigFile::new("from-a-file\n");
    let arguments = ["--admin", &address, "t", "m"];
    let first = publish(&arguments, &[("FANTAIL_ADMIN_KEY", "s3cret")], b"");
    let second = publish(&[&["--key-file", file.path()][..], &arguments].concat(), &[], b"");
    for output in [&first, &second] {
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("refused with 401: no"), "{said}");
        assert!(!said.contains("s3cret") && !said.contains("from-a-file"), "{said}");
    }
    let requests = server.join().expect("two requests");
    assert!(requests[0].contains("\r\nAuthorization: Bearer s3cret\r\n"), "{requests:?}");
    assert!(requests[1].contains("\r\nAuthorization: Bearer from-a-file\r\n"), "{requests:?}");
    let output = publish(&arguments, &[("FANTAIL_ADMIN_KEY", "bad\r\nkey")], b"");
    assert_eq!(output.status.code(), Some(2));
    assert!(!String::from_utf8_lossy(&output.stderr).contains("bad"), "{output:?}");
    // The variable is no configuration key: a server in the same environment starts.
    Server::start(&[], &[("FANTAIL_ADMIN_KEY", "s3cret")]);
}
