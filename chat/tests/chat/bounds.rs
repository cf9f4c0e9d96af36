//! What is bounded: connections, lists, invitations, processes of one file; and that whatever goes wrong is said in JSON.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::kit::{Chat, Database, PATIENCE, Person};

/// What is answered to these bytes, until the connection ends or `whole` says that it is enough.
fn raw(url: &str, bytes: &[u8]) -> String {
    let mut stream = connect(url);
    // What is not read any more can't be sent whole.
    let _ = stream.write_all(bytes);
    let mut said = Vec::new();
    let _ = stream.read_to_end(&mut said);
    String::from_utf8_lossy(&said).into_owned()
}

fn connect(url: &str) -> TcpStream {
    let stream = TcpStream::connect(url.strip_prefix("http://").expect("a URL")).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

/// Status and error of an answer, which has to be JSON with a code and advice.
fn error_of(answer: &str) -> (u16, String) {
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    let told: Value = serde_json::from_str(body).unwrap_or_else(|_| panic!("no JSON: {answer}"));
    assert!(told["error"]["message"].as_str().is_some_and(|message| message.len() > 10), "{answer}");
    (status.expect("a status"), told["error"]["code"].as_str().expect("a code").to_owned())
}

#[test]
fn every_error_is_json_that_says_what_to_do() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &[]);
    let mut alice = chat.register("alice");
    for (method, path, status, code) in [
        ("GET", "/nowhere", 404, "not_found"),
        ("GET", "/rooms/lobby/messages/1/more", 404, "not_found"),
        ("DELETE", "/rooms", 405, "wrong_method"),
        ("PUT", "/rooms/lobby/messages/1", 405, "wrong_method"),
        ("GET", "/login", 405, "wrong_method"),
        ("PATCH", "/rooms/lobby/messages/first", 400, "bad_request"),
        ("DELETE", "/rooms/lobby/messages/99999999999999999999", 400, "bad_request"),
        ("DELETE", "/rooms/lobby/messages/1.0", 400, "bad_request"),
        ("DELETE", "/rooms/lobby/messages/77", 404, "not_found"),
        ("GET", "/rooms/lobby/messages?before=x", 400, "bad_request"),
        ("GET", "/rooms/lobby/messages?after_change=", 400, "bad_request"),
        ("GET", "/rooms/nowhere/messages", 404, "not_found"),
    ] {
        let told = alice.bad(method, path, &json!({"text": "x"}));
        assert_eq!(told, (status, code.to_owned()), "{method} {path}");
    }
    let long = format!("/rooms?name={}", "a".repeat(5_000));
    assert_eq!(alice.bad("GET", &long, &json!({})), (414, "too_long".to_owned()));
    let large = json!({"client_id": "12345678", "text": "x".repeat(70_000)});
    assert_eq!(alice.bad("POST", "/rooms/lobby/messages", &large), (413, "too_large".to_owned()));

    let fields = |count: usize, length: usize| -> String {
        (0..count).map(|number| format!("x-{number}: {}\r\n", "y".repeat(length))).collect()
    };
    let get = |path: &str, fields: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{fields}\r\n")
    };
    for (request, status, code) in [
        (get("/nowhere", ""), 404, "not_found"),
        (get("/app.js", "").replace("GET", "POST"), 405, "wrong_method"),
        (get(&format!("/{}", "a".repeat(10_000)), ""), 414, "too_long"),
        (get("/", &fields(200, 1)), 431, "too_large"),
        (get("/", &fields(2, 20_000)), 431, "too_large"),
        ("what is this?\r\n\r\n".to_owned(), 400, "bad_request"),
        ("GET / HTTP/1.1\r\nno field\r\n\r\n".to_owned(), 400, "bad_request"),
        ("POST /api/login HTTP/1.1\r\nContent-Length: many\r\n\r\n".to_owned(), 400, "bad_request"),
    ] {
        let answer = raw(&chat.url, request.as_bytes());
        assert_eq!(error_of(&answer), (status, code.to_owned()), "{:.60}", request);
    }
}

#[test]
fn one_address_has_no_more_connections_than_it_may() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &["--connections-per-address", "3"]);
    let held: Vec<_> = (0..3).map(|_| connect(&chat.url)).collect();
    let mut over = connect(&chat.url);
    let mut said = String::new();
    over.read_to_string(&mut said).expect("an answer");
    assert_eq!(error_of(&said), (503, "busy".to_owned()));
    drop(held);
    crate::kit::wait_for("there is room again", || {
        let answer = raw(&chat.url, b"GET /style.css HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        answer.starts_with("HTTP/1.1 200").then_some(())
    });
    drop(chat);
    let database = Database::new();
    let chat = Chat::start(database.path(), &["--connections", "2", "--proxies", "1"]);
    let _held = [connect(&chat.url), connect(&chat.url)];
    let mut said = String::new();
    connect(&chat.url).read_to_string(&mut said).expect("an answer");
    assert_eq!(error_of(&said), (503, "busy".to_owned()));
}

/// What the program says when it does not start.
fn refused(more: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fantail-chat"));
    let output =
        command.args(["--listen", "127.0.0.1:0"]).args(more).stdin(Stdio::null()).output().expect("it runs");
    assert!(!output.status.success());
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_second_process_on_the_same_file_is_refused() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &[]);
    let said = refused(&["--database", database.path()]);
    assert!(said.contains("is in use by another fantail-chat"), "{said}");
    let mut alice = chat.register("alice");
    alice.say("lobby", "1", "nobody minds");
    chat.kill();
    // The lock ends with its process, however that does.
    let chat = Chat::start(database.path(), &[]);
    alice.url.clone_from(&chat.url);
    assert_eq!(alice.get("/me")["name"], "alice");
}

#[test]
fn a_page_over_https_needs_an_edge_over_https() {
    let database = Database::new();
    let https = ["--database", database.path(), "--public-url", "https://chat.example"];
    let said = refused(&https);
    assert!(said.contains("--edge-public-url"), "{said}");
    let said = refused(&[&https[..], &["--edge-public-url", "http://edge.example"]].concat());
    assert!(said.contains("--edge-public-url"), "{said}");

    let mut command = Command::new(env!("CARGO_BIN_EXE_fantail-chat"));
    command
        .args(["--listen", "127.0.0.1:0"])
        .args(https)
        .args(["--edge-public-url", "https://chat.example/"]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().expect("it starts");
    let mut said = [0; 64];
    let count = child.stdout.as_mut().expect("piped").read(&mut said).expect("a line");
    assert!(said[..count].starts_with(b"fantail-chat ready https://chat.example"));
    child.kill().expect("killed");
    child.wait().expect("reaped");
}

#[test]
fn an_edge_whose_port_was_taken_is_found_elsewhere() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &[]);
    let mut alice = chat.register("alice");
    let before = alice.get("/edge")["url"].as_str().expect("a URL").to_owned();
    let mut live = alice.live();
    live.subscribe("lobby");
    // Killed, and somebody else is quicker. If not, the edge is back where it was and is killed once more.
    let address = before.strip_prefix("http://").expect("a URL").to_owned();
    let taken = crate::kit::wait_for("its port is taken", || {
        if let Some(edge) = chat.edge() {
            let _ = fantail::sys::signals::kill(edge);
        }
        TcpListener::bind(&address).ok()
    });
    let mut live = crate::kit::wait_for("the edge is back", || {
        let (status, told) = alice.call("GET", "/edge", &json!({}));
        let url = told["url"].as_str().filter(|url| status == 200 && *url != before)?.to_owned();
        crate::kit::Live::try_connect(&url, told["token"].as_str()?)
    });
    live.subscribe("lobby");
    alice.say("lobby", "1", "found again");
    live.hear("found again");
    drop(taken);
}

#[test]
fn lists_come_in_pages() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &["--proxies", "1"]);
    let mut alice = chat.enter(Person::at(&chat.url, "192.0.2.1"), "alice");
    for number in 0..3 {
        let mut person =
            chat.enter(Person::at(&chat.url, &format!("10.0.0.{number}")), &format!("maker{number}"));
        // Letters that look like no other.
        for room in "abcdefghkmnpqrstuvwx".chars() {
            let name = format!("room {number} of {room}");
            person.good("POST", "/rooms", &json!({"name": name, "open": true}));
        }
    }
    let first = alice.get("/rooms?name=room");
    assert_eq!(first["rooms"].as_array().expect("a list").len(), 50);
    let next = first["next"].as_str().expect("more");
    let second = alice.get(&format!("/rooms?name=room&after={}", next.replace(' ', "%20")));
    assert_eq!((second["rooms"].as_array().expect("a list").len(), &second["next"]), (10, &Value::Null));
    let mut ids: Vec<_> = [&first, &second]
        .iter()
        .flat_map(|page| page["rooms"].as_array().expect("a list"))
        .map(|room| room["id"].to_string())
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 60);

    let people = alice.get("/rooms/lobby/members");
    let names: Vec<_> =
        people["members"].as_array().expect("a list").iter().map(|one| one["name"].clone()).collect();
    assert_eq!(
        (names, &people["next"]),
        (vec![json!("alice"), json!("maker0"), json!("maker1"), json!("maker2")], &Value::Null)
    );
    let people = alice.get("/rooms/lobby/members?after=maker1");
    assert_eq!(people["members"].as_array().expect("a list").len(), 1);
    // Whoever asks without end is told when again.
    let asked: Vec<_> = (0..300).map(|_| alice.call("GET", "/rooms/lobby/members", &json!({})).0).collect();
    assert!(asked.contains(&429));
}

#[test]
fn nobody_is_invited_without_end() {
    let database = Database::new();
    let chat = Chat::start(database.path(), &["--proxies", "1"]);
    let mut bob = chat.enter(Person::at(&chat.url, "192.0.2.1"), "bob");
    let mut told = Vec::new();
    for number in 0..2 {
        let mut person =
            chat.enter(Person::at(&chat.url, &format!("10.0.0.{number}")), &format!("maker{number}"));
        for room in 0..26 {
            let made = person.good("POST", "/rooms", &json!({"name": format!("den {room}"), "open": false}));
            let path = format!("/rooms/{}/invite", made["id"].as_str().expect("an id"));
            told.push(person.call("POST", &path, &json!({"name": "bob"})));
        }
    }
    let (good, bad): (Vec<_>, Vec<_>) = told.iter().partition(|(status, _)| *status == 200);
    assert_eq!((good.len(), bad.len()), (50, 2));
    assert!(
        bad.iter().all(|(status, told)| *status == 409 && told["error"]["code"] == "too_many_invitations")
    );
    assert_eq!(bob.get("/me")["rooms"].as_array().expect("a list").len(), 51);
}
