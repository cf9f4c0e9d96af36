//! Writes JSON objects whose keys are ours. Appends to a buffer; never reads.

use std::fmt::Display;
use std::io::Write;

use crate::wire::json::push_text;

/// One object under construction.
pub(super) struct Object<'a> {
    out: &'a mut Vec<u8>,
    empty: bool,
}

impl<'a> Object<'a> {
    /// Opens an object.
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        out.push(b'{');
        Self { out, empty: true }
    }

    /// A number, or anything else that is JSON as it prints.
    pub(super) fn number(&mut self, key: &str, value: impl Display) {
        self.key(key);
        // Writing to a Vec cannot fail.
        let _ = write!(self.out, "{value}");
    }

    /// A number with three decimals, or `null`.
    pub(super) fn decimal(&mut self, key: &str, value: Option<f64>) {
        match value.filter(|value| value.is_finite()) {
            Some(value) => self.number(key, format_args!("{value:.3}")),
            None => self.number(key, "null"),
        }
    }

    /// A number, or `null`.
    pub(super) fn optional(&mut self, key: &str, value: Option<impl Display>) {
        match value {
            Some(value) => self.number(key, value),
            None => self.number(key, "null"),
        }
    }

    /// A string.
    pub(super) fn text(&mut self, key: &str, value: &str) {
        self.key(key);
        push_text(self.out, value);
    }

    /// An object inside.
    pub(super) fn object(&mut self, key: &str, fill: impl FnOnce(&mut Object<'_>)) {
        self.key(key);
        let mut inner = Object::new(self.out);
        fill(&mut inner);
        inner.end();
    }

    /// An array of objects.
    pub(super) fn array<T>(
        &mut self,
        key: &str,
        items: impl IntoIterator<Item = T>,
        mut fill: impl FnMut(&mut Object<'_>, T),
    ) {
        self.key(key);
        self.out.push(b'[');
        for (index, item) in items.into_iter().enumerate() {
            if index > 0 {
                self.out.push(b',');
            }
            let mut inner = Object::new(self.out);
            fill(&mut inner, item);
            inner.end();
        }
        self.out.push(b']');
    }

    /// Closes the object.
    pub(super) fn end(self) {
        self.out.push(b'}');
    }

    fn key(&mut self, key: &str) {
        if !self.empty {
            self.out.push(b',');
        }
        self.empty = false;
        push_text(self.out, key);
        self.out.push(b':');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_reads_what_was_written() {
        let mut out = Vec::new();
        let mut object = Object::new(&mut out);
        object.text("t\"", "a\\\"\n\u{1}é");
        object.number("n", 7);
        object.decimal("nan", Some(f64::NAN));
        object.optional("none", None::<u64>);
        object.array("a", [1, 2], |item, value| item.number("v", value));
        object.object("o", |_| {});
        object.end();
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let expected = serde_json::json!({
            "t\"": "a\\\"\n\u{1}é", "n": 7, "nan": null, "none": null, "a": [{"v": 1}, {"v": 2}], "o": {}
        });
        assert_eq!(value, expected);
    }
}
