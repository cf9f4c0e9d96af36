//! What pages of other origins may read of refusals: why, where the policy lets them read the answer, and nothing where it
//! does not.

use crate::client::{Answer, Peer};
use crate::reload::ConfigFile;
use crate::server::{Server, on_free_ports};

const APP: &str = "https://app.example";
const EVIL: &str = "https://evil.example";

/// What a page of this origin is answered, on a connection of its own.
fn ask(server: &Server, method: &str, target: &str, (origin, more): (&str, &str)) -> Answer {
    let mut peer = server.connect();
    send(&mut peer, server, &format!("{method} {target} HTTP/1.1"), &format!("Origin: {origin}\r\n{more}"));
    peer.answer_to(method == "HEAD")
}

fn send(peer: &mut Peer, server: &Server, line: &str, fields: &str) {
    peer.send(format!("{line}\r\nHost: {}\r\n{fields}\r\n", server.listen).as_bytes());
}

/// Whom the answer may be read by, and whether with credentials.
fn readers(answer: &Answer) -> (Option<&str>, bool) {
    assert_eq!(answer.fields("vary").filter(|vary| *vary == "Origin").count(), 1, "{answer:?}");
    let allow = answer.field("access-control-allow-origin");
    let exposed = answer.field("access-control-expose-headers").unwrap_or_default();
    assert_eq!(exposed.contains("Retry-After"), allow.is_some(), "{answer:?}");
    (allow, answer.field("access-control-allow-credentials") == Some("true"))
}

fn config(allowed: &str) -> String {
    format!(
        "[origin]\nallowed = [\"{allowed}\"]\n[limits]\nparked_max = 1\nhead_bytes_max = \"2 KiB\"\n\
         [[topic]]\npattern = \"closed\"\nsubscribe = \"nobody\"\n"
    )
}

#[test]
fn a_page_may_read_why_it_is_refused_what_it_may_read() {
    let named = ConfigFile::new(&config(APP));
    let anybody = ConfigFile::new(&config("*"));
    let long = format!("Cookie: {}\r\n", "1".repeat(3_000));
    let rows = [
        ("GET", "/poll/a?weit=1", 400),
        ("GET", "/sse/a?snice=1", 400),
        ("HEAD", "/sse/a?snice=1", 400),
        ("GET", "/sse/%2a%2a", 403),
        ("GET", "/sse/closed", 403),
        ("HEAD", "/sse/closed", 403),
        ("GET", "/poll/closed", 403),
        ("GET", "/nothing", 404),
        ("POST", "/sse/a", 405),
        ("GET", "/ws", 426),
    ];
    for (file, allow, credentials) in [(&named, APP, true), (&anybody, "*", false)] {
        let server = Server::spawn(on_free_ports(&["--config", file.path(), "--loops", "1"], &[]));
        for (method, target, status) in rows {
            let answer = ask(&server, method, target, (APP, ""));
            assert_eq!((answer.status, readers(&answer)), (status, (Some(allow), credentials)), "{target}");
        }
        let answer = ask(&server, "GET", "/poll/a", (APP, &long));
        assert_eq!((answer.status, readers(&answer)), (431, (Some(allow), credentials)));
        // One poll waits; there is no place for another.
        let mut waiting = server.connect();
        send(&mut waiting, &server, "GET /poll/a HTTP/1.1", "");
        server.await_metric("fantail_subscriptions", "", |count| count == 1);
        let full = ask(&server, "GET", "/poll/a", (APP, ""));
        assert_eq!((full.status, full.field("retry-after")), (503, Some("1")));
        assert_eq!(readers(&full), (Some(allow), credentials));
        // The admin port is read by no page of elsewhere.
        assert_eq!(server.get("/nothing").fields("vary").count(), 0);
    }
}

#[test]
fn a_page_that_may_not_read_an_answer_may_not_read_a_refusal() {
    let file = ConfigFile::new(&config(APP));
    let server = Server::spawn(on_free_ports(&["--config", file.path(), "--loops", "1"], &[]));
    for (target, status) in [("/poll/a", 403), ("/sse/a", 403), ("/poll/a?weit=1", 400), ("/nothing", 404)] {
        for origin in [EVIL, "null", "https://app.example\rX: y"] {
            let answer = ask(&server, "GET", target, (origin, ""));
            let expected = if origin.contains('\r') { 400 } else { status };
            assert_eq!((answer.status, readers(&answer)), (expected, (None, false)), "{target} {origin}");
        }
    }
}

/// A browser sends the request that says what is wrong only if the question before it was answered well.
#[test]
fn the_question_before_a_request_is_answered_whatever_is_wrong_with_the_request() {
    let file = ConfigFile::new(&config(APP));
    let server = Server::spawn(on_free_ports(&["--config", file.path(), "--loops", "1"], &[]));
    let question = "Access-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: cache-control\r\n";
    for target in ["/sse/a", "/poll/a", "/poll/a?weit=1", "/sse/closed", "/nothing"] {
        let answer = ask(&server, "OPTIONS", target, (APP, question));
        assert_eq!((answer.status, readers(&answer)), (204, (Some(APP), true)), "{target}");
        let foreign = ask(&server, "OPTIONS", target, (EVIL, question));
        assert_eq!((foreign.status, readers(&foreign)), (403, (None, false)), "{target}");
    }
    // What is no question is a request like any other.
    assert_eq!(ask(&server, "OPTIONS", "/poll/a?weit=1", (APP, "")).status, 400);
}

#[test]
fn a_page_may_read_that_its_address_has_enough() {
    let environment =
        [("FANTAIL_ADMISSION_PER_ADDRESS_MAX", "1"), ("FANTAIL_ORIGIN_ALLOWED", "https://app.example")];
    let server = Server::start(&["--loops", "1"], &environment);
    let _inside = server.websocket("/ws/a");
    let refused = ask(&server, "GET", "/poll/a", (APP, ""));
    assert_eq!((refused.status, refused.field("retry-after")), (429, Some("10")));
    assert_eq!(readers(&refused), (Some(APP), true));
    assert_eq!(readers(&ask(&server, "GET", "/poll/a", (EVIL, ""))), (None, false));
}
