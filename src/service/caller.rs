//! Calls to one address over HTTP/1.1, with or without TLS. Blocking, bounded in time and bytes.
//!
//! Driven by threads of services. Follows no redirect, heeds no variable of proxies, sends nothing of its own but what
//! HTTP needs, and says nothing in an error of what was sent or answered. One deadline is over the whole call: name,
//! connection, TLS, request and the last byte of the answer.

use std::fmt;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use ureq::Agent;
use ureq::http::{HeaderMap, Uri, header};
use ureq::tls::{Certificate, RootCerts, TlsConfig};
use ureq::unversioned::transport::{Connector, RustlsConnector, TcpConnector};

use super::names::Names;
use crate::metrics::calls::CallOutcome;
use crate::sys;

/// Bytes of an answer's body.
pub const ANSWER_BYTES_MAX: u64 = 1 << 20;

/// Bytes of its head.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Room for one line of a request: as many bytes as the longest head of a handshake may have (`limits.head_bytes_max`), whose
/// fields are passed on, and more. One that does not fit would fail here.
const LINE_BYTES_MAX: usize = 65 * 1024;

/// The longest time that a call may have.
pub(super) const DEADLINE_MAX: Duration = Duration::from_secs(60);

/// The longest pause that an answer may ask for (`Retry-After`): beyond, it is a mistake or malice.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// How long a connection without a call is kept. Servers close theirs, and the shorter the less often in our face.
const IDLE: Duration = Duration::from_secs(4);

/// What is called, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// The address.
    pub url: String,
    /// Trust the authorities in this PEM file, and not those of the system.
    pub ca: Option<PathBuf>,
    /// How long a call may take.
    pub deadline: Duration,
    /// Connections kept for the next calls.
    pub idle_max: usize,
}

/// One call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Request {
    /// Fields, in order.
    pub fields: Vec<(String, Vec<u8>)>,
    /// What is posted; without, it is a GET.
    pub body: Option<Vec<u8>>,
}

impl Request {
    /// Bytes of memory that it takes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let field =
            |(name, value): &(String, Vec<u8>)| size_of::<(String, Vec<u8>)>() + name.len() + value.len();
        self.fields.iter().map(field).sum::<usize>() + self.body.as_ref().map_or(0, Vec::len)
    }
}

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// How long to leave the server alone, if it asks for that.
    pub retry_after: Option<Duration>,
    /// How long it may be believed, if the server says so.
    pub fresh: Option<Duration>,
    /// The body.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CallError {
    /// Time has run out.
    Deadline,
    /// The name has no address.
    Name,
    /// No connection, or it broke off.
    Connection(ErrorKind),
    /// The certificate is not to be trusted, or TLS failed otherwise.
    Tls(String),
    /// It points elsewhere.
    Redirect(u16),
    /// Longer than [`ANSWER_BYTES_MAX`], or its head than 16 KiB.
    TooLong,
    /// It is not HTTP.
    NotHttp,
}

impl CallError {
    /// How a call that has come to this is counted, and called in logs.
    #[must_use]
    pub fn outcome(&self) -> CallOutcome {
        match self {
            Self::Deadline => CallOutcome::Deadline,
            Self::Name => CallOutcome::Name,
            Self::Connection(_) => CallOutcome::Connection,
            Self::Tls(_) => CallOutcome::Tls,
            Self::Redirect(_) => CallOutcome::Redirect,
            Self::TooLong => CallOutcome::TooLong,
            Self::NotHttp => CallOutcome::NotHttp,
        }
    }
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deadline => f.write_str("no whole answer in time"),
            Self::Name => f.write_str("its name has no address"),
            Self::Connection(kind) => write!(f, "no connection, or it broke off ({kind})"),
            Self::Tls(problem) => write!(f, "TLS: {problem}"),
            Self::Redirect(status) => write!(f, "it answers {status}; redirects are not followed"),
            Self::TooLong => f.write_str("its answer is longer than 1 MiB, or the head of it than 16 KiB"),
            Self::NotHttp => f.write_str("its answer is not HTTP"),
        }
    }
}

impl std::error::Error for CallError {}

/// Makes calls to one address; for any number of threads.
#[derive(Debug)]
pub struct Caller {
    agent: Agent,
    url: String,
    shown: String,
    deadline: Duration,
}

/// What may be shown of a URL: behind a question mark there may be a secret.
pub(super) fn shown_of(url: &str) -> &str {
    url.split(['?', '#']).next().unwrap_or_default()
}

/// Whether calls can be made to `url`.
///
/// # Errors
/// What it expects, for a sentence behind the key.
pub fn check_url(url: &str) -> Result<(), &'static str> {
    parse(url).map(drop)
}

pub(super) fn parse(url: &str) -> Result<Uri, &'static str> {
    const EXPECTS: &str = "expects a URL such as \"https://app.example/fantail\"";
    let uri: Uri = url.parse().map_err(|_| EXPECTS)?;
    let known = matches!(uri.scheme_str(), Some("http" | "https"));
    let authority = uri.authority().filter(|_| known).ok_or(EXPECTS)?;
    if authority.as_str().contains('@') {
        return Err("expects a URL without a name and password in it");
    }
    if authority.host().is_empty() || authority.as_str().ends_with(':') {
        return Err(EXPECTS);
    }
    Ok(uri)
}

impl Caller {
    /// Reads the authorities, if the address is one of https.
    ///
    /// # Errors
    /// The address or the authorities are of no use: one line that says why.
    pub fn new(plan: &Plan) -> Result<Self, String> {
        let uri = parse(&plan.url)?;
        let tls = TlsConfig::builder()
            .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()))
            .root_certs(roots(&uri, plan.ca.as_deref())?)
            .build();
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .tls_config(tls)
            .timeout_global(Some(plan.deadline.min(DEADLINE_MAX)))
            .timeout_await_100(Some(Duration::ZERO))
            .max_response_header_size(HEAD_BYTES_MAX)
            .max_idle_connections(plan.idle_max)
            .max_idle_connections_per_host(plan.idle_max)
            .max_idle_age(IDLE)
            // A head that fills it is told as the end of the stream.
            .input_buffer_size(2 * HEAD_BYTES_MAX)
            .output_buffer_size(LINE_BYTES_MAX)
            .user_agent("fantail")
            .accept("application/json")
            .accept_encoding("")
            .build();
        let connector = ().chain(TcpConnector::default()).chain(RustlsConnector::default());
        Ok(Self {
            agent: Agent::with_parts(config, connector, Names::default()),
            url: plan.url.clone(),
            // A query may be a secret.
            shown: shown_of(&plan.url).to_owned(),
            deadline: plan.deadline.min(DEADLINE_MAX),
        })
    }

    /// The address without what may be secret in it.
    #[must_use]
    pub fn shown(&self) -> &str {
        &self.shown
    }

    /// Makes a call. One that finds its connection closed by the other side is made a second time, within the same
    /// time: so it asks, and must not do.
    ///
    /// # Errors
    /// Why there is no whole answer.
    pub fn ask(&self, request: &Request) -> Result<Answer, CallError> {
        let deadline = Instant::now() + self.deadline;
        let first = self.exchange(request, deadline);
        // A server closes connections as it likes, and the news may be on its way when the next call begins.
        let (Err(Broken { error: CallError::Connection(kind), answered: false }), true) =
            (&first, Instant::now() < deadline)
        else {
            return first.map_err(|broken| broken.error);
        };
        match kind {
            ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => {
                self.exchange(request, deadline).map_err(|broken| broken.error)
            }
            _ => first.map_err(|broken| broken.error),
        }
    }

    fn exchange(&self, request: &Request, deadline: Instant) -> Result<Answer, Broken> {
        let silent = |error| Broken { error, answered: false };
        let left = deadline.saturating_duration_since(Instant::now());
        let sent = match &request.body {
            None => {
                let mut call = self.agent.get(&self.url);
                for (name, value) in &request.fields {
                    call = call.header(name, value.as_slice());
                }
                call.config().timeout_global(Some(left)).build().call()
            }
            Some(body) => {
                let mut call = self.agent.post(&self.url);
                for (name, value) in &request.fields {
                    call = call.header(name, value.as_slice());
                }
                call.config().timeout_global(Some(left)).build().send(body.as_slice())
            }
        };
        let answer = sent.map_err(|error| silent(error_of(error)))?;
        let broken = |error| Broken { error, answered: true };
        let status = answer.status();
        if status.is_redirection() {
            return Err(broken(CallError::Redirect(status.as_u16())));
        }
        let retry_after = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
        let retry_after = retry_after.and_then(|value| pause_of(value, SystemTime::now()));
        let fresh = fresh_of(answer.headers());
        let body = answer.into_body().into_with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
        let body = body.map_err(|error| broken(error_of(error)))?;
        Ok(Answer { status: status.as_u16(), retry_after, fresh, body })
    }
}

/// A call without an answer.
struct Broken {
    error: CallError,
    /// Whether the beginning of one was there.
    answered: bool,
}

/// The authorities that are trusted: none for an address without TLS.
fn roots(uri: &Uri, ca: Option<&Path>) -> Result<RootCerts, String> {
    let mut found = Vec::new();
    if uri.scheme_str() == Some("https") {
        match ca {
            Some(path) => {
                let wrong = |problem: &dyn fmt::Display| format!("{}: {problem}", path.display());
                let mut text = Vec::new();
                sys::file::open(path)
                    .and_then(|mut file| file.read_to_end(&mut text))
                    .map_err(|error| wrong(&format!("cannot be read: {error}")))?;
                for certificate in CertificateDer::pem_slice_iter(&text) {
                    let certificate =
                        certificate.map_err(|error| wrong(&format!("is broken PEM: {error}")))?;
                    let mut store = rustls::RootCertStore::empty();
                    store.add(certificate.clone()).map_err(|error| wrong(&error))?;
                    found.push(certificate);
                }
                if found.is_empty() {
                    return Err(wrong(&"has no certificate; expects PEM (-----BEGIN CERTIFICATE-----)"));
                }
            }
            None => found = rustls_native_certs::load_native_certs().certs,
        }
        if found.is_empty() {
            return Err("this system has no certificates of authorities: install ca-certificates, set SSL_CERT_FILE, \
                        or name a file with them"
                .to_owned());
        }
    }
    let found: Vec<_> =
        found.iter().map(|certificate| Certificate::from_der(certificate).to_owned()).collect();
    Ok(RootCerts::Specific(Arc::new(found)))
}

/// How long `Retry-After` wants to be left alone (RFC 9110, 10.2.3): seconds, or until a date.
fn pause_of(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    let pause = match value.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(pause.min(RETRY_AFTER_MAX))
}

/// How long caches may believe an answer (RFC 9111, 5.2.2): `max-age` without its `Age`, and no time at all where they are told
/// to ask each time. What else there is says nothing.
fn fresh_of(fields: &HeaderMap) -> Option<Duration> {
    let directives =
        fields.get_all(header::CACHE_CONTROL).into_iter().filter_map(|value| value.to_str().ok());
    let mut fresh = None;
    for directive in directives.flat_map(|value| value.split(',')) {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        let name = name.trim();
        if name.eq_ignore_ascii_case("no-cache") || name.eq_ignore_ascii_case("no-store") {
            return Some(Duration::ZERO);
        }
        if name.eq_ignore_ascii_case("max-age") {
            let value = value.trim().trim_matches('"');
            // One that is out of range is as large as they come (RFC 9111, 1.2.2), one that can't be read is none (4.2.1).
            let is_number = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
            let seconds = if is_number { value.parse().unwrap_or(u64::MAX) } else { 0 };
            // Of several the most restrictive (4.2.1).
            fresh = Some(fresh.map_or(seconds, |other: u64| other.min(seconds)));
        }
    }
    let age = fields.get(header::AGE).and_then(|value| value.to_str().ok()?.trim().parse().ok());
    fresh.map(|seconds| Duration::from_secs(seconds.saturating_sub(age.unwrap_or(0))))
}

/// Milliseconds of a span.
pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

/// What went wrong, without any text that a server has sent.
fn error_of(error: ureq::Error) -> CallError {
    match error {
        ureq::Error::Timeout(_) => CallError::Deadline,
        ureq::Error::HostNotFound => CallError::Name,
        ureq::Error::BodyExceedsLimit(_) | ureq::Error::LargeResponseHeader(..) => CallError::TooLong,
        ureq::Error::Rustls(error) => CallError::Tls(error.to_string()),
        ureq::Error::Tls(problem) => CallError::Tls(problem.to_owned()),
        ureq::Error::ConnectionFailed => CallError::Connection(ErrorKind::NotConnected),
        ureq::Error::Io(error) => of_io(error),
        _ => CallError::NotHttp,
    }
}

/// TLS tells its errors through the streams of the standard library.
fn of_io(error: std::io::Error) -> CallError {
    let kind = error.kind();
    match error.into_inner().map(|inner| inner.downcast::<rustls::Error>()) {
        Some(Ok(error)) => CallError::Tls(error.to_string()),
        _ if matches!(kind, ErrorKind::TimedOut | ErrorKind::WouldBlock) => CallError::Deadline,
        _ => CallError::Connection(kind),
    }
}

#[cfg(test)]
mod tests;
