//! Which certificates of clients are taken: those that an authority of the operator's has signed and not revoked.
//!
//! Read with the server's own certificates by [`super::config`], and never on a loop: files may block. Who signs is judged
//! by webpki, as rustls does it.

use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use ::aws_lc_rs::digest::{Context, SHA256};
use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::certificate::{Asked, CertificateError, KeyNames, chain_of, fail, read_file};

/// Bytes of a client's name that are kept.
const SUBJECT_BYTES_MAX: usize = 512;

/// Whose certificates are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientFiles {
    /// PEM files with the authorities that sign them; none: nobody is asked.
    pub authorities: Vec<String>,
    /// PEM files with lists of those that were revoked.
    pub revoked: Vec<String>,
    /// Who has none is not served.
    pub required: bool,
}

/// How certificates of clients are judged.
pub(super) struct Clients {
    pub(super) verifier: Arc<dyn ClientCertVerifier>,
    /// Other rules have another mark.
    pub(super) mark: Vec<u8>,
    /// The files of the authorities, in their order.
    pub(super) authorities: Vec<AuthorityFacts>,
}

/// What there is to say of a file with authorities of clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorityFacts {
    /// The file.
    pub file: String,
    /// Whom those in it name.
    pub subjects: Vec<String>,
    /// When the first of them expires. What they have signed is taken afterwards, too: only the times of the clients' own
    /// certificates are looked at, and those of what stands between.
    pub expires: SystemTime,
}

impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clients")
    }
}

impl Clients {
    /// Reads the files. Nobody is asked where there are none.
    ///
    /// # Errors
    /// What is wrong with which of them.
    pub(super) fn read(files: &ClientFiles, names: &KeyNames) -> Result<Self, CertificateError> {
        let (ca, crl) = (names.client_ca, names.client_crl);
        let Some(first) = files.authorities.first() else {
            let verifier = WebPkiClientVerifier::no_client_auth();
            return Ok(Self { verifier, mark: Vec::new(), authorities: Vec::new() });
        };
        let mut mark = Context::new(&SHA256);
        mark.update(&[u8::from(files.required)]);
        let mut roots = RootCertStore::empty();
        let mut authorities = Vec::with_capacity(files.authorities.len());
        for file in &files.authorities {
            let chain = chain_of(&read_file(ca, file)?).map_err(|problem| fail(ca, file, problem))?;
            authorities.extend(facts_of(file, &chain));
            for der in chain {
                mark.update(&der);
                let added = roots.add(der);
                added.map_err(|error| {
                    fail(ca, file, format!("has an authority that is of no use: {error}"))
                })?;
            }
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
        for file in &files.revoked {
            let text = read_file(crl, file)?;
            let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&text).collect();
            let lists = lists.map_err(|error| fail(crl, file, format!("is broken PEM: {error}")))?;
            if lists.is_empty() {
                let problem = "has no list of revoked certificates: expects -----BEGIN X509 CRL-----";
                return Err(fail(crl, file, problem.to_owned()));
            }
            // Each by itself, so that the file is named.
            for list in lists {
                mark.update(&list);
                builder = builder.with_crls([list]);
                builder.clone().build().map_err(|error| fail(crl, file, format!("is of no use: {error}")))?;
            }
        }
        // An authority without a list revokes nothing.
        builder = builder.allow_unknown_revocation_status();
        if !files.required {
            builder = builder.allow_unauthenticated();
        }
        let verifier = builder.build().map_err(|error| fail(ca, first, format!("is of no use: {error}")))?;
        Ok(Self { verifier, mark: mark.finish().as_ref().to_vec(), authorities })
    }
}

/// What there is to say of a file's authorities, of those that can be read.
fn facts_of(file: &str, chain: &[CertificateDer<'_>]) -> Option<AuthorityFacts> {
    let parsed: Vec<Certificate> = chain.iter().filter_map(|der| Certificate::from_der(der).ok()).collect();
    let expires = parsed.iter().map(Asked::ends).min()?;
    Some(AuthorityFacts {
        file: file.to_owned(),
        subjects: parsed.iter().map(Asked::subject).collect(),
        expires,
    })
}

/// Whom a certificate names: its subject, or if that is empty the first of its other names (RFC 5280, 4.1.2.6).
pub(super) fn subject_of(der: &CertificateDer<'_>) -> Option<Box<str>> {
    let certificate = Certificate::from_der(der).ok()?;
    let mut subject = certificate.tbs_certificate.subject.to_string();
    if subject.is_empty() {
        let (_, names) = certificate.tbs_certificate.get::<SubjectAltName>().ok()??;
        subject = names.0.iter().find_map(|name| match name {
            GeneralName::DnsName(name) => Some(format!("DNS:{}", name.as_str())),
            GeneralName::Rfc822Name(name) => Some(format!("email:{}", name.as_str())),
            GeneralName::UniformResourceIdentifier(name) => Some(format!("URI:{}", name.as_str())),
            _ => None,
        })?;
    }
    if subject.len() > SUBJECT_BYTES_MAX {
        let end = (0..=SUBJECT_BYTES_MAX).rev().find(|&end| subject.is_char_boundary(end));
        subject.truncate(end.unwrap_or(0));
        subject.push('…');
    }
    Some(subject.into())
}
