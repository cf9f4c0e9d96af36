//! Parameters of an admin request: its query and, where it has one, its form body.
//!
//! Pure. A name that is not known or comes twice is refused, because a filter with a slip of the pen would
//! mean more connections than its author did.

use std::borrow::Cow;

use crate::wire::http::uri::query_pairs;

/// Characters of an unknown name that an error quotes.
const NAME_CHARS_MAX: usize = 60;

/// The parameters of one request.
#[derive(Debug)]
pub(super) struct Params<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

impl<'a> Params<'a> {
    /// Reads query and body; both are `name=value&…`, percent-encoded.
    ///
    /// # Errors
    /// One line on what is wrong.
    pub(super) fn read(query: &'a str, body: &'a [u8], known: &[&str]) -> Result<Self, String> {
        let body = std::str::from_utf8(body).map_err(|_| "the body is not UTF-8")?;
        let mut pairs: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
        for pair in query_pairs(query).chain(query_pairs(body.trim_ascii())) {
            let (name, value) = pair.map_err(|_| "the parameters are not percent-encoded UTF-8")?;
            if !known.contains(&name.as_ref()) {
                let expects = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                // Short enough for an answer of one line, whatever a body calls a parameter.
                let name: String = name.chars().take(NAME_CHARS_MAX).collect();
                return Err(format!("unknown parameter {name:?}; expects {expects}"));
            }
            if pairs.iter().any(|(other, _)| *other == name) {
                return Err(format!("{name} is there twice"));
            }
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    /// The value of a parameter.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_ref())
    }

    /// The number of a parameter, or `default`.
    pub(super) fn number(&self, name: &str, default: usize) -> Result<usize, String> {
        match self.text(name) {
            None => Ok(default),
            Some(text) => whole(text).ok_or_else(|| format!("{name} expects a whole number")),
        }
    }

    /// Whether a parameter is `1`.
    pub(super) fn is_set(&self, name: &str) -> Result<bool, String> {
        match self.text(name) {
            None | Some("0") => Ok(false),
            Some("1") => Ok(true),
            Some(_) => Err(format!("{name} expects 1 or 0")),
        }
    }
}

/// Decimal digits, nothing else.
pub(super) fn whole<T: std::str::FromStr>(text: &str) -> Option<T> {
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
