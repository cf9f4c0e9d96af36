//! What dialects read in a URL alike.

use crate::topic::TopicName;
use crate::topic::name::NameError;
use crate::wire::http::uri::percent_decode;

/// The topic named by the rest of a path, percent-decoded once.
///
/// # Errors
/// One line on what is wrong with it.
pub(crate) fn topic_name(raw: &str) -> Result<TopicName<'_>, &'static str> {
    let name = percent_decode(raw).map_err(|_| "the topic is not percent-encoded UTF-8")?;
    TopicName::parse(name).map_err(NameError::reason)
}
