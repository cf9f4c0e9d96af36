//! Answers of HTTP/1.1, read whole: what a publisher and the reader of metrics need, and no more.

use std::borrow::Cow;
use std::io::{self, Read};

use fantail::wire::http::chunked::ChunkedDecoder;

use super::body as framing;

/// The longest head.
const HEAD_BYTES_MAX: usize = 64 * 1024;

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

impl Head {
    /// Reads the head that `bytes` begin with; `None` until it is whole.
    pub(crate) fn parse(bytes: &[u8]) -> io::Result<Option<Self>> {
        match parse_head(bytes)? {
            None if bytes.len() > HEAD_BYTES_MAX => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "the answer's head is too long"))
            }
            head => Ok(head),
        }
    }

    /// Its bytes, with the empty line behind it.
    pub(crate) fn len(&self) -> usize {
        self.head_len
    }

    /// How the body is framed that comes behind it.
    pub(crate) fn framing(&self) -> framing::Body {
        match self.body {
            Body::Length(len) => framing::Body::Length(len as u64),
            Body::Chunked => framing::Body::chunked(),
            Body::UntilEof => framing::Body::UntilEof,
        }
    }
}

/// An answer that arrives in pieces.
#[derive(Debug, Default)]
pub(crate) struct Incoming {
    answer: Vec<u8>,
    came: usize,
    chunks: Chunks,
}

impl Incoming {
    /// Takes what has come; the head once the answer is whole. It and the interim ones before it have at most `most`
    /// bytes.
    pub(crate) fn on_bytes(&mut self, bytes: &[u8], most: usize) -> io::Result<Option<Head>> {
        let too_long = |what: &str| io::Error::new(io::ErrorKind::InvalidData, format!("{what} is too long"));
        self.came += bytes.len();
        self.answer.extend_from_slice(bytes);
        loop {
            if let Some(head) = parse_head(&self.answer)? {
                // RFC 9110 section 15.2: interim answers come before the final one.
                if (100..200).contains(&head.status) {
                    self.answer.drain(..head.head_len);
                    continue;
                }
                let body = self.answer.get(head.head_len..).unwrap_or_default();
                let whole = match head.body {
                    Body::Length(len) => body.len() >= len,
                    Body::Chunked => self.chunks.follow(body, |_| ())?,
                    Body::UntilEof => false,
                };
                if whole {
                    return Ok(Some(head));
                }
            } else if self.answer.len() > HEAD_BYTES_MAX {
                return Err(too_long("the answer's head"));
            }
            return if self.came > most { Err(too_long("the answer")) } else { Ok(None) };
        }
    }

    /// The head of a whole answer as it came, and its body.
    pub(crate) fn parts(&self, head: &Head) -> (&[u8], Cow<'_, [u8]>) {
        (self.answer.get(..head.head_len).unwrap_or_default(), body(head, &self.answer))
    }

    /// What the body begins with.
    pub(crate) fn first_line(&self, head: &Head) -> Option<String> {
        first_line(&body(head, &self.answer))
    }

    /// The connection has ended: the head if that is the end of the answer, too.
    pub(crate) fn on_end(&mut self) -> io::Result<Head> {
        match parse_head(&self.answer)? {
            Some(head @ Head { body: Body::UntilEof, .. }) => Ok(Head { close: true, ..head }),
            // An alert or a handshake record (RFC 8446 section 5.1).
            _ if matches!(self.answer[..], [21 | 22, 3, ..]) => {
                Err(io::Error::new(io::ErrorKind::InvalidData, "what answers there speaks TLS: use https://"))
            }
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// Reads one whole answer into `answer`; it and the interim ones before it have at most `most` bytes.
pub(crate) fn read(stream: &mut impl Read, most: usize, answer: &mut Vec<u8>) -> io::Result<Head> {
    let mut incoming = Incoming { answer: std::mem::take(answer), ..Incoming::default() };
    incoming.answer.clear();
    let mut chunk = [0; 4096];
    let outcome = loop {
        let head = match stream.read(&mut chunk)? {
            0 => break incoming.on_end(),
            count => incoming.on_bytes(chunk.get(..count).unwrap_or_default(), most),
        };
        if let Some(outcome) = head.transpose() {
            break outcome;
        }
    };
    *answer = incoming.answer;
    outcome
}

/// What a body begins with, if that can be read.
pub(crate) fn first_line(body: &[u8]) -> Option<String> {
    const QUOTED_MAX: usize = 200;
    let text = String::from_utf8_lossy(body.get(..body.len().min(QUOTED_MAX)).unwrap_or_default());
    let line = text.lines().next().unwrap_or_default().trim().to_owned();
    (!line.is_empty() && line.chars().all(|letter| !letter.is_control())).then_some(line)
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

/// How far the chunks of a body were followed.
#[derive(Debug, Default)]
struct Chunks {
    at: usize,
    decoder: ChunkedDecoder,
}

impl Chunks {
    /// Goes on as far as `framed` reaches, which is longer each time, and tells the content; true once the end is there.
    fn follow(&mut self, framed: &[u8], mut on_content: impl FnMut(&[u8])) -> io::Result<bool> {
        loop {
            let rest = framed.get(self.at..).unwrap_or_default();
            let step = self.decoder.step(rest).map_err(|error| {
                io::Error::new(io::ErrorKind::InvalidData, format!("the answer's chunks are broken: {error}"))
            })?;
            on_content(step.data);
            self.at += step.consumed;
            if step.done || step.consumed == rest.len() {
                return Ok(step.done);
            }
        }
    }
}

fn without_chunks(framed: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(framed.len());
    // Whoever reads it has seen its end.
    let _ = Chunks::default().follow(framed, |content| body.extend_from_slice(content));
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
        for chunks in ["x\r\n", "+2\r\non\r\n0\r\n\r\n", "\r\n", "2\r\none\r\n0\r\n\r\n", "2\r\non\r\n"] {
            let text = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
            assert!(read_text(&text).is_err(), "{chunks:?}");
        }
    }

    #[test]
    fn an_answer_without_an_end_is_given_up() {
        struct Endless<'a>(&'a [u8], &'a [u8], usize);
        impl Read for Endless<'_> {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                let first = std::mem::take(&mut self.0);
                self.2 += 1;
                let from = if first.is_empty() { self.1 } else { first };
                let count = from.len().min(out.len());
                out[..count].copy_from_slice(&from[..count]);
                Ok(count)
            }
        }
        let most = 1024 * 1024;
        let line = [b'x'; 4096];
        for (first, more, says, reads_max) in [
            (&b"HTTP/1.1 200 OK\r\nX: "[..], &line[..], "head is too long", 20),
            (b"", b"HTTP/1.1 100 Continue\r\n\r\n", "answer is too long", most / 25 + 2),
            (b"HTTP/1.1 200 OK\r\n\r\n", &line, "answer is too long", most / 4096 + 3),
            (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", &line, "chunks are broken", 5),
        ] {
            let mut stream = Endless(first, more, 0);
            let error = read(&mut stream, most, &mut Vec::new()).unwrap_err();
            assert!(error.to_string().contains(says), "{error}");
            assert!(stream.2 <= reads_max, "{says}: {} reads", stream.2);
        }
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
        let looks_ended =
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nab\r\n0\r\n\r\n\r\n0\r\nA: b\r\n\r\n";
        // It ends where a read of the connection ended, and not where the body does.
        struct Two<'a>(&'a [u8], &'a [u8]);
        impl Read for Two<'_> {
            fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
                let now = std::mem::replace(&mut self.0, std::mem::take(&mut self.1));
                out[..now.len()].copy_from_slice(now);
                Ok(now.len())
            }
        }
        let (first, second) = looks_ended.as_bytes().split_at(looks_ended.len() - 13);
        let mut answer = Vec::new();
        let head = read(&mut Two(first, second), 1_000, &mut answer).unwrap();
        assert!(first.ends_with(b"\r\n0\r\n\r\n"));
        assert_eq!(body(&head, &answer).as_ref(), b"ab\r\n0\r\n\r\n");
        let broken = without_chunks(b"2\r\non\r\nfffffffffffffffff\r\nx");
        assert_eq!(broken, b"on");
    }
}
