//! `validate` of a topic rule: who sends what a topic does not take is told so, alone, and no offset is taken.

use fantail::wire::frame::Opcode;
use serde_json::{Value, json};

use crate::reload::ConfigFile;
use crate::server::{Server, command, fails, on_free_ports};
use crate::subscribe_rules::{ask, speaker};

const SCHEMA: &str =
    r#"{"type":"object","required":["id"],"properties":{"id":{"type":"integer","minimum":1}}}"#;

/// A schema and a configuration that names it; both are removed again.
struct Files {
    schema: ConfigFile,
    config: ConfigFile,
    _at_schema: ConfigFile,
}

impl Files {
    fn new() -> Self {
        // Named by the other kind of files here, whose names end otherwise.
        let at_schema = ConfigFile::new("");
        let schema = ConfigFile::named(&at_schema.path().replace(".toml", ".json"), SCHEMA);
        let config = ConfigFile::new(&format!(
            "[[topic]]\npattern = \"orders\"\npublish = \"anyone\"\nvalidate = {:?}\n\
             [[topic]]\npattern = \"json\"\npublish = \"anyone\"\nvalidate = \"json\"\n\
             [[topic]]\npattern = \"text\"\npublish = \"anyone\"\nvalidate = \"text\"\n",
            schema.path()
        ));
        Self { schema, config, _at_schema: at_schema }
    }

    fn serve(&self) -> Server {
        Server::spawn(on_free_ports(&["--config", self.config.path(), "--loops", "1"], &[]))
    }
}

#[test]
fn a_bad_message_is_told_to_its_sender_alone_on_every_way() {
    let files = Files::new();
    let server = files.serve();
    let mut listener = server.websocket("/ws/orders");

    // The admin port, one by one and by lines.
    let refused = server.publish("orders", b"{\"id\":0}");
    assert_eq!(refused.status, 422);
    assert!(refused.text().contains("at /id: minimum"), "{}", refused.text());
    assert_eq!(server.publish("orders?binary=1", b"{\"id\":1}").status, 422);
    assert_eq!(server.publish("orders", b"{\"id\":1,\"id\":2}").status, 422);
    let lines = "{\"topic\":\"orders\",\"payload\":\"{\\\"id\\\":\\\"x\\\"}\"}\n{\"topic\":\"orders\",\"payload\":\"{\\\"id\\\":1}\"}\n\
                 {\"topic\":\"text\",\"payload_base64\":\"/w==\"}\n";
    let answer = server.post("/publish", "", lines.as_bytes()).text();
    let lines: Vec<Value> = answer.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(lines[0]["error"], "invalid_message", "{answer}");
    assert!(lines[0]["message"].as_str().is_some_and(|text| text.contains("at /id: type")), "{answer}");
    assert_eq!((&lines[1]["offset"], &lines[2]["error"]), (&json!(1), &json!("invalid_message")), "{answer}");

    // json is answered under its request's id, and goes on.
    let mut peer = speaker(&server);
    let told = ask(&mut peer, &json!({"type": "publish", "id": 7, "topic": "orders", "data": {"id": 0}}));
    let expected = ["error", "orders", "invalid_message", "/id", "minimum"];
    assert_eq!(["type", "topic", "code", "pointer", "keyword"].map(|name| &told[name]), expected, "{told}");
    assert_eq!(told["id"], 7);
    let told =
        ask(&mut peer, &json!({"type": "publish", "id": 8, "topic": "json", "data": "{\"a\":1e999999}"}));
    assert_eq!((&told["code"], &told["pointer"]), (&json!("invalid_message"), &Value::Null), "{told}");
    assert!(told["message"].as_str().is_some_and(|text| text.contains("at line 1 column")), "{told}");
    let told = ask(&mut peer, &json!({"type": "publish", "id": 9, "topic": "orders", "data": {"id": 2}}));
    assert_eq!(
        (&told["type"], &told["offset"]),
        (&json!("published"), &json!(2)),
        "no offset was taken: {told}"
    );

    // plain has no words for it.
    let mut plain = server.websocket("/ws/orders?echo=0");
    plain.send_frame(Opcode::Text, b"{\"id\":0}");
    plain.send_frame(Opcode::Binary, b"{\"id\":3}");
    plain.send_frame(Opcode::Text, b"{\"id\":3}");

    assert_eq!(
        [listener.text(), listener.text(), listener.text()],
        ["{\"id\":1}", "{\"id\":2}", "{\"id\":3}"]
    );
    let counted = ["not_text", "not_json", "schema", "too_complex"]
        .map(|reason| server.metric("fantail_messages_invalid_total", reason));
    assert_eq!(counted, [3, 2, 4, 0]);
    assert_eq!(server.metric("fantail_publishes_ignored_total", ""), 2);
    assert_eq!(server.metric("fantail_refusals_total", "invalid_message"), 3);
}

#[test]
fn hostile_messages_are_refused_and_nothing_else_happens() {
    let files = Files::new();
    let server = files.serve();
    let mut peer = speaker(&server);
    let deep = "[".repeat(30_000) + &"]".repeat(30_000);
    let doubled = format!(
        "{{{}\"a\":1,\"a\":1}}",
        (0..3_000).fold(String::new(), |all, n| all + &format!("\"k{n}\":0,"))
    );
    for payload in [
        deep.as_str(),
        &doubled,
        "1e999999",
        "-1e999999",
        "\"\\ud800\"",
        "{\"a\":\"\\udfff\"}",
        "",
        "\u{feff}{}",
        "{} {}",
    ] {
        for topic in ["json", "orders"] {
            let told = ask(&mut peer, &json!({"type": "publish", "id": 1, "topic": topic, "data": payload}));
            assert_eq!(told["code"], "invalid_message", "{payload:.40}: {told}");
            assert_eq!(server.publish(topic, payload.as_bytes()).status, 422, "{payload:.40}");
        }
    }
    assert_eq!(server.publish("text", b"\xff").status, 400, "text is UTF-8 on every topic");
    assert_eq!(server.publish("orders", &vec![b' '; (64 << 10) + 1]).status, 413);
    assert_eq!(server.publish("json", &vec![b' '; (64 << 10) + 1]).status, 413);
    assert_eq!(server.publish("json", format!("[{}1]", "1,".repeat(30_000)).as_bytes()).json()["offset"], 1);
    assert_eq!(server.publish("text", b"anything").json()["offset"], 1);
    assert_eq!(server.publish("orders", b"{\"id\":1}").json()["offset"], 1);
}

#[test]
fn a_reload_takes_a_new_schema_or_keeps_the_old_one() {
    let files = Files::new();
    let server = files.serve();
    let status = |id: &str| server.publish("orders", format!("{{\"id\":{id}}}").as_bytes()).status;
    assert_eq!([status("1"), status("\"x\"")], [200, 422]);
    files.schema.write("{\"type\": \"objct\"}");
    let answer = server.post("/reload", "", b"");
    assert_eq!(answer.status, 422);
    let mistake = answer.json()["mistakes"][0].as_str().unwrap_or_default().to_owned();
    for part in ["topic.validate: ", ".json\" is no JSON Schema: at /type: \"objct\""] {
        assert!(mistake.contains(part), "{mistake}");
    }
    assert_eq!([status("1"), status("\"x\"")], [200, 422], "nothing has changed");
    files.schema.write("{\"properties\": {\"id\": {\"type\": \"string\"}}}");
    assert_eq!(server.post("/reload", "", b"").status, 200);
    assert_eq!([status("1"), status("\"x\"")], [422, 200]);
}

#[test]
fn check_config_and_the_start_tell_what_is_wrong_with_a_schema() {
    let files = Files::new();
    files.schema.write("{\n\"type\": }");
    for arguments in
        [["check-config", "--config", files.config.path()], ["serve", "--config", files.config.path()]]
    {
        let (code, said) = fails(command(&arguments, &[]));
        assert_eq!(code, Some(2), "{said}");
        for part in ["topic.validate: ", ".json\" is not JSON: expected value at line 2 column 9"] {
            assert!(said.contains(part), "{said}");
        }
    }
}
