//! Answers kept for retries: what a request with an `Idempotency-Key` was answered, for a while.
//!
//! Each operator's keys are its own: two who number their requests do not meet. Owned by the admin loop alone. Bounded in time, number and bytes; at a bound the oldest goes. A request that is
//! being carried out stays until it is done, because whoever forgot it would do it twice; there are only as many as
//! the loop carries out at a time, and what they were answered so far counts like any other. Never publishes: it only
//! says whether a request is new.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use crate::config::Admin;

/// Bytes a key may have.
const KEY_BYTES_MAX: usize = 255;

/// What an entry costs besides its key and its answer, about.
const ENTRY_BYTES: usize = 160;

/// By how much an answer that is being written grows at the most beyond what it needs.
const SPARE_BYTES_MAX: usize = 1 << 20;

/// The answers kept.
#[derive(Debug)]
pub struct Replies {
    entries: HashMap<Arc<str>, Reply>,
    /// Keys of requests that are done, in the order in which they were.
    done: VecDeque<Arc<str>>,
    hasher: RandomState,
    bytes: usize,
    age_ms_max: u64,
    entries_max: usize,
    bytes_max: usize,
}

#[derive(Debug)]
struct Reply {
    request: u64,
    /// When it began, then when it was done.
    since_ms: u64,
    state: State,
}

#[derive(Debug)]
enum State {
    /// What it was answered so far; `None` when that is too much to keep.
    Running(Option<Vec<u8>>),
    Done(Box<[u8]>),
    TooLarge,
}

/// What is known of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known<'a> {
    /// Nothing: it is to be carried out, what it is answered goes to [`Replies::extend`], and then
    /// [`Replies::finish`] or [`Replies::forget`] is to be called.
    New,
    /// It was answered with this body.
    Answered(&'a [u8]),
    /// It is being carried out, or its answer was too large to keep.
    Unknown,
    /// The key was another request's.
    Other,
}

impl Replies {
    /// None yet.
    #[must_use]
    pub fn new(settings: &Admin, bytes_max: usize) -> Self {
        Self {
            entries: HashMap::new(),
            done: VecDeque::new(),
            hasher: RandomState::new(),
            bytes: 0,
            age_ms_max: u64::try_from(settings.idempotency.as_millis()).unwrap_or(u64::MAX),
            entries_max: settings.idempotency_keys_max,
            bytes_max,
        }
    }

    /// The name under which an operator's key is known here.
    pub(super) fn name_of(&self, operator: &[u8], key: &str) -> String {
        // Hashed with chance, so that a secret is neither kept nor to be guessed from what is.
        format!("{:016x} {key}", self.hasher.hash_one(operator))
    }

    /// Looks a request up and, if it is new, notes that it is being carried out.
    pub(super) fn begin(&mut self, key: &str, target: &str, body: &[u8], now_ms: u64) -> Known<'_> {
        self.drop_old(now_ms);
        // Keyed at random, so that 64 bits are enough: nobody can look for a second request with the same hash.
        let request = self.hasher.hash_one((target, body));
        if self.entries.contains_key(key) {
            return match self.entries.get(key) {
                Some(reply) if reply.request != request => Known::Other,
                Some(Reply { state: State::Done(answer), .. }) => Known::Answered(answer),
                _ => Known::Unknown,
            };
        }
        self.bytes += key.len() + ENTRY_BYTES;
        self.entries
            .insert(key.into(), Reply { request, since_ms: now_ms, state: State::Running(Some(Vec::new())) });
        self.drop_old(now_ms);
        Known::New
    }

    /// Keeps a piece of the answer to a request that [`Replies::begin`] called new. One that grows too large is given
    /// up: by itself, or because those that are being written take all there is.
    pub(super) fn extend(&mut self, key: &str, piece: &[u8], now_ms: u64) {
        let Some(Reply { state: State::Running(place), .. }) = self.entries.get_mut(key) else { return };
        let Some(answer) = place else { return };
        let before = answer.capacity();
        if answer.len() + piece.len() > self.bytes_max / 2 {
            *place = None;
            self.bytes -= before;
            return;
        }
        if before - answer.len() < piece.len() {
            // Doubled, it might be twice as large as what one answer may have.
            answer.reserve_exact(piece.len() + answer.len().min(SPARE_BYTES_MAX));
        }
        answer.extend_from_slice(piece);
        self.bytes += answer.capacity() - before;
        self.drop_old(now_ms);
        if self.bytes > self.bytes_max
            && let Some(Reply { state: State::Running(place), .. }) = self.entries.get_mut(key)
        {
            self.bytes -= place.take().map_or(0, |answer| answer.capacity());
        }
    }

    /// The request is done, and its answer whole.
    pub(super) fn finish(&mut self, key: &str, now_ms: u64) {
        let Some((key, mut reply)) = self.entries.remove_entry(key) else { return };
        self.bytes -= reply.bytes(&key);
        reply.since_ms = now_ms;
        reply.state = match reply.state {
            State::Running(Some(answer)) => State::Done(answer.into_boxed_slice()),
            State::Running(None) => State::TooLarge,
            done => done,
        };
        self.bytes += reply.bytes(&key);
        self.done.push_back(Arc::clone(&key));
        self.entries.insert(key, reply);
        self.drop_old(now_ms);
    }

    /// The request was refused and changed nothing: the next one with this key is new.
    pub(super) fn forget(&mut self, key: &str) {
        if let Some(reply) = self.entries.remove(key) {
            self.bytes -= reply.bytes(key);
        }
    }

    fn drop_old(&mut self, now_ms: u64) {
        while let Some(key) = self.done.front() {
            if let Some(reply) = self.entries.get(key) {
                let old = now_ms.saturating_sub(reply.since_ms) >= self.age_ms_max;
                if !old && self.entries.len() <= self.entries_max && self.bytes <= self.bytes_max {
                    break;
                }
                self.bytes -= reply.bytes(key);
                self.entries.remove(key);
            }
            self.done.pop_front();
        }
        if self.done.is_empty() {
            // A peak does not pin its tables.
            self.entries.shrink_to_fit();
            self.done.shrink_to_fit();
        }
    }
}

impl Reply {
    fn bytes(&self, key: &str) -> usize {
        let answer = match &self.state {
            State::Done(answer) => answer.len(),
            State::Running(Some(answer)) => answer.capacity(),
            State::Running(None) | State::TooLarge => 0,
        };
        ENTRY_BYTES + key.len() + answer
    }
}

/// Reads an `Idempotency-Key` field.
///
/// # Errors
/// One line on what is wrong with it.
pub(super) fn key_of(field: Option<&[u8]>) -> Result<Option<&str>, &'static str> {
    let Some(field) = field else { return Ok(None) };
    let legal =
        (1..=KEY_BYTES_MAX).contains(&field.len()) && field.iter().all(|byte| (b' '..=b'~').contains(byte));
    if !legal {
        return Err("Idempotency-Key expects 1 to 255 visible characters");
    }
    std::str::from_utf8(field).map(Some).map_err(|_| "Idempotency-Key expects 1 to 255 visible characters")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replies(entries_max: usize, bytes_max: usize) -> Replies {
        Replies::new(&Admin { idempotency_keys_max: entries_max, ..Admin::default() }, bytes_max)
    }

    fn finish(replies: &mut Replies, key: &str, answer: &[u8], now_ms: u64) {
        replies.extend(key, answer, now_ms);
        replies.finish(key, now_ms);
    }

    #[test]
    fn the_same_request_gets_the_same_answer_and_another_does_not() {
        let mut replies = replies(10, 1 << 20);
        assert_eq!(replies.begin("k", "/publish/a", b"x", 0), Known::New);
        assert_eq!(replies.begin("k", "/publish/a", b"x", 1), Known::Unknown, "it is under way");
        finish(&mut replies, "k", b"answer", 2);
        assert_eq!(replies.begin("k", "/publish/a", b"x", 3), Known::Answered(b"answer"));
        assert_eq!(replies.begin("k", "/publish/a", b"y", 3), Known::Other);
        assert_eq!(replies.begin("k", "/publish/b", b"x", 3), Known::Other);
        assert_eq!(replies.begin("k", "/publish/a", b"x", 600_001), Known::Answered(b"answer"));
        assert_eq!(replies.begin("k", "/publish/a", b"x", 600_002), Known::New, "its time is over");
        replies.forget("k");
        assert_eq!(replies.begin("k", "/publish/b", b"y", 600_002), Known::New);
        finish(&mut replies, "k", &vec![b'x'; 600 << 10], 600_003);
        assert_eq!(replies.begin("k", "/publish/b", b"y", 600_004), Known::Unknown);
    }

    #[test]
    fn keys_of_two_operators_do_not_meet() {
        let mut replies = replies(10, 1 << 20);
        let [one, other, again] = [b"one", b"two", b"one"].map(|operator| replies.name_of(operator, "1"));
        assert_eq!(replies.begin(&one, "/publish/a", b"x", 0), Known::New);
        finish(&mut replies, &one, b"answer", 0);
        assert_eq!(replies.begin(&other, "/publish/b", b"y", 1), Known::New);
        assert_eq!(replies.begin(&again, "/publish/a", b"x", 1), Known::Answered(b"answer"));
        assert!(!one.contains("one"), "{one}");
    }

    #[test]
    fn at_a_bound_the_oldest_goes_and_all_bytes_come_back() {
        let mut replies = replies(3, 10_000);
        for round in 0..100_u64 {
            let key = format!("k{round}");
            assert_eq!(replies.begin(&key, "/", b"", round), Known::New);
            if round % 5 == 4 {
                replies.forget(&key);
            } else {
                finish(&mut replies, &key, &[b'x'; 100], round);
            }
            assert!(replies.entries.len() <= 3 && replies.bytes <= 10_000 && replies.done.len() <= 3);
        }
        assert_eq!(replies.begin("k98", "/", b"", 100), Known::Answered(&[b'x'; 100]));
        assert_eq!(replies.begin("big", "/", b"", 100), Known::New);
        finish(&mut replies, "big", &[b'x'; 9_900], 100);
        assert!(replies.bytes <= 10_000);
        replies.drop_old(10_000_000);
        assert_eq!((replies.entries.len(), replies.done.len(), replies.bytes), (0, 0, 0));
    }

    #[test]
    fn what_is_under_way_is_not_forgotten_at_a_bound() {
        let mut replies = replies(2, 2_000);
        assert_eq!(replies.begin("slow", "/publish", b"x", 0), Known::New);
        for round in 0..50_u64 {
            let key = format!("k{round}");
            assert_eq!(replies.begin(&key, "/", b"", round), Known::New);
            finish(&mut replies, &key, &[b'x'; 300], round);
        }
        // Nor when it takes longer than answers are kept.
        assert_eq!(
            replies.begin("slow", "/publish", b"x", 700_000),
            Known::Unknown,
            "it would be done twice"
        );
        assert_eq!(replies.begin("slow", "/publish", b"y", 700_000), Known::Other);
        finish(&mut replies, "slow", b"answer", 700_001);
        assert_eq!(replies.begin("slow", "/publish", b"x", 1_300_000), Known::Answered(b"answer"));
        replies.drop_old(10_000_000);
        assert_eq!((replies.entries.len(), replies.bytes), (0, 0));
    }

    #[test]
    fn keys_are_visible_and_short() {
        assert_eq!(key_of(None), Ok(None));
        assert_eq!(key_of(Some(b"8e03978e-40d5-43dd-bc93-6894a57f9324")).map(|key| key.is_some()), Ok(true));
        for bad in [&b""[..], b"a\tb", "é".as_bytes(), &[b'x'; 256]] {
            assert!(key_of(Some(bad)).is_err());
        }
    }

    #[test]
    fn what_is_being_written_counts() {
        const TOTAL: usize = 1 << 20;
        let mut replies = replies(100, TOTAL);
        assert_eq!(replies.begin("old", "/", b"", 0), Known::New);
        finish(&mut replies, "old", &[b'x'; 1_000], 0);
        let batches: Vec<String> = (0..16).map(|batch| format!("batch{batch}")).collect();
        for key in &batches {
            assert_eq!(replies.begin(key, "/publish", b"x", 1), Known::New);
        }
        for _ in 0..40 {
            for key in &batches {
                replies.extend(key, &[b'y'; 10_000], 2);
                assert!(replies.bytes <= TOTAL, "{} bytes", replies.bytes);
            }
        }
        assert_eq!(replies.begin("old", "/", b"", 3), Known::New, "the oldest went first");
        replies.forget("old");
        batches.iter().for_each(|key| replies.finish(key, 3));
        let mut kept = 0;
        for key in &batches {
            match replies.begin(key, "/publish", b"x", 4) {
                Known::Answered(answer) => {
                    assert_eq!(answer.len(), 400_000);
                    kept += 1;
                }
                other => assert_eq!(other, Known::Unknown, "it must not be done twice"),
            }
        }
        assert!((1..=2).contains(&kept), "{kept} were kept");
        replies.drop_old(10_000_000);
        assert_eq!((replies.entries.len(), replies.bytes), (0, 0));
    }

    #[test]
    fn one_answer_may_have_half_of_it() {
        for (pieces, kept) in [(32, true), (33, false)] {
            let mut replies = replies(100, 4 << 20);
            assert_eq!(replies.begin("k", "/", b"", 0), Known::New);
            for _ in 0..pieces {
                replies.extend("k", &[b'x'; 64 << 10], 0);
            }
            replies.finish("k", 0);
            let known = replies.begin("k", "/", b"", 1);
            assert_eq!(matches!(known, Known::Answered(answer) if answer.len() == 2 << 20), kept);
            assert!(kept || known == Known::Unknown);
        }
    }
}
