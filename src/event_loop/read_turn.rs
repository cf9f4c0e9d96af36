//! The read turn: bounded reading of one connection, handed on by phase.
//!
//! Driven by readiness, by the ready list, and by whoever emptied an outbox that had reading paused.

use super::closing::Words;
use super::core::{Core, SCRATCH_BYTES};
use super::frames_turn::held_bytes;
use super::handshakes::is_shaking_hands;
use super::parked::room_behind;
use crate::connection::inbox::Inbox;
use crate::connection::session::Session;
use crate::connection::{Flags, Phase};
use crate::dialect::Carrier;
use crate::edition::Port;
use crate::metrics::CloseReason;
use crate::topic::Key;
use crate::transport::{Received, Socket};

/// `recv` calls of one turn.
const READS_PER_TURN: usize = 4;

/// Bytes of one turn: even of the smallest frames less than a millisecond's worth.
const READ_BYTES_PER_TURN: usize = SCRATCH_BYTES;

/// Bytes discarded while lingering before patience ends: what a peer may have on its way when its message is
/// refused at the header, twice the largest one by default. Time ends it too.
const LINGER_BYTES_MAX: usize = 32 << 20;

impl<S: Socket> Core<S> {
    /// Reads until there is no more, the budget is spent, or the connection must not be read from. One that is shaking hands is
    /// read from in the part of a turn that is for that.
    ///
    /// `to_the_end`: the end of the stream may be there, of which no edge will tell.
    pub(super) fn read_turn(&mut self, key: Key, to_the_end: bool) {
        if let Some(slot) = self.slots.get(key)
            && is_shaking_hands(&slot.stream, &slot.connection, &self.transport)
        {
            return self.put_aside(key, to_the_end);
        }
        self.read_now(key, to_the_end);
    }

    /// The same, whatever a step of a handshake costs: only for who looks at the clock behind each.
    pub(super) fn read_now(&mut self, key: Key, to_the_end: bool) {
        let mut scratch = std::mem::take(&mut self.scratch);
        self.read_with(key, &mut scratch, to_the_end);
        self.scratch = scratch;
        self.after_layer_read(key);
        if self.slots.get(key).is_some() {
            self.rearm(key.slot);
        }
    }

    fn read_with(&mut self, key: Key, scratch: &mut [u8], to_the_end: bool) {
        self.inflater.begin_turn();
        if !self.resume_stash(key) {
            return;
        }
        let mut total = 0;
        for _ in 0..READS_PER_TURN {
            if total >= READ_BYTES_PER_TURN {
                break;
            }
            let Some(slot) = self.slots.get(key) else { return };
            let mut room = scratch.len();
            if slot.connection.phase() == Phase::Parked {
                // On as far as the next request: the end of the stream must not go unnoticed until the answer.
                room = room.min(room_behind(&mut slot.connection, &self.edition.settings.limits));
            }
            if slot.connection.flags.has(Flags::PAUSED) || room == 0 {
                slot.connection.flags.set(Flags::READ_OWED);
                return;
            }
            match slot.stream.read(&mut self.transport, scratch.get_mut(..room).unwrap_or_default()) {
                Ok(Received::End) => return self.on_end_of_stream(key),
                Ok(Received::Fault(fault)) => return self.on_fault(key, fault),
                Ok(Received::Nothing) if to_the_end => {}
                Ok(Received::Nothing) => return,
                Ok(Received::Bytes { count, more }) => {
                    total += count;
                    self.counters.bytes_received.add(count as u64);
                    if !self.charge_bytes(key, count) {
                        return;
                    }
                    let Some(bytes) = scratch.get_mut(..count) else { return };
                    self.on_bytes(key, bytes);
                    if self.must_wait(key) {
                        return;
                    }
                    if !more && !to_the_end {
                        return;
                    }
                }
                Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return,
                Err(_) => return self.abort(key, CloseReason::PeerReset),
            }
        }
        self.list_ready(key);
    }

    /// Works off what an earlier turn read but could not take. `false`: still not.
    fn resume_stash(&mut self, key: Key) -> bool {
        let Some(slot) = self.slots.get(key) else {
            self.counters.stale_keys.add(1);
            return false;
        };
        let connection = &mut slot.connection;
        if connection.flags.has(Flags::PAUSED) {
            connection.flags.set(Flags::READ_OWED);
            return false;
        }
        let owed = connection.flags.clear(Flags::READ_OWED);
        let phase = connection.phase();
        let waits = connection.flags.has(Flags::WAITS_FOR_ROOM);
        if phase == Phase::Open && !waits && connection.session.is_none() && connection.inbox.is_none() {
            // Nothing waits: the way of nearly every message.
            return true;
        }
        match phase {
            Phase::Open => {
                // Who waits for room is tried in the order of waiting, whatever else comes of it.
                if connection.flags.has(Flags::WAITS_FOR_ROOM) {
                    return false;
                }
                if !self.retry_blocked(key) {
                    return false;
                }
                self.take_stash(key);
            }
            // What was stashed before our close frame may hold the peer's.
            Phase::Closing => self.take_stash(key),
            // The first request, too, may have had to wait for a turn.
            Phase::Head if owed || connection.flags.has(Flags::KEPT_ALIVE) => {
                if matches!(connection.session.as_deref(), Some(Session::Head(_))) {
                    self.on_bytes(key, &mut []);
                }
            }
            _ => {}
        }
        // The stash may have ended in another publish that has to wait: what is in the kernel is behind it.
        self.slots.get(key).is_some_and(|slot| !slot.connection.flags.has(Flags::PAUSED))
            && !self.must_wait(key)
    }

    /// Whether bytes wait behind a publish without room, or behind a turn that ended early.
    fn must_wait(&mut self, key: Key) -> bool {
        self.slots
            .get(key)
            .is_some_and(|slot| slot.connection.flags.has(Flags::READ_OWED) || slot.connection.is_blocked())
    }

    fn take_stash(&mut self, key: Key) {
        let Some(slot) = self.slots.get(key) else { return };
        let held = held_bytes(slot.connection.inbox.as_deref());
        let stash = Inbox::take_stash(&mut slot.connection.inbox);
        self.held.moved(
            self.edition.inbox_bytes_of(self.port),
            held,
            held_bytes(slot.connection.inbox.as_deref()),
        );
        if let Some(mut bytes) = stash {
            self.on_bytes(key, &mut bytes);
        }
    }

    /// Hands on what has arrived, by phase.
    pub(super) fn on_bytes(&mut self, key: Key, bytes: &mut [u8]) {
        let Some(slot) = self.slots.get(key) else { return };
        match slot.connection.phase() {
            Phase::Head | Phase::Body => self.on_request_bytes(key, bytes),
            Phase::Open | Phase::Closing => match slot.connection.dialect.carrier() {
                Carrier::Frames => self.on_frame_bytes(key, bytes),
                // RFC 9112, 9.3.2: a further request may be there, but this answer has no end it could follow.
                Carrier::Body | Carrier::Answer => {}
            },
            Phase::Lingering => {
                if ends_with_close(bytes) && self.end_parting(key) {
                    return;
                }
                self.discard(key, bytes.len());
            }
            Phase::Parked => self.hold_behind(key, bytes),
        }
    }

    fn discard(&mut self, key: Key, count: usize) {
        let Some(slot) = self.slots.get(key) else { return };
        let total = match slot.connection.session.as_deref_mut() {
            Some(Session::Lingering(total)) => {
                *total += count;
                *total
            }
            // What comes before its last words is little, and there is a time for them.
            Some(Session::Parting) => count,
            _ => {
                slot.connection.session = Some(Box::new(Session::Lingering(count)));
                count
            }
        };
        if total > LINGER_BYTES_MAX {
            self.abort(key, CloseReason::Normal);
        }
    }

    fn on_end_of_stream(&mut self, key: Key) {
        let Some(slot) = self.slots.get(key) else { return };
        slot.connection.flags.set(Flags::EOF_SEEN);
        if slot.connection.phase() == Phase::Parked && self.port == Port::Admin {
            // It is answered within seconds, also to a script that ends its side behind what it asks.
            return;
        }
        let reason = match slot.connection.phase() {
            Phase::Head if slot.connection.flags.has(Flags::KEPT_ALIVE) => CloseReason::HttpDone,
            Phase::Lingering => CloseReason::Normal,
            _ => CloseReason::PeerClosed,
        };
        // A peer that only ended its own side still gets everything it asked for.
        if slot.connection.has_backlog() {
            self.end(key, reason, Words::Nothing);
        } else {
            self.end_behind(key, reason);
        }
    }
}

/// Whether the last of what a client has sent is its close frame. What came before is not looked at: it may end in the
/// middle of a frame that was refused.
fn ends_with_close(bytes: &[u8]) -> bool {
    // RFC 6455, 5.2 and 5.5.1: final, opcode 8; masked, at most 125 bytes; the mask, the payload.
    const HEADER_BYTES: usize = 6;
    (0..=125).any(|length| {
        let Some(at) = bytes.len().checked_sub(HEADER_BYTES + length) else { return false };
        matches!(bytes.get(at..), Some([0x88, second, ..]) if usize::from(*second) == 0x80 | length)
    })
}

#[cfg(test)]
mod tests {
    use super::ends_with_close;

    #[test]
    fn a_close_frame_is_found_at_the_end_of_what_came() {
        assert!(ends_with_close(b"\x88\x80mask"));
        assert!(ends_with_close(b"of a message\x88\x82mask\x03\xe8"));
        assert!(!ends_with_close(b"\x88\x82mask\x03"));
        assert!(!ends_with_close(b"\x88\x02\x03\xe8"), "not masked");
        assert!(!ends_with_close(b"\x88\x80mask."));
        assert!(!ends_with_close(b""));
    }
}
