//! Tokens at the server's door: every way to show one, what is wrong with it, and what it allows.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;
use fantail::wire::frame::Opcode;
use serde_json::{Value, json};

use crate::client::{Answer, Peer, assert_upgraded};
use crate::reload::ConfigFile;
use crate::server::{Server, command, fails, on_free_ports, undisturbed, wait_for};
use crate::token_table::{Way, show};

pub(crate) const SECRET: &str = "0123456789abcdef0123456789abcdef";
pub(crate) const OTHER: &str = "fedcba9876543210fedcba9876543210";
const JSON: &str = "Sec-WebSocket-Protocol: fantail.json.v1\r\n";

/// Topics that nobody may subscribe to, those whose tokens list them, and everybody.
pub(crate) const RULES: &str = r#"
[[topic]]
pattern = "staff/*"
subscribe = "nobody"

[[topic]]
pattern = "listed/*"
subscribe = "claim"

[[topic]]
pattern = "open/*"
subscribe = "anyone"

"#;

/// A file with a secret that goes with its test.
pub(crate) struct Secret(PathBuf);

impl Secret {
    pub(crate) fn new(text: &str) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("bearer-secret-{}-{number}", std::process::id());
        let secret = Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
        fs::write(&secret.0, text).expect("a file");
        fs::set_permissions(&secret.0, fs::Permissions::from_mode(0o600)).expect("a mode");
        secret
    }

    pub(crate) fn issuer(&self, more: &str) -> String {
        format!("[[auth.issuer]]\nhmac_file = {:?}\n{more}\n", self.0)
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

pub(crate) fn signed(secret: &str, header: &str, claims: &str) -> String {
    let base64 = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
    let message = format!("{}.{}", base64(header), base64(claims));
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let signature = BASE64URL_NOPAD.encode(hmac::sign(&key, message.as_bytes()).as_ref());
    format!("{message}.{signature}")
}

pub(crate) fn good(claims: &str) -> String {
    signed(SECRET, r#"{"alg":"HS256"}"#, claims)
}

/// A token of `sub` that is good for four minutes, with `more` claims.
pub(crate) fn token(sub: &str, more: &str) -> String {
    good(&format!(r#"{{"sub":"{sub}","exp":{}{more}}}"#, now() + 240))
}

pub(crate) fn start(config: &ConfigFile) -> Server {
    Server::spawn(on_free_ports(&["--config", config.path(), "--loops", "2", "--log-level", "debug"], &[]))
}

pub(crate) fn ask(server: &Server, path: &str, fields: &str) -> Answer {
    let mut peer = server.connect();
    if path.starts_with("/ws") {
        return peer.ask_upgrade(path, fields);
    }
    peer.send(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", server.listen).as_bytes());
    if path.starts_with("/sse") {
        // Its body does not end.
        let head = String::from_utf8(peer.some()).expect("a head");
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
        return Answer { status, head, body: Vec::new() };
    }
    peer.answer()
}

#[test]
fn without_a_token_and_with_two() {
    let secret = Secret::new(SECRET);
    let open = "[[topic]]\npattern = \"open\"\nsubscribe = \"anyone\"\n";
    let config = ConfigFile::new(&format!("{}{open}", secret.issuer("")));
    let server = start(&config);
    for path in ["/ws/a", "/sse/a", "/poll/a", "/ws/open?topic=a", "/ws/*"] {
        let answer = ask(&server, path, "");
        assert_eq!(answer.status, 401, "{path}");
        // RFC 6750, 3.1: no error for who has shown nothing.
        assert_eq!(answer.field("www-authenticate"), Some("Bearer realm=\"fantail\""), "{path}");
    }
    assert_eq!(server.metric("fantail_refusals_total", "token_missing"), 5);
    for (path, status) in [("/ws/open", 101), ("/sse/open", 200), ("/poll/open?wait=0", 204)] {
        assert_eq!(ask(&server, path, "").status, status, "{path}");
        // Who shows one that is not good is told so, whether it needs one or not.
        assert_eq!(show(&server, path, Way::Field, "a.b.c").status, 401, "{path}");
    }
    let good = token("alice", "");
    let twice = format!("Authorization: Bearer {good}\r\nSec-WebSocket-Protocol: fantail.token.{good}\r\n");
    let answer = ask(&server, "/ws/a", &twice);
    assert_eq!(answer.status, 400);
    assert!(answer.field("www-authenticate").expect("a challenge").contains("error=\"invalid_request\""));
    // In the URL only where that is allowed; a cookie only of a page that is trusted by name.
    assert_eq!(show(&server, "/ws/a", Way::Query, &good).status, 400);
    assert_eq!(ask(&server, "/ws/a", &format!("Cookie: fantail_token={good}\r\n")).status, 401);
    let foreign = format!("Origin: https://page.example\r\nCookie: fantail_token={good}\r\n");
    assert_eq!(ask(&server, "/poll/a", &foreign).status, 403);
}

#[test]
fn cookies_of_pages_that_only_a_star_lets_in_do_not_count() {
    let secret = Secret::new(SECRET);
    let config = ConfigFile::new(&format!(
        "[origin]\nallowed = [\"*\", \"https://named.example\"]\n{}",
        secret.issuer("")
    ));
    let server = start(&config);
    let cookie =
        |origin: &str| format!("Origin: {origin}\r\nCookie: fantail_token={}\r\n", token("alice", ""));
    for (path, status) in [("/ws/a", 101), ("/sse/a", 200), ("/poll/a?wait=0", 204)] {
        assert_eq!(ask(&server, path, &cookie("https://named.example")).status, status, "{path}");
        assert_eq!(ask(&server, path, &cookie("https://page.example")).status, 401, "{path}");
        assert_eq!(ask(&server, path, &cookie("null")).status, 401, "{path}");
    }
}

pub(crate) fn speaker(server: &Server, fields: &str) -> Peer {
    let mut peer = server.connect();
    assert_upgraded(&peer.ask_upgrade("/ws", &format!("{JSON}{fields}")));
    peer
}

#[test]
fn json_is_told_what_its_token_does_not_allow_and_goes_on() {
    let secret = Secret::new(SECRET);
    let open = "[[topic]]\npattern = \"open\"\nsubscribe = \"anyone\"\npublish = \"anyone\"\n";
    let config = ConfigFile::new(&format!("{}{open}", secret.issuer("")));
    let server = start(&config);
    let claims = r#","subscribe":["chat/*"],"publish":["chat/a"]"#;
    let mut alice = speaker(&server, &format!("Authorization: Bearer {}\r\n", token("alice", claims)));
    let mut stranger = speaker(&server, "");
    for (wish, of_alice, of_stranger) in [
        (json!({"type": "subscribe", "topic": "open"}), "subscribed", "subscribed"),
        (json!({"type": "publish", "id": 1, "topic": "open", "data": "x"}), "published", "published"),
        (json!({"type": "subscribe", "topic": "chat/a"}), "subscribed", "unauthorized"),
        (json!({"type": "subscribe", "topic": "chat/*"}), "subscribed", "unauthorized"),
        (json!({"type": "subscribe", "topic": "chat/a/b"}), "not_allowed", "unauthorized"),
        (json!({"type": "subscribe", "topic": "users/*"}), "not_allowed", "unauthorized"),
        (json!({"type": "history", "topic": "chat/a"}), "history", "unauthorized"),
        (json!({"type": "history", "topic": "users/bob"}), "not_allowed", "unauthorized"),
        (json!({"type": "publish", "topic": "chat/b", "data": "x"}), "not_allowed", "unauthorized"),
        (json!({"type": "publish", "topic": "lobby", "data": "x"}), "not_allowed", "unauthorized"),
        (json!({"type": "ping"}), "pong", "pong"),
    ] {
        for (peer, expected) in [(&mut alice, of_alice), (&mut stranger, of_stranger)] {
            peer.send_frame(Opcode::Text, wish.to_string().as_bytes());
            // What is published in between comes, too.
            let told = loop {
                let told: Value = serde_json::from_str(&peer.text()).expect("JSON");
                if told["type"] != "message" {
                    break told;
                }
            };
            let told = if told["type"] == "error" { &told["code"] } else { &told["type"] };
            assert_eq!(told, expected, "{wish}");
        }
    }
    let mut plain = server.connect();
    let only_read = token("bob", r#","publish":[]"#);
    assert_upgraded(&plain.ask_upgrade("/ws/lobby", &format!("Authorization: Bearer {only_read}\r\n")));
    plain.send_frame(Opcode::Text, b"not heard");
    plain.ping_pong();
    assert_eq!(server.metric("fantail_publishes_ignored_total", ""), 1);
    let mut plain = server.connect();
    assert_upgraded(
        &plain.ask_upgrade("/ws/lobby", &format!("Authorization: Bearer {}\r\n", token("eve", ""))),
    );
    plain.send_frame(Opcode::Text, b"heard");
    assert_eq!(plain.text(), "heard");
}

#[test]
fn issuers_that_do_not_fit_are_named_with_their_line() {
    let secret = Secret::new(SECRET);
    let short = Secret::new("0123456789");
    let file = |secret: &Secret| format!("hmac_file = {:?}\n", secret.0);
    let fetched = |addresses: usize| {
        let issuer =
            |of: usize| format!("[[auth.issuer]]\nissuer = \"{of}\"\njwks_url = \"https://{of}.example/\"\n");
        (0..addresses).map(issuer).collect::<String>()
    };
    for (text, expected) in [
        ("[[auth.issuer]]\n".to_owned(), ":1: auth.issuer.hmac_file: expects keys"),
        ("[auth.issuer]\nissuer = \"a\"\n".to_owned(), ":1: auth.issuer: issuers are tables of a list"),
        (
            "[[auth.issuer]]\nhmac_file = \"/nonexistent/x\"\n".to_owned(),
            ":2: auth.issuer.hmac_file: /nonexistent/x: cannot",
        ),
        (format!("[[auth.issuer]]\nissuer = \"a\"\n{}", file(&short)), ":3: auth.issuer.hmac_file: "),
        (
            format!("[[auth.issuer]]\n{}jwks_flie = \"x\"\n", file(&secret)),
            ":3: auth.issuer.jwks_flie: unknown key; did you mean jwks_file?",
        ),
        (
            format!("[[auth.issuer]]\n{0}[[auth.issuer]]\n{0}", file(&secret)),
            "auth.issuer.issuer: expects a name, because there are other",
        ),
        (
            format!(
                "[[auth.issuer]]\nissuer = \"a\"\n{0}[[auth.issuer]]\nissuer = \"a\"\n{0}",
                file(&secret)
            ),
            ":5: auth.issuer.issuer: expects a name of its own",
        ),
        (
            format!("[[auth.issuer]]\nkid = \"a\"\n{}pem_file = \"x\"\n", file(&secret)),
            ":2: auth.issuer.kid: expects either",
        ),
        (
            format!("[[auth.issuer]]\nleeway_seconds = 301\n{}", file(&secret)),
            ":2: auth.issuer.leeway_seconds: expects 0 to 300",
        ),
        (
            "[[topic]]\npattern = \"a\"\nsubscribe = \"claim\"\n".to_owned(),
            ":3: topic.subscribe: claim is about tokens",
        ),
        (
            "[[auth.issuer]]\njwks_url = \"http://login.example/keys\"\n".to_owned(),
            ":2: auth.issuer.jwks_url: expects https://, or http:// of this machine",
        ),
        (
            format!("[[auth.issuer]]\njwks_url = \"https://login.example/keys\"\n{}", file(&secret)),
            ":2: auth.issuer.jwks_url: expects no files of keys beside it",
        ),
        (
            format!("[[auth.issuer]]\n{}jwks_ca_file = \"x\"\n", file(&secret)),
            ":3: auth.issuer.jwks_ca_file: expects jwks_url",
        ),
        (
            "[[auth.issuer]]\njwks_url = \"https://a.example/\"\njwks_ca_file = \"/nonexistent/ca\"\n"
                .to_owned(),
            ":3: auth.issuer.jwks_ca_file: /nonexistent/ca: cannot be read",
        ),
        ("[[auth.isuser]]\n".to_owned(), "auth.isuser: unknown key"),
        (fetched(17), ":51: auth.issuer.jwks_url: is one more than the 16 different ones"),
    ] {
        let config = ConfigFile::new(&text);
        let (code, said) = fails(on_free_ports(&["--config", config.path()], &[]));
        assert!(code == Some(2) && said.contains(expected), "{expected}: {said}");
        assert!(!said.contains("0123456789"), "{said}");
    }
    let config = ConfigFile::new(&fetched(16));
    assert!(command(&["check-config", "--config", config.path()], &[]).status().expect("it runs").success());
    let (code, said) = fails(on_free_ports(&[], &[("FANTAIL_AUTH_ISSUER", "a")]));
    assert!(code == Some(2) && said.contains("issuers are only in the file"), "{said}");
}

/// A pipe says nothing until somebody writes to it, and holds up whoever reads it until then.
#[test]
fn a_pipe_in_place_of_a_file_is_refused_at_once() {
    let pipe = Secret(std::env::temp_dir().join(format!("fantail-pipe-{}.json", std::process::id())));
    assert!(Command::new("mkfifo").arg(&pipe.0).status().expect("coreutils").success());
    let fetched = "[[auth.issuer]]\njwks_url = \"https://a.example/\"\n";
    let webhook = "[webhook]\nurl = \"https://a.example/\"\n";
    let tls = "[tls]\nlisten = \"127.0.0.1:0\"\n";
    for (text, key) in [
        ("[[auth.issuer]]\n", "hmac_file"),
        ("[[auth.issuer]]\n", "pem_file"),
        ("[[auth.issuer]]\n", "jwks_file"),
        (fetched, "jwks_ca_file"),
        ("[auth]\nbackend_url = \"https://a.example/\"\n", "backend_ca"),
        ("[[topic]]\npattern = \"a\"\n", "validate"),
        ("[admin]\n", "keys_file"),
        (webhook, "secret_file"),
        (tls, "certificate"),
    ] {
        let config = ConfigFile::new(&format!("{text}{key} = {:?}\n", pipe.0));
        let (code, said) = fails(command(&["check-config", "--config", config.path()], &[]));
        assert!(code == Some(2) && said.contains("it is a pipe or a device, and no file"), "{key}: {said}");
    }
}

#[test]
fn a_reload_takes_a_new_secret_with_the_one_before_and_then_without() {
    let (secret, next) = (Secret::new(SECRET), Secret::new(OTHER));
    let config = ConfigFile::new(&secret.issuer(""));
    let server = start(&config);
    let of = |secret: &str| {
        signed(secret, r#"{"alg":"HS256"}"#, &format!(r#"{{"sub":"a","exp":{}}}"#, now() + 60))
    };
    let statuses = || [SECRET, OTHER].map(|secret| show(&server, "/ws/a", Way::Field, &of(secret)).status);
    assert_eq!(statuses(), [101, 401]);
    let reload = |text: &str| {
        config.write(text);
        server.signal("HUP");
    };
    reload(&next.issuer(&format!("hmac_file_previous = {:?}", secret.0)));
    wait_for("the new secret", || statuses() == [101, 101]);
    reload(&next.issuer(""));
    wait_for("the old one to be forgotten", || statuses() == [401, 101]);
    // A file that does not fit changes nothing.
    config.write("[[auth.issuer]]\nhmac_file = \"/nonexistent/x\"\n");
    server.signal("HUP");
    server.await_log("/nonexistent/x");
    assert_eq!(statuses(), [401, 101]);
    // Without issuers nobody needs a token, and what looks like one is nobody's business.
    reload("");
    wait_for("no issuers", || statuses() == [101, 101]);
}

/// A server on which tokens end to the second.
fn start_strict(secret: &Secret, config: &ConfigFile) -> Server {
    let auth = "[auth]\ngrace_seconds = 0\n";
    config.write(&format!("{auth}{}", secret.issuer("leeway_seconds = 0")));
    start(config)
}

/// One connection of each kind with a token that ends at `ends`, the first of them with a longer one since; `None` if all that
/// took longer than the token is good.
fn open_until(server: &Server, ends: u64) -> Option<[Peer; 5]> {
    let field = format!("Authorization: Bearer {}\r\n", good(&format!(r#"{{"sub":"alice","exp":{ends}}}"#)));
    let json = format!("{JSON}{field}");
    let in_time = |good: bool, what: &str| {
        assert!(good || now() >= ends, "{what}");
        good.then_some(())
    };
    let mut peers: [Peer; 5] = std::array::from_fn(|_| server.connect());
    for (peer, (path, fields)) in peers.iter_mut().zip([("/ws", &json), ("/ws", &json), ("/ws/a", &field)]) {
        in_time(peer.ask_upgrade(path, fields).status == 101, path)?;
    }
    for (peer, path) in peers.iter_mut().skip(3).zip(["/sse/a", "/poll/a?wait=60"]) {
        peer.send(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{field}\r\n", server.listen).as_bytes());
    }
    while server.metric("fantail_subscriptions", "") < 3 {
        in_time(now() < ends, "a stream and a poll")?;
    }
    let told = peers[0].frame();
    let notice = json!({"type": "expires", "expires": ends}).to_string();
    in_time(told.opcode == Opcode::Text && told.payload == notice.as_bytes(), "a notice")?;
    let longer = json!({"type": "refresh", "id": 1, "token": token("alice", "")});
    peers[0].send_frame(Opcode::Text, longer.to_string().as_bytes());
    let told = peers[0].frame();
    in_time(told.opcode == Opcode::Text, "an answer")?;
    let told: Value = serde_json::from_slice(&told.payload).expect("JSON");
    assert_eq!((&told["type"], &told["sub"], &told["id"]), (&json!("refreshed"), &json!("alice"), &json!(1)));
    assert!(told["expires"].as_u64().expect("a time") > ends + 100, "{told}");
    Some(peers)
}

#[test]
fn a_connection_ends_with_its_token_and_a_refreshed_one_does_not() {
    let (secret, config) = (Secret::new(SECRET), ConfigFile::new(""));
    let server = start_strict(&secret, &config);
    let (ends, [mut refreshed, json, plain, mut stream, mut poll]) =
        undisturbed("a token of two seconds", || {
            let ends = now() + 2;
            Some((ends, open_until(&server, ends)?))
        });
    assert_eq!(poll.answer().status, 204);
    let stream = String::from_utf8(stream.rest()).expect("text");
    assert!(stream.starts_with("HTTP/1.1 200") && stream.contains(": the token has expired"), "{stream}");
    for mut peer in [json, plain] {
        let last = std::iter::from_fn(|| peer.next_frame()).find(|frame| frame.opcode != Opcode::Text);
        assert_eq!(last.and_then(|frame| frame.close_code()), Some(3005));
    }
    assert!(now() >= ends, "not before its end");
    let again = good(&format!(r#"{{"sub":"alice","exp":{ends}}}"#));
    for path in ["/ws/a", "/sse/a", "/poll/a"] {
        assert_eq!(show(&server, path, Way::Field, &again).status, 401, "the same token is told once");
    }
    refreshed.ping_pong();
    server.await_metric("fantail_closes_total", "token_expired", |ended| ended >= 1);
}

#[test]
fn a_json_connection_shows_its_token_in_a_message() {
    let secret = Secret::new(SECRET);
    let config = ConfigFile::new(&secret.issuer(""));
    let server = start(&config);
    let mut peer = speaker(&server, "");
    let mut ask = |command: Value| {
        peer.send_frame(Opcode::Text, command.to_string().as_bytes());
        let told: Value = serde_json::from_str(&peer.text()).expect("JSON");
        (
            told["type"].as_str().unwrap_or_default().to_owned(),
            told["code"].as_str().unwrap_or_default().to_owned(),
        )
    };
    let show = |kind: &str, token: String| json!({"type": kind, "id": "t", "token": token});
    let error = |code: &str| ("error".to_owned(), code.to_owned());
    let told = |kind: &str| (kind.to_owned(), String::new());
    let subscribe = json!({"type": "subscribe", "topic": "chat/a"});
    let only_chat = token("alice", r#","subscribe":["chat/*"]"#);
    let expired = good(&format!(r#"{{"sub":"alice","exp":{}}}"#, now() - 60));
    assert_eq!(ask(subscribe.clone()), error("unauthorized"));
    assert_eq!(ask(show("refresh", only_chat.clone())), error("not_allowed"), "there is none");
    assert_eq!(ask(show("authenticate", "a.b.c".to_owned())), error("token_invalid"));
    assert_eq!(ask(show("authenticate", expired.clone())), error("token_expired"));
    assert_eq!(ask(json!({"type": "authenticate", "token": 5})), error("bad_command"));
    assert_eq!(ask(subscribe.clone()), error("unauthorized"), "what was refused left nothing behind");
    assert_eq!(ask(show("authenticate", only_chat)), told("authenticated"));
    assert_eq!(ask(subscribe), told("subscribed"));
    assert_eq!(ask(json!({"type": "subscribe", "topic": "users/alice"})), error("not_allowed"));
    assert_eq!(ask(show("authenticate", token("bob", ""))), error("not_allowed"), "it is alice's");
    assert_eq!(ask(show("refresh", token("bob", ""))), error("not_allowed"));
    assert_eq!(ask(show("refresh", expired)), error("token_expired"));
    assert_eq!(ask(show("refresh", token("alice", ""))), told("refreshed"));
    assert_eq!(ask(json!({"type": "subscribe", "topic": "users/alice"})), told("subscribed"));
    // Many at once are told to wait, or that they are not good, and nobody is held up.
    let flood = json!({"type": "refresh", "token": "a.b.c"}).to_string();
    for _ in 0..40 {
        peer.send_frame(Opcode::Text, flood.as_bytes());
    }
    for _ in 0..40 {
        let told: Value = serde_json::from_str(&peer.text()).expect("JSON");
        assert!(told["code"] == "busy" || told["code"] == "token_invalid", "{told}");
    }
    peer.ping_pong();
}

#[test]
fn who_shows_tokens_that_are_not_taken_again_and_again_is_sent_away() {
    const MOST: usize = 3;
    let secret = Secret::new(SECRET);
    let config = ConfigFile::new(&format!("[limits]\nbad_commands_max = {MOST}\n{}", secret.issuer("")));
    let server = start(&config);
    for (attack, code) in [
        ("a.b.c".to_owned(), "token_invalid"),
        (good(&format!(r#"{{"sub":"alice","exp":{}}}"#, now() - 60)), "token_expired"),
        (token("bob", ""), "not_allowed"),
    ] {
        let mut peer = speaker(&server, &format!("Authorization: Bearer {}\r\n", token("alice", "")));
        for _ in 0..MOST {
            peer.send_frame(Opcode::Text, json!({"type": "refresh", "token": attack}).to_string().as_bytes());
            assert_eq!(serde_json::from_str::<Value>(&peer.text()).expect("JSON")["code"], code);
        }
        // What needs no check costs nobody one.
        peer.send_frame(
            Opcode::Text,
            json!({"type": "authenticate", "token": attack}).to_string().as_bytes(),
        );
        assert_eq!(serde_json::from_str::<Value>(&peer.text()).expect("JSON")["code"], "not_allowed");
        peer.send_frame(Opcode::Text, json!({"type": "refresh", "token": attack}).to_string().as_bytes());
        peer.text();
        assert_eq!(peer.frame().close_code(), Some(1008), "{code}");
    }
}

#[test]
fn who_refreshes_with_a_short_token_is_not_told_at_once_to_do_so_again() {
    let secret = Secret::new(SECRET);
    let config = ConfigFile::new(&format!("[auth]\nnotice_seconds = 3600\n{}", secret.issuer("")));
    let server = Server::spawn(on_free_ports(&["--config", config.path(), "--loops", "1"], &[]));
    let field = format!("Authorization: Bearer {}\r\n", token("alice", ""));
    let mut peer = speaker(&server, &field);
    let kind = |peer: &mut Peer| serde_json::from_str::<Value>(&peer.text()).expect("JSON")["type"].clone();
    assert_eq!(kind(&mut peer), "expires", "it comes with less than the notice");
    let refresh = json!({"type": "refresh", "token": token("alice", "")}).to_string();
    peer.send_frame(Opcode::Text, refresh.as_bytes());
    assert_eq!(kind(&mut peer), "refreshed");
    // By the time that somebody is told who has come since, it would have been told again.
    let mut other = speaker(&server, &field);
    assert_eq!(kind(&mut other), "expires");
    peer.send_frame(Opcode::Text, br#"{"type":"ping"}"#);
    assert_eq!(kind(&mut peer), "pong");
}

#[test]
fn a_server_without_issuers_takes_no_tokens() {
    let server = Server::start(&[], &[]);
    let mut peer = speaker(&server, &format!("Authorization: Bearer {}\r\n", token("alice", "")));
    peer.send_frame(Opcode::Text, br#"{"type":"authenticate","token":"a.b.c"}"#);
    let told: Value = serde_json::from_str(&peer.text()).expect("JSON");
    assert_eq!(told["code"], "not_allowed");
    peer.ping_pong();
}

#[test]
fn connect_shows_the_token_of_a_file() {
    let secret = Secret::new(SECRET);
    let config = ConfigFile::new(&secret.issuer(""));
    let server = start(&config);
    let url = format!("ws://{}/ws/a", server.listen);
    let file = Secret::new(&format!("{}\n", token("alice", "")));
    let name = file.0.to_str().expect("UTF-8");
    // The first message says that it is subscribed.
    let arguments = ["connect", "--listen", "--count", "1", "-s", "fantail.json.v1", &url];
    let with = command(&[&arguments[..], &["--token-file", name]].concat(), &[]).output().expect("it runs");
    assert!(with.status.success(), "{}", String::from_utf8_lossy(&with.stderr));
    let (code, said) = fails(command(&arguments, &[]));
    assert!(code == Some(1) && said.contains("401"), "{said}");
    let two = Secret::new("a b");
    let name = two.0.to_str().expect("UTF-8");
    let (code, said) = fails(command(&[&arguments[..], &["--token-file", name]].concat(), &[]));
    assert!(code == Some(2) && said.contains("expects one token") && !said.contains("a b"), "{said}");
}

#[test]
fn a_revoked_token_ends_its_connections_and_is_not_taken_again() {
    let secret = Secret::new(SECRET);
    let config = ConfigFile::new(&secret.issuer(""));
    let server = start(&config);
    let issued = |sub: &str, jti: &str, at: u64| token(sub, &format!(r#","jti":"{jti}","iat":{at}"#));
    let before = now() - 10;
    let tokens = [issued("alice", "1", before), issued("alice", "2", before), issued("bob", "3", before)];
    let mut peers: Vec<Peer> = Vec::new();
    for token in &tokens {
        let mut peer = server.connect();
        assert_upgraded(&peer.ask_upgrade("/ws/a", &format!("Authorization: Bearer {token}\r\n")));
        peers.push(peer);
    }
    let mut poll = server.connect();
    poll.send(
        format!(
            "GET /poll/a HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {}\r\n\r\n",
            server.listen, tokens[1]
        )
        .as_bytes(),
    );
    server.await_metric("fantail_subscriptions", "", |count| count == 4);
    let listed = server.get("/connections?identity=alice").json();
    let rows = listed["connections"].as_array().expect("a list");
    assert!(rows.iter().all(|row| row["identity"] == "alice"), "{listed}");
    let statuses = || tokens.each_ref().map(|token| show(&server, "/ws/a", Way::Field, token).status);
    let revoke = |what: &str| server.post(&format!("/revoke?{what}"), "", b"");
    assert_eq!(revoke("jti=1").json(), json!({"closed": 1}));
    assert_eq!(peers[0].frame().close_code(), Some(3003));
    assert_eq!(show(&server, "/ws/a", Way::Field, &tokens[0]).status, 401);
    assert_eq!(server.metric("fantail_refusals_total", "token_revoked"), 1);
    assert_eq!(revoke("identity=alice&seconds=60").json(), json!({"closed": 2}));
    assert_eq!(peers[1].frame().close_code(), Some(3003));
    assert_eq!(poll.answer().status, 204);
    assert_eq!(statuses(), [401, 401, 101]);
    assert_eq!(server.metric("fantail_revocations", ""), 2);
    // Another token that was issued since is good, and so is everybody else's.
    let since = issued("alice", "4", now() + 5);
    assert_eq!(show(&server, "/ws/a", Way::Field, &since).status, 101);
    peers[2].ping_pong();
    let mut speaker = speaker(&server, "");
    let shown = json!({"type": "authenticate", "token": tokens[1]});
    speaker.send_frame(Opcode::Text, shown.to_string().as_bytes());
    let told: Value = serde_json::from_str(&speaker.text()).expect("JSON");
    assert_eq!(told["code"], "token_invalid");
    for wrong in ["", "identity=", "identity=a&jti=1", "jti=1&seconds=0", "sub=alice"] {
        assert_eq!(revoke(wrong).status, 400, "{wrong}");
    }
}
