//! The thread that writes down the secrets of clients' connections, for whoever debugs them, if that was asked for.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::sync::Arc;

use super::{ServeError, failed, spawn};
use crate::config::Settings;
use crate::transport::tls::key_log::{SecretsOut, secrets};

/// Opens the file, which others may not read if it is a new one, and starts the thread; it ends with the last edition.
///
/// # Errors
/// The file can't be written to.
pub(super) fn start(settings: &Settings) -> Result<Option<Arc<SecretsOut>>, ServeError> {
    let file = &settings.tls.insecure_key_log_file;
    if file.is_empty() {
        return Ok(None);
    }
    let opened = OpenOptions::new().create(true).append(true).mode(0o600).open(file);
    let opened =
        opened.map_err(|error| failed(&format!("write to tls.insecure_key_log_file {file:?}"), error))?;
    let (out, waiting) = secrets();
    spawn("key-log", move || {
        waiting.write_to(opened, |trouble| tracing::warn!("tls.insecure_key_log_file: {trouble}"));
    })?;
    Ok(Some(Arc::new(out)))
}

/// Says that it goes on, at the start and whenever somebody looks at the configuration.
pub(super) fn warn(settings: &Settings) {
    let file = &settings.tls.insecure_key_log_file;
    if !file.is_empty() {
        tracing::warn!(
            "INSECURE: the secrets of all connections of clients over TLS are written to {file:?}; whoever reads it can read \
             and change what they say. Take tls.insecure_key_log_file out as soon as you have seen what you wanted to see"
        );
    }
}
