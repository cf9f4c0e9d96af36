//! Keys of an issuer that are fetched: before they are there, when they are, and across a reload.

use std::io::Write;
use std::sync::Mutex;
use std::sync::mpsc;

use fantail::wire::frame::Opcode;
use serde_json::{Value, json};

use crate::client::{Peer, assert_upgraded};
use crate::kit::{Server as Login, ok};
use crate::reload::ConfigFile;
use crate::server::{PATIENCE, Server, on_free_ports, wait_for};

const KEYS: &str = include_str!("../fixtures/tokens/keys.json");

/// A token that OpenSSL has signed, good until 2100, by its algorithm.
fn token(algorithm: &str) -> &'static str {
    let lines = include_str!("../fixtures/tokens/tokens.txt").lines();
    let mut tokens = lines.filter_map(|line| line.split_once(' '));
    tokens.find(|(name, _)| *name == algorithm).expect("a token").1
}

fn open(server: &Server, path: &str, fields: &str) -> (u16, String) {
    let mut peer = server.connect();
    peer.send(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", server.listen).as_bytes());
    let head = String::from_utf8(peer.some()).expect("a head");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, head)
}

fn bearer(algorithm: &str) -> String {
    format!("Authorization: Bearer {}\r\n", token(algorithm))
}

fn authenticate(peer: &mut Peer, algorithm: &str) -> Value {
    let shown = json!({"type": "authenticate", "token": token(algorithm)});
    peer.send_frame(Opcode::Text, shown.to_string().as_bytes());
    serde_json::from_str(&peer.text()).expect("JSON")
}

#[test]
fn tokens_are_good_once_the_keys_of_their_issuer_are_there() {
    let (go, gone) = mpsc::channel::<()>();
    let gone = Mutex::new(gone);
    // One key is left out, which no fetch of this test brings.
    let mut keys: Value = serde_json::from_str(KEYS).expect("JSON");
    let all = keys["keys"].as_array_mut().expect("a list");
    all.retain(|key| key["crv"] != "P-384");
    let (count, keys) = (all.len() as u64, keys.to_string());
    let login = Login::start(move |_, stream| {
        let _ = gone.lock().expect("a lock").recv_timeout(PATIENCE);
        stream.write_all(&ok(&keys)).is_ok()
    });
    let issuer = |more: &str| format!("[[auth.issuer]]\njwks_url = {:?}\n{more}", login.url());
    let rule = "[[topic]]\npattern = \"open\"\nsubscribe = \"anyone\"\n";
    let config = ConfigFile::new(&issuer(rule));
    let server = Server::spawn(on_free_ports(&["--config", config.path(), "--loops", "2"], &[]));
    let ready = || server.get("/readyz").text();
    assert_eq!((server.get("/readyz").status, ready().trim()), (503, "without keys"));
    // Who needs no token is served, who shows one is to come again.
    assert_eq!(open(&server, "/poll/open?wait=0", "").0, 204);
    let (status, head) = open(&server, "/poll/a?wait=0", &bearer("RS256"));
    assert!(status == 503 && head.to_ascii_lowercase().contains("retry-after: "), "{head}");
    let (status, head) = open(&server, "/sse/a", &(bearer("ES256") + "Accept: text/event-stream\r\n"));
    assert!(status == 200 && head.contains("text/event-stream"), "{head}");
    let mut peer = server.connect();
    assert_upgraded(&peer.ask_upgrade("/ws", "Sec-WebSocket-Protocol: fantail.json.v1\r\n"));
    assert_eq!(authenticate(&mut peer, "EdDSA")["code"], "busy");
    assert_eq!(server.metric("fantail_refusals_total", "token_key_awaited"), 2);
    assert_eq!(server.metric("fantail_jwks_keys", &login.url()), 0);
    // Whatever is asked now is answered.
    drop(go);
    wait_for("its keys are there", || ready().trim() == "ready");
    assert_eq!(open(&server, "/poll/a?wait=0", &bearer("RS256")).0, 204);
    assert_eq!(open(&server, "/poll/a?wait=0", &bearer("ES256")).0, 204);
    assert_eq!(authenticate(&mut peer, "EdDSA")["type"], "authenticated");
    wait_for("it is known that there is no such key", || {
        let (status, head) = open(&server, "/poll/a?wait=0", &bearer("ES384"));
        status == 401 && head.contains("invalid_token")
    });
    assert_eq!(server.metric("fantail_jwks_keys", &login.url()), count);
    // A reload keeps what was fetched.
    let fetched = server.metric("fantail_jwks_fetches_total", "changed");
    config.write(&issuer(&format!("leeway_seconds = 10\n{rule}")));
    server.signal("HUP");
    server.await_metric("fantail_config_reloads_total", "applied", |count| count == 1);
    assert_eq!(open(&server, "/poll/a?wait=0", &bearer("RS256")).0, 204);
    assert_eq!((fetched, server.metric("fantail_jwks_fetches_total", "changed")), (1, 1));
    // One that comes by a reload keeps nobody away, though nobody listens there.
    config.write("[[auth.issuer]]\njwks_url = \"http://127.0.0.1:1/keys\"\n");
    server.signal("HUP");
    server.await_metric("fantail_config_reloads_total", "applied", |count| count == 2);
    wait_for("the loops have it", || open(&server, "/poll/a?wait=0", &bearer("RS256")).0 == 503);
    assert_eq!(server.get("/readyz").status, 200);
    // What nobody names any more is forgotten, once every loop has taken the settings.
    server.await_metric("fantail_jwks_keys", &login.url(), |count| count == 0);
}
