//! Why connections were not opened, or ended: each cause by its name, with what the server said.

use std::io::{Read, Write};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::Message;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::CloseFrame;

use crate::accept::accept;
use crate::{error, listen, run};

/// A server that answers a request with what `answer` makes of its key, and ends the connection.
fn answering(answer: impl Fn(&str) -> String + Send + Sync + Clone + 'static) -> String {
    let (listener, address) = listen();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let answer = answer.clone();
            thread::spawn(move || {
                let mut stream = stream.unwrap();
                let mut request = Vec::new();
                let mut chunk = [0; 4096];
                while !request.ends_with(b"\r\n\r\n") {
                    match stream.read(&mut chunk) {
                        Ok(count) if count > 0 => request.extend_from_slice(&chunk[..count]),
                        _ => return,
                    }
                }
                let request = String::from_utf8(request).unwrap();
                let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap();
                let _ = stream.write_all(answer(key).as_bytes());
                // An end in order, which takes nothing with it.
                let _ = stream.shutdown(std::net::Shutdown::Write);
                while stream.read(&mut chunk).is_ok_and(|count| count > 0) {}
            });
        }
    });
    format!("ws://{address}/")
}

fn switching(fields: &str) -> String {
    format!("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{fields}\r\n")
}

fn idle(url: &str) -> (i32, Value, String) {
    run(&["idle", "--url", url, "--connections", "3", "--duration", "50ms"])
}

#[test]
fn each_wrong_answer_has_a_name_and_says_what_came() {
    let right = |key: &str| format!("Sec-WebSocket-Accept: {}\r\n", derive_accept_key(key.as_bytes()));
    let cases: [(&str, &str, String); 9] = [
        ("upgrade_not_http", "SSH-2.0-OpenSSH_9.2", answering(|_| "SSH-2.0-OpenSSH_9.2\r\n".into())),
        (
            "upgrade_wrong_accept",
            "another request",
            answering(|_| switching("Sec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n")),
        ),
        ("upgrade_without_accept", "no Sec-WebSocket-Accept", answering(|_| switching(""))),
        (
            "upgrade_unoffered_subprotocol",
            "it chose mqtt",
            answering(move |key| switching(&(right(key) + "Sec-WebSocket-Protocol: mqtt\r\n"))),
        ),
        (
            "upgrade_unoffered_extension",
            "it uses x-foo",
            answering(move |key| switching(&(right(key) + "Sec-WebSocket-Extensions: x-foo\r\n"))),
        ),
        (
            "upgrade_status_301",
            "it leads to wss://elsewhere/ws",
            answering(|_| {
                "HTTP/1.1 301 Moved\r\nLocation: wss://elsewhere/ws\r\nContent-Length: 0\r\n\r\n".into()
            }),
        ),
        (
            "upgrade_status_403",
            "bad token",
            answering(|_| "HTTP/1.1 403 Forbidden\r\nContent-Length: 9\r\n\r\nbad token".into()),
        ),
        ("connect_closed", "without an answer", answering(|_| String::new())),
        (
            "upgrade_not_websocket",
            "something else",
            answering(|_| {
                "HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n".into()
            }),
        ),
    ];
    for (name, says, url) in cases {
        let (code, report, table) = idle(&url);
        assert_eq!((code, &report["connections"]["errors"]), (1, &json!({ name: 3 })), "{table}");
        let advice = report["connections"]["advice"].to_string();
        assert!(advice.contains(name) && advice.contains(says), "{name}: {advice}");
        assert!(table.contains(says), "{table}");
    }
}

#[test]
fn close_codes_and_reasons_are_counted() {
    let (listener, address) = listen();
    thread::spawn(move || {
        for (number, stream) in listener.incoming().enumerate() {
            thread::spawn(move || {
                let (mut socket, _) = accept(stream.unwrap());
                thread::sleep(Duration::from_millis(100));
                let reason = if number % 3 == 0 { "" } else { "policy: bad token" };
                let code = if number % 3 == 0 { 1001 } else { 1008 };
                let _ = socket.close(Some(CloseFrame { code: code.into(), reason: reason.into() }));
                while socket.read().is_ok() {}
            });
        }
    });
    let url = format!("ws://{address}/");
    let (code, report, table) = run(&["idle", "--url", &url, "--connections", "6", "--duration", "1s"]);
    assert_eq!((code, &report["connections"]["lost"]), (1, &json!(6)), "{table}");
    assert_eq!(report["connections"]["closes"], json!({ "1001": 2, "1008 policy: bad token": 4 }), "{table}");
    assert!(table.contains("1008 policy: bad token: 4"), "{table}");
}

#[test]
fn an_address_that_is_not_here_is_told_before_anything_is_opened() {
    // RFC 5737: nobody has it.
    let said = error(2, &["idle", "--url", "ws://127.0.0.1:9/", "--source", "192.0.2.7"]);
    assert!(said.contains("192.0.2.7") && said.contains("not an address of this machine"), "{said}");
}

/// An echo server that answers with what `answer` makes of a text.
fn echo_server(answer: fn(String) -> Vec<u8>) -> String {
    let (listener, address) = listen();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                let (mut socket, _) = accept(stream.unwrap());
                while let Ok(message) = socket.read() {
                    if let Message::Text(text) = message {
                        let frame = answer(text.to_string());
                        socket.get_mut().write_all(&frame).unwrap();
                    }
                }
            });
        }
    });
    format!("ws://{address}/")
}

/// A frame of a server: at most 65,535 bytes.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | opcode, 126];
    frame.extend_from_slice(&(payload.len() as u16).to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

#[test]
fn a_text_that_comes_back_as_something_else_is_corrupt() {
    let echo = |answer| {
        let url = echo_server(answer);
        run(&[
            "echo",
            "--url",
            &url,
            "--connections",
            "2",
            "--rate",
            "40",
            "--duration",
            "500ms",
            "--size",
            "200",
            "--wait-late",
            "1s",
        ])
    };
    let (code, report, table) = echo(|text| frame(1, text.as_bytes()));
    assert_eq!((code, &report["unchanged"], &report["corrupt"]), (0, &json!(20), &json!(0)), "{table}");
    let (code, report, table) = echo(|text| frame(2, text.as_bytes()));
    assert_eq!((code, &report["corrupt"], &report["missing"]), (1, &json!(20), &json!(20)), "{table}");
    // RFC 3629: 0xff is in no UTF-8, and what holds it is no text (RFC 6455, 8.1).
    let (code, report, table) = echo(|text| frame(1, &[b"\xff", text.as_bytes()].concat()));
    assert_eq!((code, &report["corrupt"], &report["missing"]), (1, &json!(20), &json!(20)), "{table}");
    // A server with a protocol of its own puts texts into binary messages, and that is its business.
    let (code, report, table) = echo(|text| frame(2, &[b"\xff\x00", text.as_bytes()].concat()));
    assert_eq!((code, &report["wrapped"], &report["corrupt"]), (0, &json!(20), &json!(0)), "{table}");
}
