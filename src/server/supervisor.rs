//! Whoever started the process and wants to know how it is: systemd, by sd_notify(3).
//!
//! Driven by the main thread, and a service thread of its own for the watchdog, which is fed only while every
//! loop turns. Without NOTIFY_SOCKET all of it does nothing and no thread is started.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use super::{ServeError, failed, spawn};
use crate::edition::Edition;
use crate::sys::clock;
use crate::sys::notify::{Notifier, watchdog_interval};

/// The way to the supervisor, if there is one.
pub(super) struct Supervisor(Option<Arc<Notifier>>);

impl Supervisor {
    /// None.
    pub(super) fn absent() -> Self {
        Self(None)
    }

    /// The one that the environment names.
    ///
    /// # Errors
    /// It names something that can't be reached: the supervisor would wait for a message that never comes.
    pub(super) fn from_environment() -> Result<Self, ServeError> {
        let notifier = Notifier::from_environment().map_err(|error| failed("reach NOTIFY_SOCKET", error))?;
        Ok(Self(notifier.map(Arc::new)))
    }

    /// The server serves, and this is what it says about itself.
    pub(super) fn ready(&self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={status}\n"));
    }

    /// It reads its configuration; another [`Self::ready`] ends that.
    pub(super) fn reloading(&self) {
        // It fails on no kernel that epoll runs on, and then 0 is before everything.
        let now_us = clock::system_monotonic_us().unwrap_or(0);
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={now_us}\n"));
    }

    /// It is on its way out, and may take that long.
    pub(super) fn stopping(&self, at_most: Duration) {
        let at_most_us = at_most.as_micros();
        self.send(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={at_most_us}\nSTATUS=draining\n"));
    }

    /// Starts feeding the watchdog, if the supervisor has one for this process.
    ///
    /// # Errors
    /// No thread can be started.
    pub(super) fn watch(&self, edition: &Arc<Edition>) -> Result<(), ServeError> {
        let (Some(notifier), Some(interval)) = (self.0.clone(), watchdog_interval()) else { return Ok(()) };
        let mut watch = Watch { notifier, edition: Arc::clone(edition), stuck: None };
        spawn("watchdog", move || {
            loop {
                watch.feed_if_well(clock::monotonic_ms());
                // sd_watchdog_enabled(3): notify at half the time. One that leaves no time would leave the processor none.
                thread::sleep((interval / 2).max(Duration::from_millis(1)));
            }
        })?;
        Ok(())
    }

    fn send(&self, message: &str) {
        if let Some(notifier) = &self.0
            && let Err(error) = notifier.send(message)
        {
            tracing::warn!(%error, "the supervisor at NOTIFY_SOCKET was not told");
        }
    }
}

/// What the watchdog's thread looks at.
struct Watch {
    notifier: Arc<Notifier>,
    edition: Arc<Edition>,
    /// The loop that was stuck when it last looked.
    stuck: Option<usize>,
}

impl Watch {
    fn feed_if_well(&mut self, now_ms: u64) {
        // A loop that has drained turns no more, and that is as it should be.
        let stuck = self.edition.stuck_loop(now_ms).filter(|_| !self.edition.is_draining());
        match stuck {
            // A supervisor that takes no message finds the server silent, which is all that it can find.
            None => drop(self.notifier.send("WATCHDOG=1\n")),
            Some(index) if self.stuck != stuck => {
                tracing::error!(loop_index = index, "a loop does not turn; the watchdog is not fed");
            }
            Some(_) => {}
        }
        self.stuck = stuck;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Settings;
    use crate::server::Server;
    use std::os::unix::net::UnixDatagram;
    use std::time::Instant;

    #[test]
    fn the_watchdog_is_fed_only_while_every_loop_turns() {
        let path = std::env::temp_dir().join(format!("fantail-watchdog-{}", std::process::id()));
        let supervisor = UnixDatagram::bind(&path).unwrap();
        supervisor.set_nonblocking(true).unwrap();
        let mut settings = Settings::default();
        settings.server.listen.set_port(0);
        settings.server.admin.set_port(0);
        settings.server.loops = Some(1);
        let server = Server::start(settings).unwrap();
        let notifier = Arc::new(Notifier::to(path.as_os_str()).unwrap());
        let mut watch = Watch { notifier, edition: Arc::clone(&server.edition), stuck: None };
        let mut fed = |now_ms| {
            watch.feed_if_well(now_ms);
            let mut buffer = [0; 64];
            supervisor.recv(&mut buffer).is_ok_and(|length| &buffer[..length] == b"WATCHDOG=1\n")
        };
        let health = &server.edition.health[0];
        // Idle, the loop sleeps in poll and leaves its health alone; a loop that has just been started may take part, and
        // the admin loop may not have come to its first sleep.
        let deadline = Instant::now() + Duration::from_secs(60);
        let expected =
            [("asleep", true), ("not yet stuck", true), ("stuck", false), ("stuck", false), ("well", true)];
        loop {
            let turns = || [0, 1].map(|index| server.edition.counters_of(index).turns.value());
            let before = turns();
            health.sleeps();
            let asleep = fed(100_000);
            health.wakes(100_000);
            let stuck = [fed(105_000), fed(105_001), fed(200_000)];
            health.sleeps();
            let told = [asleep, stuck[0], stuck[1], stuck[2], fed(200_000)];
            if turns() == before && expected.iter().zip(told).all(|(wanted, told)| wanted.1 == told) {
                break;
            }
            assert!(Instant::now() < deadline, "{told:?}, and not {expected:?}");
            thread::yield_now();
        }
        health.wakes(100_000);
        server.edition.set_draining();
        assert!(fed(200_000), "on the way out");
        health.sleeps();
        server.stop().unwrap();
        std::fs::remove_file(path).unwrap();
    }
}
