//! Known delays against what the generator says.

use std::time::Duration;

use crate::delaying::{Answered, Delaying};
use crate::{alone, favour, generator, microseconds, result_file, take_result};

const RATE: f64 = 400.0;
const SECONDS: f64 = 1.5;
const CONNECTIONS: usize = 4;
/// Other work on the machine gets in between, less with real-time scheduling: then the run is made again.
const ATTEMPTS: usize = 20;
/// Where the machine lets everybody wait who has something to read, the generator may be off by so many times what the
/// witness of the same run was late.
const OFF_TIMES_WITNESS: f64 = 2.0;
/// How late the server itself may answer, at p50, for a run to count. What is later is part of the truth.
const SERVER_LATE_US: f64 = 50.0;
/// What the generator may be off by, in microseconds and as a share of the delay. Code that is not optimised takes
/// longer from the socket to the clock.
const OFF_US: f64 = if cfg!(debug_assertions) { 200.0 } else { 100.0 };
const OFF_SHARE: f64 = 0.05;

/// p50 and p99 in microseconds.
#[derive(Clone, Copy, Debug)]
struct Percentiles {
    p50: f64,
    p99: f64,
}

impl Percentiles {
    fn of(mut values_us: Vec<f64>) -> Self {
        values_us.sort_by(f64::total_cmp);
        let at = |quantile: f64| values_us[(values_us.len() as f64 * quantile).ceil() as usize - 1];
        Self { p50: at(0.5), p99: at(0.99) }
    }

    /// Both differences.
    fn off_by(self, other: Self) -> Self {
        Self { p50: (self.p50 - other.p50).abs(), p99: (self.p99 - other.p99).abs() }
    }

    fn is_within(self, bound: Self) -> bool {
        self.p50 <= bound.p50 && self.p99 <= bound.p99
    }

    fn max(self) -> f64 {
        self.p50.max(self.p99)
    }
}

/// From the planned send time to the answer, as the server saw it.
///
/// The plan is even, so its beginning shows in the message that came soonest after its turn: the truth found this way
/// is too small by what that one took to come.
fn truth(answered: &[Answered]) -> Percentiles {
    let interval = Duration::from_secs_f64(1.0 / RATE);
    let origin = answered[0].arrived - Duration::from_secs(1);
    let turn = |index: usize| interval * u32::try_from(index).unwrap();
    let begin =
        answered.iter().enumerate().map(|(index, one)| (one.arrived - origin).saturating_sub(turn(index)));
    let begin = begin.min().unwrap();
    let latencies = answered.iter().enumerate().flat_map(|(index, one)| {
        let planned = origin + begin + turn(index);
        one.answers.iter().map(move |answer| answer.saturating_duration_since(planned).as_secs_f64() * 1e6)
    });
    Percentiles::of(latencies.collect())
}

fn server_late(answered: &[Answered], delay: Duration) -> Percentiles {
    let late = answered.iter().map(|one| (one.answers[0] - one.arrived - delay).as_secs_f64() * 1e6);
    Percentiles::of(late.collect())
}

/// How late the witness was.
fn witness_late(answered: &[Answered]) -> Percentiles {
    Percentiles::of(answered.iter().map(|one| one.witness_late.as_secs_f64() * 1e6).collect())
}

/// What the generator said in one run, the truth, and how late the server and the witness were.
struct Run {
    said: Percentiles,
    truth: Percentiles,
    server_late: Percentiles,
    witness_late: Percentiles,
}

impl Run {
    fn off(&self) -> Percentiles {
        self.said.off_by(self.truth)
    }

    /// `us`, or more where the machine lets everybody wait.
    fn allowed(&self, us: f64) -> Percentiles {
        let by = |witness: f64| us.max(witness * OFF_TIMES_WITNESS);
        Percentiles { p50: by(self.witness_late.p50), p99: by(self.witness_late.p99) }
    }

    fn row(&self, allowed_us: f64) -> String {
        let two = |of: Percentiles| format!("{:8.0} {:8.0}", of.p50, of.p99);
        let columns = [self.truth, self.said, self.allowed(allowed_us), self.server_late, self.witness_late];
        let [truth, said, allowed, server, witness] = columns.map(two);
        format!("{truth} | {said} | {:8.0} {allowed} | {server} | {witness}", self.off().max())
    }

    fn is_good(&self, allowed_us: f64) -> bool {
        self.off().is_within(self.allowed(allowed_us))
            && self.server_late.p50 <= self.allowed(SERVER_LATE_US).p50
    }
}

fn run(command: &str, delay: Duration) -> Run {
    let server = Delaying::start(delay);
    let file = result_file(&format!("{command}-{}", delay.as_micros()));
    let path = if command == "echo" { "echo" } else { "ws/t" };
    let url = format!("ws://{}/{path}", server.address);
    let mut generator = generator();
    generator.args([command, "--url", &url, "--json", file.to_str().unwrap(), "--threads", "1"]);
    generator.args(["--connections", &CONNECTIONS.to_string(), "--rate", &RATE.to_string()]);
    generator.args(["--duration", &format!("{SECONDS}s")]);
    if command == "fanout" {
        generator.args(["--publish", "ws", "--publish-url", &format!("{url}?echo=0")]);
    }
    let output = generator.output().unwrap();
    let report = take_result(&file, &output);
    assert_eq!(report["ok"], true, "{report:#}");
    let said = Percentiles { p50: microseconds(&report, "p50"), p99: microseconds(&report, "p99") };
    let all = server.answered();
    // In front of the plan there are probes.
    let planned = &all[all.len() - (RATE * SECONDS) as usize..];
    Run {
        said,
        truth: truth(planned),
        server_late: server_late(planned, delay),
        witness_late: witness_late(planned),
    }
}

#[test]
fn latencies_are_what_the_server_made_them() {
    let _alone = alone();
    println!(
        "command | delay us | true p50, p99 us | said p50, p99 us | off by us, allowed p50, p99 | \
         server late p50, p99 us | witness late p50, p99 us"
    );
    for command in ["echo", "fanout"] {
        for delay_us in [500.0, 5_000.0, 50_000.0_f64] {
            let allowed = (delay_us * OFF_SHARE).max(OFF_US);
            let done = (0..ATTEMPTS).any(|_| {
                let run = run(command, Duration::from_secs_f64(delay_us / 1e6));
                println!("{command:7} | {delay_us:8.0} | {}", run.row(allowed));
                run.is_good(allowed)
            });
            assert!(done, "{command} at {delay_us} us, real-time scheduling: {}", favour::is_allowed());
        }
    }
}
