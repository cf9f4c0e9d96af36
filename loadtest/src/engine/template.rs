//! `--message`: the text around a test message, for servers that understand nothing but a protocol of their own.
//! Pure.

use std::borrow::Cow;

use super::message::{Filler, Shape, is_compact};
use super::text::{Filling, HEX, Scope, Spelling, Text};

/// Stands for the test message.
const MARKER: &str = "{marker}";

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Template {
    before: Text,
    behind: Text,
}

/// What stands before and behind the test message; nothing without `--message`.
#[derive(Clone, Debug, Default)]
pub(crate) struct Around<'a> {
    /// Up to the marker.
    pub(crate) before: Cow<'a, [u8]>,
    /// From the end of the filler on.
    pub(crate) behind: Cow<'a, [u8]>,
}

impl Template {
    /// Reads a text with one `{marker}`, given by `flag`; it will stand around messages of `shape`.
    pub(crate) fn read(flag: &str, text: &str, shape: Shape, scope: Scope<'_>) -> Result<Self, String> {
        let wrong = |what: &str| format!("{flag} {text}: {what}");
        let parts: Vec<&str> = text.split(MARKER).collect();
        let [before, behind] = parts[..] else {
            return Err(wrong("has to hold {marker} once, as in {\"type\":\"pub\",\"data\":\"{marker}\"}"));
        };
        let scope = Scope { message: true, ..scope };
        let read = |part: &str| Text::read(flag, part, scope, Spelling::Plain);
        // Both parts are bytes if the whole is.
        let hex = if before.starts_with(HEX) { HEX } else { "" };
        let template = Self { before: read(before)?, behind: read(&format!("{hex}{behind}"))? };
        if is_compact(shape.sizes.least()) {
            return Err(wrong("messages below --size 48 are no text"));
        }
        if shape.filler == Filler::Json {
            return Err(wrong("the quotes of --filler json would end the text it stands in"));
        }
        Ok(template)
    }

    /// The text at one moment.
    pub(crate) fn around(&self, filling: &Filling<'_>) -> Around<'_> {
        Around { before: self.before.fill(filling), behind: self.behind.fill(filling) }
    }

    /// Whether it is the same when it is filled again, so that what arrives can be compared with it.
    pub(crate) fn is_stable(&self) -> bool {
        self.before.is_stable() && self.behind.is_stable()
    }

    /// Whether it looks like JSON, which publishing by HTTP has to announce.
    pub(crate) fn is_json(&self) -> bool {
        self.before.beginning().trim_start().starts_with(['{', '['])
    }

    /// Whether it needs what `--await` has caught.
    pub(crate) fn names_caught(&self) -> bool {
        self.before.names_caught() || self.behind.names_caught()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::sizes::Sizes;
    use crate::engine::topics::Topics;
    use crate::engine::vars::Vars;

    const SHAPE: Shape = Shape { sizes: Sizes::One(64), filler: Filler::Letters, binary: false };

    #[test]
    fn names_are_filled_in_on_both_sides() {
        let vars = Vars::parse("room\nred\nblue\n").unwrap();
        let text = r#"{"room":"{room}","data":"{marker}","n":{i},"seq":{seq}}"#;
        let scope = Scope { columns: vars.names(), ..Scope::default() };
        let template = Template::read("--message", text, SHAPE, scope).unwrap();
        let topics = Topics::named("t");
        let filling = Filling {
            number: 1,
            vars: &vars,
            topics: &topics,
            topic: None,
            caught: &[],
            message: Some((7, 64)),
        };
        let Around { before, behind } = template.around(&filling);
        assert_eq!(before.as_ref(), br#"{"room":"blue","data":""#);
        assert_eq!(behind.as_ref(), br#"","n":1,"seq":7}"#);
        assert!(template.is_json() && template.is_stable());
        let same = Template::read("--message", "PUB {marker}\n", SHAPE, scope).unwrap();
        let Around { before, behind } = same.around(&filling);
        assert!(matches!((before, behind), (Cow::Borrowed(b"PUB "), Cow::Borrowed(b"\n"))));
        assert!(!same.is_json());
        let volatile = Template::read("--message", "{uuid} {marker}", SHAPE, scope).unwrap();
        assert!(!volatile.is_stable());
    }

    #[test]
    fn what_can_not_work_is_refused_with_the_reason() {
        let small = Shape { sizes: Sizes::One(47), ..SHAPE };
        let json = Shape { filler: Filler::Json, ..SHAPE };
        for (text, shape, says) in [
            ("hello", SHAPE, "{marker} once"),
            ("{marker}{marker}", SHAPE, "{marker} once"),
            ("{user}: {marker}", SHAPE, "nothing is called {user}"),
            ("{marker}", small, "below --size 48"),
            ("{marker}", json, "--filler json"),
        ] {
            let error = Template::read("--message", text, shape, Scope::default()).unwrap_err();
            assert!(error.starts_with("--message") && error.contains(says), "{error}");
        }
    }
}
