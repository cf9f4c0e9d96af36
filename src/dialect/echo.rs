//! The echo dialect: `/echo`. Every message goes back to who sent it, as what it was.
//!
//! For trying clients and measuring: it has no topics.

use super::Dialect;
use super::effect::{Cx, Meaning};
use super::speak::{Bounds, Incoming, OpenRequest, Opening, Refusal, Speak};
use crate::wire::frame::{Opcode, push_deflated_frame, push_frame};
use crate::wire::http::params::Params;

/// Echoes longer than this go out plain: deflating takes milliseconds from here on, and nobody shares the work, so
/// others must not wait for it.
const DEFLATED_BYTES_MAX: usize = 256 * 1024;

pub(super) struct Echo;

impl Speak for Echo {
    fn label() -> &'static str {
        "echo"
    }

    fn open(request: &OpenRequest<'_>) -> Option<Result<Opening, Refusal>> {
        if request.head.path() != "/echo" {
            return None;
        }
        let known = Params::read(request.head.query(), b"", &[]);
        Some(known.map(|_| Opening::of(Dialect::Echo)).map_err(|text| Refusal::bad_request(text.into())))
    }

    fn message_bytes_max(bounds: &Bounds) -> usize {
        bounds.echo
    }

    #[inline(always)]
    fn on_message(cx: &mut Cx<'_>, message: Incoming<'_>) -> Meaning {
        let opcode = if message.text { Opcode::Text } else { Opcode::Binary };
        let worth = message.payload.len() <= cx.deflates_up_to.min(DEFLATED_BYTES_MAX);
        match if worth { cx.tools.try_deflate(message.payload) } else { None } {
            Some(deflated) => push_deflated_frame(cx.out, opcode, deflated, None),
            None => push_frame(cx.out, opcode, message.payload, None),
        }
        Meaning::Said
    }
}
