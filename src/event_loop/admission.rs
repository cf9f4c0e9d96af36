//! Letting connections in: limits at the accept, the PROXY header, the client behind a trusted proxy, pending
//! handshakes, and giving back what was counted.
//!
//! Driven by the listener, the request turn and the end of a connection. The rules are in `auth::admission`;
//! this is where their answer becomes a refusal. Never waits.

use std::net::IpAddr;

use super::closing::Words;
use super::core::Core;
use super::frames_turn::remember;
use crate::auth::admission::AdmissionRefusal;
use crate::auth::forwarded::client_of;
use crate::connection::rates::Rate;
use crate::connection::session::Session;
use crate::connection::{Connection, Flags, Phase, Slot};
use crate::edition::Port;
use crate::http::{self, Asker};
use crate::metrics::{CloseReason, RefuseReason};
use crate::topic::Key;
use crate::transport::{Received, Socket};
use crate::wire::http::head::Head;
use crate::wire::http::response::ResponseBuffer;
use crate::wire::proxy::parse_proxy;

/// Connections that all loops together refuse properly at a time: with a slot, their request read before the
/// answer and what follows read to its end. It bounds what is held above the capacity, too, and so has to fit
/// the descriptors that `config::Limits` reserves, of one table if the loops share it.
const REFUSALS_AT_A_TIME: usize = 32;

/// What admission said of an accepted stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Arrival {
    /// Set when it is refused, whatever it asks.
    pub refused: Option<RefuseReason>,
    /// What its address is known by; 0 when no limit asks.
    pub admission: u32,
    /// What its connection begins with.
    pub flags: Flags,
}

impl<S: Socket> Core<S> {
    /// Decides about a stream that was just accepted from `peer`; `full` says that the loop has no room. What is
    /// counted here is given back when the connection is freed; of a refused one nothing is.
    pub fn admit(&mut self, peer: IpAddr, full: bool) -> Arrival {
        if self.port == Port::Admin {
            return self.admit_to_admin(peer, full);
        }
        let mut arrival = Arrival::default();
        if full || !self.edition.try_open_connection(self.port) {
            return self.refused_arrival(RefuseReason::AtCapacity);
        }
        let admission = &self.edition.admission;
        if !admission.try_begin_handshake() {
            self.edition.connection_closed(self.port);
            return self.refused_arrival(RefuseReason::Handshakes);
        }
        arrival.flags.set(Flags::HANDSHAKING);
        arrival.admission = admission.handle_of(peer);
        if admission.trusts(peer) {
            arrival.flags.set(Flags::PROXIED);
            if admission.rules().proxy_protocol {
                arrival.flags.set(Flags::PROXY_DUE);
            }
        } else if let Err(refusal) = admission.try_enter(arrival.admission, self.now) {
            admission.end_handshake();
            self.edition.connection_closed(self.port);
            return self.refused_arrival(reason_of(refusal));
        }
        self.counters.handshakes.add(1);
        arrival
    }

    pub(super) fn refused_arrival(&self, reason: RefuseReason) -> Arrival {
        let mut flags = Flags::default();
        flags.set(Flags::REFUSED);
        self.counters.refused(reason);
        Arrival { refused: Some(reason), admission: 0, flags }
    }

    /// Whether a refused arrival may have a slot to be refused properly.
    #[must_use]
    pub fn may_refuse_properly(&self) -> bool {
        self.refusing < (REFUSALS_AT_A_TIME / self.edition.loops().max(1)).max(1)
    }

    /// Answers a refused stream unasked and closes it: four system calls and no slot, for when there are too
    /// many to refuse properly. A request that is still on its way meets a reset, but behind the answer.
    pub fn refuse_at_once(&mut self, mut stream: S, reason: RefuseReason) {
        self.counters.refused_at_once.add(1);
        if !stream.hears(&self.transport) {
            // A handshake for nothing else than this would be the work that there is too much of.
            return stream.forget(&mut self.transport);
        }
        // A request that is left unread would make the close throw the answer away.
        let read = match stream.read(&mut self.transport, &mut self.scratch) {
            Ok(Received::Bytes { count, .. }) => count,
            _ => 0,
        };
        self.out.clear();
        let mut answer = ResponseBuffer::new(std::mem::take(&mut self.out), self.date());
        let asker = Asker::of_bytes(self.scratch.get(..read).unwrap_or_default());
        // It has no key to draw a time with; its number will do.
        let number = self.counters.refused_at_once.value() as u32;
        let again_ms = self.again_later_ms(Key { slot: number, generation: 0 });
        http::write_not_now(reason, &asker, &self.edition, again_ms, &mut answer);
        // The send queue of a new connection is empty, so it takes all or the peer is gone.
        let _ = stream.write(&mut self.transport, &answer);
        stream.forget(&mut self.transport);
        self.out = answer.into_bytes();
        self.out.clear();
    }

    /// The answer to whatever a refused connection says, of which `said` has arrived. `false`: it is not refused.
    pub(super) fn answer_if_refused(&mut self, key: Key, said: &[u8]) -> bool {
        let Some(slot) = self.slots.get(key) else { return false };
        let Some(Session::Refused(reason)) = slot.connection.session.as_deref() else { return false };
        let reason = *reason;
        self.answer_not_now(key, reason, &Asker::of_bytes(said));
        true
    }

    /// Takes the bytes of a connection that has to begin with a PROXY header.
    pub(super) fn on_proxy_bytes(&mut self, key: Key, bytes: &mut [u8]) {
        let held = self.take_head(key).unwrap_or_default();
        let Some(slot) = self.slots.get(key) else { return };
        let mut gathered;
        let bytes = if held.is_empty() {
            bytes
        } else {
            gathered = held;
            gathered.extend_from_slice(bytes);
            gathered.as_mut_slice()
        };
        let header = match parse_proxy(bytes) {
            Ok(None) => return self.hold(key, Session::Head(bytes.to_vec())),
            Err(error) => return self.refuse(key, RefuseReason::ProxyHeader, error.reason()),
            Ok(Some(header)) => header,
        };
        slot.connection.flags.clear(Flags::PROXY_DUE);
        if let Some(source) = header.source {
            self.note_source(key, source);
        }
        let Some(slot) = self.slots.get(key) else { return };
        let admission = &self.edition.admission;
        let mut refused = None;
        if let Some(source) = header.source {
            let handle = admission.handle_of(source);
            if admission.trusts(source) {
                // A proxy behind the proxy: its own word comes in X-Forwarded-For.
                slot.connection.admission = handle;
            } else {
                refused = self.enter(key, handle).err();
            }
        }
        let rest = bytes.get_mut(header.len..).unwrap_or_default();
        if refused.is_some_and(|reason| !self.refuse_behind_proxy(key, reason, rest)) {
            return;
        }
        let Some(slot) = self.slots.get(key) else { return };
        if slot.stream.begin_layer(&mut self.transport, rest) {
            // What came behind the header is read once more, by the layer.
            return self.list_ready(key);
        }
        if !rest.is_empty() {
            self.on_request_bytes(key, rest);
        }
    }

    /// Makes of a connection whose client is known now one that was refused at the accept: it takes nobody's place, has the linger
    /// time for its request, because what it may be told depends on that, and there are only so many at a time. `false`: it was
    /// one too many, and is gone.
    fn refuse_behind_proxy(&mut self, key: Key, reason: RefuseReason, rest: &[u8]) -> bool {
        let may_wait = self.may_refuse_properly();
        self.counters.refused(reason);
        self.end_handshake(key);
        let Some(slot) = self.slots.get(key) else { return false };
        slot.connection.flags.set(Flags::REFUSED);
        slot.connection.session = Some(Box::new(Session::Refused(reason)));
        let hears = slot.stream.hears(&self.transport);
        self.refusing += 1;
        self.edition.connection_closed(self.port);
        self.rearm(key.slot);
        if may_wait {
            return true;
        }
        self.counters.refused_at_once.add(1);
        // As in `refuse_at_once`: no handshake for nothing else than this.
        if hears {
            self.answer_not_now(key, reason, &Asker::of_bytes(rest));
        }
        self.abort(key, CloseReason::Refused);
        false
    }

    /// Counts a connection that a trusted proxy made, as its client's, when it upgrades. Without a usable
    /// address it counts as the proxy's own.
    pub(super) fn admit_forwarded(&mut self, key: Key, head: &Head<'_>) -> Result<(), RefuseReason> {
        let Some(slot) = self.slots.get(key) else { return Ok(()) };
        if !slot.connection.flags.has(Flags::PROXIED) {
            return Ok(());
        }
        let admission = &self.edition.admission;
        let client = client_of(head.fields("x-forwarded-for"), &admission.rules().trusted_proxies);
        let handle = client.map_or(slot.connection.admission, |client| admission.handle_of(client));
        self.enter(key, handle)
    }

    /// Counts a proxied connection as one of `handle`.
    fn enter(&mut self, key: Key, handle: u32) -> Result<(), RefuseReason> {
        let Some(slot) = self.slots.get(key) else { return Ok(()) };
        self.edition.admission.try_enter(handle, self.now).map_err(reason_of)?;
        slot.connection.flags.clear(Flags::PROXIED);
        slot.connection.admission = handle;
        Ok(())
    }

    /// A request has begun to arrive on a connection that is kept alive. `false`: too many others are awaited.
    pub(super) fn begin_handshake(&mut self, key: Key) -> bool {
        let Some(slot) = self.slots.get(key) else { return true };
        let flags = &mut slot.connection.flags;
        if self.port == Port::Admin || flags.has(Flags::HANDSHAKING) {
            return true;
        }
        let admitted = self.edition.admission.try_begin_handshake();
        if admitted {
            flags.set(Flags::HANDSHAKING);
            self.counters.handshakes.add(1);
        }
        admitted
    }

    /// The request is there, or nothing is awaited any more.
    pub(super) fn end_handshake(&mut self, key: Key) {
        let Some(slot) = self.slots.get(key) else { return };
        if slot.connection.flags.clear(Flags::HANDSHAKING) {
            self.edition.admission.end_handshake();
            self.counters.handshakes.sub(1);
        }
    }

    /// Gives back everything that was counted for a connection whose slot is freed.
    pub(super) fn release(&mut self, connection: &Connection) {
        let flags = connection.flags;
        if flags.has(Flags::HANDSHAKING) {
            self.edition.admission.end_handshake();
            self.counters.handshakes.sub(1);
        }
        if flags.has(Flags::REFUSED) {
            self.refusing -= 1;
            return;
        }
        if self.port == Port::Admin {
            // Its strangers are counted where they are looked for.
            return;
        }
        self.edition.connection_closed(self.port);
        if !flags.has(Flags::PROXIED) {
            // Until its client is known, a proxied connection carries its proxy's handle uncounted.
            self.edition.admission.leave(connection.admission);
        }
    }

    /// Charges one message or ping to the rate of the connection, and to that of whom it belongs to. `false`: one is over, and
    /// the connection has to end; `why` is told.
    #[inline(always)]
    pub(super) fn charge_message(&mut self, key: Key, why: &mut Option<CloseReason>) -> bool {
        !self.rates.count_messages() || self.charge_rated(key, why)
    }

    fn charge_rated(&mut self, key: Key, why: &mut Option<CloseReason>) -> bool {
        let (now, limits) = (self.now, self.rates);
        let Some(slot) = self.open_slot(key) else { return true };
        let within = limits.messages.per_second == 0
            || remember(&mut slot.connection.session, |open| open.debts.charge_message(now, &limits));
        if !within {
            *why = Some(CloseReason::MessageRate);
            return false;
        }
        let Rate { per_second, burst } = limits.of_bearer;
        let Some(who) = self.bearers.identity(key.slot).filter(|_| per_second > 0) else { return true };
        // Their other connections are charged by their own loops, in the same bucket.
        let within = self.edition.speech.try_take(who, now, per_second, burst);
        *why = (!within).then_some(CloseReason::IdentityRate);
        within
    }

    /// Charges bytes read to the connection's rate and ends it when it is over. `false`: it is ending.
    pub(super) fn charge_bytes(&mut self, key: Key, count: usize) -> bool {
        let (now, limits) = (self.now, self.rates);
        if limits.bytes.per_second == 0 {
            return true;
        }
        let Some(slot) = self.open_slot(key) else { return true };
        let within =
            remember(&mut slot.connection.session, |open| open.debts.charge_bytes(count, now, &limits));
        if !within {
            let reason = CloseReason::ByteRate;
            self.end(key, reason, Words::Own);
        }
        within
    }

    /// Forgets what a connection owed: its buckets are full again.
    pub(super) fn forget_debts(&mut self, key: Key) {
        let Some(slot) = self.open_slot(key) else { return };
        if let Some(Session::Open(open)) = slot.connection.session.as_deref_mut() {
            open.debts = Default::default();
            if open.is_empty() {
                slot.connection.session = None;
            }
        }
        self.rearm(key.slot);
    }

    fn open_slot(&mut self, key: Key) -> Option<&mut Slot<S>> {
        self.slots.get(key).filter(|slot| slot.connection.phase() == Phase::Open)
    }
}

fn reason_of(refusal: AdmissionRefusal) -> RefuseReason {
    match refusal {
        AdmissionRefusal::TooMany => RefuseReason::TooManyFromAddress,
        AdmissionRefusal::TooFast => RefuseReason::ConnectRate,
    }
}

#[cfg(test)]
mod tests;
