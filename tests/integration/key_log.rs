//! Secrets of connections that are written down: all of them and those of clients only where that was asked for, and nothing
//! otherwise, whatever variables say.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, KeyLog, SupportedProtocolVersion};

use crate::secure::{Secure, file, flags, usual};
use crate::server::{Server, command, dial, fails, wait_for};

/// What a client knows of its own connections.
#[derive(Debug, Default)]
struct Own(Mutex<Vec<String>>);

impl KeyLog for Own {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        let line = format!("{label} {} {}", hex(client_random), hex(secret));
        self.0.lock().expect("no panic").push(line);
    }
}

/// Shakes hands, and says what the client's own log has.
fn shake(server: &Server, version: &'static SupportedProtocolVersion) -> Vec<String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_protocol_versions(&[version]).expect("a version");
    let mut config = builder.with_root_certificates(usual().authority.roots()).with_no_client_auth();
    let own = Arc::new(Own::default());
    config.key_log = own.clone();
    let mut stream = dial(server.tls.expect("tls= in the ready line"));
    let (mut secure, done) = Secure::new(&Arc::new(config), "localhost", &mut stream);
    done.expect("a handshake");
    secure.send(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n", &mut stream).expect("sent");
    assert!(secure.read(&mut [0; 64], &mut stream).expect("an answer") > 0);
    let own = own.0.lock().expect("no panic").clone();
    assert!(!own.is_empty());
    own
}

/// A place where nothing is.
fn nowhere(name: &str) -> PathBuf {
    let place = file(name, "");
    std::fs::remove_file(&place).expect("a file");
    place
}

#[test]
fn secrets_of_clients_are_written_where_that_was_asked_for() {
    for lean in ["false", "true"] {
        let place = nowhere("secrets.log");
        let place_text = place.to_str().expect("UTF-8");
        let flags = flags(&usual().files);
        let mut all: Vec<&str> = flags.iter().map(String::as_str).collect();
        all.extend(["--tls-insecure-key-log", place_text]);
        let (certificate, key) = (usual().files.certificate.to_str(), usual().files.key.to_str());
        let environment = [
            ("FANTAIL_TLS_LEAN", lean),
            ("FANTAIL_ADMIN_TLS_CERTIFICATE", certificate.expect("UTF-8")),
            ("FANTAIL_ADMIN_TLS_KEY", key.expect("UTF-8")),
        ];
        let server = Server::start(&all, &environment);
        server.await_log("INSECURE: the secrets of all connections");
        assert!(server.get("/stats").text().contains("\"tls_key_log\":true"));
        let mode = std::fs::metadata(&place).expect("a file").permissions().mode();
        assert_eq!(mode & 0o077, 0, "{mode:o}");
        let own = [shake(&server, &rustls::version::TLS13), shake(&server, &rustls::version::TLS12)].concat();
        let written = || std::fs::read_to_string(&place).expect("a file");
        wait_for("the secrets", || own.iter().all(|line| written().lines().any(|one| one == line)));
        // Those of operators, who have asked in between, are not.
        assert_eq!(written().lines().count(), own.len(), "{}", written());
        server.signal("HUP");
        server.await_log("INSECURE: the secrets of all connections");
    }
}

#[test]
fn without_that_nothing_is_written_whatever_a_variable_says() {
    let place = nowhere("nothing.log");
    let place_text = place.to_str().expect("UTF-8");
    let variable = [("SSLKEYLOGFILE", place_text)];
    let flags = flags(&usual().files);
    let all: Vec<&str> = flags.iter().map(String::as_str).collect();
    let mut server = Server::start(&all, &variable);
    shake(&server, &rustls::version::TLS13);
    assert!(server.get("/stats").text().contains("\"tls_key_log\":false"));
    let at = format!("wss://localhost:{}/echo", server.tls.expect("tls= in the ready line").port());
    let client = ["preflight", "--tls", "--ca", &usual().ca(), "--connect", &at];
    assert!(command(&client, &variable).output().expect("the binary runs").status.success());
    server.terminate();
    server.await_exit();
    assert!(!place.exists());
    // Nor where nothing could be.
    let lost = [("FANTAIL_TLS_INSECURE_KEY_LOG_FILE", place_text)];
    let (code, said) = fails(command(&["check-config"], &lost));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("expects tls.listen"), "{said}");
    assert!(!place.exists());
}
