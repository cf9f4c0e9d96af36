//! Topics whose rule has an interval: at most one update in each, the newest, the last one always, and nothing twice.

use super::*;
use crate::topic::rules::Rule;
use crate::topic::{TopicPattern, TopicRules};

const SLOTS: usize = 12;
const SEEDS: u64 = 200;

fn rules(interval_ms: u32) -> TopicRules {
    let rule = Rule::of(TopicPattern::compile("paced*").unwrap());
    TopicRules::new(
        vec![Rule { interval_ms: Some(interval_ms), ..rule }],
        Vec::new(),
        crate::topic::TopicPolicy::default(),
    )
}

fn paced(interval_ms: u32) -> (Arc<Router>, LocalTopics) {
    let (router, mut subject) = loop_with(8);
    router.set_rules(rules(interval_ms));
    subject.set_now(100);
    (router, subject)
}

/// What every slot gets of all that may go now.
fn delivered(subject: &mut LocalTopics) -> Vec<(u32, u64)> {
    let mut met = Vec::new();
    subject.drain_mailbox(|_| {});
    while subject.has_work() {
        let mut budget = TurnBudget::new(2);
        while let Some(turn) = subject.begin_turn(&mut budget, |_, _| true) {
            while let Some(slot) = subject.next_subscriber(&turn, &mut budget) {
                met.extend(turn.batch().messages().iter().map(|message| (slot, message.offset())));
            }
            subject.end_turn(turn, |_, _| {});
        }
    }
    met
}

#[test]
fn the_first_goes_at_once_and_the_newest_when_its_time_has_come() {
    let (router, mut subject) = paced(250);
    subject.join(&named("paced"), 1, Since::Now, &Operator).unwrap();
    publish(&router, "paced", 10);
    assert_eq!(delivered(&mut subject), [(1, 1)]);
    assert_eq!(subject.next_due(), None, "nothing waits, and nobody is woken");
    for _ in 2..=50 {
        publish(&router, "paced", 10);
        assert_eq!(delivered(&mut subject), []);
        let (entries, bytes) = router.mailbox(0).unwrap().reserved();
        assert_eq!((entries, bytes), (1, 12), "what was replaced gives its room back at once");
    }
    assert_eq!((subject.next_due(), subject.has_work(), subject.replaced()), (Some(103), false, 48));
    subject.set_now(102);
    assert_eq!(delivered(&mut subject), []);
    subject.set_now(103);
    assert_eq!(delivered(&mut subject), [(1, 50)]);
    assert_eq!((subject.next_due(), router.mailbox(0).unwrap().reserved()), (None, (0, 0)));
    // Others are not held up, and have no time of their own.
    subject.join(&named("other"), 2, Since::Now, &Operator).unwrap();
    (0..3).for_each(|_| publish(&router, "other", 1));
    assert_eq!(delivered(&mut subject), [(2, 1), (2, 2), (2, 3)]);
    // After quiet the next goes at once again, and of several that come together the newest.
    subject.set_now(200);
    (0..3).for_each(|_| publish(&router, "paced", 1));
    assert_eq!(delivered(&mut subject), [(1, 53)]);
}

#[test]
fn who_joins_while_a_message_waits_gets_what_comes_behind_its_join() {
    let (router, mut subject) = paced(1_000);
    subject.join(&named("paced"), 1, Since::Now, &Operator).unwrap();
    (0..2).for_each(|_| {
        publish(&router, "paced", 1);
        delivered(&mut subject);
    });
    let (_, _, joined) = subject.join(&named("paced"), 2, Since::Now, &Operator).unwrap();
    assert_eq!((joined.next_offset, delivered(&mut subject)), (3, vec![]));
    assert!(subject.has_room_for_joins());
    subject.set_now(110);
    assert_eq!(delivered(&mut subject), [(1, 2)], "not the joiner's");
    publish(&router, "paced", 1);
    delivered(&mut subject);
    subject.join(&named("paced"), 3, Since::Now, &Operator).unwrap();
    delivered(&mut subject);
    publish(&router, "paced", 1);
    assert_eq!(delivered(&mut subject), []);
    subject.set_now(120);
    assert_eq!(delivered(&mut subject), [(1, 4), (2, 4), (3, 4)], "a newer one is everybody's");
}

#[test]
fn another_rule_and_a_drain_look_at_what_waits() {
    let (router, mut subject) = paced(60_000);
    subject.join(&named("paced"), 1, Since::Now, &Operator).unwrap();
    let next = || {
        publish(&router, "paced", 1);
    };
    next();
    assert_eq!(delivered(&mut subject), [(1, 1)]);
    next();
    assert_eq!((delivered(&mut subject), subject.next_due()), (vec![], Some(700)));
    router.set_rules(rules(200));
    assert_eq!((delivered(&mut subject), subject.next_due()), (vec![], Some(102)), "the new interval");
    router.set_rules(rules(0));
    assert_eq!((delivered(&mut subject), subject.next_due()), (vec![(1, 2)], None), "none any more");
    router.set_rules(rules(60_000));
    next();
    assert_eq!(delivered(&mut subject), []);
    subject.flush();
    assert_eq!(delivered(&mut subject), [(1, 3)]);
    next();
    assert_eq!(delivered(&mut subject), [(1, 4)], "nothing waits any more");
}

#[test]
fn nobody_is_left_behind_when_all_go_while_a_message_waits() {
    let (router, mut subject) = paced(500);
    let (local, _, _) = subject.join(&named("paced"), 1, Since::Now, &Operator).unwrap();
    (0..2).for_each(|_| {
        publish(&router, "paced", 1);
        delivered(&mut subject);
    });
    assert_eq!(subject.leave(local, 1, Place::listed(0)), None);
    assert!(!subject.is_empty());
    subject.set_now(105);
    assert_eq!(delivered(&mut subject), []);
    assert!(subject.is_empty() && subject.next_due().is_none());
    assert_eq!(router.mailbox(0).unwrap().reserved(), (0, 0));
}

/// What the shadow knows of one connection: the loop's index, its place, and the next offset that may come.
#[derive(Clone, Copy, Debug)]
struct Paced {
    local: u32,
    place: Place,
    from: u64,
}

struct PaceModel {
    random: XorShift,
    router: Arc<Router>,
    subject: LocalTopics,
    slots: Vec<Option<Paced>>,
    now: u32,
    /// The offset that was delivered last, and when that began.
    last: Option<(u64, u32)>,
    newest: u64,
    passes: usize,
}

impl PaceModel {
    const INTERVAL_TICKS: u32 = 3;

    fn run(seed: u64) -> Result<usize, String> {
        let (router, subject) = paced(Self::INTERVAL_TICKS * 100);
        let mut model = Self {
            random: XorShift(seed * 2 + 1),
            router,
            subject,
            slots: vec![None; SLOTS],
            now: 100,
            last: None,
            newest: 0,
            passes: 0,
        };
        for _ in 0..300 {
            match model.random.below(8) {
                0 | 1 => model.change(),
                2 | 3 => {
                    publish(&model.router, "paced", 1);
                    model.newest += 1;
                }
                4 => {
                    model.now += 1;
                    model.subject.set_now(model.now);
                }
                5 => drop(model.subject.drain_mailbox(|_| {})),
                _ => model.turn()?,
            }
        }
        while !model.router.mailbox(0).unwrap().is_empty()
            || model.subject.has_work()
            || model.subject.next_due().is_some()
        {
            model.now += 1;
            model.subject.set_now(model.now);
            model.subject.drain_mailbox(|_| {});
            model.turn()?;
        }
        for (slot, paced) in model.slots.iter().enumerate() {
            check(paced.is_none_or(|paced| paced.from == model.newest + 1), || {
                format!("slot {slot} has not got the last one: {paced:?}, {}", model.newest)
            })?;
        }
        check(model.router.mailbox(0).unwrap().reserved() == (0, 0), || "room was not given back".into())?;
        Ok(model.passes)
    }

    fn change(&mut self) {
        let slot = self.random.below(SLOTS);
        match self.slots[slot].take() {
            Some(Paced { local, place, .. }) => {
                if let Some(moved) = self.subject.leave(local, slot as u32, place) {
                    self.slots[moved.slot as usize].as_mut().unwrap().place = moved.place;
                }
            }
            None => {
                let joined = self.subject.join(&named("paced"), slot as u32, Since::Now, &Operator);
                let (local, place, joined) = joined.unwrap();
                self.slots[slot] = Some(Paced { local, place, from: joined.next_offset });
            }
        }
    }

    fn turn(&mut self) -> Verdict {
        let mut budget = TurnBudget::new(1 + self.random.below(5) as u32);
        loop {
            let slots = &mut self.slots;
            let listed = |join: Join, place| match &mut slots[join.slot as usize] {
                Some(paced) if paced.place == join.ticket => {
                    paced.place = place;
                    true
                }
                _ => false,
            };
            let Some(turn) = self.subject.begin_turn(&mut budget, listed) else { return Ok(()) };
            let offset = turn.batch().messages()[0].offset();
            check(turn.batch().messages().len() == 1, || "several updates at once".into())?;
            while let Some(slot) = self.subject.next_subscriber(&turn, &mut budget) {
                let paced = self.slots[slot as usize].as_mut();
                let paced = paced.ok_or_else(|| format!("slot {slot} got a message after it had left"))?;
                check(offset >= paced.from, || format!("slot {slot} got {offset}, not from {}", paced.from))?;
                paced.from = offset + 1;
                if self.random.below(6) == 0 {
                    self.change();
                }
            }
            let slots = &mut self.slots;
            self.subject.end_turn(turn, |_, moved| {
                slots[moved.slot as usize].as_mut().unwrap().place = moved.place;
            });
            if self.last.is_none_or(|last| last.0 != offset) {
                let began = self.last.replace((offset, self.now));
                let early = began.filter(|began| self.now < began.1 + Self::INTERVAL_TICKS);
                check(early.is_none(), || format!("{offset} at {} behind {early:?}", self.now))?;
                self.passes += 1;
            }
        }
    }
}

#[test]
fn whatever_happens_the_newest_comes_and_nothing_twice() {
    let mut passes = 0;
    for seed in 0..SEEDS {
        passes += PaceModel::run(seed).unwrap_or_else(|fault| panic!("seed {seed}: {fault}"));
    }
    assert!(passes > 1_000, "{passes}");
}
