//! Peers that send on while they do not read: nothing they asked for is forgotten when they read again.

use std::net::TcpStream;
use std::process::Command;

use fantail::sys::socket::set_buffers;
use fantail::wire::frame::Opcode;
use fantail_test_support::confine::lower_nofile_in_child;

use crate::client::{Peer, frame};
use crate::preflight::MemoryGroup;
use crate::reload::ConfigFile;
use crate::server::{Server, dial, on_free_ports, wait_for};
use crate::skip::skipped;

/// Narrow enough that a few answers fill the way to the peer.
fn narrow(peer: &Peer) {
    set_buffers(&peer.stream, None, Some(64 * 1024)).expect("an option");
}

#[test]
fn requests_behind_a_backlog_are_all_answered() {
    const REQUESTS: usize = 200;
    let server = Server::start(&["--loops", "1"], &[]);
    let mut peer = server.connect();
    narrow(&peer);
    let request = format!("GET / HTTP/1.1\r\nHost: {}\r\n\r\n", server.listen);
    peer.send(request.repeat(REQUESTS).as_bytes());
    server.await_metric("fantail_outbox_bytes", "", |bytes| bytes > 0);
    for number in 0..REQUESTS {
        assert_eq!(peer.answer().status, 200, "answer {number}");
    }
}

#[test]
fn a_drain_reads_on_behind_what_was_put_aside() {
    let mut server = Server::start(&["--loops", "1"], &[("FANTAIL_TIMEOUTS_CLOSE_SECONDS", "600")]);
    let mut peer = server.websocket("/echo");
    narrow(&peer);
    let message = vec![b'x'; 8 << 20];
    peer.send(&[frame(Opcode::Binary, &message), frame(Opcode::Text, b"behind it")].concat());
    server.await_metric("fantail_outbox_bytes", "", |bytes| bytes > 0);
    server.terminate();
    server.await_log("draining");
    assert_eq!(peer.frame().payload.len(), message.len());
    let close = loop {
        let frame = peer.frame();
        if frame.opcode == Opcode::Close {
            break frame;
        }
    };
    assert_eq!(close.close_code(), Some(1001));
    peer.send_frame(Opcode::Close, &1001_u16.to_be_bytes());
    peer.expect_end();
    // Long before the minutes that an unseen close frame would have been waited for.
    assert!(server.await_exit().success());
}

#[test]
fn a_peer_behind_its_backlog_is_not_taken_for_dead() {
    let timeouts = |heartbeat: &str| {
        format!(
            "[timeouts]\nheartbeat_seconds = {heartbeat}\npong_seconds = 1\nwrite_timeout_seconds = 600\n"
        )
    };
    let file = ConfigFile::new(&timeouts("0"));
    let server = Server::spawn(on_free_ports(&["--loops", "1", "--config", file.path()], &[]));
    let mut slow = server.websocket("/echo");
    narrow(&slow);
    let message = vec![b'x'; 12 << 20];
    slow.send(&frame(Opcode::Binary, &message));
    server.await_metric("fantail_outbox_bytes", "", |bytes| bytes > 0);
    file.write(&timeouts("0.3"));
    server.signal("HUP");
    server.await_metric("fantail_config_reloads_total", "applied", |count| count == 1);
    // Others measure the time: they read, don't answer, and are taken for dead while the slow one reads nothing.
    for _ in 0..2 {
        let mut clock = server.websocket("/echo");
        while let Some(frame) = clock.next_frame() {
            assert_eq!(frame.opcode, Opcode::Ping);
        }
    }
    let timed_out = || server.metric("fantail_closes_total", "heartbeat_timeout");
    assert_eq!(timed_out(), 2);
    // Once it reads, silence is no backlog any more.
    file.write(&timeouts("0"));
    server.signal("HUP");
    server.await_metric("fantail_config_reloads_total", "applied", |count| count == 2);
    assert_eq!(slow.frame().payload.len(), message.len());
    slow.ping_pong();
    assert_eq!(timed_out(), 2);
}

#[test]
fn a_listener_given_up_is_taken_back_when_the_sweep_makes_room() {
    let environment =
        [("FANTAIL_TIMEOUTS_HANDSHAKE_SECONDS", "2"), ("FANTAIL_TIMEOUTS_LINGER_SECONDS", "0.2")];
    let mut command: Command = on_free_ports(&["--loops", "2"], &environment);
    lower_nofile_in_child(&mut command, 128, 128);
    let server = Server::spawn(command);
    // One loop holds 64 connections: with 120 silent ones at least one of the two has given up its listener.
    let silent: Vec<TcpStream> = (0..120).map(|_| dial(server.listen)).collect();
    server.await_metric("fantail_connections_accepted_total", "", |accepted| accepted >= 120);
    server.await_metric("fantail_connections", "", |open| open == 0);
    drop(silent);
    // Both loops serve again: the kernel spreads newcomers over two listeners.
    let mut peers = Vec::new();
    wait_for("a connection on each loop", || {
        peers.push(server.websocket("/echo"));
        ["0", "1"].iter().all(|index| {
            let label = format!("loop=\"{index}\"");
            server.metric("fantail_connections", &label) > 0
        })
    });
}

/// What may wait is a share of what the group has, so slow consumers can't get the server killed.
#[test]
fn slow_consumers_do_not_fill_a_small_memory_group() {
    const SLOW: usize = 300;
    let Some(group) = MemoryGroup::new(48 << 20) else { return skipped("memory-group") };
    let flags = ["--loops", "2", "--connections-max", "1000"];
    let server = Server::spawn(group.enter(&on_free_ports(&flags, &[])));
    let line = server.await_log("what may wait");
    assert!(line.contains("48 MiB") && line.contains("fantail-test-"), "{line}");
    let peers: Vec<Peer> = (0..SLOW)
        .map(|number| {
            let mut peer = server.connect();
            set_buffers(&peer.stream, None, Some(4 * 1024)).expect("small buffers");
            peer.upgrade(&format!("/ws/slow-{number}"));
            peer
        })
        .collect();
    let message = vec![b'x'; 512 << 10];
    for number in 0..SLOW {
        let topic = format!("slow-{number}");
        // A loop that is behind refuses, and takes it a moment later.
        wait_for("room in the mailboxes", || server.publish(&topic, &message).status == 200);
    }
    // They are delivered or dropped, and the server lives on.
    server.await_metric("fantail_drops_total", "", |drops| drops > 0);
    let most = server.metric("fantail_outbox_held_bytes_max", "");
    assert!(most < 24 << 20 && server.metric("fantail_outbox_held_bytes", "") <= most, "{most}");
    let mut reader = server.websocket("/ws/other");
    assert_eq!(server.publish("other", b"still here").status, 200);
    assert_eq!(reader.text(), "still here");
    drop((peers, server));
}

#[test]
fn bounds_that_are_more_than_the_memory_are_warned_of() {
    let Some(group) = MemoryGroup::new(200 << 20) else { return skipped("memory-group") };
    let server = Server::spawn(
        group.enter(&on_free_ports(&["--loops", "1"], &[("FANTAIL_OUTBOX_BYTES_TOTAL", "256 MiB")])),
    );
    let line = server.await_log("may wait, which is more than");
    assert!(line.contains("WARN") && line.contains("200 MiB of the control group"), "{line}");
}
