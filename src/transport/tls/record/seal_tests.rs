//! That no nonce is used twice with one key, and what sealing does at its limits.

use std::cell::RefCell;
use std::collections::HashSet;

use fantail_test_support::planted::{self, Planted};
use fantail_test_support::tls::SUITES;

use super::seal::{RECORDS_MAX, UPDATE_AFTER_RECORDS};
use super::test_pair::{Beside, beside};
use super::*;

thread_local! {
    static USED: RefCell<HashSet<Vec<u8>>> = RefCell::default();
    static TWICE: RefCell<usize> = const { RefCell::new(0) };
}

/// Called for each record before it is sealed, whatever comes of it.
pub(super) fn note(nonce: &[u8], keys: &super::keys::Keys) {
    let first = USED.with_borrow_mut(|used| used.insert([keys.key_for_tests(), nonce].concat()));
    TWICE.with_borrow_mut(|twice| *twice += usize::from(!first));
}

/// Seals, lets sealing fail, goes on, updates, ends; returns how many nonces were used twice.
fn nonces_used_twice() -> usize {
    TWICE.set(0);
    let Beside { mut end, mut rogue, .. } = beside(SUITES[0]);
    let mut out = Vec::new();
    let mut sealed = 0;
    for round in 0..50 {
        if round % 5 == 3 {
            let asks = rogue.seal(&[24, 0, 0, 1, 1, 22]);
            rogue.update();
            end.feed(&asks);
        }
        let lean = end.lean();
        sealed += usize::from(lean.seal(b"some data", 4, &mut out).is_ok());
        // Whoever ignores that a connection is over must still not be given a number twice.
        lean.sealer.ended = false;
    }
    assert!(lean_ends(&mut end, &mut out) && sealed > 0);
    TWICE.take()
}

fn lean_ends(end: &mut super::test_pair::End, out: &mut Vec<u8>) -> bool {
    end.lean().close_notify(out).is_ok() && end.lean().close_notify(out).is_ok()
}

#[test]
fn no_nonce_is_used_twice() {
    assert_eq!(nonces_used_twice(), 0);
}

#[test]
fn nor_when_sealing_fails() {
    let Beside { mut end, mut client, .. } = beside(SUITES[1]);
    TWICE.set(0);
    let mut out = b"before".to_vec();
    planted::plant(Some(Planted::SealingFails));
    assert_eq!(end.lean().seal(b"secret", PLAIN_BYTES_MAX, &mut out), Err(Fault::Internal));
    assert_eq!(planted::struck(), 1);
    planted::plant(None);
    assert_eq!(out, b"before", "no plaintext is left where ciphertext goes");
    assert!(end.lean().seal(b"secret", PLAIN_BYTES_MAX, &mut out).is_err(), "it is over");
    end.lean().sealer.ended = false;
    let wire = end.seal(b"next", PLAIN_BYTES_MAX);
    assert_eq!(TWICE.take(), 0);
    assert_eq!(client.feed(&wire).fault, Some(Fault::Refused(Alert::BadRecordMac)), "a number is missing");
}

#[test]
fn a_number_that_is_kept_would_be_found() {
    planted::plant(Some(Planted::SequenceKept));
    let twice = nonces_used_twice();
    assert!(planted::struck() > 0);
    planted::plant(None);
    assert!(twice > 0);
}

#[test]
fn a_key_is_updated_long_before_its_limit() {
    for suite in SUITES {
        let Beside { mut end, mut client, .. } = beside(suite);
        end.lean().sealer.sequence = UPDATE_AFTER_RECORDS - 1;
        client.lean().opener.sequence = UPDATE_AFTER_RECORDS - 1;
        let last = end.seal(b"last", PLAIN_BYTES_MAX);
        assert_eq!(last.len(), 4 + RECORD_OVERHEAD);
        let next = end.seal(b"next", 2);
        assert_eq!(next.len(), 5 + 4 + 3 * RECORD_OVERHEAD, "an update and two records");
        assert_eq!(client.feed(&last).feed(&next).fault, None, "{suite:?}");
        assert_eq!(client.plain, b"lastnext");
        assert_eq!(end.lean().sealer.sequence, 2);
        assert!(!client.lean().sealer.update_owed, "the peer is not asked for one");
    }
}

#[test]
fn a_key_is_not_used_beyond_its_limit() {
    let mut end = beside(SUITES[0]).end;
    end.lean().sealer.sequence = RECORDS_MAX;
    let mut out = Vec::new();
    assert_eq!(end.lean().seal(b"x", 1, &mut out), Err(Fault::Exhausted));
    assert_eq!(end.lean().close_notify(&mut out), Err(Fault::Exhausted));
    assert!(out.is_empty());
}

#[test]
fn nothing_is_sealed_of_nothing() {
    let mut end = beside(SUITES[0]).end;
    assert!(end.seal(b"", 100).is_empty(), "Java ends the connection over an empty record");
    assert_eq!(end.seal(b"ab", 0).len(), 2 * RECORD_OVERHEAD + 2, "a record has a byte at least");
    assert_eq!(end.seal(&[1; 16_385], usize::MAX).len(), 2 * RECORD_OVERHEAD + 16_385);
}

#[test]
fn a_request_is_answered_once_and_only_in_front_of_data() {
    let Beside { mut end, mut rogue, mut client, .. } = beside(SUITES[2]);
    for _ in 0..3 {
        let asks = rogue.seal(&[24, 0, 0, 1, 1, 22]);
        rogue.update();
        end.feed(&asks);
    }
    assert!(end.out.is_empty(), "reading writes nothing");
    let wire = end.seal(b"data", PLAIN_BYTES_MAX);
    assert_eq!(wire.len(), 5 + 4 + 2 * RECORD_OVERHEAD);
    assert_eq!(client.feed(&wire).plain, b"data");
    let mut wire = Vec::new();
    let asks = rogue.seal(&[24, 0, 0, 1, 1, 22]);
    end.feed(&asks).lean().close_notify(&mut wire).unwrap();
    assert_eq!(wire.len(), 2 + RECORD_OVERHEAD, "an alert is no data");
    assert!(client.feed(&wire).closed);
}
