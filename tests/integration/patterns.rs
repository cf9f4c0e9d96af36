//! Subscriptions by pattern over real connections: who gets what, once, for how long, and what is refused.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use fantail::wire::frame::Opcode;
use serde_json::{Value, json};

use crate::client::{Peer, assert_upgraded};
use crate::hostile::SetOnDrop;
use crate::reload::ConfigFile;
use crate::server::{Server, on_free_ports, wait_for};

fn speaker(server: &Server, path: &str) -> Peer {
    let mut peer = server.connect();
    assert_upgraded(&peer.ask_upgrade(path, "Sec-WebSocket-Protocol: fantail.json.v1\r\n"));
    peer
}

fn hear(peer: &mut Peer) -> Value {
    let text = peer.text();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn ask(peer: &mut Peer, command: &Value) -> Value {
    peer.send_frame(Opcode::Text, command.to_string().as_bytes());
    hear(peer)
}

/// Topic, offset and data of the next message.
fn message(peer: &mut Peer) -> (String, u64, String) {
    let told = hear(peer);
    assert_eq!(told["type"], "message", "{told}");
    let text = |member: &str| told[member].as_str().expect("text").to_owned();
    (text("topic"), told["offset"].as_u64().expect("an offset"), text("data"))
}

fn of(topic: &str, offset: u64, data: &str) -> (String, u64, String) {
    (topic.to_owned(), offset, data.to_owned())
}

/// Nothing came before the answer to a ping.
fn assert_quiet(peer: &mut Peer) {
    assert_eq!(ask(peer, &json!({"type": "ping", "id": "quiet"})), json!({"type": "pong", "id": "quiet"}));
}

fn publish(server: &Server, topic: &str, data: &str) {
    assert_eq!(server.publish(topic, data.as_bytes()).status, 200, "{topic}");
}

#[test]
fn json_gets_what_its_patterns_mean_from_topics_old_and_new_and_each_message_once() {
    let server = Server::start(&["--loops", "3"], &[]);
    publish(&server, "prices/eur", "before");
    let mut peers: Vec<Peer> = (0..6).map(|_| speaker(&server, "/ws")).collect();
    for peer in &mut peers {
        assert_eq!(
            ask(peer, &json!({"type": "subscribe", "id": 1, "topic": "prices/*"})),
            json!({"type": "subscribed", "id": 1, "pattern": "prices/*"})
        );
        // A second pattern and the topic itself mean the same messages.
        assert_eq!(ask(peer, &json!({"type": "subscribe", "topic": "**"}))["pattern"], "**");
        assert_eq!(ask(peer, &json!({"type": "subscribe", "topic": "prices/eur"}))["offset"], 1);
        assert_eq!(ask(peer, &json!({"type": "subscribe", "topic": "*/usd"}))["pattern"], "*/usd");
    }
    for (topic, data) in [
        ("prices/eur", "1"),
        ("prices/usd", "2"),
        ("prices/eur/spot", "3"),
        ("lobby", "4"),
        ("prices/eur", "5"),
    ] {
        publish(&server, topic, data);
    }
    for peer in &mut peers {
        // Each topic's are in order; between topics there is none.
        let mut told: Vec<_> = (0..5).map(|_| message(peer)).collect();
        told.sort();
        let expected = [
            ("lobby", 1, "4"),
            ("prices/eur", 2, "1"),
            ("prices/eur", 3, "5"),
            ("prices/eur/spot", 1, "3"),
            ("prices/usd", 1, "2"),
        ];
        assert_eq!(told, expected.map(|(topic, offset, data)| of(topic, offset, data)));
        assert_quiet(peer);
    }
}

#[test]
fn a_pattern_ends_by_itself_and_by_its_own_name_only() {
    let server = Server::start(&["--loops", "2"], &[("FANTAIL_PUBLISH_TOPICS", "t/*")]);
    let mut peer = speaker(&server, "/ws");
    for topic in ["t/*", "t/**", "t/a"] {
        ask(&mut peer, &json!({"type": "subscribe", "topic": topic}));
    }
    let left = ask(&mut peer, &json!({"type": "unsubscribe", "id": 2, "topic": "t/a"}));
    assert_eq!(left, json!({"type": "unsubscribed", "id": 2, "topic": "t/a"}));
    publish(&server, "t/a", "by pattern");
    assert_eq!(message(&mut peer), of("t/a", 1, "by pattern"));
    let left = ask(&mut peer, &json!({"type": "unsubscribe", "id": 3, "topic": "t/**"}));
    assert_eq!(left, json!({"type": "unsubscribed", "id": 3, "pattern": "t/**"}));
    publish(&server, "t/a", "by the other");
    assert_eq!(message(&mut peer), of("t/a", 2, "by the other"));
    assert_quiet(&mut peer);
    for (topic, code) in [("t/**", "not_subscribed"), ("t/b", "not_subscribed")] {
        let told = ask(&mut peer, &json!({"type": "unsubscribe", "topic": topic}));
        assert_eq!(told["code"], code, "{told}");
    }
    let told = ask(&mut peer, &json!({"type": "subscribe", "id": 4, "topic": "t/*"}));
    assert_eq!(
        (&told["code"], &told["pattern"], &told["id"]),
        (&"already_subscribed".into(), &"t/*".into(), &4.into())
    );
    ask(&mut peer, &json!({"type": "unsubscribe", "topic": "t/*"}));
    publish(&server, "t/a", "to nobody");
    assert_quiet(&mut peer);
    server.await_metric("fantail_patterns", "", |patterns| patterns == 0);
}

#[test]
fn plain_has_patterns_in_its_url_and_tells_topics_apart_with_an_envelope() {
    let server = Server::start(&["--loops", "2"], &[]);
    let mut plain = server.websocket("/ws/%2A%2A");
    let mut told =
        server.websocket("/ws/prices/*?envelope=1&topic=prices%2F%2A&topic=a/*/c&topic=prices/eur");
    let mut line = || {
        let payload = told.frame().payload;
        let end = payload.iter().position(|byte| *byte == b'\n').expect("a line");
        let line: Value = serde_json::from_slice(&payload[..end]).expect("JSON");
        (line, String::from_utf8(payload[end + 1..].to_vec()).expect("text"))
    };
    assert_eq!(line().0["topic"], "prices/eur");
    assert_eq!(line().0, json!({"type": "subscribed", "pattern": "prices/*"}));
    assert_eq!(line().0, json!({"type": "subscribed", "pattern": "a/*/c"}));
    for (topic, data) in [("prices/eur", "1.08"), ("a/b/c", "x"), ("a/c", "none"), ("prices/usd", "0.93")] {
        publish(&server, topic, data);
        assert_eq!(plain.text(), data);
        if topic != "a/c" {
            let (line, payload) = line();
            assert_eq!(
                (line["topic"].as_str(), line["offset"].as_u64(), payload.as_str()),
                (Some(topic), Some(1), data)
            );
        }
    }
    // It has no topic of its own, so that what it says goes nowhere.
    plain.send_frame(Opcode::Text, b"unheard");
    plain.ping_pong();
    for (path, says) in [
        ("/ws?topic=a*", "one whole level"),
        ("/ws/**/a", "one whole level"),
        ("/ws/a/*?history=1", "no pattern"),
        ("/ws?topic=a/*&since=00000000000000ab:1", "no pattern"),
        ("/ws?topic=*/*/*/*/*", "at most 16 levels"),
        ("/poll/a/*", "a poll is about one topic"),
        ("/sse/a/*?history=1", "no places"),
    ] {
        let answer = server.connect().ask_upgrade(path, "");
        assert!(
            answer.status == 400 && answer.text().contains(says),
            "{path}: {} {}",
            answer.status,
            answer.text()
        );
    }
}

#[test]
fn a_stream_of_patterns_names_each_topic_and_has_no_ids() {
    let server = Server::start(&["--loops", "2"], &[]);
    for version in ["1.1", "1.0"] {
        let mut peer = server.connect();
        peer.send(
            format!("GET /sse/prices/%2A?topic=a/**&topic=prices/eur HTTP/{version}\r\nHost: a\r\n\r\n")
                .as_bytes(),
        );
        let mut heard = String::new();
        let mut until = |end: &str| {
            while !heard.contains(end) {
                let more = peer.some();
                heard.push_str(std::str::from_utf8(&more).expect("text"));
            }
            heard.clone()
        };
        let head = until("retry: ");
        assert!(head.starts_with("HTTP/1.1 200") && !head.contains("Fantail-Position"), "{head}");
        for (topic, data) in
            [("prices/eur", "1.08"), ("other", "none"), ("a/b/c", "one\ntwo"), ("prices/usd", "0.93")]
        {
            publish(&server, topic, data);
        }
        let told = until("data: 0.93\n\n");
        for event in [
            "event: topic:prices/eur\ndata: 1.08\n\n",
            "event: topic:a/b/c\ndata: one\ndata: two\n\n",
            "event: topic:prices/usd\ndata: 0.93\n\n",
        ] {
            assert_eq!(told.matches(event).count(), 1, "{told}");
        }
        assert!(!told.contains("none") && !told.contains("id: "), "{told}");
    }
}

#[test]
fn patterns_count_as_topics_do_and_there_are_no_more_than_may_be() {
    let limits = [("FANTAIL_LIMITS_SUBSCRIPTIONS_MAX", "3"), ("FANTAIL_LIMITS_PATTERNS_MAX", "2")];
    let server = Server::start(&["--loops", "2"], &limits);
    let mut peer = speaker(&server, "/ws");
    let mut code =
        |topic: &str| ask(&mut peer, &json!({"type": "subscribe", "topic": topic}))["code"].clone();
    assert_eq!(
        ["a", "a/*", "b/*", "c", "c/*"].map(&mut code),
        [Value::Null, Value::Null, Value::Null, "too_many_topics".into(), "too_many_topics".into()]
    );
    let mut other = speaker(&server, "/ws");
    let told = ask(&mut other, &json!({"type": "subscribe", "id": 1, "topic": "z/*"}));
    assert_eq!((&told["code"], &told["pattern"]), (&"busy".into(), &"z/*".into()));
    assert_eq!(
        ask(&mut other, &json!({"type": "subscribe", "topic": "b/*"}))["pattern"],
        "b/*",
        "it is there already"
    );
    assert_eq!(server.connect().ask_upgrade("/ws?topic=z/*", "").status, 503);
    assert_eq!(server.connect().ask_upgrade("/ws?topic=1&topic=2&topic=b/*", "").status, 400);
    assert_eq!(server.metric("fantail_patterns", ""), 2);
    server.await_metric("fantail_pattern_subscriptions", "", |count| count == 3);
    drop(peer);
    server.await_metric("fantail_patterns", "", |patterns| patterns == 1);
    assert_eq!(ask(&mut other, &json!({"type": "subscribe", "topic": "z/*"}))["pattern"], "z/*");
}

#[test]
fn no_topic_is_kept_for_a_pattern_and_none_is_made_by_it() {
    let server = Server::start(&["--loops", "2"], &[("FANTAIL_LIMITS_TOPICS_MAX", "8")]);
    let mut peer = speaker(&server, "/ws/**");
    assert_eq!(hear(&mut peer)["pattern"], "**");
    assert_eq!(server.metric("fantail_topics", ""), 0);
    // More topics than there may be: each takes the place of one that only the pattern means.
    for number in 0..40 {
        let topic = format!("t/{number}");
        publish(&server, &topic, "m");
        assert_eq!(message(&mut peer), of(&topic, 1, "m"));
    }
    assert!(server.metric("fantail_topics", "") <= 8);
    // A topic that went comes back in another life, and what of it comes begins anew.
    publish(&server, "t/0", "again");
    assert_eq!(message(&mut peer), of("t/0", 1, "again"));
}

#[test]
fn the_operator_sees_and_ends_patterns() {
    let server = Server::start(&["--loops", "2"], &[]);
    let mut peer = speaker(&server, "/ws/a?topic=a/*&topic=**");
    (0..3).for_each(|_| drop(hear(&mut peer)));
    let mut other = speaker(&server, "/ws/a");
    hear(&mut other);
    let page = |query: &str| -> Vec<Value> {
        // A page a loop.
        let (mut rows, mut cursor) = (Vec::new(), "0:0".to_owned());
        loop {
            let answer = server.get(&format!("/connections?{query}&cursor={cursor}")).json();
            rows.extend(answer["connections"].as_array().expect("a list").clone());
            match answer["next"].as_str() {
                Some(next) => cursor = next.to_owned(),
                None => return rows,
            }
        }
    };
    let rows = page("topic=a/*");
    assert_eq!(rows.len(), 1, "{rows:?}");
    assert_eq!((&rows[0]["topics"], &rows[0]["patterns"]), (&json!(["a"]), &json!(["a/*", "**"])));
    assert_eq!((page("topic=a").len(), page("topic=a/b").len()), (2, 0));
    assert_eq!(server.get("/connections?topic=a*").status, 400, "no pattern");
    let answer = server.post("/connections/unsubscribe?topic=**", "", b"");
    assert_eq!(answer.json(), json!({"unsubscribed": 1}));
    assert_eq!(hear(&mut peer), json!({"type": "unsubscribed", "pattern": "**"}));
    publish(&server, "b", "unheard");
    publish(&server, "a/b", "heard");
    assert_eq!(message(&mut peer), of("a/b", 1, "heard"));
}

#[test]
fn a_slow_subscriber_by_pattern_is_told_of_a_gap_where_others_would_catch_up() {
    let config = ConfigFile::new("[[topic]]\npattern = \"*\"\nhistory_messages = 1000\nmessages_max = 2\n");
    let server = Server::spawn(on_free_ports(&["--config", config.path(), "--loops", "1"], &[]));
    let mut peer = speaker(&server, "/ws/k/*");
    hear(&mut peer);
    let mut published = 0;
    // Unread until some are dropped.
    wait_for("drops", || {
        (0..20).for_each(|_| publish(&server, "k/1", &"x".repeat(100_000)));
        published += 20;
        server.metric("fantail_drops_total", "policy=\"drop-newest\"") > 0
    });
    let mut last = 0;
    let mut gaps = 0;
    while last < published {
        let told = hear(&mut peer);
        match told["type"].as_str() {
            Some("message") => {
                let offset = told["offset"].as_u64().expect("an offset");
                assert!(offset > last && (offset == last + 1 || gaps > 0), "{offset} behind {last}");
                last = offset;
            }
            Some("gap") => {
                assert_eq!((&told["topic"], &told["gap"]["kind"]), (&"k/1".into(), &"dropped".into()));
                gaps += 1;
                // What comes now shows where the stream goes on.
                published += 1;
                publish(&server, "k/1", "last");
            }
            _ => panic!("{told}"),
        }
    }
    assert!(gaps > 0);
}

#[test]
fn who_catches_up_with_a_topic_that_its_pattern_means_gets_nothing_twice_at_the_seam() {
    let config = ConfigFile::new("[[topic]]\npattern = \"k/*\"\nhistory_messages = 100000\n");
    let server = Server::spawn(on_free_ports(&["--config", config.path(), "--loops", "2"], &[]));
    let mut peer = speaker(&server, "/ws/k/*");
    assert_eq!(hear(&mut peer)["pattern"], "k/*");
    let (seen, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut admin = server.connect_admin();
    thread::scope(|scope| {
        let (seen, stop) = (&seen, &stop);
        let end = SetOnDrop(stop);
        let publisher = scope.spawn(move || {
            let mut count = 0_u64;
            while !stop.load(Ordering::Relaxed) {
                // Not so far ahead that anything is dropped.
                if count >= seen.load(Ordering::Relaxed) + 40 {
                    thread::yield_now();
                    continue;
                }
                count += 1;
                admin.send(b"POST /publish/k/1 HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\n\r\nm");
                assert_eq!(admin.answer().status, 200);
            }
        });
        // The answer to a command, and the offset of the last message before it; each is the one behind the other.
        let until = |peer: &mut Peer, kind: &str, last: &mut u64| loop {
            let told = hear(peer);
            match told["type"].as_str() {
                Some("message") => {
                    let offset = told["offset"].as_u64().expect("an offset");
                    assert!(*last == 0 || offset == *last + 1, "{offset} behind {last}");
                    *last = offset;
                    seen.fetch_max(offset, Ordering::Relaxed);
                    if kind == "message" {
                        return told;
                    }
                }
                // It left while it read what is kept: what it did not read is told.
                Some("gap") => *last = 0,
                _ => {
                    assert_eq!(told["type"], kind, "{told}");
                    return told;
                }
            }
        };
        let mut last = 0;
        until(&mut peer, "message", &mut last);
        let epoch =
            server.get("/history?topic=k/1&limit=0").json()["epoch"].as_str().expect("an epoch").to_owned();
        for round in 0..20 {
            // By the pattern alone.
            (0..50).for_each(|_| drop(until(&mut peer, "message", &mut last)));
            let since = format!("{epoch}:{}", last.saturating_sub(30));
            let command = json!({"type": "subscribe", "topic": "k/1", "since": since});
            peer.send_frame(Opcode::Text, command.to_string().as_bytes());
            let told = until(&mut peer, "subscribed", &mut last);
            assert_eq!(told["recovered"], true, "{told}");
            // What was asked for again, and then on and on.
            last = told["offset"].as_u64().expect("an offset");
            (0..round * 10).for_each(|_| drop(until(&mut peer, "message", &mut last)));
            let command = json!({"type": "unsubscribe", "topic": "k/1"});
            peer.send_frame(Opcode::Text, command.to_string().as_bytes());
            until(&mut peer, "unsubscribed", &mut last);
        }
        drop(end);
        publisher.join().expect("the publisher");
    });
}
