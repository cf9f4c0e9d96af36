//! The `fantail-loadtest` binary: a load generator for WebSocket servers that holds very many
//! connections and tells exactly what arrived and when.
//!
//! `args` → one file per command in `commands` → `run` (main thread) and `worker` (threads) →
//! `connection`. `publisher` is a thread of its own; `report` is what all commands print alike.

mod args;
mod commands;
mod connection;
mod failure;
mod handshake;
mod histogram_columns;
mod html;
mod inflating;
mod json_text;
mod memory_kinds;
mod message;
mod progress;
mod publisher;
mod regression;
mod report;
mod result_file;
mod run;
mod schedule;
mod sequence;
mod series;
mod server_process;
mod tally;
mod target;
mod worker;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let outcome = match args::Cli::parse().command {
        args::Command::Idle(args) => commands::idle::run(&args),
        args::Command::Fanout(args) => commands::fanout::run(&args),
        args::Command::Echo(args) => commands::echo::run(&args),
        args::Command::Memory(args) => commands::memory::run(&args),
        args::Command::Compare(args) => commands::compare::run(&args),
        args::Command::Merge(args) => commands::merge::run(&args),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => {
            eprintln!("fantail-loadtest: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}
