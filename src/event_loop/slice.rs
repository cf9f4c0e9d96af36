//! What one part of a turn may take before the others have theirs: bytes, and time by a clock that is read now
//! and then.
//!
//! Owned by the loop core. Reading the clock costs as much as a small message does, so that it is read once in so
//! many steps, and sooner when steps are large. Never cuts a step.

use super::turn::Clock;

/// Steps between two looks at the clock: of echoes, about a tenth of a millisecond.
const STEPS_PER_LOOK: u32 = 16;

/// Bytes that take as long as a step does.
const BYTES_PER_STEP: u64 = 4 * 1024;

/// One part of a turn.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Slice {
    ends_ns: u64,
    bytes_left: u64,
    steps_left: u32,
    over: bool,
}

impl Slice {
    /// Begins at `now_ns`.
    pub(super) fn new(now_ns: u64, time_ns: u64, bytes_max: u64) -> Self {
        Self {
            ends_ns: now_ns.saturating_add(time_ns),
            bytes_left: bytes_max,
            steps_left: STEPS_PER_LOOK,
            over: false,
        }
    }

    /// Notes one step that moved so many bytes.
    pub(super) fn charge(&mut self, bytes: u64, clock: Clock) {
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
        let steps = 1 + u32::try_from(bytes / BYTES_PER_STEP).unwrap_or(u32::MAX);
        self.over |= self.bytes_left == 0;
        match self.steps_left.checked_sub(steps) {
            Some(left @ 1..) => self.steps_left = left,
            _ => {
                self.steps_left = STEPS_PER_LOOK;
                self.over |= clock() >= self.ends_ns;
            }
        }
    }

    /// Whether the others are to have their part.
    pub(super) fn is_over(&self) -> bool {
        self.over
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
