//! `interval_ms` of a topic rule over real connections: at most one update an interval, the newest, on every dialect, and
//! the last one always.

use std::time::{Duration, Instant};

use fantail::wire::frame::Opcode;
use serde_json::{Value, json};

use crate::client::{Peer, assert_upgraded};
use crate::reload::ConfigFile;
use crate::server::{Server, on_free_ports};

const MESSAGES: u64 = 200;

fn rules(interval_ms: u32) -> String {
    format!("[[topic]]\npattern = \"fast*\"\nhistory_messages = 1000\ninterval_ms = {interval_ms}\n")
}

fn start(config: &ConfigFile) -> Server {
    Server::spawn(on_free_ports(&["--config", config.path(), "--loops", "2"], &[]))
}

fn json_peer(server: &Server, path: &str) -> Peer {
    let mut peer = server.connect();
    assert_upgraded(&peer.ask_upgrade(path, "Sec-WebSocket-Protocol: fantail.json.v1\r\n"));
    peer
}

fn hear(peer: &mut Peer) -> Value {
    serde_json::from_str(&peer.text()).expect("JSON")
}

fn publish(server: &Server, topic: &str, number: u64) {
    assert_eq!(server.publish(topic, number.to_string().as_bytes()).status, 200);
}

/// Offsets that come until the last one.
fn offsets(mut next: impl FnMut() -> u64, last: u64) -> Vec<u64> {
    let mut seen = vec![next()];
    while *seen.last().expect("one") < last {
        seen.push(next());
    }
    assert!(seen.is_sorted_by(|one, other| one < other), "{seen:?}");
    seen
}

#[test]
fn every_dialect_gets_the_newest_and_the_history_all() {
    let config = ConfigFile::new(&rules(300));
    let server = start(&config);
    let mut plain = server.websocket("/ws/fast");
    let mut envelope = server.websocket("/ws/fast?envelope=1");
    let mut json = json_peer(&server, "/ws/fast");
    let mut pattern = json_peer(&server, "/ws/*");
    let mut stream = server.connect();
    stream.send(b"GET /sse/fast HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut streamed = String::new();
    while !streamed.contains("id: ") {
        streamed.push_str(&String::from_utf8(stream.some()).expect("text"));
    }
    hear(&mut json);
    hear(&mut pattern);
    envelope.frame();
    let began = Instant::now();
    for number in 1..=MESSAGES {
        publish(&server, "fast", number);
    }
    let of_json = |peer: &mut Peer| {
        let told = hear(peer);
        assert_eq!(
            (&told["type"], &told["data"]),
            (&"message".into(), &told["offset"].to_string().into()),
            "a jump is no gap"
        );
        told["offset"].as_u64().expect("an offset")
    };
    let by_json = offsets(|| of_json(&mut json), MESSAGES);
    let by_pattern = offsets(|| of_json(&mut pattern), MESSAGES);
    let by_plain = offsets(|| plain.text().parse().expect("a number"), MESSAGES);
    let by_envelope = offsets(
        || {
            let payload = envelope.frame().payload;
            let line = payload.split(|byte| *byte == b'\n').next().expect("a line");
            let line: Value = serde_json::from_slice(line).expect("JSON");
            line["offset"].as_u64().expect("an offset")
        },
        MESSAGES,
    );
    while !streamed.contains(&format!("data: {MESSAGES}\n")) {
        streamed.push_str(&String::from_utf8(stream.some()).expect("text"));
    }
    let intervals = began.elapsed().as_millis() as usize / 300 + 2;
    assert!(!streamed.contains("event: gap"), "{streamed}");
    for seen in [&by_json, &by_pattern, &by_plain, &by_envelope] {
        assert!(seen.len() <= intervals, "{seen:?} in {intervals} intervals");
    }
    assert!(streamed.matches("data: ").count() <= intervals, "{streamed}");
    assert!(server.metric("fantail_replaced_messages_total", "") > 0);
    let kept = server.get("/history?topic=fast&limit=1000").json();
    assert_eq!(kept["messages"].as_array().map(Vec::len), Some(MESSAGES as usize));
    // Who comes with a position reads all of them, and then what is live.
    let since = format!("{}:0", kept["epoch"].as_str().expect("an epoch"));
    json.send_frame(Opcode::Text, json!({"type": "unsubscribe", "topic": "fast"}).to_string().as_bytes());
    assert_eq!(hear(&mut json)["type"], "unsubscribed");
    let again = json!({"type": "subscribe", "topic": "fast", "since": since}).to_string();
    json.send_frame(Opcode::Text, again.as_bytes());
    assert_eq!(hear(&mut json)["recovered"], true);
    publish(&server, "fast", MESSAGES + 1);
    let seen = offsets(|| of_json(&mut json), MESSAGES + 1);
    assert_eq!(
        seen,
        (1..=MESSAGES + 1).collect::<Vec<_>>(),
        "nothing is missing at the seam, and nothing twice"
    );
}

#[test]
fn a_reload_and_a_drain_let_go_what_waits() {
    let config = ConfigFile::new(&rules(60_000));
    let mut server = start(&config);
    let mut peer = json_peer(&server, "/ws/fast");
    hear(&mut peer);
    // The first goes at once, and only then are there others: a loop that comes to it late would take the newest.
    publish(&server, "fast", 1);
    assert_eq!(hear(&mut peer)["offset"], 1);
    (2..=3).for_each(|number| publish(&server, "fast", number));
    config.write(&rules(0));
    server.signal("HUP");
    assert_eq!(hear(&mut peer)["offset"], 3);
    config.write(&rules(60_000));
    server.signal("HUP");
    server.await_metric("fantail_config_reloads_total", "outcome=\"applied\"", |count| count >= 2);
    // One goes at once, and the other would wait for a minute, which is the longest that may be.
    let began = Instant::now();
    while server.metric("fantail_replaced_messages_total", "") < 2 {
        publish(&server, "fast", 4);
        assert!(began.elapsed() < Duration::from_secs(50), "the rule is not in force");
    }
    publish(&server, "fast", 5);
    let last = server.get("/history?topic=fast&limit=0").json()["offset"].as_u64().expect("an offset");
    server.terminate();
    let seen = offsets(|| hear(&mut peer)["offset"].as_u64().expect("a message"), last);
    assert_eq!(seen.last(), Some(&last));
    assert!(began.elapsed() < Duration::from_secs(58), "a minute is over");
    assert_eq!(peer.frame().opcode, Opcode::Close);
    drop(peer);
    server.await_exit();
}
