//! One HTTP/1.1 request and its answer, for the admin port. Blocking, bounded in time and bytes.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::dial::{SPEAKS_TLS, ended, is_tls, read_some};
use super::stream::Stream;
use super::tls::Tls;
use super::url::Url;
use crate::wire::http::chunked::ChunkedDecoder;
use crate::wire::upgrade::answer_field;

/// Most bytes of an answer's head and of its body.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Interim answers before the final one; a server of ours sends one at most.
const INTERIM_ANSWERS_MAX: usize = 8;

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// Posts `body` and waits for the answer; everything together may take `timeout`.
///
/// # Errors
/// No connection, no answer, or one that is not HTTP.
pub fn post(
    url: &Url,
    tls: Option<&Arc<Tls>>,
    headers: &[(&str, &str)],
    body: &[u8],
    timeout: Duration,
) -> io::Result<Answer> {
    let mut head = head_of("POST", url);
    head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str("\r\n");
    exchange(url, tls, &head, body, timeout)
}

/// Gets what the URL names; everything together may take `timeout`.
///
/// # Errors
/// No connection, no answer, or one that is not HTTP.
pub fn get(url: &Url, tls: Option<&Arc<Tls>>, timeout: Duration) -> io::Result<Answer> {
    exchange(url, tls, &(head_of("GET", url) + "\r\n"), b"", timeout)
}

/// The request line and the fields of every request.
fn head_of(method: &str, url: &Url) -> String {
    format!("{method} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", url.target, url.authority)
}

fn exchange(
    url: &Url,
    tls: Option<&Arc<Tls>>,
    head: &str,
    body: &[u8],
    timeout: Duration,
) -> io::Result<Answer> {
    let deadline = Instant::now() + timeout;
    let stream = Stream::connect(url, tls, timeout)?;
    // A refusal may come before everything is sent; it is read even if the rest can't be written.
    let written = [head.as_bytes(), body]
        .into_iter()
        .try_for_each(|part| stream.write_by(part, timeout, Some(deadline)));
    let mut held = Vec::new();
    loop {
        if tls.is_none() && is_tls(&held) {
            return Err(malformed(SPEAKS_TLS));
        }
        match whole(&held, false)? {
            Some(answer) => {
                stream.end();
                return Ok(answer);
            }
            None if held.len() > 2 * ANSWER_BYTES_MAX => return Err(malformed("the answer is too long")),
            None => {}
        }
        match read_some(&stream, &mut held, deadline) {
            Ok(true) => {}
            Ok(false) => {
                written?;
                return whole(&held, true)?.ok_or_else(ended);
            }
            Err(error) => return Err(written.err().unwrap_or(error)),
        }
    }
}

/// The answer, if it is all there; `ended`: nothing more will come.
pub(super) fn whole(mut held: &[u8], ended: bool) -> io::Result<Option<Answer>> {
    for _ in 0..=INTERIM_ANSWERS_MAX {
        let Some(head) = held.windows(4).position(|four| four == b"\r\n\r\n") else { return Ok(None) };
        let (head, rest) = held.split_at(head + 4);
        let status = status_of(head).ok_or_else(|| malformed("the answer is not HTTP"))?;
        if !(100..200).contains(&status) {
            return final_answer(status, head, rest, ended);
        }
        // An interim answer; the final one follows it (RFC 9110, 15.2).
        held = rest;
    }
    Err(malformed("too many interim answers"))
}

/// The status of `HTTP/1.1 200 OK`: three digits.
fn status_of(head: &[u8]) -> Option<u16> {
    let digits = head.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    let digits = std::str::from_utf8(digits).ok()?;
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn final_answer(status: u16, head: &[u8], rest: &[u8], ended: bool) -> io::Result<Option<Answer>> {
    if answer_field(head, "transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        let mut body = Vec::new();
        let decoded = ChunkedDecoder::default().decode_into(rest, &mut body, ANSWER_BYTES_MAX);
        let (_, done) = decoded.map_err(|error| malformed(error.reason()))?;
        return Ok(done.then_some(Answer { status, body }));
    }
    match answer_field(head, "content-length").map(|length| length.parse::<usize>()) {
        Some(Ok(length)) => Ok(rest.get(..length).map(|body| Answer { status, body: body.to_vec() })),
        Some(Err(_)) => Err(malformed("the answer has a wrong Content-Length")),
        None => Ok(ended.then(|| Answer { status, body: rest.to_vec() })),
    }
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_whole_at_their_last_byte_and_not_before() {
        let ok = |body: &str| Some(Answer { status: 200, body: body.as_bytes().to_vec() });
        for (text, body) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "abc"),
            ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", ""),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", "abc"),
        ] {
            for end in 0..text.len() {
                assert_eq!(whole(&text.as_bytes()[..end], false).unwrap(), None, "{end} of {text:?}");
            }
            assert_eq!(whole(text.as_bytes(), false).unwrap(), ok(body), "{text:?}");
        }
        let unsized_body = b"HTTP/1.0 200 OK\r\n\r\nto the end";
        assert_eq!(whole(unsized_body, false).unwrap(), None);
        assert_eq!(whole(unsized_body, true).unwrap(), ok("to the end"));
        for bad in [
            "nonsense\r\n\r\n",
            "HTTP/1.1 2\r\n\r\n",
            "HTTP/1.1 +20 x\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        ] {
            assert!(whole(bad.as_bytes(), true).is_err(), "{bad:?}");
        }
        // So many would overflow a stack that they are looked at on.
        let endless = "HTTP/1.1 100 x\r\n\r\n".repeat(100_000);
        assert!(whole(endless.as_bytes(), false).is_err());
    }
}
