//! Responses (RFC 9112 section 4): one pass into a buffer, always with their length.
//!
//! Pure. Never streams; what streams writes its own framing behind a head of its own.

use std::io::Write;
use std::ops::{Deref, DerefMut};

use super::date::Date;

/// What answers are written into: their bytes, and the Date that each of them carries.
#[derive(Debug)]
pub struct ResponseBuffer {
    bytes: Vec<u8>,
    date: Date,
}

impl ResponseBuffer {
    /// Writes behind `bytes`, for answers sent at `date`.
    #[must_use]
    pub fn new(bytes: Vec<u8>, date: Date) -> Self {
        Self { bytes, date }
    }

    /// The bytes written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Appends the first line of a response and its Date: an origin server with a clock sends it (RFC 9110, 6.6.1).
    pub(crate) fn push_status_line(&mut self, status: u16) {
        // Writing to a Vec does not fail.
        let _ = write!(self.bytes, "HTTP/1.1 {status:03} {}\r\nDate: ", reason_phrase(status));
        self.bytes.extend_from_slice(self.date.as_bytes());
        self.bytes.extend_from_slice(b"\r\n");
    }
}

impl Deref for ResponseBuffer {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.bytes
    }
}

impl DerefMut for ResponseBuffer {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }
}

/// A whole response.
#[derive(Debug, Clone, Copy)]
pub struct Response<'a> {
    /// The status code.
    pub status: u16,
    /// The Content-Type, left out if empty.
    pub content_type: &'a str,
    /// Further fields.
    pub headers: &'a [(&'a str, &'a str)],
    /// The body.
    pub body: &'a [u8],
    /// Whether the connection stays open for another request.
    pub keep_alive: bool,
    /// The request was HEAD: the fields of the body without the body.
    pub head_only: bool,
}

impl Response<'_> {
    /// Appends the response to `out`.
    pub fn write_into(&self, out: &mut ResponseBuffer) {
        // RFC 9110 sections 15.2, 15.3.5 and 15.4.5: these never have a body.
        let bodiless = matches!(self.status, 100..=199 | 204 | 304);
        out.reserve(200 + if self.head_only { 0 } else { self.body.len() });
        out.push_status_line(self.status);
        if !bodiless {
            if !self.content_type.is_empty() {
                push_field(out, "Content-Type", self.content_type);
            }
            // Writing to a Vec does not fail.
            let _ = write!(out, "Content-Length: {}\r\n", self.body.len());
        }
        // Named in both cases: clients of HTTP/1.0 close without it.
        let connection = match (self.status, self.keep_alive) {
            (100..=199, _) => "",
            // RFC 9110 sections 15.5.22 and 7.8: a 426 names the protocol in Upgrade, and Upgrade as an option of the
            // connection.
            (426, true) => "Upgrade, keep-alive",
            (426, false) => "Upgrade, close",
            (_, true) => "keep-alive",
            (_, false) => "close",
        };
        if !connection.is_empty() {
            push_field(out, "Connection", connection);
        }
        for (name, value) in self.headers {
            push_field(out, name, value);
        }
        out.extend_from_slice(b"\r\n");
        if !bodiless && !self.head_only {
            out.extend_from_slice(self.body);
        }
    }
}

/// The usual phrase of a status, empty for one that is never sent.
pub const fn reason_phrase(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        206 => "Partial Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "",
    }
}

/// Appends one field. A control character becomes a space, so that a value never begins another field.
pub(crate) fn push_field(out: &mut Vec<u8>, name: &str, value: &str) {
    push_text(out, name);
    out.extend_from_slice(b": ");
    push_text(out, value);
    out.extend_from_slice(b"\r\n");
}

/// Appends text that is to stay on its line.
pub(crate) fn push_text(out: &mut Vec<u8>, text: &str) {
    out.extend(text.bytes().map(|byte| if byte.is_ascii_control() { b' ' } else { byte }));
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: Response<'_> = Response {
        status: 200,
        content_type: "text/plain",
        headers: &[("Allow", "GET, HEAD")],
        body: b"hello",
        keep_alive: true,
        head_only: false,
    };

    fn written(response: &Response<'_>) -> String {
        let mut out = ResponseBuffer::new(Vec::new(), Date::at(std::time::SystemTime::UNIX_EPOCH));
        response.write_into(&mut out);
        String::from_utf8(out.into_bytes()).unwrap()
    }

    #[test]
    fn a_page_and_its_head_differ_in_the_body_only() {
        let head = "HTTP/1.1 200 OK\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\
                    Connection: keep-alive\r\nAllow: GET, HEAD\r\n\r\n";
        assert_eq!(written(&PAGE), head.to_owned() + "hello");
        assert_eq!(written(&Response { head_only: true, ..PAGE }), head);
    }

    #[test]
    fn a_length_is_always_there_but_where_there_is_no_body() {
        for status in [200, 202, 400, 404, 503] {
            let text = written(&Response { status, body: b"", keep_alive: false, ..PAGE });
            assert!(text.contains("Content-Length: 0\r\n") && text.contains("Connection: close\r\n"));
            assert!(!reason_phrase(status).is_empty());
        }
        for status in [100, 204, 304] {
            let text = written(&Response { status, ..PAGE });
            assert!(!text.contains("Content-") && text.ends_with("\r\n\r\n"), "{text}");
        }
    }

    #[test]
    fn an_answer_that_asks_for_an_upgrade_says_so_of_the_connection() {
        for (keep_alive, connection) in [(true, "Upgrade, keep-alive"), (false, "Upgrade, close")] {
            let text = written(&Response { status: 426, keep_alive, ..PAGE });
            assert!(text.contains(&format!("\r\nConnection: {connection}\r\n")), "{text}");
        }
    }

    #[test]
    fn a_value_cannot_begin_another_field() {
        let text = written(&Response { headers: &[("X", "a\r\nSet-Cookie: b")], ..PAGE });
        assert!(text.contains("X: a  Set-Cookie: b\r\n"));
    }

    #[test]
    fn what_is_written_is_read_back_by_httparse() {
        let text = written(&PAGE);
        let mut fields = [httparse::EMPTY_HEADER; 8];
        let mut parsed = httparse::Response::new(&mut fields);
        let len = parsed.parse(text.as_bytes()).unwrap().unwrap();
        assert_eq!((parsed.code, &text[len..]), (Some(200), "hello"));
    }
}
