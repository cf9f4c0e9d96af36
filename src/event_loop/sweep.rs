//! The sweep: finds whose one deadline has struck and does what is due, a bounded number a turn.
//!
//! Driven by the shell once a turn. Who was found and not yet served is kept for the next turn: a peer that was heard
//! meanwhile is looked at again before anything is done. Never waits.

use std::collections::VecDeque;

use super::closing::Words;
use super::core::Core;
use super::write_turn::Asked;
use crate::connection::deadline::{self, Due};
use crate::connection::{Flags, Phase};
use crate::metrics::{CloseReason, RefuseReason};
use crate::topic::Key;
use crate::transport::Socket;

/// Deadlines acted on in one turn, each with up to two system calls: as long as one turn of a fan-out may take.
const ACTS_PER_TURN: usize = 64;

/// Deadlines looked at in one turn: of most of those who are active, it shows that theirs has moved.
const LOOKS_PER_TURN: usize = 1_024;

impl<S: Socket> Core<S> {
    /// Acts on deadlines that have struck, within one turn's budget; whoever is left makes [`Core::has_work`] true.
    pub fn sweep(&mut self) {
        if self.due.is_empty() {
            self.slots.take_due(self.now, &mut self.due);
        }
        let mut acts = 0;
        for _ in 0..LOOKS_PER_TURN {
            if acts == ACTS_PER_TURN {
                break;
            }
            let Some(key) = self.due.pop_front() else { break };
            acts += usize::from(self.on_due(key));
        }
        if self.due.is_empty() && self.due.capacity() > 4 * super::PAGE_SLOTS {
            self.due = VecDeque::new();
        }
    }

    /// Does what is due for one connection. Whether there was anything to do.
    fn on_due(&mut self, key: Key) -> bool {
        let Some(slot) = self.slots.get(key) else { return false };
        let (at, due) = deadline::next(&slot.connection, &self.timeouts);
        if at > self.now {
            // Something happened since the deadline was noted.
            self.slots.set_deadline(key.slot, at);
            return false;
        }
        match due {
            Due::Nothing => {}
            Due::Debts => self.forget_debts(key),
            Due::Handshake => self.on_handshake_due(key),
            Due::Answer => self.on_answer_due(key),
            Due::KeepAlive => self.end(key, CloseReason::HttpDone, Words::Nothing),
            Due::Ping => self.ping(key),
            Due::Pong => {
                self.counters.heartbeats_unanswered.add(1);
                self.abort(key, CloseReason::HeartbeatTimeout);
            }
            Due::Write => self.abort(key, CloseReason::WriteTimeout),
            Due::Close => self.end(key, CloseReason::CloseTimeout, Words::Nothing),
            Due::Linger => self.abort(key, CloseReason::Normal),
        }
        due != Due::Nothing
    }

    fn on_handshake_due(&mut self, key: Key) {
        if self.answer_if_refused(key) {
            return;
        }
        let Some(slot) = self.slots.get(key) else { return };
        let empty = slot.connection.session.is_none() && slot.connection.phase == Phase::Head;
        if empty {
            self.end(key, CloseReason::HandshakeTimeout, Words::Nothing);
        } else {
            self.refuse(key, RefuseReason::Timeout, RefuseReason::Timeout.text());
        }
    }

    fn ping(&mut self, key: Key) {
        let now = self.now;
        let Some(slot) = self.slots.get(key) else { return };
        slot.connection.heard = now;
        // Behind a backlog a ping says nothing more than the write timeout does, and a peer that is not read
        // from, because it is paused or its publish waits for room, could not be heard to answer it.
        if !slot.connection.has_backlog() && !slot.connection.is_blocked() {
            let pulse = slot.connection.dialect.pulse();
            if pulse.answered {
                slot.connection.flags.set(Flags::PINGED);
            }
            self.counters.heartbeats_sent.add(1);
            self.send_own(key, pulse.bytes, Asked::No);
        }
        if let Some(slot) = self.slots.get(key) {
            let (at, _) = deadline::next(&slot.connection, &self.timeouts);
            self.slots.set_deadline(key.slot, at);
        }
    }
}
