//! Runs the binary against small servers written with tungstenite and checks what it reports, above all
//! that planted faults are told. Every server binds port 0 and ends with the test process.

mod accept;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use fantail::wire::deflate::{Deflater, is_answer, negotiate};
use fantail::wire::frame::{Opcode, push_deflated_frame, push_frame};
use serde_json::Value;
use tungstenite::handshake::derive_accept_key;
use tungstenite::{Message, WebSocket};

use accept::accept;

const CONNECTIONS: u64 = 20;
const PROBE: &str = "ffffffff";

/// What a server does wrong to the subscriber (or echo connection) that came third.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Nothing,
    Drop,
    DropLast,
    Duplicate,
    Swap,
    Corrupt,
    Close,
}

#[derive(Default)]
struct Served {
    pongs: AtomicU64,
    accepted: AtomicU64,
    fanned_out: AtomicU64,
    /// Messages that came in a binary frame, or as bytes by HTTP; probes are not counted.
    binary: AtomicU64,
}

struct Subscriber {
    socket: WebSocket<TcpStream>,
    held: Option<Message>,
    faulty: bool,
}

impl Subscriber {
    /// Delivers message `number`; the fault strikes at numbers 3 and, where two are needed, 4.
    fn deliver(&mut self, number: u64, last: u64, message: &Message, fault: Fault) {
        let at_fault = self.faulty && number == 3;
        match fault {
            Fault::Drop if at_fault => return,
            Fault::DropLast if self.faulty && number == last => return,
            Fault::Swap if at_fault => {
                self.held = Some(message.clone());
                return;
            }
            Fault::Duplicate if at_fault => self.socket.send(message.clone()).unwrap(),
            Fault::Corrupt if at_fault => {
                let mut bytes = message.clone().into_data().to_vec();
                *bytes.last_mut().unwrap() = b'#';
                let changed = match String::from_utf8(bytes) {
                    Ok(text) if message.is_text() => Message::text(text),
                    Ok(text) => Message::binary(text.into_bytes()),
                    Err(error) => Message::binary(error.into_bytes()),
                };
                return self.socket.send(changed).unwrap();
            }
            Fault::Close if at_fault => {
                // The generator may have gone by itself when the frame is flushed.
                let _ = self.socket.close(None);
                let _ = self.socket.flush();
                return;
            }
            _ => {}
        }
        if fault == Fault::Close && self.faulty && number > 3 {
            return;
        }
        self.socket.send(message.clone()).unwrap();
        if let Some(held) = self.held.take() {
            self.socket.send(held).unwrap();
        }
    }
}

type Subscribers = Arc<Mutex<Vec<Subscriber>>>;

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An echo server that pings each connection once before its first answer.
fn echo_server(fault: Fault) -> (SocketAddr, Arc<Served>) {
    let (listener, address) = listen();
    let served = Arc::new(Served::default());
    let shared = served.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let served = shared.clone();
            let place = served.accepted.fetch_add(1, Ordering::SeqCst);
            thread::spawn(move || {
                let (socket, path) = accept(stream.unwrap());
                assert_eq!(path, "/echo");
                let mut subscriber = Subscriber { socket, held: None, faulty: place == 2 };
                let mut number = 0;
                subscriber.socket.send(Message::Ping("marco".into())).unwrap();
                while let Ok(message) = subscriber.socket.read() {
                    match message {
                        Message::Text(_) | Message::Binary(_) => {
                            served.binary.fetch_add(u64::from(message.is_binary()), Ordering::SeqCst);
                            subscriber.deliver(number, u64::MAX, &message, fault);
                            number += 1;
                        }
                        Message::Pong(payload) if payload.as_ref() == b"marco" => {
                            served.pongs.fetch_add(1, Ordering::SeqCst);
                        }
                        _ => {}
                    }
                }
            });
        }
    });
    (address, served)
}

/// Sends one published message to all subscribers. Probes are not numbered.
fn fan_out(subscribers: &Subscribers, served: &Served, message: &Message, last: u64, fault: Fault) {
    let probe = match message {
        Message::Text(text) => &text[20..28] == PROBE,
        other => other.clone().into_data()[4..8] == [0xff; 4],
    };
    let number = if probe { u64::MAX } else { served.fanned_out.fetch_add(1, Ordering::SeqCst) };
    served.binary.fetch_add(u64::from(message.is_binary() && !probe), Ordering::SeqCst);
    for subscriber in subscribers.lock().unwrap().iter_mut() {
        subscriber.deliver(number, last, message, if probe { Fault::Nothing } else { fault });
    }
}

/// A fan-out server: a WebSocket port for subscribers and publishers, and an HTTP port for publishers.
fn fan_out_server(last: u64, fault: Fault) -> (SocketAddr, SocketAddr, Arc<Served>) {
    let (ws_listener, ws_address) = listen();
    let (http_listener, http_address) = listen();
    let served = Arc::new(Served::default());
    let subscribers = Subscribers::default();
    let (shared, list) = (served.clone(), subscribers.clone());
    thread::spawn(move || {
        for stream in ws_listener.incoming() {
            let (mut socket, path) = accept(stream.unwrap());
            if path.ends_with("?echo=0") {
                let (shared, list) = (shared.clone(), list.clone());
                thread::spawn(move || {
                    while let Ok(message) = socket.read() {
                        if message.is_text() || message.is_binary() {
                            fan_out(&list, &shared, &message, last, fault);
                        }
                    }
                });
            } else {
                assert!(path.starts_with("/ws/load-"), "{path}");
                let mut list = list.lock().unwrap();
                let faulty = list.len() == 2;
                list.push(Subscriber { socket, held: None, faulty });
            }
        }
    });
    let shared = served.clone();
    thread::spawn(move || {
        for stream in http_listener.incoming() {
            let (shared, list) = (shared.clone(), subscribers.clone());
            thread::spawn(move || serve_http(stream.unwrap(), &shared, &list, last, fault));
        }
    });
    (ws_address, http_address, served)
}

fn serve_http(mut stream: TcpStream, served: &Served, list: &Subscribers, last: u64, fault: Fault) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    while reader.read_line(&mut line).unwrap_or(0) > 0 {
        assert!(line.starts_with("POST /publish/load-"), "{line}");
        assert!(!line.contains('?'), "nothing is added to what was given: {line}");
        let (mut len, mut binary) = (0, false);
        loop {
            line.clear();
            reader.read_line(&mut line).unwrap();
            if line == "\r\n" {
                break;
            }
            binary |= line == "Content-Type: application/octet-stream\r\n";
            if let Some(value) = line.strip_prefix("Content-Length: ") {
                len = value.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; len];
        reader.read_exact(&mut body).unwrap();
        let message =
            if binary { Message::binary(body) } else { Message::text(String::from_utf8(body).unwrap()) };
        fan_out(list, served, &message, last, fault);
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n").unwrap();
        line.clear();
    }
}

/// Runs the binary and returns its exit code, its result file and what it printed.
fn run(name: &str, args: &[&str]) -> (i32, Value, Output) {
    let file = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}.json", std::process::id()));
    let output = Command::new(env!("CARGO_BIN_EXE_fantail-loadtest"))
        .args(args)
        .arg("--json")
        .arg(&file)
        .output()
        .unwrap();
    let text = std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    std::fs::remove_file(&file).unwrap();
    (output.status.code().unwrap(), serde_json::from_str(&text).unwrap(), output)
}

fn run_fanout(name: &str, fault: Fault, by: &str, extra: &[&str]) -> (i32, Value, Output, Arc<Served>) {
    let (ws, http, served) = fan_out_server(39, fault);
    let url = format!("ws://{ws}/ws/{{topic}}");
    let publish_url = match by {
        "http" => format!("http://{http}/publish/{{topic}}"),
        _ => format!("{url}?echo=0"),
    };
    let mut args = vec!["fanout", "--url", &url, "--publish", by, "--publish-url", &publish_url];
    args.extend(["--connections", "20", "--threads", "2", "--rate", "80", "--duration", "500ms"]);
    args.extend(extra);
    let (code, report, output) = run(name, &args);
    (code, report, output, served)
}

/// The counts of a run without any fault, whatever it was.
fn assert_clean(report: &Value) {
    assert_eq!(report["ok"], true, "{report:#}");
    for count in ["missing", "duplicate", "reordered", "unclassified", "corrupt", "foreign"] {
        assert_eq!(report[count], 0, "{count}: {report:#}");
    }
    assert_eq!(report["connections"]["opened"], CONNECTIONS);
    assert_eq!(report["connections"]["lost"], 0);
    assert!(report["latency"]["p50_microseconds"].as_f64().unwrap() > 0.0);
}

#[test]
fn echo_returns_everything_and_answers_pings() {
    let (address, served) = echo_server(Fault::Nothing);
    let url = format!("ws://{address}/echo");
    let (code, report, output) = run(
        "echo",
        &[
            "echo",
            "--url",
            &url,
            "--connections",
            "20",
            "--rate",
            "400",
            "--duration",
            "1s",
            "--threads",
            "3",
        ],
    );
    assert_clean(&report);
    assert_eq!((code, report["sent"].as_u64(), report["returned"].as_u64()), (0, Some(400), Some(400)));
    assert_eq!(served.pongs.load(Ordering::SeqCst), CONNECTIONS);
    let table = String::from_utf8(output.stdout).unwrap();
    assert!(table.contains("round trip"), "{table}");
    assert!(table.trim_end().ends_with("ok"), "{table}");
}

#[test]
fn echo_survives_messages_larger_than_any_buffer() {
    let (address, _) = echo_server(Fault::Nothing);
    let url = format!("ws://{address}/echo");
    let (code, report, _) = run(
        "echo-large",
        &[
            "echo",
            "--url",
            &url,
            "--connections",
            "20",
            "--rate",
            "20",
            "--burst",
            "20",
            "--size",
            "300000",
            "--duration",
            "2s",
        ],
    );
    assert_clean(&report);
    assert_eq!((code, report["returned"].as_u64()), (0, Some(40)));
}

#[test]
fn echo_tells_planted_faults() {
    // All at once, because each waits ten seconds for what will never come.
    let cases = [
        (Fault::Drop, "missing"),
        (Fault::Duplicate, "duplicate"),
        (Fault::Swap, "reordered"),
        (Fault::Corrupt, "corrupt"),
    ];
    thread::scope(|scope| {
        for (fault, count) in cases {
            scope.spawn(move || {
                let (address, _) = echo_server(fault);
                let url = format!("ws://{address}/echo");
                let (code, report, _) = run(
                    &format!("echo-{fault:?}"),
                    &["echo", "--url", &url, "--connections", "20", "--rate", "400", "--duration", "500ms"],
                );
                assert_eq!((code, report[count].as_u64()), (1, Some(1)), "{fault:?}: {report:#}");
                assert_eq!(report["ok"], false);
            });
        }
    });
}

#[test]
fn fanout_by_http_accounts_for_every_delivery() {
    let (code, report, output, served) = run_fanout("fanout-http", Fault::Nothing, "http", &[]);
    assert_clean(&report);
    assert_eq!((code, report["published"].as_u64(), report["deliveries"].as_u64()), (0, Some(40), Some(800)));
    assert_eq!(served.fanned_out.load(Ordering::SeqCst), 40);
    assert_eq!((report["fan_outs_complete"].as_u64(), report["subscribed"].as_u64()), (Some(40), Some(20)));
    assert!(report["fan_out_median_microseconds"].as_f64().unwrap() > 0.0);
    assert_eq!(report["server_cpu_seconds"], Value::Null, "unknown is null");
    let topic = report["topic"].as_str().unwrap();
    assert!(String::from_utf8(output.stderr).unwrap().contains(topic));
}

#[test]
fn fanout_by_websocket_with_bursts() {
    let (code, report, _, _) =
        run_fanout("fanout-ws", Fault::Nothing, "ws", &["--burst", "8", "--size", "2000"]);
    assert_clean(&report);
    assert_eq!((code, report["deliveries"].as_u64(), report["publish"].as_str()), (0, Some(800), Some("ws")));
    assert_eq!(report["fan_outs_complete"], 5);
}

#[test]
fn messages_below_48_bytes_travel_in_binary_frames() {
    for (size, by) in [("16", "http"), ("47", "http"), ("16", "ws")] {
        let (code, report, _, served) =
            run_fanout(&format!("compact-{size}-{by}"), Fault::Nothing, by, &["--size", size]);
        assert_clean(&report);
        assert_eq!((code, report["deliveries"].as_u64()), (0, Some(800)), "{size} {by}");
        assert_eq!(report["size_bytes"].to_string(), size);
        assert_eq!(served.fanned_out.load(Ordering::SeqCst), 40);
        assert_eq!(served.binary.load(Ordering::SeqCst), 40, "{size} {by}");
    }
    let (address, served) = echo_server(Fault::Nothing);
    let url = format!("ws://{address}/echo");
    let mut args = vec!["echo", "--url", &url, "--connections", "20", "--size", "16"];
    args.extend(["--rate", "400", "--duration", "1s", "--threads", "2"]);
    let (code, report, _) = run("compact-echo", &args);
    assert_clean(&report);
    assert_eq!((code, report["returned"].as_u64()), (0, Some(400)));
    assert_eq!(served.binary.load(Ordering::SeqCst), 400);
}

#[test]
fn compact_messages_tell_planted_faults() {
    // The last byte of a message of 16 is its planned time, of which every value is possible; from 17 on the
    // rest is checked.
    fanout_tells(&["--size", "17"]);
}

#[test]
fn fanout_tells_planted_faults() {
    fanout_tells(&[]);
}

fn fanout_tells(size: &[&str]) {
    let cases = [
        (Fault::Drop, "missing"),
        (Fault::DropLast, "missing"),
        (Fault::Duplicate, "duplicate"),
        (Fault::Swap, "reordered"),
        (Fault::Corrupt, "corrupt"),
    ];
    thread::scope(|scope| {
        for (fault, count) in cases {
            scope.spawn(move || {
                let pid = std::process::id().to_string();
                let with_pid = ["--pid", &pid];
                // On one connection: where several messages are published at once, nobody owes an order.
                let mut extra = [size, &["--publishers", "1"]].concat();
                if fault == Fault::Swap {
                    extra.extend(with_pid);
                }
                let name = format!("fanout-{fault:?}{}", size.len());
                let (code, report, _, _) = run_fanout(&name, fault, "http", &extra);
                assert_eq!((code, report[count].as_u64()), (1, Some(1)), "{fault:?}: {report:#}");
                let deliveries = if matches!(fault, Fault::Duplicate | Fault::Swap) { 800 } else { 799 };
                assert_eq!(report["deliveries"].as_u64(), Some(deliveries), "{fault:?}");
                assert_eq!(report["server_cpu_seconds"].is_null(), fault != Fault::Swap);
            });
        }
    });
}

#[test]
fn a_connection_closed_by_the_server_is_lost_and_its_messages_missing() {
    let (code, report, _, _) = run_fanout("fanout-close", Fault::Close, "http", &["--publishers", "1"]);
    assert_eq!((code, report["connections"]["lost"].as_u64()), (1, Some(1)), "{report:#}");
    assert_eq!(report["connections"]["errors"]["lost_close_frame"], 1);
    assert_eq!(report["missing"], 37);
}

#[test]
fn idle_holds_and_watches_the_server() {
    let (address, served) = echo_server(Fault::Nothing);
    let url = format!("ws://{address}/echo");
    // Not this process: its threads end with their tests and take their context switches with them. It ends with
    // its input.
    let mut watched = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
    let pid = watched.id().to_string();
    let (code, report, _) = run(
        "idle",
        &[
            "idle",
            "--url",
            &url,
            "--connections",
            "20",
            "--duration",
            "200ms",
            "--pid",
            &pid,
            "--connect-rate",
            "50",
            "--source",
            "127.0.0.1-127.0.0.4",
        ],
    );
    assert_eq!((code, report["connections"]["opened"].as_u64()), (0, Some(CONNECTIONS)), "{report:#}");
    assert_eq!(report["connections"]["source_addresses"], 4);
    // 19 intervals of 20 ms, less what connecting may catch up after a pause of the machine.
    assert!(report["connections"]["open_seconds"].as_f64().unwrap() >= 0.05, "{report:#}");
    let server = &report["server"];
    assert_eq!(server["memory_lower"]["connections"], 4);
    assert_eq!(server["memory_full"]["connections"], 20);
    assert!(server["memory_before"]["rss_anon_bytes"].as_u64().unwrap() > 0);
    assert!(server["user_bytes_per_connection"].is_number());
    assert!(server["cpu_hold_seconds"].is_number());
    assert!(server["context_switches_hold"].is_number());
    drop(watched.stdin.take());
    watched.wait().unwrap();
    // The server may read the last of them later than the generator is gone.
    let until = Instant::now() + Duration::from_secs(60);
    while served.pongs.load(Ordering::SeqCst) < CONNECTIONS {
        assert!(Instant::now() < until, "{} pongs", served.pongs.load(Ordering::SeqCst));
        thread::sleep(Duration::from_millis(5));
    }
}

/// An echo server that accepts compression and compresses every answer; each second one of `broken` bytes less.
fn deflating_echo_server(broken: usize) -> SocketAddr {
    let (listener, address) = listen();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || serve_deflating(stream.unwrap(), broken));
        }
    });
    address
}

fn serve_deflating(mut stream: TcpStream, broken: usize) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut accept, mut agreed, mut line) = (String::new(), None, String::new());
    while reader.read_line(&mut line).unwrap() > 2 {
        let (name, value) = line.trim_end().split_once(": ").unwrap_or_default();
        match name {
            "Sec-WebSocket-Key" => accept = derive_accept_key(value.as_bytes()),
            "Sec-WebSocket-Extensions" => agreed = negotiate([value].into_iter()).unwrap(),
            _ => {}
        }
        line.clear();
    }
    let agreed = agreed.expect("an offer that can be accepted").answer;
    assert!(is_answer(agreed));
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Extensions: {agreed}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut deflater = Deflater::new(5, 1);
    for number in 0.. {
        let mut header = [0; 2];
        if reader.read_exact(&mut header).is_err() || header[0] != 0x81 {
            return;
        }
        let mut rest = vec![0; if header[1] == 0xfe { 6 } else { 4 }];
        reader.read_exact(&mut rest).unwrap();
        let (length, mask) = rest.split_at(rest.len() - 4);
        let length = length
            .try_into()
            .map_or(usize::from(header[1] & 0x7f), |two| usize::from(u16::from_be_bytes(two)));
        let mut payload = vec![0; length];
        reader.read_exact(&mut payload).unwrap();
        payload.iter_mut().enumerate().for_each(|(at, byte)| *byte ^= mask[at % 4]);
        let deflated = deflater.try_deflate(&payload).expect("JSON becomes smaller");
        let missing = if number % 2 == 1 { broken } else { 0 };
        let mut out = Vec::new();
        // In two fragments, of which the first alone says that the message is compressed.
        let (one, two) = deflated[..deflated.len() - missing].split_at(20);
        push_deflated_frame(&mut out, Opcode::Text, one, None);
        out[0] &= 0x7f;
        push_frame(&mut out, Opcode::Continuation, two, None);
        stream.write_all(&out).unwrap();
    }
}

#[test]
fn compressed_messages_are_inflated_and_counted() {
    let arguments = |url: &str| {
        let more = "--connections 20 --rate 200 --duration 500ms --size 1024 --filler json --deflate";
        [&["echo", "--url", url][..], &more.split(' ').collect::<Vec<_>>()]
            .concat()
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
    };
    let run_with = |name: &str, url: &str| {
        let arguments = arguments(url);
        run(name, &arguments.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let url = format!("ws://{}/echo", deflating_echo_server(0));
    let (code, report, _) = run_with("deflate", &url);
    assert_eq!(code, 0, "{report:#}");
    assert_clean(&report);
    assert_eq!(report["returned"], 100);

    let url = format!("ws://{}/echo", deflating_echo_server(9));
    let (code, report, _) = run_with("deflate-broken", &url);
    assert_eq!(code, 1, "{report:#}");
    assert_eq!(report["connections"]["errors"]["lost_protocol_error"], CONNECTIONS, "{report:#}");

    let (address, _) = echo_server(Fault::Nothing);
    let (code, report, _) = run_with("deflate-declined", &format!("ws://{address}/echo"));
    assert_eq!((code, &report["connections"]["opened"]), (1, &Value::from(0)), "{report:#}");
    assert_eq!(report["connections"]["errors"]["upgrade_without_deflate"], CONNECTIONS);
}

#[test]
fn what_cannot_be_opened_is_counted_by_kind() {
    let (listener, address) = listen();
    drop(listener);
    let url = format!("ws://{address}/");
    let (code, report, _) =
        run("refused", &["idle", "--url", &url, "--connections", "5", "--duration", "10ms"]);
    assert_eq!((code, report["connections"]["failed"].as_u64()), (1, Some(5)), "{report:#}");
    assert_eq!(report["connections"]["errors"]["connect_refused"], 5);
    assert_eq!(report["connections"]["connect_latency"], Value::Null);

    let (listener, address) = listen();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").unwrap();
        }
    });
    let url = format!("ws://{address}/");
    let (code, report, _) = run("404", &["idle", "--url", &url, "--connections", "5", "--duration", "10ms"]);
    assert_eq!((code, report["connections"]["errors"]["upgrade_status_404"].as_u64()), (1, Some(5)));
}

#[test]
fn usage_errors_exit_with_2() {
    for wrong in [
        &["idle", "--url", "wss://127.0.0.1:0/"][..],
        &["idle", "--url", "http://127.0.0.1/", "--client", "ws"],
        &["idle", "--pid", "4294967295"],
        &["idle", "--pid", "1", "--server", "true"],
        &["idle", "--source", "nowhere"],
        &["fanout", "--publish-url", "ws://127.0.0.1/"],
        &["fanout", "--publish", "ws", "--publish-url", "http://127.0.0.1/"],
        &["echo", "--duration", "5"],
        &[],
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_fantail-loadtest")).args(wrong).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{wrong:?}: {error}");
        assert!(!error.is_empty());
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn help_shows_examples() {
    let output = Command::new(env!("CARGO_BIN_EXE_fantail-loadtest")).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && help.contains("Examples:"), "{help}");
}
