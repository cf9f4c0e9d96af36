//! permessage-deflate (RFC 7692): negotiation, and messages deflated and inflated one by one.
//!
//! Both sides agree to take no context over, so one [`Deflater`] and one [`Inflater`] of a loop serve every connection,
//! and an idle connection pays nothing; what is kept of clients that do not hold to it is a [`ClientContext`]. Driven by
//! the upgrade, by publishers and by the inbox. Never decides who gets which encoding.

pub mod coded;
mod context;
mod deflater;
mod inflater;
mod negotiation;

pub use context::{ClientContext, Contexts, Kept};
pub use deflater::Deflater;
pub use inflater::{InflateError, Inflater};
pub use negotiation::{Agreement, MalformedOffers, OFFER, WINDOW_BITS_MAX, is_answer, negotiate};

/// What a sync flush ends with and a message does not carry (RFC 7692 section 7.2.1).
const TAIL: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

/// Bytes of a buffer that are kept from one message to the next.
const BYTES_KEPT: usize = 128 * 1024;

#[cfg(test)]
mod tests;
