//! `fantail-chat`: a chat on Fantail. Reads the command line, starts the edge as a process of its own unless one runs
//! already, and serves; or prints a room (`tail`). The same program is that edge if its first argument says so: then nothing of the chat begins.

mod api;
mod cli;
mod connections;
mod edge;
mod limits;
mod names;
mod outbox;
mod page;
mod passwords;
mod random;
mod serve;
mod store;
mod tail;

use std::process::ExitCode;

fn main() -> ExitCode {
    let words: Vec<_> = std::env::args_os().collect();
    if words.get(1).is_some_and(|word| word == edge::process::ARGUMENT) {
        return edge::process::main(words);
    }
    cli::main()
}
