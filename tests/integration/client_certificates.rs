//! Certificates of clients: who is let in with which, what is told of those who are not, and that no ticket carries anybody
//! past rules that have changed.

use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair, SerialNumber, date_time_ymd,
};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, HandshakeKind, SupportedProtocolVersion};

use crate::client::upgrade_request;
use crate::secure::{Authority, Secure, file, flags, usual};
use crate::server::{Server, dial, on_free_ports, wait_for};

const TLS13: &SupportedProtocolVersion = &rustls::version::TLS13;
const TLS12: &SupportedProtocolVersion = &rustls::version::TLS12;
const FAILURES: &str = "fantail_tls_failures_total";

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn start(authority: &str, more: &[(&str, &str)]) -> Server {
    let flags = flags(&usual().files);
    let all: Vec<&str> = flags.iter().map(String::as_str).collect();
    Server::start(&all, &[&[("FANTAIL_TLS_CLIENT_CA", authority)], more].concat())
}

/// A certificate for a device and its key.
fn device(
    authority: &Authority,
    name: &str,
    change: impl FnOnce(&mut CertificateParams),
) -> (String, String) {
    authority.sign_with(&["device.example"], |params| {
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, name);
        change(params);
    })
}

/// A client of the server's authority that shows this certificate, if any.
fn client(shown: Option<&(String, String)>, version: &'static SupportedProtocolVersion) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_protocol_versions(&[version]).expect("a version");
    let builder = builder.with_root_certificates(usual().authority.roots());
    let mut config = match shown {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
            builder.with_client_auth_cert(chain.expect("a chain"), key).expect("a certificate")
        }
    };
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// Connects and upgrades. With TLS 1.3 a client hears only behind its own handshake that its certificate is not taken.
fn try_open(server: &Server, config: &Arc<ClientConfig>) -> Option<(TcpStream, Secure)> {
    let secure = server.tls.expect("tls= in the ready line");
    let mut stream = dial(secure);
    let (mut peer, done) = Secure::new(config, "localhost", &mut stream);
    done.ok()?;
    peer.send(upgrade_request(secure, "/ws/devices", "").as_bytes(), &mut stream).ok()?;
    let mut head = [0; 4096];
    let count = peer.read(&mut head, &mut stream).ok()?;
    head[..count].starts_with(b"HTTP/1.1 101 ").then_some((stream, peer))
}

#[test]
fn a_client_is_known_by_its_certificate_however_its_records_are_kept() {
    let authority = Authority::new("devices");
    let known = device(&authority, "device-7", |_| {});
    let nameless = authority.sign_with(&["device.example"], |params| {
        params.distinguished_name = DistinguishedName::new();
    });
    let ca = file("devices.pem", &authority.issuer.pem());
    for lean in ["false", "true"] {
        let environment = [("FANTAIL_TLS_LEAN", lean), ("FANTAIL_TLS_CLIENT_REQUIRED", "false")];
        let server = start(text(&ca), &environment);
        for (shown, version, subject) in [
            (&known, TLS13, "\"CN=device-7\""),
            (&known, TLS12, "\"CN=device-7\""),
            (&nameless, TLS13, "\"DNS:device.example\""),
        ] {
            let open = try_open(&server, &client(Some(shown), version)).expect("it is let in");
            let listed = format!("\"subject\":{subject}");
            wait_for("whom it names", || server.get("/connections").text().contains(&listed));
            drop(open);
            server.await_metric("fantail_connections", "", |count| count == 0);
        }
        // Nobody is taken for who had the descriptor before.
        let nobody = server.websocket("/ws/devices");
        assert!(!server.get("/connections").text().contains("subject"));
        drop(nobody);
    }
}

#[test]
fn certificates_that_are_not_right_are_counted_by_what_is_wrong() {
    let authority = Authority::new("those who may");
    let stranger = Authority::new("those who may not");
    let serial = |number: u64| {
        move |params: &mut CertificateParams| {
            params.serial_number = Some(SerialNumber::from(number));
        }
    };
    let revoked = device(&authority, "revoked", serial(4_711));
    let expired = device(&authority, "expired", |params| {
        params.not_before = date_time_ymd(2001, 1, 1);
        params.not_after = date_time_ymd(2002, 1, 1);
    });
    let server_only = device(&authority, "a server", |params| {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    });
    let crl = authority.revoke(&[4_711]);
    let (ca, crl) = (file("may.pem", &authority.issuer.pem()), file("revoked.crl.pem", &crl));
    let server = start(text(&ca), &[("FANTAIL_TLS_CLIENT_CRL", text(&crl))]);
    let rows = [
        (None, "missing"),
        (Some(device(&stranger, "device-7", |_| {})), "untrusted"),
        (Some(expired), "expired"),
        (Some(revoked), "revoked"),
        (Some(server_only), "invalid"),
    ];
    for (shown, reason) in &rows {
        for (version, wanted) in [(TLS12, 1), (TLS13, 2)] {
            assert!(try_open(&server, &client(shown.as_ref(), version)).is_none(), "{reason}");
            let label = format!("\"client_certificate_{reason}\"");
            server.await_metric(FAILURES, &label, |count| count == wanted);
        }
    }
    let right = device(&authority, "device-8", serial(4_712));
    assert!(try_open(&server, &client(Some(&right), TLS13)).is_some());
    // Who need not show one may come without, and still not with a wrong one.
    let environment = [("FANTAIL_TLS_CLIENT_REQUIRED", "false"), ("FANTAIL_TLS_CLIENT_CRL", text(&crl))];
    let server = start(text(&ca), &environment);
    for (shown, reason) in &rows {
        let open = try_open(&server, &client(shown.as_ref(), TLS13));
        assert_eq!(open.is_some(), shown.is_none(), "{reason}");
    }
}

#[test]
fn what_an_authority_has_signed_is_taken_behind_its_end_which_is_told() {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "an old authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    (params.not_before, params.not_after) = (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
    let key = KeyPair::generate().expect("a key");
    let old = Authority { issuer: CertifiedIssuer::self_signed(params, key).expect("a certificate") };
    let young = Authority::new("a young authority");
    // Of several in a file the first to expire counts.
    let both = file("old-and-young.pem", &(young.issuer.pem() + &old.issuer.pem()));
    let server = start(text(&both), &[]);
    for authority in [&old, &young] {
        let right = device(authority, "device-7", |_| {});
        assert!(try_open(&server, &client(Some(&right), TLS13)).is_some());
    }
    let name = "fantail_tls_client_ca_expiry_timestamp_seconds";
    assert_eq!(server.metric(name, "old-and-young.pem"), 1_009_843_200);
}

#[test]
fn no_ticket_carries_anybody_past_other_rules() {
    let (old, new) = (Authority::new("old devices"), Authority::new("new devices"));
    let ca = file("turning.pem", &old.issuer.pem());
    let server = start(text(&ca), &[("FANTAIL_TLS_WATCH_SECONDS", "0")]);
    let config = |authority: &Authority| {
        let mut config = client(Some(&device(authority, "device-7", |_| {})), TLS13).as_ref().clone();
        config.resumption = Resumption::in_memory_sessions(64);
        Arc::new(config)
    };
    let (of_old, of_new) = (config(&old), config(&new));
    let first = try_open(&server, &of_old).expect("it is let in");
    let (_, again) = try_open(&server, &of_old).expect("it is let in again");
    assert_eq!(again.0.handshake_kind(), Some(HandshakeKind::Resumed));
    wait_for("whom it names", || server.get("/connections").text().matches("\"CN=device-7\"").count() == 1);
    // A reload that changes no rule leaves tickets as they are.
    server.signal("HUP");
    server.await_log("configuration reloaded");
    let (_, again) = try_open(&server, &of_old).expect("it is let in again");
    assert_eq!(again.0.handshake_kind(), Some(HandshakeKind::Resumed));
    file("turning.pem", &new.issuer.pem());
    server.signal("HUP");
    server.await_log("configuration reloaded");
    wait_for("the new rules", || (0..8).all(|_| try_open(&server, &of_new).is_some()));
    assert!(try_open(&server, &of_old).is_none(), "its ticket is of no use any more");
    server.await_metric(FAILURES, "client_certificate_untrusted", |count| count > 0);
    // Who is connected stays.
    let (mut stream, mut peer) = first;
    peer.send(&crate::client::frame(fantail::wire::frame::Opcode::Ping, b"still"), &mut stream)
        .expect("sent");
    let mut heard = [0; 64];
    let count = peer.read(&mut heard, &mut stream).expect("a pong");
    assert!(heard[..count].ends_with(b"still"));
}

#[test]
fn files_for_clients_that_are_of_no_use_are_refused_by_name_and_cause() {
    let authority = Authority::new("files for clients");
    let good = file("clients-good.pem", &authority.issuer.pem());
    let empty = file("clients-empty.pem", "");
    let rows = [
        (text(&empty), "", "tls.client_ca: ", "clients-empty.pem\" is empty"),
        ("/nowhere/ca.pem", "", "tls.client_ca: ", "ca.pem\" cannot be read"),
        (text(&good), text(&good), "tls.client_crl: ", "has no list of revoked certificates"),
        (text(&good), "/nowhere/crl.pem", "tls.client_crl: ", "crl.pem\" cannot be read"),
        ("", text(&good), "client_crl", "expects tls.client_ca"),
    ];
    for (ca, crl, key, wanted) in rows {
        let flags = flags(&usual().files);
        let all: Vec<&str> = flags.iter().map(String::as_str).collect();
        let environment = [("FANTAIL_TLS_CLIENT_CA", ca), ("FANTAIL_TLS_CLIENT_CRL", crl)];
        let output = on_free_ports(&all, &environment).output().expect("the binary starts");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(said.contains(key) && said.contains(wanted), "{wanted}: {said}");
    }
}
