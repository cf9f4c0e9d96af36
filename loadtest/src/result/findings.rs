//! What a result says in words: when it stalled, whose fault it was, which limit was hit. Read from the result file's
//! fields, whatever the command, so that it says nothing that they do not. Pure.

mod limits;
mod stalls;
mod suspects;

use serde::Serialize;
use serde_json::Value;

use stalls::Stall;

/// Stalls that are told one by one, the longest.
const STALLS_MAX: usize = 3;

/// Who is to blame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Fault {
    /// Nothing went wrong.
    Nobody,
    /// The server, or what it runs on.
    Server,
    /// The generator, or the machine that it runs on.
    Generator,
    /// Server or network: from here they look alike.
    ServerOrNetwork,
    /// Something is wrong and the result does not say whose fault it is.
    Unknown,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Finding {
    /// Who is to blame for it.
    pub(crate) fault: Fault,
    /// What it is, one sentence or two.
    pub(crate) text: String,
    /// Which limit was hit by it; null if none is known.
    pub(crate) limit: Option<String>,
    /// What weighs more is told first.
    #[serde(skip)]
    weight: Weight,
}

/// How much something weighs, from little to much: what failed more than what waited, and a long wait more than a
/// generator that was a little late all the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Weight {
    Noted,
    ShortStall,
    Bottleneck,
    Content,
    LongStall,
    Lost,
    Refused,
    NeverBegun,
}

/// See the module's head.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Findings {
    /// Who is to blame for what weighs most.
    pub(crate) fault: Fault,
    /// When it stalled, in a sentence; null if the command sends nothing.
    pub(crate) stalled: Option<String>,
    /// The limit that was hit by who is to blame for that, in a sentence; null if none is known.
    pub(crate) limit: Option<String>,
    /// All that was found, what weighs most first.
    pub(crate) findings: Vec<Finding>,
    /// The longest times in which messages waited.
    pub(crate) stalls: Vec<Stall>,
}

/// What `report` says. Of several runs each has its own; a result of them is judged by the last run's course.
pub(crate) fn find(report: &Value) -> Findings {
    let run = last_run(report);
    let stalls = stalls::stalls(run);
    let mut findings = limits::generator(report);
    findings.extend(stalls.iter().take(STALLS_MAX).map(|stall| stall.finding(run)));
    findings.extend(limits::server(report));
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.weight));
    let ok = report.get("ok").and_then(Value::as_bool);
    if let (true, Some(false)) = (findings.is_empty(), ok) {
        let problems = report.get("problems").and_then(Value::as_array).into_iter().flatten();
        findings.extend(problems.filter_map(Value::as_str).map(|problem| Finding {
            fault: Fault::Unknown,
            text: format!("{problem}."),
            limit: None,
            weight: Weight::Noted,
        }));
    }
    // What the same one is to blame for may well be why.
    let mut of_the_first =
        findings.iter().filter(|finding| findings.first().is_some_and(|f| f.fault == finding.fault));
    let limit = of_the_first.find_map(|finding| finding.limit.clone());
    let fault = match (findings.first(), ok) {
        (Some(first), _) => first.fault,
        (None, Some(false)) => Fault::Unknown,
        (None, _) => Fault::Nobody,
    };
    let stalled = stalls::has_course(run).then(|| stalls::sentence(&stalls, run));
    let mut stalls = stalls;
    stalls.truncate(STALLS_MAX);
    Findings { fault, stalled, limit, findings, stalls }
}

/// Whether the generator was the bottleneck in the run that a result is judged by.
pub(crate) fn is_bottleneck(report: &Value) -> bool {
    !limits::bottlenecks(last_run(report)).is_empty()
}

/// Adds to a result that was made of others what is found in it.
pub(crate) fn add(report: &mut Value) {
    let found = serde_json::to_value(find(report));
    if let (Value::Object(fields), Ok(found)) = (report, found) {
        fields.insert("findings".into(), found);
    }
}

/// The single run that a result's course is of.
fn last_run(report: &Value) -> &Value {
    let last = |name: &str| report.get(name).and_then(Value::as_array).and_then(|list| list.last());
    if let Some(run) = last("repeats") {
        return run;
    }
    match last("steps").and_then(|step| step.get("result")) {
        Some(run) => last_run(run),
        None => report,
    }
}

impl Fault {
    /// An answer to "Whose fault was it?".
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Nobody => "Nobody's",
            Self::Server => "The server's",
            Self::Generator => "The generator's own",
            Self::ServerOrNetwork => "The server's or the network's",
            Self::Unknown => "Not known",
        }
    }
}

/// A number of a result, by its JSON pointer.
fn number(report: &Value, path: &str) -> Option<f64> {
    report.pointer(path).and_then(Value::as_f64)
}

/// A column of a result's lists.
fn column(report: &Value, path: &str) -> Vec<Option<f64>> {
    let list = report.pointer(path).and_then(Value::as_array);
    list.into_iter().flatten().map(Value::as_f64).collect()
}

/// Whether server and generator are on one machine, so that there is no network between them.
fn is_local(report: &Value) -> bool {
    let url = report.get("url").and_then(Value::as_str).unwrap_or_default();
    let place = url.split_once("://").map_or(url, |(_, place)| place);
    let host = place.split(['/', '?']).next().unwrap_or_default();
    host.starts_with("127.") || host.starts_with("localhost") || host.starts_with("[::1]")
}

/// The server's fault, or on another machine perhaps the network's.
fn beyond(report: &Value) -> Fault {
    if is_local(report) { Fault::Server } else { Fault::ServerOrNetwork }
}
