//! A published message: one shared, immutable, already encoded WebSocket frame that serves every
//! subscriber, and behind it the same message deflated if that was worth it. Made by the publisher
//! outside every lock as a [`Draft`], given its place in the topic under the topic's lock, then shared.
//! Never copies the payload again.

use std::sync::atomic::{AtomicU8, Ordering};

use triomphe::{Arc, ThinArc};

use super::form::Encoding;
use super::sync::AtomicU32;
use crate::wire::frame::{HEADER_BYTES_MAX, Opcode, RSV1, encode_header};

/// The connection a message came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The loop of the connection; there are at most [`LOOPS_MAX`](super::state::LOOPS_MAX).
    pub loop_index: u8,
    /// Its slot there.
    pub slot: u32,
    /// The slot's generation at the time of publishing.
    pub generation: u32,
}

#[derive(Debug)]
struct MessageHeader {
    topic_id: u64,
    offset: u64,
    /// Milliseconds since 1970.
    time_ms: u64,
    /// Where the plain frame ends and the deflated one, if there is one, begins.
    plain_len: usize,
    /// Outboxes that hold the message; see `budget`.
    waiting: AtomicU32,
    /// Slot and generation of the origin, whose loop is below: apart, because together they take more.
    slot: u32,
    generation: u32,
    /// [`NO_LOOP`] of a message that came from no connection.
    loop_index: u8,
    payload_at: u8,
    binary: bool,
    /// Whether the payload is a document, once somebody has looked: [`UNKNOWN`], [`NO`] or [`YES`].
    document: AtomicU8,
}

const UNKNOWN: u8 = 0;
const NO: u8 = 1;
const YES: u8 = 2;

/// No loop's index.
const NO_LOOP: u8 = u8::MAX;

const _: () = assert!(size_of::<MessageHeader>() == 48, "what is kept beside each message's bytes");
const _: () = assert!(super::state::LOOPS_MAX < NO_LOOP as usize);

impl MessageHeader {
    fn new(time_ms: u64, origin: Option<Origin>, payload_at: usize, binary: bool, plain_len: usize) -> Self {
        let none = Origin { loop_index: NO_LOOP, slot: 0, generation: 0 };
        let Origin { loop_index, slot, generation } = origin.unwrap_or(none);
        Self {
            topic_id: 0,
            offset: 0,
            time_ms,
            plain_len,
            waiting: AtomicU32::new(0),
            slot,
            generation,
            loop_index,
            payload_at: payload_at as u8,
            binary,
            document: AtomicU8::new(UNKNOWN),
        }
    }

    fn origin(&self) -> Option<Origin> {
        let Self { slot, generation, loop_index, .. } = *self;
        (loop_index != NO_LOOP).then_some(Origin { loop_index, slot, generation })
    }
}

/// An encoded message that has no place in a topic yet. Not cloneable: it becomes one message.
#[derive(Debug)]
pub struct Draft(ThinArc<MessageHeader, u8>);

/// A message with its place in a topic; a clone costs a counter and eight bytes.
#[derive(Clone, Debug)]
pub struct Message(ThinArc<MessageHeader, u8>);

impl Draft {
    /// Encodes the payload as one unmasked, final WebSocket frame.
    pub fn encode(origin: Option<Origin>, binary: bool, payload: &[u8]) -> Self {
        Self::encode_at(0, origin, binary, payload, None)
    }

    /// As [`Self::encode_at`], without a time.
    #[cfg(test)]
    pub fn encode_both(
        origin: Option<Origin>,
        binary: bool,
        payload: &[u8],
        deflated: Option<&[u8]>,
    ) -> Self {
        Self::encode_at(0, origin, binary, payload, deflated)
    }

    /// As [`Self::encode`], published at `time_ms`, milliseconds since 1970, and with a second frame of the payload as it
    /// was `deflated` (RFC 7692) behind the first.
    pub fn encode_at(
        time_ms: u64,
        origin: Option<Origin>,
        binary: bool,
        payload: &[u8],
        deflated: Option<&[u8]>,
    ) -> Self {
        let opcode = if binary { Opcode::Binary } else { Opcode::Text };
        let mut head = [0; HEADER_BYTES_MAX];
        // Server frames carry no mask (RFC 6455, section 5.1), so one frame serves everybody.
        let head_len = encode_header(&mut head, true, opcode, payload.len(), None);
        let plain_len = head_len + payload.len();
        let header = MessageHeader::new(time_ms, origin, head_len, binary, plain_len);
        let head = &head[..head_len];
        // Apart, because copying nothing twice is a tenth of the work on a small message.
        let Some(deflated) = deflated else { return Self(filled(header, plain_len, [head, payload])) };
        let mut second = [0; HEADER_BYTES_MAX];
        let second_len = encode_header(&mut second, true, opcode, deflated.len(), None);
        second[0] |= RSV1;
        let len = plain_len + second_len + deflated.len();
        Self(filled(header, len, [head, payload, &second[..second_len], deflated]))
    }

    /// Bytes of all encoded frames: the room it takes in a mailbox.
    pub fn frame_len(&self) -> usize {
        self.0.slice.len()
    }

    /// The connection it came from, if it was one.
    pub fn origin(&self) -> Option<Origin> {
        self.0.header.header.origin()
    }

    /// Gives the message its place; the topic calls it under its lock.
    pub(super) fn stamp(mut self, topic_id: u64, offset: u64) -> Message {
        self.0.with_arc_mut(|only| {
            // A draft is never cloned, so this is the only reference and it is always written.
            debug_assert!(Arc::is_unique(only));
            if let Some(inner) = Arc::get_mut(only) {
                let header = inner.header_mut();
                header.topic_id = topic_id;
                header.offset = offset;
            }
        });
        Message(self.0)
    }
}

impl Message {
    /// The same message, at its place, in other bytes, which are its only frame.
    #[must_use]
    pub fn rewritten(&self, bytes: &[u8]) -> Self {
        let of = &self.0.header.header;
        let header = MessageHeader {
            topic_id: of.topic_id,
            offset: of.offset,
            ..MessageHeader::new(of.time_ms, of.origin(), 0, of.binary, bytes.len())
        };
        Self(filled(header, bytes.len(), [bytes]))
    }

    /// The whole plain frame, header and payload.
    pub fn frame(&self) -> &[u8] {
        self.0.slice.get(..self.0.header.header.plain_len).unwrap_or_default()
    }

    /// The whole frame that a connection of this encoding gets: the plain one where deflating saved nothing.
    pub fn frame_as(&self, encoding: Encoding) -> &[u8] {
        match self.form(encoding) {
            Encoding::Plain => self.frame(),
            _ => self.0.slice.get(self.0.header.header.plain_len..).unwrap_or_default(),
        }
    }

    /// What a connection of this encoding gets: the plain frame, or the deflated one.
    pub fn form(&self, encoding: Encoding) -> Encoding {
        let within = |max: usize| self.is_deflated() && self.payload().len() <= max;
        if within(encoding.deflates_up_to()) { Encoding::Deflated } else { Encoding::Plain }
    }

    /// Whether there is a deflated frame.
    pub fn is_deflated(&self) -> bool {
        self.0.slice.len() > self.0.header.header.plain_len
    }

    /// Bytes of all its frames: the room it takes in a mailbox.
    pub fn frame_len(&self) -> usize {
        self.0.slice.len()
    }

    /// The payload inside the frame.
    pub fn payload(&self) -> &[u8] {
        self.frame().get(usize::from(self.0.header.header.payload_at)..).unwrap_or_default()
    }

    /// Its place in the topic; consecutive within one epoch.
    pub fn offset(&self) -> u64 {
        self.0.header.header.offset
    }

    /// When it was published, in milliseconds since 1970.
    pub fn time_ms(&self) -> u64 {
        self.0.header.header.time_ms
    }

    /// The topic it was published on.
    pub fn topic_id(&self) -> u64 {
        self.0.header.header.topic_id
    }

    /// The connection it came from, if it was one.
    pub fn origin(&self) -> Option<Origin> {
        self.0.header.header.origin()
    }

    /// How many outboxes hold it, counted for `budget`.
    pub(super) fn waiting(&self) -> &AtomicU32 {
        &self.0.header.header.waiting
    }

    /// Whether the payload is what `look` looks for. Whoever asks first looks, for all loops and forms: it takes as long as
    /// all else that is made of a message. Always asked of the same.
    pub fn is_document(&self, look: impl FnOnce(&[u8]) -> bool) -> bool {
        // Two who look at once find the same.
        let known = &self.0.header.header.document;
        match known.load(Ordering::Relaxed) {
            UNKNOWN => {
                let is = look(self.payload());
                known.store(if is { YES } else { NO }, Ordering::Relaxed);
                is
            }
            known => known == YES,
        }
    }

    /// True for a binary message, false for text.
    pub fn is_binary(&self) -> bool {
        self.0.header.header.binary
    }
}

/// One allocation with the parts, which are `len` bytes together, in a row.
#[inline(always)]
fn filled<const N: usize>(
    header: MessageHeader,
    len: usize,
    parts: [&[u8]; N],
) -> ThinArc<MessageHeader, u8> {
    let mut shared = ThinArc::from_header_and_iter(header, std::iter::repeat_n(0u8, len));
    shared.with_arc_mut(|only| {
        if let Some(inner) = Arc::get_mut(only) {
            let mut room = inner.slice_mut();
            for part in parts {
                let (place, rest) = room.split_at_mut(part.len());
                place.copy_from_slice(part);
                room = rest;
            }
        }
    });
    shared
}

/// What a message of this payload asks of the allocator, once for all that wait for it.
#[must_use]
pub fn allocation(payload_len: usize) -> usize {
    let mut head = [0; HEADER_BYTES_MAX];
    let head_len = encode_header(&mut head, true, Opcode::Binary, payload_len, None);
    // In front of a ThinArc's slice: the reference counter, the header and the slice's length.
    2 * size_of::<usize>() + size_of::<MessageHeader>() + head_len + payload_len
}

#[cfg(test)]
impl Message {
    /// A message with a place that nobody gave it.
    pub(crate) fn sample(topic_id: u64, offset: u64, payload: &[u8]) -> Self {
        Self::sample_both(topic_id, offset, payload, None)
    }

    /// A draft with such a place.
    pub(crate) fn placed(draft: Draft, topic_id: u64, offset: u64) -> Self {
        draft.stamp(topic_id, offset)
    }

    /// The same with a deflated frame.
    pub(crate) fn sample_both(topic_id: u64, offset: u64, payload: &[u8], deflated: Option<&[u8]>) -> Self {
        Draft::encode_both(None, true, payload, deflated).stamp(topic_id, offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(binary: bool, len: usize) -> Message {
        let origin = Some(Origin { loop_index: 1, slot: 2, generation: 3 });
        Draft::encode_at(1_764, origin, binary, &vec![b'x'; len], None).stamp(7, 9)
    }

    #[test]
    fn every_length_form_is_encoded_as_rfc_6455_says() {
        let forms: [(usize, &[u8]); 6] = [
            (0, &[0x81, 0]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (65_535, &[0x81, 126, 0xff, 0xff]),
            (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
            (1 << 20, &[0x81, 127, 0, 0, 0, 0, 0, 0x10, 0, 0]),
        ];
        for (len, head) in forms {
            let message = sample(false, len);
            assert_eq!(&message.frame()[..head.len()], head, "payload of {len}");
            assert_eq!(message.frame_len(), head.len() + len);
            assert_eq!(message.payload(), vec![b'x'; len]);
        }
        assert_eq!(sample(true, 1).frame(), [0x82, 1, b'x']);
    }

    #[test]
    fn a_deflated_frame_stands_behind_the_plain_one() {
        let draft = Draft::encode_both(None, false, b"hello, hello", Some(b"short"));
        assert_eq!(draft.frame_len(), 14 + 7);
        let message = draft.stamp(1, 1);
        assert_eq!(message.frame(), b"\x81\x0chello, hello");
        assert_eq!(message.payload(), b"hello, hello");
        assert_eq!(message.frame_as(Encoding::Plain), message.frame());
        assert_eq!(message.frame_as(Encoding::Deflated), b"\xc1\x05short");
        let plain = sample(true, 300);
        assert!(!plain.is_deflated());
        assert_eq!(plain.frame_as(Encoding::Deflated), plain.frame());
        let long = Draft::encode_both(None, true, &[0; 70_000], Some(&[1; 300])).stamp(1, 1);
        assert_eq!(&long.frame_as(Encoding::Deflated)[..5], [0xc2, 126, 1, 44, 1]);
        assert_eq!(long.payload(), [0; 70_000]);
    }

    #[test]
    fn only_the_first_who_asks_looks_at_the_payload() {
        for is in [true, false] {
            let message = sample(false, 3);
            let other = message.clone();
            assert_eq!(message.is_document(|payload| payload == b"xxx" && is), is);
            assert_eq!(other.is_document(|_| panic!("it is known")), is);
        }
    }

    #[test]
    fn a_message_is_eight_bytes_and_a_clone_shares_the_frame() {
        assert_eq!(size_of::<Message>(), 8);
        assert_eq!(size_of::<Option<Message>>(), 8);
        let message = sample(true, 3);
        let clone = message.clone();
        assert_eq!(message.frame().as_ptr(), clone.frame().as_ptr());
        assert_eq!((clone.topic_id(), clone.offset(), clone.is_binary()), (7, 9, true));
        assert_eq!((clone.time_ms(), clone.rewritten(b"other bytes").time_ms()), (1_764, 1_764));
        assert_eq!(clone.origin(), Some(Origin { loop_index: 1, slot: 2, generation: 3 }));
    }
}
