//! A body in gzip (RFC 1952) of which every piece stands for itself, so that one piece serves everybody: a head, then deflated
//! or stored blocks that each end at a byte and refer to nothing before them. There is no trailer, because its sum would be
//! each reader's own; such a body ends with its connection. Pure.

use super::TAIL;
use crate::wire::http::chunked::{CHUNK_HEAD_BYTES_MAX, encode_chunk_head};

/// What a member begins with: deflated, nothing else known (RFC 1952, 2.3).
const HEAD: [u8; 10] = [0x1F, 0x8B, 8, 0, 0, 0, 0, 0, 0, 0xFF];

/// The most bytes of a stored block (RFC 1951, 3.2.4).
const STORED_BYTES_MAX: usize = 0xFFFF;

/// Bytes in front of those of a stored block.
const STORED_HEAD_BYTES: usize = 5;

/// Appends the first chunk of a coded body.
pub fn push_first_chunk(out: &mut Vec<u8>, text: &[u8]) {
    push_chunk_head(out, HEAD.len() + stored_len(text));
    out.extend_from_slice(&HEAD);
    push_stored(out, text);
    out.extend_from_slice(b"\r\n");
}

/// Appends a chunk with the text as it is.
pub fn push_stored_chunk(out: &mut Vec<u8>, text: &[u8]) {
    if text.is_empty() {
        return;
    }
    push_chunk_head(out, stored_len(text));
    push_stored(out, text);
    out.extend_from_slice(b"\r\n");
}

/// Appends a chunk with what a [`super::Deflater`] has made of a text: the flush that it leaves out ends the piece here.
pub fn push_deflated_chunk(out: &mut Vec<u8>, deflated: &[u8]) {
    push_chunk_head(out, deflated.len() + TAIL.len());
    out.extend_from_slice(deflated);
    out.extend_from_slice(&TAIL);
    out.extend_from_slice(b"\r\n");
}

/// Whether the value of Accept-Encoding takes gzip (RFC 9110, 12.5.3): named, and with a weight that is not none.
#[must_use]
pub fn takes_gzip(accepted: &[u8]) -> bool {
    accepted.split(|&byte| byte == b',').any(|coding| {
        let mut parts = coding.split(|&byte| byte == b';').map(<[u8]>::trim_ascii);
        let named = parts
            .next()
            .is_some_and(|name| name.eq_ignore_ascii_case(b"gzip") || name.eq_ignore_ascii_case(b"x-gzip"));
        // A weight of nothing but noughts is none.
        let never = |part: &[u8]| {
            let weight = part.strip_prefix(b"q=").or_else(|| part.strip_prefix(b"Q="));
            weight.is_some_and(|weight| weight.iter().all(|byte| matches!(byte, b'0' | b'.')))
        };
        named && !parts.any(never)
    })
}

fn push_chunk_head(out: &mut Vec<u8>, len: usize) {
    let mut head = [0; CHUNK_HEAD_BYTES_MAX];
    let head_len = encode_chunk_head(&mut head, len);
    out.extend_from_slice(head.get(..head_len).unwrap_or_default());
}

fn stored_len(text: &[u8]) -> usize {
    text.len() + text.len().div_ceil(STORED_BYTES_MAX) * STORED_HEAD_BYTES
}

/// Not the last block, and stored: three bits, and the rest of their byte.
fn push_stored(out: &mut Vec<u8>, text: &[u8]) {
    for block in text.chunks(STORED_BYTES_MAX) {
        let len = block.len() as u16;
        out.push(0);
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&(!len).to_le_bytes());
        out.extend_from_slice(block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::deflate::Deflater;
    use crate::wire::http::chunked::ChunkedDecoder;

    /// The text of so much of a coded body.
    fn text_of(chunks: &[u8]) -> Vec<u8> {
        let (mut body, mut text) = (Vec::new(), Vec::with_capacity(1 << 20));
        ChunkedDecoder::default().decode_into(chunks, &mut body, 1 << 20).expect("chunks");
        assert_eq!(body[..10], HEAD);
        let mut inflater = flate2::Decompress::new(false);
        inflater.decompress_vec(&body[10..], &mut text, flate2::FlushDecompress::Sync).expect("blocks");
        assert_eq!(inflater.total_in(), body.len() as u64 - 10);
        text
    }

    #[test]
    fn every_piece_is_whole_by_itself_and_behind_any_other() {
        let mut deflater = Deflater::new(5, 1);
        let (mut chunks, mut text) = (Vec::new(), b"first\n".to_vec());
        push_first_chunk(&mut chunks, &text);
        for len in [1, 7, 300, 65_535, 65_536, 200_000] {
            let piece: Vec<u8> = (0..len).map(|at| b"0123456789\n"[at * 7 % 11]).collect();
            push_stored_chunk(&mut chunks, &piece);
            text.extend_from_slice(&piece);
            assert_eq!(text_of(&chunks), text, "stored, {len}");
            if let Some(deflated) = deflater.try_deflate(&piece) {
                push_deflated_chunk(&mut chunks, deflated);
                text.extend_from_slice(&piece);
                assert_eq!(text_of(&chunks), text, "deflated, {len}");
            }
        }
        let before = chunks.clone();
        push_stored_chunk(&mut chunks, b"");
        assert_eq!(chunks, before, "nothing is no chunk: it would end the body");
    }

    #[test]
    fn gzip_is_taken_where_it_is_named_and_not_refused() {
        for taken in ["gzip", "deflate, gzip, br", "GZIP;q=0.5", "x-gzip", "br ,gzip; q=1"] {
            assert!(takes_gzip(taken.as_bytes()), "{taken}");
        }
        for refused in ["", "identity", "*", "gzip;q=0", "gzip; q=0.000", "gzipped", "deflate, br"] {
            assert!(!takes_gzip(refused.as_bytes()), "{refused}");
        }
    }
}
