//! Sets that are fetched from a server of tests, by a clock of tests: when, how often, and what becomes of what it says.

use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::mpsc;

use super::super::kit::{Server, answered, ok};
use super::schedule::WANTED_MS;
use super::*;
use crate::auth::token::kit::{NOW, ed25519_set, ed25519_token, plan as issuer_plan};
use crate::auth::token::{Issuers, KeySource, Refusal};
use crate::metrics::calls::FAILURES;
use crate::metrics::jwks::FETCHES_BRING;

/// No test waits for it but one that has failed.
const SOON: Duration = Duration::from_secs(60);

const HOUR_MS: u64 = 3_600_000;

fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < SOON, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Sets by a clock that stands until it is told to go on.
struct Bench {
    sets: KeySets,
    now: Arc<AtomicU64>,
}

impl Bench {
    fn new() -> Self {
        let now = Arc::new(AtomicU64::new(0));
        let clock = Arc::clone(&now);
        Self { sets: KeySets::by(Arc::new(move || clock.load(Ordering::SeqCst))), now }
    }

    fn issuers(&self, url: &str) -> (Issuers, Arc<FetchedKeys>) {
        let keys = self.sets.of(url, None).unwrap();
        let source = KeySource::Url { url: url.to_owned(), ca: None };
        let loaded =
            Issuers::load_with(&[issuer_plan(None, &[], vec![source])], |_, _| Ok(Arc::clone(&keys)));
        (loaded.unwrap().issuers, keys)
    }

    /// Lets so much time pass, and the thread know.
    fn pass(&self, ms: u64, keys: &FetchedKeys) {
        self.now.fetch_add(ms, Ordering::SeqCst);
        keys.wake();
    }

    fn fetches(&self, outcome: &str) -> u64 {
        let shown = FETCHES_BRING.into_iter().chain(FAILURES).find(|shown| shown.label() == outcome);
        self.sets.facts().fetches.of(shown.unwrap())
    }
}

fn kid(name: &str) -> String {
    format!(r#","kid":"{name}""#)
}

#[test]
fn issuers_of_one_address_share_its_keys_and_one_fetch() {
    let server = Server::saying(ok(&ed25519_set(&[("a", 1), ("b", 2)])));
    let bench = Bench::new();
    let (issuers, keys) = bench.issuers(&server.url());
    let (others, same) = bench.issuers(&server.url());
    assert!(Arc::ptr_eq(&keys, &same));
    wait_for("the keys are there", || keys.count() == 2);
    for (issuers, seed, name) in [(&issuers, 1, "a"), (&others, 2, "b")] {
        assert!(issuers.check(&ed25519_token(seed, &kid(name)), NOW).is_ok());
    }
    assert_eq!((server.asked(), bench.fetches("changed")), (1, 1));
    let request = server.requests.lock().unwrap().concat().to_ascii_lowercase();
    assert!(request.starts_with("get /ask http/1.1\r\n"), "{request}");
    assert_eq!(request.matches("accept: ").count(), 1, "{request}");
    assert!(request.contains("accept: application/jwk-set+json, application/json\r\n"), "{request}");
    let facts = bench.sets.facts();
    assert_eq!(facts.sets, [JwksSet { url: server.url(), keys: 2, age_seconds: 0 }]);
    // Another address is another set. It goes when nobody holds it any more, and the thread with it.
    let (more, other) = bench.issuers(&(server.url() + "?p=1"));
    wait_for("its keys are there", || other.count() == 2);
    assert_eq!((bench.sets.facts().sets.len(), Arc::strong_count(&bench.sets.clock)), (2, 3));
    drop((more, other));
    wait_for("nobody holds them", || bench.sets.facts().sets.len() == 1);
    wait_for("the thread ends", || Arc::strong_count(&bench.sets.clock) == 2);
    // The edition names these, and the next one does not, whoever holds them.
    bench.sets.keep(std::iter::once(&*keys));
    assert_eq!((bench.sets.facts().sets.len(), keys.is_retired()), (1, false));
    bench.sets.keep(std::iter::empty());
    wait_for("nobody holds them", || bench.sets.facts().sets.is_empty());
    wait_for("the thread ends", || Arc::strong_count(&bench.sets.clock) == 1);
}

#[test]
fn a_storm_of_keys_that_are_not_there_is_one_fetch() {
    const STORM: usize = 500;
    let (go, gone) = mpsc::channel::<()>();
    let (gone, first) = (Mutex::new(gone), AtomicBool::new(true));
    let server = Server::start(move |_, stream| {
        let set = if first.swap(false, Ordering::SeqCst) {
            ed25519_set(&[("a", 1)])
        } else {
            let _ = gone.lock().unwrap().recv_timeout(SOON);
            ed25519_set(&[("b", 2)])
        };
        stream.write_all(&ok(&set)).is_ok()
    });
    let bench = Bench::new();
    let (issuers, keys) = bench.issuers(&server.url());
    let [a, b, other] = [(1, "a"), (2, "b"), (3, "c")].map(|(seed, name)| ed25519_token(seed, &kid(name)));
    let said = |token: &str| issuers.check(token, NOW).map(|_| ());
    wait_for("the set is fetched", || said(&b) == Err(Refusal::Key));
    let storm = || {
        let heard = AtomicUsize::new(0);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..STORM {
                        let awaited = said(&other) == Err(Refusal::Awaited);
                        heard.fetch_add(usize::from(awaited), Ordering::SeqCst);
                    }
                });
            }
        });
        heard.into_inner()
    };
    assert_eq!((storm(), server.asked()), (0, 1), "just fetched: they are none");
    bench.pass(WANTED_MS, &keys);
    wait_for("they may have come", || said(&b) == Err(Refusal::Awaited));
    // Those that are there are good, and a fetch that takes its time keeps nobody waiting.
    assert_eq!((storm(), said(&a)), (4 * STORM, Ok(())));
    wait_for("it is asked", || server.asked() == 2);
    go.send(()).unwrap();
    wait_for("the new key is there", || said(&b) == Ok(()));
    wait_for("it is known to be all", || said(&a) == Err(Refusal::Key));
    assert_eq!((storm(), server.asked(), bench.fetches("changed")), (0, 2, 2));
}

#[test]
fn what_cannot_be_fetched_leaves_what_there_was() {
    let answer = Arc::new(Mutex::new(ok(&ed25519_set(&[("a", 1)]))));
    let given = Arc::clone(&answer);
    let server = Server::start(move |_, stream| {
        let answer = given.lock().unwrap().clone();
        !answer.is_empty() && stream.write_all(&answer).is_ok()
    });
    let bench = Bench::new();
    let (issuers, keys) = bench.issuers(&server.url());
    wait_for("the set is fetched", || bench.fetches("changed") == 1);
    let secret = r#"{"keys":[{"kty":"oct","kid":"a","k":"AAAA"}]}"#;
    let many: Vec<_> = (0..65).map(|number| format!("k{number}")).collect();
    let many: Vec<_> = many.iter().map(|name| (name.as_str(), 1)).collect();
    let redirect = "HTTP/1.1 302 Found\r\nLocation: https://evil.example/\r\nContent-Length: 0\r\n\r\n";
    for (bad, outcome) in [
        (answered("500 Oh", &ed25519_set(&[("b", 2)])), "status"),
        (ok("<html>hello</html>"), "nonsense"),
        (ok(secret), "nonsense"),
        (ok(&ed25519_set(&many)), "nonsense"),
        (ok(&" ".repeat(1 << 20 | 1)), "too_long"),
        (redirect.into(), "redirect"),
        (b"\0\0\r\n\r\n".to_vec(), "not_http"),
        // It hangs up.
        (Vec::new(), "connection"),
    ] {
        *answer.lock().unwrap() = bad;
        let before = bench.fetches(outcome);
        bench.pass(HOUR_MS, &keys);
        wait_for(outcome, || bench.fetches(outcome) == before + 1);
        assert!(issuers.check(&ed25519_token(1, &kid("a")), NOW).is_ok(), "{outcome}");
        wait_for("nobody knows", || {
            issuers.check(&ed25519_token(2, &kid("b")), NOW) == Err(Refusal::Awaited)
        });
    }
    assert_eq!(bench.sets.facts().sets[0].age_seconds, 8 * 3_600);
    *answer.lock().unwrap() = ok(&ed25519_set(&[("a", 1)]));
    bench.pass(HOUR_MS, &keys);
    wait_for("it is back", || bench.fetches("same") == 1);
    assert_eq!(bench.sets.facts().sets[0].age_seconds, 0);
}

#[test]
fn who_is_not_there_at_first_is_tried_again_and_one_that_asks_for_it_left_alone() {
    let answer = Arc::new(Mutex::new(Vec::new()));
    let given = Arc::clone(&answer);
    let server = Server::start(move |_, stream| {
        let answer = given.lock().unwrap().clone();
        !answer.is_empty() && stream.write_all(&answer).is_ok()
    });
    let bench = Bench::new();
    let (issuers, keys) = bench.issuers(&server.url());
    let token = ed25519_token(1, &kid("a"));
    wait_for("it hangs up", || bench.fetches("connection") == 1);
    assert_eq!(issuers.check(&token, NOW), Err(Refusal::Awaited));
    *answer.lock().unwrap() = b"HTTP/1.1 503 Later\r\nRetry-After: 120\r\nContent-Length: 0\r\n\r\n".to_vec();
    bench.pass(1_000, &keys);
    wait_for("it is tried again", || bench.fetches("status") == 1);
    *answer.lock().unwrap() = ok(&ed25519_set(&[("a", 1)]));
    let asked = server.asked();
    // However much it is wanted.
    bench.pass(119_999, &keys);
    assert_eq!(issuers.check(&token, NOW), Err(Refusal::Awaited));
    assert_eq!((bench.sets.of(&server.url(), None).unwrap().count(), server.asked()), (0, asked));
    bench.pass(1, &keys);
    wait_for("its keys are there", || issuers.check(&token, NOW).is_ok());
}

#[test]
fn a_set_is_fetched_again_when_it_is_old_and_in_half_a_minute_if_that_is_asked_for() {
    let set = ed25519_set(&[("a", 1)]);
    let answer = format!(
        "HTTP/1.1 200 OK\r\nCache-Control: public, max-age=400\r\nAge: 100\r\nContent-Length: {}\r\n\r\n{set}",
        set.len()
    );
    let server = Server::saying(answer);
    let bench = Bench::new();
    let (_issuers, keys) = bench.issuers(&server.url());
    wait_for("it is fetched", || bench.fetches("changed") == 1);
    bench.pass(299_999, &keys);
    bench.pass(1, &keys);
    wait_for("it is old", || bench.fetches("same") == 1);
    assert_eq!(server.asked(), 2);
    // As a reload does.
    assert!(Arc::ptr_eq(&bench.sets.of(&server.url(), None).unwrap(), &keys));
    assert_eq!(server.asked(), 2);
    bench.pass(WANTED_MS, &keys);
    wait_for("it is asked for", || bench.fetches("same") == 2);
    assert_eq!((server.asked(), keys.count()), (3, 1));
}

#[test]
fn addresses_are_told_apart_without_what_may_be_a_secret_in_them() {
    let bench = Bench::new();
    let addresses =
        ["http://127.0.0.1:1/a?key=one", "http://127.0.0.1:1/a?key=two", "http://127.0.0.1:1/a/b"];
    let _held = addresses.map(|url| bench.sets.of(url, None).unwrap());
    let told: Vec<String> = bench.sets.facts().sets.into_iter().map(|set| set.url).collect();
    assert_eq!(told, ["http://127.0.0.1:1/a", "http://127.0.0.1:1/a#2", "http://127.0.0.1:1/a/b"]);
}

#[test]
fn keys_are_fetched_in_a_way_that_nobody_can_change_them() {
    for good in
        ["https://a.example/keys?p=1", "http://127.0.0.1:1/", "http://[::1]:9/a", "http://LocalHost/a"]
    {
        assert_eq!(check_jwks_url(good), Ok(()), "{good}");
    }
    let long = format!("https://a.example/{}", "x".repeat(URL_BYTES_MAX));
    for bad in [
        "",
        "a.example",
        "http://a.example/keys",
        "http://127.0.0.1.evil.example/",
        "http://10.0.0.1/",
        "https://u:p@a.example/",
        "https://a.example/#x",
        "https://a.example/\"",
        "file:///etc/keys.json",
        &long,
    ] {
        assert!(check_jwks_url(bad).is_err(), "{bad}");
    }
    let problem = KeySets::check("https://a.example/", Some(Path::new("/nonexistent/ca"))).unwrap_err();
    assert!(problem.contains("/nonexistent/ca"), "{problem}");
}
