//! What authorizes a client stands in nothing that a run prints or writes, because that is passed on.

use std::thread;
use std::time::Duration;

use serde_json::json;

use crate::rooms::Rooms;
use crate::scratch::Scratch;
use crate::{generator, listen};

/// Stands nowhere by chance, also not in hexadecimal digits.
const SECRET: &str = "s3cr3t-sesame";

/// What a command printed and wrote, by what it is called. How it ended matters not: a busy machine may fail a run.
fn told(args: &[&str], files: &[&str]) -> Vec<(String, String)> {
    let files: Vec<_> = files.iter().map(|flag| (flag, Scratch::new(flag.trim_start_matches('-')))).collect();
    let mut command = generator(args);
    for (flag, file) in &files {
        command.args([*flag, file.path()]);
    }
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", text(&output.stderr));
    let printed =
        [("its table".to_owned(), text(&output.stdout)), ("its errors".into(), text(&output.stderr))];
    printed.into_iter().chain(files.iter().map(|(flag, file)| (flag.to_string(), file.text()))).collect()
}

#[track_caller]
fn assert_kept(told: &[(String, String)]) {
    for (what, text) in told {
        assert!(!text.contains(SECRET), "{what}: {text}");
    }
}

/// What all commands below say to be let in, and what they must not repeat.
struct Said {
    url: String,
    publish: String,
    header: String,
    hello: String,
    hex: String,
    signs: String,
}

impl Said {
    fn to(rooms: &Rooms) -> Self {
        Self {
            url: format!("ws://{}/ws?topic={{topic}}&token={SECRET}", rooms.ws),
            publish: format!("http://{}/publish/{{topic}}?sig={SECRET}", rooms.http),
            header: format!("Authorization: Bearer {SECRET}"),
            hello: format!("login {SECRET}"),
            hex: SECRET.bytes().map(|byte| format!("{byte:02x}")).collect(),
            signs: format!("who=>{{hmac_sha256({SECRET},x)}}"),
        }
    }

    fn client(&self) -> [&str; 10] {
        let Self { url, header, hello, hex, signs, .. } = self;
        ["--url", url, "--header", header, "--hello", hello, "--hello-hex", hex, "--reply", signs]
    }

    fn posts(&self) -> [&str; 4] {
        ["--publish-url", &self.publish, "--publish-header", &self.header]
    }
}

const SMALL: [&str; 4] = ["--connections", "2", "--duration", "200ms"];

#[test]
fn what_authorizes_stands_in_nothing_that_is_passed_on() {
    let rooms = Rooms::start(Duration::ZERO);
    let said = Said::to(&rooms);
    let kept = Scratch::new("kept.json");
    let fanout = ["fanout", "--rate", "20", "--json", kept.path()];
    let fanout = [&fanout[..], &said.client(), &SMALL, &said.posts()].concat();
    let mut written = told(&fanout, &["--html", "--hdr", "--junit"]);
    written.push(("--json".into(), kept.text()));
    assert_kept(&written);
    assert!(!written.iter().any(|(_, text)| text.contains(&said.hex)));
    // It was said, and all that a result says of it is where.
    let (heads, sig) = (rooms.posted().heads, format!("sig={SECRET}"));
    assert!(heads.len() > 4 && heads.iter().all(|head| head.contains(&sig) && head.contains(&said.header)));
    let report = kept.json();
    assert!(report["url"].as_str().unwrap().ends_with("&token=…"), "{report:#}");
    assert!(report["publish_url"].as_str().unwrap().ends_with("?sig=…"), "{report:#}");
    assert_eq!(report["settings"]["publish-header"], json!("Authorization: …"));
    // Nor in what is made of results.
    assert_kept(&told(&["compare", kept.path(), kept.path()], &["--json", "--html"]));
}

#[test]
fn nor_in_what_other_commands_write() {
    let rooms = Rooms::start(Duration::ZERO);
    let said = Said::to(&rooms);
    let rolling = [&["rolling", "--rate", "10"][..], &said.client(), &SMALL, &said.posts()].concat();
    let memory = [&["memory", "--steps", "1,2"][..], &said.client(), &["--duration", "0s"]].concat();
    // Both wait most of the time.
    thread::scope(|scope| {
        scope.spawn(|| assert_kept(&told(&rolling, &["--json", "--html"])));
        assert_kept(&told(&memory, &["--json", "--html", "--csv"]));
    });
    assert_kept(&told(&[&["idle", "--plan"][..], &said.client()].concat(), &["--json"]));
}

#[test]
fn nor_in_why_there_is_no_result() {
    let rooms = Rooms::start(Duration::ZERO);
    let url = format!("ws://{}/ws?topic={{topic}}&token={SECRET}", rooms.ws);
    // Nothing listens on the port of a closed listener.
    let closed = listen().1;
    let publish = format!("http://{closed}/publish/{{topic}}?sig={SECRET}");
    let say = format!("ws://{closed}/say?sig={SECRET}");
    for (command, by, publish) in
        [("fanout", "http", &publish), ("fanout", "ws", &say), ("rolling", "", &publish)]
    {
        let mut args = vec![command, "--url", &url, "--publish-url", publish, "--connections", "1"];
        if !by.is_empty() {
            args.extend(["--publish", by]);
        }
        let written = told(&args, &["--junit"]);
        assert_kept(&written);
        assert!(
            written.iter().any(|(what, text)| what == "--junit" && text.contains("sig=…")),
            "{written:?}"
        );
    }
}
