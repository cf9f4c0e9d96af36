//! Joins file, environment and flags into [`Settings`], and says where each mistake is.
//!
//! Called at the start and again on SIGHUP. It reads the one file it is given and nothing else.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::PathBuf;

use super::error::{ConfigError, ConfigErrors, Place};
use super::file::FileContent;
use super::section::{HIDDEN, Section};
use super::settings::Settings;
use super::table::Table;
use super::value::RawValue;
use super::{TopicRule, environment, exposed, file, issuer, topic};
use crate::wire::nearest::nearest;

/// Bytes read of the file.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// A key as one source sets it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Assignment {
    /// The section's name; empty for a key of the file that stands outside a section.
    pub(super) section: String,
    /// The key's name; `None` for an empty section of the file.
    pub(super) key: Option<String>,
    /// The value; `None` only together with the key.
    pub(super) value: Option<RawValue>,
    /// Where it was set.
    pub(super) place: Place,
}

/// A flag of the command line that sets a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// The flag as typed, such as `--listen`.
    pub flag: &'static str,
    /// The section of the key it sets.
    pub section: &'static str,
    /// The key it sets.
    pub key: &'static str,
    /// Its value.
    pub value: String,
}

/// Where the configuration comes from; later fields win over earlier ones. `Debug` shows no value of the
/// environment, which may hold secrets.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// The TOML file, if there is one; one that cannot be read is an error.
    pub file: Option<PathBuf>,
    /// The environment, as `std::env::vars_os` gives it.
    pub environment: Vec<(OsString, OsString)>,
    /// Flags, in the order typed.
    pub flags: Vec<Flag>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Sources");
        shown
            .field("file", &self.file)
            .field("variables", &self.environment.len())
            .field("flags", &self.flags);
        shown.finish()
    }
}

/// A configuration that fits.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The settings in force.
    pub settings: Settings,
    /// What is probably a mistake but harms nothing, for the log.
    pub warnings: Vec<String>,
    /// Where each value that somebody gave came from, by section and key.
    places: BTreeMap<(String, String), Place>,
    /// The same for each topic rule, by key.
    rule_places: Vec<BTreeMap<String, Place>>,
    /// The same for each issuer.
    issuer_places: Vec<BTreeMap<String, Place>>,
}

/// One key of a loaded configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The name between the brackets.
    pub section: &'static str,
    /// Which table of a list, from 0; `None` for a key of a section.
    pub rule: Option<usize>,
    /// The key inside its section.
    pub key: &'static str,
    /// The value in force, as TOML; a secret's is not shown.
    pub value: String,
    /// Whether the value is one that is never shown.
    pub secret: bool,
    /// Where it came from.
    pub place: Place,
}

impl Loaded {
    /// Every key, in the order of the sections, with its value and where that came from.
    #[must_use]
    pub fn values(&self) -> Vec<KeyValue> {
        let mut values = Vec::new();
        for section in self.settings.sections() {
            for key in section.reference() {
                let place = self.place(section.name(), key.key);
                let secret = section.is_secret(key.key);
                values.push(KeyValue {
                    section: section.name(),
                    rule: None,
                    key: key.key,
                    value: key.value,
                    secret,
                    place,
                });
            }
        }
        let issuers = self.settings.issuers.iter().map(|rule| rule as &dyn Section);
        let topics = self.settings.topics.iter().map(|rule| rule as &dyn Section);
        for (index, (rule, places)) in issuers.zip(&self.issuer_places).enumerate() {
            push_table(index, rule, places, &mut values);
        }
        for (index, (rule, places)) in topics.zip(&self.rule_places).enumerate() {
            push_table(index, rule, places, &mut values);
        }
        values
    }

    fn place(&self, section: &str, key: &str) -> Place {
        self.places.get(&(section.to_owned(), key.to_owned())).cloned().unwrap_or(Place::Default)
    }
}

/// Appends the keys of one table of a list. What it leaves out has no value of its own.
fn push_table(
    index: usize,
    rule: &dyn Section,
    places: &BTreeMap<String, Place>,
    values: &mut Vec<KeyValue>,
) {
    for key in rule.reference() {
        let Some(place) = places.get(key.key).cloned() else { continue };
        let secret = rule.is_secret(key.key);
        let (section, rule) = (rule.name(), Some(index));
        values.push(KeyValue { section, rule, key: key.key, value: key.value, secret, place });
    }
}

/// Rules that are about tokens, where nobody issues any: nobody could do what they say.
fn nobody_has_tokens(rules: &[TopicRule], tables: &[Table]) -> Vec<ConfigError> {
    let mut errors = Vec::new();
    for (rule, table) in rules.iter().zip(tables) {
        for (key, clients) in [("publish", rule.publish), ("subscribe", rule.subscribe)] {
            let Some(clients) = clients.filter(|clients| clients.needs_tokens()) else { continue };
            let word = clients.word();
            let problem = format!(
                "{word} is about tokens, and no [[{}]] issues any, nor is an auth.backend_url asked",
                file::ISSUER
            );
            errors.push(ConfigError {
                place: table.place_of(key),
                key: Some(format!("topic.{key}")),
                problem,
            });
        }
    }
    errors
}

/// Rules that are about webhooks, where there is nobody to be told.
fn nobody_is_told(rules: &[TopicRule], tables: &[Table]) -> Vec<ConfigError> {
    let told = rules.iter().zip(tables).filter(|(rule, _)| rule.webhook.is_some());
    let error = |(_, table): (_, &Table)| ConfigError {
        place: table.place_of("webhook"),
        key: Some("topic.webhook".to_owned()),
        problem: "expects webhook.url, too".to_owned(),
    };
    told.map(error).collect()
}

/// Reads, joins and checks the configuration. Every mistake is reported, not only the first.
///
/// # Errors
/// When a source cannot be read, names a section or key that isn't there, or sets a value that does not fit.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigErrors> {
    let mut errors = Vec::new();
    let mut warnings = Vec::new();
    let mut settings = Settings::default();
    let names: Vec<_> = settings.sections().iter().map(|section| (section.name(), section.keys())).collect();

    let content = match &sources.file {
        Some(path) => read_file(path, &mut errors),
        None => FileContent::default(),
    };
    settings.topics = topic::read(&content.topics, &mut errors, &mut warnings);
    settings.issuers = issuer::read(&content.issuers, &mut errors, &mut warnings);
    let lists_fit = errors.is_empty();
    let key_places =
        |table: &Table| table.places().map(|(key, place)| (key.to_owned(), place.clone())).collect();
    let rule_places = content.topics.iter().map(key_places).collect();
    let issuer_places = content.issuers.iter().map(key_places).collect();
    let mut assignments = content.assignments;
    assignments.extend(environment::assignments(&sources.environment, &names, &mut errors, &mut warnings));
    assignments.extend(sources.flags.iter().map(|flag| Assignment {
        section: flag.section.to_owned(),
        key: Some(flag.key.to_owned()),
        value: Some(RawValue::Text(flag.value.clone())),
        place: Place::Flag(flag.flag),
    }));

    let mut places: BTreeMap<(String, String), Place> = BTreeMap::new();
    for assignment in assignments {
        match apply(&mut settings, &assignment) {
            Ok(Some(key)) => {
                places.insert((assignment.section, key), assignment.place);
            }
            Ok(None) => {}
            Err(error) => errors.push(error),
        }
    }
    if lists_fit && content.issuers.is_empty() && !settings.auth.has_backend() {
        errors.extend(nobody_has_tokens(&settings.topics, &content.topics));
    }
    if lists_fit && settings.webhook.url.is_none() {
        errors.extend(nobody_is_told(&settings.topics, &content.topics));
    }
    let shown_key =
        |(name, value): &(OsString, OsString)| name == environment::ADMIN_KEY && !value.is_empty();
    if sources.environment.iter().any(shown_key) && !settings.admin.has_keys() {
        let name = environment::ADMIN_KEY;
        warnings.push(format!(
            "environment {name} is what `fantail publish` shows, and the admin port asks for no key; did you mean {name}S?"
        ));
    }
    // A value that was not understood left its default behind; what that default then fails to fit with
    // would only confuse.
    if errors.is_empty() {
        errors.extend(settings.unfit().into_iter().map(|unfit| {
            ConfigError {
                place: places
                    .get(&(unfit.section.to_owned(), unfit.key.to_owned()))
                    .cloned()
                    .unwrap_or(Place::Default),
                key: Some(format!("{}.{}", unfit.section, unfit.key)),
                problem: unfit.problem,
            }
        }));
    }
    if errors.is_empty() {
        let mut loaded = Loaded { settings, warnings, places, rule_places, issuer_places };
        loaded
            .warnings
            .extend(exposed::warnings(&loaded.settings, |section, key| loaded.place(section, key)));
        Ok(loaded)
    } else {
        // As they stand in the file, then as they come to hold.
        errors.sort_by_key(|error| error.place.order());
        Err(ConfigErrors(errors))
    }
}

/// Where the server of a configuration file has its admin port, and whether it speaks TLS there, whatever else in the file is
/// wrong: for those who ask a server that runs.
#[must_use]
pub fn admin_in_file(text: &str) -> (SocketAddr, bool) {
    let mut settings = Settings::default();
    for assignment in file::content("", text, &mut Vec::new()).assignments {
        // Whoever starts the server is told of mistakes.
        let _ = apply(&mut settings, &assignment);
    }
    (settings.server.admin, settings.admin.speaks_tls())
}

fn read_file(path: &PathBuf, errors: &mut Vec<ConfigError>) -> FileContent {
    let shown = path.display().to_string();
    // A device may go on for ever.
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text));
    match read {
        Ok(_) if text.len() as u64 <= FILE_BYTES_MAX => file::content(&shown, &text, errors),
        Ok(_) => {
            let place = Place::File { path: shown, line: None };
            errors.push(ConfigError { place, key: None, problem: "is larger than 16 MiB".to_owned() });
            FileContent::default()
        }
        Err(error) => {
            let place = Place::File { path: shown, line: None };
            errors.push(ConfigError { place, key: None, problem: format!("cannot be read: {error}") });
            FileContent::default()
        }
    }
}

/// Sets one key; the answer is the key's name, `None` for a section without keys.
fn apply(settings: &mut Settings, assignment: &Assignment) -> Result<Option<String>, ConfigError> {
    let fail = |key: Option<String>, problem: String| {
        Err(ConfigError { place: assignment.place.clone(), key, problem })
    };
    let Some((key, value)) = assignment.key.as_ref().zip(assignment.value.as_ref()) else {
        if settings.sections().iter().any(|section| section.name() == assignment.section) {
            return Ok(None);
        }
        return fail(Some(assignment.section.clone()), unknown_section(settings, &assignment.section));
    };
    if assignment.section.is_empty() {
        let is_section = settings.sections().iter().any(|section| section.name() == key);
        let problem = match home_of(settings, key) {
            _ if is_section => format!("is a section: write [{key}] on a line of its own"),
            Some(section) => format!("stands outside a section; it belongs under [{section}]"),
            None => "stands outside a section, and no section has such a key".to_owned(),
        };
        return fail(Some(key.clone()), problem);
    }
    let full = format!("{}.{key}", assignment.section);
    let Some(index) = settings.sections().iter().position(|section| section.name() == assignment.section)
    else {
        return fail(Some(full), unknown_section(settings, &assignment.section));
    };
    let known = settings.sections().get(index).is_some_and(|section| section.keys().contains(&key.as_str()));
    if !known {
        return fail(Some(full), unknown_key(settings, &assignment.section, key));
    }
    for section in settings.sections_mut() {
        if section.name() == assignment.section
            && let Err(expects) = section.set(key, value)
        {
            let got = if section.is_secret(key) { HIDDEN.to_owned() } else { value.quoted() };
            return fail(Some(full), format!("expects {expects}, got {got}"));
        }
    }
    Ok(Some(key.clone()))
}

fn unknown_section(settings: &Settings, section: &str) -> String {
    let names = settings.sections().map(Section::name);
    match nearest(section, names.into_iter().chain([file::TOPIC])) {
        Some(file::TOPIC) => format!("unknown section [{section}]; did you mean [[{}]]?", file::TOPIC),
        Some(meant) => format!("unknown section [{section}]; did you mean [{meant}]?"),
        None => format!("unknown section [{section}]; expects one of {}", names.join(", ")),
    }
}

fn unknown_key(settings: &Settings, section: &str, key: &str) -> String {
    if section == "auth" && key.starts_with("issuer") {
        // There is no number of them that a variable could name.
        return format!("issuers are only in the file: write [[{}]] there for each", file::ISSUER);
    }
    let keys = settings.sections().iter().find(|s| s.name() == section).map_or(&[][..], |s| s.keys());
    match (nearest(key, keys.iter().copied()), home_of(settings, key)) {
        (Some(meant), _) => format!("unknown key; did you mean {meant}?"),
        (None, Some(home)) => format!("unknown key; did you mean {key} under [{home}]?"),
        (None, None) => format!("unknown key; [{section}] expects one of {}", keys.join(", ")),
    }
}

/// The section that has a key of exactly this name.
fn home_of(settings: &Settings, key: &str) -> Option<&'static str> {
    settings.sections().iter().find(|section| section.keys().contains(&key)).map(|section| section.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Clients, TopicRule};
    use crate::topic::SlowPolicy;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    /// A file that is removed again.
    struct TempFile(PathBuf);

    impl TempFile {
        fn new(text: &str) -> Self {
            static NEXT: AtomicUsize = AtomicUsize::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let path = std::env::temp_dir().join(format!("fantail-{}-{number}.toml", std::process::id()));
            std::fs::write(&path, text).unwrap();
            Self(path)
        }
    }

    impl Drop for TempFile {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    fn from_file(text: &str) -> Result<Settings, String> {
        let file = TempFile::new(text);
        let sources = Sources { file: Some(file.0.clone()), ..Sources::default() };
        load(&sources)
            .map(|loaded| loaded.settings)
            .map_err(|errors| errors.to_string().replace(&file.0.display().to_string(), "f.toml"))
    }

    fn flag(flag: &'static str, key: &'static str, value: &str) -> Flag {
        Flag { flag, section: "server", key, value: value.to_owned() }
    }

    #[test]
    fn nothing_configured_is_the_defaults() {
        assert_eq!(load(&Sources::default()).unwrap().settings, Settings::default());
        assert_eq!(from_file("").unwrap(), Settings::default());
    }

    #[test]
    fn flags_win_over_environment_and_environment_over_file() {
        let file = TempFile::new("[server]\nloops = 2\nbacklog = 10\nconnections_max = 100\n");
        let sources = Sources {
            file: Some(file.0.clone()),
            environment: vec![
                ("FANTAIL_SERVER_LOOPS".into(), "3".into()),
                ("FANTAIL_SERVER_BACKLOG".into(), "20".into()),
            ],
            flags: vec![flag("--loops", "loops", "4")],
        };
        let server = load(&sources).unwrap().settings.server;
        assert_eq!((server.loops, server.backlog, server.connections_max), (Some(4), 20, Some(100)));
    }

    #[test]
    fn every_section_reads_its_keys() {
        let settings = from_file(
            "[server]\nlisten = \"[::]:9000\"\nshare_port = true\n[limits]\nmessage_bytes_max = \"2 MiB\"\n\
             [timeouts]\nheartbeat_seconds = 0\nlinger_seconds = 0.5\n[outbox]\nmessages_max = 8\n\
             [mailbox]\nentries_max = 10\n[drain]\nseconds = 0\n[origin]\nallowed = [\"https://*.example.com\"]\n\
             required = true\n[admin]\nhosts = [\"a.internal\"]\n[publish]\ntopics = [\"a\", \"b-*\"]\n\
             [log]\nlevel = \"debug\"\nformat = \"json\"\n",
        )
        .unwrap();
        assert_eq!(settings.server.listen.port(), 9000);
        assert!(settings.server.share_port && settings.origin.required);
        assert_eq!(settings.limits.message_bytes_max, 2 << 20);
        assert_eq!(settings.timeouts.heartbeat, Duration::ZERO);
        assert_eq!(settings.timeouts.linger, Duration::from_millis(500));
        assert_eq!((settings.outbox.messages_max, settings.mailbox.entries_max), (8, 10));
        assert_eq!(settings.drain.length, Duration::ZERO);
        assert_eq!(settings.publish.topics, ["a", "b-*"]);
        assert_eq!(settings.log.level, crate::config::LogLevel::Debug);
    }

    /// Each of these is one mistake and its whole report.
    #[test]
    fn a_mistake_names_file_line_key_and_expectation() {
        let cases = [
            ("[server]\n\nlisen = 1\n", "f.toml:3: server.lisen: unknown key; did you mean listen?"),
            (
                "[sever]\nlisten = 1\n",
                "f.toml:2: sever.listen: unknown section [sever]; did you mean [server]?",
            ),
            ("[sever]\n", "f.toml:1: sever: unknown section [sever]; did you mean [server]?"),
            ("listen = 1\n", "f.toml:1: listen: stands outside a section; it belongs under [server]"),
            ("server = 1\n", "f.toml:1: server: is a section: write [server] on a line of its own"),
            (
                "[server]\nmessages_max = 1\n",
                "f.toml:2: server.messages_max: unknown key; did you mean messages_max under [outbox]?",
            ),
            (
                "[mailbox]\ncolour = 1\n",
                "f.toml:2: mailbox.colour: unknown key; [mailbox] expects one of bytes_max, entries_max, joins_max",
            ),
            (
                "[server]\nloops = \"two\"\n",
                "f.toml:2: server.loops: expects a whole number, or 0 for automatic, got \"two\"",
            ),
            ("[outbox]\nmessages_max = 0\n", "f.toml:2: outbox.messages_max: expects 1 to 65535, got 0"),
            (
                "[timeouts]\nclose_seconds = 0\n",
                "f.toml:2: timeouts.close_seconds: expects 0.1 to 3600 seconds, got 0",
            ),
            (
                "[timeouts]\nheartbeat_seconds = 1e6\n",
                "f.toml:2: timeouts.heartbeat_seconds: expects 0.1 to 3600 seconds, or 0 for no heartbeat, got 1000000",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(from_file(text).unwrap_err(), expected);
        }
    }

    #[test]
    fn topic_rules_come_in_the_order_of_the_file() {
        let settings = from_file(
            "[[topic]]\npattern = \"prices/*\"\npublish = \"nobody\"\npolicy = \"latest\"\nmessages_max = 3\n\
             bytes_max = \"8 KiB\"\nmessage_bytes_max = \"2 MiB\"\ndisconnect_after_drops = 100\n\n\
             [outbox]\npolicy = \"drop-oldest\"\nbytes_total = \"64 MiB\"\n\n[[topic]]\npattern = \"a\"\n",
        )
        .unwrap();
        assert_eq!(settings.outbox.policy, SlowPolicy::DropOldest);
        let [first, second] = settings.topics.as_slice() else { panic!("{:?}", settings.topics) };
        assert_eq!((first.pattern.as_str(), first.policy), ("prices/*", Some(SlowPolicy::Latest)));
        assert_eq!((first.publish, first.messages_max), (Some(Clients::Nobody), Some(3)));
        assert_eq!((first.bytes_max, first.message_bytes_max), (Some(8 << 10), Some(2 << 20)));
        assert_eq!(first.disconnect_after_drops, Some(100));
        assert_eq!(second, &TopicRule { pattern: "a".to_owned(), ..TopicRule::default() });
    }

    #[test]
    fn a_mistake_in_a_topic_rule_names_its_own_line() {
        let cases = [
            (
                "[[topic]]\npattern = \"a\"\n[[topic]]\npattern = \"b\"\npolcy = \"latest\"\n",
                "f.toml:5: topic.polcy: unknown key; did you mean policy?",
            ),
            (
                "[[topic]]\npattern = \"b\"\npolicy = \"newest\"\n",
                "f.toml:3: topic.policy: expects drop-newest, drop-oldest, latest, disconnect or catch-up, got \"newest\"",
            ),
            (
                "\n[[topic]]\npolicy = \"latest\"\n",
                "f.toml:2: topic.pattern: expects a topic name of 1 to 200 bytes, got \"\"",
            ),
            (
                "[[topic]]\npattern = \"a*b\"\n",
                "f.toml:2: topic.pattern: expects at most one * and only at the end, got \"a*b\"",
            ),
            (
                "[[topic]]\npattern = \"a\"\nmessages_max = 0\n",
                "f.toml:3: topic.messages_max: expects 1 to 65535, got 0",
            ),
            (
                "[[topic]]\npattern = \"a\"\npublish = true\n",
                "f.toml:3: topic.publish: expects nobody, claim, identified or anyone, got true",
            ),
            (
                "[[topic]]\npattern = \"a\"\nvalidate = \"jsn\"\n",
                "f.toml:3: topic.validate: expects text, json, or the name of a file with a JSON Schema, such as \"order.json\", got \"jsn\"",
            ),
            (
                "[[topic]]\npattern = \"a\"\nvalidate = \"a.json\"\nmessage_bytes_max = 65537\n",
                "f.toml:4: topic.message_bytes_max: expects at most 65536 beside this rule's validate, got 65537",
            ),
            (
                "[topic]\npattern = \"a\"\n",
                "f.toml:1: topic: rules are tables of a list: write [[topic]] on a line of its own for each",
            ),
            (
                "[[topics]]\npattern = \"a\"\n",
                "f.toml:1: topics: unknown list [[topics]]; did you mean [[topic]]?",
            ),
            (
                "[[server]]\nloops = 1\n",
                "f.toml:1: server: [[server]] is no list of tables; only [[topic]] and [[auth.issuer]] are",
            ),
            (
                "[[topic]]\npattern = \"a\"\nmessage_bytes_max = \"128 MiB\"\n[mailbox]\nbytes_max = \"64 MiB\"\n",
                "f.toml:5: mailbox.bytes_max: expects at least message_bytes_max of topic \"a\" = 134217728, so that one message fits, got 67108864",
            ),
            (
                "[outbox]\nbytes_total = \"1 MiB\"\n",
                "f.toml:2: outbox.bytes_total: expects at least 19173968, so that seven eighths hold the largest message, got 1048576",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(from_file(text).unwrap_err(), expected);
        }
    }

    #[test]
    fn a_rule_that_can_never_hold_is_warned_about() {
        let file = TempFile::new("[[topic]]\npattern = \"a*\"\n[[topic]]\npattern = \"ab\"\n");
        let sources = Sources { file: Some(file.0.clone()), ..Sources::default() };
        let warnings = load(&sources).unwrap().warnings;
        assert_eq!(warnings.len(), 1, "{warnings:?}");
        assert!(
            warnings[0].ends_with(":3: topic.pattern: a rule before \"ab\" fits all its topics"),
            "{warnings:?}"
        );
    }

    #[test]
    fn hostile_and_dangerous_values_are_refused_by_name() {
        for (text, part) in [
            ("[server]\nadmin = \"0.0.0.0:8081\"\n", "f.toml:2: server.admin: expects a loopback address"),
            ("[server]\nadmin = \"127.0.0.1:8080\"\n", "f.toml:2: server.admin: expects another address"),
            (
                "[server]\nlisten = \"0.0.0.0:9\"\nadmin = \"127.0.0.1:9\"\n",
                "f.toml:3: server.admin: expects another address or port",
            ),
            ("[origin]\nallowed = [\"*evil.com\"]\n", "f.toml:2: origin.allowed: "),
            ("[admin]\nhosts = [\"http://a\"]\n", "f.toml:2: admin.hosts: "),
            ("[server]\nsubprotocols = [\"a b\"]\n", "f.toml:2: server.subprotocols: expects names"),
            ("[publish]\ntopics = [\"a*b\"]\n", "f.toml:2: publish.topics: "),
            (
                "[server]\nlisten = \"127.0.0.1:8080\"\nlisten = \"x\"\n",
                "f.toml:3: is not TOML: duplicate key",
            ),
        ] {
            let error = from_file(text).unwrap_err();
            assert!(error.starts_with(part), "{text:?}: {error}");
        }
        assert!(from_file("[server]\nadmin = \"[::1]:1\"\nlisten = \"0.0.0.0:0\"\n").is_ok());
        assert!(from_file("[server]\nadmin = \"127.0.0.1:1\"\nlisten = \"127.0.0.2:1\"\n").is_ok());
        assert!(from_file("[server]\nadmin = \"[::1]:1\"\nlisten = \"0.0.0.0:1\"\n").is_ok());
        assert!(from_file("[server]\nadmin = \"[::ffff:127.0.0.1]:1\"\n").is_ok());
        assert!(from_file("[server]\nadmin = \"127.0.0.1:0\"\nlisten = \"127.0.0.1:0\"\n").is_ok());
    }

    #[test]
    fn all_mistakes_of_all_sources_are_reported_together() {
        let file = TempFile::new("[server]\nlisen = 1\nloops = -1\n");
        let sources = Sources {
            file: Some(file.0.clone()),
            environment: vec![("FANTAIL_SERVER_BACKLOG".into(), "deep".into())],
            flags: vec![flag("--listen", "listen", "here")],
        };
        let errors = load(&sources).unwrap_err();
        assert_eq!(errors.0.len(), 4, "{errors}");
        let text = errors.to_string();
        assert!(text.contains("environment FANTAIL_SERVER_BACKLOG: server.backlog: expects"), "{text}");
        assert!(text.contains("flag --listen: server.listen: expects an IP address and port"), "{text}");
    }

    #[test]
    fn a_check_that_fails_names_the_source_of_the_value() {
        let sources = Sources { flags: vec![flag("--admin", "admin", "10.0.0.1:1")], ..Sources::default() };
        let text = load(&sources).unwrap_err().to_string();
        assert!(text.starts_with("flag --admin: server.admin: expects a loopback address"), "{text}");
        let sources = Sources {
            environment: vec![
                ("FANTAIL_LIMITS_MESSAGE_BYTES_MAX".into(), "512 MiB".into()),
                ("FANTAIL_ADMISSION_BYTES_PER_SECOND".into(), "1 MiB".into()),
            ],
            ..Sources::default()
        };
        let text = load(&sources).unwrap_err().to_string();
        assert!(text.starts_with("built-in value: admission.bytes_burst: expects more than"), "{text}");
    }

    #[test]
    fn mistakes_come_in_the_order_of_the_file_and_then_of_what_wins() {
        let text = "[timeouts]\nlinger_seconds = 1\n\n[[topic]]\npatern = \"a\"\n\n[server]\nlops = 1\nbacklog = true\n\
                    [topics]\npattern = \"a\"\n[limits]\nhead_bytes_max = \"x\"\n";
        let file = TempFile::new(text);
        let sources = Sources {
            file: Some(file.0.clone()),
            environment: vec![("FANTAIL_SERVER_LOOPS".into(), "x".into())],
            flags: vec![flag("--listen", "listen", "x")],
        };
        let errors = load(&sources).unwrap_err();
        let places: Vec<_> = errors.0.iter().map(|error| error.place.order()).collect();
        assert_eq!(places, [(0, 5), (0, 8), (0, 9), (0, 11), (0, 13), (1, 0), (2, 0)], "{errors}");
        assert!(errors.to_string().contains("unknown section [topics]; did you mean [[topic]]?"), "{errors}");
    }

    #[test]
    fn a_key_that_is_no_key_of_the_server_is_warned_about_while_there_is_none() {
        let warned = |pairs: &[(&str, &str)]| {
            let environment = pairs.iter().map(|(name, value)| (name.into(), value.into())).collect();
            load(&Sources { environment, ..Sources::default() }).unwrap().warnings
        };
        let [key, keys] =
            [("FANTAIL_ADMIN_KEY", "0123456789abcdef"), ("FANTAIL_ADMIN_KEYS", "read:0123456789abcdef")];
        let warnings = warned(&[key]);
        assert!(
            warnings.len() == 1 && warnings[0].contains("did you mean FANTAIL_ADMIN_KEYS?"),
            "{warnings:?}"
        );
        assert!(!warnings[0].contains("0123"), "{warnings:?}");
        assert_eq!(warned(&[key, keys]), [""; 0]);
        assert_eq!(warned(&[("FANTAIL_ADMIN_KEY", "")]), [""; 0]);
    }

    #[test]
    fn a_file_without_an_end_is_an_error() {
        let sources = Sources { file: Some("/dev/zero".into()), ..Sources::default() };
        assert_eq!(load(&sources).unwrap_err().to_string(), "/dev/zero: is larger than 16 MiB");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_an_error() {
        let sources = Sources { file: Some("/nonexistent/fantail.toml".into()), ..Sources::default() };
        let text = load(&sources).unwrap_err().to_string();
        assert!(text.starts_with("/nonexistent/fantail.toml: cannot be read: "), "{text}");
    }
}
