//! The page of `--html`: one file without references, charts as inline SVG, for phone and desktop, light and dark.
//!
//! Made of a result file's fields and the table's rows, so it tells nothing that they do not. Pure.

mod axis;
mod chart;
mod charts;
mod heat;
mod heats;
mod summary;
mod tables;
mod tiles;

use std::fmt::Write as _;

use serde_json::Value;

const STYLE: &str = include_str!("style.css");
/// Copies the command line. A page out of a file has no clipboard of its own in every browser, so the old way is tried
/// first.
const SCRIPT: &str = include_str!("copy.js");

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
         <header><h1>fantail-loadtest {command}{label}</h1><p>{url}</p><p>{when}</p></header>\n<main>\n",
        command = escape(command),
        label = label(report),
        url = escape(url),
        when = escape(&when(report)),
    );
    summary::top(report, &mut out);
    tiles::tiles(report, &mut out);
    summary::command_line(report, &mut out);
    // Medians of several runs have no course over time; the last run stands for them.
    let repeats = report.get("repeats").and_then(Value::as_array).filter(|repeats| !repeats.is_empty());
    if let Some(repeats) = repeats {
        let _ =
            writeln!(out, "<p>Figures are medians of {0} runs; charts are of run {0}.</p>", repeats.len());
    }
    let charted = repeats.and_then(|repeats| repeats.last()).unwrap_or(report);
    let cards: String = charts::charts(charted).iter().map(chart::Chart::card).collect();
    let _ = write!(out, "<div class=\"cards\">\n{}{cards}</div>\n", heats::cards(charted));
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
    let _ = write!(out, "</div>\n</main>\n<script>\n{SCRIPT}</script>\n</body>\n</html>\n");
    out
}

/// What `--label` calls it.
fn label(report: &Value) -> String {
    let label = report.get("label").and_then(Value::as_str);
    label.map_or_else(String::new, |label| format!(": <span class=\"label\">{}</span>", escape(label)))
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
    let commit = report.get("generator_commit").and_then(Value::as_str);
    let commit =
        commit.map_or_else(String::new, |commit| format!(" ({})", commit.get(..12).unwrap_or(commit)));
    match report.get("started_unix_seconds").and_then(Value::as_f64) {
        Some(seconds) => format!("{}, version {version}{commit}", utc(seconds)),
        None => format!("version {version}{commit}"),
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

/// "17:05:09", of the same day or another.
pub(crate) fn clock(unix_seconds: f64) -> String {
    let second = unix_seconds.max(0.0) as u64 % 86_400;
    format!("{:02}:{:02}:{:02}", second / 3_600, second / 60 % 60, second % 60)
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
pub(crate) fn grouped(value: f64) -> String {
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
        let report = json!({ "command": evil, "url": evil, "ok": false, "problems": [evil], "settings": { evil: evil },
            "label": evil, "command_line": evil, "series": {} });
        let page = page(&report, &[(evil.to_owned(), evil.to_owned())]);
        assert!(page.matches("<script").count() == 1 && !page.contains("<script>alert"), "{page}");
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
        let report =
            |reasons: &[&str]| json!({ "ok": true, "series": {}, "generator": { "bottleneck": reasons } });
        let told = page(&report(&["no <time> left"]), &[]);
        assert!(
            told.contains(
                "<dd>The generator&#39;s own<small>The generator was the bottleneck: no &lt;time&gt; left"
            ),
            "{told}"
        );
        assert!(
            !page(&report(&[]), &[]).contains("bottleneck")
                && page(&report(&[]), &[]).contains("<dd>Nobody&#39;s")
        );
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
