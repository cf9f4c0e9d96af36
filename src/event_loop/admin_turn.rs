//! What the admin loop does over several turns: asking the client loops, and publishing batches.
//!
//! Driven by requests, by the answers that come through the mailbox, and once a turn for batches. Never
//! blocks: a connection that waits is a session, and whoever waits for an answer that does not come gets 504.

use std::collections::VecDeque;
use std::sync::Arc;

use super::core::Core;
use super::http_turn::Next;
use super::write_turn::Asked;
use crate::config::Admin;
use crate::connection::Phase;
use crate::connection::deadline::ANSWER_TICKS;
use crate::connection::inquiry::{Asker, Inquiry, Part, Question};
use crate::connection::session::Asking;
use crate::dialect::Tools;
use crate::edition::Control;
use crate::edition::LoopHealth;
use crate::http;
use crate::http::admin::{self, Ask, Batch, Progress, Replies};
use crate::metrics::{self, CloseReason, RefuseReason};
use crate::topic::Key;
use crate::transport::Socket;
use crate::wire::http::chunked;
use crate::wire::http::head::Head;
use crate::wire::http::response::ResponseBuffer;

/// Inquiries that may be on their way at a time; a loop that is stuck keeps its own until it turns again.
const INQUIRIES_MAX: usize = 64;

/// Batches that may take turns. One whose sender does not read its answer takes none, and so nobody's place: it holds
/// its body, and all bodies together have a bound of their own.
const BATCHES_MAX: usize = 16;

/// What only the admin loop has.
pub(super) struct AdminLoop {
    /// Answers kept for retries.
    pub(super) replies: Replies,
    batches: VecDeque<BatchJob>,
    inquiries: usize,
    /// Who waits for a reload, in the order of asking.
    pub(super) reloads: VecDeque<Key>,
    /// The next question's.
    ticket: u32,
}

/// A batch that is under way. It goes on to its end even if the connection that sent it does not.
struct BatchJob {
    batch: Box<Batch>,
    waiter: Key,
    chunked: bool,
    keep_alive: bool,
    wait: Wait,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// For its turn.
    Turn,
    /// For room in a mailbox.
    Room,
    /// For the peer to read what was answered so far.
    Peer,
}

impl AdminLoop {
    pub(super) fn new(settings: &Admin, replies_bytes_max: usize) -> Self {
        Self {
            replies: Replies::new(settings, replies_bytes_max),
            batches: VecDeque::new(),
            inquiries: 0,
            reloads: VecDeque::new(),
            ticket: 0,
        }
    }
}

impl<S: Socket> Core<S> {
    /// Asks the loops; the connection waits for what they answer.
    pub(super) fn ask(&mut self, key: Key, head: &Head<'_>, ask: Ask) -> Next {
        let full = self.admin.as_deref().is_none_or(|admin| admin.inquiries >= INQUIRIES_MAX);
        if full {
            self.refuse(key, RefuseReason::Busy, "too many requests wait for the loops; try again");
            return Next::Leave;
        }
        if !self.wait(key, head) {
            return Next::Leave;
        }
        self.send_inquiry(key, ask);
        Next::Go
    }

    /// Lets a request wait for something that makes progress as long as it is well.
    pub(super) fn wait(&mut self, key: Key, head: &Head<'_>) -> bool {
        self.park(key, ANSWER_TICKS, head.keep_alive, &http::Asker::of(head))
    }

    fn send_inquiry(&mut self, key: Key, ask: Ask) {
        let Ask { question, first_loop, loops } = ask;
        let router = Arc::clone(&self.edition.router);
        if router.reserve_reply(self.index).is_err() {
            return self.refuse(key, RefuseReason::Busy, "too many requests wait for the loops; try again");
        }
        let ticket = self.next_ticket();
        let from = Asker { loop_index: self.index, key, ticket };
        let inquiry = Arc::new(Inquiry::new(question, from, first_loop, loops));
        if let Some(parked) = self.parked(key) {
            parked.asking.get_or_insert_default().inquiry = Some(Arc::clone(&inquiry));
        }
        if let Some(admin) = self.admin.as_deref_mut() {
            admin.inquiries += 1;
        }
        let mut complete = false;
        for index in first_loop..first_loop + loops {
            let health = self.edition.health.get(index);
            let has_ended = || health.is_some_and(LoopHealth::has_ended);
            let control = Control::Inquire(Arc::clone(&inquiry));
            if !has_ended() && router.send_control(index, control, Some(self.index)).is_err() {
                complete |= inquiry.answer(index, Part { refused: true, ..Part::default() });
            }
            // It is drained and has nobody. It looks into its mailbox once more after it has said so, and so one
            // of the two answers.
            if has_ended() {
                complete |= inquiry.answer(index, Part::default());
            }
        }
        if complete {
            router.release_reply(self.index);
            self.on_answered(key, ticket, &inquiry);
        }
    }

    fn next_ticket(&mut self) -> u32 {
        let Some(admin) = self.admin.as_deref_mut() else { return 0 };
        admin.ticket = admin.ticket.wrapping_add(1);
        admin.ticket
    }

    /// Every loop has answered the connection's question of this ticket.
    pub(super) fn on_answered(&mut self, key: Key, ticket: u32, inquiry: &Inquiry) {
        if let Some(admin) = self.admin.as_deref_mut() {
            admin.inquiries -= 1;
        }
        #[cfg(test)]
        let (key, ticket) = self.with_planted_stale_reply(key, ticket);
        let edition = Arc::clone(&self.edition);
        let now = self.now;
        let own = |asking: &Asking| asking.inquiry.as_ref().is_some_and(|own| own.from.ticket == ticket);
        let Some(slot) = self.slots.get(key) else {
            self.counters.stale_keys.add(1);
            return;
        };
        let asked = slot.connection.parked().and_then(|parked| parked.asking.as_deref()).is_some_and(own);
        if !asked {
            return;
        }
        slot.connection.extend_parking(now, ANSWER_TICKS);
        let Some(parked) = slot.connection.parked() else { return };
        let (keep_alive, head_only) = (parked.keep_alive, parked.head_only);
        let Some(asking) = parked.asking.as_deref_mut() else { return };
        asking.inquiry = None;
        asking.parts.extend(inquiry.take_parts());
        if asking.parts.iter().any(|(_, part)| part.refused) {
            return self.refuse(key, RefuseReason::Busy, "a loop has no room for the question; try again");
        }
        // A list asks one loop after the other, until its page is full.
        if let Question::List { filter, limit, .. } = &inquiry.question
            && filter.key.is_none()
            && let Some(left) = limit.checked_sub(asking.rows_of_last()).filter(|left| *left > 0)
            && let Some(next) = asking.parts.last().and_then(|last| admin::list_goes_on(last, &edition))
        {
            let question = Question::List { filter: filter.clone(), from: 0, limit: left };
            return self.send_inquiry(key, Ask { question, first_loop: next, loops: 1 });
        }
        let parts = std::mem::take(&mut asking.parts);
        let mut answer = ResponseBuffer::new(Vec::new(), self.date());
        let refused =
            admin::write_answered(&inquiry.question, &parts, &edition, keep_alive, head_only, &mut answer);
        if let Some(reason) = refused {
            self.counters.refused(reason);
        }
        self.complete(key, keep_alive, &answer);
    }

    /// The answer did not come in time.
    pub(super) fn on_answer_due(&mut self, key: Key) {
        if self.waits_for_reload(key) {
            let text = "the configuration was not read within 5 s; the log will tell";
            return self.refuse(key, RefuseReason::LoopStuck, text);
        }
        let asking = self.parked(key).and_then(|parked| parked.asking.as_deref());
        let stuck = match asking.and_then(|asking| asking.inquiry.as_deref()) {
            Some(inquiry) => inquiry.waits_for(),
            // A batch whose answer has begun can't be refused any more.
            _ => return self.abort(key, CloseReason::Io),
        };
        let names: Vec<String> = stuck.iter().map(ToString::to_string).collect();
        let text = format!("loop {} did not answer within 5 s", names.join(", "));
        tracing::warn!(loops = names.join(","), "an inquiry was not answered within 5 s");
        self.refuse(key, RefuseReason::LoopStuck, &text);
    }

    /// Begins a batch. A short one is done at once.
    pub(super) fn start_batch(&mut self, key: Key, head: &Head<'_>, batch: Box<Batch>) -> Next {
        let Some(admin) = self.admin.as_deref_mut() else { return Next::Leave };
        if admin.batches.iter().filter(|job| job.wait != Wait::Peer).count() >= BATCHES_MAX {
            admin.replies.forget_batch(&batch);
            self.refuse(key, RefuseReason::Busy, "too many batches are under way; try again");
            return Next::Leave;
        }
        // RFC 9112, 6.1: HTTP/1.0 knows no chunks, there the end of the stream ends the answer.
        let chunked = head.version_minor >= 1;
        let mut job = BatchJob {
            batch,
            waiter: key,
            chunked,
            keep_alive: head.keep_alive && chunked,
            wait: Wait::Turn,
        };
        let mut lines = Vec::new();
        if self.run_batch(&mut job, &mut lines) == Progress::Done {
            let mut answer = ResponseBuffer::new(Vec::with_capacity(lines.len() + 256), self.date());
            admin::write_batch_answer(&lines, head.keep_alive, &mut answer);
            self.finish_batch(&job.batch);
            self.send_own(key, &answer, Asked::Yes);
            return self.after_answer(key, head.keep_alive);
        }
        if !self.wait(key, head) {
            self.body_bytes += job.batch.body_bytes();
            if let Some(admin) = self.admin.as_deref_mut() {
                // Some of it is published, and so all of it is.
                admin.batches.push_back(job);
            }
            return Next::Leave;
        }
        let mut answer = ResponseBuffer::new(Vec::with_capacity(lines.len() + 256), self.date());
        admin::write_batch_head(job.chunked, job.keep_alive, &mut answer);
        push_chunk(&mut answer, &lines, job.chunked);
        if let Some(parked) = self.parked(key) {
            parked.started = true;
        }
        self.send_own(key, &answer, Asked::Yes);
        self.body_bytes += job.batch.body_bytes();
        if let Some(admin) = self.admin.as_deref_mut() {
            admin.batches.push_back(job);
        }
        Next::Go
    }

    /// Goes on with one batch.
    pub fn batch_turn(&mut self) {
        let Some(mut job) = self.next_batch() else { return };
        let key = job.waiter;
        let mut lines = std::mem::take(&mut self.out);
        lines.clear();
        let progress = self.run_batch(&mut job, &mut lines);
        let mut answer = Vec::with_capacity(lines.len() + 32);
        push_chunk(&mut answer, &lines, job.chunked);
        lines.clear();
        self.out = lines;
        let now = self.now;
        if let Some(slot) = self.slots.get(key).filter(|slot| slot.connection.phase() == Phase::Parked) {
            slot.connection.extend_parking(now, ANSWER_TICKS);
            if progress != Progress::Done {
                self.send_own(key, &answer, Asked::Yes);
            }
        }
        if progress == Progress::Done {
            if job.chunked {
                answer.extend_from_slice(b"0\r\n\r\n");
            }
            let keep_alive = job.keep_alive;
            self.body_bytes -= job.batch.body_bytes();
            self.finish_batch(&job.batch);
            return self.complete(key, keep_alive, &answer);
        }
        if let Some(admin) = self.admin.as_deref_mut() {
            admin.batches.push_back(job);
        }
    }

    /// Whether a batch could go on at once.
    pub(super) fn has_batch_work(&self) -> bool {
        self.admin.as_deref().is_some_and(|admin| admin.batches.iter().any(|job| job.wait == Wait::Turn))
    }

    /// Whether a batch waits for room in a mailbox.
    pub(super) fn has_blocked_batch(&self) -> bool {
        self.admin.as_deref().is_some_and(|admin| admin.batches.iter().any(|job| job.wait == Wait::Room))
    }

    /// The next batch that can go on: its peer has read, or is gone. All are looked at every turn, because
    /// whatever emptied a peer's queue was in a turn before and is not told again.
    fn next_batch(&mut self) -> Option<BatchJob> {
        let admin = self.admin.as_deref_mut()?;
        for job in &mut admin.batches {
            let behind = self.slots.get(job.waiter).is_some_and(|slot| slot.connection.has_backlog());
            if behind {
                if std::mem::replace(&mut job.wait, Wait::Peer) == Wait::Room {
                    // It does not ask for room before its peer has read, and others must not leave it any.
                    self.edition.router.end_first();
                }
            } else if job.wait == Wait::Peer {
                job.wait = Wait::Turn;
                job.batch.forget_waiting();
            }
        }
        let place = admin.batches.iter().position(|job| job.wait != Wait::Peer)?;
        admin.batches.remove(place)
    }

    fn run_batch(&mut self, job: &mut BatchJob, lines: &mut Vec<u8>) -> Progress {
        let mut tools = Tools { deflater: &mut self.deflater, counters: &self.counters, wall: &self.wall };
        let progress = job.batch.run(&self.edition, &mut tools, metrics::now_ms(), lines);
        job.wait = if progress == Progress::NoRoom { Wait::Room } else { Wait::Turn };
        // Whatever it waited for it has, or gives up; another that waits says so again in its own turn.
        if job.wait != Wait::Room {
            self.edition.router.end_first();
        }
        if let Some(admin) = self.admin.as_deref_mut() {
            admin.replies.extend_batch(&job.batch, lines);
        }
        progress
    }

    fn finish_batch(&mut self, batch: &Batch) {
        if let Some(admin) = self.admin.as_deref_mut() {
            admin.replies.finish_batch(batch);
        }
    }
}

/// Appends lines, as one chunk where the answer is chunked.
fn push_chunk(answer: &mut Vec<u8>, lines: &[u8], chunked: bool) {
    match chunked {
        true => chunked::push_chunk(answer, lines),
        false => answer.extend_from_slice(lines),
    }
}

#[cfg(test)]
#[path = "admin_turn_tests.rs"]
mod tests;
