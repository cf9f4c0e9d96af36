//! What there is to say of the files that go with certificates: authorities of clients, lists of revoked ones, responses of OCSP.
//!
//! For `fantail preflight --tls`, which looks at all of them whatever is wrong with one; [`super::config`] stops at the first that a
//! server can't be started with. Never on a loop: files may block.

use std::time::{Duration, SystemTime};

use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject;
use x509_cert::crl::CertificateList;
use x509_cert::der::Decode;

use super::certificate::{self, CertificateError, read_file};
use super::clients::{AuthorityFacts, ClientFiles, Clients};
use super::config::Sources;
use super::ocsp;

/// As the alert FantailClientAuthorityExpires has it.
const SOON_DAYS: u64 = 30;

const DAY_SECONDS: u64 = 24 * 60 * 60;

/// What was seen of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileLook {
    /// The key of the configuration that names it.
    pub key: &'static str,
    /// The file.
    pub file: String,
    /// What there is to say of it, or what it is of no use for.
    pub said: Result<Said, String>,
}

/// What there is to say of a file that is of use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// What it is, and what to do.
    pub text: String,
    /// Whether there is something to do.
    pub warning: bool,
}

/// Looks at each of them. Responses of certificates that can't be read are left out: what is wrong shows there.
#[must_use]
pub fn look(sources: &Sources, now: SystemTime) -> Vec<FileLook> {
    let mut looks = Vec::new();
    for files in &sources.certificates {
        let Some(file) = &files.ocsp else { continue };
        let Ok(identity) = certificate::read(&files.certificate, &files.key, &sources.names, now) else {
            continue;
        };
        let said = ocsp::read(file, &identity.key.cert, now).map(|response| match response.warning {
            Some(text) => Said { text, warning: true },
            None => Said { text: holds_until(response.time.until, now), warning: false },
        });
        looks.push(FileLook {
            key: ocsp::KEY,
            file: file.clone(),
            said: said.map_err(|error| error.problem),
        });
    }
    let mut good = Vec::new();
    for file in &sources.clients.authorities {
        let clients = of(sources, std::slice::from_ref(file), &[]);
        let said = clients.map(|clients| {
            good.push(file.clone());
            let said = clients.authorities.first().map(|facts| of_authorities(facts, now));
            said.unwrap_or_else(|| Said {
                text: "has authorities that say nothing of themselves".into(),
                warning: true,
            })
        });
        looks.push(FileLook { key: sources.names.client_ca, file: file.clone(), said });
    }
    let key = sources.names.client_crl;
    for file in &sources.clients.revoked {
        // With no authority to be had the lists are looked at by themselves.
        let taken =
            if good.is_empty() { Ok(()) } else { of(sources, &good, std::slice::from_ref(file)).map(drop) };
        let said = taken.and_then(|()| of_lists(key, file, now));
        looks.push(FileLook { key, file: file.clone(), said });
    }
    looks
}

/// What clients would be judged by with these files alone.
fn of(sources: &Sources, authorities: &[String], revoked: &[String]) -> Result<Clients, String> {
    let files = ClientFiles { authorities: authorities.to_vec(), revoked: revoked.to_vec(), required: true };
    Clients::read(&files, &sources.names).map_err(|error| error.problem)
}

fn holds_until(until: Option<SystemTime>, now: SystemTime) -> String {
    match until.and_then(|until| until.duration_since(now).ok()) {
        Some(left) => format!("it is sent for another {}", time_of(left)),
        None => "it is sent until there is a newer one".to_owned(),
    }
}

fn of_authorities(facts: &AuthorityFacts, now: SystemTime) -> Said {
    let names = facts.subjects.join("; ");
    match facts.expires.duration_since(now) {
        Ok(left) => {
            let warning = left.as_secs() / DAY_SECONDS < SOON_DAYS;
            let first = if facts.subjects.len() > 1 { "the first of them expires in" } else { "expires in" };
            Said { text: format!("{names}: {first} {}", time_of(left)), warning }
        }
        Err(over) => {
            let over = time_of(over.duration());
            let text = format!(
                "{names}: one has expired {over} ago; what it has signed is taken here all the same, and refused elsewhere"
            );
            Said { text, warning: true }
        }
    }
}

fn of_lists(key: &'static str, file: &str, now: SystemTime) -> Result<Said, String> {
    let text = read_file(key, file).map_err(|error: CertificateError| error.problem)?;
    let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&text).collect();
    let lists = lists.map_err(|error| format!("is broken PEM: {error}"))?;
    if lists.is_empty() {
        return Err("has no list of revoked certificates".to_owned());
    }
    let (mut said, mut warning) = (Vec::new(), false);
    for list in lists {
        let list =
            CertificateList::from_der(&list).map_err(|error| format!("has a list that is none: {error}"))?;
        let list = list.tbs_cert_list;
        let count = list.revoked_certificates.map_or(0, |revoked| revoked.len());
        let next = list.next_update.map(|next| SystemTime::UNIX_EPOCH + next.to_unix_duration());
        let due = match next.map(|next| next.duration_since(now)) {
            Some(Ok(left)) => format!("the next is due in {}", time_of(left)),
            Some(Err(late)) => {
                warning = true;
                let late = time_of(late.duration());
                format!("the next was due {late} ago: who was revoked since is let in")
            }
            None => "it does not say when the next is due".to_owned(),
        };
        said.push(format!("{count} revoked by {}, {due}", list.issuer));
    }
    Ok(Said { text: said.join("; "), warning })
}

/// In days, or in hours if it is less than two.
fn time_of(time: Duration) -> String {
    let hours = time.as_secs() / 3_600;
    if hours < 48 { format!("{hours} hours") } else { format!("{} days", hours / 24) }
}
