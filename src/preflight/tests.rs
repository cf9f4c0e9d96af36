//! Machines as files: what each holds, what binds there, and that the answer agrees with itself everywhere.

use std::path::Path;

use super::*;
use crate::server::capacity::memory_bytes;

fn process(nofile: u64, tables: Tables) -> Process {
    Process { nofile, tables, cores: 2 }
}

fn machine(name: &str, process: Process) -> Facts {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/machines").join(name);
    assert!(root.is_dir(), "{}", root.display());
    Facts::gather(process, &list::embedded(), |path| std::fs::read_to_string(root.join(path)).ok())
}

fn asked(facts: &Facts, connections: u64, loops: Option<usize>) -> Report {
    let mut settings = Settings::default();
    settings.server.loops = loops;
    assess(&Plan { connections, settings: &settings, memory_bytes }, facts, &list::embedded())
}

fn finding<'a>(report: &'a Report, name: &str) -> &'a Finding {
    let found = report.findings.iter().find(|finding| finding.name.starts_with(name));
    found.unwrap_or_else(|| panic!("no finding {name}: {report:#?}"))
}

#[test]
fn a_host_holds_what_its_tables_hold() {
    let facts = machine("host-v2", process(20_000, Tables::PerLoop));
    let report = asked(&facts, 50_000, Some(2));
    assert!(!report.holds());
    assert_eq!((report.highest, report.binds.as_str()), (2 * 19_936, "open files"));
    let files = finding(&report, "open files");
    assert_eq!((files.level, files.outside), (Level::Short, false));
    assert!(files.fix.as_ref().unwrap().contains("LimitNOFILE=25064"), "{files:?}");
    // That is enough.
    let raised = machine("host-v2", process(25_064, Tables::PerLoop));
    assert!(asked(&raised, 50_000, Some(2)).holds());
    // As are more loops, which is what the server does by itself.
    let automatic = asked(&facts, 50_000, None);
    assert_eq!((automatic.holds(), automatic.loops), (true, 3));
}

#[test]
fn a_shared_table_is_counted_once() {
    let report = asked(&machine("host-v2", process(20_000, Tables::Shared)), 30_000, Some(3));
    assert_eq!((report.highest, report.binds.as_str()), (20_000 - 64 - 2 * 4, "open files"));
    assert!(finding(&report, "open files").current.contains("one table"));
}

#[test]
fn a_firewall_that_tracks_binds() {
    let facts = machine("host-v2", process(1 << 20, Tables::PerLoop));
    let report = asked(&facts, 1_000_000, None);
    let tracked = finding(&report, "net.netfilter.nf_conntrack_max");
    assert_eq!((tracked.level, tracked.highest), (Level::Short, Some(212_144)));
    assert_eq!(tracked.fix.as_deref(), Some("sysctl -w net.netfilter.nf_conntrack_max=\"1100000\""));
    assert_eq!(report.binds, "net.netfilter.nf_conntrack_max");
    // Without a tracked connection it is a hint.
    let idle = Facts { tracked: 0, ..facts };
    let report = asked(&idle, 1_000_000, None);
    assert_eq!(finding(&report, "net.netfilter.nf_conntrack_max").level, Level::Hint);
    assert!(report.holds(), "{report:#?}");
    assert_eq!(finding(&report, "fs.file-max").level, Level::Fine, "no limit is no overflow");
    assert_eq!(finding(&report, "net.ipv4.tcp_mem").needed, "500000 750000 1000000");
    assert_eq!(finding(&report, "net.core.somaxconn").level, Level::Fine, "as server.backlog");
    assert!(finding(&report, "net.ipv4.ip_local_port_range").needed.contains("36 source addresses"));
}

#[test]
fn a_small_container_is_bound_by_its_group_and_told_so() {
    let facts = machine("docker-v1", process(1 << 20, Tables::PerLoop));
    assert_eq!(facts.container, Some("docker"));
    // 256 MiB, of which 40 are used and 20 of these are file pages.
    assert_eq!(facts.group.as_ref().map(|group| group.free), Some((256 - 40 + 20) << 20));
    let report = asked(&facts, 100_000, None);
    assert!(report.binds.starts_with("memory of the control group"), "{report:#?}");
    assert!((50_000..60_000).contains(&report.highest), "{}", report.highest);
    let group = finding(&report, "memory of the control group");
    assert!(group.outside && group.fix.as_ref().unwrap().starts_with("--memory 4"), "{group:?}");
    // Of 98,304 files 3,296 are open already, and 10,000 are kept for others.
    let files = finding(&report, "fs.file-max");
    assert_eq!((files.highest, files.level), (Some(98_304 - 3_296 - 10_000), Level::Short));
    assert!(files.fix.as_ref().unwrap().starts_with("on the host: sysctl -w fs.file-max="), "{files:?}");
    let queue = finding(&report, "net.core.somaxconn");
    assert_eq!((queue.level, queue.outside), (Level::Hint, true));
    assert_eq!(queue.fix.as_deref(), Some("--sysctl net.core.somaxconn=\"65535\" for the container"));
}

#[test]
fn a_pod_is_told_what_it_cannot_see() {
    let facts = machine("pod-v2", process(1 << 20, Tables::PerLoop));
    assert_eq!(facts.container, Some("kubernetes"));
    assert_eq!(facts.group.as_ref().map(|group| group.free), Some((1 << 30) - (12 << 20) + (8 << 20)));
    let report = asked(&facts, 200_000, None);
    assert!(report.holds(), "{report:#?}");
    let hidden = finding(&report, "net.netfilter.nf_conntrack_max");
    assert_eq!((hidden.level, hidden.outside, hidden.highest), (Level::Unknown, true, None));
    assert!(!asked(&facts, 300_000, None).holds());
}

/// On every machine the most that hold hold, and one more does not.
#[test]
fn the_highest_number_is_the_highest() {
    let limits = [(200, Some(1)), (1_000, Some(3)), (1_024, None), (5_000, Some(4)), (20_000, None)];
    for name in ["host-v2", "docker-v1", "pod-v2"] {
        for (nofile, loops) in limits.into_iter().chain([(1 << 20, None), (1 << 20, Some(63))]) {
            for tables in [Tables::PerLoop, Tables::Shared] {
                let facts = machine(name, process(nofile, tables));
                let highest = asked(&facts, 1, loops).highest;
                let here = format!("{name} {nofile} {loops:?} {tables:?}: {highest}");
                let short = |connections| {
                    let report = asked(&facts, connections, loops);
                    assert_eq!(report.highest, highest, "{here}: the number asked for changed it");
                    report.findings.iter().any(|finding| finding.level == Level::Short)
                };
                assert!(highest > 0 && !short(highest), "{here}");
                assert!(short(highest + 1), "{here}");
            }
        }
    }
}

/// The open files that a finding asks for are enough, and one less is not.
#[test]
fn the_open_files_asked_for_are_just_enough() {
    for (connections, loops) in [(936, Some(1)), (10_000, Some(3)), (1_000_000, Some(2)), (90_000, None)] {
        for tables in [Tables::PerLoop, Tables::Shared] {
            let mut settings = Settings::default();
            settings.server.loops = loops;
            let plan = Plan { connections, settings: &settings, memory_bytes };
            let facts = machine("host-v2", process(100, tables));
            let asked = Asked { plan: &plan, facts: &facts };
            let needed = asked.table_files(connections);
            let here = format!("{connections} {loops:?} {tables:?}: {needed}");
            assert!(asked.derive(connections, loops, needed).is_ok(), "{here}");
            assert!(asked.derive(connections, loops, needed - 1).is_err(), "{here}");
        }
    }
}

/// The loops that are named are those that the open files are for.
#[test]
fn there_is_one_answer_with_automatic_loops() {
    let with = |nofile| asked(&machine("host-v2", process(nofile, Tables::PerLoop)), 2_000_000, None);
    let short = with(20_000);
    let files = finding(&short, "open files");
    assert!(files.current.starts_with(&format!("{} tables of 20000", short.loops)), "{files:?}");
    let needed: u64 = files.needed.split(' ').next().unwrap().parse().unwrap();
    let raised = with(needed);
    assert_eq!((raised.loops, finding(&raised, "open files").level), (short.loops, Level::Fine));
    assert_eq!(finding(&with(needed - 1), "open files").level, Level::Short);
}

#[test]
fn what_is_well_does_not_need_more() {
    for connections in [1, 1_000, 100_000] {
        let report = asked(&machine("host-v2", process(1 << 20, Tables::PerLoop)), connections, None);
        for found in report.findings.iter().filter(|found| found.level == Level::Fine) {
            let numbers = |text: &str| -> Option<Vec<u64>> {
                text.split(' ').map(|word| word.parse().ok()).collect::<Option<Vec<_>>>()
            };
            if let (Some(current), Some(needed)) = (numbers(&found.current), numbers(&found.needed)) {
                assert!(current.iter().zip(&needed).all(|(current, needed)| current >= needed), "{found:?}");
            }
        }
    }
}

#[test]
fn what_may_wait_is_held_against_the_memory() {
    let facts = machine("docker-v1", process(1 << 20, Tables::PerLoop));
    let waiting = |settings: &Settings| {
        let plan = Plan { connections: 1_000, settings, memory_bytes };
        finding(&assess(&plan, &facts, &list::embedded()), "what may wait").clone()
    };
    assert_eq!(waiting(&Settings::default()).level, Level::Fine, "half of the group's 256 MiB");
    let mut settings = Settings::default();
    settings.outbox.bytes_total = Some(256 << 20);
    let hint = waiting(&settings);
    assert_eq!((hint.level, hint.highest), (Level::Hint, None));
    assert!(hint.needed.contains("256 MiB of the control group"), "{hint:?}");
}
