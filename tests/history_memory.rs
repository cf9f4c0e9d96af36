//! What remembering costs, counted by the allocator: a kept message, which all loops have had, and a topic that keeps one.
//! What this thread alone allocates is counted.

use std::sync::Arc;

use fantail::dialect::Form;
use fantail::topic::{
    Draft, Encoding, LocalTopics, Mail, Operator, Router, RouterLimits, Since, TopicName, TopicPolicy,
    TopicRules, TurnBudget, Wake,
};
use fantail_test_support::counting_alloc::CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const LOOPS: usize = 4;

/// As many as fill a ring, so that it has not just grown.
const MESSAGES: u32 = 1_024;
const FIRST: u32 = 64;

/// What may stand beside a kept payload.
const BESIDE_BYTES_MAX: usize = 96;

/// A power of two, so that no table has just grown.
const TOPICS: u32 = 65_536;

/// Of a topic with one subscriber and one kept message of [`SMALL`] bytes.
const TOPIC_BYTES_MAX: usize = 500;
const SMALL: usize = 16;

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

/// Loops whose topics keep so many messages.
fn serving(loops: usize, messages: u32) -> (Arc<Router<NoMail>>, Vec<LocalTopics<NoMail>>) {
    let limits = RouterLimits::default();
    let router = Arc::new(Router::<NoMail>::new(loops, limits, Box::new(NoWake)).expect("loops"));
    let mut policy = TopicPolicy::default();
    (policy.history.messages, policy.history.bytes) = (messages, 1 << 30);
    router.set_rules(TopicRules::new(Vec::new(), Vec::new(), policy));
    let topics = (0..loops).map(|index| LocalTopics::new(Arc::clone(&router), index).expect("a loop"));
    let topics = topics.collect();
    (router, topics)
}

/// Does all that there is to do: joins come up, and every subscriber takes what waits, in the form that it wants.
fn settle(topics: &mut LocalTopics<NoMail>, form: Form) -> usize {
    let mut deliveries = 0;
    while topics.drain_mailbox(|_| {}) > 0 || topics.has_work() {
        let mut budget = TurnBudget::new(u32::MAX);
        while let Some(mut turn) = topics.begin_turn(&mut budget, |_, _| true) {
            while topics.next_subscriber(&turn, &mut budget).is_some() {
                let choice =
                    topics.choose(&mut turn, form, || Encoding::Plain, |_: &[u8], _: &mut Vec<u8>| false);
                assert!(!turn.batch().frames(choice).is_empty());
                deliveries += turn.batch().messages().len();
            }
            topics.end_turn(turn, |_, _| {});
        }
    }
    deliveries
}

/// Every loop has a subscriber, and each of these wants another form; what stays is one payload for all.
fn a_kept_payload_is_held_once_for_all_loops(payload: usize) {
    let (router, mut loops) = serving(LOOPS, MESSAGES);
    let name = TopicName::parse("kept".to_owned()).expect("a name");
    for (index, topics) in loops.iter_mut().enumerate() {
        topics.join(&name, index as u32, Since::Now, &Operator).expect("room");
    }
    let forms = [Form::Raw, Form::Json, Form::Sse, Form::Envelope];
    let bytes = vec![b'm'; payload];
    let topic = router.find(&name).expect("it has subscribers");
    let publish = |loops: &mut Vec<LocalTopics<NoMail>>, messages| {
        for _ in 0..messages {
            router.publish(&topic, Draft::encode(None, false, &bytes), None).expect("room");
            let delivered = loops.iter_mut().zip(forms).map(|(topics, form)| settle(topics, form));
            assert_eq!(delivered.sum::<usize>(), LOOPS);
        }
    };
    // With the first ones the loops get what they work with.
    publish(&mut loops, FIRST);
    let start = ALLOCATOR.used();
    publish(&mut loops, MESSAGES - FIRST);
    assert_eq!(router.histories().messages(), u64::from(MESSAGES));
    let each = (ALLOCATOR.used() - start).div_ceil((MESSAGES - FIRST) as usize);
    println!("{} bytes beside a payload of {payload}", each - payload);
    assert!(each <= payload + BESIDE_BYTES_MAX, "{each} bytes for a message of {payload}");
    // What is counted for them is about what they take.
    let counted = router.histories().bytes() / u64::from(MESSAGES);
    assert!((each as u64).abs_diff(counted) <= 32, "{counted} counted");
    // As many again take the places of the first.
    let full = ALLOCATOR.used();
    publish(&mut loops, MESSAGES);
    assert!(ALLOCATOR.used().abs_diff(full) <= 4_096, "{} bytes more", ALLOCATOR.used() - full);
}

fn a_topic_with_one_kept_message_is_small() {
    let (router, mut loops) = serving(1, 1);
    let topics = &mut loops[0];
    let start = ALLOCATOR.used();
    for slot in 0..TOPICS {
        // As long as a name may well be, and in no order.
        let name =
            TopicName::parse(format!("room-{:011}", slot.wrapping_mul(2_654_435_761))).expect("a name");
        topics.join(&name, slot, Since::Now, &Operator).expect("room");
        let topic = router.find(&name).expect("it has a subscriber");
        router.publish(&topic, Draft::encode(None, false, &[b'm'; SMALL]), None).expect("room");
        if slot % 256 == 0 || slot + 1 == TOPICS {
            settle(topics, Form::Raw);
        }
    }
    let each = (ALLOCATOR.used() - start).div_ceil(TOPICS as usize);
    println!("{each} bytes a topic");
    assert_eq!(router.histories().messages(), u64::from(TOPICS));
    assert!(each <= TOPIC_BYTES_MAX, "{each} bytes a topic");
}

#[test]
fn what_remembering_costs() {
    for payload in [16, 128, 4_096] {
        a_kept_payload_is_held_once_for_all_loops(payload);
    }
    a_topic_with_one_kept_message_is_small();
}
