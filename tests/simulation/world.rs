//! Two client loops and the admin loop, a shared router, and chance: which peer does what, which loop turns, what
//! time it is.
//!
//! A loop is turned only when its poll would return: an edge, a wake-up that is owed, its own sleep over. So
//! a wake-up that nobody sent shows as a message that does not arrive.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use fantail::config::{Settings, TopicRule};
use fantail::connection::TICK_MS;
use fantail::edition::{Control, Edition, Latest, Port, ReloadAnswer, Router};
use fantail::event_loop::core::Readiness;
use fantail::topic::entry::Entry;
use fantail::topic::{
    Draft, Join, MailboxLimits, Place, Position, PresenceMode, RouterLimits, Since, SlowPolicy, Topic,
    TopicName,
};

use super::loops::{Asked, LoopSim, seed_clock};
use super::net::{Hub, Link, Plan, Waker, Wakes};
use super::operator::Operator;
use super::patterns::PASSING;
use super::peer::{Ending, Peer, Speaks, payload};
use super::presence::{ENDLESS_SECONDS, PresenceSim};
use super::rng::Rng;

/// Loops with clients.
pub(crate) const LOOPS: usize = 2;

/// The admin loop.
pub(crate) const ADMIN: usize = LOOPS;

/// The router's last loop: it subscribes to everything and so learns every message's offset.
const TAP: usize = LOOPS + 1;

/// Steps in which everything has to come to rest.
const SETTLE_STEPS: usize = 50_000;

/// What an upgrade, a checkpoint or the end found wrong.
pub(crate) type Checked<T = ()> = Result<T, String>;

/// A message that took an offset.
pub(crate) struct Truth {
    /// Its offset.
    pub(crate) offset: u64,
    /// Its payload.
    pub(crate) payload: Vec<u8>,
    /// How much was published before it and with it, of all topics.
    pub(crate) at: u64,
}

/// Everything.
pub(crate) struct World {
    /// Chance outside the kernel.
    pub(crate) rng: Rng,
    /// The kernel.
    pub(crate) hub: Rc<Hub>,
    /// Shared by the loops.
    pub(crate) edition: Arc<Edition>,
    /// The loops, the admin loop last.
    pub(crate) loops: Vec<LoopSim>,
    /// What they find after a reload.
    latest: Arc<Latest>,
    /// Who uses the admin port.
    pub(crate) operators: Vec<Operator>,
    /// What they have asked the main thread for.
    asked: Rc<Asked>,
    /// Reloads so far.
    pub(crate) reloads: usize,
    /// Every peer there ever was.
    pub(crate) peers: Vec<Peer>,
    /// What was published, per topic, in order.
    pub(crate) truth: Vec<Vec<Truth>>,
    /// Wake-ups.
    pub(crate) wakes: Arc<Wakes>,
    /// Whether peers may be closed for being slow.
    pub(crate) impatient: bool,
    /// Whether everybody is being sent away.
    pub(crate) draining: bool,
    /// Connections open when the server was stopped.
    pub(crate) stopped: usize,
    /// By index: those that stay, and behind them those that came, and perhaps went.
    pub(crate) topics: Vec<Topic>,
    /// How many stay.
    pub(crate) lasting: usize,
    /// Of each name of those that come and go, the one that was published to last.
    passing: [Option<Topic>; PASSING.len()],
    /// Whether peers subscribe to patterns.
    watches: bool,
    /// Who is there, where topics tell it.
    pub(crate) presence: Option<PresenceSim>,
    links: Vec<Rc<Link>>,
    now_ms: u64,
    outside: usize,
    peers_max: usize,
    test_dialects: bool,
    /// Peers that came with a place to go on from.
    pub(crate) resumed: usize,
}

impl World {
    /// A world whose shape is the seed's, too.
    pub(crate) fn new(seed: u64, plan: Plan) -> Checked<Self> {
        let Plan { fault, test_dialects, patient } = plan;
        let mut rng = Rng::new(seed);
        let impatient = !patient && rng.one_in(5);
        let harsh = !patient && rng.one_in(3);
        let keeps = rng.one_in(2);
        let mut settings = settings(&mut rng, impatient, harsh, keeps);
        let grace = (!impatient && rng.one_in(2)).then(|| rng.pick(&[0, 1, ENDLESS_SECONDS]));
        if let Some(seconds) = grace {
            tell_presence(&mut settings, seconds);
        }
        seed_clock(seed);
        let wakes = Wakes::new(TAP + 1);
        let mailbox = MailboxLimits {
            bytes_max: rng.pick(&[600, 30_000, 64 << 20]),
            entries_max: rng.pick(&[1, 2, 7, 65_536]),
        };
        let watches = rng.one_in(2);
        let idle_topics_max = if watches { rng.pick(&[1, 2, 1_024]) } else { 1_024 };
        let limits = RouterLimits { mailbox, idle_topics_max, ..RouterLimits::default() };
        let router = Router::new(TAP + 1, limits, Box::new(Waker(Arc::clone(&wakes))));
        let router = Arc::new(router.map_err(|error| format!("router: {error:?}"))?);
        let hub = Hub::new(seed, LOOPS + 1, fault, Arc::clone(&router));
        let edition = Edition::new(settings, Arc::clone(&router), LOOPS, 10_000);
        let edition = Arc::new(edition.map_err(|error| format!("edition: {error}"))?);
        let mut topics = Vec::new();
        for index in 0..1 + rng.below(4) {
            let topic = router
                .topic(&TopicName::parse(format!("t{index}")).unwrap())
                .map_err(|error| format!("topic: {error:?}"))?;
            let join = Join { local: index as u32, slot: index as u32, ticket: Place::NONE };
            router.join(&topic, TAP, join, Since::Now).ok_or("no tap")?;
            topics.push(topic);
        }
        let mut loops = Vec::new();
        let latest = Arc::new(Latest::new(Arc::clone(&edition)));
        let asked = Rc::new(Asked::default());
        for index in 0..=ADMIN {
            let port = if index == ADMIN { Port::Admin } else { Port::Client };
            loops.push(LoopSim::new(index, port, &edition, &latest, &asked, (&hub, 5_000), seed)?);
        }
        let presence = grace.map(|seconds| PresenceSim::new(&edition, topics.len(), seconds, &mut rng));
        let peers_max = if rng.one_in(12) { 400 } else { 2 + rng.below(36) };
        Ok(Self {
            truth: topics.iter().map(|_| Vec::new()).collect(),
            lasting: topics.len(),
            passing: Default::default(),
            watches,
            presence,
            rng,
            hub,
            edition,
            loops,
            latest,
            operators: Vec::new(),
            asked,
            reloads: 0,
            peers: Vec::new(),
            wakes,
            impatient,
            draining: false,
            stopped: 0,
            topics,
            links: Vec::new(),
            now_ms: 0,
            outside: 0,
            peers_max,
            test_dialects,
            resumed: 0,
        })
    }

    /// One thing happens.
    pub(crate) fn step(&mut self, leaving: bool) -> Checked {
        match self.rng.below(32) {
            0..3 => self.connect(),
            3..9 => self.peer_writes(),
            9..12 => self.with_peer(|peer, rng| {
                let count = 1 + rng.below(3_000);
                peer.send(count);
            }),
            12..18 => self.with_peer(|peer, rng| {
                let count = 1 + rng.below(peer.speed);
                peer.read(count, rng);
            }),
            18 if self.watches && self.rng.one_in(2) => self.publish_passing()?,
            18 => self.publish_outside()?,
            19 => self.lie()?,
            20 => {
                let most = if self.impatient { 400 } else { 20 };
                self.now_ms += self.rng.below(most) as u64;
            }
            21 if leaving && self.rng.one_in(3) => {
                let ending = self.rng.pick(&[
                    Ending::Close,
                    Ending::Close,
                    Ending::HalfClose,
                    Ending::Reset,
                    Ending::Drop,
                ]);
                self.with_peer(|peer, rng| peer.leave(ending, rng));
            }
            22 => self.with_peer(|peer, _| peer.link.report_space()),
            23 if self.rng.one_in(8) => {
                let control = if self.rng.one_in(2) { self.reload()? } else { Control::Relocate };
                self.order(&control)?;
            }
            24 if self.rng.one_in(4) => self.break_off()?,
            24 => self.operate(),
            26 if self.presence.is_some() => self.members_step()?,
            25 => self.with_operator(|operator, rng| operator.send_and_read(rng)),
            _ => {
                let index = self.rng.below(LOOPS + 1);
                if self.is_runnable(index) {
                    self.turn(index)?;
                }
            }
        }
        Ok(())
    }

    /// Everybody sends and reads and every loop turns until nothing is left to do.
    pub(crate) fn settle(&mut self) -> Checked {
        for _ in 0..SETTLE_STEPS {
            let mut busy = false;
            for peer in &mut self.peers {
                busy |= peer.send(usize::MAX);
                busy |= peer.read(usize::MAX, &mut self.rng);
                peer.link.report_space();
            }
            for operator in &mut self.operators {
                busy |= operator.finish(&mut self.rng);
            }
            for index in 0..=ADMIN {
                if self.is_runnable(index) {
                    self.turn(index)?;
                    busy = true;
                }
            }
            if let Some(presence) = &mut self.presence {
                busy |= presence.turn(&self.edition, self.now_ms);
                if !busy && presence.is_soon(self.now_ms) {
                    self.now_ms += 20;
                    continue;
                }
            }
            let soon = |state: &LoopSim| state.sleeps_until.is_some_and(|until| until <= self.now_ms + 1);
            if !busy {
                if !self.loops.iter().any(soon) {
                    self.hub.rest();
                    return Ok(());
                }
                self.now_ms += 1;
            }
        }
        let runnable: Vec<usize> = (0..=ADMIN).filter(|index| self.is_runnable(*index)).collect();
        Err(format!("does not come to rest, loops {runnable:?} would turn"))
    }

    /// Lets time pass, settling again and again, until every slot is free and nothing is due.
    pub(crate) fn settle_until_empty(&mut self) -> Checked {
        for _ in 0..600 {
            self.settle()?;
            // A deadline that somebody has left behind may wake the loop once more, and then none does.
            let is_at_rest =
                |index: usize| self.loops[index].core.connections() == 0 && self.sleep_ms(index).is_none();
            if (0..=ADMIN).all(is_at_rest) {
                return Ok(());
            }
            self.now_ms += TICK_MS;
        }
        let left: Vec<_> = self.loops.iter().map(|state| state.core.connections()).collect();
        Err(format!("{left:?} slots are not given back"))
    }

    /// Members come and go from outside, or the thread that tells of them has a turn.
    fn members_step(&mut self) -> Checked {
        let Some(presence) = &mut self.presence else { return Ok(()) };
        if self.rng.one_in(3) {
            return presence.step(&self.edition, self.now_ms, &mut self.rng);
        }
        presence.turn(&self.edition, self.now_ms);
        Ok(())
    }

    /// Whoever came from outside leaves.
    pub(crate) fn members_leave(&mut self) {
        if let Some(presence) = &mut self.presence {
            presence.leave_all(&self.edition, self.now_ms);
        }
    }

    /// Tells every loop something, as the main thread does.
    fn order(&mut self, control: &Control) -> Checked {
        for index in 0..=ADMIN {
            let sent = self.edition.router.send_control(index, control.clone(), None);
            sent.map_err(|_| "no room for an order")?;
        }
        Ok(())
    }

    /// Sends every client away, while some still come and publish, until nobody is left; then the admin loop stops.
    pub(crate) fn drain(&mut self) -> Checked {
        if self.rng.one_in(2) {
            let operator = self.operator();
            self.operators[operator].ask_to("POST /drain");
            self.settle()?;
            if self.asked.drains.get() == 0 {
                return Err("asked to drain, the main thread was not told".to_owned());
            }
        }
        self.draining = true;
        for index in 0..LOOPS {
            let sent = self.edition.router.send_control(index, Control::Drain, None);
            sent.map_err(|_| "no room to tell of a drain")?;
        }
        for _ in 0..self.rng.below(300) {
            self.step(true)?;
        }
        for _ in 0..600 {
            self.settle()?;
            if self.loops.iter().take(LOOPS).all(|state| state.ended) {
                self.operators.iter_mut().for_each(Operator::leave);
                self.settle_until_empty()?;
                let sent = self.edition.router.send_control(ADMIN, Control::Stop, None);
                sent.map_err(|_| "no room to tell of a stop")?;
                self.settle()?;
                let ended = self.loops[ADMIN].ended;
                return if ended { Ok(()) } else { Err("the admin loop was stopped and turns".to_owned()) };
            }
            self.now_ms += TICK_MS;
        }
        let left: Vec<_> = self.loops.iter().map(|state| state.core.connections()).collect();
        Err(format!("{left:?} connections are not drained"))
    }

    /// Stops in the middle of everything: every stream is closed.
    pub(crate) fn stop(&mut self) -> Checked {
        for _ in 0..self.rng.below(300) {
            self.step(true)?;
        }
        self.order(&Control::Stop)?;
        while let Some(index) = (0..=ADMIN).find(|index| !self.loops[*index].ended) {
            if !self.is_runnable(index) {
                return Err(format!("loop {index} was stopped and sleeps"));
            }
            self.turn(index)?;
        }
        self.stopped = self.loops.iter().map(|state| state.core.connections()).sum();
        self.loops.clear();
        // Who is still in the kernel's queue was never a stream of ours.
        match self.links.iter().find(|link| link.key.get().is_some() && !link.pipe.borrow().closed) {
            Some(link) => Err(format!("the link of peer {} is open after a stop", link.id)),
            None => Ok(()),
        }
    }

    /// Publishes to every topic from outside, one after the other has been delivered.
    pub(crate) fn probe(&mut self) -> Checked {
        for _ in 0..if self.watches { PASSING.len() } else { 0 } {
            self.publish_passing()?;
            self.settle()?;
        }
        for topic in 0..self.lasting {
            let payload = payload(topic, None, self.outside, &mut self.rng);
            self.outside += 1;
            if self
                .edition
                .router
                .publish(&self.topics[topic], Draft::encode(None, true, &payload), None)
                .is_err()
            {
                return Err("no room in mailboxes at rest".to_owned());
            }
            self.drain_tap()?;
            self.settle()?;
        }
        Ok(())
    }

    /// Whether the loop's poll would return.
    pub(crate) fn is_runnable(&self, index: usize) -> bool {
        let state = &self.loops[index];
        if state.ended {
            return false;
        }
        state.sleeps_until.is_some_and(|until| until <= self.now_ms)
            || self.wakes.is_owed(index)
            || self.hub.has_ready(index)
            || !state.queue.is_empty()
    }

    /// Milliseconds until a loop's poll returns by itself.
    pub(crate) fn sleep_ms(&self, index: usize) -> Option<u64> {
        self.loops[index].sleep_ms(self.now_ms, &self.edition)
    }

    /// One turn of a loop, as its shell drives it.
    fn turn(&mut self, index: usize) -> Checked {
        self.wakes.take(index);
        self.loops[index].turn(self.now_ms, &self.hub, &self.links, &self.edition);
        for _ in 0..self.asked.reloads.take() {
            let applied = self.rng.one_in(2);
            let control = if applied { self.reload()? } else { Control::Reload };
            let body = format!("{{\"applied\":{applied}}}\n").into_bytes();
            self.edition.reload_answers.push(ReloadAnswer { applied, body });
            self.order(&control)?;
        }
        self.drain_tap()
    }

    /// Other settings, of which none changes what anybody gets.
    fn reload(&mut self) -> Checked<Control> {
        let mut settings = self.edition.settings.clone();
        settings.deflate.level = 1 + self.rng.below(9);
        settings.timeouts.close = Duration::from_secs(1 + self.rng.below(9) as u64);
        let edition = self.edition.with_settings(settings).map_err(|error| format!("reload: {error}"))?;
        self.latest.set(Arc::new(edition));
        self.reloads += 1;
        Ok(Control::Reload)
    }

    /// Somebody asks something of the admin port.
    fn operate(&mut self) {
        let at = self.operator();
        let (topics, outside) = (self.lasting, self.outside);
        self.outside += self.operators[at].ask(topics, outside, &mut self.rng);
        self.operators[at].send_and_read(&mut self.rng);
    }

    fn with_operator(&mut self, act: impl FnOnce(&mut Operator, &mut Rng)) {
        if !self.operators.is_empty() {
            let at = self.rng.below(self.operators.len());
            act(&mut self.operators[at], &mut self.rng);
        }
    }

    /// Somebody asks all loops something and does not wait; who comes next, and asks something else, has the same slot.
    fn break_off(&mut self) -> Checked {
        let at = self.operator();
        self.operators[at].ask_to("POST /connections/close?ip=10.9.9.9");
        self.operators[at].finish(&mut self.rng);
        if self.is_runnable(ADMIN) {
            self.turn(ADMIN)?;
        }
        self.operators[at].give_up();
        let link = self.link(ADMIN, Vec::new(), (3_000, usize::MAX));
        let mut next = Operator::new(link);
        next.ask_to("POST /connections/unsubscribe?topic=t0&ip=10.9.9.9");
        next.finish(&mut self.rng);
        self.operators.push(next);
        for _ in 0..2 {
            if self.is_runnable(ADMIN) {
                self.turn(ADMIN)?;
            }
        }
        Ok(())
    }

    /// One of a few who are there, or somebody new.
    fn operator(&mut self) -> usize {
        let there: Vec<usize> = (0..self.operators.len()).filter(|at| self.operators[*at].stays()).collect();
        if there.is_empty() || there.len() < 4 && self.rng.one_in(6) {
            let capacity = self.rng.pick(&[200, 3_000, 1 << 20]);
            let link = self.link(ADMIN, Vec::new(), (capacity, usize::MAX));
            self.operators.push(Operator::new(link));
            return self.operators.len() - 1;
        }
        self.rng.pick(&there)
    }

    /// Connects to a loop.
    fn link(&mut self, loop_index: usize, topics: Vec<String>, room: (usize, usize)) -> Rc<Link> {
        let address = [127, 0, 0, 1 + self.rng.below(5) as u8];
        let link =
            Link::new(self.links.len(), loop_index, address.into(), topics, room, Rc::clone(&self.hub));
        self.links.push(Rc::clone(&link));
        self.loops[loop_index].queue.push(Rc::clone(&link));
        link
    }

    fn drain_tap(&mut self) -> Checked {
        let Some(mailbox) = self.edition.router.mailbox(TAP) else { return Err("no tap".to_owned()) };
        let mut entries = Vec::new();
        mailbox.drain(&mut entries);
        for entry in entries {
            let Entry::Deliver { local, message, .. } = entry else { continue };
            mailbox.release(1, message.frame_len() as u64);
            let truth = &mut self.truth[local as usize];
            let expected = truth.last().map_or(1, |last| last.offset + 1);
            if message.offset() != expected {
                return Err(format!("offset {} of t{local}, not {expected}", message.offset()));
            }
            truth.push(Truth { offset: expected, payload: message.payload().to_vec(), at: self.hub.count() });
        }
        Ok(())
    }

    fn connect(&mut self) {
        if self.peers.len() >= self.peers_max {
            return;
        }
        let rng = &mut self.rng;
        let mut topics: Vec<usize> = (0..self.lasting).collect();
        for at in (1..topics.len()).rev() {
            topics.swap(at, rng.below(at + 1));
        }
        let speaks = match rng.below(9) {
            0 => Speaks::Echo,
            1 => Speaks::Events,
            2 | 3 => Speaks::Json,
            4 => Speaks::Polls,
            5 if self.test_dialects => Speaks::Lines,
            _ => Speaks::Plain,
        };
        topics.truncate(match speaks {
            Speaks::Echo => 0,
            Speaks::Plain => 1 + rng.below(3),
            Speaks::Lines | Speaks::Events | Speaks::Json | Speaks::Polls => 1,
        });
        let names = topics.iter().map(|index| format!("t{index}")).collect();
        let capacity = rng.pick(&[64, 300, 2_000, 40_000, 4 << 20]);
        let per_write = if rng.one_in(4) { (capacity / 40).max(16) } else { usize::MAX };
        let (loop_index, speed) = (rng.below(LOOPS), rng.pick(&[5, 100, 5_000, 100_000]));
        // What expires before it is read is counted whoever has published it.
        let few = |rule: &TopicRule| rule.history_messages.is_some_and(|count| count < 100);
        let no_echo = rng.one_in(3) && !self.edition.settings.topics.iter().any(few);
        let resumes = rng.one_in(2) && matches!(speaks, Speaks::Plain | Speaks::Events | Speaks::Polls);
        let since = topics.first().filter(|_| resumes).map(|first| {
            let topic = &self.topics[*first];
            Position { epoch: topic.epoch(), offset: rng.below(topic.next_offset() as usize) as u64 }
        });
        let grace = self.presence.as_ref().map(|presence| presence.grace_seconds);
        let watches = match speaks {
            Speaks::Events => grace.is_some(),
            // Without a grace each of them goes and comes with every answer, for ever.
            Speaks::Polls => grace.is_some_and(|seconds| seconds > 0),
            _ => false,
        } && self.rng.one_in(2);
        let link = self.link(loop_index, names, (capacity, per_write));
        link.watches_presence.set(watches);
        link.since.set(since.map(|since| since.offset));
        self.resumed += usize::from(since.is_some());
        let mut peer = Peer::new(link, speaks, topics, no_echo, speed, since);
        if let Some(talk) = &mut peer.json {
            talk.watches = self.watches;
        }
        self.peers.push(peer);
    }

    fn peer_writes(&mut self) {
        let topics = self.topics[..self.lasting].to_vec();
        self.with_peer(|peer, rng| {
            if peer.left.is_some() || peer.speaks.is_wordless() {
                return;
            }
            for _ in 0..1 + if rng.one_in(6) { rng.below(12) } else { 0 } {
                if rng.one_in(8) {
                    peer.ping(rng);
                } else {
                    peer.publish(&topics, rng);
                }
            }
            let count = if rng.one_in(2) { usize::MAX } else { 1 + rng.below(200) };
            peer.send(count);
        });
    }

    fn publish_outside(&mut self) -> Checked {
        let topic = self.rng.below(self.lasting);
        let payload = payload(topic, None, self.outside, &mut self.rng);
        self.outside += 1;
        let draft = Draft::encode(None, true, &payload);
        let published = self.edition.router.publish(&self.topics[topic], draft, None);
        let before = self.truth[topic].len() as u64;
        self.drain_tap()?;
        match published {
            Ok(published) if published.offset != before + 1 => {
                Err("a publish was told a wrong offset".to_owned())
            }
            Err(_) if self.truth[topic].len() as u64 != before => {
                Err("a refused publish went out".to_owned())
            }
            _ => Ok(()),
        }
    }

    /// Publishes to a topic that comes with it, or is there still; to one that was looked up before, which may have gone.
    fn publish_passing(&mut self) -> Checked {
        let at = self.rng.below(PASSING.len());
        let name = TopicName::parse(PASSING[at]).unwrap();
        let router = &self.edition.router;
        let held = self.passing[at].take().filter(|_| !self.rng.one_in(3));
        let topic = match held {
            Some(topic) => topic,
            None => router.topic(&name).map_err(|error| format!("topic: {error:?}"))?,
        };
        let payload = payload(self.lasting + at, None, self.outside, &mut self.rng);
        self.outside += 1;
        let published = router.publish(&topic, Draft::encode(None, true, &payload), None);
        self.passing[at] = Some(topic);
        let Ok(published) = published else { return Ok(()) };
        let topic = router.find(&name).ok_or("a topic went with its message")?;
        let of = self.topics.iter().position(|known| known.id() == topic.id()).unwrap_or_else(|| {
            self.topics.push(topic.clone());
            self.truth.push(Vec::new());
            self.topics.len() - 1
        });
        let expected = self.truth[of].len() as u64 + 1;
        if (published.epoch, published.offset) != (topic.epoch(), expected) {
            return Err(format!("{published:?} of {}, not {expected}", topic.name()));
        }
        self.truth[of].push(Truth { offset: expected, payload, at: self.hub.count() });
        Ok(())
    }

    /// An event with nothing behind it, perhaps for a connection that is gone.
    fn lie(&mut self) -> Checked {
        if self.links.is_empty() {
            return Ok(());
        }
        let link = &self.links[self.rng.below(self.links.len())];
        if let Some(key) = link.key.get().filter(|_| !self.loops[link.loop_index].ended) {
            let readiness = Readiness {
                readable: self.rng.one_in(2),
                writable: self.rng.one_in(2),
                read_closed: self.rng.one_in(4),
                error: false,
            };
            let state = &mut self.loops[link.loop_index];
            state.core.on_event(key, readiness);
            // The poll has returned for it, so the rest of the round follows.
            state.sleeps_until = Some(self.now_ms);
        }
        self.drain_tap()
    }

    fn with_peer(&mut self, act: impl FnOnce(&mut Peer, &mut Rng)) {
        if !self.peers.is_empty() {
            let at = self.rng.below(self.peers.len());
            act(&mut self.peers[at], &mut self.rng);
        }
    }
}

/// All topics tell who is on them; what else their rules say stays.
fn tell_presence(settings: &mut Settings, grace_seconds: u32) {
    settings.topics.push(TopicRule { pattern: "t*".to_owned(), ..TopicRule::default() });
    for rule in &mut settings.topics {
        rule.presence = Some(PresenceMode::Full);
        rule.presence_grace_seconds = Some(grace_seconds as usize);
        rule.presence_interval_ms = Some(100);
    }
}

/// In a harsh world slow peers are closed, and what all of them have waiting may be too much.
fn settings(rng: &mut Rng, impatient: bool, harsh: bool, keeps: bool) -> Settings {
    let mut settings = Settings::default();
    settings.publish.topics = vec!["*".to_owned()];
    settings.drain.length = Duration::from_millis(rng.below(3_000) as u64);
    settings.server.share_port = rng.one_in(2);
    settings.outbox.messages_max = rng.pick(&[1, 3, 64, 60_000]);
    settings.outbox.bytes_max = rng.pick(&[500, 20_000, 1 << 30]);
    let policies = if harsh { &SlowPolicy::ALL[..4] } else { &SlowPolicy::ALL[..3] };
    settings.outbox.policy = rng.pick(policies);
    if keeps {
        for pattern in ["t0", "t1", "t2"] {
            if rng.one_in(2) {
                settings.topics.push(TopicRule {
                    pattern: pattern.to_owned(),
                    // Where few are kept, who is slow loses some, which is counted.
                    history_messages: Some(rng.pick(&[4, 60_000, 60_000])),
                    history_bytes: Some(1 << 30),
                    history_seconds: Some(0),
                    messages_max: Some(rng.pick(&[1, 3, 64])),
                    ..TopicRule::default()
                });
            }
        }
    }
    for pattern in ["t0", "t1", "t*"] {
        if rng.one_in(2) {
            let policy = Some(rng.pick(policies));
            let messages_max = rng.one_in(3).then(|| 1 + rng.below(5));
            let disconnect_after_drops = (harsh && rng.one_in(3)).then(|| 1 + rng.below(9));
            let pattern = pattern.to_owned();
            settings.topics.push(TopicRule {
                pattern,
                policy,
                messages_max,
                disconnect_after_drops,
                ..TopicRule::default()
            });
        }
    }
    if harsh {
        settings.outbox.bytes_total = Some(rng.pick(&[256 << 20, 60_000, 6_000]));
    }
    let timeouts = &mut settings.timeouts;
    timeouts.heartbeat = Duration::from_millis(if impatient { 1_500 } else { 0 });
    timeouts.pong = Duration::from_millis(if impatient { 900 } else { 0 });
    timeouts.write = Duration::from_millis(if impatient { 1_200 } else { 0 });
    timeouts.handshake = Duration::from_secs(if impatient { 2 } else { 0 });
    settings
}
