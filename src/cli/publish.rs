//! `fantail publish TOPIC [MESSAGE]`: one message through the admin port of a running server.

use std::io::{IsTerminal, Read, stdout};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::client::http::post;
use crate::client::url::{Url, percent_encode};

use super::admin_at::AdminAt;
use super::terminal::shown;
use super::tls_flags::TlsFlags;
use super::{FAILED, MISUSED, fail, print};

/// The variable that holds a key for the admin port.
const KEY_VARIABLE: &str = "FANTAIL_ADMIN_KEY";

/// Longest message read from standard input; the server's own limit is usually far below.
const MESSAGE_BYTES_MAX: u64 = 1 << 30;

/// How long a publish may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Bytes shown of a refusal.
const REASON_BYTES_MAX: usize = 500;

pub(super) const EXAMPLES: &str = "\
A key for the admin port is taken from the variable FANTAIL_ADMIN_KEY or the file of --key-file, never from the \
command line, which every user of the machine can read.

Exit codes: 0 published, 1 refused or no connection, 2 wrong usage.

Examples:
  fantail publish lobby 'hello everybody'
      Publish one text message; the answer is its place in the topic and the number of subscribers.
  date | fantail publish clock
      Publish standard input as one message.
  fantail publish --binary images/latest - < picture.png
      Publish bytes.
  fantail publish --admin 127.0.0.1:9081 --key-file /etc/fantail/publish.key news 'hello'
      Another server, with a key.";

/// Flags of `publish`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(super) struct PublishArgs {
    /// The topic; it may contain slashes
    #[arg(value_name = "TOPIC")]
    topic: String,
    /// The message; without it, or with -, all of standard input is the message
    #[arg(value_name = "MESSAGE")]
    message: Option<String>,
    #[command(flatten)]
    admin: AdminAt,
    /// Publish a binary message instead of text
    #[arg(short, long)]
    binary: bool,
    /// File whose first line is the key [env: FANTAIL_ADMIN_KEY holds the key itself]
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    #[command(flatten)]
    tls: TlsFlags,
}

/// Publishes and prints the server's answer.
pub(super) fn run(args: &PublishArgs) -> ExitCode {
    let binary = if args.binary { "?binary=1" } else { "" };
    let target = format!("/publish/{}{binary}", percent_encode(&args.topic));
    let admin = match args.admin.address() {
        Ok(admin) => admin,
        Err(problem) => return fail(MISUSED, &problem),
    };
    let url = match Url::parse_http(&admin, &target) {
        Ok(url) if !args.topic.is_empty() => url,
        Ok(_) => return fail(MISUSED, "TOPIC: expects 1 to 200 bytes"),
        Err(problem) => return fail(MISUSED, &format!("--admin {problem}")),
    };
    let tls = match args.tls.of(&url) {
        Ok(tls) => tls,
        Err(problem) => return fail(MISUSED, &problem),
    };
    let authorization = match args.key() {
        Ok(key) => key.map(|key| format!("Bearer {key}")),
        Err(problem) => return fail(MISUSED, &problem),
    };
    let message = match args.message() {
        Ok(message) => message,
        Err(error) => return fail(FAILED, &format!("standard input cannot be read: {error}")),
    };
    // The server would refuse it, too, in words of its own interface.
    if !args.binary && std::str::from_utf8(&message).is_err() {
        return fail(FAILED, "the message is not UTF-8; publish it with --binary");
    }
    let headers: Vec<_> = authorization.iter().map(|value| ("Authorization", value.as_str())).collect();
    match post(&url, tls.as_ref(), &headers, &message, TIMEOUT) {
        Ok(answer) if answer.status == 200 => {
            let said = String::from_utf8_lossy(&answer.body);
            print(&if stdout().is_terminal() { shown(&said, true) } else { said.as_ref().into() })
        }
        Ok(answer) => fail(FAILED, &format!("refused with {}: {}", answer.status, reason(&answer.body))),
        Err(error) => fail(FAILED, &format!("cannot publish through {}: {error}", url.authority)),
    }
}

/// Whether this is a line of a server's file of keys: a remark, or scopes, a colon and a secret. No secret that a server
/// takes has a colon or begins so.
fn is_server_key(line: &str) -> bool {
    let scopes = line.split_once(':').map(|(scopes, _)| scopes);
    let known = |scope: &str| matches!(scope.trim(), "publish" | "read" | "admin");
    line.starts_with('#') || scopes.is_some_and(|scopes| scopes.split('+').all(known))
}

/// The beginning of a refusal, on one line: whoever answers there need not be a server of ours.
fn reason(body: &[u8]) -> String {
    let said = String::from_utf8_lossy(body.get(..REASON_BYTES_MAX).unwrap_or(body));
    shown(said.trim(), false).into_owned()
}

impl PublishArgs {
    fn message(&self) -> std::io::Result<Vec<u8>> {
        match self.message.as_deref() {
            Some(message) if message != "-" => Ok(message.as_bytes().to_vec()),
            _ => {
                let mut bytes = Vec::new();
                std::io::stdin().lock().take(MESSAGE_BYTES_MAX).read_to_end(&mut bytes)?;
                Ok(bytes)
            }
        }
    }

    /// The key; errors never quote it.
    fn key(&self) -> Result<Option<String>, String> {
        let (key, from) = match &self.key_file {
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| format!("{}: cannot be read: {error}", path.display()))?;
                (text.lines().next().unwrap_or_default().trim().to_owned(), path.display().to_string())
            }
            None => match std::env::var(KEY_VARIABLE) {
                Ok(key) => (key.trim().to_owned(), KEY_VARIABLE.to_owned()),
                Err(std::env::VarError::NotPresent) => return Ok(None),
                Err(std::env::VarError::NotUnicode(_)) => {
                    return Err(format!("{KEY_VARIABLE}: expects visible ASCII"));
                }
            },
        };
        if is_server_key(&key) {
            return Err(format!(
                "{from}: holds keys as the server's admin.keys and admin.keys_file have them, with their scopes; expects \
                 the secret of one alone, without \"publish:\""
            ));
        }
        // A token that cannot end its header line (RFC 6750, 2.1).
        if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("{from}: expects a key of visible ASCII without spaces"));
        }
        Ok(Some(key))
    }
}
