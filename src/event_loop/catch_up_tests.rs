//! Subscribers that are behind: whatever the kernel takes at a time and whatever happens meanwhile, each gets what is its
//! own once and in order.

use super::*;
use crate::config::TopicRule;
use crate::wire::frame::{Sender, decode_header};

struct World {
    edition: Arc<Edition>,
    core: Core<Fake>,
}

impl World {
    fn new(messages: usize) -> Self {
        let edition = edition(1, 100, RouterLimits::default(), |settings| {
            settings.publish.topics = vec!["*".to_owned()];
            settings.outbox.messages_max = 1;
            settings.topics = vec![TopicRule {
                pattern: "t*".to_owned(),
                history_messages: Some(messages),
                ..TopicRule::default()
            }];
        });
        let core = core(&edition, Port::Client);
        Self { edition, core }
    }

    fn publish(&self, numbers: std::ops::RangeInclusive<u64>) {
        let topic = self.edition.router.topic(&TopicName::of("t")).unwrap();
        for number in numbers {
            let draft = Draft::encode(None, false, number.to_string().as_bytes());
            assert_eq!(self.edition.router.publish(&topic, draft, None).unwrap().offset, number);
        }
    }

    fn connect(&mut self, path: &str) -> (Fake, Key) {
        let fake = Fake::says(&upgrade(path, ""));
        let key = arrive(&mut self.core, &fake);
        (fake, key)
    }

    fn settle(&mut self) {
        for _ in 0..1_000 {
            self.core.run_ready();
            self.core.run_blocked();
            self.core.drain_mailbox(|_| {});
            self.core.fanout_turn();
            self.core.catch_up_turn();
            if !self.core.has_work() {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    /// The payloads in what a peer got behind its upgrade.
    fn texts(fake: &Fake) -> Vec<String> {
        let bytes = fake.take();
        let head = bytes.windows(4).position(|four| four == b"\r\n\r\n").map_or(0, |at| at + 4);
        let mut bytes = if bytes.starts_with(b"HTTP/") { &bytes[head..] } else { &bytes[..] };
        let mut texts = Vec::new();
        while !bytes.is_empty() {
            let header = decode_header(bytes, Sender::Server).expect("legal").expect("whole");
            let (frame, rest) = bytes.split_at(header.header_len + header.payload_len as usize);
            texts.push(String::from_utf8_lossy(&frame[header.header_len..]).into_owned());
            bytes = rest;
        }
        texts
    }
}

fn numbers(range: std::ops::RangeInclusive<u64>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[test]
fn whatever_the_kernel_takes_at_a_time_nothing_is_missing_or_twice() {
    for piece in 1..40 {
        let mut world = World::new(1_000);
        world.publish(1..=30);
        let (fake, key) = world.connect("/ws/t?history=25");
        world.settle();
        // More comes while it reads, and it falls behind again.
        let (mut next, mut all) = (31, fake.take());
        fake.has_room(Some(0));
        for round in 0..400 {
            if next <= 90 {
                world.publish(next..=next + 1);
                next += 2;
            }
            fake.has_room(Some(piece));
            world.core.on_event(key, WRITABLE);
            world.settle();
            all.extend(fake.take());
            assert!(round < 399 || next > 90);
        }
        fake.has_room(None);
        world.core.on_event(key, WRITABLE);
        world.settle();
        all.extend(fake.take());
        fake.0.borrow_mut().output = all;
        assert_eq!(World::texts(&fake), numbers(6..=90), "{piece} bytes at a time");
        assert_eq!((world.core.topics.behind(), world.core.topics.replay_bytes()), (0, 0));
        assert_eq!(world.edition.outbox_budget.used(), 0);
        // Each round brings eight bytes.
        assert!(piece > 6 || world.core.counters.fell_behind.value() > 0);
    }
}

#[test]
fn who_does_not_want_its_own_does_not_get_them_late_either() {
    let mut world = World::new(1_000);
    let (fake, key) = world.connect("/ws/t?echo=0");
    world.settle();
    fake.take();
    fake.has_room(Some(0));
    let mut frames = Vec::new();
    for number in 1..=20u64 {
        if number % 3 == 0 {
            push_frame(&mut frames, Opcode::Text, b"own", Some(MASK));
            fake.say(&frames);
            frames.clear();
            world.core.on_event(key, READABLE);
        } else {
            world.publish(number..=number);
        }
        // Several at once, so that one batch has both.
        if number % 4 == 0 {
            world.settle();
        }
    }
    world.settle();
    assert_eq!(world.core.topics.behind(), 1);
    fake.has_room(None);
    world.core.on_event(key, WRITABLE);
    world.settle();
    let others: Vec<String> = numbers(1..=20)
        .into_iter()
        .enumerate()
        .filter(|(at, _)| (at + 1) % 3 != 0)
        .map(|(_, text)| text)
        .collect();
    assert_eq!(World::texts(&fake), others);
}

#[test]
fn who_leaves_or_ends_while_it_is_behind_leaves_nothing_behind() {
    for way in ["close", "abort", "unsubscribe", "again"] {
        let mut world = World::new(1_000);
        world.publish(1..=10);
        let (fake, key) = world.connect("/ws/t?history=10&topic=other");
        fake.has_room(Some(0));
        world.settle();
        assert_eq!(world.core.topics.behind(), 1, "{way}");
        match way {
            "close" => world.core.close(key, CloseReason::Drain, Words::Own),
            "abort" => world.core.abort(key, CloseReason::PeerReset),
            "unsubscribe" => assert!(world.core.leave_topic(key, "t").is_some()),
            _ => {
                assert!(world.core.leave_topic(key, "t").is_some());
                assert!(world.core.leave_topic(key, "t").is_none());
            }
        }
        world.settle();
        assert_eq!((world.core.topics.behind(), world.core.topics.replay_bytes()), (0, 0), "{way}");
        let topic = world.edition.router.find(&TopicName::of("t")).unwrap();
        assert_eq!((topic.subscribers(), topic.local_of(0)), (0, None), "{way}");
        // What it keeps, it keeps.
        assert_eq!(topic.summary().kept_messages, 10);
        world.publish(11..=11);
        fake.has_room(None);
        world.core.on_event(key, WRITABLE);
        world.settle();
        let got = World::texts(&fake);
        assert!(got.iter().all(|text| text.parse::<u64>().is_err()), "{way}: {got:?}");
    }
}

/// The operator forbids what a reader is reading: it is told the hole, and goes on with what is new.
#[test]
fn a_history_that_is_taken_away_is_a_gap() {
    let mut world = World::new(1_000);
    world.publish(1..=10);
    let (fake, key) = world.connect("/ws/t?history=10&envelope=1");
    let topic = world.edition.router.find(&TopicName::of("t")).unwrap();
    world.edition.router.set_rules(crate::topic::TopicRules::default());
    crate::topic::Keeper::new().turn(&world.edition.router, 0);
    assert_eq!((topic.summary().kept_messages, world.edition.router.histories().bytes()), (0, 0));
    world.settle();
    assert_eq!(world.core.topics.behind(), 0);
    world.core.on_event(key, WRITABLE);
    world.publish(11..=11);
    world.settle();
    let got = World::texts(&fake).concat();
    assert!(got.contains("\"gap\":{\"kind\":\"expired\",\"oldest\":11}"), "{got}");
    assert!(got.ends_with("\n11") && !got.contains("\n10"), "{got}");
    assert_eq!(world.core.counters.drops(crate::metrics::DropReason::Expired), 10);
}
