//! A chain of certificates explained: whom each names, who signed it and until when, and what clients find in the way.
//!
//! For `fantail preflight --tls`. Pure: files and connections are [`super::look`]'s.

use std::net::IpAddr;
use std::time::{Duration, SystemTime};

use rustls::client::verify_server_name;
use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::ext::pkix::{AuthorityInfoAccessSyntax, BasicConstraints, SubjectAltName};

use super::trust::{Trust, verdict};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// As the alert FantailCertificateExpires has it.
const SOON_DAYS: u64 = 14;

/// Where the certificate of the issuer may be had (RFC 5280, 4.2.2.1).
const CA_ISSUERS: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.6.1.5.5.7.48.2");

/// One certificate of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Whom it names.
    pub subject: String,
    /// Who has signed it.
    pub issuer: String,
    /// Names and addresses that it is for; `*.` in front stands for one label.
    pub names: Vec<String>,
    /// What kind of key it certifies.
    pub key: String,
    /// From when it is good.
    pub begins: SystemTime,
    /// Until when.
    pub ends: SystemTime,
    /// Both, as they are told.
    pub time: (String, String),
    /// Whether it may sign others.
    pub authority: bool,
    /// Where it says that its issuer's may be had.
    pub issuer_at: Option<String>,
}

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Nothing to do.
    Fine,
    /// Clients take it, for now or for the most part.
    Warning,
    /// Clients refuse it.
    Wrong,
}

impl Level {
    /// As it is printed.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Fine => "fine",
            Self::Warning => "warning",
            Self::Wrong => "wrong",
        }
    }
}

/// What was found, good or bad.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at: `expiry`, `key`, `order`, `issuers`, `client`.
    pub name: &'static str,
    /// How grave it is.
    pub level: Level,
    /// What it is, and what to do.
    pub said: String,
}

/// All there is to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Explained {
    /// The chain, as far as it could be read.
    pub certificates: Vec<Seen>,
    /// What was found.
    pub findings: Vec<Finding>,
}

impl Explained {
    /// Whether clients take it.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.findings.iter().all(|finding| finding.level != Level::Wrong)
    }
}

/// Explains a chain, the server's own certificate first; `key` is what the server would sign with. Clients are those who trust
/// `trust` and ask for one of `hosts`, or if there are none for the first name that the certificate is for.
#[must_use]
pub fn explain(
    chain: &[CertificateDer<'static>],
    key: Option<&PrivateKeyDer<'static>>,
    hosts: &[String],
    trust: &Trust,
    now: SystemTime,
) -> Explained {
    let mut explained = Explained::default();
    let mut parsed = Vec::new();
    for (place, der) in chain.iter().enumerate() {
        match Certificate::from_der(der) {
            Ok(certificate) => parsed.push(certificate),
            Err(error) => {
                let said = format!("number {} of the chain is no certificate: {error}", place + 1);
                explained.findings.push(Finding { name: "order", level: Level::Wrong, said });
                return explained;
            }
        }
    }
    explained.certificates = parsed.iter().map(seen).collect();
    let (seen, findings) = (&explained.certificates, &mut explained.findings);
    let Some(own) = seen.first() else {
        let said = "there is no certificate".to_owned();
        findings.push(Finding { name: "order", level: Level::Wrong, said });
        return explained;
    };
    // A client that knows who has signed one looks at none behind it: at an older root's certificate of the same issuer, say.
    let end = parsed.iter().position(|one| trust.knows(&one.tbs_certificate.issuer));
    findings.push(expiry(end.and_then(|end| seen.get(..=end)).unwrap_or(seen), now));
    findings.extend(key.map(|key| of_key(key, chain, own)));
    findings.push(order(&parsed, seen));
    findings.extend(match end.and_then(|end| seen.get(end)) {
        Some(last) => {
            let said = format!("they lead to {}, of {}", last.issuer, trust.name());
            Some(Finding { name: "issuers", level: Level::Fine, said })
        }
        None => issuers(&parsed, seen, trust),
    });
    let own_name: Vec<String> =
        own.names.first().map(|name| name.replacen('*', "any", 1)).into_iter().collect();
    let asked = if hosts.is_empty() { &own_name } else { hosts };
    if asked.is_empty() {
        let said = "the certificate is for no name (subjectAltName): clients look at nothing else".to_owned();
        findings.push(Finding { name: "client", level: Level::Wrong, said });
    }
    findings.extend(asked.iter().map(|host| match verdict(chain, host, trust, now) {
        Ok(()) => {
            let said = format!("who asks for {host} and trusts {} takes it", trust.name());
            Finding { name: "client", level: Level::Fine, said }
        }
        Err(refusal) => {
            Finding { name: "client", level: Level::Wrong, said: format!("asked for {host}: {refusal}") }
        }
    }));
    explained
}

/// Whether the first certificate of a chain is for this name.
#[must_use]
pub fn is_for(chain: &[CertificateDer<'static>], host: &str) -> bool {
    let Some(own) = chain.first().and_then(|own| ParsedCertificate::try_from(own).ok()) else { return false };
    ServerName::try_from(host).is_ok_and(|name| verify_server_name(&own, &name).is_ok())
}

fn seen(certificate: &Certificate) -> Seen {
    let of = &certificate.tbs_certificate;
    let time = |time: &x509_cert::time::Time| SystemTime::UNIX_EPOCH + time.to_unix_duration();
    let (begins, ends) = (&of.validity.not_before, &of.validity.not_after);
    let constraints = of.get::<BasicConstraints>().ok().flatten();
    let access = of.get::<AuthorityInfoAccessSyntax>().ok().flatten();
    let issuer_at = access.and_then(|(_, access)| {
        access.0.into_iter().find_map(|one| match one.access_location {
            GeneralName::UniformResourceIdentifier(at) if one.access_method == CA_ISSUERS => {
                Some(at.as_str().to_owned())
            }
            _ => None,
        })
    });
    Seen {
        subject: of.subject.to_string(),
        issuer: of.issuer.to_string(),
        names: names(certificate),
        key: kind_of_key(certificate),
        begins: time(begins),
        ends: time(ends),
        time: (begins.to_string(), ends.to_string()),
        authority: constraints.is_some_and(|(_, constraints)| constraints.ca),
        issuer_at,
    }
}

/// Names and addresses (RFC 6125, 6.4: the subject is no longer looked at).
fn names(certificate: &Certificate) -> Vec<String> {
    let Ok(Some((_, names))) = certificate.tbs_certificate.get::<SubjectAltName>() else { return Vec::new() };
    let told = names.0.iter().filter_map(|name| match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_ascii_lowercase()),
        GeneralName::IpAddress(bytes) => address(bytes.as_bytes()).map(|address| address.to_string()),
        _ => None,
    });
    told.collect()
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let four = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    four.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

fn kind_of_key(certificate: &Certificate) -> String {
    let algorithm = &certificate.tbs_certificate.subject_public_key_info.algorithm;
    let curve = || {
        let curve = algorithm.parameters.as_ref()?.decode_as::<ObjectIdentifier>().ok()?;
        Some(match curve.to_string().as_str() {
            "1.2.840.10045.3.1.7" => "ECDSA P-256".to_owned(),
            "1.3.132.0.34" => "ECDSA P-384".to_owned(),
            "1.3.132.0.35" => "ECDSA P-521".to_owned(),
            other => format!("ECDSA on {other}"),
        })
    };
    match algorithm.oid.to_string().as_str() {
        "1.2.840.113549.1.1.1" => "RSA".to_owned(),
        "1.2.840.10045.2.1" => curve().unwrap_or_else(|| "ECDSA".to_owned()),
        "1.3.101.112" => "Ed25519".to_owned(),
        other => format!("a key of the kind {other}"),
    }
}

/// A root at the end of a chain is looked at by nobody.
fn looked_at(seen: &[Seen]) -> impl Iterator<Item = &Seen> {
    seen.iter()
        .enumerate()
        .filter(|(place, one)| *place == 0 || one.subject != one.issuer)
        .map(|(_, one)| one)
}

fn expiry(seen: &[Seen], now: SystemTime) -> Finding {
    let wrong = |said: String| Finding { name: "expiry", level: Level::Wrong, said };
    if let Some(early) = looked_at(seen).find(|one| one.begins > now) {
        return wrong(format!(
            "{} is not good before {}: is the clock here right?",
            early.subject, early.time.0
        ));
    }
    let Some(first) = looked_at(seen).min_by_key(|one| one.ends) else {
        return wrong("there is no certificate".to_owned());
    };
    let Ok(left) = first.ends.duration_since(now) else {
        return wrong(format!("{} has expired at {}: it has to be renewed", first.subject, first.time.1));
    };
    let days = left.as_secs() / DAY.as_secs();
    let level = if days < SOON_DAYS { Level::Warning } else { Level::Fine };
    let said = format!("{days} days are left, until {} ({})", first.time.1, first.subject);
    Finding { name: "expiry", level, said }
}

fn of_key(key: &PrivateKeyDer<'static>, chain: &[CertificateDer<'static>], own: &Seen) -> Finding {
    let wrong = |said: String| Finding { name: "key", level: Level::Wrong, said };
    let Ok(signing) = any_supported_type(key) else {
        return wrong(
            "the key is of a kind that is not supported: ECDSA (P-256, P-384), RSA or Ed25519 are".to_owned(),
        );
    };
    let is_of = |der: &CertificateDer<'static>| {
        CertifiedKey::new(vec![der.clone()], signing.clone()).keys_match().is_ok()
    };
    match chain.iter().position(is_of) {
        Some(0) => {
            let said = format!("the key is that of {}", own.subject);
            Finding { name: "key", level: Level::Fine, said }
        }
        Some(place) => wrong(format!(
            "the key is that of certificate {}, which has to be the first of the chain",
            place + 1
        )),
        None => wrong(format!("the key is not that of {}: it is another certificate's", own.subject)),
    }
}

/// Each is signed by the next (RFC 5246, 7.4.2; RFC 8446, 4.4.2 allows any order, older clients do not).
fn order(parsed: &[Certificate], seen: &[Seen]) -> Finding {
    let follows = |pair: &[Certificate]| match pair {
        [one, next] => one.tbs_certificate.issuer == next.tbs_certificate.subject,
        _ => true,
    };
    let Some(place) = parsed.windows(2).position(|pair| !follows(pair)) else {
        let said = match seen.len() {
            1 => "one certificate".to_owned(),
            several => format!("{several} certificates, each followed by its issuer's"),
        };
        return Finding { name: "order", level: Level::Fine, said };
    };
    let (one, next) = (seen.get(place), seen.get(place + 1));
    let of = |what: Option<&Seen>, part: fn(&Seen) -> &String| what.map(part).cloned().unwrap_or_default();
    let said = format!(
        "certificate {} was issued by {}, and behind it stands {}: put each in front of its issuer's",
        place + 1,
        of(one, |seen| &seen.issuer),
        of(next, |seen| &seen.subject),
    );
    Finding { name: "order", level: Level::Wrong, said }
}

/// Why the end of the chain does not lead to whom clients trust.
fn issuers(parsed: &[Certificate], seen: &[Seen], trust: &Trust) -> Option<Finding> {
    let (last, told) = (&parsed.last()?.tbs_certificate, seen.last()?);
    let finding = |level, said| Some(Finding { name: "issuers", level, said });
    if last.subject == last.issuer {
        let said = format!(
            "they end with {}, which is not one of {}: whoever is to believe it has to be told so, and --ca says it here",
            told.subject,
            trust.name()
        );
        return finding(Level::Warning, said);
    }
    let at = told.issuer_at.as_ref().map(|at| format!("; it may be had at {at}")).unwrap_or_default();
    finding(
        Level::Wrong,
        format!(
            "the certificate of {} is missing, which has issued the last one, {}, and is not one of {}: put it behind{at}, \
             or if it is a root of your own, name it with --ca FILE",
            told.issuer,
            told.subject,
            trust.name()
        ),
    )
}
