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
fn joins_do_not_use_up_the_reserve_of_control_entries() {
    let mailbox = Mailbox::new(LIMITS);
    for _ in 0..JOIN_ENTRIES_MAX {
        assert!(mailbox.push_join(1).is_ok());
    }
    assert_eq!(mailbox.push_join(1), Err(ControlFull));
    for _ in 0..CONTROL_ENTRIES_MAX {
        assert_eq!(mailbox.push_control(2), Ok(false));
    }
    assert_eq!(mailbox.push_control(2), Err(ControlFull));
    let mut entries = Vec::new();
    mailbox.drain(&mut entries);
    assert_eq!(entries.len(), JOIN_ENTRIES_MAX + CONTROL_ENTRIES_MAX);
    assert_eq!(mailbox.push_join(1), Ok(true));
}

#[test]
fn control_entries_have_a_bounded_reserve() {
    let mailbox = Mailbox::new(MailboxLimits { bytes_max: 0, entries_max: 1 });
    assert!(mailbox.try_reserve(0));
    mailbox.push(0);
    for _ in 0..CONTROL_ENTRIES_MAX {
        assert_eq!(mailbox.push_control(1), Ok(false));
    }
    assert_eq!(mailbox.push_control(1), Err(ControlFull));
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
