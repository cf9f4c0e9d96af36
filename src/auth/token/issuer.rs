//! Issuers with their keys, and the check of a token against them. Made once, then only read; keys that are fetched change
//! in their own place.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::carried::carried;
use super::claims::{Claim, Claims, RawClaims, object};
use super::fetched::FetchedKeys;
use super::keys::{Key, KeySource, KeysError, load};
use super::signatures::Signatures;
use super::{Parts, Refusal, crypto, decoded};

/// Keys that one token is tried with. A secret and the one before it need two; a set has `kid`s.
const KEYS_TRIED_MAX: usize = 4;

/// An issuer as it is configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IssuerPlan {
    /// What `iss` has to be. Without it any does, and then there can be no other issuer.
    pub issuer: Option<String>,
    /// Of these one has to be in `aud`; if there are none, a token must not have it.
    pub audience: Vec<String>,
    /// Seconds by which clocks may differ.
    pub leeway_seconds: u64,
    /// Where its keys are.
    pub keys: Vec<KeySource>,
}

struct Issuer {
    name: Option<Arc<str>>,
    audience: Vec<String>,
    leeway: u64,
    keys: Keys,
}

enum Keys {
    /// Of files.
    Read(Vec<Key>),
    /// Of an address.
    Fetched(Arc<FetchedKeys>),
}

/// Who may issue tokens. Keys of one are never tried for another.
pub struct Issuers {
    issuers: Vec<Issuer>,
    /// Claims that are kept for the application.
    carried: Vec<String>,
}

/// Issuers whose keys were read, and what is probably a mistake.
pub struct Loaded {
    /// The issuers.
    pub issuers: Issuers,
    /// For the log.
    pub warnings: Vec<String>,
}

/// The fields of a header that mean something. What else is there is not looked at, keys and addresses of keys above all.
#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    /// Whatever it is: that it is there is enough.
    #[serde(default)]
    crit: Claim<IgnoredAny>,
    /// As above: it changes what is signed (RFC 7797).
    #[serde(default)]
    b64: Claim<IgnoredAny>,
}

impl Issuers {
    /// Reads the keys of every issuer. Of those that are fetched there will be none.
    ///
    /// # Errors
    /// The cryptography does not work, or a file does not fit.
    pub fn load(plans: &[IssuerPlan]) -> Result<Loaded, KeysError> {
        Self::load_with(plans, |_, _| Ok(Arc::default()))
    }

    /// The same; `fetched` is asked for the keys of an address, with the file of authorities that are trusted for it.
    ///
    /// # Errors
    /// As [`Self::load`], or the address is of no use.
    pub fn load_with<F>(plans: &[IssuerPlan], mut fetched: F) -> Result<Loaded, KeysError>
    where
        F: FnMut(&str, Option<&Path>) -> Result<Arc<FetchedKeys>, String>,
    {
        let files = |plan: &IssuerPlan| plan.keys.first().map(KeySource::file).unwrap_or_default();
        let fail =
            |plan: &IssuerPlan, problem: &str| KeysError { file: files(plan), problem: problem.to_owned() };
        let mut warnings = Vec::new();
        let mut issuers: Vec<Issuer> = Vec::new();
        for plan in plans {
            crypto::try_it().map_err(|problem| fail(plan, problem))?;
            if plans.len() > 1 && plan.issuer.is_none() {
                return Err(fail(plan, "is of an issuer without a name, and there are others"));
            }
            if issuers.iter().any(|earlier| earlier.name.as_deref() == plan.issuer.as_deref()) {
                return Err(fail(plan, "is of an issuer whose name another one has"));
            }
            let keys = match plan.keys.as_slice() {
                [KeySource::Url { url, ca }] => {
                    Keys::Fetched(fetched(url, ca.as_deref()).map_err(|problem| fail(plan, &problem))?)
                }
                sources => {
                    let mut keys = Vec::new();
                    for source in sources {
                        keys.append(&mut load(source, &mut warnings)?);
                    }
                    Keys::Read(keys)
                }
            };
            issuers.push(Issuer {
                name: plan.issuer.as_deref().map(Arc::from),
                audience: plan.audience.clone(),
                leeway: plan.leeway_seconds,
                keys,
            });
        }
        Ok(Loaded { issuers: Self { issuers, carried: Vec::new() }, warnings })
    }

    /// The same, and of each token these claims are kept, too.
    #[must_use]
    pub fn carrying(self, names: &[String]) -> Self {
        Self { carried: names.to_vec(), ..self }
    }

    /// How many of them have a name.
    #[must_use]
    pub fn named(&self) -> usize {
        self.issuers.iter().filter(|issuer| issuer.name.is_some()).count()
    }

    /// The sets of keys that are fetched.
    pub fn fetched(&self) -> impl Iterator<Item = &FetchedKeys> {
        self.issuers.iter().filter_map(|issuer| match &issuer.keys {
            Keys::Read(_) => None,
            Keys::Fetched(keys) => Some(&**keys),
        })
    }

    /// Checks a token; `now` in seconds since 1970. What it costs is bounded by the length of tokens and by
    /// four signatures.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn check(&self, token: &str, now: u64) -> Result<Claims, Refusal> {
        self.check_with(token, now, &mut Signatures::default())
    }

    /// The same, but that no signature is computed which is known to be right.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn check_with(&self, token: &str, now: u64, signatures: &mut Signatures) -> Result<Claims, Refusal> {
        self.examine(token, now, signatures, |_| {})
    }

    /// The same as [`Self::check`]; says for people which key has signed it, too.
    ///
    /// # Errors
    /// Why it is not taken.
    pub fn explain(&self, token: &str, now: u64) -> Result<(Claims, String), Refusal> {
        let mut signed_by = String::new();
        let claims = self.examine(token, now, &mut Signatures::default(), |key| {
            signed_by.clone_from(&key.shown);
        })?;
        Ok((claims, signed_by))
    }

    fn examine(
        &self,
        token: &str,
        now: u64,
        signatures: &mut Signatures,
        signed_by: impl FnOnce(&Key),
    ) -> Result<Claims, Refusal> {
        let parts = Parts::of(token)?;
        let header = Header::parse(&decoded(parts.header)?)?;
        let algorithm = Algorithm::from_str(&header.alg).map_err(|_| Refusal::Algorithm)?;
        let json = decoded(parts.claims)?;
        let claims = RawClaims::parse(&json)?;
        let issuer = self.of(claims.issuer()?)?;
        let wanted = Wanted { parts: &parts, algorithm, kid: header.kid.as_deref() };
        match &issuer.keys {
            Keys::Read(keys) => signed_by(wanted.key_among(keys, signatures)?),
            Keys::Fetched(fetched) => {
                let keys = fetched.keys();
                let found = wanted.key_among(&keys, signatures);
                signed_by(found.map_err(|refusal| wanted.missed(refusal, &keys, fetched))?);
            }
        }
        let claims = claims.check(&issuer.audience, issuer.leeway, now)?;
        let carried = carried(&json, &self.carried).map_err(|()| Refusal::Carried)?;
        Ok(Claims { issuer: issuer.name.clone(), carried, ..claims })
    }

    /// The issuer that a token names, before anything shows that it is right to.
    fn of(&self, name: Option<&str>) -> Result<&Issuer, Refusal> {
        let fits = |issuer: &&Issuer| match &issuer.name {
            None => true,
            Some(own) => name == Some(&**own),
        };
        let refusal = if name.is_none() { Refusal::Missing("iss") } else { Refusal::Issuer };
        self.issuers.iter().find(fits).ok_or(refusal)
    }
}

impl Header {
    fn parse(json: &[u8]) -> Result<Self, Refusal> {
        let header: Self = object(json)?;
        match (&header.crit, &header.b64) {
            (Claim::Absent, Claim::Absent) => Ok(header),
            _ => Err(Refusal::Critical),
        }
    }
}

/// What a token says of its key.
struct Wanted<'a> {
    parts: &'a Parts<'a>,
    algorithm: Algorithm,
    kid: Option<&'a str>,
}

impl Wanted<'_> {
    /// The key that has signed it.
    fn key_among<'k>(&self, all: &'k [Key], signatures: &mut Signatures) -> Result<&'k Key, Refusal> {
        if !all.iter().any(|key| key.takes(self.algorithm)) {
            return Err(Refusal::Algorithm);
        }
        // A key without a name is tried for every token, a token without one with every key.
        let named = |key: &Key| match (key.kid.as_deref(), self.kid) {
            (Some(own), Some(asked)) => own == asked,
            _ => true,
        };
        let fitting = || all.iter().filter(|key| key.takes(self.algorithm) && named(key));
        if !(1..=KEYS_TRIED_MAX).contains(&fitting().count()) {
            return Err(Refusal::Key);
        }
        let signature = decoded(self.parts.signature)?;
        let mut verifies = |key: &&Key| {
            let mut verifiers = key.verifiers.iter().filter(|verifier| verifier.algorithm == self.algorithm);
            verifiers.any(|verifier| verifier.verifies(self.parts, &signature, signatures))
        };
        fitting().find(|key| verifies(key)).ok_or(Refusal::Signature)
    }

    /// What is said where the key is not among those that were fetched: it may be the next time.
    fn missed(&self, refusal: Refusal, keys: &[Key], fetched: &FetchedKeys) -> Refusal {
        let is_there = |kid| keys.iter().any(|key| key.kid.as_deref() == Some(kid));
        let may_come = self.algorithm.family() != AlgorithmFamily::Hmac
            && (keys.is_empty() || self.kid.is_some_and(|kid| !is_there(kid)));
        match refusal {
            Refusal::Key | Refusal::Algorithm | Refusal::Signature if may_come => fetched.missed(refusal),
            _ => refusal,
        }
    }
}
