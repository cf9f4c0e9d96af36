//! What a peer can do wrong below the bytes that a connection sees. Pure data.

/// Why a peer's certificate was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unaccepted {
    /// It has shown none.
    Missing,
    /// No authority that is trusted has signed it.
    Untrusted,
    /// It has expired, or is not valid yet.
    Expired,
    /// Its authority has taken it back.
    Revoked,
    /// Anything else: a purpose that is not a client's, a wrong signature.
    Invalid,
}

/// Why a layer above the kernel gave a connection up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// HTTP where TLS is spoken. The stream is a plain one from here on, so that it can be said in the peer's words.
    PlainHttp,
    /// The first bytes are no TLS.
    NotTls,
    /// Neither version, suites nor groups in common.
    Incompatible,
    /// The client insists on another protocol than HTTP/1.1 (RFC 7301, 3.2).
    Protocol,
    /// There is no certificate for what the client asks for.
    NoCertificate,
    /// The peer ended the handshake with this alert (RFC 8446, 6.2): mostly it does not trust the certificate.
    Refused(u8),
    /// The peer's certificate was not taken, or there was none where there has to be one.
    Client(Unaccepted),
    /// A rule of the handshake was broken.
    Handshake,
    /// A record of an open connection was wrong, or came when it may not.
    Record,
    /// The peer ended an open connection with this alert.
    Alert(u8),
    /// The keys have sealed as much as they may.
    Exhausted,
}
