//! Who connections belong to: the identities of those who have shown a token, in a table beside the slots, so that the
//! others pay nothing for it.
//!
//! Filled by the request turn and by effects, emptied as slots are given back. Asked by whoever is about to do something in
//! a connection's name.

use std::collections::HashMap;
use std::sync::Arc;

use crate::auth::Identity;
use crate::auth::identity::{Denied, Right, SharedRights, permit};
use crate::auth::token::Claims;
use crate::topic::{Access, Key};

/// Room that the table keeps when almost everybody has left.
const KEPT: usize = 64;

/// Who bears the token of one connection.
#[derive(Debug)]
struct Bearer {
    identity: Arc<Identity>,
}

/// Everybody on one loop who has shown a token, by slot.
#[derive(Debug, Default)]
pub(super) struct Bearers {
    by_slot: HashMap<u32, Bearer>,
    shared: SharedRights,
}

impl Bearers {
    /// Whom the connection in this slot belongs to, if it has shown a token.
    #[must_use]
    pub(super) fn identity(&self, slot: u32) -> Option<&Arc<Identity>> {
        // Where nobody has one, nothing is looked up.
        if self.by_slot.is_empty() {
            return None;
        }
        self.by_slot.get(&slot).map(|bearer| &bearer.identity)
    }

    /// The connection in this slot belongs to whom these claims speak of, from now on.
    pub(super) fn note(&mut self, slot: u32, claims: Claims) {
        let identity = Identity::new(claims, &mut self.shared);
        self.by_slot.insert(slot, Bearer { identity });
    }

    /// The connection belongs to nobody any more.
    pub(super) fn forget(&mut self, slot: u32) {
        if self.by_slot.remove(&slot).is_some() && self.by_slot.len() < self.by_slot.capacity() / 4 {
            self.by_slot.shrink_to((self.by_slot.len() * 2).max(KEPT));
        }
    }

    /// Whether a connection has a right, by what the rule says of it and by its token.
    pub(super) fn permit(&self, key: Key, access: Access, right: Right<'_>) -> Result<(), Denied> {
        permit(access, self.identity(key.slot).map(Arc::as_ref), right)
    }

    /// Bytes that the identity in this slot takes, its place in the table included.
    #[must_use]
    pub(super) fn memory(&self, slot: u32) -> usize {
        let entry = size_of::<(u32, Bearer)>() + 1;
        self.identity(slot).map_or(0, |identity| identity.memory() + entry)
    }
}
