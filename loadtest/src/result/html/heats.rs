//! Which heat maps a result has: messages by send time, a bystander's, clients that came back. Pure.

use serde_json::Value;

use super::charts::latency_name;
use super::heat::Heat;
use crate::result::findings;

/// The cards of a run, one behind the other.
pub(super) fn cards(run: &Value) -> String {
    let command = run.get("command").and_then(Value::as_str).unwrap_or_default();
    let stalls = findings::find(run).stalls.into_iter().map(|stall| {
        let name =
            format!("messages waited from {:.2} s to {:.2} s", stall.from_seconds, stall.until_seconds);
        (stall.from_seconds, stall.until_seconds, name)
    });
    let stalls: Vec<(f64, f64, String)> = stalls.collect();
    let drop = run.get("dropped_at_seconds").and_then(Value::as_f64);
    let dropped: Vec<(f64, f64, String)> =
        drop.map(|at| (at, at, format!("connections were dropped from {at:.3} s on"))).into_iter().collect();
    let of = |path: &str| run.pointer(path).unwrap_or(&Value::Null);
    let messages = Heat {
        title: &format!("{} by send time", latency_name(command)),
        note: "Each column is the messages that were planned to leave then; the higher, the longer they took. A stall is a \
               triangle: the first that it caught waited longest.",
        what: "messages",
        time: "planned send time since the first connect",
        course: of("/latency_by_send_time"),
        marks: &stalls,
    };
    let returns = Heat {
        title: "Time away by return time",
        note: "Each column is the clients that were open again then; the higher, the longer they had been away.",
        what: "clients",
        time: "time since the first connect",
        course: of("/away_by_return_time"),
        marks: &dropped,
    };
    let bystander = Heat {
        title: "Bystander's echo by send time",
        note: "What a connection that took no part felt of it.",
        what: "echoes",
        time: "planned send time since the first connect",
        course: of("/bystander/latency_by_send_time"),
        marks: if stalls.is_empty() { &dropped } else { &stalls },
    };
    [messages, returns, bystander].iter().map(Heat::card).collect()
}
