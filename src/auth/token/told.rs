//! What the application says of somebody whom it was asked about: the claims of a token, and more. Pure.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::carried::carried;
use super::claims::{Claim, Claims, SECONDS_MAX, Time, grants, object, text};
use crate::topic::TopicName;

/// Topics that it may have them subscribed to at once.
const TOPICS_MAX: usize = 64;

/// Bytes of what it has to say to them.
const DATA_BYTES_MAX: usize = 64 * 1024;

/// Somebody who may come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Who it is, and what they may do. They have no end, or `expires` says it.
    pub claims: Claims,
    /// What they are subscribed to at once.
    pub topics: Vec<TopicName<'static>>,
    /// JSON for the client.
    pub data: Option<Box<str>>,
}

/// An answer as it came. A name that comes twice is an error.
#[derive(Deserialize)]
struct RawTold {
    #[serde(default)]
    allow: Claim<bool>,
    #[serde(default)]
    sub: Claim<String>,
    #[serde(default)]
    exp: Claim<Time>,
    #[serde(default)]
    subscribe: Claim<Vec<String>>,
    #[serde(default)]
    publish: Claim<Vec<String>>,
    #[serde(default)]
    topics: Claim<Vec<String>>,
    #[serde(default)]
    data: Option<Box<RawValue>>,
}

impl Told {
    /// Reads an answer; `now` in seconds since 1970, `names` of claims that are kept. `None`: they may not come in.
    ///
    /// # Errors
    /// It says nothing that can be believed, and why.
    pub fn read(json: &[u8], now: u64, names: &[String]) -> Result<Option<Self>, &'static str> {
        let raw: RawTold = object(json).map_err(|_| "is no JSON object, or has a name twice")?;
        if !raw.allow.required("allow").map_err(|_| "does not say \"allow\": true or false")? {
            return Ok(None);
        }
        let sub = raw.sub.required("sub").and_then(|sub| text(sub, "sub"));
        let sub = sub.map_err(|_| "has no sub of 1 to 200 bytes")?;
        let Time(expires) =
            raw.exp.optional("exp").map_err(|_| "has an exp that is no time")?.unwrap_or(FOREVER);
        if now >= expires {
            return Err("allows somebody whose exp is past");
        }
        let no_list = "has a subscribe or publish that is no list of topics and patterns";
        let subscribe = grants(raw.subscribe, "subscribe", &sub).map_err(|_| no_list)?;
        let publish = grants(raw.publish, "publish", &sub).map_err(|_| no_list)?;
        let no_topics = "has topics that are no list of at most 64 topics";
        let topics = raw.topics.optional("topics").map_err(|_| no_topics)?.unwrap_or_default();
        if topics.len() > TOPICS_MAX {
            return Err(no_topics);
        }
        let topics = topics.into_iter().map(|topic| TopicName::parse(topic).map_err(|_| no_topics));
        let topics = topics.collect::<Result<Vec<_>, _>>()?;
        let data = raw.data.map(|data| Box::<str>::from(data.get()));
        if data.as_ref().is_some_and(|data| data.len() > DATA_BYTES_MAX) {
            return Err("has data of more than 64 KiB");
        }
        let carried = carried(json, names).map_err(
            |()| "has a claim of auth.claims twice, or no proper JSON in it, or more than 1024 bytes of them",
        )?;
        Ok(Some(Self {
            claims: Claims {
                sub,
                subscribe,
                publish,
                expires,
                good_until: expires,
                issued: Some(now),
                jti: None,
                issuer: None,
                carried,
            },
            topics,
            data,
        }))
    }
}

/// The end of who has none.
const FOREVER: Time = Time(SECONDS_MAX);

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn an_answer_says_who_and_what() {
        let json =
            br#"{"allow":true,"sub":"alice","exp":1800000060,"subscribe":["users/{sub}/**"],"publish":[],
            "topics":["lobby"],"data":{"name": "Alice"},"more":1}"#;
        let told = Told::read(json, NOW, &[]).unwrap().unwrap();
        assert_eq!((&*told.claims.sub, told.claims.expires), ("alice", NOW + 60));
        assert_eq!((told.topics[0].as_str(), told.data.as_deref()), ("lobby", Some(r#"{"name": "Alice"}"#)));
        let told = Told::read(br#"{"allow":true,"sub":"bob"}"#, NOW, &[]).unwrap().unwrap();
        assert_eq!((told.claims.expires, told.topics.len(), told.data), (SECONDS_MAX, 0, None));
        assert_eq!(Told::read(br#"{"allow":false,"sub":7}"#, NOW, &[]), Ok(None));
        let carried = |json: &str| {
            Told::read(json.as_bytes(), NOW, &["tenant".to_owned()]).map(|told| told.unwrap().claims.carried)
        };
        assert_eq!(carried(r#"{"allow":true,"sub":"a","tenant":"x"}"#), Ok(Some(r#"{"tenant":"x"}"#.into())));
        assert!(carried(r#"{"allow":true,"sub":"a","tenant":1,"tenant":1}"#).is_err());
    }

    #[test]
    fn what_is_not_meant_as_an_answer_is_none() {
        let long = format!(r#"{{"allow":true,"sub":"a","data":"{}"}}"#, "x".repeat(DATA_BYTES_MAX));
        let topics = format!(r#"{{"allow":true,"sub":"a","topics":[{}"b"]}}"#, r#""a","#.repeat(64));
        for bad in [
            "",
            "null",
            "true",
            "[true]",
            "<html>",
            "{}",
            r#"{"allow":"true","sub":"a"}"#,
            r#"{"allow":1,"sub":"a"}"#,
            r#"{"allow":true}"#,
            r#"{"allow":true,"sub":""}"#,
            r#"{"allow":true,"sub":null}"#,
            r#"{"allow":true,"allow":false,"sub":"a"}"#,
            r#"{"allow":true,"sub":"a","exp":"1900000000"}"#,
            r#"{"allow":true,"sub":"a","exp":1800000000}"#,
            r#"{"allow":true,"sub":"a","subscribe":"**"}"#,
            r#"{"allow":true,"sub":"a/b","publish":["users/{sub}"]}"#,
            r#"{"allow":true,"sub":"a","topics":["a/*\n"]}"#,
            r#"{"allow":true,"sub":"a"} {}"#,
            &long,
            &topics,
        ] {
            assert!(Told::read(bad.as_bytes(), NOW, &[]).is_err(), "{bad:.80}");
        }
    }
}
