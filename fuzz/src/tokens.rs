//! Tokens: `auth::token`, as a stranger makes them up and as somebody signs them who has the secret.

use std::path::PathBuf;
use std::sync::OnceLock;

use aws_lc_rs::hmac;
use fantail::auth::token::{Claims, GRANTS_MAX, IssuerPlan, Issuers, KeySource, LEEWAY_SECONDS, inspect};
use fantail::topic::{LevelPattern, TopicName};
use serde_json::Value;

use crate::choice;

/// When it is, in seconds since 1970.
const NOW: u64 = 1_700_000_000;

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

/// Takes the bytes as a token, which nobody can forge; or, by the first of them, as header and claims, a line and the
/// rest, or as claims alone, signs that, and compares what is said with a simpler reading.
pub fn check(data: &[u8]) {
    let issuers = issuers();
    let (kind, data) = choice(data);
    if kind.is_multiple_of(3) {
        let token = String::from_utf8_lossy(data);
        let _ = inspect(&token);
        assert!(issuers.check(&token, NOW).is_err(), "signed without the secret: {token}");
        return;
    }
    let usual = &br#"{"alg":"HS256"}"#[..];
    let (header, claims) = match data.iter().position(|byte| *byte == b'\n') {
        Some(end) if kind % 3 == 1 => (&data[..end], &data[end + 1..]),
        _ => (usual, data),
    };
    let token = signed(header, claims);
    let Ok(taken) = issuers.check(&token, NOW) else { return };
    // Of what means nothing here the form is enough: no reader of all of it takes half of a surrogate pair, or 1e999.
    let whole = |bytes| serde_json::from_slice::<Value>(bytes);
    let (Ok(header), Ok(claims)) = (whole(header), whole(claims)) else { return };
    assert_eq!(header["alg"], "HS256");
    assert!(header.get("crit").is_none() && header.get("b64").is_none(), "{header}");
    check_claims(&claims, &taken);
    // One character more or less, and it is not good any more.
    let cut = token.get(..token.len() - 1).expect("ASCII");
    assert!(issuers.check(cut, NOW).is_err() && issuers.check(&format!("{token}A"), NOW).is_err());
    // Its time ends.
    assert!(issuers.check(&token, taken.expires + LEEWAY_SECONDS).is_err(), "good for ever: {claims}");
}

fn check_claims(claims: &Value, taken: &Claims) {
    assert!(claims.is_object(), "{claims}");
    assert_eq!(claims["sub"].as_str(), Some(&*taken.sub));
    assert!(!taken.sub.is_empty() && taken.sub.len() <= 200 && !taken.sub.chars().any(char::is_control));
    let seconds = claims["exp"].as_f64().expect("a number");
    assert!(seconds >= 0.0 && seconds as u64 == taken.expires, "{claims}");
    assert!(taken.expires + LEEWAY_SECONDS > NOW, "expired: {claims}");
    if let Some(nbf) = claims.get("nbf") {
        assert!(nbf.as_f64().expect("a number") < (NOW + LEEWAY_SECONDS + 1) as f64, "not yet: {claims}");
    }
    assert!(claims.get("aud").is_none(), "for somebody else: {claims}");
    assert!(claims.get("iss").is_none_or(Value::is_string), "{claims}");
    assert_eq!(claims.get("jti").map(|jti| jti.as_str().expect("text")), taken.jti.as_deref());
    for (name, grants) in [("subscribe", &taken.subscribe), ("publish", &taken.publish)] {
        let listed = claims.get(name).map_or(&[][..], |list| list.as_array().expect("a list"));
        assert_eq!(grants.is_some(), claims.get(name).is_some(), "{claims}");
        let Some(grants) = grants else { continue };
        let texts: Vec<_> = grants.texts(&taken.sub).collect();
        assert!(listed.len() <= GRANTS_MAX && texts.len() == listed.len(), "{claims}");
        for (text, listed) in texts.iter().zip(listed) {
            let listed = listed.as_str().expect("text");
            assert_eq!(*text, listed.replace("{sub}", &taken.sub), "{claims}");
            let is_pattern = text.contains('*');
            assert_eq!(is_pattern, TopicName::parse(&**text).is_err(), "{text}");
            assert_eq!(is_pattern, LevelPattern::parse(text).is_ok(), "{text}");
            // Whoever stands in a pattern stands in one level of it.
            assert_eq!(text.split('/').count(), listed.split('/').count(), "{text}");
            assert_eq!(is_pattern, listed.contains('*'), "{text}");
            assert!(is_pattern || grants.has(text, &taken.sub), "{text}");
        }
    }
}

fn signed(header: &[u8], claims: &[u8]) -> String {
    let base64 = |bytes: &[u8]| data_encoding::BASE64URL_NOPAD.encode(bytes);
    let message = format!("{}.{}", base64(header), base64(claims));
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, SECRET), message.as_bytes());
    format!("{message}.{}", base64(tag.as_ref()))
}

/// The same for every input: its secret is read once, from a file that goes at once.
fn issuers() -> &'static Issuers {
    static ISSUERS: OnceLock<Issuers> = OnceLock::new();
    ISSUERS.get_or_init(|| {
        let file: PathBuf = std::env::temp_dir().join(format!("fantail-fuzz-secret-{}", std::process::id()));
        std::fs::write(&file, SECRET).expect("a file");
        let keys = vec![KeySource::Hmac { file: file.clone(), kid: None }];
        let plan = IssuerPlan { issuer: None, audience: Vec::new(), leeway_seconds: LEEWAY_SECONDS, keys };
        let loaded = Issuers::load(&[plan]);
        let _ = std::fs::remove_file(&file);
        loaded.expect("a secret").issuers
    })
}
