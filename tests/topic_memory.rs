//! What a topic of its own costs, counted by the allocator: many connections each on a topic that nobody else has.
//! What this thread alone allocates is counted.

use std::sync::Arc;

use fantail::dialect::Form;
use fantail::topic::{LocalTopics, Mail, Operator, Router, RouterLimits, Since, TopicName, TurnBudget, Wake};
use fantail_test_support::counting_alloc::CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// A power of two, so that no table has just grown.
const TOPICS: usize = 65_536;

/// Beside its one subscription.
const BYTES_PER_TOPIC_MAX: usize = 200;

#[derive(Debug)]
struct NoMail;

impl Mail for NoMail {
    type Form = Form;
    type Control = ();
    type Reply = ();
}

struct NoWake;

impl Wake for NoWake {
    fn wake(&self, _: usize) {}
}

#[test]
fn a_topic_of_its_own_is_small_and_is_given_back() {
    let router = Router::<NoMail>::new(2, RouterLimits::default(), Box::new(NoWake)).expect("two loops");
    let router = Arc::new(router);
    let mut topics = LocalTopics::new(Arc::clone(&router), 0).expect("loop 0 exists");
    let mut joined = Vec::with_capacity(TOPICS);
    let start = ALLOCATOR.used();
    for slot in 0..TOPICS as u32 {
        // As long as a name may well be, and in no order.
        let name =
            TopicName::parse(format!("room-{:011}", slot.wrapping_mul(2_654_435_761))).expect("a name");
        let (local, place, _) = topics.join(&name, slot, Since::Now, &Operator).expect("room");
        joined.push((local, place));
        if slot % 1_024 == 0 || slot + 1 == TOPICS as u32 {
            list(&mut topics, &mut joined);
        }
    }
    let each = (ALLOCATOR.used() - start).div_ceil(TOPICS);
    println!("{each} bytes a topic");
    assert!(each <= BYTES_PER_TOPIC_MAX, "{each} bytes a topic");

    for (slot, (local, place)) in joined.iter().enumerate() {
        assert!(place.is_listed());
        assert_eq!(topics.leave(*local, slot as u32, *place), None);
    }
    assert!(topics.is_empty() && router.topics() <= 1_024);
    let kept = ALLOCATOR.used().saturating_sub(start);
    assert!(kept <= 1 << 20, "{kept} bytes kept");
}

/// Lets every join come up.
fn list(topics: &mut LocalTopics<NoMail>, joined: &mut [(u32, fantail::topic::Place)]) {
    while topics.drain_mailbox(|_| {}) > 0 || topics.has_work() {
        let turn = topics.begin_turn(&mut TurnBudget::new(1), |join, place| {
            joined[join.slot as usize].1 = place;
            true
        });
        assert!(turn.is_none(), "nothing was published");
    }
}
