//! The command line, and what goes wrong before anything is served.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::{serve, tail};

const EXAMPLES: &str = "\
Examples:
  fantail-chat
      Serve on http://127.0.0.1:8090/ with the database ./fantail-chat.db and an edge of its own.
  fantail-chat --listen 0.0.0.0:8090 --edge-port 8091
      Serve everybody; the edge is at port 8091 of the same address.
  fantail-chat --edge https://edge.example --edge-admin http://10.0.0.5:8081 \\
      --edge-token-secret token.secret --edge-admin-key admin.key \\
      --database postgres://chat@db.example/chat --public-url https://chat.example --proxies 1
      Use an edge that runs, and PostgreSQL, behind a proxy that speaks TLS. docs/chat.md says what the edge needs.
  fantail-chat tail --user alice Lobby
      Print a room of a chat that runs.";

/// Serves a chat: accounts, rooms, messages. Starts an edge of its own unless one is named.
#[derive(Debug, Parser)]
#[command(name = "fantail-chat", version, after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// Address and port of the application
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8090")]
    pub(crate) listen: SocketAddr,
    /// File of SQLite, which is made if it is not there, or postgres://USER:PASSWORD@HOST/NAME
    #[arg(
        long,
        value_name = "DATABASE",
        default_value = "./fantail-chat.db",
        env = "FANTAIL_CHAT_DATABASE",
        hide_env_values = true
    )]
    pub(crate) database: String,
    /// Where people find the application, if that is elsewhere: https:// makes cookies secure
    #[arg(long, value_name = "URL")]
    pub(crate) public_url: Option<String>,
    /// Proxies in front, each of which adds to X-Forwarded-For
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) proxies: usize,
    /// Connections at most
    #[arg(long, value_name = "N", default_value_t = 4_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections: u32,
    /// Connections of one address at most, of an IPv6 network's /64 together; without a bound behind proxies
    #[arg(long, value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) connections_per_address: u32,
    /// Messages that who opens a room gets at first, 1 to 200
    #[arg(long, value_name = "N", default_value_t = 50, value_parser = clap::value_parser!(u8).range(1..=200))]
    pub(crate) history: u8,
    /// Port of the edge that is started, 0 for a free one
    #[arg(long, value_name = "PORT", default_value_t = 0, conflicts_with = "edge")]
    pub(crate) edge_port: u16,
    /// Where pages find the edge that is started, if a proxy stands in front of it: needed where theirs is https://
    #[arg(long, value_name = "URL", conflicts_with = "edge")]
    pub(crate) edge_public_url: Option<String>,
    /// An edge that runs already, as pages find it; none is started then
    #[arg(long, value_name = "URL", requires_all = ["edge_admin", "edge_token_secret"])]
    pub(crate) edge: Option<String>,
    /// Its admin port
    #[arg(long, value_name = "URL", requires = "edge")]
    pub(crate) edge_admin: Option<String>,
    /// File with the secret of its tokens
    #[arg(long, value_name = "FILE", requires = "edge")]
    pub(crate) edge_token_secret: Option<PathBuf>,
    /// File with a key of its admin port that opens everything, if it needs one
    #[arg(long, value_name = "FILE", requires = "edge")]
    pub(crate) edge_admin_key: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Print a room on this terminal: what is there, and what comes
    #[command(after_help = tail::EXAMPLES)]
    Tail(tail::TailArgs),
}

/// Runs the command line of this process to its end.
pub(crate) fn main() -> ExitCode {
    let mut arguments = Arguments::parse();
    if let Some(Command::Tail(asked)) = arguments.command.take() {
        return tail::main(asked);
    }
    let is_terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(is_terminal).with_target(false).init();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail(&format!("threads cannot be started: {error}")),
    };
    let outcome = runtime.block_on(serve::run(arguments));
    // Calls of the edge may still wait on threads; nothing of them is lost.
    runtime.shutdown_background();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

fn fail(error: &str) -> ExitCode {
    eprintln!("fantail-chat: {error}");
    ExitCode::FAILURE
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_is_well_formed() {
        <Arguments as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn an_edge_that_runs_needs_its_secret_and_its_admin_port() {
        let parse = |more: &[&str]| Arguments::try_parse_from([&["fantail-chat"], more].concat());
        assert!(parse(&[]).is_ok());
        assert!(parse(&["--edge", "http://a"]).is_err());
        assert!(parse(&["--edge-admin", "http://a"]).is_err());
        let whole = ["--edge", "http://a", "--edge-admin", "http://b", "--edge-token-secret", "c"];
        assert!(parse(&whole).is_ok());
        assert!(parse(&[&whole[..], &["--edge-port", "1"]].concat()).is_err());
        assert!(parse(&["--history", "0"]).is_err());
        assert!(parse(&[&whole[..], &["--edge-public-url", "https://e"]].concat()).is_err());
        assert!(parse(&["tail", "Lobby"]).is_ok());
        assert!(parse(&["tail"]).is_err());
        assert!(parse(&["--history", "9", "tail", "Lobby"]).is_err());
    }
}
