//! `fantail-chat tail`: what it prints of a conversation, which README quotes; through restarts; and how it ends.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStderr, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use fantail::sys::signals;
use serde_json::{Value, json};

use crate::kit::{Chat, Database, PASSWORD, PATIENCE, wait_for};

/// A running tail, ended when it is dropped.
struct Tail {
    child: Child,
    lines: Receiver<String>,
}

impl Tail {
    fn start(chat: &Chat, more: &[&str]) -> Self {
        let mut child = tail(&chat.url, "alice", PASSWORD).args(more).spawn().expect("the program starts");
        let (sender, lines) = channel();
        let out = BufReader::new(child.stdout.take().expect("piped"));
        thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
        Self { child, lines }
    }

    fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("a line")
    }

    /// Ends it as Ctrl-C does; what it had still printed.
    fn interrupt(mut self) -> Vec<String> {
        signals::send(self.child.id(), signals::Signal::Interrupt).expect("a signal");
        assert_eq!(self.child.wait().expect("reaped").code(), Some(0));
        self.lines.iter().collect()
    }
}

impl Drop for Tail {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tail(url: &str, user: &str, password: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fantail-chat"));
    command.args(["tail", "--url", url, "--user", user]).env("FANTAIL_CHAT_PASSWORD", password);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// How one ends that does: its code, and what it says.
fn ends(mut command: Command) -> (Option<i32>, String) {
    let mut child = command.spawn().expect("the program starts");
    let mut said = String::new();
    child.stderr.take().as_mut().map(|err: &mut ChildStderr| err.read_to_string(&mut said));
    (child.wait().expect("reaped").code(), said)
}

const BEGIN: &str = "<!-- tail: written by `UPDATE_DOCS=1 cargo test -p fantail-chat --test chat tail` -->\n";
const END: &str = "<!-- end of tail -->\n";

#[test]
fn the_readme_has_what_tail_prints_of_a_conversation() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &[]);
    let mut alice = chat.register("alice");
    let tail = Tail::start(&chat, &["Lobby"]);
    let mut seen = vec![tail.line()];
    let mut see = |count: usize| seen.extend((0..count).map(|_| tail.line()));
    let mut bob = chat.register("bob");
    let mut charlie = chat.register("charlie");
    see(2);
    alice.say("lobby", "1", "hello, who is here?");
    let said = bob.say("lobby", "1", "I em, since a moment");
    charlie.say("lobby", "1", "me too\nand on the phone");
    see(4);
    let path = format!("/rooms/lobby/messages/{}", said["seq"]);
    bob.good("PATCH", &path, &json!({"text": "I am, since a moment"}));
    see(1);
    let wrong = charlie.say("lobby", "2", "this was for another room");
    // What is deleted before it was told is never told.
    see(1);
    charlie.good("DELETE", &format!("/rooms/lobby/messages/{}", wrong["seq"]), &json!({}));
    charlie.good("POST", "/rooms/lobby/leave", &json!({}));
    see(2);
    assert_eq!(tail.interrupt(), Vec::<String>::new());

    let example: String = seen.iter().map(|line| format!("    {line}\n")).collect();
    let example = format!("    $ fantail-chat tail --user alice Lobby\n    Password:\n{example}");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let page = std::fs::read_to_string(&path).expect("the page");
    let (before, rest) = page.split_once(BEGIN).expect("the marker of the beginning");
    let (quoted, after) = rest.split_once(END).expect("the marker of the end");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}\n{example}\n{END}{after}")).expect("written");
    } else {
        assert_eq!(quoted.trim_matches('\n'), example.trim_end(), "UPDATE_DOCS=1 writes it");
    }
}

#[test]
fn tail_misses_nothing_and_doubles_nothing_through_restarts() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &[]);
    let (mut alice, mut bob) = (chat.register("alice"), chat.register("bob"));
    let before = bob.say("lobby", "0", "before it begins");
    let tail = Tail::start(&chat, &["--json", "--history", "1", "lobby"]);
    let next = || -> Value { serde_json::from_str(&tail.line()).expect("JSON") };
    // As the application tells it, one a line.
    assert_eq!(next(), before);
    let mut expected = vec![bob.say("lobby", "1", "at first")];
    let mut heard = vec![next()];
    signals::kill(chat.edge().expect("a process")).expect("killed");
    expected.push(bob.say("lobby", "2", "without an edge"));
    heard.push(next());
    // The application ends, too, and is there again where it was; meanwhile somebody speaks by another one.
    let address = chat.url.strip_prefix("http://").expect("a URL").to_owned();
    chat.kill();
    let other = Chat::start(database.path(), &[]);
    bob.url.clone_from(&other.url);
    for number in 3..10 {
        expected.push(bob.say("lobby", &number.to_string(), &format!("number {number}")));
    }
    other.stop();
    let chat = Chat::start_at(&address, database.path(), &[]);
    bob.url.clone_from(&chat.url);
    alice.url.clone_from(&chat.url);
    expected.push(bob.say("lobby", "last", "at last"));
    heard.extend((heard.len()..expected.len()).map(|_| next()));
    assert_eq!(heard, expected);
    // Who is put out is told so.
    alice.good("POST", &format!("/rooms/lobby/members/{}", bob.id), &json!({"role": "removed"}));
    assert_eq!(next()["kind"], "removed");
    alice.good("POST", "/rooms/lobby/leave", &json!({}));
    let mut tail = tail;
    let ended = wait_for("the tail ends", || tail.child.try_wait().expect("a child"));
    assert_eq!(ended.code(), Some(4));
}

#[test]
fn tail_says_why_it_ends() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &[]);
    let mut alice = chat.register("alice");
    let of = |user: &str, password: &str, more: &[&str]| {
        let mut command = tail(&chat.url, user, password);
        command.args(more);
        ends(command)
    };
    let (code, said) = of("alice", "wrong horse battery", &["Lobby"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("no such name with this password"), "{said}");
    let (code, said) = of("alice", PASSWORD, &["the den"]);
    assert_eq!(code, Some(4), "{said}");
    assert!(said.contains("your rooms: Lobby"), "{said}");
    assert_eq!(of("alice", PASSWORD, &[]).0, Some(2));
    assert_eq!(of("alice", PASSWORD, &["--password-file", "/nowhere", "Lobby"]).0, Some(2));
    for (url, expected) in [("http://127.0.0.1:1", 1), ("ftp://127.0.0.1", 2)] {
        let mut command = tail(url, "alice", PASSWORD);
        command.arg("Lobby");
        let (code, said) = ends(command);
        assert_eq!(code, Some(expected), "{said}");
    }

    // Its session ends with it, and it ends with its session.
    let tail = Tail::start(&chat, &["Lobby"]);
    assert_eq!(tail.line(), "* alice joined");
    alice.good("POST", "/logout-everywhere", &json!({}));
    let mut tail = tail;
    let ended = wait_for("the tail ends", || tail.child.try_wait().expect("a child"));
    assert_eq!(ended.code(), Some(3));
}

#[test]
fn tail_speaks_tls_with_whom_the_machine_trusts() {
    let file = |name: &str| {
        concat!(env!("CARGO_MANIFEST_DIR"), "/../loadtest/tests/tls/certificates/").to_owned() + name
    };
    // Anything that speaks TLS: an edge, which is no chat.
    let mut command = Command::new(env!("CARGO_BIN_EXE_fantail-chat"));
    let any = "127.0.0.1:0";
    command.args(["edge-process", "", "serve", "--listen", any, "--admin", any, "--tls-listen", any]);
    command.args(["--tls-certificate", &file("server.pem"), "--tls-key", &file("server.key")]);
    let mut edge = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program starts");
    let mut ready = String::new();
    BufReader::new(edge.stdout.take().expect("piped")).read_line(&mut ready).expect("a line");
    let port = ready.split("tls=127.0.0.1:").nth(1).and_then(|rest| rest.split_whitespace().next());
    let url = format!("https://localhost:{}", port.expect("a port"));
    let of = |trusted: &str| {
        let mut command = tail(&url, "alice", PASSWORD);
        command.env("SSL_CERT_FILE", file(trusted)).env_remove("SSL_CERT_DIR").arg("Lobby");
        ends(command)
    };
    let (known, unknown) = (of("ca.pem"), of("other.pem"));
    let _ = (edge.kill(), edge.wait());
    assert_eq!(known.0, Some(1));
    assert!(known.1.contains("and not as a chat does"), "{}", known.1);
    assert_eq!(unknown.0, Some(1));
    assert!(unknown.1.contains("certificate"), "{}", unknown.1);
}

#[test]
fn nobody_who_lists_processes_sees_the_password() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &[]);
    chat.register("alice");
    let file = format!("{}.password", database.path());
    std::fs::write(&file, format!("{PASSWORD}\nmore\n")).expect("written");
    let mut command = tail(&chat.url, "alice", "");
    command.env_remove("FANTAIL_CHAT_PASSWORD").args(["--password-file", &file, "Lobby"]);
    let mut child = command.spawn().expect("the program starts");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
    let shown = std::fs::read_to_string(format!("/proc/{}/cmdline", child.id())).expect("a command line");
    let _ = (child.kill(), child.wait(), std::fs::remove_file(file));
    assert_eq!(line, "* alice joined\n");
    assert!(!shown.contains(PASSWORD) && !shown.contains("horse"));
}
