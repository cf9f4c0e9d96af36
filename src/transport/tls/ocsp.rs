//! Responses of OCSP (RFC 6960) that go with a certificate, stapled to it (RFC 6066, 8; RFC 8446, 4.4.2.1): read from files
//! and looked at, never asked for.
//!
//! Read with the certificates by [`super::config`], and never on a loop: files may block. Who has signed one is not looked
//! at here, clients do that.

use std::time::SystemTime;

use ::aws_lc_rs::digest::{Algorithm, SHA1_FOR_LEGACY_USE_ONLY, SHA256, digest};
use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::oid::AssociatedOid;
use x509_cert::der::oid::db::rfc5912::{ID_SHA_1, ID_SHA_256};
use x509_cert::der::{Decode, Encode};
use x509_ocsp::{
    BasicOcspResponse, CertId, CertStatus, OcspGeneralizedTime, OcspResponse, OcspResponseStatus,
    SingleResponse,
};

use super::certificate::{CertificateError, fail, read_file};

/// The key of the configuration.
pub(super) const KEY: &str = "tls.ocsp";
/// Bytes of a response: each handshake that is under way may have a copy. They have 500 to 2,000.
const RESPONSE_BYTES_MAX: usize = 16 * 1024;

/// A response, and when it holds.
#[derive(Debug)]
pub(super) struct Response {
    pub(super) der: Vec<u8>,
    pub(super) time: Time,
    /// Why it does not hold now.
    pub(super) warning: Option<String>,
}

/// When a response holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Time {
    pub(super) from: SystemTime,
    /// `None`: for as long as there is no newer one (RFC 6960, 4.2.2.1).
    pub(super) until: Option<SystemTime>,
}

impl Time {
    pub(super) fn holds(&self, now: SystemTime) -> bool {
        self.from <= now && self.until.is_none_or(|until| now < until)
    }
}

/// Reads the response of an authority about the first certificate of a chain.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(
    file: &str,
    chain: &[CertificateDer<'_>],
    now: SystemTime,
) -> Result<Response, CertificateError> {
    let der = read_file(KEY, file)?;
    let looked_at = look_at(&der, chain);
    let about = looked_at.map_err(|problem| fail(KEY, file, problem))?;
    let time = Time { from: at(about.this_update), until: about.next_update.map(at) };
    let warning = if time.from > now {
        let when = about.this_update.0.to_date_time();
        Some(format!(
            "{file:?} is not valid before {when} and not sent until then; is the clock of this machine right?"
        ))
    } else if let Some(until) = about.next_update.filter(|_| !time.holds(now)) {
        let when = until.0.to_date_time();
        Some(format!("{file:?} has expired at {when} and is not sent: clients get the certificate alone"))
    } else {
        None
    };
    Ok(Response { der, time, warning })
}

fn at(time: OcspGeneralizedTime) -> SystemTime {
    SystemTime::UNIX_EPOCH + time.0.to_unix_duration()
}

/// What a response says of the first certificate of a chain, if that is good.
fn look_at(der: &[u8], chain: &[CertificateDer<'_>]) -> Result<SingleResponse, String> {
    if der.len() > RESPONSE_BYTES_MAX {
        return Err(format!("is larger than {RESPONSE_BYTES_MAX} bytes"));
    }
    let basic = basic(der)?;
    let mut chain = chain.iter().map(|der| Certificate::from_der(der));
    let broken = |error| format!("is for a certificate that is none: {error}");
    let own = chain.next().ok_or("is for no certificate")?.map_err(broken)?;
    let issuer = chain.next().transpose().map_err(broken)?;
    let serial = &own.tbs_certificate.serial_number;
    let about =
        basic.tbs_response_data.responses.into_iter().find(|one| one.cert_id.serial_number == *serial);
    let about = about.ok_or_else(|| {
        format!("is about other certificates, not about that with the serial number {serial}")
    })?;
    if !is_by(&about.cert_id, &own, issuer.as_ref())? {
        let issuer = own.tbs_certificate.issuer.to_string();
        return Err(format!(
            "is about a certificate of another issuer, not of {issuer} with the key in its chain"
        ));
    }
    match about.cert_status {
        CertStatus::Good(_) => Ok(about),
        CertStatus::Revoked(info) => {
            Err(format!("says that the certificate was revoked at {}", info.revocation_time.0.to_date_time()))
        }
        CertStatus::Unknown(_) => Err("says that its responder does not know the certificate".to_owned()),
    }
}

fn basic(der: &[u8]) -> Result<BasicOcspResponse, String> {
    // Neither a SEQUENCE nor anything else that could be one.
    if der.first() != Some(&0x30) {
        let is = if der.is_empty() { "is empty" } else { "is not DER" };
        return Err(format!("{is}: expects a response as openssl ocsp -respout writes it"));
    }
    let no_response = |error| format!("is no response of OCSP: {error}");
    let response = OcspResponse::from_der(der).map_err(no_response)?;
    if response.response_status != OcspResponseStatus::Successful {
        return Err(format!(
            "says no more than that its responder had none ({:?})",
            response.response_status
        ));
    }
    let Some(bytes) = response.response_bytes else { return Err("is empty inside".to_owned()) };
    if bytes.response_type != BasicOcspResponse::OID {
        return Err(format!("is of a kind that is not supported ({})", bytes.response_type));
    }
    BasicOcspResponse::from_der(bytes.response.as_bytes()).map_err(no_response)
}

/// Whether it is about a certificate of this one's issuer: by its name, and by its key if its certificate is here
/// (RFC 6960, 4.1.1). With hashes that are not known here, nothing is said against it.
fn is_by(id: &CertId, own: &Certificate, issuer: Option<&Certificate>) -> Result<bool, String> {
    let algorithm: &Algorithm = match id.hash_algorithm.oid {
        ID_SHA_1 => &SHA1_FOR_LEGACY_USE_ONLY,
        ID_SHA_256 => &SHA256,
        _ => return Ok(true),
    };
    let name = own.tbs_certificate.issuer.to_der().map_err(|error| format!("can't be compared: {error}"))?;
    let is = |hash: &[u8], of: &[u8]| digest(algorithm, of).as_ref() == hash;
    let key =
        issuer.map(|issuer| issuer.tbs_certificate.subject_public_key_info.subject_public_key.raw_bytes());
    Ok(is(id.issuer_name_hash.as_bytes(), &name)
        && key.is_none_or(|key| is(id.issuer_key_hash.as_bytes(), key)))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rustls::pki_types::pem::PemObject;

    use super::*;

    /// Made by openssl; make.sh beside them says how.
    const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/ocsp/");
    const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);

    fn der(name: &str) -> Vec<u8> {
        std::fs::read(format!("{FOLDER}{name}")).unwrap()
    }

    fn chain(names: &[&str]) -> Vec<CertificateDer<'static>> {
        names.iter().map(|name| CertificateDer::from_pem_slice(&der(name)).unwrap()).collect()
    }

    #[test]
    fn a_response_about_the_certificate_is_taken() {
        for chain in [chain(&["server.pem"]), chain(&["server.pem", "ca.pem"])] {
            for name in ["good.der", "good-sha256.der", "several.der", "endless.der", "expired.der"] {
                look_at(&der(name), &chain).unwrap_or_else(|problem| panic!("{name} {problem}"));
            }
        }
    }

    #[test]
    fn what_is_of_no_use_is_refused_with_the_cause() {
        let whole = chain(&["server.pem", "ca.pem"]);
        let good = der("good.der");
        let mut last = good.clone();
        last.push(0);
        let rows: [(&[u8], &str); 12] = [
            (b"", "is empty"),
            (b"-----BEGIN OCSP RESPONSE-----\n", "is not DER"),
            (&der("server.pem"), "is not DER"),
            (&good[..good.len() / 2], "is no response of OCSP"),
            (&last, "is no response of OCSP"),
            (&chain(&["server.pem"])[0], "is no response of OCSP"),
            (&vec![0x30; RESPONSE_BYTES_MAX + 1], "is larger than 16384 bytes"),
            // tryLater, and successful with nothing.
            (&[0x30, 3, 10, 1, 3], "had none (TryLater)"),
            (&[0x30, 3, 10, 1, 0], "is empty inside"),
            (&der("other.der"), "is about other certificates"),
            (&der("revoked.der"), "was revoked at 2020-01-01T00:00:00Z"),
            (&der("unknown.der"), "does not know the certificate"),
        ];
        for (der, wanted) in rows {
            let said = look_at(der, &whole).unwrap_err();
            assert!(said.contains(wanted), "{wanted}: {said}");
        }
        let namesake = der("namesake.der");
        assert!(look_at(&namesake, &whole).unwrap_err().contains("of another issuer"));
        assert!(look_at(&namesake, &chain(&["server.pem"])).is_ok(), "its key is not here");
        assert!(look_at(&good, &chain(&["ca.pem"])).unwrap_err().contains("is about other certificates"));
    }

    #[test]
    fn no_byte_that_is_wrong_makes_it_fall_over() {
        let (good, chain) = (der("good.der"), chain(&["server.pem", "ca.pem"]));
        for place in 0..good.len() {
            let mut wrong = good.clone();
            wrong[place] ^= 0xff;
            let _ = look_at(&wrong, &chain);
            let _ = look_at(&good[..place], &chain);
        }
    }

    #[test]
    fn a_response_holds_from_its_time_until_its_next_one() {
        let chain = chain(&["server.pem"]);
        let read = |name: &str, now: SystemTime| read(&format!("{FOLDER}{name}"), &chain, now).unwrap();
        let from = read("good.der", SystemTime::UNIX_EPOCH).time.from;
        let moment = Duration::from_secs(1);
        let rows = [
            ("good.der", from - moment, false, "is not valid before 20"),
            ("good.der", from, true, ""),
            ("good.der", from + 99 * YEAR, true, ""),
            ("good.der", from + 101 * YEAR, false, "good.der\" has expired at 21"),
            ("expired.der", from + 59 * moment, true, ""),
            ("expired.der", from + 61 * moment, false, "expired.der\" has expired at 20"),
            ("endless.der", from + 101 * YEAR, true, ""),
        ];
        for (name, now, holds, wanted) in rows {
            let response = read(name, now);
            let warning = response.warning.unwrap_or_default();
            assert_eq!(response.time.holds(now), holds, "{name}: {warning}");
            assert!(warning.contains(wanted) && warning.is_empty() == holds, "{name}: {warning}");
        }
    }
}
