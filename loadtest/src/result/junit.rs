//! `--junit`: the verdict as the JUnit XML that continuous integration shows. Pure.
//!
//! A suite is a run. Its first case is what every result is judged by (nothing failed, was lost or came wrong), and each
//! `--fail-if` is one more, so that a page of many runs shows which condition it was.

use std::fmt::Write as _;

use serde_json::Value;

use super::html::escape;

/// The name of the case that is not a `--fail-if`.
const SOUND: &str = "nothing failed, was lost or came wrong";

/// The file of a result.
pub(crate) fn text(report: &Value) -> String {
    let text = |path: &str| report.pointer(path).and_then(Value::as_str).unwrap_or_default();
    let conditions: Vec<&str> =
        text("/settings/fail-if").split(", ").filter(|text| !text.is_empty()).collect();
    let problems: Vec<&str> = report
        .get("problems")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    // `--repeat` says in front in which run it was, and behind that it was the median.
    let broken_by = |condition: &str, problem: &str| {
        problem.starts_with(&format!("{condition}: "))
            || problem.starts_with(&format!("{condition} can't be judged"))
    };
    let of_condition = |condition: &str| {
        problems.iter().copied().filter(|problem| broken_by(condition, problem)).collect::<Vec<_>>()
    };
    let others: Vec<&str> = problems
        .iter()
        .copied()
        .filter(|problem| !conditions.iter().any(|condition| broken_by(condition, problem)))
        .collect();
    let mut cases = vec![(SOUND, others)];
    cases.extend(conditions.iter().map(|condition| (*condition, of_condition(condition))));
    let seconds =
        report.pointer("/series/at_seconds").and_then(Value::as_array).and_then(|at| at.last()?.as_f64());
    suite(&suite_name(report), seconds, text("/url"), &cases, None)
}

/// The file of a run that has no result, and why.
pub(crate) fn without_result(command: &str, why: &str) -> String {
    suite(&format!("fantail-loadtest {command}"), None, "", &[(SOUND, Vec::new())], Some(why))
}

fn suite_name(report: &Value) -> String {
    let command = report.get("command").and_then(Value::as_str).unwrap_or("result");
    match report.get("label").and_then(Value::as_str) {
        Some(label) => format!("fantail-loadtest {command}: {label}"),
        None => format!("fantail-loadtest {command}"),
    }
}

fn suite(
    name: &str,
    seconds: Option<f64>,
    url: &str,
    cases: &[(&str, Vec<&str>)],
    error: Option<&str>,
) -> String {
    let failures = cases.iter().filter(|(_, problems)| !problems.is_empty()).count();
    let (tests, errors) = (cases.len(), usize::from(error.is_some()));
    let time = seconds.map(|seconds| format!(" time=\"{seconds:.3}\"")).unwrap_or_default();
    let name = attribute(name);
    let mut out = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n\
         <testsuite name=\"{name}\" tests=\"{tests}\" failures=\"{failures}\" errors=\"{errors}\"{time}>\n\
         <properties><property name=\"url\" value=\"{}\"/></properties>\n",
        attribute(url)
    );
    for (case, problems) in cases {
        let _ = write!(out, "<testcase classname=\"{name}\" name=\"{}\"", attribute(case));
        match (problems.first(), error) {
            (None, None) => out.push_str("/>\n"),
            (Some(first), _) => {
                let all = attribute(&problems.join("\n"));
                let _ =
                    writeln!(out, "><failure message=\"{}\">{all}</failure></testcase>", attribute(first));
            }
            (None, Some(why)) => {
                let _ = writeln!(out, "><error message=\"{}\"/></testcase>", attribute(why));
            }
        }
    }
    out.push_str("</testsuite>\n</testsuites>\n");
    out
}

/// What servers say may hold control characters, which XML has no way to write.
fn attribute(text: &str) -> String {
    let plain: String =
        text.chars().map(|letter| if letter.is_control() && letter != '\n' { ' ' } else { letter }).collect();
    escape(&plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_condition_is_a_case_and_what_else_is_wrong_one_more() {
        let report = json!({ "command": "echo", "label": "before <tuning>", "url": "ws://h/?a=1&b=2", "ok": false,
            "problems": ["3 connections were lost", "p99 > 5ms: it is 61.00 ms"],
            "settings": { "fail-if": "p99 > 5ms, missing>0" }, "series": { "at_seconds": [0.0, 2.5] } });
        let text = text(&report);
        assert!(text.contains("tests=\"3\" failures=\"2\" errors=\"0\" time=\"2.500\""), "{text}");
        assert!(
            text.contains("name=\"p99 &gt; 5ms\"><failure message=\"p99 &gt; 5ms: it is 61.00 ms\">"),
            "{text}"
        );
        assert!(text.contains("name=\"missing&gt;0\"/>"), "{text}");
        assert!(
            text.contains("before &lt;tuning&gt;")
                && text.contains("<failure message=\"3 connections were lost\">"),
            "{text}"
        );
    }

    #[test]
    fn a_run_without_a_result_is_an_error_and_no_control_character_is_written() {
        let text = without_result("fanout", "the server said \u{1b}[31mno");
        assert!(
            text.contains("failures=\"0\" errors=\"1\"")
                && text.contains("<error message=\"the server said  [31mno\"/>"),
            "{text}"
        );
    }
}
