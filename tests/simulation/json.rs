//! What a peer that speaks `fantail.json.v1` says and hears: it subscribes from any place, unsubscribes, publishes, reads
//! histories and pings, one command a message, and holds every answer and every gap to what was published.

use std::collections::{HashMap, VecDeque};

use data_encoding::BASE64;
use fantail::topic::{Position, SlowPolicy, Topic};
use serde_json::{Value, json};

use super::check::{Missing, Places, check_topic, place_of};
use super::patterns::{Moments, PATTERNS, Watches, slow};
use super::peer::{Peer, payload};
use super::rng::Rng;
use super::world::{Checked, World};

/// Messages that a topic which keeps everything keeps at least.
const ALL: u32 = 60_000;

/// What it has asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wish {
    Subscribe(usize, Option<u64>),
    Unsubscribe(usize),
    /// To a pattern.
    Watch(usize),
    Unwatch(usize),
    /// Its message of this number.
    Publish(usize),
    History(usize, Option<u64>),
    Ping,
}

/// What it was sent, in order.
#[derive(Debug)]
enum Heard {
    Answer(Wish, Value, Moments),
    Message(Value),
    /// Of the topic of this name.
    Gap(String),
}

/// One peer's side of the conversation.
#[derive(Debug, Default)]
pub(crate) struct JsonTalk {
    /// Each with its id, and how much was published when everything was delivered last before.
    asked: VecDeque<(usize, Wish, u64)>,
    commands: usize,
    /// Whether it subscribes to patterns, too.
    pub(crate) watches: bool,
    heard: Vec<Heard>,
}

impl JsonTalk {
    /// Makes a command. Publishes go to topic `home` and are numbered from `published` on; `topics` are all there are. `rested`
    /// is how much was published when everything was delivered last.
    pub(crate) fn command(
        &mut self,
        (id, home, rested): (usize, usize, u64),
        topics: &[Topic],
        published: &mut usize,
        rng: &mut Rng,
    ) -> Vec<u8> {
        let about = rng.below(topics.len());
        let name = format!("t{about}");
        let topic = &topics[about];
        let since = rng.one_in(2).then(|| rng.below(topic.next_offset() as usize) as u64);
        let place = since.map(|offset| Position { epoch: topic.epoch(), offset }.to_string());
        self.commands += 1;
        let pattern = rng.below(PATTERNS.len());
        let (wish, mut command) = match rng.below(if self.watches { 16 } else { 12 }) {
            0 | 1 => {
                let body = payload(home, Some(id), *published, rng);
                *published += 1;
                let command = if rng.one_in(2) {
                    json!({"type": "publish", "topic": format!("t{home}"), "data": String::from_utf8_lossy(&body)})
                } else {
                    json!({"type": "publish", "topic": format!("t{home}"), "data_base64": BASE64.encode(&body)})
                };
                (Wish::Publish(*published - 1), command)
            }
            2..7 => (Wish::Subscribe(about, since), json!({"type": "subscribe", "topic": name})),
            7..9 => (Wish::Unsubscribe(about), json!({"type": "unsubscribe", "topic": name})),
            9 | 10 => (Wish::History(about, since), json!({"type": "history", "topic": name, "limit": 20})),
            11 => (Wish::Ping, json!({"type": "ping"})),
            12..15 => (Wish::Watch(pattern), json!({"type": "subscribe", "topic": PATTERNS[pattern]})),
            _ => (Wish::Unwatch(pattern), json!({"type": "unsubscribe", "topic": PATTERNS[pattern]})),
        };
        if let (Wish::Subscribe(..) | Wish::History(..), Some(place)) = (wish, place) {
            command["since"] = place.into();
        }
        command["id"] = self.commands.into();
        self.asked.push_back((self.commands, wish, rested));
        command.to_string().into_bytes()
    }

    /// Takes a message of the server, when so much was published.
    pub(crate) fn hear(&mut self, text: &[u8], now: u64) -> Result<(), String> {
        let told: Value = serde_json::from_slice(text).map_err(|error| format!("no JSON: {error}"))?;
        let heard = match told["type"].as_str() {
            Some("message") => Heard::Message(told),
            Some("gap") => Heard::Gap(told["topic"].as_str().unwrap_or_default().to_owned()),
            _ => {
                let (id, wish, rested) =
                    self.asked.pop_front().ok_or_else(|| format!("an answer to nothing: {told}"))?;
                if told["id"] != id {
                    return Err(format!("{told} where the answer to {id} is due"));
                }
                Heard::Answer(wish, told, Moments { rested, answered: now })
            }
        };
        self.heard.push(heard);
        Ok(())
    }

    /// How many messages it got.
    pub(crate) fn messages(&self) -> usize {
        self.heard.iter().filter(|heard| matches!(heard, Heard::Message(_))).count()
    }
}

/// A subscription: its first offset, what it got, and whether it was told that messages are missing before the next.
#[derive(Debug, Default)]
struct Span {
    first: u64,
    got: Vec<u64>,
    gap: bool,
}

impl Span {
    /// The offset that comes next if nothing is missing.
    fn due(&self) -> u64 {
        self.got.last().map_or(self.first, |last| last + 1)
    }
}

/// Topic and offset of what was told: the published payload to its last byte, at the offset that it has.
pub(crate) fn told_place(told: &Value, places: &Places<'_>) -> Option<(usize, u64)> {
    let payload = match told["data"].as_str() {
        Some(text) => text.as_bytes().to_vec(),
        None => BASE64.decode(told["data_base64"].as_str()?.as_bytes()).ok()?,
    };
    place_of(&payload, places).filter(|(_, offset)| told["offset"] == *offset)
}

/// Whether a topic keeps every message there ever was.
pub(crate) fn keeps_all(world: &World, topic: usize) -> bool {
    world.topics[topic].policy(&world.edition.router.rules()).history.messages >= ALL
}

/// What a peer is subscribed to, as its conversation is gone through.
struct Subscribed<'a> {
    topics: HashMap<usize, Span>,
    patterns: Watches<'a>,
}

/// Each command was answered as it had to be, each subscription got what was published while there was one or was told
/// that it did not, and began where it asked to.
pub(crate) fn check_json(
    world: &World,
    peer: &Peer,
    talk: &JsonTalk,
    (places, stays): (&Places<'_>, bool),
    missing: &mut Missing,
) -> Checked {
    let id = peer.link.id;
    let mut open = Subscribed { topics: HashMap::new(), patterns: Watches::new(world, id) };
    for heard in &talk.heard {
        match heard {
            Heard::Gap(name) => {
                let by_pattern = open.patterns.on_gap(name);
                let topic = name.strip_prefix('t').and_then(|number| number.parse().ok());
                match topic.and_then(|topic: usize| open.topics.get_mut(&topic)) {
                    Some(span) => span.gap = true,
                    None if by_pattern => {}
                    None => return Err(format!("peer {id} was told a gap of {name} without asking for it")),
                }
            }
            Heard::Message(told) => {
                let place = told_place(told, places);
                let (topic, offset) =
                    place.ok_or_else(|| format!("peer {id} got what nobody published: {told}"))?;
                if told["topic"] != world.topics[topic].name() {
                    return Err(format!("peer {id} got {told}, which is of t{topic}"));
                }
                let Some(span) = open.topics.get_mut(&topic).filter(|span| offset >= span.due()) else {
                    open.patterns.on_message(topic, offset)?;
                    continue;
                };
                let lenient = open.patterns.may_miss(topic);
                check_gap(world, topic, (span, lenient), offset)
                    .map_err(|problem| format!("peer {id}: {problem}"))?;
                span.got.push(offset);
                open.patterns.on_own(topic, offset);
            }
            Heard::Answer(wish, told, moments) => {
                if !is_answer(world, peer, (*wish, told, *moments), (places, &mut open), missing)? {
                    let topics = open.topics;
                    return Err(format!("peer {id} was answered {told} to {wish:?}, subscribed: {topics:?}"));
                }
            }
        }
    }
    if stays && !talk.asked.is_empty() {
        return Err(format!("peer {id} waits for answers to {:?}", talk.asked));
    }
    // It may have been subscribed and have left before it read so.
    let mut unanswered = Vec::new();
    for (_, wish, _) in &talk.asked {
        match *wish {
            Wish::Subscribe(topic, _) => {
                missing.add(world, peer, topic, (0, world.truth[topic].len() as u64), None)?;
            }
            Wish::Watch(pattern) => unanswered.push(pattern),
            _ => {}
        }
    }
    for (topic, span) in open.topics {
        let (least, most) = check_topic(world, peer, topic, span.first, &span.got)?;
        let least = if stays { most } else { least };
        missing.add(world, peer, topic, (least, most), span.got.last().copied())?;
    }
    open.patterns.finish(stays, &unanswered, missing);
    Ok(())
}

/// What is missing before a message was told, and nothing else was. Under `latest` a newer one takes an older one's place
/// without a word. Where it is `lenient`, what is missing may be what is due to a pattern.
fn check_gap(world: &World, topic: usize, (span, lenient): (&mut Span, bool), offset: u64) -> Checked {
    let due = span.due();
    let told = std::mem::take(&mut span.gap);
    let silent = slow(world, topic) == SlowPolicy::Latest;
    if offset > due && !told && !silent {
        return Err(format!("t{topic}: {due} to {} are missing without a word", offset - 1));
    }
    if told && offset <= due && !lenient {
        return Err(format!("t{topic}: told of a gap before {offset}, where none is"));
    }
    Ok(())
}

/// Whether an answer is right; ends and begins subscriptions.
fn is_answer(
    world: &World,
    peer: &Peer,
    (wish, told, moments): (Wish, &Value, Moments),
    (places, open): (&Places<'_>, &mut Subscribed<'_>),
    missing: &mut Missing,
) -> Checked<bool> {
    let code = told["code"].as_str();
    let offset = told["offset"].as_u64();
    let about = |topic: usize| told["topic"] == format!("t{topic}");
    Ok(match wish {
        Wish::Ping => told["type"] == "pong",
        Wish::Subscribe(topic, _) if code == Some("already_subscribed") => {
            about(topic) && open.topics.contains_key(&topic)
        }
        Wish::Subscribe(topic, since) => {
            let first = offset.unwrap_or(u64::MAX - 1) + 1;
            open.patterns.on_joined(topic, first, since.is_some(), moments);
            let fresh = open.topics.insert(topic, Span { first, ..Span::default() }).is_none();
            fresh && told["type"] == "subscribed" && about(topic) && begins_right(world, topic, since, told)
        }
        Wish::Unsubscribe(topic) if code == Some("not_subscribed") => {
            about(topic) && !open.topics.contains_key(&topic)
        }
        Wish::Unsubscribe(topic) => match open.topics.remove(&topic) {
            Some(span) => {
                // What was published and not delivered yet is nobody's.
                let (least, most) = check_topic(world, peer, topic, span.first, &span.got)?;
                missing.add(world, peer, topic, (least, most), span.got.last().copied())?;
                open.patterns.on_left(topic, moments);
                told["type"] == "unsubscribed" && about(topic)
            }
            None => false,
        },
        Wish::Watch(pattern) => {
            let known = open.patterns.has(pattern);
            if !known {
                open.patterns.on_subscribed(pattern, moments);
            }
            let right = if known { code == Some("already_subscribed") } else { told["type"] == "subscribed" };
            right && told["pattern"] == PATTERNS[pattern]
        }
        Wish::Unwatch(pattern) => {
            let known = open.patterns.has(pattern);
            open.patterns.on_unsubscribed(pattern);
            let right = if known { told["type"] == "unsubscribed" } else { code == Some("not_subscribed") };
            right && told["pattern"] == PATTERNS[pattern]
        }
        Wish::Publish(own) => {
            let place = offset.and_then(|offset| (offset as usize).checked_sub(1));
            let message = place.and_then(|at| world.truth[peer.topics[0]].get(at));
            let begins = format!("{}:{}:{own}:", peer.topics[0], peer.link.id);
            let right = message.is_some_and(|message| message.payload.starts_with(begins.as_bytes()));
            right && told["type"] == "published"
        }
        Wish::History(topic, since) => {
            told["type"] == "history" && about(topic) && is_page(world, (topic, since), told, places)
        }
    })
}

/// A subscription begins where it asked to, or says why not.
fn begins_right(world: &World, topic: usize, since: Option<u64>, told: &Value) -> bool {
    let offset = told["offset"].as_u64();
    match (since, told["recovered"] == true, told.get("gap")) {
        (None, false, None) => true,
        (Some(since), true, None) => offset == Some(since),
        (Some(since), false, Some(gap)) => {
            let oldest = gap["oldest"].as_u64();
            let behind = offset > Some(since) && oldest == offset.map(|offset| offset + 1);
            gap["kind"] == "expired" && behind && !keeps_all(world, topic)
        }
        _ => false,
    }
}

/// A page of what is kept: one run, behind the place that was asked for or with a word on what is missing.
pub(crate) fn is_page(
    world: &World,
    (topic, since): (usize, Option<u64>),
    told: &Value,
    places: &Places<'_>,
) -> bool {
    let Some(messages) = told["messages"].as_array() else { return false };
    let found: Option<Vec<_>> = messages.iter().map(|message| told_place(message, places)).collect();
    let Some(found) = found else { return false };
    let is_run = found.windows(2).all(|pair| pair[1] == (topic, pair[0].1 + 1));
    let reached = found.last().map_or(since, |(_, offset)| Some(*offset));
    let first = found.first().map(|(topic, offset)| (*topic, *offset));
    let due = since.map(|since| since + 1);
    let begins = match told.get("gap") {
        Some(gap) => !keeps_all(world, topic) && since.is_some() && gap["oldest"].as_u64() > due,
        None if due.is_some() => first.is_none_or(|(of, offset)| of == topic && Some(offset) == due),
        // All that is kept.
        None => first.is_none_or(|(of, offset)| of == topic && (offset == 1 || !keeps_all(world, topic))),
    };
    let offset = told["offset"].as_u64();
    let at = told.get("gap").is_some() && found.is_empty() || reached.is_none() || offset == reached;
    is_run && begins && at
}
