//! `interval_ms` of a topic rule over real connections: at most one update an interval, the newest, on every dialect, and
//! the last one always.

use std::time::{Duration, Instant};

use fantail::wire::frame::Opcode;
use serde_json::{Value, json};

use crate::client::{Answer, Peer, assert_upgraded, publish_lines};
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

/// Asks for a poll; the answer comes later.
fn ask_poll(server: &Server, peer: &mut Peer, query: &str) {
    ask_poll_of(server, peer, "fast", query);
}

fn ask_poll_of(server: &Server, peer: &mut Peer, topic: &str, query: &str) {
    peer.send(format!("GET /poll/{topic}?{query} HTTP/1.1\r\nHost: {}\r\n\r\n", server.listen).as_bytes());
}

/// The offsets that a poll was answered, and the position to go on from.
fn polled(answer: &Answer) -> (Vec<u64>, String) {
    let position = answer.field("fantail-position").expect("a position").to_owned();
    if answer.status == 204 {
        return (Vec::new(), position);
    }
    let told = answer.json();
    assert_eq!((answer.status, told.get("gap")), (200, None), "a jump is no gap: {told}");
    let offsets: Vec<u64> = told["messages"]
        .as_array()
        .expect("messages")
        .iter()
        .map(|message| {
            assert_eq!(message["data"], message["offset"].to_string(), "{told}");
            message["offset"].as_u64().expect("an offset")
        })
        .collect();
    assert_eq!(told["offset"].as_u64(), offsets.last().copied());
    assert!(position.ends_with(&format!(":{}", told["offset"])), "{position}");
    (offsets, position)
}

#[test]
fn a_poll_that_waits_gets_the_newest_and_one_behind_what_is_kept() {
    let config = ConfigFile::new(&rules(60_000));
    // One loop: what it has replaced says what it holds.
    let server = Server::spawn(on_free_ports(&["--config", config.path(), "--loops", "1"], &[]));
    let waiting = |count| server.await_metric("fantail_subscriptions", "", |now| now == count);
    let mut peers = [server.connect(), server.connect(), server.connect()];
    let [first, second, late] = &mut peers;
    ask_poll(&server, first, "wait=60");
    ask_poll(&server, second, "wait=60");
    waiting(2);
    publish(&server, "fast", 1);
    let (offsets, at) = polled(&first.answer());
    assert_eq!((&offsets, polled(&second.answer()).0), (&vec![1], vec![1]), "the first goes at once");
    // Who asks is told apart from who was answered.
    waiting(0);
    ask_poll(&server, first, &format!("since={at}&wait=60"));
    ask_poll(&server, second, "wait=60");
    waiting(2);
    (2..=20).for_each(|number| publish(&server, "fast", number));
    server.await_metric("fantail_replaced_messages_total", "", |replaced| replaced == 18);
    // The one that is held is for those who waited; who comes with a position reads it from what is kept.
    ask_poll(&server, late, &format!("since={at}&wait=60"));
    let (missed, now) = polled(&late.answer());
    assert_eq!(missed, (2..=20).collect::<Vec<_>>(), "an interval is for what is live");
    ask_poll(&server, late, &format!("since={now}&wait=0"));
    assert_eq!(polled(&late.answer()), (vec![], now.clone()), "and none of them twice");
    config.write(&rules(0));
    server.signal("HUP");
    for peer in [first, second] {
        assert_eq!(polled(&peer.answer()), (vec![20], now.clone()), "the newest wins");
    }
    waiting(0);
}

#[test]
fn polls_one_behind_the_other_get_the_last_and_nothing_twice() {
    let config = ConfigFile::new(&rules(200));
    let server = start(&config);
    let mut peers = [server.connect(), server.connect()];
    let query =
        |at: &Option<String>| at.as_ref().map_or("wait=60".into(), |at| format!("since={at}&wait=60"));
    let mut at = [None, None];
    peers.iter_mut().for_each(|peer| ask_poll(&server, peer, &query(&None)));
    server.await_metric("fantail_subscriptions", "", |now| now == 2);
    let publisher = server.admin;
    let mut seen = [Vec::new(), Vec::new()];
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for number in 1..=MESSAGES {
                let line = json!({ "topic": "fast", "payload": number.to_string() }).to_string() + "\n";
                publish_lines(publisher, &line);
            }
        });
        while seen.iter().any(|seen| seen.last() != Some(&MESSAGES)) {
            for ((peer, at), seen) in peers.iter_mut().zip(&mut at).zip(&mut seen) {
                if seen.last() == Some(&MESSAGES) {
                    continue;
                }
                let (offsets, position) = polled(&peer.answer());
                seen.extend(offsets);
                *at = Some(position);
                if seen.last() != Some(&MESSAGES) {
                    ask_poll(&server, peer, &query(at));
                }
            }
        }
    });
    for seen in seen {
        assert!(seen.is_sorted_by(|one, other| one < other), "{seen:?}");
    }
}

#[test]
fn a_poll_behind_where_nothing_is_kept_is_told_what_it_lost() {
    let config = ConfigFile::new("[[topic]]\npattern = \"bare\"\ninterval_ms = 60000\n");
    let server = Server::spawn(on_free_ports(&["--config", config.path(), "--loops", "1"], &[]));
    let mut peers = [server.connect(), server.connect()];
    let [waits, late] = &mut peers;
    let waiting = |count| server.await_metric("fantail_subscriptions", "", |now| now == count);
    ask_poll_of(&server, waits, "bare", "wait=60");
    waiting(1);
    publish(&server, "bare", 1);
    let (offsets, at) = polled(&waits.answer());
    assert_eq!(offsets, [1]);
    waiting(0);
    ask_poll_of(&server, waits, "bare", &format!("since={at}&wait=60"));
    waiting(1);
    (2..=4).for_each(|number| publish(&server, "bare", number));
    // The one that is held is not for who comes behind it.
    ask_poll_of(&server, late, "bare", &format!("since={at}&wait=60"));
    let told = late.answer().json();
    assert_eq!((&told["gap"], &told["offset"]), (&json!({ "kind": "expired", "oldest": 5 }), &json!(4)));
    assert_eq!(told["messages"], json!([]));
    config.write("");
    server.signal("HUP");
    assert_eq!(polled(&waits.answer()).0, [4], "who waited gets the newest, and no gap");
}
