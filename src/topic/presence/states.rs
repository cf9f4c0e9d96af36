//! What members of one topic say of themselves, such as that they type: the last of each, until it ends. Pure; driven by the
//! topic's members. Apart from them, so that who says nothing pays nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use triomphe::ThinArc;

use super::member::MemberId;

/// States that one fold has at most, and bytes of ids and states in them: what is more waits for the next one.
const STATES_MAX: usize = 2_000;
const STATES_BYTES_MAX: usize = 64 << 10;

/// Bytes that a member's state takes beside its text: entries of three maps and an allocation.
pub const STATE_BYTES: u64 = 224;

/// A state as JSON on one line; a clone is a reference of eight bytes.
#[derive(Clone, PartialEq, Eq)]
pub struct StateText(ThinArc<(), u8>);

impl StateText {
    /// Of this JSON.
    #[must_use]
    pub fn of(json: &str) -> Self {
        Self(ThinArc::from_header_and_slice((), json.as_bytes()))
    }

    /// The JSON.
    #[must_use]
    pub fn as_str(&self) -> &str {
        // It was made of text.
        std::str::from_utf8(&self.0.slice).unwrap_or_default()
    }

    fn len(&self) -> usize {
        self.0.slice.len()
    }
}

impl fmt::Debug for StateText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A member and what it says of itself; `None` for nothing any more.
pub(super) type Said = (MemberId, Option<StateText>);

/// Whether a member is known to whoever reads a fold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Yes,
    /// It is told in a later one.
    Later,
    /// It has left, or leaves with this one.
    Gone,
}

/// The states of all members that have one, or whose last one was told.
#[derive(Debug, Default)]
pub(super) struct States {
    by_id: BTreeMap<MemberId, State>,
    /// By when each ends, in milliseconds.
    ending: BTreeSet<(u64, MemberId)>,
    /// Which may be others than what was told, each once, oldest first.
    untold: BTreeMap<u64, MemberId>,
    /// The number of the next among these.
    next: u64,
    /// Bytes of all.
    bytes: u64,
}

#[derive(Debug, Default)]
struct State {
    now: Option<StateText>,
    told: Option<StateText>,
    /// In milliseconds; means something while there is one now.
    ends_at: u64,
    /// Its number in `untold`, while it is there.
    queued: Option<u64>,
}

impl State {
    /// Grows only as another state is set: what is told is the same text.
    fn bytes(&self) -> u64 {
        let is_told = self.told.as_ref().is_some_and(|told| self.now.as_ref().is_some_and(|now| told == now));
        let told = self.told.as_ref().filter(|_| !is_told);
        let texts = [self.now.as_ref(), told].into_iter().flatten().map(StateText::len);
        STATE_BYTES + texts.sum::<usize>() as u64
    }
}

impl States {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }

    /// Entries of all maps.
    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.by_id.len() + self.ending.len() + self.untold.len()
    }

    /// Bytes that they take.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that would come to that if the member said this.
    pub(super) fn grows(&self, id: &MemberId, state: &StateText) -> u64 {
        let Some(there) = self.by_id.get(id) else { return STATE_BYTES + state.len() as u64 };
        let then = State { now: Some(state.clone()), told: there.told.clone(), ..State::default() };
        then.bytes().saturating_sub(there.bytes())
    }

    /// Whether there may be something to tell.
    pub(super) fn has_untold(&self) -> bool {
        !self.untold.is_empty()
    }

    /// When one ends next, in milliseconds.
    pub(super) fn next_end(&self) -> Option<u64> {
        self.ending.first().map(|(at, _)| *at)
    }

    /// What was told of a member.
    pub(super) fn told(&self, id: &MemberId) -> Option<&StateText> {
        if self.by_id.is_empty() {
            return None;
        }
        self.by_id.get(id)?.told.as_ref()
    }

    /// A member says this of itself until `ends_at`, or nothing any more.
    pub(super) fn set(&mut self, id: &MemberId, state: Option<StateText>, ends_at: u64) {
        if state.is_none() && !self.by_id.contains_key(id) {
            return;
        }
        let there = self.by_id.entry(id.clone()).or_default();
        // A new entry is empty and was not counted.
        let before = if there.now.is_none() && there.told.is_none() { 0 } else { there.bytes() };
        if there.now.is_some() {
            self.ending.remove(&(there.ends_at, id.clone()));
        }
        if state.is_some() {
            there.ends_at = ends_at;
            self.ending.insert((ends_at, id.clone()));
        }
        // What is told already is not kept twice.
        there.now = if state == there.told { there.told.clone() } else { state };
        if there.now.is_none() && there.told.is_none() {
            // It was never told.
            let queued = there.queued;
            self.by_id.remove(id);
            queued.and_then(|number| self.untold.remove(&number));
            self.bytes = self.bytes.saturating_sub(before);
            return;
        }
        if there.queued.is_none() && there.now != there.told {
            there.queued = Some(self.next);
            self.untold.insert(self.next, id.clone());
            self.next += 1;
        }
        self.bytes = (self.bytes + there.bytes()).saturating_sub(before);
    }

    /// Those end whose time has come at `now`.
    pub(super) fn expire(&mut self, now: u64) {
        while let Some((_, id)) = self.ending.first().filter(|(at, _)| *at <= now).cloned() {
            self.set(&id, None, 0);
        }
    }

    /// The member has left.
    pub(super) fn remove(&mut self, id: &MemberId) {
        if self.by_id.is_empty() {
            return;
        }
        let Some(state) = self.by_id.remove(id) else { return };
        if state.now.is_some() {
            self.ending.remove(&(state.ends_at, id.clone()));
        }
        state.queued.and_then(|number| self.untold.remove(&number));
        self.bytes = self.bytes.saturating_sub(state.bytes());
    }

    /// What is to be told next, and the number of the first that is not dealt with by that.
    pub(super) fn fold(&self, known: impl Fn(&MemberId) -> Known) -> (Vec<Said>, u64) {
        let (mut said, mut bytes) = (Vec::new(), 0);
        for (&number, id) in &self.untold {
            match known(id) {
                Known::Later => return (said, number),
                Known::Gone => continue,
                Known::Yes => {}
            }
            let Some(state) = self.by_id.get(id).filter(|state| state.now != state.told) else { continue };
            bytes += id.len() + state.now.as_ref().map_or(4, StateText::len);
            if said.len() >= STATES_MAX || (bytes > STATES_BYTES_MAX && !said.is_empty()) {
                return (said, number);
            }
            said.push((id.clone(), state.now.clone()));
        }
        (said, self.next)
    }

    /// That was told, of all that have a lower number.
    pub(super) fn tell(&mut self, before: u64) {
        while let Some(first) = self.untold.first_entry().filter(|first| *first.key() < before) {
            let id = first.remove();
            let Some(state) = self.by_id.get_mut(&id) else { continue };
            let bytes = state.bytes();
            state.queued = None;
            state.told.clone_from(&state.now);
            let left = if state.now.is_some() { state.bytes() } else { 0 };
            self.bytes = (self.bytes + left).saturating_sub(bytes);
            if state.now.is_none() {
                self.by_id.remove(&id);
            }
        }
    }
}
