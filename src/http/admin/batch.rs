//! `POST /publish`: many messages in one body, one JSON object a line, one line of answer for each.
//!
//! Owns the reading of lines and what is said about each. Driven by the admin loop in bounded runs, so that
//! a large body never holds up the loop; never touches a connection.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use memchr::memchr;
use serde::{Deserialize, Serialize};

use crate::dialect::Tools;
use crate::edition::Edition;
use crate::metrics::RefuseReason;
use crate::topic::{Draft, Published, Rank, Topic, TopicName, TopicRules};

/// How long one run may take.
const RUN_TIME: Duration = Duration::from_micros(500);

/// Lines between two looks at the clock.
const LINES_PER_LOOK: usize = 32;

/// Bytes that take as long as a line does.
const BYTES_PER_LINE: usize = 2 * 1024;

/// Bytes of answers after which a run ends.
const ANSWER_BYTES_PER_RUN: usize = 48 * 1024;

/// How long a batch waits for room in a mailbox before its lines are answered as busy.
const ROOM_MS_MAX: u64 = 1_000;

/// A batch that is being published.
#[derive(Debug)]
pub struct Batch {
    body: Vec<u8>,
    at: usize,
    /// The key its whole answer is kept under.
    pub(super) reply_key: Option<Box<str>>,
    /// The last line's topic, and how every answer about it begins: most batches are about one, or come topic by topic.
    topic: Option<(Topic, Box<[u8]>)>,
    /// As of the beginning of the last run.
    rules: Arc<TopicRules>,
    binary: Vec<u8>,
    /// What the next line waits for.
    blocked: Option<Room>,
    /// Since when nothing was published for want of room.
    blocked_since_ms: Option<u64>,
}

/// What there was no room for. Neither is read or encoded again, however often it is tried.
#[derive(Debug)]
enum Room {
    /// The message, in some loop's mailbox.
    Message(Draft),
    /// The topic of this name, in the table.
    Topic(TopicName<'static>),
}

/// What became of a line.
enum Line {
    Published(Published),
    NoRoom(Room),
    Bad(LineError),
}

/// How far a run came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Lines are left.
    More,
    /// Some loop's mailbox has no room for the next line.
    NoRoom,
    /// Every line is answered.
    Done,
}

/// A text of a line, as it lies there if it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// One line's fields.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Fields<'a> {
    #[serde(borrow)]
    topic: Text<'a>,
    #[serde(borrow)]
    payload: Option<Text<'a>>,
    #[serde(borrow)]
    payload_base64: Option<Text<'a>>,
    binary: Option<bool>,
}

/// What is said about a line that was not published.
#[derive(Serialize)]
struct Refused<'a> {
    error: &'a str,
    message: &'a str,
}

/// Why a line was not published.
struct LineError {
    reason: RefuseReason,
    text: Cow<'static, str>,
}

impl LineError {
    fn bad(text: impl Into<Cow<'static, str>>) -> Self {
        Self { reason: RefuseReason::BadRequest, text: text.into() }
    }
}

impl Room {
    /// What the line is answered when there is still none.
    fn error(&self) -> LineError {
        let text = match self {
            Self::Message(_) => "a loop is too far behind; try again",
            Self::Topic(_) => "too many topics",
        };
        LineError { reason: RefuseReason::Busy, text: text.into() }
    }
}

/// Why there is no message of a line to publish.
enum Unready {
    /// There is no room for another topic; its name.
    NoTopic(TopicName<'static>),
    Bad(LineError),
}

impl Unready {
    fn bad(text: impl Into<Cow<'static, str>>) -> Self {
        Self::Bad(LineError::bad(text))
    }
}

impl Batch {
    /// A batch of the lines of `body`.
    pub(super) fn new(body: Vec<u8>, reply_key: Option<Box<str>>) -> Self {
        Self {
            body,
            at: 0,
            reply_key,
            topic: None,
            rules: Arc::default(),
            binary: Vec::new(),
            blocked: None,
            blocked_since_ms: None,
        }
    }

    /// Bytes of its body, which it holds to its end.
    #[must_use]
    pub fn body_bytes(&self) -> usize {
        self.body.len()
    }

    /// What it has waited for room so far does not count: it was its peer that kept it from trying.
    pub fn forget_waiting(&mut self) {
        self.blocked_since_ms = None;
    }

    /// Publishes the next lines and appends their answers to `out`.
    pub fn run(
        &mut self,
        edition: &Edition,
        tools: &mut Tools<'_>,
        now_ms: u64,
        out: &mut Vec<u8>,
    ) -> Progress {
        let started = Instant::now();
        self.rules = edition.router.rules();
        let answers_max = out.len() + ANSWER_BYTES_PER_RUN;
        let body = std::mem::take(&mut self.body);
        let mut published = 0;
        let mut look = LINES_PER_LOOK;
        let progress = loop {
            let rest = body.get(self.at..).unwrap_or_default();
            let taken = memchr(b'\n', rest).map_or(rest.len(), |end| end + 1);
            let line = match rest.get(..taken) {
                Some(line) if taken > 0 => line,
                _ => break Progress::Done,
            };
            let text = line.trim_ascii_end();
            let tried = match self.blocked.take() {
                None => self.publish_line(text, edition, tools),
                Some(on) => self.try_again(on, text, edition, tools),
            };
            match tried {
                Line::Published(what) => {
                    published += 1;
                    self.blocked_since_ms = None;
                    self.push_published(out, &what);
                }
                Line::NoRoom(on) => {
                    let since = *self.blocked_since_ms.get_or_insert(now_ms);
                    if now_ms.saturating_sub(since) < ROOM_MS_MAX {
                        self.blocked = Some(on);
                        break Progress::NoRoom;
                    }
                    tools.counters.publishes_busy.add(1);
                    push_error(out, &on.error());
                }
                Line::Bad(error) => push_error(out, &error),
            }
            self.at += taken;
            // Long lines are compressed and copied: a few of them take as long as many short ones.
            look = look.saturating_sub(1 + taken / BYTES_PER_LINE);
            if look == 0 {
                if started.elapsed() > RUN_TIME {
                    break Progress::More;
                }
                look = LINES_PER_LOOK;
            }
            if out.len() > answers_max {
                break Progress::More;
            }
        };
        tools.counters.publishes.add(published);
        self.body = body;
        if self.at >= self.body.len() { Progress::Done } else { progress }
    }

    fn publish_line(&mut self, line: &[u8], edition: &Edition, tools: &mut Tools<'_>) -> Line {
        match self.encode_line(line, edition, tools) {
            Ok(draft) => self.publish_draft(draft, edition),
            Err(Unready::NoTopic(name)) => Line::NoRoom(Room::Topic(name)),
            Err(Unready::Bad(error)) => Line::Bad(error),
        }
    }

    fn try_again(&mut self, on: Room, line: &[u8], edition: &Edition, tools: &mut Tools<'_>) -> Line {
        match on {
            Room::Message(draft) => self.publish_draft(draft, edition),
            Room::Topic(name) if edition.router.topic(&name).is_err() => Line::NoRoom(Room::Topic(name)),
            Room::Topic(_) => self.publish_line(line, edition, tools),
        }
    }

    /// Publishes the message of a line on the topic that was found for it.
    fn publish_draft(&mut self, draft: Draft, edition: &Edition) -> Line {
        let Some((topic, _)) = &self.topic else { return Line::Bad(LineError::bad("the topic is missing")) };
        match edition.router.publish_as(topic, draft, None, Rank::First) {
            Ok(published) => {
                if published.epoch != topic.epoch() {
                    // It retired and came back as another topic of the same name.
                    self.topic = None;
                }
                Line::Published(published)
            }
            Err(busy) => Line::NoRoom(Room::Message(busy.draft)),
        }
    }

    /// Reads a line, finds its topic and encodes its message.
    fn encode_line(
        &mut self,
        line: &[u8],
        edition: &Edition,
        tools: &mut Tools<'_>,
    ) -> Result<Draft, Unready> {
        // Looked at as a whole, its texts need not be one by one.
        let read = match std::str::from_utf8(line) {
            Ok(text) => serde_json::from_str(text),
            Err(_) => serde_json::from_slice(line),
        };
        let fields: Fields<'_> = read.map_err(|error| Unready::bad(error.to_string()))?;
        self.find_topic(&fields.topic.0, edition)?;
        let Some((topic, _)) = &self.topic else { return Err(Unready::bad("the topic is missing")) };
        let policy = topic.policy(&self.rules);
        let message_bytes_max = policy.message_bytes_max;
        let too_large = || {
            let text = "the message is larger than message_bytes_max".into();
            Unready::Bad(LineError { reason: RefuseReason::TooLarge, text })
        };
        let (payload, binary) = match (&fields.payload, &fields.payload_base64) {
            (Some(Text(text)), None) => (text.as_bytes(), fields.binary.unwrap_or(false)),
            (None, Some(Text(digits))) => {
                // Of four digits are three bytes; what is too large is not decoded.
                if digits.len() / 4 * 3 > message_bytes_max.saturating_add(2) {
                    return Err(too_large());
                }
                let bad = "payload_base64 is not Base64 (RFC 4648, 4)";
                // Decoding takes nothing but whole groups of four, and room for exactly those.
                let room = BASE64.decode_len(digits.len()).map_err(|_| Unready::bad(bad))?;
                self.binary.resize(room, 0);
                let Ok(len) = BASE64.decode_mut(digits.as_bytes(), &mut self.binary) else {
                    return Err(Unready::bad(bad));
                };
                self.binary.truncate(len);
                let binary = fields.binary.unwrap_or(true);
                // A text frame that is not UTF-8 would make every subscriber fail the connection (RFC 6455, 8.1).
                if !binary && std::str::from_utf8(&self.binary).is_err() {
                    return Err(Unready::bad("the message is not UTF-8; leave \"binary\": false out"));
                }
                (self.binary.as_slice(), binary)
            }
            _ => return Err(Unready::bad("expects either payload or payload_base64")),
        };
        if payload.len() > message_bytes_max {
            return Err(too_large());
        }
        if let Err(invalid) = self.rules.check(policy.check, binary, payload) {
            tools.counters.found_invalid(invalid.reason);
            let text = invalid.to_string().into();
            return Err(Unready::Bad(LineError { reason: RefuseReason::InvalidMessage, text }));
        }
        Ok(tools.encode(topic, None, binary, payload))
    }

    /// Makes `topic` that of the line, looking it up only if the line before had another one.
    fn find_topic(&mut self, name: &str, edition: &Edition) -> Result<(), Unready> {
        if self.topic.as_ref().is_some_and(|(topic, _)| topic.is_named(name)) {
            return Ok(());
        }
        let name = TopicName::parse(name).map_err(|error| Unready::bad(error.reason()))?;
        let topic = match edition.router.topic(&name) {
            Ok(topic) => topic,
            Err(_) => return Err(Unready::NoTopic(name.into_owned())),
        };
        let begin = answer_begin(topic.epoch());
        self.topic = Some((topic, begin));
        Ok(())
    }

    fn push_published(&self, out: &mut Vec<u8>, published: &Published) {
        match &self.topic {
            Some((_, begin)) => out.extend_from_slice(begin),
            None => out.extend_from_slice(&answer_begin(published.epoch)),
        }
        push_json(out, &published.offset);
        out.extend_from_slice(b",\"subscribers\":");
        push_json(out, &published.subscribers);
        out.extend_from_slice(b"}\n");
    }
}

fn push_error(out: &mut Vec<u8>, error: &LineError) {
    push_json(out, &Refused { error: error.reason.label(), message: &error.text });
    out.push(b'\n');
}

fn push_json(out: &mut Vec<u8>, value: &impl Serialize) {
    // Writing to a Vec cannot fail, and no answer has a key that is no text.
    let _ = serde_json::to_writer(out, value);
}

/// What is said about a published line, up to its offset. The same for all of a topic, so it is not made for each. The
/// epoch is a string: 64 bits do not survive a reader that knows only doubles.
fn answer_begin(epoch: u64) -> Box<[u8]> {
    format!("{{\"epoch\":\"{epoch:016x}\",\"offset\":").into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::edition::Router;
    use crate::topic::{Entry, Join, Place, RouterLimits, Since, Wake};
    use crate::wire::deflate::Deflater;

    struct NoWake;

    impl Wake for NoWake {
        fn wake(&self, _: usize) {}
    }

    fn edition(limits: RouterLimits) -> Edition {
        let router = Router::new(2, limits, Box::new(NoWake)).unwrap();
        Edition::new(Settings::default(), Arc::new(router), 1, 100).unwrap()
    }

    fn run_all(body: &[u8], edition: &Edition) -> Vec<serde_json::Value> {
        let mut batch = Batch::new(body.to_vec(), None);
        let mut out = Vec::new();
        let mut deflater = Deflater::new(1, 256);
        let mut tools = Tools {
            deflater: &mut deflater,
            counters: edition.counters_of(1),
            wall: &crate::dialect::Wall::new(|| 0),
        };
        while batch.run(edition, &mut tools, 0, &mut out) != Progress::Done {}
        let text = String::from_utf8(out).unwrap();
        text.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    #[test]
    fn each_line_is_answered_in_its_place() {
        let edition = edition(RouterLimits::default());
        let body = concat!(
            r#"{"topic":"a","payload":"one"}"#,
            "\n",
            r#"{"payload":"t\u0077o\n","topic":"a"}"#,
            "\r\n",
            "\n",
            r#"{"topic":"b","payload_base64":"/w=="}"#,
            "\nrubbish\n",
            r#"{"topic":"a*","payload":""}"#,
            "\n",
            r#"{"topic":"a"}"#,
            "\n",
            r#"{"topic":"a","payload":"","payload_base64":""}"#,
            "\n",
            r#"{"topic":"a","payload_base64":"/w==","binary":false}"#,
            "\n",
            r#"{"topic":"a","payload":"x","payload":"y"}"#,
            "\n",
            r#"{"topic":"a","payload":5}"#,
            "\n",
            r#"{"topic":"a","payload":"last"}"#
        );
        let answers = run_all(body.as_bytes(), &edition);
        let offsets: Vec<_> = answers.iter().map(|answer| answer["offset"].as_u64()).collect();
        let none = None;
        let expected = [Some(1), Some(2), none, Some(1), none, none, none, none, none, none, none, Some(3)];
        assert_eq!(offsets, expected, "{answers:#?}");
        assert!(answers.iter().all(|answer| answer["offset"].is_u64() != (answer["error"] == "bad_request")));
        let epoch = edition.router.find(&TopicName::of("a")).unwrap().epoch();
        assert_eq!(answers[0]["epoch"], format!("{epoch:016x}"));
        assert_eq!(edition.counters_of(1).publishes.value(), 4);
        assert_eq!(run_all(b"", &edition).len(), 0);
        assert_eq!(run_all(b"\xff\n", &edition).len(), 1);
    }

    #[test]
    fn digits_that_are_no_base64_are_a_bad_line_and_nothing_else() {
        let edition = edition(RouterLimits::default());
        for (digits, fits) in [
            ("", true),
            ("AA==", true),
            ("AAAA", true),
            ("A", false),
            ("AA", false),
            ("AAA", false),
            ("AAAAA", false),
            ("AA=", false),
            ("AB==", false),
            ("====", false),
            ("A===", false),
            ("AAA\\nA", false),
            ("A-_A", false),
            ("\u{e9}\u{e9}", false),
        ] {
            let line = format!("{{\"topic\":\"a\",\"payload_base64\":\"{digits}\"}}");
            let answer = run_all(line.as_bytes(), &edition).remove(0);
            assert_eq!(answer["offset"].is_u64(), fits, "{line}: {answer}");
        }
    }

    #[test]
    fn what_is_too_large_is_so_in_every_way_to_write_it() {
        let mut settings = Settings::default();
        settings.limits.message_bytes_max = 4;
        let router = Router::new(2, RouterLimits::default(), Box::new(NoWake)).unwrap();
        let edition = Edition::new(settings, Arc::new(router), 1, 100).unwrap();
        let escapes = |count: usize| "\\u0041".repeat(count);
        for (field, value, error) in [
            ("payload", "1234".to_owned(), None),
            ("payload", "12345".to_owned(), Some("too_large")),
            ("payload", escapes(4), None),
            ("payload", escapes(5), Some("too_large")),
            ("payload", escapes(100_000), Some("too_large")),
            ("payload_base64", "MTIzNA==".to_owned(), None),
            ("payload_base64", "MTIzNDU=".to_owned(), Some("too_large")),
            ("payload_base64", "A".repeat(100_000), Some("too_large")),
        ] {
            let line = format!("{{\"topic\":\"a\",\"{field}\":\"{value}\"}}");
            let answer = run_all(line.as_bytes(), &edition).remove(0);
            assert_eq!(answer["error"].as_str(), error, "{line:.60}: {answer}");
        }
        for name in ["\\u0041".repeat(201), "\\u0041".repeat(100_000), "A".repeat(201)] {
            let line = format!("{{\"topic\":\"{name}\",\"payload\":\"\"}}");
            assert_eq!(run_all(line.as_bytes(), &edition)[0]["error"], "bad_request");
        }
    }

    #[test]
    fn a_large_batch_is_cut_into_runs() {
        let edition = edition(RouterLimits::default());
        let body = "{\"topic\":\"a\",\"payload\":\"x\"}\n".repeat(20_000);
        let mut batch = Batch::new(body.into_bytes(), None);
        let (mut runs, mut out) = (0, Vec::new());
        let mut deflater = Deflater::new(1, 256);
        let mut tools = Tools {
            deflater: &mut deflater,
            counters: edition.counters_of(1),
            wall: &crate::dialect::Wall::new(|| 0),
        };
        while batch.run(&edition, &mut tools, 0, &mut out) != Progress::Done {
            runs += 1;
        }
        assert!(runs >= 10, "{runs} runs");
        assert_eq!(out.iter().filter(|&&byte| byte == b'\n').count(), 20_000);
    }

    #[test]
    fn a_full_mailbox_is_waited_for_and_then_told() {
        let mut limits = RouterLimits::default();
        limits.mailbox.entries_max = 2;
        let edition = edition(limits);
        let topic = edition.router.topic(&TopicName::of("a")).unwrap();
        edition.router.join(&topic, 0, Join { local: 0, slot: 0, ticket: Place::NONE }, Since::Now).unwrap();
        topic.join_deflate();
        let body = format!("{{\"topic\":\"a\",\"payload\":\"{}\"}}\n", "x".repeat(400)).repeat(6);
        let mut batch = Batch::new(body.into_bytes(), None);
        let mut out = Vec::new();
        let mut deflater = Deflater::new(1, 256);
        let mut tools = Tools {
            deflater: &mut deflater,
            counters: edition.counters_of(1),
            wall: &crate::dialect::Wall::new(|| 0),
        };
        let mut run = |now_ms| batch.run(&edition, &mut tools, now_ms, &mut out);
        assert_eq!(run(0), Progress::NoRoom);
        for now_ms in 0..=999 {
            assert_eq!(run(now_ms), Progress::NoRoom);
        }
        let deflated = edition.counters_of(1).deflated_messages.value();
        assert_eq!(deflated, 3, "the one that waits is not deflated again");
        // The loop has come to it: two more fit.
        let mut drained = Vec::new();
        let mailbox = edition.router.mailbox(0).unwrap();
        mailbox.drain(&mut drained);
        for entry in drained {
            if let Entry::Deliver { message, .. } = entry {
                mailbox.release(1, message.frame_len() as u64);
            }
        }
        assert_eq!(run(999), Progress::NoRoom);
        assert_eq!(run(1_998), Progress::NoRoom);
        assert_eq!(run(1_999), Progress::Done);
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 6);
        assert!(lines[3].contains("\"offset\":4") && lines[4].contains("\"error\":\"busy\""), "{text}");
        assert_eq!(topic.next_offset(), 5, "a refused line takes no offset");
    }

    #[test]
    fn room_for_a_topic_is_waited_for_as_well() {
        let edition = edition(RouterLimits { topics_max: 1, ..RouterLimits::default() });
        let only = edition.router.topic(&TopicName::of("only")).unwrap();
        edition.router.join(&only, 0, Join { local: 0, slot: 0, ticket: Place::NONE }, Since::Now).unwrap();
        let body = b"{\"topic\":\"a\",\"payload\":\"x\"}\n{\"topic\":\"only\",\"payload\":\"x\"}";
        let mut batch = Batch::new(body.to_vec(), None);
        let mut out = Vec::new();
        let mut deflater = Deflater::new(1, 256);
        let mut tools = Tools {
            deflater: &mut deflater,
            counters: edition.counters_of(1),
            wall: &crate::dialect::Wall::new(|| 0),
        };
        assert_eq!(batch.run(&edition, &mut tools, 0, &mut out), Progress::NoRoom);
        assert_eq!(batch.run(&edition, &mut tools, 999, &mut out), Progress::NoRoom);
        // Meanwhile its peer did not read: it has its whole time again.
        batch.forget_waiting();
        assert_eq!(batch.run(&edition, &mut tools, 5_000, &mut out), Progress::NoRoom);
        assert_eq!(batch.run(&edition, &mut tools, 5_999, &mut out), Progress::NoRoom);
        assert!(out.is_empty());
        assert_eq!(batch.run(&edition, &mut tools, 6_000, &mut out), Progress::Done);
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].contains("too many topics") && lines[1].contains("\"offset\":1"), "{text}");
    }
}
