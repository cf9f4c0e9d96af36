//! Parameters of a request: its query and, where it has one, its form body.
//!
//! Pure. A name that is not known or comes twice is refused: with a slip of the pen, a filter would mean more
//! connections than its author did, and a subscription another topic.

use std::borrow::Cow;

use super::uri::query_pairs;
use crate::wire::nearest::nearest;

/// Characters of an unknown name that an error quotes.
const NAME_CHARS_MAX: usize = 60;

/// The parameters of one request.
#[derive(Debug)]
pub struct Params<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Params<'a> {
    /// Reads query and body; both are `name=value&…`, percent-encoded.
    ///
    /// # Errors
    /// One line on what is wrong.
    pub fn read(query: &'a str, body: &'a [u8], known: &[&str]) -> Result<Self, String> {
        let body = std::str::from_utf8(body).map_err(|_| "the body is not UTF-8")?;
        let mut pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
        for pair in query_pairs(query).chain(query_pairs(body.trim_ascii())) {
            let (name, value) = pair.map_err(|_| "the parameters are not percent-encoded UTF-8")?;
            if !known.contains(&name.as_ref()) {
                return Err(unknown(&name, known));
            }
            if pairs.iter().any(|(other, _)| *other == name) {
                return Err(format!("{name} is there twice"));
            }
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    /// The value of a parameter.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_ref())
    }

    /// The number of a parameter, or `default`.
    ///
    /// # Errors
    /// It is no number.
    pub fn number(&self, name: &str, default: usize) -> Result<usize, String> {
        match self.text(name) {
            None => Ok(default),
            Some(text) => whole(text).ok_or_else(|| format!("{name} expects a whole number")),
        }
    }

    /// Whether a parameter is `1`.
    ///
    /// # Errors
    /// It is neither that nor `0`.
    pub fn is_set(&self, name: &str) -> Result<bool, String> {
        self.text(name).map_or(Ok(false), |value| switch(name, value))
    }
}

/// One line on a parameter that is not among the known ones.
#[must_use]
pub fn unknown(name: &str, known: &[&str]) -> String {
    // Short enough for an answer of one line, whatever a body calls a parameter.
    let shown: String = name.chars().take(NAME_CHARS_MAX).collect();
    match nearest(name, known.iter().copied()) {
        Some(near) => format!("unknown parameter {shown:?}; did you mean {near:?}?"),
        None if known.is_empty() => format!("unknown parameter {shown:?}; expects none"),
        None => format!("unknown parameter {shown:?}; expects {}", known.join(", ")),
    }
}

/// The value of a parameter that is on or off.
///
/// # Errors
/// One line: it is neither `1` nor `0`.
pub fn switch(name: &str, value: &str) -> Result<bool, String> {
    match value {
        "1" => Ok(true),
        "0" => Ok(false),
        _ => Err(format!("{name} expects 1 or 0")),
    }
}

/// Decimal digits, nothing else.
pub fn whole<T: std::str::FromStr>(text: &str) -> Option<T> {
    (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_and_form_are_one() {
        let params = Params::read("topic=a%20b", b"code=1008&all=1\n", &["topic", "code", "all"]).unwrap();
        assert_eq!(params.text("topic"), Some("a b"));
        assert_eq!(params.number("code", 1000), Ok(1008));
        assert_eq!(params.is_set("all"), Ok(true));
        assert_eq!(params.number("other", 7), Ok(7));
    }

    #[test]
    fn an_unknown_name_is_told_its_nearest() {
        let known = ["topic", "echo"];
        assert_eq!(unknown("topics", &known), "unknown parameter \"topics\"; did you mean \"topic\"?");
        assert_eq!(unknown("since", &known), "unknown parameter \"since\"; expects topic, echo");
        assert_eq!(unknown("x", &[]), "unknown parameter \"x\"; expects none");
        assert!(unknown(&"x".repeat(100_000), &known).len() < 120);
    }

    #[test]
    fn slips_are_refused() {
        for (query, body) in
            [("tpoic=a", ""), ("topic=a", "topic=b"), ("topic=%zz", ""), ("", "{\"topic\":1}")]
        {
            assert!(Params::read(query, body.as_bytes(), &["topic"]).is_err(), "{query} {body}");
        }
        let params = Params::read("limit=-1&all=yes", b"", &["limit", "all"]).unwrap();
        assert!(params.number("limit", 1).is_err() && params.is_set("all").is_err());
        for bad in ["", "+1", "-1", " 1", "1 ", "0x1", "99999999999999999999999"] {
            assert_eq!(whole::<u32>(bad), None, "{bad:?}");
        }
    }
}
