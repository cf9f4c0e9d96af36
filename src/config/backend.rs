//! The keys of `[auth]` about the application that is asked about handshakes: what fits, and the plan they make.

use super::Auth;
use super::section::Checker;
use super::value::{Kind, RawValue, quoted};
use crate::service::{BackendPlan, Plan, check_url, may_pass};

/// What becomes of handshakes while the application can't be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackendDown {
    /// They are refused.
    Deny,
    /// They are let in as nobody in particular.
    Allow,
}

/// Fields that are passed on unless it is said otherwise: those that show who somebody is, and from which page.
pub(super) fn own_fields() -> Vec<String> {
    ["authorization", "cookie", "origin"].map(str::to_owned).to_vec()
}

/// A URL, or the name of a file.
pub(super) struct Text;

impl Kind for Text {
    type Out = String;
    const EXPECTS: &'static str = "a text";

    fn parse(raw: &RawValue) -> Option<String> {
        match raw {
            RawValue::Text(text) | RawValue::String(text) => Some(text.trim().to_owned()),
            _ => None,
        }
    }

    fn show(value: &String) -> String {
        quoted(value)
    }
}

pub(super) struct Down;

impl Kind for Down {
    type Out = BackendDown;
    const EXPECTS: &'static str = "deny or allow";

    fn parse(raw: &RawValue) -> Option<BackendDown> {
        match raw.word()?.as_str() {
            "deny" => Some(BackendDown::Deny),
            "allow" => Some(BackendDown::Allow),
            _ => None,
        }
    }

    fn show(value: &BackendDown) -> String {
        match value {
            BackendDown::Deny => "\"deny\"".to_owned(),
            BackendDown::Allow => "\"allow\"".to_owned(),
        }
    }
}

impl Auth {
    /// Whether anybody is asked about handshakes.
    #[must_use]
    pub fn has_backend(&self) -> bool {
        !self.backend_url.is_empty()
    }

    /// What is asked about handshakes, and how, if anything is.
    #[must_use]
    pub fn backend_plan(&self) -> Option<BackendPlan> {
        if !self.has_backend() {
            return None;
        }
        let call = Plan {
            url: self.backend_url.clone(),
            ca: (!self.backend_ca.is_empty()).then(|| self.backend_ca.clone().into()),
            deadline: self.backend_timeout,
            idle_max: self.backend_calls_max,
        };
        Some(BackendPlan {
            call,
            calls_max: self.backend_calls_max,
            waiting_max: self.backend_waiting_max,
            keep: self.backend_cache,
            claims: self.claims.clone(),
        })
    }

    pub(super) fn check_backend(&self, check: &mut Checker<'_>) {
        check.time("backend_timeout_seconds", self.backend_timeout, None);
        if self.backend_timeout.as_secs() > 60 {
            let seconds = self.backend_timeout.as_secs();
            check.report("backend_timeout_seconds", format!("expects at most 60 seconds, got {seconds}"));
        }
        check.time("backend_wait_seconds", self.backend_wait, None);
        check.time("backend_cache_seconds", self.backend_cache, Some("none"));
        check.within("backend_calls_max", self.backend_calls_max, 1..=1_000);
        check.within("backend_waiting_max", self.backend_waiting_max, 1..=1_000_000);
        for name in self.backend_headers.iter().filter(|name| !may_pass(name)) {
            let problem = format!("{name:?} is no field of a client that can be passed on");
            check.report("backend_headers", problem);
        }
        if !self.has_backend() {
            return;
        }
        if let Err(problem) = check_url(&self.backend_url) {
            check.report("backend_url", problem.to_owned());
        } else if self.backend_url.contains(['?', '#']) {
            // It is shown in logs and by check-config.
            check.report("backend_url", "expects a URL without a query".to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::section::Unfit;

    fn unfit(auth: &Auth) -> Vec<&'static str> {
        let mut unfit: Vec<Unfit> = Vec::new();
        auth.check_backend(&mut Checker { section: "auth", unfit: &mut unfit });
        unfit.into_iter().map(|unfit| unfit.key).collect()
    }

    #[test]
    fn what_is_asked_has_an_address_and_passes_on_what_is_the_clients() {
        let of = |url: &str| Auth { backend_url: url.to_owned(), ..Auth::default() };
        assert_eq!((unfit(&Auth::default()), Auth::default().backend_plan()), (vec![], None));
        assert_eq!(unfit(&of("https://app.example/ask")), [] as [&str; 0]);
        assert_eq!(of("http://127.0.0.1:9/").backend_plan().unwrap().call.url, "http://127.0.0.1:9/");
        for bad in ["app.example", "http://u:p@a/", "http://a/?key=secret", "ftp://a/"] {
            assert_eq!(unfit(&of(bad)), ["backend_url"], "{bad}");
        }
        for bad in ["Host", "x-forwarded-for", "Fantail-Address", "connection", "a b", ""] {
            let headers = vec!["cookie".to_owned(), bad.to_owned()];
            assert_eq!(
                unfit(&Auth { backend_headers: headers, ..Auth::default() }),
                ["backend_headers"],
                "{bad}"
            );
        }
        let slow = Auth { backend_timeout: Duration::from_secs(61), ..Auth::default() };
        assert_eq!(unfit(&slow), ["backend_timeout_seconds"]);
        assert_eq!(unfit(&Auth { backend_calls_max: 0, ..Auth::default() }), ["backend_calls_max"]);
    }
}
