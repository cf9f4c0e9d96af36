//! `GET /topics`: what topics there are, in the order of their names, or those with the most of something.
//!
//! Answered by the admin loop alone: the router's directory is ordered, so a page is a range of it. A request looks at
//! so many topics at the most and says where to go on, however few of them it meant.

use serde_json::{Value, json};

use crate::edition::Edition;
use crate::topic::name::NameError;
use crate::topic::state::FIRST_OFFSET;
use crate::topic::{Topic, TopicName};
use crate::wire::http::params::Params;

/// Topics on one page.
const LIMIT_MAX: usize = 1_000;

/// Topics that one request looks at, all of them counted by the count-only form. About 2 ms of the admin loop.
const LOOKS_MAX: usize = 10_000;

/// Topics taken from the directory under one lock.
const CHUNK: usize = 256;

/// What a request for topics led to.
pub(super) enum Found {
    /// The JSON of the answer.
    Body(Vec<u8>),
    /// There is no topic of the one name asked for.
    Nothing,
}

/// By what a page chooses among the topics that it looks at.
#[derive(Clone, Copy)]
enum Sort {
    Name,
    Subscribers,
    Messages,
}

impl Sort {
    fn read(params: &Params<'_>) -> Result<Self, String> {
        match params.text("sort") {
            None | Some("name") => Ok(Self::Name),
            Some("subscribers") => Ok(Self::Subscribers),
            Some("messages") => Ok(Self::Messages),
            Some(_) => Err("sort expects name, subscribers or messages".to_owned()),
        }
    }

    /// What it sorts by, the most first.
    fn weight(self, topic: &Topic) -> u64 {
        match self {
            Self::Name => 0,
            Self::Subscribers => topic.subscribers(),
            Self::Messages => topic.next_offset() - FIRST_OFFSET,
        }
    }
}

/// One request's way through the directory.
struct Walk<'a> {
    edition: &'a Edition,
    prefix: &'a str,
    contains: &'a str,
    /// The topic that was looked at last.
    after: Option<String>,
    looks: usize,
    /// Whether there are topics behind that one.
    more: bool,
}

impl<'a> Walk<'a> {
    fn new(params: &'a Params<'_>, edition: &'a Edition) -> Self {
        let text = |name| params.text(name).unwrap_or_default();
        let after = params.text("cursor").map(str::to_owned);
        Self { edition, prefix: text("prefix"), contains: text("contains"), after, looks: 0, more: true }
    }

    /// Takes the next topics, up to `wanted` of those that are meant, until `take` says no. `false` at the end.
    fn step(&mut self, wanted: usize, mut take: impl FnMut(Topic)) -> bool {
        let left = LOOKS_MAX.saturating_sub(self.looks);
        // Only as many as are wanted, where each is one.
        let count = if self.contains.is_empty() { wanted.min(left) } else { left }.min(CHUNK);
        if !self.more || count == 0 {
            return false;
        }
        // One more, to know whether any is left.
        let mut topics = self.edition.router.topics_from(self.prefix, self.after.as_deref(), count + 1);
        self.more = topics.len() > count;
        topics.truncate(count);
        let mut taken = 0;
        let all = topics.len();
        for (place, topic) in topics.into_iter().enumerate() {
            self.looks += 1;
            let last = place + 1 == all;
            let is_meant = topic.name().contains(self.contains);
            taken += usize::from(is_meant);
            let enough = taken == wanted;
            if last || enough {
                self.after = Some(topic.name().to_owned());
                self.more |= !last;
            }
            if is_meant {
                take(topic);
            }
            if enough {
                break;
            }
        }
        true
    }

    /// `next` and what stands behind it, the end of the object.
    fn end(self, out: &mut Vec<u8>) {
        out.extend_from_slice(b",\"next\":");
        push(out, &json!(self.after.filter(|_| self.more)));
        out.extend_from_slice(format!(",\"total\":{}}}\n", self.edition.router.topics()).as_bytes());
    }
}

/// Answers `GET /topics`.
///
/// # Errors
/// One line on what is wrong with the parameters.
pub(super) fn list(query: &str, edition: &Edition) -> Result<Found, String> {
    let known = ["prefix", "contains", "topic", "sort", "cursor", "limit", "count"];
    let params = Params::read(query, b"", &known)?;
    let mut out = Vec::new();
    if let Some(name) = params.text("topic") {
        let name = TopicName::parse(name).map_err(NameError::reason)?;
        let Some(topic) = edition.router.find(&name) else { return Ok(Found::Nothing) };
        push(&mut out, &topic_json(&topic));
        out.push(b'\n');
        return Ok(Found::Body(out));
    }
    let count = params.is_set("count")?;
    let most = if count { LOOKS_MAX } else { LIMIT_MAX };
    let limit = params.number("limit", most)?;
    if !(1..=most).contains(&limit) {
        return Err(format!("limit expects 1 to {most}"));
    }
    let sort = Sort::read(&params)?;
    let mut walk = Walk::new(&params, edition);
    if count {
        let (mut seen, mut subscribers) = (0, 0);
        while seen < limit
            && walk.step(limit - seen, |topic| {
                seen += 1;
                subscribers += topic.subscribers();
            })
        {}
        out.extend_from_slice(format!("{{\"topics\":{seen},\"subscribers\":{subscribers}").as_bytes());
    } else {
        let topics = match sort {
            Sort::Name => by_name(&mut walk, limit),
            Sort::Subscribers | Sort::Messages => with_most(&mut walk, sort, limit),
        };
        out.extend_from_slice(b"{\"topics\":[");
        for (place, topic) in topics.iter().enumerate() {
            out.extend_from_slice(if place == 0 { b"\n" } else { b",\n" });
            push(&mut out, &topic_json(topic));
        }
        out.push(b']');
    }
    walk.end(&mut out);
    Ok(Found::Body(out))
}

fn by_name(walk: &mut Walk<'_>, limit: usize) -> Vec<Topic> {
    let mut topics = Vec::new();
    while topics.len() < limit {
        let wanted = limit - topics.len();
        if !walk.step(wanted, |topic| topics.push(topic)) {
            break;
        }
    }
    topics
}

/// The `limit` topics with the most of what is sorted by, among those that one request looks at.
fn with_most(walk: &mut Walk<'_>, sort: Sort, limit: usize) -> Vec<Topic> {
    let mut best: Vec<(u64, Topic)> = Vec::new();
    let most_first = |one: &(u64, Topic), two: &(u64, Topic)| {
        two.0.cmp(&one.0).then_with(|| one.1.name().cmp(two.1.name()))
    };
    while walk.step(usize::MAX, |topic| best.push((sort.weight(&topic), topic))) {
        if best.len() > limit.max(CHUNK) * 2 {
            best.select_nth_unstable_by(limit, most_first);
            best.truncate(limit);
        }
    }
    best.sort_unstable_by(most_first);
    best.truncate(limit);
    best.into_iter().map(|(_, topic)| topic).collect()
}

fn topic_json(topic: &Topic) -> Value {
    let summary = topic.summary();
    json!({
        "topic": topic.name(),
        // A string: 64 bits do not survive a reader that knows only doubles.
        "epoch": format!("{:016x}", topic.epoch()),
        "subscribers": summary.subscribers,
        "loops": summary.loops,
        "messages": summary.next_offset - FIRST_OFFSET,
        "next_offset": summary.next_offset,
        "history_messages": summary.kept_messages,
        "history_bytes": summary.kept_bytes,
    })
}

fn push(out: &mut Vec<u8>, value: &Value) {
    // Writing to a Vec cannot fail.
    let _ = serde_json::to_writer(out, value);
}
