//! Which offer of a client is accepted, and how (RFC 7692 section 7.1, RFC 6455 section 9.1).
//!
//! Reads the Sec-WebSocket-Extensions fields of one request. Pure; never decides whether compression is
//! wanted at all.

use std::borrow::Cow;
use std::fmt;

/// The offer of a client that takes what a server gives.
pub const OFFER: &str =
    "permessage-deflate; server_no_context_takeover; client_no_context_takeover; client_max_window_bits";

/// The window of deflate itself, in bits.
pub const WINDOW_BITS_MAX: u8 = 15;

/// What was agreed with a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreement {
    /// The Sec-WebSocket-Extensions field of the answer.
    pub answer: &'static str,
    /// What is sent may refer 2 to the power of so many bytes back: 8 to 15.
    pub window_bits: u8,
    /// The client may forget every message that it was sent (RFC 7692 section 7.1.1.1): none may refer to others.
    pub server_resets: bool,
}

macro_rules! answers {
    ($($bits:literal)*) => {
        /// The answer to an offer that is accepted. No client keeps a context over messages; that the server keeps
        /// none is said where it was asked for only, because some clients take no parameter that they have not offered.
        /// A window size is accepted by including it (RFC 7692 section 7.1.2.1).
        const fn answer(server_resets: bool, window_bits: Option<u8>) -> &'static str {
            match (server_resets, window_bits) {
                $((false, Some($bits)) => {
                    concat!("permessage-deflate; client_no_context_takeover; server_max_window_bits=", $bits)
                }
                (true, Some($bits)) => concat!(
                    "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
                     server_max_window_bits=", $bits),)*
                (false, _) => "permessage-deflate; client_no_context_takeover",
                (true, _) => "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            }
        }
    };
}

answers! { 8 9 10 11 12 13 14 15 }

/// A Sec-WebSocket-Extensions field that is not a list of extensions. RFC 6455 section 9.1 fails the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MalformedOffers;

impl fmt::Display for MalformedOffers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("malformed Sec-WebSocket-Extensions")
    }
}

impl std::error::Error for MalformedOffers {}

/// What is agreed of the first offer that can be honoured, in the order of the client's preference; `None` if there
/// is none (RFC 7692 section 5). `fields` are the values of all Sec-WebSocket-Extensions fields, which
/// are one list (RFC 6455 section 9.1).
///
/// # Errors
/// A field breaks the grammar of the list before an offer was accepted.
pub fn negotiate<'a>(fields: impl Iterator<Item = &'a str>) -> Result<Option<Agreement>, MalformedOffers> {
    for field in fields {
        let mut list = Cursor { rest: field };
        loop {
            list.skip_empty_elements();
            if list.rest.is_empty() {
                break;
            }
            if let Some(agreement) = judge(&mut list)? {
                return Ok(Some(agreement));
            }
            if !list.rest.is_empty() && !list.eat(',') {
                return Err(MalformedOffers);
            }
        }
    }
    Ok(None)
}

/// Whether this is an answer that a client of [`OFFER`] can live with: the extension, and no context taken over
/// by the server.
#[must_use]
pub fn is_answer(value: &str) -> bool {
    let mut list = Cursor { rest: value };
    let Ok("permessage-deflate") = list.token() else { return false };
    let mut resets = false;
    while let Ok(Some((name, value))) = list.parameter() {
        match (name, value.as_deref()) {
            ("server_no_context_takeover", None) => resets = true,
            ("client_no_context_takeover", None) => {}
            ("server_max_window_bits", Some(bits)) if window_bits(bits).is_some() => {}
            _ => return false,
        }
    }
    resets && list.rest.is_empty()
}

/// Reads one offer to its end; what is agreed if it can be honoured.
fn judge(list: &mut Cursor<'_>) -> Result<Option<Agreement>, MalformedOffers> {
    let mut good = list.token()? == "permessage-deflate";
    let mut seen = [false; 4];
    let mut window = None;
    while let Some((name, value)) = list.parameter()? {
        let value = value.as_deref();
        let (index, fits) = match name {
            // RFC 7692 sections 7.1.1.1 and 7.1.1.2: no value.
            "server_no_context_takeover" => (0, value.is_none()),
            "client_no_context_takeover" => (1, value.is_none()),
            // RFC 7692 section 7.1.2.1: a value is needed.
            "server_max_window_bits" => {
                window = value.and_then(window_bits);
                (2, window.is_some())
            }
            // RFC 7692 section 7.1.2.2: a hint that may go unanswered, with or without a value.
            "client_max_window_bits" => (3, value.is_none_or(|bits| window_bits(bits).is_some())),
            _ => {
                good = false;
                continue;
            }
        };
        // RFC 7692 section 7.1: an offer with a parameter twice is declined.
        let doubled = seen.get_mut(index).is_none_or(|seen| std::mem::replace(seen, true));
        good &= fits && !doubled;
    }
    let [server_resets, ..] = seen;
    let window_bits = window.unwrap_or(WINDOW_BITS_MAX);
    let agreement = Agreement { answer: answer(server_resets, window), window_bits, server_resets };
    Ok(good.then_some(agreement))
}

/// A window size: 8 to 15, without a leading zero (RFC 7692 section 7.1.2.1).
fn window_bits(text: &str) -> Option<u8> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && !text.starts_with('0');
    text.parse().ok().filter(|bits| plain && (8..=15).contains(bits))
}

/// A parameter's name, and its value if it has one.
type Parameter<'a> = (&'a str, Option<Cow<'a, str>>);

/// What is left of a field.
struct Cursor<'a> {
    rest: &'a str,
}

impl<'a> Cursor<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t']);
    }

    /// Takes `wanted` and the space around it.
    fn eat(&mut self, wanted: char) -> bool {
        self.skip_space();
        let Some(rest) = self.rest.strip_prefix(wanted) else { return false };
        self.rest = rest;
        self.skip_space();
        true
    }

    /// RFC 9110 section 5.6.1.2: empty elements of a list count for nothing.
    fn skip_empty_elements(&mut self) {
        while self.eat(',') {}
    }

    fn token(&mut self) -> Result<&'a str, MalformedOffers> {
        self.skip_space();
        let end = self.rest.find(|c| !is_token(c)).unwrap_or(self.rest.len());
        let (token, rest) = self.rest.split_at(end);
        self.rest = rest;
        self.skip_space();
        if token.is_empty() { Err(MalformedOffers) } else { Ok(token) }
    }

    /// The next parameter of an extension; `None` at its end.
    fn parameter(&mut self) -> Result<Option<Parameter<'a>>, MalformedOffers> {
        if !self.eat(';') {
            return Ok(None);
        }
        let name = self.token()?;
        let value = if self.eat('=') { Some(self.value()?) } else { None };
        Ok(Some((name, value)))
    }

    /// A token, or one between quotes (RFC 6455 section 9.1). None at all is a value that fits nowhere.
    fn value(&mut self) -> Result<Cow<'a, str>, MalformedOffers> {
        let Some(quoted) = self.rest.strip_prefix('"') else {
            return Ok(Cow::Borrowed(self.token().unwrap_or_default()));
        };
        let mut value = String::new();
        let mut chars = quoted.char_indices();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    self.rest = quoted.get(at + 1..).unwrap_or_default();
                    self.skip_space();
                    return Ok(Cow::Owned(value));
                }
                '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
                c => value.push(c),
            }
        }
        Err(MalformedOffers)
    }
}

/// RFC 9110 section 5.6.2.
fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}
