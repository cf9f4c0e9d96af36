//! The publisher of `fanout`: sends messages at their planned times, over HTTP or one WebSocket.
//!
//! It runs in a thread of its own with blocking sockets, in main's descriptor table. A message that the
//! server refuses leaves its number to the next one, so that subscribers do not miss what never was.

mod http;
pub(crate) mod several;
mod ws;

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::sync::Arc;

use crate::base::interrupt;
use crate::base::schedule::{LATE_NS, Schedule};
use crate::engine::conversation::Conversation;
use crate::engine::message::{self, PROBE_SEQUENCE, Shape, Stamp};
use crate::engine::template::Template;
use crate::engine::worker::Plan;
use crate::net::target::{Scheme, Target};
use crate::tls::Tls;

/// Where messages go.
#[derive(Debug)]
pub(crate) enum Publisher {
    /// One POST per message.
    Http(http::HttpPublisher),
    /// One frame per message.
    Ws(ws::WsPublisher),
}

/// Why a message was not published.
#[derive(Debug)]
pub(crate) enum PublishError {
    /// The server answered with this HTTP status; nobody gets the message.
    Refused(u16),
    /// The server closed the WebSocket with this code before the message; nobody gets it.
    Closed(u16),
    /// There was no connection on which to send the message; nobody gets it.
    Unreached(io::Error),
    /// Nobody knows whether the server took the message.
    Unknown(io::Error),
}

/// What the publisher did.
#[derive(Clone, Debug, Default)]
pub(crate) struct Published {
    /// Messages that came to their turn before the run ended.
    pub(crate) attempted: u64,
    /// Messages that subscribers should have got, counting those of unknown fate.
    pub(crate) count: u64,
    /// Messages whose fate is unknown.
    pub(crate) unknown: u64,
    /// Sends that left more than 1 ms after their planned time.
    pub(crate) late_sends: u64,
    /// Of these, those that had not to wait for the answer to the one before.
    pub(crate) late_own: u64,
    /// How late the latest send left.
    pub(crate) late_max_ns: u64,
    /// Refusals and errors by name.
    pub(crate) errors: BTreeMap<String, u64>,
}

impl Publisher {
    /// Connects, over `tls` if the target is one of TLS, for messages of this `shape`. A WebSocket says the
    /// `conversation`'s headers and hello.
    pub(crate) fn connect(
        target: Target,
        tls: Option<Arc<Tls>>,
        shape: Shape,
        conversation: &Conversation,
    ) -> Result<Self, PublishError> {
        let binary = shape.is_binary();
        match target.scheme {
            Scheme::Http => {
                let json = conversation.template().is_some_and(Template::is_json);
                Ok(Self::Http(http::HttpPublisher::connect(target, tls, binary)?.with_json(json)))
            }
            Scheme::Ws => {
                Ok(Self::Ws(ws::WsPublisher::connect(&target, tls.as_deref(), binary, conversation)?))
            }
        }
    }

    /// Publishes the message that tells who is subscribed and counts nowhere.
    pub(crate) fn probe(&mut self, plan: &Plan) -> Result<(), PublishError> {
        let mut payload = Vec::new();
        let planned_ns = plan.clock.now_ns();
        let stamp = Stamp { stream: plan.run_id, sequence: PROBE_SEQUENCE, planned_ns };
        message::write_message(&stamp, plan.shape, &plan.conversation.around(0), &mut payload);
        self.publish(&payload)
    }

    /// Publishes what is planned when it is due and returns what became of it.
    pub(crate) fn run(&mut self, plan: &Plan, schedule: Schedule) -> Published {
        let mut published = Published::default();
        let mut payload = Vec::new();
        // The publisher has the number of the first connection.
        let around = plan.conversation.around(0);
        let mut free_ns = 0;
        for tick in 0..schedule.ticks() {
            for index in schedule.messages_of_tick(tick) {
                let planned_ns = schedule.planned_ns(index);
                if !plan.clock.sleep_until(planned_ns, interrupt::requested) {
                    return published;
                }
                published.attempted += 1;
                let now_ns = plan.clock.now_ns();
                let late_ns = now_ns.saturating_sub(planned_ns);
                published.late_max_ns = published.late_max_ns.max(late_ns);
                published.late_sends += u64::from(late_ns > LATE_NS);
                let late_own_ns = now_ns.saturating_sub(planned_ns.max(free_ns));
                published.late_own += u64::from(late_own_ns > LATE_NS);
                payload.clear();
                let stamp = Stamp { stream: plan.run_id, sequence: published.count, planned_ns };
                message::write_message(&stamp, plan.shape, &around, &mut payload);
                match self.publish(&payload) {
                    Ok(()) => published.count += 1,
                    Err(error) => {
                        *published.errors.entry(error.name()).or_default() += 1;
                        if matches!(error, PublishError::Unknown(_)) {
                            published.count += 1;
                            published.unknown += 1;
                        }
                    }
                }
                free_ns = plan.clock.now_ns();
            }
        }
        published
    }

    fn publish(&mut self, payload: &[u8]) -> Result<(), PublishError> {
        match self {
            Self::Http(http) => http.publish(payload),
            Self::Ws(ws) => ws.publish(payload),
        }
    }
}

impl PublishError {
    /// A stable name.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Refused(status) => format!("status_{status}"),
            Self::Closed(code) => format!("closed_{code}"),
            Self::Unreached(error) | Self::Unknown(error) => format!("{:?}", error.kind()).to_lowercase(),
        }
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(status) => write!(out, "refused with status {status}"),
            Self::Closed(code) => write!(out, "closed by the server with code {code}"),
            Self::Unreached(error) | Self::Unknown(error) => error.fmt(out),
        }
    }
}

impl From<io::Error> for PublishError {
    fn from(error: io::Error) -> Self {
        Self::Unknown(error)
    }
}
