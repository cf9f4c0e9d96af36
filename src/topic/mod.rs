//! Topics, their names and rules, subscriptions, mailboxes and the router. Never writes to a socket.
//!
//! One message's way: [`Draft::encode`] outside every lock → [`Router::publish`] gives it an offset
//! under its topic's lock and puts one reference into each interested loop's [`Mailbox`] → the loop
//! drains its mailbox into [`LocalTopics`], which hand it one subscriber after the other.
//!
//! Lock order: presence → directory → topic → mailbox. What uses locks or atomics reaches them through
//! [`sync`] alone, so that the model checker can put its own in their place.

mod batch;
pub mod budget;
pub mod check;
pub mod entry;
pub mod form;
pub mod history;
mod interest;
pub mod keeper;
pub mod level_pattern;
mod list;
pub mod mailbox;
pub mod message;
pub mod name;
pub mod outdated;
mod pacer;
pub mod pattern;
pub mod patterns;
pub mod position;
pub mod presence;
mod replay;
pub mod router;
pub mod rules;
pub mod schema;
mod schema_parts;
pub mod state;
mod strict;
pub mod subscriptions;
pub mod sync;
pub mod tap;
mod watchers;

pub use batch::{BATCH_BYTES_MAX, Batch, Choice};
pub use budget::{Fill, OutboxBudget};
pub use check::{Check, Invalid};
pub use entry::{Entry, Found, Join, Key, Letter, Mail, Place, Reply};
pub use form::{Carried, Deflate, Encoding, Form, Stamped};
pub use history::{HistoryBounds, KEPT_BESIDE_BYTES};
pub use keeper::{Histories, Keeper};
pub use level_pattern::{LevelPattern, PatternFault};
pub use mailbox::{Mailbox, MailboxLimits, ReserveFull};
pub use message::{Draft, Message, Origin};
pub use name::TopicName;
pub use outdated::Outdated;
pub use pattern::TopicPattern;
pub use position::{Gap, GapKind, Position, PositionError, Since};
pub use presence::{
    MEMBER_BYTES, MemberId, PresenceCounts, PresenceLimits, PresenceMember, PresenceMembers, PresencePage,
    Presences, STATE_BYTES, Saying, Seat, Seats, StateDenial, StateText,
};
pub use replay::Piece;
pub use router::{Busy, Maker, Operator, Router, RouterError, RouterLimits, Wake};
pub use rules::{Access, Handling, PresenceMode, PresencePolicy, SlowPolicy, TopicPolicy, TopicRules};
pub use schema::Schema;
pub use state::{CaughtUp, Joined, LOOPS_MAX, Page, PageFrom, Published, Rank, Topic};
pub use subscriptions::{LocalTopics, Moved, Turn, TurnBudget};
pub use tap::Tap;
pub use watchers::{Reach, Watch};

// Not inside the files they test: `tests/loom.rs` compiles those too, and outside a model loom's
// locks do not work.
#[cfg(test)]
mod budget_tests;
#[cfg(test)]
mod check_tests;
#[cfg(test)]
mod mailbox_tests;
#[cfg(test)]
mod patterns_tests;
#[cfg(test)]
mod router_tests;
#[cfg(test)]
mod rules_tests;
#[cfg(test)]
mod schema_tests;
