//! Secrets of connections, written down for whoever debugs them: in the form of SSLKEYLOGFILE (draft-ietf-tls-keylogfile), which
//! Wireshark reads.
//!
//! Called by rustls in handshakes, on a loop: a line goes into a queue, and is lost if that is full. A thread of the server's
//! writes them. There is none of this unless the operator has asked for it by a name that says what it is.

use std::fmt::Write as _;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use rustls::KeyLog;

/// Lines that wait for the thread: those of 800 handshakes, which a debugger's server does not make at once.
const LINES_MAX: usize = 4_096;

/// Takes secrets.
#[derive(Debug)]
pub struct SecretsOut {
    lines: SyncSender<String>,
    lost: Arc<AtomicU64>,
}

/// Gives them to a writer.
#[derive(Debug)]
pub struct SecretsIn {
    lines: Receiver<String>,
    lost: Arc<AtomicU64>,
}

/// Both ends.
#[must_use]
pub fn secrets() -> (SecretsOut, SecretsIn) {
    let (out, lines) = sync_channel(LINES_MAX);
    let lost = Arc::new(AtomicU64::new(0));
    (SecretsOut { lines: out, lost: Arc::clone(&lost) }, SecretsIn { lines, lost })
}

impl SecretsIn {
    /// Writes until the other end is gone. Each line at once: somebody looks on. `trouble` is told what was not written: a disk
    /// that is full once, and when it takes lines again how many it has not.
    pub fn write_to(self, mut out: impl Write, mut trouble: impl FnMut(String)) {
        let mut failed: u64 = 0;
        while let Ok(line) = self.lines.recv() {
            // Half a line may have been written; the empty one is no line to whoever reads the file.
            let ended = if failed > 0 { out.write_all(b"\n") } else { Ok(()) };
            match ended.and_then(|()| out.write_all(line.as_bytes())) {
                Ok(()) if failed > 0 => {
                    trouble(format!("secrets are written again; {failed} were not"));
                    failed = 0;
                }
                Ok(()) => {}
                Err(error) => {
                    if failed == 0 {
                        trouble(format!(
                            "a secret was not written, and those that follow may not be: {error}"
                        ));
                    }
                    failed += 1;
                }
            }
            let lost = self.lost.swap(0, Ordering::Relaxed);
            if lost > 0 {
                trouble(format!("{lost} secrets were not written: they came faster than that"));
            }
        }
    }
}

/// The key log of a configuration whose secrets are written down, in front of the one that it has.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) to: Arc<SecretsOut>,
    pub(super) also: Arc<dyn KeyLog>,
}

impl KeyLog for Written {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        if self.also.will_log(label) {
            self.also.log(label, client_random, secret);
        }
        let mut line = format!("{label} ");
        push_hex(&mut line, client_random);
        line.push(' ');
        push_hex(&mut line, secret);
        line.push('\n');
        if let Err(TrySendError::Full(_)) = self.to.lines.try_send(line) {
            self.to.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn push_hex(line: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a String cannot fail.
        let _ = write!(line, "{byte:02x}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_lost_and_told_and_nobody_waits() {
        let (out, waiting) = secrets();
        let log = Written { to: Arc::new(out), also: Arc::new(rustls::NoKeyLog {}) };
        for _ in 0..LINES_MAX + 3 {
            log.log("CLIENT_RANDOM", &[1, 0xab], &[2]);
        }
        drop(log);
        let (mut written, mut troubles) = (Vec::new(), Vec::new());
        waiting.write_to(&mut written, |trouble| troubles.push(trouble));
        assert_eq!(String::from_utf8(written).unwrap(), "CLIENT_RANDOM 01ab 02\n".repeat(LINES_MAX));
        assert_eq!(troubles.len(), 1, "{troubles:?}");
        assert!(troubles[0].starts_with("3 secrets"), "{troubles:?}");
    }

    /// A disk with room for so many bytes, until there is more.
    struct Disk<'a> {
        written: &'a mut Vec<u8>,
        room: usize,
        refusals: usize,
    }

    impl Write for Disk<'_> {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let count = bytes.len().min(self.room);
            if count == 0 {
                self.refusals += 1;
                // Somebody has made room in the meantime.
                self.room = if self.refusals == 100 { usize::MAX } else { 0 };
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            self.room -= count;
            self.written.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_is_told_once_and_spoils_no_line_behind_it() {
        let (out, waiting) = secrets();
        let log = Written { to: Arc::new(out), also: Arc::new(rustls::NoKeyLog {}) };
        for _ in 0..200 {
            log.log("CLIENT_RANDOM", &[1, 0xab], &[2]);
        }
        drop(log);
        let (mut written, mut troubles) = (Vec::new(), Vec::new());
        let line = "CLIENT_RANDOM 01ab 02\n";
        let disk = Disk { written: &mut written, room: line.len() + 5, refusals: 0 };
        waiting.write_to(disk, |trouble| troubles.push(trouble));
        let text = String::from_utf8(written).unwrap();
        let whole = text.lines().filter(|written| *written == line.trim_end()).count();
        assert_eq!(whole, 100, "one before, and all since there is room: {text}");
        assert_eq!(text.lines().filter(|written| !written.is_empty()).count(), 101, "half of one: {text}");
        assert_eq!(troubles.len(), 2, "{troubles:?}");
        assert!(troubles[1].contains("100 were not"), "{troubles:?}");
    }
}
