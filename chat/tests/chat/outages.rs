//! What ends: the edge, the chat, both. What was acknowledged is there, and reaches whoever comes back.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use fantail::sys::signals;
use serde_json::json;

use crate::kit::{Chat, Database, Live, Person, wait_for};

/// A live connection to an edge that may be about to start again, once it is subscribed.
fn come_back(person: &mut Person) -> Live {
    let mut live = wait_for("the edge is back", || {
        let (status, told) = person.call("GET", "/edge", &json!({}));
        let (url, token) = told["url"].as_str().zip(told["token"].as_str()).filter(|_| status == 200)?;
        Live::try_connect(url, token)
    });
    live.subscribe("lobby");
    live
}

/// Somebody has this from the application, as a page that comes back asks it: the edge keeps nothing for who comes later.
fn has(person: &mut Person, text: &str) {
    let page = person.get("/rooms/lobby/messages");
    assert!(
        page["messages"].as_array().expect("a list").iter().any(|message| message["text"] == text),
        "{text}"
    );
}

#[test]
fn an_edge_that_ends_is_started_again_and_told_what_it_missed() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &[]);
    let mut alice = chat.register("alice");
    let url = alice.get("/edge")["url"].clone();
    let mut live = come_back(&mut alice);
    alice.say("lobby", "1", "before");
    live.hear("before");
    for (number, text) in ["between", "once more"].iter().enumerate() {
        let edge = chat.edge().expect("a process");
        signals::kill(edge).expect("killed");
        assert_eq!(live.end(), None);
        // Acknowledged while there is no edge, and told by the next one.
        alice.say("lobby", &format!("between-{number}"), text);
        live = come_back(&mut alice);
        has(&mut alice, text);
        alice.say("lobby", &format!("after-{number}"), &format!("after {number}"));
        live.hear(&format!("after {number}"));
        assert_ne!(chat.edge(), Some(edge));
        assert_eq!(alice.get("/edge")["url"], url, "pages find it where it was");
    }
}

#[test]
fn what_was_acknowledged_outlives_the_chat_and_its_edge_does_not() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &[]);
    let mut alice = chat.register("alice");
    let edge = chat.edge().expect("a process");
    let folder = folder_of(edge);
    for (name, mode) in [("", 0o700), ("token.secret", 0o600), ("admin.keys", 0o600)] {
        let found = fs::metadata(Path::new(&folder).join(name)).expect("a file").permissions().mode();
        assert_eq!(found & 0o777, mode, "{name}");
    }
    let said = alice.say("lobby", "1", "kept");
    chat.kill();
    wait_for("the edge ends with the chat", || (!is_running(edge)).then_some(()));
    assert!(!Path::new(&folder).exists(), "its secrets are left");

    let chat = Chat::start(database.path(), &[]);
    alice.url.clone_from(&chat.url);
    let page = alice.get("/rooms/lobby/messages");
    assert_eq!(page["messages"].as_array().unwrap().last().unwrap(), &said);
    // Sent again, since its answer may have been lost with the program.
    assert_eq!(alice.say("lobby", "1", "kept"), said);
    let edge = chat.edge().expect("a process");
    let folder = folder_of(edge);
    chat.stop();
    wait_for("the edge ends with the chat", || (!is_running(edge)).then_some(()));
    assert!(!Path::new(&folder).exists());
}

#[test]
fn an_edge_that_runs_is_used_as_the_page_says() {
    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/chat.md")).expect("the page");
    let configuration =
        page.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("a block");
    let folder = Folder::new();
    fs::write(folder.file("token.secret"), "0123456789abcdef0123456789abcdef").expect("written");
    fs::write(folder.file("admin.keys"), "admin:0123456789abcdef\n").expect("written");
    fs::write(folder.file("admin.key"), "0123456789abcdef\n").expect("written");
    let here = configuration.replace("/etc/fantail", &folder.0);
    fs::write(folder.file("fantail.toml"), &here).expect("written");
    let edge = OtherEdge::start(&folder.file("fantail.toml"));

    let database = Database::new();
    let (secret, key) = (folder.file("token.secret"), folder.file("admin.key"));
    let flags = [
        "--edge",
        &edge.listen,
        "--edge-admin",
        &edge.admin,
        "--edge-token-secret",
        &secret,
        "--edge-admin-key",
        &key,
    ];
    let chat = Chat::start(database.path(), &flags);
    assert_eq!(chat.edge(), None);
    let mut bob = chat.register("bob");
    assert_eq!(bob.get("/edge")["url"], *edge.listen);
    let mut live = come_back(&mut bob);
    bob.say("lobby", "1", "over an edge that runs");
    live.hear("over an edge that runs");
}

/// A folder that goes with its test.
struct Folder(String);

impl Folder {
    fn new() -> Self {
        let path = format!("{}/chat-edge-{}", env!("CARGO_TARGET_TMPDIR"), std::process::id());
        fs::create_dir_all(&path).expect("a folder");
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        format!("{}/{name}", self.0)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// An edge that is nobody's child but the test's.
struct OtherEdge {
    child: Child,
    listen: String,
    admin: String,
}

impl OtherEdge {
    fn start(configuration: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fantail-chat"));
        command.args(["edge-process", "", "serve", "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
        command.args(["--config", configuration]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("started");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("a line");
        let field = |name: &str| {
            let found = line.split(' ').find_map(|word| word.strip_prefix(name));
            format!("http://{}", found.unwrap_or_else(|| panic!("no {name} in {line:?}")))
        };
        Self { listen: field("listen="), admin: field("admin="), child }
    }
}

impl Drop for OtherEdge {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_running(pid: u32) -> bool {
    // One that has ended and that nobody has asked for yet has no command line.
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| !line.is_empty())
}

/// The folder of an edge's configuration, as its command line names it.
fn folder_of(pid: u32) -> String {
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).expect("a command line");
    let file = line.split('\0').find_map(|word| word.strip_suffix("/fantail.toml"));
    file.expect("a configuration").to_owned()
}
