//! [`Settings`]: every section, checked, with its defaults. Built by `load`, or by `reload`
//! out of the running ones; then only read.

use super::environment::variable;
use super::section::{Section, Unfit};
use super::{
    Admin, Admission, Auth, Deflate, Drain, Forward, IssuerRule, LimitsSection, Log, Mailbox, Measure,
    Origin, Outbox, Publish, Server, Timeouts, Tls, TopicRule, Webhook,
};

/// The configuration in force.
///
/// `Settings::default()` is what the server runs with when nobody configures anything.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    /// Where the server listens and how many loops it has.
    pub server: Server,
    /// Where TLS is spoken, and as whom.
    pub tls: Tls,
    /// How much a peer may send.
    pub limits: LimitsSection,
    /// How long the server waits for a peer.
    pub timeouts: Timeouts,
    /// What may wait for a slow peer.
    pub outbox: Outbox,
    /// What may wait for a loop.
    pub mailbox: Mailbox,
    /// Compression of messages.
    pub deflate: Deflate,
    /// How the server leaves.
    pub drain: Drain,
    /// Which web pages may connect.
    pub origin: Origin,
    /// How clients show who they are.
    pub auth: Auth,
    /// By which names the admin port is reached.
    pub admin: Admin,
    /// What clients may publish to.
    pub publish: Publish,
    /// What is logged.
    pub log: Log,
    /// Who may connect and how fast.
    pub admission: Admission,
    /// Who is told what happens to topics.
    pub webhook: Webhook,
    /// How messages of clients go to the application.
    pub forward: Forward,
    /// What is switched off to be measured.
    pub measure: Measure,
    /// Rules for topics by pattern, in the order of the file.
    pub topics: Vec<TopicRule>,
    /// Who issues tokens, in the order of the file.
    pub issuers: Vec<IssuerRule>,
}

/// Every section with its keys, environment names, present values and docs, as text for `--help`.
pub fn reference(settings: &Settings) -> String {
    let mut text = String::new();
    for section in settings.sections() {
        text.push_str(&format!("[{}]  {}\n", section.name(), section.doc()));
        for key in section.reference() {
            text.push_str(&format!(
                "  {} = {}  ({})\n",
                key.key,
                key.value,
                variable(section.name(), key.key)
            ));
            text.push_str(&format!("      {}\n", key.doc));
        }
    }
    for rule in lists() {
        text.push_str(&format!("[[{}]]  {}\n", rule.name(), rule.doc()));
        for key in rule.reference() {
            let line = format!("  {} = {}  (only in the file)\n      {}\n", key.key, key.value, key.doc);
            text.push_str(&line);
        }
    }
    text
}

/// One table of each list that the file may have, with its defaults.
pub(super) fn lists() -> [Box<dyn Section>; 2] {
    [Box::new(IssuerRule::default()), Box::new(TopicRule::default())]
}

/// Every section of `$settings`, in the order of the page; with each field named, so that none is forgotten.
macro_rules! all_sections {
    ($settings:expr) => {{
        let Settings {
            server,
            tls,
            limits,
            timeouts,
            outbox,
            mailbox,
            deflate,
            drain,
            origin,
            auth,
            admin,
            publish,
            log,
            admission,
            webhook,
            forward,
            measure,
            topics: _,
            issuers: _,
        } = $settings;
        [
            server, tls, limits, timeouts, outbox, mailbox, deflate, drain, origin, auth, admin, publish,
            log, admission, webhook, forward, measure,
        ]
    }};
}

impl Settings {
    pub(super) fn sections(&self) -> [&dyn Section; 17] {
        all_sections!(self)
    }

    pub(super) fn sections_mut(&mut self) -> [&mut dyn Section; 17] {
        all_sections!(self)
    }

    /// What does not fit, each section by itself and then between sections.
    pub(super) fn unfit(&self) -> Vec<Unfit> {
        let mut unfit = Vec::new();
        for section in self.sections() {
            section.check(&mut unfit);
        }
        self.check_forward(&mut unfit);
        let mut report = |section, key, problem| unfit.push(Unfit { section, key, problem });
        if !self.server.admin_is_local() && !self.admin.has_keys() {
            let problem = format!(
                "expects a loopback address such as \"127.0.0.1:8081\" or keys in admin.keys, got \"{}\" \
                 without keys: whoever reaches the admin port may publish",
                self.server.admin
            );
            report("server", "admin", problem);
        }
        if let Some(listen) = self.tls.listen {
            for (name, other) in [("server.listen", self.server.listen), ("server.admin", self.server.admin)]
            {
                if Server::overlap(listen, other) {
                    let problem = format!(
                        "expects another address or port than {name} = \"{other}\", got \"{listen}\""
                    );
                    report("tls", "listen", problem);
                }
            }
        }
        let (largest, source) = self.largest_topic_message();
        let one_fits = |least: &str, got: usize| {
            format!("expects {least} {source} = {largest}, so that one message fits, got {got}")
        };
        if let Some(bytes_max) = self.mailbox.bytes_max.filter(|bytes_max| *bytes_max < largest) {
            report("mailbox", "bytes_max", one_fits("at least", bytes_max));
        }
        let admission = &self.admission;
        if admission.bytes_per_second > 0 && admission.bytes_burst <= largest {
            report("admission", "bytes_burst", one_fits("more than", admission.bytes_burst));
        }
        if let Some(total) = self.limits.inbox_bytes_total.filter(|total| *total < largest) {
            report("limits", "inbox_bytes_total", one_fits("at least", total));
        }
        let total_min = self.outbox_total_min();
        if let Some(total) = self.outbox.bytes_total.filter(|total| *total < total_min) {
            let problem = format!(
                "expects at least {total_min}, so that seven eighths hold the largest message, got {total}"
            );
            report("outbox", "bytes_total", problem);
        }
        unfit
    }

    /// The least that `outbox.bytes_total` may be. An eighth is kept for answers and control frames, so the largest
    /// message has to fit the rest.
    pub(super) fn outbox_total_min(&self) -> usize {
        let largest = self.largest_topic_message().0.max(self.limits.echo_bytes_max);
        (largest / 7 + 1).saturating_mul(8)
    }

    /// The size of the largest message that any topic takes, and the key that says so.
    pub(super) fn largest_topic_message(&self) -> (usize, String) {
        let base = (self.limits.message_bytes_max, "limits.message_bytes_max".to_owned());
        let rules = self.topics.iter().filter_map(|rule| {
            Some((rule.message_bytes_max?, format!("message_bytes_max of topic {:?}", rule.pattern)))
        });
        rules.fold(base, |largest, rule| if rule.0 > largest.0 { rule } else { largest })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_fit() {
        assert_eq!(Settings::default().unfit(), []);
    }

    #[test]
    fn every_key_and_variable_is_in_the_reference() {
        let text = reference(&Settings::default());
        for section in Settings::default().sections() {
            for key in section.keys() {
                assert!(text.contains(&format!("({})", variable(section.name(), key))), "{key}");
            }
        }
        assert!(text.contains("listen = \"127.0.0.1:8080\"  (FANTAIL_SERVER_LISTEN)"), "{text}");
        assert!(text.contains("bytes_max = \"256 KiB\""), "{text}");
    }

    #[test]
    fn sections_check_against_each_other() {
        let mut settings = Settings::default();
        settings.mailbox.bytes_max = Some(1000);
        let keys: Vec<_> = settings.unfit().iter().map(|u| format!("{}.{}", u.section, u.key)).collect();
        assert_eq!(keys, ["mailbox.bytes_max"]);
        settings.admission.bytes_burst = 1 << 20;
        assert_eq!(settings.unfit().len(), 1, "no rate, no burst");
        settings.admission.bytes_per_second = 1000;
        assert_eq!(settings.unfit().last().map(|unfit| unfit.key), Some("bytes_burst"));
    }

    #[test]
    fn admission_checks_what_belongs_together() {
        let mut settings = Settings::default();
        settings.admission.proxy_protocol = true;
        settings.admission.connect_rate = 1;
        settings.admission.connect_burst = 3_601;
        settings.admission.messages_burst = 0;
        let keys: Vec<_> = settings.unfit().iter().map(|unfit| unfit.key).collect();
        assert_eq!(keys, ["connect_burst", "messages_burst", "proxy_protocol"]);
        settings.admission = Default::default();
        settings.admission.trusted_proxies = vec!["10.0.0.1/8".to_owned()];
        assert_eq!(settings.unfit().first().map(|unfit| unfit.key), Some("trusted_proxies"));
    }
}
