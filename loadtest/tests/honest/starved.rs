//! A generator with time enough, and one that hardly gets a processor.

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use serde_json::Value;

use crate::stopped::{Server, await_load};
use crate::{alone, beside_others, generator, result_file, take_result};

/// On a machine that others keep busy, a generator without real-time scheduling says so, rightly.
const ATTEMPTS: usize = 20;

#[test]
fn a_generator_with_time_enough_says_so() {
    let _alone = alone();
    let server = Server::start();
    let file = result_file("good");
    let url = format!("ws://{}/echo", server.listen);
    let mut said = Vec::new();
    for _ in 0..ATTEMPTS {
        let mut run = generator();
        run.args(["echo", "--url", &url, "--connections", "20", "--rate", "200", "--duration", "1s"]);
        let output = run.args(["--json", file.to_str().unwrap()]).output().unwrap();
        let report = take_result(&file, &output);
        let generator = &report["generator"];
        assert!(
            generator["processor_wait_share"].is_number() && generator["busy_share"].is_number(),
            "{generator:#}"
        );
        if generator["bottleneck"].as_array().unwrap().is_empty() {
            println!(
                "good: bottleneck no; busy {}, waited for a processor {}, late {}",
                generator["busy_share"], generator["processor_wait_share"], generator["late_share"]
            );
            let table = String::from_utf8_lossy(&output.stdout);
            let row = table.lines().find(|line| line.contains("was the bottleneck"));
            assert!(row.is_some_and(|row| row.ends_with(" no")), "{table}");
            return;
        }
        said.push(generator["bottleneck"].clone());
    }
    panic!("never with time enough: {said:?}");
}

/// A process that takes all of one processor.
struct Hog(Child);

impl Hog {
    fn start() -> Self {
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", "0", "sh", "-c", "while :; do :; done"]);
        Self(command.stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a command that shares processor 0 with somebody whom the kernel prefers by far.
fn starved(command: &str, extra: &[&str]) -> Value {
    let _others = beside_others();
    let file = result_file(&format!("starved-{command}"));
    let mut run = Command::new("taskset");
    run.args(["--cpu-list", "0", "nice", "-n", "19", env!("CARGO_BIN_EXE_fantail-loadtest"), command]);
    run.args(["--threads", "1", "--duration", "3s", "--json", file.to_str().unwrap()]).args(extra);
    let mut run = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    await_load(&mut run);
    let hog = Hog::start();
    thread::sleep(Duration::from_secs(3));
    drop(hog);
    take_result(&file, &run.wait_with_output().unwrap())
}

fn assert_told(report: &Value) {
    let reasons = report["generator"]["bottleneck"].as_array().unwrap();
    println!("starved {}: {reasons:?}", report["command"]);
    let waited = |reason: &Value| reason.as_str().unwrap().contains("waited for a processor");
    assert!(reasons.iter().any(waited), "{report:#}");
}

#[test]
fn a_starved_generator_says_that_it_waited_for_a_processor() {
    let server = Server::start();
    let url = format!("ws://{}/echo", server.listen);
    let report = starved("echo", &["--url", &url, "--connections", "20", "--rate", "500"]);
    assert_told(&report);
    // Its latencies count from the plan, so they are no better than they were.
    assert!(report["latency"]["p99_microseconds"].as_f64().unwrap() > 1e4, "{report:#}");
}

#[test]
fn a_starved_receiver_says_so_as_well() {
    let server = Server::start();
    let url = format!("ws://{}/ws/{{topic}}", server.listen);
    let publish = format!("http://{}/publish/{{topic}}", server.admin);
    let args = ["--url", &url, "--publish-url", &publish, "--connections", "200", "--rate", "50"];
    assert_told(&starved("fanout", &args));
}
