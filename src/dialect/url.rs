//! What dialects read in a URL alike.

use std::borrow::Cow;

use crate::topic::name::NameError;
use crate::topic::{LevelPattern, PatternFault, Position, PositionError, Since, TopicName};
use crate::wire::http::params::whole;
use crate::wire::http::uri::percent_decode;

/// The topic named by the rest of a path, percent-decoded once.
///
/// # Errors
/// One line on what is wrong with it.
pub(crate) fn topic_name(raw: &str) -> Result<TopicName<'_>, &'static str> {
    let name = percent_decode(raw).map_err(|_| "the topic is not percent-encoded UTF-8")?;
    TopicName::parse(name).map_err(NameError::reason)
}

/// What a subscription is to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    /// A topic.
    Topic(TopicName<'static>),
    /// Whatever topics a pattern means.
    Pattern(LevelPattern),
}

/// A topic or a pattern; which of them, a `*` says.
///
/// # Errors
/// One line on what is wrong with it.
pub(crate) fn wanted(text: &str) -> Result<Wanted, &'static str> {
    if LevelPattern::is_meant(text) {
        return LevelPattern::parse(text).map(Wanted::Pattern).map_err(PatternFault::reason);
    }
    // Looked at before it is copied: it may be as long as a message.
    let name = TopicName::parse(text).map_err(NameError::reason)?;
    Ok(Wanted::Topic(name.into_owned()))
}

/// The same as the rest of a path has it, percent-decoded once.
///
/// # Errors
/// One line on what is wrong with it.
pub(crate) fn wanted_by_path(raw: &str) -> Result<Wanted, &'static str> {
    wanted(&percent_decode(raw).map_err(|_| "the topic is not percent-encoded UTF-8")?)
}

/// Where a subscription begins by the parameters `since` and `history`.
///
/// # Errors
/// One line on what is wrong with them.
pub(crate) fn begin(since: Option<&str>, history: Option<&str>) -> Result<Since, Cow<'static, str>> {
    match (since, history) {
        (None, None) => Ok(Since::Now),
        (Some(since), None) => {
            Position::parse(since).map(Since::After).map_err(|error| PositionError::reason(error).into())
        }
        (None, Some(count)) => {
            whole(count).map(Since::Last).ok_or_else(|| "history expects a whole number".into())
        }
        (Some(_), Some(_)) => Err("since or history, not both".into()),
    }
}
