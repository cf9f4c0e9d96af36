//! The protocol of sd_notify(3): datagrams to the socket that NOTIFY_SOCKET names. No unsafe code is needed.
//!
//! The socket never blocks: a supervisor that does not read must not hold the server up. What is said, and when,
//! is not decided here.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// A socket from which messages go to the supervisor.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    supervisor: SocketAddr,
}

impl Notifier {
    /// The supervisor that `NOTIFY_SOCKET` names; `None` if there is none.
    ///
    /// # Errors
    /// It names something that is no address of a socket, or no socket can be had.
    pub fn from_environment() -> io::Result<Option<Self>> {
        std::env::var_os("NOTIFY_SOCKET")
            .filter(|name| !name.is_empty())
            .map(|name| Self::to(&name))
            .transpose()
    }

    /// To the socket of this name: a path from the root, or an abstract name behind `@`.
    ///
    /// # Errors
    /// As above.
    pub fn to(name: &OsStr) -> io::Result<Self> {
        let supervisor = match name.as_bytes() {
            [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            _ => {
                let problem = format!("{} is neither a path nor an abstract name", name.display());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, problem));
            }
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Self { socket, supervisor })
    }

    /// Sends one message of `KEY=VALUE` lines, whole or not at all.
    ///
    /// # Errors
    /// Nobody is there, or the supervisor has not read what came before.
    pub fn send(&self, message: &str) -> io::Result<()> {
        super::uninterrupted(|| self.socket.send_to_addr(message.as_bytes(), &self.supervisor)).map(drop)
    }
}

/// How often at least the supervisor wants to hear from this process; `None` if it does not.
#[must_use]
pub fn watchdog_interval() -> Option<Duration> {
    let text = |name| std::env::var(name).ok();
    interval_of(text("WATCHDOG_USEC").as_deref(), text("WATCHDOG_PID").as_deref(), std::process::id())
}

/// Both variables are inherited, so they may be meant for another process.
fn interval_of(micros: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.parse() != Ok(own)) {
        return None;
    }
    let micros: u64 = micros?.parse().ok()?;
    (micros > 0).then(|| Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    }

    #[test]
    fn messages_arrive_at_a_path() {
        let path = std::env::temp_dir().join(format!("fantail-notify-{}", std::process::id()));
        let supervisor = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::to(path.as_os_str()).unwrap();
        notifier.send("READY=1\n").unwrap();
        notifier.send("STOPPING=1\n").unwrap();
        assert_eq!([heard(&supervisor), heard(&supervisor)], ["READY=1\n", "STOPPING=1\n"]);
        drop(supervisor);
        assert!(notifier.send("READY=1\n").is_err(), "nobody is there");
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn messages_arrive_at_an_abstract_name() {
        let name = format!("fantail-notify-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let supervisor = UnixDatagram::bind_addr(&address).unwrap();
        Notifier::to(format!("@{name}").as_ref()).unwrap().send("READY=1\n").unwrap();
        assert_eq!(heard(&supervisor), "READY=1\n");
    }

    #[test]
    fn a_supervisor_that_does_not_read_holds_nobody_up() {
        let name = format!("fantail-deaf-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let _deaf = UnixDatagram::bind_addr(&address).unwrap();
        let notifier = Notifier::to(format!("@{name}").as_ref()).unwrap();
        // net.unix.max_dgram_qlen and the send buffer bound what waits.
        let refused = (0..1_000_000).find_map(|_| notifier.send("WATCHDOG=1\n").err());
        assert_eq!(refused.map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for name in ["relative", "vsock:2:1234"] {
            assert_eq!(Notifier::to(name.as_ref()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
        let long = format!("/{}", "x".repeat(200));
        assert!(Notifier::to(long.as_ref()).is_err());
    }

    #[test]
    fn the_watchdog_may_be_meant_for_another_process() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(interval_of(Some("1000000"), None, 7), second);
        assert_eq!(interval_of(Some("1000000"), Some("7"), 7), second);
        assert_eq!(interval_of(Some("1000000"), Some("8"), 7), None);
        for wrong in [None, Some(""), Some("0"), Some("-1"), Some("soon")] {
            assert_eq!(interval_of(wrong, None, 7), None, "{wrong:?}");
        }
    }
}
