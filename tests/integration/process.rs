//! The process: ports, limits, descriptor tables, drain and stop, configuration errors.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};

use fantail::sys::limits::raise_nofile;
use fantail::wire::frame::Opcode;
use fantail_test_support::confine::{Refused, lower_nofile_in_child, refuse_in_child};

use crate::client::Peer;
use crate::server::{PATIENCE, Server, command, fails, on_free_ports, wait_for};

#[test]
fn a_drain_tells_everybody_and_ends_well() {
    let slow = [("FANTAIL_DRAIN_SECONDS", "0.5"), ("FANTAIL_TIMEOUTS_CLOSE_SECONDS", "600")];
    let mut server = Server::start(&["--loops", "2"], &slow);
    let mut peers: Vec<Peer> = (0..10).map(|_| server.websocket("/ws")).collect();
    server.terminate();
    for peer in &mut peers {
        assert_eq!(peer.frame().close_code(), Some(1001));
    }
    // Nobody has answered yet, so the server is still there and says that it is leaving.
    assert_eq!(server.get("/readyz").status, 503);
    assert_eq!(server.get("/healthz").status, 200);
    for peer in &mut peers {
        peer.send_frame(Opcode::Close, &1001_u16.to_be_bytes());
        peer.expect_end();
    }
    drop(peers);
    assert_eq!(server.await_exit().code(), Some(0));
}

#[test]
fn loops_that_are_drained_first_hold_nothing_up() {
    let server = Server::start(&["--loops", "4"], &[("FANTAIL_TIMEOUTS_CLOSE_SECONDS", "600")]);
    let mut peer = server.websocket("/ws");
    server.terminate();
    assert_eq!(peer.frame().close_code(), Some(1001));
    // At least three of the loops had nobody, and end.
    let answer = server.get("/connections");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let rows = answer.json()["connections"].as_array().expect("rows").len();
    assert_eq!(rows, 1, "{}", answer.text());
}

#[test]
fn before_the_drain_it_is_not_ready_but_serves() {
    let mut server = Server::start(&["--loops", "1"], &[("FANTAIL_DRAIN_DELAY_SECONDS", "600")]);
    let mut early = server.websocket("/echo");
    server.terminate();
    wait_for("not ready", || server.get("/readyz").status == 503);
    let mut late = server.websocket("/echo");
    for peer in [&mut early, &mut late] {
        peer.send_frame(Opcode::Text, b"still");
        assert_eq!(peer.text(), "still");
    }
    // The second signal does not wait for the delay; the patience of the test is shorter than it.
    server.terminate();
    assert_eq!(server.await_exit().code(), Some(0));
    assert_eq!(early.next_frame(), None);
}

/// A stream that takes nothing more, as a pipe that nobody reads, and its other end.
fn full_stream() -> (UnixStream, Stdio) {
    let (reader, mut writer) = UnixStream::pair().expect("a pair");
    writer.set_nonblocking(true).expect("a socket");
    while writer.write(&[b'x'; 4096]).is_ok() {}
    writer.set_nonblocking(false).expect("a socket");
    (reader, Stdio::from(OwnedFd::from(writer)))
}

#[test]
fn an_output_that_nobody_reads_holds_nothing_up() {
    let (mut reader, out) = full_stream();
    let mut server = Server::spawn_unheard(&["--loops", "1"], out);
    let mut peer = server.websocket("/ws");
    wait_for("it to be ready", || server.get("/readyz").status == 200);
    server.signal("HUP");
    server.await_metric("fantail_config_reloads_total", "applied", |count| count == 1);
    server.terminate();
    assert_eq!(peer.frame().close_code(), Some(1001));
    drop(peer);
    assert_eq!(server.await_exit().code(), Some(0));
    let mut written = String::new();
    reader.read_to_string(&mut written).expect("text");
    assert!(!written.contains("ready"), "it was full to the end");
}

#[test]
fn the_ready_line_waits_for_whoever_reads_late() {
    let (mut reader, out) = full_stream();
    let server = Server::spawn_unheard(&["--loops", "1"], out);
    wait_for("it to be ready", || server.get("/readyz").status == 200);
    reader.set_read_timeout(Some(PATIENCE)).expect("a socket");
    let mut line = String::new();
    BufReader::new(&mut reader).read_line(&mut line).expect("the line");
    let line = line.trim_start_matches('x');
    assert_eq!(
        line,
        format!("fantail ready listen={} admin={} pid={}\n", server.listen, server.admin, server.pid())
    );
}

#[test]
fn a_second_server_on_the_port_is_told_so() {
    let first = Server::start(&[], &[]);
    let port = first.listen.to_string();
    let (code, said) = fails(command(&["--listen", &port, "--admin", "127.0.0.1:0"], &[]));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("address in use") && said.contains(&port), "{said}");
    let admin = first.admin.to_string();
    let (code, said) = fails(command(&["--listen", "127.0.0.1:0", "--admin", &admin], &[]));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("address in use") && said.contains(&admin), "{said}");
}

/// A server of two loops at an address of its own, where no other test looks for a port.
fn apart(listen: &str, environment: &[(&str, &str)]) -> Command {
    command(&["--loops", "2", "--listen", listen, "--admin", "127.0.0.1:0"], environment)
}

#[test]
fn of_two_that_start_at_once_on_a_port_one_starts() {
    for attempt in 0..25 {
        let port =
            TcpListener::bind("127.0.43.1:0").expect("a port").local_addr().expect("bound").to_string();
        let start = || apart(&port, &[]).spawn();
        let children = [start().expect("the binary starts"), start().expect("the binary starts")];
        let outputs = children.map(|mut child| {
            let mut ready = String::new();
            let out = child.stdout.take().expect("piped");
            // Whoever does not start ends, and with it its output.
            BufReader::new(out).read_line(&mut ready).expect("readable");
            (child, ready)
        });
        let started = outputs.iter().filter(|(_, ready)| ready.starts_with("fantail ready ")).count();
        for (mut child, ready) in outputs {
            if !ready.is_empty() {
                child.kill().expect("it runs");
            }
            let output = child.wait_with_output().expect("it ends");
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(!ready.is_empty() || said.contains("address in use"), "attempt {attempt}: {said}");
        }
        assert_eq!(started, 1, "attempt {attempt}");
    }
}

#[test]
fn a_port_is_not_joined_whose_owner_does_not_share_it() {
    let owner = Server::spawn(apart("127.0.43.3:0", &[("FANTAIL_DRAIN_DELAY_SECONDS", "600")]));
    let port = owner.listen.port();
    let join = |ip: &str| {
        let listen = format!("{ip}:{port}");
        let (code, said) =
            fails(command(&["--share-port", "--listen", &listen, "--admin", "127.0.0.1:0"], &[]));
        assert_eq!(code, Some(1), "{ip}: {said}");
        assert!(said.contains("address in use") && said.contains(&listen), "{ip}: {said}");
    };
    join("127.0.43.3");
    join("0.0.0.0");
    // On its way out it still listens.
    owner.terminate();
    wait_for("not ready", || owner.get("/readyz").status == 503);
    join("127.0.43.3");
    // Neither another address of the port is its own, nor the port once it has gone.
    let other = format!("127.0.43.2:{port}");
    Server::spawn(command(&["--share-port", "--listen", &other, "--admin", "127.0.0.1:0"], &[]));
    drop(owner);
    let listen = format!("127.0.43.3:{port}");
    Server::spawn(command(&["--share-port", "--listen", &listen, "--admin", "127.0.0.1:0"], &[]));
}

#[test]
fn a_port_is_taken_while_its_last_owner_drains() {
    let mut owner = Server::spawn(apart("127.0.43.4:0", &[("FANTAIL_TIMEOUTS_CLOSE_SECONDS", "600")]));
    let mut peer = owner.websocket("/ws");
    owner.terminate();
    assert_eq!(peer.frame().close_code(), Some(1001));
    let listen = owner.listen.to_string();
    let next = Server::spawn(command(&["--listen", &listen, "--admin", "127.0.0.1:0"], &[]));
    next.websocket("/ws");
    assert_eq!(owner.try_exit(), None, "it still waits for the answer");
}

#[test]
fn two_servers_can_agree_to_share_a_port() {
    let first = Server::start(&["--share-port"], &[]);
    let port = first.listen.to_string();
    let second = Server::spawn(command(&["--share-port", "--listen", &port, "--admin", "127.0.0.1:0"], &[]));
    assert_eq!(first.listen, second.listen);
    assert_ne!(first.admin, second.admin);
    // The kernel deals connections out; each of the two gets some soon.
    let mut peers = Vec::new();
    wait_for("both to have a connection", || {
        peers.push(first.websocket("/ws"));
        [&first, &second].iter().all(|server| server.metric("fantail_connections", "") > 0)
    });
}

#[test]
fn one_connection_too_many_is_answered_503() {
    let server = Server::start(&["--loops", "2", "--connections-max", "3"], &[]);
    let mut peers: Vec<Peer> = (0..3).map(|_| server.websocket("/echo")).collect();
    let mut fourth = server.connect();
    let answer = fourth.ask_upgrade("/echo", "");
    assert_eq!(answer.status, 503);
    assert!(answer.field("retry-after").is_some(), "{answer:?}");
    fourth.expect_end();
    drop(fourth);
    drop(peers.pop());
    wait_for("the place to be free", || {
        let mut next = server.connect();
        let admitted = next.ask_upgrade("/echo", "").status == 101;
        if admitted {
            peers.push(next);
        }
        admitted
    });
    for peer in &mut peers {
        peer.send_frame(Opcode::Text, b"in");
        assert_eq!(peer.text(), "in");
    }
}

#[test]
fn few_descriptors_are_filled_and_then_refused() {
    few_descriptors(&[]);
}

#[test]
fn few_descriptors_in_a_shared_table_are_filled_and_then_refused() {
    few_descriptors(&[Refused::CloseRange, Refused::Unshare]);
}

/// Everybody gets an answer, 101 or 503, however many there are; nobody hangs.
fn few_descriptors(refused: &[Refused]) {
    raise_nofile().expect("a limit");
    let mut command = on_free_ports(&["--loops", "2"], &[]);
    lower_nofile_in_child(&mut command, 200, 200);
    if !refused.is_empty() {
        refuse_in_child(&mut command, refused);
    }
    let server = Server::spawn(command);
    // Of a table 64 descriptors are the server's, and 4 more for the second loop in a shared one.
    let capacity = if refused.is_empty() { 2 * (200 - 64) } else { 200 - 64 - 4 };
    let mut inside = Vec::new();
    let mut turned_away = 0;
    for _ in 0..capacity + 50 {
        let mut peer = server.connect();
        match peer.ask_upgrade("/echo", "").status {
            101 => inside.push(peer),
            503 => turned_away += 1,
            status => panic!("answered {status}"),
        }
    }
    assert!(inside.len() <= capacity + 10 && inside.len() * 10 >= capacity * 9, "{} inside", inside.len());
    assert!(turned_away > 0);
    assert_eq!(server.metric("fantail_accept_errors_total", ""), 0, "descriptors are counted before accept");
    for peer in &mut inside {
        peer.send_frame(Opcode::Text, b"in");
        assert_eq!(peer.text(), "in");
    }
    // Room comes back.
    drop(inside);
    server.await_metric("fantail_connections", "", |open| open == 0);
    server.websocket("/echo");
}

#[test]
fn a_server_whose_descriptors_are_used_up_is_not_ready() {
    raise_nofile().expect("a limit");
    let mut command = on_free_ports(&["--loops", "2"], &[]);
    lower_nofile_in_child(&mut command, 100, 100);
    let server = Server::spawn(command);
    assert_eq!(server.get("/readyz").status, 200);
    let mut peers = Vec::new();
    wait_for("it to be full", || {
        let mut peer = server.connect();
        peer.ask_upgrade("/echo", "");
        peers.push(peer);
        server.get("/readyz").text() == "full\n"
    });
    drop(peers);
    wait_for("it to be ready", || server.get("/readyz").status == 200);
}

#[test]
fn the_log_says_how_tables_were_made() {
    table_mode(&[], "split (close_range)");
    table_mode(&[Refused::CloseRange], "split (unshare)");
    table_mode(&[Refused::CloseRange, Refused::Unshare], "shared");
}

fn table_mode(refused: &[Refused], mode: &str) {
    let mut command = apart("127.0.43.5:0", &[]);
    if !refused.is_empty() {
        refuse_in_child(&mut command, refused);
    }
    let mut server = Server::spawn(command);
    let line = server.await_log("listening for clients on");
    assert!(line.contains(mode), "{mode}: {line}");
    let mut peers: Vec<Peer> = (0..8).map(|_| server.websocket("/echo")).collect();
    for peer in &mut peers {
        peer.send_frame(Opcode::Text, mode.as_bytes());
        assert_eq!(peer.text(), mode);
    }
    // The end of a connection reaches its peer: no other table holds a copy of it.
    for peer in &mut peers {
        peer.send_frame(Opcode::Close, &1000_u16.to_be_bytes());
        assert_eq!(peer.frame().close_code(), Some(1000));
        peer.expect_end();
    }
    drop(peers);
    server.terminate();
    assert_eq!(server.await_exit().code(), Some(0), "{mode}");
    assert!(std::net::TcpStream::connect(server.listen).is_err(), "{mode}: somebody still listens");
}

#[test]
fn an_unknown_key_is_refused_with_a_suggestion() {
    let file =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("unknown-key-{}.toml", std::process::id()));
    std::fs::write(&file, "[timeouts]\nheartbeat_second = 3\n").expect("a file");
    let path = file.to_str().expect("UTF-8");
    let (code, said) = fails(on_free_ports(&["--config", path], &[]));
    std::fs::remove_file(&file).expect("still there");
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains(&format!("{path}:2")) && said.contains("heartbeat_seconds"), "{said}");
}

#[test]
fn check_config_says_what_serve_would() {
    raise_nofile().expect("a limit");
    let cases = [
        (&["--loops", "2", "--connections-max", "60000"][..], Some(2)),
        (&["--loops", "2", "--connections-max", "100"], Some(0)),
        (&["--loops", "64"], Some(2)),
        (&["--connections-max", "100000000"], Some(2)),
    ];
    for (flags, code) in cases {
        let limited = |mut command: Command| {
            lower_nofile_in_child(&mut command, 20_000, 20_000);
            command
        };
        let check = |more: &[&str]| {
            let output = limited(command(&[&["check-config"], flags, more].concat(), &[])).output();
            output.expect("the binary runs").status.code()
        };
        assert_eq!((check(&[]), check(&["--json"])), (code, code), "{flags:?}");
        if code != Some(0) {
            let (served, said) = fails(limited(on_free_ports(flags, &[])));
            assert_eq!(served, code, "{flags:?}: {said}");
        } else {
            Server::spawn(limited(on_free_ports(flags, &[])));
        }
    }
    // It may be meant for another machine.
    let mut elsewhere =
        command(&["check-config", "--elsewhere", "--loops", "2", "--connections-max", "60000"], &[]);
    lower_nofile_in_child(&mut elsewhere, 20_000, 20_000);
    assert_eq!(elsewhere.output().expect("the binary runs").status.code(), Some(0));
}

#[test]
fn values_that_do_not_fit_are_refused_where_they_stand() {
    let (code, said) = fails(on_free_ports(&[], &[("FANTAIL_OUTBOX_MESSAGES_MAX", "many")]));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("FANTAIL_OUTBOX_MESSAGES_MAX"), "{said}");
    let (code, said) = fails(command(&["--listen", "127.0.0.1:0", "--admin", "0.0.0.0:0"], &[]));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--admin") && said.contains("loopback"), "{said}");
}
