//! What connections say every so often, as heartbeats of a protocol do: a sweep over all of them in each period, so
//! that they do not all speak at once and none needs a timer of its own.

use super::Worker;
use crate::result::tally::Tally;

/// Times at which the next ones speak are at least so far apart.
const STEP_NS: u64 = 1_000_000;

/// How far the sweep of each rule is.
#[derive(Debug, Default)]
pub(super) struct Every {
    sweeps: Vec<Sweep>,
}

#[derive(Clone, Copy, Debug)]
struct Sweep {
    began_ns: u64,
    /// Connections that have spoken in it.
    done: usize,
    next_ns: u64,
}

impl Every {
    /// When the next one speaks; `None` if nobody does.
    pub(super) fn due_ns(&self) -> Option<u64> {
        self.sweeps.iter().map(|sweep| sweep.next_ns).min()
    }
}

impl Sweep {
    /// The connections whose turn has come by now, of so many; the sweep begins anew when all had theirs.
    fn take_due(&mut self, now_ns: u64, period_ns: u64, connections: usize) -> std::ops::Range<usize> {
        let passed_ns = now_ns.saturating_sub(self.began_ns);
        let due = (u128::from(passed_ns) * connections as u128 / u128::from(period_ns.max(1))) as usize;
        let due = due.clamp(self.done.min(connections), connections);
        let turn = self.done.min(due)..due;
        self.done = due;
        if passed_ns >= period_ns {
            // What a pause of this process left out is not caught up with.
            (self.began_ns, self.done) = (now_ns.max(self.began_ns + period_ns), 0);
            if passed_ns < period_ns * 2 {
                self.began_ns -= passed_ns - period_ns;
            }
        }
        let each_ns = period_ns.div_ceil(connections.max(1) as u64);
        self.next_ns = now_ns + each_ns.max(STEP_NS).min(period_ns);
        turn
    }
}

impl Worker {
    /// Lets those speak whose turn has come.
    pub(super) fn say_due(&mut self, tally: &mut Tally) {
        let plan = self.plan.clone();
        if plan.conversation.every().is_empty() || self.connections.is_empty() {
            return;
        }
        let now_ns = plan.clock.now_ns();
        let first = Sweep { began_ns: now_ns, done: 0, next_ns: now_ns };
        self.every.sweeps.resize(plan.conversation.every().len(), first);
        for (rule, (period, text)) in plan.conversation.every().iter().enumerate() {
            let Some(sweep) = self.every.sweeps.get_mut(rule) else { continue };
            if now_ns < sweep.next_ns {
                continue;
            }
            let period_ns = u64::try_from(period.as_nanos()).unwrap_or(u64::MAX);
            for index in sweep.take_due(now_ns, period_ns, self.connections.len()) {
                let number = self.number(index);
                let Some(connection) = self.connections.get_mut(index) else { continue };
                let cx = plan.context(number, &mut *tally);
                if let Err(trouble) = connection.say_again(text, &cx) {
                    self.on_trouble(index, trouble, tally);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn in_each_period_each_connection_speaks_once() {
        for connections in [1, 3, 1_000] {
            let mut sweep = Sweep { began_ns: 0, done: 0, next_ns: 0 };
            let mut spoken = vec![0; connections];
            let (period_ns, mut now_ns) = (1_000_000_000, 0);
            while now_ns <= 5 * period_ns + 10_000_000 {
                for index in sweep.take_due(now_ns, period_ns, connections) {
                    spoken[index] += 1;
                }
                assert!(sweep.next_ns > now_ns);
                now_ns = sweep.next_ns;
            }
            assert!(spoken.iter().all(|times| (5..=6).contains(times)), "{connections}: {spoken:?}");
        }
    }

    #[test]
    fn a_pause_is_not_caught_up_with() {
        let mut sweep = Sweep { began_ns: 0, done: 0, next_ns: 0 };
        assert_eq!(sweep.take_due(10_000_000_000, 1_000_000_000, 5), 0..5);
        assert_eq!(sweep.take_due(10_000_000_001, 1_000_000_000, 5), 0..0);
    }
}
