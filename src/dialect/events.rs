//! A dialect of tests, `/events/TOPIC`: an event stream as of the HTML standard, with the message's place as its id.
//!
//! It proves that a form which names epoch and offset is its dialect's own matter: these lines, a variant, an arm.

use super::speak::{Carrier, Incoming, OpenRequest, Opening, Pulse, Refusal, Speak};
use super::{Cx, Dialect, Form, Meaning};
use crate::metrics::{CloseReason, RefuseReason};
use crate::topic::{Carried, Since, Stamped, TopicName};
use crate::wire::http::head::Head;
use crate::wire::http::response::ResponseBuffer;

pub(super) struct Events;

/// Appends one event.
pub(super) fn write(of: Stamped<'_>, payload: &mut Vec<u8>) -> Carried {
    let Stamped { topic, message } = of;
    payload.extend_from_slice(format!("id: {:016x}:{}\ndata: ", topic.epoch(), message.offset()).as_bytes());
    payload.extend_from_slice(message.payload());
    payload.extend_from_slice(b"\n\n");
    Carried::Stream
}

impl Speak for Events {
    fn label() -> &'static str {
        "events"
    }

    fn open(request: &OpenRequest<'_>) -> Option<Result<Opening, Refusal>> {
        let name = request.head.path().strip_prefix("/events/")?.to_owned();
        let refusal = |text: &'static str| Refusal { reason: RefuseReason::BadRequest, text: text.into() };
        let name = TopicName::parse(name).map_err(|error| refusal(error.reason()));
        Some(name.map(|name| Opening { topics: vec![(name, Since::Now)], ..Opening::of(Dialect::Events) }))
    }

    fn on_message(_: &mut Cx<'_>, _: Incoming<'_>) -> Meaning {
        Meaning::Said
    }

    fn push_head(_: &Head<'_>, out: &mut ResponseBuffer) {
        out.extend_from_slice(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n");
    }

    fn carrier() -> Carrier {
        Carrier::Body
    }

    fn form() -> Form {
        Form::Events
    }

    fn pulse() -> Pulse {
        Pulse { bytes: b":\n\n", answered: false }
    }

    fn close_code(_: CloseReason) -> Option<u16> {
        None
    }

    fn push_close(_: u16, _: &str, _: &mut Vec<u8>) {}
}
