//! Places in a topic's stream as a peer names them, where a subscription begins, and what can't be had of it.
//! Pure data; made by dialects of what peers say, compared under the topic's lock.

use std::fmt;

/// Digits of an epoch.
const EPOCH_DIGITS: usize = 16;

/// A place in a topic's stream, shown as `EPOCH:OFFSET`: behind the message of this offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The topic's epoch; offsets of different epochs are not comparable.
    pub epoch: u64,
    /// The offset of the last message that was seen; 0 for none.
    pub offset: u64,
}

/// Why a text is no position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PositionError;

impl Position {
    /// Reads what [`Display`](fmt::Display) writes, and nothing else: 16 lower-case hexadecimal digits, a colon, and a
    /// decimal number without zeros in front of it.
    ///
    /// # Errors
    /// It is anything else.
    pub fn parse(text: &str) -> Result<Self, PositionError> {
        let (epoch, offset) = text.split_once(':').ok_or(PositionError)?;
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if epoch.len() != EPOCH_DIGITS || !epoch.bytes().all(hex) {
            return Err(PositionError);
        }
        // The number's own parser takes a sign.
        let plain = offset == "0" || !offset.starts_with('0');
        if !plain || !offset.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(PositionError);
        }
        let epoch = u64::from_str_radix(epoch, 16).map_err(|_| PositionError)?;
        let offset = offset.parse().map_err(|_| PositionError)?;
        Ok(Self { epoch, offset })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}:{}", self.epoch, self.offset)
    }
}

impl PositionError {
    /// One line for whoever wrote it.
    #[must_use]
    pub fn reason(self) -> &'static str {
        "a position is EPOCH:OFFSET as the server gave it, 16 hexadecimal digits and a number"
    }
}

impl fmt::Display for PositionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.reason())
    }
}

impl std::error::Error for PositionError {}

/// The end of an offset, by which a loop remembers what it had last of a topic: fewer messages may wait for it than there
/// are of these.
pub(super) fn offset_end(offset: u64) -> u32 {
    offset as u32 & (u32::MAX >> 1)
}

/// Where a subscription begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Since {
    /// With the next message.
    #[default]
    Now,
    /// With the one behind this place.
    After(Position),
    /// With the newest that are kept, so many of them at most.
    Last(u32),
}

/// Why messages that were asked for, or would have come, don't.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GapKind {
    /// They are not kept any more, or never were.
    Expired,
    /// The place is of another epoch: the topic was made anew, and nobody knows what lies between.
    OtherEpoch,
    /// The topic has not come as far as the place.
    Ahead,
    /// A policy for slow consumers dropped them.
    Dropped,
}

impl GapKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Expired, Self::OtherEpoch, Self::Ahead, Self::Dropped];

    /// The word of protocols.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Expired => "expired",
            Self::OtherEpoch => "other_epoch",
            Self::Ahead => "ahead",
            Self::Dropped => "dropped",
        }
    }
}

/// A hole in what a subscriber gets, which is told to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Why.
    pub kind: GapKind,
    /// The offset of the oldest message that can be had; where none is kept, of the next one.
    pub oldest: u64,
}

/// Where messages begin for a subscriber.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Start {
    /// The first offset that is the subscriber's; every message behind it is too.
    pub next: u64,
    /// Nothing of what was asked for is missing.
    pub recovered: bool,
    /// What is missing.
    pub gap: Option<Gap>,
}

impl Since {
    /// Where it begins in a topic of this epoch whose oldest message to be had is `oldest` and whose next one will be
    /// `next`. What is kept is not withheld because something is missing before it: the gap says so.
    pub(super) fn start(self, epoch: u64, oldest: u64, next: u64) -> Start {
        let gap = |kind, from| Start { next: from, recovered: false, gap: Some(Gap { kind, oldest }) };
        match self {
            Self::Now => Start { next, recovered: false, gap: None },
            Self::Last(count) => {
                let from = next.saturating_sub(u64::from(count)).max(oldest);
                Start { next: from, recovered: false, gap: None }
            }
            // All of this epoch is new to whoever comes from another.
            Self::After(position) if position.epoch != epoch => gap(GapKind::OtherEpoch, oldest),
            Self::After(position) if position.offset >= next => gap(GapKind::Ahead, next),
            Self::After(position) if position.offset + 1 < oldest => gap(GapKind::Expired, oldest),
            Self::After(position) => Start { next: position.offset + 1, recovered: true, gap: None },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_read_again_and_nothing_else_is() {
        for position in [
            Position { epoch: 0, offset: 0 },
            Position { epoch: 0x0123_4567_89ab_cdef, offset: 1 },
            Position { epoch: u64::MAX, offset: u64::MAX },
        ] {
            assert_eq!(Position::parse(&position.to_string()), Ok(position));
        }
        assert_eq!(Position { epoch: 0xab, offset: 7 }.to_string(), "00000000000000ab:7");
        for rubbish in [
            "",
            ":",
            "7",
            "00000000000000ab",
            "00000000000000ab:",
            ":7",
            "0000000000000ab:7",
            "000000000000000ab:7",
            "00000000000000AB:7",
            "00000000000000ag:7",
            "+0000000000000ab:7",
            " 0000000000000ab:7",
            "00000000000000ab :7",
            "00000000000000ab:+7",
            "00000000000000ab:-7",
            "00000000000000ab:07",
            "00000000000000ab:00",
            "00000000000000ab:7 ",
            "00000000000000ab:7:8",
            "00000000000000ab:0x7",
            "00000000000000ab:٧",
            "00000000000000ab:18446744073709551616",
            "éééééééé:7",
        ] {
            assert_eq!(Position::parse(rubbish), Err(PositionError), "{rubbish:?}");
        }
    }

    #[test]
    fn a_subscription_begins_where_it_says_or_tells_the_gap() {
        let after = |epoch, offset| Since::After(Position { epoch, offset });
        let start = |since: Since, oldest, next| {
            let Start { next, recovered, gap } = since.start(9, oldest, next);
            (next, recovered, gap.map(|gap| (gap.kind, gap.oldest)))
        };
        // Kept are 5 to 10.
        assert_eq!(start(Since::Now, 5, 11), (11, false, None));
        assert_eq!(start(Since::Last(0), 5, 11), (11, false, None));
        assert_eq!(start(Since::Last(2), 5, 11), (9, false, None));
        assert_eq!(start(Since::Last(u32::MAX), 5, 11), (5, false, None));
        assert_eq!(start(after(9, 10), 5, 11), (11, true, None));
        assert_eq!(start(after(9, 4), 5, 11), (5, true, None));
        assert_eq!(start(after(9, 3), 5, 11), (5, false, Some((GapKind::Expired, 5))));
        assert_eq!(start(after(9, 0), 5, 11), (5, false, Some((GapKind::Expired, 5))));
        assert_eq!(start(after(9, 11), 5, 11), (11, false, Some((GapKind::Ahead, 5))));
        assert_eq!(start(after(9, u64::MAX), 5, 11), (11, false, Some((GapKind::Ahead, 5))));
        assert_eq!(start(after(8, 7), 5, 11), (5, false, Some((GapKind::OtherEpoch, 5))));
        // Nothing is kept.
        assert_eq!(start(Since::Last(3), 11, 11), (11, false, None));
        assert_eq!(start(after(9, 10), 11, 11), (11, true, None));
        assert_eq!(start(after(9, 9), 11, 11), (11, false, Some((GapKind::Expired, 11))));
        assert_eq!(start(after(8, 10), 11, 11), (11, false, Some((GapKind::OtherEpoch, 11))));
        // Nothing was ever published.
        assert_eq!(start(after(9, 0), 1, 1), (1, true, None));
    }
}
