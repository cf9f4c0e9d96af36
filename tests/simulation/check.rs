//! The shadow model: what every subscriber must have got, from what took which offset and who joined when.

use std::collections::HashMap;

use fantail::metrics::{CloseReason, DropReason, LoopCounters};
use fantail::topic::{SlowPolicy, TopicName};

use super::json::{JsonTalk, check_json};
use super::net::{Fault, Plan};
use super::operator::check_operators;
use super::patterns::slow;
use super::peer::{Ending, Peer, Speaks};
use super::polls::{Polls, check_polls};
use super::presence::{ENDLESS_SECONDS, check_presence};
use super::talk::{Talk, check_talk};
use super::world::{ADMIN, Checked, LOOPS, Truth, World};

/// What one run did, to see that runs are worth something.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Stats {
    /// Messages that took an offset.
    pub(crate) published: usize,
    /// Messages that reached peers.
    pub(crate) delivered: usize,
    /// Messages that slow consumers missed, by policy.
    pub(crate) dropped: [u64; DropReason::COUNT],
    /// Slow consumers that were closed.
    pub(crate) closed: u64,
    /// Publishes that had to wait.
    pub(crate) busy: u64,
    /// Echoes that came back, and of these those of more than 1 MiB.
    pub(crate) echoes: usize,
    /// See `echoes`.
    pub(crate) large_echoes: usize,
    /// Connections told to leave by a drain.
    pub(crate) drained: usize,
    /// Connections open when the server was stopped.
    pub(crate) stopped: usize,
    /// Messages that came as events, to who subscribes and unsubscribes as it likes in the dialect of tests and in JSON,
    /// and in answers to polls.
    pub(crate) told: [usize; 4],
    /// Requests of the admin port that were answered.
    pub(crate) answered: usize,
    /// Reloads.
    pub(crate) reloads: usize,
    /// Peers that resumed, messages that were read out of history, and subscribers that fell behind.
    pub(crate) history: [u64; 3],
    /// Lists and changes of who is there that peers were told.
    pub(crate) presence: usize,
    /// How often the planted fault struck.
    pub(crate) struck: usize,
}

impl Stats {
    /// Another run's, too.
    pub(crate) fn add(&mut self, other: &Self) {
        self.published += other.published;
        self.delivered += other.delivered;
        for (total, count) in self.dropped.iter_mut().zip(other.dropped) {
            *total += count;
        }
        self.closed += other.closed;
        self.busy += other.busy;
        self.echoes += other.echoes;
        self.large_echoes += other.large_echoes;
        self.drained += other.drained;
        self.stopped += other.stopped;
        for (total, count) in self.told.iter_mut().zip(other.told) {
            *total += count;
        }
        self.answered += other.answered;
        self.reloads += other.reloads;
        for (total, count) in self.history.iter_mut().zip(other.history) {
            *total += count;
        }
        self.presence += other.presence;
        self.struck += other.struck;
    }
}

/// Topic, publisher and number of a payload: nothing has the same twice.
type Name = (usize, Option<usize>, usize);

pub(crate) type Places<'a> = HashMap<Name, (usize, &'a Truth)>;

/// One whole run.
///
/// # Errors
/// What was wrong.
pub(crate) fn run(seed: u64, plan: Plan) -> Checked<Stats> {
    let mut world = World::new(seed, plan)?;
    for phase in 0..3 {
        let steps = 200 + world.rng.below(600);
        for _ in 0..steps {
            world.step(phase > 0)?;
        }
        at_rest(&mut world).map_err(|problem| format!("after phase {phase}: {problem}"))?;
    }
    if plan.fault == Fault::LostWake {
        world.wakes.lose(1);
    }
    world.probe()?;
    at_rest(&mut world).map_err(|problem| format!("after the probe: {problem}"))?;
    end(&mut world)?;
    let echoes =
        || world.peers.iter().filter(|peer| peer.speaks == Speaks::Echo).flat_map(|peer| &peer.messages);
    let counters = (0..LOOPS).map(|index| world.edition.counters_of(index));
    Ok(Stats {
        published: world.truth.iter().map(Vec::len).sum(),
        delivered: world.peers.iter().map(|peer| peer.messages.len()).sum(),
        dropped: DropReason::ALL.map(|reason| drops(&world, reason)),
        closed: closed_as_slow(&world),
        busy: counters.map(|counters| counters.publishes_busy.value()).sum(),
        echoes: echoes().count(),
        large_echoes: echoes().filter(|echo| echo.len() > 1 << 20).count(),
        drained: world.peers.iter().filter(|peer| peer.close_code == Some(1001)).count(),
        stopped: world.stopped,
        told: [
            world.peers.iter().map(|peer| peer.stream.places.len()).sum(),
            world.peers.iter().filter_map(|peer| peer.talk.as_ref()).map(Talk::messages).sum(),
            world.peers.iter().filter_map(|peer| peer.json.as_ref()).map(JsonTalk::messages).sum(),
            world.peers.iter().filter_map(|peer| peer.polls.as_ref()).map(Polls::messages).sum(),
        ],
        answered: world.operators.iter().map(|operator| operator.answered).sum(),
        reloads: world.reloads,
        history: [
            world.resumed as u64,
            counted(&world, |counters| counters.replayed.value()),
            counted(&world, |counters| counters.fell_behind.value()),
        ],
        presence: world.peers.iter().filter_map(Peer::known).map(|known| known.objects).sum(),
        struck: world.hub.struck.get(),
    })
}

/// The sum over the loops.
fn counted(world: &World, of: impl Fn(&LoopCounters) -> u64) -> u64 {
    (0..LOOPS).map(|index| of(world.edition.counters_of(index))).sum()
}

/// The end: everybody leaves, or is drained, or the server stops.
fn end(world: &mut World) -> Checked {
    match world.rng.below(8) {
        0 => return world.stop(),
        1 | 2 => {
            let staying: Vec<bool> = world.peers.iter().map(|peer| peer.left.is_none()).collect();
            world.drain()?;
            check_subscribers(world)?;
            check_drained(world, &staying)?;
        }
        _ => {
            for at in 0..world.peers.len() {
                let ending = world.rng.pick(&[Ending::Close, Ending::HalfClose, Ending::Reset, Ending::Drop]);
                world.peers[at].leave(ending, &mut world.rng);
            }
            world.operators.iter_mut().for_each(|operator| operator.leave());
            world.members_leave();
            world.settle_until_empty()?;
            check_no_members(world)?;
        }
    }
    all_given_back(world)
}

/// Who was there when the drain began, and has not left by itself since, was told 1001.
fn check_drained(world: &World, staying: &[bool]) -> Checked {
    for (peer, _) in world.peers.iter().zip(staying).filter(|(_, staying)| **staying && !world.impatient) {
        let over = peer.link.pipe.borrow().shut || peer.link.pipe.borrow().closed;
        let told = peer.close_code == Some(1001) || peer.speaks.is_wordless() && over;
        let gone = matches!(peer.left, Some(Ending::HalfClose | Ending::Reset | Ending::Drop));
        // Its own close frame may have met the server's on the way, and is answered with its own code.
        let crossed = peer.left == Some(Ending::Close) && peer.close_code == Some(1000);
        if !told && !gone && !crossed && !ended_as_slow(world, peer) {
            let (id, code, left) = (peer.link.id, peer.close_code, peer.left);
            return Err(format!("peer {id} was drained with {code:?}, left: {left:?}"));
        }
    }
    Ok(())
}

/// What came back of echoes is what was sent, in order, and all of it for whoever is still there.
fn check_echo(peer: &Peer, stays: bool) -> Checked {
    let (id, sent, got) = (peer.link.id, peer.echoes.len(), peer.messages.len());
    if !peer.echoes.starts_with(&peer.messages) {
        return Err(format!("peer {id}: its {got} echoes are not what it sent"));
    }
    if stays && got != sent {
        return Err(format!("peer {id}: {got} of {sent} echoes came back"));
    }
    Ok(())
}

fn at_rest(world: &mut World) -> Checked {
    world.settle()?;
    check_subscribers(world)?;
    check_publishers(world)?;
    check_operators(world)?;
    for index in 0..=ADMIN {
        let backlog = world.edition.counters_of(index).outbox_bytes.value();
        if backlog != 0 {
            return Err(format!("{backlog} bytes left in outboxes of loop {index}"));
        }
        check_mailbox(world, index)?;
    }
    match world.edition.outbox_budget.used() {
        0 => Ok(()),
        used => Err(format!("{used} bytes still count towards the total of outboxes")),
    }
}

/// Messages that the server says slow consumers missed.
fn drops(world: &World, reason: DropReason) -> u64 {
    (0..LOOPS).map(|index| world.edition.counters_of(index).drops(reason)).sum()
}

/// Peers that the server says it has closed because they did not read.
fn closed_as_slow(world: &World) -> u64 {
    let closes = |index| {
        let counters = world.edition.counters_of(index);
        counters.closes(CloseReason::SlowConsumer) + counters.closes(CloseReason::OutboxFull)
    };
    (0..LOOPS).map(closes).sum()
}

fn check_mailbox(world: &World, index: usize) -> Checked {
    let reserved = world.edition.router.mailbox(index).map(fantail::topic::Mailbox::reserved);
    if reserved == Some((0, 0)) {
        Ok(())
    } else {
        Err(format!("room of loop {index} not given back: {reserved:?}"))
    }
}

/// Nobody is left on a list that was outlived by its grace.
fn check_no_members(world: &World) -> Checked {
    let outlived = world.presence.as_ref().is_some_and(|presence| presence.grace_seconds != ENDLESS_SECONDS);
    match world.edition.presences.counts() {
        counts if outlived && (counts.members, counts.bytes) != (0, 0) => {
            Err(format!("lists hold {counts:?} at the end"))
        }
        _ => Ok(()),
    }
}

fn all_given_back(world: &World) -> Checked {
    for index in 0..=ADMIN {
        check_mailbox(world, index)?;
        let backlog = world.edition.counters_of(index).outbox_bytes.value();
        let sleep = world.sleep_ms(index);
        // A loop that is drained has ended; here it would go on counting the time.
        if backlog != 0 || sleep.is_some() && !world.draining {
            return Err(format!("empty loop {index} has {backlog} bytes queued and sleeps for {sleep:?}"));
        }
    }
    for at in 0..world.lasting {
        let subscribers = world
            .edition
            .router
            .find(&TopicName::parse(format!("t{at}")).unwrap())
            .map(|topic| topic.subscribers());
        // The tap stays.
        if subscribers != Some(1) {
            return Err(format!("{subscribers:?} subscribers of t{at} at the end"));
        }
    }
    for topic in &world.topics[world.lasting..] {
        if topic.subscribers() != 0 || world.edition.router.patterns() != 0 {
            return Err(format!("{} is subscribed to at the end", topic.name()));
        }
    }
    let admission = &world.edition.admission;
    if admission.addresses() != 0 {
        return Err(format!("{} addresses counted at the end", admission.addresses()));
    }
    match world.edition.connections_open() {
        0 => Ok(()),
        open => Err(format!("{open} connections counted open at the end")),
    }
}

/// Whether the peer is still there, for all anybody knows.
fn stays(world: &World, peer: &Peer) -> Checked<bool> {
    if let Some(misuse) = *peer.link.misuse.borrow() {
        return Err(format!("peer {}: the server {misuse}", peer.link.id));
    }
    // A head that arrives too slowly is answered 408 where peers are not waited for.
    // Whoever asks once more on a kept connection during a drain is answered 503.
    let expected =
        |text: &str| world.impatient && text.contains(" 408 ") || world.draining && text.contains(" 503 ");
    if let Some(broken) = peer.broken.as_ref().filter(|text| !expected(text)) {
        return Err(format!("peer {} read {broken}", peer.link.id));
    }
    let pipe = peer.link.pipe.borrow();
    let closed = pipe.closed || pipe.shut;
    let expected = world.impatient || world.draining || ended_as_slow(world, peer);
    if closed && peer.left.is_none() && !expected {
        return Err(format!("peer {} was closed for nothing", peer.link.id));
    }
    Ok(!closed && peer.left.is_none())
}

/// Whether a policy, or the total over all outboxes, may have ended this connection.
fn ended_as_slow(world: &World, peer: &Peer) -> bool {
    let wordless = peer.speaks.is_wordless() && closed_as_slow(world) > 0;
    peer.close_code == Some(1013) || wordless || world.edition.outbox_budget.met_full() > 0
}

/// Everybody got exactly what was published between joining and leaving; what is missing was counted.
fn check_subscribers(world: &World) -> Checked {
    let mut places = Places::new();
    for (topic, log) in world.truth.iter().enumerate() {
        for message in log {
            places.insert(parse(&message.payload).ok_or("a payload nobody sent")?, (topic, message));
        }
    }
    let mut missing = Missing::default();
    let mut told_slow = 0;
    let staying: Vec<bool> = world.peers.iter().map(|peer| stays(world, peer)).collect::<Checked<_>>()?;
    check_presence(world, &staying)?;
    for (peer, stays) in world.peers.iter().zip(staying) {
        told_slow += u64::from(peer.close_code == Some(1013));
        missing.add_events(world, peer);
        if let Some(polls) = &peer.polls {
            check_polls(world, peer, polls, &places, stays)?;
            continue;
        }
        let joined = peer.link.joined.borrow();
        let Some(joined) = joined.as_ref() else {
            if stays || !peer.messages.is_empty() {
                return Err(format!("peer {} was never upgraded", peer.link.id));
            }
            continue;
        };
        if stays && !(peer.partial.is_empty() && peer.pongs == peer.pings) {
            let (partial, pongs, pings) = (peer.partial.len(), peer.pongs, peer.pings);
            return Err(format!(
                "peer {}: {partial} bytes of a frame, {pongs} pongs of {pings}",
                peer.link.id
            ));
        }
        if peer.speaks == Speaks::Echo {
            check_echo(peer, stays)?;
            continue;
        }
        if let Some(talk) = &peer.json {
            check_json(world, peer, talk, (&places, stays), &mut missing)?;
            continue;
        }
        if let Some(talk) = &peer.talk {
            check_talk(world, peer, talk, (&places, stays), &mut missing)?;
            continue;
        }
        let mut got: Vec<Vec<u64>> = vec![Vec::new(); world.truth.len()];
        for (at, message) in peer.messages.iter().enumerate() {
            let (topic, offset) = place_of(message, &places)
                .ok_or_else(|| format!("peer {} got what nobody published", peer.link.id))?;
            if peer.speaks == Speaks::Events && peer.stream.places.get(at) != Some(&offset) {
                return Err(format!("peer {} was told a wrong place of {offset}", peer.link.id));
            }
            got[topic].push(offset);
        }
        for (topic, first) in peer.topics.iter().zip(joined) {
            let (least, most) = check_topic(world, peer, *topic, *first, &got[*topic])?;
            let newest = got[*topic].last().copied();
            missing.add(world, peer, *topic, (if stays { most } else { least }, most), newest)?;
            got[*topic].clear();
        }
        if got.iter().any(|rest| !rest.is_empty()) {
            return Err(format!("peer {} got messages of a topic it has not asked for", peer.link.id));
        }
    }
    if told_slow > closed_as_slow(world) {
        return Err(format!("{told_slow} peers were told 1013, {} are counted", closed_as_slow(world)));
    }
    missing.compare(world)
}

/// What peers have not got, at least and at most, by the policy of the topic.
#[derive(Default)]
pub(crate) struct Missing {
    least: [u64; SlowPolicy::ALL.len()],
    most: [u64; SlowPolicy::ALL.len()],
}

impl Missing {
    /// One peer's topic. Whoever stays misses exactly what its topic's policy has dropped; `newest` is the last
    /// offset it got.
    pub(crate) fn add(
        &mut self,
        world: &World,
        peer: &Peer,
        topic: usize,
        (least, most): (u64, u64),
        newest: Option<u64>,
    ) -> Checked {
        let slow = slow(world, topic);
        self.least[slow as usize] += least;
        self.most[slow as usize] += most;
        if least != most {
            // It has left, and may have missed anything that came later.
            return Ok(());
        }
        let id = peer.link.id;
        let own = format!("{topic}:{id}:");
        let last = world.truth[topic]
            .iter()
            .rev()
            .find(|message| !(peer.no_echo && message.payload.starts_with(own.as_bytes())));
        let keeps_newest = matches!(slow, SlowPolicy::DropOldest | SlowPolicy::Latest)
            && world.edition.outbox_budget.met_full() == 0;
        match slow {
            SlowPolicy::Disconnect if most > 0 => {
                Err(format!("peer {id} stayed and misses {most} messages of t{topic} under `disconnect`"))
            }
            _ if keeps_newest && most > 0 && last.map(|message| message.offset) != newest => {
                Err(format!("peer {id} has not got the newest message of t{topic}, only {newest:?}"))
            }
            _ => Ok(()),
        }
    }

    /// What a reader has not got of who comes and goes, and was told the list for.
    fn add_events(&mut self, world: &World, peer: &Peer) {
        if peer.known().is_some()
            && let Some(topic) = peer.topics.first()
            && let Some(events) = world.edition.router.find(&TopicName::of_presence(&format!("t{topic}")))
        {
            self.most[SlowPolicy::CatchUp as usize] += events.next_offset();
        }
    }

    /// What a peer has not got of a topic by patterns. Where the topic's policy is `catch-up`, what there was no room for is
    /// dropped, as the newest; but a subscription to the topic itself reads it.
    pub(crate) fn add_by_pattern(
        &mut self,
        world: &World,
        topic: usize,
        (least, most): (u64, u64),
        own: bool,
    ) {
        let slow = slow(world, topic);
        let least = if own { 0 } else { least };
        let dropped = if slow == SlowPolicy::CatchUp { SlowPolicy::DropNewest } else { slow };
        self.least[dropped as usize] += least;
        self.most[dropped as usize] += most;
        if own && dropped != slow {
            self.most[slow as usize] += most;
        }
    }

    fn compare(&self, world: &World) -> Checked {
        let counted = DropReason::ALL.map(|reason| drops(world, reason));
        let outside = |least: u64, most: u64, count: u64| !(least..=most).contains(&count);
        for slow in [SlowPolicy::DropNewest, SlowPolicy::DropOldest, SlowPolicy::Latest, SlowPolicy::CatchUp]
        {
            let (at, most) = (slow as usize, self.most[slow as usize]);
            if outside(self.least[at], most, counted[at]) {
                let (least, count) = (self.least[at], counted[at]);
                return Err(format!("{count} messages dropped by {slow:?}, {least} to {most} are missing"));
            }
        }
        // Whoever is closed misses what waited, whichever topic it was of.
        let (least, most, count) = (self.least.iter().sum(), self.most.iter().sum(), counted.iter().sum());
        if outside(least, most, count) {
            return Err(format!("{count} messages counted as dropped, {least} to {most} are missing"));
        }
        Ok(())
    }
}

/// Order, bounds and own messages on one topic; returns how many are missing at least and at most.
pub(crate) fn check_topic(
    world: &World,
    peer: &Peer,
    topic: usize,
    first: u64,
    got: &[u64],
) -> Checked<(u64, u64)> {
    let id = peer.link.id;
    if !got.is_sorted_by(|a, b| a < b) {
        return Err(format!("peer {id} got t{topic} out of order or twice: {got:?}"));
    }
    if got.first().is_some_and(|offset| *offset < first) {
        return Err(format!("peer {id} got t{topic} from before its join at {first}: {got:?}"));
    }
    let own = format!("{topic}:{id}:");
    let mine = |payload: &[u8]| peer.no_echo && payload.starts_with(own.as_bytes());
    let log = &world.truth[topic];
    let expected = log.iter().filter(|message| message.offset >= first && !mine(&message.payload));
    let last = got.last().copied().unwrap_or(0);
    let (mut until_last, mut until_end) = (0, 0);
    for message in expected {
        until_end += 1;
        until_last += u64::from(message.offset <= last);
    }
    let got_count = got.len() as u64;
    if got_count > until_last {
        return Err(format!("peer {id} got its own messages of t{topic}"));
    }
    Ok((until_last - got_count, until_end - got_count))
}

/// What a peer has sent went out once, in order, and completely unless its stream broke.
fn check_publishers(world: &World) -> Checked {
    let mut seen: HashMap<usize, usize> = HashMap::new();
    for message in world.truth.iter().flatten() {
        let Some((_, Some(id), number)) = parse(&message.payload) else { continue };
        let next = seen.entry(id).or_default();
        if number != *next {
            return Err(format!("message {number} of peer {id} published where {next} is next"));
        }
        *next += 1;
    }
    for peer in &world.peers {
        let closed = peer.close_code == Some(1013)
            || peer.link.pipe.borrow().closed && world.edition.outbox_budget.met_full() > 0;
        let broken = matches!(peer.left, Some(Ending::Reset | Ending::Drop)) || world.impatient || closed;
        let count = seen.get(&peer.link.id).copied().unwrap_or(0);
        if count != peer.published && !broken {
            let (id, sent, left) = (peer.link.id, peer.published, peer.left);
            return Err(format!("{count} of {sent} messages of peer {id} published, left: {left:?}"));
        }
    }
    Ok(())
}

/// Topic and offset of a message that is the published one to the last byte.
pub(crate) fn place_of(message: &[u8], places: &Places<'_>) -> Option<(usize, u64)> {
    let (topic, published) = places.get(&parse(message)?)?;
    (published.payload == message).then_some((*topic, published.offset))
}

/// Topic, publisher and number of a payload.
fn parse(payload: &[u8]) -> Option<Name> {
    let mut parts = payload.splitn(4, |byte| *byte == b':').map(std::str::from_utf8);
    let topic = parts.next()?.ok()?.parse().ok()?;
    let publisher = parts.next()?.ok()?.parse().ok();
    Some((topic, publisher, parts.next()?.ok()?.parse().ok()?))
}
