//! Tokens (JSON Web Tokens, RFC 7519): who issues them, with which keys, and what one says of its bearer.
//!
//! [`Issuers`] are made once of their keys' files and then only read, but for sets of keys that a service fetches
//! ([`FetchedKeys`]); to check a token blocks nothing, but costs what its signature costs, the first time that a loop sees it ([`Signatures`]). [`make()`] signs one. The crate `jsonwebtoken` knows
//! algorithms and sets of keys, `crypto` has aws-lc-rs check signatures, and header and claims are read here, since the crate takes some claims that it cannot read for none.

mod carried;
mod claims;
mod crypto;
mod fetched;
mod grant;
mod issuer;
mod keys;
mod make;
mod refusal;
mod signatures;
mod told;

pub use carried::{CARRIED_BYTES_MAX, CARRIED_NAMES_MAX, may_carry};
pub use claims::Claims;
pub use fetched::FetchedKeys;
pub use grant::{GRANTS_MAX, Grants};
pub use issuer::{IssuerPlan, Issuers, Loaded};
pub use keys::{KeySource, KeysError};
pub use make::{Order, make};
pub use refusal::Refusal;
pub use signatures::{Asked, Signatures};
pub use told::Told;

/// Bytes of a token. A request's head has room for 8 KiB, and a token is only one of its fields.
pub const TOKEN_BYTES_MAX: usize = 4096;

/// Seconds by which clocks may differ, unless an issuer says otherwise.
pub const LEEWAY_SECONDS: u64 = 30;

/// The parts of a token in its compact form (RFC 7515, 3.1).
#[derive(Clone, Copy)]
struct Parts<'a> {
    /// All of it.
    token: &'a str,
    header: &'a str,
    claims: &'a str,
    signature: &'a str,
    /// Header and claims with the dot between them: what is signed.
    message: &'a str,
}

impl<'a> Parts<'a> {
    fn of(token: &'a str) -> Result<Self, Refusal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(Refusal::Size);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(Refusal::Form)?;
        match message.split_once('.') {
            Some((header, claims)) if !claims.contains('.') => {
                Ok(Self { token, header, claims, signature, message })
            }
            _ => Err(Refusal::Form),
        }
    }
}

/// The header and the claims of a token as JSON, unchecked: for whoever looks at one.
///
/// # Errors
/// It is no token.
pub fn inspect(token: &str) -> Result<(serde_json::Value, serde_json::Value), Refusal> {
    let parts = Parts::of(token)?;
    let read = |part| serde_json::from_slice(&decoded(part)?).map_err(|_| Refusal::Form);
    Ok((read(parts.header)?, read(parts.claims)?))
}

/// Base64 of URLs without padding (RFC 7515, 2), strictly: each token has one spelling.
fn decoded(part: &str) -> Result<Vec<u8>, Refusal> {
    data_encoding::BASE64URL_NOPAD.decode(part.as_bytes()).map_err(|_| Refusal::Form)
}

#[cfg(test)]
mod attack_tests;
#[cfg(test)]
pub(crate) mod kit;
