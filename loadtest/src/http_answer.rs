//! Answers of HTTP/1.1, read whole: what a publisher and the reader of metrics need, and no more.

use std::borrow::Cow;
use std::io::{self, Read};

/// What the head of an answer says about the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The status.
    pub(crate) status: u16,
    head_len: usize,
    body: Body,
    /// Whether the connection is over.
    pub(crate) close: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Length(usize),
    Chunked,
    UntilEof,
}

/// Reads one whole answer of at most `most` bytes into `answer`.
pub(crate) fn read(stream: &mut impl Read, most: usize, answer: &mut Vec<u8>) -> io::Result<Head> {
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
                return Ok(head);
            }
        }
        if answer.len() > most {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is too long"));
        }
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return match parse_head(answer)? {
                Some(head @ Head { body: Body::UntilEof, .. }) => Ok(Head { close: true, ..head }),
                // An alert or a handshake record (RFC 8446 section 5.1).
                _ if matches!(answer[..], [21 | 22, 3, ..]) => Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "what answers there speaks TLS: use https://",
                )),
                _ => Err(io::ErrorKind::UnexpectedEof.into()),
            };
        }
        answer.extend_from_slice(chunk.get(..count).unwrap_or_default());
    }
}

/// The body of a whole answer, without the frames of chunks.
pub(crate) fn body<'a>(head: &Head, answer: &'a [u8]) -> Cow<'a, [u8]> {
    let framed = answer.get(head.head_len..).unwrap_or_default();
    match head.body {
        Body::Length(len) => Cow::Borrowed(framed.get(..len).unwrap_or(framed)),
        Body::UntilEof => Cow::Borrowed(framed),
        Body::Chunked => Cow::Owned(without_chunks(framed)),
    }
}

/// RFC 9112 section 7.1: each chunk is its length in hexadecimal digits, perhaps extensions, a line end, its bytes and
/// a line end.
fn without_chunks(mut framed: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(framed.len());
    while let Some(end) = framed.windows(2).position(|pair| pair == b"\r\n") {
        let (line, rest) = framed.split_at(end);
        let digits = line.split(|byte| *byte == b';').next().unwrap_or_default();
        let digits = std::str::from_utf8(digits).unwrap_or_default().trim();
        let Ok(len @ 1..) = usize::from_str_radix(digits, 16) else { break };
        let Some(chunk) = len.checked_add(2).and_then(|end| rest.get(2..end)) else { break };
        body.extend_from_slice(chunk);
        framed = rest.get(len + 4..).unwrap_or_default();
    }
    body
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

    fn read_text(text: &str) -> io::Result<(u16, bool)> {
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
        let head = read(&mut Drip(text.as_bytes()), 1_000, &mut Vec::new())?;
        Ok((head.status, head.close))
    }

    #[test]
    fn answers_are_read_to_their_end() {
        assert_eq!(read_text("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap(), (200, false));
        assert_eq!(read_text("HTTP/1.1 204 No Content\r\n\r\n").unwrap(), (204, false));
        assert_eq!(
            read_text("HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").unwrap(),
            (503, true)
        );
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n";
        assert_eq!(read_text(chunked).unwrap(), (200, false));
        assert_eq!(read_text("HTTP/1.1 200 OK\r\n\r\nuntil the end").unwrap(), (200, true));
        let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(read_text(interim).unwrap(), (200, false));
    }

    #[test]
    fn broken_answers_are_errors() {
        assert!(read_text("").is_err());
        assert!(read_text("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok").is_err());
        assert!(read_text("SSH-2.0-x\r\n\r\n").is_err());
        assert!(read_text("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n").is_err());
    }

    #[test]
    fn bodies_come_without_their_chunks() {
        let body_of = |text: &str| {
            let mut answer = Vec::new();
            let head = read(&mut text.as_bytes(), 1_000, &mut answer).unwrap();
            String::from_utf8(body(&head, &answer).into_owned()).unwrap()
        };
        assert_eq!(body_of("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"), "ok");
        assert_eq!(body_of("HTTP/1.1 200 OK\r\n\r\nuntil the end"), "until the end");
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\non\r\nD;x=y\r\ne\r\n2\r\ntwo a b\r\n0\r\n\r\n";
        assert_eq!(body_of(chunked), "one\r\n2\r\ntwo a b");
        let broken = without_chunks(b"2\r\non\r\nffffffffffffffff\r\nx");
        assert_eq!(broken, b"on");
    }
}
