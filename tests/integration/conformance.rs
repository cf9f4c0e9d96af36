//! Runs the table `tests/conformance/frames.txt` against one server.

use fantail::wire::frame::Opcode;

use crate::client::{ACCEPTED, Frame, OFFER, Peer, assert_upgraded, frame, upgrade_request};
use crate::server::Server;

const TABLE: &str = include_str!("../conformance/frames.txt");

/// Rows longer than this are not sent byte by byte: it would show nothing more.
const BYTE_BY_BYTE_MAX: usize = 300;

struct Row {
    name: &'static str,
    path: &'static str,
    deflate: bool,
    bytes: Vec<u8>,
    frames: Vec<Wanted>,
}

#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Data(Opcode, Vec<u8>),
    Deflated(Opcode, Vec<u8>),
    Close(u16),
}

/// How a row's bytes reach the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    BehindTheUpgrade,
    WithTheUpgrade,
    ByteByByte,
}

#[test]
fn every_row_behind_the_upgrade() {
    run_table(Cut::BehindTheUpgrade);
}

#[test]
fn every_row_in_one_segment_with_the_upgrade() {
    run_table(Cut::WithTheUpgrade);
}

#[test]
fn every_row_byte_by_byte() {
    run_table(Cut::ByteByByte);
}

/// Autobahn's cases 9.3.1 and 9.4.1: 4 MiB in fragments of 64 bytes, of which the last has none.
#[test]
fn a_message_may_come_in_very_many_fragments() {
    const BYTES: usize = 4 << 20;
    let server = Server::start(&["--loops", "1"], &[]);
    for opcode in [Opcode::Text, Opcode::Binary] {
        let content: Vec<u8> = (0..BYTES).map(|at| b'a' + (at % 23) as u8).collect();
        let mut fragments = Vec::new();
        for (number, piece) in content.chunks(64).enumerate() {
            let mut fragment = frame(if number == 0 { opcode } else { Opcode::Continuation }, piece);
            // Without FIN.
            fragment[0] &= 0x7f;
            fragments.append(&mut fragment);
        }
        fragments.extend(frame(Opcode::Continuation, b""));
        let mut peer = server.connect();
        peer.upgrade("/echo");
        peer.send(&fragments);
        let echo = peer.frame();
        assert!(echo.opcode == opcode && echo.payload == content, "{} bytes came back", echo.payload.len());
    }
}

fn run_table(cut: Cut) {
    let server = Server::start(&["--loops", "1"], &[]);
    let rows = rows();
    assert!(rows.len() > 100, "{} rows", rows.len());
    let mut wrong = Vec::new();
    for row in rows.iter().filter(|row| cut != Cut::ByteByByte || row.bytes.len() <= BYTE_BY_BYTE_MAX) {
        let outcome = std::panic::catch_unwind(|| run_row(&server, row, cut));
        if let Err(panic) = outcome {
            let said = panic.downcast_ref::<String>().cloned().unwrap_or_default();
            wrong.push(format!("{}: {said}", row.name));
        }
    }
    assert!(wrong.is_empty(), "{cut:?}: {wrong:#?}");
}

fn run_row(server: &Server, row: &Row, cut: Cut) {
    let mut peer = server.connect();
    let offer = if row.deflate { OFFER } else { "" };
    let request = upgrade_request(server.listen, row.path, offer);
    if cut == Cut::WithTheUpgrade {
        peer.try_send(&[request.as_bytes(), &row.bytes].concat());
    } else {
        peer.send(request.as_bytes());
    }
    let answer = peer.answer();
    assert_upgraded(&answer);
    assert_eq!(answer.field("sec-websocket-extensions"), row.deflate.then_some(ACCEPTED));
    match cut {
        Cut::BehindTheUpgrade => peer.try_send(&row.bytes),
        Cut::WithTheUpgrade => {}
        Cut::ByteByByte => send_byte_by_byte(&mut peer, &row.bytes),
    }
    let got: Vec<Wanted> = row.frames.iter().map(|_| wanted_of(peer.frame())).collect();
    assert_eq!(got, row.frames, "of {}", row.name);
    if !matches!(row.frames.last(), Some(Wanted::Close(_))) {
        peer.send(&frame(Opcode::Close, &1000_u16.to_be_bytes()));
        assert_eq!(peer.frame().close_code(), Some(1000));
    }
    peer.expect_end();
}

fn send_byte_by_byte(peer: &mut Peer, bytes: &[u8]) {
    for byte in bytes {
        // A server that has failed the connection need not read on.
        if peer.write(&[*byte]).is_err() {
            return;
        }
    }
}

fn wanted_of(frame: Frame) -> Wanted {
    match frame.close_code() {
        Some(code) => Wanted::Close(code),
        None if frame.deflated => Wanted::Deflated(frame.opcode, frame.content()),
        None => Wanted::Data(frame.opcode, frame.payload),
    }
}

fn rows() -> Vec<Row> {
    let lines = TABLE.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let columns: Vec<&str> = line.split('|').map(str::trim).collect();
            let [name, clause, sent, wanted] = columns[..] else { panic!("not four columns: {line}") };
            let section = clause.strip_prefix("RFC 7692, ").unwrap_or(clause);
            assert!(section.starts_with(|c: char| c.is_ascii_digit()), "no clause: {line}");
            let (deflate, sent) = match sent.strip_prefix("deflate ") {
                Some(rest) => (true, rest),
                None => (false, sent),
            };
            let (path, sent) = match sent.strip_prefix('@').and_then(|rest| rest.split_once(' ')) {
                Some((path, rest)) => (path, rest),
                None => ("/echo", sent),
            };
            Row {
                name,
                path,
                deflate,
                bytes: bytes(sent),
                frames: wanted.split(", ").map(wanted_from).collect(),
            }
        })
        .collect()
}

fn wanted_from(text: &str) -> Wanted {
    let end = text.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(text.len());
    let (kind, rest) = text.split_at(end);
    match kind {
        "text" => Wanted::Data(Opcode::Text, bytes(rest)),
        "binary" => Wanted::Data(Opcode::Binary, bytes(rest)),
        "ztext" => Wanted::Deflated(Opcode::Text, bytes(rest)),
        "zbinary" => Wanted::Deflated(Opcode::Binary, bytes(rest)),
        "pong" => Wanted::Data(Opcode::Pong, bytes(rest)),
        "close" => Wanted::Close(rest.trim().parse().expect("a close code")),
        _ => panic!("no kind of frame: {text}"),
    }
}

fn bytes(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for word in text.split_whitespace() {
        if let Some(quoted) = word.strip_prefix('"') {
            out.extend_from_slice(quoted.strip_suffix('"').expect("a closing quote").as_bytes());
        } else if let Some((byte, times)) = word.split_once('*') {
            let byte = u8::from_str_radix(byte, 16).expect("a byte");
            out.resize(out.len() + times.parse::<usize>().expect("a count"), byte);
        } else {
            assert!(word.len().is_multiple_of(2), "half a byte: {word}");
            for at in (0..word.len()).step_by(2) {
                out.push(u8::from_str_radix(&word[at..at + 2], 16).expect("hexadecimal"));
            }
        }
    }
    out
}
