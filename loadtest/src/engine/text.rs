//! The one language of all templates: URLs, headers, hellos, replies, messages.
//!
//! `{name}` is the only thing in a text that means anything: a known name, with what it takes, and how it is written
//! where it stands. Any other brace is a brace, because JSON is full of them; `\{` is one in front of what looks like
//! a name. A text that begins with `hex:` is bytes in hexadecimal digits between its values. Names that are not known are refused when the text is read, before anything is opened. Pure but for the
//! clock and the random numbers that some names stand for.

use std::borrow::Cow;
use std::cell::Cell;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use regex::bytes::Captures;

use super::message::random_u64;
use super::topics::Topics;
use super::vars::Vars;

/// What a text begins with whose bytes are given in hexadecimal digits.
pub(crate) const HEX: &str = "hex:";
/// The longest `{random:N}`.
const RANDOM_MAX: usize = 4_096;

/// How a value is written where it is put.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spelling {
    /// As it is.
    Plain,
    /// As the inside of a JSON string (RFC 8259 section 7).
    Json,
    /// Percent-encoded, for URLs (RFC 3986 section 2.1).
    Url,
}

/// What may be named in a text, beside what may be named everywhere.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scope<'a> {
    /// Columns of `--vars`.
    pub(crate) columns: &'a [String],
    /// What groups of `--await` before it have caught.
    pub(crate) caught: &'a [String],
    /// Groups of the pattern that it answers: their number with the whole, and their names.
    pub(crate) groups: Option<&'a regex::bytes::Regex>,
    /// Whether it is about one test message, which has a number and a size.
    pub(crate) message: bool,
    /// Whether several topics may be named at once.
    pub(crate) listed: bool,
}

/// What names stand for at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Filling<'a> {
    /// The connection's number.
    pub(crate) number: u64,
    /// The columns of `--vars`.
    pub(crate) vars: &'a Vars,
    /// All topics.
    pub(crate) topics: &'a Topics,
    /// The topic that is meant; the first of the connection's if none is.
    pub(crate) topic: Option<u32>,
    /// What groups of `--await` have caught.
    pub(crate) caught: &'a [(String, String)],
    /// The message's number in its topic, and its bytes.
    pub(crate) message: Option<(u64, usize)>,
}

/// A text that was read.
#[derive(Clone, Debug, Default)]
pub(crate) struct Text {
    parts: Vec<Part>,
    binary: bool,
}

#[derive(Clone, Debug)]
enum Part {
    Literal(Vec<u8>),
    Value(Value, Spelling),
}

#[derive(Clone, Debug)]
enum Value {
    Number,
    Topic,
    Topics(String),
    Column(usize),
    Caught(String),
    Group(String),
    Sequence,
    Size,
    Now,
    Uuid,
    Random(usize),
    Hmac(Box<Text>, Box<Text>),
    /// A text with its length in front.
    Measured(Length, Box<Text>),
}

/// How a length is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Length {
    /// Two bytes, the high one first.
    TwoBytes,
    /// Seven bits a byte, the low ones first (MQTT 3.1.1 section 2.2.3).
    Varint,
    /// The same, and it counts the test message that follows.
    VarintWithMarker,
}

impl Text {
    /// Reads `text`, given by `flag`; values are written by `spelling` where they do not say how.
    pub(crate) fn read(flag: &str, text: &str, scope: Scope<'_>, spelling: Spelling) -> Result<Self, String> {
        let (inside, binary) = match text.strip_prefix(HEX) {
            Some(digits) => (digits, true),
            None => (text, false),
        };
        let mode = if binary { Mode::Hex } else { Mode::Plain };
        let parts = read(inside, scope, spelling, mode).map_err(|what| format!("{flag} {text}: {what}"))?;
        Ok(Self { binary, ..parts })
    }

    /// Whether it was given as bytes, which leave in a binary message.
    pub(crate) fn is_binary(&self) -> bool {
        self.binary
    }

    /// The text as it is at one moment.
    pub(crate) fn fill(&self, filling: &Filling<'_>) -> Cow<'_, [u8]> {
        match &self.parts[..] {
            [] => Cow::Borrowed(b""),
            [Part::Literal(literal)] => Cow::Borrowed(literal.as_slice()),
            _ => {
                let mut filled = Vec::new();
                self.fill_into(filling, None, &mut filled);
                Cow::Owned(filled)
            }
        }
    }

    /// The same as text; what is not valid becomes replacement characters.
    pub(crate) fn fill_text(&self, filling: &Filling<'_>) -> Cow<'_, str> {
        match self.fill(filling) {
            Cow::Borrowed(bytes) => String::from_utf8_lossy(bytes),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        }
    }

    /// The answer to what `groups` caught.
    pub(crate) fn answer(&self, filling: &Filling<'_>, groups: &Captures<'_>) -> Vec<u8> {
        let mut filled = Vec::new();
        self.fill_into(filling, Some(groups), &mut filled);
        filled
    }

    /// Whether it differs from topic to topic.
    pub(crate) fn names_topic(&self) -> bool {
        self.any(&|value| matches!(value, Value::Topic))
    }

    /// The columns it names.
    pub(crate) fn columns(&self) -> Vec<usize> {
        let mut found = Vec::new();
        self.each(&mut |value| {
            if let Value::Column(column) = value {
                found.push(*column);
            }
        });
        found
    }

    /// Whether it needs what `--await` has caught.
    pub(crate) fn names_caught(&self) -> bool {
        self.any(&|value| matches!(value, Value::Caught(_)))
    }

    /// Whether it is the same however often it is filled, for one connection and one message.
    pub(crate) fn is_stable(&self) -> bool {
        !self.any(&|value| {
            matches!(value, Value::Now | Value::Uuid | Value::Random(_) | Value::Caught(_) | Value::Hmac(..))
        })
    }

    /// What it begins with, up to the first value.
    pub(crate) fn beginning(&self) -> &str {
        match self.parts.first() {
            Some(Part::Literal(literal)) => std::str::from_utf8(literal).unwrap_or_default(),
            _ => "",
        }
    }

    fn any(&self, wanted: &dyn Fn(&Value) -> bool) -> bool {
        let mut found = false;
        self.each(&mut |value| found |= wanted(value));
        found
    }

    fn each(&self, look: &mut dyn FnMut(&Value)) {
        for part in &self.parts {
            if let Part::Value(value, _) = part {
                look(value);
                match value {
                    Value::Hmac(key, text) => {
                        key.each(look);
                        text.each(look);
                    }
                    Value::Measured(_, text) => text.each(look),
                    _ => {}
                }
            }
        }
    }

    fn fill_into(&self, filling: &Filling<'_>, groups: Option<&Captures<'_>>, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Literal(literal) => out.extend_from_slice(literal),
                Part::Value(value, spelling) => {
                    let value = value.of(filling, groups, *spelling);
                    spell(&value, *spelling, out);
                }
            }
        }
    }
}

impl Value {
    fn of<'a>(
        &self,
        filling: &'a Filling<'_>,
        groups: Option<&'a Captures<'_>>,
        spelling: Spelling,
    ) -> Cow<'a, [u8]> {
        let text = |text: String| Cow::Owned(text.into_bytes());
        let topic = || filling.topic.or_else(|| filling.topics.of(filling.number).next()).unwrap_or(0);
        match self {
            Self::Number => text(filling.number.to_string()),
            Self::Topic => text(filling.topics.name(topic()).into_owned()),
            // What stands between them is part of the text.
            Self::Topics(between) => {
                let mut joined = Vec::new();
                for (index, topic) in filling.topics.of(filling.number).enumerate() {
                    if index > 0 {
                        joined.extend_from_slice(between.as_bytes());
                    }
                    spell(filling.topics.name(topic).as_bytes(), spelling, &mut joined);
                }
                Cow::Owned(joined)
            }
            Self::Column(column) => Cow::Borrowed(filling.vars.value(*column, filling.number).as_bytes()),
            Self::Caught(name) => {
                let caught = filling.caught.iter().rev().find(|(caught, _)| caught == name);
                Cow::Borrowed(caught.map_or(&b""[..], |(_, value)| value.as_bytes()))
            }
            Self::Group(name) => {
                let found = groups.and_then(|groups| match name.parse() {
                    Ok(number) => groups.get(number),
                    Err(_) => groups.name(name),
                });
                Cow::Borrowed(found.map_or(&b""[..], |found| found.as_bytes()))
            }
            Self::Measured(length, measured) => {
                let mut filled = Vec::new();
                measured.fill_into(filling, groups, &mut filled);
                let marker = filling.message.unwrap_or_default().1;
                let mut prefixed = match length {
                    Length::TwoBytes => {
                        u16::try_from(filled.len()).unwrap_or(u16::MAX).to_be_bytes().to_vec()
                    }
                    Length::Varint => varint(filled.len()),
                    Length::VarintWithMarker => varint(filled.len() + marker),
                };
                prefixed.extend_from_slice(&filled);
                Cow::Owned(prefixed)
            }
            Self::Sequence => text(filling.message.unwrap_or_default().0.to_string()),
            Self::Size => text(filling.message.unwrap_or_default().1.to_string()),
            Self::Now => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                text(since.as_millis().to_string())
            }
            Self::Uuid => text(uuid()),
            Self::Random(length) => text(random_letters(*length)),
            Self::Hmac(key, signed) => {
                let mut filled = (Vec::new(), Vec::new());
                key.fill_into(filling, groups, &mut filled.0);
                signed.fill_into(filling, groups, &mut filled.1);
                let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &filled.0), &filled.1);
                text(tag.as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
            }
        }
    }

    /// Whether it is written already when it is filled in.
    fn is_spelled(&self) -> bool {
        matches!(self, Self::Topics(_) | Self::Measured(..))
    }
}

/// What stands between values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Text.
    Plain,
    /// Bytes in hexadecimal digits.
    Hex,
}

fn read(text: &str, scope: Scope<'_>, spelling: Spelling, mode: Mode) -> Result<Text, String> {
    let mut parts = Vec::new();
    let mut literal = String::new();
    let mut rest = text;
    let push = |parts: &mut Vec<Part>, literal: &mut String| -> Result<(), String> {
        let taken = std::mem::take(literal);
        let bytes = match mode {
            Mode::Plain => taken.into_bytes(),
            Mode::Hex => {
                hex_bytes(&taken).ok_or_else(|| format!("{taken:?} is not bytes in hexadecimal digits"))?
            }
        };
        parts.extend((!bytes.is_empty()).then_some(Part::Literal(bytes)));
        Ok(())
    };
    while let Some(at) = rest.find(['{', '\\']) {
        let (before, behind) = rest.split_at(at);
        literal.push_str(before);
        if let Some(after) = behind.strip_prefix("\\{") {
            literal.push('{');
            rest = after;
            continue;
        }
        match placeholder(behind) {
            Some((inside, after)) => {
                let (value, how) = value(inside, scope, mode)?;
                let how = if value.is_spelled() && how.is_none() { Some(Spelling::Plain) } else { how };
                push(&mut parts, &mut literal)?;
                parts.push(Part::Value(value, how.unwrap_or(spelling)));
                rest = after;
            }
            None => {
                let mut characters = behind.chars();
                literal.extend(characters.next());
                rest = characters.as_str();
            }
        }
    }
    literal.push_str(rest);
    push(&mut parts, &mut literal)?;
    Ok(Text { parts, binary: false })
}

/// Bytes in hexadecimal digits, between which there may be spaces.
fn hex_bytes(digits: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = digits.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let whole = digits.len().is_multiple_of(2) && digits.iter().all(u8::is_ascii_hexdigit);
    digits.chunks(2).map(byte).collect::<Option<Vec<u8>>>().filter(|_| whole)
}

fn varint(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let low = (number & 0x7f) as u8;
        number >>= 7;
        bytes.push(if number > 0 { low | 0x80 } else { low });
        if number == 0 {
            return bytes;
        }
    }
}

/// What stands between a brace that begins a name and the one that ends it, and what is behind.
fn placeholder(text: &str) -> Option<(&str, &str)> {
    let inside = text.strip_prefix('{')?;
    let name = inside.find(|letter: char| !is_name_letter(letter)).unwrap_or(inside.len());
    let (name, behind) = inside.split_at(name);
    let digits = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_digit());
    if !is_name(name) && !digits {
        return None;
    }
    match behind.chars().next()? {
        '}' => Some((name, behind.get(1..)?)),
        '|' | ':' => inside.split_once('}'),
        // The arguments may hold names themselves.
        '(' => {
            let mut depth = 1;
            for (at, letter) in inside.char_indices() {
                match letter {
                    '{' => depth += 1,
                    '}' => depth -= 1,
                    _ => {}
                }
                if depth == 0 {
                    return Some((inside.get(..at)?, inside.get(at + 1..)?));
                }
            }
            None
        }
        _ => None,
    }
}

fn value(inside: &str, scope: Scope<'_>, mode: Mode) -> Result<(Value, Option<Spelling>), String> {
    // A separator or an argument may hold the sign.
    let (inside, how) = match inside.rsplit_once('|') {
        Some((inside, "json")) => (inside, Some(Spelling::Json)),
        Some((inside, "url")) => (inside, Some(Spelling::Url)),
        Some((inside, "plain")) => (inside, Some(Spelling::Plain)),
        Some((name, how)) if is_name(name) => {
            return Err(format!("{{{name}|{how}}}: values are written |plain, |json or |url"));
        }
        _ => (inside, None),
    };
    let (name, argument) = match inside.find([':', '(']) {
        Some(at) => (inside.get(..at).unwrap_or_default(), inside.get(at..)),
        None => (inside, None),
    };
    let value = match (name, argument) {
        ("i", None) => Value::Number,
        ("topic", None) => Value::Topic,
        ("topics", Some(between)) if scope.listed && between.starts_with(':') => {
            Value::Topics(between.get(1..).unwrap_or_default().to_owned())
        }
        ("now", None) => Value::Now,
        ("uuid", None) => Value::Uuid,
        ("random", Some(length)) => {
            let length = length.strip_prefix(':').and_then(|length| length.parse().ok());
            let length = length.filter(|length| (1..=RANDOM_MAX).contains(length));
            Value::Random(length.ok_or_else(|| format!("{{random:N}} has 1 to {RANDOM_MAX} letters"))?)
        }
        ("seq", None) if scope.message => Value::Sequence,
        ("size", None) if scope.message => Value::Size,
        ("hmac_sha256", Some(arguments)) => signature(arguments, scope)?,
        // Always text: a name is none of digits.
        ("u16", Some(text)) => measured(Length::TwoBytes, text, scope, Mode::Plain)?,
        ("varint", Some(text)) => measured(Length::Varint, text, scope, mode)?,
        ("varint_with_marker", Some(text)) if scope.message => {
            measured(Length::VarintWithMarker, text, scope, mode)?
        }
        (name, None) => {
            let column = scope.columns.iter().position(|column| column == name);
            let group = scope.groups.is_some_and(|groups| has_group(groups, name));
            match column {
                _ if group => Value::Group(name.to_owned()),
                Some(column) => Value::Column(column),
                None if scope.caught.iter().any(|caught| caught == name) => Value::Caught(name.to_owned()),
                None => return Err(unknown(name, scope)),
            }
        }
        (name, Some(argument)) => return Err(unknown(&format!("{name}{argument}"), scope)),
    };
    Ok((value, how))
}

fn has_group(groups: &regex::bytes::Regex, name: &str) -> bool {
    match name.parse::<usize>() {
        Ok(number) => number < groups.captures_len(),
        Err(_) => groups.capture_names().flatten().any(|known| known == name),
    }
}

fn signature(arguments: &str, scope: Scope<'_>) -> Result<Value, String> {
    let wrong = || "{hmac_sha256(KEY,TEXT)} has two arguments, which may hold {names}".to_owned();
    let inside = arguments.strip_prefix('(').and_then(|inside| inside.strip_suffix(')')).ok_or_else(wrong)?;
    let (key, text) = inside.split_once(',').ok_or_else(wrong)?;
    let part = |text: &str| read(text, scope, Spelling::Plain, Mode::Plain).map(Box::new);
    Ok(Value::Hmac(part(key)?, part(text)?))
}

fn measured(length: Length, text: &str, scope: Scope<'_>, mode: Mode) -> Result<Value, String> {
    let inside = text.strip_prefix('(').and_then(|inside| inside.strip_suffix(')'));
    let inside = inside.ok_or("a text with its length in front is {u16(TEXT)} or {varint(TEXT)}")?;
    Ok(Value::Measured(length, Box::new(read(inside, scope, Spelling::Plain, mode)?)))
}

fn unknown(name: &str, scope: Scope<'_>) -> String {
    let mut known = vec!["{i}", "{topic}", "{now}", "{uuid}", "{random:N}", "{hmac_sha256(KEY,TEXT)}"];
    known.extend(scope.listed.then_some("{topics:SEPARATOR}"));
    known.extend(scope.message.then_some(["{marker}", "{seq}", "{size}"]).into_iter().flatten());
    let mut known: Vec<String> = known.into_iter().map(str::to_owned).collect();
    known.extend(scope.columns.iter().chain(scope.caught).map(|name| format!("{{{name}}}")));
    if let Some(groups) = scope.groups {
        known.extend((0..groups.captures_len()).map(|number| format!("{{{number}}}")));
    }
    format!(
        "nothing is called {{{name}}} here; known are {} (see --vars); a brace that is meant as one is written \\{{",
        known.join(", ")
    )
}

/// Whether it can be the name of a value.
pub(super) fn is_name(text: &str) -> bool {
    text.chars().next().is_some_and(|first| first.is_ascii_alphabetic() || first == '_')
        && text.chars().all(is_name_letter)
}

fn is_name_letter(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_' || letter == '-'
}

fn spell(value: &[u8], spelling: Spelling, out: &mut Vec<u8>) {
    match spelling {
        Spelling::Plain => out.extend_from_slice(value),
        Spelling::Url => {
            for byte in value {
                // RFC 3986 section 2.3: these and no others need no encoding anywhere.
                if byte.is_ascii_alphanumeric() || b"-._~".contains(byte) {
                    out.push(*byte);
                } else {
                    out.extend_from_slice(format!("%{byte:02X}").as_bytes());
                }
            }
        }
        Spelling::Json => {
            let quoted = serde_json::to_vec(&String::from_utf8_lossy(value)).unwrap_or_default();
            let inside = quoted.get(1..quoted.len().saturating_sub(1));
            out.extend_from_slice(inside.unwrap_or_default());
        }
    }
}

/// Enough for names that must not meet; nothing here is a secret.
fn next_random() -> u64 {
    thread_local!(static STATE: Cell<u64> = Cell::new(random_u64() | 1));
    STATE.with(|state| {
        let mut next = state.get();
        next ^= next << 13;
        next ^= next >> 7;
        next ^= next << 17;
        state.set(next);
        next.wrapping_mul(0x2545_f491_4f6c_dd1d)
    })
}

/// A random UUID (RFC 9562 section 5.4).
fn uuid() -> String {
    let (high, low) = (next_random(), next_random());
    let high = (high & !0xf000) | 0x4000;
    let low = (low & !(0b11 << 62)) | (0b10 << 62);
    format!(
        "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xffff,
        low >> 48,
        low & 0xffff_ffff_ffff
    )
}

fn random_letters(length: usize) -> String {
    const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let letter = |_| LETTERS.get((next_random() >> 59) as usize).map_or('a', |letter| char::from(*letter));
    (0..length).map(letter).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns() -> Vec<String> {
        vec!["user".to_owned(), "token".to_owned()]
    }

    fn vars() -> Vars {
        Vars::parse("user,token\nann,a b\nbob,\"x,\"\"y\"\"\"\n\n").unwrap()
    }

    fn filled_with(text: &str, scope: Scope<'_>, spelling: Spelling, number: u64) -> String {
        let (vars, topics) = (vars(), Topics::named("lobby"));
        let caught = [("socket".to_owned(), "17.4".to_owned())];
        let text = Text::read("--x", text, scope, spelling).unwrap();
        let message = Some((3, 64));
        let filling = Filling { number, vars: &vars, topics: &topics, topic: None, caught: &caught, message };
        text.fill_text(&filling).into_owned()
    }

    fn filled(text: &str, number: u64) -> String {
        let columns = columns();
        filled_with(text, Scope { columns: &columns, ..Scope::default() }, Spelling::Plain, number)
    }

    #[test]
    fn names_are_filled_in_and_other_braces_stay() {
        assert_eq!(filled("{\"auth\":\"{token}\",\"n\":{i}}", 0), "{\"auth\":\"a b\",\"n\":0}");
        assert_eq!(filled("{user}-{i}", 3), "bob-3");
        assert_eq!(filled("{} {{user}} { user } {\"a\":1}", 0), "{} {ann} { user } {\"a\":1}");
        assert_eq!(
            filled("mutation($t:String!){a}".replace("{a}", "\\{a}").as_str(), 0),
            "mutation($t:String!){a}"
        );
        assert_eq!(filled("a\\nb \\{user}", 0), "a\\nb {user}");
        assert_eq!(filled("{topic}", 9), "lobby");
    }

    #[test]
    fn values_are_written_for_where_they_stand() {
        assert_eq!(filled("{token|json} {token|url} {token}", 1), "x,\\\"y\\\" x%2C%22y%22 x,\"y\"");
        let columns = columns();
        let scope = Scope { columns: &columns, ..Scope::default() };
        assert_eq!(filled_with("/ws/{user}?t={token}", scope, Spelling::Url, 2), "/ws/ann?t=a%20b");
        assert_eq!(filled_with("{token|plain}", scope, Spelling::Url, 0), "a b");
    }

    #[test]
    fn what_is_about_a_message_has_its_number_and_size() {
        let scope = Scope { message: true, ..Scope::default() };
        assert_eq!(filled_with("{seq}/{size}", scope, Spelling::Plain, 0), "3/64");
        assert!(Text::read("--hello", "{seq}", Scope::default(), Spelling::Plain).is_err());
    }

    #[test]
    fn what_was_caught_can_be_signed() {
        let caught = ["socket".to_owned()];
        let scope = Scope { caught: &caught, ..Scope::default() };
        // By Python: hmac.new(b"secret", b"17.4:private-lobby", hashlib.sha256).hexdigest()
        assert_eq!(
            filled_with("k:{hmac_sha256(secret,{socket}:private-{topic})}", scope, Spelling::Plain, 0),
            "k:70248b36597401dc5093d21758930d63a790710816691d118db2a7ee0e6f72fa"
        );
    }

    #[test]
    fn bytes_and_lengths_make_binary_protocols() {
        let fill = |text: &str| {
            let scope = Scope { message: true, ..Scope::default() };
            let text = Text::read("--x", text, scope, Spelling::Plain).unwrap();
            let (vars, topics) = (Vars::default(), Topics::named("lobby"));
            let message = Some((3, 200));
            let filling =
                Filling { number: 7, vars: &vars, topics: &topics, topic: None, caught: &[], message };
            (text.fill(&filling).into_owned(), text.is_binary())
        };
        // MQTT 3.1.1: SUBSCRIBE to one topic, and the beginning of a PUBLISH of 200 bytes.
        let subscribe = b"\x82\x0a\x00\x01\x00\x05lobby\x00".to_vec();
        assert_eq!(fill("hex:82{varint(0001 {u16({topic})} 00)}"), (subscribe, true));
        let publish = b"\x30\xcf\x01\x00\x05lobby".to_vec();
        assert_eq!(fill("hex:30{varint_with_marker({u16({topic})})}"), (publish, true));
        assert_eq!(fill("a{u16(b{i})}"), (b"a\x00\x02b7".to_vec(), false));
        for (text, says) in [
            ("hex:8", "hexadecimal"),
            ("hex:zz", "hexadecimal"),
            ("{u16 (a)}", ""),
            ("hex:{u16(}", "length in front"),
        ] {
            let read = Text::read("--x", text, Scope::default(), Spelling::Plain);
            assert!(says.is_empty() || read.unwrap_err().contains(says), "{text}");
        }
        assert_eq!(
            [varint(0), varint(127), varint(128), varint(16_384)],
            [vec![0], vec![127], vec![128, 1], vec![128, 128, 1]]
        );
    }

    #[test]
    fn random_ones_differ_and_have_their_form() {
        let (one, two) = (filled("{uuid}", 0), filled("{uuid}", 0));
        assert!(one != two && one.len() == 36 && one.as_bytes()[14] == b'4', "{one} {two}");
        assert!("89ab".contains(char::from(one.as_bytes()[19])), "{one}");
        let random = filled("{random:12}", 0);
        assert!(random.len() == 12 && random != filled("{random:12}", 0), "{random}");
        assert!(filled("{now}", 0).parse::<u64>().unwrap() > 1_700_000_000_000);
    }

    #[test]
    fn what_is_not_known_is_refused_with_what_is() {
        let columns = columns();
        let scope = Scope { columns: &columns, ..Scope::default() };
        for (text, says) in [
            ("{tokn}", "nothing is called {tokn} here"),
            ("{1}", "nothing is called {1}"),
            ("{user|html}", "|plain, |json or |url"),
            ("{random:0}", "1 to 4096"),
            ("{random:x}", "1 to 4096"),
            ("{hmac_sha256(a)}", "two arguments"),
            ("{hmac_sha256(a,{nobody})}", "{nobody}"),
            ("{seq}", "{seq}"),
            ("{topics:,}", "{topics:,}"),
        ] {
            let error = Text::read("--x", text, scope, Spelling::Plain).unwrap_err();
            assert!(error.starts_with("--x ") && error.contains(says), "{text}: {error}");
        }
        let error = Text::read("--x", "{tokn}", scope, Spelling::Plain).unwrap_err();
        assert!(error.contains("{user}, {token}") && error.contains("\\{"), "{error}");
    }
}
