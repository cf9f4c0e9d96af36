//! Runs the binary against the real server, which it starts by itself, and against small servers where the
//! other end has to misbehave or to speak a protocol of its own. Every server ends with its test.

mod real_server;
#[path = "reports/schema.rs"]
#[expect(dead_code, reason = "the other test lists commands")]
mod schema;
mod small_servers;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fantail::sys::signals::{self, Signal};
use real_server::fantail;
use serde_json::Value;
use small_servers::{chat_server, echo_server, listen, refusing_server, silent_publish_server};
use tungstenite::handshake::server::{Request, Response};

const PATIENCE: Duration = Duration::from_secs(60);

/// `--server` with the real server on free ports; `environment` configures it.
fn server(environment: &str) -> String {
    let path = fantail().display();
    format!("env {environment} '{path}' serve --listen 127.0.0.1:0 --admin 127.0.0.1:0")
}

fn generator(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fantail-loadtest"));
    command.args(args);
    command
}

fn result_file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("kit-{name}-{}.json", std::process::id()))
}

fn take_result(file: &Path, output: &Output) -> Value {
    let text = std::fs::read_to_string(file)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    std::fs::remove_file(file).unwrap();
    serde_json::from_str(&text).unwrap()
}

/// Runs it and returns the exit code, the result file and standard output.
fn run(name: &str, args: &[&str]) -> (i32, Value, String) {
    let file = result_file(name);
    // In front of what follows a subcommand of `capacity`, whose `--json` is its own.
    let (command, rest) = args.split_first().unwrap();
    let output = generator(&[command, "--json", file.to_str().unwrap()]).args(rest).output().unwrap();
    let report = take_result(&file, &output);
    (output.status.code().unwrap(), report, String::from_utf8(output.stdout).unwrap())
}

/// A run that goes on until what it is there for has happened, however long that takes.
struct Running {
    child: Child,
    file: PathBuf,
}

impl Running {
    /// `command` takes a duration.
    fn start(name: &str, command: &[&str]) -> Self {
        let file = result_file(name);
        let mut generator = generator(command);
        generator.args(["--duration", "5m", "--json", file.to_str().unwrap()]);
        let child = generator.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
        Self { child, file }
    }

    /// Ends it as Ctrl-C does; its exit code and its result.
    fn end(mut self) -> (i32, Value) {
        let mut errors = self.child.stderr.take().unwrap();
        let rest = thread::spawn(move || {
            let mut rest = Vec::new();
            errors.read_to_end(&mut rest).map(|_| rest)
        });
        signals::send(self.child.id(), Signal::Interrupt).unwrap();
        let Output { status, stdout, .. } = wait(self.child);
        let output = Output { status, stdout, stderr: rest.join().unwrap().unwrap() };
        (status.code().unwrap(), take_result(&self.file, &output))
    }
}

#[test]
fn in_a_storm_everybody_comes_back_and_a_bystander_is_heard() {
    let server = server("A=b");
    let args = ["storm", "--server", &server, "--connections", "1000", "--duration", "200ms"];
    let (code, report, table) = run("storm", &args);
    assert_eq!((code, &report["ok"]), (0, &Value::from(true)), "{report:#}");
    for (field, count) in [("dropped", 1000), ("returned", 1000), ("unserved", 0), ("not_dropped", 0)] {
        assert_eq!(report[field], count, "{field}: {report:#}");
    }
    assert_eq!(report["connections"]["opened"], 1000);
    assert_eq!(report["connections"]["lost"], 0);
    assert_eq!(report["away"]["count"], 1000);
    assert_eq!(report["reconnect_latency"]["count"], 1000);
    assert!(report["served_again_seconds"].as_f64().unwrap() > 0.0);
    let away_max = report["away"]["max_microseconds"].as_f64().unwrap() / 1e6;
    let all = report["served_again_seconds"].as_f64().unwrap();
    assert!(away_max <= all * 1.01 + 0.01, "{away_max} of {all}");
    assert!(report["bystander"]["before"]["count"].as_u64().unwrap() > 0, "{report:#}");
    assert_eq!(report["bystander"]["missing"], 0);
    assert!(report["server_cpu_seconds"].as_f64().unwrap() > 0.0, "--server is watched as with --pid");
    assert!(table.contains("all served again in") && table.contains("was the bottleneck"), "{table}");
}

/// One of two real servers that share a port, with its admin port.
struct Sharing {
    child: Child,
    listen: String,
    admin: String,
}

impl Sharing {
    fn start(listen: &str) -> Self {
        let mut command = Command::new(fantail());
        command.args(["serve", "--share-port", "--loops", "1", "--listen", listen, "--admin", "127.0.0.1:0"]);
        command.env("FANTAIL_DRAIN_SECONDS", "0.5").stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let field =
            |name| line.split_whitespace().find_map(|word| word.strip_prefix(name)).unwrap().to_owned();
        Self { child, listen: field("listen="), admin: field("admin=") }
    }

    fn ask(&self, request: &str) -> String {
        let mut stream = TcpStream::connect(&self.admin).unwrap();
        let host = &self.admin;
        let request =
            format!("{request} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    fn metric(&self, name: &str) -> u64 {
        let metrics = self.ask("GET /metrics");
        let start = format!("{name}{{loop=\"0\"");
        let line = metrics.lines().find(|line| line.starts_with(&start)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    fn deliveries(&self) -> u64 {
        let metrics = self.ask("GET /metrics");
        let lines = metrics.lines().filter(|line| line.starts_with("fantail_deliveries_total"));
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    fn open(&self) -> u64 {
        self.metric("fantail_connections")
    }

    fn upgrades(&self) -> u64 {
        self.metric("fantail_upgrades_total")
    }
}

impl Drop for Sharing {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}

#[test]
fn clients_that_are_sent_away_come_back_and_are_accounted_for() {
    let first = Sharing::start("127.0.0.1:0");
    let mut second = Sharing::start(&first.listen);
    let url = format!("ws://{}/ws/{{topic}}", first.listen);
    let [one, two] = [&first, &second].map(|server| format!("http://{}/publish/{{topic}}", server.admin));
    let mut args = vec!["rolling", "--url", &url, "--publish-url", &one, "--publish-url", &two];
    args.extend(["--connections", "200", "--rate", "40"]);
    let generator = Running::start("rolling", &args);
    wait_for("all clients", || first.upgrades() + second.upgrades() == 200);
    // Once messages flow; before that an end would be a connection lost.
    wait_for("messages", || first.deliveries() + second.deliveries() > 2_000);
    let with_first = first.open();
    let closed = first.ask("POST /connections/close?all=1&code=1012");
    assert!(closed.starts_with("HTTP/1.1 200"), "{closed}");
    wait_for("them to be back", || first.upgrades() + second.upgrades() == 200 + with_first);
    let with_second = second.open();
    signals::send(second.child.id(), Signal::Terminate).unwrap();
    assert_eq!(second.child.wait().unwrap().code(), Some(0));
    wait_for("all with the first", || first.open() == 200);
    let before = first.deliveries();
    wait_for("messages to all of them", || first.deliveries() >= before + 400);

    let (code, report) = generator.end();
    assert_eq!((code, &report["ok"]), (0, &Value::from(true)), "{report:#}");
    let endings = &report["endings"];
    assert!(endings["close_1012"].as_u64() > Some(0), "{report:#}");
    assert!(endings["close_1001"].as_u64() >= Some(with_second), "{report:#}");
    assert_eq!(report["left"], report["returned"]);
    assert_eq!(report["away"]["count"], report["left"]);
    assert_eq!((&report["refused"], &report["missing"]), (&Value::from(0), &Value::from(0)));
    let number = |field: &str| report[field].as_u64().unwrap();
    // Each client has got, or was away for, each message.
    assert_eq!(number("deliveries") + number("away_missed"), 200 * number("published"), "{report:#}");
    // The second server was there for a while, and then not.
    let [all, some] = [0, 1].map(|index| report["servers"][index]["accepted"].as_u64().unwrap());
    assert!(all == number("published") && some < all, "{report:#}");
    assert_eq!(schema::Schemas::load().errors("rolling", &report), Vec::<String>::new());
}

#[test]
fn clients_in_several_topics_are_accounted_for_by_each() {
    let server = Sharing::start("127.0.0.1:0");
    let url = format!("ws://{}/ws?topic={{topics:&topic=}}", server.listen);
    let publish = format!("http://{}/publish/{{topic}}", server.admin);
    let mut args = vec!["rolling", "--url", &url, "--publish-url", &publish, "--rate", "100"];
    args.extend(["--topics", "20", "--members", "15", "--connections", "100"]);
    let generator = Running::start("rolling-topics", &args);
    wait_for("all clients", || server.upgrades() == 100);
    wait_for("messages", || server.deliveries() > 1_000);
    let closed = server.ask("POST /connections/close?all=1&code=1012");
    assert!(closed.starts_with("HTTP/1.1 200"), "{closed}");
    wait_for("them to be back", || server.upgrades() == 200);
    let before = server.deliveries();
    wait_for("messages in each topic", || server.deliveries() >= before + 1_000);
    let (code, report) = generator.end();
    assert_eq!((code, &report["ok"]), (0, &Value::from(true)), "{report:#}");
    assert_eq!((&report["left"], &report["returned"]), (&100.into(), &100.into()), "{report:#}");
    assert_eq!((&report["topics_per_connection"], &report["subscribed"]), (&3.into(), &300.into()));
    let number = |field: &str| report[field].as_u64().unwrap();
    assert_eq!(number("deliveries") + number("away_missed"), 15 * number("published"), "{report:#}");
    assert_eq!(report["missing"], 0, "{report:#}");
}

#[test]
fn a_silent_server_does_not_keep_the_others_waiting_for_each_message() {
    let (server, silent) = (server("A=b"), format!("http://{}/", silent_publish_server()));
    let mut args =
        vec!["rolling", "--server", &server, "--connections", "5", "--rate", "10", "--duration", "1s"];
    args.extend(["--publish-url", "http://{admin}/publish/{topic}", "--publish-url", &silent]);
    let began = Instant::now();
    let (code, report, _) = run("silent", &args);
    assert_eq!(
        (code, &report["published"], &report["deliveries"]),
        (0, &10.into(), &50.into()),
        "{report:#}"
    );
    assert_eq!(report["servers"][1]["errors"], serde_json::json!({ "timedout": 10 }));
    assert!(began.elapsed() < Duration::from_secs(40), "{:?}", began.elapsed());
}

#[test]
fn without_a_backoff_clients_come_back_at_once() {
    let server = Sharing::start("127.0.0.1:0");
    let url = format!("ws://{}/ws/{{topic}}", server.listen);
    let publish = format!("http://{}/publish/{{topic}}", server.admin);
    let mut args = vec!["rolling", "--url", &url, "--publish-url", &publish, "--connections", "10"];
    args.extend(["--rate", "20", "--backoff", "0s"]);
    let generator = Running::start("no-backoff", &args);
    wait_for("all clients", || server.upgrades() == 10);
    wait_for("messages", || server.deliveries() > 50);
    server.ask("POST /connections/close?all=1&code=1012");
    wait_for("them to be back", || server.upgrades() == 20);
    let (code, report) = generator.end();
    assert_eq!((code, &report["left"], &report["returned"]), (0, &10.into(), &10.into()), "{report:#}");
}

#[test]
fn a_storm_with_a_rate_is_churn() {
    let server = server("A=b");
    let mut args = vec!["storm", "--server", &server, "--connections", "200", "--rate", "300"];
    args.extend(["--duration", "1s", "--bystander", "none"]);
    let (code, report, _) = run("churn", &args);
    assert_eq!(code, 0, "{report:#}");
    let dropped = report["dropped"].as_u64().unwrap();
    assert_eq!(dropped, 300, "{report:#}");
    assert_eq!(report["returned"], dropped);
    assert_eq!(report["bystander"], Value::Null);
}

#[test]
fn who_is_refused_in_a_storm_tries_again_and_is_counted() {
    let url = refusing_server(50..60);
    let mut args = vec!["storm", "--url", &url, "--connections", "50", "--duration", "50ms"];
    args.extend(["--bystander", "none", "--fail-if", "refused>10", "--fail-if", "away_max>50s"]);
    let (code, report, _) = run("refused", &args);
    assert_eq!((code, &report["refused"]), (0, &Value::from(10)), "{report:#}");
    assert_eq!(report["refusals"]["upgrade_status_503"], 10);
    assert_eq!((&report["returned"], &report["unserved"]), (&Value::from(50), &Value::from(0)));

    // Nobody is served again.
    let url = refusing_server(5..100_000);
    let mut args = vec!["storm", "--url", &url, "--connections", "5", "--within", "500ms"];
    args.extend(["--duration", "50ms", "--bystander", "none", "--fail-if", "served_again>1s"]);
    let (code, report, _) = run("unserved", &args);
    assert_eq!((code, &report["unserved"]), (1, &Value::from(5)), "{report:#}");
    assert_eq!(report["served_again_seconds"], Value::Null);
    assert!(report["problems"].to_string().contains("served_again>1s can't be judged"), "{report:#}");
}

#[test]
fn slow_subscribers_are_counted_apart_and_the_others_miss_nothing() {
    let server = server("A=b");
    let fixed = ["--server", &server, "--connections", "200", "--rate", "50", "--size", "4096"];
    let with = |name: &str, extra: &[&str]| {
        let args = [&["slow", "--duration", "1s", "--slow-fraction", "0.1"], &fixed[..], extra].concat();
        run(name, &args)
    };
    let (code, report, table) = with("slow", &[]);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!((&report["command"], &report["deliveries"]), (&Value::from("slow"), &Value::from(180 * 50)));
    assert_eq!((&report["missing"], &report["duplicate"]), (&Value::from(0), &Value::from(0)));
    let slow = &report["slow"];
    assert_eq!(
        (&slow["connections"], &slow["deliveries"]),
        (&Value::from(20), &Value::from(0)),
        "{report:#}"
    );
    assert_eq!(
        (&slow["caught_up"], &slow["missing"], &slow["closed"]),
        (&Value::from(20 * 50), &Value::from(0), &Value::from(0))
    );
    let server_part = &report["server"];
    assert!(server_part["user_bytes_peak"].as_u64() >= server_part["user_bytes_before"].as_u64());
    assert!(server_part["user_bytes_before"].as_u64().unwrap() > 0, "{report:#}");
    assert!(report["tcp"]["machine_bytes_peak"].as_u64().unwrap() > 0, "{report:#}");
    assert!(table.contains("slow subscribers") && table.contains("server memory"), "{table}");

    let (code, report, _) = with("trickle", &["--slow-rate", "40000"]);
    assert_eq!(code, 0, "{report:#}");
    let read = report["slow"]["deliveries"].as_u64().unwrap();
    assert!(read > 0 && read < 20 * 50, "{report:#}");
    assert_eq!(report["slow"]["caught_up"], 20 * 50 - read);
}

#[test]
fn slow_subscribers_that_the_server_closes_are_no_problem_of_the_others() {
    // The server closes whoever has this much waiting, however that came about: with its default of 256 KiB also a
    // reader that a busy machine keeps from a processor for a tenth of a second. This is four seconds' worth.
    let server = server(
        "FANTAIL_OUTBOX_POLICY=disconnect FANTAIL_OUTBOX_MESSAGES_MAX=200 FANTAIL_OUTBOX_BYTES_MAX=8388608",
    );
    let mut args = vec!["slow", "--server", &server, "--connections", "10", "--slow-fraction", "0.2"];
    // More than that, and than the kernel keeps for a connection.
    args.extend(["--size", "20000", "--rate", "50", "--duration", "6s", "--fail-if", "slow_closed<2"]);
    let (code, report, _) = run("slow-closed", &args);
    assert_eq!((code, &report["slow"]["closed"]), (0, &Value::from(2)), "{report:#}");
    assert_eq!((&report["connections"]["lost"], &report["missing"]), (&Value::from(0), &Value::from(0)));
}

#[test]
fn capacity_finds_the_step_that_breaks() {
    let server = server("FANTAIL_SERVER_CONNECTIONS_MAX=150");
    let mut args = vec!["capacity", "--step", "connections=50,100,200,400", "idle"];
    args.extend(["--server", &server, "--duration", "50ms", "--fail-if", "failed>0"]);
    let (code, report, table) = run("capacity", &args);
    assert_eq!((code, &report["of"], &report["variable"]), (0, &"idle".into(), &"connections".into()));
    assert_eq!((report["highest_held"].as_f64(), report["broke_at"].as_f64()), (Some(100.0), Some(200.0)));
    let steps = report["steps"].as_array().unwrap();
    assert_eq!(steps.len(), 3, "{report:#}");
    assert!(steps[2]["problems"].to_string().contains("failed>0: it is"), "{report:#}");
    assert_eq!(steps[1]["result"]["connections"]["opened"], 100);
    assert!(table.contains("highest step that held  100"), "{table}");

    let mut args = vec!["capacity", "--step", "rate=50..200*2", "echo", "--connections", "10"];
    args.extend(["--server", &server, "--duration", "200ms", "--fail-if", "p50>1us"]);
    let (code, report, _) = run("capacity-none", &args);
    assert_eq!((code, &report["highest_held"], &report["ok"]), (1, &Value::Null, &Value::from(false)));
}

#[test]
fn thresholds_decide_the_exit_code() {
    let url = echo_server();
    let base = ["echo", "--url", &url, "--connections", "10", "--rate", "100", "--duration", "200ms"];
    let with = |name: &str, extra: &[&str]| run(name, &[&base[..], extra].concat());
    let (code, report, _) = with("holds", &["--fail-if", "p90>60s", "--fail-if", "missing>0"]);
    assert_eq!((code, &report["ok"]), (0, &Value::from(true)), "{report:#}");
    let (code, report, table) = with("breaks", &["--fail-if", "p50>1us"]);
    assert_eq!((code, &report["ok"]), (1, &Value::from(false)), "{report:#}");
    assert!(table.contains("verdict") && table.contains("p50>1us: it is"), "{table}");
}

#[test]
fn repeats_give_the_median_and_every_run() {
    let url = echo_server();
    let mut args = vec!["echo", "--url", &url, "--connections", "10", "--rate", "100", "--duration", "200ms"];
    args.extend(["--repeat", "3", "--fail-if", "p90>60s"]);
    let (code, report, table) = run("repeat", &args);
    assert_eq!((code, &report["command"], &report["returned"]), (0, &"echo".into(), &Value::from(20)));
    let runs = report["repeats"].as_array().unwrap();
    let mut p90: Vec<f64> =
        runs.iter().map(|run| run["latency"]["p90_microseconds"].as_f64().unwrap()).collect();
    p90.sort_by(f64::total_cmp);
    assert_eq!((p90.len(), report["latency"]["p90_microseconds"].as_f64()), (3, Some(p90[1])));
    assert!(table.contains("run 3 of 3: ") && table.contains("spread"), "{table}");
}

#[test]
fn workers_leave_no_descriptor_behind() {
    let url = echo_server();
    let mut args = vec!["capacity", "--step", "connections=1..12+1", "idle", "--url", &url];
    args.extend(["--threads", "4", "--duration", "50ms"]);
    let mut child = generator(&args).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let folder = format!("/proc/{}/fd", child.id());
    let (until, mut polls) = (Instant::now() + PATIENCE, Vec::new());
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < until, "it does not end");
        let open = std::fs::read_dir(&folder).into_iter().flatten().flatten();
        let files = open.filter_map(|entry| std::fs::read_link(entry.path()).ok());
        polls.push(files.filter(|file| file.as_os_str() == "anon_inode:[eventpoll]").count());
        thread::sleep(Duration::from_millis(1));
    }
    assert!(child.wait().unwrap().success());
    // The main thread's table, in which each run makes the polls of its workers. A listing takes time, so it may
    // hold those of two runs, of twelve, and of more where the machine stands still; most listings do not.
    polls.sort_unstable();
    assert!(polls.last() >= Some(&4) && polls[polls.len() / 2] <= 8, "{polls:?}");
}

#[test]
fn what_nothing_was_measured_of_is_not_zero() {
    let (listener, address) = listen();
    drop(listener);
    let url = format!("ws://{address}/");
    let args = ["echo", "--url", &url, "--connections", "2", "--rate", "50", "--duration", "100ms"];
    let (code, report, _) = run("nothing-sent", &args);
    assert_eq!((code, &report["sent"]), (1, &Value::from(0)), "{report:#}");
    assert_eq!(report["generator"]["late_max_microseconds"], Value::Null);
    assert_eq!((&report["generator"]["late_share"], &report["latency"]), (&Value::Null, &Value::Null));
}

#[test]
fn a_plan_opens_nothing() {
    let (listener, address) = listen();
    let url = format!("ws://{address}/");
    let (code, report, table) = run("plan", &["idle", "--url", &url, "--connections", "1000", "--plan"]);
    assert_eq!((code, &report["ok"], &report["connections"]), (0, &Value::from(true), &Value::from(1000)));
    assert_eq!((&report["command"], &report["of"]), (&"plan".into(), &"idle".into()));
    assert!(table.contains("descriptors per table") && table.trim_end().ends_with("fits"), "{table}");
    let mut args = vec!["idle", "--url", &url, "--connections", "200000", "--plan"];
    args.extend(["--source", "127.0.0.1", "--threads", "1"]);
    let (code, report, _) = run("plan-not", &args);
    assert!(code == 1 && report["problems"].to_string().contains("ports of one source"), "{report:#}");
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
}

#[test]
fn connections_speak_the_protocol_of_the_server() {
    let pongs = Arc::new(AtomicU64::new(0));
    let url = chat_server(pongs.clone());
    let vars = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("kit-{}.csv", std::process::id()));
    let talk = |rows: &str, name: &str| {
        std::fs::write(&vars, rows).unwrap();
        let mut args = vec!["idle", "--url", &url, "--connections", "20", "--duration", "50ms"];
        args.extend([
            "--vars",
            vars.to_str().unwrap(),
            "--header",
            "X-User: {user}",
            "--subprotocol",
            "chat.v2",
        ]);
        args.extend(["--hello", "{\"login\":\"{user}\",\"n\":{i}}", "--await", "^welcome$"]);
        args.extend(["--reply", "^PING (\\d+)=>PONG {1} {user}"]);
        run(name, &args)
    };
    let (code, report, _) = talk("user,place\nann,ann/1\nbob,bob/1\n", "talk");
    assert_eq!((code, &report["connections"]["opened"]), (0, &Value::from(20)), "{report:#}");
    assert_eq!(pongs.load(Ordering::SeqCst), 20);
    // Every fourth is sent away before its welcome.
    let (code, report, _) = talk("user,place\nann,ann/1\nbob,bob/1\ncarol,carol/1\neve,eve/1\n", "talk-eve");
    assert_eq!((code, &report["connections"]["opened"]), (1, &Value::from(15)), "{report:#}");
    assert_eq!(report["connections"]["errors"]["await_closed"], 5, "{report:#}");
    std::fs::remove_file(vars).unwrap();
}

#[test]
#[expect(clippy::result_large_err, reason = "the callback's type is the library's")]
fn a_subprotocol_that_was_not_offered_fails_the_connection() {
    let (listener, address) = listen();
    thread::spawn(move || {
        let callback = |_: &Request, mut response: Response| {
            response.headers_mut().insert("Sec-WebSocket-Protocol", "mqtt".parse().unwrap());
            Ok(response)
        };
        for stream in listener.incoming() {
            // The generator goes at once.
            let _ = tungstenite::accept_hdr(stream.unwrap(), callback);
        }
    });
    let url = format!("ws://{address}/");
    let (code, report, _) = run("mqtt", &["idle", "--url", &url, "--connections", "2", "--duration", "10ms"]);
    assert_eq!(
        (code, &report["connections"]["errors"]["upgrade_unoffered_subprotocol"]),
        (1, &Value::from(2)),
        "{report:#}"
    );
}

/// Starts it and waits until it has printed its first progress line that says how messages come.
fn start(args: &[&str]) -> (Child, BufReader<std::process::ChildStderr>) {
    start_until(args, "messages")
}

fn start_until(args: &[&str], word: &str) -> (Child, BufReader<std::process::ChildStderr>) {
    let mut child = generator(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains(word) {
        line.clear();
        assert!(errors.read_line(&mut line).unwrap() > 0, "it ended before its first line");
    }
    (child, errors)
}

fn wait(mut child: Child) -> Output {
    let until = Instant::now() + PATIENCE;
    while child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < until, "it does not end");
        thread::sleep(Duration::from_millis(10));
    }
    child.wait_with_output().unwrap()
}

#[test]
fn ctrl_c_ends_early_and_still_reports() {
    let server = server("A=b");
    for (command, sent, came) in
        [("echo", "sent", "returned"), ("fanout", "deliveries_expected", "deliveries")]
    {
        let file = result_file(&format!("ctrl-c-{command}"));
        let json = file.to_str().unwrap();
        let mut args = vec![command, "--server", &server, "--connections", "20", "--rate", "100"];
        args.extend(["--duration", "10m", "--json", json]);
        let (child, mut errors) = start(&args);
        let rest = thread::spawn(move || std::io::read_to_string(&mut errors).unwrap());
        signals::send(child.id(), Signal::Interrupt).unwrap();
        let output = wait(child);
        let rest = rest.join().unwrap();
        assert!(rest.contains("ending early") && !rest.contains("fantail-loadtest:"), "{rest}");
        let report = take_result(&file, &output);
        assert_eq!(output.status.code(), Some(0), "{report:#}");
        assert_eq!(report["interrupted"], true);
        assert!(report[sent].as_u64().unwrap() > 0, "{report:#}");
        assert_eq!(report[sent], report[came], "{report:#}");
        let table = String::from_utf8(output.stdout).unwrap();
        assert!(table.contains("interrupted"), "{table}");
    }
}

#[test]
fn ctrl_c_while_connections_are_opened_still_reports() {
    let url = echo_server();
    for more in [
        &["storm", "--bystander", &url][..],
        &["fanout", "--publish", "ws"],
        &["echo"],
        &["idle"],
        &["memory"],
    ] {
        let file = result_file(&format!("ctrl-c-opening-{}", more[0]));
        let args = [
            "--url",
            &url,
            "--connections",
            "1000",
            "--connect-rate",
            "20",
            "--json",
            file.to_str().unwrap(),
        ];
        let (child, mut errors) = start_until(&[more, &args].concat(), "open ");
        signals::send(child.id(), Signal::Interrupt).unwrap();
        let output = wait(child);
        let rest = std::io::read_to_string(&mut errors).unwrap();
        assert!(!rest.contains("fantail-loadtest:"), "{more:?}: {rest}");
        let report = take_result(&file, &output);
        let opened = report["connections"]["opened"].as_u64().unwrap();
        // Memory is read before the first connection, too.
        let begun = opened > 0 || more[0] == "memory";
        assert!(report["interrupted"] == true && begun && opened < 1000, "{report:#}");
        // What these were to show has not been seen.
        let nothing_shown = ["storm", "memory"].contains(&more[0]);
        let said = report["problems"].to_string().contains("interrupted: ");
        assert_eq!(said, nothing_shown, "{report:#}");
        assert!(!said || output.status.code() == Some(1) && report["ok"] == false, "{report:#}");
    }
}

#[test]
fn a_second_ctrl_c_ends_at_once_and_takes_the_server_along() {
    // The stand-in for a server ignores SIGTERM, and its output ends with it.
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("kit-{}.pid", std::process::id()));
    let url = echo_server();
    let script = format!(
        "sh -c 'trap \"\" TERM; echo $$ >\"{}\"; echo ready; while :; do sleep 1; done'",
        file.display()
    );
    let mut args = vec!["echo", "--url", &url, "--server", &script, "--ready", "ready"];
    args.extend(["--connections", "5", "--rate", "100", "--duration", "10m"]);
    let (child, errors) = start(&args);
    let pid: u32 = std::fs::read_to_string(&file).unwrap().trim().parse().unwrap();
    std::fs::remove_file(&file).unwrap();
    signals::send(child.id(), Signal::Interrupt).unwrap();
    let mut errors = errors;
    let mut line = String::new();
    while !line.contains("ending early") {
        line.clear();
        assert!(errors.read_line(&mut line).unwrap() > 0);
    }
    signals::send(child.id(), Signal::Interrupt).unwrap();
    assert_eq!(wait(child).status.code(), Some(130));
    let until = Instant::now() + PATIENCE;
    while is_running(pid) {
        assert!(Instant::now() < until, "the server is still there");
        thread::sleep(Duration::from_millis(10));
    }
}

fn is_running(pid: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // Nobody may be there to take the exit code of an orphan: a zombie has ended.
    state
        .rsplit(')')
        .next()
        .is_some_and(|rest| !rest.trim().is_empty() && !rest.trim().starts_with(['Z', 'X']))
}

#[test]
fn a_server_that_does_not_come_up_or_dies_is_told() {
    let run_with = |server: &str, url: &str| {
        let mut args = vec!["echo", "--url", url, "--server", server, "--ready", "ready"];
        args.extend(["--connections", "2", "--rate", "10", "--duration", "2s"]);
        let output = generator(&args).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let url = echo_server();
    let (code, error) = run_with("sh -c 'echo no luck >&2'", &url);
    assert!(code == Some(1) && error.contains("no luck"), "{code:?} {error}");
    for script in ["sh -c 'echo ready; exit 3'", "sh -c 'echo ready; sleep 0.1; exit 3'"] {
        let (code, error) = run_with(script, &url);
        assert!(
            code == Some(1) && error.contains("ended during the run: exit status: 3"),
            "{code:?} {error}"
        );
    }
    let (code, error) = run_with("sh -c 'echo ready; exec sleep 60'", "ws://{listen}/");
    assert!(code == Some(2) && error.contains("does not say {listen}"), "{code:?} {error}");
}

#[test]
fn a_starved_generator_says_so() {
    let server = server("A=b");
    // Ten times what one core can send.
    let mut args = vec!["echo", "--server", &server, "--connections", "20", "--threads", "1"];
    args.extend(["--rate", "2000000", "--duration", "300ms", "--fail-if", "bottleneck>0"]);
    let (code, report, table) = run("starved", &args);
    assert_eq!(code, 1, "{report:#}");
    assert!(!report["generator"]["bottleneck"].as_array().unwrap().is_empty(), "{report:#}");
    assert!(table.contains("YES: "), "{table}");
    assert!(report["problems"].to_string().contains("bottleneck>0: it is"), "{report:#}");
}

#[test]
fn wrong_flags_are_usage_errors() {
    for wrong in [
        &["echo", "--fail-if", "served_again>1s"][..],
        &["storm", "--fail-if", "p99>1s"],
        &["idle", "--header", "nonsense"],
        &["idle", "--vars", "/nonexistent.csv"],
        &["idle", "--url", "ws://127.0.0.1:1/{nobody}"],
        &["idle", "--await", "("],
        &["idle", "--server", "/nonexistent/server"],
        &["capacity", "--step", "rate=1,2", "idle"],
        &["capacity", "--step", "rate=1,2", "echo", "--plan"],
        &["echo", "--duration", "0s"],
        &["fanout", "--duration", "0ms"],
        &["slow", "--duration", "0s"],
        &["ping", "--duration", "0s"],
        &["rolling", "--duration", "0s"],
        &["storm", "--rate", "5", "--duration", "0s"],
        &["storm", "--bystander", "http://127.0.0.1/"],
        &["rolling", "--publish-url", "ws://127.0.0.1:1/"],
        &["rolling", "--fail-if", "reordered>0"],
    ] {
        let output = generator(wrong).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {error}");
    }
}
