//! Servers for the tests: one that echoes and fans out, made with tungstenite, and one in a process of its own that
//! holds a known amount of memory for each connection.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;

use tungstenite::WebSocket;
use tungstenite::handshake::derive_accept_key;

use crate::accept::accept;

/// What the holding server keeps for each connection: enough that the allocator asks the kernel for it alone.
pub(crate) const HELD_BYTES: usize = 256 * 1024;
const HOLDING: &str = "FANTAIL_TEST_HOLDING";

/// Serves `/echo`; on any other path connections are subscribers, and with `?echo=0` publishers.
pub(crate) fn echo_and_fan_out() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let subscribers: Arc<Mutex<Vec<WebSocket<TcpStream>>>> = Arc::default();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let subscribers = subscribers.clone();
            let (mut socket, path) = accept(stream.unwrap());
            if path != "/echo" && !path.ends_with("?echo=0") {
                subscribers.lock().unwrap().push(socket);
                continue;
            }
            thread::spawn(move || {
                while let Ok(message) = socket.read() {
                    if !message.is_text() && !message.is_binary() {
                        continue;
                    }
                    if path == "/echo" {
                        socket.send(message).unwrap();
                        continue;
                    }
                    // Subscribers of an earlier run have gone.
                    subscribers.lock().unwrap().retain_mut(|other| other.send(message.clone()).is_ok());
                }
            });
        }
    });
    address
}

/// The holding server's process; it ends with this value.
pub(crate) struct Holding {
    pub(crate) pid: String,
    pub(crate) address: String,
    child: Child,
}

impl Holding {
    /// Starts it: this test program again, with [`hold_if_told`] alone.
    pub(crate) fn start() -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_server_that_holds_memory", "--nocapture"])
            .env(HOLDING, "yes")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // The test harness prints to the same place, also at the start of this line.
        let address = lines
            .map(|line| line.unwrap())
            .find_map(|line| Some(line.split_once("listening ")?.1.to_owned()));
        Self { pid: child.id().to_string(), address: address.expect("it listens"), child }
    }
}

impl Drop for Holding {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In the holding server's process: serves until its input ends. Elsewhere: nothing.
pub(crate) fn hold_if_told() {
    if std::env::var_os(HOLDING).is_none() {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    println!("listening {}", listener.local_addr().unwrap());
    thread::spawn(move || {
        let mut held = Vec::with_capacity(1_000);
        for stream in listener.incoming() {
            held.push((upgraded(stream.unwrap()), vec![1_u8; HELD_BYTES]));
        }
    });
    // If the test that started it dies, so does this.
    let _ = std::io::stdin().lines().next();
}

fn upgraded(mut stream: TcpStream) -> TcpStream {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let (mut accept, mut line) = (String::new(), String::new());
    while reader.read_line(&mut line).unwrap() > 2 {
        if let Some(key) = line.strip_prefix("Sec-WebSocket-Key: ") {
            accept = derive_accept_key(key.trim().as_bytes());
        }
        line.clear();
    }
    let head = format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream
}
