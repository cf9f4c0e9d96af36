//! Runs the binary against TLS servers made with rustls and tungstenite that are right or wrong in one way each, and
//! against pages of metrics. Certificates are those in `certificates/`, whose script says how they were made.

mod metrics;
#[path = "../real_server/mod.rs"]
mod real_server;
#[expect(dead_code, reason = "only the other test program lists commands")]
#[path = "../reports/schema.rs"]
mod schema;
#[path = "../scratch/mod.rs"]
mod scratch;
mod servers;

use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use schema::Schemas;
use scratch::Scratch;
use servers::{TLS_1_2, TLS_1_3, Tls, certificate, echo_and_fan_out, misbehaving};

/// What one run left.
struct Outcome {
    code: i32,
    report: Value,
    table: String,
    page: String,
}

/// Runs a command that leaves a result, which has to fit its schema.
fn run(args: &[&str]) -> Outcome {
    let (json, html) = (Scratch::new("run.json"), Scratch::new("run.html"));
    let files = ["--json", json.path(), "--html", html.path()];
    let output =
        Command::new(env!("CARGO_BIN_EXE_fantail-loadtest")).args(args).args(files).output().unwrap();
    let table = String::from_utf8(output.stdout).unwrap();
    let said = format!("{args:?}: {table}{}", String::from_utf8_lossy(&output.stderr));
    let code = output.status.code().unwrap();
    assert!(matches!(code, 0 | 1), "{said}");
    assert!(std::path::Path::new(json.path()).exists(), "{said}");
    let report: Value = json.json();
    assert_eq!(Schemas::load().errors(args[0], &report), Vec::<String>::new());
    Outcome { code, report, table, page: html.text() }
}

/// Runs a command that is refused before it begins; returns what it said.
fn refused(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_fantail-loadtest")).args(args).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]), "{args:?}: {said}");
    said
}

fn idle(url: &str, more: &[&str]) -> Outcome {
    let mut args = [&["idle", "--url", url], more].concat();
    for (flag, value) in [("--connections", "5"), ("--duration", "200ms")] {
        if !more.contains(&flag) {
            args.extend([flag, value]);
        }
    }
    run(&args)
}

#[test]
fn echoes_come_back_over_tls_with_verified_certificates() {
    let address = echo_and_fan_out(Tls::new("server"));
    let ca = certificate("ca.pem");
    for (host, version) in [("localhost", "TLS 1.3"), ("127.0.0.1", "TLS 1.3")] {
        let url = format!("wss://{host}:{}/echo", address.port());
        let args = ["echo", "--url", &url, "--ca", &ca, "--connections", "20", "--rate", "400"];
        let outcome = run(&[&args[..], &["--duration", "1s", "--size", "100"]].concat());
        assert_eq!(outcome.code, 0, "{:#}", outcome.report);
        let report = &outcome.report;
        assert_eq!((&report["returned"], &report["foreign"]), (&json!(400), &json!(0)));
        let tls = &report["tls"];
        assert_eq!((&tls["verified"], &tls["server_name"]), (&json!(true), &json!(host)));
        assert_eq!((&tls["handshakes"], &tls["resumed"]), (&json!(20), &json!(0)));
        assert!(tls["agreed"].as_str().unwrap().starts_with(version), "{tls:#}");
        let latency = |report: &Value| report["max_microseconds"].as_f64().unwrap();
        let handshake = latency(&tls["handshake_latency"]);
        assert!(handshake > 0.0 && handshake <= latency(&report["connections"]["connect_latency"]));
        assert!(outcome.table.contains("verified for") && outcome.table.contains("20 handshakes"));
    }
}

#[test]
fn tls_1_2_works_too() {
    let address = echo_and_fan_out(Tls { versions: TLS_1_2, ..Tls::new("server") });
    let outcome = idle(&format!("wss://{address}/"), &["--ca", &certificate("ca.pem")]);
    assert_eq!(outcome.code, 0, "{:#}", outcome.report);
    assert!(outcome.report["tls"]["agreed"].as_str().unwrap().starts_with("TLS 1.2"));
}

#[test]
fn large_messages_and_bursts_pass() {
    let address = echo_and_fan_out(Tls::new("server"));
    let (url, ca) = (format!("wss://{address}/echo"), certificate("ca.pem"));
    let args = ["echo", "--url", &url, "--ca", &ca, "--connections", "3", "--rate", "60", "--burst", "20"];
    let outcome = run(&[&args[..], &["--size", "300000", "--duration", "1s"]].concat());
    assert_eq!(outcome.code, 0, "{:#}", outcome.report);
    assert_eq!(outcome.report["returned"], 60);
}

#[test]
fn messages_are_published_and_delivered_over_tls() {
    let address = echo_and_fan_out(Tls::new("server"));
    let (url, ca) = (format!("wss://localhost:{}/{{topic}}", address.port()), certificate("ca.pem"));
    let say = format!("{url}?echo=0");
    let publish = ["--publish", "ws", "--publish-url", &say];
    let fanout = ["--url", &url, "--ca", &ca, "--connections", "20", "--duration", "1s"];
    let fanout = [&fanout[..], &publish].concat();
    let outcome = run(&[&["fanout", "--rate", "50"], &fanout[..]].concat());
    assert_eq!((outcome.code, &outcome.report["deliveries"]), (0, &json!(1000)), "{:#}", outcome.report);
    // Many at once: what is unsealed of one read does not end at a message.
    let burst = ["fanout", "--rate", "500", "--burst", "250", "--size", "3000"];
    let outcome = run(&[&burst, &fanout[..]].concat());
    assert_eq!((outcome.code, &outcome.report["missing"]), (0, &json!(0)), "{:#}", outcome.report);
    let slow = ["slow", "--slow-fraction", "0.2", "--slow-rate", "2000", "--rate", "20", "--size", "500"];
    let outcome = run(&[&slow, &fanout[..]].concat());
    assert_eq!(outcome.code, 0, "{:#}", outcome.report);
    let slow = &outcome.report["slow"];
    let (read, after) = (slow["deliveries"].as_u64().unwrap(), slow["caught_up"].as_u64().unwrap());
    assert_eq!((read + after, &slow["missing"]), (80, &json!(0)), "{slow:#}");
    assert!(read > 0 && after > 0, "{slow:#}");
}

#[test]
fn each_wrong_certificate_is_named_with_what_to_do() {
    let ca = certificate("ca.pem");
    let other = certificate("other.pem");
    for (server, trusted, error, advice) in [
        ("server", &other, "tls_unknown_issuer", "--ca FILE"),
        ("elsewhere", &ca, "tls_wrong_name", "elsewhere.example"),
        ("expired", &ca, "tls_expired", "renew"),
        ("future", &ca, "tls_not_yet_valid", "clock"),
    ] {
        let url = format!("wss://{}/", echo_and_fan_out(Tls::new(server)));
        let outcome = idle(&url, &["--ca", trusted]);
        let connections = &outcome.report["connections"];
        assert_eq!((outcome.code, &connections["opened"]), (1, &json!(0)), "{server}: {connections:#}");
        assert_eq!(connections["errors"], json!({ error: 5 }));
        let said = connections["advice"][0].as_str().unwrap();
        assert!(said.starts_with(error) && said.contains(advice), "{said}");
        assert!(outcome.table.contains(said) && outcome.page.contains("what to do"), "{}", outcome.table);
        assert_eq!(outcome.report["tls"]["agreed"], Value::Null);

        let insecure = idle(&url, &["--insecure"]);
        assert_eq!(insecure.code, 0, "{server}: {:#}", insecure.report);
        assert_eq!(insecure.report["tls"]["verified"], false);
        assert!(insecure.table.contains("NOT VERIFIED (--insecure)"), "{}", insecure.table);
        assert!(insecure.page.contains("was not verified (--insecure)"));
        assert!(insecure.page.contains("<h2>TLS handshake by percentile</h2>"));
        assert_eq!(insecure.report["settings"]["insecure"], "true");
    }
}

#[test]
fn without_a_ca_file_the_systems_authorities_decide() {
    let url = format!("wss://{}/", echo_and_fan_out(Tls::new("server")));
    // Where a user says the system's are is where those of this test are.
    let json = Scratch::new("system.json");
    for (file, code) in [("ca.pem", 0), ("other.pem", 1)] {
        let output = Command::new(env!("CARGO_BIN_EXE_fantail-loadtest"))
            .args(["idle", "--url", &url, "--connections", "2", "--duration", "10ms", "--json", json.path()])
            .env("SSL_CERT_FILE", certificate(file))
            .env_remove("SSL_CERT_DIR")
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stdout));
        let report: Value = json.json();
        assert_eq!(report["tls"]["trust"], "1 authorities of the system");
    }
}

#[test]
fn whatever_else_goes_wrong_has_its_name() {
    let plain = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
    let alert = [21, 3, 3, 0, 2, 2, 40];
    let cut_off_hello = [22, 3, 3, 0, 50, 2, 0];
    let nonsense: Vec<u8> =
        (0..60_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8 | 0x80).collect();
    let wrong_hello = [&[22_u8, 3, 3, 0, 8, 2, 0, 0, 4][..], &[9; 4]].concat();
    for (answer, error) in [
        (&plain[..], "tls_not_spoken"),
        (&nonsense, "tls_not_spoken"),
        (&alert, "tls_refused"),
        (&cut_off_hello, "tls_closed"),
        (&[], "tls_closed"),
        (&wrong_hello, "tls_protocol_error"),
    ] {
        let outcome = idle(&format!("wss://{}/", misbehaving(answer.to_vec())), &["--insecure"]);
        let connections = &outcome.report["connections"];
        assert_eq!((outcome.code, &connections["errors"]), (1, &json!({ error: 5 })), "{connections:#}");
        assert!(connections["advice"][0].as_str().unwrap().starts_with(error));
    }
    let address = echo_and_fan_out(Tls::new("server"));
    let outcome = idle(&format!("ws://{address}/"), &[]);
    assert_eq!(outcome.report["connections"]["errors"], json!({ "server_speaks_tls": 5 }));
    assert!(outcome.table.contains("use wss://"), "{}", outcome.table);
    assert_eq!(outcome.report["tls"], Value::Null);
}

#[test]
fn a_handshake_without_an_end_is_given_up() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("wss://{}/", listener.local_addr().unwrap());
    let began = Instant::now();
    let outcome = idle(&url, &["--insecure"]);
    assert_eq!(outcome.report["connections"]["errors"], json!({ "tls_timeout": 5 }));
    assert!(began.elapsed() < Duration::from_secs(25));
}

#[test]
fn an_end_without_close_notify_is_told_from_one_with() {
    for (says_goodbye, error) in [(true, "lost_eof"), (false, "lost_without_close_notify")] {
        let address = echo_and_fan_out(Tls { ends: Some(says_goodbye), ..Tls::new("server") });
        let outcome = idle(&format!("wss://{address}/"), &["--insecure", "--duration", "1s"]);
        let connections = &outcome.report["connections"];
        assert_eq!((outcome.code, &connections["opened"]), (1, &json!(5)), "{connections:#}");
        assert_eq!(connections["errors"], json!({ error: 5 }));
    }
}

#[test]
fn sessions_are_resumed_only_if_asked_for() {
    for versions in [TLS_1_3, TLS_1_2] {
        let address = echo_and_fan_out(Tls { versions, ..Tls::new("server") });
        let url = format!("wss://{address}/");
        let args = ["storm", "--url", &url, "--bystander", "none", "--insecure", "--connections", "20"];
        let args = [&args[..], &["--duration", "100ms"]].concat();
        let storm = |more: &[&str]| run(&[&args[..], more].concat());
        let full = storm(&[]);
        assert_eq!((full.code, &full.report["returned"]), (0, &json!(20)), "{:#}", full.report);
        assert_eq!(full.report["tls"]["handshakes"], 40);
        assert_eq!(
            (&full.report["tls"]["resumed"], &full.report["tls"]["resumes"]),
            (&json!(0), &json!(false))
        );
        let resumed = storm(&["--tls-resume"]);
        assert_eq!((resumed.code, &resumed.report["tls"]["resumes"]), (0, &json!(true)));
        // Whoever connects while others already have tickets resumes, too.
        assert!(resumed.report["tls"]["resumed"].as_u64().unwrap() >= 20, "{:#}", resumed.report["tls"]);
    }
}

#[test]
fn merged_results_say_what_all_of_them_verified() {
    let url = format!("wss://{}/echo", echo_and_fan_out(Tls::new("server")));
    let files = [Scratch::new("a.json"), Scratch::new("b.json"), Scratch::new("merged.json")];
    let ca = certificate("ca.pem");
    let program = || Command::new(env!("CARGO_BIN_EXE_fantail-loadtest"));
    std::thread::scope(|scope| {
        for (file, trust) in files.iter().zip([&["--ca", &ca][..], &["--insecure"]]) {
            // So long that both are there at once, also where a busy machine begins late with one.
            let args = ["echo", "--url", &url, "--duration", "4s", "--connections", "4", "--rate", "40"];
            let mut command = program();
            command.args(args).args(trust).args(["--json", file.path()]);
            scope.spawn(move || assert!(command.output().unwrap().status.success()));
        }
    });
    let args = ["merge", files[0].path(), files[1].path(), "--json", files[2].path()];
    let output = program().args(args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let merged: Value = serde_json::from_str(&files[2].text()).unwrap();
    assert_eq!(Schemas::load().errors("merge", &merged), Vec::<String>::new());
    let tls = &merged["tls"];
    assert_eq!((&tls["verified"], &tls["handshakes"]), (&json!(false), &json!(8)), "{tls:#}");
    assert_eq!(tls["handshake_latency"]["count"], 8);
}

#[test]
fn wrong_flags_are_told_before_anything_is_opened() {
    let url = "wss://127.0.0.1:9/";
    let idle = |more: &[&str]| refused(&[&["idle", "--url", url], more].concat());
    assert!(idle(&["--ca", "/nowhere.pem"]).contains("--ca /nowhere.pem"));
    assert!(idle(&["--ca", &certificate("server.key")]).contains("no certificate in it"));
    assert!(idle(&["--ca", &certificate("ca.pem"), "--insecure"]).contains("cannot be used with"));
    let fanout = ["fanout", "--url", "ws://127.0.0.1:9/", "--publish-url", "wss://127.0.0.1:9/"];
    assert!(refused(&fanout).contains("http:// or https://"));
}

#[test]
fn a_plan_counts_the_memory_of_tls() {
    let bytes = |url: &str| {
        let args = ["idle", "--plan", "--url", url, "--connections", "10000"];
        let file = Scratch::new("plan.json");
        let output = Command::new(env!("CARGO_BIN_EXE_fantail-loadtest"))
            .args(args)
            .args(["--json", file.path()])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        let plan: Value = file.json();
        plan["generator_bytes"].as_u64().unwrap()
    };
    assert!(bytes("wss://127.0.0.1:9/") - bytes("ws://127.0.0.1:9/") > 10_000 * 4_096);
}
