//! The opening handshake (RFC 6455 section 4), both sides.
//!
//! Owns what a request must have to become a WebSocket, and what the answer must be. Driven by the
//! head phase of a connection, and by the load generator for the client's side. Never decides which
//! paths, origins or subprotocols are welcome.

use super::http::head::{Body, Head, list_has};
use super::http::response::{ResponseBuffer, push_field, push_text};
use std::fmt;
use std::mem::MaybeUninit;
use tungstenite::handshake::derive_accept_key;

/// The length of a Sec-WebSocket-Accept.
const ACCEPT_BYTES: usize = 28;

/// The length of a Sec-WebSocket-Key.
const KEY_BYTES: usize = 24;

/// The longest answer a client reads.
const ANSWER_BYTES_MAX: usize = 16 * 1024;

/// Fields of an answer for which no memory is asked.
const ANSWER_FIELDS_USUAL: usize = 64;

/// A request that may become a WebSocket.
#[derive(Debug, Clone)]
pub struct Upgrade<'a> {
    /// The Sec-WebSocket-Accept of the answer.
    pub accept: [u8; ACCEPT_BYTES],
    head: Head<'a>,
}

impl<'a> Upgrade<'a> {
    /// See [`protocols`].
    pub fn protocols(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        protocols(&self.head)
    }

    /// The values of the Sec-WebSocket-Extensions fields, each a list of offers.
    pub fn extensions(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let fields = self.head.fields("sec-websocket-extensions");
        fields.filter_map(|value| core::str::from_utf8(value).ok())
    }
}

/// The subprotocols that a request offers, the client's favourite first.
pub fn protocols<'a>(head: &Head<'a>) -> impl Iterator<Item = &'a str> + use<'a> {
    let fields = head.fields("sec-websocket-protocol");
    let lists = fields.filter_map(|value| core::str::from_utf8(value).ok());
    lists.flat_map(|list| list.split(',')).map(str::trim_ascii).filter(|name| !name.is_empty())
}

/// Why a request does not become a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum UpgradeRefusal {
    /// Another method than GET.
    NotGet,
    /// No upgrade to `websocket` asked for.
    NotUpgrade,
    /// HTTP/1.0, which cannot upgrade.
    Http10,
    /// Another Sec-WebSocket-Version than 13, or none.
    BadVersion,
    /// No Sec-WebSocket-Key.
    MissingKey,
    /// A Sec-WebSocket-Key that is not 16 bytes in base64, or more than one.
    BadKey,
    /// A body.
    BodyPresent,
}

impl UpgradeRefusal {
    /// The status to answer with.
    pub const fn status(self) -> u16 {
        match self {
            Self::NotGet => 405,
            Self::NotUpgrade | Self::BadVersion => 426,
            Self::Http10 | Self::MissingKey | Self::BadKey | Self::BodyPresent => 400,
        }
    }

    /// The reason as one line.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotGet => "a WebSocket begins with GET",
            Self::NotUpgrade => "this is a WebSocket endpoint",
            Self::Http10 => "HTTP/1.0 cannot upgrade",
            Self::BadVersion => "Sec-WebSocket-Version must be 13",
            Self::MissingKey => "Sec-WebSocket-Key missing",
            Self::BadKey => "malformed Sec-WebSocket-Key",
            Self::BodyPresent => "an upgrade has no body",
        }
    }
}

impl fmt::Display for UpgradeRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for UpgradeRefusal {}

/// Judges a request by RFC 6455 section 4.2.1; a missing Host was refused with the head.
pub fn check<'a>(head: &Head<'a>) -> Result<Upgrade<'a>, UpgradeRefusal> {
    if head.method != "GET" {
        return Err(UpgradeRefusal::NotGet);
    }
    if !head.has_token("upgrade", "websocket") || !head.has_token("connection", "upgrade") {
        return Err(UpgradeRefusal::NotUpgrade);
    }
    if head.version_minor == 0 {
        return Err(UpgradeRefusal::Http10);
    }
    let mut versions = head.fields("sec-websocket-version");
    if (versions.next(), versions.next()) != (Some(b"13"), None) {
        return Err(UpgradeRefusal::BadVersion);
    }
    if !matches!(head.body, Body::None | Body::Length(0)) {
        return Err(UpgradeRefusal::BodyPresent);
    }
    let mut keys = head.fields("sec-websocket-key");
    let key = keys.next().ok_or(UpgradeRefusal::MissingKey)?;
    if keys.next().is_some() || !is_key(key) {
        return Err(UpgradeRefusal::BadKey);
    }
    Ok(Upgrade { accept: accept_for(key), head: head.clone() })
}

/// Appends the answer that makes the connection a WebSocket (RFC 6455 section 4.2.2).
///
/// The subprotocol must be one of those offered, and the extensions an answer to those offered.
pub fn write_accept(
    out: &mut ResponseBuffer,
    upgrade: &Upgrade<'_>,
    subprotocol: Option<&str>,
    extensions: Option<&str>,
) {
    out.reserve(232);
    out.push_status_line(101);
    out.extend_from_slice(b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ");
    out.extend_from_slice(&upgrade.accept);
    out.extend_from_slice(b"\r\n");
    for (name, value) in [("Sec-WebSocket-Protocol", subprotocol), ("Sec-WebSocket-Extensions", extensions)] {
        if let Some(value) = value {
            push_field(out, name, value);
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// A client's request for a WebSocket.
#[derive(Debug, Clone, Copy)]
pub struct ClientRequest<'a> {
    /// The Host field.
    pub host: &'a str,
    /// Path and query, escaped.
    pub target: &'a str,
    /// Sixteen random bytes.
    pub key: [u8; 16],
    /// The Origin field, as browsers send it.
    pub origin: Option<&'a str>,
    /// The subprotocols to offer, the favourite first.
    pub protocols: &'a [&'a str],
    /// Further fields.
    pub headers: &'a [(&'a str, &'a str)],
}

impl ClientRequest<'_> {
    /// Appends the request to `out`.
    pub fn write_into(&self, out: &mut Vec<u8>) {
        out.reserve(256);
        out.extend_from_slice(b"GET ");
        push_text(out, self.target);
        out.extend_from_slice(b" HTTP/1.1\r\n");
        push_field(out, "Host", self.host);
        out.extend_from_slice(b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n");
        out.extend_from_slice(b"Sec-WebSocket-Key: ");
        out.extend_from_slice(&encode_key(&self.key));
        out.extend_from_slice(b"\r\n");
        if let Some(origin) = self.origin {
            push_field(out, "Origin", origin);
        }
        for protocol in self.protocols {
            // Several fields are one list (RFC 6455 section 11.3.4).
            push_field(out, "Sec-WebSocket-Protocol", protocol);
        }
        for (name, value) in self.headers {
            push_field(out, name, value);
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Why a server's answer does not make a WebSocket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AnswerError {
    /// Not an HTTP response.
    Malformed,
    /// A head longer than any that is reasonable.
    TooLarge,
    /// Another status than 101.
    Refused(u16),
    /// 101 without the upgrade to `websocket`.
    NotUpgrade,
    /// A Sec-WebSocket-Accept that is missing or belongs to another key.
    BadAccept,
}

impl AnswerError {
    /// The status of the answer, if it had one.
    pub const fn status(self) -> Option<u16> {
        match self {
            Self::Refused(status) => Some(status),
            Self::NotUpgrade | Self::BadAccept => Some(101),
            Self::Malformed | Self::TooLarge => None,
        }
    }
}

impl fmt::Display for AnswerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("answer is not HTTP"),
            Self::TooLarge => f.write_str("answer too large"),
            Self::Refused(status) => write!(f, "answer has status {status}"),
            Self::NotUpgrade => f.write_str("answer does not upgrade to websocket"),
            Self::BadAccept => f.write_str("answer has a wrong Sec-WebSocket-Accept"),
        }
    }
}

impl std::error::Error for AnswerError {}

/// Judges the answer at the front of `bytes` by RFC 6455 section 4.1; returns the length of its head, or
/// `None` if it is not all there. Frames may follow the head at once.
pub fn check_answer(bytes: &[u8], key: &[u8; 16]) -> Result<Option<usize>, AnswerError> {
    with_answer(bytes, |parsed, answer| {
        let len = match parsed {
            Ok(httparse::Status::Complete(len)) => len,
            Ok(httparse::Status::Partial) if bytes.len() >= ANSWER_BYTES_MAX => {
                return Err(AnswerError::TooLarge);
            }
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(AnswerError::Malformed),
        };
        match answer.code {
            Some(101) => {}
            Some(status) => return Err(AnswerError::Refused(status)),
            None => return Err(AnswerError::Malformed),
        }
        let mut values = Answer::default();
        for field in answer.headers.iter() {
            values.collect(field);
        }
        if !(values.upgrade && values.connection) {
            return Err(AnswerError::NotUpgrade);
        }
        if values.accept != Some(&accept_for(&encode_key(key))) {
            return Err(AnswerError::BadAccept);
        }
        Ok(Some(len))
    })
}

/// A field of an answer whose head [`check_answer`] found whole; several of that name are one list.
#[must_use]
pub fn answer_field(head: &[u8], name: &str) -> Option<String> {
    with_answer(head, |parsed, answer| {
        parsed.ok()?;
        let named = answer.headers.iter().filter(|field| field.name.eq_ignore_ascii_case(name));
        let values: Vec<_> = named.map(|field| String::from_utf8_lossy(field.value)).collect();
        (!values.is_empty()).then(|| values.join(", "))
    })
}

/// Parses an answer with however many fields it has: what bounds them is its bytes.
fn with_answer<T>(
    bytes: &[u8],
    judge: impl FnOnce(httparse::Result<usize>, &httparse::Response<'_, '_>) -> T,
) -> T {
    let config = httparse::ParserConfig::default();
    let mut few = [const { MaybeUninit::uninit() }; ANSWER_FIELDS_USUAL];
    let mut answer = httparse::Response::new(&mut []);
    let parsed = config.parse_response_with_uninit_headers(&mut answer, bytes, &mut few);
    if parsed != Err(httparse::Error::TooManyHeaders) {
        return judge(parsed, &answer);
    }
    // No field is shorter than a letter, a colon and a line end.
    let mut many = vec![MaybeUninit::uninit(); bytes.len() / 4 + 1];
    let mut answer = httparse::Response::new(&mut []);
    let parsed = config.parse_response_with_uninit_headers(&mut answer, bytes, &mut many);
    judge(parsed, &answer)
}

/// What the fields of an answer say.
#[derive(Default)]
struct Answer<'a> {
    upgrade: bool,
    connection: bool,
    accept: Option<&'a [u8]>,
}

impl<'a> Answer<'a> {
    fn collect(&mut self, field: &httparse::Header<'a>) {
        let is = |name: &str| field.name.eq_ignore_ascii_case(name);
        if is("upgrade") {
            self.upgrade |= field.value.eq_ignore_ascii_case(b"websocket");
        } else if is("connection") {
            self.connection |= list_has(field.value, "upgrade");
        } else if is("sec-websocket-accept") {
            self.accept = Some(field.value);
        }
    }
}

fn accept_for(key: &[u8]) -> [u8; ACCEPT_BYTES] {
    let mut accept = [0; ACCEPT_BYTES];
    for (to, from) in accept.iter_mut().zip(derive_accept_key(key).bytes()) {
        *to = from;
    }
    accept
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Whether this is the base64 of 16 bytes. The four bits the last digit has too many may be anything:
/// clients that draw the digits themselves are common and harm nobody.
fn is_key(key: &[u8]) -> bool {
    match key.split_last_chunk::<2>() {
        Some((digits, b"==")) => {
            let is_digit = |digit: &u8| digit.is_ascii_alphanumeric() || matches!(digit, b'+' | b'/');
            digits.len() == KEY_BYTES - 2 && digits.iter().all(is_digit)
        }
        _ => false,
    }
}

fn encode_key(key: &[u8; 16]) -> [u8; KEY_BYTES] {
    let mut text = [b'='; KEY_BYTES];
    let number = u128::from_be_bytes(*key);
    // 22 digits hold 132 bits, so the last one is filled up with four zeroes.
    for (i, digit) in text.iter_mut().take(KEY_BYTES - 2).enumerate() {
        let shift = 122 - 6 * i as i32;
        let bits = if shift >= 0 { number >> shift } else { number << -shift };
        *digit = BASE64[(bits & 63) as usize];
    }
    text
}

#[cfg(test)]
mod tests;
