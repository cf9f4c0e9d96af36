//! One connection's TLS as rustls speaks it: a handshake, then records, without a socket and without buffers of its own.
//!
//! Driven by [`super::drive`], which gives it ciphertext and takes what it wants sent. rustls' unbuffered form is used,
//! because an idle connection then has no buffers: 3.5 KB instead of 7.6 KB. Never moves a byte to or from the kernel.

use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{
    ConnectionState, EncodeError, EncryptError, InsufficientSizeError, UnbufferedStatus,
};
use rustls::{CertificateError, Error, ExtractedSecrets, HandshakeKind, ProtocolVersion, ServerConfig};

use super::super::Fault;
use super::super::fault::Unaccepted;
use super::clients::subject_of;
use super::record::{TrafficSecrets, take_last};
use super::{HANDSHAKE_BYTES_MAX, Opened, copy};

/// Beside its plaintext a record has a header, a type, a tag, and before TLS 1.3 a nonce; a KeyUpdate may go before it.
const RECORD_OVERHEAD: usize = 128;

/// Answers to one piece of ciphertext: more are made of no input.
const ANSWERS_MAX: usize = 64;

/// Alerts (RFC 8446, 6.2) for what rustls has none for.
const UNEXPECTED_MESSAGE: u8 = 10;
pub(super) const DECODE_ERROR: u8 = 50;

/// The TLS of one connection.
pub(super) struct Session {
    connection: UnbufferedServerConnection,
    /// Whether it is to be left once the handshake is done.
    lean: bool,
    /// What the keys behind the handshake are made of: of TLS 1.3, and only if it is to be left.
    traffic: Option<Box<TrafficSecrets>>,
    /// Where the last record ends that rustls was shown, of what it has not let go: as long as it shakes hands and is to be
    /// left. Bytes in front may be messages that it has moved together, headers overwritten.
    looked: usize,
    /// Something was answered, and what follows may have to be sealed.
    answered: bool,
}

/// What a handshake came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Agreed {
    /// TLS 1.3, not 1.2.
    pub(super) is_tls13: bool,
    /// An earlier session was taken up.
    pub(super) resumed: bool,
}

impl Session {
    /// A connection whose peer has said nothing.
    ///
    /// # Errors
    /// The configuration does not fit.
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, Error> {
        let lean = config.enable_secret_extraction;
        Ok(Self {
            connection: UnbufferedServerConnection::new(config)?,
            lean,
            traffic: None,
            looked: 0,
            answered: false,
        })
    }

    /// What was agreed; `None` while the handshake is under way.
    pub(super) fn agreed(&self) -> Option<Agreed> {
        if self.connection.is_handshaking() {
            return None;
        }
        let is_tls13 = self.connection.protocol_version() == Some(ProtocolVersion::TLSv1_3);
        let resumed = self.connection.handshake_kind() == Some(HandshakeKind::Resumed);
        Some(Agreed { is_tls13, resumed })
    }

    /// Whether a ClientHello was answered.
    pub(super) fn is_answered(&self) -> bool {
        self.connection.protocol_version().is_some()
    }

    /// Whom the certificate names that the peer has shown, once the handshake is done.
    pub(super) fn subject(&self) -> Option<Box<str>> {
        subject_of(self.connection.peer_certificates()?.first()?)
    }

    /// Whether its handshake is done, and others are to go on with it.
    pub(super) fn leaves(&self) -> bool {
        self.traffic.is_some() && !self.connection.is_handshaking()
    }

    /// What others need to go on with it.
    pub(super) fn leave(self) -> Option<(ExtractedSecrets, Box<TrafficSecrets>)> {
        // What rustls would keep for KeyUpdates (900 bytes) is not needed: they follow from `traffic`.
        let (secrets, _) = self.connection.dangerous_into_kernel_connection().ok()?;
        Some((secrets, self.traffic?))
    }

    /// Opens every whole record of `cipher` into `plain`, which is at least as large; what is to be answered goes
    /// to `out`, the alert behind a fault, too.
    pub(super) fn open(&mut self, mut cipher: &mut [u8], plain: &mut [u8], out: &mut Vec<u8>) -> Opened {
        let mut opened = Opened::default();
        let was_handshaking = self.connection.is_handshaking();
        // Whoever goes on behind the handshake goes on right behind it: a KeyUpdate there would have changed the keys. So
        // rustls is shown no more than a record at a time until then, and never less than before.
        let (mut next, mut shown) = self.next_piece(cipher);
        loop {
            let piece = cipher.get_mut(..shown).unwrap_or_default();
            let UnbufferedStatus { mut discard, state } = self.connection.process_tls_records(piece);
            let mut ended = false;
            match state {
                Ok(ConnectionState::ReadTraffic(mut traffic)) => {
                    while let Some(record) = traffic.next_record() {
                        let Ok(record) = record else {
                            return Opened { fault: Some(Fault::Record), ..opened };
                        };
                        discard += record.discard;
                        let into = plain.get_mut(opened.plain..).unwrap_or_default();
                        opened.plain += copy(record.payload, into);
                    }
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    self.answered |= append(out, 0, |into| data.encode(into).map_err(TooSmall::from));
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => {
                    opened.closed = true;
                    ended = true;
                }
                Ok(ConnectionState::WriteTraffic(_) | ConnectionState::BlockedHandshake) => ended = true,
                // Early data is off, and no other state is known.
                Ok(_) => return Opened { fault: Some(Fault::Handshake), ..opened },
                Err(error) => {
                    self.say_last(out);
                    match &error {
                        // RFC 8446, 6.2: an alert is not answered.
                        Error::AlertReceived(_) => {}
                        // RFC 8446, 4.1.2 and 5.1: nothing may stand between the parts of a message, or behind a last one.
                        Error::PeerMisbehaved(_) => self.refuse_first(UNEXPECTED_MESSAGE, out),
                        _ => self.refuse_first(DECODE_ERROR, out),
                    }
                    return Opened { fault: Some(fault_of(&error, was_handshaking)), ..opened };
                }
            }
            opened.used += discard;
            cipher = cipher.get_mut(discard..).unwrap_or_default();
            shown = shown.saturating_sub(discard);
            self.looked = self.looked.saturating_sub(discard);
            if self.lean {
                self.traffic = take_last().or(self.traffic.take());
            }
            if ended {
                if next.is_some() {
                    self.looked = shown;
                }
                let before = shown;
                (next, shown) = self.next_piece(cipher);
                // Nothing is left, or nothing that it may be shown.
                if self.leaves() || opened.closed || shown <= before {
                    return opened;
                }
            }
        }
    }

    /// How much of `cipher` rustls is shown next, and whether that ends with a record: at most a flight while it shakes hands,
    /// because with certificates of clients it keeps all that was said until then. What is left is too long.
    fn next_piece(&self, cipher: &[u8]) -> (Option<usize>, usize) {
        if !self.connection.is_handshaking() {
            return (None, cipher.len());
        }
        let next = if self.lean { next_end(cipher, self.looked) } else { None };
        let next = next.filter(|end| *end <= HANDSHAKE_BYTES_MAX);
        (next, next.unwrap_or(cipher.len()).min(HANDSHAKE_BYTES_MAX))
    }

    /// An alert of this description, if nothing was answered yet: then it is not sealed, and rustls has none for some of
    /// what may be wrong with a first flight (RFC 8446, 6.2: the peer should be told).
    pub(super) fn refuse_first(&mut self, description: u8, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.answered, true) {
            out.extend_from_slice(&[21, 3, 3, 0, 2, 2, description]);
        }
    }

    /// Seals `bytes`, which fit one record, to the end of `out`. `held` is what [`Self::open`] has left of the ciphertext, which
    /// rustls wants to see again each time: it remembers how far it has looked, and panics behind the end of less.
    ///
    /// # Errors
    /// It may not, or not any more.
    pub(super) fn seal(&mut self, held: &mut [u8], bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Fault> {
        for _ in 0..ANSWERS_MAX {
            let UnbufferedStatus { state, .. } = self.connection.process_tls_records(held);
            match state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    let begun = append(out, bytes.len() + RECORD_OVERHEAD, |into| {
                        traffic.encrypt(bytes, into).map_err(TooSmall::from)
                    });
                    return if begun { Ok(()) } else { Err(Fault::Exhausted) };
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    append(out, 0, |into| data.encode(into).map_err(TooSmall::from));
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => {}
                _ => break,
            }
        }
        Err(Fault::Handshake)
    }

    /// Says that nothing more will come from this side, at the end of `out`. Nothing while the handshake is under way.
    /// `held` is as for [`Self::seal`].
    pub(super) fn say_close(&mut self, held: &mut [u8], out: &mut Vec<u8>) {
        for _ in 0..ANSWERS_MAX {
            let UnbufferedStatus { state, .. } = self.connection.process_tls_records(held);
            match state {
                Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                    append(out, RECORD_OVERHEAD, |into| {
                        traffic.queue_close_notify(into).map_err(TooSmall::from)
                    });
                    return;
                }
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    append(out, 0, |into| data.encode(into).map_err(TooSmall::from));
                }
                Ok(ConnectionState::TransmitTlsData(data)) => data.done(),
                Ok(ConnectionState::PeerClosed) => {}
                _ => return,
            }
        }
    }

    /// The alert that rustls has for what it met, if it has one. It is asked for nothing else: messages may be left that it has
    /// found and not looked at.
    fn say_last(&mut self, out: &mut Vec<u8>) {
        for _ in 0..ANSWERS_MAX {
            if !self.connection.wants_write() {
                return;
            }
            let UnbufferedStatus { state, .. } = self.connection.process_tls_records(&mut []);
            match state {
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    self.answered |= append(out, 0, |into| data.encode(into).map_err(TooSmall::from));
                }
                _ => return,
            }
        }
    }
}

/// The end of the record that begins at `from`; `None` if it is not whole: what is half there changes nothing.
fn next_end(cipher: &[u8], from: usize) -> Option<usize> {
    // RFC 8446, 5.1: a header of five bytes, whose last two are the length of what follows.
    let &[_, _, _, high, low] = cipher.get(from..)?.first_chunk::<5>()?;
    let end = from + 5 + usize::from(u16::from_be_bytes([high, low]));
    (end <= cipher.len()).then_some(end)
}

/// Why something was not written: for want of so many bytes, or at all.
struct TooSmall(Option<usize>);

impl From<EncodeError> for TooSmall {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::InsufficientSize(InsufficientSizeError { required_size }) => {
                Self(Some(required_size))
            }
            EncodeError::AlreadyEncoded => Self(None),
        }
    }
}

impl From<EncryptError> for TooSmall {
    fn from(error: EncryptError) -> Self {
        match error {
            EncryptError::InsufficientSize(InsufficientSizeError { required_size }) => {
                Self(Some(required_size))
            }
            EncryptError::EncryptExhausted => Self(None),
        }
    }
}

/// Appends what `write` makes, which is told again with more room if `room` is too little. Whether it made anything.
fn append(
    out: &mut Vec<u8>,
    room: usize,
    mut write: impl FnMut(&mut [u8]) -> Result<usize, TooSmall>,
) -> bool {
    let begun = out.len();
    let mut room = room;
    for _ in 0..2 {
        out.resize(begun + room, 0);
        match write(out.get_mut(begun..).unwrap_or_default()) {
            Ok(count) => {
                out.truncate(begun + count);
                return true;
            }
            Err(TooSmall(Some(required))) => room = required,
            Err(TooSmall(None)) => break,
        }
    }
    out.truncate(begun);
    false
}

fn fault_of(error: &Error, handshaking: bool) -> Fault {
    match error {
        Error::AlertReceived(alert) if handshaking => Fault::Refused(u8::from(*alert)),
        Error::AlertReceived(alert) => Fault::Alert(u8::from(*alert)),
        Error::PeerIncompatible(_) => Fault::Incompatible,
        Error::NoApplicationProtocol => Fault::Protocol,
        Error::NoCertificatesPresented if handshaking => Fault::Client(Unaccepted::Missing),
        Error::InvalidCertificate(problem) if handshaking => Fault::Client(unaccepted(problem)),
        // rustls has no word of its own for it.
        Error::General(_) if handshaking => Fault::NoCertificate,
        _ if handshaking => Fault::Handshake,
        _ => Fault::Record,
    }
}

fn unaccepted(problem: &CertificateError) -> Unaccepted {
    match problem {
        CertificateError::UnknownIssuer => Unaccepted::Untrusted,
        CertificateError::Revoked => Unaccepted::Revoked,
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => Unaccepted::Expired,
        _ => Unaccepted::Invalid,
    }
}
