//! Subcommands, one thin file each. Reads the command line and chooses the exit code; decides nothing else.
//!
//! Exit codes: 0 done, 1 failed while running, 2 wrong usage or configuration.

mod admin_at;
mod check_config;
mod connect;
mod dev_cert;
mod health;
mod preflight;
mod preflight_tls;
mod publish;
mod serve;
mod sizes;
mod terminal;
mod tls_flags;
mod token;

use std::ffi::OsString;
use std::io::{ErrorKind, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::{Settings, reference};

/// Exit code for a failure at run time.
const FAILED: u8 = 1;

/// Exit code for wrong usage or configuration; clap uses the same.
const MISUSED: u8 = 2;

const ABOUT: &str = "A WebSocket fan-out server: holds very many connections and delivers each published message to \
                     every subscriber of its topic.";

const EXAMPLES: &str = "\
Exit codes of serve: 0 stopped as it was asked to, 1 failed, 2 wrong usage or configuration.

Examples:
  fantail
      Serve on 127.0.0.1:8080, admin port on 127.0.0.1:8081.
  fantail serve --listen 0.0.0.0:8080 --connections-max 100000
      Serve everybody, up to 100,000 connections; loops are added as descriptors need them.
  fantail connect ws://127.0.0.1:8080/ws
      Be a client of the topic \"lobby\" on this terminal.
  curl -d hello http://127.0.0.1:8081/publish/lobby
      Publish to \"lobby\", as does: fantail publish lobby hello
  FANTAIL_TIMEOUTS_HEARTBEAT_SECONDS=0 fantail serve --config fantail.toml
      Take the configuration from a file, but send no heartbeats.";

#[derive(Debug, Parser)]
#[command(name = "fantail", version, about = ABOUT, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    serve: serve::ServeArgs,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve connections (the default without a subcommand).
    #[command(after_help = EXAMPLES, after_long_help = long_help())]
    Serve(serve::ServeArgs),
    /// Check the configuration, and print it with --print.
    #[command(after_help = check_config::EXAMPLES)]
    CheckConfig(check_config::CheckConfigArgs),
    /// Connect to a WebSocket: lines of standard input go out, messages are printed.
    #[command(after_help = connect::EXAMPLES)]
    Connect(connect::ConnectArgs),
    /// Publish one message through the admin port.
    #[command(after_help = publish::EXAMPLES)]
    Publish(publish::PublishArgs),
    /// Ask a running server whether it is well; for the health checks of containers.
    #[command(after_help = health::EXAMPLES)]
    Health(health::HealthArgs),
    /// Make a certificate for trying TLS out on this machine.
    #[command(after_help = dev_cert::EXAMPLES)]
    DevCert(dev_cert::DevCertArgs),
    /// Make a token (JWT) with a secret, or explain one with --check.
    #[command(after_help = token::EXAMPLES)]
    Token(token::TokenArgs),
    /// Tell whether this machine holds a number of connections, or clients take a certificate, and what to change if not.
    #[command(after_help = preflight::EXAMPLES)]
    Preflight(preflight::PreflightArgs),
    /// Predict the memory a load needs, part by part.
    #[command(after_help = sizes::EXAMPLES)]
    Sizes(sizes::SizesArgs),
}

/// Runs the command line of this process to its end.
pub fn main() -> ExitCode {
    main_of(std::env::args_os())
}

/// Runs a command line to its end, the program's name in front: for a program that has the server inside, as a process
/// of its own. Has to be called before the process has other threads that take signals.
pub fn main_of(words: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match <Cli as clap::CommandFactory>::command()
        .after_help(EXAMPLES)
        .after_long_help(long_help())
        .try_get_matches_from(words)
        .and_then(|matches| <Cli as clap::FromArgMatches>::from_arg_matches(&matches))
    {
        Ok(cli) => cli,
        Err(error) => {
            // Where the message cannot be written, the exit code still tells.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(MISUSED) } else { ExitCode::SUCCESS };
        }
    };
    match cli.command {
        Some(Command::Serve(args)) => serve::run(&args),
        Some(Command::CheckConfig(args)) => check_config::run(&args),
        Some(Command::Connect(args)) => connect::run(&args),
        Some(Command::Publish(args)) => publish::run(&args),
        Some(Command::Health(args)) => health::run(&args),
        Some(Command::DevCert(args)) => dev_cert::run(&args),
        Some(Command::Token(args)) => token::run(&args),
        Some(Command::Preflight(args)) => preflight::run(&args),
        Some(Command::Sizes(args)) => sizes::run(&args),
        None => serve::run(&cli.serve),
    }
}

/// Says every line on standard error and gives the exit code.
fn fail(code: u8, message: &str) -> ExitCode {
    // Standard error may be closed; the exit code still tells.
    let mut stderr = std::io::stderr().lock();
    for line in message.lines() {
        let _ = writeln!(stderr, "fantail: {}", terminal::shown(line, true));
    }
    ExitCode::from(code)
}

/// Writes to standard output and gives the exit code: a reader that has gone, such as `head`, is no failure, and
/// a full disk is.
fn print(text: &str) -> ExitCode {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            fail(FAILED, &format!("standard output cannot be written: {error}"))
        }
        _ => ExitCode::SUCCESS,
    }
}

/// The configuration file: the flag's, or the one that the environment names. Whoever starts a program from a template
/// sets a variable to nothing where it names no file.
fn config_file(flag: Option<&PathBuf>, environment: &[(OsString, OsString)]) -> Option<PathBuf> {
    let variable = || environment.iter().find(|(name, value)| name == "FANTAIL_CONFIG" && !value.is_empty());
    flag.cloned().or_else(|| variable().map(|(_, value)| PathBuf::from(value)))
}

fn long_help() -> String {
    format!(
        "{EXAMPLES}\n\nConfiguration: the TOML file of --config (or FANTAIL_CONFIG), then the environment, then flags; \
         the later one wins. Every key with its default and its environment variable:\n\n{}",
        reference(&Settings::default())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("fantail").chain(arguments.iter().copied()))
    }

    #[test]
    fn the_command_is_well_formed() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn flags_of_serve_work_with_and_without_the_subcommand() {
        let flags = ["--listen", "127.0.0.1:0", "--loops", "2", "--share-port"];
        let without = parse(&flags).unwrap();
        let Some(Command::Serve(with)) = parse(&[&["serve"][..], &flags].concat()).unwrap().command else {
            panic!("not serve");
        };
        assert_eq!(without.serve, with);
        assert!(without.command.is_none());
    }

    #[test]
    fn what_is_not_built_is_not_announced() {
        for unknown in [&["tail"][..], &["connect"], &["--nonsense"], &["serve", "extra"]] {
            assert!(parse(unknown).unwrap_err().use_stderr(), "{unknown:?}");
        }
    }

    #[test]
    fn the_long_help_names_every_variable() {
        let help = long_help();
        for name in ["FANTAIL_CONFIG", "FANTAIL_SERVER_LISTEN", "FANTAIL_PUBLISH_TOPICS", "FANTAIL_LOG_LEVEL"]
        {
            assert!(help.contains(name), "{name}");
        }
    }
}
