//! Where the admin port of a running server is: by flag, by environment, or as its configuration file says.

use std::path::PathBuf;

use clap::Args;

use crate::config::admin_in_file;

use super::config_file;

/// The server's variable that has its admin port speak TLS.
const TLS_VARIABLE: &str = "FANTAIL_ADMIN_TLS_CERTIFICATE";

/// Flags that say where the admin port is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(super) struct AdminAt {
    /// Address and port of the admin listener, with http:// or https:// in front or as the server is configured
    /// [default: the configuration file's, or 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR", env = "FANTAIL_SERVER_ADMIN", hide_env_values = true)]
    admin: Option<String>,
    /// The server's configuration file, for its admin address [env: FANTAIL_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl AdminAt {
    /// Whether somebody has written for this command whether TLS is spoken, and not for the server.
    pub(super) fn names_scheme(&self) -> bool {
        self.admin.as_deref().is_some_and(|admin| admin.contains("://"))
    }

    /// The address, as it was written, with https:// in front if it has no scheme and the server's variables or file say that
    /// it speaks TLS there. A file that has a mistake may be that of a server that runs well, so only a file that was named
    /// here has to be there.
    ///
    /// # Errors
    /// What is wrong with a flag.
    pub(super) fn address(&self) -> Result<String, String> {
        let environment: Vec<_> = std::env::vars_os().collect();
        let file = config_file(self.config.as_ref(), &environment);
        let text = match file.as_ref().map(std::fs::read_to_string) {
            Some(Err(error)) if self.config.is_some() && self.admin.is_none() => {
                let file = file.unwrap_or_default();
                return Err(format!("--config {}: cannot be read: {error}", file.display()));
            }
            text => text.and_then(Result::ok).unwrap_or_default(),
        };
        let (in_file, tls_in_file) = admin_in_file(&text);
        let admin = match (&self.admin, &file) {
            (Some(admin), _) => admin.clone(),
            (None, Some(file)) if in_file.port() == 0 => {
                return Err(format!("--admin: {} lets the kernel choose the port; name it", file.display()));
            }
            (None, _) => in_file.to_string(),
        };
        // As everywhere, a variable wins over the file, an empty one too.
        let variable = environment.iter().find(|(name, _)| name == TLS_VARIABLE);
        let tls = variable.map_or(tls_in_file, |(_, value)| !value.is_empty());
        Ok(if tls && !admin.contains("://") { format!("https://{admin}") } else { admin })
    }
}
