//! The table of attacks with tokens, and that of what a token allows: each row in every way to show one, four of a handshake and
//! the command of json.

use fantail::wire::frame::Opcode;
use serde_json::{Value, json};

use crate::bearers::{OTHER, RULES, SECRET, Secret, ask, good, now, signed, speaker, start, token};
use crate::client::{Answer, Peer};
use crate::reload::ConfigFile;
use crate::server::Server;

/// A way of a handshake.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Way {
    Field,
    Subprotocol,
    Cookie,
    Query,
}

const WAYS: [Way; 4] = [Way::Field, Way::Subprotocol, Way::Cookie, Way::Query];

/// Paths of each dialect, and how one is answered there who is let in.
const PATHS: [(&str, u16); 3] = [("/ws/a", 101), ("/sse/a", 200), ("/poll/a?wait=0", 204)];

/// Asks for a path and shows a token in one of the ways.
pub(crate) fn show(server: &Server, path: &str, way: Way, token: &str) -> Answer {
    let (path, fields) = match way {
        Way::Field => (path.to_owned(), format!("Authorization: Bearer {token}\r\n")),
        Way::Subprotocol => {
            (path.to_owned(), format!("Sec-WebSocket-Protocol: fantail.plain.v1, fantail.token.{token}\r\n"))
        }
        Way::Cookie => (
            path.to_owned(),
            format!("Origin: http://{}\r\nCookie: fantail_token={token}\r\n", server.listen),
        ),
        Way::Query => {
            let sign = if path.contains('?') { '&' } else { '?' };
            (format!("{path}{sign}token={token}"), String::new())
        }
    };
    ask(server, &path, &fields)
}

/// What a json connection is told when it shows its first token by the command.
fn command(server: &Server, token: &str) -> (Peer, Value, String) {
    let mut peer = speaker(server, "");
    let shown = json!({"type": "authenticate", "id": 7, "token": token});
    peer.send_frame(Opcode::Text, shown.to_string().as_bytes());
    let text = peer.text();
    (peer, serde_json::from_str(&text).expect("JSON"), text)
}

/// Tokens that are not taken, by what is wrong with them. The last one has only come too late.
fn attacks() -> Vec<(&'static str, String)> {
    let claims = |more: &str| format!(r#"{{"iss":"us","aud":"app","sub":"alice"{more}}}"#);
    let exp = |seconds: i64| format!(r#","exp":{}"#, now().saturating_add_signed(seconds));
    let with = |more: &str| good(&claims(&format!("{}{more}", exp(240))));
    let right = claims(&exp(240));
    let of_sub =
        |sub: &str, more: &str| good(&right.replace("\"alice\"", sub).replace('}', &format!("{more}}}")));
    let header = |header: &str, secret: &str| signed(secret, header, &right);
    let lines = include_str!("../fixtures/tokens/tokens.txt").lines();
    let of_public_key = lines.filter_map(|line| line.split_once(' ')).next().expect("a token").1;
    let many = vec!["\"a\""; 65].join(",");
    vec![
        ("empty", String::new()),
        ("nonsense", "nonsense".to_owned()),
        ("dots", "..".to_owned()),
        ("a part too many", format!("{}.x", good(&right))),
        ("five parts", "a.b.c.d.e".to_owned()),
        ("no signature", format!("{}.", good(&right).rsplit_once('.').expect("a signature").0)),
        ("padded", format!("{}=", good(&right))),
        ("too long", with(&format!(r#","x":"{}""#, "x".repeat(3_000)))),
        ("another secret", header(r#"{"alg":"HS256"}"#, OTHER)),
        ("unsigned", header(r#"{"alg":"none"}"#, SECRET)),
        ("unsigned, in another case", header(r#"{"alg":"nOnE"}"#, SECRET)),
        ("another algorithm", header(r#"{"alg":"RS256"}"#, SECRET)),
        ("a longer sum than the secret is good for", header(r#"{"alg":"HS512"}"#, SECRET)),
        ("two algorithms", header(r#"{"alg":"HS256","alg":"none"}"#, SECRET)),
        ("of a public key", of_public_key.to_owned()),
        ("critical", header(r#"{"alg":"HS256","crit":["exp"]}"#, SECRET)),
        ("not encoded", header(r#"{"alg":"HS256","b64":false}"#, SECRET)),
        ("a file for a key", header(r#"{"alg":"HS256","kid":"../../../../dev/null"}"#, OTHER)),
        ("a key of another type", header(r#"{"alg":"HS256","kid":1}"#, SECRET)),
        ("an address of keys", header(r#"{"alg":"HS256","jku":"http://127.0.0.1:1/keys"}"#, OTHER)),
        (
            "a key that it brings along",
            header(
                r#"{"alg":"HS256","jwk":{"kty":"oct","k":"ZmVkY2JhOTg3NjU0MzIxMGZlZGNiYTk4NzY1NDMyMTA"}}"#,
                OTHER,
            ),
        ),
        ("no exp", good(&claims(""))),
        ("exp in quotation marks", good(&claims(&format!(r#","exp":"{}""#, now() + 240)))),
        ("exp without end", good(&claims(r#","exp":1e999"#))),
        ("exp in milliseconds", good(&claims(&format!(r#","exp":{}000"#, now() + 240)))),
        ("exp that is null", good(&claims(r#","exp":null"#))),
        ("nbf in quotation marks", with(r#","nbf":"1""#)),
        ("not yet", with(&format!(r#","nbf":{}"#, now() + 200))),
        ("another audience", good(&right.replace("app", "apple"))),
        ("an audience that begins so", good(&right.replace("\"app\"", "[\"app/x\",\"ap\"]"))),
        ("no audience", good(&right.replace("\"aud\"", "\"au\""))),
        ("another issuer", good(&right.replace("\"us\"", "\"them\""))),
        ("an issuer in another case", good(&right.replace("\"us\"", "\"US\""))),
        ("issuers in a list", good(&right.replace("\"us\"", "[\"us\"]"))),
        ("no issuer", good(&right.replace("\"iss\"", "\"is\""))),
        ("claims twice", with(&exp(240))),
        ("no sub", good(&right.replace("\"sub\"", "\"su\""))),
        ("an empty sub", of_sub("\"\"", "")),
        ("a number for a sub", of_sub("7", "")),
        ("a sub of two lines", of_sub("\"alice\\n\"", "")),
        ("a sub that is too long", of_sub(&format!("\"{}\"", "x".repeat(201)), "")),
        ("a path for a sub", of_sub("\"a/b\"", r#","subscribe":["{sub}/**"]"#)),
        ("a slash for a sub", of_sub("\"/\"", r#","subscribe":["users/{sub}"]"#)),
        ("a slash that is escaped", of_sub("\"a\\u002fb\"", r#","subscribe":["users/{sub}/x"]"#)),
        ("a star for a sub", of_sub("\"*\"", r#","publish":["{sub}"]"#)),
        ("two stars for a sub", of_sub("\"**\"", r#","subscribe":["users/{sub}"]"#)),
        ("text for a list", with(r#","subscribe":"**""#)),
        ("a list of numbers", with(r#","publish":[1]"#)),
        ("a pattern that is none", with(r#","subscribe":["a/**/b"]"#)),
        ("too many patterns", with(&format!(r#","subscribe":[{many}]"#))),
        ("expired", good(&claims(&exp(-60)))),
    ]
}

#[test]
fn a_token_is_the_same_in_every_way_and_dialect() {
    let secret = Secret::new(SECRET);
    let config = ConfigFile::new(&format!(
        "[auth]\nquery_token = true\n{}",
        secret.issuer("issuer = \"us\"\naudience = [\"app\"]")
    ));
    let server = start(&config);
    let attacks = attacks();
    // Neither the token nor the secret, nor what it says of its bearer.
    let leaks = |told: &str, token: &str| {
        (token.len() > 10 && told.contains(token)) || told.contains(SECRET) || told.contains("alice")
    };
    for (attack, token) in &attacks {
        let expired = *attack == "expired";
        for way in WAYS {
            for (path, _) in PATHS {
                let answer = show(&server, path, way, token);
                assert_eq!(answer.status, 401, "{attack} {way:?} {path}: {}", answer.head);
                let challenge = answer.field("www-authenticate").expect("a challenge");
                assert!(challenge.contains("error=\"invalid_token\""), "{attack} {way:?}: {challenge}");
                let told = format!("{}{}", answer.head, answer.text());
                assert!(!leaks(&told, token), "{attack} {way:?}: {told}");
            }
        }
        let (mut peer, told, text) = command(&server, token);
        let code = if expired { "token_expired" } else { "token_invalid" };
        assert_eq!((&told["code"], &told["id"]), (&json!(code), &json!(7)), "{attack}: {text}");
        assert!(!leaks(&text, token), "{attack}: {text}");
        // It is nobody's still.
        peer.send_frame(Opcode::Text, br#"{"type":"subscribe","topic":"a"}"#);
        assert!(peer.text().contains("\"unauthorized\""), "{attack}");
    }
    let shown = (WAYS.len() * PATHS.len()) as u64;
    let invalid = attacks.len() as u64 - 1;
    assert_eq!(server.metric("fantail_refusals_total", "token_invalid"), invalid * shown);
    assert_eq!(server.metric("fantail_refusals_total", "token_expired"), shown);
    let right = format!(r#"{{"iss":"us","aud":"app","sub":"alice","exp":{}}}"#, now() + 240);
    for way in WAYS {
        for (path, status) in PATHS.into_iter().chain([("/echo", 426)]) {
            let answer = show(&server, path, way, &good(&right));
            assert_eq!(answer.status, status, "{path} {way:?}: {}", answer.head);
            let chosen = (way == Way::Subprotocol && status == 101).then_some("fantail.plain.v1");
            assert_eq!(answer.field("sec-websocket-protocol"), chosen, "never the token");
        }
        // Only of a URL it is decoded.
        let status = if way == Way::Query { 101 } else { 401 };
        assert_eq!(show(&server, "/ws/a", way, &good(&right).replace('.', "%2E")).status, status, "{way:?}");
    }
    assert_eq!(command(&server, &good(&right)).1["type"], "authenticated");
    // In a URL it may be read by others, so that it must not be good for long.
    let long = good(&right.replace("\"exp\":", "\"exp\":1"));
    assert_eq!(show(&server, "/ws/a", Way::Query, &long).status, 401);
    assert_eq!(show(&server, "/ws/a", Way::Field, &long).status, 101);
    server.terminate();
    let log = server.rest_of_log();
    for token in attacks.iter().map(|(_, token)| token).filter(|token| token.len() > 10).chain([&long]) {
        assert!(!log.contains(token.as_str()), "{log}");
    }
}

/// A topic or pattern as a URL has it, and how those are answered whose token lists some, none in particular, and nothing.
const EDGES: [(&str, [u16; 3]); 30] = [
    ("users/alice/a", [101, 101, 403]),
    ("users%2Falice%2Fa%2Fb", [101, 101, 403]),
    // Dots mean nothing in names.
    ("users/alice/../bob/a", [101, 101, 403]),
    ("users/bob/a", [403, 101, 403]),
    ("users/alice", [403, 101, 403]),
    ("users/alicex/a", [403, 101, 403]),
    ("users/alice%20/a", [403, 101, 403]),
    ("users//alice/a", [403, 101, 403]),
    ("xusers/alice/a", [403, 101, 403]),
    ("Users/alice/a", [403, 101, 403]),
    ("users/alic%D0%B5/a", [403, 101, 403]),
    ("users/%EF%BD%81lice/a", [403, 101, 403]),
    ("users/%7Bsub%7D/a", [403, 101, 403]),
    ("users/%2561lice/a", [403, 101, 403]),
    ("jos%C3%A9", [101, 101, 403]),
    ("jose%CC%81", [403, 101, 403]),
    ("chat/a", [101, 101, 403]),
    ("chat/a/b", [403, 101, 403]),
    ("chat", [403, 101, 403]),
    ("chat/*", [101, 101, 403]),
    // Where a token lists nothing, a pattern that no rule closes is open.
    ("users/alice/**", [101, 101, 403]),
    ("chat/**", [403, 101, 403]),
    ("users/*/a", [403, 101, 403]),
    ("**", [403, 403, 403]),
    ("open/**", [101, 101, 101]),
    ("listed/a", [101, 403, 403]),
    ("listed/b", [403, 403, 403]),
    ("listed/*", [403, 403, 403]),
    ("staff/rota", [403, 403, 403]),
    ("chat/a?topic=staff/rota", [403, 403, 403]),
];

#[test]
fn rules_are_the_ceiling_and_claims_the_limit_under_it_in_every_way() {
    let secret = Secret::new(SECRET);
    let config = ConfigFile::new(&format!("[auth]\nquery_token = true\n{RULES}{}", secret.issuer("")));
    let server = start(&config);
    let list = r#","subscribe":["users/{sub}/**","chat/*","staff/**","listed/a","jos\u00e9"]"#;
    let tokens = [token("alice", list), token("alice", ""), token("alice", r#","subscribe":[]"#)];
    for (of, token) in tokens.iter().enumerate() {
        let (mut peer, told, _) = command(&server, token);
        assert_eq!(told["type"], "authenticated");
        for (path, statuses) in EDGES {
            let status = statuses[of];
            for way in WAYS {
                let answer = show(&server, &format!("/ws/{path}"), way, token);
                assert_eq!(answer.status, status, "{path} {of} {way:?}: {}", answer.text());
                let scope =
                    answer.field("www-authenticate").is_some_and(|told| told.contains("insufficient_scope"));
                // By the rule alone nobody may, whatever the token says.
                let by_rule =
                    path == "**" || path.contains("staff") && !(of == 2 && path.starts_with("chat"));
                assert_eq!(scope, status == 403 && !by_rule, "{path} {of} {way:?}: {}", answer.head);
            }
            // In json, of a pattern that comes which may, and several topics are several answers.
            if path.contains(['*', '?']) {
                continue;
            }
            let name = decoded(path);
            peer.send_frame(Opcode::Text, json!({"type": "subscribe", "topic": name}).to_string().as_bytes());
            let text = peer.text();
            let told: Value = serde_json::from_str(&text).expect("JSON");
            let expected = if status == 101 { "subscribed" } else { "not_allowed" };
            assert!(told["type"] == expected || told["code"] == expected, "{path} {of}: {text}");
        }
    }
}

#[test]
fn whoever_bears_it_stands_in_one_level_whatever_they_are_called() {
    let secret = Secret::new(SECRET);
    let config = ConfigFile::new(&format!("[auth]\nquery_token = true\n{}", secret.issuer("")));
    let server = start(&config);
    let list = r#","subscribe":["users/{sub}/**"]"#;
    // What they are called, what is theirs, and what looks as if it were.
    for (sub, own, others) in [
        ("a%2Fb", "users/a%252Fb/x", ["users/a%2Fb/x", "users/a/b/x", "users/a%252fb/x"]),
        ("..", "users/../x", ["users/x", "x", "users/.../x"]),
        ("{sub}", "users/%7Bsub%7D/x", ["users/alice/x", "users/%7B%7Bsub%7D%7D/x", "users/sub/x"]),
        ("%2A", "users/%252A/x", ["users/%2A/x", "users/alice/x", "users/**"]),
        ("\u{e9}", "users/%C3%A9/x", ["users/e%CC%81/x", "users/e/x", "users/%C3%89/x"]),
        (" ", "users/%20/x", ["users//x", "users/%20%20/x", "users/+x/x"]),
    ] {
        let token = token(sub, list);
        for way in WAYS {
            let status = |path: &str| show(&server, &format!("/ws/{path}"), way, &token).status;
            assert_eq!(status(own), 101, "{sub} {way:?}");
            for other in others {
                assert_eq!(status(other), 403, "{sub} {other} {way:?}");
            }
        }
    }
}

/// A path without its percent signs.
fn decoded(path: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = path.as_bytes();
    while let Some((first, behind)) = rest.split_first() {
        let hex = behind.get(..2).filter(|_| *first == b'%').and_then(|hex| std::str::from_utf8(hex).ok());
        match hex.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            None => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8(bytes).expect("UTF-8")
}
