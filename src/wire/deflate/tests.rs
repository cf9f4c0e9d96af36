//! Tests of negotiation, and of deflating and inflating against flate2's own streams as the oracle.

use super::*;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use proptest::prelude::*;

const BYTES_MAX: usize = 1 << 16;

const ANSWER: &str = "permessage-deflate; client_no_context_takeover";
const ANSWER_WITH_RESETS: &str = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";

fn answer(fields: &[&str]) -> Result<Option<&'static str>, MalformedOffers> {
    Ok(negotiate(fields.iter().copied())?.map(|agreement| agreement.answer))
}

#[test]
fn offers_that_can_be_honoured_are_accepted() {
    for offer in [
        "permessage-deflate",
        " permessage-deflate ; client_no_context_takeover ",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; client_max_window_bits=8",
        "permessage-deflate; client_max_window_bits=\"10\"",
        "permessage-deflate; client_max_window_bits=\"1\\5\"",
        "x-other; a=1, permessage-deflate",
        ",, permessage-deflate,",
    ] {
        assert_eq!(answer(&[offer]), Ok(Some(ANSWER)), "{offer}");
    }
}

/// Netty's client takes no parameter in an answer that it has not offered.
#[test]
fn that_the_server_resets_is_told_who_asked() {
    for offer in ["permessage-deflate; server_no_context_takeover", OFFER] {
        assert_eq!(answer(&[offer]), Ok(Some(ANSWER_WITH_RESETS)), "{offer}");
    }
}

#[test]
fn every_window_is_accepted_by_name() {
    for bits in 8..=15 {
        for (resets, before) in [("", ANSWER), ("; server_no_context_takeover", ANSWER_WITH_RESETS)] {
            for offer in [format!("={bits}"), format!("=\"{bits}\"")] {
                let offer = format!("permessage-deflate{resets}; server_max_window_bits{offer}");
                let agreement = negotiate([offer.as_str()].into_iter()).unwrap().expect("accepted");
                assert_eq!(agreement.answer, format!("{before}; server_max_window_bits={bits}"), "{offer}");
                assert_eq!((agreement.window_bits, agreement.server_resets), (bits, !resets.is_empty()));
                assert_eq!(is_answer(agreement.answer), !resets.is_empty(), "{offer}");
            }
        }
    }
    assert_eq!(negotiate(["permessage-deflate"].into_iter()).unwrap().map(|it| it.window_bits), Some(15));
}

#[test]
fn offers_that_cannot_be_honoured_are_declined_and_the_next_is_looked_at() {
    for offer in [
        "permessage-deflate; server_max_window_bits=7",
        "permessage-deflate; server_max_window_bits=16",
        "permessage-deflate; server_max_window_bits=015",
        "permessage-deflate; server_max_window_bits=\"\"",
        "permessage-deflate; server_max_window_bits=",
        "permessage-deflate; server_max_window_bits",
        "permessage-deflate; server_max_window_bits=+15",
        "permessage-deflate; client_max_window_bits=7",
        "permessage-deflate; client_max_window_bits=08",
        "permessage-deflate; client_max_window_bits=abc",
        "permessage-deflate; client_max_window_bits=999999999999",
        "permessage-deflate; server_no_context_takeover=true",
        "permessage-deflate; client_no_context_takeover=1",
        "permessage-deflate; client_no_context_takeover=\"\"",
        "permessage-deflate; unknown",
        "permessage-deflate; unknown=\"a, b; c\"",
        "permessage-deflate; server_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; client_max_window_bits; client_max_window_bits=15",
        "permessage-deflate; server_max_window_bits=15; server_max_window_bits=15",
        "permessage-bzip2",
        "Permessage-Deflate2; server_max_window_bits=15",
    ] {
        assert_eq!(answer(&[offer]), Ok(None), "{offer}");
        assert_eq!(answer(&[&format!("{offer}, permessage-deflate")]), Ok(Some(ANSWER)), "{offer}");
        assert_eq!(answer(&[offer, "permessage-deflate"]), Ok(Some(ANSWER)), "{offer}");
    }
    assert_eq!(answer(&[]), Ok(None));
    assert_eq!(answer(&["", " , "]), Ok(None));
}

#[test]
fn fields_that_are_no_list_are_malformed() {
    for field in [
        "permessage-deflate;",
        "permessage-deflate; ;",
        "; a",
        "=",
        "a b",
        "a; b=\"c",
        "a; b=\"c\"d",
        "permessage-deflate; unknown=(",
        "\"permessage-deflate\"",
    ] {
        assert_eq!(answer(&[field]), Err(MalformedOffers), "{field}");
    }
}

#[test]
fn a_client_accepts_what_this_server_answers_and_no_context_takeover_only() {
    assert!(is_answer(ANSWER_WITH_RESETS));
    for wrong in [
        ANSWER,
        "permessage-deflate",
        "x-other",
        "",
        "permessage-deflate; server_no_context_takeover; odd",
        "permessage-deflate; server_no_context_takeover, x",
    ] {
        assert!(!is_answer(wrong), "{wrong}");
    }
}

/// RFC 7692 section 7.2.3: the same "Hello" in every way the section shows, and what is lenient beside it.
#[test]
fn the_examples_of_the_rfc_inflate() {
    let examples: [(&[u8], &[u8]); 8] = [
        // 7.2.3.1, one block.
        (&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], b"Hello"),
        // 7.2.3.3, a stored block.
        (&[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00], b"Hello"),
        // 7.2.3.4, BFINAL set.
        (&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00], b"Hello"),
        // The same without the block behind it.
        (&[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], b"Hello"),
        // 7.2.3.5, two blocks.
        (&[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00], b"Hello"),
        // Two final blocks.
        (
            &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00],
            b"HelloHello",
        ),
        // 7.2.3.6, an empty message.
        (&[0x00], b""),
        (&[], b""),
    ];
    let mut inflater = Inflater::new();
    for (payload, content) in examples {
        assert_eq!(inflater.inflate(payload, BYTES_MAX), Ok(content), "{payload:02x?}");
        assert_eq!(inflater.inflate(payload, content.len()), Ok(content), "{payload:02x?} at its bound");
    }
    // 7.2.3.2 shares the window with the message before, which is not agreed to.
    assert_eq!(inflater.inflate(&[0xf2, 0x00, 0x11, 0x00, 0x00], BYTES_MAX), Err(InflateError::Corrupt));
}

#[test]
fn corrupt_and_cut_messages_are_seen() {
    let mut inflater = Inflater::new();
    for payload in [
        &[0xff_u8, 0xff, 0xff][..],
        &[0x07],
        &[0xf2, 0x48, 0xcd],
        &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07],
        &[0x00, 0x06, 0x00, 0xf9, 0xff, 0x48],
        &[0x00, 0x05, 0x00, 0xfb, 0xff, 0x48],
        &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0xff],
    ] {
        assert_eq!(inflater.inflate(payload, BYTES_MAX), Err(InflateError::Corrupt), "{payload:02x?}");
        // The next message is none the worse for it.
        assert_eq!(inflater.inflate(&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], 5), Ok(&b"Hello"[..]));
    }
}

#[test]
fn a_message_cut_anywhere_is_corrupt() {
    let content: String =
        (0..100).map(|n| format!("{{\"id\":{n},\"name\":\"{}\"}},", n * 7_919 % 1_000)).collect();
    let mut inflater = Inflater::new();
    for level in 1..=9 {
        let deflated = oracle_deflate(content.as_bytes(), Compression::new(level));
        for end in 1..deflated.len() {
            let cut = inflater.inflate(&deflated[..end], BYTES_MAX);
            assert_eq!(cut, Err(InflateError::Corrupt), "level {level}, cut at {end}");
        }
    }
}

#[test]
fn a_bomb_stops_at_the_bound_and_its_memory_goes() {
    let bomb = oracle_deflate(&vec![0; 8 << 20], Compression::best());
    assert!(bomb.len() < 32 * 1024);
    let mut inflater = Inflater::new();
    assert_eq!(inflater.inflate(&bomb, 1 << 20), Err(InflateError::TooBig));
    assert!(inflater.capacity() <= 2 << 20, "{} bytes for a bound of 1 MiB", inflater.capacity());
    inflater.give_back();
    assert!(inflater.capacity() <= BYTES_KEPT);
    assert_eq!(inflater.inflate(&bomb, 8 << 20).map(<[u8]>::len), Ok(8 << 20));
}

#[test]
fn final_blocks_without_content_are_not_worth_a_fresh_start_each() {
    let mut inflater = Inflater::new();
    let block = [0x03, 0x00];
    assert_eq!(inflater.inflate(&block.repeat(100), BYTES_MAX), Ok(&[][..]));
    assert_eq!(inflater.inflate(&block.repeat(100_000), BYTES_MAX), Err(InflateError::Corrupt));
}

#[test]
fn only_what_becomes_smaller_is_deflated() {
    let mut deflater = Deflater::new(2, 16);
    assert_eq!(deflater.try_deflate(b""), None);
    assert_eq!(deflater.try_deflate(&[7; 15]), None, "shorter than the bound");
    assert!(deflater.try_deflate(&[7; 64]).is_some_and(|deflated| deflated.len() < 16));
    let mut state = 1_u32;
    let noise: Vec<u8> = (0..100_000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    for len in [16, 100, 1_000, 100_000] {
        assert_eq!(deflater.try_deflate(&noise[..len]), None, "{len} bytes of noise");
    }
}

/// A whole message as another implementation would send it: one sync flush, without its tail.
fn oracle_deflate(content: &[u8], level: Compression) -> Vec<u8> {
    let mut state = Compress::new(level, false);
    let mut out = Vec::with_capacity(content.len() + content.len() / 8 + 64);
    state.compress_vec(content, &mut out, FlushCompress::Sync).unwrap();
    assert_eq!(state.total_in(), content.len() as u64);
    assert_eq!(out.split_off(out.len() - 4), TAIL);
    out
}

/// The content as another implementation reads it: the tail put back, fed in pieces of `piece` bytes.
fn oracle_inflate(deflated: &[u8], piece: usize) -> Vec<u8> {
    let mut state = Decompress::new(false);
    let mut out = Vec::with_capacity(1 << 20);
    for bytes in [deflated, &TAIL].concat().chunks(piece) {
        assert_ne!(state.decompress_vec(bytes, &mut out, FlushDecompress::Sync).unwrap(), Status::StreamEnd);
    }
    out
}

/// Content that deflates to anything between a little and not at all.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just(&b"{\"price\":"[..]),
        Just(&b"0"[..]),
        Just(&b"abcabcabc"[..]),
        Just(&b"\xff\x00"[..])
    ];
    let text = proptest::collection::vec(word, 0..600).prop_map(|words| words.concat());
    let noise = proptest::collection::vec(any::<u8>(), 0..600);
    prop_oneof![3 => text, 1 => noise]
}

proptest! {
    #[test]
    fn what_we_deflate_everybody_reads(content in content(), level in 1_u32..=9, piece in 1_usize..100) {
        let mut deflater = Deflater::new(level, 1);
        let mut inflater = Inflater::new();
        // Twice with one deflater: nothing may be taken over from the message before.
        for _ in 0..2 {
            if let Some(deflated) = deflater.try_deflate(&content) {
                prop_assert!(deflated.len() < content.len());
                prop_assert_eq!(&oracle_inflate(deflated, piece), &content);
                prop_assert_eq!(inflater.inflate(deflated, content.len()), Ok(&content[..]));
            }
        }
    }

    #[test]
    fn a_run_is_read_message_by_message_behind_anything(
        messages in proptest::collection::vec(content(), 1..8), before in content(), level in 1_u32..=9
    ) {
        let mut deflater = Deflater::new(level, 1);
        let mut reader = Decompress::new(false);
        let mut read = |deflated: &[u8]| {
            let mut out = Vec::with_capacity(1 << 16);
            let whole = [deflated, &TAIL].concat();
            reader.decompress_vec(&whole, &mut out, FlushDecompress::Sync).map(|_| out)
        };
        // Whatever else the reader was sent is none of the run's business, nor is another run.
        for _ in 0..2 {
            if let Some(alone) = deflater.try_deflate(&before) {
                let got = read(alone).ok();
                prop_assert_eq!(got.as_ref(), Some(&before));
            }
            prop_assert!(deflater.begin_run(1));
            for message in messages.iter().filter(|message| !message.is_empty()) {
                let deflated = deflater.deflate_in_run(message);
                let got = deflated.map(&mut read).and_then(Result::ok);
                prop_assert_eq!(got.as_ref(), Some(message));
            }
        }
    }

    #[test]
    fn what_everybody_deflates_we_read_within_the_bound(content in content(), level in 0_u32..=9) {
        let deflated = oracle_deflate(&content, Compression::new(level));
        let mut inflater = Inflater::new();
        prop_assert_eq!(inflater.inflate(&deflated, content.len()), Ok(&content[..]));
        if let Some(less) = content.len().checked_sub(1) {
            prop_assert_eq!(inflater.inflate(&deflated, less), Err(InflateError::TooBig));
        }
        prop_assert_eq!(inflater.inflate(&deflated, BYTES_MAX), Ok(&content[..]));
    }

    #[test]
    fn random_bytes_never_panic_and_never_go_beyond_the_bound(payload in proptest::collection::vec(any::<u8>(), 0..512)) {
        let mut inflater = Inflater::new();
        if let Ok(content) = inflater.inflate(&payload, 1_000) {
            prop_assert!(content.len() <= 1_000);
        }
    }

    #[test]
    fn random_offers_never_panic(field in "[permsag=;,\" \\\\a-z0-9_-]{0,60}") {
        let _ = answer(&[&field]);
        let _ = is_answer(&field);
    }
}

#[test]
fn fresh_starts_are_work_though_nothing_comes_out() {
    let mut inflater = Inflater::new();
    inflater.begin_turn();
    // Empty blocks of fixed codes that each call themselves the last.
    let payload = [0x03, 0x00].repeat(1_000);
    assert_eq!(inflater.inflate(&payload, 10), Ok(&[][..]));
    inflater.give_back();
    assert!(inflater.is_spent(), "{}", inflater.turn_bytes());
}
