//! Runs the binary against servers that do not deliver what was published as it was: a JSON protocol of their own,
//! prefixes, escaped text, several messages in one, fragments, and such that do it wrongly. All are written with
//! tungstenite, bind port 0 and end with the test process.

mod accept;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};
use tungstenite::protocol::Role;
use tungstenite::protocol::frame::Frame;
use tungstenite::protocol::frame::coding::{Data, OpCode};
use tungstenite::{Message, WebSocket};

use accept::accept;

/// How a server delivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// As it came.
    Plain,
    /// `{"type":"msg","data":…,"ts":17}`
    Json,
    /// JSON text inside JSON text, so that every quote is escaped.
    Nested,
    /// `42["message",…]`
    Prefixed,
    /// The text twice, as where a server quotes it.
    Quoted,
    /// Two messages in one.
    Pairs,
    /// JSON in frames of ten bytes.
    Fragments,
    /// JSON in a binary message behind a length, as it would be in a binary protocol.
    Binary,
    /// JSON whose text loses its end, with message 3 of the third connection.
    Cut,
    /// JSON with a digit of the marker changed there.
    Changed,
    /// As it came, but there with something behind it.
    Appended,
}

struct Subscriber {
    socket: WebSocket<TcpStream>,
    held: Option<String>,
    delivered: u64,
}

impl Subscriber {
    fn deliver(&mut self, text: &str, manner: Manner, place: usize) {
        let envelope = |text: &str| json!({ "type": "msg", "data": text, "ts": 17 }).to_string();
        // There may be more than one until everybody is subscribed.
        let probe = &text[20..28] == "ffffffff";
        let at_fault = place == 2 && self.delivered == 3 && !probe;
        self.delivered += u64::from(!probe);
        let payload = match manner {
            Manner::Plain => text.to_owned(),
            Manner::Json => envelope(text),
            Manner::Nested => envelope(&envelope(text)),
            Manner::Prefixed => format!("42{}", json!(["message", { "text": text }])),
            Manner::Quoted => json!({ "text": text, "html": format!("<p>{text}</p>") }).to_string(),
            Manner::Pairs if !probe => match self.held.take() {
                Some(held) => json!([held, text]).to_string(),
                None => return self.held = Some(text.to_owned()),
            },
            Manner::Pairs => json!([text]).to_string(),
            Manner::Cut if at_fault => envelope(&text[..40]),
            Manner::Changed if at_fault => envelope(&format!("{}#{}", &text[..30], &text[31..])),
            Manner::Cut | Manner::Changed => envelope(text),
            Manner::Appended if at_fault => format!("{text} "),
            Manner::Appended => text.to_owned(),
            Manner::Binary => {
                let body = envelope(text);
                let bytes = [&(body.len() as u32).to_be_bytes()[..], body.as_bytes()].concat();
                return self.socket.send(Message::binary(bytes)).unwrap();
            }
            Manner::Fragments => return self.send_in_fragments(&envelope(text)),
        };
        // The generator may be gone when the last is sent.
        let _ = self.socket.send(Message::text(payload));
    }

    fn send_in_fragments(&mut self, payload: &str) {
        let pieces: Vec<&[u8]> = payload.as_bytes().chunks(10).collect();
        for (index, piece) in pieces.iter().enumerate() {
            let kind = if index == 0 { Data::Text } else { Data::Continue };
            let last = index + 1 == pieces.len();
            let frame = Frame::message(piece.to_vec(), OpCode::Data(kind), last);
            self.socket.send(Message::Frame(frame)).unwrap();
        }
    }
}

type Subscribers = Arc<Mutex<Vec<Subscriber>>>;

fn fan_out(subscribers: &Subscribers, text: &str, manner: Manner) {
    for (place, subscriber) in subscribers.lock().unwrap().iter_mut().enumerate() {
        subscriber.deliver(text, manner, place);
    }
}

/// What a chat server makes of what a client says: it takes nothing but its own protocol.
fn said(text: &str) -> Option<String> {
    let value: Value = serde_json::from_str(text).ok()?;
    (value["type"] == "pub" && value["room"] == "red").then(|| value["data"].as_str().map(str::to_owned))?
}

/// A server at whose `/sub` clients subscribe and at whose `/pub` one publishes; `protocol` says whether it asks
/// for JSON of its own there.
fn fan_out_server(manner: Manner, protocol: bool) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let subscribers = Subscribers::default();
        for stream in listener.incoming() {
            let (mut socket, path) = accept(stream.unwrap());
            if path.starts_with("/sub") {
                subscribers.lock().unwrap().push(Subscriber { socket, held: None, delivered: 0 });
                continue;
            }
            let subscribers = subscribers.clone();
            thread::spawn(move || {
                while let Ok(Message::Text(text)) = socket.read() {
                    let data = if protocol { said(&text) } else { Some(text.to_string()) };
                    // Whoever does not speak the protocol is sent away.
                    let Some(data) = data else { return };
                    fan_out(&subscribers, &data, manner);
                }
            });
        }
    });
    address
}

/// A server that answers each message with what `answer` makes of it.
fn echo_server(answer: fn(&str) -> Vec<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                let (mut socket, _) = accept(stream.unwrap());
                while let Ok(Message::Text(text)) = socket.read() {
                    for answer in answer(&text) {
                        socket.send(Message::text(answer)).unwrap();
                    }
                }
            });
        }
    });
    format!("ws://{address}/")
}

/// A server that answers binary messages only, and ends a connection that sends text.
fn binary_echo_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                let (mut socket, _) = accept(stream.unwrap());
                while let Ok(message @ Message::Binary(_)) = socket.read() {
                    socket.send(message).unwrap();
                }
            });
        }
    });
    format!("ws://{address}/")
}

/// Whoever is in a room, with its number.
type Room = Arc<Mutex<Vec<(usize, WebSocket<TcpStream>)>>>;

/// A room in which everybody hears everybody.
fn room_server() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let room = Room::default();
        for (number, stream) in listener.incoming().enumerate() {
            // Whoever knows that it is upgraded hears what is said from then on.
            let mut everybody = room.lock().unwrap();
            let (mut socket, _) = accept(stream.unwrap());
            let writer = socket.get_ref().try_clone().unwrap();
            everybody.push((number, WebSocket::from_raw_socket(writer, Role::Server, None)));
            drop(everybody);
            let room = room.clone();
            thread::spawn(move || {
                while let Ok(message @ Message::Text(_)) = socket.read() {
                    let mut everybody = room.lock().unwrap();
                    // The others first: whoever has its own back knows that they have it. Some may have gone.
                    for own in [false, true] {
                        everybody.retain_mut(|(other, socket)| {
                            (*other == number) != own || socket.send(message.clone()).is_ok()
                        });
                    }
                }
            });
        }
    });
    format!("ws://{address}/")
}

fn run(name: &str, args: &[&str]) -> (i32, Value, String) {
    let file =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("wrap-{name}-{}.json", std::process::id()));
    let mut command = Command::new(env!("CARGO_BIN_EXE_fantail-loadtest"));
    let output = command.args(args).args(["--json", file.to_str().unwrap()]).output().unwrap();
    let text = std::fs::read_to_string(&file)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    std::fs::remove_file(file).unwrap();
    let report = serde_json::from_str(&text).unwrap();
    (output.status.code().unwrap(), report, String::from_utf8(output.stdout).unwrap())
}

const PUBLISHED: &str = r#"{"type":"pub","room":"red","data":"{marker}"}"#;

fn run_fanout(command: &str, name: &str, manner: Manner, message: Option<&str>) -> (i32, Value, String) {
    let address = fan_out_server(manner, message.is_some());
    let (url, publish) = (format!("ws://{address}/sub"), format!("ws://{address}/pub"));
    let mut args = vec![command, "--url", &url, "--publish", "ws", "--publish-url", &publish];
    args.extend(["--connections", "10", "--rate", "40", "--duration", "500ms"]);
    args.extend(message.into_iter().flat_map(|message| ["--message", message]));
    run(name, &args)
}

/// All of 20 messages to 10 connections.
const DELIVERIES: u64 = 200;

#[track_caller]
fn assert_all_came(report: &Value, unchanged: u64, wrapped: u64) {
    for (field, count) in [
        ("deliveries", DELIVERIES),
        ("unchanged", unchanged),
        ("wrapped", wrapped),
        ("missing", 0),
        ("duplicate", 0),
        ("corrupt", 0),
        ("foreign", 0),
        ("subscribed", 10),
    ] {
        assert_eq!(report[field], count, "{field}: {report:#}");
    }
    assert_eq!(report["latency"]["count"], DELIVERIES);
}

#[test]
fn a_server_with_a_protocol_of_its_own_can_be_loaded() {
    let (code, report, table) = run_fanout("fanout", "json", Manner::Json, Some(PUBLISHED));
    assert_eq!(code, 0, "{report:#}");
    assert_all_came(&report, 0, DELIVERIES);
    assert!(table.contains("wrapped by the server; only markers were checked"), "{table}");
    assert_eq!(report["settings"]["message"], PUBLISHED);

    // What it does not understand ends the publisher's connection.
    let address = fan_out_server(Manner::Json, true);
    let (url, publish) = (format!("ws://{address}/sub"), format!("ws://{address}/pub"));
    let mut generator = Command::new(env!("CARGO_BIN_EXE_fantail-loadtest"));
    generator.args(["fanout", "--url", &url, "--publish", "ws", "--publish-url", &publish]);
    let output = generator.args(["--connections", "1", "--message", "PUB red {marker}"]).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.code() == Some(1) && error.contains("the publisher's connection: lost_eof"),
        "{error}"
    );
}

#[test]
fn messages_are_found_wherever_a_server_puts_them() {
    for manner in
        [Manner::Json, Manner::Nested, Manner::Prefixed, Manner::Pairs, Manner::Fragments, Manner::Binary]
    {
        let (code, report, _) = run_fanout("fanout", &format!("{manner:?}"), manner, None);
        assert_eq!(code, 0, "{manner:?}: {report:#}");
        assert_all_came(&report, 0, DELIVERIES);
        assert_eq!(report["repeated"], 0, "{manner:?}");
    }
    let (code, report, table) = run_fanout("fanout", "plain", Manner::Plain, None);
    assert_eq!(code, 0, "{report:#}");
    assert_all_came(&report, DELIVERIES, 0);
    assert!(table.contains("as they were sent"), "{table}");
}

#[test]
fn a_message_that_stands_twice_in_a_payload_is_one_delivery() {
    let (code, report, table) = run_fanout("fanout", "quoted", Manner::Quoted, None);
    assert_eq!(code, 0, "{report:#}");
    assert_all_came(&report, 0, DELIVERIES);
    // Those of the probe count, too, and there may have been more than one.
    assert!(report["repeated"].as_u64().unwrap() >= DELIVERIES, "{report:#}");
    assert!(table.contains("repeated in a payload"), "{table}");
}

#[test]
fn a_marker_that_was_cut_or_changed_is_told() {
    for manner in [Manner::Cut, Manner::Changed] {
        let (code, report, _) = run_fanout("fanout", &format!("{manner:?}"), manner, Some(PUBLISHED));
        assert_eq!(code, 1, "{manner:?}: {report:#}");
        assert_eq!(
            (&report["corrupt"], &report["missing"]),
            (&json!(1), &json!(1)),
            "{manner:?}: {report:#}"
        );
        assert_eq!(
            (&report["foreign"], &report["wrapped"]),
            (&json!(0), &json!(DELIVERIES - 1)),
            "{manner:?}"
        );
    }
}

#[test]
fn what_the_publisher_says_around_a_message_is_the_same_for_every_subscriber() {
    let address = fan_out_server(Manner::Plain, false);
    let (url, publish) = (format!("ws://{address}/sub"), format!("ws://{address}/pub"));
    let mut args = vec!["fanout", "--url", &url, "--publish", "ws", "--publish-url", &publish];
    args.extend(["--connections", "10", "--rate", "40", "--duration", "500ms"]);
    args.extend(["--message", r#"{"from":{i},"data":"{marker}"}"#]);
    let (code, report, _) = run("numbered", &args);
    assert_eq!(code, 0, "{report:#}");
    assert_all_came(&report, DELIVERIES, 0);
}

#[test]
fn one_changed_payload_among_unchanged_ones_is_told() {
    let (code, report, table) = run_fanout("fanout", "appended", Manner::Appended, None);
    assert_eq!((code, &report["wrapped"]), (1, &json!(1)), "{report:#}");
    let problem = "1 deliveries with something around them, where others came as they were sent";
    assert_eq!(report["problems"], json!([problem]));
    assert!(table.contains("199 as they were sent, 1 wrapped"), "{table}");
}

#[test]
fn slow_subscribers_of_a_wrapping_server_catch_up() {
    let (code, report, _) = run_fanout("slow", "slow", Manner::Json, Some(PUBLISHED));
    assert_eq!((code, &report["deliveries"]), (0, &json!(9 * 20)), "{report:#}");
    assert_eq!(
        (&report["slow"]["caught_up"], &report["slow"]["missing"]),
        (&json!(20), &json!(0)),
        "{report:#}"
    );
}

#[test]
fn messages_of_any_size_can_be_binary() {
    let url = binary_echo_server();
    let args = ["echo", "--url", &url, "--connections", "4", "--rate", "100", "--size", "200"];
    let tail = ["--duration", "300ms"];
    let (code, report, said) = run("binary", &[&args[..], &tail, &["--binary"]].concat());
    assert_eq!(
        (code, &report["missing"], &report["unchanged"]),
        (0, &json!(0), &report["returned"]),
        "{said}"
    );
    assert_eq!(report["settings"]["binary"], "true");
    let (code, ..) = run("text", &[&args[..], &tail].concat());
    assert_eq!(code, 1, "a server that takes no text was sent some");
}

#[test]
fn echoes_in_a_protocol_of_the_servers_own() {
    let echo = |name: &str, url: &str, message: &str| {
        let mut args =
            vec!["echo", "--url", url, "--connections", "4", "--rate", "100", "--duration", "200ms"];
        args.extend(["--message", message, "--size", "100"]);
        run(name, &args)
    };
    // It acknowledges, and answers with its own fields; {i} has to be the connection's number.
    let url = echo_server(|text| {
        let said: Value = serde_json::from_str(text).unwrap();
        assert!(said["n"].as_u64().unwrap() < 4 && said["say"].as_str().unwrap().len() == 100);
        vec![
            json!({ "ack": said["n"] }).to_string(),
            json!({ "said": said["say"], "by": said["n"] }).to_string(),
        ]
    });
    let (code, report, _) = echo("echo-json", &url, r#"{"say":"{marker}","n":{i}}"#);
    assert_eq!((code, &report["returned"]), (0, &json!(20)), "{report:#}");
    assert_eq!((&report["wrapped"], &report["foreign"]), (&json!(20), &json!(20)), "{report:#}");

    // It returns what was said, and that is compared to the last byte.
    let url = echo_server(|text| vec![text.to_owned()]);
    let (code, report, _) = echo("echo-same", &url, r#"{"say":"{marker}","n":{i}}"#);
    assert_eq!((code, &report["unchanged"]), (0, &json!(20)), "{report:#}");
    let url = echo_server(|text| vec![text.replace("\"}", "\"]")]);
    let (code, report, _) = echo("echo-changed", &url, r#"{"say":"{marker}"}"#);
    assert_eq!((code, &report["corrupt"]), (1, &json!(20)), "{report:#}");
    // A room hears everybody: what the others said is foreign.
    let (code, report, _) = echo("echo-room", &room_server(), r#"{"say":"{marker}"}"#);
    assert_eq!((code, &report["returned"]), (0, &json!(20)), "{report:#}");
    assert_eq!((&report["foreign"], &report["corrupt"]), (&json!(3 * 20), &json!(0)), "{report:#}");
    // So it is where nothing is around them, and the same worker has just read them for those who said them.
    let (url, mut args) =
        (room_server(), vec!["echo", "--connections", "4", "--threads", "1", "--size", "100"]);
    args.extend(["--url", &url, "--rate", "1000", "--duration", "200ms"]);
    let (code, report, _) = run("echo-plain-room", &args);
    assert_eq!((code, &report["returned"]), (0, &json!(200)), "{report:#}");
    assert_eq!((&report["foreign"], &report["duplicate"]), (&json!(3 * 200), &json!(0)), "{report:#}");
}

/// Takes JSON by POST and delivers it to the subscribers of a fan-out server; is gone after so many posts.
fn http_server(subscribe: SocketAddr, posts: usize) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut publisher, _) = tungstenite::connect(format!("ws://{subscribe}/pub")).unwrap();
        let stream = listener.accept().unwrap().0;
        let mut listener = Some(listener);
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut stream = stream;
        for post in 1..=posts {
            let (mut len, mut json, mut line) = (0, false, String::new());
            while reader.read_line(&mut line).unwrap() > 2 {
                json |= line.trim() == "Content-Type: application/json";
                len = line.strip_prefix("Content-Length: ").map_or(len, |len| len.trim().parse().unwrap());
                line.clear();
            }
            let mut body = vec![0; len];
            if len == 0 || reader.read_exact(&mut body).is_err() {
                return;
            }
            assert!(json, "the content type says what it is");
            publisher.send(Message::text(String::from_utf8(body).unwrap())).unwrap();
            // Before anybody knows that it is over: the kernel would take one more connection.
            listener = listener.filter(|_| post < posts);
            let last = if post == posts { "Connection: close\r\n" } else { "" };
            let answer = format!("HTTP/1.1 202 Accepted\r\n{last}Content-Length: 0\r\n\r\n");
            stream.write_all(answer.as_bytes()).unwrap();
        }
        // Until what was published is delivered.
        drop((stream, listener));
        while publisher.read().is_ok() {}
    });
    address
}

#[test]
fn json_can_be_published_by_http() {
    let address = fan_out_server(Manner::Json, true);
    let (url, publish) =
        (format!("ws://{address}/sub"), format!("http://{}/publish", http_server(address, usize::MAX)));
    let mut args = vec!["fanout", "--url", &url, "--publish-url", &publish, "--message", PUBLISHED];
    args.extend(["--connections", "10", "--rate", "40", "--duration", "500ms", "--publishers", "1"]);
    let (code, report, _) = run("http", &args);
    // On a machine that stands still the only connection keeps messages waiting, which is said, and nothing else is.
    let problems = report["problems"].as_array().unwrap();
    let waited = |problem: &Value| problem.as_str().unwrap().starts_with("publisher saturated");
    assert!(code == i32::from(!problems.is_empty()) && problems.iter().all(waited), "{report:#}");
    assert_all_came(&report, 0, DELIVERIES);
}

#[test]
fn messages_that_could_not_be_sent_are_no_ones_loss() {
    let address = fan_out_server(Manner::Json, true);
    let publish = format!("http://{}/publish", http_server(address, 10));
    let url = format!("ws://{address}/sub");
    let mut args = vec!["fanout", "--url", &url, "--publish-url", &publish, "--message", PUBLISHED];
    args.extend(["--connections", "10", "--rate", "40", "--duration", "500ms", "--publishers", "1"]);
    let (code, report, _) = run("gone", &args);
    let number = |field: &str| report[field].as_u64().unwrap();
    // Nobody listens any more, so it is known that nobody got them.
    let refused = report["publish_errors"]["connectionrefused"].as_u64().unwrap();
    assert_eq!((code, number("published") + refused), (1, 20), "{report:#}");
    assert_eq!((number("published_unknown"), number("missing")), (0, 0), "{report:#}");
    assert_eq!(number("deliveries"), 10 * number("published"), "{report:#}");
}

#[test]
fn templates_that_can_not_work_are_usage_errors() {
    for (wrong, says) in [
        (&["--message", "hello"][..], "{marker}"),
        (&["--message", "{\"a\":\"{marker}\"}", "--size", "16"], "--size 48"),
        (&["--message", "{marker}", "--filler", "json"], "--filler json"),
        (&["--message", "{nobody} {marker}"], "{nobody}"),
    ] {
        for command in ["echo", "fanout", "slow"] {
            let mut generator = Command::new(env!("CARGO_BIN_EXE_fantail-loadtest"));
            let output = generator.arg(command).args(wrong).output().unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{wrong:?}: {error}");
            assert!(error.contains("--message") && error.contains(says), "{wrong:?}: {error}");
        }
    }
}
