//! What is done when the server has sent something: it is read, until there is no more or others have waited long enough.
//!
//! A message of a topic comes to one connection after the other, as the same bytes. So what a read has brought is compared
//! with what was read last before it is looked at as frames.

use std::io;

use super::{Order, READS_PER_TURN, SCRATCH_BYTES, Worker};
use crate::base::trouble::Trouble;
use crate::engine::connection::{Context, State};
use crate::result::tally::Tally;

impl Worker {
    /// Reads all there is, or as often as one connection may in a turn.
    pub(super) fn read_turn(&mut self, index: usize, read_closed: bool, order: &Order, tally: &mut Tally) {
        for _ in 0..READS_PER_TURN {
            let Some(connection) = self.connections.get_mut(index) else { return };
            let before = connection.state();
            if before == State::Connecting {
                return;
            }
            let read = connection.read(&mut self.scratch, SCRATCH_BYTES);
            let goes_on = match read {
                Ok(count) if self.take_repeated(index, count, order, tally) => {
                    count == SCRATCH_BYTES || read_closed
                }
                _ => self.on_read(index, before, read, read_closed, order, tally),
            };
            if !goes_on {
                return;
            }
        }
        self.ready.push(index);
    }

    /// Takes a read of nothing but the message that was read last, where it is the next one of its topic for this
    /// connection; false, and nothing is counted, if there is more to it.
    #[inline]
    fn take_repeated(&mut self, index: usize, count: usize, order: &Order, tally: &mut Tally) -> bool {
        let bytes = self.scratch.get(..count).unwrap_or_default();
        let Some(stamp) = self.recent.stamp_of_read(bytes) else { return false };
        let Some(connection) = self.connections.get_mut(index) else { return false };
        let Some(mut sequence) = connection.plain_sequence_mut() else { return false };
        if !self.plan.streams.are_one() {
            let topic = stamp.stream.wrapping_sub(self.plan.run_id) as u32;
            let number = (index * self.plan.threads + self.index) as u64;
            let Some(slot) = self.plan.conversation.topics().slot(number, topic) else { return false };
            if slot < self.topics_each {
                let own = self.subscriptions.get_mut(index * self.topics_each + slot);
                let Some(own) = own else { return false };
                sequence = own;
            }
        }
        if !u32::try_from(stamp.sequence).is_ok_and(|number| sequence.try_next(number)) {
            return false;
        }
        let now_ns = self.plan.clock.now_ns();
        tally.counts.unique += 1;
        tally.on_latency(stamp.planned_ns, now_ns);
        if let Some(schedule) = order.schedule.as_ref().filter(|_| !tally.ticks.is_empty()) {
            tally.on_tick(self.recent.tick_of(stamp.planned_ns, schedule), now_ns);
        }
        true
    }

    /// Does what a read demands; true if there may be more to be read.
    #[inline(never)]
    fn on_read(
        &mut self,
        index: usize,
        before: State,
        read: io::Result<usize>,
        read_closed: bool,
        order: &Order,
        tally: &mut Tally,
    ) -> bool {
        let number = self.number(index);
        let Some(connection) = self.connections.get_mut(index) else { return false };
        let outcome = match read {
            Ok(0) if before == State::Open => Err(Trouble::LostEof),
            Ok(0) if before == State::Greeting => Err(Trouble::AwaitClosed),
            Ok(0) => Err(Trouble::ConnectClosed),
            Ok(count) => Ok(count),
            // Of TLS, the handshake may have come to its end without a byte for the client.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.open_asked(index, tally);
                return false;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Err(error) => Err(connection.trouble(&error)),
        };
        let outcome = outcome.and_then(|count| {
            let (from, each) = (index * self.topics_each, self.topics_each);
            let mut cx = Context {
                schedule: order.schedule.as_ref(),
                subscriptions: self.subscriptions.get_mut(from..from + each).unwrap_or_default(),
                inflating: self.inflating.as_mut(),
                recent: Some(&mut self.recent).filter(|_| self.repeats),
                ..self.plan.context(number, &mut *tally)
            };
            let bytes = self.scratch.get(..count).unwrap_or_default();
            connection.on_bytes(bytes, &mut cx).map(|()| count)
        });
        if before != State::Open && connection.state() == State::Open {
            self.in_flight -= 1;
            self.returning.forget_position(index);
        }
        if let Some(until_ns) = connection.pauses_until_ns() {
            self.asking.pause(index, until_ns);
        }
        match outcome {
            // A short read has drained the socket, unless the end is behind it.
            Ok(count) => count == SCRATCH_BYTES || read_closed || !connection.short_reads_drain(),
            Err(trouble) => {
                self.on_trouble(index, trouble, tally);
                false
            }
        }
    }
}
