//! Nobody is shown a secret: whatever is logged at the lowest level, answered, listed or printed while every way to give one is
//! used, rightly and wrongly.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use fantail::wire::frame::Opcode;
use serde_json::json;

use crate::bearers::{SECRET, Secret, token};
use crate::client::Peer;
use crate::kit::{Server as Application, answered, ok};
use crate::reload::ConfigFile;
use crate::secure::usual;
use crate::server::{Server, command, on_free_ports, wait_for};

const JSON: &str = "Sec-WebSocket-Protocol: fantail.json.v1";
const OPERATOR: &str = "operator-7f3a9c51d2";
const READER: &str = "reader-0b6e44f8aa13";
const WRONG: &str = "guessed-99e1d07c55b2";
const SIGNING: &str = "signing-3c1f8e6a90d74b25-77aa01fc";
const COOKIE: &str = "cookie-5d2e7b1a4c9f";
const DATA: &str = "data-e81b60f37a2c";
const URL: &str = "url-6a0d94c2be17";
const ORDER: &str = "order-c47e02b9d1f5";
const KEYS: &str = include_str!("../fixtures/tokens/keys.json");

/// A request, and its answer as text; whose body does not end, with what of it has come.
fn ask(server: &Server, path: &str, fields: &str) -> (Peer, u16, String) {
    let mut peer = server.connect();
    let answer = if path.starts_with("/ws") {
        peer.ask_upgrade(path, fields)
    } else {
        peer.send(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n{fields}\r\n", server.listen).as_bytes());
        if path.starts_with("/sse") {
            let text = String::from_utf8(peer.some()).expect("text");
            return (peer, 200, text);
        }
        peer.answer()
    };
    let text = format!("{}\n{}", answer.head, answer.text());
    (peer, answer.status, text)
}

fn ask_admin(server: &Server, request: &str, key: &str) -> String {
    let mut peer = server.connect_admin();
    let head = format!(
        "{request} HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer {key}\r\nContent-Length: 0\r\n\r\n",
        server.admin
    );
    peer.send(head.as_bytes());
    let answer = peer.answer();
    format!("{}\n{}", answer.head, answer.text())
}

/// A token, cut in the ways that tokens get cut, and with another signature.
fn spoiled(token: &str) -> Vec<String> {
    let (message, signature) = token.rsplit_once('.').expect("a signature");
    let turned: String = signature.chars().rev().collect();
    vec![
        message.to_owned(),
        format!("{message}.{turned}"),
        format!("{token}x"),
        token[1..].to_owned(),
        format!("{token}.{signature}"),
    ]
}

/// An application that lets in whoever has the cookie, gives its data, and fails for whoever has another one. It publishes keys at an
/// address that not everybody knows, has none at another one, and takes all orders but one.
fn application() -> Application {
    Application::start(|request, stream| {
        let of = |name: &str| request.contains(name);
        let is_at = |path: &str| request.lines().next().is_some_and(|line| line.contains(path));
        let answer = match () {
            () if is_at(&format!("/keys?key={URL}")) => ok(KEYS),
            () if is_at("/nokeys") => answered("500 No", DATA),
            () if is_at("/orders") && of("orders/wrong") => answered("400 No", DATA),
            () if is_at("/orders") => answered("204 Taken", ""),
            () if of("fails") => answered("500 No", &format!("{{\"why\":\"{DATA}\"}}")),
            () if of("lies") => ok(&format!("{{\"allow\":true,\"sub\":7,\"data\":\"{DATA}\"")),
            () if of(COOKIE) => ok(&json!({
                "allow": true, "sub": "carol", "subscribe": ["**"], "publish": ["**"], "data": { "of": DATA },
            })
            .to_string()),
            () => answered("401 Who", ""),
        };
        stream.write_all(&answer).is_ok()
    })
}

/// What is told of orders, of which the application takes one and not the other.
fn order(server: &Server) -> [String; 2] {
    let (mut peer, ..) = ask(server, "/ws", &format!("Cookie: session={COOKIE}\r\n{JSON}\r\n"));
    assert!(peer.text().contains(DATA));
    [("orders/right", "forwarded"), ("orders/wrong", "forward_failed")].map(|(topic, told)| {
        let said = json!({"type": "publish", "id": 1, "topic": topic, "data": {"of": ORDER}});
        peer.send_frame(Opcode::Text, said.to_string().as_bytes());
        let text = peer.text();
        assert!(text.contains(told), "{text}");
        text
    })
}

/// Shows every secret in every way; what was answered.
fn use_all(server: &Server) -> (Vec<String>, Vec<String>) {
    let good = token("alice", r#","iss":"own""#);
    let dead = token("alice", r#","iss":"own","nbf":99999999999"#);
    let mut tokens = vec![good.clone(), dead.clone()];
    tokens.extend(spoiled(&good));
    let (mut answers, mut kept) = (Vec::new(), Vec::new());
    for (nth, shown) in tokens.iter().enumerate() {
        for (path, fields) in [
            ("/ws/a".to_owned(), format!("Authorization: Bearer {shown}\r\n")),
            ("/ws/a".to_owned(), format!("Authorization: Bearer  {shown} \r\n")),
            ("/ws/a".to_owned(), format!("Authorization: Basic {shown}\r\n")),
            (
                "/ws/a".to_owned(),
                format!("Sec-WebSocket-Protocol: fantail.plain.v1, fantail.token.{shown}\r\n"),
            ),
            (
                "/ws/a".to_owned(),
                format!("Origin: https://page.example\r\nCookie: fantail_token={shown}\r\n"),
            ),
            (format!("/ws/a?token={shown}"), String::new()),
            (format!("/ws/a?tokken={shown}"), String::new()),
            (format!("/ws/a?token={shown}"), format!("Authorization: Bearer {shown}\r\n")),
            (format!("/sse/a?token={shown}"), String::new()),
            (format!("/poll/a?wait=0&token={shown}"), String::new()),
            (format!("/nowhere?token={shown}"), String::new()),
        ] {
            let (peer, _, text) = ask(server, &path, &fields);
            answers.push(text);
            kept.push(peer);
        }
        // In messages, as a command and as what is none.
        let known = format!("Cookie: session={COOKIE}-{nth}\r\n{JSON}\r\n");
        let (mut peer, status, _) = ask(server, "/ws", &known);
        assert_eq!(status, 101);
        // What the application gives for the client is told to that one.
        assert!(peer.text().contains(DATA));
        for said in [
            json!({"type": "authenticate", "id": 1, "token": shown}).to_string(),
            json!({"type": "refresh", "id": 2, "token": shown}).to_string(),
            json!({"type": "refresh", "id": 3, "tokken": shown}).to_string(),
            json!({"type": "refresh", "id": 4, "token": [shown]}).to_string(),
            format!(r#"{{"type":"authenticate","token":"{shown}"#),
            shown.clone(),
        ] {
            peer.send_frame(Opcode::Text, said.as_bytes());
            answers.push(peer.text());
        }
        kept.push(peer);
    }
    answers.extend(order(server));
    for cookie in [format!("fails-{COOKIE}"), format!("lies-{COOKIE}")] {
        let (_, status, text) = ask(server, "/ws/a", &format!("Cookie: session={cookie}\r\n"));
        assert_eq!(status, 503);
        answers.push(text);
    }
    for key in [OPERATOR, READER, WRONG, &good] {
        for request in [
            "GET /stats",
            "GET /metrics",
            "GET /connections",
            "GET /topics",
            "GET /healthz",
            "GET /readyz",
            "GET /",
            "GET /presence?topic=a",
            "GET /history?topic=a",
            "POST /publish/a",
            "POST /nowhere",
            "GET /revoke?jti=x",
            "POST /reload",
            "POST /connections/close?identity=nobody",
            "POST /revoke?identity=mallory",
        ] {
            answers.push(ask_admin(server, request, key));
        }
    }
    (tokens, answers)
}

#[test]
fn no_secret_is_written_listed_or_told() {
    let application = application();
    let files = [Secret::new(SECRET), Secret::new(SIGNING), Secret::new(&format!("read:{READER}\n"))];
    let [issuer, signing, more] = files.each_ref().map(|secret| {
        secret
            .issuer("")
            .lines()
            .nth(1)
            .map(|line| line.split_once(" = ").expect("a key").1.to_owned())
            .expect("a file")
    });
    let private = &usual().files.key;
    let text = format!(
        "[auth]\nquery_token = true\nbackend_url = \"http://{address}/ask\"\nbackend_cache_seconds = 0\n\
         [[auth.issuer]]\nissuer = \"own\"\nhmac_file = {issuer}\n\
         [[auth.issuer]]\nissuer = \"login\"\njwks_url = \"http://{address}/keys?key={URL}\"\n\
         [[auth.issuer]]\nissuer = \"broken\"\njwks_url = \"http://{address}/nokeys?key={URL}\"\n\
         [webhook]\nurl = \"http://{address}/hook?key={URL}\"\nsecret_file = {signing}\nevents = [\"connected\", \"disconnected\"]\n\
         [forward]\nsecret_file = {signing}\n\
         [[topic]]\npattern = \"orders/*\"\nforward = \"http://{address}/orders\"\n\
         [admin]\nkeys_file = {more}\n\
         [origin]\nallowed = [\"https://page.example\"]\n\
         [tls]\nlisten = \"127.0.0.1:0\"\ncertificate = {certificate:?}\nkey = {private:?}\n",
        address = application.address,
        certificate = usual().files.certificate,
    );
    let config = ConfigFile::new(&text);
    fs::set_permissions(config.path(), fs::Permissions::from_mode(0o644)).expect("a mode");
    let keys = format!("admin:{OPERATOR}");
    let environment = [
        ("FANTAIL_ADMIN_KEYS", keys.as_str()),
        ("FANTAIL_DRAIN_SECONDS", "0.1"),
        // Not one line is left out.
        ("FANTAIL_LOG_LINES_PER_SECOND", "0"),
    ];
    let mut server = Server::spawn(on_free_ports(
        &["--config", config.path(), "--loops", "2", "--log-level", "trace"],
        &environment,
    ));
    let told = || ask_admin(&server, "GET /metrics", READER);
    wait_for("both fetches", || {
        let of = |outcome: &str| format!("fantail_jwks_fetches_total{{outcome=\"{outcome}\"}}");
        let none = |outcome| told().contains(&format!("{} 0\n", of(outcome)));
        told().contains(&of("changed")) && !none("changed") && !none("status")
    });
    let (tokens, mut shown) = use_all(&server);
    assert!(
        told().contains(&format!("url=\"http://{}/keys\"", application.address)),
        "as far as it may be shown"
    );
    shown.push(fs::read_to_string(format!("/proc/{}/cmdline", server.pid())).expect("a command line"));
    for arguments in [
        &["check-config", "--print", "--config", config.path()][..],
        &["check-config", "--config", config.path()],
    ] {
        let output = command(arguments, &environment).output().expect("it runs");
        shown.extend([output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("UTF-8")));
    }
    server.terminate();
    server.await_exit();
    let log = server.rest_of_log();
    assert!(log.contains("message received") && log.contains("refused"), "it does log: {log}");
    shown.push(log);

    let pem = fs::read_to_string(private).expect("a key");
    let secrets: Vec<&str> = [SECRET, SIGNING, OPERATOR, READER, WRONG, COOKIE, DATA, ORDER]
        .into_iter()
        .chain(tokens.iter().map(String::as_str))
        // What tokens are worth is their signature.
        .chain(tokens.iter().filter_map(|token| token.split('.').nth(2)).filter(|part| part.len() > 8))
        .chain(pem.lines().filter(|line| !line.starts_with('-') && line.len() > 20))
        .collect();
    assert!(secrets.len() > 15);
    for (nth, text) in shown.iter().enumerate() {
        for secret in &secrets {
            assert!(!text.contains(secret), "{secret:?} in {nth}: {text}");
        }
    }
    // URLs of services are the operator's own words in the configuration, and stay there.
    let (printed, others) = (
        &shown[shown.len() - 5..shown.len() - 1],
        [&shown[..shown.len() - 5], &shown[shown.len() - 1..]].concat(),
    );
    assert!(printed.iter().any(|text| text.contains("backend_url")));
    for text in &others {
        assert!(!text.contains(URL), "{text}");
    }
}

#[test]
fn files_of_secrets_that_everybody_may_read_are_warned_of() {
    let secret = Secret::new(SECRET);
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("readable-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("token.secret");
    fs::write(&file, SECRET).expect("a file");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).expect("a mode");
    let said = |issuer: &str| {
        let config = ConfigFile::new(issuer);
        let output = command(&["check-config", "--config", config.path()], &[]).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        [output.stdout, output.stderr].map(|text| String::from_utf8(text).expect("UTF-8")).concat()
    };
    assert!(!said(&secret.issuer("")).contains("every user"), "only the server's user may");
    let warned = said(&format!("[[auth.issuer]]\nhmac_file = {file:?}\n"));
    assert!(warned.contains("every user of this machine can read this secret"), "{warned}");
    assert!(!warned.contains(SECRET));
    let _ = fs::remove_dir_all(&folder);
}
