//! What connections say besides test messages, and around them: headers, subprotocols, a greeting in steps, answers to
//! what comes, what is said every so often, the text of `--message`.
//!
//! Built once from the flags and shared by all workers; everything is written for one connection at the
//! moment it leaves, so an open connection keeps nothing of it but what a later text needs. Pure: no socket, no clock.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fantail::wire::deflate::OFFER;
use fantail::wire::upgrade::ClientRequest;
use regex::bytes::Regex;

use super::message::{Shape, random_u64};
use super::template::{Around, Template};
use super::text::{Filling, Scope, Spelling, Text};
use super::topics::{self, Topics};
use super::vars::Vars;
use crate::base::schedule::parse_duration;
use crate::net::header::{is_token, parse_header};
use crate::net::target::{Target, path_of};

/// What is said most often, so that a connection says hardly anything else.
const EVERY_MIN: Duration = Duration::from_millis(10);

/// What the ID of the last event, or what the position of a poll is called, is `{position}`.
pub(crate) const POSITION: &str = "position";
/// What tells the position in Fantail's answer to a poll.
const POSITION_FIELD: &str = r"(?im)^Fantail-Position: *(?<position>\S+)";

/// What kind of client a connection is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Client {
    /// WebSocket.
    #[default]
    Ws,
    /// An event stream, as EventSource reads it.
    Sse,
    /// One HTTP request after the other, each of which waits for a message.
    Poll,
}

/// What a conversation is made of, as it was asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Talk {
    /// What is said and awaited behind the upgrade, in this order.
    pub(crate) greeting: Vec<Greeting>,
    /// Messages of the greeting that say no, as a regular expression each.
    pub(crate) refusal: Vec<String>,
    /// Answers to messages that match: `REGEX=>TEXT`.
    pub(crate) reply: Vec<String>,
    /// What is said every so often: `25s=>TEXT`.
    pub(crate) every: Vec<String>,
    /// A file with one row for each connection.
    pub(crate) vars: Option<PathBuf>,
    /// Subprotocols that are offered.
    pub(crate) subprotocol: Vec<String>,
    /// Fields sent with the upgrade: `NAME: VALUE`.
    pub(crate) header: Vec<String>,
    /// Topics and their members.
    pub(crate) topics: topics::Wanted,
    /// What kind of client it is; by the URL's scheme unless it is said.
    pub(crate) client: Client,
    /// Where requests go that go on at a position; to the URL unless it is said.
    pub(crate) resume_url: Option<String>,
    /// Patterns that catch a poll's position in its answer.
    pub(crate) position: Vec<String>,
}

/// A step of the greeting, as it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Greeting {
    /// A message: text, or bytes behind `hex:`.
    Hello(String),
    /// A pattern that a message has to match before it goes on.
    Await(String),
}

/// A step of the greeting.
#[derive(Debug)]
pub(crate) enum Step {
    /// Say this, for each topic of the connection if the text names it.
    Say(Text),
    /// Wait for messages that match: one, or one for each topic if what was said before it was said for each.
    Await {
        /// What they match; its named groups catch what later texts name.
        pattern: Regex,
        /// Whether one comes for each topic.
        each: bool,
    },
}

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Conversation {
    vars: Vars,
    topics: Topics,
    path: Text,
    headers: Vec<(String, Text)>,
    protocols: Vec<String>,
    steps: Vec<Step>,
    caught: Vec<String>,
    refusals: Vec<Regex>,
    replies: Vec<(Regex, Text)>,
    every: Vec<(Duration, Text)>,
    template: Option<Template>,
    client: Client,
    resume_path: Option<Text>,
    positions: Vec<Regex>,
}

impl Conversation {
    /// From the flags, for so many connections to a URL of this path; reads the file of `--vars`.
    pub(crate) fn new(talk: &Talk, path: &str, connections: u64) -> Result<Self, String> {
        let vars = talk.vars.as_deref().map(read_vars).transpose()?.unwrap_or_default();
        let name = format!("load-{:016x}", random_u64());
        let shared = shared_columns(talk, path, vars.names());
        let topics = Topics::new(&talk.topics, name, connections, &vars, &shared)?;
        let positions = positions(talk)?;
        let known: Vec<String> = match talk.client {
            Client::Ws => Vec::new(),
            Client::Sse => vec![POSITION.to_owned()],
            Client::Poll => positions
                .iter()
                .flat_map(|pattern| pattern.capture_names().flatten())
                .map(str::to_owned)
                .collect(),
        };
        let scope = Scope { columns: vars.names(), caught: &known, listed: true, ..Scope::default() };
        let path = Text::read("--url", path, scope, Spelling::Url)?;
        let resume_path = talk.resume_url.as_deref().map(path_of);
        let resume_path =
            resume_path.map(|path| Text::read("--resume-url", &path, scope, Spelling::Url)).transpose()?;
        let mut headers = Vec::new();
        for header in &talk.header {
            let (name, value) = parse_header("--header", header)?;
            headers.push((name.to_owned(), Text::read("--header", value, scope, Spelling::Plain)?));
        }
        for protocol in &talk.subprotocol {
            if protocol.is_empty() || !protocol.bytes().all(is_token) {
                return Err(format!("--subprotocol {protocol:?}: not a token (RFC 6455 section 4.1)"));
            }
        }
        let goes_on = path.names_caught()
            || resume_path.as_ref().is_some_and(Text::names_caught)
            || headers.iter().any(|(_, value)| value.names_caught());
        if talk.client == Client::Poll && !goes_on {
            return Err("--client poll: say how a client goes on, as in --resume-url \
                        'http://HOST/poll/{topic}?since={position}'"
                .into());
        }
        let scope = Scope { caught: &[], ..scope };
        let (mut steps, mut caught) = (Vec::new(), Vec::new());
        for greeting in &talk.greeting {
            let scope = Scope { caught: &caught, ..scope };
            let step = step(greeting, scope, steps.last())?;
            if let Step::Await { pattern, .. } = &step {
                caught.extend(pattern.capture_names().flatten().map(str::to_owned));
            }
            steps.push(step);
        }
        let scope = Scope { caught: &caught, ..scope };
        if steps.iter().all(|step| matches!(step, Step::Say(_))) && !talk.refusal.is_empty() {
            return Err("--refusal: nothing is awaited that could be refused: see --await".into());
        }
        let refusals = talk.refusal.iter().map(|pattern| regex("--refusal", pattern));
        let refusals = refusals.collect::<Result<_, _>>()?;
        let replies = talk.reply.iter().map(|rule| reply(rule, scope)).collect::<Result<_, _>>()?;
        let every = talk.every.iter().map(|rule| every(rule, scope)).collect::<Result<_, _>>()?;
        let protocols = talk.subprotocol.clone();
        let client = talk.client;
        Ok(Self {
            topics,
            path,
            headers,
            protocols,
            steps,
            refusals,
            replies,
            every,
            template: None,
            client,
            resume_path,
            positions,
            caught,
            vars,
        })
    }

    /// What kind of client it is.
    #[inline]
    pub(crate) fn client(&self) -> Client {
        self.client
    }

    /// Appends the request of a client of HTTP, which goes on at the position that `filling` has caught, if any.
    pub(crate) fn write_get(&self, target: &Target, filling: &Filling<'_>, out: &mut Vec<u8>) {
        let goes_on = filling.caught.iter().any(|(_, value)| !value.is_empty());
        let path = self.resume_path.as_ref().filter(|_| goes_on).unwrap_or(&self.path).fill_text(filling);
        out.extend_from_slice(format!("GET {path} HTTP/1.1\r\n").as_bytes());
        let mut field = |name: &str, value: &str| {
            // A control that a server has put there must not end the field (RFC 9110 section 5.5).
            let value = value.bytes().filter(|byte| *byte >= b' ' && *byte != 0x7f);
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(b": ");
            out.extend(value);
            out.extend_from_slice(b"\r\n");
        };
        field("Host", &target.authority);
        let given = |name: &str| self.headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
        if self.client == Client::Sse {
            // HTML standard section 9.2.2: what a client of an event stream says.
            for (name, value) in [("Accept", "text/event-stream"), ("Cache-Control", "no-cache")] {
                if !given(name) {
                    field(name, value);
                }
            }
            let id = filling.caught.iter().find(|(name, id)| name == POSITION && !id.is_empty());
            if let Some((_, id)) = id.filter(|_| !given("Last-Event-ID")) {
                field("Last-Event-ID", id);
            }
        }
        for (name, value) in &self.headers {
            let filled = value.fill_text(filling);
            // What nothing has been caught for yet is not said.
            if !(filled.is_empty() && value.names_caught()) {
                field(name, &filled);
            }
        }
        out.extend_from_slice(b"\r\n");
    }

    /// What an answer to a poll says about where to go on: each value is in its head, or else in its body.
    pub(crate) fn positions_in(&self, head: &[u8], body: &[u8]) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for pattern in &self.positions {
            let Some(groups) = pattern.captures(head).or_else(|| pattern.captures(body)) else { continue };
            for name in pattern.capture_names().flatten() {
                if let Some(value) = groups.name(name) {
                    found.push((name.to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
                }
            }
        }
        found
    }

    /// Puts the text of `--message` around test messages of `shape`.
    pub(crate) fn with_message(mut self, text: Option<&str>, shape: Shape) -> Result<Self, String> {
        self.template =
            text.map(|text| Template::read("--message", text, shape, self.scope())).transpose()?;
        Ok(self)
    }

    /// What texts beside this conversation may name.
    pub(crate) fn scope(&self) -> Scope<'_> {
        Scope { columns: self.vars.names(), caught: &self.caught, listed: true, ..Scope::default() }
    }

    /// Who is subscribed to what.
    pub(crate) fn topics(&self) -> &Topics {
        &self.topics
    }

    /// What names stand for on connection `number`.
    pub(crate) fn filling<'a>(&'a self, number: u64, caught: &'a [(String, String)]) -> Filling<'a> {
        Filling { number, vars: &self.vars, topics: &self.topics, topic: None, caught, message: None }
    }

    /// What `--message` puts around test messages.
    pub(crate) fn template(&self) -> Option<&Template> {
        self.template.as_ref()
    }

    /// What stands around a test message.
    pub(crate) fn around(&self, filling: &Filling<'_>) -> Around<'_> {
        self.template.as_ref().map(|template| template.around(filling)).unwrap_or_default()
    }

    /// Appends the upgrade request of a connection, with an offer to compress if `deflate` is set. `path` is that of
    /// the target if it is another one than the URL's.
    pub(crate) fn write_request(
        &self,
        target: &Target,
        path: Option<&Text>,
        key: [u8; 16],
        filling: &Filling<'_>,
        deflate: bool,
        out: &mut Vec<u8>,
    ) {
        let path = path.unwrap_or(&self.path).fill_text(filling);
        let values: Vec<Cow<'_, str>> =
            self.headers.iter().map(|(_, value)| value.fill_text(filling)).collect();
        let names = self.headers.iter().map(|(name, _)| name.as_str());
        let mut headers: Vec<(&str, &str)> = names.zip(values.iter().map(AsRef::as_ref)).collect();
        if deflate {
            headers.push(("Sec-WebSocket-Extensions", OFFER));
        }
        let protocols: Vec<&str> = self.protocols.iter().map(String::as_str).collect();
        let (host, target) = (target.authority.as_str(), path.as_ref());
        let request =
            ClientRequest { host, target, key, origin: None, protocols: &protocols, headers: &headers };
        request.write_into(out);
    }

    /// Whether an answer may choose this subprotocol: one that was offered, or none (RFC 6455 section 4.1).
    pub(crate) fn accepts_protocol(&self, chosen: Option<&str>) -> bool {
        chosen.is_none_or(|chosen| self.protocols.iter().any(|offered| offered == chosen))
    }

    /// What is said and awaited behind the upgrade.
    pub(crate) fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Whether a message of the greeting says no.
    pub(crate) fn is_refused_by(&self, payload: &[u8]) -> bool {
        self.refusals.iter().any(|pattern| pattern.is_match(payload))
    }

    /// Whether what `--await` caught is needed when a connection is open.
    pub(crate) fn keeps_caught(&self) -> bool {
        !self.caught.is_empty()
            && (self.replies.iter().any(|(_, answer)| answer.names_caught())
                || self.every.iter().any(|(_, text)| text.names_caught())
                || self.template.as_ref().is_some_and(Template::names_caught))
    }

    /// Whether connections differ by their topic in what they ask for or say, so that a publisher can't be in all.
    pub(crate) fn greets_by_topic(&self) -> bool {
        let names = |text: &Text| text.names_topic() || !text.columns().is_empty();
        self.steps.iter().any(|step| matches!(step, Step::Say(text) if names(text)))
    }

    /// The answer to a message, and whether it was given as bytes.
    pub(crate) fn reply_to(&self, payload: &[u8], filling: &Filling<'_>) -> Option<(Vec<u8>, bool)> {
        self.replies.iter().find_map(|(pattern, answer)| {
            let caught = pattern.captures(payload)?;
            Some((answer.answer(filling, &caught), answer.is_binary()))
        })
    }

    /// Whether anything is answered.
    pub(crate) fn replies(&self) -> bool {
        !self.replies.is_empty()
    }

    /// What is said every so often.
    pub(crate) fn every(&self) -> &[(Duration, Text)] {
        &self.every
    }
}

/// The patterns of `--position`, checked.
fn positions(talk: &Talk) -> Result<Vec<Regex>, String> {
    let unused = [
        ("--resume-url", talk.resume_url.is_some() && talk.client == Client::Ws),
        ("--position", !talk.position.is_empty() && talk.client != Client::Poll),
        ("--hello and --await", !talk.greeting.is_empty() && talk.client != Client::Ws),
        ("--refusal", !talk.refusal.is_empty() && talk.client != Client::Ws),
        ("--reply", !talk.reply.is_empty() && talk.client != Client::Ws),
        ("--every", !talk.every.is_empty() && talk.client != Client::Ws),
        ("--subprotocol", !talk.subprotocol.is_empty() && talk.client != Client::Ws),
    ];
    if let Some((flag, _)) = unused.iter().find(|(_, unused)| *unused) {
        let client = clap::ValueEnum::to_possible_value(&talk.client);
        let client = client.map(|client| client.get_name().to_owned()).unwrap_or_default();
        return Err(format!("{flag}: not with clients of --client {client}"));
    }
    if talk.client != Client::Poll {
        return Ok(Vec::new());
    }
    let default = [POSITION_FIELD.to_owned()];
    let patterns = if talk.position.is_empty() { &default[..] } else { &talk.position };
    let read = |pattern: &String| {
        let read = regex("--position", pattern)?;
        match read.capture_names().flatten().next() {
            Some(_) => Ok(read),
            None => Err(format!("--position {pattern}: name what it catches, as in (?<position>\\d+)")),
        }
    };
    patterns.iter().map(read).collect()
}

/// Columns that both the texts of subscribers and those of the publisher name.
fn shared_columns(talk: &Talk, path: &str, columns: &[String]) -> Vec<usize> {
    let names = |text: &str, column: &str| {
        text.contains(&format!("{{{column}}}")) || text.contains(&format!("{{{column}|"))
    };
    let greeting = talk.greeting.iter().filter_map(|step| match step {
        Greeting::Hello(text) => Some(text.as_str()),
        Greeting::Await(_) => None,
    });
    let subscribers: Vec<&str> = greeting.chain([path]).chain(talk.resume_url.as_deref()).collect();
    let is_shared = |column: &String| {
        subscribers.iter().any(|text| names(text, column))
            && talk.topics.published.iter().any(|text| names(text, column))
    };
    columns.iter().enumerate().filter(|(_, column)| is_shared(column)).map(|(index, _)| index).collect()
}

fn step(greeting: &Greeting, scope: Scope<'_>, before: Option<&Step>) -> Result<Step, String> {
    match greeting {
        Greeting::Hello(text) => Text::read("--hello", text, scope, Spelling::Plain).map(Step::Say),
        Greeting::Await(pattern) => Ok(Step::Await {
            pattern: regex("--await", pattern)?,
            each: matches!(before, Some(Step::Say(text)) if text.names_topic()),
        }),
    }
}

/// `REGEX=>TEXT`; what groups caught is `{1}` and `{name}` in the text.
fn reply(rule: &str, scope: Scope<'_>) -> Result<(Regex, Text), String> {
    let (pattern, answer) = rule
        .split_once("=>")
        .ok_or_else(|| format!("--reply {rule:?}: has to be REGEX=>TEXT, as in 'PING=>PONG'"))?;
    let pattern = regex("--reply", pattern)?;
    // As other tools write it; sent as it stands it would be a mistake that nobody sees.
    let dollar = (1..pattern.captures_len()).find(|group| answer.contains(&format!("${group}")));
    if let Some(group) = dollar {
        return Err(format!(
            "--reply {rule}: what group {group} caught is written {{{group}}}, not ${group}"
        ));
    }
    let text = Text::read("--reply", answer, Scope { groups: Some(&pattern), ..scope }, Spelling::Plain)?;
    Ok((pattern, text))
}

/// `25s=>TEXT`
fn every(rule: &str, scope: Scope<'_>) -> Result<(Duration, Text), String> {
    let wrong = |what: &str| format!("--every {rule}: {what}");
    let (period, text) = rule.split_once("=>").ok_or_else(|| wrong("has to be as in '25s=>PING'"))?;
    let period = parse_duration(period).map_err(|error| wrong(&error))?;
    if period < EVERY_MIN {
        return Err(wrong("not more often than every 10ms"));
    }
    Ok((period, Text::read("--every", text, scope, Spelling::Plain)?))
}

fn read_vars(path: &Path) -> Result<Vars, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("--vars {}: {error}", path.display()))?;
    Vars::parse(&text).map_err(|error| format!("--vars {}: {error}", path.display()))
}

fn regex(flag: &str, pattern: &str) -> Result<Regex, String> {
    Regex::new(pattern).map_err(|error| format!("{flag} {pattern:?}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn talk() -> Talk {
        Talk {
            greeting: vec![Greeting::Hello("{\"join\":{i}}".into()), Greeting::Await("^joined".into())],
            reply: vec!["^PING (\\d+)=>PONG {1}".into(), "ping=>pong {i}".into()],
            subprotocol: vec!["chat.v2".into(), "chat.v1".into()],
            header: vec!["Authorization: Bearer {i}".into()],
            ..Talk::default()
        }
    }

    #[test]
    fn the_request_has_headers_and_protocols_of_the_connection() {
        let target = Target::parse("ws://127.0.0.1:81/room/{i}").unwrap();
        let conversation = Conversation::new(&talk(), &target.path, 10).unwrap();
        let mut request = Vec::new();
        conversation.write_request(
            &target,
            None,
            [1; 16],
            &conversation.filling(7, &[]),
            false,
            &mut request,
        );
        let request = String::from_utf8(request).unwrap();
        assert!(request.starts_with("GET /room/7 HTTP/1.1\r\nHost: 127.0.0.1:81\r\n"), "{request}");
        for line in ["Authorization: Bearer 7", "Sec-WebSocket-Protocol: chat.v2"] {
            assert!(request.contains(&format!("\r\n{line}\r\n")), "{request}");
        }
        assert!(!request.contains("Extensions"), "{request}");
        assert!(conversation.accepts_protocol(Some("chat.v1")) && conversation.accepts_protocol(None));
        assert!(!conversation.accepts_protocol(Some("chat.v3")));
    }

    #[test]
    fn messages_are_answered_in_the_one_language() {
        let conversation = Conversation::new(&talk(), "/", 10).unwrap();
        let reply = |payload: &[u8], number| {
            conversation.reply_to(payload, &conversation.filling(number, &[])).map(|(reply, _)| reply)
        };
        assert_eq!(reply(b"PING 12", 0).unwrap(), b"PONG 12");
        assert_eq!(reply(b"a ping", 3).unwrap(), b"pong 3");
        assert_eq!(reply(b"news", 3), None);
        // What has no group is no group, so that GraphQL can be said.
        let variable = vec!["start=>mutation M($t:String!)".into(), "(?<id>\\w+)!=>{id} and $id".into()];
        let conversation = Conversation::new(&Talk { reply: variable, ..talk() }, "/", 10).unwrap();
        let reply = |payload: &[u8]| {
            conversation.reply_to(payload, &conversation.filling(0, &[])).map(|(reply, _)| reply)
        };
        assert_eq!(reply(b"start").unwrap(), b"mutation M($t:String!)");
        assert_eq!(reply(b"x9!").unwrap(), b"x9 and $id");
    }

    #[test]
    fn a_greeting_is_said_and_awaited_in_its_order() {
        let greeting = vec![
            Greeting::Await("id\":\"(?<socket>[0-9.]+)\"".into()),
            Greeting::Hello("join {topic} {socket}".into()),
            Greeting::Await("joined".into()),
            Greeting::Hello("hex:c0 00".into()),
        ];
        let conversation = Conversation::new(&Talk { greeting, ..talk() }, "/", 10).unwrap();
        let steps = conversation.steps();
        assert!(matches!(steps[0], Step::Await { each: false, .. }));
        assert!(matches!(&steps[1], Step::Say(text) if text.names_topic() && text.names_caught()));
        assert!(matches!(steps[2], Step::Await { each: true, .. }));
        assert!(matches!(&steps[3], Step::Say(text) if text.is_binary()));
        assert!(conversation.greets_by_topic() && !conversation.keeps_caught());
    }

    #[test]
    fn wrong_flags_are_refused_by_name() {
        let refused = |change: &dyn Fn(&mut Talk), path: &str| {
            let mut talk = talk();
            change(&mut talk);
            Conversation::new(&talk, path, 10).unwrap_err()
        };
        assert!(refused(&|_| (), "/{user}").contains("--url"));
        let greeting = |greeting: Greeting| move |talk: &mut Talk| talk.greeting = vec![greeting.clone()];
        assert!(refused(&greeting(Greeting::Await("(".into())), "/").contains("--await"));
        assert!(refused(&greeting(Greeting::Hello("{nobody}".into())), "/").contains("--hello"));
        assert!(refused(&greeting(Greeting::Hello("hex:c".into())), "/").contains("hexadecimal"));
        for (rule, says) in [("PING", "REGEX=>TEXT"), ("(a)=>$1", "{1}"), ("a=>{name}", "{name}")] {
            let error = refused(&|talk| talk.reply = vec![rule.into()], "/");
            assert!(error.contains("--reply") && error.contains(says), "{error}");
        }
        for (rule, says) in [("5s", "25s=>PING"), ("5=>x", "unit"), ("1ms=>x", "10ms"), ("5s=>{x}", "{x}")] {
            let error = refused(&|talk| talk.every = vec![rule.into()], "/");
            assert!(error.contains("--every") && error.contains(says), "{error}");
        }
        assert!(refused(&|talk| talk.subprotocol = vec!["a b".into()], "/").contains("--subprotocol"));
        for header in ["x", ": v", "Host: x", "X: a\r\nY: b", "X: {token}"] {
            let error = refused(&|talk| talk.header = vec![header.to_owned()], "/");
            assert!(error.contains("--header"), "{error}");
        }
        let missing = |talk: &mut Talk| talk.vars = Some("/nonexistent.csv".into());
        assert!(refused(&missing, "/").contains("--vars"));
    }
}
