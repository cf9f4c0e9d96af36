//! `fantail token`: what it makes it takes, what it explains is what was said, and no secret is ever shown.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Output, Stdio};

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
        "good: alice may subscribe to users/alice/**, and publish to whatever those with a token may",
    ] {
        assert!(explained.contains(part), "{part}: {explained}");
    }
    let file = folder.write("token", &made);
    let checked = token(&[&["--check", "--json", &file][..], &for_app].concat(), "");
    let answer: serde_json::Value = serde_json::from_str(&text(&checked).0).expect("JSON");
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
