//! Topics whose rule has an interval: those that wait with a message, and when their time has come.

use super::LocalTopics;
use crate::topic::entry::Mail;

impl<M: Mail> LocalTopics<M> {
    /// Tells the time, in ticks. Topics whose time has come have work then.
    pub fn set_now(&mut self, now: u32) {
        self.pacer.set_now(now);
        while let Some(local) = self.pacer.next(false) {
            self.go_on(local);
        }
    }

    /// When a topic that waits is to be delivered, in ticks; `None` while none does.
    pub fn next_due(&self) -> Option<u32> {
        self.pacer.next_due()
    }

    /// Messages that a newer one has replaced because its topic's rule has an interval.
    pub fn replaced(&self) -> u64 {
        self.pacer.replaced
    }

    /// From now on nothing waits for its time: what does is delivered at once.
    pub fn flush(&mut self) {
        self.pacer.flushing = true;
        self.release_waiting();
    }

    /// Looks at each topic that waits once more: its rule may be another.
    pub(super) fn release_waiting(&mut self) {
        while let Some(local) = self.pacer.next(true) {
            self.go_on(local);
        }
    }

    fn go_on(&mut self, local: u32) {
        let Some(entry) = self.topics.get(local as usize) else { return };
        if let Some(work) = self.works.get_mut(entry.work as usize) {
            work.parked = None;
            self.active.push_back(local);
        }
    }
}
