//! Several topics: who gets what is known exactly, and what goes elsewhere is told.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::accept::accept;
use crate::real_server::fantail;
use crate::rooms::Rooms;
use crate::scratch::Scratch;
use crate::{error, listen, run};

fn fanout(rooms: &Rooms, url: &str, by_ws: bool, more: &[&str]) -> (i32, Value, String) {
    let url = format!("ws://{}{url}", rooms.ws);
    let publish = match by_ws {
        true => format!("ws://{}/say/{{topic}}", rooms.ws),
        false => format!("http://{}/publish/{{topic}}", rooms.http),
    };
    let how = if by_ws { "ws" } else { "http" };
    let mut args = vec!["fanout", "--url", &url, "--publish", how, "--publish-url", &publish];
    args.extend(["--duration", "1s"]);
    args.extend(more);
    run(&args)
}

#[track_caller]
fn assert_exact(outcome: &(i32, Value, String), expected: u64, subscribed: u64) {
    let (code, report, table) = outcome;
    assert_eq!(*code, 0, "{table}");
    for (field, count) in [
        ("deliveries_expected", expected),
        ("deliveries", expected),
        ("missing", 0),
        ("duplicate", 0),
        ("reordered", 0),
        ("stray", 0),
        ("foreign", 0),
        ("subscribed", subscribed),
    ] {
        assert_eq!(report[field], count, "{field}: {table}");
    }
    assert_eq!(report["latency"]["count"], expected);
}

#[test]
fn each_topic_has_its_members_and_each_member_its_messages() {
    for by_ws in [false, true] {
        let rooms = Rooms::start(Duration::ZERO);
        let more =
            ["--topics", "8", "--members", "5", "--connections", "40", "--rate", "80", "--threads", "2"];
        let outcome = fanout(&rooms, "/ws/{topic}", by_ws, &more);
        // Ten messages to each of eight topics, five members each.
        assert_exact(&outcome, 8 * 10 * 5, 40);
        assert_eq!((&outcome.1["topics"], &outcome.1["topic"]), (&json!(8), &json!(null)));
        assert_eq!(outcome.1["fan_outs_complete"], 80, "{}", outcome.2);
    }
}

#[test]
fn a_connection_can_be_in_several_topics() {
    let rooms = Rooms::start(Duration::ZERO);
    let more = ["--topics", "10", "--members", "6", "--connections", "20", "--rate", "100", "--threads", "3"];
    let outcome = fanout(&rooms, "/ws?topic={topics:&topic=}", false, &more);
    assert_exact(&outcome, 10 * 10 * 6, 60);
    assert_eq!(outcome.1["topics_per_connection"], 3);
}

#[test]
fn rooms_of_a_file_get_exactly_their_own() {
    let file = Scratch::new("rooms.csv");
    std::fs::write(file.path(), "user,room\nann,red\nbob,blue\ncyd,red\n").unwrap();
    let rooms = Rooms::start(Duration::ZERO);
    let url = format!("ws://{}/ws/{{room}}", rooms.ws);
    let publish = format!("ws://{}/say/{{room}}", rooms.ws);
    let mut args = vec!["fanout", "--url", &url, "--publish", "ws", "--publish-url", &publish];
    args.extend(["--vars", file.path(), "--topic-column", "room", "--connections", "10"]);
    args.extend(["--rate", "20", "--duration", "1s"]);
    // Rows in turn: 7 in the red room, 3 in the blue one, and ten messages to each.
    assert_exact(&run(&args), 10 * 10, 10);
}

#[test]
fn a_file_that_puts_clients_apart_is_understood_without_a_flag() {
    let file = Scratch::new("rooms.csv");
    std::fs::write(file.path(), "room\nred\nblue\n").unwrap();
    let rooms = Rooms::start(Duration::ZERO);
    let url = format!("ws://{}/ws/{{room}}", rooms.ws);
    let publish = format!("ws://{}/say/{{room}}", rooms.ws);
    let mut args = vec!["fanout", "--url", &url, "--publish", "ws", "--publish-url", &publish];
    args.extend(["--vars", file.path(), "--connections", "10", "--rate", "20", "--duration", "1s"]);
    let outcome = run(&args);
    assert_exact(&outcome, 10 * 5 + 10 * 5, 10);
    assert_eq!(outcome.1["topics"], 2);
}

#[test]
fn what_goes_to_another_topic_is_told() {
    let rooms = Rooms::start_as(Duration::ZERO, true);
    let more = ["--topics", "2", "--members", "3", "--connections", "6", "--rate", "20"];
    let (code, report, table) = fanout(&rooms, "/ws/{topic}", false, &more);
    assert_eq!((code, &report["missing"], &report["deliveries"]), (1, &json!(0), &json!(60)), "{table}");
    // Ten messages and at least one probe to each of three.
    assert!(report["stray"].as_u64().unwrap() >= 30, "{table}");
    assert!(report["problems"].to_string().contains("nobody owed them"), "{table}");
}

#[test]
fn topics_that_do_not_fit_are_usage_errors() {
    for (args, says) in [
        (&["--topics", "2", "--members", "11", "--connections", "10"][..], "only 10 connections"),
        (&["--topics", "2", "--members", "2", "--connections", "10"], "--connections 4"),
        (&["--topics", "0"], "--topics"),
        (&["--topic-column", "room"], "--vars"),
    ] {
        let said = error(2, &[&["fanout", "--url", "ws://127.0.0.1:9/ws/{topic}"], args].concat());
        assert!(said.contains(says), "{args:?}: {said}");
    }
}

#[test]
fn clients_that_come_back_have_topics_too() {
    let rooms = Rooms::start(Duration::ZERO);
    let url = format!("ws://{}/ws/{{topic}}", rooms.ws);
    let publish = format!("http://{}/publish/{{topic}}", rooms.http);
    let topics = ["--topics", "4", "--members", "5", "--connections", "20"];
    let rolling = ["rolling", "--url", &url, "--publish-url", &publish, "--rate", "40", "--duration", "1s"];
    let (code, report, table) = run(&[&rolling[..], &topics].concat());
    assert_eq!((code, &report["deliveries"]), (0, &json!(4 * 10 * 5)), "{table}");
    assert_eq!((&report["missing"], &report["away_missed"]), (&json!(0), &json!(0)), "{table}");
    let storm = ["storm", "--url", &url, "--bystander", "none", "--duration", "50ms"];
    let (code, report, table) = run(&[&storm[..], &topics].concat());
    assert_eq!((code, &report["returned"]), (0, &json!(20)), "{table}");
}

/// `rolling` with 20 clients in three topics each, of ten topics with six members, 300 messages in all. The server sends
/// everybody away in between.
fn rolling_in_several_topics(forgets: bool) -> (i32, Value, String, Rooms) {
    let rooms = Rooms::start(Duration::ZERO);
    let url = format!("ws://{}/ws?topic={{topics:&topic=}}", rooms.ws);
    let publish = format!("http://{}/publish/{{topic}}", rooms.http);
    let server = rooms.clone();
    let restarts = thread::spawn(move || {
        let deadline = Instant::now() + Duration::from_secs(60);
        while server.delivered() < 300 {
            assert!(Instant::now() < deadline, "no messages came");
            thread::park_timeout(Duration::from_millis(2));
        }
        server.send_away(forgets);
    });
    let mut args = vec!["rolling", "--url", &url, "--publish-url", &publish, "--rate", "100"];
    args.extend(["--duration", "3s", "--backoff", "20ms", "--threads", "2"]);
    args.extend(["--topics", "10", "--members", "6", "--connections", "20"]);
    let (code, report, table) = run(&args);
    restarts.join().unwrap();
    assert_eq!((&report["topics"], &report["topics_per_connection"]), (&json!(10), &json!(3)), "{table}");
    assert_eq!((&report["subscribed"], &report["published"]), (&json!(60), &json!(300)), "{table}");
    assert_eq!((&report["left"], &report["returned"]), (&json!(20), &json!(20)), "{table}");
    let number = |field: &str| report[field].as_u64().unwrap();
    // Each member has got, has missed, or was away for each message of each of its topics.
    assert_eq!(number("deliveries") + number("missing") + number("away_missed"), 300 * 6, "{table}");
    assert_eq!(number("deliveries") + number("again"), rooms.delivered(), "{table}");
    (code, report, table, rooms)
}

#[test]
fn what_a_client_misses_is_told_topic_by_topic() {
    let (code, report, table, _) = rolling_in_several_topics(false);
    assert_eq!((code, &report["missing"], &report["duplicate"]), (0, &json!(0), &json!(0)), "{table}");
    // One topic of three is silent: all others go on, so that nothing but its messages is missing.
    let (code, report, table, _) = rolling_in_several_topics(true);
    let missing = report["missing"].as_u64().unwrap();
    assert!(code == 1 && (20..20 * 30).contains(&missing), "{table}");
    assert!(report["problems"].to_string().contains("missing while connected"), "{table}");
    assert_eq!((&report["duplicate"], &report["stray"]), (&json!(0), &json!(0)), "{table}");
}

/// `storm` with 20 clients in three topics each, of ten topics with six members.
fn storm_in_several_topics(url: &str, publish: &str, more: &[&str]) -> (i32, Value, String) {
    let mut args = vec!["storm", "--url", url, "--publish-url", publish, "--bystander", "none"];
    args.extend(["--topics", "10", "--members", "6", "--connections", "20", "--threads", "2"]);
    args.extend(["--duration", "50ms"]);
    args.extend(more);
    let (code, report, table) = run(&args);
    assert_eq!((&report["dropped"], &report["returned"]), (&json!(20), &json!(20)), "{table}");
    assert_eq!((&report["subscribed"], &report["stray"]), (&json!(60), &json!(0)), "{table}");
    (code, report, table)
}

#[test]
fn after_a_storm_everybody_has_to_be_in_its_topics_again() {
    let server = format!("'{}' serve --listen 127.0.0.1:0 --admin 127.0.0.1:0", fantail().display());
    let (url, publish) = ("ws://{listen}/ws?topic={topics:&topic=}", "http://{admin}/publish/{topic}");
    let (code, report, table) = storm_in_several_topics(url, publish, &["--server", &server]);
    assert_eq!((code, &report["subscribed_again"]), (0, &json!(60)), "{table}");

    // Open again, and in two of its three topics.
    let rooms = Rooms::start(Duration::ZERO);
    let (url, publish) = (
        format!("ws://{}/ws?topic={{topics:&topic=}}", rooms.ws),
        format!("http://{}/publish/{{topic}}", rooms.http),
    );
    rooms.forget_behind(20);
    let (code, report, table) = storm_in_several_topics(&url, &publish, &[]);
    let again = report["subscribed_again"].as_u64().unwrap();
    assert_eq!((code, again), (1, 40), "{table}");
    let says = "20 subscriptions saw no message after the storm";
    assert!(report["problems"].to_string().contains(says), "{table}");
}

#[test]
fn clients_of_rolling_get_nothing_of_other_topics() {
    let rooms = Rooms::start_as(Duration::ZERO, true);
    let url = format!("ws://{}/ws/{{topic}}", rooms.ws);
    let publish = format!("http://{}/publish/{{topic}}", rooms.http);
    let mut args = vec!["rolling", "--url", &url, "--publish-url", &publish, "--rate", "20"];
    args.extend(["--duration", "1s", "--topics", "2", "--members", "3", "--connections", "6"]);
    let (code, report, table) = run(&args);
    assert_eq!((code, &report["missing"], &report["deliveries"]), (1, &json!(0), &json!(60)), "{table}");
    assert!(report["stray"].as_u64().unwrap() >= 30, "{table}");
}

#[test]
fn slow_subscribers_of_several_topics_are_counted_apart() {
    let rooms = Rooms::start(Duration::ZERO);
    let url = format!("ws://{}/ws?topic={{topics:&topic=}}", rooms.ws);
    let publish = format!("http://{}/publish/{{topic}}", rooms.http);
    let mut args = vec!["slow", "--url", &url, "--publish-url", &publish, "--slow-fraction", "0.1"];
    args.extend([
        "--topics",
        "10",
        "--members",
        "6",
        "--connections",
        "20",
        "--rate",
        "100",
        "--duration",
        "1s",
    ]);
    let outcome = run(&args);
    // Ten messages to each topic; two of twenty do not read, and each connection is in three topics.
    assert_exact(&outcome, 18 * 3 * 10, 60);
    let slow = &outcome.1["slow"];
    assert_eq!((&slow["connections"], &slow["deliveries"]), (&json!(2), &json!(0)), "{}", outcome.2);
    assert_eq!((&slow["caught_up"], &slow["missing"]), (&json!(2 * 3 * 10), &json!(0)), "{}", outcome.2);
    assert_eq!(outcome.1["fan_outs_complete"], 100, "{}", outcome.2);
}

#[test]
fn in_a_storm_everybody_comes_back_to_its_topics() {
    let (listener, address) = listen();
    let paths = Arc::<Mutex<Vec<String>>>::default();
    let shared = paths.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let paths = shared.clone();
            thread::spawn(move || {
                let (mut socket, path) = accept(stream.unwrap());
                paths.lock().unwrap().push(path);
                while socket.read().is_ok() {}
            });
        }
    });
    let url = format!("ws://{address}/ws?t={{topics:,}}");
    let mut args = vec!["storm", "--url", &url, "--bystander", "none", "--duration", "50ms"];
    args.extend(["--topics", "8", "--members", "5", "--connections", "20"]);
    let (code, report, table) = run(&args);
    assert_eq!((code, &report["returned"]), (0, &json!(20)), "{table}");
    let mut paths = paths.lock().unwrap().clone();
    paths.sort_unstable();
    let (first, second): (Vec<_>, Vec<_>) = paths.chunks(2).map(|pair| (&pair[0], &pair[1])).unzip();
    assert_eq!((first.len(), &first), (20, &second));
    assert!(paths.iter().all(|path| path.matches("load-").count() == 2), "{paths:?}");
}
