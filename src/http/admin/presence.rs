//! `GET /presence`: who is on a topic.
//!
//! Answered by the admin loop alone, out of the list that all loops share: a page, and the id to go on behind.

use std::borrow::Cow;

use super::{Answer, JSON, answer, refusal};
use crate::dialect::push_presence;
use crate::edition::Edition;
use crate::metrics::RefuseReason;
use crate::topic::name::NameError;
use crate::topic::{PresenceMode, TopicName};
use crate::wire::http::head::Head;
use crate::wire::http::params::Params;
use crate::wire::http::response::ResponseBuffer;

/// Members of one answer, and how many it has where nobody says.
const LIMIT_MAX: usize = 1_000;
const LIMIT: usize = 100;

/// Answers `GET /presence`.
pub(super) fn respond(head: &Head<'_>, edition: &Edition, out: &mut ResponseBuffer) -> Answer {
    match page(head.query(), edition) {
        Ok(body) => answer(head, 200, JSON, &body, out),
        Err((reason, text)) => refusal(head, reason, &text, out),
    }
}

fn page(query: &str, edition: &Edition) -> Result<Vec<u8>, (RefuseReason, Cow<'static, str>)> {
    let bad = |text: String| (RefuseReason::BadRequest, Cow::from(text));
    let params = Params::read(query, b"", &["topic", "after", "limit"]).map_err(bad)?;
    let name = params.text("topic").ok_or_else(|| bad("topic is missing".to_owned()))?;
    let name = TopicName::parse(name).map_err(NameError::reason).map_err(|text| bad(text.to_owned()))?;
    let limit = params.number("limit", LIMIT).map_err(bad)?;
    if limit > LIMIT_MAX {
        return Err(bad(format!("limit expects 0 to {LIMIT_MAX}")));
    }
    let policy = edition.router.rules().policy_of(name.as_str()).presence;
    if policy.mode == PresenceMode::Off {
        return Err((RefuseReason::NotFound, "the rule of this topic has no presence".into()));
    }
    let wanted = (params.text("after"), limit);
    let presences = &edition.presences;
    let page = presences.page(name.as_str(), policy, wanted, None, |events| edition.router.topic(events));
    let page = page.map_err(|_| (RefuseReason::Busy, "no room for another topic; try again later".into()))?;
    let mut body = Vec::new();
    push_presence(&page, &mut body);
    body.push(b'\n');
    Ok(body)
}
