//! What a phase needs beyond the slot: boxed, there only while needed, one variant per phase.
//!
//! Made and dropped by the event loop's turns. An idle connection on one topic has none.

use std::sync::Arc;

use thin_vec::ThinVec;

use super::Tick;
use super::behind::Behind;
use super::inquiry::{Inquiry, Part};
use super::rates::Debts;
use crate::dialect::{Tag, Wish};
use crate::metrics::{CloseReason, RefuseReason};
use crate::topic::{Draft, Place, Position, Topic, TopicName, Watch};
use crate::wire::deflate::Kept;
use crate::wire::http::chunked::ChunkedDecoder;

/// Phase data.
#[derive(Debug)]
pub enum Session {
    /// [`super::Phase::Head`]: the part of a head (or of pipelined requests) that has arrived.
    Head(Vec<u8>),
    /// [`super::Phase::Head`] of a connection that is refused whatever it asks, and why.
    Refused(RefuseReason),
    /// [`super::Phase::Body`].
    Body(Box<BodyState>),
    /// [`super::Phase::Parked`]. Boxed, so that the sessions of open connections are no larger for it.
    Parked(Box<Parked>),
    /// [`super::Phase::Open`], when there is more than one topic or something to remember.
    Open(OpenState),
    /// [`super::Phase::Closing`]: why we started to close.
    Closing(CloseReason),
    /// [`super::Phase::Lingering`], and the end of our side waits for the peer's answer to our last words.
    Parting,
    /// [`super::Phase::Lingering`]: bytes discarded so far.
    Lingering(usize),
}

impl Session {
    /// Bytes of requests that are there in part or wait for their turn, without those of a body, and of a publish that
    /// waits for room.
    #[must_use]
    pub fn request_bytes(&self) -> usize {
        match self {
            Self::Head(held) => held.capacity(),
            Self::Body(body) => size_of::<BodyState>() + body.head.capacity(),
            Self::Parked(parked) => {
                let head = parked.handshake.as_deref().map_or(0, |handshake| handshake.head.capacity());
                parked.held.capacity() + head
            }
            Self::Open(open) => open.blocked.as_deref().map_or(0, Blocked::bytes),
            _ => 0,
        }
    }

    /// Bytes of memory, the box included.
    #[must_use]
    pub fn memory(&self) -> usize {
        let more = match self {
            Self::Head(_) => self.request_bytes(),
            Self::Body(body) => self.request_bytes() + body.body.capacity(),
            Self::Parked(parked) => {
                let poll = parked.poll.as_deref().map_or(0, |poll| size_of::<Poll>() + poll.fields.len());
                let handshake = parked.handshake.as_deref().map_or(0, size_of_val);
                let topics = parked.topics.capacity() * size_of::<Subscription>();
                size_of::<Parked>() + poll + handshake + topics + self.request_bytes()
            }
            Self::Open(open) => {
                open.topics.capacity() * size_of::<Subscription>()
                    + open.watches.capacity() * size_of::<Watch>()
                    + open.context.as_deref().map_or(0, Kept::memory)
                    + open.behind.as_deref().map_or(0, Behind::memory)
                    + self.request_bytes()
            }
            Self::Refused(_) | Self::Closing(_) | Self::Parting | Self::Lingering(_) => 0,
        };
        size_of::<Self>() + more
    }

    /// Topics after the first.
    #[must_use]
    pub fn more_topics(&self) -> &[Subscription] {
        match self {
            Self::Open(open) => &open.topics,
            Self::Parked(parked) => &parked.topics,
            _ => &[],
        }
    }

    /// The same, to be changed.
    pub fn more_topics_mut(&mut self) -> &mut [Subscription] {
        match self {
            Self::Open(open) => &mut open.topics,
            Self::Parked(parked) => &mut parked.topics,
            _ => &mut [],
        }
    }

    /// Bytes of a request's body that have arrived.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        match self {
            Self::Body(body) => body.body.len(),
            _ => 0,
        }
    }
}

/// A request that waits for something, on either port. Its peer is read on as far as the next request, so that the end
/// of its stream is seen at once.
#[derive(Debug)]
pub struct Parked {
    /// When it has waited too long, unless what it waits for makes progress.
    pub due: Tick,
    /// Whether a further request may follow.
    pub keep_alive: bool,
    /// The request was HEAD.
    pub head_only: bool,
    /// Whether the beginning of the answer is out.
    pub started: bool,
    /// What came behind this request.
    pub held: Vec<u8>,
    /// The question to the loops, on the admin port. `None` while something else is awaited.
    pub asking: Option<Box<Asking>>,
    /// The next messages are awaited.
    pub poll: Option<Box<Poll>>,
    /// Topics after the first that they are awaited of.
    pub topics: Vec<Subscription>,
    /// What the application says of this handshake is awaited.
    pub handshake: Option<Box<Handshake>>,
}

/// A handshake that the application was asked about. It is read once more when the answer is there.
#[derive(Debug)]
pub struct Handshake {
    /// Its head.
    pub head: Vec<u8>,
    /// Tells the question from every other.
    pub digest: [u8; 32],
    /// Tells this one from those that the slot has asked before.
    pub ticket: u32,
}

/// A poll that waits for messages.
#[derive(Debug)]
pub struct Poll {
    /// Behind which place.
    pub at: Position,
    /// Behind which version of the list, if it waits for its changes, too.
    pub version: Option<Position>,
    /// Fields of its answer that say which pages may read it.
    pub fields: Box<[u8]>,
}

/// A question that the admin port has asked the client loops.
#[derive(Debug, Default)]
pub struct Asking {
    /// What is asked now; `None` between two of them.
    pub inquiry: Option<Arc<Inquiry>>,
    /// What loops have answered so far.
    pub parts: Vec<(usize, Part)>,
}

impl Parked {
    /// Waits until `due`.
    #[must_use]
    pub fn new(due: Tick, keep_alive: bool, head_only: bool) -> Self {
        Self {
            due,
            keep_alive,
            head_only,
            started: false,
            held: Vec::new(),
            asking: None,
            poll: None,
            topics: Vec::new(),
            handshake: None,
        }
    }
}

impl Asking {
    /// Rows in the latest part.
    #[must_use]
    pub fn rows_of_last(&self) -> usize {
        self.parts.last().map_or(0, |(_, part)| part.rows.len())
    }
}

/// A request whose body is arriving.
#[derive(Debug)]
pub struct BodyState {
    /// The whole head, kept because the answer depends on it.
    pub head: Vec<u8>,
    /// The decoded body so far.
    pub body: Vec<u8>,
    /// Bytes the decoded body may have.
    pub body_max: usize,
    /// How the rest is framed.
    pub framing: BodyFraming,
}

impl BodyState {
    /// Takes what belongs to the body and returns how many bytes of `bytes` that was.
    ///
    /// # Errors
    /// The body is too large or badly framed.
    pub fn take(&mut self, bytes: &[u8]) -> Result<usize, RefuseReason> {
        match &mut self.framing {
            BodyFraming::Remaining(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                self.body.extend_from_slice(bytes.get(..count).unwrap_or_default());
                *left -= count as u64;
                Ok(count)
            }
            BodyFraming::Chunked { decoder, done } => {
                let (used, ended) = decoder
                    .decode_into(bytes, &mut self.body, self.body_max)
                    .map_err(|error| RefuseReason::of_head_status(error.status()))?;
                *done = ended;
                Ok(used)
            }
        }
    }

    /// Whether the whole body is there.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        match &self.framing {
            BodyFraming::Remaining(left) => *left == 0,
            BodyFraming::Chunked { done, .. } => *done,
        }
    }
}

/// How a request body ends.
#[derive(Debug)]
pub enum BodyFraming {
    /// Content-Length: bytes still to come.
    Remaining(u64),
    /// Transfer-Encoding: chunked.
    Chunked {
        /// Where in the coding it is.
        decoder: ChunkedDecoder,
        /// Whether the last chunk and its trailer are there.
        done: bool,
    },
}

/// What an open connection remembers beyond its slot.
#[derive(Debug, Default)]
pub struct OpenState {
    /// Topics after the first.
    pub topics: Vec<Subscription>,
    /// Subscriptions by pattern.
    pub watches: ThinVec<Watch>,
    /// Messages that meant nothing: publishes that were ignored, or bad commands, of which a dialect knows one kind.
    pub faults: u32,
    /// A publish that no mailbox had room for, or that the application is not ready for, to be tried again before anything
    /// else is read.
    pub blocked: Option<Box<Blocked>>,
    /// What its compressed messages may refer back to, if it was not seen to begin each anew.
    pub context: Option<Box<Kept>>,
    /// The window of what is sent deflated, in bits, if it is smaller than deflate's own; 0 otherwise.
    pub window_bits: u8,
    /// Messages that went to the application, and that it has not answered.
    pub unanswered: u16,
    /// What it has to read of topics that keep messages.
    pub behind: Option<Box<Behind>>,
    /// What it owes of its rates; nothing when it has been quiet.
    pub debts: Debts,
}

impl OpenState {
    /// Whether nothing is worth keeping, so that the box can go.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
            && self.watches.is_empty()
            && self.faults == 0
            && self.blocked.is_none()
            && self.context.is_none()
            && self.behind.is_none()
            && self.window_bits == 0
            && self.unanswered == 0
            && self.debts.is_none()
    }
}

/// A publish that waits.
#[derive(Debug)]
pub struct Blocked {
    /// What for, and what is published.
    pub what: Waiting,
    /// For which request of its sender.
    pub tag: Tag,
    /// What its sender asked for behind it in the same message.
    pub rest: Vec<Wish>,
}

/// What a publish waits for.
#[derive(Debug)]
pub enum Waiting {
    /// Room in the mailbox of a loop.
    Room {
        /// Where it goes.
        topic: Topic,
        /// The message, encoded once however often it is tried.
        draft: Draft,
    },
    /// The application's answers to those before it.
    Answers {
        /// Where it goes.
        topic: TopicName<'static>,
        /// Whether the payload is binary.
        binary: bool,
        /// The payload.
        payload: Box<[u8]>,
    },
}

impl Blocked {
    /// Bytes that it holds.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let rest = self.rest.iter().map(Wish::bytes);
        let own = match &self.what {
            Waiting::Room { draft, .. } => draft.frame_len(),
            Waiting::Answers { topic, payload, .. } => topic.as_str().len() + payload.len(),
        };
        size_of::<Self>() + own + self.tag.bytes() + rest.sum::<usize>()
    }
}

/// One topic of a connection that has several.
#[derive(Clone, Copy, Debug)]
pub struct Subscription {
    /// The loop's index of the topic.
    pub topic: u32,
    /// The place in the topic's subscriber list, or the ticket of the join that is on its way.
    pub place: Place,
}
