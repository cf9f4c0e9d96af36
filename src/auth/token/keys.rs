//! Keys that tokens are checked with, read from files: secrets, public keys in PEM, sets of public keys (JWKS).
//!
//! Driven at the start, by whoever makes tokens and by who fetches sets, never by a loop: it reads files. A key takes only the algorithms of its
//! kind, so a token cannot choose.

use std::collections::BTreeSet;
use std::fmt;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use rustls::pki_types::SubjectPublicKeyInfoDer;
use rustls::pki_types::pem::PemObject;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use x509_cert::der::asn1::{ObjectIdentifier, UintRef};
use x509_cert::der::{Decode, Reader, SliceReader};
use x509_cert::spki::SubjectPublicKeyInfoRef;
use zeroize::Zeroizing;

use super::crypto::{PublicKey, Verifier};
use crate::sys;

/// Bytes read of a file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Bytes of the shortest secret: as many as HS256 computes (RFC 7518, 3.2).
const SECRET_BYTES_MIN: usize = 32;

/// Bytes of the longest secret; beyond, it is no secret but some other file.
const SECRET_BYTES_MAX: usize = 4096;

/// Keys of one set.
const SET_KEYS_MAX: usize = 64;

/// Bits of the modulus of an RSA key: fewer can be broken (RFC 7518, 3.3), more cost too much.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

const RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.1");
const EC: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
const P256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");
const P384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");

/// Where keys are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// A file whose content is a secret, shared by who issues tokens and who checks them (HS256, HS384, HS512).
    Hmac {
        /// The file.
        file: PathBuf,
        /// The `kid` of tokens that are signed with it; without, it is tried for any.
        kid: Option<String>,
    },
    /// A file with a public key in PEM: RSA, P-256, P-384 or Ed25519.
    Pem {
        /// The file.
        file: PathBuf,
        /// As for a secret.
        kid: Option<String>,
    },
    /// A file with a set of public keys (RFC 7517, 5).
    Jwks {
        /// The file.
        file: PathBuf,
    },
    /// Such a set that is fetched over HTTP, by who is asked for it.
    Url {
        /// The address.
        url: String,
        /// A PEM file with the authorities that are trusted for it, instead of those of the system.
        ca: Option<PathBuf>,
    },
}

impl KeySource {
    /// The file, or in its place the address without its query, which may be a secret. Shown, and never opened for an address.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        match self {
            Self::Hmac { file, .. } | Self::Pem { file, .. } | Self::Jwks { file } => file.clone(),
            Self::Url { url, .. } => url.split(['?', '#']).next().unwrap_or_default().into(),
        }
    }
}

/// A file of keys that does not fit. Shows the file and what helps, never its content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeysError {
    /// The file.
    pub file: PathBuf,
    /// What is wrong, and what helps.
    pub problem: String,
}

impl fmt::Display for KeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.problem)
    }
}

impl std::error::Error for KeysError {}

/// One key, ready for each algorithm that it is for.
pub(super) struct Key {
    pub(super) kid: Option<String>,
    pub(super) verifiers: Vec<Verifier>,
    /// Which it is, for people: its file, or its place in a set.
    pub(super) shown: String,
}

impl Key {
    pub(super) fn takes(&self, algorithm: Algorithm) -> bool {
        self.verifiers.iter().any(|verifier| verifier.algorithm == algorithm)
    }
}

/// The keys of a source; `warnings` gets what is probably a mistake.
pub(super) fn load(source: &KeySource, warnings: &mut Vec<String>) -> Result<Vec<Key>, KeysError> {
    let file = &source.file();
    let fail = |problem: String| KeysError { file: file.clone(), problem };
    let shown = file.display().to_string();
    match source {
        KeySource::Hmac { kid, .. } => {
            let secret = secret(file, warnings)?;
            // A secret is at least as long as what is computed of it (RFC 7518, 3.2).
            let long_enough = [(32, Algorithm::HS256), (48, Algorithm::HS384), (64, Algorithm::HS512)];
            let long_enough = long_enough.into_iter().filter(|(bytes, _)| secret.len() >= *bytes);
            let verifiers = long_enough.filter_map(|(_, algorithm)| Verifier::secret(algorithm, &secret));
            Ok(vec![Key { kid: kid.clone(), verifiers: verifiers.collect(), shown }])
        }
        KeySource::Pem { kid, .. } => {
            let verifiers = public_key(&read(file)?).map_err(fail)?;
            Ok(vec![Key { kid: kid.clone(), verifiers, shown }])
        }
        KeySource::Jwks { .. } => {
            let skipped = |skipped| warnings.push(format!("{shown}: {skipped}"));
            let mut keys = set(&read(file)?, skipped).map_err(fail)?;
            keys.iter_mut().for_each(|key| key.shown.insert_str(0, &format!("{shown}, ")));
            Ok(keys)
        }
        KeySource::Url { .. } => Err(fail("is fetched, and stands alone".to_owned())),
    }
}

/// The secret in a file, without the end of line that editors add to text. Of bytes that are no text every one counts.
pub(super) fn secret(file: &Path, warnings: &mut Vec<String>) -> Result<Zeroizing<Vec<u8>>, KeysError> {
    let fail = |problem: &str| KeysError { file: file.to_owned(), problem: problem.to_owned() };
    let mut secret = read(file)?;
    let is_text = secret.trim_ascii_end().iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    if is_text && secret.ends_with(b"\n") {
        secret.pop();
        if secret.ends_with(b"\r") {
            secret.pop();
        }
    }
    if secret.starts_with(b"-----BEGIN") {
        return Err(fail("is a key in PEM and no secret; a public key belongs under pem_file"));
    }
    if secret.len() < SECRET_BYTES_MIN {
        return Err(fail("expects at least 32 bytes of secret; `openssl rand -hex 32` makes one"));
    }
    if secret.len() > SECRET_BYTES_MAX {
        return Err(fail("expects a secret of at most 4096 bytes"));
    }
    let open_to_all =
        file.metadata().is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o004 != 0);
    if open_to_all {
        warnings.push(format!(
            "{0}: every user of this machine can read this secret; chmod o-r {0} and make another one",
            file.display()
        ));
    }
    Ok(secret)
}

fn read(file: &Path) -> Result<Zeroizing<Vec<u8>>, KeysError> {
    let fail = |problem| KeysError { file: file.to_owned(), problem };
    // So large from the start: growing would leave copies of a secret behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(2 * SECRET_BYTES_MAX));
    sys::file::open(file)
        .and_then(|opened| opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|error| fail(format!("cannot be read: {error}")))?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(fail("is larger than 1 MiB".to_owned()));
    }
    Ok(bytes)
}

/// A public key in PEM (RFC 7468, 13).
fn public_key(pem: &[u8]) -> Result<Vec<Verifier>, String> {
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| {
        let has = |label: &[u8]| pem.windows(label.len()).any(|part| part == label);
        let what = if has(b"PRIVATE KEY-----") {
            "is a private key, which only who issues tokens should have; `openssl pkey -in FILE -pubout` makes the public one"
        } else if has(b"-----BEGIN CERTIFICATE") {
            "is a certificate; `openssl x509 -in FILE -noout -pubkey` makes its public key"
        } else if has(b"-----BEGIN RSA PUBLIC KEY") {
            "is a key in an older form; `openssl rsa -RSAPublicKey_in -in FILE -pubout` makes the one of today"
        } else {
            "has no public key in PEM, which begins with -----BEGIN PUBLIC KEY-----"
        };
        what.to_owned()
    })?;
    let info =
        SubjectPublicKeyInfoRef::from_der(&der).map_err(|error| format!("is no public key: {error}"))?;
    let bits = info.subject_public_key.as_bytes().ok_or("is no public key")?;
    match info.algorithm.oid {
        RSA => {
            let (n, e) = rsa_parts(bits).map_err(|error| format!("is no RSA key: {error}"))?;
            rsa(n, e)
        }
        // RFC 5480, 2.1.1: a curve that is named. Points of others may be as long.
        EC => match info.algorithm.parameters_oid() {
            Ok(P256 | P384) => ec(bits),
            _ => Err(format!("has a key of another curve; {KINDS}")),
        },
        ED25519 => ed25519(bits),
        other => Err(format!("has a key of a kind that is not known ({other}); {KINDS}")),
    }
}

const KINDS: &str = "expects RSA, P-256, P-384 or Ed25519";

/// Modulus and exponent (RFC 8017, A.1.1).
fn rsa_parts(der: &[u8]) -> x509_cert::der::Result<(&[u8], &[u8])> {
    let mut reader = SliceReader::new(der)?;
    let parts = reader.sequence(|inner| {
        let n = UintRef::decode(inner)?;
        let e = UintRef::decode(inner)?;
        Ok((n.as_bytes(), e.as_bytes()))
    })?;
    reader.finish(parts)
}

fn rsa(n: &[u8], e: &[u8]) -> Result<Vec<Verifier>, String> {
    let n = n.iter().position(|byte| *byte != 0).and_then(|first| n.get(first..)).unwrap_or_default();
    let unused = n.first().map_or(0, |first| first.leading_zeros() as usize);
    let bits = n.len() * 8 - unused;
    if !RSA_BITS.contains(&bits) {
        return Err(format!("has an RSA key of {bits} bits; expects 2048 to 8192"));
    }
    let e = e.iter().position(|byte| *byte != 0).and_then(|first| e.get(first..)).unwrap_or_default();
    let odd = |number: &[u8]| number.last().is_some_and(|last| last & 1 == 1);
    // What aws-lc-rs would refuse with each token (RFC 8017, 3.1: both are odd, and the exponent is 3 or more).
    if e.len() > 4 || !odd(e) || e == [1] {
        return Err("has an RSA key whose exponent is not odd, from 3 on, and of 32 bits at most".to_owned());
    }
    if !odd(n) {
        return Err("has an RSA key whose modulus is even".to_owned());
    }
    let of = |algorithm: &Algorithm| Verifier::public(*algorithm, PublicKey::Rsa { n, e });
    let verifiers: Option<Vec<_>> = AlgorithmFamily::Rsa.algorithms().iter().map(of).collect();
    verifiers.ok_or_else(|| "has no RSA key that can be computed with".to_owned())
}

/// An uncompressed point of P-256 or P-384 (SEC 1, 2.3.3).
fn ec(point: &[u8]) -> Result<Vec<Verifier>, String> {
    let algorithm = match (point.len(), point.first()) {
        (65, Some(4)) => Algorithm::ES256,
        (97, Some(4)) => Algorithm::ES384,
        _ => return Err(format!("has a key of another curve, or a compressed one; {KINDS}")),
    };
    let verifier = Verifier::public(algorithm, PublicKey::Point(point));
    verifier.map(|verifier| vec![verifier]).ok_or_else(|| "has a point that is not on its curve".to_owned())
}

fn ed25519(bytes: &[u8]) -> Result<Vec<Verifier>, String> {
    if bytes.len() != 32 {
        return Err("has a key of Ed25519 that is not 32 bytes long".to_owned());
    }
    let verifier = Verifier::public(Algorithm::EdDSA, PublicKey::Ed25519(bytes));
    verifier.map(|verifier| vec![verifier]).ok_or_else(|| "has no key of Ed25519".to_owned())
}

/// A set of keys. What cannot be used is skipped (RFC 7517, 5), with a word to `skipped`.
pub(super) fn set(json: &[u8], mut skipped: impl FnMut(String)) -> Result<Vec<Key>, String> {
    let set: RawSet<'_> = serde_json::from_slice(json).map_err(|error| {
        // Its text may quote the file.
        format!("is no set of keys ({{\"keys\":[…]}}): see line {}, column {}", error.line(), error.column())
    })?;
    if set.keys.len() > SET_KEYS_MAX {
        return Err(format!("has {} keys; expects at most {SET_KEYS_MAX}", set.keys.len()));
    }
    let mut keys = Vec::new();
    let mut kids = BTreeSet::new();
    for (place, raw) in set.keys.iter().enumerate() {
        let known: Known = serde_json::from_str(raw.get()).unwrap_or_default();
        let key = match serde_json::from_str::<Jwk>(raw.get()) {
            _ if known.is_secret => Err(Unusable::Secret),
            Ok(jwk) => of_set(&jwk, place + 1),
            Err(_) => Err(Unusable::Other(format!("is none, or has a member of another type; {KINDS}"))),
        };
        if known.has_private && key.is_ok() {
            skipped(format!(
                "key {} has its private part (d), which only who issues tokens should have; make another pair, and \
                 give the public part alone",
                place + 1
            ));
        }
        match key {
            Ok(key) if key.kid.as_ref().is_some_and(|kid| !kids.insert(kid.clone())) => {
                return Err(format!("has two keys with the kid of key {}", place + 1));
            }
            Ok(key) => keys.push(key),
            Err(Unusable::Secret) => {
                return Err(format!(
                    "key {} is a secret, which has no place in a set of public keys; give it by hmac_file",
                    place + 1
                ));
            }
            Err(Unusable::Other(problem)) => skipped(format!("key {} is left out: it {problem}", place + 1)),
        }
    }
    if keys.is_empty() { Err(format!("has no key that signs tokens; {KINDS}")) } else { Ok(keys) }
}

/// A set whose keys are looked at one by one: what one of them is must not keep the others out.
#[derive(Deserialize)]
struct RawSet<'a> {
    #[serde(borrow)]
    keys: Vec<&'a RawValue>,
}

/// What matters of a key whatever else it is.
/// It may say something twice: then it is no key, and a secret all the same if it once says so.
#[derive(Default)]
struct Known {
    is_secret: bool,
    has_private: bool,
}

impl<'de> Deserialize<'de> for Known {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Known;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a key")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Known, A::Error> {
                let mut known = Known::default();
                while let Some(name) = members.next_key::<String>()? {
                    let value: &RawValue = members.next_value()?;
                    match name.as_str() {
                        "kty" => {
                            known.is_secret |=
                                serde_json::from_str::<String>(value.get()).is_ok_and(|kind| kind == "oct");
                        }
                        "d" => known.has_private |= value.get() != "null",
                        _ => {}
                    }
                }
                Ok(known)
            }
        }
        from.deserialize_map(Members)
    }
}

enum Unusable {
    /// A secret: beside public keys it would be one that everybody knows.
    Secret,
    Other(String),
}

fn of_set(jwk: &Jwk, place: usize) -> Result<Key, Unusable> {
    let other = |problem: &str| Unusable::Other(problem.to_owned());
    let decoded = |text: &str| {
        let bytes = data_encoding::BASE64URL_NOPAD.decode(text.as_bytes());
        bytes.map_err(|_| other("is not in base64 for URLs without padding"))
    };
    let common = &jwk.common;
    if common.public_key_use.as_ref().is_some_and(|meant| *meant != PublicKeyUse::Signature) {
        return Err(other("is not for signatures (use)"));
    }
    if common.key_operations.as_ref().is_some_and(|named| !named.contains(&KeyOperations::Verify)) {
        return Err(other("is not for checking signatures (key_ops)"));
    }
    let made = match &jwk.algorithm {
        AlgorithmParameters::OctetKey(_) => return Err(Unusable::Secret),
        AlgorithmParameters::RSA(rsa_key) => rsa(&decoded(&rsa_key.n)?, &decoded(&rsa_key.e)?),
        AlgorithmParameters::EllipticCurve(ec_key) => {
            let (x, y) = (decoded(&ec_key.x)?, decoded(&ec_key.y)?);
            let bytes = match ec_key.curve {
                EllipticCurve::P256 => 32,
                EllipticCurve::P384 => 48,
                _ => return Err(other(&format!("has another curve; {KINDS}"))),
            };
            // Each as long as the curve says, leading zeroes included (RFC 7518, 6.2.1.2).
            if x.len() != bytes || y.len() != bytes {
                return Err(other("has a point of another length than its curve"));
            }
            ec(&[&[4][..], &x, &y].concat())
        }
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
            ed25519(&decoded(&pair.x)?)
        }
        _ => return Err(other(&format!("is of a kind that is not known; {KINDS}"))),
    };
    let mut verifiers = made.map_err(Unusable::Other)?;
    if let Some(named) = common.key_algorithm {
        let is_named = |own: Algorithm| Algorithm::try_from(named).is_ok_and(|named| named == own);
        verifiers.retain(|verifier| is_named(verifier.algorithm));
        if verifiers.is_empty() {
            return Err(other("names an algorithm that is not for keys of its kind"));
        }
    }
    let kid = common.key_id.clone();
    let shown = match &kid {
        Some(kid) => format!("key {place} ({kid:?})"),
        None => format!("key {place}"),
    };
    Ok(Key { kid, verifiers, shown })
}

#[cfg(test)]
mod tests {
    use super::super::Issuers;
    use super::super::kit::{SECRET, TempFile, fixture, plan};
    use super::*;

    fn problem(source: &KeySource) -> String {
        match load(source, &mut Vec::new()) {
            Ok(_) => String::new(),
            Err(error) => {
                assert!(!error.to_string().contains("0123456789"), "{error}");
                error.to_string()
            }
        }
    }

    #[test]
    fn an_address_is_shown_without_its_query() {
        let source =
            KeySource::Url { url: "https://login.example/keys?key=0123456789abc".to_owned(), ca: None };
        assert_eq!(problem(&source), "https://login.example/keys: is fetched, and stands alone");
        let plan = plan(None, &[], vec![source]);
        let refused = Issuers::load_with(&[plan], |url, _| {
            assert!(url.ends_with("0123456789abc"), "it is fetched whole");
            Err("is of no use".to_owned())
        });
        let shown = refused.err().map(|error| (error.to_string(), error.file));
        let address = "https://login.example/keys";
        assert_eq!(shown, Some((format!("{address}: is of no use"), address.into())));
    }

    #[test]
    fn files_that_do_not_fit_are_named_with_what_helps() {
        let private = "-----BEGIN PRIVATE KEY-----\nMAAw\n-----END PRIVATE KEY-----\n";
        let gone = KeySource::Hmac { file: "/nonexistent/secret".into(), kid: None };
        let rows =
            [(gone, "/nonexistent/secret: cannot be read"), (TempFile::new("").hmac(), "cannot be read")];
        for (source, part) in rows {
            assert!(problem(&source).contains(part), "{}", problem(&source));
        }
        for (content, part) in [
            ("", "openssl rand -hex 32"),
            ("0123456789", "at least 32 bytes"),
            (private, "is a key in PEM"),
            (&SECRET.repeat(100), "at most 4096 bytes"),
            (&"x".repeat(2 << 20), "larger than 1 MiB"),
        ] {
            let file = TempFile::new(content);
            assert!(problem(&file.hmac()).contains(part), "{}", problem(&file.hmac()));
        }
        for (content, part) in [
            (private, "openssl pkey -in FILE -pubout"),
            ("-----BEGIN CERTIFICATE-----\nMAAw\n-----END CERTIFICATE-----\n", "openssl x509"),
            ("-----BEGIN RSA PUBLIC KEY-----\nMAAw\n-----END RSA PUBLIC KEY-----\n", "openssl rsa"),
            ("-----BEGIN PUBLIC KEY-----\nMAAw\n-----END PUBLIC KEY-----\n", "is no public key"),
            (SECRET, "-----BEGIN PUBLIC KEY-----"),
            // Of secp256k1, whose points are as long as those of P-256.
            (
                "-----BEGIN PUBLIC KEY-----\nMFYwEAYHKoZIzj0CAQYFK4EEAAoDQgAENLpiBBM3I3DBrwTvvNu/dwTwPpXZZTzf\n\
                 De8dKu9QGEinTSFi27xpT97nMnXFxDq4jKIq7Yb1yTRS+vJiYWrvxQ==\n-----END PUBLIC KEY-----\n",
                "another curve",
            ),
        ] {
            let file = TempFile::new(content);
            assert!(problem(&file.pem()).contains(part), "{}", problem(&file.pem()));
        }
        let short = KeySource::Pem { file: fixture("rsa1024.pem"), kid: None };
        assert!(problem(&short).contains("1024 bits"), "{}", problem(&short));
    }

    #[test]
    fn a_secret_may_end_its_line_and_is_warned_about_if_all_can_read_it() {
        for end in ["", "\n", "\r\n"] {
            let file = TempFile::new(format!("{SECRET}{end}"));
            let mut warnings = Vec::new();
            assert_eq!(secret(&file.0, &mut warnings).unwrap().as_slice(), SECRET.as_bytes());
            assert_eq!(warnings, Vec::<String>::new());
            let mode =
                |mode| std::fs::set_permissions(&file.0, std::fs::Permissions::from_mode(mode)).unwrap();
            mode(0o640);
            secret(&file.0, &mut warnings).unwrap();
            assert_eq!(warnings.len(), 0);
            mode(0o644);
            secret(&file.0, &mut warnings).unwrap();
            assert!(
                warnings.concat().contains("chmod o-r") && !warnings.concat().contains(SECRET),
                "{warnings:?}"
            );
        }
    }

    #[test]
    fn of_bytes_that_are_no_text_every_one_counts() {
        let bytes: Vec<u8> = (0..32).map(|byte| byte ^ 0x95).chain(*b"\n").collect();
        let file = TempFile::new(&bytes);
        assert_eq!(secret(&file.0, &mut Vec::new()).unwrap().as_slice(), bytes);
        // Thirty-one and an end of line are no thirty-two.
        let short = TempFile::new("x".repeat(31) + "\n");
        assert!(secret(&short.0, &mut Vec::new()).is_err());
    }

    #[test]
    fn a_set_has_public_keys_for_signatures_only() {
        const RSA: &str = r#""kty":"RSA","e":"AQAB","n""#;
        let n = "v".repeat(342) + "0";
        let point = "A".repeat(43);
        let ok = format!(r#"{{{RSA}:"{n}","kid":"a"}}"#);
        let of = |keys: &str| {
            let file = TempFile::new(format!(r#"{{"keys":[{keys}]}}"#));
            let mut warnings = Vec::new();
            let keys = load(&file.jwks(), &mut warnings).map_err(|error| error.problem);
            (keys.map(|keys| keys.len()), warnings.len())
        };
        assert_eq!(of(&ok), (Ok(1), 0));
        // Left out, with a word about it.
        for other in [
            format!(r#"{{{RSA}:"{n}","use":"enc"}}"#),
            format!(r#"{{{RSA}:"{n}","key_ops":["encrypt"]}}"#),
            format!(r#"{{{RSA}:"{n}","alg":"HS256"}}"#),
            format!(r#"{{{RSA}:"{n}","alg":"RSA-OAEP"}}"#),
            format!(r#"{{{RSA}:"{}"}}"#, "v".repeat(172)),
            format!(r#"{{{RSA}:"{n}="}}"#),
            format!(r#"{{"kty":"EC","crv":"P-256","x":"{point}","y":"AAAA"}}"#),
            format!(r#"{{"kty":"EC","crv":"P-521","x":"{point}","y":"{point}"}}"#),
            format!(r#"{{"kty":"EC","crv":"secp256k1","x":"{point}","y":"{point}"}}"#),
            r#"{"kty":"OKP","crv":"Ed25519","x":"AAAA"}"#.to_owned(),
            r#"{"kty":"OKP","crv":"X25519","x":"AAAA"}"#.to_owned(),
            r#"{"kty":"new"}"#.to_owned(),
            // One that is mistyped does not keep the others out, and exponents that are not taken are told.
            r#"{"kty":5}"#.to_owned(),
            format!(r#"{{{RSA}:"{n}","kid":7}}"#),
            format!(r#"{{{RSA}:5}}"#),
            format!("\"{SECRET}\""),
            format!(r#"{{"kty":"RSA","e":"AQ","n":"{n}"}}"#),
            format!(r#"{{"kty":"RSA","e":"BA","n":"{n}"}}"#),
            format!(r#"{{"kty":"RSA","e":"AAAAAA","n":"{n}"}}"#),
            format!(r#"{{"kty":"RSA","e":"AQAAAAE","n":"{n}"}}"#),
            format!(r#"{{{RSA}:"{}"}}"#, "v".repeat(342) + "w"),
        ] {
            assert_eq!(of(&format!("{other},{ok}")), (Ok(1), 1), "{other}");
            assert!(of(&other).0.unwrap_err().contains("no key that signs tokens"), "{other}");
        }
        for secret in [
            r#"{"kty":"oct","k":"AAAA"}"#,
            r#"{"kty":"oct","kty":"RSA"}"#,
            r#"{"kty":"RSA","kty":"oct"}"#,
            r#"{"kty":"oct","k":5}"#,
        ] {
            assert!(of(&format!("{ok},{secret}")).0.unwrap_err().contains("hmac_file"));
        }
        // It is a good key, and one that somebody has given away.
        assert_eq!(of(&ok.replace("\"kid\"", "\"d\":\"AQ\",\"kid\"")), (Ok(1), 1));
        assert!(of(&format!("{ok},{ok}")).0.unwrap_err().contains("two keys"));
        let many = vec![ok.replace("\"kid\":\"a\"", "\"x\":1"); SET_KEYS_MAX + 1].join(",");
        assert!(of(&many).0.unwrap_err().contains("65 keys"));
        let none = TempFile::new(format!("{{\n\"keys\": \"{SECRET}\"}}"));
        assert!(problem(&none.jwks()).contains("see line 2"), "{}", problem(&none.jwks()));
    }
}
