//! When messages leave and how large they are, as the server sees it.

use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::accept::accept;
use crate::rooms::Rooms;
use crate::scratch::Scratch;
use crate::{error, listen, run};

/// Sizes and planned times of the messages that came, in their order.
type Came = Arc<Mutex<Vec<(usize, u64)>>>;

/// Echoes all messages, or all but those of a warm-up, whose number is all ones.
fn echo_server(swallows_warm_up: bool) -> (String, Came) {
    let (listener, address) = listen();
    let came = Came::default();
    let shared = came.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let came = shared.clone();
            thread::spawn(move || {
                let (mut socket, _) = accept(stream.unwrap());
                while let Ok(message) = socket.read() {
                    if message.is_close() {
                        continue;
                    }
                    let text = message.to_text().unwrap().to_owned();
                    // Behind the run of 16 digits and the number of 8.
                    let planned_ns = u64::from_str_radix(&text[28..42], 16).unwrap();
                    came.lock().unwrap().push((text.len(), planned_ns));
                    if !(swallows_warm_up && &text[20..28] == "ffffffff") {
                        socket.send(message).unwrap();
                    }
                }
            });
        }
    });
    (format!("ws://{address}/"), came)
}

fn seconds(came: &Came) -> Vec<f64> {
    let mut planned: Vec<u64> = came.lock().unwrap().iter().map(|(_, planned_ns)| *planned_ns).collect();
    planned.sort_unstable();
    planned.iter().map(|ns| (ns - planned[0]) as f64 / 1e9).collect()
}

#[test]
fn stages_and_ramps_are_sent_as_they_are_planned() {
    let (url, came) = echo_server(false);
    let args = ["echo", "--url", &url, "--connections", "3", "--stages", "500ms@40,1s@0..200,500ms@200"];
    let (code, report, table) = run(&args);
    assert_eq!((code, &report["sent"], &report["returned"]), (0, &json!(220), &json!(220)), "{table}");
    assert_eq!(report["rate_per_second"], 110.0, "{table}");
    let seconds = seconds(&came);
    let between = |from: f64, to: f64| seconds.iter().filter(|at| (from..to).contains(*at)).count();
    assert_eq!([between(0.0, 0.499), between(0.499, 1.0), between(1.0, 1.499)], [20, 25, 75], "{seconds:?}");
    let (url, came) = echo_server(false);
    let args =
        ["echo", "--url", &url, "--connections", "3", "--rate", "100", "--ramp", "1s", "--duration", "1s"];
    let (code, report, table) = run(&args);
    assert_eq!((code, &report["sent"]), (0, &json!(150)), "{table}");
    assert_eq!(
        self::seconds(&came).iter().filter(|at| **at < 0.995).count(),
        50,
        "{:?}",
        self::seconds(&came)
    );
}

#[test]
fn arrivals_by_chance_are_not_even() {
    let (url, came) = echo_server(false);
    let mut args = vec!["echo", "--url", &url, "--connections", "3", "--rate", "400", "--duration", "2s"];
    args.extend(["--arrivals", "poisson"]);
    let (code, report, table) = run(&args);
    let sent = report["sent"].as_u64().unwrap();
    // Five standard deviations around 800.
    assert!(code == 0 && (660..940).contains(&sent), "{table}");
    let seconds = seconds(&came);
    let gaps: Vec<f64> = seconds.windows(2).map(|pair| pair[1] - pair[0]).collect();
    let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
    let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
    assert!((0.75..1.3).contains(&(deviation / mean)), "{mean} {deviation}");
}

#[test]
fn nothing_of_a_warm_up_counts() {
    // Whatever is lost of it, too.
    let (url, came) = echo_server(true);
    let mut args = vec!["echo", "--url", &url, "--connections", "3", "--rate", "50", "--duration", "1s"];
    args.extend(["--warm-up", "1s"]);
    let (code, report, table) = run(&args);
    assert_eq!((code, &report["sent"], &report["missing"]), (0, &json!(50), &json!(0)), "{table}");
    assert_eq!(report["latency"]["count"], 50, "{table}");
    // What a busy machine has not let it send of its warm-up until the run begins is not sent.
    let came = came.lock().unwrap().len();
    assert!((51..=100).contains(&came), "{came}: {table}");
}

#[test]
fn sizes_differ_as_they_should_and_are_checked() {
    let echo = |size: &str| {
        let (url, came) = echo_server(false);
        let args = [
            "echo",
            "--url",
            &url,
            "--connections",
            "3",
            "--rate",
            "200",
            "--duration",
            "1s",
            "--size",
            size,
        ];
        let (code, report, table) = run(&args);
        assert_eq!((code, &report["unchanged"], &report["corrupt"]), (0, &json!(200), &json!(0)), "{table}");
        let mut sizes: Vec<usize> = came.lock().unwrap().iter().map(|(size, _)| *size).collect();
        sizes.sort_unstable();
        (sizes, report["size_bytes"].as_u64().unwrap())
    };
    let (sizes, mean) = echo("uniform:100..5000");
    assert!(sizes[0] >= 100 && sizes[199] <= 5_000 && sizes[20] < 1_200 && sizes[180] > 3_900, "{sizes:?}");
    assert_eq!(mean, 2_550);
    let (sizes, _) = echo("lognormal:500,1");
    assert!(sizes[0] >= 48 && (300..850).contains(&sizes[100]) && sizes[199] > 2_000, "{sizes:?}");
    let file = Scratch::new("sizes.txt");
    std::fs::write(file.path(), "64\n64\n1000\n70000\n").unwrap();
    let (mut sizes, mean) = echo(&format!("@{}", file.path()));
    let small = sizes.iter().filter(|size| **size == 64).count();
    sizes.dedup();
    assert_eq!((&sizes[..], mean), (&[64, 1_000, 70_000][..], 17_782));
    assert!((60..140).contains(&small), "{small}");
}

#[test]
fn a_publisher_keeps_the_pace_too() {
    let rooms = Rooms::start(Duration::ZERO);
    let url = format!("ws://{}/ws/{{topic}}", rooms.ws);
    let publish = format!("http://{}/publish/{{topic}}", rooms.http);
    let mut args = vec!["fanout", "--url", &url, "--publish-url", &publish, "--connections", "4"];
    args.extend(["--stages", "500ms@0..100,1s@100", "--arrivals", "poisson", "--size", "uniform:48..2000"]);
    args.extend(["--warm-up", "300ms"]);
    let (code, report, table) = run(&args);
    let published = report["published"].as_u64().unwrap();
    assert!(code == 0 && (70..190).contains(&published), "{table}");
    assert_eq!(report["deliveries"], published * 4, "{table}");
    assert_eq!((&report["unchanged"], &report["missing"]), (&json!(published * 4), &json!(0)), "{table}");
    assert_eq!(report["publish_latency"]["count"], published, "{table}");
}

#[test]
fn what_contradicts_itself_is_refused() {
    for (wrong, says) in [
        (&["echo", "--stages", "1s@10", "--rate", "5"][..], "--rate"),
        (&["echo", "--stages", "1s@10", "--duration", "5s"], "--duration"),
        (&["fanout", "--stages", "1s@10", "--ramp", "5s"], "--ramp"),
        (&["ping", "--stages", "1s"], "10s@100"),
        (&["capacity", "--step", "rate=1,2", "echo", "--stages", "1s@10"], "--stages"),
        (&["echo", "--arrivals", "poisson", "--rate", "1000000", "--duration", "60s"], "--burst"),
        (&["echo", "--size", "uniform:9..8"], "16"),
    ] {
        let said = error(2, wrong);
        assert!(said.contains(says), "{wrong:?}: {said}");
    }
}
