//! Connections in stages: how many are open follows the plan, and what does not is told.

use std::io::Read;
use std::thread;

use serde_json::{Value, json};

use crate::real_server::fantail;
use crate::{error, listen, run};

fn of<'r>(report: &'r Value, stage: usize, field: &str) -> &'r Value {
    &report["stages"][stage][field]
}

#[test]
fn connections_come_and_go_by_stages() {
    let server = format!("'{}' serve --listen 127.0.0.1:0 --admin 127.0.0.1:0", fantail().display());
    let stages = "500ms@..120,2s@120,500ms@..30,2s@30,200ms@..60,2s@60";
    let args = ["idle", "--server", &server, "--connection-stages", stages, "--threads", "2"];
    let (code, report, table) = run(&args);
    assert_eq!(code, 0, "{table}");
    for (stage, from, to) in [(0, 0, 120), (1, 120, 120), (2, 120, 30), (3, 30, 30), (4, 30, 60), (5, 60, 60)]
    {
        let ends = (of(&report, stage, "from"), of(&report, stage, "to"));
        assert_eq!(ends, (&json!(from), &json!(to)), "{table}");
        assert!(of(&report, stage, "server_user_bytes").as_u64() > Some(0), "{table}");
    }
    // Where a stage holds, all are there.
    let open = [1, 3, 5].map(|stage| of(&report, stage, "open").as_u64().unwrap());
    assert_eq!(open, [120, 30, 60], "{table}");
    let sum = |field: &str| {
        let stages = report["stages"].as_array().unwrap().iter();
        stages.map(|stage| stage[field].as_u64().unwrap()).sum::<u64>()
    };
    // Places that are free are taken again; nothing is given up on the way down, but a connect that was under way.
    assert_eq!((sum("opened") - sum("closed"), sum("failed"), sum("lost")), (60, 0, 0), "{table}");
    assert!((145..=150).contains(&sum("opened")), "{table}");
    assert_eq!(report["connections"]["opened"], sum("opened"), "{table}");
    let series = report["series"]["open"].as_array().unwrap();
    assert_eq!((series.first(), series.last()), (Some(&json!(0)), Some(&json!(60))), "{table}");
    assert!(table.contains("120 to 30 in 0.5 s") && table.contains("of user memory"), "{table}");
}

#[test]
fn a_server_that_lets_nobody_in_is_behind_every_stage() {
    let (listener, address) = listen();
    // Takes connections, reads, and never answers.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || while matches!(stream.read(&mut [0; 1024]), Ok(1..)) {});
        }
    });
    let url = format!("ws://{address}/");
    let (code, report, table) = run(&["idle", "--url", &url, "--connection-stages", "500ms@30,500ms@12"]);
    assert_eq!((code, of(&report, 0, "open"), of(&report, 1, "open")), (1, &json!(0), &json!(0)), "{table}");
    for says in [
        "0 connections were open at the end of stage 1 and not 30",
        "0 connections were open at the end of stage 2 and not 12",
        "12 connections could not be opened",
    ] {
        assert!(report["problems"].to_string().contains(says), "{says}: {table}");
    }
    // What was under way when fewer were wanted was given up, and is nobody's fault.
    assert_eq!(
        (&report["connections"]["failed"], &report["connections"]["wanted"]),
        (&json!(12), &json!(12))
    );
    assert_eq!(report["connections"]["errors"], json!({ "connect_timeout": 12 }), "{table}");
}

#[test]
fn stages_that_can_not_be_are_usage_errors() {
    let idle = ["idle", "--url", "ws://127.0.0.1:9/", "--connection-stages"];
    for (args, says) in [
        (&["1s@0"][..], "no connection"),
        (&["1s@x"], "not a number of connections"),
        (&["5"], "a stage is as"),
        (&["1s@5", "--connections", "5"], "cannot be used with"),
        (&["1s@5", "--duration", "5s"], "cannot be used with"),
    ] {
        let said = error(2, &[&idle[..], args].concat());
        assert!(said.contains(says), "{args:?}: {said}");
    }
    let capacity = [&["capacity", "--step", "connections=1,2"], &idle[..], &["1s@5"]].concat();
    assert!(error(2, &capacity).contains("use one of them"));
}
