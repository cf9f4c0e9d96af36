//! JSON as far as the server needs it: one flat object read without a copy, texts and numbers written.
//!
//! Pure functions over text. Reading knows texts, `true`, `false` and `null` as values of an object's fields
//! (RFC 8259); what a field means is up to whoever asks. Never builds a tree.

use std::fmt;

/// Why a text is not the flat object that is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JsonError(&'static str);

impl JsonError {
    /// An error of whoever reads the fields.
    #[must_use]
    pub const fn new(reason: &'static str) -> Self {
        Self(reason)
    }

    /// One line on what is wrong.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for JsonError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for JsonError {}

/// A JSON string as it lies between its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text<'a> {
    raw: &'a str,
    escaped: bool,
}

impl<'a> Text<'a> {
    /// The text itself: as it lies, or decoded into `scratch` if it has escapes.
    ///
    /// # Errors
    /// An escape that JSON does not have, or half a surrogate pair.
    pub fn read<'s>(&self, scratch: &'s mut String) -> Result<&'s str, JsonError>
    where
        'a: 's,
    {
        if !self.escaped {
            return Ok(self.raw);
        }
        scratch.clear();
        unescape(self.raw, scratch)?;
        Ok(scratch)
    }

    /// Bytes that the text has at least, known without decoding it: no escape is longer than `\u0041`.
    #[must_use]
    pub fn shortest(&self) -> usize {
        const ESCAPE_BYTES_MAX: usize = 6;
        if self.escaped { self.raw.len() / ESCAPE_BYTES_MAX } else { self.raw.len() }
    }

    /// Whether the text is `wanted`.
    #[must_use]
    pub fn is(&self, wanted: &str) -> bool {
        if !self.escaped {
            return self.raw == wanted;
        }
        let mut decoded = String::new();
        unescape(self.raw, &mut decoded).is_ok() && decoded == wanted
    }
}

/// The value of a field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// A string.
    Text(Text<'a>),
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
}

/// Reads one object whose values are strings, booleans or null, and gives each field to `on_field`.
///
/// # Errors
/// Not such an object, or what `on_field` answers.
pub fn flat_object<'a>(
    text: &'a str,
    mut on_field: impl FnMut(Text<'a>, Value<'a>) -> Result<(), JsonError>,
) -> Result<(), JsonError> {
    let mut rest = Rest { text, at: 0 };
    rest.expect(b'{', "expects an object")?;
    if !rest.skip(b'}') {
        loop {
            rest.expect(b'"', "expects a field's name in quotes")?;
            let name = rest.string()?;
            rest.expect(b':', "expects a colon behind a field's name")?;
            let value = rest.value()?;
            on_field(name, value)?;
            if rest.skip(b'}') {
                break;
            }
            rest.expect(b',', "expects a comma or the end of the object")?;
        }
    }
    rest.blanks();
    if rest.at == text.len() { Ok(()) } else { Err(JsonError("more follows behind the object")) }
}

/// Appends a string with its quotes.
pub fn push_text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    let mut plain_from = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape: &[u8] = match byte {
            b'"' => b"\\\"",
            b'\\' => b"\\\\",
            b'\n' => b"\\n",
            b'\r' => b"\\r",
            b'\t' => b"\\t",
            0..=0x1f | 0x7f => b"",
            _ => continue,
        };
        out.extend_from_slice(text.as_bytes().get(plain_from..at).unwrap_or_default());
        plain_from = at + 1;
        if escape.is_empty() {
            const DIGITS: &[u8; 16] = b"0123456789abcdef";
            let (high, low) = (DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]);
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', high, low]);
        } else {
            out.extend_from_slice(escape);
        }
    }
    out.extend_from_slice(text.as_bytes().get(plain_from..).unwrap_or_default());
    out.push(b'"');
}

/// Appends a whole number; a few times faster than `write!`, which matters where a line is an answer.
pub fn push_number(out: &mut Vec<u8>, mut number: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.extend_from_slice(digits.get(at..).unwrap_or_default());
}

struct Rest<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Rest<'a> {
    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn blanks(&mut self) {
        while matches!(self.byte(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    /// Steps over `wanted` and the blanks before it, if that is what comes.
    fn skip(&mut self, wanted: u8) -> bool {
        self.blanks();
        let there = self.byte() == Some(wanted);
        self.at += usize::from(there);
        there
    }

    fn expect(&mut self, wanted: u8, otherwise: &'static str) -> Result<(), JsonError> {
        if self.skip(wanted) { Ok(()) } else { Err(JsonError(otherwise)) }
    }

    /// A string whose opening quote was taken.
    fn string(&mut self) -> Result<Text<'a>, JsonError> {
        let start = self.at;
        let mut escaped = false;
        loop {
            self.at += plain_length(self.text.as_bytes().get(self.at..).unwrap_or_default());
            match self.byte() {
                Some(b'"') => {
                    let raw = self.text.get(start..self.at).unwrap_or_default();
                    self.at += 1;
                    return Ok(Text { raw, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    // What follows is never the end of the string; whether it is an escape is seen on reading.
                    self.at += 2;
                }
                Some(_) => return Err(JsonError("a control character inside a string")),
                None => return Err(JsonError("a string does not end")),
            }
        }
    }

    fn value(&mut self) -> Result<Value<'a>, JsonError> {
        if self.skip(b'"') {
            return Ok(Value::Text(self.string()?));
        }
        for (word, value) in
            [("true", Value::Bool(true)), ("false", Value::Bool(false)), ("null", Value::Null)]
        {
            if self.text.get(self.at..).is_some_and(|rest| rest.starts_with(word)) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(JsonError("a value is a string, true, false or null"))
    }
}

/// Bytes up to the first quote, backslash or control character, eight at a time.
fn plain_length(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGHS: u64 = 0x8080_8080_8080_8080;
    // A byte of the result is marked where `word` has a zero byte; a false mark can only follow a true one.
    let zeroes = |word: u64| word.wrapping_sub(ONES) & !word;
    let mut length = 0;
    for eight in bytes.chunks_exact(8) {
        let word = u64::from_le_bytes(eight.try_into().unwrap_or_default());
        let quote = zeroes(word ^ (ONES * u64::from(b'"')));
        let backslash = zeroes(word ^ (ONES * u64::from(b'\\')));
        let control = word.wrapping_sub(ONES * 0x20) & !word;
        let marks = (quote | backslash | control) & HIGHS;
        if marks != 0 {
            return length + (marks.trailing_zeros() / 8) as usize;
        }
        length += 8;
    }
    let tail = bytes.get(length..).unwrap_or_default();
    length + tail.iter().position(|&b| b == b'"' || b == b'\\' || b < 0x20).unwrap_or(tail.len())
}

fn unescape(raw: &str, into: &mut String) -> Result<(), JsonError> {
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        into.push_str(rest.get(..at).unwrap_or_default());
        let escape = rest.as_bytes().get(at + 1).copied();
        rest = rest.get(at + 2..).ok_or(JsonError("not an escape of JSON"))?;
        into.push(match escape {
            Some(b'"') => '"',
            Some(b'\\') => '\\',
            Some(b'/') => '/',
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => unicode(&mut rest)?,
            _ => return Err(JsonError("not an escape of JSON")),
        });
    }
    into.push_str(rest);
    Ok(())
}

/// What `\u` stands for; `rest` begins behind it and is moved on.
fn unicode(rest: &mut &str) -> Result<char, JsonError> {
    let first = hex4(rest)?;
    // RFC 8259, 7: outside the basic plane a character is a pair of surrogates.
    if !(0xd800..0xdc00).contains(&first) {
        return char::from_u32(first).ok_or(JsonError("half a surrogate pair"));
    }
    *rest = rest.strip_prefix("\\u").ok_or(JsonError("half a surrogate pair"))?;
    let second = hex4(rest)?;
    if !(0xdc00..0xe000).contains(&second) {
        return Err(JsonError("half a surrogate pair"));
    }
    char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00))
        .ok_or(JsonError("half a surrogate pair"))
}

fn hex4(rest: &mut &str) -> Result<u32, JsonError> {
    let digits = rest.get(..4).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
    let digits = digits.ok_or(JsonError("\\u without four hexadecimal digits"))?;
    *rest = rest.get(4..).unwrap_or_default();
    u32::from_str_radix(digits, 16).map_err(|_| JsonError("\\u without four hexadecimal digits"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The fields as serde_json's map has them.
    fn fields(text: &str) -> Result<serde_json::Map<String, serde_json::Value>, JsonError> {
        let mut map = serde_json::Map::new();
        flat_object(text, |name, value| {
            let (mut scratch, mut other) = (String::new(), String::new());
            let value = match value {
                Value::Text(text) => text.read(&mut scratch)?.into(),
                Value::Bool(switch) => switch.into(),
                Value::Null => serde_json::Value::Null,
            };
            let read = name.read(&mut other)?.to_owned();
            assert!(name.shortest() <= read.len());
            assert!(name.is(&read));
            map.insert(read, value);
            Ok(())
        })
        .map(|()| map)
    }

    #[test]
    fn objects_are_read_as_serde_json_reads_them() {
        for text in [
            "{}",
            " { } ",
            r#"{"topic":"a","payload":"x"}"#,
            r#" { "topic" : "a" , "binary" : true , "b" : false, "n":null } "#,
            r#"{"a":"\"\\\/\b\f\n\r\t\u0041\u20ac\ud83d\ude00"}"#,
            r#"{"t\u006fpic":"é€😀 with a long tail behind it, longer than eight bytes"}"#,
            r#"{"a":"12345678","a":"123456789"}"#,
        ] {
            let theirs: serde_json::Map<_, _> = serde_json::from_str(text).unwrap();
            assert_eq!(fields(text), Ok(theirs), "{text}");
        }
    }

    #[test]
    fn what_is_no_flat_object_is_refused() {
        for text in [
            "",
            "null",
            "[]",
            "{",
            "}",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#"{"a":"b"#,
            r#"{"a":"b"}x"#,
            r#"{"a":"b"}{}"#,
            r#"{"a":"b",}"#,
            r#"{a:"b"}"#,
            r#"{"a":1}"#,
            r#"{"a":{}}"#,
            r#"{"a":[]}"#,
            r#"{"a":truex}"#,
            "{\"a\":\"\n\"}",
            "{\"a\":\"12345678\u{1}\"}",
            r#"{"a":"\x"}"#,
            r#"{"a":"\"}"#,
            r#"{"a":"\u12"}"#,
            r#"{"a":"\u+123"}"#,
            r#"{"a":"\ud800"}"#,
            r#"{"a":"\ud800\u0041"}"#,
            r#"{"a":"\udc00"}"#,
            r#"{"a":"\é"}"#,
        ] {
            assert!(fields(text).is_err(), "{text}");
        }
    }

    #[test]
    fn numbers_are_written_in_full() {
        for number in [0, 7, 10, 99, 100, 12_345_678_901, u64::MAX] {
            let mut out = Vec::new();
            push_number(&mut out, number);
            assert_eq!(String::from_utf8(out).unwrap(), number.to_string());
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(texts in proptest::collection::vec(any::<String>(), 0..4)) {
            let mut out = b"{".to_vec();
            for (index, text) in texts.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                push_text(&mut out, &format!("{index}"));
                out.push(b':');
                push_text(&mut out, text);
            }
            out.push(b'}');
            let written = String::from_utf8(out).unwrap();
            let theirs: serde_json::Map<_, _> = serde_json::from_str(&written).unwrap();
            prop_assert_eq!(theirs.len(), texts.len());
            for (index, text) in texts.iter().enumerate() {
                prop_assert_eq!(theirs[&format!("{index}")].as_str(), Some(text.as_str()));
            }
            prop_assert_eq!(fields(&written), Ok(theirs));
        }

        #[test]
        fn near_misses_are_judged_as_serde_json_judges_them(text in "[{}\":,\\\\ua0ntrue\u{1} é]{0,24}") {
            let theirs = serde_json::from_str::<serde_json::Map<_, _>>(&text);
            match fields(&text) {
                Ok(ours) => prop_assert_eq!(Some(ours), theirs.ok()),
                // Ours refuses more: numbers and nested values.
                Err(_) => if let Ok(map) = theirs {
                    prop_assert!(map.values().any(|v| v.is_number() || v.is_array() || v.is_object()));
                },
            }
        }

        #[test]
        fn the_plain_length_is_that_of_a_byte_loop(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let slow = bytes.iter().position(|&b| b == b'"' || b == b'\\' || b < 0x20).unwrap_or(bytes.len());
            prop_assert_eq!(plain_length(&bytes), slow);
        }
    }
}
