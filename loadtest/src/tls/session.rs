//! TLS of one connection of a worker: sealed bytes to and from a non-blocking socket that it does not own.
//!
//! The connection drives it where a plain one would read and write its socket. What has not left is bounded; what was
//! read is handed out at once. It reads the clock when the handshake begins and ends.

use std::cell::RefCell;
use std::io::{self, Read, Write};
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::ClientConnection;

use super::{Tls, trouble};
use crate::base::schedule::Clock;
use crate::base::trouble::Trouble;

/// Sealed bytes read at once. With the rest of a record from before, what they unseal to still fits a worker's buffer.
const RAW_BYTES: usize = 32 * 1024;

thread_local!(static RAW: RefCell<Vec<u8>> = RefCell::new(vec![0; RAW_BYTES]));

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Session {
    tls: ClientConnection,
    shared: Arc<Tls>,
    clock: Clock,
    began_ns: u64,
    secured: Option<Secured>,
    failed: Option<rustls::Error>,
}

/// How far the connection is whose session it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    /// The answer to its request has not come.
    Upgrading,
    /// It is open.
    Open,
    /// Anything else.
    Other,
}

/// A finished handshake.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Secured {
    /// From the TCP connection to the end of the handshake.
    pub(crate) took_ns: u64,
    /// Whether an earlier session was resumed.
    pub(crate) resumed: bool,
}

impl Session {
    /// One that has said nothing yet.
    pub(crate) fn new(shared: &Arc<Tls>, clock: Clock) -> Result<Box<Self>, rustls::Error> {
        let tls = shared.begin()?;
        Ok(Box::new(Self { tls, shared: shared.clone(), clock, began_ns: 0, secured: None, failed: None }))
    }

    /// TCP is there: the handshake's time begins.
    pub(crate) fn on_connected(&mut self) {
        self.began_ns = self.clock.now_ns();
    }

    /// The handshake, once it is finished.
    pub(crate) fn secured(&self) -> Option<Secured> {
        self.secured
    }

    /// Reads at most `most` sealed bytes of what the server said. `Ok(0)` is its close_notify; an end of the stream without one is `UnexpectedEof`.
    /// `Interrupted` says that sealed bytes came which hold nothing yet, `WouldBlock` that none did.
    pub(crate) fn read(&mut self, socket: &mut TcpStream, out: &mut [u8], most: usize) -> io::Result<usize> {
        match self.tls.reader().read(out) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // What had no room before.
            outcome => return outcome,
        }
        if let Some(error) = &self.failed {
            return Err(io::Error::new(io::ErrorKind::InvalidData, error.clone()));
        }
        RAW.with_borrow_mut(|raw| {
            let room = raw.len().min(most);
            let raw = raw.get_mut(..room).unwrap_or_default();
            let count = socket.read(raw)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            self.take(raw.get(..count).unwrap_or_default(), socket, out)
        })
    }

    /// Seals and sends `bytes`; returns how many it took, which may be waiting here until [`Session::send`] is called
    /// again, with no bytes if there are no more.
    pub(crate) fn send(&mut self, socket: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
        let mut taken = 0;
        loop {
            self.flush(socket)?;
            let rest = bytes.get(taken..).unwrap_or_default();
            if rest.is_empty() || self.tls.wants_write() {
                return Ok(taken);
            }
            match self.tls.writer().write(rest)? {
                // As much waits for the end of the handshake as may.
                0 => return Ok(taken),
                count => taken += count,
            }
        }
    }

    /// Says that no more comes (RFC 8446 section 6.1).
    pub(crate) fn close(&mut self, socket: &mut TcpStream) {
        self.tls.send_close_notify();
        // Politeness only, as the close frame before it.
        let _ = self.flush(socket);
    }

    /// What an error of this connection is, where TLS has something to do with it.
    pub(crate) fn trouble(&self, error: &io::Error, moment: Moment) -> Option<Trouble> {
        use io::ErrorKind as K;
        if let Some(error) = trouble::inner(error) {
            let trouble = if moment == Moment::Open { Trouble::LostTls } else { trouble::of(error) };
            self.shared.note(trouble, error.to_string());
            return Some(trouble);
        }
        let ended = matches!(error.kind(), K::UnexpectedEof | K::ConnectionReset | K::BrokenPipe);
        match moment {
            Moment::Open if error.kind() == K::UnexpectedEof => Some(Trouble::LostTruncated),
            Moment::Upgrading if ended && self.secured.is_none() => Some(Trouble::TlsClosed),
            Moment::Upgrading if ended => Some(Trouble::ConnectReset),
            _ => None,
        }
    }

    /// Unseals what was read, answers what the handshake asks for, and moves what came into `out`.
    fn take(&mut self, mut raw: &[u8], socket: &mut TcpStream, out: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        let mut ended = false;
        // Behind a close_notify nothing is read.
        while !raw.is_empty() && self.tls.read_tls(&mut raw)? > 0 {
            if let Err(error) = self.tls.process_new_packets() {
                // The alert that tells the server; it may be gone.
                let _ = self.flush(socket);
                self.failed = Some(error);
                break;
            }
            loop {
                let room = out.get_mut(filled..).unwrap_or_default();
                match self.tls.reader().read(room) {
                    Ok(0) => {
                        ended = !room.is_empty();
                        break;
                    }
                    Ok(count) => filled += count,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
        if self.secured.is_none() && !self.tls.is_handshaking() {
            let took_ns = self.clock.now_ns().saturating_sub(self.began_ns);
            self.secured = Some(Secured { took_ns, resumed: self.shared.on_secured(&self.tls) });
        }
        match &self.failed {
            _ if filled > 0 => Ok(filled),
            Some(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error.clone())),
            None if ended => Ok(0),
            None => {
                self.flush(socket)?;
                Err(io::ErrorKind::Interrupted.into())
            }
        }
    }

    fn flush(&mut self, socket: &mut TcpStream) -> io::Result<()> {
        while self.tls.wants_write() {
            match self.tls.write_tls(socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
