//! Long polls: answered at once what was missed, else the next messages, else nothing in time.

use std::net::Shutdown;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::{Answer, Peer, publish_lines};
use crate::reload::ConfigFile;
use crate::server::{Server, on_free_ports, wait_for};

fn ask(server: &Server, peer: &mut Peer, method: &str, target: &str) {
    peer.send(format!("{method} {target} HTTP/1.1\r\nHost: {}\r\n\r\n", server.listen).as_bytes());
}

fn get(server: &Server, peer: &mut Peer, target: &str) -> Answer {
    ask(server, peer, "GET", target);
    peer.answer()
}

fn position(answer: &Answer) -> String {
    answer.field("fantail-position").expect("a position").to_owned()
}

fn await_waiting(server: &Server, count: u64) {
    server.await_metric("fantail_subscriptions", "", |waiting| waiting == count);
}

#[test]
fn the_next_message_answers_all_who_wait_and_the_connection_goes_on() {
    let server = Server::start(&["--loops", "2"], &[]);
    let mut peers: Vec<Peer> = (0..20).map(|_| server.connect()).collect();
    let mut last = Vec::new();
    for round in 1..=3 {
        peers.iter_mut().for_each(|peer| ask(&server, peer, "GET", "/poll/a%2Fb"));
        await_waiting(&server, 20);
        assert_eq!(server.publish("a/b", format!("{{\"n\":{round}}}").as_bytes()).status, 200);
        let answers: Vec<Answer> = peers.iter_mut().map(Peer::answer).collect();
        for answer in &answers {
            assert_eq!((answer.status, answer.field("content-type")), (200, Some("application/json")));
            let told = answer.json();
            assert_eq!((&told["topic"], &told["offset"]), (&json!("a/b"), &json!(round)));
            assert_eq!(told["messages"][0]["data"], json!({ "n": round }));
            assert_eq!(told["messages"].as_array().map(Vec::len), Some(1));
            assert_eq!(position(answer), format!("{}:{round}", told["epoch"].as_str().expect("an epoch")));
            assert_eq!(told.get("gap"), None);
        }
        await_waiting(&server, 0);
        last = answers;
    }
    // Between two polls nothing is kept of this topic, and it says so.
    server.publish("a/b", b"missed");
    let behind = get(&server, &mut peers[0], &format!("/poll/a%2Fb?since={}", position(&last[0])));
    let told = behind.json();
    assert_eq!((behind.status, &told["messages"]), (200, &json!([])));
    assert_eq!((&told["gap"], &told["offset"]), (&json!({ "kind": "expired", "oldest": 5 }), &json!(4)));
    assert_eq!(server.metric("fantail_deliveries_total", ""), 60);
}

#[test]
fn nothing_in_time_is_204_with_the_position() {
    let server = Server::start(&["--loops", "1"], &[]);
    let mut peer = server.connect();
    server.publish("t", b"before");
    let begin = Instant::now();
    let none = get(&server, &mut peer, "/poll/t?wait=1");
    assert!((Duration::from_millis(800)..Duration::from_secs(20)).contains(&begin.elapsed()));
    assert_eq!((none.status, none.body.len()), (204, 0));
    let at = position(&none);
    assert!(at.ends_with(":1"), "{at}");
    // At once, if it is not to wait; and HEAD never does.
    assert_eq!(position(&get(&server, &mut peer, "/poll/t?wait=0")), at);
    ask(&server, &mut peer, "HEAD", "/poll/t");
    let head = peer.answer_to(true);
    assert_eq!((head.status, position(&head)), (204, at));
    await_waiting(&server, 0);
}

#[test]
fn who_leaves_frees_its_place_at_once() {
    let server = Server::start(&["--loops", "1"], &[]);
    let mut peer = server.connect();
    ask(&server, &mut peer, "GET", "/poll/t?wait=60");
    await_waiting(&server, 1);
    peer.stream.shutdown(Shutdown::Write).expect("open");
    server.await_metric("fantail_connections", "", |open| open == 0);
    await_waiting(&server, 0);
    assert_eq!(server.publish("t", b"to nobody").json()["subscribers"], json!(0));
}

#[test]
fn a_drain_answers_who_waits() {
    let mut server = Server::start(&["--loops", "2", "--drain-seconds", "0"], &[]);
    let mut peers: Vec<Peer> = (0..8).map(|_| server.connect()).collect();
    peers.iter_mut().for_each(|peer| ask(&server, peer, "GET", "/poll/t?wait=60"));
    await_waiting(&server, 8);
    server.terminate();
    for peer in &mut peers {
        let answer = peer.answer();
        assert_eq!((answer.status, answer.field("connection")), (204, Some("close")));
        peer.expect_end();
    }
    wait_for("its end", || server.try_exit().is_some_and(|status| status.success()));
}

#[test]
fn slips_refusals_and_other_origins_are_answered_as_elsewhere() {
    let environment =
        [("FANTAIL_ADMISSION_PER_ADDRESS_MAX", "1"), ("FANTAIL_ORIGIN_ALLOWED", "https://app.example")];
    let server = Server::start(&["--loops", "1"], &environment);
    let mut peer = server.connect();
    for target in ["/poll/", "/poll/a?since=7", "/poll/a?wait=61", "/poll/a?weit=1"] {
        assert_eq!(get(&server, &mut peer, target).status, 400, "{target}");
    }
    peer.send(
        format!(
            "GET /poll/t?wait=0 HTTP/1.1\r\nHost: {}\r\nOrigin: https://app.example\r\n\r\n",
            server.listen
        )
        .as_bytes(),
    );
    let allowed = peer.answer();
    assert_eq!(allowed.field("access-control-allow-origin"), Some("https://app.example"));
    assert!(
        allowed.field("access-control-expose-headers").is_some_and(|list| list.contains("Fantail-Position"))
    );
    peer.send(
        format!("GET /poll/t HTTP/1.1\r\nHost: {}\r\nOrigin: https://evil.example\r\n\r\n", server.listen)
            .as_bytes(),
    );
    assert_eq!(peer.answer().status, 403);
    let refused = get(&server, &mut server.connect(), "/poll/t");
    assert_eq!((refused.status, refused.field("retry-after")), (429, Some("10")));
}

#[test]
fn what_was_missed_comes_at_once_each_message_once_while_others_are_published() {
    let config = ConfigFile::new("[[topic]]\npattern = \"h\"\nhistory_messages = 10000\n");
    let server = Server::spawn(on_free_ports(&["--config", config.path(), "--loops", "2"], &[]));
    let mut peer = server.connect();
    let mut at = position(&get(&server, &mut peer, "/poll/h?wait=0"));
    let lines = |numbers: std::ops::Range<usize>| -> String {
        numbers
            .map(|number| json!({ "topic": "h", "payload": number.to_string() }).to_string() + "\n")
            .collect()
    };
    server.post("/publish", "", lines(0..2_500).as_bytes());
    let (mut seen, mut answers) = (Vec::new(), 0);
    let admin = server.admin;
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for first in (2_500..3_000).step_by(50) {
                publish_lines(admin, &lines(first..first + 50));
            }
        });
        while seen.len() < 3_000 {
            let answer = get(&server, &mut peer, &format!("/poll/h?since={at}&wait=10"));
            assert_eq!(answer.status, 200, "{answer:?}");
            let told = answer.json();
            assert_eq!(told.get("gap"), None);
            let messages = told["messages"].as_array().expect("messages");
            assert!((1..=1_000).contains(&messages.len()));
            seen.extend(messages.iter().map(|message| {
                (
                    message["offset"].as_u64().expect("an offset"),
                    message["data"].as_str().expect("text").to_owned(),
                )
            }));
            at = position(&answer);
            answers += 1;
        }
    });
    let expected: Vec<_> = (0..3_000).map(|number| (number as u64 + 1, number.to_string())).collect();
    assert!(seen == expected, "{} messages, not each once and in order", seen.len());
    assert!(answers >= 3);
}
