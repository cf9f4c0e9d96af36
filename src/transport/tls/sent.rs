//! What is sent as a certificate: with its response of OCSP while that holds, and alone before and afterwards.
//!
//! Owned by the certificates of [`super::config`], asked by every full handshake, on any loop: nothing is locked or copied.
//! Never reads a file.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::SystemTime;

use rustls::sign::{CertifiedKey, SigningKey};

use super::ocsp::{Response, Time};

/// A certificate and what goes with it.
#[derive(Debug)]
pub(super) struct Sent {
    alone: Arc<CertifiedKey>,
    stapled: Option<Stapled>,
}

/// A certificate with a response, which rustls sends to clients that ask for one (RFC 6066, 8).
#[derive(Debug)]
struct Stapled {
    key: Arc<CertifiedKey>,
    time: Time,
    file: String,
    /// Whether it was said that it is not sent.
    told: AtomicBool,
}

impl Sent {
    /// A certificate with the file of a response and what was in it, if it has one.
    pub(super) fn new(key: CertifiedKey, response: Option<(String, Response)>) -> Self {
        let stapled = response.map(|(file, response)| Stapled {
            key: Arc::new(CertifiedKey { ocsp: Some(response.der), ..key.clone() }),
            time: response.time,
            // The start or reload that has read it says so.
            told: AtomicBool::new(response.warning.is_some()),
            file,
        });
        Self { alone: Arc::new(key), stapled }
    }

    /// What it is signed with.
    pub(super) fn key(&self) -> &dyn SigningKey {
        &*self.alone.key
    }

    /// A response that does not hold is worse than none: clients end the handshake for it.
    pub(super) fn at(&self, now: SystemTime) -> Arc<CertifiedKey> {
        let Some(stapled) = &self.stapled else { return Arc::clone(&self.alone) };
        if stapled.time.holds(now) {
            return Arc::clone(&stapled.key);
        }
        if !stapled.told.swap(true, Ordering::Relaxed) {
            let file = &stapled.file;
            tracing::warn!("{file:?} has expired and is not sent: clients get the certificate alone");
        }
        Arc::clone(&self.alone)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::transport::tls::certificate::KeyNames;
    use crate::transport::tls::{certificate, ocsp};

    #[test]
    fn a_response_is_sent_while_it_holds_and_its_end_is_told_once() {
        let path = |name: &str| format!("{}/tests/fixtures/ocsp/{name}", env!("CARGO_MANIFEST_DIR"));
        let second = Duration::from_secs(1);
        let now = SystemTime::now();
        let sent = |file: &str, now: SystemTime| {
            let identity =
                certificate::read(&path("server.pem"), &path("server.pem"), &KeyNames::CLIENTS, now).unwrap();
            let response = ocsp::read(&path(file), &identity.key.cert, now).unwrap();
            let time = response.time;
            (Sent::new(identity.key, Some((path(file), response))), time)
        };
        let told = |sent: &Sent| sent.stapled.as_ref().unwrap().told.load(Ordering::Relaxed);
        let from = sent("expired.der", now).1.from;
        let (one, time) = sent("expired.der", from);
        let until = time.until.unwrap();
        assert_eq!(until, from + 60 * second);
        let holds = std::fs::read(path("expired.der")).unwrap();
        for (now, ocsp) in
            [(from, Some(&holds)), (until - second, Some(&holds)), (until, None), (until, None)]
        {
            assert_eq!(one.at(now).ocsp.as_ref(), ocsp);
            assert_eq!(told(&one), ocsp.is_none(), "once it has expired");
        }
        assert!(told(&sent("expired.der", now).0), "by who has read it");
    }
}
