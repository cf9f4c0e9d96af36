//! `[server]`: where the server listens and how many loops carry it.

use std::net::{IpAddr, SocketAddr};

use super::section::{Checker, section};
use super::value::{Address, Count, CountOrAutomatic, Names, Switch};

section! {
    /// Where the server listens and how many event loops and connections it has.
    Server ["server"] {
        /// Address and port for clients; port 0 takes a free one.
        "listen" => listen: SocketAddr as Address = SocketAddr::from(([127, 0, 0, 1], 8080)),
        /// Address and port for publishing and operation; off loopback only with admin.keys, port 0 takes a free one.
        "admin" => admin: SocketAddr as Address = SocketAddr::from(([127, 0, 0, 1], 8081)),
        /// Number of event loops; 0 takes one per core, and more where their descriptors are needed.
        /// At most 63.
        "loops" => loops: Option<usize> as CountOrAutomatic = None,
        /// Most client connections; 0 takes as many as the descriptor tables hold.
        "connections_max" => connections_max: Option<usize> as CountOrAutomatic = None,
        /// Let another process that also shares its port listen on the same one. Processes that share a
        /// port must all do so.
        "share_port" => share_port: bool as Switch = false,
        /// Whether /readyz says ready when there is no place for newcomers, too. For fleets that are full everywhere,
        /// where a balancer would have nobody left to send them to.
        live "ready_when_full" => ready_when_full: bool as Switch = false,
        /// Publish simulated prices and sensors under `demo/`, and show them on `/demo` of the client port.
        "demo" => demo: bool as Switch = false,
        /// Connections the kernel queues for each loop before they are accepted.
        "backlog" => backlog: usize as Count = 4096,
        /// Subprotocols of your own that may be chosen, beside those of the dialects. The client's first offer that is
        /// known is answered; if none is, the answer names none.
        live "subprotocols" => subprotocols: Vec<String> as Names = Vec::new(),
    }
}

impl Server {
    /// Most event loops: a topic marks the loops it interests in 64 bits, one of which is the admin loop's.
    pub const LOOPS_MAX: usize = 63;

    /// Whether the admin port is reached from this machine only.
    pub fn admin_is_local(&self) -> bool {
        self.admin.ip().to_canonical().is_loopback()
    }

    /// Whether two listeners would be in each other's way.
    pub(super) fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
        let [a, b] = [one, other].map(|address| address.ip().to_canonical());
        // A port on all addresses is also that on each of them; [::] has the addresses of IPv4, too.
        let holds = |all: IpAddr, one: IpAddr| all.is_unspecified() && (all.is_ipv6() || one.is_ipv4());
        (a == b || holds(a, b) || holds(b, a)) && one.port() == other.port() && one.port() != 0
    }

    fn check_values(&self, check: &mut Checker<'_>) {
        if Self::overlap(self.listen, self.admin) {
            check.report(
                "admin",
                format!(
                    "expects another address or port than server.listen = \"{}\", got \"{}\"",
                    self.listen, self.admin
                ),
            );
        }
        if let Some(loops) = self.loops {
            check.within("loops", loops, 1..=Self::LOOPS_MAX);
        }
        if let Some(connections_max) = self.connections_max {
            check.within("connections_max", connections_max, 1..=100_000_000);
        }
        check.within("backlog", self.backlog, 1..=65_535);
        // RFC 6455, 11.3.4: a subprotocol's name is a token (RFC 9110, 5.6.2).
        let is_token = |name: &str| {
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            !name.is_empty() && name.bytes().all(fits)
        };
        if let Some(name) = self.subprotocols.iter().find(|name| !is_token(name)) {
            check
                .report("subprotocols", format!("expects names without spaces and separators, got {name:?}"));
        }
        if let Some(name) = self.subprotocols.iter().find(|name| name.starts_with("fantail.")) {
            let problem = format!("expects names of your own; fantail.* are the dialects', got {name:?}");
            check.report("subprotocols", problem);
        }
    }
}
