//! What is posted, and answers of every kind.

use super::*;
use crate::auth::Identity;
use crate::auth::identity::SharedRights;
use crate::auth::token::Claims;
use crate::service::forward::Sender;
use crate::topic::Key;

fn message(number: u64, binary: bool, document: bool, payload: &[u8]) -> Message {
    Message {
        sender: Sender { loop_index: 1, key: Key { slot: 2, generation: 3 } },
        topic: "a\"b".into(),
        binary,
        document,
        payload: payload.into(),
        identity: None,
        admission: 0,
        address: Some("::ffff:192.0.2.7".parse().unwrap()),
        dialect: "json",
        request: Some("\"x\"".into()),
        number,
        time_ms: 5,
        taken_ms: 0,
    }
}

fn three() -> Vec<Message> {
    vec![
        message(7, false, true, b" {\"a\": 1} "),
        message(8, false, false, b"{\"a\": 1"),
        message(9, true, false, b"\xff"),
    ]
}

#[test]
fn a_sender_is_told_by_both_names() {
    let of = |issuer: Option<&str>| {
        let claims = Claims {
            sub: "alice".into(),
            subscribe: None,
            publish: None,
            expires: 7,
            good_until: 7,
            issued: None,
            jti: Some("secret".into()),
            issuer: issuer.map(Into::into),
            carried: issuer.map(|_| r#"{"tenant":[1]}"#.into()),
        };
        let identity = Some(Identity::new(claims, &mut SharedRights::default()));
        let message = Message { identity, ..message(7, false, false, b"x") };
        let value: serde_json::Value = serde_json::from_slice(&body("0f", &[message])).unwrap();
        ["sub", "issuer", "jti", "claims"].map(|name| value["messages"][0].get(name).cloned())
    };
    assert_eq!(
        of(Some("us")),
        [Some("alice".into()), Some("us".into()), None, Some(serde_json::json!({ "tenant": [1] }))]
    );
    assert_eq!(of(None), [Some("alice".into()), None, None, None]);
}

#[test]
fn a_body_is_json_whatever_is_in_it() {
    let value: serde_json::Value = serde_json::from_slice(&body("0f", &three())).unwrap();
    let expected = serde_json::json!({
        "id": "msg_0f_7", "topic": "a\"b", "connection": "1:2:3", "dialect": "json", "address": "192.0.2.7",
        "time": 5, "request": "x", "data": { "a": 1 },
    });
    assert_eq!(value["messages"][0], expected);
    assert_eq!(
        (&value["messages"][1]["data"], &value["messages"][2]["data_base64"]),
        (&"{\"a\": 1".into(), &"/w==".into())
    );
    assert!(value["messages"][2].get("data").is_none());
}

#[test]
fn an_answer_says_what_becomes_of_each_and_the_others_are_taken() {
    let answer = br#"{"messages":[
        {"id":"msg_0f_9","refuse":{"code":"too_late","text":"no"},"close":{"code":4000,"reason":"bye"}},
        {"id":"msg_0f_7","reply":{"data":{"b":2}},"publish":[{"topic":"x","data":"t"},{"topic":"y","data_base64":"/w=="}],"more":1}
    ],"more":2}"#;
    let said = read("0f", &three(), answer).unwrap();
    assert_eq!(said[1], Said::default());
    assert_eq!(said[0].fate, Fate::Taken(Some(Payload::Json("{\"b\":2}".into()))));
    let published: Vec<_> =
        said[0].publish.iter().map(|(name, payload)| (name.as_str(), payload.bytes())).collect();
    assert_eq!(published, [("x", &b"t"[..]), ("y", &b"\xff"[..])]);
    assert_eq!(said[2].fate, Fate::Refused { code: "too_late".into(), text: "no".into() });
    assert_eq!(said[2].close, Some((4_000, "bye".into())));
    for nothing in [&b""[..], b" \r\n", b"{\"messages\":[]}"] {
        assert!(read("0f", &three(), nothing).unwrap().iter().all(|said| *said == Said::default()));
    }
}

#[test]
fn what_is_not_meant_as_an_answer_is_useless_as_a_whole() {
    let row = |more: &str| format!(r#"{{"messages":[{{"id":"msg_0f_7",{more}}}]}}"#);
    let many = format!("\"publish\":[{}]", vec![r#"{"topic":"a","data":"x"}"#; PUBLISHES_MAX + 1].join(","));
    for bad in [
        "ok".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        "null".to_owned(),
        "[[]]".to_owned(),
        r#"{"messages":[["msg_0f_7"]]}"#.to_owned(),
        row(r#""reply":["a"]"#),
        row(r#""close":[4000,"bye"]"#),
        row(r#""refuse":["a","b"]"#),
        row(r#""publish":[["a","b"]]"#),
        "\u{feff}{\"messages\":[]}".to_owned(),
        r#"{"messages":[{"id":"msg_0f_1"}]}"#.to_owned(),
        r#"{"messages":[{"id":"msg_0f_7"},{"id":"msg_0f_7"}]}"#.to_owned(),
        r#"{"messages":[{"reply":{"data":1}}]}"#.to_owned(),
        row(r#""reply":{}"#),
        row(r#""reply":{"data":"a","data_base64":"YQ=="}"#),
        row(r#""reply":{"data_base64":"Y"}"#),
        row(r#""reply":{"data":"\ud800"}"#),
        row(r#""reply":{"data":1},"refuse":{"code":"a"}"#),
        row(r#""refuse":{"code":""}"#),
        row(r#""refuse":{"code":"No!"}"#),
        row(&format!(r#""refuse":{{"code":"a","text":"{}"}}"#, "x".repeat(TEXT_BYTES_MAX + 1))),
        row(r#""close":{"code":1005}"#),
        row(r#""close":{"code":70000}"#),
        row(&format!(r#""close":{{"code":4000,"reason":"{}"}}"#, "x".repeat(REASON_BYTES_MAX + 1))),
        row(r#""publish":[{"topic":"","data":"x"}]"#),
        row(r#""publish":[{"topic":"a*","data":"x"}]"#),
        row(r#""publish":[{"topic":"a"}]"#),
        row(&many),
        row(r#""reply":{"data":1},"reply":{"data":2}"#),
        format!("{{\"messages\":{}", "[".repeat(100_000)),
    ] {
        assert!(read("0f", &three(), bad.as_bytes()).is_err(), "{bad:.90}");
    }
}
