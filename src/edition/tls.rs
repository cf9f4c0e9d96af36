//! What TLS handshakes are answered with, made of the settings: for each port its own certificates and its own rules for
//! those of its peers.
//!
//! Runs where an edition is made, which may block on files. Never on a loop.

use std::sync::Arc;
use std::time::SystemTime;

use super::{Edition, Port};
use crate::config::Settings;
use crate::transport::tls::certificate::{CertificateError, KeyNames};
use crate::transport::tls::clients::ClientFiles;
use crate::transport::tls::config::{Files, Sources, TlsConfig};
use crate::transport::tls::files::{FileLook, look};
use crate::transport::tls::key_log::SecretsOut;
use crate::transport::tls::tickets::Tickets;

/// Reads the files of a port's certificates, if it speaks TLS. Keys of tickets outlive an edition.
pub(super) fn config(
    settings: &Settings,
    port: Port,
    tickets: &Tickets,
    key_log: Option<&Arc<SecretsOut>>,
) -> Result<Option<Arc<TlsConfig>>, CertificateError> {
    let sources = sources(settings, port);
    if sources.certificates.is_empty() {
        return Ok(None);
    }
    // The few connections of the admin port are not worth it.
    let lean = settings.tls.lean && port == Port::Client;
    let config = TlsConfig::read(&sources, tickets, lean, SystemTime::now())?;
    // What operators say holds keys of theirs, which nobody has to debug.
    let config = match key_log.filter(|_| port == Port::Client) {
        Some(to) => config.with_secrets_to(to),
        None => config,
    };
    Ok(Some(Arc::new(config)))
}

impl Edition {
    /// What there is to say of the files that go with certificates, of both ports.
    #[must_use]
    pub fn look_at_tls(settings: &Settings) -> Vec<FileLook> {
        let of = |port| sources(settings, port);
        let sources = [of(Port::Client), of(Port::Admin)];
        let spoken = sources.iter().filter(|sources| !sources.certificates.is_empty());
        spoken.flat_map(|sources| look(sources, SystemTime::now())).collect()
    }
}

/// The files of a port; none if it speaks no TLS.
fn sources(settings: &Settings, port: Port) -> Sources {
    let (tls, admin) = (&settings.tls, &settings.admin);
    match port {
        Port::Client => {
            let pair = |(place, (certificate, key)): (usize, (&str, &str))| Files {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
                ocsp: tls.ocsp_of(place).map(str::to_owned),
            };
            Sources {
                certificates: tls.files().into_iter().enumerate().map(pair).collect(),
                clients: ClientFiles {
                    authorities: tls.client_ca.clone(),
                    revoked: tls.client_crl.clone(),
                    required: tls.client_required,
                },
                names: KeyNames::CLIENTS,
            }
        }
        Port::Admin => {
            let pair = |(certificate, key): (&str, &str)| Files {
                certificate: certificate.to_owned(),
                key: key.to_owned(),
                ocsp: None,
            };
            Sources {
                certificates: admin.tls_files().into_iter().map(pair).collect(),
                clients: ClientFiles {
                    authorities: admin.tls_client_ca.clone(),
                    revoked: admin.tls_client_crl.clone(),
                    required: true,
                },
                names: KeyNames::ADMIN,
            }
        }
    }
}
