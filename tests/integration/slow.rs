//! Slow consumers: what each policy leaves them, with every missing message counted, and rules by topic.

use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fantail::sys::socket::set_buffers;
use fantail::wire::frame::Opcode;

use crate::client::{Peer, frame};
use crate::hostile::SetOnDrop;
use crate::reload::ConfigFile;
use crate::server::{PATIENCE, Server, wait_for};

/// The last message of a test, which everybody who reads again must get.
const LAST: usize = 999_999;

/// Bytes of a test's message: a few dozen of them fill the way to a peer that does not read.
const SIZE: usize = 64 * 1024;

/// Bytes of its frame: the header has ten (RFC 6455, 5.2).
const FRAME: u64 = SIZE as u64 + 10;

fn numbered(number: usize) -> String {
    format!("{number:06}{}", "x".repeat(SIZE - 6))
}

fn number_of(payload: &[u8]) -> usize {
    let digits = std::str::from_utf8(payload.get(..6).expect("six digits")).expect("text");
    digits.parse().expect("a number")
}

/// A subscriber that does not read, with little room in its kernel.
fn stalled(server: &Server, path: &str) -> Peer {
    let mut peer = server.connect();
    set_buffers(&peer.stream, None, Some(128 * 1024)).expect("small buffers");
    peer.upgrade(path);
    peer
}

fn drops(server: &Server, policy: &str) -> u64 {
    server.metric("fantail_drops_total", policy)
}

/// A server with this configuration file.
fn start(file: &ConfigFile, more: &[&str]) -> Server {
    Server::start(&[&["--config", file.path()], more].concat(), &[])
}

/// Waits until each of `sent` messages to one subscriber has left, waits for it, or was dropped.
fn await_fate(server: &Server, sent: usize) {
    wait_for("the message to be taken, queued or dropped", || {
        let waiting = server.metric("fantail_outbox_bytes", "").div_ceil(FRAME);
        server.metric("fantail_deliveries_total", "") + waiting + drops(server, "") == sent as u64
    });
}

/// What became of messages to one that did not read for a while.
struct Stall {
    /// Those it got, by number.
    got: Vec<usize>,
    /// How many were published.
    sent: usize,
    /// Those whose publishing made one be dropped, itself or another.
    dropping: Vec<usize>,
}

/// Publishes to one that does not read until five messages are dropped, and lets it read. Once three are
/// dropped it reads until there is room again, as when the kernel takes some more bytes by itself.
fn stall(server: &Server, policy: &str) -> Stall {
    let mut slow = stalled(server, "/ws/big");
    let (mut sent, mut dropping, mut got) = (0, Vec::new(), Vec::new());
    while drops(server, policy) < 5 {
        assert!(sent < 500, "nothing was ever dropped");
        let before = drops(server, policy);
        assert_eq!(server.publish("big", numbered(sent).as_bytes()).status, 200);
        await_fate(server, sent + 1);
        if drops(server, policy) > before {
            dropping.push(sent);
        }
        sent += 1;
        if dropping.len() == 3 && got.is_empty() {
            let waiting = server.metric("fantail_outbox_bytes", "");
            while server.metric("fantail_outbox_bytes", "") == waiting {
                got.push(number_of(&slow.frame().payload));
            }
        }
    }
    assert!(server.metric("fantail_outbox_held_bytes", "") > FRAME, "something waits");
    let reader = thread::spawn(move || {
        while got.last() != Some(&LAST) {
            got.push(number_of(&slow.frame().payload));
        }
        got
    });
    server.await_metric("fantail_outbox_bytes", "", |bytes| bytes == 0);
    assert_eq!(server.publish("big", numbered(LAST).as_bytes()).status, 200);
    let mut got = reader.join().expect("it reads to the end");
    assert_eq!(got.pop(), Some(LAST));
    assert!(got.is_sorted_by(|a, b| a < b), "{got:?}");
    assert_eq!(got.len() as u64 + drops(server, ""), sent as u64, "got and dropped are what was published");
    assert_eq!(drops(server, policy), drops(server, ""), "nothing is counted elsewhere");
    assert_eq!(server.metric("fantail_deliveries_total", ""), got.len() as u64 + 1);
    server.await_metric("fantail_outbox_held_bytes", "", |bytes| bytes == 0);
    Stall { got, sent, dropping }
}

/// How many numbers come behind the last gap, up to the last one published. There may be several gaps: the kernel of
/// one that does not read may take some more bytes all the same, and then a further message has room.
fn behind_the_gaps(stall: &Stall) -> usize {
    let Stall { got, sent, dropping } = stall;
    assert_eq!(dropping.last(), Some(&(sent - 1)), "the last one published made the fifth drop");
    assert_eq!(got.last(), Some(&(sent - 1)), "{got:?}");
    let gap = (1..got.len()).rfind(|at| got[at - 1] + 1 != got[*at]).expect("five are missing");
    got.len() - gap
}

#[test]
fn drop_newest_leaves_the_oldest() {
    let server = Server::start(&["--loops", "1"], &[]);
    let Stall { got, sent, dropping } = stall(&server, "drop-newest");
    // Whichever found no room is missing itself, and no other.
    let kept: Vec<usize> = (0..sent).filter(|number| !dropping.contains(number)).collect();
    assert_eq!(got, kept);
}

#[test]
fn drop_oldest_leaves_the_newest() {
    let server = Server::start(&["--loops", "1"], &[("FANTAIL_OUTBOX_POLICY", "drop-oldest")]);
    let stall = stall(&server, "drop-oldest");
    let kept = behind_the_gaps(&stall);
    // 256 KiB hold three of them, the one that has begun to leave included.
    assert!((2..=3).contains(&kept), "{}: {:?}", stall.sent, stall.got);
}

#[test]
fn latest_leaves_one() {
    let server = Server::start(&["--loops", "1"], &[("FANTAIL_OUTBOX_POLICY", "latest")]);
    let stall = stall(&server, "latest");
    assert_eq!(behind_the_gaps(&stall), 1, "{}: {:?}", stall.sent, stall.got);
}

/// Publishes one at a time until the slow one is closed; the close frame comes behind what it got.
fn closed_after_a_stall(server: &Server) {
    let mut slow = stalled(server, "/ws/big");
    let mut sent = 0;
    while server.metric("fantail_closes_total", "slow_consumer") == 0 {
        assert!(sent < 500, "it was never closed");
        assert_eq!(server.publish("big", numbered(sent).as_bytes()).status, 200);
        sent += 1;
        wait_for("the message to be taken, queued or dropped", || {
            let waiting = server.metric("fantail_outbox_bytes", "").div_ceil(FRAME);
            let known = server.metric("fantail_deliveries_total", "") + waiting + drops(server, "");
            known == sent as u64 || server.metric("fantail_closes_total", "slow_consumer") == 1
        });
    }
    assert!(server.publish("big", b"anybody?").text().contains("\"subscribers\":0"));
    let mut got = 0;
    let close = loop {
        let frame = slow.frame();
        if frame.opcode == Opcode::Close {
            break frame;
        }
        assert_eq!(number_of(&frame.payload), got);
        got += 1;
    };
    assert_eq!(close.close_code(), Some(1013));
    slow.expect_end();
    assert_eq!(got as u64 + drops(server, ""), sent as u64, "got and dropped are what was published");
    server.await_metric("fantail_outbox_held_bytes", "", |bytes| bytes == 0);
    server.await_metric("fantail_connections", "", |open| open == 0);
    assert_eq!(server.metric("fantail_closes_total", "slow_consumer"), 1);
}

#[test]
fn disconnect_closes_at_the_bound() {
    let server = Server::start(&["--loops", "1"], &[("FANTAIL_OUTBOX_POLICY", "disconnect")]);
    closed_after_a_stall(&server);
    assert_eq!(drops(&server, ""), drops(&server, "\"disconnect\""));
}

#[test]
fn too_many_drops_in_a_row_close() {
    let server = Server::start(&["--loops", "1"], &[("FANTAIL_OUTBOX_DISCONNECT_AFTER_DROPS", "4")]);
    closed_after_a_stall(&server);
    assert_eq!(drops(&server, "drop-newest"), 3);
}

#[test]
fn whoever_reads_nothing_at_all_is_closed_under_every_policy() {
    for policy in ["drop-newest", "drop-oldest", "latest"] {
        let environment =
            [("FANTAIL_OUTBOX_POLICY", policy), ("FANTAIL_TIMEOUTS_WRITE_TIMEOUT_SECONDS", "0.5")];
        let server = Server::start(&["--loops", "1"], &environment);
        let _slow = stalled(&server, "/ws/big");
        // Messages go on all the time: what replaces another is no progress.
        wait_for("the write timeout", || {
            server.publish("big", numbered(0).as_bytes());
            server.metric("fantail_closes_total", "write_timeout") == 1
        });
        server.await_metric("fantail_outbox_held_bytes", "", |bytes| bytes == 0);
    }
}

#[test]
fn rules_by_topic_decide_who_publishes_and_how_much() {
    let file = ConfigFile::new(
        "[publish]\ntopics = [\"lobby\", \"tiny\"]\n\n[[topic]]\npattern = \"lobby\"\npublish = \"nobody\"\n\n\
         [[topic]]\npattern = \"open/*\"\npublish = \"anyone\"\n\n[[topic]]\npattern = \"tiny\"\n\
         message_bytes_max = 100\n\n[[topic]]\npattern = \"large\"\nmessage_bytes_max = \"2 MiB\"\n",
    );
    let server = start(&file, &["--loops", "1"]);
    let mut lobby = server.websocket("/ws/lobby");
    lobby.send_frame(Opcode::Text, b"ignored");
    lobby.ping_pong();
    assert_eq!(server.metric("fantail_publishes_ignored_total", ""), 1);
    let mut open = server.websocket("/ws/open/door");
    open.send_frame(Opcode::Text, b"heard");
    assert_eq!(open.text(), "heard");

    let mut tiny = server.websocket("/ws/tiny");
    tiny.send_frame(Opcode::Text, &[b'x'; 100]);
    assert_eq!(tiny.text().len(), 100);
    tiny.send_frame(Opcode::Text, &[b'x'; 101]);
    assert_eq!(tiny.frame().close_code(), Some(1009));
    assert_eq!(server.publish("tiny", &[b'x'; 100]).status, 200);
    assert_eq!(server.publish("tiny", &[b'x'; 101]).status, 413);
    assert_eq!(server.publish("large", &vec![b'x'; 2 << 20]).status, 200);
    assert_eq!(server.publish("other", &vec![b'x'; 2 << 20]).status, 413);
}

#[test]
fn rules_by_topic_decide_what_a_slow_consumer_misses() {
    let file = ConfigFile::new(
        "[outbox]\npolicy = \"disconnect\"\n[[topic]]\npattern = \"big\"\npolicy = \"drop-oldest\"\nmessages_max = 2\n",
    );
    let server = start(&file, &["--loops", "1"]);
    let stall = stall(&server, "drop-oldest");
    assert!((1..=2).contains(&behind_the_gaps(&stall)), "{}: {:?}", stall.sent, stall.got);
}

/// A total of 1 MiB, which four who do not read would pass by far.
fn with_small_total() -> (ConfigFile, Server) {
    let file = ConfigFile::new(
        "[limits]\nmessage_bytes_max = \"128 KiB\"\necho_bytes_max = \"128 KiB\"\n[timeouts]\n\
         write_timeout_seconds = 600\n[outbox]\nmessages_max = 65535\nbytes_max = \"1 GiB\"\n\
         bytes_total = \"1 MiB\"\n",
    );
    let server = start(&file, &["--loops", "2"]);
    (file, server)
}

#[test]
fn all_outboxes_together_are_bounded() {
    let (_file, server) = with_small_total();
    let topics = ["a", "b", "c", "d"];
    let mut slow: Vec<Peer> = topics.iter().map(|topic| stalled(&server, &format!("/ws/{topic}"))).collect();
    let mut sent = 0;
    while drops(&server, "drop-newest") < 40 {
        assert!(sent < 500, "nothing was ever dropped");
        for topic in topics {
            assert_eq!(server.publish(topic, numbered(sent).as_bytes()).status, 200);
        }
        sent += 1;
        let held = server.metric("fantail_outbox_held_bytes", "");
        assert!(held <= 1 << 20, "{held} bytes held");
    }
    assert!(server.metric("fantail_outbox_full_total", "") >= 40);
    // Everybody gets what was queued for it, and what it does not get was counted.
    let readers: Vec<_> = slow
        .drain(..)
        .map(|mut peer| {
            thread::spawn(move || {
                let mut got = 0;
                while number_of(&peer.frame().payload) != LAST {
                    got += 1;
                }
                got
            })
        })
        .collect();
    server.await_metric("fantail_outbox_bytes", "", |bytes| bytes == 0);
    for topic in topics {
        assert_eq!(server.publish(topic, numbered(LAST).as_bytes()).status, 200);
    }
    let got: u64 = readers.into_iter().map(|reader| reader.join().expect("it reads")).sum();
    assert_eq!(got + drops(&server, ""), 4 * sent as u64);
    server.await_metric("fantail_outbox_held_bytes", "", |bytes| bytes == 0);
}

#[test]
fn answers_that_nobody_reads_do_not_pass_the_total() {
    let (_file, server) = with_small_total();
    let echo = frame(Opcode::Binary, &[b'x'; 128 * 1024]);
    let mut peers = Vec::new();
    // Each one that asks and does not read is paused with what it asked for last; ten of them are too many.
    wait_for("one to be closed", || {
        let mut peer = stalled(&server, "/echo");
        peer.stream.set_write_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        // Until it is not read from any more.
        while peer.stream.write_all(&echo).is_ok() {}
        peers.push(peer);
        assert!(server.metric("fantail_outbox_held_bytes", "") <= 1 << 20);
        server.metric("fantail_closes_total", "outbox_full") > 0
    });
    // The operator and whoever reads are served.
    let mut reader = server.websocket("/echo");
    reader.send_frame(Opcode::Text, b"still there?");
    assert_eq!(reader.text(), "still there?");
}

/// What a subscriber gets that reads a fifth of what is published, pings, publishes and closes meanwhile.
fn answers_to_a_slow_reader(policy: &str) {
    const ASKED: usize = 8;
    let server = Server::start(&["--loops", "1"], &[("FANTAIL_OUTBOX_POLICY", policy)]);
    let mut listener = server.websocket("/ws/lobby");
    let mut slow = stalled(&server, "/ws/lobby?topic=big");
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        // About 2 MB a second, for as long as the slow one lives.
        let mut admin = server.connect_admin();
        let stop = &stop;
        let _end = SetOnDrop(stop);
        scope.spawn(move || {
            let head =
                format!("POST /publish/big HTTP/1.1\r\nHost: localhost\r\nContent-Length: {SIZE}\r\n\r\n");
            while !stop.load(Ordering::Relaxed) {
                admin.send(head.as_bytes());
                admin.send(numbered(0).as_bytes());
                assert_eq!(admin.answer().status, 200);
                thread::sleep(Duration::from_millis(30));
            }
        });
        wait_for("messages to wait", || drops(&server, policy) > 0);
        let began = Instant::now();
        let (mut asked, mut pongs, mut texts, mut read, mut code) = (0, 0, 0, 0, None);
        while code.is_none() {
            assert!(
                began.elapsed() < PATIENCE,
                "{pongs} pongs, {texts} texts of {asked}, and no close frame"
            );
            // 400 KB a second.
            if read as u128 > began.elapsed().as_millis() * 400 {
                thread::sleep(Duration::from_millis(5));
                continue;
            }
            if asked < ASKED && began.elapsed() > Duration::from_millis(100) * asked as u32 {
                slow.send_frame(Opcode::Ping, &[asked as u8]);
                slow.send_frame(Opcode::Text, format!("text {asked}").as_bytes());
                asked += 1;
                if asked == ASKED {
                    slow.send_frame(Opcode::Close, &1000u16.to_be_bytes());
                }
            }
            let frame = slow.frame();
            read += frame.payload.len();
            match frame.opcode {
                Opcode::Pong => {
                    assert_eq!(frame.payload, [pongs as u8], "in order");
                    pongs += 1;
                }
                Opcode::Text if frame.payload.starts_with(b"text ") => texts += 1,
                _ => code = frame.close_code(),
            }
        }
        assert_eq!((pongs, code), (ASKED, Some(1000)));
        assert!(texts <= ASKED);
    });
    for asked in 0..ASKED {
        assert_eq!(listener.text(), format!("text {asked}"));
    }
}

#[test]
fn who_reads_slowly_is_answered_and_read_from_though_newest_are_dropped() {
    answers_to_a_slow_reader("drop-newest");
}

#[test]
fn who_reads_slowly_is_answered_and_read_from_though_oldest_are_dropped() {
    answers_to_a_slow_reader("drop-oldest");
}

#[test]
fn who_reads_slowly_is_answered_and_read_from_with_the_latest_only() {
    answers_to_a_slow_reader("latest");
}
