//! The sweep: finds whose one deadline has struck and does what is due, a bounded number a turn.
//!
//! Driven once a turn. Who was found and not yet served is kept for the next turn: a peer that was heard meanwhile is
//! looked at again before anything is done. Nobody is ended for what has arrived and was not read: whose deadline
//! seems to have struck is read from, or written to, once more, and what the peer could do while the process
//! stood still is not asked of it. Steps of handshakes that this takes have no more time than in the turn's own part of
//! them, and a first flight is not looked at any more: to answer it is what costs, and does not serve the peer yet. Never waits.

use std::collections::VecDeque;

use super::closing::Words;
use super::core::Core;
use super::slice::Slice;
use super::write_turn::Asked;
use crate::connection::deadline::{self, Due};
use crate::connection::{Flags, Phase, Tick};
use crate::metrics::{CloseReason, RefuseReason};
use crate::topic::Key;
use crate::transport::Socket;

/// Deadlines acted on in one turn, each with a few system calls: about as long as one turn of a fan-out may take.
const ACTS_PER_TURN: usize = 64;

/// Deadlines looked at in one turn: of most of those who are active, it shows that theirs has moved.
const LOOKS_PER_TURN: usize = 1_024;

/// Times at which the loop went on that are remembered: as many stops as fit into eight minutes.
const STOPS_KEPT: usize = 1_024;

/// Looks at one connection before something is done: one for reading, one for writing, and what they lead to.
const LOOKS_PER_DEADLINE: usize = 4;

impl<S: Socket> Core<S> {
    /// Acts on deadlines that have struck, within one turn's budget; whoever is left makes [`Core::has_work`] true.
    pub fn sweep(&mut self) {
        if self.due.is_empty() {
            self.slots.take_due(self.now, &mut self.due);
        }
        let mut acts = 0;
        let mut slice = None;
        for _ in 0..LOOKS_PER_TURN {
            if acts == ACTS_PER_TURN || slice.as_ref().is_some_and(Slice::is_over) {
                break;
            }
            let Some(key) = self.due.pop_front() else { break };
            let slice = slice.get_or_insert_with(|| self.reading_slice((self.clock)(), u64::MAX));
            acts += usize::from(self.on_due(key));
            let effort = self.take_effort();
            if effort > 0 {
                slice.charge(effort, self.clock);
            }
        }
        if self.due.is_empty() && self.due.capacity() > 4 * super::PAGE_SLOTS {
            self.due = VecDeque::new();
        }
    }

    /// Does what is due for one connection. Whether there was anything to do.
    fn on_due(&mut self, key: Key) -> bool {
        let Some(slot) = self.slots.get(key) else { return false };
        let (at, mut due) =
            deadline::next(&slot.connection, &self.timeouts, self.bearers.due(key.slot, &self.timeouts));
        if at > self.now {
            // Something happened since the deadline was noted.
            self.slots.set_deadline(key.slot, at);
            return false;
        }
        for _ in 0..LOOKS_PER_DEADLINE {
            self.look_again(key, due);
            let Some(slot) = self.slots.get(key) else { return true };
            let (at, next) =
                deadline::next(&slot.connection, &self.timeouts, self.bearers.due(key.slot, &self.timeouts));
            if at > self.now {
                self.slots.set_deadline(key.slot, at);
                return true;
            }
            if next == due {
                break;
            }
            // That one is over, and what has struck besides is looked at by itself.
            due = next;
        }
        self.act_on(key, due);
        due != Due::Nothing
    }

    fn act_on(&mut self, key: Key, due: Due) {
        match due {
            Due::Nothing => {}
            Due::Debts => self.forget_debts(key),
            Due::Handshake => self.on_handshake_due(key),
            Due::Answer => self.on_parked_due(key),
            Due::KeepAlive => self.end(key, CloseReason::HttpDone, Words::Nothing),
            Due::Ping => self.ping(key),
            Due::Pong => {
                self.counters.heartbeats_unanswered.add(1);
                self.abort(key, CloseReason::HeartbeatTimeout);
            }
            Due::Token => self.on_token_due(key),
            Due::Write => self.abort(key, CloseReason::WriteTimeout),
            Due::Close => self.end(key, CloseReason::CloseTimeout, Words::Nothing),
            Due::Linger => self.on_linger_due(key),
        }
    }

    /// Looks once more at a connection that is about to be ended: what ends it may be that this loop was late. It may
    /// have more time then, or be ended by what was found.
    fn look_again(&mut self, key: Key, due: Due) {
        match due {
            Due::Nothing | Due::Debts | Due::Ping | Due::Token => return,
            // What answers it has come through the mailbox, which was emptied before.
            Due::Answer => {}
            Due::Handshake if !self.is_answered(key) => {}
            Due::Write => self.write_turn(key),
            // The sweep looks at the clock behind each step of a handshake.
            Due::Handshake => self.read_now(key, true),
            Due::KeepAlive | Due::Pong | Due::Close | Due::Linger => self.read_turn(key, true),
        }
        let Some(&resumed) = self.resumed.back() else { return };
        // A tick within the stop, in which no turn was: whatever begins there was begun anew, and is not again. A machine
        // that stops often would keep the dead for ever.
        let anew = |at: &Tick| self.resumed.binary_search(&at.saturating_add(1)).is_ok();
        let Some(slot) = self.slots.get(key) else { return };
        let connection = &mut slot.connection;
        if due != Due::Write {
            if !anew(&connection.heard) {
                connection.resume_at(resumed - 1);
            }
        } else if let Some(outbox) = connection.outbox.as_deref_mut().filter(|outbox| !anew(&outbox.progress))
        {
            outbox.progress = outbox.progress.max(resumed - 1);
        }
    }

    fn is_answered(&mut self, key: Key) -> bool {
        self.slots.get(key).is_none_or(|slot| slot.stream.is_answered(&self.transport))
    }

    /// The process, or the machine, stood still until now. What peers have done meanwhile may be on its way yet, so
    /// that each of their timeouts begins anew, but none of them twice in a row.
    pub fn on_resumed(&mut self, now: Tick) {
        tracing::warn!(loop_index = self.index, "the loop stood still; timeouts begin anew");
        if now > self.resumed.back().copied().unwrap_or(0) {
            if self.resumed.len() == STOPS_KEPT {
                self.resumed.pop_front();
            }
            self.resumed.push_back(now);
        }
    }

    fn on_handshake_due(&mut self, key: Key) {
        if self.answer_if_refused(key, &[]) {
            return;
        }
        let Some(slot) = self.slots.get(key) else { return };
        let empty = slot.connection.session.is_none() && slot.connection.phase() == Phase::Head;
        if empty && !slot.stream.is_answered(&self.transport) {
            // It hears nothing, so that there is nothing to linger for.
            self.abort(key, CloseReason::HandshakeTimeout);
        } else if empty {
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
            let (at, _) =
                deadline::next(&slot.connection, &self.timeouts, self.bearers.due(key.slot, &self.timeouts));
            self.slots.set_deadline(key.slot, at);
        }
    }
}
