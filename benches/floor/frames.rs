//! The frames of the floor's publishers: decoded once, unmasked once, encoded once. Never a socket.

use std::io::Cursor;
use std::sync::Arc;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

/// The bytes of one connection that are not a whole frame yet.
#[derive(Default)]
pub(crate) struct Input(Vec<u8>);

/// What one piece of input led to.
#[derive(Default)]
pub(crate) struct Taken {
    /// Server frames for every subscriber.
    pub(crate) publish: Vec<Arc<[u8]>>,
    /// Control frames for the sender.
    pub(crate) answer: Vec<u8>,
    /// The sender closed or broke the protocol.
    pub(crate) is_over: bool,
}

impl Input {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes every whole frame out of what came before and `bytes`.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Taken {
        self.0.extend_from_slice(bytes);
        let mut taken = Taken::default();
        let mut at = 0;
        while !taken.is_over {
            let mut cursor = Cursor::new(&self.0[at..]);
            let (header, length) = match FrameHeader::parse(&mut cursor) {
                Ok(Some(parsed)) => parsed,
                Ok(None) => break,
                Err(_) => {
                    taken.is_over = true;
                    break;
                }
            };
            let start = at + cursor.position() as usize;
            let Some(end) = usize::try_from(length).ok().and_then(|length| start.checked_add(length)) else {
                taken.is_over = true;
                break;
            };
            let Some(payload) = self.0.get_mut(start..end) else { break };
            // RFC 6455 section 5.3.
            for (byte, mask) in payload.iter_mut().zip(header.mask.unwrap_or_default().iter().cycle()) {
                *byte ^= mask;
            }
            taken.add(&header, payload);
            at = end;
        }
        self.0.drain(..at);
        taken
    }
}

impl Taken {
    fn add(&mut self, header: &FrameHeader, payload: &[u8]) {
        match header.opcode {
            OpCode::Data(Data::Text | Data::Binary) if header.is_final => {
                self.publish.push(encode(header.opcode, payload).into());
            }
            OpCode::Control(Control::Ping) => {
                self.answer.extend(encode(OpCode::Control(Control::Pong), payload));
            }
            OpCode::Control(Control::Close) => {
                self.answer.extend(encode(header.opcode, payload));
                self.is_over = true;
            }
            _ => {}
        }
    }
}

/// One unmasked final frame: what a server sends.
pub(crate) fn encode(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    let mut frame = Vec::with_capacity(header.len(payload.len() as u64) + payload.len());
    // Writing to a Vec cannot fail.
    let _ = header.format(payload.len() as u64, &mut frame);
    frame.extend_from_slice(payload);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A client frame, masked with a fixed mask.
    fn masked(opcode: OpCode, payload: &[u8]) -> Vec<u8> {
        let mask = [1, 2, 3, 4];
        let header = FrameHeader { opcode, mask: Some(mask), ..FrameHeader::default() };
        let mut frame = Vec::new();
        header.format(payload.len() as u64, &mut frame).expect("a Vec takes every write");
        frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        frame
    }

    #[test]
    fn frames_come_out_whole_wherever_the_input_is_cut() {
        let mut bytes = masked(OpCode::Data(Data::Text), b"one");
        bytes.extend(masked(OpCode::Data(Data::Binary), &[7; 300]));
        let expected =
            [encode(OpCode::Data(Data::Text), b"one"), encode(OpCode::Data(Data::Binary), &[7; 300])];
        for cut in 0..=bytes.len() {
            let mut input = Input::default();
            let mut frames = input.take(&bytes[..cut]).publish;
            frames.extend(input.take(&bytes[cut..]).publish);
            assert!(input.is_empty());
            assert!(frames.iter().map(|frame| &frame[..]).eq(expected.iter().map(|frame| &frame[..])));
        }
    }

    #[test]
    fn a_ping_is_answered_and_a_close_ends() {
        let mut input = Input::default();
        let ping = input.take(&masked(OpCode::Control(Control::Ping), b"hi"));
        assert_eq!(ping.answer, encode(OpCode::Control(Control::Pong), b"hi"));
        assert!(!ping.is_over && ping.publish.is_empty());
        assert!(input.take(&masked(OpCode::Control(Control::Close), &[3, 232])).is_over);
    }
}
