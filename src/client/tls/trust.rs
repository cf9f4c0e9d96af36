//! Whose certificates are trusted: the system's authorities, or those of `--ca` instead.

use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{Error, RootCertStore};
use x509_cert::der::Encode;
use x509_cert::name::Name;

use super::trouble;

/// Authorities, and how to call them.
#[derive(Debug, Clone)]
pub struct Trust {
    roots: Arc<RootCertStore>,
    /// Such as `146 authorities of the system` or `--ca FILE`.
    name: String,
}

impl Trust {
    /// Those of a file, or those of the system.
    ///
    /// # Errors
    /// There are none, or the file can't be read.
    pub fn of(ca: Option<&Path>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        let Some(path) = ca else {
            let found = rustls_native_certs::load_native_certs();
            let (added, _) = roots.add_parsable_certificates(found.certs);
            if added == 0 {
                let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
                return Err(format!(
                    "this system has no certificates of authorities{why}: install ca-certificates, set SSL_CERT_FILE, \
                     or name one with --ca FILE"
                ));
            }
            return Ok(Self { roots: Arc::new(roots), name: format!("{added} authorities of the system") });
        };
        let name = format!("--ca {}", path.display());
        let wrong = |error: &dyn std::fmt::Display| format!("{name}: {error}");
        let text = std::fs::read(path).map_err(|error| format!("{name}: cannot be read: {error}"))?;
        for certificate in CertificateDer::pem_slice_iter(&text) {
            let certificate = certificate.map_err(|error| wrong(&format!("is broken PEM: {error}")))?;
            roots.add(certificate).map_err(|error| wrong(&error))?;
        }
        if roots.is_empty() {
            return Err(wrong(&"has no certificate; expects PEM (-----BEGIN CERTIFICATE-----)"));
        }
        Ok(Self { roots: Arc::new(roots), name })
    }

    /// How to call them.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether one of them is called so.
    pub(super) fn knows(&self, name: &Name) -> bool {
        let Ok(name) = name.to_der() else { return false };
        // They are kept without the tag and the length in front.
        self.roots.roots.iter().any(|root| name.get(head_bytes(&name)..) == Some(root.subject.as_ref()))
    }

    pub(super) fn verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<WebPkiServerVerifier>, String> {
        WebPkiServerVerifier::builder_with_provider(Arc::clone(&self.roots), Arc::clone(provider))
            .build()
            .map_err(|error| format!("{}: {error}", self.name))
    }
}

/// Bytes of tag and length (X.690, 8.1.3).
fn head_bytes(der: &[u8]) -> usize {
    match der.get(1) {
        Some(&length) if length >= 0x80 => 2 + usize::from(length & 0x7f),
        _ => 2,
    }
}

/// What a client that trusts `trust` says of a chain, its server's own certificate first, when it asks for `name`:
/// nothing, or why it refuses it and what to do.
///
/// # Errors
/// Its refusal, in one line.
pub fn verdict(
    chain: &[CertificateDer<'static>],
    name: &str,
    trust: &Trust,
    now: SystemTime,
) -> Result<(), String> {
    let Some((own, issuers)) = chain.split_first() else { return Err("there is no certificate".to_owned()) };
    let wants = ServerName::try_from(name.to_owned())
        .map_err(|_| format!("{name}: is not a name that a certificate can be for"))?;
    let verifier = trust.verifier(&Arc::new(aws_lc_rs::default_provider()))?;
    let now = UnixTime::since_unix_epoch(now.duration_since(UNIX_EPOCH).unwrap_or_default());
    let verified = verifier.verify_server_cert(own, issuers, &wants, &[], now);
    verified.map(drop).map_err(|error: Error| trouble::explain(&error, name, chain, false))
}
