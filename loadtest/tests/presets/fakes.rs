//! Servers that speak a protocol as its description says, strictly: whoever does not subscribe before it speaks, signs
//! wrongly, or does not keep alive is sent away. They write down what is said to them, so that what presets say can be
//! compared with what the clients say that the protocols' makers publish (`makers`).

use std::collections::HashMap;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use serde_json::{Value, json};
use tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tungstenite::http::StatusCode;
use tungstenite::protocol::CloseFrame;
use tungstenite::{Message, WebSocket};

/// Whoever is silent for so long, or does not answer a ping, is sent away.
const SILENCE: Duration = Duration::from_secs(4);
/// How often a server whose heart beats pings.
const PING: Duration = Duration::from_millis(400);

type Socket = Arc<Mutex<WebSocket<TcpStream>>>;
type Rooms = Arc<Mutex<HashMap<String, Vec<Socket>>>>;

/// What was said to a fake: paths and queries of those who connected, and their messages.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said {
    pub(crate) paths: Vec<String>,
    pub(crate) messages: Vec<Value>,
}

/// A fake that listens.
pub(crate) struct Fake {
    pub(crate) url: String,
    said: Arc<Mutex<Said>>,
    leaving: Arc<AtomicBool>,
}

impl Fake {
    /// What was said since this was asked.
    pub(crate) fn take_said(&self) -> Said {
        std::mem::take(&mut self.said.lock().unwrap())
    }

    /// Sends everybody away, as the real one does when it is stopped.
    pub(crate) fn stop(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }
}

/// One connection as a protocol sees it.
struct Client {
    socket: Socket,
    number: usize,
    path: String,
    rooms: Rooms,
    joined: Vec<String>,
    connected: bool,
    heard: Instant,
}

/// What becomes of a client.
enum Next {
    Stays,
    Leaves(u16, &'static str),
}

impl Client {
    fn send(&self, value: &Value) {
        // The generator may be gone.
        let _ = self.socket.lock().unwrap().send(Message::text(value.to_string()));
    }

    fn join(&mut self, room: &str) {
        self.joined.push(room.to_owned());
        self.rooms.lock().unwrap().entry(room.to_owned()).or_default().push(self.socket.clone());
    }

    /// Delivers to all in a room, or to all but this one.
    fn deliver(&self, room: &str, value: &Value, to_itself: bool) {
        let members = self.rooms.lock().unwrap().get(room).cloned().unwrap_or_default();
        for member in members.iter().filter(|member| to_itself || !Arc::ptr_eq(member, &self.socket)) {
            let _ = member.lock().unwrap().send(Message::text(value.to_string()));
        }
    }
}

/// What a protocol does.
trait Protocol: Clone + Send + 'static {
    /// How it sends everybody away when it is stopped.
    const GOODBYE: (u16, &'static str);
    /// What it pings with.
    fn ping(&self) -> Option<Value> {
        None
    }
    /// Whether it upgrades a request for this path.
    fn admits(&self, _path: &str) -> bool {
        true
    }
    fn on_open(&self, client: &mut Client) -> Next;
    fn on_message(&self, client: &mut Client, value: &Value) -> Next;
}

#[expect(clippy::result_large_err, reason = "the callback's type is the library's")]
fn serve(protocol: impl Protocol) -> Fake {
    let (listener, address) = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    };
    let (said, leaving) = (Arc::<Mutex<Said>>::default(), Arc::<AtomicBool>::default());
    let fake = Fake { url: format!("ws://{address}"), said: said.clone(), leaving: leaving.clone() };
    thread::spawn(move || {
        let rooms = Rooms::default();
        for (number, stream) in listener.incoming().enumerate() {
            let (rooms, protocol) = (rooms.clone(), protocol.clone());
            let (said, leaving) = (said.clone(), leaving.clone());
            thread::spawn(move || {
                let stream = stream.unwrap();
                stream.set_nodelay(true).unwrap();
                let mut path = String::new();
                let callback = |request: &Request, response: Response| {
                    path = request.uri().to_string();
                    if protocol.admits(&path) {
                        return Ok(response);
                    }
                    let mut refusal = ErrorResponse::new(None);
                    *refusal.status_mut() = StatusCode::FORBIDDEN;
                    Err(refusal)
                };
                let Ok(socket) = tungstenite::accept_hdr(stream, callback) else { return };
                said.lock().unwrap().paths.push(path.clone());
                socket.get_ref().set_read_timeout(Some(Duration::from_millis(5))).unwrap();
                let socket = Arc::new(Mutex::new(socket));
                let heard = Instant::now();
                let client =
                    Client { socket, number, path, rooms, joined: Vec::new(), connected: false, heard };
                talk(&protocol, client, &said, &leaving);
            });
        }
    });
    fake
}

fn talk<P: Protocol>(protocol: &P, mut client: Client, said: &Mutex<Said>, leaving: &AtomicBool) {
    let mut next = protocol.on_open(&mut client);
    let mut pinged = Instant::now();
    loop {
        if let Next::Leaves(code, reason) = next {
            let frame = CloseFrame { code: code.into(), reason: reason.into() };
            let _ = client.socket.lock().unwrap().close(Some(frame));
            // Until the other end has read it.
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(5) {
                let read = client.socket.lock().unwrap().read();
                match read {
                    Err(tungstenite::Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {}
                    Err(_) => return,
                    Ok(_) => {}
                }
            }
            return;
        }
        if leaving.load(Ordering::Relaxed) {
            next = Next::Leaves(P::GOODBYE.0, P::GOODBYE.1);
            continue;
        }
        if client.heard.elapsed() > SILENCE {
            next = Next::Leaves(3012, "no pong");
            continue;
        }
        if let Some(ping) = protocol.ping().filter(|_| pinged.elapsed() > PING && client.connected) {
            pinged = Instant::now();
            client.send(&ping);
        }
        let read = client.socket.lock().unwrap().read();
        next = match read {
            Ok(Message::Text(text)) => {
                // Commands may come several in a message, a line each.
                text.lines().map(|line| serde_json::from_str(line).unwrap()).fold(
                    Next::Stays,
                    |next, value: Value| {
                        said.lock().unwrap().messages.push(value.clone());
                        match next {
                            Next::Stays => protocol.on_message(&mut client, &value),
                            gone => gone,
                        }
                    },
                )
            }
            Ok(Message::Binary(_)) => Next::Leaves(1003, "no bytes"),
            Ok(_) => Next::Stays,
            Err(tungstenite::Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                // Others may want to deliver.
                thread::sleep(Duration::from_millis(1));
                Next::Stays
            }
            Err(_) => return,
        };
    }
}

#[derive(Clone)]
struct Pusher {
    key: &'static str,
    secret: &'static str,
}

impl Protocol for Pusher {
    const GOODBYE: (u16, &'static str) = (4200, "Server is restarting");

    fn on_open(&self, client: &mut Client) -> Next {
        if !client.path.starts_with(&format!("/app/{}?", self.key)) || !client.path.contains("protocol=7") {
            return Next::Leaves(4001, "App does not exist");
        }
        let data = json!({ "socket_id": socket_id(client.number), "activity_timeout": 1 }).to_string();
        client.send(&json!({ "event": "pusher:connection_established", "data": data }));
        Next::Stays
    }

    fn on_message(&self, client: &mut Client, value: &Value) -> Next {
        match value["event"].as_str().unwrap_or_default() {
            "pusher:ping" => {
                client.heard = Instant::now();
                client.send(&json!({ "event": "pusher:pong", "data": "{}" }));
            }
            "pusher:subscribe" => {
                let channel = value["data"]["channel"].as_str().unwrap_or_default();
                let key = hmac::Key::new(hmac::HMAC_SHA256, self.secret.as_bytes());
                let signed = hmac::sign(&key, format!("{}:{channel}", socket_id(client.number)).as_bytes());
                let signed: String = signed.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
                if !channel.starts_with("private-")
                    || value["data"]["auth"] != format!("{}:{signed}", self.key)
                {
                    let data = json!({ "code": 4009, "message": "Connection is unauthorized" });
                    client.send(&json!({ "event": "pusher:error", "data": data }));
                    return Next::Leaves(4009, "Connection is unauthorized");
                }
                // Later than the next message could come, so that whoever does not wait is found out.
                thread::sleep(Duration::from_millis(20));
                client.join(channel);
                let event = "pusher_internal:subscription_succeeded";
                client.send(&json!({ "event": event, "channel": channel, "data": "{}" }));
            }
            event if event.starts_with("client-") => {
                let channel = value["channel"].as_str().unwrap_or_default();
                if !client.joined.iter().any(|joined| joined == channel) {
                    return Next::Leaves(4301, "not subscribed");
                }
                client.deliver(channel, value, false);
            }
            _ => return Next::Leaves(4300, "unknown event"),
        }
        Next::Stays
    }
}

fn socket_id(number: usize) -> String {
    format!("{}.{}", number + 1, 1000 + number)
}

/// Pusher Channels for one app.
pub(crate) fn pusher(key: &'static str, secret: &'static str) -> Fake {
    serve(Pusher { key, secret })
}

#[derive(Clone)]
struct Centrifugo(&'static str);

impl Protocol for Centrifugo {
    const GOODBYE: (u16, &'static str) = (3001, "shutdown");

    fn ping(&self) -> Option<Value> {
        Some(json!({}))
    }

    fn on_open(&self, client: &mut Client) -> Next {
        if client.path == "/connection/websocket" { Next::Stays } else { Next::Leaves(3501, "bad request") }
    }

    fn on_message(&self, client: &mut Client, value: &Value) -> Next {
        if *value == json!({}) {
            client.heard = Instant::now();
            return Next::Stays;
        }
        let id = &value["id"];
        let room = |command: &str| value[command]["channel"].as_str().unwrap_or_default().to_owned();
        if let Some(connect) = value.get("connect") {
            if connect["token"] != self.0 {
                return Next::Leaves(3500, "invalid token");
            }
            client.connected = true;
            client.send(&json!({ "id": id, "connect": { "client": "c", "version": "0.0.0", "ping": 1, "pong": true } }));
        } else if !client.connected {
            return Next::Leaves(3501, "bad request");
        } else if value.get("subscribe").is_some() {
            client.join(&room("subscribe"));
            client.send(&json!({ "id": id, "subscribe": {} }));
        } else if let Some(publish) = value.get("publish") {
            client.send(&json!({ "id": id, "publish": {} }));
            let room = room("publish");
            let publication = json!({ "push": { "channel": room, "pub": { "data": publish["data"] } } });
            client.deliver(&room, &publication, true);
        }
        Next::Stays
    }
}

/// Centrifugo with a token.
pub(crate) fn centrifugo(token: &'static str) -> Fake {
    serve(Centrifugo(token))
}

#[derive(Clone)]
struct Phoenix(&'static str);

impl Protocol for Phoenix {
    const GOODBYE: (u16, &'static str) = (1012, "");

    fn admits(&self, path: &str) -> bool {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let has = |pair: &str| query.split('&').any(|one| one == pair);
        path == "/socket/websocket" && has("vsn=2.0.0") && has(&format!("token={}", self.0))
    }

    fn on_open(&self, client: &mut Client) -> Next {
        client.connected = true;
        Next::Stays
    }

    fn on_message(&self, client: &mut Client, value: &Value) -> Next {
        let (join, reference) = (&value[0], &value[1]);
        let (topic, event) = (value[2].as_str().unwrap(), value[3].as_str().unwrap());
        let reply = json!([join, reference, topic, "phx_reply", { "status": "ok", "response": {} }]);
        match (topic, event) {
            ("phoenix", "heartbeat") => client.heard = Instant::now(),
            (_, "phx_join") => client.join(topic),
            (_, "say") if client.joined.iter().any(|joined| joined == topic) => {
                client.deliver(topic, &json!([null, null, topic, "said", value[4]]), true);
                return Next::Stays;
            }
            (_, "phx_leave") => {}
            _ => {
                let response = json!({ "reason": "unmatched topic" });
                let payload = json!({ "status": "error", "response": response });
                client.send(&json!([join, reference, topic, "phx_reply", payload]));
                return Next::Stays;
            }
        }
        client.send(&reply);
        Next::Stays
    }
}

/// Phoenix channels with a token.
pub(crate) fn phoenix(token: &'static str) -> Fake {
    serve(Phoenix(token))
}
