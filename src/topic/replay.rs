//! Old messages as subscribers who catch up get them: read from a topic's history in runs, made into each form once
//! for all connections of the loop, and kept for as long as there is room and somebody to read them. Driven by
//! `subscriptions`; never sees a connection.

use std::collections::BTreeMap;

use super::batch::{Batch, Choice};
use super::form::{Deflate, Encoding, Form};
use super::message::Message;
use super::state::Topic;
#[cfg(test)]
use fantail_test_support::planted;

/// Runs kept at a time; the one that was used longest ago goes first.
const RUNS_MAX: usize = 256;

/// Runs of old messages, the topic's id and the offset of the first of each.
#[derive(Debug)]
pub(super) struct Replays<F> {
    runs: BTreeMap<(u64, u64), Run<F>>,
    bytes: u64,
    bytes_max: u64,
    uses: u64,
    buffers: Vec<Vec<u8>>,
}

#[derive(Debug)]
struct Run<F> {
    batch: Batch<F>,
    bytes: u64,
    used: u64,
}

/// What one connection gets of a run: messages, and their frames in a row.
#[derive(Clone, Copy, Debug)]
pub struct Piece<'a> {
    /// In which encoding the messages' frames have these bytes.
    pub encoding: Encoding,
    /// The messages in the connection's form.
    pub messages: &'a [Message],
    /// Their frames.
    pub frames: &'a [u8],
}

impl<F> Default for Replays<F> {
    fn default() -> Self {
        Self { runs: BTreeMap::new(), bytes: 0, bytes_max: 0, uses: 0, buffers: Vec::new() }
    }
}

impl<F: Form> Replays<F> {
    pub(super) fn set_bytes_max(&mut self, bytes_max: u64) {
        self.bytes_max = bytes_max;
        self.make_room(None);
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether a run is there that has this message.
    pub(super) fn has(&self, topic: &Topic, offset: u64) -> bool {
        self.place_of(topic, offset).is_some()
    }

    fn place_of(&self, topic: &Topic, offset: u64) -> Option<(u64, u64)> {
        let (place, run) = self.runs.range(..=(topic.id(), offset)).next_back()?;
        let ends = place.1 + run.batch.messages().len() as u64;
        let own = place.0 == topic.id();
        #[cfg(test)]
        let own = own || planted::strikes(planted::Planted::OtherEpoch);
        (own && offset < ends).then_some(*place)
    }

    /// Takes a run of consecutive messages that was read.
    pub(super) fn add(&mut self, topic: &Topic, messages: Vec<Message>) {
        let Some(first) = messages.first() else { return };
        let place = (topic.id(), first.offset());
        let batch = Batch::of(messages);
        let bytes = batch.footprint();
        self.remove(place);
        self.bytes += bytes;
        self.uses += 1;
        self.runs.insert(place, Run { batch, bytes, used: self.uses });
        self.make_room(Some(place));
    }

    /// What a connection that wants this form gets of the run that has the message at `offset`, from there on.
    pub(super) fn piece(
        &mut self,
        topic: &Topic,
        offset: u64,
        form: F,
        encoding: Encoding,
        deflate: impl Deflate,
    ) -> Option<Piece<'_>> {
        let place = self.place_of(topic, offset)?;
        self.uses += 1;
        let run = self.runs.get_mut(&place)?;
        run.used = self.uses;
        let choice = if form == F::RAW {
            run.batch.choose_raw(encoding, &mut self.buffers)
        } else {
            // Others are somewhere else in these messages.
            run.batch.choose_derived(form, encoding.alone(), topic, deflate, &mut self.buffers)
        };
        // Whoever reads them counts what it was given message by message.
        run.batch.messages_of(choice);
        let bytes = run.batch.footprint();
        self.bytes = self.bytes + bytes - run.bytes;
        run.bytes = bytes;
        self.make_room(Some(place));
        let batch = &self.runs.get(&place)?.batch;
        Some(piece_of(batch, choice, (offset - place.1) as usize))
    }

    /// Nobody reads any more.
    pub(super) fn clear(&mut self) {
        *self = Self { bytes_max: self.bytes_max, ..Self::default() };
    }

    /// Lets runs go until the rest is within the bounds; never `kept`, which is in use.
    fn make_room(&mut self, kept: Option<(u64, u64)>) {
        while self.bytes > self.bytes_max || self.runs.len() > RUNS_MAX {
            let others = self.runs.iter().filter(|(place, _)| Some(**place) != kept);
            let Some(place) = others.min_by_key(|(_, run)| run.used).map(|(place, _)| *place) else { return };
            self.remove(place);
        }
    }

    fn remove(&mut self, place: (u64, u64)) {
        if let Some(mut run) = self.runs.remove(&place) {
            self.bytes -= run.bytes;
            run.batch.clear(&mut self.buffers);
        }
    }
}

fn piece_of<F: Form>(batch: &Batch<F>, choice: Choice, skip: usize) -> Piece<'_> {
    let encoding = choice.encoding();
    let messages = batch.made_of(choice);
    let (before, messages) = messages.split_at_checked(skip).unwrap_or((messages, &[]));
    let skipped: usize = before.iter().map(|message| message.frame_as(encoding).len()).sum();
    Piece { encoding, messages, frames: batch.frames(choice).get(skipped..).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::{Carried, Stamped, TopicName};
    use crate::wire::frame::Opcode;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Toy {
        Raw,
        Offset,
    }

    impl Form for Toy {
        const RAW: Self = Self::Raw;

        fn write(self, of: Stamped<'_>, payload: &mut Vec<u8>) -> Carried {
            payload.extend_from_slice(format!("{}:{}", of.topic.epoch(), of.message.offset()).as_bytes());
            Carried::Frame(Opcode::Text)
        }
    }

    fn topic(id: u64) -> Topic {
        Topic::new(id, 40 + id, &TopicName::of("t"), 0)
    }

    fn run(id: u64, offsets: std::ops::Range<u64>) -> Vec<Message> {
        offsets.map(|offset| Message::sample(id, offset, format!("m{offset}").as_bytes())).collect()
    }

    fn no(_: &[u8], _: &mut Vec<u8>) -> bool {
        false
    }

    #[test]
    fn a_run_is_read_from_any_of_its_messages_in_any_form() {
        let (one, two) = (topic(1), topic(2));
        let mut replays = Replays::<Toy>::default();
        replays.set_bytes_max(1 << 20);
        replays.add(&one, run(1, 5..9));
        replays.add(&two, run(2, 7..8));
        assert!(
            !replays.has(&one, 4) && replays.has(&one, 5) && replays.has(&one, 8) && !replays.has(&one, 9)
        );
        assert!(replays.has(&two, 7) && !replays.has(&two, 8));
        let piece = replays.piece(&one, 7, Toy::Raw, Encoding::Plain, no).unwrap();
        assert_eq!(piece.frames, b"\x82\x02m7\x82\x02m8");
        assert_eq!(piece.messages.iter().map(Message::offset).collect::<Vec<_>>(), [7, 8]);
        let piece = replays.piece(&one, 5, Toy::Offset, Encoding::Plain, no).unwrap();
        assert_eq!(piece.frames, b"\x81\x0441:5\x81\x0441:6\x81\x0441:7\x81\x0441:8");
        let made = piece.messages.as_ptr();
        let again = replays.piece(&one, 5, Toy::Offset, Encoding::Plain, no).unwrap();
        assert_eq!(again.messages.as_ptr(), made, "made once for all");
        // The epoch is the topic's own, whatever another had at the same offset.
        assert_eq!(replays.piece(&two, 7, Toy::Offset, Encoding::Plain, no).unwrap().frames, b"\x81\x0442:7");
        assert!(replays.piece(&two, 6, Toy::Raw, Encoding::Plain, no).is_none());
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_and_all_when_nobody_reads() {
        let one = topic(1);
        let mut replays = Replays::<Toy>::default();
        replays.add(&one, run(1, 20..24));
        let read = |replays: &mut Replays<Toy>, at| {
            replays.piece(&one, at, Toy::Raw, Encoding::Plain, no).unwrap();
        };
        read(&mut replays, 20);
        let each = replays.bytes();
        assert!(replays.has(&one, 20), "the one in use stays, however large");
        replays.set_bytes_max(2 * each);
        replays.add(&one, run(1, 20..24));
        read(&mut replays, 20);
        replays.add(&one, run(1, 30..34));
        read(&mut replays, 30);
        read(&mut replays, 20);
        replays.add(&one, run(1, 40..44));
        read(&mut replays, 40);
        assert!(replays.has(&one, 20) && !replays.has(&one, 30) && replays.has(&one, 40));
        // A form that is made counts, too.
        replays.piece(&one, 40, Toy::Offset, Encoding::Plain, no).unwrap();
        assert!(!replays.has(&one, 20) && replays.has(&one, 40));
        assert!(replays.bytes() > each);
        replays.clear();
        assert_eq!((replays.bytes(), replays.has(&one, 40)), (0, false));
    }
}
