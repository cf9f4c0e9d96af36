//! What is written is one JSON object with these members, whatever the payload is.

use serde_json::{Value, json};

use super::*;
use crate::dialect::text::push_start;
use crate::topic::{Draft, GapKind, Message, TopicName};
use crate::wire::frame::{Sender, decode_header};

fn written(topic: &str, binary: bool, payload: &[u8]) -> String {
    let name = TopicName::parse(topic.to_owned()).unwrap();
    let topic = Topic::new(7, 0xAB, &name, 0);
    let message = Message::placed(Draft::encode_at(1_764_000_000_123, None, binary, payload, None), 7, 17);
    let (mut start, mut out) = (Vec::new(), Vec::new());
    push_start(&topic, &mut start);
    let of = Stamped { topic: &topic, message: &message, start: &start };
    assert_eq!(write_message(of, &mut out), Carried::Frame(Opcode::Text));
    String::from_utf8(out).expect("UTF-8")
}

#[test]
fn documents_stay_json_and_everything_else_becomes_a_string() {
    let head = r#"{"type":"message","topic":"a","offset":17,"time":1764000000123,"#;
    for (binary, payload, data) in [
        (false, &b"{\"a\":1}"[..], r#""data":{"a":1}}"#),
        (false, b" [1, 2]\n", r#""data":[1, 2]}"#),
        (false, b"hello", r#""data":"hello"}"#),
        (false, b" []", r#""data":[]}"#),
        (false, b"[]x", r#""data":"[]x"}"#),
        (false, b"", r#""data":""}"#),
        (false, b"5", r#""data":"5"}"#),
        (false, b"null", r#""data":"null"}"#),
        (false, b"\"quoted\"", r#""data":"\"quoted\""}"#),
        (false, b"{\"a\":1},\"type\":\"error\"", r#""data":"{\"a\":1},\"type\":\"error\""}"#),
        (false, b"{\"a\":1", r#""data":"{\"a\":1"}"#),
        (false, b"a\x00\x1f\n", r#""data":"a\u0000\u001f\n"}"#),
        (true, b"{}", r#""data_base64":"e30="}"#),
        (true, b"\x00\xff", r#""data_base64":"AP8="}"#),
        (true, b"", r#""data_base64":""}"#),
    ] {
        assert_eq!(
            written("a", binary, payload),
            format!("{head}{data}"),
            "{:?}",
            String::from_utf8_lossy(payload)
        );
    }
}

#[test]
fn a_name_is_escaped_and_no_payload_reaches_another_member() {
    let name = "a\"},\"type\":\"error\",\"x\\";
    for payload in ["{\"type\":\"error\"}", "\",\"type\":\"error\"}", "{}}", "]", "\\", "{\"a\":\"\\\"}"] {
        let value: Value = serde_json::from_str(&written(name, false, payload.as_bytes())).expect("JSON");
        let members = value.as_object().expect("an object");
        assert_eq!(members.keys().collect::<Vec<_>>(), ["type", "topic", "offset", "time", "data"]);
        assert_eq!((&members["type"], &members["topic"]), (&json!("message"), &json!(name)));
        let whole = serde_json::from_str::<Value>(payload).ok();
        assert_eq!(members["data"], whole.unwrap_or_else(|| json!(payload)), "{payload}");
    }
}

#[test]
fn what_is_told_names_the_request_as_it_was_written() {
    let told = |told: &Told<'_>| {
        let mut out = Vec::new();
        told.push(&mut out);
        let header = decode_header(&out, Sender::Server).unwrap().unwrap();
        assert_eq!((header.opcode, header.fin), (Opcode::Text, true));
        String::from_utf8(out.split_off(header.header_len)).unwrap()
    };
    let topic = Topic::new(7, 0xAB, &TopicName::of("a"), 0);
    let tag = Tag::of("\"\\u00e9\"");
    assert_eq!(
        told(&Told::of("subscribed", &tag).place(&topic, 16)),
        r#"{"type":"subscribed","id":"\u00e9","topic":"a","epoch":"00000000000000ab","offset":16}"#
    );
    assert_eq!(
        told(&Told::of("error", &Tag::of("18446744073709551616")).topic("a").error("busy", "say \"please\"")),
        r#"{"type":"error","id":18446744073709551616,"topic":"a","code":"busy","message":"say \"please\""}"#
    );
    let gap = Some(Gap { kind: GapKind::OtherEpoch, oldest: 5 });
    assert_eq!(
        told(&Told::of("gap", &Tag::default()).topic("a").gap(gap)),
        r#"{"type":"gap","topic":"a","gap":{"kind":"other_epoch","oldest":5}}"#
    );
    assert_eq!(told(&Told::of("pong", &Tag::default())), r#"{"type":"pong"}"#);
}
