//! `[origin]`: which web pages may open a connection.

use crate::auth::origin::OriginPolicy;

use super::section::{Checker, section};
use super::value::{Names, Switch};

section! {
    /// Which web pages may connect; a page served by this server always may.
    Origin ["origin"] {
        /// Origins besides the server's own: "https://a.example", "https://*.example.com", "localhost:*" or "*".
        live "allowed" => allowed: Vec<String> as Names = Vec::new(),
        /// Refuse clients that send no Origin, which only programs other than browsers do.
        live "required" => required: bool as Switch = false,
    }
}

impl Origin {
    fn check_values(&self, check: &mut Checker<'_>) {
        if let Err(error) = OriginPolicy::compile(&self.allowed, self.required) {
            check.report("allowed", error.to_string());
        }
    }
}
