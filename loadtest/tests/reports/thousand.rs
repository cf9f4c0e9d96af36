//! Every command once with a thousand connections to the real server: the table, the result file against its schema,
//! and the page.

use serde_json::{Value, json};

use crate::real_server::fantail;
use crate::schema::Schemas;
use crate::{Scratch, assert_balanced, run, text};

/// What one run left.
struct Left {
    json: Scratch,
    report: Value,
    table: String,
    page: String,
}

/// Runs a command that has to succeed; `rest` are the arguments behind its outputs.
fn left(command: &[&str], rest: &[&str]) -> Left {
    let name = command[0];
    let (json, html) = (Scratch::new(&format!("thousand-{name}.json")), Scratch::new("thousand.html"));
    let args = [command, &["--json", json.path(), "--html", html.path()], rest].concat();
    let (code, output) = run(&args);
    let table = text(&output.stdout);
    assert_eq!(code, 0, "{args:?}: {table}{}", text(&output.stderr));
    let (report, page) = (json.json(), html.text());
    assert_eq!(Schemas::load().errors(name, &report), Vec::<String>::new());
    assert!(page.contains(&format!("<h1>fantail-loadtest {name}</h1>")), "{name}");
    assert_balanced(&page);
    Left { json, report, table, page }
}

/// The same against a server of its own; every connection has to open and stay, and the verdict has to be ok.
fn served(command: &[&str], rest: &[&str]) -> Left {
    let server = format!("'{}' serve --listen 127.0.0.1:0 --admin 127.0.0.1:0", fantail().display());
    let left = left(command, &[rest, &["--server", &server]].concat());
    assert_eq!(left.report["ok"], json!(true), "{:#}", left.report);
    assert!(left.table.trim_end().ends_with(" ok"), "{}", left.table);
    if let Some(connections) = left.report.get("connections") {
        assert_eq!(
            (&connections["opened"], &connections["lost"]),
            (&json!(1_000), &json!(0)),
            "{connections:#}"
        );
    }
    left
}

/// Headings of the page, which are of its charts and tables.
fn assert_shows(left: &Left, headings: &[&str]) {
    for heading in headings {
        assert!(left.page.contains(&format!("<h2>{heading}</h2>")), "{heading}: {}", left.report["command"]);
    }
}

const THOUSAND: [&str; 2] = ["--connections", "1000"];

#[test]
fn idle_memory_and_storm_with_a_thousand_connections() {
    let idle = served(&["idle"], &[&THOUSAND[..], &["--duration", "300ms"]].concat());
    assert_shows(
        &idle,
        &["Connections", "Connect latency by percentile", "User memory over time", "Result", "Settings"],
    );

    let memory = served(&["memory"], &["--steps", "250,500,750,1000", "--duration", "300ms"]);
    assert_shows(&memory, &["User memory by connections", "Memory per connection by kind"]);
    assert_eq!(memory.report["steps_connections"], json!([250, 500, 750, 1_000]));

    let storm = served(&["storm"], &[&THOUSAND[..], &["--duration", "300ms"]].concat());
    assert_shows(&storm, &["Reconnect latency by percentile", "Bystander&#39;s echo by percentile"]);
    assert_eq!((&storm.report["returned"], &storm.report["unserved"]), (&json!(1_000), &json!(0)));
    assert!(storm.page.contains("all served again in"));
}

#[test]
fn fanout_slow_and_capacity_with_a_thousand_connections() {
    let messages = [&THOUSAND[..], &["--rate", "5", "--duration", "1s"]].concat();
    let fanout = served(&["fanout"], &messages);
    assert_eq!((&fanout.report["deliveries"], &fanout.report["missing"]), (&json!(5_000), &json!(0)));
    assert_shows(&fanout, &["Delivery latency by percentile", "Deliveries per second"]);

    let slow = served(&["slow"], &[&messages[..], &["--size", "4096", "--slow-fraction", "0.1"]].concat());
    assert_eq!(
        (&slow.report["deliveries"], &slow.report["slow"]["connections"]),
        (&json!(4_500), &json!(100))
    );
    assert!(slow.table.contains("slow subscribers"), "{}", slow.table);

    let steps = ["echo", "--connections", "1000", "--duration", "500ms"];
    let capacity = served(&["capacity", "--step", "rate=50,100"], &steps);
    assert_eq!(capacity.report["highest_held"], json!(100.0), "{:#}", capacity.report);
    for step in capacity.report["steps"].as_array().unwrap() {
        assert_eq!(step["result"]["connections"]["opened"], json!(1_000), "{step:#}");
    }
    assert_shows(&capacity, &["Latency by step", "Steps", "Settings"]);
    assert_eq!(
        (&capacity.report["settings"]["duration"], &capacity.report["settings"]["step"]),
        (&json!("500ms"), &json!("rate=50,100"))
    );
}

#[test]
fn echo_compare_and_merge_with_a_thousand_connections() {
    let messages = [&THOUSAND[..], &["--rate", "200", "--duration", "500ms"]].concat();
    let runs = [served(&["echo"], &messages), served(&["echo"], &messages)];
    for echo in &runs {
        assert_eq!((&echo.report["returned"], &echo.report["missing"]), (&json!(100), &json!(0)));
        assert_shows(echo, &["Round trip by percentile"]);
    }
    let files = [runs[0].json.path(), runs[1].json.path()];
    let compared = left(&["compare"], &files);
    assert_shows(&compared, &["Figures"]);
    assert!(compared.page.contains("latency.p99_microseconds") && !compared.page.contains("not ok"));

    // They did not run at the same time, so their rates and times don't add up; their counts do.
    let (file, html) = (Scratch::new("thousand-merge.json"), Scratch::new("thousand-merge.html"));
    let (_, output) = run(&["merge", files[0], files[1], "--json", file.path(), "--html", html.path()]);
    let merged = file.json();
    assert_balanced(&html.text());
    assert_eq!(Schemas::load().errors("merge", &merged), Vec::<String>::new(), "{}", text(&output.stdout));
    assert_eq!((&merged["connections"]["opened"], &merged["returned"]), (&json!(2_000), &json!(200)));
}
