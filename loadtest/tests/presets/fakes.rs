//! Servers that speak a protocol as its description says, strictly: whoever does not subscribe before it speaks, signs
//! wrongly, or does not keep alive is sent away. They are no proof that the real ones agree in everything.

use std::collections::HashMap;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use ring::hmac;
use serde_json::{Value, json};
use tungstenite::handshake::server::{Request, Response};
use tungstenite::protocol::CloseFrame;
use tungstenite::{Message, WebSocket};

/// Whoever is silent for so long, or does not answer a ping, is sent away.
const SILENCE: Duration = Duration::from_secs(4);
/// How often a server whose heart beats pings.
const PING: Duration = Duration::from_millis(400);

type Socket = Arc<Mutex<WebSocket<TcpStream>>>;
type Rooms = Arc<Mutex<HashMap<String, Vec<Socket>>>>;

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
    /// The subprotocol it insists on.
    const SUBPROTOCOL: Option<&'static str> = None;
    /// What it pings with.
    fn ping(&self) -> Option<Value> {
        None
    }
    fn on_open(&self, client: &mut Client) -> Next;
    fn on_message(&self, client: &mut Client, text: &str) -> Next;
}

#[expect(clippy::result_large_err, reason = "the callback's type is the library's")]
fn serve(protocol: impl Protocol) -> String {
    let (listener, address) = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        (listener, address)
    };
    thread::spawn(move || {
        let rooms = Rooms::default();
        for (number, stream) in listener.incoming().enumerate() {
            let (rooms, protocol) = (rooms.clone(), protocol.clone());
            thread::spawn(move || {
                let stream = stream.unwrap();
                stream.set_nodelay(true).unwrap();
                let mut path = String::new();
                let callback = |request: &Request, mut response: Response| {
                    path = request.uri().to_string();
                    chosen(&protocol, request, &mut response);
                    Ok(response)
                };
                let socket = tungstenite::accept_hdr(stream, callback).unwrap();
                socket.get_ref().set_read_timeout(Some(Duration::from_millis(5))).unwrap();
                let socket = Arc::new(Mutex::new(socket));
                let heard = Instant::now();
                let client =
                    Client { socket, number, path, rooms, joined: Vec::new(), connected: false, heard };
                talk(&protocol, client);
            });
        }
    });
    format!("ws://{address}")
}

fn chosen<P: Protocol>(_: &P, request: &Request, response: &mut Response) {
    let Some(wanted) = P::SUBPROTOCOL else { return };
    let offered = request.headers().get("sec-websocket-protocol");
    if offered.is_some_and(|offered| offered.to_str().unwrap().split(", ").any(|one| one == wanted)) {
        response.headers_mut().insert("sec-websocket-protocol", wanted.parse().unwrap());
    }
}

fn talk<P: Protocol>(protocol: &P, mut client: Client) {
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
            Ok(Message::Text(text)) => protocol.on_message(&mut client, &text),
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
    fn on_open(&self, client: &mut Client) -> Next {
        if !client.path.starts_with(&format!("/app/{}?", self.key)) || !client.path.contains("protocol=7") {
            return Next::Leaves(4001, "App does not exist");
        }
        let data = json!({ "socket_id": socket_id(client.number), "activity_timeout": 1 }).to_string();
        client.send(&json!({ "event": "pusher:connection_established", "data": data }));
        Next::Stays
    }

    fn on_message(&self, client: &mut Client, text: &str) -> Next {
        let value: Value = serde_json::from_str(text).unwrap();
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
                client.deliver(channel, &value, false);
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
pub(crate) fn pusher(key: &'static str, secret: &'static str) -> String {
    serve(Pusher { key, secret })
}

#[derive(Clone)]
struct Centrifugo(&'static str);

impl Protocol for Centrifugo {
    fn ping(&self) -> Option<Value> {
        Some(json!({}))
    }

    fn on_open(&self, client: &mut Client) -> Next {
        if client.path == "/connection/websocket" { Next::Stays } else { Next::Leaves(3501, "bad request") }
    }

    fn on_message(&self, client: &mut Client, text: &str) -> Next {
        // Commands may come several in a message, a line each.
        for line in text.lines() {
            let value: Value = serde_json::from_str(line).unwrap();
            if value == json!({}) {
                client.heard = Instant::now();
                continue;
            }
            let id = &value["id"];
            let room = |command: &str| value[command]["channel"].as_str().unwrap_or_default().to_owned();
            if let Some(connect) = value.get("connect") {
                if connect["token"] != self.0 {
                    return Next::Leaves(3500, "invalid token");
                }
                client.connected = true;
                client.send(&json!({ "id": id, "connect": { "client": "c", "ping": 1, "pong": true } }));
            } else if !client.connected {
                return Next::Leaves(3501, "bad request");
            } else if value.get("subscribe").is_some() {
                client.join(&room("subscribe"));
                client.send(&json!({ "id": id, "subscribe": {} }));
            } else if let Some(publish) = value.get("publish") {
                client.send(&json!({ "id": id, "publish": {} }));
                let room = room("publish");
                client.deliver(
                    &room,
                    &json!({ "push": { "channel": room, "pub": { "data": publish["data"] } } }),
                    true,
                );
            }
        }
        Next::Stays
    }
}

/// Centrifugo with a token.
pub(crate) fn centrifugo(token: &'static str) -> String {
    serve(Centrifugo(token))
}

#[derive(Clone)]
struct Phoenix(&'static str);

impl Protocol for Phoenix {
    fn on_open(&self, client: &mut Client) -> Next {
        let right = client.path == format!("/socket/websocket?vsn=2.0.0&token={}", self.0);
        if right { Next::Stays } else { Next::Leaves(1008, "no token") }
    }

    fn on_message(&self, client: &mut Client, text: &str) -> Next {
        let value: Value = serde_json::from_str(text).unwrap();
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
            _ => return Next::Leaves(1000, "unmatched topic"),
        }
        client.send(&reply);
        Next::Stays
    }
}

/// Phoenix channels with a token.
pub(crate) fn phoenix(token: &'static str) -> String {
    serve(Phoenix(token))
}
