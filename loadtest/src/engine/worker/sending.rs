//! What connections send themselves, in echo: each worker its share of the plan, over its connections in turn.

use fantail::wire::frame::{self, Opcode};

use super::{Order, SENDS_PER_TURN, Worker};
use crate::engine::connection::{self, Connection, Role, State};
use crate::engine::message::{self, PROBE_SEQUENCE, Stamp};
use crate::engine::text::Filling;
use crate::engine::trace::Way;
use crate::result::tally::Tally;

impl Worker {
    /// Sends what is due of this worker's share: every `threads`-th message, over its connections in turn.
    pub(super) fn send_due(&mut self, order: &Order, tally: &mut Tally) {
        let Some((schedule, counts)) = order.sends().filter(|_| self.plan.role.sends()) else { return };
        if counts && std::mem::take(&mut self.warming) {
            self.next_send = self.index as u64;
        }
        self.warming |= !counts;
        if self.senders.is_empty() {
            let open = self.connections.iter().enumerate().filter(|(_, c)| c.state() == State::Open);
            self.senders = open.map(|(index, _)| index as u32).collect();
        }
        for _ in 0..SENDS_PER_TURN {
            if self.next_send >= schedule.count() {
                return;
            }
            let planned_ns = schedule.planned_ns(self.next_send);
            let now_ns = self.plan.clock.now_ns();
            if now_ns < planned_ns {
                return;
            }
            let turn = self.next_send as usize / self.plan.threads;
            self.next_send += self.plan.threads as u64;
            let sender = self.senders.get(turn % self.senders.len().max(1)).copied();
            match sender.map(|index| index as usize) {
                Some(index) if counts => self.send_one(index, planned_ns, now_ns, tally),
                Some(index) => self.warm_one(index, planned_ns, tally),
                None => tally.counts.unsent += u64::from(counts),
            }
        }
    }

    fn send_one(&mut self, index: usize, planned_ns: u64, now_ns: u64, tally: &mut Tally) {
        let Some(connection) = self.connections.get_mut(index) else { return };
        let sequence = u64::from(connection.take_send_number());
        self.write_test_message(index, sequence, planned_ns);
        let Some(connection) = self.connections.get_mut(index) else { return };
        match connection.try_send(&self.frame) {
            Ok(true) => {
                tally.counts.sent += 1;
                tally.on_send(planned_ns, now_ns - planned_ns);
            }
            Ok(false) => {
                connection.return_send_number();
                tally.counts.unsent += 1;
            }
            Err(trouble) => {
                connection.return_send_number();
                tally.counts.unsent += 1;
                self.on_trouble(index, trouble, tally);
            }
        }
    }

    /// Sends a message that counts nowhere.
    fn warm_one(&mut self, index: usize, planned_ns: u64, tally: &mut Tally) {
        self.write_test_message(index, PROBE_SEQUENCE, planned_ns);
        let Some(connection) = self.connections.get_mut(index) else { return };
        if let Err(trouble) = connection.try_send(&self.frame) {
            self.on_trouble(index, trouble, tally);
        }
    }

    /// Writes the frame of a connection's own message.
    fn write_test_message(&mut self, index: usize, sequence: u64, planned_ns: u64) {
        let number = self.number(index);
        let stream = connection::echo_stream(self.plan.run_id, number);
        let caught = self.connections.get(index).map_or(&[][..], Connection::caught);
        self.payload.clear();
        let stamp = Stamp { stream, sequence, planned_ns };
        let filling = self.plan.conversation.filling(number, caught);
        let filling = Filling { message: Some((sequence, self.plan.shape.size_of(&stamp))), ..filling };
        let around = self.plan.conversation.around(&filling);
        message::write_message(&stamp, self.plan.shape, &around, &mut self.payload);
        self.frame.clear();
        let opcode = match (self.plan.role, self.plan.shape.is_binary()) {
            (Role::Ping, _) => Opcode::Ping,
            (_, true) => Opcode::Binary,
            (_, false) => Opcode::Text,
        };
        frame::push_frame(&mut self.frame, opcode, &self.payload, Some(connection::mask()));
        if let Some(traced) = self.plan.traced(number) {
            traced.frame(Way::Out, opcode, &self.payload);
        }
    }
}
