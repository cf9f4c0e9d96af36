//! Keys of the admin port: secrets with scopes, compared in constant time.
//!
//! Compiled once from the settings and then only read. A secret is never shown, by `Debug` neither.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;

/// Bytes of the longest secret; a token is compared over as many, whatever its length.
const SECRET_BYTES_MAX: usize = 128;

/// Bytes of the shortest one. Keys are made by machines; shorter ones can be guessed.
const SECRET_BYTES_MIN: usize = 16;

/// What a request needs a key for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// To publish.
    Publish,
    /// To look at topics, connections and metrics.
    Read,
    /// To close, to unsubscribe, to drain. A key with this scope may do everything.
    Admin,
}

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyRefusal {
    /// No key, or none that is known.
    Unknown,
    /// The key is known and may not do this.
    Scope,
}

/// What is wrong with a key of the settings. Never says the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyError(&'static str);

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for KeyError {}

#[derive(Clone, Copy, Eq)]
struct Secret {
    /// Behind its bytes zeroes, which no secret contains.
    bytes: [u8; SECRET_BYTES_MAX],
}

#[derive(Clone, PartialEq, Eq)]
struct AdminKey {
    /// One bit for each scope.
    scopes: u8,
    secret: Secret,
}

/// Every key; without any, whoever reaches the admin port may do everything.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct AdminKeys {
    keys: Vec<AdminKey>,
}

impl fmt::Debug for AdminKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AdminKeys({})", self.keys.len())
    }
}

impl AdminKeys {
    /// Adds a key as the settings have it: scopes, a colon, the secret: `publish:…`, `publish+read:…`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn add(&mut self, text: &str) -> Result<(), KeyError> {
        let (names, secret) = text
            .split_once(':')
            .ok_or(KeyError("expects scopes, a colon and a secret, such as publish:SECRET"))?;
        let mut scopes = 0;
        for name in names.split('+') {
            scopes |= match name.trim() {
                "publish" => bit(Scope::Publish),
                "read" => bit(Scope::Read),
                "admin" => bit(Scope::Publish) | bit(Scope::Read) | bit(Scope::Admin),
                _ => return Err(KeyError("expects the scopes publish, read or admin, joined by +")),
            };
        }
        // The characters of a bearer token (RFC 6750, 2.1), so that it can be sent.
        let sendable = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        if !secret.bytes().all(sendable) {
            return Err(KeyError("expects a secret of letters, digits and -._~+/= only"));
        }
        if secret.len() < SECRET_BYTES_MIN {
            return Err(KeyError("expects a secret of at least 16 characters"));
        }
        let secret =
            Secret::new(secret.as_bytes()).ok_or(KeyError("expects a secret of at most 128 characters"))?;
        if self.keys.iter().any(|key| key.secret == secret) {
            return Err(KeyError("expects each secret once"));
        }
        self.keys.push(AdminKey { scopes, secret });
        Ok(())
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// What tells the holders of different keys apart, of a request that was let in. Without keys all are one.
    #[must_use]
    pub fn holder<'a>(&self, authorization: Option<&'a [u8]>) -> &'a [u8] {
        if self.keys.is_empty() { b"" } else { authorization.and_then(bearer).unwrap_or_default() }
    }

    /// Decides about a request from its `Authorization` field.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn check(&self, scope: Scope, authorization: Option<&[u8]>) -> Result<(), KeyRefusal> {
        if self.keys.is_empty() {
            return Ok(());
        }
        let token = authorization.and_then(bearer).and_then(Secret::new).ok_or(KeyRefusal::Unknown)?;
        let mut scopes = 0;
        // All are compared in full: time tells neither which key it was nor how much of it was right.
        for key in &self.keys {
            scopes |= key.scopes & key.secret.same_mask(&token);
        }
        match scopes {
            0 => Err(KeyRefusal::Unknown),
            scopes if scopes & bit(scope) != 0 => Ok(()),
            _ => Err(KeyRefusal::Scope),
        }
    }
}

impl Secret {
    fn new(bytes: &[u8]) -> Option<Self> {
        let mut secret = Self { bytes: [0; SECRET_BYTES_MAX] };
        secret.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        // A zero would make a token the same as a shorter one; an empty one is none.
        (!bytes.is_empty() && !bytes.contains(&0)).then_some(secret)
    }

    /// All ones if both are the same, else zero; takes as long in either case.
    fn same_mask(&self, other: &Self) -> u8 {
        u8::MAX * u8::from(verify_slices_are_equal(&self.bytes, &other.bytes).is_ok())
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.same_mask(other) != 0
    }
}

/// The token of `Bearer TOKEN` (RFC 6750, 2.1); the scheme's case does not matter (RFC 9110, 11.1).
fn bearer(field: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = field.split_at_checked(6)?;
    let token = token.strip_prefix(b" ")?;
    scheme.eq_ignore_ascii_case(b"bearer").then(|| token.trim_ascii())
}

fn bit(scope: Scope) -> u8 {
    1 << scope as u8
}

#[cfg(test)]
mod tests {
    use super::*;

    const PUBLISH: &str = "0123456789abcdef-publish";
    const READ: &str = "0123456789abcdef-read";
    const ADMIN: &str = "0123456789abcdef-admin==";

    fn keys() -> AdminKeys {
        let mut keys = AdminKeys::default();
        keys.add(&format!("publish:{PUBLISH}")).unwrap();
        keys.add(&format!("read:{READ}")).unwrap();
        keys.add(&format!("admin:{ADMIN}")).unwrap();
        keys
    }

    fn check(scope: Scope, field: &str) -> Result<(), KeyRefusal> {
        keys().check(scope, Some(field.as_bytes()))
    }

    #[test]
    fn each_key_opens_its_scopes_only() {
        use KeyRefusal::Scope as Missing;
        use Scope::{Admin, Publish, Read};
        for (secret, publish, read, admin) in [
            (PUBLISH, Ok(()), Err(Missing), Err(Missing)),
            (READ, Err(Missing), Ok(()), Err(Missing)),
            (ADMIN, Ok(()), Ok(()), Ok(())),
        ] {
            let field = format!("Bearer {secret}");
            assert_eq!(check(Publish, &field), publish, "{secret}");
            assert_eq!(check(Read, &field), read, "{secret}");
            assert_eq!(check(Admin, &field), admin, "{secret}");
        }
        let mut both = AdminKeys::default();
        both.add("publish+read:0123456789abcdef").unwrap();
        assert_eq!(both.check(Read, Some(b"bearer 0123456789abcdef")), Ok(()));
        assert_eq!(both.check(Admin, Some(b"Bearer 0123456789abcdef")), Err(Missing));
    }

    #[test]
    fn what_is_no_known_key_is_refused() {
        let long = format!("Bearer {}", "x".repeat(10_000));
        let longer = format!("Bearer {READ}x");
        let shorter = format!("Bearer {}", &READ[..READ.len() - 1]);
        let padded = format!("Bearer {READ}\0");
        for field in [
            "",
            "Bearer",
            "Bearer ",
            "Basic x",
            READ,
            "Bearer x",
            "BearerX y",
            &long,
            &longer,
            &shorter,
            &padded,
            "Bearer \0",
        ] {
            assert_eq!(check(Scope::Read, field), Err(KeyRefusal::Unknown), "{field}");
        }
        assert_eq!(keys().check(Scope::Read, None), Err(KeyRefusal::Unknown));
        assert_eq!(AdminKeys::default().check(Scope::Admin, None), Ok(()), "without keys there is no lock");
    }

    #[test]
    fn bad_keys_are_refused_and_none_is_ever_shown() {
        let long = format!("read:{}", "x".repeat(129));
        let mut keys = keys();
        let again = format!("admin:{READ}");
        for bad in
            ["", "read", "read:", "read:short", "write:0123456789abcdef", ":0123456789abcdef", &long, &again]
        {
            let error = keys.add(bad).unwrap_err().to_string();
            assert!(error.starts_with("expects") && !error.contains("0123456789"), "{error}");
        }
        assert!(keys.add("read:0123456789 abcdef").is_err() && keys.add("read:0123456789abcdé").is_err());
        assert_eq!(keys.len(), 3);
        assert!(!format!("{keys:?}").contains("0123"), "{keys:?}");
    }
}
