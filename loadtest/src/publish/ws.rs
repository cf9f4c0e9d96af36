//! Publishing over one WebSocket connection: frames out, and a reader that answers pings and discards
//! the rest, so that the server never waits for the publisher to read.

use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use fantail::wire::frame::{self, Opcode, Sender};
use fantail::wire::upgrade::{self, AnswerError};

use super::PublishError;
use crate::engine::connection::mask;
use crate::engine::conversation::Conversation;
use crate::engine::handshake;
use crate::engine::message;
use crate::net::target::Target;
use crate::tls::{Tls, Wire};

const TIMEOUT: Duration = Duration::from_secs(10);
/// Stands for "no close frame has come".
const OPEN: u16 = 0;

/// The publishing connection.
#[derive(Debug)]
pub(crate) struct WsPublisher {
    wire: Arc<Wire>,
    closed: Arc<AtomicU16>,
    opcode: Opcode,
    frame: Vec<u8>,
    reader: Option<JoinHandle<()>>,
}

impl WsPublisher {
    /// Connects and upgrades. Messages will leave as text or as binary frames.
    pub(crate) fn connect(
        target: &Target,
        tls: Option<&Tls>,
        binary: bool,
        conversation: &Conversation,
    ) -> Result<Self, PublishError> {
        let wire = Wire::connect(target, tls, TIMEOUT)?;
        let rest = upgrade(&wire, target, conversation)?;
        wire.set_read_timeout(None)?;
        let wire = Arc::new(wire);
        let closed = Arc::new(AtomicU16::new(OPEN));
        let (from, flag) = (wire.clone(), closed.clone());
        let reader = std::thread::Builder::new().name("publisher-reader".into()).spawn(move || {
            let code = read_until_closed(&from, rest).unwrap_or(1006);
            flag.store(code.max(1), Ordering::Release);
        })?;
        let opcode = if binary { Opcode::Binary } else { Opcode::Text };
        Ok(Self { wire, closed, opcode, frame: Vec::new(), reader: Some(reader) })
    }

    /// Sends one message as one frame.
    pub(crate) fn publish(&mut self, payload: &[u8]) -> Result<(), PublishError> {
        let code = self.closed.load(Ordering::Acquire);
        if code != OPEN {
            return Err(PublishError::Closed(code));
        }
        self.frame.clear();
        frame::push_frame(&mut self.frame, self.opcode, payload, Some(mask()));
        self.wire.write_all(&self.frame).map_err(|error| {
            // Behind a frame that broke off no other can be read.
            self.closed.store(1006, Ordering::Release);
            PublishError::Unknown(error)
        })
    }
}

impl Drop for WsPublisher {
    fn drop(&mut self) {
        let mut close = Vec::new();
        frame::push_frame(&mut close, Opcode::Close, &1000u16.to_be_bytes(), Some(mask()));
        // The connection may be gone already, and then there is nobody to be polite to.
        let _ = self.wire.write_all(&close);
        self.wire.shut_write();
        if let Some(reader) = self.reader.take() {
            // It ends when the server closes; at the latest the timeout set here ends its read.
            let _ = self.wire.set_read_timeout(Some(Duration::from_secs(1)));
            self.wire.shut_read();
            let _ = reader.join();
        }
    }
}

/// Sends the request, reads the answer, and returns what came behind it.
fn upgrade(wire: &Wire, target: &Target, conversation: &Conversation) -> Result<Vec<u8>, PublishError> {
    let key = handshake::key(message::random_u64());
    let mut request = Vec::new();
    conversation.write_request(target, key, 0, false, &mut request);
    wire.write_all(&request)?;
    let mut answer = Vec::new();
    let mut chunk = [0; 4096];
    let mut timed = wire.within(TIMEOUT, "no end of the answer within ten seconds");
    loop {
        match upgrade::check_answer(&answer, &key) {
            Ok(Some(head_len)) => {
                if let Some(hello) = conversation.hello(0) {
                    let mut frame = Vec::new();
                    frame::push_frame(&mut frame, Opcode::Text, &hello, Some(mask()));
                    wire.write_all(&frame)?;
                }
                return Ok(answer.split_off(head_len));
            }
            Ok(None) => {}
            Err(AnswerError::Refused(status)) => return Err(PublishError::Refused(status)),
            Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error).into()),
        }
        match timed.read(&mut chunk)? {
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            count => answer.extend_from_slice(chunk.get(..count).unwrap_or_default()),
        }
    }
}

/// Reads and discards until the end; returns the close code if a close frame came.
fn read_until_closed(wire: &Wire, mut input: Vec<u8>) -> io::Result<u16> {
    let mut chunk = vec![0; 64 * 1024];
    // What is left of a payload that is being skipped.
    let mut skip = 0u64;
    loop {
        let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(input.len());
        input.drain(..skipped);
        skip -= skipped as u64;
        let broken = |error: frame::FrameError| io::Error::new(io::ErrorKind::InvalidData, error);
        match frame::decode_header(&input, Sender::Server).map_err(broken)? {
            Some(header) if !header.opcode.is_control() => {
                input.drain(..header.header_len);
                skip = header.payload_len;
                if !input.is_empty() || skip == 0 {
                    continue;
                }
            }
            Some(header) => {
                let end = header.header_len + usize::try_from(header.payload_len).unwrap_or(usize::MAX);
                if let Some(payload) = input.get(header.header_len..end) {
                    match (header.opcode, payload) {
                        (Opcode::Ping, payload) => {
                            let mut pong = Vec::new();
                            frame::push_frame(&mut pong, Opcode::Pong, payload, Some(mask()));
                            wire.write_all(&pong)?;
                        }
                        (Opcode::Close, [high, low, ..]) => return Ok(u16::from_be_bytes([*high, *low])),
                        (Opcode::Close, _) => return Ok(1005),
                        _ => {}
                    }
                    input.drain(..end);
                    continue;
                }
            }
            None => {}
        }
        match wire.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => input.extend_from_slice(chunk.get(..count).unwrap_or_default()),
        }
    }
}
