//! Events: what is told, as its receiver reads it and as the queue counts it, and which kinds are wanted. Plain data.

use std::net::IpAddr;
use std::sync::Arc;

use data_encoding::BASE64;
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::auth::Identity;
use crate::topic::{Message, Origin};

/// What an event takes beside its names.
const BESIDE_BYTES: usize = 128;

/// What is told of topics and connections, where no rule of a topic has to ask for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// That topics have a first subscriber.
    pub occupied: bool,
    /// That topics have lost their last one.
    pub vacated: bool,
    /// That connections are there.
    pub connected: bool,
    /// That they are not any more.
    pub disconnected: bool,
}

impl Wanted {
    /// The words of these four, in their order.
    pub const WORDS: [&'static str; 4] = ["occupied", "vacated", "connected", "disconnected"];

    /// What a list of words means; `None` if one of them means nothing here.
    #[must_use]
    pub fn of(words: &[String]) -> Option<Self> {
        let known = words.iter().all(|word| Self::WORDS.contains(&word.as_str()));
        let [occupied, vacated, connected, disconnected] =
            Self::WORDS.map(|known| words.iter().any(|word| word == known));
        known.then_some(Self { occupied, vacated, connected, disconnected })
    }
}

impl Default for Wanted {
    fn default() -> Self {
        Self { occupied: true, vacated: true, connected: false, disconnected: false }
    }
}

/// Which connection it is, and whose.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Who {
    /// The connection.
    #[serde(serialize_with = "connection_id")]
    pub connection: Origin,
    /// To whom it belongs, if it has shown a token by then.
    #[serde(flatten)]
    pub bearer: Option<Bearer>,
}

/// Whose it is, by both names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bearer(pub Arc<Identity>);

impl Serialize for Bearer {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        map.serialize_entry("identity", self.0.sub())?;
        if let Some(issuer) = self.0.issuer() {
            map.serialize_entry("issuer", issuer)?;
        }
        if let Some(claims) = self.0.carried() {
            map.serialize_entry("claims", claims)?;
        }
        map.end()
    }
}

/// As the admin port names it.
fn connection_id<S: Serializer>(connection: &Origin, to: S) -> Result<S::Ok, S::Error> {
    let Origin { loop_index, slot, generation } = connection;
    to.collect_str(&format_args!("{loop_index}:{slot}:{generation}"))
}

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub(super) enum What {
    /// A topic has its first subscriber.
    Occupied { topic: Box<str> },
    /// A topic has lost its last one.
    Vacated { topic: Box<str> },
    /// A connection was let in.
    Connected {
        #[serde(flatten)]
        who: Who,
        #[serde(skip_serializing_if = "Option::is_none")]
        address: Option<IpAddr>,
        dialect: &'static str,
    },
    /// It has ended.
    Disconnected {
        #[serde(flatten)]
        who: Who,
        dialect: &'static str,
        reason: &'static str,
    },
    /// It has subscribed to a topic.
    Subscribed {
        #[serde(flatten)]
        who: Who,
        topic: Box<str>,
    },
    /// It has left a topic.
    Unsubscribed {
        #[serde(flatten)]
        who: Who,
        topic: Box<str>,
    },
    /// It has published a message.
    Published {
        #[serde(flatten)]
        who: Who,
        topic: Box<str>,
        #[serde(serialize_with = "in_hex")]
        epoch: u64,
        offset: u64,
        /// Of the message.
        bytes: usize,
        #[serde(flatten)]
        data: Option<Data>,
    },
}

/// As clients are told it.
fn in_hex<S: Serializer>(epoch: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{epoch:016x}"))
}

/// What was published, shared with all whom it is delivered to.
#[derive(Clone, Debug)]
pub(super) struct Data(pub(super) Message);

impl PartialEq for Data {
    fn eq(&self, other: &Self) -> bool {
        self.0.payload() == other.0.payload()
    }
}

impl Eq for Data {}

impl Serialize for Data {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(1))?;
        let payload = self.0.payload();
        match std::str::from_utf8(payload) {
            Ok(text) if !self.0.is_binary() => map.serialize_entry("data", text)?,
            _ => map.serialize_entry("data_base64", &BASE64.encode(payload))?,
        }
        map.end()
    }
}

/// One event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Event {
    #[serde(flatten)]
    pub(super) what: What,
    /// When it happened, in milliseconds since 1970.
    pub(super) time: u64,
}

/// Bytes that an event of this topic alone is counted by.
pub(super) fn bytes_of_topic(topic: &str) -> usize {
    BESIDE_BYTES + topic.len()
}

impl What {
    /// A topic of this name has its first subscriber.
    pub(super) fn occupied(topic: &str) -> Self {
        Self::Occupied { topic: topic.into() }
    }

    /// It has lost its last one.
    pub(super) fn vacated(topic: &str) -> Self {
        Self::Vacated { topic: topic.into() }
    }

    /// Whether it is of a topic, whoever comes to it.
    pub(super) fn is_of_topic(&self) -> bool {
        matches!(self, Self::Occupied { .. } | Self::Vacated { .. })
    }

    /// Bytes that it is counted by.
    pub(super) fn bytes(&self) -> usize {
        let of_who = |who: &Who| who.bearer.as_ref().map_or(0, |bearer| bearer.0.memory());
        match self {
            Self::Occupied { topic } | Self::Vacated { topic } => bytes_of_topic(topic),
            Self::Connected { who, .. } | Self::Disconnected { who, .. } => BESIDE_BYTES + of_who(who),
            Self::Subscribed { who, topic } | Self::Unsubscribed { who, topic } => {
                of_who(who) + bytes_of_topic(topic)
            }
            // A frame of it may be there, deflated, too.
            Self::Published { who, topic, data, .. } => {
                let of_data = data.as_ref().map_or(0, |data| 2 * data.0.frame_len());
                of_who(who) + bytes_of_topic(topic) + of_data
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::identity::SharedRights;
    use crate::auth::token::Claims;
    use crate::topic::Draft;

    #[test]
    fn what_is_told_of_a_connection_says_which_and_whose_it_is() {
        let claims = Claims {
            sub: "al\"ice".into(),
            subscribe: None,
            publish: None,
            expires: 7,
            good_until: 7,
            issued: None,
            jti: Some("secret".into()),
            issuer: Some("us".into()),
            carried: Some(r#"{"tenant":"x"}"#.into()),
        };
        let bearer = Some(Bearer(Identity::new(claims, &mut SharedRights::default())));
        let who = Who { connection: Origin { loop_index: 1, slot: 20, generation: 300 }, bearer };
        let nobody = Who { bearer: None, ..who.clone() };
        let address = "192.0.2.7".parse().ok();
        let said = |binary, payload: &[u8]| {
            let data = Some(Data(Message::placed(Draft::encode(None, binary, payload), 1, 7)));
            What::Published {
                who: nobody.clone(),
                topic: "a".into(),
                epoch: 10,
                offset: 7,
                bytes: payload.len(),
                data,
            }
        };
        for (what, expected) in [
            (
                What::Connected { who: who.clone(), address, dialect: "json" },
                r#"{"type":"connected","connection":"1:20:300","identity":"al\"ice","issuer":"us","claims":{"tenant":"x"},"address":"192.0.2.7","dialect":"json","time":5}"#,
            ),
            (
                What::Disconnected { who: nobody.clone(), dialect: "sse", reason: "drain" },
                r#"{"type":"disconnected","connection":"1:20:300","dialect":"sse","reason":"drain","time":5}"#,
            ),
            (
                said(false, b"{\"\n"),
                r#"{"type":"published","connection":"1:20:300","topic":"a","epoch":"000000000000000a","offset":7,"bytes":3,"data":"{\"\n","time":5}"#,
            ),
            (
                said(true, b"{}"),
                r#"{"type":"published","connection":"1:20:300","topic":"a","epoch":"000000000000000a","offset":7,"bytes":2,"data_base64":"e30=","time":5}"#,
            ),
            (
                What::Unsubscribed { who, topic: "a".into() },
                r#"{"type":"unsubscribed","connection":"1:20:300","identity":"al\"ice","issuer":"us","claims":{"tenant":"x"},"topic":"a","time":5}"#,
            ),
        ] {
            let bytes = what.bytes();
            assert_eq!(serde_json::to_string(&Event { what, time: 5 }).unwrap(), expected);
            assert!(size_of::<Event>() + 32 <= bytes, "a counted event is no smaller than a real one");
        }
    }

    #[test]
    fn words_are_those_that_are_known_and_no_others() {
        let of = |words: &[&str]| Wanted::of(&words.iter().map(ToString::to_string).collect::<Vec<_>>());
        assert_eq!(of(&["vacated", "occupied"]), Some(Wanted::default()));
        let none = Wanted { occupied: false, vacated: false, connected: false, disconnected: false };
        assert_eq!((of(&[]), of(&["subscribed"]), of(&["Occupied"])), (Some(none), None, None));
        assert_eq!(of(&["disconnected"]), Some(Wanted { disconnected: true, ..none }));
    }
}
