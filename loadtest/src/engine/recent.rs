//! What was read last, so that a message which comes to many connections one after the other is read only once.
//!
//! A worker has one for its connections. It compares whole payloads, or what a read has brought: what is the same, byte by
//! byte, as one that was read and found unchanged, is unchanged, for everybody who may be sent it. Pure.

use fantail::wire::frame::{self, Opcode};

use crate::base::schedule::Schedule;
use crate::engine::message::Stamp;

/// Beyond it the copy would cost more than reading does: of a message only the marker is read, and the rest compared.
const PAYLOAD_BYTES_MAX: usize = 2_048;

/// See the module's head.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    /// The payload, in the frame in which a server sends it that has nothing to add.
    frame: Vec<u8>,
    header_bytes: usize,
    stamp: Option<Stamp>,
    /// A planned time, and the tick that it belongs to.
    tick: Option<(u64, Option<u64>)>,
}

impl Recent {
    /// The plan may be another from now on.
    pub(crate) fn forget_tick(&mut self) {
        self.tick = None;
    }

    /// What the payload says, if it is the one that was kept.
    #[inline]
    pub(crate) fn stamp_of(&self, payload: &[u8]) -> Option<Stamp> {
        self.stamp.filter(|_| self.frame.get(self.header_bytes..) == Some(payload))
    }

    /// What a read says that has brought that payload in a frame of its own, and nothing else.
    #[inline]
    pub(crate) fn stamp_of_read(&self, bytes: &[u8]) -> Option<Stamp> {
        self.stamp.filter(|_| self.frame == bytes)
    }

    /// Keeps a payload that was read and is as it was sent, a binary message or a text.
    #[inline]
    pub(crate) fn keep(&mut self, payload: &[u8], binary: bool, stamp: Stamp) {
        let fits = payload.len() <= PAYLOAD_BYTES_MAX;
        self.stamp = fits.then_some(stamp);
        if fits {
            self.frame.clear();
            let opcode = if binary { Opcode::Binary } else { Opcode::Text };
            frame::push_frame(&mut self.frame, opcode, payload, None);
            self.header_bytes = self.frame.len() - payload.len();
        }
    }

    /// The tick of a planned time. Within a turn the plan stays as it is.
    #[inline]
    pub(crate) fn tick_of(&mut self, planned_ns: u64, schedule: &Schedule) -> Option<u64> {
        match self.tick {
            Some((known_ns, tick)) if known_ns == planned_ns => tick,
            _ => {
                let tick = schedule.tick_of(planned_ns);
                self.tick = Some((planned_ns, tick));
                tick
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const STAMP: Stamp = Stamp { stream: 1, sequence: 2, planned_ns: 3 };

    #[test]
    fn only_the_very_same_payload_is_known() {
        let mut recent = Recent::default();
        assert_eq!(recent.stamp_of(b""), None);
        recent.keep(b"as it was sent", false, STAMP);
        assert_eq!(recent.stamp_of(b"as it was sent"), Some(STAMP));
        for other in [&b"as it was senT"[..], b"as it was sent!", b"as it was sen", b""] {
            assert_eq!(recent.stamp_of(other), None);
        }
        // One that is too large to keep does not leave the one before in its place.
        let large = vec![b'x'; PAYLOAD_BYTES_MAX + 1];
        recent.keep(&large, false, STAMP);
        assert!(recent.stamp_of(&large).is_none() && recent.stamp_of(b"as it was sent").is_none());
        recent.keep(b"", false, STAMP);
        assert_eq!(recent.stamp_of(b""), Some(STAMP));
    }

    #[test]
    fn only_a_read_of_that_frame_alone_is_known() {
        let mut recent = Recent::default();
        assert_eq!(recent.stamp_of_read(b""), None);
        for binary in [false, true] {
            recent.keep(b"sent", binary, STAMP);
            // FIN and the opcode, and no mask: RFC 6455 section 5.2.
            let first = if binary { 0x82 } else { 0x81 };
            let known = [&[first, 4][..], b"sent"].concat();
            assert_eq!(recent.stamp_of_read(&known), Some(STAMP));
            for (place, xor) in [(0, 0x80), (0, 0x40), (0, 0x03), (1, 0x80), (1, 0x01), (5, 0x20)] {
                let mut other = known.clone();
                other[place] ^= xor;
                assert_eq!(recent.stamp_of_read(&other), None, "{other:?}");
            }
            assert_eq!(recent.stamp_of_read(&[&known[..], &known[..]].concat()), None);
            assert_eq!((recent.stamp_of_read(&known[..5]), recent.stamp_of_read(b"sent")), (None, None));
        }
        let long = vec![b'x'; 1_024];
        recent.keep(&long, false, STAMP);
        let known = [&[0x81, 126, 4, 0][..], &long].concat();
        assert_eq!((recent.stamp_of_read(&known), recent.stamp_of(&long)), (Some(STAMP), Some(STAMP)));
    }

    #[test]
    fn ticks_are_those_of_the_plan() {
        let plan = Schedule::new(100, 1_000.0, 1, Duration::from_secs(1));
        let mut recent = Recent::default();
        for planned_ns in [0, 100, 100, 1_000_100, 100, 50, 50, u64::MAX] {
            assert_eq!(recent.tick_of(planned_ns, &plan), plan.tick_of(planned_ns));
        }
        let slower = Schedule::new(100, 500.0, 1, Duration::from_secs(1));
        recent.tick_of(1_000_100, &plan);
        recent.forget_tick();
        assert_eq!(recent.tick_of(1_000_100, &slower), slower.tick_of(1_000_100));
    }
}
