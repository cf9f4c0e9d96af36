//! What the floor programs share: flags, one listener per thread, the ready line, the upgrade
//! answer, the reading of heads and the descriptor tables. It never touches the delivery path.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};

use fantail::sys::{limits, tables};
use mio::net::TcpListener;
use socket2::{Domain, Protocol, Socket, Type};
use tungstenite::handshake::derive_accept_key;

/// A head longer than this is not one of a load generator's.
pub(crate) const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Binds one thread's listener; TCP_NODELAY is set on it so that every accepted socket inherits
/// it without a system call of its own.
pub(crate) fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// Prints the line that harnesses wait for, in the form that `fantail serve` prints.
pub(crate) fn print_ready(listen: SocketAddr, admin: SocketAddr) {
    println!("fantail ready listen={listen} admin={admin} pid={}", std::process::id());
}

/// The bytes up to and including the empty line that ends a head, or `None` while it is not whole.
pub(crate) fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4)
}

/// The value of the header `name` (ASCII, any case) in a whole head.
pub(crate) fn header<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    head.split(|&byte| byte == b'\n').skip(1).find_map(|line| {
        let (key, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?;
        key.eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim_ascii())
    })
}

/// The answer to an upgrade request (RFC 6455 section 4.2.2), or `None` if it carries no key.
pub(crate) fn upgrade_answer(head: &[u8]) -> Option<String> {
    let accept = derive_accept_key(header(head, "Sec-WebSocket-Key")?);
    Some(format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    ))
}

/// Room for descriptors: RLIMIT_NOFILE binds per table, so a thread with a table of its own adds
/// its limit to the others'.
#[derive(Clone, Copy)]
pub(crate) struct Table {
    /// Descriptors below this were there before any thread.
    first_own: RawFd,
}

impl Table {
    /// Called by main when it has opened what threads share (polls, wakers), and nothing else.
    pub(crate) fn prepare() -> io::Result<Self> {
        limits::raise_nofile()?;
        // The kernel gives the lowest free number, so this one is above all that is open.
        Ok(Self { first_own: File::open("/dev/null")?.as_raw_fd() })
    }

    /// Called by a thread before it opens anything.
    pub(crate) fn split_off(self) {
        let keep: Vec<RawFd> = (0..self.first_own).collect();
        if !tables::split_table(&keep).is_split() {
            eprintln!("this thread shares its descriptor table, and so its limit");
        }
    }
}
