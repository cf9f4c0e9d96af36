//! Runs the binary against small servers that show where a load generator can be wrong about its own half: publishers
//! that wait, protocols with a greeting, several topics, causes that get lost. Every server binds port 0 and ends with
//! the test process.

#[path = "../accept/mod.rs"]
mod accept;
mod alike;
mod causes;
mod conversation;
mod ending;
mod judging;
mod pacing;
mod places;
mod publisher;
#[path = "../real_server/mod.rs"]
mod real_server;
mod rooms;
#[path = "../scratch/mod.rs"]
mod scratch;
mod secrets;
mod staged;
mod topics;

use std::net::{SocketAddr, TcpListener};
use std::process::{Command, Output};

use scratch::Scratch;
use serde_json::Value;

/// A listener on a port of its own.
fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// The binary with these arguments.
fn generator(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fantail-loadtest"));
    command.args(args);
    command
}

/// Runs it to its end, whatever that is.
fn output(args: &[&str]) -> Output {
    generator(args).output().unwrap()
}

/// Runs it and returns the exit code, the result file, and what it printed.
#[track_caller]
fn run(args: &[&str]) -> (i32, Value, String) {
    let file = Scratch::new("faults.json");
    let output = generator(args).args(["--json", file.path()]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(std::fs::exists(file.path()).unwrap(), "{error}");
    let table = String::from_utf8(output.stdout).unwrap();
    (output.status.code().unwrap(), file.json(), table)
}

/// What it says on standard error where it ends with this exit code.
#[track_caller]
fn error(code: i32, args: &[&str]) -> String {
    let output = output(args);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{args:?}: {error}");
    error
}
