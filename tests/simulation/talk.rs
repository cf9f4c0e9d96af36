//! What a peer that speaks `/lines` says and hears: it subscribes, unsubscribes and publishes on one connection, and
//! each message it writes may ask for several of these.

use std::collections::{HashMap, VecDeque};

use super::check::{Missing, Places, check_topic, place_of};
use super::peer::{Peer, payload};
use super::rng::Rng;
use super::world::{Checked, World};

/// What it has asked for and was not answered yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Subscribe(usize),
    Unsubscribe(usize),
    /// Its message of this number.
    Publish(usize),
}

/// What it was sent, in order.
#[derive(Debug)]
enum Heard {
    Answer(Asked, String),
    Message(Vec<u8>),
}

/// One peer's side of the conversation.
#[derive(Debug, Default)]
pub(crate) struct Talk {
    asked: VecDeque<Asked>,
    heard: Vec<Heard>,
}

impl Talk {
    /// Makes a message of up to four commands. Publishes go to topic `home` and are numbered from `published` on.
    pub(crate) fn message(
        &mut self,
        (id, home, topics): (usize, usize, usize),
        published: &mut usize,
        rng: &mut Rng,
    ) -> Vec<u8> {
        let mut text = Vec::new();
        for _ in 0..1 + rng.below(4) {
            let topic = rng.below(topics);
            let asked = match rng.below(6) {
                0 => Asked::Publish(*published),
                1..4 => Asked::Subscribe(topic),
                _ => Asked::Unsubscribe(topic),
            };
            match asked {
                Asked::Subscribe(topic) => text.extend_from_slice(format!("sub t{topic}\n").as_bytes()),
                Asked::Unsubscribe(topic) => text.extend_from_slice(format!("unsub t{topic}\n").as_bytes()),
                Asked::Publish(number) => {
                    text.extend_from_slice(format!("pub t{home} ").as_bytes());
                    text.extend_from_slice(&payload(home, Some(id), number, rng));
                    text.push(b'\n');
                    *published += 1;
                }
            }
            self.asked.push_back(asked);
        }
        text
    }

    /// Takes a message of the server. Answers begin with a word, what is published with a number.
    pub(crate) fn hear(&mut self, payload: Vec<u8>) -> Result<(), String> {
        if payload.first().is_some_and(u8::is_ascii_digit) {
            self.heard.push(Heard::Message(payload));
            return Ok(());
        }
        let text = String::from_utf8_lossy(&payload).into_owned();
        if text.starts_with("gap t") {
            // Of what is missing, told by itself; whether that was counted is seen by what came.
            return Ok(());
        }
        let asked = self.asked.pop_front().ok_or_else(|| format!("an answer to nothing: {text}"))?;
        self.heard.push(Heard::Answer(asked, text));
        Ok(())
    }

    /// How many messages it got.
    pub(crate) fn messages(&self) -> usize {
        self.heard.iter().filter(|heard| matches!(heard, Heard::Message(_))).count()
    }
}

/// A subscription: its first offset, and what it got.
#[derive(Debug, Default)]
struct Span {
    first: u64,
    got: Vec<u64>,
}

/// Each command was answered as it had to be, and each subscription got what was published while there was one.
pub(crate) fn check_talk(
    world: &World,
    peer: &Peer,
    talk: &Talk,
    (places, stays): (&Places<'_>, bool),
    missing: &mut Missing,
) -> Checked {
    let id = peer.link.id;
    let mut open: HashMap<usize, Span> = HashMap::new();
    for heard in &talk.heard {
        let (asked, text) = match heard {
            Heard::Message(message) => {
                let place = place_of(message, places);
                let (topic, offset) = place.ok_or_else(|| format!("peer {id} got what nobody published"))?;
                let span = open.get_mut(&topic);
                let span = span.ok_or_else(|| format!("peer {id} got t{topic} without asking for it"))?;
                span.got.push(offset);
                continue;
            }
            Heard::Answer(asked, text) => (*asked, text.as_str()),
        };
        let number = || text.rsplit(' ').next().and_then(|offset| offset.parse::<u64>().ok()).unwrap_or(0);
        let right = match asked {
            Asked::Subscribe(topic) if text == "no change" => open.contains_key(&topic),
            Asked::Subscribe(topic) => {
                let span = Span { first: number() + 1, got: Vec::new() };
                text.starts_with(&format!("joined t{topic} ")) && open.insert(topic, span).is_none()
            }
            Asked::Unsubscribe(topic) if text == "no topic" => !open.contains_key(&topic),
            Asked::Unsubscribe(topic) => match open.remove(&topic) {
                Some(span) => {
                    // What was published and not delivered yet is nobody's.
                    let (least, most) = check_topic(world, peer, topic, span.first, &span.got)?;
                    missing.add(world, peer, topic, (least, most), span.got.last().copied())?;
                    text == format!("left t{topic}")
                }
                None => false,
            },
            Asked::Publish(own) => {
                let place = (number() as usize).checked_sub(1);
                let message = place.and_then(|at| world.truth[peer.topics[0]].get(at));
                let begins = format!("{}:{id}:{own}:", peer.topics[0]);
                message.is_some_and(|message| message.payload.starts_with(begins.as_bytes()))
            }
        };
        if !right {
            return Err(format!("peer {id} was answered `{text}` to {asked:?}, subscribed: {open:?}"));
        }
    }
    if stays && !talk.asked.is_empty() {
        return Err(format!("peer {id} waits for answers to {:?}", talk.asked));
    }
    // It may have been subscribed and have left before it read so.
    for asked in &talk.asked {
        if let Asked::Subscribe(topic) = *asked {
            missing.add(world, peer, topic, (0, world.truth[topic].len() as u64), None)?;
        }
    }
    for (topic, span) in open {
        let (least, most) = check_topic(world, peer, topic, span.first, &span.got)?;
        let least = if stays { most } else { least };
        missing.add(world, peer, topic, (least, most), span.got.last().copied())?;
    }
    Ok(())
}
