//! Whose certificates are trusted: the system's authorities, or those of `--ca` instead.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::client::WebPkiServerVerifier;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

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

    pub(super) fn verifier(
        &self,
        provider: &Arc<CryptoProvider>,
    ) -> Result<Arc<WebPkiServerVerifier>, String> {
        WebPkiServerVerifier::builder_with_provider(Arc::clone(&self.roots), Arc::clone(provider))
            .build()
            .map_err(|error| format!("{}: {error}", self.name))
    }
}
