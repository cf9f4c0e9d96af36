//! Faults that a test plants in the code under test, to see that it is found out. Each place that can have one asks here,
//! in builds for tests only; planted for the calling thread.

use std::cell::Cell;

/// What can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Planted {
    /// A join is listed for whoever has its slot and topic, with whichever ticket.
    LostTicket,
    /// A reply is given to whoever has the slot of the one who asked.
    StaleReply,
    /// What is made for a form does not count where it waits.
    MiscountedForm,
    /// An effect is carried out twice.
    EffectTwice,
    /// Who has read all that is kept joins with a ticket that nobody has.
    SeamTicket,
    /// Who resumes begins one message too late.
    LateStart,
    /// Old messages are read out of the cache by offset alone, whichever topic and epoch they are of.
    OtherEpoch,
    /// Nobody is told that messages are missing.
    UntoldGap,
    /// Whoever resumes is told that nothing is missing.
    FalseRecovery,
    /// A poll is told a place one message ahead of what it was answered.
    PollAhead,
    /// Who subscribes to a topic and to a pattern that means it gets its messages by both.
    PatternTwice,
    /// What the connections of a batch have sent since goes on although the batch is tried again.
    LanesFreed,
    /// Whose connection has gone stays on the list.
    SeatKept,
    /// Who has come is told to nobody.
    UntoldMember,
    /// The number of a record is not counted on.
    SequenceKept,
    /// A record can't be sealed although its number was taken.
    SealingFails,
}

thread_local! {
    static PLANTED: Cell<Option<Planted>> = const { Cell::new(None) };
    static STRUCK: Cell<usize> = const { Cell::new(0) };
}

/// Plants this fault in place of any other, and begins to count anew.
pub fn plant(fault: Option<Planted>) {
    PLANTED.set(fault);
    STRUCK.set(0);
}

/// Whether this fault is planted here; if so, it has struck.
pub fn strikes(fault: Planted) -> bool {
    let strikes = PLANTED.get() == Some(fault);
    STRUCK.set(STRUCK.get() + usize::from(strikes));
    strikes
}

/// How often it has.
#[must_use]
pub fn struck() -> usize {
    STRUCK.get()
}
