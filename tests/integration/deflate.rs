//! permessage-deflate over real sockets: what is negotiated, who gets which frame, and what a bomb does.

use fantail::sys::socket::set_buffers;
use fantail::wire::frame::Opcode;

use crate::client::{ACCEPTED, Peer, Persistent, assert_upgraded, deflated_frame, frame};
use crate::server::Server;

const DEFLATED: &str = "fantail_deflate_messages_total";

/// A message that compresses well, told by its number.
fn json(number: usize) -> String {
    let rows: String = (0..20).map(|n| format!("{{\"id\":{},\"name\":\"n{n}\"}},", number * 7 + n)).collect();
    format!("{number:06}[{rows}]")
}

/// Bytes that no deflate makes smaller.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 7_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}

fn deflated_websocket(server: &Server, path: &str) -> Peer {
    let mut peer = server.connect();
    peer.upgrade_deflated(path);
    peer
}

/// A metric over all loops, the admin loop included.
fn total(server: &Server, name: &str) -> u64 {
    let text = server.get("/metrics").text();
    let samples =
        text.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with('{')));
    samples
        .map(|line| line.rsplit(' ').next().and_then(|number| number.parse::<u64>().ok()).expect("a number"))
        .sum()
}

fn deflated_messages(server: &Server) -> u64 {
    total(server, DEFLATED)
}

#[test]
fn offers_are_answered_as_the_rfc_says() {
    let server = Server::start(&["--loops", "1"], &[]);
    let window = |bits: usize| format!("{ACCEPTED}; server_max_window_bits={bits}");
    let (widest, narrow) = (window(15), window(10));
    let resets = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    for (fields, wanted) in [
        (&["permessage-deflate"][..], Some(ACCEPTED)),
        (&["permessage-deflate; server_max_window_bits=7, permessage-deflate"], Some(ACCEPTED)),
        (&["permessage-deflate; server_no_context_takeover"], Some(resets)),
        (&["x-webkit-deflate-frame", "permessage-deflate; client_max_window_bits=12"], Some(ACCEPTED)),
        (&["permessage-deflate; server_max_window_bits=15"], Some(widest.as_str())),
        (&["permessage-deflate; server_max_window_bits=10, permessage-deflate"], Some(narrow.as_str())),
        (&["permessage-deflate; odd"], None),
        (&["x-other"], None),
        (&[], None),
    ] {
        let more: String =
            fields.iter().map(|field| format!("Sec-WebSocket-Extensions: {field}\r\n")).collect();
        let mut peer = server.connect();
        let answer = peer.ask_upgrade("/echo", &more);
        assert_upgraded(&answer);
        assert_eq!(answer.field("sec-websocket-extensions"), wanted, "{fields:?}");
        peer.ping_pong();
    }
    let answer = server.connect().ask_upgrade("/echo", "Sec-WebSocket-Extensions: a; b=\"\r\n");
    assert_eq!(answer.status, 400);
}

#[test]
fn a_server_that_is_told_not_to_declines() {
    let server = Server::start(&["--loops", "1"], &[("FANTAIL_DEFLATE_ENABLED", "false")]);
    let mut peer = server.connect();
    let answer = peer.ask_upgrade("/echo", crate::client::OFFER);
    assert_upgraded(&answer);
    assert_eq!(answer.field("sec-websocket-extensions"), None);
    peer.send(&deflated_frame(Opcode::Text, b"Hello"));
    assert_eq!(peer.frame().close_code(), Some(1002));
}

const KEPT: &str = "fantail_deflate_context_bytes";

/// Tornado's client agrees to begin each message anew and does not.
#[test]
fn a_client_that_goes_on_is_understood_and_one_that_begins_anew_costs_nothing() {
    let server = Server::start(&["--loops", "1"], &[]);
    let (mut peer, mut client) = (deflated_websocket(&server, "/echo"), Persistent::new());
    // By what only reads there is nothing to be kept.
    let _silent = deflated_websocket(&server, "/ws");
    assert_eq!(server.metric(KEPT, ""), 0);
    for number in 0..50 {
        let frame = client.frame(Opcode::Text, json(number).as_bytes());
        assert!(number == 0 || frame.len() < json(number).len() / 4, "it refers to the one before");
        peer.send(&frame);
        assert_eq!(peer.frame().content(), json(number).as_bytes());
    }
    let kept = server.metric(KEPT, "");
    assert!((json(0).len() as u64..=32 << 10).contains(&kept), "{kept}");
    let mut other = deflated_websocket(&server, "/echo");
    for number in 0..3 {
        // It begins as the one before and does not refer to it.
        other.send(&deflated_frame(Opcode::Text, format!("{{\"type\":\"say\",\"n\":{number}}}").as_bytes()));
        other.frame();
    }
    assert_eq!(server.metric(KEPT, ""), kept);
    peer.send(&frame(Opcode::Close, &1000_u16.to_be_bytes()));
    assert_eq!(peer.frame().close_code(), Some(1000));
    server.await_metric(KEPT, "", |kept| kept == 0);
}

#[test]
fn what_is_kept_of_clients_is_bounded() {
    let server = Server::start(&["--loops", "1"], &[("FANTAIL_DEFLATE_CONTEXT_BYTES_TOTAL", "32 KiB")]);
    let mut first = deflated_websocket(&server, "/echo");
    let (mut second, mut goes_on) = (deflated_websocket(&server, "/echo"), Persistent::new());
    for beginning in [&b"one way"[..], b"another way"] {
        first.send(&deflated_frame(Opcode::Binary, &[beginning, &noise(14_000)].concat()));
        first.frame();
    }
    // No room: a newcomer is not asked to compress.
    let answer = server.connect().ask_upgrade("/echo", crate::client::OFFER);
    assert_upgraded(&answer);
    assert_eq!(answer.field("sec-websocket-extensions"), None);
    assert_eq!(server.metric("fantail_deflate_declined_total", ""), 1);
    // Nor can be kept what another sends, which it learns if it needs it.
    second.send(&goes_on.frame(Opcode::Binary, &noise(14_000)));
    assert!(second.frame().payload == noise(14_000));
    assert!((28_000..=32 << 10).contains(&server.metric(KEPT, "")));
    second.send(&goes_on.frame(Opcode::Binary, &noise(14_000)));
    assert_eq!(second.frame().close_code(), Some(1013));
    server.await_metric("fantail_closes_total", "deflate_full", |closed| closed == 1);
    // Who begins anew needs nothing of it.
    for _ in 0..3 {
        first.send(&deflated_frame(Opcode::Binary, b"another way to end"));
        assert_eq!(first.frame().payload, b"another way to end");
    }
    assert_eq!(server.metric(KEPT, ""), 0);
    deflated_websocket(&server, "/echo").ping_pong();
}

#[test]
fn a_broadcast_is_compressed_once_and_only_for_those_who_asked() {
    let server = Server::start(&["--loops", "3"], &[]);
    let mut plain: Vec<Peer> = (0..6).map(|_| server.websocket("/ws/news")).collect();
    // Nobody wants it compressed yet.
    server.publish("news", json(0).as_bytes());
    for peer in &mut plain {
        assert_eq!(peer.text(), json(0));
    }
    assert_eq!(deflated_messages(&server), 0);
    let mut deflated: Vec<Peer> =
        (0..6).map(|_| deflated_websocket(&server, "/ws/news?topic=more")).collect();
    let small = "x".repeat(255);
    let noise = noise(2_000);
    server.publish("news", json(1).as_bytes());
    server.publish("news", small.as_bytes());
    server.publish("news?binary=1", &noise);
    server.publish("news", json(2).as_bytes());
    for peer in &mut plain {
        assert_eq!(peer.text(), json(1));
        assert_eq!(peer.text(), small);
        assert_eq!(peer.frame().payload, noise);
        assert_eq!(peer.text(), json(2));
    }
    for peer in &mut deflated {
        let frames: Vec<_> = (0..4).map(|_| peer.frame()).collect();
        assert_eq!(frames.iter().map(|frame| frame.deflated).collect::<Vec<_>>(), [true, false, false, true]);
        let wanted = [json(1).into_bytes(), small.clone().into_bytes(), noise.clone(), json(2).into_bytes()];
        assert_eq!(frames.iter().map(|frame| frame.content()).collect::<Vec<_>>(), wanted);
        assert!(frames[0].payload.len() < json(1).len() / 2);
    }
    assert_eq!(deflated_messages(&server), 2, "once for each message that became smaller");
    let sum = |name| total(&server, name);
    assert_eq!(sum("fantail_deflate_in_bytes_total"), (json(1).len() + json(2).len()) as u64);
    assert!(sum("fantail_deflate_out_bytes_total") < sum("fantail_deflate_in_bytes_total") / 2);
    // A second topic of theirs, then none that wants it.
    server.publish("more", json(3).as_bytes());
    assert!(deflated.iter_mut().all(|peer| peer.frame().content() == json(3).as_bytes()));
    assert_eq!(deflated_messages(&server), 3);
    drop(deflated);
    server.await_metric("fantail_closes_total", "peer_closed", |closed| closed == 6);
    server.publish("news", json(4).as_bytes());
    assert!(plain.iter_mut().all(|peer| peer.text() == json(4)));
    assert_eq!(deflated_messages(&server), 3);
}

#[test]
fn a_client_publishes_compressed_messages_in_order() {
    let server = Server::start(&["--loops", "2"], &[]);
    let mut plain: Vec<Peer> = (0..3).map(|_| server.websocket("/ws")).collect();
    let mut deflated: Vec<Peer> = (0..3).map(|_| deflated_websocket(&server, "/ws")).collect();
    let mut quiet = deflated_websocket(&server, "/ws?echo=0");
    // In one segment, so that frames are joined for one write, with small ones between.
    let content = |n: usize| if n.is_multiple_of(3) { format!("small {n}") } else { json(n) };
    let burst: Vec<u8> = (0..60)
        .flat_map(|n| match n % 2 {
            0 => deflated_frame(Opcode::Text, content(n).as_bytes()),
            _ => frame(Opcode::Text, content(n).as_bytes()),
        })
        .collect();
    deflated[0].send(&burst);
    quiet.send(&deflated_frame(Opcode::Text, b"of the quiet one"));
    for peer in plain.iter_mut().chain(&mut deflated) {
        let all: Vec<_> =
            (0..61).map(|_| String::from_utf8(peer.frame().content()).expect("UTF-8")).collect();
        let (own, rest): (Vec<_>, Vec<_>) = all.into_iter().partition(|text| text == "of the quiet one");
        assert_eq!(own.len(), 1);
        assert_eq!(rest, (0..60).map(content).collect::<Vec<_>>());
    }
    for n in 0..60 {
        assert_eq!(String::from_utf8(quiet.frame().content()).expect("UTF-8"), content(n));
    }
    quiet.ping_pong();
}

#[test]
fn a_slow_consumer_gets_whole_compressed_messages() {
    let server = Server::start(&["--loops", "1"], &[]);
    let mut slow = server.connect();
    set_buffers(&slow.stream, None, Some(128 * 1024)).expect("small buffers");
    slow.upgrade_deflated("/ws/news");
    // Half noise: compressed they still fill the kernel's buffers.
    let body = |n: usize| {
        let mut body = format!("{n:06}").into_bytes();
        body.extend(noise(32 * 1024).iter().map(|byte| b'a' + byte % 16));
        body
    };
    // Behind the slow one in the list: what has come here has been decided on there.
    let mut bystander = server.websocket("/ws/news");
    let mut count = 0;
    let dropped = || server.metric("fantail_drops_total", "");
    while dropped() == 0 {
        assert!(count < 2_000, "nothing was dropped");
        assert_eq!(server.publish("news", &body(count)).status, 200);
        assert!(bystander.frame().payload == body(count));
        count += 1;
    }
    let mut last = None;
    for _ in 0..count as u64 - dropped() {
        let frame = slow.frame();
        let content = frame.content();
        assert!(frame.deflated);
        let number: usize = String::from_utf8_lossy(&content[..6]).parse().expect("a number");
        assert!(content == body(number), "message {number} came changed");
        assert!(last < Some(number), "{number} after {last:?}");
        last = Some(number);
    }
    slow.ping_pong();
}

#[test]
fn bombs_in_one_segment_are_worked_off_by_turns() {
    let server = Server::start(&["--loops", "1"], &[]);
    let mut reader = server.websocket("/ws/bombs");
    let mut peer = deflated_websocket(&server, "/echo");
    let bomb = deflated_frame(Opcode::Binary, &vec![0; 1 << 20]);
    assert!(bomb.len() < 2_000);
    let mut bystander = server.websocket("/echo");
    peer.send(&[bomb.repeat(30), frame(Opcode::Ping, b"last")].concat());
    bystander.ping_pong();
    // /echo gives each back; it is over what is worth compressing.
    for _ in 0..30 {
        let frame = peer.frame();
        assert_eq!((frame.opcode, frame.content().len()), (Opcode::Binary, 1 << 20));
    }
    assert_eq!(peer.frame().payload, b"last");
    // On a topic that clients may not publish to they are ignored, also when nothing follows.
    let mut ignored = deflated_websocket(&server, "/ws/bombs");
    ignored.send(&bomb.repeat(40));
    server.await_metric("fantail_publishes_ignored_total", "", |count| count == 40);
    ignored.ping_pong();
    server.publish("bombs", b"still here");
    assert_eq!(reader.text(), "still here");
}

#[test]
fn what_does_not_inflate_is_counted_and_closed() {
    let server = Server::start(&["--loops", "1"], &[]);
    let mut peer = deflated_websocket(&server, "/ws/news");
    let mut corrupt = frame(Opcode::Binary, &[0xff; 20]);
    corrupt[0] |= 0x40;
    peer.send(&corrupt);
    assert_eq!(peer.frame().close_code(), Some(1007));
    assert_eq!(server.metric("fantail_inflate_failures_total", ""), 1);
    server.await_metric("fantail_closes_total", "bad_deflate", |closed| closed == 1);
}
