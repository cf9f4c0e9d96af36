//! A message comes to many connections as the same bytes, and is counted by comparing them. What a server does wrong with
//! one of many that are alike is told all the same.

use std::collections::HashMap;
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tungstenite::Message;

use crate::accept::accept;
use crate::{listen, run};

const MEMBERS: usize = 20;
const MESSAGES: usize = 20;
/// Long enough for what was written before to be read alone, mostly; what is counted does not depend on it.
const APART: Duration = Duration::from_millis(3);

/// Where messages go, in the order in which members came, and what was kept back for one of a topic.
#[derive(Default)]
struct Members {
    streams: Vec<TcpStream>,
    kept: HashMap<String, Vec<u8>>,
    before: HashMap<String, Vec<u8>>,
}

/// Delivers what is said on `/say/TOPIC` to everybody, in plain frames; at each message it does something wrong, or only
/// unusual, with one member who is far behind others that got the same. With `masks` also what ends a connection.
fn lying_server(masks: bool) -> SocketAddr {
    let (listener, address) = listen();
    let members = Arc::new(Mutex::new(Members::default()));
    thread::spawn(move || {
        for stream in listener.incoming() {
            // Whoever knows that it is upgraded is a member.
            let mut all = members.lock().unwrap();
            let (mut socket, path) = accept(stream.unwrap());
            let Some(topic) = path.strip_prefix("/say/").map(str::to_owned) else {
                all.streams.push(socket.get_ref().try_clone().unwrap());
                // Nothing that a member says matters, and its end closes nothing here.
                thread::spawn(move || while socket.read().is_ok() {});
                continue;
            };
            drop(all);
            let members = members.clone();
            thread::spawn(move || {
                while let Ok(Message::Text(text)) = socket.read() {
                    members.lock().unwrap().deliver(&topic, &text, masks);
                }
            });
        }
    });
    address
}

/// An unmasked frame: RFC 6455 section 5.2.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    [&[first, u8::try_from(payload.len()).unwrap()], payload].concat()
}

impl Members {
    fn deliver(&mut self, topic: &str, text: &str, masks: bool) {
        let whole = frame(0x81, text.as_bytes());
        let before = self.before.insert(topic.to_owned(), whole.clone()).unwrap_or_default();
        let number = u32::from_str_radix(&text[20..28], 16).unwrap();
        for (member, stream) in self.streams.iter_mut().enumerate() {
            let mut say = |pieces: &[&[u8]]| {
                for (index, piece) in pieces.iter().enumerate() {
                    if index > 0 {
                        thread::sleep(APART);
                    }
                    // The generator may have ended this connection.
                    let _ = stream.write_all(piece);
                }
            };
            let kept = self.kept.entry(topic.to_owned()).or_default();
            match (number, member) {
                // Twice: at once, by itself, and once more when the next one has come.
                (1, 5) => say(&[&[&whole[..], &whole].concat()]),
                (2, 6) => say(&[&whole, &whole]),
                (4, 7) => say(&[&whole, &before]),
                // Never.
                (3, 8) => {}
                // The one before in its place.
                (5, 9) => say(&[&before]),
                // Changed behind its marker, and in its number.
                (6, 10) => say(&[&[&whole[..whole.len() - 1], b"!"].concat()]),
                (7, 11) => {
                    let mut changed = whole.clone();
                    changed[2 + 27] ^= 1;
                    say(&[&changed]);
                }
                // As another kind.
                (8, 12) => say(&[&frame(0x82, text.as_bytes())]),
                // Swapped, in two reads.
                (9, 13) => *kept = whole.clone(),
                (10, 13) => say(&[&whole, &std::mem::take(kept)]),
                // In two reads, in two frames, behind a ping, and together with half of the next one.
                (11, 14) => say(&[&whole[..40], &whole[40..]]),
                (12, 15) => say(&[&frame(0x01, &text.as_bytes()[..9]), &frame(0x80, &text.as_bytes()[9..])]),
                (13, 16) => say(&[&[&frame(0x89, b"?")[..], &whole].concat()]),
                (14, 17) => *kept = whole.clone(),
                (15, 17) => {
                    let (half, rest) = whole.split_at(30);
                    say(&[&[&std::mem::take(kept)[..], half].concat(), rest]);
                }
                // Masked, which no server may do: RFC 6455 section 5.1.
                (18, 19) if masks => {
                    say(&[&[&[0x81, 0x80 | whole[1], 0, 0, 0, 0][..], text.as_bytes()].concat()]);
                }
                _ => say(&[&whole]),
            }
        }
    }
}

fn fanout(address: SocketAddr, url: &str, more: &[&str]) -> (i32, Value, String) {
    let url = format!("ws://{address}{url}");
    let publish = format!("ws://{address}/say/{{topic}}");
    let mut args = vec!["fanout", "--url", &url, "--publish", "ws", "--publish-url", &publish];
    args.extend(["--connections", "20", "--threads", "1", "--duration", "500ms", "--wait-late", "2s"]);
    args.extend(more);
    run(&args)
}

#[track_caller]
fn assert_counts(outcome: &(i32, Value, String), counts: &[(&str, usize)]) {
    let (code, report, table) = outcome;
    assert_eq!(*code, 1, "{table}");
    for (field, count) in counts {
        assert_eq!(report[field], json!(count), "{field}: {table}");
    }
    assert_eq!(report["latency"]["count"], report["deliveries"], "each once: {table}");
}

/// Of one topic: what is twice, and the one before in the place of another; changed ones; and what did not come, or only
/// changed.
const DUPLICATE: usize = 4;
const CORRUPT: usize = 3;
const MISSING: usize = 2 + CORRUPT;

#[test]
fn what_is_wrong_behind_many_that_are_alike_is_told() {
    let outcome = fanout(lying_server(true), "/", &["--rate", "40"]);
    // Behind a masked frame a connection is over: that message and the last one are missing there.
    let missing = MISSING + 2;
    assert_counts(
        &outcome,
        &[
            ("deliveries", MEMBERS * MESSAGES - missing),
            ("missing", missing),
            ("duplicate", DUPLICATE),
            ("corrupt", CORRUPT),
            ("reordered", 1),
            ("foreign", 0),
            ("stray", 0),
        ],
    );
    assert_eq!(outcome.1["connections"]["lost"], 1, "{}", outcome.2);
}

#[test]
fn the_same_is_told_where_everybody_is_in_several_topics() {
    let more = ["--topics", "2", "--members", "20", "--rate", "80"];
    let outcome = fanout(lying_server(false), "/?topic={topics:&topic=}", &more);
    assert_counts(
        &outcome,
        &[
            ("deliveries", 2 * (MEMBERS * MESSAGES - MISSING)),
            ("missing", 2 * MISSING),
            ("duplicate", 2 * DUPLICATE),
            ("corrupt", 2 * CORRUPT),
            ("reordered", 2),
            ("foreign", 0),
            ("stray", 0),
        ],
    );
    assert_eq!(outcome.1["connections"]["lost"], 0, "{}", outcome.2);
}
