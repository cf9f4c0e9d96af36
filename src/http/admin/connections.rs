//! `/connections`: reading what is asked of the client loops, and writing what they answered.
//!
//! Pure: the admin loop carries the question to the loops and their parts back.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::auth::revoked::Revoked;
use crate::connection::inquiry::{BearerFilter, ConnectionRow, Filter, Part, Question};
use crate::topic::name::NameError;
use crate::topic::{Key, LevelPattern, PatternFault, TopicName};
use crate::wire::http::params::{Params, whole};
use crate::wire::network::Network;

/// Connections on one page, and the default.
const LIMIT_MAX: usize = 1_000;

/// Bytes of the text in a close frame (RFC 6455, 5.5: 125 with the code).
const REASON_BYTES_MAX: usize = 123;

/// Seconds for which a revocation is kept, and the most.
const REVOKED_SECONDS: usize = 86_400;
const REVOKED_SECONDS_MAX: u64 = 366 * 86_400;

/// The close code of connections whose token is revoked.
const REVOKED_CODE: u16 = 3003;

/// A question and the loops it is for.
#[derive(Debug)]
pub struct Ask {
    /// What is asked.
    pub question: Question,
    /// The first loop.
    pub first_loop: usize,
    /// How many loops from that one on are asked at once. A list asks one loop after the other.
    pub loops: usize,
}

/// Why a request cannot be asked.
#[derive(Debug)]
pub(super) enum Unasked {
    /// One line on what is wrong with it.
    Bad(String),
    /// It names a connection that cannot be.
    Nothing,
}

impl<T: Into<String>> From<T> for Unasked {
    fn from(text: T) -> Self {
        Self::Bad(text.into())
    }
}

/// `GET /connections`.
pub(super) fn list(query: &str, loops: usize) -> Result<Ask, Unasked> {
    let params = Params::read(
        query,
        b"",
        &["topic", "ip", "identity", "issuer", "outbox_bytes_min", "cursor", "limit"],
    )?;
    let (filter, _) = filter(&params)?;
    let limit = params.number("limit", LIMIT_MAX)?;
    if !(1..=LIMIT_MAX).contains(&limit) {
        return Err(format!("limit expects 1 to {LIMIT_MAX}").into());
    }
    let (first_loop, from) = match params.text("cursor") {
        None => (0, 0),
        Some(cursor) => {
            let parts = cursor.split_once(':').and_then(|(index, slot)| Some((whole(index)?, whole(slot)?)));
            parts.filter(|(index, _)| *index < loops).ok_or("cursor expects the next of an earlier answer")?
        }
    };
    Ok(Ask { question: Question::List { filter, from, limit }, first_loop, loops: 1 })
}

/// `GET /connections/ID`.
pub(super) fn one(id: &str, loops: usize) -> Result<Ask, Unasked> {
    let (first_loop, key) = connection_id(id).ok_or("an id is LOOP:SLOT:GENERATION")?;
    if first_loop >= loops {
        return Err(Unasked::Nothing);
    }
    let filter = Filter { key: Some(key), ..Filter::default() };
    Ok(Ask { question: Question::List { filter, from: 0, limit: 1 }, first_loop, loops: 1 })
}

/// `POST /connections/close`.
pub(super) fn close(query: &str, body: &[u8], loops: usize) -> Result<Ask, Unasked> {
    let params = Params::read(
        query,
        body,
        &["topic", "ip", "identity", "issuer", "id", "outbox_bytes_min", "all", "code", "reason"],
    )?;
    let (filter, first_loop) = filter(&params)?;
    let restricted = filter.topic.is_some()
        || filter.network.is_some()
        || filter.key.is_some()
        || filter.bearer.is_some()
        || filter.outbox_bytes_min.is_some();
    if restricted == params.is_set("all")? {
        return Err(
            "expects topic, ip, identity, issuer, id or outbox_bytes_min, or all=1 to close everybody".into(),
        );
    }
    let code = params.number("code", 1000)?;
    // RFC 6455, 7.4: the others are the protocol's own or must not be sent.
    if !matches!(code, 1000 | 1001 | 1008 | 1011..=1013 | 3000..=4999) {
        return Err("code expects 1000, 1001, 1008, 1011 to 1013 or 3000 to 4999".into());
    }
    let reason = params.text("reason").unwrap_or_default();
    if reason.len() > REASON_BYTES_MAX {
        return Err(format!("reason expects at most {REASON_BYTES_MAX} bytes").into());
    }
    let question = Question::Close { filter, code: code as u16, reason: reason.into() };
    targets(question, first_loop, loops)
}

/// `POST /revoke`: what is revoked for how many seconds, and the question that closes those who have it.
pub(super) fn revoke(query: &str, body: &[u8], loops: usize) -> Result<(Revoked, u64, Ask), Unasked> {
    let params = Params::read(query, body, &["identity", "issuer", "jti", "seconds"])?;
    let seconds = params.number("seconds", REVOKED_SECONDS)? as u64;
    if !(1..=REVOKED_SECONDS_MAX).contains(&seconds) {
        return Err(format!("seconds expects 1 to {REVOKED_SECONDS_MAX}").into());
    }
    let (identity, token) = (params.text("identity"), params.text("jti"));
    let issuer = params.text("issuer").filter(|issuer| !issuer.is_empty());
    let revoked = match (identity, token) {
        (Some(sub), None) if !sub.is_empty() => {
            Revoked::Bearer { issuer: issuer.map(Into::into), sub: sub.into() }
        }
        (None, Some(jti)) if !jti.is_empty() && issuer.is_none() => Revoked::Token(jti.into()),
        _ => {
            return Err(
                "expects identity or jti: whose tokens, or which one; and issuer beside identity only".into(),
            );
        }
    };
    let bearer = BearerFilter {
        identity: identity.map(Into::into),
        issuer: issuer.map(Into::into),
        token: token.map(Into::into),
    };
    let filter = Filter { bearer: Some(Box::new(bearer)), ..Filter::default() };
    let question = Question::Close { filter, code: REVOKED_CODE, reason: "the token was revoked".into() };
    Ok((revoked, seconds, Ask { question, first_loop: 0, loops }))
}

/// `POST /connections/unsubscribe`.
pub(super) fn unsubscribe(query: &str, body: &[u8], loops: usize) -> Result<Ask, Unasked> {
    let params = Params::read(query, body, &["topic", "ip", "identity", "issuer", "id", "outbox_bytes_min"])?;
    let topic = params.text("topic").ok_or("expects the topic to end subscriptions to")?;
    let topic: Box<str> = topic.into();
    // Being subscribed to it is a filter too, and the cheapest one.
    let (filter, first_loop) = filter(&params)?;
    targets(Question::Unsubscribe { filter, topic }, first_loop, loops)
}

fn targets(question: Question, first_loop: Option<usize>, loops: usize) -> Result<Ask, Unasked> {
    match first_loop {
        Some(index) if index >= loops => Err(Unasked::Nothing),
        Some(index) => Ok(Ask { question, first_loop: index, loops: 1 }),
        None => Ok(Ask { question, first_loop: 0, loops }),
    }
}

/// The filter, and the one loop it is restricted to if it names a connection.
fn filter(params: &Params<'_>) -> Result<(Filter, Option<usize>), Unasked> {
    let mut filter = Filter::default();
    if let Some(topic) = params.text("topic") {
        if LevelPattern::is_meant(topic) {
            // Connections that are subscribed to this very pattern.
            LevelPattern::parse(topic).map_err(PatternFault::reason)?;
        } else {
            TopicName::parse(topic).map_err(NameError::reason)?;
        }
        filter.topic = Some(topic.into());
    }
    if let Some(text) = params.text("ip") {
        let network = Network::parse(text).ok_or(
            "ip expects an address, or a network such as 10.0.0.0/8 with no bit set behind its prefix",
        )?;
        filter.network = Some(network);
    }
    if params.text("outbox_bytes_min").is_some() {
        let bytes = params.number("outbox_bytes_min", 0)?;
        if bytes == 0 {
            // Everybody has as many, which would have to be said by all=1.
            return Err("outbox_bytes_min expects at least 1".into());
        }
        filter.outbox_bytes_min = Some(bytes);
    }
    let (identity, issuer) = (params.text("identity"), params.text("issuer"));
    if identity.is_some() || issuer.is_some() {
        let (identity, issuer) = (identity.map(Into::into), issuer.map(Into::into));
        filter.bearer = Some(Box::new(BearerFilter { identity, issuer, token: None }));
    }
    let Some(id) = params.text("id") else { return Ok((filter, None)) };
    let (index, key) = connection_id(id).ok_or("id expects LOOP:SLOT:GENERATION")?;
    filter.key = Some(key);
    Ok((filter, Some(index)))
}

fn connection_id(text: &str) -> Option<(usize, Key)> {
    let mut parts = text.split(':');
    let (index, slot, generation) = (parts.next()?, parts.next()?, parts.next()?);
    let key = Key { slot: whole(slot)?, generation: whole(generation)? };
    parts.next().is_none().then_some((whole(index)?, key))
}

/// Where a list goes on behind the part of loop `index`: a loop and a slot of it.
#[must_use]
pub(super) fn goes_on(index: usize, part: &Part, loops: usize) -> Option<(usize, u32)> {
    match part.next {
        Some(slot) => Some((index, slot)),
        None => (index + 1 < loops).then_some((index + 1, 0)),
    }
}

/// The JSON of an answer; `None`: there is no such connection. `now_ms` counts from the start of the process.
pub(super) fn render(
    question: &Question,
    parts: &[(usize, Part)],
    loops: usize,
    shown: Shown,
    now_ms: u64,
) -> Option<Vec<u8>> {
    let mut out = Vec::new();
    let done: u64 = parts.iter().map(|(_, part)| part.done).sum();
    let rows = || parts.iter().flat_map(|(index, part)| part.rows.iter().map(move |row| (*index, row)));
    let clock = Clock::new(now_ms);
    match question {
        Question::Close { filter, .. } | Question::Unsubscribe { filter, .. }
            if filter.key.is_some() && done == 0 =>
        {
            return None;
        }
        Question::Close { .. } => push(&mut out, &json!({ "closed": done })),
        Question::Unsubscribe { .. } => push(&mut out, &json!({ "unsubscribed": done })),
        Question::List { filter, .. } if filter.key.is_some() => {
            let (index, row) = rows().next()?;
            push(&mut out, &shown.row(index, row, &clock));
        }
        Question::List { .. } => {
            out.extend_from_slice(b"{\"connections\":[");
            for (place, (index, row)) in rows().enumerate() {
                out.extend_from_slice(if place == 0 { b"\n" } else { b",\n" });
                // Writing to a Vec cannot fail.
                let _ = serde_json::to_writer(&mut out, &shown.row(index, row, &clock));
            }
            out.extend_from_slice(b"],\"next\":");
            let next = parts.last().and_then(|(index, part)| goes_on(*index, part, loops));
            let _ = serde_json::to_writer(&mut out, &next.map(|(index, slot)| format!("{index}:{slot}")));
            out.extend_from_slice(b"}\n");
        }
    }
    Some(out)
}

/// Now, by both clocks.
struct Clock {
    unix_ms: u64,
    now_ms: u64,
}

impl Clock {
    fn new(now_ms: u64) -> Self {
        let unix = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { unix_ms: unix.as_millis() as u64, now_ms }
    }

    fn ago(&self, at_ms: u64) -> u64 {
        self.now_ms.saturating_sub(at_ms)
    }

    fn unix(&self, at_ms: u64) -> u64 {
        self.unix_ms.saturating_sub(self.ago(at_ms))
    }
}

/// What is told of those who have connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shown {
    peer: bool,
    subject: bool,
    identity: bool,
    topics: bool,
}

impl Shown {
    /// What a list of the configuration means.
    pub(super) fn of(fields: &[String]) -> Self {
        let has = |name: &str| fields.iter().any(|field| field == name);
        Self { peer: has("peer"), subject: has("subject"), identity: has("identity"), topics: has("topics") }
    }

    fn row(self, index: usize, row: &ConnectionRow, clock: &Clock) -> Value {
        let mut json = row_json(index, row, clock);
        if !self.peer {
            json["peer"] = row.peer.map(|peer| network_of(peer.ip())).into();
        }
        if !self.topics {
            json["subscriptions"] = (row.topics.len() + row.patterns.len()).into();
            json["topics"] = json!([]);
            json["patterns"] = json!([]);
        }
        if let Some(fields) = json.as_object_mut() {
            let hidden = |name: &str| match name {
                "subject" => !self.subject,
                "identity" | "issuer" | "claims" => !self.identity,
                _ => false,
            };
            fields.retain(|name, _| !hidden(name));
        }
        json
    }
}

/// Who an address belongs to, roughly.
fn network_of(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(v4) => format!("{}/24", Ipv4Addr::from(u32::from(v4) & !0xff)),
        IpAddr::V6(v6) => format!("{}/48", Ipv6Addr::from(u128::from(v6) & !(u128::MAX >> 48))),
    }
}

fn row_json(index: usize, row: &ConnectionRow, clock: &Clock) -> Value {
    let Key { slot, generation } = row.key;
    let memory = &row.memory;
    let mut json = json!({
        "id": format!("{index}:{slot}:{generation}"),
        "peer": row.peer.map(|peer| peer.to_string()),
        "phase": row.phase,
        "dialect": row.dialect,
        "topics": row.topics.iter().map(|topic| topic.name()).collect::<Vec<_>>(),
        "patterns": row.patterns.iter().map(LevelPattern::as_str).collect::<Vec<_>>(),
        "since": seconds(clock.unix(row.accepted_from_ms)),
        "since_within_seconds": seconds(row.accepted_to_ms.saturating_sub(row.accepted_from_ms)),
        "idle_seconds": seconds(clock.ago(row.heard_ms)),
        "outbox_bytes": row.outbox_bytes,
        "drops": row.drops,
        "memory": {
            "slot": memory.slot,
            "inbox": memory.inbox,
            "outbox": memory.outbox,
            "session": memory.session,
            "lists": memory.lists,
            "total": memory.total(),
        },
    });
    if let Some(subject) = &row.subject {
        json["subject"] = Value::from(&**subject);
    }
    if let Some(identity) = &row.identity {
        json["identity"] = Value::from(&**identity);
    }
    if let Some(issuer) = &row.issuer {
        json["issuer"] = Value::from(&**issuer);
    }
    if let Some(claims) = row.claims.as_deref().and_then(|claims| serde_json::from_str(claims).ok()) {
        json["claims"] = claims;
    }
    json
}

/// One value and a line end.
fn push(out: &mut Vec<u8>, value: &Value) {
    // Writing to a Vec cannot fail.
    let _ = serde_json::to_writer(&mut *out, value);
    out.push(b'\n');
}

/// Seconds with one decimal, which is what ticks tell.
fn seconds(ms: u64) -> f64 {
    (ms / 100) as f64 / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_cursors_are_three_and_two_numbers() {
        assert_eq!(connection_id("1:2:3"), Some((1, Key { slot: 2, generation: 3 })));
        for bad in ["", "1", "1:2", "1:2:3:4", "1:2:", "-1:2:3", "1:2:99999999999", "a:b:c", "1: 2:3"] {
            assert_eq!(connection_id(bad), None, "{bad}");
        }
        let listed = |query| list(query, 3).map(|ask| (ask.first_loop, ask.loops));
        assert!(matches!(listed("cursor=2:77"), Ok((2, 1))));
        for bad in [
            "cursor=3:0",
            "cursor=1",
            "cursor=1:2:3",
            "cursor=",
            "limit=0",
            "limit=1001",
            "ip=x",
            "ip=10.0.0.1/8",
            "topic=a*",
            "outbox_bytes_min=0",
            "outbox_bytes_min=x",
            "outbox_bytes_min=",
        ] {
            assert!(matches!(listed(bad), Err(Unasked::Bad(_))), "{bad}");
        }
        assert!(matches!(one("9:1:1", 3), Err(Unasked::Nothing)));
    }

    #[test]
    fn an_address_is_masked_to_its_network() {
        for (address, network) in [
            ("192.0.2.77", "192.0.2.0/24"),
            ("::ffff:192.0.2.77", "192.0.2.0/24"),
            ("2001:db8:1:2:3:4:5:6", "2001:db8:1::/48"),
        ] {
            assert_eq!(network_of(address.parse().unwrap()), network);
        }
    }

    #[test]
    fn nobody_is_closed_by_accident() {
        for bad in [
            "",
            "code=1000",
            "topic=a&all=1",
            "all=0",
            "outbox_bytes_min=0",
            "outbox_bytes_min=1&all=1",
            "topic=a&code=1005",
            "topic=a&code=1002",
            "topic=a&code=999",
            "topic=a&code=5000",
            "topic=a&code=66536",
            "topik=a",
        ] {
            assert!(matches!(close(bad, b"", 2), Err(Unasked::Bad(_))), "{bad}");
        }
        let long = format!("all=1&reason={}", "x".repeat(124));
        assert!(close(&long, b"", 2).is_err());
        let ask = close("topic=a", b"code=4000&reason=bye+now", 2).unwrap();
        assert_eq!((ask.first_loop, ask.loops), (0, 2));
        assert!(matches!(ask.question, Question::Close { code: 4000, reason, .. } if &*reason == "bye now"));
        let one = close("id=1:2:3", b"", 2).unwrap();
        assert_eq!((one.first_loop, one.loops), (1, 1));
        assert!(unsubscribe("id=1:2:3", b"", 2).is_err(), "from what?");
    }
}
