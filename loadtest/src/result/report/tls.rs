//! How TLS was spoken with the server. Pure.

use serde::Serialize;

use super::latency::LatencyReport;
use super::table::Table;
use crate::result::tally::Tally;

/// How TLS was spoken, but for what was counted.
#[derive(Debug, Default)]
pub(crate) struct TlsFacts {
    /// The name the certificate has to have.
    pub(crate) server_name: String,
    /// Whether certificates were verified.
    pub(crate) verified: bool,
    /// What they were verified by.
    pub(crate) trust: String,
    /// Version and cipher suite of the first handshake.
    pub(crate) agreed: Option<String>,
    /// Whether sessions were resumed where the server allowed it.
    pub(crate) resumes: bool,
}

/// How TLS was spoken with the server.
#[derive(Debug, Serialize)]
pub(crate) struct TlsReport {
    /// The name its certificate has to have.
    pub(crate) server_name: String,
    /// Whether certificates were verified; false with `--insecure`.
    pub(crate) verified: bool,
    /// What they were verified by.
    pub(crate) trust: String,
    /// Version and cipher suite of the first handshake; null if none was finished.
    pub(crate) agreed: Option<String>,
    /// Whether sessions were resumed where the server allowed it.
    pub(crate) resumes: bool,
    /// Handshakes of connections that were opened.
    pub(crate) handshakes: u64,
    /// Of these, those that resumed a session.
    pub(crate) resumed: u64,
    /// From the TCP connection to the end of the handshake; part of the connect latency.
    pub(crate) handshake_latency: Option<LatencyReport>,
}

impl TlsReport {
    pub(super) fn new(facts: TlsFacts, tally: &Tally) -> Self {
        let TlsFacts { server_name, verified, trust, agreed, resumes } = facts;
        let handshakes = tally.handshakes.as_deref();
        Self {
            server_name,
            verified,
            trust,
            agreed,
            resumes,
            handshakes: handshakes.map_or(0, |handshakes| handshakes.latency.len()),
            resumed: handshakes.map_or(0, |handshakes| handshakes.resumed),
            handshake_latency: handshakes.and_then(|handshakes| LatencyReport::new(&handshakes.latency)),
        }
    }

    pub(super) fn rows(&self, table: &mut Table) {
        let agreed = self.agreed.as_deref().unwrap_or("n/a");
        let resumed = if self.resumes { self.resumed.to_string() } else { "none".to_owned() };
        table.row("TLS", format!("{agreed}, {} handshakes, {resumed} resumed", self.handshakes));
        match self.verified {
            true => {
                table.row("  certificates", format!("verified for {} by {}", self.server_name, self.trust))
            }
            false => table.row("  certificates", "NOT VERIFIED (--insecure): anybody could be the server"),
        }
        table.latency("  handshake latency", self.handshake_latency.as_ref());
    }
}
