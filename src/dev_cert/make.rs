//! The certificates themselves. No files.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rcgen::{
    BasicConstraints, Certificate, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, Issuer, KeyPair, KeyUsagePurpose, date_time_ymd,
};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_cert::der::Decode;
use x509_cert::der::asn1::Utf8StringRef;
use x509_cert::der::oid::db::rfc4519::COMMON_NAME;

use crate::client::dial::random_bytes;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// An authority is trusted by hand, which nobody does often.
const CA_DAYS: u32 = 3_650;

/// Apple's systems take no certificate of a server for longer, whoever issued it.
const SERVER_DAYS: u32 = 825;

/// Clocks of clients are behind.
const EARLIER_DAYS: u32 = 1;

/// What signs.
pub(super) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its own certificate.
    pub(super) pem: String,
}

impl Authority {
    /// A new one, of a name that no other has: trust stores tell authorities apart by it.
    pub(super) fn new(now: SystemTime) -> Result<Self, String> {
        let random: [u8; 4] = random_bytes().map_err(|error| format!("cannot get random bytes: {error}"))?;
        let name = format!("Fantail development authority {:08x}", u32::from_be_bytes(random));
        let mut params = named(&name, now, CA_DAYS);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().map_err(unmade)?;
        let pem = params.self_signed(&key).map_err(unmade)?.pem();
        Ok(Self { issuer: Issuer::new(params, key), pem })
    }

    /// The one of these files. Only its name and its key are needed for what it signs.
    pub(super) fn read(pem: &str, key: &str) -> Result<Self, String> {
        let der = CertificateDer::from_pem_slice(pem.as_bytes())
            .map_err(|error| format!("is no certificate: {error}"))?;
        let parsed =
            x509_cert::Certificate::from_der(&der).map_err(|error| format!("is no certificate: {error}"))?;
        let of = |attribute: &x509_cert::attr::AttributeTypeAndValue| {
            let name = attribute.value.decode_as::<Utf8StringRef<'_>>().ok()?;
            (attribute.oid == COMMON_NAME).then(|| name.as_str().to_owned())
        };
        let subject = &parsed.tbs_certificate.subject.0;
        let name = match subject.as_slice() {
            [one] => one.0.iter().find_map(of),
            _ => None,
        };
        let name = name.ok_or("was not made by this command: it names more than a common name")?;
        let key =
            KeyPair::from_pem(key).map_err(|error| format!("has a key that cannot be read: {error}"))?;
        if parsed.tbs_certificate.subject_public_key_info.subject_public_key.raw_bytes()
            != key.public_key_raw()
        {
            return Err("has a key beside it that is another one's".to_owned());
        }
        let mut params = CertificateParams::default();
        params.distinguished_name = common_name(&name);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        Ok(Self { issuer: Issuer::new(params, key), pem: pem.to_owned() })
    }

    pub(super) fn key_pem(&self) -> String {
        self.issuer.key().serialize_pem()
    }

    /// A certificate for these names, the authority's own behind it, and its key; both PEM.
    pub(super) fn sign(&self, names: &[String], now: SystemTime) -> Result<(String, String), String> {
        // Browsers look at the names only; people see this one.
        let shown = names.iter().rev().find(|name| name.len() <= 64).map_or("localhost", String::as_str);
        let mut params = CertificateParams::new(names).map_err(unmade)?;
        let base = named(shown, now, SERVER_DAYS);
        params.distinguished_name = base.distinguished_name;
        params.not_before = base.not_before;
        params.not_after = base.not_after;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().map_err(unmade)?;
        let own: Certificate = params.signed_by(&key, &self.issuer).map_err(unmade)?;
        Ok((own.pem() + &self.pem, key.serialize_pem()))
    }
}

fn named(name: &str, now: SystemTime, days: u32) -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = date_time_ymd(1970, 1, 1) + now.duration_since(UNIX_EPOCH).unwrap_or_default();
    params.not_before = now - DAY * EARLIER_DAYS;
    // Both together are what clients count.
    params.not_after = now + DAY * (days - EARLIER_DAYS);
    params.distinguished_name = common_name(name);
    params
}

fn common_name(name: &str) -> DistinguishedName {
    let mut all = DistinguishedName::new();
    all.push(DnType::CommonName, name);
    all
}

fn unmade(error: rcgen::Error) -> String {
    format!("a certificate cannot be made: {error}")
}
