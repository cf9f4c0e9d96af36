//! `[auth]`: how clients may show who they are. Who issues tokens is in `[[auth.issuer]]`.

use std::time::Duration;

use super::section::{Checker, section};
use super::value::{Seconds, Switch};

section! {
    /// How clients show who they are, where an [[auth.issuer]] is configured. See docs/tokens.md.
    Auth ["auth"] {
        /// Whether a token may stand in the URL (?token=), where others may read it in their logs. It may then be good for
        /// five minutes at most.
        live "query_token" => query_token: bool as Switch = false,
        /// How long before its token ends a json connection is told, so that it can bring another; 0 for never.
        live "notice_seconds" => notice: Duration as Seconds = Duration::from_secs(60),
        /// How long a connection goes on when its token is not taken any more.
        live "grace_seconds" => grace: Duration as Seconds = Duration::from_secs(10),
    }
}

impl Auth {
    fn check_values(&self, check: &mut Checker<'_>) {
        check.time("notice_seconds", self.notice, Some("never"));
        check.time("grace_seconds", self.grace, Some("none"));
    }
}
