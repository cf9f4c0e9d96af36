//! Commands of json clients, and payloads told as json: whatever the bytes are, the answer is whole, short and names the
//! request; what is published is what was said; a message is one object whose members nobody forges.

use fantail::dialect::{Cx, Dialect, Effect, Effects, Form, Incoming, Tag, Tools, Wall, Wish};
use fantail::edition::Router;
use fantail::metrics::LoopCounters;
use fantail::topic::{Carried, Draft, Entry, Form as _, Join, Place, RouterLimits, Since, Stamped};
use fantail::topic::{TopicName, Wake};
use fantail::wire::deflate::Deflater;
use fantail::wire::frame::{Opcode, Sender, decode_header};
use serde_json::Value;

/// Topics that one command names at most.
const TOPICS_MAX: usize = 256;

/// Bytes of an answer to one that is no command: an id, and a line that quotes a strange word.
const ANSWER_BYTES_MAX: usize = 700;

struct NoWake;

impl Wake for NoWake {
    fn wake(&self, _: usize) {}
}

/// Takes the bytes as a text message, as a binary one, and as a payload that others published.
pub fn check(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        command(text);
        told(text.as_bytes(), false);
    } else {
        let (answers, wishes) = said(data, false);
        assert!(answers.len() == 1 && wishes.len() == 1, "refused");
    }
    told(data, true);
}

/// What a message leads to: answers as they were written, and what is asked for.
fn said(payload: &[u8], text: bool) -> (Vec<String>, Vec<Wish>) {
    let (mut deflater, counters) = (Deflater::new(1, 256), LoopCounters::default());
    let tools = Tools { deflater: &mut deflater, counters: &counters, wall: &Wall::new(|| 0) };
    let (mut out, mut effects) = (Vec::new(), Effects::default());
    let mut cx = Cx { out: &mut out, effects: &mut effects, tools, deflates_up_to: 0, tag: &Tag::default() };
    Dialect::Json.on_message(&mut cx, Incoming { text, payload });
    let mut answers = Vec::new();
    let mut rest = &out[..];
    while !rest.is_empty() {
        let header = decode_header(rest, Sender::Server).expect("legal").expect("whole");
        assert!(header.fin && header.opcode == Opcode::Text);
        let (frame, behind) = rest.split_at(header.header_len + header.payload_len as usize);
        answers.push(String::from_utf8(frame[header.header_len..].to_vec()).expect("UTF-8"));
        rest = behind;
    }
    (answers, std::iter::from_fn(|| effects.pop()).collect())
}

fn command(text: &str) {
    let (answers, wishes) = said(text.as_bytes(), true);
    assert!(answers.len() <= 1 && wishes.len() <= TOPICS_MAX && answers.len() + wishes.len() > 0);
    // A reader of the protocol's own; it may give up where the parser does not, at numbers beyond its range.
    let value: Option<Value> = serde_json::from_str(text).ok();
    let id = value.as_ref().and_then(|value| value.get("id"));
    for answer in &answers {
        assert!(answer.len() <= ANSWER_BYTES_MAX, "{answer}");
        let told: Value = serde_json::from_str(answer).expect("JSON");
        let kind = told["type"].as_str().expect("a type");
        assert!(kind == "pong" || (kind == "error" && told["code"] == "bad_command"), "{answer}");
        if let (Some(told), Some(_)) = (told.get("id"), &value) {
            assert_eq!(Some(told), id);
        }
        let bad = wishes.iter().filter(|wish| wish.effect == Effect::CountBad).count();
        assert_eq!(bad, usize::from(kind == "error"));
    }
    for wish in &wishes {
        if let (Some(words), Some(_)) = (wish.tag.words(), &value) {
            assert_eq!(serde_json::from_str::<Value>(words).ok().as_ref(), id);
        }
        if let Effect::Publish { binary, payload, .. } = &wish.effect {
            let payload = payload.of(text.as_bytes());
            let data = value.as_ref().map(|value| &value["data"]);
            match data {
                Some(Value::String(said)) if !binary => assert_eq!(payload, said.as_bytes()),
                Some(data) if !binary => {
                    assert_eq!(serde_json::from_slice::<Value>(payload).ok().as_ref(), Some(data))
                }
                _ => {}
            }
            told(payload, *binary);
        }
    }
}

/// A payload as json subscribers get it.
fn told(payload: &[u8], binary: bool) {
    let router = Router::new(1, RouterLimits::default(), Box::new(NoWake)).expect("one loop");
    let topic = router.topic(&TopicName::of("a")).expect("room");
    router.join(&topic, 0, Join { local: 0, slot: 0, ticket: Place::NONE }, Since::Now).expect("joined");
    router.publish(&topic, Draft::encode(None, binary, payload), None).expect("room");
    let mailbox = router.mailbox(0).expect("loop 0");
    let mut entries = Vec::new();
    mailbox.drain(&mut entries);
    let message = entries.iter().find_map(|entry| match entry {
        Entry::Deliver { message, .. } => Some(message),
        _ => None,
    });
    let (mut start, mut out) = (Vec::new(), Vec::new());
    Form::Json.start(&topic, &mut start);
    let of = Stamped { topic: &topic, message: message.expect("delivered"), start: &start };
    let carried = Form::Json.write(of, &mut out);
    assert_eq!(carried, Carried::Frame(Opcode::Text));
    let text = std::str::from_utf8(&out).expect("UTF-8");
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let members = value.as_object().expect("an object");
    let data = if binary { "data_base64" } else { "data" };
    assert_eq!(members.keys().collect::<Vec<_>>(), ["type", "topic", "offset", "time", data], "{text}");
    assert_eq!((&members["type"], &members["offset"]), (&Value::from("message"), &Value::from(1)));
    let data = &members[data];
    let whole = serde_json::from_slice::<Value>(payload).ok();
    match data {
        Value::String(said) if binary => assert_eq!(said.len(), payload.len().div_ceil(3) * 4),
        Value::String(said) => assert_eq!(said.as_bytes(), payload),
        data => assert_eq!(Some(data), whole.as_ref()),
    }
}
