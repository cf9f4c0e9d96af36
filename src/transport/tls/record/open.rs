//! Opening: what comes of the records of a peer.
//!
//! Owns the receiving direction: headers, padding, and what each kind of record may hold once the handshake is finished
//! (RFC 8446, 5 and 6; of handshake messages a server is sent KeyUpdates alone, 4.6). Driven by the connection's stream
//! with what it has read. Keeps no byte: a half record stays with whoever read it.

use aws_lc_rs::aead::{Aad, LessSafeKey};

use super::fault::{Alert, Fault};
use super::keys::{Keys, Suite, TAG_BYTES};
use super::{Content, HEADER_BYTES, KEY_UPDATE, Opened, PLAIN_BYTES_MAX};

/// Bytes of a record behind its header. RFC 8446, 5.2: more must end the connection.
const CIPHER_BYTES_MAX: usize = PLAIN_BYTES_MAX + 256;

/// Records without content in a row: as many as BoringSSL, OpenSSL and rustls take, and nobody has a use for.
pub(super) const EMPTY_IN_ROW_MAX: u8 = 32;

/// KeyUpdates without data between them, each of which costs a derivation: as many as BoringSSL and rustls take.
pub(super) const UPDATES_IN_ROW_MAX: u8 = 32;

/// Times that one peer may give up and go on: as many as BoringSSL and rustls take.
pub(super) const CANCELS_MAX: u8 = 4;

/// The receiving direction of one connection.
#[derive(Debug, Default)]
pub(super) struct Opener {
    /// Of the next record.
    pub(super) sequence: u64,
    pub(super) keys: Keys,
    empty_in_row: u8,
    updates_in_row: u8,
    cancels: u8,
    /// Bytes of a KeyUpdate that have come in earlier records. What they were is known: others were refused.
    begun: u8,
}

/// What a record was.
enum Meaning {
    /// So many bytes of data at the front.
    Data(usize),
    /// Nothing that concerns others.
    Nothing,
    /// The key has changed.
    Updated,
    /// The peer will send nothing more.
    Closed,
}

impl Opener {
    /// Opens every whole record in `cipher`, in place, and writes their data to `plain`, which is as long. `asked` is set
    /// when the peer wants a KeyUpdate.
    pub(super) fn open(
        &mut self,
        suite: Suite,
        cipher: &mut [u8],
        plain: &mut [u8],
        asked: &mut bool,
    ) -> Opened {
        let mut opened = Opened { used: 0, plain: 0, closed: false, fault: None };
        let mut key = None;
        while !opened.closed {
            let rest = cipher.get_mut(opened.used..).unwrap_or_default();
            let room = plain.get_mut(opened.plain..).unwrap_or_default();
            match self.open_first(suite, rest, room, &mut key, asked) {
                Ok(None) => break,
                Ok(Some((used, meaning))) => {
                    opened.used += used;
                    match meaning {
                        Meaning::Data(count) => opened.plain += count,
                        Meaning::Nothing => {}
                        Meaning::Updated => key = None,
                        Meaning::Closed => opened.closed = true,
                    }
                }
                Err(fault) => {
                    opened.fault = Some(fault);
                    break;
                }
            }
        }
        opened
    }

    /// The first record of `rest`, if it is there to the last byte: how long it is and what it was.
    fn open_first(
        &mut self,
        suite: Suite,
        rest: &mut [u8],
        room: &mut [u8],
        key: &mut Option<LessSafeKey>,
        asked: &mut bool,
    ) -> Result<Option<(usize, Meaning)>, Fault> {
        // RFC 8446, 5.2: always application data on the outside. 5: a change_cipher_spec behind the peer's Finished is an
        // unexpected record, and so is any that isn't protected.
        if rest.first().is_some_and(|&kind| kind != Content::Data as u8) {
            return Err(Fault::Refused(Alert::UnexpectedMessage));
        }
        let Some((&mut header, behind)) = rest.split_first_chunk_mut::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let [_, _, _, high, low] = header;
        // RFC 8446, 5.2. Said before its bytes are waited for.
        let length = usize::from(u16::from_be_bytes([high, low]));
        if length > CIPHER_BYTES_MAX {
            return Err(Fault::Refused(Alert::RecordOverflow));
        }
        let Some(body) = behind.get_mut(..length) else { return Ok(None) };
        // RFC 8446, 5.3: a peer that has let it come to this has to have updated its key.
        let next = self.sequence.checked_add(1).ok_or(Fault::Exhausted)?;
        let key = match key {
            Some(key) => key,
            None => key.insert(self.keys.expanded(suite)?),
        };
        // RFC 8446, 5.2: what was received as its header is authenticated, version included.
        let inner = key
            .open_in_place(self.keys.nonce(self.sequence), Aad::from(header), body)
            .map_err(|_| Fault::Refused(Alert::BadRecordMac))?;
        self.sequence = next;
        let meaning = self.meaning(suite, inner, room, asked)?;
        Ok(Some((HEADER_BYTES + length, meaning)))
    }

    /// Takes what was protected apart (RFC 8446, 5.2 and 5.4).
    fn meaning(
        &mut self,
        suite: Suite,
        inner: &[u8],
        room: &mut [u8],
        asked: &mut bool,
    ) -> Result<Meaning, Fault> {
        // RFC 8446, 5.4: padding must not make it longer than the longest content and its type.
        if inner.len() > PLAIN_BYTES_MAX + 1 {
            return Err(Fault::Refused(Alert::RecordOverflow));
        }
        // RFC 8446, 5.4: the last byte that isn't zero is the type, and without any it is no record.
        let Some((&kind, content)) = unpadded(inner).split_last() else {
            return Err(Fault::Refused(Alert::UnexpectedMessage));
        };
        // RFC 8446, 5.1: between the records of one handshake message there is no other.
        if self.begun > 0 && kind != Content::Handshake as u8 {
            return Err(Fault::Refused(Alert::UnexpectedMessage));
        }
        if !content.is_empty() {
            self.empty_in_row = 0;
        }
        match kind {
            kind if kind == Content::Data as u8 => self.data(content, room),
            kind if kind == Content::Handshake as u8 => self.handshake(suite, content, asked),
            kind if kind == Content::Alert as u8 => self.alert(content),
            // RFC 8446, 5: a protected change_cipher_spec, and whatever nobody has negotiated.
            _ => Err(Fault::Refused(Alert::UnexpectedMessage)),
        }
    }

    fn data(&mut self, content: &[u8], room: &mut [u8]) -> Result<Meaning, Fault> {
        if content.is_empty() {
            // RFC 8446, 5.1: data may be empty.
            if self.empty_in_row == EMPTY_IN_ROW_MAX {
                return Err(Fault::TooMany(Alert::UnexpectedMessage));
            }
            self.empty_in_row += 1;
            return Ok(Meaning::Nothing);
        }
        self.updates_in_row = 0;
        // It is shorter than the record that it came in, for which there is room.
        let room = room.get_mut(..content.len()).ok_or(Fault::Internal)?;
        room.copy_from_slice(content);
        Ok(Meaning::Data(content.len()))
    }

    /// RFC 8446, 6.1 and 6.2. The level is ignored, as 6 allows: what an alert is follows from its description.
    fn alert(&mut self, content: &[u8]) -> Result<Meaning, Fault> {
        let description = match *content {
            // RFC 8446, 5.4: none without content.
            [] => return Err(Fault::Refused(Alert::UnexpectedMessage)),
            [_, description] => description,
            // RFC 8446, 5.1: one alert in a record, and a whole one.
            _ => return Err(Fault::Refused(Alert::DecodeError)),
        };
        if description == Alert::CloseNotify as u8 {
            return Ok(Meaning::Closed);
        }
        if description != Alert::UserCanceled as u8 {
            // RFC 8446, 6.2: these and unknown ones end the connection, and are not answered.
            return Err(Fault::Peer(description));
        }
        // RFC 8446, 6.1: close_notify ought to follow.
        if self.cancels == CANCELS_MAX {
            return Err(Fault::TooMany(Alert::UnexpectedMessage));
        }
        self.cancels += 1;
        Ok(Meaning::Nothing)
    }

    /// Reads a KeyUpdate (RFC 8446, 4.6.3): type, three bytes of length, one of content. It may be split over records as
    /// any handshake message, so each byte is judged by itself.
    fn handshake(&mut self, suite: Suite, content: &[u8], asked: &mut bool) -> Result<Meaning, Fault> {
        // RFC 8446, 5.1 and 5.4: no records of handshake messages without content.
        if content.is_empty() {
            return Err(Fault::Refused(Alert::UnexpectedMessage));
        }
        let mut bytes = content.iter();
        while let Some(&byte) = bytes.next() {
            match (self.begun, byte) {
                (0, KEY_UPDATE) | (1 | 2, 0) | (3, 1) => self.begun += 1,
                // RFC 8446, 4: nothing else is due from a client. 4.1.2: no second ClientHello.
                (0, _) => return Err(Fault::Refused(Alert::UnexpectedMessage)),
                (1..=3, _) => return Err(Fault::Refused(Alert::DecodeError)),
                (_, wanted @ (0 | 1)) => {
                    // RFC 8446, 5.1: a message in front of a key change ends where its record does.
                    if !bytes.as_slice().is_empty() {
                        return Err(Fault::Refused(Alert::UnexpectedMessage));
                    }
                    if self.updates_in_row == UPDATES_IN_ROW_MAX {
                        return Err(Fault::TooMany(Alert::UnexpectedMessage));
                    }
                    self.begun = 0;
                    self.updates_in_row += 1;
                    self.keys.update(suite)?;
                    // RFC 8446, 5.3: each key begins at zero.
                    self.sequence = 0;
                    // RFC 8446, 4.6.3: several requests may be answered once.
                    *asked |= wanted == 1;
                    return Ok(Meaning::Updated);
                }
                // RFC 8446, 4.6.3.
                _ => return Err(Fault::Refused(Alert::IllegalParameter)),
            }
        }
        Ok(Meaning::Nothing)
    }
}

/// Without the zeroes at its end (RFC 8446, 5.4): sixteen at a time, for Java sends so many with each record, and others
/// may send thousands.
fn unpadded(mut inner: &[u8]) -> &[u8] {
    while let Some((rest, last)) = inner.split_last_chunk::<16>()
        && u128::from_ne_bytes(*last) == 0
    {
        inner = rest;
    }
    while let [rest @ .., 0] = inner {
        inner = rest;
    }
    inner
}

const _: () = assert!(
    CIPHER_BYTES_MAX > PLAIN_BYTES_MAX + 1 + TAG_BYTES,
    "padding may be longer than a record may hold"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_stripped_whatever_its_length() {
        for zeroes in (0..70).chain([16_300]) {
            for content in [&b""[..], b"x", b"0123456789abcdef", b"\0\0a"] {
                let mut inner = content.to_vec();
                inner.resize(content.len() + zeroes, 0);
                assert_eq!(unpadded(&inner), content, "{zeroes}");
            }
        }
    }
}
