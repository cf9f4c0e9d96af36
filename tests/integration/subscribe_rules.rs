//! `subscribe` of a topic rule: who may not subscribe learns nothing of the topic, on any way there is to it.

use fantail::wire::frame::Opcode;
use serde_json::{Value, json};

use crate::client::{Peer, assert_upgraded};
use crate::reload::ConfigFile;
use crate::server::{Server, on_free_ports};

const RULES: &str = "[[topic]]\npattern = \"staff/open\"\nsubscribe = \"anyone\"\n\
                     [[topic]]\npattern = \"staff/*\"\nsubscribe = \"nobody\"\npublish = \"anyone\"\nhistory_messages = 10\n";

fn start(config: &ConfigFile) -> Server {
    Server::spawn(on_free_ports(&["--config", config.path(), "--loops", "2"], &[]))
}

/// A connection that speaks json.
pub(crate) fn speaker(server: &Server) -> Peer {
    let mut peer = server.connect();
    assert_upgraded(&peer.ask_upgrade("/ws", "Sec-WebSocket-Protocol: fantail.json.v1\r\n"));
    peer
}

/// The answer to a command.
pub(crate) fn ask(peer: &mut Peer, command: &Value) -> Value {
    peer.send_frame(Opcode::Text, command.to_string().as_bytes());
    serde_json::from_str(&peer.text()).expect("JSON")
}

fn status(server: &Server, request: &str) -> u16 {
    let mut peer = server.connect();
    peer.send(format!("{request} HTTP/1.1\r\nHost: {}\r\n\r\n", server.listen).as_bytes());
    let answer = peer.answer_to(request.starts_with("HEAD"));
    if answer.status == 403 {
        assert_eq!(answer.field("Fantail-Position"), None, "{request}");
    }
    answer.status
}

#[test]
fn a_closed_topic_is_refused_on_every_way_to_it() {
    let config = ConfigFile::new(RULES);
    let server = start(&config);
    assert_eq!(server.publish("staff/rota", b"secret").status, 200);
    for path in [
        "/ws/staff/rota",
        "/ws/staff%2Frota",
        "/ws?topic=staff/rota",
        "/ws?topic=staff%2frota&envelope=1",
        "/ws/staff/rota?history=10",
        "/ws/staff/*",
        "/ws/**",
        "/ws/*/rota",
        "/ws/open?topic=staff/new",
    ] {
        let mut peer = server.connect();
        let answer = peer.ask_upgrade(path, "");
        assert_eq!(answer.status, 403, "{path}");
        assert!(answer.text().contains("may not subscribe"), "{path}: {}", answer.text());
    }
    for request in [
        "GET /sse/staff/rota",
        "HEAD /sse/staff/rota",
        "GET /sse/open?topic=staff/rota",
        "GET /sse/**",
        "HEAD /sse/**",
        "HEAD /sse/staff/*",
        "HEAD /sse/open?topic=staff/*",
        "GET /poll/staff/rota?wait=0",
        "HEAD /poll/staff/rota",
    ] {
        assert_eq!(status(&server, request), 403, "{request}");
    }
    assert_eq!(server.metric("fantail_refusals_total", "subscribe_denied"), 18);
    // Those that the rule does not mean, and what merely looks like one of its.
    for path in ["/ws/staff/open", "/ws/Staff/rota", "/ws/staff", "/ws/other/*"] {
        let mut peer = server.connect();
        assert_upgraded(&peer.ask_upgrade(path, ""));
    }
    assert_eq!(status(&server, "GET /poll/staff/open?wait=0"), 204);
    // The operator sees all.
    assert_eq!(server.get("/history?topic=staff/rota").json()["messages"][0]["data"], "secret");
}

#[test]
fn json_is_told_and_goes_on() {
    let config = ConfigFile::new(RULES);
    let server = start(&config);
    assert_eq!(server.publish("staff/rota", b"secret").status, 200);
    let mut peer = speaker(&server);
    for command in [
        json!({"type": "subscribe", "id": 1, "topic": "staff/rota"}),
        json!({"type": "subscribe", "id": 2, "topic": "staff/rota", "history": 10}),
        json!({"type": "subscribe", "id": 3, "topic": "staff/r/*"}),
        json!({"type": "history", "id": 5, "topic": "staff/rota", "limit": 10}),
    ] {
        let told = ask(&mut peer, &command);
        assert_eq!(
            (&told["type"], &told["code"]),
            (&json!("error"), &json!("not_allowed")),
            "{command}: {told}"
        );
        assert_eq!(told["id"], command["id"]);
        assert!(!told.to_string().contains("secret"), "{told}");
    }
    // Of a pattern comes what is open, and it is said that this is not all.
    for (id, pattern) in [(9, "staff/*"), (10, "**")] {
        assert_eq!(
            ask(&mut peer, &json!({"type": "subscribe", "id": id, "topic": pattern})),
            json!({"type": "subscribed", "id": id, "pattern": pattern, "limited": true})
        );
    }
    assert_eq!(server.publish("staff/rota", b"secret").status, 200);
    assert_eq!(server.publish("staff/open", b"open").status, 200);
    let told: Value = serde_json::from_str(&peer.text()).expect("JSON");
    assert_eq!((&told["topic"], &told["data"]), (&json!("staff/open"), &json!("open")));
    // To publish is another right.
    let published = ask(&mut peer, &json!({"type": "publish", "id": 6, "topic": "staff/rota", "data": "x"}));
    assert_eq!((&published["type"], &published["offset"]), (&json!("published"), &json!(3)));
    assert_eq!(
        ask(&mut peer, &json!({"type": "subscribe", "id": 7, "topic": "staff/open"}))["type"],
        "subscribed"
    );
    assert_eq!(ask(&mut peer, &json!({"type": "ping", "id": 8})), json!({"type": "pong", "id": 8}));
}

#[test]
fn a_reload_closes_and_opens_topics() {
    let config = ConfigFile::new("");
    let server = start(&config);
    let mut old = server.websocket("/ws/staff/rota");
    config.write(RULES);
    let reload = || server.post("/reload", "", b"");
    assert_eq!(reload().status, 200);
    // Each loop takes the rules over by itself.
    let refused = |wanted: bool| {
        crate::server::wait_for("every loop to have the rules", || {
            (0..8).all(|_| {
                let mut peer = server.connect();
                (peer.ask_upgrade("/ws/staff/rota", "").status == 403) == wanted
            })
        });
    };
    refused(true);
    assert_eq!(old.frame().close_code(), Some(3007), "who was there is sent away");
    config.write("");
    assert_eq!(reload().status, 200);
    refused(false);
}
