//! Protocols with a greeting: a publisher is a client like any other, and says its messages when it may.

use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

use crate::accept::accept;
use crate::scratch::Scratch;
use crate::{error, listen, run};

type Room = Arc<Mutex<Vec<Arc<Mutex<WebSocket<TcpStream>>>>>>;

/// What a server wants before and while somebody talks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    /// Engine.IO 4 with Socket.IO 5: 0{…}, 40 is answered by 40{…} after a while, events are 42[…], pings are 2.
    SocketIo,
    /// Its pings, `{}`, have to be answered within 300 ms.
    Pinging,
    /// Sends a nonce, and wants its HMAC.
    Challenge,
    /// Wants a heartbeat of the client every 300 ms.
    Heartbeat,
}

/// A server that delivers what is said to everybody who may talk.
fn server(protocol: Protocol) -> SocketAddr {
    let (listener, address) = listen();
    thread::spawn(move || {
        let room = Room::default();
        for (number, stream) in listener.incoming().enumerate() {
            let room = room.clone();
            thread::spawn(move || {
                let (socket, _) = accept(stream.unwrap());
                serve(protocol, socket, number, &room);
            });
        }
    });
    address
}

fn serve(protocol: Protocol, mut socket: WebSocket<TcpStream>, number: usize, room: &Room) {
    socket.get_ref().set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let nonce = format!("nonce-{number}");
    match protocol {
        Protocol::SocketIo => send(&mut socket, r#"0{"sid":"a","pingInterval":100,"pingTimeout":300}"#),
        Protocol::Challenge => send(&mut socket, &json!({ "challenge": nonce }).to_string()),
        Protocol::Pinging | Protocol::Heartbeat => {}
    }
    let shared = Arc::new(Mutex::new(socket));
    let (mut joined, mut heard, mut pinged) = (false, Instant::now(), Instant::now());
    loop {
        if heard.elapsed() > Duration::from_secs(3) && protocol != Protocol::Challenge {
            let _ = shared.lock().unwrap().close(None);
            return;
        }
        if pinged.elapsed() > Duration::from_millis(100) && joined {
            pinged = Instant::now();
            match protocol {
                Protocol::SocketIo => send(&mut shared.lock().unwrap(), "2"),
                Protocol::Pinging => send(&mut shared.lock().unwrap(), "{}"),
                Protocol::Challenge | Protocol::Heartbeat => {}
            }
        }
        let read = shared.lock().unwrap().read();
        let text = match read {
            Ok(Message::Text(text)) => text.to_string(),
            Ok(_) => continue,
            Err(tungstenite::Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                // Others may want to deliver.
                thread::sleep(Duration::from_millis(1));
                continue;
            }
            Err(_) => return,
        };
        let said = match (protocol, text.as_str()) {
            (Protocol::SocketIo, "40") => {
                // Whoever does not wait for the answer is sent away.
                thread::sleep(Duration::from_millis(50));
                send(&mut shared.lock().unwrap(), r#"40{"sid":"b"}"#);
                joined = true;
                room.lock().unwrap().push(shared.clone());
                heard = Instant::now();
                continue;
            }
            (Protocol::SocketIo, "3") | (Protocol::Pinging, "{}") | (Protocol::Heartbeat, "beat") => {
                heard = Instant::now();
                continue;
            }
            (Protocol::Challenge, text) if !joined => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, b"secret");
                let right: String = hmac::sign(&key, nonce.as_bytes())
                    .as_ref()
                    .iter()
                    .map(|byte| format!("{byte:02x}"))
                    .collect();
                joined = text == format!("auth {right}");
                send(&mut shared.lock().unwrap(), if joined { "welcome" } else { "denied" });
                if !joined {
                    return;
                }
                room.lock().unwrap().push(shared.clone());
                continue;
            }
            (Protocol::Pinging | Protocol::Heartbeat, "join") => {
                joined = true;
                send(&mut shared.lock().unwrap(), "joined");
                room.lock().unwrap().push(shared.clone());
                continue;
            }
            (_, text) => text.to_owned(),
        };
        if !joined {
            let _ = shared.lock().unwrap().close(None);
            let _ = shared.lock().unwrap().flush();
            return;
        }
        let others = room.lock().unwrap().clone();
        for other in others {
            send(&mut other.lock().unwrap(), &said);
        }
    }
}

fn send(socket: &mut WebSocket<TcpStream>, text: &str) {
    // Whoever is gone by then gets no more.
    let _ = socket.send(Message::text(text.to_owned()));
}

fn fanout(protocol: Protocol, duration: &str, more: &[&str]) -> (i32, Value, String) {
    let url = format!("ws://{}/", server(protocol));
    let mut args = vec!["fanout", "--url", &url, "--publish", "ws", "--connections", "3"];
    args.extend(["--rate", "20", "--duration", duration]);
    args.extend(more);
    run(&args)
}

#[track_caller]
fn assert_all_came(outcome: &(i32, Value, String), messages: u64) {
    let (code, report, table) = outcome;
    assert_eq!((*code, &report["missing"], &report["duplicate"]), (0, &json!(0), &json!(0)), "{table}");
    assert_eq!(
        (&report["published"], &report["deliveries"]),
        (&json!(messages), &json!(3 * messages)),
        "{table}"
    );
    assert_eq!(report["publish_errors"], json!({}), "{table}");
}

#[test]
fn a_publisher_waits_for_its_welcome() {
    let outcome = fanout(
        Protocol::SocketIo,
        "1s",
        &[
            "--await",
            "^0\\{",
            "--hello",
            "40",
            "--await",
            "^40\\{",
            "--reply",
            "^2$=>3",
            "--message",
            r#"42["say","{marker}"]"#,
        ],
    );
    assert_all_came(&outcome, 20);
}

#[test]
fn a_publisher_answers_the_pings_of_the_protocol() {
    let talk = ["--hello", "join", "--await", "^joined$", "--reply", r"^\{\}$=>{}"];
    assert_all_came(&fanout(Protocol::Pinging, "4s", &talk), 80);
}

#[test]
fn a_publisher_has_a_heartbeat() {
    let talk = ["--hello", "join", "--await", "^joined$", "--every", "200ms=>beat"];
    assert_all_came(&fanout(Protocol::Heartbeat, "4s", &talk), 80);
}

#[test]
fn a_publisher_can_answer_a_challenge() {
    let talk = [
        "--await",
        r#""challenge":"(?<nonce>[^"]+)""#,
        "--hello",
        "auth {hmac_sha256(secret,{nonce})}",
        "--await",
        "^welcome$",
    ];
    let outcome = fanout(Protocol::Challenge, "1s", &talk);
    assert_all_came(&outcome, 20);
    assert!(!outcome.1["settings"].to_string().contains("secret"), "{:#}", outcome.1["settings"]);
}

#[test]
fn whoever_is_not_let_in_is_told_why_and_nothing_is_said_to_be_refused() {
    let url = format!("ws://{}/", server(Protocol::Challenge));
    let args = [
        "fanout",
        "--url",
        &url,
        "--publish",
        "ws",
        "--connections",
        "1",
        "--duration",
        "200ms",
        "--await",
        r#""challenge":"(?<nonce>[^"]+)""#,
        "--hello",
        "auth {hmac_sha256(wrong,{nonce})}",
        "--await",
        "^welcome$",
    ];
    let said = error(1, &args);
    assert!(said.contains("the publisher's connection: await_closed"), "{said}");
}

/// Says no in the protocol to whoever asks, and waits.
fn refusing_server() -> String {
    let (listener, address) = listen();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                let (mut socket, _) = accept(stream.unwrap());
                while let Ok(Message::Text(_)) = socket.read() {
                    send(&mut socket, r#"44{"message":"no such room"}"#);
                }
            });
        }
    });
    format!("ws://{address}/")
}

#[test]
fn a_refusal_in_the_protocol_is_told_at_once_and_in_the_servers_words() {
    let url = refusing_server();
    let idle = ["idle", "--url", &url, "--connections", "3", "--duration", "100ms"];
    let talk = ["--hello", "join", "--await", "^40", "--refusal", "^44"];
    // Whoever waited for what will not come would call it a timeout.
    let (code, report, table) = run(&[&idle[..], &talk].concat());
    assert_eq!((code, &report["connections"]["errors"]), (1, &json!({ "await_refused": 3 })), "{table}");
    assert!(table.contains("it says \"44{"), "{table}");
    assert!(table.contains("no such room"), "{table}");
    // A publisher is told the same.
    let publisher = ["fanout", "--url", &url, "--publish", "ws", "--connections", "1", "--duration", "100ms"];
    let said = error(1, &[&publisher[..], &talk].concat());
    assert!(said.contains("the publisher's connection: await_refused (it says"), "{said}");
    // Without it, what came instead is told when time is over.
    let (_, report, table) = run(&[&idle[..], &talk[..4]].concat());
    assert_eq!(report["connections"]["errors"], json!({ "await_timeout": 3 }), "{table}");
    assert!(table.contains("it said \"44{"), "{table}");
    let said = error(2, &[&idle[..], &["--refusal", "^44"]].concat());
    assert!(said.contains("--refusal: nothing is awaited"), "{said}");
}

/// Sends everybody away after so many messages.
fn strict_server(messages: usize) -> String {
    let (listener, address) = listen();
    thread::spawn(move || {
        let room = Room::default();
        for stream in listener.incoming() {
            let (mut socket, path) = accept(stream.unwrap());
            if path != "/say" {
                room.lock().unwrap().push(Arc::new(Mutex::new(socket)));
                continue;
            }
            let room = room.clone();
            thread::spawn(move || {
                for _ in 0..messages {
                    let Ok(Message::Text(text)) = socket.read() else { return };
                    for other in room.lock().unwrap().iter() {
                        send(&mut other.lock().unwrap(), &text);
                    }
                }
                let frame =
                    tungstenite::protocol::CloseFrame { code: 4008.into(), reason: "too many".into() };
                let _ = socket.close(Some(frame));
                while socket.read().is_ok() {}
            });
        }
    });
    format!("ws://{address}")
}

#[test]
fn what_was_not_sent_is_not_called_refused() {
    let base = strict_server(11);
    let (url, publish) = (format!("{base}/"), format!("{base}/say"));
    let mut args = vec!["fanout", "--url", &url, "--publish", "ws", "--publish-url", &publish];
    args.extend(["--connections", "2", "--rate", "40", "--duration", "1s"]);
    let (code, report, table) = run(&args);
    assert_eq!((code, &report["published_refused"]), (1, &json!(0)), "{table}");
    let (published, not_sent) =
        (report["published"].as_u64().unwrap(), report["published_not_sent"].as_u64().unwrap());
    assert_eq!(published + not_sent, 40, "{table}");
    assert!(not_sent > 0 && report["publish_errors"]["closed_4008"] == not_sent, "{table}");
    assert!(!report["problems"].to_string().contains("refused by the server"), "{table}");
}

/// Answers a greeting for each topic, and says what it was told.
fn subscribing_server() -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let (listener, address) = listen();
    let told = Arc::new(Mutex::new(Vec::new()));
    let shared = told.clone();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let told = shared.clone();
            thread::spawn(move || {
                let (mut socket, _) = accept(stream.unwrap());
                while let Ok(Message::Text(text)) = socket.read() {
                    told.lock().unwrap().push(text.to_string());
                    send(&mut socket, "subscribed");
                }
            });
        }
    });
    (address, told)
}

#[test]
fn a_hello_is_said_for_each_topic_and_each_is_awaited() {
    let (address, told) = subscribing_server();
    let url = format!("ws://{address}/");
    let mut args = vec!["idle", "--url", &url, "--connections", "4", "--topics", "6", "--members", "2"];
    args.extend(["--hello", "sub {topic} {i}", "--await", "^subscribed$", "--duration", "50ms"]);
    let (code, report, table) = run(&args);
    assert_eq!((code, &report["connections"]["opened"]), (0, &json!(4)), "{table}");
    let told = told.lock().unwrap();
    assert_eq!(told.len(), 12, "{told:?}");
    let topics: std::collections::BTreeSet<_> =
        told.iter().map(|text| text.split(' ').nth(1).unwrap().to_owned()).collect();
    assert_eq!(topics.len(), 6, "{told:?}");
}

#[test]
fn one_language_holds_everywhere_and_mistakes_are_told_at_the_start() {
    let (address, told) = subscribing_server();
    let url = format!("ws://{address}/");
    let file = Scratch::new("vars.csv");
    std::fs::write(file.path(), "name\n\"a \"\"b\"\"\"\n").unwrap();
    let mut args =
        vec!["idle", "--url", &url, "--connections", "1", "--vars", file.path(), "--duration", "50ms"];
    args.extend([
        "--hello",
        r#"{"n":"{name|json}","m":"mutation M($t:String!)\{t}"}"#,
        "--await",
        "^subscribed$",
    ]);
    let (code, _, table) = run(&args);
    assert_eq!(code, 0, "{table}");
    assert_eq!(told.lock().unwrap()[0], r#"{"n":"a \"b\"","m":"mutation M($t:String!){t}"}"#);
    for (flag, text, says) in [
        ("--hello", "{nobody}", "{nobody}"),
        ("--header", "A: {nobody}", "{nobody}"),
        ("--reply", "a=>{nobody}", "{nobody}"),
        ("--reply", "(a)=>$1", "{1}"),
        ("--every", "1s=>{nobody}", "{nobody}"),
        ("--hello", "{seq}", "{seq}"),
    ] {
        let said = error(2, &["idle", "--url", &url, flag, text]);
        assert!(said.contains(flag) && said.contains(says), "{flag} {text}: {said}");
    }
}

#[test]
fn a_server_that_lets_no_client_publish_is_told_from_one_that_loses() {
    // It takes what is said and delivers nothing.
    let (address, _) = subscribing_server();
    let url = format!("ws://{address}/");
    let said =
        error(1, &["fanout", "--url", &url, "--publish", "ws", "--connections", "5", "--duration", "100ms"]);
    assert!(said.contains("nothing that was published there arrived anywhere"), "{said}");
    assert!(said.contains("let clients publish"), "{said}");
}

#[test]
fn frames_of_the_first_connections_can_be_looked_at() {
    let url = format!("ws://{}/", server(Protocol::Pinging));
    let mut args = vec!["fanout", "--url", &url, "--publish", "ws", "--connections", "3", "--rate", "20"];
    args.extend(["--duration", "2s", "--hello", "join", "--await", "^joined$", "--reply", r"^\{\}$=>{}"]);
    args.extend(["--trace", "1"]);
    let output = crate::output(&args);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    for line in [
        "0 > GET / HTTP/1.1",
        "0 < HTTP/1.1 101 Switching Protocols",
        "0 > text 4: join",
        "0 < text 6: joined",
        "publisher 0 > text 4: join",
        "publisher 0 > text 64: FQtZ",
        "0 < text 64: FQtZ",
        "0 < text 2: {}",
        "0 > text 2: {}",
    ] {
        assert!(said.lines().any(|said| said.starts_with(line)), "{line}: {said}");
    }
    assert!(!said.lines().any(|said| said.starts_with("1 ")), "{said}");
}
