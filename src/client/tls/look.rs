//! What a server shows and agrees on, and what its files have: the material of [`super::chain`].
//!
//! For `fantail preflight --tls`. Blocking; a look at a server is one handshake, in which nothing is verified and nothing is
//! asked for.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConnection;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::{Tls, Wanted, identity};
use crate::client::stream::Stream;
use crate::client::url::Url;

/// What both sides of a handshake have agreed on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Agreed {
    /// Such as `TLS 1.3`.
    pub version: String,
    /// The suite of ciphers, as RFC 8446 and RFC 5289 call it.
    pub suite: String,
    /// How keys were exchanged.
    pub group: Option<String>,
    /// The protocol that was chosen (ALPN); `http/1.1` is offered.
    pub alpn: Option<String>,
}

/// What a server has shown.
#[derive(Debug)]
pub struct Look {
    /// What was agreed on.
    pub agreed: Agreed,
    /// Its chain, its own certificate first.
    pub chain: Vec<CertificateDer<'static>>,
}

/// Shakes hands with a server, asking for `name`.
///
/// # Errors
/// There is no connection, or no handshake; one line.
pub fn look(url: &Url, name: &str, timeout: Duration) -> Result<Look, String> {
    let wanted = Wanted { insecure: true, server_name: Some(name.to_owned()), ..Wanted::default() };
    let tls = Arc::new(Tls::new(&url.host, &wanted)?);
    let stream = Stream::connect(url, Some(&tls), timeout).map_err(|error| error.to_string())?;
    let agreed = stream.agreed().unwrap_or_default();
    stream.end();
    Ok(Look { agreed, chain: tls.shown.chain() })
}

impl Agreed {
    pub(in crate::client) fn of(connection: &ClientConnection) -> Self {
        let version = connection.protocol_version().and_then(|version| version.as_str());
        let suite = connection.negotiated_cipher_suite().and_then(|suite| suite.suite().as_str());
        let group = connection.negotiated_key_exchange_group().and_then(|group| group.name().as_str());
        let alpn = connection.alpn_protocol();
        Self {
            version: version.unwrap_or_default().replace("TLSv1_", "TLS 1."),
            // The library marks which version each is for.
            suite: suite.unwrap_or_default().replace("TLS13_", "TLS_"),
            group: group.map(str::to_owned),
            alpn: alpn.map(|name| String::from_utf8_lossy(name).into_owned()),
        }
    }
}

/// A chain out of a file, and the key out of another or, if it has one, the same. Errors name `certificate` and `key` as they
/// are called.
///
/// # Errors
/// A file that can't be read, or has not what it should; one line.
pub fn files(
    certificate: (&str, &Path),
    key: Option<(&str, &Path)>,
) -> Result<(Vec<CertificateDer<'static>>, Option<PrivateKeyDer<'static>>), String> {
    let (text, named) = identity::file(certificate.0, certificate.1)?;
    let chain = identity::chain_of(&text, &named)?;
    let key = match key {
        Some((what, path)) => {
            let (text, named) = identity::file(what, path)?;
            identity::key_of(&text, &named)?.ok_or_else(|| identity::keyless(&named)).map(Some)?
        }
        None => identity::key_of(&text, &named)?,
    };
    Ok((chain, key))
}
