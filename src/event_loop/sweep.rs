//! The sweep: finds whose one deadline has struck and does what is due.

use super::core::Core;
use super::write_turn::Asked;
use crate::connection::deadline::{self, Due};
use crate::connection::{Flags, Phase};
use crate::fanout::Key;
use crate::metrics::{CloseReason, RefuseReason};
use crate::transport::Socket;

/// An empty ping frame.
const PING: [u8; 2] = [0x89, 0x00];

impl<S: Socket> Core<S> {
    /// Acts on every deadline that has struck.
    pub fn sweep(&mut self) {
        let mut due = std::mem::take(&mut self.due);
        self.slots.take_due(self.now, &mut due);
        for key in due.drain(..) {
            self.on_due(key);
        }
        if due.capacity() > 4 * super::PAGE_SLOTS {
            due = Vec::new();
        }
        self.due = due;
    }

    fn on_due(&mut self, key: Key) {
        let Some(slot) = self.slots.get(key) else { return };
        let (at, due) = deadline::next(&slot.connection, &self.timeouts);
        if at > self.now {
            // Something happened since the deadline was noted.
            return self.slots.set_deadline(key.slot, at);
        }
        match due {
            Due::Nothing => {}
            Due::Debts => self.forget_debts(key),
            Due::Handshake => {
                if self.answer_if_refused(key) {
                    return;
                }
                let Some(slot) = self.slots.get(key) else { return };
                let empty = slot.connection.session.is_none() && slot.connection.phase == Phase::Head;
                if empty {
                    self.finish(key, CloseReason::HandshakeTimeout);
                } else {
                    self.refuse(key, RefuseReason::Timeout, RefuseReason::Timeout.text());
                }
            }
            Due::Answer => self.on_answer_due(key),
            Due::KeepAlive => self.finish(key, CloseReason::HttpDone),
            Due::Ping => self.ping(key),
            Due::Pong => {
                self.counters.heartbeats_unanswered.add(1);
                self.free(key.slot, CloseReason::HeartbeatTimeout);
            }
            Due::Write => self.free(key.slot, CloseReason::WriteTimeout),
            Due::Close => self.finish(key, CloseReason::CloseTimeout),
            Due::Linger => self.free(key.slot, CloseReason::Normal),
        }
    }

    fn ping(&mut self, key: Key) {
        let now = self.now;
        let Some(slot) = self.slots.get(key) else { return };
        slot.connection.heard = now;
        // Behind a backlog a ping says nothing more than the write timeout does, and a peer that is not read
        // from, because it is paused or its publish waits for room, could not be heard to answer it.
        if !slot.connection.has_backlog() && !slot.connection.is_blocked() {
            slot.connection.flags.set(Flags::PINGED);
            self.counters.heartbeats_sent.add(1);
            self.send_own(key, &PING, Asked::No);
        }
        if let Some(slot) = self.slots.get(key) {
            let (at, _) = deadline::next(&slot.connection, &self.timeouts);
            self.slots.set_deadline(key.slot, at);
        }
    }
}
