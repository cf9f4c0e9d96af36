//! Clients that go on from message to message, and clients that begin anew, against flate2's compressor as both.

use super::*;
use flate2::{Compress, Compression, FlushCompress};
use proptest::prelude::*;

const BYTES_MAX: usize = 1 << 20;

/// A client's compressor; `goes_on` says whether it keeps its window over messages.
struct Client {
    state: Compress,
    goes_on: bool,
}

impl Client {
    fn new(level: u32, goes_on: bool) -> Self {
        Self { state: Compress::new(Compression::new(level), false), goes_on }
    }

    fn message(&mut self, content: &[u8]) -> Vec<u8> {
        // RFC 7692 section 7.2.3.6; there would be nothing to flush.
        if content.is_empty() {
            return vec![0];
        }
        if !self.goes_on {
            self.state.reset();
        }
        let mut out = Vec::with_capacity(content.len() + content.len() / 8 + 1_024);
        self.state.compress_vec(content, &mut out, FlushCompress::Sync).unwrap();
        assert!(out.len() < out.capacity(), "the flush had room");
        assert_eq!(out.split_off(out.len() - 4), [0, 0, 0xff, 0xff]);
        out
    }
}

/// The server's side of one client.
struct Server {
    inflater: Inflater,
    context: ClientContext,
    total: Arc<Contexts>,
}

impl Server {
    fn new(bytes_max: usize) -> Self {
        let total = Arc::new(Contexts::new(bytes_max));
        let inflater = Inflater::keeping(Arc::clone(&total));
        Self { inflater, context: ClientContext::default(), total }
    }

    fn reads(&mut self, payload: &[u8]) -> Result<Vec<u8>, InflateError> {
        let content = self.context.inflate(&mut self.inflater, payload, BYTES_MAX).map(<[u8]>::to_vec);
        self.inflater.give_back();
        assert!(self.total.bytes() <= self.total.bytes_max());
        assert!(self.total.bytes() <= WINDOW_BYTES, "{} bytes of one client", self.total.bytes());
        content
    }
}

fn chat(number: usize) -> Vec<u8> {
    format!("{{\"type\":\"say\",\"text\":\"message {number} of somebody\"}}").into_bytes()
}

#[test]
fn a_client_that_goes_on_is_understood() {
    for level in 1..=9 {
        let (mut client, mut server) = (Client::new(level, true), Server::new(1 << 20));
        for number in 0..200 {
            let content = chat(number).repeat(1 + number % 7 * 100);
            let payload = client.message(&content);
            assert!(server.reads(&payload) == Ok(content), "level {level}, message {number}");
        }
        assert!(server.total.bytes() > 0);
        drop(server.context);
        assert_eq!(server.total.bytes(), 0, "given back at the end");
    }
}

#[test]
fn a_client_that_begins_anew_costs_nothing_once_that_was_seen() {
    let (mut client, mut server) = (Client::new(6, false), Server::new(1 << 20));
    assert_eq!(server.reads(&client.message(&chat(0))), Ok(chat(0)));
    let of_one = server.total.bytes();
    assert!((1..=2 * chat(0).len()).contains(&of_one), "{of_one} bytes of one short message");
    assert_eq!(server.reads(&client.message(&chat(1))), Ok(chat(1)));
    for number in 2..50 {
        assert_eq!(server.reads(&client.message(&chat(number))), Ok(chat(number)));
        assert_eq!(server.total.bytes(), 0);
    }
    let (begins_anew, kept) = server.context.into_parts();
    assert!(begins_anew && kept.is_none());
}

/// Each message begins like the one before and can be read by itself, and still the client goes on.
#[test]
fn who_goes_on_is_not_taken_for_one_that_begins_anew() {
    let run = vec![18; 324];
    let sealed = |seed| [&b"{\"v\":1}\n"[..], &noise(seed, 900)].concat();
    for (contents, level) in [
        // What is nearest is in the message itself.
        ([run.clone(), run.clone(), run.clone(), b"18 is a number".repeat(9)], 9),
        // Noise is stored, its known beginning with it.
        ([sealed(1), sealed(2), sealed(3), sealed(1)], 6),
        ([sealed(4), sealed(5), sealed(6), sealed(4)], 1),
    ] {
        let (mut client, mut server) = (Client::new(level, true), Server::new(1 << 20));
        let [first, .., last] = &contents;
        for content in contents.iter().chain([first, last]) {
            let payload = client.message(content);
            assert!(server.reads(&payload).as_ref() == Ok(content), "level {level}");
        }
    }
}

#[test]
fn who_sends_nothing_or_nothing_in_it_has_nothing_kept() {
    let mut server = Server::new(1 << 20);
    for payload in [&[][..], &[0], &[]] {
        assert_eq!(server.reads(payload), Ok(Vec::new()));
    }
    assert_eq!(server.total.bytes(), 0);
    assert!(server.context.into_parts().1.is_none());
}

#[test]
fn without_room_a_context_is_lost_and_only_who_needs_it_fails() {
    for (goes_on, outcome) in [(true, Err(InflateError::NoContext)), (false, Ok(chat(9)))] {
        let (mut client, mut server) = (Client::new(6, goes_on), Server::new(WINDOW_BYTES));
        let other = WINDOW_BYTES - chat(0).len();
        assert!(server.total.admits());
        assert!(server.total.charge(other));
        assert!(!server.total.admits(), "a newcomer would find no room");
        assert_eq!(server.total.declined(), 1);
        // Its first message fits. With the second, which begins otherwise, it does not.
        assert_eq!(server.reads(&client.message(&chat(0))), Ok(chat(0)));
        let second = [b"and so on: ", &chat(1)[..]].concat();
        assert_eq!(server.reads(&client.message(&second)), Ok(second));
        assert_eq!(server.total.bytes(), other, "what was kept of it is given back");
        assert_eq!(server.reads(&client.message(&chat(9))), outcome);
        server.total.release(other);
        drop(server.context);
        assert_eq!(server.total.bytes(), 0);
    }
}

#[test]
fn what_is_corrupt_stays_corrupt() {
    let mut server = Server::new(1 << 20);
    assert_eq!(server.reads(&Client::new(6, true).message(&chat(0))), Ok(chat(0)));
    assert_eq!(server.reads(&[0xff, 0xff]), Err(InflateError::Corrupt));
    let mut fresh = Server::new(1 << 20);
    assert_eq!(fresh.reads(&[0xf2, 0x00, 0x11, 0x00, 0x00]), Err(InflateError::Corrupt), "refers to nothing");
}

/// RFC 7692 section 7.2.3.4: a block with BFINAL does not end what may be referred to.
#[test]
fn a_final_block_inside_a_message_keeps_what_came_before_it() {
    let (before, first, second) =
        (b"what came before", b"the first part", b"what came before the first part");
    let mut out = Vec::new();
    for (known, content) in [(before.to_vec(), &first[..]), ([&before[..], first].concat(), second)] {
        let mut state = Compress::new(Compression::best(), false);
        state.set_dictionary(&known).unwrap();
        let mut part = Vec::with_capacity(256);
        state.compress_vec(content, &mut part, FlushCompress::Finish).unwrap();
        out.extend(part);
    }
    let mut inflater = Inflater::new();
    let wanted = [&first[..], second].concat();
    assert_eq!(inflater.inflate_behind(before, &out, BYTES_MAX), Ok(&wanted[..]));
    assert_eq!(inflater.inflate(&out, BYTES_MAX), Err(InflateError::Corrupt));
}

fn noise(mut seed: u32, len: usize) -> Vec<u8> {
    let mut next = || {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// More than a window, in messages that refer to the far end of it.
#[test]
fn what_is_further_back_than_a_window_is_forgotten() {
    let (mut client, mut server) = (Client::new(6, true), Server::new(1 << 20));
    for round in 0..40_u32 {
        let content = [noise(round, 7_000), noise(round.saturating_sub(4), 7_000)].concat();
        let payload = client.message(&content);
        assert!(server.reads(&payload) == Ok(content), "round {round}");
    }
    assert_eq!(server.total.bytes(), WINDOW_BYTES);
    let large = noise(99, 100_000);
    let payload = client.message(&large);
    assert!(server.reads(&payload) == Ok(large.clone()));
    let payload = client.message(&large[90_000..]);
    assert!(payload.len() < 200, "it refers to the end of the one before");
    assert!(server.reads(&payload).as_deref() == Ok(&large[90_000..]));
}

fn contents() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let word = prop_oneof![
        Just(&b"{\"type\":"[..]),
        Just(&b"\"say\""[..]),
        Just(&b"\xff\x00\x01"[..]),
        Just(&b"abcabcabd"[..]),
        Just(&b"7"[..]),
    ];
    let short = proptest::collection::vec(word.clone(), 0..8).prop_map(|words| words.concat());
    let long =
        (proptest::collection::vec(word, 0..30), 1_usize..60).prop_map(|(words, n)| words.concat().repeat(n));
    let noise = (any::<u32>(), 0_usize..12_000).prop_map(|(seed, len)| noise(seed, len));
    let headed = (0_usize..8, any::<u32>(), 0_usize..2_000)
        .prop_map(|(head, seed, len)| [&b"{\"id\":2}"[..8 - head % 2], &self::noise(seed, len)].concat());
    let run = (0_u8..3, 0_usize..600).prop_map(|(byte, len)| vec![byte; len]);
    proptest::collection::vec(prop_oneof![6 => short, 2 => long, 1 => noise, 3 => headed, 2 => run], 1..16)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whatever_a_client_does_it_is_understood(
        contents in contents(), level in 1_u32..=9, goes_on in any::<bool>(),
    ) {
        let (mut client, mut server) = (Client::new(level, goes_on), Server::new(1 << 20));
        for content in contents {
            let payload = client.message(&content);
            prop_assert_eq!(server.reads(&payload), Ok(content));
        }
    }

    #[test]
    fn random_bytes_never_panic(payloads in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..64), 0..8)) {
        let mut server = Server::new(WINDOW_BYTES);
        for payload in payloads {
            let _ = server.reads(&payload);
        }
    }
}
