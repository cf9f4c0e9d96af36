//! Publishing by HTTP/1.1 on a kept connection that blocks: one request, its whole answer, the next request.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::PublishError;
use crate::net::http_answer;
use crate::net::target::Target;
use crate::tls::{Tls, Wire};

const TIMEOUT: Duration = Duration::from_secs(10);
/// A connection used more recently than this is not checked before its next request.
const IDLE_UNCHECKED: Duration = Duration::from_millis(500);
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// A connection that is made again when it breaks.
#[derive(Debug)]
pub(crate) struct HttpPublisher {
    target: Target,
    tls: Option<Arc<Tls>>,
    wire: Option<Wire>,
    used_at: Instant,
    answer: Vec<u8>,
}

impl HttpPublisher {
    /// Connects.
    pub(crate) fn connect(target: Target, tls: Option<Arc<Tls>>) -> Result<Self, PublishError> {
        let wire = Wire::connect(&target, tls.as_deref(), TIMEOUT).map_err(PublishError::Unreached)?;
        Ok(Self { target, tls, wire: Some(wire), used_at: Instant::now(), answer: Vec::new() })
    }

    /// Sends one request and waits for the answer.
    pub(crate) fn publish(&mut self, request: &[u8]) -> Result<(), PublishError> {
        let wire = match self.wire.take().filter(|wire| self.is_fresh(wire)) {
            Some(wire) => wire,
            None => {
                Wire::connect(&self.target, self.tls.as_deref(), TIMEOUT).map_err(PublishError::Unreached)?
            }
        };
        wire.write_all(request)?;
        let mut timed = wire.within(TIMEOUT, "no end of the answer within ten seconds");
        let head = http_answer::read(&mut timed, ANSWER_BYTES_MAX, &mut self.answer)?;
        if !head.close {
            self.wire = Some(wire);
            self.used_at = Instant::now();
        }
        if (200..300).contains(&head.status) {
            return Ok(());
        }
        let why = http_answer::first_line(&http_answer::body(&head, &self.answer));
        Err(PublishError::Refused(head.status, why))
    }

    /// Whether a kept connection can take a request. Servers close those that were idle for a while, and a
    /// request that meets such an end would be a message of unknown fate.
    fn is_fresh(&self, wire: &Wire) -> bool {
        self.used_at.elapsed() < IDLE_UNCHECKED || wire.is_quiet()
    }
}
