//! What connections say besides test messages, and around them: headers, subprotocols, a greeting, answers to what
//! comes, the text of `--message`.
//!
//! Built once from the flags and shared by all workers; everything is written for one connection at the
//! moment it leaves, so an open connection keeps nothing of it. Pure: no socket, no clock.

use std::path::{Path, PathBuf};

use fantail::wire::deflate::OFFER;
use fantail::wire::upgrade::ClientRequest;
use regex::bytes::Regex;

use crate::engine::message::Shape;
use crate::engine::template::{Around, Template};
use crate::engine::vars::{Spelling, Vars};
use crate::net::header::{is_token, parse_header};
use crate::net::target::Target;

/// What a conversation is made of, as it was asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Talk {
    /// The text message that each connection sends first.
    pub(crate) hello: Option<String>,
    /// A connection counts as open only when a message has come that matches.
    pub(crate) awaited: Option<String>,
    /// Answers to messages that match: `REGEX=>TEXT`.
    pub(crate) reply: Vec<String>,
    /// A file with one row for each connection.
    pub(crate) vars: Option<PathBuf>,
    /// Subprotocols that are offered.
    pub(crate) subprotocol: Vec<String>,
    /// Fields sent with the upgrade: `NAME: VALUE`.
    pub(crate) header: Vec<String>,
}

/// See the module's head.
#[derive(Debug, Default)]
pub(crate) struct Conversation {
    vars: Vars,
    headers: Vec<(String, String)>,
    protocols: Vec<String>,
    hello: Option<String>,
    awaited: Option<Regex>,
    replies: Vec<(Regex, String)>,
    template: Option<Template>,
}

impl Conversation {
    /// From the flags; reads the file of `--vars`. `url` is checked for names that nothing fills in.
    pub(crate) fn new(talk: &Talk, url: &str) -> Result<Self, String> {
        let vars = talk.vars.as_deref().map(read_vars).transpose()?.unwrap_or_default();
        let mut conversation = Self { vars, hello: talk.hello.clone(), ..Self::default() };
        conversation.check_names("--url", url)?;
        for header in &talk.header {
            let (name, value) = parse_header("--header", header)?;
            conversation.check_names("--header", value)?;
            conversation.headers.push((name.to_owned(), value.to_owned()));
        }
        for protocol in &talk.subprotocol {
            if protocol.is_empty() || !protocol.bytes().all(is_token) {
                return Err(format!("--subprotocol {protocol:?}: not a token (RFC 6455 section 4.1)"));
            }
            conversation.protocols.push(protocol.clone());
        }
        conversation.awaited =
            talk.awaited.as_deref().map(|pattern| regex("--await", pattern)).transpose()?;
        for rule in &talk.reply {
            let (pattern, answer) = rule
                .split_once("=>")
                .ok_or_else(|| format!("--reply {rule:?}: has to be REGEX=>TEXT, as in 'PING=>PONG'"))?;
            conversation.replies.push((regex("--reply", pattern)?, answer.to_owned()));
        }
        Ok(conversation)
    }

    /// Puts the text of `--message` around test messages of `shape`.
    pub(crate) fn with_message(mut self, text: Option<&str>, shape: Shape) -> Result<Self, String> {
        self.template = text.map(|text| Template::parse(text, shape, &self.vars)).transpose()?;
        Ok(self)
    }

    /// What `--message` puts around test messages.
    pub(crate) fn template(&self) -> Option<&Template> {
        self.template.as_ref()
    }

    /// What connection `number` says around a test message.
    pub(crate) fn around(&self, number: u64) -> Around<'_> {
        self.template.as_ref().map(|template| template.around(&self.vars, number)).unwrap_or_default()
    }

    /// Appends the upgrade request of connection `number`, with an offer to compress if `deflate` is set.
    pub(crate) fn write_request(
        &self,
        target: &Target,
        key: [u8; 16],
        number: u64,
        deflate: bool,
        out: &mut Vec<u8>,
    ) {
        let path = self.vars.fill(&target.path, number, Spelling::Url);
        let values: Vec<_> =
            self.headers.iter().map(|(_, value)| self.vars.fill(value, number, Spelling::Plain)).collect();
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

    /// What connection `number` says first.
    pub(crate) fn hello(&self, number: u64) -> Option<Vec<u8>> {
        let hello = self.hello.as_deref()?;
        Some(self.vars.fill(hello, number, Spelling::Plain).into_owned().into_bytes())
    }

    /// Whether a connection counts as open only when a certain message has come.
    pub(crate) fn awaits(&self) -> bool {
        self.awaited.is_some()
    }

    /// Whether this is that message.
    pub(crate) fn is_awaited(&self, payload: &[u8]) -> bool {
        self.awaited.as_ref().is_some_and(|awaited| awaited.is_match(payload))
    }

    /// The answer of connection `number` to a message; `$1` and `${name}` are what the pattern caught.
    pub(crate) fn reply_to(&self, payload: &[u8], number: u64) -> Option<Vec<u8>> {
        self.replies.iter().find_map(|(pattern, answer)| {
            let caught = pattern.captures(payload)?;
            let mut reply = Vec::new();
            caught.expand(self.vars.fill(answer, number, Spelling::Plain).as_bytes(), &mut reply);
            Some(reply)
        })
    }

    fn check_names(&self, flag: &str, text: &str) -> Result<(), String> {
        match self.vars.unknown_in(text) {
            Some(name) => Err(format!("{flag} {text}: nothing is called {{{name}}}; see --vars")),
            None => Ok(()),
        }
    }
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
            hello: Some("{\"join\":{i}}".into()),
            awaited: Some("^joined".into()),
            reply: vec!["^PING (\\d+)=>PONG $1".into(), "ping=>pong {i}".into()],
            vars: None,
            subprotocol: vec!["chat.v2".into(), "chat.v1".into()],
            header: vec!["Authorization: Bearer {i}".into()],
        }
    }

    #[test]
    fn the_request_has_headers_and_protocols_of_the_connection() {
        let target = Target::parse("ws://127.0.0.1:81/room/{i}").unwrap();
        let conversation = Conversation::new(&talk(), "ws://127.0.0.1:81/room/{i}").unwrap();
        let mut request = Vec::new();
        conversation.write_request(&target, [1; 16], 7, false, &mut request);
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
    fn messages_are_awaited_and_answered() {
        let conversation = Conversation::new(&talk(), "ws://h/").unwrap();
        assert_eq!(conversation.hello(5).unwrap(), b"{\"join\":5}");
        assert!(conversation.awaits() && conversation.is_awaited(b"joined 5"));
        assert!(!conversation.is_awaited(b"not joined"));
        assert_eq!(conversation.reply_to(b"PING 12", 0).unwrap(), b"PONG 12");
        assert_eq!(conversation.reply_to(b"a ping", 3).unwrap(), b"pong 3");
        assert_eq!(conversation.reply_to(b"news", 3), None);
    }

    #[test]
    fn wrong_flags_are_refused_by_name() {
        let refused = |change: &dyn Fn(&mut Talk), url: &str| {
            let mut talk = talk();
            change(&mut talk);
            Conversation::new(&talk, url).unwrap_err()
        };
        assert!(refused(&|_| (), "ws://h/{user}").contains("--url"));
        assert!(refused(&|talk| talk.awaited = Some("(".into()), "ws://h/").contains("--await"));
        assert!(refused(&|talk| talk.reply = vec!["PING".into()], "ws://h/").contains("--reply"));
        assert!(refused(&|talk| talk.subprotocol = vec!["a b".into()], "ws://h/").contains("--subprotocol"));
        for header in ["x", ": v", "Host: x", "X: a\r\nY: b", "X: {token}"] {
            let error = refused(&|talk| talk.header = vec![header.to_owned()], "ws://h/");
            assert!(error.contains("--header"), "{error}");
        }
        let missing = |talk: &mut Talk| talk.vars = Some("/nonexistent.csv".into());
        assert!(refused(&missing, "ws://h/").contains("--vars"));
    }
}
