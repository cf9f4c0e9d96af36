//! The client side, for `fantail connect`, `fantail publish` and `fantail health`: URLs, the handshake, messages
//! out of frames, and when to try again.
//!
//! Blocking and on threads of its own; no part of it runs in the server. [`backoff`], [`url`] and
//! [`messages`] are pure; [`dial`], [`http`], [`session`] and [`stream`] touch sockets.

pub mod backoff;
pub mod dial;
pub mod http;
mod input;
pub mod messages;
pub mod session;
pub mod stream;
pub mod tls;
pub mod url;
