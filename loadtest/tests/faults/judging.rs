//! Counts, times and verdicts that were wrong at their edges.

use std::io::{Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::json;
use tungstenite::Message;

use crate::accept::accept;
use crate::rooms::Rooms;
use crate::scratch::Scratch;
use crate::{error, generator, listen, output, run};

fn echo_server() -> String {
    let (listener, address) = listen();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                let (mut socket, _) = accept(stream.unwrap());
                while let Ok(message) = socket.read() {
                    if message.is_text() {
                        socket.send(message).unwrap();
                    }
                }
            });
        }
    });
    format!("ws://{address}/echo")
}

#[test]
fn more_threads_than_connections_send_everything() {
    let url = echo_server();
    let mut args = vec!["echo", "--url", &url, "--threads", "8", "--connections", "5", "--rate", "10"];
    args.extend(["--duration", "1s"]);
    let (code, report, table) = run(&args);
    assert_eq!((code, &report["sent"], &report["unsent"]), (0, &json!(10), &json!(0)), "{table}");
    assert_eq!(report["generator"]["threads"], 5);
}

#[test]
fn opening_one_connection_takes_no_ten_milliseconds() {
    let url = echo_server();
    // The machine may be slow; the clock of the generator must not be.
    let took = (0..20).map(|_| {
        let (_, report, _) = run(&["idle", "--url", &url, "--connections", "1", "--duration", "10ms"]);
        let connections = &report["connections"];
        let opened = connections["open_seconds"].as_f64().unwrap();
        let latency = connections["connect_latency"]["max_microseconds"].as_f64().unwrap() / 1e6;
        (opened, opened - latency)
    });
    let best = took
        .map(|(opened, beyond)| (opened.min(0.009), beyond))
        .fold(f64::MAX, |best, (_, beyond)| best.min(beyond));
    assert!(best < 0.005, "{best} s beyond the connect itself");
}

#[test]
fn time_that_a_publisher_was_dead_for_counts() {
    // Messages for not quite a second, and nothing in the second behind it: the server is gone.
    let (listener, address) = listen();
    thread::spawn(move || {
        let mut subscribers = Vec::new();
        for stream in listener.incoming() {
            let (mut socket, path) = accept(stream.unwrap());
            if path != "/say" {
                subscribers.push(socket);
                continue;
            }
            // From the first message on; what comes before it are probes, whose number is all ones.
            let mut end = None;
            while end.is_none_or(|end| Instant::now() < end) {
                let Ok(Message::Text(text)) = socket.read() else { break };
                if &text[20..28] != "ffffffff" {
                    end.get_or_insert_with(|| Instant::now() + Duration::from_millis(700));
                }
                for subscriber in &mut subscribers {
                    let _ = subscriber.send(Message::text(text.to_string()));
                }
            }
            drop(socket);
            return thread::sleep(Duration::from_secs(60));
        }
    });
    let (url, publish) = (format!("ws://{address}/"), format!("ws://{address}/say"));
    let mut args = vec!["fanout", "--url", &url, "--publish", "ws", "--publish-url", &publish];
    args.extend(["--connections", "1", "--rate", "50", "--duration", "2s", "--wait-late", "1s"]);
    let (code, report, table) = run(&args);
    let rate = report["deliveries_per_second"].as_f64().unwrap();
    let deliveries = report["deliveries"].as_f64().unwrap();
    assert_eq!(code, 1, "{table}");
    // Over the two seconds that were planned, and not over those in which something came.
    assert!(rate <= deliveries / 2.0 * 1.01 && deliveries < 90.0, "{rate}: {table}");
}

#[test]
fn a_few_values_have_no_tail() {
    let url = echo_server();
    let (_, report, table) = run(&["idle", "--url", &url, "--connections", "4", "--duration", "10ms"]);
    let row = table.lines().find(|line| line.starts_with("connect latency")).unwrap();
    assert!(row.contains("n 4") && !row.contains("p90") && !row.contains("p99"), "{row}");
    assert_eq!(report["connections"]["connect_latency"]["count"], 4);
    let (_, _, table) =
        run(&["echo", "--url", &url, "--connections", "2", "--rate", "100", "--duration", "1500ms"]);
    let row = table.lines().find(|line| line.starts_with("round trip")).unwrap();
    assert!(row.contains("p99 ") && row.contains("n 150") && !row.contains("p99.9"), "{row}");
}

#[test]
fn a_file_that_can_not_be_written_is_told_before_the_run() {
    for flag in ["--json", "--html", "--hdr"] {
        let begun = Instant::now();
        let args = ["idle", "--url", "ws://127.0.0.1:9/", "--duration", "60s", flag, "/nonexistent/x"];
        let said = error(1, &args);
        assert!(said.contains(flag) && said.contains("/nonexistent/x"), "{said}");
        assert!(begun.elapsed() < Duration::from_secs(30), "only after the run");
    }
    // The attempt leaves nothing behind.
    let file = Scratch::new("never.json");
    let said = error(2, &["idle", "--url", "nothing", "--json", file.path()]);
    assert!(said.contains("nothing") && !std::fs::exists(file.path()).unwrap(), "{said}");
}

#[test]
fn nobody_waits_for_messages_when_everybody_is_gone() {
    let (listener, address) = listen();
    thread::spawn(move || {
        let mut subscribers = Vec::new();
        for stream in listener.incoming() {
            let (mut socket, path) = accept(stream.unwrap());
            if path != "/say" {
                subscribers.push(socket);
                continue;
            }
            for _ in 0..3 {
                let Ok(Message::Text(text)) = socket.read() else { return };
                for subscriber in &mut subscribers {
                    let _ = subscriber.send(Message::text(text.to_string()));
                }
            }
            subscribers.clear();
            let subscribers_gone = socket;
            thread::spawn(move || {
                let mut socket = subscribers_gone;
                while socket.read().is_ok() {}
            });
        }
    });
    let (url, publish) = (format!("ws://{address}/"), format!("ws://{address}/say"));
    let begun = Instant::now();
    let mut args = vec!["fanout", "--url", &url, "--publish", "ws", "--publish-url", &publish];
    args.extend(["--connections", "2", "--rate", "20", "--duration", "500ms", "--wait-late", "60s"]);
    let (code, report, table) = run(&args);
    assert_eq!((code, &report["connections"]["lost"]), (1, &json!(2)), "{table}");
    assert!(begun.elapsed() < Duration::from_secs(40), "it waited for {:?}", begun.elapsed());
}

#[test]
fn late_deliveries_are_late_and_not_missing_where_one_waits_for_them() {
    let rooms = Rooms::start(Duration::from_millis(1_500));
    let url = format!("ws://{}/ws/{{topic}}", rooms.ws);
    let publish = format!("http://{}/publish/{{topic}}", rooms.http);
    let mut args = vec!["fanout", "--url", &url, "--publish-url", &publish, "--connections", "2"];
    args.extend(["--rate", "10", "--duration", "500ms", "--wait-late", "20s"]);
    let (code, report, table) = run(&args);
    assert_eq!((code, &report["missing"], &report["deliveries"]), (0, &json!(0), &json!(10)), "{table}");
}

#[test]
fn files_of_capacity_may_be_named_behind_the_inner_command() {
    let url = echo_server();
    let file = Scratch::new("capacity.json");
    let step = ["capacity", "--step", "rate=20,40"];
    let inner = ["echo", "--url", &url, "--connections", "2", "--duration", "300ms", "--repeat", "2"];
    let junit = Scratch::new("capacity.xml");
    let named = ["--json", file.path(), "--junit", junit.path(), "--label", "nightly"];
    let said = generator(&step).args(inner).args(named).output().unwrap();
    assert_eq!(said.status.code(), Some(0), "{}", String::from_utf8_lossy(&said.stderr));
    let report = file.json();
    assert_eq!((&report["command"], &report["highest_held"]), (&json!("capacity"), &json!(40.0)));
    assert_eq!(report["steps"][0]["result"]["repeats"].as_array().unwrap().len(), 2);
    assert_eq!(report["label"], "nightly");
    assert!(
        junit.text().contains("<testsuite name=\"fantail-loadtest capacity: nightly\""),
        "{}",
        junit.text()
    );
    let other = Scratch::new("other.json");
    let said = generator(&step)
        .args(["--json", other.path()])
        .args(inner)
        .args(["--json", file.path()])
        .output()
        .unwrap();
    assert_eq!(said.status.code(), Some(2), "{}", String::from_utf8_lossy(&said.stderr));
}

#[test]
fn numbers_of_connections_have_short_forms_everywhere() {
    let output = output(&["idle", "--connections", "10k", "--plan", "--url", "ws://127.0.0.1:9/"]);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("connections               10000\n"), "{table}");
    for wrong in ["0", "x", "11m"] {
        error(2, &["idle", "--connections", wrong]);
    }
}

#[test]
fn examples_of_the_help_can_be_pasted() {
    let output = generator(&["--help"]).env("COLUMNS", "80").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let (_, examples) = text.split_once("Examples:").unwrap();
    let (examples, _) = examples.split_once("Latency is counted").unwrap();
    let (mut commands, mut open) = (0, false);
    for line in examples.lines() {
        assert!(line.len() <= 80, "{line}");
        if open {
            assert!(line.starts_with("      "), "a command goes on: {line}");
        } else if line.trim_start().starts_with("fantail-loadtest") {
            commands += 1;
        }
        open = line.ends_with('\\');
        // A shell would take a line that was broken by the terminal's width for two commands.
        assert!(!line.ends_with("--") && line.matches('\'').count() % 2 == 0, "{line}");
    }
    assert!(commands > 8, "{examples}");
}

#[test]
fn any_server_answers_pings_and_may_answer_only_the_last() {
    // It answers the last of each five.
    let (listener, address) = listen();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                let (mut socket, _) = accept(stream.unwrap());
                let stream = socket.get_mut();
                loop {
                    let mut pong = vec![0x8a, 125];
                    for _ in 0..5 {
                        let mut frame = [0; 2 + 4 + 125];
                        if stream.read_exact(&mut frame).is_err() {
                            return;
                        }
                        // RFC 6455 section 5.3: the client's payload is masked.
                        let (mask, payload) = frame[2..].split_at(4);
                        pong.truncate(2);
                        pong.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
                    }
                    stream.write_all(&pong).unwrap();
                }
            });
        }
    });
    let url = format!("ws://{address}/");
    let mut args = vec!["ping", "--url", &url, "--connections", "2", "--rate", "100", "--duration", "1s"];
    args.extend(["--size", "125"]);
    let (code, report, table) = run(&args);
    assert_eq!((code, &report["missing"], &report["sent"]), (0, &json!(0), &json!(100)), "{table}");
    assert_eq!((&report["returned"], &report["skipped"]), (&json!(20), &json!(80)), "{table}");
    assert_eq!(report["latency"]["count"], 20, "{table}");
    for wrong in ["15", "126", "x"] {
        error(2, &["ping", "--size", wrong]);
    }
}
