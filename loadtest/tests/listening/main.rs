//! Clients that listen by HTTP: event streams and long polls, against a small server that can lose and repeat for those
//! that come back, and against nchan where it is installed.

mod nchan;
#[path = "../real_server/mod.rs"]
mod real_server;
#[expect(dead_code, reason = "the other test program lists commands")]
#[path = "../reports/schema.rs"]
mod schema;
#[path = "../scratch/mod.rs"]
mod scratch;
mod server;
#[expect(dead_code, reason = "the other test program has servers of WebSockets")]
#[path = "../tls/servers.rs"]
mod servers;
#[path = "../../../tests/skip/mod.rs"]
mod skip;

use std::process::Command;

use scratch::Scratch;
use serde_json::{Value, json};
use server::{Server, Ways};
use servers::{Tls, certificate};

/// Runs the generator and returns the exit code, the result, and what it said.
#[track_caller]
fn run(args: &[&str]) -> (i32, Value, String) {
    let file = Scratch::new("listening.json");
    let mut generator = Command::new(env!("CARGO_BIN_EXE_fantail-loadtest"));
    let output = generator.args(args).args(["--json", file.path()]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(std::fs::exists(file.path()).unwrap(), "{said}");
    let table = String::from_utf8(output.stdout).unwrap() + &said;
    assert_eq!(schema::Schemas::load().errors(args[0], &file.json()), Vec::<String>::new());
    (output.status.code().unwrap(), file.json(), table)
}

/// `fanout` over a kind of client.
fn fanout(server: &Server, kind: &str, more: &[&str]) -> (i32, Value, String) {
    let place = &server.address;
    let (url, publish) =
        (format!("http://{place}/{kind}/{{topic}}"), format!("http://{place}/publish/{{topic}}"));
    let resume = format!("http://{place}/{kind}/{{topic}}?since={{position}}");
    let mut args = vec!["fanout", "--url", &url, "--publish-url", &publish];
    args.extend(["--connections", "10", "--rate", "100", "--duration", "1s"]);
    if kind == "poll" {
        args.extend(["--client", "poll", "--resume-url", &resume]);
    }
    run(&[&args, more].concat())
}

/// Everything of ten clients and a hundred messages has come, once and in order.
#[track_caller]
fn assert_exact((code, report, said): &(i32, Value, String), members: u64) {
    assert_eq!(*code, 0, "{said}");
    for (field, count) in [
        ("published", 100),
        ("deliveries_expected", members * 100),
        ("deliveries", members * 100),
        ("missing", 0),
        ("duplicate", 0),
        ("reordered", 0),
        ("corrupt", 0),
        ("foreign", 0),
        ("stray", 0),
    ] {
        assert_eq!(report[field], count, "{field}: {said}");
    }
}

#[test]
fn an_event_stream_is_read_however_it_is_written() {
    for ways in [
        Ways::default(),
        Ways { chunked: false, ..Ways::default() },
        Ways { line_end: "\r\n", preamble: "\u{feff}: hello\n\n", ..Ways::default() },
        Ways { line_end: "\r", chunked: false, preamble: "", ..Ways::default() },
    ] {
        let server = Server::start(ways.clone());
        let outcome = fanout(&server, "sse", &[]);
        assert_exact(&outcome, 10);
        assert_eq!(outcome.1["unchanged"], 1000, "{ways:?}: {}", outcome.2);
        let heads = server.heads();
        assert!(
            heads.len() == 10 && heads.iter().all(|head| head.contains("\r\nAccept: text/event-stream\r\n"))
        );
        assert!(!heads.iter().any(|head| head.contains("Last-Event-ID")), "{heads:?}");
    }
}

#[test]
fn polls_follow_each_other_without_a_hole() {
    for ways in [
        Ways::default(),
        Ways { chunked: false, ..Ways::default() },
        Ways { closes: true, ..Ways::default() },
    ] {
        let server = Server::start(ways.clone());
        let outcome = fanout(&server, "poll", &[]);
        assert_exact(&outcome, 10);
        assert_eq!(outcome.1["connections"]["opened"], 10, "{ways:?}: {}", outcome.2);
        let heads = server.heads();
        assert!(
            heads.len() > 20
                && heads.iter().filter(|head| head.contains("?since=")).count() >= heads.len() - 10
        );
    }
}

#[test]
fn a_poll_goes_on_by_whatever_its_answer_says() {
    let server = Server::start(Ways::default());
    let url = format!("http://{}/poll/{{topic}}", server.address);
    let publish = format!("http://{}/publish/{{topic}}", server.address);
    let mut args = vec!["fanout", "--client", "poll", "--url", &url, "--publish-url", &publish];
    args.extend(["--position", "(?i)fantail-position: (?<at>[0-9]+)", "--header", "X-Since: {at}"]);
    args.extend(["--connections", "10", "--rate", "100", "--duration", "1s"]);
    assert_exact(&run(&args), 10);
    let heads = server.heads();
    assert_eq!(heads.iter().filter(|head| !head.contains("X-Since: ")).count(), 10, "{heads:?}");
}

#[test]
fn who_is_dropped_comes_back_and_gets_what_it_missed() {
    for kind in ["sse", "poll"] {
        let server = Server::start(Ways::default());
        let outcome = fanout(&server, kind, &["--resume", "--drop-rate", "50", "--backoff", "200ms"]);
        assert_exact(&outcome, 10);
        let (_, report, said) = outcome;
        let resumed = &report["resumed"];
        assert!(resumed["dropped"].as_u64() >= Some(20), "{kind}: {said}");
        assert_eq!((&resumed["returned"], &resumed["unserved"]), (&resumed["dropped"], &json!(0)), "{said}");
        assert!(said.contains("  resumed"), "{said}");
    }
}

#[test]
fn a_stream_that_ends_is_gone_on_with() {
    for (ways, ending) in [
        (Ways { ends_behind: Some(15), ..Ways::default() }, "lost_end_of_stream"),
        (Ways { ends_behind: Some(15), chunked: false, ..Ways::default() }, "lost_eof"),
    ] {
        let server = Server::start(ways.clone());
        let outcome = fanout(&server, "sse", &["--resume"]);
        assert_exact(&outcome, 10);
        let resumed = &outcome.1["resumed"];
        assert!(resumed["endings"][ending].as_u64() >= Some(50), "{}", outcome.2);
        // As `retry` says, and not when the flag would have it.
        assert!(resumed["away"]["p50_microseconds"].as_f64() >= Some(20_000.0), "{}", outcome.2);
        // Without it these are losses.
        let (code, report, said) = fanout(&Server::start(ways), "sse", &[]);
        assert_eq!((code, &report["connections"]["errors"]), (1, &json!({ ending: 10 })), "{said}");
    }
}

#[test]
fn over_tls_both_resume_too() {
    for kind in ["sse", "poll"] {
        let ways = Ways { ends_behind: (kind == "sse").then_some(20), closes: true, ..Ways::default() };
        let server = Server::start_secure(&Tls::new("server"), ways);
        let place = server.address.replace("127.0.0.1", "localhost");
        let [url, publish] = [kind, "publish"].map(|path| format!("https://{place}/{path}/{{topic}}"));
        let resume = format!("{url}?since={{position}}");
        let ca = certificate("ca.pem");
        let mut args = vec!["fanout", "--client", kind, "--url", &url, "--resume-url", &resume, "--ca", &ca];
        args.extend(["--publish-url", &publish, "--resume", "--drop-rate", "30"]);
        args.extend(["--connections", "10", "--rate", "100", "--duration", "1s"]);
        let outcome = run(&args);
        assert_exact(&outcome, 10);
        assert!(outcome.1["tls"]["handshakes"].as_u64() >= Some(30), "{:#}", outcome.1["tls"]);
    }
}

#[test]
fn fantail_loses_nothing_for_streams_and_polls_that_come_back() {
    let file = Scratch::new("history.toml");
    std::fs::write(file.path(), "[[topic]]\npattern = \"load-*\"\nhistory_messages = 1000\n").unwrap();
    let fantail = real_server::fantail().display();
    let server =
        format!("'{fantail}' serve --config '{}' --listen 127.0.0.1:0 --admin 127.0.0.1:0", file.path());
    // Where its clients go is known without a URL.
    for client in ["sse", "poll"] {
        let mut args = vec!["fanout", "--client", client, "--server", &server, "--connections", "10"];
        args.extend(["--rate", "100", "--duration", "1s", "--resume", "--drop-rate", "50"]);
        args.extend(["--backoff", "200ms"]);
        let outcome = run(&args);
        assert_exact(&outcome, 10);
        assert!(outcome.1["resumed"]["dropped"].as_u64() >= Some(20), "{}", outcome.2);
        assert!(outcome.1["url"].as_str().unwrap().contains(&format!("/{client}/")), "{}", outcome.2);
    }
}

#[test]
fn rolling_clients_go_on_where_they_were() {
    let server = Server::start(Ways { ends_behind: Some(15), ..Ways::default() });
    let [url, publish] = ["sse", "publish"].map(|path| format!("http://{}/{path}/{{topic}}", server.address));
    let mut args = vec!["rolling", "--url", &url, "--publish-url", &publish, "--connections", "10"];
    args.extend(["--rate", "100", "--duration", "1s"]);
    let resumes = [&args[..], &["--resume"]].concat();
    let (_, report, said) = run(&resumes);
    for (field, count) in
        [("deliveries", 1000), ("missing", 0), ("away_missed", 0), ("duplicate", 0), ("unserved", 0)]
    {
        assert_eq!(report[field], count, "{field}: {said}");
    }
    assert!(report["left"].as_u64() >= Some(50), "{said}");
    // Nor does a stream's last ID count for nothing without it: it is what a client of streams says.
    // A server whose threads wait for a processor for longer than any message took has not sent all by the end of a stream.
    let (_, report, said) = run(&args);
    let starved = report["latency"]["p50_microseconds"].as_f64() > Some(10_000.0);
    assert!(report["missing"] == 0 || starved, "{said}");
    let number = |field: &str| report[field].as_u64().unwrap();
    assert_eq!(number("deliveries") + number("away_missed") + number("missing"), 1000, "{said}");
}

#[test]
fn results_with_resumed_clients_can_be_merged() {
    let server = Server::start(Ways::default());
    let [url, publish] = ["sse", "publish"].map(|path| format!("http://{}/{path}/{{topic}}", server.address));
    let files = [Scratch::new("one.json"), Scratch::new("two.json")];
    for file in &files {
        let mut generator = Command::new(env!("CARGO_BIN_EXE_fantail-loadtest"));
        generator.args(["fanout", "--url", &url, "--publish-url", &publish, "--resume", "--drop-rate", "20"]);
        generator.args(["--connections", "5", "--rate", "50", "--duration", "1s", "--json", file.path()]);
        assert!(generator.output().unwrap().status.success());
    }
    let (_, merged, said) = run(&["merge", files[0].path(), files[1].path()]);
    let of = |file: &Scratch, field: &str| file.json()["resumed"][field].as_u64().unwrap();
    for field in ["dropped", "returned", "unserved"] {
        let sum = of(&files[0], field) + of(&files[1], field);
        assert_eq!(merged["resumed"][field], sum, "{field}: {said}");
    }
}

#[test]
fn what_is_lost_or_repeated_between_two_connections_is_told_exactly() {
    for (skips, wrong, right) in [(1, "missing", "duplicate"), (-1, "duplicate", "missing")] {
        let server = Server::start(Ways { skips, ends_behind: Some(15), ..Ways::default() });
        let (code, report, said) = fanout(&server, "sse", &["--resume"]);
        assert_eq!(code, 1, "{said}");
        let heads = server.heads();
        let ids = heads.iter().filter_map(|head| head.split_once("Last-Event-ID: ")?.1.lines().next());
        // Behind the last message there is nothing to leave out.
        let expected =
            ids.filter(|id| id.parse::<usize>().unwrap() < server.published() || skips < 0).count();
        assert!(expected >= 50, "{heads:?}");
        assert_eq!((&report[wrong], &report[right]), (&json!(expected), &json!(0)), "{said}");
    }
}

#[test]
fn what_polls_lose_or_repeat_is_told_exactly() {
    for (fiftieth, wrong, right) in [(0, "missing", "duplicate"), (2, "duplicate", "missing")] {
        let server = Server::start(Ways { fiftieth, ..Ways::default() });
        let (code, report, said) = fanout(&server, "poll", &["--resume", "--drop-rate", "50"]);
        assert_eq!((code, &report[wrong], &report[right]), (1, &json!(10), &json!(0)), "{said}");
    }
}

#[test]
fn what_is_no_event_stream_is_told_with_what_it_is() {
    for (answer, name, says) in [
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 8\r\n\r\nno topic", "answer_status_404", "no topic"),
        ("HTTP/1.1 204 No Content\r\n\r\n", "answer_status_204", "no client to come back"),
        ("HTTP/1.1 302 Found\r\nLocation: /there\r\n\r\n", "answer_status_302", "leads to /there"),
        ("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n<html>", "answer_no_event_stream", "text/html"),
        (
            "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\n\r\n",
            "answer_no_event_stream",
            "Content-Encoding is gzip",
        ),
        ("SSH-2.0-OpenSSH_9.2\r\n", "upgrade_not_http", "SSH-2.0"),
    ] {
        let server = Server::start(Ways { answer: Some(answer), ..Ways::default() });
        let url = format!("http://{}/sse/a", server.address);
        let (code, report, said) = run(&["idle", "--url", &url, "--connections", "3", "--duration", "100ms"]);
        assert_eq!((code, &report["connections"]["errors"]), (1, &json!({ name: 3 })), "{said}");
        assert!(report["connections"]["advice"].to_string().contains(says), "{answer:?}: {report:#}");
    }
    let interim =
        "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
    let server = Server::start(Ways { answer: Some(interim), ..Ways::default() });
    let url = format!("http://{}/sse/a", server.address);
    let (_, report, said) = run(&["idle", "--url", &url, "--connections", "3", "--duration", "100ms"]);
    assert_eq!(report["connections"]["opened"], 3, "{said}");
}

#[test]
fn what_can_not_work_is_refused_before_anything_is_opened() {
    for (wrong, says) in [
        (&["echo", "--url", "http://127.0.0.1:1/"][..], "do not speak"),
        (&["fanout", "--url", "http://127.0.0.1:1/", "--size", "32"], "carry text"),
        (&["idle", "--url", "http://127.0.0.1:1/", "--hello", "x"], "--hello"),
        (&["idle", "--url", "ws://127.0.0.1:1/", "--client", "sse"], "need http://"),
        (&["idle", "--url", "http://127.0.0.1:1/", "--client", "ws"], "need ws://"),
        (&["idle", "--url", "http://127.0.0.1:1/", "--client", "poll"], "--resume-url"),
        (&["idle", "--url", "http://127.0.0.1:1/", "--preset", "mqtt"], "--preset"),
        (&["idle", "--url", "http://127.0.0.1:1/", "--deflate"], "--deflate"),
        (&["idle", "--url", "ws://127.0.0.1:1/", "--resume-url", "http://127.0.0.1:1/"], "--resume-url"),
        (&["fanout", "--url", "ws://127.0.0.1:1/", "--resume"], "--resume"),
        (&["fanout", "--url", "http://127.0.0.1:1/", "--drop-rate", "5"], "--resume"),
        (&["slow", "--url", "http://127.0.0.1:1/", "--resume"], "--resume"),
        (
            &["idle", "--url", "http://127.0.0.1:1/", "--resume-url", "http://127.0.0.1:2/{position}"],
            "not on the server",
        ),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_fantail-loadtest")).args(wrong).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && error.contains(says), "{wrong:?}: {error}");
    }
}
