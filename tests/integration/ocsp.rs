//! Responses of OCSP that go with a certificate: sent as they are in the file, renewed with it, left out when they have
//! expired, and refused where they are of no use.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, SupportedProtocolVersion,
};

use crate::reload::ConfigFile;
use crate::secure::{Authority, Secure, file};
use crate::server::{Server, dial, on_free_ports, wait_for};

const METRIC: &str = "fantail_tls_ocsp_expiry_timestamp_seconds";

fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/ocsp/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Judges certificates as every client of tests does, and remembers the last response that came with one.
#[derive(Debug)]
struct Listening {
    judge: Arc<WebPkiServerVerifier>,
    heard: Mutex<Option<Vec<u8>>>,
}

impl ServerCertVerifier for Listening {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.heard.lock().expect("no panic") = Some(ocsp.to_vec());
        self.judge.verify_server_cert(own, chain, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.judge.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.judge.supported_verify_schemes()
    }
}

/// The response that comes with the certificate in a full handshake, which must work; empty if none does.
fn stapled(
    server: &Server,
    roots: &Arc<RootCertStore>,
    version: &'static SupportedProtocolVersion,
    name: &str,
) -> Vec<u8> {
    let provider = Arc::new(aws_lc_rs::default_provider());
    let judge = WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(&provider));
    let judge = judge.build().expect("a verifier");
    let listening = Arc::new(Listening { judge, heard: Mutex::new(None) });
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]);
    let builder = builder.expect("a version").dangerous();
    let verifier: Arc<dyn ServerCertVerifier> = listening.clone();
    let config = Arc::new(builder.with_custom_certificate_verifier(verifier).with_no_client_auth());
    let mut stream = dial(server.tls.expect("tls= in the ready line"));
    Secure::new(&config, name, &mut stream).1.expect("a handshake");
    listening.heard.lock().expect("no panic").take().expect("a certificate")
}

/// Puts a response in a file's place, at once.
fn put(name: &str, place: &Path) -> Vec<u8> {
    let response = std::fs::read(fixture(name)).expect("a fixture");
    let beside = place.with_extension("new");
    std::fs::write(&beside, &response).expect("a file");
    std::fs::rename(&beside, place).expect("a rename");
    response
}

#[test]
fn a_response_goes_with_its_certificate_while_it_holds() {
    let authority = Authority::new("without responses");
    let (certificate, key) = authority.sign(&["first.example"]);
    let first = file("ocsp-first.pem", &(certificate + &key));
    let mut roots = authority.roots();
    roots.add(CertificateDer::from_pem_file(fixture("ca.pem")).expect("a certificate")).expect("a root");
    let roots = Arc::new(roots);
    let place: PathBuf = file("ocsp-staple.der", "");
    let good = put("good.der", &place);
    let config = ConfigFile::new(&format!(
        "[tls]\ncertificate = [{first:?}, {:?}]\nocsp = [\"\", {place:?}]\nwatch_seconds = 0.1\n",
        fixture("server.pem")
    ));
    let server =
        Server::start(&["--tls-listen", "127.0.0.1:0", "--loops", "1", "--config", config.path()], &[]);
    let (tls12, tls13) = (&rustls::version::TLS12, &rustls::version::TLS13);
    for version in [tls12, tls13] {
        assert!(stapled(&server, &roots, version, "localhost") == good, "{version:?}");
        assert!(stapled(&server, &roots, version, "first.example").is_empty(), "{version:?}");
    }
    assert!(server.metric(METRIC, "ocsp-staple.der") > 4_000_000_000);
    // One that has expired is taken, and not sent.
    put("expired.der", &place);
    server.await_log("has expired at ");
    for version in [tls12, tls13] {
        wait_for("no response", || stapled(&server, &roots, version, "localhost").is_empty());
    }
    server.await_metric(METRIC, "ocsp-staple.der", |expires| expires < 4_000_000_000);
    // One that is of no use changes nothing.
    let newer = put("good-sha256.der", &place);
    wait_for("a newer response", || stapled(&server, &roots, tls13, "localhost") == newer);
    put("other.der", &place);
    server.await_log("is about other certificates");
    assert!(stapled(&server, &roots, tls13, "localhost") == newer);
}

#[test]
fn responses_that_are_of_no_use_are_refused_by_name_and_cause() {
    let certificate = fixture("server.pem");
    for (ocsp, wanted) in [
        (fixture("revoked.der"), "revoked.der\" says that the certificate was revoked at 2020-01-01"),
        ("/nowhere/at.der".to_owned(), "at.der\" cannot be read"),
        ("a.der,b.der".to_owned(), "expects a response for each certificate or \"\", got 2 for 1"),
    ] {
        let flags = ["--tls-listen", "127.0.0.1:0", "--tls-certificate", &certificate];
        let output =
            on_free_ports(&flags, &[("FANTAIL_TLS_OCSP", &ocsp)]).output().expect("the binary starts");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(said.contains("ocsp") && said.contains(wanted), "{wanted}: {said}");
    }
}
