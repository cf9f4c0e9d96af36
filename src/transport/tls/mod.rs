//! TLS under a connection: handshakes and records, for the streams of one loop.
//!
//! Owns what its streams have beside the kernel, by descriptor, in pages that come and go; and the buffers that they
//! share. `drive` moves bytes between the kernel and a `Session`; [`config`] makes of files what a server
//! needs to answer a client, on the main thread. Never knows what the bytes mean, never waits, and reads a clock only to see
//! whether a response of OCSP still holds.

pub mod certificate;
pub mod clients;
pub mod config;
pub(super) mod drive;
pub mod files;
pub mod key_log;
mod ocsp;
pub mod record;
mod sent;
mod session;
pub mod tickets;

use std::collections::HashMap;
use std::os::fd::RawFd;
use std::sync::Arc;

use rustls::ServerConfig;

use super::{Beside, Fault};
use config::TlsConfig;
use record::{LEAN_BYTES, LeanPages};
use session::Session;

/// Bytes of a record on the wire at most, its header included (RFC 8446, 5.2; RFC 5246, 6.2.3 allows more padding).
const RECORD_BYTES_MAX: usize = 5 + (1 << 14) + 2_048;

/// Bytes of one flight of the peer's handshake: a ClientHello has 250 to 2,200, a chain of client certificates a few
/// thousand. It bounds what a connection holds before anybody knows it.
const HANDSHAKE_BYTES_MAX: usize = 32 * 1024;

/// Bytes of ciphertext that one `recv` may bring, behind what is there in part.
const CIPHER_BYTES: usize = 64 * 1024 + HANDSHAKE_BYTES_MAX;

/// Bytes of plaintext in one record, and in one of a connection that does not keep up: what is sealed and not with the
/// kernel is nobody's but this connection's.
const RECORD_PLAIN_BYTES: usize = 1 << 14;
const SLOW_RECORD_PLAIN_BYTES: usize = 4 * 1024;

/// One step of a handshake counts as so many bytes moved: with it, the clock is looked at.
const EFFORT_PER_STEP: u64 = 64 * 1024;

/// Descriptors of one page.
const PAGE_ENTRIES: usize = 1_024;

/// What happened on one loop since it began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Handshakes in full, of TLS 1.2 and 1.3.
    pub full: [u64; 2],
    /// Handshakes that took up an earlier session, of TLS 1.2 and 1.3.
    pub resumed: [u64; 2],
    /// Peers that left, or were left, before their handshake was done.
    pub left: u64,
    /// Handshakes under way.
    pub under_way: u64,
}

/// What opening made of ciphertext.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Opened {
    /// Bytes of it that are done with, from the front.
    used: usize,
    /// Bytes of plaintext that were written.
    plain: usize,
    /// The peer has said that nothing more will come; what lies behind that is not looked at.
    closed: bool,
    /// What was wrong behind that, whose alert was written.
    fault: Option<Fault>,
}

/// What one stream has beside the kernel.
struct Secure {
    form: Form,
    /// What is on its way; `None` at rest.
    flight: Option<Box<Flight>>,
    /// The peer's close_notify was met.
    peer_closed: bool,
    /// Ours was made.
    closed: bool,
    /// The kernel had no room for all of what was sealed last.
    slow: bool,
    /// The handshake is not done.
    handshaking: bool,
    /// Whether the peer has said anything.
    begun: bool,
    /// Ciphertext is there that nobody has looked at.
    unread: bool,
    /// What is to be told once all that came before it was handed on.
    fault: Option<Fault>,
}

/// How the records of a stream are made and read.
enum Form {
    /// By rustls.
    Rustls(Box<Session>),
    /// By [`record`], out of what lies in the pages of lean streams.
    Lean,
    /// Not yet: what comes first is plain.
    Delayed,
    /// Not any more: what comes is thrown away, and nothing more is sealed.
    Failed,
}

/// What is on its way through a stream.
#[derive(Default)]
struct Flight {
    /// Ciphertext of which a part is missing.
    cipher: Vec<u8>,
    /// Opened, and for want of room not handed on, from `plain_at` on.
    plain: Vec<u8>,
    plain_at: usize,
    /// Sealed, and not with the kernel, from `sealed_at` on.
    sealed: Vec<u8>,
    sealed_at: usize,
    /// The kernel was not asked to take that, because more may follow at once.
    put_off: bool,
}

/// What the TLS streams of one loop have beside the kernel.
#[derive(Default)]
pub struct Tls {
    config: Option<Arc<ServerConfig>>,
    /// Streams of which there is more than their keys.
    pages: Vec<Option<Box<Page>>>,
    /// The keys of lean streams. Such a stream has an entry in `pages` only while it has something on its way.
    lean: LeanPages,
    /// Whom the certificates of those clients name that have shown one.
    subjects: HashMap<RawFd, Box<str>>,
    /// What was read last, behind what was there in part.
    cipher: Vec<u8>,
    /// What was opened last, if its reader has less room.
    plain: Vec<u8>,
    /// What was sealed last.
    sealed: Vec<u8>,
    held: usize,
    begun: usize,
    effort: u64,
    tally: Tally,
}

struct Page {
    entries: [Option<Box<Secure>>; PAGE_ENTRIES],
    used: usize,
}

impl Tls {
    /// What handshakes that begin from now on are answered with.
    pub fn set_config(&mut self, config: Option<&TlsConfig>) {
        self.config = config.map(|config| Arc::clone(&config.server));
    }

    /// Whether something of this stream is sealed and not with the kernel.
    pub(super) fn is_pending(&self, fd: RawFd) -> bool {
        self.entry(fd).and_then(|secure| secure.flight.as_deref()).is_some_and(Flight::is_pending)
    }

    /// Whom the certificate names that the peer has shown.
    pub(super) fn subject(&self, fd: RawFd) -> Option<&str> {
        self.subjects.get(&fd).map(AsRef::as_ref)
    }

    /// Whether the handshake of this stream is done.
    pub(super) fn has_agreed(&self, fd: RawFd) -> bool {
        match self.entry(fd) {
            Some(secure) => !secure.handshaking && !matches!(secure.form, Form::Failed),
            None => self.lean.has(index_of(fd)),
        }
    }

    /// Whether the handshake of this stream is neither done nor given up.
    pub(super) fn is_shaking_hands(&self, fd: RawFd) -> bool {
        match self.entry(fd) {
            Some(secure) => secure.handshaking,
            None => !self.lean.has(index_of(fd)),
        }
    }

    /// Whether the peer's first flight on this stream was answered.
    pub(super) fn is_answered(&self, fd: RawFd) -> bool {
        match self.entry(fd).map(|secure| &secure.form) {
            Some(Form::Rustls(session)) => session.is_answered(),
            Some(Form::Delayed) => false,
            Some(Form::Lean | Form::Failed) => true,
            None => self.lean.has(index_of(fd)),
        }
    }

    /// What the peer says first on this stream is plain.
    pub(super) fn delay(&mut self, fd: RawFd) {
        let Self { config, pages, lean, tally, .. } = self;
        entry_of(pages, lean, tally, config.as_ref(), fd, &mut None).form = Form::Delayed;
    }

    /// It has said that, and its handshake begins with `rest`. `false`: that was done before.
    pub(super) fn begin_with(&mut self, fd: RawFd, rest: &[u8]) -> bool {
        let Self { config, pages, lean, held, tally, .. } = self;
        let mut passing = None;
        let secure = entry_of(pages, lean, tally, config.as_ref(), fd, &mut passing);
        if !matches!(secure.form, Form::Delayed) {
            return false;
        }
        secure.form = Secure::new(config.as_ref()).form;
        if !rest.is_empty() {
            let before = secure.held_bytes();
            secure.flight.get_or_insert_default().cipher = rest.to_vec();
            secure.unread = true;
            *held = *held + secure.held_bytes() - before;
        }
        true
    }

    /// Drops what there is of a stream.
    pub(super) fn forget(&mut self, fd: RawFd) {
        self.lean.remove(index_of(fd));
        if !self.subjects.is_empty() {
            self.subjects.remove(&fd);
        }
        let (page_index, index) = place_of(fd);
        let Some(place) = self.pages.get_mut(page_index) else { return };
        let Some(page) = place.as_deref_mut() else { return };
        let Some(secure) = page.entries.get_mut(index).and_then(Option::take) else { return };
        page.used -= 1;
        if page.used == 0 {
            *place = None;
        }
        let flight = secure.flight.as_deref();
        self.held -= flight.map_or(0, Flight::held_bytes);
        self.begun -= flight.map_or(0, Flight::begun_bytes);
        if secure.handshaking {
            self.tally.under_way -= 1;
            self.tally.left += 1;
        }
    }

    /// User memory of one stream that is not the kernel's nor rustls', in bytes.
    #[must_use]
    pub fn memory_of(&self, fd: RawFd) -> usize {
        let lean = if self.lean.has(index_of(fd)) { LEAN_BYTES } else { 0 };
        let lean = lean + self.subject(fd).map_or(0, str::len);
        let Some(secure) = self.entry(fd) else { return lean };
        let session = if matches!(secure.form, Form::Rustls(_)) { size_of::<Session>() } else { 0 };
        let flight = secure
            .flight
            .as_deref()
            .map_or(0, |flight| size_of::<Flight>() + flight.held_bytes() + flight.begun_bytes());
        lean + size_of::<Secure>() + session + flight
    }

    fn entry(&self, fd: RawFd) -> Option<&Secure> {
        let (page, index) = place_of(fd);
        self.pages.get(page)?.as_deref()?.entries.get(index)?.as_deref()
    }
}

impl Beside for Tls {
    #[inline]
    fn is_used(&self) -> bool {
        !self.pages.is_empty()
    }

    fn held_bytes(&self) -> usize {
        self.held
    }

    fn begun_bytes(&self) -> usize {
        self.begun
    }

    fn take_effort(&mut self) -> u64 {
        std::mem::take(&mut self.effort)
    }

    fn tally(&self) -> Tally {
        self.tally
    }
}

impl Secure {
    /// A stream on which the peer has said nothing.
    fn new(config: Option<&Arc<ServerConfig>>) -> Self {
        let form = match config.and_then(|config| Session::new(Arc::clone(config)).ok()) {
            Some(session) => Form::Rustls(Box::new(session)),
            // There is no listener without a configuration.
            None => Form::Failed,
        };
        let (peer_closed, closed, slow, begun) = (false, false, false, false);
        let (unread, fault) = (false, None);
        Self { form, flight: None, peer_closed, closed, slow, handshaking: true, begun, unread, fault }
    }

    /// A lean stream that has nothing on its way.
    fn at_rest() -> Self {
        let (peer_closed, closed, slow, begun) = (false, false, false, true);
        let form = Form::Lean;
        Self {
            form,
            flight: None,
            peer_closed,
            closed,
            slow,
            handshaking: false,
            begun,
            unread: false,
            fault: None,
        }
    }

    /// Whether its keys are all that there is to know of it.
    fn rests(&self) -> bool {
        let Self { form, flight, peer_closed, closed, slow, handshaking, begun: _, unread, fault } = self;
        let nothing = !(*unread || *peer_closed || *closed || *slow || *handshaking) && flight.is_none();
        nothing && fault.is_none() && matches!(form, Form::Lean)
    }

    fn is_pending(&self) -> bool {
        self.flight.as_deref().is_some_and(Flight::is_pending)
    }

    fn held_bytes(&self) -> usize {
        self.flight.as_deref().map_or(0, Flight::held_bytes)
    }

    fn begun_bytes(&self) -> usize {
        self.flight.as_deref().map_or(0, Flight::begun_bytes)
    }

    /// Gives a handshake up that is under way. What the peer said of it, and says yet, is nothing any more.
    fn give_up_handshake(&mut self, tally: &mut Tally) {
        if !self.handshaking {
            return;
        }
        (self.handshaking, self.unread, self.form) = (false, false, Form::Failed);
        if let Some(flight) = self.flight.as_deref_mut() {
            flight.forget_read();
        }
        tally.under_way -= 1;
        tally.left += 1;
    }

    /// Drops the flight if nothing is in it.
    fn settle(&mut self) {
        if self.flight.as_deref().is_some_and(Flight::is_empty) {
            self.flight = None;
        }
    }
}

impl Flight {
    fn is_pending(&self) -> bool {
        self.sealed_at < self.sealed.len()
    }

    fn is_empty(&self) -> bool {
        !self.is_pending() && self.cipher.is_empty() && self.plain_at >= self.plain.len()
    }

    fn held_bytes(&self) -> usize {
        self.cipher.capacity() + self.plain.capacity()
    }

    fn begun_bytes(&self) -> usize {
        self.sealed.capacity()
    }

    /// Drops what was read and not handed on.
    fn forget_read(&mut self) {
        (self.cipher, self.plain, self.plain_at) = (Vec::new(), Vec::new(), 0);
    }

    /// Hands on what was opened before.
    fn take_plain(&mut self, into: &mut [u8]) -> usize {
        let left = self.plain.get(self.plain_at..).unwrap_or_default();
        let count = copy(left, into);
        self.plain_at += count;
        if self.plain_at >= self.plain.len() {
            (self.plain, self.plain_at) = (Vec::new(), 0);
        }
        count
    }
}

/// Copies as much as fits, and returns how much that was.
fn copy(from: &[u8], into: &mut [u8]) -> usize {
    let count = from.len().min(into.len());
    if let (Some(into), Some(from)) = (into.get_mut(..count), from.get(..count)) {
        into.copy_from_slice(from);
    }
    count
}

fn place_of(fd: RawFd) -> (usize, usize) {
    let fd = usize::try_from(fd).unwrap_or(0);
    (fd / PAGE_ENTRIES, fd % PAGE_ENTRIES)
}

/// What lean streams are known by.
fn index_of(fd: RawFd) -> u32 {
    u32::try_from(fd).unwrap_or(0)
}

/// The entry of a stream, made if there is none; for the time of a call in `passing`, if all that there is of the stream
/// are its keys. [`leave`] ends it.
fn entry_of<'a>(
    pages: &'a mut Vec<Option<Box<Page>>>,
    lean: &LeanPages,
    tally: &mut Tally,
    config: Option<&Arc<ServerConfig>>,
    fd: RawFd,
    passing: &'a mut Option<Secure>,
) -> &'a mut Secure {
    let (page_index, index) = place_of(fd);
    let page = pages.get(page_index).and_then(Option::as_deref);
    let kept = page.and_then(|page| page.entries.get(index)).is_some_and(Option::is_some);
    if !kept && lean.has(index_of(fd)) {
        return passing.insert(Secure::at_rest());
    }
    let (entry, used) = place_at(pages, page_index, index);
    entry.get_or_insert_with(|| {
        *used += 1;
        tally.under_way += 1;
        Box::new(Secure::new(config))
    })
}

/// The place of an entry and how many its page has.
fn place_at(
    pages: &mut Vec<Option<Box<Page>>>,
    page_index: usize,
    index: usize,
) -> (&mut Option<Box<Secure>>, &mut usize) {
    if pages.len() <= page_index {
        pages.resize_with(page_index + 1, || None);
    }
    let page = pages[page_index]
        .get_or_insert_with(|| Box::new(Page { entries: [const { None }; PAGE_ENTRIES], used: 0 }));
    let Page { entries, used } = &mut **page;
    (&mut entries[index], used)
}

/// Keeps of a stream what has to be kept behind a call, and no more.
fn leave(pages: &mut Vec<Option<Box<Page>>>, fd: RawFd, passing: Option<Secure>) {
    let (page_index, index) = place_of(fd);
    match passing {
        Some(secure) if secure.rests() => {}
        Some(secure) => {
            let (entry, used) = place_at(pages, page_index, index);
            *used += 1;
            *entry = Some(Box::new(secure));
        }
        None => {
            let Some(Some(page)) = pages.get_mut(page_index) else { return };
            let entry = page.entries.get_mut(index);
            if let Some(entry) = entry.filter(|entry| entry.as_deref().is_some_and(Secure::rests)) {
                *entry = None;
                page.used -= 1;
                if page.used == 0 {
                    pages[page_index] = None;
                }
            }
        }
    }
}

impl From<record::Fault> for Fault {
    fn from(fault: record::Fault) -> Self {
        match fault {
            record::Fault::Peer(alert) => Self::Alert(alert),
            record::Fault::Exhausted => Self::Exhausted,
            record::Fault::Refused(_) | record::Fault::TooMany(_) | record::Fault::Internal => Self::Record,
        }
    }
}

impl From<record::Opened> for Opened {
    fn from(opened: record::Opened) -> Self {
        let record::Opened { used, plain, closed, fault } = opened;
        Self { used, plain, closed, fault: fault.map(Fault::from) }
    }
}
