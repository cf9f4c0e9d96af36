//! `[tls]`: where the server speaks TLS, and as whom.

use std::net::SocketAddr;
use std::time::Duration;

use super::admin::FileName;
use super::section::{Checker, section};
use super::value::{Address, Kind, Names, RawValue, Seconds, Switch, quoted};

/// Pairs of files that a server takes.
const CERTIFICATES_MAX: usize = 1_000;

section! {
    /// Where the server speaks TLS, beside server.listen, and as whom.
    Tls ["tls"] {
        /// Address and port for clients that speak TLS 1.2 or 1.3 (https, wss); empty for none, port 0 takes a free one.
        "listen" => listen: Option<SocketAddr> as AddressOrNone = None,
        /// PEM file with the certificate, behind it those of its issuers; or a list of such files, of which each client gets
        /// the one with the name it asks for, and by default the first.
        live "certificate" => certificate: Vec<String> as FileNames = Vec::new(),
        /// PEM file with the private key, or a list in the order of the certificates; empty for keys that stand in the files
        /// of the certificates.
        live "key" => key: Vec<String> as FileNames = Vec::new(),
        /// DER file with a response of OCSP, sent with the certificate while it holds; or a list in the order of the
        /// certificates, "" for those that have none.
        live "ocsp" => ocsp: Vec<String> as FileNames = Vec::new(),
        /// PEM file with the authorities that sign certificates of clients, or a list of such files; empty: clients are asked for
        /// none.
        live "client_ca" => client_ca: Vec<String> as FileNames = Vec::new(),
        /// Whether a client without a certificate is not served; one with a certificate that is not right never is.
        live "client_required" => client_required: bool as Switch = true,
        /// PEM file with lists of revoked certificates of clients, or a list of such files.
        live "client_crl" => client_crl: Vec<String> as FileNames = Vec::new(),
        /// How often the files are looked at; they are read anew when they are others than before. 0 for never: then a reload
        /// reads them.
        live "watch_seconds" => watch: Duration as Seconds = Duration::from_secs(10),
        /// INSECURE, for debugging with Wireshark: a file to which the secrets of all connections of clients over TLS are written.
        /// Whoever reads it can read and change what they say. Empty for none; the variable SSLKEYLOGFILE does nothing.
        "insecure_key_log_file" => insecure_key_log_file: String as FileName = String::new(),
        /// Whether new connections of TLS 1.3 are kept as plain data behind their handshake: in 208 bytes, where rustls has
        /// 3,500. Those of TLS 1.2, and the operator's, are rustls' in any case.
        live "lean" => lean: bool as Switch = true,
    }
}

/// An IP address and port, or nothing.
struct AddressOrNone;

impl Kind for AddressOrNone {
    type Out = Option<SocketAddr>;
    const EXPECTS: &'static str =
        "an IP address and port such as \"127.0.0.1:8443\" or \"[::]:8443\", or \"\" for none";

    fn parse(raw: &RawValue) -> Option<Option<SocketAddr>> {
        match raw {
            RawValue::Text(text) | RawValue::String(text) if text.trim().is_empty() => Some(None),
            _ => Address::parse(raw).map(Some),
        }
    }

    fn show(value: &Option<SocketAddr>) -> String {
        value.as_ref().map_or_else(|| "\"\"".to_owned(), Address::show)
    }
}

/// The name of a file, or several.
pub(super) struct FileNames;

impl Kind for FileNames {
    type Out = Vec<String>;
    const EXPECTS: &'static str =
        "the name of a file or a list such as [\"a.pem\", \"b.pem\"], or a.pem,b.pem in the environment";

    fn parse(raw: &RawValue) -> Option<Vec<String>> {
        match raw {
            RawValue::String(text) if text.trim().is_empty() => Some(Vec::new()),
            RawValue::String(text) => Some(vec![text.clone()]),
            other => Names::parse(other),
        }
    }

    fn show(value: &Vec<String>) -> String {
        match value.as_slice() {
            [] => "\"\"".to_owned(),
            [one] => quoted(one),
            several => {
                format!("[{}]", several.iter().map(|name| quoted(name)).collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// Each certificate's file with that of its key, which may be the same.
pub(super) fn pairs_of<'a>(certificates: &'a [String], keys: &'a [String]) -> Vec<(&'a str, &'a str)> {
    let key = |place: usize| keys.get(place).or(certificates.get(place)).map(String::as_str);
    let pairs = certificates.iter().enumerate();
    pairs.filter_map(|(place, certificate)| Some((certificate.as_str(), key(place)?))).collect()
}

/// Reports certificates and keys, each with the name of its key of the configuration, that are no pairs of names.
pub(super) fn check_pairs(
    check: &mut Checker<'_>,
    (certificate, certificates): (&'static str, &[String]),
    (key, keys): (&'static str, &[String]),
) {
    if !keys.is_empty() && keys.len() != certificates.len() {
        let (keys, certificates) = (keys.len(), certificates.len());
        check.report(key, format!("expects a key for each certificate, got {keys} for {certificates}"));
    }
    check.within(certificate, certificates.len(), 0..=CERTIFICATES_MAX);
    check_names(check, certificate, certificates);
    check_names(check, key, keys);
}

/// Reports a list of names of files in which one is empty.
pub(super) fn check_names(check: &mut Checker<'_>, key: &'static str, files: &[String]) {
    if files.iter().any(String::is_empty) {
        check.report(key, "expects names of files, got an empty one".to_owned());
    }
}

impl Tls {
    /// Each certificate's file with that of its key, if TLS is spoken.
    #[must_use]
    pub fn files(&self) -> Vec<(&str, &str)> {
        if self.listen.is_none() {
            return Vec::new();
        }
        pairs_of(&self.certificate, &self.key)
    }

    /// The file with the response of OCSP for the certificate at this place of the list, if it has one.
    #[must_use]
    pub fn ocsp_of(&self, place: usize) -> Option<&str> {
        self.ocsp.get(place).map(String::as_str).filter(|file| !file.is_empty())
    }

    /// All files that are read, each once for each time that it is named.
    #[must_use]
    pub fn watched(&self) -> Vec<&str> {
        let pairs = self.files();
        if pairs.is_empty() {
            return Vec::new();
        }
        let own = pairs.into_iter().flat_map(|(certificate, key)| [certificate, key]);
        let ocsp = (0..self.ocsp.len()).filter_map(|place| self.ocsp_of(place));
        own.chain(ocsp).chain(self.client_ca.iter().chain(&self.client_crl).map(String::as_str)).collect()
    }

    fn check_values(&self, check: &mut Checker<'_>) {
        check.time("watch_seconds", self.watch, Some("never"));
        if self.listen.is_none() && !self.insecure_key_log_file.is_empty() {
            let problem = "expects tls.listen, without which there are no secrets to be written";
            check.report("insecure_key_log_file", problem.to_owned());
        }
        if self.listen.is_some() && self.certificate.is_empty() {
            check.report("certificate", "expects a file, because tls.listen is set".to_owned());
        }
        check_pairs(check, ("certificate", &self.certificate), ("key", &self.key));
        if !self.ocsp.is_empty() && self.ocsp.len() != self.certificate.len() {
            let (responses, certificates) = (self.ocsp.len(), self.certificate.len());
            let problem = format!(
                "expects a response for each certificate or \"\", got {responses} for {certificates}"
            );
            check.report("ocsp", problem);
        }
        if !self.client_crl.is_empty() && self.client_ca.is_empty() {
            check.report("client_crl", "expects tls.client_ca, without which no client is asked".to_owned());
        }
        check_names(check, "client_ca", &self.client_ca);
        check_names(check, "client_crl", &self.client_crl);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::section::Unfit;

    fn unfit(tls: &Tls) -> Vec<&'static str> {
        let mut unfit: Vec<Unfit> = Vec::new();
        tls.check_values(&mut Checker { section: "tls", unfit: &mut unfit });
        unfit.into_iter().map(|unfit| unfit.key).collect()
    }

    #[test]
    fn files_are_one_or_several_and_keys_may_stand_with_certificates() {
        let text = |text: &str| RawValue::Text(text.to_owned());
        let string = |text: &str| RawValue::String(text.to_owned());
        assert_eq!(FileNames::parse(&string("a,b.pem")).unwrap(), ["a,b.pem"]);
        assert_eq!(FileNames::parse(&text("a.pem, b.pem")).unwrap(), ["a.pem", "b.pem"]);
        assert_eq!(FileNames::parse(&RawValue::List(vec![string("a"), string("b")])).unwrap(), ["a", "b"]);
        assert_eq!(FileNames::parse(&string("")).unwrap(), Vec::<String>::new());
        assert_eq!(FileNames::parse(&RawValue::Integer(1)), None);
        let shown: Vec<String> = [vec![], vec!["a"], vec!["a", "b"]]
            .map(|names| names.into_iter().map(str::to_owned).collect())
            .iter()
            .map(FileNames::show)
            .collect();
        assert_eq!(shown, ["\"\"", "\"a\"", "[\"a\", \"b\"]"]);
        let listen = AddressOrNone::parse(&text("127.0.0.1:1")).unwrap();
        let files = |certificate: &[&str], key: &[&str]| Tls {
            listen,
            certificate: certificate.iter().map(ToString::to_string).collect(),
            key: key.iter().map(ToString::to_string).collect(),
            watch: Duration::from_secs(10),
            ..Tls::default()
        };
        let revoked = vec!["r".to_owned()];
        assert_eq!(unfit(&Tls { client_crl: revoked, ..files(&["c"], &[]) }), ["client_crl"]);
        assert_eq!(files(&["c"], &["k"]).files(), [("c", "k")]);
        assert_eq!(files(&["c", "d"], &[]).files(), [("c", "c"), ("d", "d")]);
        assert_eq!(Tls { listen: None, ..files(&["c"], &["k"]) }.files(), []);
        assert_eq!(unfit(&files(&["c"], &["k"])), Vec::<&str>::new());
        assert_eq!(unfit(&files(&[], &[])), ["certificate"]);
        assert_eq!(unfit(&files(&["c", "d"], &["k"])), ["key"]);
        assert_eq!(unfit(&files(&["c", ""], &[])), ["certificate"]);
        let stapled = |ocsp: &[&str]| Tls {
            ocsp: ocsp.iter().map(ToString::to_string).collect(),
            ..files(&["c", "d"], &["k", "l"])
        };
        assert_eq!(unfit(&stapled(&["o"])), ["ocsp"]);
        assert_eq!(unfit(&stapled(&["", "o"])), Vec::<&str>::new());
        assert_eq!((stapled(&["", "o"]).ocsp_of(0), stapled(&["", "o"]).ocsp_of(1)), (None, Some("o")));
        assert_eq!(stapled(&["", "o"]).watched(), ["c", "k", "d", "l", "o"]);
        assert_eq!(AddressOrNone::parse(&text(" ")), Some(None));
        assert_eq!(AddressOrNone::parse(&text("8443")), None);
    }
}
