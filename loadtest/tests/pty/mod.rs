//! A pseudo-terminal with a program on it, in a session of its own, as a shell would start it. Included by the tests that
//! need it; the program is killed with the value.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Termios, Winsize, tcgetattr, tcsetwinsize};

const PATIENCE: Duration = Duration::from_secs(60);
/// What no program writes.
const END: &str = "\x01\x02\x03";

/// See the module's head.
pub(crate) struct Pty {
    master: File,
    slave: File,
    said: Arc<Mutex<Vec<u8>>>,
    pub(crate) child: Child,
    pub(crate) before: Termios,
}

impl Pty {
    /// Starts a program on a terminal of so many columns and rows.
    pub(crate) fn start(program: &str, args: &[&str], env: &[(&str, &str)], size: (u16, u16)) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let slave = OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
        resize(&slave, size);
        let before = tcgetattr(&slave).unwrap();
        let end = || Stdio::from(slave.try_clone().unwrap());
        // The terminal is the session's own, so that its Ctrl-C is a signal.
        let mut command = Command::new("setsid");
        command.args(["--ctty", program]).args(args).stdin(end()).stdout(end()).stderr(end());
        for name in ["CI", "NO_COLOR"] {
            command.env_remove(name);
        }
        let child = command.env("TERM", "xterm").envs(env.iter().copied()).spawn().unwrap();
        let master = File::from(master);
        let said = Arc::new(Mutex::new(Vec::new()));
        let (mut reading, hearing) = (master.try_clone().unwrap(), said.clone());
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count) = reading.read(&mut bytes) {
                hearing.lock().unwrap().extend_from_slice(&bytes[..count]);
            }
        });
        Self { master, slave, said, child, before }
    }

    /// Types.
    pub(crate) fn press(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }

    /// Makes the terminal another size.
    pub(crate) fn resize(&self, size: (u16, u16)) {
        resize(&self.slave, size);
    }

    /// All that came so far.
    pub(crate) fn said(&self) -> String {
        String::from_utf8_lossy(&self.said.lock().unwrap()).into_owned()
    }

    /// The lines of the last drawing that is whole, without what is no text.
    pub(crate) fn screen(&self) -> Vec<String> {
        let said = self.said();
        let whole = said.rfind("\x1b[J").map_or("", |end| &said[..end]);
        let last = whole.rsplit("\x1b[H").next().unwrap_or_default();
        let plain = ["\x1b[K", "\x1b[1m", "\x1b[0m"]
            .iter()
            .fold(last.to_owned(), |text, code| text.replace(code, ""));
        // The terminal itself makes a return of each new line, too.
        plain.split('\n').map(|line| line.trim_end_matches('\r').to_owned()).collect()
    }

    /// Waits until something is so.
    #[track_caller]
    pub(crate) fn wait(&mut self, what: &str, mut so: impl FnMut(&mut Self) -> bool) {
        let begin = Instant::now();
        while !so(self) {
            assert!(begin.elapsed() < PATIENCE, "{what}: {:?}", self.said());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits for its end; the terminal has to be as it was. Its exit code and all that it said.
    #[track_caller]
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let mut code = None;
        self.wait("its end", |pty| match pty.child.try_wait().unwrap() {
            Some(status) => {
                code = status.code();
                true
            }
            None => false,
        });
        let after = tcgetattr(&self.slave).unwrap();
        assert_eq!(after.local_modes, self.before.local_modes, "{:?}", self.said());
        let codes = |of: &Termios| format!("{:?}", of.special_codes);
        assert_eq!(codes(&after), codes(&self.before));
        // What it wrote last may still be on its way; nothing is behind this.
        self.slave.write_all(END.as_bytes()).unwrap();
        self.wait("what it wrote last", |pty| pty.said().ends_with(END));
        (code, self.said().trim_end_matches(END).to_owned())
    }
}

impl Drop for Pty {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn resize(terminal: &File, (columns, rows): (u16, u16)) {
    tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
}
