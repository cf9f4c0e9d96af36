//! The stream under a client's connection, plain or of TLS: one thread may read while another writes.
//!
//! Writers wait for each other and never for the reader, and the reader waits for nobody: what TLS wants to answer to a
//! record (a KeyUpdate of its own, RFC 8446, 4.6.3) leaves with the next write, as it has to be there before that. So a
//! server that stops reading until its echoes are read is no deadlock. Bytes that are held: what came with one read, and
//! one record that is being written.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustls::ClientConnection;

use super::tls::look::Agreed;
use super::tls::{Tls, is_passing};
use super::url::Url;

/// Sealed bytes that are read at once, and bytes that are sealed at once: a record (RFC 8446, 5.1).
const RECORD_BYTES: usize = 16 * 1024;

/// How long the last words of a connection may take: an alert, or close_notify.
const LAST_WORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// See the module's head. Clones are the same stream.
#[derive(Debug, Clone)]
pub struct Stream {
    socket: Arc<TcpStream>,
    sealed: Option<Arc<Sealed>>,
}

#[derive(Debug)]
struct Sealed {
    tls: Arc<Tls>,
    /// Taken before `state` by whoever writes, so that records leave in the order they were sealed in. False once a record
    /// may have left in part: nothing can follow it.
    whole: Mutex<bool>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    connection: ClientConnection,
    /// What was unsealed and has not been read, and how far it has.
    open: Vec<u8>,
    from: usize,
    ended: bool,
    /// What was wrong with what came behind it.
    failed: Option<rustls::Error>,
}

impl Stream {
    /// Connects to the first of the host's addresses that answers, each within `timeout`, and shakes hands within `timeout`
    /// if `tls` is given.
    ///
    /// # Errors
    /// The kernel's or the resolver's; of the kind `InvalidData` if TLS failed in a way that will be the same again.
    pub fn connect(url: &Url, tls: Option<&Arc<Tls>>, timeout: Duration) -> io::Result<Self> {
        let mut stream = Self { socket: Arc::new(connect(url, timeout)?), sealed: None };
        if let Some(tls) = tls {
            let connection = tls.begin().map_err(|error| explained(tls, &error))?;
            let state = State { connection, open: Vec::new(), from: 0, ended: false, failed: None };
            let sealed = Sealed { tls: Arc::clone(tls), whole: Mutex::new(true), state: Mutex::new(state) };
            let sealed = stream.sealed.insert(Arc::new(sealed)).clone();
            stream.shake_hands(&sealed, Instant::now() + timeout)?;
        }
        Ok(stream)
    }

    fn shake_hands(&self, sealed: &Sealed, until: Instant) -> io::Result<()> {
        let unfinished = |error: io::Error| match error.kind() {
            io::ErrorKind::TimedOut => io::Error::new(
                io::ErrorKind::TimedOut,
                "no end of the TLS handshake in time: does that port speak TLS?",
            ),
            _ => error,
        };
        let mut raw = [0; RECORD_BYTES];
        loop {
            let ready = lock(&sealed.state).drain_sealed()?;
            if let Some(error) = &lock(&sealed.state).failed {
                return Err(explained(&sealed.tls, error));
            }
            self.write_raw(&ready, left(until), Some(until)).map_err(unfinished)?;
            if !lock(&sealed.state).connection.is_handshaking() {
                return Ok(());
            }
            match self.read_raw(&mut raw, Some(until)).map_err(unfinished)? {
                0 => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the server ended the connection during the TLS handshake: does that port speak TLS?",
                    ));
                }
                count => self.take(sealed, raw.get(..count).unwrap_or_default()),
            }
        }
    }

    /// Reads what has come, waiting for it, but not beyond `until`. `Ok(0)` is the end; with TLS an end without close_notify
    /// is `UnexpectedEof`, because what came may be cut off.
    ///
    /// # Errors
    /// `TimedOut`, the kernel's, or what was wrong with a record.
    pub fn read_by(&self, out: &mut [u8], until: Option<Instant>) -> io::Result<usize> {
        let Some(sealed) = &self.sealed else { return self.read_raw(out, until) };
        let mut raw = [0; RECORD_BYTES];
        loop {
            {
                let mut state = lock(&sealed.state);
                if let Some(count) = state.take_open(out) {
                    return Ok(count);
                }
                if let Some(error) = &state.failed {
                    return Err(explained(&sealed.tls, error));
                }
            }
            // Not locked: it may take long.
            match self.read_raw(&mut raw, until)? {
                0 => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "the server ended the stream in the middle (no close_notify of TLS)",
                    ));
                }
                count => self.take(sealed, raw.get(..count).unwrap_or_default()),
            }
        }
    }

    /// Writes everything: never `stall` without progress, and not beyond the deadline however slowly the peer reads.
    ///
    /// # Errors
    /// `TimedOut` or the kernel's. Nothing can be written afterwards.
    pub fn write_by(&self, bytes: &[u8], stall: Duration, deadline: Option<Instant>) -> io::Result<()> {
        let Some(sealed) = &self.sealed else { return self.write_raw(bytes, stall, deadline) };
        let mut whole = lock(&sealed.whole);
        for piece in bytes.chunks(RECORD_BYTES) {
            let ready = {
                let mut state = lock(&sealed.state);
                state.connection.writer().write_all(piece)?;
                state.drain_sealed()?
            };
            // Not locked: the reader has to go on while the server is not reading.
            self.write_sealed(&mut whole, &ready, stall, deadline)?;
        }
        Ok(())
    }

    /// What the handshake has agreed on, with TLS.
    #[must_use]
    pub fn agreed(&self) -> Option<Agreed> {
        self.sealed.as_ref().map(|sealed| Agreed::of(&lock(&sealed.state).connection))
    }

    /// Lets reads without a deadline wait as long as it takes.
    ///
    /// # Errors
    /// The kernel's.
    pub fn wait_forever(&self) -> io::Result<()> {
        self.socket.set_read_timeout(None)
    }

    /// Sends no more; what the server still says can be read.
    pub fn end_writing(&self) {
        // Where that fails, the connection has ended already.
        let _ = self.socket.shutdown(Shutdown::Write);
    }

    /// Ends it both ways, and a read that waits, too. With TLS, close_notify goes first (RFC 8446, 6.1).
    pub fn end(&self) {
        if let Some(sealed) = &self.sealed {
            let mut whole = lock(&sealed.whole);
            let ready = {
                let mut state = lock(&sealed.state);
                state.connection.send_close_notify();
                state.drain_sealed()
            };
            if let Ok(ready) = ready {
                self.last_words(&mut whole, &ready);
            }
        }
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// Takes sealed bytes. What is wrong with them is told the server, unless somebody is writing.
    fn take(&self, sealed: &Sealed, raw: &[u8]) {
        let Err(error) = lock(&sealed.state).take(raw) else { return };
        lock(&sealed.state).failed = Some(error);
        if let Ok(mut whole) = sealed.whole.try_lock() {
            let ready = lock(&sealed.state).drain_sealed();
            if let Ok(ready) = ready {
                self.last_words(&mut whole, &ready);
            }
        }
    }

    fn last_words(&self, whole: &mut MutexGuard<'_, bool>, ready: &[u8]) {
        // Who does not read them does not get them.
        let _ =
            self.write_sealed(whole, ready, LAST_WORDS_TIMEOUT, Some(Instant::now() + LAST_WORDS_TIMEOUT));
    }

    fn write_sealed(
        &self,
        whole: &mut MutexGuard<'_, bool>,
        ready: &[u8],
        stall: Duration,
        deadline: Option<Instant>,
    ) -> io::Result<()> {
        if !**whole {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let written = self.write_raw(ready, stall, deadline);
        **whole = written.is_ok();
        written
    }

    fn read_raw(&self, out: &mut [u8], until: Option<Instant>) -> io::Result<usize> {
        loop {
            if let Some(until) = until {
                let left = left(until);
                if left.is_zero() {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                self.socket.set_read_timeout(Some(left))?;
            }
            match (&*self.socket).read(out) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // How Linux names a socket's timeout.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                outcome => return outcome,
            }
        }
    }

    fn write_raw(&self, mut bytes: &[u8], stall: Duration, deadline: Option<Instant>) -> io::Result<()> {
        while !bytes.is_empty() {
            let left = deadline.map_or(stall, |deadline| left(deadline).min(stall));
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.socket.set_write_timeout(Some(left))?;
            match (&*self.socket).write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl State {
    /// What was unsealed, or 0 at the end; `None` if more has to come first.
    fn take_open(&mut self, out: &mut [u8]) -> Option<usize> {
        let open = self.open.get(self.from..).unwrap_or_default();
        if open.is_empty() {
            return self.ended.then_some(0);
        }
        let count = open.len().min(out.len());
        if let (Some(to), Some(of)) = (out.get_mut(..count), open.get(..count)) {
            to.copy_from_slice(of);
        }
        self.from += count;
        Some(count)
    }

    /// Takes sealed bytes; what came in front of a wrong record counts.
    fn take(&mut self, mut raw: &[u8]) -> Result<(), rustls::Error> {
        self.open.drain(..self.from.min(self.open.len()));
        self.from = 0;
        let general = |error: io::Error| rustls::Error::General(error.to_string());
        // Behind close_notify nothing counts (RFC 8446, 6.1): nothing is read then.
        while !raw.is_empty() && self.connection.read_tls(&mut raw).map_err(general)? > 0 {
            let taken = self.connection.process_new_packets();
            match self.connection.reader().read_to_end(&mut self.open) {
                // There is no more for the moment.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(general(error)),
                Ok(_) => self.ended |= taken.is_ok(),
            }
            taken?;
        }
        Ok(())
    }

    fn drain_sealed(&mut self) -> io::Result<Vec<u8>> {
        let mut ready = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut ready)?;
        }
        Ok(ready)
    }
}

/// A TCP connection to the URL's host.
fn connect(url: &Url, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the host has no address");
    for address in (url.host.as_str(), url.port).to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, timeout) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn explained(tls: &Tls, error: &rustls::Error) -> io::Error {
    let kind = if is_passing(error) { io::ErrorKind::ConnectionAborted } else { io::ErrorKind::InvalidData };
    io::Error::new(kind, tls.explain(error))
}

fn left(until: Instant) -> Duration {
    until.saturating_duration_since(Instant::now())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
