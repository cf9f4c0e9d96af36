//! `fantail connect URL`: a WebSocket on the terminal. Lines of standard input go out as text messages,
//! what comes is printed, remarks about the connection go to standard error.

use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use crate::client::backoff::BackoffLimits;
use crate::client::dial::Request;
use crate::client::messages::Event;
use crate::client::session::{self, Options, Screen};
use crate::client::url::Url;

use super::{FAILED, MISUSED, fail};

pub(super) const EXAMPLES: &str = "\
At the end of standard input the connection is closed, unless --count or --timeout asks to go on listening.

With --reconnect a lost connection and a server that goes away (1001) are tried again, after a random delay below a \
bound that doubles up to 30 s and starts over after 10 s of connection. A line sent while the connection broke may be \
lost.

Exit codes: 0 closed with 1000 or 1001, 1 any other end, 2 wrong usage.

Examples:
  fantail connect ws://127.0.0.1:8080/ws
      Talk on the topic \"lobby\"; Ctrl-D closes.
  fantail connect --listen --reconnect ws://127.0.0.1:8080/ws/prices > prices.log
      Write down every message of a topic, across restarts of the server.
  echo hello | fantail connect --count 1 --timeout 5 ws://127.0.0.1:8080/echo
      A health check: one echo within five seconds.
  fantail connect -H 'Authorization: Bearer abc' --origin https://app.example ws://127.0.0.1:8080/ws
      Look like an application's page.";

/// Flags of `connect`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(super) struct ConnectArgs {
    /// Where to connect, such as ws://127.0.0.1:8080/ws/TOPIC; TLS (wss) is not built in
    #[arg(value_name = "URL")]
    url: String,
    /// Further request field; may be repeated. Other users of the machine see a command line: see --header-file
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// File with further request fields, one a line
    #[arg(long, value_name = "FILE")]
    header_file: Option<std::path::PathBuf>,
    /// Origin to send, as a web page would
    #[arg(long, value_name = "ORIGIN")]
    origin: Option<String>,
    /// Subprotocol to offer, the favourite first; may be repeated
    #[arg(short = 's', long = "subprotocol", value_name = "NAME")]
    subprotocols: Vec<String>,
    /// Don't read standard input
    #[arg(short, long)]
    listen: bool,
    /// Write binary messages as they are, one behind the other; otherwise each is a line of hexadecimal digits
    #[arg(long)]
    binary_out: bool,
    /// Come back after a loss, with exponential backoff and full jitter
    #[arg(short, long)]
    reconnect: bool,
    /// Give up after so many failed attempts in a row; 0 never does
    #[arg(long, value_name = "N", default_value_t = 0, requires = "reconnect")]
    attempts: u32,
    /// Close after this many messages have come
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    /// Close after this many seconds; exit code 1 if --count messages have not come by then
    #[arg(short, long, value_name = "SECONDS", value_parser = seconds)]
    timeout: Option<Duration>,
}

/// Connects, and stays until there is nothing left to do.
pub(super) fn run(args: &ConnectArgs) -> ExitCode {
    let options = match args.options() {
        Ok(options) => options,
        Err(problem) => return fail(MISUSED, &problem),
    };
    let input = (!args.listen).then(|| io::BufReader::new(io::stdin()));
    let screen = Arc::new(Terminal { binary_out: args.binary_out });
    match session::run(options, input, screen) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => fail(FAILED, &problem),
    }
}

impl ConnectArgs {
    fn options(&self) -> Result<Options, String> {
        let mut headers: Vec<_> = self.headers.iter().map(|text| header(text)).collect::<Result<_, _>>()?;
        if let Some(path) = &self.header_file {
            let text = std::fs::read_to_string(path)
                .map_err(|error| format!("{}: cannot be read: {error}", path.display()))?;
            for line in text.lines().filter(|line| !line.trim().is_empty()) {
                // The line may hold a token: it is not quoted.
                headers.push(
                    header(line)
                        .map_err(|_| format!("{}: expects lines such as \"Name: value\"", path.display()))?,
                );
            }
        }
        if let Some(name) = self.subprotocols.iter().find(|name| !is_token(name)) {
            return Err(format!("--subprotocol {name:?}: expects a name without spaces and separators"));
        }
        if self.origin.as_deref().is_some_and(|origin| !is_value(origin)) {
            return Err("--origin: expects visible ASCII".to_owned());
        }
        Ok(Options {
            url: Url::parse_ws(&self.url)?,
            request: Request {
                origin: self.origin.clone(),
                subprotocols: self.subprotocols.clone(),
                headers,
            },
            reconnect: self.reconnect.then(BackoffLimits::default),
            attempts_max: self.attempts,
            count: self.count,
            timeout: self.timeout,
        })
    }
}

/// `Name: value`, fit for a request.
fn header(text: &str) -> Result<(String, String), String> {
    let wrong = || format!("--header {text:?}: expects \"Name: value\"");
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    let value = value.trim();
    if is_token(name) && is_value(value) { Ok((name.to_owned(), value.to_owned())) } else { Err(wrong()) }
}

/// A token (RFC 9110, 5.6.2).
fn is_token(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// A field value that cannot end its line (RFC 9110, 5.5).
fn is_value(value: &str) -> bool {
    value.bytes().all(|b| b == b' ' || b == b'\t' || b.is_ascii_graphic())
}

/// A time from the command line.
fn seconds(text: &str) -> Result<Duration, String> {
    let parsed = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    // Far beyond any use, and safe to add to an Instant.
    parsed
        .filter(|time| *time <= Duration::from_secs(1 << 31))
        .ok_or_else(|| "expects seconds, such as 2.5".into())
}

struct Terminal {
    binary_out: bool,
}

impl Screen for Terminal {
    fn message(&self, event: &Event) -> io::Result<()> {
        let mut out = io::stdout().lock();
        match event {
            Event::Text(text) => writeln!(out, "{text}")?,
            Event::Binary(bytes) if self.binary_out => out.write_all(bytes)?,
            Event::Binary(bytes) => {
                let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
                writeln!(out, "{digits}")?;
            }
            Event::Ping(_) | Event::Pong | Event::Close { .. } => {}
        }
        // Whoever reads a pipe wants the message now.
        out.flush()
    }

    fn remark(&self, line: &str) {
        // Standard error may be closed; messages go on.
        let _ = writeln!(io::stderr().lock(), "fantail: {line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_cannot_smuggle_a_line() {
        assert_eq!(header("A-b: c d "), Ok(("A-b".into(), "c d".into())));
        assert_eq!(header("A:"), Ok(("A".into(), String::new())));
        for bad in ["", "a", ": x", "a b: c", "A: b\r\nC: d", "A: \u{e9}"] {
            assert!(header(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn usage_is_checked_before_anything_is_connected() {
        let args = |url: &str| ConnectArgs { url: url.to_owned(), ..ConnectArgs::default() };
        assert!(args("ws://h/").options().is_ok());
        assert!(args("wss://h/").options().unwrap_err().contains("TLS"));
        let bad = ConnectArgs { subprotocols: vec!["a b".into()], ..args("ws://h/") };
        assert!(bad.options().is_err());
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["-1", "nan", "inf", "1e30", ""] {
            assert!(seconds(bad).is_err(), "{bad:?}");
        }
    }
}
