//! A local authority and a certificate for trying things out: made, kept in a folder, made anew when asked.
//!
//! Driven by `fantail dev-cert` alone; no part of it runs in the server. It touches no trust store: who trusts the
//! authority decides so by hand ([`trust`] says how). Files that are there are never replaced unless asked.

mod files;
mod make;
pub mod trust;

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};

use crate::client::tls::{Trust, verdict};

/// Names of every certificate, whatever else is asked for.
const ALWAYS: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// What is in the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Made {
    /// The authority's certificate: what clients have to trust.
    pub ca: PathBuf,
    /// The server's certificate, with the authority's behind it.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Names that it is for.
    pub names: Vec<String>,
    /// Whether the authority is a new one.
    pub new_ca: bool,
    /// Whether the certificate is a new one.
    pub new_certificate: bool,
}

/// Makes what is missing in `folder`; with `replace`, a new certificate in place of one that is there. An authority that is
/// there is used again.
///
/// # Errors
/// A file that can't be read or written, or one that is in the way; nothing was replaced then.
pub fn make(folder: &Path, names: &[String], replace: bool, now: SystemTime) -> Result<Made, String> {
    let names = all_names(names)?;
    let at = |name: &str| folder.join(name);
    let (ca, ca_key, certificate, key) = (at("ca.pem"), at("ca.key"), at("server.pem"), at("server.key"));
    let (there, ca_there) = (pair_there(&certificate, &key)?, pair_there(&ca, &ca_key)?);
    if there && !replace {
        let problem = if ca_there { still_good(&ca, &certificate, &names, now)? } else { Some(alone(&ca)) };
        return match problem {
            Some(problem) => {
                Err(format!("{}: {problem}; --replace makes a new one in its place", certificate.display()))
            }
            None => Ok(Made { ca, certificate, key, names, new_ca: false, new_certificate: false }),
        };
    }
    std::fs::create_dir_all(folder)
        .map_err(|error| format!("{}: cannot be made: {error}", folder.display()))?;
    let authority = if ca_there {
        make::Authority::read(&files::read(&ca)?, &files::read(&ca_key)?)
            .map_err(|problem| format!("{}: {problem}", ca.display()))?
    } else {
        let authority = make::Authority::new(now)?;
        files::write_new(&ca_key, &authority.key_pem(), files::Readers::Owner)?;
        files::write_new(&ca, &authority.pem, files::Readers::Everybody)?;
        authority
    };
    let (chain, key_pem) = authority.sign(&names, now)?;
    refused(&ca, &chain, &names, now)?.map_or(Ok(()), |problem| {
        Err(format!("{}: cannot sign for a server: {problem}; move it away for a new one", ca.display()))
    })?;
    // The key first: a server that looks in between finds a pair that does not match, and goes on with the old one.
    files::put(&key, &key_pem, files::Readers::Owner)?;
    files::put(&certificate, &chain, files::Readers::Everybody)?;
    Ok(Made { ca, certificate, key, names, new_ca: !ca_there, new_certificate: true })
}

/// Those of every certificate, and the given ones behind them, each once.
fn all_names(given: &[String]) -> Result<Vec<String>, String> {
    let mut names: Vec<String> = ALWAYS.map(str::to_owned).to_vec();
    for name in given {
        let name = name.to_ascii_lowercase();
        // A wildcard stands for one label in front (RFC 6125, 6.4.3).
        let bare = name.strip_prefix("*.").unwrap_or(&name);
        let known = ServerName::try_from(bare);
        if known.is_err() || (bare != name && !matches!(known, Ok(ServerName::DnsName(_)))) {
            return Err(format!(
                "--name {name}: expects a host name such as app.test or *.app.test, or an address; no port, and other \
                 than ASCII letters as xn--…"
            ));
        }
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Whether both files of a pair are there; half a pair is in the way.
fn pair_there(certificate: &Path, key: &Path) -> Result<bool, String> {
    match (files::is_there(certificate), files::is_there(key)) {
        (true, true) => Ok(true),
        (false, false) => Ok(false),
        (true, false) => Err(in_the_way(certificate, key)),
        (false, true) => Err(in_the_way(key, certificate)),
    }
}

fn in_the_way(there: &Path, missing: &Path) -> String {
    format!(
        "{} is there and {} is not: bring that back, or move the first away",
        there.display(),
        missing.display()
    )
}

fn alone(ca: &Path) -> String {
    format!("is there, and the authority that issued it is not ({})", ca.display())
}

/// Why the certificate that is there will not do.
fn still_good(
    ca: &Path,
    certificate: &Path,
    names: &[String],
    now: SystemTime,
) -> Result<Option<String>, String> {
    Ok(refused(ca, &files::read(certificate)?, names, now)?.map(|problem| format!("will not do: {problem}")))
}

/// What a client that trusts the authority has against a chain, under the first name for which it has anything.
fn refused(ca: &Path, chain: &str, names: &[String], now: SystemTime) -> Result<Option<String>, String> {
    let trust = Trust::of(Some(ca))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(chain.as_bytes()).collect();
    let Ok(chain) = chain else { return Ok(Some("it is broken PEM".to_owned())) };
    // One label stands for all that a wildcard is for.
    let asked =
        |name: &String| name.strip_prefix("*.").map_or_else(|| name.clone(), |rest| format!("any.{rest}"));
    Ok(names.iter().find_map(|name| verdict(&chain, &asked(name), &trust, now).err()))
}

fn wrong(path: &Path, verb: &str, error: &io::Error) -> String {
    format!("{}: cannot be {verb}: {error}", path.display())
}
