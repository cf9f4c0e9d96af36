//! What loops send each other besides messages and joins, and the router that carries it.

use std::sync::Arc;

use crate::auth::admission::holders::Taken;
use crate::connection::inquiry::Inquiry;
use crate::dialect::Form;
use crate::service::Verdict;
use crate::service::forward::Told;
use crate::topic;

/// An order to a loop that concerns no topic.
#[derive(Clone, Debug)]
pub enum Control {
    /// Give the listener up and send the clients away over the drain time.
    Drain,
    /// Stop at once.
    Stop,
    /// Move what connections hold, so that memory can be given back.
    Relocate,
    /// Other settings are in force; the loop fetches them.
    Reload,
    /// Answer a question of the admin loop.
    Inquire(Arc<Inquiry>),
}

/// What a connection is answered that has asked something.
#[derive(Clone, Debug)]
pub enum Answered {
    /// An inquiry that every loop has answered.
    Inquiry(Arc<Inquiry>),
    /// What the application says of a handshake.
    Verdict(Arc<Verdict>),
    /// What became of messages that went to the application.
    Forwarded(Vec<Told>),
    /// It has asked nothing: whom it belongs to has connected again, and it is the oldest of theirs.
    Replaced(Taken),
}

/// The mail of Fantail's loops.
#[derive(Debug)]
pub struct LoopMail;

impl topic::Mail for LoopMail {
    type Form = Form;
    type Control = Control;
    type Reply = Answered;
}

/// The router of all loops.
pub type Router = topic::Router<LoopMail>;

/// One loop's topics.
pub type LocalTopics = topic::LocalTopics<LoopMail>;
