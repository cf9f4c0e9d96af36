//! Random joins, leaves, publishes and turns of one loop against a shadow that knows exactly which
//! message every subscriber must get next. The same model must catch a planted fault.

use super::*;
use crate::topic::{Carried, Draft, MailboxLimits, Operator, RouterLimits, Stamped, Wake};
use crate::wire::frame::{Opcode, Sender, decode_header};

#[path = "form_tests.rs"]
mod forms;
#[path = "pace_tests.rs"]
mod pace;
#[path = "watch_tests.rs"]
mod watch;

const NAMES: [&str; 3] = ["a", "b", "c"];
const SLOTS: usize = 24;
const STEPS: usize = 400;
const SEEDS: u64 = 150;

fn named(text: &str) -> TopicName<'_> {
    TopicName::parse(text).unwrap()
}

/// No orders and no answers here.
#[derive(Debug)]
struct NoMail;

impl Mail for NoMail {
    type Form = Toy;
    type Control = ();
    type Reply = ();
}

/// Forms that need the message's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Toy {
    Raw,
    /// In a frame: topic, offset, payload.
    Named,
    /// A line of a stream.
    Line,
    /// The payload, in a body in gzip.
    Coded,
}

impl Form for Toy {
    const RAW: Self = Self::Raw;

    fn write(self, of: Stamped<'_>, payload: &mut Vec<u8>) -> Carried {
        let Stamped { topic, message, .. } = of;
        match self {
            Self::Raw => unreachable!("publishers make it"),
            Self::Named => {
                payload.extend_from_slice(format!("{} {} ", topic.name(), message.offset()).as_bytes());
                payload.extend_from_slice(message.payload());
                Carried::Frame(Opcode::Text)
            }
            Self::Line => {
                payload.extend_from_slice(format!("{}\n", message.offset()).as_bytes());
                Carried::Stream
            }
            Self::Coded => {
                payload.extend_from_slice(message.payload());
                Carried::Coded
            }
        }
    }
}

type Router = super::Router<NoMail>;
type LocalTopics = super::LocalTopics<NoMail>;

struct NoWake;

impl Wake for NoWake {
    fn wake(&self, loop_index: usize) {
        panic!("loop {loop_index} was woken by itself");
    }
}

struct XorShift(u64);

impl XorShift {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// What the shadow knows of one connection.
#[derive(Clone, Debug)]
struct Shadow {
    generation: u32,
    name: usize,
    local: u32,
    place: Place,
    epoch: u64,
    next_offset: u64,
}

/// Slot, generation and offset of connections.
type Owed = Vec<(usize, u32, u64)>;

struct Model {
    random: XorShift,
    router: Arc<Router>,
    subject: LocalTopics,
    slots: Vec<Option<Shadow>>,
    generations: u32,
    refused: usize,
    deliveries: usize,
    /// Marks, and which offset each connection was to have by then.
    marks: VecDeque<(u64, Owed)>,
    reached_with_work: usize,
    rejoined: usize,
    /// A planted fault: a connection that waits for a join of the topic takes any.
    forget_tickets: bool,
}

type Verdict = Result<(), String>;

fn check(holds: bool, what: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(what()) }
}

impl Model {
    fn new(seed: u64) -> Self {
        // So few that topics retire and mailboxes fill up.
        let mailbox = MailboxLimits { bytes_max: 200 << 10, entries_max: 12 };
        let limits = RouterLimits { topics_max: 3, idle_topics_max: 1, mailbox, ..RouterLimits::default() };
        let router = Arc::new(Router::new(1, limits, Box::new(NoWake)).unwrap());
        let subject = LocalTopics::new(router.clone(), 0).unwrap();
        Self {
            random: XorShift(seed * 2 + 1),
            router,
            subject,
            slots: vec![None; SLOTS],
            generations: 0,
            refused: 0,
            deliveries: 0,
            marks: VecDeque::new(),
            reached_with_work: 0,
            rejoined: 0,
            forget_tickets: false,
        }
    }

    fn run(&mut self) -> Verdict {
        for _ in 0..STEPS {
            match self.random.below(11) {
                0 | 1 => self.join(),
                2 => self.leave(),
                10 => self.rejoin(),
                3..=5 => self.publish()?,
                6 => {
                    // Also of what is in the mailbox still.
                    self.mark();
                    self.subject.drain_mailbox(|_| {});
                }
                _ => self.turn()?,
            }
            self.check_positions()?;
            self.check_marks()?;
        }
        self.finish()?;
        check(self.marks.is_empty(), || "a mark is never reached".into())
    }

    /// Everything is published before this mark: once it is reached, everybody has it.
    fn mark(&mut self) {
        let shadows = self.slots.iter().enumerate();
        let owed = shadows.filter_map(|(slot, shadow)| {
            let shadow = shadow.as_ref()?;
            let topic = self.router.find(&named(NAMES[shadow.name]))?;
            Some((slot, shadow.generation, topic.next_offset()))
        });
        let owed = owed.collect();
        self.marks.push_back((self.subject.mark(), owed));
    }

    fn check_marks(&mut self) -> Verdict {
        let delivered = self.subject.delivered();
        while let Some((mark, owed)) = self.marks.pop_front_if(|(mark, _)| *mark <= delivered) {
            self.reached_with_work += usize::from(self.subject.has_work());
            for (slot, generation, offset) in owed {
                let same = self.slots[slot].as_ref().filter(|shadow| shadow.generation == generation);
                check(same.is_none_or(|shadow| shadow.next_offset >= offset), || {
                    format!("mark {mark} is reached and slot {slot} misses what was before it")
                })?;
            }
        }
        Ok(())
    }

    fn join(&mut self) {
        let slot = self.random.below(SLOTS);
        if self.slots[slot].is_some() {
            return;
        }
        self.generations += 1;
        let name = self.random.below(NAMES.len());
        self.join_slot(slot, name);
    }

    /// The same connection leaves and joins again, while its first join may wait still.
    fn rejoin(&mut self) {
        let slot = self.random.below(SLOTS);
        let Some(Shadow { generation, name, .. }) = self.slots[slot] else { return };
        self.leave_slot(slot);
        self.rejoined += 1;
        let newest = std::mem::replace(&mut self.generations, generation);
        self.join_slot(slot, name);
        self.generations = newest;
    }

    fn join_slot(&mut self, slot: usize, name: usize) {
        let (local, place, joined) =
            self.subject.join(&named(NAMES[name]), slot as u32, Since::Now, &Operator).unwrap();
        self.slots[slot] = Some(Shadow {
            generation: self.generations,
            name,
            local,
            place,
            epoch: joined.epoch,
            next_offset: joined.next_offset,
        });
    }

    fn leave(&mut self) {
        let slot = self.random.below(SLOTS);
        self.leave_slot(slot);
    }

    fn leave_slot(&mut self, slot: usize) {
        let Some(shadow) = self.slots[slot].take() else { return };
        if let Some(moved) = self.subject.leave(shadow.local, slot as u32, shadow.place) {
            self.slots[moved.slot as usize].as_mut().unwrap().place = moved.place;
        }
    }

    fn publish(&mut self) -> Verdict {
        let topic = self.router.topic(&named(NAMES[self.random.below(NAMES.len())])).unwrap();
        let size = if self.random.below(4) == 0 { 30_000 } else { self.random.below(300) };
        let before = topic.next_offset();
        match self.router.publish(&topic, Draft::encode(None, false, &vec![b'm'; size]), Some(0)) {
            Ok(published) => check(published.offset == before, || "an offset was skipped".into()),
            Err(_) => {
                self.refused += 1;
                check(topic.next_offset() == before, || "a refused message took an offset".into())
            }
        }
    }

    /// Several topics share a turn.
    fn turn(&mut self) -> Verdict {
        let mut budget = TurnBudget::new(1 + self.random.below(6) as u32);
        loop {
            let (slots, forget) = (&mut self.slots, self.forget_tickets);
            let listed = |join: Join, place| match &mut slots[join.slot as usize] {
                Some(shadow)
                    if shadow.place == join.ticket
                        || forget && shadow.local == join.local && !shadow.place.is_listed() =>
                {
                    assert_eq!(shadow.local, join.local);
                    shadow.place = place;
                    true
                }
                _ => false,
            };
            let Some(mut turn) = self.subject.begin_turn(&mut budget, listed) else { return Ok(()) };
            let in_time = self.topic_turn(&mut turn, &mut budget)?;
            let slots = &mut self.slots;
            self.subject.end_turn(turn, |local, moved| {
                let shadow = slots[moved.slot as usize].as_mut().unwrap();
                assert_eq!(shadow.local, local);
                shadow.place = moved.place;
            });
            if !in_time {
                return Ok(());
            }
        }
    }

    /// False when the time is over before the budget is.
    fn topic_turn(&mut self, turn: &mut Turn<Toy>, budget: &mut TurnBudget) -> Result<bool, String> {
        while let Some(slot) = self.subject.next_subscriber(turn, budget) {
            self.deliver(slot, turn)?;
            match self.random.below(8) {
                0 => self.leave(),
                1 => self.join(),
                // The receiver itself goes away, as after a failed write.
                2 => self.leave_slot(slot as usize),
                3 => return Ok(self.random.below(2) == 0),
                _ => {}
            }
        }
        Ok(true)
    }

    fn deliver(&mut self, slot: u32, turn: &mut Turn<Toy>) -> Verdict {
        // A connection keeps its form.
        let form = [Toy::Raw, Toy::Named, Toy::Line][slot as usize % 3];
        let choice = self.subject.choose(turn, form, || Encoding::Plain, |_: &[u8], _: &mut Vec<u8>| false);
        let shadow = self.slots[slot as usize].as_mut();
        let shadow = shadow.ok_or_else(|| format!("slot {slot} got a message after it had left"))?;
        check(shadow.local == turn.local(), || format!("slot {slot} got another topic's message"))?;
        let topic = self.subject.topic(turn.local()).ok_or("a topic without an entry")?;
        let mut frames = Vec::new();
        for message in turn.messages_of(choice) {
            check(message.topic_id() == topic.id(), || "a message of another topic".into())?;
            check(message.offset() == shadow.next_offset, || {
                format!("slot {slot} got {} instead of {}", message.offset(), shadow.next_offset)
            })?;
            let named = match form {
                Toy::Raw | Toy::Coded => true,
                Toy::Named => decode_header(message.frame(), Sender::Server).is_ok_and(|header| {
                    let text = format!("{} {} ", topic.name(), shadow.next_offset);
                    header.is_some_and(|header| {
                        message.frame()[header.header_len..].starts_with(text.as_bytes())
                    })
                }),
                Toy::Line => message.frame() == format!("{}\n", shadow.next_offset).as_bytes(),
            };
            check(named, || format!("slot {slot} got another form or place"))?;
            shadow.next_offset += 1;
            frames.extend_from_slice(message.frame());
        }
        self.deliveries += 1;
        check(!frames.is_empty() && turn.batch().frames(choice) == frames, || "frames differ".into())?;
        let raw: usize = turn.batch().messages().iter().map(|message| message.frame().len()).sum();
        let single = turn.batch().messages().len() == 1;
        check(single || raw <= BATCH_BYTES_MAX, || "the batch is too large".into())
    }

    /// Every slot knows where it is listed.
    fn check_positions(&self) -> Verdict {
        for (slot, shadow) in self.slots.iter().enumerate() {
            let Some(shadow) = shadow.as_ref().filter(|shadow| shadow.place.is_listed()) else {
                continue;
            };
            let entry = self.subject.topics.get(shadow.local as usize).ok_or("no topic")?;
            let listed = entry.list.get(shadow.place.0 as usize);
            check(listed == Some(slot as u32), || format!("slot {slot} is listed elsewhere"))?;
        }
        Ok(())
    }

    fn quiesce(&mut self) -> Verdict {
        let mailbox_waits = |router: &Router| !router.mailbox(0).unwrap().is_empty();
        while mailbox_waits(&self.router) || self.subject.has_work() {
            self.subject.drain_mailbox(|_| {});
            self.turn()?;
        }
        check(self.router.mailbox(0).unwrap().reserved() == (0, 0), || "room was not given back".into())
    }

    /// In the end everybody has everything, and nothing is left when everybody has gone.
    fn finish(&mut self) -> Verdict {
        self.quiesce()?;
        self.check_marks()?;
        for (slot, shadow) in self.slots.iter().enumerate() {
            let Some(shadow) = shadow else { continue };
            let topic = self.router.find(&named(NAMES[shadow.name])).ok_or("a topic in use retired")?;
            check(topic.epoch() == shadow.epoch, || "a topic in use was replaced".into())?;
            check(topic.next_offset() == shadow.next_offset, || format!("slot {slot} misses messages"))?;
        }
        (0..SLOTS).for_each(|slot| self.leave_slot(slot));
        self.quiesce()?;
        check(self.subject.is_empty() && self.subject.joins_waiting == 0, || "a topic is left".into())?;
        for topic in NAMES.iter().filter_map(|name| self.router.find(&named(name))) {
            check(topic.subscribers() == 0, || "a subscriber is still counted".into())?;
            check(topic.local_of(0).is_none(), || "the loop is still interested".into())?;
        }
        Ok(())
    }
}

#[test]
fn every_subscriber_gets_exactly_its_messages() {
    let (mut refused, mut deliveries, mut stale, mut reached, mut rejoined) = (0, 0, 0, 0, 0);
    for seed in 0..SEEDS {
        let mut model = Model::new(seed);
        model.run().unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
        refused += model.refused;
        deliveries += model.deliveries;
        stale += model.subject.stale_messages;
        rejoined += model.rejoined;
        reached += model.reached_with_work;
    }
    assert!(reached > 100, "{reached} marks were reached before all work was done");
    // The runs must have been where it is difficult.
    assert!(refused > 100 && stale > 10 && deliveries > 5_000, "{refused} {stale} {deliveries}");
    assert!(rejoined > 1_000, "{rejoined}");
}

#[test]
fn the_model_catches_a_forgotten_ticket() {
    let caught = (0..SEEDS).any(|seed| {
        let mut model = Model::new(seed);
        model.forget_tickets = true;
        model.run().is_err()
    });
    assert!(caught, "the model accepts a connection that is listed at its first join");
}

#[test]
fn who_leaves_and_joins_again_is_listed_at_the_second_join() {
    let (router, mut subject) = loop_with(4);
    let (local, first, _) = subject.join(&named("t"), 3, Since::Now, &Operator).unwrap();
    publish(&router, "t", 1);
    assert_eq!(subject.leave(local, 3, first), None);
    let (local, second, joined) = subject.join(&named("t"), 3, Since::Now, &Operator).unwrap();
    assert_eq!(joined.next_offset, 2);
    publish(&router, "t", 1);
    subject.drain_mailbox(|_| {});
    let mut offsets = Vec::new();
    let mut place = second;
    let mut budget = TurnBudget::new(10);
    let mut listed = |join: Join, at| {
        assert_eq!(join.local, local);
        let own = join.ticket == place;
        if own {
            place = at;
        }
        own
    };
    while let Some(turn) = subject.begin_turn(&mut budget, &mut listed) {
        while subject.next_subscriber(&turn, &mut budget).is_some() {
            offsets.extend(turn.batch().messages().iter().map(Message::offset));
        }
        subject.end_turn(turn, |_, _| {});
    }
    assert_eq!(offsets, [2], "what was published between the two is not the joiner's");
}

#[test]
fn a_ticket_is_no_position_and_never_nothing() {
    for number in [0, 1, u32::MAX >> 1, u32::MAX] {
        let ticket = Place::ticket(number);
        assert!(!ticket.is_listed() && ticket != Place::NONE, "{number}");
    }
    assert!(Place::listed(5).is_listed() && !Place::NONE.is_listed());
}

#[test]
fn newcomers_wait_while_many_joins_do() {
    let limits = RouterLimits { joins_max: 3, ..RouterLimits::default() };
    let router = Arc::new(Router::new(1, limits, Box::new(NoWake)).unwrap());
    let mut subject = LocalTopics::new(router, 0).unwrap();
    for slot in 0..5 {
        assert_eq!(subject.has_room_for_joins(), slot < 3);
        // Never refused: whoever was let in with several topics gets all of them.
        subject.join(&named("t"), slot, Since::Now, &Operator).unwrap();
    }
    subject.drain_mailbox(|_| {});
    assert!(!subject.has_room_for_joins(), "filed is not listed");
    assert!(subject.begin_turn(&mut TurnBudget::new(1), |_, _| true).is_none());
    assert!(subject.has_room_for_joins());
}

#[test]
fn the_model_catches_a_forgotten_tombstone() {
    let caught = (0..SEEDS).any(|seed| {
        let mut model = Model::new(seed);
        model.subject.forget_tombstones = true;
        model.run().is_err()
    });
    assert!(caught, "the model accepts lists that change under a pass");
}

fn loop_with(topics_max: usize) -> (Arc<Router>, LocalTopics) {
    let limits = RouterLimits { topics_max, ..RouterLimits::default() };
    let router = Arc::new(Router::new(1, limits, Box::new(NoWake)).unwrap());
    let subject = LocalTopics::new(router.clone(), 0).unwrap();
    (router, subject)
}

fn publish(router: &Arc<Router>, name: &str, size: usize) {
    let topic = router.topic(&named(name)).unwrap();
    router.publish(&topic, Draft::encode(None, true, &vec![0; size]), Some(0)).unwrap();
}

#[test]
fn topics_take_turns() {
    let (router, mut subject) = loop_with(8);
    for slot in 0..4 {
        subject
            .join(&named(if slot % 2 == 0 { "even" } else { "odd" }), slot, Since::Now, &Operator)
            .unwrap();
    }
    publish(&router, "even", 1);
    publish(&router, "odd", 1);
    subject.drain_mailbox(|_| {});
    let mut order = Vec::new();
    loop {
        let mut budget = TurnBudget::new(1);
        let Some(turn) = subject.begin_turn(&mut budget, |_, _| true) else { break };
        order.extend(subject.next_subscriber(&turn, &mut budget));
        subject.end_turn(turn, |_, _| {});
    }
    assert_eq!(order, [0, 1, 2, 3]);
}

#[test]
fn small_topics_share_a_turn_and_its_budget() {
    let topics = 300;
    let (router, mut subject) = loop_with(topics);
    for slot in 0..topics as u32 {
        subject.join(&named(&format!("own {slot}")), slot, Since::Now, &Operator).unwrap();
        publish(&router, &format!("own {slot}"), 10);
    }
    let mut delivered = Vec::new();
    let mut turns = Vec::new();
    while subject.drain_mailbox(|_| {}) > 0 || subject.has_work() {
        assert!(turns.len() < 10, "{turns:?}");
        let mut budget = TurnBudget::new(TURN_DELIVERIES);
        let before = delivered.len();
        while let Some(turn) = subject.begin_turn(&mut budget, |_, _| true) {
            delivered.extend(std::iter::from_fn(|| subject.next_subscriber(&turn, &mut budget)));
            subject.end_turn(turn, |_, _| {});
        }
        turns.push(delivered.len() - before);
    }
    assert_eq!(turns, [128, 128, 44]);
    assert_eq!(delivered, (0..topics as u32).collect::<Vec<_>>());
}

#[test]
fn a_single_large_message_is_not_copied() {
    let (router, mut subject) = loop_with(8);
    subject.join(&named("t"), 0, Since::Now, &Operator).unwrap();
    publish(&router, "t", 1 << 20);
    publish(&router, "t", 10);
    publish(&router, "t", 20);
    subject.drain_mailbox(|_| {});
    let mut budget = TurnBudget::new(TURN_DELIVERIES);
    let mut turn = subject.begin_turn(&mut budget, |_, _| true).unwrap();
    let choice = subject.choose(&mut turn, Toy::Raw, || Encoding::Plain, |_: &[u8], _: &mut Vec<u8>| false);
    assert_eq!(turn.batch().frames(choice).as_ptr(), turn.batch().messages()[0].frame().as_ptr());
    assert_eq!(subject.next_subscriber(&turn, &mut budget), Some(0));
    subject.end_turn(turn, |_, _| {});
    let mut turn = subject.begin_turn(&mut budget, |_, _| true).unwrap();
    let choice = subject.choose(&mut turn, Toy::Raw, || Encoding::Plain, |_: &[u8], _: &mut Vec<u8>| false);
    assert_eq!((turn.batch().messages().len(), turn.batch().frames(choice).len()), (2, 34));
    subject.end_turn(turn, |_, _| {});
}

#[test]
fn joining_can_be_turned_off() {
    for (bytes_max, passes) in [(usize::MAX, 1), (0, 3)] {
        let (router, mut subject) = loop_with(4);
        subject.set_batch_bytes_max(bytes_max);
        subject.join(&named("a"), 0, Since::Now, &Operator).expect("room");
        (0..3).for_each(|_| publish(&router, "a", 10));
        subject.drain_mailbox(|_| {});
        let mut sizes = Vec::new();
        let mut budget = TurnBudget::new(9);
        while let Some(turn) = subject.begin_turn(&mut budget, |_, _| true) {
            sizes.push(turn.batch().messages().len());
            while subject.next_subscriber(&turn, &mut budget).is_some() {}
            subject.end_turn(turn, |_, _| {});
        }
        assert_eq!((sizes.len(), sizes.iter().sum::<usize>()), (passes, 3), "{bytes_max}: {sizes:?}");
    }
}

#[test]
fn a_storm_of_joins_lets_the_loop_poll() {
    let (_router, mut subject) = loop_with(8);
    for slot in 0..STEPS_PER_TURN + 1 {
        subject.join(&named("t"), slot, Since::Now, &Operator).unwrap();
    }
    subject.drain_mailbox(|_| {});
    let mut listed = 0;
    let mut count = |_, _| {
        listed += 1;
        true
    };
    assert!(subject.begin_turn(&mut TurnBudget::new(TURN_DELIVERIES), &mut count).is_none());
    assert!(subject.has_work());
    assert!(subject.begin_turn(&mut TurnBudget::new(TURN_DELIVERIES), &mut count).is_none());
    assert!(!subject.has_work());
    assert_eq!(listed, STEPS_PER_TURN + 1);
}

#[test]
fn a_full_mailbox_is_filed_over_several_turns_in_order() {
    let entries = ENTRIES_PER_TURN * 2 + 100;
    let (router, mut subject) = loop_with(8);
    subject.join(&named("t"), 0, Since::Now, &Operator).unwrap();
    // The join is an entry too.
    for _ in 1..entries {
        publish(&router, "t", 1);
    }
    let mailbox_waits = || !router.mailbox(0).unwrap().is_empty();
    let mut filed = Vec::new();
    let mut late = 0;
    let mut offsets = Vec::new();
    while mailbox_waits() || subject.has_work() {
        let count = subject.drain_mailbox(|_| {});
        filed.extend((count > 0).then_some(count));
        if filed.len() == 1 && count > 0 {
            // Behind everything that was drained before, however many turns that takes.
            publish(&router, "t", 1);
            assert!(mailbox_waits(), "the flag keeps the loop awake");
            late += 1;
        }
        let mut budget = TurnBudget::new(u32::MAX);
        while let Some(turn) = subject.begin_turn(&mut budget, |_, _| true) {
            while subject.next_subscriber(&turn, &mut budget).is_some() {
                offsets.extend(turn.batch().messages().iter().map(Message::offset));
            }
            subject.end_turn(turn, |_, _| {});
        }
    }
    assert_eq!(filed, [ENTRIES_PER_TURN, ENTRIES_PER_TURN, 100, 1]);
    assert_eq!(late, 1);
    assert_eq!(offsets, (1..=entries as u64).collect::<Vec<_>>());
    assert_eq!(router.mailbox(0).unwrap().reserved(), (0, 0));
}

#[test]
fn memory_comes_back_after_a_peak() {
    let (router, mut subject) = loop_with(100_000);
    let peak = 20_000;
    let mut places = vec![(0, Place::NONE); peak as usize];
    for slot in 0..peak {
        let name = if slot % 2 == 0 { "shared" } else { &format!("own {slot}") };
        let (local, place, _) = subject.join(&named(name), slot, Since::Now, &Operator).unwrap();
        places[slot as usize] = (local, place);
    }
    while subject.drain_mailbox(|_| {}) > 0 || subject.has_work() {
        let turn = subject.begin_turn(&mut TurnBudget::new(1), |join, place| {
            places[join.slot as usize].1 = place;
            true
        });
        assert!(turn.is_none());
    }
    assert_eq!(subject.len(), peak as usize / 2 + 1);
    for slot in 2..peak {
        let (local, place) = places[slot as usize];
        if let Some(moved) = subject.leave(local, slot, place) {
            places[moved.slot as usize].1 = moved.place;
        }
    }
    assert_eq!(subject.len(), 2);
    assert!(subject.topics.capacity() <= 2 * CAPACITY_KEPT, "{}", subject.topics.capacity());
    let shared = &subject.topics[places[0].0 as usize].list;
    assert!(shared.capacity() <= 16, "{}", shared.capacity());
    assert!(subject.active.capacity() <= 2 * CAPACITY_KEPT);
    assert!(subject.drained.capacity() <= 2 * CAPACITY_KEPT);
    assert!(router.topics() <= crate::topic::router::IDLE_TOPICS_MAX + 2);
}

#[test]
fn a_topic_of_a_loop_is_small() {
    assert!(size_of::<LocalTopic>() <= 32, "{}", size_of::<LocalTopic>());
}
