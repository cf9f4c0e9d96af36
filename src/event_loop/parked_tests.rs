//! Requests that wait, on either port: how they end, and what of their peers is read meanwhile.

use super::*;
use crate::http;

/// A kept connection of the client port whose next request waits for at most `ticks`.
fn parked(core: &mut Core<Fake>, ticks: Tick) -> (Key, Fake) {
    let fake = Fake::default();
    let key = arrive(core, &fake);
    assert!(core.park(key, ticks, true, &http::Asker::default()));
    (key, fake)
}

fn phase(core: &mut Core<Fake>, key: Key) -> Option<Phase> {
    core.slots.get(key).map(|slot| slot.connection.phase())
}

const REQUEST: &[u8] = b"GET /none HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn so_many_wait_and_no_more() {
    let edition = edition(1, 10, RouterLimits::default(), |settings| settings.limits.parked_max = 2);
    let mut core = core(&edition, Port::Client);
    let waiting = [parked(&mut core, 1_000), parked(&mut core, 1_000)];
    let late = Fake::default();
    let key = arrive(&mut core, &late);
    assert!(!core.park(key, 1_000, true, &http::Asker::default()));
    assert_eq!(count(&late.take(), b"HTTP/1.1 503 "), 1);
    // One that is answered makes room.
    core.complete(waiting[0].0, true, b"HTTP/1.1 200 OK\r\n\r\n");
    assert!(core.park(waiting[0].0, 1_000, true, &http::Asker::default()));
    assert_eq!(core.parked, 2);
}

#[test]
fn the_end_of_a_stream_frees_who_waits_at_once() {
    let edition = edition(1, 10, RouterLimits::default(), |_| {});
    let mut core = core(&edition, Port::Client);
    let (key, fake) = parked(&mut core, 1_000);
    // Something comes first, and the end behind it; neither with an event of its own.
    fake.say(REQUEST);
    fake.end();
    core.on_event(key, ENDED);
    assert_eq!((core.connections(), core.parked, core.held.bytes()), (0, 0, 0));
    assert_eq!(core.counters.closes(CloseReason::PeerClosed), 1);
    // What it has waited for finds nobody.
    core.complete(key, true, b"HTTP/1.1 200 OK\r\n\r\n");
    assert!(fake.take().is_empty());
}

#[test]
fn an_operator_that_ends_its_side_is_answered_all_it_has_asked() {
    let edition = edition(1, 10, RouterLimits::default(), |_| {});
    let mut core = core(&edition, Port::Admin);
    let (key, fake) = parked(&mut core, 1_000);
    fake.say(b"GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n");
    fake.end();
    core.on_event(key, ENDED);
    assert_eq!(phase(&mut core, key), Some(Phase::Parked));
    assert!(!core.has_work(), "it waits without turning");
    core.complete(key, true, b"first");
    while core.has_work() {
        core.run_ready();
    }
    assert!(fake.take().starts_with(b"firstHTTP/1.1 404 "));
    assert_eq!((core.connections(), core.parked, core.held.bytes()), (0, 0, 0));
}

#[test]
fn one_more_request_is_read_and_answered_behind_the_one_that_waits() {
    let edition = edition(1, 10, RouterLimits::default(), |_| {});
    let mut core = core(&edition, Port::Client);
    let (key, fake) = parked(&mut core, 1_000);
    fake.say(&REQUEST.repeat(2_000));
    core.on_event(key, READABLE);
    (0..10).for_each(|_| core.run_ready());
    let most = edition.settings.limits.head_bytes_max;
    assert!(core.held.bytes() <= 2 * most, "{} bytes are held", core.held.bytes());
    assert!(fake.0.borrow().input.len() >= REQUEST.len() * 2_000 - most);
    assert!(!core.has_work(), "it waits without turning");
    core.complete(key, true, b"first");
    while core.has_work() {
        core.run_ready();
    }
    let heard = fake.take();
    assert!(heard.starts_with(b"firstHTTP/1.1 404 "));
    assert_eq!(count(&heard, b"HTTP/1.1 404 "), 2_000);
    assert_eq!((core.parked, core.held.bytes()), (0, 0));
}

#[test]
fn an_answer_that_has_begun_is_not_followed_by_another() {
    let edition = edition(1, 10, RouterLimits::default(), |settings| {
        settings.limits.inbox_bytes_total = Some(1_000);
    });
    for started in [false, true] {
        let mut core = core(&edition, Port::Client);
        let (key, fake) = parked(&mut core, 1_000);
        core.parked(key).unwrap().started = started;
        arrive(&mut core, &Fake::says(format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(900)).as_bytes()));
        fake.say(&REQUEST.repeat(10));
        core.on_event(key, READABLE);
        assert_eq!(phase(&mut core, key), Some(Phase::Lingering));
        assert_eq!(count(&fake.take(), b"HTTP/1.1 503 "), usize::from(!started));
        assert_eq!(core.parked, 0);
        core.abort(key, CloseReason::Io);
        core.abort(Key { slot: 1, generation: 2 }, CloseReason::Io);
        assert_eq!(core.held.bytes(), 0);
    }
}

#[test]
fn each_waits_as_long_as_it_was_given() {
    let edition = edition(1, 10, RouterLimits::default(), |_| {});
    let mut core = core(&edition, Port::Client);
    let (short, fake) = parked(&mut core, 20);
    let (long, _) = parked(&mut core, 300);
    for now in 1..=200 {
        core.set_now(now);
        core.sweep();
        core.run_ready();
        if now < 20 {
            assert_eq!(phase(&mut core, short), Some(Phase::Parked), "at {now}");
        }
    }
    assert!(fake.take().starts_with(b"HTTP/1.1 503 "));
    assert_eq!(phase(&mut core, long), Some(Phase::Parked));
    assert_eq!(core.parked, 1);
    // A loop that stood still has not let it wait.
    core.set_now(900);
    core.on_resumed(900);
    core.sweep();
    assert_eq!(phase(&mut core, long), Some(Phase::Parked));
    core.abort(long, CloseReason::Io);
    assert_eq!(core.parked, 0);
}
