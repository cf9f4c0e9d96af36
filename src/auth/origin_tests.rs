//! Honest and hostile origins against the policy.

use super::*;

fn policy(patterns: &[&str]) -> OriginPolicy {
    let patterns: Vec<_> = patterns.iter().map(|p| (*p).to_owned()).collect();
    OriginPolicy::compile(&patterns, false).unwrap()
}

fn check(policy: &OriginPolicy, origin: &str, host: &str) -> Result<(), OriginRefusal> {
    policy.check(Some(origin.as_bytes()), Some(host.as_bytes())).map(|_| ())
}

#[test]
fn without_patterns_only_the_servers_own_pages_may() {
    let own = policy(&[]);
    for (origin, host) in [
        ("http://localhost:8080", "localhost:8080"),
        ("https://a.example", "a.example"),
        ("https://a.example", "a.example:443"),
        ("https://a.example:443", "a.example"),
        ("http://a.example", "a.example:80"),
        ("HTTPS://A.Example", "a.eXAMPLE"),
        ("http://[::1]:8080", "[0:0:0:0:0:0:0:1]:8080"),
        ("http://127.0.0.1:8080", "127.0.0.1:8080"),
        ("https://a.example.", "a.example."),
    ] {
        assert_eq!(check(&own, origin, host), Ok(()), "{origin} {host}");
    }
    for (origin, host) in [
        ("https://b.example", "a.example"),
        ("https://a.example", "a.example:80"),
        ("http://a.example", "a.example:443"),
        ("http://localhost:8081", "localhost:8080"),
        ("http://localhost", "localhost:8080"),
        ("https://a.example.", "a.example"),
        ("https://a.example.evil.com", "a.example"),
        ("https://evila.example", "a.example"),
        ("http://[::1]:8080", "localhost:8080"),
        ("chrome-extension://a.example", "a.example"),
        ("file://a.example", "a.example"),
        ("https://a.example", ""),
        ("https://a.example", "a.example, b.example"),
    ] {
        assert_eq!(check(&own, origin, host), Err(OriginRefusal::Foreign), "{origin} {host}");
    }
    assert_eq!(own.check(Some(b"https://a.example"), None), Err(OriginRefusal::Foreign));
}

#[test]
fn no_origin_is_fine_unless_required() {
    assert_eq!(policy(&[]).check(None, Some(b"a")), Ok(Grant::Unnamed));
    let strict = OriginPolicy::compile(&["*".to_owned()], true).unwrap();
    assert_eq!(strict.check(None, Some(b"a")), Err(OriginRefusal::Missing));
    assert_eq!(check(&strict, "https://b", "a"), Ok(()));
}

#[test]
fn null_is_foreign_and_rubbish_is_malformed() {
    let own = policy(&["https://a.example", "localhost:*"]);
    assert_eq!(check(&own, "null", "null"), Err(OriginRefusal::Null));
    assert_eq!(check(&own, "NULL", "a"), Err(OriginRefusal::Null));
    for origin in [
        "",
        " ",
        "a.example",
        "https:a.example",
        "https:/a.example",
        "https://",
        "https:///a.example",
        "://a.example",
        "1https://a.example",
        "https://a.example/",
        "https://a.example/path",
        "https://a.example?x",
        "https://a.example#x",
        "https://user@a.example",
        "https://a.example@evil.com",
        "https://a.example:443@evil.com",
        "https://a.example\\@evil.com",
        "https://a.example https://evil.com",
        "https://evil.com,https://a.example",
        " https://a.example",
        "https://a.example\t",
        "https://a.example:",
        "https://a.example:+443",
        "https://a.example:99999",
        "https://a..example",
        "https://[::1",
        "https://[::1]evil",
        "https://::1",
        "https://[fe80::1%eth0]",
        "https://é.example",
        "https://a.example\0.evil.com",
    ] {
        assert_eq!(check(&own, origin, "a.example"), Err(OriginRefusal::Malformed), "{origin:?}");
    }
    assert_eq!(own.check(Some(&[0xff; 9000]), Some(b"a")), Err(OriginRefusal::Malformed));
}

#[test]
fn wildcards_stand_for_whole_labels() {
    let under = policy(&["https://*.example.com"]);
    for origin in ["https://a.example.com", "https://a.b.example.com", "https://A.EXAMPLE.com:443"] {
        assert_eq!(check(&under, origin, "h"), Ok(()), "{origin}");
    }
    for origin in [
        "https://evil-example.com",
        "https://evilexample.com",
        "https://example.com",
        "https://a.example.com.evil.org",
        "https://a.example.com.",
        "http://a.example.com",
        "https://a.example.com:8443",
        "https://a-example.com",
        "https://example.com.evil.org",
    ] {
        assert_eq!(check(&under, origin, "h"), Err(OriginRefusal::Foreign), "{origin}");
    }
    assert_eq!(check(&under, "https://.example.com", "h"), Err(OriginRefusal::Malformed));
}

#[test]
fn exact_patterns_match_scheme_host_and_port() {
    let exact = policy(&["https://a.example", "http://b.example:3000", "http://[::1]:5173", "app://self"]);
    for origin in [
        "https://a.example",
        "https://a.example:443",
        "http://b.example:3000",
        "http://[0::1]:5173",
        "app://self",
    ] {
        assert_eq!(check(&exact, origin, "h"), Ok(()), "{origin}");
    }
    for origin in [
        "http://a.example",
        "https://a.example:444",
        "http://b.example",
        "https://b.example:3000",
        "http://[::2]:5173",
        "http://[::1]",
        "other://self",
    ] {
        assert_eq!(check(&exact, origin, "h"), Err(OriginRefusal::Foreign), "{origin}");
    }
}

#[test]
fn patterns_without_scheme_mean_web_pages() {
    let local = policy(&["localhost:*", "c.example"]);
    for origin in [
        "http://localhost",
        "http://localhost:5173",
        "https://LOCALHOST:1",
        "http://c.example",
        "https://c.example",
    ] {
        assert_eq!(check(&local, origin, "h"), Ok(()), "{origin}");
    }
    for origin in [
        "http://localhost.evil.com:80",
        "http://sub.localhost:80",
        "app://localhost",
        "http://c.example:8080",
        "http://c.example:443",
    ] {
        assert_eq!(check(&local, origin, "h"), Err(OriginRefusal::Foreign), "{origin}");
    }
}

#[test]
fn a_star_lets_everything_in() {
    let any = policy(&["*"]);
    for origin in ["null", "https://x.example", "rubbish", ""] {
        assert_eq!(check(&any, origin, "h"), Ok(()), "{origin}");
    }
}

#[test]
fn patterns_that_mean_something_else_are_refused() {
    for pattern in [
        "",
        "null",
        "**",
        "*.",
        "*example.com",
        "https://*example.com",
        "https://a.*.com",
        "https://*.*.com",
        "https://*",
        "*:8080",
        "https://a.example/",
        "https://a.example/path",
        "https://user@a.example",
        "https://a.example:",
        "https://a.example:http",
        "https://a.example:70000",
        "https://",
        "://a.example",
        "ht tp://a.example",
        "a.example, b.example",
        "https://[::1",
        "::1",
        "[::1]x",
        "[::1]]:80",
        "é.example",
    ] {
        let compiled = OriginPolicy::compile(&[pattern.to_owned()], false);
        assert!(compiled.is_err(), "{pattern:?}: {compiled:?}");
    }
    let text = OriginPolicy::compile(&["*evil.com".to_owned()], false).unwrap_err().to_string();
    assert!(text.contains("*.example.com") && text.ends_with("got \"*evil.com\""), "{text}");
}
