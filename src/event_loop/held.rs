//! What has arrived in part: heads, messages, and what is put off until a peer has read its answers.
//!
//! All loops of a port count it together, against one bound (`limits.inbox_bytes_total`): shares of it would be too small
//! for the largest message as soon as there are many loops. Driven by whoever keeps or takes up such bytes.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::core::Core;
use crate::connection::session::{BodyState, Session};
use crate::metrics::RefuseReason;
use crate::topic::Key;
use crate::transport::Socket;

/// One loop's part of it.
#[derive(Debug, Default)]
pub(super) struct Held(usize);

impl Held {
    /// Bytes on this loop.
    pub(super) fn bytes(&self) -> usize {
        self.0
    }

    /// What one connection holds went from `before` to `after`; `all` is the sum over the loops of the port.
    pub(super) fn moved(&mut self, all: &AtomicUsize, before: usize, after: usize) {
        self.0 = self.0 + after - before;
        // Most turns change nothing, and then nobody's cache line is touched.
        if after > before {
            all.fetch_add(after - before, Ordering::Relaxed);
        } else if before > after {
            all.fetch_sub(before - after, Ordering::Relaxed);
        }
    }
}

impl<S: Socket> Core<S> {
    /// Whether all connections together hold more than they may, for one that holds `own` bytes of it: whoever
    /// adds to it then is ended. One alone always fits, because a bound must not refuse what every other allows.
    pub(super) fn is_inbox_full(&self, own: usize) -> bool {
        let held = self.edition.inbox_bytes_of(self.port).load(Ordering::Relaxed);
        held > self.edition.totals.inbox.max(own)
    }

    /// Keeps a request that is there in part, or whole requests for another turn.
    pub(super) fn hold(&mut self, key: Key, session: Session) {
        let Some(slot) = self.slots.get(key) else { return };
        let own = session.request_bytes();
        self.held.moved(self.edition.inbox_bytes_of(self.port), 0, own);
        slot.connection.session = Some(Box::new(session));
        if self.is_inbox_full(own) {
            let reason = RefuseReason::InboxFull;
            self.refuse(key, reason, reason.text());
        }
    }

    /// Adds to a head of which a part is kept. `false`: there is none, or these bytes may end it. A head ends with a
    /// line; what ends none is not read again, or a head that comes byte by byte would cost the square of its length.
    pub(super) fn try_hold_more(&mut self, key: Key, bytes: &[u8]) -> bool {
        let bytes_max = self.edition.settings.limits.head_bytes_max;
        let Some(slot) = self.slots.get(key) else { return false };
        let Some(Session::Head(held)) = slot.connection.session.as_deref_mut() else { return false };
        if held.len() + bytes.len() >= bytes_max || bytes.is_empty() || bytes.contains(&b'\n') {
            return false;
        }
        let before = held.capacity();
        held.extend_from_slice(bytes);
        let own = held.capacity();
        self.held.moved(self.edition.inbox_bytes_of(self.port), before, own);
        if own > before && self.is_inbox_full(own) {
            let reason = RefuseReason::InboxFull;
            self.refuse(key, reason, reason.text());
        }
        true
    }

    /// Takes the requests, or the part of one, that are kept for a connection.
    pub(super) fn take_head(&mut self, key: Key) -> Option<Vec<u8>> {
        match self.take_request(key, |session| matches!(session, Session::Head(_)))? {
            Session::Head(held) => Some(held),
            _ => None,
        }
    }

    /// Takes the request whose body is arriving.
    pub(super) fn take_body(&mut self, key: Key) -> Option<Box<BodyState>> {
        match self.take_request(key, |session| matches!(session, Session::Body(_)))? {
            Session::Body(body) => Some(body),
            _ => None,
        }
    }

    fn take_request(&mut self, key: Key, is_meant: impl Fn(&Session) -> bool) -> Option<Session> {
        let place = &mut self.slots.get(key)?.connection.session;
        let session = *place.take_if(|session| is_meant(session))?;
        self.held.moved(self.edition.inbox_bytes_of(self.port), session.request_bytes(), 0);
        Some(session)
    }
}
