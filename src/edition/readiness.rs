//! Whether newcomers are welcome, for `/readyz`. Read on request by the admin loop; what it is made of is written by
//! the client loops and the server.

use std::sync::atomic::{AtomicBool, Ordering};

use super::Edition;
use crate::auth::token::Issuers;

/// Once full, it is ready again below this part of `connections_max`, in hundredths. Loops that gave their listeners up
/// take them back at the same one. Without it every client that leaves a full server would make it ready for one
/// probe, and a balancer would send it more than it has places.
const READY_AGAIN_PERCENT: usize = 95;

/// Whether newcomers are welcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// They are.
    Ready,
    /// Not every loop listens yet.
    Starting,
    /// An issuer's keys were not fetched yet since the start.
    WithoutKeys,
    /// The server is on its way out.
    Draining,
    /// There is no place: newcomers would be answered 503 or wait in the kernel's queue.
    Full,
}

impl Readiness {
    /// What `/readyz` says.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::WithoutKeys => "without keys",
            Self::Draining => "draining",
            Self::Full => "full",
        }
    }
}

/// Whether a probe has found the server full and none since found it well below.
#[derive(Debug, Default)]
pub(super) struct FoundFull(AtomicBool);

/// Whether every issuer has had keys once, or there was none whose keys are fetched. Keys of issuers that come by a reload keep
/// nobody away: a server that is in use would be taken out by a mistyped address.
#[derive(Debug, Default)]
pub(super) struct FoundKeys(AtomicBool);

impl FoundKeys {
    fn awaits(&self, issuers: Option<&Issuers>) -> bool {
        if self.0.load(Ordering::Relaxed) {
            return false;
        }
        let awaits = issuers.is_some_and(|issuers| issuers.fetched().any(|keys| keys.count() == 0));
        self.0.store(!awaits, Ordering::Relaxed);
        awaits
    }
}

impl Edition {
    /// Whether newcomers are welcome now.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        if self.is_draining() {
            Readiness::Draining
        } else if self.start_facts.get().is_none() {
            Readiness::Starting
        } else if self.found_keys.awaits(self.issuers.as_deref()) {
            Readiness::WithoutKeys
        } else if !self.settings.server.ready_when_full && self.is_full() {
            Readiness::Full
        } else {
            Readiness::Ready
        }
    }

    fn is_full(&self) -> bool {
        let (open, most) = (self.connections_open(), self.connections_max);
        let nobody_accepts = self.health.iter().take(self.loops()).all(|health| !health.accepts());
        let found = &self.found_full.0;
        if open >= most || nobody_accepts {
            found.store(true, Ordering::Relaxed);
        } else if open.saturating_mul(100) < most.saturating_mul(READY_AGAIN_PERCENT) {
            found.store(false, Ordering::Relaxed);
        }
        found.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::auth::token::{FetchedKeys, IssuerPlan, KeySource};
    use crate::config::Settings;
    use crate::edition::Router;
    use crate::edition::{Port, StartFacts};
    use crate::topic::{RouterLimits, Wake};

    struct Nobody;

    impl Wake for Nobody {
        fn wake(&self, _loop_index: usize) {}
    }

    fn edition(settings: Settings) -> Edition {
        let router = Router::new(3, RouterLimits::default(), Box::new(Nobody)).unwrap();
        let edition = Edition::new(settings, Arc::new(router), 2, 100).unwrap();
        assert_eq!(edition.readiness(), Readiness::Starting);
        let admin = edition.settings.server.admin;
        let start = StartFacts { descriptors_max: 0, shared_table: None, empty_user_bytes: None, admin };
        edition.start_facts.set(start).unwrap();
        edition
    }

    #[test]
    fn once_full_it_is_ready_only_well_below() {
        let edition = edition(Settings::default());
        let ready = || edition.readiness() == Readiness::Ready;
        for _ in 0..99 {
            assert!(edition.try_open_connection(Port::Client) && ready());
        }
        assert!(edition.try_open_connection(Port::Client) && !ready());
        for _ in 0..5 {
            edition.connection_closed(Port::Client);
            assert!(!ready(), "{}", edition.connections_open());
        }
        edition.connection_closed(Port::Client);
        assert!(ready());
        assert!(edition.try_open_connection(Port::Client) && ready(), "on the way up it is ready");
    }

    #[test]
    fn it_is_full_when_no_loop_accepts() {
        let edition = edition(Settings::default());
        edition.health[0].set_accepts(false);
        assert_eq!(edition.readiness(), Readiness::Ready);
        edition.health[1].set_accepts(false);
        assert_eq!(edition.readiness(), Readiness::Full);
        edition.health[0].set_accepts(true);
        assert_eq!(edition.readiness(), Readiness::Ready);
        edition.set_draining();
        assert_eq!(edition.readiness(), Readiness::Draining);
    }

    #[test]
    fn it_is_ready_when_each_issuer_has_had_keys() {
        let (awaited, keys) = (FoundKeys::default(), Arc::new(FetchedKeys::default()));
        let plan = IssuerPlan {
            issuer: None,
            audience: Vec::new(),
            leeway_seconds: 30,
            keys: vec![KeySource::Url { url: "https://a.example/".to_owned(), ca: None }],
        };
        let issuers = |keys: &Arc<FetchedKeys>| {
            let keys = Arc::clone(keys);
            Issuers::load_with(std::slice::from_ref(&plan), |_, _| Ok(Arc::clone(&keys))).unwrap().issuers
        };
        let first = issuers(&keys);
        assert!(awaited.awaits(Some(&first)) && awaited.awaits(Some(&first)));
        keys.replace(include_bytes!("../../tests/fixtures/tokens/keys.json"), &mut Vec::new()).unwrap();
        assert!(!awaited.awaits(Some(&first)));
        // One that comes later does not take it out of service.
        assert!(!awaited.awaits(Some(&issuers(&Arc::default()))));
        assert!(!FoundKeys::default().awaits(None));
    }

    #[test]
    fn a_key_keeps_it_ready() {
        let mut settings = Settings::default();
        settings.server.ready_when_full = true;
        let edition = edition(settings);
        edition.health.iter().for_each(|health| health.set_accepts(false));
        assert_eq!(edition.readiness(), Readiness::Ready);
    }
}
