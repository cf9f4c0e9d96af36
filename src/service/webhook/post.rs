//! One batch as it is posted: its body, its name and its signature (Standard Webhooks 1.0), and when to try again.
//!
//! Pure, but for the random beginning of names.

use std::time::Duration;

use aws_lc_rs::hmac;
use data_encoding::BASE64;
use serde::Serialize;

use super::event::Event;
use crate::service::caller::Request;

/// The shortest secret, in bytes: what Standard Webhooks asks for.
pub(super) const SECRET_BYTES_MIN: usize = 24;

/// The longest.
pub(super) const SECRET_BYTES_MAX: usize = 1_024;

/// How long a batch is tried.
pub(super) const TRIED_FOR: Duration = Duration::from_secs(300);

/// The pause behind the first failure; each further one is twice as long.
const PAUSE: Duration = Duration::from_millis(500);

/// The longest.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// What signs batches.
pub(in crate::service) struct Secret(hmac::Key);

impl Secret {
    /// The key in a file's text: `whsec_` and base64, as Standard Webhooks has it, or the characters themselves.
    ///
    /// # Errors
    /// What it expects.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let bytes = match text.strip_prefix("whsec_") {
            Some(digits) => BASE64.decode(digits.as_bytes()).map_err(|_| "is no base64 behind whsec_")?,
            None => text.as_bytes().to_vec(),
        };
        if !(SECRET_BYTES_MIN..=SECRET_BYTES_MAX).contains(&bytes.len()) {
            return Err(format!("expects a secret of {SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} bytes"));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    fn sign(&self, id: &str, timestamp: &str, body: &[u8]) -> String {
        let mut signing = hmac::Context::with_key(&self.0);
        for part in [id.as_bytes(), b".", timestamp.as_bytes(), b".", body] {
            signing.update(part);
        }
        format!("v1,{}", BASE64.encode(signing.sign().as_ref()))
    }
}

/// A batch; however often it is tried, its name and body stay.
#[derive(Debug)]
pub(super) struct Batch {
    /// `webhook-id`: by this a receiver knows one that it has had.
    id: String,
    body: Vec<u8>,
}

#[derive(Serialize)]
struct Body<'a> {
    /// Events that found no room before these.
    #[serde(skip_serializing_if = "is_zero")]
    missed: u64,
    events: &'a [Event],
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde gives it so")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

impl Batch {
    /// The batch of this number.
    pub(super) fn new(process: &str, number: u64, missed: u64, events: &[Event]) -> Self {
        // Nothing in it has a key that is no text.
        let body = serde_json::to_vec(&Body { missed, events }).unwrap_or_default();
        Self { id: format!("msg_{process}_{number}"), body }
    }

    /// What is posted at `now_s`, seconds since 1970: each try has a signature of its own, because receivers refuse old ones.
    pub(super) fn request(&self, secret: &Secret, now_s: u64) -> Request {
        signed_request(secret, &self.id, self.body.clone(), now_s)
    }
}

/// What is posted at `now_s`, seconds since 1970, under the name `id`: fields and signature of Standard Webhooks.
pub(in crate::service) fn signed_request(secret: &Secret, id: &str, body: Vec<u8>, now_s: u64) -> Request {
    let timestamp = now_s.to_string();
    let signature = secret.sign(id, &timestamp, &body);
    let fields = vec![
        ("content-type".to_owned(), b"application/json".to_vec()),
        ("webhook-id".to_owned(), id.as_bytes().to_vec()),
        ("webhook-timestamp".to_owned(), timestamp.into_bytes()),
        ("webhook-signature".to_owned(), signature.into_bytes()),
    ];
    Request { fields, body: Some(body) }
}

/// How long to wait behind so many failures, of which the server may have asked for a pause of its own; the last try is made when
/// the time for it is over. `None`: no more tries.
pub(super) fn pause(failures: u32, asked: Option<Duration>, tried_for: Duration) -> Option<Duration> {
    let left = TRIED_FOR.checked_sub(tried_for).filter(|left| !left.is_zero())?;
    let usual = PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(10)).min(PAUSE_MAX);
    let pause = asked.map_or(usual, |asked| asked.max(usual));
    Some(pause.min(left))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::webhook::event::What;

    /// The example of the specification of Standard Webhooks.
    #[test]
    fn signatures_are_those_of_standard_webhooks() {
        let secret = Secret::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n").unwrap();
        let signature = secret.sign("msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", br#"{"test": 2432232314}"#);
        assert_eq!(signature, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        assert!(Secret::parse("whsec_!").is_err() && Secret::parse("too short").is_err());
        assert!(Secret::parse(&"x".repeat(SECRET_BYTES_MIN)).is_ok());
    }

    #[test]
    fn a_batch_keeps_its_name_and_body_and_is_signed_anew() {
        let event = Event { what: What::occupied("a\"b"), time: 5 };
        let batch = Batch::new("0f", 7, 2, &[event]);
        let secret = Secret::parse(&"x".repeat(24)).unwrap();
        let [first, second] = [1, 2].map(|now| batch.request(&secret, now));
        let body = br#"{"missed":2,"events":[{"type":"occupied","topic":"a\"b","time":5}]}"#;
        assert_eq!((first.body.as_deref(), &first.body), (Some(&body[..]), &second.body));
        assert_eq!(first.fields[1], ("webhook-id".to_owned(), b"msg_0f_7".to_vec()));
        assert_eq!((first.fields[1] == second.fields[1], first.fields[3] == second.fields[3]), (true, false));
    }

    #[test]
    fn pauses_grow_and_tries_end_after_five_minutes() {
        let (mut waited, mut failures) = (Duration::ZERO, 0);
        loop {
            failures += 1;
            let Some(pause) = pause(failures, None, waited) else { break };
            assert!(pause <= PAUSE_MAX);
            waited += pause;
        }
        assert!((12..20).contains(&failures) && waited <= TRIED_FOR, "{failures}, {waited:?}");
        let asked = Some(Duration::from_secs(60));
        assert_eq!(pause(1, asked, Duration::ZERO), asked);
        // A batch is not given up early, because the server asks to be left alone.
        for asked in [asked, Some(Duration::from_secs(300))] {
            assert_eq!(pause(1, asked, Duration::from_secs(250)), Some(Duration::from_secs(50)));
        }
        assert_eq!(pause(9, asked, TRIED_FOR), None);
    }
}
