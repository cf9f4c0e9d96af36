//! What is posted to the application, and what its answers mean.
//!
//! Pure. Whatever an answer has that is not as docs/integrate.md says makes all of it useless: nothing of it is done.

use std::collections::HashMap;
use std::fmt;
use std::io::Write as _;
use std::marker::PhantomData;

use data_encoding::BASE64;
use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::message::{Fate, Message, Payload};
use crate::auth::Identity;
use crate::topic::TopicName;

/// Topics and payloads that the answer to one message may publish.
const PUBLISHES_MAX: usize = 64;

/// Bytes of the text in a close frame (RFC 6455, 5.5: 125 with the code).
const REASON_BYTES_MAX: usize = 123;

/// Bytes of a word for programs, and of a text for people.
const CODE_BYTES_MAX: usize = 64;
const TEXT_BYTES_MAX: usize = 600;

/// What a sender reads if the application says nothing.
const NO_TEXT: &str = "the application refuses the message";

/// One message as it is told.
#[derive(Serialize)]
struct Row<'a> {
    id: String,
    topic: &'a str,
    connection: String,
    dialect: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    issuer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    claims: Option<&'a RawValue>,
    address: Option<String>,
    time: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data_base64: Option<String>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Data<'a> {
    Document(&'a RawValue),
    Text(&'a str),
}

/// The name of a message: however often it comes, the same.
fn id_of(process: &str, number: u64) -> String {
    format!("msg_{process}_{number}")
}

/// The body that tells these messages. `process` tells those of this process from others'.
pub(super) fn body(process: &str, messages: &[Message]) -> Vec<u8> {
    let payloads: usize = messages.iter().map(|message| message.payload.len() + 256).sum();
    let mut out = Vec::with_capacity(payloads);
    out.extend_from_slice(b"{\"messages\":[");
    for (place, message) in messages.iter().enumerate() {
        if place > 0 {
            out.push(b',');
        }
        // Writing into memory what has no maps does not fail.
        let _ = serde_json::to_writer(&mut out, &row(process, message));
    }
    let _ = out.write_all(b"]}");
    out
}

fn row<'a>(process: &str, message: &'a Message) -> Row<'a> {
    let text = if message.binary { None } else { std::str::from_utf8(&message.payload).ok() };
    let data = text.map(|text| match message.document {
        true => serde_json::from_str(text.trim_ascii()).map_or(Data::Text(text), Data::Document),
        false => Data::Text(text),
    });
    let (loop_index, key) = (message.sender.loop_index, message.sender.key);
    Row {
        id: id_of(process, message.number),
        topic: &message.topic,
        connection: format!("{loop_index}:{}:{}", key.slot, key.generation),
        dialect: message.dialect,
        sub: message.identity.as_deref().map(Identity::sub),
        // Without it the alice of one issuer would be that of another.
        issuer: message.identity.as_deref().and_then(Identity::issuer),
        claims: message.identity.as_deref().and_then(Identity::carried),
        address: message.address.map(|address| address.to_canonical().to_string()),
        time: message.time_ms,
        request: message.request.as_deref().and_then(|request| serde_json::from_str(request).ok()),
        data_base64: data.is_none().then(|| BASE64.encode(&message.payload)),
        data,
    }
}

/// What the application says of one message.
#[derive(Debug, PartialEq, Eq)]
pub struct Said {
    /// What becomes of it.
    pub fate: Fate,
    /// What is published.
    pub publish: Vec<(TopicName<'static>, Payload)>,
    /// The connection is to end with this code and text.
    pub close: Option<(u16, Box<str>)>,
}

impl Default for Said {
    fn default() -> Self {
        Self { fate: Fate::Taken(None), publish: Vec::new(), close: None }
    }
}

/// From an object: serde would take a list, too, as the fields in their order.
struct Object<T>(T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(Members(PhantomData)).map(Self)
    }
}

struct Members<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    messages: Vec<Object<AnswerRow<'a>>>,
}

#[derive(Deserialize)]
struct AnswerRow<'a> {
    id: String,
    #[serde(borrow)]
    reply: Option<Object<Carried<'a>>>,
    #[serde(borrow, default)]
    publish: Vec<Object<Published<'a>>>,
    close: Option<Object<Close>>,
    refuse: Option<Object<Refusal>>,
}

#[derive(Deserialize)]
struct Carried<'a> {
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    data_base64: Option<String>,
}

#[derive(Deserialize)]
struct Published<'a> {
    topic: String,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    data_base64: Option<String>,
}

#[derive(Deserialize)]
struct Close {
    code: u16,
    #[serde(default)]
    reason: String,
}

#[derive(Deserialize)]
struct Refusal {
    code: String,
    #[serde(default)]
    text: String,
}

/// What the body of an answer says of each of these messages, in their order; one that it does not name is taken. `process` is
/// what their names have of this process.
///
/// # Errors
/// It is no such answer: what is wrong, without a word of it.
pub fn read(process: &str, messages: &[Message], body: &[u8]) -> Result<Vec<Said>, &'static str> {
    let mut said: Vec<Said> = messages.iter().map(|_| Said::default()).collect();
    if body.trim_ascii().is_empty() {
        return Ok(said);
    }
    let Object(answer): Object<Answer<'_>> = serde_json::from_slice(body)
        .map_err(|_| "is not JSON with a list of messages as docs/integrate.md has it")?;
    let mut places: HashMap<String, usize> =
        messages.iter().enumerate().map(|(place, message)| (id_of(process, message.number), place)).collect();
    for Object(row) in answer.messages {
        let place = places.remove(&row.id).ok_or("names a message that was not asked about, or one twice")?;
        if let Some(slot) = said.get_mut(place) {
            *slot = said_of(row)?;
        }
    }
    Ok(said)
}

fn said_of(row: AnswerRow<'_>) -> Result<Said, &'static str> {
    if row.publish.len() > PUBLISHES_MAX {
        return Err("publishes more than 64 messages for one");
    }
    let publish = row.publish.into_iter().map(|Object(one)| {
        let name = TopicName::parse(one.topic).map_err(|_| "publishes to what is no topic")?;
        Ok((name, payload(one.data, one.data_base64)?))
    });
    let publish = publish.collect::<Result<_, &'static str>>()?;
    let close = row.close.map(|Object(Close { code, reason })| {
        // RFC 6455, 7.4: the others are the protocol's own or must not be sent.
        let may = matches!(code, 1000 | 1001 | 1008 | 1011..=1013 | 3000..=4999);
        let fits = may && reason.len() <= REASON_BYTES_MAX;
        fits.then(|| (code, reason.into()))
            .ok_or("closes with a code or reason that a close frame may not have")
    });
    let close = close.transpose()?;
    let fate = match (row.refuse, row.reply) {
        (Some(_), Some(_)) => return Err("refuses a message and replies to it"),
        (Some(Object(Refusal { code, text })), None) => {
            let word = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
            if code.is_empty() || code.len() > CODE_BYTES_MAX || !code.bytes().all(word) {
                return Err("refuses with a code that is not 1 to 64 of a to z, 0 to 9 and _");
            }
            if text.len() > TEXT_BYTES_MAX {
                return Err("refuses with a text of more than 600 bytes");
            }
            let text = if text.is_empty() { NO_TEXT.into() } else { text.into() };
            Fate::Refused { code: code.into(), text }
        }
        (None, Some(Object(Carried { data, data_base64 }))) => Fate::Taken(Some(payload(data, data_base64)?)),
        (None, None) => Fate::Taken(None),
    };
    Ok(Said { fate, publish, close })
}

fn payload(data: Option<&RawValue>, base64: Option<String>) -> Result<Payload, &'static str> {
    match (data, base64) {
        (Some(data), None) if data.get().starts_with('"') => {
            // Half a surrogate pair is no text.
            let text: String =
                serde_json::from_str(data.get()).map_err(|_| "has a string that is no text")?;
            Ok(Payload::Text(text.into()))
        }
        (Some(data), None) => Ok(Payload::Json(data.get().into())),
        (None, Some(digits)) => {
            let bytes = BASE64.decode(digits.as_bytes()).map_err(|_| "has data_base64 that is not base64")?;
            Ok(Payload::Binary(bytes.into()))
        }
        _ => Err("has neither data nor data_base64, or both"),
    }
}

#[cfg(test)]
#[path = "words_tests.rs"]
mod tests;
