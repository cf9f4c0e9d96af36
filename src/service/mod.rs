//! What Fantail asks and tells others over HTTP: calls that may block, and what becomes of them.
//!
//! Runs on threads of its own, which live in the descriptor table of the main thread; loops ask and are answered by mail.
//! A [`Caller`] makes calls to one address; a [`Breaker`] says when not to make any; [`Backend`] asks the application about
//! handshakes; [`KeySets`] fetches keys of issuers; [`Forward`](forward::Forward) gives it what clients send. Never knows a connection or a loop.

mod backend;
mod breaker;
mod caller;
mod desk;
pub mod forward;
mod jwks;
#[cfg(test)]
mod kit;
mod names;
mod question;
pub mod webhook;

pub use backend::{Backend, BackendPlan};
pub use breaker::{Breaker, State};
pub use caller::{ANSWER_BYTES_MAX, Answer, CallError, Caller, Plan, Request, check_url};
pub use desk::{Asked, Asker, Digest, Verdict};
pub use jwks::{KeySets, check_jwks_url, fetch_once};
pub use question::{Handshake, may_pass};
