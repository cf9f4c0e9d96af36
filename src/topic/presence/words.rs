//! What an event says: one JSON object, the payload of a message. Where it is said the topic and the version stand before
//! it. Pure.

use std::io::Write as _;

#[cfg(test)]
use fantail_test_support::planted::{self, Planted};

use super::member::MemberId;
use super::members::Fold;
use super::states::Said;
use crate::topic::rules::PresenceMode;

/// The object of a fold; `None` where it tells nothing that may be told.
pub(super) fn event(fold: &Fold, mode: PresenceMode) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    // Writing into memory does not fail.
    let _ = write!(out, "{{\"count\":{}", fold.count);
    if mode == PresenceMode::Full {
        for (name, ids) in [("joined", &fold.joined), ("left", &fold.left)] {
            #[cfg(test)]
            if name == "joined" && !ids.is_empty() && planted::strikes(Planted::UntoldMember) {
                continue;
            }
            if !ids.is_empty() {
                let _ = write!(out, ",\"{name}\":");
                push_ids(ids, &mut out);
            }
        }
        if !fold.states.is_empty() {
            push_states(&fold.states, &mut out);
        }
    } else if fold.joined.is_empty() && fold.left.is_empty() {
        return None;
    }
    out.push(b'}');
    Some(out)
}

fn push_ids(ids: &[MemberId], out: &mut Vec<u8>) {
    out.push(b'[');
    for (index, id) in ids.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        let _ = serde_json::to_writer(&mut *out, id.as_str());
    }
    out.push(b']');
}

fn push_states(states: &[Said], out: &mut Vec<u8>) {
    out.extend_from_slice(b",\"states\":[");
    for (index, (id, state)) in states.iter().enumerate() {
        out.extend_from_slice(if index == 0 { b"{\"id\":" } else { b",{\"id\":" });
        let _ = serde_json::to_writer(&mut *out, id.as_str());
        let state = state.as_ref().map_or("null", |state| state.as_str());
        let _ = write!(out, ",\"state\":{state}}}");
    }
    out.push(b']');
}
