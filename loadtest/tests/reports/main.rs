//! Runs the binary and checks what it writes: result files against their schemas, pages, logs, comparisons, merged
//! results and the memory study. Every server binds port 0 and ends with the test.

#[path = "../accept/mod.rs"]
mod accept;
#[path = "../real_server/mod.rs"]
mod real_server;
mod schema;
#[path = "../scratch/mod.rs"]
mod scratch;
mod server;
mod thousand;

use std::process::{Command, Output};

use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use serde_json::{Value, json};

use schema::Schemas;
use scratch::Scratch;
use server::{HELD_BYTES, Holding, echo_and_fan_out, hold_if_told};

fn run(args: &[&str]) -> (i32, Output) {
    let output = Command::new(env!("CARGO_BIN_EXE_fantail-loadtest")).args(args).output().unwrap();
    (output.status.code().unwrap(), output)
}

/// Runs a command that has to succeed; its result has to fit the command's schema.
fn result(schema: &str, args: &[&str]) -> (Value, String) {
    let file = Scratch::new(&format!("{schema}.json"));
    let (code, output) = run(&[args, &["--json", file.path()]].concat());
    assert_eq!(code, 0, "{args:?}: {}{}", text(&output.stdout), text(&output.stderr));
    let report = file.json();
    assert_eq!(Schemas::load().errors(schema, &report), Vec::<String>::new());
    (report, text(&output.stdout))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn echo_args<'a>(url: &'a str, duration: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let args = ["echo", "--url", url, "--connections", "20", "--rate", "400", "--duration", duration];
    [&args[..], more].concat()
}

#[test]
fn a_server_that_holds_memory() {
    hold_if_told();
}

#[test]
fn results_fit_their_schemas() {
    let address = echo_and_fan_out();
    let (url, pid) = (format!("ws://{address}/echo"), std::process::id().to_string());
    let (report, _) = result("echo", &echo_args(&url, "2500ms", &[]));
    assert!(report["series"]["at_seconds"].as_array().unwrap().len() >= 4, "{:#}", report["series"]);
    let last = |column: &str| report["series"][column].as_array().unwrap().last().unwrap().clone();
    assert_eq!((last("messages"), last("open")), (json!(1000), json!(20)));
    assert_eq!((&report["settings"]["rate"], &report["settings"]["burst"]), (&json!("400"), &json!("1")));

    let (report, _) = result("ping", &["ping", "--url", &url, "--duration", "500ms", "--connections", "5"]);
    assert_eq!((&report["returned"], &report["missing"]), (&json!(50), &json!(0)), "{report:#}");
    let (report, _) = result("idle", &["idle", "--url", &url, "--duration", "100ms", "--pid", &pid]);
    assert!(report["series"]["server_user_bytes"][0].as_u64().unwrap() > 0);
    let topic = format!("ws://{address}/ws/{{topic}}");
    let say = format!("{topic}?echo=0");
    let publish = ["--publish", "ws", "--publish-url", &say];
    let fanout = ["fanout", "--url", &topic, "--connections", "20", "--duration", "500ms"];
    let fanout = [&fanout[..], &publish].concat();
    let (report, _) = result("fanout", &fanout);
    assert_eq!((&report["deliveries"], &report["ok"]), (&json!(100), &json!(true)));
    let memory = ["memory", "--url", &url, "--steps", "5,10", "--duration", "0s"];
    result("memory", &memory);

    let slow = [&["slow", "--slow-fraction", "0.2"], &fanout[1..]].concat();
    result("slow", &slow);
    let storm = ["storm", "--url", &url, "--bystander", &url, "--connections", "20", "--duration", "500ms"];
    result("storm", &storm);
    let server =
        format!("{} serve --listen 127.0.0.1:0 --admin 127.0.0.1:0", real_server::fantail().display());
    let rolling =
        ["rolling", "--server", &server, "--connections", "10", "--rate", "20", "--duration", "500ms"];
    let (rolling, _) = result("rolling", &rolling);
    assert_eq!((&rolling["deliveries"], &rolling["missing"]), (&json!(100), &json!(0)), "{rolling:#}");
    let echo = echo_args(&url, "300ms", &["--repeat", "4"]);
    let (repeated, _) = result("echo", &echo);
    assert_eq!(repeated["repeats"].as_array().unwrap().len(), 4);
    for run in repeated["repeats"].as_array().unwrap() {
        assert_eq!(Schemas::load().errors("echo", run), Vec::<String>::new());
    }
    let step = [&["capacity", "--step", "rate=100,200"], &echo_args(&url, "300ms", &[])[..]].concat();
    let file = Scratch::new("capacity.json");
    let (code, output) = run(&[&step[..3], &["--json", file.path()], &step[3..]].concat());
    assert_eq!(code, 0, "{}", text(&output.stderr));
    assert_eq!(Schemas::load().errors("capacity", &file.json()), Vec::<String>::new());
}

#[test]
fn every_command_has_a_schema() {
    let (_, output) = run(&["--help"]);
    let help = text(&output.stdout);
    let commands = help.split("Commands:").nth(1).unwrap().split("Options:").next().unwrap();
    // Names stand two blanks in, and their wrapped texts further.
    let named = commands.lines().filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    let mut named: Vec<&str> = named.filter_map(|line| line.split_whitespace().next()).collect();
    named.retain(|name| *name != "help");
    named.sort_unstable();
    assert_eq!(named, Schemas::load().commands().iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn a_schema_refuses_what_is_wrong() {
    let url = format!("ws://{}/echo", echo_and_fan_out());
    let (report, _) = result("echo", &echo_args(&url, "500ms", &["--threads", "2"]));
    let schemas = Schemas::load();
    let wrong = |change: fn(&mut Value)| {
        let mut report = report.clone();
        change(&mut report);
        schemas.errors("echo", &report)
    };
    for (errors, said) in [
        (wrong(|report| report["missing"] = json!(-1)), ".missing: minimum 0"),
        (wrong(|report| report["sent"] = json!("many")), ".sent: type"),
        (wrong(|report| report["new"] = json!(1)), ".new: not in the schema"),
        (wrong(|report| report["connections"]["new"] = json!(1)), ".connections.new: not in the schema"),
        (wrong(|report| report["latency"] = json!({})), ".latency: without"),
        (wrong(|report| drop(report.as_object_mut().unwrap().remove("url"))), ": without url"),
        (wrong(|report| report["series"]["open"][0] = json!(null)), ".series.open[0]: type"),
        (wrong(|report| report["command"] = json!("idle")), ".command: const"),
    ] {
        assert!(errors.iter().any(|error| error.contains(said)), "{said}: {errors:?}");
    }
}

#[test]
fn pages_stand_alone_and_logs_are_read_back() {
    let url = format!("ws://{}/echo", echo_and_fan_out());
    let (html, hdr) = (Scratch::new("page.html"), Scratch::new("log.hdr"));
    let args = echo_args(&url, "2100ms", &["--html", html.path(), "--hdr", hdr.path()]);
    let (report, _) = result("echo", &args);

    let page = html.text();
    for heading in [
        "Connections",
        "Connect latency by percentile",
        "Round trip by percentile",
        "Round trip over time",
        "Messages received per second",
        "Processor",
        "User memory over time",
        "Settings",
    ] {
        assert!(page.contains(&format!("<h2>{heading}</h2>")), "{heading}");
    }
    let outside = page.replace(&url, "").replace(&url.replace("ws:", "http:"), "");
    for reference in ["http://", "https://", "src=", "href=", "@import", "url("] {
        assert!(!outside.contains(reference), "{reference}");
    }
    assert_balanced(&page);

    let log = hdr.text();
    let (mut tags, mut longest, mut last) = (Vec::new(), 0.0_f64, 0.0);
    for entry in IntervalLogIterator::new(log.as_bytes()) {
        if let LogEntry::Interval(interval) = entry.unwrap() {
            let tag = interval.tag().unwrap().as_str().to_owned();
            if tag == "latency" {
                let from = interval.start_timestamp().as_secs_f64();
                assert!(
                    from > last && interval.duration().as_secs_f64() < 10.0,
                    "a second each, one after the other"
                );
                (last, longest) = (from, longest.max(interval.max()));
            }
            tags.push(tag);
        }
    }
    let highest_ms = report["latency"]["max_microseconds"].as_f64().unwrap() / 1e3;
    assert!((longest - highest_ms).abs() <= highest_ms * 0.002, "{longest} and {highest_ms}");
    assert_eq!(tags.remove(0), "connections.connect_latency");
    assert!(tags.len() >= 2 && tags.iter().all(|tag| tag == "latency"), "{tags:?}");
    let counted = |interval: &Value| {
        interval["histogram"]["counts"]
            .as_array()
            .unwrap()
            .iter()
            .map(|count| count.as_u64().unwrap())
            .sum::<u64>()
    };
    let intervals = report["latency_intervals"].as_array().unwrap();
    assert_eq!(intervals.iter().map(counted).sum::<u64>(), report["latency"]["count"].as_u64().unwrap());
}

#[test]
fn conditions_are_cases_of_junit_and_few_values_carry_no_percentile() {
    let url = format!("ws://{}/echo", echo_and_fan_out());
    let (junit, json, html) = (Scratch::new("run.xml"), Scratch::new("few.json"), Scratch::new("few.html"));
    let load = ["echo", "--url", &url, "--connections", "5", "--rate", "100", "--duration", "500ms"];
    let files = ["--junit", junit.path(), "--json", json.path(), "--html", html.path(), "--label", "a <few>"];
    let judged =
        ["--fail-if", "latency.count < 50", "--fail-if", "p99 > 10s", "--fail-if", "connections.opened != 5"];
    let (code, output) = run(&[&load[..], &files, &judged].concat());
    assert_eq!(code, 1, "{}", text(&output.stdout));
    let xml = junit.text();
    assert!(xml.contains("tests=\"4\" failures=\"1\"") && xml.contains("a &lt;few&gt;"), "{xml}");
    assert!(
        xml.contains("p99 &gt; 10s can&#39;t be judged: p99 is not known, 50 values are too few"),
        "{xml}"
    );
    let report = json.json();
    assert_eq!(Schemas::load().errors("echo", &report), Vec::<String>::new());
    assert_eq!((&report["label"], &report["latency"]["p99_microseconds"]), (&json!("a <few>"), &Value::Null));
    assert!(report["latency"]["p90_microseconds"].is_number(), "{report:#}");
    let table = text(&output.stdout);
    assert!(
        table.contains("n 50")
            && !table.lines().any(|line| line.starts_with("round trip") && line.contains("p99"))
    );
    assert!(html.text().contains("a &lt;few&gt;") && !html.text().contains("<dt>round trip, p99</dt>"));

    // Nobody listens, so there is no result, and the file says so all the same.
    let nowhere = Scratch::new("nowhere.xml");
    let server = ["idle", "--server", "/bin/false", "--junit", nowhere.path()];
    assert_eq!(run(&server).0, 1);
    assert!(nowhere.text().contains("errors=\"1\""), "{}", nowhere.text());
}

/// Every element that is opened is closed, in the right order.
fn assert_balanced(page: &str) {
    let mut open: Vec<&str> = Vec::new();
    for tag in page.split('<').skip(1).map(|rest| rest.split('>').next().unwrap()) {
        let name = tag.trim_end_matches('/').split_whitespace().next().unwrap();
        if tag.starts_with('!') || tag.ends_with('/') || name == "meta" {
            continue;
        }
        match name.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name), "in {open:?}"),
            None => open.push(name),
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

#[test]
fn two_results_are_compared_and_merged() {
    let url = format!("ws://{}/echo", echo_and_fan_out());
    let files = together("run", |file| owned(&echo_args(&url, "1500ms", &["--json", file])));
    let (a, b) = (files[0].path(), files[1].path());
    let html = Scratch::new("merged.html");
    let (merged, table) = result("merge", &["merge", a, b, "--html", html.path()]);
    assert_eq!(
        (&merged["command"], &merged["ok"], &merged["sent"]),
        (&json!("echo"), &json!(true), &json!(1200))
    );
    assert_eq!((&merged["connections"]["opened"], &merged["latency"]["count"]), (&json!(40), &json!(1200)));
    let highest = |report: &Value| report["latency"]["max_microseconds"].as_f64().unwrap();
    assert_eq!(highest(&merged), highest(&files[0].json()).max(highest(&files[1].json())));
    assert!(table.contains("wall clocks") && table.contains("40 of 40"), "{table}");
    assert_balanced(&html.text());
    // The heat map holds all messages of both, where they were on the wall clock.
    let course = &merged["latency_by_send_time"];
    let sum =
        |list: &Value| list.as_array().unwrap().iter().map(|count| count.as_u64().unwrap()).sum::<u64>();
    let sums = [&course["cells"]["count"], &course["planned"], &course["left"]].map(sum);
    assert_eq!(sums, [1200; 3], "{course:#}");
    let longest = |report: &Value| {
        let all = report["latency_by_send_time"]["highest_microseconds"].as_array().unwrap().clone();
        all.iter().filter_map(Value::as_f64).fold(0.0, f64::max)
    };
    assert_eq!(longest(&merged), longest(&files[0].json()).max(longest(&files[1].json())));
    let begins = |report: &Value| {
        let begin = report["latency_by_send_time"]["begin_seconds"].as_f64().unwrap();
        report["started_unix_seconds"].as_f64().unwrap() + begin
    };
    let first = begins(&files[0].json()).min(begins(&files[1].json()));
    let width = course["column_seconds"].as_f64().unwrap();
    assert!((begins(&merged) - first).abs() <= width, "{first} {course:#}");
    assert!(html.text().contains("by send time"));
    assert!(!merged["merged_without"].to_string().contains("latency_by_send_time"), "{merged:#}");

    let (comparison, table) = result("compare", &["compare", a, b]);
    assert_eq!((&comparison["noise_known"], &comparison["compared"]), (&json!(false), &json!("echo")));
    assert!(table.contains("can't tell") && table.contains("latency.p99_microseconds"), "{table}");
    // The same four runs on both sides: known noise, and nothing beyond it.
    let four = [a, b, a, b].join(",");
    let (comparison, _) = result("compare", &["compare", &four, &four]);
    assert_eq!((&comparison["noise_known"], &comparison["a_runs"]), (&json!(true), &json!(4)));
    for figure in comparison["figures"].as_array().unwrap() {
        let verdict = figure["verdict"].as_str().unwrap();
        assert!(matches!(verdict, "same" | "within_noise"), "{figure:#}");
    }
}

#[test]
fn plans_fit_their_schema() {
    for command in ["idle", "fanout", "echo", "storm", "slow", "memory", "rolling"] {
        let (plan, table) = result("plan", &[command, "--plan", "--connections", "1000"]);
        assert_eq!((&plan["of"], &plan["connections"]), (&json!(command), &json!(1000)));
        assert!(plan["kernel_server_bytes"].as_u64().unwrap() > 0 && table.contains("fits"), "{table}");
    }
    // RFC 5737: nobody's address, so the server is elsewhere.
    let (plan, _) = result("plan", &["idle", "--plan", "--url", "ws://192.0.2.1/"]);
    assert_eq!((&plan["kernel_server_bytes"], &plan["source_addresses"]), (&json!(null), &json!(null)));
}

/// The results of two runs at the same time, as those of two machines. A busy machine may begin with one when the other
/// is over: then both are made again.
fn together(name: &str, args: impl for<'a> Fn(&'a str) -> Vec<String> + Sync) -> [Scratch; 2] {
    for _ in 0..10 {
        let files = [0, 1].map(|index| Scratch::new(&format!("{name}-{index}.json")));
        std::thread::scope(|scope| {
            for file in &files {
                let args = &args;
                scope.spawn(move || {
                    let args = args(file.path());
                    let (code, output) = run(&args.iter().map(String::as_str).collect::<Vec<_>>());
                    assert_eq!(code, 0, "{name}: {}{}", text(&output.stdout), text(&output.stderr));
                });
            }
        });
        let (_, output) = run(&["merge", files[0].path(), files[1].path()]);
        if !text(&output.stdout).contains("not at the same time") {
            return files;
        }
    }
    panic!("{name}: never at the same time");
}

fn owned(args: &[&str]) -> Vec<String> {
    args.iter().map(ToString::to_string).collect()
}

/// Two runs of a command at the same time as one result.
fn merged(command: &str, args: &[&str]) -> (Value, String) {
    let files = together(command, |file| owned(&[&[command, "--json", file], args].concat()));
    let html = Scratch::new(&format!("{command}.html"));
    let (merged, table) =
        result("merge", &["merge", files[0].path(), files[1].path(), "--html", html.path()]);
    assert_balanced(&html.text());
    // Whatever is null though a run knows it is named with the reason.
    for path in merged["merged_without"].as_array().unwrap() {
        assert!(!merged["merged_without_reasons"][path.as_str().unwrap()].as_str().unwrap().is_empty());
    }
    (merged, table)
}

#[test]
fn storms_slow_subscribers_steps_and_memory_are_merged() {
    let address = echo_and_fan_out();
    let (url, pid) = (format!("ws://{address}/echo"), std::process::id().to_string());
    let storm = ["--url", &url, "--bystander", &url, "--connections", "20", "--duration", "300ms"];
    let (storm, table) = merged("storm", &storm);
    assert_eq!(
        (&storm["dropped"], &storm["returned"], &storm["away"]["count"]),
        (&json!(40), &json!(40), &json!(40))
    );
    assert_eq!((&storm["bystander"]["lost"], &storm["bystander"]["missing"]), (&json!(false), &json!(0)));
    let returned = storm["away_by_return_time"]["cells"]["count"].as_array().unwrap();
    assert_eq!(returned.iter().map(|count| count.as_u64().unwrap()).sum::<u64>(), 40);
    assert!(storm["bystander"]["latency_by_send_time"]["cells"]["count"].as_array().unwrap().len() > 1);
    assert!(storm["bystander"]["before"]["count"].as_u64().unwrap() > 20, "of both bystanders");
    assert!(
        storm["merged_meaning"]["served_again_seconds"].as_str().unwrap().contains("slowest"),
        "{storm:#}"
    );
    assert!(table.contains("all served again in") && table.contains("bystanders' echo during"), "{table}");

    let topic = format!("ws://{address}/ws/{{topic}}");
    let say = format!("{topic}?echo=0");
    let slow = ["--url", &topic, "--publish", "ws", "--publish-url", &say];
    let slow = [&slow[..], &["--connections", "20", "--duration", "500ms"]].concat();
    // Both topics are one to this server: each run hears the other's publisher, too.
    let (slow, table) = merged("slow", &[&slow[..], &["--slow-fraction", "0.2", "--pid", &pid]].concat());
    assert_eq!((&slow["slow"]["connections"], &slow["slow"]["missing"]), (&json!(8), &json!(0)), "{slow:#}");
    assert_eq!((&slow["deliveries"], &slow["server"]), (&json!(2 * 16 * 5), &json!(null)), "{slow:#}");
    assert!(
        slow["merged_without_reasons"]["server"].as_str().unwrap().contains("more than one run"),
        "{slow:#}"
    );
    assert!(table.contains("not merged (n/a)"), "{table}");

    // Long enough for both to be at the same step for a while, also on a busy machine.
    let steps = ["--step", "rate=100,200", "echo", "--url", &url, "--duration", "2s"];
    let (capacity, table) = merged("capacity", &steps);
    assert_eq!(capacity["highest_held"].as_f64(), Some(400.0), "{table}");
    assert_eq!(capacity["steps"][0]["result"]["returned"], 400);
    assert!(table.contains("highest step that held"), "{table}");

    let (memory, table) =
        merged("memory", &["--url", &url, "--steps", "5,10,15", "--duration", "0s", "--pid", &pid]);
    assert_eq!(memory["steps_connections"], json!([10, 20, 30]));
    let slopes = memory["kinds"].as_array().unwrap().iter();
    let slopes = slopes.map(|kind| (kind["end"].as_str().unwrap(), kind["bytes_per_connection"].is_number()));
    assert!(slopes.clone().all(|(end, known)| known == (end == "generator")), "{memory:#}");
    assert!(memory["merged_without_reasons"]["kinds.server.user"].as_str().unwrap().contains("only its own"));
    assert!(table.contains("generator's user") && table.contains("kinds.server.user"), "{table}");
}

#[test]
fn what_can_not_be_merged_is_refused_by_name() {
    let url = format!("ws://{}/echo", echo_and_fan_out());
    let (single, repeated, plan) =
        (Scratch::new("one.json"), Scratch::new("more.json"), Scratch::new("plan.json"));
    for (file, more) in [(&single, &[][..]), (&repeated, &["--repeat", "2"]), (&plan, &["--plan"])] {
        run(&echo_args(&url, "100ms", &[more, &["--json", file.path()]].concat()));
    }
    for (file, says) in [(&repeated, "medians of --repeat"), (&plan, "a plan is no run")] {
        let (code, output) = run(&["merge", single.path(), file.path()]);
        let error = text(&output.stderr);
        assert!(code == 2 && error.contains(file.path()) && error.contains(says), "{error}");
    }
}

#[test]
fn the_memory_study_finds_what_a_server_holds() {
    let holding = Holding::start();
    let url = format!("ws://{}/", holding.address);
    let (csv, html) = (Scratch::new("memory.csv"), Scratch::new("memory.html"));
    let (report, table) = result(
        "memory",
        &[
            "memory",
            "--url",
            &url,
            "--pid",
            &holding.pid,
            "--steps",
            "10,20,30,40",
            "--duration",
            "300ms",
            "--csv",
            csv.path(),
            "--html",
            html.path(),
        ],
    );
    assert_eq!(report["steps_connections"], json!([10, 20, 30, 40]));
    let kind = |end: &str, name: &str| {
        let kinds = report["kinds"].as_array().unwrap().iter();
        kinds.clone().find(|kind| kind["end"] == end && kind["name"] == name).cloned().unwrap()
    };
    let slope = kind("server", "user")["bytes_per_connection"].as_f64().unwrap();
    let (held, page) = (HELD_BYTES as f64, 4096.0);
    // The allocator adds its header, which takes a page.
    assert!((held..held + 4.0 * page).contains(&slope), "{slope}");
    assert!(kind("server", "user")["bytes_per_connection_plus_minus"].as_f64().unwrap() < 4.0 * page);
    assert!(kind("both", "slab")["bytes_per_connection"].is_number());
    assert!(kind("generator", "user")["before_bytes"].as_f64().unwrap() > 0.0);
    assert!(table.contains("kernel, both ends"), "{table}");

    let csv = csv.text();
    let mut lines = csv.lines();
    let columns = lines.next().unwrap().split(',').count();
    assert_eq!(columns, 3 + report["kinds"].as_array().unwrap().len());
    let readings: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    assert!(readings.iter().all(|reading| reading.len() == columns), "{csv}");
    // At least one of each step, however long one takes.
    let steps: std::collections::BTreeSet<&str> = readings.iter().map(|reading| reading[1]).collect();
    assert_eq!(steps.len(), 1 + 4, "{csv}");
    assert_eq!((readings[0][1], readings[0][2]), ("0", "0"));
    assert_eq!(readings.last().unwrap()[2], "40");
    let page = html.text();
    assert!(
        page.contains("<h2>User memory by connections</h2>")
            && page.contains("<h2>Memory per connection by kind</h2>")
    );
    assert_balanced(&page);
}

#[test]
fn a_disk_that_is_full_takes_one_file_and_not_the_result() {
    let url = format!("ws://{}/echo", echo_and_fan_out());
    for full in ["--json", "--html", "--hdr"] {
        let files = ["--json", "--html", "--hdr"].map(|flag| (flag, Scratch::new(&format!("full{flag}"))));
        let flags: Vec<&str> = files
            .iter()
            .flat_map(|(flag, file)| [*flag, if *flag == full { "/dev/full" } else { file.path() }])
            .collect();
        let (code, output) = run(&echo_args(&url, "100ms", &flags));
        let error = text(&output.stderr);
        assert!(code == 1 && error.contains(&format!("{full} /dev/full: ")), "{code}: {error}");
        assert!(text(&output.stdout).contains("verdict"));
        for (flag, file) in files.iter().filter(|(flag, _)| *flag != full) {
            assert!(!file.text().is_empty(), "{flag} beside {full}");
        }
    }
    // One that can't be written hides no other reason.
    let (code, output) = run(&echo_args(&url, "100ms", &["--json", "/dev/full", "--junit", "/dev/full"]));
    let error = text(&output.stderr);
    assert!(code == 1 && error.contains("--json /dev/full: "), "{error}");
    assert_eq!(error.matches("--junit /dev/full: ").count(), 1, "{error}");
    let json = Scratch::new("full-csv.json");
    let memory = ["memory", "--url", &url, "--connections", "10", "--duration", "0s", "--csv", "/dev/full"];
    let (code, output) = run(&[&memory[..], &["--json", json.path()]].concat());
    assert!(code == 1 && text(&output.stderr).contains("--csv /dev/full: "), "{}", text(&output.stderr));
    assert!(json.json()["kinds"].is_array() && text(&output.stdout).contains("verdict"));

    // Where nobody takes what is printed, the files are all there is.
    let json = Scratch::new("full-stdout.json");
    let repeat = ["--repeat", "2", "--json", json.path()];
    let stdout = std::fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_fantail-loadtest"));
    let output = command.args(echo_args(&url, "100ms", &repeat)).stdout(stdout).output().unwrap();
    let error = text(&output.stderr);
    assert!(output.status.code() == Some(1) && error.contains("standard output: "), "{error}");
    assert_eq!(json.json()["repeats"].as_array().unwrap().len(), 2);
}

#[test]
fn a_result_that_does_not_fit_leaves_the_one_before() {
    let url = format!("ws://{}/echo", echo_and_fan_out());
    let files =
        ["--json", "--html", "--hdr", "--junit"].map(|flag| (flag, Scratch::new(&format!("before{flag}"))));
    for (flag, file) in &files {
        std::fs::write(file.path(), format!("before {flag}")).unwrap();
    }
    let flags: Vec<&str> = files.iter().flat_map(|(flag, file)| [*flag, file.path()]).collect();
    // No file may be longer than nothing, and whoever writes more is told so instead of being ended.
    let full = "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\"";
    let mut command = Command::new("sh");
    command.args(["-c", full, env!("CARGO_BIN_EXE_fantail-loadtest")]);
    let output = command.args(echo_args(&url, "100ms", &flags)).output().unwrap();
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    for (flag, file) in &files {
        let folder = std::path::Path::new(file.path()).parent().unwrap();
        let name = std::path::Path::new(file.path()).file_name().unwrap().to_string_lossy().into_owned();
        let named = std::fs::read_dir(folder).unwrap().flatten();
        let of_it = named.filter(|entry| entry.file_name().to_string_lossy().starts_with(&name)).count();
        assert!(error.contains(&format!("{flag} {}: File too large", file.path())), "{error}");
        assert_eq!((file.text(), of_it), (format!("before {flag}"), 1));
    }
}

#[test]
fn what_is_repeated_fits_its_schema_and_its_log_has_every_run() {
    let address = echo_and_fan_out();
    let (url, closed) = (format!("ws://{address}/echo"), format!("ws://{address}/ws/{{topic}}"));
    let say = format!("{closed}?echo=0");
    let hdr = Scratch::new("repeats.hdr");
    let repeat = ["--repeat", "2", "--duration", "100ms", "--connections", "5", "--hdr", hdr.path()];
    for command in [
        &["idle", "--url", &url][..],
        &["echo", "--url", &url],
        &["storm", "--url", &url, "--bystander", &url],
        &["fanout", "--url", &closed, "--publish", "ws", "--publish-url", &say],
        &["slow", "--url", &closed, "--publish", "ws", "--publish-url", &say, "--slow-fraction", "0.2"],
        &["memory", "--url", &url],
    ] {
        let (report, _) = result(command[0], &[command, &repeat].concat());
        assert_eq!(report["repeats"].as_array().unwrap().len(), 2);
        let log = hdr.text();
        let mut connects = 0;
        for entry in IntervalLogIterator::new(log.as_bytes()) {
            if let LogEntry::Interval(interval) = entry.unwrap() {
                connects += u32::from(interval.tag().unwrap().as_str() == "connections.connect_latency");
                assert!(interval.max() > 0.0, "{}: an interval without a value", command[0]);
            }
        }
        assert_eq!(connects, 2, "{}", command[0]);
        if command[0] == "memory" {
            let user = |kind: &&Value| kind["name"] == "user" && kind["end"] == "generator";
            let kind = report["kinds"].as_array().unwrap().iter().find(user).unwrap().clone();
            assert!(kind["bytes_per_connection"].is_number(), "{kind:#}");
        }
    }
}

#[test]
fn without_a_process_id_the_servers_memory_is_unknown() {
    let url = format!("ws://{}/echo", echo_and_fan_out());
    let csv = Scratch::new("unknown.csv");
    let (report, table) = result(
        "memory",
        &["memory", "--url", &url, "--connections", "10", "--duration", "0s", "--csv", csv.path()],
    );
    assert_eq!(report["steps_connections"], json!([2, 4, 6, 8, 10]));
    for kind in report["kinds"].as_array().unwrap().iter().filter(|kind| kind["end"] == "server") {
        assert!(kind["bytes_per_connection"].is_null() && kind["before_bytes"].is_null(), "{kind:#}");
    }
    assert!(table.contains("n/a without --pid"), "{table}");
    assert!(csv.text().lines().nth(1).unwrap().contains(",n/a,"), "{}", csv.text());
}

#[test]
fn wrong_usage_is_told_with_exit_code_2() {
    let url = format!("ws://{}/echo", echo_and_fan_out());
    let (echo, idle) = (Scratch::new("usage-echo.json"), Scratch::new("usage-idle.json"));
    run(&echo_args(&url, "500ms", &["--json", echo.path()]));
    run(&["idle", "--url", &url, "--connections", "2", "--duration", "10ms", "--json", idle.path()]);
    for wrong in [
        &["compare", echo.path(), idle.path()][..],
        &["compare", echo.path(), "/nowhere.json"],
        &["merge", echo.path(), idle.path()],
        &["memory", "--url", &url, "--steps", "20,10"],
        &["memory", "--url", &url, "--steps", "20"],
        &["memory", "--url", &url, "--csv", "/dev/null", "--repeat", "2"],
    ] {
        let (code, output) = run(wrong);
        assert_eq!((code, text(&output.stdout).as_str()), (2, ""), "{wrong:?}");
        assert!(!output.stderr.is_empty());
    }
}

#[test]
fn a_result_is_not_merged_with_itself() {
    let url = format!("ws://{}/echo", echo_and_fan_out());
    let (file, copy) = (Scratch::new("itself.json"), Scratch::new("copy.json"));
    let (code, _) = run(&echo_args(&url, "100ms", &["--json", file.path()]));
    assert_eq!(code, 0);
    std::fs::copy(file.path(), copy.path()).unwrap();
    for second in [&file, &copy] {
        let (code, output) = run(&["merge", file.path(), second.path()]);
        let error = text(&output.stderr);
        assert!(code == 2 && error.contains("is the same result as"), "{code}: {error}");
    }
}

#[test]
fn two_outputs_into_one_file_are_refused_before_the_run() {
    let file = Scratch::new("twice");
    let url = "ws://127.0.0.1:1/";
    let (code, output) = run(&echo_args(url, "100ms", &["--json", file.path(), "--html", file.path()]));
    let error = text(&output.stderr);
    assert!(code == 1 && error.contains("--json and --html name the same file"), "{error}");
    assert!(!std::fs::exists(file.path()).unwrap(), "it was made");
    let memory = ["memory", "--url", url, "--csv", file.path(), "--json", file.path()];
    let (code, output) = run(&memory);
    let error = text(&output.stderr);
    assert!(code == 1 && error.contains("--json and --csv name the same file"), "{error}");
    // A device takes all that it gets.
    let (_, output) = run(&echo_args(url, "100ms", &["--json", "/dev/null", "--html", "/dev/null"]));
    assert!(text(&output.stdout).contains("verdict"), "{}", text(&output.stderr));
}
