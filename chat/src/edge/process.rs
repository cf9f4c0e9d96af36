//! This program as the edge: the server's own command line, until whoever started it has gone. Nothing of the chat runs
//! in it; it has neither the chat's threads nor its database.

use std::ffi::OsString;
use std::io::{Read, stdin};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;

use fantail::sys::signals;

/// The first argument that makes it the edge. The second is the folder that goes with it, or nothing; what follows is the
/// server's own.
pub(crate) const ARGUMENT: &str = "edge-process";

/// What names of such folders begin with: no other is ever taken away.
pub(crate) const FOLDER: &str = "fantail-chat-edge-";

/// Serves. `words` are the program's name, [`ARGUMENT`], the folder, and the server's arguments.
pub(crate) fn main(mut words: Vec<OsString>) -> ExitCode {
    if words.len() < 3 {
        eprintln!("fantail-chat: {ARGUMENT} is for the program itself");
        return ExitCode::FAILURE;
    }
    let folder = words.drain(1..3).next_back().map(PathBuf::from).unwrap_or_default();
    // Threads inherit it: a signal is for the server's own thread, and not for the one below.
    if let Err(error) = signals::block_all() {
        eprintln!("fantail-chat: the edge cannot block signals: {error}");
        return ExitCode::FAILURE;
    }
    thread::spawn(move || end_with_the_parent(&folder));
    fantail::cli::main_of(words)
}

/// Standard input is a pipe that only the chat has the other end of: the kernel closes it whatever ends the chat.
fn end_with_the_parent(folder: &Path) {
    let mut byte = [0];
    while stdin().read(&mut byte).is_ok_and(|read| read > 0) {}
    // Who was killed could not take the secrets away.
    if folder.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(FOLDER.as_bytes())) {
        let _ = std::fs::remove_dir_all(folder);
    }
    std::process::exit(0);
}
