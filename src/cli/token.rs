//! `fantail token`: makes a token (JSON Web Token) with a secret, or says with `--check` what one says, whether it is good, and
//! with which key.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use serde_json::{Value, json};

use crate::auth::token::{
    Claims, Grants, IssuerPlan, Issuers, KeySource, LEEWAY_SECONDS, Order, TOKEN_BYTES_MAX, inspect, make,
};

use crate::config::{Sources, load};
use crate::service::fetch_once;

use super::terminal::shown;
use super::{FAILED, MISUSED, fail, print};

pub(super) const EXAMPLES: &str = "\
A token is a JSON Web Token (RFC 7519) that says who bears it (sub), what they may subscribe to and publish to (subscribe \
and publish: lists of topics and patterns, {sub} standing for the bearer) and when it ends (exp). Made ones are signed by \
HS256 with the first secret; those that are checked may be signed by HS, RS, PS and ES with 256 or 384 bits, HS, RS and PS \
with 512, and EdDSA with Ed25519. `fantail serve` takes them where its configuration has an [[auth.issuer]]; docs/tokens.md says more.

Secrets and tokens are taken from files and standard input, never from the command line, which every user of the machine \
can read.

Exit codes: 0 made, or good; 1 no key fits, or not good; 2 wrong usage.

Examples:
  openssl rand -hex 32 > token.secret && chmod 600 token.secret
      Make a secret.
  fantail token --sub alice --subscribe 'chat/**' --publish 'users/{sub}/*' --hmac-file token.secret
      Make a token that is good for an hour.
  fantail token --check --hmac-file token.secret < alice.token
      Say what it says, whether it is good, and if not, why.
  fantail token --check --jwks-file keys.json --issuer https://login.example --audience app alice.token
      The same of somebody else's token, with their public keys.
  fantail token --check --jwks-url https://login.example/.well-known/jwks.json --issuer https://login.example alice.token
      With the keys that they publish, fetched once, within ten seconds.
  fantail token --check --config fantail.toml alice.token
      As the server of this configuration would, whichever of its issuers it is of.";

/// Flags of `token`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub(super) struct TokenArgs {
    /// With --check, the file with the token; without it, or with -, standard input
    #[arg(value_name = "FILE", requires = "check")]
    token: Option<PathBuf>,
    /// Explain a token instead of making one
    #[arg(long, conflicts_with_all = ["sub", "subscribe", "publish", "seconds", "jti", "kid"])]
    check: bool,
    /// Who bears it
    #[arg(long, value_name = "NAME", required_unless_present = "check")]
    sub: Option<String>,
    /// A topic or pattern that they may subscribe to; may be repeated
    #[arg(long, value_name = "PATTERN")]
    subscribe: Vec<String>,
    /// A topic or pattern that they may publish to; may be repeated
    #[arg(long, value_name = "PATTERN")]
    publish: Vec<String>,
    /// Seconds for which it is good [default: 3600]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=3_153_600_000))]
    seconds: Option<u64>,
    /// Its own name [default: a random one]
    #[arg(long, value_name = "NAME")]
    jti: Option<String>,
    /// The name of the secret, for those who have several
    #[arg(long, value_name = "NAME")]
    kid: Option<String>,
    /// Who issues it; with --check, who has to have issued it
    #[arg(long, value_name = "NAME")]
    issuer: Option<String>,
    /// Whom it is for; with --check, one of those that it has to be for. May be repeated
    #[arg(long, value_name = "NAME")]
    audience: Vec<String>,
    /// File with a secret of 32 bytes or more; with --check may be repeated, for the secret before
    #[arg(long, value_name = "FILE")]
    hmac_file: Vec<PathBuf>,
    /// With --check, PEM file with a public key: RSA, P-256, P-384 or Ed25519; may be repeated
    #[arg(long, value_name = "FILE", requires = "check")]
    pem_file: Vec<PathBuf>,
    /// With --check, file with a set of public keys (JWKS); may be repeated
    #[arg(long, value_name = "FILE", requires = "check")]
    jwks_file: Vec<PathBuf>,
    /// With --check, address of a set of public keys (JWKS): https://, or http:// of this machine. It is fetched once
    #[arg(long, value_name = "URL", requires = "check", conflicts_with_all = ["hmac_file", "pem_file", "jwks_file"])]
    jwks_url: Option<String>,
    /// PEM file with the authorities that are trusted for it, instead of those of the system
    #[arg(long, value_name = "FILE", requires = "jwks_url")]
    jwks_ca_file: Option<PathBuf>,
    /// With --check, the configuration whose issuers may have issued it
    #[arg(
        long, value_name = "FILE", requires = "check",
        conflicts_with_all = ["issuer", "audience", "hmac_file", "pem_file", "jwks_file", "jwks_url"]
    )]
    config: Option<PathBuf>,
    /// Answer as one JSON object
    #[arg(long)]
    json: bool,
}

/// Makes one or explains one.
pub(super) fn run(args: &TokenArgs) -> ExitCode {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    if args.check { check(args, now) } else { issue(args, now) }
}

fn issue(args: &TokenArgs, now: u64) -> ExitCode {
    let [file] = args.hmac_file.as_slice() else {
        let advice = "expects one file with a secret; `openssl rand -hex 32` makes one";
        return fail(MISUSED, &format!("--hmac-file: {advice}"));
    };
    let mut random = [0; 16];
    if let Err(error) = getrandom::fill(&mut random) {
        return fail(FAILED, &format!("no random name for the token: {error}"));
    }
    let order = Order {
        sub: args.sub.clone().unwrap_or_default(),
        subscribe: args.subscribe.clone(),
        publish: args.publish.clone(),
        seconds: args.seconds.unwrap_or(3_600),
        issuer: args.issuer.clone(),
        audience: args.audience.clone(),
        jti: Some(args.jti.clone().unwrap_or_else(|| data_encoding::BASE64URL_NOPAD.encode(&random))),
        kid: args.kid.clone(),
    };
    let mut warnings = Vec::new();
    let made = make(&order, file, now, &mut warnings);
    warn(&warnings);
    match made {
        Ok(token) if args.json => print(&format!(
            "{}\n",
            json!({ "token": token, "sub": order.sub, "jti": order.jti, "expires": now + order.seconds })
        )),
        Ok(token) => print(&format!("{token}\n")),
        Err(error) => fail(FAILED, &error.to_string()),
    }
}

fn check(args: &TokenArgs, now: u64) -> ExitCode {
    let token = match read_token(args.token.as_deref()) {
        Ok(token) => token,
        Err(problem) => return fail(FAILED, &problem),
    };
    let said = match inspect(&token) {
        Ok(said) => said,
        Err(refusal) => return fail(FAILED, &format!("not good: {refusal}")),
    };
    let verdict = match args.plans() {
        Ok(plans) if plans.is_empty() => {
            let keys = "--hmac-file, --pem-file, --jwks-file, --jwks-url or --config";
            Err(format!("its signature was not checked; give keys by {keys}"))
        }
        Ok(plans) => match explained(plans, &token, &said, now) {
            Ok(verdict) => verdict,
            Err(problem) => return fail(FAILED, &problem),
        },
        Err(problem) => return fail(FAILED, &problem),
    };
    let code = if verdict.is_ok() { ExitCode::SUCCESS } else { ExitCode::from(FAILED) };
    let text = if args.json { as_json(&said, &verdict) } else { as_text(&said, &verdict, now) };
    if print(&text) == ExitCode::SUCCESS { code } else { ExitCode::from(FAILED) }
}

/// What the issuer among these has to say that the token names; only its keys are read or fetched.
fn explained(
    mut plans: Vec<IssuerPlan>,
    token: &str,
    (_, claims): &Said,
    now: u64,
) -> Result<Verdict, String> {
    plans.retain(|plan| plan.issuer.is_none() || plan.issuer.as_deref() == claims["iss"].as_str());
    let mut fetched = String::new();
    let loaded = Issuers::load_with(&plans, |url, ca| {
        // A query may be a secret.
        fetched = format!("{}, ", url.split('?').next().unwrap_or_default());
        let mut skipped = Vec::new();
        let keys = fetch_once(url, ca, &mut skipped);
        warn(&skipped.iter().map(|skipped| format!("{fetched}{skipped}")).collect::<Vec<_>>());
        keys
    });
    let loaded = loaded.map_err(|error| error.to_string())?;
    warn(&loaded.warnings);
    let explained = loaded.issuers.explain(token, now);
    Ok(explained
        .map(|(claims, key)| (claims, format!("{fetched}{key}")))
        .map_err(|refusal| refusal.to_string()))
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        fail(0, &format!("warning: {warning}"));
    }
}

/// The token, without the end of line behind it.
fn read_token(file: Option<&Path>) -> Result<String, String> {
    let file = file.filter(|file| file.as_os_str() != "-");
    let name = file.map_or_else(|| "standard input".to_owned(), |file| file.display().to_string());
    let mut text = String::new();
    // One byte too many shows that it is too long, blanks around it included.
    let bytes_max = 2 * TOKEN_BYTES_MAX as u64;
    let read = match file {
        Some(file) => {
            std::fs::File::open(file).and_then(|opened| opened.take(bytes_max).read_to_string(&mut text))
        }
        None => std::io::stdin().lock().take(bytes_max).read_to_string(&mut text),
    };
    read.map_err(|error| format!("{name}: cannot be read: {error}"))?;
    // As it stands in a header field that somebody has copied.
    let text = text.trim();
    Ok(text.strip_prefix("Bearer ").unwrap_or(text).trim_start().to_owned())
}

impl TokenArgs {
    /// Who may have issued it; nobody if no keys are given.
    fn plans(&self) -> Result<Vec<IssuerPlan>, String> {
        if let Some(file) = &self.config {
            return configured(file);
        }
        let hmac = self.hmac_file.iter().map(|file| KeySource::Hmac { file: file.clone(), kid: None });
        let pem = self.pem_file.iter().map(|file| KeySource::Pem { file: file.clone(), kid: None });
        let jwks = self.jwks_file.iter().map(|file| KeySource::Jwks { file: file.clone() });
        let ca = &self.jwks_ca_file;
        let url = self.jwks_url.iter().map(|url| KeySource::Url { url: url.clone(), ca: ca.clone() });
        let keys: Vec<KeySource> = hmac.chain(pem).chain(jwks).chain(url).collect();
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let (issuer, audience) = (self.issuer.clone(), self.audience.clone());
        Ok(vec![IssuerPlan { issuer, audience, leeway_seconds: LEEWAY_SECONDS, keys }])
    }
}

/// Who issues tokens by a configuration, read as the server reads it.
fn configured(file: &Path) -> Result<Vec<IssuerPlan>, String> {
    let environment = std::env::vars_os().collect();
    let sources = Sources { file: Some(file.to_owned()), environment, flags: Vec::new() };
    let plans = load(&sources).map_err(|errors| errors.to_string())?.settings.issuer_plans();
    if plans.is_empty() {
        return Err(format!("{}: it has no [[auth.issuer]]", file.display()));
    }
    Ok(plans)
}

type Said = (Value, Value);

/// What a good token says, and which key has signed it; or why it is not good.
type Verdict = Result<(Claims, String), String>;

fn as_json((header, claims): &Said, verdict: &Verdict) -> String {
    let answer = json!({
        "good": verdict.is_ok(),
        "problem": verdict.as_ref().err(),
        "issuer": verdict.as_ref().ok().and_then(|(claims, _)| claims.issuer.as_deref()),
        "key": verdict.as_ref().ok().map(|(_, key)| key),
        "header": header,
        "claims": claims,
    });
    format!("{answer}\n")
}

/// A line for each field and claim, times as times, and the verdict at the end.
fn as_text((header, claims): &Said, verdict: &Verdict, now: u64) -> String {
    let mut text = String::new();
    for (part, values) in [("header", header), ("claims", claims)] {
        text.push_str(&format!("{part}\n"));
        for (name, value) in values.as_object().into_iter().flatten() {
            let line = format!("  {name:<10} {value}{}", when(name, value, now));
            text.push_str(&format!("{}\n", shown(&line, false)));
        }
    }
    text.push_str(&match verdict {
        Ok((claims, key)) => {
            let list = |of: &Option<Grants>| match of {
                None => "whatever those with a token may".to_owned(),
                Some(of) if of.is_empty() => "nothing".to_owned(),
                Some(of) => of.texts(&claims.sub).collect::<Vec<_>>().join(", "),
            };
            let (sub, subscribe, publish) = (&claims.sub, list(&claims.subscribe), list(&claims.publish));
            let line = format!("good: {sub} may subscribe to {subscribe}, and publish to {publish}");
            let signed = format!("signed with {key}");
            format!("{}\n{}\n", shown(&signed, false), shown(&line, false))
        }
        Err(problem) => format!("not good: {problem}\n"),
    });
    text
}

/// A time as people write it, and how far away it is.
fn when(name: &str, value: &Value, now: u64) -> String {
    let seconds = match name {
        "exp" | "nbf" | "iat" => value.as_f64().filter(|seconds| (0.0..=253_402_300_799.0).contains(seconds)),
        _ => None,
    };
    let Some(seconds) = seconds.map(|seconds| seconds as u64) else { return String::new() };
    let date = httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds));
    let far = match seconds.abs_diff(now) {
        0..=119 => format!("{} s", seconds.abs_diff(now)),
        far @ 120..=7_199 => format!("{} min", far / 60),
        far @ 7_200..=172_799 => format!("{} h", far / 3_600),
        far => format!("{} days", far / 86_400),
    };
    if seconds > now { format!(" ({date}, in {far})") } else { format!(" ({date}, {far} ago)") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_told_as_dates_and_how_far_away_they_are() {
        let at = |seconds: u64, now: u64| when("exp", &seconds.into(), now);
        assert_eq!(at(784_111_777, 784_111_700), " (Sun, 06 Nov 1994 08:49:37 GMT, in 77 s)");
        assert!(at(1_000_000, 1_007_199).ends_with(", 119 min ago)"));
        assert!(at(1_100_000, 1_000_000).ends_with(", in 27 h)"));
        assert!(at(2_000_000, 1_000_000).ends_with(", in 11 days)"));
        for not in [Value::from("x"), Value::from(-1), Value::from(1e20), Value::Null] {
            assert_eq!(when("exp", &not, 0), "");
        }
        assert_eq!(when("sub", &5.into(), 0), "");
    }

    #[test]
    fn what_a_token_says_cannot_write_on_the_terminal() {
        let said = (json!({"alg": "HS256"}), json!({"sub": "a\u{1b}[2J\u{202e}", "exp": 1}));
        let text = as_text(&said, &Err("no".to_owned()), 0);
        assert!(!text.contains(['\u{1b}', '\u{202e}']), "{text}");
        assert!(text.ends_with("not good: no\n") && text.contains("header\n  alg"), "{text}");
    }
}
