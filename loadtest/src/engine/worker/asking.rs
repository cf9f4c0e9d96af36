//! Clients that poll: when they count as open, and those that wait a little before they ask again.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Worker;
use crate::engine::connection::{Away, State};
use crate::engine::conversation::Client;
use crate::result::tally::Tally;

/// The polls of one worker that have not left yet.
#[derive(Debug, Default)]
pub(super) struct Asking {
    waiting: BinaryHeap<Reverse<(u64, usize)>>,
}

impl Asking {
    /// When the next one is due.
    pub(super) fn due_ns(&self) -> Option<u64> {
        self.waiting.peek().map(|Reverse((due_ns, _))| *due_ns)
    }

    /// A connection's next poll leaves then.
    pub(super) fn pause(&mut self, index: usize, until_ns: u64) {
        self.waiting.push(Reverse((until_ns, index)));
    }
}

impl Worker {
    /// A client that polls is open once its request has left.
    #[inline]
    pub(super) fn open_asked(&mut self, index: usize, tally: &mut Tally) {
        if self.plan.conversation.client() == Client::Poll {
            self.open_polling(index, tally);
        }
    }

    #[inline(never)]
    fn open_polling(&mut self, index: usize, tally: &mut Tally) {
        let number = self.number(index);
        let Some(connection) = self.connections.get_mut(index) else { return };
        let before = connection.state();
        connection.open_if_asked(&mut self.plan.context(number, tally));
        if before != State::Open && connection.state() == State::Open {
            self.in_flight -= 1;
            self.returning.forget_position(index);
        }
    }

    /// Lets those ask again whose pause is over.
    pub(super) fn ask_due(&mut self, tally: &mut Tally) {
        while let Some(due_ns) = self.asking.due_ns().filter(|due_ns| *due_ns <= self.plan.clock.now_ns()) {
            let Some(Reverse((_, index))) = self.asking.waiting.pop() else { return };
            let number = self.number(index);
            let Some(connection) = self.connections.get_mut(index) else { continue };
            // Another connection of the same client may have taken its place.
            if connection.pauses_until_ns() != Some(due_ns) {
                continue;
            }
            let cx = self.plan.context(number, &mut *tally);
            if let Err(trouble) = connection.ask_again(&cx) {
                self.on_trouble(index, trouble, tally);
            }
        }
    }

    /// A poll was answered and its connection is over: the next one leaves on another.
    pub(super) fn on_polled_last(&mut self, index: usize) {
        let now_ns = self.plan.clock.now_ns();
        let Some(connection) = self.connections.get_mut(index) else { return };
        let due_ns = connection.pauses_until_ns().unwrap_or(now_ns);
        let position = connection.position();
        connection.end();
        self.returning.keep_position(index, position);
        self.returning.come_back(index, Away::UNCOUNTED, due_ns);
    }
}
