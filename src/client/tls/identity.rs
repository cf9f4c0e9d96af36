//! Certificates and keys out of files: the client's own, for servers that ask for one, and those that are looked at.

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
    let (text, named) = file("--certificate", path)?;
    let chain = chain_of(&text, &named)?;
    if let Some(path) = key {
        let (text, named) = file("--key", path)?;
        let key = key_of(&text, &named)?.ok_or_else(|| keyless(&named))?;
        return Ok(Some((chain, key)));
    }
    match key_of(&text, &named)? {
        Some(key) => Ok(Some((chain, key))),
        None => Err(format!("{named}: has no private key; name its file with --key")),
    }
}

/// What a file has, and how errors call it: `what` and its path.
pub(super) fn file(what: &str, path: &Path) -> Result<(Vec<u8>, String), String> {
    let named = format!("{what} {}", path.display());
    match std::fs::read(path) {
        Ok(text) => Ok((text, named)),
        Err(error) => Err(format!("{named}: cannot be read: {error}")),
    }
}

/// Every certificate of a file, of which there has to be one.
pub(super) fn chain_of(text: &[u8], named: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let chain: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(text).collect();
    let chain = chain.map_err(|error| format!("{named}: is broken PEM: {error}"))?;
    if chain.is_empty() {
        return Err(format!("{named}: has no certificate; expects PEM (-----BEGIN CERTIFICATE-----)"));
    }
    Ok(chain)
}

/// The key of a file that may have one.
pub(super) fn key_of(text: &[u8], named: &str) -> Result<Option<PrivateKeyDer<'static>>, String> {
    let has = |what: &str| text.windows(what.len()).any(|window| window == what.as_bytes());
    if has("-----BEGIN ENCRYPTED PRIVATE KEY-----") || has("Proc-Type: 4,ENCRYPTED") {
        return Err(format!("{named}: is encrypted; decrypt it with openssl pkey -in FILE -out FILE"));
    }
    match PrivateKeyDer::from_pem_slice(text) {
        Ok(key) => Ok(Some(key)),
        Err(pem::Error::NoItemsFound) => Ok(None),
        Err(error) => Err(format!("{named}: is broken PEM: {error}")),
    }
}

/// That a file has no key.
pub(super) fn keyless(named: &str) -> String {
    format!("{named}: has no private key; expects PEM (-----BEGIN PRIVATE KEY-----)")
}
