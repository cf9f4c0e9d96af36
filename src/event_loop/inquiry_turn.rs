//! Answering the admin loop: each turn a few slots of the inquiry in hand, so that a listing of everybody never
//! holds up a delivery.
//!
//! Driven by the loop's turns; inquiries take turns. What is asked is in `connection::inquiry`.

use std::sync::Arc;

use super::closing::Words;
use super::core::Core;
use crate::connection::inquiry::{Asker, ConnectionRow, Inquiry, Part, Question};
use crate::connection::session::Session;
use crate::connection::{Connection, MemoryParts, NONE, Phase, TICK_MS, Tick};
use crate::dialect::Outcome;
use crate::dialect::sse::Places;
use crate::edition::Answered;
use crate::metrics::CloseReason;
use crate::topic::{Key, Reply, TopicName, Watch};
use crate::transport::Socket;

/// Slots looked at in one turn.
const KEYS_PER_TURN: usize = 512;

/// What one turn may cost; see the costs below. About 100 µs.
const COST_PER_TURN: u32 = 2_048;

/// A slot that was looked at.
const COST_LOOK: u32 = 1;
/// A system call that asks for the peer.
const COST_PEER: u32 = 8;
/// A close frame: a `send`, and leaving the topics.
const COST_CLOSE: u32 = 64;

/// Slots that one list looks at before it says where to go on, however few of them it meant.
const LOOKS_PER_LIST: usize = 65_536;

/// An inquiry that is being answered.
pub(super) struct Answering {
    inquiry: Arc<Inquiry>,
    /// The slot to go on from.
    from: u32,
    looks: usize,
    part: Part,
}

impl Answering {
    pub(super) fn new(inquiry: Arc<Inquiry>) -> Self {
        let from = match inquiry.question {
            Question::List { from, .. } => from,
            _ => 0,
        };
        Self { inquiry, from, looks: 0, part: Part::default() }
    }
}

impl<S: Socket> Core<S> {
    /// Goes on with one inquiry.
    pub fn inquiry_turn(&mut self) {
        let Some(mut answering) = self.inquiries.pop_front() else { return };
        if !self.look_on(&mut answering) {
            return self.inquiries.push_back(answering);
        }
        let inquiry = &answering.inquiry;
        if inquiry.answer(self.index, std::mem::take(&mut answering.part)) {
            let Asker { loop_index, key, ticket } = inquiry.from;
            let reply = Reply { key, ticket, answer: Answered::Inquiry(Arc::clone(inquiry)) };
            // Its room was taken when the question was asked.
            self.edition.router.send_reply(loop_index, reply, Some(self.index));
        }
    }

    /// Gives every inquiry one more turn, which is all it needs when nobody is connected: the loop ends.
    pub fn answer_last(&mut self) {
        for _ in 0..self.inquiries.len() {
            self.inquiry_turn();
        }
    }

    /// Looks at the next slots. `true`: the part is complete.
    fn look_on(&mut self, answering: &mut Answering) -> bool {
        let inquiry = Arc::clone(&answering.inquiry);
        let filter = inquiry.question.filter();
        if let Some(key) = filter.key {
            self.look_at(key, &inquiry.question, &mut answering.part);
            return true;
        }
        let mut keys = Vec::with_capacity(KEYS_PER_TURN);
        let next = self.slots.keys_from(answering.from, KEYS_PER_TURN, &mut keys);
        let limit = match inquiry.question {
            Question::List { limit, .. } => limit,
            _ => usize::MAX,
        };
        let mut cost = 0;
        for key in keys {
            if answering.part.rows.len() >= limit {
                answering.part.next = Some(key.slot);
                return true;
            }
            if cost >= COST_PER_TURN {
                answering.from = key.slot;
                return false;
            }
            cost += self.look_at(key, &inquiry.question, &mut answering.part);
            answering.looks += 1;
        }
        let Some(next) = next else { return true };
        answering.from = next;
        let enough = limit != usize::MAX && answering.looks >= LOOKS_PER_LIST;
        answering.part.next = enough.then_some(next);
        enough
    }

    /// Does what is asked to one connection if it is meant, and says what that cost.
    fn look_at(&mut self, key: Key, question: &Question, part: &mut Part) -> u32 {
        let filter = question.filter();
        let Some(slot) = self.slots.get(key) else { return COST_LOOK };
        if filter.outbox_bytes_min.is_some_and(|min| unsent(&slot.connection) < min) {
            return COST_LOOK;
        }
        if let Some(bearer) = &filter.bearer {
            let Some(who) = self.bearers.identity(key.slot) else { return COST_LOOK };
            let is =
                |wanted: &Option<Box<str>>, name: Option<&str>| wanted.is_none() || wanted.as_deref() == name;
            let named = is(&bearer.identity, Some(who.sub())) && is(&bearer.issuer, who.issuer());
            if !named || !is(&bearer.token, who.jti()) {
                return COST_LOOK;
            }
        }
        if let Some(name) = &filter.topic {
            let topics = &self.topics;
            // Who is taken from a topic hears no more of who is there either.
            let events = matches!(question, Question::Unsubscribe { .. });
            let is = |of: &str| of == &**name || (events && TopicName::presence_of(of) == Some(&**name));
            let named = |local: u32| topics.topic(local).is_some_and(|topic| is(topic.name()));
            let meant =
                |watch: &Watch| topics.pattern(*watch).is_some_and(|pattern| pattern.as_str() == &**name);
            if !subscriptions(&slot.connection).any(named) && !patterns(&slot.connection).any(meant) {
                return COST_LOOK;
            }
        }
        let mut cost = COST_LOOK;
        if let Some(network) = filter.network {
            cost += COST_PEER;
            if !slot.stream.peer().is_some_and(|peer| network.contains(peer.ip())) {
                return cost;
            }
        }
        match question {
            Question::List { .. } => {
                part.rows.extend(self.row(key));
                cost + COST_PEER
            }
            Question::Close { code, reason, .. } => {
                part.done += u64::from(self.close_on_request(key, *code, reason));
                cost + COST_CLOSE
            }
            Question::Unsubscribe { topic, .. } => {
                let left = self.leave_topic(key, topic);
                let events = self.leave_topic(key, TopicName::of_presence(topic).as_str());
                if left.is_none() && events.is_none() {
                    return cost + COST_LOOK;
                }
                part.done += 1;
                let missing = left.and_then(|left| left.missing);
                let gap = missing.as_ref().map(|(topic, gap)| Outcome::Gap { topic, gap: *gap });
                self.tell_unasked(key, gap.into_iter().chain([Outcome::Left { topic }]));
                cost + COST_CLOSE
            }
        }
    }

    fn row(&mut self, key: Key) -> Option<ConnectionRow> {
        let (from, to) = self.accepts.accepted(key.generation, self.generation, self.now);
        let now = self.now;
        let slot = self.slots.get(key)?;
        let connection = &slot.connection;
        let topics = &self.topics;
        let ms = |tick: Tick| u64::from(tick) * TICK_MS;
        let memory = connection.memory();
        let beside = self.places.get(&key.slot).map_or(0, Places::memory)
            + self.bearers.memory(key.slot)
            + self.addresses.memory(key.slot);
        Some(ConnectionRow {
            key,
            peer: slot.stream.peer(),
            subject: slot.stream.subject(&self.transport),
            identity: self.bearers.identity(key.slot).map(|who| who.sub().into()),
            issuer: self.bearers.identity(key.slot).and_then(|who| who.issuer()).map(Into::into),
            claims: self
                .bearers
                .identity(key.slot)
                .and_then(|who| who.carried())
                .map(|claims| claims.get().into()),
            phase: connection.phase().label(),
            dialect: connection.dialect.label(),
            topics: subscriptions(connection).filter_map(|local| topics.topic(local).cloned()).collect(),
            patterns: patterns(connection).filter_map(|watch| topics.pattern(*watch).cloned()).collect(),
            accepted_from_ms: ms(from),
            accepted_to_ms: ms(to),
            // Up to one heartbeat after the upgrade it lies ahead, so that heartbeats are spread.
            heard_ms: ms(connection.heard.min(now)),
            outbox_bytes: unsent(connection),
            drops: connection.outbox.as_deref().map_or(0, |outbox| outbox.drops()),
            memory: MemoryParts { session: memory.session + beside, ..memory },
        })
    }

    /// Closes a connection that is not on its way out already.
    fn close_on_request(&mut self, key: Key, code: u16, text: &str) -> bool {
        let Some(slot) = self.slots.get(key) else { return false };
        match slot.connection.phase() {
            Phase::Open => self.close(key, CloseReason::Admin, Words::Given(code, text)),
            Phase::Head | Phase::Body => self.end(key, CloseReason::Admin, Words::Nothing),
            // A poll is told that nothing has come; the next one shows its token.
            Phase::Parked => return self.answer_poll(key),
            Phase::Closing | Phase::Lingering => return false,
        }
        true
    }
}

/// Bytes that wait for the peer to read.
fn unsent(connection: &Connection) -> usize {
    connection.outbox.as_deref().map_or(0, |outbox| outbox.bytes())
}

/// The loop's indices of a connection's topics, the first one first.
pub(super) fn subscriptions(connection: &Connection) -> impl Iterator<Item = u32> + '_ {
    let more = connection.session.as_deref().map(Session::more_topics).unwrap_or_default();
    let first = (connection.topic != NONE).then_some(connection.topic);
    first.into_iter().chain(more.iter().map(|more| more.topic))
}

/// A connection's subscriptions by pattern, the parts of each behind it.
pub(super) fn watches(connection: &Connection) -> &[Watch] {
    match connection.session.as_deref() {
        Some(Session::Open(open)) => &open.watches,
        _ => &[],
    }
}

/// Those that it has asked for.
pub(super) fn patterns(connection: &Connection) -> impl Iterator<Item = &Watch> {
    watches(connection).iter().filter(|watch| !watch.reach().is_part)
}

/// How many topics and patterns a connection is subscribed to.
pub(super) fn subscription_count(connection: &Connection) -> usize {
    subscriptions(connection).count() + patterns(connection).count()
}
