//! How far a stream of several topics has come in each of them, as the text that its events name it with.
//!
//! Kept by the loop in a table beside the slots, which only such streams pay for. The text is kept ready: an event changes
//! the digits of one offset.

use crate::dialect::text::{DIGITS_MAX, decimal};
use crate::topic::Position;

/// Characters of an epoch and the colon behind it.
pub(super) const EPOCH_CHARS: usize = 17;

/// The places of one stream.
#[derive(Debug, Default)]
pub struct Places {
    /// The loop's index of each topic, in the order of the URL.
    topics: Vec<u32>,
    /// `EPOCH:OFFSET` of each, with commas between. That of a topic stays where its subscription has ended: who reads the
    /// list counts on its order.
    text: Vec<u8>,
    /// Where each ends in the text.
    ends: Vec<u16>,
}

impl Places {
    /// Where each subscription begins, by the loop's index of its topic.
    #[must_use]
    pub fn new(begins: impl Iterator<Item = (u32, Position)>) -> Self {
        let mut places = Self::default();
        for (topic, at) in begins {
            if !places.text.is_empty() {
                places.text.push(b',');
            }
            places.text.extend_from_slice(at.to_string().as_bytes());
            places.topics.push(topic);
            places.ends.push(u16::try_from(places.text.len()).unwrap_or(u16::MAX));
        }
        places
    }

    /// The places as they are.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// What it has come to of a topic counts as of this epoch from now on. That of a topic which tells who is on another is
    /// nobody's while its reader has not had all of the list: whoever comes back with it is told the list anew.
    pub fn set_epoch(&mut self, topic: u32, epoch: u64) {
        let Some(which) = self.topics.iter().position(|&of| of == topic) else { return };
        let from = self.begin(which);
        if let Some(old) = self.text.get_mut(from..from + EPOCH_CHARS - 1) {
            old.copy_from_slice(format!("{epoch:016x}").as_bytes());
        }
    }

    /// Where the place of a topic begins in the text.
    fn begin(&self, which: usize) -> usize {
        let before = which.checked_sub(1).and_then(|before| self.ends.get(before));
        before.map_or(0, |end| usize::from(*end) + 1)
    }

    /// It has come to this offset of a topic, named by the loop's index. The list behind it.
    pub fn advance(&mut self, topic: u32, offset: u64) -> &[u8] {
        let Some(which) = self.topics.iter().position(|&of| of == topic) else { return &self.text };
        let from = self.begin(which) + EPOCH_CHARS;
        let to = self.ends.get(which).map_or(from, |&end| usize::from(end));
        let mut room = [0; DIGITS_MAX];
        let digits = decimal(offset, &mut room);
        match self.text.get_mut(from..to) {
            Some(old) if old.len() == digits.len() => old.copy_from_slice(digits),
            Some(old) => {
                // One more digit, now and then, or fewer: a topic that was made anew begins at the beginning.
                let grown = digits.len() as i16 - old.len() as i16;
                self.text.splice(from..to, digits.iter().copied());
                for end in self.ends.iter_mut().skip(which) {
                    *end = end.saturating_add_signed(grown);
                }
            }
            None => {}
        }
        &self.text
    }

    /// Bytes of memory.
    #[must_use]
    pub fn memory(&self) -> usize {
        size_of::<Self>()
            + self.topics.capacity() * size_of::<u32>()
            + self.text.capacity()
            + self.ends.capacity() * size_of::<u16>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_what_it_would_be_if_it_were_written_anew() {
        let mut at: Vec<Position> = (1..=16).map(|epoch| Position { epoch, offset: 0 }).collect();
        let mut places = Places::new((100..).zip(at.iter().copied()));
        let mut state = 7_u64;
        for _ in 0..5_000 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let which = (state >> 33) as usize % 16;
            at[which].offset = [state >> 40, u64::MAX, 0, 9, 10][(state >> 20) as usize % 5];
            let anew: Vec<String> = at.iter().map(Position::to_string).collect();
            assert_eq!(places.advance(100 + which as u32, at[which].offset), anew.join(",").as_bytes());
        }
        let before = places.text.clone();
        assert_eq!(places.advance(99, 5), before, "nobody's place changes nothing");
    }
}
