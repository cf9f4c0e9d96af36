//! Connections that are closed on purpose, as a stage wants fewer: those that were opened last go first. When more are
//! wanted again, they take the places that are free.

use super::{Order, Worker};
use crate::engine::connection::State;
use crate::result::tally::Tally;

/// Connections closed in one turn, so that the others are read in between.
const CLOSES_PER_TURN: usize = 256;

impl Worker {
    /// Whether some are to be closed.
    pub(super) fn parts(&self, order: &Order) -> bool {
        order.closes && self.standing > order.open_target
    }

    /// Closes what stands beyond what is wanted; connects under way are given up.
    pub(super) fn part_due(&mut self, order: &Order, tally: &mut Tally) {
        for _ in 0..CLOSES_PER_TURN {
            if !self.parts(order) {
                return;
            }
            self.standing -= 1;
            let Some(connection) = self.connections.get_mut(self.standing) else { continue };
            match connection.state() {
                State::Open => tally.counts.closed += 1,
                State::Connecting | State::Upgrading | State::Greeting => {
                    self.in_flight -= 1;
                    tally.counts.withdrawn += 1;
                }
                // It was lost, or never there, and is counted so.
                State::Failed | State::Ended => {}
            }
            connection.end();
        }
    }
}
