//! What it costs that a connection has shown a token, counted by the allocator. Drives the real loop core over streams that are
//! idle behind their request, once with a token each and once without.

use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;
use fantail::config::{Clients, IssuerRule, Settings, TopicRule};
use fantail::edition::{Edition, Port, Router};
use fantail::event_loop::core::{Core, Readiness};
use fantail::topic::{Key, RouterLimits, Wake};
use fantail::transport::{Received, Socket};
use fantail_test_support::counting_alloc::CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

const CONNECTIONS: usize = 1_000;

/// Beside its slot, with lists that tokens share, the place in the loop's table and the one among those that have connections.
const BYTES_PER_IDENTITY_MAX: usize = 200;

/// Requests of those who show a token, and one of those who do not.
static HEADS: OnceLock<Vec<String>> = OnceLock::new();

/// Whether every peer has ended its stream.
static ENDED: AtomicBool = AtomicBool::new(false);

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A stream whose peer has sent the request of this number, if it has not been read yet, and says nothing more.
struct Asking(Option<u16>);

impl Socket for Asking {
    type Shared = ();

    fn read(&mut self, (): &mut (), into: &mut [u8]) -> io::Result<Received> {
        let said = self.0.take().and_then(|number| HEADS.get()?.get(usize::from(number)));
        let Some(head) = said else {
            return match ENDED.load(Ordering::Relaxed) {
                true => Ok(Received::End),
                false => Err(io::ErrorKind::WouldBlock.into()),
            };
        };
        into[..head.len()].copy_from_slice(head.as_bytes());
        Ok(Received::Bytes { count: head.len(), more: false })
    }

    fn write(&mut self, (): &mut (), bytes: &[u8]) -> io::Result<usize> {
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

fn head(fields: &str) -> String {
    format!(
        "GET /ws/news HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{fields}\r\n"
    )
}

/// A thousand who differ in all that tokens differ in, and behind them one request without a token.
fn heads() -> Vec<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET.as_bytes());
    let token = |number: usize| {
        let claims = format!(
            r#"{{"iss":"https://login.example","sub":"user-{number:010}","exp":{},"jti":"f81d4fae-7dec-11d0-a765-{number:012x}",
            "tenant":"acme","subscribe":["news","users/{{sub}}/**"]}}"#,
            now + 600
        );
        let [header, claims] =
            [r#"{"alg":"HS256"}"#, &claims].map(|part| BASE64URL_NOPAD.encode(part.as_bytes()));
        let signature = hmac::sign(&key, format!("{header}.{claims}").as_bytes());
        let signature = BASE64URL_NOPAD.encode(signature.as_ref());
        head(&format!("Authorization: Bearer {header}.{claims}.{signature}\r\n"))
    };
    (0..CONNECTIONS).map(token).chain([head("")]).collect()
}

fn open(core: &mut Core<Asking>, numbers: impl Iterator<Item = usize>) -> Vec<Key> {
    let open_one = |number: usize| {
        let arrival = core.admit(IpAddr::from([127, 0, 0, 1]), false);
        assert_eq!(arrival.refused, None);
        let number = u16::try_from(number).expect("a small number");
        let key = core.on_accepted(Asking(Some(number)), arrival);
        core.on_event(key, Readiness { readable: true, writable: true, ..Readiness::default() });
        core.drain_mailbox(|_| {});
        key
    };
    numbers.map(open_one).collect()
}

fn leave(core: &mut Core<Asking>, keys: &[Key]) {
    ENDED.store(true, Ordering::Relaxed);
    for key in keys {
        let ended = Readiness { readable: true, error: true, read_closed: true, ..Readiness::default() };
        core.on_event(*key, ended);
    }
    ENDED.store(false, Ordering::Relaxed);
    assert_eq!(core.connections(), 0);
}

#[test]
fn an_identity_is_small_and_is_given_back() {
    let secret = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("identity-{}", std::process::id()));
    std::fs::write(&secret, SECRET).expect("a file");
    let issuers = vec![IssuerRule {
        issuer: "https://login.example".to_owned(),
        hmac_file: secret.to_str().expect("a name").to_owned(),
        ..IssuerRule::default()
    }];
    let mut settings = Settings { issuers, ..Settings::default() };
    settings.auth.connections_per_identity_max = 1;
    // What is the same for all of them is there once.
    settings.auth.claims = vec!["tenant".to_owned()];
    settings.topics = vec![TopicRule {
        pattern: "news".to_owned(),
        subscribe: Some(Clients::Anyone),
        ..TopicRule::default()
    }];
    // All are of one address here.
    settings.admission.per_address_max = 0;
    HEADS.set(heads()).expect("nobody else sets it");
    let router = Arc::new(Router::new(2, RouterLimits::default(), Box::new(NoWake)).expect("two loops"));
    let edition = Arc::new(Edition::new(settings, router, 1, 100_000).expect("settings"));
    std::fs::remove_file(&secret).expect("it is there");
    let mut core = Core::new(0, Port::Client, Arc::clone(&edition)).expect("loop 0 exists");
    // What a loop keeps for good is there before.
    let before = open(&mut core, 0..64);
    assert_eq!(edition.holders.len(), 64);
    leave(&mut core, &before);
    assert_eq!(edition.holders.len(), 0);

    let start = ALLOCATOR.used();
    let keys = open(&mut core, (0..CONNECTIONS).map(|_| CONNECTIONS));
    let plain = ALLOCATOR.used() - start;
    leave(&mut core, &keys);
    let start = ALLOCATOR.used();
    let keys = open(&mut core, 0..CONNECTIONS);
    let identified = ALLOCATOR.used() - start;
    assert_eq!(
        (edition.holders.len(), edition.counters_of(0).upgrades.value()),
        (CONNECTIONS, 2 * CONNECTIONS as u64 + 64)
    );
    let each = identified.saturating_sub(plain).div_ceil(CONNECTIONS);
    println!("{each} bytes an identity");
    assert!((64..=BYTES_PER_IDENTITY_MAX).contains(&each), "{each} bytes an identity");
    leave(&mut core, &keys);
    drop(keys);
    let kept = ALLOCATOR.used().saturating_sub(start);
    assert!(kept <= 64 * 1024, "{kept} bytes kept");
}
