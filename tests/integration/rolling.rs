//! Rolling restarts: two servers on one port, one goes and its clients come back on the other. Nobody is refused, and
//! what is published meanwhile reaches whoever is connected.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fantail::sys::socket::{connect_from, peer_of, reset_on_close};
use fantail::wire::frame::{Opcode, Sender, decode_header, push_frame};

use crate::client::{assert_upgraded, upgrade_request};
use crate::server::{Server, command, dial, undisturbed, wait_for};

/// What a whole handover may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// A message whose publish was answered so shortly before a client was sent away may have crossed the close frame: a loop
/// that is busy all the time sends clients away behind what had been published when their time came, and waits three
/// seconds for that at the most.
const CROSSING: Duration = Duration::from_secs(4);

const PUBLISH_EVERY: Duration = Duration::from_millis(50);
const REQUEST: &str = "GET /ws/news HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// Publishes the numbers from 0 to every server, those that are away excepted, until dropped.
struct Publisher {
    progress: Arc<Mutex<Progress>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Progress {
    /// Messages whose publish has begun.
    begun: usize,
    /// When each was answered by all servers that are there.
    done: Vec<Instant>,
}

impl Publisher {
    fn start(admins: Vec<SocketAddr>) -> Self {
        let (progress, stop) = (Arc::<Mutex<Progress>>::default(), Arc::<AtomicBool>::default());
        let (shared, stopped) = (Arc::clone(&progress), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            for number in 0.. {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                shared.lock().expect("no panic").begun = number + 1;
                let taken = admins.iter().filter(|admin| publish(**admin, number)).count();
                assert!(taken > 0, "no server takes message {number}");
                shared.lock().expect("no panic").done.push(Instant::now());
                thread::park_timeout(PUBLISH_EVERY);
            }
        });
        Self { progress, stop, thread: Some(thread) }
    }

    fn begun(&self) -> usize {
        self.progress.lock().expect("no panic").begun
    }

    fn done_by(&self, at: Instant) -> usize {
        self.progress.lock().expect("no panic").done.partition_point(|done| *done <= at)
    }

    /// Stops; returns how many messages there were.
    fn stop(&mut self) -> usize {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            thread.join().expect("the publisher");
        }
        self.begun()
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Whether a server took the message; one that is being restarted does not.
fn publish(admin: SocketAddr, number: usize) -> bool {
    let Ok(mut stream) = TcpStream::connect(admin) else { return false };
    let body = number.to_string();
    let request = format!(
        "POST /publish/news HTTP/1.1\r\nHost: {admin}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let mut answer = String::new();
    stream.write_all(request.as_bytes()).is_ok()
        && stream.read_to_string(&mut answer).is_ok()
        && answer.starts_with("HTTP/1.1 200")
}

enum State {
    Away(Instant),
    Connecting,
    Asking,
    Open,
}

/// A client that comes back whenever it is sent away.
struct Client {
    state: State,
    stream: Option<TcpStream>,
    held: Vec<u8>,
    /// The number that comes next, or from which on it is owed every one if none has come.
    next: usize,
    heard: bool,
    /// When it was last read from to the end, and its connection had not ended.
    read_until: Instant,
}

/// What became of all clients together.
#[derive(Debug, Default)]
struct Account {
    /// Attempts that failed, by what happened.
    refused: BTreeMap<String, usize>,
    /// Connections that ended, by close code or what happened instead.
    ended: BTreeMap<String, usize>,
    missing: usize,
    duplicate: usize,
    received: usize,
}

struct Crowd {
    address: SocketAddr,
    clients: Vec<Client>,
    account: Account,
    random: u32,
}

impl Crowd {
    fn new(address: SocketAddr, count: usize) -> Self {
        let now = Instant::now();
        let client = || Client {
            state: State::Away(now),
            stream: None,
            held: Vec::new(),
            next: 0,
            heard: false,
            read_until: now,
        };
        let clients = (0..count).map(|_| client()).collect();
        Self { address, clients, account: Account::default(), random: 0x9E37_79B9 }
    }

    /// Has everybody read and come back until `done`.
    fn until(&mut self, what: &str, publisher: &Publisher, mut done: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !done(self) {
            assert!(Instant::now() < deadline, "waited too long for {what}: {:?}", self.account);
            for index in 0..self.clients.len() {
                self.turn(index, publisher);
            }
            thread::park_timeout(Duration::from_millis(1));
        }
    }

    fn open(&self) -> usize {
        self.clients.iter().filter(|client| matches!(client.state, State::Open)).count()
    }

    fn turn(&mut self, index: usize, publisher: &Publisher) {
        let client = &mut self.clients[index];
        match client.state {
            State::Away(until) if until <= Instant::now() => {
                match connect_from(None, self.address) {
                    Ok(stream) => client.stream = Some(stream),
                    Err(error) => return self.refuse(index, format!("{:?}", error.kind())),
                }
                client.held.clear();
                client.state = State::Connecting;
            }
            State::Away(_) => {}
            State::Connecting => {
                let stream = client.stream.as_mut().expect("connecting");
                if let Some(error) = stream.take_error().expect("an option") {
                    return self.refuse(index, format!("{:?}", error.kind()));
                }
                if peer_of(stream).is_ok() {
                    match stream.write_all(REQUEST.as_bytes()) {
                        Ok(()) => client.state = State::Asking,
                        Err(error) => self.refuse(index, format!("{:?}", error.kind())),
                    }
                }
            }
            State::Asking | State::Open => self.read(index, publisher),
        }
    }

    fn read(&mut self, index: usize, publisher: &Publisher) {
        let now = Instant::now();
        let client = &mut self.clients[index];
        let mut some = [0; 16 * 1024];
        let ended = loop {
            match client.stream.as_mut().expect("connected").read(&mut some) {
                Ok(0) => break Some("Eof".to_owned()),
                Ok(count) => client.held.extend_from_slice(&some[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break None,
                Err(error) => break Some(format!("{:?}", error.kind())),
            }
        };
        if matches!(client.state, State::Asking)
            && let Some(end) = client.held.windows(4).position(|window| window == b"\r\n\r\n")
        {
            let status = String::from_utf8_lossy(&client.held[9..12]).into_owned();
            if status != "101" {
                return self.refuse(index, status);
            }
            client.held.drain(..end + 4);
            client.state = State::Open;
            client.next = publisher.begun();
            client.heard = false;
        }
        let closed = if matches!(client.state, State::Open) { self.frames(index) } else { None };
        let client = &mut self.clients[index];
        match (closed.or(ended), &client.state) {
            (Some(how), State::Asking) => self.refuse(index, how),
            (Some(how), _) => self.on_end(index, how, publisher),
            (None, _) => client.read_until = now,
        }
    }

    /// Takes the frames that are there; the code of a close frame among them.
    fn frames(&mut self, index: usize) -> Option<String> {
        let (client, account) = (&mut self.clients[index], &mut self.account);
        while let Some(header) = decode_header(&client.held, Sender::Server).expect("legal frames") {
            let end = header.header_len + header.payload_len as usize;
            let payload = client.held.get(header.header_len..end)?.to_vec();
            client.held.drain(..end);
            match header.opcode {
                Opcode::Text => {
                    let number: usize = String::from_utf8(payload).expect("text").parse().expect("a number");
                    account.received += 1;
                    if client.heard && number < client.next {
                        account.duplicate += 1;
                        continue;
                    }
                    account.missing += number.saturating_sub(client.next);
                    client.next = number + 1;
                    client.heard = true;
                }
                Opcode::Close => {
                    let mut answer = Vec::new();
                    push_frame(&mut answer, Opcode::Close, &payload[..2], Some([1, 2, 3, 4]));
                    let _ = client.stream.as_mut().expect("open").write(&answer);
                    return Some(u16::from_be_bytes([payload[0], payload[1]]).to_string());
                }
                other => panic!("a frame of kind {other:?}"),
            }
        }
        None
    }

    fn on_end(&mut self, index: usize, how: String, publisher: &Publisher) {
        *self.account.ended.entry(how).or_default() += 1;
        let client = &mut self.clients[index];
        let owed = publisher.done_by(client.read_until - CROSSING);
        self.account.missing += owed.saturating_sub(client.next);
        self.go_away(index);
    }

    fn refuse(&mut self, index: usize, how: String) {
        *self.account.refused.entry(how).or_default() += 1;
        self.go_away(index);
    }

    /// Comes back after a wait with full jitter.
    fn go_away(&mut self, index: usize) {
        self.random = self.random.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let wait = Duration::from_millis(u64::from(self.random >> 16) % 100);
        let client = &mut self.clients[index];
        client.stream = None;
        client.state = State::Away(Instant::now() + wait);
    }

    /// Nobody was refused, everybody was told 1001, and all that was owed came.
    fn check(&self) {
        let account = &self.account;
        assert!(account.refused.is_empty(), "{account:?}");
        assert!(account.ended.keys().all(|how| how == "1001"), "{account:?}");
        assert_eq!((account.missing, account.duplicate), (0, 0), "{account:?}");
    }

    /// Everybody has had the last message.
    fn await_all_of(&mut self, count: usize, publisher: &Publisher) {
        self.until("the last message", publisher, |crowd| {
            crowd.clients.iter().all(|client| matches!(client.state, State::Open) && client.next >= count)
        });
    }
}

/// Clients that connect, are upgraded and leave, one after the other as fast as they can.
struct Passers {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<(usize, Vec<String>)>>,
}

impl Passers {
    fn start(address: SocketAddr, count: usize) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let threads = (0..count).map(|_| {
            let stop = Arc::clone(&stop);
            thread::spawn(move || {
                let (mut served, mut failed) = (0, Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    match pass(address) {
                        Ok(status) if status == "101" => served += 1,
                        other => failed.push(format!("{other:?}")),
                    }
                }
                (served, failed)
            })
        });
        let threads = threads.collect();
        Self { stop, threads }
    }

    /// How many were served. The others are named.
    fn stop(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = (0, Vec::new());
        for thread in self.threads {
            let (served, failed) = thread.join().expect("a passer");
            all.0 += served;
            all.1.extend(failed);
        }
        all
    }
}

/// The status that one connection is answered with.
fn pass(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = dial(address);
    // Its port must not wait for a minute: thousands of them come.
    reset_on_close(&stream)?;
    stream.write_all(REQUEST.as_bytes())?;
    let mut status = [0; 12];
    stream.read_exact(&mut status)?;
    Ok(String::from_utf8_lossy(&status[9..]).into_owned())
}

const DRAIN: (&str, &str) = ("FANTAIL_DRAIN_SECONDS", "1");

/// At an address where nobody else takes a port while its server is away.
const APART: &str = "127.0.43.7:0";

fn instance(listen: &str, admin: &str) -> Server {
    Server::spawn(command(&["--share-port", "--loops", "2", "--listen", listen, "--admin", admin], &[DRAIN]))
}

#[test]
fn a_new_server_takes_over_and_nobody_is_refused() {
    const CLIENTS: usize = 500;
    let mut old = instance(APART, APART);
    let listen = old.listen.to_string();
    let mut crowd = Crowd::new(old.listen, CLIENTS);
    let new = instance(&listen, APART);
    let mut publisher = Publisher::start(vec![old.admin, new.admin]);
    crowd.until("everybody to connect", &publisher, |crowd| crowd.open() == CLIENTS);
    let with_old = old.metric("fantail_connections", "") as usize;
    assert!(with_old > 0, "the kernel gave the old one nobody");
    let passers = Passers::start(old.listen, 2);

    old.terminate();
    let mut status = None;
    crowd.until("the old server to end", &publisher, |_| {
        status = old.try_exit();
        status.is_some()
    });
    assert_eq!(status.and_then(|status| status.code()), Some(0), "{}", old.rest_of_log());
    crowd.until("everybody to be back", &publisher, |crowd| crowd.open() == CLIENTS);
    crowd.until("some messages", &publisher, |crowd| {
        publisher.begun() > 20 && crowd.account.received > CLIENTS * 10
    });
    let (passed, failed) = passers.stop();
    assert!(passed > 0 && failed.is_empty(), "{passed} passed, and not {failed:?}");
    let published = publisher.stop();
    crowd.await_all_of(published, &publisher);
    crowd.check();
    let ended: usize = crowd.account.ended.values().sum();
    assert!(ended >= with_old, "{ended} were sent away, {with_old} were there");
    // The last of those who passed may not be counted out yet.
    new.await_metric("fantail_connections", "", |open| open as usize == CLIENTS);
}

#[test]
fn two_servers_are_restarted_one_after_the_other() {
    const CLIENTS: usize = 300;
    let first = instance(APART, APART);
    let listen = first.listen.to_string();
    let second = instance(&listen, APART);
    let mut crowd = Crowd::new(first.listen, CLIENTS);
    let mut publisher = Publisher::start(vec![first.admin, second.admin]);
    crowd.until("everybody to connect", &publisher, |crowd| crowd.open() == CLIENTS);

    let mut servers = Vec::new();
    for mut server in [first, second] {
        let admin = server.admin.to_string();
        server.terminate();
        let mut status = None;
        crowd.until("a server to end", &publisher, |_| {
            status = server.try_exit();
            status.is_some()
        });
        assert_eq!(status.and_then(|status| status.code()), Some(0), "{}", server.rest_of_log());
        let listen = listen.clone();
        let starting = thread::spawn(move || instance(&listen, &admin));
        crowd.until("it to be ready again", &publisher, |_| starting.is_finished());
        servers.push(starting.join().expect("a server"));
    }
    crowd.until("everybody to be back", &publisher, |crowd| crowd.open() == CLIENTS);
    let published = publisher.stop();
    crowd.await_all_of(published, &publisher);
    crowd.check();
    // Whoever was at the second one was sent away by it.
    assert!(crowd.account.ended["1001"] >= CLIENTS, "{:?}", crowd.account);
    wait_for("nobody else to be counted", || {
        let open = servers.iter().map(|server| server.metric("fantail_connections", ""));
        open.sum::<u64>() as usize == CLIENTS
    });
}

/// How long a first request is awaited from the start of a drain on, less what the server itself may be late.
const AWAITED: Duration = Duration::from_millis(1_800);

#[test]
fn whoever_has_connected_and_not_asked_yet_is_served_and_told_to_go() {
    undisturbed("a request in time", || {
        let mut server = Server::start(&["--share-port", "--loops", "1"], &[DRAIN]);
        let mut told = server.websocket("/ws");
        let mut silent = server.connect();
        let mut late = server.connect();
        server.await_metric("fantail_connections", "", |open| open == 3);
        let begin = Instant::now();
        server.terminate();
        assert_eq!(told.frame().close_code(), Some(1001));
        late.try_send(upgrade_request(server.listen, "/ws/news", "").as_bytes());
        if begin.elapsed() > AWAITED {
            return None;
        }
        assert_upgraded(&late.answer());
        assert_eq!(late.frame().close_code(), Some(1001));
        for peer in [&mut told, &mut late] {
            peer.send_frame(Opcode::Close, &1001_u16.to_be_bytes());
            peer.expect_end();
        }
        // Who asks for nothing is not waited for.
        silent.expect_end();
        drop((silent, late, told));
        assert_eq!(server.await_exit().code(), Some(0));
        Some(())
    });
}

#[test]
fn short_timeouts_of_closing_cut_nobody_off_who_is_waited_for() {
    let short = [
        ("FANTAIL_DRAIN_SECONDS", "0.1"),
        ("FANTAIL_TIMEOUTS_CLOSE_SECONDS", "0.1"),
        ("FANTAIL_TIMEOUTS_LINGER_SECONDS", "0.1"),
    ];
    undisturbed("a request in time", || {
        let mut server = Server::start(&["--loops", "1"], &short);
        let mut late = server.connect();
        server.await_metric("fantail_connections", "", |open| open == 1);
        let begin = Instant::now();
        server.terminate();
        server.await_log("draining");
        // All other times are over, and it has one second left.
        wait_for("a second to pass", || begin.elapsed() > Duration::from_secs(1));
        late.try_send(upgrade_request(server.listen, "/ws/news", "").as_bytes());
        if begin.elapsed() > AWAITED {
            return None;
        }
        assert_upgraded(&late.answer());
        assert_eq!(late.frame().close_code(), Some(1001));
        drop(late);
        assert_eq!(server.await_exit().code(), Some(0));
        Some(())
    });
}
