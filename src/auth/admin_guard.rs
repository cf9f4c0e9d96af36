//! Keeps web pages away from the admin port, which without keys trusts who can reach loopback.
//!
//! A browser on this machine can reach loopback too, on behalf of any page. Three fields tell: Host
//! stops a name that was rebound to 127.0.0.1, Origin and Sec-Fetch-Site stop pages of other sites.
//! Programs such as curl send neither and pass. The admin port calls it once per request.

use super::PatternError;
use super::authority::Authority;
use super::origin::ParsedOrigin;

/// Why an admin request was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AdminRefusal {
    /// Host is missing, is no host, or names neither this machine nor a listed host.
    Host,
    /// Origin is not the admin port's own.
    Origin,
    /// Sec-Fetch-Site says that another site's page asks.
    FetchSite,
}

/// The compiled guard; shared, never changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdminGuard {
    hosts: Vec<String>,
    any_host: bool,
    tls: bool,
}

impl AdminGuard {
    /// Compiles the host names that are accepted besides loopback: `name` for any port, `name:port` for one.
    ///
    /// # Errors
    /// When an entry is not a host.
    pub fn compile(hosts: &[String]) -> Result<Self, PatternError> {
        for host in hosts {
            if Authority::parse(host.as_bytes()).is_none() {
                let problem =
                    "expects a host name such as \"fantail.internal\", without scheme, path or wildcard";
                return Err(PatternError::new(host, problem));
            }
        }
        Ok(Self { hosts: hosts.to_vec(), any_host: false, tls: false })
    }

    /// For a port that is bound off loopback: it has no names of its own, and it has keys, which a page that
    /// rebinds a name does not know.
    #[must_use]
    pub fn with_any_host(self) -> Self {
        Self { any_host: true, ..self }
    }

    /// For a port that speaks TLS: a page of the same host and port that came without it is somebody else's. Without TLS
    /// nothing is said of the scheme, since a proxy may end TLS in front.
    #[must_use]
    pub fn with_tls(self) -> Self {
        Self { tls: true, ..self }
    }

    /// Decides about a request; `host` is the authority it asks for, `field` gives a header field by its lower-case
    /// name.
    ///
    /// # Errors
    /// The reason for the refusal.
    pub fn check<'a>(
        &self,
        host: &[u8],
        field: impl Fn(&str) -> Option<&'a [u8]>,
    ) -> Result<(), AdminRefusal> {
        let host = Authority::parse(host).ok_or(AdminRefusal::Host)?;
        if !self.any_host && !host.host.is_loopback() && !self.lists(&host) {
            return Err(AdminRefusal::Host);
        }
        if let Some(origin) = field("origin")
            && !ParsedOrigin::parse(origin)
                .is_some_and(|origin| origin.is_same(&host) && (!self.tls || origin.is_https()))
        {
            return Err(AdminRefusal::Origin);
        }
        match field("sec-fetch-site") {
            None | Some(b"same-origin" | b"none") => Ok(()),
            // `same-site`, `cross-site`, and what a later standard may add.
            Some(_) => Err(AdminRefusal::FetchSite),
        }
    }

    fn lists(&self, host: &Authority<'_>) -> bool {
        self.hosts
            .iter()
            .filter_map(|listed| Authority::parse(listed.as_bytes()))
            .any(|listed| listed.host == host.host && (listed.port.is_none() || listed.port == host.port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(hosts: &[&str], fields: &[(&str, &'static str)]) -> Result<(), AdminRefusal> {
        let hosts: Vec<_> = hosts.iter().map(|h| (*h).to_owned()).collect();
        check_with(&AdminGuard::compile(&hosts).unwrap(), fields)
    }

    fn check_with(guard: &AdminGuard, fields: &[(&str, &'static str)]) -> Result<(), AdminRefusal> {
        let field =
            |name: &str| fields.iter().find(|(field, _)| *field == name).map(|(_, value)| value.as_bytes());
        guard.check(field("host").unwrap_or_default(), field)
    }

    #[test]
    fn programs_on_this_machine_pass() {
        for host in
            ["localhost:8081", "127.0.0.1:8081", "127.9.9.9", "[::1]:8081", "LOCALHOST", "fan.localhost:1"]
        {
            let host: &'static str = host;
            assert_eq!(check(&[], &[("host", host)]), Ok(()), "{host}");
        }
    }

    #[test]
    fn a_rebound_name_is_refused() {
        for host in [
            "evil.com",
            "evil.com:8081",
            "127.0.0.1.evil.com",
            "localhost.evil.com",
            "notlocalhost",
            "0.0.0.0",
            "",
            "a b",
        ] {
            assert_eq!(check(&[], &[("host", host)]), Err(AdminRefusal::Host), "{host}");
        }
        assert_eq!(check(&[], &[]), Err(AdminRefusal::Host));
        // Its Origin equals its Host; that must not help.
        let rebound = [("host", "evil.com:8081"), ("origin", "http://evil.com:8081")];
        assert_eq!(check(&[], &rebound), Err(AdminRefusal::Host));
    }

    #[test]
    fn listed_hosts_pass_with_their_port() {
        let listed = ["fantail.internal", "b.internal:9000"];
        assert_eq!(check(&listed, &[("host", "Fantail.Internal:8081")]), Ok(()));
        assert_eq!(check(&listed, &[("host", "b.internal:9000")]), Ok(()));
        assert_eq!(check(&listed, &[("host", "b.internal:9001")]), Err(AdminRefusal::Host));
        assert_eq!(check(&listed, &[("host", "x.fantail.internal")]), Err(AdminRefusal::Host));
    }

    #[test]
    fn off_loopback_any_host_passes_and_pages_still_do_not() {
        let guard = AdminGuard::default().with_any_host();
        let check = |fields: &[(&str, &'static str)]| check_with(&guard, fields);
        assert_eq!(check(&[("host", "10.0.0.5:8081")]), Ok(()));
        assert_eq!(check(&[]), Err(AdminRefusal::Host));
        let page = [("host", "10.0.0.5:8081"), ("origin", "https://evil.com")];
        assert_eq!(check(&page), Err(AdminRefusal::Origin));
        assert_eq!(check(&[("host", "a"), ("sec-fetch-site", "cross-site")]), Err(AdminRefusal::FetchSite));
    }

    #[test]
    fn only_the_own_origin_passes() {
        let host = ("host", "localhost:8081");
        assert_eq!(check(&[], &[host, ("origin", "http://localhost:8081")]), Ok(()));
        for origin in [
            "null",
            "",
            "http://localhost:8080",
            "http://localhost",
            "https://evil.com",
            "http://127.0.0.1:8081",
            "x",
        ] {
            assert_eq!(check(&[], &[host, ("origin", origin)]), Err(AdminRefusal::Origin), "{origin}");
        }
    }

    #[test]
    fn over_tls_a_page_that_came_without_it_is_no_own_one() {
        let (plain, secure) = (AdminGuard::default(), AdminGuard::default().with_tls());
        let of = |origin| [("host", "localhost:8081"), ("origin", origin)];
        for (origin, at_plain, at_secure) in [
            ("https://localhost:8081", Ok(()), Ok(())),
            ("HTTPS://localhost:8081", Ok(()), Ok(())),
            ("http://localhost:8081", Ok(()), Err(AdminRefusal::Origin)),
            ("https://localhost", Err(AdminRefusal::Origin), Err(AdminRefusal::Origin)),
        ] {
            let said = (check_with(&plain, &of(origin)), check_with(&secure, &of(origin)));
            assert_eq!(said, (at_plain, at_secure), "{origin}");
        }
        // The default port of https is left out of both.
        assert_eq!(check_with(&secure, &[("host", "localhost"), ("origin", "https://localhost")]), Ok(()));
    }

    #[test]
    fn only_own_pages_and_the_user_pass_by_fetch_site() {
        let host = ("host", "localhost:8081");
        for site in ["same-origin", "none"] {
            assert_eq!(check(&[], &[host, ("sec-fetch-site", site)]), Ok(()), "{site}");
        }
        for site in ["cross-site", "same-site", "", "Cross-Site", "future"] {
            assert_eq!(check(&[], &[host, ("sec-fetch-site", site)]), Err(AdminRefusal::FetchSite), "{site}");
        }
    }

    #[test]
    fn what_is_no_host_does_not_compile() {
        for bad in ["http://a", "a/b", "*.a", "", "a b", "a:x"] {
            assert!(AdminGuard::compile(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
