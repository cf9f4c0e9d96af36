//! `[admin]`: by which names the admin port is reached.

use crate::auth::admin_guard::AdminGuard;

use super::section::{Checker, section};
use super::value::Names;

section! {
    /// By which names the admin port is reached; checked against the Host of each request.
    Admin ["admin"] {
        /// Host names accepted besides localhost and loopback addresses, such as "fantail.internal".
        "hosts" => hosts: Vec<String> as Names = Vec::new(),
    }
}

impl Admin {
    fn check_values(&self, check: &mut Checker<'_>) {
        if let Err(error) = AdminGuard::compile(&self.hosts) {
            check.report("hosts", error.to_string());
        }
    }
}
