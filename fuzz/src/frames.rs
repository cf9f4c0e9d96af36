//! Frames of a client: `connection::inbox` must see the same messages however the bytes are cut, and hold no
//! more than has arrived.

use std::sync::Arc;

use fantail::connection::inbox::{
    Compression, Flow, Inbox, InboxError, InboxEvent, InboxLimits, feed, feed_deflated,
};
use fantail::wire::close::parse_close;
use fantail::wire::deflate::{ClientContext, Contexts, Inflater};

const LIMITS: InboxLimits = InboxLimits { message_bytes_max: 4_096, fragments_max: 8 };

/// Memory that an inbox may hold beside the bytes that arrived.
const OVERHEAD_BYTES: usize = 512;

/// What came out: messages and control frames, and the close code of the error that ended it.
type Seen = (Vec<(u8, Vec<u8>)>, Option<u16>);

/// Feeds the bytes at once, byte by byte, and in pieces whose length the first byte chooses.
pub fn check(data: &[u8]) {
    check_with(data, false);
}

/// The same of a connection that has negotiated compression if `deflate` is set.
pub(crate) fn check_with(data: &[u8], deflate: bool) {
    let (piece, bytes) = crate::choice(data);
    let at_once = seen(bytes, bytes.len().max(1), deflate);
    for len in [1, piece.max(1)] {
        let cut = seen(bytes, len, deflate);
        assert_eq!(cut.1, at_once.1, "in pieces of {len}");
        assert_eq!(cut.0, at_once.0, "in pieces of {len}");
    }
}

fn seen(bytes: &[u8], piece: usize, deflate: bool) -> Seen {
    let mut inbox: Option<Box<Inbox>> = None;
    let total = Arc::new(Contexts::new(1 << 20));
    let (mut inflater, mut context) = (Inflater::keeping(Arc::clone(&total)), ClientContext::default());
    let mut events = Vec::new();
    let mut arrived = 0;
    for part in bytes.chunks(piece) {
        // Unmasking works in place, so each piece is a copy.
        let mut part = part.to_vec();
        arrived += part.len();
        let mut on_event = |event: InboxEvent<'_>| {
            let (kind, payload) = match event {
                InboxEvent::Message { text, payload } => {
                    assert!(payload.len() <= LIMITS.message_bytes_max);
                    assert!(!text || std::str::from_utf8(payload).is_ok(), "text that is not UTF-8");
                    (u8::from(text), payload)
                }
                InboxEvent::Ping(payload) => (9, payload),
                InboxEvent::Pong(payload) => (10, payload),
                InboxEvent::Close(payload) => {
                    assert!(parse_close(payload).is_err() || payload.len() != 1);
                    (8, payload)
                }
            };
            assert!(kind < 8 || payload.len() <= 125, "a control frame of {} bytes", payload.len());
            events.push((kind, payload.to_vec()));
            Flow::Continue
        };
        let fed = if deflate {
            feed_by_turns(&mut inbox, &mut part, (&mut inflater, &mut context, &total), &mut on_event)
        } else {
            feed(&mut inbox, &mut part, &LIMITS, &mut on_event)
        };
        let held = inbox.as_ref().map_or(0, |inbox| inbox.bytes());
        assert!(held <= 2 * arrived + OVERHEAD_BYTES, "holds {held} bytes after {arrived}");
        match fed {
            Ok(used) => assert_eq!(used, part.len(), "nobody stopped it"),
            Err(error) => {
                assert!(inbox.is_none(), "a failed connection holds nothing");
                return (events, Some(error.close_code()));
            }
        }
    }
    (events, None)
}

/// Feeds all of the bytes, in as many turns as what is inflated takes.
fn feed_by_turns(
    inbox: &mut Option<Box<Inbox>>,
    bytes: &mut [u8],
    (inflater, context, total): (&mut Inflater, &mut ClientContext, &Arc<Contexts>),
    on_event: &mut impl FnMut(InboxEvent<'_>) -> Flow,
) -> Result<usize, InboxError> {
    let mut used = 0;
    while used < bytes.len() {
        inflater.begin_turn();
        let compression = Compression::Inflated { inflater, context };
        used += feed_deflated(inbox, &mut bytes[used..], &LIMITS, compression, on_event)?;
        assert!(total.bytes() <= 32 * 1024, "{} bytes kept of one client", total.bytes());
        assert!(used == bytes.len() || inflater.is_spent(), "nobody stopped it");
        assert!(inflater.capacity() <= 256 * 1024, "{} bytes kept", inflater.capacity());
    }
    Ok(used)
}
