//! `[admin]`: by which names and with which keys the admin port is used.

use std::fmt;
use std::io::Read;
use std::time::Duration;

use crate::auth::admin_guard::AdminGuard;
use crate::auth::admin_keys::AdminKeys;
use crate::sys;

use super::section::{Checker, section};
use super::tls::{FileNames, check_names, check_pairs, pairs_of};
use super::value::{BytesOrAutomatic, Count, Kind, Names, RawValue, Seconds, quoted};

/// Fields of connections that are about people.
const CONNECTION_FIELDS: [&str; 4] = ["peer", "subject", "identity", "topics"];

/// Bytes read of a file with keys.
const FILE_BYTES_MAX: u64 = 1 << 20;

section! {
    /// By which names and with which keys the admin port is used, and how long answers are kept for retries.
    Admin ["admin"] {
        /// Host names accepted besides localhost and loopback addresses, such as "fantail.internal".
        live "hosts" => hosts: Vec<String> as Names = Vec::new(),
        /// Keys that requests need, each with its scopes: "publish:SECRET", "publish+read:SECRET", "admin:SECRET".
        live "keys" => keys: Secrets as SecretList = Secrets::default(),
        /// A file with further keys, one a line; empty for none.
        live "keys_file" => keys_file: String as FileName = String::new(),
        /// PEM file with a certificate, behind it those of its issuers, with which the port speaks TLS (https) and nothing else;
        /// or a list of such files, as tls.certificate; empty: it speaks none.
        live "tls_certificate" => tls_certificate: Vec<String> as FileNames = Vec::new(),
        /// PEM file with the private key, or a list in the order of the certificates; empty for keys that stand in the files
        /// of the certificates.
        live "tls_key" => tls_key: Vec<String> as FileNames = Vec::new(),
        /// PEM file with the authorities that sign certificates of operators, or a list of such files: who shows none of them is
        /// not served, health checks included; empty: nobody is asked for one.
        live "tls_client_ca" => tls_client_ca: Vec<String> as FileNames = Vec::new(),
        /// PEM file with lists of revoked certificates of operators (CRL), or a list of such files, each list by an authority of
        /// admin.tls_client_ca.
        live "tls_client_crl" => tls_client_crl: Vec<String> as FileNames = Vec::new(),
        /// What of those whose connections GET /connections lists is told: of peer (else its network, /24 or /48), subject, identity (with
        /// its issuer) and topics (with patterns; else how many) those that are in the list.
        live "connection_fields" => connection_fields: Vec<String> as Names =
            CONNECTION_FIELDS.map(str::to_owned).to_vec(),
        /// How long the answer to a request with an Idempotency-Key is kept.
        "idempotency_seconds" => idempotency: Duration as Seconds = Duration::from_secs(600),
        /// Most answers kept; beyond, the oldest goes.
        "idempotency_keys_max" => idempotency_keys_max: usize as Count = 10_000,
        /// Most bytes of answers kept; beyond, the oldest goes. 0 takes a sixty-fourth of the memory that the process may
        /// have, at most 16 MiB.
        "idempotency_bytes_max" => idempotency_bytes_max: Option<usize> as BytesOrAutomatic = None,
    }
}

/// Keys as they were written. Shows how many there are and nothing else.
#[derive(Clone, Default, PartialEq)]
pub struct Secrets(Vec<String>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&SecretList::show(self))
    }
}

/// A list whose items are never shown.
struct SecretList;

impl Kind for SecretList {
    type Out = Secrets;
    const EXPECTS: &'static str = "a list such as [\"publish:SECRET\"]";
    const SECRET: bool = true;

    fn parse(raw: &RawValue) -> Option<Secrets> {
        // A value of another kind becomes a key that is none: the check then says so without quoting it.
        Some(Secrets(Names::parse(raw).unwrap_or_else(|| vec![String::new()])))
    }

    fn show(value: &Secrets) -> String {
        format!("[{}]", vec!["\"(secret)\""; value.0.len()].join(", "))
    }
}

/// The name of a file.
pub(super) struct FileName;

impl Kind for FileName {
    type Out = String;
    const EXPECTS: &'static str = "the name of a file";

    fn parse(raw: &RawValue) -> Option<String> {
        match raw {
            RawValue::Text(text) | RawValue::String(text) => Some(text.clone()),
            _ => None,
        }
    }

    fn show(value: &String) -> String {
        quoted(value)
    }
}

/// A key that does not fit, or a file that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeysError {
    /// The key of the section at fault.
    key: &'static str,
    /// What is wrong, without the secret.
    problem: String,
}

impl fmt::Display for KeysError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "admin.{}: {}", self.key, self.problem)
    }
}

impl std::error::Error for KeysError {}

impl Admin {
    /// The keys of the section and of its file.
    ///
    /// # Errors
    /// A key is none, or the file cannot be read.
    pub fn compile_keys(&self) -> Result<AdminKeys, KeysError> {
        let mut keys = AdminKeys::default();
        for (index, text) in self.keys.0.iter().enumerate() {
            keys.add(text).map_err(|error| KeysError {
                key: "keys",
                problem: format!("{error}; this is key {} of the list", index + 1),
            })?;
        }
        if self.keys_file.is_empty() {
            return Ok(keys);
        }
        let fail = |problem| KeysError { key: "keys_file", problem };
        let mut text = String::new();
        sys::file::open(&self.keys_file)
            .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
            .map_err(|error| fail(format!("{:?} cannot be read: {error}", self.keys_file)))?;
        // Cut off, the last line would be a shorter key.
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(fail(format!("{:?} is larger than 1 MiB", self.keys_file)));
        }
        let before = keys.len();
        for (index, line) in text.lines().enumerate() {
            let line = line.trim();
            if !line.is_empty() && !line.starts_with('#') {
                keys.add(line).map_err(|error| fail(format!("line {}: {error}", index + 1)))?;
            }
        }
        // Whoever names a file wants keys: one that was emptied by mistake must not open the port.
        if keys.len() == before {
            return Err(fail(format!("{:?} has no key", self.keys_file)));
        }
        Ok(keys)
    }

    /// Whether the port speaks TLS.
    #[must_use]
    pub fn speaks_tls(&self) -> bool {
        !self.tls_certificate.is_empty()
    }

    /// Takes over what `other` has of TLS.
    pub(super) fn keep_tls_of(&mut self, other: &Self) {
        self.tls_certificate.clone_from(&other.tls_certificate);
        self.tls_key.clone_from(&other.tls_key);
        self.tls_client_ca.clone_from(&other.tls_client_ca);
        self.tls_client_crl.clone_from(&other.tls_client_crl);
    }

    /// Each certificate's file with that of its key.
    #[must_use]
    pub fn tls_files(&self) -> Vec<(&str, &str)> {
        pairs_of(&self.tls_certificate, &self.tls_key)
    }

    /// All files of TLS that are read, each once for each time that it is named.
    #[must_use]
    pub fn tls_watched(&self) -> Vec<&str> {
        let own = self.tls_files().into_iter().flat_map(|(certificate, key)| [certificate, key]);
        let clients = self.tls_client_ca.iter().chain(&self.tls_client_crl).filter(|_| self.speaks_tls());
        own.chain(clients.map(String::as_str)).collect()
    }

    /// Whether any key is named, here or in a file.
    pub(super) fn has_keys(&self) -> bool {
        self.compile_keys().is_ok_and(|keys| !keys.is_empty())
    }

    fn check_tls(&self, check: &mut Checker<'_>) {
        check_pairs(check, ("tls_certificate", &self.tls_certificate), ("tls_key", &self.tls_key));
        check_names(check, "tls_client_ca", &self.tls_client_ca);
        check_names(check, "tls_client_crl", &self.tls_client_crl);
        if !self.tls_client_crl.is_empty() && self.tls_client_ca.is_empty() {
            let problem = "expects admin.tls_client_ca, without which no operator is asked";
            check.report("tls_client_crl", problem.to_owned());
        }
        if !self.tls_client_ca.is_empty() && !self.speaks_tls() {
            let problem = "expects admin.tls_certificate, without which nobody is asked";
            check.report("tls_client_ca", problem.to_owned());
        }
    }

    fn check_values(&self, check: &mut Checker<'_>) {
        if let Err(error) = AdminGuard::compile(&self.hosts) {
            check.report("hosts", error.to_string());
        }
        if let Err(error) = self.compile_keys() {
            check.report(error.key, error.problem);
        }
        self.check_tls(check);
        if let Some(field) =
            self.connection_fields.iter().find(|field| !CONNECTION_FIELDS.contains(&field.as_str()))
        {
            let problem = format!("expects some of {}, got {field:?}", CONNECTION_FIELDS.join(", "));
            check.report("connection_fields", problem);
        }
        check.time("idempotency_seconds", self.idempotency, None);
        check.within("idempotency_keys_max", self.idempotency_keys_max, 1..=1 << 20);
        if let Some(bytes) = self.idempotency_bytes_max {
            check.within("idempotency_bytes_max", bytes, 1 << 10..=1 << 30);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_never_shown() {
        let raw = RawValue::List(vec![RawValue::String("read:0123456789abcdef".into())]);
        let admin = Admin { keys: SecretList::parse(&raw).unwrap(), ..Admin::default() };
        assert!(admin.has_keys());
        let shown = |admin: &Admin| {
            let reference = super::super::section::Section::reference(admin);
            reference.into_iter().find(|key| key.key == "keys").map(|key| key.value)
        };
        assert_eq!(shown(&admin).as_deref(), Some("\"(not shown)\""));
        assert_eq!(shown(&Admin::default()).as_deref(), Some("[]"));
        assert!(!format!("{admin:?}").contains("0123"), "{admin:?}");
        let wrong = Admin {
            keys: SecretList::parse(&RawValue::Text("read:0123456789abcdef,sesame".into())).unwrap(),
            ..Admin::default()
        };
        let error = wrong.compile_keys().unwrap_err().to_string();
        assert!(error.contains("key 2 of the list") && !error.contains("sesame"), "{error}");
        assert!(
            Admin { keys: SecretList::parse(&RawValue::Integer(5)).unwrap(), ..wrong }
                .compile_keys()
                .is_err()
        );
    }

    #[test]
    fn files_of_tls_come_in_pairs_and_clients_are_asked_over_tls_only() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let admin = |certificate: &[&str], key: &[&str], client_ca: &[&str]| Admin {
            tls_certificate: names(certificate),
            tls_key: names(key),
            tls_client_ca: names(client_ca),
            ..Admin::default()
        };
        let unfit = |admin: &Admin| {
            let mut unfit = Vec::new();
            admin.check_values(&mut Checker { section: "admin", unfit: &mut unfit });
            unfit.into_iter().map(|unfit| unfit.key).collect::<Vec<_>>()
        };
        let whole = admin(&["c", "d"], &["k", "l"], &["a"]);
        assert_eq!(unfit(&whole), [""; 0]);
        assert_eq!(whole.tls_watched(), ["c", "k", "d", "l", "a"]);
        assert_eq!(admin(&["c"], &[], &[]).tls_files(), [("c", "c")]);
        assert_eq!(unfit(&admin(&["c"], &["k", "l"], &[])), ["tls_key"]);
        assert_eq!(unfit(&admin(&[], &["k"], &[])), ["tls_key"]);
        assert_eq!(unfit(&admin(&[""], &[], &[])), ["tls_certificate"]);
        let lists = names(&["r"]);
        let revoking = Admin { tls_client_crl: lists.clone(), ..whole };
        assert_eq!((unfit(&revoking), revoking.tls_watched().last()), (vec![], Some(&"r")));
        assert_eq!(unfit(&Admin { tls_client_crl: lists, ..admin(&["c"], &[], &[]) }), ["tls_client_crl"]);
        let nobody = admin(&[], &[], &["a"]);
        assert_eq!((unfit(&nobody), nobody.tls_watched()), (vec!["tls_client_ca"], vec![]));
    }

    #[test]
    fn a_file_adds_keys_line_by_line() {
        let path = std::env::temp_dir().join(format!("fantail-keys-{}", std::process::id()));
        let admin = Admin { keys_file: path.display().to_string(), ..Admin::default() };
        assert!(admin.compile_keys().unwrap_err().to_string().contains("cannot be read"));
        std::fs::write(&path, "# ours\n\nread:0123456789abcdef\r\n  admin:fedcba9876543210\n").unwrap();
        let keys = admin.compile_keys();
        std::fs::write(&path, "read:0123456789abcdef\nsesame\n").unwrap();
        let broken = admin.compile_keys().unwrap_err().to_string();
        std::fs::write(&path, "# none left\n\n").unwrap();
        let none = admin.compile_keys().unwrap_err().to_string();
        std::fs::write(&path, "read:0123456789abcdef\n".repeat(50_000)).unwrap();
        let large = admin.compile_keys().unwrap_err().to_string();
        std::fs::remove_file(&path).unwrap();
        assert_eq!(keys.unwrap().len(), 2);
        assert!(broken.contains("line 2") && !broken.contains("sesame"), "{broken}");
        assert!(none.contains("has no key") && large.contains("larger than 1 MiB"), "{none} {large}");
    }
}
