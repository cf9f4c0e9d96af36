//! What an application answers to messages that were forwarded to it: `service::forward::read_answer`, by whatever it may send.

use fantail::service::forward::{Fate, Message, Payload, Sender, read_answer};
use fantail::topic::{Key, TopicName};
use serde_json::Value;

/// What was sent: messages of these numbers.
const NUMBERS: [u64; 3] = [1, 2, 30];

fn message(number: u64) -> Message {
    Message {
        sender: Sender { loop_index: 0, key: Key { slot: 1, generation: 1 } },
        topic: "a".into(),
        binary: false,
        document: false,
        payload: b"x".as_slice().into(),
        identity: None,
        admission: 0,
        address: None,
        dialect: "plain",
        request: None,
        number,
        time_ms: 0,
        taken_ms: 0,
    }
}

/// Takes the bytes as an answer, and compares what it comes to with a simpler reading.
pub fn check(data: &[u8]) {
    let messages = NUMBERS.map(message);
    let Ok(said) = read_answer("f", &messages, data) else { return };
    assert_eq!(said.len(), NUMBERS.len());
    if data.trim_ascii().is_empty() {
        return assert!(said.iter().all(|said| said.fate == Fate::Taken(None) && said.close.is_none()));
    }
    // Of what means nothing here the form is enough: no reader of all of it takes half of a surrogate pair, or 1e999.
    let Ok(whole) = serde_json::from_slice::<Value>(data) else { return };
    let rows = whole["messages"].as_array().expect("a list");
    let names = NUMBERS.map(|number| format!("msg_f_{number}"));
    assert!(rows.iter().all(|row| names.iter().any(|name| row["id"] == **name)), "of another: {whole}");
    for (name, said) in names.iter().zip(&said) {
        let of = rows.iter().filter(|row| row["id"] == **name).collect::<Vec<_>>();
        assert!(of.len() <= 1, "one twice: {whole}");
        let row = of.first().copied().unwrap_or(&Value::Null);
        match &said.fate {
            Fate::Taken(None) => assert!(row["reply"].is_null() && row["refuse"].is_null(), "{row}"),
            Fate::Taken(Some(reply)) => assert_payload(&row["reply"], reply),
            Fate::Refused { code, text } => {
                assert_eq!(row["refuse"]["code"], **code);
                assert!(code.len() <= 64 && !text.is_empty() && text.len() <= 600, "{row}");
            }
            Fate::Failed => panic!("nobody says so: {row}"),
        }
        let publishes = row["publish"].as_array().map_or(&[][..], Vec::as_slice);
        assert!(publishes.len() == said.publish.len() && publishes.len() <= 64, "{row}");
        for (wanted, (topic, payload)) in publishes.iter().zip(&said.publish) {
            assert_eq!(wanted["topic"], *topic.as_str());
            assert!(TopicName::parse(topic.as_str().to_owned()).is_ok());
            assert_payload(wanted, payload);
        }
        assert_eq!(said.close.is_some(), !row["close"].is_null(), "{row}");
        if let Some((code, reason)) = &said.close {
            assert_eq!(row["close"]["code"], *code);
            assert!(*code >= 1_000 && *code < 5_000 && reason.len() <= 123, "{row}");
        }
    }
}

fn assert_payload(of: &Value, payload: &Payload) {
    match payload {
        Payload::Text(text) => assert_eq!(of["data"], **text),
        Payload::Json(json) => {
            assert_eq!(of["data"], serde_json::from_str::<Value>(json).expect("JSON"));
            assert!(!of["data"].is_null());
        }
        Payload::Binary(_) => assert!(of["data"].is_null() && of["data_base64"].is_string(), "{of}"),
    }
}
