//! A set of public keys that is replaced while the server runs: loops read it, a service that fetches it puts another in its place.
//!
//! Nobody waits here: the next set is written where no reader begins, and becomes the current one by a number. A token whose
//! key is not in the set asks for a fetch by a flag, and the first who sets it wakes the service; whether there is one, and
//! when, is the service's matter.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, PoisonError, RwLock, TryLockError};
use std::thread::Thread;

use super::Refusal;
use super::keys::{Key, set};

/// The keys of one address.
#[derive(Default)]
pub struct FetchedKeys {
    /// The current ones in one, and in the other those before.
    slots: [RwLock<Arc<Vec<Key>>>; 2],
    /// Which is the current one.
    current: AtomicUsize,
    /// They were fetched so lately that a key which is not among them is none.
    settled: AtomicBool,
    /// Somebody has shown a token whose key is not among them.
    wanted: AtomicBool,
    /// Nobody names their address any more.
    retired: AtomicBool,
    /// Who fetches them.
    fetcher: OnceLock<Thread>,
}

impl fmt::Debug for FetchedKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FetchedKeys({})", self.count())
    }
}

impl FetchedKeys {
    /// Reads a set (RFC 7517, 5) and puts it in place of the one before. `skipped` gets what is said of keys that are left out. By
    /// one thread at a time.
    ///
    /// # Errors
    /// It is of no use, and why; the one before stays.
    pub fn replace(&self, json: &[u8], skipped: &mut Vec<String>) -> Result<(), String> {
        let keys = Arc::new(set(json, |problem| skipped.push(problem))?);
        let next = 1 - self.current.load(Ordering::Acquire).min(1);
        if let Some(slot) = self.slots.get(next) {
            // Readers in there are about to find out that it is not the current one. It is replaced whole, and what was there goes
            // when nobody is kept out by that.
            let before = std::mem::replace(&mut *slot.write().unwrap_or_else(PoisonError::into_inner), keys);
            drop(before);
        }
        self.current.store(next, Ordering::Release);
        Ok(())
    }

    /// How many keys there are; none before the first fetch.
    #[must_use]
    pub fn count(&self) -> usize {
        self.keys().len()
    }

    /// Says who is woken when a key is missed, and when nobody needs the set any more.
    pub fn set_fetcher(&self, thread: Thread) {
        // There is one for as long as the set lives.
        let _ = self.fetcher.set(thread);
    }

    /// Asks for a fetch, as soon as there may be one.
    pub fn want(&self) {
        if !self.wanted.swap(true, Ordering::AcqRel) {
            self.wake();
        }
    }

    /// Whether somebody has asked for one.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Acquire)
    }

    /// Nobody is to fetch them any more: who still holds them is about to let them go, or never looks at them.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.wake();
    }

    /// Whether it is so.
    #[must_use]
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Whether a key that is not there now is none: the set has been fetched, and just so.
    pub fn settle(&self, settled: bool) {
        self.settled.store(settled, Ordering::Release);
    }

    /// Whoever has asked for a fetch until now is answered.
    pub fn answered(&self) {
        self.wanted.store(false, Ordering::Release);
    }

    pub(super) fn keys(&self) -> Arc<Vec<Key>> {
        loop {
            let current = self.current.load(Ordering::Acquire);
            let Some(slot) = self.slots.get(current) else { return Arc::default() };
            match slot.try_read() {
                Ok(keys) => return Arc::clone(&keys),
                Err(TryLockError::Poisoned(keys)) => return Arc::clone(&keys.into_inner()),
                // It was the current one a moment ago, and the other one is now.
                Err(TryLockError::WouldBlock) => std::hint::spin_loop(),
            }
        }
    }

    /// What is said to who shows a token whose key is not there, and would be refused so.
    pub(super) fn missed(&self, refusal: Refusal) -> Refusal {
        if self.settled.load(Ordering::Acquire) {
            return refusal;
        }
        self.want();
        Refusal::Awaited
    }

    /// Wakes who fetches them, to look at what is to be done.
    pub fn wake(&self) {
        if let Some(thread) = self.fetcher.get() {
            thread.unpark();
        }
    }
}

impl Drop for FetchedKeys {
    fn drop(&mut self) {
        self.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use data_encoding::BASE64URL_NOPAD;

    use super::super::kit::{NOW, ed25519_set as set_of, ed25519_token as token, hs256, plan};
    use super::super::{Issuers, KeySource};
    use super::*;

    fn issuers() -> (Issuers, Arc<FetchedKeys>) {
        let source = KeySource::Url { url: "https://a.example/keys".to_owned(), ca: None };
        let cell = Arc::new(FetchedKeys::default());
        let loaded = Issuers::load_with(&[plan(None, &[], vec![source])], |_, _| Ok(Arc::clone(&cell)));
        (loaded.unwrap().issuers, cell)
    }

    #[test]
    fn a_key_that_is_not_there_is_awaited_until_it_is_known_to_be_none() {
        let (issuers, cell) = issuers();
        let check = |token: &str| issuers.check(token, NOW).map(|claims| claims.sub.to_string());
        let (a, b) = (token(1, r#","kid":"a""#), token(2, r#","kid":"b""#));
        assert_eq!((check(&a), cell.is_wanted(), cell.count()), (Err(Refusal::Awaited), true, 0));
        cell.replace(set_of(&[("a", 1)]).as_bytes(), &mut Vec::new()).unwrap();
        cell.answered();
        assert_eq!((check(&a), cell.is_wanted()), (Ok("a".to_owned()), false));
        // Its time may have come since the set was fetched.
        assert_eq!((check(&b), cell.is_wanted()), (Err(Refusal::Awaited), true));
        cell.answered();
        cell.settle(true);
        assert_eq!((check(&b), cell.is_wanted()), (Err(Refusal::Key), false));
        // One goes and another comes.
        cell.replace(set_of(&[("b", 2)]).as_bytes(), &mut Vec::new()).unwrap();
        assert_eq!((check(&b), check(&a)), (Ok("a".to_owned()), Err(Refusal::Key)));
    }

    #[test]
    fn who_can_have_no_key_there_asks_for_no_fetch() {
        let (issuers, cell) = issuers();
        cell.replace(set_of(&[("a", 1)]).as_bytes(), &mut Vec::new()).unwrap();
        let hmac = hs256(&format!(r#"{{"sub":"a","exp":{}}}"#, NOW + 60));
        for (token, refusal) in [
            // Public keys are no secrets, whatever a token says of them.
            (hmac.as_str(), Refusal::Algorithm),
            (&token(2, r#","kid":"a""#), Refusal::Signature),
            (&token(2, ""), Refusal::Signature),
            (
                &token(2, r#","jku":"https://evil.example/","x5u":"https://evil.example/""#),
                Refusal::Signature,
            ),
        ] {
            assert_eq!(issuers.check(token, NOW), Err(refusal), "{token}");
        }
        assert!(!cell.is_wanted());
        // Where keys may change their kind, no algorithm is out of the question.
        let other = token(2, r#","kid":"b""#);
        let other = format!(
            "{}{}",
            BASE64URL_NOPAD.encode(br#"{"alg":"ES256","kid":"b"}"#),
            &other[other.find('.').unwrap()..]
        );
        assert_eq!((issuers.check(&other, NOW), cell.is_wanted()), (Err(Refusal::Awaited), true));
    }

    #[test]
    fn what_is_no_set_of_public_keys_leaves_the_one_before() {
        let (issuers, cell) = issuers();
        cell.replace(set_of(&[("a", 1)]).as_bytes(), &mut Vec::new()).unwrap();
        let many: Vec<_> = (0..65).map(|number| format!("k{number}")).collect();
        let many: Vec<_> = many.iter().map(|name| (name.as_str(), 1)).collect();
        let secret = set_of(&[("b", 2)]).replace("]}", r#",{"kty":"oct","k":"AAAA"}]}"#);
        for bad in
            ["", "<html>", "[]", r#"{"keys":[]}"#, r#"{"keys":[{"kty":"new"}]}"#, &secret, &set_of(&many)]
        {
            assert!(cell.replace(bad.as_bytes(), &mut Vec::new()).is_err(), "{bad:.40}");
        }
        assert!(issuers.check(&token(1, r#","kid":"a""#), NOW).is_ok());
    }

    #[test]
    fn readers_never_wait_and_always_see_a_whole_set() {
        const REPLACED: usize = 2_000;
        let cell = FetchedKeys::default();
        let sets = [set_of(&[("a", 1)]), set_of(&[("b", 2), ("c", 3)])];
        cell.replace(sets[0].as_bytes(), &mut Vec::new()).unwrap();
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut reads = 0;
                while !over.load(Ordering::Acquire) {
                    let keys = cell.keys();
                    let kids: Vec<_> = keys.iter().filter_map(|key| key.kid.as_deref()).collect();
                    assert!(kids == ["a"] || kids == ["b", "c"], "{kids:?}");
                    reads += 1;
                }
                reads
            });
            for round in 0..REPLACED {
                cell.replace(sets[round % 2].as_bytes(), &mut Vec::new()).unwrap();
            }
            over.store(true, Ordering::Release);
            assert!(reader.join().is_ok());
        });
    }
}
