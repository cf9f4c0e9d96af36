//! What a server needs to answer a ClientHello: certificates by name, versions, suites, tickets.
//!
//! Made on the main thread or the one that reads a reload, and given to the loops as it is. Never on a loop.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::{TLS12, TLS13};
use rustls::{CipherSuite, Error, ServerConfig, SupportedCipherSuite};

use super::certificate::{self, CertificateError, Identity, KeyNames};
use super::clients::{AuthorityFacts, ClientFiles, Clients};
use super::key_log::{SecretsOut, Written};
use super::ocsp::{self, Response};
use super::record::TrafficKeyLog;
use super::sent::Sent;
use super::tickets::Tickets;

/// The files of a configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources {
    /// The server's own, at least one.
    pub certificates: Vec<Files>,
    /// Those for clients.
    pub clients: ClientFiles,
    /// What errors call their keys.
    pub names: KeyNames,
}

/// A pair of files, and what may go with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate and its chain.
    pub certificate: String,
    /// Its key.
    pub key: String,
    /// A response of OCSP that is sent with it.
    pub ocsp: Option<String>,
}

/// What handshakes are answered with.
#[derive(Debug)]
pub struct TlsConfig {
    pub(super) server: Arc<ServerConfig>,
    /// The certificates, in the order of the files.
    pub certificates: Vec<CertificateFacts>,
    /// The files of the authorities of clients.
    pub authorities: Vec<AuthorityFacts>,
}

/// What there is to say of a certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Its file.
    pub file: String,
    /// Whom it names.
    pub subject: String,
    /// Names that it is for.
    pub names: Vec<String>,
    /// When the first of its chain expires.
    pub expires: SystemTime,
    /// What clients may stumble over.
    pub warning: Option<String>,
    /// The response of OCSP that is sent with it.
    pub ocsp: Option<OcspFacts>,
}

/// What there is to say of a response of OCSP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OcspFacts {
    /// Its file.
    pub file: String,
    /// When it expires, if it does.
    pub expires: Option<SystemTime>,
    /// Why it was not sent when it was read.
    pub warning: Option<String>,
}

impl CertificateFacts {
    fn of(files: &Files, identity: &Identity, response: Option<&Response>) -> Self {
        let ocsp = files.ocsp.clone().zip(response).map(|(file, response)| OcspFacts {
            file,
            expires: response.time.until,
            warning: response.warning.clone(),
        });
        Self {
            file: files.certificate.clone(),
            subject: identity.subject.clone(),
            names: identity.names.clone(),
            expires: identity.expires,
            warning: identity.warning.clone(),
            ocsp,
        }
    }

    /// Whole days until it expires; negative once it has.
    #[must_use]
    pub fn days_left(&self, now: SystemTime) -> i64 {
        const DAY_SECONDS: u64 = 24 * 60 * 60;
        let days = |time: Duration| i64::try_from(time.as_secs() / DAY_SECONDS).unwrap_or(i64::MAX);
        match self.expires.duration_since(now) {
            Ok(left) => days(left),
            Err(over) => -1 - days(over.duration()),
        }
    }
}

impl TlsConfig {
    /// Reads the files. `lean`: connections of TLS 1.3 are kept as plain data behind their handshake.
    ///
    /// # Errors
    /// What is wrong with which of them.
    pub fn read(
        sources: &Sources,
        tickets: &Tickets,
        lean: bool,
        now: SystemTime,
    ) -> Result<Self, CertificateError> {
        let mut by_name = ByName::default();
        let mut certificates = Vec::with_capacity(sources.certificates.len());
        for files in &sources.certificates {
            let identity = certificate::read(&files.certificate, &files.key, &sources.names, now)?;
            let read = |file: &String| ocsp::read(file, &identity.key.cert, now);
            let response = files.ocsp.as_ref().map(read).transpose()?;
            certificates.push(CertificateFacts::of(files, &identity, response.as_ref()));
            by_name.add(identity, files.ocsp.clone().zip(response));
        }
        let clients = Clients::read(&sources.clients, &sources.names)?;
        let useless = |error: Error| CertificateError {
            key: sources.names.certificate,
            file: String::new(),
            problem: format!("is of no use: {error}"),
        };
        let mut provider = aws_lc_rs::default_provider();
        // Stable: the others stay in the order of their makers.
        provider.cipher_suites.sort_by_key(|suite| !is_first(*suite));
        let builder =
            ServerConfig::builder_with_provider(Arc::new(provider)).with_protocol_versions(&[&TLS13, &TLS12]);
        let builder = builder.map_err(useless)?.with_client_cert_verifier(clients.verifier);
        let mut server = builder.with_cert_resolver(Arc::new(by_name));
        // A client that offers ALPN and not this gets no_application_protocol (RFC 7301, 3.2).
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        server.ignore_client_order = true;
        server.ticketer = tickets.keys(&clients.mark).map_err(useless)?;
        // Each connection gets one, and so has the client that resumed it: a second is for who connects twice at a time.
        server.send_tls13_tickets = 1;
        // Tickets need no store here; sessions without (RFC 5246, 7.4.1.2) would be one loop's, and 256 of them.
        server.session_storage = Arc::new(NoServerSessionStorage {});
        if lean {
            // All that is needed to go on without rustls.
            server.enable_secret_extraction = true;
            server.key_log = Arc::new(TrafficKeyLog);
        }
        Ok(Self { server: Arc::new(server), certificates, authorities: clients.authorities })
    }
}

impl TlsConfig {
    /// Has the secrets of its connections written down.
    #[must_use]
    pub fn with_secrets_to(self, to: &Arc<SecretsOut>) -> Self {
        let mut server = self.server.as_ref().clone();
        let also = Arc::clone(&server.key_log);
        server.key_log = Arc::new(Written { to: Arc::clone(to), also });
        Self { server: Arc::new(server), ..self }
    }
}

/// Whether a suite goes before what the client would rather have: TLS_AES_128_GCM_SHA256, which every client must know
/// (RFC 8446, 9.1). Of a handshake with SHA-384 that is a quarter, and most clients ask for it first (decision 0200).
fn is_first(suite: SupportedCipherSuite) -> bool {
    suite.suite() == CipherSuite::TLS13_AES_128_GCM_SHA256
}

/// Chooses a certificate by the name that the client asks for (RFC 6066, 3), among those whose kind of key it knows.
#[derive(Debug, Default)]
struct ByName {
    certificates: Vec<Sent>,
    /// Which are for a name; `*.` in front stands for one label.
    of_name: HashMap<String, Vec<usize>>,
}

impl ByName {
    fn add(&mut self, identity: Identity, response: Option<(String, Response)>) {
        for name in identity.names {
            self.of_name.entry(name).or_default().push(self.certificates.len());
        }
        self.certificates.push(Sent::new(identity.key, response));
    }

    fn named(&self, name: &str) -> impl Iterator<Item = &Sent> {
        let name = name.to_ascii_lowercase();
        // RFC 6125, 6.4.3: the star stands for the leftmost label alone.
        let wild = name.split_once('.').map(|(_, parent)| format!("*.{parent}"));
        let places = |name: &str| self.of_name.get(name).map(Vec::as_slice).unwrap_or_default();
        let exact = places(&name);
        let wild = wild.as_deref().map(places).unwrap_or_default();
        exact.iter().chain(wild).filter_map(|&place| self.certificates.get(place))
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let fits = |one: &&Sent| one.key().choose_scheme(hello.signature_schemes()).is_some();
        let named = hello.server_name().and_then(|name| self.named(name).find(fits));
        // Who names nobody, or somebody unknown, gets the first: it can say better than we what it makes of that.
        named.or_else(|| self.certificates.iter().find(fits)).map(|one| one.at(SystemTime::now()))
    }
}
