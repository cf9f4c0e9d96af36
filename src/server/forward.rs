//! What clients send to the application: the service is made of the settings, tells loops by mail, and publishes as an
//! operator may.
//!
//! Runs on the thread that calls into `server`, but for what the service's threads publish.

use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::ServeError;
use super::start::process_name;
use crate::config::{KeyError, Settings};
use crate::edition::{Answered, Edition, Router};
use crate::service::forward::{Forward, Payload, Sender};
use crate::sys::clock::wall_ns;
use crate::topic::{Draft, Reply, TopicName};
use crate::wire::deflate::Deflater;

/// How long a message that finds no room in a mailbox is tried, as one on the admin port is.
const ROOM_TIME: Duration = Duration::from_secs(5);

/// The pause between two tries.
const ROOM_PAUSE: Duration = Duration::from_millis(2);

/// Where messages go that are the application's, if any may. Nobody is called yet.
pub(super) fn of(settings: &Settings) -> Result<Option<Forward>, ServeError> {
    let Some(plan) = settings.forward.plan() else { return Ok(None) };
    Forward::new(plan, process_name()).map(Some).map_err(unfit)
}

/// Looks at what `[forward]` and the rules name.
pub(super) fn check(settings: &Settings) -> Result<(), ServeError> {
    of(settings)?.map_or(Ok(()), |forward| forward.check(settings.forward_urls()).map_err(unfit))
}

fn unfit((key, problem): (&'static str, String)) -> ServeError {
    ServeError::Key(KeyError { key, problem })
}

/// Begins to take messages, before any loop runs.
pub(super) fn start(edition: &Edition, forward: Forward) -> Result<(), ServeError> {
    let (loops, router) = (Arc::clone(&edition.router), Arc::clone(&edition.router));
    let tell = move |sender: Sender, told| {
        let answer = Answered::Forwarded(told);
        loops.send_answer(sender.loop_index, Reply { key: sender.key, ticket: 0, answer });
    };
    let deflate = &edition.settings.deflate;
    let deflater = Mutex::new(Deflater::new(deflate.level as u32, deflate.min_bytes));
    forward.start(tell, move |name, payload| publish(&router, &deflater, name, payload));
    let named = forward.prepare(edition.settings.forward_urls()).map_err(unfit)?;
    edition.set_forward(forward, named);
    Ok(())
}

/// Publishes what the application wants, as a request on the admin port does. `false`: it can't be.
fn publish(
    router: &Router,
    deflater: &Mutex<Deflater>,
    name: &TopicName<'static>,
    payload: &Payload,
) -> bool {
    let refused = |why: &str| {
        tracing::warn!(topic = name.as_str(), "the application's message is not published: {why}");
        false
    };
    let Ok(topic) = router.topic(name) else { return refused("too many topics") };
    let rules = router.rules();
    let policy = topic.policy(&rules);
    let (binary, bytes) = (payload.is_binary(), payload.bytes());
    if bytes.len() > policy.message_bytes_max {
        return refused("it is larger than message_bytes_max");
    }
    if let Err(invalid) = rules.check(policy.check, binary, bytes) {
        return refused(&invalid.to_string());
    }
    let time_ms = wall_ns() / 1_000_000;
    let mut draft = if topic.has_deflate() {
        // What it holds is made anew for each message.
        let mut deflater = deflater.lock().unwrap_or_else(PoisonError::into_inner);
        Draft::encode_at(time_ms, None, binary, bytes, deflater.try_deflate(bytes))
    } else {
        Draft::encode_at(time_ms, None, binary, bytes, None)
    };
    let until = Instant::now() + ROOM_TIME;
    loop {
        match router.publish(&topic, draft, None) {
            Ok(_) => return true,
            Err(_) if Instant::now() >= until => return refused("no room in the mailbox of a loop"),
            Err(busy) => draft = busy.draft,
        }
        thread::sleep(ROOM_PAUSE);
    }
}
