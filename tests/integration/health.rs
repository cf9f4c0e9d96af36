//! `fantail health` against a server that is well, drains, hangs, is none of ours, or is not there.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::Command;
use std::thread;

use crate::server::{Server, command, fails, nobody, wait_for};

fn asked(admin: SocketAddr, flags: &[&str]) -> Command {
    let admin = admin.to_string();
    command(&[&["health", "--admin", &admin], flags].concat(), &[])
}

fn says(mut command: Command) -> (Option<i32>, String) {
    let output = command.output().expect("the binary runs");
    (output.status.code(), String::from_utf8(output.stdout).expect("UTF-8"))
}

#[test]
fn a_server_that_is_well_says_so_and_one_that_drains_is_not_ready() {
    let server = Server::start(&["--loops", "1"], &[("FANTAIL_DRAIN_DELAY_SECONDS", "600")]);
    assert_eq!(says(asked(server.admin, &[])), (Some(0), "ok\n".to_owned()));
    assert_eq!(says(asked(server.admin, &["--ready"])), (Some(0), "ready\n".to_owned()));
    server.terminate();
    wait_for("it not to be ready", || server.get("/readyz").status == 503);
    let (code, said) = fails(asked(server.admin, &["--ready"]));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("answered 503"), "{said}");
    assert_eq!(says(asked(server.admin, &[])).0, Some(0), "it is well until it has drained");
}

#[test]
fn a_server_that_is_full_is_well_and_not_ready() {
    let limit = ["--loops", "2", "--connections-max", "2"];
    let server = Server::start(&limit, &[]);
    let mut peers = vec![server.websocket("/ws")];
    assert_eq!(says(asked(server.admin, &["--ready"])), (Some(0), "ready\n".to_owned()));
    peers.push(server.websocket("/ws"));
    let (code, said) = fails(asked(server.admin, &["--ready"]));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("answered 503: full"), "{said}");
    assert_eq!(says(asked(server.admin, &[])).0, Some(0), "it is well");
    peers.pop();
    wait_for("a place to be free", || server.get("/readyz").status == 200);
    // Where all are full there is nobody else to send newcomers to.
    let kept = Server::start(&limit, &[("FANTAIL_SERVER_READY_WHEN_FULL", "true")]);
    let _peers = [kept.websocket("/ws"), kept.websocket("/ws")];
    assert_eq!(kept.get("/readyz").text(), "ready\n");
}

/// As in a container whose server takes requests from outside: one variable for both.
#[test]
fn the_variable_of_the_server_is_the_address_to_ask() {
    let variables =
        [("FANTAIL_SERVER_ADMIN", "0.0.0.0:0"), ("FANTAIL_ADMIN_KEYS", "read:0123456789abcdef0123")];
    let server = Server::spawn(command(&["--listen", "127.0.0.1:0", "--loops", "1"], &variables));
    let admin = server.admin.to_string();
    assert!(admin.starts_with("0.0.0.0:"), "{admin}");
    assert_eq!(says(command(&["health"], &[("FANTAIL_SERVER_ADMIN", &admin)])).0, Some(0));
}

/// A configuration file, gone when dropped.
struct ConfigFile(std::path::PathBuf);

impl ConfigFile {
    fn new(text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fantail-health-{}.toml", std::process::id()));
        std::fs::write(&path, text).expect("a file");
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for ConfigFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

#[test]
fn the_file_of_the_server_has_the_address_to_ask() {
    let server = Server::start(&["--loops", "1"], &[]);
    // A mistake that was made since the start is no reason to end a server that runs.
    let file =
        ConfigFile::new(&format!("[server]\nadmin = \"{}\"\nlops = 1\n[nonsense]\nx = 1\n", server.admin));
    let variable = [("FANTAIL_CONFIG", file.path())];
    assert_eq!(says(command(&["health"], &variable)), (Some(0), "ok\n".to_owned()));
    assert_eq!(says(command(&["health", "--ready", "--config", file.path()], &[])).0, Some(0));
    let (code, said) = says(command(&["publish", "lobby", "hello"], &variable));
    assert_eq!(code, Some(0), "{said}");
    // The address itself wins.
    let nowhere = [variable[0], ("FANTAIL_SERVER_ADMIN", "127.0.43.3:9")];
    assert_eq!(fails(command(&["health"], &nowhere)).0, Some(1));
    assert_eq!(fails(command(&["health", "--config", "/nonexistent/f.toml"], &[])).0, Some(2));
}

#[test]
fn nobody_there_is_a_failure() {
    let (_held, free) = nobody();
    let (code, said) = fails(asked(free, &[]));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(&format!("no answer from {free}")), "{said}");
}

#[test]
fn a_server_that_does_not_answer_is_a_failure_in_time() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (code, said) = fails(asked(silent.local_addr().expect("an address"), &["--timeout", "1"]));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("no answer from"), "{said}");
}

#[test]
fn what_a_stranger_answers_cannot_write_on_the_terminal() {
    let stranger = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = stranger.local_addr().expect("an address");
    let serving = thread::spawn(move || {
        let (mut stream, _) = stranger.accept().expect("a client");
        let mut asked = [0; 1024];
        let length = stream.read(&mut asked).expect("a request");
        stream.write_all(b"HTTP/1.1 500 x\r\nContent-Length: 6\r\n\r\n\x1b[31m!").expect("it reads");
        String::from_utf8(asked[..length].to_vec()).expect("UTF-8")
    });
    let (code, said) = fails(asked(address, &[]));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("answered 500") && !said.contains('\x1b'), "{said:?}");
    let asked = serving.join().expect("a request");
    assert!(asked.starts_with("GET /healthz HTTP/1.1\r\n") && asked.ends_with("\r\n\r\n"), "{asked:?}");
}

#[test]
fn misuse_is_told_from_failure() {
    for flags in [&["--admin", "ftp://h:1"][..], &["--admin", "h:1/healthz"], &["--timeout", "0"]] {
        let (code, said) = fails(command(&[&["health"], flags].concat(), &[]));
        assert_eq!(code, Some(2), "{said}");
    }
}
