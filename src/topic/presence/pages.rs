//! Pages of one list, as of what was told of it last: however many ask for the same, it is read and written once. Driven by
//! the topic's presence, under its lock; what is written of a page is written outside it, by who needs it first.

use std::sync::OnceLock;

use super::member::MemberId;
use super::states::StateText;
use crate::topic::sync::Arc;

/// Pages that a list keeps, of at most 64 KiB of ids and states each, and for how long after the first, in milliseconds. All who
/// come in a storm ask for the same first ones.
const PAGES_MAX: usize = 8;
const KEPT_MS: u64 = 1_000;

/// Shorter lists are read faster than they are found.
const MEMBERS_MIN: usize = 32;

/// One of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceMember {
    /// Who it is.
    pub id: MemberId,
    /// What it says of itself, if anything.
    pub state: Option<StateText>,
}

/// Members in the order of their ids.
#[derive(Debug, Default)]
pub struct PresenceMembers {
    members: Vec<PresenceMember>,
    more: bool,
    written: OnceLock<Box<[u8]>>,
}

impl PresenceMembers {
    pub(super) fn new(members: Vec<PresenceMember>, more: bool) -> Self {
        Self { members, more, written: OnceLock::new() }
    }

    /// Who they are.
    #[must_use]
    pub fn as_slice(&self) -> &[PresenceMember] {
        &self.members
    }

    /// Whether there are more behind the last of them.
    #[must_use]
    pub fn has_more(&self) -> bool {
        self.more
    }

    /// What `write` makes of them, which is kept with them: it always makes the same.
    pub fn written(&self, write: impl FnOnce(&Self) -> Vec<u8>) -> &[u8] {
        self.written.get_or_init(|| write(self).into_boxed_slice())
    }
}

/// Those of one list.
#[derive(Debug, Default)]
pub(super) struct Pages {
    kept: Vec<(Option<Box<str>>, usize, Arc<PresenceMembers>)>,
    /// Until when they are, in milliseconds; means something while there are any.
    until: u64,
}

impl Pages {
    /// The page behind `after` of so many at most, read if it is not there, and kept from `now_ms` on, if that is given.
    pub(super) fn get(
        &mut self,
        (after, limit): (Option<&str>, usize),
        (listed, now_ms): (usize, Option<u64>),
        read: impl FnOnce() -> (Vec<PresenceMember>, bool),
    ) -> Arc<PresenceMembers> {
        let is = |(of, most, _): &&(Option<Box<str>>, usize, _)| of.as_deref() == after && *most == limit;
        if let Some((_, _, page)) = self.kept.iter().find(is) {
            return page.clone();
        }
        let (members, more) = read();
        let page = Arc::new(PresenceMembers::new(members, more));
        if let Some(now_ms) = now_ms
            && listed >= MEMBERS_MIN
            && limit > 0
            && self.kept.len() < PAGES_MAX
        {
            if self.kept.is_empty() {
                self.until = now_ms.saturating_add(KEPT_MS);
            }
            self.kept.push((after.map(Box::from), limit, page.clone()));
        }
        page
    }

    /// The list is another now.
    pub(super) fn clear(&mut self) {
        self.kept = Vec::new();
    }

    /// When they are to be let go, if there are any.
    pub(super) fn due(&self) -> Option<u64> {
        (!self.kept.is_empty()).then_some(self.until)
    }
}
