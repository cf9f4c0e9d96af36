//! The rules of descriptor tables, each in a child process, under every mode a loop can get.
//!
//! A child is this test program again, told by an environment variable which case to play. The mode comes
//! from what seccomp refuses it: nothing, `close_range`, or `unshare` as well.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fantail::sys::limits::nofile;
use fantail::sys::socket::{self, ListenOptions, Sharing};
use fantail::sys::tables::{TableMode, open_in_table, split_table};
use fantail_test_support::confine::{Refused, lower_nofile_in_child, refuse_in_child};

const CASE: &str = "FANTAIL_TEST_TABLE_CASE";
const SAY_MODE: &str = "say its mode";
const PATIENCE: Duration = Duration::from_secs(20);

/// What a child is refused, and the mode its loops must report.
const MODES: [(&[Refused], TableMode); 3] = [
    (&[], TableMode::SplitByCloseRange),
    (&[Refused::CloseRange], TableMode::SplitByUnshare),
    (&[Refused::CloseRange, Refused::Unshare], TableMode::Shared),
];

/// What a child does in the mode it has.
type Case = fn(TableMode);

/// Every case, by the name its child is told.
const CASES: [(&str, Case); 9] = [
    ("reports_its_mode", reports_its_mode),
    ("holds_what_was_kept", holds_what_was_kept),
    ("peers_see_the_end", peers_see_the_end),
    ("a_dead_listener_refuses", a_dead_listener_refuses),
    ("kept_descriptors_work", kept_descriptors_work),
    ("the_limit_binds_each_table", the_limit_binds_each_table),
    ("numbers_are_the_threads_own", numbers_are_the_threads_own),
    ("each_loop_listens_for_itself", each_loop_listens_for_itself),
    ("an_ended_loop_leaves_nothing", an_ended_loop_leaves_nothing),
];

/// The child's side: plays the case it was told, in the mode it was told. Without one it has nothing to do.
#[test]
fn child() {
    let Ok(told) = std::env::var(CASE) else { return };
    if told == SAY_MODE {
        return println!("\nmode {}", std::thread::spawn(|| split_table(&[])).join().unwrap());
    }
    let (name, mode) = told.split_once('/').unwrap();
    let (_, case) = CASES.iter().find(|(case, _)| *case == name).unwrap();
    let (_, mode) = MODES.iter().find(|(_, each)| each.to_string() == mode).unwrap();
    case(*mode);
    println!("\nplayed {told}");
}

/// Plays a case in a child of its own for each mode.
fn play(case: &str) {
    for (refused, mode) in MODES {
        let mode = if is_confined() { obtainable(refused) } else { mode };
        let told = format!("{case}/{mode}");
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "child", "--nocapture"]).env(CASE, &told);
        refuse_in_child(&mut command, refused);
        // Two tables of this size hold what one does not.
        lower_nofile_in_child(&mut command, 64, 64);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{told}:\n{said}\n{errors}");
        assert!(said.contains(&format!("played {told}")), "{told} was not played:\n{said}");
    }
}

/// Whether the tests themselves run under a seccomp filter. A container's default one refuses `unshare`, so
/// that not every mode can be had there.
fn is_confined() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().any(|line| line.starts_with("Seccomp:") && !line.ends_with('0'))
}

/// The mode that the filter around the tests and our own together leave.
fn obtainable(refused: &[Refused]) -> TableMode {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "child", "--nocapture"]).env(CASE, SAY_MODE);
    refuse_in_child(&mut command, refused);
    let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
    let modes = [TableMode::SplitByCloseRange, TableMode::SplitByUnshare, TableMode::Shared];
    modes.into_iter().find(|mode| said.contains(&format!("mode {mode}"))).unwrap()
}

#[test]
fn every_fallback_is_chosen_and_reported() {
    play("reports_its_mode");
}

#[test]
fn a_split_table_holds_only_what_was_kept_and_a_shared_one_everything() {
    play("holds_what_was_kept");
}

#[test]
fn a_peer_sees_the_end_of_a_connection_that_main_closes() {
    play("peers_see_the_end");
}

#[test]
fn a_listener_that_main_closes_accepts_no_more() {
    play("a_dead_listener_refuses");
}

#[test]
fn descriptors_that_were_kept_still_work() {
    play("kept_descriptors_work");
}

#[test]
fn the_limit_binds_each_table_by_itself() {
    play("the_limit_binds_each_table");
}

#[test]
fn a_number_means_a_file_of_the_threads_own_table() {
    play("numbers_are_the_threads_own");
}

#[test]
fn loops_listen_on_one_port_from_their_own_tables() {
    play("each_loop_listens_for_itself");
}

#[test]
fn a_loop_that_ends_closes_its_table() {
    play("an_ended_loop_leaves_nothing");
}

/// A thread that splits first, as a loop does, then works; it lives until the guard is dropped.
struct Loop<T> {
    result: mpsc::Receiver<T>,
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Loop<T> {
    fn start(mode: TableMode, keep: &[i32], work: impl FnOnce() -> T + Send + 'static) -> Self {
        let keep = keep.to_vec();
        let (send, result) = mpsc::channel();
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            assert_eq!(split_table(&keep), mode);
            send.send(work()).unwrap();
            // The sender never sends; its end is the signal.
            assert!(stopped.recv().is_err());
        });
        Self { result, stop: Some(stop), thread: Some(thread) }
    }

    fn result(&self) -> T {
        self.result.recv_timeout(PATIENCE).unwrap()
    }
}

impl<T> Drop for Loop<T> {
    fn drop(&mut self) {
        self.stop.take();
        // A failed thread is a failed case; within another failure a second panic would hide the first.
        let joined = self.thread.take().unwrap().join();
        assert!(joined.is_ok() || std::thread::panicking());
    }
}

fn listener() -> TcpListener {
    listen_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), Sharing::Never).unwrap()
}

fn listen_at(address: SocketAddr, sharing: Sharing) -> io::Result<TcpListener> {
    socket::listen(address, &ListenOptions { sharing, ..ListenOptions::default() })
}

fn accepted(listener: &TcpListener) -> TcpStream {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match socket::accept(listener) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                assert!(Instant::now() < deadline, "nothing to accept");
                std::thread::yield_now();
            }
            result => return result.unwrap().0,
        }
    }
}

fn reports_its_mode(mode: TableMode) {
    // The assertion is in the thread.
    Loop::start(mode, &[], || ()).result();
}

fn holds_what_was_kept(mode: TableMode) {
    let files: Vec<File> = (0..20).map(|_| File::open("/dev/null").unwrap()).collect();
    let keep = [files[2].as_raw_fd(), files[3].as_raw_fd(), files[15].as_raw_fd()];
    let in_main = open_in_table().unwrap();
    assert!(in_main >= 23);
    let expected = if mode.is_split() { 3 + keep.len() } else { in_main };
    assert_eq!(Loop::start(mode, &keep, || open_in_table().unwrap()).result(), expected);
    assert_eq!(open_in_table().unwrap(), in_main, "main's table is as it was");
    assert!(files.iter().all(|file| file.metadata().is_ok()));
}

fn peers_see_the_end(mode: TableMode) {
    let listener = listener();
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let server = accepted(&listener);
    let alive = Loop::start(mode, &[], || ());
    alive.result();
    drop(server);
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "the loop's copy would keep it open");
    drop(alive);
    if mode.is_split() {
        a_copy_keeps_it_open(mode, &listener);
    }
}

/// What the rule is for, and proof that the case above can fail.
fn a_copy_keeps_it_open(mode: TableMode, listener: &TcpListener) {
    let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let server = accepted(listener);
    let copying = Loop::start(mode, &[server.as_raw_fd()], || ());
    copying.result();
    drop(server);
    client.set_read_timeout(Some(Duration::from_millis(30))).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    drop(copying);
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap(), 0, "the copy went with its table");
}

fn a_dead_listener_refuses(mode: TableMode) {
    let listener = listener();
    let address = listener.local_addr().unwrap();
    let alive = Loop::start(mode, &[], || ());
    alive.result();
    drop(listener);
    let refused = TcpStream::connect(address).unwrap_err();
    assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused, "the loop's copy would keep accepting");
    drop(alive);
}

fn kept_descriptors_work(mode: TableMode) {
    // Enough others below and above for the kept one to lie between two gaps.
    let below: Vec<File> = (0..10).map(|_| File::open("/dev/null").unwrap()).collect();
    let (mut here, mut there) = UnixStream::pair().unwrap();
    let above: Vec<File> = (0..10).map(|_| File::open("/dev/null").unwrap()).collect();
    let keep = [there.as_raw_fd()];
    let working = Loop::start(mode, &keep, move || {
        let mut byte = [0];
        there.read_exact(&mut byte).unwrap();
        there.write_all(&[byte[0] + 1]).unwrap();
    });
    here.write_all(&[41]).unwrap();
    here.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut byte = [0];
    here.read_exact(&mut byte).unwrap();
    assert_eq!(byte, [42]);
    working.result();
    drop((below, above));
}

fn the_limit_binds_each_table(mode: TableMode) {
    assert_eq!(nofile().unwrap().soft, 64);
    let open_forty = || (0..40).map(|_| File::open("/dev/null")).collect::<io::Result<Vec<File>>>();
    // The files stay open as long as their thread lives: the result goes back as a count.
    let (hold, held) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let first = Loop::start(mode, &[], move || {
        let files = open_forty();
        tell.send(files.is_ok()).unwrap();
        assert!(held.recv().is_err());
        drop(files);
    });
    assert!(told.recv_timeout(PATIENCE).unwrap(), "forty fit into one table");
    let second = Loop::start(mode, &[], move || open_forty().map(|files| files.len()));
    match second.result() {
        Ok(count) => assert!(mode.is_split() && count == 40, "{count} in {mode}"),
        // EMFILE: the process's table is full.
        Err(error) => assert!(!mode.is_split() && error.raw_os_error() == Some(24), "{error} in {mode}"),
    }
    drop(hold);
    first.result();
}

fn numbers_are_the_threads_own(mode: TableMode) {
    let before = open_in_table().unwrap();
    let (hold, held) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let opened = Loop::start(mode, &[], move || {
        let files: Vec<File> = (0..5).map(|_| File::open("/dev/null").unwrap()).collect();
        let own = std::fs::read_dir("/proc/thread-self/fd").unwrap().count();
        let of_main = std::fs::read_dir("/proc/self/fd").unwrap().count();
        tell.send((own, of_main)).unwrap();
        assert!(held.recv().is_err());
        drop(files);
    });
    let (own, of_main) = told.recv_timeout(PATIENCE).unwrap();
    if mode.is_split() {
        // Reading the own table adds the listing's descriptor; reading main's finds it in the own one.
        assert_eq!((own, of_main), (3 + 5 + 1, before));
        assert_eq!(open_in_table().unwrap(), before, "main does not see them");
    } else {
        assert_eq!((own, of_main), (before + 5 + 1, before + 5 + 1));
        assert_eq!(open_in_table().unwrap(), before + 5);
    }
    drop(hold);
    opened.result();
}

fn each_loop_listens_for_itself(mode: TableMode) {
    // The first binds the port, the second joins it; both are made behind the split.
    let start = |address| {
        let (tell, told) = mpsc::channel();
        let (hold, held) = mpsc::channel::<()>();
        let serving = Loop::start(mode, &[], move || {
            let listener = listen_at(address, Sharing::Always).unwrap();
            tell.send(listener.local_addr().unwrap()).unwrap();
            let mut served = 0;
            while held.try_recv() == Err(mpsc::TryRecvError::Empty) {
                if let Ok((mut stream, _)) = socket::accept(&listener) {
                    stream.write_all(b"x").unwrap();
                    served += 1;
                }
                std::thread::yield_now();
            }
            served
        });
        (told.recv_timeout(PATIENCE).unwrap(), hold, serving)
    };
    let (address, hold_first, first) = start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let (joined, hold_second, second) = start(address);
    assert_eq!(joined, address);
    assert_eq!(socket::probe_port(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    let mut made = 0;
    // The kernel spreads by a hash of the ports, so two loops with a share each are a matter of a few tries.
    while made < 24 {
        let mut client = TcpStream::connect(address).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.read_exact(&mut [0]).unwrap();
        // The loop drops its end at once: the end must reach the client from whichever table it lies in.
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        made += 1;
    }
    drop((hold_first, hold_second));
    let (first, second) = (first.result(), second.result());
    assert_eq!(first + second, made);
    assert!(first > 0 && second > 0, "{first} and {second}");
}

fn an_ended_loop_leaves_nothing(mode: TableMode) {
    let ended = Loop::start(mode, &[], || {
        let listener = listener();
        let address = listener.local_addr().unwrap();
        // Leaked on purpose: only the end of its table closes it.
        std::mem::forget(listener);
        address
    });
    let address = ended.result();
    drop(TcpStream::connect(address).unwrap());
    drop(ended);
    if mode.is_split() {
        // The kernel ends the table behind the moment that `join` waits for.
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(address).is_ok() {
            assert!(Instant::now() < deadline, "the listener outlived its table");
        }
    } else {
        // In a shared table nothing ends with the thread, so a loop closes what it owns by itself.
        drop(TcpStream::connect(address).unwrap());
    }
}
