//! What tests of tokens need: files of keys that go with the test, and tokens that say anything at all.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use data_encoding::BASE64URL_NOPAD;

use super::{IssuerPlan, Issuers, KeySource, LEEWAY_SECONDS};

/// A secret of 64 bytes, so long that every HMAC takes it.
pub(super) const SECRET: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// The time at which tests happen.
pub(crate) const NOW: u64 = 1_700_000_000;

/// Public keys and tokens that OpenSSL made, good until 2100.
pub(super) const TOKENS: &str = include_str!("../../../tests/fixtures/tokens/tokens.txt");

/// A file that is removed again; only its owner may read it.
pub(super) struct TempFile(pub(super) PathBuf);

impl TempFile {
    pub(super) fn new(content: impl AsRef<[u8]>) -> Self {
        use std::os::unix::fs::PermissionsExt;
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("fantail-token-{}-{number}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        Self(path)
    }

    pub(super) fn hmac(&self) -> KeySource {
        KeySource::Hmac { file: self.0.clone(), kid: None }
    }

    pub(super) fn pem(&self) -> KeySource {
        KeySource::Pem { file: self.0.clone(), kid: None }
    }

    pub(super) fn jwks(&self) -> KeySource {
        KeySource::Jwks { file: self.0.clone() }
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

pub(super) fn fixture(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tokens")).join(name)
}

pub(crate) fn plan(issuer: Option<&str>, audience: &[&str], keys: Vec<KeySource>) -> IssuerPlan {
    IssuerPlan {
        issuer: issuer.map(str::to_owned),
        audience: audience.iter().map(ToString::to_string).collect(),
        leeway_seconds: LEEWAY_SECONDS,
        keys,
    }
}

pub(super) fn issuers(plans: &[IssuerPlan]) -> Issuers {
    let loaded = Issuers::load(plans).unwrap();
    assert_eq!(loaded.warnings, Vec::<String>::new());
    loaded.issuers
}

/// A token of header and claims as they are written, signed with an HMAC of the algorithm's name.
pub(super) fn signed(algorithm: &str, secret: &[u8], header: &str, claims: &str) -> String {
    let hash = match algorithm {
        "HS384" => hmac::HMAC_SHA384,
        "HS512" => hmac::HMAC_SHA512,
        _ => hmac::HMAC_SHA256,
    };
    let base64 = |bytes: &[u8]| BASE64URL_NOPAD.encode(bytes);
    let message = format!("{}.{}", base64(header.as_bytes()), base64(claims.as_bytes()));
    let tag = hmac::sign(&hmac::Key::new(hash, secret), message.as_bytes());
    format!("{message}.{}", base64(tag.as_ref()))
}

/// The same with an ordinary header and [`SECRET`].
pub(super) fn hs256(claims: &str) -> String {
    signed("HS256", SECRET.as_bytes(), r#"{"alg":"HS256","typ":"JWT"}"#, claims)
}

fn pair(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

/// A set of public keys by their names and seeds.
pub(crate) fn ed25519_set(keys: &[(&str, u8)]) -> String {
    let keys = keys.iter().map(|(kid, seed)| {
        let x = BASE64URL_NOPAD.encode(pair(*seed).public_key().as_ref());
        format!(r#"{{"kty":"OKP","crv":"Ed25519","kid":"{kid}","x":"{x}"}}"#)
    });
    format!(r#"{{"keys":[{}]}}"#, keys.collect::<Vec<_>>().join(","))
}

/// A good token of the key of this seed; `header` is what else its header says.
pub(crate) fn ed25519_token(seed: u8, header: &str) -> String {
    let base64 = |text: String| BASE64URL_NOPAD.encode(text.as_bytes());
    let header = base64(format!(r#"{{"alg":"EdDSA"{header}}}"#));
    let claims = base64(format!(r#"{{"sub":"a","exp":{}}}"#, NOW + 60));
    let message = format!("{header}.{claims}");
    let signature = BASE64URL_NOPAD.encode(pair(seed).sign(message.as_bytes()).as_ref());
    format!("{message}.{signature}")
}
