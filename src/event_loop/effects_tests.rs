//! Effects are carried out in order, once each, and what waits keeps its place: by a dialect of text commands.

use super::*;
use crate::config::TopicRule;
use crate::topic::{Join, Place, Since};
use crate::wire::frame::{Sender, decode_header};

/// The loop that subscribes beside the one under test and reads its mailbox only when it is told to.
const OTHER: usize = 1;

struct World {
    edition: Arc<Edition>,
    core: Core<Fake>,
    fake: Fake,
    key: Key,
}

impl World {
    fn new(limits: RouterLimits, change: impl FnOnce(&mut Settings)) -> Self {
        Self::opened_by(&upgrade("/lines", ""), limits, change)
    }

    fn json(limits: RouterLimits, change: impl FnOnce(&mut Settings)) -> Self {
        let offer = "Sec-WebSocket-Protocol: fantail.json.v1\r\n";
        Self::opened_by(&upgrade("/ws", offer), limits, change)
    }

    fn opened_by(request: &[u8], limits: RouterLimits, change: impl FnOnce(&mut Settings)) -> Self {
        let edition = edition(2, 10, limits, change);
        let mut core = core(&edition, Port::Client);
        let fake = Fake::says(request);
        let key = arrive(&mut core, &fake);
        fake.take();
        Self { edition, core, fake, key }
    }

    /// Says commands in one message and returns what came back once nothing is left to do.
    fn say(&mut self, commands: &str) -> Vec<String> {
        let mut frame = Vec::new();
        push_frame(&mut frame, Opcode::Text, commands.as_bytes(), Some(MASK));
        self.fake.say(&frame);
        self.core.on_event(self.key, READABLE);
        self.settle()
    }

    fn settle(&mut self) -> Vec<String> {
        loop {
            self.core.run_ready();
            self.core.run_blocked();
            self.core.drain_mailbox(|_| {});
            self.core.fanout_turn();
            self.core.catch_up_turn();
            if !self.core.has_work() {
                return texts(&self.fake.take());
            }
        }
    }

    /// Gives the other loop's mailbox its room back.
    fn take_from_other(&self) -> Vec<String> {
        let mailbox = self.edition.router.mailbox(OTHER).unwrap();
        let mut entries = Vec::new();
        mailbox.drain(&mut entries);
        let mut texts = Vec::new();
        for entry in entries {
            if let Entry::Deliver { message, .. } = entry {
                mailbox.release(1, message.frame_len() as u64);
                texts.push(String::from_utf8(message.payload().to_vec()).unwrap());
            }
        }
        texts
    }

    fn subscribe_other(&self, name: &'static str) {
        let topic = self.edition.router.topic(&TopicName::of(name)).unwrap();
        let join = Join { local: 0, slot: 0, ticket: Place::NONE };
        self.edition.router.join(&topic, OTHER, join, Since::Now).unwrap();
        self.take_from_other();
    }
}

fn open(settings: &mut Settings) {
    settings.publish.topics = vec!["*".to_owned()];
}

/// The payloads of whole text frames, and "close CODE" for a close frame.
fn texts(mut bytes: &[u8]) -> Vec<String> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let header = decode_header(bytes, Sender::Server).expect("legal").expect("whole");
        let (frame, rest) = bytes.split_at(header.header_len + header.payload_len as usize);
        let payload = &frame[header.header_len..];
        all.push(match header.opcode {
            Opcode::Close => format!("close {}", u16::from_be_bytes([payload[0], payload[1]])),
            _ => String::from_utf8(payload.to_vec()).unwrap(),
        });
        bytes = rest;
    }
    all
}

#[test]
fn commands_of_one_message_are_carried_out_in_order_and_once() {
    let mut world = World::new(RouterLimits::default(), open);
    let got = world.say("sub a\npub a one\nunsub a\npub a two\nsub a\npub a three\n");
    let answers = ["joined a 0", "published a 1", "left a", "published a 2", "joined a 2", "published a 3"];
    assert_eq!(got[..6], answers);
    // The first subscription had ended before its message could be delivered, the second got what is its own.
    assert_eq!(got[6..], ["three"]);
    assert_eq!(world.core.counters.publishes.value(), 3);
    assert_eq!(world.say("pub a four"), ["published a 4", "four"]);
}

#[test]
fn what_cannot_be_had_is_told_and_changes_nothing() {
    let mut world = World::new(RouterLimits::default(), |settings| {
        settings.publish.topics = vec!["open".to_owned()];
        settings.limits.subscriptions_max = 2;
        settings.limits.ignored_publishes_max = 1;
    });
    let got = world.say("sub a\nsub a\nsub b\nsub c\nunsub c\npub shut x");
    let answers = ["joined a 0", "no change", "joined b 0", "no more", "no topic", "no right"];
    assert_eq!(got, answers);
    assert_eq!(world.core.topics.subscriptions(), 2);
    assert!(world.edition.router.find(&TopicName::of("shut")).is_none(), "a refused publish makes no topic");
    assert_eq!(world.say("what"), [""; 0], "one message may mean nothing");
    assert_eq!(world.say("what"), ["close 1008"]);
}

#[test]
fn behind_a_publish_without_room_everything_waits_in_its_order() {
    let mailbox = MailboxLimits { entries_max: 1, ..MailboxLimits::default() };
    let mut world = World::new(RouterLimits { mailbox, ..RouterLimits::default() }, open);
    world.subscribe_other("a");
    let got = world.say("pub a one\npub a two\npub a three\nsub b\n");
    assert_eq!(got, ["published a 1"]);
    assert_eq!(world.say("pub a four\n"), [""; 0], "nothing more is read");
    let mut answers = Vec::new();
    let mut seen = Vec::new();
    for _ in 0..8 {
        seen.extend(world.take_from_other());
        answers.extend(world.settle());
    }
    assert_eq!(seen, ["one", "two", "three", "four"]);
    assert_eq!(answers, ["published a 2", "published a 3", "joined b 0", "published a 4"]);
}

#[test]
fn behind_the_end_nothing_is_carried_out() {
    let mut world = World::new(RouterLimits::default(), open);
    assert_eq!(world.say("pub a one\nquit\npub a two\nsub a"), ["published a 1", "close 1000"]);
    assert_eq!(world.core.counters.publishes.value(), 1);
    assert_eq!(world.core.topics.subscriptions(), 0);
}

#[test]
fn what_is_asked_of_a_topic_that_keeps_nothing_is_told_as_a_gap() {
    let mut world = World::new(RouterLimits::default(), open);
    assert_eq!(world.say("sub a 5\npub a one\npub a two")[0], "joined a 0");
    let epoch = world.edition.router.find(&TopicName::of("a")).unwrap().epoch();
    let mut again = |since: String| world.say(&format!("unsub a\nsub a {since}")).pop().unwrap();
    assert_eq!(again(format!("{epoch:016x}:2")), "joined a 2 recovered");
    assert_eq!(again(format!("{epoch:016x}:1")), "joined a 2 expired 3");
    assert_eq!(again(format!("{epoch:016x}:3")), "joined a 2 ahead 3");
    assert_eq!(again(format!("{:016x}:2", !epoch)), "joined a 2 other_epoch 3");
    assert_eq!(again("9".to_owned()), "joined a 2");
    assert_eq!(world.say("pub a three"), ["published a 3", "three"]);
}

#[test]
fn answers_name_their_request_behind_a_publish_without_room_too() {
    let mailbox = MailboxLimits { entries_max: 1, ..MailboxLimits::default() };
    let mut world = World::json(RouterLimits { mailbox, ..RouterLimits::default() }, open);
    world.subscribe_other("a");
    let publish = |id: &str| format!(r#"{{"type":"publish","id":{id},"topic":"a","data":"x"}}"#);
    let id_and_offset = |answers: Vec<String>| {
        let read = |text: String| serde_json::from_str::<serde_json::Value>(&text).unwrap();
        let both =
            |value: serde_json::Value| format!("{} {} {}", value["type"], value["id"], value["offset"]);
        answers.into_iter().map(read).map(both).collect::<Vec<_>>()
    };
    assert_eq!(id_and_offset(world.say(&publish("1"))), ["\"published\" 1 1"]);
    assert_eq!(world.say(&publish("\"second\"")), [""; 0], "waits");
    assert_eq!(world.say(r#"{"type":"ping","id":3}"#), [""; 0], "waits behind it");
    let before = world.core.held.bytes();
    assert!(before >= publish("2").len(), "what waits is counted");
    let mut answers = Vec::new();
    for _ in 0..3 {
        world.take_from_other();
        answers.extend(world.settle());
    }
    assert_eq!(id_and_offset(answers), ["\"published\" \"second\" 2", "\"pong\" 3 null"]);
    assert_eq!(world.core.held.bytes(), 0);
}

#[test]
fn commands_wait_for_the_joins_before_them_and_none_is_refused() {
    let limits = RouterLimits { joins_max: 2, ..RouterLimits::default() };
    let mut world = World::json(limits, |settings| settings.limits.subscriptions_max = 100);
    let frames: Vec<u8> = (0..50)
        .flat_map(|topic| {
            let mut frame = Vec::new();
            let command = format!(r#"{{"type":"subscribe","id":{topic},"topics":["a{topic}","b{topic}"]}}"#);
            push_frame(&mut frame, Opcode::Text, command.as_bytes(), Some(MASK));
            frame
        })
        .collect();
    world.fake.say(&frames);
    world.core.on_event(world.key, READABLE);
    assert_eq!(world.core.topics.subscriptions(), 2, "one command, and the others wait");
    assert!(world.core.held.bytes() > 0, "what waits is counted");
    assert_eq!(world.settle().len(), 100);
    assert_eq!((world.core.topics.subscriptions(), world.core.held.bytes()), (100, 0));
}

#[test]
fn bad_commands_are_answered_and_too_many_end_the_conversation() {
    let mut world = World::json(RouterLimits::default(), |settings| settings.limits.bad_commands_max = 2);
    for _ in 0..2 {
        let answers = world.say("{\"type\":\"dance\",\"id\":7}");
        assert_eq!(answers.len(), 1);
        assert!(
            answers[0].starts_with(r#"{"type":"error","id":7,"code":"bad_command","message":"unknown type"#)
        );
    }
    let last = world.say("{}");
    assert!(last[0].starts_with(r#"{"type":"error","code":"bad_command""#), "{last:?}");
    assert_eq!(last[1..], ["close 1008"]);
    assert_eq!(world.core.counters.bad_commands.value(), 3);
    assert_eq!(world.core.counters.ignored_publishes.value(), 0);
}

/// What is missing of a topic that is left while a pattern means it is told where it was left, behind the answers to what was
/// said in one piece with it.
#[test]
fn a_gap_of_a_topic_that_is_left_comes_behind_the_answers_before_it() {
    let mut world = World::json(RouterLimits::default(), |settings| {
        open(settings);
        let topics =
            TopicRule { pattern: "t".to_owned(), history_messages: Some(10), ..TopicRule::default() };
        settings.topics = vec![topics];
    });
    let topic = world.edition.router.topic(&TopicName::of("t")).unwrap();
    let publish = || world.edition.router.publish(&topic, Draft::encode(None, true, b"m"), None).unwrap();
    for _ in 0..3 {
        publish();
    }
    let since = crate::topic::Position { epoch: topic.epoch(), offset: 1 };
    let commands = [
        format!(r#"{{"type":"subscribe","topic":"t","since":"{since}","id":1}}"#),
        r#"{"type":"subscribe","topic":"*","id":2}"#.to_owned(),
        r#"{"type":"unsubscribe","topic":"t","id":3}"#.to_owned(),
        r#"{"type":"unsubscribe","topic":"*","id":4}"#.to_owned(),
    ];
    let mut frames = Vec::new();
    for command in &commands {
        push_frame(&mut frames, Opcode::Text, command.as_bytes(), Some(MASK));
    }
    world.fake.say(&frames);
    world.core.on_event(world.key, READABLE);
    let told: Vec<(String, String)> = world
        .settle()
        .iter()
        .map(|text| serde_json::from_str::<serde_json::Value>(text).unwrap())
        .map(|told| (told["type"].as_str().unwrap().to_owned(), told["id"].to_string()))
        .collect();
    let expected = [
        ("subscribed", "1"),
        ("subscribed", "2"),
        ("gap", "null"),
        ("unsubscribed", "3"),
        ("unsubscribed", "4"),
    ];
    assert_eq!(told, expected.map(|(of, id)| (of.to_owned(), id.to_owned())));
}
