//! After a peak: moves what connections still hold, so that the allocator's pages come free.
//!
//! Most of a peak's connections leave, and each one that stays keeps a page or two of the allocator with a few
//! hundred bytes in it. Those bytes are copied into the smallest holes between others, and the pages they leave
//! can be given back. Driven by the loop when the maintenance thread asks for it, a bounded amount at a time.
//! Never changes what a connection holds.

use super::core::Core;
use super::frames_turn::held_bytes;
use crate::connection::inbox::Inbox;
use crate::connection::outbox::Outbox;
use crate::topic::Key;
use crate::transport::Socket;

/// Slots looked at in one turn.
const SLOTS_PER_TURN: usize = 1_024;

/// Bytes copied in one turn, and a piece above the second is not worth copying: its pages are its own.
const BYTES_PER_TURN: usize = 1 << 20;
const PIECE_BYTES_MAX: usize = 16 * 1024;

/// What has been copied. It is freed when the turn is through and not piece by piece: the allocator would hand
/// the place of each piece to the next one, and none would come any closer to the others.
#[derive(Default)]
struct Left {
    inboxes: Vec<Option<Box<Inbox>>>,
    outboxes: Vec<Option<Box<Outbox>>>,
    bytes: usize,
}

impl<S: Socket> Core<S> {
    /// Starts to move what connections hold; a move under way begins again.
    pub fn start_relocation(&mut self) {
        self.relocating = Some(0);
    }

    /// Moves what the next few connections hold. True if this was the end of it.
    pub fn relocation_turn(&mut self) -> bool {
        let Some(from) = self.relocating else { return false };
        let mut keys = Vec::with_capacity(SLOTS_PER_TURN);
        self.relocating = self.slots.keys_from(from, SLOTS_PER_TURN, &mut keys);
        let mut left = Left::default();
        for key in keys {
            if left.bytes >= BYTES_PER_TURN {
                self.relocating = Some(key.slot);
                break;
            }
            self.relocate(key, &mut left);
        }
        self.relocating.is_none()
    }

    fn relocate(&mut self, key: Key, left: &mut Left) {
        let Some(slot) = self.slots.get(key) else { return };
        let connection = &mut slot.connection;
        let held = held_bytes(connection.inbox.as_deref());
        if held > 0 && held <= PIECE_BYTES_MAX {
            let copy = connection.inbox.clone();
            left.inboxes.push(std::mem::replace(&mut connection.inbox, copy));
            left.bytes += held;
            // A copy has no spare capacity.
            self.held.moved(
                self.edition.inbox_bytes_of(self.port),
                held,
                held_bytes(connection.inbox.as_deref()),
            );
        }
        let held = connection.outbox.as_deref().map_or(0, Outbox::memory);
        if held > 0 && held <= PIECE_BYTES_MAX {
            let copy = connection.outbox.clone();
            left.outboxes.push(std::mem::replace(&mut connection.outbox, copy));
            left.bytes += held;
        }
    }
}
