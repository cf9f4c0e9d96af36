//! Whoever applies what is told knows what a list of everybody would show, however people come and go.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::topic::presence::STATE_BYTES;

const GRACE: u64 = 50;

#[derive(Clone, Debug)]
enum Step {
    Join(u8),
    Leave(u8),
    Wait(u8),
    Tell,
    Walk(u8),
    Say(u8, u8),
    SayNothing(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..12_u8).prop_map(Step::Join),
        4 => (0..12_u8).prop_map(Step::Leave),
        3 => (1..80_u8).prop_map(Step::Wait),
        3 => Just(Step::Tell),
        1 => (1..5_u8).prop_map(Step::Walk),
        3 => (0..12_u8, 0..3_u8).prop_map(|(who, what)| Step::Say(who, what)),
        1 => (0..12_u8).prop_map(Step::SayNothing),
    ]
}

/// Connections and the end of the grace of everybody who was ever there.
#[derive(Default)]
struct Naive(BTreeMap<String, (u32, u64)>);

impl Naive {
    fn here(&self, now: u64) -> BTreeSet<String> {
        let here = |(_, (connections, until)): &(&String, &(u32, u64))| *connections > 0 || *until > now;
        self.0.iter().filter(here).map(|(id, _)| id.clone()).collect()
    }
}

/// What somebody knows who has read the list once and every event since.
#[derive(Default)]
struct Observer(BTreeSet<String>, BTreeMap<String, String>);

impl Observer {
    fn apply(&mut self, fold: &Fold) {
        for id in &fold.joined {
            assert!(self.0.insert(id.as_str().to_owned()), "{id:?} joined twice");
        }
        for id in &fold.left {
            assert!(self.0.remove(id.as_str()), "{id:?} left and was not there");
            self.1.remove(id.as_str());
        }
        for (id, state) in &fold.states {
            assert!(self.0.contains(id.as_str()), "{id:?} says something and is not there");
            let before = match state {
                Some(state) => self.1.insert(id.as_str().to_owned(), state.as_str().to_owned()),
                None => self.1.remove(id.as_str()),
            };
            assert_ne!(before.as_deref(), state.as_ref().map(StateText::as_str), "nothing is told twice");
        }
        assert_eq!(fold.count, self.0.len());
    }
}

fn name(number: u8) -> String {
    format!("m{number}")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn events_lead_to_what_is_true(steps in prop::collection::vec(step(), 1..120)) {
        let (mut members, mut naive, mut observer) =
            (Members::default(), Naive::default(), Observer::default());
        let mut now = 1;
        // What everybody says, and until when.
        let mut said = BTreeMap::<String, (String, u64)>::new();
        for step in steps {
            match step {
                Step::Join(number) => {
                    members.join(&MemberId::of(&name(number)));
                    naive.0.entry(name(number)).or_default().0 += 1;
                }
                Step::Leave(number) => {
                    // Whoever leaves has been there.
                    if let Some(entry) = naive.0.get_mut(&name(number)).filter(|entry| entry.0 > 0) {
                        entry.0 -= 1;
                        entry.1 = now + GRACE;
                        members.leave(&MemberId::of(&name(number)), now + GRACE);
                    }
                }
                Step::Wait(time) => {
                    now += u64::from(time);
                    members.expire(now);
                }
                Step::Tell => {
                    members.expire(now);
                    let fold = members.fold();
                    observer.apply(&fold);
                    members.tell(&fold);
                    prop_assert!(!members.has_untold());
                    prop_assert_eq!(&observer.0, &naive.here(now));
                    prop_assert_eq!(members.len(), observer.0.len(), "nobody else is listed");
                    let holds = |(id, (text, _)): (&String, &(String, u64))| (id.clone(), text.clone());
                    let true_now: BTreeMap<_, _> = said.iter().map(holds).collect();
                    prop_assert_eq!(&observer.1, &true_now);
                    prop_assert_eq!(members.states.len(), observer.1.len());
                    let bytes: u64 = observer.1.values().map(|text| STATE_BYTES + text.len() as u64).sum();
                    prop_assert_eq!(members.states.bytes(), bytes);
                }
                Step::Walk(limit) => {
                    let (mut walked, mut after, mut more) = (Vec::new(), None, true);
                    while more {
                        let (page, goes_on) = members.page(after.as_deref(), limit.into());
                        prop_assert!(page.len() <= usize::from(limit));
                        for PresenceMember { id, state } in &page {
                            let told = observer.1.get(id.as_str()).map(String::as_str);
                            prop_assert_eq!(told, state.as_ref().map(StateText::as_str));
                        }
                        walked.extend(page.iter().map(|member| member.id.as_str().to_owned()));
                        (after, more) = (walked.last().cloned(), goes_on);
                    }
                    prop_assert!(walked.iter().eq(observer.0.iter()), "{walked:?} {:?}", observer.0);
                }
                Step::Say(number, what) => {
                    // Who says something has a connection.
                    if naive.0.get(&name(number)).is_some_and(|entry| entry.0 > 0) {
                        let text = format!("{what}{}", "x".repeat(what.into()));
                        members.say(&MemberId::of(&name(number)), Some(StateText::of(&text)), now + 60);
                        said.insert(name(number), (text, now + 60));
                    }
                }
                Step::SayNothing(number) => {
                    members.say(&MemberId::of(&name(number)), None, 0);
                    said.remove(&name(number));
                }
            }
            let here = naive.here(now);
            said.retain(|id, (_, until)| *until > now && here.contains(id));
            prop_assert!(members.states.entries() <= 3 * 12, "one entry each");
            prop_assert!(members.leaving.len() <= 12 && members.untold.len() <= 12, "one entry each");
        }
    }

    #[test]
    fn pages_of_several_versions_and_what_is_told_between_lead_to_the_list(
        churn in prop::collection::vec((0..30_u8, any::<bool>()), 0..120),
        limit in 1..6_usize,
    ) {
        let mut members = Members::default();
        let mut there = BTreeMap::new();
        let (mut known, mut after, mut more) = (BTreeSet::new(), None::<String>, true);
        let mut events: Vec<Fold> = Vec::new();
        for (number, comes) in churn {
            let id = MemberId::of(&name(number));
            let connections: &mut u32 = there.entry(number).or_default();
            if comes || *connections == 0 {
                members.join(&id);
                *connections += 1;
            } else {
                members.leave(&id, 0);
                members.expire(1);
                *connections -= 1;
            }
            if number % 3 == 0 && more {
                let (page, goes_on) = members.page(after.as_deref(), limit);
                known.extend(page.iter().map(|member| member.id.as_str().to_owned()));
                (after, more) = (page.last().map(|member| member.id.as_str().to_owned()).or(after), goes_on);
            }
            let fold = members.fold();
            members.tell(&fold);
            // Behind the first page each change is told.
            if after.is_some() || !more {
                events.push(fold);
            }
        }
        while more {
            let (page, goes_on) = members.page(after.as_deref(), limit);
            known.extend(page.iter().map(|member| member.id.as_str().to_owned()));
            (after, more) = (page.last().map(|member| member.id.as_str().to_owned()).or(after), goes_on);
        }
        for fold in &events {
            known.extend(fold.joined.iter().map(|id| id.as_str().to_owned()));
            known.retain(|known: &String| !fold.left.iter().any(|id| id.as_str() == known));
        }
        let (all, _) = members.page(None, usize::MAX);
        prop_assert!(known.iter().map(String::as_str).eq(all.iter().map(|member| member.id.as_str())));
    }
}

#[test]
fn a_fold_is_bounded_and_the_rest_comes_with_the_next() {
    let mut members = Members::default();
    let people = CHANGES_MAX * 2 + 1;
    (0..people).for_each(|number| members.join(&MemberId::of(&format!("{number:06}"))));
    let mut told = Vec::new();
    while members.has_untold() {
        let fold = members.fold();
        members.tell(&fold);
        told.push((fold.joined.len(), fold.count));
    }
    assert_eq!(told, [(CHANGES_MAX, CHANGES_MAX), (CHANGES_MAX, 2 * CHANGES_MAX), (1, people)]);
    let long = "x".repeat(1_000);
    (0..100).for_each(|number| members.join(&MemberId::of(&format!("{number}{long}"))));
    assert!(members.fold().joined.len() < 70, "{}", members.fold().joined.len());
    let (page, more) = members.page(None, 10);
    assert_eq!((page.len(), page[9].id.as_str(), more), (10, "000009", true));
}

#[test]
fn whoever_has_come_back_in_time_was_never_gone() {
    let mut members = Members::default();
    let id = MemberId::of("alice");
    members.join(&id);
    members.tell(&members.fold());
    members.leave(&id, 100);
    members.expire(99);
    members.join(&id);
    members.expire(100);
    members.leave(&id, 150);
    members.expire(149);
    assert!(!members.has_untold(), "a reload makes no noise");
    members.expire(150);
    let fold = members.fold();
    assert_eq!((fold.left.len(), fold.count), (1, 0));
    // Back before it was told: there is nothing to tell.
    members.join(&id);
    let fold = members.fold();
    assert_eq!((fold.joined.len(), fold.left.len(), fold.count), (0, 0, 1));
    assert_eq!(members.tell(&fold), (0, 0));
    members.leave(&id, 150);
    members.expire(150);
    assert_eq!(members.tell(&members.fold()), (5, 1), "and then no memory is left");
    assert!(members.is_empty());
}

#[test]
fn a_state_ends_with_its_member_who_is_back_before_anybody_is_told() {
    let mut members = Members::default();
    let alice = MemberId::of("alice");
    for told in [false, true] {
        members.join(&alice);
        members.say(&alice, Some(StateText::of("\"typing\"")), 1_000);
        if told {
            let fold = members.fold();
            members.tell(&fold);
        }
        members.leave(&alice, 10);
        members.expire(10);
        members.join(&alice);
        let fold = members.fold();
        let states: Vec<_> = fold.states.iter().map(|(_, state)| state.clone()).collect();
        assert_eq!(states, if told { vec![None] } else { Vec::new() });
        members.tell(&fold);
        assert_eq!((members.states().len(), members.states().bytes()), (0, 0));
        members.leave(&alice, 20);
        members.expire(20);
        let fold = members.fold();
        members.tell(&fold);
    }
}

#[test]
fn nobody_stays_longer_because_of_another_or_of_an_earlier_grace() {
    let mut members = Members::default();
    let [early, late, long] = ["early", "late", "long"].map(MemberId::of);
    for id in [&early, &late, &long] {
        members.join(id);
    }
    members.tell(&members.fold());
    // It was as long as this before a reload.
    members.leave(&long, 3_600_000);
    members.leave(&early, 100);
    members.join(&early);
    members.leave(&early, 150);
    members.leave(&late, 180);
    members.expire(100);
    assert!(!members.has_untold());
    members.expire(150);
    let fold = members.fold();
    assert_eq!(fold.left, [early]);
    members.tell(&fold);
    members.join(&long);
    members.leave(&long, 170);
    members.expire(180);
    assert_eq!(members.fold().left, [long, late]);
    assert_eq!(members.next_end(), None);
}

#[test]
fn a_fold_of_states_is_bounded_and_waits_for_who_is_not_told_yet() {
    let mut members = Members::default();
    let say = |members: &mut Members, number: usize, text: &str| {
        members.say(&MemberId::of(&format!("{number:06}")), Some(StateText::of(text)), 1);
    };
    let people = CHANGES_MAX + 2;
    (0..people).for_each(|number| members.join(&MemberId::of(&format!("{number:06}"))));
    // The last of all speaks first, and is told in the second fold only.
    say(&mut members, people - 1, "1");
    say(&mut members, 0, "2");
    let mut told = Vec::new();
    while members.has_untold() {
        let fold = members.fold();
        members.tell(&fold);
        told.push((fold.joined.len(), fold.states.len()));
    }
    assert_eq!(told, [(CHANGES_MAX, 0), (2, 2)]);
    let long = "3".repeat(1_024);
    (0..200).for_each(|number| say(&mut members, number, &long));
    let mut told = 0;
    while members.has_untold() {
        let fold = members.fold();
        assert!((1..64).contains(&fold.states.len()), "{}", fold.states.len());
        told += fold.states.len();
        members.tell(&fold);
    }
    assert_eq!(told, 200);
    let (page, more) = members.page(None, 1_000);
    assert!(page.len() < 64 && more, "{}", page.len());
    members.expire(1);
    assert_eq!(members.next_end(), None);
    while members.has_untold() {
        members.tell(&members.fold());
    }
    assert_eq!((members.states.len(), members.states.bytes()), (0, 0));
}
