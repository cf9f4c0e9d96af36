//! The page of `--html`: one file without references, charts as inline SVG, for phone and desktop, light and dark.
//!
//! Made of a result file's fields and the table's rows, so it tells nothing that they do not. Pure.

mod axis;
mod chart;
mod charts;
mod tables;

use std::fmt::Write as _;

use serde_json::Value;

use axis::{Unit, text};

const STYLE: &str = include_str!("style.css");

/// The whole page. `rows` are those of the table on standard output; a name that begins with a blank belongs to the
/// row above.
pub(crate) fn page(report: &Value, rows: &[(String, String)]) -> String {
    let command = report.get("command").and_then(Value::as_str).unwrap_or("result");
    let url = report.get("url").and_then(Value::as_str).unwrap_or_default();
    let mut out = String::with_capacity(64 * 1024);
    let _ = write!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{command} {url} · fantail-loadtest</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header><h1>fantail-loadtest {command}</h1><p>{url}</p><p>{when}</p></header>\n",
        command = escape(command),
        url = escape(url),
        when = escape(&when(report)),
    );
    verdict(report, &mut out);
    bottleneck(report, &mut out);
    unverified(report, &mut out);
    tiles(report, &mut out);
    // Medians of several runs have no course over time; the last run stands for them.
    let repeats = report.get("repeats").and_then(Value::as_array).filter(|repeats| !repeats.is_empty());
    if let Some(repeats) = repeats {
        let _ =
            writeln!(out, "<p>Figures are medians of {0} runs; charts are of run {0}.</p>", repeats.len());
    }
    let charted = repeats.and_then(|repeats| repeats.last()).unwrap_or(report);
    let cards: String = charts::charts(charted).iter().map(chart::Chart::card).collect();
    let _ = write!(out, "<div class=\"cards\">\n{cards}</div>\n");
    tables::tables(report, &mut out);
    out.push_str("<div class=\"columns\">\n");
    if !rows.is_empty() {
        let rows = rows.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        table("Result", rows, &mut out);
    }
    if let Some(settings) = report.get("settings").and_then(Value::as_object) {
        let settings =
            settings.iter().map(|(name, value)| (name.as_str(), value.as_str().unwrap_or_default()));
        table("Settings", settings, &mut out);
    }
    out.push_str("</div>\n</body>\n</html>\n");
    out
}

/// Text for the inside of an element or an attribute in double quotes.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
    }
    out
}

/// When it began, and by which version.
fn when(report: &Value) -> String {
    let version = report.get("generator_version").and_then(Value::as_str).unwrap_or_default();
    match report.get("started_unix_seconds").and_then(Value::as_f64) {
        Some(seconds) => format!("{}, version {version}", utc(seconds)),
        None => format!("version {version}"),
    }
}

/// "2026-11-21 17:05:09 UTC" (days to a date as in Howard Hinnant's "chrono-compatible low-level date algorithms").
fn utc(unix_seconds: f64) -> String {
    let seconds = unix_seconds.max(0.0) as u64;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
}

fn verdict(report: &Value, out: &mut String) {
    // A comparison judges nothing.
    if report.get("ok").is_none() {
        let differ = report.get("differing_settings").and_then(Value::as_array).into_iter().flatten();
        let differ: Vec<&str> = differ.filter_map(Value::as_str).collect();
        if !differ.is_empty() {
            out.push_str("<div class=\"verdict bad\">Set differently, so ratios mean little: ");
            let _ = writeln!(out, "{}</div>", escape(&differ.join("; ")));
        }
        return;
    }
    if report.get("ok").and_then(Value::as_bool) == Some(true) {
        // Of steps one breaks in the end, and a plan has opened nothing.
        let said = match report.get("command").and_then(Value::as_str) {
            Some("capacity") => "✓ ok: at least one step held",
            Some("plan") => "✓ ok: it fits",
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

/// Figures of a generator that could do no more say little about the server, so that comes before them.
fn bottleneck(report: &Value, out: &mut String) {
    let reasons = report.pointer("/generator/bottleneck").and_then(Value::as_array);
    let reasons: Vec<&str> = reasons.into_iter().flatten().filter_map(Value::as_str).collect();
    if !reasons.is_empty() {
        let _ = writeln!(
            out,
            "<div class=\"verdict bad\">The generator itself was the bottleneck: {}</div>",
            escape(&reasons.join("; "))
        );
    }
}

/// Whoever reads about TLS should know when nobody looked at certificates.
fn unverified(report: &Value, out: &mut String) {
    if report.pointer("/tls/verified").and_then(Value::as_bool) == Some(false) {
        out.push_str(
            "<div class=\"verdict bad\">The server's certificate was not verified (--insecure): anybody could be \
             the server</div>\n",
        );
    }
}

/// The few figures that a reader looks for first; only those that the command has.
fn tiles(report: &Value, out: &mut String) {
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
        count("/returned"),
        &count("/dropped").map(|all| format!("of {all} dropped")).unwrap_or_default(),
    );
    let served_again = number("/served_again_seconds").map(|seconds| text(Unit::Time, seconds * 1e6));
    tile("all served again in", served_again, "");
    tile("away, p99", time("/away/p99_microseconds"), "waits included");
    tile("bystander's echo, p99", time("/bystander/during/p99_microseconds"), "while they came back");
    tile("deliveries per second", count("/deliveries_per_second"), "");
    tile("messages missing", count("/missing"), "");
    let latest = time("/generator/late_max_microseconds")
        .map(|latest| format!("the generator's own, by up to {latest}"));
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

fn table<'a>(title: &str, rows: impl Iterator<Item = (&'a str, &'a str)>, out: &mut String) {
    let _ = write!(out, "<section><h2>{title}</h2><div class=\"scroll\"><table class=\"stacked\">");
    for (name, value) in rows {
        let class = if name.starts_with(' ') { " class=\"sub\"" } else { "" };
        let _ = write!(out, "<tr><th{class}>{}</th><td>{}</td></tr>", escape(name.trim()), escape(value));
    }
    out.push_str("</table></div></section>\n");
}

/// A whole number with its thousands set apart.
fn grouped(value: f64) -> String {
    let digits = format!("{:.0}", value.abs());
    let mut out = String::from(if value < 0.0 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn dates_are_right() {
        assert_eq!(utc(0.0), "1970-01-01 00:00:00 UTC");
        assert_eq!(utc(951_827_696.0), "2000-02-29 12:34:56 UTC");
        assert_eq!(utc(1_795_280_709.9), "2026-11-21 17:05:09 UTC");
    }

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(grouped(1_000_000.4), "1,000,000");
        assert_eq!((grouped(999.0), grouped(0.0)), ("999".into(), "0".into()));
    }

    #[test]
    fn what_others_wrote_is_text_and_never_markup() {
        let evil = "\"><script>alert(1)</script>";
        let report = json!({ "command": evil, "url": evil, "ok": false, "problems": [evil], "settings": { evil: evil } });
        let page = page(&report, &[(evil.to_owned(), evil.to_owned())]);
        assert!(!page.contains("<script"), "{page}");
        assert!(page.contains("&lt;script&gt;alert(1)"));
    }

    #[test]
    fn repeated_runs_show_the_charts_of_one() {
        let run = json!({ "series": { "at_seconds": [0.0, 1.0], "open": [0, 5] } });
        let page = page(&json!({ "command": "idle", "ok": true, "repeats": [{}, run] }), &[]);
        assert!(page.contains("medians of 2 runs") && page.contains("<h2>Connections</h2>"));
    }

    #[test]
    fn a_generator_at_its_limit_is_told_first() {
        let report = |reasons: &[&str]| json!({ "ok": true, "generator": { "bottleneck": reasons } });
        assert!(page(&report(&["no <time> left"]), &[]).contains("bottleneck: no &lt;time&gt; left"));
        assert!(!page(&report(&[]), &[]).contains("bottleneck"));
    }

    #[test]
    fn certificates_that_nobody_verified_are_told_first() {
        let report = |verified: bool| json!({ "ok": true, "tls": { "verified": verified } });
        assert!(page(&report(false), &[]).contains("was not verified (--insecure)"));
        assert!(!page(&report(true), &[]).contains("verified"));
        assert!(!page(&json!({ "ok": true, "tls": null }), &[]).contains("verified"));
    }

    #[test]
    fn only_a_run_that_was_made_and_held_came_right() {
        let ok = |command: &str| page(&json!({ "command": command, "ok": true }), &[]);
        assert!(ok("echo").contains("nothing failed"));
        assert!(!ok("capacity").contains("nothing failed") && !ok("plan").contains("nothing failed"));
    }

    #[test]
    fn the_page_refers_to_nothing() {
        let page = page(&json!({ "command": "idle", "ok": true }), &[]);
        for reference in ["http://", "https://", "src=", "href=", "@import", "url("] {
            assert!(!page.contains(reference), "{reference}");
        }
    }
}
