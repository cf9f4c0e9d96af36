//! Lanes against a simple twin, and by themselves.

use proptest::prelude::*;

use super::*;
use crate::auth::identity::{Identity, SharedRights};
use crate::auth::token::Claims;
use crate::topic::Key;

const BOUNDS: Bounds =
    Bounds { messages_max: 50, bytes_max: 1 << 20, batch_messages_max: 5, batch_bytes_max: 1 << 16 };

/// The slot and the number of each message.
type Pairs = Vec<(u32, u64)>;

fn message(slot: u32, number: u64) -> Message {
    Message {
        sender: Sender { loop_index: 0, key: Key { slot, generation: 1 } },
        topic: "a".into(),
        binary: false,
        document: false,
        payload: number.to_string().into_bytes().into(),
        identity: None,
        admission: 0,
        address: None,
        dialect: "plain",
        request: None,
        number,
        time_ms: 0,
        taken_ms: number,
    }
}

fn numbers(batch: &Batch) -> Vec<u64> {
    batch.messages.iter().map(|message| message.number).collect()
}

#[test]
fn one_batch_of_a_connection_is_under_way_and_others_go_beside_it() {
    let mut lanes = Lanes::new(BOUNDS);
    for (slot, number) in [(1, 1), (1, 2), (2, 3), (1, 4)] {
        assert!(lanes.push(message(slot, number)));
    }
    let first = lanes.take(0).unwrap();
    assert_eq!((numbers(&first), first.number), (vec![1, 2, 4, 3], 1));
    assert!(lanes.push(message(1, 5)) && lanes.push(message(3, 6)));
    let beside = lanes.take(0).unwrap();
    assert_eq!(numbers(&beside), [6], "what the first has sent since waits");
    assert!(lanes.take(0).is_none());
    lanes.again(100, first);
    assert!(lanes.take(99).is_none() && !lanes.has_due(99) && lanes.next_due() == Some(100));
    let first = lanes.take(100).unwrap();
    assert_eq!((numbers(&first), first.number), (vec![1, 2, 4, 3], 1), "the same under the same name");
    lanes.settle(&first);
    assert_eq!(numbers(&lanes.take(100).unwrap()), [5]);
    lanes.settle(&beside);
    assert_eq!(lanes.held().0, 1);
}

#[test]
fn whom_a_message_is_of_counts_as_it_does_in_a_batch() {
    let carried = format!(r#"{{"of":"{}"}}"#, "x".repeat(1_200));
    let claims = Claims {
        sub: "alice".into(),
        subscribe: None,
        publish: None,
        expires: 7,
        good_until: 7,
        issued: None,
        jti: None,
        issuer: None,
        carried: Some(carried.into()),
    };
    let identity = Identity::new(claims, &mut SharedRights::default());
    let own = |slot, number| Message { identity: Some(identity.clone()), ..message(slot, number) };
    let mut lanes =
        Lanes::new(Bounds { messages_max: 1_000, bytes_max: 100_000, batch_bytes_max: 4_096, ..BOUNDS });
    let taken = (1..100).take_while(|number| lanes.push(own(1, *number))).count();
    let (messages, bytes) = lanes.held();
    assert!(messages == taken && bytes > messages * 1_200, "{bytes} bytes of {messages}");
    // One holder has half of the queue at most.
    assert!(taken * 1_200 <= 50_000, "{taken}");
    let batch = lanes.take(0).unwrap();
    assert!(batch.messages.len() == 2, "{} in a batch", batch.messages.len());
    lanes.settle(&batch);
    while let Some(batch) = lanes.take(0) {
        lanes.settle(&batch);
    }
    assert_eq!(lanes.held(), (0, 0));
}

#[test]
fn a_batch_that_comes_apart_goes_one_by_one_and_in_order() {
    let mut lanes = Lanes::new(BOUNDS);
    for (slot, number) in [(1, 1), (1, 2), (2, 3)] {
        lanes.push(message(slot, number));
    }
    let whole = lanes.take(0).unwrap();
    lanes.push(message(1, 4));
    lanes.split(whole);
    let (one, two) = (lanes.take(0).unwrap(), lanes.take(0).unwrap());
    assert_eq!((numbers(&one), numbers(&two)), (vec![1], vec![3]));
    assert!(lanes.take(0).is_none());
    lanes.settle(&one);
    let rest = lanes.take(0).unwrap();
    assert_eq!(numbers(&rest), [2, 4], "together again once one was dealt with");
    lanes.settle(&rest);
    lanes.settle(&two);
    assert_eq!(lanes.held(), (0, 0));
    assert!(lanes.by_sender.is_empty());
}

#[test]
fn bounds_hold_and_one_alone_always_fits() {
    let tight = Bounds { messages_max: 3, bytes_max: 2 * BESIDE_BYTES + 10, ..BOUNDS };
    let mut lanes = Lanes::new(tight);
    assert!(lanes.push(message(1, 1)) && lanes.push(message(2, 2)) && !lanes.push(message(3, 3)));
    let all = lanes.take(0).unwrap();
    lanes.settle(&all);
    let long = Message { payload: vec![b'x'; 1 << 20].into(), ..message(1, 4) };
    assert!(lanes.push(long) && !lanes.push(message(1, 5)));
    let alone = lanes.take(0).unwrap();
    assert_eq!(numbers(&alone), [4]);
}

#[test]
fn what_has_waited_for_too_long_comes_out_and_the_rest_keeps_its_order() {
    let mut lanes = Lanes::new(BOUNDS);
    for (slot, number) in [(1, 1), (2, 2)] {
        lanes.push(message(slot, number));
    }
    let delayed = lanes.take(0).unwrap();
    lanes.again(1_000, delayed);
    for (slot, number) in [(1, 3), (3, 4), (3, 9), (4, 8)] {
        lanes.push(message(slot, number));
    }
    let over = lanes.expired(5);
    assert_eq!(over.iter().map(numbers).collect::<Vec<_>>(), [vec![1, 2], vec![4]]);
    over.iter().for_each(|batch| lanes.settle(batch));
    let mut left = numbers(&lanes.take(0).unwrap());
    left.sort_unstable();
    assert_eq!((left, lanes.held().0), (vec![3, 8, 9], 3));
}

#[test]
fn what_is_over_comes_out_a_little_at_a_time_and_the_rest_is_not_looked_at() {
    let mut lanes = Lanes::new(Bounds { messages_max: 100_000, bytes_max: usize::MAX >> 1, ..BOUNDS });
    let count = 3 * EXPIRED_AT_A_TIME as u64;
    // Half of them have been tried before, each alone.
    for number in (0..count).step_by(2) {
        lanes.push(message(number as u32, number));
        let batch = lanes.take(0).unwrap();
        lanes.again(u64::MAX - number, batch);
    }
    (1..count).step_by(2).for_each(|number| assert!(lanes.push(message(number as u32, number))));
    let mut over = Vec::new();
    loop {
        let some = lanes.expired(count / 2);
        let messages: usize = some.iter().map(|batch| batch.messages.len()).sum();
        assert!(messages <= EXPIRED_AT_A_TIME + BOUNDS.batch_messages_max, "{messages}");
        if some.is_empty() {
            break;
        }
        some.iter().for_each(|batch| lanes.settle(batch));
        over.extend(some.iter().flat_map(numbers));
    }
    over.sort_unstable();
    assert!(over.iter().copied().eq(0..count / 2), "{}", over.len());
    assert_eq!((lanes.again.len(), lanes.aging.len(), lanes.held().0), (768, 768, 1_536));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// However batches end, each message is told to the end once, and those of one connection in their order.
    #[test]
    fn nothing_is_lost_doubled_or_overtaken(steps in prop::collection::vec((0_u8..6, 0_u32..4), 1..300)) {
        let mut lanes = Lanes::new(BOUNDS);
        let (mut sent, mut done) = (Pairs::new(), Pairs::new());
        let mut under_way: Vec<Batch> = Vec::new();
        let mut finish = |lanes: &mut Lanes, batch: &Batch| {
            done.extend(batch.messages.iter().map(|message| (message.sender.key.slot, message.number)));
            lanes.settle(batch);
        };
        for (number, (step, slot)) in steps.into_iter().enumerate() {
            let now = number as u64;
            match step {
                0 | 1 => {
                    if lanes.push(message(slot, now)) {
                        sent.push((slot, now));
                    }
                }
                2 => under_way.extend(lanes.take(now)),
                3 => under_way.pop().into_iter().for_each(|batch| finish(&mut lanes, &batch)),
                4 => under_way.pop().into_iter().for_each(|batch| lanes.again(now + 3, batch)),
                _ => under_way.pop().into_iter().for_each(|batch| lanes.split(batch)),
            }
        }
        lanes.hurry();
        loop {
            under_way.extend(lanes.take(u64::MAX));
            let Some(batch) = under_way.pop() else { break };
            finish(&mut lanes, &batch);
        }
        for slot in 0..4 {
            let of = |all: &[(u32, u64)]| all.iter().filter(|(of, _)| *of == slot).map(|(_, number)| *number).collect::<Vec<_>>();
            prop_assert_eq!(of(&sent), of(&done));
        }
        prop_assert_eq!(lanes.held(), (0, 0));
        prop_assert!(lanes.by_sender.is_empty() && lanes.ready.is_empty());
    }
}
