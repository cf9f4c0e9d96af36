//! Tokens that somebody made up, and those that are right: a row each.

use super::kit::{NOW, SECRET, TOKENS, TempFile, fixture, hs256, issuers, plan, signed};
use super::{Grants, Issuers, KeySource, Order, Refusal, TOKEN_BYTES_MAX, make};

const HEADER: &str = r#"{"alg":"HS256"}"#;

fn one_secret() -> Issuers {
    let file = TempFile::new(SECRET);
    issuers(&[plan(None, &[], vec![file.hmac()])])
}

fn said(rest: &str) -> String {
    format!(r#"{{"sub":"alice","exp":{}{rest}}}"#, NOW + 60)
}

#[test]
fn a_good_token_says_who_and_what() {
    let claims =
        said(r#","subscribe":["chat/**","users/{sub}/*"],"publish":["chat/a"],"jti":"7","other":{"a":1}"#);
    let of = one_secret().check(&hs256(&claims), NOW).unwrap();
    assert_eq!((&*of.sub, of.expires, of.jti.as_deref()), ("alice", NOW + 60, Some("7")));
    let (subscribe, publish) = (of.subscribe.unwrap(), of.publish.unwrap());
    for (topic, may) in [("chat/b/c", true), ("users/alice/x", true), ("users/bob/x", false)] {
        assert_eq!(subscribe.has(topic, &of.sub), may, "{topic}");
    }
    assert!(publish.has("chat/a", &of.sub) && !publish.has("chat/b", &of.sub));
    let silent = one_secret().check(&hs256(&said(r#","publish":[]"#)), NOW).unwrap();
    assert_eq!(
        (silent.subscribe, silent.publish),
        (None, Some(Grants::default())),
        "none and nothing differ"
    );
    for algorithm in ["HS256", "HS384", "HS512"] {
        let header = format!(r#"{{"alg":"{algorithm}"}}"#);
        let token = signed(algorithm, SECRET.as_bytes(), &header, &said(""));
        assert!(one_secret().check(&token, NOW).is_ok(), "{algorithm}");
    }
}

#[test]
fn times_are_numbers_and_hold() {
    use Refusal::{Expired, Missing, Mistyped, NotYet};
    let issuers = one_secret();
    let exp = |exp: &str| {
        issuers.check(&hs256(&format!(r#"{{"sub":"alice","exp":{exp}}}"#)), NOW).map(|of| of.expires)
    };
    // Thirty seconds of leeway, and not on or after the end.
    assert_eq!(exp(&(NOW - 29).to_string()), Ok(NOW - 29));
    assert_eq!(exp(&(NOW - 30).to_string()), Err(Expired));
    assert_eq!(exp(&format!("{}.75", NOW + 9)), Ok(NOW + 9));
    assert_eq!(exp("0"), Err(Expired));
    let milliseconds = format!("{NOW}000");
    for bad in [
        "\"1900000000\"",
        "\"\"",
        "null",
        "true",
        "-1",
        "1e20",
        "1e999",
        "18446744073709551615",
        "[1900000000]",
        "{}",
        &milliseconds,
    ] {
        assert_eq!(exp(bad), Err(Mistyped("exp")), "{bad}");
    }
    assert_eq!(issuers.check(&hs256(r#"{"sub":"alice"}"#), NOW), Err(Missing("exp")));
    let nbf = |nbf: &str| issuers.check(&hs256(&said(&format!(r#","nbf":{nbf}"#))), NOW).map(drop);
    assert_eq!((nbf(&NOW.to_string()), nbf(&(NOW + 30).to_string())), (Ok(()), Ok(())));
    assert_eq!(nbf(&(NOW + 31).to_string()), Err(NotYet));
    for bad in ["\"0\"", "null", "false", "-5", "1e20", "[0]"] {
        assert_eq!(nbf(bad), Err(Mistyped("nbf")), "{bad}");
    }
}

#[test]
fn headers_choose_nothing() {
    use Refusal::{Algorithm, Critical, Form, Signature};
    let issuers = one_secret();
    for (header, refusal) in [
        (r#"{"alg":"none"}"#, Algorithm),
        (r#"{"alg":"None"}"#, Algorithm),
        (r#"{"alg":""}"#, Algorithm),
        (r#"{"alg":"hs256"}"#, Algorithm),
        (r#"{"alg":"RS256"}"#, Algorithm),
        (r#"{"alg":"ES256"}"#, Algorithm),
        (r#"{"alg":"EdDSA"}"#, Algorithm),
        (r#"{"alg":"HS512"}"#, Signature),
        (r#"{"typ":"JWT"}"#, Form),
        (r#"{"alg":["HS256"]}"#, Form),
        (r#"{"alg":"HS256","alg":"none"}"#, Form),
        (r#"{"alg":"HS256","kid":1}"#, Form),
        (r#"{"alg":"HS256","b64":false}"#, Critical),
        (r#"{"alg":"HS256","b64":1}"#, Critical),
        (r#"{"alg":"HS256","crit":["exp"]}"#, Critical),
        (r#"{"alg":"HS256","b64":true,"crit":["b64"]}"#, Critical),
        (r#"{"alg":"HS256","crit":[]}"#, Critical),
        (r#"{"alg":"HS256","crit":null}"#, Critical),
        (r#"["HS256"]"#, Form),
        ("HS256", Form),
        ("", Form),
    ] {
        let token = signed("HS256", SECRET.as_bytes(), header, &said(""));
        assert_eq!(issuers.check(&token, NOW), Err(refusal), "{header}");
    }
    // A key that the token brings along, or says where to find, is not looked at.
    for brought in [
        r#""jwk":{"kty":"oct","k":"eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHh4eHg"}"#,
        r#""jku":"http://127.0.0.1:1/keys""#,
        r#""x5u":"http://127.0.0.1:1/keys""#,
        r#""kid":"../../../../dev/null""#,
    ] {
        let header = format!(r#"{{"alg":"HS256",{brought}}}"#);
        let own = signed("HS256", &[b'x'; 32], &header, &said(""));
        assert_eq!(issuers.check(&own, NOW), Err(Signature), "{brought}");
    }
}

#[test]
fn what_is_no_token_is_refused_at_once() {
    let issuers = one_secret();
    let good = hs256(&said(""));
    assert!(issuers.check(&good, NOW).is_ok());
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, claims) = message.split_once('.').unwrap();
    let rows = [
        (String::new(), Refusal::Form),
        ("..".to_owned(), Refusal::Form),
        (message.to_owned(), Refusal::Form),
        (format!("{good}.x"), Refusal::Form),
        (format!("{header}.{claims}.{signature}="), Refusal::Form),
        (format!("{header}=.{claims}.{signature}"), Refusal::Form),
        (format!("{header}.{claims}\n.{signature}"), Refusal::Form),
        (format!(" {good}"), Refusal::Form),
        (format!("{good} "), Refusal::Form),
        (format!("{message}."), Refusal::Signature),
        (format!("{message}.AAAA"), Refusal::Signature),
        (format!("{header}.{}.{signature}", claims.replacen('e', "f", 1)), Refusal::Form),
        (hs256("[]"), Refusal::Form),
        (hs256("null"), Refusal::Form),
        (hs256(""), Refusal::Form),
        (hs256(&said(r#","sub":"bob""#)), Refusal::Form),
        (hs256(&said(r#","exp":1900000000"#)), Refusal::Form),
        (hs256(&said(&format!(r#","x":"{}""#, "x".repeat(TOKEN_BYTES_MAX)))), Refusal::Size),
        (hs256(&format!("{}{}", "[".repeat(1000), "]".repeat(1000))), Refusal::Form),
        (hs256(&format!(r#"{{"sub":{}"#, "[".repeat(1000))), Refusal::Form),
    ];
    for (token, refusal) in rows {
        assert_eq!(issuers.check(&token, NOW), Err(refusal), "{token:.80}");
    }
    let deep = said(&format!(r#","x":{}{}"#, "[".repeat(1000), "]".repeat(1000)));
    assert!(issuers.check(&hs256(&deep), NOW).is_ok(), "what means nothing here is not looked into");
    let mut bytes = said(r#","x":"?""#).into_bytes();
    let at = bytes.iter().position(|byte| *byte == b'?').unwrap();
    bytes[at] = 0xff;
    let base64 = |bytes: &[u8]| data_encoding::BASE64URL_NOPAD.encode(bytes);
    let no_text = format!("{header}.{}.{signature}", base64(&bytes));
    assert_eq!(issuers.check(&no_text, NOW), Err(Refusal::Form), "no UTF-8 where nobody looks");
    // Each bit of a token counts, those of its last character, too.
    for place in 0..good.len() {
        let mut other = good.clone().into_bytes();
        other[place] = if other[place] == b'A' { b'B' } else { b'A' };
        let other = String::from_utf8(other).unwrap();
        assert!(issuers.check(&other, NOW).is_err(), "{place}");
    }
}

#[test]
fn who_and_for_whom_has_to_be_said_and_right() {
    use Refusal::{Audience, Missing, Mistyped};
    let secret = TempFile::new(SECRET);
    let with = |issuer, audience: &[&str], rest: &str| {
        let issuers = issuers(&[plan(issuer, audience, vec![secret.hmac()])]);
        issuers.check(&hs256(&said(rest)), NOW).map(drop)
    };
    assert_eq!(with(None, &[], ""), Ok(()));
    assert_eq!(with(None, &[], r#","aud":"app""#), Err(Audience));
    assert_eq!(with(None, &["app"], ""), Err(Missing("aud")));
    assert_eq!(with(None, &["app", "web"], r#","aud":["x","web"]"#), Ok(()));
    for wrong in [r#""App""#, r#""app ""#, r#"["x"]"#, "[]", r#""""#] {
        assert_eq!(with(None, &["app"], &format!(r#","aud":{wrong}"#)), Err(Audience), "{wrong}");
    }
    for mistyped in ["null", "1", r#"[1,"app"]"#, r#"{"app":1}"#] {
        assert_eq!(
            with(None, &["app"], &format!(r#","aud":{mistyped}"#)),
            Err(Mistyped("aud")),
            "{mistyped}"
        );
    }
    assert_eq!(with(None, &[], r#","iss":"whoever""#), Ok(()));
    assert_eq!(with(Some("us"), &[], r#","iss":"us""#), Ok(()));
    assert_eq!(with(Some("us"), &[], ""), Err(Missing("iss")));
    assert_eq!(with(Some("us"), &[], r#","iss":"Us""#), Err(Refusal::Issuer));
    assert_eq!(with(Some("us"), &[], r#","iss":["us"]"#), Err(Mistyped("iss")));
    let sub = |sub: &str| {
        let claims = format!(r#"{{"exp":{},"sub":{sub}}}"#, NOW + 60);
        one_secret().check(&hs256(&claims), NOW).map(drop)
    };
    let (long, longest) = (format!("\"{}\"", "x".repeat(201)), format!("\"{}\"", "x".repeat(200)));
    assert_eq!((sub("\"Zo\u{eb}\""), sub(&longest)), (Ok(()), Ok(())));
    for bad in ["\"\"", "null", "7", "[\"alice\"]", "\"a\\nb\"", "\"a\\u0000\"", &long] {
        assert_eq!(sub(bad), Err(Mistyped("sub")), "{bad}");
    }
    assert_eq!(with(None, &[], r#","jti":7"#), Err(Mistyped("jti")));
    for (rest, refusal) in [
        (r#","subscribe":"chat/**""#, Mistyped("subscribe")),
        (r#","subscribe":[1]"#, Mistyped("subscribe")),
        (r#","subscribe":null"#, Mistyped("subscribe")),
        (r#","publish":{"chat":true}"#, Mistyped("publish")),
        (r#","publish":["a*"]"#, Refusal::Pattern("publish")),
        (r#","subscribe":["a/**/b"]"#, Refusal::Pattern("subscribe")),
        (r#","subscribe":[""]"#, Refusal::Pattern("subscribe")),
    ] {
        assert_eq!(with(None, &[], rest), Err(refusal), "{rest}");
    }
    let wild = format!(r#"{{"sub":"*","exp":{},"subscribe":["users/{{sub}}/**"]}}"#, NOW + 60);
    assert_eq!(one_secret().check(&hs256(&wild), NOW), Err(Refusal::Substitution));
}

#[test]
fn keys_of_one_issuer_are_none_of_another() {
    let (ours, theirs) = (TempFile::new(SECRET), TempFile::new("f".repeat(32)));
    let named =
        |file: &TempFile, kid: &str| KeySource::Hmac { file: file.0.clone(), kid: Some(kid.to_owned()) };
    let both = issuers(&[
        plan(Some("ours"), &[], vec![named(&ours, "a")]),
        plan(Some("theirs"), &[], vec![named(&theirs, "b")]),
    ]);
    let check = |iss: &str, kid: &str, secret: &str| {
        let header = format!(r#"{{"alg":"HS256","kid":"{kid}"}}"#);
        let token = signed("HS256", secret.as_bytes(), &header, &said(&format!(r#","iss":"{iss}""#)));
        both.check(&token, NOW).map(drop)
    };
    let other = "f".repeat(32);
    assert_eq!((check("ours", "a", SECRET), check("theirs", "b", &other)), (Ok(()), Ok(())));
    assert_eq!(check("ours", "b", &other), Err(Refusal::Key), "their key for our name");
    assert_eq!(check("ours", "a", &other), Err(Refusal::Signature));
    assert_eq!(check("theirs", "a", SECRET), Err(Refusal::Key));
    assert_eq!(check("nobody", "a", SECRET), Err(Refusal::Issuer));
    // Without a name in the token, what the issuer has is tried.
    let unnamed = signed("HS256", SECRET.as_bytes(), HEADER, &said(r#","iss":"ours""#));
    assert!(both.check(&unnamed, NOW).is_ok());
    let two = |one, other| {
        Issuers::load(&[plan(one, &[], vec![ours.hmac()]), plan(other, &[], vec![theirs.hmac()])])
    };
    assert!(
        two(Some("a"), None).is_err()
            && two(Some("a"), Some("a")).is_err()
            && two(Some("a"), Some("b")).is_ok()
    );
}

#[test]
fn the_secret_before_is_good_too_and_only_so_many_are_tried() {
    let secrets: Vec<String> = (0..6).map(|number| number.to_string().repeat(32)).collect();
    let files: Vec<TempFile> = secrets.iter().map(TempFile::new).collect();
    let of =
        |count: usize| issuers(&[plan(None, &[], files.iter().take(count).map(TempFile::hmac).collect())]);
    let token = |number: usize| signed("HS256", secrets[number].as_bytes(), HEADER, &said(""));
    for number in [0, 1] {
        assert!(of(2).check(&token(number), NOW).is_ok(), "{number}");
    }
    assert_eq!(of(2).check(&token(2), NOW), Err(Refusal::Signature));
    assert!(of(4).check(&token(3), NOW).is_ok());
    assert_eq!(of(5).check(&token(0), NOW), Err(Refusal::Key), "too many without a kid");
    // 32 bytes are too few for the longer sums.
    let long = signed("HS512", secrets[0].as_bytes(), r#"{"alg":"HS512"}"#, &said(""));
    assert_eq!(of(1).check(&long, NOW), Err(Refusal::Algorithm));
}

#[test]
fn public_keys_check_what_openssl_signed_and_are_never_secrets() {
    let pem = |name: &str| KeySource::Pem { file: fixture(name), kid: None };
    let set = issuers(&[plan(None, &[], vec![KeySource::Jwks { file: fixture("keys.json") }])]);
    let mut seen = 0;
    for line in TOKENS.lines() {
        let (algorithm, token) = line.split_once(' ').unwrap();
        seen += 1;
        for (name, takes) in [
            ("rsa.pem", algorithm.starts_with("RS") || algorithm.starts_with("PS")),
            ("p256.pem", algorithm == "ES256"),
            ("p384.pem", algorithm == "ES384"),
            ("ed25519.pem", algorithm == "EdDSA"),
        ] {
            let one = issuers(&[plan(None, &[], vec![pem(name)])]);
            let expected = if takes { Ok("alice".into()) } else { Err(Refusal::Algorithm) };
            assert_eq!(one.check(token, NOW).map(|of| of.sub), expected, "{algorithm} {name}");
        }
        assert!(set.check(token, NOW).is_ok(), "{algorithm}");
        // One character of the claims is another.
        let (message, signature) = token.rsplit_once('.').unwrap();
        let (header, claims) = message.split_once('.').unwrap();
        let forged = claims.replacen("YWxp", "YWxq", 1);
        assert_ne!(forged, claims);
        assert_eq!(set.check(&format!("{header}.{forged}.{signature}"), NOW), Err(Refusal::Signature));
        // The signature of another token of the same key.
        assert_eq!(set.check(&format!("{message}.AAAA"), NOW), Err(Refusal::Signature), "{algorithm}");
    }
    assert_eq!(seen, 9);
    // The public key as the secret of an HMAC, in every form that a library might take for one.
    for name in ["rsa.pem", "p256.pem", "ed25519.pem"] {
        let text = std::fs::read_to_string(fixture(name)).unwrap();
        let body: String = text.lines().filter(|line| !line.starts_with('-')).collect();
        let der = data_encoding::BASE64.decode(body.as_bytes()).unwrap();
        let point = der.get(der.len() - 32..).unwrap();
        for secret in [text.as_bytes(), text.trim_end().as_bytes(), &der, point] {
            let token = signed("HS256", secret, HEADER, &said(""));
            for keys in [vec![pem(name)], vec![KeySource::Jwks { file: fixture("keys.json") }]] {
                let issuers = issuers(&[plan(None, &[], keys)]);
                assert_eq!(issuers.check(&token, NOW), Err(Refusal::Algorithm), "{name}");
            }
        }
    }
}

#[test]
fn what_is_made_is_taken_and_what_would_not_be_is_not_made() {
    let secret = TempFile::new(format!("{SECRET}\n"));
    let order = Order {
        sub: "alice".to_owned(),
        subscribe: vec!["users/{sub}/**".to_owned()],
        seconds: 60,
        issuer: Some("us".to_owned()),
        audience: vec!["app".to_owned()],
        jti: Some("7".to_owned()),
        kid: Some("k".to_owned()),
        ..Order::default()
    };
    let mut warnings = Vec::new();
    let token = make(&order, &secret.0, NOW, &mut warnings).unwrap();
    let issuers = issuers(&[plan(Some("us"), &["app"], vec![secret.hmac()])]);
    let of = issuers.check(&token, NOW).unwrap();
    assert_eq!(
        (of.expires, of.jti.as_deref(), of.subscribe.unwrap().texts("alice").next().as_deref()),
        (NOW + 60, Some("7"), Some("users/alice/**"))
    );
    let (header, _) = super::inspect(&token).unwrap();
    assert_eq!((header["alg"].as_str(), header["kid"].as_str()), (Some("HS256"), Some("k")));
    for (order, reason) in [
        (Order { sub: String::new(), ..order.clone() }, "its sub is"),
        (Order { sub: "a/b".to_owned(), ..order.clone() }, "more than one level"),
        (Order { publish: vec!["a*".to_owned()], ..order.clone() }, "in its publish"),
        (Order { subscribe: vec!["x".repeat(199); 64], ..order.clone() }, "longer than 4096"),
    ] {
        let error = make(&order, &secret.0, NOW, &mut warnings).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    assert_eq!(warnings, Vec::<String>::new());
}
