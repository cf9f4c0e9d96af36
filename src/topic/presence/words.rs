//! What an event says: one JSON object, the payload of a message. Where it is said the topic and the version stand before
//! it. Pure.

use std::io::Write as _;

use super::member::MemberId;
use super::members::Fold;
use crate::topic::rules::PresenceMode;

/// The object of a fold.
pub(super) fn event(fold: &Fold, mode: PresenceMode) -> Vec<u8> {
    let mut out = Vec::new();
    // Writing into memory does not fail.
    let _ = write!(out, "{{\"count\":{}", fold.count);
    if mode == PresenceMode::Full {
        for (name, ids) in [("joined", &fold.joined), ("left", &fold.left)] {
            if !ids.is_empty() {
                let _ = write!(out, ",\"{name}\":");
                push_ids(ids, &mut out);
            }
        }
    }
    out.push(b'}');
    out
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
