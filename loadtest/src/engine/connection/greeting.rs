//! The greeting of a connection: what is said and awaited behind the upgrade, step by step.

use fantail::wire::frame::Opcode;

use super::{Connection, Context, State};
use crate::base::trouble::Trouble;
use crate::engine::answer;
use crate::engine::conversation::Step;
use crate::engine::text::{Filling, Text};

impl Connection {
    /// Says what comes next in the greeting, up to what is awaited, or to its end.
    pub(super) fn greet(&mut self, cx: &mut Context<'_>) {
        let mut step = self.extra.as_ref().and_then(|extra| extra.handshake).map_or(0, |shake| shake.step);
        while let Some(next) = cx.plan.conversation.steps().get(usize::from(step)) {
            match next {
                Step::Say(text) => {
                    let caught = self.extra.as_ref().map_or(&[][..], |extra| &extra.caught);
                    let filling = cx.filling(caught);
                    let topics = filling.topics.of(cx.number).map(Some);
                    let once = (!text.names_topic() || cx.topic.is_some()).then_some(cx.topic);
                    let topics: Vec<_> = match once {
                        Some(topic) => vec![topic],
                        None => topics.collect(),
                    };
                    let says =
                        topics.into_iter().map(|topic| text.fill(&Filling { topic, ..filling }).into_owned());
                    for said in says.collect::<Vec<_>>() {
                        self.say(kind(text), &said, cx.traced);
                    }
                }
                Step::Await { each, .. } => {
                    let topics = cx.plan.conversation.topics().of(cx.number).count();
                    let left = if *each && cx.topic.is_none() { topics } else { 1 };
                    if let Some(handshake) = self.extra.as_mut().and_then(|extra| extra.handshake.as_mut()) {
                        (handshake.step, handshake.left) = (step, u16::try_from(left).unwrap_or(u16::MAX));
                    }
                    self.state = State::Greeting;
                    return;
                }
            }
            step += 1;
        }
        self.on_open(cx);
    }

    /// A message came while another is awaited: goes on with the greeting if it is that one, and gives up if it says no.
    pub(super) fn on_greeted(&mut self, payload: &[u8], cx: &mut Context<'_>) -> Result<(), Trouble> {
        let Some(extra) = &mut self.extra else { return Ok(()) };
        let Some(handshake) = &mut extra.handshake else { return Ok(()) };
        let Some(Step::Await { pattern, .. }) = cx.plan.conversation.steps().get(usize::from(handshake.step))
        else {
            return Ok(());
        };
        if cx.plan.conversation.is_refused_by(payload) {
            cx.plan.details.note(Trouble::AwaitRefused, || answer::detail(Trouble::AwaitRefused, payload));
            return Err(Trouble::AwaitRefused);
        }
        let Some(groups) = pattern.captures(payload) else {
            // What came instead may be why it never does.
            for trouble in [Trouble::AwaitTimeout, Trouble::AwaitClosed] {
                cx.plan.details.note(trouble, || answer::detail(trouble, payload));
            }
            return Ok(());
        };
        for name in pattern.capture_names().flatten() {
            if let Some(found) = groups.name(name) {
                let value = String::from_utf8_lossy(found.as_bytes()).into_owned();
                extra.caught.retain(|(known, _)| known != name);
                extra.caught.push((name.to_owned(), value));
            }
        }
        handshake.left = handshake.left.saturating_sub(1);
        if handshake.left == 0 {
            handshake.step += 1;
            self.greet(cx);
        }
        Ok(())
    }
}

/// How a text leaves.
pub(super) fn kind(text: &Text) -> Opcode {
    if text.is_binary() { Opcode::Binary } else { Opcode::Text }
}
