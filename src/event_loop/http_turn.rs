//! Requests: heads and bodies as they arrive, one at a time, answered by an endpoint.
//!
//! Driven by the read turn. What is partial is kept in the session; heads that arrive whole are parsed where
//! they were read.

use std::sync::Arc;
use std::time::Duration;

use super::closing::Words;
use super::core::Core;
use super::frames_turn::remember;
use super::question_turn::Word;
use super::subscribe::Subscribed;
use super::write_turn::Asked;
use crate::config::{LimitsSection, Settings};
use crate::connection::session::{BodyFraming, BodyState, Session};
use crate::connection::{Flags, Phase};
use crate::dialect::{Carrier, Opening, Outcome, Start, Tools};
use crate::edition::Port;
use crate::http::{self, Answer, Asker, Unauthorized};
use crate::metrics::{CloseReason, RefuseReason};
use crate::topic::Key;
use crate::transport::Socket;
use crate::wire::deflate::WINDOW_BITS_MAX;
use crate::wire::http::chunked::ChunkedDecoder;
use crate::wire::http::head::{Body, FIELDS_MAX, Head, HeadError, HeadLimits, field_store, parse_head};
use crate::wire::http::response::ResponseBuffer;

/// Heads answered in one turn: of the shortest, a read has room for thousands, each with a page for an answer.
const HEADS_PER_TURN: usize = 64;

/// What the check of a signature with a public key is worth, in bytes: so many that the clock is looked at behind each.
const SIGNATURE_BYTES: u64 = 64 * 1024;

/// How many times as long as others those wait for whom there was no room.
const LATER: u32 = 4;

/// What became of one head.
pub(super) enum Next {
    /// Answered; the next request may follow.
    Go,
    /// The connection is ending or gone, or something else takes the bytes.
    Leave,
}

impl Next {
    /// How many bytes were taken, if the next request may follow.
    fn taken(self, bytes: usize) -> Option<usize> {
        match self {
            Self::Go => Some(bytes),
            Self::Leave => None,
        }
    }
}

/// What a ClientHello begins with (RFC 8446, 5.1), and no request does.
const CLIENT_HELLO: u8 = 22;

impl<S: Socket> Core<S> {
    /// Takes request bytes in the phases `Head` and `Body`.
    pub(super) fn on_request_bytes(&mut self, key: Key, bytes: &mut [u8]) {
        if self.answer_if_refused(key, bytes) {
            return;
        }
        let Some(slot) = self.slots.get(key) else { return };
        if slot.connection.flags.has(Flags::PROXY_DUE) {
            return self.on_proxy_bytes(key, bytes);
        }
        if bytes.first() == Some(&CLIENT_HELLO) && slot.connection.session.is_none() {
            return self.on_client_hello(key);
        }
        if self.try_hold_more(key, bytes) {
            return;
        }
        match self.take_head(key) {
            Some(mut held) => {
                held.extend_from_slice(bytes);
                self.on_requests(key, &mut held);
            }
            None => self.on_requests(key, bytes),
        }
    }

    /// Heads and bodies in turns, and never one inside the other: how many a peer sends at once must not be
    /// how deep the stack gets.
    pub(super) fn on_requests(&mut self, key: Key, mut bytes: &mut [u8]) {
        let mut heads = 0;
        while !bytes.is_empty() {
            let joins_later = self.joins_later(key);
            let Some(slot) = self.slots.get(key) else { return };
            let taken = match slot.connection.phase() {
                Phase::Body => self.on_body(key, bytes),
                Phase::Head if slot.connection.flags.has(Flags::PAUSED) => return self.put_off(key, bytes),
                Phase::Head if joins_later => {
                    if slot.connection.flags.clear(Flags::KEPT_ALIVE) {
                        // As of one that is there in part: its time is its own, however idle the connection was.
                        slot.connection.heard = self.now;
                    }
                    self.put_off(key, bytes);
                    return self.wait_for_joins(key);
                }
                Phase::Head if heads == HEADS_PER_TURN => {
                    self.put_off(key, bytes);
                    return self.list_ready(key);
                }
                Phase::Head => {
                    heads += 1;
                    self.on_next_head(key, bytes)
                }
                // None of these comes back to a request.
                Phase::Open | Phase::Closing | Phase::Lingering | Phase::Parked => {
                    return self.on_bytes(key, bytes);
                }
            };
            let Some(taken) = taken else { return };
            if self.signed_bytes > 0 {
                // Whoever sends many requests with a token each has one signature checked in a turn.
                heads = HEADS_PER_TURN;
            }
            bytes = bytes.get_mut(taken..).unwrap_or_default();
        }
    }

    /// Keeps requests for another turn; whoever calls sees to it that there is one.
    fn put_off(&mut self, key: Key, bytes: &[u8]) {
        self.hold(key, Session::Head(bytes.to_vec()));
        if let Some(slot) = self.slots.get(key) {
            slot.connection.flags.set(Flags::READ_OWED);
        }
    }

    /// Takes one head and what it asks for. How many bytes that was; `None` when the rest is not for requests.
    fn on_next_head(&mut self, key: Key, bytes: &[u8]) -> Option<usize> {
        let LimitsSection { head_bytes_max, head_fields_max, .. } = self.edition.settings.limits;
        let limits = HeadLimits { bytes_max: head_bytes_max, fields_max: head_fields_max };
        let mut store = field_store();
        match parse_head(bytes, &mut store, &limits) {
            Ok(None) => {
                self.hold_head(key, bytes);
                None
            }
            Err(error) => {
                self.refuse_head(key, &error, bytes);
                None
            }
            Ok(Some((head, consumed))) => {
                self.end_handshake(key);
                let (whole, behind) = bytes.split_at_checked(consumed)?;
                self.on_head(key, &head, whole, behind).map(|taken| consumed + taken)
            }
        }
    }

    fn hold_head(&mut self, key: Key, bytes: &[u8]) {
        let now = self.now;
        if !self.begin_handshake(key) {
            return self.refuse_for_now(key, RefuseReason::Handshakes, &Asker::of_bytes(bytes));
        }
        let Some(slot) = self.slots.get(key) else { return };
        if slot.connection.flags.clear(Flags::KEPT_ALIVE) {
            // The first bytes of a further request start its time, however idle the connection was.
            slot.connection.heard = now;
        }
        self.hold(key, Session::Head(bytes.to_vec()));
    }

    /// Takes a head, and of the bytes `behind` it the body if all of it is there already. How many of those that was;
    /// `None` as [`Self::on_next_head`].
    fn on_head(&mut self, key: Key, head: &Head<'_>, whole: &[u8], behind: &[u8]) -> Option<usize> {
        let kept = self.slots.get(key).is_some_and(|slot| slot.connection.flags.has(Flags::KEPT_ALIVE));
        if kept && self.draining.is_some() && self.port == Port::Client {
            self.refuse_for_now(key, RefuseReason::Draining, &Asker::of(head));
            return None;
        }
        if self.port == Port::Client {
            // No path there takes a body: it is answered as it is without one, and what follows is not read as a
            // request (RFC 9112, 9.3).
            let bodiless = matches!(head.body, Body::None | Body::Length(0));
            let next = match bodiless {
                true => self.on_request(key, head, whole, Vec::new()),
                false => self.on_request(key, &head.as_last(), whole, Vec::new()),
            };
            return next.taken(0);
        }
        let body_max = match http::admin::body_max(head, &self.edition) {
            Ok(max) => max,
            Err(reason) => {
                self.refuse(key, reason, reason.text());
                return None;
            }
        };
        self.note_operator(key, head);
        let framing = match head.body {
            Body::None | Body::Length(0) => return self.on_request(key, head, whole, Vec::new()).taken(0),
            Body::Length(length) if length > body_max as u64 => {
                self.refuse(key, RefuseReason::TooLarge, RefuseReason::TooLarge.text());
                return None;
            }
            Body::Length(length) if length <= behind.len() as u64 => {
                let (body, _) = behind.split_at_checked(length as usize)?;
                return self.on_request(key, head, whole, body.to_vec()).taken(body.len());
            }
            Body::Length(length) => BodyFraming::Remaining(length),
            Body::Chunked => BodyFraming::Chunked { decoder: ChunkedDecoder::default(), done: false },
        };
        if head.expect_continue {
            self.send_own(key, b"HTTP/1.1 100 Continue\r\n\r\n", Asked::Yes);
        }
        let now = self.now;
        let slot = self.slots.get(key)?;
        slot.connection.await_body(now);
        let state = BodyState { head: whole.to_vec(), body: Vec::new(), body_max, framing };
        self.hold(key, Session::Body(Box::new(state)));
        Some(0)
    }

    /// Takes what belongs to the body, and answers the request once it is whole. As [`Self::on_next_head`].
    fn on_body(&mut self, key: Key, bytes: &[u8]) -> Option<usize> {
        let now = self.now;
        let mut state = self.take_body(key)?;
        // Out of the session it is nobody's; it counts again when it goes back.
        self.body_bytes -= state.body.len();
        let taken = match state.take(bytes) {
            Ok(taken) => taken,
            Err(reason) => {
                self.refuse(key, reason, reason.text());
                return None;
            }
        };
        let all_bodies = self.body_bytes + state.body.len();
        let slot = self.slots.get(key)?;
        slot.connection.heard = now;
        if !state.is_complete() {
            if all_bodies > self.edition.totals.admin_bodies.max(state.body.len()) {
                let reason = RefuseReason::BodiesFull;
                self.refuse(key, reason, reason.text());
                return None;
            }
            self.body_bytes = all_bodies;
            self.hold(key, Session::Body(state));
            return Some(taken);
        }
        slot.connection.end_body();
        // It was parsed before, perhaps under a limit that a reload has lowered since.
        let limits = HeadLimits { bytes_max: state.head.len(), fields_max: FIELDS_MAX };
        let mut store = field_store();
        let next = match parse_head(&state.head, &mut store, &limits) {
            Ok(Some((head, _))) => self.on_request(key, &head, &[], std::mem::take(&mut state.body)),
            _ => {
                let reason = RefuseReason::BadRequest;
                self.refuse(key, reason, reason.text());
                Next::Leave
            }
        };
        next.taken(taken)
    }

    /// Answers one request, `whole` being its head as it came.
    fn on_request(&mut self, key: Key, head: &Head<'_>, whole: &[u8], body: Vec<u8>) -> Next {
        let mut out = ResponseBuffer::new(std::mem::take(&mut self.out), self.date());
        out.clear();
        let mut tools = Tools { deflater: &mut self.deflater, counters: &self.counters, wall: &self.wall };
        let answer = match self.admin.as_deref_mut() {
            Some(admin) => {
                http::respond_admin(head, body, &self.edition, &mut admin.replies, &mut tools, &mut out)
            }
            None => {
                // A system call, so it is asked for by those answers only that depend on it.
                let peer = || Some(self.slots.get(key)?.stream.peer()?.ip());
                http::respond(head, &self.edition, peer, &mut out)
            }
        };
        let next = match answer {
            Answer::Done { keep_alive, refused } => {
                if let Some(reason) = refused {
                    self.counters.refused(reason);
                    // The path without its query, which may carry a token.
                    let (method, path) = (head.method, head.path());
                    tracing::debug!(slot = key.slot, method, path, reason = reason.label(), "refused");
                }
                self.send_own(key, &out, Asked::Yes);
                self.after_answer(key, keep_alive)
            }
            Answer::Open(opening) => {
                // Without the query, as above.
                tracing::debug!(
                    slot = key.slot,
                    generation = key.generation,
                    path = head.path(),
                    "upgrading"
                );
                self.open_if_allowed(key, head, whole, opening, &mut out)
            }
            Answer::Ask(ask) => self.ask(key, head, ask),
            Answer::Batch(batch) => self.start_batch(key, head, batch),
            Answer::Reload => self.ask_reload(key, head),
            Answer::Drain { keep_alive } => {
                self.drain_asked = true;
                self.send_own(key, &out, Asked::Yes);
                self.after_answer(key, keep_alive)
            }
        };
        out.clear();
        if out.capacity() > super::core::SCRATCH_BYTES {
            out.shrink_to(super::core::SCRATCH_BYTES);
        }
        self.out = out.into_bytes();
        self.questions.put_down();
        next
    }

    /// Opens what was asked for, if the address and the token of who asks are good for that, or what the application says
    /// of them.
    fn open_if_allowed(
        &mut self,
        key: Key,
        head: &Head<'_>,
        whole: &[u8],
        mut opening: Opening,
        out: &mut Vec<u8>,
    ) -> Next {
        if let Err(reason) = self.admit_forwarded(key, head) {
            self.refuse_for_now(key, reason, &Asker::of(head));
            return Next::Leave;
        }
        let now = self.wall.ms() / 1_000;
        self.signatures.set_room(self.edition.settings.auth.signatures_known_max);
        let mut claims = http::claims_of(head, &self.edition, now, &mut self.signatures);
        self.signed_bytes += self.count_signatures() * SIGNATURE_BYTES;
        let mut told = None;
        if matches!(claims, Ok(None)) && self.edition.backend().is_some() {
            let Word::Said(verdict) = self.ask_backend(key, head, whole, &opening) else { return Next::Go };
            match self.read_verdict(&verdict, now) {
                Ok(said) => told = said.cloned(),
                Err(reason) => {
                    self.refuse_for_now(key, reason, &Asker::of(head));
                    return Next::Leave;
                }
            }
            claims = Ok(told.as_ref().map(|told| told.claims.clone()));
        }
        let allowed = claims.and_then(|claims| {
            if let Some(claims) = claims {
                // A poll comes again and again, and would be the newest each time.
                let stays = opening.dialect.carrier() != Carrier::Answer && head.method != "HEAD";
                self.note_bearer(key, claims, stays).map_err(Unauthorized::new)?;
            }
            let who = self.bearers.identity(key.slot).map(Arc::as_ref);
            http::may_open(&opening, self.topics.rules(), who).map_err(Unauthorized::from)
        });
        match allowed {
            Ok(()) if self.lacks_presence(&opening) => {
                let reason = RefuseReason::NotFound;
                self.refuse_asker(key, reason, "the rule of a topic has no presence", &Asker::of(head));
                Next::Leave
            }
            Ok(()) if opening.dialect.carrier() == Carrier::Answer => {
                self.start_poll(key, head, &opening, out)
            }
            Ok(()) if head.method == "HEAD" => {
                http::end_head(&opening, &self.edition, out);
                self.send_own(key, out, Asked::Yes);
                self.after_answer(key, false)
            }
            Ok(()) => {
                if let Some(told) = told {
                    self.add_told(&mut opening, told);
                }
                self.open(key, head, &opening, out)
            }
            Err(Unauthorized {
                reason: reason @ (RefuseReason::TokenKeyAwaited | RefuseReason::TooManyOfIdentity),
                ..
            }) => {
                self.refuse_for_now(key, reason, &Asker::of(head));
                Next::Leave
            }
            Err(Unauthorized { reason, text }) => {
                self.refuse_asker(key, reason, &text, &Asker::of(head));
                Next::Leave
            }
        }
    }

    pub(super) fn after_answer(&mut self, key: Key, keep_alive: bool) -> Next {
        let now = self.now;
        let draining = self.draining.is_some();
        let Some(slot) = self.slots.get(key) else { return Next::Leave };
        if !keep_alive || draining {
            self.end(key, CloseReason::HttpDone, Words::Nothing);
            return Next::Leave;
        }
        slot.connection.flags.set(Flags::KEPT_ALIVE);
        slot.connection.heard = now;
        Next::Go
    }

    /// Lets the connection speak a dialect from now on; `out` is the answer that says so.
    fn open(&mut self, key: Key, head: &Head<'_>, opening: &Opening, out: &mut Vec<u8>) -> Next {
        let now = self.now;
        let spread = spread_within(key, self.timeouts.heartbeat_of(opening.dialect));
        let Some(slot) = self.slots.get(key) else { return Next::Leave };
        // What it gets of its topics' messages has to be settled before it joins them.
        slot.connection.dialect = opening.dialect;
        if let Some(window_bits) = opening.deflate {
            slot.connection.flags.set(Flags::DEFLATE);
            if opening.runs {
                slot.connection.flags.set(Flags::RUNS);
            }
            if window_bits < WINDOW_BITS_MAX {
                remember(&mut slot.connection.session, |open| open.window_bits = window_bits);
            }
        }
        // Joined before the answer is out: whoever has seen it is sure to get what is published next.
        let Subscribed { joined, lists } = match self.subscribe(key, &opening.topics, &opening.patterns) {
            Ok(subscribed) => subscribed,
            Err(reason) => {
                self.refuse_for_now(key, reason, &Asker::of(head));
                return Next::Leave;
            }
        };
        let outcomes: Vec<_> =
            joined.iter().map(|(topic, joined)| Outcome::of_joined(topic, *joined)).collect();
        if opening.dialect.is_placed() {
            self.note_places(key, &joined);
        }
        let again_ms = self.again_ms(key);
        opening.dialect.push_start(&Start { joined: &outcomes, lists: &lists, again_ms }, out);
        let Some(slot) = self.slots.get(key) else { return Next::Leave };
        let connection = &mut slot.connection;
        connection.open(now.saturating_add(spread));
        if opening.no_echo {
            connection.flags.set(Flags::NO_ECHO);
        }
        self.counters.upgrades.add(1);
        self.replace_oldest(key.slot);
        self.hear_of_opening(key, head, &joined);
        self.keep_address(key, head, opening.dialect.carrier() == Carrier::Frames);
        self.send_own(key, out, Asked::No);
        self.start_listings(key, &lists);
        if let Some(data) = &opening.welcome {
            self.tell_unasked(key, [Outcome::Welcome { data }]);
        }
        self.tell_opened(key, &joined, &opening.patterns);
        self.tell_upgraded(key);
        Next::Go
    }

    fn refuse_head(&mut self, key: Key, error: &HeadError, bytes: &[u8]) {
        let reason = RefuseReason::of_head_status(error.status());
        self.refuse_asker(key, reason, error.reason(), &Asker::of_bytes(bytes));
    }

    /// Answers a refusal and ends the connection behind it. For who is no page, or where it is not known who asks.
    pub(super) fn refuse(&mut self, key: Key, reason: RefuseReason, text: &str) {
        self.counters.refused(reason);
        self.answer_refusal(key, reason, text, None);
    }

    /// The same to a request of the client port, so that a page that may read its answer may read this.
    pub(super) fn refuse_asker(&mut self, key: Key, reason: RefuseReason, text: &str, asker: &Asker<'_>) {
        self.counters.refused(reason);
        let asker = Some(asker).filter(|_| self.port == Port::Client);
        self.answer_refusal(key, reason, text, asker);
    }

    fn answer_refusal(&mut self, key: Key, reason: RefuseReason, text: &str, asker: Option<&Asker<'_>>) {
        let mut answer = ResponseBuffer::new(Vec::with_capacity(288), self.date());
        let readers = asker.map(|asker| asker.fields_of_refusal(&self.edition.origin));
        let head_only = asker.is_some_and(Asker::head_only);
        http::write_refusal(reason, text, readers.as_ref(), (false, head_only), &mut answer);
        tracing::debug!(slot = key.slot, reason = reason.label(), "refused: {text}");
        self.send_own(key, &answer, Asked::Yes);
        self.end(key, CloseReason::Refused, Words::Nothing);
    }

    /// As [`Self::refuse`] of somebody who may be let in another time, in the words that who asks understands.
    pub(super) fn refuse_for_now(&mut self, key: Key, reason: RefuseReason, asker: &Asker<'_>) {
        self.counters.refused(reason);
        self.answer_not_now(key, reason, asker);
    }

    /// The same, counted when it was decided.
    pub(super) fn answer_not_now(&mut self, key: Key, reason: RefuseReason, asker: &Asker<'_>) {
        let mut answer = ResponseBuffer::new(Vec::with_capacity(288), self.date());
        http::write_not_now(reason, asker, &self.edition, self.again_later_ms(key), &mut answer);
        tracing::debug!(slot = key.slot, reason = reason.label(), "refused");
        self.send_own(key, &answer, Asked::Yes);
        self.end(key, CloseReason::Refused, Words::Nothing);
    }

    /// When the client of a stream is to come back when it breaks off, in milliseconds: a time of its own, because those
    /// of a server that fails all come back without jitter.
    fn again_ms(&self, key: Key) -> u32 {
        let usual = millis(self.edition.settings.timeouts.sse_retry);
        usual / 2 + spread_within(key, usual)
    }

    /// The same of one that there is no room for now: they have no back-off either, so that it is all of theirs.
    pub(super) fn again_later_ms(&self, key: Key) -> u32 {
        self.again_ms(key).saturating_mul(LATER)
    }

    /// The same of one that is sent away by a drain: over as long as the drain takes, or longer.
    pub(super) fn again_after_drain_ms(&self, key: Key) -> u32 {
        let Settings { drain, timeouts, .. } = &self.edition.settings;
        let usual = millis(timeouts.sse_retry);
        usual / 2 + spread_within(key, usual.max(millis(drain.length)))
    }
}

fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_millis()).unwrap_or(u32::MAX)
}

/// A stable offset within one period, in its units, so that a storm of connects is not a storm of pings.
pub(super) fn spread_within(key: Key, period: u32) -> u32 {
    let hash = key.slot.wrapping_mul(0x9E37_79B9) ^ key.generation.wrapping_mul(0x85EB_CA6B);
    ((u64::from(hash) * u64::from(period)) >> 32) as u32
}
