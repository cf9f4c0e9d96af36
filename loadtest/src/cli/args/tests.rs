//! What flags mean, and what is refused.

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
fn settings_hold_defaults_too() {
    let line = ["x", "idle", "--connections", "7", "--deflate"].map(OsString::from);
    let settings = settings_of(line);
    assert_eq!((settings["connections"].as_str(), settings["duration"].as_str()), ("7", "5s"));
    assert_eq!(settings["deflate"], "true");
    assert!(!settings.contains_key("pid") && !settings.contains_key("help"), "{settings:?}");
}

#[test]
fn settings_hold_no_secrets() {
    let line = [
        "x",
        "fanout",
        "--url",
        "ws://h/?token=SECRET",
        "--hello",
        "SECRET",
        "--header",
        "A: SECRET",
        "--publish-header",
        "B: SECRET",
        "--publish-url",
        "http://h/p?sig=SECRET",
        "--hello-hex",
        "53",
        "--reply",
        "a=>{hmac_sha256(SECRET,b)}",
        "--server-metrics",
        "http://h/m?key=SECRET",
    ];
    let settings = settings_of(line.map(OsString::from));
    assert!(settings.len() > 10 && !settings.values().any(|value| value.contains("SECRET")), "{settings:#?}");
    assert_eq!(settings["url"], "ws://h/?token=…");
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
