//! The record layer beside rustls: the same bytes out of the same keys, both ways.

use std::io::Write as _;

use fantail_test_support::tls::{self, SUITES};

use super::test_pair::{beside, instead, read, written};
use super::*;

/// Lengths around everything that has a limit.
const LENGTHS: [usize; 12] = [1, 2, 15, 16, 17, 126, 1_000, 16_383, 16_384, 16_385, 32_768, 50_000];

fn bytes(length: usize, salt: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 31 + salt) as u8).collect()
}

#[test]
fn it_writes_what_rustls_writes() {
    for suite in SUITES {
        let mut both = beside(suite);
        for (salt, length) in LENGTHS.into_iter().enumerate() {
            let data = bytes(length, salt);
            let mut wire = Vec::new();
            both.server.writer().write_all(&data).unwrap();
            while both.server.wants_write() {
                both.server.write_tls(&mut wire).unwrap();
            }
            assert_eq!(both.end.seal(&data, PLAIN_BYTES_MAX), wire, "{suite:?} {length}");
            if length % 2 == 1 {
                // The client asks for an update, and gets it in front of the next data, from both alike.
                let asks = both.rogue.seal(&[24, 0, 0, 1, 1, 22]);
                both.rogue.update();
                assert_eq!(tls::feed(&mut both.server, &asks), (Vec::new(), None));
                assert_eq!(both.end.feed(&asks).fault, None);
            }
        }
        let mut wire = Vec::new();
        both.server.send_close_notify();
        both.server.write_tls(&mut wire).unwrap();
        let mut own = Vec::new();
        both.end.lean().close_notify(&mut own).unwrap();
        assert_eq!(own, wire, "{suite:?}");
        assert!(both.client.feed(&own).fault.is_none() || !both.client.closed);
    }
}

#[test]
fn it_reads_what_rustls_reads() {
    for suite in SUITES {
        let mut both = beside(suite);
        for (salt, length) in LENGTHS.into_iter().enumerate() {
            for padding in [0, 1, 16, 300] {
                let data = bytes(length.min(PLAIN_BYTES_MAX - padding), salt);
                let mut inner = data.clone();
                inner.push(Content::Data as u8);
                inner.resize(inner.len() + padding, 0);
                let record = both.rogue.seal(&inner);
                assert_eq!(tls::feed(&mut both.server, &record), (data.clone(), None));
                both.end.plain.clear();
                both.end.feed(&record);
                assert_eq!((both.end.fault, &both.end.plain), (None, &data), "{suite:?} {length} {padding}");
            }
        }
    }
}

#[test]
fn a_client_of_rustls_notices_nothing() {
    for suite in SUITES {
        let (mut end, mut client) = instead(suite);
        for round in 0..40 {
            let data = bytes(LENGTHS[round % LENGTHS.len()], round);
            assert_eq!(read(&mut client, &end.seal(&data, 1 << (5 + round % 10))), data, "{suite:?} {round}");
            if round % 3 == 0 {
                client.refresh_traffic_keys().unwrap();
            }
            let wire = written(&mut client, &data);
            end.plain.clear();
            assert_eq!(end.feed(&wire).fault, None);
            assert_eq!(end.plain, data, "{suite:?} {round}");
        }
        client.send_close_notify();
        let wire = written(&mut client, b"");
        assert!(end.feed(&wire).closed, "the client has ended its side");
        // RFC 8446, 6.1: this side goes on until it has ended, too.
        let mut last = end.seal(b"more", PLAIN_BYTES_MAX);
        end.lean().close_notify(&mut last).unwrap();
        assert_eq!(read(&mut client, &last), b"more");
        assert!(client.process_new_packets().unwrap().peer_has_closed());
        assert!(
            end.lean().seal(b"x", PLAIN_BYTES_MAX, &mut Vec::new()).is_err(),
            "nothing follows close_notify"
        );
    }
}

#[test]
fn keys_that_the_traffic_secrets_did_not_make_are_refused() {
    let first = tls::pair(SUITES[0], std::sync::Arc::new(TrafficKeyLog));
    drop(take_last());
    drop(tls::pair(SUITES[0], std::sync::Arc::new(TrafficKeyLog)));
    let others = take_last().unwrap();
    let extracted = first.server.dangerous_extract_secrets().unwrap();
    let mut pages = LeanPages::default();
    let error = pages.take_over(3, &extracted, &others).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidData);
    assert_eq!((pages.bytes(), pages.get(3).is_none()), (0, true), "and nothing is kept");
}

#[test]
fn pages_come_with_the_first_and_go_with_the_last() {
    let listener = fantail_test_support::tls::Listener::new(std::sync::Arc::new(TrafficKeyLog));
    let pair = tls::pair(SUITES[1], listener);
    let traffic = take_last().unwrap();
    let extracted = pair.server.dangerous_extract_secrets().unwrap();
    let mut pages = LeanPages::default();
    let page = crate::sys::secret_page::SECRET_PAGE_BYTES;
    for index in [0, 314, 315, 5_000] {
        pages.take_over(index, &extracted, &traffic).unwrap();
    }
    assert_eq!(pages.bytes(), 3 * page);
    assert!(pages.take_over(5_000, &extracted, &traffic).is_err(), "taken");
    let printed = format!("{:?} {traffic:?}", pages.get(314).unwrap());
    assert_eq!(printed, "Lean { suite: Aes256Gcm, .. } TrafficSecrets(…)", "no secret is printed");
    assert!(pages.get(5_000).is_some() && pages.get(4_999).is_none() && pages.get(u32::MAX).is_none());
    assert!(pages.remove(5_000) && !pages.remove(5_000));
    assert_eq!(pages.bytes(), 2 * page);
    assert!(pages.remove(0) && pages.remove(315) && pages.remove(314));
    assert_eq!(pages.bytes(), 0);
}
