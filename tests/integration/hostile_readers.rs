//! Readers and publishers of topics that mean harm: bodies that trickle, streams that nobody reads, halves of
//! connections, places that were never given out. Everybody else is served meanwhile, and what they hold is bounded.

use std::net::Shutdown;

use fantail::sys::socket::set_buffers;
use serde_json::json;

use crate::client::{Peer, upgrade_request};
use crate::hostile::{Bystander, MIB, meanwhile, resident};
use crate::json::{hear, say, speaker};
use crate::reload::ConfigFile;
use crate::server::{Server, on_free_ports};

const RULE: &str = "[[topic]]\npattern = \"h*\"\nhistory_messages = 9000\nhistory_bytes = \"16 MiB\"\n";

fn start(more: &str) -> Server {
    let config = ConfigFile::new(&format!("{more}{RULE}"));
    Server::spawn(on_free_ports(&["--loops", "1", "--config", config.path()], &[]))
}

/// Publishes so many messages of a kilobyte in one request; each begins with its number.
fn publish(server: &Server, topic: &str, count: usize) {
    let line = |number: usize| {
        let payload = format!("{number:04}{}", "x".repeat(1_020));
        json!({"topic": topic, "payload": payload}).to_string() + "\n"
    };
    let lines: String = (1..=count).map(line).collect();
    let mut admin = server.connect_admin();
    let length = lines.len();
    admin.send(
        format!("POST /publish HTTP/1.1\r\nHost: {}\r\nContent-Length: {length}\r\n\r\n", server.admin)
            .as_bytes(),
    );
    admin.send(lines.as_bytes());
    let answer = admin.answer();
    assert_eq!((answer.status, answer.text().lines().count()), (200, count));
}

fn epoch(server: &Server, topic: &str) -> String {
    let place = server.get(&format!("/history?topic={topic}&limit=0")).json();
    place["epoch"].as_str().unwrap_or_else(|| panic!("{place}")).to_owned()
}

fn get(server: &Server, target: &str, fields: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", server.listen).into_bytes()
}

/// A connection into which the kernel takes little that is not read.
fn narrow(server: &Server) -> Peer {
    let peer = server.connect();
    set_buffers(&peer.stream, None, Some(64 * 1024)).expect("an option");
    peer
}

#[test]
fn bodies_that_come_byte_by_byte_hold_what_has_come_and_nobody_up() {
    const PUBLISHERS: usize = 40;
    let server = start("");
    let mut bystander = Bystander::of(&server);
    let mut reader = server.websocket("/ws/h");
    let before = resident(&server);
    let mut slow: Vec<Peer> = (0..PUBLISHERS).map(|_| server.connect_admin()).collect();
    for peer in &mut slow {
        let head =
            format!("POST /publish/h HTTP/1.1\r\nHost: {}\r\nContent-Length: 60\r\n\r\n", server.admin);
        peer.send(head.as_bytes());
    }
    meanwhile(&mut bystander, || {
        for round in 0..59 {
            slow.iter_mut().for_each(|peer| peer.send(b"x"));
            if round % 20 == 0 {
                assert_eq!(server.publish("h", b"at once").status, 200);
                assert_eq!(reader.text(), "at once");
            }
        }
    });
    assert!(resident(&server) < before + 8 * MIB, "{before} -> {}", resident(&server));
    // Half of them leave, in the middle; what the others have begun can end.
    slow.truncate(PUBLISHERS / 2);
    for peer in &mut slow {
        peer.send(b"y");
        assert_eq!(peer.answer().status, 200);
        assert_eq!(reader.text(), format!("{}y", "x".repeat(59)));
    }
    bystander.echoes();
}

#[test]
fn readers_who_read_nothing_while_they_catch_up_hold_little_and_lose_nothing() {
    const READERS: usize = 12;
    // More than the kernel takes for a connection that is not read.
    const MESSAGES: usize = 8_000;
    // They are not to be ended before the test has looked.
    let server = start("[timeouts]\nwrite_timeout_seconds = 600\n");
    publish(&server, "h", MESSAGES);
    let place = format!("{}:0", epoch(&server, "h"));
    let mut bystander = Bystander::of(&server);
    let mut live = server.websocket("/ws/h");
    let before = resident(&server);
    let (mut streams, mut polls) = (Vec::new(), Vec::new());
    meanwhile(&mut bystander, || {
        for _ in 0..READERS {
            let (mut stream, mut poll) = (narrow(&server), narrow(&server));
            stream.send(&get(&server, &format!("/sse/h?since={place}"), ""));
            // Several in a row: no answer is made before the one in front of it has left.
            poll.send(&get(&server, &format!("/poll/h?since={place}"), "").repeat(40));
            streams.push(stream);
            polls.push(poll);
        }
        server.await_metric("fantail_would_blocks_total", "", |full| full >= READERS as u64);
        for number in 0..20 {
            assert_eq!(server.publish("h", format!("live {number}").as_bytes()).status, 200);
            assert_eq!(live.text(), format!("live {number}"));
        }
    });
    // An answer to a poll has at most 256 KiB of messages; a stream reads on at its reader's pace.
    let bound = before + READERS as u64 * 300 * 1_024 + 8 * MIB;
    assert!(resident(&server) < bound, "{before} -> {}", resident(&server));
    assert_eq!(server.metric("fantail_dropped_messages_total", ""), 0);
    // Who reads in the end gets all of it.
    let (mut stream, mut poll) = (streams.pop().expect("one"), polls.pop().expect("one"));
    let mut seen = Vec::new();
    while !seen.ends_with(b"data: live 19\n\n\r\n") {
        seen.extend(stream.some());
    }
    let seen = String::from_utf8(seen).expect("text");
    let ids = seen.lines().filter_map(|line| line.strip_prefix("id: ")?.rsplit(':').next()?.parse().ok());
    let ids: Vec<u64> = ids.collect();
    let first = ids.first().copied().expect("events");
    assert!(ids.iter().copied().eq(1..=8_020), "from {first} on, {} of them", ids.len());
    for _ in 0..40 {
        assert_eq!(poll.answer().json()["messages"][0]["offset"], 1);
    }
    drop((streams, polls, stream, poll));
    server.await_metric("fantail_connections", "", |open| open == 2);
    server.await_metric("fantail_outbox_bytes", "", |bytes| bytes == 0);
    bystander.echoes();
}

#[test]
fn those_who_end_their_half_are_freed() {
    const ROUNDS: usize = 150;
    let server = start("");
    publish(&server, "h", 50);
    let place = format!("{}:0", epoch(&server, "h"));
    let mut bystander = Bystander::of(&server);
    let before = resident(&server);
    let mut halves = Vec::new();
    meanwhile(&mut bystander, || {
        for round in 0..ROUNDS {
            let request = match round % 4 {
                0 => upgrade_request(server.listen, &format!("/ws/h?since={place}"), "").into_bytes(),
                1 => get(&server, &format!("/sse/h?since={place}"), ""),
                2 => get(&server, "/sse/h?topic=h2", ""),
                _ => get(&server, "/poll/h", ""),
            };
            let mut peer = server.connect();
            peer.send(&request);
            let _ = peer.stream.shutdown(Shutdown::Write);
            // They go on reading nothing and end nothing themselves.
            halves.push(peer);
        }
        server.await_metric("fantail_connections_closed_total", "", |closed| closed == ROUNDS as u64);
        server.await_metric("fantail_subscriptions", "", |left| left == 0);
    });
    assert_eq!(server.metric("fantail_outbox_bytes", ""), 0);
    assert!(resident(&server) < before + 8 * MIB, "{before} -> {}", resident(&server));
    drop(halves);
}

/// Places that nobody was given: of another epoch, ahead of the stream, at the ends of numbers.
fn forged(epoch: &str, number: u64) -> (String, &'static str) {
    match number % 4 {
        0 => (format!("{number:016x}:{number}"), "other_epoch"),
        1 => (format!("{epoch}:{}", u64::MAX - number), "ahead"),
        2 => (format!("{:016x}:{}", u64::MAX, u64::MAX), "other_epoch"),
        _ => (format!("{epoch}:{}", 1_001 + number), "ahead"),
    }
}

#[test]
fn floods_of_forged_places_are_told_gaps_and_hold_nothing() {
    const FLOOD: u64 = 400;
    let server = start("");
    publish(&server, "h", 1_000);
    let epoch = epoch(&server, "h");
    let mut bystander = Bystander::of(&server);
    let before = resident(&server);
    meanwhile(&mut bystander, || {
        // One that asks without reading, then reads what it was told.
        let mut peer = speaker(&server, "/ws");
        for number in 0..FLOOD {
            let (since, _) = forged(&epoch, number);
            say(&mut peer, &json!({"type": "subscribe", "id": number, "topic": "h", "since": since}));
            say(&mut peer, &json!({"type": "unsubscribe", "topic": "h"}));
        }
        let mut answered = 0;
        while answered < FLOOD {
            let told = hear(&mut peer);
            if told["type"] == "subscribed" {
                let (_, kind) = forged(&epoch, answered);
                assert_eq!((&told["id"], &told["gap"]["kind"]), (&json!(answered), &json!(kind)), "{told}");
                assert_ne!(told["recovered"], true, "{told}");
                answered += 1;
            }
        }
        for number in 0..FLOOD / 4 {
            let (since, kind) = forged(&epoch, number);
            let (mut stream, mut poll) = (server.connect(), server.connect());
            stream.send(&get(&server, "/sse/h", &format!("Last-Event-ID: {since}\r\n")));
            poll.send(&get(&server, &format!("/poll/h?since={since}&wait=0"), ""));
            assert_eq!(poll.answer().json()["gap"]["kind"], kind, "{since}");
            let mut head = String::new();
            while !head.contains("\r\n\r\n") {
                head.push_str(&String::from_utf8_lossy(&stream.some()));
            }
            assert!(head.starts_with("HTTP/1.1 200 ") && head.contains(kind), "{since}: {head}");
        }
    });
    server.await_metric("fantail_subscriptions", "", |left| left == 0);
    assert!(resident(&server) < before + 16 * MIB, "{before} -> {}", resident(&server));
}

#[test]
fn after_each_restart_in_a_flood_who_comes_back_is_told() {
    let mut position = None::<(String, u64)>;
    for round in 0..3 {
        let server = start("");
        let mut bystander = Bystander::of(&server);
        meanwhile(&mut bystander, || {
            for number in 0..100 {
                let mut peer = server.connect();
                peer.send(&get(&server, &format!("/sse/h?since={number:016x}:{number}"), ""));
            }
        });
        let mut peer = speaker(&server, "/ws");
        let since = position.as_ref().map(|(epoch, offset)| format!("{epoch}:{offset}"));
        let mut command = json!({"type": "subscribe", "topic": "h"});
        if let Some(since) = &since {
            command["since"] = json!(since);
        }
        say(&mut peer, &command);
        let told = hear(&mut peer);
        assert_eq!(told["type"], "subscribed", "{told}");
        assert_eq!(told["gap"]["kind"].as_str(), since.map(|_| "other_epoch"), "round {round}: {told}");
        assert_eq!(server.publish("h", b"x").status, 200);
        let message = hear(&mut peer);
        assert_eq!((&message["type"], &message["data"]), (&json!("message"), &json!("x")), "{message}");
        let epoch = told["epoch"].as_str().expect("an epoch").to_owned();
        assert_ne!(Some(&epoch), position.as_ref().map(|(epoch, _)| epoch));
        position = Some((epoch, message["offset"].as_u64().expect("an offset")));
    }
}
