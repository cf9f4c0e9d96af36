//! Webhooks whose receiver is away, slow or asks to be left alone: who connects and publishes feels nothing of it, and what is told
//! late is told in order, with a number for what was not.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use fantail::wire::frame::Opcode;
use serde_json::Value;

use crate::kit::{Server as Receiver, answered};
use crate::reload::ConfigFile;
use crate::server::{Server, wait_for};

const SECRET: &str = "a secret of some length, at least";

fn telling(receiver: &Receiver, keys: &str, rules: &str) -> (Server, [ConfigFile; 2]) {
    let secret = ConfigFile::new(SECRET);
    let config = ConfigFile::new(&format!(
        "[webhook]\nurl = {:?}\nsecret_file = {:?}\n{keys}\n[publish]\ntopics = [\"*\"]\n{rules}\n",
        receiver.url(),
        secret.path()
    ));
    let server =
        Server::start(&["--config", config.path(), "--loops", "2"], &[("FANTAIL_DRAIN_SECONDS", "0.1")]);
    (server, [secret, config])
}

/// The name of a batch, and its body.
fn batch(request: &str) -> (String, Value) {
    let (head, body) = request.split_once("\r\n\r\n").expect("a head");
    let named = |line: &str| line.to_ascii_lowercase().strip_prefix("webhook-id: ").map(str::to_owned);
    (head.lines().find_map(named).expect("a name"), serde_json::from_str(body).expect("JSON"))
}

#[test]
fn an_outage_of_the_receiver_holds_up_nobody_and_ends_in_order() {
    const EACH: u64 = 300;
    let down = Arc::new(AtomicBool::new(true));
    let taken: Arc<Mutex<Vec<(String, Value)>>> = Arc::default();
    let (is_down, takes) = (Arc::clone(&down), Arc::clone(&taken));
    let receiver = Receiver::start(move |request, stream| {
        if is_down.load(Ordering::SeqCst) {
            return false;
        }
        takes.lock().expect("a lock").push(batch(request));
        stream.write_all(&answered("204 Taken", "")).is_ok()
    });
    let rules = "[[topic]]\npattern = \"told/*\"\nwebhook = [\"published\"]\n";
    let (server, _files) =
        telling(&receiver, "events = [\"occupied\", \"vacated\"]\nqueue_bytes_max = 20000", rules);
    let mut peers = [server.websocket("/ws/told/a"), server.websocket("/ws/told/b")];
    for number in 0..EACH {
        for peer in &mut peers {
            let text = number.to_string();
            peer.send_frame(Opcode::Text, text.as_bytes());
            assert_eq!(peer.text(), text, "each comes back at once, whoever is told of it");
        }
    }
    // It was tried again and again, and what found no room meanwhile is counted.
    server.await_metric("fantail_webhook_failed_calls_total", "", |failed| failed >= 3);
    let lost = server.await_metric("fantail_webhook_events_total", "overflowed", |lost| lost > 0);
    assert!(server.metric("fantail_webhook_queue_bytes", "") <= 20_000);
    down.store(false, Ordering::SeqCst);
    let all = 2 * EACH + 2;
    server.await_metric("fantail_webhook_events_total", "delivered", |told| told + lost == all);
    let batches = taken.lock().expect("a lock").clone();
    let mut names: Vec<&String> = batches.iter().map(|(name, _)| name).collect();
    names.dedup();
    assert_eq!(names.len(), batches.len(), "none came twice that was taken");
    assert_eq!(batches.iter().filter_map(|(_, body)| body["missed"].as_u64()).sum::<u64>(), lost);
    let events: Vec<&Value> =
        batches.iter().flat_map(|(_, body)| body["events"].as_array().expect("events")).collect();
    for topic in ["told/a", "told/b"] {
        let of: Vec<&&Value> = events.iter().filter(|event| event["topic"] == topic).collect();
        assert_eq!(of[0]["type"], "occupied", "the last quarter of the room is theirs");
        let offsets: Vec<u64> =
            of[1..].iter().map(|event| event["offset"].as_u64().expect("a place")).collect();
        assert!(offsets.len() > 10 && offsets.is_sorted_by(|one, next| one < next), "{offsets:?}");
    }
}

#[test]
fn tries_come_later_each_time_and_not_before_the_receiver_says() {
    let tries: Arc<Mutex<Vec<(Instant, String)>>> = Arc::default();
    let (noted, count) = (Arc::clone(&tries), AtomicUsize::new(0));
    let receiver = Receiver::start(move |request, stream| {
        noted.lock().expect("a lock").push((Instant::now(), batch(request).0));
        let answer = match count.fetch_add(1, Ordering::SeqCst) {
            0 => answered("500 Oh", ""),
            1 => answered("302 Elsewhere\r\nLocation: /", ""),
            2 => answered("503 Wait\r\nRetry-After: 3", ""),
            _ => answered("200 Fine", ""),
        };
        stream.write_all(&answer).is_ok()
    });
    let (server, _files) = telling(&receiver, "", "");
    let _peer = server.websocket("/ws/a");
    server.await_metric("fantail_webhook_events_total", "delivered", |told| told == 1);
    let tries = tries.lock().expect("a lock").clone();
    assert_eq!(tries.len(), 4);
    assert!(tries.iter().all(|(_, name)| *name == tries[0].1), "the same batch under its name: {tries:?}");
    for (pair, least) in tries.windows(2).zip([500, 1_000, 3_000]) {
        let pause = pair[1].0.duration_since(pair[0].0);
        assert!(pause >= Duration::from_millis(least), "{pause:?}, and not {least} ms");
    }
}

#[test]
fn a_topic_is_vacated_when_it_was_empty_for_three_seconds() {
    let heard: Arc<Mutex<Vec<(Instant, String)>>> = Arc::default();
    let hears = Arc::clone(&heard);
    let receiver = Receiver::start(move |request, stream| {
        let body = batch(request).1;
        let kinds = body["events"].as_array().expect("events").iter().map(|event| event["type"].to_string());
        hears.lock().expect("a lock").extend(kinds.map(|kind| (Instant::now(), kind)));
        stream.write_all(&answered("204 Taken", "")).is_ok()
    });
    let (server, _files) = telling(&receiver, "", "");
    let empty = || {
        let topics = server.get("/topics?topic=a").json();
        topics["subscribers"] == 0
    };
    // A page that is loaded anew, five times.
    for _ in 0..5 {
        let peer = server.websocket("/ws/a");
        drop(peer);
        wait_for("it to be empty", empty);
    }
    let left = Instant::now();
    let kinds = || heard.lock().expect("a lock").iter().map(|(_, kind)| kind.clone()).collect::<Vec<_>>();
    wait_for("the end of it", || kinds().contains(&"\"vacated\"".to_owned()));
    assert_eq!(kinds(), ["\"occupied\"", "\"vacated\""], "once each");
    let told = heard.lock().expect("a lock")[1].0;
    // The topic was empty a moment before that was seen here.
    let after = told.duration_since(left);
    assert!(after >= Duration::from_millis(2_500), "{after:?}");
}
