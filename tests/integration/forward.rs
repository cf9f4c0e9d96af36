//! `forward` of a topic rule: what clients publish goes to the application, in order, and it answers.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use aws_lc_rs::hmac;
use fantail::wire::frame::Opcode;
use serde_json::{Value, json};

use crate::backend::Gate;
use crate::bearers::{SECRET, Secret, token};
use crate::client::{Peer, assert_upgraded};
use crate::kit::{Server as Application, answered, ok};
use crate::reload::ConfigFile;
use crate::server::{Server, command, fails, nobody, on_free_ports, wait_for};
use crate::subscribe_rules::{ask, speaker};

/// A test that waits for the end of a server waits for no drain.
const QUICK: [(&str, &str); 1] = [("FANTAIL_DRAIN_SECONDS", "0.1")];
pub(crate) const KEY: &str = "a secret of some length, at least";

/// The configuration of a server whose topics `app/…` are the application's at `url`.
pub(crate) fn config(url: &str, secret: &ConfigFile, keys: &str, rules: &str) -> String {
    format!(
        "[forward]\nsecret_file = {:?}\n{keys}\n{rules}\n[[topic]]\npattern = \"app/*\"\npublish = \"anyone\"\nforward = {url:?}\n\
         [[topic]]\npattern = \"open\"\npublish = \"anyone\"\n",
        secret.path()
    )
}

pub(crate) fn forwarding(application: &Application, keys: &str, rules: &str) -> (Server, [ConfigFile; 2]) {
    let secret = ConfigFile::new(KEY);
    let file = ConfigFile::new(&config(&application.url(), &secret, keys, rules));
    let server = Server::start(&["--config", file.path(), "--loops", "2", "--log-level", "debug"], &QUICK);
    (server, [secret, file])
}

pub(crate) fn taking() -> Application {
    Application::saying(answered("204 Taken", ""))
}

/// The messages of a request.
pub(crate) fn rows(request: &str) -> Vec<Value> {
    let (_, body) = request.split_once("\r\n\r\n").expect("a head");
    let body: Value = serde_json::from_str(body).expect("JSON");
    body["messages"].as_array().expect("messages").clone()
}

/// The messages of all requests so far.
pub(crate) fn all_rows(application: &Application) -> Vec<Value> {
    let requests = application.requests.lock().expect("a lock").clone();
    requests.iter().flat_map(|request| rows(request)).collect()
}

fn field<'a>(request: &'a str, name: &str) -> &'a str {
    let fields =
        request.split("\r\n\r\n").next().unwrap_or_default().lines().filter_map(|line| line.split_once(": "));
    let mut values = fields.filter(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    values.next().unwrap_or_else(|| panic!("{name}: {request}"))
}

pub(crate) fn say(peer: &mut Peer, command: &Value) {
    peer.send_frame(Opcode::Text, command.to_string().as_bytes());
}

pub(crate) fn publish(id: u32, data: &Value) -> Value {
    json!({ "type": "publish", "id": id, "topic": "app/a", "data": data })
}

#[test]
fn what_clients_publish_goes_to_the_application_signed_and_says_from_whom() {
    let application = taking();
    let bearers = Secret::new(SECRET);
    let subscribe = "[[topic]]\npattern = \"app/a\"\nsubscribe = \"anyone\"\npublish = \"anyone\"\n";
    let rules = format!("{subscribe}forward = {:?}\n{}", application.url(), bearers.issuer(""));
    let (server, _files) = forwarding(&application, "", &rules);
    let mut listener = server.websocket("/ws/app/a");
    let mut alice = server.connect();
    let fields = format!(
        "Sec-WebSocket-Protocol: fantail.json.v1\r\nAuthorization: Bearer {}\r\n",
        token("alice", r#","subscribe":["**"],"publish":["**"]"#)
    );
    assert_upgraded(&alice.ask_upgrade("/ws", &fields));
    let told = ask(&mut alice, &publish(7, &json!({ "x": [1] })));
    assert_eq!(told, json!({ "type": "forwarded", "id": 7, "topic": "app/a" }));
    let mut plain = server.websocket("/ws/app/a");
    plain.send_frame(Opcode::Binary, b"\x00\xff");
    wait_for("both", || all_rows(&application).len() == 2);
    let got = all_rows(&application);
    let connections = server.get("/connections?identity=alice").json();
    assert_eq!(got[0]["connection"], connections["connections"][0]["id"]);
    let expected = json!({ "topic": "app/a", "dialect": "json", "sub": "alice", "address": "127.0.0.1", "request": 7, "data": { "x": [1] } });
    for (name, value) in expected.as_object().expect("an object") {
        assert_eq!(&got[0][name], value, "{}", got[0]);
    }
    assert!(got[0]["time"].as_u64().is_some_and(|time| time > 1_700_000_000_000));
    assert_eq!(
        (&got[1]["data_base64"], &got[1]["dialect"], got[1].get("sub")),
        (&json!("AP8="), &json!("plain"), None)
    );
    assert_ne!(got[0]["id"], got[1]["id"]);
    let request = application.requests.lock().expect("a lock")[0].clone();
    let body = request.split_once("\r\n\r\n").expect("a head").1;
    let signed = format!("{}.{}.{body}", field(&request, "webhook-id"), field(&request, "webhook-timestamp"));
    let key = hmac::Key::new(hmac::HMAC_SHA256, KEY.as_bytes());
    let expected = data_encoding::BASE64.encode(hmac::sign(&key, signed.as_bytes()).as_ref());
    assert_eq!(field(&request, "webhook-signature"), format!("v1,{expected}"));
    // What the operator publishes goes into the topic, and nothing has before.
    assert_eq!(server.publish("app/a", b"news").json()["offset"], 1);
    assert_eq!(listener.text(), "news");
    server.await_metric("fantail_forward_messages_total", "taken", |count| count == 2);
    assert_eq!(server.metric("fantail_forward_waiting_bytes", ""), 0);
    assert_eq!(server.get("/stats").json()["forward"]["taken"], 2);
}

#[test]
fn listed_claims_go_with_what_their_bearer_sends() {
    let application = Application::start(|request, stream| {
        let (_, body) = request.split_once("\r\n\r\n").expect("a head");
        let answer = json!({ "allow": true, "sub": "bob", "publish": ["**"], "tenant": { "id": 7 }, "role": null, "other": 1 });
        match body.contains("\"messages\"") {
            true => stream.write_all(&answered("204 Taken", "")).is_ok(),
            false => stream.write_all(&ok(&answer.to_string())).is_ok(),
        }
    });
    let (heard, secret) = (taking(), ConfigFile::new(KEY));
    let bearers = Secret::new(SECRET);
    let rules = format!(
        "[auth]\nclaims = [\"role\", \"tenant\"]\nbackend_url = {:?}\n{}\n[webhook]\nurl = {:?}\nsecret_file = {:?}\n\
         events = [\"connected\"]\n",
        application.url(),
        bearers.issuer(""),
        heard.url(),
        secret.path()
    );
    let (server, _files) = forwarding(&application, "", &rules);
    let by_token = |more: &str| {
        let fields = format!(
            "Sec-WebSocket-Protocol: fantail.json.v1\r\nAuthorization: Bearer {}\r\n",
            token("alice", more)
        );
        let mut peer = server.connect();
        let status = peer.ask_upgrade("/ws", &fields).status;
        (peer, status)
    };
    let (mut alice, status) = by_token(r#","publish":["**"],"tenant":"a \"b\"","scope":"all""#);
    assert_eq!(status, 101);
    let mut bob = speaker(&server);
    for (peer, sub, claims) in [
        (&mut alice, "alice", json!({ "tenant": "a \"b\"" })),
        (&mut bob, "bob", json!({ "tenant": { "id": 7 }, "role": null })),
    ] {
        assert_eq!(ask(peer, &publish(1, &json!("x")))["type"], "forwarded");
        let requests = application.requests.lock().expect("a lock").clone();
        let told = rows(requests.last().expect("one"));
        assert_eq!((&told[0]["sub"], &told[0]["claims"]), (&json!(sub), &claims));
        let listed = server.get(&format!("/connections?identity={sub}")).json();
        assert_eq!(listed["connections"][0]["claims"], claims);
        let connected = || {
            let requests = heard.requests.lock().expect("a lock").clone();
            let bodies = requests.iter().filter_map(|request| request.split_once("\r\n\r\n"));
            let events =
                bodies.map(|(_, body)| serde_json::from_str::<Value>(body).expect("JSON")["events"].clone());
            let events: Vec<Value> =
                events.flat_map(|events| events.as_array().expect("events").clone()).collect();
            events.into_iter().find(|event| event["identity"] == sub)
        };
        wait_for("the webhook", || connected().is_some());
        assert_eq!(connected().expect("one")["claims"], claims);
    }
    // An application that decides by a claim does not find half of it.
    let long = format!(r#","publish":["**"],"tenant":"{}""#, "x".repeat(1_024));
    for bad in [&long, r#","tenant":1,"tenant":2"#, r#","role":"\ud800""#] {
        assert_eq!(by_token(bad).1, 401, "{bad:.30}");
    }
}

#[test]
fn the_application_replies_publishes_refuses_and_closes() {
    let application = Application::start(|request, stream| {
        let said: Vec<Value> = rows(request)
            .iter()
            .map(|row| {
                let text = row["data"].as_str().unwrap_or_default();
                let more = match text {
                    "reply" => json!({ "reply": { "data": { "you": row["connection"] } } }),
                    "word" => json!({ "reply": { "data": "a \"word\"" } }),
                    "number" => json!({ "reply": { "data": 17 } }),
                    "bytes" => json!({ "reply": { "data_base64": "AP8=" } }),
                    "publish" => json!({ "publish": [{ "topic": "open", "data": "first" }, { "topic": "app/b", "data": { "n": 2 } }] }),
                    "refuse" => json!({ "refuse": { "code": "too_rude", "text": "say please" } }),
                    "close" => json!({ "reply": { "data": "bye" }, "close": { "code": 4001, "reason": "enough" } }),
                    _ => json!({}),
                };
                let mut said = more;
                said["id"] = row["id"].clone();
                said
            })
            .collect();
        stream.write_all(&ok(&json!({ "messages": said }).to_string())).is_ok()
    });
    let (server, _files) = forwarding(&application, "", "");
    let mut listener = server.websocket("/ws/open?topic=app/b");
    let mut peer = speaker(&server);
    let told = ask(&mut peer, &publish(1, &json!("reply")));
    assert!(told["data"]["you"].as_str().is_some_and(|id| id.split(':').count() == 3), "{told}");
    let of = |kind: &str, more: Value| {
        let mut told = json!({ "type": kind, "topic": "app/a" });
        told.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        told
    };
    assert_eq!(
        ask(&mut peer, &publish(2, &json!("word"))),
        of("forwarded", json!({ "id": 2, "data": "a \"word\"" }))
    );
    assert_eq!(
        ask(&mut peer, &publish(3, &json!("number"))),
        of("forwarded", json!({ "id": 3, "data": "17" }))
    );
    assert_eq!(
        ask(&mut peer, &publish(4, &json!("bytes"))),
        of("forwarded", json!({ "id": 4, "data_base64": "AP8=" }))
    );
    assert_eq!(ask(&mut peer, &publish(5, &json!("publish"))), of("forwarded", json!({ "id": 5 })));
    assert_eq!([listener.text(), listener.text()], ["first", "{\"n\":2}"], "into the topic, and not back");
    let refused = json!({ "id": 6, "code": "refused", "reason": "too_rude", "message": "say please" });
    assert_eq!(ask(&mut peer, &publish(6, &json!("refuse"))), of("error", refused));
    // Who gives no id is told what the application says, and nothing else.
    say(&mut peer, &json!({ "type": "publish", "topic": "app/a", "data": "nothing" }));
    assert_eq!(ask(&mut peer, &publish(7, &json!("close")))["data"], "bye");
    assert_eq!(peer.frame().close_code(), Some(4001));

    let mut plain = server.websocket("/ws/app/a");
    for (sent, came) in [("word", &b"a \"word\""[..]), ("number", b"17"), ("bytes", b"\x00\xff")] {
        plain.send_frame(Opcode::Text, sent.as_bytes());
        assert_eq!(plain.frame().payload, came, "{sent}");
    }
    plain.send_frame(Opcode::Text, b"refuse");
    plain.send_frame(Opcode::Text, b"close");
    assert_eq!(plain.text(), "bye");
    assert_eq!(plain.frame().close_code(), Some(4001));
    let mut enveloped = server.websocket("/ws/app/a?envelope=1");
    let _subscribed = enveloped.text();
    enveloped.send_frame(Opcode::Text, b"word");
    assert_eq!(enveloped.text(), "{\"type\":\"forwarded\",\"topic\":\"app/a\"}\na \"word\"");
    enveloped.send_frame(Opcode::Text, b"refuse");
    let told: Value = serde_json::from_str(&enveloped.text()).expect("one line");
    assert_eq!(
        told,
        of("error", json!({ "code": "refused", "reason": "too_rude", "message": "say please" }))
    );
    assert_eq!(server.metric("fantail_publishes_ignored_total", ""), 2);
    for one in [&mut peer, &mut plain] {
        one.send_frame(Opcode::Close, &4_001_u16.to_be_bytes());
    }
    server.await_metric("fantail_closes_total", "\"application", |ended| ended == 2);
    assert_eq!(server.metric("fantail_forward_messages_total", "refused"), 3);
    assert_eq!(server.metric("fantail_forward_publishes_total", "\"published"), 2);
}

#[test]
fn a_slow_application_slows_its_senders_alone_and_gets_all_in_order() {
    let gate = Gate::default();
    let held = gate.clone();
    let application = Application::start(move |_, stream| {
        held.pass();
        stream.write_all(&answered("204 Taken", "")).is_ok()
    });
    let (server, _files) = forwarding(&application, "connection_messages_max = 4", "");
    let mut senders: Vec<Peer> = (0..3).map(|_| server.websocket("/ws/app/a")).collect();
    for (place, peer) in senders.iter_mut().enumerate() {
        for number in 0..40 {
            peer.send_frame(Opcode::Text, format!("{place}/{number:02}").as_bytes());
        }
    }
    server.await_metric("fantail_forward_waiting_messages", "", |waiting| waiting == 12);
    server.await_metric("fantail_forwards_blocked_total", "", |blocked| blocked == 3);
    // Others are served meanwhile, on each loop.
    for _ in 0..4 {
        let mut bystander = server.websocket("/ws/open");
        bystander.send_frame(Opcode::Text, b"still");
        assert_eq!(bystander.text(), "still");
    }
    // One leaves, and what it has sent of it is told all the same.
    drop(senders.pop());
    gate.open(1_000);
    wait_for("all of those who have stayed", || {
        let rows = all_rows(&application);
        rows.iter().filter(|row| row["data"].as_str().is_some_and(|text| !text.starts_with('2'))).count()
            == 80
    });
    let rows = all_rows(&application);
    for place in ["0", "1", "2"] {
        let of: Vec<&str> = rows
            .iter()
            .filter_map(|row| row["data"].as_str())
            .filter(|text| text.starts_with(place))
            .collect();
        assert!(of.len() >= 4 && of.is_sorted() && of[0].ends_with("/00"), "{of:?}");
    }
    server.await_metric("fantail_forward_waiting_messages", "", |waiting| waiting == 0);
}

#[test]
fn nothing_is_lost_or_overtaken_while_the_application_restarts() {
    // It dies in the middle of answers, and comes back.
    let (down, kept) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let (is_down, keeps) = (Arc::clone(&down), Arc::clone(&kept));
    let application = Application::start(move |request, stream| {
        if is_down.load(Ordering::SeqCst) {
            return false;
        }
        let texts = rows(request).into_iter().filter_map(|row| row["data"].as_str().map(str::to_owned));
        keeps.lock().expect("a lock").extend(texts);
        stream.write_all(&answered("204 Taken", "")).is_ok()
    });
    let (server, _files) = forwarding(&application, "", "");
    let mut peer = speaker(&server);
    for number in 0..150_u32 {
        if number == 50 {
            wait_for("some", || !kept.lock().expect("a lock").is_empty());
            down.store(true, Ordering::SeqCst);
        }
        say(&mut peer, &publish(number, &json!(format!("{number:03}"))));
        if number == 100 {
            server.await_metric("fantail_forward_calls_total", "connection", |failed| failed >= 1);
            down.store(false, Ordering::SeqCst);
        }
    }
    for number in 0..150 {
        let told: Value = serde_json::from_str(&peer.text()).expect("JSON");
        assert_eq!(told, json!({ "type": "forwarded", "id": number, "topic": "app/a" }));
    }
    let got = kept.lock().expect("a lock").clone();
    assert!(got.len() == 150 && got.is_sorted(), "{got:?}");
}

#[test]
fn who_may_not_or_sends_what_the_topic_does_not_take_is_refused_before() {
    let application = taking();
    let url = application.url();
    let rules = format!(
        "[[topic]]\npattern = \"app/closed\"\nforward = {url:?}\n\
         [[topic]]\npattern = \"app/json\"\npublish = \"anyone\"\nvalidate = \"json\"\nmessage_bytes_max = 1000\nforward = {url:?}\n"
    );
    let (server, _files) = forwarding(&application, "", &rules);
    let mut peer = speaker(&server);
    for (topic, data, code) in [
        ("app/closed", json!("x"), "not_allowed"),
        ("app/json", json!("{"), "invalid_message"),
        ("app/json", json!("x".repeat(1_001)), "too_large"),
    ] {
        let told = ask(&mut peer, &json!({ "type": "publish", "id": 1, "topic": topic, "data": data }));
        assert_eq!(told["code"], code, "{told}");
    }
    let mut plain = server.websocket("/ws/app/json");
    plain.send_frame(Opcode::Text, b"{");
    plain.send_frame(Opcode::Text, b"{\"good\":1}");
    wait_for("the good one", || !all_rows(&application).is_empty());
    // What could end a JSON text or forge a member of it is one string, or stays what it is.
    let hostile = ["\"},{\"id\":\"x\"", "\u{2028}\0\\", "[1,", "{\"a\":\"\\ud800\"}", "{\"sub\":\"root\"}"];
    for (number, text) in hostile.iter().enumerate() {
        let told = ask(&mut peer, &publish(number as u32, &json!(text)));
        assert_eq!(told["type"], "forwarded", "{told}");
    }
    let got = all_rows(&application);
    assert_eq!(got[0]["data"], json!({ "good": 1 }));
    assert_eq!(
        got.iter().skip(1).take(4).map(|row| row["data"].as_str()).collect::<Vec<_>>(),
        hostile[..4].iter().map(|text| Some(*text)).collect::<Vec<_>>()
    );
    assert_eq!((&got[5]["data"], got[5].get("sub")), (&json!({ "sub": "root" }), None));
    // An echo is an echo.
    let mut echo = server.websocket("/echo");
    echo.send_frame(Opcode::Text, b"app/a");
    assert_eq!(echo.text(), "app/a");
    assert_eq!(got.len(), all_rows(&application).len());
}

#[test]
fn a_sender_is_told_what_can_not_be_forwarded() {
    let (_socket, gone) = nobody();
    let secret = ConfigFile::new(KEY);
    let file = ConfigFile::new(&config(&format!("http://{gone}/hidden"), &secret, "retry_seconds = 0.2", ""));
    let server = Server::start(&["--config", file.path(), "--loops", "1"], &QUICK);
    let mut peer = speaker(&server);
    let told = ask(&mut peer, &publish(1, &json!("x")));
    assert_eq!(
        (&told["type"], &told["code"], &told["topic"]),
        (&json!("error"), &json!("forward_failed"), &json!("app/a"))
    );
    let mut plain = server.websocket("/ws/app/a");
    plain.send_frame(Opcode::Text, b"x");
    server.await_metric("fantail_forward_messages_total", "failed", |failed| failed == 2);
    plain.ping_pong();
    assert_eq!(server.metric("fantail_publishes_ignored_total", ""), 0, "it is none of its faults");
}

#[test]
fn a_reload_sends_elsewhere_and_the_end_tells_what_is_left() {
    let (first, second) = (taking(), taking());
    let gate = Gate::default();
    let held = gate.clone();
    let third = Application::start(move |_, stream| {
        held.pass();
        stream.write_all(&answered("204 Taken", "")).is_ok()
    });
    let (mut server, [secret, file]) = forwarding(&first, "", "");
    let mut peer = speaker(&server);
    let mut sent = 0;
    // Loops take a reload a moment after it is announced; nothing is refused meanwhile.
    let mut send_until = |kind: &str, done: &dyn Fn() -> bool| {
        let mut told = Value::Null;
        wait_for(kind, || {
            told = ask(&mut peer, &publish(1, &json!(format!("{sent}"))));
            sent += 1;
            assert!(["forwarded", "published"].iter().any(|fine| told["type"] == *fine), "{told}");
            told["type"] == kind && done()
        });
    };
    send_until("forwarded", &|| first.asked() == 1);
    file.write(&config(&second.url(), &secret, "", ""));
    server.signal("HUP");
    send_until("forwarded", &|| second.asked() > 0);
    file.write("[[topic]]\npattern = \"app/*\"\npublish = \"anyone\"\n");
    server.signal("HUP");
    send_until("published", &|| true);
    let gone = second.asked();
    file.write(&config(&third.url(), &secret, "", ""));
    gate.open(1);
    server.signal("HUP");
    send_until("forwarded", &|| true);
    assert_eq!((all_rows(&first).len() + gone, all_rows(&third).len()), (first.asked() + second.asked(), 1));
    // What was read and not told yet goes out in the end.
    say(&mut peer, &publish(2, &json!("last")));
    wait_for("the last", || third.asked() == 2);
    drop(peer);
    server.terminate();
    gate.open(1);
    server.await_exit();
    assert_eq!(all_rows(&third)[1]["data"], "last");
    assert!(!server.rest_of_log().contains("these messages are lost"));
}

#[test]
fn what_can_not_work_is_refused_before_anything_listens() {
    let (short, good) = (ConfigFile::new("too short"), ConfigFile::new(KEY));
    let rule = |url: &str| format!("[[topic]]\npattern = \"a\"\nforward = {url:?}\n");
    let section = |file: &str| format!("[forward]\nsecret_file = {file:?}\n");
    for (text, said) in [
        (
            rule("http://127.0.0.1:1/"),
            "forward.secret_file: expects a file with a secret, because a topic rule has forward",
        ),
        (rule("127.0.0.1"), "topic.forward: "),
        (
            section(good.path()) + &rule("http://127.0.0.1/?key=hidden"),
            "topic.forward: expects a URL without a query",
        ),
        (section(short.path()) + &rule("http://127.0.0.1:1/"), "forward.secret_file: "),
        (
            section("/nowhere/secret") + &rule("http://127.0.0.1:1/"),
            "forward.secret_file: \"/nowhere/secret\" can't be read",
        ),
        (
            section(good.path()) + "ca_file = \"/nowhere/ca\"\n" + &rule("https://127.0.0.1:1/"),
            "forward.ca_file: ",
        ),
        (section(good.path()) + "calls_max = 0\n", "forward.calls_max: expects 1 to 256, got 0"),
    ] {
        let file = ConfigFile::new(&text);
        for arguments in [["check-config", "--config", file.path()], ["serve", "--config", file.path()]] {
            let (status, log) = fails(command(&arguments, &[]));
            assert!(status.is_some_and(|status| status != 0) && log.contains(said), "{said}: {log}");
        }
    }
    let fine = ConfigFile::new(&(section(good.path()) + &rule("http://127.0.0.1:1/")));
    let server = Server::spawn(on_free_ports(&["--config", fine.path(), "--loops", "1"], &QUICK));
    assert_eq!(server.metric("fantail_forward_waiting_messages", ""), 0);
}
