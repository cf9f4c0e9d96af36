//! Lists beside a router: versions, events and what they are bounded by.

use serde_json::{Value, json};

use super::*;
use crate::topic::rules::{Rule, TopicPolicy, TopicRules};
use crate::topic::{
    Carried, Form, Join, LocalTopics, PageFrom, Place, RouterLimits, Since, Stamped, TopicPattern, Wake,
};
use crate::wire::frame::Opcode;

const GRACE: u64 = 1_000;
const INTERVAL: u64 = 500;

#[derive(Clone, Copy, Debug, PartialEq)]
struct Raw;

impl Form for Raw {
    const RAW: Self = Self;

    fn write(self, _: Stamped<'_>, _: &mut Vec<u8>) -> Carried {
        Carried::Frame(Opcode::Text)
    }
}

#[derive(Debug)]
struct Mails;

impl Mail for Mails {
    type Form = Raw;
    type Control = ();
    type Reply = ();
}

struct Nobody;

impl Wake for Nobody {
    fn wake(&self, _: usize) {}
}

const POLICY: PresencePolicy = PresencePolicy {
    mode: PresenceMode::Full,
    grace_ms: GRACE as u32,
    interval_ms: INTERVAL as u32,
    state_ms: 10_000,
};

fn pair(limits: PresenceLimits) -> (Presences, Router<Mails>) {
    let router = Router::new(1, RouterLimits::default(), Box::new(Nobody)).unwrap();
    rule(&router, PresenceMode::Full);
    (Presences::new(limits), router)
}

fn rule(router: &Router<Mails>, mode: PresenceMode) {
    let mut rule = Rule::of(TopicPattern::compile("*").unwrap());
    rule.presence = Some(mode);
    router.set_rules(TopicRules::new(vec![rule], Vec::new(), TopicPolicy::default()));
}

fn presences() -> (Presences, Router<Mails>) {
    pair(PresenceLimits { members_max: 1_000, bytes_max: 1 << 20 })
}

fn page(presences: &Presences, router: &Router<Mails>, after: Option<&str>, limit: usize) -> PresencePage {
    presences.page("t", POLICY, (after, limit), None, |events| router.topic(events)).unwrap()
}

fn members(page: &PresencePage) -> &[PresenceMember] {
    page.members.as_deref().map_or(&[], PresenceMembers::as_slice)
}

fn has_more(page: &PresencePage) -> bool {
    page.members.as_ref().is_some_and(|members| members.has_more())
}

fn ids(page: &PresencePage) -> Vec<&str> {
    members(page).iter().map(|member| member.id.as_str()).collect()
}

/// What is kept of the events of "t".
fn events(router: &Router<Mails>) -> Vec<Value> {
    let Some(topic) = router.find(&TopicName::of_presence("t")) else { return Vec::new() };
    let page = topic.page(PageFrom::Since(Since::Last(u32::MAX)), 1_000, 1 << 20);
    page.messages.iter().map(|message| serde_json::from_slice(message.payload()).unwrap()).collect()
}

#[test]
fn versions_are_the_places_of_events() {
    let (presences, router) = presences();
    let alice = presences.join("t", POLICY, "alice", 0).unwrap();
    assert_eq!(presences.turn(&router, 0, 0), None, "the first change is told at once");
    assert_eq!(events(&router), Vec::<Value>::new(), "and to nobody, as nobody asks");
    let first = page(&presences, &router, None, 10);
    assert_eq!((ids(&first), first.count, first.version.offset), (vec!["alice"], 1, 0));
    let bob = presences.join("t", POLICY, "bob \"b\"", 10).unwrap();
    let tab = presences.join("t", POLICY, "alice", 20).unwrap();
    assert_eq!(presences.turn(&router, 20, 0), Some(INTERVAL), "the next ones when they may be");
    assert_eq!(ids(&page(&presences, &router, None, 10)), ["alice"], "a page has what was told");
    assert_eq!(presences.turn(&router, INTERVAL, 0), None);
    assert_eq!(events(&router), [json!({"count": 2, "joined": ["bob \"b\""]})]);
    let second = page(&presences, &router, None, 1);
    assert_eq!((ids(&second), has_more(&second), second.count), (vec!["alice"], true, 2));
    assert_eq!((second.version.epoch, second.version.offset), (first.version.epoch, 1));
    assert_eq!(ids(&page(&presences, &router, Some("alice"), 1)), ["bob \"b\""]);
    presences.leave(alice, 1_000);
    presences.leave(bob, 1_000);
    assert_eq!(presences.turn(&router, 1_999, 0), Some(2_000), "a leave is held for the grace");
    assert_eq!(presences.turn(&router, 2_000, 0), None);
    assert_eq!(events(&router)[1..], [json!({"count": 1, "left": ["bob \"b\""]})]);
    presences.leave(tab, 3_000);
    assert_eq!(presences.turn(&router, 4_000, 0), None);
    assert_eq!(events(&router)[2..], [json!({"count": 0, "left": ["alice"]})]);
    assert_eq!((lock(&presences.lists).len(), lock(&presences.schedule).len()), (0, 0));
    assert_eq!(presences.counts(), PresenceCounts { events: 3, ..PresenceCounts::default() });
    let last = page(&presences, &router, None, 10);
    assert_eq!((ids(&last), last.version.offset), (vec![], 3), "the version outlives the list");
    assert_eq!(lock(&presences.lists).len(), 0, "to look leaves nothing behind");
}

#[test]
fn counts_name_nobody() {
    let (presences, router) = presences();
    rule(&router, PresenceMode::Counts);
    let policy = PresencePolicy { mode: PresenceMode::Counts, ..POLICY };
    let look = || presences.page("t", policy, (None, 10), None, |events| router.topic(events)).unwrap();
    assert_eq!((look().count, look().members.is_none()), (0, true));
    let _alice = presences.join("t", policy, "alice", 0).unwrap();
    presences.turn(&router, 0, 0);
    assert_eq!((look().count, look().members.is_none()), (1, true));
    assert_eq!(events(&router), [json!({"count": 1})]);
}

#[test]
fn a_rule_that_names_nobody_any_more_holds_for_who_is_there() {
    let (presences, router) = presences();
    let seat = presences.join("t", POLICY, "alice", 0).unwrap();
    presences.turn(&router, 0, 0);
    page(&presences, &router, None, 10);
    for (at, mode) in [(10_000, PresenceMode::Counts), (20_000, PresenceMode::Off)] {
        let bob = presences.join("t", POLICY, "bob", at).unwrap();
        rule(&router, mode);
        presences.turn(&router, at, 0);
        presences.leave(bob, at);
        presences.turn(&router, at + GRACE, 0);
    }
    let counted = [2, 1, 2, 1].map(|count| json!({ "count": count }));
    assert_eq!(events(&router), counted);
    presences.leave(seat, 30_000);
}

/// The seat of a connection on "t", kept by a loop.
fn seated(presences: &Presences, seats: &mut Seats, slot: u32, id: &str, now_ms: u64) {
    seats.keep(0, slot, presences.join("t", POLICY, id, now_ms).unwrap());
}

fn says<'a>(state: impl Into<Option<&'a str>>) -> Saying<'a> {
    Saying { state: state.into(), seconds: None }
}

#[test]
fn the_last_state_of_a_member_is_told_and_ends() {
    let (presences, router) = presences();
    let mut seats = Seats::default();
    seated(&presences, &mut seats, 1, "alice", 0);
    seated(&presences, &mut seats, 2, "alice", 0);
    presences.turn(&router, 0, 0);
    page(&presences, &router, None, 10);
    let mut say = |slot, said, now_ms| seats.say(&presences, (0, slot), POLICY, said, now_ms);
    say(1, says("\"reads\""), 1_000).unwrap();
    say(2, says("{\"types\":true}"), 1_001).unwrap();
    assert_eq!(presences.turn(&router, 1_001, 0), Some(11_001), "and then when it ends");
    assert_eq!(events(&router), [json!({"count": 1, "states": [{"id": "alice", "state": {"types": true}}]})]);
    let listed = page(&presences, &router, None, 10);
    assert_eq!(members(&listed)[0].state.as_ref().map(StateText::as_str), Some("{\"types\":true}"));
    // The same again lasts longer and tells nothing; another that ends before it is told is none.
    say(1, says("{\"types\":true}"), 2_000).unwrap();
    say(1, says("1"), 2_100).unwrap();
    say(2, Saying { state: Some("{\"types\":true}"), seconds: Some(3) }, 2_200).unwrap();
    assert_eq!(presences.turn(&router, 2_200, 0), Some(5_200));
    assert_eq!(presences.turn(&router, 5_200, 0), None, "sooner than the rule says");
    let ended = json!({"count": 1, "states": [{"id": "alice", "state": null}]});
    assert_eq!(events(&router)[1..], *std::slice::from_ref(&ended));
    assert_eq!(presences.counts().bytes, MEMBER_BYTES + 5);
    // Cleared, and gone with the member.
    say(1, says("2"), 6_000).unwrap();
    presences.turn(&router, 6_000, 0);
    say(1, says(None), 6_100).unwrap();
    say(1, says(None), 6_200).unwrap();
    presences.turn(&router, 6_500, 0);
    assert_eq!(events(&router)[3..], [ended]);
    say(1, says("3"), 7_000).unwrap();
    presences.turn(&router, 7_000, 0);
    assert_eq!(
        (presences.counts().states, presences.counts().bytes),
        (1, MEMBER_BYTES + 5 + STATE_BYTES + 1)
    );
    presences.leave(seats.take(0, 1).unwrap(), 7_100);
    presences.leave(seats.take(0, 2).unwrap(), 7_100);
    presences.turn(&router, 7_100 + GRACE, 0);
    assert_eq!(events(&router)[5..], [json!({"count": 0, "left": ["alice"]})]);
    assert_eq!(presences.counts(), PresenceCounts { events: 6, ..PresenceCounts::default() });
}

#[test]
fn a_state_is_refused_where_there_is_none_no_room_or_no_end() {
    let bytes_max = MEMBER_BYTES + 1 + STATE_BYTES + 4;
    let (presences, router) = pair(PresenceLimits { members_max: 9, bytes_max });
    let mut seats = Seats::default();
    seated(&presences, &mut seats, 1, "a", 0);
    presences.turn(&router, 0, 0);
    let mut say = |slot, policy, text, now_ms| seats.say(&presences, (0, slot), policy, says(text), now_ms);
    let counts = PresencePolicy { mode: PresenceMode::Counts, ..POLICY };
    let none = PresencePolicy { state_ms: 0, ..POLICY };
    assert_eq!(say(2, POLICY, "1", 0), Err(StateDenial::NotListed));
    assert_eq!(say(1, counts, "1", 0), Err(StateDenial::NoStates));
    assert_eq!(say(1, none, "1", 0), Err(StateDenial::NoStates));
    assert_eq!(say(1, POLICY, "12345", 0), Err(StateDenial::NoRoom));
    assert_eq!(say(1, POLICY, "12", 0), Ok(()));
    presences.turn(&router, INTERVAL, 0);
    // What was told counts until something else is.
    assert_eq!(say(1, POLICY, "345", INTERVAL), Err(StateDenial::NoRoom));
    assert_eq!(say(1, POLICY, "34", INTERVAL), Ok(()));
    let told = (0..10).map(|_| say(1, POLICY, "34", 1_000)).collect::<Vec<_>>();
    assert_eq!(told, [Ok(()); 10]);
    assert_eq!(say(1, POLICY, "34", 1_999), Err(StateDenial::TooFast));
    assert_eq!(say(1, POLICY, "34", 2_000), Ok(()));
    assert_eq!((presences.counts().bytes, presences.counts().states_refused), (bytes_max, 3));
    presences.turn(&router, 3_000, 0);
    presences.turn(&router, 20_000, 0);
    assert_eq!((presences.counts().bytes, presences.counts().states), (MEMBER_BYTES + 1, 0));
}

#[test]
fn a_rule_that_names_nobody_any_more_tells_no_states() {
    let (presences, router) = presences();
    let mut seats = Seats::default();
    seated(&presences, &mut seats, 1, "alice", 0);
    presences.turn(&router, 0, 0);
    page(&presences, &router, None, 10);
    seats.say(&presences, (0, 1), POLICY, says("1"), 1_000).unwrap();
    rule(&router, PresenceMode::Counts);
    presences.turn(&router, 1_000, 0);
    assert_eq!(events(&router), Vec::<Value>::new());
    let bob = presences.join("t", POLICY, "bob", 2_000).unwrap();
    presences.turn(&router, 2_000, 0);
    assert_eq!(events(&router), [json!({"count": 2})]);
    presences.leave(bob, 2_000);
}

#[test]
fn who_finds_no_room_is_counted_and_takes_none() {
    let bytes_max = MEMBER_BYTES * 3 + 6;
    let (presences, router) = pair(PresenceLimits { members_max: 2, bytes_max });
    let one = presences.join("t", POLICY, "a", 0).unwrap();
    let two = presences.join("t", POLICY, "b", 0).unwrap();
    assert!(presences.join("t", POLICY, "c", 0).is_none(), "members of the topic");
    let again = presences.join("t", POLICY, "a", 0).unwrap();
    assert!(presences.join("u", POLICY, "long id", 0).is_none(), "bytes");
    let third = presences.join("u", POLICY, "d", 0).unwrap();
    let counts = presences.counts();
    assert_eq!((counts.members, counts.bytes, counts.unlisted), (3, MEMBER_BYTES * 3 + 3, 2));
    [one, two, again, third].into_iter().for_each(|seat| presences.leave(seat, 0));
    presences.turn(&router, GRACE + INTERVAL, 0);
    let counts = presences.counts();
    assert_eq!((counts.members, counts.bytes, lock(&presences.lists).len()), (0, 0, 0));
    presences.set_limits(PresenceLimits { members_max: 1, bytes_max });
    let _one = presences.join("t", POLICY, "a", 0).unwrap();
    assert!(presences.join("t", POLICY, "b", 0).is_none());
}

#[test]
fn a_page_is_read_and_written_once_for_all_who_ask_until_the_list_is_another() {
    let (presences, router) = presences();
    let seats: Vec<_> =
        (100..200).map(|number| presences.join("t", POLICY, &number.to_string(), 0).unwrap()).collect();
    presences.turn(&router, 0, 0);
    let ask = |after, now_ms| {
        let page =
            presences.page("t", POLICY, (after, 40), Some(now_ms), |events| router.topic(events)).unwrap();
        page.members.unwrap()
    };
    let (first, second) = (ask(None, 10), ask(Some("139"), 10));
    let written = |of: &PresenceMembers| of.as_slice().len().to_string().into_bytes();
    assert_eq!(first.written(written), b"40");
    for at in 0..1_000 {
        assert!(
            Arc::ptr_eq(&first, &ask(None, 10 + at % 900)) && Arc::ptr_eq(&second, &ask(Some("139"), 10))
        );
        assert_eq!(ask(None, 10).written(|_| unreachable!("it is written")), b"40");
    }
    // Who asks without a time finds it and leaves nothing.
    let operator = presences.page("t", POLICY, (None, 40), None, |events| router.topic(events)).unwrap();
    assert!(Arc::ptr_eq(&first, operator.members.as_ref().unwrap()));
    // It is another list.
    let late = presences.join("t", POLICY, "000", 600).unwrap();
    presences.turn(&router, 600, 0);
    let third = ask(None, 700);
    assert_eq!((third.as_slice()[0].id.as_str(), first.as_slice()[0].id.as_str()), ("000", "100"));
    // And nobody asks for a while: nothing of it stays.
    assert_eq!(presences.turn(&router, 1_699, 0), Some(1_700));
    assert_eq!((Arc::strong_count(&third), presences.turn(&router, 1_700, 0)), (2, None));
    assert_eq!(Arc::strong_count(&third), 1);
    // However many different ones are asked for, few are kept.
    let ids: Vec<String> = (100..190).map(|number| number.to_string()).collect();
    let pages: Vec<_> = ids.iter().map(|id| ask(Some(id), 2_000)).collect();
    assert_eq!(pages.iter().filter(|page| Arc::strong_count(page) > 1).count(), 8);
    seats.into_iter().chain([late]).for_each(|seat| presences.leave(seat, 2_000));
    presences.turn(&router, 2_000 + GRACE, 0);
    assert!(pages.iter().all(|page| Arc::strong_count(page) == 1) && lock(&presences.lists).is_empty());
}

#[test]
fn where_an_event_finds_no_room_it_is_told_later_and_nothing_is_lost() {
    let mut limits = RouterLimits::default();
    limits.mailbox.entries_max = 1;
    let router = std::sync::Arc::new(Router::<Mails>::new(1, limits, Box::new(Nobody)).unwrap());
    let (presences, _) = presences();
    let topics = LocalTopics::new(router.clone(), 0).unwrap();
    // A reader of the events whose loop does not come to its mailbox.
    let joined = presences.page("t", POLICY, (None, 0), None, |events| {
        let topic = router.topic(events)?;
        let join = Join { local: 0, slot: 0, ticket: Place::NONE };
        router.join(&topic, 0, join, Since::Now).expect("a loop of the router");
        Ok::<_, crate::topic::RouterError>(topic)
    });
    assert_eq!(joined.unwrap().version.offset, 0);
    let _alice = presences.join("t", POLICY, "alice", 0).unwrap();
    assert_eq!(presences.turn(&router, 0, 0), None);
    let _bob = presences.join("t", POLICY, "bob", 1).unwrap();
    assert_eq!(presences.turn(&router, INTERVAL, 0), Some(2 * INTERVAL), "again when the next one may be");
    assert_eq!(ids(&page(&presences, &router, None, 9)), ["alice"], "a page never runs ahead of its version");
    router.mailbox(0).unwrap().drain(&mut Vec::new());
    let (entries, bytes) = router.mailbox(0).unwrap().reserved();
    router.mailbox(0).unwrap().release(entries, bytes);
    assert_eq!(presences.turn(&router, 2 * INTERVAL, 0), None);
    let last = page(&presences, &router, None, 9);
    assert_eq!((ids(&last), last.version.offset), (vec!["alice", "bob"], 2));
    drop(topics);
}

#[test]
fn a_join_wakes_the_thread_only_where_it_is_due_earlier() {
    let (presences, router) = presences();
    let woken = std::sync::Arc::new(AtomicU64::new(0));
    let counter = woken.clone();
    presences.set_waker(Box::new(move || {
        counter.fetch_add(1, Ordering::Relaxed);
    }));
    let seats: Vec<_> =
        (0..100).map(|number| presences.join("t", POLICY, &number.to_string(), 0).unwrap()).collect();
    assert_eq!(woken.load(Ordering::Relaxed), 1);
    assert_eq!(presences.turn(&router, 0, 0), None);
    seats.into_iter().for_each(|seat| presences.leave(seat, 5));
    assert_eq!(woken.load(Ordering::Relaxed), 2, "once for all who leave");
    let _one = presences.join("t", POLICY, "new", 6).unwrap();
    assert_eq!(woken.load(Ordering::Relaxed), 3, "it is told before they leave");
}

#[test]
fn nobody_else_has_an_anonymous_id() {
    let (one, _) = presences();
    let (other, _) = presences();
    let mut seen = std::collections::BTreeSet::new();
    for (slot, generation, loop_index) in (0..3_000).map(|at| (at % 10, at / 10, at as usize % 3)) {
        let id = one.anonymous(loop_index, Key { slot, generation });
        assert!(id.starts_with('~') && id.len() == 17, "{id}");
        assert_eq!(id, one.anonymous(loop_index, Key { slot, generation }));
        assert_ne!(id, other.anonymous(loop_index, Key { slot, generation }), "another process");
        assert!(seen.insert(id));
    }
}

#[test]
fn members_may_come_and_go_on_all_loops_at_once() {
    let (presences, router) = presences();
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let presences = &presences;
            scope.spawn(move || {
                for at in 0..300_u64 {
                    let id = format!("{}", (at + thread) % 7);
                    let seat = presences.join("t", POLICY, &id, at).unwrap();
                    presences.leave(seat, at);
                }
            });
        }
        let (presences, router) = (&presences, &router);
        scope.spawn(move || {
            for at in 0..300 {
                presences.turn(router, at * 10, 0);
            }
        });
    });
    presences.turn(&router, 1_000_000, 0);
    presences.turn(&router, 2_000_000, 0);
    let counts = presences.counts();
    assert_eq!((counts.members, counts.bytes, lock(&presences.lists).len()), (0, 0, 0));
}
