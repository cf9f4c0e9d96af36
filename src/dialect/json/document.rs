//! Which payloads stay JSON when they are told: objects and lists that every reader takes.
//!
//! A payload that is copied into a message unchecked could end its member and forge others, or break its reader. What
//! fails here is told as a string, which says the same and can do neither.

use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};

/// Levels of objects and lists inside one another. Readers of many languages give up at a few hundred, some at 100.
pub(super) const DEPTH_MAX: u32 = 64;

/// Whether `text` is an object or a list, well-formed to its end (RFC 8259), without half surrogate pairs, without
/// numbers beyond a double's range, and not nested deeper than 64 levels.
#[must_use]
pub fn is_document(text: &str) -> bool {
    // Most texts are told apart by their first letter.
    if !text.trim_ascii_start().starts_with(['{', '[']) {
        return false;
    }
    is_value(text)
}

/// The same of any value.
pub(super) fn is_value(text: &str) -> bool {
    let mut reader = serde_json::Deserializer::from_str(text);
    reader.deserialize_any(Value { depth: DEPTH_MAX }).is_ok() && reader.end().is_ok()
}

/// A well-formed value without the white space between its parts, which may have ends of lines.
pub(super) fn on_one_line(json: &str) -> Box<str> {
    let (mut in_string, mut escaped) = (false, false);
    let kept = json.chars().filter(|&char| {
        if in_string {
            in_string = escaped || char != '"';
            escaped = !escaped && char == '\\';
            return true;
        }
        in_string = char == '"';
        !matches!(char, ' ' | '\t' | '\n' | '\r')
    });
    kept.collect::<String>().into_boxed_str()
}

/// Reads a value and keeps nothing of it.
#[derive(Clone, Copy)]
struct Value {
    /// Levels that may still begin.
    depth: u32,
}

impl Value {
    fn inside<E: serde::de::Error>(self) -> Result<Self, E> {
        let depth = self.depth.checked_sub(1).ok_or_else(|| E::custom("too deep"))?;
        Ok(Self { depth })
    }
}

impl<'de> DeserializeSeed<'de> for Value {
    type Value = ();

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Value {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        while seq.next_element_seed(inside)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let inside = self.inside()?;
        while map.next_key_seed(Value { depth: 0 })?.is_some() {
            map.next_value_seed(inside)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_and_lists_stay_what_they_are() {
        let deep = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        for good in [
            "{}",
            "[]",
            " \t\r\n{\"a\": [1, -2.5e3, true, null, \"\\u00e9 \\ud83d\\ude00\"]} \n",
            "[{\"a\":1,\"a\":2}]",
            "[18446744073709551616, 1e308, 5e-400, -0]",
            "[\"\u{2028}\u{7f}\"]",
            &deep(DEPTH_MAX as usize),
        ] {
            assert!(is_document(good), "{good}");
            assert!(serde_json::from_str::<serde_json::Value>(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            " ",
            "1",
            "\"text\"",
            "null",
            "{",
            "}",
            "{\"a\":1}}",
            "{},\"type\":\"error\"",
            "{} {}",
            "[1,]",
            "[01]",
            "[NaN]",
            "[1e999]",
            "{a:1}",
            "{'a':1}",
            "{\"a\" 1}",
            "[\"\\ud800\"]",
            "[\"\\x\"]",
            "[\"\n\"]",
            "{\"a\":1}\u{0}",
            "\u{feff}{}",
            "\u{a0}{}",
            "{1:2}",
            &deep(DEPTH_MAX as usize + 1),
            &"[".repeat(1_000_000),
            &"{\"a\":".repeat(1_000_000),
        ] {
            assert!(!is_document(bad), "{}", bad.get(..40).unwrap_or(bad));
        }
    }
}
