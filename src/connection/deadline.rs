//! The one deadline of a connection: the nearest of all its timeouts, computed here and nowhere else.
//!
//! The event loop calls [`next`] after a turn changed something and finds what is due by a sweep. Never
//! reads a clock.

use super::session::Session;
use super::{Connection, Flags, Phase, Tick};
use crate::dialect::{Carrier, Dialect};

/// How long a request of the admin port may be without progress: as long as a loop may be without a turn
/// before it counts as stuck.
pub const ANSWER_TICKS: Tick = 50;

/// What is due when the deadline strikes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Due {
    /// Never.
    Nothing,
    /// The head or body did not arrive.
    Handshake,
    /// What a request waits for did not come.
    Answer,
    /// No further request on a kept-alive connection.
    KeepAlive,
    /// The peer was silent: ping it.
    Ping,
    /// The ping was not answered.
    Pong,
    /// The rates' buckets are full again: there is nothing to remember of them.
    Debts,
    /// The bearer's token ends, or soon does.
    Token,
    /// The outbox made no progress.
    Write,
    /// The peer's close frame did not come.
    Close,
    /// Lingering is over.
    Linger,
}

/// Every timeout in ticks; 0 turns one off.
#[derive(Clone, Copy, Debug)]
pub struct TimeoutTicks {
    /// For a head or body to arrive.
    pub handshake: Tick,
    /// Between requests.
    pub keep_alive: Tick,
    /// Silence before a ping.
    pub heartbeat: Tick,
    /// Between two comments of a stream.
    pub sse_heartbeat: Tick,
    /// For a ping to be answered.
    pub pong: Tick,
    /// For an outbox to make progress.
    pub write: Tick,
    /// For the peer's close frame.
    pub close: Tick,
    /// For the peer's end of stream.
    pub linger: Tick,
    /// Before the end of a token, when its bearer is told.
    pub token_notice: Tick,
    /// Behind the end of a token.
    pub token_grace: Tick,
}

impl TimeoutTicks {
    /// After how long a connection that speaks this dialect is shown a sign of life.
    #[must_use]
    pub fn heartbeat_of(&self, dialect: Dialect) -> Tick {
        match dialect.carrier() {
            Carrier::Frames => self.heartbeat,
            Carrier::Body | Carrier::Answer => self.sse_heartbeat,
        }
    }
}

/// The nearest timeout of `connection` and its reason; `token` is when something is due for its bearer's token, which only
/// an open connection outlives.
#[must_use]
pub fn next(connection: &Connection, ticks: &TimeoutTicks, token: Tick) -> (Tick, Due) {
    let at = |base: Tick, span: Tick, due: Due| {
        if span == 0 { (Tick::MAX, Due::Nothing) } else { (base.saturating_add(span), due) }
    };
    let phase = match connection.phase {
        // Nothing is read from a peer that has not taken its answers yet, so nothing of it can be late.
        Phase::Head | Phase::Body if connection.flags.has(Flags::PAUSED) => (Tick::MAX, Due::Nothing),
        Phase::Head if connection.flags.has(Flags::KEPT_ALIVE) && connection.session.is_none() => {
            at(connection.heard, ticks.keep_alive, Due::KeepAlive)
        }
        // A refused peer that says nothing is answered as soon as one that says something would be forgotten.
        Phase::Head if connection.flags.has(Flags::REFUSED) => {
            at(connection.heard, ticks.linger, Due::Handshake)
        }
        Phase::Head | Phase::Body => at(connection.heard, ticks.handshake, Due::Handshake),
        // A peer that does not read the answer is the write timeout's.
        Phase::Parked if connection.has_backlog() => (Tick::MAX, Due::Nothing),
        Phase::Parked => match connection.session.as_deref() {
            Some(Session::Parked(parked)) => (parked.due, Due::Answer),
            _ => (Tick::MAX, Due::Nothing),
        },
        Phase::Open if connection.flags.has(Flags::PINGED) => at(connection.heard, ticks.pong, Due::Pong),
        Phase::Open => at(connection.heard, ticks.heartbeat_of(connection.dialect), Due::Ping),
        Phase::Closing => at(connection.heard, ticks.close, Due::Close),
        // The linger time starts when the last byte is out; until then the write timeout rules.
        Phase::Lingering if connection.has_backlog() => (Tick::MAX, Due::Nothing),
        Phase::Lingering => at(connection.heard, ticks.linger, Due::Linger),
    };
    let phase = match connection.session.as_deref() {
        Some(Session::Open(open)) => match open.debts.until() {
            Some(until) if until < phase.0 => (until, Due::Debts),
            _ => phase,
        },
        _ => phase,
    };
    let phase = match connection.phase {
        Phase::Open if token < phase.0 => (token, Due::Token),
        _ => phase,
    };
    match &connection.outbox {
        Some(outbox) => {
            let write = at(outbox.progress, ticks.write, Due::Write);
            if write.0 < phase.0 { write } else { phase }
        }
        None => phase,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::outbox::Outbox;

    const TICKS: TimeoutTicks = TimeoutTicks {
        handshake: 100,
        keep_alive: 150,
        heartbeat: 250,
        sse_heartbeat: 150,
        pong: 90,
        write: 80,
        close: 50,
        linger: 20,
        token_notice: 600,
        token_grace: 100,
    };

    #[test]
    fn the_nearest_timeout_wins() {
        let mut connection = Connection::new(1_000);
        assert_eq!(next(&connection, &TICKS, Tick::MAX), (1_100, Due::Handshake));
        connection.phase = Phase::Open;
        assert_eq!(next(&connection, &TICKS, Tick::MAX), (1_150, Due::Ping), "of what has no frames");
        connection.dialect = Dialect::Plain;
        assert_eq!(next(&connection, &TICKS, Tick::MAX), (1_250, Due::Ping));
        connection.outbox = Some(Box::new(Outbox::new(1_100, connection.encoding())));
        assert_eq!(next(&connection, &TICKS, Tick::MAX), (1_180, Due::Write));
        connection.flags.set(Flags::PINGED);
        assert_eq!(next(&connection, &TICKS, Tick::MAX), (1_090, Due::Pong));
    }

    #[test]
    fn a_peer_that_is_not_read_from_is_the_write_timeouts() {
        let mut connection = Connection::new(1_000);
        connection.flags.set(Flags::KEPT_ALIVE);
        assert_eq!(next(&connection, &TICKS, Tick::MAX), (1_150, Due::KeepAlive));
        connection.flags.set(Flags::PAUSED);
        connection.outbox = Some(Box::new(Outbox::new(1_300, connection.encoding())));
        assert_eq!(next(&connection, &TICKS, Tick::MAX), (1_380, Due::Write));
        connection.session = Some(Box::new(Session::Head(b"GET / HT".to_vec())));
        assert_eq!(next(&connection, &TICKS, Tick::MAX), (1_380, Due::Write));
        connection.phase = Phase::Body;
        assert_eq!(next(&connection, &TICKS, Tick::MAX), (1_380, Due::Write));
    }

    #[test]
    fn zero_turns_a_timeout_off() {
        let mut connection = Connection::new(5);
        connection.phase = Phase::Open;
        connection.dialect = Dialect::Plain;
        let off = TimeoutTicks { heartbeat: 0, ..TICKS };
        assert_eq!(next(&connection, &off, Tick::MAX), (Tick::MAX, Due::Nothing));
    }

    #[test]
    fn a_token_ends_an_open_connection_however_lively_it_is() {
        let mut connection = Connection::new(1_000);
        assert_eq!(next(&connection, &TICKS, 1_010), (1_100, Due::Handshake), "a request is not open");
        connection.phase = Phase::Open;
        connection.dialect = Dialect::Plain;
        assert_eq!(next(&connection, &TICKS, 1_010), (1_010, Due::Token));
        assert_eq!(next(&connection, &TICKS, 1_400), (1_250, Due::Ping));
        connection.outbox = Some(Box::new(Outbox::new(900, connection.encoding())));
        assert_eq!(next(&connection, &TICKS, 1_010), (980, Due::Write));
    }
}
