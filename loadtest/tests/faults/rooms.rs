//! A server with rooms: whoever connects to `/ws/ROOM`, or to `/ws?topic=A&topic=B`, is in it; what is posted to
//! `/publish/ROOM`, or sent on a connection to `/say/ROOM`, is delivered to everybody there. Posts are answered after a
//! while, all at once, as a server does that writes to a database first.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use tungstenite::protocol::CloseFrame;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::{Message, WebSocket};

use crate::accept::accept;
use crate::listen;

/// What a server got by HTTP.
#[derive(Clone, Debug, Default)]
pub(crate) struct Posted {
    /// The first lines of requests and their fields, as they came.
    pub(crate) heads: Vec<String>,
    /// Their bodies.
    pub(crate) bodies: Vec<String>,
}

type Member = Arc<Mutex<WebSocket<TcpStream>>>;
type Members = HashMap<String, Vec<Member>>;

/// See the module's head.
#[derive(Clone)]
pub(crate) struct Rooms {
    /// Where clients connect.
    pub(crate) ws: SocketAddr,
    /// Where messages are posted.
    pub(crate) http: SocketAddr,
    members: Arc<Mutex<Members>>,
    posted: Arc<Mutex<Posted>>,
    delay: Duration,
    /// What is said in room 0 is delivered in room 1, too.
    leaky: bool,
    /// Connections behind so many are forgotten in the last of several rooms.
    forgets_behind: Arc<AtomicU64>,
    /// Test messages that were delivered, probes not among them.
    delivered: Arc<AtomicU64>,
    /// Connections that were sent away; their ends are the clients' to see.
    away: Arc<Mutex<Vec<Member>>>,
}

impl Rooms {
    /// A server that answers a post after `delay`.
    pub(crate) fn start(delay: Duration) -> Self {
        Self::start_as(delay, false)
    }

    /// The same; `leaky` ones deliver what is said in room 0 in room 1, too.
    pub(crate) fn start_as(delay: Duration, leaky: bool) -> Self {
        let ((ws_listener, ws), (http_listener, http)) = (listen(), listen());
        let rooms = Self {
            ws,
            http,
            members: Arc::default(),
            posted: Arc::default(),
            delay,
            leaky,
            forgets_behind: Arc::new(AtomicU64::new(u64::MAX)),
            delivered: Arc::default(),
            away: Arc::default(),
        };
        let (clients, posts) = (rooms.clone(), rooms.clone());
        thread::spawn(move || {
            for (number, stream) in (0..).zip(ws_listener.incoming()) {
                // Whoever knows that it is upgraded is in its rooms.
                let mut members = clients.members.lock().unwrap();
                let (socket, path) = accept(stream.unwrap());
                if let Some(room) = path.strip_prefix("/say/") {
                    let (rooms, room) = (clients.clone(), room.to_owned());
                    thread::spawn(move || rooms.listen_to(socket, &room));
                    continue;
                }
                let socket = Arc::new(Mutex::new(socket));
                let mut names = names(&path);
                if number >= clients.forgets_behind.load(SeqCst) && names.len() > 1 {
                    names.pop();
                }
                for room in names {
                    members.entry(room).or_default().push(socket.clone());
                }
            }
        });
        thread::spawn(move || {
            for stream in http_listener.incoming() {
                let rooms = posts.clone();
                thread::spawn(move || rooms.serve(stream.unwrap()));
            }
        });
        rooms
    }

    /// What was posted so far.
    pub(crate) fn posted(&self) -> Posted {
        self.posted.lock().unwrap().clone()
    }

    /// Test messages that were delivered so far, probes not among them.
    pub(crate) fn delivered(&self) -> u64 {
        self.delivered.load(SeqCst)
    }

    /// Those that connect behind so many others are not in the last of several rooms.
    pub(crate) fn forget_behind(&self, connections: u64) {
        self.forgets_behind.store(connections, SeqCst);
    }

    /// Sends everybody away with 1012. With `forgets` those that come back are not in the last of their rooms.
    pub(crate) fn send_away(&self, forgets: bool) {
        let mut members = self.members.lock().unwrap();
        if forgets {
            self.forget_behind(0);
        }
        let mut away = self.away.lock().unwrap();
        for member in members.drain().flat_map(|(_, members)| members) {
            if away.iter().any(|one| Arc::ptr_eq(one, &member)) {
                continue;
            }
            let frame = CloseFrame { code: CloseCode::Restart, reason: "".into() };
            member.lock().unwrap().close(Some(frame)).unwrap();
            away.push(member);
        }
    }

    fn listen_to(&self, mut socket: WebSocket<TcpStream>, room: &str) {
        while let Ok(message) = socket.read() {
            if let Message::Text(text) = message {
                self.deliver(room, &text);
            }
        }
    }

    fn deliver(&self, room: &str, text: &str) {
        let members = self.members.lock().unwrap();
        // The number in a probe's marker is all ones.
        let counts = u64::from(text.get(20..28) != Some("ffffffff"));
        let other = (self.leaky && room.ends_with('0')).then(|| format!("{}1", &room[..room.len() - 1]));
        for room in std::iter::once(room).chain(other.as_deref()) {
            for member in members.get(room).into_iter().flatten() {
                // The generator may be gone when the last is sent.
                let _ = member.lock().unwrap().send(Message::text(text.to_owned()));
                self.delivered.fetch_add(counts, SeqCst);
            }
        }
    }

    fn serve(&self, mut stream: TcpStream) {
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        loop {
            let (mut head, mut len) = (String::new(), 0);
            loop {
                let from = head.len();
                if reader.read_line(&mut head).unwrap_or(0) == 0 {
                    return;
                }
                let line = &head[from..];
                len = line.strip_prefix("Content-Length: ").map_or(len, |len| len.trim().parse().unwrap());
                if line == "\r\n" {
                    break;
                }
            }
            let mut body = vec![0; len];
            if reader.read_exact(&mut body).is_err() {
                return;
            }
            let path = head.split(' ').nth(1).unwrap().to_owned();
            let body = String::from_utf8(body).unwrap();
            {
                let mut posted = self.posted.lock().unwrap();
                posted.heads.push(head);
                posted.bodies.push(body.clone());
            }
            // One after the other on a connection, and all connections at once.
            thread::sleep(self.delay);
            let room = path.split('?').next().unwrap().trim_start_matches("/publish/");
            self.deliver(room, &body);
            if stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").is_err() {
                return;
            }
        }
    }
}

fn names(path: &str) -> Vec<String> {
    match path.split_once('?') {
        Some((_, query)) => {
            query.split('&').filter_map(|pair| pair.strip_prefix("topic=")).map(str::to_owned).collect()
        }
        None => vec![path.trim_start_matches("/ws/").to_owned()],
    }
}
