//! Presets against the servers they are for: mosquitto, nats-server and Rails' Action Cable of Debian, socket.io and
//! graphql-ws of npm; where none can be brought in a minute, against one that speaks as the protocol's description says
//! (`fakes`). `.ci/install-presets` brings what is needed, and what is not there is skipped by name.

mod fakes;
#[path = "../scratch/mod.rs"]
mod scratch;
#[path = "../../../tests/skip/mod.rs"]
mod skip;

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use scratch::Scratch;
use serde_json::{Value, json};
use skip::skipped;

const PATIENCE: Duration = Duration::from_secs(30);

/// Runs the generator and returns the exit code, the result and the table with what it said beside.
#[track_caller]
fn run(args: &[&str]) -> (i32, Value, String) {
    let file = Scratch::new("presets.json");
    let mut generator = Command::new(env!("CARGO_BIN_EXE_fantail-loadtest"));
    let output = generator.args(args).args(["--json", file.path()]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(std::fs::exists(file.path()).unwrap(), "{said}");
    let table = String::from_utf8(output.stdout).unwrap() + &said;
    (output.status.code().unwrap(), file.json(), table)
}

/// Connects, subscribes, and delivers 100 messages to each member exactly; then outlives several heartbeats.
#[track_caller]
fn assert_speaks(preset: &str, place: &[&str], set: &[&str], heart: &[&str]) {
    let set: Vec<&str> = set.iter().flat_map(|pair| ["--set", pair]).collect();
    let load =
        ["--topics", "2", "--members", "5", "--connections", "10", "--rate", "100", "--duration", "2s"];
    let heart: Vec<&str> = heart.iter().flat_map(|pair| ["--set", pair]).collect();
    let args = [&["fanout", "--preset", preset], place, &set, &heart, &load].concat();
    let (code, report, said) = run(&args);
    assert_eq!(code, 0, "{preset}: {said}");
    for (field, count) in [
        ("published", 200),
        ("deliveries_expected", 2 * 5 * 100),
        ("deliveries", 2 * 5 * 100),
        ("missing", 0),
        ("duplicate", 0),
        ("reordered", 0),
        ("corrupt", 0),
        ("stray", 0),
        ("subscribed", 10),
    ] {
        assert_eq!(report[field], count, "{preset} {field}: {said}");
    }
    let args =
        [&["idle", "--preset", preset], place, &set, &heart, &["--connections", "5", "--duration", "6s"]];
    let (code, report, said) = run(&args.concat());
    assert_eq!((code, &report["connections"]["lost"]), (0, &json!(0)), "{preset}: {said}");
}

/// A server in a process of its own, which ends with the test.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A port that nothing listens on at this moment.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Starts a program that takes its port from a file, on another one if somebody was quicker.
fn start(program: &str, configuration: impl Fn(u16) -> String) -> Option<(Served, u16, Scratch)> {
    let there = |folder: &str| Path::new(folder).join(program);
    let program =
        ["/usr/sbin", "/usr/bin", "/usr/local/bin"].map(there).into_iter().find(|path| path.exists())?;
    for _ in 0..5 {
        let port = free_port();
        let file = Scratch::new("server.conf");
        std::fs::write(file.path(), configuration(port)).unwrap();
        let mut command = Command::new(&program);
        command.args(["-c", file.path()]).stdout(Stdio::null()).stderr(Stdio::null());
        let mut served = Served(command.spawn().unwrap());
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE && served.0.try_wait().unwrap().is_none() {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Some((served, port, file));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
    panic!("{} does not start", program.display());
}

#[test]
fn mqtt_with_mosquitto() {
    // Version 2.0.11 ends if it listens to nothing but WebSockets.
    let configuration = |port| {
        format!(
            "allow_anonymous true\npersistence false\nuser root\nlistener {} 127.0.0.1\n\
             listener {port} 127.0.0.1\nprotocol websockets\nsocket_domain ipv4\n",
            free_port()
        )
    };
    let Some((_served, port, _file)) = start("mosquitto", configuration) else {
        return skipped("preset-servers");
    };
    let url = format!("ws://127.0.0.1:{port}");
    // Whoever is silent for one and a half times its keep-alive of two seconds is sent away.
    assert_speaks("mqtt", &["--url", &url], &[], &["period=1"]);
    // And so is whoever does not keep alive, which shows that the heartbeat is what keeps the others. It looks every
    // five seconds.
    let silent = ["--every", "60s=>hex:c000", "--set", "period=1"];
    let args = [
        &["idle", "--preset", "mqtt", "--url", &url, "--connections", "2", "--duration", "12s"],
        &silent[..],
    ];
    let (code, report, said) = run(&args.concat());
    assert_eq!((code, &report["connections"]["lost"]), (1, &json!(2)), "{said}");
}

#[test]
fn nats_with_nats_server() {
    let configuration = |port| {
        format!(
            "host: 127.0.0.1\nport: -1\nping_interval: \"300ms\"\nping_max: 2\n\
             authorization {{ user: a, password: \"s{{e}}same\" }}\n\
             websocket {{ host: \"127.0.0.1\", port: {port}, no_tls: true }}\n"
        )
    };
    let Some((_served, port, _file)) = start("nats-server", configuration) else {
        return skipped("preset-servers");
    };
    let url = format!("ws://127.0.0.1:{port}");
    let set = ["user=a", "password=s{e}same"];
    assert_speaks("nats", &["--url", &url], &set, &[]);
    let args = [
        "idle",
        "--preset",
        "nats",
        "--url",
        &url,
        "--set",
        "user=b",
        "--connections",
        "1",
        "--duration",
        "1s",
    ];
    let (code, report, said) = run(&args);
    assert_eq!((code, &report["connections"]["errors"]), (1, &json!({ "await_closed": 1 })), "{said}");
}

/// The servers of npm packages, started by the generator itself.
fn assert_speaks_to_npm(preset: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/presets");
    if !folder.join("node_modules").exists() {
        return skipped("preset-servers");
    }
    let server = format!("node '{}' {preset}", folder.join("servers.mjs").display());
    assert_speaks(preset, &["--server", &server], &["token=sesame"], &[]);
    // Whoever may not come in is not told to be in.
    let args = ["idle", "--preset", preset, "--server", &server, "--connections", "2", "--duration", "100ms"];
    let (code, report, said) = run(&args);
    let (opened, lost) = (&report["connections"]["opened"], &report["connections"]["lost"]);
    assert!(code == 1 && (opened == 0 || lost == opened), "{said}");
}

#[test]
fn socketio_with_socket_io() {
    assert_speaks_to_npm("socketio");
}

#[test]
fn graphql_ws_with_graphql_ws() {
    assert_speaks_to_npm("graphql-ws");
}

#[test]
fn pusher_with_a_fake() {
    let url = fakes::pusher("k1", "s3cret");
    assert_speaks("pusher", &["--url", &url], &["key=k1", "secret=s3cret"], &["period=1"]);
    // A signature by another secret is refused, and its code is read.
    let set = ["--set", "key=k1", "--set", "secret=other"];
    let args = [
        &["idle", "--preset", "pusher", "--url", &url, "--connections", "2"][..],
        &set,
        &["--duration", "1s"],
    ];
    let (code, report, said) = run(&args.concat());
    assert_eq!((code, &report["connections"]["opened"]), (1, &json!(0)), "{said}");
    assert_eq!(report["connections"]["closes"], json!({ "4009 Connection is unauthorized": 2 }), "{said}");
    assert!(!report.to_string().contains("other"), "{report:#}");
}

#[test]
fn centrifugo_with_a_fake() {
    assert_speaks("centrifugo", &["--url", &fakes::centrifugo("sesame")], &["token=sesame"], &[]);
}

#[test]
fn phoenix_with_a_fake() {
    assert_speaks("phoenix", &["--url", &fakes::phoenix("sesame")], &["token=sesame"], &["period=1"]);
}

/// Action Cable from Debian's packages, without the rest of Rails.
#[test]
fn action_cable_with_rails() {
    let library = Path::new("/usr/share/rubygems-integration/all/specifications");
    let gems = library.read_dir().into_iter().flatten().flatten();
    let there = gems.into_iter().any(|gem| gem.file_name().to_string_lossy().starts_with("actioncable-"));
    if !there || !Path::new("/usr/bin/puma").exists() {
        return skipped("preset-servers");
    }
    let application = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/presets/cable.ru");
    let server = format!("/usr/bin/puma -t 1:4 -b tcp://127.0.0.1:0 '{}'", application.display());
    let place = ["--server", &server, "--ready", r"Listening on http://(?<listen>\S+)"];
    assert_speaks("action-cable", &place, &["token=sesame"], &[]);
    let idle = ["idle", "--preset", "action-cable", "--connections", "2", "--duration", "100ms"];
    let (code, report, said) = run(&[&idle[..], &place].concat());
    assert_eq!((code, &report["connections"]["opened"]), (1, &json!(0)), "{said}");
}
