//! `GET /history`: what a topic keeps, or only how far it has come.
//!
//! Answered by the admin loop alone, out of the topic: as much as one answer may have, and the place to go on from.

use crate::dialect::push_page;
use crate::edition::Edition;
use crate::topic::name::NameError;
use crate::topic::position::PositionError;
use crate::topic::{Gap, GapKind, Page, PageFrom, Position, Since, TopicName};
use crate::wire::http::params::Params;

/// Messages of one answer, and how many it has where nobody says.
const LIMIT_MAX: usize = 1_000;
const LIMIT: usize = 100;

/// Bytes of their frames; one always fits.
const BYTES_MAX: usize = 1 << 20;

/// What a request for a history led to.
pub(super) enum Found {
    /// The JSON of the answer, and the position that it has come to.
    Body(Vec<u8>, Position),
    /// There is no such topic.
    Nothing,
}

/// Answers `GET /history`.
///
/// # Errors
/// One line on what is wrong with the parameters.
pub(super) fn page(query: &str, edition: &Edition) -> Result<Found, String> {
    let params = Params::read(query, b"", &["topic", "since", "limit", "reverse"])?;
    let name = params.text("topic").ok_or("topic is missing")?;
    let name = TopicName::parse(name).map_err(NameError::reason)?;
    let since = params.text("since").map(Position::parse).transpose().map_err(PositionError::reason)?;
    let limit = params.number("limit", LIMIT)?;
    if limit > LIMIT_MAX {
        return Err(format!("limit expects 0 to {LIMIT_MAX}"));
    }
    let reverse = params.is_set("reverse")?;
    let Some(topic) = edition.router.find(&name) else { return Ok(Found::Nothing) };
    let other = since.filter(|since| since.epoch != topic.epoch());
    let from = match since {
        Some(since) if reverse && other.is_none() => PageFrom::Newest(Some(since.offset)),
        _ if reverse => PageFrom::Newest(None),
        Some(since) => PageFrom::Since(Since::After(since)),
        None => PageFrom::Since(Since::Last(u32::MAX)),
    };
    let mut page = topic.page(from, limit, BYTES_MAX);
    if reverse && other.is_some() {
        page.gap = Some(Gap { kind: GapKind::OtherEpoch, oldest: topic.oldest() });
    }
    let position = Position { epoch: page.epoch, offset: reached(&page) };
    let mut body = Vec::new();
    push_page(&topic, &page, position.offset, &mut body);
    body.push(b'\n');
    Ok(Found::Body(body, position))
}

/// From where a next answer goes on: the last message of this one; with none, as far as the topic has come.
fn reached(page: &Page) -> u64 {
    page.messages.last().map_or(page.newest, |message| message.offset())
}
