//! Request heads, what they ask for, and chunked bodies: `wire::http` and the opening handshake.

use std::time::SystemTime;

use fantail::wire::http::chunked::ChunkedDecoder;
use fantail::wire::http::date::Date;
use fantail::wire::http::head::{Body, HeadLimits, field_store, parse_head};
use fantail::wire::http::params::Params;
use fantail::wire::http::response::ResponseBuffer;
use fantail::wire::http::uri::{percent_decode, query_pairs};
use fantail::wire::upgrade;

/// The body limit of the chunked decoder.
const BODY_BYTES_MAX: usize = 4_096;

/// Parses the bytes as a head; the first byte chooses where they are cut.
pub fn check(data: &[u8]) {
    let (cut, bytes) = crate::choice(data);
    answer(bytes, cut);
    let limits = HeadLimits { bytes_max: 1_024, ..HeadLimits::default() };
    let mut store = field_store();
    let Ok(Some((head, consumed))) = parse_head(bytes, &mut store, &limits) else { return };
    assert!(consumed <= bytes.len() && consumed <= limits.bytes_max, "took {consumed} of {}", bytes.len());

    // Cut anywhere, the same head is either not there yet or the very same head.
    let cut = cut % consumed.max(1);
    let mut part_store = field_store();
    let part = parse_head(&bytes[..cut], &mut part_store, &limits);
    assert!(matches!(part, Ok(None)), "{cut} of {consumed} bytes: {part:?}");
    let mut whole_store = field_store();
    match parse_head(&bytes[..consumed], &mut whole_store, &limits) {
        Ok(Some((again, len))) => {
            assert_eq!((again.method, again.path(), again.query()), (head.method, head.path(), head.query()));
            assert_eq!((len, again.body), (consumed, head.body));
        }
        other => panic!("without what follows: {other:?}"),
    }

    assert!(
        percent_decode(head.path()).is_ok_and(|path| path.len() <= head.path().len())
            || head.path().contains('%')
    );
    let known = ["topic", "echo"];
    if let Ok(params) = Params::read(head.query(), b"", &known) {
        assert!(
            known.iter().all(|name| params.text(name).is_none_or(|value| value.len() <= head.query().len()))
        );
    }
    for pair in query_pairs(head.query()).flatten() {
        assert!(pair.0.len() + pair.1.len() <= head.query().len());
    }
    if let Ok(request) = upgrade::check(&head) {
        let mut answer = ResponseBuffer::new(Vec::new(), Date::at(SystemTime::UNIX_EPOCH));
        upgrade::write_accept(&mut answer, &request, request.protocols().next(), None);
        assert!(answer.starts_with(b"HTTP/1.1 101 ") && answer.ends_with(b"\r\n\r\n"));
        assert_eq!(answer.windows(4).filter(|end| end == b"\r\n\r\n").count(), 1, "a field was split");
        request.extensions().for_each(drop);
    }
    if head.body == Body::Chunked {
        chunked(&bytes[consumed..], cut);
    }
}

/// An answer to our client's request for a WebSocket: however many fields it has, and never twice differently.
fn answer(bytes: &[u8], cut: usize) {
    let key = [7; 16];
    let whole = upgrade::check_answer(bytes, &key);
    if let Ok(Some(len)) = whole {
        assert!(len <= bytes.len() && upgrade::check_answer(&bytes[..len], &key) == Ok(Some(len)));
    }
    match upgrade::check_answer(&bytes[..cut.min(bytes.len())], &key) {
        // What is missing may make it wrong, but nothing that is there is judged otherwise later.
        Ok(None) => {}
        Ok(Some(len)) => assert_eq!(whole, Ok(Some(len))),
        Err(error) => assert!(whole.is_err(), "{error} then {whole:?}"),
    }
    let _ = upgrade::answer_field(bytes, "retry-after");
}

/// A chunked body says the same in one piece and in two.
fn chunked(bytes: &[u8], cut: usize) {
    let (mut whole, mut whole_out) = (ChunkedDecoder::default(), Vec::new());
    let at_once = whole.decode_into(bytes, &mut whole_out, BODY_BYTES_MAX);
    assert!(whole_out.len() <= BODY_BYTES_MAX.min(bytes.len()));
    let (front, back) = bytes.split_at(cut.min(bytes.len()));
    let (mut parts, mut parts_out) = (ChunkedDecoder::default(), Vec::new());
    let in_parts = match parts.decode_into(front, &mut parts_out, BODY_BYTES_MAX) {
        Ok((used, false)) => {
            assert_eq!(used, front.len(), "an unfinished body takes all there is");
            parts.decode_into(back, &mut parts_out, BODY_BYTES_MAX).map(|(more, done)| (used + more, done))
        }
        ended => ended,
    };
    assert_eq!(at_once.is_ok(), in_parts.is_ok());
    if let (Ok(at_once), Ok(in_parts)) = (at_once, in_parts) {
        assert_eq!((at_once, whole_out), (in_parts, parts_out));
    }
}
