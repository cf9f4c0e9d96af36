//! Why a token is not taken. Never says anything of the token itself but the names of claims.

use std::fmt;

/// Why a token is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// Longer than [`super::TOKEN_BYTES_MAX`].
    Size,
    /// Not three parts of base64 with JSON objects in the first two; or a claim or header field twice.
    Form,
    /// An algorithm that is not known, `none` among them, or not one for the keys of its issuer.
    Algorithm,
    /// The header wants something understood that is not (`crit`, RFC 7515, 4.1.11).
    Critical,
    /// No such issuer is configured.
    Issuer,
    /// The issuer has no key with this `kid`, or too many keys without one to try them all.
    Key,
    /// The issuer has no such key yet: its keys are fetched, and it may be among them the next time.
    Awaited,
    /// The signature is not that of any key.
    Signature,
    /// A claim that has to be there is not.
    Missing(&'static str),
    /// A claim is of another type than it has to be, or out of range.
    Mistyped(&'static str),
    /// Time has run out.
    Expired,
    /// Its time has not come.
    NotYet,
    /// It is for others, or for an audience where none is configured.
    Audience,
    /// A pattern in `subscribe` or `publish` is none, or too many.
    Pattern(&'static str),
    /// A claim that the application is to be told is there twice or no JSON that every reader takes, or they are too long.
    Carried,
    /// `{sub}` in a pattern, and a `sub` that would be several levels or a pattern there.
    Substitution,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Size => "it is longer than 4096 bytes",
            Self::Form => {
                "it is no JSON Web Token: expects header.claims.signature, each in base64 for URLs without padding, the first \
                 two of a JSON object without doubled names"
            }
            Self::Algorithm => "its algorithm is not one of the keys of its issuer",
            Self::Critical => "its header demands what is not known here (crit)",
            Self::Issuer => "its issuer (iss) is not known",
            Self::Key => "its issuer has no such key (kid), or it names none and more than four could be its",
            Self::Awaited => "its key (kid) is not there yet; the keys of its issuer are being fetched",
            Self::Signature => "its signature is not that of a key of its issuer",
            Self::Missing(claim) => return write!(f, "it has no {claim}"),
            Self::Mistyped(claim @ ("exp" | "nbf" | "iat")) => {
                return write!(f, "its {claim} is no time in seconds since 1970");
            }
            Self::Mistyped(claim @ ("subscribe" | "publish")) => {
                return write!(f, "its {claim} is no list of topics and patterns");
            }
            Self::Mistyped(claim) => {
                return write!(f, "its {claim} is no text, empty, too long or has control characters");
            }
            Self::Expired => "it has expired (exp)",
            Self::NotYet => "it is not valid yet (nbf)",
            Self::Audience => "it is for another audience (aud)",
            Self::Pattern(claim) => {
                return write!(f, "a topic or pattern in its {claim} is none, or there are more than 64");
            }
            Self::Carried => {
                "a claim that auth.claims lists comes twice or is no proper JSON, or those together are longer than 1024 bytes"
            }
            Self::Substitution => {
                "a pattern has {sub}, and its sub has a / or a *, which would be more than one level there"
            }
        };
        f.write_str(text)
    }
}

impl std::error::Error for Refusal {}
