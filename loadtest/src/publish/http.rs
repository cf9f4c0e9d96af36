//! Publishing by HTTP/1.1 POST on a kept connection: one request, its whole answer, the next request.

use std::io::Write;
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
    content_type: &'static str,
    tls: Option<Arc<Tls>>,
    wire: Option<Wire>,
    used_at: Instant,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl HttpPublisher {
    /// Connects. Binary messages are announced by `binary=1` in the query.
    pub(crate) fn connect(target: Target, tls: Option<Arc<Tls>>, binary: bool) -> Result<Self, PublishError> {
        let target = if binary { target.with_query("binary", "1") } else { target };
        let wire = Wire::connect(&target, tls.as_deref(), TIMEOUT).map_err(PublishError::Unreached)?;
        let wire = Some(wire);
        Ok(Self {
            target,
            tls,
            content_type: if binary { "application/octet-stream" } else { "text/plain" },
            wire,
            used_at: Instant::now(),
            request: Vec::new(),
            answer: Vec::new(),
        })
    }

    /// Announces messages as JSON.
    pub(crate) fn with_json(mut self, json: bool) -> Self {
        if json {
            self.content_type = "application/json";
        }
        self
    }

    /// Posts one message and waits for the answer.
    pub(crate) fn publish(&mut self, payload: &[u8]) -> Result<(), PublishError> {
        self.publish_with("", payload)
    }

    /// The same with further header fields, each with its line end.
    pub(crate) fn publish_with(&mut self, fields: &str, payload: &[u8]) -> Result<(), PublishError> {
        self.request.clear();
        let Target { path, authority, .. } = &self.target;
        let (len, content_type) = (payload.len(), self.content_type);
        write!(
            self.request,
            "POST {path} HTTP/1.1\r\nHost: {authority}\r\nContent-Type: {content_type}\r\nContent-Length: {len}\r\n{fields}\r\n"
        )?;
        self.request.extend_from_slice(payload);
        let wire = match self.wire.take().filter(|wire| self.is_fresh(wire)) {
            Some(wire) => wire,
            None => {
                Wire::connect(&self.target, self.tls.as_deref(), TIMEOUT).map_err(PublishError::Unreached)?
            }
        };
        wire.write_all(&self.request)?;
        let mut timed = wire.within(TIMEOUT, "no end of the answer within ten seconds");
        let head = http_answer::read(&mut timed, ANSWER_BYTES_MAX, &mut self.answer)?;
        if !head.close {
            self.wire = Some(wire);
            self.used_at = Instant::now();
        }
        if (200..300).contains(&head.status) { Ok(()) } else { Err(PublishError::Refused(head.status)) }
    }

    /// Whether a kept connection can take a request. Servers close those that were idle for a while, and a
    /// request that meets such an end would be a message of unknown fate.
    fn is_fresh(&self, wire: &Wire) -> bool {
        self.used_at.elapsed() < IDLE_UNCHECKED || wire.is_quiet()
    }
}
