//! `presence` where things change under it: rules by a reload, the process itself, names that look like something else.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::bearers::{SECRET, Secret, token};
use crate::client::Peer;
use crate::json::{hear, say, speaker};
use crate::presence::{ask, ids, listed, place};
use crate::reload::ConfigFile;
use crate::server::{Server, on_free_ports, wait_for};
use crate::sse::{Event, Stream};

fn rule(mode: &str) -> String {
    format!(
        "[[topic]]\npattern = \"people\"\npresence = \"{mode}\"\npresence_grace_seconds = 0\n\
         presence_interval_ms = 100\n"
    )
}

fn start(config: &ConfigFile) -> Server {
    Server::spawn(on_free_ports(&["--config", config.path(), "--loops", "2"], &[]))
}

fn reload(server: &Server, config: &ConfigFile, text: &str) {
    config.write(text);
    let answer = server.post("/reload", "", b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
}

/// The next event of a stream that is not of its own coming.
fn next(stream: &mut Stream) -> (Value, String) {
    let Event { kind, data, id } = stream.event();
    assert_eq!(kind, "presence", "{data}");
    (serde_json::from_str(&data).expect("JSON"), id)
}

#[test]
fn a_reload_that_brings_the_first_rule_with_presence_keeps_events_from_then_on() {
    let config = ConfigFile::new("");
    let server = start(&config);
    assert_eq!(Stream::open(&server, "/sse/people?presence=1").answer.status, 404);
    reload(&server, &config, &rule("full"));
    let stays = server.websocket("/ws/people");
    let mut stream = Stream::open(&server, "/sse/people?presence=1");
    // The list, and that the reader itself has come.
    let mut seen = next(&mut stream);
    while seen.0["count"] != 2 {
        seen = next(&mut stream);
    }
    // It is away while somebody comes, and is told that, and no list.
    let other = Stream::open(&server, "/sse/other");
    drop(std::mem::replace(&mut stream, other));
    let _comes = server.websocket("/ws/people");
    wait_for("who has come and who has gone", || {
        listed(&server, "topic=people")["count"] == 2
            && place(&listed(&server, "topic=people")).1 >= place(&seen.0).1 + 2
    });
    let field = format!("Last-Event-ID: {}\r\n", seen.1);
    let mut back = Stream::ask(&server, "/sse/people?presence=1", &field);
    let (event, _) = next(&mut back);
    assert_eq!(event.get("members"), None, "kept, and read on from: {event}");
    assert_eq!(place(&event), (place(&seen.0).0, place(&seen.0).1 + 1));
    drop(stays);
}

#[test]
fn a_rule_that_changes_between_full_counts_and_off_holds_from_then_on() {
    let config = ConfigFile::new(&rule("full"));
    let server = start(&config);
    let mut peer = speaker(&server, "/ws/people");
    hear(&mut peer);
    wait_for("the list", || listed(&server, "topic=people")["count"] == 1);
    let question = json!({"type": "presence", "id": 1, "topic": "people", "events": true});
    assert_eq!(ids(&ask(&mut peer, &question)).len(), 1);
    for (count, mode) in (2..).zip(["counts", "full", "counts"]) {
        reload(&server, &config, &rule(mode));
        std::mem::forget(server.websocket("/ws/people"));
        let event = hear(&mut peer);
        assert_eq!(
            (&event["count"], event.get("joined").is_some()),
            (&json!(count), mode == "full"),
            "{event}"
        );
        let answer = ask(&mut peer, &question);
        assert_eq!((&answer["count"], answer.get("members").is_some()), (&json!(count), mode == "full"));
        let mut stream = Stream::open(&server, "/sse/people?presence=1");
        let (list, id) = next(&mut stream);
        assert_eq!(list.get("members").is_some(), mode == "full", "{list}");
        assert!(id.ends_with(&format!(",{}", list["version"].as_str().expect("a version"))), "{id}");
        hear(&mut peer);
        drop(stream);
        hear(&mut peer);
    }
    reload(&server, &config, &rule("off"));
    say(&mut peer, &question);
    let told = hear(&mut peer);
    assert_eq!(told["code"], "no_presence", "{told}");
    assert_eq!(Stream::open(&server, "/sse/people?presence=1").answer.status, 404);
    assert_eq!(server.get("/presence?topic=people").status, 404);
    // Whoever was listed goes all the same, and nothing of it stays.
    drop(peer);
    server.post("/connections/close?topic=people", "", b"");
    server.await_metric("fantail_presence_members", "", |members| members == 0);
    assert_eq!(server.metric("fantail_presence_bytes", ""), 0);
}

#[test]
fn a_process_that_dies_leaves_nobody_behind() {
    let config = ConfigFile::new(&rule("full").replace("grace_seconds = 0", "grace_seconds = 3600"));
    let first = start(&config);
    let _many: Vec<Peer> = (0..20).map(|_| first.websocket("/ws/people")).collect();
    let mut stream = Stream::open(&first, "/sse/people?presence=1");
    let mut seen = next(&mut stream);
    while seen.0["count"] != 21 {
        seen = next(&mut stream);
    }
    first.signal("KILL");
    let second = start(&config);
    let _one = second.websocket("/ws/people");
    wait_for("the list", || listed(&second, "topic=people")["count"] == 1);
    // Its reader comes back with what it has seen last, of another life, and knows who is there now.
    let field = format!("Last-Event-ID: {}\r\n", seen.1);
    let mut back = Stream::ask(&second, "/sse/people?presence=1", &field);
    let mut told = next(&mut back).0;
    assert!(told.get("members").is_some_and(|members| members.as_array().map(Vec::len) <= Some(2)), "{told}");
    while told["count"] != 2 {
        told = next(&mut back).0;
    }
    assert_ne!(place(&told).0, place(&seen.0).0);
    assert_eq!(listed(&second, "topic=people")["count"], 2);
}

#[test]
fn names_come_as_what_they_are_over_every_dialect() {
    let secret = Secret::new(SECRET);
    let config = ConfigFile::new(&format!("{}{}", rule("full"), secret.issuer("")));
    let server = start(&config);
    let names = [
        r#"{"id":"forged"},"#,
        r#""]}"#,
        "id: 1,2 data: x",
        "~anonymous",
        "</script><b>&amp;",
        "\\u000a\\",
        "\u{2028}\u{2029}\u{202e}\u{feff}",
        "%0d%0aX: y&after=z#",
        &"\"".repeat(200),
    ];
    let field = |name: &str| {
        let sub = serde_json::to_string(name).expect("JSON");
        format!("Authorization: Bearer {}\r\n", token(&sub[1..sub.len() - 1], ""))
    };
    let _members: Vec<Stream> =
        names.iter().map(|name| Stream::ask(&server, "/sse/people", &field(name))).collect();
    let listed_as = |name: &str| if name.starts_with('~') { format!("~{name}") } else { name.to_owned() };
    let truth: BTreeSet<String> = names.iter().map(|name| listed_as(name)).collect();
    wait_for("all of them", || listed(&server, "topic=people")["count"] == truth.len());
    let own = field("alice");
    let of =
        |told: &Value| -> BTreeSet<String> { ids(told).into_iter().filter(|id| id != "alice").collect() };
    assert_eq!(of(&listed(&server, "topic=people")), truth, "the admin port");
    let mut stream = Stream::ask(&server, "/sse/people?presence=1", &own);
    assert_eq!(of(&next(&mut stream).0), truth, "an event stream");
    let mut peer = server.connect();
    peer.send(
        format!("GET /poll/people?presence=1 HTTP/1.1\r\nHost: {}\r\n{own}\r\n", server.listen).as_bytes(),
    );
    assert_eq!(of(&peer.answer().json()["presence"][0]), truth, "a poll");
    let mut peer = server.connect();
    let more = format!("Sec-WebSocket-Protocol: fantail.json.v1\r\n{own}");
    assert_eq!(peer.ask_upgrade("/ws", &more).status, 101);
    // One by one, each behind the one before.
    let (mut found, mut after) = (BTreeSet::new(), json!(null));
    loop {
        let mut question = json!({"type": "presence", "topic": "people", "limit": 1});
        if after.is_string() {
            question["after"] = after;
        }
        let told = ask(&mut peer, &question);
        found.extend(of(&told));
        after = told["next"].clone();
        if !after.is_string() {
            break;
        }
    }
    assert_eq!(found, truth, "json");
}
