//! What a token says of its bearer, checked claim by claim. Pure: the time is told.
//!
//! A claim of the wrong type is refused, never taken for one that is not there: `nbf` in quotation marks would otherwise
//! be no limit at all.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::Refusal;
use super::grant::{GrantFault, Grants};

/// Bytes of `sub` and of `jti`: a topic's name has as many, and `{sub}` stands in one.
const TEXT_BYTES_MAX: usize = 200;

/// The end of the year 9999. Later times are milliseconds, taken for seconds by mistake.
pub(super) const SECONDS_MAX: u64 = 253_402_300_799;

/// Audiences that a token may name.
const AUDIENCES_MAX: usize = 64;

/// Reads an object. What its reader has no name for is not looked into.
pub(super) fn object<'de, T: Deserialize<'de>>(json: &'de [u8]) -> Result<T, Refusal> {
    // Also of what is skipped (RFC 8259, 8.1).
    let text = std::str::from_utf8(json).map_err(|_| Refusal::Form)?;
    // From a sequence, serde would take the fields in their order.
    if !text.trim_ascii_start().starts_with('{') {
        return Err(Refusal::Form);
    }
    serde_json::from_str(text).map_err(|_| Refusal::Form)
}

/// Who bears a token and what they may do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// Who it is, in the words of the issuer: 1 to 200 bytes without control characters.
    pub sub: Box<str>,
    /// What they may subscribe to; `None` if the token does not say.
    pub subscribe: Option<Grants>,
    /// What they may publish to; `None` if the token does not say.
    pub publish: Option<Grants>,
    /// When the token ends, in seconds since 1970; the leeway is not in it.
    pub expires: u64,
    /// When it is not taken any more, in seconds since 1970: its end and the leeway.
    pub good_until: u64,
    /// When it was issued, in seconds since 1970, if it says so.
    pub issued: Option<u64>,
    /// The token's own name, if it has one.
    pub jti: Option<Box<str>>,
    /// The issuer, by the name in the configuration that its token bears; `None` of one without a name, and of whom the
    /// application vouches for.
    pub issuer: Option<Arc<str>>,
    /// What the application is told beside that: a JSON object of the claims that a list names, if there are any.
    pub carried: Option<Box<str>>,
}

/// One claim as it came.
#[derive(Default)]
pub(super) enum Claim<T> {
    #[default]
    Absent,
    Is(T),
    Mistyped,
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Claim<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // As text first: what it is not does not end the reading of the others.
        let raw = <&RawValue>::deserialize(deserializer)?;
        Ok(serde_json::from_str(raw.get()).map_or(Self::Mistyped, Self::Is))
    }
}

impl<T> Claim<T> {
    pub(super) fn optional(self, name: &'static str) -> Result<Option<T>, Refusal> {
        match self {
            Self::Absent => Ok(None),
            Self::Is(value) => Ok(Some(value)),
            Self::Mistyped => Err(Refusal::Mistyped(name)),
        }
    }

    pub(super) fn required(self, name: &'static str) -> Result<T, Refusal> {
        self.optional(name)?.ok_or(Refusal::Missing(name))
    }
}

/// A time: whole or with a fraction, which is cut off (RFC 7519, 2: NumericDate).
pub(super) struct Time(pub(super) u64);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        // Up to there a double holds each second. A comparison with NaN is false.
        if seconds >= 0.0 && seconds <= SECONDS_MAX as f64 {
            Ok(Self(seconds as u64))
        } else {
            Err(serde::de::Error::custom("no time in seconds"))
        }
    }
}

/// One audience or several (RFC 7519, 4.1.3).
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Audience {
    One(String),
    Several(Vec<String>),
}

/// The claims that mean something here, as they came. A name that comes twice is an error.
#[derive(Deserialize)]
pub(super) struct RawClaims {
    #[serde(default)]
    iss: Claim<String>,
    #[serde(default)]
    aud: Claim<Audience>,
    #[serde(default)]
    sub: Claim<String>,
    #[serde(default)]
    exp: Claim<Time>,
    #[serde(default)]
    nbf: Claim<Time>,
    #[serde(default)]
    iat: Claim<Time>,
    #[serde(default)]
    jti: Claim<String>,
    #[serde(default)]
    subscribe: Claim<Vec<String>>,
    #[serde(default)]
    publish: Claim<Vec<String>>,
}

impl RawClaims {
    pub(super) fn parse(json: &[u8]) -> Result<Self, Refusal> {
        object(json)
    }

    /// Who issued it, as it says.
    pub(super) fn issuer(&self) -> Result<Option<&str>, Refusal> {
        match &self.iss {
            Claim::Absent => Ok(None),
            Claim::Is(name) => Ok(Some(name)),
            Claim::Mistyped => Err(Refusal::Mistyped("iss")),
        }
    }

    /// Checks everything that the signature does not say. `now` in seconds since 1970.
    pub(super) fn check(self, audience: &[String], leeway: u64, now: u64) -> Result<Claims, Refusal> {
        let Time(expires) = self.exp.required("exp")?;
        let not_before = self.nbf.optional("nbf")?.map_or(0, |Time(seconds)| seconds);
        // Not on or after it (RFC 7519, 4.1.4).
        if now >= expires.saturating_add(leeway) {
            return Err(Refusal::Expired);
        }
        if not_before > now.saturating_add(leeway) {
            return Err(Refusal::NotYet);
        }
        check_audience(self.aud.optional("aud")?, audience)?;
        let sub = text(self.sub.required("sub")?, "sub")?;
        let issued = self.iat.optional("iat")?.map(|Time(seconds)| seconds);
        let jti = self.jti.optional("jti")?.map(|jti| text(jti, "jti")).transpose()?;
        let subscribe = grants(self.subscribe, "subscribe", &sub)?;
        let publish = grants(self.publish, "publish", &sub)?;
        let good_until = expires.saturating_add(leeway);
        Ok(Claims { sub, subscribe, publish, expires, good_until, issued, jti, issuer: None, carried: None })
    }
}

/// What a list of topics and patterns grants to `sub`; `None` if there is no list.
pub(super) fn grants(
    claim: Claim<Vec<String>>,
    name: &'static str,
    sub: &str,
) -> Result<Option<Grants>, Refusal> {
    let Some(texts) = claim.optional(name)? else { return Ok(None) };
    Grants::parse(&texts, sub).map(Some).map_err(|fault| match fault {
        GrantFault::Pattern => Refusal::Pattern(name),
        GrantFault::Substitution => Refusal::Substitution,
    })
}

/// A token for an audience is refused where it is not configured, and one for none where one is (RFC 7519, 4.1.3).
fn check_audience(of_token: Option<Audience>, expected: &[String]) -> Result<(), Refusal> {
    let of_token = match of_token {
        None if expected.is_empty() => return Ok(()),
        None => return Err(Refusal::Missing("aud")),
        Some(Audience::One(one)) => vec![one],
        Some(Audience::Several(several)) => several,
    };
    if of_token.len() <= AUDIENCES_MAX && of_token.iter().any(|name| expected.contains(name)) {
        Ok(())
    } else {
        Err(Refusal::Audience)
    }
}

pub(super) fn text(text: String, name: &'static str) -> Result<Box<str>, Refusal> {
    if text.is_empty() || text.len() > TEXT_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(Refusal::Mistyped(name));
    }
    Ok(text.into())
}
