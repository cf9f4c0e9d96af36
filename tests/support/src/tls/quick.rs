//! A handshake that costs little and is the same each time: for those who try many records and no handshakes.
//!
//! What takes the time of one is not done: nothing is exchanged, signed or verified. What follows is rustls' own, with its
//! key schedule and its AEADs. Randomness is counted, so that both ends come to the same keys whenever they are made
//! anew, and what was found once is found again. Worth nothing as cryptography.

use std::cell::Cell;
use std::sync::{Arc, LazyLock};

use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, Signer, SigningKey, SingleCertAndKey};
use rustls::{
    CipherSuite, ClientConfig, DigitallySignedStruct, Error, KeyLog, NamedGroup, ServerConfig,
    SignatureAlgorithm, SignatureScheme,
};

use super::{Pair, SUITES, chain, only, shake_hands};

const SCHEME: SignatureScheme = SignatureScheme::ECDSA_NISTP256_SHA256;

static ENDS: LazyLock<[(ServerConfig, ClientConfig); 3]> = LazyLock::new(|| SUITES.map(ends));

thread_local! {
    static COUNTED: Cell<u64> = const { Cell::new(0) };
}

/// As [`super::pair`], for next to nothing. `log` is told the server's secrets, which are the same for all pairs of a suite.
///
/// # Panics
/// It knows no such suite.
#[must_use]
pub fn pair(suite: CipherSuite, log: Arc<dyn KeyLog>) -> Pair {
    COUNTED.set(0);
    let index = SUITES.iter().position(|one| *one == suite).expect("a suite of TLS 1.3");
    let (mut server, client) = ENDS[index].clone();
    server.key_log = log;
    shake_hands(client, server)
}

fn ends(suite: CipherSuite) -> (ServerConfig, ClientConfig) {
    let provider =
        Arc::new(CryptoProvider { kx_groups: vec![&Given], secure_random: &Counted, ..only(suite) });
    let certified = CertifiedKey::new(chain(), Arc::new(Unsigned));
    let mut server = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)));
    server.enable_secret_extraction = true;
    let mut client = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Unsigned))
        .with_no_client_auth();
    client.resumption = Resumption::disabled();
    client.enable_secret_extraction = true;
    (server, client)
}

/// Numbers in a row.
#[derive(Debug)]
struct Counted;

impl SecureRandom for Counted {
    fn fill(&self, room: &mut [u8]) -> Result<(), GetRandomFailed> {
        for piece in room.chunks_mut(8) {
            COUNTED.set(COUNTED.get() + 1);
            piece.copy_from_slice(&COUNTED.get().to_le_bytes()[..piece.len()]);
        }
        Ok(())
    }
}

/// A group with one secret, that everybody knows.
#[derive(Debug)]
struct Given;

impl SupportedKxGroup for Given {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        Ok(Box::new(Self))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

impl ActiveKeyExchange for Given {
    fn complete(self: Box<Self>, _: &[u8]) -> Result<SharedSecret, Error> {
        Ok(SharedSecret::from(&[7; 32][..]))
    }

    fn pub_key(&self) -> &[u8] {
        &[9; 32]
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

/// Signs everything alike, and believes that.
#[derive(Debug)]
struct Unsigned;

impl SigningKey for Unsigned {
    fn choose_scheme(&self, _: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        Some(Box::new(Self))
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        SignatureAlgorithm::ECDSA
    }
}

impl Signer for Unsigned {
    fn sign(&self, _: &[u8]) -> Result<Vec<u8>, Error> {
        Ok(vec![0; 70])
    }

    fn scheme(&self) -> SignatureScheme {
        SCHEME
    }
}

impl ServerCertVerifier for Unsigned {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SCHEME]
    }
}

#[cfg(test)]
mod tests {
    use rustls::NoKeyLog;

    use super::*;
    use crate::tls::Listener;

    #[test]
    fn both_ends_come_to_the_same_keys_each_time() {
        for suite in SUITES {
            let mut secrets = Vec::new();
            for _ in 0..2 {
                let listener = Listener::new(Arc::new(NoKeyLog {}));
                let pair = pair(suite, Arc::clone(&listener) as _);
                assert_eq!(pair.server.negotiated_cipher_suite().unwrap().suite(), suite);
                secrets.push(listener.client());
            }
            assert!(!secrets[0].is_empty() && secrets[0] == secrets[1], "{suite:?}");
        }
    }
}
