//! What a hostile client may send behind its handshake, clause by clause of RFC 8446, and beside rustls: whatever rustls
//! takes is taken and read alike, but for what the RFC forbids and rustls lets pass.

use fantail_test_support::tls::{self, Rogue, SUITES};

use super::Alert::{BadRecordMac, DecodeError, IllegalParameter, RecordOverflow, UnexpectedMessage};
use super::open::{CANCELS_MAX, EMPTY_IN_ROW_MAX, UPDATES_IN_ROW_MAX};
use super::test_pair::{Beside, beside};
use super::*;

/// What is to come of it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Outcome {
    /// This data, and the connection goes on.
    Reads(&'static [u8]),
    /// This data, and then the peer has ended its side.
    Closes(&'static [u8]),
    /// Refused with this alert.
    Refused(Alert),
    /// Refused with this alert for being too many.
    TooMany(Alert),
    /// The peer's alert ends it, and nothing is said.
    Ends(u8),
}
use Outcome::{Closes, Ends, Reads, Refused, TooMany};

/// How rustls may differ.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rustls {
    /// Not at all.
    Agrees,
    /// It lets this pass.
    Takes,
    /// It refuses this.
    Refuses,
}
use Rustls::{Agrees, Refuses, Takes};

type Case = (&'static str, fn(&mut Rogue) -> Vec<u8>, Outcome, Rustls);

const DATA: u8 = 23;
const HANDSHAKE: u8 = 22;
const ALERT: u8 = 21;

fn record(rogue: &mut Rogue, content: &[u8], kind: u8, padding: usize) -> Vec<u8> {
    let mut inner = content.to_vec();
    inner.push(kind);
    inner.resize(inner.len() + padding, 0);
    rogue.seal(&inner)
}

/// Several records, one behind the other.
fn records(rogue: &mut Rogue, all: &[(&[u8], u8)]) -> Vec<u8> {
    all.iter().flat_map(|(content, kind)| record(rogue, content, *kind, 0)).collect()
}

fn repeated(rogue: &mut Rogue, count: u8, content: &[u8], kind: u8) -> Vec<u8> {
    (0..count).flat_map(|_| record(rogue, content, kind, 0)).collect()
}

/// KeyUpdates, each under the key before.
fn updates(rogue: &mut Rogue, count: u8) -> Vec<u8> {
    let update = |_| {
        let update = record(rogue, &[24, 0, 0, 1, 0], HANDSHAKE, 0);
        rogue.update();
        update
    };
    (0..count).flat_map(update).collect()
}

/// A record whose byte `at` is another than it was sealed with.
fn altered(rogue: &mut Rogue, at: usize, to: u8) -> Vec<u8> {
    let mut wire = record(rogue, b"data", DATA, 0);
    assert_ne!(wire[at], to);
    wire[at] = to;
    wire
}

/// A record whose byte `at`, of what is sealed, is another: whatever it is, since keys are new in each run.
fn flipped(rogue: &mut Rogue, at: usize) -> Vec<u8> {
    let mut wire = record(rogue, b"data", DATA, 0);
    wire[at] ^= 0x5A;
    wire
}

fn with(mut first: Vec<u8>, mut second: Vec<u8>) -> Vec<u8> {
    first.append(&mut second);
    first
}

/// RFC 8446, 5.1, 5.2 and 5.4: headers, lengths, padding, protection.
const OF_RECORDS: &[Case] = &[
    ("data", |r| record(r, b"data", DATA, 0), Reads(b"data"), Agrees),
    ("padded", |r| record(r, b"data", DATA, 16), Reads(b"data"), Agrees),
    ("ends in zeroes", |r| record(r, b"data\0\0", DATA, 3), Reads(b"data\0\0"), Agrees),
    ("change_cipher_spec", |_| vec![20, 3, 3, 0, 1, 1], Refused(UnexpectedMessage), Agrees),
    ("unprotected alert", |_| vec![21, 3, 3, 0, 2, 1, 0], Refused(UnexpectedMessage), Agrees),
    ("unprotected handshake", |_| vec![22, 3, 3, 0, 5, 24, 0, 0, 1, 0], Refused(UnexpectedMessage), Agrees),
    ("heartbeat", |_| vec![24, 3, 3, 0, 1, 1], Refused(UnexpectedMessage), Agrees),
    ("http", |_| b"GET / HTTP/1.1\r\n\r\n".to_vec(), Refused(UnexpectedMessage), Agrees),
    ("other type outside", |r| altered(r, 0, HANDSHAKE), Refused(UnexpectedMessage), Takes),
    ("other version outside", |r| altered(r, 2, 1), Refused(BadRecordMac), Takes),
    ("strange version outside", |r| altered(r, 1, 9), Refused(BadRecordMac), Agrees),
    ("shorter than it says", |r| altered(r, 4, 20), Refused(BadRecordMac), Agrees),
    ("other first byte", |r| flipped(r, 5), Refused(BadRecordMac), Agrees),
    ("no bytes", |_| vec![23, 3, 3, 0, 0], Refused(BadRecordMac), Agrees),
    ("shorter than a tag", |_| with(vec![23, 3, 3, 0, 15], vec![7; 15]), Refused(BadRecordMac), Agrees),
    ("a tag alone", |r| r.seal(&[]), Refused(UnexpectedMessage), Agrees),
    ("zeroes alone", |r| r.seal(&[0; 40]), Refused(UnexpectedMessage), Agrees),
    ("too long by its header", |_| vec![23, 3, 3, 0x41, 1], Refused(RecordOverflow), Takes),
    ("much too long by its header", |_| vec![23, 3, 3, 255, 255], Refused(RecordOverflow), Agrees),
    ("content too long", |r| record(r, &[1; 16_385], DATA, 0), Refused(RecordOverflow), Agrees),
    ("padding too long", |r| record(r, &[1; 16_000], DATA, 385), Refused(RecordOverflow), Agrees),
    ("padding just not too long", |r| record(r, b"x", DATA, 16_383), Reads(b"x"), Agrees),
    ("protected change_cipher_spec", |r| record(r, &[1], 20, 0), Refused(UnexpectedMessage), Agrees),
    ("protected heartbeat", |r| record(r, &[1], 24, 0), Refused(UnexpectedMessage), Agrees),
    ("protected unknown", |r| record(r, &[1], 99, 0), Refused(UnexpectedMessage), Agrees),
    ("good, then bad", |r| with(record(r, b"good", DATA, 0), flipped(r, 8)), Refused(BadRecordMac), Agrees),
    ("empty", |r| repeated(r, EMPTY_IN_ROW_MAX, b"", DATA), Reads(b""), Agrees),
    ("too many empty", |r| repeated(r, EMPTY_IN_ROW_MAX + 1, b"", DATA), TooMany(UnexpectedMessage), Agrees),
    (
        "empty, but not in a row",
        |r| {
            let row = repeated(r, EMPTY_IN_ROW_MAX, b"", DATA);
            let row = with(row, record(r, b"x", DATA, 0));
            with(row, repeated(r, EMPTY_IN_ROW_MAX, b"", DATA))
        },
        Reads(b"x"),
        Agrees,
    ),
    (
        "replayed",
        |r| {
            let once = record(r, b"data", DATA, 0);
            with(once.clone(), once)
        },
        Refused(BadRecordMac),
        Agrees,
    ),
    (
        "reordered",
        |r| {
            let first = record(r, b"1", DATA, 0);
            with(record(r, b"2", DATA, 0), first)
        },
        Refused(BadRecordMac),
        Agrees,
    ),
    (
        "left out",
        |r| {
            drop(record(r, b"1", DATA, 0));
            record(r, b"2", DATA, 0)
        },
        Refused(BadRecordMac),
        Agrees,
    ),
];

/// RFC 8446, 6.
const OF_ALERTS: &[Case] = &[
    ("close_notify", |r| records(r, &[(b"x", DATA), (&[1, 0], ALERT)]), Closes(b"x"), Agrees),
    ("close_notify said to be fatal", |r| record(r, &[2, 0], ALERT, 0), Closes(b""), Agrees),
    ("close_notify of no level", |r| record(r, &[7, 0], ALERT, 0), Closes(b""), Refuses),
    ("behind close_notify", |r| records(r, &[(&[1, 0], ALERT), (b"x", DATA)]), Closes(b""), Agrees),
    ("bytes behind close_notify", |r| with(record(r, &[1, 0], ALERT, 0), vec![9; 30]), Closes(b""), Agrees),
    ("user_canceled", |r| repeated(r, CANCELS_MAX, &[1, 90], ALERT), Reads(b""), Agrees),
    (
        "user_canceled again",
        |r| repeated(r, CANCELS_MAX + 1, &[1, 90], ALERT),
        TooMany(UnexpectedMessage),
        Agrees,
    ),
    (
        "user_canceled, close_notify",
        |r| records(r, &[(&[1, 90], ALERT), (&[1, 0], ALERT)]),
        Closes(b""),
        Agrees,
    ),
    ("fatal", |r| record(r, &[2, 20], ALERT, 0), Ends(20), Agrees),
    ("fatal said to be a warning", |r| record(r, &[1, 20], ALERT, 0), Ends(20), Agrees),
    ("unknown", |r| record(r, &[2, 233], ALERT, 0), Ends(233), Agrees),
    ("no_renegotiation", |r| record(r, &[1, 100], ALERT, 0), Ends(100), Agrees),
    ("empty alert", |r| record(r, b"", ALERT, 0), Refused(UnexpectedMessage), Agrees),
    ("half an alert", |r| record(r, &[1], ALERT, 0), Refused(DecodeError), Agrees),
    ("an alert and a half", |r| record(r, &[1, 0, 1], ALERT, 0), Refused(DecodeError), Agrees),
    ("two alerts in one", |r| record(r, &[1, 90, 1, 0], ALERT, 0), Refused(DecodeError), Agrees),
];

/// RFC 8446, 4, 4.6.3 and 5.1.
const OF_HANDSHAKE: &[Case] = &[
    (
        "key update",
        |r| {
            let update = updates(r, 1);
            with(update, record(r, b"new", DATA, 0))
        },
        Reads(b"new"),
        Agrees,
    ),
    (
        "old key behind a key update",
        |r| {
            let update = record(r, &[24, 0, 0, 1, 0], HANDSHAKE, 0);
            with(update, record(r, b"old", DATA, 0))
        },
        Refused(BadRecordMac),
        Agrees,
    ),
    ("key updates", |r| updates(r, UPDATES_IN_ROW_MAX), Reads(b""), Agrees),
    ("too many key updates", |r| updates(r, UPDATES_IN_ROW_MAX + 1), TooMany(UnexpectedMessage), Agrees),
    (
        "key updates, but not in a row",
        |r| {
            let row = updates(r, UPDATES_IN_ROW_MAX);
            let row = with(row, record(r, b"x", DATA, 0));
            with(row, updates(r, UPDATES_IN_ROW_MAX))
        },
        Reads(b"x"),
        Agrees,
    ),
    (
        "asks for what there isn't",
        |r| record(r, &[24, 0, 0, 1, 2], HANDSHAKE, 0),
        Refused(IllegalParameter),
        Agrees,
    ),
    ("key update of nothing", |r| record(r, &[24, 0, 0, 0], HANDSHAKE, 0), Refused(DecodeError), Agrees),
    ("key update of two", |r| record(r, &[24, 0, 0, 2, 0, 0], HANDSHAKE, 0), Refused(DecodeError), Agrees),
    ("key update of megabytes", |r| record(r, &[24, 255, 0, 1], HANDSHAKE, 0), Refused(DecodeError), Agrees),
    (
        "split key update",
        |r| {
            let parts = records(r, &[(&[24], HANDSHAKE), (&[0, 0], HANDSHAKE), (&[1, 0], HANDSHAKE)]);
            r.update();
            with(parts, record(r, b"new", DATA, 0))
        },
        Reads(b"new"),
        Agrees,
    ),
    (
        "data in a split key update",
        |r| records(r, &[(&[24, 0], HANDSHAKE), (b"x", DATA)]),
        Refused(UnexpectedMessage),
        Agrees,
    ),
    (
        "alert in a split key update",
        |r| records(r, &[(&[24, 0], HANDSHAKE), (&[1, 0], ALERT)]),
        Refused(UnexpectedMessage),
        Agrees,
    ),
    (
        "two key updates in one record",
        |r| record(r, &[24, 0, 0, 1, 0, 24, 0, 0, 1, 0], HANDSHAKE, 0),
        Refused(UnexpectedMessage),
        Agrees,
    ),
    (
        "begins the next behind a key update",
        |r| record(r, &[24, 0, 0, 1, 0, 24], HANDSHAKE, 0),
        Refused(UnexpectedMessage),
        Agrees,
    ),
    ("empty handshake", |r| record(r, b"", HANDSHAKE, 9), Refused(UnexpectedMessage), Takes),
    ("hello request", |r| record(r, &[0, 0, 0, 0], HANDSHAKE, 0), Refused(UnexpectedMessage), Agrees),
    ("client hello", |r| record(r, &[1, 0, 0, 2, 3, 3], HANDSHAKE, 0), Refused(UnexpectedMessage), Agrees),
    ("ticket", |r| record(r, &[4, 0, 0, 1, 0], HANDSHAKE, 0), Refused(UnexpectedMessage), Agrees),
    ("end of early data", |r| record(r, &[5, 0, 0, 0], HANDSHAKE, 0), Refused(UnexpectedMessage), Agrees),
    (
        "certificate",
        |r| record(r, &[11, 0, 0, 4, 0, 0, 0, 0], HANDSHAKE, 0),
        Refused(UnexpectedMessage),
        Agrees,
    ),
    (
        "finished",
        |r| record(r, &[&[20, 0, 0, 32][..], &[1; 32]].concat(), HANDSHAKE, 0),
        Refused(UnexpectedMessage),
        Agrees,
    ),
    ("message hash", |r| record(r, &[254, 0, 0, 1, 0], HANDSHAKE, 0), Refused(UnexpectedMessage), Agrees),
];

/// What came of it, as a case says it.
fn check(name: &str, both: &mut Beside, outcome: Outcome) {
    let end = &mut both.end;
    let said = std::mem::take(&mut end.out);
    let told = both.client.feed(&said).fault;
    let (plain, closed, fault, heard) = match outcome {
        Reads(plain) => (plain, false, None, None),
        Closes(plain) => (plain, true, None, None),
        Refused(alert) => (&end.plain[..], false, Some(Fault::Refused(alert)), Some(alert as u8)),
        TooMany(alert) => (&end.plain[..], false, Some(Fault::TooMany(alert)), Some(alert as u8)),
        Ends(alert) => (&b""[..], false, Some(Fault::Peer(alert)), None),
    };
    assert_eq!((end.fault, end.closed), (fault, closed), "{name}");
    assert_eq!(end.plain, plain, "{name}");
    assert_eq!(told, heard.map(Fault::Peer), "{name}: what the client is told");
    let mut more = Vec::new();
    let sealed = end.lean().seal(b"more", 10, &mut more).is_ok();
    assert_eq!(sealed, fault.is_none(), "{name}: nothing goes on behind a fault");
    if sealed {
        assert_eq!(both.client.feed(&more).plain, b"more", "{name}");
    }
}

fn cases() -> impl Iterator<Item = &'static Case> {
    OF_RECORDS.iter().chain(OF_ALERTS).chain(OF_HANDSHAKE)
}

#[test]
fn each_is_answered_as_the_rfc_says() {
    for suite in SUITES {
        for (name, make, outcome, _) in cases() {
            let mut both = beside(suite);
            let wire = make(&mut both.rogue);
            both.end.feed(&wire);
            check(name, &mut both, *outcome);
        }
    }
}

#[test]
fn wherever_it_is_split() {
    for (name, make, outcome, _) in cases() {
        let mut both = beside(SUITES[0]);
        let wire = make(&mut both.rogue);
        if wire.len() > 2_000 {
            continue;
        }
        for byte in wire.chunks(1) {
            both.end.feed(byte);
        }
        check(name, &mut both, *outcome);
        let mut both = beside(SUITES[2]);
        let wire = make(&mut both.rogue);
        for piece in wire.chunks(7) {
            both.end.feed(piece);
        }
        check(name, &mut both, *outcome);
    }
}

#[test]
fn rustls_takes_no_more_than_is_said() {
    let mut wrong = Vec::new();
    for (name, make, outcome, rustls) in cases() {
        let mut both = beside(SUITES[1]);
        let wire = make(&mut both.rogue);
        let (plain, error) = tls::feed(&mut both.server, &wire);
        both.end.feed(&wire);
        let taken = matches!(outcome, Reads(_) | Closes(_));
        let as_said = match rustls {
            Agrees => error.is_none() == taken && both.end.plain == plain,
            Takes => error.is_none() && !taken,
            Refuses => error.is_some() && taken,
        };
        if !as_said {
            wrong.push((name, error, plain));
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn what_came_before_a_fault_is_read() {
    let mut both = beside(SUITES[0]);
    let wire = with(record(&mut both.rogue, b"good", DATA, 0), flipped(&mut both.rogue, 9));
    both.end.feed(&wire);
    assert_eq!((&both.end.plain[..], both.end.fault), (&b"good"[..], Some(Fault::Refused(BadRecordMac))));
}

#[test]
fn every_byte_of_a_record_matters() {
    let length = record(&mut beside(SUITES[0]).rogue, b"data", DATA, 3).len();
    for at in 0..length {
        let mut both = beside(SUITES[0]);
        let mut wire = record(&mut both.rogue, b"data", DATA, 3);
        wire[at] ^= 0x10;
        both.end.feed(&wire).feed(&[0; 20_000]);
        assert!(both.end.plain.is_empty(), "byte {at}");
        assert!(matches!(both.end.fault, Some(Fault::Refused(_))), "byte {at}");
    }
}

#[test]
fn half_a_record_waits_and_is_not_touched() {
    let mut both = beside(SUITES[0]);
    let wire = record(&mut both.rogue, b"data", DATA, 0);
    for end in 0..wire.len() {
        let mut half = wire[..end].to_vec();
        let opened = both.end.lean().open(&mut half, &mut [0; 100], &mut Vec::new());
        assert_eq!(opened, Opened { used: 0, plain: 0, closed: false, fault: None });
        assert_eq!(half, wire[..end]);
    }
    let mut header = [23, 3, 3, 0x41, 0];
    let opened = both.end.lean().open(&mut header, &mut [0; 5], &mut Vec::new());
    assert_eq!((opened.used, opened.fault), (0, None), "the longest record there is");
}

#[test]
fn a_number_does_not_wrap() {
    let mut both = beside(SUITES[0]);
    both.end.lean().opener.sequence = u64::MAX - 1;
    both.rogue.sequence = u64::MAX - 1;
    let last = record(&mut both.rogue, b"last", DATA, 0);
    assert_eq!(both.end.feed(&last).plain, b"last");
    both.end.feed(&[23, 3, 3, 0, 17]).feed(&[0; 17]);
    assert_eq!(both.end.fault, Some(Fault::Exhausted));
}
