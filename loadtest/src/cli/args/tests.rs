//! What flags mean, and what is refused.

use clap::CommandFactory;

use super::*;

#[test]
fn the_command_line_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn defaults_and_flags_parse() {
    let cli = Cli::try_parse_from(["x", "fanout", "--rate", "0.5", "--publish", "ws", "--duration", "2m"]);
    let Command::Fanout(args) = cli.unwrap().command else { panic!("another command") };
    assert_eq!((args.rate, args.publishing.publish, args.load.size), (0.5, PublishBy::Ws, Sizes::One(64)));
    assert_eq!(args.common.duration, Duration::from_secs(120));
}

#[test]
fn steps_have_short_forms() {
    let cli = Cli::try_parse_from(["x", "memory", "--steps", "500,10k,1m"]);
    let Command::Memory(args) = cli.unwrap().command else { panic!("another command") };
    assert_eq!(args.steps.unwrap(), [500, 10_000, 1_000_000]);
}

#[test]
fn wrong_values_are_usage_errors() {
    for wrong in [
        &["x", "memory", "--steps", "10x"][..],
        &["x", "memory", "--steps", "99m"],
        &["x", "memory", "--steps", "1,2", "--connections", "5"],
        &["x", "compare", "a.json"],
        &["x", "merge", "a.json"],
        &["x"],
        &["x", "squall"],
        &["x", "slow", "--slow-fraction", "1"],
        &["x", "capacity", "echo"],
        &["x", "capacity", "--step", "rate=1", "capacity"],
        &["x", "echo", "--fail-if", "p99>50"],
        &["x", "echo", "--ready", "x"],
        &["x", "echo", "--repeat", "0"],
        &["x", "idle", "--rate", "5"],
        &["x", "idle", "--connections", "0"],
        &["x", "idle", "--duration", "5"],
        &["x", "echo", "--rate", "0"],
        &["x", "echo", "--rate", "nan"],
        &["x", "echo", "--size", "15"],
        &["x", "fanout", "--publish", "smoke-signals"],
    ] {
        assert_eq!(Cli::try_parse_from(wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
    }
}
