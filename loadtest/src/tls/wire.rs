//! A blocking connection, plain or of TLS, that one thread may read while others write.
//!
//! For what is not measured itself: publishers and the reader of metrics. Writers wait for each other and never for
//! the reader, who decrypts only when something has come.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::ClientConnection;

use super::{Tls, trouble};
use crate::net::target::Target;

/// Sealed bytes read at once.
const RAW_BYTES: usize = 16 * 1024;
/// Reads that may hold nothing but tickets before a connection counts as one that is not quiet.
const QUIET_READS: usize = 8;

/// See the module's head.
#[derive(Debug)]
pub(crate) struct Wire {
    socket: TcpStream,
    /// Taken before `sealed` by whoever writes, so that records leave in the order they were sealed in.
    writing: Mutex<()>,
    sealed: Option<Box<Mutex<Sealed>>>,
}

#[derive(Debug)]
struct Sealed {
    tls: ClientConnection,
    /// What was unsealed and has not been read.
    open: Vec<u8>,
    ended: bool,
}

impl Wire {
    /// Connects, and shakes hands if `tls` is given. All of it has to be done within `at_most`, which is afterwards
    /// the limit of each read and each write.
    pub(crate) fn connect(target: &Target, tls: Option<&Tls>, at_most: Duration) -> io::Result<Self> {
        let until = Instant::now() + at_most;
        let socket = TcpStream::connect_timeout(&target.address, at_most)?;
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(at_most))?;
        let mut wire = Self { socket, writing: Mutex::default(), sealed: None };
        if let Some(tls) = tls {
            let session = tls.begin().map_err(io::Error::other)?;
            wire.sealed = Some(Box::new(Mutex::new(Sealed { tls: session, open: Vec::new(), ended: false })));
            wire.shake_hands(until).map_err(|error| match error.kind() {
                // How Linux names a socket's timeout.
                io::ErrorKind::WouldBlock => unfinished(),
                _ => trouble::explained(error),
            })?;
        }
        wire.socket.set_read_timeout(Some(at_most))?;
        Ok(wire)
    }

    /// The same connection for reads that all end within `at_most` from now, however slowly bytes drip in; `late` says
    /// what did not come in time.
    pub(crate) fn within(&self, at_most: Duration, late: &'static str) -> Timed<'_> {
        Timed { wire: self, until: Instant::now() + at_most, late }
    }

    /// Reads what has come, waiting for it. `Ok(0)` is the end; with TLS an end without close_notify is
    /// `UnexpectedEof`, because what came may be cut off.
    fn read_by(&self, out: &mut [u8], until: Option<Instant>) -> io::Result<usize> {
        let Some(sealed) = &self.sealed else {
            self.wait_until(until)?;
            return (&self.socket).read(out);
        };
        let mut raw = [0; RAW_BYTES];
        loop {
            let mut held = lock(sealed);
            if !held.open.is_empty() {
                let count = held.open.len().min(out.len());
                let moved: Vec<u8> = held.open.drain(..count).collect();
                out.get_mut(..count).unwrap_or_default().copy_from_slice(&moved);
                return Ok(count);
            }
            if held.ended {
                return Ok(0);
            }
            drop(held);
            // Again for each read: records may hold nothing, or come a byte at a time.
            self.wait_until(until)?;
            // Not locked: it may take long.
            let count = (&self.socket).read(&mut raw)?;
            if count == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            lock(sealed).take(raw.get(..count).unwrap_or_default())?;
            self.flush()?;
        }
    }

    /// Lets the next read of the socket wait until that moment.
    fn wait_until(&self, until: Option<Instant>) -> io::Result<()> {
        let Some(until) = until else { return Ok(()) };
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.socket.set_read_timeout(Some(left))
    }

    /// Writes all of it.
    pub(crate) fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        let turn = lock(&self.writing);
        let Some(sealed) = &self.sealed else { return (&self.socket).write_all(bytes) };
        while !bytes.is_empty() {
            let count = lock(sealed).tls.writer().write(bytes)?;
            bytes = bytes.get(count..).unwrap_or_default();
            self.flush_in_turn(sealed, &turn)?;
        }
        Ok(())
    }

    /// Whether nothing has come that nobody asked for, such as the end of the connection.
    pub(crate) fn is_quiet(&self) -> bool {
        let quiet = self.socket.set_nonblocking(true).is_ok() && self.finds_nothing();
        self.socket.set_nonblocking(false).is_ok() && quiet
    }

    fn finds_nothing(&self) -> bool {
        let Some(sealed) = &self.sealed else {
            return self.socket.peek(&mut [0]).is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        };
        let held = lock(sealed);
        if held.ended || !held.open.is_empty() {
            return false;
        }
        drop(held);
        // A server of TLS sends tickets whenever it likes, but not without an end.
        let mut raw = [0; RAW_BYTES];
        for _ in 0..QUIET_READS {
            match (&self.socket).read(&mut raw) {
                Ok(count) if count > 0 => {
                    let mut held = lock(sealed);
                    let taken = held.take(raw.get(..count).unwrap_or_default());
                    if taken.is_err() || held.ended || !held.open.is_empty() {
                        return false;
                    }
                }
                outcome => return outcome.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock),
            }
        }
        false
    }

    fn shake_hands(&self, until: Instant) -> io::Result<()> {
        let Some(sealed) = &self.sealed else { return Ok(()) };
        let mut raw = [0; RAW_BYTES];
        loop {
            self.flush()?;
            if !lock(sealed).tls.is_handshaking() {
                return Ok(());
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(unfinished());
            }
            self.socket.set_read_timeout(Some(left))?;
            match (&self.socket).read(&mut raw)? {
                0 => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the server ended the connection during the TLS handshake: does that port speak TLS?",
                    ));
                }
                count => {
                    let taken = lock(sealed).take(raw.get(..count).unwrap_or_default());
                    if taken.is_err() {
                        // The alert that tells the server.
                        let _ = self.flush();
                    }
                    taken?;
                }
            }
        }
    }

    fn flush(&self) -> io::Result<()> {
        let turn = lock(&self.writing);
        self.sealed.as_ref().map_or(Ok(()), |sealed| self.flush_in_turn(sealed, &turn))
    }

    fn flush_in_turn(&self, sealed: &Mutex<Sealed>, _turn: &MutexGuard<'_, ()>) -> io::Result<()> {
        let mut ready = Vec::new();
        {
            let mut held = lock(sealed);
            while held.tls.wants_write() {
                held.tls.write_tls(&mut ready)?;
            }
        }
        // Not locked: a reader has to go on while the server is not reading.
        (&self.socket).write_all(&ready)
    }
}

/// A connection whose reads end at one moment.
#[derive(Debug)]
pub(crate) struct Timed<'a> {
    wire: &'a Wire,
    until: Instant,
    late: &'static str,
}

impl Read for Timed<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        match self.wire.read_by(out, Some(self.until)) {
            // Linux calls a socket's timeout the former.
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Err(io::Error::new(io::ErrorKind::TimedOut, self.late))
            }
            outcome => outcome,
        }
    }
}

impl Sealed {
    fn take(&mut self, mut raw: &[u8]) -> io::Result<()> {
        while !raw.is_empty() && self.tls.read_tls(&mut raw)? > 0 {
            let state = self.tls.process_new_packets();
            let state = state.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            let from = self.open.len();
            self.open.resize(from + state.plaintext_bytes_to_read(), 0);
            self.tls.reader().read_exact(self.open.get_mut(from..).unwrap_or_default())?;
            self.ended |= state.peer_has_closed();
        }
        Ok(())
    }
}

fn unfinished() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no end of the TLS handshake: does that port speak TLS?")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
