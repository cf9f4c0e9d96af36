//! Takes the two traffic secrets of a handshake, which rustls gives out in no other way.
//!
//! Owns them between the call of rustls that made them and the one that asks. rustls has one key log for all connections of
//! a configuration, and calls it in the middle of its own work; so what it said stays with the thread until the connection
//! that was worked on takes it. Never logs anything.

use std::cell::RefCell;
use std::fmt;

use rustls::KeyLog;
use zeroize::Zeroize as _;

use super::keys::SECRET_BYTES_MAX;

/// The first generation of both traffic secrets of one connection (RFC 8446, 7.1), zeroed when it goes. Boxed wherever it
/// is kept, so that no copy stays where it was.
pub struct TrafficSecrets {
    client: [u8; SECRET_BYTES_MAX],
    server: [u8; SECRET_BYTES_MAX],
    client_bytes: usize,
    server_bytes: usize,
    random: [u8; 32],
}

impl Default for TrafficSecrets {
    fn default() -> Self {
        Self {
            client: [0; SECRET_BYTES_MAX],
            server: [0; SECRET_BYTES_MAX],
            client_bytes: 0,
            server_bytes: 0,
            random: [0; 32],
        }
    }
}

impl TrafficSecrets {
    /// What the client's keys are made of.
    pub(super) fn client(&self) -> &[u8] {
        self.client.get(..self.client_bytes).unwrap_or_default()
    }

    /// What the server's keys are made of.
    pub(super) fn server(&self) -> &[u8] {
        self.server.get(..self.server_bytes).unwrap_or_default()
    }
}

impl Drop for TrafficSecrets {
    fn drop(&mut self) {
        self.client.zeroize();
        self.server.zeroize();
    }
}

impl fmt::Debug for TrafficSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TrafficSecrets(…)")
    }
}

thread_local! {
    static LAST: RefCell<Option<Box<TrafficSecrets>>> = const { RefCell::new(None) };
}

/// What rustls made in the calls on this thread since this was asked last: `None` until both secrets are there, which is
/// when the server's part of a handshake is sent.
pub fn take_last() -> Option<Box<TrafficSecrets>> {
    LAST.take().filter(|secrets| secrets.client_bytes > 0 && secrets.server_bytes > 0)
}

/// The key log of a configuration whose connections are to be kept lean.
#[derive(Debug)]
pub struct TrafficKeyLog;

impl KeyLog for TrafficKeyLog {
    fn log(&self, label: &str, client_random: &[u8], secret: &[u8]) {
        LAST.with_borrow_mut(|last| {
            // Whoever was worked on before has not asked: what is left of it belongs to nobody.
            if last.as_ref().is_some_and(|secrets| secrets.random != client_random) {
                *last = None;
            }
            let secrets = last.get_or_insert_default();
            let (to, count) = match label {
                CLIENT => (&mut secrets.client, &mut secrets.client_bytes),
                SERVER => (&mut secrets.server, &mut secrets.server_bytes),
                _ => return,
            };
            let Some(room) = to.get_mut(..secret.len()) else { return };
            room.copy_from_slice(secret);
            *count = secret.len();
            if let Ok(random) = client_random.try_into() {
                secrets.random = random;
            }
        });
    }

    fn will_log(&self, label: &str) -> bool {
        matches!(label, CLIENT | SERVER)
    }
}

const CLIENT: &str = "CLIENT_TRAFFIC_SECRET_0";
const SERVER: &str = "SERVER_TRAFFIC_SECRET_0";

#[cfg(test)]
impl TrafficSecrets {
    /// As the other end has them.
    pub(super) fn turned(&self, other: &mut Self) {
        (other.client, other.client_bytes) = (self.server, self.server_bytes);
        (other.server, other.server_bytes) = (self.client, self.client_bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_secrets_of_one_connection_or_none() {
        let log = TrafficKeyLog;
        assert!(log.will_log(CLIENT) && log.will_log(SERVER) && !log.will_log("EXPORTER_SECRET"));
        assert!(take_last().is_none());
        log.log(SERVER, &[1; 32], &[2; 32]);
        assert!(take_last().is_none(), "one alone is of no use");
        log.log(CLIENT, &[1; 32], &[3; 48]);
        assert!(take_last().is_none(), "and not kept for the next");
        log.log(CLIENT, &[1; 32], &[4; 32]);
        log.log(SERVER, &[5; 32], &[6; 32]);
        log.log(CLIENT, &[5; 32], &[7; 48]);
        let secrets = take_last().unwrap();
        assert_eq!((secrets.client(), secrets.server()), (&[7; 48][..], &[6; 32][..]));
        assert!(take_last().is_none(), "taken once");
        log.log(CLIENT, &[1; 32], &[4; 49]);
        log.log(SERVER, &[1; 32], &[4; 48]);
        assert!(take_last().is_none(), "no suite has longer ones");
    }
}
