//! The event loops: the only code that touches mio. Never parses.
//!
//! [`core`] is one loop without its kernel: slots, turns, fan-out, generic over the stream and the clock, so
//! that a simulation drives the very code that runs in production; [`turn`] has the order of its work. [`run`] is
//! the thin shell around it: one `Poll`, one listener, one mailbox. One file per turn.
//!
//! # Liveness rules
//!
//! 1. Drain to WouldBlock (a short read is drained unless the event said read-closed), or put the connection
//!    on the ready list in the same function.
//! 2. Clear the wake flag before draining the mailbox.
//! 3. Every turn has a budget in time and bytes; whoever exceeds it goes to the ready list, and events that were
//!    polled and not taken come before the next poll. Events and the ready list leave a fan-out its share, and
//!    it leaves them theirs. Handshakes of TLS have a budget of their own, behind all who are served.
//! 4. Keys carry slot and generation; a stale key is counted and ignored. Nothing is freed while its event
//!    is in hand.
//! 5. A peer that does not read what it asked for (echoes, pongs, answers) is not read from until its own answers
//!    have left; messages of topics neither begin nor prolong that. Stopping sets READ_OWED, and whatever ends the
//!    pause sees to the read turn. An accept stopped at a limit is owed too.
//! 6. Descriptors are counted before `accept`; ENFILE/ENOBUFS/ENOMEM: back off one tick. EAGAIN with nothing
//!    in the kernel's queue is memory pressure: next tick, never at once.
//! 7. Nothing grows without a named limit and a reason enum. Peer bytes never panic and never allocate more
//!    than has really arrived.

mod accept_log;
mod addresses;
mod admin_turn;
mod admission;
mod bearers;
mod blocked;
mod catch_up_turn;
mod closing;
pub mod core;
mod drain;
mod effects;
mod fanout_turn;
mod forward_turn;
mod frames_turn;
mod handshakes;
mod held;
mod hooks;
mod http_turn;
mod inquiry_turn;
mod layer;
pub mod listener;
mod parked;
mod placed;
mod poll_turn;
mod presence;
mod question_turn;
mod read_turn;
mod reload;
mod reload_requests;
mod relocate;
mod replaced;
mod reviewed;
pub mod run;
mod slice;
mod slots;
mod strangers;
mod subscribe;
mod sweep;
mod tcp_listening;
pub mod turn;
mod watching;
mod write_turn;

pub use admission::Arrival;
pub use slots::{PAGE_SLOTS, SWEEP_PERIOD, SlotTable};
