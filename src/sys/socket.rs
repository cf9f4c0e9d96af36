//! Sockets: listeners whose options every accepted connection inherits, outgoing connections, and what the
//! kernel still holds of one. Never reads or writes a byte.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, FromRawFd};
use std::ptr;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockFilter, SockRef, Socket, Type};

/// What a listener is made with. A zero leaves the kernel's default.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListenOptions {
    /// Connections that may wait for `accept`; the kernel caps it at `net.core.somaxconn`.
    pub backlog: u32,
    /// Unsent bytes above which a connection is not writable (TCP_NOTSENT_LOWAT). It bounds what a stalled
    /// consumer costs the kernel.
    pub notsent_lowat: u32,
    /// How long sent bytes may stay unacknowledged before the kernel gives the connection up
    /// (TCP_USER_TIMEOUT). It bounds how long a vanished peer is kept.
    pub user_timeout_ms: u32,
    /// Whether other listeners may share the port.
    pub sharing: Sharing,
}

/// Whether other listeners of the same user may share a listener's port (SO_REUSEPORT), one for each loop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// Nobody may.
    Never,
    /// Nobody may be there before, and those who come later may.
    Later,
    /// Those who are there and those who come.
    Always,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self { backlog: 4096, notsent_lowat: 16 * 1024, user_timeout_ms: 0, sharing: Sharing::Never }
    }
}

/// Opens a listener: non-blocking, closed on exec, with SO_REUSEADDR so that TIME_WAITs don't hold the port.
///
/// TCP_NODELAY, TCP_NOTSENT_LOWAT and TCP_USER_TIMEOUT are set on the listener, because an accepted
/// connection inherits them: that is three system calls less for each. `[::]` takes IPv4 too.
pub fn listen(address: SocketAddr, options: &ListenOptions) -> io::Result<TcpListener> {
    // Socket::new is close-on-exec.
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    if options.sharing == Sharing::Always {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.set_tcp_nodelay(true)?;
    if options.notsent_lowat > 0 {
        socket.set_tcp_notsent_lowat(options.notsent_lowat)?;
    }
    if options.user_timeout_ms > 0 {
        socket.set_tcp_user_timeout(Some(Duration::from_millis(options.user_timeout_ms.into())))?;
    }
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    if options.sharing == Sharing::Later {
        // The kernel looks for others on the port once at bind and once at listen. Set between the two, the second look
        // would let in another one that did the same.
        socket.set_reuse_port(true)?;
    }
    Ok(socket.into())
}

/// Gives connections that are made from now on another TCP_USER_TIMEOUT; 0 for the kernel's default. Those made before,
/// even if they are not accepted yet, keep theirs.
pub fn set_user_timeout(listener: &TcpListener, user_timeout_ms: u32) -> io::Result<()> {
    // What is set is a number of milliseconds, and 0 is the default.
    SockRef::from(listener).set_tcp_user_timeout(Some(Duration::from_millis(user_timeout_ms.into())))
}

/// Finds out whether a port is free for a first server: `AddrInUse` if anybody listens on it, even one whose
/// SO_REUSEPORT would let a second server join unnoticed. TIME_WAITs don't count.
///
/// It binds without listening, so no client can connect to the probe, and is gone when it returns. Port 0 is
/// always free.
pub fn probe_port(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    // Against a socket that listens, SO_REUSEADDR helps nobody; it only steps over those left in TIME_WAIT.
    socket.set_reuse_address(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())
}

/// Has a listener ignore connects from now on, and go on with those that are under way: their last step still
/// comes, and they can be accepted. A client repeats what was ignored after one second (RFC 6298, 2.1); if the
/// listener is gone by then and another one shares its port, that one takes it.
///
/// The kernel itself offers no way out of a shared port but `close`, which resets whoever is half connected.
/// Accepted connections inherit the filter, which never meets a packet of theirs.
pub fn ignore_connects(listener: &impl AsFd) -> io::Result<()> {
    // The filter of a TCP socket sees the packet from the TCP header on: the flags are at 13 (RFC 9293, 3.1).
    const FLAGS_AT: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    const WHOLE: u32 = u32::MAX;
    let load_byte = (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16;
    let and = (libc::BPF_ALU | libc::BPF_AND | libc::BPF_K) as u16;
    let jump_if_equal = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    let keep = (libc::BPF_RET | libc::BPF_K) as u16;
    SockRef::from(listener).attach_filter(&[
        SockFilter::new(load_byte, 0, 0, FLAGS_AT),
        SockFilter::new(and, 0, 0, SYN | ACK),
        SockFilter::new(jump_if_equal, 0, 1, SYN),
        SockFilter::new(keep, 0, 0, 0),
        SockFilter::new(keep, 0, 0, WHOLE),
    ])
}

/// Takes one waiting connection, non-blocking and closed on exec, and tells where it comes from, in one system
/// call.
pub fn accept(listener: &impl AsFd) -> io::Result<(TcpStream, SocketAddr)> {
    let listener = listener.as_fd();
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let accept4 = |storage: *mut SockAddrStorage, length: *mut libc::socklen_t| {
        super::uninterrupted(|| {
            // SAFETY: `storage` and `length` are live and writable for the call, and `length` says how large
            // `storage` is; the kernel writes no more than that. The descriptor is borrowed for the call.
            super::checked(unsafe { libc::accept4(listener.as_raw_fd(), storage.cast(), length, flags) })
        })
    };
    // SAFETY: the closure returns Ok only when accept4 has filled in the address and its length.
    let (fd, peer) = unsafe { SockAddr::try_init(accept4) }?;
    // SAFETY: the kernel has just made `fd`; nobody else owns it.
    let stream = unsafe { TcpStream::from_raw_fd(fd) };
    Ok((stream, ip_address(peer)?))
}

/// Begins a connection, non-blocking; it is made or refused when the socket becomes writable.
///
/// With `source`, the port is chosen at `connect` for that one destination (IP_BIND_ADDRESS_NO_PORT), not at
/// `bind`, where one source address would have some 28,000 ports for all destinations together.
pub fn connect_from(source: Option<IpAddr>, to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if let Some(source) = source {
        choose_port_at_connect(&socket)?;
        socket.bind(&SocketAddr::new(source, 0).into())?;
    }
    match socket.connect(&to.into()) {
        Err(error) if error.raw_os_error() != Some(libc::EINPROGRESS) => Err(error),
        _ => Ok(socket.into()),
    }
}

/// The address of the other end.
pub fn peer_of(socket: &impl AsFd) -> io::Result<SocketAddr> {
    ip_address(SockRef::from(socket).peer_addr()?)
}

/// The address of this end.
pub fn local_of(socket: &impl AsFd) -> io::Result<SocketAddr> {
    ip_address(SockRef::from(socket).local_addr()?)
}

/// Bytes in the kernel's send queue that the peer has not acknowledged (SIOCOUTQ). At zero everything arrived.
pub fn unsent_bytes(socket: &impl AsFd) -> io::Result<usize> {
    // SIOCOUTQ and TIOCOUTQ are one number.
    queue_bytes(socket, libc::TIOCOUTQ)
}

/// Bytes that wait to be read (FIONREAD).
pub fn unread_bytes(socket: &impl AsFd) -> io::Result<usize> {
    queue_bytes(socket, libc::FIONREAD)
}

/// Fixes the sizes of the kernel's buffers, which also ends their automatic growth. `None` leaves one as it is.
pub fn set_buffers(socket: &impl AsFd, send: Option<usize>, receive: Option<usize>) -> io::Result<()> {
    let socket = SockRef::from(socket);
    if let Some(bytes) = send {
        socket.set_send_buffer_size(bytes)?;
    }
    if let Some(bytes) = receive {
        socket.set_recv_buffer_size(bytes)?;
    }
    Ok(())
}

/// Makes `close` throw the send queue away and reset the connection (SO_LINGER 0). No TIME_WAIT is left.
pub fn reset_on_close(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_linger(Some(Duration::ZERO))
}

/// Sends small writes at once (TCP_NODELAY), for connections that were not accepted.
pub fn set_nodelay(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_tcp_nodelay(true)
}

fn ip_address(address: socket2::SockAddr) -> io::Result<SocketAddr> {
    address.as_socket().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not an internet socket"))
}

fn choose_port_at_connect(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the value is a live c_int of the length given, and the call only reads it. The option is taken
    // at IPPROTO_IP by IPv6 sockets too.
    super::checked(unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            ptr::from_ref(&on).cast(),
            length,
        )
    })?;
    Ok(())
}

fn queue_bytes(socket: &impl AsFd, request: libc::Ioctl) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: both requests passed here write one c_int, which is live and writable for the call; the
    // descriptor is borrowed for the call.
    super::checked(unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), request, &mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::skip::skipped;
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, Ipv6Addr};
    use std::time::Instant;

    fn local(port: u16) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    fn until<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(value) = found() {
                return value;
            }
            assert!(Instant::now() < deadline, "{what}");
            std::thread::yield_now();
        }
    }

    fn accepted(listener: &TcpListener) -> TcpStream {
        until("nothing to accept", || match accept(listener) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            result => {
                let (stream, peer) = result.unwrap();
                assert_eq!(peer, peer_of(&stream).unwrap());
                Some(stream)
            }
        })
    }

    fn pair() -> (TcpStream, TcpStream) {
        let listener = listen(local(0), &ListenOptions::default()).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let server = accepted(&listener);
        (client, server)
    }

    fn closes_on_exec(socket: &impl AsRawFd) -> bool {
        let info =
            std::fs::read_to_string(format!("/proc/thread-self/fdinfo/{}", socket.as_raw_fd())).unwrap();
        let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
        i32::from_str_radix(flags.trim(), 8).unwrap() & libc::O_CLOEXEC != 0
    }

    #[test]
    fn accepted_connections_inherit_the_options() {
        let options = ListenOptions { user_timeout_ms: 12_345, ..ListenOptions::default() };
        let listener = listen(local(0), &options).unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let server = accepted(&listener);
        for socket in [SockRef::from(&listener), SockRef::from(&server)] {
            assert!(socket.tcp_nodelay().unwrap());
            assert_eq!(socket.tcp_notsent_lowat().unwrap(), 16 * 1024);
            assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_millis(12_345)));
            assert!(socket.nonblocking().unwrap());
            assert!(closes_on_exec(&*socket));
        }
        assert_eq!(peer_of(&server).unwrap(), client.local_addr().unwrap());
        assert_eq!(local_of(&server).unwrap(), client.peer_addr().unwrap());
    }

    #[test]
    fn another_user_timeout_is_for_those_who_come_later() {
        let options = ListenOptions { user_timeout_ms: 12_345, ..ListenOptions::default() };
        let listener = listen(local(0), &options).unwrap();
        let address = listener.local_addr().unwrap();
        let user_timeout = |socket: &TcpStream| SockRef::from(socket).tcp_user_timeout().unwrap();
        let _first = TcpStream::connect(address).unwrap();
        let first = accepted(&listener);
        set_user_timeout(&listener, 54_321).unwrap();
        let _second = TcpStream::connect(address).unwrap();
        assert_eq!(user_timeout(&accepted(&listener)), Some(Duration::from_millis(54_321)));
        assert_eq!(user_timeout(&first), Some(Duration::from_millis(12_345)));
        set_user_timeout(&listener, 0).unwrap();
        let _third = TcpStream::connect(address).unwrap();
        assert_eq!(user_timeout(&accepted(&listener)).unwrap_or_default(), Duration::ZERO);
    }

    #[test]
    fn an_empty_listener_would_block() {
        let listener = listen(local(0), &ListenOptions::default()).unwrap();
        assert_eq!(accept(&listener).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_port_is_shared_only_on_request() {
        let shared = ListenOptions { sharing: Sharing::Always, ..ListenOptions::default() };
        let first = listen(local(0), &shared).unwrap();
        let address = first.local_addr().unwrap();
        let second = listen(address, &shared).unwrap();
        assert_eq!(second.local_addr().unwrap(), address);
        let alone = listen(address, &ListenOptions::default()).unwrap_err();
        assert_eq!(alone.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn who_shares_later_is_first_and_the_kernel_spreads_over_all_the_same() {
        let later = ListenOptions { sharing: Sharing::Later, ..ListenOptions::default() };
        let shared = ListenOptions { sharing: Sharing::Always, ..ListenOptions::default() };
        let first = listen(local(0), &later).unwrap();
        let address = first.local_addr().unwrap();
        assert_eq!(listen(address, &later).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
        assert_eq!(listen(any, &later).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let second = listen(address, &shared).unwrap();
        let mut got = [0, 0];
        until("one of the two gets nobody", || {
            let _client = TcpStream::connect(address).unwrap();
            let served = [&first, &second].map(|listener| accept(listener).is_ok());
            got = [got[0] + usize::from(served[0]), got[1] + usize::from(served[1])];
            (got[0] >= 5 && got[1] >= 5).then_some(())
        });
        // One that others have joined already is no first one.
        assert_eq!(listen(address, &later).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn any_ipv6_address_takes_ipv4_too() {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
        let Ok(listener) = listen(any, &ListenOptions::default()) else { return skipped("ipv6") };
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(local(port)).unwrap();
        let server = accepted(&listener);
        assert_eq!(peer_of(&server).unwrap().port(), client.local_addr().unwrap().port());
        assert_eq!(probe_port(local(port)).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    }

    /// Drops all that comes to a socket until it is detached: the answer to its SYN is lost on the way.
    fn deafen(socket: &Socket) {
        let keep = (libc::BPF_RET | libc::BPF_K) as u16;
        socket.attach_filter(&[SockFilter::new(keep, 0, 0, 0)]).unwrap();
    }

    fn in_syn_recv(port: u16, ipv6: bool) -> usize {
        let table = if ipv6 { "/proc/net/tcp6" } else { "/proc/net/tcp" };
        let table = std::fs::read_to_string(table).unwrap();
        let port = format!(":{port:04X}");
        // 03 is TCP_SYN_RECV.
        let half = |line: &&str| {
            let fields: Vec<&str> = line.split_whitespace().collect();
            matches!(fields.get(1..4), Some([own, _, "03"]) if own.ends_with(&port))
        };
        table.lines().filter(half).count()
    }

    /// A client of `to` whose handshake is half done: its SYN has arrived and the answer was lost.
    fn half_connected(to: SocketAddr) -> Socket {
        let client = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
        client.set_nonblocking(true).unwrap();
        deafen(&client);
        assert!(client.connect(&to.into()).is_err(), "it can't be connected yet");
        until("the SYN never came", || (in_syn_recv(to.port(), to.is_ipv6()) > 0).then_some(()));
        client
    }

    fn half_connected_are_still_taken(address: SocketAddr) {
        let options = ListenOptions { sharing: Sharing::Always, ..ListenOptions::default() };
        let leaving = match listen(address, &options) {
            Err(_) if address.is_ipv6() => return skipped("ipv6"),
            leaving => leaving.unwrap(),
        };
        let address = leaving.local_addr().unwrap();
        let early = half_connected(address);
        ignore_connects(&leaving).unwrap();
        let late = connect_from(None, address).unwrap();
        early.detach_filter().unwrap();
        // The kernel repeats its answer after a second.
        let served = accepted(&leaving);
        assert_eq!(peer_of(&served).unwrap(), early.local_addr().unwrap().as_socket().unwrap());
        (&served).write_all(b"hello").unwrap();
        until("nothing came", || (unread_bytes(&early).unwrap() == 5).then_some(()));
        // The late one was heard of by nobody, and is taken by whoever shares the port once this one is gone.
        assert_eq!(accept(&leaving).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert!(peer_of(&late).is_err());
        let staying = listen(address, &options).unwrap();
        drop(leaving);
        assert_eq!(peer_of(&accepted(&staying)).unwrap(), late.local_addr().unwrap());
    }

    #[test]
    fn who_ignores_connects_still_takes_the_half_connected() {
        half_connected_are_still_taken(local(0));
    }

    #[test]
    fn who_ignores_connects_still_takes_the_half_connected_of_ipv6() {
        half_connected_are_still_taken(SocketAddr::from((Ipv6Addr::LOCALHOST, 0)));
    }

    #[test]
    fn a_plain_close_resets_the_half_connected() {
        // Where the kernel moves them there is nothing to show.
        let migrates = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_migrate_req");
        if migrates.is_ok_and(|value| value.trim() != "0") {
            return;
        }
        let options = ListenOptions { sharing: Sharing::Always, ..ListenOptions::default() };
        let leaving = listen(local(0), &options).unwrap();
        let address = leaving.local_addr().unwrap();
        let client = TcpStream::connect(address).unwrap();
        let _staying = listen(address, &options).unwrap();
        drop(leaving);
        let error = (&client).read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn the_probe_sees_a_listener_that_would_share() {
        let shared = ListenOptions { sharing: Sharing::Always, ..ListenOptions::default() };
        let listener = listen(local(0), &shared).unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(probe_port(address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
        assert_eq!(probe_port(any).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        probe_port(address).unwrap();
        assert!(listen(address, &shared).is_ok(), "the probe must leave nothing behind");
        assert!(probe_port(local(0)).is_ok());
    }

    #[test]
    fn the_probe_steps_over_time_wait() {
        let listener = listen(local(0), &ListenOptions::default()).unwrap();
        let address = listener.local_addr().unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        let server = accepted(&listener);
        drop(listener);
        // Who closes first gets the TIME_WAIT: the server's end, which holds the port.
        drop(server);
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        let client_port = client.local_addr().unwrap().port();
        drop(client);
        until("no TIME_WAIT came", || {
            let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
            let ports = (format!(":{:04X}", address.port()), format!(":{client_port:04X}"));
            let waits = table.lines().any(|line| {
                let fields: Vec<&str> = line.split_whitespace().collect();
                // 06 is TCP_TIME_WAIT.
                matches!(fields.get(1..4), Some([own, peer, "06"]) if own.ends_with(&ports.0) && peer.ends_with(&ports.1))
            });
            waits.then_some(())
        });
        probe_port(address).unwrap();
    }

    #[test]
    fn queues_are_counted() {
        let (mut client, mut server) = pair();
        client.write_all(b"hello").unwrap();
        until("the bytes never came", || (unread_bytes(&server).unwrap() == 5).then_some(()));
        assert_eq!(server.read(&mut [0; 16]).unwrap(), 5);
        assert_eq!(unread_bytes(&server).unwrap(), 0);
        until("no acknowledgement came", || (unsent_bytes(&client).unwrap() == 0).then_some(()));

        // A peer that does not read leaves bytes in the sender's queue.
        let block = vec![0; 64 * 1024];
        while server.write(&block).is_ok() {}
        assert!(unsent_bytes(&server).unwrap() > 0);
        let mut sink = vec![0; 64 * 1024];
        client.set_nonblocking(true).unwrap();
        until("the queue never emptied", || {
            while client.read(&mut sink).is_ok_and(|count| count > 0) {}
            (unsent_bytes(&server).unwrap() == 0).then_some(())
        });
    }

    #[test]
    fn a_connection_comes_from_the_given_address() {
        let listener = listen(local(0), &ListenOptions::default()).unwrap();
        let address = listener.local_addr().unwrap();
        // All of 127.0.0.0/8 is local.
        let source = IpAddr::from([127, 0, 0, 77]);
        let mut client = connect_from(Some(source), address).unwrap();
        assert!(SockRef::from(&client).nonblocking().unwrap());
        let server = accepted(&listener);
        assert_eq!(peer_of(&server).unwrap().ip(), source);
        until("never writable", || client.write(b"x").ok());
        let unbound = connect_from(None, address).unwrap();
        assert_eq!(peer_of(&accepted(&listener)).unwrap(), unbound.local_addr().unwrap());
    }

    #[test]
    fn a_port_serves_two_destinations_at_once() {
        // With one port to choose from, a second bind would fail; chosen at connect, it serves both.
        let listeners = [1, 2].map(|last| {
            let address = SocketAddr::from(([127, 0, 0, last], 0));
            listen(address, &ListenOptions::default()).unwrap()
        });
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        choose_port_at_connect(&socket).unwrap();
        socket.bind(&SocketAddr::from(([127, 0, 0, 78], 0)).into()).unwrap();
        assert_eq!(local_of(&socket).unwrap().port(), 0, "no port before connect");
        socket.connect(&listeners[0].local_addr().unwrap().into()).unwrap();
        assert_ne!(local_of(&socket).unwrap().port(), 0);
        connect_from(Some([127, 0, 0, 78].into()), listeners[1].local_addr().unwrap()).unwrap();
    }

    #[test]
    fn ipv6_connections_take_a_source_too() {
        let Ok(listener) = listen(SocketAddr::from((Ipv6Addr::LOCALHOST, 0)), &ListenOptions::default())
        else {
            return;
        };
        let source = IpAddr::from(Ipv6Addr::LOCALHOST);
        let client = connect_from(Some(source), listener.local_addr().unwrap()).unwrap();
        assert_eq!(peer_of(&accepted(&listener)).unwrap(), client.local_addr().unwrap());
    }

    #[test]
    fn buffers_take_the_size_given() {
        let (client, server) = pair();
        set_buffers(&client, Some(8192), None).unwrap();
        set_buffers(&server, None, Some(16_384)).unwrap();
        // The kernel doubles the size for its own bookkeeping.
        assert_eq!(SockRef::from(&client).send_buffer_size().unwrap(), 16_384);
        assert_eq!(SockRef::from(&server).recv_buffer_size().unwrap(), 32_768);
        set_nodelay(&client).unwrap();
        assert!(client.nodelay().unwrap());
    }

    #[test]
    fn a_reset_reaches_the_peer() {
        let (mut client, server) = pair();
        reset_on_close(&server).unwrap();
        drop(server);
        let error = client.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
}
