//! Limits that were hit, by what they leave in a result: names of errors, reasons of the generator, the server's open
//! files, the kernel's counters. Pure.

use serde_json::Value;

use super::{Fault, Finding, Weight, beyond, is_local, last_run, number};
use crate::result::html::grouped;

/// Descriptors that a server needs beside connections: who is so near to its limit has reached it.
const FILES_SPARE: f64 = 16.0;
/// Seconds that a control group has to hold the generator back to be named.
const HELD_BACK_LEAST: f64 = 0.1;

/// Those of the generator and its machine.
pub(super) fn generator(report: &Value) -> Vec<Finding> {
    let mut found = Vec::new();
    let machine = |weight, text: String, limit: String| Finding {
        fault: Fault::Generator,
        text,
        limit: Some(limit),
        weight,
    };
    if let Some(count) = errors(report, "generator_descriptors") {
        let table = number(report, "/generator/descriptors_per_table");
        let table =
            table.map_or_else(String::new, |limit| format!(", {} for each of its threads", grouped(limit)));
        found.push(machine(
            Weight::NeverBegun,
            format!("{count} connections were never begun: the generator had no descriptor left for them."),
            format!(
                "The generator's limit on open files (ulimit -n{table}); the server was not asked for them"
            ),
        ));
    }
    if let Some(count) = errors(report, "generator_ports") {
        found.push(machine(
            Weight::NeverBegun,
            format!(
                "{count} connections were never begun: the generator's machine had no port left for them."
            ),
            "The ports of the generator's source addresses (--source takes more of them)".to_owned(),
        ));
    }
    let run = last_run(report);
    let reasons = bottlenecks(run);
    if !reasons.is_empty() {
        // Whose connections are busy sends late as well; whose threads have no time has connections that wait for them.
        let connections =
            reasons.iter().any(|reason| reason.contains("until one of its connections was free"));
        let threads = reasons.iter().any(|reason| reason.contains("its threads"));
        let waited = reasons.iter().any(|reason| reason.contains("waited for a processor"));
        let limit = match connections && !threads {
            true => publisher(),
            false => processor(run, waited),
        };
        let text = format!(
            "The generator was the bottleneck: {}. Latencies are at least partly its own.",
            reasons.join("; ")
        );
        found.push(machine(Weight::Bottleneck, text, limit));
    }
    found
}

/// The limit of a publisher whose connections were all busy.
pub(super) fn publisher() -> String {
    "The publisher's connections (--publishers says how many there may be)".to_owned()
}

/// Why the generator was the bottleneck.
pub(super) fn bottlenecks(run: &Value) -> Vec<&str> {
    let reasons = run.pointer("/generator/bottleneck").and_then(Value::as_array);
    reasons.into_iter().flatten().filter_map(Value::as_str).collect()
}

/// Which limit of processor time the generator has met; `waited` says whether it waited for a processor.
pub(super) fn processor(run: &Value, waited: bool) -> String {
    if let Some(held) = held_back(run) {
        let allowed = number(run, "/generator/processors_allowed").unwrap_or_default();
        return format!(
            "The processor time that the generator's control group allows it: {allowed:.2} processors, used up for {held:.1} s of the run"
        );
    }
    let processors = number(run, "/machine/processors");
    match processors.filter(|_| waited) {
        Some(1.0) => "The one processor that the generator may use, which others used as well".to_owned(),
        Some(many) => {
            format!("The {} processors that the generator may use, which others used as well", grouped(many))
        }
        None => "The generator's own processor time: more --threads, another machine or a lower rate would say more of the server".to_owned(),
    }
}

/// For how many seconds the generator's control group held it back, if that is worth telling.
pub(super) fn held_back(run: &Value) -> Option<f64> {
    number(run, "/generator/held_back_seconds").filter(|held| *held >= HELD_BACK_LEAST)
}

/// Those of the server and what is between.
pub(super) fn server(report: &Value) -> Vec<Finding> {
    let mut found = Vec::new();
    let run = last_run(report);
    found.extend(files(run));
    found.extend(refusals(run));
    found.extend(queue(run));
    found.extend(losses(run));
    found.extend(content(run));
    found
}

/// How many failures have a name, if any.
fn errors(report: &Value, name: &str) -> Option<String> {
    let count = number(last_run(report), &format!("/connections/errors/{name}")).filter(|count| *count > 0.0);
    count.map(grouped)
}

fn files(run: &Value) -> Option<Finding> {
    let (most, limit) = (number(run, "/server_files/most")?, number(run, "/server_files/limit")?);
    (most + FILES_SPARE >= limit).then(|| Finding {
        fault: Fault::Server,
        text: format!("The server had {} files open of {} that it may have.", grouped(most), grouped(limit)),
        weight: Weight::Refused,
        limit: Some(format!(
            "The server's limit on open files ({}; ulimit -n where it is started)",
            grouped(limit)
        )),
    })
}

/// Connections that the server did not open.
fn refusals(run: &Value) -> Vec<Finding> {
    let advice = run.pointer("/connections/advice").and_then(Value::as_array);
    let advice: Vec<&str> = advice.into_iter().flatten().filter_map(Value::as_str).collect();
    let advised = |name: &str| advice.iter().find_map(|text| text.strip_prefix(&format!("{name}: ")));
    let all = run.pointer("/connections/errors").and_then(Value::as_object);
    let mut found = Vec::new();
    for (name, count) in all.into_iter().flatten() {
        let count = grouped(count.as_f64().unwrap_or(0.0));
        let said = advised(name).map_or_else(String::new, |said| format!(" ({said})"));
        let (fault, text, limit) = if let Some(status) = name.strip_prefix("upgrade_status_") {
            let limit = matches!(status, "429" | "503")
                .then(|| format!("A limit of the server's own, which it tells with status {status}{said}"));
            (
                Fault::Server,
                format!("The server refused {count} connections with status {status}{said}."),
                limit,
            )
        } else {
            match name.as_str() {
                "connect_refused" => {
                    (Fault::Server, format!("{count} connections were refused: nobody listened{said}."), None)
                }
                "connect_timeout" => (
                    beyond(run),
                    format!("{count} connections were not accepted within ten seconds{said}."),
                    None,
                ),
                "unreachable" => {
                    (Fault::ServerOrNetwork, format!("{count} connections found no way there{said}."), None)
                }
                "await_timeout" | "tls_timeout" => (
                    beyond(run),
                    format!("{count} connections had no answer within ten seconds{said}."),
                    None,
                ),
                name if name.starts_with("generator_") || name.starts_with("lost_") => continue,
                name => (
                    beyond(run),
                    format!("{count} connections could not be opened: {}{said}.", name.replace('_', " ")),
                    None,
                ),
            }
        };
        found.push(Finding { fault, text, limit, weight: Weight::Refused });
    }
    found
}

/// Connections for which the kernel had no room with whoever listens.
fn queue(run: &Value) -> Option<Finding> {
    let count = number(run, "/kernel/listen_overflows").filter(|count| *count > 0.0 && is_local(run))?;
    Some(Finding {
        fault: Fault::Server,
        text: format!(
            "{} times a connection found the queue of those that wait to be accepted full (of any program on this machine).",
            grouped(count)
        ),
        weight: Weight::Noted,
        limit: Some("The kernel's queue of connections that wait to be accepted (the server's backlog, net.core.somaxconn)".to_owned()),
    })
}

fn losses(run: &Value) -> Option<Finding> {
    let lost = number(run, "/connections/lost").filter(|lost| *lost > 0.0)?;
    let all = run.pointer("/connections/errors").and_then(Value::as_object);
    let how: Vec<String> = all
        .into_iter()
        .flatten()
        .filter_map(|(name, count)| {
            Some(format!("{} {count}", name.strip_prefix("lost_")?.replace('_', " ")))
        })
        .collect();
    let closes = run.pointer("/connections/closes").and_then(Value::as_object);
    let said: Vec<String> =
        closes.into_iter().flatten().map(|(close, count)| format!("{close}: {count}")).collect();
    let said = if said.is_empty() { String::new() } else { format!(", closed with {}", said.join(", ")) };
    Some(Finding {
        fault: beyond(run),
        text: format!("{} open connections were lost ({}{said}).", grouped(lost), how.join(", ")),
        limit: None,
        weight: Weight::Lost,
    })
}

/// Messages that did not come as they should have.
fn content(run: &Value) -> Option<Finding> {
    let counts = [
        ("missing", "missing"),
        ("duplicate", "twice"),
        ("reordered", "out of order"),
        ("corrupt", "changed"),
    ];
    let wrong: Vec<String> = counts
        .iter()
        .filter_map(|(field, how)| {
            let count = number(run, &format!("/{field}")).filter(|count| *count > 0.0)?;
            Some(format!("{} {how}", grouped(count)))
        })
        .collect();
    (!wrong.is_empty()).then(|| Finding {
        fault: Fault::Server,
        text: format!("Messages did not come as they were sent: {}.", wrong.join(", ")),
        limit: None,
        weight: Weight::Content,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::result::findings::find;
    use serde_json::json;

    #[test]
    fn a_limit_is_named_with_whose_it_is() {
        let of = |errors: Value, more: Value| {
            let mut report = json!({ "command": "idle", "ok": false, "url": "ws://127.0.0.1:1/ws",
                "connections": { "errors": errors, "lost": 0, "advice": ["upgrade_status_503: full (connections)"] } });
            report.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            find(&report)
        };
        let table = json!({ "generator": { "descriptors_per_table": 64, "bottleneck": [] } });
        let found = of(json!({ "generator_descriptors": 40 }), table);
        assert_eq!(found.fault, Fault::Generator);
        assert!(found.limit.unwrap().contains("ulimit -n, 64 for each of its threads"));
        let found = of(json!({ "upgrade_status_503": 1200 }), json!({}));
        assert_eq!((found.fault, found.stalled), (Fault::Server, None));
        assert!(found.limit.unwrap().contains("status 503 (full (connections))"));
        let files = json!({ "server_files": { "most": 1020, "limit": 1024 } });
        let found = of(json!({ "connect_timeout": 3 }), files);
        assert!(
            found.limit.unwrap().starts_with("The server's limit on open files (1,024"),
            "{:?}",
            found.findings
        );
        assert_eq!(found.findings.len(), 2);
        let found = of(json!({}), json!({ "kernel": { "listen_overflows": 7 } }));
        assert!(found.fault == Fault::Server && found.limit.unwrap().contains("somaxconn"));
    }

    #[test]
    fn a_generator_without_a_processor_says_who_had_it() {
        let limit = |reason: &str, generator: Value, processors: u64| {
            let mut generator = generator;
            generator["bottleneck"] = json!([reason]);
            let found =
                find(&json!({ "ok": true, "generator": generator, "machine": { "processors": processors } }));
            assert_eq!(found.fault, Fault::Generator);
            found.limit.unwrap()
        };
        let waited = "its threads waited for a processor for 70 % of the load";
        assert!(
            limit(waited, json!({}), 1)
                .contains("one processor that the generator may use, which others used")
        );
        assert!(limit(waited, json!({}), 4).contains("The 4 processors"));
        assert!(limit("its threads had no time left", json!({}), 4).contains("--threads"));
        let held = json!({ "processors_allowed": 0.2, "held_back_seconds": 2.34 });
        let said = limit(waited, held, 2);
        assert!(said.contains("control group allows it: 0.20 processors, used up for 2.3 s"), "{said}");
        // What a moment of it explains is nothing.
        let little = json!({ "processors_allowed": 0.2, "held_back_seconds": 0.01 });
        assert!(!limit(waited, little, 2).contains("group"));
    }

    #[test]
    fn nobody_is_to_blame_for_what_went_well_and_what_failed_comes_first() {
        let found =
            find(&json!({ "command": "idle", "ok": true, "connections": { "errors": {}, "lost": 0 } }));
        assert_eq!((found.fault, found.limit, found.findings.len()), (Fault::Nobody, None, 0));
        let found =
            find(&json!({ "ok": false, "missing": 3, "generator": { "bottleneck": ["no time left"] } }));
        // What is gone weighs more than what was late.
        assert_eq!((found.fault, found.findings.len()), (Fault::Server, 2));
        let unknown = find(&json!({ "ok": false, "problems": ["p99>1ms: it is 2.00 ms"] }));
        assert_eq!(unknown.fault, Fault::Unknown);
        // What broke is in the last step.
        let reasons = [
            "11.0 % of its sends left more than 1 ms late",
            "publisher saturated: 5 % of its messages waited until one of its connections was free",
        ];
        let step = json!({ "result": { "generator": { "bottleneck": reasons } } });
        let found = find(&json!({ "command": "capacity", "ok": true, "steps": [{}, step] }));
        assert!(found.limit.unwrap().contains("--publishers"));
    }
}
