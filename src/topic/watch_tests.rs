//! Random subscriptions by pattern and by name, publishes and turns of one loop against a shadow that knows which
//! messages every connection must get, once, however many of its subscriptions mean them. The same model must catch
//! planted faults.

use std::collections::BTreeMap;

use super::*;
use crate::topic::level_pattern::LevelPattern;
use crate::topic::state::CaughtUp;
use crate::topic::watchers::{Reach, Watch};
use crate::topic::{Position, TopicPolicy, TopicRules};

const NAMES: [&str; 4] = ["x/a", "x/b", "y/b", "y"];
const PATTERNS: [&str; 5] = ["x/*", "*/b", "**", "z/*", "*"];
const SLOTS: usize = 16;
const STEPS: usize = 500;
const SEEDS: u64 = 150;

fn pattern(text: &str) -> LevelPattern {
    LevelPattern::parse(text).unwrap()
}

/// The subscription by name of one connection.
#[derive(Clone, Copy, Debug)]
struct Direct {
    local: u32,
    place: Place,
    since: u64,
}

/// What the shadow knows of one connection.
#[derive(Debug, Default)]
struct Shadow {
    direct: Option<(usize, Direct)>,
    /// By pattern, with the number of publishes before it.
    watches: BTreeMap<usize, (Watch, u64)>,
    /// By name: topic id, offset and number of each message that has to come.
    owed: [VecDeque<(u64, u64, u64)>; NAMES.len()],
    /// Topic id and offset of the last that came.
    last: [(u64, u64); NAMES.len()],
}

impl Shadow {
    /// From which number on the messages of a topic are its own.
    fn wants(&self, name: usize) -> Option<u64> {
        let fits = |at: &usize| pattern(PATTERNS[*at]).fits(NAMES[name]);
        let watches = self.watches.iter().filter(|(at, _)| fits(at)).map(|(_, watch)| watch.1);
        let direct = self.direct.iter().filter(|(of, _)| *of == name).map(|(_, direct)| direct.since);
        watches.chain(direct).min()
    }

    /// A subscription has ended: what only that meant is not owed any more.
    fn forget(&mut self) {
        for name in 0..NAMES.len() {
            let from = self.wants(name).unwrap_or(u64::MAX);
            self.owed[name].retain(|owed| owed.2 >= from);
        }
    }
}

struct Model {
    random: XorShift,
    router: Arc<Router>,
    subject: LocalTopics,
    slots: Vec<Shadow>,
    published: u64,
    deliveries: usize,
    early: usize,
    twice: usize,
}

impl Model {
    fn new(seed: u64) -> Self {
        let mailbox = MailboxLimits { bytes_max: 200 << 10, entries_max: 12 };
        let limits = RouterLimits { topics_max: 3, idle_topics_max: 1, mailbox, ..RouterLimits::default() };
        let router = Arc::new(Router::new(1, limits, Box::new(NoWake)).unwrap());
        let subject = LocalTopics::new(router.clone(), 0).unwrap();
        Self {
            random: XorShift(seed * 2 + 1),
            router,
            subject,
            slots: (0..SLOTS).map(|_| Shadow::default()).collect(),
            published: 0,
            deliveries: 0,
            early: 0,
            twice: 0,
        }
    }

    fn run(&mut self) -> Verdict {
        for _ in 0..STEPS {
            match self.random.below(12) {
                0 => self.change(),
                1 => self.gone(),
                2..=5 => self.publish(),
                6 | 7 => drop(self.subject.drain_mailbox(|_| {})),
                _ => self.turn()?,
            }
        }
        self.quiesce()?;
        for (slot, shadow) in self.slots.iter().enumerate() {
            let owed: usize = shadow.owed.iter().map(VecDeque::len).sum();
            check(owed == 0, || format!("slot {slot} misses {owed} messages"))?;
        }
        (0..SLOTS).for_each(|slot| self.leave_all(slot));
        self.quiesce()?;
        check(self.subject.is_empty() && self.router.patterns() == 0, || "something is left".into())?;
        check(self.subject.read_up.is_empty() && self.subject.watchers.is_empty(), || "or here".into())
    }

    /// One subscription more, or less.
    fn change(&mut self) {
        let slot = self.random.below(SLOTS);
        let at = self.random.below(PATTERNS.len() + 2);
        if at >= PATTERNS.len() {
            return self.change_direct(slot);
        }
        match self.slots[slot].watches.remove(&at) {
            Some((watch, _)) => {
                self.subject.unwatch(watch, slot as u32, false);
                self.slots[slot].forget();
            }
            None => {
                let watch =
                    self.subject.watch(&pattern(PATTERNS[at]), Reach::WHOLE, slot as u32, &Operator).unwrap();
                self.slots[slot].watches.insert(at, (watch, self.published));
            }
        }
    }

    fn change_direct(&mut self, slot: usize) {
        if self.slots[slot].direct.is_some() {
            return self.leave(slot);
        }
        let name = self.random.below(NAMES.len());
        if let Ok((local, place, _)) =
            self.subject.join(&named(NAMES[name]), slot as u32, Since::Now, &Operator)
        {
            self.slots[slot].direct = Some((name, Direct { local, place, since: self.published }));
        }
    }

    fn leave(&mut self, slot: usize) {
        let Some((_, Direct { local, place, .. })) = self.slots[slot].direct.take() else { return };
        if let Some(moved) = self.subject.leave(local, slot as u32, place) {
            self.moved(moved);
        }
        self.slots[slot].forget();
    }

    fn moved(&mut self, moved: Moved) {
        self.slots[moved.slot as usize].direct.as_mut().unwrap().1.place = moved.place;
    }

    fn leave_all(&mut self, slot: usize) {
        self.leave(slot);
        for (watch, _) in std::mem::take(&mut self.slots[slot].watches).into_values() {
            self.subject.unwatch(watch, slot as u32, false);
        }
    }

    /// A connection is gone, and another has its slot.
    fn gone(&mut self) {
        let slot = self.random.below(SLOTS);
        self.leave_all(slot);
        self.slots[slot] = Shadow::default();
    }

    fn publish(&mut self) {
        let name = self.random.below(NAMES.len());
        let Ok(topic) = self.router.topic(&named(NAMES[name])) else { return };
        let size = if self.random.below(4) == 0 { 30_000 } else { self.random.below(300) };
        if let Ok(published) =
            self.router.publish(&topic, Draft::encode(None, false, &vec![b'm'; size]), Some(0))
        {
            for shadow in self.slots.iter_mut().filter(|shadow| shadow.wants(name).is_some()) {
                shadow.owed[name].push_back((topic.id(), published.offset, self.published));
            }
            self.published += 1;
        }
    }

    fn turn(&mut self) -> Verdict {
        let mut budget = TurnBudget::new(1 + self.random.below(6) as u32);
        loop {
            let slots = &mut self.slots;
            let listed = |join: Join, place| match &mut slots[join.slot as usize].direct {
                Some((_, direct)) if direct.place == join.ticket => {
                    direct.place = place;
                    true
                }
                _ => false,
            };
            let Some(turn) = self.subject.begin_turn(&mut budget, listed) else { return Ok(()) };
            let in_time = self.topic_turn(&turn, &mut budget)?;
            let mut all = Vec::new();
            self.subject.end_turn(turn, |_, moved| all.push(moved));
            all.into_iter().for_each(|change| self.moved(change));
            if !in_time {
                return Ok(());
            }
        }
    }

    fn topic_turn(&mut self, turn: &Turn<Toy>, budget: &mut TurnBudget) -> Result<bool, String> {
        while let Some(slot) = self.subject.next_subscriber(turn, budget) {
            self.deliver(slot as usize, turn)?;
            if !self.meanwhile() {
                return Ok(false);
            }
        }
        while let Some(slot) = self.subject.next_watcher(turn, budget) {
            let shadow = &self.slots[slot as usize];
            let watches: Vec<Watch> = shadow.watches.values().map(|watch| watch.0).collect();
            let direct = shadow.direct.filter(|(_, direct)| direct.local == turn.local());
            let place = direct.map(|(_, direct)| direct.place);
            if self.subject.means(turn, slot, &watches, place) {
                self.twice += usize::from(watches.len() > 1);
                self.deliver(slot as usize, turn)?;
            }
            if !self.meanwhile() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// What others do between two deliveries. `false`: the time is over.
    fn meanwhile(&mut self) -> bool {
        match self.random.below(10) {
            0..=2 => self.change(),
            3 => self.gone(),
            4 => return false,
            _ => {}
        }
        true
    }

    fn deliver(&mut self, slot: usize, turn: &Turn<Toy>) -> Verdict {
        let topic = self.subject.topic(turn.local()).ok_or("a topic without an entry")?;
        let name = NAMES.iter().position(|name| *name == topic.name()).ok_or("a strange name")?;
        let shadow = &mut self.slots[slot];
        check(shadow.wants(name).is_some(), || {
            format!("slot {slot} has no subscription to {}", topic.name())
        })?;
        for message in turn.batch().messages() {
            let at = (message.topic_id(), message.offset());
            check(shadow.last[name] < at, || {
                format!("slot {slot} got {at:?} behind {:?}", shadow.last[name])
            })?;
            shadow.last[name] = at;
            match shadow.owed[name].front().map(|owed| (owed.0, owed.1)) {
                Some(owed) if owed == at => drop(shadow.owed[name].pop_front()),
                Some(owed) if owed < at => return Err(format!("slot {slot} got {at:?} instead of {owed:?}")),
                // Published a moment before the subscription by pattern.
                _ => self.early += 1,
            }
            self.deliveries += 1;
        }
        Ok(())
    }

    fn quiesce(&mut self) -> Verdict {
        while !self.router.mailbox(0).unwrap().is_empty() || self.subject.has_work() {
            self.subject.drain_mailbox(|_| {});
            self.turn()?;
        }
        check(self.router.mailbox(0).unwrap().reserved() == (0, 0), || "room was not given back".into())
    }
}

#[test]
fn every_connection_gets_a_message_once_however_many_subscriptions_mean_it() {
    let (mut deliveries, mut early, mut twice) = (0, 0, 0);
    for seed in 0..SEEDS {
        let mut model = Model::new(seed);
        model.run().unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
        deliveries += model.deliveries;
        early += model.early;
        twice += model.twice;
    }
    // The runs must have been where it is difficult.
    assert!(deliveries > 20_000 && early > 100 && twice > 1_000, "{deliveries} {early} {twice}");
}

#[test]
fn the_model_catches_a_topic_that_is_given_up_while_a_message_is_on_its_way() {
    let caught = (0..SEEDS).any(|seed| {
        let mut model = Model::new(seed);
        model.subject.forget_mail = true;
        model.run().is_err()
    });
    assert!(caught, "the model accepts messages that get lost");
}

#[test]
fn the_model_catches_who_was_served_and_is_forgotten() {
    let caught = (0..SEEDS).any(|seed| {
        let mut model = Model::new(seed);
        model.subject.forget_served = true;
        model.run().is_err()
    });
    assert!(caught, "the model accepts messages that come twice");
}

/// What a loop delivers of all that waits: slot, topic and offset. Who has the subscription `own` to a topic itself waits to be
/// listed for it; others have left, and decline.
fn deliver_all(
    router: &Router,
    subject: &mut LocalTopics,
    watches: &[Watch],
    own: Option<(u32, Place)>,
) -> Vec<(u32, String, u64)> {
    let mut met = Vec::new();
    let mut own = own;
    while !router.mailbox(0).unwrap().is_empty() || subject.has_work() {
        subject.drain_mailbox(|_| {});
        let mut budget = TurnBudget::new(3);
        loop {
            let listed = |join: Join, place| {
                let is_own = own == Some((join.slot, join.ticket));
                own = if is_own { Some((join.slot, place)) } else { own };
                is_own
            };
            let Some(turn) = subject.begin_turn(&mut budget, listed) else { break };
            while let Some(slot) = subject.next_subscriber(&turn, &mut budget) {
                met.extend(told(subject, &turn, slot));
            }
            while let Some(slot) = subject.next_watcher(&turn, &mut budget) {
                let place = own.filter(|own| own.0 == slot).map(|own| own.1);
                if subject.means(&turn, slot, watches, place) {
                    met.extend(told(subject, &turn, slot));
                }
            }
            subject.end_turn(turn, |_, _| {});
        }
    }
    met
}

/// Slot, topic and offset of each message of a turn.
fn told(subject: &LocalTopics, turn: &Turn<Toy>, slot: u32) -> Vec<(u32, String, u64)> {
    let name = subject.topic(turn.local()).unwrap().name();
    turn.batch().messages().iter().map(|message| (slot, name.to_owned(), message.offset())).collect()
}

/// Three messages that were read, or are told as missing, of a topic's own subscription wait for delivery as it ends: they
/// are not to come by the pattern, and what is published behind the end is.
#[test]
fn who_leaves_a_topic_gets_nothing_by_its_pattern_that_the_topic_has_told() {
    for read_up in [false, true] {
        let (router, mut subject) = loop_with(8);
        let mut policy = TopicPolicy::default();
        policy.history.messages = 100;
        router.set_rules(TopicRules::new(Vec::new(), Vec::new(), policy));
        let watch = subject.watch(&pattern("x/*"), Reach::WHOLE, 7, &Operator).unwrap();
        let epoch = router.topic(&named("x/a")).unwrap().epoch();
        (0..3).for_each(|_| publish(&router, "x/a", 1));
        let since = Since::After(Position { epoch, offset: 0 });
        let (local, ticket, joined) = subject.join(&named("x/a"), 7, since, &Operator).unwrap();
        assert!(joined.behind);
        if read_up {
            let mut next = 1;
            while let Some(CaughtUp::Read { next: behind }) = subject.catch_up(local, 7, ticket, next) {
                assert!(next < 4, "there is no more");
                next = behind.max(4);
            }
            subject.leave(local, 7, ticket);
        } else {
            subject.leave_behind(local, 7, ticket);
        }
        publish(&router, "x/a", 1);
        let met = deliver_all(&router, &mut subject, &[watch], None);
        assert_eq!(met, [(7, "x/a".to_owned(), 4)], "read up: {read_up}");
        assert!(subject.is_empty(), "nothing is remembered of who has left");
        publish(&router, "x/a", 1);
        assert_eq!(deliver_all(&router, &mut subject, &[watch], None).len(), 1);
    }
}

/// A message that a subscription of a topic's own has read waits for delivery when the first pattern comes: it is not to
/// come once more by the pattern, whether the subscription goes on or ends before.
#[test]
fn what_was_read_before_the_first_pattern_does_not_come_by_it_once_more() {
    for (read_up, stays) in [(true, true), (true, false), (false, false)] {
        let (router, mut subject) = loop_with(8);
        let mut policy = TopicPolicy::default();
        policy.history.messages = 100;
        router.set_rules(TopicRules::new(Vec::new(), Vec::new(), policy));
        publish(&router, "x/a", 1);
        let epoch = router.topic(&named("x/a")).unwrap().epoch();
        let since = Since::After(Position { epoch, offset: 0 });
        let (local, ticket, joined) = subject.join(&named("x/a"), 7, since, &Operator).unwrap();
        assert!(joined.behind);
        publish(&router, "x/a", 1);
        if read_up {
            let mut next = 1;
            while let Some(CaughtUp::Read { next: behind }) = subject.catch_up(local, 7, ticket, next) {
                assert!(next < 3, "there is no more");
                next = behind.max(3);
            }
        }
        match (read_up, stays) {
            (_, true) => {}
            (true, false) => drop(subject.leave(local, 7, ticket)),
            (false, false) => subject.leave_behind(local, 7, ticket),
        }
        let watch = subject.watch(&pattern("x/*"), Reach::WHOLE, 7, &Operator).unwrap();
        publish(&router, "x/a", 1);
        let met = deliver_all(&router, &mut subject, &[watch], stays.then_some((7, ticket)));
        assert_eq!(met, [(7, "x/a".to_owned(), 3)], "read up: {read_up}, stays: {stays}");
        assert!(subject.read_up.is_empty() && subject.left.is_empty(), "nothing is remembered of it");
        assert_eq!(subject.is_empty(), !stays);
    }
}

#[test]
fn a_loop_with_nothing_but_patterns_gets_what_they_mean_and_keeps_no_topic() {
    let (router, mut subject) = loop_with(100_000);
    publish(&router, "prices/eur", 1);
    let watch = subject.watch(&pattern("prices/*"), Reach::WHOLE, 7, &Operator).unwrap();
    for name in ["prices/eur", "prices/usd", "other", "prices/eur/spot", "prices/eur"] {
        publish(&router, name, 1);
    }
    let met = deliver_all(&router, &mut subject, &[watch], None);
    let of = |name: &str, offset| (7, name.to_owned(), offset);
    assert_eq!(met, [of("prices/eur", 2), of("prices/eur", 3), of("prices/usd", 1)]);
    assert!(subject.is_empty(), "nothing is kept of topics that are at rest");
    // As without any subscriber: the oldest of too many idle topics go.
    for number in 0..3_000 {
        publish(&router, &format!("prices/{number}"), 1);
        assert_eq!(deliver_all(&router, &mut subject, &[watch], None).len(), 1);
    }
    assert_eq!(router.topics(), crate::topic::router::IDLE_TOPICS_MAX);
    subject.unwatch(watch, 7, false);
    publish(&router, "prices/eur", 1);
    assert!(router.mailbox(0).unwrap().is_empty(), "who is gone is sent nothing");
}

#[test]
fn a_pattern_is_subscribed_to_without_a_look_at_the_topics_that_exist() {
    let (router, mut subject) = loop_with(200_000);
    let topics: Vec<Topic> =
        (0..1_000).map(|number| router.topic(&named(&format!("t/{number}"))).unwrap()).collect();
    let watch = subject.watch(&pattern("**"), Reach::WHOLE, 3, &Operator).unwrap();
    assert!(subject.is_empty() && !subject.has_work() && router.mailbox(0).unwrap().is_empty());
    let draft = || Draft::encode(None, true, b"m");
    for topic in &topics {
        router.publish(topic, draft(), Some(0)).unwrap();
    }
    assert_eq!(deliver_all(&router, &mut subject, &[watch], None).len(), 1_000);
}
