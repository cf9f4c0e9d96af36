//! JSON objects whose keys are ours, in the order they are filled. Never reads.

use serde_json::{Map, Value};

/// One object under construction.
#[derive(Default)]
pub(super) struct Object(Map<String, Value>);

impl Object {
    /// A number, or any other value.
    pub(super) fn number(&mut self, key: &str, value: impl Into<Value>) {
        self.0.insert(key.to_owned(), value.into());
    }

    /// A number with three decimals, or `null`.
    pub(super) fn decimal(&mut self, key: &str, value: Option<f64>) {
        self.number(key, value.map(|value| (value * 1e3).round() / 1e3));
    }

    /// A number, or `null`.
    pub(super) fn optional(&mut self, key: &str, value: Option<impl Into<Value>>) {
        self.number(key, value.map_or(Value::Null, Into::into));
    }

    /// A string.
    pub(super) fn text(&mut self, key: &str, value: &str) {
        self.number(key, value);
    }

    /// An object inside.
    pub(super) fn object(&mut self, key: &str, fill: impl FnOnce(&mut Object)) {
        self.number(key, filled(fill));
    }

    /// An array of objects.
    pub(super) fn array<T>(
        &mut self,
        key: &str,
        items: impl IntoIterator<Item = T>,
        mut fill: impl FnMut(&mut Object, T),
    ) {
        let items: Vec<Value> = items.into_iter().map(|item| filled(|object| fill(object, item))).collect();
        self.number(key, items);
    }

    /// Appends the whole object.
    pub(super) fn write_into(&self, out: &mut Vec<u8>) {
        // Writing to a Vec cannot fail.
        let _ = serde_json::to_writer(out, &self.0);
    }
}

fn filled(fill: impl FnOnce(&mut Object)) -> Value {
    let mut object = Object::default();
    fill(&mut object);
    Value::Object(object.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_reads_what_was_written() {
        let mut out = Vec::new();
        let mut object = Object::default();
        object.text("t\"", "a\\\"\n\u{1}é");
        object.number("n", 7);
        object.decimal("nan", Some(f64::NAN));
        object.optional("none", None::<u64>);
        object.array("a", [1, 2], |item, value| item.number("v", value));
        object.object("o", |_| {});
        object.write_into(&mut out);
        let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
        let expected = serde_json::json!({
            "t\"": "a\\\"\n\u{1}é", "n": 7, "nan": null, "none": null, "a": [{"v": 1}, {"v": 2}], "o": {}
        });
        assert_eq!(value, expected);
    }
}
