//! A publisher that waits for room in a mailbox, over a stream whose bytes are written down beforehand.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::*;
use crate::config::Settings;
use crate::edition::Router;
use crate::edition::{Edition, Port};
use crate::event_loop::core::Readiness;
use crate::topic::{Entry, Join, MailboxLimits, Place, RouterLimits, Since, TopicName, Wake};
use crate::transport::Received;

struct NoWake;

impl Wake for NoWake {
    fn wake(&self, _: usize) {}
}

/// Gives its reads one by one and takes every write.
struct Script(VecDeque<Vec<u8>>);

impl Socket for Script {
    type Shared = ();

    fn read(&mut self, (): &mut (), into: &mut [u8]) -> io::Result<Received> {
        let bytes = self.0.pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        into[..bytes.len()].copy_from_slice(&bytes);
        Ok(Received::Bytes { count: bytes.len(), more: false })
    }

    fn write(&mut self, (): &mut (), bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn end(&mut self, (): &mut ()) -> io::Result<()> {
        Ok(())
    }
}

const HEAD: &[u8] =
    b"GET /ws/lobby HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

/// The other loop, whose mailbox has room for one message.
const OTHER: usize = 1;

fn take_from_other(edition: &Edition) -> usize {
    let mailbox = edition.router.mailbox(OTHER).unwrap();
    let mut entries = Vec::new();
    mailbox.drain(&mut entries);
    let messages = entries.iter().filter_map(|entry| match entry {
        Entry::Deliver { message, .. } => Some(message.frame_len() as u64),
        _ => None,
    });
    messages.map(|bytes| mailbox.release(1, bytes)).count()
}

#[test]
fn a_publisher_that_waits_again_is_listed_once() {
    let mailbox = MailboxLimits { entries_max: 1, ..MailboxLimits::default() };
    let limits = RouterLimits { mailbox, ..RouterLimits::default() };
    let router = Arc::new(Router::new(3, limits, Box::new(NoWake)).unwrap());
    let edition = Arc::new(Edition::new(Settings::default(), router, 2, 10).unwrap());
    let topic = edition.router.topic(&TopicName::of("lobby")).unwrap();
    edition.router.join(&topic, OTHER, Join { local: 0, slot: 0, ticket: Place::NONE }, Since::Now).unwrap();
    take_from_other(&edition);

    let mut core = Core::new(0, Port::Client, Arc::clone(&edition)).unwrap();
    let mut frames = Vec::new();
    for _ in 0..6 {
        push_frame(&mut frames, Opcode::Text, b"x", Some([1, 2, 3, 4]));
    }
    let key = core.on_accepted(Script([HEAD.to_vec(), frames].into()), Default::default());
    let readable = Readiness { readable: true, read_closed: true, ..Readiness::default() };
    core.on_event(key, readable);

    let mut taken = 0;
    for _ in 0..20 {
        // Our own mailbox gets each message as well.
        core.drain_mailbox(|_| {});
        while core.has_work() {
            core.run_ready();
            core.fanout_turn();
        }
        assert!(core.blocked.len() <= 1, "listed {} times", core.blocked.len());
        taken += take_from_other(&edition);
        // The ready list gets one through, and the next one behind it waits again.
        core.list_ready(key);
        core.run_ready();
        assert!(core.blocked.len() <= 1, "listed {} times", core.blocked.len());
        taken += take_from_other(&edition);
        core.run_blocked();
    }
    assert_eq!(taken, 6);
    assert!(core.blocked.is_empty());
}
