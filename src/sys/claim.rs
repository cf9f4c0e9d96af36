//! Claims on a port: names of the abstract Unix namespace by which a server says that nobody shares its port.
//!
//! The kernel lets every listener of the same user join a port whose listeners have SO_REUSEPORT, and cannot tell the
//! loops of one server from those of another. A server that shares its port with nobody holds a [`PortClaim`] from
//! before the moment when others could join, and one that would share asks [`is_claimed`] first. Abstract names belong
//! to a network namespace, as ports do, and are gone with their owner, however it ended. Reads and writes nothing.

use std::io;
use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{self, UnixListener};
use std::ptr;

use socket2::{Domain, SockAddr, Socket, Type};

/// Servers that may claim one port of one family, each on an address of its own.
const PER_PORT_MAX: usize = 32;

/// What a server holds for as long as nobody may join its port.
#[derive(Debug)]
pub struct PortClaim {
    address: SocketAddr,
    /// By its address: for whoever would share this very address or one within it.
    _of_address: UnixListener,
    /// By number: for whoever would share all addresses of the port, and can't try them one by one.
    of_port: Option<UnixListener>,
}

impl PortClaim {
    /// Claims an address and port. `None` where another user has taken the name: such a one can't join the port, and
    /// must not keep this server from starting.
    ///
    /// # Errors
    /// `AddrInUse` when a server of the same user has claimed it; else the kernel's.
    pub fn take(address: SocketAddr) -> io::Result<Option<Self>> {
        let name = address_name(address.ip().to_canonical(), address.port());
        let _of_address = match bind(&name) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return if is_held(&name) { Err(error) } else { Ok(None) };
            }
            bound => bound?,
        };
        let mut of_port = None;
        for name in port_names(address.ip().to_canonical(), address.port()) {
            match bind(&name) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                bound => {
                    of_port = Some(bound?);
                    break;
                }
            }
        }
        Ok(Some(Self { address, _of_address, of_port }))
    }

    /// What was claimed.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Descriptors it holds.
    pub fn descriptors(&self) -> usize {
        1 + usize::from(self.of_port.is_some())
    }
}

/// Whether a server of this user has claimed the address, one that contains it, or one that it contains.
pub fn is_claimed(address: SocketAddr) -> bool {
    let (own, port) = (address.ip().to_canonical(), address.port());
    let (v4, v6) = (IpAddr::from(Ipv4Addr::UNSPECIFIED), IpAddr::from(Ipv6Addr::UNSPECIFIED));
    // A listener on [::] takes IPv4, too.
    let mut names = vec![address_name(own, port), address_name(v6, port)];
    if own.is_ipv4() || own == v6 {
        names.push(address_name(v4, port));
    }
    if own.is_unspecified() {
        names.extend(port_names(own, port));
    }
    if own == v6 {
        names.extend(port_names(v4, port));
    }
    names.iter().any(|name| is_held(name))
}

fn address_name(ip: IpAddr, port: u16) -> String {
    format!("fantail/alone/{}", SocketAddr::new(ip, port))
}

fn port_names(ip: IpAddr, port: u16) -> impl Iterator<Item = String> {
    let family = if ip.is_ipv4() { "ipv4" } else { "ipv6" };
    (0..PER_PORT_MAX).map(move |number| format!("fantail/alone/{family}/{port}/{number}"))
}

fn bind(name: &str) -> io::Result<UnixListener> {
    UnixListener::bind_addr(&net::SocketAddr::from_abstract_name(name)?)
}

/// Whether a process of this user holds the name. Another user's would be an attempt to keep servers from starting.
fn is_held(name: &str) -> bool {
    match connected_to(name).and_then(|socket| user_at(&socket)) {
        // SAFETY: geteuid has no arguments, touches no memory and can't fail.
        Ok(user) => user == unsafe { libc::geteuid() },
        // Whoever asked before waits in the owner's queue, which is never emptied. If it is full there is an owner; any
        // other error says that nobody listens by that name.
        Err(error) => error.kind() == io::ErrorKind::WouldBlock,
    }
}

fn connected_to(name: &str) -> io::Result<Socket> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // A full queue must not be waited for.
    socket.set_nonblocking(true)?;
    socket.connect(&SockAddr::unix(format!("\0{name}"))?)?;
    Ok(socket)
}

/// The user who listens at the other end.
fn user_at(socket: &Socket) -> io::Result<libc::uid_t> {
    let mut peer = libc::ucred { pid: 0, uid: libc::uid_t::MAX, gid: libc::gid_t::MAX };
    let mut length = mem::size_of_val(&peer) as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes to `peer`, which is that large, live and writable for the call,
    // and any bytes are a valid ucred. The descriptor is borrowed for the call.
    super::checked(unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            ptr::from_mut(&mut peer).cast(),
            &mut length,
        )
    })?;
    Ok(peer.uid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A port that nobody has, kept by a listener on an address that no test asks about.
    fn port() -> (u16, TcpListener) {
        let keeper = TcpListener::bind("127.9.9.9:0").unwrap();
        (keeper.local_addr().unwrap().port(), keeper)
    }

    fn at(ip: &str, port: u16) -> SocketAddr {
        SocketAddr::new(ip.parse().unwrap(), port)
    }

    #[test]
    fn a_claim_is_seen_by_whoever_would_meet_its_owner_and_by_nobody_else() {
        let addresses = ["127.0.0.1", "127.0.0.2", "0.0.0.0", "::1", "::", "::ffff:127.0.0.1"];
        // In the order of the addresses: whether somebody there would meet the owner.
        let meets = [
            [true, false, true, false, true, true],
            [false, true, true, false, true, false],
            [true, true, true, false, true, true],
            [false, false, false, true, true, false],
            [true; 6],
            [true, false, true, false, true, true],
        ];
        // Kept, too: the next number may be the port of whoever runs beside.
        let (other, _kept) = port();
        for (owner, meets) in addresses.iter().zip(meets) {
            let (port, _keeper) = port();
            let claim = PortClaim::take(at(owner, port)).unwrap();
            assert!(claim.is_some());
            let seen: Vec<bool> = addresses.iter().map(|address| is_claimed(at(address, port))).collect();
            assert_eq!(seen, meets, "{owner}");
            assert!(!is_claimed(at(owner, other)), "another port");
            drop(claim);
            assert!(addresses.iter().all(|address| !is_claimed(at(address, port))), "{owner}");
        }
    }

    #[test]
    fn an_address_is_claimed_once_and_a_port_by_several_addresses() {
        let (port, _keeper) = port();
        let first = PortClaim::take(at("127.0.0.1", port)).unwrap();
        let again = PortClaim::take(at("127.0.0.1", port)).unwrap_err();
        assert_eq!(again.kind(), io::ErrorKind::AddrInUse);
        let second = PortClaim::take(at("127.0.0.2", port)).unwrap();
        drop(first);
        assert!(is_claimed(at("0.0.0.0", port)), "the second one is still there");
        drop(second);
        assert!(PortClaim::take(at("127.0.0.1", port)).unwrap().is_some());
    }

    #[test]
    fn asking_often_changes_nothing() {
        let (port, _keeper) = port();
        let _claim = PortClaim::take(at("127.0.0.1", port)).unwrap();
        // More often than any queue is long.
        assert!((0..5_000).all(|_| is_claimed(at("127.0.0.1", port))));
    }
}
