//! Clients of every kind that rustls can be, each connection with sessions and secrets of its own; and the other form of its
//! server, to compare with.

use std::sync::Arc;

use fantail_test_support::tls::Listener;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, WebPkiServerVerifier};
use rustls::crypto::{ActiveKeyExchange, CryptoProvider, SharedSecret, SupportedKxGroup, aws_lc_rs};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::version::{TLS12, TLS13};
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, NamedGroup, NoKeyLog,
    RootCertStore, ServerConfig, ServerConnection, SignatureScheme,
};

const AUTHORITY: &[u8] = include_bytes!("../../../loadtest/tests/tls/certificates/ca.pem");
const CERTIFICATE: &[u8] = include_bytes!("../../../loadtest/tests/tls/certificates/server.pem");
const KEY: &[u8] = include_bytes!("../../../loadtest/tests/tls/certificates/server.key");

/// All kinds of clients, and the server to compare with.
pub(super) struct Kinds {
    clients: Vec<(ClientConfig, Kind)>,
    server: Arc<ServerConfig>,
}

/// What there is to know of a client.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Its secrets can be had, so that others can go on with it.
    Open,
    Usual,
    /// It shows a certificate that is none for clients, if it is asked for one.
    Shows,
    /// No server here takes it.
    Refused,
}

/// Those who make the connections of one run.
pub(super) struct Client {
    config: Arc<ClientConfig>,
    listener: Arc<Listener>,
    kind: Kind,
}

impl Kinds {
    pub(super) fn new() -> Self {
        let usual = aws_lc_rs::default_provider();
        let mut clients = Vec::new();
        for suite in usual.cipher_suites.iter().filter(|suite| suite.version().version == TLS13.version) {
            let provider = CryptoProvider { cipher_suites: vec![*suite], ..usual.clone() };
            clients.push((config(provider, &[&TLS13], false), Kind::Open));
        }
        clients.push((config(usual.clone(), &[&TLS12], false), Kind::Usual));
        clients.push((config(usual.clone(), &[&TLS12, &TLS13], true), Kind::Shows));
        // Its first share of a key is for a group that the server does not know: it is asked for another (RFC 8446, 4.1.4).
        let kx_groups = [&[&Unknown as &dyn SupportedKxGroup], &usual.kx_groups[..]].concat();
        clients.push((config(CryptoProvider { kx_groups, ..usual.clone() }, &[&TLS13], false), Kind::Usual));
        let mut other = config(usual.clone(), &[&TLS12, &TLS13], false);
        other.alpn_protocols = vec![b"h2".to_vec()];
        clients.push((other, Kind::Refused));
        let mut nameless = config(usual.clone(), &[&TLS13], false);
        nameless.enable_sni = false;
        nameless.alpn_protocols.clear();
        clients.push((nameless, Kind::Usual));
        let mut server = ServerConfig::builder_with_provider(Arc::new(usual))
            .with_protocol_versions(&[&TLS13, &TLS12])
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain(), PrivateKeyDer::from_pem_slice(KEY).expect("a key"))
            .expect("a pair");
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        Self { clients, server: Arc::new(server) }
    }

    /// One that has no sessions yet.
    pub(super) fn client(&self, index: usize) -> Client {
        let (config, kind) = &self.clients[index % self.clients.len()];
        let listener = Listener::new(Arc::new(NoKeyLog {}));
        let mut config = config.clone();
        config.key_log = Arc::clone(&listener) as _;
        config.resumption = Resumption::in_memory_sessions(8);
        Client { config: Arc::new(config), listener, kind: *kind }
    }

    /// What rustls' other form answers to these bytes, and whether it goes no further.
    pub(super) fn first_answer(&self, mut bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut server = ServerConnection::new(Arc::clone(&self.server)).expect("a configuration");
        let mut refused = false;
        while !bytes.is_empty() && !refused {
            let taken = server.read_tls(&mut bytes).is_ok_and(|count| count > 0);
            refused = !taken || server.process_new_packets().is_err();
        }
        let mut answer = Vec::new();
        while server.wants_write() && server.write_tls(&mut answer).is_ok_and(|count| count > 0) {}
        (answer, refused)
    }
}

impl Client {
    pub(super) fn connect(&self) -> ClientConnection {
        let name = "localhost".try_into().expect("a name");
        ClientConnection::new(Arc::clone(&self.config), name).expect("a configuration")
    }

    pub(super) fn gives_secrets(&self) -> bool {
        self.kind == Kind::Open
    }

    /// Whether a server refuses it that asks for certificates, or does not.
    pub(super) fn is_refused(&self, asks: bool) -> bool {
        self.kind == Kind::Refused || asks && self.kind == Kind::Shows
    }

    /// The secret of the connection that was made last.
    pub(super) fn secret(&self) -> Vec<u8> {
        self.listener.client()
    }
}

fn config(
    provider: CryptoProvider,
    versions: &[&'static rustls::SupportedProtocolVersion],
    shows: bool,
) -> ClientConfig {
    let provider = Arc::new(provider);
    let known = Arc::new(Known::new(&provider));
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions);
    let builder = builder.expect("versions").dangerous().with_custom_certificate_verifier(known);
    let mut config = if shows {
        let key = PrivateKeyDer::from_pem_slice(KEY).expect("a key");
        builder.with_client_auth_cert(chain(), key).expect("a pair")
    } else {
        builder.with_no_client_auth()
    };
    config.enable_secret_extraction = true;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

fn chain() -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(CERTIFICATE).collect::<Result<_, _>>().expect("a chain")
}

/// Looks at a chain once, and then takes no other: to look at it again takes half of a client's time. What is
/// signed with its key is verified each time.
#[derive(Debug)]
struct Known {
    chain: Vec<CertificateDer<'static>>,
    by: Arc<WebPkiServerVerifier>,
}

impl Known {
    fn new(provider: &Arc<CryptoProvider>) -> Self {
        let mut roots = RootCertStore::empty();
        for authority in CertificateDer::pem_slice_iter(AUTHORITY) {
            roots.add(authority.expect("PEM")).expect("an authority");
        }
        let by = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider)).build();
        let (chain, by) = (chain(), by.expect("an authority"));
        let (first, others) = chain.split_first().expect("a certificate");
        let name = "localhost".try_into().expect("a name");
        by.verify_server_cert(first, others, &name, &[], UnixTime::now()).expect("good for localhost");
        Self { chain, by }
    }
}

impl ServerCertVerifier for Known {
    fn verify_server_cert(
        &self,
        first: &CertificateDer<'_>,
        others: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let shown = [std::slice::from_ref(first), others].concat();
        let other = rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer);
        if shown == self.chain { Ok(ServerCertVerified::assertion()) } else { Err(other) }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.by.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.by.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.by.supported_verify_schemes()
    }
}

/// A group that nobody else has.
#[derive(Debug)]
struct Unknown;

impl SupportedKxGroup for Unknown {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, rustls::Error> {
        Ok(Box::new(Self))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X448
    }
}

impl ActiveKeyExchange for Unknown {
    fn complete(self: Box<Self>, _: &[u8]) -> Result<SharedSecret, rustls::Error> {
        Err(rustls::Error::General("nobody answers it".to_owned()))
    }

    fn pub_key(&self) -> &[u8] {
        &[7; 56]
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X448
    }
}
