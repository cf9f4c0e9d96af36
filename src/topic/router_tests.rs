//! Routing, refusals and the life of topics, without a loop. Apart from `router.rs`, because the model
//! checker compiles that file with a stand-in for the message.

use std::sync::{Arc, Mutex};

use super::router::*;
use super::{Control, Draft, Entry, Key, LOOPS_MAX, MailboxLimits};
use crate::config::{Publishers, Settings, SlowPolicy, TopicRule, TopicRules};

#[derive(Clone, Default)]
struct Wakes(Arc<Mutex<Vec<usize>>>);

impl Wake for Wakes {
    fn wake(&self, loop_index: usize) {
        self.0.lock().unwrap().push(loop_index);
    }
}

const KEY: Key = Key { slot: 1, generation: 1 };

fn router(loops: usize, limits: RouterLimits) -> (Router, Wakes) {
    let wakes = Wakes::default();
    (Router::new(loops, limits, Box::new(wakes.clone())).unwrap(), wakes)
}

fn draft(size: usize) -> Draft {
    Draft::encode(None, false, &vec![b'x'; size])
}

fn locals_delivered(router: &Router, loop_index: usize) -> Vec<u32> {
    let mut entries = Vec::new();
    router.mailbox(loop_index).unwrap().drain(&mut entries);
    let local = |entry: &Entry| match entry {
        Entry::Deliver { local, .. } => Some(*local),
        _ => None,
    };
    entries.iter().filter_map(local).collect()
}

#[test]
fn only_interested_loops_get_a_message_and_are_woken_once() {
    let (router, wakes) = router(64, RouterLimits::default());
    let topic = router.topic("t").unwrap();
    for (loop_index, local) in [(63, 630), (0, 10), (7, 70)] {
        router.join(&topic, loop_index, local, KEY).unwrap();
        locals_delivered(&router, loop_index);
    }
    for _ in 0..3 {
        router.publish(&topic, draft(1), Some(7)).unwrap();
    }
    assert_eq!(*wakes.0.lock().unwrap(), [0, 63]);
    assert_eq!(locals_delivered(&router, 0), [10; 3]);
    assert_eq!(locals_delivered(&router, 7), [70; 3]);
    assert_eq!(locals_delivered(&router, 63), [630; 3]);
    assert!((1..7).chain(8..63).all(|other| router.mailbox(other).unwrap().is_empty()));
    router.clear_interest(&topic, 7);
    assert_eq!(topic.local_of(63), Some(630));
    router.publish(&topic, draft(1), None).unwrap();
    assert_eq!(locals_delivered(&router, 63), [630]);
}

#[test]
fn a_refused_publish_takes_no_offset_and_no_room() {
    let mailbox = MailboxLimits { bytes_max: 1_000, entries_max: 100 };
    let (router, wakes) = router(3, RouterLimits { mailbox, ..RouterLimits::default() });
    let (everywhere, last_only) = (router.topic("all").unwrap(), router.topic("last").unwrap());
    assert!((0..3).all(|index| router.join(&everywhere, index, 0, KEY).is_ok()));
    router.join(&last_only, 2, 1, KEY).unwrap();
    (0..3).for_each(|index| drop(locals_delivered(&router, index)));
    let first = router.publish(&last_only, draft(900), None).unwrap();
    wakes.0.lock().unwrap().clear();
    let busy = router.publish(&everywhere, draft(200), None).unwrap_err();
    assert_eq!(busy.reason, BusyReason::MailboxFull { loop_index: 2 });
    assert_eq!(everywhere.next_offset(), first.offset);
    assert!((0..2).all(|index| router.mailbox(index).unwrap().reserved() == (0, 0)));
    assert!((0..2).all(|index| router.mailbox(index).unwrap().is_empty()));
    assert!(wakes.0.lock().unwrap().is_empty());
    let (entries, bytes) = router.mailbox(2).unwrap().reserved();
    router.mailbox(2).unwrap().release(entries, bytes);
    let published = router.publish(&everywhere, busy.draft, None).unwrap();
    assert_eq!((published.offset, published.subscribers), (first.offset, 3));
    // A topic that nobody listens to has room always.
    let nobody = router.topic("nobody").unwrap();
    assert_eq!(router.publish(&nobody, draft(5_000), None).unwrap().subscribers, 0);
}

#[test]
fn idle_topics_go_on_until_they_retire() {
    let limits = RouterLimits { idle_topics_max: 2, ..RouterLimits::default() };
    let (router, _) = router(1, limits);
    let old = router.topic("old").unwrap();
    assert_eq!(router.publish(&old, draft(1), None).unwrap().offset, 1);
    assert_eq!(router.publish(&router.topic("old").unwrap(), draft(1), None).unwrap().offset, 2);
    (0..2).for_each(|number| drop(router.topic(&format!("new {number}")).unwrap()));
    assert!(router.find("old").is_none());
    assert_eq!(router.join(&old, 0, 0, KEY), Err(JoinError::Retired));
    // Whoever still holds the retired topic publishes on the one that has its name now.
    let published = router.publish(&old, draft(1), None).unwrap();
    let renewed = router.find("old").unwrap();
    assert_eq!((published.offset, published.epoch), (1, renewed.epoch()));
    assert_ne!((renewed.id(), renewed.epoch()), (old.id(), old.epoch()));
}

#[test]
fn topics_in_use_do_not_retire_and_are_bounded() {
    let limits = RouterLimits { topics_max: 2, idle_topics_max: 1, ..RouterLimits::default() };
    let (router, _) = router(1, limits);
    let used = router.topic("used").unwrap();
    router.join(&used, 0, 0, KEY).unwrap();
    (0..5).for_each(|number| drop(router.topic(&format!("other {number}")).unwrap()));
    assert_eq!((router.topics(), router.find("used").map(|topic| topic.id())), (2, Some(used.id())));
    router.join(&router.find("other 4").unwrap(), 0, 1, KEY).unwrap();
    assert_eq!(router.topic("one more").err(), Some(RouterError::TopicsFull));
    router.leave(&used);
    router.clear_interest(&used, 0);
    assert!(router.topic("one more").is_ok());
    assert!(router.find("used").is_none());
}

#[test]
fn the_number_of_loops_is_bounded() {
    for loops in [0, LOOPS_MAX + 1] {
        let made = Router::new(loops, RouterLimits::default(), Box::new(Wakes::default()));
        assert_eq!(made.err(), Some(RouterError::LoopCount));
    }
    let (router, wakes) = router(2, RouterLimits::default());
    assert!(router.send_control(2, Control::Stop, None).is_err());
    router.send_control(1, Control::Drain, None).unwrap();
    router.send_control(0, Control::Stop, Some(0)).unwrap();
    assert_eq!(*wakes.0.lock().unwrap(), [1]);
    let topic = router.topic("t").unwrap();
    assert_eq!(router.join(&topic, 2, 0, KEY), Err(JoinError::Topic(RouterError::LoopCount)));
    assert_eq!(topic.local_of(64), None);
}

#[test]
fn new_rules_hold_for_topics_old_and_new() {
    let (router, _) = router(1, RouterLimits::default());
    let old = router.topic("prices/eur").unwrap();
    assert_eq!(old.policy(), TopicRules::default().policy_of("prices/eur"));
    let latest = TopicRule {
        pattern: "prices/*".to_owned(),
        policy: Some(SlowPolicy::Latest),
        publish: Some(Publishers::Anyone),
        ..TopicRule::default()
    };
    let settings = Settings { topics: vec![latest], ..Settings::default() };
    router.set_rules(TopicRules::compile(&settings).unwrap());
    for topic in [old, router.topic("prices/usd").unwrap()] {
        assert_eq!((topic.policy().slow, topic.policy().client_publish), (SlowPolicy::Latest, true));
    }
    assert_eq!(router.topic("news").unwrap().policy().slow, SlowPolicy::DropNewest);
    router.set_rules(TopicRules::default());
    assert_eq!(router.find("prices/usd").unwrap().policy().slow, SlowPolicy::DropNewest);
}
