//! A server's frames as messages, sans-io. Owns the rules of RFC 6455 that bind a client which reads.

use crate::wire::close::parse_close;
use crate::wire::frame::{FrameHeader, Opcode, Sender, decode_header};

/// Largest message that is taken.
pub const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// What came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Vec<u8>),
    /// A ping, to be answered with the same payload.
    Ping(Vec<u8>),
    /// A pong.
    Pong,
    /// The close frame; nothing follows.
    Close {
        /// The code; `None` when the frame was empty (1005 in reports: RFC 6455, 7.1.5).
        code: Option<u16>,
        /// The reason, often empty.
        reason: String,
    },
}

/// What the server did wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Violation {
    /// The code to close with.
    pub code: u16,
    /// One line.
    pub reason: &'static str,
}

/// Takes bytes and gives events.
#[derive(Debug, Default)]
pub struct Messages {
    held: Vec<u8>,
    /// Bytes of `held` that were used already.
    used: usize,
    message: Vec<u8>,
    /// What the open message is.
    open: Option<Opcode>,
}

impl Messages {
    /// Appends what was read.
    pub fn push(&mut self, bytes: &[u8]) {
        self.held.drain(..std::mem::take(&mut self.used));
        self.held.extend_from_slice(bytes);
    }

    /// The next event, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// The server broke the protocol; nothing after it can be understood.
    pub fn try_next(&mut self) -> Result<Option<Event>, Violation> {
        loop {
            let held = self.held.get(self.used..).unwrap_or_default();
            let header = decode_header(held, Sender::Server)
                .map_err(|error| Violation { code: 1002, reason: error.reason() })?;
            let Some(header) = header else { return Ok(None) };
            self.check(&header)?;
            // Checked to be far below the largest usize.
            let len = header.payload_len as usize;
            let Some(payload) = held.get(header.header_len..header.header_len + len) else { return Ok(None) };
            let payload = payload.to_vec();
            self.used += header.header_len + len;
            if let Some(event) = self.on_frame(&header, payload)? {
                return Ok(Some(event));
            }
        }
    }

    fn check(&self, header: &FrameHeader) -> Result<(), Violation> {
        let wrong = |reason| Err(Violation { code: 1002, reason });
        if header.rsv1 {
            // RFC 6455, 5.2: no extension was asked for.
            return wrong("compressed frame without an agreement");
        }
        match header.opcode {
            Opcode::Continuation if self.open.is_none() => return wrong("continuation of nothing"),
            // RFC 6455, 5.4: messages do not interleave.
            Opcode::Text | Opcode::Binary if self.open.is_some() => return wrong("message inside a message"),
            _ => {}
        }
        let open = if header.opcode.is_control() { 0 } else { self.message.len() };
        if header.payload_len > (MESSAGE_BYTES_MAX - open.min(MESSAGE_BYTES_MAX)) as u64 {
            return Err(Violation { code: 1009, reason: "message over 64 MiB" });
        }
        Ok(())
    }

    fn on_frame(&mut self, header: &FrameHeader, payload: Vec<u8>) -> Result<Option<Event>, Violation> {
        match header.opcode {
            Opcode::Ping => return Ok(Some(Event::Ping(payload))),
            Opcode::Pong => return Ok(Some(Event::Pong)),
            Opcode::Close => return close(&payload).map(Some),
            Opcode::Text | Opcode::Binary => self.open = Some(header.opcode),
            Opcode::Continuation => {}
        }
        self.message.extend_from_slice(&payload);
        if !header.fin {
            return Ok(None);
        }
        let message = std::mem::take(&mut self.message);
        match self.open.take() {
            Some(Opcode::Binary) => Ok(Some(Event::Binary(message))),
            _ => match String::from_utf8(message) {
                Ok(text) => Ok(Some(Event::Text(text))),
                // RFC 6455, 8.1.
                Err(_) => Err(Violation { code: 1007, reason: "text that is not UTF-8" }),
            },
        }
    }
}

fn close(payload: &[u8]) -> Result<Event, Violation> {
    match parse_close(payload) {
        Ok(None) => Ok(Event::Close { code: None, reason: String::new() }),
        Ok(Some((code, reason))) => Ok(Event::Close { code: Some(code), reason: reason.to_owned() }),
        Err(error) => Err(Violation { code: error.close_code(), reason: error.reason() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8], split: usize) -> Result<Vec<Event>, Violation> {
        let mut messages = Messages::default();
        let mut events = Vec::new();
        for part in [&bytes[..split], &bytes[split..]] {
            messages.push(part);
            while let Some(event) = messages.try_next()? {
                events.push(event);
            }
        }
        Ok(events)
    }

    #[test]
    fn events_are_the_same_wherever_the_bytes_are_split() {
        let mut bytes = vec![0x81, 2, b'h', b'i', 0x01, 1, 0xc3, 0x89, 1, b'p', 0x80, 1, 0xa9];
        bytes.extend([0x82, 126, 0, 200]);
        bytes.extend([7; 200]);
        bytes.extend([0x8a, 0, 0x88, 5, 0x03, 0xe9, b'b', b'y', b'e']);
        let expected = [
            Event::Text("hi".into()),
            Event::Ping(b"p".to_vec()),
            Event::Text("é".into()),
            Event::Binary(vec![7; 200]),
            Event::Pong,
            Event::Close { code: Some(1001), reason: "bye".into() },
        ];
        for split in 0..=bytes.len() {
            assert_eq!(all(&bytes, split).unwrap(), expected, "split at {split}");
        }
    }

    #[test]
    fn violations_have_their_code() {
        let cases: [(&[u8], u16); 8] = [
            (&[0x81, 0x80, 0, 0, 0, 0], 1002),
            (&[0xc1, 0], 1002),
            (&[0x80, 0], 1002),
            (&[0x01, 0, 0x01, 0], 1002),
            (&[0x81, 1, 0xff], 1007),
            (&[0x88, 1, 3], 1002),
            (&[0x88, 2, 0x03, 0xed], 1002),
            (&[0x82, 127, 0, 0, 0, 1, 0, 0, 0, 0], 1009),
        ];
        for (bytes, code) in cases {
            assert_eq!(all(bytes, bytes.len()).unwrap_err().code, code, "{bytes:?}");
        }
        assert_eq!(all(&[0x88, 0], 0).unwrap(), [Event::Close { code: None, reason: String::new() }]);
    }
}
