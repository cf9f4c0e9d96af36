//! An application that is asked about handshakes: what it is told, what its answers do, and what happens without them.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use fantail::wire::frame::Opcode;
use serde_json::{Value, json};

use crate::bearers::{SECRET, Secret, token};
use crate::client::{Answer, Peer, assert_upgraded, frame, upgrade_request};
use crate::kit::{Server as Application, ok};
use crate::reload::ConfigFile;
use crate::server::{Server, nobody, wait_for};
use crate::skip::skipped;

/// A test that waits for the end of a server waits for no drain.
const QUICK: [(&str, &str); 1] = [("FANTAIL_DRAIN_SECONDS", "0.1")];
const JSON: &str = "Sec-WebSocket-Protocol: fantail.json.v1\r\n";

/// A server that asks `application`, with these further keys and rules.
fn asking(application: &Application, keys: &str, rules: &str) -> (Server, ConfigFile) {
    let config =
        ConfigFile::new(&format!("[auth]\nbackend_url = {:?}\n{keys}\n{rules}\n", application.url()));
    let server = Server::start(&["--config", config.path(), "--loops", "2", "--log-level", "debug"], &QUICK);
    (server, config)
}

/// An application that knows everybody by their cookie.
fn by_cookie() -> Application {
    Application::start(|request, stream| {
        let cookie = request.lines().find_map(|line| line.strip_prefix("cookie: ")).unwrap_or_default();
        let answer = match cookie {
            "" => crate::kit::answered("401 Who", ""),
            "mallory" => ok(r#"{"allow":false}"#),
            name => ok(&json!({
                "allow": true,
                "sub": name,
                "subscribe": ["users/{sub}/**", "lobby"],
                "publish": ["users/{sub}/**"],
                "topics": ["lobby", "closed"],
                "data": { "name": name },
            })
            .to_string()),
        };
        stream.write_all(&answer).is_ok()
    })
}

/// Holds answers until it is told to let so many go.
#[derive(Clone, Default)]
pub(crate) struct Gate(Arc<(Mutex<usize>, Condvar)>);

impl Gate {
    pub(crate) fn open(&self, count: usize) {
        *self.0.0.lock().expect("a lock") += count;
        self.0.1.notify_all();
    }

    /// Waits for it; no longer than a test could.
    pub(crate) fn pass(&self) {
        let (left, changed) = &*self.0;
        let left = left.lock().expect("a lock");
        let waited = changed.wait_timeout_while(left, crate::server::PATIENCE, |left| *left == 0);
        let mut left = waited.expect("a lock").0;
        *left = left.saturating_sub(1);
    }
}

fn gated(gate: &Gate) -> Application {
    let gate = gate.clone();
    Application::start(move |_, stream| {
        gate.pass();
        stream.write_all(&ok(r#"{"allow":true,"sub":"alice","subscribe":["**"]}"#)).is_ok()
    })
}

fn ask(server: &Server, path: &str, fields: &str) -> (Peer, Answer) {
    let mut peer = server.connect();
    let answer = peer.ask_upgrade(path, fields);
    (peer, answer)
}

fn said(peer: &mut Peer) -> Value {
    serde_json::from_str(&peer.text()).expect("JSON")
}

#[test]
fn who_is_let_in_is_who_the_application_says() {
    let application = by_cookie();
    let rules = "[[topic]]\npattern = \"closed\"\nsubscribe = \"nobody\"";
    let (server, _config) = asking(&application, "", rules);
    let spoofed =
        "X-Forwarded-For: 203.0.113.9\r\nFantail-Address: 203.0.113.9\r\nX-Secret: s3cret-not-passed\r\n";
    let (mut peer, answer) = ask(&server, "/ws/users/alice/a", &format!("{JSON}{spoofed}Cookie: alice\r\n"));
    assert_upgraded(&answer);
    assert_eq!(said(&mut peer), json!({ "type": "welcome", "data": { "name": "alice" } }));
    let topics = [said(&mut peer), said(&mut peer)].map(|said| said["topic"].clone());
    assert_eq!(topics, [json!("users/alice/a"), json!("lobby")], "not what no client may have");
    for (topic, kind) in [("users/alice/b", "subscribed"), ("users/bob/b", "error")] {
        peer.send_frame(Opcode::Text, json!({ "type": "subscribe", "topic": topic }).to_string().as_bytes());
        let said = said(&mut peer);
        assert_eq!((&said["type"], &said["topic"]), (&json!(kind), &json!(topic)));
    }
    let asked = application.requests.lock().expect("a lock")[0].clone();
    let (head, body) = asked.split_once("\r\n\r\n").expect("a head");
    let wanted = json!({
        "path": "/ws/users/alice/a",
        "dialect": "json",
        "topics": ["users/alice/a"],
        "patterns": [],
        "address": "127.0.0.1",
    });
    assert_eq!(serde_json::from_str::<Value>(body).expect("JSON"), wanted);
    assert!(head.contains("\r\ncookie: alice") && head.contains("\r\nx-forwarded-for: 127.0.0.1"), "{head}");
    for foreign in ["203.0.113.9", "s3cret-not-passed", "sec-websocket", "upgrade"] {
        assert!(!asked.to_ascii_lowercase().contains(foreign), "{asked}");
    }
    for (path, fields, status) in [
        ("/ws/lobby", "", 401),
        ("/ws/lobby", "Cookie: mallory\r\n", 403),
        ("/ws/users/alice/a", "Cookie: bob\r\n", 403),
        ("/ws/closed", "Cookie: alice\r\n", 403),
    ] {
        assert_eq!(ask(&server, path, fields).1.status, status, "{path} {fields}");
    }
    // Streams and polls are asked about, too.
    let mut stream = server.connect();
    let get =
        |path: &str, cookie: &str| format!("GET {path} HTTP/1.1\r\nHost: x\r\nCookie: {cookie}\r\n\r\n");
    stream.send(get("/poll/lobby?wait=0", "carol").as_bytes());
    assert_eq!(stream.answer().status, 204, "it is there, and nothing is new");
    stream.send(get("/sse/lobby", "mallory").as_bytes());
    assert_eq!(stream.answer().status, 403);
    let calls = server.metric("fantail_backend_calls_total", "");
    assert_eq!((calls, application.asked() as u64), (calls, calls));
    // Nobody is there who would have to be sent away first.
    drop((peer, stream));
    server.terminate();
    let log = server.rest_of_log();
    for secret in ["carol", "mallory", "s3cret"] {
        assert!(!log.contains(secret), "{log}");
    }
}

#[test]
fn equal_handshakes_are_one_question_and_who_leaves_is_forgotten_at_once() {
    let gate = Gate::default();
    let application = gated(&gate);
    let (server, _config) = asking(&application, "", "");
    let wait = |cookie: &str| {
        let mut peer = server.connect();
        // What comes behind the request waits with it.
        let fields = format!("Cookie: {cookie}\r\n");
        let mut bytes = upgrade_request(server.listen, "/echo", &fields).into_bytes();
        bytes.extend(frame(Opcode::Text, cookie.as_bytes()));
        peer.send(&bytes);
        peer
    };
    let mut peers: Vec<Peer> = (0..8).map(|_| wait("same")).collect();
    let other = wait("other");
    server.await_metric("fantail_backend_waiting", "", |waiting| waiting == 9);
    wait_for("both questions", || application.asked() == 2);
    peers.truncate(5);
    drop(other);
    server.await_metric("fantail_backend_waiting", "", |waiting| waiting == 5);
    gate.open(2);
    for peer in &mut peers {
        assert_eq!(peer.answer().status, 101);
        assert_eq!(peer.text(), "same");
    }
    assert_eq!(application.asked(), 2);
    // What was answered lately is not asked again, and is nobody else's.
    assert_eq!(ask(&server, "/echo", "Cookie: same\r\n").1.status, 101);
    assert_eq!(server.metric("fantail_backend_questions_total", "kept"), 1);
    assert_eq!(server.metric("fantail_backend_questions_total", "joined"), 7);
}

#[test]
fn without_an_answer_nobody_comes_in_unless_it_is_told_otherwise() {
    let (_socket, gone) = nobody();
    for (down, expected) in [("deny", [503, 503]), ("allow", [101, 401])] {
        let config = ConfigFile::new(&format!(
            "[auth]\nbackend_url = \"http://{gone}/\"\nbackend_down = {down:?}\n[[topic]]\npattern = \"open\"\nsubscribe = \"anyone\"\n"
        ));
        let server = Server::start(&["--config", config.path(), "--loops", "1"], &QUICK);
        let answers = ["/ws/open", "/ws/other"].map(|path| ask(&server, path, "Cookie: s3cret\r\n").1);
        assert_eq!(answers.each_ref().map(|answer| answer.status), expected, "{down}");
        if down == "deny" {
            assert_eq!(answers[0].field("retry-after"), Some("1"));
            // Five calls that fail are enough: the next is refused without one.
            wait_for("it to be left alone", || {
                ask(&server, "/ws/open", "");
                server.metric("fantail_backend_left_alone", "") == 1
            });
        }
        server.terminate();
        let log = server.rest_of_log();
        assert!(log.contains("the backend has not answered") && !log.contains("s3cret"), "{log}");
    }
    // One that keeps silent.
    let gate = Gate::default();
    let application = gated(&gate);
    let (server, _config) = asking(&application, "backend_wait_seconds = 0.2", "");
    let answer = ask(&server, "/echo", "").1;
    assert_eq!((answer.status, server.metric("fantail_refusals_total", "backend_down")), (503, 1));
    server.await_metric("fantail_backend_waiting", "", |waiting| waiting == 0);
    gate.open(1);
}

#[test]
fn a_crowd_is_asked_about_a_few_at_a_time_and_nobody_waits_who_is_in() {
    const CROWD: usize = 150;
    const CALLS_MAX: usize = 4;
    let (under_way, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (now, highest) = (Arc::clone(&under_way), Arc::clone(&most));
    let gate = Gate::default();
    let held = gate.clone();
    let application = Application::start(move |_, stream| {
        highest.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
        held.pass();
        now.fetch_sub(1, Ordering::SeqCst);
        stream.write_all(&ok(r#"{"allow":true,"sub":"x"}"#)).is_ok()
    });
    let keys = format!("backend_calls_max = {CALLS_MAX}\nbackend_waiting_max = {CROWD}");
    let (server, _config) = asking(&application, &keys, "");
    gate.open(1);
    let (mut inside, answer) = ask(&server, "/echo", "Cookie: first\r\n");
    assert_eq!(answer.status, 101);
    let mut crowd: Vec<Peer> = (0..CROWD)
        .map(|number| {
            let mut peer = server.connect();
            let fields = format!("Cookie: n{number}\r\n");
            peer.send(upgrade_request(server.listen, "/echo", &fields).as_bytes());
            peer
        })
        .collect();
    server.await_metric("fantail_backend_waiting", "", |waiting| waiting == CROWD as u64);
    wait_for("calls", || under_way.load(Ordering::SeqCst) == CALLS_MAX);
    // All of the places are taken; who is in is served all the same.
    assert_eq!(ask(&server, "/echo", "Cookie: late\r\n").1.status, 503);
    inside.send_frame(Opcode::Text, b"still");
    assert_eq!(inside.text(), "still");
    gate.open(CROWD);
    for peer in &mut crowd {
        assert_eq!(peer.answer().status, 101);
    }
    assert_eq!((application.asked(), most.load(Ordering::SeqCst)), (CROWD + 1, CALLS_MAX));
    assert_eq!(server.metric("fantail_backend_waiting", ""), 0);
}

/// Where the page's backends listen here: no other test does, nor anybody who takes a port as it comes.
fn own_address() -> String {
    let id = std::process::id();
    format!("127.77.{}.{}:{}", id / 250 % 250, id % 250 + 1, 20_000 + id % 10_000)
}

/// The block of this language in the page for those who write one, to listen there.
fn of_the_page(language: &str) -> String {
    let page = include_str!("../../docs/integrate.md");
    let block = page.split(&format!("```{language}\n")).nth(1).and_then(|rest| rest.split("```").next());
    let (host, port) =
        own_address().split_once(':').map(|(host, port)| (host.to_owned(), port.to_owned())).expect("both");
    block.expect("an example").replace("127.0.0.1", &host).replace("9000", &port)
}

/// A folder for what is compiled of the page, or read from a file, that goes with its test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("page-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        Self(folder)
    }

    /// A file in it, which has this text.
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, text).expect("a file");
        path.to_str().expect("UTF-8").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What runs the page's backend of this language; `None` without the program for it.
fn runs_the_page(language: &str, folder: &Folder) -> Option<Command> {
    let (program, source) = match language {
        "python" => ("python3", "ask.py"),
        "js" => ("node", "ask.js"),
        "php" => ("php", "ask.php"),
        _ => ("go", "ask.go"),
    };
    let source = folder.file(source, &of_the_page(language));
    let known = Command::new(program).arg(if program == "go" { "version" } else { "--version" }).output();
    if known.is_err() {
        skipped(program);
        return None;
    }
    let mut command = Command::new(program);
    match program {
        // Its own server, which asks the file about each request.
        "php" => command.args(["-S", &own_address(), &source]),
        // Compiled first: `go run` would start a child that outlives it.
        "go" => {
            let binary = folder.0.join("ask");
            let built = Command::new("go").arg("build").arg("-o").arg(&binary).arg(&source).output();
            let built = built.expect("go runs");
            assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
            command = Command::new(binary);
            &mut command
        }
        _ => command.arg(&source),
    };
    Some(command)
}

// One after the other: all listen in the same place.
#[test]
fn the_backends_of_the_page_work() {
    let url = format!("http://{}/fantail", own_address());
    let folder = Folder::new();
    for language in ["python", "js", "php", "go"] {
        let Some(mut command) = runs_the_page(language, &folder) else { continue };
        let run = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let _running = Running(run.expect("it runs"));
        let config = ConfigFile::new(&format!("[auth]\nbackend_url = {url:?}\nbackend_cache_seconds = 0\n"));
        let server = Server::start(&["--config", config.path(), "--loops", "1"], &QUICK);
        wait_for(language, || TcpStream::connect(own_address()).is_ok());
        assert_eq!(ask(&server, "/ws/lobby", "").1.status, 403, "{language}");
        let (mut alice, answer) =
            ask(&server, "/ws/users/alice/a", &format!("{JSON}Cookie: session=1a2b\r\n"));
        assert_upgraded(&answer);
        let topics = [said(&mut alice), said(&mut alice)].map(|said| said["topic"].clone());
        assert_eq!(topics, [json!("users/alice/a"), json!("lobby")], "{language}");
        assert_eq!(ask(&server, "/ws/users/bob/a", "Cookie: session=1a2b\r\n").1.status, 403, "{language}");
    }
}

/// A child that ends with its value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn who_is_revoked_does_not_come_back_by_an_answer_to_an_earlier_question() {
    let gate = Gate::default();
    let application = gated(&gate);
    let (server, _config) = asking(&application, "backend_cache_seconds = 3600", "");
    gate.open(1);
    let (mut inside, answer) = ask(&server, "/ws/lobby", "Cookie: one\r\n");
    assert_upgraded(&answer);
    let mut waiting = server.connect();
    waiting.send(upgrade_request(server.listen, "/ws/lobby", "Cookie: two\r\n").as_bytes());
    wait_for("both questions", || application.asked() == 2);
    let revoked = server.post("/revoke?identity=alice", "", b"");
    assert_eq!((revoked.status, revoked.json()), (200, json!({ "closed": 1 })));
    assert_eq!(inside.frame().close_code(), Some(3003));
    gate.open(1);
    let answers = [waiting.answer(), ask(&server, "/ws/lobby", "Cookie: one\r\n").1];
    for answer in &answers {
        assert_eq!(answer.status, 401, "{}", answer.head);
        assert!(answer.field("www-authenticate").is_some_and(|field| field.contains("invalid_token")));
    }
    assert_eq!(server.metric("fantail_refusals_total", "token_revoked"), 2);
    assert_eq!(application.asked(), 2, "the answers were kept");
}

#[test]
fn cookies_of_a_page_that_only_a_star_lets_in_are_not_passed_on() {
    let application = by_cookie();
    let (server, _config) = asking(&application, "", "[origin]\nallowed = [\"*\"]");
    let own = format!("Origin: http://{}\r\n", server.listen);
    for (origin, expected) in [
        ("Origin: https://elsewhere.example\r\n", [401, 401]),
        ("Origin: null\r\n", [401, 401]),
        (&own, [101, 204]),
        // No browser: it names no page, and brings what it was given.
        ("", [101, 204]),
    ] {
        let fields = format!("{origin}Cookie: alice\r\n");
        let upgraded = ask(&server, "/ws/lobby", &fields).1;
        let polled = get(&server, "GET", "/poll/lobby?wait=0", &fields);
        assert_eq!([upgraded.status, polled.status], expected, "{origin}");
    }
}

fn get(server: &Server, method: &str, path: &str, fields: &str) -> Answer {
    let mut peer = server.connect();
    peer.send(format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", server.listen).as_bytes());
    peer.answer_to(method == "HEAD")
}

#[test]
fn what_is_asked_of_a_head_is_asked_about_as_well() {
    let application = by_cookie();
    let open = "[[topic]]\npattern = \"open\"\nsubscribe = \"anyone\"";
    let (server, _config) = asking(&application, "", open);
    for (path, fields, status) in [
        ("/sse/lobby", "Cookie: alice\r\n", 200),
        ("/poll/lobby", "Cookie: alice\r\n", 204),
        ("/sse/lobby", "", 401),
        ("/poll/lobby", "", 401),
        ("/sse/users/bob/a", "Cookie: alice\r\n", 403),
        ("/sse/open", "Cookie: mallory\r\n", 403),
        ("/poll/open", "Cookie: mallory\r\n", 403),
    ] {
        let answer = get(&server, "HEAD", path, fields);
        assert_eq!((answer.status, answer.body.len()), (status, 0), "{path} {fields}");
        assert!(status != 401 || answer.field("www-authenticate").is_some(), "RFC 9110, 15.5.2");
    }
    assert_eq!(server.metric("fantail_refusals_total", "backend_denied"), 2);
}

#[test]
fn an_answer_is_about_one_request_and_not_about_the_next_behind_it() {
    let gate = Gate::default();
    let held = gate.clone();
    let application = Application::start(move |request, stream| {
        held.pass();
        let is_bob = request.contains("cookie: bob");
        let answer = if is_bob { r#"{"allow":false}"# } else { r#"{"allow":true,"sub":"alice"}"# };
        stream.write_all(&ok(answer)).is_ok()
    });
    let (server, config) = asking(&application, "", "");
    let mut peer = server.connect();
    let poll = |fields: &str| format!("GET /poll/a?wait=0 HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n");
    let (alice, bob) = (format!("Authorization: Bearer {}", token("alice", "")), "Cookie: bob");
    peer.send((poll(&alice) + &poll(bob)).as_bytes());
    wait_for("a question", || application.asked() == 1);
    // From now on the first shows by itself who it is, and its answer is not needed any more.
    let secret = Secret::new(SECRET);
    config.write(&format!("[auth]\nbackend_url = {:?}\n{}", application.url(), secret.issuer("")));
    assert_eq!(server.post("/reload", "", b"").status, 200);
    gate.open(2);
    assert_eq!(peer.answer().status, 204);
    assert_eq!(peer.answer().status, 403, "as whom it shows");
    assert_eq!(application.asked(), 2);
}

#[test]
fn answers_of_no_use_to_one_refuse_nobody_else() {
    let application = Application::start(|request, stream| {
        // Whoever chose such a name for themselves.
        let is_odd = request.contains("cookie: odd");
        let sub = if is_odd { "a/b" } else { "alice" };
        let answer = json!({ "allow": true, "sub": sub, "subscribe": ["users/{sub}/**", "lobby"] });
        stream.write_all(&ok(&answer.to_string())).is_ok()
    });
    let open = "[[topic]]\npattern = \"open\"\nsubscribe = \"anyone\"";
    let (server, _config) = asking(&application, "backend_down = \"allow\"\nbackend_cache_seconds = 0", open);
    for _ in 0..8 {
        assert_eq!(
            ask(&server, "/ws/open", "Cookie: odd\r\n").1.status,
            503,
            "it was asked, and has not let them in"
        );
    }
    assert_eq!(ask(&server, "/ws/lobby", "Cookie: even\r\n").1.status, 101);
    assert_eq!((application.asked(), server.metric("fantail_backend_left_alone", "")), (9, 0));
}

/// What an application does with a question, wrongly.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    Right,
    /// Ends the connection without a word, as one that is killed does.
    Dies,
    /// The same, in the middle of an answer.
    DiesHalfWay,
    /// Byte by byte, for as long as it is listened to.
    Drips,
    Says(&'static str, &'static str),
    /// More than an answer may have.
    SaysMuch,
    SaysElsewhere,
}

fn do_it(does: Does, stream: &mut TcpStream) -> bool {
    let mut say = |bytes: &[u8]| stream.write_all(bytes).is_ok();
    match does {
        Does::Right => say(&ok(r#"{"allow":true,"sub":"alice","subscribe":["**"]}"#)),
        Does::Dies => false,
        Does::DiesHalfWay => {
            say(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"allow\":true,");
            false
        }
        Does::Drips => {
            let mut goes_on = say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{");
            // No longer than a test could.
            for _ in 0..400 {
                goes_on = goes_on && say(b" ");
                std::thread::sleep(std::time::Duration::from_millis(20));
                if !goes_on {
                    break;
                }
            }
            false
        }
        Does::Says(status, body) => say(&crate::kit::answered(status, body)),
        Does::SaysMuch => {
            let much = format!("{{\"allow\":true,\"sub\":\"alice\",\"more\":\"{}\"}}", "x".repeat(10 << 20));
            say(&ok(&much))
        }
        Does::SaysElsewhere => {
            say(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")
        }
    }
}

/// The table of docs/integrate.md, by what an application does.
#[test]
fn whatever_the_application_does_wrong_becomes_what_the_page_says() {
    let does = Arc::new(Mutex::new(Does::Right));
    let now = Arc::clone(&does);
    let application = Application::start(move |_, stream| {
        let does = *now.lock().expect("a lock");
        do_it(does, stream)
    });
    let keys = "backend_cache_seconds = 0\nbackend_timeout_seconds = 0.5";
    let (server, _config) = asking(&application, keys, "");
    let set = |next: Does| *does.lock().expect("a lock") = next;
    let enter = || ask(&server, "/ws/lobby", "Cookie: alice\r\n").1;
    let mut inside = ask(&server, "/ws/lobby", "Cookie: alice\r\n").0;
    inside.ping_pong();
    // An answer of no use is about one question, however many come.
    for lie in [
        Does::Says("200 OK", "{"),
        Does::Says("200 OK", "[]"),
        Does::Says("200 OK", r#"{"allow":"yes","sub":"alice"}"#),
        Does::Says("200 OK", r#"{"allow":true}"#),
        Does::Says("200 OK", r#"{"allow":true,"allow":false,"sub":"alice"}"#),
        Does::Says("404 Not Found", r#"{"allow":true,"sub":"alice"}"#),
        Does::SaysMuch,
        Does::SaysElsewhere,
    ] {
        set(lie);
        for _ in 0..2 {
            let answer = enter();
            assert_eq!((answer.status, answer.field("retry-after").is_some()), (503, true), "{lie:?}");
        }
        assert_eq!(server.metric("fantail_backend_left_alone", ""), 0, "{lie:?}");
    }
    set(Does::Right);
    assert_eq!(enter().status, 101);
    // One that fails now and then is asked on.
    for fails in [Does::Says("500 No", ""), Does::DiesHalfWay, Does::Drips, Does::Dies] {
        for _ in 0..2 {
            set(fails);
            assert_eq!(enter().status, 503, "{fails:?}");
            set(Does::Right);
            assert_eq!(enter().status, 101, "{fails:?}");
        }
        assert_eq!(server.metric("fantail_backend_left_alone", ""), 0, "{fails:?}");
    }
    // One that fails each time is left alone, and asked again when it may be back.
    set(Does::Dies);
    for _ in 0..5 {
        assert_eq!(enter().status, 503);
    }
    wait_for("it to be left alone", || {
        assert_eq!(enter().status, 503);
        server.metric("fantail_backend_left_alone", "") == 1
    });
    let asked = application.asked();
    assert_eq!(enter().status, 503);
    assert!(application.asked() <= asked + 1, "at most the one that tries");
    set(Does::Right);
    wait_for("it to be back", || enter().status == 101);
    assert_eq!(server.metric("fantail_backend_left_alone", ""), 0);
    inside.ping_pong();
}
