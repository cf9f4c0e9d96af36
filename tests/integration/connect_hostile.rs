//! `fantail connect` and `fantail publish` against servers that mean harm: what they send does not reach the
//! terminal as it is, and does not put off an end.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Output;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fantail::wire::frame::Opcode;

use crate::connect::{Connect, accept, in_time_to_connect, server_frame};
use crate::server::{PATIENCE, Server, command, on_free_ports};

/// Serves one connection on a thread of its own.
fn serve(act: impl FnOnce(TcpListener) + Send + 'static) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    (address, thread::spawn(move || act(listener)))
}

#[test]
fn what_a_server_says_is_not_obeyed_by_the_terminal() {
    let (address, server) = serve(|listener| {
        let (_, mut stream) = accept(&listener, None);
        stream
            .write_all(&server_frame(Opcode::Close, b"\x0f\xa0\x1b]0;x\x07\nfantail: all is well"))
            .expect("it reads");
        // The answer to the close frame, and the end.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let (code, _, said) = Connect::to(address, "/", &["--listen"]).end();
    assert_eq!(code, Some(1));
    assert!(said.contains("closed 4000 \\u{1b}]0;x\\u{7}\\nfantail: all is well"), "{said}");
    server.join().expect("served");
}

#[test]
fn a_flood_of_pings_does_not_put_off_the_end() {
    let started = Instant::now();
    let (code, _, said) = in_time_to_connect(|time| {
        let (address, server) = serve(|listener| {
            let (_, mut stream) = accept(&listener, None);
            let pings = server_frame(Opcode::Ping, b"").repeat(4096);
            let mut reading = stream.try_clone().expect("a copy");
            let reader = thread::spawn(move || {
                let mut some = vec![0; 64 << 10];
                while reading.read(&mut some).is_ok_and(|count| count > 0) {}
            });
            while stream.write_all(&pings).is_ok() {}
            reader.join().expect("read");
        });
        let ended = Connect::to(address, "/", &["--listen", "--timeout", time]).end();
        // Whoever did not connect may have left in the middle of it.
        let _ = server.join();
        ended
    });
    // Either the close frame is not answered, for which five seconds are waited, or time is over in the middle of a
    // pong, behind which none can be sent.
    assert!(code == Some(0) || said.contains("did not answer the close frame"), "{code:?} {said}");
    assert!(started.elapsed() < PATIENCE, "{:?}", started.elapsed());
}

#[test]
fn an_end_before_all_messages_have_come_is_a_failure() {
    let (address, server) = serve(|listener| {
        let (_, mut stream) = accept(&listener, None);
        stream.write_all(&server_frame(Opcode::Text, b"one")).expect("it reads");
        stream.write_all(&server_frame(Opcode::Close, &1000_u16.to_be_bytes())).expect("it reads");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let (code, out, said) = Connect::to(address, "/", &["--listen", "--count", "2"]).end();
    assert_eq!((code, out), (Some(1), vec!["one".to_owned()]), "{said}");
    assert!(said.contains("closed 1000, 1 messages have not come"), "{said}");
    server.join().expect("served");
}

#[test]
fn input_that_cannot_be_sent_and_output_that_cannot_be_written_are_failures() {
    let server = Server::start(&[], &[]);
    let url = format!("ws://{}/echo", server.listen);
    let run = |full: bool, input: &[u8]| -> Output {
        let mut command = command(&["connect", &url], &[]);
        command.stdin(std::process::Stdio::piped());
        if full {
            command.stdout(std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a device"));
        }
        let mut child = command.spawn().expect("the binary starts");
        let mut stdin = child.stdin.take().expect("piped");
        stdin.write_all(input).expect("it reads");
        if full {
            // The echo must come before the input ends the session.
            let output = child.wait_with_output().expect("it ends");
            drop(stdin);
            return output;
        }
        drop(stdin);
        child.wait_with_output().expect("it ends")
    };
    let output = run(false, b"fine\nLatin-1: \xe9\nnever sent\n");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("standard input: a line that is not UTF-8"), "{said}");
    let output = run(true, b"to nowhere\n");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("standard output cannot be written"), "{said}");
}

/// What `fantail publish` makes of this answer.
fn published(answer: Vec<u8>) -> Output {
    let (address, server) = serve(move |listener| {
        let (mut stream, _) = listener.accept().expect("a client");
        let mut held = Vec::new();
        let mut byte = [0];
        while !held.ends_with(b"\r\n\r\nm") {
            assert_eq!(stream.read(&mut byte).expect("a request"), 1);
            held.push(byte[0]);
        }
        let _ = stream.write_all(&answer);
    });
    let output =
        command(&["publish", "--admin", &address.to_string(), "t", "m"], &[]).output().expect("it ends");
    server.join().expect("served");
    output
}

#[test]
fn bad_answers_to_a_publish_are_failures_of_one_line() {
    for (answer, part) in [
        (&b""[..], "ended the stream"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "not HTTP"),
        (
            b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
            "refused with 302",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n", "Content-Length"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", "ended the stream"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", "too long"),
        (b"HTTP/1.1 500 x\r\nContent-Length: 13\r\n\r\n\x1b[2Joops\nline", "\\u{1b}[2Joops\\nline"),
    ] {
        let output = published(answer.to_vec());
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{said}");
        assert!(said.contains(part) && said.lines().count() == 1, "{part}: {said}");
    }
    // Interim answers without an end, and a page of a megabyte.
    let output = published(b"HTTP/1.1 100 Continue\r\n\r\n".repeat(80_000));
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("interim answers"), "{said}");
    let page = format!("HTTP/1.1 404 x\r\nContent-Length: 1000000\r\n\r\n{}", "x".repeat(1_000_000));
    let output = published(page.into_bytes());
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stderr.len() < 1_000, "{} bytes", output.stderr.len());
}

#[test]
fn a_message_over_the_limit_is_told_as_such() {
    let server = Server::spawn(on_free_ports(&["--loops", "1"], &[]));
    let admin = server.admin.to_string();
    let mut child = command(&["publish", "--admin", &admin, "--binary", "t"], &[])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("the binary starts");
    child.stdin.take().expect("piped").write_all(&vec![0; 20 << 20]).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("refused with 413"), "{said}");
}

/// A server that takes everything and never answers.
#[test]
fn a_server_that_says_nothing_is_given_up_in_time() {
    let (address, server) = serve(|listener| {
        let (mut stream, _) = listener.accept().expect("a client");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let started = Instant::now();
    let (code, _, said) = Connect::to(address, "/", &["--listen", "--timeout", "0.5"]).end();
    assert_eq!(code, Some(1), "{said}");
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    server.join().expect("served");
}

/// One byte of a head a time, and then more of it than a head may have.
#[test]
fn an_answer_without_an_end_is_given_up() {
    let (address, server) = serve(|listener| {
        let (mut stream, _) = listener.accept().expect("a client");
        let fields = b"X: y\r\n".repeat(10_000);
        let _ = stream.write_all(b"HTTP/1.1 101 x\r\n").and_then(|()| stream.write_all(&fields));
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let (code, _, said) = Connect::to(address, "/", &["--listen"]).end();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("answer"), "{said}");
    server.join().expect("served");
}

/// Frames no client may take: each is told its code, and the end is 1.
#[test]
fn bad_frames_are_violations() {
    for (frame, code) in [
        // 2^63 bytes and more, 2^62, one byte over the limit.
        (&[0x82, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff][..], 1002_u16),
        (&[0x82, 127, 0x40, 0, 0, 0, 0, 0, 0, 0], 1009),
        (&[0x82, 127, 0, 0, 0, 0, 4, 0, 0, 1], 1009),
        (&[0x81, 0x81, 1, 2, 3, 4, b'x'], 1002),
        (&[0x89, 126, 0, 126], 1002),
        (&[0x83, 0], 1002),
        (&[0x88, 2, 0x03, 0xed], 1002),
    ] {
        let frame = frame.to_vec();
        let (address, server) = serve(move |listener| {
            let (_, mut stream) = accept(&listener, None);
            stream.write_all(&frame).expect("it reads");
            let (opcode, payload) = crate::connect::client_frame(&mut stream);
            assert_eq!((opcode, payload.get(..2)), (8, Some(&code.to_be_bytes()[..])), "{frame:?}");
        });
        let (end, _, said) = Connect::to(address, "/", &["--listen", "--reconnect"]).end();
        assert_eq!(end, Some(1), "{said}");
        server.join().expect("told");
    }
}
