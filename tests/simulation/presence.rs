//! Who is on a topic, in the simulation: the thread that tells it, members that come and go from outside, what readers of
//! event streams and polls make of what they are told, and the twin that knows who has to be there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fantail::edition::Edition;
use fantail::topic::{PresenceMode, PresencePolicy, Seat, Topic, TopicName};
use serde_json::Value;

use super::rng::Rng;
use super::world::{Checked, World};

/// Milliseconds of the interval of events, the least that there is.
const INTERVAL_MS: u32 = 100;

/// A grace that nobody outlives.
pub(crate) const ENDLESS_SECONDS: u32 = 3_600;

/// Where the clock goes on by itself until nothing more is told: what is due later is not waited for.
const SOON_MS: u64 = 2_000;

/// The presence thread, and members that are nobody's connections.
pub(crate) struct PresenceSim {
    pub(crate) grace_seconds: u32,
    woken: Arc<AtomicBool>,
    sleeps_until: Option<u64>,
    outside: BTreeMap<(usize, usize), Seat>,
    /// All from outside that ever were on a topic.
    came: Vec<BTreeSet<usize>>,
    most: usize,
}

impl PresenceSim {
    pub(crate) fn new(edition: &Edition, topics: usize, grace_seconds: u32, rng: &mut Rng) -> Self {
        let woken = Arc::new(AtomicBool::new(true));
        let wake = Arc::clone(&woken);
        edition.presences.set_waker(Box::new(move || wake.store(true, Ordering::Relaxed)));
        // Of some the list is longer than one piece of it.
        let most = rng.pick(&[5, 40, 1_500]);
        let came = vec![BTreeSet::new(); topics];
        Self { grace_seconds, woken, sleeps_until: None, outside: BTreeMap::new(), came, most }
    }

    fn policy(&self) -> PresencePolicy {
        PresencePolicy {
            mode: PresenceMode::Full,
            grace_ms: self.grace_seconds * 1_000,
            interval_ms: INTERVAL_MS,
            state_ms: 0,
        }
    }

    /// Some come, some go.
    pub(crate) fn step(&mut self, edition: &Edition, now_ms: u64, rng: &mut Rng) -> Checked {
        for _ in 0..1 + rng.below(self.most) {
            let at = (rng.below(self.came.len()), rng.below(self.most));
            match self.outside.remove(&at) {
                Some(seat) => edition.presences.leave(seat, now_ms),
                None => {
                    let (topic, id) = (format!("t{}", at.0), outsider(at.1));
                    let seat = edition.presences.join(&topic, self.policy(), &id, now_ms);
                    self.outside.insert(at, seat.ok_or("no room for a member")?);
                    self.came[at.0].insert(at.1);
                }
            }
        }
        Ok(())
    }

    /// A turn of the thread, if it would wake. `true`: it did.
    pub(crate) fn turn(&mut self, edition: &Edition, now_ms: u64) -> bool {
        let due = self.sleeps_until.is_some_and(|until| until <= now_ms);
        let woken = self.woken.swap(false, Ordering::Relaxed);
        if due || woken {
            self.sleeps_until = edition.presences.turn(&edition.router, now_ms, 0);
        }
        due || woken
    }

    /// Whether something is told, or somebody leaves, if a little time goes by.
    pub(crate) fn is_soon(&self, now_ms: u64) -> bool {
        self.sleeps_until.is_some_and(|until| until <= now_ms + SOON_MS)
    }

    /// Who of the outside has to be on a topic.
    fn truth(&self, topic: usize) -> BTreeSet<String> {
        let there = |id: &usize| self.outside.contains_key(&(topic, *id));
        let stay = self.grace_seconds == ENDLESS_SECONDS;
        self.came[topic].iter().filter(|id| stay || there(id)).map(|id| outsider(*id)).collect()
    }

    pub(crate) fn leave_all(&mut self, edition: &Edition, now_ms: u64) {
        while let Some((_, seat)) = self.outside.pop_first() {
            edition.presences.leave(seat, now_ms);
        }
    }
}

fn outsider(number: usize) -> String {
    format!("m{number}")
}

fn is_outsider(id: &str) -> bool {
    id.starts_with('m')
}

/// What a reader makes of what it is told.
#[derive(Debug, Default)]
pub(crate) struct Known {
    pub(crate) members: BTreeSet<String>,
    /// Behind whom the list goes on that is under way.
    pub(crate) next: Option<String>,
    /// It has had all of a list.
    pub(crate) whole: bool,
    version: u64,
    count: u64,
    pub(crate) objects: usize,
    /// Who was told to have left.
    left: BTreeSet<String>,
}

impl Known {
    /// Takes one object.
    pub(crate) fn take(&mut self, told: &Value) -> Result<(), String> {
        self.objects += 1;
        if told["type"] != "presence" {
            return Err(format!("no presence: {told}"));
        }
        if told.get("gap").is_some() {
            self.whole = false;
            return Ok(());
        }
        let version = told["version"].as_str().and_then(|version| version.split_once(':'));
        let version = version.and_then(|(_, offset)| offset.parse().ok());
        let version: u64 = version.ok_or_else(|| format!("no version: {told}"))?;
        let ids = |name: &str| told[name].as_array().cloned().unwrap_or_default();
        if told.get("members").is_some() {
            match told["after"].as_str() {
                None => self.members.clear(),
                after if after == self.next.as_deref() => {}
                after => return Err(format!("the list goes on after {after:?}, not {:?}", self.next)),
            }
            self.next = told["next"].as_str().map(str::to_owned);
            self.whole = self.next.is_none();
            self.members.extend(ids("members").iter().filter_map(|member| text(&member["id"])));
        } else if self.whole && version > self.version && version != self.version + 1 {
            return Err(format!("version {version} behind {}", self.version));
        }
        self.members.extend(ids("joined").iter().filter_map(text));
        for id in ids("left").iter().filter_map(text) {
            self.members.remove(&id);
            self.left.insert(id);
        }
        if version >= self.version {
            (self.version, self.count) = (version, told["count"].as_u64().unwrap_or(u64::MAX));
        }
        Ok(())
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// Everybody on the list of a topic, page by page.
fn listed(world: &World, topic: usize) -> Checked<BTreeSet<String>> {
    let Some(presence) = &world.presence else { return Ok(BTreeSet::new()) };
    let (mut all, mut after) = (BTreeSet::new(), None::<String>);
    loop {
        let events = |name: &TopicName<'_>| world.edition.router.topic(name);
        let wanted = (after.as_deref(), 1_000);
        let page =
            world.edition.presences.page(&format!("t{topic}"), presence.policy(), wanted, None, events);
        let page = page.map_err(|error| format!("a page: {error:?}"))?;
        let members = page.members.as_ref().map_or(&[][..], |members| members.as_slice());
        all.extend(members.iter().map(|member| member.id.as_str().to_owned()));
        match page.next() {
            Some(next) => after = Some(next.as_str().to_owned()),
            None if page.count == all.len() => return Ok(all),
            None => return Err(format!("{} on t{topic}, and {} on its list", page.count, all.len())),
        }
    }
}

/// The list of each topic is who has to be there, and readers that stay know it.
pub(crate) fn check_presence(world: &World, staying: &[bool]) -> Checked {
    let Some(presence) = &world.presence else { return Ok(()) };
    for topic in 0..world.lasting {
        let list = listed(world, topic)?;
        let outside: BTreeSet<String> = list.iter().filter(|id| is_outsider(id)).cloned().collect();
        let truth = presence.truth(topic);
        if outside != truth {
            let wrong: Vec<_> = outside.symmetric_difference(&truth).take(5).collect();
            return Err(format!("{wrong:?} are on t{topic} and should not, or the other way round"));
        }
        // Each connection is a member of its own, and the tap is none.
        let inside = (list.len() - outside.len()) as u64;
        let subscribers = subscribers(&world.topics[topic]);
        let right = match presence.grace_seconds {
            ENDLESS_SECONDS => inside >= subscribers,
            _ => inside == subscribers,
        };
        if !right {
            return Err(format!("{inside} members of t{topic}, which has {subscribers} subscribers"));
        }
        for (peer, _) in world.peers.iter().zip(staying).filter(|(_, stays)| **stays) {
            let Some(known) = peer.known().filter(|_| peer.topics.first() == Some(&topic)) else { continue };
            let id = peer.link.id;
            if !known.whole || known.members != list || known.count != list.len() as u64 {
                let wrong: Vec<_> = known.members.symmetric_difference(&list).take(5).collect();
                let (whole, count) = (known.whole, known.count);
                return Err(format!("peer {id}: {wrong:?} of t{topic} are wrong, whole: {whole}, {count}"));
            }
            if presence.grace_seconds == ENDLESS_SECONDS && !known.left.is_empty() {
                return Err(format!("peer {id} was told that {:?} left within the grace", known.left));
            }
        }
    }
    Ok(())
}

fn subscribers(topic: &Topic) -> u64 {
    topic.subscribers().saturating_sub(1)
}
