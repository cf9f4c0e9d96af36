//! Certificates and their keys, out of PEM files: read, looked at, and refused in words that name file and cause.
//!
//! Used by [`super::config`] at the start and at reloads, and by `fantail check-config`. A file that a client would refuse is
//! refused here, where somebody reads why. Never on a loop: files may block.

use std::io::Read;
use std::time::{Duration, SystemTime};
use std::{fmt, str};

use rustls::crypto::aws_lc_rs::sign::any_supported_type;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use crate::sys;

/// Bytes read of one file.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateError {
    /// The key of the configuration that names it.
    pub key: &'static str,
    /// The file.
    pub file: String,
    /// What is wrong, and what to do.
    pub problem: String,
}

impl fmt::Display for CertificateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?} {}", self.key, self.file, self.problem)
    }
}

impl std::error::Error for CertificateError {}

/// What the keys of the configuration are called that name the files of one port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyNames {
    /// The one of certificates.
    pub certificate: &'static str,
    /// The one of their keys.
    pub key: &'static str,
    /// The one of authorities of clients.
    pub client_ca: &'static str,
    /// The one of lists of those that these have revoked.
    pub client_crl: &'static str,
}

impl KeyNames {
    /// Those of the clients' port.
    pub const CLIENTS: Self = Self {
        certificate: "tls.certificate",
        key: "tls.key",
        client_ca: "tls.client_ca",
        client_crl: "tls.client_crl",
    };
    /// Those of the operators'.
    pub const ADMIN: Self = Self {
        certificate: "admin.tls_certificate",
        key: "admin.tls_key",
        client_ca: "admin.tls_client_ca",
        client_crl: "admin.tls_client_crl",
    };
}

impl Default for KeyNames {
    fn default() -> Self {
        Self::CLIENTS
    }
}

/// A certificate with its chain and its key.
#[derive(Debug)]
pub struct Identity {
    /// What rustls signs with.
    pub key: CertifiedKey,
    /// Names that it is for, in lower case; `*.` in front stands for one label.
    pub names: Vec<String>,
    /// Whom it names.
    pub subject: String,
    /// Who has signed it.
    pub issuer: String,
    /// When the first of its chain expires.
    pub expires: SystemTime,
    /// What clients may stumble over, though not all of them do.
    pub warning: Option<String>,
}

/// Reads a certificate with its chain from one file, and its key from another or the same. Errors call them by `names`.
///
/// # Errors
/// What is wrong with which of them.
pub fn read(
    certificate: &str,
    key: &str,
    names: &KeyNames,
    now: SystemTime,
) -> Result<Identity, CertificateError> {
    let text = read_file(names.certificate, certificate)?;
    let of_certificate = |problem: String| fail(names.certificate, certificate, problem);
    let of_key = |problem: String| fail(names.key, key, problem);
    let chain = chain_of(&text).map_err(of_certificate)?;
    let parsed: Result<Vec<Certificate>, String> = chain.iter().enumerate().map(parsed).collect();
    let parsed = parsed.map_err(of_certificate)?;
    let Some(own) = parsed.first() else { return Err(of_certificate(no_certificate(&text))) };
    let key_text = read_file(names.key, key)?;
    let private = key_of(&key_text).map_err(of_key)?;
    let signing = any_supported_type(&private).map_err(|_| {
        let problem =
            "has a key of a kind that is not supported: expects ECDSA (P-256, P-384), RSA or Ed25519";
        of_key(problem.to_owned())
    })?;
    let (names, subject, issuer) = (names_of(own), own.subject(), own.issuer());
    let pair = CertifiedKey::new(chain.clone(), signing);
    if pair.keys_match().is_err() {
        return Err(match matching(&pair, &chain) {
            Some(place) => of_certificate(format!(
                "is in the wrong order: the key {key:?} is that of certificate {}, which has to be the first",
                place + 1
            )),
            None => of_key(format!("is not the key of the certificate in {certificate:?} ({subject})")),
        });
    }
    in_order(&parsed).map_err(of_certificate)?;
    let expires = in_time(&parsed, now).map_err(of_certificate)?;
    let warning = (parsed.len() == 1 && subject != issuer).then(|| {
        format!(
            "{certificate:?} has no certificate of its issuer ({issuer}): clients that do not have that one refuse it, \
             unless it is a root that they trust"
        )
    });
    Ok(Identity { key: pair, names, subject, issuer, expires, warning })
}

/// What is asked of a parsed certificate.
pub(super) trait Asked {
    fn subject(&self) -> String;
    fn issuer(&self) -> String;
    fn begins(&self) -> SystemTime;
    fn ends(&self) -> SystemTime;
}

impl Asked for Certificate {
    fn subject(&self) -> String {
        self.tbs_certificate.subject.to_string()
    }

    fn issuer(&self) -> String {
        self.tbs_certificate.issuer.to_string()
    }

    fn begins(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.tbs_certificate.validity.not_before.to_unix_duration()
    }

    fn ends(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + self.tbs_certificate.validity.not_after.to_unix_duration()
    }
}

pub(super) fn fail(key: &'static str, file: &str, problem: String) -> CertificateError {
    CertificateError { key, file: file.to_owned(), problem }
}

pub(super) fn read_file(key: &'static str, file: &str) -> Result<Vec<u8>, CertificateError> {
    let mut text = Vec::new();
    let read =
        sys::file::open(file).and_then(|opened| opened.take(FILE_BYTES_MAX + 1).read_to_end(&mut text));
    match read {
        Err(error) => Err(fail(key, file, format!("cannot be read: {error}"))),
        Ok(_) if text.len() as u64 > FILE_BYTES_MAX => {
            Err(fail(key, file, "is larger than 1 MiB".to_owned()))
        }
        Ok(_) => Ok(text),
    }
}

pub(super) fn chain_of(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(text).collect();
    let chain = chain.map_err(|error| format!("is broken PEM: {error}"))?;
    if chain.is_empty() { Err(no_certificate(text)) } else { Ok(chain) }
}

/// What a file has that was to have a certificate.
fn no_certificate(text: &[u8]) -> String {
    let has = |what: &str| text.windows(what.len()).any(|window| window == what.as_bytes());
    if has("PRIVATE KEY-----") {
        "has a private key and no certificate: are the two files swapped?".to_owned()
    } else if has("-----BEGIN CERTIFICATE REQUEST-----") {
        "has a certificate request, and not the certificate that was made of it".to_owned()
    } else {
        no_pem(text)
    }
}

fn no_pem(text: &[u8]) -> String {
    // A SEQUENCE in DER.
    if text.first() == Some(&0x30) {
        return "is DER and not PEM: make it PEM with openssl x509 -inform der, or openssl pkey -inform der"
            .to_owned();
    }
    match str::from_utf8(text) {
        Ok(text) if text.trim().is_empty() => "is empty".to_owned(),
        _ => "is not PEM: expects -----BEGIN CERTIFICATE----- or -----BEGIN PRIVATE KEY-----".to_owned(),
    }
}

fn key_of(text: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    let has = |what: &str| text.windows(what.len()).any(|window| window == what.as_bytes());
    // PKCS #8 says it in the label (RFC 5958, 3), what was before it in a header (RFC 1421, 4.6.1.1).
    if has("-----BEGIN ENCRYPTED PRIVATE KEY-----") || has("Proc-Type: 4,ENCRYPTED") {
        return Err("is encrypted, and there is nobody to ask for its passphrase: decrypt it with \
                    openssl pkey -in FILE -out FILE, and keep it readable by the server only"
            .to_owned());
    }
    match PrivateKeyDer::from_pem_slice(text) {
        Ok(key) => Ok(key),
        Err(pem::Error::NoItemsFound) if has("-----BEGIN CERTIFICATE-----") => {
            Err("has a certificate and no private key: are the two files swapped?".to_owned())
        }
        Err(pem::Error::NoItemsFound) if has("PRIVATE KEY-----") => {
            Err("has a private key of a kind that is not supported: expects PKCS #8, PKCS #1 or SEC1"
                .to_owned())
        }
        Err(pem::Error::NoItemsFound) => Err(no_pem(text)),
        Err(error) => Err(format!("is broken PEM: {error}")),
    }
}

fn parsed((place, der): (usize, &CertificateDer<'_>)) -> Result<Certificate, String> {
    Certificate::from_der(der)
        .map_err(|error| format!("has a certificate {} that is none: {error}", place + 1))
}

/// Which certificate of the chain the key is that of.
fn matching(pair: &CertifiedKey, chain: &[CertificateDer<'static>]) -> Option<usize> {
    (0..chain.len()).find(|&place| {
        let one = chain.get(place..=place).unwrap_or_default().to_vec();
        CertifiedKey::new(one, pair.key.clone()).keys_match().is_ok()
    })
}

/// Each certificate is signed by the next (RFC 5246, 7.4.2). TLS 1.3 allows any order (RFC 8446, 4.4.2), clients that are
/// older do not.
fn in_order(chain: &[Certificate]) -> Result<(), String> {
    for (place, pair) in chain.windows(2).enumerate() {
        let [one, next] = pair else { continue };
        if one.tbs_certificate.issuer != next.tbs_certificate.subject {
            let (place, after) = (place + 1, place + 2);
            return Err(format!(
                "has no whole chain: certificate {place} was issued by {}, and certificate {after} is {}; each has to \
                 be followed by that of its issuer",
                one.issuer(),
                next.subject()
            ));
        }
    }
    Ok(())
}

/// When the first certificate of the chain expires. Roots at its end are looked at by nobody.
fn in_time(chain: &[Certificate], now: SystemTime) -> Result<SystemTime, String> {
    let mut expires = None;
    for (place, certificate) in chain.iter().enumerate() {
        if place > 0 && certificate.subject() == certificate.issuer() {
            continue;
        }
        let (subject, ends) = (certificate.subject(), certificate.ends());
        if certificate.begins() > now {
            let when = certificate.tbs_certificate.validity.not_before;
            return Err(format!(
                "is not valid before {when} ({subject}); is the clock of this machine right?"
            ));
        }
        if ends <= now {
            let when = certificate.tbs_certificate.validity.not_after;
            return Err(format!("has expired at {when} ({subject})"));
        }
        expires = Some(expires.map_or(ends, |first: SystemTime| first.min(ends)));
    }
    Ok(expires.unwrap_or(now + Duration::from_secs(1)))
}

/// Names that the certificate is for (RFC 6125, 6.4: those of subjectAltName, the subject is no longer looked at).
fn names_of(certificate: &Certificate) -> Vec<String> {
    let Ok(Some((_, names))) = certificate.tbs_certificate.get::<SubjectAltName>() else { return Vec::new() };
    let dns = names.0.iter().filter_map(|name| match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_ascii_lowercase()),
        _ => None,
    });
    dns.collect()
}
