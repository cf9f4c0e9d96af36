//! What a peer that polls asks and is answered: each request from the place that the last answer had come to, one at a
//! time on a kept connection.

use fantail::topic::Position;
use serde_json::Value;

use super::check::Places;
use super::json::{is_page, keeps_all};
use super::operator::take_answer;
use super::peer::Peer;
use super::presence::Known;
use super::world::{Checked, World};

/// One answer: the place that was asked from, the place that it has come to, and what it tells.
#[derive(Debug)]
struct Answer {
    since: Option<u64>,
    at: u64,
    told: Option<Value>,
}

/// One peer's polls.
#[derive(Debug, Default)]
pub(crate) struct Polls {
    /// Where the request under way goes on from.
    since: Option<u64>,
    answers: Vec<Answer>,
    /// What it knows of who is there, if it asks for that.
    pub(crate) known: Option<Known>,
    /// What an answer that ends the conversation was.
    pub(crate) over: bool,
}

impl Polls {
    /// It begins behind this offset.
    pub(crate) fn new(since: Option<Position>, watches: bool) -> Self {
        let known = watches.then(Known::default);
        Self { since: since.map(|since| since.offset), known, ..Self::default() }
    }

    /// Takes the answers that are whole. The requests to follow them.
    pub(crate) fn hear(&mut self, bytes: &mut Vec<u8>, topic: &str) -> Result<Vec<u8>, String> {
        let mut requests = Vec::new();
        while let Some((status, body, len)) = take_answer(bytes) {
            let head = String::from_utf8_lossy(&bytes[..len - body.len()]).to_lowercase();
            bytes.drain(..len);
            let place = head.split("fantail-position: ").nth(1).and_then(|rest| rest.split("\r\n").next());
            let at = place.and_then(|place| Position::parse(place.split(',').next()?).ok());
            let (place, text) = match (status, at, place) {
                (200 | 204, Some(at), Some(text)) => (at, text.to_owned()),
                _ => return Err(format!("no answer to a poll: {head}")),
            };
            if text.contains(',') != self.known.is_some() {
                return Err(format!("a version that nobody has asked for, or none: {head}"));
            }
            let told: Option<Value> = match status {
                200 => Some(serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?),
                _ => None,
            };
            for object in told.iter().filter_map(|told| told["presence"].as_array()).flatten() {
                self.known.as_mut().ok_or("nobody has asked who is there")?.take(object)?;
            }
            self.answers.push(Answer { since: self.since, at: place.offset, told });
            self.since = Some(place.offset);
            self.over |= head.contains("connection: close");
            if !self.over {
                let next = self.known.as_ref().map(|known| known.next.as_deref());
                requests.extend(request(topic, Some(text), next));
            }
        }
        Ok(requests)
    }

    /// How many messages it got.
    pub(crate) fn messages(&self) -> usize {
        let count = |told: &Value| told["messages"].as_array().map_or(0, Vec::len);
        self.answers.iter().filter_map(|answer| answer.told.as_ref()).map(count).sum()
    }
}

/// A request that waits for longer than a world takes to come to rest; who asks who is there, from behind which member on.
pub(crate) fn request(topic: &str, since: Option<String>, list: Option<Option<&str>>) -> Vec<u8> {
    let since = since.map_or(String::new(), |since| format!("&since={since}"));
    let list = list.map_or(String::new(), |after| {
        format!("&presence=1{}", after.map_or(String::new(), |after| format!("&after={after}")))
    });
    format!("GET /poll/{topic}?wait=60{since}{list} HTTP/1.1\r\nHost: localhost\r\n\r\n").into_bytes()
}

/// Every answer goes on where the one before has ended, or says what is missing; who waits has everything.
pub(crate) fn check_polls(
    world: &World,
    peer: &Peer,
    polls: &Polls,
    places: &Places<'_>,
    stays: bool,
) -> Checked {
    let (id, topic) = (peer.link.id, peer.topics[0]);
    for answer in &polls.answers {
        let right = match (&answer.told, answer.since) {
            (None, since) => since.is_none_or(|since| since == answer.at),
            (Some(told), since) => {
                let count = told["messages"].as_array().map_or(0, Vec::len);
                let at = told["offset"] == answer.at && told["topic"] == format!("t{topic}");
                // Without a place it waits for what comes, which may be anything.
                let first = told["messages"][0]["offset"].as_u64().map(|offset| offset - 1);
                let is_whole = count > 0 || told.get("gap").is_some() || told.get("presence").is_some();
                at && is_whole && is_page(world, (topic, since.or(first)), told, places)
            }
        };
        if !right {
            return Err(format!("peer {id} was answered {answer:?}"));
        }
    }
    let newest = world.truth[topic].last().map_or(0, |message| message.offset);
    match polls.since {
        Some(at) if stays && at != newest => {
            let keeps = keeps_all(world, topic);
            Err(format!("peer {id} waits for t{topic} behind {at} of {newest}, kept: {keeps}"))
        }
        _ => Ok(()),
    }
}
