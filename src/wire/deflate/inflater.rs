//! Inflates messages, each by itself and within a bound (RFC 7692 section 7.2.2).
//!
//! One for each loop. Its state (some 50 KiB) is made with the first compressed message and then reset for
//! each; the result lies in a buffer that grows with what really came out and is given back after a big
//! one. Never writes more than the bound, whatever the input promises.

use super::context::Contexts;
use super::{BYTES_KEPT, TAIL};
use flate2::{Decompress, FlushDecompress, Status};
use std::fmt;
use std::sync::Arc;

/// What stands behind the payload: the tail that was taken off, then a last block without content, whose end
/// proves that the message was whole.
const ENDING: [u8; 9] = [TAIL[0], TAIL[1], TAIL[2], TAIL[3], 0x01, 0x00, 0x00, 0xFF, 0xFF];

/// Blocks of one message that may call themselves the last; each costs a fresh start.
const FINAL_BLOCKS_MAX: u32 = 1_024;

/// How far back a block may refer.
pub(super) const WINDOW_BYTES: usize = 32 * 1024;

/// Room for the first piece of a message.
const FIRST_BYTES: usize = 4 * 1024;

/// Bytes that may come out in one turn of one connection before it has to let others have theirs; the message
/// that crosses it still comes whole.
const TURN_BYTES: usize = 1024 * 1024;

/// Why a compressed message has no content.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InflateError {
    /// More than the bound would come out.
    TooBig,
    /// Not deflate, or cut off.
    Corrupt,
    /// Perhaps not corrupt: it may refer to messages that were not kept.
    NoContext,
}

impl fmt::Display for InflateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooBig => "inflated message too big",
            Self::Corrupt => "compressed message is corrupt",
            Self::NoContext => "compressed message refers to what was not kept",
        })
    }
}

impl std::error::Error for InflateError {}

/// Inflates one message after the other.
#[derive(Debug, Default)]
pub struct Inflater {
    state: Option<Decompress>,
    out: Vec<u8>,
    /// Bytes that came out since the turn began, and a window for each fresh start.
    turn_bytes: usize,
    /// What is kept of clients in case that they refer to it; of nobody, if there is none.
    contexts: Option<Arc<Contexts>>,
}

/// What one call of the decoder did.
struct Step {
    used: usize,
    /// A block that called itself the last is through.
    ended: bool,
    /// Nothing was read or written although there was room.
    stuck: bool,
}

impl Inflater {
    /// An inflater without a state, which comes with the first message.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The same where what is kept of clients counts.
    #[must_use]
    pub fn keeping(contexts: Arc<Contexts>) -> Self {
        Self { contexts: Some(contexts), ..Self::default() }
    }

    /// What is kept over all clients.
    pub(super) fn contexts(&self) -> Option<&Arc<Contexts>> {
        self.contexts.as_ref()
    }

    /// The content of a compressed message of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// More would come out, or the payload is not whole deflate blocks.
    pub fn inflate(&mut self, payload: &[u8], bytes_max: usize) -> Result<&[u8], InflateError> {
        self.inflate_behind(&[], payload, bytes_max)
    }

    /// As [`Self::inflate`] for a message that may refer to what was sent `before` it, of which the last 32 KiB count.
    ///
    /// # Errors
    /// As there.
    pub fn inflate_behind(
        &mut self,
        before: &[u8],
        payload: &[u8],
        bytes_max: usize,
    ) -> Result<&[u8], InflateError> {
        self.out.clear();
        // RFC 7692 section 7.2.3.6 has an empty message as one zero byte; a peer whose deflater had nothing
        // to flush sends none.
        if payload.is_empty() {
            return Ok(&self.out);
        }
        let state = self.state.get_or_insert_with(|| Decompress::new(false));
        begin(state, before, &self.out)?;
        let mut rest = payload;
        let mut finals = 0;
        let mut at_end = false;
        while !rest.is_empty() || self.out.len() == self.out.capacity() {
            let step = step(state, rest, &mut self.out, bytes_max)?;
            rest = rest.get(step.used..).unwrap_or_default();
            if step.stuck {
                if rest.is_empty() {
                    break;
                }
                return Err(InflateError::Corrupt);
            }
            at_end = step.ended;
            if step.ended {
                // RFC 7692 section 7.2.3.4: a block with BFINAL is no error, and others may follow it.
                finals += 1;
                if finals > FINAL_BLOCKS_MAX {
                    return Err(InflateError::Corrupt);
                }
                // With the window as it was.
                begin(state, before, &self.out)?;
                // Nothing came out for it, but it is as much work.
                self.turn_bytes = self.turn_bytes.saturating_add(WINDOW_BYTES);
                if rest.is_empty() {
                    break;
                }
            }
        }
        // Right behind a final block there is no cut block that the tail would complete.
        if !at_end {
            finish(state, &mut self.out, bytes_max)?;
        }
        Ok(&self.out)
    }

    /// The last content, until [`Self::give_back`].
    #[must_use]
    pub fn content(&self) -> &[u8] {
        &self.out
    }

    /// From here on another connection's messages are inflated.
    pub fn begin_turn(&mut self) {
        self.turn_bytes = 0;
    }

    /// What has been done since the turn began: bytes that came out, and a window for each fresh start.
    #[must_use]
    pub fn turn_bytes(&self) -> usize {
        self.turn_bytes
    }

    /// Whether so much came out that this turn should end. A kilobyte can hold a megabyte, so bytes read are
    /// no measure of the work.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.turn_bytes >= TURN_BYTES
    }

    /// Ends the use of the last content: counts it, and gives the memory of a big one back.
    pub fn give_back(&mut self) {
        self.turn_bytes = self.turn_bytes.saturating_add(self.out.len());
        if self.out.capacity() > BYTES_KEPT {
            self.out = Vec::new();
        }
    }

    /// Bytes held for content.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.out.capacity()
    }
}

/// Runs the ending through the decoder, which must end exactly there.
fn finish(state: &mut Decompress, out: &mut Vec<u8>, bytes_max: usize) -> Result<(), InflateError> {
    let mut rest = &ENDING[..];
    loop {
        let step = step(state, rest, out, bytes_max)?;
        rest = rest.get(step.used..).unwrap_or_default();
        match step {
            Step { ended: true, .. } if rest.is_empty() => return Ok(()),
            Step { ended: true, .. } | Step { stuck: true, .. } => return Err(InflateError::Corrupt),
            _ => {}
        }
    }
}

/// One call of the decoder, with room for what it writes.
fn step(
    state: &mut Decompress,
    input: &[u8],
    out: &mut Vec<u8>,
    bytes_max: usize,
) -> Result<Step, InflateError> {
    let before = out.len();
    if before == out.capacity() {
        // One byte beyond the bound is room enough to see that there is more.
        let allowed = bytes_max.saturating_add(1).saturating_sub(before).max(1);
        out.reserve_exact(before.max(FIRST_BYTES).min(allowed));
    }
    let taken = state.total_in();
    let status =
        state.decompress_vec(input, out, FlushDecompress::None).map_err(|_| InflateError::Corrupt)?;
    if out.len() > bytes_max {
        return Err(InflateError::TooBig);
    }
    let used = usize::try_from(state.total_in() - taken).unwrap_or(input.len());
    let ended = status == Status::StreamEnd;
    Ok(Step { used, ended, stuck: !ended && used == 0 && out.len() == before })
}

/// Starts a stream whose window holds what was sent `before` and, behind it, what has come `out`.
fn begin(state: &mut Decompress, before: &[u8], out: &[u8]) -> Result<(), InflateError> {
    state.reset(false);
    for part in [before, out] {
        let window = part.get(part.len().saturating_sub(WINDOW_BYTES)..).unwrap_or_default();
        if !window.is_empty() {
            state.set_dictionary(window).map_err(|_| InflateError::Corrupt)?;
        }
    }
    Ok(())
}
