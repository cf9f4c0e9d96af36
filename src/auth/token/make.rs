//! Makes tokens, signed with a secret (HS256). Driven by the command line.

use std::path::Path;

use aws_lc_rs::hmac;
use data_encoding::BASE64URL_NOPAD;
use serde_json::{Map, Value};

use super::keys::{KeysError, secret};
use super::{IssuerPlan, Issuers, KeySource, LEEWAY_SECONDS};

/// What a token is to say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Order {
    /// Who bears it.
    pub sub: String,
    /// Topics and patterns that they may subscribe to.
    pub subscribe: Vec<String>,
    /// Those that they may publish to.
    pub publish: Vec<String>,
    /// Seconds for which it is good.
    pub seconds: u64,
    /// Who issues it.
    pub issuer: Option<String>,
    /// Whom it is for.
    pub audience: Vec<String>,
    /// Its own name.
    pub jti: Option<String>,
    /// The name of the secret.
    pub kid: Option<String>,
}

/// Makes a token that is good from now (seconds since 1970) on. `warnings` gets what is wrong with the secret's file.
///
/// # Errors
/// The file does not fit, or the token would not be taken, and why.
pub fn make(order: &Order, file: &Path, now: u64, warnings: &mut Vec<String>) -> Result<String, KeysError> {
    let fail = |problem: String| KeysError { file: file.to_owned(), problem };
    let secret = secret(file, warnings)?;
    let part =
        |values: Map<String, Value>| BASE64URL_NOPAD.encode(Value::from(values).to_string().as_bytes());
    let message = format!("{}.{}", part(order.header()), part(order.claims(now)));
    let signature = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, &secret), message.as_bytes());
    let token = format!("{message}.{}", BASE64URL_NOPAD.encode(signature.as_ref()));
    // As those who get it will look at it.
    let plan = IssuerPlan {
        issuer: order.issuer.clone(),
        audience: order.audience.clone(),
        leeway_seconds: LEEWAY_SECONDS,
        keys: vec![KeySource::Hmac { file: file.to_owned(), kid: order.kid.clone() }],
    };
    let issuers = Issuers::load(&[plan])?.issuers;
    match issuers.check(&token, now) {
        Ok(_) => Ok(token),
        Err(refusal) => Err(fail(format!("the token would not be taken: {refusal}"))),
    }
}

impl Order {
    fn header(&self) -> Map<String, Value> {
        let named = self.kid.iter().map(|kid| ("kid".to_owned(), kid.clone().into()));
        let usual = [("alg", "HS256"), ("typ", "JWT")].map(|(name, value)| (name.to_owned(), value.into()));
        usual.into_iter().chain(named).collect()
    }

    fn claims(&self, now: u64) -> Map<String, Value> {
        let mut claims = Map::new();
        let mut add = |name: &str, value: Option<Value>| {
            if let Some(value) = value {
                claims.insert(name.to_owned(), value);
            }
        };
        let list = |texts: &[String]| (!texts.is_empty()).then(|| Value::from(texts.to_vec()));
        add("iss", self.issuer.clone().map(Value::from));
        add("sub", Some(self.sub.clone().into()));
        add(
            "aud",
            match self.audience.as_slice() {
                [one] => Some(one.clone().into()),
                several => list(several),
            },
        );
        add("iat", Some(now.into()));
        add("exp", Some(now.saturating_add(self.seconds).into()));
        add("jti", self.jti.clone().map(Value::from));
        add("subscribe", list(&self.subscribe));
        add("publish", list(&self.publish));
        claims
    }
}
