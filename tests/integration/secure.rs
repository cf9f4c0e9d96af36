//! TLS as a test speaks it: an authority and a certificate of its own, and a client's end over a socket. With
//! `FANTAIL_TEST_TLS=1` every peer of every test speaks it, so that what holds over ws holds over wss; with `lean` instead of
//! `1` in the form that is the default, and not in rustls' own.

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType, IsCa,
    KeyIdMethod, KeyPair, RevokedCertParams, SerialNumber, date_time_ymd,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};

/// What signs the certificates of tests.
pub(crate) struct Authority {
    pub(crate) issuer: CertifiedIssuer<'static, KeyPair>,
}

/// Files of a certificate and its key, removed with the process's temporary directory.
#[derive(Clone, Debug)]
pub(crate) struct Files {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self { issuer: CertifiedIssuer::self_signed(params, key).expect("a certificate") }
    }

    /// A certificate for these names: its PEM and that of its key.
    pub(crate) fn sign(&self, names: &[&str]) -> (String, String) {
        self.sign_with(names, |_| {})
    }

    pub(crate) fn sign_with(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> (String, String) {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).expect("names");
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }

    /// The PEM of a list of those that it has revoked.
    pub(crate) fn revoke(&self, serials: &[u64]) -> String {
        let revoked = |&serial: &u64| RevokedCertParams {
            serial_number: SerialNumber::from(serial),
            revocation_time: date_time_ymd(2024, 1, 1),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: date_time_ymd(2024, 1, 1),
            next_update: date_time_ymd(2124, 1, 1),
            crl_number: SerialNumber::from(1),
            issuing_distribution_point: None,
            revoked_certs: serials.iter().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.issuer).expect("a list").pem().expect("PEM")
    }

    /// Its own certificate in a file.
    pub(crate) fn file(&self, name: &str) -> String {
        file(name, &self.issuer.pem()).to_str().expect("UTF-8").to_owned()
    }

    pub(crate) fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).expect("a root");
        roots
    }

    /// What a client needs to trust it.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().expect("versions");
        Arc::new(builder.with_root_certificates(self.roots()).with_no_client_auth())
    }
}

/// A file of this process's own.
pub(crate) fn file(name: &str, content: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    let folder = FOLDER.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("fantail-tls-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        folder
    });
    let path = folder.join(name);
    std::fs::write(&path, content).expect("a file");
    path
}

/// What servers of most tests use, made once.
pub(crate) struct Usual {
    pub(crate) authority: Authority,
    pub(crate) files: Files,
    pub(crate) client: Arc<ClientConfig>,
}

impl Usual {
    /// The file of what signed its certificate.
    pub(crate) fn ca(&self) -> String {
        static FILE: OnceLock<String> = OnceLock::new();
        FILE.get_or_init(|| self.authority.file("usual-ca.pem")).clone()
    }
}

pub(crate) fn usual() -> &'static Usual {
    static USUAL: OnceLock<Usual> = OnceLock::new();
    USUAL.get_or_init(|| {
        let authority = Authority::new("Fantail's tests");
        let (certificate, key) = authority.sign(&["127.0.0.1", "localhost"]);
        let client = authority.client();
        let files = Files { certificate: file("usual.pem", &certificate), key: file("usual.key", &key) };
        Usual { authority, files, client }
    })
}

/// Flags of a server that speaks TLS on a free port.
pub(crate) fn flags(files: &Files) -> [String; 6] {
    let text = |path: &PathBuf| path.to_str().expect("UTF-8").to_owned();
    let [listen, certificate, key] = ["--tls-listen", "--tls-certificate", "--tls-key"].map(str::to_owned);
    [listen, "127.0.0.1:0".to_owned(), certificate, text(&files.certificate), key, text(&files.key)]
}

/// Whether all peers of this run speak TLS.
pub(crate) fn everywhere() -> bool {
    std::env::var("FANTAIL_TEST_TLS").is_ok_and(|value| value == "1" || value == "lean")
}

/// Whether servers of this run leave records to rustls.
pub(crate) fn rustls() -> bool {
    std::env::var("FANTAIL_TEST_TLS").is_ok_and(|value| value == "1")
}

static SECURE_OF: Mutex<Option<HashMap<SocketAddr, SocketAddr>>> = Mutex::new(None);

/// Remembers where the server that listens on `plain` speaks TLS, and whether it does on its admin port, which may have
/// been another server's before.
pub(crate) fn note(plain: SocketAddr, admin: (SocketAddr, bool), secure: Option<SocketAddr>) {
    let mut all = SECURE_OF.lock().unwrap_or_else(PoisonError::into_inner);
    let all = all.get_or_insert_default();
    match admin {
        (admin, true) => all.insert(admin, admin),
        (admin, false) => all.remove(&admin),
    };
    match secure {
        Some(secure) => all.insert(plain, secure),
        None => all.remove(&plain),
    };
}

/// Where to connect instead, and with TLS, if all peers speak it or nothing else is spoken there.
pub(crate) fn instead_of(plain: SocketAddr) -> Option<SocketAddr> {
    let all = SECURE_OF.lock().unwrap_or_else(PoisonError::into_inner);
    all.as_ref()?.get(&plain).copied().filter(|secure| everywhere() || *secure == plain)
}

/// Takes what the socket has. A process that was stopped and goes on finds its timed read interrupted.
pub(crate) fn read_tls(connection: &mut ClientConnection, stream: &mut TcpStream) -> io::Result<usize> {
    loop {
        match connection.read_tls(stream) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other,
        }
    }
}

/// A client's end of TLS. The socket is the peer's.
pub(crate) struct Secure(pub(crate) ClientConnection);

impl Secure {
    /// Shakes hands over a socket, which may fail as all that follows may.
    pub(crate) fn new(
        config: &Arc<ClientConfig>,
        name: &str,
        stream: &mut TcpStream,
    ) -> (Self, io::Result<()>) {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        let mut connection = ClientConnection::new(Arc::clone(config), name).expect("a configuration");
        let mut shake = || {
            while connection.is_handshaking() {
                connection.complete_io(stream)?;
            }
            Ok(())
        };
        let done = shake();
        (Self(connection), done)
    }

    pub(crate) fn send(&mut self, bytes: &[u8], stream: &mut TcpStream) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let count = self.0.writer().write(rest)?;
            rest = rest.get(count..).unwrap_or_default();
            self.flush(stream)?;
        }
        Ok(())
    }

    fn flush(&mut self, stream: &mut TcpStream) -> io::Result<()> {
        while self.0.wants_write() {
            self.0.write_tls(stream)?;
        }
        Ok(())
    }

    /// Reads; 0 at the end of the stream, however it ends.
    pub(crate) fn read(&mut self, into: &mut [u8], stream: &mut TcpStream) -> io::Result<usize> {
        loop {
            match self.0.reader().read(into) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                other => return other,
            }
            read_tls(&mut self.0, stream)?;
            let taken = self.0.process_new_packets().map(drop).map_err(io::Error::other);
            self.flush(stream)?;
            taken?;
        }
    }
}
