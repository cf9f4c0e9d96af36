//! What the structs of a connection are made of: each field's place and size as the compiler laid them out. Asked
//! by `fantail sizes --layout` alone. Never typed by hand: a field that is added and not listed does not compile.

use super::inbox::Inbox;
use super::outbox::Outbox;
use super::session::{OpenState, Session, Subscription};
use super::{Connection, SLOT_ENTRY_BYTES, Slot};
use crate::transport::Stream;

/// One field of a struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name in the source.
    pub name: &'static str,
    /// Bytes from the struct's beginning.
    pub offset: usize,
    /// Its bytes, without what it points to.
    pub bytes: usize,
}

/// One struct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Its name in the source.
    pub name: &'static str,
    /// When there is one.
    pub when: &'static str,
    /// Its bytes, padding included.
    pub bytes: usize,
    /// Its fields as the source names them; none where only the size is of interest.
    pub fields: &'static [Field],
}

/// The [`Layout`] of a struct, by its name and the names of all its fields.
macro_rules! layout {
    ($whole:ident, $when:literal, { $($field:ident),+ $(,)? }) => {{
        /// Names every field, so that a new one has to be listed.
        const _: fn(&$whole) = |whole| {
            let $whole { $($field: _),+ } = whole;
        };
        $crate::connection::layout::Layout {
            name: stringify!($whole),
            when: $when,
            bytes: size_of::<$whole>(),
            fields: const {
                &[$($crate::connection::layout::Field {
                    name: stringify!($field),
                    offset: std::mem::offset_of!($whole, $field),
                    bytes: $crate::connection::layout::field_bytes(|whole: &$whole| &whole.$field),
                }),+]
            },
        }
    }};
}
pub(super) use layout;

/// The size of what the function picks out of a struct.
pub(super) const fn field_bytes<W, F>(_: fn(&W) -> &F) -> usize {
    size_of::<F>()
}

impl Layout {
    /// Its fields as they lie in memory.
    #[must_use]
    pub fn in_order(&self) -> Vec<Field> {
        let mut fields = self.fields.to_vec();
        fields.sort_by_key(|field| field.offset);
        fields
    }

    /// Bytes that belong to no field; 0 if the fields are not listed.
    #[must_use]
    pub fn padding(&self) -> usize {
        let listed: usize = self.fields.iter().map(|field| field.bytes).sum();
        if self.fields.is_empty() { 0 } else { self.bytes - listed }
    }
}

type TcpSlot = Slot<Stream>;

/// The structs that a connection has or may have.
#[must_use]
pub fn layouts() -> Vec<Layout> {
    let sized = |name, when, bytes| Layout { name, when, bytes, fields: &[] };
    vec![
        sized(
            "slot table entry",
            "one for each connection: a slot, or the place of the next free one",
            SLOT_ENTRY_BYTES,
        ),
        Layout { name: "Slot", ..layout!(TcpSlot, "always", { connection, generation, stream }) },
        layout!(Connection, "always, in the slot", {
            inbox, outbox, session, deadline, heard, topic, place, admission, phase, dialect, flags
        }),
        Inbox::LAYOUT,
        Outbox::LAYOUT,
        sized("Queued", "for each message or answer in an outbox", Outbox::QUEUED_BYTES),
        Outbox::TALLY_LAYOUT,
        sized(
            "Session",
            "before the upgrade, while closing, with more than one topic, or while it owes of its rates",
            size_of::<Session>(),
        ),
        layout!(OpenState, "in the session of an open connection that has one", {
            topics, watches, faults, blocked, context, window_bits, unanswered, behind, debts
        }),
        layout!(Subscription, "for each topic after the first", { topic, place }),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_inside_their_struct_and_beside_each_other() {
        let layouts = layouts();
        assert!(layouts.len() > 5);
        for layout in layouts {
            let mut end = 0;
            for field in layout.in_order() {
                assert!(field.offset >= end, "{} of {} overlaps", field.name, layout.name);
                end = field.offset + field.bytes;
            }
            assert!(end <= layout.bytes, "{layout:?}");
            assert!(layout.padding() < 8, "{layout:?}");
        }
    }

    #[test]
    fn the_slot_is_found_as_it_is_stored() {
        let layouts = layouts();
        let named = |name: &str| *layouts.iter().find(|layout| layout.name == name).unwrap();
        assert_eq!(named("slot table entry").bytes, SLOT_ENTRY_BYTES);
        assert_eq!(named("Slot").bytes, size_of::<Slot<Stream>>());
        let connection = named("Connection");
        let deadline = connection.fields.iter().find(|field| field.name == "deadline").unwrap();
        assert_eq!(deadline.offset, std::mem::offset_of!(Connection, deadline));
        assert_eq!((deadline.bytes, connection.bytes, connection.padding()), (4, 48, 0));
    }
}
