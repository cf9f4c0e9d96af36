//! The page behind `GET /`, put together from the files in `page/` and the JavaScript client, and what the server tells
//! it in headers: `Fantail-Publish` for the topic of `?topic=`, `Fantail-Admin` on the server's own machine.
//!
//! Driven by the client port's routing. Never tells a stranger more than trying would; decision 0050.

pub(super) mod demo;
pub(super) mod parts;

use std::net::IpAddr;
use std::sync::LazyLock;

use self::parts::Document;
use crate::auth::admin_guard::AdminGuard;
use crate::edition::Edition;
use crate::topic::name::NameError;
use crate::topic::{Access, TopicName};
use crate::wire::http::head::Head;
use crate::wire::http::params::Params;
use crate::wire::http::response::ResponseBuffer;

static PAGE: LazyLock<Document> = LazyLock::new(|| {
    Document::new(
        include_str!("page/head.html"),
        &[include_str!("page/theme.css"), include_str!("page/page.css")],
        include_str!("page/body.html"),
        &[
            include_str!("page/text.js"),
            include_str!("page/fan.js"),
            include_str!("page/seat.js"),
            include_str!("page/viewer.js"),
            include_str!("page/log.js"),
            include_str!("page/card.js"),
            include_str!("page/main.js"),
        ],
    )
});

/// What a proxy adds; whoever came through one is a stranger, whatever its name for this server.
const PROXY_FIELDS: [&str; 6] =
    ["via", "forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip"];

/// Writes the page; the method is GET or HEAD. `peer` is asked at most once, and only where it matters.
///
/// # Errors
/// One line on what is wrong with the query.
pub(super) fn write(
    head: &Head<'_>,
    edition: &Edition,
    peer: impl FnOnce() -> Option<IpAddr>,
    out: &mut ResponseBuffer,
) -> Result<(), String> {
    let mut fields = Vec::new();
    if let Some(publish) = publish_rule(head, edition)? {
        fields.push(("Fantail-Publish", publish));
    }
    let admin = admin_for(head, edition, peer);
    if let Some(admin) = &admin {
        fields.push(("Fantail-Admin", admin));
    }
    PAGE.write(head, &fields, out);
    Ok(())
}

/// Which clients may publish to the topic that is asked about, in the words of `[[topic]] publish`.
fn publish_rule(head: &Head<'_>, edition: &Edition) -> Result<Option<&'static str>, String> {
    let params = Params::read(head.query(), b"", &["topic"])?;
    let Some(topic) = params.text("topic") else { return Ok(None) };
    let topic = TopicName::parse(topic).map_err(NameError::reason)?;
    Ok(Some(match edition.router.rules().policy_of(topic.as_str()).publish {
        Access::Nobody => "nobody",
        Access::Claim => "claim",
        Access::Identified => "identified",
        Access::Anyone => "anyone",
    }))
}

/// Where to publish with `curl`, for somebody who sits at this machine: the admin port is on loopback and wants no
/// key, and the request came from loopback, by a loopback name, from this page or the user, and through no proxy.
fn admin_for(head: &Head<'_>, edition: &Edition, peer: impl FnOnce() -> Option<IpAddr>) -> Option<String> {
    let settings = &edition.settings;
    let admin = edition.start_facts.get()?.admin;
    let is_open = admin.ip().to_canonical().is_loopback() && edition.keys.is_empty();
    let behind_proxy = settings.admission.proxy_protocol || !settings.admission.trusted_proxies.is_empty();
    if !is_open || behind_proxy || PROXY_FIELDS.iter().any(|name| head.field(name).is_some()) {
        return None;
    }
    AdminGuard::default().check(head.host.as_bytes(), |name| head.field(name)).ok()?;
    let scheme = if edition.admin_tls.is_some() { "https://" } else { "" };
    peer().is_some_and(|peer| peer.to_canonical().is_loopback()).then(|| format!("{scheme}{admin}"))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
    use std::sync::Arc;
    use std::time::SystemTime;

    use super::*;
    use crate::config::Settings;
    use crate::edition::StartFacts;
    use crate::topic::{MailboxLimits, Router, RouterLimits, Wake};
    use crate::wire::http::date::Date;
    use crate::wire::http::head::{HeadLimits, field_store, parse_head};

    const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
    const ADMIN: &str = "127.0.0.1:48081";

    struct NoWake;

    impl Wake for NoWake {
        fn wake(&self, _: usize) {}
    }

    fn edition(admin: &str, change: impl FnOnce(&mut Settings)) -> Edition {
        let mut settings = Settings::default();
        change(&mut settings);
        let limits = RouterLimits {
            mailbox: MailboxLimits { entries_max: 10, bytes_max: 1000 },
            topics_max: 10,
            idle_topics_max: 10,
            ..RouterLimits::default()
        };
        let router = Router::new(2, limits, Box::new(NoWake)).unwrap();
        let edition = Edition::new(settings, Arc::new(router), 1, 100).unwrap();
        let admin: SocketAddr = admin.parse().unwrap();
        let facts = StartFacts { descriptors_max: 1, shared_table: None, empty_user_bytes: None, admin };
        edition.start_facts.set(facts).unwrap();
        edition
    }

    /// The answer to a request with these fields, from this peer.
    fn answer(edition: &Edition, target: &str, fields: &str, peer: IpAddr) -> Result<String, String> {
        let request = format!("HEAD {target} HTTP/1.1\r\n{fields}\r\n");
        let mut store = field_store();
        let limits = HeadLimits { bytes_max: 8192, fields_max: 64 };
        let (head, _) = parse_head(request.as_bytes(), &mut store, &limits).unwrap().unwrap();
        let mut out = ResponseBuffer::new(Vec::new(), Date::at(SystemTime::UNIX_EPOCH));
        write(&head, edition, || Some(peer), &mut out)?;
        Ok(String::from_utf8(out.into_bytes()).unwrap())
    }

    fn admin_told(edition: &Edition, fields: &str, peer: IpAddr) -> bool {
        let text = answer(edition, "/", fields, peer).unwrap();
        // Wherever it would stand.
        assert_eq!(text.contains("Fantail-Admin: "), text.contains("48081"), "{text}");
        text.contains("48081")
    }

    #[test]
    fn the_admin_port_is_told_on_this_machine_only() {
        let edition = edition(ADMIN, |_| {});
        for host in ["localhost:8080", "127.0.0.1", "[::1]:8080"] {
            assert!(admin_told(&edition, &format!("Host: {host}\r\n"), HERE), "{host}");
        }
        assert!(admin_told(&edition, "Host: localhost\r\n", Ipv6Addr::LOCALHOST.into()));
        assert!(admin_told(&edition, "Host: localhost\r\nSec-Fetch-Site: same-origin\r\n", HERE));
        // A name that a stranger claims, a name that was rebound, and pages of others.
        assert!(!admin_told(&edition, "Host: localhost\r\n", "192.0.2.7".parse().unwrap()));
        assert!(!admin_told(&edition, "Host: evil.example\r\n", HERE));
        assert!(!admin_told(&edition, "Host: localhost\r\nOrigin: https://evil.example\r\n", HERE));
        assert!(!admin_told(&edition, "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n", HERE));
        // Proxies that put a loopback name into Host, as nginx does unless it is told not to.
        for field in PROXY_FIELDS {
            assert!(
                !admin_told(&edition, &format!("Host: 127.0.0.1:8080\r\n{field}: x\r\n"), HERE),
                "{field}"
            );
        }
    }

    #[test]
    fn an_admin_port_that_takes_no_plain_request_is_not_told() {
        let open = edition(ADMIN, |_| {});
        assert!(admin_told(&open, "Host: localhost\r\n", HERE));
        let mut locked = edition(ADMIN, |_| {});
        locked.keys.add("read:0123456789abcdef").unwrap();
        for edition in [
            locked,
            edition("192.0.2.1:48081", |_| {}),
            edition(ADMIN, |settings| settings.admission.trusted_proxies = vec!["10.0.0.1".to_owned()]),
            edition(ADMIN, |settings| settings.admission.proxy_protocol = true),
        ] {
            assert!(!admin_told(&edition, "Host: localhost\r\n", HERE));
        }
    }

    #[test]
    fn who_may_publish_is_told_for_a_topic_that_could_be_one() {
        let edition = edition(ADMIN, |settings| settings.publish.topics = vec!["open/*".to_owned()]);
        for (target, said) in [
            ("/?topic=open%2Fa", Some("anyone")),
            ("/?topic=lobby", Some("nobody")),
            ("/?topic=caf%C3%A9", Some("nobody")),
            ("/", None),
        ] {
            let text = answer(&edition, target, "Host: evil.example\r\n", HERE).unwrap();
            let value = text.lines().find_map(|line| line.strip_prefix("Fantail-Publish: "));
            assert_eq!(value, said, "{target}");
        }
        for target in ["/?topic=", "/?topic=a*", "/?topic=%FF", "/?topic=a&topic=b", "/?topics=a"] {
            assert!(answer(&edition, target, "Host: localhost\r\n", HERE).is_err(), "{target}");
        }
        assert_eq!(edition.router.topics(), 0, "asking creates no topic");
    }
}
