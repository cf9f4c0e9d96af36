//! The messages of one pass as each connection gets them: the publisher's frames, and for subscribers of other
//! forms what is made of them here, once for all connections of the loop. Bursts are joined, so that each write is
//! one. Driven by `subscriptions`; never sees a connection.

use std::collections::VecDeque;
use std::mem;

use super::form::{Carried, Encoding, Form, Stamped};
use super::mailbox::CAPACITY_KEPT;
use super::message::Message;
use super::state::Topic;
use super::subscriptions::Pending;
use crate::wire::frame::{HEADER_BYTES_MAX, RSV1, encode_header};
use crate::wire::http::chunked::{CHUNK_HEAD_BYTES_MAX, encode_chunk_head};

/// Bytes of frames joined into one write, as the publishers made them.
pub const BATCH_BYTES_MAX: usize = 64 * 1024;

/// The longest payload that is deflated on a loop: whoever is served next waits for it.
const DEFLATED_BYTES_MAX: usize = 256 * 1024;

/// Buffers of joined frames kept for the next pass.
const BUFFERS_KEPT: usize = 4;

/// The messages of one pass, ready to be written.
#[derive(Debug)]
pub struct Batch<F> {
    messages: Vec<Message>,
    /// The plain frames of all messages in a row; empty when there is one message only.
    joined: Vec<u8>,
    /// The same as connections with compression get it; made with the first of them in a pass.
    joined_deflated: Vec<u8>,
    /// The longest payload that has a deflated frame.
    longest_deflated: Option<usize>,
    /// What was made for subscribers of other forms in this pass: at most two a form.
    derived: Vec<Derived<F>>,
    /// Which of that was made last, if it is plain: what nearly every connection of a topic wants.
    latest: Option<(F, u8)>,
    /// Room that all of it takes in the mailbox.
    bytes: u64,
}

/// The messages of a batch in one form, all plain, or deflated where that saved anything.
#[derive(Debug)]
struct Derived<F> {
    form: F,
    deflated: bool,
    /// One for each of the batch, with the same place in the topic.
    messages: Vec<Message>,
    joined: Vec<u8>,
    longest_deflated: Option<usize>,
}

/// What one connection gets of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The publishers' frames in this encoding.
    Raw(Encoding),
    /// What was made, at this place.
    Derived(u8),
}

impl Choice {
    /// In which encoding the messages' frames have these bytes: what is made has one frame.
    #[must_use]
    pub fn encoding(self) -> Encoding {
        match self {
            Self::Raw(encoding) => encoding,
            Self::Derived(_) => Encoding::Plain,
        }
    }
}

impl<F> Default for Batch<F> {
    fn default() -> Self {
        Self {
            messages: Vec::new(),
            joined: Vec::new(),
            joined_deflated: Vec::new(),
            longest_deflated: None,
            derived: Vec::new(),
            latest: None,
            bytes: 0,
        }
    }
}

impl<F> Batch<F> {
    /// The messages as they were published.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The messages as the choice has them, one by one, for what has to be queued or filtered.
    pub fn messages_of(&self, choice: Choice) -> &[Message] {
        match choice {
            Choice::Raw(_) => &self.messages,
            Choice::Derived(at) => self.derived.get(usize::from(at)).map_or(&[], |made| &made.messages),
        }
    }

    /// All frames of the choice in one contiguous run. A single message is not copied.
    pub fn frames(&self, choice: Choice) -> &[u8] {
        match (choice, self.messages.as_slice()) {
            (Choice::Raw(encoding), [only]) => only.frame_as(encoding),
            (Choice::Raw(Encoding::Plain), _) => &self.joined,
            (Choice::Raw(_), _) => &self.joined_deflated,
            (Choice::Derived(at), _) => self.derived.get(usize::from(at)).map_or(&[], Derived::frames),
        }
    }

    /// What was made beside the publishers' plain frames.
    #[cfg(test)]
    pub(super) fn made(&self) -> usize {
        usize::from(!self.joined_deflated.is_empty()) + self.derived.len()
    }

    /// Whether no message has a deflated frame.
    pub(super) fn is_plain(&self) -> bool {
        self.longest_deflated.is_none()
    }

    /// Room that all of it takes in the mailbox.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What a connection of this encoding gets of the whole batch. One message that does not fit its window makes all
    /// of them plain, so that there are no more joined buffers than two a form.
    pub(super) fn choose_raw(&mut self, encoding: Encoding) -> Choice {
        if self.longest_deflated.is_none_or(|longest| longest > encoding.deflates_up_to()) {
            return Choice::Raw(Encoding::Plain);
        }
        if self.messages.len() > 1 && self.joined_deflated.is_empty() {
            let frames = self.messages.iter().map(|message| message.frame_as(Encoding::Deflated));
            frames.for_each(|frame| self.joined_deflated.extend_from_slice(frame));
        }
        Choice::Raw(Encoding::Deflated)
    }

    /// Takes the run of messages at the head of what waits, as far as it fits one write.
    pub(super) fn fill(
        &mut self,
        pending: &mut VecDeque<Pending>,
        bytes_max: usize,
        buffers: &mut Vec<Vec<u8>>,
    ) {
        let mut plain_bytes = 0;
        while let Some(Pending::Message(message)) = pending.front() {
            let bytes = message.frame().len();
            if !self.messages.is_empty() && plain_bytes + bytes > bytes_max {
                break;
            }
            plain_bytes += bytes;
            self.bytes += message.frame_len() as u64;
            if message.is_deflated() {
                self.longest_deflated = self.longest_deflated.max(Some(message.payload().len()));
            }
            if let Some(Pending::Message(message)) = pending.pop_front() {
                self.messages.push(message);
            }
        }
        if self.messages.len() > 1 {
            self.joined = spare(buffers);
            self.joined.reserve(plain_bytes);
            self.messages.iter().for_each(|message| self.joined.extend_from_slice(message.frame()));
        }
    }

    /// These messages, which nobody waits for in a mailbox.
    pub(super) fn of(messages: Vec<Message>, buffers: &mut Vec<Vec<u8>>) -> Self {
        let mut pending = messages.into_iter().map(Pending::Message).collect();
        let mut batch = Self::default();
        batch.fill(&mut pending, usize::MAX, buffers);
        batch
    }

    /// Bytes of all frames that it holds, joined ones besides.
    pub(super) fn footprint(&self) -> u64 {
        let derived = self.derived.iter().map(|made| made.joined.capacity());
        let joined = self.joined.capacity() + self.joined_deflated.capacity() + derived.sum::<usize>();
        self.bytes + joined as u64
    }

    pub(super) fn clear(&mut self, buffers: &mut Vec<Vec<u8>>) {
        self.messages.clear();
        self.messages.shrink_to(CAPACITY_KEPT);
        let derived = mem::take(&mut self.derived).into_iter().map(|made| made.joined);
        for mut buffer in
            [mem::take(&mut self.joined), mem::take(&mut self.joined_deflated)].into_iter().chain(derived)
        {
            if buffer.capacity() > 0 && buffers.len() < BUFFERS_KEPT {
                buffer.clear();
                buffer.shrink_to(BATCH_BYTES_MAX);
                buffers.push(buffer);
            }
        }
        self.longest_deflated = None;
        self.latest = None;
        self.bytes = 0;
    }
}

impl<F: Form> Batch<F> {
    /// What a connection of this form gets that is sent nothing deflated, if it is what was asked for last.
    #[inline]
    pub(super) fn latest_plain(&self, form: F) -> Option<Choice> {
        self.latest.filter(|latest| latest.0 == form).map(|latest| Choice::Derived(latest.1))
    }

    /// As [`Self::choose_raw`] of another form, which is made of the messages if this is its first connection.
    pub(super) fn choose_derived(
        &mut self,
        form: F,
        encoding: Encoding,
        topic: &Topic,
        deflate: impl FnMut(&[u8], &mut Vec<u8>) -> bool,
        buffers: &mut Vec<Vec<u8>>,
    ) -> Choice {
        let plain = self.place_of(form, false).unwrap_or_else(|| self.derive(form, topic, buffers));
        if encoding == Encoding::Plain {
            self.latest = Some((form, plain));
            return Choice::Derived(plain);
        }
        let deflated =
            self.place_of(form, true).unwrap_or_else(|| self.deflate(form, topic, plain, deflate, buffers));
        let longest = self.derived.get(usize::from(deflated)).and_then(|made| made.longest_deflated);
        let fits = longest.is_some_and(|longest| longest <= encoding.deflates_up_to());
        Choice::Derived(if fits { deflated } else { plain })
    }

    fn place_of(&self, form: F, deflated: bool) -> Option<u8> {
        let place = self.derived.iter().position(|made| made.form == form && made.deflated == deflated)?;
        u8::try_from(place).ok()
    }

    /// Makes the messages of a form, each once.
    fn derive(&mut self, form: F, topic: &Topic, buffers: &mut Vec<Vec<u8>>) -> u8 {
        let mut payload = spare(buffers);
        let messages = self.messages.iter().map(|message| {
            payload.clear();
            let mut frame = [0; HEADER_BYTES_MAX];
            let mut chunk = [0; CHUNK_HEAD_BYTES_MAX];
            let head = match form.write(Stamped { topic, message }, &mut payload) {
                Carried::Frame(opcode) => {
                    let len = encode_header(&mut frame, true, opcode, payload.len(), None);
                    frame.get(..len)
                }
                Carried::Chunk => {
                    let len = encode_chunk_head(&mut chunk, payload.len());
                    payload.extend_from_slice(b"\r\n");
                    chunk.get(..len)
                }
                Carried::Stream => None,
            };
            message.derived(head.unwrap_or_default(), &payload)
        });
        let messages = messages.collect();
        buffers.push(payload);
        self.add(form, false, messages, None, buffers)
    }

    /// Makes the same deflated where that saves anything, and shares the plain ones where it does not.
    fn deflate(
        &mut self,
        form: F,
        topic: &Topic,
        plain: u8,
        mut deflate: impl FnMut(&[u8], &mut Vec<u8>) -> bool,
        buffers: &mut Vec<Vec<u8>>,
    ) -> u8 {
        let mut longest = None;
        let mut deflated = spare(buffers);
        let mut payload = spare(buffers);
        let of_plain = self.derived.get(usize::from(plain)).map_or(&[][..], |made| &made.messages);
        let messages = self.messages.iter().zip(of_plain).map(|(raw, plain)| {
            payload.clear();
            deflated.clear();
            let Carried::Frame(opcode) = form.write(Stamped { topic, message: raw }, &mut payload) else {
                return plain.clone();
            };
            if payload.len() > DEFLATED_BYTES_MAX || !deflate(&payload, &mut deflated) {
                return plain.clone();
            }
            longest = longest.max(Some(payload.len()));
            let mut head = [0; HEADER_BYTES_MAX];
            let head_len = encode_header(&mut head, true, opcode, deflated.len(), None);
            // RFC 7692, 6: the first bit reserved marks a compressed message.
            head[0] |= RSV1;
            raw.derived(head.get(..head_len).unwrap_or_default(), &deflated)
        });
        let messages = messages.collect();
        buffers.extend([payload, deflated]);
        self.add(form, true, messages, longest, buffers)
    }

    fn add(
        &mut self,
        form: F,
        deflated: bool,
        messages: Vec<Message>,
        longest_deflated: Option<usize>,
        buffers: &mut Vec<Vec<u8>>,
    ) -> u8 {
        // Plain ones that are shared were counted when they were made.
        let made = messages.iter().filter(|message| message.is_unshared());
        self.bytes += made.map(|message| message.frame_len() as u64).sum::<u64>();
        let mut joined = Vec::new();
        if messages.len() > 1 {
            joined = spare(buffers);
            messages.iter().for_each(|message| joined.extend_from_slice(message.frame()));
        }
        buffers.truncate(BUFFERS_KEPT);
        self.derived.push(Derived { form, deflated, messages, joined, longest_deflated });
        u8::try_from(self.derived.len() - 1).unwrap_or(u8::MAX)
    }
}

/// An empty buffer, with room if one is kept.
fn spare(buffers: &mut Vec<Vec<u8>>) -> Vec<u8> {
    let mut buffer = buffers.pop().unwrap_or_default();
    buffer.clear();
    buffer
}

impl<F> Derived<F> {
    fn frames(&self) -> &[u8] {
        match self.messages.as_slice() {
            [only] => only.frame(),
            _ => &self.joined,
        }
    }
}
