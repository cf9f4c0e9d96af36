//! `[[auth.issuer]]`: who issues tokens, and where their keys are. Only the file can say: neither the environment nor a flag
//! has a place for a list of tables.
//!
//! Driven by `load`. Reads the files of keys once, to say what is wrong with them; what the server checks tokens with is
//! read again when its policies are made.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use super::admin::FileName;
use super::backend::Text;
use super::error::ConfigError;
use super::section::{Checker, section};
use super::settings::Settings;
use super::table::Table;
use super::value::{Kind, Names, RawValue, Seconds};
use crate::auth::token::{IssuerPlan, Issuers, KeySource};
use crate::service::{KeySets, check_jwks_url};

/// Issuers of one server.
const ISSUERS_MAX: usize = 64;

/// Different addresses that their keys are fetched from. Each has a thread.
const JWKS_URLS_MAX: usize = 16;

/// Bytes of an issuer's name, which stands in ids of members of presence.
const ISSUER_BYTES_MAX: usize = 512;

/// The most by which clocks may be said to differ.
const LEEWAY_MAX: Duration = Duration::from_secs(300);

section! {
    /// Who issues tokens, only in the file: one table for each issuer, with at least one kind of keys. A token is
    /// checked with the keys of the issuer that it names (iss), and with no others. See docs/tokens.md.
    IssuerRule ["auth.issuer"] {
        /// What iss of its tokens has to be; one that is the only issuer may do without.
        "issuer" => issuer: String as Words = String::new(),
        /// Of these one has to be in aud of its tokens; empty: they have none.
        "audience" => audience: Vec<String> as Names = Vec::new(),
        /// Seconds by which its clock and this one may differ.
        "leeway_seconds" => leeway: Duration as Seconds = Duration::from_secs(30),
        /// A file with the secret that its tokens are signed with (HS256, HS384, HS512), 32 bytes or more.
        "hmac_file" => hmac_file: String as FileName = String::new(),
        /// A file with the secret before that, which is taken too until it is left out.
        "hmac_file_previous" => hmac_file_previous: String as FileName = String::new(),
        /// A PEM file with a public key: RSA (RS256 to PS512), P-256, P-384 (ES256, ES384) or Ed25519 (EdDSA).
        "pem_file" => pem_file: String as FileName = String::new(),
        /// The kid of tokens signed with hmac_file or pem_file; without it their key is tried for any.
        "kid" => kid: String as Words = String::new(),
        /// A file with a set of public keys (JWKS).
        "jwks_file" => jwks_file: String as FileName = String::new(),
        /// The URL of a set of public keys (JWKS), https://, or http:// of this machine. It is fetched again and again, and there are
        /// no other keys beside it.
        "jwks_url" => jwks_url: String as Text = String::new(),
        /// A PEM file with authorities that are trusted for it, instead of those of the system; empty for those.
        "jwks_ca_file" => jwks_ca_file: String as FileName = String::new(),
    }
}

/// Text, read as a file's name is and called otherwise.
struct Words;

impl Kind for Words {
    type Out = String;
    const EXPECTS: &'static str = "text";

    fn parse(raw: &RawValue) -> Option<String> {
        FileName::parse(raw)
    }

    fn show(value: &String) -> String {
        FileName::show(value)
    }
}

impl IssuerRule {
    fn check_values(&self, check: &mut Checker<'_>) {
        let has_file = !(self.hmac_file.is_empty() && self.pem_file.is_empty() && self.jwks_file.is_empty());
        if !has_file && self.jwks_url.is_empty() {
            check.report("hmac_file", "expects keys: hmac_file, pem_file, jwks_file or jwks_url".to_owned());
        }
        if !self.jwks_url.is_empty() {
            if let Err(problem) = check_jwks_url(&self.jwks_url) {
                check.report("jwks_url", problem.to_owned());
            } else if has_file {
                check.report("jwks_url", "expects no files of keys beside it".to_owned());
            }
        } else if !self.jwks_ca_file.is_empty() {
            check.report("jwks_ca_file", "expects jwks_url, too".to_owned());
        }
        if !self.hmac_file_previous.is_empty() && self.hmac_file.is_empty() {
            check.report("hmac_file_previous", "expects hmac_file, which came after it".to_owned());
        }
        if !self.kid.is_empty() && self.hmac_file.is_empty() == self.pem_file.is_empty() {
            check.report("kid", "expects either hmac_file or pem_file, whose key it names".to_owned());
        }
        if self.issuer.contains('|') {
            check.report("issuer", "expects no '|', which stands between it and a bearer's name".to_owned());
        }
        if self.issuer.len() > ISSUER_BYTES_MAX {
            check.report("issuer", format!("expects at most {ISSUER_BYTES_MAX} bytes"));
        }
        if self.leeway > LEEWAY_MAX {
            let got = self.leeway.as_secs_f64();
            check.report("leeway_seconds", format!("expects 0 to {}, got {got}", LEEWAY_MAX.as_secs()));
        }
    }

    /// The same as what checks tokens has it.
    fn plan(&self) -> IssuerPlan {
        let named = |text: &String| (!text.is_empty()).then(|| text.clone());
        let (kid, file) = (named(&self.kid), |name: &String| named(name).map(Into::into));
        let keys = [
            file(&self.hmac_file).map(|file| KeySource::Hmac { file, kid: kid.clone() }),
            // Of before there was a name, or of another one.
            file(&self.hmac_file_previous).map(|file| KeySource::Hmac { file, kid: None }),
            file(&self.pem_file).map(|file| KeySource::Pem { file, kid: kid.clone() }),
            file(&self.jwks_file).map(|file| KeySource::Jwks { file }),
            named(&self.jwks_url).map(|url| KeySource::Url { url, ca: file(&self.jwks_ca_file) }),
        ];
        IssuerPlan {
            issuer: named(&self.issuer),
            audience: self.audience.clone(),
            leeway_seconds: self.leeway.as_secs(),
            keys: keys.into_iter().flatten().collect(),
        }
    }

    /// What is wrong with the file of authorities. Those of the system are another machine's matter, perhaps.
    fn unfit_authorities(&self) -> Option<String> {
        let ca = (!self.jwks_ca_file.is_empty()).then(|| Path::new(&self.jwks_ca_file))?;
        KeySets::check(&self.jwks_url, Some(ca)).err()
    }

    /// The key whose value is the name of this file.
    fn key_of(&self, file: &Path) -> &'static str {
        let files = [
            ("hmac_file", &self.hmac_file),
            ("hmac_file_previous", &self.hmac_file_previous),
            ("pem_file", &self.pem_file),
            ("jwks_file", &self.jwks_file),
        ];
        files.into_iter().find(|(_, name)| Path::new(name) == file).map_or("issuer", |(key, _)| key)
    }
}

impl Settings {
    /// Who issues tokens; nobody, if the list is empty.
    #[must_use]
    pub fn issuer_plans(&self) -> Vec<IssuerPlan> {
        self.issuers.iter().map(IssuerRule::plan).collect()
    }
}

/// Checks every table, its files, and one against the other.
pub(super) fn read(
    tables: &[Table],
    errors: &mut Vec<ConfigError>,
    warnings: &mut Vec<String>,
) -> Vec<IssuerRule> {
    let mut rules: Vec<IssuerRule> = Vec::new();
    let mut urls = BTreeSet::new();
    for (index, table) in tables.iter().enumerate() {
        let mut rule = IssuerRule::default();
        if !table.fill(&mut rule, errors) {
            continue;
        }
        let places: BTreeMap<_, _> = table.places().collect();
        let mut report = |key: &str, problem: String| {
            let place = places.get(key).copied().unwrap_or(&table.place).clone();
            errors.push(ConfigError { place, key: Some(format!("auth.issuer.{key}")), problem });
        };
        if index == ISSUERS_MAX {
            report("issuer", format!("is one more than the {ISSUERS_MAX} issuers that there may be"));
            break;
        }
        if tables.len() > 1 && rule.issuer.is_empty() {
            report("issuer", "expects a name, because there are other issuers".to_owned());
        } else if rules.iter().any(|other| other.issuer == rule.issuer) {
            report("issuer", format!("expects a name of its own, got {:?} again", rule.issuer));
        }
        urls.extend((!rule.jwks_url.is_empty()).then(|| (rule.jwks_url.clone(), rule.jwks_ca_file.clone())));
        if urls.len() > JWKS_URLS_MAX {
            report(
                "jwks_url",
                format!("is one more than the {JWKS_URLS_MAX} different ones that there may be"),
            );
            break;
        }
        if let Some(problem) = rule.unfit_authorities() {
            report("jwks_ca_file", problem);
        }
        match Issuers::load(&[rule.plan()]) {
            Ok(loaded) => {
                let place = |key| places.get(key).copied().unwrap_or(&table.place);
                warnings.extend(loaded.warnings.iter().map(|warning| {
                    // Each begins with the name of its file.
                    let file = warning.split(": ").next().unwrap_or_default();
                    let key = rule.key_of(Path::new(file));
                    format!("{}: auth.issuer.{key}: {warning}", place(key))
                }));
            }
            Err(error) => report(rule.key_of(&error.file), error.to_string()),
        }
        rules.push(rule);
    }
    rules
}
