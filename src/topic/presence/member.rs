//! Who is on a topic: the id of a member, shared by the topic's list and by each of the member's connections. Pure.

use std::borrow::{Borrow, Cow};
use std::fmt;

use triomphe::ThinArc;

/// A member's id; a clone is a reference of eight bytes. In the order of its bytes.
#[derive(Clone)]
pub struct MemberId(ThinArc<(), u8>);

impl MemberId {
    /// Of this text.
    #[must_use]
    pub fn of(text: &str) -> Self {
        Self(ThinArc::from_header_and_slice((), text.as_bytes()))
    }

    /// The text of the id of somebody who is known by this name: ids that begin with one `~` are of connections of which
    /// nobody says who it is.
    #[must_use]
    pub fn text_of(name: &str) -> Cow<'_, str> {
        if name.starts_with('~') { format!("~{name}").into() } else { name.into() }
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // It was made of text.
        std::str::from_utf8(&self.0.slice).unwrap_or_default()
    }

    /// Bytes that it has.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.slice.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.slice.is_empty()
    }
}

impl fmt::Debug for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

impl Borrow<[u8]> for MemberId {
    fn borrow(&self) -> &[u8] {
        &self.0.slice
    }
}

impl PartialEq for MemberId {
    fn eq(&self, other: &Self) -> bool {
        self.0.slice == other.0.slice
    }
}

impl Eq for MemberId {}

impl Ord for MemberId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.slice.cmp(&other.0.slice)
    }
}

impl PartialOrd for MemberId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
