//! One running server as a test sees it: the real binary, on free ports, killed when dropped.

use std::io::{BufRead, BufReader, Read};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use fantail::sys::socket::{connect_from, peer_of};

use crate::client::{Answer, Peer};
use crate::secure;

/// What anything may take before a test gives up on it: nothing that works takes as long on a machine that is slow and
/// has others to serve.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// What a test says nothing of must not happen in it, however slow the machine is: the server's own times for its peers
/// are longer than a test's patience.
const PATIENT: [(&str, &str); 6] = [
    ("FANTAIL_TIMEOUTS_HANDSHAKE_SECONDS", "600"),
    ("FANTAIL_TIMEOUTS_HEARTBEAT_SECONDS", "600"),
    ("FANTAIL_TIMEOUTS_KEEP_ALIVE_SECONDS", "600"),
    ("FANTAIL_TIMEOUTS_PONG_SECONDS", "600"),
    ("FANTAIL_TIMEOUTS_SSE_HEARTBEAT_SECONDS", "600"),
    ("FANTAIL_TIMEOUTS_WRITE_TIMEOUT_SECONDS", "600"),
];

/// How often a test tries anew that only holds while the machine does not stand still.
const ATTEMPTS: usize = 20;

/// A server process.
pub(crate) struct Server {
    child: Child,
    pub(crate) listen: SocketAddr,
    pub(crate) admin: SocketAddr,
    /// Where it speaks TLS, if it does.
    pub(crate) tls: Option<SocketAddr>,
    log: Receiver<String>,
}

/// The command that starts a server; only the variables given here configure it.
pub(crate) fn command(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fantail"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("FANTAIL_") {
            command.env_remove(name);
        }
    }
    command.args(arguments).envs(environment.iter().copied());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// The command on free ports.
pub(crate) fn on_free_ports(arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut all = vec!["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"];
    all.extend_from_slice(arguments);
    let flags;
    if secure::everywhere() && !all.contains(&"--tls-listen") {
        flags = secure::flags(&secure::usual().files);
        all.extend(flags.iter().map(String::as_str));
    }
    let mut command = command(&all, environment);
    // Tests that are about one form say so themselves.
    if secure::rustls() && !environment.iter().any(|(name, _)| *name == "FANTAIL_TLS_LEAN") {
        command.env("FANTAIL_TLS_LEAN", "false");
    }
    command
}

/// Sets the times that neither the test's variables nor its file speak of. A file that speaks of any stands for itself,
/// since a variable would win over what it says later, too.
fn be_patient(command: &mut Command) {
    let arguments: Vec<_> = command.get_args().map(|argument| argument.to_string_lossy()).collect();
    let file = arguments.iter().position(|argument| argument == "--config").map(|at| at + 1);
    let file = file.and_then(|at| std::fs::read_to_string(arguments.get(at)?.as_ref()).ok());
    if file.is_some_and(|text| text.contains("[timeouts]")) {
        return;
    }
    let given: Vec<_> = command.get_envs().map(|(name, _)| name.to_os_string()).collect();
    command.envs(PATIENT.iter().filter(|(name, _)| !given.iter().any(|other| other == name)).copied());
}

impl Server {
    /// Starts one with flags and variables.
    pub(crate) fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        Self::spawn(on_free_ports(arguments, environment))
    }

    /// Starts a prepared command and waits for its ready line.
    pub(crate) fn spawn(mut command: Command) -> Self {
        be_patient(&mut command);
        let mut child = command.spawn().expect("the binary starts");
        // A test may have given it somewhere else to write.
        let log = child.stderr.take().map_or_else(|| mpsc::channel().1, lines);
        let out = lines(child.stdout.take().expect("piped"));
        let ready = out.recv_timeout(PATIENCE);
        let Ok(ready) = ready else {
            let _ = child.kill();
            let _ = child.wait();
            panic!("no ready line; log: {:?}", log.iter().collect::<Vec<_>>());
        };
        let try_address = |name: &str| -> Option<SocketAddr> {
            let field = ready.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
            field.and_then(|text| text.trim_end().parse().ok())
        };
        let address = |name: &str| try_address(name).unwrap_or_else(|| panic!("no {name} in {ready:?}"));
        assert!(ready.starts_with("fantail ready "), "{ready:?}");
        let (listen, admin) = (address("listen"), address("admin"));
        let tls = try_address("tls");
        let https = ready.split_whitespace().any(|word| word == "admin_scheme=https");
        secure::note(listen, (admin, https), tls);
        Self { child, listen, admin, tls, log }
    }

    /// Starts one on free ports that writes its ready line to `out`, and learns from its log where it listens.
    pub(crate) fn spawn_unheard(arguments: &[&str], out: Stdio) -> Self {
        let mut command = on_free_ports(arguments, &[]);
        be_patient(&mut command);
        let mut child = command.stdout(out).spawn().expect("the binary starts");
        let log = lines(child.stderr.take().expect("piped"));
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let mut server = Self { child, listen: nowhere, admin: nowhere, tls: None, log };
        let address = |who: &str| {
            let line = server.await_log(&format!("listening for {who} on "));
            let address = line.split(" on ").nth(1).and_then(|rest| rest.split(' ').next());
            address
                .and_then(|address| address.parse().ok())
                .unwrap_or_else(|| panic!("no address in {line:?}"))
        };
        let (listen, admin) = (address("clients"), address("operators"));
        (server.listen, server.admin) = (listen, admin);
        secure::note(listen, (admin, false), None);
        server
    }

    /// A connection to the client port.
    pub(crate) fn connect(&self) -> Peer {
        Peer::connect(self.listen)
    }

    /// A connection to the admin port.
    pub(crate) fn connect_admin(&self) -> Peer {
        Peer::connect(self.admin)
    }

    /// An upgraded connection to `path`.
    pub(crate) fn websocket(&self, path: &str) -> Peer {
        let mut peer = self.connect();
        peer.upgrade(path);
        peer
    }

    /// Publishes through the admin port.
    pub(crate) fn publish(&self, path: &str, body: &[u8]) -> Answer {
        let mut admin = self.connect_admin();
        let head = format!(
            "POST /publish/{path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n",
            self.admin,
            body.len()
        );
        admin.send(head.as_bytes());
        admin.send(body);
        admin.answer()
    }

    /// `GET` of the admin port.
    pub(crate) fn get(&self, path: &str) -> Answer {
        let mut admin = self.connect_admin();
        admin.send(format!("GET {path} HTTP/1.1\r\nHost: {}\r\n\r\n", self.admin).as_bytes());
        admin.answer()
    }

    /// `POST` to the admin port, with further fields if there are any.
    pub(crate) fn post(&self, path: &str, fields: &str, body: &[u8]) -> Answer {
        let mut admin = self.connect_admin();
        admin.send(
            format!(
                "POST {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n{fields}\r\n",
                self.admin,
                body.len()
            )
            .as_bytes(),
        );
        admin.send(body);
        admin.answer()
    }

    /// The sum over a metric's samples whose labels contain `label`; the admin loop's are left out.
    pub(crate) fn metric(&self, name: &str, label: &str) -> u64 {
        let text = self.get("/metrics").text();
        let samples = text.lines().filter(|line| {
            line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
                && line.contains(label)
                && !line.contains("loop=\"admin\"")
        });
        samples.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    }

    /// Waits until a metric is as wanted.
    pub(crate) fn await_metric(&self, name: &str, label: &str, wanted: impl Fn(u64) -> bool) -> u64 {
        let mut last = 0;
        wait_for(&format!("{name} {label}"), || {
            last = self.metric(name, label);
            wanted(last)
        });
        last
    }

    /// What it logged since a test last looked, once it has ended.
    pub(crate) fn rest_of_log(&self) -> String {
        self.log.iter().map(|line| line + "\n").collect()
    }

    /// The process's id.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line of the log that contains `part`.
    pub(crate) fn await_log(&self, part: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        while let Ok(line) = self.log.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if line.contains(part) {
                return line;
            }
            seen.push(line);
        }
        panic!("no {part:?} in the log: {seen:#?}");
    }

    /// Asks it to end, as an operator does.
    pub(crate) fn terminate(&self) {
        self.signal("TERM");
    }

    /// Sends a signal by its short name.
    pub(crate) fn signal(&self, name: &str) {
        // The shell's own `kill` is everywhere, and the test needs no system call of its own.
        let kill = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().expect("a shell").success());
    }

    /// How it ended, if it has.
    pub(crate) fn try_exit(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child")
    }

    /// Waits for the process to end.
    pub(crate) fn await_exit(&mut self) -> ExitStatus {
        let mut status = None;
        wait_for("the process to end", || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        });
        status.expect("just waited for")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a command that is to end by itself: its exit code and what it said on standard error.
pub(crate) fn fails(mut command: Command) -> (Option<i32>, String) {
    let mut child = command.spawn().expect("the binary starts");
    let log = lines(child.stderr.take().expect("piped"));
    let mut status = None;
    let deadline = Instant::now() + PATIENCE;
    while status.is_none() && Instant::now() < deadline {
        status = child.try_wait().expect("a child");
        thread::park_timeout(Duration::from_millis(2));
    }
    let _ = child.kill();
    let _ = child.wait();
    let said: Vec<String> = log.iter().collect();
    (status.expect("it ends by itself").code(), said.join("\n"))
}

/// Waits for a condition, looking again every few milliseconds.
pub(crate) fn wait_for(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "waited too long for {what}");
        thread::park_timeout(Duration::from_millis(5));
    }
}

/// Tries until an attempt was not disturbed: one in which the test itself came too late is `None`, and shows nothing.
pub(crate) fn undisturbed<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    (0..ATTEMPTS).find_map(|_| attempt()).unwrap_or_else(|| panic!("too busy a machine for {what}"))
}

/// An address where nobody listens, and nobody can as long as the socket is held.
pub(crate) fn nobody() -> (socket2::Socket, SocketAddr) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port");
    let address = socket.local_addr().expect("bound").as_socket().expect("of the internet");
    (socket, address)
}

/// Connects or says why not, within the patience of a test.
pub(crate) fn dial(to: SocketAddr) -> TcpStream {
    ready(TcpStream::connect_timeout(&to, PATIENCE).expect("the server accepts"))
}

/// The same from a source address.
pub(crate) fn dial_from(source: IpAddr, to: SocketAddr) -> TcpStream {
    let stream = connect_from(Some(source), to).expect("a local address");
    wait_for("the connection", || peer_of(&stream).is_ok());
    stream.set_nonblocking(false).expect("an option");
    ready(stream)
}

fn ready(stream: TcpStream) -> TcpStream {
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    stream.set_nodelay(true).expect("no delay");
    stream
}

/// Every line of a stream, read on a thread of its own.
pub(crate) fn lines(from: impl Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                // Read on: a full pipe would block the server.
                continue;
            }
        }
    });
    receiver
}
