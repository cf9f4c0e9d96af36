//! What one part of a turn may take before the others have theirs: bytes, and time by a clock that is read now
//! and then.
//!
//! Owned by the loop core. Reading the clock costs as much as a small message does, so that it is read once in so
//! many steps, and sooner when steps are large. Never cuts a step.

use super::turn::Clock;

/// Steps between two looks at the clock: of echoes, about a tenth of a millisecond.
const STEPS_PER_LOOK: i64 = 16;

/// A step moves two to the power of this in bytes; one that moves more counts as several.
const STEP_BYTES_BITS: u32 = 12;

/// One part of a turn.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slice {
    ends_ns: u64,
    bytes: u64,
    bytes_max: u64,
    /// Steps until the next look; negative once it is over.
    steps_left: i64,
}

impl Slice {
    /// Begins at `now_ns`.
    pub(super) fn new(now_ns: u64, time_ns: u64, bytes_max: u64) -> Self {
        Self { ends_ns: now_ns.saturating_add(time_ns), bytes: 0, bytes_max, steps_left: STEPS_PER_LOOK }
    }

    /// Notes one step that moved so many bytes.
    #[inline]
    pub(super) fn charge(&mut self, bytes: u64, clock: Clock) {
        self.bytes = self.bytes.wrapping_add(bytes);
        self.steps_left = self.steps_left.saturating_sub_unsigned(1 + (bytes >> STEP_BYTES_BITS));
        if self.steps_left <= 0 {
            self.look(clock);
        }
    }

    #[cold]
    fn look(&mut self, clock: Clock) {
        let over = self.bytes >= self.bytes_max || clock() >= self.ends_ns;
        self.steps_left = if over { -1 } else { STEPS_PER_LOOK };
    }

    /// Whether the others are to have their part.
    #[inline]
    pub(super) fn is_over(&self) -> bool {
        self.steps_left < 0
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    thread_local! {
        static NOW: Cell<u64> = const { Cell::new(0) };
        static LOOKS: Cell<u64> = const { Cell::new(0) };
    }

    /// Each look costs a hundred.
    fn clock() -> u64 {
        LOOKS.set(LOOKS.get() + 1);
        NOW.set(NOW.get() + 100);
        NOW.get()
    }

    fn steps(slice: &mut Slice, bytes: u64) -> u64 {
        let mut steps = 0;
        while !slice.is_over() {
            slice.charge(bytes, clock);
            steps += 1;
        }
        steps
    }

    #[test]
    fn time_ends_it_and_is_looked_at_now_and_then() {
        let mut slice = Slice::new(0, 1_000, 1 << 40);
        assert_eq!(steps(&mut slice, 10), 160);
        assert_eq!(LOOKS.get(), 10);
    }

    #[test]
    fn large_steps_are_looked_at_sooner_and_bytes_end_it_too() {
        let mut slice = Slice::new(0, 1_000, 1 << 40);
        assert_eq!(steps(&mut slice, 1 << 20), 10);
        let mut slice = Slice::new(0, u64::MAX, 1 << 20);
        assert_eq!(steps(&mut slice, 1 << 18), 4);
    }
}
