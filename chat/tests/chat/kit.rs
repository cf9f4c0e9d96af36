//! A running chat, people who use it by HTTP as their pages would, and their live connections to its edge.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fantail::sys::signals;
use serde_json::{Value, json};
use tungstenite::client::IntoClientRequest;
use tungstenite::{Message, WebSocket};

/// What anything may take before a test gives up on it, on a machine that is slow and has others to serve.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const PASSWORD: &str = "correct horse battery";

/// A file of a test that goes with it.
pub(crate) struct Database(PathBuf);

impl Database {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("chat-{}-{number}.db", std::process::id());
        Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name))
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().expect("a path of letters")
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        for end in ["", "-wal", "-shm"] {
            let _ = fs::remove_file(format!("{}{end}", self.path()));
        }
    }
}

/// A running chat, ended when it is dropped.
pub(crate) struct Chat {
    child: Child,
    pub(crate) url: String,
}

impl Chat {
    pub(crate) fn start(database: &str, more: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", database, more)
    }

    pub(crate) fn start_at(listen: &str, database: &str, more: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fantail-chat"));
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("FANTAIL_") {
                command.env_remove(name);
            }
        }
        command.args(["--listen", listen, "--database", database]).args(more);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("the program starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let url = line.strip_prefix("fantail-chat ready ").and_then(|rest| rest.split('/').nth(2));
        let url = format!("http://{}", url.unwrap_or_else(|| panic!("no ready line but {line:?}")));
        Self { child, url }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The process of its edge.
    pub(crate) fn edge(&self) -> Option<u32> {
        let pid = self.pid();
        let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
        let children =
            threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok());
        children
            .flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>())
            .next()
    }

    /// Ends it at once, as a machine that loses its power.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }

    /// Ends it as an operator does.
    pub(crate) fn stop(mut self) {
        signals::send(self.pid(), signals::Signal::Terminate).expect("a signal");
        assert!(self.child.wait().expect("reaped").success());
    }

    pub(crate) fn register(&self, name: &str) -> Person {
        self.enter(Person::new(&self.url), name)
    }

    /// Makes an account for somebody's browser.
    pub(crate) fn enter(&self, mut person: Person, name: &str) -> Person {
        let (status, told) = person.call("POST", "/register", &json!({"name": name, "password": PASSWORD}));
        assert_eq!(status, 201, "{told}");
        person
    }
}

impl Drop for Chat {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something is there.
pub(crate) fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Somebody's browser: its cookies, and what the page knows.
#[derive(Clone)]
pub(crate) struct Person {
    pub(crate) url: String,
    pub(crate) cookies: Vec<(String, String)>,
    /// Fields that are sent besides.
    pub(crate) fields: Vec<(String, String)>,
    pub(crate) csrf: String,
    pub(crate) id: String,
    /// `Set-Cookie` of the last answer.
    pub(crate) set: Vec<String>,
    agent: ureq::Agent,
}

impl Person {
    pub(crate) fn new(url: &str) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE));
        let agent = config.allow_non_standard_methods(true).build().into();
        let (url, cookies, fields) = (url.to_owned(), Vec::new(), Vec::new());
        Self { url, cookies, fields, csrf: String::new(), id: String::new(), set: Vec::new(), agent }
    }

    /// Whose requests come from this address, as a proxy says.
    pub(crate) fn at(url: &str, address: &str) -> Self {
        let mut person = Self::new(url);
        person.fields = vec![("X-Forwarded-For".to_owned(), address.to_owned())];
        person
    }

    /// Calls the application; status and answer.
    pub(crate) fn call(&mut self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = if method == "GET" { String::new() } else { body.to_string() };
        let (status, text) = self.send(method, path, "application/json", body);
        (status, serde_json::from_str(&text).unwrap_or_else(|_| panic!("{method} {path}: {status} {text}")))
    }

    pub(crate) fn send(&mut self, method: &str, path: &str, kind: &str, body: String) -> (u16, String) {
        self.send_bytes(method, path, kind, body.as_bytes())
    }

    pub(crate) fn send_bytes(&mut self, method: &str, path: &str, kind: &str, body: &[u8]) -> (u16, String) {
        let request = ureq::http::Request::builder().method(method).uri(format!("{}/api{path}", self.url));
        let mut request = request.header("Content-Type", kind).header("X-CSRF-Token", &self.csrf);
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        request = request.header("Cookie", cookies.join("; "));
        for (name, value) in &self.fields {
            request = request.header(name, value);
        }
        let mut answer = self.agent.run(request.body(body).expect("a request")).expect("an answer");
        self.set.clear();
        for field in answer.headers().get_all("set-cookie") {
            let field = field.to_str().expect("text");
            self.set.push(field.to_owned());
            let (name, value) =
                field.split(';').next().and_then(|pair| pair.split_once('=')).expect("a pair");
            self.cookies.retain(|(known, _)| known != name);
            self.cookies.push((name.to_owned(), value.to_owned()));
        }
        let text = answer.body_mut().read_to_string().expect("text");
        let told: Value = serde_json::from_str(&text).unwrap_or_default();
        if let (Some(csrf), Some(id)) = (told["csrf"].as_str(), told["id"].as_str()) {
            (self.csrf, self.id) = (csrf.to_owned(), id.to_owned());
        }
        (answer.status().as_u16(), text)
    }

    /// Calls for what works.
    pub(crate) fn good(&mut self, method: &str, path: &str, body: &Value) -> Value {
        let (status, told) = self.call(method, path, body);
        assert!((200..300).contains(&status), "{method} {path}: {status} {told}");
        told
    }

    pub(crate) fn get(&mut self, path: &str) -> Value {
        self.good("GET", path, &Value::Null)
    }

    /// Calls for what does not; status and code.
    pub(crate) fn bad(&mut self, method: &str, path: &str, body: &Value) -> (u16, String) {
        let (status, told) = self.call(method, path, body);
        (
            status,
            told["error"]["code"].as_str().unwrap_or_else(|| panic!("{method} {path}: {told}")).to_owned(),
        )
    }

    pub(crate) fn say(&mut self, room: &str, id: &str, text: &str) -> Value {
        let body = json!({"client_id": format!("client-{id}"), "text": text});
        self.good("POST", &format!("/rooms/{room}/messages"), &body)
    }

    /// One of one's rooms as `/me` tells it.
    pub(crate) fn room(&mut self, id: &str) -> Value {
        let me = self.get("/me");
        me["rooms"]
            .as_array()
            .expect("a list")
            .iter()
            .find(|room| room["id"] == id)
            .cloned()
            .unwrap_or_default()
    }

    /// A live connection with a token of now.
    pub(crate) fn live(&mut self) -> Live {
        let told = self.get("/edge");
        Live::connect(told["url"].as_str().expect("a URL"), told["token"].as_str().expect("a token"))
    }
}

/// A WebSocket to the edge that speaks json.
pub(crate) struct Live(WebSocket<TcpStream>);

impl Live {
    pub(crate) fn connect(url: &str, token: &str) -> Self {
        Self::try_connect(url, token).expect("a connection")
    }

    pub(crate) fn try_connect(url: &str, token: &str) -> Option<Self> {
        let host = url.strip_prefix("http://").expect("a URL");
        let stream = TcpStream::connect(host).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let mut request = format!("ws://{host}/ws").into_client_request().expect("a request");
        let offered = format!("fantail.json.v1, fantail.token.{token}");
        request.headers_mut().insert("sec-websocket-protocol", offered.parse().expect("a field"));
        tungstenite::client(request, stream).ok().map(|(socket, _)| Self(socket))
    }

    /// Subscribes to a room and gives the answer.
    pub(crate) fn subscribe(&mut self, room: &str) -> Value {
        self.ask(&json!({"type": "subscribe", "id": 1, "topic": format!("rooms/{room}"), "history": 100}))
    }

    pub(crate) fn ask(&mut self, command: &Value) -> Value {
        self.0.send(Message::text(command.to_string())).expect("sent");
        loop {
            let told = self.next().expect("an answer");
            if told["id"] == command["id"] {
                return told;
            }
        }
    }

    /// The next thing that it is told, or the code of its end.
    pub(crate) fn next(&mut self) -> Result<Value, Option<u16>> {
        loop {
            match self.0.read() {
                Ok(Message::Text(text)) => return Ok(serde_json::from_str(&text).expect("JSON")),
                Ok(Message::Close(frame)) => return Err(frame.map(|frame| frame.code.into())),
                Ok(_) => {}
                Err(_) => return Err(None),
            }
        }
    }

    /// The next message of a room.
    pub(crate) fn message(&mut self) -> Value {
        loop {
            let told = self.next().expect("a message");
            if told["type"] == "message" {
                return told["data"].clone();
            }
        }
    }

    /// The next message with this text.
    pub(crate) fn hear(&mut self, text: &str) -> Value {
        loop {
            let message = self.message();
            if message["text"] == text {
                return message;
            }
        }
    }

    /// The code with which the connection ends, whatever comes before.
    pub(crate) fn end(&mut self) -> Option<u16> {
        loop {
            if let Err(code) = self.next() {
                return code;
            }
        }
    }
}
