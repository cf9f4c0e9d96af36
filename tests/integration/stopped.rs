//! A process that is stopped for a while and goes on: nobody is late for what lies in the kernel.

use std::time::{Duration, Instant};

use fantail::sys::limits::raise_nofile;
use fantail::wire::frame::Opcode;

use crate::client::Peer;
use crate::server::{Server, wait_for};

/// More than the events of one poll, so that some of what has arrived is not among the first.
const CLIENTS: usize = 1_500;

#[test]
fn those_whose_pongs_arrived_while_the_process_was_stopped_stay() {
    raise_nofile().expect("a limit");
    let server = Server::start(
        &["--loops", "1"],
        &[
            ("FANTAIL_TIMEOUTS_HEARTBEAT_SECONDS", "1"),
            ("FANTAIL_TIMEOUTS_PONG_SECONDS", "4"),
            ("FANTAIL_ADMISSION_PER_ADDRESS_MAX", "0"),
        ],
    );
    let mut peers: Vec<Peer> = (0..CLIENTS).map(|_| server.websocket("/echo")).collect();
    let sent = || server.metric("fantail_heartbeats_sent_total", "");
    let (mut answered, mut last) = (0, 0);
    // Answers until everybody has a ping at the same time.
    wait_for("everybody to be pinged", || {
        last = sent();
        last >= (answered + CLIENTS) as u64 || {
            for peer in peers.iter_mut().filter(|_| answered == 0) {
                assert_eq!(peer.frame().opcode, Opcode::Ping);
                peer.send_frame(Opcode::Pong, b"");
            }
            answered = CLIENTS;
            false
        }
    });
    server.signal("STOP");
    // Those who came first answer last.
    for peer in peers.iter_mut().rev() {
        peer.send_frame(Opcode::Pong, b"");
    }
    let stopped = Instant::now();
    std::thread::sleep(Duration::from_secs(6).saturating_sub(stopped.elapsed()));
    server.signal("CONT");
    for peer in &mut peers {
        peer.send_frame(Opcode::Text, b"still there");
        loop {
            let frame = peer.frame();
            if frame.opcode == Opcode::Text {
                break;
            }
            assert_eq!(frame.opcode, Opcode::Ping);
            peer.send_frame(Opcode::Pong, b"");
        }
    }
    assert_eq!(server.metric("fantail_closes_total", "heartbeat_timeout"), 0);
}
