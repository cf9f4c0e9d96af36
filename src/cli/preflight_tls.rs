//! `fantail preflight --tls`: what clients say of the certificates of files, of a configuration or of a running server.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use clap::Args;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use crate::client::tls::Trust;
use crate::client::tls::chain::{Explained, Level, Seen, explain, is_for};
use crate::client::tls::look::{Agreed, Look, files, look};
use crate::client::url::Url;
use crate::config::Settings;
use crate::server::look_at_tls;

use super::terminal::shown;
use super::{FAILED, MISUSED, fail, print};

/// Flags of `preflight` about TLS.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[command(next_help_heading = "TLS (--tls)")]
pub(super) struct TlsArgs {
    /// Explain a chain of certificates, of --certificate, --connect or the configuration
    #[arg(long)]
    tls: bool,
    /// PEM file with a certificate and those of its issuers behind it
    #[arg(long, value_name = "FILE", requires = "tls", conflicts_with_all = ["connect", "config"])]
    certificate: Option<PathBuf>,
    /// PEM file with its key, unless that stands in the same file
    #[arg(long, value_name = "FILE", requires = "certificate")]
    key: Option<PathBuf>,
    /// Server to shake hands with
    #[arg(long, value_name = "HOST:PORT", requires = "tls", conflicts_with = "config")]
    connect: Option<String>,
    /// Name that clients ask for; may be repeated [default: the server's, or the first of the certificate]
    #[arg(long, value_name = "NAME", requires = "tls")]
    host: Vec<String>,
    /// Clients trust the authorities in this PEM file, and not those of the system
    #[arg(long, value_name = "FILE", requires = "tls")]
    ca: Option<PathBuf>,
    /// Seconds that connecting may take
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    #[arg(requires = "connect")]
    timeout: u64,
}

impl TlsArgs {
    /// A flag that is of use with `--tls` only, without it. (Where others conflict with `--tls`, clap lets it pass.)
    pub(super) fn pointless(&self) -> Option<&'static str> {
        let given = [
            ("--certificate", self.certificate.is_some()),
            ("--connect", self.connect.is_some()),
            ("--host", !self.host.is_empty()),
            ("--ca", self.ca.is_some()),
        ];
        given.into_iter().find_map(|(flag, given)| (given && !self.tls).then_some(flag))
    }

    /// Whether it does not need a configuration.
    pub(super) fn has_its_own(&self) -> bool {
        self.certificate.is_some() || self.connect.is_some()
    }
}

/// A chain, and its key if that is known.
type Pair = (Vec<CertificateDer<'static>>, Option<PrivateKeyDer<'static>>);

/// One chain, and where it is from.
struct Report {
    source: String,
    agreed: Option<Agreed>,
    explained: Explained,
}

/// One file that has no chain, or none that can be read.
struct FileReport {
    /// The key of the configuration that names it.
    key: &'static str,
    file: String,
    level: Level,
    said: String,
}

/// All that was looked at.
#[derive(Default)]
struct Reports {
    chains: Vec<Report>,
    files: Vec<FileReport>,
    /// What came of those names that a server did not shake hands for.
    unanswered: Vec<(String, String)>,
}

impl Reports {
    fn hold(&self) -> bool {
        self.chains.iter().all(|report| report.explained.holds())
            && self.files.iter().all(|report| report.level != Level::Wrong)
            && self.unanswered.is_empty()
    }
}

/// Explains what the flags name, or else what is configured.
pub(super) fn run(args: &TlsArgs, configured: &Settings, json: bool) -> ExitCode {
    let trust = match Trust::of(args.ca.as_deref()) {
        Ok(trust) => trust,
        Err(problem) => return fail(MISUSED, &problem),
    };
    let reports = match &args.connect {
        Some(server) => match url_of(server) {
            Err(problem) => return fail(MISUSED, &format!("--connect {problem}")),
            Ok(url) => of_server(args, &url, &trust),
        },
        None => match of_files(args, configured, &trust) {
            Ok(reports) => reports,
            Err(problem) => return fail(MISUSED, &problem),
        },
    };
    for (host, problem) in &reports.unanswered {
        // Standard output is for what there is to read.
        fail(FAILED, &format!("{host}: {}", shown(problem, false)));
    }
    if !reports.chains.is_empty() || !reports.files.is_empty() {
        print(&if json { as_json(&reports) } else { as_text(&reports) });
    }
    if reports.hold() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) }
}

/// `HOST:PORT`, or a URL of TLS.
fn url_of(text: &str) -> Result<Url, String> {
    let url = match text.split_once("://") {
        None => Url::parse_http(&format!("https://{text}"), "/"),
        Some((scheme, _)) if scheme.eq_ignore_ascii_case("wss") => Url::parse_ws(text),
        Some(_) => Url::parse_http(text, "/"),
    }?;
    if url.secure { Ok(url) } else { Err(format!("{text}: is no URL of TLS, as https:// and wss:// are")) }
}

/// Each chain that the server shows to those who ask for the hosts.
fn of_server(args: &TlsArgs, url: &Url, trust: &Trust) -> Reports {
    let hosts = if args.host.is_empty() { std::slice::from_ref(&url.host) } else { &args.host };
    let mut looks: Vec<(Look, Vec<String>)> = Vec::new();
    let mut unanswered = Vec::new();
    for host in hosts {
        let seen = match look(url, host, Duration::from_secs(args.timeout)) {
            Ok(seen) => seen,
            Err(problem) => {
                let asked = if *host == url.host {
                    String::new()
                } else {
                    format!(", asked for {}", shown(host, false))
                };
                unanswered.push((format!("{}{asked}", url.authority), problem));
                continue;
            }
        };
        match looks.iter_mut().find(|(earlier, _)| earlier.chain == seen.chain) {
            Some((_, asked)) => asked.push(host.clone()),
            None => looks.push((seen, vec![host.clone()])),
        }
    }
    let report = |(look, asked): (Look, Vec<String>)| {
        let explained = explain(&look.chain, None, &asked, trust, SystemTime::now());
        Report { source: url.authority.clone(), agreed: Some(look.agreed), explained }
    };
    Reports { chains: looks.into_iter().map(report).collect(), files: Vec::new(), unanswered }
}

fn report_of(path: &Path, (chain, key): &Pair, hosts: &[String], trust: &Trust) -> Report {
    let explained = explain(chain, key.as_ref(), hosts, trust, SystemTime::now());
    Report { source: path.display().to_string(), agreed: None, explained }
}

fn of_files(args: &TlsArgs, configured: &Settings, trust: &Trust) -> Result<Reports, String> {
    let mut reports = Reports::default();
    if let Some(certificate) = &args.certificate {
        let key = args.key.as_ref().map(|path| ("--key", path.as_path()));
        let pair = files(("--certificate", certificate), key)?;
        reports.chains.push(report_of(certificate, &pair, &args.host, trust));
        return Ok(reports);
    }
    let (clients, operators) = (configured.tls.files(), configured.admin.tls_files());
    if clients.is_empty() && operators.is_empty() {
        return Err("--tls: no certificate is configured (tls.listen, tls.certificate); name one with --certificate FILE, or \
                    a server with --connect HOST:PORT"
            .to_owned());
    }
    let pairs = reports.read(["tls.certificate", "tls.key"], &clients);
    for (place, (file, pair)) in pairs.iter().enumerate() {
        let asked = args.host.iter().filter(|host| is_shown(&pairs, place, host));
        reports.chains.push(report_of(file, pair, &asked.cloned().collect::<Vec<_>>(), trust));
    }
    for (file, pair) in reports.read(["admin.tls_certificate", "admin.tls_key"], &operators) {
        // Clients' names are none of this port's, unless its certificate is for them.
        let asked: Vec<String> = args.host.iter().filter(|host| is_for(&pair.0, host)).cloned().collect();
        reports.chains.push(report_of(file, &pair, &asked, trust));
    }
    reports.files.extend(look_at_tls(configured).into_iter().map(|look| {
        let (level, said) = match look.said {
            Ok(said) if said.warning => (Level::Warning, said.text),
            Ok(said) => (Level::Fine, said.text),
            Err(problem) => (Level::Wrong, problem),
        };
        FileReport { key: look.key, file: look.file, level, said }
    }));
    Ok(reports)
}

impl Reports {
    /// Reads pairs; what can't be is told by the names of the two keys of the configuration.
    fn read<'a>(&mut self, keys: [&'static str; 2], pairs: &[(&'a str, &'a str)]) -> Vec<(&'a Path, Pair)> {
        let mut read = Vec::new();
        for (certificate, key) in pairs {
            match files((keys[0], Path::new(certificate)), Some((keys[1], Path::new(key)))) {
                Ok(pair) => read.push((Path::new(*certificate), pair)),
                Err(problem) => {
                    let of_key = problem.starts_with(keys[1]);
                    let (name, file) = if of_key { (keys[1], *key) } else { (keys[0], *certificate) };
                    let said =
                        problem.strip_prefix(&format!("{name} {file}: ")).unwrap_or(&problem).to_owned();
                    let file = file.to_owned();
                    self.files.push(FileReport { key: name, file, level: Level::Wrong, said });
                }
            }
        }
        read
    }
}

/// Whether a server that has all of these shows this one to clients that ask for `host`: those that are for the name, by kind of
/// key, and the first if none is. Addresses are not asked for (RFC 6066, 3).
fn is_shown(pairs: &[(&Path, Pair)], place: usize, host: &str) -> bool {
    let is_for = |(_, (chain, _)): &(&Path, Pair)| host.parse::<IpAddr>().is_err() && is_for(chain, host);
    match pairs.iter().any(is_for) {
        true => pairs.get(place).is_some_and(is_for),
        false => place == 0,
    }
}

fn as_text(reports: &Reports) -> String {
    let mut text: String = reports.chains.iter().map(chain_text).collect();
    for report in &reports.files {
        let (level, said) = (report.level.label(), shown(&report.said, false));
        text.push_str(&format!("\n{}\n{level:<7} {}: {said}\n", report.file, report.key));
    }
    text
}

fn chain_text(report: &Report) -> String {
    let mut text = format!("{}\n", report.source);
    if let Some(agreed) = &report.agreed {
        let none = || "none".to_owned();
        text.push_str(&format!(
            "  {}, {}, key exchange {}, ALPN {}\n",
            agreed.version,
            agreed.suite,
            agreed.group.clone().unwrap_or_else(none),
            shown(&agreed.alpn.clone().unwrap_or_else(none), false)
        ));
    }
    for (place, seen) in report.explained.certificates.iter().enumerate() {
        text.push_str(&lines_of(place, seen));
    }
    text.push('\n');
    for finding in &report.explained.findings {
        let (level, said) = (finding.level.label(), shown(&finding.said, false));
        text.push_str(&format!("{level:<7} {}: {said}\n", finding.name));
    }
    let verdict = if report.explained.holds() { "Clients take it." } else { "Clients refuse it." };
    text.push_str(&format!("\n{verdict}\n"));
    text
}

/// A certificate's lines; what it says of itself was chosen by whoever made it.
fn lines_of(place: usize, seen: &Seen) -> String {
    let mut text = format!("  {}  {}\n", place + 1, shown(&seen.subject, false));
    let mut line = |what: &str| text.push_str(&format!("     {}\n", shown(what, false)));
    if !seen.names.is_empty() {
        line(&format!("for {}", seen.names.join(", ")));
    }
    line(&format!("issued by {}", if seen.issuer == seen.subject { "itself" } else { &seen.issuer }));
    let kind = if seen.authority { "an authority's" } else { "a server's or client's" };
    line(&format!("{kind}, {}, {} to {}", seen.key, seen.time.0, seen.time.1));
    text
}

fn as_json(reports: &Reports) -> String {
    let chains: Vec<Value> = reports.chains.iter().map(report_json).collect();
    let file = |report: &FileReport| json!({ "source": report.file, "key": report.key, "level": report.level.label(), "said": report.said });
    let files: Vec<Value> = reports.files.iter().map(file).collect();
    let unanswered: Vec<Value> =
        reports.unanswered.iter().map(|(asked, said)| json!({ "asked": asked, "said": said })).collect();
    let all = json!({ "holds": reports.hold(), "chains": chains, "files": files, "unanswered": unanswered });
    format!("{all}\n")
}

fn report_json(report: &Report) -> Value {
    let certificate = |seen: &Seen| {
        json!({
            "subject": seen.subject,
            "issuer": seen.issuer,
            "names": seen.names,
            "key": seen.key,
            "not_before": seen.time.0,
            "not_after": seen.time.1,
            "authority": seen.authority,
            "issuer_at": seen.issuer_at,
        })
    };
    let agreed = report.agreed.as_ref().map(|agreed| {
        json!({
            "version": agreed.version,
            "suite": agreed.suite,
            "group": agreed.group,
            "alpn": agreed.alpn,
        })
    });
    let findings =
        report.explained.findings.iter().map(
            |finding| json!({ "name": finding.name, "level": finding.level.label(), "said": finding.said }),
        );
    json!({
        "source": report.source,
        "agreed": agreed,
        "certificates": report.explained.certificates.iter().map(certificate).collect::<Vec<_>>(),
        "findings": findings.collect::<Vec<_>>(),
    })
}
