//! Frames of an upgraded connection: messages to the dialect, control frames answered, violations closed.
//!
//! Driven by the read turn with bytes that are unmasked in place.

use super::closing::Words;
use super::core::Core;
use super::effects::{Sink, Speaker, Then};
use super::write_turn::Asked;
use crate::connection::inbox::{
    Compression, Flow, Inbox, InboxError, InboxEvent, InboxLimits, feed_deflated,
};
use crate::connection::session::{OpenState, Session};
use crate::connection::{Connection, Flags, Phase};
use crate::dialect::{Bounds, Dialect, Effects, Incoming, Tag};
use crate::metrics::CloseReason;
use crate::topic::{Encoding, Key};
use crate::transport::Socket;
use crate::wire::close::parse_close;
use crate::wire::deflate::ClientContext;
use crate::wire::frame::{Opcode, push_frame};

/// Answers gathered before they are sent: beyond it, the peer has to read some first.
const ANSWER_BYTES: usize = 64 * 1024;

/// Bytes of answers after which a connection waits for another turn: more than what is echoed of one read.
const ANSWERS_PER_TURN: usize = 256 * 1024;

/// How one stretch of frames ended.
enum Stretch {
    /// All taken or stopped for the answers to go out.
    More,
    /// A publish has to wait for room in a mailbox.
    Blocked,
    /// The peer's close frame, with the code to answer.
    PeerClose { code: Option<u16>, reason: CloseReason, text: &'static str },
    /// The dialect ends the conversation.
    End(CloseReason),
    /// More messages than the connection, or whom it belongs to, may send.
    Rate(CloseReason),
    /// All connections together hold too much half-received.
    InboxFull,
}

impl<S: Socket> Core<S> {
    /// Takes frame bytes in the phases `Open` and `Closing`.
    pub(super) fn on_frame_bytes(&mut self, key: Key, mut bytes: &mut [u8]) {
        let now = self.now;
        if let Some(slot) = self.slots.get(key) {
            // A later `heard` is the spread given at the upgrade; in Closing it is when the wait began.
            if slot.connection.phase() == Phase::Open {
                if slot.connection.flags.clear(Flags::PINGED) {
                    slot.connection.heard = now;
                }
                slot.connection.heard = slot.connection.heard.max(now);
            }
        }
        let mut answered = 0;
        while !bytes.is_empty() {
            if answered >= ANSWERS_PER_TURN {
                // Few bytes may ask for much: others are served before the rest of it.
                self.list_ready(key);
                return self.stash(key, bytes);
            }
            if self.joins_first(key) {
                self.stash(key, bytes);
                return self.wait_for_joins(key);
            }
            let mut out = std::mem::take(&mut self.out);
            out.clear();
            let (result, stretch) = self.feed_stretch(key, bytes, &mut out);
            self.send_own(key, &out, Asked::Yes);
            answered += out.len();
            out.clear();
            if out.capacity() > 4 * ANSWER_BYTES {
                out.shrink_to(ANSWER_BYTES);
            }
            self.out = out;
            let Some(paused) = self.takes_frames(key) else {
                // It did not read its answers when there was no room left for them.
                return;
            };
            let consumed = match result {
                Ok(consumed) => consumed,
                Err(error) => return self.on_violation(key, &error),
            };
            bytes = bytes.get_mut(consumed..).unwrap_or_default();
            let spent = self.inflater.is_spent();
            match stretch {
                Stretch::More if spent => {
                    // A few bytes can hold much: the rest of them waits for another turn.
                    self.list_ready(key);
                    return self.stash(key, bytes);
                }
                Stretch::More => {}
                Stretch::Blocked => return self.stash(key, bytes),
                Stretch::PeerClose { code, reason, text } => {
                    return self.on_peer_close(key, code, reason, text);
                }
                Stretch::End(reason) => return self.end(key, reason, Words::Own),
                Stretch::Rate(reason) => return self.end(key, reason, Words::Own),
                Stretch::InboxFull => {
                    return self.end(key, CloseReason::InboxFull, Words::Own);
                }
            }
            if paused {
                return self.stash(key, bytes);
            }
        }
    }

    fn feed_stretch(
        &mut self,
        key: Key,
        bytes: &mut [u8],
        out: &mut Vec<u8>,
    ) -> (Result<usize, InboxError>, Stretch) {
        let Some(slot) = self.slots.get(key) else { return (Ok(bytes.len()), Stretch::More) };
        let dialect = slot.connection.dialect;
        let closing = slot.connection.phase() == Phase::Closing;
        let encoding = slot.connection.encoding();
        let mut context = take_context(&mut slot.connection, encoding);
        let mut inbox = slot.connection.inbox.take();
        let held = held_bytes(inbox.as_deref());
        let topic = slot.connection.topic;
        let limits = self.inbox_limits(dialect, topic);
        let (mut stretch, mut over) = (Stretch::More, None);
        // Most connections have not negotiated any, and moving it costs.
        let mut inflater = (encoding != Encoding::Plain).then(|| std::mem::take(&mut self.inflater));
        let mut effects = Effects::default();
        let compression = match &mut inflater {
            None => Compression::Refused,
            Some(_) if closing => Compression::PassedOver,
            Some(inflater) => Compression::Inflated { inflater, context: &mut context },
        };
        let mut on_event = |event: InboxEvent<'_>| match event {
            InboxEvent::Close(payload) => {
                stretch = peer_close(payload);
                Flow::Stop
            }
            // RFC 6455, 1.4: once a close frame was sent, nothing else of the peer matters.
            _ if closing => Flow::Continue,
            InboxEvent::Message { .. } | InboxEvent::Ping(_) if !self.charge_message(key, &mut over) => {
                stretch = over.map_or(Stretch::More, Stretch::Rate);
                Flow::Stop
            }
            InboxEvent::Message { text, payload } => {
                self.counters.messages_received.add(1);
                let (slot, generation, bytes) = (key.slot, key.generation, payload.len());
                tracing::trace!(slot, generation, bytes, text, "message received");
                let mut sink = Sink { out, effects: &mut effects, tag: Tag::default() };
                let from = Speaker { key, dialect, deflates_up_to: encoding.deflates_up_to() };
                let then = self.on_message(from, Incoming { text, payload }, &mut sink);
                let full =
                    out.len() >= ANSWER_BYTES || (dialect.joins() && !self.topics.has_room_for_joins());
                match then {
                    Then::Go if !full => return Flow::Continue,
                    Then::Go => {}
                    Then::Wait => stretch = Stretch::Blocked,
                    Then::End(reason) => stretch = Stretch::End(reason),
                }
                Flow::Stop
            }
            InboxEvent::Ping(payload) => {
                push_frame(out, Opcode::Pong, payload, None);
                if out.len() < ANSWER_BYTES { Flow::Continue } else { Flow::Stop }
            }
            InboxEvent::Pong(_) => {
                self.counters.pongs_received.add(1);
                Flow::Continue
            }
        };
        let result = feed_deflated(&mut inbox, bytes, &limits, compression, &mut on_event);
        if let Some(inflater) = inflater {
            self.inflater = inflater;
        }
        self.held.moved(self.edition.inbox_bytes_of(self.port), held, held_bytes(inbox.as_deref()));
        if let Some(slot) = self.slots.get(key) {
            slot.connection.inbox = inbox;
            if encoding != Encoding::Plain {
                put_context(&mut slot.connection, context);
            }
            let own = slot.connection.held_bytes();
            if own > 0 && self.is_inbox_full(own) {
                stretch = Stretch::InboxFull;
            }
        }
        (result, stretch)
    }

    /// Whether joins before its own have to be listed first, if it may ask for any.
    #[inline]
    fn joins_first(&mut self, key: Key) -> bool {
        if self.topics.has_room_for_joins() {
            return false;
        }
        let connection = self.slots.get(key).map(|slot| &slot.connection);
        connection.is_some_and(|connection| connection.is_open() && connection.dialect.joins())
    }

    /// Whether frames are taken of it still, and if so whether they have to wait.
    fn takes_frames(&mut self, key: Key) -> Option<bool> {
        let connection = &self.slots.get(key)?.connection;
        let open = matches!(connection.phase(), Phase::Open | Phase::Closing);
        open.then(|| connection.flags.has(Flags::PAUSED))
    }

    /// What a message of this dialect may be; `topic` is the one it would be published to.
    fn inbox_limits(&self, dialect: Dialect, topic: u32) -> InboxLimits {
        let limits = &self.edition.settings.limits;
        let topic = self.topics.policy(topic).map(|policy| policy.message_bytes_max);
        let any_topic = limits.message_bytes_max;
        let bounds = Bounds { echo: limits.echo_bytes_max, topic: topic.unwrap_or(any_topic), any_topic };
        InboxLimits {
            message_bytes_max: dialect.message_bytes_max(&bounds),
            fragments_max: u32::try_from(limits.fragments_max).unwrap_or(u32::MAX),
        }
    }

    fn stash(&mut self, key: Key, bytes: &[u8]) {
        let Some(slot) = self.slots.get(key) else { return };
        slot.connection.flags.set(Flags::READ_OWED);
        if !bytes.is_empty() {
            let held = held_bytes(slot.connection.inbox.as_deref());
            Inbox::stash(&mut slot.connection.inbox, bytes);
            let own = held_bytes(slot.connection.inbox.as_deref());
            let all_own = slot.connection.held_bytes();
            self.held.moved(self.edition.inbox_bytes_of(self.port), held, own);
            if self.is_inbox_full(all_own) {
                self.end(key, CloseReason::InboxFull, Words::Own);
            }
        }
    }

    fn on_violation(&mut self, key: Key, error: &InboxError) {
        let reason = match error {
            InboxError::BadDeflate => {
                self.counters.inflate_failures.add(1);
                CloseReason::BadDeflate
            }
            InboxError::NoContext => CloseReason::DeflateFull,
            _ => CloseReason::of_close_code(error.close_code()),
        };
        self.end(key, reason, Words::Given(error.close_code(), error.reason()));
    }

    fn on_peer_close(&mut self, key: Key, code: Option<u16>, reason: CloseReason, text: &str) {
        let Some(slot) = self.slots.get(key) else { return };
        if slot.connection.phase() == Phase::Open {
            match code {
                Some(code) => return self.end(key, reason, Words::Answer(code, text)),
                // RFC 6455, 7.1.5: no code received, none sent.
                None => self.send_own(key, &[0x88, 0x00], Asked::No),
            }
        }
        self.end(key, reason, Words::Nothing);
    }
}

/// Takes what is known of how a client compresses, for as long as it is fed.
#[inline]
fn take_context(connection: &mut Connection, encoding: Encoding) -> ClientContext {
    if encoding == Encoding::Plain {
        return ClientContext::default();
    }
    let kept = match connection.session.as_deref_mut() {
        Some(Session::Open(open)) => open.context.take(),
        _ => None,
    };
    ClientContext::new(connection.flags.has(Flags::BEGINS_ANEW), kept)
}

/// Puts it back; nothing is kept of a client whose conversation has ended meanwhile.
fn put_context(connection: &mut Connection, context: ClientContext) {
    let (begins_anew, kept) = context.into_parts();
    if begins_anew {
        connection.flags.set(Flags::BEGINS_ANEW);
    }
    if kept.is_some() && connection.is_open() {
        remember(&mut connection.session, |open| open.context = kept);
    } else if let Some(Session::Open(open)) = connection.session.as_deref()
        && open.is_empty()
    {
        connection.session = None;
    }
}

/// What an inbox holds, itself included.
pub(super) fn held_bytes(inbox: Option<&Inbox>) -> usize {
    inbox.map_or(0, Inbox::bytes)
}

fn peer_close(payload: &[u8]) -> Stretch {
    match parse_close(payload) {
        // RFC 6455, 5.5.1: the answer typically echoes the status code.
        Ok(parsed) => {
            Stretch::PeerClose { code: parsed.map(|(code, _)| code), reason: CloseReason::Normal, text: "" }
        }
        Err(error) => Stretch::PeerClose {
            code: Some(error.close_code()),
            reason: CloseReason::of_close_code(error.close_code()),
            text: error.reason(),
        },
    }
}

/// Changes what an open connection remembers, making it first if there is nothing yet.
pub(super) fn remember<T>(session: &mut Option<Box<Session>>, change: impl FnOnce(&mut OpenState) -> T) -> T {
    if let Some(Session::Open(open)) = session.as_deref_mut() {
        return change(open);
    }
    let mut open = OpenState::default();
    let result = change(&mut open);
    *session = Some(Box::new(Session::Open(open)));
    result
}

#[cfg(test)]
#[path = "frames_turn_tests.rs"]
mod tests;
