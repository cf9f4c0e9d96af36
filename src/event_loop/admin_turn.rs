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
use crate::connection::inquiry::{Asker, Inquiry, Part, Question};
use crate::connection::session::{Session, Waiting};
use crate::connection::{Flags, Phase};
use crate::dialect::Tools;
use crate::edition::Control;
use crate::edition::LoopHealth;
use crate::http::admin::{self, Ask, Batch, Progress, Replies};
use crate::metrics::{self, CloseReason, RefuseReason};
use crate::topic::Key;
use crate::transport::Socket;
use crate::wire::http::head::Head;
use crate::wire::http::response::ResponseBuffer;

/// Inquiries that may be on their way at a time; a loop that is stuck keeps its own until it turns again.
const INQUIRIES_MAX: usize = 64;

/// Batches that may take turns. One whose sender does not read its answer takes none, and so nobody's place: it holds
/// its body, and all bodies together have a bound of their own.
const BATCHES_MAX: usize = 16;

/// Bytes kept free before the lines of a chunk for its size: eight digits and a line end.
const CHUNK_HEAD: &[u8; 10] = b"00000000\r\n";

/// What only the admin loop has.
pub(super) struct AdminLoop {
    /// Answers kept for retries.
    pub(super) replies: Replies,
    batches: VecDeque<BatchJob>,
    inquiries: usize,
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
    pub(super) fn new(settings: &Admin) -> Self {
        Self { replies: Replies::new(settings), batches: VecDeque::new(), inquiries: 0, ticket: 0 }
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
        self.wait(key, head);
        self.send_inquiry(key, ask);
        Next::Go
    }

    fn wait(&mut self, key: Key, head: &Head<'_>) {
        let now = self.now;
        let Some(slot) = self.slots.get(key) else { return };
        slot.connection.phase = Phase::Waiting;
        slot.connection.heard = now;
        slot.connection.session = Some(Box::new(Session::Waiting(Box::new(Waiting {
            inquiry: None,
            parts: Vec::new(),
            keep_alive: head.keep_alive,
            head_only: head.method == "HEAD",
            started: false,
            held: Vec::new(),
        }))));
        self.rearm(key.slot);
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
        if let Some(waiting) = self.waiting(key) {
            waiting.inquiry = Some(Arc::clone(&inquiry));
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
        let edition = Arc::clone(&self.edition);
        let now = self.now;
        let own = |waiting: &Waiting| waiting.inquiry.as_ref().is_some_and(|own| own.from.ticket == ticket);
        let Some(slot) = self.slots.get(key) else {
            self.counters.stale_keys.add(1);
            return;
        };
        let Some(Session::Waiting(waiting)) = slot.connection.session.as_deref_mut() else { return };
        if !own(waiting) {
            return;
        }
        slot.connection.heard = now;
        waiting.inquiry = None;
        waiting.parts.extend(inquiry.take_parts());
        if waiting.parts.iter().any(|(_, part)| part.refused) {
            return self.refuse(key, RefuseReason::Busy, "a loop has no room for the question; try again");
        }
        // A list asks one loop after the other, until its page is full.
        if let Question::List { filter, limit, .. } = &inquiry.question
            && filter.key.is_none()
            && let Some(left) = limit.checked_sub(waiting.rows_of_last()).filter(|left| *left > 0)
            && let Some(next) = waiting.parts.last().and_then(|last| admin::list_goes_on(last, &edition))
        {
            let question = Question::List { filter: filter.clone(), from: 0, limit: left };
            return self.send_inquiry(key, Ask { question, first_loop: next, loops: 1 });
        }
        let keep_alive = waiting.keep_alive;
        let (parts, head_only) = (std::mem::take(&mut waiting.parts), waiting.head_only);
        let mut answer = ResponseBuffer::new(Vec::new(), self.date());
        let refused =
            admin::write_answered(&inquiry.question, &parts, &edition, keep_alive, head_only, &mut answer);
        if let Some(reason) = refused {
            self.counters.refused(reason);
        }
        self.complete(key, keep_alive, &answer);
    }

    /// Sends the answer, or its end, and goes on with what the connection asks next.
    fn complete(&mut self, key: Key, keep_alive: bool, answer: &[u8]) {
        let Some(slot) = self.slots.get(key) else { return };
        if slot.connection.phase != Phase::Waiting {
            return;
        }
        slot.connection.phase = Phase::Head;
        if let Some(Session::Waiting(waiting)) = slot.connection.session.take().map(|session| *session)
            && !waiting.held.is_empty()
        {
            slot.connection.session = Some(Box::new(Session::Head(waiting.held)));
        }
        self.send_own(key, answer, Asked::Yes);
        if matches!(self.after_answer(key, keep_alive), Next::Go) {
            // Edges that came meanwhile were not followed up.
            self.list_ready(key);
            self.rearm(key.slot);
        }
    }

    /// Keeps what a client sent behind a request that is not answered yet.
    pub(super) fn hold_behind(&mut self, key: Key, bytes: &[u8]) {
        if let Some(waiting) = self.waiting(key) {
            let before = waiting.held.capacity();
            waiting.held.extend_from_slice(bytes);
            let after = waiting.held.capacity();
            self.held.moved(self.edition.inbox_bytes_of(self.port), before, after);
        }
        if let Some(slot) = self.slots.get(key) {
            slot.connection.flags.set(Flags::READ_OWED);
        }
    }

    /// The answer did not come in time.
    pub(super) fn on_answer_due(&mut self, key: Key) {
        let stuck = match self.waiting(key) {
            Some(Waiting { inquiry: Some(inquiry), started: false, .. }) => inquiry.waits_for(),
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
        self.wait(key, head);
        let mut answer = ResponseBuffer::new(Vec::with_capacity(lines.len() + 256), self.date());
        admin::write_batch_head(job.chunked, job.keep_alive, &mut answer);
        push_chunk(&mut answer, &lines, job.chunked);
        if let Some(waiting) = self.waiting(key) {
            waiting.started = true;
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
        if let Some(slot) = self.slots.get(key).filter(|slot| slot.connection.phase == Phase::Waiting) {
            slot.connection.heard = now;
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
                job.wait = Wait::Peer;
            } else if job.wait == Wait::Peer {
                job.wait = Wait::Turn;
            }
        }
        let place = admin.batches.iter().position(|job| job.wait != Wait::Peer)?;
        admin.batches.remove(place)
    }

    fn run_batch(&mut self, job: &mut BatchJob, lines: &mut Vec<u8>) -> Progress {
        let mut tools = Tools { deflater: &mut self.deflater, counters: &self.counters };
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

    fn waiting(&mut self, key: Key) -> Option<&mut Waiting> {
        match self.slots.get(key)?.connection.session.as_deref_mut() {
            Some(Session::Waiting(waiting)) => Some(waiting),
            _ => None,
        }
    }
}

/// Appends lines, as one chunk where the answer is chunked (RFC 9112, 7.1). An empty chunk would end it.
fn push_chunk(answer: &mut Vec<u8>, lines: &[u8], chunked: bool) {
    if lines.is_empty() {
        return;
    }
    if !chunked {
        return answer.extend_from_slice(lines);
    }
    let mut head = *CHUNK_HEAD;
    for (place, digit) in head.iter_mut().take(8).enumerate() {
        *digit = b"0123456789abcdef"[lines.len() >> (28 - 4 * place) & 15];
    }
    answer.extend_from_slice(&head);
    answer.extend_from_slice(lines);
    answer.extend_from_slice(b"\r\n");
}

#[cfg(test)]
#[path = "admin_turn_tests.rs"]
mod tests;
