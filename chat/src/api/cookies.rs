//! Cookies: the session, and the device, which says that somebody has logged in to an account here before. Scripts read
//! neither, and no other site's request carries them but a link that is followed.

use aws_lc_rs::hmac;
use axum::http::{HeaderMap, HeaderValue, header};
use data_encoding::BASE64URL_NOPAD;

use crate::random;
use crate::store::people::SESSION_SECONDS;

/// How long a device is known, in seconds.
const DEVICE_SECONDS: i64 = 365 * 86_400;

fn name(of: &str, is_secure: bool) -> String {
    // With this prefix a browser takes it only over TLS, and only of this very host.
    if is_secure { format!("__Host-fantail_chat_{of}") } else { format!("fantail_chat_{of}") }
}

fn read(headers: &HeaderMap, name: &str) -> Option<String> {
    let fields = headers.get_all(header::COOKIE).iter().filter_map(|field| field.to_str().ok());
    let mut pairs = fields.flat_map(|field| field.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(found, _)| *found == name).map(|(_, value)| value.to_owned())
}

/// The session that a request shows.
pub(super) fn session(headers: &HeaderMap, is_secure: bool) -> Option<String> {
    read(headers, &name("session", is_secure)).filter(|session| session.len() <= 64)
}

/// The device of an account that a request shows, if it is one that has logged in to it.
pub(super) fn device(headers: &HeaderMap, is_secure: bool, key: &str, account: &str) -> Option<String> {
    let value = read(headers, &name("device", is_secure))?;
    let (nonce, tag) = value.split_once('.')?;
    let tag = BASE64URL_NOPAD.decode(tag.as_bytes()).ok()?;
    hmac::verify(&device_key(key), signed(account, nonce).as_bytes(), &tag).ok()?;
    Some(nonce.to_owned())
}

/// The field that makes a session the browser's, or without one takes it away.
pub(super) fn set_session(session: Option<&str>, is_secure: bool) -> HeaderValue {
    let seconds = if session.is_some() { SESSION_SECONDS } else { 0 };
    set(&name("session", is_secure), session.unwrap_or_default(), seconds, is_secure)
}

/// The field that makes the browser a device of an account.
pub(super) fn set_device(key: &str, account: &str, is_secure: bool) -> HeaderValue {
    let nonce = random::id();
    let tag = hmac::sign(&device_key(key), signed(account, &nonce).as_bytes());
    let value = format!("{nonce}.{}", BASE64URL_NOPAD.encode(tag.as_ref()));
    set(&name("device", is_secure), &value, DEVICE_SECONDS, is_secure)
}

fn set(name: &str, value: &str, seconds: i64, is_secure: bool) -> HeaderValue {
    let secure = if is_secure { "; Secure" } else { "" };
    let text = format!("{name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    // Names and values are made here, of letters and digits.
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
}

fn device_key(key: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes())
}

fn signed(account: &str, nonce: &str) -> String {
    format!("device {nonce} of {account}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_known_for_its_account_only() {
        let field = set_device("key", "alice", false);
        let cookie = field.to_str().unwrap().split(';').next().unwrap().to_owned();
        let headers = |cookie: &str| {
            HeaderMap::from_iter([(
                header::COOKIE,
                HeaderValue::from_str(&format!("a=b; {cookie}; c=d")).unwrap(),
            )])
        };
        assert!(device(&headers(&cookie), false, "key", "alice").is_some());
        for (cookie, key, account) in [
            (&*cookie, "key", "bob"),
            (&cookie, "other", "alice"),
            (&cookie[..cookie.len() - 2], "key", "alice"),
        ] {
            assert_eq!(device(&headers(cookie), false, key, account), None);
        }
        // Another origin of plain HTTP could have set the one without the prefix.
        assert_eq!(device(&headers(&cookie), true, "key", "alice"), None);
        assert!(set_session(Some("x"), true).to_str().unwrap().ends_with("HttpOnly; SameSite=Lax; Secure"));
    }
}
