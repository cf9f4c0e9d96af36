//! The flags of a run as its result keeps them: texts, without what authorizes a client.

use std::collections::BTreeMap;
use std::ffi::OsString;

use clap::CommandFactory;
use clap::parser::ValueSource;

use crate::base::secrets;
use crate::cli::args::Cli;

/// Every flag of this process's command line, given or by default, as text for the result file.
pub(crate) fn settings() -> BTreeMap<String, String> {
    settings_of(std::env::args_os())
}

fn settings_of(line: impl IntoIterator<Item = OsString>) -> BTreeMap<String, String> {
    let mut command = Cli::command();
    let Ok(matches) = command.try_get_matches_from_mut(line) else { return BTreeMap::new() };
    let mut settings = BTreeMap::new();
    let (mut command, mut matches) = (&command, &matches);
    // `capacity` has the flags of another command behind its own, which go first.
    while let Some((name, inner)) = matches.subcommand() {
        let Some(found) = command.find_subcommand(name) else { break };
        (command, matches) = (found, inner);
        add_settings(command, matches, &mut settings);
    }
    // What is raised has no value of its own.
    let raised = settings.get("step").and_then(|step| step.split_once('=')).map(|(name, _)| name.to_owned());
    if let Some(name) = raised {
        settings.remove(&name);
    }
    settings
}

fn add_settings(
    command: &clap::Command,
    matches: &clap::ArgMatches,
    settings: &mut BTreeMap<String, String>,
) {
    // Steps that are given take the place of the number of connections, whose default says nothing then.
    let steps_given = matches!(matches.try_contains_id("steps"), Ok(true));
    for (id, long) in command.get_arguments().filter_map(|arg| Some((arg.get_id().as_str(), arg.get_long()?)))
    {
        let Ok(Some(values)) = matches.try_get_raw(id) else { continue };
        let texts = values.map(|value| kept(long, &value.to_string_lossy()));
        let text = texts.collect::<Vec<_>>().join(", ");
        if text != "false" && !(long == "connections" && steps_given) {
            settings.entry(long.to_owned()).or_insert(text);
        }
    }
}

/// This process's command line as it can be typed again, with what was given and nothing else; secrets are not in it.
pub(crate) fn command_line() -> String {
    command_line_of(std::env::args_os())
}

fn command_line_of(line: impl IntoIterator<Item = OsString>) -> String {
    let mut command = Cli::command();
    let Ok(matches) = command.try_get_matches_from_mut(line) else { return String::new() };
    let mut words = vec![command.get_name().to_owned()];
    let (mut command, mut matches) = (&command, &matches);
    while let Some((name, inner)) = matches.subcommand() {
        let Some(found) = command.find_subcommand(name) else { break };
        (command, matches) = (found, inner);
        words.push(name.to_owned());
        add_words(command, matches, &mut words);
    }
    words.join(" ")
}

/// What was given, each at its place.
fn add_words(command: &clap::Command, matches: &clap::ArgMatches, words: &mut Vec<String>) {
    let mut given: Vec<(usize, String)> = Vec::new();
    for arg in command.get_arguments() {
        let id = arg.get_id().as_str();
        if matches.value_source(id) != Some(ValueSource::CommandLine) {
            continue;
        }
        let (Ok(Some(values)), Some(places)) = (matches.try_get_raw(id), matches.indices_of(id)) else {
            continue;
        };
        for (place, value) in places.zip(values) {
            let text = match arg.get_long() {
                Some(long) if arg.get_action().takes_values() => {
                    format!("--{long} {}", quoted(&kept(long, &value.to_string_lossy())))
                }
                Some(long) => format!("--{long}"),
                None => quoted(&value.to_string_lossy()),
            };
            given.push((place, text));
        }
    }
    given.sort();
    words.extend(given.into_iter().map(|(_, text)| text));
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || "-_./:=,@%+".contains(letter);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// What of a flag's value is kept: results are passed on, and what authorizes a client is not.
fn kept(long: &str, text: &str) -> String {
    match long {
        "header" | "metrics-header" | "publish-header" => secrets::header(text),
        "hello" | "hello-hex" => secrets::all(text),
        "set" => secrets::value(text),
        "url" | "resume-url" | "publish-url" | "server-metrics" | "bystander" => secrets::url(text),
        _ => secrets::template(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_hold_defaults_too() {
        let line = ["x", "idle", "--connections", "7", "--deflate"].map(OsString::from);
        let settings = settings_of(line);
        assert_eq!((settings["connections"].as_str(), settings["duration"].as_str()), ("7", "5s"));
        assert_eq!(settings["deflate"], "true");
        assert!(!settings.contains_key("pid") && !settings.contains_key("help"), "{settings:?}");
    }

    #[test]
    fn the_command_line_is_what_was_given_and_can_be_pasted() {
        let line = |words: &[&str]| command_line_of(words.iter().map(OsString::from));
        assert_eq!(
            line(&[
                "/usr/bin/x",
                "echo",
                "--rate",
                "5",
                "--fail-if",
                "p99 > 5ms",
                "--deflate",
                "--fail-if",
                "lost>0"
            ]),
            "fantail-loadtest echo --rate 5 --fail-if 'p99 > 5ms' --deflate --fail-if 'lost>0'"
        );
        assert_eq!(
            line(&["x", "capacity", "--step", "rate=1,2", "echo", "--label", "it's"]),
            r"fantail-loadtest capacity --step rate=1,2 echo --label 'it'\''s'"
        );
        assert_eq!(
            line(&["x", "compare", "a b.json", "c.json"]),
            "fantail-loadtest compare 'a b.json' c.json"
        );
        let secret = line(&[
            "x",
            "idle",
            "--header",
            "A: SECRET",
            "--url",
            "ws://h/?token=SECRET",
            "--hello",
            "SECRET",
        ]);
        assert!(!secret.contains("SECRET") && secret.contains("--header"), "{secret}");
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
        assert!(
            settings.len() > 10 && !settings.values().any(|value| value.contains("SECRET")),
            "{settings:#?}"
        );
        assert_eq!(settings["url"], "ws://h/?token=…");
    }
}
