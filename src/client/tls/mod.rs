//! TLS towards a server: what is trusted, who the client is, and what a server has shown.
//!
//! A [`Tls`] is made once for a command and used by each of its connections ([`super::stream`]). Never owns a socket,
//! never retries.

pub mod chain;
mod identity;
pub mod look;
mod shown;
mod trouble;
mod trust;

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};

use shown::Shown;
pub(super) use trouble::is_passing;
pub use trust::{Trust, verdict};

/// How TLS is wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Trust the authorities in this PEM file, and not those of the system.
    pub ca: Option<PathBuf>,
    /// Verify nothing.
    pub insecure: bool,
    /// The name that is asked for and that the certificate has to have, instead of the URL's host.
    pub server_name: Option<String>,
    /// The client's own certificate and behind it those of its issuers, as PEM.
    pub certificate: Option<PathBuf>,
    /// Its key, as PEM; it may stand in the file of the certificate.
    pub key: Option<PathBuf>,
}

impl Wanted {
    /// The first flag that was given.
    #[must_use]
    pub fn flag(&self) -> Option<&'static str> {
        let flags = [
            ("--ca", self.ca.is_some()),
            ("--insecure", self.insecure),
            ("--server-name", self.server_name.is_some()),
            ("--certificate", self.certificate.is_some()),
            ("--key", self.key.is_some()),
        ];
        flags.into_iter().find_map(|(flag, given)| given.then_some(flag))
    }
}

/// What connections to one server need.
#[derive(Debug)]
pub struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    shown: Arc<Shown>,
    /// Whether the client has a certificate to show.
    identified: bool,
}

impl Tls {
    /// For connections to `host`, which is what the certificate has to be for unless another name is wanted.
    ///
    /// # Errors
    /// One line on which flag or file is of no use, and why.
    pub fn new(host: &str, wanted: &Wanted) -> Result<Self, String> {
        let wants = wanted.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(wants.to_owned())
            .map_err(|_| format!("{wants}: is not a name that a certificate can be for"))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let trust = if wanted.insecure { None } else { Some(Trust::of(wanted.ca.as_deref())?) };
        let shown = Arc::new(Shown::new(&provider, trust.as_ref())?);
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(Arc::clone(&shown) as Arc<_>);
        let own = identity::read(wanted.certificate.as_deref(), wanted.key.as_deref())?;
        let identified = own.is_some();
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(|error| {
                let of = wanted.key.as_ref().or(wanted.certificate.as_ref());
                let of = of.map(|path| path.display().to_string()).unwrap_or_default();
                format!(
                    "--key {of}: is not the key of --certificate, or of a kind that is not supported: {error}"
                )
            })?,
        };
        // As browsers do for WebSockets (RFC 8441 would need HTTP/2). A server without ALPN ignores it.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Each connection is looked at anew: what is reported is what this server shows now.
        config.resumption = Resumption::disabled();
        Ok(Self { config: Arc::new(config), name, shown, identified })
    }

    /// The client's side of a connection, before its first byte.
    pub(super) fn begin(&self) -> Result<ClientConnection, rustls::Error> {
        ClientConnection::new(Arc::clone(&self.config), self.name.clone())
    }

    /// What went wrong, and what to do about it.
    pub(super) fn explain(&self, error: &rustls::Error) -> String {
        trouble::explain(error, &self.name.to_str(), &self.shown.chain(), self.identified)
    }
}
