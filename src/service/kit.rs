//! A small HTTP server for tests that answers as it is told, lies included. Ends with its value.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What a test's server does with one connection: gets the head and body of each request, and writes what it likes.
/// `false`: the connection is closed.
type Answering = dyn Fn(&str, &mut TcpStream) -> bool + Send + Sync;

pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) connections: Arc<AtomicUsize>,
    /// Requests as they came.
    pub(super) requests: Arc<Mutex<Vec<String>>>,
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub(super) fn start(answer: impl Fn(&str, &mut TcpStream) -> bool + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let answer: Arc<Answering> = Arc::new(answer);
        let (connections, requests, ended) = (Arc::default(), Arc::default(), Arc::default());
        let (counted, kept, over) = (Arc::clone(&connections), Arc::clone(&requests), Arc::clone(&ended));
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if AtomicBool::load(&over, Ordering::SeqCst) {
                    return;
                }
                AtomicUsize::fetch_add(&counted, 1, Ordering::SeqCst);
                let (answer, kept) = (Arc::clone(&answer), Arc::clone(&kept));
                thread::spawn(move || converse(stream.unwrap(), &*answer, &kept));
            }
        });
        Self { address, connections, requests, ended, thread: Some(thread) }
    }

    /// One that answers every request with these bytes.
    pub(super) fn saying(answer: impl Into<Vec<u8>>) -> Self {
        let answer = answer.into();
        Self::start(move |_, stream| stream.write_all(&answer).is_ok())
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/ask", self.address)
    }

    pub(super) fn asked(&self) -> usize {
        self.requests.lock().unwrap().len()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::SeqCst);
        // Wakes it.
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

fn converse(mut stream: TcpStream, answer: &Answering, kept: &Mutex<Vec<String>>) {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    while let Some(request) = next_request(&mut stream) {
        kept.lock().unwrap().push(request.clone());
        if !answer(&request, &mut stream) {
            return;
        }
    }
}

/// Head and body of the next request, byte for byte: nothing behind it is taken.
fn next_request(stream: &mut TcpStream) -> Option<String> {
    let (mut held, mut byte) = (Vec::new(), [0]);
    while !held.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        held.push(byte[0]);
    }
    let head = String::from_utf8(held).unwrap();
    let field = |line: &str| line.to_ascii_lowercase().strip_prefix("content-length: ").map(str::to_owned);
    let length = head.lines().find_map(field).map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some(head + &String::from_utf8(body).unwrap())
}

/// An answer of 200 with this body.
pub(super) fn ok(body: &str) -> Vec<u8> {
    answered("200 OK", body)
}

/// An answer with this status, and fields behind it if there are any.
pub(super) fn answered(status: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}
