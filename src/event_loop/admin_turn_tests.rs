//! The admin loop and one client loop without a kernel: answers that come, come late, or never come.

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use crate::config::Settings;
use crate::connection::deadline::ANSWER_TICKS;
use crate::edition::Router;
use crate::edition::{Edition, Port};
use crate::event_loop::admission::Arrival;
use crate::event_loop::core::{Core, Readiness};
use crate::topic::{Draft, Join, Key, MailboxLimits, Place, RouterLimits, Since, TopicName, Wake};
use crate::transport::{Received, Socket};

use fantail_test_support::planted::{self, Planted};

impl<S: Socket> Core<S> {
    /// With this fault planted, an answer to whoever is gone, or does not wait for it any more, becomes one to whoever waits
    /// for another in the same slot.
    pub(super) fn with_planted_stale_reply(&mut self, key: Key, ticket: u32) -> (Key, u32) {
        let Some(slot) = self.slots.at(key.slot) else { return (key, ticket) };
        let there = Key { generation: slot.generation, ..key };
        let asking = slot.connection.parked().and_then(|parked| parked.asking.as_deref());
        match asking.and_then(|asking| asking.inquiry.as_deref()).map(|inquiry| inquiry.from.ticket) {
            Some(other) if other != ticket && planted::strikes(Planted::StaleReply) => (there, other),
            _ => (key, ticket),
        }
    }
}

struct NoWake;

impl Wake for NoWake {
    fn wake(&self, _: usize) {}
}

/// What a test puts in and what came out; with the flag set nothing goes out.
#[derive(Clone, Default)]
struct FakeSocket(Rc<RefCell<(Vec<u8>, Vec<u8>)>>, Rc<Cell<bool>>);

impl FakeSocket {
    fn put(&self, text: &str) {
        self.0.borrow_mut().0.extend_from_slice(text.as_bytes());
    }

    fn take(&self) -> String {
        String::from_utf8(std::mem::take(&mut self.0.borrow_mut().1)).unwrap()
    }
}

impl Socket for FakeSocket {
    type Shared = ();

    fn read(&mut self, (): &mut (), into: &mut [u8]) -> io::Result<Received> {
        let mut pipe = self.0.borrow_mut();
        let count = pipe.0.len().min(into.len());
        if count == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        for (place, byte) in into.iter_mut().zip(pipe.0.drain(..count)) {
            *place = byte;
        }
        Ok(Received::Bytes { count, more: count == into.len() })
    }

    fn write(&mut self, (): &mut (), bytes: &[u8]) -> io::Result<usize> {
        if self.1.get() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.0.borrow_mut().1.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn end(&mut self, (): &mut ()) -> io::Result<()> {
        Ok(())
    }
}

struct World {
    client: Core<FakeSocket>,
    admin: Core<FakeSocket>,
    edition: Arc<Edition>,
    now: u32,
}

impl World {
    fn new() -> Self {
        Self::with(RouterLimits::default())
    }

    fn with(limits: RouterLimits) -> Self {
        let router = Router::new(2, limits, Box::new(NoWake)).unwrap();
        let edition = Edition::new(Settings::default(), Arc::new(router), 1, 1_000_000).unwrap();
        let edition = Arc::new(edition);
        Self {
            client: Core::new(0, Port::Client, Arc::clone(&edition)).unwrap(),
            admin: Core::new(1, Port::Admin, Arc::clone(&edition)).unwrap(),
            edition,
            now: 1,
        }
    }

    fn ask(&mut self, text: &str) -> (FakeSocket, Key) {
        let socket = FakeSocket::default();
        let key = self.admin.on_accepted(socket.clone(), Arrival::default());
        socket.put(text);
        self.admin.on_event(key, READABLE);
        (socket, key)
    }

    fn turn_admin(&mut self) {
        turn(&mut self.admin, self.now);
    }

    fn turn_client(&mut self) {
        turn(&mut self.client, self.now);
    }
}

const READABLE: Readiness = Readiness { readable: true, writable: false, read_closed: false, error: false };
const WRITABLE: Readiness = Readiness { readable: false, writable: true, read_closed: false, error: false };
const BROKEN: Readiness = Readiness { readable: true, writable: true, read_closed: true, error: true };
const LIST: &str = "GET /connections HTTP/1.1\r\nHost: localhost\r\n\r\n";

fn turn(core: &mut Core<FakeSocket>, now: u32) {
    core.set_now(now);
    core.run_ready();
    core.drain_mailbox(|_| {});
    core.sweep();
    core.inquiry_turn();
    core.batch_turn();
}

#[test]
fn a_loop_that_does_not_answer_is_named() {
    let mut world = World::new();
    let (socket, _) = world.ask(LIST);
    while world.now < ANSWER_TICKS {
        world.turn_admin();
        assert_eq!(socket.take(), "", "at tick {}", world.now);
        assert!(world.admin.sleep_ms(0).is_some(), "the admin loop has a deadline to wake for");
        world.now += 1;
    }
    for _ in 0..10 {
        world.now += 1;
        world.turn_admin();
    }
    let answer = socket.take();
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert!(answer.contains("loop 0 did not answer"), "{answer}");
    // The answer that comes after all finds nobody.
    world.turn_client();
    world.turn_admin();
    assert_eq!(socket.take(), "");
    let (second, _) = world.ask(LIST);
    world.turn_client();
    world.turn_admin();
    assert!(second.take().starts_with("HTTP/1.1 200 "), "the next one is answered");
}

#[test]
fn a_loop_that_is_drained_is_neither_asked_nor_stuck() {
    let mut world = World::new();
    world.edition.health[0].wakes(1_000);
    assert_eq!(world.edition.stuck_loop(9_000), Some(0));
    world.edition.health[0].ends();
    assert_eq!(world.edition.stuck_loop(9_000), None);
    let (socket, _) = world.ask(LIST);
    let answer = socket.take();
    assert!(answer.ends_with("{\"connections\":[],\"next\":null}\n"), "{answer}");
}

#[test]
fn an_answer_for_a_connection_that_is_gone_is_a_stale_key() {
    let mut world = World::new();
    let (first, key) = world.ask(LIST);
    world.admin.on_event(key, BROKEN);
    assert_eq!(world.admin.connections(), 0, "a broken stream is not kept waiting");
    // Its slot is another's by now.
    let (second, other) = world.ask("GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert_eq!(key.slot, other.slot);
    assert!(second.take().contains("ok\n"));
    world.turn_client();
    world.turn_admin();
    assert_eq!((first.take(), second.take()), (String::new(), String::new()));
}

#[test]
fn questions_on_their_way_are_bounded() {
    let mut world = World::new();
    let waiting: Vec<_> = (0..64).map(|_| world.ask(LIST).0).collect();
    let (refused, _) = world.ask(LIST);
    assert!(refused.take().starts_with("HTTP/1.1 503 "));
    for _ in 0..64 {
        world.turn_client();
    }
    world.turn_admin();
    assert!(waiting.iter().all(|socket| socket.take().starts_with("HTTP/1.1 200 ")));
    assert!(!world.client.has_work());
    let (after, _) = world.ask(LIST);
    world.turn_client();
    world.turn_admin();
    assert!(after.take().starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_peer_that_does_not_read_holds_up_its_own_batch_only() {
    const LINES: usize = 60_000;
    let mut world = World::new();
    let body = "{\"topic\":\"a\",\"payload\":\"x\"}\n".repeat(LINES);
    let request =
        format!("POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let mut sockets = Vec::new();
    for index in 0..4 {
        let socket = FakeSocket::default();
        socket.1.set(index % 2 == 0);
        let key = world.admin.on_accepted(socket.clone(), Arrival::default());
        socket.put(&request);
        world.admin.on_event(key, READABLE);
        sockets.push((socket, key));
    }
    let finish = |world: &mut World| {
        let mut turns = 0;
        while world.admin.has_work() {
            world.turn_admin();
            turns += 1;
            assert!(turns < 100_000, "it never ends");
        }
    };
    finish(&mut world);
    let lines = |text: &str| text.matches("\"offset\"").count();
    for (index, (socket, _)) in sockets.iter().enumerate() {
        let text = socket.take();
        assert_eq!(lines(&text), if index % 2 == 0 { 0 } else { LINES });
    }
    for (socket, key) in &sockets {
        socket.1.set(false);
        world.admin.on_event(*key, WRITABLE);
    }
    finish(&mut world);
    for (index, (socket, _)) in sockets.iter().enumerate() {
        let text = socket.take();
        assert_eq!(lines(&text), if index % 2 == 0 { LINES } else { 0 });
        assert!(index % 2 == 1 || text.ends_with("0\r\n\r\n"));
    }
}

#[test]
fn a_batch_goes_on_for_a_peer_that_reads_its_answer_slowly() {
    const LINES: usize = 60_000;
    let mut world = World::new();
    let body = "{\"topic\":\"a\",\"payload\":\"x\"}\n".repeat(LINES);
    let request =
        format!("POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let (socket, key) = world.ask(&request);
    let mut text = String::new();
    for _ in 0..8 {
        socket.1.set(true);
        for _ in 0..100 {
            world.turn_admin();
        }
        // Longer than an answer may take, and shorter than a write may.
        world.now += ANSWER_TICKS + 10;
        world.admin.set_now(world.now);
        socket.1.set(false);
        world.admin.on_event(key, WRITABLE);
        text.push_str(&socket.take());
        world.turn_admin();
        assert_eq!(world.admin.connections(), 1, "after {} bytes", text.len());
    }
    while world.admin.has_work() {
        world.turn_admin();
    }
    text.push_str(&socket.take());
    assert_eq!(text.matches("\"offset\"").count(), LINES);
    assert!(text.ends_with("0\r\n\r\n"));
}

#[test]
fn a_batch_whose_answer_nobody_reads_keeps_no_room_from_others() {
    let mailbox = MailboxLimits { entries_max: 2, ..MailboxLimits::default() };
    let mut world = World::with(RouterLimits { mailbox, ..RouterLimits::default() });
    let router = Arc::clone(&world.edition.router);
    let topic = router.topic(&TopicName::of("a")).unwrap();
    router.join(&topic, 0, Join { local: 0, slot: 0, ticket: Place::NONE }, Since::Now).unwrap();
    let body = "{\"topic\":\"a\",\"payload\":\"x\"}\n".repeat(10);
    let request =
        format!("POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let socket = FakeSocket::default();
    socket.1.set(true);
    let key = world.admin.on_accepted(socket.clone(), Arrival::default());
    socket.put(&request);
    world.admin.on_event(key, READABLE);
    world.turn_admin();
    world.turn_client();
    let publish = || router.publish(&topic, Draft::encode(None, true, b"y"), Some(0)).is_ok();
    assert!(publish() && publish(), "the loop has made room, and the batch does not ask for it");
    // Once the peer reads, the batch comes first again, and to its end.
    socket.1.set(false);
    world.admin.on_event(key, WRITABLE);
    let mut text = String::new();
    for _ in 0..20 {
        world.turn_admin();
        world.turn_client();
        text.push_str(&socket.take());
    }
    assert_eq!(text.matches("\"offset\"").count(), 10, "{text}");
}

#[test]
fn batches_whose_answers_nobody_reads_keep_no_others_out() {
    const LINES: usize = 3_000;
    let mut world = World::new();
    let body = "{\"topic\":\"a\",\"payload\":\"x\"}\n".repeat(LINES);
    let request =
        format!("POST /publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    let send = |world: &mut World, reads: bool| {
        let socket = FakeSocket::default();
        socket.1.set(!reads);
        let key = world.admin.on_accepted(socket.clone(), Arrival::default());
        socket.put(&request);
        world.admin.on_event(key, READABLE);
        while world.admin.has_work() {
            world.turn_admin();
        }
        (socket, key)
    };
    let lazy: Vec<_> = (0..40).map(|_| send(&mut world, false)).collect();
    for _ in 0..3 {
        let text = send(&mut world, true).0.take();
        assert!(text.starts_with("HTTP/1.1 200 "), "{text}");
        assert_eq!(text.matches("\"offset\"").count(), LINES);
    }
    for (socket, key) in lazy {
        socket.1.set(false);
        world.admin.on_event(key, WRITABLE);
        while world.admin.has_work() {
            world.turn_admin();
        }
        assert_eq!(socket.take().matches("\"offset\"").count(), LINES, "none was refused");
    }
}

#[test]
fn a_listing_of_many_takes_many_short_turns() {
    let mut world = World::new();
    for _ in 0..20_000 {
        world.client.on_accepted(FakeSocket::default(), Arrival::default());
    }
    let (socket, _) = world.ask("GET /connections?topic=none HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut turns = 0;
    let answer = loop {
        turns += 1;
        world.turn_client();
        world.turn_admin();
        let answer = socket.take();
        if !answer.is_empty() {
            break answer;
        }
        assert!(world.client.has_work() && turns < 1_000);
    };
    assert!(turns >= 20, "{turns} turns");
    assert!(answer.ends_with("{\"connections\":[],\"next\":null}\n"), "{answer}");
}
