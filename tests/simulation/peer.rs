//! A client: sends its head and frames in pieces, reads at its own pace, and keeps what it was told.

use std::collections::VecDeque;
use std::rc::Rc;

use fantail::topic::{Position, Topic};
use fantail::wire::frame::{Opcode, Sender, decode_header, push_frame};

use super::json::JsonTalk;
use super::net::Link;
use super::polls::{Polls, request};
use super::presence::Known;
use super::rng::Rng;
use super::stream::Stream;
use super::talk::Talk;

/// How a peer leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// A close frame.
    Close,
    /// The end of its stream.
    HalfClose,
    /// A reset.
    Reset,
    /// Its process ends.
    Drop,
}

/// What a peer speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Speaks {
    /// `/echo`.
    Echo,
    /// `/ws`.
    Plain,
    /// `/lines`, a dialect of the server's tests: text commands.
    Lines,
    /// `/sse`: an event stream, which names the place of each message.
    Events,
    /// `/ws` with `fantail.json.v1`: commands, answers and messages are JSON objects.
    Json,
    /// `/poll`: one answer after the other.
    Polls,
}

impl Speaks {
    /// Whether it only reads once it has asked.
    pub(crate) fn is_wordless(self) -> bool {
        matches!(self, Self::Events | Self::Polls)
    }
}

/// One client.
pub(crate) struct Peer {
    /// Its connection.
    pub(crate) link: Rc<Link>,
    /// What it speaks.
    pub(crate) speaks: Speaks,
    /// What it has said and heard, if it speaks in commands.
    pub(crate) talk: Option<Talk>,
    /// The same in JSON.
    pub(crate) json: Option<JsonTalk>,
    /// What it has asked and was answered, if it polls.
    pub(crate) polls: Option<Polls>,
    /// Topics by index; the first is the one it publishes to.
    pub(crate) topics: Vec<usize>,
    /// `?echo=0`.
    pub(crate) no_echo: bool,
    /// Bytes it reads at a time, at most.
    pub(crate) speed: usize,
    /// Payloads it sent to `/echo`.
    pub(crate) echoes: Vec<Vec<u8>>,
    /// Messages it has written for a topic.
    pub(crate) published: usize,
    /// Pings it has written.
    pub(crate) pings: usize,
    /// How it leaves, once it does.
    pub(crate) left: Option<Ending>,
    /// Payloads of the data frames, or events, that it got.
    pub(crate) messages: Vec<Vec<u8>>,
    /// What it reads, if it reads events.
    pub(crate) stream: Stream,
    /// Pongs it got.
    pub(crate) pongs: usize,
    /// Bytes of an unfinished head or frame.
    pub(crate) partial: Vec<u8>,
    /// The code of the close frame it got.
    pub(crate) close_code: Option<u16>,
    /// What was wrong with what it read.
    pub(crate) broken: Option<String>,
    upgraded: bool,
    closed: bool,
    outgoing: VecDeque<u8>,
    fin_wanted: bool,
}

impl Peer {
    /// A client that begins with the head of its request.
    pub(crate) fn new(
        link: Rc<Link>,
        speaks: Speaks,
        topics: Vec<usize>,
        no_echo: bool,
        speed: usize,
        since: Option<Position>,
    ) -> Self {
        let first = link.topics.first().map_or("", String::as_str);
        let watches = link.watches_presence.get();
        let mut target = match speaks {
            Speaks::Echo => "/echo".to_owned(),
            Speaks::Plain => format!("/ws/{first}?echo={}", u8::from(!no_echo)),
            Speaks::Lines => "/lines".to_owned(),
            Speaks::Events => format!("/sse/{first}"),
            Speaks::Json => "/ws".to_owned(),
            Speaks::Polls => String::new(),
        };
        if let Some(since) = since {
            let joint = if speaks == Speaks::Events { '?' } else { '&' };
            target.push_str(&format!("{joint}since={since}"));
        }
        if watches && speaks == Speaks::Events {
            target.push_str(if since.is_some() { "&presence=1" } else { "?presence=1" });
        }
        for name in link.topics.iter().skip(1) {
            target.push_str(&format!("&topic={name}"));
        }
        let upgrade = match speaks {
            Speaks::Events => "",
            _ => {
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            }
        };
        let protocol = match speaks {
            Speaks::Json => "Sec-WebSocket-Protocol: fantail.json.v1\r\n",
            _ => "",
        };
        let head = match speaks {
            Speaks::Polls => request(first, since.map(|since| since.to_string()), watches.then_some(None)),
            _ => format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n{upgrade}{protocol}\r\n").into_bytes(),
        };
        Self {
            link,
            speaks,
            talk: (speaks == Speaks::Lines).then(Talk::default),
            json: (speaks == Speaks::Json).then(JsonTalk::default),
            polls: (speaks == Speaks::Polls).then(|| Polls::new(since, watches)),
            topics,
            no_echo: no_echo && speaks == Speaks::Plain,
            speed,
            echoes: Vec::new(),
            published: 0,
            pings: 0,
            left: None,
            messages: Vec::new(),
            stream: Stream::new(watches),
            pongs: 0,
            partial: Vec::new(),
            close_code: None,
            broken: None,
            upgraded: false,
            closed: false,
            outgoing: head.into(),
            fin_wanted: false,
        }
    }

    /// What it knows of who is on its topic, if it has asked for that.
    pub(crate) fn known(&self) -> Option<&Known> {
        match self.speaks {
            Speaks::Events => self.stream.known.as_ref(),
            Speaks::Polls => self.polls.as_ref()?.known.as_ref(),
            _ => None,
        }
    }

    /// Writes one message for its first topic, or for its echo, or commands about `topics`; now and then in fragments
    /// with pings between.
    pub(crate) fn publish(&mut self, topics: &[Topic], rng: &mut Rng) {
        let id = self.link.id;
        let payload = match (self.topics.first(), &mut self.talk, &mut self.json) {
            (Some(home), Some(talk), _) => talk.message((id, *home, topics.len()), &mut self.published, rng),
            (Some(home), _, Some(talk)) => {
                talk.command((id, *home, self.link.rested()), topics, &mut self.published, rng)
            }
            (Some(topic), None, None) => {
                self.published += 1;
                payload(*topic, Some(self.link.id), self.published - 1, rng)
            }
            (None, ..) => {
                let mut text = format!("echo {}:", self.echoes.len()).into_bytes();
                // Once more than one turn may read or write, where the queue takes as much.
                let large = self.link.pipe.borrow().capacity > 1 << 20
                    && self.echoes.iter().all(|echo| echo.len() < 1 << 20)
                    && rng.one_in(8);
                let padding = if large { (1 << 20) + rng.below(1 << 19) } else { rng.below(3_000) };
                text.resize(text.len() + padding, b'a' + (self.echoes.len() % 26) as u8);
                self.echoes.push(text.clone());
                text
            }
        };
        let is_text = self.json.is_some() || rng.one_in(2);
        let opcode = if is_text { Opcode::Text } else { Opcode::Binary };
        if !rng.one_in(4) {
            return self.frame(opcode, true, &payload, rng);
        }
        let (mut rest, mut opcode) = (&payload[..], opcode);
        for _ in 0..1 + rng.below(4) {
            let (fragment, behind) = rest.split_at(rng.below(rest.len() + 1));
            self.frame(opcode, false, fragment, rng);
            (rest, opcode) = (behind, Opcode::Continuation);
            if rng.one_in(2) {
                self.ping(rng);
            }
        }
        self.frame(opcode, true, rest, rng);
    }

    /// Writes a ping, which the server has to answer.
    pub(crate) fn ping(&mut self, rng: &mut Rng) {
        self.pings += 1;
        let payload = vec![b'p'; rng.below(126)];
        self.frame(Opcode::Ping, true, &payload, rng);
    }

    fn frame(&mut self, opcode: Opcode, fin: bool, payload: &[u8], rng: &mut Rng) {
        let mut bytes = Vec::new();
        push_frame(&mut bytes, opcode, payload, Some((rng.next() as u32).to_ne_bytes()));
        if !fin {
            bytes[0] &= 0x7F;
        }
        self.outgoing.extend(bytes);
    }

    /// Begins to leave.
    pub(crate) fn leave(&mut self, ending: Ending, rng: &mut Rng) {
        if self.left.is_some() {
            return;
        }
        // Who only reads has no words to leave with.
        let wordless = self.speaks.is_wordless() && ending == Ending::Close;
        let ending = if wordless { Ending::HalfClose } else { ending };
        self.left = Some(ending);
        match ending {
            Ending::Close => self.frame(Opcode::Close, true, &[0x03, 0xE8], rng),
            Ending::HalfClose => self.fin_wanted = true,
            Ending::Reset | Ending::Drop => {
                self.outgoing.clear();
                let mut pipe = self.link.pipe.borrow_mut();
                // A process that ends with unread input resets, too.
                pipe.reset |= ending == Ending::Reset || !pipe.to_peer.is_empty();
                pipe.to_peer.clear();
                pipe.fin = true;
                pipe.gone = true;
                drop(pipe);
                self.link.edge();
            }
        }
    }

    /// Lets up to `count` bytes arrive at the server. True if anything did.
    pub(crate) fn send(&mut self, count: usize) -> bool {
        let mut pipe = self.link.pipe.borrow_mut();
        if pipe.closed || pipe.fin {
            self.outgoing.clear();
            return false;
        }
        let count = count.min(self.outgoing.len());
        let (front, back) = self.outgoing.as_slices();
        let first = count.min(front.len());
        pipe.to_server.extend(&front[..first]);
        pipe.to_server.extend(&back[..count - first]);
        self.outgoing.drain(..count);
        let fin = self.fin_wanted && self.outgoing.is_empty();
        pipe.fin |= fin;
        drop(pipe);
        if count > 0 || fin {
            self.link.edge();
        }
        count > 0 || fin
    }

    /// Reads up to `count` bytes. True if anything was there.
    pub(crate) fn read(&mut self, count: usize, rng: &mut Rng) -> bool {
        let mut pipe = self.link.pipe.borrow_mut();
        if pipe.gone {
            return false;
        }
        let count = count.min(pipe.to_peer.len());
        let (front, back) = pipe.to_peer.as_slices();
        let first = count.min(front.len());
        self.partial.extend_from_slice(&front[..first]);
        self.partial.extend_from_slice(&back[..count - first]);
        pipe.to_peer.drain(..count);
        let ended = pipe.to_peer.is_empty() && (pipe.shut || pipe.closed);
        drop(pipe);
        if count > 0 {
            if let Err(problem) = self.parse(rng) {
                self.broken.get_or_insert(problem);
            }
            self.link.report_space();
        }
        // Whoever is told the end ends, too, after what it has still to say.
        let ends = ended && !self.fin_wanted;
        self.fin_wanted |= ended;
        count > 0 || ends
    }

    fn parse(&mut self, rng: &mut Rng) -> Result<(), String> {
        if let Some(polls) = &mut self.polls {
            let topic = self.link.topics.first().map_or("", String::as_str);
            let next = polls.hear(&mut self.partial, topic)?;
            if self.left.is_none() {
                self.outgoing.extend(next);
            }
            return Ok(());
        }
        if !self.upgraded {
            let Some(end) = self.partial.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
                return Ok(());
            };
            let status: &[u8] =
                if self.speaks == Speaks::Events { b"HTTP/1.1 200 " } else { b"HTTP/1.1 101 " };
            if !self.partial.starts_with(status) {
                return Err(format!("no upgrade: {}", String::from_utf8_lossy(&self.partial)));
            }
            self.partial.drain(..end + 4);
            self.upgraded = true;
        }
        if self.speaks == Speaks::Events {
            return self.stream.take(&mut self.partial, &mut self.messages);
        }
        let mut bytes = std::mem::take(&mut self.partial);
        let mut at = 0;
        while let Some(header) =
            decode_header(&bytes[at..], Sender::Server).map_err(|error| error.to_string())?
        {
            let from = at + header.header_len;
            let to = from + header.payload_len as usize;
            let Some(payload) = bytes.get(from..to) else { break };
            if self.closed {
                return Err("a frame behind the close frame".to_owned());
            }
            match header.opcode {
                Opcode::Text | Opcode::Binary if header.fin => match (&mut self.talk, &mut self.json) {
                    (Some(talk), _) => talk.hear(payload.to_vec())?,
                    (None, Some(talk)) => talk.hear(payload, self.link.published())?,
                    (None, None) => self.messages.push(payload.to_vec()),
                },
                Opcode::Pong => self.pongs += 1,
                Opcode::Ping => self.frame(Opcode::Pong, true, payload, rng),
                Opcode::Close => {
                    self.closed = true;
                    self.close_code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
                    // RFC 6455, 5.5.1: a close frame is answered, by most.
                    if self.left.is_none() && !rng.one_in(8) {
                        self.leave(Ending::Close, rng);
                    }
                }
                _ => return Err("a fragment".to_owned()),
            }
            at = to;
        }
        bytes.drain(..at);
        self.partial = bytes;
        Ok(())
    }
}

/// A payload that says what it is: topic, publisher (`x` for the outside), number, and padding.
pub(crate) fn payload(topic: usize, publisher: Option<usize>, number: usize, rng: &mut Rng) -> Vec<u8> {
    let publisher = publisher.map_or("x".to_owned(), |id| id.to_string());
    let mut text = format!("{topic}:{publisher}:{number}:").into_bytes();
    let padding = match rng.below(20) {
        0 => rng.below(20_000),
        1..4 => rng.below(400),
        _ => rng.below(24),
    };
    text.extend((0..padding).map(|at| b'a' + (at % 26) as u8));
    text
}
