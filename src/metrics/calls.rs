//! How calls to others end: one enum for everybody who makes some, and the counting of them. Written by services, read by
//! `/metrics`.

use std::marker::PhantomData;
use std::sync::atomic::{AtomicU64, Ordering};

/// What is counted by a label.
pub trait Labelled: Copy + 'static {
    /// Each, in the order of their places.
    const ALL: &'static [Self];

    /// The label.
    fn label(self) -> &'static str;

    /// Its place among all.
    fn place(self) -> usize;
}

macro_rules! labelled {
    ($(#[$doc:meta])* $Name:ident { $($(#[$row:meta])* $Variant:ident = $label:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $Name { $($(#[$row])* $Variant,)* }

        impl $Name {
            /// How many there are.
            pub const COUNT: usize = [$(Self::$Variant,)*].len();
        }

        impl $crate::metrics::calls::Labelled for $Name {
            const ALL: &'static [Self] = &[$(Self::$Variant,)*];

            fn label(self) -> &'static str {
                match self { $(Self::$Variant => $label,)* }
            }

            fn place(self) -> usize {
                self as usize
            }
        }
    };
}
pub(super) use labelled;

labelled! {
    /// How a call has ended.
    CallOutcome {
        /// The application lets somebody in.
        Allow = "allow";
        /// It does not.
        Deny = "deny";
        /// It does not know who that is.
        Unidentified = "unidentified";
        /// A set of keys that is another than before.
        Changed = "changed";
        /// The same set.
        Same = "same";
        /// The application has taken messages.
        Taken = "taken";
        /// A status that is no answer.
        Status = "status";
        /// An answer that says nothing useful.
        Nonsense = "nonsense";
        /// Time has run out.
        Deadline = "deadline";
        /// The name has no address.
        Name = "name";
        /// No connection, or it broke off.
        Connection = "connection";
        /// TLS failed.
        Tls = "tls";
        /// It points elsewhere.
        Redirect = "redirect";
        /// An answer that is too long.
        TooLong = "too_long";
        /// It is not HTTP.
        NotHttp = "not_http";
    }
}

/// What any call may come to instead of what it was made for.
pub const FAILURES: [CallOutcome; 9] = [
    CallOutcome::Status,
    CallOutcome::Nonsense,
    CallOutcome::Deadline,
    CallOutcome::Name,
    CallOutcome::Connection,
    CallOutcome::Tls,
    CallOutcome::Redirect,
    CallOutcome::TooLong,
    CallOutcome::NotHttp,
];

/// Counters, one for each of `N` things.
#[derive(Debug)]
pub struct Counts<E, const N: usize>([AtomicU64; N], PhantomData<E>);

/// One reading of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading<E, const N: usize>([u64; N], PhantomData<E>);

/// Counts how calls end.
pub type CallCounts = Counts<CallOutcome, { CallOutcome::COUNT }>;

/// One reading of that.
pub type CallReading = Reading<CallOutcome, { CallOutcome::COUNT }>;

impl<E: Labelled, const N: usize> Counts<E, N> {
    /// One more.
    pub fn count(&self, what: E) {
        self.add(what, 1);
    }

    /// So many more.
    pub fn add(&self, what: E, more: u64) {
        if let Some(counter) = self.0.get(what.place()) {
            counter.fetch_add(more, Ordering::Relaxed);
        }
    }

    /// What was counted so far.
    #[must_use]
    pub fn reading(&self) -> Reading<E, N> {
        Reading(self.0.each_ref().map(|counter| counter.load(Ordering::Relaxed)), PhantomData)
    }
}

impl<E, const N: usize> Default for Counts<E, N> {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)), PhantomData)
    }
}

impl<E, const N: usize> Default for Reading<E, N> {
    fn default() -> Self {
        Self([0; N], PhantomData)
    }
}

impl<E: Labelled, const N: usize> Reading<E, N> {
    /// How often that was.
    #[must_use]
    pub fn of(&self, what: E) -> u64 {
        self.0.get(what.place()).copied().unwrap_or(0)
    }

    /// How often any was.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Labels and numbers of these.
    pub fn samples(&self, of: impl IntoIterator<Item = E>) -> impl Iterator<Item = (&'static str, u64)> {
        of.into_iter().map(|what| (what.label(), self.of(what)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_counted_in_its_place_and_shown_by_its_label() {
        let counts = CallCounts::default();
        for (more, outcome) in CallOutcome::ALL.iter().enumerate() {
            assert_eq!(outcome.place(), more);
            counts.add(*outcome, more as u64);
        }
        counts.count(CallOutcome::Same);
        let reading = counts.reading();
        let samples: Vec<_> =
            reading.samples([CallOutcome::Same].into_iter().chain(FAILURES).take(3)).collect();
        assert_eq!(samples, [("same", 5), ("status", 6), ("nonsense", 7)]);
        assert_eq!(reading.total(), (0..CallOutcome::COUNT as u64).sum::<u64>() + 1);
        let mut labels: Vec<_> = CallOutcome::ALL.iter().map(|outcome| outcome.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), CallOutcome::COUNT);
    }
}
