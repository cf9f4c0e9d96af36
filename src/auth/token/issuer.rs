//! Issuers with their keys, and the check of a token against them. Made once, then only read; keys that are fetched change
//! in their own place.

use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use aws_lc_rs::hmac;
use jsonwebtoken::{Algorithm, AlgorithmFamily};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::carried::carried;
use super::claims::{Claim, Claims, RawClaims, object};
use super::fetched::FetchedKeys;
use super::keys::{Key, KeySource, KeysError, load};
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
            crypto::install().map_err(|problem| fail(plan, problem))?;
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

    /// Whether any token is checked with a public key, which costs much more than a secret does.
    #[must_use]
    pub fn have_public_keys(&self) -> bool {
        let is_public =
            |key: &Key| key.algorithms.iter().any(|algorithm| algorithm.family() != AlgorithmFamily::Hmac);
        self.issuers.iter().any(|issuer| match &issuer.keys {
            Keys::Read(keys) => keys.iter().any(is_public),
            Keys::Fetched(_) => true,
        })
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
        let parts = Parts::of(token)?;
        let header = Header::parse(&decoded(parts.header)?)?;
        let algorithm = Algorithm::from_str(&header.alg).map_err(|_| Refusal::Algorithm)?;
        let json = decoded(parts.claims)?;
        let claims = RawClaims::parse(&json)?;
        let issuer = self.of(claims.issuer()?)?;
        issuer.check_signature(&parts, algorithm, header.kid.as_deref())?;
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

impl Issuer {
    fn check_signature(
        &self,
        parts: &Parts<'_>,
        algorithm: Algorithm,
        kid: Option<&str>,
    ) -> Result<(), Refusal> {
        let fetched = match &self.keys {
            Keys::Read(keys) => return check_signature(keys, parts, algorithm, kid),
            Keys::Fetched(fetched) => fetched,
        };
        let keys = fetched.keys();
        let checked = check_signature(&keys, parts, algorithm, kid);
        let is_there = |kid| keys.iter().any(|key| key.kid.as_deref() == Some(kid));
        let may_come = algorithm.family() != AlgorithmFamily::Hmac
            && (keys.is_empty() || kid.is_some_and(|kid| !is_there(kid)));
        checked.map_err(|refusal| match refusal {
            Refusal::Key | Refusal::Algorithm | Refusal::Signature if may_come => fetched.missed(refusal),
            _ => refusal,
        })
    }
}

fn check_signature(
    all: &[Key],
    parts: &Parts<'_>,
    algorithm: Algorithm,
    kid: Option<&str>,
) -> Result<(), Refusal> {
    let takes = |key: &&Key| key.algorithms.contains(&algorithm);
    if !all.iter().any(|key| takes(&key)) {
        return Err(Refusal::Algorithm);
    }
    // A key without a name is tried for every token, a token without one with every key.
    let named = |key: &&Key| match (key.kid.as_deref(), kid) {
        (Some(own), Some(asked)) => own == asked,
        _ => true,
    };
    let keys: Vec<&Key> = all.iter().filter(takes).filter(named).collect();
    if keys.is_empty() || keys.len() > KEYS_TRIED_MAX {
        return Err(Refusal::Key);
    }
    for key in keys {
        if let Some((_, hmac)) = key.hmac.iter().find(|(of, _)| *of == algorithm) {
            // In constant time.
            match hmac::verify(hmac, parts.message.as_bytes(), &decoded(parts.signature)?) {
                Ok(()) => return Ok(()),
                Err(_) => continue,
            }
        }
        match jsonwebtoken::crypto::verify(parts.signature, parts.message.as_bytes(), &key.key, algorithm) {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(_) => return Err(Refusal::Form),
        }
    }
    Err(Refusal::Signature)
}
