//! `[measure]`: parts of the server that can be switched off, so that what they are worth can be measured.

use super::section::{Checker, section};
use super::value::Switch;

section! {
    /// What a part of the server is worth, measured by switching it off. Nobody is served better so.
    Measure ["measure"] {
        /// Whether a fan-out is cut into turns, so that others are served between them.
        "fanout_chunked" => fanout_chunked: bool as Switch = true,
        /// Whether waiting messages of a topic are joined into one write.
        "fanout_joined" => fanout_joined: bool as Switch = true,
    }
}

impl Measure {
    fn check_values(&self, _: &mut Checker<'_>) {}
}
