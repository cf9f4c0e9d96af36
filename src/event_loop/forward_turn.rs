//! Messages that go to the application instead of into their topic: given to the service, and told about when it has
//! answered.
//!
//! Driven by the effects of a connection and by what comes in the mail. A connection counts what is unanswered of its
//! messages; the one that is too many waits as a publish without room does, and nothing more is read behind it. Who is gone
//! is told nothing; what they sent goes on all the same.

use std::collections::VecDeque;

use super::closing::Words;
use super::core::Core;
use super::effects::{Sink, Speaker, Then};
use super::frames_turn::remember;
use super::write_turn::Asked;
use crate::connection::session::{Blocked, Session, Waiting};
use crate::dialect::{Denial, Effects, Outcome, Reply, Tag, is_document};
use crate::metrics::CloseReason;
use crate::service::forward::{Fate, Message, Payload, Sender, Told};
use crate::topic::{Key, TopicName};
use crate::transport::Socket;

/// Messages whose fate one turn tells, of those who come first at least: each is as much work as a small message.
const TOLD_PER_TURN: usize = 256;

/// Entries whose room is kept when there is nothing to do.
const KEPT: usize = 64;

/// What the application has said of messages of this loop's connections, and is to be told.
#[derive(Debug, Default)]
pub(super) struct Forwarded(VecDeque<(Key, Vec<Told>)>);

impl Forwarded {
    /// Whether somebody is to be told something.
    pub(super) fn has_work(&self) -> bool {
        !self.0.is_empty()
    }

    /// The application has answered; it is told in a turn of its own.
    pub(super) fn push(&mut self, key: Key, told: Vec<Told>) {
        self.0.push_back((key, told));
    }
}

impl<S: Socket> Core<S> {
    /// Gives a message that may be published, and is what its topic takes, to the application at this place of the rules.
    #[cold]
    pub(super) fn forward(
        &mut self,
        from: Speaker,
        name: &str,
        place: u32,
        binary: bool,
        payload: &[u8],
        sink: &mut Sink<'_>,
    ) -> Then {
        let most = self.edition.settings.forward.connection_messages_max;
        let Some(slot) = self.slots.get(from.key) else { return Then::Go };
        let admission = slot.connection.admission;
        let unanswered = match slot.connection.session.as_deref() {
            Some(Session::Open(open)) => usize::from(open.unanswered),
            _ => 0,
        };
        if unanswered >= most {
            return self.wait_for_answers(from.key, name, binary, payload, sink);
        }
        let message = Message {
            sender: Sender { loop_index: self.index, key: from.key },
            topic: name.into(),
            binary,
            document: !binary && std::str::from_utf8(payload).is_ok_and(is_document),
            payload: payload.into(),
            identity: self.bearers.identity(from.key.slot).cloned(),
            admission,
            address: self.kept_address(from.key),
            dialect: from.dialect.label(),
            request: sink.tag.words().map(Into::into),
            number: 0,
            time_ms: self.wall.ms(),
            taken_ms: 0,
        };
        let url = self.topics.rules().url(place);
        let taken = url.zip(self.edition.forward()).is_some_and(|(url, forward)| forward.send(url, message));
        if !taken {
            self.tell(from, Outcome::Refused { topic: name, denial: Denial::ForwardFull }, sink);
            return Then::Go;
        }
        if let Some(slot) = self.slots.get(from.key) {
            remember(&mut slot.connection.session, |open| {
                open.unanswered = open.unanswered.saturating_add(1)
            });
        }
        Then::Go
    }

    fn wait_for_answers(
        &mut self,
        key: Key,
        name: &str,
        binary: bool,
        payload: &[u8],
        sink: &mut Sink<'_>,
    ) -> Then {
        // It has been one all the time.
        let Ok(topic) = TopicName::parse(name.to_owned()) else { return Then::Go };
        let what = Waiting::Answers { topic, binary, payload: payload.into() };
        let blocked = Blocked { what, tag: std::mem::take(&mut sink.tag), rest: Vec::new() };
        self.counters.forwards_blocked.add(1);
        self.keep_blocked(key, blocked);
        Then::Wait
    }

    /// Tells some of those who have sent something what the application says.
    pub fn forward_turn(&mut self) {
        let mut told = 0;
        while told < TOLD_PER_TURN {
            let Some((key, answers)) = self.forwarded.0.pop_front() else { break };
            told += answers.len();
            self.on_forwarded(key, answers);
        }
        if self.forwarded.0.is_empty() {
            self.forwarded.0.shrink_to(KEPT);
        }
    }

    fn on_forwarded(&mut self, key: Key, answers: Vec<Told>) {
        let Some(from) = self.speaker(key) else { return };
        let Some(slot) = self.slots.get(key) else { return };
        if !slot.connection.is_open() {
            return;
        }
        if let Some(Session::Open(open)) = slot.connection.session.as_deref_mut() {
            let count = u16::try_from(answers.len()).unwrap_or(u16::MAX);
            open.unanswered = open.unanswered.saturating_sub(count);
            if open.is_empty() {
                slot.connection.session = None;
            }
        }
        let waits = slot.connection.is_blocked();
        let (mut out, mut effects) = (Vec::new(), Effects::default());
        let mut end = None;
        let mut close = None;
        for Told { topic, request, fate, close: closes } in answers {
            let tag = request.as_deref().map_or_else(Tag::default, Tag::of);
            let mut sink = Sink { out: &mut out, effects: &mut effects, tag };
            self.tell(from, outcome_of(&topic, &fate), &mut sink);
            if let Then::End(reason) = self.execute(from, &[], &mut sink) {
                end = Some(reason);
                break;
            }
            if closes.is_some() {
                close = closes;
                break;
            }
        }
        self.send_own(key, &out, Asked::Yes);
        if let Some(reason) = end {
            return self.end(key, reason, Words::Own);
        }
        if let Some((code, text)) = close {
            return self.close(key, CloseReason::Application, Words::Given(code, &text));
        }
        if waits {
            // What it has sent behind is read on.
            self.list_ready(key);
        }
    }
}

fn outcome_of<'a>(topic: &'a str, fate: &'a Fate) -> Outcome<'a> {
    match fate {
        Fate::Taken(reply) => {
            let reply = reply.as_ref().map(|reply| match reply {
                Payload::Json(json) => Reply::Json(json),
                Payload::Text(text) => Reply::Text(text),
                Payload::Binary(bytes) => Reply::Binary(bytes),
            });
            Outcome::Forwarded { topic, reply }
        }
        Fate::Refused { code, text } => Outcome::Rejected { topic, code, text },
        Fate::Failed => Outcome::Refused { topic, denial: Denial::ForwardFailed },
    }
}
