//! At most so many lines a second of one kind, which is one place in the code; the rest is counted. Driven by
//! whoever logs, with atomics only; the logging thread collects the counts.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Instant;

use tracing::Metadata;

/// Kinds that are counted apart; those beyond share the last place.
const SITES_MAX: usize = 256;

/// Low bits of a place's counter: lines of this second. The bits above are the second.
const COUNT_BITS: u32 = 32;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;

/// What becomes of one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is written.
    Written,
    /// It is counted. `first`: nothing of its kind was counted since the counts were last taken.
    Suppressed { first: bool },
}

/// The table of kinds.
#[derive(Debug)]
pub(super) struct Rate {
    sites: Box<[Site]>,
    /// 0 for no limit.
    per_second: u64,
    start: Instant,
}

#[derive(Debug, Default)]
struct Site {
    of: OnceLock<&'static Metadata<'static>>,
    written: AtomicU64,
    suppressed: AtomicU64,
}

impl Rate {
    /// A limit of this many lines a second and kind; 0 for none.
    pub(super) fn new(per_second: u64) -> Self {
        let sites = if per_second == 0 { 0 } else { SITES_MAX };
        Self {
            sites: (0..sites).map(|_| Site::default()).collect(),
            per_second: per_second.min(COUNT_MASK),
            start: Instant::now(),
        }
    }

    /// Decides about a line from this place in the code.
    pub(super) fn admit(&self, of: &'static Metadata<'static>) -> Verdict {
        self.admit_at(of, self.start.elapsed().as_secs())
    }

    fn admit_at(&self, of: &'static Metadata<'static>, second: u64) -> Verdict {
        let Some(site) = self.site(of) else { return Verdict::Written };
        let count_in = |packed: u64| {
            let count = if packed >> COUNT_BITS == second { packed & COUNT_MASK } else { 0 };
            (count < self.per_second).then(|| second << COUNT_BITS | (count + 1))
        };
        if site.written.fetch_update(Relaxed, Relaxed, count_in).is_ok() {
            return Verdict::Written;
        }
        Verdict::Suppressed { first: site.suppressed.fetch_add(1, Relaxed) == 0 }
    }

    /// Whether counts wait to be told.
    pub(super) fn is_owing(&self) -> bool {
        self.sites.iter().any(|site| site.suppressed.load(Relaxed) > 0)
    }

    /// Takes every count that is not 0.
    pub(super) fn take(&self, mut each: impl FnMut(&'static Metadata<'static>, u64)) {
        for site in &self.sites {
            let Some(of) = site.of.get() else { continue };
            let count = site.suppressed.swap(0, Relaxed);
            if count > 0 {
                each(of, count);
            }
        }
    }

    /// The place of a kind, found by its address, which is the same for every line of it.
    fn site(&self, of: &'static Metadata<'static>) -> Option<&Site> {
        let address = std::ptr::from_ref(of) as usize;
        let hash = (address >> 4).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let own = |site: &&Site| std::ptr::eq(*site.of.get_or_init(|| of), of);
        let (before, from) = self.sites.split_at_checked(hash.checked_rem(self.sites.len())?)?;
        from.iter().chain(before).find(own).or(self.sites.last())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tracing::Level;
    use tracing::subscriber::{Subscriber, with_default};

    /// Hands out what the macros made of two places in the code.
    fn places() -> [&'static Metadata<'static>; 2] {
        struct Catch(Arc<std::sync::Mutex<Vec<&'static Metadata<'static>>>>);
        impl Subscriber for Catch {
            fn enabled(&self, _: &Metadata<'_>) -> bool {
                true
            }
            fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
                tracing::span::Id::from_u64(1)
            }
            fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
            fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
            fn event(&self, event: &tracing::Event<'_>) {
                self.0.lock().unwrap().push(event.metadata());
            }
            fn enter(&self, _: &tracing::span::Id) {}
            fn exit(&self, _: &tracing::span::Id) {}
        }
        let seen = Arc::default();
        with_default(Catch(Arc::clone(&seen)), || {
            tracing::event!(Level::ERROR, "one");
            tracing::event!(Level::ERROR, "other");
        });
        let seen = seen.lock().unwrap();
        [seen[0], seen[1]]
    }

    #[test]
    fn each_kind_has_its_own_lines_in_each_second() {
        let [one, other] = places();
        let rate = Rate::new(3);
        let verdicts: Vec<_> = (0..5).map(|_| rate.admit_at(one, 7)).collect();
        let suppressed = |first| Verdict::Suppressed { first };
        let written = Verdict::Written;
        assert_eq!(verdicts, [written, written, written, suppressed(true), suppressed(false)]);
        assert_eq!(rate.admit_at(other, 7), Verdict::Written);
        assert!(rate.is_owing());
        let mut told = Vec::new();
        rate.take(|of, count| told.push((of.line(), count)));
        assert_eq!(told, [(one.line(), 2)]);
        assert!(!rate.is_owing());
        assert_eq!(rate.admit_at(one, 7), suppressed(true), "the second is not over");
        assert_eq!(rate.admit_at(one, 8), Verdict::Written);
    }

    #[test]
    fn no_limit_writes_everything() {
        let [one, _] = places();
        let rate = Rate::new(0);
        assert!((0..10_000).all(|_| rate.admit_at(one, 1) == Verdict::Written));
        assert!(!rate.is_owing());
    }

    #[test]
    fn a_full_table_still_limits() {
        let [one, other] = places();
        let rate = Rate { sites: [Site::default()].into(), per_second: 1, start: Instant::now() };
        // One place only: whoever comes second shares it.
        let _ = rate.sites[0].of.set(one);
        assert_eq!(rate.admit_at(other, 1), Verdict::Written);
        assert_eq!(rate.admit_at(one, 1), Verdict::Suppressed { first: true });
    }
}
