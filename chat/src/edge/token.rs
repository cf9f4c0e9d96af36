//! Tokens (RFC 7519) that say who somebody is and which topics are for them: HS256 with the secret that the edge has.

use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;
use serde_json::json;

/// How long one is good. What somebody may do no longer they may do for as long at most, if the edge forgets that their
/// tokens were revoked; the page gets another one before.
pub(crate) const LIVES_SECONDS: i64 = 300;

/// Makes tokens.
pub(crate) struct Signer(hmac::Key);

impl Signer {
    /// With a secret of at least 32 bytes.
    pub(crate) fn new(secret: &str) -> Result<Self, String> {
        let secret = secret.trim_ascii();
        if secret.len() < 32 {
            return Err(format!("a secret for tokens has at least 32 bytes, this one has {}", secret.len()));
        }
        Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())))
    }

    /// A token of `sub` for these topics, issued at `issued` (seconds since 1970).
    pub(crate) fn token(&self, sub: &str, topics: &[String], issued: i64) -> String {
        let claims = json!({
            "iss": "fantail-chat", "aud": ["fantail-chat"], "sub": sub, "iat": issued,
            "exp": issued.saturating_add(LIVES_SECONDS), "subscribe": topics, "publish": [],
        });
        let base64 = |text: &str| BASE64URL_NOPAD.encode(text.as_bytes());
        let message = format!("{}.{}", base64(r#"{"alg":"HS256","typ":"JWT"}"#), base64(&claims.to_string()));
        let signature = hmac::sign(&self.0, message.as_bytes());
        format!("{message}.{}", BASE64URL_NOPAD.encode(signature.as_ref()))
    }
}
