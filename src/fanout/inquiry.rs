//! What the admin loop asks the client loops: a question, who waits for the answer, and a place for each
//! loop's part of it. Pure data; made by the admin loop, answered by the loops in their own turns.
//!
//! There is no state that loops share and the admin port reads: an inquiry travels to each loop through its
//! mailbox, and the loop that answers last sends it back through the admin loop's.

use std::net::{IpAddr, SocketAddr};

use super::entry::Key;
use super::sync::{Arc, AtomicUsize, Mutex, Ordering, lock};
use super::topic::Topic;

/// A network in CIDR notation, or a single address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

/// Which connections are meant; what is `None` does not restrict.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Subscribed to this topic.
    pub topic: Option<Box<str>>,
    /// The peer's address is in this network.
    pub network: Option<Network>,
    /// This connection of the loop that is asked.
    pub key: Option<Key>,
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

/// User memory of one connection by part, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryParts {
    /// Its entry in the slot table.
    pub slot: usize,
    /// Half-received frames and messages.
    pub inbox: usize,
    /// The queue of unsent bytes, without messages that others share.
    pub outbox: usize,
    /// What its phase needs beyond the slot.
    pub session: usize,
    /// Its entries in the topics' subscriber lists.
    pub lists: usize,
}

/// One connection as its loop describes it. Times are in milliseconds since the process started.
#[derive(Clone, Debug)]
pub struct ConnectionRow {
    /// Its key on the loop.
    pub key: Key,
    /// The other end, as the kernel says; `None` when it is gone already.
    pub peer: Option<SocketAddr>,
    /// Where in its life.
    pub phase: &'static str,
    /// What it speaks.
    pub dialect: &'static str,
    /// Subscribed to; the first one is that which it publishes to.
    pub topics: Vec<Arc<Topic>>,
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

/// A question on its way.
#[derive(Debug)]
pub struct Inquiry {
    /// What is asked.
    pub question: Question,
    /// The loop that asks.
    pub asker: usize,
    /// The connection there that waits for the answer.
    pub waiter: Key,
    /// The first loop that is asked; as many follow as there are parts.
    pub first_loop: usize,
    parts: Box<[Mutex<Option<Part>>]>,
    unanswered: AtomicUsize,
}

impl Network {
    /// Reads `10.0.0.0/8`, `2001:db8::/32` or an address without a length.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) if bits.bytes().all(|digit| digit.is_ascii_digit()) => {
                (address, Some(bits.parse::<u32>().ok()?))
            }
            Some(_) => return None,
            None => (text, None),
        };
        let address: IpAddr = address.parse().ok()?;
        let whole = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(whole);
        let mapped = matches!(address, IpAddr::V6(six) if six.to_ipv4_mapped().is_some());
        // A mapped network means the IPv4 one, as long as it lies within the mapped range.
        let bits = if mapped { bits.checked_sub(96)? } else { bits };
        (bits <= whole).then_some(Self { address: address.to_canonical(), bits })
    }

    /// Whether an address is in it; one of IPv4 is so in its mapped form too.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(own), IpAddr::V4(other)) => {
                let mask = u32::MAX.checked_shl(32 - self.bits).unwrap_or(0);
                (own.to_bits() ^ other.to_bits()) & mask == 0
            }
            (IpAddr::V6(own), IpAddr::V6(other)) => {
                let mask = u128::MAX.checked_shl(128 - self.bits).unwrap_or(0);
                (own.to_bits() ^ other.to_bits()) & mask == 0
            }
            _ => false,
        }
    }
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
    pub fn new(question: Question, asker: usize, waiter: Key, first_loop: usize, loops: usize) -> Self {
        Self {
            question,
            asker,
            waiter,
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

impl MemoryParts {
    /// All parts together.
    #[must_use]
    pub fn total(&self) -> usize {
        self.slot + self.inbox + self.outbox + self.session + self.lists
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contains(network: &str, address: &str) -> bool {
        Network::parse(network).expect(network).contains(address.parse().expect(address))
    }

    #[test]
    fn networks_hold_their_addresses() {
        for (network, address) in [
            ("10.0.0.0/8", "10.255.0.1"),
            ("10.1.2.3/8", "10.0.0.1"),
            ("127.0.0.1", "127.0.0.1"),
            ("0.0.0.0/0", "255.255.255.255"),
            ("10.0.0.0/8", "::ffff:10.0.0.1"),
            ("::ffff:10.0.0.0/104", "10.200.0.1"),
            ("2001:db8::/32", "2001:db8:1::1"),
            ("::/0", "::1"),
            ("::1", "::1"),
        ] {
            assert!(contains(network, address), "{network} {address}");
        }
        for (network, address) in [
            ("10.0.0.0/8", "11.0.0.1"),
            ("127.0.0.1", "127.0.0.2"),
            ("0.0.0.0/0", "::1"),
            ("::/0", "1.2.3.4"),
            ("2001:db8::/33", "2001:db8:8000::1"),
        ] {
            assert!(!contains(network, address), "{network} {address}");
        }
        for bad in [
            "",
            "/8",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0/8",
            "a",
            "::ffff:1.2.3.4/95",
        ] {
            assert_eq!(Network::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn the_last_answer_completes_an_inquiry_and_a_second_one_changes_nothing() {
        let question = Question::List { filter: Filter::default(), from: 0, limit: 1 };
        let waiter = Key { slot: 1, generation: 2 };
        let inquiry = Inquiry::new(question, 5, waiter, 2, 2);
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
