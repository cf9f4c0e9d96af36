//! A loop core over streams whose input is a script: what is counted is given back, what is owed is forgotten.

use super::*;
use crate::config::{Settings, Sources, load};
use crate::edition::Edition;
use crate::edition::Router;
use crate::event_loop::core::Readiness;
use crate::topic::{RouterLimits, Wake};
use crate::transport::Received;
use crate::wire::frame::{Opcode, push_frame};
use std::collections::VecDeque;
use std::io;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};

const REQUEST: &[u8] =
    b"GET /echo HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

#[derive(Default)]
struct Wire {
    input: VecDeque<Vec<u8>>,
    ended: bool,
    output: Vec<u8>,
}

#[derive(Clone, Default)]
struct Script(Arc<Mutex<Wire>>);

impl Script {
    fn says(bytes: &[u8]) -> Self {
        let script = Self::default();
        script.say(bytes);
        script
    }

    fn say(&self, bytes: &[u8]) {
        self.0.lock().unwrap().input.push_back(bytes.to_vec());
    }

    fn end(&self) {
        self.0.lock().unwrap().ended = true;
    }

    fn heard(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap().output).into_owned()
    }
}

impl Socket for Script {
    type Shared = ();

    fn read(&mut self, (): &mut (), into: &mut [u8]) -> io::Result<Received> {
        let mut wire = self.0.lock().unwrap();
        match wire.input.pop_front() {
            Some(bytes) => {
                into[..bytes.len()].copy_from_slice(&bytes);
                Ok(Received::Bytes { count: bytes.len(), more: false })
            }
            None if wire.ended => Ok(Received::End),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    fn write(&mut self, (): &mut (), bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().output.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn end(&mut self, (): &mut ()) -> io::Result<()> {
        Ok(())
    }
}

struct NoWake;

impl Wake for NoWake {
    fn wake(&self, _: usize) {}
}

const READABLE: Readiness = Readiness { readable: true, writable: false, read_closed: false, error: false };

fn core(change: impl FnOnce(&mut Settings)) -> (Core<Script>, Arc<Edition>) {
    let mut settings = Settings::default();
    change(&mut settings);
    let edition = edition(settings);
    (Core::new(0, Port::Client, Arc::clone(&edition)).unwrap(), edition)
}

fn edition(settings: Settings) -> Arc<Edition> {
    let router = Router::new(2, RouterLimits::default(), Box::new(NoWake)).unwrap();
    Arc::new(Edition::new(settings, Arc::new(router), 1, 100).unwrap())
}

fn arrive(core: &mut Core<Script>, script: &Script) -> Key {
    let arrival = core.admit(Ipv4Addr::LOCALHOST.into(), false);
    let key = core.on_accepted(script.clone(), arrival);
    core.on_event(key, READABLE);
    key
}

fn ping() -> Vec<u8> {
    let mut frame = Vec::new();
    push_frame(&mut frame, Opcode::Ping, b"", Some([0; 4]));
    frame
}

#[test]
fn a_quiet_connection_remembers_no_rates() {
    let (mut core, _) = core(|settings| {
        settings.admission.messages_per_second = 10;
        settings.admission.messages_burst = 3;
        settings.admission.bytes_per_second = 1_000;
        settings.timeouts.heartbeat = std::time::Duration::ZERO;
    });
    let script = Script::says(REQUEST);
    let key = arrive(&mut core, &script);
    assert!(core.slots.get(key).unwrap().connection.session.is_none());
    // The handshake's own deadline.
    core.set_now(150);
    core.sweep();
    assert_eq!(core.sleep_ms(15_000), None, "nothing is due");
    for round in 2..=5_u32 {
        core.set_now(round * 100);
        for _ in 0..3 {
            script.say(&ping());
            core.on_event(key, READABLE);
        }
        assert!(core.slots.get(key).unwrap().connection.session.is_some());
        // Three tokens at ten a second, and at most a sweep's period later.
        core.set_now(round * 100 + 3 + crate::event_loop::SWEEP_PERIOD);
        core.sweep();
        assert!(core.slots.get(key).unwrap().connection.session.is_none(), "round {round}");
        assert_eq!(core.sleep_ms(u64::from(round) * 10_000), None, "an idle loop does not wake");
    }
    for _ in 0..4 {
        script.say(&ping());
    }
    core.on_event(key, Readiness { read_closed: true, ..READABLE });
    assert!(script.heard().ends_with("see admission.messages_per_second"), "{:?}", script.heard());
}

#[test]
fn whatever_ends_a_connection_gives_back_what_was_counted() {
    let (mut core, edition) = core(|settings| settings.admission.per_address_max = 3);
    let silent = Script::default();
    let half = Script::says(b"GET / HT");
    let open = Script::says(REQUEST);
    let keys = [&silent, &half, &open].map(|script| arrive(&mut core, script));
    assert_eq!((edition.admission.handshakes(), edition.admission.addresses()), (2, 1));
    let late = Script::says(REQUEST);
    let refused = arrive(&mut core, &late);
    assert!(late.heard().starts_with("HTTP/1.1 429 "), "{}", late.heard());
    assert_eq!((core.refusing, core.counters.refusals(RefuseReason::TooManyFromAddress)), (1, 1));
    for (script, key) in [(&silent, keys[0]), (&half, keys[1]), (&open, keys[2]), (&late, refused)] {
        script.end();
        core.on_event(key, Readiness { read_closed: true, ..READABLE });
    }
    core.run_ready();
    assert_eq!(core.connections(), 0);
    assert_eq!((edition.admission.handshakes(), edition.admission.addresses(), core.refusing), (0, 0, 0));
    assert_eq!(edition.connections_open(), 0);
    assert_eq!(core.counters.handshakes.value(), 0);
}

#[test]
fn a_refused_stream_without_a_slot_is_answered_and_counted_out() {
    let (mut core, edition) = core(|_| {});
    for _ in 0..REFUSALS_AT_A_TIME {
        assert!(core.may_refuse_properly());
        let arrival = core.admit(Ipv4Addr::LOCALHOST.into(), true);
        core.on_accepted(Script::default(), arrival);
    }
    assert!(!core.may_refuse_properly());
    let reason = core.admit(Ipv4Addr::LOCALHOST.into(), true).refused.unwrap();
    let script = Script::says(REQUEST);
    core.refuse_at_once(script.clone(), reason);
    assert!(script.heard().starts_with("HTTP/1.1 503 ") && script.heard().contains("Retry-After: 1\r\n"));
    assert!(script.0.lock().unwrap().input.is_empty(), "an unread request would reset the answer away");
    assert_eq!(edition.connections_open(), 0, "who is refused takes nobody's place");
    assert_eq!(core.counters.refused_at_once.value(), 1);
    // Those that say nothing are answered, too, when the linger time is over.
    core.set_now(21 + crate::event_loop::SWEEP_PERIOD);
    core.sweep();
    assert_eq!(core.counters.closes(CloseReason::Refused), REFUSALS_AT_A_TIME as u64);
}

#[test]
fn who_is_refused_behind_its_proxy_takes_nobodys_place_and_says_nothing_for_a_linger_time_only() {
    let (mut core, edition) = core(|settings| {
        settings.admission.proxy_protocol = true;
        settings.admission.trusted_proxies = vec!["127.0.0.0/8".into()];
        settings.admission.per_address_max = 1;
    });
    let line = b"PROXY TCP4 192.0.2.1 127.0.0.1 4711 80\r\n";
    arrive(&mut core, &Script::says(&[&line[..], REQUEST].concat()));
    let silent: Vec<Script> = (0..REFUSALS_AT_A_TIME + 8).map(|_| Script::says(line)).collect();
    let keys: Vec<Key> = silent.iter().map(|script| arrive(&mut core, script)).collect();
    assert_eq!((core.refusing, core.connections()), (REFUSALS_AT_A_TIME, REFUSALS_AT_A_TIME + 1));
    assert_eq!((edition.connections_open(), edition.admission.handshakes()), (1, 0));
    assert_eq!(core.counters.handshakes.value(), 0);
    assert_eq!(core.counters.refusals(RefuseReason::TooManyFromAddress), keys.len() as u64);
    // Those who are too many have their answer at once, the others if they ask or the linger time is over.
    let told =
        |scripts: &[Script]| scripts.iter().filter(|one| one.heard().starts_with("HTTP/1.1 429 ")).count();
    assert_eq!((told(&silent), core.counters.refused_at_once.value()), (8, 8));
    silent[0].say(REQUEST);
    core.on_event(keys[0], READABLE);
    assert_eq!(told(&silent), 9);
    core.set_now(21 + crate::event_loop::SWEEP_PERIOD);
    core.sweep();
    assert_eq!(told(&silent), keys.len());
    for (script, key) in silent.iter().zip(keys) {
        script.end();
        core.on_event(key, Readiness { read_closed: true, ..READABLE });
    }
    core.run_ready();
    assert_eq!((core.refusing, core.connections(), edition.connections_open()), (0, 1, 1));
    assert_eq!(edition.admission.addresses(), 1);
}

/// The admin loop with room for some, as its listener accepts.
struct AdminPort {
    core: Core<Script>,
    capacity: usize,
}

impl AdminPort {
    fn arrive(&mut self, peer: &str, says: &[u8]) -> Result<(Key, Script), RefuseReason> {
        let full = self.core.admitted() >= self.capacity;
        let arrival = self.core.admit(peer.parse().unwrap(), full);
        if let Some(reason) = arrival.refused {
            return Err(reason);
        }
        let script = if says.is_empty() { Script::default() } else { Script::says(says) };
        let key = self.core.on_accepted(script.clone(), arrival);
        self.core.on_event(key, READABLE);
        Ok((key, script))
    }

    fn has(&mut self, key: Key) -> bool {
        self.core.slots.get(key).is_some()
    }
}

#[test]
fn strangers_on_the_admin_port_do_not_keep_the_operator_out() {
    let keys = ("FANTAIL_ADMIN_KEYS".into(), "read:read-0123456789abc".into());
    let loaded = load(&Sources { environment: vec![keys], ..Sources::default() });
    let edition = edition(loaded.unwrap().settings);
    let mut port = AdminPort { core: Core::new(1, Port::Admin, edition).unwrap(), capacity: 100 };
    let with_key =
        b"GET /topics HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer read-0123456789abc\r\n\r\n";
    let probe = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let (operator, heard) = port.arrive("192.0.2.1", with_key).unwrap();
    assert!(heard.heard().starts_with("HTTP/1.1 200 "), "{}", heard.heard());
    let (prober, _) = port.arrive("192.0.2.1", probe).unwrap();
    for _ in 1..32 {
        port.arrive("192.0.2.1", b"GET /topics HTTP/1.1\r\n").unwrap();
    }
    let refused = port.arrive("192.0.2.1", b"");
    assert_eq!(refused.err(), Some(RefuseReason::TooManyFromAddress));
    // Of a whole IPv6 network as well, and the others come in.
    for host in 0..32 {
        port.arrive(&format!("2001:db8::{host}"), b"").unwrap();
    }
    assert_eq!(port.arrive("2001:db8::ffff", b"").err(), Some(RefuseReason::TooManyFromAddress));
    for host in 0..35 {
        port.arrive(&format!("198.51.100.{host}"), b"").unwrap();
    }
    assert_eq!(port.core.admitted(), 100);
    // Full: whoever has shown no key for longest makes room, and an operator never does.
    assert!(port.has(prober));
    let (second, heard) = port.arrive("203.0.113.1", with_key).unwrap();
    assert!(heard.heard().starts_with("HTTP/1.1 200 "));
    assert!(!port.has(prober) && port.core.admitted() == 100);
    for host in 0..250 {
        // On loopback all programs share an address.
        let peer = if host % 2 == 0 { "127.0.0.1".to_owned() } else { format!("203.0.113.{host}") };
        let _ = port.arrive(&peer, b"");
    }
    assert!(port.has(operator) && port.has(second));
    let displaced = port.core.counters.closes(CloseReason::Displaced);
    assert_eq!((displaced, port.core.admitted()), (251, 100));
    // When everybody is the operator there is nobody to make room.
    for host in 0..98 {
        port.arrive(&format!("192.0.2.{host}"), with_key).unwrap();
    }
    assert_eq!(port.arrive("127.0.0.1", with_key).err(), Some(RefuseReason::AtCapacity));
}
