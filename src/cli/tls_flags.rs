//! How TLS is wanted, for commands that are clients.

use std::path::PathBuf;
use std::sync::Arc;

use clap::Args;

use crate::client::tls::{Tls, Wanted};
use crate::client::url::Url;

/// Flags about TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "TLS (wss:// and https://)")]
pub(super) struct TlsFlags {
    /// Trust the authorities in this PEM file, and not those of the system
    #[arg(long, value_name = "FILE")]
    pub(super) ca: Option<PathBuf>,
    /// Take any certificate: whoever is on the way can read and change everything
    #[arg(long, conflicts_with_all = ["ca", "server_name"])]
    pub(super) insecure: bool,
    /// Ask for this name and expect a certificate for it, whatever the host of the URL is
    #[arg(long, value_name = "NAME")]
    pub(super) server_name: Option<String>,
    /// PEM file with a certificate of the client's own, for servers that want one
    #[arg(long, value_name = "FILE")]
    pub(super) certificate: Option<PathBuf>,
    /// PEM file with its key, unless that stands in the same file
    #[arg(long, value_name = "FILE", requires = "certificate")]
    pub(super) key: Option<PathBuf>,
}

impl TlsFlags {
    /// What connections to the URL need; nothing if it is not one of TLS.
    ///
    /// # Errors
    /// What is wrong with which flag.
    pub(super) fn of(&self, url: &Url) -> Result<Option<Arc<Tls>>, String> {
        let wanted = Wanted {
            ca: self.ca.clone(),
            insecure: self.insecure,
            server_name: self.server_name.clone(),
            certificate: self.certificate.clone(),
            key: self.key.clone(),
        };
        if url.secure {
            return Tls::new(&url.host, &wanted).map(|tls| Some(Arc::new(tls)));
        }
        match wanted.flag() {
            Some(flag) => {
                Err(format!("{flag}: is for TLS, which the URL does not ask for: wss:// or https:// does"))
            }
            None => Ok(None),
        }
    }
}
