//! Who has connected to the admin port and not yet shown that it is the operator: strangers have a share by address,
//! and the longest-standing one makes room for a newcomer.
//!
//! Driven by the listener and by requests. Whoever has had a request let in, with a key or where none is needed, is no
//! stranger any more and keeps its place. There are a few hundred slots at the most, so they are counted by looking at
//! each when somebody connects, and nothing is stored. Never asked for on the client port.

use std::net::IpAddr;

use super::admission::Arrival;
use super::core::Core;
use crate::connection::{Flags, Slot};
use crate::http;
use crate::metrics::{CloseReason, RefuseReason};
use crate::topic::Key;
use crate::transport::Socket;
use crate::wire::http::head::Head;

/// Strangers of one address, or one IPv6 /64: an eighth of the admin port's connections. Loopback has no such bound,
/// where all programs of the machine have one address.
const STRANGERS_PER_ADDRESS_MAX: usize = 32;

impl<S: Socket> Core<S> {
    /// Decides about a stream accepted on the admin port; `full` says that there is no room.
    pub(super) fn admit_to_admin(&mut self, peer: IpAddr, full: bool) -> Arrival {
        let loopback = peer.to_canonical().is_loopback();
        let admission = if loopback { 0 } else { self.edition.admission.handle_always(peer) };
        let is_stranger = |slot: &Slot<S>| {
            let flags = slot.connection.flags;
            !flags.has(Flags::OPERATOR) && !flags.has(Flags::REFUSED)
        };
        let strangers = || self.slots.iter().filter(|(_, slot)| is_stranger(slot));
        let of_address = strangers().filter(|(_, slot)| slot.connection.admission == admission).count();
        if !loopback && of_address >= STRANGERS_PER_ADDRESS_MAX {
            return self.refused_arrival(RefuseReason::TooManyFromAddress);
        }
        if full {
            // The counter of accepts wraps around, its distance from now does not.
            let oldest = strangers().max_by_key(|(_, slot)| self.generation.wrapping_sub(slot.generation));
            let oldest = oldest.map(|(slot, entry)| Key { slot, generation: entry.generation });
            let Some(oldest) = oldest else { return self.refused_arrival(RefuseReason::AtCapacity) };
            // At once: lingering would keep the place taken.
            self.abort(oldest, CloseReason::Displaced);
        }
        Arrival { admission, ..Arrival::default() }
    }

    /// A request was let in. Probes are answered to anybody and show nothing.
    pub(super) fn note_operator(&mut self, key: Key, head: &Head<'_>) {
        if http::is_for_operator(self.port, head)
            && let Some(slot) = self.slots.get(key)
        {
            slot.connection.flags.set(Flags::OPERATOR);
        }
    }
}
