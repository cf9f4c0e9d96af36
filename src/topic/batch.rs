//! The messages of one pass as each connection gets them: the publisher's frames, and for subscribers of other
//! forms what is made of them here, once for all connections of the loop. Bursts are joined, so that each write is
//! one. Driven by `subscriptions`; never sees a connection.

use std::collections::VecDeque;
use std::mem;

use super::form::{Carried, Deflate, Encoding, Form, Stamped};
use super::mailbox::CAPACITY_KEPT;
use super::message::Message;
use super::state::Topic;
use super::subscriptions::Pending;
use crate::wire::deflate::coded;
use crate::wire::frame::{
    HEADER_BYTES_MAX, Opcode, Sender, decode_header, encode_header, push_deflated_frame,
};
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
    /// The plain frames of all messages in a row, made with the first connection in a pass that gets them; empty when
    /// there is one message only.
    joined: Vec<u8>,
    /// The same as connections with compression get it.
    joined_deflated: Vec<u8>,
    /// The longest payload that has a deflated frame.
    longest_deflated: Option<usize>,
    /// What was made for subscribers of other forms in this pass: each way of a form once.
    derived: Vec<Derived<F>>,
    /// Which of that was made last, if it is plain: what nearly every connection of a topic wants.
    latest: Option<(F, u8)>,
    /// Bytes of the plain frames.
    plain_bytes: usize,
    /// Room that all of it takes in the mailbox.
    bytes: u64,
}

/// How messages of a form were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Plain,
    /// Deflated each by itself, where that saved anything.
    Alone,
    /// Deflated, so that each may refer to those before it: only for who gets all of them in one piece.
    Run,
}

/// The messages of a batch in one form.
#[derive(Debug)]
struct Derived<F> {
    form: F,
    way: Way,
    /// Whether each is one WebSocket frame.
    framed: bool,
    /// Their frames in a row.
    frames: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
    /// The same, each a message of its own at its place: only once one has to wait.
    messages: Vec<Message>,
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
            plain_bytes: 0,
            bytes: 0,
        }
    }
}

impl<F> Batch<F> {
    /// The messages as they were published.
    pub fn messages(&self) -> &[Message] {
        &self.messages
    }

    /// The messages as the choice has them, one by one, for what has to be queued or filtered. Those of another form than
    /// the publishers' are made of its bytes when they are first asked for: most are only written. Not those of a run,
    /// which are nothing by themselves.
    pub fn messages_of(&mut self, choice: Choice) -> &[Message] {
        if let Choice::Derived(at) = choice
            && let Some(made) = self.derived.get_mut(usize::from(at))
            && made.messages.is_empty()
        {
            let pieces = self.messages.iter().zip(made.pieces());
            made.messages = pieces.map(|(raw, bytes)| raw.rewritten(bytes)).collect();
        }
        self.made_of(choice)
    }

    /// The same, if they were asked for before.
    pub(super) fn made_of(&self, choice: Choice) -> &[Message] {
        match choice {
            Choice::Raw(_) => &self.messages,
            Choice::Derived(at) => self.derived.get(usize::from(at)).map_or(&[], |made| &made.messages),
        }
    }

    /// The messages as they were published, and what the choice has made of each.
    pub fn pieces(&self, choice: Choice) -> impl Iterator<Item = (&Message, &[u8])> {
        let made = match choice {
            Choice::Derived(at) => self.derived.get(usize::from(at)),
            Choice::Raw(_) => None,
        };
        self.messages.iter().zip(made.into_iter().flat_map(Derived::pieces))
    }

    /// All frames of the choice, which was made, in one contiguous run. A single message is not copied.
    pub fn frames(&self, choice: Choice) -> &[u8] {
        match (choice, self.messages.as_slice()) {
            (Choice::Derived(at), _) => self.derived.get(usize::from(at)).map_or(&[], |made| &made.frames),
            (Choice::Raw(encoding), [only]) => only.frame_as(encoding),
            (Choice::Raw(Encoding::Plain), _) => &self.joined,
            (Choice::Raw(_), _) => &self.joined_deflated,
        }
    }

    /// What is left of a run of which so many bytes are with the kernel: how many messages are there as a whole, and of the
    /// one behind them its bytes, and how many of these are there. `None`: it is no run.
    pub fn rest_of_run(&self, choice: Choice, sent: usize) -> Option<(usize, &[u8], usize)> {
        let Choice::Derived(at) = choice else { return None };
        let made = self.derived.get(usize::from(at)).filter(|made| made.way == Way::Run)?;
        let whole = made.ends.partition_point(|&end| end <= sent);
        let from = whole.checked_sub(1).and_then(|last| made.ends.get(last)).copied().unwrap_or(0);
        let piece = made.ends.get(whole).and_then(|&end| made.frames.get(from..end)).unwrap_or_default();
        Some((whole, piece, sent - from))
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
    #[inline]
    pub(super) fn choose_raw(&mut self, encoding: Encoding, buffers: &mut Vec<Vec<u8>>) -> Choice {
        let fits = self.longest_deflated.is_some_and(|longest| longest <= encoding.deflates_up_to());
        let (encoding, joined) = match fits {
            true => (Encoding::Deflated, &mut self.joined_deflated),
            false => (Encoding::Plain, &mut self.joined),
        };
        if joined.is_empty() && self.messages.len() > 1 {
            *joined = join(&self.messages, encoding, self.plain_bytes, buffers);
        }
        Choice::Raw(encoding)
    }

    /// Takes the run of messages at the head of what waits, as far as it fits one write.
    pub(super) fn fill(&mut self, pending: &mut VecDeque<Pending>, bytes_max: usize) {
        while let Some(Pending::Message(message)) = pending.front() {
            let bytes = message.frame().len();
            if !self.messages.is_empty() && self.plain_bytes + bytes > bytes_max {
                break;
            }
            self.plain_bytes += bytes;
            self.bytes += message.frame_len() as u64;
            if message.is_deflated() {
                self.longest_deflated = self.longest_deflated.max(Some(message.payload().len()));
            }
            if let Some(Pending::Message(message)) = pending.pop_front() {
                self.messages.push(message);
            }
        }
    }

    /// Takes the newest of the run of messages at the head of what waits, in the place of what it has. Returns the messages
    /// that it lets go, and their bytes.
    pub(super) fn fill_newest(&mut self, pending: &mut VecDeque<Pending>) -> (u64, u64) {
        let mut gone = (0, 0);
        while let Some(Pending::Message(_)) = pending.front()
            && let Some(Pending::Message(message)) = pending.pop_front()
        {
            gone = (gone.0 + self.messages.len() as u64, gone.1 + self.bytes);
            self.bytes = message.frame_len() as u64;
            self.plain_bytes = message.frame().len();
            self.longest_deflated = message.is_deflated().then(|| message.payload().len());
            self.messages.clear();
            self.messages.push(message);
        }
        gone
    }

    /// These messages, which nobody waits for in a mailbox.
    pub(super) fn of(messages: Vec<Message>) -> Self {
        let mut pending = messages.into_iter().map(Pending::Message).collect();
        let mut batch = Self::default();
        batch.fill(&mut pending, usize::MAX);
        batch
    }

    /// Bytes of all frames that it holds, joined ones besides.
    pub(super) fn footprint(&self) -> u64 {
        let derived = self.derived.iter().map(Derived::beside);
        let joined = self.joined.capacity() + self.joined_deflated.capacity() + derived.sum::<usize>();
        self.bytes + joined as u64
    }

    pub(super) fn clear(&mut self, buffers: &mut Vec<Vec<u8>>) {
        self.messages.clear();
        self.messages.shrink_to(CAPACITY_KEPT);
        let derived = mem::take(&mut self.derived).into_iter().map(|made| made.frames);
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
        self.plain_bytes = 0;
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
        mut deflate: impl Deflate,
        buffers: &mut Vec<Vec<u8>>,
    ) -> Choice {
        let plain = self.place_of(form, Way::Plain).unwrap_or_else(|| self.derive(form, topic, buffers));
        if encoding == Encoding::Plain {
            self.latest = Some((form, plain));
            return Choice::Derived(plain);
        }
        if encoding == Encoding::DeflatedInRuns && self.messages.len() > 1 {
            let run = self
                .place_of(form, Way::Run)
                .unwrap_or_else(|| self.deflate((form, Way::Run), topic, plain, &mut deflate, buffers));
            if self.longest_of(run).is_some() {
                return Choice::Derived(run);
            }
        }
        let deflated = self
            .place_of(form, Way::Alone)
            .unwrap_or_else(|| self.deflate((form, Way::Alone), topic, plain, &mut deflate, buffers));
        let longest = self.longest_of(deflated);
        let fits = longest.is_some_and(|longest| longest <= encoding.deflates_up_to());
        Choice::Derived(if fits { deflated } else { plain })
    }

    fn place_of(&self, form: F, way: Way) -> Option<u8> {
        let place = self.derived.iter().position(|made| made.form == form && made.way == way)?;
        u8::try_from(place).ok()
    }

    /// The longest payload that is deflated there.
    fn longest_of(&self, made: u8) -> Option<usize> {
        self.derived.get(usize::from(made)).and_then(|made| made.longest_deflated)
    }

    /// Makes the messages of a form, each once.
    fn derive(&mut self, form: F, topic: &Topic, buffers: &mut Vec<Vec<u8>>) -> u8 {
        let mut made = Derived::new(form, Way::Plain, self.messages.len(), buffers);
        let mut start = spare(buffers);
        form.start(topic, &mut start);
        let mut usual = HEAD_BYTES;
        for message in &self.messages {
            let of = Stamped { topic, message, start: &start };
            usual = push_carried(&mut made.frames, usual, |out| {
                let carried = form.write(of, out);
                made.framed &= matches!(carried, Carried::Frame(_));
                carried
            });
            made.ends.push(made.frames.len());
        }
        buffers.push(start);
        self.add(made, buffers)
    }

    /// Makes the same deflated: each by itself where that saves anything, and else the plain bytes; or all of them as one run,
    /// if that is smaller than the plain bytes. Where nothing becomes smaller it is only noted.
    #[inline(never)]
    fn deflate(
        &mut self,
        (form, way): (F, Way),
        topic: &Topic,
        plain: u8,
        deflate: &mut impl Deflate,
        buffers: &mut Vec<Vec<u8>>,
    ) -> u8 {
        let mut made = Derived::new(form, way, self.messages.len(), buffers);
        let (mut start, mut text, mut deflated) = (spare(buffers), spare(buffers), spare(buffers));
        form.start(topic, &mut start);
        let of_plain = self.derived.get(usize::from(plain));
        let plain_bytes = of_plain.map_or(0, |made| made.frames.len());
        let framed = of_plain.is_some_and(|made| made.framed);
        let in_run = way == Way::Run;
        let mut goes_on = !in_run || plain_bytes <= DEFLATED_BYTES_MAX && deflate.begin_run(plain_bytes);
        for (message, plain) in self.messages.iter().zip(of_plain.into_iter().flat_map(Derived::pieces)) {
            if !goes_on {
                break;
            }
            deflated.clear();
            // A form may have to read the whole payload to write it, which it has done once.
            let (carried, payload) = match framed.then(|| unframed(plain)).flatten() {
                Some((opcode, payload)) => (Carried::Frame(opcode), payload),
                None => {
                    text.clear();
                    (form.write(Stamped { topic, message, start: &start }, &mut text), text.as_slice())
                }
            };
            let may = carried.is_deflatable() && payload.len() <= DEFLATED_BYTES_MAX;
            let done = may
                && match in_run {
                    true => deflate.go_on(payload, &mut deflated),
                    false => deflate.alone(payload, &mut deflated),
                };
            if done {
                made.longest_deflated = made.longest_deflated.max(Some(payload.len()));
                push_deflated(&mut made.frames, carried, &deflated);
            } else if in_run {
                goes_on = false;
            } else {
                made.frames.extend_from_slice(plain);
            }
            made.ends.push(made.frames.len());
        }
        if !goes_on || made.longest_deflated.is_none() || in_run && made.frames.len() >= plain_bytes {
            // Whoever asks gets the others.
            buffers.push(mem::take(&mut made.frames));
            (made.ends, made.longest_deflated) = (Vec::new(), None);
        }
        buffers.extend([start, text, deflated]);
        self.add(made, buffers)
    }

    fn add(&mut self, made: Derived<F>, buffers: &mut Vec<Vec<u8>>) -> u8 {
        self.bytes += made.frames.len() as u64;
        buffers.truncate(BUFFERS_KEPT);
        self.derived.push(made);
        u8::try_from(self.derived.len() - 1).unwrap_or(u8::MAX)
    }
}

impl<F> Derived<F> {
    fn new(form: F, way: Way, messages: usize, buffers: &mut Vec<Vec<u8>>) -> Self {
        let (frames, ends) = (spare(buffers), Vec::with_capacity(messages));
        Self { form, way, framed: true, frames, ends, messages: Vec::new(), longest_deflated: None }
    }

    /// What was made of each message.
    fn pieces(&self) -> impl Iterator<Item = &[u8]> {
        let mut from = 0;
        self.ends
            .iter()
            .map(move |&end| self.frames.get(mem::replace(&mut from, end)..end).unwrap_or_default())
    }

    /// Bytes that it holds beside its frames.
    fn beside(&self) -> usize {
        let messages = if self.messages.is_empty() { 0 } else { self.frames.len() };
        self.frames.capacity() - self.frames.len() + self.ends.capacity() * size_of::<usize>() + messages
    }
}

/// What one frame of a server carries.
fn unframed(frame: &[u8]) -> Option<(Opcode, &[u8])> {
    let header = decode_header(frame, Sender::Server).ok().flatten()?;
    Some((header.opcode, frame.get(header.header_len..)?))
}

/// Appends what is carried of a payload, which was deflated.
fn push_deflated(out: &mut Vec<u8>, carried: Carried, deflated: &[u8]) {
    match carried {
        Carried::Frame(opcode) => push_deflated_frame(out, opcode, deflated, None),
        Carried::Coded => coded::push_deflated_chunk(out, deflated),
        Carried::Chunk | Carried::Stream => {}
    }
}

/// Bytes in front of most of what is carried: those of a frame from 126 bytes on, of a chunk from 16 on.
const HEAD_BYTES: usize = 4;

/// The most bytes in front of anything.
const HEAD_BYTES_MAX: usize =
    if HEADER_BYTES_MAX > CHUNK_HEAD_BYTES_MAX { HEADER_BYTES_MAX } else { CHUNK_HEAD_BYTES_MAX };

/// Appends what `write` does, in what it is carried in. Room for `usual` bytes is left for what is in front of it, whose
/// length shows only then and is returned: mostly it is that, and nothing has to be moved.
#[inline]
fn push_carried(out: &mut Vec<u8>, usual: usize, write: impl FnOnce(&mut Vec<u8>) -> Carried) -> usize {
    let from = out.len();
    out.extend_from_slice([0; HEAD_BYTES_MAX].get(..usual).unwrap_or_default());
    let carried = write(out);
    let len = out.len() - from - usual;
    let (mut frame, mut chunk) = ([0; HEADER_BYTES_MAX], [0; CHUNK_HEAD_BYTES_MAX]);
    let head = match carried {
        Carried::Frame(opcode) => {
            let head_len = encode_header(&mut frame, true, opcode, len, None);
            frame.get(..head_len)
        }
        Carried::Chunk => {
            let head_len = encode_chunk_head(&mut chunk, len);
            out.extend_from_slice(b"\r\n");
            chunk.get(..head_len)
        }
        Carried::Coded => {
            let text = out.split_off(from + usual);
            out.truncate(from);
            coded::push_stored_chunk(out, &text);
            return usual;
        }
        Carried::Stream => None,
    };
    let head = head.unwrap_or_default();
    match out.get_mut(from..from + usual) {
        Some(room) if head.len() == usual => room.copy_from_slice(head),
        _ => drop(out.splice(from..from + usual, head.iter().copied())),
    }
    head.len()
}

/// The messages' frames in a row, which are no more than so many bytes.
#[inline(never)]
fn join(messages: &[Message], encoding: Encoding, bytes_max: usize, buffers: &mut Vec<Vec<u8>>) -> Vec<u8> {
    let mut joined = spare(buffers);
    joined.reserve(bytes_max);
    match encoding {
        Encoding::Plain => messages.iter().for_each(|message| joined.extend_from_slice(message.frame())),
        _ => messages.iter().for_each(|message| joined.extend_from_slice(message.frame_as(encoding))),
    }
    joined
}

/// An empty buffer, with room if one is kept.
fn spare(buffers: &mut Vec<Vec<u8>>) -> Vec<u8> {
    let mut buffer = buffers.pop().unwrap_or_default();
    buffer.clear();
    buffer
}
