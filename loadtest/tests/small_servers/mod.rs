//! Small servers for `kit`: those that have to misbehave or to speak a protocol of their own. Each goes with its process.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use tungstenite::Message;
use tungstenite::handshake::derive_accept_key;
use tungstenite::handshake::server::{Request, Response};

/// A free port.
pub(crate) fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// An echo server that shares no code with ours.
pub(crate) fn echo_server() -> String {
    let (listener, address) = listen();
    thread::spawn(move || {
        for stream in listener.incoming() {
            thread::spawn(move || {
                let mut socket = tungstenite::accept(stream.unwrap()).unwrap();
                while let Ok(message) = socket.read() {
                    if message.is_text() || message.is_binary() {
                        socket.send(message).unwrap();
                    }
                }
            });
        }
    });
    format!("ws://{address}/echo")
}

/// Takes probes, and is silent about everything else.
pub(crate) fn silent_publish_server() -> SocketAddr {
    let (listener, address) = listen();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            thread::spawn(move || {
                let mut reader = BufReader::new(stream.try_clone().unwrap());
                loop {
                    let (mut len, mut probe, mut line) = (0, false, String::new());
                    while reader.read_line(&mut line).unwrap_or(0) > 2 {
                        probe |= line.starts_with("Idempotency-Key: ") && line.contains("-probe-");
                        len = line
                            .strip_prefix("Content-Length: ")
                            .map_or(len, |len| len.trim().parse().unwrap());
                        line.clear();
                    }
                    if len == 0 || reader.read_exact(&mut vec![0; len]).is_err() {
                        return;
                    }
                    if probe {
                        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
                    }
                }
            });
        }
    });
    address
}

/// Upgrades everybody, but refuses connections `refused` (by number) with 503.
pub(crate) fn refusing_server(refused: std::ops::Range<u64>) -> String {
    let (listener, address) = listen();
    thread::spawn(move || {
        for (number, stream) in (0..).zip(listener.incoming()) {
            let stream = stream.unwrap();
            let refuses = refused.contains(&number);
            thread::spawn(move || upgrade_or_refuse(stream, refuses));
        }
    });
    format!("ws://{address}/")
}

fn upgrade_or_refuse(mut stream: TcpStream, refuses: bool) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut accept, mut line) = (String::new(), String::new());
    while reader.read_line(&mut line).unwrap_or(0) > 2 {
        if let Some(key) = line.strip_prefix("Sec-WebSocket-Key: ") {
            accept = derive_accept_key(key.trim().as_bytes());
        }
        line.clear();
    }
    let answer = match refuses {
        true => "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".to_owned(),
        false => format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: {accept}\r\n\r\n"
        ),
    };
    // The generator may have gone by itself.
    let _ = stream.write_all(answer.as_bytes());
    if !refuses {
        let _ = stream.read(&mut [0; 64]);
    }
}

/// Speaks a protocol of its own: a token in path and header, a greeting, pings as text.
#[expect(clippy::result_large_err, reason = "the callback's type is the library's")]
pub(crate) fn chat_server(pongs: Arc<AtomicU64>) -> String {
    let (listener, address) = listen();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let pongs = pongs.clone();
            thread::spawn(move || {
                let mut user = String::new();
                let callback = |request: &Request, mut response: Response| {
                    user = request.headers()["X-User"].to_str().unwrap().to_owned();
                    assert_eq!(request.uri().path(), format!("/room/{user}%2F1"));
                    assert_eq!(request.headers()["Sec-WebSocket-Protocol"], "chat.v2");
                    response.headers_mut().insert("Sec-WebSocket-Protocol", "chat.v2".parse().unwrap());
                    Ok(response)
                };
                let mut socket = tungstenite::accept_hdr(stream.unwrap(), callback).unwrap();
                let hello = socket.read().unwrap().into_text().unwrap();
                let expected = format!("{{\"login\":\"{user}\",\"n\":");
                assert!(hello.starts_with(&expected), "{hello}");
                if user == "eve" {
                    socket.close(None).unwrap();
                    let _ = socket.flush();
                    return;
                }
                socket.send(Message::text("PING 41")).unwrap();
                let pong = socket.read().unwrap();
                assert_eq!(pong, Message::text(format!("PONG 41 {user}")));
                pongs.fetch_add(1, Ordering::SeqCst);
                socket.send(Message::text("welcome")).unwrap();
                // Until the generator goes.
                while socket.read().is_ok() {}
            });
        }
    });
    format!("ws://{address}/room/{{place}}")
}
