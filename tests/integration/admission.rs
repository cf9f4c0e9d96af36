//! Who is let in: caps and rates by address, pending handshakes, trusted proxies. Addresses of 127.0.0.0/8 stand
//! for different clients.

use fantail::wire::frame::Opcode;

use crate::client::{Answer, Peer, assert_upgraded, frame, upgrade_request};
use crate::server::{Server, wait_for};

fn start(environment: &[(&str, &str)]) -> Server {
    Server::start(&["--loops", "2"], environment)
}

/// A peer at 127.0.0.`last`.
fn from(server: &Server, last: u8) -> Peer {
    Peer::connect_from([127, 0, 0, last].into(), server.listen)
}

fn assert_refused(answer: &Answer, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.field("retry-after").is_some_and(|seconds| seconds.parse::<u32>().is_ok()), "{answer:?}");
}

#[test]
fn an_address_holds_as_many_connections_as_it_may() {
    let server = start(&[("FANTAIL_ADMISSION_PER_ADDRESS_MAX", "3")]);
    let mut inside: Vec<Peer> = (0..3).map(|_| from(&server, 2)).collect();
    inside.iter_mut().for_each(|peer| peer.upgrade("/echo"));
    let mut fourth = from(&server, 2);
    assert_refused(&fourth.ask_upgrade("/echo", ""), 429);
    fourth.expect_end();
    from(&server, 3).upgrade("/echo");
    assert_eq!(server.metric("fantail_refusals_total", "too_many_from_address"), 1);
    drop(inside.pop());
    wait_for("a place for the address", || {
        let mut peer = from(&server, 2);
        let admitted = peer.ask_upgrade("/echo", "").status == 101;
        if admitted {
            inside.push(peer);
        }
        admitted
    });
    for peer in &mut inside {
        peer.ping_pong();
    }
}

#[test]
fn an_address_that_connects_too_fast_waits() {
    let server = start(&[("FANTAIL_ADMISSION_CONNECT_RATE", "1"), ("FANTAIL_ADMISSION_CONNECT_BURST", "3")]);
    let statuses: Vec<u16> = (0..20).map(|_| from(&server, 2).ask_upgrade("/echo", "").status).collect();
    assert_eq!(statuses.get(..3), Some(&[101, 101, 101][..]));
    assert!(statuses.contains(&429), "{statuses:?}");
    from(&server, 3).upgrade("/echo");
    assert!(server.metric("fantail_refusals_total", "connect_rate") > 0);
    // One token a second comes back.
    wait_for("a token", || from(&server, 2).ask_upgrade("/echo", "").status == 101);
}

#[test]
fn pending_handshakes_are_bounded_and_others_go_on() {
    let server = start(&[("FANTAIL_ADMISSION_HANDSHAKES_MAX", "4")]);
    let mut bystander = server.websocket("/echo");
    let mut kept_alive = server.connect();
    kept_alive.send(format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", server.listen).as_bytes());
    assert_eq!(kept_alive.answer().status, 200);
    let mut silent: Vec<Peer> = (0..4).map(|_| server.connect()).collect();
    server.await_metric("fantail_handshakes", "", |pending| pending == 4);
    assert_refused(&server.connect().ask_upgrade("/echo", ""), 503);
    // A further request on a connection is one more that is awaited.
    kept_alive.send(b"GET / HT");
    assert_refused(&kept_alive.answer(), 503);
    assert_eq!(server.metric("fantail_refusals_total", "handshakes"), 2);
    bystander.ping_pong();
    // Whoever completes its request makes room, and so does whoever leaves.
    silent.iter_mut().take(2).for_each(|peer| peer.upgrade("/echo"));
    silent.truncate(2);
    server.await_metric("fantail_handshakes", "", |pending| pending == 0);
    server.websocket("/echo");
}

#[test]
fn a_connection_that_sends_too_many_messages_is_closed() {
    let server =
        start(&[("FANTAIL_ADMISSION_MESSAGES_PER_SECOND", "1"), ("FANTAIL_ADMISSION_MESSAGES_BURST", "5")]);
    let mut peer = server.websocket("/echo");
    // Pings count like messages, pongs and fragments do not.
    for opcode in [Opcode::Text, Opcode::Ping, Opcode::Text, Opcode::Ping, Opcode::Text] {
        peer.send_frame(Opcode::Pong, b"");
        peer.send_frame(opcode, b"x");
        assert_eq!(peer.frame().payload, b"x");
    }
    let burst = frame(Opcode::Text, b"y").repeat(20);
    peer.send(&burst);
    let close = loop {
        let frame = peer.frame();
        if frame.opcode == Opcode::Close {
            break frame;
        }
    };
    assert_eq!(close.close_code(), Some(1008));
    server.await_metric("fantail_closes_total", "message_rate", |closed| closed == 1);
    server.websocket("/echo").ping_pong();
}

#[test]
fn a_connection_that_sends_too_many_bytes_is_closed() {
    let server = start(&[
        ("FANTAIL_ADMISSION_BYTES_PER_SECOND", "1000"),
        ("FANTAIL_ADMISSION_BYTES_BURST", "2000"),
        ("FANTAIL_LIMITS_MESSAGE_BYTES_MAX", "1500"),
    ]);
    let mut peer = server.websocket("/echo");
    peer.send_frame(Opcode::Binary, &[0; 1_500]);
    assert_eq!(peer.frame().payload.len(), 1_500);
    // Frames that never become a message count, too.
    peer.try_send(&frame(Opcode::Pong, &[0; 100]).repeat(20));
    assert_eq!(peer.frame().close_code(), Some(1008));
    server.await_metric("fantail_closes_total", "byte_rate", |closed| closed == 1);
}

const PROXY: [(&str, &str); 3] = [
    ("FANTAIL_ADMISSION_TRUSTED_PROXIES", "127.0.0.1"),
    ("FANTAIL_ADMISSION_PROXY_PROTOCOL", "true"),
    ("FANTAIL_ADMISSION_PER_ADDRESS_MAX", "1"),
];

/// A PROXY header of version 2 for a client at this address.
fn version_2(source: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend_from_slice(&source);
    header.extend_from_slice(&[127, 0, 0, 1, 1, 1, 2, 2]);
    header
}

#[test]
fn a_proxy_header_tells_whose_connection_it_is() {
    let server = start(&PROXY);
    let ask = |header: &[u8]| {
        let mut peer = server.connect();
        // One byte at a time, header and head.
        let request = upgrade_request(server.listen, "/echo", "");
        for byte in [header, request.as_bytes()].concat().chunks(1) {
            peer.try_send(byte);
        }
        (peer.answer(), peer)
    };
    let line = |client: &str| format!("PROXY TCP4 {client} 127.0.0.1 4711 80\r\n").into_bytes();
    let (answer, mut first) = ask(&line("192.0.2.1"));
    assert_upgraded(&answer);
    first.ping_pong();
    assert_refused(&ask(&line("192.0.2.1")).0, 429);
    assert_refused(&ask(&version_2([192, 0, 2, 1])).0, 429);
    let (answer, second) = ask(&version_2([192, 0, 2, 2]));
    assert_upgraded(&answer);
    drop((first, second));
    wait_for("the client's place", || ask(&version_2([192, 0, 2, 1])).0.status == 101);
}

/// A browser's EventSource gives up for good on any status but 200, behind a proxy, too: whether its request comes with the
/// PROXY header or behind it.
#[test]
fn a_stream_whose_address_has_enough_is_told_when_to_come_back_behind_a_proxy_too() {
    let server = start(&PROXY);
    let line = b"PROXY TCP4 192.0.2.1 127.0.0.1 4711 80\r\n";
    let request = |path: &str, accept: &str| {
        format!("GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: {accept}\r\n\r\n", server.listen).into_bytes()
    };
    let mut inside = server.connect();
    inside.send(&[&line[..], upgrade_request(server.listen, "/echo", "").as_bytes()].concat());
    assert_upgraded(&inside.answer());
    let told = |refused: u64, path: &str, accept: &str, together: bool| {
        let mut peer = server.connect();
        if together {
            peer.send(&[&line[..], &request(path, accept)].concat());
        } else {
            peer.send(line);
            server.await_metric("fantail_refusals_total", "too_many_from_address", |count| count == refused);
            peer.send(&request(path, accept));
        }
        (peer.answer(), peer)
    };
    for (count, together) in [(1, true), (2, false)] {
        let (answer, mut peer) = told(count, "/sse/a", "text/event-stream", together);
        assert_eq!((answer.status, answer.field("content-type")), (200, Some("text/event-stream")));
        assert!(String::from_utf8_lossy(&answer.body).contains("retry: "), "{answer:?}");
        peer.expect_end();
    }
    for (count, together) in [(3, true), (4, false)] {
        assert_refused(&told(count, "/poll/a", "*/*", together).0, 429);
    }
    server.await_metric("fantail_connections", "", |open| open == 1);
}

#[test]
fn a_trusted_proxy_without_its_header_is_refused() {
    let server = start(&PROXY);
    let refused = |bytes: &[u8]| {
        let mut peer = server.connect();
        peer.try_send(bytes);
        assert_eq!(peer.answer().status, 400, "{bytes:?}");
        peer.expect_end();
    };
    refused(upgrade_request(server.listen, "/echo", "").as_bytes());
    refused(b"PROXY TCP4 192.0.2.1\r\n");
    refused(b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c");
    refused(format!("PROXY UNKNOWN {}", "x".repeat(200)).as_bytes());
    assert_eq!(server.metric("fantail_refusals_total", "proxy_header"), 4);
}

#[test]
fn from_anybody_else_a_proxy_header_is_no_request() {
    let server = start(&PROXY);
    for header in [b"PROXY TCP4 192.0.2.1 127.0.0.1 4711 80\r\n".to_vec(), version_2([192, 0, 2, 1])] {
        let mut stranger = from(&server, 2);
        stranger.try_send(&header);
        stranger.try_send(upgrade_request(server.listen, "/echo", "").as_bytes());
        assert_eq!(stranger.answer().status, 400);
        drop(stranger);
        server.await_metric("fantail_connections", "", |open| open == 0);
    }
    assert_eq!(server.metric("fantail_refusals_total", "bad_request"), 2);
    from(&server, 2).upgrade("/echo");
}

#[test]
fn a_forwarded_address_counts_if_the_proxy_is_trusted() {
    let server = start(&[PROXY[0], PROXY[2]]);
    let ask = |last: u8, forwarded: &str| {
        let mut peer = from(&server, last);
        let status = peer.ask_upgrade("/echo", forwarded).status;
        (status, peer)
    };
    let (status, held) = ask(1, "X-Forwarded-For: 8.8.8.8, 192.0.2.1\r\n");
    assert_eq!(status, 101);
    // What stands to the left is the client's own claim.
    let (status, mut refused) =
        ask(1, "X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-For: 192.0.2.1, 127.0.0.1\r\n");
    assert_eq!(status, 429);
    refused.expect_end();
    let (status, _other) = ask(1, "X-Forwarded-For: 192.0.2.2\r\n");
    assert_eq!(status, 101);
    // Without a usable address it is the proxy's own.
    let (first, _own) = ask(1, "");
    let (second, _) = ask(1, "X-Forwarded-For: unknown\r\n");
    assert_eq!((first, second), (101, 429));
    // A stranger is believed nothing.
    let (first, _stranger) = ask(2, "X-Forwarded-For: 192.0.2.3\r\n");
    let (second, _) = ask(2, "X-Forwarded-For: 192.0.2.4\r\n");
    assert_eq!((first, second), (101, 429));
    drop(held);
    wait_for("the client's place", || ask(1, "X-Forwarded-For: 192.0.2.1\r\n").0 == 101);
}
