//! The deployment page: its configurations are the files that are tried, and its capacity table is what the server
//! predicts.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::page;

fn packaged(path: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging").join(path)).expect("the file")
}

#[test]
fn the_configurations_shown_are_those_that_are_tried() {
    let page = page("deploy.md");
    for (language, path) in [("nginx", "proxies/nginx.conf"), ("haproxy", "proxies/haproxy.cfg")] {
        let (_, rest) = page.split_once(&format!("```{language}\n")).expect("a block");
        let (shown, _) = rest.split_once("```\n").expect("its end");
        assert_eq!(shown, packaged(path), "{path} and docs/deploy.md differ");
    }
}

/// The timeouts of the proxies are longer than the heartbeat's.
#[test]
fn the_proxies_wait_longer_than_the_server() {
    let timeouts = fantail::config::Settings::default().timeouts;
    let silence = (timeouts.heartbeat + timeouts.pong).as_secs();
    for (path, name) in
        [("proxies/nginx.conf", "proxy_read_timeout "), ("proxies/haproxy.cfg", "timeout tunnel ")]
    {
        let text = packaged(path);
        let (_, rest) = text.split_once(name).expect("the timeout");
        let seconds: u64 = rest.split_once('s').expect("a unit").0.parse().expect("seconds");
        assert!(seconds > silence, "{path}: {seconds} s, and both sides may be silent for {silence}");
    }
}

/// What `fantail sizes` predicts: user memory, and all memory.
fn predicted(connections: u64) -> (f64, f64) {
    let connections = connections.to_string();
    let arguments = ["sizes", "--json", "--loops", "2", "--connections", &connections];
    let output = Command::new(env!("CARGO_BIN_EXE_fantail")).args(arguments).output().expect("it runs");
    let sizes: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let bytes = |name: &str| sizes[name].as_f64().expect("a number");
    (bytes("user_bytes"), bytes("user_bytes") + bytes("kernel_bytes_estimate"))
}

fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<_> = digits.as_bytes().rchunks(3).rev().map(String::from_utf8_lossy).collect();
    groups.join(",")
}

/// Seconds of one core for a ping and its pong, as measured.
const HEARTBEAT_SECONDS: f64 = 7.5e-6;

fn row(connections: u64) -> String {
    let (user, all) = predicted(connections);
    let core = |period: f64| 100.0 * HEARTBEAT_SECONDS * connections as f64 / period;
    format!(
        "| {} | {:.1} MiB | {} MiB | {} each | {:.1} % | {:.1} % |",
        thousands(connections),
        user / f64::from(1 << 20),
        thousands((all / f64::from(1 << 20)).ceil() as u64),
        thousands(connections / 2 + 64),
        core(25.0),
        core(60.0),
    )
}

#[test]
fn the_capacity_table_is_what_is_predicted() {
    let page = page("deploy.md");
    let (_, rest) = page.split_once("<!-- capacity:").expect("the marker of the beginning");
    let (table, _) = rest.split_once("<!-- end of capacity -->").expect("the marker of the end");
    let shown: Vec<_> =
        table.lines().filter(|line| line.starts_with("| ") && line.contains(" MiB")).collect();
    let wanted: Vec<_> = [10_000, 50_000, 100_000, 250_000, 500_000, 1_000_000].map(row).to_vec();
    assert_eq!(shown, wanted, "docs/deploy.md should say\n{}\n", wanted.join("\n"));
    let words: Vec<_> = page.split_whitespace().collect();
    assert!(words.join(" ").contains("7.5 µs for a ping and its pong"), "the figure behind the last columns");
}
