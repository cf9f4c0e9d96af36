//! Memory that comes back: what those who stay after a peak keep.

use fantail::sys::limits::raise_nofile;
use fantail::sys::process::memory;
use fantail::wire::frame::Opcode;

use crate::client::{Peer, frame};
use crate::server::{Server, wait_for};

/// Opens a fragmented message that never ends here.
fn fragment() -> Vec<u8> {
    let mut bytes = frame(Opcode::Text, &[b'x'; 1_024]);
    bytes[0] &= 0x7F;
    bytes
}

#[test]
fn survivors_of_a_peak_do_not_pin_its_memory() {
    const PEAK: usize = 3_000;
    const STAYING: usize = PEAK / 10;
    raise_nofile().expect("a limit");
    let server = Server::start(&["--loops", "1"], &[]);
    let user_bytes = || memory(Some(server.pid())).expect("a process").user_bytes();
    let empty = user_bytes();
    let mut peers: Vec<Peer> = (0..PEAK).map(|_| server.websocket("/ws/peak")).collect();
    for peer in &mut peers {
        peer.send(&fragment());
        peer.send_frame(Opcode::Ping, b"");
    }
    for peer in &mut peers {
        assert_eq!(peer.frame().opcode, Opcode::Pong);
    }
    let peak = user_bytes();
    assert!(peak > empty + PEAK as u64 * 1_024, "{empty} then {peak}");
    // Every tenth stays, so that each is alone among those who leave.
    let mut place = 0;
    peers.retain(|_| {
        place += 1;
        place % 10 == 0
    });
    assert_eq!(peers.len(), STAYING);
    // Alone they need 1.3 KB each; where each keeps its pages, it is more than 5.
    let limit = empty + 500_000 + STAYING as u64 * 2_500;
    wait_for("memory to come back", || user_bytes() < limit);
    // What they hold is what they sent: each can end its message.
    for peer in peers.iter_mut().take(3) {
        peer.send_frame(Opcode::Continuation, b"end");
        peer.send_frame(Opcode::Ping, b"still there");
        assert_eq!(peer.frame().opcode, Opcode::Pong);
    }
}

#[test]
fn large_bodies_on_the_admin_port_leave_nothing_behind() {
    const BODY: usize = 16 << 20;
    let server = Server::start(&["--loops", "1"], &[]);
    let user_bytes = || memory(Some(server.pid())).expect("a process").user_bytes();
    let line = format!("{{\"topic\":\"a\",\"payload\":\"{}\"}}\n", "x".repeat(64_000));
    let batch = line.repeat(BODY / line.len());
    let send = || {
        let answer = server.post("/publish", "", batch.as_bytes());
        assert_eq!((answer.status, answer.text().lines().count()), (200, BODY / line.len()));
    };
    // The first request makes what stays: the topic, the loop's buffers.
    assert_eq!(server.post("/publish", "", line.as_bytes()).status, 200);
    let empty = user_bytes();
    // The first ones make the allocator expect more of that size.
    (0..4).for_each(|_| send());
    wait_for("the memory of batches to come back", || user_bytes() < empty + (3 << 20));
    // Too large for one message, which is seen when all of it is there.
    assert_eq!(server.publish("a", &vec![b'x'; BODY]).status, 413);
    wait_for("the memory of a body to come back", || user_bytes() < empty + (3 << 20));
}
