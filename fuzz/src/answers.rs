//! What an application answers about a handshake: `auth::token::Told`, by whatever it may send.

use fantail::auth::token::{GRANTS_MAX, Told};
use fantail::topic::TopicName;
use serde_json::Value;

/// When it is, in seconds since 1970.
const NOW: u64 = 1_700_000_000;

/// Takes the bytes as an answer, and compares what it comes to with a simpler reading.
pub fn check(data: &[u8]) {
    let Ok(told) = Told::read(data, NOW, &["tenant".to_owned()]) else { return };
    // Of what means nothing here the form is enough: no reader of all of it takes half of a surrogate pair, or 1e999.
    let Ok(whole) = serde_json::from_slice::<Value>(data) else { return };
    assert_eq!(whole["allow"].as_bool(), Some(told.is_some()), "let in or not as it was not said: {whole}");
    let Some(told) = told else { return };
    let claims = &told.claims;
    assert_eq!(whole["sub"].as_str(), Some(&*claims.sub));
    assert!(!claims.sub.is_empty() && claims.sub.len() <= 200 && !claims.sub.chars().any(char::is_control));
    assert!(claims.expires > NOW, "over already: {whole}");
    if let Some(seconds) = whole.get("exp") {
        assert_eq!(seconds.as_f64().expect("a number") as u64, claims.expires);
    }
    for (name, grants) in [("subscribe", &claims.subscribe), ("publish", &claims.publish)] {
        let listed = whole.get(name).map(|list| list.as_array().expect("a list").len());
        assert_eq!(
            grants.as_ref().map(|grants| grants.texts(&claims.sub).count()),
            listed,
            "{name}: {whole}"
        );
        assert!(listed.unwrap_or_default() <= GRANTS_MAX);
    }
    let carried =
        claims.carried.as_deref().map(|carried| serde_json::from_str::<Value>(carried).expect("JSON"));
    assert_eq!(carried.as_ref().map(|carried| &carried["tenant"]), whole.get("tenant"), "{whole}");
    let topics: Vec<&str> = told.topics.iter().map(|topic| topic.as_str()).collect();
    let listed = whole.get("topics").map(|list| list.as_array().expect("a list"));
    let listed: Vec<&str> =
        listed.into_iter().flatten().map(|topic| topic.as_str().expect("a text")).collect();
    assert!(topics == listed && topics.len() <= 64, "{whole}");
    assert!(topics.iter().all(|topic| TopicName::parse(*topic).is_ok()));
    let data = told.data.as_deref().map_or(Value::Null, |data| serde_json::from_str(data).expect("JSON"));
    assert_eq!(&data, whole.get("data").unwrap_or(&Value::Null));
}
