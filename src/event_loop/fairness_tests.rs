//! Time and turns: what a flood leaves to a broadcast, who is late when the process has stood still, and who waits for
//! room in a mailbox.

use super::*;

/// How long a broadcast to 2,000 takes while `flooders` send a message whenever theirs came back, in nanoseconds, and
/// how many of theirs come back in a millisecond.
fn broadcast_beside(flooders: usize, all_at_once: bool) -> (u64, f64) {
    const SUBSCRIBERS: usize = 2_000;
    let edition = edition(1, 10_000, RouterLimits::default(), |_| {});
    let mut core = core(&edition, Port::Client);
    core.set_clock(now_ns);
    let mut poll = Poll::default();
    let upgraded = |core: &mut Core<Fake>, path: &str| {
        let fake = Fake::says(&upgrade(path, ""));
        let key = arrive(core, &fake);
        fake.take();
        (key, fake)
    };
    let subscribers: Vec<_> = (0..SUBSCRIBERS).map(|_| upgraded(&mut core, "/ws").1).collect();
    let flooders: Vec<_> = (0..flooders).map(|_| upgraded(&mut core, "/echo")).collect();
    let mut frame = Vec::new();
    push_frame(&mut frame, Opcode::Binary, &[7; 100], Some(MASK));
    let mut echoes = 0;
    let mut turn = |core: &mut Core<Fake>| {
        if poll.events.is_empty() {
            for (key, fake) in &flooders {
                if all_at_once || !fake.take().is_empty() || echoes < flooders.len() {
                    // More than one read takes, or one message.
                    fake.say(&frame.repeat(if all_at_once { 100 } else { 1 }));
                    poll.events.push_back((*key, READABLE));
                }
                echoes += 1;
            }
        }
        core.turn(now_ns(), &mut poll);
        assert!(poll.events.len() < 2_000);
    };
    (0..20).for_each(|_| turn(&mut core));
    let topic = edition.router.topic(&TopicName::of("lobby")).unwrap();
    edition.router.publish(&topic, Draft::encode(None, true, b"news"), None).unwrap();
    let (began, before) = (now_ns(), core.counters.messages_received.value());
    while core.counters.deliveries.value() < SUBSCRIBERS as u64 {
        turn(&mut core);
        assert!(now_ns() - began < 5_000_000_000, "{}", core.counters.deliveries.value());
    }
    let took = now_ns() - began;
    assert!(subscribers.iter().all(|fake| fake.take() == b"\x82\x04news"));
    let messages = core.counters.messages_received.value() - before;
    (took, messages as f64 / (took as f64 / 1e6))
}

#[test]
fn a_flood_of_events_leaves_a_broadcast_its_share_and_the_other_way_round() {
    let (quiet, _) = broadcast_beside(0, false);
    for all_at_once in [false, true] {
        let (took, rate) = broadcast_beside(1_000, all_at_once);
        assert!(took <= 3 * quiet, "{took} ns beside a flood, {quiet} without");
        // Alone a loop echoes 111 in a millisecond when each needs a read and a send.
        assert!(rate >= 30.0, "{rate} echoes a millisecond, {all_at_once}");
    }
}

/// One connection for each timeout that ends one, and what its peer has done in time and nobody has read yet.
#[test]
fn nobody_is_late_whose_answer_has_arrived() {
    let edition = edition(1, 10, RouterLimits::default(), |_| {});
    let frame = |opcode, payload: &[u8]| {
        let mut frame = Vec::new();
        push_frame(&mut frame, opcode, payload, Some(MASK));
        frame
    };
    for in_time in [true, false] {
        let mut core = core(&edition, Port::Client);
        let connect = |core: &mut Core<Fake>, first: &[u8]| {
            let fake = Fake::says(first);
            (arrive(core, &fake), fake)
        };
        let request = b"GET /none HTTP/1.1\r\nHost: a\r\n\r\n";
        let pinged = connect(&mut core, &upgrade("/echo", ""));
        let begun = connect(&mut core, &request[..9]);
        let kept = connect(&mut core, request);
        let full = connect(&mut core, &upgrade("/echo", ""));
        let closing = connect(&mut core, &upgrade("/echo", ""));
        full.1.has_room(Some(0));
        full.1.say(&frame(Opcode::Text, b"echo"));
        core.on_event(full.0, READABLE);
        core.close(closing.0, CloseReason::Admin, crate::event_loop::closing::Words::Own);
        core.run_ready();
        // Until the ping; the others are in time by then.
        let mut now = 0;
        let pings = core.counters.heartbeats_sent.value();
        while core.counters.heartbeats_sent.value() == pings {
            now += 1;
            core.set_now(now);
            for key in [begun.0, kept.0, closing.0] {
                core.slots.get(key).unwrap().connection.heard = now;
            }
            core.slots.get(full.0).unwrap().connection.outbox.as_deref_mut().unwrap().progress = now;
            core.sweep();
        }
        for (_, fake) in [&pinged, &begun, &kept, &full, &closing] {
            fake.take();
        }
        if in_time {
            pinged.1.say(&frame(Opcode::Pong, b""));
            begun.1.say(&request[9..]);
            kept.1.say(request);
            full.1.has_room(None);
            closing.1.say(&frame(Opcode::Close, &1000_u16.to_be_bytes()));
        }
        // The loop was late, and sees its deadlines before its events.
        core.set_now(now + 1_000);
        (0..3).for_each(|_| core.sweep());
        let phase = |core: &mut Core<Fake>, key: Key| core.slots.get(key).map(|slot| slot.connection.phase());
        let reasons = [CloseReason::HeartbeatTimeout, CloseReason::WriteTimeout, CloseReason::CloseTimeout];
        let ended = reasons.map(|reason| core.counters.closes(reason));
        if in_time {
            assert_eq!(ended, [0, 0, 0]);
            assert_eq!(phase(&mut core, pinged.0), Some(Phase::Open));
            assert_eq!(phase(&mut core, full.0), Some(Phase::Open));
            assert!(full.1.take().ends_with(b"\x81\x04echo"));
            assert!(begun.1.take().starts_with(b"HTTP/1.1 404 "), "and no 408");
            assert!(kept.1.take().starts_with(b"HTTP/1.1 404 "));
            assert_eq!(core.counters.closes(CloseReason::Admin), 1, "its close frame was there");
        } else {
            assert_eq!(ended, [1, 1, 1]);
            assert!(begun.1.take().starts_with(b"HTTP/1.1 408 "));
            assert_ne!(phase(&mut core, kept.0), Some(Phase::Head));
        }
        for (_, fake) in [pinged, begun, kept, full, closing] {
            fake.end();
        }
        core.set_now(now + 5_000);
        for now in now + 5_000..now + 6_000 {
            core.set_now(now);
            core.run_ready();
            core.sweep();
        }
        assert_eq!(core.connections(), 0);
    }
}

#[test]
fn timeouts_begin_anew_when_the_process_has_stood_still() {
    let edition = edition(1, 10, RouterLimits::default(), |_| {});
    let mut core = core(&edition, Port::Client);
    let fake = Fake::says(&upgrade("/echo", ""));
    let key = arrive(&mut core, &fake);
    let mut now = 0;
    while core.counters.heartbeats_sent.value() == 0 {
        now += 1;
        core.set_now(now);
        core.sweep();
    }
    // Its pong is on its way as the machine stops, and comes a moment after it goes on.
    now += 5_000;
    core.set_now(now);
    core.on_resumed(now);
    core.sweep();
    assert!(core.slots.get(key).is_some_and(|slot| slot.connection.is_open()));
    let pong = u32::try_from(edition.settings.timeouts.pong.as_millis()).unwrap() / TICK_MS as u32;
    for now in now..=now + pong + 10 {
        core.set_now(now);
        core.sweep();
    }
    assert_eq!(core.counters.closes(CloseReason::HeartbeatTimeout), 1, "once only");
}

#[test]
fn a_machine_that_stops_again_and_again_keeps_no_dead_peers() {
    let edition = edition(1, 10, RouterLimits::default(), |_| {});
    let mut core = core(&edition, Port::Client);
    let dead = Fake::says(&upgrade("/echo", ""));
    arrive(&mut core, &dead);
    let mut late = Fake::says(&upgrade("/echo", ""));
    let key = arrive(&mut core, &late);
    let ticks = |span: std::time::Duration| span.as_millis() as Tick / TICK_MS as Tick;
    let timeouts = &edition.settings.timeouts;
    let (heartbeat, pong) = (ticks(timeouts.heartbeat), ticks(timeouts.pong));
    // Each stop is over before the pong's time is.
    let mut now = 0;
    while now < heartbeat + 4 * pong {
        now += pong / 2;
        core.set_now(now);
        core.on_resumed(now);
        core.sweep();
        // This one answers, whenever it is asked.
        if core.slots.get(key).is_some_and(|slot| slot.connection.flags.has(Flags::PINGED)) {
            late = answers_ping(&mut core, key, late);
        }
    }
    assert_eq!((core.connections(), core.counters.closes(CloseReason::HeartbeatTimeout)), (1, 1));
}

fn answers_ping(core: &mut Core<Fake>, key: Key, fake: Fake) -> Fake {
    fake.say(&[0x8A, 0x80, 0, 0, 0, 0]);
    core.on_event(key, READABLE);
    fake
}

#[test]
fn one_timeout_that_begins_anew_is_not_another_that_has_struck() {
    let edition = edition(1, 10, RouterLimits::default(), |_| {});
    let mut core = core(&edition, Port::Client);
    let fake = Fake::says(&upgrade("/ws", ""));
    let key = arrive(&mut core, &fake);
    core.drain_mailbox(|_| {});
    core.fanout_turn();
    let mut now = 0;
    while core.counters.heartbeats_sent.value() == 0 {
        now += 1;
        core.set_now(now);
        core.sweep();
    }
    // Behind the ping is a message that the peer had no time to take, either.
    fake.has_room(Some(0));
    let topic = edition.router.topic(&TopicName::of("lobby")).unwrap();
    edition.router.publish(&topic, Draft::encode(None, true, b"late"), None).unwrap();
    core.set_now(now + 1);
    core.drain_mailbox(|_| {});
    core.fanout_turn();
    assert!(core.slots.get(key).unwrap().connection.has_backlog());
    now += 5_000;
    core.set_now(now);
    core.on_resumed(now);
    core.sweep();
    assert!(core.slots.get(key).is_some_and(|slot| slot.connection.is_open()), "both begin anew");
    for now in now..now + 150 {
        core.set_now(now);
        core.sweep();
    }
    assert_eq!(core.connections(), 0, "once only");
}

/// Messages that wait in a loop's mailbox, whose room is given back.
fn take_from(edition: &Edition, loop_index: usize) -> Vec<Vec<u8>> {
    let mailbox = edition.router.mailbox(loop_index).unwrap();
    let mut entries = Vec::new();
    mailbox.drain(&mut entries);
    let mut payloads = Vec::new();
    for entry in entries {
        if let Entry::Deliver { message, .. } = entry {
            mailbox.release(1, message.frame_len() as u64);
            payloads.push(message.payload().to_vec());
        }
    }
    payloads
}

#[test]
fn those_who_wait_for_room_cost_one_try_a_turn_and_go_on_in_order() {
    const PUBLISHERS: usize = 300;
    let mailbox = MailboxLimits { entries_max: 4, ..MailboxLimits::default() };
    let limits = RouterLimits { mailbox, ..RouterLimits::default() };
    let edition = edition(2, 1_000, limits, |settings| settings.publish.topics = vec!["*".to_owned()]);
    // A loop that does not turn has a subscriber of what they publish to, and they themselves take no messages.
    let topic = edition.router.topic(&TopicName::of("lobby")).unwrap();
    edition.router.join(&topic, 1, Join { local: 0, slot: 0, ticket: Place::NONE }, Since::Now).unwrap();
    (0..4).for_each(|_| {
        edition.router.publish(&topic, Draft::encode(None, true, b"first"), None).unwrap();
    });
    let mut core = core(&edition, Port::Client);
    core.set_clock(now_ns);
    let publisher = |core: &mut Core<Fake>, number: usize| {
        let fake = Fake::says(&upgrade("/ws", ""));
        let key = arrive(core, &fake);
        let mut frame = Vec::new();
        push_frame(&mut frame, Opcode::Text, format!("{number}").as_bytes(), Some(MASK));
        fake.say(&frame);
        core.on_event(key, READABLE);
        (key, fake)
    };
    let peers: Vec<_> = (0..PUBLISHERS).map(|number| publisher(&mut core, number)).collect();
    assert_eq!(core.blocked.len(), PUBLISHERS);
    let before = core.counters.publishes_busy.value();
    for _ in 0..100 {
        core.run_blocked();
        // Events of theirs are no further tries.
        peers.iter().for_each(|(key, _)| core.on_event(*key, READABLE));
    }
    let tries = core.counters.publishes_busy.value() - before;
    assert!(tries <= 100, "{tries} tries in 100 turns");
    assert_eq!(take_from(&edition, 1).len(), 4);
    let mut newcomers = 0;
    let mut came = Vec::new();
    while came.len() < PUBLISHERS {
        // There is room, and others have waited longer.
        let (key, _) = publisher(&mut core, PUBLISHERS + newcomers);
        assert!(core.slots.get(key).unwrap().connection.is_blocked());
        newcomers += 1;
        core.run_blocked();
        core.drain_mailbox(|_| {});
        while core.topics.has_work() {
            core.fanout_turn();
        }
        let taken = take_from(&edition, 1);
        assert_eq!(taken.len(), 4);
        came.extend(taken);
    }
    let numbers = came.iter().map(|payload| std::str::from_utf8(payload).unwrap().parse::<usize>().unwrap());
    assert!(numbers.eq(0..came.len()), "{came:?}");
}
