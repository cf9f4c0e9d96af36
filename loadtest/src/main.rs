//! The `fantail-loadtest` binary: a load generator for WebSocket servers that holds very many
//! connections and tells exactly what arrived and when.
//!
//! `cli` holds the flags, `commands` drives: one file a command, and `drive` for what all have (a server of its own,
//! repeats). A command starts an `engine`, publishes by `publish`, watches by `observe`, and hands plain values to
//! `result`, which judges, prints and writes. `net` and `tls` are below all of them.

mod base;
mod cli;
mod commands;
mod engine;
mod net;
mod observe;
mod publish;
mod result;
mod tls;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let command = cli::args::Cli::parse().command;
    if let Err(error) = base::interrupt::catch() {
        base::note::note(&format!("fantail-loadtest: signals: {error}"));
        return ExitCode::FAILURE;
    }
    let outcome = commands::drive::run_command(command);
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => {
            base::note::note(&format!("fantail-loadtest: {failure}"));
            ExitCode::from(failure.exit_code())
        }
    }
}
