//! Keys of the admin port: who gets in with which, and that nobody is shown one.

use crate::client::Answer;
use crate::server::{Server, command, fails, wait_for};

const KEYS: &str = "publish:publish-0123456789,read:read-0123456789abc,admin:admin-0123456789ab";

fn ask(server: &Server, method: &str, path: &str, fields: &str) -> Answer {
    let mut admin = server.connect_admin();
    admin.send(
        format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\n{fields}\r\n", server.admin)
            .as_bytes(),
    );
    admin.answer()
}

/// It is the same for everybody, asks for the key, and is nobody's to frame or to lead astray.
#[test]
fn the_page_needs_no_key_and_tells_nothing() {
    let server = Server::start(&["--loops", "1"], &[("FANTAIL_ADMIN_KEYS", KEYS)]);
    let _peer = server.websocket("/ws/secret-topic");
    let [one, other] =
        ["", "Authorization: Bearer admin-0123456789ab\r\n"].map(|key| ask(&server, "GET", "/", key));
    let nonce = |page: &Answer| {
        let policy = page.field("content-security-policy").expect("a policy").to_owned();
        let (_, rest) = policy.split_once("script-src 'nonce-").expect("a nonce");
        assert!(
            policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe"), "{policy}");
        rest.split_once('\'').expect("its end").0.to_owned()
    };
    assert_eq!((one.status, one.field("x-frame-options")), (200, Some("DENY")));
    assert_ne!(nonce(&one), nonce(&other), "another one each time");
    let [one, other] = [one, other].map(|page| {
        let nonce = nonce(&page);
        assert_eq!(page.text().matches(&format!("nonce=\"{nonce}\"")).count(), 2, "style and script");
        page.text().replace(&nonce, "")
    });
    assert!(one.starts_with("<!doctype html>") && one == other);
    assert!(!one.contains("secret-topic") && !one.contains(&server.listen.port().to_string()));
    assert_eq!(ask(&server, "HEAD", "/nothing", "").status, 401);
    assert_eq!(ask(&server, "POST", "/", "").status, 405);
    // A key in a URL would be in logs and histories.
    assert_eq!(ask(&server, "GET", "/?key=admin-0123456789ab", "").status, 400);
    for foreign in ["Origin: https://evil.example\r\n", "Sec-Fetch-Site: cross-site\r\n"] {
        assert_eq!(ask(&server, "GET", "/", foreign).status, 403, "{foreign}");
    }
}

#[test]
fn each_request_needs_a_key_with_its_scope() {
    let server = Server::start(&["--loops", "1"], &[("FANTAIL_ADMIN_KEYS", KEYS)]);
    for probe in ["/healthz", "/readyz"] {
        assert_eq!(ask(&server, "GET", probe, "").status, 200, "{probe} needs no key");
    }
    for (method, path, publish, read, admin) in [
        ("POST", "/publish/a", 200, 403, 200),
        ("POST", "/publish", 200, 403, 200),
        ("GET", "/topics", 403, 200, 200),
        ("GET", "/connections", 403, 200, 200),
        ("GET", "/metrics", 403, 200, 200),
        ("GET", "/nothing", 403, 404, 404),
        ("POST", "/connections/close?topic=a", 403, 403, 200),
        ("POST", "/connections/unsubscribe?topic=a", 403, 403, 200),
    ] {
        for (key, status) in [
            ("", 401),
            ("Authorization: Bearer wrong-0123456789\r\n", 401),
            ("Authorization: Basic publish-0123456789\r\n", 401),
            ("Authorization: Bearer publish-0123456789\r\n", publish),
            ("Authorization: bearer read-0123456789abc\r\n", read),
            ("Authorization: Bearer admin-0123456789ab\r\n", admin),
        ] {
            let answer = ask(&server, method, path, key);
            assert_eq!(answer.status, status, "{method} {path} {key}");
            let challenge = answer.field("www-authenticate");
            assert_eq!(challenge.is_some_and(|text| text.starts_with("Bearer")), status == 401, "{answer:?}");
        }
    }
    // Refused before the body: a megabyte that nobody is allowed to send need not be read.
    let mut stranger = server.connect_admin();
    stranger.send(
        format!("POST /publish/a HTTP/1.1\r\nHost: {}\r\nContent-Length: 1000000\r\n\r\n", server.admin)
            .as_bytes(),
    );
    assert_eq!(stranger.answer().status, 401);
    let mut stranger = server.connect_admin();
    stranger.send(
        format!("POST /healthz HTTP/1.1\r\nHost: {}\r\nContent-Length: 1000000\r\n\r\n", server.admin)
            .as_bytes(),
    );
    assert_eq!(stranger.answer().status, 413, "what needs no key takes no body");
    let page = "Authorization: Bearer admin-0123456789ab\r\nOrigin: https://evil.example\r\n";
    assert_eq!(ask(&server, "GET", "/topics", page).status, 403, "a key does not let pages in");
    let drain = ask(&server, "POST", "/drain", "Authorization: Bearer read-0123456789abc\r\n");
    assert_eq!(drain.status, 403);
}

#[test]
fn off_loopback_there_must_be_a_key_and_then_any_host_will_do() {
    let (code, said) = fails(command(&["--listen", "127.0.0.1:0", "--admin", "0.0.0.0:0"], &[]));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("admin.keys"), "{said}");
    let open = command(
        &["--listen", "127.0.0.1:0", "--admin", "0.0.0.0:0", "--loops", "1"],
        &[("FANTAIL_ADMIN_KEYS", KEYS)],
    );
    let server = Server::spawn(open);
    let mut admin = crate::client::Peer::connect(([127, 0, 0, 1], server.admin.port()).into());
    admin.send(
        b"GET /topics HTTP/1.1\r\nHost: edge.internal:9\r\nAuthorization: Bearer read-0123456789abc\r\n\r\n",
    );
    assert_eq!(admin.answer().status, 200);
    admin.send(b"GET /topics HTTP/1.1\r\nHost: edge.internal:9\r\n\r\n");
    assert_eq!(admin.answer().status, 401);
}

#[test]
fn keys_come_from_a_file_and_no_error_shows_one() {
    let path = std::env::temp_dir().join(format!("fantail-test-keys-{}", std::process::id()));
    let name = path.display().to_string();
    std::fs::write(&path, "# two keys\nread:from-a-file-0123456789\n\n").expect("a temporary file");
    let server = Server::start(&["--loops", "1"], &[("FANTAIL_ADMIN_KEYS_FILE", &name)]);
    let key = "Authorization: Bearer from-a-file-0123456789\r\n";
    assert_eq!(ask(&server, "GET", "/topics", key).status, 200);
    // Another key under the same name of the file, and then none.
    std::fs::write(&path, "read:another-0123456789\n").expect("a temporary file");
    server.signal("HUP");
    server.await_log("admin keys changed");
    let other = "Authorization: Bearer another-0123456789\r\n";
    wait_for("the new key", || ask(&server, "GET", "/topics", other).status == 200);
    assert_eq!(ask(&server, "GET", "/topics", key).status, 401);
    std::fs::write(&path, "").expect("a temporary file");
    server.signal("HUP");
    let line = server.await_log("has no key");
    assert!(!line.contains("another"), "{line}");
    assert_eq!(ask(&server, "GET", "/topics", "").status, 401, "it is not open");
    std::fs::write(&path, "read:from-a-file-0123456789\nwrite:sesame-0123456789\n")
        .expect("a temporary file");
    let (code, said) = fails(command(&[], &[("FANTAIL_ADMIN_KEYS_FILE", &name)]));
    std::fs::remove_file(&path).expect("ours");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("line 2") && !said.contains("sesame") && !said.contains("from-a-file"), "{said}");
    let (code, said) = fails(command(&[], &[("FANTAIL_ADMIN_KEYS", "read:sesame")]));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("FANTAIL_ADMIN_KEYS") && said.contains("16") && !said.contains("sesame"), "{said}");
}

#[test]
fn silent_connections_do_not_keep_the_operator_out() {
    let server = Server::start(&["--loops", "1"], &[("FANTAIL_ADMIN_KEYS", KEYS)]);
    let mut operator = server.connect_admin();
    let request = format!(
        "GET /topics HTTP/1.1\r\nHost: {}\r\nAuthorization: Bearer read-0123456789abc\r\n\r\n",
        server.admin
    );
    operator.send(request.as_bytes());
    assert_eq!(operator.answer().status, 200);
    // More than the port takes at a time; they say nothing, so that only somebody's need ends them.
    let strangers: Vec<_> = (0..400).map(|_| server.connect_admin()).collect();
    for _ in 0..5 {
        let mut newcomer = server.connect_admin();
        newcomer.send(request.as_bytes());
        assert_eq!(newcomer.answer().status, 200);
    }
    operator.send(request.as_bytes());
    assert_eq!(operator.answer().status, 200, "whoever has shown a key keeps its place");
    let mut metrics = server.connect_admin();
    metrics.send(request.replace("/topics", "/metrics").as_bytes());
    let text = metrics.answer().text();
    let displaced =
        text.lines().find(|line| line.starts_with("fantail_closes_total{") && line.contains("displaced"));
    let count = displaced.and_then(|line| line.rsplit(' ').next()?.parse::<usize>().ok());
    assert!(count.is_some_and(|count| count > 400 - 256), "{displaced:?}");
    drop(strangers);
}

#[test]
fn idempotency_keys_of_two_operators_are_two() {
    let server = Server::start(&["--loops", "1"], &[("FANTAIL_ADMIN_KEYS", KEYS)]);
    let publish = |key: &str, body: &[u8]| {
        server.post("/publish/a", &format!("Authorization: Bearer {key}\r\nIdempotency-Key: 1\r\n"), body)
    };
    assert_eq!(publish("publish-0123456789", b"one").json()["offset"], 1);
    assert_eq!(publish("admin-0123456789ab", b"another").json()["offset"], 2);
    let again = publish("publish-0123456789", b"one");
    assert_eq!(
        (again.json()["offset"].as_u64(), again.field("idempotency-replayed")),
        (Some(1), Some("true"))
    );
    assert_eq!(publish("admin-0123456789ab", b"one").status, 422);
}
