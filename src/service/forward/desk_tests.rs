//! A seeded simulation of the desk: connections that send, threads that call, and a model of an application that answers late, asks for
//! patience, restarts in the middle of batches, loses answers, and chokes on some messages. Time and chance are the seed's.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::*;
use crate::service::forward::message::{Fate, Sender};
use crate::topic::Key;

const BOUNDS: Bounds =
    Bounds { messages_max: 60, bytes_max: 1 << 20, batch_messages_max: 7, batch_bytes_max: 1 << 16 };

/// How long a message is tried.
const TRIED_FOR: Duration = Duration::from_secs(20);

/// Steps of chance, and those in which all has to come to rest.
const STEPS: usize = 600;
const SETTLE_STEPS: usize = 100_000;

struct Rng(u64);

impl Rng {
    /// Below `most`, by splitmix64.
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % most
    }

    fn one_in(&mut self, most: u64) -> bool {
        self.below(most) == 0
    }
}

/// A call that a thread makes.
struct Calling {
    batch: Batch,
    /// When the application has read it, and when it answers.
    read_ms: u64,
    answered_ms: u64,
    /// What it makes of it, once it has read it.
    verdict: Option<Verdict>,
}

/// What a connection has sent, and was told of.
#[derive(Default)]
struct Connection {
    sent: Vec<u64>,
    told: Vec<(u64, Fate)>,
}

/// The desk, and everybody around it.
struct World {
    rng: Rng,
    desk: Desk,
    now_ms: u64,
    number: u64,
    threads: usize,
    calls: Vec<Calling>,
    connections: BTreeMap<u32, Connection>,
    /// Messages that the application has taken, in order, whether it was heard or not.
    got: Vec<(u32, u64)>,
    /// Answers that were lost with the application: their batches may come again.
    is_up: bool,
    up_at_ms: u64,
    restarts: usize,
    refused: usize,
    lost_answers: usize,
}

/// A message that the application chokes on.
fn is_poison(number: u64) -> bool {
    number % 53 == 7
}

fn message(slot: u32, number: u64, taken_ms: u64) -> Message {
    Message {
        sender: Sender { loop_index: 0, key: Key { slot, generation: 1 } },
        topic: "a".into(),
        binary: false,
        document: false,
        payload: b"x".as_slice().into(),
        identity: None,
        // Two connections to an address.
        admission: 1 + slot / 2,
        address: None,
        dialect: "plain",
        request: None,
        number,
        time_ms: 0,
        taken_ms,
    }
}

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng(seed);
        let threads = 1 + rng.below(4) as usize;
        let connections = (0..1 + rng.below(6) as u32).map(|slot| (slot, Connection::default())).collect();
        Self {
            rng,
            desk: Desk::new(BOUNDS, TRIED_FOR),
            now_ms: 0,
            number: 0,
            threads,
            calls: Vec::new(),
            connections,
            got: Vec::new(),
            is_up: true,
            up_at_ms: 0,
            restarts: 0,
            refused: 0,
            lost_answers: 0,
        }
    }

    fn step(&mut self) -> Result<(), String> {
        match self.rng.below(10) {
            0..4 => self.send(),
            4 if self.rng.one_in(12) => self.restart(),
            4 | 5 => self.now_ms += self.rng.below(200),
            _ => self.work()?,
        }
        Ok(())
    }

    /// Somebody sends; what is refused is not sent.
    fn send(&mut self) {
        let slot = self.rng.below(self.connections.len() as u64) as u32;
        self.number += 1;
        if self.desk.push(message(slot, self.number, self.now_ms)) {
            self.connections.entry(slot).or_default().sent.push(self.number);
        }
    }

    /// The application goes down in the middle of everything it does: what it has read and not answered, nobody hears of.
    fn restart(&mut self) {
        self.restarts += 1;
        self.is_up = false;
        self.up_at_ms = self.now_ms + self.rng.below(4_000);
        for call in &mut self.calls {
            self.lost_answers += usize::from(matches!(call.verdict, Some(Verdict::Said(_))));
            call.verdict = Some(Verdict::Later(None));
            call.answered_ms = self.now_ms;
        }
    }

    /// What the application makes of a batch that it reads now.
    fn read(&mut self, batch: &Batch) -> Verdict {
        if !self.is_up {
            return Verdict::Later(None);
        }
        if self.rng.one_in(8) {
            self.refused += 1;
            let asks = self.rng.one_in(3).then(|| Duration::from_millis(self.rng.below(3_000)));
            return Verdict::Later(asks);
        }
        if batch.messages.iter().any(|message| is_poison(message.number)) {
            return Verdict::Apart;
        }
        if self.rng.one_in(40) {
            return Verdict::Never;
        }
        self.got.extend(batch.messages.iter().map(|message| (message.sender.key.slot, message.number)));
        Verdict::Said(batch.messages.iter().map(|_| Said::default()).collect())
    }

    /// Threads take what there is, the application reads and answers.
    fn work(&mut self) -> Result<(), String> {
        self.is_up |= self.now_ms >= self.up_at_ms;
        let read = self.calls.iter().position(|call| call.verdict.is_none() && call.read_ms <= self.now_ms);
        if let Some(mut call) = read.map(|at| self.calls.swap_remove(at)) {
            call.verdict = Some(self.read(&call.batch));
            self.calls.push(call);
            return Ok(());
        }
        let answered =
            self.calls.iter().position(|call| call.verdict.is_some() && call.answered_ms <= self.now_ms);
        if let Some(Calling { batch, verdict: Some(verdict), .. }) =
            answered.map(|at| self.calls.swap_remove(at))
        {
            match self.desk.called(self.now_ms, batch, verdict).0 {
                Called::Kept => {}
                Called::Told(batch, said) => {
                    batch.messages.iter().zip(said).for_each(|(message, said)| self.tell(message, said.fate));
                    self.desk.settle(&batch);
                }
                Called::Failed(batch) => {
                    batch.messages.iter().for_each(|message| self.tell(message, Fate::Failed));
                    self.desk.settle(&batch);
                }
            }
            return Ok(());
        }
        if self.calls.len() < self.threads {
            match self.desk.next(self.now_ms) {
                Next::Call(batch) => self.call(batch)?,
                Next::GiveUp(batches) => {
                    for message in batches.iter().flat_map(|batch| &batch.messages) {
                        self.tell(message, Fate::Failed);
                    }
                    self.desk.gave_up(&batches);
                }
                Next::Wait(_) | Next::End => {}
            }
        }
        Ok(())
    }

    fn call(&mut self, batch: Batch) -> Result<(), String> {
        let slots = |batch: &Batch| -> HashSet<u32> {
            batch.messages.iter().map(|message| message.sender.key.slot).collect()
        };
        let own = slots(&batch);
        if self.calls.iter().any(|call| !slots(&call.batch).is_disjoint(&own)) {
            return Err("two batches of a connection are under way".to_owned());
        }
        let read_ms = self.now_ms + self.rng.below(100);
        let answered_ms = read_ms + if self.rng.one_in(10) { 3_000 } else { self.rng.below(100) };
        self.calls.push(Calling { batch, read_ms, answered_ms, verdict: None });
        Ok(())
    }

    fn tell(&mut self, message: &Message, fate: Fate) {
        let connection = self.connections.entry(message.sender.key.slot).or_default();
        connection.told.push((message.number, fate));
    }

    /// Everybody goes on until nothing is left.
    fn settle(&mut self) -> Result<(), String> {
        for _ in 0..SETTLE_STEPS {
            if self.desk.held().0 == 0 && self.calls.is_empty() {
                return Ok(());
            }
            self.work()?;
            self.now_ms += self.rng.below(20);
        }
        Err(format!("{:?} does not come to rest", self.desk.held()))
    }

    /// What was promised.
    fn check(&self) -> Result<(), String> {
        let taken: HashSet<(u32, u64)> = self.got.iter().copied().collect();
        for (slot, Connection { sent, told }) in &self.connections {
            let numbers: Vec<u64> = told.iter().map(|(number, _)| *number).collect();
            if numbers != *sent {
                return Err(format!("connection {slot} has sent {sent:?} and was told of {numbers:?}"));
            }
            // Of what comes again, the first time.
            let mut first = HashSet::new();
            let of = |(of, _): &&(u32, u64)| of == slot;
            let once =
                self.got.iter().filter(of).map(|(_, number)| *number).filter(|number| first.insert(*number));
            if !once.is_sorted() {
                return Err(format!("messages of connection {slot} have overtaken each other"));
            }
            let untaken =
                |(number, fate): &&(u64, Fate)| *fate != Fate::Failed && !taken.contains(&(*slot, *number));
            if let Some((number, _)) = told.iter().find(untaken) {
                return Err(format!("connection {slot} was told that {number} is taken, and it is not"));
            }
        }
        let mut times: HashMap<(u32, u64), usize> = HashMap::new();
        self.got.iter().for_each(|one| *times.entry(*one).or_default() += 1);
        let again = times.values().filter(|times| **times > 1).count();
        if again > 0 && self.lost_answers == 0 {
            return Err(format!("{again} messages came again, and no answer was lost"));
        }
        Ok(())
    }
}

fn run(seed: u64) -> Result<World, String> {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step()?;
    }
    if world.rng.one_in(3) {
        world.desk.end();
    }
    world.settle()?;
    world.check()?;
    Ok(world)
}

#[test]
fn whatever_the_application_does_each_message_is_told_once_and_in_order() {
    let (mut taken, mut failed, mut restarts, mut refused, mut again) = (0, 0, 0, 0, 0);
    for seed in 0..300 {
        let world = run(seed).unwrap_or_else(|problem| panic!("seed {seed}: {problem}"));
        let told = world.connections.values().flat_map(|connection| &connection.told);
        failed += told.clone().filter(|(_, fate)| *fate == Fate::Failed).count();
        taken += told.filter(|(_, fate)| *fate != Fate::Failed).count();
        restarts += world.restarts;
        refused += world.refused;
        again += world.lost_answers;
    }
    assert!(
        taken > 10_000 && failed > 300 && restarts > 300 && refused > 500 && again > 100,
        "{taken} {failed} {restarts} {refused} {again}"
    );
}

#[test]
fn connections_that_go_on_while_their_batch_is_tried_again_are_found() {
    let (mut found, mut missed) = (0, 0);
    for seed in 0..60 {
        planted::plant(Some(Planted::LanesFreed));
        let result = run(seed);
        if planted::struck() > 0 {
            *(if result.is_err() { &mut found } else { &mut missed }) += 1;
        }
        planted::plant(None);
    }
    assert!(found >= 10 && missed <= found, "found in {found} runs, missed in {missed}");
}
