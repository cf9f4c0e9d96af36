//! Request bodies on the admin port: bounded one by one and all together, and given back.

use crate::client::Peer;
use crate::server::{Server, wait_for};

const MIB: usize = 1 << 20;

/// The sample of the admin loop, which `Server::metric` leaves out, in whole KiB: the heads of the requests are in it.
fn held(server: &Server) -> u64 {
    let text = server.get("/metrics").text();
    let sample = text.lines().find_map(|line| line.strip_prefix("fantail_inbox_bytes{loop=\"admin\"} "));
    sample.and_then(|value| value.parse::<u64>().ok()).expect("a sample") >> 10 << 10
}

/// A publish of one MiB of which so much is sent.
fn begin(server: &Server, sent: usize) -> Peer {
    let mut peer = server.connect_admin();
    peer.send(
        format!("POST /publish/a HTTP/1.1\r\nHost: {}\r\nContent-Length: {MIB}\r\n\r\n", server.admin)
            .as_bytes(),
    );
    peer.send(&vec![b'x'; sent]);
    peer
}

#[test]
fn all_bodies_together_are_bounded_and_given_back() {
    let limits = [
        ("FANTAIL_LIMITS_ADMIN_BODY_BYTES_MAX", "1 MiB"),
        ("FANTAIL_LIMITS_ADMIN_BODY_BYTES_TOTAL", "2 MiB"),
    ];
    let server = Server::start(&["--loops", "1"], &limits);
    let first = begin(&server, 900 << 10);
    let mut second = begin(&server, 900 << 10);
    wait_for("both to be held", || held(&server) == 2 * (900 << 10));
    let mut third = begin(&server, 900 << 10);
    let answer = third.answer();
    assert_eq!((answer.status, answer.field("retry-after")), (503, Some("1")), "{answer:?}");
    assert!(answer.text().contains("bodies together"), "{answer:?}");
    // Refusals are summed over all loops, without their label.
    assert_eq!(server.metric("fantail_refusals_total", "bodies_full"), 1);
    // What is small goes through, and what was begun can end.
    assert_eq!(server.publish("a", b"small").status, 200);
    assert_eq!(held(&server), 2 * (900 << 10), "what was refused is not held");
    second.send(&vec![b'x'; MIB - (900 << 10)]);
    assert_eq!(second.answer().status, 200);
    wait_for("one to be held", || held(&server) == 900 << 10);
    drop(first);
    wait_for("nothing to be held", || held(&server) == 0);
    assert_eq!(server.publish("a", &vec![b'x'; MIB]).status, 200);
    assert_eq!(held(&server), 0);
}

#[test]
fn a_batch_is_held_until_it_is_done() {
    let server = Server::start(&["--loops", "1"], &[]);
    let line = b"{\"topic\":\"a\",\"payload\":\"x\"}\n";
    let body = line.repeat(200_000);
    let mut admin = server.connect_admin();
    let head =
        format!("POST /publish HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n", server.admin, body.len());
    admin.send(head.as_bytes());
    admin.send(&body);
    // Nobody reads the answer yet: it is held up, and so is its body.
    wait_for("the batch to be under way", || held(&server) == body.len() as u64 >> 10 << 10);
    assert_eq!(admin.answer().text().lines().count(), 200_000);
    wait_for("it to be done", || held(&server) == 0);
    // A chunked body that breaks off, and one that never ends.
    let mut broken = server.connect_admin();
    broken.send(
        format!(
            "POST /publish HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
            server.admin
        )
        .as_bytes(),
    );
    assert_eq!(broken.answer().status, 400);
    assert_eq!(held(&server), 0);
}
