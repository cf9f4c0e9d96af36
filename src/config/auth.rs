//! `[auth]`: how clients may show who they are. Who issues tokens is in `[[auth.issuer]]`.

use super::section::{Checker, section};
use super::value::Switch;

section! {
    /// How clients show who they are, where an [[auth.issuer]] is configured. See docs/tokens.md.
    Auth ["auth"] {
        /// Whether a token may stand in the URL (?token=), where others may read it in their logs. It may then be good for
        /// five minutes at most.
        live "query_token" => query_token: bool as Switch = false,
    }
}

impl Auth {
    #[allow(clippy::unused_self, reason = "every section has one")]
    fn check_values(&self, _: &mut Checker<'_>) {}
}
