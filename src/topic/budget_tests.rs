//! A shared message counts once, and everything charged comes back.

use super::budget::{Fill, OutboxBudget, REFERENCE_BYTES};
use super::message::Draft;

#[test]
fn a_shared_message_counts_once_and_a_reference_for_each() {
    let budget = OutboxBudget::new(1 << 20);
    let message = Draft::encode(None, true, &[0; 998]).stamp(1, 1);
    let frame = message.frame_len() as u64;
    for holders in 1..=5 {
        assert_eq!(budget.charge(&message.clone()), Fill::Room);
        assert_eq!(budget.used(), frame + holders * REFERENCE_BYTES);
    }
    for holders in (0..5).rev() {
        budget.release(&message);
        assert_eq!(budget.used(), if holders == 0 { 0 } else { frame + holders * REFERENCE_BYTES });
    }
}

#[test]
fn the_levels_are_seven_eighths_half_the_reserve_and_the_total() {
    let budget = OutboxBudget::new(8_000);
    let message = Draft::encode(None, true, &[0; 82]).stamp(1, 1);
    let cost = message.frame_len() as u64 + REFERENCE_BYTES;
    assert_eq!(cost, 100);
    let levels = [
        (7_000, Fill::Room),
        (7_001, Fill::Full),
        (7_500, Fill::Full),
        (7_501, Fill::Reserve),
        (8_000, Fill::Reserve),
        (8_001, Fill::Over),
    ];
    for (used, fill) in levels {
        budget.charge_own(used - 100);
        assert_eq!(budget.charge(&message), fill, "at {used}");
        budget.release(&message);
        budget.release_own(used - 100);
    }
    assert_eq!((budget.used(), budget.met_full()), (0, 5));
}

#[test]
fn own_bytes_go_up_to_the_total_and_control_frames_beyond() {
    let budget = OutboxBudget::new(1_000);
    assert!(budget.try_charge_own(1_000));
    assert!(!budget.try_charge_own(1));
    assert_eq!((budget.used(), budget.met_full()), (1_000, 1));
    budget.charge_own(125);
    assert_eq!(budget.used(), 1_125);
}

#[test]
fn loops_that_charge_at_the_same_time_lose_nothing() {
    let budget = OutboxBudget::new(1 << 30);
    let message = Draft::encode(None, true, &[0; 100]).stamp(1, 1);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..2_000 {
                    budget.charge(&message);
                    budget.release(&message);
                }
            });
        }
    });
    assert_eq!(budget.used(), 0);
}
