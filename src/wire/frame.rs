//! The WebSocket frame header (RFC 6455 section 5.2), decoded and encoded without allocation.
//!
//! Owns the rules one header can break by itself. Driven by the inbox (frames of clients) and by
//! whoever writes frames. Never looks at a payload and never knows about the message a frame is in.

use std::fmt;

/// The longest header: two bytes, an eight-byte length and a mask.
pub const HEADER_BYTES_MAX: usize = 14;

/// The longest payload of a control frame (RFC 6455 section 5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Opcode {
    /// A later frame of a fragmented message.
    Continuation = 0x0,
    /// The first frame of a text message.
    Text = 0x1,
    /// The first frame of a binary message.
    Binary = 0x2,
    /// The sender will send nothing more.
    Close = 0x8,
    /// Asks for a pong with the same payload.
    Ping = 0x9,
    /// Answers a ping, or comes unasked.
    Pong = 0xA,
}

impl Opcode {
    /// The opcode with this number, none if the number is reserved.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0x0 => Some(Self::Continuation),
            0x1 => Some(Self::Text),
            0x2 => Some(Self::Binary),
            0x8 => Some(Self::Close),
            0x9 => Some(Self::Ping),
            0xA => Some(Self::Pong),
            _ => None,
        }
    }

    /// True for close, ping and pong, which may stand between the frames of a message.
    pub const fn is_control(self) -> bool {
        self as u8 & 0x8 != 0
    }
}

/// The first byte's bit that marks a compressed message, on its first frame (RFC 7692 section 6).
pub const RSV1: u8 = 0x40;

/// Who sent the bytes, which decides whether frames must be masked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// Frames must be masked.
    Client,
    /// Frames must not be masked.
    Server,
}

/// One decoded header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// The last frame of its message.
    pub fin: bool,
    /// Set on the first frame of a compressed message; an error unless that was negotiated.
    pub rsv1: bool,
    /// What the frame is.
    pub opcode: Opcode,
    /// The masking key.
    pub mask: Option<[u8; 4]>,
    /// Length of the payload.
    pub payload_len: u64,
    /// Length of the header itself.
    pub header_len: usize,
}

/// What a single header can do wrong; the answer to each is close 1002.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameError {
    /// A reserved bit without a negotiated meaning.
    ReservedBits,
    /// An opcode without a meaning.
    ReservedOpcode,
    /// A client's frame without a mask.
    Unmasked,
    /// A server's frame with a mask.
    Masked,
    /// A control frame of more than 125 bytes.
    ControlTooLong,
    /// A control frame that is not the last of its message.
    ControlFragmented,
    /// A length in more bytes than it needs.
    LengthNotMinimal,
    /// A length with its highest bit set.
    LengthTooLarge,
}

impl FrameError {
    /// The reason as one line, fit for a close frame.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::ReservedBits => "reserved bits set",
            Self::ReservedOpcode => "reserved opcode",
            Self::Unmasked => "client frame not masked",
            Self::Masked => "server frame masked",
            Self::ControlTooLong => "control frame longer than 125 bytes",
            Self::ControlFragmented => "control frame fragmented",
            Self::LengthNotMinimal => "length not in its shortest form",
            Self::LengthTooLarge => "length above 2^63",
        }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for FrameError {}

/// Decodes the header at the front of `bytes`; `None` if it is not all there.
///
/// What the bytes at hand already show to be wrong is an error at once, even from a part of a header.
/// RSV1 is allowed where compression may set it; a caller that negotiated none has to refuse it.
pub fn decode_header(bytes: &[u8], from: Sender) -> Result<Option<FrameHeader>, FrameError> {
    let Some(&first) = bytes.first() else { return Ok(None) };
    let (fin, rsv1) = (first & 0x80 != 0, first & 0x40 != 0);
    // RFC 6455 section 5.2: RSV2 and RSV3 have no extension here that gives them a meaning.
    if first & 0x30 != 0 {
        return Err(FrameError::ReservedBits);
    }
    let opcode = Opcode::from_number(first & 0x0F).ok_or(FrameError::ReservedOpcode)?;
    // RFC 7692 section 6.1: RSV1 belongs to the first frame of a data message only.
    if rsv1 && !matches!(opcode, Opcode::Text | Opcode::Binary) {
        return Err(FrameError::ReservedBits);
    }
    // RFC 6455 section 5.5: control frames must not be fragmented.
    if opcode.is_control() && !fin {
        return Err(FrameError::ControlFragmented);
    }
    let Some(&second) = bytes.get(1) else { return Ok(None) };
    // RFC 6455 section 5.1: clients mask all frames, servers none.
    match (from, second & 0x80 != 0) {
        (Sender::Client, false) => return Err(FrameError::Unmasked),
        (Sender::Server, true) => return Err(FrameError::Masked),
        _ => {}
    }
    // RFC 6455 section 5.5: 126 and 127 announce a longer length.
    if opcode.is_control() && second & 0x7F > 125 {
        return Err(FrameError::ControlTooLong);
    }
    let Some((payload_len, length_end)) = decode_length(bytes, second & 0x7F)? else { return Ok(None) };
    let (mask, header_len) = match from {
        Sender::Server => (None, length_end),
        Sender::Client => match bytes.get(length_end..).and_then(|rest| rest.first_chunk::<4>()) {
            Some(mask) => (Some(*mask), length_end + 4),
            None => return Ok(None),
        },
    };
    Ok(Some(FrameHeader { fin, rsv1, opcode, mask, payload_len, header_len }))
}

/// Writes a header for a payload of `len` bytes to the front of `out` and returns its length.
pub fn encode_header(
    out: &mut [u8; HEADER_BYTES_MAX],
    fin: bool,
    opcode: Opcode,
    len: usize,
    mask: Option<[u8; 4]>,
) -> usize {
    let mask_bit = if mask.is_some() { 0x80 } else { 0 };
    out[0] = opcode as u8 | if fin { 0x80 } else { 0 };
    let length_end = if len < 126 {
        out[1] = mask_bit | len as u8;
        2
    } else if let Ok(short) = u16::try_from(len) {
        out[1] = mask_bit | 126;
        out[2..4].copy_from_slice(&short.to_be_bytes());
        4
    } else {
        out[1] = mask_bit | 127;
        out[2..10].copy_from_slice(&(len as u64).to_be_bytes());
        10
    };
    match mask {
        Some(mask) => {
            out[length_end..length_end + 4].copy_from_slice(&mask);
            length_end + 4
        }
        None => length_end,
    }
}

/// Appends a whole unfragmented frame, masking the payload if a mask is given.
pub fn push_frame(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) {
    let mut header = [0; HEADER_BYTES_MAX];
    let header_len = encode_header(&mut header, true, opcode, payload.len(), mask);
    out.reserve(header_len + payload.len());
    out.extend_from_slice(&header[..header_len]);
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(mask) = mask {
        super::mask::apply_mask(&mut out[start..], mask, 0);
    }
}

/// Appends a whole unfragmented frame of a compressed message, masking the payload if a mask is given.
pub fn push_deflated_frame(out: &mut Vec<u8>, opcode: Opcode, deflated: &[u8], mask: Option<[u8; 4]>) {
    let start = out.len();
    push_frame(out, opcode, deflated, mask);
    if let Some(first) = out.get_mut(start) {
        *first |= RSV1;
    }
}

/// The payload length and where it ends; `None` if its bytes are not all there.
fn decode_length(bytes: &[u8], short: u8) -> Result<Option<(u64, usize)>, FrameError> {
    let rest = bytes.get(2..).unwrap_or_default();
    match short {
        126 => {
            let Some(&length) = rest.first_chunk::<2>() else { return Ok(None) };
            let length = u64::from(u16::from_be_bytes(length));
            // RFC 6455 section 5.2: the minimal number of bytes must be used.
            if length < 126 {
                return Err(FrameError::LengthNotMinimal);
            }
            Ok(Some((length, 4)))
        }
        127 => {
            // RFC 6455 section 5.2: the most significant bit must be 0.
            if rest.first().is_some_and(|top| top & 0x80 != 0) {
                return Err(FrameError::LengthTooLarge);
            }
            let Some(&length) = rest.first_chunk::<8>() else { return Ok(None) };
            let length = u64::from_be_bytes(length);
            if length <= u64::from(u16::MAX) {
                return Err(FrameError::LengthNotMinimal);
            }
            Ok(Some((length, 10)))
        }
        short => Ok(Some((u64::from(short), 2))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;
    use tungstenite::protocol::frame::FrameHeader as Oracle;
    use tungstenite::protocol::frame::coding::OpCode;

    const LENGTHS: [u64; 12] =
        [0, 1, 124, 125, 126, 127, 128, 65_534, 65_535, 65_536, 1 << 32, (1 << 63) - 1];
    const MASK: [u8; 4] = [0xA1, 0, 0xFF, 7];
    const OPCODES: [Opcode; 6] =
        [Opcode::Continuation, Opcode::Text, Opcode::Binary, Opcode::Close, Opcode::Ping, Opcode::Pong];

    #[test]
    fn headers_agree_with_tungstenite_in_both_directions() {
        for opcode in OPCODES {
            for fin in [false, true] {
                for len in LENGTHS {
                    for mask in [None, Some(MASK)] {
                        let oracle = Oracle {
                            is_final: fin,
                            opcode: OpCode::from(opcode as u8),
                            mask,
                            ..Oracle::default()
                        };
                        let mut theirs = Vec::new();
                        oracle.format(len, &mut theirs).unwrap();
                        let mut ours = [0; HEADER_BYTES_MAX];
                        let n = encode_header(&mut ours, fin, opcode, len as usize, mask);
                        assert_eq!(&ours[..n], theirs);

                        let from = if mask.is_some() { Sender::Client } else { Sender::Server };
                        let ours = decode_header(&theirs, from);
                        if opcode.is_control() && !fin {
                            assert_eq!(ours, Err(FrameError::ControlFragmented));
                        } else if opcode.is_control() && len > 125 {
                            assert_eq!(ours, Err(FrameError::ControlTooLong));
                        } else {
                            let header_len = theirs.len();
                            let header =
                                FrameHeader { fin, rsv1: false, opcode, mask, payload_len: len, header_len };
                            assert_eq!(ours, Ok(Some(header)));
                            for cut in 0..header_len {
                                assert_eq!(decode_header(&theirs[..cut], from), Ok(None), "cut {cut}");
                            }
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn every_pair_of_first_bytes_is_judged_like_the_table_of_rules() {
        for first in 0..=255u8 {
            for second in 0..=255u8 {
                for from in [Sender::Client, Sender::Server] {
                    let ours = decode_header(&[first, second], from);
                    let known = Opcode::from_number(first & 15).is_some();
                    let control = first & 8 != 0;
                    let rsv1_ok = first & 0x40 == 0 || matches!(first & 15, 1 | 2);
                    let legal = first & 0x30 == 0
                        && rsv1_ok
                        && known
                        && (second & 0x80 != 0) == (from == Sender::Client)
                        && (!control || (first & 0x80 != 0 && second & 0x7F <= 125));
                    assert_eq!(ours.is_ok(), legal, "{first:#x} {second:#x} {from:?} {ours:?}");
                    if ours.is_ok() && first & 0x40 == 0 {
                        // Two bytes the oracle refuses can only be ones we refuse too.
                        let mut whole = vec![first, second];
                        whole.extend([0; 12]);
                        assert!(Oracle::parse(&mut Cursor::new(&whole)).is_ok());
                    }
                }
            }
        }
    }

    #[test]
    fn each_error_is_found_at_the_first_byte_that_shows_it() {
        let cases: [(&[u8], Sender, FrameError); 11] = [
            (&[0x91], Sender::Client, FrameError::ReservedBits),
            (&[0xA1], Sender::Client, FrameError::ReservedBits),
            (&[0xC0], Sender::Client, FrameError::ReservedBits),
            (&[0xC9], Sender::Client, FrameError::ReservedBits),
            (&[0x83], Sender::Client, FrameError::ReservedOpcode),
            (&[0x09], Sender::Client, FrameError::ControlFragmented),
            (&[0x81, 0x01], Sender::Client, FrameError::Unmasked),
            (&[0x81, 0x81], Sender::Server, FrameError::Masked),
            (&[0x89, 0xFE], Sender::Client, FrameError::ControlTooLong),
            (&[0x82, 0xFE, 0, 125], Sender::Client, FrameError::LengthNotMinimal),
            (&[0x82, 0xFF, 0x80], Sender::Client, FrameError::LengthTooLarge),
        ];
        for (bytes, from, error) in cases {
            assert_eq!(decode_header(bytes, from), Err(error));
            assert_eq!(decode_header(&bytes[..bytes.len() - 1], from), Ok(None));
        }
        let long = [0x82, 127, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF];
        assert_eq!(decode_header(&long, Sender::Server), Err(FrameError::LengthNotMinimal));
    }

    #[test]
    fn pushed_frames_hold_the_masked_payload() {
        let mut out = Vec::new();
        push_frame(&mut out, Opcode::Text, b"Hello", Some([0x37, 0xfa, 0x21, 0x3d]));
        // RFC 6455 section 5.7, a single-frame masked text message.
        assert_eq!(out, [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]);
        out.clear();
        push_frame(&mut out, Opcode::Text, b"Hello", None);
        assert_eq!(out, [0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f]);
    }
}
