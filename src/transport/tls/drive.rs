//! Between the kernel and a [`Session`](super::session::Session): receives ciphertext and hands on what was in it, seals
//! what is to be sent and keeps what the kernel does not take.
//!
//! Driven by the calls of [`Socket`](super::super::Socket) on a secure stream. A record is opened only whole: what there
//! is of one waits in the stream's flight. One record at a time is sealed, and sent before the next is, so that no more
//! than one is ever begun for a peer that does not read. Never waits, never reads a clock.

use std::collections::HashMap;
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, RawFd};

use super::super::{Fault, Received};
use super::record::LeanPages;
use super::session::DECODE_ERROR;
use super::{
    CIPHER_BYTES, EFFORT_PER_STEP, Flight, Form, HANDSHAKE_BYTES_MAX, Opened, RECORD_BYTES_MAX,
    RECORD_PLAIN_BYTES, SLOW_RECORD_PLAIN_BYTES, Secure, Tally, Tls, copy, entry_of, index_of, leave,
};
use crate::sys::marked::MarkedSocket;

/// The content type of a handshake (RFC 8446, 5.1): the first byte of a ClientHello's record.
const HANDSHAKE: u8 = 22;

/// Reads what has arrived and is whole.
///
/// # Errors
/// `WouldBlock` when there is nothing, the kernel's otherwise.
pub(in super::super) fn read(
    socket: &mut MarkedSocket,
    tls: &mut Tls,
    into: &mut [u8],
) -> io::Result<Received> {
    if tls.cipher.is_empty() {
        tls.cipher = vec![0; CIPHER_BYTES];
    }
    let Tls { config, pages, lean, subjects, cipher, plain, sealed, held, begun, effort, tally } = tls;
    let (fd, mut passing) = (socket.as_raw_fd(), None);
    let secure = entry_of(pages, lean, tally, config.as_ref(), fd, &mut passing);
    let before = (secure.held_bytes(), secure.begun_bytes());
    let mut reading = Reading { socket, secure, lean, subjects, cipher, plain, sealed, effort, tally };
    let received = reading.read(into);
    let secure = reading.secure;
    secure.settle();
    *held = *held + secure.held_bytes() - before.0;
    *begun = *begun + secure.begun_bytes() - before.1;
    leave(pages, fd, passing);
    if received.as_ref().is_ok_and(|received| *received == Received::Fault(Fault::PlainHttp)) {
        tls.forget(socket.as_raw_fd());
        socket.unmark();
    }
    received
}

/// Seals and sends `bytes`, one record after the other, until the kernel has no more room.
///
/// # Errors
/// `WouldBlock` when what was sealed before is not with the kernel; the kernel's; and `NotConnected` when
/// the handshake is not done or the stream has failed.
pub(in super::super) fn write(socket: &MarkedSocket, tls: &mut Tls, bytes: &[u8]) -> io::Result<usize> {
    let Tls { config, pages, lean, sealed, begun, tally, .. } = tls;
    let (fd, mut passing) = (socket.as_raw_fd(), None);
    let secure = entry_of(pages, lean, tally, config.as_ref(), fd, &mut passing);
    let before = secure.begun_bytes();
    let written = write_records(socket, secure, lean, sealed, bytes);
    secure.settle();
    *begun = *begun + secure.begun_bytes() - before;
    leave(pages, fd, passing);
    written
}

/// Tells the peer that nothing more will come (RFC 8446, 6.1), behind all that was sealed before. A handshake is given up: the
/// stream ends here, and a flight that is looked at behind that would be signed for nobody.
///
/// # Errors
/// `WouldBlock` when it is to be called again once there is room, any other when the peer is gone.
pub(in super::super) fn say_close(socket: &MarkedSocket, tls: &mut Tls) -> io::Result<()> {
    let Tls { config, pages, lean, sealed, held, begun, tally, .. } = tls;
    let (fd, mut passing) = (socket.as_raw_fd(), None);
    let secure = entry_of(pages, lean, tally, config.as_ref(), fd, &mut passing);
    let before = (secure.held_bytes(), secure.begun_bytes());
    secure.give_up_handshake(tally);
    let said = flush(socket, secure).and_then(|()| {
        if secure.closed {
            return Ok(());
        }
        sealed.clear();
        match &mut secure.form {
            Form::Rustls(session) => session.say_close(held_of(&mut secure.flight), sealed),
            // What can't be sealed is not said: the end of the stream follows in any case.
            Form::Lean => drop(lean.get(index_of(fd)).map(|lean| lean.close_notify(sealed))),
            Form::Delayed | Form::Failed => return Ok(()),
        }
        secure.closed = true;
        send_sealed(socket, secure, sealed)?;
        if secure.is_pending() { Err(ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    secure.settle();
    *held = *held + secure.held_bytes() - before.0;
    *begun = *begun + secure.begun_bytes() - before.1;
    leave(pages, fd, passing);
    said
}

/// One call of [`read`].
struct Reading<'a> {
    socket: &'a MarkedSocket,
    secure: &'a mut Secure,
    lean: &'a mut LeanPages,
    subjects: &'a mut HashMap<RawFd, Box<str>>,
    cipher: &'a mut [u8],
    plain: &'a mut Vec<u8>,
    sealed: &'a mut Vec<u8>,
    effort: &'a mut u64,
    tally: &'a mut Tally,
}

impl Reading<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<Received> {
        loop {
            if let Some(flight) = self.secure.flight.as_deref_mut() {
                let count = flight.take_plain(into);
                if count > 0 {
                    // Behind it there may be more, in the kernel or here.
                    return Ok(Received::Bytes { count, more: true });
                }
            }
            if let Some(fault) = self.secure.fault.take() {
                return Ok(Received::Fault(fault));
            }
            if self.secure.peer_closed {
                return Ok(Received::End);
            }
            if matches!(self.secure.form, Form::Delayed | Form::Failed) {
                return Ok(match self.socket.receive(into)? {
                    0 => Received::End,
                    count => Received::Bytes { count, more: count == into.len() },
                });
            }
            if std::mem::take(&mut self.secure.unread) {
                let bytes = self.secure.flight.get_or_insert_default();
                let bytes = std::mem::take(&mut bytes.cipher);
                let count = copy(&bytes, self.cipher);
                // Behind it there may be more in the kernel.
                if let Some(received) = self.take(0, count, true, into)? {
                    return Ok(received);
                }
                continue;
            }
            let held = self.secure.flight.as_deref().map_or(0, |flight| flight.cipher.len());
            // A reader with little room gets a record piece by piece; one with much has it opened in place.
            let room = into.len().saturating_sub(held).max(RECORD_BYTES_MAX);
            let behind = self.cipher.get_mut(held..).unwrap_or_default();
            let room = room.min(behind.len());
            let count = self.socket.receive(behind.get_mut(..room).unwrap_or_default())?;
            if count == 0 {
                // Whoever ends the stream without close_notify ends it all the same: browsers always do.
                return Ok(Received::End);
            }
            let more = count == room;
            if let Some(received) = self.take(held, count, more, into)? {
                return Ok(received);
            }
            if !more && self.secure.fault.is_none() && !self.secure.peer_closed {
                // A short read has left nothing: asking again would be one more system call for each flight.
                return Ok(Received::Nothing);
            }
        }
    }

    /// Takes `count` bytes that arrived behind `held` that were there. `None`: nothing came of it for the reader.
    fn take(
        &mut self,
        held: usize,
        count: usize,
        more: bool,
        into: &mut [u8],
    ) -> io::Result<Option<Received>> {
        let all = held + count;
        if !self.secure.begun {
            self.secure.begun = true;
            let first = self.cipher.get(held).copied().unwrap_or(0);
            if first != HANDSHAKE {
                self.sealed.clear();
                self.fail(not_tls(first))?;
                return Ok(None);
            }
        }
        if held > 0 {
            let flight = self.secure.flight.get_or_insert_default();
            if self.cipher.get(held..all).is_some_and(|fresh| !completes(&flight.cipher, fresh)) {
                // Not yet a whole record: what there is of it is not moved around for each byte that comes.
                flight.cipher.extend_from_slice(self.cipher.get(held..all).unwrap_or_default());
                return Ok(None);
            }
            copy(&flight.cipher, self.cipher);
            flight.cipher = Vec::new();
        }
        self.sealed.clear();
        let in_place = into.len() >= all;
        if !in_place {
            self.plain.resize(CIPHER_BYTES, 0);
        }
        let mut opened = Opened::default();
        loop {
            let cipher = self.cipher.get_mut(opened.used..all).unwrap_or_default();
            let plain = if in_place { &mut *into } else { &mut self.plain[..] };
            let plain = plain.get_mut(opened.plain..).unwrap_or_default();
            let more = match &mut self.secure.form {
                Form::Rustls(session) => session.open(cipher, plain, self.sealed),
                Form::Lean => match self.lean.get(index_of(self.socket.as_raw_fd())) {
                    Some(lean) => lean.open(cipher, plain, self.sealed).into(),
                    None => Opened { fault: Some(Fault::Record), ..Opened::default() },
                },
                Form::Delayed | Form::Failed => return Ok(None),
            };
            opened = Opened { used: opened.used + more.used, plain: opened.plain + more.plain, ..more };
            self.note_progress(opened);
            // What rustls has not looked at behind the handshake is for whoever goes on.
            if !self.take_over(&mut opened) {
                break;
            }
        }
        let left = self.cipher.get(opened.used..all).unwrap_or_default();
        refuse_too_long(self.secure, left.len(), &mut opened, self.sealed);
        if let Some(fault) = opened.fault {
            self.fail(fault)?;
        } else if opened.closed {
            self.secure.peer_closed = true;
        } else if !left.is_empty() {
            self.secure.flight.get_or_insert_default().cipher = left.to_vec();
        }
        if opened.plain == 0 {
            self.say()?;
            return Ok(None);
        }
        // The reader most likely has an answer: with it, both are one call, and one segment.
        put_off(self.secure, self.sealed);
        let mut count = opened.plain;
        if !in_place {
            let plain = self.plain.get(..opened.plain).unwrap_or_default();
            count = copy(plain, into);
            let rest = plain.get(count..).unwrap_or_default();
            if !rest.is_empty() {
                self.secure.flight.get_or_insert_default().plain = rest.to_vec();
            }
        }
        let more = more || count < opened.plain || opened.closed || opened.fault.is_some();
        Ok(Some(Received::Bytes { count, more }))
    }

    /// Notes what opening has cost, and whether it has ended the handshake.
    fn note_progress(&mut self, opened: Opened) {
        if !self.secure.handshaking {
            return;
        }
        if opened.used > 0 {
            *self.effort += EFFORT_PER_STEP;
        }
        let Form::Rustls(session) = &self.secure.form else { return };
        let Some(agreed) = session.agreed() else { return };
        self.secure.handshaking = false;
        self.tally.under_way -= 1;
        if let Some(subject) = session.subject() {
            self.subjects.insert(self.socket.as_raw_fd(), subject);
        }
        let counts = if agreed.resumed { &mut self.tally.resumed } else { &mut self.tally.full };
        if let Some(count) = counts.get_mut(usize::from(agreed.is_tls13)) {
            *count += 1;
        }
    }

    /// Goes on with plain data once rustls has finished the handshake of a stream that is to be lean. Whether it does.
    fn take_over(&mut self, opened: &mut Opened) -> bool {
        if self.secure.handshaking || opened.fault.is_some() || opened.closed {
            return false;
        }
        if !matches!(&self.secure.form, Form::Rustls(session) if session.leaves()) {
            return false;
        }
        let Form::Rustls(session) = std::mem::replace(&mut self.secure.form, Form::Lean) else {
            return false;
        };
        let index = index_of(self.socket.as_raw_fd());
        let taken = session
            .leave()
            .is_some_and(|(secrets, traffic)| self.lean.take_over(index, &secrets, &traffic).is_ok());
        if !taken {
            // There is no memory for it, and no way back.
            opened.fault = Some(Fault::Handshake);
        }
        taken
    }

    /// Gives the stream up, after what is left to say of it. It is told when all that came before was handed on.
    fn fail(&mut self, fault: Fault) -> io::Result<()> {
        if self.secure.handshaking {
            self.secure.handshaking = false;
            self.tally.under_way -= 1;
            *self.effort += EFFORT_PER_STEP;
        }
        self.secure.form = Form::Failed;
        self.lean.remove(index_of(self.socket.as_raw_fd()));
        if let Some(flight) = self.secure.flight.as_deref_mut() {
            flight.forget_read();
        }
        self.secure.fault = Some(fault);
        self.say()
    }

    /// Sends what the layer has to say.
    fn say(&mut self) -> io::Result<()> {
        if self.sealed.is_empty() {
            return Ok(());
        }
        let said = send_behind(self.socket, self.secure, self.sealed);
        self.sealed.clear();
        said
    }
}

/// What there is of the next record, or of several with a part of a message each.
fn held_of(flight: &mut Option<Box<Flight>>) -> &mut [u8] {
    flight.as_deref_mut().map(|flight| flight.cipher.as_mut_slice()).unwrap_or_default()
}

/// Whether `fresh` brings the end of the record that `held` is the beginning of.
fn completes(held: &[u8], fresh: &[u8]) -> bool {
    let at = |index: usize| held.get(index).or_else(|| fresh.get(index.wrapping_sub(held.len())));
    // RFC 8446, 5.1: a header of five bytes, whose last two are the length of what follows.
    let (Some(&high), Some(&low)) = (at(3), at(4)) else { return false };
    let whole = 5 + usize::from(u16::from_be_bytes([high, low]));
    // What no record may have is refused as soon as it says so.
    whole > RECORD_BYTES_MAX || held.len() + fresh.len() >= whole
}

/// Refuses what is left in parts and longer than any flight: behind a handshake, too, its messages may come in parts, and no
/// record of data is as long.
fn refuse_too_long(secure: &mut Secure, left: usize, opened: &mut Opened, out: &mut Vec<u8>) {
    if left <= HANDSHAKE_BYTES_MAX || opened.fault.is_some() || opened.closed {
        return;
    }
    if let Form::Rustls(session) = &mut secure.form {
        session.refuse_first(DECODE_ERROR, out);
    }
    opened.fault = Some(if secure.handshaking { Fault::Handshake } else { Fault::Record });
}

/// What begins with this byte instead of a ClientHello.
fn not_tls(first: u8) -> Fault {
    // The method of a request (RFC 9110, 9.1).
    if first.is_ascii_uppercase() { Fault::PlainHttp } else { Fault::NotTls }
}

fn write_records(
    socket: &MarkedSocket,
    secure: &mut Secure,
    lean: &mut LeanPages,
    sealed: &mut Vec<u8>,
    bytes: &[u8],
) -> io::Result<usize> {
    let mut lead = Vec::new();
    match secure.flight.as_deref_mut() {
        Some(flight) if flight.put_off && !bytes.is_empty() => {
            flight.put_off = false;
            lead = std::mem::take(&mut flight.sealed);
        }
        _ => flush(socket, secure)?,
    }
    let mut taken = 0;
    while let Some(rest) = bytes.get(taken..).filter(|rest| !rest.is_empty()) {
        if secure.closed || secure.handshaking {
            return Err(ErrorKind::NotConnected.into());
        }
        let most = if secure.slow { SLOW_RECORD_PLAIN_BYTES } else { RECORD_PLAIN_BYTES };
        let record = rest.get(..most).unwrap_or(rest);
        sealed.clear();
        sealed.append(&mut lead);
        let done = match &mut secure.form {
            Form::Rustls(session) => session.seal(held_of(&mut secure.flight), record, sealed).is_ok(),
            Form::Lean => lean
                .get(index_of(socket.as_raw_fd()))
                .is_some_and(|lean| lean.seal(record, RECORD_PLAIN_BYTES, sealed).is_ok()),
            Form::Delayed | Form::Failed => false,
        };
        if !done {
            return Err(ErrorKind::NotConnected.into());
        }
        taken += record.len();
        send_sealed(socket, secure, sealed)?;
        if secure.is_pending() {
            secure.slow = true;
            return Ok(taken);
        }
    }
    if taken > 0 {
        secure.slow = false;
    }
    Ok(taken)
}

/// Hands the kernel what was sealed before.
fn flush(socket: &MarkedSocket, secure: &mut Secure) -> io::Result<()> {
    let Some(flight) = secure.flight.as_deref_mut() else { return Ok(()) };
    flight.put_off = false;
    while let Some(rest) = flight.sealed.get(flight.sealed_at..).filter(|rest| !rest.is_empty()) {
        flight.sealed_at += socket.send(rest)?;
    }
    (flight.sealed, flight.sealed_at) = (Vec::new(), 0);
    Ok(())
}

/// Sends what was sealed just now, and keeps what the kernel does not take. Nothing else is pending.
fn send_sealed(socket: &MarkedSocket, secure: &mut Secure, sealed: &[u8]) -> io::Result<()> {
    let mut sent = 0;
    while let Some(rest) = sealed.get(sent..).filter(|rest| !rest.is_empty()) {
        match socket.send(rest) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let flight: &mut Flight = secure.flight.get_or_insert_default();
                (flight.sealed, flight.sealed_at) = (rest.to_vec(), 0);
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Leaves what the layer itself has to say for the next write or, if none comes, for who asks what is pending.
fn put_off(secure: &mut Secure, said: &mut Vec<u8>) {
    if said.is_empty() {
        return;
    }
    let flight = secure.flight.get_or_insert_default();
    // Behind what the kernel had no room for, it is no more in a hurry than that.
    flight.put_off |= flight.sealed.is_empty();
    flight.sealed.extend_from_slice(said);
    said.clear();
}

/// Sends what the layer itself has to say, behind what is pending.
fn send_behind(socket: &MarkedSocket, secure: &mut Secure, said: &[u8]) -> io::Result<()> {
    match flush(socket, secure) {
        Ok(()) => send_sealed(socket, secure, said),
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            secure.flight.get_or_insert_default().sealed.extend_from_slice(said);
            Ok(())
        }
        Err(error) => Err(error),
    }
}
