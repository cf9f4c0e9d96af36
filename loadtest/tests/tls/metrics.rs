//! `--server-metrics`: pages of any server and of the real one, pages that stop coming, pages over TLS.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::real_server::fantail;
use super::servers::{Tls, certificate, echo_and_fan_out, secured};
use super::{idle, refused, run};

/// What a page of the test's server says at its `n`th reading.
type Page = fn(n: u32) -> String;

/// Serves pages on kept connections, over TLS if it is given; holds the answer back once a page is empty.
fn pages(tls: Option<Tls>, page: Page) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let config = tls.map(|tls| tls.config());
    std::thread::spawn(move || {
        let mut reading = 0;
        for stream in listener.incoming() {
            let stream = stream.unwrap();
            match &config {
                Some(config) => answer(secured(stream, config), page, &mut reading),
                None => answer(stream, page, &mut reading),
            }
        }
    });
    address
}

fn answer(mut stream: impl Read + Write, page: Page, reading: &mut u32) {
    let mut request = Vec::new();
    loop {
        while !request.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            match stream.read(&mut byte) {
                Ok(1) => request.push(byte[0]),
                _ => return,
            }
        }
        let text = String::from_utf8(std::mem::take(&mut request)).unwrap();
        assert!(text.starts_with("GET /metrics HTTP/1.1\r\n"), "{text}");
        *reading += 1;
        let body = page(*reading);
        if body.is_empty() {
            std::thread::sleep(Duration::from_secs(60));
            return;
        }
        let body = body.replace("{authorization}", text.split("Authorization: ").nth(1).unwrap_or(""));
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        if stream.write_all(head.as_bytes()).and_then(|()| stream.flush()).is_err() {
            return;
        }
    }
}

/// Serves a page of which a sealed byte comes each fifth of a second, so that its record takes half a minute.
fn dripping() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let config = Tls::new("server").config();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = secured(stream.unwrap(), &config);
            let _ = stream.read(&mut [0; 1024]);
            let body = another_server(1);
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            stream.conn.writer().write_all(answer.as_bytes()).unwrap();
            let mut sealed = Vec::new();
            while stream.conn.wants_write() {
                stream.conn.write_tls(&mut sealed).unwrap();
            }
            for byte in sealed {
                if stream.sock.write_all(&[byte]).is_err() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(200));
            }
        }
    });
    address
}

fn another_server(n: u32) -> String {
    let (resident, cpu) = (40_000_000, f64::from(n) * 0.125);
    format!("# TYPE x gauge\nprocess_resident_memory_bytes {resident}\nprocess_cpu_seconds_total {cpu}\n")
}

fn one_that_stops(n: u32) -> String {
    if n <= 3 { another_server(n) } else { String::new() }
}

fn one_without_a_process(_: u32) -> String {
    "http_requests_total 7\n".into()
}

fn last<'a>(report: &'a Value, column: &str) -> &'a Value {
    report["series"][column].as_array().unwrap().last().unwrap()
}

#[test]
fn any_servers_metrics_fill_what_they_tell_and_nothing_else() {
    let url = format!("wss://{}/", echo_and_fan_out(Tls::new("server")));
    let page = format!("http://{}/metrics", pages(None, another_server));
    let outcome = idle(&url, &["--insecure", "--server-metrics", &page, "--duration", "1200ms"]);
    let report = &outcome.report;
    assert_eq!(outcome.code, 0, "{report:#}");
    let server = &report["server"];
    assert_eq!((&server["pid"], &server["context_switches_hold"]), (&Value::Null, &Value::Null));
    for memory in ["memory_before", "memory_lower", "memory_full"] {
        assert_eq!(server[memory]["user_bytes"], Value::Null, "{server:#}");
        assert_eq!(server[memory]["resident_bytes"], 40_000_000);
    }
    assert_eq!(server["user_bytes_per_connection"], Value::Null);
    assert_eq!(server["resident_bytes_per_connection"], 0.0, "it is known not to have grown");
    assert!(server["cpu_hold_seconds"].as_f64().unwrap() >= 0.125, "{server:#}");
    let metrics = &report["server_metrics"];
    assert_eq!((&metrics["url"], &metrics["failed"]), (&json!(page), &json!(0)));
    assert_eq!(metrics["names"], json!(["process_resident_memory_bytes", "process_cpu_seconds_total"]));
    assert_eq!(last(report, "server_user_bytes"), &Value::Null);
    assert_eq!(last(report, "server_resident_bytes"), &json!(40_000_000));
    assert!(last(report, "server_cpu_seconds").as_f64().unwrap() > 0.0);
    assert!(outcome.table.contains(&format!("the server's own metrics at {page}")), "{}", outcome.table);
    assert!(outcome.table.contains("n/a of user memory, 0.0 bytes resident"), "{}", outcome.table);
    assert!(outcome.page.contains("<h2>Server&#39;s resident memory over time</h2>"), "no chart of it");
}

#[test]
fn a_page_that_stops_coming_is_unknown_and_holds_nothing_up() {
    let url = format!("wss://{}/echo", echo_and_fan_out(Tls::new("server")));
    let page = format!("http://{}/metrics", pages(None, one_that_stops));
    let args = ["echo", "--url", &url, "--insecure", "--server-metrics", &page, "--connections", "5"];
    let began = Instant::now();
    let outcome = run(&[&args[..], &["--rate", "100", "--duration", "7s"]].concat());
    let report = &outcome.report;
    assert_eq!((outcome.code, &report["returned"]), (0, &json!(700)), "{report:#}");
    assert!(report["server_metrics"]["failed"].as_u64().unwrap() > 0, "{:#}", report["server_metrics"]);
    assert_eq!(last(report, "server_resident_bytes"), &Value::Null);
    assert_eq!(report["server_cpu_nanoseconds_per_message"], Value::Null);
    assert!(outcome.table.contains("readings failed"), "{}", outcome.table);
    assert!(began.elapsed() < Duration::from_secs(40));
}

#[test]
fn pages_are_read_over_tls_and_with_headers() {
    fn page(_: u32) -> String {
        "process_resident_memory_bytes {authorization}".into()
    }
    let address = pages(Some(Tls::new("server")), page);
    let metrics = format!("https://localhost:{}/metrics", address.port());
    let (ca, header) = (certificate("ca.pem"), "Authorization: 123456");
    let args = ["memory", "--server-metrics", &metrics, "--metrics-header", header, "--steps", "1,2,3"];
    let listening = format!("wss://{}/", echo_and_fan_out(Tls::new("server")));
    let more = ["--url", &listening, "--ca", &ca, "--duration", "0s"];
    let outcome = run(&[&args[..], &more].concat());
    assert_eq!(outcome.code, 0, "{:#}", outcome.report);
    let kinds = outcome.report["kinds"].as_array().unwrap();
    let of_server: Vec<&Value> = kinds.iter().filter(|kind| kind["end"] == "server").collect();
    for kind in of_server {
        let known = kind["name"] == "resident";
        assert_eq!(kind["before_bytes"].as_f64(), known.then_some(123_456.0), "{kind:#}");
        assert_eq!(kind["bytes_per_connection"].is_number(), known);
    }
    assert_eq!(outcome.report["settings"]["metrics-header"], "Authorization: …");
    let other = certificate("other.pem");
    let wrong = [&args[..5], &["--url", &listening, "--ca", &other]].concat();
    assert!(refused(&wrong).contains("no trusted authority signed"), "the page's certificate");
}

#[test]
fn wrong_pages_are_refused_by_name() {
    let refuse = |page: &str| refused(&["idle", "--url", "ws://127.0.0.1:9/", "--server-metrics", page]);
    let page = format!("http://{}/metrics", pages(None, one_without_a_process));
    assert!(refuse(&page).contains("process_resident_memory_bytes"));
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    assert!(refuse(&format!("http://{closed}/metrics")).contains("refused"));
    assert!(refuse("ws://127.0.0.1:9/").contains("needs http:// or https://"));
    let sealed = pages(Some(Tls::new("server")), another_server);
    assert!(refuse(&format!("http://{sealed}/metrics")).contains("speaks TLS: use https://"));
    assert!(refuse(&page.replace("http:", "https:")).contains("does that port speak TLS?"));
    let silent = pages(None, |_| String::new());
    let began = Instant::now();
    assert!(refuse(&format!("http://{silent}/metrics")).contains("within three seconds"));
    assert!(began.elapsed() < Duration::from_secs(20));
    let began = Instant::now();
    let page_of_drops = format!("https://{}/metrics", dripping());
    let more = ["--insecure", "--server-metrics", &page_of_drops];
    let said = refused(&[&["idle", "--url", "ws://127.0.0.1:9/"][..], &more].concat());
    assert!(said.contains("within three seconds"), "{said}");
    assert!(began.elapsed() < Duration::from_secs(20));
    // A command that measures nothing of the server but its course over time refuses them as well.
    let none = format!("http://{closed}/metrics");
    assert!(
        refused(&["rolling", "--url", "ws://127.0.0.1:9/", "--server-metrics", &none]).contains("refused")
    );
    let pid = ["--pid", "1"];
    let both = [&["idle", "--server-metrics", &page], &pid[..]].concat();
    assert!(refused(&both).contains("cannot be used with"));
}

/// The real server, on free ports; it ends with this value.
struct Fantail {
    child: Child,
    listen: String,
    admin: String,
}

impl Fantail {
    fn start() -> Self {
        let mut command = Command::new(fantail());
        command.args(["serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let after = |key: &str| line.split(key).nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
        let (listen, admin) = (after("listen="), after("admin="));
        Self { child, listen, admin }
    }
}

impl Drop for Fantail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn fantails_metrics_tell_what_its_process_tells() {
    let server = Fantail::start();
    let url = format!("ws://{}/ws", server.listen);
    let metrics = format!("http://{}/metrics", server.admin);
    let outcome = idle(&url, &["--server-metrics", &metrics, "--connections", "500"]);
    let (remote, pid) = (&outcome.report["server"], server.child.id().to_string());
    assert_eq!(outcome.code, 0, "{:#}", outcome.report);
    let local = idle(&url, &["--pid", &pid, "--connections", "500"]);
    for (field, at_most) in [("user_bytes", 2_000_000.0), ("resident_bytes", 4_000_000.0)] {
        let of = |report: &Value| report["memory_full"][field].as_f64().unwrap();
        let apart = (of(remote) - of(&local.report["server"])).abs();
        assert!(apart < at_most, "{field}: {remote:#} {:#}", local.report["server"]);
    }
    assert!(remote["user_bytes_per_connection"].is_number(), "{remote:#}");
    assert!(remote["cpu_open_seconds"].is_number(), "{remote:#}");
    assert_eq!(remote["context_switches_hold"], Value::Null, "its metrics do not tell");
}
