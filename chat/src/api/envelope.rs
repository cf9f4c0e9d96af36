//! Envelopes of private messages, as far as who can't open them can look: that they have the form that pages make, in
//! bounds, say of themselves what the request says, and hold nothing beside it. What is inside is bytes.

use std::collections::BTreeMap;

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};

use crate::random;

/// A public key on P-256: an uncompressed point (SEC 1, 2.3.3).
const POINT_BYTES: usize = 65;
/// A content key of 32 bytes with the tag of AES-GCM.
const WRAPPED_BYTES: usize = 48;
const IV_BYTES: usize = 12;
/// Texts are filled up to multiples of this, so that their length says little.
const STEP_BYTES: usize = 256;
const TAG_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
/// 4,000 characters of four bytes and their length, filled up.
const TEXT_BYTES_MAX: usize = 16_128;
const HEADER_BYTES_MAX: usize = 2_048;
/// Eight of each of two.
const DEVICES_MAX: usize = 16;

/// A message that is sealed.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Envelope {
    /// JSON of a [`Header`], byte for byte what the seal covers.
    header: String,
    iv: String,
    body: String,
    /// The content key for each device.
    keys: BTreeMap<String, Wrapped>,
}

#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Wrapped {
    enc: String,
    key: String,
}

/// What an envelope says of itself.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Header {
    v: u8,
    conversation: String,
    from: String,
    pub(super) to: String,
    pub(super) device: String,
    /// That device's public key.
    pub(super) key: String,
    id: String,
    /// The newest message that its author had, by number and `client_id`.
    after: Option<(i64, String)>,
    /// A hash of the content key, by which devices know that all have the same.
    commitment: String,
    /// In order, each once.
    pub(super) devices: Vec<String>,
}

/// Looks at an envelope and gives what it says of itself, or what is wrong with it.
pub(super) fn look(
    envelope: &Envelope,
    conversation: &str,
    from: &str,
    id: &str,
) -> Result<Header, &'static str> {
    if envelope.header.len() > HEADER_BYTES_MAX {
        return Err("its header is too long");
    }
    let header: Header = serde_json::from_str(&envelope.header).map_err(|_| "its header is none")?;
    let says = (header.v, &*header.conversation, &*header.from, &*header.id);
    if says != (1, conversation, from, id) {
        return Err("its header says other things than the request");
    }
    let is_far = |(seq, id): &(i64, String)| *seq < 1 || !(8..=64).contains(&id.len());
    if header.after.as_ref().is_some_and(is_far) {
        return Err("its header names no message before it");
    }
    if !(1..=DEVICES_MAX).contains(&envelope.keys.len()) || !envelope.keys.keys().eq(&header.devices) {
        return Err("it is not for the devices that its header lists");
    }
    if device_id(&header.key).as_deref() != Some(&*header.device) {
        return Err("the key in its header is not its device's");
    }
    let bytes = |text: &str| BASE64URL_NOPAD.decode(text.as_bytes()).ok();
    let has = |text: &str, length: usize| bytes(text).is_some_and(|bytes| bytes.len() == length);
    if !has(&envelope.iv, IV_BYTES) {
        return Err("its iv has not 12 bytes of base64url");
    }
    if !has(&header.commitment, HASH_BYTES) {
        return Err("its header does not say which content key it is");
    }
    let whole = |wrapped: &Wrapped| is_point(&wrapped.enc) && has(&wrapped.key, WRAPPED_BYTES);
    if !envelope.keys.values().all(whole) {
        return Err("the key for a device has another form");
    }
    let length = bytes(&envelope.body).and_then(|body| body.len().checked_sub(TAG_BYTES));
    let fits =
        |length: usize| (STEP_BYTES..=TEXT_BYTES_MAX).contains(&length) && length.is_multiple_of(STEP_BYTES);
    if !length.is_some_and(fits) {
        return Err("its body has not the length of a text that was filled up");
    }
    Ok(header)
}

/// The name of a device by its public key, as pages make it, too; `None` if that is no key.
pub(super) fn device_id(key: &str) -> Option<String> {
    is_point(key).then(|| hash_of(key))
}

fn hash_of(key: &str) -> String {
    random::hash("fantail-chat device", key)
}

fn is_point(text: &str) -> bool {
    let bytes = BASE64URL_NOPAD.decode(text.as_bytes());
    bytes.is_ok_and(|bytes| bytes.len() == POINT_BYTES && bytes[0] == 4)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn zeros(length: usize) -> String {
        BASE64URL_NOPAD.encode(&vec![0; length])
    }

    fn point(last: u8) -> String {
        let mut bytes = [last; POINT_BYTES];
        bytes[0] = 4;
        BASE64URL_NOPAD.encode(&bytes)
    }

    fn parts() -> (Value, Value) {
        let device = device_id(&point(1)).unwrap();
        let header = json!({"v": 1, "conversation": "c", "from": "alice", "to": "bob", "device": device,
            "key": point(1), "id": "client-1", "after": [3, "client-0"], "commitment": zeros(32),
            "devices": [device]});
        let keys = json!({&device: {"enc": point(2), "key": zeros(WRAPPED_BYTES)}});
        (header, json!({"iv": zeros(12), "body": zeros(256 + 16), "keys": keys}))
    }

    fn told(header: &Value, mut envelope: Value) -> Result<Header, &'static str> {
        envelope["header"] = header.to_string().into();
        let envelope = serde_json::from_value(envelope).map_err(|_| "no envelope")?;
        look(&envelope, "c", "alice", "client-1")
    }

    #[test]
    fn a_device_is_called_as_pages_call_it() {
        // The same value is a test of the page's.
        assert_eq!(hash_of("BAEBAQ"), "2fbbb6d33e7f9830c89817dfe8b68a9138cea91815437dddff7f5fcdf28a71ab");
        assert_eq!(device_id("BAEBAQ"), None);
    }

    #[test]
    fn what_pages_make_is_taken() {
        let (header, envelope) = parts();
        assert_eq!(told(&header, envelope).unwrap().to, "bob");
        let (mut header, mut envelope) = parts();
        header["after"] = Value::Null;
        envelope["body"] = zeros(TEXT_BYTES_MAX + 16).into();
        assert!(told(&header, envelope).is_ok());
    }

    #[test]
    fn anything_else_is_not() {
        for (name, value) in [
            ("v", json!(2)),
            ("conversation", json!("d")),
            ("from", json!("bob")),
            ("id", json!("client-2")),
            ("device", json!("0".repeat(64))),
            ("key", json!(point(3))),
            ("key", json!(zeros(POINT_BYTES))),
            ("after", json!([0, "client-0"])),
            ("after", json!([1, "x".repeat(65)])),
            ("after", json!([1, "client-0", 2])),
            ("commitment", json!("")),
            ("commitment", json!(zeros(31))),
            ("commitment", Value::Null),
            ("devices", json!([])),
            ("devices", json!(["a"])),
            ("to", json!("x".repeat(HEADER_BYTES_MAX))),
            ("text", json!("in the clear")),
        ] {
            let (mut header, envelope) = parts();
            header[name] = value.clone();
            assert!(told(&header, envelope).is_err(), "{name} {value}");
        }
        for (name, value) in [
            ("iv", json!(zeros(11))),
            ("iv", json!("AAAAAAAAAAAAAAA=")),
            ("iv", json!("+/++++++++++++++")),
            ("body", json!("")),
            ("body", json!(zeros(16))),
            ("body", json!(zeros(255 + 16))),
            ("body", json!(zeros(TEXT_BYTES_MAX + 256 + 16))),
            ("keys", json!({})),
            ("text", json!("in the clear")),
        ] {
            let (header, mut envelope) = parts();
            envelope[name] = value.clone();
            assert!(told(&header, envelope).is_err(), "{name} {value}");
        }
        for (name, value) in [("enc", zeros(65)), ("enc", point(2) + "A"), ("key", zeros(47))] {
            let (header, mut envelope) = parts();
            let device = header["device"].as_str().unwrap();
            envelope["keys"][device][name] = value.clone().into();
            assert!(told(&header, envelope).is_err(), "{name} {value}");
        }
        let (mut header, mut envelope) = parts();
        let many: Vec<String> = (0..17).map(|number| format!("{number:02}")).collect();
        header["devices"] = json!(many);
        let one = json!({"enc": point(2), "key": zeros(WRAPPED_BYTES)});
        envelope["keys"] =
            many.iter().map(|id| (id.clone(), one.clone())).collect::<serde_json::Map<_, _>>().into();
        assert!(told(&header, envelope).is_err());
    }
}
