//! The same with PostgreSQL, one of the test's own, which is away for a while.

use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::delivery::converse;
use crate::kit::{Chat, wait_for};
use crate::private::whisper;
use crate::skip::skipped;

/// A server on a socket in a folder of its own.
pub(crate) struct Postgres {
    programs: PathBuf,
    folder: PathBuf,
    /// Whose process it is: it refuses to be root's.
    user: Option<(u32, u32)>,
    child: Option<Child>,
}

impl Postgres {
    /// `None` if it is not installed.
    pub(crate) fn new() -> Option<Self> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
        let programs = versions.filter_map(|entry| Some(entry.ok()?.path().join("bin")));
        let programs = programs.filter(|programs| programs.join("initdb").exists()).max()?;
        let folder = PathBuf::from(format!("/tmp/fantail-chat-postgres-{}-{number}", std::process::id()));
        fs::create_dir(&folder).expect("a folder");
        let is_root = fs::metadata("/proc/self").expect("this process").uid() == 0;
        let passwd = fs::read_to_string("/etc/passwd").expect("users");
        let ids = passwd.lines().find_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            (fields[0] == "postgres").then(|| fields[2].parse().ok().zip(fields[3].parse().ok()))?
        });
        let user = is_root.then(|| ids.expect("the package has made its user"));
        if let Some((uid, gid)) = user {
            chown(&folder, Some(uid), Some(gid)).expect("given away");
        }
        let made = Self { programs, folder, user, child: None };
        let mut command = made.command("initdb");
        command.args(["-A", "trust", "-U", "chat", "--no-sync", "-E", "UTF8", "-D"]).arg(made.data());
        let output = command.output().expect("initdb runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Some(made)
    }

    fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(&self.folder).stdin(Stdio::null());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    pub(crate) fn start(&mut self) {
        let mut command = self.command("postgres");
        command.args(["-c", "listen_addresses=", "-c", "fsync=off", "-c", "logging_collector=off", "-k"]);
        command.arg(&self.folder).arg("-D").arg(self.data()).stderr(Stdio::null());
        self.child = Some(command.spawn().expect("postgres starts"));
        wait_for("PostgreSQL takes connections", || {
            let mut command = self.command("pg_isready");
            let ready = command.arg("-h").arg(&self.folder).stdout(Stdio::null()).status();
            ready.is_ok_and(|status| status.success()).then_some(())
        });
    }

    /// Ends it with all its connections, as it does when it is told to be quick.
    fn stop(&mut self) {
        let mut command = self.command("pg_ctl");
        let stopped = command.args(["stop", "-m", "immediate", "-w", "-D"]).arg(self.data()).output();
        assert!(stopped.expect("pg_ctl runs").status.success());
        self.child.take().expect("it runs").wait().expect("reaped");
    }

    pub(crate) fn url(&self) -> String {
        format!("postgres://chat@localhost/postgres?host={}", self.folder.display())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.stop();
        }
        let _ = fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn postgres_does_the_same_and_comes_back_by_itself() {
    let Some(mut postgres) = Postgres::new() else { return skipped("postgresql") };
    postgres.start();
    let chat = Chat::start(&postgres.url(), &[]);
    converse(&chat);
    whisper(&chat);
    let mut carol = chat.register("carol");
    let mut live = carol.live();
    live.subscribe("lobby");
    let before = carol.say("lobby", "1", "before");

    postgres.stop();
    let body = json!({"client_id": "client-2", "text": "meanwhile"});
    let tried = carol.bad("POST", "/rooms/lobby/messages", &body);
    assert_eq!(tried, (503, "database_away".to_owned()));

    postgres.start();
    let sent = wait_for("the database is back", || {
        let (status, told) = carol.call("POST", "/rooms/lobby/messages", &body);
        (status == 201).then_some(told)
    });
    assert_eq!(live.hear("before"), before);
    assert_eq!(live.hear("meanwhile"), sent);
    let change = before["change"].as_i64().expect("a number") - 1;
    let page = carol.get(&format!("/rooms/lobby/messages?after_change={change}"));
    assert_eq!(page["messages"], json!([before, sent]));
}
