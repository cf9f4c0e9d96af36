//! How a connection goes from phase to phase: the only code that writes one, and all that has to change with it.
//!
//! Driven by the loop's turns, which say what has happened. Each step goes from certain phases only; from another it is
//! a mistake of the caller, which tests find.

use super::session::{Parked, Session};
use super::{Connection, Flags, Phase, Tick};
use crate::metrics::CloseReason;

impl Connection {
    /// Where in its life it is.
    #[must_use]
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// A head is there, and its body is awaited from `now` on.
    pub fn await_body(&mut self, now: Tick) {
        debug_assert_eq!(self.phase, Phase::Head);
        self.phase = Phase::Body;
        self.heard = now;
    }

    /// The body is whole: its request is to be answered.
    pub fn end_body(&mut self) {
        debug_assert_eq!(self.phase, Phase::Body);
        self.phase = Phase::Head;
    }

    /// The request waits for something.
    pub fn park(&mut self, parked: Parked, now: Tick) {
        debug_assert_eq!(self.phase, Phase::Head);
        self.phase = Phase::Parked;
        self.heard = now;
        self.session = Some(Box::new(Session::Parked(Box::new(parked))));
    }

    /// What it waits for has come nearer: it may take `ticks` more.
    pub fn extend_parking(&mut self, now: Tick, ticks: Tick) {
        if let Some(parked) = self.parked() {
            parked.due = now.saturating_add(ticks);
            self.heard = now;
        }
    }

    /// The process stood still until `at`: what was due since `heard` has its whole time from there on.
    pub fn resume_at(&mut self, at: Tick) {
        let missed = at.saturating_sub(self.heard);
        if missed == 0 {
            return;
        }
        self.heard = at;
        if let Some(parked) = self.parked() {
            parked.due = parked.due.saturating_add(missed);
        }
    }

    /// What it has waited for is there; what came behind it is the beginning of the next request. `None`: it does not
    /// wait.
    pub fn unpark(&mut self) -> Option<Parked> {
        if self.phase != Phase::Parked {
            return None;
        }
        self.phase = Phase::Head;
        let Session::Parked(mut parked) = *self.session.take()? else { return None };
        let held = std::mem::take(&mut parked.held);
        if !held.is_empty() {
            self.session = Some(Box::new(Session::Head(held)));
        }
        Some(*parked)
    }

    /// What it waits with.
    pub fn parked(&mut self) -> Option<&mut Parked> {
        match self.session.as_deref_mut() {
            Some(Session::Parked(parked)) => Some(parked),
            _ => None,
        }
    }

    /// The upgrade is done, and messages flow; it counts as heard at `heard`, which may lie ahead.
    pub fn open(&mut self, heard: Tick) {
        debug_assert_eq!(self.phase, Phase::Head);
        self.phase = Phase::Open;
        self.heard = heard;
        self.flags.clear(Flags::KEPT_ALIVE);
    }

    /// Our close frame goes out for this reason, and the peer's is awaited from `now` on. What the session had is
    /// dropped.
    pub fn start_closing(&mut self, reason: CloseReason, now: Tick) {
        debug_assert_eq!(self.phase, Phase::Open);
        self.phase = Phase::Closing;
        self.heard = now;
        self.session = Some(Box::new(Session::Closing(reason)));
    }

    /// The last bytes go out, and what still comes is discarded. Gives what the session had; what had arrived in part is
    /// dropped.
    pub fn linger(&mut self, now: Tick) -> Option<Box<Session>> {
        debug_assert_ne!(self.phase, Phase::Lingering);
        self.phase = Phase::Lingering;
        self.heard = now;
        self.inbox = None;
        self.flags.clear(Flags::PAUSED);
        self.session.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parked(held: &[u8]) -> Parked {
        Parked { held: held.to_vec(), ..Parked::new(60, true, false) }
    }

    #[test]
    fn what_came_behind_a_parked_request_is_the_next_one() {
        let mut connection = Connection::new(5);
        connection.park(parked(b"GET /next"), 7);
        assert_eq!((connection.phase(), connection.heard, connection.held_bytes()), (Phase::Parked, 7, 9));
        assert!(connection.unpark().is_some_and(|parked| parked.keep_alive && parked.held.is_empty()));
        assert!(matches!(connection.session.as_deref(), Some(Session::Head(held)) if held == b"GET /next"));
        assert!(connection.unpark().is_none(), "once");
        connection.park(parked(b""), 8);
        connection.unpark();
        assert!(connection.session.is_none(), "nothing came behind");
    }

    #[test]
    fn a_life_from_the_head_to_the_end() {
        let mut connection = Connection::new(1);
        connection.open(30);
        connection.start_closing(CloseReason::Admin, 40);
        assert_eq!((connection.phase(), connection.heard), (Phase::Closing, 40));
        let left = connection.linger(50);
        assert!(matches!(left.as_deref(), Some(Session::Closing(CloseReason::Admin))));
        assert_eq!((connection.phase(), connection.heard), (Phase::Lingering, 50));
    }
}
