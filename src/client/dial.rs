//! One connection made: resolve, connect, shake hands, upgrade. Blocking, each step with a bound in time and bytes.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::http::whole;
use super::stream::Stream;
use super::tls::Tls;
use super::url::Url;
use crate::wire::upgrade::{AnswerError, ClientRequest, answer_field, check_answer};

/// The longest a client waits for the connection and for the answer, each.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a refusal's body is waited for; it comes with the head, as a rule.
const REASON_TIMEOUT: Duration = Duration::from_secs(2);

/// Bytes of a refusal that are read for its reason.
const REASON_ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a reason.
const REASON_BYTES_MAX: usize = 500;

/// What to ask for. `Debug` names the further fields and does not show them: they may hold a token.
#[derive(Clone, Default)]
pub struct Request {
    /// The Origin field.
    pub origin: Option<String>,
    /// Subprotocols to offer, the favourite first.
    pub subprotocols: Vec<String>,
    /// Further fields.
    pub headers: Vec<(String, String)>,
    /// TLS, if the URL asks for it.
    pub tls: Option<Arc<Tls>>,
}

impl fmt::Debug for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Request")
            .field("origin", &self.origin)
            .field("headers", &names)
            .finish_non_exhaustive()
    }
}

/// An upgraded connection.
#[derive(Debug)]
pub struct Dialled {
    /// The stream.
    pub stream: Stream,
    /// Bytes behind the answer: frames already.
    pub rest: Vec<u8>,
    /// The subprotocol the server chose.
    pub subprotocol: Option<String>,
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DialError {
    /// One line.
    pub problem: String,
    /// Whether another attempt may end otherwise.
    pub try_again: bool,
    /// What the server asked to wait.
    pub retry_after: Option<Duration>,
}

impl DialError {
    fn io(what: &str, error: &io::Error) -> Self {
        // What is wrong with a certificate will be wrong the next time.
        let try_again = error.kind() != io::ErrorKind::InvalidData;
        Self { problem: format!("{what}: {error}"), try_again, retry_after: None }
    }

    fn answer(problem: String) -> Self {
        Self { problem, try_again: false, retry_after: None }
    }
}

/// Connects and upgrades; either may take `timeout`.
///
/// # Errors
/// No connection, or an answer that is no upgrade.
pub fn dial(url: &Url, request: &Request, timeout: Duration) -> Result<Dialled, DialError> {
    let at = format!("{}:{}", url.host, url.port);
    let stream = Stream::connect(url, request.tls.as_ref(), timeout)
        .map_err(|error| DialError::io(&format!("cannot connect to {at}"), &error))?;
    let key = random_bytes().map_err(|error| DialError::io("cannot get random bytes", &error))?;
    let protocols: Vec<&str> = request.subprotocols.iter().map(String::as_str).collect();
    let headers: Vec<_> =
        request.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    let mut bytes = Vec::new();
    ClientRequest {
        host: &url.authority,
        target: &url.target,
        key,
        origin: request.origin.as_deref(),
        protocols: &protocols,
        headers: &headers,
    }
    .write_into(&mut bytes);
    let deadline = Instant::now() + timeout;
    let failed = |error: io::Error| DialError::io(&format!("no answer from {at}"), &error);
    stream.write_by(&bytes, timeout, Some(deadline)).map_err(failed)?;
    let mut held = Vec::new();
    let head = loop {
        match check_answer(&held, &key) {
            Ok(Some(head)) => break head,
            Ok(None) => match read_some(&stream, &mut held, deadline) {
                Ok(true) => {}
                Ok(false) => return Err(failed(ended())),
                Err(error) => return Err(failed(error)),
            },
            Err(_) if request.tls.is_none() && is_tls(&held) => {
                return Err(DialError::answer(SPEAKS_TLS.to_owned()));
            }
            Err(error) => return Err(refused(error, &stream, held, deadline)),
        }
    };
    stream.wait_forever().map_err(failed)?;
    let rest = held.split_off(head);
    let subprotocol = chosen(&held, &request.subprotocols)?;
    Ok(Dialled { stream, rest, subprotocol })
}

/// As many random bytes as asked for, from the kernel.
///
/// # Errors
/// The kernel has none, which on Linux does not happen once it has started.
pub fn random_bytes<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(bytes)
}

/// Reads once, not beyond the deadline; false at an end in order.
pub(super) fn read_some(stream: &Stream, held: &mut Vec<u8>, deadline: Instant) -> io::Result<bool> {
    let mut some = [0; 16 * 1024];
    let count = stream.read_by(&mut some, Some(deadline))?;
    held.extend_from_slice(some.get(..count).unwrap_or_default());
    Ok(count > 0)
}

/// An end in order, where more was to come.
pub(super) fn ended() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the server ended the stream")
}

/// What a server says about itself that answers a plain request by a record of TLS.
pub(super) const SPEAKS_TLS: &str = "what answers there speaks TLS: use wss:// or https://";

/// Whether an answer begins as an alert or a handshake of TLS does (RFC 8446, 5.1).
pub(super) fn is_tls(held: &[u8]) -> bool {
    matches!(held, [21 | 22, 3, ..])
}

/// An answer that is no upgrade, with what it says about itself: the status alone is seldom the reason.
fn refused(error: AnswerError, stream: &Stream, mut held: Vec<u8>, deadline: Instant) -> DialError {
    let AnswerError::Refused(status) = error else { return DialError::answer(error.to_string()) };
    let deadline = deadline.min(Instant::now() + REASON_TIMEOUT);
    // What does not come, or is too long, is not waited for: the status is known.
    while held.len() < REASON_ANSWER_BYTES_MAX
        && let Ok(None) = whole(&held, false)
        && read_some(stream, &mut held, deadline).unwrap_or(false)
    {}
    let said = match whole(&held, true) {
        Ok(Some(answer)) => reason(answer_field(&held, "content-type"), &answer.body),
        _ => None,
    };
    judge_refusal(status, said, &held)
}

/// The first line of a body that is meant to be read as it is; a page is not.
fn reason(content_type: Option<String>, body: &[u8]) -> Option<String> {
    let content_type = content_type.unwrap_or_default();
    let kind = content_type.split(';').next().unwrap_or_default().trim();
    if !["text/plain", "application/json", "application/problem+json"].contains(&kind) {
        return None;
    }
    let text = String::from_utf8_lossy(body.get(..REASON_BYTES_MAX).unwrap_or(body));
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    Some(line.to_owned())
}

fn judge_refusal(status: u16, said: Option<String>, held: &[u8]) -> DialError {
    let retry_after = answer_field(held, "retry-after").and_then(|value| value.parse().ok());
    let said = said.map(|line| format!(": {line}")).unwrap_or_default();
    DialError {
        problem: format!("the server answered {status}{said}"),
        // 408, 425, 429 and 5xx speak of the moment; any other status will be the same again.
        try_again: matches!(status, 408 | 425 | 429 | 500..=599),
        retry_after: retry_after.map(Duration::from_secs),
    }
}

/// What the server chose must have been offered (RFC 6455, 4.1).
fn chosen(head: &[u8], offered: &[String]) -> Result<Option<String>, DialError> {
    if answer_field(head, "sec-websocket-extensions").is_some_and(|value| !value.is_empty()) {
        return Err(DialError::answer("the server uses an extension that was not offered".to_owned()));
    }
    match answer_field(head, "sec-websocket-protocol") {
        None => Ok(None),
        Some(name) if offered.contains(&name) => Ok(Some(name)),
        Some(name) => Err(DialError::answer(format!("the server chose {name:?}, which was not offered"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] =
        b"HTTP/1.1 503 x\r\nRetry-After: 7 \r\nSec-WebSocket-Protocol: b\r\n\r\nretry-after: 9";

    #[test]
    fn a_refusal_says_whether_to_come_again() {
        let error = judge_refusal(503, None, HEAD);
        assert!(error.try_again);
        assert_eq!(error.retry_after, Some(Duration::from_secs(7)));
        assert!(!judge_refusal(403, None, b"HTTP/1.1 403 x\r\n\r\n").try_again);
    }

    #[test]
    fn a_reason_is_a_line_of_text_and_no_page() {
        let of = |kind: &str, body: &str| reason(Some(kind.to_owned()), body.as_bytes());
        assert_eq!(of("text/plain; charset=utf-8", "\n why \nmore").as_deref(), Some("why"));
        assert_eq!(of("application/json", "{\"a\":1}").as_deref(), Some("{\"a\":1}"));
        assert_eq!(of("text/html", "<h1>502</h1>"), None);
        assert_eq!((of("text/plain", " \r\n"), reason(None, b"x")), (None, None));
        assert_eq!(of("text/plain", &"x".repeat(10_000)).map(|line| line.len()), Some(REASON_BYTES_MAX));
    }

    #[test]
    fn only_what_was_offered_may_be_chosen() {
        let offers = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        assert_eq!(chosen(HEAD, &offers(&["a", "b"])).unwrap().as_deref(), Some("b"));
        assert!(chosen(HEAD, &offers(&["a"])).unwrap_err().problem.contains("\"b\""));
        assert_eq!(chosen(b"HTTP/1.1 101 x\r\n\r\n", &[]).unwrap(), None);
        for hidden in ["", "X: \u{e9}\r\n"] {
            // In Latin-1, which is no UTF-8.
            let head = format!("HTTP/1.1 101 x\r\n{hidden}Sec-WebSocket-Extensions: e\r\n\r\n");
            let head: Vec<u8> = head.chars().map(|c| c as u8).collect();
            assert!(chosen(&head, &[]).is_err(), "{hidden:?}");
        }
    }
}
