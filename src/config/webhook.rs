//! `[webhook]`: who is told what happens to topics and connections.

use super::section::{Checker, section};
use super::value::{Bytes, Kind, Names, RawValue, quoted};
use crate::service::webhook::Wanted;

section! {
    /// Who is told what happens to topics and connections. See docs/webhooks.md.
    Webhook ["webhook"] {
        /// URL that batches of events are posted to, http or https; empty for none.
        "url" => url: Option<String> as TextOrNone = None,
        /// File with the secret that signs them: whsec_ and base64, or the characters themselves, 24 bytes at least.
        "secret_file" => secret_file: Option<String> as TextOrNone = None,
        /// What is told of all topics and connections: of occupied, vacated, connected and disconnected those that are in the list.
        /// What else there is, rules of topics ask for.
        "events" => events: Wanted as Events = Wanted::default(),
        /// PEM file with the authorities that the URL's certificate is signed by; empty for those of the system.
        "ca_file" => ca_file: Option<String> as TextOrNone = None,
        /// Bytes of a client's message that are told in full; of a longer one only how long it is.
        "message_bytes_max" => message_bytes_max: usize as Bytes = 16 << 10,
        /// Bytes of events that may wait, 128, the names in it and twice its message for each; what comes then is counted and lost.
        "queue_bytes_max" => queue_bytes_max: usize as Bytes = 16 << 20,
    }
}

impl Webhook {
    /// The URL and the file with the secret, if somebody is told.
    #[must_use]
    pub fn target(&self) -> Option<(&str, &str)> {
        self.url.as_deref().zip(self.secret_file.as_deref())
    }

    fn check_values(&self, check: &mut Checker<'_>) {
        check.within("message_bytes_max", self.message_bytes_max, 0..=1 << 20);
        check.within("queue_bytes_max", self.queue_bytes_max, 4_096..=1 << 30);
        match (&self.url, &self.secret_file) {
            (Some(_), None) => {
                // That key is what somebody has written: its file and line are told.
                check.report("url", "expects webhook.secret_file, too".to_owned());
            }
            (None, Some(_)) => check.report("secret_file", "expects webhook.url, too".to_owned()),
            _ => {}
        }
        if self.url.is_none() && self.ca_file.is_some() {
            check.report("ca_file", "expects webhook.url, too".to_owned());
        }
    }
}

/// What is told.
struct Events;

impl Kind for Events {
    type Out = Wanted;
    const EXPECTS: &'static str =
        "a list of occupied, vacated, connected and disconnected, or of some of them";

    fn parse(raw: &RawValue) -> Option<Wanted> {
        Wanted::of(&Names::parse(raw)?)
    }

    fn show(value: &Wanted) -> String {
        let Wanted { occupied, vacated, connected, disconnected } = *value;
        let wanted = Wanted::WORDS.into_iter().zip([occupied, vacated, connected, disconnected]);
        Names::show(&wanted.filter(|(_, is)| *is).map(|(word, _)| word.to_owned()).collect())
    }
}

/// A text, or nothing.
struct TextOrNone;

impl Kind for TextOrNone {
    type Out = Option<String>;
    const EXPECTS: &'static str = "a text, or \"\" for none";

    fn parse(raw: &RawValue) -> Option<Option<String>> {
        match raw {
            RawValue::Text(text) | RawValue::String(text) => {
                let text = text.trim();
                Some((!text.is_empty()).then(|| text.to_owned()))
            }
            _ => None,
        }
    }

    fn show(value: &Option<String>) -> String {
        quoted(value.as_deref().unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::section::Unfit;

    #[test]
    fn an_url_has_a_secret_and_a_secret_an_url() {
        let unfit = |url: Option<&str>, secret: Option<&str>, ca: Option<&str>| {
            let text = |text: Option<&str>| text.map(str::to_owned);
            let webhook = Webhook {
                url: text(url),
                secret_file: text(secret),
                ca_file: text(ca),
                ..Webhook::default()
            };
            let mut unfit: Vec<Unfit> = Vec::new();
            webhook.check_values(&mut Checker { section: "webhook", unfit: &mut unfit });
            unfit.into_iter().map(|unfit| unfit.key).collect::<Vec<_>>()
        };
        assert!(unfit(None, None, None).is_empty() && unfit(Some("u"), Some("s"), Some("c")).is_empty());
        assert_eq!(unfit(Some("u"), None, None), ["url"]);
        assert_eq!(unfit(None, Some("s"), Some("c")), ["secret_file", "ca_file"]);
        let events = |text: &str| Events::parse(&RawValue::Text(text.to_owned()));
        assert_eq!(events("vacated,occupied"), Some(Wanted::default()));
        assert_eq!(
            Events::show(&events("disconnected, occupied").unwrap()),
            r#"["occupied", "disconnected"]"#
        );
        assert_eq!(events("occupied,subscribed"), None);
        let text = |text: &str| TextOrNone::parse(&RawValue::String(text.to_owned())).unwrap();
        assert_eq!((text(" "), text(" a ")), (None, Some("a".to_owned())));
    }
}
