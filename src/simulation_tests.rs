//! The simulation of a server that speaks the dialect of tests, too: who subscribes, unsubscribes and publishes as it
//! likes. And faults that are planted in the server itself: what would not find them would not find the like of them.

use fantail_test_support::planted::{self, Planted};

#[path = "../tests/simulation/mod.rs"]
mod simulation;

use simulation::{Fault, Plan, caught, run_all};

#[test]
fn everybody_gets_what_is_theirs_in_every_dialect() {
    let Some(total) = run_all(true) else { return };
    assert!(total.told.iter().all(|count| *count > 250), "{total:?}");
    assert!(
        total.drained > 0 && total.stopped > 0 && total.dropped.iter().all(|count| *count > 0),
        "{total:?}"
    );
}

/// So often a fault has to be found out.
const ENOUGH: usize = 10;

/// The same of one that strikes in few runs.
const ENOUGH_OF_RARE: usize = 3;

fn enough_of(fault: Planted) -> usize {
    if matches!(fault, Planted::OtherEpoch | Planted::UntoldGap) { ENOUGH_OF_RARE } else { ENOUGH }
}

/// Of the runs in which the fault struck, how many were found out and how many were not, up to those that are enough.
fn found(fault: Planted, seeds: u64) -> (usize, usize) {
    let (mut found, mut missed) = (0, 0);
    for seed in 0..seeds {
        if found == enough_of(fault) {
            break;
        }
        planted::plant(Some(fault));
        let result = caught(seed, Plan { fault: Fault::None, test_dialects: true, patient: true });
        if planted::struck() > 0 {
            *(if result.is_err() { &mut found } else { &mut missed }) += 1;
        }
        planted::plant(None);
    }
    println!("{fault:?}: found in {found} runs, missed in {missed}");
    (found, missed)
}

#[test]
fn a_join_that_is_listed_whatever_its_ticket_is_found() {
    let (found, missed) = found(Planted::LostTicket, 60);
    assert!(found >= ENOUGH && missed <= found, "found in {found} runs, missed in {missed}");
}

#[test]
fn a_reply_to_a_stale_key_is_found() {
    let (found, missed) = found(Planted::StaleReply, 200);
    assert!(found >= ENOUGH && missed <= found, "found in {found} runs, missed in {missed}");
}

#[test]
fn a_form_that_is_counted_wrong_is_found() {
    let (found, missed) = found(Planted::MiscountedForm, 20);
    assert!(found >= ENOUGH && missed == 0, "found in {found} runs, missed in {missed}");
}

#[test]
fn an_effect_that_is_executed_twice_is_found() {
    // One that has left before it could see is no witness.
    let (found, missed) = found(Planted::EffectTwice, 20);
    assert!(found >= ENOUGH && missed <= 2, "found in {found} runs, missed in {missed}");
}

#[test]
fn a_lost_ticket_at_the_seam_of_old_and_new_is_found() {
    let (found, missed) = found(Planted::SeamTicket, 60);
    assert!(found >= ENOUGH && missed <= found, "found in {found} runs, missed in {missed}");
}

#[test]
fn a_start_one_message_too_late_is_found() {
    let (found, missed) = found(Planted::LateStart, 60);
    assert!(found >= ENOUGH && missed <= found, "found in {found} runs, missed in {missed}");
}

#[test]
fn old_messages_of_another_topic_and_epoch_are_found() {
    let (found, missed) = found(Planted::OtherEpoch, 60);
    assert!(found >= ENOUGH_OF_RARE && missed <= found, "found in {found} runs, missed in {missed}");
}

#[test]
fn messages_that_are_missing_without_a_word_are_found() {
    let (found, missed) = found(Planted::UntoldGap, 200);
    assert!(found >= ENOUGH_OF_RARE && missed <= found, "found in {found} runs, missed in {missed}");
}

#[test]
fn a_recovery_that_is_none_is_found() {
    let (found, missed) = found(Planted::FalseRecovery, 60);
    assert!(found >= ENOUGH && missed <= found, "found in {found} runs, missed in {missed}");
}

#[test]
fn a_message_that_comes_by_topic_and_pattern_is_found() {
    let (found, missed) = found(Planted::PatternTwice, 60);
    assert!(found >= ENOUGH && missed <= found, "found in {found} runs, missed in {missed}");
}

#[test]
fn a_poll_that_is_told_a_place_too_far_is_found() {
    let (found, missed) = found(Planted::PollAhead, 60);
    assert!(found >= ENOUGH && missed <= found, "found in {found} runs, missed in {missed}");
}

#[test]
fn members_that_are_left_behind_or_not_told_are_found() {
    for (fault, seeds) in [(Planted::SeatKept, 60), (Planted::UntoldMember, 60)] {
        let (found, missed) = found(fault, seeds);
        assert!(found >= enough_of(fault) && missed <= found, "{fault:?}: {found} runs, missed in {missed}");
    }
}
