//! What holds connections and sends messages: workers, their connections, and the main thread's side of them.
//!
//! Commands drive it through [`run::Run`]; what it counts is a plain [`tally`](crate::result::tally). It judges and
//! prints nothing.

mod answer;
pub(crate) mod connection;
pub(crate) mod conversation;
pub(crate) mod handshake;
pub(crate) mod inflating;
pub(crate) mod ledger;
pub(crate) mod marker;
pub(crate) mod message;
pub(crate) mod pacing;
mod recent;
pub(crate) mod run;
pub(crate) mod sequence;
pub(crate) mod sizes;
pub(crate) mod template;
pub(crate) mod text;
pub(crate) mod topics;
pub(crate) mod trace;
pub(crate) mod vars;
pub(crate) mod visits;
pub(crate) mod worker;
