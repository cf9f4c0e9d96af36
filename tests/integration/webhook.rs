//! Webhooks of the real binary: what a receiver gets of topics that people come to and leave.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{self, Receiver};
use std::thread;

use aws_lc_rs::hmac;
use fantail::wire::frame::Opcode;
use serde_json::Value;

use crate::bearers::{self, Secret, token};
use crate::reload::ConfigFile;
use crate::server::{PATIENCE, Server, command, fails, on_free_ports, wait_for};

const SECRET: &str = "a secret of some length, at least";

/// What was posted: the head in lower case, and the body.
type Posted = (String, Vec<u8>);

/// A receiver that answers its first request with 503 and the others with 204. Its thread ends with the test's process.
fn receiver() -> (String, Receiver<Posted>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}/hook?key=hidden", listener.local_addr().expect("an address"));
    let (sender, posted) = mpsc::channel();
    thread::spawn(move || {
        let mut first = true;
        for mut stream in listener.incoming().flatten() {
            while let Some(request) = read_request(&mut stream) {
                let answer = match std::mem::take(&mut first) {
                    true => "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n",
                    false => "HTTP/1.1 204 No Content\r\n\r\n",
                };
                if stream.write_all(answer.as_bytes()).is_err() || sender.send(request).is_err() {
                    break;
                }
            }
        }
    });
    (url, posted)
}

fn read_request(stream: &mut impl Read) -> Option<Posted> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("text").to_ascii_lowercase();
    let mut body = vec![0; field(&head, "content-length").parse().expect("a length")];
    stream.read_exact(&mut body).ok()?;
    Some((head, body))
}

fn field<'a>(head: &'a str, name: &str) -> &'a str {
    let fields = head.lines().filter_map(|line| line.split_once(": "));
    fields
        .filter(|(known, _)| *known == name)
        .map(|(_, value)| value)
        .next()
        .unwrap_or_else(|| panic!("{name}: {head}"))
}

fn next(posted: &Receiver<Posted>) -> (String, Value) {
    let (head, body) = posted.recv_timeout(PATIENCE).expect("a batch");
    let id = field(&head, "webhook-id").to_owned();
    let signed = [id.as_bytes(), b".", field(&head, "webhook-timestamp").as_bytes(), b".", &body].concat();
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let expected = data_encoding::BASE64.encode(hmac::sign(&key, &signed).as_ref());
    // The head was brought to lower case.
    assert_eq!(field(&head, "webhook-signature"), format!("v1,{expected}").to_ascii_lowercase());
    (id, serde_json::from_slice(&body).expect("JSON"))
}

fn told(body: &Value) -> Vec<(&str, &str)> {
    let events = body["events"].as_array().expect("events");
    events.iter().filter_map(|event| Some((event["type"].as_str()?, event["topic"].as_str()?))).collect()
}

#[test]
fn who_comes_and_leaves_is_told_once_signed_and_at_the_latest_in_the_end() {
    let (url, posted) = receiver();
    let secret = ConfigFile::new(&format!("{SECRET}\n"));
    let config = ConfigFile::new(&format!("[webhook]\nurl = {url:?}\nsecret_file = {:?}\n", secret.path()));
    let mut server = Server::spawn(on_free_ports(&["--config", config.path(), "--loops", "2"], &[]));
    let first = server.websocket("/ws/a%22b");
    let (id, body) = next(&posted);
    assert_eq!(told(&body), [("occupied", "a\"b")], "{body}");
    assert!(body["events"][0]["time"].as_u64().is_some_and(|time| time > 1_700_000_000_000), "{body}");
    let (again, same) = next(&posted);
    assert_eq!((again, same), (id.clone(), body), "the first was answered 503");
    // Others who come and leave change nothing, nor does who comes back at once.
    let second = server.websocket("/ws/a%22b");
    drop(second);
    let other = server.websocket("/ws/other");
    let (next_id, body) = next(&posted);
    assert_ne!(next_id, id);
    assert_eq!(told(&body), [("occupied", "other")], "{body}");
    drop((first, other));
    wait_for("everybody to have left", || {
        let topics = server.get("/topics").json();
        topics["topics"].as_array().is_some_and(|topics| topics.iter().all(|topic| topic["subscribers"] == 0))
    });
    server.await_metric("fantail_webhook_events_total", "delivered", |count| count >= 2);
    assert_eq!(server.metric("fantail_webhook_failed_calls_total", ""), 1);
    server.terminate();
    let mut gone = Vec::new();
    while gone.len() < 2 {
        let (_, body) = next(&posted);
        gone.extend(told(&body).into_iter().map(|(kind, topic)| format!("{kind} {topic}")));
    }
    gone.sort_unstable();
    assert_eq!(gone, ["vacated a\"b", "vacated other"]);
    server.await_exit();
    assert!(!server.rest_of_log().contains("hidden"), "a query may be a secret");
}

#[test]
fn a_webhook_that_can_not_work_is_refused_before_anything_listens() {
    let secret = ConfigFile::new("too short");
    let good = ConfigFile::new(SECRET);
    for (url, file, said) in [
        ("ftp://example.com/", good.path(), "webhook.url: expects a URL"),
        ("http://127.0.0.1:1/", secret.path(), "expects a secret of 24 to 1024 bytes"),
        ("http://127.0.0.1:1/", "/nowhere/secret", "webhook.secret_file: \"/nowhere/secret\" can't be read"),
    ] {
        let config = ConfigFile::new(&format!("[webhook]\nurl = {url:?}\nsecret_file = {file:?}\n"));
        let (code, text) = fails(command(&["check-config", "--config", config.path()], &[]));
        assert_eq!(code, Some(2), "{text}");
        assert!(text.contains(said), "{text}");
        assert!(!text.contains("too short"), "{text}");
    }
}

/// Events until there are so many, each batch once.
fn events(posted: &Receiver<Posted>, most: usize) -> Vec<Value> {
    let (mut batches, mut events) = (Vec::new(), Vec::new());
    while events.len() < most {
        let (id, body) = next(posted);
        if !batches.contains(&id) {
            batches.push(id);
            assert!(body.get("missed").is_none(), "{body}");
            events.extend(body["events"].as_array().expect("events").clone());
        }
    }
    events
}

#[test]
fn connections_are_told_from_their_beginning_to_their_end_and_in_order() {
    let (url, posted) = receiver();
    let (secret, key) = (ConfigFile::new(SECRET), Secret::new(bearers::SECRET));
    let config = ConfigFile::new(&format!(
        "[webhook]\nurl = {url:?}\nsecret_file = {:?}\nevents = [\"connected\", \"disconnected\"]\n\
         [[topic]]\npattern = \"told/*\"\nsubscribe = \"anyone\"\nwebhook = [\"subscribed\", \"unsubscribed\"]\n\
         [[topic]]\npattern = \"*\"\nsubscribe = \"anyone\"\n{}",
        secret.path(),
        key.issuer("")
    ));
    let mut server = Server::spawn(on_free_ports(&["--config", config.path(), "--loops", "2"], &[]));
    // Neither an answer nor a poll is a connection, and what no rule names is nobody's business.
    assert_eq!(server.get("/topics").status, 200);
    assert_eq!(server.connect().ask_upgrade("/ws?topic=a&since=x", "").status, 400);
    drop(server.websocket("/ws/other"));
    let mut peer = server.connect();
    let shown = format!("Authorization: Bearer {}\r\n", token("alice", ""));
    assert_eq!(peer.ask_upgrade("/ws/told/a?topic=other", &shown).status, 101);
    let found = server.get("/connections?identity=alice").json();
    let id = found["connections"][0]["id"].as_str().expect("an id").to_owned();
    assert_eq!(server.post("/connections/close", "", format!("id={id}&code=4000").as_bytes()).status, 200);
    let close = peer.frame();
    assert_eq!(close.opcode, Opcode::Close);
    peer.send_frame(Opcode::Close, &close.payload);
    peer.expect_end();
    let all = events(&posted, 6);
    let stranger = &all[0]["connection"];
    assert_ne!(*stranger, id.as_str());
    let of = |connection: &Value| {
        let of_it = all.iter().filter(|event| event["connection"] == *connection);
        let said = |event: &Value, key: &str| event[key].as_str().unwrap_or("-").to_owned();
        of_it
            .map(|event| ["type", "identity", "dialect", "topic", "reason"].map(|key| said(event, key)))
            .collect::<Vec<_>>()
    };
    assert_eq!(of(stranger).len() + of(&id.clone().into()).len(), 6, "{all:?}");
    let words =
        |events: &[[&str; 5]]| events.iter().map(|event| event.map(str::to_owned)).collect::<Vec<_>>();
    assert_eq!(
        of(&id.into()),
        words(&[
            ["connected", "alice", "plain", "-", "-"],
            ["subscribed", "alice", "-", "told/a", "-"],
            ["unsubscribed", "alice", "-", "told/a", "-"],
            ["disconnected", "alice", "plain", "-", "admin"],
        ])
    );
    let of_stranger = of(stranger);
    assert_eq!((&*of_stranger[0][0], &*of_stranger[1][0]), ("connected", "disconnected"));
    assert!(
        all.iter().all(|event| event["type"] != "connected" || event["address"] == "127.0.0.1"),
        "{all:?}"
    );
    server.terminate();
    server.await_exit();
}

#[test]
fn what_clients_publish_is_told_in_the_order_of_the_topic() {
    const EACH: usize = 40;
    let (url, posted) = receiver();
    let secret = ConfigFile::new(SECRET);
    let config = ConfigFile::new(&format!(
        "[webhook]\nurl = {url:?}\nsecret_file = {:?}\nevents = []\nmessage_bytes_max = 100\n\
         [[topic]]\npattern = \"told\"\nwebhook = [\"published\"]\n[publish]\ntopics = [\"*\"]\n",
        secret.path()
    ));
    let server = Server::spawn(on_free_ports(&["--config", config.path(), "--loops", "2"], &[]));
    let mut peers = [server.websocket("/ws/told?echo=0"), server.websocket("/ws/told?echo=0")];
    server.websocket("/ws/silent").send_frame(Opcode::Text, b"silent");
    for number in 0..EACH {
        for (name, peer) in ["a", "b"].iter().zip(&mut peers) {
            peer.send_frame(Opcode::Text, format!("{name}{number}").as_bytes());
        }
    }
    wait_for("all of them", || server.get("/topics?topic=told").json()["messages"] == 2 * EACH);
    // What the operator publishes takes an offset, and is told of by who has published it.
    assert_eq!(server.post("/publish/told", "", b"operator").status, 200);
    peers[0].send_frame(Opcode::Binary, &[0xff; 100]);
    peers[0].send_frame(Opcode::Text, &[b'x'; 101]);
    let all = events(&posted, 2 * EACH + 2);
    let offsets: Vec<u64> = all.iter().filter_map(|event| event["offset"].as_u64()).collect();
    let most = 2 * EACH as u64;
    assert_eq!(offsets, (1..=most).chain(most + 2..=most + 3).collect::<Vec<_>>());
    for name in ["a", "b"] {
        let of_it: Vec<&str> = all
            .iter()
            .filter_map(|event| event["data"].as_str())
            .filter(|data| data.starts_with(name))
            .collect();
        assert_eq!(of_it, (0..EACH).map(|number| format!("{name}{number}")).collect::<Vec<_>>());
    }
    let [binary, long] = &all[2 * EACH..] else { panic!("{all:?}") };
    assert_eq!(binary["data_base64"], data_encoding::BASE64.encode(&[0xff; 100]).as_str());
    assert_eq!((&long["bytes"], long.get("data"), &long["topic"]), (&101.into(), None, &"told".into()));
}
