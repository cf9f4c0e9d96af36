//! Drains over streams that a test fills and empties: how the close frames are spread, and when a loop is done.

use super::*;

#[test]
fn a_loop_is_drained_when_no_topic_counts_on_it() {
    let edition = edition(1, 10, RouterLimits::default(), |_| {});
    let mut core = core(&edition, Port::Client);
    let fake = Fake::says(&upgrade("/ws", ""));
    let key = arrive(&mut core, &fake);
    core.drain_mailbox(|_| {});
    core.fanout_turn();
    let topic = edition.router.topic(&TopicName::of("lobby")).unwrap();
    for _ in 0..3_000 {
        edition.router.publish(&topic, Draft::encode(None, true, b"late"), None).unwrap();
    }
    core.drain_mailbox(|_| {});
    core.start_drain(0);
    fake.end();
    core.on_event(key, ENDED);
    assert_eq!(core.connections(), 0);
    let mut turns = 0;
    while !core.is_drained() {
        core.fanout_turn();
        turns += 1;
        assert!(turns < 100 && (core.has_work() || core.is_drained()));
    }
    assert_eq!(topic.summary().loops, 0);
    assert_eq!(edition.router.mailbox(0).unwrap().reserved(), (0, 0));
}

/// Close frames a tick and loop of a drain over so many ticks, of so many connections on each loop.
fn told_each_tick(spread: u32, connections: &[usize]) -> Vec<Vec<usize>> {
    let edition = edition(connections.len(), 10_000, RouterLimits::default(), |_| {});
    let request = upgrade("/echo", "");
    let mut loops: Vec<_> = connections
        .iter()
        .enumerate()
        .map(|(index, count)| {
            let mut core = Core::<Fake>::new(index, Port::Client, Arc::clone(&edition)).unwrap();
            core.set_now(1);
            let fakes: Vec<_> = (0..*count).map(|_| Fake::says(&request)).collect();
            for fake in &fakes {
                arrive(&mut core, fake);
                fake.take();
            }
            (core, fakes)
        })
        .collect();
    loops.iter_mut().for_each(|(core, _)| core.start_drain(spread));
    let mut ticks = Vec::new();
    for tick in 0..spread.max(1) {
        let told = loops.iter_mut().map(|(core, fakes)| {
            core.set_now(1 + tick);
            core.drain_turn();
            fakes.iter().filter(|fake| !fake.take().is_empty()).count()
        });
        ticks.push(told.collect());
    }
    ticks
}

#[test]
fn a_drain_takes_its_time_however_few_there_are() {
    for connections in [&[20][..], &[200], &[2_000], &[10, 10], &[1; 20], &[3, 0, 17, 0]] {
        let ticks = told_each_tick(100, connections);
        let total: usize = connections.iter().sum();
        let each: Vec<usize> = ticks.iter().map(|told| told.iter().sum()).collect();
        assert_eq!(each.iter().sum::<usize>(), total, "{connections:?}");
        let mut told = 0;
        for (tick, now) in each.iter().enumerate() {
            told += now;
            // Each loop is at most one ahead or behind of what is even.
            let even = total * (tick + 1) / 100;
            assert!(told.abs_diff(even) <= connections.len(), "{connections:?}: {told} in tick {tick}");
        }
    }
    // One on each of 20 loops: not all in the same moment.
    let together = told_each_tick(100, &[1; 20]).into_iter().map(|told| told.iter().sum::<usize>()).max();
    assert_eq!(together, Some(1));
    // Whoever is alone does not wait, on whichever loop.
    assert_eq!(told_each_tick(100, &[0, 0, 1])[0], [0, 0, 1]);
}

#[test]
fn a_drain_without_a_spread_is_cut_into_turns() {
    const CONNECTIONS: u64 = 5_000;
    let edition = edition(1, 10_000, RouterLimits::default(), |_| {});
    let mut core = core(&edition, Port::Client);
    let request = upgrade("/echo", "");
    let fakes: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let fake = Fake::says(&request);
            arrive(&mut core, &fake);
            fake.take();
            fake
        })
        .collect();
    core.start_drain(0);
    let (mut told, mut turns) = (0, 0);
    while told < fakes.len() {
        core.drain_turn();
        let now = fakes.iter().filter(|fake| !fake.take().is_empty()).count();
        assert!((1..=1_024).contains(&now), "{now} in one turn");
        told += now;
        turns += 1;
        core.run_ready();
        assert!(core.has_work() || told == fakes.len());
    }
    assert_eq!(turns, 5);
    core.drain_turn();
    // Who was told is read on, for as long as a turn has time.
    while !core.ready.is_empty() {
        core.run_ready();
    }
    assert!(!core.has_work());
}

#[test]
fn whoever_waited_for_a_busy_loop_to_be_told_is_told_over_several_turns() {
    const CONNECTIONS: usize = 5_000;
    for quiet in [true, false] {
        let edition = edition(1, 10_000, RouterLimits::default(), |_| {});
        let mut core = core(&edition, Port::Client);
        let connect = |core: &mut Core<Fake>, path: &str| {
            let fake = Fake::says(&upgrade(path, ""));
            arrive(core, &fake);
            fake.take();
            fake
        };
        let reader = connect(&mut core, "/ws");
        let fakes: Vec<_> = (0..CONNECTIONS).map(|_| connect(&mut core, "/echo")).collect();
        core.drain_mailbox(|_| {});
        core.fanout_turn();
        let topic = edition.router.topic(&TopicName::of("lobby")).unwrap();
        edition.router.publish(&topic, Draft::encode(None, true, b"first"), None).unwrap();
        core.start_drain(0);
        (0..10).for_each(|_| core.drain_turn());
        assert!(fakes.iter().all(|fake| fake.take().is_empty()), "there is a message to deliver");
        core.drain_mailbox(|_| {});
        if quiet {
            core.fanout_turn();
            assert_eq!(reader.take(), b"\x82\x05first");
        } else {
            core.set_now(core.now + 30);
        }
        let (mut told, mut turns) = (0, 0);
        while told < CONNECTIONS {
            core.drain_turn();
            let now = fakes.iter().filter(|fake| !fake.take().is_empty()).count();
            assert!((1..=1_024).contains(&now), "{now} in turn {turns}, quiet {quiet}");
            told += now;
            turns += 1;
            core.run_ready();
            assert!(core.has_work() || told == CONNECTIONS);
        }
        assert_eq!(turns, 5);
    }
}
