//! Claims that mean nothing here and are told to the application beside `sub`, as far as a list names them. Pure.
//!
//! They are read and written anew, in the order of the list: what is kept is JSON that every reader takes, and equal for equal
//! claims, so that it can be shared. Only numbers are kept as they are spelled: no number here could hold all of them.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserializer, de::DeserializeSeed};
use serde_json::Value;
use serde_json::value::RawValue;

/// Names that a list may have.
pub const CARRIED_NAMES_MAX: usize = 16;

/// Bytes of the JSON that is kept of one bearer.
pub const CARRIED_BYTES_MAX: usize = 1_024;

/// Bytes of one of them as it is spelled: with every character escaped it is six times as long, and the rest is space between.
const SPELLED_BYTES_MAX: usize = 8 * CARRIED_BYTES_MAX;

/// Lists and objects within each other. What tells of a bearer has levels of its own around them, and readers stop at a hundred, some
/// at 64.
const LEVELS_MAX: usize = 32;

/// What means something here already, in a token or in what the application says of somebody, and is no matter of a list.
const OWN_NAMES: [&str; 12] =
    ["iss", "aud", "sub", "exp", "nbf", "iat", "jti", "subscribe", "publish", "allow", "topics", "data"];

/// Whether a list may name this claim.
#[must_use]
pub fn may_carry(name: &str) -> bool {
    !name.is_empty() && name.len() <= 64 && !name.contains(char::is_control) && !OWN_NAMES.contains(&name)
}

/// Of these names, what an object has.
struct Listed<'n>(&'n [String]);

impl<'de> DeserializeSeed<'de> for Listed<'_> {
    type Value = Vec<Option<&'de RawValue>>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Listed<'_> {
    type Value = Vec<Option<&'de RawValue>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut found = vec![None; self.0.len()];
        while let Some(name) = map.next_key::<String>()? {
            let place = self.0.iter().position(|listed| *listed == name);
            match place.and_then(|place| found.get_mut(place)) {
                None => drop(map.next_value::<IgnoredAny>()?),
                Some(Some(_)) => return Err(A::Error::custom("a name twice")),
                Some(empty) => *empty = Some(map.next_value()?),
            }
        }
        Ok(found)
    }
}

/// The claims of this object that `names` lists, as an object; `None` if it has none of them.
///
/// # Errors
/// One of them comes twice or is no JSON that every reader takes, or they are too long together.
pub(super) fn carried(json: &[u8], names: &[String]) -> Result<Option<Box<str>>, ()> {
    if names.is_empty() {
        return Ok(None);
    }
    let mut reader = serde_json::Deserializer::from_slice(json);
    let found = Listed(names).deserialize(&mut reader).map_err(drop)?;
    let mut out = String::new();
    for (name, value) in names.iter().zip(found) {
        let Some(value) = value else { continue };
        out.push(if out.is_empty() { '{' } else { ',' });
        out.push_str(&Value::from(name.as_str()).to_string());
        out.push(':');
        if value.get().len() > SPELLED_BYTES_MAX {
            return Err(());
        }
        push_anew(value.get(), LEVELS_MAX, &mut out)?;
    }
    if out.is_empty() {
        return Ok(None);
    }
    out.push('}');
    if out.len() > CARRIED_BYTES_MAX { Err(()) } else { Ok(Some(out.into())) }
}

/// Writes a value anew: without spaces, texts in one spelling, members in one order and the last of each name, numbers as they are.
///
/// # Errors
/// It is no JSON that every reader takes, or has more levels than these.
fn push_anew(json: &str, levels: usize, out: &mut String) -> Result<(), ()> {
    let inside = || levels.checked_sub(1).ok_or(());
    let before = |out: &mut String, first: char, nth: usize| out.push(if nth == 0 { first } else { ',' });
    match json.as_bytes().first() {
        Some(b'{') => {
            let inside = inside()?;
            let members: BTreeMap<String, &RawValue> = serde_json::from_str(json).map_err(drop)?;
            for (nth, (name, value)) in members.iter().enumerate() {
                before(out, '{', nth);
                out.push_str(&Value::from(name.as_str()).to_string());
                out.push(':');
                push_anew(value.get(), inside, out)?;
            }
            out.push_str(if members.is_empty() { "{}" } else { "}" });
        }
        Some(b'[') => {
            let inside = inside()?;
            let values: Vec<&RawValue> = serde_json::from_str(json).map_err(drop)?;
            for (nth, value) in values.iter().enumerate() {
                before(out, '[', nth);
                push_anew(value.get(), inside, out)?;
            }
            out.push_str(if values.is_empty() { "[]" } else { "]" });
        }
        _ => match serde_json::from_str(json).map_err(drop)? {
            text @ Value::String(_) => out.push_str(&text.to_string()),
            // A number that is none of ours is the issuer's nevertheless.
            _ => out.push_str(json),
        },
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_listed_is_kept_in_the_order_of_the_list() {
        let list = names(&["tenant", "role\"", "more"]);
        let read = |json: &str| carried(json.as_bytes(), &list);
        let kept = |text: &str| Ok(Some(text.into()));
        assert_eq!(
            read(r#"{"sub":"a","role\"": [1, null ],"tenant" : "x"}"#),
            kept(r#"{"tenant":"x","role\"":[1,null]}"#)
        );
        assert_eq!(read(r#"{"tenant":null}"#), kept(r#"{"tenant":null}"#));
        assert_eq!(read(r#"{"te\u006eant":1}"#), kept(r#"{"tenant":1}"#), "however it is spelled");
        assert_eq!(
            read(r#"{"tenant": { "b\u0061": [ ], "a" : {}, "ba":"\u0041\n" , "c":[true,{"d":null}]} }"#),
            kept(r#"{"tenant":{"a":{},"ba":"A\n","c":[true,{"d":null}]}}"#),
            "in one order, and the last of a name"
        );
        assert_eq!((read("{}"), read(r#"{"Tenant":1,"other":"\ud800"}"#)), (Ok(None), Ok(None)));
        assert_eq!(carried(b"{\"a\":1}", &[]), Ok(None));
        let long = |bytes: usize| format!(r#"{{"tenant":"{}"}}"#, "x".repeat(bytes));
        assert_eq!(read(&long(CARRIED_BYTES_MAX - 13)).unwrap().unwrap().len(), CARRIED_BYTES_MAX);
        for bad in [
            long(CARRIED_BYTES_MAX - 12),
            r#"{"tenant":1,"tenant":1}"#.to_owned(),
            r#"{"tenant":1,"te\u006eant":1}"#.to_owned(),
            r#"{"tenant":"\ud800"}"#.to_owned(),
            r#"{"tenant":1e999}"#.to_owned(),
            r#"{"tenant":[{"a":"\ud800"}]}"#.to_owned(),
            r#"{"tenant":[{"\ud800":1}]}"#.to_owned(),
            r#"{"tenant":[01]}"#.to_owned(),
            format!(r#"{{"tenant":{}1{}}}"#, "[".repeat(200), "]".repeat(200)),
            format!(r#"{{"tenant":[{}]}}"#, " ".repeat(SPELLED_BYTES_MAX)),
            "[]".to_owned(),
        ] {
            assert_eq!(read(&bad), Err(()), "{bad:.60}");
        }
        assert!(may_carry("tenant") && may_carry("https://app.example/role"));
        assert!(!["", "sub", "jti", "data", "a\nb"].into_iter().any(may_carry));
    }

    #[test]
    fn so_many_levels_are_kept_and_no_more_though_the_last_be_empty() {
        for (open, close, innermost) in
            [("[", "]", ""), ("[", "]", "1"), ("{\"a\":", "}", "{}"), ("{\"a\":", "}", "1")]
        {
            // An object in the middle is a level itself.
            let within = usize::from(innermost == "{}");
            let of = |levels: usize| {
                let (before, behind) = (open.repeat(levels - within), close.repeat(levels - within));
                format!("{{\"tenant\":{before}{innermost}{behind}}}")
            };
            let list = names(&["tenant"]);
            let (most, more) = (of(LEVELS_MAX), of(LEVELS_MAX + 1));
            assert_eq!(carried(most.as_bytes(), &list).unwrap().as_deref(), Some(&*most));
            assert_eq!(carried(more.as_bytes(), &list), Err(()), "{more}");
        }
    }

    #[test]
    fn numbers_are_kept_to_the_last_digit() {
        let list = names(&["n"]);
        for number in [
            "18446744073709551615",
            "18446744073709551616",
            "-9223372036854775809",
            "340282366920938463463374607431768211457",
            "0.1000000000000000055511151231257827021181583404541015625",
            "123456789012345678.9",
            "9007199254740993.0",
            "-0",
            "1.0",
            "1E5",
            "5e-324",
        ] {
            for value in [number.to_owned(), format!("[{number},{{\"a\":{number}}}]")] {
                let json = format!("{{\"n\":{value}}}");
                assert_eq!(carried(json.as_bytes(), &list).unwrap().as_deref(), Some(json.as_str()));
            }
        }
    }

    proptest! {
        /// What is kept says what was there, and nothing else.
        #[test]
        fn it_says_what_was_there(members in prop::collection::btree_map("[a-d]{1,2}", "\\PC{0,8}", 0..6), more in any::<i64>()) {
            let list = names(&["b", "aa", "n"]);
            let mut whole = serde_json::json!(members);
            whole["n"] = more.into();
            let kept = carried(whole.to_string().as_bytes(), &list).unwrap().unwrap();
            let kept: serde_json::Map<String, Value> = serde_json::from_str(&kept).unwrap();
            for name in &list {
                prop_assert_eq!(kept.get(name), whole.get(name));
            }
            prop_assert!(kept.keys().all(|name| list.contains(name)));
        }
    }
}
