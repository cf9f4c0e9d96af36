//! What a failed handshake is called, and what to do about it. Pure.

use std::io;

use rustls::{CertificateError, Error, InvalidMessage};

use crate::base::trouble::Trouble;

/// The library's error inside of an I/O error, if that is what it is.
pub(super) fn inner(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// The kind of a failed handshake.
pub(super) fn of(error: &Error) -> Trouble {
    match error {
        Error::InvalidCertificate(error) => of_certificate(error),
        // The first byte of what came is none of a TLS record.
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => Trouble::TlsNotSpoken,
        Error::InvalidMessage(InvalidMessage::UnknownProtocolVersion) => Trouble::TlsNotSpoken,
        Error::PeerIncompatible(_) | Error::NoApplicationProtocol => Trouble::TlsIncompatible,
        Error::AlertReceived(_) => Trouble::TlsRefused,
        _ => Trouble::TlsProtocol,
    }
}

fn of_certificate(error: &CertificateError) -> Trouble {
    use CertificateError as E;
    match error {
        E::UnknownIssuer => Trouble::TlsUnknownIssuer,
        E::Expired | E::ExpiredContext { .. } => Trouble::TlsExpired,
        E::NotValidYet | E::NotValidYetContext { .. } => Trouble::TlsNotYetValid,
        E::NotValidForName | E::NotValidForNameContext { .. } => Trouble::TlsWrongName,
        // The verifier has no kind of its own for it.
        E::Other(error) if error.to_string().contains("CaUsedAsEndEntity") => Trouble::TlsAuthority,
        _ => Trouble::TlsCertificate,
    }
}

/// What a reader should do about a trouble, where that is not plain from its name. `secure` says whether TLS was spoken.
pub(crate) fn hint(trouble: Trouble, secure: bool) -> Option<&'static str> {
    Some(match trouble {
        Trouble::TlsUnknownIssuer => {
            "no trusted authority signed the certificate: name the authority's with --ca FILE, or use --insecure"
        }
        Trouble::TlsAuthority => {
            "the certificate is an authority's own (CA:TRUE, as `openssl req -x509` makes them) and can't be a \
             server's: make one with CA:FALSE, or use --insecure"
        }
        Trouble::TlsWrongName => {
            "the certificate is for other names: use one of them in the URL, or --insecure"
        }
        Trouble::TlsExpired => {
            "the certificate has expired: renew it, check this machine's clock, or use --insecure"
        }
        Trouble::TlsNotYetValid => {
            "the certificate is not valid yet: check this machine's clock, or use --insecure"
        }
        Trouble::TlsCertificate => "the certificate was refused; --insecure skips the check",
        Trouble::TlsNotSpoken => {
            "what answers there does not speak TLS: use ws:// or http://, or another port"
        }
        Trouble::TlsIncompatible => "no common version or cipher: TLS 1.2 and 1.3 are offered",
        Trouble::TlsRefused => {
            "the server refused the handshake with an alert; it may ask for a client certificate"
        }
        Trouble::TlsProtocol => "the server broke the TLS protocol",
        Trouble::TlsClosed => {
            "the server ended the connection during the handshake: does that port speak TLS?"
        }
        Trouble::TlsTimeout => "no end of the TLS handshake within ten seconds: does that port speak TLS?",
        Trouble::ServerSpeaksTls => "what answers there speaks TLS: use wss:// or https://",
        Trouble::ConnectReset | Trouble::ConnectClosed if secure => {
            "the server ended the connection between the TLS handshake and its answer: it may ask for a client certificate"
        }
        Trouble::ConnectReset | Trouble::ConnectClosed => {
            "the server ended the connection without an answer: if that port speaks TLS, use wss:// or https://"
        }
        Trouble::NotHttp => "what answers there does not speak HTTP: is it the right port?",
        Trouble::UpgradeNotWebsocket => "the server switches to something else than WebSocket",
        Trouble::UpgradeWrongAccept => {
            "the answer belongs to another request (RFC 6455 section 4.2.2): a proxy or a cache may have given an old one"
        }
        Trouble::UpgradeWithoutAccept => {
            "the 101 has no Sec-WebSocket-Accept: it is no answer of a WebSocket server"
        }
        Trouble::UpgradeSubprotocol => {
            "the server chose a subprotocol that was not offered: name it with --subprotocol"
        }
        Trouble::UpgradeExtension => {
            "the server uses an extension that was not offered, which no client may accept"
        }
        Trouble::UpgradeNotDeflated => "--deflate was asked for and the server did not agree to it",
        Trouble::UpgradeRefused(301 | 302 | 303 | 307 | 308)
        | Trouble::Answered(301 | 302 | 303 | 307 | 308) => {
            "redirects are not followed: use the URL it leads to"
        }
        Trouble::Answered(204) => "the server wants no client to come back (HTML standard, section 9.2.3)",
        Trouble::AnsweredNoEvents => {
            "the answer is no text/event-stream that is not compressed: a long poll wants --client poll"
        }
        Trouble::LostEnd => "the server ended the stream in order: a client that comes back needs --resume",
        Trouble::Answered(400) => "the server does not understand the request: see --trace 1",
        Trouble::UpgradeRefused(401 | 403) | Trouble::Answered(401 | 403) => {
            "the server wants to know who it is: see --header and --vars"
        }
        Trouble::UpgradeRefused(_) => "the server refused the upgrade",
        Trouble::Answered(_) => "the server refused the request",
        Trouble::AwaitRefused => "the server said no in the greeting",
        Trouble::AwaitTimeout | Trouble::AwaitClosed => "the awaited message did not come: see --trace 1",
        Trouble::GeneratorPorts => "no free port at this end: name more addresses with --source",
        Trouble::LostTruncated => "the server ended the connection without a TLS close_notify",
        _ => return None,
    })
}

/// An error of a blocking connection with what to do about it.
pub(crate) fn explained(error: io::Error) -> io::Error {
    let Some(inner) = inner(&error) else { return error };
    let advice = hint(of(inner), true).unwrap_or_default();
    io::Error::new(error.kind(), format!("{inner}; {advice}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_of_a_handshake_has_its_name_and_its_advice() {
        use CertificateError as E;
        let certificate = |error| of(&Error::InvalidCertificate(error));
        for (trouble, name, advice) in [
            (certificate(E::UnknownIssuer), "tls_unknown_issuer", "--ca"),
            (certificate(E::Expired), "tls_expired", "clock"),
            (certificate(E::NotValidYet), "tls_not_yet_valid", "clock"),
            (certificate(E::NotValidForName), "tls_wrong_name", "other names"),
            (certificate(E::BadSignature), "tls_certificate", "--insecure"),
            (of(&InvalidMessage::InvalidContentType.into()), "tls_not_spoken", "ws://"),
            (of(&Error::AlertReceived(rustls::AlertDescription::HandshakeFailure)), "tls_refused", "alert"),
            (of(&Error::DecryptError), "tls_protocol_error", "broke"),
        ] {
            assert_eq!(trouble.name(), name);
            assert!(hint(trouble, true).unwrap().contains(advice), "{name}");
        }
        assert_eq!(hint(Trouble::ConnectRefused, true), None);
        assert!(hint(Trouble::ConnectReset, false).unwrap().contains("wss://"));
        assert!(hint(Trouble::ConnectReset, true).unwrap().contains("client certificate"));
    }

    #[test]
    fn other_errors_stay_as_they_are() {
        let refused = explained(io::ErrorKind::ConnectionRefused.into());
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        assert!(inner(&refused).is_none());
    }
}
