//! `[forward]`: how messages of clients go to the application, where rules of topics say so.

use std::collections::BTreeSet;
use std::time::Duration;

use super::backend::Text;
use super::section::{Checker, Unfit, section};
use super::settings::Settings;
use super::value::{Bytes, Count, Seconds};
use crate::service::check_url;
use crate::service::forward::{Bounds, ForwardPlan, URLS_MAX};

/// Messages of one connection that may be unanswered: each takes its place in a queue of the application.
const CONNECTION_MESSAGES_MAX: usize = 10_000;

section! {
    /// How messages of clients go to the application, where a topic rule has `forward`. See docs/integrate.md.
    Forward ["forward"] {
        /// File with the secret that signs batches: whsec_ and base64, or the characters themselves, 24 bytes at least. Rules
        /// with forward need it.
        "secret_file" => secret_file: String as Text = String::new(),
        /// PEM file with the authorities that certificates of https are signed by; empty for those of the system.
        "ca_file" => ca_file: String as Text = String::new(),
        /// Calls at a time to one URL, each with a thread of its own.
        "calls_max" => calls_max: usize as Count = 8,
        /// How long a call may take, at most 60.
        "timeout_seconds" => timeout: Duration as Seconds = Duration::from_secs(10),
        /// For how long a message is tried; then its sender is told that it has failed.
        "retry_seconds" => retry: Duration as Seconds = Duration::from_secs(60),
        /// Messages in one call.
        "batch_messages_max" => batch_messages_max: usize as Count = 256,
        /// Bytes of the messages in one call, 256 and its topic's name for each; a longer message goes alone.
        "batch_bytes_max" => batch_bytes_max: usize as Bytes = 256 << 10,
        /// Messages of one connection that the application has not answered; behind so many nothing more is read from it.
        live "connection_messages_max" => connection_messages_max: usize as Count = 64,
        /// Messages that one URL has not answered; what comes then is refused. One address has at most as many of them as are left.
        "messages_max" => messages_max: usize as Count = 65_536,
        /// Bytes of them, counted as those of a call; what comes then is refused. They are shared as the messages are.
        "bytes_max" => bytes_max: usize as Bytes = 64 << 20,
    }
}

impl Forward {
    fn check_values(&self, check: &mut Checker<'_>) {
        check.within("calls_max", self.calls_max, 1..=256);
        check.time("timeout_seconds", self.timeout, None);
        if self.timeout.as_secs() > 60 {
            check.report(
                "timeout_seconds",
                format!("expects at most 60 seconds, got {}", self.timeout.as_secs()),
            );
        }
        check.time("retry_seconds", self.retry, None);
        check.within("batch_messages_max", self.batch_messages_max, 1..=10_000);
        check.within("batch_bytes_max", self.batch_bytes_max, 1_024..=16 << 20);
        check.within("connection_messages_max", self.connection_messages_max, 1..=CONNECTION_MESSAGES_MAX);
        check.within("messages_max", self.messages_max, 1..=1 << 24);
        check.within("bytes_max", self.bytes_max, 4_096..=1 << 36);
        if self.secret_file.is_empty() && !self.ca_file.is_empty() {
            check.report("ca_file", "expects forward.secret_file, too".to_owned());
        }
    }

    /// How messages are forwarded, if there is a secret to sign them with.
    #[must_use]
    pub fn plan(&self) -> Option<ForwardPlan> {
        if self.secret_file.is_empty() {
            return None;
        }
        Some(ForwardPlan {
            secret_file: self.secret_file.clone(),
            ca: (!self.ca_file.is_empty()).then(|| self.ca_file.clone().into()),
            calls_max: self.calls_max,
            deadline: self.timeout,
            tried_for: self.retry,
            bounds: Bounds {
                messages_max: self.messages_max,
                bytes_max: self.bytes_max,
                batch_messages_max: self.batch_messages_max,
                batch_bytes_max: self.batch_bytes_max,
            },
        })
    }
}

/// What is wrong with the URL of a rule.
pub(super) fn unfit_url(url: &str) -> Option<String> {
    if let Err(problem) = check_url(url) {
        return Some(problem.to_owned());
    }
    // It is shown in logs and by check-config.
    url.contains(['?', '#']).then(|| "expects a URL without a query".to_owned())
}

impl Settings {
    /// The URLs that messages go to.
    pub fn forward_urls(&self) -> impl Iterator<Item = &str> {
        self.topics.iter().filter_map(|rule| rule.forward.as_deref())
    }

    /// What does not fit between rules and the section.
    pub(super) fn check_forward(&self, unfit: &mut Vec<Unfit>) {
        let urls: BTreeSet<&str> = self.forward_urls().collect();
        let mut report = |key, problem| unfit.push(Unfit { section: "forward", key, problem });
        if !urls.is_empty() && self.forward.secret_file.is_empty() {
            report(
                "secret_file",
                "expects a file with a secret, because a topic rule has forward: what goes to the application is signed"
                    .to_owned(),
            );
        }
        if urls.len() > URLS_MAX {
            let problem = format!(
                "expects rules with at most {URLS_MAX} different URLs in forward, got {}",
                urls.len()
            );
            report("calls_max", problem);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TopicRule;

    #[test]
    fn a_rule_that_forwards_needs_a_secret_and_a_url_that_may_be_shown() {
        let mut settings = Settings::default();
        let rule = |url: &str| TopicRule {
            pattern: url.to_owned(),
            forward: Some(url.to_owned()),
            ..TopicRule::default()
        };
        settings.topics = vec![rule("http://a.example/x"), rule("https://a.example/x")];
        let unfit = |settings: &Settings| {
            let mut unfit = Vec::new();
            settings.check_forward(&mut unfit);
            unfit.into_iter().map(|unfit| unfit.key).collect::<Vec<_>>()
        };
        assert_eq!(unfit(&settings), ["secret_file"]);
        settings.forward.secret_file = "/a".to_owned();
        assert!(unfit(&settings).is_empty() && settings.forward.plan().is_some());
        settings.topics = (0..=URLS_MAX).map(|number| rule(&format!("http://a.example/{number}"))).collect();
        assert_eq!(unfit(&settings), ["calls_max"]);
        assert!(unfit_url("http://a.example/x").is_none());
        for bad in ["a.example", "ftp://a.example/", "http://a.example/?key=1", ""] {
            assert!(unfit_url(bad).is_some(), "{bad}");
        }
    }
}
