//! `fantail preflight` against what the running server really holds: the predicted number is reached, and one more
//! is refused by name.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use fantail::sys::limits::raise_nofile;
use fantail::sys::tables::split_table;
use fantail_test_support::confine::{Refused, lower_nofile_in_child, refuse_in_child};
use serde_json::Value;

use crate::client::Peer;
use crate::server::{Server, command, fails, on_free_ports, wait_for};
use crate::skip::skipped;

/// Runs a test in a thread with a descriptor table of its own: other tests hold thousands of sockets, too.
fn in_own_table(work: impl FnOnce() + Send + 'static) {
    raise_nofile().expect("a limit");
    let body = move || {
        // Where a sandbox refuses it the table is shared, and there may or may not be enough of it.
        split_table(&[]);
        work();
    };
    if let Err(panic) = thread::spawn(body).join() {
        std::panic::resume_unwind(panic);
    }
}

fn confined(mut command: Command, nofile: u64, refused: &[Refused]) -> Command {
    lower_nofile_in_child(&mut command, nofile, nofile);
    if !refused.is_empty() {
        refuse_in_child(&mut command, refused);
    }
    command
}

fn ask(connections: u64, loops: &str, nofile: u64, refused: &[Refused]) -> (Option<i32>, Value) {
    let connections = connections.to_string();
    let arguments = ["preflight", "--json", "--connections", &connections, "--loops", loops];
    let output = confined(command(&arguments, &[]), nofile, refused).output().expect("the binary runs");
    let parsed = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code(), parsed)
}

/// The prediction for so many open files and loops, and then the server itself.
fn the_prediction_holds(nofile: u64, loops: u64, refused: &'static [Refused]) {
    in_own_table(move || {
        let flag = loops.to_string();
        let predicted = ask(1, &flag, nofile, refused).1["highest"].as_u64().expect("a number");
        let (code, report) = ask(predicted, &flag, nofile, refused);
        assert_eq!((code, &report["holds"]), (Some(0), &true.into()), "{report}");
        let (code, report) = ask(predicted + 1, &flag, nofile, refused);
        assert_eq!((code, &report["holds"]), (Some(1), &false.into()), "{report}");
        assert_eq!(report["binds"], "open files");
        assert_eq!(report["findings"][0]["level"], "short");

        let environment =
            [("FANTAIL_TIMEOUTS_HEARTBEAT_SECONDS", "0"), ("FANTAIL_ADMISSION_PER_ADDRESS_MAX", "0")];
        let server =
            Server::spawn(confined(on_free_ports(&["--loops", &flag], &environment), nofile, refused));
        let told = server.await_log("serving");
        assert!(told.contains(&format!("holds={predicted} ")), "{told}");
        let mut peers: Vec<Peer> = (0..predicted).map(|_| server.websocket("/ws/t")).collect();
        assert_eq!(server.metric("fantail_connections", ""), predicted);
        let mut next = server.connect();
        assert_eq!(next.ask_upgrade("/ws/t", "").status, 503);
        next.expect_end();
        assert_eq!(server.metric("fantail_refusals_total", "at_capacity"), 1);
        assert_eq!(server.metric("fantail_accept_errors_total", ""), 0);
        assert_eq!(server.publish("t", b"all").json()["subscribers"], predicted);
        for peer in &mut peers {
            assert_eq!(peer.text(), "all");
        }
        drop(server);

        let more = (predicted + 1).to_string();
        let flags = ["--loops", &flag, "--connections-max", &more];
        let (code, said) = fails(confined(on_free_ports(&flags, &[]), nofile, refused));
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains("server.connections_max") && said.contains(&predicted.to_string()), "{said}");
    });
}

#[test]
fn a_thousand_open_files_and_one_loop() {
    the_prediction_holds(1_000, 1, &[]);
}

#[test]
fn a_thousand_open_files_and_two_loops() {
    the_prediction_holds(1_000, 2, &[]);
}

#[test]
fn a_thousand_open_files_and_three_loops() {
    the_prediction_holds(1_000, 3, &[]);
}

#[test]
fn a_thousand_open_files_and_four_loops() {
    the_prediction_holds(1_000, 4, &[]);
}

#[test]
fn a_thousand_open_files_in_a_shared_table() {
    the_prediction_holds(1_000, 3, &[Refused::CloseRange, Refused::Unshare]);
}

#[test]
fn five_thousand_open_files_and_one_loop() {
    the_prediction_holds(5_000, 1, &[]);
}

#[test]
fn five_thousand_open_files_and_two_loops() {
    the_prediction_holds(5_000, 2, &[]);
}

#[test]
fn five_thousand_open_files_and_three_loops() {
    the_prediction_holds(5_000, 3, &[]);
}

/// So many wakers are in each table that it holds fewer connections.
#[test]
fn few_open_files_and_the_most_loops() {
    the_prediction_holds(140, 63, &[]);
}

/// A control group that limits memory, gone when dropped.
pub(crate) struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// `None` where this process may make none.
    pub(crate) fn new(limit_bytes: u64) -> Option<Self> {
        let versions = [("/sys/fs/cgroup/memory", "memory.limit_in_bytes"), ("/sys/fs/cgroup", "memory.max")];
        versions.into_iter().find_map(|(root, file)| {
            let folder =
                PathBuf::from(root).join(format!("fantail-test-{}-{limit_bytes}", std::process::id()));
            fs::create_dir(&folder).ok()?;
            let group = Self(folder);
            let limit = group.0.join(file);
            (limit.exists() && fs::write(limit, limit_bytes.to_string()).is_ok()).then_some(group)
        })
    }

    /// The same command, run inside.
    pub(crate) fn enter(&self, inner: &Command) -> Command {
        let mut outer = Command::new("sh");
        outer.args(["-c", "echo $$ > \"$0/cgroup.procs\" && exec \"$@\""]).arg(&self.0);
        outer.arg(inner.get_program()).args(inner.get_args());
        for (name, value) in inner.get_envs() {
            match value {
                Some(value) => outer.env(name, value),
                None => outer.env_remove(name),
            };
        }
        outer.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
        outer
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // The last process of it may still be on its way out.
        wait_for("the control group to be empty", || fs::remove_dir(&self.0).is_ok() || !self.0.exists());
    }
}

/// What of a socket is charged to the group depends on the kernel and on the group's version, and the prediction
/// counts all of it: so many are held for certain, and the server is told to hold no more.
#[test]
fn a_memory_group_holds_what_is_predicted() {
    in_own_table(|| {
        let Some(group) = MemoryGroup::new(24 << 20) else { return skipped("memory-group") };
        let ask = |connections: u64| {
            let connections = connections.to_string();
            let inner = command(&["preflight", "--json", "--connections", &connections, "--loops", "2"], &[]);
            let output = group.enter(&inner).output().expect("a shell");
            let parsed: Value = serde_json::from_slice(&output.stdout).expect("JSON");
            (output.status.code(), parsed)
        };
        let (_, report) = ask(1);
        let name = report["binds"].as_str().expect("a name");
        assert!(name.starts_with("memory of the control group") && name.contains("fantail-test-"), "{name}");
        let predicted = report["highest"].as_u64().expect("a number");
        assert!((3_000..6_000).contains(&predicted), "{predicted}");
        // Each run takes a little of the group's memory itself.
        assert_eq!(ask(predicted + 1_000).0, Some(1));
        let most = predicted.to_string();
        let flags = ["--loops", "2", "--connections-max", &most];
        let environment = [("FANTAIL_TIMEOUTS_HEARTBEAT_SECONDS", "0")];
        let server = Server::spawn(group.enter(&on_free_ports(&flags, &environment)));
        let peers: Vec<Peer> = (0..predicted).map(|_| server.websocket("/ws/t")).collect();
        assert_eq!(server.connect().ask_upgrade("/ws/t", "").status, 503);
        assert_eq!(server.publish("t", b"all").json()["subscribers"], predicted);
        drop((peers, server));
    });
}

#[test]
fn what_is_no_number_of_connections_is_refused() {
    for arguments in [&["preflight"][..], &["preflight", "--connections", "0"], &["preflight", "-c", "many"]]
    {
        let (code, said) = fails(command(arguments, &[]));
        assert_eq!(code, Some(2), "{said}");
    }
    let (code, said) = fails(command(&["preflight", "-c", "10", "--loops", "64"], &[]));
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("--loops"), "{said}");
}

#[test]
fn the_start_log_says_what_newcomers_meet_first() {
    let server = Server::start(&["--loops", "2", "--connections-max", "100"], &[]);
    let told = server.await_log("serving");
    assert!(told.contains("holds=100 ") && told.contains("first_limit=server.connections_max"), "{told}");
}
