//! What an endpoint or a dialect borrows from the loop it runs on, for as long as one call.

use crate::metrics::LoopCounters;
use crate::topic::{Draft, Origin, Topic};
use crate::wire::deflate::Deflater;

/// Tools of one loop.
pub struct Tools<'a> {
    /// The loop's only deflater.
    pub deflater: &'a mut Deflater,
    /// The loop's counters.
    pub counters: &'a LoopCounters,
    /// When the loop's turn began, in milliseconds since 1970: what messages are dated with.
    pub wall_ms: u64,
}

impl Tools<'_> {
    /// Encodes a message for `topic`, once for all who will get it: deflated too if somebody wants that and it
    /// saves anything.
    pub fn encode(&mut self, topic: &Topic, origin: Option<Origin>, binary: bool, payload: &[u8]) -> Draft {
        let time_ms = self.wall_ms;
        let deflated = if topic.has_deflate() { self.try_deflate(payload) } else { None };
        Draft::encode_at(time_ms, origin, binary, payload, deflated)
    }

    /// Appends the payload deflated; `false` where that would not make it smaller.
    pub fn deflate_into(&mut self, payload: &[u8], out: &mut Vec<u8>) -> bool {
        let deflated = self.try_deflate(payload);
        deflated.inspect(|bytes| out.extend_from_slice(bytes)).is_some()
    }

    /// The payload deflated, if it is long enough and becomes smaller.
    pub fn try_deflate(&mut self, payload: &[u8]) -> Option<&[u8]> {
        let deflated = self.deflater.try_deflate(payload)?;
        self.counters.deflated_messages.add(1);
        self.counters.deflate_in_bytes.add(payload.len() as u64);
        self.counters.deflate_out_bytes.add(deflated.len() as u64);
        Some(deflated)
    }
}
