//! A dialect of an event stream beside plain ones on a topic: its form names epoch and offset, and is made once a
//! message and loop. Its own code is `dialect/events.rs`, a variant and an arm; nothing of the loop knows it.

use super::*;

const TOPIC: TopicName<'static> = TopicName::of("news");

struct World {
    edition: Arc<Edition>,
    core: Core<Fake>,
}

impl World {
    fn new(change: impl FnOnce(&mut Settings)) -> Self {
        let edition = edition(1, 100, RouterLimits::default(), change);
        let core = core(&edition, Port::Client);
        Self { edition, core }
    }

    fn plain(&mut self) -> (Fake, Key) {
        let fake = Fake::says(&upgrade("/ws/news", ""));
        let key = arrive(&mut self.core, &fake);
        self.settle();
        fake.take();
        (fake, key)
    }

    fn reader(&mut self) -> (Fake, Key) {
        let fake = Fake::says(b"GET /events/news HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let key = arrive(&mut self.core, &fake);
        self.settle();
        let head = fake.take();
        assert!(head.ends_with(b"Content-Type: text/event-stream\r\n\r\n"), "{head:?}");
        (fake, key)
    }

    fn publish(&mut self, payloads: &[&str]) {
        let topic = self.edition.router.topic(&TOPIC).unwrap();
        for payload in payloads {
            self.edition
                .router
                .publish(&topic, Draft::encode(None, false, payload.as_bytes()), None)
                .unwrap();
        }
        self.settle();
    }

    fn settle(&mut self) {
        let waits = |edition: &Edition| !edition.router.mailbox(0).unwrap().is_empty();
        while self.core.has_work() || waits(&self.edition) {
            self.core.run_ready();
            self.core.drain_mailbox(|_| {});
            self.core.fanout_turn();
        }
    }

    fn events(&self, from: u64, payloads: &[&str]) -> String {
        let epoch = self.edition.router.topic(&TOPIC).unwrap().epoch();
        let event = |(at, payload): (usize, &&str)| {
            format!("id: {epoch:016x}:{}\ndata: {payload}\n\n", from + at as u64)
        };
        payloads.iter().enumerate().map(event).collect()
    }
}

fn text(fake: &Fake) -> String {
    String::from_utf8(fake.take()).unwrap()
}

#[test]
fn each_dialect_gets_its_form_of_the_same_messages() {
    let mut world = World::new(|_| {});
    let ((plain, _), (one, _), (other, _)) = (world.plain(), world.reader(), world.reader());
    world.publish(&["first"]);
    assert_eq!(text(&one), world.events(1, &["first"]));
    assert_eq!(text(&other), world.events(1, &["first"]));
    assert_eq!(plain.take(), b"\x81\x05first");
    // A burst is one write of joined events.
    let (late, _) = world.reader();
    world.publish(&["a", "", "c"]);
    for reader in [&one, &other, &late] {
        assert_eq!(text(reader), world.events(2, &["a", "", "c"]));
    }
    assert_eq!(plain.take(), b"\x81\x01a\x81\x00\x81\x01c");
    assert_eq!(world.edition.router.mailbox(0).unwrap().reserved(), (0, 0));
    assert_eq!(world.core.counters.deliveries.value(), 3 + 3 * 4);
}

#[test]
fn a_slow_reader_has_the_bounds_of_everybody_and_loses_no_event_it_has_begun() {
    let mut world = World::new(|settings| settings.outbox.messages_max = 3);
    let (reader, key) = world.reader();
    let first = world.events(1, &["first"]);
    // The kernel takes the first event in part and then no more.
    reader.has_room(Some(first.len() / 2));
    world.publish(&["first"]);
    let own = world.edition.outbox_budget.used();
    assert_eq!(own, first.len() as u64 + crate::topic::budget::REFERENCE_BYTES, "what was made counts");
    for number in 2..=6 {
        world.publish(&[&number.to_string()]);
    }
    assert_eq!(world.core.counters.drops(crate::metrics::DropReason::DropNewest), 3);
    reader.has_room(None);
    world.core.on_event(key, WRITABLE);
    assert_eq!(text(&reader), first + &world.events(2, &["2", "3"]));
    assert_eq!(world.edition.outbox_budget.used(), 0);
    world.publish(&["7"]);
    assert_eq!(text(&reader), world.events(7, &["7"]));
}

#[test]
fn what_a_reader_says_behind_its_request_means_nothing_and_its_end_frees_it() {
    let mut world = World::new(|_| {});
    let (reader, key) = world.reader();
    reader.say(b"whatever\r\n\r\n");
    world.core.on_event(key, READABLE);
    world.settle();
    assert_eq!((text(&reader), world.core.connections()), (String::new(), 1));
    reader.end();
    world.core.on_event(key, ENDED);
    world.settle();
    assert_eq!((world.core.connections(), world.core.topics.subscriptions()), (0, 0));
}
