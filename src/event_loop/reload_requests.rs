//! Requests on the admin port that ask for a reload: each waits until the main thread has read the configuration.
//!
//! Driven by requests and by the reload that the main thread announces. Reads no file: that may block.

use super::core::Core;
use super::http_turn::Next;
use crate::http::admin;
use crate::metrics::RefuseReason;
use crate::topic::Key;
use crate::transport::Socket;
use crate::wire::http::head::Head;
use crate::wire::http::response::ResponseBuffer;

/// Requests that may wait for a reload at a time; each costs a reading of the configuration.
const RELOADS_MAX: usize = 8;

impl<S: Socket> Core<S> {
    /// Asks the main thread to read the configuration; the connection waits for what it says.
    pub(super) fn ask_reload(&mut self, key: Key, head: &Head<'_>) -> Next {
        let full = self.admin.as_deref().is_none_or(|admin| admin.reloads.len() >= RELOADS_MAX);
        if full {
            self.refuse(key, RefuseReason::Busy, "too many requests wait for a reload; try again");
            return Next::Leave;
        }
        if !self.wait(key, head) {
            return Next::Leave;
        }
        if let Some(admin) = self.admin.as_deref_mut() {
            admin.reloads.push_back(key);
        }
        self.reloads_asked += 1;
        Next::Go
    }

    /// How many reloads were asked for since this was last called.
    pub(super) fn take_reloads_asked(&mut self) -> usize {
        std::mem::take(&mut self.reloads_asked)
    }

    /// Answers those whose reload is over: there is one answer for each, in their order.
    pub(super) fn answer_reloads(&mut self) {
        if self.admin.is_none() {
            return;
        }
        while let Some(said) = self.edition.reload_answers.pop() {
            let waiter = self.admin.as_deref_mut().and_then(|admin| admin.reloads.pop_front());
            let Some(key) = waiter.filter(|key| self.waits_for_reload(*key)) else {
                self.counters.stale_keys.add(1);
                continue;
            };
            let keep_alive = self.parked(key).is_some_and(|parked| parked.keep_alive);
            let mut answer = ResponseBuffer::new(Vec::new(), self.date());
            admin::write_reloaded(&said, keep_alive, &mut answer);
            self.complete(key, keep_alive, &answer);
        }
    }

    /// Whether the connection waits for neither loops nor a batch.
    pub(super) fn waits_for_reload(&mut self, key: Key) -> bool {
        self.parked(key).is_some_and(|parked| parked.asking.is_none() && !parked.started)
    }
}
