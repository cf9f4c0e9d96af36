//! `fantail token`: what it makes it takes, what it explains is what was said, and no secret is ever shown.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use serde_json::Value;

use crate::kit::{Server as Login, answered, ok};
use crate::reload::ConfigFile;
use crate::server::command;

const SECRET: &str = "0123456789abcdef0123456789abcdef";

/// A folder that goes with the test, and the secret in it.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("fantail-tokens-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).expect("a folder");
        let folder = Self(path);
        folder.write("secret", &format!("{SECRET}\n"));
        folder
    }

    fn write(&self, name: &str, content: &str) -> String {
        let path = self.0.join(name);
        fs::write(&path, content).expect("a file");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("a mode");
        path.to_str().expect("UTF-8").to_owned()
    }

    fn secret(&self) -> String {
        self.0.join("secret").to_str().expect("UTF-8").to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn token(arguments: &[&str], input: &str) -> Output {
    let mut child =
        command(&[&["token"], arguments].concat(), &[]).stdin(Stdio::piped()).spawn().expect("it starts");
    child.stdin.take().expect("piped").write_all(input.as_bytes()).expect("it reads");
    child.wait_with_output().expect("it ends")
}

fn text(output: &Output) -> (String, String) {
    let utf8 = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("UTF-8");
    (utf8(&output.stdout), utf8(&output.stderr))
}

#[test]
fn what_is_made_is_good_and_explained() {
    let folder = Folder::new("made");
    let secret = folder.secret();
    let for_app = ["--issuer", "us", "--audience", "app", "--hmac-file", &secret];
    let wanted = ["--sub", "alice", "--subscribe", "users/{sub}/**", "--seconds", "600"];
    let made = token(&[&wanted[..], &for_app].concat(), "");
    let (made, said) = text(&made);
    assert_eq!((made.split('.').count(), said.as_str()), (3, ""));
    let explained = token(&[&["--check"][..], &for_app].concat(), &format!("Bearer {made}"));
    assert!(explained.status.success());
    let (explained, _) = text(&explained);
    for part in [
        "header\n",
        "alg        \"HS256\"",
        "sub        \"alice\"",
        "subscribe  [\"users/{sub}/**\"]",
        "signed with ",
        "good: alice may subscribe to users/alice/**, and publish to whatever those with a token may",
    ] {
        assert!(explained.contains(part), "{part}: {explained}");
    }
    let file = folder.write("token", &made);
    let checked = token(&[&["--check", "--json", &file][..], &for_app].concat(), "");
    let answer: Value = serde_json::from_str(&text(&checked).0).expect("JSON");
    assert_eq!((answer["good"].as_bool(), answer["claims"]["sub"].as_str()), (Some(true), Some("alice")));
    assert_eq!(answer["claims"]["jti"].as_str().map(str::len), Some(22));
}

#[test]
fn what_is_not_good_says_why_and_shows_no_secret() {
    let folder = Folder::new("refused");
    let secret = folder.secret();
    let other = folder.write("other", &"f".repeat(32));
    let made = text(&token(&["--sub", "alice", "--hmac-file", &secret], "")).0;
    let public = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tokens/p256.pem");
    let set = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/tokens/keys.json");
    for (keys, problem) in [
        (&["--hmac-file", &other][..], "its signature is not that of a key"),
        (&["--hmac-file", &secret, "--audience", "app"], "it has no aud"),
        (&["--hmac-file", &secret, "--issuer", "us"], "it has no iss"),
        (&["--pem-file", public], "its algorithm is not one of the keys"),
        (&["--jwks-file", set], "its algorithm is not one of the keys"),
        (&[], "its signature was not checked; give keys"),
    ] {
        let output = token(&[&["--check"], keys].concat(), &made);
        let (said, errors) = text(&output);
        assert_eq!(output.status.code(), Some(1), "{said}{errors}");
        assert!(said.contains(&format!("not good: {problem}")), "{problem}: {said}");
        assert!(!said.contains(SECRET) && !errors.contains(SECRET), "{said}{errors}");
    }
    // The secret before is good, too.
    assert!(token(&["--check", "--hmac-file", &other, "--hmac-file", &secret], &made).status.success());
    for of_openssl in include_str!("../fixtures/tokens/tokens.txt").lines() {
        let (_, of_openssl) = of_openssl.split_once(' ').expect("a name and a token");
        assert!(token(&["--check", "--jwks-file", set], of_openssl).status.success(), "{of_openssl}");
    }
    let nonsense = token(&["--check", "--hmac-file", &secret], "nonsense");
    assert!(text(&nonsense).1.contains("not good: it is no JSON Web Token"));
}

#[test]
fn files_and_flags_that_do_not_fit_are_named() {
    let folder = Folder::new("files");
    let secret = folder.secret();
    let short = folder.write("short", "0123456789");
    let refused = |arguments: &[&str], code: i32, part: &str| {
        let output = token(arguments, "");
        let (_, errors) = text(&output);
        assert_eq!(output.status.code(), Some(code), "{errors}");
        assert!(errors.contains(part) && !errors.contains("0123456789"), "{part}: {errors}");
    };
    refused(&["--sub", "alice", "--hmac-file", &short], 1, "openssl rand -hex 32");
    refused(&["--sub", "alice", "--hmac-file", "/nonexistent"], 1, "/nonexistent: cannot be read");
    refused(&["--sub", "alice", "--publish", "a*", "--hmac-file", &secret], 1, "in its publish");
    refused(&["--sub", "alice"], 2, "--hmac-file: expects one file");
    refused(&["--hmac-file", &secret], 2, "--sub <NAME>");
    refused(&["--check", "--sub", "alice"], 2, "cannot be used with");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o644)).expect("a mode");
    let warned = token(&["--sub", "alice", "--hmac-file", &secret], "");
    assert!(warned.status.success());
    assert!(text(&warned).1.contains("every user of this machine can read this secret"));
}

const SET: &str = include_str!("../fixtures/tokens/keys.json");

/// A token that OpenSSL has signed, good until 2100, by its algorithm.
fn of_openssl(algorithm: &str) -> &'static str {
    let mut lines = include_str!("../fixtures/tokens/tokens.txt").lines();
    let line = lines.find(|line| line.starts_with(algorithm)).expect("a token");
    line.split_once(' ').expect("a name and a token").1
}

#[test]
fn keys_of_an_address_are_fetched_once_and_the_one_that_fits_is_named() {
    let login = Login::saying(ok(SET));
    let url = login.url();
    for (times, algorithm) in ["ES256", "RS256", "EdDSA"].into_iter().enumerate() {
        let output = token(&["--check", "--json", "--jwks-url", &url], of_openssl(algorithm));
        let (said, errors) = text(&output);
        assert!(output.status.success(), "{said}{errors}");
        let answer: Value = serde_json::from_str(&said).expect("JSON");
        let key = answer["key"].as_str().expect("a key");
        // Which it is, by its place in the set.
        let place = key.strip_prefix(&format!("{url}, key ")).and_then(|rest| rest.split(' ').next());
        let place: usize = place.and_then(|place| place.parse().ok()).unwrap_or_else(|| panic!("{key}"));
        let set: Value = serde_json::from_str(SET).expect("JSON");
        let kind = match algorithm {
            "ES256" => "P-256",
            "RS256" => "RSA",
            _ => "Ed25519",
        };
        let found = &set["keys"][place - 1];
        assert!(found["crv"] == kind || found["kty"] == kind, "{algorithm}: {key}");
        assert_eq!(login.asked(), times + 1, "once");
    }
    let secret = Folder::new("fetched");
    let made = text(&token(&["--sub", "alice", "--hmac-file", &secret.secret()], "")).0;
    let output = token(&["--check", "--jwks-url", &url], &made);
    assert!(text(&output).0.contains("not good: its algorithm"), "{output:?}");
}

#[test]
fn an_address_that_is_of_no_use_is_told_with_what_is_wrong() {
    let good = of_openssl("ES256");
    for (answer, problem) in [
        (answered("404 None", SET), "it answers 404"),
        (answered("302 Found\r\nLocation: /keys", ""), "redirects are not followed"),
        (ok("<html>"), "is no set of keys"),
        (ok(r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#), "is a secret"),
    ] {
        let login = Login::saying(answer);
        let output = token(&["--check", "--jwks-url", &login.url()], good);
        let (said, errors) = text(&output);
        assert_eq!((output.status.code(), login.asked()), (Some(1), 1), "{said}{errors}");
        assert!(errors.contains(problem) && !errors.contains("c2VjcmV0"), "{problem}: {errors}");
    }
    for (url, problem) in [
        ("http://login.example/keys", "expects https://"),
        ("ftp://127.0.0.1/keys", "expects a URL"),
        ("https://me:secret@login.example/keys", "without a name and password"),
        ("http://127.0.0.1:1/keys", "no connection"),
    ] {
        let output = token(&["--check", "--jwks-url", url], good);
        let (said, errors) = text(&output);
        assert_eq!(output.status.code(), Some(1), "{said}{errors}");
        assert!(errors.contains(problem), "{problem}: {errors}");
    }
    let both = token(&["--check", "--jwks-url", "https://a.example", "--jwks-file", "keys.json"], good);
    assert_eq!(both.status.code(), Some(2));
}

#[test]
fn a_configuration_says_who_may_have_issued_it_and_only_that_ones_keys_are_fetched() {
    let login = Login::saying(ok(SET));
    let folder = Folder::new("configured");
    let config = ConfigFile::new(&format!(
        "[[auth.issuer]]\nissuer = \"us\"\nhmac_file = {:?}\n[[auth.issuer]]\nissuer = \"them\"\njwks_url = {:?}\n",
        folder.secret(),
        login.url()
    ));
    let check = |made: &str| token(&["--check", "--json", "--config", config.path()], made);
    let made = |issuer: &str| {
        text(&token(&["--sub", "alice", "--issuer", issuer, "--hmac-file", &folder.secret()], "")).0
    };
    let answer: Value = serde_json::from_str(&text(&check(&made("us"))).0).expect("JSON");
    assert_eq!((answer["issuer"].as_str(), answer["key"].as_str()), (Some("us"), Some(&*folder.secret())));
    assert_eq!(login.asked(), 0, "of another issuer");
    for (issuer, problem, asked) in [("them", "its algorithm", 1), ("others", "its issuer (iss)", 1)] {
        let answer: Value = serde_json::from_str(&text(&check(&made(issuer))).0).expect("JSON");
        let found = answer["problem"].as_str().expect("a problem");
        assert!(found.contains(problem) && login.asked() == asked, "{issuer}: {found}");
    }
    let none = ConfigFile::new("");
    let output = token(&["--check", "--config", none.path()], &made("us"));
    assert!(text(&output).1.contains("no [[auth.issuer]]"), "{output:?}");
}
