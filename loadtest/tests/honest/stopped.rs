//! A server that is stopped for two seconds, as by a long garbage collection or a machine that moves: who waits for
//! each answer before the next message sees one slow message, who goes by a plan sees all that should have left.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fantail::sys::signals;

use crate::real_server::fantail;
use crate::{beside_others, generator, microseconds, result_file, take_result};

const STOPPED: Duration = Duration::from_secs(2);

/// The real server in a process of its own.
pub(crate) struct Server {
    child: Child,
    pub(crate) listen: String,
    pub(crate) admin: String,
}

impl Server {
    pub(crate) fn start() -> Self {
        let mut child = Command::new(fantail())
            .args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let value = |name: &str| {
            let place = line.find(name).unwrap_or_else(|| panic!("{line}")) + name.len();
            line[place..].split_whitespace().next().unwrap().to_owned()
        };
        Self { listen: value("listen="), admin: value("admin="), child }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until the generator says that messages flow.
pub(crate) fn await_load(generator: &mut Child) {
    let mut errors = BufReader::new(generator.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("messages") {
        line.clear();
        assert!(errors.read_line(&mut line).unwrap() > 0, "it ended before its first line");
    }
    // It goes on to write, and must not wait for somebody who reads.
    thread::spawn(move || while errors.read_line(&mut String::new()).is_ok_and(|length| length > 0) {});
}

/// Runs a command with the server stopped in the middle of it. What it says at the end.
fn with_a_stop(command: &str, extra: &[&str]) {
    let _others = beside_others();
    let server = Server::start();
    let file = result_file(&format!("stopped-{command}"));
    let (path, publish) = match command {
        "echo" => ("echo", String::new()),
        _ => ("ws/{topic}", format!("http://{}/publish/{{topic}}", server.admin)),
    };
    let url = format!("ws://{}/{path}", server.listen);
    let mut run = generator();
    run.args([
        command,
        "--url",
        &url,
        "--connections",
        "20",
        "--duration",
        "6s",
        "--json",
        file.to_str().unwrap(),
    ]);
    run.args(extra);
    if command == "fanout" {
        run.args(["--publish-url", &publish]);
    }
    let mut run = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    await_load(&mut run);
    // This thread may have to wait for a processor between any two of these.
    let before = Instant::now();
    signals::stop(server.child.id()).unwrap();
    let stopped = Instant::now();
    thread::sleep(STOPPED);
    let at_least_us = stopped.elapsed().as_secs_f64() * 1e6;
    signals::resume(server.child.id()).unwrap();
    let at_most_us = before.elapsed().as_secs_f64() * 1e6;
    let report = take_result(&file, &run.wait_with_output().unwrap());

    assert_eq!(report["ok"], true, "{report:#}");
    assert_eq!((&report["missing"], &report["connections"]["lost"]), (&0.into(), &0.into()), "{report:#}");
    let (p50, p999) = (microseconds(&report, "p50"), microseconds(&report, "p999"));
    let max = microseconds(&report, "max");
    println!(
        "{command}: stopped for {:.0} ms: p50 {:.1} ms, p99.9 {:.0} ms, max {:.0} ms, lost 0, missing 0",
        at_least_us / 1e3,
        p50 / 1e3,
        p999 / 1e3,
        max / 1e3
    );
    // The first message of the stop waited for all of it, the next one an interval less; a busy machine takes its time
    // to wake the server up and to catch up with what waits.
    for said in [p999, max] {
        assert!(
            (at_least_us - 1e5..at_most_us + 5e6).contains(&said),
            "{said}, stopped {at_least_us} to {at_most_us}: {report:#}"
        );
    }
}

#[test]
fn a_server_that_is_stopped_for_two_seconds_shows() {
    with_a_stop("echo", &["--rate", "500"]);
}

#[test]
fn a_publisher_that_waits_for_answers_shows_it_too() {
    with_a_stop("fanout", &["--rate", "100"]);
}
