//! `--preset`: what well-known servers want to hear, in the texts that flags could have given. Pure.
//!
//! A preset has a path for a URL without one, a greeting that subscribes, answers, a heartbeat, and the message that
//! publishes on the same kind of connection. Flags that are given take the place of what it says.

use std::collections::BTreeMap;

use clap::ValueEnum;

use crate::engine::conversation::Greeting;

/// Protocols that are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Preset {
    /// Pusher Channels: private channels, client events (--set key, secret)
    Pusher,
    /// Centrifugo's JSON protocol (--set token)
    Centrifugo,
    /// Socket.IO 3 and 4: events `join` TOPIC and `say` TOPIC, TEXT (--set token)
    Socketio,
    /// Phoenix channels, version 2 of their serializer: event `say` (--set token)
    Phoenix,
    /// graphql-transport-ws: `subscription messages(topic)`, `mutation publish(topic, data)` (--set token)
    GraphqlWs,
    /// MQTT 3.1.1, quality of service 0 (--set user, password)
    Mqtt,
    /// NATS core (--set user, password or token)
    Nats,
    /// Action Cable of Rails: channel `LoadChannel`, action `say` (--set token)
    ActionCable,
}

/// What a preset says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Script {
    /// Path and query of a URL that has none.
    pub(crate) path: String,
    /// The subprotocol to offer.
    pub(crate) subprotocol: Option<&'static str>,
    /// What is said and awaited behind the upgrade.
    pub(crate) greeting: Vec<Greeting>,
    /// What says no while something is awaited.
    pub(crate) refusal: Vec<String>,
    /// `REGEX=>TEXT`
    pub(crate) reply: Vec<String>,
    /// `PERIOD=>TEXT`
    pub(crate) every: Vec<String>,
    /// What publishes.
    pub(crate) message: String,
}

/// What `--set` may name, and the values.
#[derive(Debug)]
struct Given<'a> {
    values: BTreeMap<&'a str, &'a str>,
    period: u16,
}

impl Preset {
    /// What it says with these `NAME=VALUE`.
    pub(crate) fn script(self, set: &[String]) -> Result<Script, String> {
        let given = Given::read(self, set)?;
        Ok(match self {
            Self::Pusher => pusher(&given)?,
            Self::Centrifugo => centrifugo(&given),
            Self::Socketio => socketio(&given),
            Self::Phoenix => phoenix(&given),
            Self::GraphqlWs => graphql_ws(&given),
            Self::Mqtt => mqtt(&given),
            Self::Nats => nats(&given),
            Self::ActionCable => action_cable(&given),
        })
    }

    fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Names that `--set` may have, and how often its heart beats, in seconds; 0 if the server's does.
    fn takes(self) -> (&'static [&'static str], u16) {
        match self {
            Self::Pusher => (&["key", "secret"], 30),
            Self::Centrifugo | Self::Socketio | Self::ActionCable => (&["token"], 0),
            Self::Phoenix => (&["token"], 30),
            Self::GraphqlWs => (&["token"], 20),
            Self::Mqtt => (&["user", "password"], 30),
            Self::Nats => (&["user", "password", "token"], 60),
        }
    }
}

impl<'a> Given<'a> {
    fn read(preset: Preset, set: &'a [String]) -> Result<Self, String> {
        let (names, period) = preset.takes();
        let mut given = Self { values: BTreeMap::new(), period };
        for pair in set {
            let (name, value) =
                pair.split_once('=').ok_or_else(|| format!("--set {pair}: has to be NAME=VALUE"))?;
            if name == "period" {
                let seconds = value.parse().ok().filter(|seconds| (1..=30_000).contains(seconds));
                given.period = seconds.ok_or_else(|| format!("--set {pair}: seconds, 1 to 30000"))?;
            } else if names.contains(&name) {
                given.values.insert(name, value);
            } else {
                let known = [names, &["period"]].concat().join(", ");
                return Err(format!("--set {name}: --preset {} takes {known}", preset.name()));
            }
        }
        Ok(given)
    }

    fn get(&self, name: &str) -> Option<&'a str> {
        self.values.get(name).copied()
    }

    /// A value as it stands in a text, where a brace could begin a name.
    fn literal(&self, name: &str) -> Option<String> {
        self.get(name).map(|value| value.replace('{', "\\{"))
    }

    /// The same inside of a JSON string.
    fn json(&self, name: &str) -> Option<String> {
        let quoted = serde_json::to_string(self.get(name)?).ok()?;
        Some(quoted.get(1..quoted.len() - 1)?.replace('{', "\\{"))
    }

    /// `&NAME=VALUE` for a query; nothing if it was not given.
    fn query(&self, name: &str) -> String {
        let Some(value) = self.get(name) else { return String::new() };
        let escaped = value.bytes().map(|byte| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        });
        format!("&{name}={}", escaped.collect::<String>())
    }

    fn every(&self, text: &str) -> Vec<String> {
        vec![format!("{}s=>{text}", self.period)]
    }
}

fn hello(text: impl Into<String>) -> Greeting {
    Greeting::Hello(text.into())
}

fn awaits(pattern: &str) -> Greeting {
    Greeting::Await(pattern.to_owned())
}

fn refused(pattern: &str) -> Vec<String> {
    vec![pattern.to_owned()]
}

/// <https://pusher.com/docs/channels/library_auth_reference/pusher-websockets-protocol/>
fn pusher(given: &Given<'_>) -> Result<Script, String> {
    let missing = |name: &str| format!("--preset pusher needs --set {name}=…");
    let key = given.literal("key").ok_or_else(|| missing("key"))?;
    let secret = given.literal("secret").ok_or_else(|| missing("secret"))?;
    let channel = "private-{topic}";
    let auth = format!("{key}:{{hmac_sha256({secret},{{socket_id}}:{channel})}}");
    let subscribe =
        format!(r#"{{"event":"pusher:subscribe","data":{{"channel":"{channel}","auth":"{auth}"}}}}"#);
    Ok(Script {
        path: format!("/app/{key}?protocol=7&client=fantail-loadtest&version=1.0"),
        greeting: vec![
            // The data of an event is JSON in a string.
            awaits(r#"socket_id\\*":\\*"(?<socket_id>[0-9.]+)"#),
            hello(subscribe),
            awaits("pusher_internal:subscription_succeeded"),
        ],
        refusal: refused(r#""event":\s*"pusher(_internal)?:(subscription_)?error""#),
        reply: vec![r#""event":"pusher:ping"=>{"event":"pusher:pong","data":{}}"#.into()],
        every: given.every(r#"{"event":"pusher:ping","data":{}}"#),
        message: format!(r#"{{"event":"client-load","channel":"{channel}","data":"{{marker}}"}}"#),
        subprotocol: None,
    })
}

/// <https://centrifugal.dev/docs/transports/client_protocol>
fn centrifugo(given: &Given<'_>) -> Script {
    let token = given.json("token").map(|token| format!(r#""token":"{token}""#)).unwrap_or_default();
    Script {
        path: "/connection/websocket".into(),
        greeting: vec![
            hello(format!(r#"{{"id":1,"connect":{{{token}}}}}"#)),
            awaits(r#""connect":\s*\{"#),
            hello(r#"{"id":2,"subscribe":{"channel":"{topic}"}}"#),
            awaits(r#""subscribe":\s*\{"#),
        ],
        refusal: refused(r#""(error|disconnect)":\s*\{"#),
        // A server's ping is an empty object, and so is the answer.
        reply: vec![r"^\s*\{\}\s*$=>{}".into()],
        every: Vec::new(),
        message: r#"{"id":3,"publish":{"channel":"{topic}","data":{"text":"{marker}"}}}"#.into(),
        subprotocol: None,
    }
}

/// <https://socket.io/docs/v4/socket-io-protocol/> over <https://socket.io/docs/v4/engine-io-protocol/>
fn socketio(given: &Given<'_>) -> Script {
    let auth = given.json("token").map(|token| format!(r#"{{"token":"{token}"}}"#)).unwrap_or_default();
    Script {
        path: "/socket.io/?EIO=4&transport=websocket".into(),
        greeting: vec![
            awaits(r"^0\{"),
            hello(format!("40{auth}")),
            awaits(r"^40"),
            hello(r#"42["join","{topic}"]"#),
        ],
        // A connect error, and a disconnect.
        refusal: refused("^4[41]"),
        reply: vec!["^2$=>3".into()],
        every: Vec::new(),
        message: r#"42["say","{topic}","{marker}"]"#.into(),
        subprotocol: None,
    }
}

/// <https://hexdocs.pm/phoenix/writing_a_channels_client.html>
fn phoenix(given: &Given<'_>) -> Script {
    Script {
        path: format!("/socket/websocket?vsn=2.0.0{}", given.query("token")),
        greeting: vec![
            hello(r#"["1","1","room:{topic}","phx_join",{}]"#),
            awaits(r#""phx_reply",\s*\{.*"status":\s*"ok""#),
        ],
        refusal: refused(r#""phx_reply",\s*\{.*"status":\s*"error"|"phx_(error|close)""#),
        reply: Vec::new(),
        every: given.every(r#"[null,"h","phoenix","heartbeat",{}]"#),
        message: r#"["1","m{seq}","room:{topic}","say",{"text":"{marker}"}]"#.into(),
        subprotocol: None,
    }
}

/// <https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md>
fn graphql_ws(given: &Given<'_>) -> Script {
    let payload =
        given.json("token").map(|token| format!(r#","payload":{{"token":"{token}"}}"#)).unwrap_or_default();
    Script {
        path: "/graphql".into(),
        subprotocol: Some("graphql-transport-ws"),
        greeting: vec![
            hello(format!(r#"{{"type":"connection_init"{payload}}}"#)),
            awaits(r#""type":\s*"connection_ack""#),
            hello(
                r#"{"id":"{topic}","type":"subscribe","payload":{"query":"subscription($t:String!)\{messages(topic:$t)}","variables":{"t":"{topic}"}}}"#,
            ),
        ],
        // Who is not let in is sent away with a close frame.
        refusal: Vec::new(),
        reply: vec![r#""type":\s*"ping"=>{"type":"pong"}"#.into()],
        every: given.every(r#"{"type":"ping"}"#),
        message: r#"{"id":"m{uuid}","type":"subscribe","payload":{"query":"mutation($t:String!,$d:String!)\{publish(topic:$t,data:$d)}","variables":{"t":"{topic}","d":"{marker}"}}}"#.into(),
    }
}

/// <https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/mqtt-v3.1.1.html>, section 6 for WebSocket
fn mqtt(given: &Given<'_>) -> Script {
    let (user, password) = (given.literal("user"), given.literal("password"));
    // Section 3.1.2.3: a clean session, and which of the two follow.
    let flags = 0x02 | if user.is_some() { 0x80 } else { 0 } | if password.is_some() { 0x40 } else { 0 };
    let keep_alive = given.period.saturating_mul(2);
    let login: String = user.iter().chain(&password).map(|value| format!("{{u16({value})}}")).collect();
    let connect = format!(
        "hex:10{{varint({{u16(MQTT)}}04{flags:02x}{keep_alive:04x}{{u16(load-{{random:12}})}}{login})}}"
    );
    Script {
        path: "/mqtt".into(),
        subprotocol: Some("mqtt"),
        greeting: vec![
            hello(connect),
            // CONNACK, accepted.
            awaits(r"(?s-u)^\x20\x02.\x00"),
            hello("hex:82{varint(0001{u16({topic})}00)}"),
            awaits(r"(?s-u)^\x90"),
        ],
        // CONNACK with another code than 0, and SUBACK with a failure.
        refusal: refused(r"(?s-u)^(\x20\x02.[^\x00]|\x90\x03..\x80)"),
        reply: Vec::new(),
        every: given.every("hex:c000"),
        message: "hex:30{varint_with_marker({u16({topic})})}{marker}".into(),
    }
}

/// <https://docs.nats.io/reference/reference-protocols/nats-protocol>
fn nats(given: &Given<'_>) -> Script {
    let field = |key: &str, name: &str| {
        given.json(name).map(|value| format!(r#","{key}":"{value}""#)).unwrap_or_default()
    };
    let login = field("user", "user") + &field("pass", "password") + &field("auth_token", "token");
    Script {
        path: "/".into(),
        subprotocol: None,
        greeting: vec![
            awaits("^INFO "),
            hello(format!(
                "CONNECT {{\"verbose\":false,\"pedantic\":false,\"lang\":\"fantail-loadtest\",\"version\":\"1\",\"protocol\":1{login}}}\r\n"
            )),
            hello("SUB {topic} {topic}\r\n"),
            hello("PING\r\n"),
            awaits(r"(^|\n)PONG\r\n"),
        ],
        refusal: refused(r"(^|\n)-ERR"),
        reply: vec![r"(^|\n)PING\r\n=>PONG".to_owned() + "\r\n"],
        every: given.every("PING\r\n"),
        message: "PUB {topic} {size}\r\n{marker}\r\n".into(),
    }
}

/// <https://docs.anycable.io/misc/action_cable_protocol>
fn action_cable(given: &Given<'_>) -> Script {
    let identifier = r#"{\"channel\":\"LoadChannel\",\"topic\":\"{topic}\"}"#;
    let token = given.query("token");
    let query = if token.is_empty() { String::new() } else { format!("?{}", token.trim_start_matches('&')) };
    Script {
        path: format!("/cable{query}"),
        subprotocol: Some("actioncable-v1-json"),
        greeting: vec![
            awaits(r#""type":\s*"welcome""#),
            hello(format!(r#"{{"command":"subscribe","identifier":"{identifier}"}}"#)),
            awaits("confirm_subscription"),
        ],
        refusal: refused(r#""type":\s*"(reject_subscription|disconnect)""#),
        reply: Vec::new(),
        every: Vec::new(),
        message: format!(
            r#"{{"command":"message","identifier":"{identifier}","data":"{{\"action\":\"say\",\"text\":\"{{marker}}\"}}"}}"#
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::conversation::{Conversation, Talk};
    use crate::engine::message::{Filler, Shape};
    use crate::engine::sizes::Sizes;

    fn set(preset: Preset) -> Vec<String> {
        preset.takes().0.iter().map(|name| format!("{name}=a{{b}}\"c")).collect()
    }

    #[test]
    fn every_text_of_every_preset_can_be_read() {
        for preset in Preset::value_variants() {
            for set in [Vec::new(), set(*preset)] {
                let script = match preset.script(&set) {
                    Ok(script) => script,
                    Err(why) => {
                        assert!(*preset == Preset::Pusher && set.is_empty(), "{why}");
                        continue;
                    }
                };
                let talk = Talk {
                    greeting: script.greeting.clone(),
                    refusal: script.refusal.clone(),
                    reply: script.reply.clone(),
                    every: script.every.clone(),
                    ..Talk::default()
                };
                let binary = script.message.starts_with("hex:");
                let shape = Shape { sizes: Sizes::One(64), filler: Filler::Letters, binary };
                let read = Conversation::new(&talk, &script.path, 10)
                    .and_then(|conversation| conversation.with_message(Some(&script.message), shape));
                assert!(read.is_ok(), "{preset:?}: {}", read.unwrap_err());
            }
        }
    }

    #[test]
    fn what_a_preset_does_not_take_is_refused_with_what_it_does() {
        let refused = |preset: Preset, pair: &str| preset.script(&[pair.to_owned()]).unwrap_err();
        assert!(refused(Preset::Mqtt, "token=x").contains("--preset mqtt takes user, password, period"));
        assert!(refused(Preset::Nats, "period=0").contains("seconds"));
        assert!(refused(Preset::Nats, "user").contains("NAME=VALUE"));
        assert!(Preset::Pusher.script(&["key=k".to_owned()]).unwrap_err().contains("--set secret"));
    }
}
