//! Whose address a connection has behind a trusted proxy, for those who are told of it: the application, of handshakes and
//! messages, and webhooks.
//!
//! Kept beside the slots, and only of connections through such a proxy: of a PROXY header until the request is there, and for as
//! long as a WebSocket is open where its messages may be forwarded. Everybody else's address is asked of the kernel.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use super::core::Core;
use crate::auth::forwarded::client_of;
use crate::topic::Key;
use crate::transport::Socket;
use crate::wire::http::head::Head;

/// Room that the table keeps when almost everybody has left.
const KEPT: usize = 64;

/// What proxies have said, by slot. IPv4 addresses are mapped ones: 20 bytes an entry instead of 24.
#[derive(Debug, Default)]
pub(super) struct Addresses(HashMap<u32, Ipv6Addr>);

impl Addresses {
    fn of(&self, slot: u32) -> Option<IpAddr> {
        // Where no proxy says any, nothing is looked up.
        if self.0.is_empty() {
            return None;
        }
        self.0.get(&slot).map(Ipv6Addr::to_canonical)
    }

    fn note(&mut self, slot: u32, address: IpAddr) {
        let address = match address {
            IpAddr::V4(address) => address.to_ipv6_mapped(),
            IpAddr::V6(address) => address,
        };
        self.0.insert(slot, address);
    }

    /// The slot is somebody else's from now on.
    pub(super) fn forget(&mut self, slot: u32) {
        if self.0.is_empty() || self.0.remove(&slot).is_none() {
            return;
        }
        if self.0.len() < self.0.capacity() / 4 {
            self.0.shrink_to((self.0.len() * 2).max(KEPT));
        }
    }

    /// Bytes that the entry of this slot takes.
    #[must_use]
    pub(super) fn memory(&self, slot: u32) -> usize {
        self.of(slot).map_or(0, |_| size_of::<(u32, Ipv6Addr)>() + 1)
    }
}

impl<S: Socket> Core<S> {
    /// A PROXY header says for whom the connection was made.
    pub(super) fn note_source(&mut self, key: Key, source: IpAddr) {
        let told = self.edition.ear().is_some_and(|ear| ear.wanted().connected);
        if told || self.edition.backend().is_some() || self.edition.forward().is_some() {
            self.addresses.note(key.slot, source);
        }
    }

    /// Who asks with this head, as admission has it.
    pub(super) fn address_of(&mut self, key: Key, head: &Head<'_>) -> Option<IpAddr> {
        let peer = self.peer_of(key)?;
        let admission = &self.edition.admission;
        if !admission.trusts(peer) {
            return Some(peer);
        }
        let source = self.addresses.of(key.slot);
        // Who is no proxy speaks for nobody but itself.
        let says = source.is_none_or(|source| admission.trusts(source));
        let client =
            says.then(|| client_of(head.fields("x-forwarded-for"), &admission.rules().trusted_proxies));
        client.flatten().or(source).or(Some(peer))
    }

    /// Keeps the address of who has opened a connection with this head, if messages of it may be forwarded and the kernel does not
    /// know it.
    pub(super) fn keep_address(&mut self, key: Key, head: &Head<'_>, may_send: bool) {
        if !may_send || self.edition.forward().is_none() {
            return self.addresses.forget(key.slot);
        }
        let address = self.address_of(key, head);
        match address.filter(|address| self.peer_of(key) != Some(*address)) {
            Some(address) => self.addresses.note(key.slot, address),
            None => self.addresses.forget(key.slot),
        }
    }

    /// Whose an open connection is, as admission has it.
    pub(super) fn kept_address(&mut self, key: Key) -> Option<IpAddr> {
        self.addresses.of(key.slot).or_else(|| self.peer_of(key))
    }

    fn peer_of(&mut self, key: Key) -> Option<IpAddr> {
        Some(self.slots.get(key)?.stream.peer()?.ip())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_come_back_as_they_were_and_room_goes_with_them() {
        let mut addresses = Addresses::default();
        let all: Vec<IpAddr> = ["192.0.2.7", "2001:db8::1"].map(|text| text.parse().unwrap()).into();
        all.iter().zip(3..).for_each(|(address, slot)| addresses.note(slot, *address));
        assert_eq!([addresses.of(3), addresses.of(4), addresses.of(5)], [Some(all[0]), Some(all[1]), None]);
        assert_eq!((addresses.memory(4), addresses.memory(5)), (21, 0));
        (10..10_000).for_each(|slot| addresses.note(slot, all[0]));
        (4..10_000).for_each(|slot| addresses.forget(slot));
        assert!(addresses.0.len() == 1 && addresses.0.capacity() < 4 * KEPT);
    }
}
