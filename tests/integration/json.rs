//! The json dialect from outside: commands and answers, messages, what is refused and how.

use fantail::wire::frame::Opcode;
use serde_json::{Value, json};

use crate::client::{OFFER, Peer, assert_upgraded};
use crate::server::Server;

const FIELD: &str = "Sec-WebSocket-Protocol: fantail.json.v1\r\n";

/// A connection that speaks json.
pub(crate) fn speaker(server: &Server, path: &str) -> Peer {
    let mut peer = server.connect();
    let answer = peer.ask_upgrade(path, FIELD);
    assert_upgraded(&answer);
    assert_eq!(answer.field("sec-websocket-protocol"), Some("fantail.json.v1"));
    peer
}

/// Sends a command.
pub(crate) fn say(peer: &mut Peer, command: &Value) {
    peer.send_frame(Opcode::Text, command.to_string().as_bytes());
}

/// The next object that comes.
pub(crate) fn hear(peer: &mut Peer) -> Value {
    let text = peer.text();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn ask(peer: &mut Peer, command: &Value) -> Value {
    say(peer, command);
    hear(peer)
}

fn open_server(loops: &str) -> Server {
    Server::start(&["--loops", loops], &[("FANTAIL_PUBLISH_TOPICS", "open*")])
}

#[test]
fn commands_are_answered_under_their_ids() {
    let server = open_server("1");
    let mut peer = speaker(&server, "/ws");
    let joined = ask(&mut peer, &json!({"type": "subscribe", "id": 1, "topic": "open"}));
    let epoch = joined["epoch"].as_str().expect("an epoch").to_owned();
    assert_eq!(epoch.len(), 16);
    assert_eq!(joined, json!({"type": "subscribed", "id": 1, "topic": "open", "epoch": epoch, "offset": 0}));
    let published =
        ask(&mut peer, &json!({"type": "publish", "id": "p", "topic": "open", "data": {"a": [1, "é"]}}));
    assert_eq!(
        published,
        json!({"type": "published", "id": "p", "topic": "open", "epoch": epoch, "offset": 1})
    );
    let message = hear(&mut peer);
    let time = message["time"].as_u64().expect("a time");
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    assert!(u64::try_from(now.as_millis()).expect("fits").abs_diff(time) < 60_000, "{time}");
    assert_eq!(
        message,
        json!({"type": "message", "topic": "open", "offset": 1, "time": time, "data": {"a": [1, "é"]}})
    );
    assert_eq!(ask(&mut peer, &json!({"type": "ping"})), json!({"type": "pong"}));
    let left = ask(&mut peer, &json!({"type": "unsubscribe", "id": 3, "topic": "open"}));
    assert_eq!(left, json!({"type": "unsubscribed", "id": 3, "topic": "open"}));
    server.publish("open", b"unheard");
    // Without an id only the failure of a publish is answered.
    say(&mut peer, &json!({"type": "publish", "topic": "open", "data": "quiet"}));
    assert_eq!(ask(&mut peer, &json!({"type": "ping", "id": 4})), json!({"type": "pong", "id": 4}));
    let again = ask(&mut peer, &json!({"type": "subscribe", "topic": "open"}));
    assert_eq!(again["offset"], 3);
}

#[test]
fn a_message_is_the_same_bytes_for_everybody() {
    let server = open_server("3");
    let mut peers: Vec<Peer> = (0..12).map(|_| speaker(&server, "/ws/news")).collect();
    for peer in &mut peers {
        let told = hear(peer);
        assert_eq!(
            (&told["type"], &told["topic"], told.get("id")),
            (&json!("subscribed"), &json!("news"), None)
        );
    }
    for (path, body, data) in [
        ("news", &b" {\"deep\":[{}]}\n"[..], r#""data":{"deep":[{}]}}"#),
        ("news", b"{\"broken\":", r#""data":"{\"broken\":"}"#),
        ("news", b"text", r#""data":"text"}"#),
        ("news?binary=1", b"\xff\x00", r#""data_base64":"/wA="}"#),
    ] {
        assert_eq!(server.publish(path, body).status, 200);
        let texts: Vec<String> = peers.iter_mut().map(Peer::text).collect();
        assert!(texts[0].ends_with(data), "{}", texts[0]);
        assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
    }
}

#[test]
fn plain_and_json_share_topics_and_payloads() {
    let server = open_server("2");
    let mut plain = server.websocket("/ws/open?echo=0");
    let mut both = speaker(&server, "/ws/open?topic=open-2&echo=0");
    assert_eq!([hear(&mut both), hear(&mut both)].map(|told| told["topic"].clone()), ["open", "open-2"]);
    plain.send_frame(Opcode::Text, b"from plain");
    assert_eq!(hear(&mut both)["data"], "from plain");
    plain.send_frame(Opcode::Binary, b"\x01");
    assert_eq!(hear(&mut both)["data_base64"], "AQ==");
    for (data, payload) in [
        (json!({"data": {"a": 1}}), &b"{\"a\":1}"[..]),
        (json!({"data": "text"}), b"text"),
        (json!({"data_base64": "AP8="}), b"\x00\xff"),
    ] {
        let mut command = json!({"type": "publish", "topic": "open"});
        command.as_object_mut().expect("an object").extend(data.as_object().expect("an object").clone());
        say(&mut both, &command);
        let frame = plain.frame();
        assert_eq!((frame.opcode == Opcode::Binary, &frame.payload[..]), (payload[0] == 0, payload));
    }
    // Its own messages do not come back.
    assert_eq!(ask(&mut both, &json!({"type": "ping"}))["type"], "pong");
}

#[test]
fn what_cannot_be_had_is_answered_with_a_code() {
    let settings = [
        ("FANTAIL_PUBLISH_TOPICS", "open*"),
        ("FANTAIL_LIMITS_SUBSCRIPTIONS_MAX", "2"),
        ("FANTAIL_LIMITS_MESSAGE_BYTES_MAX", "2 KiB"),
    ];
    let server = Server::start(&["--loops", "1"], &settings);
    let mut peer = speaker(&server, "/ws/a");
    hear(&mut peer);
    let mut code = |command: Value| {
        let error = ask(&mut peer, &command);
        assert_eq!((&error["type"], &error["id"]), (&json!("error"), &command["id"]), "{error}");
        assert_eq!(error["topic"], command["topic"], "{error}");
        assert!(error["message"].as_str().is_some_and(|text| !text.is_empty()), "{error}");
        error["code"].as_str().expect("a code").to_owned()
    };
    assert_eq!(code(json!({"type": "subscribe", "id": 1, "topic": "a"})), "already_subscribed");
    assert_eq!(code(json!({"type": "unsubscribe", "id": 2, "topic": "b"})), "not_subscribed");
    assert_eq!(code(json!({"type": "publish", "id": 3, "topic": "shut", "data": "x"})), "not_allowed");
    say(&mut peer, &json!({"type": "subscribe", "id": 4, "topics": ["b", "c"]}));
    let (first, second) = (hear(&mut peer), hear(&mut peer));
    assert_eq!(
        (&first["type"], &first["topic"], &first["id"]),
        (&json!("subscribed"), &json!("b"), &json!(4))
    );
    assert_eq!((&second["code"], &second["topic"]), (&json!("too_many_topics"), &json!("c")));
    // A refused publish is answered, and neither counted as ignored nor the end, however often.
    for _ in 0..200 {
        say(&mut peer, &json!({"type": "publish", "topic": "shut", "data": "x"}));
        assert_eq!(hear(&mut peer)["code"], "not_allowed");
    }
    assert_eq!(server.metric("fantail_publishes_ignored_total", ""), 0);
    // Too long for a message of the topic, and too long for a message at all.
    let long = "\u{1}".repeat(320);
    let mut escaped = json!({"type": "publish", "id": 5, "topic": "open", "data": long});
    assert_eq!(ask(&mut peer, &escaped)["type"], "published");
    escaped["data"] = Value::from("x".repeat(2048));
    say(&mut peer, &escaped);
    assert_eq!(peer.frame().close_code(), Some(1009));
}

#[test]
fn a_topic_may_have_smaller_messages_than_commands_are() {
    let file = std::env::temp_dir().join(format!("fantail-json-{}.toml", std::process::id()));
    std::fs::write(&file, "[[topic]]\npattern = \"small\"\npublish = \"anyone\"\nmessage_bytes_max = 10\n")
        .expect("a file");
    let server = Server::start(&["--loops", "1", "--config", file.to_str().expect("UTF-8")], &[]);
    let mut peer = speaker(&server, "/ws/small");
    hear(&mut peer);
    let publish = |data: &str| json!({"type": "publish", "id": 1, "topic": "small", "data": data});
    assert_eq!(ask(&mut peer, &publish("0123456789"))["type"], "published");
    assert_eq!(hear(&mut peer)["data"], "0123456789");
    assert_eq!(ask(&mut peer, &publish("0123456789a"))["code"], "too_large");
    std::fs::remove_file(file).expect("removed");
}

/// A server some of whose topics keep messages.
fn keeping_server(name: &str) -> (Server, std::path::PathBuf) {
    let file = std::env::temp_dir().join(format!("fantail-json-{name}-{}.toml", std::process::id()));
    let rule = "[[topic]]\npattern = \"kept*\"\npublish = \"anyone\"\nhistory_messages = 5\n";
    std::fs::write(&file, rule).expect("a file");
    (Server::start(&["--loops", "2", "--config", file.to_str().expect("UTF-8")], &[]), file)
}

#[test]
fn what_was_missed_comes_as_it_would_have_come() {
    let (server, file) = keeping_server("resume");
    let mut live = speaker(&server, "/ws/kept");
    let position = format!("{}:1", hear(&mut live)["epoch"].as_str().expect("an epoch"));
    let mut texts = Vec::new();
    for body in ["{\"n\":1}", "two", "[3]", "4"] {
        assert_eq!(server.publish("kept", body.as_bytes()).status, 200);
        texts.push(live.text());
    }
    let mut late = speaker(&server, "/ws");
    let subscribe = json!({"type": "subscribe", "id": 1, "topic": "kept", "since": position});
    let told = ask(&mut late, &subscribe);
    assert_eq!((&told["recovered"], &told["offset"], told.get("gap")), (&json!(true), &json!(1), None));
    assert_eq!([late.text(), late.text(), late.text()], texts[1..], "byte for byte");
    server.publish("kept", b"5");
    assert_eq!(late.text(), live.text(), "live again");
    for body in ["6", "7", "8"] {
        server.publish("kept", body.as_bytes());
    }
    let mut later = speaker(&server, "/ws");
    let told = ask(&mut later, &subscribe);
    assert_eq!((&told["gap"], told.get("recovered")), (&json!({"kind": "expired", "oldest": 4}), None));
    assert_eq!(hear(&mut later)["offset"], 4);
    let mut newest = speaker(&server, "/ws");
    say(&mut newest, &json!({"type": "subscribe", "topics": ["kept", "kept-2"], "history": 2}));
    let offsets =
        std::iter::from_fn(|| Some(hear(&mut newest))).filter(|told| told["type"] == "message").take(2);
    assert_eq!(offsets.map(|told| told["offset"].clone()).collect::<Vec<_>>(), [7, 8]);
    std::fs::remove_file(file).expect("removed");
}

#[test]
fn history_is_read_in_pages_from_either_end() {
    let (server, file) = keeping_server("pages");
    let mut peer = speaker(&server, "/ws");
    let empty = ask(&mut peer, &json!({"type": "history", "id": 1, "topic": "kept", "limit": 0}));
    let epoch = empty["epoch"].as_str().expect("an epoch").to_owned();
    assert_eq!(
        empty,
        json!({"type": "history", "id": 1, "topic": "kept", "epoch": epoch, "offset": 0, "messages": []})
    );
    for body in [&b"{\"a\":1}"[..], b"text", b"3", b"4", b"5", b"6"] {
        server.publish("kept", body);
    }
    let mut offsets = |more: Value| {
        let mut command = json!({"type": "history", "id": "h", "topic": "kept"});
        command.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let page = ask(&mut peer, &command);
        assert_eq!((&page["id"], &page["epoch"]), (&json!("h"), &json!(epoch)), "{page}");
        let messages = page["messages"].as_array().expect("a list");
        assert_eq!(page["offset"], messages.last().expect("a message")["offset"]);
        let offsets: Vec<u64> = messages.iter().filter_map(|message| message["offset"].as_u64()).collect();
        (offsets, page.get("gap").cloned(), messages.first().cloned())
    };
    let (all, gap, first) = offsets(json!({}));
    assert_eq!((all, gap), (vec![2, 3, 4, 5, 6], None));
    let first = first.expect("a message");
    assert_eq!((&first["data"], first["time"].is_u64()), (&json!("text"), true));
    assert_eq!(offsets(json!({"limit": 2})).0, [2, 3]);
    assert_eq!(offsets(json!({"since": format!("{epoch}:3"), "limit": 2})).0, [4, 5]);
    assert_eq!(offsets(json!({"since": format!("{epoch}:5")})).0, [6]);
    assert_eq!(offsets(json!({"reverse": true, "limit": 3})).0, [6, 5, 4]);
    let (rest, gap, _) = offsets(json!({"since": format!("{epoch}:0")}));
    assert_eq!((rest.len(), gap), (5, Some(json!({"kind": "expired", "oldest": 2}))));
    std::fs::remove_file(file).expect("removed");
}

#[test]
fn few_bytes_that_ask_for_much_do_not_keep_others_waiting() {
    let (server, file) = keeping_server("much");
    server.publish("kept", &vec![b'x'; 60_000]);
    let mut greedy = speaker(&server, "/ws");
    let frame = crate::client::frame(Opcode::Text, br#"{"type":"history","topic":"kept"}"#);
    greedy.send(&frame.repeat(500));
    for _ in 0..500 {
        assert_eq!(hear(&mut greedy)["messages"][0]["offset"], 1);
    }
    greedy.ping_pong();
    std::fs::remove_file(file).expect("removed");
}

#[test]
fn a_stream_of_bad_commands_ends_the_connection() {
    let server = open_server("1");
    let mut peer = speaker(&server, "/ws");
    for number in 0..=100 {
        match number % 4 {
            0 => peer.send_frame(Opcode::Text, b"hello"),
            1 => peer.send_frame(Opcode::Binary, b"{\"type\":\"ping\"}"),
            2 => peer.send_frame(Opcode::Text, "[".repeat(100_000).as_bytes()),
            _ => peer.send_frame(Opcode::Text, b"{\"type\":\"pingg\"}"),
        }
        let error = hear(&mut peer);
        assert_eq!((&error["type"], &error["code"]), (&json!("error"), &json!("bad_command")), "{error}");
    }
    assert_eq!(peer.frame().close_code(), Some(1008));
    peer.expect_end();
    assert_eq!(server.metric("fantail_bad_commands_total", ""), 101);
    assert_eq!(server.metric("fantail_closes_total", "bad_commands"), 1);
}

#[test]
fn the_first_known_subprotocol_decides() {
    let server = Server::start(&["--loops", "1"], &[("FANTAIL_SERVER_SUBPROTOCOLS", "mine")]);
    let chosen = |path: &str, offers: &str| {
        let mut peer = server.connect();
        let answer = peer.ask_upgrade(path, &format!("Sec-WebSocket-Protocol: {offers}\r\n"));
        assert_upgraded(&answer);
        let speaks_json = {
            peer.send_frame(Opcode::Text, b"{\"type\":\"ping\"}");
            peer.send_frame(Opcode::Ping, b"");
            let frame = std::iter::from_fn(|| peer.next_frame())
                .find(|frame| frame.opcode == Opcode::Pong || frame.payload == b"{\"type\":\"pong\"}");
            frame.expect("an answer").opcode == Opcode::Text
        };
        (answer.field("sec-websocket-protocol").map(str::to_owned), speaks_json)
    };
    let some = |name: &str| Some(name.to_owned());
    assert_eq!(chosen("/ws", "fantail.json.v1"), (some("fantail.json.v1"), true));
    assert_eq!(chosen("/ws/a", "other, fantail.json.v1, mine"), (some("fantail.json.v1"), true));
    assert_eq!(chosen("/ws", "fantail.plain.v1, fantail.json.v1"), (some("fantail.plain.v1"), false));
    assert_eq!(chosen("/ws", "mine, fantail.json.v1"), (some("mine"), false));
    assert_eq!(chosen("/ws", "fantail.json.v2, Fantail.json.v1"), (None, false));
    assert_eq!(chosen("/echo", "fantail.json.v1, mine"), (some("mine"), false));
    assert_eq!(chosen("/echo", "fantail.json.v1"), (None, false));
}

#[test]
fn compressed_json_says_the_same() {
    let server = open_server("1");
    let mut packed = server.connect();
    assert_upgraded(&packed.ask_upgrade("/ws/news", &format!("{FIELD}{OFFER}")));
    packed.frame();
    let mut plain = speaker(&server, "/ws/news");
    hear(&mut plain);
    let row = json!({"sensor": "north", "values": vec![17; 200]});
    server.publish("news", row.to_string().as_bytes());
    let (frame, text) = (packed.frame(), plain.text());
    assert!(frame.deflated && frame.payload.len() < text.len() / 4, "{} bytes", frame.payload.len());
    assert_eq!(frame.content(), text.as_bytes());
    assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON")["data"], row);
}

#[test]
fn an_operator_who_ends_a_subscription_is_told_of() {
    let server = open_server("1");
    let mut peer = speaker(&server, "/ws/news");
    hear(&mut peer);
    let ended = server.post("/connections/unsubscribe?topic=news", "", b"");
    assert_eq!(ended.json()["unsubscribed"], 1);
    assert_eq!(hear(&mut peer), json!({"type": "unsubscribed", "topic": "news"}));
    assert_eq!(ask(&mut peer, &json!({"type": "subscribe", "topic": "news"}))["type"], "subscribed");
}

#[test]
fn an_idle_connection_costs_what_a_plain_one_does() {
    let server = open_server("1");
    let mut json = speaker(&server, "/ws");
    assert_eq!(ask(&mut json, &json!({"type": "subscribe", "id": 1, "topic": "news"}))["type"], "subscribed");
    let _plain = server.websocket("/ws/news");
    let rows = server.get("/connections?topic=news").json();
    let memory = |dialect: &str| {
        let rows = rows["connections"].as_array().expect("a list");
        let row = rows.iter().find(|row| row["dialect"] == dialect).unwrap_or_else(|| panic!("{rows:?}"));
        row["memory"].clone()
    };
    assert_eq!(memory("json"), memory("plain"));
}
