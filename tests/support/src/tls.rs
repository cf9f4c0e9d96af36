//! Both ends of a TLS 1.3 connection in one process, by rustls, and a client that seals whatever a test likes with its keys.
//!
//! What a record layer is compared with, by unit tests and by fuzzing. No sockets.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};

use aws_lc_rs::aead::{self, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hkdf;
use rustls::crypto::{CryptoProvider, aws_lc_rs as backend};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{
    CipherSuite, ClientConfig, ClientConnection, ConnectionTrafficSecrets, ExtractedSecrets, KeyLog,
    RootCertStore, ServerConfig, ServerConnection, SupportedCipherSuite,
};

pub mod quick;

const AUTHORITY: &[u8] = include_bytes!("../../../loadtest/tests/tls/certificates/ca.pem");
const CERTIFICATE: &[u8] = include_bytes!("../../../loadtest/tests/tls/certificates/server.pem");
const KEY: &[u8] = include_bytes!("../../../loadtest/tests/tls/certificates/server.key");

/// The suites of TLS 1.3.
pub const SUITES: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
];

/// A connection whose handshake is finished and whose tickets have arrived.
#[derive(Debug)]
pub struct Pair {
    /// The client's end.
    pub client: ClientConnection,
    /// The server's end.
    pub server: ServerConnection,
}

/// Makes the handshake with this suite alone. `log` is told the server's secrets.
///
/// # Panics
/// rustls does not agree with itself.
#[must_use]
pub fn pair(suite: CipherSuite, log: Arc<dyn KeyLog>) -> Pair {
    let provider = Arc::new(only(suite));
    let mut roots = RootCertStore::empty();
    for authority in CertificateDer::pem_slice_iter(AUTHORITY) {
        roots.add(authority.unwrap()).unwrap();
    }
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain(), PrivateKeyDer::from_pem_slice(KEY).unwrap())
        .unwrap();
    server.enable_secret_extraction = true;
    server.key_log = log;
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    client.enable_secret_extraction = true;
    shake_hands(client, server)
}

/// The backend with this suite alone.
fn only(suite: CipherSuite) -> CryptoProvider {
    let provider = backend::default_provider();
    let only = |all: Vec<SupportedCipherSuite>| all.into_iter().filter(|one| one.suite() == suite).collect();
    CryptoProvider { cipher_suites: only(provider.cipher_suites.clone()), ..provider }
}

fn chain() -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(CERTIFICATE).collect::<Result<_, _>>().unwrap()
}

fn shake_hands(client: ClientConfig, server: ServerConfig) -> Pair {
    let mut pair = Pair {
        client: ClientConnection::new(Arc::new(client), "localhost".try_into().unwrap()).unwrap(),
        server: ServerConnection::new(Arc::new(server)).unwrap(),
    };
    let mut wire = Vec::new();
    while pair.client.is_handshaking() || pair.client.wants_write() || pair.server.wants_write() {
        pass(|out| pair.client.write_tls(out), &mut wire);
        pair.server.read_tls(&mut &wire[..]).unwrap();
        pair.server.process_new_packets().unwrap();
        pass(|out| pair.server.write_tls(out), &mut wire);
        pair.client.read_tls(&mut &wire[..]).unwrap();
        pair.client.process_new_packets().unwrap();
    }
    pair
}

/// Takes all that an end wants to write.
fn pass(mut write: impl FnMut(&mut dyn Write) -> std::io::Result<usize>, wire: &mut Vec<u8>) {
    wire.clear();
    while write(wire).unwrap() > 0 {}
}

/// What a client has, seen from the server: a server can go on with it in the server's place.
///
/// # Panics
/// The client can't give it out.
#[must_use]
pub fn seen_from_the_server(client: ClientConnection) -> ExtractedSecrets {
    let ExtractedSecrets { tx, rx } = client.dangerous_extract_secrets().unwrap();
    ExtractedSecrets { tx: rx, rx: tx }
}

/// Feeds bytes to a server and returns what it has read of data, and why it ended.
pub fn feed(server: &mut ServerConnection, mut wire: &[u8]) -> (Vec<u8>, Option<rustls::Error>) {
    let mut plain = Vec::new();
    while !wire.is_empty() {
        match server.read_tls(&mut wire) {
            Ok(0) | Err(_) => break,
            Ok(_) => {}
        }
        let state = server.process_new_packets();
        let mut piece = [0; 4096];
        while let Ok(count @ 1..) = server.reader().read(&mut piece) {
            plain.extend_from_slice(&piece[..count]);
        }
        if let Err(error) = state {
            return (plain, Some(error));
        }
    }
    (plain, None)
}

/// Hears the traffic secrets of both directions, and hands everything on.
#[derive(Debug)]
pub struct Listener {
    to: Arc<dyn KeyLog>,
    client: Mutex<Vec<u8>>,
}

impl Listener {
    /// One in front of `to`.
    #[must_use]
    pub fn new(to: Arc<dyn KeyLog>) -> Arc<Self> {
        Arc::new(Self { to, client: Mutex::default() })
    }

    /// The client's traffic secret.
    ///
    /// # Panics
    /// Never.
    #[must_use]
    pub fn client(&self) -> Vec<u8> {
        self.client.lock().unwrap().clone()
    }
}

impl KeyLog for Listener {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        if label == "CLIENT_TRAFFIC_SECRET_0" {
            *self.client.lock().unwrap() = secret.to_vec();
        }
        if self.to.will_log(label) {
            self.to.log(label, client_random, secret);
        }
    }
}

/// A client that seals what it likes.
#[derive(Debug)]
pub struct Rogue {
    aead: &'static aead::Algorithm,
    hkdf: hkdf::Algorithm,
    secret: Vec<u8>,
    key: Vec<u8>,
    iv: Vec<u8>,
    /// Of the next record.
    pub sequence: u64,
}

impl Rogue {
    /// One with these keys, which were made of `secret`.
    ///
    /// # Panics
    /// It knows no such suite.
    #[must_use]
    pub fn new(of: &(u64, ConnectionTrafficSecrets), secret: Vec<u8>) -> Self {
        let (sequence, keys) = of;
        let (aead, key, iv) = match keys {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&aead::AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&aead::AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&aead::CHACHA20_POLY1305, key, iv),
            _ => panic!("a suite of its own"),
        };
        let hkdf = if secret.len() == 48 { hkdf::HKDF_SHA384 } else { hkdf::HKDF_SHA256 };
        let (key, iv) = (key.as_ref().to_vec(), iv.as_ref().to_vec());
        Self { aead, hkdf, secret, key, iv, sequence: *sequence }
    }

    /// A record whose protected part is `inner` to the last byte: content, type, padding.
    ///
    /// # Panics
    /// Never, with an `inner` that the AEAD takes.
    pub fn seal(&mut self, inner: &[u8]) -> Vec<u8> {
        let [high, low] = ((inner.len() + 16) as u16).to_be_bytes();
        self.seal_under([23, 3, 3, high, low], inner)
    }

    /// The same under a header of the caller's, which is authenticated as it is.
    ///
    /// # Panics
    /// Never, with an `inner` that the AEAD takes.
    pub fn seal_under(&mut self, header: [u8; 5], inner: &[u8]) -> Vec<u8> {
        let mut nonce: [u8; 12] = self.iv[..].try_into().unwrap();
        nonce.iter_mut().skip(4).zip(self.sequence.to_be_bytes()).for_each(|(byte, of)| *byte ^= of);
        self.sequence += 1;
        let mut record = header.to_vec();
        let mut body = inner.to_vec();
        LessSafeKey::new(UnboundKey::new(self.aead, &self.key).unwrap())
            .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(header), &mut body)
            .unwrap();
        record.append(&mut body);
        record
    }

    /// Goes on with the next generation of its keys.
    ///
    /// # Panics
    /// Never.
    pub fn update(&mut self) {
        self.secret = self.expand(b"traffic upd", self.secret.len());
        self.key = self.expand(b"key", self.key.len());
        self.iv = self.expand(b"iv", self.iv.len());
        self.sequence = 0;
    }

    fn expand(&self, label: &[u8], length: usize) -> Vec<u8> {
        struct Length(usize);
        impl hkdf::KeyType for Length {
            fn len(&self) -> usize {
                self.0
            }
        }
        let mut info = vec![0, length as u8, 6 + label.len() as u8];
        info.extend_from_slice(b"tls13 ");
        info.extend_from_slice(label);
        info.push(0);
        let mut out = vec![0; length];
        let secret = hkdf::Prk::new_less_safe(self.hkdf, &self.secret);
        secret.expand(&[&info], Length(length)).unwrap().fill(&mut out).unwrap();
        out
    }
}
