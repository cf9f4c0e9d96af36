//! `forward` of a topic rule where something is wrong: applications that hang, drip, lie or are away, senders that want all of
//! a queue, clients behind proxies. Senders alone feel it, and are told.

use std::io::Write;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fantail::wire::frame::Opcode;
use serde_json::{Value, json};

use crate::backend::Gate;
use crate::client::{Peer, assert_upgraded, upgrade_request};
use crate::forward::{KEY, all_rows, config, forwarding, publish, say, taking};
use crate::kit::{Server as Application, answered, ok};
use crate::reload::ConfigFile;
use crate::server::{PATIENCE, Server, nobody, wait_for};
use crate::subscribe_rules::{ask, speaker};

/// The longest that a bystander's echo may take beside an application that does harm: far below what its senders wait.
const ECHO_MAX: Duration = Duration::from_millis(500);

const JSON: &str = "Sec-WebSocket-Protocol: fantail.json.v1\r\n";

/// Has the echo of a connection on each loop measured until told to stop: how many there were, and the longest.
fn bystanders(server: &Server) -> impl FnOnce() -> (usize, Duration) {
    let over = Arc::new(AtomicBool::new(false));
    let echoes = [(); 4].map(|()| {
        let (mut peer, over) = (server.websocket("/echo"), Arc::clone(&over));
        thread::spawn(move || {
            let (mut count, mut longest) = (0, Duration::ZERO);
            while !over.load(Ordering::SeqCst) {
                let began = Instant::now();
                peer.send_frame(Opcode::Text, b"still there");
                assert_eq!(peer.text(), "still there");
                longest = longest.max(began.elapsed());
                count += 1;
                thread::sleep(Duration::from_millis(2));
            }
            (count, longest)
        })
    });
    move || {
        over.store(true, Ordering::SeqCst);
        let each = echoes.map(|echo| echo.join().expect("echoes"));
        (
            each.iter().map(|(count, _)| count).sum(),
            each.iter().map(|(_, longest)| *longest).max().unwrap_or_default(),
        )
    }
}

/// What somebody is told whose message goes to such an application, by its code; `calls` is how often that was asked at least.
fn tells(application: &Application, keys: &str, calls: usize) {
    let (server, _files) = forwarding(application, keys, "");
    let measured = bystanders(&server);
    let mut senders: Vec<Peer> = (0..4).map(|_| speaker(&server)).collect();
    let mut enveloped = server.websocket("/ws/app/a?envelope=1");
    let _subscribed = enveloped.text();
    for peer in &mut senders {
        (0..5).for_each(|id| say(peer, &publish(id, &json!("x"))));
    }
    enveloped.send_frame(Opcode::Text, b"x");
    for peer in &mut senders {
        for id in 0..5 {
            let told: Value = serde_json::from_str(&peer.text()).expect("JSON");
            assert_eq!((&told["id"], &told["code"]), (&json!(id), &json!("forward_failed")), "{told}");
        }
    }
    let told: Value = serde_json::from_str(&enveloped.text()).expect("one line");
    assert_eq!((&told["type"], &told["code"]), (&json!("error"), &json!("forward_failed")), "{told}");
    // Nobody is read no further, or sent away.
    senders.iter_mut().chain([&mut enveloped]).for_each(Peer::ping_pong);
    let (count, longest) = measured();
    assert!(count > 3 && longest < ECHO_MAX, "{count} echoes, the longest {longest:?}");
    assert!(application.asked() >= calls, "{}", application.asked());
    assert_eq!(server.metric("fantail_forward_messages_total", "failed"), 21);
    assert_eq!(server.metric("fantail_publishes_ignored_total", ""), 0);
    server.await_metric("fantail_forward_waiting_bytes", "", |bytes| bytes == 0);
}

#[test]
fn an_application_that_hangs_or_drips_slows_its_senders_alone() {
    let keys = "timeout_seconds = 0.3\nretry_seconds = 1\ncalls_max = 2";
    let gate = Gate::default();
    let held = gate.clone();
    let hangs = Application::start(move |_, _| {
        held.pass();
        false
    });
    tells(&hangs, keys, 2);
    gate.open(1_000);
    let drips = Application::start(|_, stream| {
        // A byte at a time is never the end of it.
        let until = Instant::now() + PATIENCE;
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n").is_ok()
            && std::iter::repeat_with(|| thread::sleep(Duration::from_millis(20)))
                .all(|()| Instant::now() < until && stream.write_all(b" ").is_ok())
    });
    tells(&drips, keys, 2);
}

#[test]
fn an_application_that_lies_is_not_asked_again_about_it() {
    let long = vec![b' '; 10 << 20];
    let long =
        [format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", long.len()).into_bytes(), long].concat();
    let elsewhere = taking();
    let location = format!("307 Elsewhere\r\nLocation: {}", elsewhere.url());
    for answer in [
        long,
        answered(&location, ""),
        ok("<html>"),
        ok(r#"{"messages":[{"id":"msg_of_another"}]}"#),
        ok(r#"{"messages":"#),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n".to_vec(),
    ] {
        let lies = Application::start(move |_, stream| {
            let _ = stream.write_all(&answer);
            // What has no end is none.
            false
        });
        tells(&lies, "retry_seconds = 1", 1);
    }
    assert_eq!(elsewhere.asked(), 0, "nobody goes where it points");
}

#[test]
fn an_outage_of_the_application_closes_none_of_its_senders() {
    let (_socket, gone) = nobody();
    let secret = ConfigFile::new(KEY);
    let keys = "retry_seconds = 0.2\nmessages_max = 10\nconnection_messages_max = 10000";
    let file = ConfigFile::new(&config(&format!("http://{gone}/hidden"), &secret, keys, ""));
    let few = [("FANTAIL_LIMITS_IGNORED_PUBLISHES_MAX", "3"), ("FANTAIL_DRAIN_SECONDS", "0.1")];
    let server = Server::start(&["--config", file.path(), "--loops", "1"], &few);
    let mut peers = [server.websocket("/ws/app/a"), server.websocket("/ws/app/a?envelope=1")];
    // The first find nobody to take them, and most of the others no room.
    for (count, dealt_with) in [(1, 2), (40, 82)] {
        for peer in &mut peers {
            (0..count).for_each(|_| peer.send_frame(Opcode::Text, b"x"));
        }
        let ended = || ["full", "failed"].map(|of| server.metric("fantail_forward_messages_total", of));
        wait_for("all of them", || ended().iter().sum::<u64>() == dealt_with);
    }
    let [plain, enveloped] = &mut peers;
    plain.ping_pong();
    let mut codes: Vec<Value> = Vec::new();
    let _subscribed = enveloped.text();
    for _ in 0..41 {
        let mut told: Value = serde_json::from_str(&enveloped.text()).expect("one line");
        assert_eq!((&told["type"], &told["topic"]), (&json!("error"), &json!("app/a")), "{told}");
        codes.push(told["code"].take());
    }
    assert!(["busy", "forward_failed"].iter().all(|code| codes.contains(&json!(code))), "{codes:?}");
    enveloped.ping_pong();
    assert_eq!(server.metric("fantail_publishes_ignored_total", ""), 0);
    // Who sends what may not be sent is counted as ever, and told where there are words.
    let mut stranger = server.websocket("/ws/closed?envelope=1");
    let _subscribed = stranger.text();
    (0..4).for_each(|_| stranger.send_frame(Opcode::Text, b"x"));
    for _ in 0..4 {
        let told: Value = serde_json::from_str(&stranger.text()).expect("one line");
        assert_eq!(told["code"], "not_allowed", "{told}");
    }
    assert_eq!(stranger.frame().close_code(), Some(1008));
}

#[test]
fn an_address_that_wants_all_of_the_queue_leaves_room_for_others() {
    let gate = Gate::default();
    let held = gate.clone();
    let application = Application::start(move |_, stream| {
        held.pass();
        stream.write_all(&answered("204 Taken", "")).is_ok()
    });
    let keys = "messages_max = 100\ncalls_max = 1\nconnection_messages_max = 30\nretry_seconds = 60";
    let (server, _files) = forwarding(&application, keys, "");
    let from = |last: u8| {
        let mut peer = Peer::connect_from(IpAddr::from([127, 0, 0, last]), server.listen);
        assert_upgraded(&peer.ask_upgrade("/ws", JSON));
        peer
    };
    // However many connections it has.
    let mut flood: Vec<Peer> = (0..5).map(|_| from(2)).collect();
    for peer in &mut flood {
        (0..30).for_each(|id| say(peer, &publish(id, &json!("x"))));
    }
    server.await_metric("fantail_forward_messages_total", "full", |count| count == 100);
    assert_eq!(server.metric("fantail_forward_waiting_messages", ""), 50);
    let told: Value = serde_json::from_str(&flood[4].text()).expect("JSON");
    assert_eq!(told["code"], "busy", "{told}");
    let mut others: Vec<Peer> = (3..6).map(from).collect();
    for peer in &mut others {
        say(peer, &publish(1, &json!("of another")));
    }
    gate.open(1_000);
    for peer in &mut others {
        let told: Value = serde_json::from_str(&peer.text()).expect("JSON");
        assert_eq!(told["type"], "forwarded", "{told}");
    }
    server.await_metric("fantail_forward_waiting_messages", "", |waiting| waiting == 0);
    // And has its share again.
    let mut again = from(2);
    assert_eq!(ask(&mut again, &publish(1, &json!("x")))["type"], "forwarded");
}

/// The address that the application is told of a peer's message.
fn told_of(server: &Server, application: &Application, mut peer: Peer) -> Value {
    let before = all_rows(application).len();
    let told = ask(&mut peer, &publish(1, &json!("whose")));
    assert_eq!(told["type"], "forwarded", "{told}");
    assert!(server.metric("fantail_forward_messages_total", "taken") > 0);
    all_rows(application)[before]["address"].clone()
}

#[test]
fn behind_a_proxy_a_message_has_the_address_that_admission_counts() {
    let application = taking();
    let (server, _files) = forwarding(&application, "", "[admission]\ntrusted_proxies = [\"127.0.0.1\"]");
    for (last, fields, address) in [
        (1, "X-Forwarded-For: 203.0.113.9, 192.0.2.1\r\n", "192.0.2.1"),
        (1, "X-Forwarded-For: 2001:db8::7, 127.0.0.1\r\n", "2001:db8::7"),
        // Without a usable one it is the proxy's own, and whoever is no proxy is believed nothing.
        (1, "X-Forwarded-For: unknown\r\n", "127.0.0.1"),
        (1, "", "127.0.0.1"),
        (2, "X-Forwarded-For: 192.0.2.1\r\n", "127.0.0.2"),
    ] {
        let mut peer = Peer::connect_from(IpAddr::from([127, 0, 0, last]), server.listen);
        assert_upgraded(&peer.ask_upgrade("/ws", &format!("{JSON}{fields}")));
        assert_eq!(told_of(&server, &application, peer), address, "{fields}");
    }
}

#[test]
fn a_proxy_header_tells_whose_message_it_is_and_whose_handshake() {
    let application = Application::start(|request, stream| match request.starts_with("POST /ask") {
        // Both go there: the question about the handshake has no messages.
        true if !request.contains("\"messages\"") => {
            stream.write_all(&ok(r#"{"allow":true,"sub":"a"}"#)).is_ok()
        }
        _ => stream.write_all(&answered("204 Taken", "")).is_ok(),
    });
    let webhook = ConfigFile::new(KEY);
    let heard = taking();
    let rules = format!(
        "[admission]\ntrusted_proxies = [\"127.0.0.1\"]\nproxy_protocol = true\n[auth]\nbackend_url = {:?}\nbackend_cache_seconds = 0\n\
         [webhook]\nurl = {:?}\nsecret_file = {:?}\nevents = [\"connected\"]\n",
        application.url(),
        heard.url(),
        webhook.path()
    );
    let (server, _files) = forwarding(&application, "", &rules);
    for (source, fields, address) in [
        ("192.0.2.1", "X-Forwarded-For: 203.0.113.9\r\n", "192.0.2.1"),
        // A proxy behind the proxy speaks for others.
        ("127.0.0.1", "X-Forwarded-For: 203.0.113.9\r\n", "203.0.113.9"),
        ("127.0.0.1", "", "127.0.0.1"),
    ] {
        let (asked, connected) = (application.asked(), heard.asked());
        let mut peer = server.connect();
        peer.send(format!("PROXY TCP4 {source} 127.0.0.1 4711 80\r\n").as_bytes());
        peer.send(upgrade_request(server.listen, "/ws", &format!("{JSON}{fields}")).as_bytes());
        assert_upgraded(&peer.answer());
        let told = ask(&mut peer, &publish(1, &json!("whose")));
        assert_eq!(told["type"], "forwarded", "{told}");
        wait_for("the webhook", || heard.asked() > connected);
        let said = |of: &Application, from: usize| -> Vec<Value> {
            let requests = of.requests.lock().expect("a lock").clone();
            let bodies =
                requests.iter().skip(from).map(|request| request.split_once("\r\n\r\n").expect("a head").1);
            bodies.map(|body| serde_json::from_str(body).expect("JSON")).collect()
        };
        let asked = said(&application, asked);
        assert_eq!(asked[0]["address"], address, "of the handshake");
        assert_eq!(asked[1]["messages"][0]["address"], address, "of the message");
        assert_eq!(said(&heard, connected)[0]["events"][0]["address"], address, "of the event");
    }
}
