//! Publishing by HTTP/1.1 POST on a kept connection: one request, its whole answer, the next request.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use super::PublishError;
use crate::target::Target;

const TIMEOUT: Duration = Duration::from_secs(10);
/// A connection used more recently than this is not checked before its next request.
const IDLE_UNCHECKED: Duration = Duration::from_millis(500);
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// A connection that is made again when it breaks.
#[derive(Debug)]
pub(crate) struct HttpPublisher {
    target: Target,
    content_type: &'static str,
    stream: Option<TcpStream>,
    used_at: Instant,
    request: Vec<u8>,
    answer: Vec<u8>,
}

/// What the head of an answer says about the rest.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    status: u16,
    head_len: usize,
    body: Body,
    close: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Length(usize),
    Chunked,
    UntilEof,
}

impl HttpPublisher {
    /// Connects. Binary messages are announced by `binary=1` in the query.
    pub(crate) fn connect(target: Target, binary: bool) -> Result<Self, PublishError> {
        let target = if binary { target.with_query("binary", "1") } else { target };
        let stream = Some(open(&target)?);
        Ok(Self {
            target,
            content_type: if binary { "application/octet-stream" } else { "text/plain" },
            stream,
            used_at: Instant::now(),
            request: Vec::new(),
            answer: Vec::new(),
        })
    }

    /// Announces messages as JSON.
    pub(crate) fn with_json(mut self, json: bool) -> Self {
        if json {
            self.content_type = "application/json";
        }
        self
    }

    /// Posts one message and waits for the answer.
    pub(crate) fn publish(&mut self, payload: &[u8]) -> Result<(), PublishError> {
        self.publish_with("", payload)
    }

    /// The same with further header fields, each with its line end.
    pub(crate) fn publish_with(&mut self, fields: &str, payload: &[u8]) -> Result<(), PublishError> {
        self.request.clear();
        let Target { path, authority, .. } = &self.target;
        let (len, content_type) = (payload.len(), self.content_type);
        write!(
            self.request,
            "POST {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: {content_type}\r\nContent-Length: {len}\r\n{fields}\r\n"
        )?;
        self.request.extend_from_slice(payload);
        let mut stream = match self.stream.take().filter(|stream| self.is_fresh(stream)) {
            Some(stream) => stream,
            None => open(&self.target)?,
        };
        stream.write_all(&self.request)?;
        let (status, close) = read_answer(&mut stream, &mut self.answer)?;
        if !close {
            self.stream = Some(stream);
            self.used_at = Instant::now();
        }
        if (200..300).contains(&status) { Ok(()) } else { Err(PublishError::Refused(status)) }
    }

    /// Whether a kept connection can take a request. Servers close those that were idle for a while, and a
    /// request that meets such an end would be a message of unknown fate.
    fn is_fresh(&self, stream: &TcpStream) -> bool {
        if self.used_at.elapsed() < IDLE_UNCHECKED {
            return true;
        }
        let quiet = stream.set_nonblocking(true).is_ok()
            && stream.peek(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        quiet && stream.set_nonblocking(false).is_ok()
    }
}

fn open(target: &Target) -> io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&target.address, TIMEOUT)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

/// Reads one whole answer; returns its status and whether the connection is over.
fn read_answer(stream: &mut impl Read, answer: &mut Vec<u8>) -> io::Result<(u16, bool)> {
    answer.clear();
    let mut chunk = [0; 4096];
    loop {
        if let Some(head) = parse_head(answer)? {
            // RFC 9110 section 15.2: interim answers come before the final one.
            if (100..200).contains(&head.status) {
                answer.drain(..head.head_len);
                continue;
            }
            let body = answer.get(head.head_len..).unwrap_or_default();
            let whole = match head.body {
                Body::Length(len) => body.len() >= len,
                Body::Chunked => body.starts_with(b"0\r\n\r\n") || body.ends_with(b"\r\n0\r\n\r\n"),
                Body::UntilEof => false,
            };
            if whole {
                return Ok((head.status, head.close));
            }
        }
        if answer.len() > ANSWER_BYTES_MAX {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long"));
        }
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return match parse_head(answer)? {
                Some(Head { status, body: Body::UntilEof, .. }) => Ok((status, true)),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            };
        }
        answer.extend_from_slice(chunk.get(..count).unwrap_or_default());
    }
}

fn parse_head(bytes: &[u8]) -> io::Result<Option<Head>> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else { return Ok(None) };
    let wrong = || io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP/1.1");
    let text = std::str::from_utf8(bytes.get(..end).unwrap_or_default()).map_err(|_| wrong())?;
    let mut lines = text.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let version = words.next().filter(|version| version.starts_with("HTTP/1.")).ok_or_else(wrong)?;
    let status: u16 = words.next().and_then(|status| status.parse().ok()).ok_or_else(wrong)?;
    // RFC 9110 section 15.3.5 and 15.4.5: these have no body, whatever the fields say.
    let bodiless = status < 200 || status == 204 || status == 304;
    let mut head = Head {
        status,
        head_len: end + 4,
        body: if bodiless { Body::Length(0) } else { Body::UntilEof },
        close: version == "HTTP/1.0",
    };
    for line in lines {
        let (name, value) = line.split_once(':').ok_or_else(wrong)?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-length") && !bodiless && head.body != Body::Chunked {
            head.body = Body::Length(value.parse().map_err(|_| wrong())?);
        } else if name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case("chunked") {
            head.body = Body::Chunked;
        } else if name.eq_ignore_ascii_case("connection") {
            head.close = value.eq_ignore_ascii_case("close");
        }
    }
    Ok(Some(head))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> io::Result<(u16, bool)> {
        // One byte at a time, so that every incomplete answer is seen.
        struct Drip<'a>(&'a [u8]);
        impl Read for Drip<'_> {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                let Some((first, rest)) = self.0.split_first() else { return Ok(0) };
                out[0] = *first;
                self.0 = rest;
                Ok(1)
            }
        }
        read_answer(&mut Drip(text.as_bytes()), &mut Vec::new())
    }

    #[test]
    fn answers_are_read_to_their_end() {
        assert_eq!(read("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap(), (200, false));
        assert_eq!(read("HTTP/1.1 204 No Content\r\n\r\n").unwrap(), (204, false));
        assert_eq!(
            read("HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").unwrap(),
            (503, true)
        );
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        assert_eq!(read(chunked).unwrap(), (200, false));
        assert_eq!(read("HTTP/1.1 200 OK\r\n\r\nuntil the end").unwrap(), (200, true));
        let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(read(interim).unwrap(), (200, false));
    }

    #[test]
    fn broken_answers_are_errors() {
        assert!(read("").is_err());
        assert!(read("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok").is_err());
        assert!(read("SSH-2.0-x\r\n\r\n").is_err());
        assert!(read("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n").is_err());
    }
}
