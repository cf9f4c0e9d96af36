//! The publisher: as many connections as the rate needs, its own limits told as its own, nothing added to what was given.

use std::time::Duration;

use serde_json::{Value, json};

use crate::rooms::Rooms;
use crate::{error, run};

/// What a server takes to answer a post.
const DELAY: Duration = Duration::from_millis(20);

fn fanout(rooms: &Rooms, rate: &str, more: &[&str]) -> (i32, Value, String) {
    let url = format!("ws://{}/ws/{{topic}}", rooms.ws);
    let publish = format!("http://{}/publish/{{topic}}", rooms.http);
    let mut args = vec!["fanout", "--url", &url, "--publish-url", &publish, "--connections", "3"];
    args.extend(["--rate", rate, "--duration", "1s"]);
    args.extend(more);
    run(&args)
}

/// Slow answers hold up nobody, or the result says that the publisher was the limit; never both well and late.
#[track_caller]
fn assert_open_loop(rate: &str) {
    // On a machine that is busy with other work a run may be late for reasons of its own, and says so.
    let mut said = String::new();
    for attempt in 0..10 {
        let (code, report, table) = fanout(&Rooms::start(DELAY), rate, &[]);
        let p50 = report["latency"]["p50_microseconds"].as_f64().unwrap() / 1e3;
        let saturated = report["problems"].to_string().contains("publisher saturated");
        assert_eq!(code == 0, report["ok"] == true);
        assert!(!(code == 0 && saturated), "{table}");
        assert_eq!(
            (&report["missing"], &report["reordered"], &report["duplicate"]),
            (&json!(0), &json!(0), &json!(0)),
            "{table}"
        );
        // What the server took in this run, however busy the machine is.
        let answer = report["publish_latency"]["p50_microseconds"].as_f64().unwrap() / 1e3;
        let achieved = report["published_per_second"].as_f64().unwrap();
        let on_time = p50 >= 20.0 && answer >= 20.0 && p50 <= answer * 1.1 + 2.0;
        let as_asked = on_time && achieved > rate.parse::<f64>().unwrap() * 0.95;
        // Where the machine lets it send nothing in time, not once, it was late by itself, and for want of no connection.
        let by_itself = attempt == 9 && report["generator"]["waited_share"] == 0.0;
        if code == 0 && (as_asked || by_itself) {
            assert!(table.contains("answered in") && table.contains("on connections"), "{table}");
            return;
        }
        said = table;
    }
    panic!("{said}");
}

#[test]
fn a_server_with_slow_answers_is_not_blamed_for_one_connection() {
    for rate in ["40", "100", "200"] {
        assert_open_loop(rate);
    }
}

#[test]
fn a_thousand_posts_a_second_are_on_time_or_said_to_be_late() {
    let (code, report, table) = fanout(&Rooms::start(DELAY), "1000", &[]);
    let p50 = |of: &str| report[of]["p50_microseconds"].as_f64().unwrap() / 1e3;
    // Against what the server took in this run, however busy the machine is.
    let on_time = p50("latency") <= p50("publish_latency") * 1.1 + 2.0;
    let saturated = report["problems"].to_string().contains("publisher saturated");
    // Where the machine let the generator itself wait, it says that.
    let own = report["generator"]["bottleneck"].as_array().is_some_and(|reasons| !reasons.is_empty());
    assert!(on_time || saturated || own, "{table}");
    assert_eq!(code == 0, !saturated, "{table}");
    assert_eq!((&report["missing"], &report["reordered"]), (&json!(0), &json!(0)), "{table}");
}

#[test]
fn a_kept_connection_that_the_server_ended_takes_no_message() {
    // It ends every connection that had nothing to do for a fifth of a second.
    let (listener, address) = crate::listen();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
                let mut chunk = [0; 4096];
                while stream.read(&mut chunk).is_ok_and(|count| count > 0) {
                    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
                }
            });
        }
    });
    let rooms = Rooms::start(Duration::ZERO);
    let url = format!("ws://{}/ws/{{topic}}", rooms.ws);
    let publish = format!("http://{address}/");
    let mut args = vec!["fanout", "--url", &url, "--publish-url", &publish, "--connections", "1"];
    args.extend(["--rate", "1", "--duration", "3s", "--wait-late", "100ms"]);
    let (_, report, table) = run(&args);
    // Nothing is delivered there; but it is known that each message was taken.
    assert_eq!((&report["published"], &report["published_unknown"]), (&json!(3), &json!(0)), "{table}");
    assert_eq!(report["publish_errors"], json!({}), "{table}");
}

#[test]
fn a_publisher_with_too_few_connections_says_so_and_fails() {
    let (code, report, table) = fanout(&Rooms::start(DELAY), "100", &["--publishers", "1"]);
    assert_eq!(
        (code, &report["ok"], &report["publish_connections"]),
        (1, &json!(false), &json!(1)),
        "{table}"
    );
    assert_waited(&report, &table);
    assert!(report["generator"]["bottleneck"].to_string().contains("publisher saturated"), "{table}");
    // Nobody else is blamed for it, and the wait is told from where it began to grow.
    let found = &report["findings"];
    assert_eq!(found["fault"], "generator", "{found:#}");
    assert!(found["findings"].to_string().contains("(--publishers says how many"), "{found:#}");
    assert!(found["stalls"][0]["waited"].as_u64().unwrap() > 10, "{found:#}");
    assert!(report["generator"]["waited_share"].as_f64().unwrap() > 0.5, "{table}");
    assert!(report["published_per_second"].as_f64().unwrap() < 60.0, "{table}");
    assert_eq!((&report["missing"], &report["published"]), (&json!(0), &json!(100)), "late, but not lost");
}

#[test]
fn a_short_run_whose_messages_wait_is_saturated_too() {
    // Twelve messages in a fifth of a second, on a connection that carries ten at most: the last leaves 40 ms late.
    let rooms = Rooms::start(DELAY);
    let url = format!("ws://{}/ws/{{topic}}", rooms.ws);
    let publish = format!("http://{}/publish/{{topic}}", rooms.http);
    let mut args = vec!["fanout", "--url", &url, "--publish-url", &publish, "--connections", "1"];
    args.extend(["--rate", "60", "--duration", "200ms", "--publishers", "1"]);
    let (code, report, table) = run(&args);
    assert_eq!((code, &report["missing"], &report["published"]), (1, &json!(0), &json!(12)), "{table}");
    assert_waited(&report, &table);
}

/// It is not ok, because messages waited.
#[track_caller]
fn assert_waited(report: &Value, table: &str) {
    let problems = report["problems"].to_string();
    assert!(
        problems.contains("publisher saturated: ") && problems.contains("waited until one of"),
        "{table}"
    );
    assert_eq!(report["ok"], false, "{table}");
}

#[test]
fn a_publisher_that_is_hardly_too_slow_is_never_both_ok_and_late() {
    // One connection carries less than fifty a second, so that the last of sixty leaves a fifth of a second late or more:
    // nearly as many as were asked, and each of them late.
    let (code, report, table) = fanout(&Rooms::start(DELAY), "60", &["--publishers", "1"]);
    assert_eq!((code, &report["missing"], &report["published"]), (1, &json!(0), &json!(60)), "{table}");
    assert_waited(&report, &table);
}

#[test]
fn a_publisher_of_rolling_that_waits_is_saturated_too() {
    // More at once than there are connections for, before the first is answered.
    let rooms = Rooms::start(Duration::from_millis(700));
    let url = format!("ws://{}/ws/{{topic}}", rooms.ws);
    let publish = format!("http://{}/publish/{{topic}}", rooms.http);
    let mut args = vec!["rolling", "--url", &url, "--publish-url", &publish, "--connections", "1"];
    args.extend(["--rate", "1000", "--duration", "400ms"]);
    let (code, report, table) = run(&args);
    assert_eq!((code, &report["published"], &report["missing"]), (1, &json!(400), &json!(0)), "{table}");
    assert_waited(&report, &table);
}

#[test]
fn capacity_names_no_limit_of_the_generator_as_the_servers() {
    let rooms = Rooms::start(DELAY);
    let url = format!("ws://{}/ws/{{topic}}", rooms.ws);
    let publish = format!("http://{}/publish/{{topic}}", rooms.http);
    let mut args =
        vec!["capacity", "--step", "rate=2,200", "fanout", "--url", &url, "--publish-url", &publish];
    args.extend(["--connections", "1", "--duration", "1s", "--publishers", "1"]);
    let (code, report, table) = run(&args);
    assert_eq!((code, &report["highest_held"]), (0, &json!(2.0)), "{table}");
    assert_eq!(
        (&report["broke_at"], &report["limited_by_generator"]),
        (&json!(200.0), &json!(true)),
        "{table}"
    );
    assert!(
        table.contains("generator's own limit at  200") && !table.contains("first that broke"),
        "{table}"
    );
}

#[test]
fn a_request_has_the_headers_and_the_body_that_were_asked_for_and_nothing_else() {
    let rooms = Rooms::start(Duration::ZERO);
    let url = format!("ws://{}/ws/{{topic}}", rooms.ws);
    let publish = format!("http://{}/publish/{{topic}}?sig=s-not-told", rooms.http);
    let mut args = vec!["fanout", "--url", &url, "--publish-url", &publish, "--connections", "2"];
    args.extend(["--rate", "20", "--duration", "500ms", "--publish-method", "PUT", "--binary"]);
    args.extend(["--publish-header", "Authorization: Bearer T", "--publish-header", "X-N: {seq}/{topic}"]);
    args.extend(["--publish-body", r#"{"n":{seq},"to":"{topic|json}","size":{size},"data":"{marker}"}"#]);
    let (code, report, table) = run(&args);
    assert_eq!((code, &report["missing"], &report["deliveries"]), (0, &json!(0), &json!(20)), "{table}");
    let posted = rooms.posted();
    let topic = report["topic"].as_str().unwrap();
    // Two may be on their way at once, and come in any order.
    let head = posted.heads.iter().find(|head| head.contains("\r\nX-N: 9/")).expect("the last of ten");
    assert!(head.starts_with(&format!("PUT /publish/{topic}?sig=s-not-told HTTP/1.1\r\n")), "{head}");
    for line in [
        "Authorization: Bearer T".to_owned(),
        format!("X-N: 9/{topic}"),
        "Content-Type: application/json".into(),
    ] {
        assert!(head.contains(&format!("\r\n{line}\r\n")), "{line}: {head}");
    }
    let bodies = posted.bodies.iter().map(|body| serde_json::from_str(body).unwrap());
    let body: Value = bodies.into_iter().find(|body: &Value| body["n"] == 9).expect("the last of ten");
    assert_eq!((&body["n"], &body["to"], &body["size"]), (&json!(9), &json!(topic), &json!(64)), "{body}");
    assert_eq!(body["data"].as_str().unwrap().len(), 64);
    // Nobody who gets the result learns the secret.
    assert!(
        !report.to_string().contains("Bearer T") && !report.to_string().contains("s-not-told"),
        "{report:#}"
    );
}

#[test]
fn a_place_that_nobody_typed_is_named_with_its_flag() {
    let rooms = Rooms::start(Duration::ZERO);
    // Nothing listens on the port of a closed listener.
    let closed = crate::listen().1;
    let url = format!("ws://{}/ws/{{topic}}", rooms.ws);
    let publish = format!("http://{closed}/publish/{{topic}}");
    let mut args = vec!["fanout", "--url", &url, "--connections", "1", "--duration", "100ms"];
    args.extend(["--publish-url", &publish]);
    let given = error(1, &args);
    assert!(!given.contains("--publish-url"), "{given}");
    // The default place has a port of its own, which something may listen on here.
    let args = ["fanout", "--url", &url, "--connections", "1", "--duration", "100ms"];
    let output = crate::output(&args);
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.code() == Some(1) && said.contains("127.0.0.1:8081") {
        assert!(said.contains("no --publish-url was given") && said.contains("--publish ws"), "{said}");
    }
    let body = error(2, &["fanout", "--publish", "ws", "--publish-body", "{marker}"]);
    assert!(body.contains("--publish-body"), "{body}");
    let header =
        error(2, &["fanout", "--url", &url, "--publish-url", &publish, "--publish-header", "A: {nobody}"]);
    assert!(header.contains("--publish-header") && header.contains("{nobody}"), "{header}");
}

#[test]
fn a_server_that_says_no_is_quoted() {
    let (listener, address) = crate::listen();
    std::thread::spawn(move || {
        use std::io::{Read, Write};
        for stream in listener.incoming() {
            std::thread::spawn(move || {
                let mut stream = stream.unwrap();
                let _ = stream.read(&mut [0; 4096]);
                let answer =
                    "HTTP/1.1 403 Forbidden\r\nContent-Length: 11\r\nConnection: close\r\n\r\nbad key: k1";
                let _ = stream.write_all(answer.as_bytes());
            });
        }
    });
    let rooms = Rooms::start(Duration::ZERO);
    let url = format!("ws://{}/ws/{{topic}}", rooms.ws);
    let publish = format!("http://{address}/");
    let args =
        ["fanout", "--url", &url, "--publish-url", &publish, "--connections", "1", "--duration", "100ms"];
    let said = error(1, &args);
    assert!(said.contains("refused with status 403: bad key: k1"), "{said}");
}

#[test]
fn rolling_waits_for_no_answer_either() {
    // In a row, one second's messages would take five.
    let rooms = Rooms::start(Duration::from_millis(50));
    let url = format!("ws://{}/ws/{{topic}}", rooms.ws);
    let publish = format!("http://{}/publish/{{topic}}", rooms.http);
    let mut args = vec!["rolling", "--url", &url, "--publish-url", &publish, "--connections", "5"];
    args.extend(["--rate", "100", "--duration", "1s"]);
    let (code, report, table) = run(&args);
    for (field, count) in [("published", 100), ("deliveries", 500), ("missing", 0), ("duplicate", 0)] {
        assert_eq!(report[field], count, "{field}: {table}");
    }
    assert_eq!(code, 0, "{table}");
    let p50 = report["latency"]["p50_microseconds"].as_f64().unwrap() / 1e3;
    // In a row it would be two seconds.
    assert!((50.0..1_000.0).contains(&p50), "{table}");
    assert!(report["generator"]["waited_share"].as_f64().unwrap() < 0.5, "{table}");
}

#[test]
fn what_broke_off_on_a_kept_connection_is_posted_once_more_by_the_same_key() {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::sync::{Arc, Mutex};
    let (listener, address) = crate::listen();
    // All keys, and which of them was not answered.
    let keys = Arc::<Mutex<(Vec<String>, Option<String>)>>::default();
    let shared = keys.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let keys = shared.clone();
            std::thread::spawn(move || {
                let (mut stream, mut kept) = (stream.unwrap(), false);
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                loop {
                    let (mut len, mut key, mut line) = (0, String::new(), String::new());
                    while reader.read_line(&mut line).unwrap_or(0) > 2 {
                        let field = |name| line.strip_prefix(name).map(|value: &str| value.trim().to_owned());
                        key = field("Idempotency-Key: ").unwrap_or(key);
                        len = field("Content-Length: ").map_or(len, |len| len.parse().unwrap());
                        line.clear();
                    }
                    if len == 0 || reader.read_exact(&mut vec![0; len]).is_err() {
                        return;
                    }
                    // As where a process ends between two answers.
                    {
                        let (keys, broken) = &mut *keys.lock().unwrap();
                        keys.push(key.clone());
                        if keys.len() >= 10 && kept && broken.is_none() {
                            *broken = Some(key);
                            return;
                        }
                    }
                    kept = true;
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
                }
            });
        }
    });
    let rooms = Rooms::start(Duration::ZERO);
    let url = format!("ws://{}/ws/{{topic}}", rooms.ws);
    let publish = format!("http://{}/publish/{{topic}}", rooms.http);
    let breaking = format!("http://{address}/");
    let mut args = vec!["rolling", "--url", &url, "--publish-url", &publish, "--publish-url", &breaking];
    args.extend(["--connections", "3", "--rate", "20", "--duration", "1s"]);
    let (code, report, table) = run(&args);
    assert_eq!((code, &report["published"], &report["deliveries"]), (0, &json!(20), &json!(60)), "{table}");
    let server = &report["servers"][1];
    assert_eq!((&server["accepted"], &server["errors"]), (&json!(20), &json!({})), "{table}");
    let (keys, broken) = &*keys.lock().unwrap();
    let twice = keys.iter().filter(|key| broken.as_ref() == Some(key)).count();
    assert!(twice == 2 && keys.len() == 22, "{keys:?}");
}
