//! Requests: heads and bodies as they arrive, one at a time, answered by an endpoint.
//!
//! Driven by the read turn. What is partial is kept in the session; heads that arrive whole are parsed where
//! they were read.

use super::core::Core;
use super::write_turn::Asked;
use crate::connection::session::{BodyFraming, BodyState, Session};
use crate::connection::{Flags, Phase};
use crate::endpoint::{self, Answer, Opening, Tools};
use crate::fanout::Key;
use crate::metrics::{CloseReason, RefuseReason};
use crate::transport::Socket;
use crate::wire::http::chunked::ChunkedDecoder;
use crate::wire::http::head::{Body, Head, HeadError, HeadLimits, field_store, parse_head};

/// What became of one head.
pub(super) enum Next {
    /// Answered; the next request may follow.
    Go,
    /// The connection is ending or gone, or something else takes the bytes.
    Leave,
}

impl<S: Socket> Core<S> {
    /// Takes request bytes in the phases `Head` and `Body`.
    pub(super) fn on_request_bytes(&mut self, key: Key, bytes: &mut [u8]) {
        if self.answer_if_refused(key) {
            return;
        }
        let head_bytes_max = self.services.settings.limits.head_bytes_max;
        let Some(slot) = self.slots.get(key) else { return };
        if slot.connection.flags.has(Flags::PROXY_DUE) {
            return self.on_proxy_bytes(key, bytes);
        }
        if let Some(Session::Head(held)) = slot.connection.session.as_deref_mut()
            && held.len() + bytes.len() < head_bytes_max
            && !bytes.is_empty()
            && !bytes.contains(&b'\n')
        {
            // A head ends with a line. What ends none is not read again, or a head that comes byte by byte would
            // cost the square of its length.
            return held.extend_from_slice(bytes);
        }
        match slot.connection.session.take().map(|session| *session) {
            Some(Session::Head(mut held)) => {
                held.extend_from_slice(bytes);
                self.on_heads(key, &mut held);
            }
            Some(Session::Body(body)) => self.on_body(key, body, bytes),
            _ => self.on_heads(key, bytes),
        }
    }

    fn on_heads(&mut self, key: Key, mut bytes: &mut [u8]) {
        let limits = HeadLimits { bytes_max: self.services.settings.limits.head_bytes_max, fields_max: 64 };
        while !bytes.is_empty() {
            let Some(slot) = self.slots.get(key) else { return };
            if slot.connection.phase != Phase::Head {
                return self.on_bytes(key, bytes);
            }
            if slot.connection.flags.has(Flags::PAUSED) {
                slot.connection.session = Some(Box::new(Session::Head(bytes.to_vec())));
                slot.connection.flags.set(Flags::READ_OWED);
                return;
            }
            let mut store = field_store();
            let consumed = match parse_head(bytes, &mut store, &limits) {
                Ok(None) => return self.hold_head(key, bytes),
                Err(error) => return self.refuse_head(key, &error),
                Ok(Some((head, consumed))) => {
                    self.end_handshake(key);
                    let whole = bytes.get(..consumed).unwrap_or_default();
                    match self.on_head(key, &head, whole) {
                        Next::Go => consumed,
                        Next::Leave => return,
                    }
                }
            };
            bytes = bytes.get_mut(consumed..).unwrap_or_default();
        }
    }

    fn hold_head(&mut self, key: Key, bytes: &[u8]) {
        let now = self.now;
        if !self.begin_handshake(key) {
            let reason = RefuseReason::Handshakes;
            return self.refuse(key, reason, reason.text());
        }
        let Some(slot) = self.slots.get(key) else { return };
        if slot.connection.flags.clear(Flags::KEPT_ALIVE) {
            // The first bytes of a further request start its time, however idle the connection was.
            slot.connection.heard = now;
        }
        slot.connection.session = Some(Box::new(Session::Head(bytes.to_vec())));
    }

    fn on_head(&mut self, key: Key, head: &Head<'_>, whole: &[u8]) -> Next {
        if self.draining.is_some() && self.port == endpoint::Port::Client {
            let reason = RefuseReason::Draining;
            self.refuse(key, reason, reason.text());
            return Next::Leave;
        }
        let body_max = match endpoint::body_max(self.port, head, &self.services) {
            Ok(max) => max,
            Err(reason) => {
                self.refuse(key, reason, reason.text());
                return Next::Leave;
            }
        };
        let framing = match head.body {
            Body::None | Body::Length(0) => return self.on_request(key, head, Vec::new()),
            Body::Length(length) if length > body_max as u64 => {
                self.refuse(key, RefuseReason::TooLarge, RefuseReason::TooLarge.text());
                return Next::Leave;
            }
            Body::Length(length) => BodyFraming::Remaining(length),
            Body::Chunked => BodyFraming::Chunked { decoder: ChunkedDecoder::default(), done: false },
        };
        if head.expect_continue {
            self.send_own(key, b"HTTP/1.1 100 Continue\r\n\r\n", Asked::Yes);
        }
        let now = self.now;
        let Some(slot) = self.slots.get(key) else { return Next::Leave };
        slot.connection.phase = Phase::Body;
        slot.connection.heard = now;
        slot.connection.session = Some(Box::new(Session::Body(Box::new(BodyState {
            head: whole.to_vec(),
            body: Vec::new(),
            body_max,
            framing,
        }))));
        Next::Go
    }

    fn on_body(&mut self, key: Key, mut state: Box<BodyState>, bytes: &mut [u8]) {
        let now = self.now;
        // Out of the session it is nobody's; it counts again when it goes back.
        self.body_bytes -= state.body.len();
        let taken = match state.take(bytes) {
            Ok(taken) => taken,
            Err(reason) => return self.refuse(key, reason, reason.text()),
        };
        let all_bodies = self.body_bytes + state.body.len();
        let Some(slot) = self.slots.get(key) else { return };
        slot.connection.heard = now;
        if !state.is_complete() {
            if all_bodies > self.services.settings.limits.admin_body_bytes_total {
                let reason = RefuseReason::BodiesFull;
                return self.refuse(key, reason, reason.text());
            }
            slot.connection.session = Some(Box::new(Session::Body(state)));
            self.body_bytes = all_bodies;
            return;
        }
        slot.connection.phase = Phase::Head;
        let limits = HeadLimits { bytes_max: self.services.settings.limits.head_bytes_max, fields_max: 64 };
        let mut store = field_store();
        let next = match parse_head(&state.head, &mut store, &limits) {
            Ok(Some((head, _))) => self.on_request(key, &head, std::mem::take(&mut state.body)),
            _ => Next::Leave,
        };
        if matches!(next, Next::Go) {
            self.on_heads(key, bytes.get_mut(taken..).unwrap_or_default());
        }
    }

    fn on_request(&mut self, key: Key, head: &Head<'_>, body: Vec<u8>) -> Next {
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        let mut tools = Tools { deflater: &mut self.deflater, counters: &self.counters };
        let answer = match self.admin.as_deref_mut() {
            Some(admin) => {
                endpoint::respond_admin(head, body, &self.services, &mut admin.replies, &mut tools, &mut out)
            }
            None => endpoint::respond(head, &self.services, &mut out),
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
            Answer::Upgrade(opening) => {
                // Without the query, as above.
                tracing::debug!(
                    slot = key.slot,
                    generation = key.generation,
                    path = head.path(),
                    "upgrading"
                );
                match self.admit_forwarded(key, head) {
                    Ok(()) => self.upgrade(key, opening, &out),
                    Err(reason) => {
                        self.refuse(key, reason, reason.text());
                        Next::Leave
                    }
                }
            }
            Answer::Ask(ask) => self.ask(key, head, ask),
            Answer::Batch(batch) => self.start_batch(key, head, batch),
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
        self.out = out;
        next
    }

    pub(super) fn after_answer(&mut self, key: Key, keep_alive: bool) -> Next {
        let now = self.now;
        let draining = self.draining.is_some();
        let Some(slot) = self.slots.get(key) else { return Next::Leave };
        if !keep_alive || draining {
            self.finish(key, CloseReason::HttpDone);
            return Next::Leave;
        }
        slot.connection.flags.set(Flags::KEPT_ALIVE);
        slot.connection.heard = now;
        Next::Go
    }

    fn upgrade(&mut self, key: Key, opening: Opening, out: &[u8]) -> Next {
        let now = self.now;
        if let Some(slot) = self.slots.get(key).filter(|_| opening.deflate) {
            slot.connection.flags.set(Flags::DEFLATE);
        }
        // Joined before the answer is out: whoever has seen the 101 is sure to get what is published next.
        if let Err(reason) = self.subscribe(key, &opening.topics) {
            self.refuse(key, reason, reason.text());
            return Next::Leave;
        }
        let spread = self.heartbeat_spread(key);
        let Some(slot) = self.slots.get(key) else { return Next::Leave };
        let connection = &mut slot.connection;
        connection.phase = Phase::Open;
        connection.dialect = opening.dialect;
        connection.heard = now.saturating_add(spread);
        connection.flags.clear(Flags::KEPT_ALIVE);
        if opening.no_echo {
            connection.flags.set(Flags::NO_ECHO);
        }
        self.counters.upgrades.add(1);
        self.send_own(key, out, Asked::No);
        Next::Go
    }

    /// A stable offset within one heartbeat period, so that a storm of connects is not a storm of pings.
    fn heartbeat_spread(&self, key: Key) -> u32 {
        let hash = key.slot.wrapping_mul(0x9E37_79B9) ^ key.generation.wrapping_mul(0x85EB_CA6B);
        ((u64::from(hash) * u64::from(self.timeouts.heartbeat)) >> 32) as u32
    }

    fn refuse_head(&mut self, key: Key, error: &HeadError) {
        self.refuse(key, RefuseReason::of_head_status(error.status()), error.reason());
    }

    /// Answers a refusal and ends the connection behind it.
    pub(super) fn refuse(&mut self, key: Key, reason: RefuseReason, text: &str) {
        self.counters.refused(reason);
        self.answer_refusal(key, reason, text);
    }

    /// Answers a refusal that was counted when it was decided, and ends the connection behind it.
    pub(super) fn answer_refusal(&mut self, key: Key, reason: RefuseReason, text: &str) {
        let mut answer = Vec::with_capacity(256);
        endpoint::write_refusal(reason, text, false, false, &mut answer);
        tracing::debug!(slot = key.slot, reason = reason.label(), "refused: {text}");
        self.send_own(key, &answer, Asked::Yes);
        self.finish(key, CloseReason::Refused);
    }
}
