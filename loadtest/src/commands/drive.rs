//! Runs one command as its flags say: `--plan` only, with a server of its own, several times.
//!
//! Commands know nothing of this; they get URLs that are filled in and a process to watch.

use crate::base::failure::Failure;
use crate::base::interrupt;
use crate::base::note::note;
use crate::cli::args::{Command, Common, FANOUT_URL, Outputs, PublishBy, Stepped};
use crate::cli::pace_flags::PaceFlags;
use crate::commands;
use crate::commands::planning;
use crate::engine::conversation::Client;
use crate::engine::message::Shape;
use crate::observe::launched::Launched;
use crate::result::findings;
use crate::result::json_text;
use crate::result::junit;
use crate::result::repeat;
use crate::result::report::{self, Finished, Table};
use crate::result::threshold::METRICS;

/// Where a server is that nobody said anything about.
const LISTEN: &str = "127.0.0.1:8080";
const ADMIN: &str = "127.0.0.1:8081";
/// The metrics that say most about a run, in one line.
const KEY_METRICS: [&str; 6] = ["p50", "p99", "missing", "served_again", "bystander_p99", "connect_p99"];

/// Runs what was asked for; says whether all was well.
pub(crate) fn run_command(command: Command) -> Result<bool, Failure> {
    let command = match command {
        Command::Capacity(args) => return commands::capacity::run(&args),
        Command::Idle(args) => Stepped::Idle(commands::staged::with_stages(args)),
        Command::Fanout(args) => Stepped::Fanout(args),
        Command::Echo(args) => Stepped::Echo(args),
        Command::Ping(args) => Stepped::Ping(args),
        Command::Storm(args) => Stepped::Storm(args),
        Command::Slow(args) => Stepped::Slow(args),
        Command::Rolling(args) => Stepped::Rolling(args),
        Command::Memory(args) => Stepped::Memory(commands::memory::with_steps(args)?),
        Command::Compare(args) => return commands::compare::run(&args),
        Command::Merge(args) => return commands::merge::run(&args),
    };
    let mut command = command;
    command.read_preset().map_err(Failure::Usage)?;
    command.read_client().map_err(Failure::Usage)?;
    check(&command)?;
    if let (Stepped::Memory(args), 2..) = (&command, command.common().kit.repeat)
        && args.csv.is_some()
    {
        return Err(Failure::Usage("--csv holds the readings of one run: leave out --repeat".into()));
    }
    if command.common().kit.plan {
        command.place(None)?;
        return planning::run(command.name(), command.url(), command.common()).map(|plan| plan.ok);
    }
    let outcome = run(&command);
    if let (Err(Failure::Failed(why)), Some(path)) = (&outcome, &command.common().outputs.junit) {
        // Whoever counts cases must not take a run without a result for one that was never asked for.
        let written = report::write("--junit", path, &junit::without_result(command.name(), why));
        // What else went wrong is no reason to forget why.
        if let Err(also) = written
            && !why.contains(&also)
        {
            return Err(Failure::Failed(format!("{why}; {also}")));
        }
    }
    outcome.map(|finished| finished.ok)
}

/// Refuses flags that do not fit the command, and files that can't be written.
pub(crate) fn check(command: &Stepped) -> Result<(), Failure> {
    let csv = match command {
        Stepped::Memory(args) => args.csv.as_deref(),
        _ => None,
    };
    command.common().outputs.files().check(csv)?;
    if command.sends_for_no_time() {
        let what = "--duration 0s: there is no message in no time; idle opens connections and sends nothing";
        return Err(Failure::Usage(what.into()));
    }
    let thresholds = &command.common().kit.fail_if;
    thresholds
        .iter()
        .try_for_each(|threshold| threshold.check_command(command.name()))
        .map_err(Failure::Usage)
}

/// Runs a command once, or as often as `--repeat` says.
pub(crate) fn run(command: &Stepped) -> Result<Finished, Failure> {
    let kit = &command.common().kit;
    if kit.repeat == 1 {
        return run_once(command);
    }
    let mut single = command.clone();
    let quiet = std::mem::replace(&mut single.common_mut().kit.quiet, true);
    // Thresholds are judged over all runs, and the file is written once.
    single.common_mut().kit.fail_if.clear();
    single.common_mut().outputs = Outputs::default();
    let mut runs = Vec::new();
    for number in 1..=kit.repeat {
        let finished = run_once(&single)?;
        if !quiet {
            let problems = problems(&finished.value).join("; ");
            let verdict = if finished.ok { "ok" } else { &problems };
            let figures = key_figures(&finished.value);
            report::print_line(&format!("run {number} of {}: {figures}, {verdict}", kit.repeat));
        }
        runs.push(finished.value);
        if interrupt::requested() {
            break;
        }
    }
    let mut merged = repeat::merge(runs, &kit.fail_if);
    findings::add(&mut merged);
    let merged = merged;
    let table = if quiet { Table::default() } else { repeat::table(&merged) };
    report::publish_value(&merged, &json_text::to_text(&merged)?, &table, &command.common().outputs.files())?;
    let ok = merged.get("ok") == Some(&true.into());
    Ok(Finished { ok, value: merged })
}

/// The sentences under `problems` of a result.
pub(crate) fn problems(result: &serde_json::Value) -> Vec<String> {
    let list = result.get("problems").and_then(serde_json::Value::as_array).into_iter().flatten();
    list.filter_map(|problem| problem.as_str().map(str::to_owned)).collect()
}

/// The most telling figures of a result.
pub(crate) fn key_figures(result: &serde_json::Value) -> String {
    let known = KEY_METRICS.iter().filter_map(|name| {
        let metric = METRICS.iter().find(|metric| metric.name == *name)?;
        Some(format!("{name} {}", metric.text(metric.value_in(result)?)))
    });
    known.collect::<Vec<_>>().join(", ")
}

fn run_once(command: &Stepped) -> Result<Finished, Failure> {
    let mut command = command.clone();
    let kit = &command.common().kit;
    let mut server = kit.server.as_deref().map(|server| Launched::start(server, &kit.ready)).transpose()?;
    command.place(server.as_ref())?;
    if let Some(server) = &server {
        command.common_mut().pid.get_or_insert(server.pid());
    }
    let mut outcome = match &command {
        Stepped::Idle(args) => commands::idle::run(args),
        Stepped::Fanout(args) => commands::fanout::run(args),
        Stepped::Echo(args) => commands::echo::run(args),
        Stepped::Ping(args) => commands::echo::run_pings(args),
        Stepped::Storm(args) => commands::storm::run(args),
        Stepped::Slow(args) => commands::slow::run(args),
        Stepped::Memory(args) => commands::memory::run(args),
        Stepped::Rolling(args) => commands::rolling::run(args),
    };
    if let Some(Err(problem)) = server.as_mut().map(Launched::stop) {
        match &mut outcome {
            Ok(finished) => {
                note(&problem);
                finished.ok = false;
            }
            // Whatever else went wrong, this is why.
            Err(_) => outcome = Err(Failure::Failed(problem)),
        }
    }
    outcome
}

impl Stepped {
    /// Whether it is to send messages, or to drop connections one by one, and has no time to do it.
    fn sends_for_no_time(&self) -> bool {
        let none = self.common().duration.is_zero();
        let paced = |pace: &PaceFlags| none && pace.stages.is_none() && pace.ramp.is_zero();
        match self {
            Self::Fanout(args) => paced(&args.load.pace),
            Self::Slow(args) => paced(&args.fanout.load.pace),
            Self::Echo(args) => paced(&args.load.pace),
            Self::Ping(args) => paced(&args.pace),
            Self::Rolling(_) => none,
            Self::Storm(args) => none && args.rate.is_some(),
            Self::Idle(_) | Self::Memory(_) => false,
        }
    }

    /// The command's name.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Idle(_) => "idle",
            Self::Fanout(_) => "fanout",
            Self::Echo(_) => "echo",
            Self::Ping(_) => "ping",
            Self::Storm(_) => "storm",
            Self::Slow(_) => "slow",
            Self::Memory(_) => "memory",
            Self::Rolling(_) => "rolling",
        }
    }

    /// Where its connections go.
    pub(crate) fn url(&self) -> &str {
        match self {
            Self::Idle(args) => &args.url,
            Self::Fanout(args) => &args.url,
            Self::Echo(args) => &args.url,
            Self::Ping(args) => &args.url,
            Self::Storm(args) => &args.url,
            Self::Slow(args) => &args.fanout.url,
            Self::Memory(args) => &args.url,
            Self::Rolling(args) => &args.url,
        }
    }

    /// The same, to change it.
    fn url_mut(&mut self) -> &mut String {
        match self {
            Self::Idle(args) => &mut args.url,
            Self::Fanout(args) => &mut args.url,
            Self::Echo(args) => &mut args.url,
            Self::Ping(args) => &mut args.url,
            Self::Storm(args) => &mut args.url,
            Self::Slow(args) => &mut args.fanout.url,
            Self::Memory(args) => &mut args.url,
            Self::Rolling(args) => &mut args.url,
        }
    }

    /// Flags of every command.
    pub(crate) fn common(&self) -> &Common {
        match self {
            Self::Idle(args) => &args.common,
            Self::Fanout(args) => &args.common,
            Self::Echo(args) => &args.common,
            Self::Ping(args) => &args.common,
            Self::Storm(args) => &args.common,
            Self::Slow(args) => &args.fanout.common,
            Self::Memory(args) => &args.common,
            Self::Rolling(args) => &args.common,
        }
    }

    /// The same, to change them.
    pub(crate) fn common_mut(&mut self) -> &mut Common {
        match self {
            Self::Idle(args) => &mut args.common,
            Self::Fanout(args) => &mut args.common,
            Self::Echo(args) => &mut args.common,
            Self::Ping(args) => &mut args.common,
            Self::Storm(args) => &mut args.common,
            Self::Slow(args) => &mut args.fanout.common,
            Self::Memory(args) => &mut args.common,
            Self::Rolling(args) => &mut args.common,
        }
    }

    /// Puts in what `--preset` says, where no flag does.
    pub(crate) fn read_preset(&mut self) -> Result<(), String> {
        let talk = &mut self.common_mut().talk;
        let Some(preset) = talk.preset else { return Ok(()) };
        talk.script = preset.script(&talk.set)?;
        let script = talk.script.clone();
        let (url, load, publishing) = match self {
            Self::Fanout(args) => (&mut args.url, Some(&mut args.load), Some(&mut args.publishing)),
            Self::Slow(args) => {
                (&mut args.fanout.url, Some(&mut args.fanout.load), Some(&mut args.fanout.publishing))
            }
            Self::Echo(args) => (&mut args.url, Some(&mut args.load), None),
            Self::Ping(args) => (&mut args.url, None, None),
            Self::Idle(args) => (&mut args.url, None, None),
            Self::Storm(args) => (&mut args.url, None, None),
            Self::Memory(args) => (&mut args.url, None, None),
            Self::Rolling(args) => (&mut args.url, None, None),
        };
        let place = url.split_once("://").map_or("", |(_, place)| place);
        // A default names a place of Fantail's.
        if place.starts_with("{listen}") {
            *url = "ws://{listen}".into();
        }
        if !url.split_once("://").map_or("", |(_, place)| place).contains(['/', '?']) {
            url.push_str(&script.path);
        }
        if let Some(load) = load {
            load.message.get_or_insert(script.message);
        }
        if let Some(publishing) = publishing {
            let by_http = publishing.publish_url.as_ref().is_some_and(|url| url.starts_with("http"));
            if !by_http {
                publishing.publish = PublishBy::Ws;
            }
        }
        Ok(())
    }

    /// Decides what kind of clients there are, by the URL unless a flag says it.
    pub(crate) fn read_client(&mut self) -> Result<(), String> {
        let by_http = ["http://", "https://"].iter().any(|scheme| self.url().starts_with(scheme));
        let default = if by_http { Client::Sse } else { Client::Ws };
        let client = *self.common_mut().listen.client.get_or_insert(default);
        if client == Client::Ws {
            return Ok(());
        }
        // A default names a place of Fantail's.
        if ["ws://{listen}/ws", FANOUT_URL].contains(&self.url()) {
            let dialect = if client == Client::Sse { "sse" } else { "poll" };
            *self.url_mut() = format!("http://{{listen}}/{dialect}/{{topic}}");
            if client == Client::Poll {
                let next = || "http://{listen}/poll/{topic}?since={position}".to_owned();
                self.common_mut().listen.resume_url.get_or_insert_with(next);
            }
        }
        if self.common().talk.preset.is_some() {
            return Err("--preset: these protocols are spoken over WebSockets".into());
        }
        let load = match self {
            Self::Echo(_) | Self::Ping(_) => {
                return Err(format!("{}: event streams and polls do not speak: use ws://", self.name()));
            }
            Self::Fanout(args) => Some(args.load.shape()),
            Self::Slow(args) => Some(args.fanout.load.shape()),
            Self::Idle(_) | Self::Storm(_) | Self::Memory(_) | Self::Rolling(_) => None,
        };
        if load.is_some_and(Shape::is_binary) {
            return Err(
                "event streams and polls carry text: leave out --binary, and use --size 48 or more".into()
            );
        }
        Ok(())
    }

    /// Fills `{listen}` and `{admin}` in.
    fn place(&mut self, server: Option<&Launched>) -> Result<(), Failure> {
        let common = self.common_mut();
        let mut others = (common.server_metrics.take(), common.listen.resume_url.take());
        let urls = self.urls_mut().into_iter().chain(&mut others.0).chain(&mut others.1);
        let placed = urls.into_iter().try_for_each(|url| place(url, server));
        let common = self.common_mut();
        (common.server_metrics, common.listen.resume_url) = others;
        placed
    }

    fn urls_mut(&mut self) -> Vec<&mut String> {
        let fanout = match self {
            Self::Idle(args) => return vec![&mut args.url],
            Self::Echo(args) => return vec![&mut args.url],
            Self::Ping(args) => return vec![&mut args.url],
            Self::Memory(args) => return vec![&mut args.url],
            Self::Rolling(args) => {
                return std::iter::once(&mut args.url).chain(&mut args.publish_urls).collect();
            }
            Self::Storm(args) => {
                return [&mut args.url, &mut args.bystander]
                    .into_iter()
                    .chain(&mut args.publish_url)
                    .collect();
            }
            Self::Fanout(args) => args,
            Self::Slow(args) => &mut args.fanout,
        };
        let publishing = &mut fanout.publishing;
        publishing.given |= publishing.publish_url.is_some();
        let publish_url = match publishing.publish {
            PublishBy::Http if fanout.load.shape().is_binary() => {
                "http://{admin}/publish/{topic}?binary=1".to_owned()
            }
            PublishBy::Http => "http://{admin}/publish/{topic}".to_owned(),
            // A publisher needs no messages of its own; to what was given nothing is added.
            PublishBy::Ws if fanout.url == FANOUT_URL => format!("{FANOUT_URL}?echo=0"),
            PublishBy::Ws => fanout.url.clone(),
        };
        vec![&mut fanout.url, publishing.publish_url.get_or_insert(publish_url)]
    }
}

/// Fills `{listen}` and `{admin}` in.
fn place(url: &mut String, server: Option<&Launched>) -> Result<(), Failure> {
    for (placeholder, caught, default) in [
        ("{listen}", server.map(|server| server.listen.as_deref()), LISTEN),
        ("{admin}", server.map(|server| server.admin.as_deref()), ADMIN),
    ] {
        if !url.contains(placeholder) {
            continue;
        }
        let address = caught.unwrap_or(Some(default)).ok_or_else(|| {
            Failure::Usage(format!("{url}: the server's ready line does not say {placeholder}; see --ready"))
        })?;
        *url = url.replace(placeholder, address);
    }
    Ok(())
}
