//! `[publish]`: what clients may publish to.

use super::section::{Checker, section};
use super::value::Names;
use crate::topic::TopicPattern;

section! {
    /// What clients may publish to over their connection; the admin port may publish to every topic.
    Publish ["publish"] {
        /// Topic names, exact or with a trailing "*": "lobby", "room-*", or "*" for every topic.
        live "topics" => topics: Vec<String> as Names = vec!["lobby".to_owned()],
    }
}

impl Publish {
    fn check_values(&self, check: &mut Checker<'_>) {
        if let Some(error) = self.topics.iter().find_map(|topic| TopicPattern::compile(topic).err()) {
            check.report("topics", error.to_string());
        }
    }
}
