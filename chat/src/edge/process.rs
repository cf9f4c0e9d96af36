//! This program as the edge: the server's own command line, until whoever started it has gone. Nothing of the chat runs
//! in it; it has neither the chat's threads nor its database.

use std::ffi::OsString;
use std::io::{Read, stdin};
use std::process::ExitCode;
use std::thread;

use fantail::sys::signals;

/// The first argument that makes it the edge. What follows is the server's own.
pub(crate) const ARGUMENT: &str = "edge-process";

/// Serves. `words` are the program's name, [`ARGUMENT`] and the server's arguments.
pub(crate) fn main(mut words: Vec<OsString>) -> ExitCode {
    words.remove(1);
    // Threads inherit it: a signal is for the server's own thread, and not for the one below.
    if let Err(error) = signals::block_all() {
        eprintln!("fantail-chat: the edge cannot block signals: {error}");
        return ExitCode::FAILURE;
    }
    thread::spawn(end_with_the_parent);
    fantail::cli::main_of(words)
}

/// Standard input is a pipe that only the chat has the other end of: the kernel closes it whatever ends the chat.
fn end_with_the_parent() {
    let mut byte = [0];
    while stdin().read(&mut byte).is_ok_and(|read| read > 0) {}
    std::process::exit(0);
}
