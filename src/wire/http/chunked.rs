//! Chunked bodies (RFC 9112 section 7.1): decoded as they arrive, and the framing of what is sent in chunks.
//!
//! Owns the place inside the chunked framing. Driven with the bytes behind a head. Never keeps a body,
//! and refuses every framing that another reader may understand differently.

use super::uri::hex_digit;
use std::fmt;

/// Room for the line in front of a chunk: sixteen digits and the line's end.
pub const CHUNK_HEAD_BYTES_MAX: usize = 18;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// What ends a body: the last chunk and an empty trailer.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// Writes the line in front of a chunk of so many bytes, of which there must be some: an empty one would end the body.
/// How long the line is.
#[must_use]
pub fn encode_chunk_head(head: &mut [u8; CHUNK_HEAD_BYTES_MAX], chunk_len: usize) -> usize {
    debug_assert_ne!(chunk_len, 0);
    let digits = (usize::BITS - chunk_len.leading_zeros()).div_ceil(4) as usize;
    for (place, digit) in head.iter_mut().take(digits).enumerate() {
        *digit = HEX[chunk_len >> (4 * (digits - 1 - place)) & 15];
    }
    for (place, byte) in head.iter_mut().skip(digits).zip(*b"\r\n") {
        *place = byte;
    }
    digits + 2
}

/// Appends data as one chunk, and nothing if there is none.
pub fn push_chunk(out: &mut Vec<u8>, data: &[u8]) {
    if data.is_empty() {
        return;
    }
    let mut head = [0; CHUNK_HEAD_BYTES_MAX];
    let head_len = encode_chunk_head(&mut head, data.len());
    out.extend_from_slice(head.get(..head_len).unwrap_or_default());
    out.extend_from_slice(data);
    out.extend_from_slice(b"\r\n");
}

/// The longest line that announces a chunk, extensions included.
pub const LINE_BYTES_MAX: u16 = 256;

/// The longest trailer section, which is read and dropped.
pub const TRAILER_BYTES_MAX: u16 = 1024;

/// Why a body is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChunkedError {
    /// A chunk size that is not a hexadecimal number of 64 bits.
    BadSize,
    /// A line that does not end with CR LF.
    BareLineEnd,
    /// A control character in an extension or the trailer.
    ControlCharacter,
    /// A chunk line longer than [`LINE_BYTES_MAX`].
    LineTooLong,
    /// A trailer longer than [`TRAILER_BYTES_MAX`].
    TrailerTooLong,
    /// A body longer than the caller allows.
    BodyTooLong,
}

impl ChunkedError {
    /// The status to answer with.
    pub const fn status(self) -> u16 {
        match self {
            Self::BodyTooLong => 413,
            Self::TrailerTooLong => 431,
            _ => 400,
        }
    }

    /// The reason as one line.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::BadSize => "malformed chunk size",
            Self::BareLineEnd => "chunk line does not end with CR LF",
            Self::ControlCharacter => "control character in chunk line",
            Self::LineTooLong => "chunk line too long",
            Self::TrailerTooLong => "trailer too long",
            Self::BodyTooLong => "body too long",
        }
    }
}

impl fmt::Display for ChunkedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for ChunkedError {}

/// What one step made of the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Step<'b> {
    /// How many bytes were used; the rest is for the next step, or behind the body.
    pub consumed: usize,
    /// The bytes of the body among them.
    pub data: &'b [u8],
    /// The body is complete.
    pub done: bool,
}

/// The place inside a chunked body; a fresh one is at its start.
#[derive(Debug, Clone, Copy, Default)]
pub struct ChunkedDecoder {
    state: State,
    /// Bytes of this chunk that are missing, or its size as far as it is read.
    size: u64,
    /// Bytes of the current line or trailer.
    line: u16,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum State {
    /// Before the first digit.
    #[default]
    SizeStart,
    Size,
    Extension,
    SizeLf,
    Data,
    DataCr,
    DataLf,
    /// At the start of a line of the trailer.
    TrailerStart,
    Trailer,
    TrailerLf,
    EndLf,
    Done,
}

impl ChunkedDecoder {
    /// Takes bytes up to the end of one stretch of data, the end of the body or the end of `bytes`.
    pub fn step<'b>(&mut self, bytes: &'b [u8]) -> Result<Step<'b>, ChunkedError> {
        let mut consumed = 0;
        while let Some(rest) = bytes.get(consumed..).filter(|rest| !rest.is_empty()) {
            if self.state == State::Done {
                break;
            }
            if self.state == State::Data {
                let len = usize::try_from(self.size).unwrap_or(usize::MAX).min(rest.len());
                self.size -= len as u64;
                if self.size == 0 {
                    self.state = State::DataCr;
                }
                let data = rest.get(..len).unwrap_or_default();
                return Ok(Step { consumed: consumed + len, data, done: false });
            }
            if let Some(&byte) = rest.first() {
                self.on_byte(byte)?;
            }
            consumed += 1;
        }
        Ok(Step { consumed, data: &[], done: self.state == State::Done })
    }

    /// Appends the body in `bytes` to `out`, which may not grow beyond `body_bytes_max`; returns how many
    /// bytes were used and whether the body is complete. A chunk too many is refused when announced.
    pub fn decode_into(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
        body_bytes_max: usize,
    ) -> Result<(usize, bool), ChunkedError> {
        let mut used = 0;
        loop {
            let step = self.step(bytes.get(used..).unwrap_or_default())?;
            used += step.consumed;
            let announced = step.data.len() as u64;
            let announced =
                if self.state == State::Data { announced.saturating_add(self.size) } else { announced };
            if announced > body_bytes_max.saturating_sub(out.len()) as u64 {
                return Err(ChunkedError::BodyTooLong);
            }
            out.extend_from_slice(step.data);
            if step.done || used >= bytes.len() {
                return Ok((used, step.done));
            }
        }
    }

    /// Everything between the stretches of data.
    fn on_byte(&mut self, byte: u8) -> Result<(), ChunkedError> {
        let control = byte.is_ascii_control() && byte != b'\t';
        self.state = match (self.state, byte) {
            (State::SizeStart | State::Size, _) => self.on_size_byte(byte)?,
            (State::Extension, b'\r') => State::SizeLf,
            (State::Extension, b'\n') => return Err(ChunkedError::BareLineEnd),
            (State::Extension, _) if control => return Err(ChunkedError::ControlCharacter),
            (State::Extension, _) => {
                self.count_line(LINE_BYTES_MAX, ChunkedError::LineTooLong)?;
                State::Extension
            }
            (State::SizeLf, b'\n') => {
                self.line = 0;
                if self.size == 0 { State::TrailerStart } else { State::Data }
            }
            (State::DataCr, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::SizeStart,
            (State::TrailerStart, b'\r') => State::EndLf,
            (State::Trailer, b'\r') => State::TrailerLf,
            (State::TrailerStart | State::Trailer, b'\n') => return Err(ChunkedError::BareLineEnd),
            (State::TrailerStart | State::Trailer, _) if control => {
                return Err(ChunkedError::ControlCharacter);
            }
            (State::TrailerStart | State::Trailer, _) => {
                self.count_line(TRAILER_BYTES_MAX, ChunkedError::TrailerTooLong)?;
                State::Trailer
            }
            (State::TrailerLf, b'\n') => State::TrailerStart,
            (State::EndLf, b'\n') => State::Done,
            _ => return Err(ChunkedError::BareLineEnd),
        };
        Ok(())
    }

    /// Only digits, then at once `;` or CR: white space here is where readers disagree.
    fn on_size_byte(&mut self, byte: u8) -> Result<State, ChunkedError> {
        match (byte, hex_digit(byte)) {
            (_, Some(digit)) => {
                self.count_line(LINE_BYTES_MAX, ChunkedError::LineTooLong)?;
                if self.size >> 60 != 0 {
                    return Err(ChunkedError::BadSize);
                }
                self.size = self.size << 4 | u64::from(digit);
                Ok(State::Size)
            }
            (b';', _) if self.state == State::Size => Ok(State::Extension),
            (b'\r', _) if self.state == State::Size => Ok(State::SizeLf),
            (b'\n', _) if self.state == State::Size => Err(ChunkedError::BareLineEnd),
            _ => Err(ChunkedError::BadSize),
        }
    }

    fn count_line(&mut self, bytes_max: u16, error: ChunkedError) -> Result<(), ChunkedError> {
        self.line += 1;
        if self.line > bytes_max { Err(error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(bytes: &[u8], cuts: &[usize], max: usize) -> Result<(Vec<u8>, usize, bool), ChunkedError> {
        let (mut decoder, mut out) = (ChunkedDecoder::default(), Vec::new());
        let (mut used, mut done) = (0, false);
        for &end in cuts.iter().chain([&bytes.len()]) {
            if !done {
                let (n, finished) = decoder.decode_into(&bytes[used..end], &mut out, max)?;
                assert!(finished || used + n == end);
                (used, done) = (used + n, finished);
            }
        }
        Ok((out, used, done))
    }

    #[test]
    fn bodies_are_decoded_at_every_split_and_end_where_they_end() {
        let body = b"5\r\nhello\r\n00A;name=\"v\t\"\r\n, 12345678\r\n0;x\r\nExpires: now\r\nA: b\r\n\r\n";
        let bytes = [body.as_slice(), b"GET /"].concat();
        for cut in 0..=bytes.len() {
            let decoded = decode(&bytes, &[cut], 15).unwrap();
            assert_eq!(decoded, (b"hello, 12345678".to_vec(), body.len(), true), "cut {cut}");
        }
        let bytewise: Vec<usize> = (0..bytes.len()).collect();
        assert_eq!(decode(&bytes, &bytewise, 15).unwrap().1, body.len());
        for cut in 0..body.len() {
            assert!(!decode(&body[..cut], &[], 15).unwrap().2, "cut {cut}");
        }
        assert_eq!(decode(b"0\r\n\r\n", &[], 0), Ok((vec![], 5, true)));
    }

    #[test]
    fn ambiguous_framing_is_refused() {
        use ChunkedError::*;
        let cases: [(&[u8], ChunkedError); 19] = [
            (b"\r\n", BadSize),
            (b"5\nhello", BareLineEnd),
            (b"5\rhello", BareLineEnd),
            (b"5;x\nhello", BareLineEnd),
            (b"5\r\nhello0\r\n\r\n", BareLineEnd),
            (b"5\r\nhello\n0\r\n\r\n", BareLineEnd),
            (b"5\r\nhello\r0", BareLineEnd),
            (b"0\r\n\n", BareLineEnd),
            (b"0\r\nA: b\n", BareLineEnd),
            (b"0\r\n\rX", BareLineEnd),
            (b" 5\r\n", BadSize),
            (b"5 \r\n", BadSize),
            (b"+5\r\n", BadSize),
            (b"0x5\r\n", BadSize),
            (b"-1\r\n", BadSize),
            (b";x\r\n", BadSize),
            (b"10000000000000000\r\n", BadSize),
            (b"5;\0\r\n", ControlCharacter),
            (b"0\r\nA: \x7f\r\n", ControlCharacter),
        ];
        for (bytes, error) in cases {
            assert_eq!(decode(bytes, &[], usize::MAX), Err(error), "{:?}", bytes.escape_ascii().to_string());
            assert_eq!(error.status(), 400);
        }
    }

    #[test]
    fn lines_trailers_and_bodies_are_bounded() {
        let long = [b"5;".as_slice(), &[b'x'; 300]].concat();
        assert_eq!(decode(&long, &[], 9), Err(ChunkedError::LineTooLong));
        assert_eq!(decode(&[b'0'; 300], &[], 9), Err(ChunkedError::LineTooLong));
        let trailer = [b"0\r\n".as_slice(), &b"a: b\r\n".repeat(300)].concat();
        assert_eq!(decode(&trailer, &[], 9), Err(ChunkedError::TrailerTooLong));
        assert_eq!(decode(b"5\r\nhello\r\n5\r\n", &[], 9), Err(ChunkedError::BodyTooLong));
        assert_eq!(decode(b"a\r\n", &[], 9), Err(ChunkedError::BodyTooLong));
        assert_eq!(decode(b"ffffffffffffffff\r\nx", &[], 9), Err(ChunkedError::BodyTooLong));
        assert!(decode(b"9\r\n123456789\r\n0\r\n\r\n", &[], 9).is_ok());
    }

    #[test]
    fn what_is_sent_in_chunks_is_decoded() {
        let mut sent = Vec::new();
        for data in [&b"a"[..], b"", &[7; 16], &[b'x'; 70_000]] {
            push_chunk(&mut sent, data);
        }
        sent.extend_from_slice(LAST_CHUNK);
        let body = [&b"a"[..], &[7; 16], &[b'x'; 70_000]].concat();
        assert_eq!(decode(&sent, &[], body.len()), Ok((body, sent.len(), true)));
        let mut head = [0; CHUNK_HEAD_BYTES_MAX];
        assert_eq!(encode_chunk_head(&mut head, usize::MAX), CHUNK_HEAD_BYTES_MAX);
    }

    proptest! {
        #[test]
        fn what_is_encoded_comes_back(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..6),
            cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..8),
        ) {
            let mut bytes = Vec::new();
            for chunk in &chunks {
                bytes.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                bytes.extend(chunk);
                bytes.extend(b"\r\n");
            }
            bytes.extend(b"0\r\n\r\n");
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
            cuts.sort_unstable();
            let body = chunks.concat();
            let max = body.len();
            prop_assert_eq!(decode(&bytes, &cuts, max), Ok((body, bytes.len(), true)));
        }

        #[test]
        fn anything_is_decoded_or_refused(bytes in "[0-9a-f;\r\n: x]{0,60}") {
            let _ = decode(bytes.as_bytes(), &[], 1000);
        }
    }
}
