//! The admin port's looking and acting: topics, connections, closing, unsubscribing, draining.

use std::collections::{BTreeMap, BTreeSet};

use fantail::wire::frame::Opcode;
use serde_json::Value;

use crate::client::Peer;
use crate::server::{Server, wait_for};

const TWO_LOOPS: &[&str] = &["--loops", "2"];

/// Every connection a listing has, by id, however many pages that takes.
fn listed(server: &Server, filter: &str, limit: usize) -> BTreeMap<String, Value> {
    let mut all = BTreeMap::new();
    let mut cursor = String::new();
    loop {
        let page = server.get(&format!("/connections?limit={limit}{filter}{cursor}"));
        assert_eq!(page.status, 200, "{page:?}");
        let page = page.json();
        let rows = page["connections"].as_array().expect("an array");
        assert!(rows.len() <= limit, "{} rows", rows.len());
        for row in rows {
            let id = row["id"].as_str().expect("an id").to_owned();
            assert!(all.insert(id, row.clone()).is_none(), "seen twice: {row}");
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return all,
        }
    }
}

fn id_of(server: &Server, peer: &Peer) -> String {
    let address = peer.stream.local_addr().expect("connected").to_string();
    let found = listed(server, "", 1_000).into_iter().find(|(_, row)| row["peer"] == address.as_str());
    found.unwrap_or_else(|| panic!("{address} is not listed")).0
}

fn close_code(peer: &mut Peer) -> (Option<u16>, String) {
    let frame = peer.frame();
    let text = frame.payload.get(2..).map(|text| String::from_utf8_lossy(text).into_owned());
    (frame.close_code(), text.unwrap_or_default())
}

#[test]
fn topics_are_listed_in_order_and_page_by_page() {
    let server = Server::start(TWO_LOOPS, &[]);
    let mut peers: Vec<_> = ["b", "a/1", "a/2", "a/3", "é \"q\""]
        .map(|topic| {
            let path: String = topic.bytes().map(|byte| format!("%{byte:02x}")).collect();
            server.websocket(&format!("/ws/{path}"))
        })
        .into();
    peers.push(server.websocket("/ws/a%2f1"));
    assert_eq!(server.publish("a%2f1", b"x").status, 200);

    let all = server.get("/topics").json();
    let names: Vec<_> =
        all["topics"].as_array().expect("an array").iter().map(|t| t["topic"].clone()).collect();
    assert_eq!(names, ["a/1", "a/2", "a/3", "b", "é \"q\""]);
    assert_eq!((&all["next"], &all["total"]), (&Value::Null, &5.into()));

    let one = server.get("/topics?topic=a/1").json();
    assert_eq!(one["subscribers"], 2);
    assert_eq!((&one["messages"], &one["next_offset"]), (&1.into(), &2.into()));
    assert!(one["epoch"].as_str().is_some_and(|epoch| epoch.len() == 16), "{one}");
    assert_eq!(server.get("/topics?topic=none").status, 404);

    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let page = server.get(&format!("/topics?prefix=a/&limit=1{cursor}")).json();
        let rows = page["topics"].as_array().expect("an array").clone();
        assert_eq!(rows.len(), 1);
        seen.extend(rows.iter().map(|row| row["topic"].clone()));
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={}", next.replace('/', "%2F")),
            None => break,
        }
    }
    assert_eq!(seen, ["a/1", "a/2", "a/3"]);
    let counted = server.get("/topics?prefix=a/&count=1").json();
    assert_eq!((&counted["topics"], &counted["subscribers"]), (&3.into(), &4.into()));

    for bad in [
        "limit=0",
        "limit=1001",
        "limit=x",
        "count=2",
        "topic=",
        "topic=a*",
        "order=name",
        "prefix=%zz",
        "sort=loops",
    ] {
        assert_eq!(server.get(&format!("/topics?{bad}")).status, 400, "{bad}");
    }
}

#[test]
fn topics_are_found_by_a_part_of_their_name_and_by_what_they_have_most_of() {
    const OTHERS: usize = 12_000;
    let many = [("FANTAIL_LIMITS_SUBSCRIPTIONS_MAX", "4000"), ("FANTAIL_LIMITS_HEAD_BYTES_MAX", "65536")];
    let server = Server::start(TWO_LOOPS, &many);
    let all: Vec<String> = (0..OTHERS).map(|i| format!("t/{i:05}")).collect();
    let _holders: Vec<_> = all
        .chunks(3_000)
        .map(|topics| server.websocket(&format!("/ws?topic={}", topics.join("&topic="))))
        .collect();
    // And the lobby, which everybody without a topic in the path is in.
    wait_for("all topics", || server.get("/topics?limit=1").json()["total"] == OTHERS + 1);
    for _ in 0..3 {
        server.publish("t%2f11111", b"y");
    }
    server.publish("t%2f00007", b"y");
    let _peers: Vec<_> = (0..3).map(|_| server.websocket("/ws/t%2f05000?topic=zz")).collect();
    let _more = server.websocket("/ws/zz");
    wait_for("all to be listed", || {
        let found = server.get("/topics?topic=zz");
        found.status == 200 && found.json()["subscribers"] == 4
    });

    // However many topics there are, one request looks at some only, and says where to go on.
    let search = |query: &str| {
        let (mut seen, mut cursor, mut requests) = (Vec::new(), String::new(), 0);
        loop {
            let page = server.get(&format!("/topics?{query}{cursor}")).json();
            requests += 1;
            seen.extend(page["topics"].as_array().expect("an array").clone());
            match page["next"].as_str() {
                Some(next) => cursor = format!("&cursor={}", next.replace('/', "%2F")),
                None => return (seen, requests),
            }
        }
    };
    let names = |rows: &[Value]| {
        rows.iter().map(|row| row["topic"].as_str().expect("a name").to_owned()).collect::<Vec<_>>()
    };
    let (found, requests) = search("contains=111");
    let wanted: Vec<_> = all.iter().filter(|name| name.contains("111")).cloned().collect();
    assert_eq!((names(&found), requests), (wanted.clone(), 2));
    let (found, requests) = search("contains=111&limit=7");
    let pages = wanted.len().div_ceil(7);
    assert_eq!((names(&found), requests), (wanted, pages));
    let (found, _) = search("prefix=t/0500&contains=0&limit=3");
    assert_eq!(found.len(), 10);
    let (found, _) = search("prefix=t/&sort=subscribers&limit=1");
    assert_eq!(names(&found)[0], "t/05000");
    let (mut most, requests) = search("sort=messages&limit=2");
    assert_eq!((most.len(), requests), (4, 2), "two of each part");
    most.sort_by_key(|row| std::cmp::Reverse(row["messages"].as_u64()));
    assert_eq!(names(&most)[..2], ["t/11111", "t/00007"]);
    assert_eq!((&most[0]["messages"], &most[1]["messages"]), (&3.into(), &1.into()));
    let (most, _) = search("sort=subscribers&limit=2&prefix=z");
    assert_eq!(names(&most), ["zz"]);
}

#[test]
fn a_connection_is_described() {
    let server = Server::start(TWO_LOOPS, &[]);
    let mut peer = server.websocket("/ws/one?topic=two");
    peer.ping_pong();
    let echo = server.websocket("/echo");
    let id = id_of(&server, &peer);
    let row = server.get(&format!("/connections/{id}")).json();
    assert_eq!(row["id"], id.as_str());
    assert_eq!(row["topics"], serde_json::json!(["one", "two"]));
    assert_eq!((&row["phase"], &row["dialect"]), (&"open".into(), &"plain".into()));
    assert_eq!((&row["outbox_bytes"], &row["drops"]), (&0.into(), &0.into()));
    let memory = &row["memory"];
    assert!(memory["slot"].as_u64().is_some_and(|bytes| (48..=64).contains(&bytes)), "{row}");
    assert!(memory["session"].as_u64().is_some_and(|bytes| bytes > 0), "two topics need a session: {row}");
    assert_eq!(memory["lists"], 8, "an entry of four bytes in each list");
    let parts =
        ["slot", "inbox", "outbox", "session", "lists"].map(|part| memory[part].as_u64().expect(part));
    assert_eq!(memory["total"], parts.iter().sum::<u64>());
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs_f64();
    let since = row["since"].as_f64().expect("a number");
    assert!(since <= now + 0.2 && now - since < 60.0, "{since} and now {now}");
    assert!(row["since_within_seconds"].as_f64().is_some_and(|width| width <= 60.0), "{row}");
    assert!(row["idle_seconds"].as_f64().is_some_and(|idle| idle < 60.0), "{row}");

    let other = server.get(&format!("/connections/{}", id_of(&server, &echo))).json();
    assert_eq!((&other["dialect"], &other["topics"]), (&"echo".into(), &serde_json::json!([])));
    // The answer is the same to a client that encodes the colons, and without a body to HEAD.
    assert_eq!(server.get(&format!("/connections/{}", id.replace(':', "%3A"))).status, 200);
    let mut admin = server.connect_admin();
    admin.send(format!("HEAD /connections/{id} HTTP/1.1\r\nHost: {}\r\n\r\n", server.admin).as_bytes());
    assert_eq!(admin.answer_to(true).status, 200);
    admin.send(format!("GET /healthz HTTP/1.1\r\nHost: {}\r\n\r\n", server.admin).as_bytes());
    assert_eq!(admin.answer().status, 200, "the connection goes on behind an answer that was waited for");
    drop((peer, echo));
    wait_for("the slots to be free", || server.get(&format!("/connections/{id}")).status == 404);
}

#[test]
fn everybody_who_stays_is_on_one_page() {
    let server = Server::start(&["--loops", "3"], &[("FANTAIL_TIMEOUTS_HEARTBEAT_SECONDS", "0")]);
    let stay: Vec<_> = (0..1_100).map(|_| server.websocket("/ws/stay")).collect();
    let wanted: BTreeSet<String> =
        stay.iter().map(|peer| peer.stream.local_addr().expect("connected").to_string()).collect();
    // Others come and go between the pages.
    let mut passing = Vec::new();
    let mut seen = BTreeSet::new();
    let mut cursor = String::new();
    let mut pages = 0;
    loop {
        let page = server.get(&format!("/connections?limit=150{cursor}")).json();
        pages += 1;
        for row in page["connections"].as_array().expect("an array") {
            let peer = row["peer"].as_str().unwrap_or_default().to_owned();
            if wanted.contains(&peer) {
                assert!(seen.insert(peer), "seen twice: {row}");
            }
        }
        if pages % 2 == 0 {
            passing.clear();
        } else {
            passing.extend((0..40).map(|_| server.websocket("/ws/pass")));
        }
        match page["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(seen.len(), wanted.len(), "in {pages} pages");
    assert!(pages >= 8);
    drop(passing);
    assert_eq!(listed(&server, "&topic=stay", 1_000).len(), 1_100);
    assert_eq!(listed(&server, "&topic=nobody", 1_000).len(), 0);
    assert_eq!(listed(&server, "&topic=stay&ip=127.0.0.0/8", 300).len(), 1_100);
    assert_eq!(listed(&server, "&ip=10.0.0.0/8", 300).len(), 0);
}

#[test]
fn bad_questions_are_refused() {
    let server = Server::start(TWO_LOOPS, &[]);
    for bad in [
        "/connections?limit=0",
        "/connections?limit=1001",
        "/connections?limit=99999999999999999999",
        "/connections?cursor=2:0",
        "/connections?cursor=a",
        "/connections?cursor=0:99999999999",
        "/connections?ip=300.0.0.1",
        "/connections?topic=a%2a",
        "/connections?colour=red",
        "/connections?topic=a&topic=b",
        "/connections/",
        "/connections/1",
        "/connections/a:b:c",
        "/connections/0:0:0:0",
        "/connections/0:0:99999999999",
        "/connections/%zz",
    ] {
        assert_eq!(server.get(bad).status, 400, "{bad}");
    }
    assert_eq!(server.get("/connections?cursor=1:4294967295").json()["next"], Value::Null);
    for gone in ["/connections/0:0:0", "/connections/63:0:1", "/connections/0:4294967295:4294967295"] {
        assert_eq!(server.get(gone).status, 404, "{gone}");
    }
    for bad in ["", "?all=0", "?topic=a&all=1", "?all=1&code=1006", "?all=1&code=2000", "?ip=x", "?id=1"] {
        assert_eq!(server.post(&format!("/connections/close{bad}"), "", b"").status, 400, "{bad}");
    }
    for (path, body) in
        [("/connections/close", "{\"topic\":\"a\"}"), ("/connections/unsubscribe", "id=0:0:1")]
    {
        assert_eq!(server.post(path, "", body.as_bytes()).status, 400, "{path} {body}");
    }
    assert_eq!(server.post("/connections/close?id=0:0:77", "", b"").status, 404);
    assert_eq!(server.post("/connections", "", b"").status, 405);
    assert_eq!(server.post("/topics", "", b"").status, 405);
    for get in ["/connections/close", "/connections/unsubscribe", "/drain", "/publish"] {
        assert_eq!(server.get(get).status, 405, "{get}");
    }
}

#[test]
fn connections_are_closed_by_topic_address_and_id() {
    let server = Server::start(TWO_LOOPS, &[]);
    let mut a: Vec<_> = (0..20).map(|_| server.websocket("/ws/a")).collect();
    let mut both = server.websocket("/ws/x?topic=a");
    let mut b = server.websocket("/ws/b");
    let one = id_of(&server, &b);

    let answer =
        server.post("/connections/close", "", "topic=a&code=4321&reason=n%C3%A4chstes+mal".as_bytes());
    assert_eq!((answer.status, &answer.json()["closed"]), (200, &21.into()), "{answer:?}");
    for peer in a.iter_mut().chain([&mut both]) {
        assert_eq!(close_code(peer), (Some(4321), "nächstes mal".to_owned()));
    }
    b.ping_pong();
    assert_eq!(server.post("/connections/close?ip=10.0.0.0/8", "", b"").json()["closed"], 0);
    b.ping_pong();
    assert_eq!(server.post(&format!("/connections/close?id={one}&code=1008"), "", b"").json()["closed"], 1);
    assert_eq!(close_code(&mut b), (Some(1008), String::new()));
    let mut last = server.websocket("/ws/c");
    assert_eq!(server.post("/connections/close?ip=127.0.0.1&topic=c", "", b"").json()["closed"], 1);
    assert_eq!(close_code(&mut last), (Some(1000), String::new()));
    // Counted when the peer has answered, as every close is.
    for peer in a.iter_mut().chain([&mut both, &mut b, &mut last]) {
        peer.send_frame(Opcode::Close, &1000_u16.to_be_bytes());
        peer.expect_end();
    }
    server.await_metric("fantail_closes_total", "reason=\"admin\"", |count| count == 23);
    let mut peer = server.websocket("/ws/d");
    assert_eq!(server.post("/connections/close?all=1&code=1012", "", b"").json()["closed"], 1);
    assert_eq!(close_code(&mut peer).0, Some(1012));
}

#[test]
fn subscriptions_are_ended() {
    let server = Server::start(TWO_LOOPS, &[("FANTAIL_PUBLISH_TOPICS", "*")]);
    let mut peer = server.websocket("/ws/first?topic=second&topic=third");
    let mut other = server.websocket("/ws/first");
    let id = id_of(&server, &peer);
    let ended = server.post(&format!("/connections/unsubscribe?topic=first&id={id}"), "", b"");
    assert_eq!((ended.status, &ended.json()["unsubscribed"]), (200, &1.into()), "{ended:?}");
    assert_eq!(server.publish("first", b"not for peer").json()["subscribers"], 1);
    assert_eq!(other.text(), "not for peer");
    // What it publishes now goes nowhere, above all not to another of its topics.
    peer.send_frame(Opcode::Text, b"lost");
    peer.ping_pong();
    assert_eq!(server.publish("second", b"still here").json()["subscribers"], 1);
    assert_eq!(peer.text(), "still here");
    let again = server.post(&format!("/connections/unsubscribe?topic=first&id={id}"), "", b"");
    assert_eq!(again.status, 404);
    assert_eq!(server.post("/connections/unsubscribe?topic=second", "", b"").json()["unsubscribed"], 1);
    assert_eq!(server.publish("second", b"nobody").json()["subscribers"], 0);
    assert_eq!(server.publish("third", b"3").json()["subscribers"], 1);
    assert_eq!(peer.text(), "3");
    assert_eq!(server.get(&format!("/connections/{id}")).json()["topics"], serde_json::json!(["third"]));
    assert_eq!(
        server.post("/connections/unsubscribe?topic=third&ip=127.0.0.1", "", b"").json()["unsubscribed"],
        1
    );
    peer.ping_pong();
    drop(peer);
    wait_for("the topics to be left", || {
        server.get("/topics?prefix=third").json()["topics"][0]["subscribers"] == 0
            && listed(&server, "", 1_000).len() == 1
    });
}

#[test]
fn a_slow_reader_shows_in_the_listing() {
    let server = Server::start(&["--loops", "1"], &[("FANTAIL_OUTBOX_MESSAGES_MAX", "4")]);
    let peer = server.websocket("/ws/slow");
    let id = id_of(&server, &peer);
    let payload = vec![b'x'; 200_000];
    wait_for("a backlog with drops", || {
        server.publish("slow", &payload);
        let row = server.get(&format!("/connections/{id}")).json();
        let number = |name: &str| row[name].as_u64().unwrap_or(0);
        number("drops") > 0 && number("outbox_bytes") > 0 && row["memory"]["outbox"].as_u64() > Some(0)
    });
    // It is found among others by what waits for it, and can be closed by that.
    let mut quick = server.websocket("/ws/quick");
    let found = listed(&server, "&outbox_bytes_min=1", 1_000);
    assert_eq!(found.into_keys().collect::<Vec<_>>(), std::slice::from_ref(&id));
    assert!(listed(&server, "&outbox_bytes_min=1000000000", 1_000).is_empty());
    assert!(listed(&server, "&outbox_bytes_min=1&topic=quick", 1_000).is_empty());
    assert_eq!(server.post("/connections/close?outbox_bytes_min=1", "", b"").json()["closed"], 1);
    quick.ping_pong();
}

#[test]
fn clients_that_leave_or_send_on_while_they_wait_harm_nobody() {
    let server = Server::start(TWO_LOOPS, &[]);
    let _stay: Vec<_> = (0..50).map(|_| server.websocket("/ws/a")).collect();
    for _ in 0..50 {
        let mut admin = server.connect_admin();
        admin.send(format!("GET /connections?topic=a HTTP/1.1\r\nHost: {}\r\n\r\n", server.admin).as_bytes());
    }
    // Pipelined requests are answered in order, whether they have to wait or not.
    let mut admin = server.connect_admin();
    let get = |path: &str| format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", server.admin);
    let all = get("/connections?topic=a") + &get("/healthz") + &get("/connections/0:0:0") + &get("/topics");
    admin.send(all.as_bytes());
    assert_eq!(admin.answer().json()["connections"].as_array().map(Vec::len), Some(50));
    assert_eq!(admin.answer().text(), "ok\n");
    assert_eq!(admin.answer().status, 404);
    assert_eq!(admin.answer().json()["topics"][0]["topic"], "a");
    // One that ends its side behind the question still gets the answer.
    admin.send(get("/connections?limit=3").as_bytes());
    admin.stream.shutdown(std::net::Shutdown::Write).expect("open");
    assert_eq!(admin.answer().json()["connections"].as_array().map(Vec::len), Some(3));
    admin.expect_end();
}

#[test]
fn drain_begins_with_a_request() {
    let mut server = Server::start(TWO_LOOPS, &[("FANTAIL_DRAIN_SECONDS", "1")]);
    let mut peer = server.websocket("/ws/a");
    let answer = server.post("/drain", "", b"");
    assert_eq!((answer.status, answer.text().as_str()), (202, "{\"draining\":true}\n"));
    assert_eq!(close_code(&mut peer).0, Some(1001));
    drop(peer);
    assert_eq!(server.await_exit().code(), Some(0));
}

#[test]
fn the_signal_behind_a_requested_drain_does_not_cut_it_short() {
    let drain = [("FANTAIL_DRAIN_SECONDS", "1"), ("FANTAIL_DRAIN_DELAY_SECONDS", "1")];
    let mut server = Server::start(TWO_LOOPS, &drain);
    let mut peer = server.websocket("/ws/a");
    let asked = std::time::Instant::now();
    assert_eq!(server.post("/drain", "", b"").status, 202);
    server.terminate();
    assert_eq!(close_code(&mut peer).0, Some(1001));
    assert!(asked.elapsed().as_millis() >= 1_000, "the delay was cut short");
    drop(peer);
    assert_eq!(server.await_exit().code(), Some(0));
}
