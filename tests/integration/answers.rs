//! What answers carry besides their body: the chosen subprotocol, and headers that keep browsers from
//! running or framing them.

use crate::server::Server;

#[test]
fn the_first_offer_that_is_listed_is_chosen() {
    let server = Server::start(&[], &[("FANTAIL_SERVER_SUBPROTOCOLS", "v1,v2")]);
    let offers = |more: &str| {
        let answer = server.connect().ask_upgrade("/ws", more);
        assert_eq!(answer.status, 101, "{more:?}");
        answer.field("sec-websocket-protocol").map(str::to_owned)
    };
    assert_eq!(offers(""), None);
    assert_eq!(offers("Sec-WebSocket-Protocol: v2, v1\r\n").as_deref(), Some("v2"), "the client's order");
    assert_eq!(offers("Sec-WebSocket-Protocol: v9,v1 ,v2\r\n").as_deref(), Some("v1"));
    // Several fields are one list (RFC 6455, 11.3.4); names are case-sensitive.
    let two = "Sec-WebSocket-Protocol: V1\r\nSec-WebSocket-Protocol: v1\r\n";
    assert_eq!(offers(two).as_deref(), Some("v1"));
    assert_eq!(offers("Sec-WebSocket-Protocol: v9\r\n"), None, "none is listed: answered without one");
    let plain = Server::start(&[], &[]);
    assert_eq!(
        plain.connect().ask_upgrade("/ws", "Sec-WebSocket-Protocol: v1\r\n").field("sec-websocket-protocol"),
        None
    );
}

#[test]
fn no_answer_can_be_framed_or_sniffed() {
    let server = Server::start(&[], &[]);
    for (path, status) in [("/", 200), ("/nowhere", 404), ("/ws", 426), ("/ws/a*b", 400)] {
        let mut peer = server.connect();
        peer.send(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", server.listen).as_bytes());
        guarded(path, &peer.answer(), status);
    }
    let mut peer = server.connect();
    peer.send(format!("POST / HTTP/1.1\r\nHost: {}\r\n\r\n", server.listen).as_bytes());
    guarded("POST /", &peer.answer(), 405);
    let mut peer = server.connect();
    peer.send(b"nonsense\r\n\r\n");
    guarded("nonsense", &peer.answer(), 400);
    for (path, status) in [("/metrics", 200), ("/healthz", 200), ("/nowhere", 404), ("/publish/t", 405)] {
        guarded(path, &server.get(path), status);
    }
    guarded("a publish", &server.publish("t", b"x"), 200);
}

fn guarded(what: &str, answer: &crate::client::Answer, status: u16) {
    assert_eq!(answer.status, status, "{what}");
    assert_eq!(answer.field("x-content-type-options"), Some("nosniff"), "{what}");
    assert_eq!(answer.field("x-frame-options"), Some("DENY"), "{what}");
    let policy = answer.field("content-security-policy").unwrap_or_default();
    assert!(
        policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"),
        "{what}: {policy}"
    );
}
