//! The screen of a terminal while a run goes on: a thread of its own that draws what it is given, once a second, and reads
//! keys.
//!
//! The main thread hands it a [`Snapshot`] and never waits for the terminal; workers know nothing of it. The terminal is
//! given back however the run ends: at its end, by a panic in any thread, by a second Ctrl-C.

pub(crate) mod picture;

use std::io::{IsTerminal, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::termios::{self, LocalModes, OptionalActions, SpecialCodeIndex, Termios};

use crate::base::interrupt;
use crate::base::note;
use picture::Snapshot;

/// How long a key or a new size may wait until it is seen.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// How old a drawing may become, for the clock in it.
const REDRAW_EVERY: Duration = Duration::from_secs(1);
/// The other screen without a cursor, and back.
const ENTER: &[u8] = b"\x1b[?1049h\x1b[?25l\x1b[2J";
const LEAVE: &[u8] = b"\x1b[?25h\x1b[?1049l";

/// What the terminal was like before; `None` while there is no screen.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);
/// Whether the screen is there: one run at a time has it, and not that of a bystander.
static TAKEN: AtomicBool = AtomicBool::new(false);

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Screen {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    latest: Mutex<Option<Snapshot>>,
    stop: AtomicBool,
}

/// Whether somebody sits at a terminal that can show a screen.
pub(crate) fn is_wanted() -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let term = std::env::var("TERM").unwrap_or_default();
    let terminals =
        std::io::stdin().is_terminal() && std::io::stdout().is_terminal() && std::io::stderr().is_terminal();
    terminals && !matches!(term.as_str(), "" | "dumb") && !set("NO_COLOR") && !set("CI")
}

/// Gives the terminal back as it was, if a screen has it.
pub(crate) fn restore() {
    let Some(before) = locked(&BEFORE).take() else { return };
    // Whatever goes wrong here, there is nobody left to tell.
    let _ = std::io::stderr().write_all(LEAVE);
    let _ = termios::tcsetattr(std::io::stdin(), OptionalActions::Now, &before);
    note::release();
    TAKEN.store(false, Ordering::SeqCst);
}

impl Screen {
    /// Takes the terminal; `None` if another run has it, or it can't be taken.
    pub(crate) fn start() -> Option<Self> {
        if TAKEN.swap(true, Ordering::SeqCst) {
            return None;
        }
        let screen = Self::take();
        if screen.is_none() {
            restore();
            TAKEN.store(false, Ordering::SeqCst);
        }
        screen
    }

    fn take() -> Option<Self> {
        static PANICS: Once = Once::new();
        PANICS.call_once(|| {
            interrupt::set_last(restore);
            let told = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |panic| {
                restore();
                told(panic);
            }));
        });
        let stdin = std::io::stdin();
        let before = termios::tcgetattr(&stdin).ok()?;
        let mut keys = before.clone();
        // Keys come one by one and unseen. Ctrl-C stays a signal; a run that is suspended or dumped measures nothing.
        keys.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
        for code in [SpecialCodeIndex::VSUSP, SpecialCodeIndex::VQUIT] {
            // 0 is no key (_POSIX_VDISABLE).
            keys.special_codes[code] = 0;
        }
        *locked(&BEFORE) = Some(before);
        note::hold();
        termios::tcsetattr(&stdin, OptionalActions::Now, &keys).ok()?;
        std::io::stderr().write_all(ENTER).ok()?;
        let shared = Arc::new(Shared::default());
        let drawing = shared.clone();
        let thread = std::thread::Builder::new().name("screen".into()).spawn(move || drawing.run()).ok()?;
        Some(Self { shared, thread: Some(thread) })
    }

    /// Hands over what there is to see.
    pub(crate) fn show(&self, snapshot: Snapshot) {
        *locked(&self.shared.latest) = Some(snapshot);
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            // A panic there has given the terminal back already.
            let _ = thread.join();
        }
        restore();
    }
}

impl Shared {
    fn run(&self) {
        let begin = Instant::now();
        let mut current: Option<(Snapshot, Instant)> = None;
        let mut drawn: Option<(Instant, (u16, u16))> = None;
        let mut keys = true;
        while !self.stop.load(Ordering::SeqCst) {
            if let Some(next) = locked(&self.latest).take() {
                current = Some((next, Instant::now()));
                drawn = None;
            }
            let size = size();
            let old = drawn.is_none_or(|(at, of)| at.elapsed() >= REDRAW_EVERY || of != size);
            if old {
                let empty = Snapshot::default();
                let (snapshot, age) = current
                    .as_ref()
                    .map_or((&empty, Duration::ZERO), |(snapshot, at)| (snapshot, at.elapsed()));
                let facts = picture::Now {
                    running: begin.elapsed(),
                    age,
                    ending: interrupt::requested(),
                    note: note::latest(),
                };
                // Nobody has to be there to see it.
                let _ = std::io::stderr().write_all(picture::frame(snapshot, &facts, size).as_bytes());
                drawn = Some((Instant::now(), size));
            }
            keys = keys && wait_for_key();
            if !keys {
                std::thread::sleep(LOOK_EVERY);
            }
        }
    }
}

/// Waits a moment for keys and does what they ask for; false once none can come any more.
fn wait_for_key() -> bool {
    let stdin = std::io::stdin();
    let mut watched = [PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN)];
    let patience = Timespec { tv_sec: 0, tv_nsec: LOOK_EVERY.subsec_nanos().into() };
    match poll(&mut watched, Some(&patience)) {
        Ok(0) => return true,
        Ok(_) => {}
        Err(error) => return error == rustix::io::Errno::INTR,
    }
    let mut bytes = [0; 32];
    match rustix::io::read(&stdin, &mut bytes) {
        Ok(0) | Err(_) => false,
        Ok(count) => {
            let pressed = bytes.get(..count).unwrap_or_default();
            if pressed.iter().any(|key| matches!(key, b'q' | b'Q')) {
                interrupt::request();
            }
            true
        }
    }
}

/// Columns and rows.
fn size() -> (u16, u16) {
    termios::tcgetwinsize(std::io::stderr()).map_or((80, 24), |size| match (size.ws_col, size.ws_row) {
        (0, _) | (_, 0) => (80, 24),
        known => known,
    })
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "../../../tests/pty/mod.rs"]
#[expect(dead_code, reason = "the tests of the program press keys, too")]
mod pty;

#[cfg(test)]
mod tests {
    use super::pty::Pty;
    use super::*;

    const TOLD: &str = "FANTAIL_TEST_PANIC_ON_A_SCREEN";

    /// In a process of its own: a thread panics while the screen is there.
    #[test]
    fn panics_if_told() {
        if std::env::var_os(TOLD).is_none() {
            return;
        }
        let screen = Screen::start().expect("a terminal");
        screen.show(Snapshot { url: "ws://h/".into(), ..Snapshot::default() });
        let _ = std::thread::spawn(|| panic!("on purpose")).join();
        // As in `main`, which ends without dropping what a panic left.
        std::process::exit(3);
    }

    #[test]
    fn a_panic_in_any_thread_gives_the_terminal_back() {
        let own = std::env::current_exe().unwrap();
        let args = ["--exact", "observe::screen::tests::panics_if_told", "--nocapture"];
        let pty = Pty::start(own.to_str().unwrap(), &args, &[(TOLD, "yes")], (80, 24));
        let (code, said) = pty.end();
        assert_eq!(code, Some(3), "{said:?}");
        let leave = said.find("\x1b[?1049l").expect("it left the screen");
        assert!(said.contains("\x1b[?1049h") && said[leave..].contains("on purpose"), "{said:?}");
    }
}
