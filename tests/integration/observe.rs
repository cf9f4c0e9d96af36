//! What an operator sees: metrics and statistics against the kernel's own counts, and a log that tells no secrets
//! and never holds the server up.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use fantail::wire::frame::Opcode;
use fantail_test_support::confine::{Refused, refuse_in_child};

use crate::client::Peer;
use crate::server::{Server, command, on_free_ports, wait_for};

fn stats(server: &Server) -> serde_json::Value {
    let answer = server.get("/stats");
    assert_eq!((answer.status, answer.field("content-type")), (200, Some("application/json")));
    serde_json::from_slice(&answer.body).expect("JSON")
}

#[test]
fn statistics_tell_what_connections_cost() {
    let server = Server::start(&["--loops", "2"], &[]);
    let peers: Vec<Peer> = (0..40).map(|_| server.websocket("/ws/news?topic=more")).collect();
    server.await_metric("fantail_subscriptions", "", |count| count == 80);
    let stats = stats(&server);
    assert_eq!((&stats["connections"], &stats["totals"]["subscriptions"]), (&40.into(), &80.into()));
    let loops = stats["loops"].as_array().expect("an array");
    let open: u64 = loops[..2].iter().map(|facts| facts["connections"].as_u64().expect("a number")).sum();
    assert_eq!((loops.len(), open), (3, 40));
    // A page of 1,024 slots for each loop that has anybody, admin included.
    let slots = stats["bytes_per_connection"]["slots"].as_f64().expect("somebody is there");
    assert!(slots > 1_024.0, "{stats}");
    assert!(stats["memory"]["anon_bytes"].as_u64() > Some(0), "{stats}");
    assert!(loops.iter().all(|facts| facts["turn_seconds"]["count"].as_u64() > Some(0)), "{stats}");
    assert_eq!(server.metric("fantail_topics", ""), 2);
    drop(peers);
    server.await_metric("fantail_subscriptions", "", |count| count == 0);
    server.await_metric("fantail_slot_bytes", "", |bytes| bytes == 0);
}

#[test]
fn statistics_are_read_only() {
    let server = Server::start(&["--loops", "1"], &[]);
    let mut admin = server.connect_admin();
    admin.send(
        format!("POST /stats HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\n\r\n", server.admin).as_bytes(),
    );
    let answer = admin.answer();
    assert_eq!((answer.status, answer.field("allow")), (405, Some("GET, HEAD")));
}

#[test]
fn half_a_message_is_seen_and_forgotten() {
    let server = Server::start(&["--loops", "1"], &[]);
    let mut peer = server.websocket("/echo");
    // A masked binary frame of 20,000 bytes of which the second half is missing.
    let frame = crate::client::frame(Opcode::Binary, &[7; 20_000]);
    let (first, second) = frame.split_at(10_000);
    peer.send(first);
    server.await_metric("fantail_inbox_bytes", "", |bytes| bytes >= 9_000);
    peer.send(second);
    assert_eq!(peer.frame().payload.len(), 20_000);
    server.await_metric("fantail_inbox_bytes", "", |bytes| bytes == 0);
}

/// Descriptors that the kernel counts for the threads of this name.
fn kernel_count(server: &Server, thread: &str) -> u64 {
    let tasks = PathBuf::from(format!("/proc/{}/task", server.pid()));
    for task in fs::read_dir(tasks).expect("procfs") {
        let task = task.expect("an entry").path();
        if fs::read_to_string(task.join("comm")).is_ok_and(|name| name.trim() == thread) {
            return fs::read_dir(task.join("fd")).expect("our own child").count() as u64;
        }
    }
    panic!("no thread {thread}");
}

#[test]
fn descriptors_are_those_the_kernel_counts() {
    let server = Server::start(&["--loops", "2"], &[]);
    let mut peers: Vec<Peer> = (0..30).map(|_| server.websocket("/echo")).collect();
    for peer in &mut peers {
        peer.ping_pong();
    }
    for (table, thread) in [("0", "loop-0"), ("1", "loop-1")] {
        let counted = server.metric("fantail_descriptors", &format!("table=\"{table}\""));
        assert_eq!(counted, kernel_count(&server, thread), "table {table}");
    }
    assert!(server.metric("process_max_fds", "") >= 64);
}

#[test]
fn a_shared_table_is_one_table() {
    let mut command = on_free_ports(&["--loops", "2"], &[]);
    refuse_in_child(&mut command, &[Refused::CloseRange, Refused::Unshare]);
    let server = Server::spawn(command);
    let mut peers: Vec<Peer> = (0..30).map(|_| server.websocket("/echo")).collect();
    for peer in &mut peers {
        peer.ping_pong();
    }
    // The connections of earlier questions to the admin port may be on their way out.
    wait_for("the counts to agree", || {
        let counted = server.metric("fantail_descriptors", "table=\"process\"");
        counted == kernel_count(&server, "loop-0")
    });
}

#[test]
fn the_finest_log_tells_no_secrets() {
    let arguments = ["--loops", "1", "--log-level", "trace", "--log-format", "json"];
    let mut server = Server::start(&arguments, &[("FANTAIL_LOG_LINES_PER_SECOND", "0")]);
    let mut peer = server.connect();
    let more = "Authorization: Bearer SECRET-1\r\nCookie: session=SECRET-2\r\n";
    // Nobody asks for it there, and whoever puts it there all the same is refused without a word of it.
    assert_eq!(server.connect().ask_upgrade("/ws?token=SECRET-3", more).status, 400);
    assert_eq!(peer.ask_upgrade("/ws", more).status, 101);
    peer.send_frame(Opcode::Text, b"SECRET-4");
    assert_eq!(peer.text(), "SECRET-4");
    let mut lost = server.connect();
    let target = "GET /nowhere?access_token=SECRET-5";
    lost.send(format!("{target} HTTP/1.1\r\nHost: {}\r\n{more}\r\n", server.listen).as_bytes());
    assert_eq!(lost.answer().status, 404);
    let mut broken = server.connect();
    broken.send(b"GET /SECRET-6 HTTP/1.1\r\nHost: a\r\nHost: SECRET-7\r\n\r\n");
    assert_eq!(broken.answer().status, 400);
    assert_eq!(server.publish("lobby?key=SECRET-8", b"SECRET-9").status, 400);
    assert_eq!(server.publish("lobby", b"SECRET-9").status, 200);
    peer.send_frame(Opcode::Close, &1000_u16.to_be_bytes());
    drop((peer, lost, broken));
    server.terminate();
    assert!(server.await_exit().success());
    let log = server.rest_of_log();
    assert!(!log.contains("SECRET"), "{log}");
    // It did tell what it should.
    for told in [
        "\"message\":\"upgrading\"",
        "\"path\":\"/ws\"",
        "\"path\":\"/nowhere\"",
        "\"reason\":\"not_found\"",
        "\"message\":\"message received\"",
        "\"message\":\"published by a client\"",
        "\"message\":\"published by the admin port\"",
        "\"message\":\"delivering\"",
    ] {
        assert!(log.contains(told), "no {told} in {log}");
    }
    for line in log.lines() {
        serde_json::from_str::<serde_json::Value>(line).expect(line);
    }
}

#[test]
fn debug_has_no_line_for_a_message() {
    let mut server = Server::start(&["--loops", "1", "--log-level", "debug"], &[]);
    let mut peer = server.websocket("/ws");
    for _ in 0..20 {
        peer.send_frame(Opcode::Text, b"x");
        assert_eq!(peer.text(), "x");
    }
    peer.send_frame(Opcode::Close, &1000_u16.to_be_bytes());
    drop(peer);
    server.terminate();
    assert!(server.await_exit().success());
    let log = server.rest_of_log();
    assert!(log.contains("upgrading") && !log.contains("message received"), "{log}");
    assert!(!log.contains("published") && !log.contains("delivering"), "{log}");
}

/// A server that has more to log than standard error takes, all the while serving.
fn serves_without_log(stderr: impl Into<Stdio>) {
    let arguments = ["--loops", "1", "--log-level", "trace"];
    let mut command: Command = on_free_ports(&arguments, &[("FANTAIL_LOG_LINES_PER_SECOND", "0")]);
    command.stderr(stderr);
    let mut server = Server::spawn(command);
    let mut peer = server.websocket("/ws");
    let mut echo = server.websocket("/echo");
    wait_for("lines to be lost", || {
        for _ in 0..500 {
            peer.send_frame(Opcode::Text, b"logged three times");
        }
        for _ in 0..500 {
            assert_eq!(peer.text(), "logged three times");
        }
        server.metric("fantail_log_lines_dropped_total", "") > 0
    });
    echo.ping_pong();
    assert_eq!(server.get("/healthz").status, 200);
    drop((peer, echo));
    server.terminate();
    assert_eq!(server.await_exit().code(), Some(0));
}

#[test]
fn a_standard_error_that_nobody_reads_holds_nobody_up() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    serves_without_log(writer);
    drop(reader);
}

#[test]
fn a_full_disk_holds_nobody_up() {
    serves_without_log(File::options().write(true).open("/dev/full").expect("Linux has it"));
}

#[test]
fn a_closed_standard_error_holds_nobody_up() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    serves_without_log(writer);
}

#[test]
fn a_failing_start_ends_though_nobody_reads_why() {
    let first = Server::start(&["--loops", "1"], &[]);
    let (reader, writer) = std::io::pipe().expect("a pipe");
    // Filled to the brim, by a thread that is left behind in its last write.
    std::thread::spawn({
        let mut writer = writer.try_clone().expect("a copy");
        move || while std::io::Write::write(&mut writer, &[b'x'; 4096]).is_ok() {}
    });
    let mut command = command(&["--listen", &first.listen.to_string(), "--admin", "127.0.0.1:0"], &[]);
    command.stderr(writer);
    let mut child = command.spawn().expect("the binary starts");
    let mut code = None;
    wait_for("it to give up", || {
        code = child.try_wait().expect("a child").map(|status| status.code());
        code.is_some()
    });
    assert_eq!(code, Some(Some(1)));
    drop(reader);
}

#[test]
fn one_kind_of_line_does_not_flood_the_log() {
    let server =
        Server::start(&["--loops", "1", "--log-level", "debug"], &[("FANTAIL_LOG_LINES_PER_SECOND", "5")]);
    let mut peer = server.connect();
    let request = format!("GET /nowhere HTTP/1.1\r\nHost: {}\r\n\r\n", server.listen);
    peer.send(request.repeat(300).as_bytes());
    for _ in 0..300 {
        assert_eq!(peer.answer().status, 404);
    }
    server.await_metric("fantail_log_lines_suppressed_total", "", |lines| lines > 200);
    let line = server.await_log("suppressed log lines of one kind");
    assert!(line.contains("WARN") && line.contains("place=fantail::event_loop::"), "{line}");
}
