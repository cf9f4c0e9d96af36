//! How much the generator had to do, and whether it was the bottleneck, so that its figures are its own and not the
//! server's. Plain numbers and a judgement; `observe` watches.

use serde::Serialize;

/// Shares from which the generator counts as the bottleneck.
const BUSY_SHARE_MAX: f64 = 0.1;
const LATE_SHARE_MAX: f64 = 0.01;
const WAITED_SHARE_MAX: f64 = 0.01;
const BACKLOG_SHARE_MAX: f64 = 0.1;
const WAIT_SHARE_MAX: f64 = 0.1;
/// Messages that waited for less time than this in all did so for one pause of a busy machine. In a run that is shorter than
/// twice that half of it is no pause.
const WAITING_NS_MIN: u64 = 250_000_000;
/// However short a run is.
const WAITING_NS_LEAST: u64 = 50_000_000;
/// Turns with a backlog that may happen to anybody.
const BACKLOG_TURNS_MIN: u64 = 3;

/// What workers noticed of their own load while messages flowed (or clients came back).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Strain {
    /// Tenths of a second.
    pub(crate) windows: u64,
    /// Of these, those in which a worker had no time left.
    pub(crate) busy_windows: u64,
    /// How long workers waited for a processor.
    pub(crate) waited_ns: u64,
    /// Of how long that is known.
    pub(crate) waited_of_ns: u64,
    /// Turns in which anything happened.
    pub(crate) turns: u64,
    /// Of these, those that began with as many events as a turn takes.
    pub(crate) backlog_turns: u64,
    /// The longest turn; what came at its beginning may have waited that long.
    pub(crate) turn_max_ns: u64,
}

/// Messages of the generator that waited until a connection of the publisher was free.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Waits {
    /// How many.
    pub(crate) messages: u64,
    /// For how long at least one of them did.
    pub(crate) ns: u64,
    /// How long sending was planned to take.
    pub(crate) of_ns: u64,
}

/// What the report says about the generator's own load.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct StrainReport {
    /// Why the generator was the bottleneck; empty if it was not.
    pub(crate) bottleneck: Vec<String>,
    /// Share of the tenths of a second under load in which a worker was awake for 90 %; null without load.
    pub(crate) busy_share: Option<f64>,
    /// Share of the load for which workers waited for a processor; null without load or where the kernel does not say.
    pub(crate) processor_wait_share: Option<f64>,
    /// Share of turns under load that began with more events than one turn takes; null without load.
    pub(crate) backlog_share: Option<f64>,
    /// The longest turn under load; null without load.
    pub(crate) turn_max_microseconds: Option<f64>,
    /// Share of sends that left more than 1 ms late although they had not to wait for an answer of the server;
    /// null if nothing was sent.
    pub(crate) late_share: Option<f64>,
    /// Share of sends that waited for more than 1 ms until a connection of the publisher was free; null if nothing was
    /// sent.
    pub(crate) waited_share: Option<f64>,
    /// All about these.
    #[serde(skip)]
    waits: Waits,
}

impl Strain {
    /// Adds another worker's.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.windows += other.windows;
        self.busy_windows += other.busy_windows;
        self.waited_ns += other.waited_ns;
        self.waited_of_ns += other.waited_of_ns;
        self.turns += other.turns;
        self.backlog_turns += other.backlog_turns;
        self.turn_max_ns = self.turn_max_ns.max(other.turn_max_ns);
    }

    /// What has come since `before`, of the same workers.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            windows: self.windows.saturating_sub(before.windows),
            busy_windows: self.busy_windows.saturating_sub(before.busy_windows),
            waited_ns: self.waited_ns.saturating_sub(before.waited_ns),
            waited_of_ns: self.waited_of_ns.saturating_sub(before.waited_of_ns),
            turns: self.turns.saturating_sub(before.turns),
            backlog_turns: self.backlog_turns.saturating_sub(before.backlog_turns),
            turn_max_ns: self.turn_max_ns,
        }
    }

    /// Share of the tenths of a second in which a worker had no time left; `None` without load.
    pub(crate) fn busy_share(&self) -> Option<f64> {
        share(self.busy_windows, self.windows)
    }

    /// Share of the time for which workers waited for a processor; `None` where nobody knows.
    pub(crate) fn processor_wait_share(&self) -> Option<f64> {
        share(self.waited_ns, self.waited_of_ns)
    }

    /// Judges it. `sent` and `late` are messages of the generator, 0 where it sends none.
    pub(crate) fn judge(&self, sent: u64, late: u64, waits: Waits) -> StrainReport {
        let mut report = StrainReport {
            bottleneck: Vec::new(),
            busy_share: self.busy_share(),
            processor_wait_share: self.processor_wait_share(),
            backlog_share: share(self.backlog_turns, self.turns),
            turn_max_microseconds: (self.turns > 0).then(|| self.turn_max_ns as f64 / 1e3),
            late_share: share(late, sent),
            waited_share: share(waits.messages, sent),
            waits,
        };
        let percent = |share: f64| share * 100.0;
        if let Some(busy) = report.busy_share.filter(|share| *share > BUSY_SHARE_MAX) {
            let text = format!("its threads had no time left for {:.0} % of the load", percent(busy));
            report.bottleneck.push(text);
        }
        if let Some(wait) = report.processor_wait_share.filter(|share| *share > WAIT_SHARE_MAX) {
            let text = format!("its threads waited for a processor for {:.0} % of the load", percent(wait));
            report.bottleneck.push(text);
        }
        if let Some(late) = report.late_share.filter(|share| *share > LATE_SHARE_MAX) {
            report.bottleneck.push(format!("{:.1} % of its sends left more than 1 ms late", percent(late)));
        }
        report.bottleneck.extend(report.saturated());
        let backlog = report.backlog_share.filter(|share| *share > BACKLOG_SHARE_MAX);
        if let Some(backlog) = backlog.filter(|_| self.backlog_turns >= BACKLOG_TURNS_MIN) {
            let text =
                format!("more events waited than it takes at once in {:.0} % of its turns", percent(backlog));
            report.bottleneck.push(text);
        }
        report
    }
}

fn share(part: u64, all: u64) -> Option<f64> {
    (all > 0).then(|| part as f64 / all as f64)
}

impl StrainReport {
    /// Set if the publisher had too few connections for the rate, so that figures are those of its waiting.
    pub(crate) fn saturated(&self) -> Option<String> {
        let share = self.waited_share.filter(|share| *share > WAITED_SHARE_MAX)?;
        if self.waits.ns < (self.waits.of_ns / 2).clamp(WAITING_NS_LEAST, WAITING_NS_MIN) {
            return None;
        }
        let percent = share * 100.0;
        Some(format!(
            "publisher saturated: {percent:.1} % of its messages waited until one of its connections was free"
        ))
    }

    /// One line for the table.
    pub(crate) fn text(&self) -> String {
        match self.bottleneck.is_empty() {
            true if self.busy_share.is_none() && self.late_share.is_none() => "n/a, no load".into(),
            true => "no".into(),
            false => format!("YES: {}", self.bottleneck.join("; ")),
        }
    }
}
