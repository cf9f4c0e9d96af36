//! Who is there, for whoever has no words to ask: lists that are longer than one event of a stream or one answer to a poll,
//! piece by piece while they change, to readers that are cut off, fall behind, or take nothing.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;
use crate::config::TopicRule;
use crate::topic::{PresenceMode, PresencePolicy, Seat};

const POLICY: PresencePolicy =
    PresencePolicy { mode: PresenceMode::Full, grace_ms: 0, interval_ms: 100, state_ms: 0 };

struct World {
    edition: Arc<Edition>,
    core: Core<Fake>,
    seats: Vec<Seat>,
    named: usize,
    now_ms: u64,
}

impl World {
    /// With so many members on "room".
    fn new(members: usize) -> Self {
        let edition = edition(1, 100, RouterLimits::default(), |settings| {
            settings.outbox.messages_max = 8;
            settings.topics = vec![TopicRule {
                pattern: "room".to_owned(),
                presence: Some(PresenceMode::Full),
                presence_grace_seconds: Some(0),
                history_messages: Some(100),
                ..TopicRule::default()
            }];
        });
        let core = core(&edition, Port::Client);
        let mut world = Self { edition, core, seats: Vec::new(), named: 0, now_ms: 0 };
        world.join(members);
        world.tell();
        world
    }

    fn join(&mut self, members: usize) {
        for _ in 0..members {
            let id = format!("m{:05}", self.named * 7_919 % 100_000);
            self.named += 1;
            self.seats.push(self.edition.presences.join("room", POLICY, &id, self.now_ms).unwrap());
        }
    }

    /// The oldest of them leave.
    fn leave(&mut self, members: usize) {
        for seat in self.seats.drain(..members) {
            self.edition.presences.leave(seat, self.now_ms);
        }
    }

    /// All that has changed is told.
    fn tell(&mut self) {
        for _ in 0..100 {
            self.now_ms += 1_000;
            self.edition.presences.turn(&self.edition.router, self.now_ms, 0);
        }
    }

    fn settle(&mut self) {
        for _ in 0..1_000 {
            self.core.run_ready();
            self.core.drain_mailbox(|_| {});
            self.core.fanout_turn();
            self.core.catch_up_turn();
            if !self.core.has_work() {
                return;
            }
        }
        panic!("it does not come to rest");
    }

    fn publish(&self, text: &str) {
        let topic = self.edition.router.topic(&TopicName::of("room")).unwrap();
        self.edition.router.publish(&topic, Draft::encode(None, false, text.as_bytes()), None).unwrap();
    }

    fn asks(&mut self, path: &str, fields: &str) -> (Fake, Key) {
        let fake = Fake::says(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{fields}\r\n").as_bytes());
        let key = arrive(&mut self.core, &fake);
        (fake, key)
    }

    /// Everybody who is there, by the list itself.
    fn truth(&self) -> BTreeSet<String> {
        let (presences, mut all) = (&self.edition.presences, BTreeSet::new());
        let mut after: Option<String> = None;
        loop {
            let wanted = (after.as_deref(), 1_000);
            let events = |name: &TopicName<'_>| self.edition.router.topic(name);
            let page = presences.page("room", POLICY, wanted, None, events).unwrap();
            let members = page.members.as_ref().unwrap().as_slice();
            all.extend(members.iter().map(|member| member.id.as_str().to_owned()));
            match page.next() {
                Some(next) => after = Some(next.as_str().to_owned()),
                None => return all,
            }
        }
    }
}

/// What a reader makes of the objects that it is told, by the letter of the page on them.
#[derive(Default)]
struct Known {
    members: BTreeSet<String>,
    lists: usize,
    gaps: usize,
    own: Option<String>,
    next: Option<String>,
}

impl Known {
    fn take(&mut self, told: &Value) {
        assert_eq!((&told["type"], &told["topic"]), (&"presence".into(), &"room".into()), "{told}");
        let ids = |name: &str| told[name].as_array().cloned().unwrap_or_default().into_iter();
        if told.get("gap").is_some() {
            self.gaps += 1;
            return;
        }
        if told.get("members").is_some() {
            match told["after"].as_str() {
                Some(after) => assert_eq!(self.next.as_deref(), Some(after), "no piece is left out"),
                None => {
                    self.members.clear();
                    self.own = told["self"].as_str().map(str::to_owned);
                    self.lists += 1;
                }
            }
            self.next = told["next"].as_str().map(str::to_owned);
        }
        self.members.extend(ids("members").map(|member| member["id"].as_str().unwrap().to_owned()));
        self.members.extend(ids("joined").map(|id| id.as_str().unwrap().to_owned()));
        for id in ids("left") {
            self.members.remove(id.as_str().unwrap());
        }
    }
}

/// A reader of a stream: what it knows, the messages it got, and what it would come back with.
#[derive(Default)]
struct Reader {
    known: Known,
    messages: Vec<String>,
    id: String,
    /// The same, of all moments at which it did not know all of a list.
    cuts: BTreeSet<String>,
    /// Text that has not become an event.
    rest: Vec<u8>,
    begun: bool,
}

impl Reader {
    fn reads(&mut self, bytes: &[u8]) {
        self.rest.extend_from_slice(bytes);
        if !self.begun {
            let Some(end) = self.rest.windows(4).position(|four| four == b"\r\n\r\n") else { return };
            self.rest.drain(..end + 4);
            self.begun = true;
        }
        while let Some(line) = self.rest.windows(2).position(|two| two == b"\r\n") {
            let len = usize::from_str_radix(std::str::from_utf8(&self.rest[..line]).unwrap(), 16).unwrap();
            if self.rest.len() < line + 2 + len + 2 {
                return;
            }
            let piece = String::from_utf8(self.rest[line + 2..line + 2 + len].to_vec()).unwrap();
            self.rest.drain(..line + 2 + len + 2);
            self.event(&piece);
        }
    }

    fn event(&mut self, text: &str) {
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        if let Some(id) = field("id: ") {
            id.clone_into(&mut self.id);
            if self.is_in_list() {
                self.cuts.insert(id.to_owned());
            }
        }
        let Some(data) = field("data: ") else { return };
        match field("event: ") {
            Some("presence") => self.known.take(&serde_json::from_str(data).unwrap()),
            Some("topic:room") => self.messages.push(data.to_owned()),
            other => panic!("{other:?}: {text}"),
        }
    }

    /// Whether who is cut off now is told the list anew.
    fn is_in_list(&self) -> bool {
        self.id.split(',').nth(1).is_some_and(|version| version.starts_with("0000000000000000:"))
    }
}

#[test]
fn a_stream_is_told_all_of_a_long_list_while_it_changes() {
    for piece in [997, 20_000, 1 << 20] {
        let mut world = World::new(3_500);
        let (fake, key) = world.asks("/sse/room?presence=1", "");
        fake.has_room(Some(piece));
        let mut reader = Reader::default();
        for round in 0..2_000 {
            world.settle();
            reader.reads(&fake.take());
            if round < 30 {
                world.join(3);
                world.leave(5);
                world.tell();
                world.publish(&round.to_string());
            }
            fake.has_room(Some(piece));
            world.core.on_event(key, WRITABLE);
        }
        assert_eq!(reader.known.members, world.truth(), "{piece} bytes at a time");
        assert_eq!(reader.messages, (0..30).map(|number| number.to_string()).collect::<Vec<_>>());
        assert!(reader.known.lists >= 1 && reader.known.next.is_none() && !reader.is_in_list());
        assert!(reader.known.own.as_deref().is_some_and(|own| own.starts_with('~')));
        assert_eq!(world.edition.outbox_budget.used(), 0);
        assert!(!reader.cuts.is_empty(), "an id while the list is under way");
        // Whoever was cut off in between, or at the end, ends with the truth, too.
        for id in reader.cuts.iter().take(3).chain([&reader.id]) {
            let (fake, _) = world.asks("/sse/room?presence=1", &format!("Last-Event-ID: {id}\r\n"));
            world.tell();
            world.settle();
            let mut again = Reader::default();
            again.reads(&fake.take());
            let knew = usize::from(*id != reader.id);
            assert_eq!(again.known.lists, knew, "the list anew, or not at all: {id}");
            if knew == 1 {
                assert_eq!(again.known.members, world.truth());
            }
        }
    }
}

#[test]
fn who_takes_nothing_holds_one_piece_at_most_and_is_told_the_list_anew_when_events_are_gone() {
    let mut world = World::new(3_000);
    let (fake, key) = world.asks("/sse/room?presence=1", "");
    fake.has_room(Some(100));
    world.settle();
    let held = world.edition.outbox_budget.used();
    // An object of an id, a thousand times, and what stands around it.
    assert!((10_000..20_000).contains(&held), "{held}");
    for _ in 0..100 {
        world.join(1);
        world.leave(1);
        world.tell();
        world.settle();
    }
    assert!(world.edition.outbox_budget.used() < 2 * held, "{}", world.edition.outbox_budget.used());
    fake.has_room(None);
    let mut reader = Reader::default();
    world.core.on_event(key, WRITABLE);
    world.settle();
    reader.reads(&fake.take());
    assert_eq!((reader.known.gaps, reader.known.lists), (1, 2));
    assert_eq!(reader.known.members, world.truth());
    assert!(!reader.is_in_list());
    // Its subscription ends in the middle of a list, and so does the list.
    let (other, key) = world.asks("/sse/room?presence=1", "");
    world.core.leave_topic(key, "*presence:room");
    world.settle();
    let mut cut = Reader::default();
    cut.reads(&other.take());
    assert!(cut.known.next.is_some() && cut.is_in_list());
    drop(fake);
}

/// An answer to a poll: its place, and its object if it has one.
fn polled(fake: &Fake) -> Option<(String, Option<Value>)> {
    let text = String::from_utf8(fake.take()).unwrap();
    let (head, body) = text.split_once("\r\n\r\n")?;
    let at = head.lines().find_map(|line| line.strip_prefix("Fantail-Position: ")).unwrap();
    Some((at.to_owned(), serde_json::from_str(body).ok()))
}

#[test]
fn a_poll_is_told_who_is_there_and_then_what_changes() {
    let mut world = World::new(2_500);
    let (fake, key) = world.asks("/poll/room?presence=1", "");
    let (mut known, mut messages, mut waited) = (Known::default(), Vec::new(), 0);
    for round in 0..60 {
        world.settle();
        let answer = match polled(&fake) {
            Some(answer) => answer,
            None => {
                waited += 1;
                match round % 3 {
                    0 => world.publish(&round.to_string()),
                    _ => {
                        world.join(1);
                        world.leave(2);
                        world.tell();
                    }
                }
                world.settle();
                polled(&fake).unwrap()
            }
        };
        let (at, told) = answer;
        let told = told.unwrap();
        for object in told["presence"].as_array().into_iter().flatten() {
            known.take(object);
        }
        for message in told["messages"].as_array().unwrap() {
            messages.push(message["data"].as_str().unwrap().to_owned());
        }
        if round < 4 {
            // Between two polls.
            world.leave(3);
            world.join(2);
            world.tell();
            world.publish(&format!("between {round}"));
        }
        let after = known.next.as_ref().map(|next| format!("&after={next}")).unwrap_or_default();
        fake.say(
            format!("GET /poll/room?presence=1&since={at}{after} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes(),
        );
        world.core.on_event(key, READABLE);
    }
    world.settle();
    let last = polled(&fake).and_then(|(_, told)| told);
    last.iter().flat_map(|told| told["presence"].as_array().unwrap()).for_each(|object| known.take(object));
    assert!(waited > 40, "{waited}");
    assert_eq!((&known.members, known.lists), (&world.truth(), 1));
    assert!(known.own.is_some_and(|own| known.members.contains(&own)));
    let expected: Vec<String> = (0..4).map(|round| format!("between {round}")).collect();
    assert_eq!(messages[..4], expected);
    assert!(messages.len() > 10 && messages.iter().collect::<BTreeSet<_>>().len() == messages.len());
    // Who is not told who is there is not told that somebody came.
    let (plain, _) = world.asks("/poll/room", "");
    world.settle();
    world.join(1);
    world.tell();
    world.settle();
    assert!(polled(&plain).is_none());
    world.publish("last");
    world.settle();
    assert!(polled(&plain).unwrap().1.unwrap().get("presence").is_none());
}

#[test]
fn a_poll_that_knows_an_old_version_is_told_the_list_anew_and_leaves_nothing() {
    let mut world = World::new(3);
    let place = |of: &str| format!("/poll/room?presence=1&wait=0&since=0000000000000001:1,{of}");
    for (version, after) in [("0000000000000001:1", ""), ("0000000000000001:1", "&after=m00001")] {
        let (fake, _) = world.asks(&format!("{}{after}", place(version)), "");
        world.settle();
        let told = polled(&fake).unwrap().1.unwrap();
        let mut known = Known::default();
        told["presence"].as_array().unwrap().iter().for_each(|object| known.take(object));
        assert_eq!((known.lists, known.members.len()), (1, 3), "itself is not told yet: {told}");
    }
    world.tell();
    assert_eq!(world.truth().len(), 3, "a poll that is over is no member");
    let topic = world.edition.router.find(&TopicName::of_presence("room"));
    assert!(topic.is_none_or(|topic| topic.subscribers() == 0));
    for query in [
        "presence=2",
        "presence=1&since=0000000000000001:1,0000000000000001:1,0000000000000001:1",
        "since=0000000000000001:1,0000000000000001:1",
        "after=a",
        "presence=1&after=a",
    ] {
        let (fake, _) = world.asks(&format!("/poll/room?{query}"), "");
        world.settle();
        assert!(fake.take().starts_with(b"HTTP/1.1 400"), "{query}");
    }
}
