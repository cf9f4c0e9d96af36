//! What lies between a connection and the kernel: its bytes count where all others of their kind do, and what it could
//! not take ends the connection.
//!
//! Driven by the turns that read and write. Never knows what kind of layer it is, nor whether there is one.

use std::io::ErrorKind;

use super::closing::Words;
use super::core::Core;
use crate::metrics::{CloseReason, RefuseReason, TlsFailure};
use crate::topic::Key;
use crate::transport::{Beside, Fault, Socket, Tally, Unaccepted};

/// What the layer held when it was asked last.
#[derive(Debug, Default)]
pub(super) struct LayerBytes {
    held: usize,
    begun: usize,
}

impl<S: Socket> Core<S> {
    /// A layer could not take what the peer sent, and has told it so.
    pub(super) fn on_fault(&mut self, key: Key, fault: Fault) {
        self.settle_layer();
        let failure = failure_of(fault);
        self.counters.tls_failed(failure);
        let Some(slot) = self.slots.get(key) else { return };
        let peer = slot.stream.peer().map(|peer| peer.to_string());
        tracing::debug!(slot = key.slot, generation = key.generation, ?fault, peer, "TLS failed");
        if fault == Fault::PlainHttp {
            tracing::warn!(peer, "HTTP without TLS on the port of TLS; answered 400");
            let reason = RefuseReason::PlainHttp;
            return self.refuse(key, reason, reason.text());
        }
        if slot.connection.outbox.as_deref().is_some_and(|outbox| !outbox.is_empty()) {
            // What waits can't be sealed any more, and behind the alert nothing may come.
            return self.abort(key, CloseReason::Tls);
        }
        self.end(key, CloseReason::Tls, Words::Nothing);
    }

    /// The first bytes are those of a TLS handshake, on a port where none is spoken.
    pub(super) fn on_client_hello(&mut self, key: Key) {
        let peer = self.slots.get(key).and_then(|slot| slot.stream.peer()).map(|peer| peer.to_string());
        tracing::warn!(peer, "TLS on a port that speaks none; answered 400");
        let reason = RefuseReason::TlsOnPlain;
        self.refuse(key, reason, reason.text());
    }

    /// Tells what handshakes came to, once a turn.
    #[inline]
    pub(super) fn note_handshakes(&self) {
        if self.transport.is_used() {
            self.note_tally();
        }
    }

    fn note_tally(&self) {
        let Tally { full, resumed, left, under_way } = self.transport.tally();
        let counters = &self.counters;
        counters.tls_handshakes.set(under_way);
        let counts = [
            (&counters.tls12_full, full[0]),
            (&counters.tls13_full, full[1]),
            (&counters.tls12_resumed, resumed[0]),
            (&counters.tls13_resumed, resumed[1]),
        ];
        for (counter, count) in counts {
            counter.set(count);
        }
        counters.set_tls_failed(TlsFailure::Left, left);
    }

    /// Behind a read turn: what the layer keeps of a record counts as all that has arrived in part, and what it
    /// has to say by itself waits for the kernel as all other bytes do.
    #[inline]
    pub(super) fn after_layer_read(&mut self, key: Key) {
        if self.transport.is_used() {
            self.settle_read(key);
        }
    }

    fn settle_read(&mut self, key: Key) {
        self.say_put_off(key);
        let grown = self.settle_layer();
        if grown > 0 && self.is_inbox_full(grown) {
            self.end(key, CloseReason::InboxFull, Words::Own);
        }
    }

    /// What the layer has to say goes with what the connection answers. Where there was no answer it goes now.
    fn say_put_off(&mut self, key: Key) {
        let Some(slot) = self.slots.get(key) else { return };
        if slot.connection.has_backlog() || !slot.stream.pending(&self.transport) {
            return;
        }
        match slot.stream.write(&mut self.transport, &[]) {
            Err(error) if error.kind() != ErrorKind::WouldBlock => self.abort(key, CloseReason::PeerReset),
            _ if slot.stream.pending(&self.transport) => self.keep_pending(key),
            _ => {}
        }
    }

    /// Counts what the layer holds. Returns by how much what has arrived in part has grown.
    #[inline]
    pub(super) fn settle_layer(&mut self) -> usize {
        if !self.transport.is_used() {
            return 0;
        }
        let (held, begun) = (self.transport.held_bytes(), self.transport.begun_bytes());
        if held == self.layer.held && begun == self.layer.begun {
            return 0;
        }
        self.settle_changed(held, begun)
    }

    #[cold]
    fn settle_changed(&mut self, held: usize, begun: usize) -> usize {
        let before = std::mem::replace(&mut self.layer, LayerBytes { held, begun });
        self.held.moved(self.edition.inbox_bytes_of(self.port), before.held, held);
        let budget = &self.edition.outbox_budget;
        budget.charge_own(begun.saturating_sub(before.begun));
        budget.release_own(before.begun.saturating_sub(begun));
        self.counters.outbox_bytes.moved(before.begun, begun);
        held.saturating_sub(before.held)
    }
}

fn failure_of(fault: Fault) -> TlsFailure {
    match fault {
        Fault::PlainHttp => TlsFailure::PlainHttp,
        Fault::NotTls => TlsFailure::NotTls,
        Fault::Incompatible => TlsFailure::Incompatible,
        Fault::Protocol => TlsFailure::Protocol,
        Fault::NoCertificate => TlsFailure::NoCertificate,
        Fault::Refused(_) => TlsFailure::Refused,
        Fault::Client(Unaccepted::Missing) => TlsFailure::ClientMissing,
        Fault::Client(Unaccepted::Untrusted) => TlsFailure::ClientUntrusted,
        Fault::Client(Unaccepted::Expired) => TlsFailure::ClientExpired,
        Fault::Client(Unaccepted::Revoked) => TlsFailure::ClientRevoked,
        Fault::Client(Unaccepted::Invalid) => TlsFailure::ClientInvalid,
        Fault::Handshake => TlsFailure::Handshake,
        Fault::Record | Fault::Exhausted => TlsFailure::Record,
        Fault::Alert(_) => TlsFailure::Alert,
    }
}
