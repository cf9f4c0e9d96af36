//! The server of `--server`: started before a run, stopped after it.
//!
//! It runs in a process group of its own, so that Ctrl-C reaches it only through the generator. What it
//! prints is read to its end, or a full pipe would stop it; the last lines of its errors are kept for the
//! case that it does not come up.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fantail::sys::process;
use fantail::sys::signals::{self, Signal};
use regex::Regex;

use crate::base::failure::Failure;
use crate::base::interrupt;

const READY_WITHIN: Duration = Duration::from_secs(60);
const STOP_WITHIN: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(10);
const LOG_LINES: usize = 20;

/// A running server.
#[derive(Debug)]
pub(crate) struct Launched {
    child: Child,
    /// What the ready line says about where clients connect.
    pub(crate) listen: Option<String>,
    /// What it says about where the admin port is.
    pub(crate) admin: Option<String>,
}

impl Launched {
    /// Starts `command` and waits for the line that matches `ready`.
    pub(crate) fn start(command: &str, ready: &str) -> Result<Self, Failure> {
        let ready = Regex::new(ready).map_err(|error| Failure::Usage(format!("--ready: {error}")))?;
        let words =
            words(command).map_err(|error| Failure::Usage(format!("--server {command:?}: {error}")))?;
        let (program, arguments) =
            words.split_first().ok_or_else(|| Failure::Usage("--server names no program".into()))?;
        let mut command = Command::new(program);
        command.args(arguments).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Signals are blocked here, and a server that inherited that could not be stopped.
        signals::restore_for_child(&mut command);
        let mut child =
            command.spawn().map_err(|error| Failure::Usage(format!("--server {program}: {error}")))?;
        interrupt::set_child(child.id());
        let log = child.stderr.take().map(last_lines).unwrap_or_default();
        let lines = child.stdout.take().map_or_else(|| mpsc::channel().1, all_lines);
        let mut launched = Self { child, listen: None, admin: None };
        let until = Instant::now() + READY_WITHIN;
        loop {
            let why = match lines.recv_timeout(LOOK_EVERY) {
                Ok(line) => match ready.captures(&line) {
                    Some(caught) => {
                        let named = |name| caught.name(name).map(|found| found.as_str().to_owned());
                        (launched.listen, launched.admin) = (named("listen"), named("admin"));
                        return Ok(launched);
                    }
                    None => continue,
                },
                Err(RecvTimeoutError::Timeout) if interrupt::requested() => "interrupted".to_owned(),
                Err(RecvTimeoutError::Timeout) if Instant::now() < until => continue,
                Err(RecvTimeoutError::Timeout) => {
                    format!("no line that matches {:?} within {} s", ready.as_str(), READY_WITHIN.as_secs())
                }
                Err(RecvTimeoutError::Disconnected) => "it ended before it was ready".to_owned(),
            };
            let _ = launched.stop();
            return Err(Failure::Failed(format!("--server {program}: {why}{}", text_of(&log))));
        }
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops it: SIGTERM, and SIGKILL if it is still there after ten seconds. An error says that it had
    /// ended before, or would not end.
    pub(crate) fn stop(&mut self) -> Result<(), String> {
        let outcome = self.end();
        interrupt::set_child(0);
        outcome
    }

    fn end(&mut self) -> Result<(), String> {
        // Its connections and its memory go before it can be waited for. Whoever saw that would be told that it was
        // stopped, although it has ended by itself.
        let status = if is_ending(self.child.id()) { self.status_within(STOP_WITHIN) } else { self.status() };
        if let Some(status) = status? {
            return Err(format!("the server ended during the run: {status}"));
        }
        signals::send(self.child.id(), Signal::Terminate).map_err(|error| error.to_string())?;
        if self.status_within(STOP_WITHIN)?.is_some() {
            return Ok(());
        }
        self.child.kill().and_then(|()| self.child.wait()).map_err(|error| error.to_string())?;
        Err(format!("the server did not end within {} s of SIGTERM", STOP_WITHIN.as_secs()))
    }

    fn status_within(&mut self, at_most: Duration) -> Result<Option<ExitStatus>, String> {
        let until = Instant::now() + at_most;
        loop {
            let status = self.status()?;
            if status.is_some() || Instant::now() >= until {
                return Ok(status);
            }
            std::thread::sleep(LOOK_EVERY);
        }
    }

    fn status(&mut self) -> Result<Option<ExitStatus>, String> {
        self.child.try_wait().map_err(|error| format!("the server's state: {error}"))
    }
}

impl Drop for Launched {
    fn drop(&mut self) {
        // After `stop` it is gone, and this does nothing.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Whether a child has no memory any more: it has ended, or is about to.
fn is_ending(pid: u32) -> bool {
    process::memory(Some(pid)).is_err_and(|error| error.kind() == io::ErrorKind::InvalidData)
}

/// Sends every line. After the ready line nobody listens, and the rest is read and thrown away.
fn all_lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        each_line(from, |line| drop(sender.send(line)));
    });
    lines
}

type Log = Arc<Mutex<VecDeque<String>>>;

/// Reads to the end and keeps the last lines.
fn last_lines(from: impl Read + Send + 'static) -> Log {
    let log = Log::default();
    let kept = log.clone();
    std::thread::spawn(move || {
        each_line(from, |line| {
            let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() == LOG_LINES {
                kept.pop_front();
            }
            kept.push_back(line);
        });
    });
    log
}

/// Reads to the end, whatever the bytes are: whoever stopped at some that are no text would close the pipe, and end a
/// server that goes on writing.
fn each_line(from: impl Read, mut on_line: impl FnMut(String)) {
    let mut from = BufReader::new(from);
    let mut line = Vec::new();
    while from.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
        on_line(String::from_utf8_lossy(line.trim_ascii_end()).into_owned());
        line.clear();
    }
}

/// What was kept, once the server has closed its end; a child of its own might keep it open.
fn text_of(log: &Log) -> String {
    let until = Instant::now() + Duration::from_secs(1);
    while Arc::strong_count(log) > 1 && Instant::now() < until {
        std::thread::sleep(LOOK_EVERY);
    }
    let log = log.lock().unwrap_or_else(PoisonError::into_inner);
    log.iter().map(|line| format!("\n  {line}")).collect()
}

/// Splits a command at spaces; quotes keep words together, as in a shell. No shell runs, so nothing is
/// expanded.
fn words(command: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = command.chars();
    while let Some(character) = characters.next() {
        match character {
            '\'' | '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next() {
                        Some(end) if end == character => break,
                        Some(other) => word.push(other),
                        None => return Err("a quote is not closed".into()),
                    }
                }
            }
            '\\' => word.get_or_insert_default().extend(characters.next()),
            space if space.is_whitespace() => words.extend(word.take()),
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_split_like_in_a_shell() {
        let split = |text: &str| words(text).unwrap();
        assert_eq!(split("a  --b 'c d' \"e f\"g h\\ i ''"), ["a", "--b", "c d", "e fg", "h i", ""]);
        assert!(split(" ").is_empty());
        assert!(words("a 'b").is_err());
    }

    #[test]
    fn a_server_is_started_read_and_stopped() {
        let script = "sh -c 'echo starting; echo ready listen=1.2.3.4:5 x; exec sleep 60'";
        let mut server = Launched::start(script, r"ready listen=(?<listen>\S+)").unwrap();
        assert_eq!((server.listen.as_deref(), server.admin.as_deref()), (Some("1.2.3.4:5"), None));
        assert!(server.pid() > 0);
        server.stop().unwrap();
        assert!(server.stop().unwrap_err().contains("ended during the run"));
    }

    /// For a moment every process that ends has no memory and can't be waited for. One whose first thread has ended
    /// before the others is in that state for as long as they run.
    #[test]
    fn a_server_that_is_ending_has_ended_by_itself() {
        if Command::new("python3").arg("--version").output().is_err() {
            eprintln!("skipped: there is no python3");
            return;
        }
        let script = "python3 -c 'import ctypes, os, threading, time; \
            threading.Thread(target=lambda: (time.sleep(1), os._exit(3))).start(); \
            print(\"ready\", flush=True); ctypes.CDLL(None).pthread_exit(None)'";
        let mut server = Launched::start(script, "ready").unwrap();
        let until = Instant::now() + READY_WITHIN;
        while !is_ending(server.pid()) {
            assert!(Instant::now() < until, "its first thread does not end");
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(server.stop().unwrap_err(), "the server ended during the run: exit status: 3");
    }

    #[test]
    fn a_server_that_says_what_is_no_text_lives_on() {
        let script = r#"sh -c 'printf "\377\n"; echo ready; exec sleep 60'"#;
        let mut server = Launched::start(script, "ready").unwrap();
        server.stop().unwrap();
    }

    #[test]
    fn a_server_that_does_not_come_up_says_why() {
        let error = Launched::start("sh -c 'echo no port >&2; exit 3'", "ready").unwrap_err().to_string();
        assert!(error.contains("ended before it was ready") && error.contains("no port"), "{error}");
        for (command, ready) in [("/nonexistent/x", "r"), ("", "r"), ("true", "(")] {
            assert!(matches!(Launched::start(command, ready), Err(Failure::Usage(_))), "{command:?}");
        }
    }
}
