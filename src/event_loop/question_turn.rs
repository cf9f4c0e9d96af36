//! Handshakes that the application is asked about: parked while it is, and read once more when it has answered.
//!
//! Driven by the request turn, by what comes in the mail, by the deadline of who waits and by the end of a connection. Who
//! waits costs a slot and a small box with the head of the request; the bound and the deadline are their own. The end of
//! a peer's stream frees it at once, and nobody is called for it any more.

use std::collections::VecDeque;
use std::sync::Arc;

use super::core::Core;
use crate::auth::token::Told;
use crate::config::BackendDown;
use crate::connection::TICK_MS;
use crate::connection::session::{Handshake, Parked};
use crate::dialect::{Carrier, Opening};
use crate::edition::Edition;
use crate::http::{self, Asker as Peer};
use crate::metrics::RefuseReason;
use crate::service::{self, Asked, Asker, Verdict};
use crate::topic::{Access, Key, Since, TopicName};
use crate::transport::Socket;
use crate::wire::http::head::Head;

/// Answers that one turn acts on: each is as much work as a request.
const ANSWERS_PER_TURN: usize = 64;

/// Answers whose room is kept when there is nothing to do.
const KEPT: usize = 64;

/// What one loop has asked.
#[derive(Debug, Default)]
pub(super) struct Questions {
    /// Answers that are owed: one for each that was asked and not forgotten.
    owed: usize,
    /// The next one's.
    ticket: u32,
    /// Answers that have come.
    answered: VecDeque<(Key, u32, Arc<Verdict>)>,
    /// Of the handshake that is read once more now.
    in_hand: Option<(Key, Arc<Verdict>)>,
}

impl Questions {
    /// Whether an answer waits to be acted on.
    pub(super) fn has_work(&self) -> bool {
        !self.answered.is_empty()
    }

    /// The answer about the handshake in hand.
    fn take(&mut self, key: Key) -> Option<Arc<Verdict>> {
        self.in_hand.take_if(|(of, _)| *of == key).map(|(_, verdict)| verdict)
    }

    /// The first head of what is read once more is done with, also if nobody had to be asked about it any more: what the
    /// next one shows is its own.
    pub(super) fn put_down(&mut self) {
        self.in_hand = None;
    }

    /// A handshake does not wait any more, for whatever reason but its answer.
    pub(super) fn forget(&mut self, edition: &Edition, loop_index: usize, key: Key, handshake: &Handshake) {
        let asker = Asker { loop_index, key, ticket: handshake.ticket };
        let forgotten = edition.backend().is_some_and(|backend| backend.forget(&handshake.digest, &asker));
        self.owed -= usize::from(forgotten);
    }
}

/// What is known of who asks.
pub(super) enum Word {
    /// The application has said it.
    Said(Arc<Verdict>),
    /// It is asked, and the handshake waits; or it was refused.
    Later,
}

impl<S: Socket> Core<S> {
    /// Asks the application about a handshake, `whole` being its head as it came, unless it is the one that was asked
    /// about.
    pub(super) fn ask_backend(&mut self, key: Key, head: &Head<'_>, whole: &[u8], opening: &Opening) -> Word {
        if let Some(verdict) = self.questions.take(key) {
            return Word::Said(verdict);
        }
        let edition = Arc::clone(&self.edition);
        let Some(backend) = edition.backend() else { return Word::Said(Arc::new(Verdict::Down)) };
        let auth = &edition.settings.auth;
        if self.questions.owed >= auth.backend_waiting_max {
            self.refuse_for_now(key, RefuseReason::BackendBusy, &Peer::of(head));
            return Word::Later;
        }
        let asked = service::Handshake {
            path: head.path(),
            dialect: opening.dialect.label(),
            topics: opening
                .topics
                .iter()
                .map(|(name, _)| name.as_str())
                .filter(|name| TopicName::presence_of(name).is_none())
                .collect(),
            patterns: opening.patterns.iter().map(|pattern| pattern.as_str()).collect(),
            address: self.address_of(key, head),
        };
        let names = auth.backend_headers.iter();
        let with_cookies = http::sends_own_cookies(head, &edition.origin);
        let names = names.filter(|name| with_cookies || !name.eq_ignore_ascii_case("cookie"));
        let fields = names.flat_map(|name| head.fields(name).map(move |value| (name.as_str(), value)));
        let question = asked.question(fields);
        self.questions.ticket = self.questions.ticket.wrapping_add(1);
        let ticket = self.questions.ticket;
        let (digest, asked) = backend.ask(question, Asker { loop_index: self.index, key, ticket });
        match asked {
            Asked::Answered(verdict) => Word::Said(verdict),
            Asked::Full => {
                self.refuse_for_now(key, RefuseReason::BackendBusy, &Peer::of(head));
                Word::Later
            }
            Asked::Waits => {
                self.questions.owed += 1;
                let ticks = (auth.backend_wait.as_millis() as u64 / TICK_MS) as u32;
                self.park_handshake(key, ticks, Handshake { head: whole.to_vec(), digest, ticket });
                Word::Later
            }
        }
    }

    fn park_handshake(&mut self, key: Key, ticks: u32, handshake: Handshake) {
        let Some(slot) = self.slots.get(key) else { return };
        let due = self.now.saturating_add(ticks);
        let mut parked = Parked::new(due, false, false);
        parked.handshake = Some(Box::new(handshake));
        slot.connection.park(parked, self.now);
        let own = slot.connection.held_bytes();
        self.held.moved(self.edition.inbox_bytes_of(self.port), 0, own);
        self.rearm(key.slot);
        if self.is_inbox_full(own) {
            let reason = RefuseReason::InboxFull;
            self.refuse(key, reason, reason.text());
        }
    }

    /// The application has answered; it is acted on in a turn of its own.
    pub(super) fn on_verdict(&mut self, key: Key, ticket: u32, verdict: Arc<Verdict>) {
        self.questions.owed -= 1;
        self.questions.answered.push_back((key, ticket, verdict));
    }

    /// Lets some of those go on who have their answer, as far as there is room for what they join.
    pub fn question_turn(&mut self) {
        for _ in 0..ANSWERS_PER_TURN {
            if !self.topics.has_room_for_joins() {
                return;
            }
            let Some((key, ticket, verdict)) = self.questions.answered.pop_front() else { break };
            self.go_on(key, ticket, verdict);
        }
        if self.questions.answered.is_empty() {
            self.questions.answered.shrink_to(KEPT);
        }
    }

    /// Reads a handshake once more, now that there is an answer.
    fn go_on(&mut self, key: Key, ticket: u32, verdict: Arc<Verdict>) {
        let Some(slot) = self.slots.get(key) else { return };
        let connection = &mut slot.connection;
        let before = connection.held_bytes();
        let is_meant = |handshake: &mut Box<Handshake>| handshake.ticket == ticket;
        let waits = connection.parked().and_then(|parked| parked.handshake.take_if(is_meant));
        let Some(handshake) = waits else { return };
        connection.unpark();
        let after = connection.held_bytes();
        self.held.moved(self.edition.inbox_bytes_of(self.port), before, after);
        let mut bytes = handshake.head;
        // What came behind it.
        bytes.extend(self.take_head(key).unwrap_or_default());
        self.questions.in_hand = Some((key, verdict));
        // There is room for its joins, and it has waited for its own answer meanwhile.
        let let_in = self.let_in.replace(key);
        self.on_requests(key, &mut bytes);
        self.let_in = let_in;
        self.questions.in_hand = None;
        if self.slots.get(key).is_some() {
            // What was left in the kernel meanwhile.
            self.list_ready(key);
            self.rearm(key.slot);
        }
    }

    /// A handshake's deadline. `false`: it is no handshake that waits.
    pub(super) fn on_question_due(&mut self, key: Key) -> bool {
        let waits = self.parked(key).and_then(|parked| parked.handshake.as_deref());
        let Some(head) = waits.map(|handshake| handshake.head.clone()) else { return false };
        self.refuse_for_now(key, RefuseReason::BackendDown, &Peer::of_bytes(&head));
        true
    }

    /// Adds to an opening what the application has said: topics, as far as clients may have them at all, and its data.
    pub(super) fn add_told(&self, opening: &mut Opening, told: Told) {
        if opening.dialect.carrier() != Carrier::Frames {
            // What travels in a body is of the topics of its URL, and has no place for anything else.
            return;
        }
        let most = self.edition.settings.limits.subscriptions_max;
        for topic in told.topics {
            let room = opening.topics.len() + opening.patterns.len() < most;
            let new = !opening.topics.iter().any(|(name, _)| *name == topic);
            if room && new && self.topics.rules().subscribers_of(topic.as_str()) != Access::Nobody {
                opening.topics.push((topic, Since::Now));
            }
        }
        opening.welcome = told.data;
    }

    /// What an answer comes to: who they are, or why they may not come in. Nobody in particular may, where the application
    /// can't be asked and it is configured so.
    pub(super) fn read_verdict<'v>(
        &self,
        verdict: &'v Verdict,
        now: u64,
    ) -> Result<Option<&'v Told>, RefuseReason> {
        match verdict {
            // It has waited meanwhile.
            Verdict::Allow(told) if told.claims.expires <= now => Err(RefuseReason::BackendUnidentified),
            // It was asked before that, or its answer is one that was kept.
            Verdict::Allow(told) if self.edition.revocations.has(&told.claims, now) => {
                Err(RefuseReason::TokenRevoked)
            }
            Verdict::Allow(told) => Ok(Some(told)),
            Verdict::Deny => Err(RefuseReason::BackendDenied),
            Verdict::Unidentified => Err(RefuseReason::BackendUnidentified),
            Verdict::Down if self.edition.settings.auth.backend_down == BackendDown::Allow => Ok(None),
            Verdict::Down | Verdict::Useless => Err(RefuseReason::BackendDown),
        }
    }
}
