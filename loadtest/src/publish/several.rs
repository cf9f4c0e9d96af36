//! Publishing every message to several servers, some of which may be away for a while.
//!
//! Each has a publisher of its own, so that none waits for another. A server that does not answer is asked again with the
//! next message. A kept connection that breaks may be one to a process that has been replaced since, so that its message
//! is posted once more; an `Idempotency-Key` keeps a server from publishing it twice. What each message has come to at all
//! of them is put together on a [`Board`].

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Serialize;

use super::account::Job;
use super::{Publisher, Wanted};
use crate::base::interrupt;
use crate::base::schedule::Schedule;
use crate::base::secrets;
use crate::engine::ledger::Ledger;
use crate::engine::visits::Bulletin;
use crate::engine::worker::{OfTopic, Plan};
use crate::result::course::Course;

/// What became of the messages at one server.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct ServerReport {
    /// Where it was published to.
    pub(crate) url: String,
    /// Messages it took.
    pub(crate) accepted: u64,
    /// Messages it did not take, or did not answer to, by kind: a server that is restarted is away for a while.
    pub(crate) errors: BTreeMap<String, u64>,
}

/// What became of all messages.
#[derive(Clone, Debug, Default)]
pub(crate) struct PublishedToAll {
    /// Messages that came to their turn before the run ended.
    pub(crate) attempted: u64,
    /// Those that at least one server took.
    pub(crate) count: u64,
    /// Requests whose lateness was looked at: one for each message and server.
    pub(crate) sends: u64,
    /// Requests that left more than 1 ms after their planned time.
    pub(crate) late_sends: u64,
    /// Of these, those that had not to wait for a connection.
    pub(crate) late_own: u64,
    /// When messages left, and which the publisher itself made late.
    pub(crate) by_send: Course,
    /// Requests that waited for a connection for more than 1 ms.
    pub(crate) waited: u64,
    /// For how long at least one such request to a server waited, of the server where it was longest.
    pub(crate) waiting_ns: u64,
    /// How late the latest left.
    pub(crate) late_max_ns: u64,
    /// Messages by topic.
    pub(crate) topics: Vec<OfTopic>,
    /// By server.
    pub(crate) servers: Vec<ServerReport>,
}

/// How far each message is at all servers together.
#[derive(Debug)]
pub(crate) struct Board {
    bulletins: Arc<Vec<Bulletin>>,
    ledger: Option<Arc<Ledger>>,
    state: Mutex<Under>,
}

#[derive(Debug, Default)]
struct Under {
    /// Servers that have not answered yet, and whether one took it, of messages by topic and number.
    way: HashMap<(u32, u32), (usize, bool)>,
    taken: u64,
    topics: Vec<OfTopic>,
}

/// Publishers of all servers.
#[derive(Debug)]
pub(crate) struct Several {
    servers: Vec<(String, Publisher)>,
    board: Arc<Board>,
}

impl Board {
    fn new(plan: &Plan) -> Self {
        let bulletins = plan.bulletins.clone().unwrap_or_default();
        let topics = vec![OfTopic::default(); bulletins.len()];
        let state = Mutex::new(Under { topics, ..Under::default() });
        Self { bulletins, ledger: plan.ledger.clone(), state }
    }

    /// The next message of a topic leaves for so many servers; its number.
    fn on_begin(&self, topic: u32, servers: usize, now_ns: u64) -> Option<u32> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let of = state.topics.get_mut(topic as usize)?;
        let number = of.numbers;
        of.numbers += 1;
        state.way.insert((topic, number), (servers, false));
        self.bulletins.get(topic as usize)?.on_begin(number.into());
        if let Some(ledger) = &self.ledger {
            ledger.on_begin(topic, number, now_ns);
        }
        Some(number)
    }

    /// A server has taken a message, or has not.
    pub(super) fn on_outcome(&self, topic: u32, number: u32, taken: bool, now_ns: u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((left, any)) = state.way.get_mut(&(topic, number)) else { return };
        *left -= 1;
        *any |= taken;
        if *left > 0 {
            return;
        }
        let any = *any;
        state.way.remove(&(topic, number));
        let Some(bulletin) = self.bulletins.get(topic as usize) else { return };
        if any {
            state.taken += 1;
            bulletin.on_done(number.into(), now_ns);
        } else {
            bulletin.on_refused(number.into());
            if let Some(of) = state.topics.get_mut(topic as usize) {
                let place = of.refused.partition_point(|refused| *refused < number);
                of.refused.insert(place, number);
            }
        }
        if let Some(ledger) = &self.ledger {
            ledger.on_done(topic, number, now_ns);
        }
    }
}

impl Several {
    /// To these servers. Nothing is connected yet.
    pub(crate) fn new(wanted: Vec<(String, Wanted)>, plan: &Arc<Plan>) -> Result<Self, String> {
        let board = Arc::new(Board::new(plan));
        let server = |(url, wanted): (String, Wanted)| {
            let publisher = Publisher::start_sharing(plan.clone(), &wanted, Some(board.clone()));
            Ok((secrets::url(&url), publisher.map_err(|error| error.to_string())?))
        };
        let servers = wanted.into_iter().map(server).collect::<Result<_, String>>()?;
        Ok(Self { servers, board })
    }

    /// Publishes to each topic the message that tells who is subscribed; every server has to take it.
    pub(crate) fn probe(&mut self) -> Result<(), String> {
        for (url, publisher) in &mut self.servers {
            publisher.probe().map_err(|error| format!("{url}: {error}"))?;
        }
        Ok(())
    }

    /// Opens as many connections as the rate is going to need.
    pub(crate) fn prepare(&mut self, rate: f64) -> Result<(), String> {
        for (url, publisher) in &mut self.servers {
            publisher.prepare(rate, 1).map_err(|error| format!("{url}: {error}"))?;
        }
        Ok(())
    }

    /// Publishes the whole job to all servers, each message when it is planned.
    pub(crate) fn run(mut self, plan: &Plan, schedule: &Schedule) -> PublishedToAll {
        let topics = u64::from(plan.conversation.topics().count()).max(1);
        let mut published = PublishedToAll::default();
        for index in 0..schedule.count() {
            let planned_ns = schedule.planned_ns(index);
            if !plan.clock.sleep_until(planned_ns, interrupt::requested) {
                break;
            }
            published.attempted += 1;
            let topic = (index % topics) as u32;
            let now_ns = plan.clock.now_ns();
            let late_ns = now_ns.saturating_sub(planned_ns);
            published.by_send.on_turn(planned_ns, late_ns);
            published.by_send.on_left(planned_ns, late_ns);
            let Some(number) = self.board.on_begin(topic, self.servers.len(), now_ns) else { break };
            let job = Job::numbered(topic, number, planned_ns);
            for (_, publisher) in &mut self.servers {
                publisher.submit(job, late_ns);
            }
        }
        for (url, mut publisher) in self.servers {
            let one = publisher.finish();
            published.sends += one.attempted;
            published.by_send.merge_waits(&one.by_send);
            published.late_sends += one.late_sends;
            published.late_own += one.late_own;
            published.waited += one.waited;
            published.waiting_ns = published.waiting_ns.max(one.waiting_ns);
            published.late_max_ns = published.late_max_ns.max(one.late_max_ns);
            let accepted = one.count.saturating_sub(one.unknown);
            published.servers.push(ServerReport { url, accepted, errors: one.errors });
        }
        let state = self.board.state.lock().unwrap_or_else(PoisonError::into_inner);
        published.count = state.taken;
        published.topics.clone_from(&state.topics);
        published
    }
}
