//! Who connections belong to: the identities of those who have shown a token, in a table beside the slots, so that the
//! others pay nothing for it.
//!
//! Filled by the request turn and by effects, emptied as slots are given back. Asked by whoever is about to do something in
//! a connection's name, and by the one deadline of each connection, which ends it with its token.

use std::collections::HashMap;
use std::sync::Arc;

use super::closing::Words;
use super::core::Core;
use super::effects::{Sink, Speaker, Then};
use crate::auth::Identity;
use crate::auth::admission::holders::Holders;
use crate::auth::identity::{Denied, Right, SharedRights, permit};
use crate::auth::token::{Asked, Claims, Refusal};
use crate::connection::deadline::TimeoutTicks;
use crate::connection::{TICK_MS, Tick};
use crate::dialect::{Outcome, Token, TokenDenial};
use crate::metrics::{CloseReason, RefuseReason};
use crate::topic::{Access, Key};
use crate::transport::Socket;

/// Room that the table keeps when almost everybody has left.
const KEPT: usize = 64;

/// Tokens in messages that are checked in one turn: of the slowest keys, about as long as events may take beside each other.
pub(super) const CHECKS_PER_TURN: u32 = 8;

/// Ticks of one second.
const TICKS_PER_SECOND: u64 = 1_000 / TICK_MS;

/// Who bears the token of one connection.
#[derive(Debug)]
struct Bearer {
    identity: Arc<Identity>,
    /// When the token ends, or later where its bearer is to be told later; `Tick::MAX` once they were told that it does soon.
    expires: Tick,
    /// When it is not taken any more.
    ends: Tick,
}

/// Everybody on one loop who has shown a token, by slot.
#[derive(Debug, Default)]
pub(super) struct Bearers {
    by_slot: HashMap<u32, Bearer>,
    shared: SharedRights,
}

impl Bearers {
    /// Whom the connection in this slot belongs to, if it has shown a token.
    #[must_use]
    pub(super) fn identity(&self, slot: u32) -> Option<&Arc<Identity>> {
        // Where nobody has one, nothing is looked up.
        if self.by_slot.is_empty() {
            return None;
        }
        self.by_slot.get(&slot).map(|bearer| &bearer.identity)
    }

    /// The connection in this slot belongs to whom these claims speak of, from now on: `now` in ticks, and in seconds since
    /// 1970. `false`: that one has as many connections as may be, and it stays nobody's.
    #[must_use]
    fn note(
        &mut self,
        (loop_index, slot): (usize, u32),
        claims: Claims,
        now: (Tick, u64),
        may_replace: bool,
        holders: &Holders,
    ) -> bool {
        let (expires, ends) = (tick_of(claims.expires, now), tick_of(claims.good_until, now));
        // Who brings another token is counted already.
        let is_known = self.by_slot.get(&slot).is_some_and(|known| known.identity.is_meant_by(&claims));
        let identity = Identity::new(claims, &mut self.shared);
        if !is_known {
            self.forget(loop_index, slot, holders);
            if !holders.try_enter(&identity, loop_index, slot, now.0, may_replace) {
                return false;
            }
        }
        self.by_slot.insert(slot, Bearer { identity, expires, ends });
        true
    }

    /// Puts off telling who has just brought another token: one that lives no longer than the notice would be told to end at
    /// once, and who answers that with the next would never stop. Halfway is soon enough.
    fn tell_halfway(&mut self, slot: u32, now: Tick, timeouts: &TimeoutTicks) {
        if let Some(bearer) = self.by_slot.get_mut(&slot) {
            let half = (bearer.expires.saturating_sub(now) / 2).max(TICKS_PER_SECOND as Tick);
            let earliest = now.saturating_add(half).saturating_add(timeouts.token_notice);
            bearer.expires = bearer.expires.max(earliest);
        }
    }

    /// The connection belongs to nobody any more.
    fn forget(&mut self, loop_index: usize, slot: u32, holders: &Holders) {
        let Some(bearer) = self.by_slot.remove(&slot) else { return };
        holders.leave(&bearer.identity, loop_index, slot);
        if self.by_slot.len() < self.by_slot.capacity() / 4 {
            self.by_slot.shrink_to((self.by_slot.len() * 2).max(KEPT));
        }
    }

    /// Whether a connection has a right, by what the rule says of it and by its token.
    pub(super) fn permit(&self, key: Key, access: Access, right: Right<'_>) -> Result<(), Denied> {
        permit(access, self.identity(key.slot).map(Arc::as_ref), right)
    }

    /// When something is due for the token of the connection in this slot; `Tick::MAX` without one.
    #[must_use]
    pub(super) fn due(&self, slot: u32, timeouts: &TimeoutTicks) -> Tick {
        if self.by_slot.is_empty() {
            return Tick::MAX;
        }
        let Some(bearer) = self.by_slot.get(&slot) else { return Tick::MAX };
        let ends = bearer.ends.saturating_add(timeouts.token_grace);
        if bearer.expires == Tick::MAX || timeouts.token_notice == 0 {
            return ends;
        }
        bearer.expires.saturating_sub(timeouts.token_notice).min(ends)
    }

    /// When the token of the connection in this slot, and the grace behind it, is over; `Tick::MAX` without one.
    #[must_use]
    pub(super) fn ends(&self, slot: u32, timeouts: &TimeoutTicks) -> Tick {
        let ends = self.by_slot.get(&slot).map_or(Tick::MAX, |bearer| bearer.ends);
        ends.saturating_add(timeouts.token_grace)
    }

    /// Bytes that the identity in this slot takes, its place in the table included.
    #[must_use]
    pub(super) fn memory(&self, slot: u32) -> usize {
        let entry = size_of::<(u32, Bearer)>() + 1;
        self.identity(slot).map_or(0, |identity| identity.memory() + entry)
    }
}

/// The tick of a time in seconds since 1970, by what both are now. One that is over is now.
fn tick_of(seconds: u64, (now, now_seconds): (Tick, u64)) -> Tick {
    let ticks = seconds.saturating_sub(now_seconds).saturating_mul(TICKS_PER_SECOND);
    now.saturating_add(Tick::try_from(ticks).unwrap_or(Tick::MAX))
}

impl<S: Socket> Core<S> {
    /// The connection belongs to whom these claims speak of. `may_replace`: whether others of theirs may give way to it, by
    /// [`Self::replace_oldest`] once nothing else stands in the way.
    ///
    /// # Errors
    /// That one has as many connections as may be, and it stays nobody's.
    pub(super) fn note_bearer(
        &mut self,
        key: Key,
        claims: Claims,
        may_replace: bool,
    ) -> Result<(), RefuseReason> {
        let now = (self.now, self.wall.ms() / 1_000);
        let place = (self.index, key.slot);
        let noted = self.bearers.note(place, claims, now, may_replace, &self.edition.holders);
        if noted { Ok(()) } else { Err(RefuseReason::TooManyOfIdentity) }
    }

    /// The connection in this slot belongs to nobody any more.
    pub(super) fn forget_bearer(&mut self, slot: u32) {
        self.bearers.forget(self.index, slot, &self.edition.holders);
    }

    /// Tells a connection that its token ends soon, or ends it.
    pub(super) fn on_token_due(&mut self, key: Key) {
        let Some(bearer) = self.bearers.by_slot.get_mut(&key.slot) else { return };
        if self.now < bearer.ends.saturating_add(self.timeouts.token_grace) {
            bearer.expires = Tick::MAX;
            let at = bearer.identity.expires();
            self.tell_unasked(key, [Outcome::Expires { at }]);
            return self.rearm(key.slot);
        }
        self.close(key, CloseReason::TokenExpired, Words::Own);
    }

    /// Takes a token that came in a message, and tells the dialect what came of it.
    pub(super) fn identify_one(
        &mut self,
        from: Speaker,
        token: &Token,
        again: bool,
        sink: &mut Sink<'_>,
    ) -> Then {
        let checks_left = self.checks_left;
        let before = self.bearers.identity(from.key.slot).map(Arc::clone);
        let identified = self.identify(from.key, token, again).and_then(|claims| {
            let too_many = |reason: RefuseReason| (TokenDenial::Busy, reason.text().to_owned());
            self.note_bearer(from.key, claims, true).map_err(too_many)
        });
        match identified {
            Ok(()) => {
                if again {
                    self.bearers.tell_halfway(from.key.slot, self.now, &self.timeouts);
                }
                self.rearm(from.key.slot);
                self.replace_oldest(from.key.slot);
                let Some(identity) = self.bearers.identity(from.key.slot).map(Arc::clone) else {
                    return Then::Go;
                };
                let (sub, expires) = (identity.sub(), identity.expires());
                self.tell(from, Outcome::Identified { sub, expires, again }, sink);
                self.end_what_is_lost(from, before.as_deref(), sink);
            }
            Err((denial, text)) => {
                self.tell(from, Outcome::Unidentified { denial, text: &text }, sink);
                if self.checks_left < checks_left {
                    // Checks are few and everybody's: who has them made for nothing, again and again, is sent away.
                    return self.count_bad(from.key);
                }
            }
        }
        Then::Go
    }

    /// Counts how signatures were checked since the last call. How many were computed.
    pub(super) fn count_signatures(&mut self) -> u64 {
        let Asked { computed, known } = self.signatures.take_asked();
        self.counters.signatures_computed.add(computed);
        self.counters.signatures_known.add(known);
        computed
    }

    fn identify(&mut self, key: Key, token: &Token, again: bool) -> Result<Claims, (TokenDenial, String)> {
        let not_now = |text: &str| Err((TokenDenial::NotNow, text.to_owned()));
        let Some(issuers) = self.edition.issuers.as_deref() else {
            return not_now("this server asks for no tokens");
        };
        let known = self.bearers.identity(key.slot).map(Arc::clone);
        match (&known, again) {
            (None, true) => return not_now("there is no token yet; authenticate first"),
            (Some(_), false) => {
                return not_now("the connection belongs to somebody already; refresh instead");
            }
            _ => {}
        }
        if self.checks_left == 0 {
            return Err((TokenDenial::Busy, "too many tokens at once; try again".to_owned()));
        }
        self.checks_left -= 1;
        let now = self.wall.ms() / 1_000;
        self.signatures.set_room(self.edition.settings.auth.signatures_known_max);
        let checked = issuers.check_with(token.as_str(), now, &mut self.signatures);
        self.count_signatures();
        match checked {
            Ok(claims) if self.edition.revocations.has(&claims, now) => {
                Err((TokenDenial::Invalid, "the token was revoked".to_owned()))
            }
            Ok(claims) if known.is_some_and(|known| !known.is_meant_by(&claims)) => {
                not_now("the token is somebody else's")
            }
            Ok(claims) => Ok(claims),
            Err(refusal) => {
                let denial = match refusal {
                    Refusal::Expired => TokenDenial::Expired,
                    Refusal::Awaited => TokenDenial::Busy,
                    _ => TokenDenial::Invalid,
                };
                Err((denial, format!("the token is not taken: {refusal}")))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::admission::holders::WhenFull;

    fn claims(sub: &str, jti: Option<&str>, expires: u64) -> Claims {
        Claims {
            sub: sub.into(),
            subscribe: None,
            publish: None,
            expires,
            good_until: expires + 30,
            issued: None,
            jti: jti.map(Into::into),
            issuer: None,
            carried: None,
        }
    }

    #[test]
    fn whoever_has_shown_a_token_costs_less_than_two_hundred_bytes() {
        let mut bearers = Bearers::default();
        let claims = claims("user-0123456789", Some("f81d4fae-7dec-11d0-a765-00a0c91e6bf6"), 2_000);
        let holders = Holders::new(0, WhenFull::Refuse);
        assert!(bearers.note((0, 7), claims, (0, 1_000), true, &holders));
        // A table that has just grown is seven sixteenths full; an allocation has sixteen bytes of its own at most.
        let entry = size_of::<(u32, Bearer)>() + 1;
        let worst = bearers.memory(7) + (entry * 16).div_ceil(7) - entry + 2 * 16;
        assert!(worst <= 200, "{worst}");
        assert_eq!((bearers.memory(8), bearers.identity(8)), (0, None));
        bearers.forget(0, 7, &holders);
        assert_eq!(bearers.identity(7), None);
    }

    #[test]
    fn a_refreshed_token_that_is_short_is_told_halfway() {
        let timeouts = TimeoutTicks {
            handshake: 0,
            keep_alive: 0,
            heartbeat: 0,
            sse_heartbeat: 0,
            pong: 0,
            write: 0,
            close: 0,
            linger: 0,
            token_notice: 600,
            token_grace: 0,
        };
        for (expires, at_once, put_off) in
            [(1_030, 0, 150), (1_300, 2_400, 2_400), (1_100, 400, 500), (990, 0, 10)]
        {
            let mut bearers = Bearers::default();
            assert!(bearers.note(
                (0, 7),
                claims("alice", None, expires),
                (0, 1_000),
                true,
                &Holders::new(0, WhenFull::Refuse)
            ));
            assert_eq!(bearers.due(7, &timeouts), at_once, "{expires}");
            bearers.tell_halfway(7, 0, &timeouts);
            assert_eq!(bearers.due(7, &timeouts), put_off, "{expires}");
        }
    }

    #[test]
    fn a_refresh_is_no_further_connection_and_an_end_makes_room() {
        let holders = Holders::new(1, WhenFull::Refuse);
        let mut bearers = Bearers::default();
        let mut note =
            |slot, sub| bearers.note((0, slot), claims(sub, None, 1_100), (0, 1_000), true, &holders);
        assert_eq!(
            [note(7, "alice"), note(7, "alice"), note(8, "alice"), note(8, "bob")],
            [true, true, false, true]
        );
        assert!(note(8, "carol"), "a slot that is somebody else's now is not the one's before");
        assert!(note(9, "bob"));
        bearers.forget(0, 7, &holders);
        assert_eq!(bearers.identity(7), None);
        assert!(bearers.note((0, 9), claims("alice", None, 1_100), (0, 1_000), true, &holders));
    }

    #[test]
    fn times_are_told_by_both_clocks() {
        assert_eq!(tick_of(1_060, (50, 1_000)), 650);
        assert_eq!(tick_of(900, (50, 1_000)), 50, "what is over is now");
        assert_eq!(tick_of(u64::MAX, (50, 1_000)), Tick::MAX);
    }
}
