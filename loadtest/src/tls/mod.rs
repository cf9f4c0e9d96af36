//! TLS towards the server: what is trusted, how a handshake begins, and what went wrong with one.
//!
//! A [`Tls`] is made once for each server of a run and shared by its connections. [`session`] is the state of one
//! connection of a worker, [`wire`] a blocking connection of a publisher or a reader of metrics. Never owns a socket
//! of a worker, never retries.

mod session;
mod tickets;
mod trouble;
mod trust;
mod wire;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, HandshakeKind};

use crate::base::trouble::Trouble;
use crate::net::target::Target;

pub(crate) use session::{Moment, Session};
pub(crate) use trouble::{explained, hint};
pub(crate) use wire::Wire;

/// User memory that TLS adds to one open connection in this process: the session, its keys and its read buffer.
/// Measured with `memory` on x86-64 (`docs/loadtest.md`, "TLS").
pub(crate) const BYTES_PER_CONNECTION: u64 = 9_000;

/// Bytes that a session holds at most for the kernel, and as much again before the handshake is done.
const BUFFER_BYTES: usize = 32 * 1024;
/// Connections whose tickets are kept for `--tls-resume`.
const TICKETS_MAX: usize = 100_000;

/// What all connections to one server share.
#[derive(Debug)]
pub(crate) struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    trust: String,
    verifies: bool,
    resumes: bool,
    agreed: OnceLock<String>,
    details: Mutex<BTreeMap<Trouble, String>>,
}

/// How TLS is wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// Trust the authorities in this PEM file, and not those of the system.
    pub(crate) ca: Option<PathBuf>,
    /// Verify nothing.
    pub(crate) insecure: bool,
    /// Resume earlier sessions where the server allows it.
    pub(crate) resume: bool,
}

/// How TLS was used, for the report.
#[derive(Clone, Debug)]
pub(crate) struct Summary {
    /// The name that was sent (SNI) and that the certificate has to have; an address is not sent.
    pub(crate) server_name: String,
    /// Whether certificates were verified.
    pub(crate) verifies: bool,
    /// What they were verified by.
    pub(crate) trust: String,
    /// Whether sessions were resumed where the server allowed it.
    pub(crate) resumes: bool,
    /// Version and cipher suite of the first handshake; `None` if there was none.
    pub(crate) agreed: Option<String>,
}

impl Tls {
    /// For connections to `target`; `None` if its URL is one without TLS. `connections` is how many there will be.
    pub(crate) fn of(
        target: &Target,
        wanted: &Wanted,
        connections: usize,
    ) -> Result<Option<Arc<Self>>, String> {
        if !target.secure {
            return Ok(None);
        }
        let host = target.host();
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("{host}: not a name that a certificate can be for"))?;
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?;
        let (builder, trust) = match wanted.insecure {
            true => (trust::nothing_verified(builder), "nothing (--insecure)".to_owned()),
            false => {
                let (roots, trust) = trust::roots(wanted.ca.as_deref())?;
                (builder.with_root_certificates(roots), trust)
            }
        };
        let mut config = builder.with_no_client_auth();
        // As browsers do for WebSockets (RFC 8441 would need HTTP/2). A server without ALPN ignores it.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        config.resumption = match wanted.resume {
            true => Resumption::store(Arc::new(tickets::Tickets::new(connections.min(TICKETS_MAX)))),
            false => Resumption::disabled(),
        };
        Ok(Some(Arc::new(Self {
            config: Arc::new(config),
            name,
            trust,
            verifies: !wanted.insecure,
            resumes: wanted.resume,
            agreed: OnceLock::new(),
            details: Mutex::default(),
        })))
    }

    /// How it was used so far.
    pub(crate) fn summary(&self) -> Summary {
        Summary {
            server_name: self.name.to_str().into_owned(),
            verifies: self.verifies,
            trust: self.trust.clone(),
            resumes: self.resumes,
            agreed: self.agreed.get().cloned(),
        }
    }

    /// What was said about the first failure of a kind.
    pub(crate) fn detail(&self, trouble: Trouble) -> Option<String> {
        self.details.lock().unwrap_or_else(PoisonError::into_inner).get(&trouble).cloned()
    }

    fn note(&self, trouble: Trouble, detail: String) {
        self.details.lock().unwrap_or_else(PoisonError::into_inner).entry(trouble).or_insert(detail);
    }

    /// The client's side of a connection, before its first byte.
    fn begin(&self) -> Result<ClientConnection, rustls::Error> {
        let mut tls = ClientConnection::new(self.config.clone(), self.name.clone())?;
        tls.set_buffer_limit(Some(BUFFER_BYTES));
        Ok(tls)
    }

    /// Remembers what a handshake came to; says whether it resumed an earlier session.
    fn on_secured(&self, tls: &ClientConnection) -> bool {
        self.agreed.get_or_init(|| {
            let version =
                tls.protocol_version().and_then(|version| version.as_str()).unwrap_or("unknown version");
            let suite = tls.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
            format!("{}, {}", version.replace("TLSv1_", "TLS 1."), suite.unwrap_or("unknown cipher"))
        });
        tls.handshake_kind() == Some(HandshakeKind::Resumed)
    }
}
