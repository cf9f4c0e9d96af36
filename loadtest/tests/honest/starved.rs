//! A generator with time enough, and one that hardly gets a processor.

use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fantail::sys::signals::{self, Signal};
use serde_json::Value;

use crate::favour::favour_witness;
use crate::stopped::{Server, await_load};
use crate::{alone, beside_others, generator, result_file, take_result};

/// On a machine that others keep busy now and then, the generator has not always time enough.
const ATTEMPTS: usize = 20;

/// How often a witness of the machine has to be there in time, and what is late: as the generator in this test.
const EVERY: Duration = Duration::from_millis(5);
const LATE: Duration = Duration::from_millis(1);
/// Half of what makes the generator say that it was the bottleneck.
const LATE_SHARE: f64 = 0.005;
const WAIT_SHARE: f64 = 0.05;
/// How long it may take until a generator has been without a processor for long enough.
const PATIENCE: Duration = Duration::from_secs(60);

/// A thread that has to be somewhere every few milliseconds and does nothing else: what it has not got of the
/// machine, the generator need not have got either.
struct Witness {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<(f64, f64)>,
}

impl Witness {
    fn start() -> Self {
        let stop = Arc::<AtomicBool>::default();
        let stopped = stop.clone();
        let thread = thread::spawn(move || {
            favour_witness();
            let (begin, waited_from, mut times, mut late) = (Instant::now(), waited(), 0_u32, 0_u32);
            while !stopped.load(Ordering::Relaxed) {
                times += 1;
                let planned = begin + EVERY * times;
                thread::sleep(planned.saturating_duration_since(Instant::now()));
                late += u32::from(planned.elapsed() > LATE);
            }
            let waited = (waited() - waited_from).as_secs_f64() / begin.elapsed().as_secs_f64();
            (f64::from(late) / f64::from(times), waited)
        });
        Self { stop, thread }
    }

    /// The share of times that it was late, and that of the time for which it waited for a processor.
    fn stop(self) -> (f64, f64) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

/// How long the thread of a process that waited most has waited for a processor.
fn waited_by(pid: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let waited = threads.filter_map(|thread| {
        let text = std::fs::read_to_string(thread.path().join("schedstat")).ok()?;
        Some(Duration::from_nanos(text.split_whitespace().nth(1)?.parse().ok()?))
    });
    waited.max().unwrap_or_default()
}

/// How long the calling thread has waited for a processor in all.
fn waited() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split_whitespace().nth(1).unwrap().parse().unwrap())
}

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
        let witness = Witness::start();
        let output = run.args(["--json", file.to_str().unwrap()]).output().unwrap();
        let (late, waited) = witness.stop();
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
        said.push(format!("{}, a witness was late {late:.3}, waited {waited:.3}", generator["bottleneck"]));
        if late > LATE_SHARE || waited > WAIT_SHARE {
            println!("good: nobody had time enough: {}", said.last().unwrap());
            return;
        }
    }
    panic!("never with time enough, and a witness had it: {said:#?}");
}

/// A process that takes all of one processor.
struct Hog(Child);

impl Hog {
    fn start() -> Self {
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", &processor(), "sh", "-c", "while :; do :; done"]);
        Self(command.stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Hog {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One on which this process may run; in a container that need not be number 0.
fn processor() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    list.trim().split([',', '-']).next().unwrap().to_owned()
}

/// Runs a command that shares a processor with somebody whom the kernel prefers by far.
fn starved(command: &str, extra: &[&str]) -> Value {
    let _others = beside_others();
    let file = result_file(&format!("starved-{command}"));
    let mut run = Command::new("taskset");
    run.args([
        "--cpu-list",
        &processor(),
        "nice",
        "-n",
        "19",
        env!("CARGO_BIN_EXE_fantail-loadtest"),
        command,
    ]);
    run.args(["--threads", "1", "--duration", "5m", "--json", file.to_str().unwrap()]).args(extra);
    let began = Instant::now();
    let mut run = run.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    await_load(&mut run);
    // Several: where all are as little preferred as the generator, it gets the less.
    let hogs = [(); 4].map(|()| Hog::start());
    // Whatever the machine lets it have: until it has been without a processor for long enough to say so.
    let enough = || {
        let waited = waited_by(run.id());
        waited > Duration::from_secs(1) && waited > began.elapsed() / 4
    };
    while began.elapsed() < PATIENCE && !enough() {
        thread::sleep(Duration::from_millis(20));
    }
    drop(hogs);
    signals::send(run.id(), Signal::Interrupt).unwrap();
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
