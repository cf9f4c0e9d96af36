//! The body of an HTTP/1.1 answer that has no end in sight, taken out of its framing as it comes (RFC 9112 section 6).
//! No socket; nothing of the content is kept.

/// The longest line that announces a chunk, and the longest trailer.
const LINE_BYTES_MAX: usize = 8 * 1024;

/// How a body is framed, and how far it has come.
#[derive(Debug)]
pub(crate) enum Body {
    /// So many bytes more.
    Length(u64),
    /// In chunks.
    Chunked(Chunk),
    /// Until the connection ends.
    UntilEof,
}

/// What comes next in a body of chunks (RFC 9112 section 7.1).
#[derive(Debug)]
pub(crate) enum Chunk {
    /// The line that says how long the next one is, as far as it has come.
    Size(Vec<u8>),
    /// So many bytes of content.
    Content(u64),
    /// The end of the line behind the content, of which so many bytes have come.
    Close(u8),
    /// Lines behind the last chunk; so many bytes of the one under way, and whether it is empty so far.
    Trailer(usize, bool),
    /// Nothing.
    Over,
}

/// The framing is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

impl Body {
    /// One in chunks that has not begun.
    pub(crate) fn chunked() -> Self {
        Self::Chunked(Chunk::Size(Vec::new()))
    }

    /// Takes what has come and tells its content, piece by piece; true once the body is over. What stands behind that
    /// is not looked at: nobody has asked for it.
    pub(crate) fn on_bytes(
        &mut self,
        bytes: &[u8],
        mut on_content: impl FnMut(&[u8]),
    ) -> Result<bool, Broken> {
        match self {
            Self::UntilEof => {
                on_content(bytes);
                Ok(false)
            }
            Self::Length(left) => {
                let (content, _) = take(bytes, left);
                on_content(content);
                Ok(*left == 0)
            }
            Self::Chunked(chunk) => {
                let mut rest = bytes;
                while !rest.is_empty() && !matches!(chunk, Chunk::Over) {
                    rest = chunk.step(rest, &mut on_content)?;
                }
                Ok(matches!(chunk, Chunk::Over))
            }
        }
    }
}

impl Chunk {
    /// Takes one piece and returns what is behind it.
    fn step<'a>(&mut self, bytes: &'a [u8], on_content: &mut impl FnMut(&[u8])) -> Result<&'a [u8], Broken> {
        match self {
            Self::Size(line) => {
                let Some(end) = memchr::memchr(b'\n', bytes) else {
                    line.extend_from_slice(bytes);
                    return if line.len() > LINE_BYTES_MAX { Err(Broken) } else { Ok(&[]) };
                };
                let (last, behind) = bytes.split_at(end);
                line.extend_from_slice(last);
                let size = line.strip_suffix(b"\r").and_then(size).ok_or(Broken)?;
                *self = if size == 0 { Self::Trailer(0, true) } else { Self::Content(size) };
                Ok(behind.get(1..).unwrap_or_default())
            }
            Self::Content(left) => {
                let (content, behind) = take(bytes, left);
                on_content(content);
                if *left == 0 {
                    *self = Self::Close(0);
                }
                Ok(behind)
            }
            Self::Close(came) => {
                let (first, behind) = bytes.split_first().ok_or(Broken)?;
                *self = match (*came, *first) {
                    (0, b'\r') => Self::Close(1),
                    (1, b'\n') => Self::Size(Vec::new()),
                    _ => return Err(Broken),
                };
                Ok(behind)
            }
            Self::Trailer(len, empty) => {
                let (first, behind) = bytes.split_first().ok_or(Broken)?;
                *len += 1;
                match first {
                    b'\n' if *empty => *self = Self::Over,
                    b'\n' => (*len, *empty) = (0, true),
                    b'\r' => {}
                    _ => *empty = false,
                }
                if matches!(self, Self::Trailer(len, _) if *len > LINE_BYTES_MAX) {
                    Err(Broken)
                } else {
                    Ok(behind)
                }
            }
            Self::Over => Ok(&[]),
        }
    }
}

/// As many of these bytes as are left, and the others.
fn take<'a>(bytes: &'a [u8], left: &mut u64) -> (&'a [u8], &'a [u8]) {
    let count = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
    *left -= count as u64;
    bytes.split_at(count)
}

/// The number on a line in front of a chunk, behind which there may be extensions.
fn size(line: &[u8]) -> Option<u64> {
    let digits = line.split(|byte| *byte == b';').next()?.trim_ascii();
    let text = std::str::from_utf8(digits).ok().filter(|_| digits.iter().all(u8::is_ascii_hexdigit))?;
    u64::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_in(mut body: Body, bytes: &[u8], step: usize) -> Result<(String, bool), Broken> {
        let (mut content, mut over) = (Vec::new(), false);
        for piece in bytes.chunks(step) {
            over = body.on_bytes(piece, |bytes| content.extend_from_slice(bytes))?;
        }
        Ok((String::from_utf8(content).unwrap(), over))
    }

    #[test]
    fn content_comes_out_of_its_chunks_wherever_a_piece_ends() {
        let framed = b"2\r\non\r\nD;x=y\r\ne\r\n2\r\ntwo a b\r\n00\r\nA: b\r\n\r\nbehind it";
        for step in 1..framed.len() {
            assert_eq!(read_in(Body::chunked(), framed, step), Ok(("one\r\n2\r\ntwo a b".into(), true)));
            assert!(!read_in(Body::chunked(), &framed[..30], step).unwrap().1);
        }
    }

    #[test]
    fn a_length_and_the_end_of_the_connection_frame_a_body_too() {
        assert_eq!(read_in(Body::Length(3), b"abcd", 2), Ok(("abc".into(), true)));
        assert_eq!(read_in(Body::Length(5), b"abcd", 3), Ok(("abcd".into(), false)));
        assert_eq!(read_in(Body::UntilEof, b"abcd", 3), Ok(("abcd".into(), false)));
    }

    #[test]
    fn broken_chunks_are_told() {
        for framed in [
            "x\r\n",
            "+2\r\non\r\n",
            "\r\n",
            "2\r\none\r\n",
            "2\non\r\n",
            "2\r\non\n\n",
            "ffffffffffffffffff\r\n",
        ] {
            for step in [1, 4, 100] {
                assert_eq!(read_in(Body::chunked(), framed.as_bytes(), step), Err(Broken), "{framed:?}");
            }
        }
        assert_eq!(read_in(Body::chunked(), &[b'1'; 9_000], 100), Err(Broken));
        let endless = [b"0\r\nA: ".to_vec(), vec![b'x'; 9_000]].concat();
        assert_eq!(read_in(Body::chunked(), &endless, 100), Err(Broken));
    }
}
