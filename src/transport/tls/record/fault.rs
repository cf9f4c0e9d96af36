//! Why a connection ends in the record layer, and what the peer is told of it.
//!
//! Owns the alerts that are sent. Driven by opening and sealing. Decides nothing.

/// The descriptions that this side sends or tells apart (RFC 8446, 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Alert {
    /// The sender will send nothing more.
    CloseNotify = 0,
    /// A message that may not come here, or not in this form.
    UnexpectedMessage = 10,
    /// A record that can't be deprotected.
    BadRecordMac = 20,
    /// A record that is longer than any may be.
    RecordOverflow = 22,
    /// A field with a value that it can't have.
    IllegalParameter = 47,
    /// A message whose length is wrong.
    DecodeError = 50,
    /// Something failed on this side.
    InternalError = 80,
    /// The sender gives up for a reason that is no fault; close_notify follows.
    UserCanceled = 90,
}

/// Why nothing more can be opened or sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The peer broke a rule, and was told by this alert.
    Refused(Alert),
    /// The peer sends more that means nothing than anybody has a reason to, and was told by this alert.
    TooMany(Alert),
    /// The peer ended the connection with this alert (RFC 8446, 6.2: nothing is answered).
    Peer(u8),
    /// The key may not be used again (RFC 8446, 5.3 and 5.5).
    Exhausted,
    /// The cryptography failed, which it has no way to with keys of the right length.
    Internal,
}

impl Fault {
    /// What the peer is told.
    #[must_use]
    pub fn alert(self) -> Option<Alert> {
        match self {
            Self::Refused(alert) | Self::TooMany(alert) => Some(alert),
            Self::Exhausted | Self::Internal => Some(Alert::InternalError),
            Self::Peer(_) => None,
        }
    }
}
