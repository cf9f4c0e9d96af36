//! Presets against the servers they are for: mosquitto, nats-server and Rails' Action Cable of Debian, socket.io and
//! graphql-ws of npm, sockudo of crates.io; where no registry has one, against one that speaks as the protocol's
//! description says (`fakes`). `.ci/install-presets` brings what is needed, and what is not there is skipped by name.

mod fakes;
mod makers;
#[path = "../scratch/mod.rs"]
mod scratch;
#[path = "../../../tests/skip/mod.rs"]
mod skip;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use fakes::Fake;
use scratch::Scratch;
use serde_json::{Value, json};
use skip::skipped;

const PATIENCE: Duration = Duration::from_secs(60);

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

impl Served {
    /// Ends it in order.
    fn stop(&self) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    }

    /// A server that says where it listens on its standard output.
    fn ready(command: &mut Command, before: &str) -> (Self, String) {
        let mut served = Self(command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap());
        let mut lines = BufReader::new(served.0.stdout.take().unwrap());
        let mut said = String::new();
        loop {
            assert!(lines.read_line(&mut said).unwrap() > 0, "it ended: {said}");
            if let Some((_, place)) = said.split_once(before)
                && place.ends_with('\n')
            {
                let url = format!("ws://{}", place.trim());
                // It goes on to write, and must not wait for somebody who reads.
                thread::spawn(move || lines.read_to_string(&mut said));
                return (served, url);
            }
        }
    }
}

/// A port that nothing listens on at this moment.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Starts a program on a port, or on another one if somebody was quicker.
fn start(command: impl Fn(u16) -> Command) -> (Served, u16) {
    for _ in 0..5 {
        let port = free_port();
        let mut command = command(port);
        let mut served = Served(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE && served.0.try_wait().unwrap().is_none() {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return (served, port);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }
    panic!("{:?} does not start", command(0));
}

/// The same with a program of Debian that takes its port from a file; `None` if it is not installed.
fn start_with_file(program: &str, configuration: impl Fn(u16) -> String) -> Option<(Served, u16, Scratch)> {
    let there = |folder: &str| Path::new(folder).join(program);
    let program =
        ["/usr/sbin", "/usr/bin", "/usr/local/bin"].map(there).into_iter().find(|path| path.exists())?;
    let file = Scratch::new("server.conf");
    let (served, port) = start(|port| {
        std::fs::write(file.path(), configuration(port)).unwrap();
        let mut command = Command::new(&program);
        command.args(["-c", file.path()]);
        command
    });
    Some((served, port, file))
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
    let Some((served, port, _file)) = start_with_file("mosquitto", configuration) else {
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
    // It says nothing when it goes, and MQTT 3.1.1 has no word for it.
    let closes = ended("mqtt", &url, &["period=1"], || served.stop());
    assert_eq!(closes, json!({}));
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
    let Some((served, port, _file)) = start_with_file("nats-server", configuration) else {
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
    assert_eq!((code, &report["connections"]["errors"]), (1, &json!({ "await_refused": 1 })), "{said}");
    assert!(said.contains("-ERR 'Authorization Violation'"), "{said}");
    let closes = ended("nats", &url, &set, || served.stop());
    assert_eq!(closes, json!({ "1001 Server Shutdown": 5 }));
}

/// The servers of npm packages. `refused` is what becomes of who may not come in, `end` how everybody ends when the
/// server is stopped.
#[track_caller]
fn assert_speaks_to_npm(preset: &str, refused: &Value, end: &Value) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/presets");
    if !folder.join("node_modules").exists() {
        return skipped("preset-servers");
    }
    let script = folder.join("servers.mjs");
    let (served, url) = Served::ready(Command::new("node").arg(script).arg(preset), "listen=");
    assert_speaks(preset, &["--url", &url], &["token=sesame"], &[]);
    let args = ["idle", "--preset", preset, "--url", &url, "--connections", "2", "--duration", "100ms"];
    let (code, report, said) = run(&args);
    let connections = &report["connections"];
    assert_eq!((code, &connections["opened"], &connections["errors"]), (1, &json!(0), refused), "{said}");
    assert_eq!(&ended(preset, &url, &["token=sesame"], || served.stop()), end);
}

#[test]
fn socketio_with_socket_io() {
    assert_speaks_to_npm("socketio", &json!({ "await_refused": 2 }), &json!({ "1005": 5 }));
}

#[test]
fn graphql_ws_with_graphql_ws() {
    assert_speaks_to_npm("graphql-ws", &json!({ "await_closed": 2 }), &json!({ "1001 Going away": 5 }));
}

/// How connections ended that were sent away in the middle of a run, which is not ok then.
#[track_caller]
fn ended(preset: &str, url: &str, set: &[&str], send_away: impl FnOnce()) -> Value {
    let file = Scratch::new("ended.json");
    let set = set.iter().flat_map(|pair| ["--set", pair]);
    let mut generator = Command::new(env!("CARGO_BIN_EXE_fantail-loadtest"));
    generator.args(["idle", "--preset", preset, "--url", url, "--connections", "5", "--duration", "30s"]);
    generator.args(set).args(["--json", file.path()]).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut running = Served(generator.spawn().unwrap());
    let mut said = String::new();
    let mut lines = BufReader::new(running.0.stderr.take().unwrap());
    while !said.lines().any(|line| line.contains("open 5")) {
        assert!(lines.read_line(&mut said).unwrap() > 0, "{preset}: {said}");
    }
    send_away();
    lines.read_to_string(&mut said).unwrap();
    assert_eq!(running.0.wait().unwrap().code(), Some(1), "{preset}: {said}");
    let report = file.json();
    assert_eq!(report["connections"]["lost"], 5, "{preset}: {said}");
    report["connections"]["closes"].clone()
}

/// What a preset and the client of the protocol's makers have to do with a fake.
#[track_caller]
fn assert_speaks_with_a_fake(preset: &str, fake: &Fake, set: &[&str], heart: &[&str], refused: &str) {
    let credentials: Vec<&str> = set.iter().filter_map(|pair| Some(pair.split_once('=')?.1)).collect();
    assert_speaks(preset, &["--url", &fake.url], set, heart);
    let preset_said = fake.take_said();
    match makers::run(preset, fake, &credentials) {
        None => skipped("preset-servers"),
        Some((account, client_said)) => {
            let right = json!({ "heard": 100, "inOrder": true, "stayed": true, "refused": refused });
            assert_eq!(account, right, "{preset}");
            makers::assert_alike(&preset_said, &client_said);
        }
    }
}

#[test]
fn pusher_with_sockudo() {
    // Where .ci/install-presets leaves it.
    let folder = |name: &str| std::env::var(name).ok().filter(|folder| !folder.is_empty());
    let cache = folder("XDG_CACHE_HOME").or_else(|| folder("HOME").map(|home| home + "/.cache"));
    let program = cache.map(|cache| PathBuf::from(cache + "/fantail/sockudo-5.2.0/bin/sockudo"));
    let Some(program) = program.filter(|program| program.exists()) else {
        return skipped("preset-servers");
    };
    let (served, port) = start(|port| {
        let mut command = Command::new(&program);
        // It would read files of the folder that it is started in.
        command.current_dir("/").env_clear().env("HOST", "127.0.0.1").env("PORT", port.to_string());
        command.env("ACTIVITY_TIMEOUT", "2").env("SHUTDOWN_GRACE_PERIOD", "1");
        for (name, value) in [
            ("METRICS_ENABLED", "false"),
            ("RATE_LIMITER_ENABLED", "false"),
            ("SOCKUDO_DEFAULT_APP_ENABLED", "true"),
            ("SOCKUDO_DEFAULT_APP_ID", "1"),
            ("SOCKUDO_DEFAULT_APP_KEY", "k1"),
            ("SOCKUDO_DEFAULT_APP_SECRET", "s3cret"),
            ("SOCKUDO_ENABLE_CLIENT_MESSAGES", "true"),
            ("SOCKUDO_DEFAULT_APP_ENABLE_CLIENT_MESSAGES", "true"),
            ("SOCKUDO_DEFAULT_APP_MAX_CLIENT_EVENTS_PER_SECOND", "100000"),
        ] {
            command.env(name, value);
        }
        command
    });
    let url = format!("ws://127.0.0.1:{port}");
    let set = ["key=k1", "secret=s3cret"];
    assert_speaks("pusher", &["--url", &url], &set, &["period=1"]);
    let args = ["idle", "--preset", "pusher", "--url", &url, "--connections", "2", "--duration", "1s"];
    let (code, report, said) = run(&[&args[..], &["--set", "key=k1", "--set", "secret=other"]].concat());
    assert_eq!((code, &report["connections"]["errors"]), (1, &json!({ "await_refused": 2 })), "{said}");
    assert!(said.contains("4009"), "{said}");
    // A key that it does not know gets no close frame.
    let (_, report, said) = run(&[&args[..], &["--set", "key=none", "--set", "secret=x"]].concat());
    assert_eq!(report["connections"]["errors"], json!({ "await_closed": 2 }), "{said}");
    let closes = ended("pusher", &url, &set, || served.stop());
    assert_eq!(closes, json!({ "4200 Server shutting down": 5 }));
}

#[test]
fn pusher_with_a_fake() {
    let fake = fakes::pusher("k1", "s3cret");
    let set = ["key=k1", "secret=s3cret"];
    assert_speaks_with_a_fake("pusher", &fake, &set, &["period=1"], "4009");
    // A signature by another secret is refused, and what is said is read.
    let args = ["idle", "--preset", "pusher", "--url", &fake.url, "--connections", "2", "--duration", "1s"];
    let (code, report, said) = run(&[&args[..], &["--set", "key=k1", "--set", "secret=other"]].concat());
    assert_eq!((code, &report["connections"]["opened"]), (1, &json!(0)), "{said}");
    assert_eq!(report["connections"]["errors"], json!({ "await_refused": 2 }), "{said}");
    assert!(said.contains("4009") && !report.to_string().contains("other"), "{report:#}");
    let closes = ended("pusher", &fake.url, &set, || fake.stop());
    assert_eq!(closes, json!({ "4200 Server is restarting": 5 }));
}

#[test]
fn centrifugo_with_a_fake() {
    let fake = fakes::centrifugo("sesame");
    assert_speaks_with_a_fake("centrifugo", &fake, &["token=sesame"], &[], "3500 invalid token");
    let args =
        ["idle", "--preset", "centrifugo", "--url", &fake.url, "--connections", "2", "--duration", "1s"];
    let (code, report, said) = run(&args);
    assert_eq!((code, &report["connections"]["errors"]), (1, &json!({ "await_closed": 2 })), "{said}");
    assert_eq!(report["connections"]["closes"], json!({ "3500 invalid token": 2 }), "{said}");
    let closes = ended("centrifugo", &fake.url, &["token=sesame"], || fake.stop());
    assert_eq!(closes, json!({ "3001 shutdown": 5 }));
}

#[test]
fn phoenix_with_a_fake() {
    let fake = fakes::phoenix("sesame");
    assert_speaks_with_a_fake("phoenix", &fake, &["token=sesame"], &["period=1"], "not let in");
    let args = ["idle", "--preset", "phoenix", "--url", &fake.url, "--connections", "2", "--duration", "1s"];
    let (code, report, said) = run(&args);
    assert_eq!((code, &report["connections"]["errors"]), (1, &json!({ "upgrade_status_403": 2 })), "{said}");
    let closes = ended("phoenix", &fake.url, &["token=sesame"], || fake.stop());
    assert_eq!(closes, json!({ "1012": 5 }));
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
    let (_served, url) = Served::ready(
        Command::new("/usr/bin/puma").args(["-t", "1:4", "-b", "tcp://127.0.0.1:0"]).arg(application),
        "Listening on http://",
    );
    assert_speaks("action-cable", &["--url", &url], &["token=sesame"], &[]);
    let idle =
        ["idle", "--preset", "action-cable", "--url", &url, "--connections", "2", "--duration", "100ms"];
    let (code, report, said) = run(&idle);
    assert_eq!((code, &report["connections"]["errors"]), (1, &json!({ "await_refused": 2 })), "{said}");
    assert!(said.contains("unauthorized"), "{said}");
    let closes = ended("action-cable", &url, &["token=sesame"], || {
        let mut stream = TcpStream::connect(url.trim_start_matches("ws://")).unwrap();
        stream.write_all(b"POST /restart HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        stream.read_to_end(&mut Vec::new()).unwrap();
    });
    assert_eq!(closes, json!({ "1000": 5 }));
}
