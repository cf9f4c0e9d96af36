//! A process that is stopped for a while and goes on: nobody is late for what lies in the kernel.

use std::time::{Duration, Instant};

use fantail::sys::limits::raise_nofile;
use fantail::wire::frame::Opcode;

use crate::client::Peer;
use crate::reload::ConfigFile;
use crate::server::{Server, on_free_ports, undisturbed, wait_for};

/// More than the events of one poll, so that some of what has arrived is not among the first.
const CLIENTS: usize = 1_500;

/// Nobody is ended sooner after a ping.
const PONG: Duration = Duration::from_secs(4);

/// What the file says of heartbeats, in seconds.
fn timeouts(heartbeat: u64, pong: u64) -> String {
    format!(
        "[timeouts]\nheartbeat_seconds = {heartbeat}\npong_seconds = {pong}\nwrite_timeout_seconds = 600\n"
    )
}

#[test]
fn those_whose_pongs_arrived_while_the_process_was_stopped_stay() {
    raise_nofile().expect("a limit");
    undisturbed("signals in time", || {
        // Nobody is pinged before everybody is there.
        let file = ConfigFile::new(&timeouts(0, PONG.as_secs()));
        let flags = ["--loops", "1", "--config", file.path()];
        let server = Server::spawn(on_free_ports(&flags, &[("FANTAIL_ADMISSION_PER_ADDRESS_MAX", "0")]));
        let mut peers: Vec<Peer> = (0..CLIENTS).map(|_| server.websocket("/echo")).collect();
        let reload = |heartbeat, pong| {
            file.write(&timeouts(heartbeat, pong));
            server.signal("HUP");
        };
        stop_between_ping_and_pong(&server, &mut peers, &reload)?;
        for peer in &mut peers {
            peer.send_frame(Opcode::Text, b"still there");
            let frame = std::iter::from_fn(|| peer.next_frame()).find(|frame| frame.opcode != Opcode::Ping);
            assert_eq!(frame.map(|frame| frame.payload), Some(b"still there".to_vec()));
        }
        Some(())
    });
}

/// Everybody is pinged and answers while the process is stopped, for longer than an answer may take. `None`: somebody may
/// have been ended before it was stopped, or for the next ping.
fn stop_between_ping_and_pong(server: &Server, peers: &mut [Peer], reload: &dyn Fn(u64, u64)) -> Option<()> {
    let sent = || server.metric("fantail_heartbeats_sent_total", "");
    let timed_out = || server.metric("fantail_closes_total", "heartbeat_timeout");
    let asked = Instant::now();
    reload(1, PONG.as_secs());
    wait_for("everybody to be pinged", || sent() + timed_out() >= CLIENTS as u64);
    server.signal("STOP");
    if asked.elapsed() >= PONG {
        return None;
    }
    // Those who came first answer last.
    for peer in peers.iter_mut().rev() {
        peer.send_frame(Opcode::Pong, b"");
    }
    let stopped = Instant::now();
    std::thread::sleep((PONG + Duration::from_secs(1)).saturating_sub(stopped.elapsed()));
    let resumed = Instant::now();
    server.signal("CONT");
    // Who was taken for alive is pinged once more, a second later.
    wait_for("everybody to be pinged again", || sent() + timed_out() >= 2 * CLIENTS as u64);
    reload(0, 600);
    server.await_metric("fantail_config_reloads_total", "applied", |count| count == 2);
    let ended = timed_out();
    if resumed.elapsed() >= PONG {
        return None;
    }
    assert_eq!(ended, 0);
    Some(())
}
