//! From a client's bytes to its messages (RFC 6455 sections 5 and 8.1).
//!
//! Owns what one connection has received in part: a header, a frame, a message, or bytes put back by
//! the caller. Driven by the read turn through [`feed`]. Never answers a frame, never closes, and
//! never exists while nothing is partial: whole frames are handed out where they lie.

use super::layout::{Layout, layout};
use crate::wire::deflate::{ClientContext, InflateError, Inflater};
use crate::wire::frame::{FrameError, FrameHeader, HEADER_BYTES_MAX, Opcode, Sender, decode_header};
use crate::wire::mask::apply_mask;
use crate::wire::utf8::{Utf8Check, is_utf8};
use std::fmt;

/// What a client may make the server hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InboxLimits {
    /// The longest message, all its fragments together.
    pub message_bytes_max: usize,
    /// The most frames one message may come in.
    pub fragments_max: u32,
}

/// Something whole has arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InboxEvent<'a> {
    /// A message; `text` is known to be UTF-8.
    Message {
        /// Text, else binary.
        text: bool,
        /// The whole message.
        payload: &'a [u8],
    },
    /// To be answered with a pong.
    Ping(&'a [u8]),
    /// An answer, or unasked.
    Pong(&'a [u8]),
    /// The close payload as it came, not checked. The caller should stop: nothing may follow.
    Close(&'a [u8]),
}

/// What becomes of compressed messages.
#[derive(Debug)]
pub enum Compression<'a> {
    /// None may come: that was not negotiated.
    Refused,
    /// Messages do not matter any more, so none is inflated.
    PassedOver,
    /// They are inflated.
    Inflated {
        /// The loop's. Once it is spent, each further message ends the call as if the receiver had stopped it.
        inflater: &'a mut Inflater,
        /// What is known of this client.
        context: &'a mut ClientContext,
    },
}

/// Whether the receiver of an event wants more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// Return after this frame; the bytes behind it stay the caller's.
    Stop,
}

/// Why the connection has to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum InboxError {
    /// A header that is wrong by itself.
    Frame(FrameError),
    /// A continuation without a message to continue.
    UnexpectedContinuation,
    /// A new message inside an unfinished one.
    ExpectedContinuation,
    /// A text message that is not UTF-8.
    BadUtf8,
    /// A compressed message that does not inflate.
    BadDeflate,
    /// One that may do so with what there was no room to keep.
    NoContext,
    /// More than `message_bytes_max`.
    MessageTooBig,
    /// More than `fragments_max`.
    TooManyFragments,
}

impl InboxError {
    /// The code to close with.
    pub const fn close_code(self) -> u16 {
        match self {
            Self::Frame(_) | Self::UnexpectedContinuation | Self::ExpectedContinuation => 1002,
            // RFC 6455 sections 8.1 and 7.4.1: data that is not what its type says.
            Self::BadUtf8 | Self::BadDeflate => 1007,
            Self::TooManyFragments => 1008,
            Self::MessageTooBig => 1009,
            // To come again: as long as there is no room, it will not be asked to compress.
            Self::NoContext => 1013,
        }
    }

    /// The reason as one line, fit for a close frame.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Frame(error) => error.reason(),
            Self::UnexpectedContinuation => "continuation without a message",
            Self::ExpectedContinuation => "new message inside a fragmented one",
            Self::BadUtf8 => "text is not valid UTF-8",
            Self::BadDeflate => "compressed message is corrupt",
            Self::NoContext => "no room to keep what compressed messages refer to",
            Self::MessageTooBig => "message too big",
            Self::TooManyFragments => "too many fragments",
        }
    }
}

impl fmt::Display for InboxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for InboxError {}

impl From<InflateError> for InboxError {
    fn from(error: InflateError) -> Self {
        match error {
            InflateError::TooBig => Self::MessageTooBig,
            InflateError::Corrupt => Self::BadDeflate,
            InflateError::NoContext => Self::NoContext,
        }
    }
}

impl From<FrameError> for InboxError {
    fn from(error: FrameError) -> Self {
        Self::Frame(error)
    }
}

/// What one connection has received in part. Boxed by [`feed`] and dropped as soon as it is empty.
#[derive(Clone, Debug, Default)]
pub struct Inbox {
    /// The beginning of a header.
    header: [u8; HEADER_BYTES_MAX],
    header_len: u8,
    /// The frame whose payload is arriving.
    frame: Option<OpenFrame>,
    /// The message whose frames are arriving; also that of a single frame cut by the read.
    message: Option<OpenMessage>,
    /// The payload of a control frame that was cut by the read.
    control: Vec<u8>,
    /// Bytes put back by the caller.
    stash: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
struct OpenFrame {
    fin: bool,
    /// The first frame of a compressed message.
    deflated: bool,
    opcode: Opcode,
    mask: [u8; 4],
    /// Payload bytes that have arrived, which is also the offset into the mask.
    arrived: usize,
    missing: usize,
}

#[derive(Clone, Debug, Default)]
struct OpenMessage {
    text: bool,
    /// The payload is compressed: it is inflated, and its text checked, when it is whole.
    deflated: bool,
    utf8: Utf8Check,
    fragments: u32,
    payload: Vec<u8>,
}

/// Decodes `bytes`, unmasking them in place, and hands out each message and control frame that is whole.
///
/// Returns how many bytes were used: all, unless `on_event` said [`Flow::Stop`]. What is cut off at the
/// end is kept in `inbox`. After an error the connection has failed and `inbox` is empty. While bytes are
/// stashed, new ones are put behind them and nothing is handed out: take the stash and feed it first.
pub fn feed(
    inbox: &mut Option<Box<Inbox>>,
    bytes: &mut [u8],
    limits: &InboxLimits,
    on_event: &mut (impl FnMut(InboxEvent<'_>) -> Flow + ?Sized),
) -> Result<usize, InboxError> {
    feed_deflated(inbox, bytes, limits, Compression::Refused, on_event)
}

/// [`feed`] for a connection that may have negotiated permessage-deflate: messages may then be compressed, and are
/// handed out inflated.
///
/// # Errors
/// As [`feed`]'s; both sizes of a compressed message are bounded by `message_bytes_max`.
pub fn feed_deflated(
    inbox: &mut Option<Box<Inbox>>,
    bytes: &mut [u8],
    limits: &InboxLimits,
    compression: Compression<'_>,
    on_event: &mut (impl FnMut(InboxEvent<'_>) -> Flow + ?Sized),
) -> Result<usize, InboxError> {
    if inbox.as_ref().is_some_and(|held| !held.stash.is_empty()) {
        Inbox::stash(inbox, bytes);
        return Ok(bytes.len());
    }
    let fed = feed_with(inbox, bytes, limits, compression, on_event, apply_mask);
    if fed.is_err() || inbox.as_ref().is_some_and(|held| held.is_empty()) {
        *inbox = None;
    }
    fed
}

impl Inbox {
    /// What it is made of.
    pub const LAYOUT: Layout = layout!(Inbox, "while a frame or a message has come in part", {
        header, header_len, frame, message, control, stash
    });

    /// Keeps bytes that were not used because the receiver stopped, behind those already kept.
    pub fn stash(inbox: &mut Option<Box<Self>>, rest: &[u8]) {
        if rest.is_empty() {
            return;
        }
        let stash = &mut inbox.get_or_insert_default().stash;
        if stash.is_empty() {
            stash.reserve_exact(rest.len());
        }
        stash.extend_from_slice(rest);
    }

    /// Gives the kept bytes back, to be fed before any others.
    pub fn take_stash(inbox: &mut Option<Box<Self>>) -> Option<Vec<u8>> {
        let held = inbox.as_mut()?;
        let stash = std::mem::take(&mut held.stash);
        if held.is_empty() {
            *inbox = None;
        }
        (!stash.is_empty()).then_some(stash)
    }

    /// True if bytes are stashed, so that no others may be fed before them.
    pub fn has_stash(&self) -> bool {
        !self.stash.is_empty()
    }

    /// The user memory this holds, itself included.
    pub fn bytes(&self) -> usize {
        let message = self.message.as_ref().map_or(0, |message| message.payload.capacity());
        size_of::<Self>() + message + self.control.capacity() + self.stash.capacity()
    }

    fn is_empty(&self) -> bool {
        self.header_len == 0 && self.frame.is_none() && self.message.is_none() && self.stash.is_empty()
    }
}

/// [`feed`] without its frame: the unmasking is a parameter so that a test can break it.
fn feed_with(
    inbox: &mut Option<Box<Inbox>>,
    bytes: &mut [u8],
    limits: &InboxLimits,
    compression: Compression<'_>,
    on_event: &mut (impl FnMut(InboxEvent<'_>) -> Flow + ?Sized),
    unmask: impl Fn(&mut [u8], [u8; 4], usize),
) -> Result<usize, InboxError> {
    let mut receiver = Receiver { bytes_max: limits.message_bytes_max, compression, on_event };
    let mut at = 0;
    while let Some(rest) = bytes.get_mut(at..).filter(|rest| !rest.is_empty()) {
        let (used, flow) = match inbox.as_deref_mut() {
            Some(held) if held.frame.is_some() => continue_frame(held, rest, &mut receiver, &unmask)?,
            _ => {
                let compressed = !matches!(receiver.compression, Compression::Refused);
                let Some((header, header_used)) = next_header(inbox, rest, compressed)? else {
                    return Ok(bytes.len());
                };
                let frame = accept_frame(inbox, &header, limits)?;
                let body = rest.get_mut(header_used..).unwrap_or_default();
                let (used, flow) = begin_frame(inbox, frame, body, &mut receiver, &unmask)?;
                (header_used + used, flow)
            }
        };
        at += used;
        if flow == Flow::Stop {
            break;
        }
    }
    Ok(at)
}

/// The next header and how many of `bytes` it took; `None` if it is cut, with its beginning kept.
fn next_header(
    inbox: &mut Option<Box<Inbox>>,
    bytes: &[u8],
    compressed: bool,
) -> Result<Option<(FrameHeader, usize)>, InboxError> {
    let kept = inbox.as_ref().map_or(0, |held| usize::from(held.header_len));
    if kept == 0
        && let Some(header) = checked_header(bytes, compressed)?
    {
        return Ok(Some((header, header.header_len)));
    }
    // A header that is not decided has fewer than HEADER_BYTES_MAX bytes, so all of `bytes` is kept or
    // the header is complete below.
    let held = inbox.get_or_insert_default();
    let room = held.header.get_mut(kept..).unwrap_or_default();
    let added = room.len().min(bytes.len());
    for (to, from) in room.iter_mut().zip(bytes) {
        *to = *from;
    }
    let len = kept + added;
    match checked_header(held.header.get(..len).unwrap_or_default(), compressed)? {
        Some(header) => {
            held.header_len = 0;
            Ok(Some((header, header.header_len.saturating_sub(kept))))
        }
        None => {
            held.header_len = len as u8;
            Ok(None)
        }
    }
}

/// Decodes a client's header. Unless compression was negotiated, RSV1 is an error (RFC 6455 section 5.2); where it
/// was, the decoder allows it on the first frame of a message only (RFC 7692 section 6.1).
fn checked_header(bytes: &[u8], compressed: bool) -> Result<Option<FrameHeader>, FrameError> {
    if !compressed && bytes.first().is_some_and(|first| first & 0x40 != 0) {
        return Err(FrameError::ReservedBits);
    }
    decode_header(bytes, Sender::Client)
}

/// Checks a header against the message it stands in and the limits, before a byte is kept for it.
fn accept_frame(
    inbox: &mut Option<Box<Inbox>>,
    header: &FrameHeader,
    limits: &InboxLimits,
) -> Result<OpenFrame, InboxError> {
    let missing = usize::try_from(header.payload_len).map_err(|_| InboxError::MessageTooBig)?;
    let mask = header.mask.ok_or(FrameError::Unmasked)?;
    let message = inbox.as_deref_mut().and_then(|held| held.message.as_mut());
    if !header.opcode.is_control() {
        // RFC 6455 section 5.4: the fragments of one message are not interleaved with another's.
        let arrived = match (header.opcode == Opcode::Continuation, message) {
            (false, None) => 0,
            (true, Some(message)) => {
                if message.fragments >= limits.fragments_max {
                    return Err(InboxError::TooManyFragments);
                }
                message.fragments += 1;
                message.payload.len()
            }
            (true, None) => return Err(InboxError::UnexpectedContinuation),
            (false, Some(_)) => return Err(InboxError::ExpectedContinuation),
        };
        if missing > limits.message_bytes_max.saturating_sub(arrived) {
            return Err(InboxError::MessageTooBig);
        }
    }
    let FrameHeader { fin, rsv1: deflated, opcode, .. } = *header;
    Ok(OpenFrame { fin, deflated, opcode, mask, arrived: 0, missing })
}

/// Who gets what is whole.
struct Receiver<'a, F: ?Sized> {
    bytes_max: usize,
    compression: Compression<'a>,
    on_event: &'a mut F,
}

impl<F: FnMut(InboxEvent<'_>) -> Flow + ?Sized> Receiver<'_, F> {
    /// Hands a message out, inflated if it has to be.
    fn message(&mut self, text: bool, deflated: bool, payload: &[u8]) -> Result<Flow, InboxError> {
        let (inflater, context) = match &mut self.compression {
            Compression::Inflated { inflater, context } if deflated => (inflater, context),
            Compression::PassedOver if deflated => return Ok(Flow::Continue),
            _ => return Ok((self.on_event)(InboxEvent::Message { text, payload })),
        };
        let flow = match context.inflate(inflater, payload, self.bytes_max) {
            // RFC 6455 section 8.1, of what was inflated: compressed pieces could not be checked.
            Ok(payload) if text && !is_utf8(payload) => Err(InboxError::BadUtf8),
            Ok(payload) => Ok((self.on_event)(InboxEvent::Message { text, payload })),
            Err(error) => Err(error.into()),
        };
        inflater.give_back();
        if inflater.is_spent() { flow.map(|_| Flow::Stop) } else { flow }
    }
}

/// Hands a frame out where it lies if it is all there and a whole by itself; keeps it otherwise.
fn begin_frame<F: FnMut(InboxEvent<'_>) -> Flow + ?Sized>(
    inbox: &mut Option<Box<Inbox>>,
    frame: OpenFrame,
    bytes: &mut [u8],
    receiver: &mut Receiver<'_, F>,
    unmask: &impl Fn(&mut [u8], [u8; 4], usize),
) -> Result<(usize, Flow), InboxError> {
    let stands_alone = frame.opcode.is_control() || (frame.fin && frame.opcode != Opcode::Continuation);
    let text = frame.opcode == Opcode::Text;
    if stands_alone && let Some(payload) = bytes.get_mut(..frame.missing) {
        unmask(payload, frame.mask, 0);
        // RFC 6455 section 8.1.
        if text && !frame.deflated && !is_utf8(payload) {
            return Err(InboxError::BadUtf8);
        }
        let flow = match control_event(frame.opcode, payload) {
            Some(event) => (receiver.on_event)(event),
            None => receiver.message(text, frame.deflated, payload)?,
        };
        return Ok((frame.missing, flow));
    }
    let held = inbox.get_or_insert_default();
    held.frame = Some(frame);
    if matches!(frame.opcode, Opcode::Text | Opcode::Binary) {
        let deflated = frame.deflated;
        held.message = Some(OpenMessage { text, deflated, fragments: 1, ..OpenMessage::default() });
    }
    continue_frame(held, bytes, receiver, unmask)
}

/// Takes payload bytes of the open frame, and hands out what they complete.
fn continue_frame<F: FnMut(InboxEvent<'_>) -> Flow + ?Sized>(
    held: &mut Inbox,
    bytes: &mut [u8],
    receiver: &mut Receiver<'_, F>,
    unmask: &impl Fn(&mut [u8], [u8; 4], usize),
) -> Result<(usize, Flow), InboxError> {
    let Some(frame) = held.frame.as_mut() else { return Ok((0, Flow::Continue)) };
    let used = frame.missing.min(bytes.len());
    let piece = bytes.get_mut(..used).unwrap_or_default();
    unmask(piece, frame.mask, frame.arrived);
    frame.arrived += used;
    frame.missing -= used;
    let OpenFrame { fin, opcode, missing, .. } = *frame;
    let done = missing == 0;
    if done {
        held.frame = None;
    }
    if opcode.is_control() {
        append(&mut held.control, piece, missing);
        if !done {
            return Ok((used, Flow::Continue));
        }
        let payload = std::mem::take(&mut held.control);
        let event = control_event(opcode, &payload);
        return Ok((used, event.map_or(Flow::Continue, |event| (receiver.on_event)(event))));
    }
    let Some(message) = held.message.as_mut() else { return Ok((used, Flow::Continue)) };
    if message.text && !message.deflated {
        // Checked as it arrives, so that bad text fails before the frame or message is whole.
        message.utf8.push(piece).map_err(|_| InboxError::BadUtf8)?;
    }
    // Without FIN more fragments follow, of a length not known yet.
    append(&mut message.payload, piece, if fin { missing } else { usize::MAX });
    if !(done && fin) {
        return Ok((used, Flow::Continue));
    }
    message.utf8.finish().map_err(|_| InboxError::BadUtf8)?;
    let Some(OpenMessage { text, deflated, payload, .. }) = held.message.take() else {
        return Ok((used, Flow::Continue));
    };
    Ok((used, receiver.message(text, deflated, &payload)?))
}

fn control_event(opcode: Opcode, payload: &[u8]) -> Option<InboxEvent<'_>> {
    match opcode {
        Opcode::Ping => Some(InboxEvent::Ping(payload)),
        Opcode::Pong => Some(InboxEvent::Pong(payload)),
        Opcode::Close => Some(InboxEvent::Close(payload)),
        Opcode::Continuation | Opcode::Text | Opcode::Binary => None,
    }
}

/// Appends `piece`, doubling like a `Vec` would but never beyond the `room_max` bytes that may follow, so
/// that memory follows the bytes that arrived and not those that were promised.
fn append(buffer: &mut Vec<u8>, piece: &[u8], room_max: usize) {
    let needed = buffer.len() + piece.len();
    if needed > buffer.capacity() {
        buffer.reserve_exact(piece.len() + needed.min(room_max));
    }
    buffer.extend_from_slice(piece);
}

#[cfg(test)]
mod deflate_tests;
#[cfg(test)]
mod tests;
