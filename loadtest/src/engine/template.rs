//! `--message`: the text around a test message, for servers that understand nothing but a protocol of their own.
//! Pure.

use std::borrow::Cow;

use crate::engine::message::{Filler, Shape, is_compact};
use crate::engine::vars::{Spelling, Vars};

/// Stands for the test message.
const MARKER: &str = "{marker}";

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Template {
    before: String,
    behind: String,
    /// Whether it is the same for every connection, so that nothing has to be filled in.
    constant: bool,
}

/// What stands before and behind the test message of one connection; nothing without `--message`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Around<'a> {
    /// Up to the marker.
    pub(crate) before: Cow<'a, str>,
    /// From the end of the filler on.
    pub(crate) behind: Cow<'a, str>,
}

impl Template {
    /// Parses a text with one `{marker}`, `{i}` and names of `vars`; it will stand around messages of `shape`.
    pub(crate) fn parse(text: &str, shape: Shape, vars: &Vars) -> Result<Self, String> {
        let wrong = |what: &str| format!("--message {text}: {what}");
        let parts: Vec<&str> = text.split(MARKER).collect();
        let [before, behind] = parts[..] else {
            return Err(wrong("has to hold {marker} once, as in {\"type\":\"pub\",\"data\":\"{marker}\"}"));
        };
        for part in [before, behind] {
            if let Some(name) = vars.unknown_in(part) {
                return Err(wrong(&format!("nothing is called {{{name}}}; see --vars")));
            }
        }
        if is_compact(shape.size) {
            return Err(wrong("messages below --size 48 are no text"));
        }
        if shape.filler == Filler::Json {
            return Err(wrong("the quotes of --filler json would end the text it stands in"));
        }
        let same = |part: &str| vars.fill(part, 0, Spelling::Plain) == part;
        let constant = same(before) && same(behind);
        Ok(Self { before: before.to_owned(), behind: behind.to_owned(), constant })
    }

    /// The text as connection `number` says it.
    pub(crate) fn around(&self, vars: &Vars, number: u64) -> Around<'_> {
        let fill = |text| match self.constant {
            true => Cow::Borrowed(text),
            false => vars.fill(text, number, Spelling::Plain),
        };
        Around { before: fill(self.before.as_str()), behind: fill(self.behind.as_str()) }
    }

    /// Whether it looks like JSON, which publishing by HTTP has to announce.
    pub(crate) fn is_json(&self) -> bool {
        self.before.trim_start().starts_with(['{', '['])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { size: 64, filler: Filler::Letters, binary: false };

    #[test]
    fn names_are_filled_in_on_both_sides() {
        let vars = Vars::parse("room\nred\nblue\n").unwrap();
        let text = r#"{"room":"{room}","data":"{marker}","n":{i}}"#;
        let template = Template::parse(text, SHAPE, &vars).unwrap();
        let Around { before, behind } = template.around(&vars, 1);
        assert_eq!((before.as_ref(), behind.as_ref()), (r#"{"room":"blue","data":""#, r#"","n":1}"#));
        assert!(template.is_json());
        let same = Template::parse("PUB {marker}\n", SHAPE, &vars).unwrap();
        let Around { before, behind } = same.around(&vars, 1);
        assert!(matches!((before, behind), (Cow::Borrowed("PUB "), Cow::Borrowed("\n"))));
        assert!(!same.is_json());
    }

    #[test]
    fn what_can_not_work_is_refused_with_the_reason() {
        let vars = Vars::default();
        let small = Shape { size: 47, ..SHAPE };
        let json = Shape { filler: Filler::Json, ..SHAPE };
        for (text, shape, says) in [
            ("hello", SHAPE, "{marker} once"),
            ("{marker}{marker}", SHAPE, "{marker} once"),
            ("{user}: {marker}", SHAPE, "nothing is called {user}"),
            ("{marker}", small, "below --size 48"),
            ("{marker}", json, "--filler json"),
        ] {
            let error = Template::parse(text, shape, &vars).unwrap_err();
            assert!(error.starts_with("--message") && error.contains(says), "{error}");
        }
    }
}
