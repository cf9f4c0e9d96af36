//! `fantail connect URL`: a WebSocket on the terminal. Lines of standard input go out as text messages,
//! what comes is printed, remarks about the connection go to standard error.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;

use crate::client::backoff::BackoffLimits;
use crate::client::dial::Request;
use crate::client::messages::Event;
use crate::client::session::{self, Options};
use crate::client::url::Url;

use super::terminal::shown;
use super::tls_flags::TlsFlags;
use super::{FAILED, MISUSED, fail};

pub(super) const EXAMPLES: &str = "\
At the end of standard input the connection is closed, unless --count or --timeout asks to go on listening.

With --reconnect a lost connection and a server that goes away (1001) are tried again, after a random delay below a \
bound that doubles up to 30 s and starts over after 10 s of connection. A line sent while the connection broke may be \
lost.

On a terminal, control characters of a message are shown as escapes; a file or a pipe gets messages as they are.

Exit codes: 0 closed with 1000 or 1001 and, with --count, not before all messages have come; 1 any other end, 2 wrong \
usage.

Examples:
  fantail connect ws://127.0.0.1:8080/ws
      Talk on the topic \"lobby\"; Ctrl-D closes.
  fantail connect --listen --reconnect ws://127.0.0.1:8080/ws/prices > prices.log
      Write down every message of a topic, across restarts of the server.
  echo hello | fantail connect --count 1 --timeout 5 ws://127.0.0.1:8080/echo
      A health check: one echo within five seconds.
  fantail connect --ca fantail-dev-cert/ca.pem wss://localhost:8443/ws
      Talk over TLS with a server whose certificate is of `fantail dev-cert`.
  fantail connect -s fantail.json.v1 ws://127.0.0.1:8080/ws
      Speak json: {\"type\":\"subscribe\",\"topic\":\"prices\"}; docs/protocol.md has every command.
  fantail connect -H 'Authorization: Bearer abc' --origin https://app.example ws://127.0.0.1:8080/ws
      Look like an application's page.";

/// Flags of `connect`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(super) struct ConnectArgs {
    /// Where to connect, such as ws://127.0.0.1:8080/ws/TOPIC or wss://localhost:8443/ws/TOPIC
    #[arg(value_name = "URL")]
    url: String,
    /// Further request field; may be repeated. Other users of the machine see a command line: see --header-file
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE")]
    headers: Vec<String>,
    /// File with further request fields, one a line
    #[arg(long, value_name = "FILE")]
    header_file: Option<std::path::PathBuf>,
    /// File with a token, to be sent as Authorization: Bearer; every user of the machine can read a command line
    #[arg(long, value_name = "FILE")]
    token_file: Option<std::path::PathBuf>,
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
    #[command(flatten)]
    tls: TlsFlags,
}

/// Connects, and stays until there is nothing left to do.
pub(super) fn run(args: &ConnectArgs) -> ExitCode {
    let options = match args.options() {
        Ok(options) => options,
        Err(problem) => return fail(MISUSED, &problem),
    };
    let input = (!args.listen).then(|| io::BufReader::new(io::stdin()));
    let terminal = io::stdout().is_terminal();
    if terminal && args.binary_out {
        return fail(MISUSED, "--binary-out: standard output is a terminal; send it to a file or a program");
    }
    let screen = Arc::new(Screen { terminal, binary_out: args.binary_out });
    match session::run(options, input, screen) {
        Ok(()) => ExitCode::SUCCESS,
        // It may quote the server.
        Err(problem) => fail(FAILED, &shown(&problem, false)),
    }
}

impl ConnectArgs {
    fn options(&self) -> Result<Options, String> {
        let mut headers = Vec::new();
        for (index, text) in self.headers.iter().enumerate() {
            // What is no header may still hold a token: it is not quoted.
            headers.push(header(text).ok_or_else(|| {
                format!("--header: expects \"Name: value\", which number {} is not", index + 1)
            })?);
        }
        if let Some(path) = &self.header_file {
            let text = std::fs::read_to_string(path)
                .map_err(|error| format!("{}: cannot be read: {error}", path.display()))?;
            for line in text.lines().filter(|line| !line.trim().is_empty()) {
                let wrong = || format!("{}: expects lines such as \"Name: value\"", path.display());
                headers.push(header(line).ok_or_else(wrong)?);
            }
        }
        if let Some(path) = &self.token_file {
            let text = std::fs::read_to_string(path)
                .map_err(|error| format!("{}: cannot be read: {error}", path.display()))?;
            let token = text.trim();
            if token.is_empty() || !is_token(token) {
                return Err(format!("{}: expects one token", path.display()));
            }
            headers.push(("Authorization".to_owned(), format!("Bearer {token}")));
        }
        if !self.subprotocols.iter().all(|name| is_token(name)) {
            // Not quoted either: some servers take tokens here.
            return Err("--subprotocol: expects names without spaces and separators".to_owned());
        }
        if self.origin.as_deref().is_some_and(|origin| !is_value(origin)) {
            return Err("--origin: expects visible ASCII".to_owned());
        }
        let url = Url::parse_ws(&self.url)?;
        let tls = self.tls.of(&url)?;
        Ok(Options {
            url,
            request: Request {
                origin: self.origin.clone(),
                subprotocols: self.subprotocols.clone(),
                headers,
                tls,
            },
            reconnect: self.reconnect.then(BackoffLimits::default),
            attempts_max: self.attempts,
            count: self.count,
            timeout: self.timeout,
        })
    }
}

/// `Name: value`, fit for a request; `None` for anything else.
fn header(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once(':')?;
    let value = value.trim();
    (is_token(name) && is_value(value)).then(|| (name.to_owned(), value.to_owned()))
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

/// Standard output and error.
struct Screen {
    /// Standard output is a terminal: messages are shown there, and written as they are elsewhere.
    terminal: bool,
    binary_out: bool,
}

impl Screen {
    /// A message as it is written.
    fn written<'a>(&self, event: &'a Event) -> Cow<'a, [u8]> {
        let line = |mut line: String| {
            line.push('\n');
            Cow::Owned(line.into_bytes())
        };
        match event {
            Event::Text(text) if self.terminal => line(shown(text, true).into_owned()),
            Event::Text(text) => line(text.clone()),
            Event::Binary(bytes) if self.binary_out => Cow::Borrowed(bytes),
            Event::Binary(bytes) => {
                let mut digits = String::with_capacity(2 * bytes.len() + 1);
                for byte in bytes {
                    // Writing to a String cannot fail.
                    let _ = write!(digits, "{byte:02x}");
                }
                line(digits)
            }
            Event::Ping(_) | Event::Pong | Event::Close { .. } => Cow::Borrowed(&[]),
        }
    }
}

impl session::Screen for Screen {
    fn message(&self, event: &Event) -> io::Result<()> {
        let mut out = io::stdout().lock();
        // Whoever reads a pipe wants the message now.
        out.write_all(&self.written(event)).and_then(|()| out.flush())
    }

    fn remark(&self, line: &str) {
        // Standard error may be closed; messages go on.
        let _ = writeln!(io::stderr().lock(), "fantail: {}", shown(line, false));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_cannot_smuggle_a_line() {
        assert_eq!(header("A-b: c d "), Some(("A-b".into(), "c d".into())));
        assert_eq!(header("A:"), Some(("A".into(), String::new())));
        for bad in ["", "a", ": x", "a b: c", "A: b\r\nC: d", "A: \u{e9}"] {
            assert_eq!(header(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn a_terminal_is_shown_what_a_pipe_gets_as_it_is() {
        let text = Event::Text("\u{1b}[2Jé\n\0".into());
        let bytes = Event::Binary(vec![0x1b, b'[', 0xff]);
        for (terminal, binary_out, event, written) in [
            (true, false, &text, "\\u{1b}[2Jé\n\\u{0}\n".as_bytes()),
            (false, false, &text, "\u{1b}[2Jé\n\0\n".as_bytes()),
            (true, false, &bytes, b"1b5bff\n"),
            (false, false, &bytes, b"1b5bff\n"),
            (false, true, &bytes, b"\x1b[\xff"),
        ] {
            assert_eq!(Screen { terminal, binary_out }.written(event).as_ref(), written);
        }
    }

    #[test]
    fn no_error_quotes_what_may_be_a_secret() {
        let args = |url: &str| ConnectArgs { url: url.to_owned(), ..ConnectArgs::default() };
        let wrong = [
            ConnectArgs { headers: vec!["Authorization Bearer s3cret".into()], ..args("ws://h/") },
            ConnectArgs { subprotocols: vec!["bearer s3cret".into()], ..args("ws://h/") },
            ConnectArgs { origin: Some("s3cret\n".into()), ..args("ws://h/") },
            args("ws://me:s3cret@h/"),
            args("wss://me:s3cret@h/"),
            args("s3cret@h"),
            args("ws://h:x/?token=s3cret"),
            args("ws://h/?token=s3cret\n"),
            args("wss:/h/?token=s3cret"),
        ];
        for args in wrong {
            let problem = args.options().expect_err("wrong usage");
            assert!(!problem.contains("s3cret"), "{problem}");
        }
    }

    #[test]
    fn usage_is_checked_before_anything_is_connected() {
        let args = |url: &str| ConnectArgs { url: url.to_owned(), ..ConnectArgs::default() };
        assert!(args("ws://h/").options().is_ok());
        let tls = TlsFlags { insecure: true, ..TlsFlags::default() };
        assert!(ConnectArgs { tls: tls.clone(), ..args("wss://h/") }.options().is_ok());
        let pointless = ConnectArgs { tls, ..args("ws://h/") };
        assert!(pointless.options().unwrap_err().contains("--insecure: is for TLS"));
        let bad = ConnectArgs { subprotocols: vec!["a b".into()], ..args("ws://h/") };
        assert!(bad.options().is_err());
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for bad in ["-1", "nan", "inf", "1e30", ""] {
            assert!(seconds(bad).is_err(), "{bad:?}");
        }
    }
}
