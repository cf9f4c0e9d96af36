//! What an idle connection costs, counted by the allocator: no allocation of its own, few bytes, and all of it
//! given back. Drives the real loop core over streams that are always idle.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fantail::config::Settings;
use fantail::connection::SLOT_ENTRY_BYTES;
use fantail::edition::Router;
use fantail::edition::{Edition, Port};
use fantail::event_loop::PAGE_SLOTS;
use fantail::event_loop::core::{Core, Readiness};
use fantail::event_loop::run::TrimRequest;
use fantail::event_loop::turn::Driver;
use fantail::topic::{Key, RouterLimits, TopicName, Wake};
use fantail::transport::{Received, Socket};
use fantail_test_support::counting_alloc::CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// User memory of one idle, subscribed connection, everything counted.
const BYTES_PER_CONNECTION_MAX: usize = 96;

const HEAD: &[u8] =
    b"GET /ws/news HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

const DEFLATE_HEAD: &[u8] =
    b"GET /ws/news HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";

/// Whether peers offer compression.
static DEFLATE: AtomicBool = AtomicBool::new(false);

/// Whether every peer has ended its stream.
static ENDED: AtomicBool = AtomicBool::new(false);

/// Where a stream is; as small as the descriptor it stands for, and with its niche.
#[derive(Clone, Copy)]
enum State {
    HeadSent,
    Idle,
}

/// A stream whose peer upgrades, says nothing more and takes everything.
struct IdleSocket {
    state: State,
    _descriptor: [u8; 3],
}

impl Socket for IdleSocket {
    type Shared = ();

    fn read(&mut self, (): &mut (), into: &mut [u8]) -> io::Result<Received> {
        match self.state {
            State::HeadSent => {
                self.state = State::Idle;
                let head = if DEFLATE.load(Ordering::Relaxed) { DEFLATE_HEAD } else { HEAD };
                into[..head.len()].copy_from_slice(head);
                Ok(Received::Bytes { count: head.len(), more: false })
            }
            State::Idle if ENDED.load(Ordering::Relaxed) => Ok(Received::End),
            State::Idle => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn write(&mut self, (): &mut (), bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn end(&mut self, (): &mut ()) -> io::Result<()> {
        Ok(())
    }
}

struct NoWake;

impl Wake for NoWake {
    fn wake(&self, _: usize) {}
}

/// Stands for the poll and the listener: there is neither.
struct Nothing;

impl Driver<IdleSocket> for Nothing {
    fn take_events(&mut self, _: &mut Core<IdleSocket>) {}

    fn accept_turn(&mut self, _: &mut Core<IdleSocket>) {}

    fn on_reload(&mut self, _: &mut Core<IdleSocket>) -> Arc<Edition> {
        unreachable!("nothing is reloaded")
    }

    fn leave(&mut self, _: &mut Core<IdleSocket>) {}

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

fn turn(core: &mut Core<IdleSocket>) {
    core.turn(0, &mut Nothing);
    while core.has_work() {
        core.turn(0, &mut Nothing);
    }
}

/// Lets `count` more connections come, upgrade and be listed.
fn open(core: &mut Core<IdleSocket>, keys: &mut Vec<Key>, count: usize) {
    for at in 0..count {
        // Each from an address of its own, with the default cap on.
        let arrival = core.admit(IpAddr::from((keys.len() as u32).to_be_bytes()), false);
        assert_eq!(arrival.refused, None);
        let key = core.on_accepted(IdleSocket { state: State::HeadSent, _descriptor: [0; 3] }, arrival);
        core.on_event(key, Readiness { readable: true, writable: true, ..Readiness::default() });
        keys.push(key);
        if at % 512 == 511 {
            turn(core);
        }
    }
    turn(core);
}

fn measure() -> (usize, usize) {
    (ALLOCATOR.live(), ALLOCATOR.bytes())
}

/// What this thread alone allocates is counted.
#[test]
fn an_idle_connection_owns_no_allocation_and_gives_everything_back() {
    const _: () = assert!(SLOT_ENTRY_BYTES <= 64);
    assert_eq!(size_of::<IdleSocket>(), size_of::<fantail::transport::Stream>());
    for deflate in [false, true] {
        DEFLATE.store(deflate, Ordering::Relaxed);
        measure_idle(deflate);
    }
}

/// Opens and closes on a fresh loop; with `deflate` every connection has negotiated compression.
fn measure_idle(deflate: bool) {
    let router = Arc::new(Router::new(2, RouterLimits::default(), Box::new(NoWake)).expect("two loops"));
    let edition = Arc::new(Edition::new(Settings::default(), router, 1, 100_000).expect("default patterns"));
    let mut core = Core::new(0, Port::Client, Arc::clone(&edition)).expect("loop 0 exists");
    let mut keys = Vec::with_capacity(20_000);
    // One round first: buffers that the loop keeps for good are not the connections'.
    open(&mut core, &mut keys, 1_024);
    leave(&mut core, &mut keys);
    let start = measure();
    open(&mut core, &mut keys, 10_000);
    let at_10_000 = measure();
    open(&mut core, &mut keys, 10_000);
    let at_20_000 = measure();
    assert_eq!(edition.counters_of(0).upgrades.value(), 21_024);
    let subscribers = edition.router.find(&TopicName::of("news")).map(|topic| topic.subscribers());
    assert_eq!(subscribers, Some(20_000));
    assert_eq!(edition.router.find(&TopicName::of("news")).map(|topic| topic.has_deflate()), Some(deflate));

    // Lists are replaced when they grow; only pages are added.
    let pages = 20_000usize.div_ceil(PAGE_SLOTS) - 10_000usize.div_ceil(PAGE_SLOTS);
    assert_eq!(at_20_000.0 - at_10_000.0, pages, "allocations that came with 10,000 more connections");
    for (from, to, count) in [(start, at_10_000, 10_000), (at_10_000, at_20_000, 10_000)] {
        let each = (to.1 - from.1).div_ceil(count);
        assert!(each <= BYTES_PER_CONNECTION_MAX, "{each} bytes a connection");
    }

    leave(&mut core, &mut keys);
    assert_eq!(core.connections(), 0);
    let end = measure();
    let kept = end.1.saturating_sub(start.1);
    assert!(kept <= 64 * 1024, "{kept} bytes kept after everybody left");
    assert!(end.0 <= start.0 + 8, "{} allocations kept after everybody left", end.0 - start.0);
}

/// Everybody's stream ends.
fn leave(core: &mut Core<IdleSocket>, keys: &mut Vec<Key>) {
    ENDED.store(true, Ordering::Relaxed);
    for key in keys.drain(..) {
        core.on_event(
            key,
            Readiness { readable: true, error: true, read_closed: true, ..Readiness::default() },
        );
    }
    turn(core);
    ENDED.store(false, Ordering::Relaxed);
}
