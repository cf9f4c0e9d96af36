//! What an endpoint or a dialect borrows from the loop it runs on, for as long as one call.

use std::cell::Cell;

use crate::metrics::LoopCounters;
use crate::topic::{Deflate, Draft, Origin, Topic};
use crate::wire::deflate::Deflater;

/// Tools of one loop.
pub struct Tools<'a> {
    /// The loop's only deflater.
    pub deflater: &'a mut Deflater,
    /// The loop's counters.
    pub counters: &'a LoopCounters,
    /// What messages are dated with.
    pub wall: &'a Wall,
}

/// The date of what happens in one turn of a loop: the clock is asked by whoever needs it first, and by nobody in a turn
/// that dates nothing.
#[derive(Debug)]
pub struct Wall {
    clock: fn() -> u64,
    ms: Cell<u64>,
}

impl Wall {
    /// A clock that tells nanoseconds since 1970.
    #[must_use]
    pub const fn new(clock: fn() -> u64) -> Self {
        Self { clock, ms: Cell::new(0) }
    }

    /// Another turn begins.
    pub fn forget(&self) {
        self.ms.set(0);
    }

    /// Milliseconds since 1970, the same for the whole turn.
    #[must_use]
    pub fn ms(&self) -> u64 {
        let known = self.ms.get();
        if known != 0 {
            return known;
        }
        let ms = (self.clock)() / 1_000_000;
        self.ms.set(ms);
        ms
    }
}

impl Tools<'_> {
    /// Encodes a message for `topic`, once for all who will get it: deflated too if somebody wants that and it
    /// saves anything.
    pub fn encode(&mut self, topic: &Topic, origin: Option<Origin>, binary: bool, payload: &[u8]) -> Draft {
        let time_ms = self.wall.ms();
        let deflated = if topic.has_deflate() { self.try_deflate(payload) } else { None };
        Draft::encode_at(time_ms, origin, binary, payload, deflated)
    }

    /// The payload deflated, if it is long enough and becomes smaller.
    pub fn try_deflate(&mut self, payload: &[u8]) -> Option<&[u8]> {
        let deflated = self.deflater.try_deflate(payload)?;
        count(self.counters, payload, deflated);
        Some(deflated)
    }
}

impl Deflate for Tools<'_> {
    fn alone(&mut self, payload: &[u8], out: &mut Vec<u8>) -> bool {
        let deflated = self.try_deflate(payload);
        deflated.inspect(|bytes| out.extend_from_slice(bytes)).is_some()
    }

    fn begin_run(&mut self, bytes: usize) -> bool {
        self.deflater.begin_run(bytes)
    }

    fn go_on(&mut self, payload: &[u8], out: &mut Vec<u8>) -> bool {
        let Some(deflated) = self.deflater.deflate_in_run(payload) else { return false };
        count(self.counters, payload, deflated);
        out.extend_from_slice(deflated);
        true
    }
}

fn count(counters: &LoopCounters, payload: &[u8], deflated: &[u8]) {
    counters.deflated_messages.add(1);
    counters.deflate_in_bytes.add(payload.len() as u64);
    counters.deflate_out_bytes.add(deflated.len() as u64);
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn a_turn_has_one_date_and_asks_for_it_once() {
        static ASKED: AtomicU64 = AtomicU64::new(0);
        let wall = Wall::new(|| (ASKED.fetch_add(1, Ordering::Relaxed) + 5) * 1_000_000);
        assert_eq!((wall.ms(), wall.ms()), (5, 5));
        wall.forget();
        assert_eq!(ASKED.load(Ordering::Relaxed), 1, "nobody needed another");
        assert_eq!((wall.ms(), wall.ms()), (6, 6));
    }
}
