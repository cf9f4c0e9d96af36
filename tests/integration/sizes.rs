//! `fantail sizes` against what the running server really takes.

use std::ops::Range;

use fantail::sys::{limits, process};

use crate::client::Peer;
use crate::server::{Server, command, wait_for};

/// How far prediction and measurement may be apart. Alone on a machine they are 5 % apart; the rest is for
/// pages that the allocator has not given back yet.
const TOLERANCE: Range<f64> = 0.8..1.25;

/// The same with a backlog: outboxes that grow in step leave the blocks they grew out of between each other's,
/// where the allocator can't use all of them again. Alone on a machine it is 1.36, on a busy one more than 1.7; a
/// connection that had its messages for itself would cost a hundred times as much.
const TOLERANCE_BACKLOG: Range<f64> = 0.8..4.0;

/// So many times in a row it has to be the same before memory stands still.
const READS_ALIKE: usize = 400;

/// What `fantail sizes` says that this load costs in user space.
fn predicted(flags: &[&str]) -> f64 {
    let arguments = [&["sizes", "--loops", "2", "--json"][..], flags].concat();
    let output = command(&arguments, &[]).output().expect("the binary runs");
    assert!(output.status.success(), "{output:?}");
    let parsed: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    parsed["connection_bytes"].as_f64().expect("a number")
}

/// A server of two loops in which everything that is there for all was touched, and its memory.
fn warm_server() -> (Server, u64) {
    limits::raise_nofile().expect("the limit can be raised");
    let environment =
        [("FANTAIL_TIMEOUTS_HEARTBEAT_SECONDS", "0"), ("FANTAIL_TIMEOUTS_WRITE_TIMEOUT_SECONDS", "3600")];
    let server = Server::start(&["--loops", "2"], &environment);
    drop((0..64).map(|_| server.websocket("/ws/warm")).collect::<Vec<_>>());
    server.await_metric("fantail_connections", "", |open| open == 0);
    // What they leave behind is given back later: measured before, it would be missing from what is measured behind it.
    let (mut used_last, mut alike) = (0, 0);
    wait_for("the memory to stand still", || {
        let used = used(&server);
        alike = if used == used_last { alike + 1 } else { 0 };
        used_last = used;
        alike == READS_ALIKE
    });
    (server, used_last)
}

fn used(server: &Server) -> u64 {
    process::memory(Some(server.pid())).expect("procfs").user_bytes()
}

/// Waits until the allocator has given a peak back, and compares.
fn settles(server: &Server, before: u64, predicted: f64, tolerance: &Range<f64>) {
    let mut ratio = 0.0;
    wait_for("the memory to settle near the prediction", || {
        ratio = used(server).saturating_sub(before) as f64 / predicted;
        ratio < tolerance.end
    });
    assert!(tolerance.contains(&ratio), "measured is {ratio:.2} of the predicted {predicted} bytes");
}

#[test]
fn the_prediction_holds_for_idle_connections() {
    let (server, before) = warm_server();
    let _peers: Vec<Peer> = (0..8_000).map(|_| server.websocket("/ws/t")).collect();
    settles(&server, before, predicted(&["--connections", "8000"]), &TOLERANCE);
    assert_eq!(server.metric("fantail_connections", ""), 8_000);
}

#[test]
fn the_prediction_holds_for_many_topics() {
    let (server, before) = warm_server();
    let path = |number: usize| format!("/ws/topic-name-{number:05}");
    let _peers: Vec<Peer> = (0..6_000).map(|number| server.websocket(&path(number))).collect();
    settles(&server, before, predicted(&["--connections", "6000", "--topics", "6000"]), &TOLERANCE);
}

#[test]
fn the_prediction_holds_for_a_backlog() {
    const CONNECTIONS: u64 = 1_000;
    let (server, before) = warm_server();
    let _peers: Vec<Peer> = (0..CONNECTIONS).map(|_| server.websocket("/ws/t")).collect();
    // Nobody reads: the kernel takes what it takes, and then each outbox fills up to its 256 KiB. Of the
    // first message a part may have left.
    let message = [b'x'; 8 * 1024];
    let full = CONNECTIONS * 30 * 8 * 1024;
    wait_for("every outbox to be full", || {
        (0..4).for_each(|_| assert_eq!(server.publish("t", &message).status, 200));
        server.metric("fantail_outbox_bytes", "") >= full
    });
    let waiting = server.metric("fantail_outbox_bytes", "") / CONNECTIONS / (8 * 1024);
    let backlog = waiting.to_string();
    let flags = ["--connections", "1000", "--backlog", &backlog, "--message-bytes", "8192"];
    // On a busy machine the kernel takes more for some than for others, so that not all wait for the same messages: those
    // that only a few wait for are more than is predicted. Each of those who wait has a reference of 16 bytes beside it.
    let shared = waiting * (8 * 1024 + 16 * CONNECTIONS);
    let others = server.metric("fantail_outbox_held_bytes", "").saturating_sub(shared);
    settles(&server, before + others, predicted(&flags), &TOLERANCE_BACKLOG);
}

#[test]
fn absurd_loads_are_answered_or_refused_and_never_cut() {
    let most = ["--connections", "100000000", "--topics", "1000000", "--backlog", "65535"];
    let arguments =
        [&["sizes", "--loops", "2", "--json", "--message-bytes", "1073741824"][..], &most].concat();
    let output = command(&arguments, &[]).output().expect("the binary runs");
    let parsed: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(parsed["user_bytes"].as_u64(), Some(u64::MAX), "more than can be counted: {parsed}");
    for absurd in [
        &["--connections", "100000001"][..],
        &["--connections", "-1"],
        &["--connections", "1e3"],
        &["--connections", "99999999999999999999999"],
        &["--connections", "1", "--topics", "0"],
        &["--connections", "1", "--loops", "64"],
        &["--connections", "1", "--message-bytes", "1073741825"],
        &[],
    ] {
        let output = command(&[&["sizes"][..], absurd].concat(), &[]).output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(2), "{absurd:?}: {output:?}");
    }
}
