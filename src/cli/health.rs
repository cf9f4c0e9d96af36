//! `fantail health`: asks the admin port of a running server how it is, for health checks that have no other
//! program at hand. Needs no key.

use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;

use crate::client::http::{Answer, get};
use crate::client::url::Url;

use super::admin_at::AdminAt;
use super::terminal::shown;
use super::tls_flags::TlsFlags;
use super::{FAILED, MISUSED, fail, print};

/// Bytes shown of an answer.
const SAID_BYTES_MAX: usize = 200;

pub(super) const EXAMPLES: &str = "\
Without --ready it asks whether every event loop turns (/healthz), with it whether newcomers are welcome, too \
(/readyz). A server that drains or is full is well and not ready.

Exit codes: 0 yes, 1 no or no answer, 2 wrong usage.

Examples:
  fantail health
      Is the server on this machine well?
  fantail health --ready --admin 127.0.0.1:9081 --timeout 1
      Does another one want new clients? Give it a second.
  fantail health --config /etc/fantail/fantail.toml
      Is the server of this file well?
  HEALTHCHECK CMD [\"fantail\", \"health\"]
      In a Dockerfile; FANTAIL_SERVER_ADMIN and FANTAIL_CONFIG are the server's and this command's at once.";

/// Flags of `health`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(super) struct HealthArgs {
    #[command(flatten)]
    admin: AdminAt,
    /// Ask whether it wants new clients, too
    #[arg(long)]
    ready: bool,
    /// Seconds to wait for the answer
    #[arg(long, value_name = "SECONDS", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=3600))]
    timeout: u64,
    #[command(flatten)]
    tls: TlsFlags,
}

/// Asks, prints the answer and gives it as exit code.
pub(super) fn run(args: &HealthArgs) -> ExitCode {
    let admin = match args.admin.address() {
        Ok(admin) => admin,
        Err(problem) => return fail(MISUSED, &problem),
    };
    let url = match Url::parse_http(&admin, if args.ready { "/readyz" } else { "/healthz" }) {
        Ok(url) => url,
        Err(problem) => return fail(MISUSED, &format!("--admin {problem}")),
    };
    let mut tls = args.tls.clone();
    // By the server's own variables or file, on this machine: its certificate is for other names than that, and nothing
    // secret is said. So the check of an image is right with TLS and without.
    tls.insecure |=
        url.secure && !args.admin.names_scheme() && is_here(&url.host) && tls == TlsFlags::default();
    let tls = match tls.of(&url) {
        Ok(tls) => tls,
        Err(problem) => return fail(MISUSED, &problem),
    };
    match get(&url, tls.as_ref(), Duration::from_secs(args.timeout)) {
        Ok(answer) if answer.status == 200 => print(&format!("{}\n", said(&answer))),
        Ok(answer) => {
            fail(FAILED, &format!("{} answered {}: {}", url.authority, answer.status, said(&answer)))
        }
        Err(error) => fail(FAILED, &format!("no answer from {}: {error}", url.authority)),
    }
}

/// Whether it is an address of this machine's own that nobody else reaches.
fn is_here(host: &str) -> bool {
    host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback() || address.is_unspecified())
}

/// The beginning of the answer on one line: whoever answers there need not be a server of ours.
fn said(answer: &Answer) -> String {
    let text = String::from_utf8_lossy(answer.body.get(..SAID_BYTES_MAX).unwrap_or(&answer.body));
    shown(text.trim(), false).into_owned()
}
