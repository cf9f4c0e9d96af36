//! Sets of keys (RFC 7517, 5): `auth::token::FetchedKeys`, with what an address answers.

use std::fmt;
use std::sync::Arc;

use data_encoding::BASE64URL_NOPAD;
use fantail::auth::token::{FetchedKeys, IssuerPlan, Issuers, KeySource, LEEWAY_SECONDS};
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::{Value, json};

/// When it is, in seconds since 1970.
const NOW: u64 = 1_700_000_000;

/// Keys that a set may have.
const KEYS_MAX: usize = 64;

/// A set of one key (RFC 8037, A.2).
const GOOD: &str =
    r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;

/// Takes the bytes as a set in place of another one. Of no use it changes nothing; otherwise it has no more keys than a
/// simpler reading finds, says of each other one why, shows nothing private, and no made-up signature is good for it.
pub fn check(data: &[u8]) {
    let keys = Arc::new(FetchedKeys::default());
    keys.replace(GOOD.as_bytes(), &mut Vec::new()).expect("a key");
    let mut skipped = Vec::new();
    let taken = keys.replace(data, &mut skipped);
    let read = serde_json::from_slice::<Set>(data);
    if let Ok(set) = &read {
        let said = skipped.iter().chain(taken.as_ref().err());
        said.for_each(|said| assert!(!set.private().any(|part| said.contains(part)), "{said}"));
    }
    if taken.is_err() {
        assert_eq!(keys.count(), 1, "the one before stays");
        return;
    }
    let count = keys.count();
    assert!((1..=KEYS_MAX).contains(&count));
    try_signatures(data, &keys);
    keys.replace(data, &mut Vec::new()).expect("as before");
    assert_eq!(keys.count(), count);
    // Of what means nothing here the form is enough: this reading takes no half of a surrogate pair, and no 1e999.
    let Ok(set) = read else { return };
    let usable = set.keys.iter().filter(|key| key.is_usable()).count();
    assert!(count <= usable, "{count} of {usable}");
    assert!(count + skipped.len() >= set.keys.len(), "nothing is said of some: {skipped:?}");
    assert!(skipped.len() <= 2 * set.keys.len());
    assert!(
        set.keys.len() <= KEYS_MAX && !set.keys.iter().any(|key| key.all("kty").any(|kind| kind == "oct"))
    );
}

/// Nobody has signed anything with the private parts of what a fuzzer makes up.
fn try_signatures(data: &[u8], keys: &Arc<FetchedKeys>) {
    let source = KeySource::Url { url: "https://fuzz.example/keys".to_owned(), ca: None };
    let plan =
        IssuerPlan { issuer: None, audience: Vec::new(), leeway_seconds: LEEWAY_SECONDS, keys: vec![source] };
    let loaded = Issuers::load_with(&[plan], |_, _| Ok(Arc::clone(keys))).expect("an address");
    let kinds = [("RS256", 256), ("PS512", 512), ("ES256", 64), ("ES384", 96), ("EdDSA", 64), ("HS256", 32)];
    let (alg, bytes) = kinds[data.len() % kinds.len()];
    let parts = [
        json!({"alg": alg}).to_string().into_bytes(),
        json!({"sub": "alice", "exp": NOW + 60}).to_string().into_bytes(),
        vec![data.len() as u8; bytes],
    ];
    let token = parts.map(|part| BASE64URL_NOPAD.encode(&part)).join(".");
    assert!(loaded.issuers.check(&token, NOW).is_err(), "{alg}");
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Key>,
}

/// The members of a key in their order, those that come twice among them.
struct Key(Vec<(String, Value)>);

impl Set {
    /// Private parts that are long enough not to be there by chance.
    fn private(&self) -> impl Iterator<Item = &str> {
        let parts = self.keys.iter().flat_map(|key| key.all("d").chain(key.all("k")));
        parts.filter_map(Value::as_str).filter(|part| part.len() >= 16)
    }
}

impl Key {
    fn all(&self, name: &str) -> impl Iterator<Item = &Value> {
        self.0.iter().filter(move |member| member.0 == name).map(|member| &member.1)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.all(name).next().and_then(Value::as_str)
    }

    /// Whether it may be one that is taken. Of one that says something twice it is not known.
    fn is_usable(&self) -> bool {
        let mut names: Vec<_> = self.0.iter().map(|member| &member.0).collect();
        names.sort_unstable();
        if names.windows(2).any(|pair| pair[0] == pair[1]) {
            return true;
        }
        let bytes = |name: &str| BASE64URL_NOPAD.decode(self.text(name)?.as_bytes()).ok();
        let len = |name: &str| bytes(name).map(|bytes| bytes.len());
        let is_meant = self.all("use").all(|meant| meant.is_null() || meant == "sig");
        is_meant
            && match (self.text("kty"), self.text("crv")) {
                (Some("RSA"), _) => len("n").is_some_and(|n| n >= 256) && len("e").is_some_and(|e| e > 0),
                (Some("EC"), Some("P-256")) => len("x") == Some(32) && len("y") == Some(32),
                (Some("EC"), Some("P-384")) => len("x") == Some(48) && len("y") == Some(48),
                (Some("OKP"), Some("Ed25519")) => len("x") == Some(32),
                _ => false,
            }
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Key;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut members: M) -> Result<Key, M::Error> {
                let mut all = Vec::new();
                while let Some(member) = members.next_entry()? {
                    all.push(member);
                }
                Ok(Key(all))
            }
        }
        from.deserialize_map(Members)
    }
}
