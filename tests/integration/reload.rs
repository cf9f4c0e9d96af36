//! SIGHUP against the running server: what changes, what needs a restart, what a broken file does.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use fantail::wire::frame::Opcode;

use crate::server::{Server, fails, on_free_ports, wait_for};

/// A configuration file that is removed again.
pub(crate) struct ConfigFile(PathBuf);

impl ConfigFile {
    pub(crate) fn new(text: &str) -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("config-{}-{number}.toml", std::process::id());
        let file = Self(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
        file.write(text);
        file
    }

    /// At a path of the caller's choice.
    pub(crate) fn named(path: &str, text: &str) -> Self {
        let file = Self(path.into());
        file.write(text);
        file
    }

    pub(crate) fn write(&self, text: &str) {
        // In one step, as an editor does it: a server may be reading.
        let whole = self.0.with_extension("new");
        fs::write(&whole, text).expect("a file");
        fs::rename(&whole, &self.0).expect("the same folder");
    }

    pub(crate) fn path(&self) -> &str {
        self.0.to_str().expect("UTF-8")
    }
}

impl Drop for ConfigFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

const RELOADS: &str = "fantail_config_reloads_total";

#[test]
fn a_reload_changes_policies_limits_timeouts_and_the_log() {
    let file = ConfigFile::new("[timeouts]\nheartbeat_seconds = 0\n[server]\nbacklog = 100\n");
    let server = Server::spawn(on_free_ports(&["--config", file.path(), "--log-format", "json"], &[]));
    let mut idle = server.websocket("/ws/quiet");
    let foreign = "Origin: https://page.example\r\n";
    assert_eq!(server.connect().ask_upgrade("/ws", foreign).status, 403);

    file.write(
        "[timeouts]\nheartbeat_seconds = 0.2\n[server]\nbacklog = 200\nloops = 3\n\
         [origin]\nallowed = [\"https://page.example\"]\n[limits]\nmessage_bytes_max = 4\n\
         [publish]\ntopics = []\n[log]\nlevel = \"debug\"\nformat = \"text\"\n",
    );
    server.signal("HUP");
    let line = server.await_log("timeouts.heartbeat_seconds");
    assert!(line.contains("\"from\":\"0\"") && line.contains("\"to\":\"0.2\""), "{line}");
    let line = server.await_log("needs a restart");
    assert!(line.contains("server.") && line.contains("\"running\":"), "{line}");
    // Two keys of [server]; the flag still wins over the file's log.format.
    let line = server.await_log("configuration reloaded");
    assert!(line.contains("\"need_restart\":2"), "{line}");
    server.await_metric(RELOADS, "applied", |count| count == 1);

    wait_for("the loops to take the settings", || server.connect().ask_upgrade("/ws", foreign).status == 101);
    assert_eq!(server.publish("lobby", b"12345").status, 413);
    assert_eq!(server.publish("lobby", b"1234").status, 200);
    // A connection that had no deadline at all has one now.
    assert_eq!(idle.frame().opcode, Opcode::Ping);
    let mut client = server.websocket("/ws");
    client.send_frame(Opcode::Text, b"hi");
    server.await_metric("fantail_publishes_ignored_total", "", |ignored| ignored == 1);
    // Refusals are logged at debug, which the flag's format and the file's new level let through.
    server.connect().send(b"no request at all\r\n\r\n");
    let line = server.await_log("refused");
    assert!(line.contains("\"level\":\"DEBUG\""), "{line}");
    assert!(server.metric("fantail_config_last_reload_success_timestamp_seconds", "") > 1_700_000_000);
}

#[test]
fn a_broken_file_changes_nothing_and_says_where() {
    let file = ConfigFile::new("[origin]\nrequired = false\n");
    let server = Server::spawn(on_free_ports(&["--config", file.path()], &[]));
    file.write("[origin]\nrequired = true\n[timeouts]\nheartbeet_seconds = 3\n");
    server.signal("HUP");
    let line = server.await_log("heartbeet_seconds");
    assert!(line.contains(&format!("{}:4", file.path())) && line.contains("heartbeat_seconds?"), "{line}");
    server.await_log("nothing has changed");
    assert_eq!(server.metric(RELOADS, "refused"), 1);
    assert_eq!(server.metric(RELOADS, "applied"), 0);
    assert_eq!(server.connect().ask_upgrade("/ws", "").status, 101, "origin.required did not change");

    // What does not fit beside a running value that can't change is refused as well.
    file.write("[limits]\nmessage_bytes_max = \"100 MiB\"\n[mailbox]\nbytes_max = \"128 MiB\"\n");
    server.signal("HUP");
    server.await_log("mailbox.bytes_max");
    server.await_metric(RELOADS, "refused", |count| count == 2);

    // The file is gone.
    drop(file);
    server.signal("HUP");
    server.await_log("cannot be read");
    server.await_metric(RELOADS, "refused", |count| count == 3);
    assert_eq!(server.publish("lobby", b"still there").status, 200);
}

#[test]
fn topic_rules_change_for_topics_that_exist() {
    let file = ConfigFile::new("[publish]\ntopics = [\"*\"]\n");
    let server = Server::spawn(on_free_ports(&["--config", file.path()], &[]));
    let mut client = server.websocket("/ws/prices");
    client.send_frame(Opcode::Text, b"mine");
    assert_eq!(client.text(), "mine");
    file.write("[[topic]]\npattern = \"prices\"\npublish = \"nobody\"\nmessage_bytes_max = 4\n");
    server.signal("HUP");
    let line = server.await_log("configuration changed");
    assert!(line.contains("publish.topics") || line.contains("topic"), "{line}");
    server.await_metric(RELOADS, "applied", |count| count == 1);
    // The loop takes the rules over by itself, and what comes before that is published.
    crate::server::wait_for("the loop to have the rules", || {
        client.send_frame(Opcode::Text, b"mine");
        server.metric("fantail_publishes_ignored_total", "") > 0
    });
    assert_eq!(server.publish("prices", b"12345").status, 413);
    assert_eq!(server.publish("prices", b"1234").status, 200);
    let told = std::iter::repeat_with(|| client.text()).find(|text| text != "mine");
    assert_eq!(told.as_deref(), Some("1234"));
}

#[test]
fn messages_go_on_while_settings_change() {
    let file = ConfigFile::new("");
    let server = Server::spawn(on_free_ports(&["--config", file.path(), "--loops", "2"], &[]));
    let mut subscribers: Vec<_> = (0..8).map(|_| server.websocket("/ws/t")).collect();
    for number in 0..200 {
        if number % 10 == 0 {
            file.write(&format!("[outbox]\nmessages_max = {}\n", 64 + number));
            server.signal("HUP");
        }
        assert_eq!(server.publish("t", number.to_string().as_bytes()).status, 200);
    }
    for subscriber in &mut subscribers {
        for number in 0..200 {
            assert_eq!(subscriber.text(), number.to_string());
        }
    }
    // Signals that arrive while one is pending are one; each that was taken was applied.
    server.await_metric(RELOADS, "applied", |count| count > 0);
    assert_eq!(server.metric(RELOADS, "refused"), 0);
}

#[test]
fn check_config_prints_every_key_with_its_source() {
    let file = ConfigFile::new(
        "[server]\n\nloops = 2\n\n[[topic]]\npattern = \"a*\"\npolicy = \"latest\"\n\n[[topic]]\npattern = \"b\"\n",
    );
    let mut command =
        on_free_ports(&["--config", file.path(), "--print"], &[("FANTAIL_OUTBOX_MESSAGES_MAX", "9")]);
    let (code, printed, said) = run_check(&mut command);
    assert_eq!(code, Some(0), "{said}");
    let line = |key: &str| {
        printed
            .lines()
            .find(|line| line.starts_with(&format!("{key} =")))
            .unwrap_or_else(|| panic!("{key}: {printed}"))
    };
    assert!(line("loops").ends_with(&format!("# {}:3", file.path())), "{printed}");
    assert!(
        line("listen").contains("\"127.0.0.1:0\"") && line("listen").ends_with("# flag --listen"),
        "{printed}"
    );
    assert!(line("messages_max").ends_with("# environment FANTAIL_OUTBOX_MESSAGES_MAX"), "{printed}");
    assert!(line("heartbeat_seconds").ends_with("# default"), "{printed}");
    assert!(line("policy").contains("\"drop-newest\""), "the one of [outbox] stands first: {printed}");
    assert_eq!(printed.matches("[[topic]]").count(), 2, "{printed}");
    assert!(
        printed.contains("policy = \"latest\"") && printed.contains(&format!("# {}:7", file.path())),
        "{printed}"
    );
    // What was printed is a configuration with the same values.
    let again = ConfigFile::new(&printed);
    let (code, _, said) = run_check(&mut on_free_ports(&["--config", again.path()], &[]));
    assert_eq!(code, Some(0), "{said}");

    // With secrets and with names that Rust would write otherwise than TOML.
    let odd = ConfigFile::new(
        "[admin]\nkeys = [\"publish:s3cret-0123456789\"]\n[[topic]]\npattern = \"e\\u0301\\\"*\"\n",
    );
    for json in [&["--json"][..], &[]] {
        let arguments = [&["--config", odd.path(), "--print"][..], json].concat();
        let (code, printed, said) = run_check(&mut on_free_ports(&arguments, &[]));
        assert_eq!(code, Some(0), "{said}");
        assert!(printed.contains("(not shown)") && !printed.contains("s3cret"), "{printed}");
        if json.is_empty() {
            assert!(printed.contains("# keys = "), "{printed}");
            odd.write(&printed);
        }
    }
    let (code, _, said) = run_check(&mut on_free_ports(&["--config", odd.path()], &[]));
    assert_eq!(code, Some(0), "{said}");

    let (code, printed, _) =
        run_check(&mut on_free_ports(&["--config", file.path(), "--print", "--json"], &[]));
    assert_eq!(code, Some(0));
    let parsed: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!(parsed["ok"], true);
    let keys = parsed["keys"].as_array().expect("a list");
    assert!(keys.iter().any(|key| key["key"] == "server.loops" && key["value"] == "2"), "{printed}");
}

#[test]
fn what_cannot_be_written_is_a_failure() {
    for arguments in [&["check-config"][..], &["check-config", "--print"], &["sizes", "--connections", "1"]] {
        let full = std::fs::OpenOptions::new().write(true).open("/dev/full").expect("a device");
        let output = crate::server::command(arguments, &[]).stdout(full).output().expect("the binary runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {said}");
        assert!(said.contains("standard output cannot be written"), "{said}");
    }
}

#[test]
fn check_config_names_every_mistake() {
    let file = ConfigFile::new("[server]\nlisen = 1\n[outbox]\nmessages_max = \"many\"\n");
    let (code, said) = fails(check_command(&mut on_free_ports(&["--config", file.path()], &[])));
    assert_eq!(code, Some(2));
    assert!(said.contains(":2: server.lisen: unknown key; did you mean listen?"), "{said}");
    assert!(said.contains(":4: outbox.messages_max: expects a whole number"), "{said}");
    let (code, printed, _) = run_check(&mut on_free_ports(&["--config", file.path(), "--json"], &[]));
    let parsed: serde_json::Value = serde_json::from_str(&printed).expect("JSON");
    assert_eq!((code, &parsed["ok"]), (Some(2), &serde_json::Value::Bool(false)));
    assert_eq!(parsed["errors"].as_array().map(Vec::len), Some(2), "{printed}");
}

/// The same command line with `check-config` in front.
fn check_command(serve: &mut std::process::Command) -> std::process::Command {
    let arguments: Vec<_> =
        serve.get_args().map(|argument| argument.to_str().expect("UTF-8").to_owned()).collect();
    let mut all = vec!["check-config"];
    all.extend(arguments.iter().map(String::as_str));
    let environment: Vec<_> = serve
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_str()?.to_owned(), value?.to_str()?.to_owned())))
        .collect();
    let environment: Vec<_> =
        environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    crate::server::command(&all, &environment)
}

fn run_check(serve: &mut std::process::Command) -> (Option<i32>, String, String) {
    let output = check_command(serve).output().expect("the binary runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// For images without a shell, from where nobody can send a signal.
#[test]
fn a_request_reloads_and_is_told_what_changed() {
    let file = ConfigFile::new("[[topic]]\npattern = \"a\"\n");
    let server = Server::spawn(on_free_ports(&["--config", file.path(), "--loops", "2"], &[]));
    file.write("[server]\nbacklog = 7\n[outbox]\nmessages_max = 9\n[[topic]]\npattern = \"a\"\npolicy = \"latest\"\n");
    let answer = server.post("/reload", "", b"");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let said = answer.json();
    let keys = |list: &str| -> Vec<String> {
        let rows = said[list].as_array().expect("a list");
        rows.iter().map(|row| row["key"].as_str().expect("text").to_owned()).collect()
    };
    assert_eq!(keys("changed"), ["outbox.messages_max", "topic \"a\" policy"]);
    assert_eq!(keys("needs_restart"), ["server.backlog"]);
    assert_eq!((&said["reloaded"], &said["changed"][0]["to"]), (&true.into(), &"9".into()));
    file.write("[outbox]\nmesages_max = 9\n");
    // Several at once, over connections that are kept: each gets an answer.
    let mut peers: Vec<_> = (0..4).map(|_| server.connect_admin()).collect();
    let request = format!("POST /reload HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\n\r\n", server.admin);
    for _ in 0..2 {
        peers.iter_mut().for_each(|peer| peer.send(request.as_bytes()));
        for peer in &mut peers {
            let answer = peer.answer();
            assert_eq!((answer.status, &answer.json()["reloaded"]), (422, &false.into()));
            let mistake = answer.json()["mistakes"][0].as_str().expect("text").to_owned();
            assert!(mistake.contains("did you mean messages_max?"), "{mistake}");
        }
    }
    // Who asks while it is read is answered by the next reading, together with others.
    assert!((2..=8).contains(&server.metric(RELOADS, "refused")));
    assert_eq!(server.metric(RELOADS, "applied"), 1);
    assert_eq!(server.get("/reload").status, 405);
}

#[test]
fn a_server_on_its_way_out_reads_nothing_more() {
    let server = Server::start(&["--loops", "1"], &[("FANTAIL_DRAIN_DELAY_SECONDS", "600")]);
    server.terminate();
    crate::server::wait_for("the drain", || server.get("/readyz").status == 503);
    assert_eq!(server.post("/reload", "", b"").status, 503);
}

/// A pipe without a writer, as a network's file system that hangs.
#[test]
fn a_file_that_hangs_holds_nobody_up() {
    let folder = std::env::temp_dir().join(format!("fantail-hang-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let path = folder.join("f.toml");
    std::fs::write(&path, "[drain]\nseconds = 0\n").expect("a file");
    let text = path.to_str().expect("UTF-8");
    let mut server = Server::spawn(on_free_ports(&["--config", text, "--loops", "1"], &[]));
    std::fs::remove_file(&path).expect("a file");
    assert!(Command::new("mkfifo").arg(&path).status().expect("coreutils").success());
    server.signal("HUP");
    let answer = server.post("/reload", "", b"");
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert!(answer.text().contains("not read within 5 s"), "{}", answer.text());
    let mut client = server.websocket("/ws/t");
    assert_eq!(server.publish("t", b"still there").status, 200);
    assert_eq!(client.text(), "still there");
    server.terminate();
    assert_eq!(client.frame().close_code(), Some(1001));
    drop(client);
    assert_eq!(server.await_exit().code(), Some(0));
    std::fs::remove_dir_all(&folder).expect("the folder");
}
