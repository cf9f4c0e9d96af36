//! A drain finds readers in the middle of what topics keep: each gets whole messages in order, then its dialect's farewell,
//! and its place is that of the last message it has. Who reads nothing holds nothing up.

use fantail::sys::socket::set_buffers;
use fantail::wire::frame::Opcode;
use serde_json::{Value, json};

use crate::client::{Peer, publish_lines};
use crate::reload::ConfigFile;
use crate::server::{Server, on_free_ports, wait_for};

const MESSAGES: u64 = 400;

/// Whoever reads in a drain has all the time that it takes.
const UNHURRIED: [(&str, &str); 1] = [("FANTAIL_TIMEOUTS_CLOSE_SECONDS", "600")];

/// A server on which a topic keeps more than any socket takes.
fn full(more: &[(&str, &str)]) -> Server {
    let config =
        ConfigFile::new("[[topic]]\npattern = \"h*\"\nhistory_messages = 10000\nhistory_bytes = \"64MiB\"\n");
    let arguments = ["--config", config.path(), "--loops", "2", "--drain-seconds", "0"];
    let server = Server::spawn(on_free_ports(&arguments, more));
    let body = "x".repeat(20_000);
    let line = |number| json!({"topic": "h", "payload": format!("{number} {body}")}).to_string() + "\n";
    publish_lines(server.admin, &(1..=MESSAGES).map(line).collect::<String>());
    server
}

/// Connects with a small buffer.
fn connect(server: &Server) -> Peer {
    let peer = server.connect();
    set_buffers(&peer.stream, None, Some(32 * 1024)).expect("small buffers");
    peer
}

/// A drain begins while so many readers are behind.
fn drain(server: &Server, readers: u64) {
    wait_for("them to be behind", || server.metric("fantail_history_readers", "") == readers);
    server.terminate();
    server.await_log("drain");
}

/// The number that a payload begins with.
fn number(text: &str) -> u64 {
    text.split(' ').next().and_then(|word| word.parse().ok()).expect("a number")
}

/// Reads frames to the end: every message is the next one, and the last frame says 1001.
fn read_to_farewell(peer: &mut Peer, offset_of: impl Fn(&[u8]) -> Option<u64>) -> u64 {
    let mut last = 0;
    loop {
        let frame = peer.frame();
        if frame.opcode == Opcode::Close {
            assert_eq!(frame.close_code(), Some(1001), "behind {last}");
            peer.try_send(&crate::client::frame(Opcode::Close, &[0x03, 0xe9]));
            peer.expect_end();
            return last;
        }
        if let Some(offset) = offset_of(&frame.payload) {
            assert_eq!(offset, last + 1);
            last = offset;
        }
    }
}

fn in_envelope(payload: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(payload).expect("text");
    let (line, payload) = text.split_once('\n').expect("a line");
    let line: Value = serde_json::from_str(line).expect("JSON");
    (line["type"] == "message").then(|| {
        assert_eq!(line["offset"], number(payload));
        number(payload)
    })
}

fn in_json(payload: &[u8]) -> Option<u64> {
    let told: Value = serde_json::from_slice(payload).expect("JSON");
    (told["type"] == "message").then(|| {
        assert_eq!(told["offset"], number(told["data"].as_str().expect("text")));
        number(told["data"].as_str().expect("text"))
    })
}

/// Reads chunks to the last one: each is whole lines, every event the next one, and `retry` comes last.
fn read_to_last_chunk(peer: &mut Peer) -> u64 {
    let (mut last, mut ends) = (0, String::new());
    while let Some(chunk) = peer.chunk() {
        let text = String::from_utf8(chunk).expect("UTF-8");
        assert!(text.ends_with('\n'), "a piece of an event");
        if let Some(data) = text.lines().find_map(|line| line.strip_prefix("data: ")) {
            assert_eq!(number(data), last + 1);
            let place = text.lines().find_map(|line| line.strip_prefix("id: ")).expect("an id");
            assert!(place.split(',').next().is_some_and(|place| place.ends_with(&format!(":{}", last + 1))));
            last += 1;
        }
        ends = text;
    }
    assert!(ends.contains("retry: "), "it ends with the time to come back: {ends:?}");
    peer.expect_end();
    last
}

#[test]
fn who_is_behind_gets_whole_messages_and_then_a_farewell() {
    let mut server = full(&UNHURRIED);
    let mut envelope = connect(&server);
    envelope.upgrade("/ws/h?envelope=1&history=400");
    let mut json = connect(&server);
    let answer = json.ask_upgrade("/ws/h?history=400", "Sec-WebSocket-Protocol: fantail.json.v1\r\n");
    assert_eq!(answer.status, 101);
    let mut streams: Vec<Peer> = ["/sse/h?history=400", "/sse/h?topic=h2&history=400"]
        .iter()
        .map(|path| {
            let mut peer = connect(&server);
            peer.send(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", server.listen).as_bytes());
            assert_eq!(peer.answer_to(true).status, 200);
            peer
        })
        .collect();
    drain(&server, 4);
    let mut reached =
        vec![read_to_farewell(&mut envelope, in_envelope), read_to_farewell(&mut json, in_json)];
    reached.extend(streams.iter_mut().map(read_to_last_chunk));
    assert!(reached.iter().all(|last| (1..MESSAGES).contains(last)), "in the middle of it: {reached:?}");
    assert!(server.await_exit().success());
}

#[test]
fn who_reads_nothing_in_a_drain_is_not_waited_for() {
    let mut server = full(&[("FANTAIL_TIMEOUTS_CLOSE_SECONDS", "1")]);
    let mut kept = Vec::new();
    for path in ["/ws/h?envelope=1&history=400", "/ws/h?history=400"] {
        let mut peer = connect(&server);
        peer.send(crate::client::upgrade_request(server.listen, path, "").as_bytes());
        kept.push(peer);
    }
    let mut stream = connect(&server);
    stream.send(format!("GET /sse/h?history=400 HTTP/1.1\r\nHost: {}\r\n\r\n", server.listen).as_bytes());
    kept.push(stream);
    drain(&server, 3);
    assert!(server.await_exit().success());
}

/// A poll is a question with an answer: one that was asked for before is given whole, and then there are none.
#[test]
fn a_poll_that_is_behind_is_answered_and_asked_to_go() {
    let mut server = full(&UNHURRIED);
    let answer = server.get("/history?topic=h&limit=0");
    let epoch = answer.json()["epoch"].as_str().expect("an epoch").to_owned();
    let ask = |peer: &mut Peer, offset: u64| {
        let target = format!("/poll/h?since={epoch}:{offset}");
        peer.send(format!("GET {target} HTTP/1.1\r\nHost: {}\r\n\r\n", server.listen).as_bytes());
    };
    let mut behind = connect(&server);
    let mut waiting = connect(&server);
    ask(&mut behind, 0);
    ask(&mut waiting, MESSAGES);
    wait_for("one to wait", || server.metric("fantail_subscriptions", "") == 1);
    server.terminate();
    server.await_log("drain");
    let told = behind.answer();
    let messages = told.json()["messages"].as_array().expect("a list").clone();
    for (place, message) in messages.iter().enumerate() {
        assert_eq!(message["offset"], place as u64 + 1);
    }
    assert!(!messages.is_empty());
    let place = told.field("fantail-position").expect("a position").to_owned();
    assert_eq!(place, format!("{epoch}:{}", messages.len()));
    let told = waiting.answer();
    assert_eq!((told.status, told.field("connection")), (204, Some("close")));
    assert_eq!(told.field("fantail-position"), Some(format!("{epoch}:{MESSAGES}").as_str()));
    waiting.expect_end();
    drop(behind);
    assert!(server.await_exit().success());
}
