//! Tests of the inbox, most of them against tungstenite's decoder as the oracle.

use super::*;
use crate::wire::close::parse_close;
use crate::wire::frame::{encode_header, push_frame};
use proptest::prelude::*;
use std::io::{self, Read, Write};
use tungstenite::protocol::{Role, WebSocket, WebSocketConfig};
use tungstenite::{Error, Message};

const MASK: [u8; 4] = [0x5A, 0x01, 0xF3, 0x80];
const LIMITS: InboxLimits = InboxLimits { message_bytes_max: 1 << 16, fragments_max: 64 };

#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Message(bool, Vec<u8>),
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<(u16, String)>),
    Failed(u16),
}

impl Seen {
    fn from_event(event: InboxEvent<'_>) -> Self {
        match event {
            InboxEvent::Message { text, payload } => Self::Message(text, payload.to_vec()),
            InboxEvent::Ping(payload) => Self::Ping(payload.to_vec()),
            InboxEvent::Pong(payload) => Self::Pong(payload.to_vec()),
            InboxEvent::Close(payload) => match parse_close(payload) {
                Ok(close) => Self::Close(close.map(|(code, reason)| (code, reason.to_owned()))),
                Err(error) => Self::Failed(error.close_code()),
            },
        }
    }
}

/// Feeds `bytes` in the pieces `cuts` make of it, with a given unmasking, until a close or an error.
fn decode(bytes: &[u8], cuts: &[usize], unmask: fn(&mut [u8], [u8; 4], usize)) -> Vec<Seen> {
    let mut inbox = None;
    let mut seen = Vec::new();
    let mut start = 0;
    for &end in cuts.iter().chain([&bytes.len()]) {
        let mut piece = bytes[start..end].to_vec();
        start = end;
        let fed = feed_with(
            &mut inbox,
            &mut piece,
            &LIMITS,
            Compression::Refused,
            &mut |event: InboxEvent<'_>| {
                seen.push(Seen::from_event(event));
                match seen.last() {
                    Some(Seen::Close(_) | Seen::Failed(_)) => Flow::Stop,
                    _ => Flow::Continue,
                }
            },
            unmask,
        );
        if let Err(error) = fed {
            seen.push(Seen::Failed(error.close_code()));
        }
        if matches!(seen.last(), Some(Seen::Close(_) | Seen::Failed(_))) {
            break;
        }
    }
    seen
}

/// A stream that gives the bytes, then has no more, and swallows what is written.
struct Stream<'a>(&'a [u8]);

impl Read for Stream<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { self.0.read(buffer) }
    }
}

impl Write for Stream<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What tungstenite's server makes of the same bytes.
fn oracle(bytes: &[u8]) -> Vec<Seen> {
    let config = WebSocketConfig::default()
        .read_buffer_size(256)
        .max_message_size(Some(LIMITS.message_bytes_max))
        .max_frame_size(Some(LIMITS.message_bytes_max));
    let mut socket = WebSocket::from_raw_socket(Stream(bytes), Role::Server, Some(config));
    let mut seen = Vec::new();
    loop {
        seen.push(match socket.read() {
            Ok(Message::Text(text)) => Seen::Message(true, text.as_bytes().to_vec()),
            Ok(Message::Binary(bytes)) => Seen::Message(false, bytes.to_vec()),
            Ok(Message::Ping(bytes)) => Seen::Ping(bytes.to_vec()),
            Ok(Message::Pong(bytes)) => Seen::Pong(bytes.to_vec()),
            Ok(Message::Close(frame)) => {
                let close = frame.map(|frame| (u16::from(frame.code), frame.reason.to_string()));
                // It reports a code that may not be sent as one of its own.
                let failed = close.as_ref().is_some_and(|(_, reason)| reason == "Protocol violation");
                seen.push(if failed { Seen::Failed(1002) } else { Seen::Close(close) });
                return seen;
            }
            Ok(Message::Frame(_)) => unreachable!("never read"),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => return seen,
            Err(Error::Utf8(_)) => Seen::Failed(1007),
            Err(Error::Capacity(_)) => Seen::Failed(1009),
            Err(Error::Protocol(_)) => Seen::Failed(1002),
            Err(error) => panic!("{error}"),
        });
        if matches!(seen.last(), Some(Seen::Failed(_))) {
            return seen;
        }
    }
}

/// The check every comparison goes through: whatever the split, the oracle's view comes out.
fn agrees(bytes: &[u8], cuts: &[usize], unmask: fn(&mut [u8], [u8; 4], usize)) -> Result<(), String> {
    let (ours, theirs) = (decode(bytes, cuts, unmask), oracle(bytes));
    if ours == theirs { Ok(()) } else { Err(format!("cuts {cuts:?}\nours {ours:?}\ntheirs {theirs:?}")) }
}

/// As [`agrees`] at every split in two, and byte by byte.
fn agrees_at_every_split(bytes: &[u8], unmask: fn(&mut [u8], [u8; 4], usize)) -> Result<(), String> {
    for cut in 0..=bytes.len() {
        agrees(bytes, &[cut], unmask)?;
    }
    agrees(bytes, &(0..bytes.len()).collect::<Vec<_>>(), unmask)
}

fn frame(out: &mut Vec<u8>, fin: bool, opcode: Opcode, payload: &[u8]) {
    let mut header = [0; HEADER_BYTES_MAX];
    let n = encode_header(&mut header, fin, opcode, payload.len(), Some(MASK));
    out.extend_from_slice(&header[..n]);
    let start = out.len();
    out.extend_from_slice(payload);
    apply_mask(&mut out[start..], MASK, 0);
}

/// A bit of everything that is legal.
fn medley() -> Vec<u8> {
    let mut out = Vec::new();
    frame(&mut out, true, Opcode::Text, "grüß €uch 🦀".as_bytes());
    frame(&mut out, true, Opcode::Text, b"");
    frame(&mut out, false, Opcode::Text, &"🦀".as_bytes()[..3]);
    frame(&mut out, true, Opcode::Ping, b"between");
    frame(&mut out, false, Opcode::Continuation, b"");
    frame(&mut out, true, Opcode::Pong, b"");
    frame(&mut out, true, Opcode::Continuation, &"🦀".as_bytes()[3..]);
    frame(&mut out, false, Opcode::Binary, b"");
    frame(&mut out, true, Opcode::Continuation, b"");
    frame(&mut out, true, Opcode::Binary, &[0xFF; 130]);
    frame(&mut out, true, Opcode::Ping, &[7; 125]);
    frame(&mut out, true, Opcode::Close, b"\x03\xe8bye \xe2\x82\xac");
    out
}

#[test]
fn a_medley_is_decoded_alike_at_every_split() {
    agrees_at_every_split(&medley(), apply_mask).unwrap();
    assert_eq!(decode(&medley(), &[], apply_mask).len(), 9);
}

#[test]
fn the_oracle_catches_decoders_that_unmask_wrongly() {
    let none: fn(&mut [u8], [u8; 4], usize) = |_, _, _| {};
    let without_offset: fn(&mut [u8], [u8; 4], usize) = |bytes, mask, _| apply_mask(bytes, mask, 0);
    let off_by_one: fn(&mut [u8], [u8; 4], usize) = |bytes, mask, at| apply_mask(bytes, mask, at + 1);
    agrees(&medley(), &[], none).unwrap_err();
    agrees(&medley(), &[], off_by_one).unwrap_err();
    // This one is right until a payload is split.
    agrees(&medley(), &[], without_offset).unwrap();
    agrees_at_every_split(&medley(), without_offset).unwrap_err();
}

#[test]
fn every_length_form_is_decoded_alike() {
    for len in [0, 1, 125, 126, 127, 255, 65_535, 65_536] {
        let payload: Vec<u8> = (0..len).map(|i| (i % 251) as u8).collect();
        let mut bytes = Vec::new();
        frame(&mut bytes, true, Opcode::Binary, &payload);
        frame(&mut bytes, true, Opcode::Pong, b"end");
        for cut in (0..20.min(bytes.len())).chain([bytes.len() / 2, bytes.len() - 1]) {
            agrees(&bytes, &[cut], apply_mask).unwrap();
            assert_eq!(decode(&bytes, &[cut], apply_mask)[0], Seen::Message(false, payload.clone()));
        }
    }
}

#[test]
fn every_close_code_is_decoded_alike() {
    // 1014 is in the registry and not yet in tungstenite.
    for code in (0..=5100u16).filter(|&code| code != 1014) {
        let mut bytes = Vec::new();
        frame(&mut bytes, true, Opcode::Close, &code.to_be_bytes());
        agrees(&bytes, &[3], apply_mask).unwrap();
    }
}

#[test]
fn wrong_sequences_and_text_are_refused_alike() {
    type Frames = &'static [(bool, Opcode, &'static [u8])];
    let cases: [(Frames, u16); 8] = [
        (&[(true, Opcode::Continuation, b"x")], 1002),
        (&[(false, Opcode::Text, b"x"), (true, Opcode::Text, b"y")], 1002),
        (&[(false, Opcode::Binary, b"x"), (false, Opcode::Binary, b"y")], 1002),
        (&[(true, Opcode::Text, b"\xff")], 1007),
        (&[(true, Opcode::Text, b"\xe2\x82")], 1007),
        (&[(false, Opcode::Text, b"\xe2"), (true, Opcode::Continuation, b"")], 1007),
        (&[(false, Opcode::Text, b"\xed"), (true, Opcode::Continuation, b"\xa0\x80")], 1007),
        (&[(true, Opcode::Close, b"x")], 1002),
    ];
    for (frames, code) in cases {
        let mut bytes = Vec::new();
        for (fin, opcode, payload) in frames {
            frame(&mut bytes, *fin, *opcode, payload);
        }
        agrees_at_every_split(&bytes, apply_mask).unwrap();
        assert_eq!(decode(&bytes, &[], apply_mask).last(), Some(&Seen::Failed(code)), "{frames:?}");
    }
}

fn feed_all(inbox: &mut Option<Box<Inbox>>, bytes: &[u8], limits: &InboxLimits) -> Result<usize, InboxError> {
    feed(inbox, &mut bytes.to_vec(), limits, &mut |_| Flow::Continue)
}

#[test]
fn reserved_bits_fail_at_the_first_byte() {
    for bit in [0x40, 0x20, 0x10] {
        let mut inbox = None;
        let error = feed_all(&mut inbox, &[0x81 | bit], &LIMITS).unwrap_err();
        assert_eq!((error, inbox.is_none()), (InboxError::Frame(FrameError::ReservedBits), true));
    }
}

#[test]
fn bad_text_fails_mid_frame() {
    let mut bytes = Vec::new();
    frame(&mut bytes, true, Opcode::Text, &[b"good ".as_slice(), &[0xF0, 0x80], &[b'x'; 200]].concat());
    let header = bytes.len() - 207;
    let mut inbox = None;
    assert!(feed_all(&mut inbox, &bytes[..header + 6], &LIMITS).is_ok());
    assert_eq!(feed_all(&mut inbox, &bytes[header + 6..header + 7], &LIMITS), Err(InboxError::BadUtf8));
    assert!(inbox.is_none());
}

#[test]
fn whole_frames_leave_no_inbox_and_partial_ones_only_as_long_as_they_are() {
    let bytes = medley();
    let mut inbox = None;
    feed(&mut inbox, &mut bytes.clone(), &LIMITS, &mut |_| Flow::Continue).unwrap();
    assert!(inbox.is_none());
    for cut in 1..bytes.len() {
        feed_all(&mut inbox, &bytes[..cut], &LIMITS).unwrap();
        feed_all(&mut inbox, &bytes[cut..], &LIMITS).unwrap();
        assert!(inbox.is_none(), "cut {cut}");
    }
    let mut cut = Vec::new();
    push_frame(&mut cut, Opcode::Ping, b"p", Some(MASK));
    for byte in &cut[..cut.len() - 1] {
        feed_all(&mut inbox, &[*byte], &LIMITS).unwrap();
        assert!(inbox.is_some());
    }
    feed_all(&mut inbox, &cut[cut.len() - 1..], &LIMITS).unwrap();
    assert!(inbox.is_none());
}

#[test]
fn memory_follows_what_arrived_and_not_what_was_announced() {
    let limits = InboxLimits { message_bytes_max: 1 << 30, fragments_max: 64 };
    let mut header = [0; HEADER_BYTES_MAX];
    let n = encode_header(&mut header, true, Opcode::Binary, 1 << 30, Some(MASK));
    let mut inbox = None;
    feed_all(&mut inbox, &header[..n], &limits).unwrap();
    assert_eq!(inbox.as_ref().unwrap().bytes(), size_of::<Inbox>());
    for arrived in 1..5000 {
        feed_all(&mut inbox, b"x", &limits).unwrap();
        assert!(inbox.as_ref().unwrap().bytes() <= size_of::<Inbox>() + 2 * arrived, "{arrived}");
    }
}

#[test]
fn many_fragments_move_the_message_few_times() {
    let limits = InboxLimits { message_bytes_max: 1 << 20, fragments_max: 1 << 20 };
    let (mut inbox, mut capacities) = (None, Vec::new());
    for i in 0..20_000usize {
        let mut bytes = Vec::new();
        frame(&mut bytes, false, if i == 0 { Opcode::Text } else { Opcode::Continuation }, b"abc");
        feed_all(&mut inbox, &bytes, &limits).unwrap();
        let held = inbox.as_ref().unwrap().bytes();
        assert!(held <= size_of::<Inbox>() + 2 * 3 * (i + 1));
        capacities.push(held);
    }
    capacities.dedup();
    assert!(capacities.len() < 20, "{capacities:?}");
}

#[test]
fn whole_frames_are_handed_out_where_they_lie() {
    let mut bytes = Vec::new();
    frame(&mut bytes, true, Opcode::Text, b"one");
    frame(&mut bytes, true, Opcode::Ping, b"two");
    frame(&mut bytes, true, Opcode::Binary, &[3; 300]);
    let range = bytes.as_ptr_range();
    let (mut inbox, mut events) = (None, 0);
    let fed = feed(&mut inbox, &mut bytes, &LIMITS, &mut |event| {
        let (InboxEvent::Message { payload, .. } | InboxEvent::Ping(payload)) = event else { panic!() };
        assert!(range.contains(&payload.as_ptr()));
        events += 1;
        Flow::Continue
    });
    assert_eq!((fed, events), (Ok(bytes.len()), 3));
}

#[test]
fn a_message_too_big_is_refused_at_the_header_that_makes_it_so() {
    let limits = InboxLimits { message_bytes_max: 1000, fragments_max: 64 };
    let announce = |opcode, fin, len| {
        let mut header = [0; HEADER_BYTES_MAX];
        let n = encode_header(&mut header, fin, opcode, len, Some(MASK));
        header[..n].to_vec()
    };
    let mut inbox = None;
    assert!(feed_all(&mut inbox, &announce(Opcode::Text, true, 1000), &limits).is_ok());
    inbox = None;
    let huge = (1u64 << 63) as usize - 1;
    for len in [1001, huge] {
        let fed = feed_all(&mut inbox, &announce(Opcode::Text, true, len), &limits);
        assert_eq!(fed, Err(InboxError::MessageTooBig));
    }
    for (len, ok) in [(400, true), (401, false)] {
        let mut bytes = Vec::new();
        frame(&mut bytes, false, Opcode::Binary, &[0; 600]);
        bytes.extend(announce(Opcode::Continuation, true, len));
        assert_eq!(feed_all(&mut None, &bytes, &limits).is_ok(), ok);
    }
}

#[test]
fn fragments_are_counted() {
    for (fragments, ok) in [(64, true), (65, false)] {
        let mut bytes = Vec::new();
        for i in 0..fragments {
            let opcode = if i == 0 { Opcode::Text } else { Opcode::Continuation };
            frame(&mut bytes, i + 1 == fragments, opcode, b"");
        }
        let fed = feed_all(&mut None, &bytes, &LIMITS);
        assert_eq!(fed, if ok { Ok(bytes.len()) } else { Err(InboxError::TooManyFragments) });
    }
}

/// Stops after every event and goes on from the stash, as a paused connection does.
fn decode_with_stops(bytes: &[u8], cut: usize) -> Vec<Seen> {
    let (mut inbox, mut seen) = (None, Vec::new());
    for piece in [&bytes[..cut], &bytes[cut..]] {
        let mut work = Some(piece.to_vec());
        while let Some(mut bytes) = work {
            let used = feed(&mut inbox, &mut bytes, &LIMITS, &mut |event| {
                seen.push(Seen::from_event(event));
                Flow::Stop
            });
            let used = used.unwrap();
            Inbox::stash(&mut inbox, &bytes[used..]);
            assert_eq!(inbox.as_ref().is_some_and(|held| held.has_stash()), used < bytes.len());
            work = Inbox::take_stash(&mut inbox);
        }
    }
    assert!(inbox.is_none());
    seen
}

#[test]
fn a_receiver_may_stop_after_every_event_and_go_on_from_the_stash() {
    let bytes = medley();
    let expected = oracle(&bytes);
    for cut in 0..=bytes.len() {
        assert_eq!(decode_with_stops(&bytes, cut), expected, "cut {cut}");
    }
}

#[test]
fn bytes_fed_before_the_stash_was_taken_keep_their_place() {
    let bytes = medley();
    let (mut inbox, mut seen) = (None, Vec::new());
    Inbox::stash(&mut inbox, &bytes[..9]);
    let fed = feed(&mut inbox, &mut bytes[9..].to_vec(), &LIMITS, &mut |_| Flow::Continue);
    assert_eq!(fed, Ok(bytes.len() - 9));
    let mut stashed = Inbox::take_stash(&mut inbox).unwrap();
    assert!(inbox.is_none() && stashed == bytes);
    feed(&mut inbox, &mut stashed, &LIMITS, &mut |event| {
        seen.push(Seen::from_event(event));
        Flow::Continue
    })
    .unwrap();
    assert_eq!(seen, oracle(&bytes));
}

/// One legal message in fragments, with control frames between them.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        "\\PC{0,60}".prop_map(|text| (true, text.into_bytes())),
        proptest::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| (false, bytes)),
    ];
    let cuts = proptest::collection::vec(any::<prop::sample::Index>(), 0..4);
    let control = proptest::option::of((any::<bool>(), proptest::collection::vec(any::<u8>(), 0..125)));
    (payload, cuts, control).prop_map(|((text, payload), cuts, control)| {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(payload.len() + 1)).collect();
        cuts.sort_unstable();
        cuts.push(payload.len());
        let (mut out, mut start) = (Vec::new(), 0);
        for (i, &end) in cuts.iter().enumerate() {
            let opcode = match (i, text) {
                (0, true) => Opcode::Text,
                (0, false) => Opcode::Binary,
                _ => Opcode::Continuation,
            };
            frame(&mut out, i + 1 == cuts.len(), opcode, &payload[start..end]);
            start = end;
            if let Some((ping, payload)) = &control {
                frame(&mut out, true, if *ping { Opcode::Ping } else { Opcode::Pong }, payload);
            }
        }
        out
    })
}

/// Sorted places to cut `len` bytes at.
fn places(cuts: &[prop::sample::Index], len: usize) -> Vec<usize> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(len + 1)).collect();
    cuts.sort_unstable();
    cuts
}

proptest! {
    #[test]
    fn random_messages_are_decoded_alike_at_random_splits(
        messages in proptest::collection::vec(message(), 0..5),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let bytes = messages.concat();
        let cuts = places(&cuts, bytes.len());
        prop_assert_eq!(agrees(&bytes, &cuts, apply_mask), Ok(()));
    }

    #[test]
    fn short_random_messages_are_decoded_alike_at_every_split(bytes in message()) {
        prop_assert_eq!(agrees_at_every_split(&bytes[..bytes.len().min(120)], apply_mask), Ok(()));
    }

    /// After one byte was changed we may only be stricter or earlier than the oracle, and never differ
    /// with ourselves between one split and another.
    #[test]
    fn a_changed_byte_never_lets_more_through_than_the_oracle(
        messages in proptest::collection::vec(message(), 1..4),
        at in any::<prop::sample::Index>(), to in any::<u8>(),
        cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..9),
    ) {
        let mut bytes = messages.concat();
        let at = at.index(bytes.len());
        bytes[at] = to;
        let (ours, theirs) = (decode(&bytes, &[], apply_mask), oracle(&bytes));
        let split = decode(&bytes, &places(&cuts, bytes.len()), apply_mask);
        prop_assert_eq!(&split, &ours);
        let ours_failed = matches!(ours.last(), Some(Seen::Failed(_)));
        let same = ours.iter().zip(&theirs).take_while(|(a, b)| a == b).count();
        prop_assert!(same == theirs.len() && same == ours.len() || ours_failed && same + 1 == ours.len(),
            "ours {:?} theirs {:?}", ours, theirs);
    }

    #[test]
    fn random_bytes_never_panic_and_never_hold_more_than_twice_what_came(
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut inbox = None;
        for byte in &bytes {
            if feed_all(&mut inbox, &[*byte], &LIMITS).is_err() {
                prop_assert!(inbox.is_none());
                break;
            }
            let held = inbox.as_ref().map_or(0, |held| held.bytes());
            prop_assert!(held <= size_of::<Inbox>() + 2 * bytes.len());
        }
    }
}
