//! Tests of the inbox on connections that negotiated compression; flate2 compresses what is fed.

use super::*;
use crate::wire::deflate::Contexts;
use crate::wire::frame::{RSV1, encode_header};
use flate2::{Compress, FlushCompress};
use proptest::prelude::*;
use std::sync::Arc;

const MASK: [u8; 4] = [0x5A, 0x01, 0xF3, 0x80];
const LIMITS: InboxLimits = InboxLimits { message_bytes_max: 1 << 12, fragments_max: 64 };

#[derive(Debug, Clone, PartialEq, Eq)]
enum Seen {
    Message(bool, Vec<u8>),
    Ping(Vec<u8>),
    Failed(InboxError),
}

fn feed_pieces<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &InboxLimits) -> Vec<Seen> {
    let (mut inbox, mut inflater, mut seen) =
        (None, Inflater::keeping(Arc::new(Contexts::new(1 << 20))), Vec::new());
    let mut context = ClientContext::default();
    for piece in pieces {
        inflater.begin_turn();
        let mut bytes = piece.to_vec();
        let fed = feed_deflated(
            &mut inbox,
            &mut bytes,
            limits,
            Compression::Inflated { inflater: &mut inflater, context: &mut context },
            &mut |event: InboxEvent<'_>| {
                seen.push(match event {
                    InboxEvent::Message { text, payload } => Seen::Message(text, payload.to_vec()),
                    InboxEvent::Ping(payload) => Seen::Ping(payload.to_vec()),
                    event => panic!("{event:?}"),
                });
                Flow::Continue
            },
        );
        match fed {
            Ok(used) => assert_eq!(used, piece.len()),
            Err(error) => {
                assert!(inbox.is_none());
                seen.push(Seen::Failed(error));
                return seen;
            }
        }
    }
    assert!(inbox.is_none() || matches!(seen.last(), None | Some(Seen::Message(..) | Seen::Ping(_))));
    seen
}

/// What comes out must not depend on how the bytes are cut.
fn at_every_split(bytes: &[u8]) -> Vec<Seen> {
    let whole = feed_pieces([bytes], &LIMITS);
    for cut in 0..=bytes.len() {
        let (head, tail) = bytes.split_at(cut);
        assert_eq!(feed_pieces([head, tail], &LIMITS), whole, "cut at {cut}");
    }
    assert_eq!(feed_pieces(bytes.chunks(1), &LIMITS), whole, "byte by byte");
    whole
}

fn deflate(content: &[u8], level: u32) -> Vec<u8> {
    let mut state = Compress::new(flate2::Compression::new(level), false);
    let mut out = Vec::with_capacity(content.len() * 2 + 64);
    state.compress_vec(content, &mut out, FlushCompress::Sync).unwrap();
    out.truncate(out.len() - 4);
    out
}

fn frame(out: &mut Vec<u8>, fin: bool, rsv1: bool, opcode: Opcode, payload: &[u8]) {
    let mut header = [0; HEADER_BYTES_MAX];
    let n = encode_header(&mut header, fin, opcode, payload.len(), Some(MASK));
    header[0] |= if rsv1 { RSV1 } else { 0 };
    out.extend_from_slice(&header[..n]);
    let start = out.len();
    out.extend_from_slice(payload);
    apply_mask(&mut out[start..], MASK, 0);
}

/// A message in `fragments` frames with a ping behind each but the last.
fn message(out: &mut Vec<u8>, text: bool, rsv1: bool, payload: &[u8], fragments: usize) {
    let each = payload.len().div_ceil(fragments).max(1);
    let mut opcode = if text { Opcode::Text } else { Opcode::Binary };
    let mut pieces = payload.chunks(each).peekable();
    loop {
        let piece = pieces.next().unwrap_or_default();
        let fin = pieces.peek().is_none();
        frame(out, fin, rsv1 && opcode != Opcode::Continuation, opcode, piece);
        opcode = Opcode::Continuation;
        if fin {
            return;
        }
        frame(out, true, false, Opcode::Ping, b"?");
    }
}

#[test]
fn compressed_and_plain_messages_mix_at_every_split() {
    let text = "grüß €uch 🦀 ".repeat(20);
    let mut bytes = Vec::new();
    message(&mut bytes, true, true, &deflate(text.as_bytes(), 6), 1);
    message(&mut bytes, true, false, text.as_bytes(), 2);
    message(&mut bytes, true, true, &deflate(text.as_bytes(), 1), 3);
    message(&mut bytes, false, true, &deflate(&[0xFF; 300], 9), 2);
    message(&mut bytes, true, true, &[0x00], 1);
    let mut messages = at_every_split(&bytes);
    messages.retain(|seen| !matches!(seen, Seen::Ping(_)));
    let content = Seen::Message(true, text.into_bytes());
    let binary = Seen::Message(false, vec![0xFF; 300]);
    assert_eq!(messages, [content.clone(), content.clone(), content, binary, Seen::Message(true, vec![])]);
}

#[test]
fn bad_content_fails_alike_at_every_split() {
    for (payload, error) in [
        (deflate(b"h\xc3\x28", 6), InboxError::BadUtf8),
        (deflate("€".as_bytes().split_last().unwrap().1, 6), InboxError::BadUtf8),
        (vec![0xFF; 9], InboxError::BadDeflate),
        (deflate(&[b'a'; 100], 6)[..3].to_vec(), InboxError::BadDeflate),
        (deflate(&[b'a'; (1 << 12) + 1], 6), InboxError::MessageTooBig),
    ] {
        for fragments in [1, 2] {
            let mut bytes = Vec::new();
            message(&mut bytes, true, true, &payload, fragments);
            assert_eq!(at_every_split(&bytes).last(), Some(&Seen::Failed(error)), "{payload:02x?}");
        }
    }
}

#[test]
fn the_compressed_size_is_bounded_too() {
    let noise: Vec<u8> = (0..=u8::MAX).map(|byte| byte.wrapping_mul(167)).collect();
    let deflated = deflate(&noise, 6);
    assert!(deflated.len() > noise.len());
    let mut bytes = Vec::new();
    message(&mut bytes, false, true, &deflated, 1);
    let limits = InboxLimits { message_bytes_max: noise.len(), ..LIMITS };
    assert_eq!(feed_pieces([&bytes[..]], &limits), [Seen::Failed(InboxError::MessageTooBig)]);
}

#[test]
fn rsv1_is_for_the_first_frame_of_a_message_and_for_who_negotiated_it() {
    let reserved = Seen::Failed(InboxError::Frame(FrameError::ReservedBits));
    for opcode in [Opcode::Continuation, Opcode::Ping, Opcode::Pong, Opcode::Close] {
        let mut bytes = Vec::new();
        message(&mut bytes, false, true, &[0x00], 1);
        frame(&mut bytes, true, true, opcode, b"");
        assert_eq!(at_every_split(&bytes), [Seen::Message(false, vec![]), reserved.clone()], "{opcode:?}");
    }
    let mut bytes = Vec::new();
    message(&mut bytes, false, true, &[0x00], 1);
    let fed = feed(&mut None, &mut bytes, &LIMITS, &mut |_: InboxEvent<'_>| Flow::Continue);
    assert_eq!(fed, Err(InboxError::Frame(FrameError::ReservedBits)));
}

#[test]
fn a_spent_inflater_ends_the_call_behind_the_message() {
    let mut one = Vec::new();
    message(&mut one, false, true, &deflate(&vec![0; 600_000], 6), 1);
    let limits = InboxLimits { message_bytes_max: 1 << 20, ..LIMITS };
    let mut bytes = one.repeat(5);
    let (mut inflater, mut at, mut calls) =
        (Inflater::keeping(Arc::new(Contexts::new(1 << 20))), 0, Vec::new());
    let mut context = ClientContext::default();
    while at < bytes.len() {
        inflater.begin_turn();
        let mut count = 0;
        at += feed_deflated(
            &mut None,
            &mut bytes[at..],
            &limits,
            Compression::Inflated { inflater: &mut inflater, context: &mut context },
            &mut |_: InboxEvent<'_>| {
                count += 1;
                Flow::Continue
            },
        )
        .unwrap();
        calls.push(count);
    }
    assert_eq!(calls, [2, 2, 1]);
    assert!(inflater.capacity() < 600_000, "a big message's memory is given back");
}

/// One message: text or not, compressed or not, its content, level, and number of fragments.
fn any_message() -> impl Strategy<Value = (bool, bool, Vec<u8>, u32, usize)> {
    let content = prop_oneof![
        "[a-c€🦀]{0,60}".prop_map(String::into_bytes),
        proptest::collection::vec(any::<u8>(), 0..60),
    ];
    (any::<bool>(), any::<bool>(), content, 0_u32..=9, 1_usize..5)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn random_messages_come_out_whole_at_every_split(messages in proptest::collection::vec(any_message(), 1..4)) {
        let (mut bytes, mut wanted) = (Vec::new(), Vec::new());
        for (text, rsv1, content, level, fragments) in messages {
            let text = text && core::str::from_utf8(&content).is_ok();
            let payload = if rsv1 { deflate(&content, level) } else { content.clone() };
            message(&mut bytes, text, rsv1, &payload, fragments);
            wanted.push(Seen::Message(text, content));
        }
        let mut seen = at_every_split(&bytes);
        seen.retain(|seen| !matches!(seen, Seen::Ping(_)));
        prop_assert_eq!(seen, wanted);
    }
}
