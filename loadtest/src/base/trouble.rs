//! What goes wrong with a connection, by name. The names are stable: they stand in result files.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Why a connection could not be opened, or was lost afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trouble {
    /// ECONNREFUSED: nobody listens.
    ConnectRefused,
    /// No 101 within the connect timeout, or ETIMEDOUT.
    ConnectTimeout,
    /// EMFILE or ENFILE: the generator's own descriptor limit.
    GeneratorDescriptors,
    /// EADDRNOTAVAIL: the generator's source addresses have no free port, or are not its own.
    GeneratorPorts,
    /// ENETUNREACH, EHOSTUNREACH and the like.
    Unreachable,
    /// Ended in order before the upgrade was answered.
    ConnectClosed,
    /// Reset before the upgrade was answered.
    ConnectReset,
    /// The answer had this status instead of 101.
    UpgradeRefused(u16),
    /// A request for an event stream or a poll was answered with this status.
    Answered(u16),
    /// The answer is no event stream.
    AnsweredNoEvents,
    /// A message of the greeting said no.
    AwaitRefused,
    /// Closed before the message of `--await` had come.
    AwaitClosed,
    /// The message of `--await` did not come within the connect timeout.
    AwaitTimeout,
    /// The certificate is signed by nobody that is trusted.
    TlsUnknownIssuer,
    /// The certificate is an authority's own.
    TlsAuthority,
    /// The certificate is for other names.
    TlsWrongName,
    /// The certificate has expired.
    TlsExpired,
    /// The certificate is not valid yet.
    TlsNotYetValid,
    /// The certificate was refused for another reason.
    TlsCertificate,
    /// What answered a TLS handshake does not speak TLS.
    TlsNotSpoken,
    /// No common version or cipher.
    TlsIncompatible,
    /// The server refused the handshake with an alert.
    TlsRefused,
    /// The server broke the TLS protocol during the handshake.
    TlsProtocol,
    /// Closed or reset during the TLS handshake.
    TlsClosed,
    /// The TLS handshake did not end within the connect timeout.
    TlsTimeout,
    /// TLS answered a plain upgrade request.
    ServerSpeaksTls,
    /// Compression was offered and not accepted, or not as offered.
    UpgradeNotDeflated,
    /// The answer was not HTTP.
    NotHttp,
    /// A 101 that does not upgrade to WebSocket.
    UpgradeNotWebsocket,
    /// A 101 with the accept value of another key.
    UpgradeWrongAccept,
    /// A 101 without an accept value.
    UpgradeWithoutAccept,
    /// A 101 that chooses a subprotocol that was not offered.
    UpgradeSubprotocol,
    /// A 101 that uses an extension that was not offered.
    UpgradeExtension,
    /// An answer whose head is larger than any that is reasonable.
    UpgradeTooLarge,
    /// Another error while connecting.
    ConnectOther,
    /// An open connection ended without a close frame, or within a body that has an end.
    LostEof,
    /// The server ended an event stream in order.
    LostEnd,
    /// The server answered a poll and does not keep the connection: the next one needs another, which is no loss.
    PolledLast,
    /// An open connection was closed by the server with a close frame.
    LostClose,
    /// An open connection was reset.
    LostReset,
    /// The server broke the protocol.
    LostProtocol,
    /// An open connection broke the TLS protocol, or was ended by a TLS alert.
    LostTls,
    /// An open connection of TLS ended without a close_notify, so that what came may be cut off.
    LostTruncated,
}

impl Trouble {
    /// Stable name, used in the progress line and the result file.
    pub(crate) fn name(self) -> String {
        let name = match self {
            Self::UpgradeRefused(status) => return format!("upgrade_status_{status}"),
            Self::Answered(status) => return format!("answer_status_{status}"),
            Self::AnsweredNoEvents => "answer_no_event_stream",
            Self::ConnectRefused => "connect_refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::GeneratorDescriptors => "generator_descriptors",
            Self::GeneratorPorts => "generator_ports",
            Self::Unreachable => "unreachable",
            Self::ConnectClosed => "connect_closed",
            Self::ConnectReset => "connect_reset",
            Self::AwaitRefused => "await_refused",
            Self::AwaitClosed => "await_closed",
            Self::AwaitTimeout => "await_timeout",
            Self::TlsUnknownIssuer => "tls_unknown_issuer",
            Self::TlsAuthority => "tls_authority_as_server",
            Self::TlsWrongName => "tls_wrong_name",
            Self::TlsExpired => "tls_expired",
            Self::TlsNotYetValid => "tls_not_yet_valid",
            Self::TlsCertificate => "tls_certificate",
            Self::TlsNotSpoken => "tls_not_spoken",
            Self::TlsIncompatible => "tls_incompatible",
            Self::TlsRefused => "tls_refused",
            Self::TlsProtocol => "tls_protocol_error",
            Self::TlsClosed => "tls_closed",
            Self::TlsTimeout => "tls_timeout",
            Self::ServerSpeaksTls => "server_speaks_tls",
            Self::NotHttp => "upgrade_not_http",
            Self::UpgradeNotWebsocket => "upgrade_not_websocket",
            Self::UpgradeWrongAccept => "upgrade_wrong_accept",
            Self::UpgradeWithoutAccept => "upgrade_without_accept",
            Self::UpgradeSubprotocol => "upgrade_unoffered_subprotocol",
            Self::UpgradeExtension => "upgrade_unoffered_extension",
            Self::UpgradeTooLarge => "upgrade_answer_too_large",
            Self::UpgradeNotDeflated => "upgrade_without_deflate",
            Self::ConnectOther => "connect_other",
            Self::LostEof => "lost_eof",
            Self::LostEnd => "lost_end_of_stream",
            Self::PolledLast => "polled_last",
            Self::LostClose => "lost_close_frame",
            Self::LostReset => "lost_reset",
            Self::LostProtocol => "lost_protocol_error",
            Self::LostTls => "lost_tls_error",
            Self::LostTruncated => "lost_without_close_notify",
        };
        name.to_owned()
    }

    /// The kind of an error that happened before the connection was open.
    pub(crate) fn of_connect(error: &std::io::Error) -> Self {
        use std::io::ErrorKind as K;
        // EMFILE and ENFILE have no stable kind in the standard library; the numbers are Linux's on
        // every architecture.
        if matches!(error.raw_os_error(), Some(23 | 24)) {
            return Self::GeneratorDescriptors;
        }
        match error.kind() {
            K::ConnectionRefused => Self::ConnectRefused,
            K::TimedOut => Self::ConnectTimeout,
            K::AddrNotAvailable | K::AddrInUse => Self::GeneratorPorts,
            K::NetworkUnreachable | K::HostUnreachable | K::NetworkDown => Self::Unreachable,
            K::ConnectionReset | K::ConnectionAborted | K::BrokenPipe => Self::ConnectReset,
            _ => Self::ConnectOther,
        }
    }
}

/// What the first connection with each trouble was told, such as where a redirect leads.
#[derive(Debug, Default)]
pub(crate) struct Details {
    known: Mutex<BTreeMap<Trouble, String>>,
}

impl Details {
    /// Remembers it, unless there is one already.
    pub(crate) fn note(&self, trouble: Trouble, detail: impl FnOnce() -> Option<String>) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.contains_key(&trouble)
            && let Some(detail) = detail()
        {
            known.insert(trouble, detail);
        }
    }

    /// What was noted of a trouble.
    pub(crate) fn of(&self, trouble: Trouble) -> Option<String> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(&trouble).cloned()
    }
}
