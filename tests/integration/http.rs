//! HTTP on both ports: refusals by table, framing, timeouts, origins, publishing.

use std::io::Write;
use std::net::Shutdown;
use std::time::{Duration, SystemTime};

use fantail::wire::frame::Opcode;

use crate::client::assert_upgraded;
use crate::server::{Server, wait_for};

/// A request, the statuses it gets in turn, and a field of the last answer. `HOST` becomes the port's address.
struct Row {
    name: &'static str,
    request: &'static str,
    statuses: &'static [u16],
    field: Option<(&'static str, &'static str)>,
}

const fn row(name: &'static str, request: &'static str, statuses: &'static [u16]) -> Row {
    Row { name, request, statuses, field: None }
}

const CLIENT_PORT: &[Row] = &[
    row("the page", "GET / HTTP/1.1\r\nHost: HOST\r\n\r\n", &[200]),
    row("no such path", "GET /nothing HTTP/1.1\r\nHost: HOST\r\n\r\n", &[404]),
    row("what is not built is not found", "GET /app/key HTTP/1.1\r\nHost: HOST\r\n\r\n", &[404]),
    row("publishing is the admin port's", "POST /publish/a HTTP/1.1\r\nHost: HOST\r\n\r\n", &[404]),
    row("metrics are the admin port's", "GET /metrics HTTP/1.1\r\nHost: HOST\r\n\r\n", &[404]),
    Row {
        field: Some(("allow", "GET, HEAD")),
        ..row("POST to the page", "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0\r\n\r\n", &[405])
    },
    Row {
        field: Some(("connection", "Upgrade, keep-alive")),
        ..row(
            "426 names its connection option (RFC 9110, 7.8)",
            "GET /ws HTTP/1.1\r\nHost: HOST\r\n\r\n",
            &[426],
        )
    },
    Row {
        field: Some(("connection", "Upgrade, close")),
        ..row(
            "so it does for another version, and at the end",
            "GET /echo HTTP/1.1\r\nHost: HOST\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 8\r\n\r\n",
            &[426],
        )
    },
    Row {
        field: Some(("sec-websocket-version", "13")),
        ..row("no upgrade where one is needed", "GET /ws HTTP/1.1\r\nHost: HOST\r\n\r\n", &[426])
    },
    Row {
        field: Some(("sec-websocket-version", "13")),
        ..row(
            "another version of WebSocket",
            "GET /ws HTTP/1.1\r\nHost: HOST\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 8\r\n\r\n",
            &[426],
        )
    },
    row(
        "a key of the wrong length",
        "GET /ws HTTP/1.1\r\nHost: HOST\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: c2hvcnQ=\r\nSec-WebSocket-Version: 13\r\n\r\n",
        &[400],
    ),
    row(
        "no key",
        "GET /ws HTTP/1.1\r\nHost: HOST\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\n\r\n",
        &[400],
    ),
    row("no Host", "GET / HTTP/1.1\r\n\r\n", &[400]),
    row("two Hosts", "GET / HTTP/1.1\r\nHost: HOST\r\nHost: HOST\r\n\r\n", &[400]),
    row(
        "length and coding (RFC 9112, 6.3)",
        "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    row(
        "two lengths",
        "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        &[400],
    ),
    row("a list of lengths", "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 3, 3\r\n\r\nabc", &[400]),
    row("a signed length", "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: +3\r\n\r\nabc", &[400]),
    row("lines that end in LF alone", "GET / HTTP/1.1\nHost: HOST\n\n", &[400]),
    row("a folded field", "GET / HTTP/1.1\r\nHost: HOST\r\nA: b\r\n c\r\n\r\n", &[400]),
    row("a blank before the colon", "GET / HTTP/1.1\r\nHost : HOST\r\n\r\n", &[400]),
    row("another version of HTTP", "GET / HTTP/2.0\r\nHost: HOST\r\n\r\n", &[505]),
    row("no HTTP at all", "\x16\x03\x01\x02\x00\x01\r\n\r\n", &[400]),
    Row {
        field: Some(("allow", "GET, HEAD")),
        ..row("a body", "POST / HTTP/1.1\r\nHost: HOST\r\nContent-Length: 5\r\n\r\nhello", &[405])
    },
    Row {
        field: Some(("allow", "GET")),
        ..row(
            "a chunked body",
            "POST /ws HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            &[405],
        )
    },
    Row {
        field: Some(("connection", "close")),
        ..row(
            "a body is no request that follows",
            "POST /nothing HTTP/1.1\r\nHost: HOST\r\nContent-Length: 38\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
            &[404],
        )
    },
    row(
        "a body for an upgrade",
        "GET /ws HTTP/1.1\r\nHost: HOST\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 1\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\nx",
        &[400],
    ),
    row(
        "a large body that waits to be asked for",
        "POST /publish/a HTTP/1.1\r\nHost: HOST\r\n\
         Expect: 100-continue\r\nContent-Length: 1000000\r\n\r\n",
        &[404],
    ),
    row("a slip in a parameter", "GET /ws?topics=a HTTP/1.1\r\nHost: HOST\r\n\r\n", &[400]),
    row("a value that is no switch", "GET /ws?echo=maybe HTTP/1.1\r\nHost: HOST\r\n\r\n", &[400]),
    row("a parameter of an echo", "GET /echo?x=1 HTTP/1.1\r\nHost: HOST\r\n\r\n", &[400]),
    row("a parameter of the page", "GET /?x=1 HTTP/1.1\r\nHost: HOST\r\n\r\n", &[400]),
    row(
        "an absolute target's origin, not that of Host (RFC 9112, 3.2.2)",
        "GET http://elsewhere.example/ws HTTP/1.1\r\nHost: HOST\r\nOrigin: http://HOST\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        &[403],
    ),
    row(
        "an absolute target's own origin",
        "GET http://HOST/ws HTTP/1.1\r\nHost: elsewhere.example\r\nOrigin: http://HOST\r\nUpgrade: websocket\r\n\
         Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
        &[101],
    ),
    row(
        "pipelining",
        "GET / HTTP/1.1\r\nHost: HOST\r\n\r\nGET /nothing HTTP/1.1\r\nHost: HOST\r\n\r\n\
         GET /ws HTTP/1.1\r\nHost: HOST\r\n\r\n",
        &[200, 404, 426],
    ),
    Row {
        field: Some(("allow", "GET")),
        ..row("POST to a WebSocket", "POST /ws HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0\r\n\r\n", &[405])
    },
    row("a topic with a star", "GET /ws/a* HTTP/1.1\r\nHost: HOST\r\n\r\n", &[400]),
    row("a topic without a name", "GET /ws/ HTTP/1.1\r\nHost: HOST\r\n\r\n", &[400]),
    row("a topic that is not UTF-8", "GET /ws/%FF HTTP/1.1\r\nHost: HOST\r\n\r\n", &[400]),
];

const ADMIN_PORT: &[Row] = &[
    row("healthy", "GET /healthz HTTP/1.1\r\nHost: HOST\r\n\r\n", &[200]),
    row("ready", "GET /readyz HTTP/1.1\r\nHost: HOST\r\n\r\n", &[200]),
    row("no such path", "GET /nothing HTTP/1.1\r\nHost: HOST\r\n\r\n", &[404]),
    row("no WebSocket here", "GET /ws HTTP/1.1\r\nHost: HOST\r\n\r\n", &[404]),
    Row {
        field: Some(("allow", "POST")),
        ..row("GET of publish", "GET /publish/a HTTP/1.1\r\nHost: HOST\r\n\r\n", &[405])
    },
    row(
        "a page from elsewhere",
        "GET /metrics HTTP/1.1\r\nHost: HOST\r\nOrigin: https://evil.example\r\n\r\n",
        &[403],
    ),
    row("a page without origin", "GET /metrics HTTP/1.1\r\nHost: HOST\r\nOrigin: null\r\n\r\n", &[403]),
    row("its own page", "GET /metrics HTTP/1.1\r\nHost: HOST\r\nOrigin: http://HOST\r\n\r\n", &[200]),
    row("another site", "GET /metrics HTTP/1.1\r\nHost: HOST\r\nSec-Fetch-Site: cross-site\r\n\r\n", &[403]),
    row(
        "an absolute target elsewhere",
        "GET http://elsewhere/stats HTTP/1.1\r\nHost: localhost\r\n\r\n",
        &[403],
    ),
    row("an absolute target here", "GET http://localhost/stats HTTP/1.1\r\nHost: elsewhere\r\n\r\n", &[200]),
    row("a parameter of a probe", "GET /healthz?x HTTP/1.1\r\nHost: HOST\r\n\r\n", &[400]),
    row("a parameter of readiness", "GET /readyz?x=1 HTTP/1.1\r\nHost: HOST\r\n\r\n", &[400]),
    row("a parameter of metrics", "GET /metrics?name=a HTTP/1.1\r\nHost: HOST\r\n\r\n", &[400]),
    row("a parameter of statistics", "GET /stats?x=1 HTTP/1.1\r\nHost: HOST\r\n\r\n", &[400]),
    row("a parameter of a drain", "POST /drain?seconds=1 HTTP/1.1\r\nHost: HOST\r\n\r\n", &[400]),
    row("a parameter of one connection", "GET /connections/1?x=1 HTTP/1.1\r\nHost: HOST\r\n\r\n", &[400]),
    row("a slip in a filter", "GET /connections?topics=a HTTP/1.1\r\nHost: HOST\r\n\r\n", &[400]),
    row("a slip in a list", "GET /topics?prefx=a HTTP/1.1\r\nHost: HOST\r\n\r\n", &[400]),
    row("a rebound name", "GET /metrics HTTP/1.1\r\nHost: evil.example\r\n\r\n", &[403]),
    row(
        "a foreign page's publish is refused before its body",
        "POST /publish/a HTTP/1.1\r\nHost: HOST\r\nOrigin: https://evil.example\r\nContent-Length: 5\r\n\r\n",
        &[403],
    ),
    row(
        "a chunked publish",
        "POST /publish/a HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\n\
         2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nA: b\r\n\r\n",
        &[200],
    ),
    row(
        "broken chunks",
        "POST /publish/a HTTP/1.1\r\nHost: HOST\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhe\r\n",
        &[400],
    ),
    row("an empty publish", "POST /publish/a HTTP/1.1\r\nHost: HOST\r\nContent-Length: 0\r\n\r\n", &[200]),
    row(
        "a body over the limit, announced",
        "POST /publish/a HTTP/1.1\r\nHost: HOST\r\nContent-Length: 16777217\r\n\r\n",
        &[413],
    ),
    row("a topic with a star", "POST /publish/a%2A HTTP/1.1\r\nHost: HOST\r\n\r\n", &[400]),
    row("a slip in a parameter", "POST /publish/a?binary=true HTTP/1.1\r\nHost: HOST\r\n\r\n", &[400]),
    row("another parameter", "POST /publish/a?binray=1 HTTP/1.1\r\nHost: HOST\r\n\r\n", &[400]),
    row("a parameter for a batch", "POST /publish?binary=1 HTTP/1.1\r\nHost: HOST\r\n\r\n", &[400]),
    row("a probe with a body", "POST /healthz HTTP/1.1\r\nHost: HOST\r\nContent-Length: 1\r\n\r\n", &[413]),
    row(
        "a question with a large body",
        "GET /metrics HTTP/1.1\r\nHost: HOST\r\nContent-Length: 65537\r\n\r\n",
        &[413],
    ),
    row("a topic with half an escape", "POST /publish/a%2 HTTP/1.1\r\nHost: HOST\r\n\r\n", &[400]),
    row(
        "two publishes in one segment",
        "POST /publish/a HTTP/1.1\r\nHost: HOST\r\nContent-Length: 1\r\n\r\nx\
         POST /publish/a HTTP/1.1\r\nHost: HOST\r\nContent-Length: 1\r\n\r\ny",
        &[200, 200],
    ),
];

#[test]
fn every_row_of_the_client_port() {
    let server = Server::start(&["--loops", "1"], &[]);
    for row in CLIENT_PORT {
        run_row(&server, row, false);
    }
}

#[test]
fn every_row_of_the_admin_port() {
    let server = Server::start(&["--loops", "1"], &[]);
    for row in ADMIN_PORT {
        run_row(&server, row, true);
    }
}

/// Once in one segment and once cut in the middle.
fn run_row(server: &Server, row: &Row, admin: bool) {
    let address = if admin { server.admin } else { server.listen };
    let request = row.request.replace("HOST", &address.to_string());
    for parts in [[request.as_str(), ""], request.split_at(request.len() / 2).into()] {
        let mut peer = if admin { server.connect_admin() } else { server.connect() };
        parts.iter().for_each(|part| peer.try_send(part.as_bytes()));
        for (index, status) in row.statuses.iter().enumerate() {
            let answer = peer.answer();
            assert_eq!(answer.status, *status, "{}: answer {index}: {answer:?}", row.name);
            if index + 1 == row.statuses.len()
                && let Some((field, value)) = row.field
            {
                assert_eq!(answer.field(field), Some(value), "{}", row.name);
            }
        }
    }
}

#[test]
fn a_refused_parameter_is_told_the_nearest() {
    let server = Server::start(&["--loops", "1"], &[]);
    let client = server.connect().ask_upgrade("/ws?topics=a", "");
    assert_eq!(client.text(), "unknown parameter \"topics\"; did you mean \"topic\"?\n");
    assert!(server.get("/connections?topics=a").text().contains("did you mean \"topic\"?"));
    assert_eq!(server.get("/stats?x").text(), "unknown parameter \"x\"; expects none\n");
    assert_eq!(server.connect().ask_upgrade("/ws?echo=maybe", "").text(), "echo expects 1 or 0\n");
}

/// RFC 9110, 6.6.1: within the second that it was sent in, and made anew for later ones.
#[test]
fn answers_are_dated() {
    let server = Server::start(&["--loops", "1"], &[]);
    let mut peer = server.connect();
    let mut dates = std::collections::BTreeSet::new();
    wait_for("a second date", || {
        let before = SystemTime::now();
        peer.send(format!("HEAD / HTTP/1.1\r\nHost: {}\r\n\r\n", server.listen).as_bytes());
        let answer = peer.answer_to(true);
        let date = httpdate::parse_http_date(answer.field("date").expect("a date")).expect("a date");
        // It is made once a second, and told in whole ones; the question may have come while the last turn stood still.
        let slack = Duration::from_secs(2) + before.elapsed().expect("a clock that goes forward");
        assert!(date + slack >= before && date <= SystemTime::now(), "{answer:?} at {before:?}");
        dates.insert(date);
        dates.len() > 1
    });
}

#[test]
fn a_head_has_a_limit() {
    let server = Server::start(&["--loops", "1"], &[]);
    let mut peer = server.connect();
    let head = format!("GET / HTTP/1.1\r\nHost: {}\r\nCookie: ", server.listen);
    // Exactly at the limit it is still served.
    let room = (8 << 10) - head.len() - 4;
    peer.send(format!("{head}{}\r\n\r\n", "x".repeat(room)).as_bytes());
    assert_eq!(peer.answer().status, 200);
    peer.send(format!("{head}{}\r\n\r\n", "x".repeat(room + 1)).as_bytes());
    assert_eq!(peer.answer().status, 431);
    peer.expect_end();
    let mut endless = server.connect();
    endless.try_send(&[head.as_bytes(), &[b'x'; 9000]].concat());
    assert_eq!(endless.answer().status, 431);
    endless.expect_end();
}

/// Proxies add a field or two each; what is counted has a limit and a key of its own, and the answer names it.
#[test]
fn a_head_has_as_many_fields_as_its_limit_says() {
    let fields = |count: usize| "X-Hop: 1\r\n".repeat(count);
    let server = Server::start(&["--loops", "1"], &[]);
    // Beside them stand Host and the four fields of an upgrade.
    assert_upgraded(&server.connect().ask_upgrade("/ws", &fields(251)));
    let refused = server.connect().ask_upgrade("/ws", &fields(252));
    assert_eq!((refused.status, refused.text().as_str()), (431, "too many header fields\n"));
    let more = Server::start(&["--loops", "1"], &[("FANTAIL_LIMITS_HEAD_FIELDS_MAX", "600")]);
    assert_upgraded(&more.connect().ask_upgrade("/ws", &fields(595)));
    assert_eq!(more.connect().ask_upgrade("/ws", &fields(596)).status, 431);
}

#[test]
fn connections_are_kept_and_closed_as_asked() {
    let server = Server::start(&["--loops", "1"], &[]);
    let mut peer = server.connect();
    for _ in 0..3 {
        peer.send(format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", server.listen).as_bytes());
        assert_eq!(peer.answer().status, 200);
    }
    peer.send(format!("HEAD / HTTP/1.1\r\nHost: {}\r\n\r\n", server.listen).as_bytes());
    let head = peer.answer_to(true);
    assert_eq!(head.status, 200);
    assert_ne!(head.field("content-length"), Some("0"));
    // Behind the answer to HEAD comes no body: the next answer is read cleanly.
    peer.send(format!("GET / HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", server.listen).as_bytes());
    assert_eq!(peer.answer().field("connection"), Some("close"));
    peer.expect_end();
    let mut old = server.connect();
    old.send(b"GET / HTTP/1.0\r\n\r\n");
    assert_eq!(old.answer().status, 200);
    old.expect_end();
}

#[test]
fn a_kept_connection_can_still_upgrade() {
    let server = Server::start(&["--loops", "1"], &[]);
    let mut peer = server.connect();
    peer.send(format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", server.listen).as_bytes());
    assert_eq!(peer.answer().status, 200);
    peer.upgrade("/echo");
    peer.send_frame(Opcode::Text, b"later");
    assert_eq!(peer.text(), "later");
}

#[test]
fn a_request_has_its_time() {
    let server = Server::start(&["--loops", "1"], &[("FANTAIL_TIMEOUTS_HANDSHAKE_SECONDS", "0.3")]);
    let mut half = server.connect();
    half.send(b"GET / HTTP/1.1\r\nHost:");
    assert_eq!(half.answer().status, 408);
    half.expect_end();
    // Whoever says nothing gets nothing.
    server.connect().expect_end();
    let mut body = server.connect_admin();
    body.send(
        format!("POST /publish/a HTTP/1.1\r\nHost: {}\r\nContent-Length: 5\r\n\r\nhel", server.admin)
            .as_bytes(),
    );
    assert_eq!(body.answer().status, 408);
    body.expect_end();
}

#[test]
fn a_peer_that_ended_its_side_is_still_answered() {
    let server = Server::start(&["--loops", "1"], &[]);
    let mut peer = server.connect();
    peer.send(format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", server.listen).as_bytes());
    peer.stream.shutdown(Shutdown::Write).expect("connected");
    assert_eq!(peer.answer().status, 200);
    peer.expect_end();
}

#[test]
fn an_expectation_is_met_before_the_body() {
    let server = Server::start(&["--loops", "1"], &[]);
    let mut peer = server.connect_admin();
    let head = |length: usize| {
        format!(
            "POST /publish/a HTTP/1.1\r\nHost: {}\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n",
            server.admin
        )
    };
    peer.send(head(5).as_bytes());
    assert_eq!(peer.answer().status, 100);
    peer.send(b"hello");
    assert_eq!(peer.answer().status, 200);
    // Too large is said at once, without asking for the body.
    peer.send(head(1 << 30).as_bytes());
    assert_eq!(peer.answer().status, 413);
}

#[test]
fn a_large_body_is_refused_and_the_answer_arrives() {
    let server = Server::start(&["--loops", "1"], &[("FANTAIL_LIMITS_ADMIN_BODY_BYTES_MAX", "100000")]);
    let mut peer = server.connect_admin();
    let head =
        format!("POST /publish/a HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n", server.admin);
    peer.send(head.as_bytes());
    let chunk = [b"2710\r\n".as_slice(), &[b'x'; 10_000], b"\r\n"].concat();
    for _ in 0..11 {
        if peer.stream.write_all(&chunk).is_err() {
            break;
        }
    }
    assert_eq!(peer.answer().status, 413);
    // Within the body's limit, over the message's.
    let small = Server::start(&["--loops", "1"], &[("FANTAIL_LIMITS_MESSAGE_BYTES_MAX", "10")]);
    assert_eq!(small.publish("a", b"0123456789").status, 200);
    assert_eq!(small.publish("a", b"0123456789a").status, 413);
}

#[test]
fn a_publish_is_delivered_as_what_it_is() {
    let server = Server::start(&["--loops", "2"], &[]);
    let mut peer = server.websocket("/ws/a%2Fb%20%C3%A9");
    assert_eq!(server.publish("a%2fb%20%c3%a9", &[0xff]).status, 400);
    let binary = server.publish("a/b%20%C3%A9?binary=1", &[0xff]);
    assert_eq!(binary.status, 200, "{binary:?}");
    let frame = peer.frame();
    assert_eq!((frame.opcode, frame.payload), (Opcode::Binary, vec![0xff]));
    let large = "x".repeat(1 << 20);
    assert_eq!(server.publish("a/b%20%C3%A9", large.as_bytes()).status, 200);
    assert_eq!(peer.text(), large);
}

#[test]
fn offsets_rise_by_one_within_an_epoch() {
    let server = Server::start(&["--loops", "2"], &[]);
    let _subscriber = server.websocket("/ws/news");
    let answers: Vec<serde_json::Value> =
        (0..5).map(|_| serde_json::from_slice(&server.publish("news", b"x").body).expect("JSON")).collect();
    let first = answers[0]["offset"].as_u64().expect("a number");
    for (index, answer) in answers.iter().enumerate() {
        assert_eq!(answer["offset"].as_u64(), Some(first + index as u64), "{answers:?}");
        assert_eq!(answer["epoch"], answers[0]["epoch"]);
        assert_eq!(answer["subscribers"], 1);
    }
    let other: serde_json::Value = serde_json::from_slice(&server.publish("other", b"x").body).expect("JSON");
    assert_ne!(other["epoch"], answers[0]["epoch"]);
}

#[test]
fn origins_are_judged_at_the_upgrade() {
    let allowed = [("FANTAIL_ORIGIN_ALLOWED", "https://a.example,https://*.b.example,localhost:*")];
    let strict = Server::start(&["--loops", "1"], &[]);
    let open = Server::start(&["--loops", "1"], &allowed);
    let own = format!("http://{}", strict.listen);
    let rows: &[(&Server, &str, u16)] = &[
        (&strict, &own, 101),
        (&strict, "https://evil.example", 403),
        (&strict, "null", 403),
        (&strict, "http://127.0.0.1:1", 403),
        (&open, "https://a.example", 101),
        (&open, "http://a.example", 403),
        (&open, "https://a.example:444", 403),
        (&open, "https://x.b.example", 101),
        (&open, "https://b.example", 403),
        (&open, "https://xb.example", 403),
        (&open, "http://localhost:5173", 101),
        (&open, "https://a.example.evil.example", 403),
    ];
    for (server, origin, status) in rows {
        let answer = server.connect().ask_upgrade("/ws", &format!("Origin: {origin}\r\n"));
        assert_eq!(answer.status, *status, "{origin}");
    }
    assert_upgraded(&strict.connect().ask_upgrade("/ws", ""));
    let required = Server::start(&["--loops", "1"], &[("FANTAIL_ORIGIN_REQUIRED", "true")]);
    assert_eq!(required.connect().ask_upgrade("/ws", "").status, 403);
}

#[test]
fn another_client_library_agrees() {
    let server = Server::start(&["--loops", "1"], &[]);
    let stream = crate::server::dial(server.listen);
    let url = format!("ws://{}/echo", server.listen);
    let (mut socket, response) = tungstenite::client(url, stream).expect("an upgrade");
    assert_eq!(response.status(), 101);
    for message in [tungstenite::Message::text("größe"), tungstenite::Message::binary(vec![0; 100_000])] {
        socket.send(message.clone()).expect("sent");
        assert_eq!(socket.read().expect("an echo"), message);
    }
    socket.close(None).expect("sent");
    while socket.read().is_ok() {}
}
