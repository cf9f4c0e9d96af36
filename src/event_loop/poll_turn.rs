//! Polls: requests that are answered what was missed, or wait for the next messages of a topic.
//!
//! Driven by the request turn, by the fan-out, by the deadline of who waits and by the drain. Who waits is a subscriber
//! and a parked request: a slot and a small box. An answer ends the subscription, so that nothing is kept between two
//! polls; what is published meanwhile is in the topic's history, or a gap.

#[cfg(test)]
use fantail_test_support::planted::{self, Planted};

use super::catch_up_turn::place_of;
use super::core::Core;
use super::http_turn::Next;
use super::presence::PolledEvents;
use super::write_turn::Asked;
use crate::connection::session::Poll;
use crate::connection::{NONE, TICK_MS};
use crate::dialect::poll::{Reply, push_polled};
use crate::dialect::{Dialect, Opening, push_page};
use crate::http::Asker;
use crate::topic::{Key, MemberId, Message, Page, PageFrom, Position, Since, Topic, TopicName};
use crate::transport::Socket;
use crate::wire::http::head::Head;
use crate::wire::http::response::ResponseBuffer;

/// Messages of one answer out of the history.
const MESSAGES_MAX: usize = 1_000;

/// Bytes of their frames, unless a single one is larger.
const BYTES_MAX: usize = 256 * 1024;

/// What polls of a topic were answered in this pass: made once for all of them on the loop.
#[derive(Debug, Default)]
pub(super) struct Polled {
    /// Epoch of the topic, and the first and last offset.
    of: (u64, u64, u64),
    page: Vec<u8>,
}

impl<S: Socket> Core<S> {
    /// Answers a poll, or lets it wait. `fields` are those that say which pages may read the answer.
    pub(super) fn start_poll(&mut self, key: Key, head: &Head<'_>, opening: &Opening, fields: &[u8]) -> Next {
        let head_only = head.method == "HEAD";
        let (Some((name, since)), Some(slot)) = (opening.topics.first(), self.slots.get(key)) else {
            return Next::Leave;
        };
        slot.connection.dialect = opening.dialect;
        // It joins before it looks at what was missed: whatever comes behind that is delivered to it.
        let polled = self.subscribe(key, &[(name.clone(), Since::Now)], &[]).and_then(|subscribed| {
            let events = opening.topics.get(1).map(|(_, since)| {
                let polled = self.poll_events(key, name.as_str(), *since, opening.after.as_deref());
                polled.map_err(|error| self.refused_topics(key, error))
            });
            Ok((subscribed, events.transpose()?))
        });
        let (subscribed, polled) = match polled {
            Ok(polled) => polled,
            Err(reason) => {
                self.refuse_for_now(key, reason, &Asker::of(head));
                return Next::Leave;
            }
        };
        let Some((topic, joined)) = subscribed.joined.into_iter().next() else { return Next::Leave };
        let newest = Position { epoch: topic.epoch(), offset: joined.next_offset - 1 };
        let keep_alive = head.keep_alive && self.draining.is_none();
        let version = polled.as_ref().map(|polled| polled.at);
        let reply = Reply { at: newest, version, page: &[], fields, keep_alive, head_only };
        let mut page = Page { epoch: newest.epoch, newest: newest.offset, gap: None, messages: Vec::new() };
        if let Since::After(_) = since {
            page = topic.page(PageFrom::Since(*since), MESSAGES_MAX, BYTES_MAX);
        }
        let polled = polled.filter(|polled| polled.list.is_some() || !polled.events.is_empty());
        if page.gap.is_some() || !page.messages.is_empty() || polled.is_some() {
            let offset = page.messages.last().map_or(newest.offset, Message::offset);
            let mut told = Vec::new();
            push_page(&topic, &page, offset, &mut told);
            if let Some(PolledEvents { events, list, after, .. }) = &polled {
                let of = self.edition.router.find(&TopicName::of_presence(name.as_str()));
                let list =
                    list.as_ref().map(|(page, own)| (page, own.as_ref().map(MemberId::as_str), *after));
                push_polled(of.as_ref(), events, list, &mut told);
            }
            return self.end_poll(key, &Reply { at: Position { offset, ..newest }, page: &told, ..reply });
        }
        if opening.wait_seconds == 0 || head_only || self.draining.is_some() {
            return self.end_poll(key, &reply);
        }
        let ticks = u64::from(opening.wait_seconds) * 1_000 / TICK_MS;
        // With its token, a poll is over.
        let left = self.bearers.ends(key.slot, &self.timeouts).saturating_sub(self.now).max(1);
        let more = self.slots.get(key).and_then(|slot| slot.connection.session.as_deref());
        let topics = more.map(|session| session.more_topics().to_vec()).unwrap_or_default();
        if self.park(key, (ticks as u32).min(left), head.keep_alive, &Asker::of(head))
            && let Some(parked) = self.parked(key)
        {
            parked.poll = Some(Box::new(Poll { at: newest, version, fields: fields.into() }));
            parked.topics = topics;
            return Next::Go;
        }
        Next::Leave
    }

    /// Answers whoever waits with messages of the loop's topic `local`.
    #[inline(never)]
    pub(super) fn deliver_to_poll(&mut self, index: u32, local: u32, messages: &[Message]) {
        let Some(slot) = self.slots.at(index) else { return };
        let key = Key { slot: index, generation: slot.generation };
        if place_of(&mut slot.connection, local).is_some() && self.answer_poll_of(key, local, messages) {
            self.counters.deliveries.add(messages.len() as u64);
        }
    }

    /// Answers a poll that waits with nothing. `false`: it does not wait.
    pub(super) fn answer_poll(&mut self, key: Key) -> bool {
        self.answer_poll_of(key, NONE, &[])
    }

    /// Answers a poll that waits with these messages of one of its topics. `false`: it does not wait.
    fn answer_poll_of(&mut self, key: Key, local: u32, messages: &[Message]) -> bool {
        let Some(slot) = self.slots.get(key) else { return false };
        let first = slot.connection.topic;
        let Some(parked) = slot.connection.parked() else { return false };
        let Some(poll) = parked.poll.take() else { return false };
        let (keep_alive, head_only) = (parked.keep_alive, parked.head_only);
        let keep_alive = keep_alive && self.draining.is_none();
        let mut polled = std::mem::take(&mut self.polled);
        let Poll { at, version, fields } = &*poll;
        let (mut reply, mut told) =
            (Reply { at: *at, version: *version, page: &[], fields, keep_alive, head_only }, Vec::new());
        match (self.topics.topic(local), reply.version.as_mut(), messages.last()) {
            (Some(topic), _, Some(last)) if local == first => {
                polled.write(topic, (messages.first().map_or(0, Message::offset), last.offset()), messages);
                reply.at.offset = last.offset();
                #[cfg(test)]
                if planted::strikes(Planted::PollAhead) {
                    reply.at.offset += 1;
                }
                reply.page = &polled.page;
            }
            (Some(events), Some(version), Some(last)) => {
                version.offset = last.offset();
                if let Some(topic) = self.topics.topic(first) {
                    let page = Page { epoch: at.epoch, newest: at.offset, gap: None, messages: Vec::new() };
                    push_page(topic, &page, at.offset, &mut told);
                    push_polled(Some(events), messages, None, &mut told);
                }
                reply.page = &told;
            }
            _ => {}
        }
        let answer = self.poll_answer(&reply);
        self.polled = polled;
        self.unsubscribe_all(key.slot);
        // The next request shows a token of its own.
        self.forget_bearer(key.slot);
        if let Some(slot) = self.slots.get(key) {
            slot.connection.dialect = Dialect::Http;
        }
        self.complete(key, keep_alive, &answer);
        true
    }

    fn poll_answer(&mut self, reply: &Reply<'_>) -> Vec<u8> {
        let mut answer = ResponseBuffer::new(Vec::with_capacity(reply.page.len() + 512), self.date());
        reply.push(&mut answer);
        answer.into_bytes()
    }

    /// Answers a poll that has not waited.
    fn end_poll(&mut self, key: Key, reply: &Reply<'_>) -> Next {
        let answer = self.poll_answer(reply);
        self.unsubscribe_all(key.slot);
        // The next request shows a token of its own.
        self.forget_bearer(key.slot);
        if let Some(slot) = self.slots.get(key) {
            slot.connection.dialect = Dialect::Http;
            // What it had of a second topic.
            slot.connection.session = None;
        }
        self.send_own(key, &answer, Asked::Yes);
        self.after_answer(key, reply.keep_alive)
    }
}

impl Polled {
    /// Writes what is told of these messages, from the first of these offsets to the last, unless that is there already.
    fn write(&mut self, topic: &Topic, (first, last): (u64, u64), messages: &[Message]) {
        let of = (topic.epoch(), first, last);
        if self.of == of && !self.page.is_empty() {
            return;
        }
        self.of = of;
        self.page.clear();
        self.page.shrink_to(BYTES_MAX);
        let page = Page { epoch: topic.epoch(), newest: last, gap: None, messages: messages.to_vec() };
        push_page(topic, &page, last, &mut self.page);
    }
}
