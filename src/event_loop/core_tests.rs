//! A loop core over streams that a test fills and empties: what its bounds are over many connections, and what a
//! reload or a drain leaves behind.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::config::Settings;
use crate::connection::inquiry::{Asker, Filter, Inquiry, Question};
use crate::edition::Router;
use crate::event_loop::closing::Words;
use crate::event_loop::run::TrimRequest;
use crate::event_loop::turn::Driver;
use crate::metrics::RefuseReason;
use crate::topic::subscriptions::ENTRIES_PER_TURN;
use crate::topic::{
    Access, Draft, Entry, Join, LevelPattern, MailboxLimits, Place, RouterError, RouterLimits, Since,
    TopicName, TopicPolicy, TopicRules, Wake,
};
use crate::transport::Received;
use crate::wire::deflate::Deflater;
use crate::wire::frame::{Opcode, push_deflated_frame, push_frame};

const READABLE: Readiness = Readiness { readable: true, writable: false, read_closed: false, error: false };
const WRITABLE: Readiness = Readiness { readable: false, writable: true, read_closed: false, error: false };
const ENDED: Readiness = Readiness { readable: true, writable: false, read_closed: true, error: false };
const MASK: [u8; 4] = [1, 2, 3, 4];

#[path = "catch_up_tests.rs"]
mod catch_up;
#[path = "drain_tests.rs"]
mod drain;
#[path = "effects_tests.rs"]
mod effects;
#[path = "fairness_tests.rs"]
mod fairness;
#[path = "handshakes_tests.rs"]
mod handshakes;
#[path = "newcomer_tests.rs"]
mod newcomers;
#[path = "parked_tests.rs"]
mod parked;
#[path = "presence_tests.rs"]
mod presence;
#[path = "runs_tests.rs"]
mod runs;
#[path = "sse_tests.rs"]
mod sse;
#[path = "window_tests.rs"]
mod window;

thread_local! {
    /// What the clock of a test shows, in nanoseconds; every system call takes some of it.
    static NOW_NS: Cell<u64> = const { Cell::new(0) };
}

fn now_ns() -> u64 {
    NOW_NS.get()
}

/// What a `send` takes, and a `recv` half as long.
const SEND_NS: u64 = 6_000;

struct NoWake;

impl Wake for NoWake {
    fn wake(&self, _: usize) {}
}

#[derive(Default)]
struct Pipe {
    input: VecDeque<u8>,
    output: Vec<u8>,
    ended: bool,
    /// Bytes of output it still takes; `None` for no bound.
    room: Option<usize>,
}

#[derive(Clone, Default)]
struct Fake(Rc<RefCell<Pipe>>);

impl Fake {
    fn says(bytes: &[u8]) -> Self {
        let fake = Self::default();
        fake.say(bytes);
        fake
    }

    fn say(&self, bytes: &[u8]) {
        self.0.borrow_mut().input.extend(bytes);
    }

    fn end(&self) {
        self.0.borrow_mut().ended = true;
    }

    fn has_room(&self, bytes: Option<usize>) {
        self.0.borrow_mut().room = bytes;
    }

    fn take(&self) -> Vec<u8> {
        std::mem::take(&mut self.0.borrow_mut().output)
    }
}

impl Socket for Fake {
    type Shared = ();

    fn read(&mut self, (): &mut (), into: &mut [u8]) -> io::Result<Received> {
        NOW_NS.set(NOW_NS.get() + SEND_NS / 2);
        let mut pipe = self.0.borrow_mut();
        let count = pipe.input.len().min(into.len());
        if count == 0 {
            return if pipe.ended { Ok(Received::End) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        for (place, byte) in into.iter_mut().zip(pipe.input.drain(..count)) {
            *place = byte;
        }
        Ok(Received::Bytes { count, more: count == into.len() })
    }

    fn write(&mut self, (): &mut (), bytes: &[u8]) -> io::Result<usize> {
        NOW_NS.set(NOW_NS.get() + SEND_NS);
        let mut pipe = self.0.borrow_mut();
        let count = pipe.room.map_or(bytes.len(), |room| room.min(bytes.len()));
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        pipe.room = pipe.room.map(|room| room - count);
        pipe.output.extend_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn end(&mut self, (): &mut ()) -> io::Result<()> {
        Ok(())
    }
}

/// A poll that a test fills; nobody listens.
#[derive(Default)]
struct Poll {
    events: VecDeque<(Key, Readiness)>,
}

impl Driver<Fake> for Poll {
    fn take_events(&mut self, core: &mut Core<Fake>) {
        while !core.has_had_events()
            && let Some((key, readiness)) = self.events.pop_front()
        {
            core.on_event(key, readiness);
        }
    }

    fn accept_turn(&mut self, _: &mut Core<Fake>) {}

    fn on_reload(&mut self, _: &mut Core<Fake>) -> Arc<Edition> {
        unreachable!("no test reloads through it")
    }

    fn leave(&mut self, _: &mut Core<Fake>) {}

    fn has_left(&self) -> bool {
        false
    }

    fn stop(&mut self) {}

    fn on_drain_asked(&mut self) {}

    fn on_reload_asked(&mut self) {}

    fn try_trim(&mut self, _: TrimRequest) -> bool {
        true
    }
}

fn edition(
    loops: usize,
    connections_max: usize,
    limits: RouterLimits,
    change: impl FnOnce(&mut Settings),
) -> Arc<Edition> {
    let mut settings = Settings::default();
    change(&mut settings);
    let router = Router::new(loops + 1, limits, Box::new(NoWake)).unwrap();
    Arc::new(Edition::new(settings, Arc::new(router), loops, connections_max).unwrap())
}

fn core(edition: &Arc<Edition>, port: Port) -> Core<Fake> {
    let index = if port == Port::Admin { edition.loops() } else { 0 };
    Core::new(index, port, Arc::clone(edition)).unwrap()
}

fn upgrade(path: &str, more: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{more}\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes()
}

fn arrive(core: &mut Core<Fake>, fake: &Fake) -> Key {
    let arrival = core.admit(Ipv4Addr::LOCALHOST.into(), false);
    let key = core.on_accepted(fake.clone(), arrival);
    core.on_event(key, READABLE);
    key
}

fn count(haystack: &[u8], needle: &[u8]) -> usize {
    haystack.windows(needle.len()).filter(|window| window == &needle).count()
}

#[test]
fn requests_that_come_at_once_are_answered_over_several_turns() {
    answered_over_several_turns(Port::Client, b"GET /none HTTP/1.1\r\nHost: a\r\n\r\n");
    let chunked = b"GET /none HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    answered_over_several_turns(Port::Admin, chunked);
}

fn answered_over_several_turns(port: Port, request: &[u8]) {
    let edition = edition(1, 10, RouterLimits::default(), |_| {});
    let mut core = core(&edition, port);
    let fake = Fake::says(&request.repeat(500));
    arrive(&mut core, &fake);
    let (mut answered, mut turns) = (0, 0);
    loop {
        let most = count(&fake.take(), b"HTTP/1.1 404 ");
        assert!(most <= 64, "{most} answers in one turn");
        answered += most;
        turns += 1;
        if !core.has_work() {
            break;
        }
        core.run_ready();
    }
    assert_eq!(answered, 500);
    assert!(turns >= 8, "{turns}");
    assert_eq!(core.held.bytes(), 0);
}

#[test]
fn the_largest_message_fits_however_many_loops_there_are() {
    let edition = edition(60, 10, RouterLimits::default(), |_| {});
    let mut core = core(&edition, Port::Client);
    let fake = Fake::says(&upgrade("/echo", ""));
    let key = arrive(&mut core, &fake);
    fake.take();
    let len = edition.settings.limits.echo_bytes_max;
    let mut frame = Vec::new();
    push_frame(&mut frame, Opcode::Binary, &vec![7; len], Some(MASK));
    fake.say(&frame);
    core.on_event(key, READABLE);
    while core.has_work() {
        core.run_ready();
    }
    assert_eq!(core.counters.closes(CloseReason::InboxFull), 0);
    assert!(fake.take().len() > len);
    assert_eq!(
        (core.held.bytes(), edition.inbox_bytes_of(Port::Client).load(std::sync::atomic::Ordering::Relaxed)),
        (0, 0)
    );
}

#[test]
fn publishers_that_wait_for_room_hold_no_more_than_the_bound() {
    const TOTAL: usize = 200_000;
    let mailbox = MailboxLimits { entries_max: 1, ..MailboxLimits::default() };
    let limits = RouterLimits { mailbox, ..RouterLimits::default() };
    let edition = edition(2, 100, limits, |settings| {
        settings.publish.topics = vec!["*".to_owned()];
        settings.limits.inbox_bytes_total = Some(TOTAL);
    });
    // The other loop never turns.
    let topic = edition.router.topic(&TopicName::of("lobby")).unwrap();
    edition.router.join(&topic, 1, Join { local: 0, slot: 0, ticket: Place::NONE }, Since::Now).unwrap();
    edition.router.publish(&topic, Draft::encode(None, true, b"first"), None).unwrap();
    let mut core = core(&edition, Port::Client);
    let mut frames = Vec::new();
    while frames.len() < 60_000 {
        push_frame(&mut frames, Opcode::Text, b"waits", Some(MASK));
    }
    let keys: Vec<_> = (0..20)
        .map(|_| {
            let fake = Fake::says(&upgrade("/ws", ""));
            let key = arrive(&mut core, &fake);
            fake.say(&frames);
            core.on_event(key, READABLE);
            key
        })
        .collect();
    assert!(core.held.bytes() <= TOTAL, "{} bytes", core.held.bytes());
    assert!(core.counters.closes(CloseReason::InboxFull) >= 16);
    assert!(core.slots.get(keys[0]).unwrap().connection.is_blocked(), "the first ones go on waiting");
}

#[test]
fn publishes_that_wait_for_room_count_as_well() {
    const TOTAL: usize = 1 << 20;
    let mailbox = MailboxLimits { entries_max: 1, ..MailboxLimits::default() };
    let limits = RouterLimits { mailbox, ..RouterLimits::default() };
    let edition = edition(2, 100, limits, |settings| {
        settings.publish.topics = vec!["*".to_owned()];
        settings.limits.inbox_bytes_total = Some(TOTAL);
    });
    // The other loop never turns.
    let topic = edition.router.topic(&TopicName::of("lobby")).unwrap();
    edition.router.join(&topic, 1, Join { local: 0, slot: 0, ticket: Place::NONE }, Since::Now).unwrap();
    edition.router.publish(&topic, Draft::encode(None, true, b"first"), None).unwrap();
    let mut core = core(&edition, Port::Client);
    // Each a message that comes in one piece, and nothing behind it.
    let mut frame = Vec::new();
    push_frame(&mut frame, Opcode::Binary, &[7; 60_000], Some(MASK));
    let keys: Vec<_> = (0..40)
        .map(|_| {
            let fake = Fake::says(&upgrade("/ws", ""));
            core.run_ready();
            let key = arrive(&mut core, &fake);
            fake.say(&frame);
            core.on_event(key, READABLE);
            key
        })
        .collect();
    let waiting = |core: &mut Core<Fake>| {
        keys.iter()
            .filter(|key| core.slots.get(**key).is_some_and(|slot| slot.connection.is_blocked()))
            .count()
    };
    assert_eq!(waiting(&mut core), 17, "so many fit");
    assert_eq!(core.counters.closes(CloseReason::InboxFull), 40 - 17);
    assert!((17 * 60_000..=TOTAL).contains(&core.held.bytes()), "{} bytes", core.held.bytes());
    // However they end, nothing is left of it.
    core.close(keys[0], CloseReason::Admin, Words::Own);
    core.end(keys[1], CloseReason::Admin, Words::Own);
    core.abort(keys[2], CloseReason::PeerReset);
    assert_eq!(waiting(&mut core), 14);
    assert!(core.held.bytes() < 15 * 60_000, "{} bytes", core.held.bytes());
    let other = edition.router.mailbox(1).unwrap();
    let mut entries = Vec::new();
    for _ in 0..100 {
        other.drain(&mut entries);
        for entry in entries.drain(..) {
            if let Entry::Deliver { message, .. } = entry {
                other.release(1, message.frame_len() as u64);
            }
        }
        core.run_blocked();
        settle_topics(&mut core);
    }
    assert_eq!((waiting(&mut core), core.counters.publishes.value()), (0, 14));
    assert_eq!(core.held.bytes(), 0);
}

fn settle_topics(core: &mut Core<Fake>) {
    core.drain_mailbox(|_| {});
    while core.topics.has_work() {
        core.fanout_turn();
    }
}

#[test]
fn heads_that_are_there_in_part_count_as_well() {
    let edition = edition(1, 100, RouterLimits::default(), |settings| {
        settings.limits.inbox_bytes_total = Some(50_000);
    });
    let mut core = core(&edition, Port::Client);
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Padding: {}", "x".repeat(7_000));
    let fakes: Vec<_> = (0..20).map(|_| Fake::says(head.as_bytes())).collect();
    fakes.iter().for_each(|fake| {
        arrive(&mut core, fake);
    });
    assert!((1..=50_000).contains(&core.held.bytes()), "{}", core.held.bytes());
    assert!(core.counters.refusals(RefuseReason::InboxFull) >= 12);
    assert!(fakes[19].take().starts_with(b"HTTP/1.1 503 "));
    for fake in &fakes {
        fake.end();
    }
    core.set_now(1_000);
    core.run_ready();
    core.sweep();
    core.run_ready();
    assert_eq!((core.connections(), core.held.bytes()), (0, 0));
}

#[test]
fn those_who_are_refused_take_nobodys_place() {
    let edition = edition(1, 2, RouterLimits::default(), |_| {});
    let mut core = core(&edition, Port::Client);
    let admitted = [Fake::says(&upgrade("/echo", "")), Fake::says(&upgrade("/echo", ""))];
    let keys = [arrive(&mut core, &admitted[0]), arrive(&mut core, &admitted[1])];
    for _ in 0..8 {
        let arrival = core.admit(Ipv4Addr::LOCALHOST.into(), false);
        assert_eq!(arrival.refused, Some(RefuseReason::AtCapacity));
        assert!(core.may_refuse_properly());
        core.on_accepted(Fake::default(), arrival);
    }
    assert_eq!((core.connections(), core.admitted()), (10, 2));
    for (fake, key) in admitted.iter().zip(keys) {
        fake.end();
        core.on_event(key, ENDED);
    }
    assert_eq!(core.admit(Ipv4Addr::LOCALHOST.into(), false).refused, None, "there is room");
}

#[test]
fn a_heartbeat_that_a_reload_turns_on_is_spread() {
    const CONNECTIONS: u32 = 5_000;
    let first = edition(1, 10_000, RouterLimits::default(), |settings| {
        settings.timeouts.heartbeat = Duration::ZERO;
    });
    let mut core = core(&first, Port::Client);
    core.set_now(1);
    let request = upgrade("/echo", "");
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS {
        let fake = Fake::says(&request);
        open.push((arrive(&mut core, &fake), fake.clone()));
        fake.take();
    }
    core.set_now(10_000);
    core.sweep();
    let mut settings = first.settings.clone();
    settings.timeouts.heartbeat = Duration::from_secs(25);
    core.on_reload(Arc::new(first.with_settings(settings).unwrap()));
    let mut pong = Vec::new();
    push_frame(&mut pong, Opcode::Pong, b"", Some(MASK));
    let (mut before, mut most) = (0, 0);
    for now in 10_001..10_001 + 3 * 250 {
        core.set_now(now);
        core.reload_turn();
        core.sweep();
        let sent = core.counters.heartbeats_sent.value();
        most = most.max(sent - before);
        before = sent;
        for (key, fake) in &open {
            if !fake.take().is_empty() {
                fake.say(&pong);
                core.on_event(*key, READABLE);
            }
        }
    }
    assert!(before >= u64::from(CONNECTIONS) * 2, "{before} pings");
    // Twenty a tick on average.
    assert!(most <= 100, "{most} pings in one tick");
}

#[test]
fn a_request_whose_head_is_there_is_answered_though_a_reload_lowers_its_bound() {
    let first = edition(1, 10, RouterLimits::default(), |_| {});
    let mut core = core(&first, Port::Admin);
    let head = format!(
        "POST /publish/a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\nX-Padding: {}\r\n\r\n",
        "x".repeat(1_000)
    );
    let fake = Fake::says(head.as_bytes());
    let key = arrive(&mut core, &fake);
    let mut settings = first.settings.clone();
    settings.limits.head_bytes_max = 512;
    core.on_reload(Arc::new(first.with_settings(settings).unwrap()));
    fake.say(b"hi");
    core.on_event(key, READABLE);
    assert!(fake.take().starts_with(b"HTTP/1.1 200 "));
}

#[test]
fn a_publisher_that_waits_for_room_is_not_expected_to_answer_pings() {
    let mailbox = MailboxLimits { entries_max: 1, ..MailboxLimits::default() };
    let limits = RouterLimits { mailbox, ..RouterLimits::default() };
    let edition = edition(2, 100, limits, |settings| settings.publish.topics = vec!["*".to_owned()]);
    let topic = edition.router.topic(&TopicName::of("lobby")).unwrap();
    edition.router.join(&topic, 1, Join { local: 0, slot: 0, ticket: Place::NONE }, Since::Now).unwrap();
    edition.router.publish(&topic, Draft::encode(None, true, b"first"), None).unwrap();
    let mut core = core(&edition, Port::Client);
    let fake = Fake::says(&upgrade("/ws", ""));
    let key = arrive(&mut core, &fake);
    let mut frame = Vec::new();
    push_frame(&mut frame, Opcode::Text, b"waits", Some(MASK));
    fake.say(&frame);
    core.on_event(key, READABLE);
    for now in 0..2_000 {
        core.set_now(now);
        core.run_blocked();
        core.sweep();
    }
    assert!(core.slots.get(key).is_some_and(|slot| slot.connection.is_open()));
    let mut entries = Vec::new();
    let other = edition.router.mailbox(1).unwrap();
    other.drain(&mut entries);
    for entry in entries {
        if let Entry::Deliver { message, .. } = entry {
            other.release(1, message.frame_len() as u64);
        }
    }
    core.run_blocked();
    assert_eq!(core.counters.publishes.value(), 1);
}

#[test]
fn many_small_messages_that_inflate_are_not_one_turn() {
    const PEERS: usize = 20;
    let edition = edition(1, 100, RouterLimits::default(), |_| {});
    let mut core = core(&edition, Port::Client);
    let mut frame = Vec::new();
    let mut deflater = Deflater::new(9, 1);
    let payload = deflater.try_deflate(&vec![0; 1 << 20]).unwrap();
    assert!(payload.len() < 5_000);
    push_deflated_frame(&mut frame, Opcode::Binary, payload, Some(MASK));
    let request = upgrade("/echo", "Sec-WebSocket-Extensions: permessage-deflate\r\n");
    let peers: Vec<_> = (0..PEERS)
        .map(|_| {
            let fake = Fake::says(&request);
            let key = arrive(&mut core, &fake);
            fake.say(&frame);
            (key, fake)
        })
        .collect();
    core.run_ready();
    peers.iter().for_each(|(key, _)| core.on_event(*key, READABLE));
    let mut last = core.counters.messages_received.value();
    assert!((1..=3).contains(&last), "{last} megabytes in one poll's events");
    while core.has_work() {
        core.run_ready();
        let now = core.counters.messages_received.value();
        assert!(now - last <= 2);
        last = now;
    }
    assert_eq!(last, PEERS as u64);
}

#[test]
fn the_client_port_awaits_no_body() {
    let edition = edition(1, 10, RouterLimits::default(), |_| {});
    let mut core = core(&edition, Port::Client);
    for framing in
        ["Transfer-Encoding: chunked", "Content-Length: 1", "Expect: 100-continue\r\nContent-Length: 1"]
    {
        let fake = Fake::says(format!("GET / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n").as_bytes());
        arrive(&mut core, &fake);
        let answer = fake.take();
        assert!(answer.starts_with(b"HTTP/1.1 200 "), "{framing}");
        assert_eq!(count(&answer, b"\r\nConnection: close\r\n"), 1, "{framing}");
    }
}

#[test]
fn patterns_of_which_only_parts_come_are_bounded_too() {
    let edition = edition(1, 10, RouterLimits::default(), |settings| settings.limits.patterns_max = 2);
    let mut core = core(&edition, Port::Client);
    let key = arrive(&mut core, &Fake::says(&upgrade("/ws", "")));
    // To who has shown no token nothing comes by such rules.
    let policy = TopicPolicy { subscribe: Access::Identified, ..TopicPolicy::default() };
    edition.router.set_rules(TopicRules::new(Vec::new(), Vec::new(), policy));
    core.topics.take_rules();
    let mut watch = |text| core.watch(key, &LevelPattern::parse(text).unwrap()).map(drop);
    assert_eq!(["a/*", "*/b"].map(&mut watch), [Ok(()), Ok(())]);
    assert_eq!(watch("*/*"), Err(RouterError::PatternsFull));
    core.unsubscribe_all(key.slot);
    assert_eq!(core.topics.asides(), 0);
    assert!(core.watch(key, &LevelPattern::parse("*/*").unwrap()).is_ok());
}

#[test]
fn deadlines_that_strike_at_once_are_acted_on_over_several_turns() {
    const CONNECTIONS: usize = 5_000;
    let edition = edition(1, 10_000, RouterLimits::default(), |settings| {
        settings.admission.handshakes_max = CONNECTIONS;
    });
    let mut core = core(&edition, Port::Client);
    // A machine so busy that each part of a turn is over as soon as it looks at the clock.
    core.set_clock(|| {
        NOW_NS.set(NOW_NS.get() + 10_000_000);
        NOW_NS.get()
    });
    let fakes: Vec<_> = (0..CONNECTIONS).map(|_| Fake::says(b"GET /")).collect();
    let keys: Vec<_> = fakes.iter().map(|fake| arrive(&mut core, fake)).collect();
    assert!(core.sleep_ms(0).is_some_and(|ms| ms > 0), "nothing is due yet");
    core.set_now(1_000);
    let (mut ended, mut turns) = (0, 0);
    while ended < CONNECTIONS {
        core.sweep();
        let now = fakes.iter().filter(|fake| !fake.take().is_empty()).count();
        assert!((1..=64).contains(&now), "{now} in one turn");
        ended += now;
        turns += 1;
        if turns == 1 {
            // Found in the same look as the others and not served yet: it was heard in time.
            core.slots.get(keys[700]).unwrap().connection.heard = 1_000;
            ended += 1;
        }
        assert!(core.has_work() || core.sleep_ms(100_000) == Some(0) || ended == CONNECTIONS);
    }
    assert!(turns > CONNECTIONS / 64);
    assert!(core.slots.get(keys[700]).is_some_and(|slot| slot.connection.phase() == Phase::Head));
    for fake in &fakes {
        fake.end();
    }
    core.set_now(2_000);
    let mut turns = 0;
    // Who is ended by the sweep may be on the ready list still.
    while core.connections() > 0 || core.has_work() {
        core.run_ready();
        core.sweep();
        turns += 1;
        assert!(turns < CONNECTIONS, "work that does not end");
    }
    core.set_now(3_000);
    core.sweep();
    assert_eq!(core.sleep_ms(300_000), None, "nothing is due, so there is no timeout");
}

#[test]
fn requests_behind_an_answer_that_is_read_slowly_are_not_late() {
    let edition = edition(1, 10, RouterLimits::default(), |settings| {
        settings.timeouts.handshake = Duration::from_secs(2);
        settings.timeouts.keep_alive = Duration::from_secs(2);
    });
    let mut core = core(&edition, Port::Admin);
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    // With a whole request behind the first, with a part of one, and with nothing.
    for behind in [request.as_slice(), &request[..20], b""] {
        let fake = Fake::says(&[request, behind].concat());
        fake.has_room(Some(100));
        let key = arrive(&mut core, &fake);
        let start = core.now;
        for now in start..start + 300 {
            core.set_now(now);
            fake.has_room(Some(10));
            core.on_event(key, WRITABLE);
            core.run_ready();
            core.sweep();
        }
        assert!(core.slots.get(key).is_some_and(|slot| slot.connection.has_backlog()), "it is still reading");
        fake.has_room(None);
        core.on_event(key, WRITABLE);
        core.run_ready();
        fake.say(&request[behind.len() % request.len()..]);
        core.on_event(key, READABLE);
        core.run_ready();
        let heard = fake.take();
        let answers = if behind.len() == request.len() { 3 } else { 2 };
        assert_eq!((count(&heard, b"HTTP/1.1 200 "), count(&heard, b"HTTP/1.1 ")), (answers, answers));
        // Once it has read everything, its time counts from there.
        core.set_now(core.now + 10);
        core.sweep();
        assert!(core.slots.get(key).is_some_and(|slot| slot.connection.phase() == Phase::Head));
        core.set_now(core.now + 30);
        core.sweep();
        assert!(core.slots.get(key).is_none_or(|slot| slot.connection.phase() == Phase::Lingering));
    }
}

/// A subscriber that has messages of its topic waiting and reads a little now and then.
#[test]
fn messages_that_wait_do_not_keep_a_peer_from_being_read() {
    let edition = edition(1, 10, RouterLimits::default(), |settings| {
        settings.publish.topics = vec!["*".to_owned()];
    });
    let mut core = core(&edition, Port::Client);
    let fake = Fake::says(&upgrade("/ws", ""));
    let key = arrive(&mut core, &fake);
    fake.take();
    core.drain_mailbox(|_| {});
    core.fanout_turn();
    let topic = edition.router.topic(&TopicName::of("lobby")).unwrap();
    let turn = |core: &mut Core<Fake>, room: usize| {
        // More comes than it reads.
        edition.router.publish(&topic, Draft::encode(None, true, &[0; 5_000]), None).unwrap();
        fake.has_room(Some(room));
        core.drain_mailbox(|_| {});
        core.fanout_turn();
        core.on_event(key, WRITABLE);
        core.run_ready();
        assert!(core.slots.get(key).unwrap().connection.has_backlog());
        fake.take()
    };
    (0..20).for_each(|_| {
        turn(&mut core, 0);
    });
    let mut heard = Vec::new();
    let mut frames = Vec::new();
    for asked in 0..100_u8 {
        frames.clear();
        push_frame(&mut frames, Opcode::Ping, &[asked], Some(MASK));
        push_frame(&mut frames, Opcode::Text, b"x", Some(MASK));
        fake.say(&frames);
        core.on_event(key, READABLE);
        heard.extend(turn(&mut core, 1_000));
    }
    let before = core.counters.publishes.value();
    // It took 100,000 bytes; some pings wait behind what is unread and no more of them than that.
    assert!((16..100).contains(&before), "{before} of 100 were read");
    for _ in 0..600 {
        heard.extend(turn(&mut core, 1_000));
    }
    assert_eq!(core.counters.publishes.value(), 100);
    frames.clear();
    push_frame(&mut frames, Opcode::Close, &1000_u16.to_be_bytes(), Some(MASK));
    fake.say(&frames);
    core.on_event(key, READABLE);
    for _ in 0..400 {
        fake.has_room(Some(1_000));
        core.on_event(key, WRITABLE);
        core.run_ready();
        heard.extend(fake.take());
    }
    assert_eq!(count(&heard, &[0x8a, 1]), 100, "pongs");
    assert!(heard.ends_with(&[0x88, 2, 3, 0xe8]), "a close frame is the last");
}

#[test]
fn who_asked_behind_a_full_mailbox_is_answered_by_a_loop_that_ends() {
    let edition = edition(1, 10, RouterLimits::default(), |_| {});
    let mut core = core(&edition, Port::Client);
    let name = TopicName::of("t");
    let topic = edition.router.topic(&name).unwrap();
    arrive(&mut core, &Fake::says(&upgrade("/ws/t", "")));
    // More than one look takes.
    for _ in 0..3 * ENTRIES_PER_TURN {
        edition.router.publish(&topic, Draft::encode(None, true, b"m"), None).unwrap();
    }
    let from = Asker { loop_index: 1, key: Key { slot: 0, generation: 1 }, ticket: 1 };
    let question = Question::List { filter: Filter::default(), from: 0, limit: 1 };
    let inquiry = Arc::new(Inquiry::new(question, from, 0, 1));
    edition.router.reserve_reply(1).unwrap();
    edition.router.send_control(0, Control::Inquire(Arc::clone(&inquiry)), None).unwrap();
    core.last_turn(&mut Poll::default());
    assert!(edition.router.mailbox(1).is_some_and(|mailbox| mailbox.waiting() == 1), "the reply");
    assert_eq!(inquiry.waits_for(), Vec::<usize>::new());
}
