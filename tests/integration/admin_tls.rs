//! The admin port over TLS: it speaks https and nothing else, commands find it, certificates are renewed, and with authorities of
//! operators only those are served whom one of them has signed.

use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::SerialNumber;
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, HandshakeKind};

use crate::client::Answer;
use crate::reload::ConfigFile;
use crate::secure::{Authority, Secure, file, flags, usual};
use crate::server::{Server, command, dial, fails, on_free_ports, wait_for};

const CERTIFICATE: &str = "FANTAIL_ADMIN_TLS_CERTIFICATE";
const KEY: &str = "FANTAIL_ADMIN_TLS_KEY";
const CLIENT_CA: &str = "FANTAIL_ADMIN_TLS_CLIENT_CA";
const CLIENT_CRL: &str = "FANTAIL_ADMIN_TLS_CLIENT_CRL";

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// One whose admin port has the certificate that all tests trust.
fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Server {
    let files = &usual().files;
    let own = [(CERTIFICATE, text(&files.certificate)), (KEY, text(&files.key))];
    Server::start(arguments, &[&own[..], environment].concat())
}

/// Says these bytes without TLS, and hears what is answered.
fn in_the_clear(to: SocketAddr, bytes: &[u8]) -> String {
    let mut stream = dial(to);
    stream.write_all(bytes).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

/// Shakes hands with the admin port; what kind of handshake that was, if a request is answered behind it.
fn ask(admin: SocketAddr, config: &Arc<ClientConfig>) -> Option<HandshakeKind> {
    let mut stream = dial(admin);
    let (mut secure, done) = Secure::new(config, "localhost", &mut stream);
    done.ok()?;
    secure.send(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", &mut stream).ok()?;
    let mut head = [0; 4096];
    let count = secure.read(&mut head, &mut stream).ok()?;
    head[..count].starts_with(b"HTTP/1.1 200 ").then(|| secure.0.handshake_kind())?
}

#[test]
fn it_speaks_https_and_nothing_else() {
    let server = start(&[], &[]);
    let mut peer = server.websocket("/ws/lobby");
    peer.ping_pong();
    assert_eq!(server.publish("lobby", b"over https").status, 200);
    assert_eq!(peer.text(), "over https");
    assert!(server.get("/stats").text().contains("\"admin_tls\":true"));
    assert!(server.get("/").text().starts_with("<!doctype html>"));
    let expires = server.metric("fantail_tls_certificate_expiry_timestamp_seconds", "usual.pem");
    assert!(expires > 1_700_000_000, "{expires}");
    let answer = in_the_clear(server.admin, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("https://"), "{answer}");
    server.await_log("HTTP without TLS on the port of TLS");
    assert_eq!(server.metric("fantail_refusals_total", "\"plain_http\""), 1);
    // The page says so where it tells how to publish.
    if !crate::secure::everywhere() {
        let mut page = server.connect();
        page.send(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
        let page = page.answer();
        assert_eq!(page.field("fantail-admin"), Some(format!("https://{}", server.admin).as_str()));
    }
}

#[test]
fn tls_on_an_admin_port_that_speaks_none_is_told_so() {
    let server = Server::start(&[], &[]);
    let mut stream = dial(server.admin);
    assert!(Secure::new(&usual().client, "localhost", &mut stream).1.is_err());
    server.await_log("TLS on a port that speaks none");
    assert_eq!(server.metric("fantail_refusals_total", "tls_on_plain"), 1);
    assert!(server.get("/stats").text().contains("\"admin_tls\":false"));
}

#[test]
fn a_page_that_came_without_tls_may_not_ask() {
    let server = start(&[], &[]);
    let asked = |origin: &str| -> Answer {
        let origin = format!("Origin: {origin}://{}\r\n", server.admin);
        server.post("/publish/lobby", &origin, b"x")
    };
    assert_eq!(asked("https").status, 200);
    assert_eq!(asked("http").status, 403);
}

#[test]
fn commands_ask_by_https_where_the_server_speaks_it() {
    let server = start(&[], &[]);
    let (ca, admin) = (usual().ca(), server.admin.to_string());
    let https = format!("https://{admin}");
    let succeeds = |arguments: &[&str], environment: &[(&str, &str)]| {
        let output = command(arguments, environment).output().expect("the binary runs");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    assert_eq!(succeeds(&["health", "--admin", &https, "--ca", &ca], &[]), "ok\n");
    assert_eq!(succeeds(&["health", "--ready", "--admin", &https, "--insecure"], &[]), "ready\n");
    assert!(succeeds(&["publish", "--admin", &https, "--ca", &ca, "lobby", "x"], &[]).contains("offset"));
    // The server's own variables and file say it, too.
    let variables = [("FANTAIL_SERVER_ADMIN", admin.as_str()), (CERTIFICATE, "some.pem")];
    assert_eq!(succeeds(&["health", "--ca", &ca], &variables), "ok\n");
    // As a container's check does, which has no flags: any certificate is taken of what the server itself has on this machine.
    let nobody = Authority::new("whom the system knows").file("systems-ca.pem");
    let of_server = [&variables[..], &[("SSL_CERT_FILE", &nobody)]].concat();
    assert_eq!(succeeds(&["health"], &of_server), "ok\n");
    let (code, said) = fails(command(&["health", "--admin", &https], &of_server));
    assert!(code == Some(1) && said.contains("issue"), "{said}");
    assert_eq!(fails(command(&["publish", "lobby", "x"], &of_server)).0, Some(1));
    let config = format!("[server]\nadmin = \"{admin}\"\n[admin]\ntls_certificate = \"some.pem\"\n");
    let config = ConfigFile::new(&config);
    assert_eq!(succeeds(&["health", "--config", config.path(), "--ca", &ca], &[]), "ok\n");
    let other = Authority::new("nobody's").file("nobodys-ca.pem");
    for (arguments, part) in [
        (&["--admin", &https, "--ca", &other][..], "issue"),
        (&["--admin", &format!("http://{admin}")], "https"),
    ] {
        let (code, said) = fails(command(&[&["health"], arguments].concat(), &[]));
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[test]
fn its_certificate_is_renewed_and_whether_it_speaks_tls_stays() {
    let (old, new) = (Authority::new("before"), Authority::new("after"));
    let pair = |authority: &Authority| {
        let (certificate, key) = authority.sign(&["localhost"]);
        certificate + &key
    };
    let place = file("admin-renewed.pem", &pair(&old));
    let tls = format!("tls_certificate = {place:?}\n");
    let config = ConfigFile::new(&format!("[tls]\nwatch_seconds = 0.1\n[admin]\n{tls}"));
    let server = Server::start(&["--loops", "1", "--config", config.path()], &[]);
    let (of_old, of_new) = (old.client(), new.client());
    assert_eq!(ask(server.admin, &of_old), Some(HandshakeKind::Full));
    // One that is of no use changes nothing.
    let replace = |content: &str| {
        let beside = file("admin-renewed.new", content);
        std::fs::rename(beside, &place).expect("the same folder");
    };
    replace("words");
    server.await_log("admin.tls_certificate: ");
    assert!(ask(server.admin, &of_old).is_some());
    replace(&pair(&new));
    server.await_log("the files of certificates have changed");
    wait_for("the new certificate", || ask(server.admin, &of_new).is_some());
    // Whoever takes up a session looks at no certificate; a newcomer does.
    assert!(ask(server.admin, &old.client()).is_none());
    // A port that is bound goes on as it is, and says so.
    config.write("[tls]\nwatch_seconds = 0.1\n");
    server.signal("HUP");
    let line = server.await_log("needs a restart");
    assert!(line.contains("admin.tls_certificate"), "{line}");
    server.await_log("configuration reloaded");
    assert!(ask(server.admin, &of_new).is_some());
}

/// A client of the usual authority that shows a certificate of this one, if any, and takes up sessions.
fn operator(of: Option<&Authority>) -> Arc<ClientConfig> {
    operator_with(of.map(|authority| authority.sign(&["operator.example"])))
}

/// The same with this certificate and key.
fn operator_with(identity: Option<(String, String)>) -> Arc<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    let builder = builder.with_root_certificates(usual().authority.roots());
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<Vec<_>, _>>();
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
            builder.with_client_auth_cert(chain.expect("a chain"), key).expect("a certificate")
        }
    };
    config.resumption = Resumption::in_memory_sessions(64);
    Arc::new(config)
}

#[test]
fn with_authorities_of_operators_only_theirs_are_served() {
    let authority = Authority::new("operators");
    let ca = authority.file("operators.pem");
    let secure = flags(&usual().files);
    let secure: Vec<&str> = secure.iter().map(String::as_str).collect();
    let files = &usual().files;
    let own = [(CERTIFICATE, text(&files.certificate)), (KEY, text(&files.key)), (CLIENT_CA, &ca)];
    let server = Server::start(&secure, &own);
    let known = operator(Some(&authority));
    assert_eq!(ask(server.admin, &known), Some(HandshakeKind::Full));
    assert_eq!(ask(server.admin, &known), Some(HandshakeKind::Resumed));
    assert_eq!(ask(server.admin, &operator(Some(&Authority::new("strangers")))), None);
    // A session of the clients' port, which asks for no certificate, is of no use here.
    let client = operator(None);
    let tls = server.tls.expect("tls= in the ready line");
    let mut stream = dial(tls);
    let (mut session, done) = Secure::new(&client, "localhost", &mut stream);
    done.expect("a handshake");
    session.send(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n", &mut stream).expect("sent");
    assert!(session.read(&mut [0; 64], &mut stream).expect("an answer") > 0);
    assert_eq!(ask(server.admin, &client), None);
    // Commands have flags for it.
    let (certificate, key) = authority.sign(&["operator.example"]);
    let identity = file("operator.pem", &(certificate + &key));
    let admin = format!("https://{}", server.admin);
    let health = ["health", "--admin", &admin, "--ca", &usual().ca()];
    let shown = [&health[..], &["--certificate", text(&identity)]].concat();
    let output = command(&shown, &[]).output().expect("the binary runs");
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(fails(command(&health, &[])).0, Some(1));
}

#[test]
fn an_operator_whose_certificate_was_revoked_is_not_served_even_with_a_ticket() {
    let authority = Authority::new("operators with a list");
    let serial = |number: u64| {
        operator_with(Some(authority.sign_with(&["operator.example"], |params| {
            params.serial_number = Some(SerialNumber::from(number));
        })))
    };
    let (stays, leaves) = (serial(7), serial(8));
    let list = file("operators.crl.pem", &authority.revoke(&[9]));
    let ca = authority.file("operators-with-a-list.pem");
    let server = start(&[], &[(CLIENT_CA, &ca), (CLIENT_CRL, text(&list))]);
    for known in [&stays, &leaves] {
        assert_eq!(ask(server.admin, known), Some(HandshakeKind::Full));
        assert_eq!(ask(server.admin, known), Some(HandshakeKind::Resumed));
    }
    file("operators.crl.pem", &authority.revoke(&[8, 9]));
    server.signal("HUP");
    server.await_log("configuration reloaded");
    assert_eq!(ask(server.admin, &leaves), None);
    assert_eq!(ask(server.admin, &stays), Some(HandshakeKind::Full));
}

#[test]
fn files_that_are_of_no_use_are_refused_by_name_and_cause() {
    let files = &usual().files;
    let (good, good_key) = (text(&files.certificate), text(&files.key));
    for (environment, wanted) in [
        (
            &[(CERTIFICATE, "/nowhere/at.pem")][..],
            "admin.tls_certificate: \"/nowhere/at.pem\" cannot be read",
        ),
        (&[(CERTIFICATE, good)], "admin.tls_key: "),
        (&[(CERTIFICATE, good), (KEY, good_key), (CLIENT_CA, good_key)], "admin.tls_client_ca: "),
        (&[(KEY, good_key)], "expects a key for each certificate, got 1 for 0"),
        (&[(CLIENT_CA, good)], "expects admin.tls_certificate, without which nobody is asked"),
        (&[(CLIENT_CRL, good)], "expects admin.tls_client_ca, without which no operator is asked"),
        (
            &[(CERTIFICATE, good), (KEY, good_key), (CLIENT_CA, good), (CLIENT_CRL, good)],
            "admin.tls_client_crl: ",
        ),
    ] {
        let output = on_free_ports(&[], environment).output().expect("the binary starts");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let said = String::from_utf8(output.stderr).expect("UTF-8");
        assert!(said.contains(wanted), "{wanted}: {said}");
    }
}
