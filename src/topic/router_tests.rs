//! Routing, refusals and the life of topics, without a loop. Apart from `router.rs`, because the model
//! checker compiles that file with a stand-in for the message.

use std::sync::{Arc, Mutex};

use super::router::*;
use super::rules::Rule;
use super::{Access, Since, SlowPolicy, TopicName, TopicPattern, TopicPolicy, TopicRules};
use super::{
    Carried, Draft, Entry, Form, Join, Keeper, LOOPS_MAX, Mail, MailboxLimits, Place, Stamped, Tap, Topic,
};

#[derive(Clone, Default)]
struct Wakes(Arc<Mutex<Vec<usize>>>);

impl Wake for Wakes {
    fn wake(&self, loop_index: usize) {
        self.0.lock().unwrap().push(loop_index);
    }
}

fn name(text: &str) -> TopicName<'_> {
    TopicName::parse(text).unwrap()
}

fn join(local: u32) -> Join {
    Join { local, slot: 1, ticket: Place::NONE }
}

/// What publishers make, and nothing else.
#[derive(Clone, Copy, Debug, PartialEq)]
struct OnlyRaw;

impl Form for OnlyRaw {
    const RAW: Self = Self;

    fn write(self, _: Stamped<'_>, _: &mut Vec<u8>) -> Carried {
        Carried::Stream
    }
}

/// Orders and answers are numbers here.
#[derive(Debug)]
struct Numbers;

impl Mail for Numbers {
    type Form = OnlyRaw;
    type Control = u8;
    type Reply = u8;
}

fn router(loops: usize, limits: RouterLimits) -> (Router<Numbers>, Wakes) {
    let wakes = Wakes::default();
    (Router::new(loops, limits, Box::new(wakes.clone())).unwrap(), wakes)
}

/// Writes down what it hears.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<String>>>);

impl Tap for Heard {
    fn on_occupied(&self, topic: &Topic) {
        self.0.lock().unwrap().push(format!("+{}", topic.name()));
    }

    fn on_vacated(&self, topic: &Topic) {
        self.0.lock().unwrap().push(format!("-{}", topic.name()));
    }
}

#[test]
fn a_tap_hears_of_first_and_last_subscribers_and_not_of_topics_that_tell_who_is_there() {
    let (router, _) = router(2, RouterLimits::default());
    let heard = Heard::default();
    let topic = router.topic(&name("a")).unwrap();
    let come = |topic: &Topic, loop_index| router.join(topic, loop_index, join(0), Since::Now).unwrap();
    come(&topic, 0);
    assert!(router.set_tap(Box::new(heard.clone())).is_ok());
    come(&topic, 1);
    router.leave(&topic);
    router.leave(&topic);
    assert_eq!(*heard.0.lock().unwrap(), ["-a"]);
    come(&topic, 1);
    come(&topic, 1);
    let events = router.topic(&TopicName::of_presence("a")).unwrap();
    come(&events, 0);
    router.leave(&events);
    router.leave(&topic);
    router.leave(&topic);
    assert_eq!(*heard.0.lock().unwrap(), ["-a", "+a", "-a"]);
    assert!(router.set_tap(Box::new(Heard::default())).is_err(), "there is one");
}

fn draft(size: usize) -> Draft {
    Draft::encode(None, false, &vec![b'x'; size])
}

fn locals_delivered(router: &Router<Numbers>, loop_index: usize) -> Vec<u32> {
    let mut entries = Vec::new();
    router.mailbox(loop_index).unwrap().drain(&mut entries);
    let local = |entry: &Entry<Numbers>| match entry {
        Entry::Deliver { local, .. } => Some(*local),
        _ => None,
    };
    entries.iter().filter_map(local).collect()
}

#[test]
fn only_interested_loops_get_a_message_and_are_woken_once() {
    let (router, wakes) = router(64, RouterLimits::default());
    let topic = router.topic(&name("t")).unwrap();
    for (loop_index, local) in [(63, 630), (0, 10), (7, 70)] {
        router.join(&topic, loop_index, join(local), Since::Now).unwrap();
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
    let (everywhere, last_only) = (router.topic(&name("all")).unwrap(), router.topic(&name("last")).unwrap());
    assert!((0..3).all(|index| router.join(&everywhere, index, join(0), Since::Now).is_some()));
    router.join(&last_only, 2, join(1), Since::Now).unwrap();
    (0..3).for_each(|index| drop(locals_delivered(&router, index)));
    let first = router.publish(&last_only, draft(900), None).unwrap();
    wakes.0.lock().unwrap().clear();
    let busy = router.publish(&everywhere, draft(200), None).unwrap_err();
    assert_eq!(everywhere.next_offset(), first.offset);
    assert!((0..2).all(|index| router.mailbox(index).unwrap().reserved() == (0, 0)));
    assert!((0..2).all(|index| router.mailbox(index).unwrap().is_empty()));
    assert!(wakes.0.lock().unwrap().is_empty());
    let (entries, bytes) = router.mailbox(2).unwrap().reserved();
    router.mailbox(2).unwrap().release(entries, bytes);
    let published = router.publish(&everywhere, busy.draft, None).unwrap();
    assert_eq!((published.offset, published.subscribers), (first.offset, 3));
    // A topic that nobody listens to has room always.
    let nobody = router.topic(&name("nobody")).unwrap();
    assert_eq!(router.publish(&nobody, draft(5_000), None).unwrap().subscribers, 0);
}

#[test]
fn idle_topics_go_on_until_they_retire() {
    let limits = RouterLimits { idle_topics_max: 2, ..RouterLimits::default() };
    let (router, _) = router(1, limits);
    let old = router.topic(&name("old")).unwrap();
    assert_eq!(router.publish(&old, draft(1), None).unwrap().offset, 1);
    assert_eq!(router.publish(&router.topic(&name("old")).unwrap(), draft(1), None).unwrap().offset, 2);
    (0..2).for_each(|number| drop(router.topic(&name(&format!("new {number}"))).unwrap()));
    assert!(router.find(&name("old")).is_none());
    assert_eq!(router.join(&old, 0, join(0), Since::Now), None);
    // Whoever still holds the retired topic publishes on the one that has its name now.
    let published = router.publish(&old, draft(1), None).unwrap();
    let renewed = router.find(&name("old")).unwrap();
    assert_eq!((published.offset, published.epoch), (1, renewed.epoch()));
    assert_ne!((renewed.id(), renewed.epoch()), (old.id(), old.epoch()));
}

#[test]
fn topics_in_use_do_not_retire_and_are_bounded() {
    let limits = RouterLimits { topics_max: 2, idle_topics_max: 1, ..RouterLimits::default() };
    let (router, _) = router(1, limits);
    let used = router.topic(&name("used")).unwrap();
    router.join(&used, 0, join(0), Since::Now).unwrap();
    (0..5).for_each(|number| drop(router.topic(&name(&format!("other {number}"))).unwrap()));
    assert_eq!((router.topics(), router.find(&name("used")).map(|topic| topic.id())), (2, Some(used.id())));
    router.join(&router.find(&name("other 4")).unwrap(), 0, join(1), Since::Now).unwrap();
    assert_eq!(router.topic(&name("one more")).err(), Some(RouterError::TopicsFull));
    router.leave(&used);
    router.clear_interest(&used, 0);
    assert!(router.topic(&name("one more")).is_ok());
    assert!(router.find(&name("used")).is_none());
}

struct Client {
    handle: u32,
    topics_max: usize,
    in_time: bool,
}

impl Maker for Client {
    fn handle(&self) -> u32 {
        self.handle
    }

    fn topics_max(&self) -> usize {
        self.topics_max
    }

    fn may_make(&self) -> bool {
        self.in_time
    }
}

#[test]
fn one_client_does_not_make_all_topics() {
    let limits = RouterLimits { topics_max: 6, idle_topics_max: 6, ..RouterLimits::default() };
    let (router, _) = router(1, limits);
    let of = |handle| Client { handle, topics_max: 3, in_time: true };
    let used =
        |made: Result<Topic, RouterError>| router.join(&made.unwrap(), 0, join(0), Since::Now).unwrap();
    for number in 0..3 {
        used(router.topic_for(&name(&format!("one {number}")), &of(1)));
    }
    assert_eq!(router.topic_for(&name("one more"), &of(1)).err(), Some(RouterError::ShareFull));
    // Topics that are there already cost nothing, whoever made them.
    used(router.topic_for(&name("one 0"), &of(1)));
    for number in 0..2 {
        used(router.topic_for(&name(&format!("two {number}")), &of(2)));
    }
    let hasty = Client { in_time: false, ..of(3) };
    assert_eq!(router.topic_for(&name("three"), &hasty).err(), Some(RouterError::TooFast));
    used(router.topic(&name("the operator's")));
    assert_eq!(router.topic_for(&name("two 2"), &of(2)).err(), Some(RouterError::TopicsFull));
    // One that retires is counted no more.
    let first = router.find(&name("one 1")).unwrap();
    router.leave(&first);
    router.clear_interest(&first, 0);
    used(router.topic_for(&name("two 2"), &of(2)));
    assert!(router.find(&name("one 1")).is_none());
    let second = router.find(&name("two 0")).unwrap();
    router.leave(&second);
    router.clear_interest(&second, 0);
    used(router.topic_for(&name("one more"), &of(1)));
    assert_eq!(router.topic_for(&name("and more"), &of(1)).err(), Some(RouterError::ShareFull));
}

#[test]
fn the_number_of_loops_is_bounded() {
    for loops in [0, LOOPS_MAX + 1] {
        let made = Router::<Numbers>::new(loops, RouterLimits::default(), Box::new(Wakes::default()));
        assert_eq!(made.err(), Some(RouterError::LoopCount));
    }
    let (router, wakes) = router(2, RouterLimits::default());
    assert!(router.send_control(2, 7, None).is_err());
    router.send_control(1, 7, None).unwrap();
    router.send_control(0, 7, Some(0)).unwrap();
    assert_eq!(*wakes.0.lock().unwrap(), [1]);
    let topic = router.topic(&name("t")).unwrap();
    assert_eq!(router.join(&topic, 2, join(0), Since::Now), None);
    assert_eq!(topic.local_of(64), None);
}

fn rule(pattern: &str, slow: SlowPolicy, open: bool) -> Rule {
    Rule {
        publish: Some(if open { Access::Anyone } else { Access::Nobody }),
        slow: Some(slow),
        ..Rule::of(TopicPattern::compile(pattern).unwrap())
    }
}

#[test]
fn new_rules_hold_for_topics_old_and_new() {
    let (router, _) = router(1, RouterLimits::default());
    let old = router.topic(&name("prices/eur")).unwrap();
    let first = router.rules();
    assert_eq!(old.policy(&first), TopicRules::default().policy_of("prices/eur"));
    assert!(router.rules_if_new(&first).is_none());
    let latest = vec![rule("prices/*", SlowPolicy::Latest, true)];
    router.set_rules(TopicRules::new(latest, Vec::new(), TopicPolicy::default()));
    let second = router.rules_if_new(&first).expect("they are others");
    for topic in [old.clone(), router.topic(&name("prices/usd")).unwrap()] {
        let policy = topic.policy(&second);
        assert_eq!((policy.slow, policy.publish), (SlowPolicy::Latest, Access::Anyone));
    }
    assert_eq!(router.topic(&name("news")).unwrap().policy(&second).slow, SlowPolicy::DropNewest);
    router.set_rules(TopicRules::default());
    assert_eq!(old.policy(&router.rules()).slow, SlowPolicy::DropNewest);
}

/// A reload must not hold up whoever joins or publishes, whatever there is.
#[test]
fn new_rules_are_in_force_without_a_look_at_any_topic() {
    let (topics, rules) = (50_000, 1_000);
    let limits = RouterLimits { idle_topics_max: topics, ..RouterLimits::default() };
    let (router, _) = router(1, limits);
    for number in 0..topics {
        router.topic(&name(&format!("topic {number}"))).unwrap();
    }
    let replaced = |slow| {
        let rules = (1..rules).map(|number| rule(&format!("other-{number}-*"), slow, false));
        let rules = rules.chain([rule("topic *", slow, true)]).collect();
        let rules = TopicRules::new(rules, Vec::new(), TopicPolicy::default());
        let started = std::time::Instant::now();
        router.set_rules(rules);
        started.elapsed()
    };
    // The quickest of some: whoever else runs on this machine may take the processor away.
    let took = (0..5).flat_map(|_| SlowPolicy::ALL).map(replaced).min().unwrap();
    assert!(took < std::time::Duration::from_millis(5), "{took:?}");
    let rules = router.rules();
    let policy = router.find(&name("topic 7")).unwrap().policy(&rules);
    assert_eq!((policy.slow, policy.publish), (SlowPolicy::CatchUp, Access::Anyone));
}

/// A router whose topics all keep messages for ever, of this many at most.
fn keeping(topics_max: usize) -> Router<Numbers> {
    let (router, _) = router(1, RouterLimits { topics_max, ..RouterLimits::default() });
    let mut policy = TopicPolicy::default();
    policy.history.messages = 10;
    policy.history.seconds = 0;
    router.set_rules(TopicRules::new(Vec::new(), Vec::new(), policy));
    router
}

#[test]
fn what_all_keep_together_is_never_more_than_the_bound() {
    const BYTES_MAX: u64 = 2_000;
    let router = keeping(64);
    router.histories().set_bytes_max(BYTES_MAX);
    let mut keeper = Keeper::new();
    keeper.turn(&router, 1_000);
    std::thread::scope(|scope| {
        for publisher in 0..4 {
            let router = &router;
            scope.spawn(move || {
                for number in 0..500 {
                    let topic = router.topic(&name(&format!("{publisher} {}", number % 5))).unwrap();
                    // Lengths that fill no bound to the byte.
                    router.publish(&topic, draft(number * 7 % 61), None).unwrap();
                    let bytes = router.histories().bytes();
                    assert!(bytes <= BYTES_MAX, "{bytes}");
                }
            });
        }
    });
    let kept = |router: &Router<Numbers>| -> u64 {
        let topics = router.topics_from("", None, 100);
        topics.iter().map(|topic| topic.summary().kept_bytes).sum()
    };
    assert_eq!(kept(&router), router.histories().bytes());
    assert!(kept(&router) > BYTES_MAX / 2, "{}", kept(&router));
    // Nobody has room for more until the keeper has made some.
    keeper.turn(&router, 2_000);
    assert!(kept(&router) <= BYTES_MAX / 16 * 15);
    assert_eq!(kept(&router), router.histories().bytes());
    let newcomer = router.topic(&name("new")).unwrap();
    router.publish(&newcomer, draft(3), None).unwrap();
    assert_eq!(newcomer.summary().kept_messages, 1);
    // What is larger than all of them may be goes to nobody's cost.
    let before = kept(&router);
    router.publish(&newcomer, draft(5_000), None).unwrap();
    assert_eq!(newcomer.summary().kept_messages, 0);
    assert!(kept(&router) < before);
    assert_eq!(kept(&router), router.histories().bytes());
}

#[test]
fn topics_that_kept_something_or_might_have_retire_as_others_do() {
    let limits = RouterLimits { idle_topics_max: 4, ..RouterLimits::default() };
    let (router, _) = router(1, limits);
    let mut policy = TopicPolicy::default();
    policy.history.messages = 10;
    router.set_rules(TopicRules::new(Vec::new(), Vec::new(), policy));
    for number in 0..20 {
        router.topic(&name(&format!("looked at {number}"))).unwrap();
        let used = router.topic(&name(&format!("used {number}"))).unwrap();
        router.join(&used, 0, join(number), Since::Now).unwrap();
        router.publish(&used, draft(3), None).unwrap();
        router.leave(&used);
        router.clear_interest(&used, 0);
    }
    assert!((20..=24).contains(&router.topics()), "{}", router.topics());
    Keeper::new().turn(&router, u64::MAX);
    assert_eq!((router.topics(), router.histories().messages()), (4, 0));
}

#[test]
fn topics_that_are_only_there_for_what_they_keep_give_way() {
    let router = keeping(64);
    let mut keeper = Keeper::new();
    for number in 0..64 {
        let topic = router.topic(&name(&format!("t{number}"))).unwrap();
        router.publish(&topic, draft(3), None).unwrap();
        if number % 2 == 0 {
            router.join(&topic, 0, join(number), Since::Now).unwrap();
        }
    }
    assert_eq!(keeper.turn(&router, 1_000), None, "nothing of it is ever too old");
    assert_eq!(router.histories().messages(), 64);
    assert_eq!(router.topic(&name("one more")).err(), Some(RouterError::TopicsFull));
    keeper.turn(&router, 2_000);
    assert_eq!((router.histories().messages(), router.histories().trimmed()), (62, 2), "a sixteenth of 32");
    let subscribed = |number: usize| router.find(&name(&format!("t{number}"))).unwrap();
    assert!((0..64).step_by(2).all(|number| subscribed(number).summary().kept_messages == 1));
    for number in 0..2 {
        router.topic(&name(&format!("new {number}"))).unwrap();
    }
    // Whoever knocks again and again does not make it look again and again.
    assert!(router.topic(&name("yet another")).is_ok(), "those that nobody wants make room for each other");
    for number in 0..2 {
        let topic = router.topic(&name(&format!("new {number}"))).unwrap();
        router.publish(&topic, draft(3), None).unwrap();
    }
    assert_eq!(router.topic(&name("a third")).err(), Some(RouterError::TopicsFull));
    assert_eq!(keeper.turn(&router, 2_500), Some(3_000));
    assert_eq!(router.topic(&name("a third")).err(), Some(RouterError::TopicsFull));
    assert_eq!(keeper.turn(&router, 3_000), None);
    assert!(router.topic(&name("a third")).is_ok());
}

#[test]
fn those_that_one_address_has_made_give_way_to_its_own() {
    let router = keeping(64);
    let mut keeper = Keeper::new();
    let of = |handle| Client { handle, topics_max: 20, in_time: true };
    for (handle, count) in [(1, 20), (2, 10)] {
        for number in 0..count {
            let topic = router.topic_for(&name(&format!("{handle} {number}")), &of(handle)).unwrap();
            router.publish(&topic, draft(3), None).unwrap();
        }
    }
    keeper.turn(&router, 1_000);
    assert_eq!(router.topic_for(&name("one more"), &of(1)).err(), Some(RouterError::ShareFull));
    keeper.turn(&router, 2_000);
    assert_eq!(router.histories().trimmed(), 2);
    assert!(router.topic_for(&name("one more"), &of(1)).is_ok());
    let of_two = (0..10).map(|number| router.find(&name(&format!("2 {number}"))).unwrap());
    assert!(of_two.map(|topic| topic.summary().kept_messages).all(|kept| kept == 1));
}
