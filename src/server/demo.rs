//! The demo thread (`server.demo`): publishes simulated prices and sensors, so that there is something to look at on `/demo`.
//!
//! Publishes as everybody does, through the router; what finds no room is left out, and the next one comes soon. Ends with
//! the router.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use super::{ServeError, spawn};
use crate::edition::Router;
use crate::sys::clock::wall_ns;
use crate::topic::{Draft, TopicName};

/// How often it publishes.
const TICK: Duration = Duration::from_millis(100);

/// One simulated thing: a walk by chance that is drawn back to its middle.
struct Walk {
    topic: &'static str,
    middle: f64,
    /// Of one step, about.
    step: f64,
    digits: usize,
    /// Ticks from one message to the next.
    every: u64,
    value: f64,
}

/// Topic, middle, step, digits and ticks between messages of each.
const THINGS: [(&str, f64, f64, usize, u64); 12] = [
    ("demo/prices/EUR-USD", 1.0842, 0.0002, 5, 1),
    ("demo/prices/GBP-USD", 1.2671, 0.0003, 5, 2),
    ("demo/prices/USD-JPY", 151.32, 0.03, 3, 2),
    ("demo/prices/XAU-USD", 2_648.4, 0.6, 2, 3),
    ("demo/prices/OIL", 72.18, 0.04, 2, 3),
    ("demo/prices/WHEAT", 5.48, 0.004, 4, 5),
    ("demo/sensors/boiler", 68.0, 0.35, 1, 5),
    ("demo/sensors/cold-store", -18.5, 0.12, 1, 5),
    ("demo/sensors/wind", 7.4, 0.4, 1, 4),
    ("demo/sensors/grid-hz", 50.0, 0.004, 3, 2),
    ("demo/sensors/water-level", 214.0, 0.8, 0, 10),
    ("demo/sensors/co2", 612.0, 4.0, 0, 10),
];

/// Starts it.
///
/// # Errors
/// There is no thread to be had.
pub(super) fn start(router: &Arc<Router>) -> Result<(), ServeError> {
    let router = Arc::downgrade(router);
    spawn("demo", move || run(&router)).map(drop)
}

fn run(router: &Weak<Router>) {
    let chance = RandomState::new();
    let mut walks = THINGS.map(|(topic, middle, step, digits, every)| Walk {
        topic,
        middle,
        step,
        digits,
        every,
        value: middle,
    });
    for tick in 0_u64.. {
        let Some(router) = router.upgrade() else { return };
        for (place, walk) in walks.iter_mut().enumerate() {
            if tick % walk.every == 0 {
                walk.advance(chance.hash_one((tick, place)));
                publish(&router, walk);
            }
        }
        drop(router);
        thread::sleep(TICK);
    }
}

impl Walk {
    fn advance(&mut self, chance: u64) {
        // The sum of four small dice: mostly little, now and then more.
        let dice =
            chance.to_le_bytes().iter().take(4).map(|byte| f64::from(*byte) / 127.5 - 1.0).sum::<f64>();
        self.value += self.step * dice + (self.middle - self.value) * 0.01;
    }

    fn message(&self) -> String {
        format!("{{\"value\":{:.*}}}", self.digits, self.value)
    }
}

fn publish(router: &Router, walk: &Walk) {
    let Ok(name) = TopicName::parse(walk.topic) else { return };
    // Found anew each time: one that nobody had for long may have been retired.
    let Ok(topic) = router.topic(&name) else { return };
    let draft = Draft::encode_at(wall_ns() / 1_000_000, None, false, walk.message().as_bytes(), None);
    let _ = router.publish(&topic, draft, None);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_walk_stays_near_its_middle_and_writes_json() {
        for (topic, middle, step, digits, every) in THINGS {
            assert!(TopicName::parse(topic).is_ok() && every > 0, "{topic}");
            let mut walk = Walk { topic, middle, step, digits, every, value: middle };
            let chance = RandomState::new();
            for tick in 0..10_000_u64 {
                walk.advance(chance.hash_one(tick));
                let message: serde_json::Value = serde_json::from_str(&walk.message()).expect("JSON");
                let value = message["value"].as_f64().expect("a number");
                assert!((value - middle).abs() < step * 60.0 + 1.0, "{topic}: {value}");
            }
        }
    }
}
