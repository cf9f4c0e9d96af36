//! What a client's compressed messages refer back to although it has agreed to begin each anew (RFC 7692 section 7.1.1.2).
//!
//! Some clients answer yes and keep their window all the same. Their second message can be read by those only who still
//! have the first, so what a client has sent is kept, up to deflate's window, until it shows what it does: a message that
//! can't be read by itself is of one that goes on, and if some begin like the message before and do not refer to it, they
//! are of one that begins anew, of which nothing is kept from then on. Driven by the inbox, once a compressed message;
//! whoever sends none costs nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::inflater::{InflateError, Inflater, WINDOW_BYTES};

/// Bytes that two messages must begin alike with, so that a compressor which remembers the first would have made use of
/// it. Three are enough for deflate, but the very first byte of a window can't be referred to, and short references may
/// not be worth it.
const ALIKE_BYTES: usize = 8;

/// The longest message whose beginning is surely found again by who remembers it. The window would allow for more, but
/// fast compressors have a table of only 4,096 places, and what came behind the beginning takes them over.
const REMEMBERED_BYTES_MAX: usize = 2 * 1024;

/// Messages that have to show that their client begins anew. Two, because one may have missed what it could refer to.
const SIGNS: u8 = 2;

/// What is kept over all connections, and how much it may be.
#[derive(Debug)]
pub struct Contexts {
    bytes: AtomicUsize,
    bytes_max: AtomicUsize,
    declined: AtomicU64,
}

impl Contexts {
    /// Room for so many bytes.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes: AtomicUsize::new(0),
            bytes_max: AtomicUsize::new(bytes_max),
            declined: AtomicU64::new(0),
        }
    }

    /// Changes how much may be kept; what is kept already stays.
    pub fn set_bytes_max(&self, bytes_max: usize) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// Whether one more client may compress what it sends; each that may not is counted.
    pub fn admits(&self) -> bool {
        let admits = self.bytes().saturating_add(WINDOW_BYTES) <= self.bytes_max.load(Ordering::Relaxed);
        if !admits {
            self.declined.fetch_add(1, Ordering::Relaxed);
        }
        admits
    }

    /// Bytes kept now.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// How many there may be.
    #[must_use]
    pub fn bytes_max(&self) -> usize {
        self.bytes_max.load(Ordering::Relaxed)
    }

    /// Offers that were declined because there was no room.
    #[must_use]
    pub fn declined(&self) -> u64 {
        self.declined.load(Ordering::Relaxed)
    }

    /// Takes room, or none.
    fn charge(&self, bytes: usize) -> bool {
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let fits = before.saturating_add(bytes) <= self.bytes_max();
        if !fits {
            self.release(bytes);
        }
        fits
    }

    fn release(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// What is known of how one client compresses, and what of its messages may still be referred to.
#[derive(Debug, Default)]
pub struct ClientContext {
    begins_anew: bool,
    kept: Option<Box<Kept>>,
}

/// What is kept of one client. Gives its room back when it is dropped, whichever way its connection ends.
#[derive(Debug)]
pub struct Kept {
    /// The end of what it has sent, at most a window.
    bytes: Vec<u8>,
    /// Length of the message at the end.
    last_len: usize,
    habit: Habit,
    total: Arc<Contexts>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Habit {
    /// Each of its messages could be read by itself so far, and so many of them would have referred to the one before
    /// them if it were remembered.
    Unknown { signs: u8 },
    /// It goes on from message to message.
    GoesOn,
    /// There was no room: what it may refer to is not known any more.
    Lost,
}

impl ClientContext {
    /// What is known of a client: whether it was seen to begin anew, and what is kept of it.
    #[must_use]
    pub fn new(begins_anew: bool, kept: Option<Box<Kept>>) -> Self {
        Self { begins_anew, kept }
    }

    /// Whether it was seen to begin anew, and what is to be kept until its next message.
    #[must_use]
    pub fn into_parts(self) -> (bool, Option<Box<Kept>>) {
        (self.begins_anew, self.kept)
    }

    /// The content of the client's next message, of at most `bytes_max` bytes; as [`Inflater::inflate`].
    ///
    /// # Errors
    /// As there, and [`InflateError::NoContext`] if it may be for want of what was not kept.
    pub fn inflate<'a>(
        &mut self,
        inflater: &'a mut Inflater,
        payload: &[u8],
        bytes_max: usize,
    ) -> Result<&'a [u8], InflateError> {
        if self.begins_anew {
            return inflater.inflate(payload, bytes_max);
        }
        match self.kept.as_deref_mut() {
            None => {
                inflater.inflate(payload, bytes_max)?;
            }
            Some(kept) => kept.inflate(inflater, payload, bytes_max)?,
        }
        self.remember(inflater, payload);
        Ok(inflater.content())
    }

    fn remember(&mut self, inflater: &Inflater, payload: &[u8]) {
        let content = inflater.content();
        let Some(total) = inflater.contexts().filter(|_| !content.is_empty()) else { return };
        let kept = self.kept.get_or_insert_with(|| Box::new(Kept::of_nobody(total)));
        if let Habit::Unknown { signs } = &mut kept.habit
            && may_refer(payload)
            && begins_alike(kept.bytes.get(kept.bytes.len().saturating_sub(kept.last_len)..), content)
        {
            // It was read by itself; who remembers the last one would have referred to it.
            *signs += 1;
            if *signs >= SIGNS {
                self.begins_anew = true;
                self.kept = None;
                return;
            }
        }
        kept.push(content);
    }
}

/// Whether the first block is a compressed one (RFC 1951 section 3.2.3). Stored bytes refer to nothing whatever is
/// remembered; compressors store what is mostly noise, even if its beginning is known.
fn may_refer(payload: &[u8]) -> bool {
    payload.first().is_some_and(|byte| byte >> 1 & 3 != 0)
}

/// Whether a message begins like the `last` one, in a way that only the last one can be referred to for it: where a
/// beginning repeats itself, its own bytes are nearer.
fn begins_alike(last: Option<&[u8]>, content: &[u8]) -> bool {
    let beginning = |bytes: &[u8]| bytes.first_chunk::<ALIKE_BYTES>().copied();
    let alike = last
        .filter(|last| last.len() <= REMEMBERED_BYTES_MAX)
        .and_then(beginning)
        .filter(|last| beginning(content) == Some(*last));
    alike.is_some_and(|bytes| {
        let mut threes: Vec<_> = bytes.windows(3).collect();
        threes.sort_unstable();
        threes.windows(2).all(|pair| pair.first() != pair.last())
    })
}

impl Kept {
    fn of_nobody(total: &Arc<Contexts>) -> Self {
        Self { bytes: Vec::new(), last_len: 0, habit: Habit::Unknown { signs: 0 }, total: Arc::clone(total) }
    }

    /// Bytes of memory that are asked for it.
    #[must_use]
    pub fn memory(&self) -> usize {
        size_of::<Self>() + self.bytes.capacity()
    }

    fn inflate(
        &mut self,
        inflater: &mut Inflater,
        payload: &[u8],
        bytes_max: usize,
    ) -> Result<(), InflateError> {
        if self.habit == Habit::GoesOn {
            return inflater.inflate_behind(&self.bytes, payload, bytes_max).map(drop);
        }
        match inflater.inflate(payload, bytes_max) {
            Err(InflateError::Corrupt) if self.habit == Habit::Lost => Err(InflateError::NoContext),
            Err(InflateError::Corrupt) => {
                inflater.inflate_behind(&self.bytes, payload, bytes_max)?;
                self.habit = Habit::GoesOn;
                Ok(())
            }
            other => other.map(drop),
        }
    }

    /// Keeps one more message, and forgets what is further back than a window.
    fn push(&mut self, content: &[u8]) {
        if self.habit == Habit::Lost {
            return;
        }
        self.last_len = content.len();
        let content = content.get(content.len().saturating_sub(WINDOW_BYTES)..).unwrap_or_default();
        let too_many = (self.bytes.len() + content.len()).saturating_sub(WINDOW_BYTES);
        self.bytes.drain(..too_many);
        let needed = self.bytes.len() + content.len();
        let before = self.bytes.capacity();
        if needed > before {
            // Doubled as a Vec would, but never beyond what can be referred to; of one message just what it is.
            let wanted = if before == 0 { needed } else { needed.max(2 * before).min(WINDOW_BYTES) };
            if !self.total.charge(wanted - before) {
                return self.lose();
            }
            self.bytes.reserve_exact(wanted - self.bytes.len());
            // An allocator may give more than was asked for.
            let more = self.bytes.capacity() - wanted;
            if more > 0 {
                self.total.bytes.fetch_add(more, Ordering::Relaxed);
            }
        }
        self.bytes.extend_from_slice(content);
    }

    fn lose(&mut self) {
        self.total.release(self.bytes.capacity());
        self.bytes = Vec::new();
        self.habit = Habit::Lost;
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.total.release(self.bytes.capacity());
    }
}

#[cfg(test)]
#[path = "context_tests.rs"]
mod tests;
