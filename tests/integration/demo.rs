//! The live dashboard and its publisher: there with `--demo`, and nothing of either without.

use crate::client::Answer;
use crate::server::{Server, wait_for};

fn ask(server: &Server, method: &str, target: &str) -> Answer {
    let mut peer = server.connect();
    peer.send(format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes());
    peer.answer_to(method == "HEAD")
}

#[test]
fn without_the_switch_there_is_nothing_of_it() {
    let server = Server::start(&["--loops", "1"], &[]);
    let mut peer = server.websocket("/ws/demo%2Fprices%2FOIL");
    assert_eq!(ask(&server, "GET", "/demo").status, 404);
    let mut other = server.websocket("/ws/other");
    server.publish("other", b"a turn later");
    assert_eq!(other.text(), "a turn later");
    peer.ping_pong();
    let topics = server.get("/topics?prefix=demo/").json();
    assert_eq!(topics["topics"].as_array().map(Vec::len), Some(1), "only what a client asked for: {topics}");
    assert_eq!(topics["topics"][0]["messages"], 0);
}

#[test]
fn with_the_switch_it_publishes_and_shows() {
    let server = Server::start(&["--loops", "2", "--demo"], &[]);
    let page = ask(&server, "GET", "/demo");
    assert_eq!(page.status, 200);
    assert!(
        page.field("content-security-policy").is_some_and(|policy| policy.contains("default-src 'none'"))
    );
    let page = page.text();
    assert!(page.starts_with("<!doctype html>") && page.ends_with("</html>\n"));
    for part in ["src=", "<link", "@import", "url("] {
        assert!(!page.contains(part), "{part}");
    }
    assert_eq!(ask(&server, "HEAD", "/demo").status, 200);
    assert_eq!(ask(&server, "POST", "/demo").status, 405);
    assert_eq!(ask(&server, "GET", "/demo?topic=a").status, 400);
    wait_for("every topic to move", || {
        let topics = server.get("/topics?prefix=demo/").json();
        let topics = topics["topics"].as_array().expect("an array").clone();
        topics.len() == 12 && topics.iter().all(|topic| topic["messages"].as_u64() > Some(1))
    });
    let mut peer = server.websocket("/ws/demo%2Fprices%2FEUR-USD");
    for _ in 0..3 {
        let value: serde_json::Value = serde_json::from_str(&peer.text()).expect("JSON");
        assert!(value["value"].is_number(), "{value}");
    }
}
