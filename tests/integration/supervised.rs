//! The server under a supervisor: what it tells the socket of NOTIFY_SOCKET, and when. And the unit file.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use crate::reload::ConfigFile;
use crate::server::{PATIENCE, Server, command, fails, on_free_ports};
use crate::skip::skipped;

/// A socket as systemd would have it.
struct Supervisor {
    socket: UnixDatagram,
    path: PathBuf,
}

impl Supervisor {
    fn new(name: &str) -> Self {
        // Not in the target folder: the name of a socket has at most 107 bytes.
        let path = std::env::temp_dir().join(format!("fantail-{name}-{}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let socket = UnixDatagram::bind(&path).expect("a socket");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self { socket, path }
    }

    /// The next message that is not for the watchdog, as lines, and how often that was fed before it.
    fn next(&self) -> (Vec<String>, usize) {
        let mut fed = 0;
        loop {
            let mut buffer = [0; 1024];
            let length = self.socket.recv(&mut buffer).expect("a message in time");
            let text = String::from_utf8(buffer[..length].to_vec()).expect("UTF-8");
            if text != "WATCHDOG=1\n" {
                return (text.lines().map(str::to_owned).collect(), fed);
            }
            fed += 1;
        }
    }

    fn await_fed(&self, times: usize) {
        for _ in 0..times {
            let mut buffer = [0; 64];
            let length = self.socket.recv(&mut buffer).expect("a message in time");
            assert_eq!(&buffer[..length], b"WATCHDOG=1\n");
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

#[test]
fn a_supervisor_is_told_of_every_change() {
    let supervisor = Supervisor::new("told");
    let path = supervisor.path.to_str().expect("UTF-8");
    let begin = Instant::now();
    // Few enough messages that the socket has room for those of several seconds: it has it for ten.
    let mut server = Server::start(
        &["--loops", "2"],
        &[("NOTIFY_SOCKET", path), ("WATCHDOG_USEC", "1000000"), ("FANTAIL_DRAIN_DELAY_SECONDS", "1")],
    );
    let (ready, fed) = supervisor.next();
    assert_eq!((ready[0].as_str(), fed), ("READY=1", 0), "ready comes first");
    assert_eq!(ready[1], format!("STATUS=serving on {}, admin port on {}", server.listen, server.admin));
    supervisor.await_fed(3);
    // At half of a second each; the first comes at once.
    assert!(begin.elapsed().as_millis() >= 900, "{:?}", begin.elapsed());
    server.signal("HUP");
    let (reloading, _) = supervisor.next();
    assert_eq!(reloading[0], "RELOADING=1");
    let at = reloading[1].strip_prefix("MONOTONIC_USEC=").and_then(|text| text.parse::<u64>().ok());
    // Since the machine was started, not since the server was.
    assert!(at > Some(10_000_000), "{reloading:?}");
    assert_eq!(supervisor.next().0[0], "READY=1");
    server.terminate();
    let (stopping, _) = supervisor.next();
    assert_eq!(stopping[0], "STOPPING=1");
    // 1 s of delay, 10 of drain, 5 for close frames, 2 of linger, 5 to end the loops.
    assert_eq!(stopping[1], "EXTEND_TIMEOUT_USEC=23000000");
    assert_eq!(server.await_exit().code(), Some(0));
}

#[test]
fn the_watchdog_of_another_process_is_not_fed() {
    let supervisor = Supervisor::new("other");
    let path = supervisor.path.to_str().expect("UTF-8");
    let variables = [("NOTIFY_SOCKET", path), ("WATCHDOG_USEC", "1000"), ("WATCHDOG_PID", "1")];
    let mut server = Server::start(&["--loops", "1"], &variables);
    assert_eq!(supervisor.next().0[0], "READY=1");
    server.websocket("/echo").ping_pong();
    server.terminate();
    let (stopping, fed) = supervisor.next();
    assert_eq!((stopping[0].as_str(), fed), ("STOPPING=1", 0));
    assert_eq!(server.await_exit().code(), Some(0));
}

#[test]
fn a_supervisor_that_cannot_be_named_is_an_error() {
    let (code, said) = fails(on_free_ports(&[], &[("NOTIFY_SOCKET", "nonsense")]));
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("NOTIFY_SOCKET"), "{said}");
}

/// All that may lie beside a unit.
const DROP_INS: [&str; 5] = ["admin-keys.conf", "forward.conf", "tls.conf", "tokens.conf", "webhook.conf"];

fn unit(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd").join(name);
    std::fs::read_to_string(path).expect("the unit")
}

#[test]
fn the_unit_says_what_the_server_relies_on() {
    let unit = unit("fantail.service");
    let lines: Vec<&str> = unit.lines().collect();
    for line in [
        "Type=notify",
        "NotifyAccess=main",
        "ExecReload=/bin/kill -HUP $MAINPID",
        "RestartPreventExitStatus=2",
        "NoNewPrivileges=yes",
        "RestrictAddressFamilies=AF_INET AF_INET6 AF_UNIX",
        "SystemCallFilter=@system-service",
    ] {
        assert!(lines.contains(&line), "no line {line}");
    }
    // The default of fs.nr_open is the most that a service can have where nobody has raised it.
    assert!(lines.contains(&"LimitNOFILE=1048576"));
}

/// Servers that share a port have a unit that is the same but for what makes them several.
#[test]
fn the_unit_of_several_differs_only_where_it_must() {
    let meant = |line: &&str| !line.starts_with('#') && !line.is_empty();
    let (one, several) = (unit("fantail.service"), unit("fantail@.service"));
    let only = |these: &str, those: &str| -> Vec<String> {
        let those: Vec<&str> = those.lines().collect();
        these.lines().filter(meant).filter(|line| !those.contains(line)).map(str::to_owned).collect()
    };
    let starts = "ExecStart=/usr/bin/fantail serve --config /etc/fantail/fantail.toml";
    assert_eq!(only(&one, &several), ["Description=Fantail WebSocket fan-out edge", starts]);
    let wanted = [
        "Description=Fantail WebSocket fan-out edge, server %i",
        &format!("{starts} --share-port --admin 127.0.0.1:808%i"),
        "User=fantail",
    ];
    assert_eq!(only(&several, &one), wanted);
}

#[test]
fn systemd_understands_the_units() {
    understands("fantail.service", "fantail.service");
    understands("fantail@.service", "fantail@1.service");
}

/// None is left out where they are tried together.
#[test]
fn every_drop_in_is_tried() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/systemd");
    let names =
        std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").file_name());
    let mut names: Vec<String> = names.map(|name| name.into_string().expect("UTF-8")).collect();
    names.retain(|name| name.ends_with(".conf"));
    names.sort();
    assert_eq!(names, DROP_INS);
}

/// What hands keys over is understood together with the unit, and names the keys that the server has.
#[test]
fn the_drop_ins_hand_the_keys_over() {
    let drop_in = unit("admin-keys.conf");
    assert!(drop_in.contains("\nLoadCredential=keys:/etc/fantail/keys\n"), "{drop_in}");
    assert!(drop_in.contains("\nEnvironment=FANTAIL_ADMIN_KEYS_FILE=%d/keys\n"), "{drop_in}");
    let drop_in = unit("tls.conf");
    for (file, variable) in [("tls.crt", "CERTIFICATE"), ("tls.key", "KEY")] {
        assert!(drop_in.contains(&format!("\nLoadCredential={file}:/etc/fantail/{file}\n")), "{drop_in}");
        assert!(drop_in.contains(&format!("\nEnvironment=FANTAIL_TLS_{variable}=%d/{file}\n")), "{drop_in}");
    }
}

/// Each that hands something over: what is handed over is what the server is told to read, or what the page's example names.
#[test]
fn the_drop_ins_hand_secrets_over_that_the_server_takes() {
    let secret = ConfigFile::new("a secret of some length, at least");
    for (name, keys) in [
        ("webhook", "url = \"http://127.0.0.1:1/hook\""),
        ("forward", "[[topic]]\npattern = \"a\"\nforward = \"http://127.0.0.1:1/\""),
    ] {
        let drop_in = unit(&format!("{name}.conf"));
        let handed = format!("\nLoadCredential={name}.secret:/etc/fantail/{name}.secret\n");
        assert!(drop_in.contains(&handed), "{drop_in}");
        // What systemd does with it: %d is the folder of the copies.
        let copy = format!("%d/{name}.secret");
        let mut variables =
            drop_in.lines().filter_map(|line| line.strip_prefix("Environment=")?.split_once('='));
        let (variable, file) = variables.next().expect("a variable");
        assert_eq!((file, variables.next()), (copy.as_str(), None));
        let config = ConfigFile::new(&format!("[{name}]\n{keys}\n"));
        let check = |environment: &[(&str, &str)]| {
            let output =
                command(&["check-config", "--config", config.path()], environment).output().expect("it runs");
            (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
        };
        let (fits, said) = check(&[(variable, secret.path())]);
        assert!(fits, "{said}");
        let (fits, said) = check(&[]);
        assert!(!fits && said.contains(&format!("{name}.secret_file")), "{said}");
    }
    // Issuers have no variable: the file names the copy.
    let drop_in = unit("tokens.conf");
    assert!(drop_in.contains("\nLoadCredential=token.secret:/etc/fantail/token.secret\n"), "{drop_in}");
    assert!(drop_in.contains("/run/credentials/fantail.service/token.secret\""), "{drop_in}");
}

/// Only where systemd's own tools are installed. The unit as it is, and with the files that hand keys over.
fn understands(name: &str, instance: &str) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    let drop_ins = folder.join(format!("{instance}.d"));
    std::fs::create_dir_all(&drop_ins).expect("a folder");
    let file = folder.join(instance);
    // It wants the program to be there.
    let text = unit(name).replace("/usr/bin/fantail", env!("CARGO_BIN_EXE_fantail"));
    std::fs::write(&file, text).expect("a file");
    let run = |arguments: &[&str]| Command::new("systemd-analyze").args(arguments).arg(&file).output();
    let verify = || {
        let verified = run(&["verify"]).expect("it ran before");
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        assert!(verified.status.success() && !said.contains(instance), "{said}");
    };
    if run(&["verify"]).is_ok() {
        verify();
        // The exposure it finds is 1.4 of 10; --offline came with systemd 250.
        if let Ok(secured) = run(&["security", "--offline=true", "--threshold=20"]) {
            let said = String::from_utf8_lossy(&secured.stderr);
            let unknown = said.contains("unrecognized option");
            assert!(unknown || secured.status.success(), "{}", String::from_utf8_lossy(&secured.stdout));
        }
        for drop_in in DROP_INS {
            std::fs::write(drop_ins.join(drop_in), unit(drop_in)).expect("a file");
        }
        verify();
    } else {
        skipped("systemd-analyze");
    }
    std::fs::remove_dir_all(&folder).expect("still there");
}
