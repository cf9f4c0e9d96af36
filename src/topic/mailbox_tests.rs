//! Bounds, the reserve for control entries and the wake flag of one mailbox.

use super::mailbox::*;

const LIMITS: MailboxLimits = MailboxLimits { bytes_max: 100, entries_max: 3 };

#[test]
fn room_is_bounded_in_bytes_and_entries() {
    let mailbox = Mailbox::<u8>::new(LIMITS);
    assert!(mailbox.try_reserve(60));
    assert!(!mailbox.try_reserve(41));
    assert!(mailbox.try_reserve(40));
    assert!(mailbox.try_reserve(0));
    assert!(!mailbox.try_reserve(0), "a fourth entry");
    assert_eq!(mailbox.reserved(), (3, 100));
    mailbox.release(3, 100);
    assert_eq!(mailbox.reserved(), (0, 0));
}

#[test]
fn a_message_larger_than_the_bound_goes_alone() {
    let mailbox = Mailbox::<u8>::new(LIMITS);
    assert!(mailbox.try_reserve(1_000));
    assert!(!mailbox.try_reserve(1));
    mailbox.release(1, 1_000);
    assert!(mailbox.try_reserve(1));
    assert!(!mailbox.try_reserve(1_000));
    assert!(!mailbox.try_reserve(usize::MAX));
}

#[test]
fn joins_and_replies_do_not_use_up_the_reserve_of_control_entries() {
    let mailbox = Mailbox::new(LIMITS);
    for _ in 0..100_000 {
        mailbox.push_join(1);
    }
    for _ in 0..REPLIES_MAX {
        assert!(mailbox.try_reserve_reply());
    }
    for _ in 0..CONTROL_ENTRIES_MAX {
        assert_eq!(mailbox.push_control(2), Ok(false));
    }
    assert_eq!(mailbox.push_control(2), Err(ReserveFull));
    let mut entries = Vec::new();
    mailbox.drain(&mut entries);
    assert_eq!(entries.len(), 100_000 + CONTROL_ENTRIES_MAX);
    assert!(mailbox.push_join(1));
}

#[test]
fn a_reply_has_the_room_that_its_question_took() {
    let mailbox = Mailbox::new(MailboxLimits { bytes_max: 0, entries_max: 1 });
    for _ in 0..REPLIES_MAX {
        assert!(mailbox.try_reserve_reply());
    }
    assert!(!mailbox.try_reserve_reply(), "one question too many");
    // Every one of them comes, whatever else waits.
    assert!((0..CONTROL_ENTRIES_MAX).all(|_| mailbox.push_control(1).is_ok()));
    (1..REPLIES_MAX).for_each(|_| assert!(!mailbox.push_reply(2), "woken already"));
    assert!(!mailbox.try_reserve_reply(), "their room is theirs until they are taken out");
    let mut entries = Vec::new();
    mailbox.drain(&mut entries);
    assert_eq!(entries.iter().filter(|entry| **entry == 2).count(), REPLIES_MAX - 1);
    assert!((1..REPLIES_MAX).all(|_| mailbox.try_reserve_reply()));
    assert!(!mailbox.try_reserve_reply(), "one is awaited still");
    mailbox.release_reply();
    assert!(mailbox.try_reserve_reply());
}

#[test]
fn control_entries_have_a_bounded_reserve() {
    let mailbox = Mailbox::new(MailboxLimits { bytes_max: 0, entries_max: 1 });
    assert!(mailbox.try_reserve(0));
    mailbox.push(0);
    for _ in 0..CONTROL_ENTRIES_MAX {
        assert_eq!(mailbox.push_control(1), Ok(false));
    }
    assert_eq!(mailbox.push_control(1), Err(ReserveFull));
    let mut entries = Vec::new();
    mailbox.drain(&mut entries);
    assert_eq!(entries.len(), CONTROL_ENTRIES_MAX + 1);
    assert_eq!(mailbox.push_control(1), Ok(true));
    entries.clear();
    mailbox.drain(&mut entries);
    assert_eq!(entries, [1]);
    // The storage of the burst came back with that drain, and most of it was not kept.
    let mut kept = Vec::new();
    mailbox.drain(&mut kept);
    assert!(kept.capacity() <= CAPACITY_KEPT, "{}", kept.capacity());
}

#[test]
fn only_the_first_push_after_a_drain_owes_a_wake_up() {
    let mailbox = Mailbox::new(LIMITS);
    assert!(mailbox.is_empty());
    assert!(mailbox.push(1));
    assert!(!mailbox.push(2));
    assert!(!mailbox.is_empty());
    let mut entries = vec![0];
    mailbox.drain(&mut entries);
    assert_eq!(entries, [0, 1, 2]);
    assert!(mailbox.is_empty());
    assert!(mailbox.push(3));
}

#[test]
fn whoever_comes_first_is_left_what_comes_free() {
    let mailbox: Mailbox<()> = Mailbox::new(MailboxLimits { bytes_max: 100, entries_max: 2 });
    assert!(mailbox.try_reserve(1) && mailbox.try_reserve_first(1));
    assert!(!mailbox.try_reserve_first(1));
    mailbox.release(1, 1);
    assert!(!mailbox.try_reserve(1), "there is room, and it is another's");
    assert!(mailbox.try_reserve_first(1));
    mailbox.release(1, 1);
    assert!(mailbox.try_reserve(1), "it has found room");
    assert!(!mailbox.try_reserve_first(1));
    mailbox.end_first();
    mailbox.release(1, 1);
    assert!(mailbox.try_reserve(1), "it has given up");
}
