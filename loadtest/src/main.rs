//! The `fantail-loadtest` binary: a load generator for WebSocket servers that holds very many
//! connections and tells exactly what arrived and when.
//!
//! `args` → `drive` (a server of its own, repeats) → one file per command in `commands` → `run` (main thread) and `worker` (threads) →
//! `connection`. `publisher` is a thread of its own; `report` is what all commands print alike.

mod args;
mod args_kit;
mod bottleneck;
mod bystander;
mod commands;
mod connection;
mod conversation;
mod drive;
mod failure;
mod handshake;
mod histogram_columns;
mod html;
mod http_answer;
mod inflating;
mod interrupt;
mod json_text;
mod launched;
mod marker;
mod memory_kinds;
mod message;
mod messages_report;
mod pacing;
mod planning;
mod progress;
mod publisher;
mod regression;
mod repeat;
mod report;
mod result_file;
mod run;
mod schedule;
mod sequence;
mod series;
mod server_metrics;
mod server_process;
mod steps;
mod tally;
mod target;
mod template;
mod threshold;
mod tls;
mod vars;
mod visits;
mod worker;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    let command = args::Cli::parse().command;
    if let Err(error) = interrupt::catch() {
        progress::note(&format!("fantail-loadtest: signals: {error}"));
        return ExitCode::FAILURE;
    }
    let outcome = drive::run_command(command);
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(failure) => {
            progress::note(&format!("fantail-loadtest: {failure}"));
            ExitCode::from(failure.exit_code())
        }
    }
}
