//! Requests that wait for something, on either port: parked, read behind as far as one more request, answered or given
//! up.
//!
//! Driven by whoever makes a request wait, by what it waits for, and by its deadline. What is waited for is not known
//! here. Who waits costs a slot and a small box, has a deadline and one bound for all, and on the client port
//! is freed at once when its peer ends its stream.

use super::closing::Words;
use super::core::Core;
use super::http_turn::Next;
use super::write_turn::Asked;
use crate::config::LimitsSection;
use crate::connection::session::Parked;
use crate::connection::{Connection, Flags, Tick};
use crate::http::Asker;
use crate::metrics::{CloseReason, RefuseReason};
use crate::topic::Key;
use crate::transport::Socket;

impl<S: Socket> Core<S> {
    /// Lets a request wait for at most `ticks` without progress. `false`: too many do, and it was refused.
    pub(super) fn park(&mut self, key: Key, ticks: Tick, keep_alive: bool, asker: &Asker<'_>) -> bool {
        if self.parked >= self.edition.settings.limits.parked_max {
            self.refuse_asker(key, RefuseReason::Busy, "too many requests wait; try again", asker);
            return false;
        }
        let due = self.now.saturating_add(ticks);
        let Some(slot) = self.slots.get(key) else { return false };
        slot.connection.park(Parked::new(due, keep_alive, asker.head_only()), self.now);
        self.parked += 1;
        self.rearm(key.slot);
        true
    }

    /// What a request waits with, if it does.
    pub(super) fn parked(&mut self, key: Key) -> Option<&mut Parked> {
        self.slots.get(key)?.connection.parked()
    }

    /// Sends the answer, or its end, and goes on with what the connection asks next.
    pub(super) fn complete(&mut self, key: Key, keep_alive: bool, answer: &[u8]) {
        if self.slots.get(key).and_then(|slot| slot.connection.unpark()).is_none() {
            return;
        }
        self.parked -= 1;
        self.send_own(key, answer, Asked::Yes);
        if matches!(self.after_answer(key, keep_alive), Next::Go) {
            // What came meanwhile was not followed up.
            self.list_ready(key);
            self.rearm(key.slot);
        }
    }

    /// Keeps what a client sent behind a request that is not answered yet.
    pub(super) fn hold_behind(&mut self, key: Key, bytes: &[u8]) {
        if let Some(parked) = self.parked(key) {
            let before = parked.held.capacity();
            parked.held.extend_from_slice(bytes);
            let after = parked.held.capacity();
            let started = parked.started;
            self.held.moved(self.edition.inbox_bytes_of(self.port), before, after);
            if self.is_inbox_full(after) {
                if started {
                    // Nothing can be said in the middle of an answer.
                    return self.end(key, CloseReason::InboxFull, Words::Nothing);
                }
                let reason = RefuseReason::InboxFull;
                return self.refuse(key, reason, reason.text());
            }
        }
        if let Some(slot) = self.slots.get(key)
            && room_behind(&mut slot.connection, &self.edition.settings.limits) == 0
        {
            slot.connection.flags.set(Flags::READ_OWED);
        }
    }

    /// What a request waits for did not come in time.
    pub(super) fn on_parked_due(&mut self, key: Key) {
        if self.admin.is_some() {
            return self.on_answer_due(key);
        }
        if self.answer_poll(key) || self.on_question_due(key) {
            return;
        }
        self.refuse(key, RefuseReason::Busy, "what this request waits for did not come in time; try again");
    }
}

/// Bytes that may still be read behind a request that waits: as many as the next one's head may have.
pub(super) fn room_behind(connection: &mut Connection, limits: &LimitsSection) -> usize {
    connection.parked().map_or(0, |parked| limits.head_bytes_max.saturating_sub(parked.held.len()))
}
