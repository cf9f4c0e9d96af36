//! Where the admin port of a running server is: by flag, by environment, or as its configuration file says.

use std::path::PathBuf;

use clap::Args;

use crate::config::admin_in_file;

use super::config_file;

/// Flags that say where the admin port is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(super) struct AdminAt {
    /// Address and port of the admin listener [default: the configuration file's, or 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR", env = "FANTAIL_SERVER_ADMIN", hide_env_values = true)]
    admin: Option<String>,
    /// The server's configuration file, for its admin address [env: FANTAIL_CONFIG]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl AdminAt {
    /// The address, as it was written. A file that has a mistake may be that of a server that runs well, so only a file
    /// that was named here has to be there.
    ///
    /// # Errors
    /// What is wrong with a flag.
    pub(super) fn address(&self) -> Result<String, String> {
        if let Some(admin) = &self.admin {
            return Ok(admin.clone());
        }
        let environment: Vec<_> = std::env::vars_os().filter(|(name, _)| name == "FANTAIL_CONFIG").collect();
        let Some(file) = config_file(self.config.as_ref(), &environment) else {
            return Ok(admin_in_file("").to_string());
        };
        let text = match std::fs::read_to_string(&file) {
            Err(error) if self.config.is_some() => {
                return Err(format!("--config {}: cannot be read: {error}", file.display()));
            }
            text => text.unwrap_or_default(),
        };
        let admin = admin_in_file(&text);
        if admin.port() == 0 {
            return Err(format!("--admin: {} lets the kernel choose the port; name it", file.display()));
        }
        Ok(admin.to_string())
    }
}
