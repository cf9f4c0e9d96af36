//! Raw values and the kinds of value a key can expect. Pure; knows no section and no key.

use std::marker::PhantomData;
use std::net::SocketAddr;
use std::time::Duration;

/// A value as its source wrote it.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum RawValue {
    /// From the environment or a flag: text whose type the key decides.
    Text(String),
    /// A TOML string.
    String(String),
    /// A TOML integer.
    Integer(i64),
    /// A TOML float.
    Float(f64),
    /// A TOML boolean.
    Bool(bool),
    /// A TOML array.
    List(Vec<RawValue>),
    /// A TOML value that no key expects: a date, a table, a number out of range.
    Other(String),
}

impl RawValue {
    /// The value as an error message quotes it, cut to a readable length.
    pub(super) fn quoted(&self) -> String {
        const SHOWN_CHARS_MAX: usize = 60;
        let text = match self {
            Self::Text(text) | Self::String(text) => format!("{text:?}"),
            Self::Integer(number) => number.to_string(),
            Self::Float(number) => number.to_string(),
            Self::Bool(switch) => switch.to_string(),
            Self::List(items) => {
                format!("[{}]", items.iter().map(Self::quoted).collect::<Vec<_>>().join(", "))
            }
            Self::Other(what) => what.clone(),
        };
        if text.chars().count() <= SHOWN_CHARS_MAX {
            return text;
        }
        text.chars().take(SHOWN_CHARS_MAX).chain("…".chars()).collect()
    }

    /// Text in lower case, for kinds that choose among words.
    pub(super) fn word(&self) -> Option<String> {
        self.text().map(str::to_ascii_lowercase)
    }

    fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) | Self::String(text) => Some(text.trim()),
            _ => None,
        }
    }
}

/// What a key expects: how it is read, how it is shown, and the words for "expects …".
pub(super) trait Kind {
    /// The type of the settings field.
    type Out;
    /// Completes the sentence "expects …".
    const EXPECTS: &'static str;
    /// Whether values must never be shown: not by errors, not by `check-config --print`, not in the log.
    const SECRET: bool = false;
    /// The value, or `None` when the raw value is not of this kind.
    fn parse(raw: &RawValue) -> Option<Self::Out>;
    /// The value as TOML.
    fn show(value: &Self::Out) -> String;
}

/// An IP address and port.
pub(super) struct Address;

impl Kind for Address {
    type Out = SocketAddr;
    const EXPECTS: &'static str = "an IP address and port such as \"127.0.0.1:8080\" or \"[::]:8080\"";

    fn parse(raw: &RawValue) -> Option<SocketAddr> {
        raw.text()?.parse().ok()
    }

    fn show(value: &SocketAddr) -> String {
        format!("\"{value}\"")
    }
}

/// `true` or `false`.
pub(super) struct Switch;

impl Kind for Switch {
    type Out = bool;
    const EXPECTS: &'static str = "true or false";

    fn parse(raw: &RawValue) -> Option<bool> {
        match raw {
            RawValue::Bool(switch) => Some(*switch),
            RawValue::Text(text) => match text.trim() {
                "true" | "1" => Some(true),
                "false" | "0" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    fn show(value: &bool) -> String {
        value.to_string()
    }
}

/// A whole number.
pub(super) struct Count;

impl Kind for Count {
    type Out = usize;
    const EXPECTS: &'static str = "a whole number such as 64";

    fn parse(raw: &RawValue) -> Option<usize> {
        match raw {
            RawValue::Integer(number) => usize::try_from(*number).ok(),
            RawValue::Text(text) => whole(text.trim()),
            _ => None,
        }
    }

    fn show(value: &usize) -> String {
        value.to_string()
    }
}

/// A whole number for which 0 means that the server chooses.
pub(super) struct CountOrAutomatic;

impl Kind for CountOrAutomatic {
    type Out = Option<usize>;
    const EXPECTS: &'static str = "a whole number, or 0 for automatic";

    fn parse(raw: &RawValue) -> Option<Option<usize>> {
        Count::parse(raw).map(|count| (count > 0).then_some(count))
    }

    fn show(value: &Option<usize>) -> String {
        value.unwrap_or(0).to_string()
    }
}

/// A number of bytes: a whole number, or text with KiB, MiB or GiB.
pub(super) struct Bytes;

impl Kind for Bytes {
    type Out = usize;
    const EXPECTS: &'static str = "a number of bytes such as 65536 or \"64 KiB\" (KiB, MiB, GiB)";

    fn parse(raw: &RawValue) -> Option<usize> {
        match raw {
            RawValue::Integer(number) => usize::try_from(*number).ok(),
            RawValue::Text(_) | RawValue::String(_) => {
                let text = raw.text()?;
                let digits = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '_');
                let (number, unit) = text.split_at(text.len() - digits.len());
                let factor: usize = match unit.trim().to_ascii_lowercase().as_str() {
                    "" | "b" => 1,
                    "kib" => 1 << 10,
                    "mib" => 1 << 20,
                    "gib" => 1 << 30,
                    _ => return None,
                };
                whole(number)?.checked_mul(factor)
            }
            _ => None,
        }
    }

    fn show(value: &usize) -> String {
        for (shift, unit) in [(30, "GiB"), (20, "MiB"), (10, "KiB")] {
            if *value > 0 && value.trailing_zeros() >= shift {
                return format!("\"{} {unit}\"", value >> shift);
            }
        }
        value.to_string()
    }
}

/// A number of bytes for which 0 means that the server chooses.
pub(super) struct BytesOrAutomatic;

impl Kind for BytesOrAutomatic {
    type Out = Option<usize>;
    const EXPECTS: &'static str =
        "a number of bytes such as 65536 or \"64 KiB\" (KiB, MiB, GiB), or 0 for automatic";

    fn parse(raw: &RawValue) -> Option<Option<usize>> {
        Bytes::parse(raw).map(|bytes| (bytes > 0).then_some(bytes))
    }

    fn show(value: &Option<usize>) -> String {
        Bytes::show(&value.unwrap_or(0))
    }
}

/// A time in seconds, whole or with a fraction.
pub(super) struct Seconds;

impl Kind for Seconds {
    type Out = Duration;
    const EXPECTS: &'static str = "a number of seconds such as 10 or 0.5";

    fn parse(raw: &RawValue) -> Option<Duration> {
        let seconds = match raw {
            RawValue::Integer(number) => return u64::try_from(*number).ok().map(Duration::from_secs),
            RawValue::Float(number) => *number,
            // Digits and a point only: "inf", "1e9" and "+1" parse as floats but are no time anyone meant.
            RawValue::Text(text) if text.trim().bytes().all(|b| b.is_ascii_digit() || b == b'.') => {
                text.trim().parse().ok()?
            }
            _ => return None,
        };
        Duration::try_from_secs_f64(seconds).ok()
    }

    fn show(value: &Duration) -> String {
        value.as_secs_f64().to_string()
    }
}

/// A list of names or patterns; commas separate them in the environment.
pub(super) struct Names;

impl Kind for Names {
    type Out = Vec<String>;
    const EXPECTS: &'static str = "a list such as [\"a\", \"b\"], or a,b in the environment";

    fn parse(raw: &RawValue) -> Option<Vec<String>> {
        match raw {
            RawValue::List(items) => items
                .iter()
                .map(|item| match item {
                    RawValue::String(text) => Some(text.clone()),
                    _ => None,
                })
                .collect(),
            RawValue::Text(text) if text.trim().is_empty() => Some(Vec::new()),
            RawValue::Text(text) => Some(text.split(',').map(|name| name.trim().to_owned()).collect()),
            _ => None,
        }
    }

    fn show(value: &Vec<String>) -> String {
        format!("[{}]", value.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", "))
    }
}

/// What is shown of a key that has no value of its own. It is no TOML.
pub const UNSET: &str = "unset";

/// A kind whose key may be left out, so that another key's value holds.
pub(super) struct Optional<K>(PhantomData<K>);

impl<K: Kind> Kind for Optional<K> {
    type Out = Option<K::Out>;
    const EXPECTS: &'static str = K::EXPECTS;

    fn parse(raw: &RawValue) -> Option<Option<K::Out>> {
        K::parse(raw).map(Some)
    }

    fn show(value: &Option<K::Out>) -> String {
        value.as_ref().map_or_else(|| UNSET.to_owned(), K::show)
    }
}

/// A pattern of topic names; whether it compiles is for the section's check.
pub(super) struct Pattern;

impl Kind for Pattern {
    type Out = String;
    const EXPECTS: &'static str = "a topic name, exact or with a trailing \"*\", such as \"prices/*\"";

    fn parse(raw: &RawValue) -> Option<String> {
        match raw {
            RawValue::String(text) => Some(text.clone()),
            _ => None,
        }
    }

    fn show(value: &String) -> String {
        quoted(value)
    }
}

/// A basic string of TOML. What `Debug` writes is one of Rust, whose escapes are others.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' | '\\' => out.extend(['\\', character]),
            control if control.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

/// Digits with optional `_` between them, as TOML writes whole numbers.
fn whole(text: &str) -> Option<usize> {
    if !text.starts_with(|c: char| c.is_ascii_digit()) || text.ends_with('_') {
        return None;
    }
    let digits: String = text.chars().filter(|c| *c != '_').collect();
    // `parse` alone would take a sign.
    if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(value: &str) -> RawValue {
        RawValue::Text(value.to_owned())
    }

    #[test]
    fn bytes_take_units_and_show_themselves_readably() {
        assert_eq!(Bytes::parse(&text("65536")), Some(65536));
        assert_eq!(Bytes::parse(&text("64 KiB")), Some(65536));
        assert_eq!(Bytes::parse(&text("1mib")), Some(1 << 20));
        assert_eq!(Bytes::parse(&RawValue::String("2GiB".into())), Some(2 << 30));
        assert_eq!(Bytes::parse(&RawValue::Integer(-1)), None);
        for bad in ["", "KiB", "1 KB", "-1", "+1", "1.5 MiB", "99999999999999999999", "99999999999 GiB", "é"]
        {
            assert_eq!(Bytes::parse(&text(bad)), None, "{bad:?}");
        }
        assert_eq!(Bytes::show(&(256 << 10)), "\"256 KiB\"");
        assert_eq!(Bytes::show(&1000), "1000");
        assert_eq!(Bytes::show(&0), "0");
    }

    #[test]
    fn seconds_take_fractions_but_no_infinity() {
        assert_eq!(Seconds::parse(&text("0.5")), Some(Duration::from_millis(500)));
        assert_eq!(Seconds::parse(&RawValue::Integer(10)), Some(Duration::from_secs(10)));
        assert_eq!(Seconds::parse(&RawValue::Float(1.5)), Some(Duration::from_millis(1500)));
        for bad in ["inf", "nan", "-1", "1e9", "", "10s"] {
            assert_eq!(Seconds::parse(&text(bad)), None, "{bad:?}");
        }
        for bad in [f64::INFINITY, f64::NAN, -0.1, 1e300] {
            assert_eq!(Seconds::parse(&RawValue::Float(bad)), None, "{bad}");
        }
        assert_eq!(Seconds::parse(&RawValue::String("10".into())), None, "a TOML string is no number");
    }

    #[test]
    fn counts_switches_and_names_keep_to_their_kind() {
        assert_eq!(Count::parse(&text("1_000")), Some(1000));
        for bad in ["+1", "-1", "_1", "1_", "", "1.0", "many"] {
            assert_eq!(Count::parse(&text(bad)), None, "{bad:?}");
        }
        assert_eq!(CountOrAutomatic::parse(&RawValue::Integer(0)), Some(None));
        assert_eq!(CountOrAutomatic::parse(&RawValue::Integer(4)), Some(Some(4)));
        assert_eq!(Switch::parse(&text("true")), Some(true));
        assert_eq!(Switch::parse(&text("yes")), None);
        assert_eq!(Switch::parse(&RawValue::String("true".into())), None);
        assert_eq!(Names::parse(&text("a, b")), Some(vec!["a".into(), "b".into()]));
        assert_eq!(Names::parse(&text("")), Some(vec![]));
        assert_eq!(Names::parse(&RawValue::List(vec![RawValue::Integer(1)])), None);
    }

    #[test]
    fn a_string_is_shown_as_toml_reads_it() {
        for text in ["", "a\"b\\c", "e\u{301}*", "\n\t\u{7f}\u{85}\u{1b}", "\u{feff}😀'"] {
            let table: toml::Table = toml::from_str(&format!("a = {}", quoted(text))).unwrap();
            assert_eq!(table["a"].as_str(), Some(text));
        }
    }

    #[test]
    fn what_an_error_quotes_stays_short() {
        assert_eq!(RawValue::Text("x".into()).quoted(), "\"x\"");
        assert!(RawValue::Text("é".repeat(500)).quoted().chars().count() < 70);
    }
}
