//! What subscribers get: topics, echoes, slow consumers, heartbeats, publishing by clients.

use std::time::{Duration, Instant};

use fantail::sys::socket::{reset_on_close, set_buffers};
use fantail::wire::frame::Opcode;

use crate::client::{Peer, frame as frame_of};
use crate::server::{PATIENCE, Server, undisturbed};

/// A payload large enough to fill the kernel's buffers soon, with a number in front.
fn numbered(number: usize) -> String {
    format!("{number:06}{}", "x".repeat(64 * 1024))
}

fn number_of(payload: &str) -> usize {
    payload.get(..6).and_then(|text| text.parse().ok()).expect("a number")
}

/// A subscriber that does not read, with little room in its kernel. Less than a loopback segment would make
/// the kernel probe its window a few times a second instead of sending.
fn stalled(server: &Server, path: &str) -> Peer {
    let mut peer = server.connect();
    set_buffers(&peer.stream, None, Some(128 * 1024)).expect("small buffers");
    peer.upgrade(path);
    peer
}

#[test]
fn a_client_gets_all_its_topics() {
    let server = Server::start(&["--loops", "2"], &[]);
    let mut peer = server.websocket("/ws/a?topic=b&topic=c%2Fd");
    for topic in ["a", "b", "c/d"] {
        assert_eq!(server.publish(topic, topic.as_bytes()).status, 200);
        assert_eq!(peer.text(), topic);
    }
    server.publish("e", b"not for it");
    server.publish("a", b"last");
    assert_eq!(peer.text(), "last");
}

#[test]
fn everybody_gets_everything_in_order() {
    let server = Server::start(&["--loops", "3"], &[]);
    let mut peers: Vec<Peer> = (0..20).map(|_| server.websocket("/ws")).collect();
    for number in 0..30 {
        // By turns from a client and from the operator.
        if number % 2 == 0 {
            assert_eq!(server.publish("lobby", number.to_string().as_bytes()).status, 200);
        } else {
            peers[number % 20].send_frame(Opcode::Text, number.to_string().as_bytes());
        }
        for peer in &mut peers {
            assert_eq!(peer.text(), number.to_string());
        }
    }
}

#[test]
fn echo_0_spares_the_publisher() {
    let server = Server::start(&["--loops", "2"], &[]);
    let mut quiet = server.websocket("/ws?echo=0");
    let mut other = server.websocket("/ws");
    quiet.send_frame(Opcode::Text, b"mine");
    assert_eq!(other.text(), "mine");
    other.send_frame(Opcode::Text, b"yours");
    assert_eq!(quiet.text(), "yours");
    assert_eq!(other.text(), "yours");
}

#[test]
fn publishes_to_other_topics_are_ignored_and_then_end_the_connection() {
    let server = Server::start(&["--loops", "1"], &[]);
    let mut listener = server.websocket("/ws/news");
    let mut peer = server.websocket("/ws/news");
    for _ in 0..100 {
        peer.send_frame(Opcode::Text, b"hear me");
    }
    peer.ping_pong();
    assert_eq!(server.metric("fantail_publishes_ignored_total", ""), 100);
    peer.send_frame(Opcode::Text, b"hear me");
    assert_eq!(peer.frame().close_code(), Some(1008));
    peer.expect_end();
    server.publish("news", b"official");
    assert_eq!(listener.text(), "official");
}

#[test]
fn topics_can_be_opened_to_clients() {
    let server = Server::start(&["--loops", "1"], &[("FANTAIL_PUBLISH_TOPICS", "room-*")]);
    let mut peer = server.websocket("/ws/room-1");
    peer.send_frame(Opcode::Text, b"hello");
    assert_eq!(peer.text(), "hello");
    let mut lobby = server.websocket("/ws/lobby");
    lobby.send_frame(Opcode::Text, b"hello");
    lobby.ping_pong();
}

#[test]
fn silence_is_pinged_and_an_unanswered_ping_ends_it() {
    let settings = [("FANTAIL_TIMEOUTS_HEARTBEAT_SECONDS", "0.3"), ("FANTAIL_TIMEOUTS_PONG_SECONDS", "0.5")];
    let server = Server::start(&["--loops", "1"], &settings);
    let mut late = 0;
    let mut peer = undisturbed("pongs in time", || {
        let mut said = vec![Instant::now()];
        let mut peer = server.websocket("/ws/quiet");
        while let Some(frame) = peer.next_frame() {
            assert_eq!(frame.opcode, Opcode::Ping);
            if said.len() > 3 {
                return Some(peer);
            }
            said.push(Instant::now());
            peer.try_send(&frame_of(Opcode::Pong, b""));
        }
        // The test came too late with a pong, or to read what it was to answer.
        said.push(Instant::now());
        let pauses = said.windows(2).map(|pair| pair[1] - pair[0]);
        assert!(pauses.max() > Some(Duration::from_millis(500)), "it had answered all pings");
        late += 1;
        None
    });
    // Not answered.
    assert_eq!(peer.next_frame(), None);
    assert_eq!(server.metric("fantail_closes_total", "heartbeat_timeout"), late + 1);
    server.await_metric("fantail_connections", "", |open| open == 0);
}

#[test]
fn a_stalled_subscriber_is_closed_while_others_get_everything() {
    let server = Server::start(&["--loops", "2"], &[("FANTAIL_TIMEOUTS_WRITE_TIMEOUT_SECONDS", "0.5")]);
    let _stalled = stalled(&server, "/ws/big");
    let mut readers: Vec<Peer> = (0..3).map(|_| server.websocket("/ws/big")).collect();
    // Of the others the kernel takes a whole message, whenever the test comes to read it.
    readers.iter().for_each(|peer| set_buffers(&peer.stream, None, Some(1 << 20)).expect("large buffers"));
    for number in 0..60 {
        assert_eq!(server.publish("big", numbered(number).as_bytes()).status, 200);
        for reader in &mut readers {
            assert_eq!(number_of(&reader.text()), number);
        }
    }
    server.await_metric("fantail_closes_total", "write_timeout", |closed| closed == 1);
    server.await_metric("fantail_connections", "", |open| open == 3);
    // What the outbox held is given back with it.
    server.await_metric("fantail_outbox_bytes", "", |bytes| bytes == 0);
    server.publish("big", b"000060");
    readers.iter_mut().for_each(|reader| assert_eq!(number_of(&reader.text()), 60));
}

#[test]
fn a_slow_consumer_misses_the_newest_and_it_is_counted() {
    let server = Server::start(&["--loops", "1"], &[]);
    let mut slow = stalled(&server, "/ws/big");
    let mut sent = 0;
    while server.metric("fantail_drops_total", "drop-newest") < 5 {
        assert!(sent < 500, "nothing was ever dropped");
        assert_eq!(server.publish("big", numbered(sent).as_bytes()).status, 200);
        sent += 1;
    }
    // Publishing is answered before the fan-out is through.
    server.await_metric("fantail_mailbox_entries", "", |entries| entries == 0);
    let dropped = server.metric("fantail_drops_total", "drop-newest") as usize;
    // Not necessarily the first ones in a row: the kernel may take some more late, and that makes room.
    let got: Vec<_> = (0..sent - dropped).map(|_| number_of(&slow.text())).collect();
    assert_eq!(got.first(), Some(&0));
    assert!(got.is_sorted_by(|a, b| a < b) && got.iter().all(|number| *number < sent), "{got:?}");
    // Having caught up, it gets what comes next.
    server.await_metric("fantail_outbox_bytes", "", |bytes| bytes == 0);
    assert_eq!(server.publish("big", b"999999").status, 200);
    assert_eq!(number_of(&slow.text()), 999_999);
}

#[test]
fn a_peer_that_reads_nothing_of_its_echoes_gets_them_all_later() {
    let server = Server::start(&["--loops", "1"], &[]);
    let mut peer = stalled(&server, "/echo");
    peer.stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    let mut writer = peer.stream.try_clone().expect("a second handle");
    let sender = std::thread::spawn(move || {
        for number in 0..40 {
            let frame = crate::client::frame(Opcode::Text, numbered(number).as_bytes());
            std::io::Write::write_all(&mut writer, &frame).expect("the server reads on in the end");
        }
    });
    for number in 0..40 {
        assert_eq!(number_of(&peer.text()), number);
    }
    sender.join().expect("all sent");
}

#[test]
fn a_reset_peer_frees_its_slot() {
    let server = Server::start(&["--loops", "2"], &[]);
    let peer = server.websocket("/ws");
    server.await_metric("fantail_connections", "", |open| open == 1);
    reset_on_close(&peer.stream).expect("an option");
    drop(peer);
    server.await_metric("fantail_connections", "", |open| open == 0);
    assert_eq!(server.metric("fantail_closes_total", "peer_reset"), 1);
    let answer = server.publish("lobby", b"anybody?").text();
    assert!(answer.contains("\"subscribers\":0"), "{answer}");
}
