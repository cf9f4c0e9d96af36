//! Ctrl-C while nobody answers: there is nothing to wait for.

use std::io::{BufRead, BufReader, Read};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use fantail::sys::signals::{self, Signal};

/// A listener whose queue is full, so that whoever connects hears nothing, with what fills it.
fn full_queue() -> (TcpListener, Vec<TcpStream>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let patience = Duration::from_millis(500);
    let waiting = std::iter::from_fn(|| TcpStream::connect_timeout(&address, patience).ok()).collect();
    (listener, waiting)
}

#[test]
fn ctrl_c_does_not_wait_for_connections_that_nobody_answers() {
    let (listener, _waiting) = full_queue();
    let address = listener.local_addr().unwrap();
    let (ws, http) = (format!("ws://{address}/"), format!("http://{address}/"));
    for more in [
        &["echo", "--url", &ws][..],
        &["fanout", "--url", &ws, "--publish", "ws"],
        &["rolling", "--url", &ws, "--publish-url", &http],
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fantail-loadtest"));
        command.args(more).args(["--connections", "20", "--duration", "30s"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut errors = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("open 0") {
            assert!(errors.read_line(&mut said).unwrap() > 0, "{more:?}: {said}");
        }
        let begun = Instant::now();
        signals::send(child.id(), Signal::Interrupt).unwrap();
        errors.read_to_string(&mut said).unwrap();
        let output = child.wait_with_output().unwrap();
        // A connect alone would take ten seconds.
        assert!(begun.elapsed() < Duration::from_secs(7), "{more:?} took {:?}: {said}", begun.elapsed());
        // Nothing is called a failure that had no time to be one.
        let table = String::from_utf8_lossy(&output.stdout);
        assert!(!table.contains("could not be opened"), "{table}");
    }
}
