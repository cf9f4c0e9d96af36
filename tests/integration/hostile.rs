//! Peers that mean harm: floods of each kind while a bystander echoes. What the floods cost in time is measured
//! by `benches/hostile.py`; here it is that everybody else is served, that all is counted, and that memory
//! stays where its bound says.

use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use fantail::sys::socket::reset_on_close;
use fantail::wire::frame::{Opcode, push_frame};

use crate::client::{Peer, frame, upgrade_request};
use crate::reload::ConfigFile;
use crate::server::{Server, dial, wait_for};

pub(crate) const MIB: u64 = 1 << 20;

/// Somebody who was there before and goes on.
pub(crate) struct Bystander(Peer);

impl Bystander {
    pub(crate) fn of(server: &Server) -> Self {
        Self(server.websocket("/echo"))
    }

    /// One message there and back, within the patience of a test.
    pub(crate) fn echoes(&mut self) {
        self.0.send_frame(Opcode::Text, b"still here");
        assert_eq!(self.0.text(), "still here");
    }
}

pub(crate) fn resident(server: &Server) -> u64 {
    server.metric("process_resident_memory_bytes", "")
}

/// Runs a flood while the bystander echoes on a thread of its own until the flood is over.
pub(crate) fn meanwhile(bystander: &mut Bystander, flood: impl FnOnce()) {
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                bystander.echoes();
            }
        });
        let _end = SetOnDrop(&over);
        flood();
    });
    bystander.echoes();
}

/// Ends the loop of another thread, also when assertions fail: nobody waits for it for ever.
pub(crate) struct SetOnDrop<'a>(pub(crate) &'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn half_open_handshakes_stop_at_their_bound() {
    const BOUND: u64 = 300;
    let server = Server::start(&["--loops", "2"], &[("FANTAIL_ADMISSION_HANDSHAKES_MAX", "300")]);
    let mut bystander = Bystander::of(&server);
    let before = resident(&server);
    let mut half_open: Vec<TcpStream> = Vec::new();
    meanwhile(&mut bystander, || half_open.extend((0..700).map(|_| dial(server.listen))));
    server.await_metric("fantail_refusals_total", "handshakes", |refused| refused == 700 - BOUND);
    assert_eq!(server.metric("fantail_handshakes", ""), BOUND);
    assert!(server.metric("fantail_refused_at_once_total", "") > 0);
    assert!(resident(&server) < before + 4 * MIB, "{before} -> {}", resident(&server));
    drop(half_open);
    server.await_metric("fantail_handshakes", "", |pending| pending == 0);
    server.websocket("/echo").ping_pong();
}

#[test]
fn slow_heads_hold_no_more_than_a_head_each() {
    let timeout =
        |seconds: &str| format!("[timeouts]\nhandshake_seconds = {seconds}\nlinger_seconds = 600\n");
    let file = ConfigFile::new(&timeout("600"));
    let server = Server::start(&["--loops", "1", "--config", file.path()], &[]);
    let mut bystander = Bystander::of(&server);
    let before = resident(&server);
    let mut slow: Vec<Peer> = (0..200).map(|_| server.connect()).collect();
    let head = upgrade_request(server.listen, "/echo", &format!("X-Padding: {}\r\n", "x".repeat(4_000)));
    let head = head.trim_end_matches("\r\n");
    meanwhile(&mut bystander, || {
        // All but the last bytes, in pieces that never end a line at their end.
        for piece in head.as_bytes().chunks(500) {
            slow.iter_mut().for_each(|peer| peer.try_send(piece));
        }
    });
    server.await_metric("fantail_inbox_bytes", "", |bytes| bytes >= 200 * 4_000);
    assert!(resident(&server) < before + 8 * MIB, "{before} -> {}", resident(&server));
    // Their time is over when all of it has come.
    file.write(&timeout("0.5"));
    server.signal("HUP");
    server.await_metric("fantail_refusals_total", "\"timeout\"", |timeouts| timeouts == 200);
    assert!(slow.iter_mut().all(|peer| peer.answer().status == 408));
    bystander.echoes();
}

#[test]
fn slow_frames_hold_what_they_sent_and_no_more() {
    let server = Server::start(&["--loops", "1"], &[("FANTAIL_LIMITS_INBOX_BYTES_TOTAL", "16 MiB")]);
    let mut bystander = Bystander::of(&server);
    let before = resident(&server);
    // Each announces 16 MiB and sends a little of it; nothing is allocated on an announcement.
    let mut slow: Vec<Peer> = (0..100).map(|_| server.websocket("/echo")).collect();
    let announced = {
        let mut bytes = vec![0x82, 0xff];
        bytes.extend_from_slice(&(16 * MIB).to_be_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes
    };
    meanwhile(&mut bystander, || {
        for piece in announced.chunks(3).chain([[0_u8; 1_000].as_slice(); 10]) {
            slow.iter_mut().for_each(|peer| peer.try_send(piece));
        }
    });
    assert!(resident(&server) < before + 8 * MIB, "{before} -> {}", resident(&server));
    // And all together no more than the total: who goes on is closed.
    for peer in &mut slow {
        peer.try_send(&vec![0; 512 * 1024]);
    }
    server.await_metric("fantail_closes_total", "inbox_full", |closed| closed > 0);
    bystander.echoes();
}

#[test]
fn a_ping_flood_that_reads_nothing_waits_for_itself() {
    let server = Server::start(&["--loops", "1"], &[]);
    let mut bystander = Bystander::of(&server);
    let before = resident(&server);
    let flooder = server.websocket("/echo");
    flooder.stream.set_nonblocking(true).expect("an option");
    let pings = frame(Opcode::Ping, &[b'p'; 125]).repeat(4_000);
    meanwhile(&mut bystander, || {
        // Until the server reads no more of what is not read from it.
        let mut stream = &flooder.stream;
        wait_for("the flood to stand", || {
            use std::io::Write;
            while stream.write(&pings).is_ok() {}
            server.metric("fantail_would_blocks_total", "") > 0
        });
    });
    assert!(resident(&server) < before + 8 * MIB, "{before} -> {}", resident(&server));
}

#[test]
fn a_fragment_flood_ends_at_the_limit() {
    let server = Server::start(&["--loops", "1"], &[("FANTAIL_LIMITS_FRAGMENTS_MAX", "65536")]);
    let mut bystander = Bystander::of(&server);
    let mut flooder = server.websocket("/echo");
    let mut fragments = Vec::new();
    push_frame(&mut fragments, Opcode::Binary, b"", Some([0; 4]));
    // Without FIN.
    fragments.iter_mut().take(1).for_each(|byte| *byte &= 0x7f);
    let mut more = Vec::new();
    push_frame(&mut more, Opcode::Continuation, b"", Some([0; 4]));
    more.iter_mut().take(1).for_each(|byte| *byte &= 0x7f);
    fragments.extend(more.repeat(70_000));
    meanwhile(&mut bystander, || flooder.try_send(&fragments));
    assert_eq!(flooder.frame().close_code(), Some(1008));
    server.await_metric("fantail_closes_total", "too_many_fragments", |closed| closed == 1);
}

#[test]
fn connects_and_resets_leave_nothing_behind() {
    let server = Server::start(&["--loops", "2"], &[]);
    let mut bystander = Bystander::of(&server);
    let before = resident(&server);
    let request = upgrade_request(server.listen, "/ws/flood", "");
    meanwhile(&mut bystander, || {
        for number in 0..3_000 {
            let mut peer = server.connect();
            // Some say nothing, some half, some all of it before they reset.
            let said = [0, request.len() / 2, request.len()][number % 3];
            peer.try_send(request.as_bytes().get(..said).unwrap_or_default());
            let _ = reset_on_close(&peer.stream);
        }
    });
    // Resets that arrive before the accept are accepted all the same.
    server.await_metric("fantail_connections_closed_total", "", |closed| closed == 3_000);
    assert_eq!(server.metric("fantail_connections_accepted_total", ""), 3_001);
    assert_eq!(server.metric("fantail_handshakes", ""), 0);
    assert!(resident(&server) < before + 8 * MIB, "{before} -> {}", resident(&server));
}

#[test]
fn above_the_capacity_everybody_is_answered_and_few_are_held() {
    let server = Server::start(&["--loops", "1", "--connections-max", "10"], &[]);
    let mut bystander = Bystander::of(&server);
    let inside: Vec<Peer> = (0..9).map(|_| server.websocket("/ws")).collect();
    let mut outside: Vec<Peer> = Vec::new();
    // They say nothing: those that have a slot are answered after a while, the others at once.
    meanwhile(&mut bystander, || outside.extend((0..500).map(|_| server.connect())));
    server.await_metric("fantail_refusals_total", "at_capacity", |refused| refused == 500);
    assert!(server.metric("fantail_connections", "") <= 10 + 32);
    assert!(server.metric("fantail_refused_at_once_total", "") >= 500 - 2 * 32);
    for peer in &mut outside {
        let answer = peer.answer();
        assert_eq!((answer.status, answer.field("retry-after")), (503, Some("1")));
        peer.expect_end();
    }
    drop((inside, outside));
    server.await_metric("fantail_connections", "", |open| open == 1);
    server.websocket("/echo").ping_pong();
}

#[test]
fn many_requests_in_one_piece_do_not_end_the_server() {
    const REQUESTS: usize = 1_000;
    let server = Server::start(&["--loops", "1"], &[]);
    let mut bystander = Bystander::of(&server);
    let bare: &[u8] = b"GET /none HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let chunked = b"GET /none HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    for (mut peer, request) in [(server.connect(), bare), (server.connect_admin(), chunked)] {
        meanwhile(&mut bystander, || {
            peer.send(&request.repeat(REQUESTS));
            for _ in 0..REQUESTS {
                assert_eq!(peer.answer().status, 404);
            }
        });
    }
}
