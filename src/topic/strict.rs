//! Reading JSON that every reader takes for the same: I-JSON (RFC 7493) of a bounded depth.
//!
//! Driven by [`check`](super::check) with a message that somebody wants to publish. Pure; what it refuses it says with
//! line and column, never with the message's own words.

use std::cell::Cell;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{DeserializeSeed, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Levels of objects and lists inside one another: what stays JSON where messages are told as JSON has no more either.
pub(super) const DEPTH_MAX: u32 = 64;

/// A message that was read, and how large it is for whoever goes through it.
#[derive(Debug)]
pub(super) struct Document {
    /// All of it.
    pub value: Value,
    /// Levels of objects and lists, 0 for a text or number by itself.
    pub depth: u32,
    /// Values and names in it.
    pub values: u64,
    /// Pairs of lists and objects in the same list: two that are made of the same things, but otherwise, can't be told apart
    /// without a look at both.
    pub pairs: u64,
}

/// Reads one JSON text to its end.
///
/// # Errors
/// What it is not, with line and column: well-formed (RFC 8259), of numbers within a double's range, without halves of
/// surrogate pairs, and without a name twice in an object (RFC 7493, 2.1 to 2.3: readers differ in what they make of
/// those), nested no deeper than [`DEPTH_MAX`].
pub(super) fn read(text: &str) -> Result<Document, serde_json::Error> {
    let (deepest, values, pairs) = (Cell::new(0), Cell::new(0), Cell::new(0));
    let mut reader = serde_json::Deserializer::from_str(text);
    let value =
        reader.deserialize_any(Reader { depth: 0, deepest: &deepest, values: &values, pairs: &pairs })?;
    reader.end()?;
    Ok(Document { value, depth: deepest.get(), values: values.get(), pairs: pairs.get() })
}

/// Reads a value at this depth.
#[derive(Clone, Copy)]
struct Reader<'a> {
    depth: u32,
    deepest: &'a Cell<u32>,
    values: &'a Cell<u64>,
    pairs: &'a Cell<u64>,
}

impl Reader<'_> {
    fn one(self, value: Value) -> Value {
        self.values.set(self.values.get() + 1);
        value
    }

    fn inside<E: Error>(self) -> Result<Self, E> {
        let depth = self.depth + 1;
        if depth > DEPTH_MAX {
            return Err(E::custom(format_args!("more than {DEPTH_MAX} levels of objects and lists")));
        }
        self.deepest.set(self.deepest.get().max(depth));
        Ok(Self { depth, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Reader<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(self.one(Value::Null))
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(self.one(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(self.one(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(self.one(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("number out of range"))?;
        Ok(self.one(Value::Number(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(self.one(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(self.one(Value::String(value)))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inside = self.inside()?;
        let (mut items, mut large) = (Vec::new(), 0);
        while let Some(item) = seq.next_element_seed(inside)? {
            if matches!(item, Value::Array(_) | Value::Object(_)) {
                self.pairs.set(self.pairs.get() + large);
                large += 1;
            }
            items.push(item);
        }
        Ok(self.one(Value::Array(items)))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inside = self.inside()?;
        let mut members = Map::new();
        while let Some(name) = map.next_key::<String>()? {
            self.values.set(self.values.get() + 1);
            let value = map.next_value_seed(inside)?;
            if members.insert(name, value).is_some() {
                return Err(A::Error::custom("a name is twice in an object"));
            }
        }
        Ok(self.one(Value::Object(members)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nested(levels: usize) -> String {
        format!("{}{}", "[".repeat(levels), "]".repeat(levels))
    }

    #[test]
    fn what_is_read_is_what_serde_reads() {
        for text in [
            "null",
            " -0.5e3 ",
            "18446744073709551615",
            "-9223372036854775808",
            "18446744073709551616",
            "\"\\ud83d\\ude00 \\u0000 \u{2028}\"",
            "{\"a\":[true,false,null,{}],\"b\":\"\",\"\":{\"a\":1}}",
            &nested(DEPTH_MAX as usize),
        ] {
            let expected: Value = serde_json::from_str(text).unwrap();
            assert_eq!(read(text).unwrap().value, expected, "{text}");
        }
        let Document { depth, values, pairs, .. } = read("{\"a\":[1,{\"b\":2}],\"c\":{}}").unwrap();
        assert_eq!((depth, values, pairs), (3, 9, 0), "six values and three names");
        assert_eq!(read("[1,[],{},2,[[],[]],3]").unwrap().pairs, 3 + 1);
        assert_eq!(read("\"x\"").unwrap().depth, 0);
    }

    #[test]
    fn what_readers_would_take_for_different_things_is_refused_with_its_place() {
        for (text, said) in [
            ("", "EOF while parsing a value at line 1 column 0"),
            ("\u{feff}{}", "expected value at line 1 column 1"),
            ("{} {}", "trailing characters at line 1 column 4"),
            ("{\"a\":1,\n\"a\":2}", "a name is twice in an object at line 2"),
            ("{\"a\":1,\"\\u0061\":2}", "a name is twice in an object"),
            ("[{\"a\":{\"b\":1,\"b\":1}}]", "a name is twice in an object"),
            ("1e999999", "number out of range at line 1 column 8"),
            ("[-1e999999]", "number out of range"),
            ("[\"\\ud800\"]", "at line 1 column"),
            ("[\"\\udc00\\ud800\"]", "lone leading surrogate in hex escape at line 1 column"),
            ("[NaN]", "expected value at line 1 column 2"),
            ("[01]", "invalid number at line 1 column"),
            ("[\"\n\"]", "control character"),
            ("{\"secret words\":tru}", "at line 1 column"),
            (&nested(DEPTH_MAX as usize + 1), "more than 64 levels of objects and lists at line 1 column"),
            (&"[".repeat(1_000_000), "more than 64 levels"),
            (&"{\"a\":".repeat(1_000_000), "more than 64 levels"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(said), "{:.40}: {error}", text);
            assert!(error.contains(" at line ") && !error.contains("secret"), "{error}");
        }
    }
}
