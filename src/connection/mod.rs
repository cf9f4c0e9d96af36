//! One connection, sans-io: what it costs at rest and what it may hold while something is in flight.
//!
//! Owns the per-connection state and its rules: phases, [`inbox`], [`outbox`], the single [`deadline`].
//! The event loop feeds it bytes and ticks and carries out what comes of them. Never makes a system call,
//! never reads a clock.

pub mod behind;
pub mod deadline;
pub mod inbox;
pub mod inquiry;
pub mod layout;
pub mod outbox;
mod phases;
pub mod rates;
pub mod session;

use crate::dialect::{Dialect, Form};
use crate::topic::{Encoding, Place};
use inbox::Inbox;
use outbox::Outbox;
use session::Session;

/// Coarse time: 100 ms units since the process started.
pub type Tick = u32;

/// Milliseconds in one tick.
pub const TICK_MS: u64 = 100;

/// A topic index that stands for "none".
pub const NONE: u32 = u32::MAX;

/// Where a connection is in its life. The phase's own data, if any, is in its [`Session`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// An HTTP head is awaited or arriving.
    Head,
    /// A request body is arriving.
    Body,
    /// A request waits for something; no more than the next request is read until it is answered.
    Parked,
    /// The upgrade is done; frames flow.
    Open,
    /// Our close frame is out; the peer's is awaited.
    Closing,
    /// The last bytes are going out; what still comes in is discarded.
    Lingering,
}

impl Phase {
    /// The name in listings.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Head => "head",
            Self::Body => "body",
            Self::Parked => "parked",
            Self::Open => "open",
            Self::Closing => "closing",
            Self::Lingering => "lingering",
        }
    }
}

/// One bit each; a connection's small facts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flags(u16);

impl Flags {
    /// Reading stopped while input may be waiting; whoever ends the pause sees to the read turn.
    pub const READ_OWED: Self = Self(1);
    /// The peer left too much of what it asked for unread: nothing is read until its own answers have left. Messages
    /// of topics, of which there may be more at any time, neither begin nor prolong that.
    pub const PAUSED: Self = Self(1 << 1);
    /// A ping is out and unanswered.
    pub const PINGED: Self = Self(1 << 2);
    /// `?echo=0`: own messages are not delivered back.
    pub const NO_ECHO: Self = Self(1 << 3);
    /// The peer has ended its side of the stream.
    pub const EOF_SEEN: Self = Self(1 << 4);
    /// Our side of the stream is ended.
    pub const WRITE_SHUT: Self = Self(1 << 5);
    /// At least one request was answered: what is awaited is the next one.
    pub const KEPT_ALIVE: Self = Self(1 << 6);
    /// Accepted above a limit: answered a refusal whatever it asks.
    pub const REFUSED: Self = Self(1 << 7);
    /// Its request is awaited, and counted as such.
    pub const HANDSHAKING: Self = Self(1 << 8);
    /// Made by a trusted proxy for a client that is not known yet; the admission handle is the proxy's and not
    /// counted.
    pub const PROXIED: Self = Self(1 << 9);
    /// A PROXY header has to come first.
    pub const PROXY_DUE: Self = Self(1 << 10);
    /// On the loop's ready list: its read turn will come, and events add nothing to it.
    pub const LISTED: Self = Self(1 << 11);
    /// permessage-deflate was negotiated (RFC 7692). All that a connection has of it, unless its window is small: the
    /// streams are the loop's.
    pub const DEFLATE: Self = Self(1 << 12);
    /// The loop's list of publishers that wait for room in a mailbox has this connection.
    pub const WAITS_FOR_ROOM: Self = Self(1 << 13);
    /// A request on the admin port was let in, with a key or where none is needed: it is the operator's.
    pub const OPERATOR: Self = Self(1 << 14);
    /// What is sent to it deflated may refer to what it was sent before. The admin port's bit above, for those who ask there
    /// speak no dialect.
    pub const RUNS: Self = Self(1 << 14);
    /// Its compressed messages do not refer to earlier ones: it was seen, and nothing is kept of them.
    pub const BEGINS_ANEW: Self = Self(1 << 15);

    /// Whether all bits of `other` are set.
    #[must_use]
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Whether one of these is set.
    #[must_use]
    pub fn has_any(self, others: &[Self]) -> bool {
        others.iter().any(|&other| self.has(other))
    }

    /// Sets the bits of `other`.
    pub fn set(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Clears the bits of `other` and says whether any was set.
    pub fn clear(&mut self, other: Self) -> bool {
        let was = self.0 & other.0 != 0;
        self.0 &= !other.0;
        was
    }
}

/// The state of one connection without its stream: 48 bytes, all that an idle one has.
#[derive(Debug)]
pub struct Connection {
    /// Partial frame or message; `None` at rest.
    pub inbox: Option<Box<Inbox>>,
    /// What the kernel refused; `None` at rest.
    pub outbox: Option<Box<Outbox>>,
    /// What a phase needs beyond this struct; `None` at rest.
    pub session: Option<Box<Session>>,
    /// When the next look at this connection is due; `u32::MAX` for never. What is due then is computed by
    /// [`deadline::next`] when it strikes.
    pub deadline: Tick,
    /// When the peer was last heard, or when a phase without progress began.
    pub heard: Tick,
    /// The loop's index of the first topic subscribed to, or [`NONE`].
    pub topic: u32,
    /// The place in that topic's subscriber list, or the ticket of the join that is on its way.
    pub place: Place,
    /// What its address is known by in the admission table; 0 when no limit by address is on. On the admin port what
    /// strangers are counted by, and 0 on loopback.
    pub admission: u32,
    /// Where in its life; see [`Self::phase`].
    phase: Phase,
    /// What it speaks.
    pub dialect: Dialect,
    /// Small facts.
    pub flags: Flags,
}

/// User memory of one connection by part, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryParts {
    /// Its entry in the slot table.
    pub slot: usize,
    /// Half-received frames and messages.
    pub inbox: usize,
    /// The queue of unsent bytes, without messages that others share.
    pub outbox: usize,
    /// What its phase needs beyond the slot.
    pub session: usize,
    /// Its entries in the topics' subscriber lists.
    pub lists: usize,
}

impl MemoryParts {
    /// All parts together.
    #[must_use]
    pub fn total(&self) -> usize {
        self.slot + self.inbox + self.outbox + self.session + self.lists
    }
}

impl Connection {
    /// A connection accepted at `now`, awaiting a head.
    #[must_use]
    pub fn new(now: Tick) -> Self {
        Self {
            inbox: None,
            outbox: None,
            session: None,
            deadline: Tick::MAX,
            heard: now,
            topic: NONE,
            place: Place::NONE,
            admission: 0,
            phase: Phase::Head,
            dialect: Dialect::Http,
            flags: Flags::default(),
        }
    }

    /// Whether anything waits for the kernel to take it.
    #[must_use]
    pub fn has_backlog(&self) -> bool {
        self.outbox.is_some()
    }

    /// Bytes it has sent in part, or that wait for their turn: all that is kept of its input.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let requests = self.session.as_deref().map_or(0, Session::request_bytes);
        self.inbox.as_deref().map_or(0, Inbox::bytes) + requests
    }

    /// What it costs in user memory, by part, in bytes.
    #[must_use]
    pub fn memory(&self) -> MemoryParts {
        let more = self.session.as_deref().map(Session::more_topics).unwrap_or_default();
        let more = more.iter().filter(|more| more.place.is_listed()).count();
        let listed = more + usize::from(self.place.is_listed());
        MemoryParts {
            slot: SLOT_ENTRY_BYTES,
            inbox: self.inbox.as_deref().map_or(0, Inbox::bytes),
            outbox: self.outbox.as_deref().map_or(0, Outbox::memory),
            session: self.session.as_deref().map_or(0, Session::memory),
            // An entry of a topic's list of subscribers is a slot number.
            lists: listed * size_of::<u32>(),
        }
    }

    /// Whether a publish of it waits for room in a mailbox.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        matches!(self.session.as_deref(), Some(Session::Open(open)) if open.blocked.is_some())
    }

    /// How it wants published messages.
    #[inline]
    #[must_use]
    pub fn form(&self) -> Form {
        self.dialect.form()
    }

    /// How far it may be sent them deflated.
    #[must_use]
    pub fn encoding(&self) -> Encoding {
        if !self.flags.has(Flags::DEFLATE) {
            return Encoding::Plain;
        }
        if let Some(Session::Open(open)) = self.session.as_deref()
            && open.window_bits != 0
        {
            return Encoding::DeflatedWithin(open.window_bits);
        }
        if self.flags.has(Flags::RUNS) { Encoding::DeflatedInRuns } else { Encoding::Deflated }
    }

    /// Whether messages of topics may still be delivered.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }
}

/// One entry of the slot table.
#[derive(Debug)]
pub struct Slot<S> {
    /// The byte stream.
    pub stream: S,
    /// The loop's accept counter when this connection was accepted; a key with another value is stale.
    pub generation: u32,
    /// Everything else.
    pub connection: Connection,
}

/// Stands for `slab`'s private entry, which has this shape: the compiler lays both out alike.
enum TableEntry<T> {
    #[allow(dead_code, reason = "only its size is asked for")]
    Vacant(usize),
    #[allow(dead_code, reason = "only its size is asked for")]
    Occupied(T),
}

/// Bytes that the slot table stores per connection.
pub const SLOT_ENTRY_BYTES: usize = size_of::<TableEntry<Slot<crate::transport::Stream>>>();

const _: () = assert!(SLOT_ENTRY_BYTES <= 64, "a slot entry may cost at most 64 bytes");
const _: () = assert!(size_of::<Connection>() == 48, "the per-connection state is 48 bytes");
