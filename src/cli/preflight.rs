//! `fantail preflight`: whether this machine holds a number of connections, and what to type if not; with `--tls`, what
//! clients say of certificates ([`super::preflight_tls`]). Changes nothing.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::{Value, json};

use crate::config::{Flag, Settings, Sources, Tables, load};
use crate::preflight::list::{Effect, embedded};
use crate::preflight::{Finding, Level, Plan, Report, assess};
use crate::server::capacity::{facts_of, memory_bytes};

use super::preflight_tls::{self, TlsArgs};
use super::{FAILED, MISUSED, config_file, fail, print};

pub(super) const EXAMPLES: &str = "\
Looks at the open files of each event loop's table, the memory of the machine and of the control group, the kernel \
settings of sysctl/fantail.conf, and what a load generator on this machine could open. Memory is for idle \
connections. Exit code: 0 the number is held, 1 it is not, 2 wrong usage.

With --tls it explains a chain of certificates and says what is wrong with it for whoever trusts the authorities of the \
system, or those of --ca: of files, of the configuration, or of a server that runs. Of a configuration it looks at those of the admin port, too, and at \
authorities of clients, lists of revoked ones and responses of OCSP; whatever is wrong, it looks at the others. Exit code: 0 \
such clients take all, 1 they don't, a file is of no use or there is no server, 2 wrong usage or no such file as a flag names.

Examples:
  fantail preflight --connections 100000
      What is in the way of 100,000 connections here?
  fantail preflight --connections 1000000 --loops 4
      The same with four event loops.
  fantail preflight --connections 50000 --config fantail.toml --json
      With the loops and limits of a configuration, as one JSON object.
  fantail preflight --tls --certificate fullchain.pem --key privkey.pem --host app.example
      Will clients that ask for app.example take these files?
  fantail preflight --tls --config /etc/fantail/fantail.toml
      Will they take those of tls.certificate and admin.tls_certificate, and are the files beside them of use?
  fantail preflight --tls --connect app.example:8443 --json
      What does a server show, and what does it agree on? As one JSON object.";

/// Flags of `preflight`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(super) struct PreflightArgs {
    /// Connections that shall be held
    #[arg(short, long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    #[arg(required_unless_present = "tls", conflicts_with = "tls")]
    connections: Option<u64>,
    /// Event loops, 0 for automatic [default: 0; env: FANTAIL_SERVER_LOOPS]
    #[arg(long, value_name = "N", conflicts_with = "tls")]
    loops: Option<String>,
    /// TOML file with the configuration of the server [env: FANTAIL_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Answer as one JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    tls: TlsArgs,
}

/// Asks and prints.
pub(super) fn run(args: &PreflightArgs) -> ExitCode {
    if let Some(flag) = args.tls.pointless() {
        return fail(MISUSED, &format!("{flag}: is for --tls"));
    }
    let flag = |value: String| Flag { flag: "--loops", section: "server", key: "loops", value };
    let environment: Vec<_> = std::env::vars_os().collect();
    let sources = Sources {
        file: config_file(args.config.as_ref(), &environment),
        environment,
        flags: args.loops.clone().map(flag).into_iter().collect(),
    };
    let settings = match load(&sources) {
        Ok(loaded) => loaded.settings,
        // Files and servers are looked at whatever a variable says.
        Err(_) if args.tls.has_its_own() => Settings::default(),
        Err(errors) => return fail(MISUSED, &errors.to_string()),
    };
    let Some(connections) = args.connections else {
        return preflight_tls::run(&args.tls, &settings, args.json);
    };
    let facts = match facts_of(Path::new("/")) {
        Ok(facts) => facts,
        Err(error) => return fail(FAILED, &error.to_string()),
    };
    let plan = Plan { connections, settings: &settings, memory_bytes };
    let report = assess(&plan, &facts, &embedded());
    print(&if args.json { as_json(&report) } else { as_text(&report) });
    if report.holds() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}

fn as_text(report: &Report) -> String {
    let tables = match report.tables {
        Tables::PerLoop => "each with a descriptor table of its own",
        Tables::Shared => "which share one descriptor table",
    };
    let mut text =
        format!("{} connections on {} event loops, {tables}\n\n", report.connections, report.loops);
    for finding in &report.findings {
        text.push_str(&row(finding));
    }
    let verdict = if report.holds() { "They hold." } else { "They do not hold." };
    text.push_str(&format!(
        "\n{verdict} The most that hold now are {}; the first limit is: {}\n",
        report.highest, report.binds
    ));
    if report.holds() {
        // Without it the server takes loops for 50,000.
        text.push_str(&format!("Start it with server.connections_max = {}.\n", report.connections));
    }
    if let Some(container) = report.container {
        text.push_str(&format!(
            "This is a container ({container}): what is marked as outside is set where it is started or on its \
             host, not in here.\n"
        ));
    }
    text
}

fn row(finding: &Finding) -> String {
    let level = finding.level.label();
    let mut text = format!("{level:<7} {}: {}; needed: {}\n", finding.name, finding.current, finding.needed);
    if finding.level != Level::Fine {
        if let Some(highest) = finding.highest {
            text.push_str(&format!("        enough for {highest}\n"));
        }
        text.push_str(&format!("        {}\n", finding.why));
    }
    if let Some(fix) = &finding.fix {
        let place = if finding.outside { "outside: " } else { "" };
        text.push_str(&format!("        {place}{fix}\n"));
    }
    text
}

fn as_json(report: &Report) -> String {
    let tables = match report.tables {
        Tables::PerLoop => "split",
        Tables::Shared => "shared",
    };
    let report = json!({
        "connections": report.connections,
        "holds": report.holds(),
        "highest": report.highest,
        "binds": report.binds,
        "loops": report.loops,
        "tables": tables,
        "container": report.container,
        "findings": report.findings.iter().map(finding_json).collect::<Vec<_>>(),
    });
    format!("{report}\n")
}

fn finding_json(finding: &Finding) -> Value {
    let effect = match finding.effect {
        Effect::Binds => "binds",
        Effect::Slows => "slows",
        Effect::Generator => "generator",
    };
    json!({
        "name": finding.name,
        "level": finding.level.label(),
        "effect": effect,
        "current": finding.current,
        "needed": finding.needed,
        "highest": finding.highest,
        "outside": finding.outside,
        "why": finding.why,
        "fix": finding.fix,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(highest: u64) -> Report {
        let finding = |level, outside| Finding {
            name: "open \"files\"".to_owned(),
            level,
            effect: Effect::Binds,
            current: "1000".to_owned(),
            needed: "2064".to_owned(),
            highest: Some(highest),
            why: "because".to_owned(),
            outside,
            fix: (level != Level::Fine).then(|| "type this".to_owned()),
        };
        Report {
            connections: 2000,
            loops: 1,
            tables: Tables::PerLoop,
            highest,
            binds: "open \"files\"".to_owned(),
            container: Some("docker"),
            findings: vec![finding(Level::Short, true), finding(Level::Fine, false)],
        }
    }

    #[test]
    fn both_answers_say_the_same() {
        let (text, parsed) = (
            as_text(&report(936)),
            serde_json::from_str::<serde_json::Value>(&as_json(&report(936))).unwrap(),
        );
        assert_eq!((&parsed["holds"], &parsed["highest"]), (&false.into(), &936.into()));
        assert_eq!(parsed["findings"][0]["fix"], "type this");
        assert_eq!(parsed["findings"][1]["fix"], serde_json::Value::Null);
        assert_eq!(parsed["findings"][0]["name"], parsed["binds"]);
        for part in ["short   open", "enough for 936", "outside: type this", "do not hold", "(docker)"] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(as_text(&report(2000)).contains("They hold."));
    }
}
