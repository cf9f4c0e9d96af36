//! `fantail sizes`: predicts the memory a load will need, before anybody buys the machine. Starts nothing.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::config::{Limits, Settings, Tables};
use crate::server::sizes::{Field, Layout, Load, Part, kernel_bytes_estimate, layouts, total, user_parts};
use crate::sys::limits;

use super::{MISUSED, fail, print};

pub(super) const EXAMPLES: &str = "\
The user-space parts follow from the sizes of the server's own structs and the rules by which its tables grow; the \
kernel's part is an estimate. Idle connections are within 25 % of it, usually 5 %; a backlog may take half as much \
again, because queues that grow in step leave holes. Every connection is taken to be subscribed to one topic.

Exit codes: 0 printed, 1 the answer cannot be written, 2 wrong usage.

Examples:
  fantail sizes --connections 1000000
      A million idle connections on one topic.
  fantail sizes --connections 50000 --topics 50000
      Everybody on a topic of their own.
  fantail sizes --connections 2000 --backlog 64 --message-bytes 1024 --json
      Everybody 64 messages of 1 KiB behind, as JSON.
  fantail sizes --layout
      Each field of a connection's structs: offset, bytes, name.";

/// Flags of `sizes`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(super) struct SizesArgs {
    /// Open connections
    #[arg(short, long, value_name = "N", required_unless_present = "layout", default_value_t = 0, hide_default_value = true,
          value_parser = clap::value_parser!(u64).range(0..=100_000_000))]
    connections: u64,
    /// Topics, with equally many subscribers each
    #[arg(short, long, value_name = "T", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    topics: u64,
    /// Messages that wait for every connection
    #[arg(short, long, value_name = "B", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=65_535))]
    backlog: u64,
    /// Bytes of each waiting message
    #[arg(long, value_name = "BYTES", default_value_t = 128, value_parser = clap::value_parser!(u64).range(0..=1 << 30))]
    message_bytes: u64,
    /// Event loops [default: what this machine would take for so many connections]
    #[arg(long, value_name = "L", value_parser = clap::value_parser!(u64).range(1..=63))]
    loops: Option<u64>,
    /// Show instead what the structs of a connection are made of
    #[arg(long, conflicts_with_all = ["connections", "topics", "backlog", "message_bytes", "loops"])]
    layout: bool,
    /// Answer as one JSON object
    #[arg(long)]
    json: bool,
}

/// Predicts and prints.
pub(super) fn run(args: &SizesArgs) -> ExitCode {
    if args.layout {
        let structs = layouts();
        return print(&if args.json { layouts_as_json(&structs) } else { layouts_as_text(&structs) });
    }
    let load = match args.load() {
        Ok(load) => load,
        Err(problem) => return fail(MISUSED, &problem),
    };
    print(&if args.json { as_json(&load) } else { as_text(&load) })
}

impl SizesArgs {
    fn load(&self) -> Result<Load, String> {
        let count = |value: u64| usize::try_from(value).map_err(|_| format!("{value} is too much here"));
        let connections = count(self.connections)?;
        let loops = match self.loops {
            Some(loops) => count(loops)?,
            None => loops_here(connections)?,
        };
        Ok(Load {
            connections,
            topics: count(self.topics)?,
            backlog: count(self.backlog)?,
            message_bytes: count(self.message_bytes)?,
            loops,
        })
    }
}

/// The loops `serve` would start on this machine.
fn loops_here(connections: usize) -> Result<usize, String> {
    let nofile = limits::nofile().map_err(|error| format!("cannot read the open files limit: {error}"))?;
    let nofile = usize::try_from(nofile.hard).unwrap_or(usize::MAX);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut server = Settings::default().server;
    server.connections_max = Some(connections.max(1));
    let derived = Limits::derive(&server, cores, nofile, Tables::PerLoop);
    derived.map(|limits| limits.loops).map_err(|error| format!("on this machine {error}; or give --loops"))
}

fn as_text(load: &Load) -> String {
    let parts = user_parts(load);
    let total = total(&parts);
    let mut text = format!(
        "{} connections, {} topics, {} event loops, {} messages of {} bytes waiting for each\n\n",
        load.connections, load.topics, load.loops, load.backlog, load.message_bytes
    );
    for part in &parts {
        text.push_str(&row(part.name, part.bytes, load));
    }
    text.push_str(&row("user space", total, load));
    text.push_str(&row("kernel (estimate)", kernel_bytes_estimate(load), load));
    text
}

fn row(name: &str, bytes: u64, load: &Load) -> String {
    let each = if load.connections == 0 { 0.0 } else { bytes as f64 / load.connections as f64 };
    format!("{name:<22} {:>12}  {each:>10.1} bytes a connection\n", readable(bytes))
}

/// Bytes with the unit that leaves one to four digits in front of the point.
fn readable(bytes: u64) -> String {
    let units = [(30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.into_iter().find(|(shift, _)| bytes >= 1 << shift) {
        Some((shift, unit)) => format!("{:.1} {unit}", bytes as f64 / (1_u64 << shift) as f64),
        None => format!("{bytes} B"),
    }
}

fn as_json(load: &Load) -> String {
    let parts = user_parts(load);
    let connections =
        parts.iter().filter(|part| !part.fixed).fold(0_u64, |all, part| all.saturating_add(part.bytes));
    let part = |part: &Part| json!({ "name": part.name, "bytes": part.bytes, "fixed": part.fixed });
    let sizes = json!({
        "connections": load.connections,
        "topics": load.topics,
        "backlog": load.backlog,
        "message_bytes": load.message_bytes,
        "loops": load.loops,
        "user_bytes": total(&parts),
        "connection_bytes": connections,
        "parts": parts.iter().map(part).collect::<Vec<_>>(),
        "kernel_bytes_estimate": kernel_bytes_estimate(load),
    });
    format!("{sizes}\n")
}

fn layouts_as_text(structs: &[Layout]) -> String {
    let mut text = String::from("offset  bytes\n");
    for layout in structs {
        text.push_str(&format!("\n{:>13}  {}: {}\n", layout.bytes, layout.name, layout.when));
        for field in layout.in_order() {
            text.push_str(&format!("{:>6} {:>6}    {}\n", field.offset, field.bytes, field.name));
        }
        if layout.padding() > 0 {
            text.push_str(&format!("{:>13}    (padding)\n", layout.padding()));
        }
    }
    text
}

fn layouts_as_json(structs: &[Layout]) -> String {
    let field = |field: &Field| json!({ "name": field.name, "offset": field.offset, "bytes": field.bytes });
    let layout = |layout: &Layout| {
        json!({
            "name": layout.name,
            "when": layout.when,
            "bytes": layout.bytes,
            "padding": layout.padding(),
            "fields": layout.in_order().iter().map(field).collect::<Vec<_>>(),
        })
    };
    format!("{}\n", json!({ "structs": structs.iter().map(layout).collect::<Vec<_>>() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_answers_have_every_part() {
        let load = Load { connections: 1000, topics: 10, backlog: 2, message_bytes: 100, loops: 2 };
        let (text, parsed) =
            (as_text(&load), serde_json::from_str::<serde_json::Value>(&as_json(&load)).unwrap());
        let parts = user_parts(&load);
        assert_eq!(parsed["parts"].as_array().unwrap().len(), parts.len());
        let total: u64 = parts.iter().map(|part| part.bytes).sum();
        assert_eq!(parsed["user_bytes"], total);
        for part in parts {
            assert!(text.contains(part.name), "{text}");
        }
    }

    #[test]
    fn both_answers_have_every_field() {
        let structs = layouts();
        let text = layouts_as_text(&structs);
        let parsed = serde_json::from_str::<serde_json::Value>(&layouts_as_json(&structs)).unwrap();
        for (layout, answered) in structs.iter().zip(parsed["structs"].as_array().unwrap()) {
            assert_eq!((&answered["name"], &answered["bytes"]), (&layout.name.into(), &layout.bytes.into()));
            assert_eq!(answered["fields"].as_array().unwrap().len(), layout.fields.len());
            for field in layout.fields {
                let row = format!("{:>6} {:>6}    {}\n", field.offset, field.bytes, field.name);
                assert!(text.contains(&row), "{text}");
            }
        }
    }

    #[test]
    fn bytes_are_readable() {
        let shown = [0, 1023, 1024, 5 << 20, 3 << 30].map(readable);
        assert_eq!(shown, ["0 B", "1023 B", "1.0 KiB", "5.0 MiB", "3.0 GiB"]);
    }
}
