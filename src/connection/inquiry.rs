//! What the admin loop asks the client loops: a question, who waits for the answer, and a place for each
//! loop's part of it. Pure data; made by the admin loop, answered by the loops in their own turns.
//!
//! There is no state that loops share and the admin port reads: an inquiry travels to each loop through its
//! mailbox, and the loop that answers last sends it back through the admin loop's, as the reply to the connection
//! that waits for it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::MemoryParts;
use crate::topic::{Key, LevelPattern, Topic};
use crate::wire::network::Network;

/// Which connections are meant; what is `None` does not restrict.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Subscribed to this topic.
    pub topic: Option<Box<str>>,
    /// The peer's address is in this network.
    pub network: Option<Network>,
    /// This connection of the loop that is asked.
    pub key: Option<Key>,
    /// It has at least so many unsent bytes.
    pub outbox_bytes_min: Option<usize>,
    /// It has shown such a token.
    pub bearer: Option<Box<BearerFilter>>,
}

/// Which tokens are meant; what is `None` does not restrict.
#[derive(Clone, Debug, Default)]
pub struct BearerFilter {
    /// Of this bearer (`sub`).
    pub identity: Option<Box<str>>,
    /// Of this issuer.
    pub issuer: Option<Box<str>>,
    /// Of this name (`jti`).
    pub token: Option<Box<str>>,
}

/// What a loop is to do with the connections that the filter means.
#[derive(Clone, Debug)]
pub enum Question {
    /// Describe them, in the order of their slots.
    List {
        /// Whom.
        filter: Filter,
        /// The first slot to look at.
        from: u32,
        /// Most rows.
        limit: usize,
    },
    /// Close them.
    Close {
        /// Whom.
        filter: Filter,
        /// The code of the close frame.
        code: u16,
        /// The text of the close frame.
        reason: Box<str>,
    },
    /// End their subscription to a topic.
    Unsubscribe {
        /// Whom.
        filter: Filter,
        /// From what.
        topic: Box<str>,
    },
}

/// One connection as its loop describes it. Times are in milliseconds since the process started.
#[derive(Clone, Debug)]
pub struct ConnectionRow {
    /// Its key on the loop.
    pub key: Key,
    /// The other end, as the kernel says; `None` when it is gone already.
    pub peer: Option<SocketAddr>,
    /// Whom the certificate names that it has shown.
    pub subject: Option<Box<str>>,
    /// To whom it belongs (`sub` of its token).
    pub identity: Option<Box<str>>,
    /// Who says so, if that issuer has a name.
    pub issuer: Option<Box<str>>,
    /// What the application is told of it beside that, as a JSON object.
    pub claims: Option<Box<str>>,
    /// Where in its life.
    pub phase: &'static str,
    /// What it speaks.
    pub dialect: &'static str,
    /// Subscribed to; the first one is that which it publishes to.
    pub topics: Vec<Topic>,
    /// Patterns it is subscribed to.
    pub patterns: Vec<LevelPattern>,
    /// It was accepted at this time or later …
    pub accepted_from_ms: u64,
    /// … and at this time or earlier.
    pub accepted_to_ms: u64,
    /// Its peer was last heard, or its phase began.
    pub heard_ms: u64,
    /// Unsent bytes.
    pub outbox_bytes: usize,
    /// Messages its present backlog has cost it.
    pub drops: u64,
    /// What it costs.
    pub memory: MemoryParts,
}

/// One loop's answer.
#[derive(Clone, Debug, Default)]
pub struct Part {
    /// For a list.
    pub rows: Vec<ConnectionRow>,
    /// For a list: the slot to go on from, `None` when the loop was looked through.
    pub next: Option<u32>,
    /// For the others: connections it was done to.
    pub done: u64,
    /// The loop could not be asked: its mailbox was full.
    pub refused: bool,
}

/// Who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// The loop that asks.
    pub loop_index: usize,
    /// The connection there that waits for the answer.
    pub key: Key,
    /// Which of that connection's questions.
    pub ticket: u32,
}

/// A question on its way.
#[derive(Debug)]
pub struct Inquiry {
    /// What is asked.
    pub question: Question,
    /// Who asks.
    pub from: Asker,
    /// The first loop that is asked; as many follow as there are parts.
    pub first_loop: usize,
    parts: Box<[Mutex<Option<Part>>]>,
    unanswered: AtomicUsize,
}

impl Question {
    /// Which connections it is about.
    #[must_use]
    pub fn filter(&self) -> &Filter {
        match self {
            Self::List { filter, .. } | Self::Close { filter, .. } | Self::Unsubscribe { filter, .. } => {
                filter
            }
        }
    }
}

impl Inquiry {
    /// A question to `loops` loops from `first_loop` on.
    #[must_use]
    pub fn new(question: Question, from: Asker, first_loop: usize, loops: usize) -> Self {
        Self {
            question,
            from,
            first_loop,
            parts: (0..loops).map(|_| Mutex::new(None)).collect(),
            unanswered: AtomicUsize::new(loops),
        }
    }

    /// Files a loop's answer. `true`: it was the last, and the inquiry is to go back to the asker.
    pub fn answer(&self, loop_index: usize, part: Part) -> bool {
        let place = loop_index.checked_sub(self.first_loop).and_then(|index| self.parts.get(index));
        let Some(place) = place else { return false };
        let mut place = lock(place);
        if place.is_some() {
            return false;
        }
        *place = Some(part);
        drop(place);
        self.unanswered.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// The loops that have not answered.
    #[must_use]
    pub fn waits_for(&self) -> Vec<usize> {
        let open = self.parts.iter().enumerate().filter(|(_, part)| lock(part).is_none());
        open.map(|(index, _)| self.first_loop + index).collect()
    }

    /// The answers there are, with their loops. They are taken out.
    #[must_use]
    pub fn take_parts(&self) -> Vec<(usize, Part)> {
        let parts = self.parts.iter().enumerate();
        parts.filter_map(|(index, part)| Some((self.first_loop + index, lock(part).take()?))).collect()
    }
}

/// A place is written whole, so a panic elsewhere left nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_answer_completes_an_inquiry_and_a_second_one_changes_nothing() {
        let question = Question::List { filter: Filter::default(), from: 0, limit: 1 };
        let from = Asker { loop_index: 5, key: Key { slot: 1, generation: 2 }, ticket: 7 };
        let inquiry = Inquiry::new(question, from, 2, 2);
        assert_eq!(inquiry.waits_for(), [2, 3]);
        let part = |done| Part { done, ..Part::default() };
        assert!(!inquiry.answer(3, part(7)));
        assert!(!inquiry.answer(3, part(8)), "the same loop twice");
        assert!(!inquiry.answer(1, part(9)), "a loop that was not asked");
        assert_eq!(inquiry.waits_for(), [2]);
        assert!(inquiry.answer(2, part(1)));
        let done: Vec<_> = inquiry.take_parts().into_iter().map(|(index, part)| (index, part.done)).collect();
        assert_eq!(done, [(2, 1), (3, 7)]);
    }
}
