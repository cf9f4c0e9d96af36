//! One finding for each limit: what there is, what is needed, how far it reaches, and what to type. Pure.

use super::list::{Effect, Needs, Scope, Setting};
use super::{Asked, CONNECTIONS_MOST, most_up_to};
use crate::config::{Tables, Totals};

/// How a limit stands to what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// It is in the way.
    Short,
    /// Something will suffer, but not the number.
    Hint,
    /// It can't be seen from inside this container.
    Unknown,
    /// It suffices.
    Fine,
}

impl Level {
    /// Its word in reports.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Hint => "hint",
            Self::Unknown => "unknown",
            Self::Fine => "ok",
        }
    }
}

/// One limit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What is limited: a kernel setting's or a key's name, or words.
    pub name: String,
    /// How it stands.
    pub level: Level,
    /// What happens when it is too low.
    pub effect: Effect,
    /// What there is.
    pub current: String,
    /// What is needed.
    pub needed: String,
    /// The most connections that it allows; `None` if the number does not depend on it.
    pub highest: Option<u64>,
    /// What it does.
    pub why: String,
    /// Whether it has to be set outside of this container.
    pub outside: bool,
    /// What to type, if it does not suffice.
    pub fix: Option<String>,
}

impl Asked<'_> {
    /// The descriptor tables.
    pub(super) fn open_files(&self) -> Finding {
        let (connections, process) = (self.plan.connections, self.facts.process);
        let given = self.plan.settings.server.loops;
        let holds = |connections| self.derive(connections, given, process.nofile).is_ok();
        let needed = self.table_files(connections);
        let (tables, why) = match process.tables {
            Tables::PerLoop => (
                format!("{} tables of {}", self.loops(connections), process.nofile),
                "A connection is an open file, and 64 of each event loop's table are the server's own.",
            ),
            Tables::Shared => (
                format!("one table of {}", process.nofile),
                "A connection is an open file. Here a sandbox refuses the loops tables of their own \
                 (close_range, unshare), so all share one.",
            ),
        };
        let fix = match self.facts.container {
            Some(_) => format!("--ulimit nofile={needed}:{needed} for the container"),
            None => format!("LimitNOFILE={needed} in the systemd unit, or as root: ulimit -n {needed}"),
        };
        self.finding(Parts {
            name: "open files".to_owned(),
            effect: Effect::Binds,
            current: tables,
            needed: format!("{needed} for each table"),
            highest: most_connections(holds),
            why: why.to_owned(),
            outside: self.facts.container.is_some(),
            fix,
        })
    }

    /// The memory of the machine, and of the control group if that has a limit.
    pub(super) fn memory(&self) -> Vec<Finding> {
        let need = |connections| (self.plan.memory_bytes)(connections, self.loops(connections));
        let finding = |name: String, free: u64, current: String, fix: String, outside: bool| {
            self.finding(Parts {
                name,
                effect: Effect::Binds,
                current,
                needed: mebibytes(need(self.plan.connections)),
                highest: most_connections(|connections| need(connections) <= free),
                why: "Idle connections, most of it the kernel's part of each socket; what is on its way to clients \
                      comes on top (see fantail sizes --backlog)."
                    .to_owned(),
                outside,
                fix,
            })
        };
        let machine = self.facts.memory_available.map(|free| {
            let fix = "more memory, or fewer connections".to_owned();
            finding("memory".to_owned(), free, format!("{} available", mebibytes(free)), fix, false)
        });
        let group = self.facts.group.as_ref().map(|group| {
            let more = need(self.plan.connections).saturating_sub(group.free).saturating_add(group.limit);
            let more = more.div_ceil(1 << 20);
            let inside = self.facts.container.is_some();
            let fix = if inside {
                format!("--memory {more}m for the container")
            } else {
                format!("MemoryMax={more}M in the systemd unit")
            };
            let current = format!("{} of {} free", mebibytes(group.free), mebibytes(group.limit));
            finding(format!("memory of the control group {}", group.path), group.free, current, fix, inside)
        });
        machine.into_iter().chain(group).collect()
    }

    /// What may wait, against the memory that the process may have. The number does not depend on it.
    pub(super) fn waiting(&self) -> Option<Finding> {
        let allowance = self.facts.allowance()?;
        let loops = self.loops(self.plan.connections);
        let all = Totals::derive(self.plan.settings, loops, Some(allowance.bytes)).all();
        let short = all > allowance.bytes;
        Some(Finding {
            name: "what may wait".to_owned(),
            level: if short { Level::Hint } else { Level::Fine },
            effect: Effect::Slows,
            current: format!("up to {}", mebibytes(all)),
            needed: format!("at most the {} of {}", mebibytes(allowance.bytes), allowance.of),
            highest: None,
            why: "Messages for slow consumers, half-received ones, request bodies, and what waits for the loops. Where \
                  it is more than there is, the kernel ends the server before its own bounds hold."
                .to_owned(),
            outside: false,
            fix: short.then(|| {
                "leave outbox.bytes_total, limits.inbox_bytes_total, limits.admin_body_bytes_total, \
                 admin.idempotency_bytes_max, deflate.context_bytes_total and mailbox.bytes_max at 0, and lower the largest messages"
                    .to_owned()
            }),
        })
    }

    /// How many one client address may have, where there is such a limit.
    pub(super) fn one_address(&self) -> Option<Finding> {
        let most = self.plan.settings.admission.per_address_max as u64;
        (most > 0).then(|| {
            let connections = self.plan.connections;
            self.finding(Parts {
                name: "admission.per_address_max".to_owned(),
                effect: Effect::Generator,
                current: most.to_string(),
                needed: format!("{connections}, or {} source addresses", connections.div_ceil(most)),
                highest: most,
                why: "Connections from one address: a load generator's, or a proxy's that is not in \
                      admission.trusted_proxies. Others get 429."
                    .to_owned(),
                outside: false,
                fix: format!("FANTAIL_ADMISSION_PER_ADDRESS_MAX={connections}, or more source addresses"),
            })
        })
    }

    /// A kernel setting. `None`: it is not there and nobody needs it.
    pub(super) fn setting(&self, setting: &Setting) -> Option<Finding> {
        let connections = self.plan.connections;
        let Some(have) = self.facts.settings.get(&setting.key) else { return self.hidden(setting) };
        let need = |connections| self.need(setting, connections);
        // The number does not depend on a switch or a bound: it is as asked, or it is not.
        let depends = matches!(setting.needs, Needs::Formulas(_) | Needs::Table | Needs::Ports);
        let suffices = |connections| suffices(setting, &self.usable(setting, have), &need(connections));
        let effect = match setting.effect {
            // A firewall that tracks nothing drops nothing.
            Effect::Binds if setting.key == "net.netfilter.nf_conntrack_max" && self.facts.tracked == 0 => {
                Effect::Slows
            }
            effect => effect,
        };
        let needed = need(connections);
        let wanted = wanted(setting, have, &needed);
        let assignment = format!("{}=\"{}\"", setting.key, joined(&wanted));
        let fix = match (self.facts.container, setting.scope) {
            (None, _) => format!("sysctl -w {assignment}"),
            (Some(_), Scope::Machine) => format!("on the host: sysctl -w {assignment}"),
            (Some(_), Scope::Namespace) => format!("--sysctl {assignment} for the container"),
        };
        let mut finding = self.finding(Parts {
            name: setting.key.clone(),
            effect,
            current: match setting.key.as_str() {
                "fs.file-max" => format!("{}, {} open", joined(have), self.facts.files_open),
                _ => joined(have),
            },
            needed: match setting.needs {
                Needs::Ports => format!("{connections} ports, or {} source addresses", self.sources(have)),
                Needs::Most => format!("at most {}", joined(needed.get(..2).unwrap_or(&needed))),
                _ => joined(&needed),
            },
            highest: if depends { most_connections(suffices) } else { CONNECTIONS_MOST },
            why: setting.why.clone(),
            outside: self.facts.container.is_some(),
            fix: fix.clone(),
        });
        if !depends {
            finding.highest = None;
            if !suffices(connections) {
                finding.level = Level::Hint;
                finding.fix = Some(fix);
            }
        }
        // What only slows matters from a number on.
        if effect != Effect::Binds && connections < setting.from {
            if finding.level != Level::Fine {
                finding.needed = format!("{} from {} connections on", finding.needed, setting.from);
            }
            finding.level = Level::Fine;
            finding.fix = None;
        }
        Some(finding)
    }

    /// A setting that the machine has and this container does not see.
    fn hidden(&self, setting: &Setting) -> Option<Finding> {
        let matters = setting.active && self.plan.connections >= setting.from;
        let seen = self.facts.container.is_none() || setting.scope == Scope::Namespace;
        (matters && !seen).then(|| Finding {
            name: setting.key.clone(),
            level: Level::Unknown,
            effect: setting.effect,
            current: "not to be seen from inside".to_owned(),
            needed: joined(&self.need(setting, self.plan.connections)),
            highest: None,
            why: setting.why.clone(),
            outside: true,
            fix: Some(format!("on the host: sysctl {}", setting.key)),
        })
    }

    /// What `connections` need of a setting, one number for each of its numbers.
    fn need(&self, setting: &Setting, connections: u64) -> Vec<u64> {
        match &setting.needs {
            Needs::Formulas(formulas) => formulas.iter().map(|formula| formula.of(connections)).collect(),
            Needs::Table => vec![self.table_files(connections)],
            Needs::Backlog => vec![self.plan.settings.server.backlog as u64],
            Needs::Ports => vec![connections],
            Needs::Value | Needs::Most => setting.values.clone(),
        }
    }

    /// What of a setting is there for the server.
    fn usable(&self, setting: &Setting, have: &[u64]) -> Vec<u64> {
        match (&setting.needs, setting.key.as_str(), have) {
            (Needs::Ports, _, [low, high]) => vec![ports(*low, *high)],
            // Others have files open, too; unless this is the server itself, running already.
            (_, "fs.file-max", [most]) => vec![most.saturating_sub(self.facts.files_open)],
            _ => have.to_vec(),
        }
    }

    /// Source addresses that a generator needs with this range of ports.
    fn sources(&self, range: &[u64]) -> u64 {
        match range {
            [low, high] => self.plan.connections.div_ceil(ports(*low, *high).max(1)),
            _ => 1,
        }
    }

    fn finding(&self, parts: Parts) -> Finding {
        let Parts { name, effect, current, needed, highest, why, outside, fix } = parts;
        let level = match effect {
            _ if self.plan.connections <= highest => Level::Fine,
            Effect::Binds => Level::Short,
            Effect::Slows | Effect::Generator => Level::Hint,
        };
        let fix = (level != Level::Fine).then_some(fix);
        Finding { name, level, effect, current, needed, highest: Some(highest), why, outside, fix }
    }
}

/// A finding whose level follows from its numbers.
struct Parts {
    name: String,
    effect: Effect,
    current: String,
    needed: String,
    highest: u64,
    why: String,
    outside: bool,
    fix: String,
}

fn most_connections(holds: impl Fn(u64) -> bool) -> u64 {
    most_up_to(CONNECTIONS_MOST, holds)
}

fn suffices(setting: &Setting, have: &[u64], need: &[u64]) -> bool {
    match setting.needs {
        // The third number is what one busy connection may have; it is no cost by itself.
        Needs::Most => have.iter().zip(need).take(2).all(|(have, bound)| have <= bound),
        _ => have.iter().zip(need).all(|(have, need)| have >= need),
    }
}

/// The numbers to set: the list's, what is needed, or what there is, whichever is most.
fn wanted(setting: &Setting, have: &[u64], need: &[u64]) -> Vec<u64> {
    match setting.needs {
        Needs::Ports | Needs::Most => setting.values.clone(),
        _ => setting
            .values
            .iter()
            .zip(need)
            .zip(have)
            .map(
                |((value, need), have)| {
                    if setting.active { *value.max(need).max(have) } else { *need.max(have) }
                },
            )
            .collect(),
    }
}

fn ports(low: u64, high: u64) -> u64 {
    high.saturating_sub(low).saturating_add(1)
}

fn joined(numbers: &[u64]) -> String {
    numbers.iter().map(u64::to_string).collect::<Vec<_>>().join(" ")
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes.div_ceil(1 << 20))
}
