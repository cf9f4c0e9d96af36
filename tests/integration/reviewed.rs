//! Rules that a reload makes stricter: who is on a topic that is closed to them is taken from it, and nobody else.

use fantail::wire::frame::Opcode;
use serde_json::{Value, json};

use crate::bearers::{SECRET, Secret, token};
use crate::client::{Peer, assert_upgraded};
use crate::reload::ConfigFile;
use crate::server::{Server, on_free_ports, wait_for};
use crate::subscribe_rules::{ask, speaker};

fn start(rules: &str) -> (Server, ConfigFile) {
    let config = ConfigFile::new(rules);
    (Server::spawn(on_free_ports(&["--config", config.path(), "--loops", "2"], &[])), config)
}

fn reload(server: &Server, config: &ConfigFile, rules: &str) {
    config.write(rules);
    let answer = server.post("/reload", "", b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn closed_with(peer: &mut Peer) -> Option<u16> {
    // What an envelope says first is of no concern.
    let frame =
        std::iter::repeat_with(|| peer.frame()).find(|frame| frame.opcode != Opcode::Text).expect("a frame");
    assert_eq!(frame.opcode, Opcode::Close);
    assert!(String::from_utf8_lossy(&frame.content()).contains("may not subscribe to this topic any more"));
    // Whose close frame is not answered is counted as that.
    peer.send_frame(Opcode::Close, &frame.payload);
    frame.close_code()
}

/// What a json client is told, but for who comes and goes meanwhile.
fn heard(peer: &mut Peer) -> Value {
    loop {
        let said: Value = serde_json::from_str(&peer.text()).expect("JSON");
        if said["type"] != "presence" {
            return said;
        }
    }
}

const OPEN: &str = "[[topic]]\npattern = \"news/*\"\nhistory_messages = 10\npresence = \"counts\"\n\
                    [publish]\ntopics = [\"*\"]\n";

fn closed() -> String {
    OPEN.replace("history_messages", "subscribe = \"nobody\"\nhistory_messages")
}

#[test]
fn whoever_is_on_a_topic_that_is_closed_is_told_or_sent_away() {
    let (server, config) = start(OPEN);
    let mut others = [server.websocket("/ws/sport/a"), server.websocket("/ws/sport/*")];
    let mut plain: Vec<Peer> =
        ["/ws/news/a", "/ws/news/a?envelope=1", "/ws/news/*", "/ws/**", "/ws/sport/a?topic=news/b"]
            .iter()
            .map(|path| server.websocket(path))
            .collect();
    let stream = |path: &str| {
        let mut peer = server.connect();
        peer.send(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", server.listen).as_bytes());
        peer
    };
    let mut events = stream("/sse/news/a");
    assert!(String::from_utf8_lossy(&events.some()).starts_with("HTTP/1.1 200"));
    let mut poll = stream("/poll/news/a?wait=60");
    let mut speaker = speaker(&server);
    for topic in ["news/a", "news/b", "sport/a", "news/*", "**"] {
        assert_eq!(ask(&mut speaker, &json!({"type": "subscribe", "topic": topic}))["type"], "subscribed");
    }
    let watched = ask(&mut speaker, &json!({"type": "presence", "id": 7, "topic": "news/a", "events": true}));
    assert_eq!(watched["type"], "presence", "{watched}");
    let waits = |row: &Value| row["phase"] == "parked";
    wait_for("the poll", || {
        server.get("/connections").json()["connections"].as_array().expect("a list").iter().any(waits)
    });

    // What changes nothing of this ends nothing.
    let subscribed = server.metric("fantail_subscriptions", "");
    reload(&server, &config, &format!("{OPEN}[limits]\nfragments_max = 1000\n"));
    assert_eq!(server.metric("fantail_closes_total", "topic_closed"), 0);
    assert_eq!(server.metric("fantail_subscriptions", ""), subscribed);

    reload(&server, &config, &closed());
    for peer in &mut plain {
        assert_eq!(closed_with(peer), Some(3007));
    }
    assert!(String::from_utf8_lossy(&events.rest()).contains("any more"));
    assert_eq!(poll.answer().status, 204);
    server.await_metric("fantail_closes_total", "topic_closed", |closed| closed == plain.len() as u64 + 1);
    let told: Vec<Value> = std::iter::repeat_with(|| heard(&mut speaker)).take(3).collect();
    for (told, (member, lost)) in
        told.iter().zip([("topic", "news/a"), ("topic", "news/b"), ("pattern", "news/*")])
    {
        assert_eq!((&told["type"], &told["code"]), (&json!("unsubscribed"), &json!("not_allowed")), "{told}");
        assert_eq!(told[member], lost);
    }
    assert_eq!(heard(&mut speaker), json!({"type": "limited", "pattern": "**"}), "it goes on with less");
    // It goes on with the rest, and may not come back to what it has lost. Of the pattern comes what is left.
    speaker.send_frame(Opcode::Text, json!({"type": "subscribe", "topic": "news/a"}).to_string().as_bytes());
    assert_eq!(heard(&mut speaker)["code"], "not_allowed");
    assert_eq!(server.publish("news/a", b"secret").status, 200);
    assert_eq!(server.publish("sport/a", b"goal").status, 200);
    let said = heard(&mut speaker);
    assert_eq!((&said["topic"], &said["data"]), (&json!("sport/a"), &json!("goal")));
    for peer in &mut others {
        assert_eq!(peer.text(), "goal");
    }
    // Opened again, it is as before.
    reload(&server, &config, OPEN);
    assert_upgraded(&server.connect().ask_upgrade("/ws/news/a", ""));
}

#[test]
fn a_rule_that_asks_for_a_claim_ends_what_tokens_do_not_list() {
    let secret = Secret::new(SECRET);
    let rules = |subscribe: &str| {
        format!("[[topic]]\npattern = \"room/*\"\nsubscribe = {subscribe:?}\n{}", secret.issuer(""))
    };
    let (server, config) = start(&rules("anyone"));
    let enter = |claims: Option<&str>| {
        let mut peer = server.connect();
        let shown = claims
            .map(|claims| format!("Authorization: Bearer {}\r\n", token("alice", claims)))
            .unwrap_or_default();
        assert_upgraded(&peer.ask_upgrade("/ws/room/1", &shown));
        peer
    };
    let mut nobody = enter(None);
    let mut listed = enter(Some(r#","subscribe":["room/1"]"#));
    let mut elsewhere = enter(Some(r#","subscribe":["room/2"]"#));
    let mut silent = enter(Some(""));
    reload(&server, &config, &rules("identified"));
    assert_eq!(closed_with(&mut nobody), Some(3007));
    assert_eq!(closed_with(&mut elsewhere), Some(3007), "a list is the limit where a token is needed at all");
    reload(&server, &config, &rules("claim"));
    assert_eq!(closed_with(&mut silent), Some(3007));
    assert_eq!(server.publish("room/1", b"hello").status, 200);
    assert_eq!(listed.text(), "hello");
    reload(&server, &config, &rules("nobody"));
    assert_eq!(closed_with(&mut listed), Some(3007));
}

#[test]
fn a_pattern_of_which_less_comes_is_told_so_and_nothing_else_is() {
    let secret = Secret::new(SECRET);
    // Who may have what under `a` and `b`.
    let rules = |a: &str, b: &str| {
        let rule =
            |name: &str, who: &str| format!("[[topic]]\npattern = \"{name}/*\"\nsubscribe = {who:?}\n");
        format!("{}{}{}", rule("a", a), rule("b", b), secret.issuer(""))
    };
    let (server, config) = start(&rules("anyone", "anyone"));
    let enter = |claims: Option<&str>| {
        let mut peer = server.connect();
        let shown = claims
            .map(|claims| format!("Authorization: Bearer {}\r\n", token("alice", claims)))
            .unwrap_or_default();
        assert_upgraded(
            &peer.ask_upgrade("/ws", &format!("{shown}Sec-WebSocket-Protocol: fantail.json.v1\r\n")),
        );
        for topic in ["a/*", "b/*", "*/x"] {
            assert_eq!(ask(&mut peer, &json!({"type": "subscribe", "topic": topic}))["type"], "subscribed");
        }
        peer
    };
    let mut nobody = enter(None);
    let mut listed = enter(Some(r#","subscribe":["a/x","b/*"]"#));
    let limited = |pattern: &str| json!({"type": "limited", "pattern": pattern});
    let lost = |pattern: &str, told: &Value| {
        assert_eq!((&told["type"], &told["pattern"]), (&json!("unsubscribed"), &json!(pattern)), "{told}");
    };
    // What is told came before the answer.
    let quiet = |peer: &mut Peer| assert_eq!(ask(peer, &json!({"type": "ping"}))["type"], "pong");

    reload(&server, &config, &rules("claim", "anyone"));
    lost("a/*", &heard(&mut nobody));
    assert_eq!(heard(&mut nobody), limited("*/x"));
    assert_eq!([heard(&mut listed), heard(&mut listed)], [limited("a/*"), limited("*/x")]);
    quiet(&mut nobody);
    quiet(&mut listed);
    // Of what is limited already less comes again: not so where what is closed was not theirs.
    reload(&server, &config, &rules("nobody", "anyone"));
    quiet(&mut nobody);
    lost("a/*", &heard(&mut listed));
    assert_eq!(heard(&mut listed), limited("*/x"));
    quiet(&mut listed);
    // More, and other settings, are nobody's loss.
    reload(&server, &config, &format!("{}[limits]\nfragments_max = 1000\n", rules("nobody", "anyone")));
    reload(&server, &config, &rules("claim", "anyone"));
    quiet(&mut nobody);
    quiet(&mut listed);
    reload(&server, &config, &rules("claim", "claim"));
    lost("b/*", &heard(&mut nobody));
    lost("*/x", &heard(&mut nobody));
    // From all of it to what a list has of it is less by the rule, and that is what is compared.
    assert_eq!(heard(&mut listed), limited("*/x"));
    quiet(&mut listed);
}

#[test]
fn thousands_on_a_closed_topic_hold_nobody_up() {
    let (server, config) = start(OPEN);
    let mut crowd: Vec<Peer> =
        (0..600).map(|nth| server.websocket(&format!("/ws/news/{}", nth % 50))).collect();
    // Two reloads, one behind the other: the second walk looks at what the first one has left.
    reload(&server, &config, &closed());
    reload(&server, &config, &format!("{}[limits]\nfragments_max = 1000\n", closed()));
    let mut bystander = server.websocket("/echo");
    bystander.ping_pong();
    for peer in &mut crowd {
        assert_eq!(closed_with(peer), Some(3007));
    }
    server.await_metric("fantail_closes_total", "topic_closed", |closed| closed == 600);
}
