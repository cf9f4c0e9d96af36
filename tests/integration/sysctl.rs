//! The scripts of `sysctl/` on a tree of files that stands for /proc/sys and /etc, in the smallest shell there is.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::skip::skipped;

/// The kernel's files with what a machine has that nobody tuned, byte for byte.
const KERNEL: [(&str, &str); 9] = [
    ("fs/file-max", "9223372036854775807\n"),
    ("fs/nr_open", "1048576\n"),
    ("fs/epoll/max_user_watches", "219992\n"),
    ("net/core/somaxconn", "128\n"),
    ("net/ipv4/tcp_max_syn_backlog", "262144\n"),
    ("net/ipv4/tcp_migrate_req", "0\n"),
    ("net/ipv4/ip_local_port_range", "1024\t60999\n"),
    ("net/ipv4/tcp_mem", "18384\t24512\t36768\n"),
    ("net/ipv4/tcp_tw_reuse", "2\n"),
];

/// A machine in a folder.
struct Machine(PathBuf);

impl Machine {
    fn new(name: &str) -> Self {
        let root =
            Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("sysctl-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&root);
        let machine = Self(root);
        for (path, text) in KERNEL {
            machine.write(&format!("sys/{path}"), text);
        }
        machine
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }

    fn kernel(&self, path: &str) -> String {
        fs::read_to_string(self.0.join("sys").join(path)).expect("a file")
    }

    /// Every file with its bytes.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.0.clone()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).expect("a folder") {
                let path = entry.expect("an entry").path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    let bytes = fs::read(&path).expect("a file");
                    found.insert(path, bytes);
                }
            }
        }
        found
    }

    fn run(&self, script: &str, arguments: &[&str]) -> Output {
        let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("sysctl");
        // Whatever `sh` is elsewhere, dash is the strict one.
        let shell = if Path::new("/bin/dash").exists() { "/bin/dash" } else { "/bin/sh" };
        let mut command = Command::new(shell);
        command.arg(scripts.join(script)).args(arguments);
        command.env("PROC_SYS", self.0.join("sys")).env("ETC", self.0.join("etc"));
        command.env("STATE", self.0.join("var/lib/fantail/sysctl"));
        command.env("MOUNTS", self.0.join("mounts"));
        command.output().expect("a shell")
    }

    /// Runs a script that is to end well; what it said on standard output.
    fn does(&self, script: &str, arguments: &[&str]) -> String {
        let output = self.run(script, arguments);
        assert!(output.status.success(), "{script} {arguments:?}: {output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn apply_check_and_revert_twice_in_a_row() {
    let machine = Machine::new("twice");
    // One file is there already and has to come back.
    machine.write("etc/security/limits.d/60-fantail.conf", "# mine, without a newline at its end");
    let before = machine.files();
    for _ in 0..2 {
        assert_eq!(machine.run("check", &[]).status.code(), Some(1));
        let planned = machine.does("apply", &["--dry-run"]);
        assert_eq!(machine.files(), before, "a dry run changed something");
        assert_eq!(machine.does("apply", &[]), planned, "it did something else than it said");
        let applied = machine.files();
        assert_ne!(applied, before);
        let checked = machine.does("check", &[]);
        assert!(checked.lines().all(|line| line.starts_with("ok") || line.starts_with("none")), "{checked}");
        assert_eq!(machine.does("check", &["--quiet"]), "");
        assert_eq!(machine.does("apply", &[]), "", "the second apply has nothing to do");
        assert_eq!(machine.files(), applied);
        let planned = machine.does("revert", &["-n"]);
        assert_eq!(machine.files(), applied, "a dry run changed something");
        assert_eq!(machine.does("revert", &[]), planned);
        assert_eq!(machine.files(), before);
        assert_eq!(machine.does("revert", &[]), "nothing to put back\n");
    }
}

#[test]
fn nothing_is_lowered() {
    let machine = Machine::new("raise");
    machine.does("apply", &[]);
    assert_eq!(machine.kernel("fs/file-max"), "9223372036854775807\n");
    assert_eq!(machine.kernel("fs/nr_open"), "2097152\n");
    assert_eq!(machine.kernel("net/core/somaxconn"), "65535\n");
    assert_eq!(machine.kernel("net/ipv4/tcp_max_syn_backlog"), "262144\n");
    // Wider at one end, as wide as it was at the other.
    assert_eq!(machine.kernel("net/ipv4/ip_local_port_range"), "1024 65535\n");
    // Not without being asked to.
    assert_eq!(machine.kernel("net/ipv4/tcp_mem"), "18384\t24512\t36768\n");
    assert_eq!(machine.kernel("net/ipv4/tcp_tw_reuse"), "2\n");
    let boot = fs::read_to_string(machine.0.join("etc/sysctl.d/60-fantail.conf")).expect("for the next boot");
    assert!(boot.contains("-fs.file-max = 9223372036854775807\n"), "{boot}");
    assert!(
        boot.contains("-net.ipv4.ip_local_port_range = 1024 65535\n") && !boot.contains("tcp_mem"),
        "{boot}"
    );
}

#[test]
fn what_is_asked_for_by_name_is_raised_too() {
    let machine = Machine::new("also");
    let also = ["--also", "net.ipv4.tcp_mem", "--also", "net.ipv4.tcp_tw_reuse"];
    machine.does("apply", &[]);
    assert_eq!(machine.run("check", &also).status.code(), Some(1));
    machine.does("apply", &also);
    machine.does("check", &also);
    assert_eq!(machine.kernel("net/ipv4/tcp_mem"), "524288 786432 1048576\n");
    assert_eq!(machine.kernel("net/ipv4/tcp_tw_reuse"), "1\n");
    machine.does("revert", &[]);
    for (path, text) in KERNEL {
        assert_eq!(machine.kernel(path), text);
    }
    let output = machine.run("apply", &["--also", "net.ipv4.tcp_men"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("net.ipv4.tcp_mem"), "{output:?}");
}

#[test]
fn a_setting_that_is_not_there_is_said_and_left_out() {
    let machine = Machine::new("absent");
    fs::remove_file(machine.0.join("sys/net/ipv4/tcp_migrate_req")).expect("it was there");
    let output = machine.run("apply", &[]);
    assert!(output.status.success());
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("net.ipv4.tcp_migrate_req: this kernel has no such setting"), "{said}");
    assert!(machine.does("check", &[]).contains("none  net.ipv4.tcp_migrate_req"));
}

#[test]
fn without_root_nothing_is_changed_and_it_is_said() {
    let machine = Machine::new("root");
    // Root itself can write no files into a file.
    machine.write("etc", "a file where a folder should be");
    let before = machine.files();
    let output = machine.run("apply", &[]);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("needs root") && said.contains("etc/sysctl.d"), "{said}");
    assert!(said.contains("sysctl -w net.core.somaxconn=\"65535\"\n"), "{said}");
    assert_eq!(machine.files(), before);
}

/// As in a container: the kernel's files are mounted read-only, but for what is mounted above some of them.
#[test]
fn what_a_container_cannot_set_is_said_with_who_can() {
    let machine = Machine::new("container");
    let sys = machine.0.join("sys");
    let mount = |point: &Path, options: &str| format!("proc {} proc {options} 0 0\n", point.display());
    let mounts = [
        mount(Path::new("/"), "rw,relatime"),
        mount(&sys, "ro,nosuid,relatime"),
        mount(&sys.join("net/ipv4/tcp_migrate_req"), "rw,relatime"),
    ];
    machine.write("mounts", &mounts.concat());
    let before = machine.files();
    let engine =
        "cannot be set from here; on the host or by the engine: --sysctl net.core.somaxconn=\"65535\"\n";
    let host = "cannot be set from here; on the host as root: sysctl -w fs.nr_open=\"2097152\"\n";
    let checked = machine.run("check", &[]);
    let said = String::from_utf8_lossy(&checked.stdout);
    assert_eq!(checked.status.code(), Some(1));
    assert!(
        said.contains(&format!("low   net.core.somaxconn = 128, wanted 65535\n      {engine}")),
        "{said}"
    );
    assert!(said.contains(&format!("low   fs.nr_open = 1048576, wanted 2097152\n      {host}")), "{said}");
    assert!(said.contains("low   net.ipv4.tcp_migrate_req = 0, wanted 1\nnone "), "{said}");
    let planned = machine.run("apply", &["-n"]);
    let said = String::from_utf8_lossy(&planned.stderr);
    assert_eq!(planned.status.code(), Some(1), "not all of it can be done: {said}");
    assert!(said.contains(&format!("apply: net.core.somaxconn {engine}")), "{said}");
    assert!(
        said.contains(&format!("apply: fs.nr_open {host}")) && !said.contains("tcp_migrate_req"),
        "{said}"
    );
    assert_eq!(machine.files(), before);
    // And so does who goes on all the same, with what can be done done.
    let applied = machine.run("apply", &[]);
    assert_eq!(applied.status.code(), Some(1));
    assert_eq!(String::from_utf8_lossy(&applied.stderr), said);
    assert_eq!(machine.kernel("net/core/somaxconn"), "128\n");
    assert_eq!(machine.kernel("net/ipv4/tcp_migrate_req"), "1\n");
}

#[test]
fn misuse_is_told_from_failure() {
    let machine = Machine::new("misuse");
    for (script, arguments) in
        [("apply", &["--nonsense"][..]), ("apply", &["--also"]), ("check", &["x"]), ("revert", &["-n", "x"])]
    {
        assert_eq!(machine.run(script, arguments).status.code(), Some(2), "{script} {arguments:?}");
    }
    for script in ["apply", "check", "revert"] {
        assert!(machine.does(script, &["--help"]).starts_with(&format!("usage: {script}")));
    }
}

/// What a network namespace has for itself, and what no other process notices.
const OF_A_NAMESPACE: [&str; 4] = [
    "net/core/somaxconn",
    "net/ipv4/tcp_max_syn_backlog",
    "net/ipv4/tcp_migrate_req",
    "net/ipv4/ip_local_port_range",
];

/// Fails with a word where something is not as it was or should be. $1 are the scripts, $2 is the machine.
const IN_A_NAMESPACE: &str = r#"
set -eu
scripts=$1
machine=$2
shift 2
export PROC_SYS="$machine/sys" ETC="$machine/etc" STATE="$machine/state"
look() { for key; do cat "/proc/sys/$key"; done; }
fail() { echo "$1" >&2; exit 1; }
for key; do
  mkdir -p "$(dirname "$PROC_SYS/$key")"
  ln -s "/proc/sys/$key" "$PROC_SYS/$key"
done
mkdir -p "$ETC"
# The smallest range first: `apply` has to widen it, whatever the machine's default is.
echo '40000	50000' >/proc/sys/net/ipv4/ip_local_port_range
echo 100 >/proc/sys/net/core/somaxconn
look "$@" >"$machine/before"
for round in 1 2; do
  ! "$scripts/check" --quiet >"$machine/low" || fail "$round: check found nothing before apply"
  grep -q 'net.core.somaxconn = 100, wanted 65535' "$machine/low" || fail "$round: $(cat "$machine/low")"
  "$scripts/apply" >/dev/null 2>"$machine/said" || fail "$round: apply: $(cat "$machine/said")"
  "$scripts/check" --quiet || fail "$round: not clean after apply"
  [ "$(cat /proc/sys/net/core/somaxconn)" = 65535 ] || fail "$round: the kernel did not take it"
  [ "$(echo $(cat /proc/sys/net/ipv4/ip_local_port_range))" = '10240 65535' ] || fail "$round: the range"
  "$scripts/revert" >/dev/null || fail "$round: revert"
  look "$@" | cmp - "$machine/before" || fail "$round: not as it was"
done
"#;

/// The kernel itself, in a network namespace. Only where one may be made and its settings changed.
#[test]
fn the_kernel_takes_it_and_gives_it_back_twice() {
    let allowed = |flags: &&[&str]| {
        // Containers mount /proc/sys read-only.
        let change = "echo 100 >/proc/sys/net/core/somaxconn";
        let output = Command::new("unshare").args(*flags).args(["sh", "-c", change]).output();
        output.is_ok_and(|output| output.status.success())
    };
    let Some(flags) = [&["--net"][..], &["--net", "--map-root-user"]].into_iter().find(allowed) else {
        return skipped("network-namespace");
    };
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("sysctl-kernel-{}", std::process::id()));
    let _ = fs::remove_dir_all(&root);
    fs::create_dir_all(&root).expect("a folder");
    let machine = Machine(root);
    let mine = || OF_A_NAMESPACE.map(|key| fs::read(Path::new("/proc/sys").join(key)).ok());
    let before = mine();
    let mut command = Command::new("unshare");
    command.args(flags).args(["sh", "-c", IN_A_NAMESPACE, "sh"]);
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("sysctl")).arg(&machine.0).args(OF_A_NAMESPACE);
    let output = command.output().expect("a shell");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(mine(), before, "it reached beyond the namespace");
}
