//! The chat as its users have it: the real program with its edge and its database, over real sockets.

mod accounts;
mod attacks;
mod bounds;
mod delivery;
mod kit;
mod outages;
mod postgres;
mod private;
mod rooms;
#[path = "../../../tests/skip/mod.rs"]
mod skip;
mod tail;
