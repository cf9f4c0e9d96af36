//! Who uses the admin port: publishes, batches and lists, and keeps what each was answered.

use std::collections::VecDeque;
use std::rc::Rc;

use super::net::Link;
use super::peer::payload;
use super::rng::Rng;
use super::world::{Checked, World};

/// What a request was.
#[derive(Debug)]
enum Asked {
    /// One message.
    Publish { topic: usize, payload: Vec<u8> },
    /// Many, each with its topic.
    Batch(Vec<(usize, Vec<u8>)>),
    /// Anything else, by its request line.
    Other(&'static str),
}

/// One connection to the admin port.
pub(crate) struct Operator {
    /// Its connection.
    pub(crate) link: Rc<Link>,
    /// Requests that were answered.
    pub(crate) answered: usize,
    asked: Vec<Asked>,
    outgoing: VecDeque<u8>,
    heard: Vec<u8>,
    answers: Vec<(u16, String)>,
    left: bool,
}

impl Operator {
    /// Somebody who has asked nothing yet.
    pub(crate) fn new(link: Rc<Link>) -> Self {
        let (outgoing, heard, answers) = (VecDeque::new(), Vec::new(), Vec::new());
        Self { link, answered: 0, asked: Vec::new(), outgoing, heard, answers, left: false }
    }

    /// Whether it is still there, and is still listened to.
    pub(crate) fn stays(&self) -> bool {
        let pipe = self.link.pipe.borrow();
        !self.left && !pipe.closed && !pipe.shut
    }

    /// Asks for something that has no body.
    pub(crate) fn ask_to(&mut self, line: &'static str) {
        let head = format!("{line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
        self.outgoing.extend(head.as_bytes());
        self.asked.push(Asked::Other(line));
    }

    /// Writes a request. How many messages it has, which are numbered from `number` on.
    pub(crate) fn ask(&mut self, topics: usize, number: usize, rng: &mut Rng) -> usize {
        // What it wants to know beside what it publishes; of the connections, one loop after the other.
        const QUESTIONS: [&str; 8] = [
            "GET /connections?limit=3",
            "GET /connections?topic=t0",
            "POST /connections/close?ip=10.9.9.9",
            "POST /connections/close?ip=10.9.9.8",
            "POST /connections/unsubscribe?topic=t0&ip=10.9.9.9",
            "POST /reload",
            "GET /topics",
            "GET /healthz",
        ];
        let (line, body, asked) = match rng.below(4) {
            0 => {
                self.ask_to(rng.pick(&QUESTIONS));
                return 0;
            }
            1 => {
                let topic = rng.below(topics);
                let payload = payload(topic, None, number, rng);
                (format!("POST /publish/t{topic}"), payload.clone(), Asked::Publish { topic, payload })
            }
            _ => {
                let count = 1 + if rng.one_in(16) { rng.below(200) } else { rng.below(8) };
                let mut lines = Vec::with_capacity(count);
                let mut body = Vec::new();
                for at in 0..count {
                    let topic = rng.below(topics);
                    let payload = format!("{topic}:x:{}:", number + at).into_bytes();
                    let text = String::from_utf8_lossy(&payload);
                    body.extend_from_slice(
                        format!("{{\"topic\":\"t{topic}\",\"payload\":\"{text}\"}}\n").as_bytes(),
                    );
                    lines.push((topic, payload));
                }
                ("POST /publish".to_owned(), body, Asked::Batch(lines))
            }
        };
        let count = match &asked {
            Asked::Publish { .. } => 1,
            Asked::Batch(lines) => lines.len(),
            Asked::Other(_) => 0,
        };
        let length = body.len();
        let head = format!("{line} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n");
        self.outgoing.extend(head.as_bytes());
        self.outgoing.extend(&body);
        self.asked.push(asked);
        count
    }

    /// Lets some bytes arrive and takes some.
    pub(crate) fn send_and_read(&mut self, rng: &mut Rng) {
        let (send, read) = (1 + rng.below(20_000), 1 + rng.below(20_000));
        self.send(if rng.one_in(2) { send } else { usize::MAX });
        self.read(read);
    }

    /// Sends and reads everything. Whether there was anything to do.
    pub(crate) fn finish(&mut self, _: &mut Rng) -> bool {
        let sent = self.send(usize::MAX);
        self.read(usize::MAX) || sent
    }

    /// Breaks off, whatever it waits for.
    pub(crate) fn give_up(&mut self) {
        self.left = true;
        self.outgoing.clear();
        let mut pipe = self.link.pipe.borrow_mut();
        pipe.to_peer.clear();
        (pipe.reset, pipe.fin, pipe.gone) = (true, true, true);
        drop(pipe);
        self.link.edge();
    }

    /// Ends its side.
    pub(crate) fn leave(&mut self) {
        self.left = true;
        self.link.pipe.borrow_mut().fin = true;
        self.link.edge();
    }

    fn send(&mut self, count: usize) -> bool {
        let mut pipe = self.link.pipe.borrow_mut();
        let count = count.min(self.outgoing.len());
        if count == 0 || pipe.closed || pipe.fin {
            return false;
        }
        pipe.to_server.extend(self.outgoing.drain(..count));
        drop(pipe);
        self.link.edge();
        true
    }

    fn read(&mut self, count: usize) -> bool {
        let mut pipe = self.link.pipe.borrow_mut();
        let count = count.min(pipe.to_peer.len());
        self.heard.extend(pipe.to_peer.drain(..count));
        drop(pipe);
        self.link.report_space();
        while let Some(used) = take_answer(&self.heard) {
            let (status, body, len) = used;
            self.heard.drain(..len);
            self.answers.push((status, body));
        }
        count > 0
    }
}

/// The first answer, if it is there to its end: status, body, and how long it is.
pub(crate) fn take_answer(heard: &[u8]) -> Option<(u16, String, usize)> {
    let end = 4 + heard.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&heard[..end]).to_lowercase();
    let status = head.get(9..12)?.parse().ok()?;
    if status == 204 {
        return Some((status, String::new(), end));
    }
    if let Some(length) = head.split("content-length: ").nth(1) {
        let length: usize = length.split("\r\n").next()?.parse().ok()?;
        let body = heard.get(end..end + length)?;
        return Some((status, String::from_utf8_lossy(body).into_owned(), end + length));
    }
    let (mut at, mut body) = (end, Vec::new());
    loop {
        let line = heard[at..].windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&heard[at..at + line]).ok()?, 16).ok()?;
        let from = at + line + 2;
        body.extend_from_slice(heard.get(from..from + size)?);
        at = from + size + 2;
        if heard.len() < at {
            return None;
        }
        if size == 0 {
            return Some((status, String::from_utf8_lossy(&body).into_owned(), at));
        }
    }
}

/// Every request has its answer, in order, and what was published is what took the offset that the answer names.
pub(crate) fn check_operators(world: &mut World) -> Checked {
    let mut operators = std::mem::take(&mut world.operators);
    for operator in &mut operators {
        let id = operator.link.id;
        let answers = std::mem::take(&mut operator.answers);
        let asked = std::mem::take(&mut operator.asked);
        // A kept connection may be ended while its next request is on the way, one that does not read in an answer.
        let pipe = operator.link.pipe.borrow();
        let gone = pipe.closed || pipe.shut;
        drop(pipe);
        let cut = operator.left || gone && (world.draining || world.impatient);
        if answers.len() != asked.len() && !cut {
            let heard = String::from_utf8_lossy(&operator.heard).into_owned();
            let first = asked.get(answers.len());
            return Err(format!(
                "operator {id}: {} answers to {}, gone {gone}: {first:?} {heard}",
                answers.len(),
                asked.len()
            ));
        }
        for ((status, body), asked) in answers.iter().zip(&asked) {
            operator.answered += 1;
            match (status, asked) {
                // No room in a mailbox, a loop that was asked and not turned for long, or a drain.
                (503 | 504, _) => {}
                // A request that arrives too slowly, where nobody is waited for.
                (408, _) if world.impatient => {}
                (200, Asked::Publish { topic, payload }) => check_offset(world, *topic, payload, body)?,
                (200, Asked::Batch(lines)) => {
                    let told: Vec<&str> = body.lines().collect();
                    if told.len() != lines.len() {
                        return Err(format!("operator {id}: {} lines of {}", told.len(), lines.len()));
                    }
                    for (told, (topic, payload)) in told.iter().zip(lines) {
                        if !told.contains("\"busy\"") {
                            check_offset(world, *topic, payload, told)?;
                        }
                    }
                }
                (200, Asked::Other(line)) if is_answer_to(line, body) => {}
                (202, Asked::Other("POST /drain")) | (422, Asked::Other("POST /reload")) => {}
                _ => return Err(format!("operator {id} was answered {status} to {asked:?}: {body}")),
            }
        }
    }
    world.operators = operators;
    Ok(())
}

/// Whether an answer has what the question asks for.
fn is_answer_to(line: &str, body: &str) -> bool {
    let (verb, target) = line.split_once(' ').unwrap_or((line, ""));
    match target.split('?').next().unwrap_or_default() {
        "/connections" => {
            let mut rows = body.lines().filter(|row| row.contains("\"id\":"));
            let of_topic = !target.ends_with("topic=t0") || rows.all(|row| row.contains("\"t0\""));
            body.contains("\"connections\":") && of_topic
        }
        "/connections/close" => body.contains("\"closed\":0"),
        "/connections/unsubscribe" => body.contains("\"unsubscribed\":0"),
        "/reload" => body.contains("\"applied\":"),
        "/topics" => body.contains("\"topics\":"),
        _ => verb == "GET",
    }
}

fn check_offset(world: &World, topic: usize, payload: &[u8], told: &str) -> Checked {
    let offset = told.split("\"offset\":").nth(1).and_then(|rest| rest.split([',', '}']).next());
    let offset: usize = offset.and_then(|text| text.parse().ok()).ok_or(format!("no offset in {told}"))?;
    match world.truth[topic].get(offset.wrapping_sub(1)) {
        Some(message) if message.payload == payload => Ok(()),
        _ => Err(format!("offset {offset} of t{topic} is another message's")),
    }
}
