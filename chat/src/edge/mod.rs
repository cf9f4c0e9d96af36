//! The edge as any application has it: tokens that it takes, and its admin port. Knows no rooms: who asks names topics.

mod admin;
pub(crate) mod embedded;
pub(crate) mod process;
mod token;

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

pub(crate) use admin::{Admin, Failure, Outcome};
pub(crate) use token::{LIVES_SECONDS, Signer};

/// Where pages find the edge.
#[derive(Debug, Clone)]
pub(crate) enum Public {
    /// At this port of the host that the page itself is from, which may become another one.
    Port(Arc<AtomicU16>),
    /// At this URL.
    Url(String),
}

/// One edge.
pub(crate) struct Edge {
    pub(crate) public: Public,
    pub(crate) signer: Signer,
    pub(crate) admin: Admin,
}

impl Public {
    /// The URL for a page of `host`, as its request named it.
    pub(crate) fn url(&self, host: &str) -> String {
        match self {
            Self::Url(url) => url.clone(),
            Self::Port(port) => {
                format!("http://{}:{}", without_port(host), port.load(Ordering::Relaxed))
            }
        }
    }
}

/// A host without its port; an address of IPv6 keeps its brackets. What is no host becomes `localhost`.
fn without_port(host: &str) -> &str {
    let end = if host.starts_with('[') { host.find(']').map(|at| at + 1) } else { host.find(':') };
    let name = &host[..end.unwrap_or(host.len())];
    let is_plain = |one: char| one.is_ascii_alphanumeric() || "-._[]:".contains(one);
    if name.is_empty() || !name.chars().all(is_plain) { "localhost" } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_finds_the_edge_at_its_own_host() {
        for (host, url) in [
            ("127.0.0.1:8090", "http://127.0.0.1:9000"),
            ("chat.example", "http://chat.example:9000"),
            ("[::1]:8090", "http://[::1]:9000"),
            ("a;script-src *", "http://localhost:9000"),
            ("", "http://localhost:9000"),
        ] {
            assert_eq!(Public::Port(Arc::new(AtomicU16::new(9000))).url(host), url);
        }
        assert_eq!(Public::Url("https://edge.example".to_owned()).url("a"), "https://edge.example");
    }
}
