//! Tables that only some commands have: the kinds of `memory`, the steps of `capacity`, the figures of `compare`. Pure.

use std::fmt::Write as _;

use serde_json::Value;

use super::axis::{Unit, text};
use super::escape;

/// Those of the result's command, if it has any.
pub(super) fn tables(report: &Value, out: &mut String) {
    kinds(report, out);
    steps(report, out);
    figures(report, out);
}

/// What a connection costs by kind.
fn kinds(report: &Value, out: &mut String) {
    let Some(kinds) = report.get("kinds").and_then(Value::as_array) else { return };
    let heads = ["kind", "end", "#bytes per connection", "#± (95 %)", "#at 0 connections", "what it is"];
    let rows = kinds.iter().map(|kind| {
        let field = |name: &str| kind.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
        let number = |name: &str| kind.get(name).and_then(Value::as_f64);
        let plain = |name: &str| known(number(name), |value| format!("{value:.1}"));
        [
            field("name"),
            field("end"),
            plain("bytes_per_connection"),
            plain("bytes_per_connection_plus_minus"),
            known(number("intercept_bytes"), |value| text(Unit::Bytes, value)),
            field("what"),
        ]
    });
    table("Memory per connection by kind", "kinds explained", &heads, rows, out);
}

/// What was raised, and what became of it.
fn steps(report: &Value, out: &mut String) {
    let Some(steps) = report.get("steps").and_then(Value::as_array) else { return };
    let variable = format!("#{}", report.get("variable").and_then(Value::as_str).unwrap_or_default());
    let heads = [&variable, "", "#p50", "#p99", "#connect, p99", "#missing", "what broke"];
    let rows = steps.iter().map(|step| {
        let number = |path: &str| step.pointer(path).and_then(Value::as_f64);
        let time = |path: &str| known(number(path), |value| text(Unit::Time, value));
        let count = |path: &str| known(number(path), super::grouped);
        let problems: Vec<&str> = step
            .get("problems")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        [
            known(number("/value"), |value| value.to_string()),
            if step.get("ok") == Some(&Value::Bool(true)) { "held" } else { "broke" }.to_owned(),
            time("/result/latency/p50_microseconds"),
            time("/result/latency/p99_microseconds"),
            time("/result/connections/connect_latency/p99_microseconds"),
            count("/result/missing"),
            problems.join("; "),
        ]
    });
    table("Steps", "kinds", &heads, rows, out);
}

/// Two sides and what is known of their difference: in words, then the figures, and those of the noise folded away.
fn figures(report: &Value, out: &mut String) {
    let Some(figures) = report.get("figures").and_then(Value::as_array) else { return };
    let words = report.get("words").and_then(Value::as_array).into_iter().flatten();
    let words: String =
        words.filter_map(Value::as_str).map(|said| format!("<li>{}</li>", escape(said))).collect();
    if !words.is_empty() {
        let _ = writeln!(
            out,
            "<section><h2>In words, from A to B</h2><ul class=\"words\">{words}</ul></section>"
        );
    }
    let verdict =
        |figure: &Value| figure.get("verdict").and_then(Value::as_str).unwrap_or_default().to_owned();
    let of = |wanted: &[&str]| -> Vec<&Value> {
        figures.iter().filter(|figure| wanted.contains(&verdict(figure).as_str())).collect()
    };
    let heads = ["figure", "#A", "#B", "#B/A", "#spread A", "#spread B", "verdict"];
    let row = |figure: &Value| {
        let number = |name: &str| figure.get(name).and_then(Value::as_f64);
        let plain = |name: &str| known(number(name), significant);
        let percent = |name: &str| known(number(name), |share| format!("{:.1} %", share * 100.0));
        [
            figure.get("name").and_then(Value::as_str).unwrap_or_default().to_owned(),
            plain("a"),
            plain("b"),
            known(number("ratio"), |ratio| format!("{ratio:.3}")),
            percent("a_spread"),
            percent("b_spread"),
            verdict(figure).replace('_', " "),
        ]
    };
    let told = of(&["lower", "higher", "cannot_tell"]);
    if !told.is_empty() {
        table("Figures", "kinds", &heads, told.into_iter().map(row), out);
    }
    for (name, verdicts) in [("Within noise", ["within_noise"]), ("The same", ["same"])] {
        let folded = of(&verdicts);
        if !folded.is_empty() {
            let rows = if folded.len() == 1 { "row" } else { "rows" };
            let _ =
                write!(out, "<details class=\"folded\"><summary>{name}: {} {rows}</summary>", folded.len());
            table("", "kinds", &heads, folded.into_iter().map(row), out);
            out.push_str("</details>");
        }
    }
}

/// A table with a head; a column whose head begins with # holds numbers. A phone leaves out the last column of an
/// `explained` one.
fn table<const COLUMNS: usize>(
    title: &str,
    classes: &str,
    heads: &[&str; COLUMNS],
    rows: impl Iterator<Item = [String; COLUMNS]>,
    out: &mut String,
) {
    let class = |head: &str| if head.starts_with('#') { " class=\"number\"" } else { "" };
    let heading = if title.is_empty() { String::new() } else { format!("<h2>{title}</h2>") };
    // What is wider than a phone is scrolled there, by keyboard as well.
    let _ = write!(
        out,
        "<section>{heading}<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{}\"><table class=\"{classes}\"><tr>",
        if title.is_empty() { "Figures" } else { title }
    );
    for head in heads {
        let _ = write!(out, "<th scope=\"col\"{}>{}</th>", class(head), escape(head.trim_start_matches('#')));
    }
    out.push_str("</tr>");
    for row in rows {
        out.push_str("<tr>");
        for (head, cell) in heads.iter().zip(&row) {
            let _ = write!(out, "<td{}>{}</td>", class(head), escape(cell));
        }
        out.push_str("</tr>");
    }
    out.push_str("</table></div></section>\n");
}

fn known(value: Option<f64>, text: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| "n/a".to_owned(), text)
}

/// Four digits, and whole numbers whole.
fn significant(value: f64) -> String {
    let digits = value.abs().max(f64::MIN_POSITIVE).log10().floor().max(0.0) as usize;
    if value.fract() == 0.0 || digits >= 3 {
        return super::grouped(value);
    }
    format!("{value:.*}", 3 - digits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_has_its_rows_and_unknown_is_not_zero() {
        let mut out = String::new();
        tables(
            &json!({
                "variable": "rate",
                "steps": [
                    { "value": 100.0, "ok": true, "problems": [], "result": { "missing": 0,
                      "latency": { "p50_microseconds": 1500.0, "p99_microseconds": null } } },
                    { "value": 200.0, "ok": false, "problems": ["p99>1ms"], "result": {} },
                ],
            }),
            &mut out,
        );
        assert!(out.contains("<th scope=\"col\" class=\"number\">rate</th>"), "{out}");
        assert!(
            out.contains("<td>held</td><td class=\"number\">1.5 ms</td><td class=\"number\">n/a</td>"),
            "{out}"
        );
        assert!(out.contains("<td>broke</td>") && out.contains("p99&gt;1ms"), "{out}");
    }

    #[test]
    fn what_differs_comes_first() {
        let figure = |name: &str, verdict: &str| json!({ "name": name, "a": 1.0, "b": 2.5, "ratio": 2.5, "a_spread": null, "b_spread": 0.1, "verdict": verdict });
        let mut out = String::new();
        let all = ["within_noise", "higher", "same", "within_noise"].map(|verdict| figure(verdict, verdict));
        figures(&json!({ "figures": all, "words": ["p99 <rose>"] }), &mut out);
        assert!(out.find("<td>higher") < out.find("<td>within_noise"), "{out}");
        assert!(
            out.contains("<summary>Within noise: 2 rows</summary>")
                && out.contains("<summary>The same: 1 row</summary>")
        );
        assert!(
            out.contains("<li>p99 &lt;rose&gt;</li>") && out.contains("2.500") && out.contains("10.0 %"),
            "{out}"
        );
    }

    #[test]
    fn digits_that_say_something() {
        for (value, text) in
            [(0.0, "0"), (2.0, "2"), (0.08690, "0.087"), (264.71, "264.7"), (18_293.4, "18,293")]
        {
            assert_eq!(significant(value), text);
        }
    }
}
