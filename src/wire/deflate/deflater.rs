//! Deflates messages, each by itself (RFC 7692 section 7.2.1).
//!
//! One for each loop. Its state (some 300 KiB) is made with the first message that is long enough and
//! then reset for each; the result is lent until the next one. Never keeps a result that saves nothing.
//!
//! Messages that everybody gets in one piece, a run, may refer to those before them in it, and have a state of their own.

use super::{BYTES_KEPT, TAIL};
use flate2::{Compress, Compression, FlushCompress};

/// How hard runs are compressed. What stands in them already costs nothing to say again, and that is most of what a topic
/// says: at the fastest level, a kilobyte of JSON in a run takes half of what it takes by itself at any.
const RUN_LEVEL: u32 = 1;

/// Deflates one message after the other.
#[derive(Debug)]
pub struct Deflater {
    level: u32,
    bytes_min: usize,
    state: Option<Compress>,
    /// Of runs.
    run: Option<Compress>,
    out: Vec<u8>,
}

impl Deflater {
    /// A deflater for messages of at least `bytes_min` bytes; `level` is zlib's, 1 to 9. Allocates nothing.
    #[must_use]
    pub fn new(level: u32, bytes_min: usize) -> Self {
        Self {
            level: level.clamp(1, 9),
            bytes_min: bytes_min.max(1),
            state: None,
            run: None,
            out: Vec::new(),
        }
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
        if !flush(state, payload, &mut self.out) {
            self.state = None;
            return None;
        }
        let deflated = self.out.strip_suffix(&TAIL)?;
        (deflated.len() < payload.len()).then_some(deflated)
    }

    /// Begins a run of messages of so many bytes together. `false` if they are fewer than the bound: none is made.
    pub fn begin_run(&mut self, bytes: usize) -> bool {
        if bytes < self.bytes_min {
            return false;
        }
        self.run.get_or_insert_with(|| Compress::new(Compression::new(RUN_LEVEL), false)).reset();
        true
    }

    /// The run's next message deflated, without its tail, whether it has become smaller or not: those behind it may refer
    /// to it. `None` if the run can't go on.
    pub fn deflate_in_run(&mut self, payload: &[u8]) -> Option<&[u8]> {
        if !flush(self.run.as_mut()?, payload, &mut self.out) {
            self.run = None;
            return None;
        }
        self.out.strip_suffix(&TAIL)
    }
}

/// Deflates the payload into `out`, up to a flush. `false`: the state is of no use any more.
fn flush(state: &mut Compress, payload: &[u8], out: &mut Vec<u8>) -> bool {
    out.clear();
    out.shrink_to(BYTES_KEPT);
    // Room for the worst case, so that the flush always completes: the backend's reset forgets to take
    // back output that had no room, and the next message would begin in the middle of this one.
    out.reserve(payload.len() + payload.len() / 8 + payload.len() / 64 + 64);
    let before = state.total_in();
    state.compress_vec(payload, out, FlushCompress::Sync).is_ok()
        && state.total_in() - before == payload.len() as u64
        && out.len() < out.capacity()
}
