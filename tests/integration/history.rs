//! Topics that remember: resuming over real connections, gaps by their kind, and what is kept for how long.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use fantail::sys::socket::set_buffers;
use fantail::wire::frame::Opcode;
use serde_json::Value;

use crate::client::Peer;
use crate::reload::ConfigFile;
use crate::server::{Server, on_free_ports, wait_for};

fn start(config: &ConfigFile, more: &[&str]) -> Server {
    Server::spawn(on_free_ports(&[&["--config", config.path()], more].concat(), &[]))
}

/// What a line of an envelope says, and the payload behind it.
fn envelope(peer: &mut Peer) -> (Value, Vec<u8>) {
    let payload = peer.frame().payload;
    let end = payload.iter().position(|byte| *byte == b'\n').expect("a line");
    let (line, rest) = payload.split_at(end);
    (serde_json::from_slice(line).expect("JSON"), rest[1..].to_vec())
}

/// Subscribes with an envelope, and gives what the first line says.
fn subscribe(server: &Server, topic: &str, query: &str) -> (Peer, Value) {
    subscribe_at(server.listen, topic, query)
}

fn subscribe_at(listen: SocketAddr, topic: &str, query: &str) -> (Peer, Value) {
    let mut peer = Peer::connect(listen);
    peer.upgrade(&format!("/ws/{topic}?envelope=1{query}"));
    let (line, rest) = envelope(&mut peer);
    assert_eq!((line["type"].as_str(), rest.as_slice()), (Some("subscribed"), &b""[..]), "{line}");
    assert_eq!(line["topic"], topic);
    (peer, line)
}

fn position(line: &Value) -> String {
    line["position"].as_str().expect("a position").to_owned()
}

fn epoch(line: &Value) -> String {
    position(line).split(':').next().expect("an epoch").to_owned()
}

/// The next message's offset and payload.
fn message(peer: &mut Peer) -> (u64, String) {
    let (line, payload) = envelope(peer);
    assert_eq!(line["type"], "message", "{line}");
    assert!(line["time"].as_u64().expect("a time") > 1_600_000_000_000, "{line}");
    (line["offset"].as_u64().expect("an offset"), String::from_utf8(payload).expect("text"))
}

fn publish(server: &Server, topic: &str, texts: impl IntoIterator<Item = String>) {
    let mut admin = server.connect_admin();
    for text in texts {
        let head = format!(
            "POST /publish/{topic} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n{text}",
            server.admin,
            text.len()
        );
        admin.send(head.as_bytes());
        assert_eq!(admin.answer().status, 200);
    }
}

fn numbers(range: std::ops::RangeInclusive<u64>) -> impl Iterator<Item = String> {
    range.map(|number| number.to_string())
}

const RULE: &str = "[[topic]]\npattern = \"h*\"\nhistory_messages = 1000\n";

#[test]
fn what_was_missed_comes_first_and_then_what_is_new() {
    let config = ConfigFile::new(RULE);
    let server = start(&config, &[]);
    publish(&server, "h", numbers(1..=5));
    let (mut peer, line) = subscribe(&server, "h", "&history=2");
    assert!(position(&line).ends_with(":3"), "{line}");
    assert_eq!([message(&mut peer), message(&mut peer)], [(4, "4".to_owned()), (5, "5".to_owned())]);
    publish(&server, "h", numbers(6..=6));
    assert_eq!(message(&mut peer), (6, "6".to_owned()));
    let since = |offset: u64| format!("&since={}:{offset}", epoch(&line));
    let (mut peer, resumed) = subscribe(&server, "h", &since(2));
    assert_eq!((resumed["recovered"].as_bool(), resumed.get("gap")), (Some(true), None));
    for number in 3..=6 {
        assert_eq!(message(&mut peer), (number, number.to_string()));
    }
    // Nothing was missed, and the payload alone comes without an envelope.
    let mut bare = server.websocket(&format!("/ws/h?{}", since(6)));
    let mut two = server.websocket(&format!("/ws/x?topic=h{}", since(5)));
    assert_eq!(two.text(), "6");
    publish(&server, "h", numbers(7..=7));
    assert_eq!(bare.text(), "7");
    assert_eq!(two.text(), "7");
    assert_eq!(message(&mut peer), (7, "7".to_owned()));
    // The publisher's own order holds for binary ones, too.
    assert_eq!(server.post("/publish/h?binary=1", "", b"\x00\xff").status, 200);
    let (line, payload) = envelope(&mut peer);
    assert_eq!((line["offset"].as_u64(), payload.as_slice()), (Some(8), &b"\x00\xff"[..]));
    assert_eq!(bare.frame().opcode, Opcode::Binary);
    assert_eq!(server.metric("fantail_history_messages", ""), 8);
}

#[test]
fn every_gap_is_told_by_its_kind() {
    let config = ConfigFile::new("[[topic]]\npattern = \"h*\"\nhistory_messages = 3\n");
    let server = start(&config, &[]);
    publish(&server, "h", numbers(1..=10));
    let (_, line) = subscribe(&server, "h", "");
    let epoch = epoch(&line);
    assert_eq!((line.get("gap"), line.get("recovered")), (None, None));
    let gap = |since: String| {
        let (mut peer, line) = subscribe(&server, "h", &since);
        let kind = line["gap"]["kind"].as_str().unwrap_or("none").to_owned();
        let oldest = line["gap"]["oldest"].as_u64();
        // What is kept comes all the same, if anything is behind the place.
        let first = (!position(&line).ends_with(":10")).then(|| message(&mut peer).0);
        (kind, oldest, first)
    };
    assert_eq!(gap(format!("&since={epoch}:7")), ("none".to_owned(), None, Some(8)));
    assert_eq!(gap(format!("&since={epoch}:6")), ("expired".to_owned(), Some(8), Some(8)));
    assert_eq!(gap(format!("&since={epoch}:11")), ("ahead".to_owned(), Some(8), None));
    assert_eq!(gap(format!("&since={:016x}:9", 7)), ("other_epoch".to_owned(), Some(8), Some(8)));
    // A topic that keeps nothing is as honest.
    let (_, line) = subscribe(&server, "other", "");
    publish(&server, "other", numbers(1..=2));
    let (_, line) = subscribe(&server, "other", &format!("&since={}", position(&line)));
    assert_eq!((line["gap"]["kind"].as_str(), line["gap"]["oldest"].as_u64()), (Some("expired"), Some(3)));
}

/// Whoever comes back again and again, at whatever moment, gets each message once and in order.
#[test]
fn nobody_misses_or_sees_twice_through_many_reconnects() {
    const MESSAGES: u64 = 3_000;
    let config = ConfigFile::new("[[topic]]\npattern = \"h*\"\nhistory_messages = 10000\n");
    let server = start(&config, &["--loops", "2"]);
    let (_, line) = subscribe(&server, "h", "");
    let start = position(&line);
    let reconnects = AtomicU64::new(0);
    thread::scope(|scope| {
        for client in 0..6u64 {
            let (listen, start, reconnects) = (server.listen, &start, &reconnects);
            scope.spawn(move || {
                let mut last = 0;
                let mut seed = client + 1;
                while last < MESSAGES {
                    let (epoch, _) = start.split_once(':').expect("a position");
                    let (mut peer, line) = subscribe_at(listen, "h", &format!("&since={epoch}:{last}"));
                    assert_eq!(line["recovered"], true, "{line}");
                    seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    for _ in 0..1 + (seed >> 33) % 200 {
                        if last == MESSAGES {
                            break;
                        }
                        let (offset, text) = message(&mut peer);
                        assert_eq!((offset, text), (last + 1, (last + 1).to_string()), "client {client}");
                        last = offset;
                    }
                    reconnects.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        publish(&server, "h", numbers(1..=MESSAGES));
    });
    assert!(reconnects.load(Ordering::Relaxed) > 60, "they did come back: {reconnects:?}");
    wait_for("all to be listed or gone", || server.metric("fantail_history_readers", "") == 0);
}

/// Under `catch-up`, the default where messages are kept, who reads slowly is late and misses nothing.
#[test]
fn who_falls_behind_reads_on_from_history() {
    let config =
        ConfigFile::new("[[topic]]\npattern = \"h*\"\nhistory_messages = 10000\nhistory_bytes = \"64MiB\"\n");
    let server = start(&config, &["--loops", "1"]);
    let mut slow = server.connect();
    set_buffers(&slow.stream, None, Some(64 * 1024)).expect("small buffers");
    slow.upgrade("/ws/h?envelope=1");
    assert_eq!(envelope(&mut slow).0["type"], "subscribed");
    let body = "x".repeat(20_000);
    let texts = |range: std::ops::RangeInclusive<u64>| range.map(|number| format!("{number} {body}"));
    publish(&server, "h", texts(1..=800));
    server.await_metric("fantail_history_fell_behind_total", "", |count| count > 0);
    server.await_metric("fantail_history_readers", "", |count| count == 1);
    let read = |slow: &mut Peer, range: std::ops::RangeInclusive<u64>| {
        for number in range {
            let (offset, text) = message(slow);
            assert_eq!((offset, text.split(' ').next()), (number, Some(number.to_string().as_str())));
        }
    };
    read(&mut slow, 1..=800);
    wait_for("it to be listed again", || server.metric("fantail_history_readers", "") == 0);
    publish(&server, "h", texts(801..=810));
    read(&mut slow, 801..=810);
    assert_eq!(server.metric("fantail_drops_total", ""), 0);
    assert!(server.metric("fantail_history_replayed_total", "") > 0);
}

/// What is gone before a slow reader comes to it is told where it would have come.
#[test]
fn a_reader_that_is_too_slow_is_told_where_the_hole_is() {
    let config =
        ConfigFile::new("[[topic]]\npattern = \"h*\"\nhistory_messages = 20\nhistory_bytes = \"64MiB\"\n");
    let server = start(&config, &["--loops", "1"]);
    let mut slow = server.connect();
    set_buffers(&slow.stream, None, Some(64 * 1024)).expect("small buffers");
    slow.upgrade("/ws/h?envelope=1");
    assert_eq!(envelope(&mut slow).0["type"], "subscribed");
    let body = "x".repeat(60_000);
    publish(&server, "h", (1..=400).map(|number| format!("{number} {body}")));
    let (mut next, mut holes) = (1, 0);
    while next <= 400 {
        let (line, _) = envelope(&mut slow);
        if line["type"] == "gap" {
            assert_eq!(line["gap"]["kind"], "expired", "{line}");
            let oldest = line["gap"]["oldest"].as_u64().expect("an offset");
            assert!(oldest > next, "{line} at {next}");
            holes += oldest - next;
            next = oldest;
        } else {
            assert_eq!(line["offset"].as_u64(), Some(next), "{line}");
            next += 1;
        }
    }
    assert!(holes > 0);
    assert_eq!(server.metric("fantail_drops_total", "policy=\"expired\""), holes);
}

#[test]
fn what_is_too_old_goes_and_the_topic_with_it() {
    let config = ConfigFile::new("[[topic]]\npattern = \"h*\"\nhistory_messages = 10\nhistory_seconds = 1\n");
    let server = start(&config, &[]);
    publish(&server, "h", numbers(1..=3));
    server.await_metric("fantail_history_expired_total", "", |count| count == 3);
    assert_eq!(server.metric("fantail_history_messages", ""), 0);
    assert_eq!(server.metric("fantail_history_bytes", ""), 0);
    let (_, line) = subscribe(&server, "h", "&history=5");
    assert!(position(&line).ends_with(":3"), "nothing is kept, and offsets go on: {line}");
}

#[test]
fn all_together_are_trimmed_the_largest_first() {
    let config = ConfigFile::new(
        "[limits]\nhistory_bytes_max = \"1MiB\"\n[[topic]]\npattern = \"h*\"\nhistory_messages = 100000\nhistory_bytes = \"8MiB\"\n",
    );
    let server = start(&config, &[]);
    publish(&server, "h/small", (0..20).map(|_| "x".repeat(1_000)));
    publish(&server, "h/large", (0..1_500).map(|_| "x".repeat(1_000)));
    wait_for("the large one to be cut", || {
        server.metric("fantail_history_trimmed_total", "") > 0
            && server.metric("fantail_history_bytes", "") <= 1 << 20
    });
    let (_, line) = subscribe(&server, "h/small", "&history=1000");
    assert!(position(&line).ends_with(":0"), "the small one keeps all it has: {line}");
    let (_, line) = subscribe(&server, "h/large", &format!("&since={}:0", "0".repeat(16)));
    assert!(line["gap"]["oldest"].as_u64() > Some(400), "{line}");
}

#[test]
fn a_reload_changes_what_is_kept() {
    let config = ConfigFile::new("[[topic]]\npattern = \"h*\"\nhistory_messages = 10\n");
    let server = start(&config, &[]);
    publish(&server, "h", numbers(1..=10));
    publish(&server, "other", numbers(1..=10));
    assert_eq!(server.metric("fantail_history_messages", ""), 10);
    config.write("[[topic]]\npattern = \"h*\"\nhistory_messages = 4\n[[topic]]\npattern = \"other\"\nhistory_messages = 5\n");
    assert_eq!(server.post("/reload", "", b"").status, 200);
    server.await_metric("fantail_history_messages", "", |count| count == 4);
    // A topic that exists keeps what is published from then on.
    publish(&server, "other", numbers(11..=13));
    server.await_metric("fantail_history_messages", "", |count| count == 7);
    let (mut peer, line) = subscribe(&server, "other", "&history=9");
    assert!(position(&line).ends_with(":10"), "{line}");
    assert_eq!(message(&mut peer), (11, "11".to_owned()));
    config.write("");
    assert_eq!(server.post("/reload", "", b"").status, 200);
    server.await_metric("fantail_history_messages", "", |count| count == 0);
    let (_, line) = subscribe(&server, "h", "&history=9");
    assert!(position(&line).ends_with(":10"), "offsets go on: {line}");
}

/// Where only the newest counts, who resumes gets that, and nothing is missing for it.
#[test]
fn of_a_topic_of_latest_values_the_newest_is_all_there_is_to_miss() {
    let config = ConfigFile::new("[[topic]]\npattern = \"h*\"\npolicy = \"latest\"\nhistory_messages = 1\n");
    let server = start(&config, &[]);
    let (_, line) = subscribe(&server, "h", "");
    publish(&server, "h", numbers(1..=9));
    let (mut peer, line) = subscribe(&server, "h", &format!("&since={}", position(&line)));
    assert_eq!((line["recovered"].as_bool(), line.get("gap")), (Some(true), None), "{line}");
    assert_eq!(message(&mut peer), (9, "9".to_owned()));
    let (mut peer, _) = subscribe(&server, "h", "&history=5");
    assert_eq!(message(&mut peer), (9, "9".to_owned()));
    publish(&server, "h", numbers(10..=10));
    assert_eq!(message(&mut peer), (10, "10".to_owned()));
}

/// Under a policy that drops, who can be told so is told once, where the messages are missing.
#[test]
fn drops_are_told_where_they_happened() {
    for policy in ["drop-newest", "drop-oldest"] {
        let rule = format!("[[topic]]\npattern = \"h*\"\npolicy = \"{policy}\"\nmessages_max = 4\n");
        let config = ConfigFile::new(&rule);
        let server = start(&config, &["--loops", "1"]);
        let mut slow = server.connect();
        set_buffers(&slow.stream, None, Some(64 * 1024)).expect("small buffers");
        slow.upgrade("/ws/h?envelope=1");
        assert_eq!(envelope(&mut slow).0["type"], "subscribed");
        let body = "x".repeat(60_000);
        publish(&server, "h", (1..=300).map(|_| body.clone()));
        server.await_metric("fantail_mailbox_entries", "", |count| count == 0);
        let drops = server.metric("fantail_drops_total", policy);
        assert!(drops > 0);
        let (mut next, mut missing, mut told) = (1, 0, Vec::new());
        // Where the newest were dropped, nothing may come behind the last note.
        while missing + (301 - next) > drops || (next <= 300 && told.last() != Some(&next)) {
            let (line, _) = envelope(&mut slow);
            if line["type"] == "gap" {
                assert_eq!(line["gap"]["kind"], "dropped", "{line}");
                assert!(line["gap"]["oldest"].as_u64() > Some(next), "{policy}: nothing is kept");
                told.push(next);
                continue;
            }
            let offset = line["offset"].as_u64().expect("an offset");
            if offset > next && missing == 0 {
                assert_eq!(told, [next], "{policy}: told where they are missing");
            }
            missing += offset - next;
            next = offset + 1;
        }
        assert_eq!(missing + (301 - next), drops, "{policy}");
        assert!(!told.is_empty(), "{policy}");
    }
}

/// The admin port shows what is kept, page by page, and how far a topic has come.
#[test]
fn what_is_kept_can_be_read_in_both_directions() {
    let config = ConfigFile::new("[[topic]]\npattern = \"h*\"\nhistory_messages = 5\n");
    let server = start(&config, &[]);
    assert_eq!(server.get("/history?topic=h").status, 404);
    publish(&server, "h", numbers(1..=3));
    publish(&server, "h", ["{\"a\": [1]}".to_owned(), "a \"b\"\n".to_owned(), "{\"forged\":1},".to_owned()]);
    assert_eq!(server.post("/publish/h?binary=1", "", b"\x00\xff").status, 200);
    let page = |query: &str| {
        let answer = server.get(&format!("/history?topic=h{query}"));
        assert_eq!(answer.status, 200, "{query}: {}", answer.text());
        let json = answer.json();
        let position = format!("{}:{}", json["epoch"].as_str().expect("an epoch"), json["offset"]);
        assert_eq!(answer.field("fantail-position"), Some(position.as_str()));
        json
    };
    let offsets = |json: &Value| -> Vec<u64> {
        let messages = json["messages"].as_array().expect("messages");
        messages.iter().map(|message| message["offset"].as_u64().expect("an offset")).collect()
    };
    let all = page("");
    assert_eq!((offsets(&all), all.get("gap")), (vec![3, 4, 5, 6, 7], None));
    let data = |index: usize| &all["messages"][index]["data"];
    assert_eq!(*data(0), serde_json::json!("3"), "only objects and lists stay JSON");
    assert_eq!(*data(1), serde_json::json!({"a": [1]}));
    assert_eq!(*data(2), serde_json::json!("a \"b\"\n"));
    assert_eq!(*data(3), serde_json::json!("{\"forged\":1},"));
    assert_eq!(all["messages"][4]["data_base64"], "AP8=");
    assert!(all["messages"][0]["time"].as_u64() > Some(1_600_000_000_000));
    let epoch = all["epoch"].as_str().expect("an epoch");
    let nothing = page("&limit=0");
    assert_eq!((offsets(&nothing), nothing["offset"].as_u64()), (vec![], Some(7)));
    // Forwards and backwards by pages.
    let first = page("&limit=2");
    assert_eq!((offsets(&first), first["offset"].as_u64()), (vec![3, 4], Some(4)));
    assert_eq!(offsets(&page(&format!("&limit=2&since={epoch}:4"))), [5, 6]);
    assert_eq!(offsets(&page(&format!("&since={epoch}:7"))), [0_u64; 0]);
    assert_eq!(offsets(&page("&limit=2&reverse=1")), [7, 6]);
    assert_eq!(offsets(&page(&format!("&limit=9&reverse=1&since={epoch}:6"))), [5, 4, 3]);
    assert_eq!(offsets(&page(&format!("&reverse=1&since={epoch}:3"))), [0_u64; 0]);
    let gap = |query: &str| page(query)["gap"]["kind"].as_str().map(str::to_owned);
    assert_eq!(gap(&format!("&since={epoch}:1")).as_deref(), Some("expired"));
    assert_eq!(gap(&format!("&since={epoch}:8")).as_deref(), Some("ahead"));
    assert_eq!(gap("&since=0000000000000001:3").as_deref(), Some("other_epoch"));
    assert_eq!(gap("&reverse=1&since=0000000000000001:3").as_deref(), Some("other_epoch"));
    for bad in
        ["/history", "/history?topic=h&limit=1001", "/history?topic=h&since=x", "/history?topic=h&sinc=x"]
    {
        assert_eq!(server.get(bad).status, 400, "{bad}");
    }
    let listed = server.get("/topics?topic=h").json();
    assert_eq!(listed["history_messages"], 5);
    assert!(listed["history_bytes"].as_u64() > Some(5 * 80));
}

/// With `history_seconds = 0` messages are kept for ever, and yet keep nobody out for ever.
#[test]
fn topics_that_are_only_kept_make_room_for_those_that_are_wanted() {
    let config = ConfigFile::new(
        "[limits]\ntopics_max = 200\n[[topic]]\npattern = \"h*\"\nhistory_messages = 10\nhistory_seconds = 0\n",
    );
    let server = start(&config, &[]);
    let (_listener, _) = subscribe(&server, "h0", "");
    for topic in 0..200 {
        publish(&server, &format!("h{topic}"), numbers(1..=1));
    }
    assert_eq!(server.metric("fantail_topics", ""), 200);
    assert_eq!(server.publish("h200", b"x").status, 503);
    wait_for("room", || {
        let mut peer = server.connect();
        peer.ask_upgrade("/ws/new", "").status == 101
    });
    assert!(server.metric("fantail_topics", "") <= 200);
    let kept = server.metric("fantail_history_messages", "");
    assert!((180..200).contains(&kept), "a sixteenth went: {kept}");
    // What somebody listens to has kept all, and so has what was published last.
    for topic in ["h0", "h199"] {
        let told = server.get(&format!("/history?topic={topic}")).json();
        assert_eq!(told["messages"].as_array().map(Vec::len), Some(1), "{topic}");
    }
}
