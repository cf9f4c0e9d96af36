//! The addresses of the one host that a caller calls: asked for by one thread at a time, and believed for a while.
//!
//! `getaddrinfo` knows no deadline. Whoever waits for it goes on at his own, and a further call waits for the same
//! thread: a resolver that hangs holds one thread, however many calls there are.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::NextTimeout;

/// How long addresses are believed.
const BELIEVED: Duration = Duration::from_secs(10);

/// Addresses that are tried.
const ADDRESSES_MAX: usize = 16;

#[derive(Default)]
struct Known {
    addresses: Vec<SocketAddr>,
    until: Option<Instant>,
    asking: bool,
    /// How often it was asked, so that who waits knows an answer from the one before.
    answers: u64,
}

/// What is known of one host.
#[derive(Default)]
pub(super) struct Names {
    shared: Arc<(Mutex<Known>, Condvar)>,
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Names")
    }
}

fn lock(known: &Mutex<Known>) -> MutexGuard<'_, Known> {
    // It is replaced whole, so a panic elsewhere left nothing half done.
    known.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Names {
    /// The addresses of `host`, such as `a.example:443`, before `deadline`.
    fn addresses(&self, host: String, deadline: Instant) -> Option<Vec<SocketAddr>> {
        if let Ok(address) = host.parse() {
            return Some(vec![address]);
        }
        let (known, changed) = &*self.shared;
        let mut held = lock(known);
        if held.until.is_some_and(|until| Instant::now() < until) {
            return Some(held.addresses.clone());
        }
        if !held.asking {
            held.asking = true;
            let shared = Arc::clone(&self.shared);
            let ask = move || {
                let found: Vec<SocketAddr> = host
                    .to_socket_addrs()
                    .map(|found| found.take(ADDRESSES_MAX).collect())
                    .unwrap_or_default();
                let (known, changed) = &*shared;
                let mut held = lock(known);
                held.until = (!found.is_empty()).then(|| Instant::now() + BELIEVED);
                held.addresses = found;
                held.asking = false;
                held.answers += 1;
                changed.notify_all();
            };
            if thread::Builder::new().name("resolver".to_owned()).stack_size(256 * 1024).spawn(ask).is_err() {
                held.asking = false;
                return Some(Vec::new());
            }
        }
        let before = held.answers;
        while held.answers == before {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            held = changed.wait_timeout(held, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        Some(held.addresses.clone())
    }
}

impl Resolver for Names {
    fn resolve(
        &self,
        uri: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let host = uri.scheme().zip(uri.authority());
        let host = host.and_then(|(scheme, authority)| DefaultResolver::host_and_port(scheme, authority));
        let host = host.ok_or(ureq::Error::HostNotFound)?;
        // Callers always have a deadline; what has none waits no longer than a call may.
        let left =
            if timeout.after.is_not_happening() { super::caller::DEADLINE_MAX } else { *timeout.after };
        let found =
            self.addresses(host, Instant::now() + left).ok_or(ureq::Error::Timeout(timeout.reason))?;
        let mut result = self.empty();
        for address in config.ip_family().keep_wanted(found.into_iter()).take(ADDRESSES_MAX) {
            result.push(address);
        }
        if result.is_empty() { Err(ureq::Error::HostNotFound) } else { Ok(result) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_asked_for_once_by_however_many_and_an_address_never() {
        let names = Names::default();
        let soon = || Instant::now() + Duration::from_secs(60);
        assert_eq!(
            names.addresses("127.0.0.1:7".to_owned(), soon()).unwrap(),
            ["127.0.0.1:7".parse().unwrap()]
        );
        assert_eq!(names.addresses("[::1]:7".to_owned(), soon()).unwrap(), ["[::1]:7".parse().unwrap()]);
        assert_eq!(lock(&names.shared.0).answers, 0);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let found = names.addresses("localhost:7".to_owned(), soon()).unwrap();
                    assert!(found.iter().all(|address| address.ip().is_loopback()), "{found:?}");
                });
            }
        });
        // Who came while it was asked waited for that answer, who came later had it at once.
        assert_eq!(lock(&names.shared.0).answers, 1);
        // One that hangs: who waits goes on at the deadline, and asks no second time.
        *lock(&names.shared.0) = Known { asking: true, ..Known::default() };
        assert_eq!(names.addresses("localhost:7".to_owned(), Instant::now()), None);
        assert_eq!(lock(&names.shared.0).answers, 0);
    }
}
