//! What dialects read in a URL alike.

use std::borrow::Cow;

use crate::topic::name::NameError;
use crate::topic::{Position, PositionError, Since, TopicName};
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
