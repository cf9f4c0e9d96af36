//! The few figures that a reader looks for first. Pure.

use std::fmt::Write as _;

use serde_json::Value;

use super::axis::{Unit, text};
use super::{escape, grouped};

/// The few figures that a reader looks for first; only those that the command has.
pub(super) fn tiles(report: &Value, out: &mut String) {
    let number = |path: &str| report.pointer(path).and_then(Value::as_f64);
    let command = report.get("command").and_then(Value::as_str).unwrap_or_default();
    out.push_str("<dl class=\"tiles\">");
    let mut tile = |name: &str, value: Option<String>, note: &str| {
        let Some(value) = value else { return };
        let note = if note.is_empty() { String::new() } else { format!("<small>{}</small>", escape(note)) };
        let _ = write!(out, "<div><dt>{}</dt><dd>{}{note}</dd></div>", escape(name), escape(&value));
    };
    let count = |path: &str| number(path).map(grouped);
    let wanted = count("/connections/wanted").map(|wanted| format!("of {wanted} wanted"));
    tile("connections opened", count("/connections/opened"), &wanted.unwrap_or_default());
    let variable = report.get("variable").and_then(Value::as_str).unwrap_or_default();
    let step = |path: &str| number(path).map(|value| value.to_string());
    let none = || (!variable.is_empty()).then(|| "none".to_owned());
    tile("highest step that held", step("/highest_held").or_else(none), variable);
    tile("first that broke", step("/broke_at").or_else(none), variable);
    let differ = report.get("figures").and_then(Value::as_array).map(|figures| {
        let differs = |figure: &&Value| matches!(figure["verdict"].as_str(), Some("lower" | "higher"));
        figures.iter().filter(differs).count().to_string()
    });
    tile("figures that differ", differ, "by more than the noise");
    tile("runs of A", count("/a_runs"), "");
    tile("runs of B", count("/b_runs"), "");
    tile("opened per second", count("/connections/opened_per_second"), "");
    let time = |path: &str| number(path).map(|value| text(Unit::Time, value));
    tile("connect latency, p99", time("/connections/connect_latency/p99_microseconds"), "");
    let (name, from) = match command {
        "echo" => ("round trip", "from the planned send time"),
        _ => ("delivery latency", "from the planned send time"),
    };
    tile(&format!("{name}, p50"), time("/latency/p50_microseconds"), from);
    tile(&format!("{name}, p99"), time("/latency/p99_microseconds"), from);
    tile(
        "came back",
        count("/dropped").and_then(|_| count("/returned")),
        &count("/dropped").map(|all| format!("of {all} dropped")).unwrap_or_default(),
    );
    let served_again = number("/served_again_seconds").map(|seconds| text(Unit::Time, seconds * 1e6));
    tile("all served again in", served_again, "");
    tile("away, p99", time("/away/p99_microseconds"), "waits included");
    tile("bystander's echo, p99", time("/bystander/during/p99_microseconds"), "while they came back");
    tile("deliveries per second", count("/deliveries_per_second"), "");
    tile("messages missing", count("/missing"), "");
    let waited = number("/generator/waited_share") > number("/generator/late_share");
    let why = if waited { "for want of a connection" } else { "the generator's own" };
    let latest = time("/generator/late_max_microseconds").map(|latest| format!("{why}, by up to {latest}"));
    tile("late sends", count("/generator/late_sends"), &latest.unwrap_or_default());
    let bytes = |value: f64| text(Unit::Bytes, value);
    let idle = number("/server/user_bytes_per_connection").map(bytes);
    let resident = number("/server/resident_bytes_per_connection").filter(|_| idle.is_none()).map(bytes);
    tile("server memory per connection", idle, "user space");
    tile("server memory per connection", resident, "resident, file pages included");
    tile(
        "TLS handshake, p99",
        time("/tls/handshake_latency/p99_microseconds"),
        "part of the connect latency",
    );
    for kind in report.get("kinds").and_then(Value::as_array).into_iter().flatten() {
        let is = |field: &str, text: &str| kind.get(field).and_then(Value::as_str) == Some(text);
        let slope = kind.get("bytes_per_connection").and_then(Value::as_f64);
        let sure = kind.get("bytes_per_connection_plus_minus").and_then(Value::as_f64);
        let value = slope.map(|slope| match sure {
            Some(sure) => format!("{} ± {}", bytes(slope), bytes(sure)),
            None => bytes(slope),
        });
        if is("name", "user") && is("end", "server") {
            tile("server memory per connection", value.clone(), "user space, 95 % confidence");
        } else if is("name", "slab") {
            let ends = if is("end", "both") { "both ends together" } else { "the generator's end" };
            tile("kernel objects per connection", value.clone(), ends);
        }
    }
    out.push_str("</dl>\n");
}
