//! Clients that bring many topics at once: whose joins wait for whose, and how many topics an address may make.

use super::*;

fn topics(names: impl IntoIterator<Item = String>) -> Vec<u8> {
    let pairs: Vec<String> = names.into_iter().map(|name| format!("topic={name}")).collect();
    upgrade(&format!("/ws/first?{}", pairs.join("&")), "")
}

fn settle(core: &mut Core<Fake>) {
    while core.has_work() || core.edition.router.mailbox(0).is_some_and(|mailbox| !mailbox.is_empty()) {
        core.run_ready();
        core.drain_mailbox(|_| {});
        core.fanout_turn();
    }
}

/// Joins that the loop has not listed yet, seen in its mailbox: nothing is filed while the clients arrive.
#[test]
fn requests_wait_for_the_joins_before_them_and_none_is_refused() {
    let limits = RouterLimits { joins_max: 100, ..RouterLimits::default() };
    let edition = edition(1, 10_000, limits, |_| {});
    let mut core = core(&edition, Port::Client);
    let fakes: Vec<Fake> = (0..300)
        .map(|client| {
            let fake = Fake::says(&topics((0..63).map(|topic| format!("{client}-{topic}"))));
            let key = arrive(&mut core, &fake);
            // Whoever waits asks for nothing more, however often there is something to read.
            core.on_event(key, READABLE);
            fake
        })
        .collect();
    let upgraded = |fakes: &[Fake]| fakes.iter().filter(|fake| !fake.0.borrow().output.is_empty()).count();
    assert_eq!(upgraded(&fakes), 2, "64 topics each");
    settle(&mut core);
    assert_eq!((upgraded(&fakes), core.newcomers.len()), (300, 0));
    assert!(fakes.iter().all(|fake| count(&fake.take(), b"HTTP/1.1 101 ") == 1));
    assert_eq!(core.topics.subscriptions(), 300 * 64);
    assert_eq!(core.held.bytes(), 0);
    for slot in 0..300 {
        let connection = &core.slots.at(slot).unwrap().connection;
        assert!(connection.place.is_listed(), "slot {slot}");
    }
}

#[test]
fn who_has_waited_longest_comes_first() {
    let limits = RouterLimits { joins_max: 1, ..RouterLimits::default() };
    let edition = edition(1, 10_000, limits, |_| {});
    let mut core = core(&edition, Port::Client);
    let fakes: Vec<Fake> = (0..3).map(|_| Fake::says(&topics([]))).collect();
    for fake in &fakes {
        arrive(&mut core, fake);
    }
    // Its join is listed; the others wait still as somebody comes who has not waited at all.
    core.drain_mailbox(|_| {});
    core.fanout_turn();
    assert!(core.topics.has_room_for_joins());
    let late = Fake::says(&topics([]));
    arrive(&mut core, &late);
    let mut upgraded = Vec::new();
    while core.has_work() || core.edition.router.mailbox(0).is_some_and(|mailbox| !mailbox.is_empty()) {
        for (name, fake) in fakes.iter().chain([&late]).enumerate() {
            if count(&fake.take(), b"HTTP/1.1 101 ") == 1 {
                upgraded.push(name);
            }
        }
        core.run_ready();
        core.drain_mailbox(|_| {});
        core.fanout_turn();
    }
    upgraded.extend((count(&late.take(), b"HTTP/1.1 101 ") == 1).then_some(3));
    assert_eq!(upgraded, [0, 1, 2, 3]);
}

#[test]
fn whoever_goes_while_it_waits_is_forgotten() {
    let limits = RouterLimits { joins_max: 1, ..RouterLimits::default() };
    let edition = edition(1, 10_000, limits, |_| {});
    let mut core = core(&edition, Port::Client);
    let (first, gone) = (Fake::says(&topics([])), Fake::says(&topics([])));
    arrive(&mut core, &first);
    arrive(&mut core, &gone);
    gone.end();
    settle(&mut core);
    assert_eq!(count(&first.take(), b"HTTP/1.1 101 "), 1);
    assert_eq!((core.connections(), core.topics.subscriptions()), (1, 1));
}

#[test]
fn a_further_request_of_an_idle_connection_has_its_whole_time_to_wait() {
    let limits = RouterLimits { joins_max: 1, ..RouterLimits::default() };
    let edition = edition(1, 10_000, limits, |_| {});
    let mut core = core(&edition, Port::Client);
    let kept = Fake::says(b"GET /none HTTP/1.1\r\nHost: a\r\n\r\n");
    let key = arrive(&mut core, &kept);
    assert_eq!(count(&kept.take(), b"HTTP/1.1 404 "), 1);
    // Idle for longer than a handshake may take.
    core.set_now(core.timeouts.handshake + 20);
    arrive(&mut core, &Fake::says(&topics([])));
    kept.say(&topics([]));
    core.on_event(key, READABLE);
    let began = core.now;
    for tick in 0..core.timeouts.handshake {
        core.set_now(began + tick);
        core.run_ready();
        core.sweep();
        assert_eq!(kept.take(), b"", "after {tick} ticks");
    }
    core.set_now(began + core.timeouts.handshake + 5);
    core.sweep();
    assert_eq!(count(&kept.take(), b"HTTP/1.1 408 "), 1, "and no more than that");
}

#[test]
fn one_address_does_not_make_all_topics() {
    let limits = RouterLimits { topics_max: 100, ..RouterLimits::default() };
    let edition = edition(1, 10_000, limits, |settings| settings.limits.topics_max = 100);
    let mut core = core(&edition, Port::Client);
    let ask = |core: &mut Core<Fake>, address: u8, names: Vec<u8>| {
        let fake = Fake::says(&names);
        let arrival = core.admit(Ipv4Addr::new(192, 0, 2, address).into(), false);
        let key = core.on_accepted(fake.clone(), arrival);
        core.on_event(key, READABLE);
        settle(core);
        (fake, key)
    };
    let own = |from: usize, count: usize| topics((from..from + count).map(|name| format!("own-{name}")));
    // With the first topic, which both have: half of a hundred.
    let (fake, key) = ask(&mut core, 1, own(0, 49));
    assert_eq!(count(&fake.take(), b"HTTP/1.1 101 "), 1);
    let (fake, _) = ask(&mut core, 1, own(49, 1));
    assert_eq!(count(&fake.take(), b"HTTP/1.1 429 "), 1);
    assert_eq!(core.counters.refusals(RefuseReason::TopicShare), 1);
    // What is there already, it may have; and others make theirs.
    let (fake, _) = ask(&mut core, 1, own(0, 1));
    assert_eq!(count(&fake.take(), b"HTTP/1.1 101 "), 1);
    let (fake, _) = ask(&mut core, 2, own(60, 10));
    assert_eq!(count(&fake.take(), b"HTTP/1.1 101 "), 1);
    // When its clients go its topics retire as others need the room, and it may make as many again.
    core.abort(key, CloseReason::PeerReset);
    settle(&mut core);
    for (address, from, names) in [(2, 70, 40), (3, 110, 20), (1, 200, 5)] {
        let (fake, _) = ask(&mut core, address, own(from, names));
        assert_eq!(count(&fake.take(), b"HTTP/1.1 101 "), 1, "{address}");
    }
}

#[test]
fn topics_that_nobody_has_any_more_keep_no_address_from_new_ones() {
    let edition = edition(1, 10_000, RouterLimits::default(), |settings| {
        settings.admission.topics_per_address_max = Some(10);
    });
    let mut core = core(&edition, Port::Client);
    // Far fewer than topics that may be idle, so that nobody else's push them out.
    for round in 0..5 {
        let names = (0..9).map(|topic| format!("{round}-{topic}"));
        let fake = Fake::says(&upgrade(
            &format!("/ws/{round}?topic={}", names.collect::<Vec<_>>().join("&topic=")),
            "",
        ));
        let arrival = core.admit(Ipv4Addr::new(192, 0, 2, 1).into(), false);
        let key = core.on_accepted(fake.clone(), arrival);
        core.on_event(key, READABLE);
        settle(&mut core);
        assert_eq!(count(&fake.take(), b"HTTP/1.1 101 "), 1, "round {round}");
        assert!(edition.router.topics() <= 10);
        core.abort(key, CloseReason::PeerReset);
        settle(&mut core);
    }
}

#[test]
fn one_address_makes_topics_as_fast_as_it_may() {
    let edition = edition(1, 10_000, RouterLimits::default(), |settings| {
        settings.admission.topic_rate = 10;
        settings.admission.topic_burst = 5;
    });
    let mut core = core(&edition, Port::Client);
    let answers = |core: &mut Core<Fake>, name: &str| {
        let fake = Fake::says(&upgrade(&format!("/ws/{name}"), ""));
        arrive(core, &fake);
        settle(core);
        fake.take()
    };
    for number in 0..5 {
        assert_eq!(count(&answers(&mut core, &format!("n{number}")), b"HTTP/1.1 101 "), 1);
    }
    assert_eq!(count(&answers(&mut core, "n5"), b"HTTP/1.1 429 "), 1);
    assert_eq!(core.counters.refusals(RefuseReason::TopicRate), 1);
    assert_eq!(count(&answers(&mut core, "n4"), b"HTTP/1.1 101 "), 1, "it is there");
    core.set_now(1);
    assert_eq!(count(&answers(&mut core, "n5"), b"HTTP/1.1 101 "), 1, "ten a second");
}
