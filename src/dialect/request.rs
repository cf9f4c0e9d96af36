//! Before anything is opened: a connection that asks by HTTP and speaks nothing else yet.
//!
//! It has no messages, no pulse and no last words: its answers are the requests'.

use super::effect::{Cx, Meaning};
use super::speak::{Carrier, Farewell, Incoming, OpenRequest, Opening, Pulse, Refusal, Speak};
use crate::metrics::CloseReason;

pub(super) struct Request;

impl Speak for Request {
    fn label() -> &'static str {
        "http"
    }

    fn open(_: &OpenRequest<'_>) -> Option<Result<Opening, Refusal>> {
        None
    }

    fn carrier() -> Carrier {
        Carrier::Body
    }

    fn on_message(_: &mut Cx<'_>, _: Incoming<'_>) -> Meaning {
        Meaning::Said
    }

    fn pulse() -> Pulse {
        Pulse { bytes: &[], answered: false }
    }

    fn close_code(_: CloseReason) -> Option<u16> {
        None
    }

    fn push_close(_: &Farewell<'_>, _: &mut Vec<u8>) {}
}
