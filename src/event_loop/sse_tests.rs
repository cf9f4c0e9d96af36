//! Event streams beside plain connections on a topic: their form names epoch and offset and is made once a message and
//! loop, each event a chunk; what a stream begins and ends with, and who is told to come back later.

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
        let fake = Fake::says(&get(""));
        let key = arrive(&mut self.core, &fake);
        self.settle();
        let (head, start) = answer(&fake);
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert!(head.contains("\r\nContent-Type: text/event-stream\r\n"), "{head}");
        assert!((1_500..4_500).contains(&retry(&start)), "{start}");
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
            let data = if payload.is_empty() { "data:".to_owned() } else { format!("data: {payload}") };
            chunk(&format!("id: {epoch:016x}:{}\n{data}\n\n", from + at as u64))
        };
        payloads.iter().enumerate().map(event).collect()
    }
}

/// A request for the stream, with further fields.
fn get(fields: &str) -> Vec<u8> {
    format!("GET /sse/news HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n{fields}\r\n")
        .into_bytes()
}

fn chunk(data: &str) -> String {
    format!("{:x}\r\n{data}\r\n", data.len())
}

/// Head and body of an answer.
fn answer(fake: &Fake) -> (String, String) {
    let whole = text(fake);
    let (head, body) = whole.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {whole:?}"));
    (format!("{head}\r\n"), body.to_owned())
}

/// The one time that a stream tells its client to come back after, in milliseconds.
fn retry(body: &str) -> u32 {
    let mut times = body.lines().filter_map(|line| line.strip_prefix("retry: "));
    let time = times.next().unwrap_or_else(|| panic!("no retry: {body:?}")).parse().unwrap();
    assert_eq!(times.next(), None, "{body:?}");
    time
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

/// The event that tells of messages that were dropped when the topic had come so far.
fn dropped(topic: &str, next: u64) -> String {
    let event =
        format!("event: gap\ndata: {{\"topic\":\"{topic}\",\"kind\":\"dropped\",\"oldest\":{next}}}\n\n");
    format!("{:x}\r\n{event}\r\n", event.len())
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
    // What was dropped is told where it would have come.
    assert_eq!(text(&reader), first + &world.events(2, &["2", "3"]) + &dropped("news", 5));
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

#[test]
fn a_client_without_chunks_gets_none() {
    let mut world = World::new(|_| {});
    let (chunked, _) = world.reader();
    let old = Fake::says(b"GET /sse/news HTTP/1.0\r\n\r\n");
    let key = arrive(&mut world.core, &old);
    world.settle();
    let (head, start) = answer(&old);
    assert!(!head.contains("Transfer-Encoding") && head.contains("Connection: close\r\n"), "{head}");
    let epoch = world.edition.router.topic(&TOPIC).unwrap().epoch();
    assert_eq!(start, format!("retry: {}\nid: {epoch:016x}:0\n\n", retry(&start)));
    world.publish(&["one"]);
    let bare = text(&old);
    assert_eq!(text(&chunked), chunk(&bare));
    assert!(bare.ends_with("\ndata: one\n\n"), "{bare}");
    world.core.end(key, CloseReason::Admin, Words::Given(1000, "later"));
    assert_eq!(text(&old), ": later\n");
}

#[test]
fn a_quiet_stream_has_a_comment_in_time_and_no_other_heartbeat() {
    let mut world = World::new(|settings| settings.timeouts.sse_heartbeat = Duration::from_secs(4));
    let ((plain, _), (reader, _)) = (world.plain(), world.reader());
    for tick in 1..=80 {
        world.core.set_now(tick);
        world.core.sweep();
    }
    let said = text(&reader);
    assert!(said == "2\r\n:\n\r\n" || said == "2\r\n:\n\r\n".repeat(2), "{said:?}");
    // Nobody has to answer it.
    for tick in 81..=1_000 {
        world.core.set_now(tick);
        world.core.sweep();
    }
    assert_eq!(count(&reader.take(), b":\n"), 23);
    assert!(!plain.take().is_empty() && world.core.connections() == 1);
}

#[test]
fn a_drain_ends_streams_between_events_and_spreads_who_comes_back() {
    let mut world = World::new(|settings| settings.drain.length = Duration::from_secs(20));
    let readers: Vec<_> = (0..64).map(|_| world.reader()).collect();
    world.publish(&["last"]);
    world.core.start_drain(200);
    for tick in 0..=240 {
        world.core.set_now(tick);
        world.core.drain_turn();
        world.settle();
    }
    let mut times: Vec<u32> = Vec::new();
    for (reader, _) in &readers {
        let said = text(reader);
        let end = said.strip_prefix(&world.events(1, &["last"])).unwrap_or_else(|| panic!("{said:?}"));
        times.push(retry(end));
        assert_eq!(end, chunk(&format!(": server is going away\nretry: {}\n", retry(end))) + "0\r\n\r\n");
    }
    times.sort_unstable();
    assert!(times[0] < 3_000 && times[63] > 18_000, "over the drain's time: {times:?}");
    times.dedup();
    assert!(times.len() > 60, "each its own");
}

#[test]
fn who_reads_too_slowly_is_sent_away_between_events() {
    let mut world = World::new(|settings| {
        settings.outbox.messages_max = 2;
        settings.outbox.policy = crate::topic::SlowPolicy::Disconnect;
    });
    let (reader, key) = world.reader();
    let first = world.events(1, &["first"]);
    reader.has_room(Some(first.len() / 2));
    world.publish(&["first", "second", "third", "fourth"]);
    reader.has_room(None);
    world.core.on_event(key, WRITABLE);
    let end = chunk(&format!(": {}\n", CloseReason::SlowConsumer.text())) + "0\r\n\r\n";
    assert_eq!(text(&reader), first + &end);
}

#[test]
fn a_stream_that_can_not_be_had_now_is_one_that_says_when() {
    let fill = |world: &World, reason| match reason {
        RefuseReason::AtCapacity => while world.edition.try_open_connection(Port::Client) {},
        RefuseReason::Handshakes => while world.edition.admission.try_begin_handshake() {},
        _ => {
            let admission = &world.edition.admission;
            let here = admission.handle_of(Ipv4Addr::LOCALHOST.into());
            while admission.try_enter(here, 0).is_ok() {}
        }
    };
    for reason in [RefuseReason::AtCapacity, RefuseReason::Handshakes, RefuseReason::TooManyFromAddress] {
        let mut world = World::new(|settings| settings.admission.per_address_max = 7);
        fill(&world, reason);
        let ask = || {
            let program = b"GET /sse/news HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
            [get("Origin: http://localhost\r\n"), program, get("Origin: https://evil.example\r\n")]
                .map(|request| Fake::says(&request))
        };
        let askers = ask();
        for asker in &askers {
            arrive(&mut world.core, asker);
        }
        assert_not_now(reason, askers);
        assert_eq!(world.core.counters.refusals(reason), 3);
        // Without a slot, too.
        let askers = ask();
        for asker in &askers {
            world.core.refuse_at_once(asker.clone(), reason);
        }
        assert_not_now(reason, askers);
    }
}

fn assert_not_now(reason: RefuseReason, [stream, program, foreign]: [Fake; 3]) {
    let (head, body) = answer(&stream);
    assert!(
        head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("Content-Type: text/event-stream\r\n"),
        "{head}"
    );
    assert!(head.contains("\r\nAccess-Control-Allow-Origin: http://localhost\r\n"), "{head}");
    assert_eq!(body, format!(": {}\nretry: {}\n", reason.text(), retry(&body)));
    assert!((6_000..18_000).contains(&retry(&body)), "{body}");
    let (head, _) = answer(&foreign);
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && !head.contains("Access-Control"), "{head}");
    let (head, _) = answer(&program);
    assert!(head.starts_with(&format!("HTTP/1.1 {} ", reason.status())), "{head}");
}

/// A reader of two topics, and their epochs.
fn reader_of_two(world: &mut World) -> (Fake, Key, [u64; 2]) {
    let request = get("").iter().map(|&byte| byte as char).collect::<String>();
    let fake = Fake::says(request.replace("/sse/news", "/sse/news?topic=other").as_bytes());
    let key = arrive(&mut world.core, &fake);
    world.settle();
    let epochs =
        ["news", "other"].map(|name| world.edition.router.topic(&TopicName::of(name)).unwrap().epoch());
    let (head, start) = answer(&fake);
    let at = format!("{:016x}:0,{:016x}:0", epochs[0], epochs[1]);
    assert!(head.contains(&format!("Fantail-Position: {at}\r\n")), "{head}");
    assert_eq!(start, chunk(&format!("retry: {}\nid: {at}\n\n", retry(&start))));
    (fake, key, epochs)
}

fn named(epochs: [u64; 2], topic: &str, payload: &str, at: [u64; 2]) -> String {
    let id = format!("{:016x}:{},{:016x}:{}", epochs[0], at[0], epochs[1], at[1]);
    chunk(&format!("event: topic:{topic}\ndata: {payload}\nid: {id}\n\n"))
}

#[test]
fn an_event_of_several_topics_names_its_own_and_the_places_in_all() {
    let mut world = World::new(|_| {});
    let (single, _) = world.reader();
    let (late_one, _, epochs) = reader_of_two(&mut world);
    world.publish(&["a", "b"]);
    assert_eq!(text(&single), world.events(1, &["a", "b"]));
    let other = world.edition.router.topic(&TopicName::of("other")).unwrap();
    world.edition.router.publish(&other, Draft::encode(None, false, b"c"), None).unwrap();
    world.settle();
    // Who comes later has other places in the same messages.
    let fake = Fake::says(&get(""));
    let _ = arrive(&mut world.core, &fake);
    world.publish(&["d"]);
    let expected = [
        named(epochs, "news", "a", [1, 0]),
        named(epochs, "news", "b", [2, 0]),
        named(epochs, "other", "c", [2, 1]),
        named(epochs, "news", "d", [3, 1]),
    ];
    assert_eq!(text(&late_one), expected.concat());
}

#[test]
fn a_slow_reader_of_several_topics_gets_whole_events_and_its_own_places() {
    let mut world = World::new(|settings| settings.outbox.messages_max = 3);
    let (reader, key, epochs) = reader_of_two(&mut world);
    let first = named(epochs, "news", "1", [1, 0]);
    reader.has_room(Some(first.len() + 5));
    world.publish(&["1", "2", "3"]);
    assert_eq!(world.core.counters.deliveries.value(), 1);
    world.publish(&["4", "5"]);
    assert_eq!(world.core.counters.drops(crate::metrics::DropReason::DropNewest), 1);
    reader.has_room(None);
    world.core.on_event(key, WRITABLE);
    let whole = ["2", "3", "4"].iter().zip(2..).map(|(payload, at)| named(epochs, "news", payload, [at, 0]));
    assert_eq!(text(&reader), first + &whole.collect::<String>() + &dropped("news", 6));
    assert_eq!(world.core.counters.deliveries.value(), 4);
    assert_eq!(world.edition.outbox_budget.used(), 0);
    world.publish(&["6"]);
    assert_eq!(text(&reader), named(epochs, "news", "6", [6, 0]));
}

#[test]
fn the_places_of_many_streams_go_with_them() {
    let mut world = World::new(|_| {});
    let readers: Vec<_> = (0..64).map(|_| reader_of_two(&mut world)).collect();
    let capacity = world.core.places.capacity();
    assert_eq!(world.core.places.len(), 64);
    for (reader, key, _) in &readers[1..] {
        reader.end();
        world.core.on_event(*key, ENDED);
    }
    world.settle();
    assert_eq!(world.core.places.len(), 1);
    assert!(world.core.places.capacity() < capacity / 4);
}

#[test]
fn an_idle_stream_of_one_topic_has_what_a_plain_connection_has() {
    let mut world = World::new(|_| {});
    let ((_, plain), (_, reader)) = (world.plain(), world.reader());
    let waiting = Fake::says(b"GET /poll/news?wait=60 HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let waiting = arrive(&mut world.core, &waiting);
    world.settle();
    let mut memory = |key: Key| world.core.slots.get(key).unwrap().connection.memory();
    let (of_plain, of_stream, of_poll) = (memory(plain), memory(reader), memory(waiting));
    assert_eq!(of_stream.total(), of_plain.total());
    assert_eq!((of_stream.inbox, of_stream.outbox, of_stream.session), (0, 0, 0));
    assert!((1..400).contains(&of_poll.session), "its box: {} bytes", of_poll.session);
    assert_eq!(of_poll.slot + of_poll.lists, of_plain.total());
}
