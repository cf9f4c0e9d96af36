//! The top of the page, which a stranger reads first: what came out, when it stalled, whose fault it was, which limit was
//! hit, and how to run it again. Pure.

use std::fmt::Write as _;

use serde_json::Value;

use super::escape;
use crate::result::findings::{self, Fault, Finding, Findings};
use crate::result::report::microseconds_text;

/// The verdict, what is to be known before any figure, and the three answers.
pub(super) fn top(report: &Value, out: &mut String) {
    let found = findings::find(report);
    verdict(report, &found, out);
    unverified(report, out);
    strained(report, out);
    if report.get("series").is_none() && report.get("steps").is_none() {
        return;
    }
    out.push_str("<section class=\"answers\" aria-label=\"In short\"><dl>");
    let mut answer = |question: &str, said: &str, more: &str, class: &str| {
        let more =
            if more.is_empty() { String::new() } else { format!("<small>{}</small>", with_flags(more)) };
        let _ = write!(
            out,
            "<div class=\"{class}\"><dt>{}</dt><dd>{}{more}</dd></div>",
            escape(question),
            with_flags(said)
        );
    };
    if let Some(stalled) = &found.stalled {
        let class = if found.stalls.is_empty() { "good" } else { "bad" };
        answer("When did it stall?", stalled, "", class);
    }
    let first =
        found.findings.first().map_or("Nothing failed, was lost, came wrong or waited.", |first| &first.text);
    answer("Whose fault was it?", found.fault.text(), first, class(found.fault));
    let limit = found.limit.as_deref().unwrap_or(match found.fault {
        Fault::Nobody => "None",
        _ => "None that this result knows of",
    });
    answer("Which limit was hit?", limit, "", if found.limit.is_some() { "bad" } else { "good" });
    out.push_str("</dl>");
    others(&found.findings, out);
    out.push_str("</section>\n");
}

/// What was found beside the first.
fn others(findings: &[Finding], out: &mut String) {
    let Some((_, others)) = findings.split_first().filter(|(_, others)| !others.is_empty()) else { return };
    out.push_str("<h2>Also found</h2><ul class=\"found\">");
    for finding in others {
        let limit = finding.limit.as_ref().map(|limit| format!(" Limit: {limit}.")).unwrap_or_default();
        let (fault, text) = (finding.fault.text(), &finding.text);
        let _ = write!(out, "<li><b>{}:</b> {}{}</li>", escape(fault), with_flags(text), with_flags(&limit));
    }
    out.push_str("</ul>");
}

/// Text for the inside of an element, in which no line ends within a flag: after its hyphens it could.
fn with_flags(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for word in text.split_inclusive([' ', '(']) {
        let end =
            word.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '-').unwrap_or(word.len());
        match word.split_at(end) {
            (flag, rest) if flag.starts_with("--") => {
                let _ = write!(out, "<span class=\"flag\">{flag}</span>{}", escape(rest));
            }
            _ => out.push_str(&escape(word)),
        }
    }
    out
}

fn class(fault: Fault) -> &'static str {
    match fault {
        Fault::Nobody => "good",
        Fault::Generator | Fault::Unknown => "warn",
        Fault::Server | Fault::ServerOrNetwork => "bad",
    }
}

/// How to run it again, with a button that also works on a page out of a file.
pub(super) fn command_line(report: &Value, out: &mut String) {
    let line = report.get("command_line").and_then(Value::as_str).unwrap_or_default();
    if line.is_empty() {
        return;
    }
    let _ = writeln!(
        out,
        "<section class=\"again\"><h2>To run it again</h2><div class=\"command\"><pre tabindex=\"0\" aria-label=\"Command line\">{}</pre>\
         <button type=\"button\" hidden>Copy</button></div><p role=\"status\" class=\"note\"></p></section>",
        with_flags(line)
    );
}

fn verdict(report: &Value, found: &Findings, out: &mut String) {
    // A comparison judges nothing.
    if report.get("ok").is_none() {
        let differ = report.get("differing_settings").and_then(Value::as_array).into_iter().flatten();
        let differ: Vec<&str> = differ.filter_map(Value::as_str).collect();
        if !differ.is_empty() {
            out.push_str("<div class=\"verdict warn\">⚠ Set differently, so ratios mean little: ");
            let _ = writeln!(out, "{}</div>", escape(&differ.join("; ")));
        }
        return;
    }
    if report.get("ok").and_then(Value::as_bool) == Some(true) {
        // Of steps one breaks in the end, and a plan has opened nothing.
        let said = match report.get("command").and_then(Value::as_str) {
            Some("capacity") => "✓ ok: at least one step held",
            Some("plan") => "✓ ok: it fits",
            // Green alone would say that it went well.
            _ if !found.stalls.is_empty() => {
                let longest = found.stalls.first().map(|stall| stall.longest_microseconds);
                let _ = writeln!(
                    out,
                    "<div class=\"verdict warn\">⚠ ok, but messages waited, up to {}: nothing failed, was lost or came wrong</div>",
                    microseconds_text(longest)
                );
                return;
            }
            _ => "✓ ok: nothing failed, was lost or came wrong",
        };
        let _ = writeln!(out, "<div class=\"verdict good\">{said}</div>");
        return;
    }
    out.push_str("<div class=\"verdict bad\">✗ not ok<ul>");
    for problem in report.get("problems").and_then(Value::as_array).into_iter().flatten() {
        let _ = write!(out, "<li>{}</li>", escape(problem.as_str().unwrap_or_default()));
    }
    out.push_str("</ul></div>\n");
}

/// Who reads that all was well should know whose latencies these are.
fn strained(report: &Value, out: &mut String) {
    if report.get("ok").is_none() || !findings::is_bottleneck(report) {
        return;
    }
    out.push_str(
        "<div class=\"verdict warn\">⚠ The generator itself was the bottleneck: latencies are at least partly its own, \
         and say little of the server</div>\n",
    );
}

/// Whoever reads about TLS should know when nobody looked at certificates.
fn unverified(report: &Value, out: &mut String) {
    if report.pointer("/tls/verified").and_then(Value::as_bool) == Some(false) {
        out.push_str(
            "<div class=\"verdict warn\">⚠ The server's certificate was not verified (--insecure): anybody could be \
             the server</div>\n",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_line_ends_within_a_flag_and_nothing_else_is_markup() {
        let said = with_flags("few (--publishers says) <b> --json a-b --url='x'");
        assert_eq!(
            said,
            "few (<span class=\"flag\">--publishers</span> says) &lt;b&gt; <span class=\"flag\">--json</span> a-b \
             <span class=\"flag\">--url</span>=&#39;x&#39;"
        );
        let one = with_flags("--a<i>");
        assert_eq!(one, "<span class=\"flag\">--a</span>&lt;i&gt;");
    }

    #[test]
    fn a_run_whose_messages_waited_is_not_green() {
        let top = |longest_us: f64| {
            let course = json!({ "begin_seconds": 0.0, "column_seconds": 1.0, "planned": [9, 9], "left": [9, 9],
                "late": [0, 0], "latest_microseconds": [null, null], "highest_microseconds": [900.0, longest_us],
                "highest_at_seconds": [0.1, 1.1],
                "cells": { "column": [0, 1], "lowest_nanoseconds": [786_432, 786_432], "count": [9, 9] } });
            let mut out = String::new();
            top(
                &json!({ "command": "echo", "ok": true, "series": {}, "latency_by_send_time": course }),
                &mut out,
            );
            out
        };
        assert!(top(2e6).contains("verdict warn\">⚠ ok, but messages waited, up to 2.00 s"), "{}", top(2e6));
        assert!(
            top(1_000.0).contains("verdict good") && !top(1_000.0).contains("warn\">"),
            "{}",
            top(1_000.0)
        );
    }
}
