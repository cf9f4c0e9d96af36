//! `fantail dev-cert [DIR]`: a local authority and a certificate for trying TLS out, and how to trust it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;
use serde_json::json;

use crate::dev_cert::{Made, make, trust};

use super::{FAILED, fail, print};

pub(super) const EXAMPLES: &str = "\
Writes ca.pem and ca.key (the authority), server.pem and server.key (the certificate, for localhost, 127.0.0.1, ::1 and \
the names given) into DIR; keys are readable by you alone. An authority that is there is used again, so that whoever \
trusts it goes on doing so. Nothing that is there is replaced without --replace. Whoever has ca.key can be any server \
for those who trust ca.pem: keep it, and don't use it for others than yourself.

Exit codes: 0 the certificate is there, 1 it could not be made, 2 wrong usage.

Examples:
  fantail dev-cert
      A certificate for this machine in ./fantail-dev-cert, and how to use and trust it.
  fantail dev-cert --name app.test --name '*.app.test' --replace
      Another one for these names, too, from the same authority.
  fantail dev-cert ~/certificates --json
      The same elsewhere; where the files are, as one JSON object.";

/// Flags of `dev-cert`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(super) struct DevCertArgs {
    /// Where the files are
    #[arg(value_name = "DIR", default_value = "fantail-dev-cert")]
    folder: PathBuf,
    /// A further name or address that the certificate is for; may be repeated, and *.app.test stands for one label
    #[arg(long = "name", value_name = "HOST")]
    names: Vec<String>,
    /// Make a new certificate in place of the one that is there; the authority stays
    #[arg(long)]
    replace: bool,
    /// Answer as one JSON object
    #[arg(long)]
    json: bool,
}

/// Makes and tells.
pub(super) fn run(args: &DevCertArgs) -> ExitCode {
    match make(&args.folder, &args.names, args.replace, SystemTime::now()) {
        Ok(made) => print(&if args.json { as_json(&made) } else { as_text(&made) }),
        Err(problem) => fail(FAILED, &problem),
    }
}

fn as_text(made: &Made) -> String {
    let [certificate, key] =
        [&made.certificate, &made.key].map(|path| trust::quoted(&path.display().to_string()));
    let names = made.names.join(", ");
    let (ca, what) = match (made.new_ca, made.new_certificate) {
        (true, _) => ("made a new authority", "made a certificate"),
        (false, true) => ("used the authority that was there", "made a certificate"),
        (false, false) => ("the authority was there", "the certificate was there and is good"),
    };
    let full = std::path::absolute(&made.ca).unwrap_or_else(|_| made.ca.clone());
    format!(
        "{}: {ca}\n{}: {what} for {names}\n\n\
         Serve with it:\n  fantail serve --tls-listen 127.0.0.1:8443 --tls-certificate {certificate} --tls-key {key}\n\n\
         Trust it, on machines of your own only:\n{}",
        made.ca.display(),
        made.certificate.display(),
        trust::advice(&full)
    )
}

fn as_json(made: &Made) -> String {
    let made = json!({
        "ca": made.ca,
        "certificate": made.certificate,
        "key": made.key,
        "names": made.names,
        "new_ca": made.new_ca,
        "new_certificate": made.new_certificate,
    });
    format!("{made}\n")
}
