//! What is done with a message that has come: it is answered, awaited, or one of the test messages that are counted.

use fantail::wire::frame::Opcode;

use super::{Connection, Context, Role, State, echo_stream};
use crate::base::trouble::Trouble;
use crate::engine::conversation::Client;
use crate::engine::message::{self, Expected, Found, PROBE_SEQUENCE, Stamp, Streams};
use crate::engine::template::Template;
use crate::engine::text::Filling;
use crate::result::tally::Arrival;

impl Connection {
    /// Takes the content of a whole message.
    pub(super) fn on_message(
        &mut self,
        payload: &[u8],
        binary: bool,
        cx: &mut Context<'_>,
    ) -> Result<(), Trouble> {
        let replied = cx.plan.conversation.replies() && self.on_call(payload, binary, cx);
        if self.state == State::Greeting {
            return self.on_greeted(payload, cx);
        }
        self.on_test_message(payload, binary, replied, cx);
        Ok(())
    }

    /// A pong came: the answer to a ping of this connection, or one that nobody asked for (RFC 6455 section 5.5.3).
    pub(super) fn on_pong(&mut self, payload: &[u8], cx: &mut Context<'_>) {
        let streams = Streams::one(echo_stream(cx.plan.run_id, cx.number));
        match message::read_unchanged(payload, cx.plan.shape, streams, cx.now_ns) {
            Some(stamp) => self.on_stamp(&stamp, false, cx),
            None => cx.tally.counts.foreign += 1,
        }
    }

    /// Answers a message that asks for it; false if it does not.
    fn on_call(&mut self, payload: &[u8], binary: bool, cx: &Context<'_>) -> bool {
        let caught = self.extra.as_ref().map_or(&[][..], |extra| &extra.caught);
        let Some((reply, bytes)) = cx.plan.conversation.reply_to(payload, &cx.filling(caught)) else {
            return false;
        };
        self.say(if binary || bytes { Opcode::Binary } else { Opcode::Text }, &reply, cx.traced);
        true
    }

    /// `replied` says that it was answered, so that it is no stranger if there is no test message in it.
    pub(super) fn on_test_message(
        &mut self,
        payload: &[u8],
        binary: bool,
        replied: bool,
        cx: &mut Context<'_>,
    ) {
        let plan = cx.plan;
        let streams = match cx.role {
            // Pings are answered by pongs.
            Role::Idle | Role::Ping => return,
            Role::Subscribe => plan.streams,
            Role::Echo => Streams::one(echo_stream(plan.run_id, cx.number)),
        };
        if plan.conversation.template().is_none() && binary == plan.shape.is_binary() {
            // What an echo brings is meant for one connection, whatever was read for another.
            let recent = cx.recent.as_deref_mut().filter(|_| cx.role == Role::Subscribe);
            let known = recent.as_deref().and_then(|recent| recent.stamp_of(payload));
            let read = || message::read_unchanged(payload, plan.shape, streams, cx.now_ns);
            if let Some(stamp) = known.or_else(read) {
                if let Some(recent) = recent.filter(|_| known.is_none()) {
                    recent.keep(payload, binary, stamp);
                }
                return self.on_stamp(&stamp, false, cx);
            }
        }
        let any = self.on_other_payload(payload, binary, streams, cx);
        cx.tally.counts.foreign += u64::from(!any && !replied);
    }

    /// Looks for test messages in a payload that is not simply one; false if there is nothing of this run in it.
    #[inline(never)]
    fn on_other_payload(
        &mut self,
        payload: &[u8],
        binary: bool,
        streams: Streams,
        cx: &mut Context<'_>,
    ) -> bool {
        // RFC 6455 section 8.1: what is not UTF-8 is no text.
        if !binary && std::str::from_utf8(payload).is_err() {
            cx.tally.counts.corrupt += 1;
            return true;
        }
        let (plan, number) = (cx.plan, cx.number);
        let (conversation, shape, run_id) = (&plan.conversation, plan.shape, plan.run_id);
        let echo = cx.role.sends();
        let around = |stamp: &Stamp| {
            let topic = stamp.stream.wrapping_sub(run_id) as u32;
            // A publisher speaks as the first of a topic; an echo is of what this one said itself.
            let speaker = if echo { number } else { conversation.topics().first_member(topic) };
            let message = Some((stamp.sequence, shape.size_of(stamp)));
            let filling = Filling { message, ..conversation.filling(speaker, &[]) };
            let filling = if echo { filling } else { Filling { topic: Some(topic), ..filling } };
            conversation.around(&filling)
        };
        let stable = conversation.template().is_none_or(Template::is_stable);
        let around = stable.then_some(&around as &dyn Fn(&Stamp) -> _);
        let expected = Expected { shape, streams, now_ns: cx.now_ns, around };
        let other_kind = cx.plan.keeps_kind && binary != shape.is_binary();
        message::search(payload, &expected, |found| match found {
            // Nothing is around it, so the server delivers what it takes, but as another kind.
            Found::Unchanged(stamp) if other_kind && stamp.sequence != PROBE_SEQUENCE => {
                cx.tally.counts.corrupt += 1;
            }
            Found::Unchanged(stamp) => self.on_stamp(&stamp, false, cx),
            Found::Wrapped(stamp) => self.on_stamp(&stamp, true, cx),
            // A poll's answer holds all that has come, and quotes nothing.
            Found::Repeated if conversation.client() == Client::Poll => cx.tally.counts.duplicate += 1,
            Found::Repeated => cx.tally.counts.repeated += 1,
            // That a probe came is all there is to know of it.
            Found::Changed(stamp) if stamp.sequence == PROBE_SEQUENCE => self.on_stamp(&stamp, false, cx),
            Found::Changed(_) | Found::Broken => cx.tally.counts.corrupt += 1,
        })
    }

    /// Counts a test message; `wrapped` if the server put other things around it.
    fn on_stamp(&mut self, stamp: &Stamp, wrapped: bool, cx: &mut Context<'_>) {
        let Some(slot) = self.slot_of(stamp, cx) else { return };
        let counts = &mut cx.tally.counts;
        if stamp.sequence == PROBE_SEQUENCE {
            let sequence = cx.subscriptions.get_mut(slot).unwrap_or(&mut self.sequence);
            counts.probed += u64::from(sequence.on_probe());
            return;
        }
        let Ok(number) = u32::try_from(stamp.sequence) else {
            counts.corrupt += 1;
            return;
        };
        // An echo can't come before its message left; such a number was not written by this generator.
        if cx.role.sends() && number >= self.sent {
            counts.corrupt += 1;
            return;
        }
        counts.wrapped += u64::from(wrapped);
        let plan = cx.plan;
        let topic = stamp.stream.wrapping_sub(plan.run_id) as u32;
        let overlapped =
            |late, later| plan.ledger.as_ref().is_some_and(|ledger| ledger.overlapped(topic, late, later));
        let first = match self.account.as_deref_mut().and_then(|account| account.of(slot)) {
            Some(visits) => visits.on_message(number, overlapped, counts),
            None => {
                let sequence = cx.subscriptions.get_mut(slot).unwrap_or(&mut self.sequence);
                match sequence.on_arrival(number) {
                    // RFC 6455 section 5.5.3: of several pings only the last has to be answered.
                    Arrival::New { skipped } if cx.role == Role::Ping => {
                        counts.overtaken += u64::from(skipped);
                        counts.on_arrival(Arrival::New { skipped: 0 })
                    }
                    Arrival::Reordered if overlapped(number, sequence.next().saturating_sub(1)) => {
                        counts.on_overtaken()
                    }
                    arrival => counts.on_arrival(arrival),
                }
            }
        };
        if !first {
            return;
        }
        cx.tally.on_latency(stamp.planned_ns, cx.now_ns);
        if let Some(schedule) = cx.schedule.filter(|_| !cx.tally.ticks.is_empty()) {
            let tick = match cx.recent.as_deref_mut() {
                Some(recent) => recent.tick_of(stamp.planned_ns, schedule),
                None => schedule.tick_of(stamp.planned_ns),
            };
            cx.tally.on_tick(tick, cx.now_ns);
        }
    }

    /// The place of a message's topic among those of this connection; `None` if it is in none of that, which is counted.
    #[inline]
    fn slot_of(&self, stamp: &Stamp, cx: &mut Context<'_>) -> Option<usize> {
        if cx.role.sends() || cx.plan.streams.are_one() {
            return Some(0);
        }
        let topic = stamp.stream.wrapping_sub(cx.plan.run_id) as u32;
        let slot = cx.plan.conversation.topics().slot(cx.number, topic);
        cx.tally.counts.stray += u64::from(slot.is_none());
        slot
    }
}
