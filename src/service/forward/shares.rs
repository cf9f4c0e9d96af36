//! Who has how much of a queue: nobody may have more of it than is left for others.
//!
//! Driven by the lanes under their lock. Pure. One address alone has half of the queue, two that want all of it a third each,
//! and so on: something is always left, in which whoever comes finds room.

use std::collections::HashMap;

use super::message::{Message, Sender};

/// Holders for whom room is kept when almost nobody has anything.
const KEPT: usize = 64;

/// Whose messages are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Holder {
    /// An address, by its handle of admission.
    Address(u32),
    /// A connection, where no limit asks for addresses.
    Connection(Sender),
}

impl Holder {
    /// Whose a message is.
    pub(super) fn of(message: &Message) -> Self {
        match message.admission {
            0 => Self::Connection(message.sender),
            handle => Self::Address(handle),
        }
    }
}

/// Messages, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Load {
    messages: usize,
    bytes: usize,
}

/// The loads of a queue.
#[derive(Debug)]
pub(super) struct Shares {
    most: Load,
    all: Load,
    by_holder: HashMap<Holder, Load>,
}

impl Shares {
    /// Nobody has anything of a queue that holds so much.
    pub(super) fn new(messages: usize, bytes: usize) -> Self {
        Self { most: Load { messages, bytes }, all: Load::default(), by_holder: HashMap::new() }
    }

    /// Counts a message of so many bytes. `false`: there is no room, or only what is left for others. One alone always fits,
    /// and the first of a holder wherever there is room.
    pub(super) fn try_take(&mut self, holder: Holder, bytes: usize) -> bool {
        let own = self.by_holder.get(&holder).copied().unwrap_or_default();
        let left = Load {
            messages: self.most.messages.saturating_sub(self.all.messages + 1),
            bytes: self.most.bytes.saturating_sub(self.all.bytes + bytes),
        };
        let has_room = self.all.messages < self.most.messages && self.all.bytes + bytes <= self.most.bytes;
        let is_first = own.messages == 0;
        let within = own.messages < left.messages && own.bytes + bytes <= left.bytes;
        if self.all.messages > 0 && !(has_room && (is_first || within)) {
            return false;
        }
        self.all = Load { messages: self.all.messages + 1, bytes: self.all.bytes + bytes };
        self.by_holder.insert(holder, Load { messages: own.messages + 1, bytes: own.bytes + bytes });
        true
    }

    /// Counts a message out.
    pub(super) fn give_back(&mut self, holder: Holder, bytes: usize) {
        self.all.messages = self.all.messages.saturating_sub(1);
        self.all.bytes = self.all.bytes.saturating_sub(bytes);
        let Some(own) = self.by_holder.get_mut(&holder) else { return };
        own.messages = own.messages.saturating_sub(1);
        own.bytes = own.bytes.saturating_sub(bytes);
        if own.messages > 0 {
            return;
        }
        self.by_holder.remove(&holder);
        if self.by_holder.len() < self.by_holder.capacity() / 4 {
            self.by_holder.shrink_to((self.by_holder.len() * 2).max(KEPT));
        }
    }

    /// Messages, and their bytes.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.all.messages, self.all.bytes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fill(shares: &mut Shares, handle: u32, bytes: usize) -> usize {
        (0..10_000).take_while(|_| shares.try_take(Holder::Address(handle), bytes)).count()
    }

    #[test]
    fn one_has_half_and_who_comes_always_finds_some() {
        let mut shares = Shares::new(1_000, usize::MAX >> 1);
        let had: Vec<usize> = (1..=6).map(|handle| fill(&mut shares, handle, 1)).collect();
        assert_eq!(had, [500, 250, 125, 62, 31, 16], "each half of what is left");
        (0..500).for_each(|_| shares.give_back(Holder::Address(1), 1));
        assert_eq!(fill(&mut shares, 7, 1), 258, "and more when somebody's are answered");
    }

    #[test]
    fn bytes_are_shared_as_messages_are_and_one_alone_always_fits() {
        let mut shares = Shares::new(1_000, 1_000);
        assert_eq!((fill(&mut shares, 1, 100), fill(&mut shares, 2, 100)), (5, 2));
        let mut tight = Shares::new(2, 10);
        assert_eq!((fill(&mut tight, 1, 1_000), fill(&mut tight, 2, 1)), (1, 0));
        tight.give_back(Holder::Address(1), 1_000);
        assert_eq!((fill(&mut tight, 1, 1), fill(&mut tight, 2, 1), fill(&mut tight, 3, 1)), (1, 1, 0));
    }

    proptest! {
        /// What everybody has is what the queue has, and nobody who is one of several has more than was left.
        #[test]
        fn all_of_it_is_somebodys(steps in prop::collection::vec((any::<bool>(), 1_u32..6, 1_usize..40), 0..300)) {
            let mut shares = Shares::new(60, 900);
            let mut model: HashMap<u32, Vec<usize>> = HashMap::new();
            for (takes, handle, bytes) in steps {
                let own = model.entry(handle).or_default();
                if !takes {
                    if let Some(bytes) = own.pop() {
                        shares.give_back(Holder::Address(handle), bytes);
                    }
                } else if shares.try_take(Holder::Address(handle), bytes) {
                    own.push(bytes);
                    let (messages, total) = shares.held();
                    prop_assert!(messages == 1 || messages <= 60 && total <= 900);
                    prop_assert!(own.len() == 1 || own.len() <= 60 - messages);
                    prop_assert!(own.len() == 1 || own.iter().sum::<usize>() <= 900 - total);
                }
                let all = model.values().flatten();
                prop_assert_eq!(shares.held(), (all.clone().count(), all.sum()));
                prop_assert_eq!(shares.by_holder.len(), model.values().filter(|own| !own.is_empty()).count());
            }
        }
    }
}
