//! `[publish]`: what clients may publish to.

use crate::auth::publish::PublishPolicy;

use super::section::{Checker, section};
use super::value::Names;

section! {
    /// What clients may publish to over their connection; the admin port may publish to every topic.
    Publish ["publish"] {
        /// Topic names, exact or with a trailing "*": "lobby", "room-*", or "*" for every topic.
        live "topics" => topics: Vec<String> as Names = vec!["lobby".to_owned()],
    }
}

impl Publish {
    fn check_values(&self, check: &mut Checker<'_>) {
        if let Err(error) = PublishPolicy::compile(&self.topics) {
            check.report("topics", error.to_string());
        }
    }
}
