//! The body of an HTTP/1.1 answer that has no end in sight, taken out of its framing as it comes (RFC 9112 section 6).
//! No socket; nothing of the content is kept.

use fantail::wire::http::chunked::ChunkedDecoder;

/// How a body is framed, and how far it has come.
#[derive(Debug)]
pub(crate) enum Body {
    /// So many bytes more.
    Length(u64),
    /// In chunks.
    Chunked(ChunkedDecoder),
    /// Until the connection ends.
    UntilEof,
}

/// The framing is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Broken;

impl Body {
    /// One in chunks that has not begun.
    pub(crate) fn chunked() -> Self {
        Self::Chunked(ChunkedDecoder::default())
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
            Self::Chunked(decoder) => {
                let mut rest = bytes;
                loop {
                    let step = decoder.step(rest).map_err(|_| Broken)?;
                    if !step.data.is_empty() {
                        on_content(step.data);
                    }
                    rest = rest.get(step.consumed..).unwrap_or_default();
                    if step.done || rest.is_empty() {
                        return Ok(step.done);
                    }
                }
            }
        }
    }
}

/// As many of these bytes as are left, and the others.
fn take<'a>(bytes: &'a [u8], left: &mut u64) -> (&'a [u8], &'a [u8]) {
    let count = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
    *left -= count as u64;
    bytes.split_at(count)
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
