//! What a failed handshake or record is called, and what to do about it. Pure.

use rustls::pki_types::CertificateDer;
use rustls::{AlertDescription, CertificateError, Error, InvalidMessage};
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// Characters of a name that a server chose.
const NAME_CHARS_MAX: usize = 120;

/// Names of a certificate that are told.
const NAMES_MAX: usize = 8;

/// One line for `error`, which a server for `name` is at fault for, or the client. `chain` is what it showed;
/// `identified`: the client has a certificate to show.
pub(super) fn explain(
    error: &Error,
    name: &str,
    chain: &[CertificateDer<'static>],
    identified: bool,
) -> String {
    match error {
        Error::InvalidCertificate(error) => of_certificate(error, name, chain),
        // The first bytes of what came are none of a TLS record.
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => {
            "what answers there does not speak TLS: use ws:// or http://, or the server's TLS port".to_owned()
        }
        Error::PeerIncompatible(_) => {
            format!("no common version or cipher, TLS 1.2 and 1.3 are offered ({error})")
        }
        Error::NoApplicationProtocol | Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            "the server does not speak HTTP/1.1 there (ALPN)".to_owned()
        }
        Error::AlertReceived(alert) => of_alert(*alert, name, identified),
        _ => format!("the server broke the TLS protocol: {error}"),
    }
}

/// Whether another attempt may end otherwise.
pub(in crate::client) fn is_passing(error: &Error) -> bool {
    matches!(error, Error::AlertReceived(AlertDescription::InternalError | AlertDescription::UserCanceled))
}

fn of_alert(alert: AlertDescription, name: &str, identified: bool) -> String {
    use AlertDescription as A;
    let why = match alert {
        A::CertificateRequired => {
            "the server wants a certificate of the client: name one with --certificate FILE and --key FILE"
        }
        A::UnknownCA if identified => "the server does not trust the issuer of --certificate",
        A::CertificateExpired if identified => "the server says that --certificate has expired",
        A::AccessDenied | A::CertificateRevoked | A::CertificateUnknown | A::BadCertificate if identified => {
            "the server does not accept --certificate"
        }
        A::HandshakeFailure | A::BadCertificate if !identified => {
            "the server refused the handshake; it may want a certificate of the client (--certificate FILE, --key FILE) \
             or other versions and ciphers"
        }
        A::UnrecognisedName => {
            return format!(
                "the server has no certificate for {}: use a name that it has, or see --server-name",
                short(name)
            );
        }
        A::ProtocolVersion => "the server speaks no version of TLS that is safe: 1.2 and 1.3 are offered",
        _ => "the server refused the handshake",
    };
    format!("{why} (alert {alert:?})")
}

fn of_certificate(error: &CertificateError, name: &str, chain: &[CertificateDer<'static>]) -> String {
    use CertificateError as E;
    let parsed = chain.first().and_then(|der| Certificate::from_der(der).ok());
    let subject = |of: &Certificate| short(&of.tbs_certificate.subject.to_string());
    let whose = parsed.as_ref().map(|own| format!(" of {}", subject(own))).unwrap_or_default();
    match error {
        E::UnknownIssuer => unknown_issuer(parsed.as_ref(), chain.len()),
        E::Expired | E::ExpiredContext { .. } => format!(
            "the server's certificate{whose} has expired{}: it has to be renewed, unless the clock here is wrong",
            expired_at(chain)
        ),
        E::NotValidYet | E::NotValidYetContext { .. } => {
            let from = parsed.as_ref().map(|own| own.tbs_certificate.validity.not_before);
            let from = from.map(|time| format!(" before {time}")).unwrap_or_default();
            format!("the server's certificate{whose} is not valid{from}: is the clock here right?")
        }
        E::NotValidForNameContext { presented, .. } => {
            let told: Vec<String> = presented.iter().take(NAMES_MAX).map(|name| bare(name)).collect();
            let more = if presented.len() > told.len() { " and more" } else { "" };
            let names = if told.is_empty() { "no name at all".to_owned() } else { told.join(", ") };
            format!(
                "the server's certificate is not for {}, but for {names}{more}: connect to such a name, or say with \
                 --server-name which one is meant",
                short(name)
            )
        }
        E::NotValidForName => format!("the server's certificate is not for {}", short(name)),
        E::InvalidPurpose | E::InvalidPurposeContext { .. } => {
            format!("the server's certificate{whose} is not one for servers (extended key usage)")
        }
        // The verifier has no kind of its own for it.
        E::Other(error) if error.to_string().contains("CaUsedAsEndEntity") => format!(
            "the server's certificate{whose} is an authority's own (CA:TRUE, as `openssl req -x509` makes them) and can't \
             be a server's: it has to be one with CA:FALSE, as `fantail dev-cert` makes"
        ),
        E::BadSignature => format!("the server's certificate{whose} has a wrong signature"),
        error => format!("the server's certificate{whose} is refused: {error}"),
    }
}

fn unknown_issuer(own: Option<&Certificate>, shown: usize) -> String {
    let Some(own) = own else { return "no authority that is trusted here issued the certificate".to_owned() };
    let of = &own.tbs_certificate;
    let (subject, issuer) = (short(&of.subject.to_string()), short(&of.issuer.to_string()));
    if of.subject == of.issuer {
        return format!(
            "the server's certificate ({subject}) is signed by itself: trust it with --ca FILE, or look away with \
             --insecure"
        );
    }
    let alone = if shown == 1 { "; or the server does not send the certificate of that issuer" } else { "" };
    format!(
        "the server's certificate ({subject}) was issued by {issuer}, which leads to no authority that is trusted here: \
         name that authority's file with --ca FILE{alone}"
    )
}

/// When the first of the chain expired that has.
fn expired_at(chain: &[CertificateDer<'static>]) -> String {
    let ends =
        |der: &CertificateDer<'_>| Some(Certificate::from_der(der).ok()?.tbs_certificate.validity.not_after);
    let first = chain.iter().filter_map(ends).min_by_key(|time| time.to_unix_duration());
    first.map(|time| format!(" at {time}")).unwrap_or_default()
}

/// `DnsName("a")` and `IpAddress(1.2.3.4)`, as the verifier writes them, without what is around.
fn bare(name: &str) -> String {
    let inner = name.split_once('(').map_or(name, |(_, rest)| rest.trim_end_matches(')'));
    short(inner.trim_matches('"'))
}

fn short(name: &str) -> String {
    let mut text: String = name.chars().take(NAME_CHARS_MAX).collect();
    if text.len() < name.len() {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_its_words_and_its_advice() {
        use CertificateError as E;
        let said = |error: &Error| explain(error, "a.example", &[], false);
        let certificate = |error| said(&Error::InvalidCertificate(error));
        for (said, part) in [
            (certificate(E::UnknownIssuer), "trusted"),
            (certificate(E::Expired), "renewed"),
            (certificate(E::NotValidYet), "clock"),
            (certificate(E::NotValidForName), "a.example"),
            (certificate(E::BadSignature), "signature"),
            (certificate(E::Revoked), "refused"),
            (said(&InvalidMessage::InvalidContentType.into()), "does not speak TLS"),
            (said(&Error::AlertReceived(AlertDescription::CertificateRequired)), "--certificate FILE"),
            (said(&Error::AlertReceived(AlertDescription::HandshakeFailure)), "--certificate FILE"),
            (said(&Error::AlertReceived(AlertDescription::UnrecognisedName)), "--server-name"),
            (said(&Error::DecryptError), "broke"),
        ] {
            assert!(said.contains(part), "{said}");
        }
        let identified = explain(&Error::AlertReceived(AlertDescription::UnknownCA), "a", &[], true);
        assert!(identified.contains("--certificate"), "{identified}");
        assert!(is_passing(&Error::AlertReceived(AlertDescription::InternalError)));
        assert!(!is_passing(&Error::AlertReceived(AlertDescription::UnknownCA)));
    }

    #[test]
    fn what_a_server_calls_itself_is_cut() {
        assert_eq!(short(&"x".repeat(1_000)).chars().count(), NAME_CHARS_MAX + 1);
        assert_eq!(bare("DnsName(\"a.example\")"), "a.example");
        assert_eq!(bare("IpAddress(127.0.0.1)"), "127.0.0.1");
    }
}
