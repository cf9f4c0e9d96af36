//! `fantail dev-cert`: what it makes serves and is believed, what is there stays, and what is in the way is named.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::connect::Connect;
use crate::server::{Server, command, fails};

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fantail-dev-cert-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn text(&self, name: &str) -> String {
        fs::read_to_string(self.file(name)).expect("a file")
    }

    fn make(&self, more: &[&str]) -> Command {
        let folder = self.0.to_str().expect("UTF-8");
        command(&[&["dev-cert", folder], more].concat(), &[])
    }

    fn made(&self, more: &[&str]) -> String {
        let output = self.make(more).output().expect("it runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[test]
fn what_is_made_serves_and_is_believed() {
    let folder = Folder::new("serves");
    let said = folder.made(&["--name", "app.test", "--name", "*.app.test"]);
    let (certificate, key, ca) =
        (folder.file("server.pem"), folder.file("server.key"), folder.file("ca.pem"));
    for part in [
        "made a new authority",
        "localhost, 127.0.0.1, ::1, app.test, *.app.test",
        "update-ca-certificates",
        "trust anchor",
        "add-trusted-cert",
        "certutil -user",
        "Firefox",
        "nssdb",
        "--cacert",
        "NODE_EXTRA_CA_CERTS",
        "SSL_CERT_FILE",
        &format!(
            "fantail serve --tls-listen 127.0.0.1:8443 --tls-certificate {} --tls-key {}",
            text(&certificate),
            text(&key)
        ),
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let mode = |name: &str| fs::metadata(folder.file(name)).expect("a file").permissions().mode() & 0o777;
    assert_eq!(["ca.key", "server.key"].map(mode), [0o600, 0o600]);
    let flags =
        ["--tls-listen", "127.0.0.1:0", "--tls-certificate", text(&certificate), "--tls-key", text(&key)];
    let server = Server::start(&flags, &[]);
    let port = server.tls.expect("a port of TLS").port();
    for (host, more) in [
        ("localhost", &[][..]),
        ("127.0.0.1", &[]),
        ("127.0.0.1", &["--server-name", "app.test"]),
        ("127.0.0.1", &["--server-name", "any.app.test"]),
    ] {
        let url = format!("wss://{host}:{port}/echo");
        let flags = [&["connect", "--count", "1", "--ca", text(&ca), &url], more].concat();
        let mut client = Connect::spawn(command(&flags, &[]));
        client.send("hello\n");
        let (code, out, said) = client.end();
        assert_eq!((code, out), (Some(0), vec!["hello".to_owned()]), "{said}");
    }
    let other = format!("wss://127.0.0.1:{port}/echo");
    let flags = ["connect", "--ca", text(&ca), "--server-name", "other.test", &other];
    assert!(fails(command(&flags, &[])).1.contains("not for other.test"));
}

#[test]
fn what_is_there_stays_and_the_authority_is_used_again() {
    let folder = Folder::new("stays");
    folder.made(&[]);
    let all = ["ca.pem", "ca.key", "server.pem", "server.key"];
    let before = all.map(|name| folder.text(name));
    assert!(folder.made(&[]).contains("was there and is good"));
    assert_eq!(all.map(|name| folder.text(name)), before);
    // A name that it lacks is no reason to replace it by itself.
    let (code, said) = fails(folder.make(&["--name", "app.test"]));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("not for app.test") && said.contains("--replace"), "{said}");
    assert_eq!(all.map(|name| folder.text(name)), before);
    let said: serde_json::Value =
        serde_json::from_str(&folder.made(&["--name", "app.test", "--replace", "--json"])).expect("JSON");
    assert_eq!((&said["new_ca"], &said["new_certificate"]), (&false.into(), &true.into()));
    assert_eq!(said["names"][3], "app.test");
    let after = all.map(|name| folder.text(name));
    assert_eq!((&after[..2], after[2] == before[2], after[3] == before[3]), (&before[..2], false, false));
    let left: Vec<_> = fs::read_dir(&folder.0).expect("a folder").collect();
    assert_eq!(left.len(), 4, "{left:?}");
}

#[test]
fn what_is_in_the_way_is_named() {
    let folder = Folder::new("way");
    folder.made(&[]);
    for name in ["a b", "http://a", "a:1", "*.127.0.0.1", "", "*"] {
        let (code, said) = fails(folder.make(&["--name", name]));
        assert_eq!(code, Some(1), "{name}: {said}");
        assert!(said.contains("expects a host name"), "{name}: {said}");
    }
    let other = Folder::new("other");
    other.made(&[]);
    // Another one's certificate, and another one's key.
    fs::copy(other.file("server.pem"), folder.file("server.pem")).expect("copied");
    assert!(fails(folder.make(&[])).1.contains("no authority that is trusted here"));
    fs::copy(other.file("ca.key"), folder.file("ca.key")).expect("copied");
    let (code, said) = fails(folder.make(&["--replace"]));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("another one's"), "{said}");
    fs::remove_file(folder.file("ca.key")).expect("removed");
    let (code, said) = fails(folder.make(&["--replace"]));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("ca.pem is there and") && said.contains("ca.key is not"), "{said}");
    // A folder that can't be.
    let (code, said) = fails(command(&["dev-cert", "/proc/nowhere"], &[]));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("/proc/nowhere"), "{said}");
}
