//! Deflates messages, each by itself (RFC 7692 section 7.2.1).
//!
//! One for each loop. Its state (some 300 KiB) is made with the first message that is long enough and
//! then reset for each; the result is lent until the next one. Never keeps a result that saves nothing.

use super::{BYTES_KEPT, TAIL};
use flate2::{Compress, Compression, FlushCompress};

/// Deflates one message after the other.
#[derive(Debug)]
pub struct Deflater {
    level: u32,
    bytes_min: usize,
    state: Option<Compress>,
    out: Vec<u8>,
}

impl Deflater {
    /// A deflater for messages of at least `bytes_min` bytes; `level` is zlib's, 1 to 9. Allocates nothing.
    #[must_use]
    pub fn new(level: u32, bytes_min: usize) -> Self {
        Self { level: level.clamp(1, 9), bytes_min: bytes_min.max(1), state: None, out: Vec::new() }
    }

    /// The payload deflated, without its tail; `None` if it is shorter than the bound or would not become
    /// smaller.
    pub fn try_deflate(&mut self, payload: &[u8]) -> Option<&[u8]> {
        if payload.len() < self.bytes_min {
            return None;
        }
        let level = Compression::new(self.level);
        let state = self.state.get_or_insert_with(|| Compress::new(level, false));
        // Without context takeover every message begins with an empty window (RFC 7692 section 7.1.1.1).
        state.reset();
        self.out.clear();
        self.out.shrink_to(BYTES_KEPT);
        // Room for the worst case, so that the flush always completes: the backend's reset forgets to take
        // back output that had no room, and the next message would begin in the middle of this one.
        self.out.reserve(payload.len() + payload.len() / 8 + payload.len() / 64 + 64);
        let flushed = state.compress_vec(payload, &mut self.out, FlushCompress::Sync).is_ok()
            && state.total_in() == payload.len() as u64
            && self.out.len() < self.out.capacity();
        if !flushed {
            self.state = None;
            return None;
        }
        let deflated = self.out.strip_suffix(&TAIL)?;
        (deflated.len() < payload.len()).then_some(deflated)
    }
}
