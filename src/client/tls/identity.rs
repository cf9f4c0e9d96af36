//! The client's own certificate, for servers that ask for one.

use std::path::Path;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

type Identity = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// Reads both; a key may stand in the file of its certificate. No certificate, no identity.
pub(super) fn read(certificate: Option<&Path>, key: Option<&Path>) -> Result<Option<Identity>, String> {
    let Some(path) = certificate else {
        return match key {
            None => Ok(None),
            Some(_) => Err("--key: is of no use without --certificate".to_owned()),
        };
    };
    let named = format!("--certificate {}", path.display());
    let text = std::fs::read(path).map_err(|error| format!("{named}: cannot be read: {error}"))?;
    let chain: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&text).collect();
    let chain = chain.map_err(|error| format!("{named}: is broken PEM: {error}"))?;
    if chain.is_empty() {
        return Err(format!("{named}: has no certificate; expects PEM (-----BEGIN CERTIFICATE-----)"));
    }
    let (text, named) = match key {
        None => (text, named),
        Some(path) => {
            let named = format!("--key {}", path.display());
            (std::fs::read(path).map_err(|error| format!("{named}: cannot be read: {error}"))?, named)
        }
    };
    let has = |what: &str| text.windows(what.len()).any(|window| window == what.as_bytes());
    if has("-----BEGIN ENCRYPTED PRIVATE KEY-----") || has("Proc-Type: 4,ENCRYPTED") {
        return Err(format!("{named}: is encrypted; decrypt it with openssl pkey -in FILE -out FILE"));
    }
    match PrivateKeyDer::from_pem_slice(&text) {
        Ok(key) => Ok(Some((chain, key))),
        Err(pem::Error::NoItemsFound) if key.is_none() => {
            Err(format!("{named}: has no private key; name its file with --key"))
        }
        Err(pem::Error::NoItemsFound) => {
            Err(format!("{named}: has no private key; expects PEM (-----BEGIN PRIVATE KEY-----)"))
        }
        Err(error) => Err(format!("{named}: is broken PEM: {error}")),
    }
}
