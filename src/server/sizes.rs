//! What a load costs in memory, predicted from the sizes of the real structs and the rules by which their
//! tables grow. Pure; `fantail sizes` prints it, and a test compares it with a running server.
//!
//! User space is the process's anonymous memory once the allocator has given back what a peak left behind.
//! A page that was allocated and never touched is not resident and not counted. Nor is what outboxes that
//! grow in step leave unused between each other: with a backlog it can be half of the outboxes' part again.

pub use crate::connection::layout::{Field, Layout};
use crate::connection::{SLOT_ENTRY_BYTES, layout, outbox};
use crate::event_loop::PAGE_SLOTS;
use crate::topic::{message, state, subscriptions};

/// An empty server: the runtime, the router, the logging and the service threads. Measured.
const EMPTY_BYTES: u64 = 770 << 10;

/// One event loop more: its stack, its buffers, its events. Measured.
const LOOP_BYTES: u64 = 84 << 10;

/// What the kernel keeps for an idle TCP connection: socket, descriptor, epoll entry. Measured on Linux 6.18.
const KERNEL_SOCKET_BYTES: u64 = 4_300;

/// What the kernel holds unsent for a consumer that has stopped reading: TCP_NOTSENT_LOWAT and the frame
/// that crosses it. Measured on Linux 6.18.
const KERNEL_STALLED_BYTES: u64 = 17 << 10;

const MEMORY_PAGE: usize = 4096;

/// A load to predict. Every connection is subscribed to one topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Open connections.
    pub connections: usize,
    /// Topics, with equally many subscribers each.
    pub topics: usize,
    /// Messages that wait for every connection.
    pub backlog: usize,
    /// Bytes of each such message's payload.
    pub message_bytes: usize,
    /// Event loops, over which the connections are spread evenly.
    pub loops: usize,
}

/// One part of the prediction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// What it is.
    pub name: &'static str,
    /// Its bytes in user space.
    pub bytes: u64,
    /// Whether it is there with no connection at all.
    pub fixed: bool,
}

/// User-space bytes, part by part.
#[must_use]
pub fn user_parts(load: &Load) -> Vec<Part> {
    let loops = load.loops.max(1);
    let topics = if load.connections == 0 { 0 } else { load.topics.clamp(1, load.connections) };
    let per_loop = load.connections.div_ceil(loops);
    let subscribers = load.connections.div_ceil(topics.max(1));
    // A topic is known to the loops that have a subscriber of it.
    let interested = subscribers.min(loops);
    // Absurd numbers are answered with the largest one and not with what is left of them.
    let times = |factors: &[usize]| factors.iter().fold(1, |all: usize, factor| all.saturating_mul(*factor));
    let part = |name, bytes: usize| Part { name, bytes: bytes as u64, fixed: false };
    let fixed = |name, bytes| Part { name, bytes, fixed: true };
    // The first subscriber lies in the topic's entry itself.
    let listed = subscribers.div_ceil(interested.max(1));
    let list = if listed < 2 { 0 } else { grown(listed, size_of::<u32>()) };
    let [outbox, queue] = outbox::allocations(load.backlog);
    let backlogged = if load.backlog == 0 { 0 } else { load.connections };
    vec![
        fixed("empty process", EMPTY_BYTES),
        fixed("event loops", LOOP_BYTES * loops as u64),
        part("slots", times(&[loops, slots(per_loop)])),
        part("subscriber lists", times(&[topics, interested, list])),
        part("topics", times(&[topics, topic(interested)]).saturating_add(directory(topics))),
        part(
            "topics in the loops",
            times(&[loops, grown((topics * interested).div_ceil(loops), subscriptions::LOCAL_TOPIC_BYTES)]),
        ),
        part("outboxes", times(&[backlogged, heap(outbox) + heap(queue)])),
        part(
            "waiting messages",
            times(&[topics, load.backlog, heap(message::allocation(load.message_bytes))]),
        ),
    ]
}

/// What a connection is made of, and what a topic is: itself, and its part in each loop that has a subscriber.
#[must_use]
pub fn layouts() -> Vec<Layout> {
    let sized = |name, when, bytes| Layout { name, when, bytes, fields: &[] };
    let mut structs = layout::layouts();
    structs.push(sized("Topic", "for each topic, once for all loops; and its name", state::allocation(0)));
    structs.push(sized(
        "LocalTopic",
        "for each topic in each loop with a subscriber; its list has 4 bytes a subscriber, the only one lies in it",
        subscriptions::LOCAL_TOPIC_BYTES,
    ));
    structs.push(sized(
        "Message",
        "for each message, once for all who wait for it; and its bytes",
        message::allocation(0),
    ));
    structs
}

/// All parts together.
#[must_use]
pub fn total(parts: &[Part]) -> u64 {
    parts.iter().fold(0, |all, part| all.saturating_add(part.bytes))
}

/// What the kernel keeps besides, at most; an estimate, because it depends on the kernel and the network.
#[must_use]
pub fn kernel_bytes_estimate(load: &Load) -> u64 {
    let stalled = if load.backlog == 0 { 0 } else { KERNEL_STALLED_BYTES };
    (load.connections as u64).saturating_mul(KERNEL_SOCKET_BYTES + stalled)
}

/// Slots come in pages of which only what was used is resident.
fn slots(connections: usize) -> usize {
    let full = connections / PAGE_SLOTS * PAGE_SLOTS * SLOT_ENTRY_BYTES;
    let last = connections % PAGE_SLOTS * SLOT_ENTRY_BYTES;
    full + last.next_multiple_of(MEMORY_PAGE)
}

/// A topic in the router: itself with its name behind a counter, and its index in each interested loop if there
/// are several.
fn topic(interested: usize) -> usize {
    const NAME_BYTES: usize = 16;
    let locals = if interested < 2 { 0 } else { 2 * size_of::<usize>() + interested * size_of::<u32>() };
    heap(state::allocation(NAME_BYTES)) + heap(locals)
}

/// The directory's tree: nodes of eleven places, a pointer each, on average three quarters full, and a node above
/// for each eleven or so.
fn directory(topics: usize) -> usize {
    const NODE_BYTES: usize = 11 * size_of::<usize>() + 16;
    let leaves = (topics * 4).div_ceil(11 * 3);
    leaves.saturating_mul(heap(NODE_BYTES)) + leaves.div_ceil(8).saturating_mul(heap(NODE_BYTES + 96))
}

/// A vector that grew to `len` items by doubling. Small, it costs its capacity; large, what was touched.
fn grown(len: usize, item: usize) -> usize {
    let capacity = if len == 0 { 0 } else { len.next_power_of_two().max(4) } * item;
    if capacity > MEMORY_PAGE { (len * item).next_multiple_of(MEMORY_PAGE) } else { heap(capacity) }
}

/// What the allocator takes for a block: 8 bytes in front, steps of 16, at least 32 (glibc malloc).
fn heap(bytes: usize) -> usize {
    if bytes == 0 { 0 } else { (bytes + 8).next_multiple_of(16).max(32) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDLE: Load = Load { connections: 50_000, topics: 1, backlog: 0, message_bytes: 128, loops: 3 };

    fn per_connection(load: &Load) -> f64 {
        let sum: u64 = user_parts(load).iter().filter(|part| !part.fixed).map(|part| part.bytes).sum();
        sum as f64 / load.connections as f64
    }

    #[test]
    fn an_idle_connection_is_a_slot_and_a_place_in_a_list() {
        let bytes = per_connection(&IDLE);
        assert!((60.0..62.0).contains(&bytes), "{bytes}");
    }

    #[test]
    fn nothing_costs_nothing_but_what_is_fixed() {
        let none = Load { connections: 0, ..IDLE };
        assert!(
            user_parts(&none).iter().all(|part| part.fixed || part.bytes == 0),
            "{:?}",
            user_parts(&none)
        );
        assert_eq!(kernel_bytes_estimate(&none), 0);
    }

    #[test]
    fn the_largest_load_that_can_be_asked_for_does_not_overflow() {
        let most = Load {
            connections: 100_000_000,
            topics: 1_000_000,
            backlog: 65_535,
            message_bytes: 1 << 30,
            loops: 63,
        };
        let parts = user_parts(&most);
        let messages = parts.iter().find(|part| part.name == "waiting messages").unwrap();
        assert_eq!((messages.bytes, total(&parts)), (u64::MAX, u64::MAX));
        assert!(user_parts(&Load { message_bytes: 1, ..most }).iter().all(|part| part.bytes < 1 << 50));
    }

    #[test]
    fn a_topic_for_everybody_and_a_backlog_cost_their_structs() {
        let own = Load { topics: 50_000, ..IDLE };
        assert!(per_connection(&own) > per_connection(&IDLE) + state::allocation(0) as f64);
        // More topics than connections have nobody.
        assert_eq!(user_parts(&Load { topics: 90_000, ..IDLE }), user_parts(&own));
        let stalled = Load { backlog: 64, message_bytes: 1024, ..IDLE };
        let messages = user_parts(&stalled).into_iter().find(|part| part.name == "waiting messages").unwrap();
        assert!((64 * 1024..64 * 1200).contains(&messages.bytes), "shared by all: {messages:?}");
        let [outbox, queue] = outbox::allocations(64);
        let more = per_connection(&stalled) - per_connection(&IDLE);
        assert!(more >= (outbox + queue) as f64 && more < (outbox + queue + 40) as f64, "{more}");
    }
}
