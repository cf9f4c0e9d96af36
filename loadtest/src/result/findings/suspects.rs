//! Who made messages wait in a span of time: the generator, if its publisher had too few connections, if it sent late or had
//! no time to read, else the server, of which its processor time says more. Pure.

use serde_json::Value;

use super::stalls::Stall;
use super::{Fault, beyond, column, is_local, limits};
use crate::result::html::grouped;
use crate::result::report::microseconds_text;

/// Share of the messages of a span that the generator has to be late with to be blamed.
const LATE_SHARE: f64 = 0.5;
/// Share of a span for which its threads had no time.
const STARVED_SHARE: f64 = 0.5;
/// Cores that a process uses which stands still.
const IDLE_CORES: f64 = 0.05;
/// Cores from which a process has at least one thread without time left.
const BUSY_CORES: f64 = 0.9;

/// Who it was.
#[derive(Clone, Debug)]
pub(super) struct Blamed {
    pub(super) fault: Fault,
    /// Why that is known.
    pub(super) evidence: String,
    /// The limit that was met, if one is known.
    pub(super) limit: Option<String>,
}

/// Who it was, and why that is known.
pub(super) fn blame(run: &Value, course: &Value, stall: &Stall) -> Blamed {
    if let Some(blamed) = publisher(course, stall) {
        return blamed;
    }
    let mut starved = starved(run, stall);
    let sends = sends(course, stall);
    let late_often = sends.planned > 0.0 && sends.late >= sends.planned * LATE_SHARE;
    if late_often && sends.latest_us >= stall.longest_microseconds / 2.0 {
        let latest = microseconds_text(Some(sends.latest_us));
        let text = format!(
            "The generator itself sent {} of the {} messages of that time late, by up to {latest}",
            grouped(sends.late),
            grouped(sends.planned)
        );
        // That it had no processor is why.
        let (why, limit) =
            starved.take().map_or((String::new(), None), |(why, limit)| (format!(". {why}"), limit));
        return Blamed { fault: Fault::Generator, evidence: text + &why, limit };
    }
    // Who sends in time reads in time, where the same threads do both: they wait often then, and never for long.
    let reads_as_it_sends = matches!(run.get("command").and_then(Value::as_str), Some("echo" | "ping"));
    let reads_in_time = reads_as_it_sends && sends.planned > 0.0 && !late_often;
    if let Some((evidence, limit)) = starved.filter(|_| !reads_in_time) {
        return Blamed { fault: Fault::Generator, evidence, limit };
    }
    let mut text = match (sends.planned, sends.late) {
        (planned, 0.0) if planned > 0.0 => {
            format!(
                "The generator had time left and sent all {} messages of that time when they were due",
                grouped(planned)
            )
        }
        (planned, late) if planned > 0.0 => format!(
            "The generator had time left, and what it sent late meanwhile ({} of {} messages, by up to {}) explains little of it",
            grouped(late),
            grouped(planned),
            microseconds_text(Some(sends.latest_us))
        ),
        _ => "The generator had time left meanwhile".to_owned(),
    };
    text += match is_local(run) {
        true => ". There is no network between the two, so it was the server. ",
        false => ". So it was the server, or the network on the way to it. ",
    };
    text += &server(run, stall);
    Blamed { fault: beyond(run), evidence: text, limit: None }
}

/// Whether messages waited for a connection of the publisher, although the server answered what it was asked: then there
/// were too few of them. Where the server leaves them all without an answer, that is what messages waited for.
fn publisher(course: &Value, stall: &Stall) -> Option<Blamed> {
    let longest = |name: &str| {
        let of = column(course, name);
        overlapping(course, stall, of.len())
            .filter_map(|index| of.get(index).copied().flatten())
            .max_by(f64::total_cmp)
    };
    let (waited, answered) = (longest("/waited_microseconds")?, longest("/answered_microseconds")?);
    let half = stall.longest_microseconds / 2.0;
    (waited >= half && answered < half).then(|| {
        let at = |microseconds| microseconds_text(Some(microseconds));
        Blamed {
            fault: Fault::Generator,
            evidence: format!(
                "The publisher let messages of that time wait for up to {} until one of its connections was free, while the server took {} at most to answer one",
                at(waited),
                at(answered)
            ),
            limit: Some(limits::publisher()),
        }
    })
}

/// Whether the generator's threads had no time in a span, and which limit that was.
fn starved(run: &Value, stall: &Stall) -> Option<(String, Option<String>)> {
    let mean = |name: &str| {
        let shares = within(run, name, stall);
        (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64)
    };
    let why = match limits::held_back(run) {
        Some(_) => ": their control group had used up what it is allowed, or others had it",
        None => " that others had",
    };
    if let Some(share) = mean("generator_processor_wait_share").filter(|share| *share >= STARVED_SHARE) {
        let percent = share * 100.0;
        let text = format!("The generator's threads waited {percent:.0} % of that time for a processor{why}");
        return Some((text, Some(limits::processor(run, true))));
    }
    let share = mean("generator_busy_share").filter(|share| *share >= STARVED_SHARE)?;
    let text = format!("The generator's threads had no time left for {:.0} % of that time", share * 100.0);
    Some((text, Some(limits::processor(run, false))))
}

/// What became of the messages that were planned for a span.
#[derive(Clone, Copy, Debug, Default)]
struct Sends {
    planned: f64,
    late: f64,
    latest_us: f64,
}

fn sends(course: &Value, stall: &Stall) -> Sends {
    let (planned, left) = (column(course, "/planned"), column(course, "/left"));
    let (late, latest) = (column(course, "/late"), column(course, "/latest_microseconds"));
    let mut sum = Sends::default();
    for index in overlapping(course, stall, late.len()) {
        let known = |list: &[Option<f64>]| list.get(index).copied().flatten().unwrap_or(0.0);
        // Whose plan is not known, as that of a bystander, has sent what it has.
        sum.planned += if known(&planned) > 0.0 { known(&planned) } else { known(&left) };
        sum.late += known(&late);
        sum.latest_us = sum.latest_us.max(known(&latest));
    }
    sum
}

/// Which of so many columns have a part in a span.
fn overlapping(course: &Value, stall: &Stall, columns: usize) -> impl Iterator<Item = usize> {
    let at = |name: &str| course.get(name).and_then(Value::as_f64).unwrap_or(0.0);
    let (begin, width) = (at("begin_seconds"), at("column_seconds"));
    let (from_seconds, until_seconds) = (stall.from_seconds, stall.until_seconds);
    (0..columns).filter(move |index| {
        let from = begin + *index as f64 * width;
        from + width > from_seconds && from < until_seconds
    })
}

/// What samples say of the span; a sample speaks for the time since the one before. Of a short one that is the sample
/// that it is part of.
fn within(run: &Value, name: &str, stall: &Stall) -> Vec<f64> {
    let (at, values) = (column(run, "/series/at_seconds"), column(run, &format!("/series/{name}")));
    let middle_of_stall = f64::midpoint(stall.from_seconds, stall.until_seconds);
    let speaks = at.windows(2).map(|pair| {
        let (Some(Some(from)), Some(Some(until))) = (pair.first(), pair.last()) else { return false };
        (stall.from_seconds..=stall.until_seconds).contains(&f64::midpoint(*from, *until))
            || (*from..=*until).contains(&middle_of_stall)
    });
    let of_spans = speaks.zip(values.into_iter().skip(1));
    of_spans.filter(|(speaks, _)| *speaks).filter_map(|(_, value)| value).collect()
}

/// What the server did meanwhile, as far as that is known.
fn server(run: &Value, stall: &Stall) -> String {
    let at = column(run, "/series/at_seconds");
    let cpu = column(run, "/series/server_cpu_seconds");
    // Samples are a second apart: only those that the span wholly holds say something of it.
    let inside: Vec<(f64, f64)> = at
        .into_iter()
        .zip(cpu)
        .filter_map(|(at, cpu)| Some((at?, cpu?)))
        .filter(|(at, _)| (stall.from_seconds..=stall.until_seconds).contains(at))
        .collect();
    let (Some((from, used_from)), Some((until, used_until))) = (inside.first(), inside.last()) else {
        return "What it did is not known; --pid or --server-metrics would say more".to_owned();
    };
    let seconds = until - from;
    if seconds <= 0.0 {
        return "It was too short to say from samples of a second what it did".to_owned();
    }
    let cores = (used_until - used_from) / seconds;
    match cores {
        cores if cores <= IDLE_CORES => format!(
            "Its process stood still: it used {:.2} s of processor time in {seconds:.1} s, so it was stopped or waited for something",
            used_until - used_from
        ),
        cores if cores >= BUSY_CORES => format!("Its process was busy: it used {cores:.1} cores"),
        cores => format!("Its process used {cores:.2} cores meanwhile"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const STALL: Stall = Stall {
        from_seconds: 3.0,
        until_seconds: 5.0,
        longest_microseconds: 2e6,
        waited: 900,
        grew: false,
        fault: Fault::Unknown,
        evidence: String::new(),
        limit: None,
    };

    /// Two seconds from 3 s on, of which the generator was late with so many by so much.
    fn course(late: u64, latest_us: f64) -> Value {
        json!({ "begin_seconds": 2.0, "column_seconds": 1.0, "planned": [500, 500, 500, 500], "left": [500, 500, 500, 500],
            "late": [0, late, late, 0], "latest_microseconds": [null, latest_us, 1.0, null] })
    }

    fn run(url: &str, series: Value) -> Value {
        json!({ "url": url, "series": series })
    }

    #[test]
    fn messages_that_waited_for_the_publisher_are_the_servers_only_if_it_did_not_answer() {
        let local = run("ws://127.0.0.1:9/", json!({ "at_seconds": [] }));
        let blamed = |waited_us: Value, answered_us: Value| {
            let mut course = course(0, 1.0);
            course["waited_microseconds"] = json!([null, waited_us, waited_us, null]);
            course["answered_microseconds"] = json!([21e3, answered_us, answered_us, 9e6]);
            blame(&local, &course, &STALL)
        };
        let few = blamed(json!(1.9e6), json!(22e3));
        assert_eq!(few.fault, Fault::Generator, "{few:?}");
        assert!(few.evidence.contains("for up to 1.90 s") && few.evidence.contains("took 22.00 ms at most"));
        assert!(few.limit.is_some_and(|limit| limit.contains("--publishers")));
        // It stood still, and so did all the connections that had asked it something.
        assert_eq!(blamed(json!(1.9e6), json!(2e6)).fault, Fault::Server);
        // What waited explains nothing of it.
        assert_eq!(blamed(json!(30e3), json!(22e3)).fault, Fault::Server);
        assert_eq!(blamed(json!(null), json!(22e3)).fault, Fault::Server);
        // A WebSocket's messages are not answered: they wait for a server that reads no more.
        assert_eq!(blamed(json!(1.9e6), json!(null)).fault, Fault::Server);
    }

    #[test]
    fn who_sends_late_is_to_blame_and_who_is_asked_in_time_otherwise() {
        let none = json!({ "at_seconds": [] });
        let local = run("ws://127.0.0.1:9/", none.clone());
        let Blamed { fault, evidence: text, .. } = blame(&local, &course(400, 1.9e6), &STALL);
        assert!(
            fault == Fault::Generator
                && text.contains("800 of the 1,000 messages of that time late, by up to 1.90 s"),
            "{text}"
        );
        // A few that were a little late explain nothing.
        for (late, latest) in [(400, 3_000.0), (3, 1.9e6)] {
            let Blamed { fault, evidence: text, .. } = blame(&local, &course(late, latest), &STALL);
            assert!(
                fault == Fault::Server && text.contains("no network between") && text.contains("--pid"),
                "{text}"
            );
        }
        let remote = run("wss://chat.example/", none);
        let Blamed { fault, evidence: text, .. } = blame(&remote, &course(0, 0.0), &STALL);
        assert!(fault == Fault::ServerOrNetwork && text.contains("or the network"), "{text}");
    }

    #[test]
    fn threads_without_time_and_a_process_that_stands_still_show() {
        let series = |wait: f64, cpu: [f64; 4]| {
            json!({ "at_seconds": [2.0, 3.1, 4.1, 5.1], "generator_processor_wait_share": [0.0, 0.0, wait, wait],
                "generator_busy_share": [0.0, 0.0, 0.0, 0.0], "server_cpu_seconds": cpu })
        };
        let said = |wait, cpu| {
            let blamed = blame(&run("ws://localhost/", series(wait, cpu)), &course(0, 0.0), &STALL);
            (blamed.fault, blamed.evidence)
        };
        let (fault, text) = said(0.8, [1.0, 1.0, 1.0, 1.0]);
        assert!(
            fault == Fault::Generator
                && text.contains("waited 80 % of that time for a processor that others had"),
            "{text}"
        );
        // An echo whose sends leave in time is read in time.
        let mut echo = run("ws://localhost/", series(0.8, [1.0; 4]));
        echo["command"] = json!("echo");
        assert_eq!(blame(&echo, &course(0, 0.0), &STALL).fault, Fault::Server);
        let late = blame(&echo, &course(400, 1.9e6), &STALL);
        assert!(
            late.fault == Fault::Generator && late.evidence.contains("for a processor that others had"),
            "{late:?}"
        );
        // One that had its processor for a moment in the middle: what it sent then, it read when it had it again.
        let twice = blame(&echo, &course(490, 0.9e6), &STALL);
        assert_eq!(twice.fault, Fault::Generator, "{}", twice.evidence);
        // A stall that is shorter than a sample is part of one.
        let short = Stall { from_seconds: 3.2, until_seconds: 3.4, ..STALL };
        let starved = run("ws://localhost/", series(0.8, [1.0; 4]));
        let blamed = blame(&starved, &course(0, 0.0), &short);
        assert_eq!(blamed.fault, Fault::Generator, "{}", blamed.evidence);
        assert!(blamed.limit.is_some_and(|limit| limit.contains("processor")));
        let (fault, text) = said(0.1, [1.0, 1.1, 1.1, 2.0]);
        assert!(
            fault == Fault::Server && text.contains("stood still: it used 0.00 s of processor time in 1.0 s"),
            "{text}"
        );
        assert!(said(0.1, [1.0, 1.0, 2.0, 3.0]).1.contains("busy: it used 1.0 cores"));
    }
}
