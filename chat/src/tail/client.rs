//! The application by HTTP, for one person: logged in once, with the cookies that it gave. An error says whether the same may
//! work later.

use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use serde_json::{Value, json};
use ureq::Agent;
use ureq::http::Response;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// A whole call.
const TIMEOUT: Duration = Duration::from_secs(15);
/// Of the last one, which nobody waits for.
const FAREWELL: Duration = Duration::from_secs(2);
/// The longest answer: 200 messages of 4,000 characters, each of them escaped.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// What went wrong.
#[derive(Debug)]
pub(super) struct Trouble {
    /// Of the application; `offline` without an answer.
    pub(super) code: String,
    pub(super) message: String,
    pub(super) passes: bool,
}

/// Somebody's session.
pub(super) struct Client {
    agent: Agent,
    url: String,
    cookies: String,
    csrf: String,
}

impl Client {
    /// Of the application at this URL.
    pub(super) fn new(url: &str) -> Result<Self, String> {
        let agent = agent(url, Agent::config_builder().timeout_global(Some(TIMEOUT)))?;
        let url = url.trim_end_matches('/').to_owned();
        Ok(Self { agent, url, cookies: String::new(), csrf: String::new() })
    }

    /// Begins a session; who one is and which rooms one is in.
    pub(super) fn log_in(&mut self, name: &str, password: &str) -> Result<Value, Trouble> {
        let body = json!({"name": name, "password": password}).to_string();
        let request = self.agent.post(format!("{}/api/login", self.url));
        let mut answer = request.content_type("application/json").send(body).map_err(offline)?;
        let fields = answer.headers().get_all("set-cookie").iter().filter_map(|field| field.to_str().ok());
        let cookies: Vec<_> = fields.filter_map(|field| field.split(';').next()).map(str::to_owned).collect();
        let told = read(&mut answer)?;
        self.cookies = cookies.join("; ");
        self.csrf = told["csrf"].as_str().unwrap_or_default().to_owned();
        Ok(told)
    }

    pub(super) fn get(&self, path: &str) -> Result<Value, Trouble> {
        let request = self.agent.get(format!("{}/api{path}", self.url)).header("Cookie", &self.cookies);
        read(&mut request.call().map_err(offline)?)
    }

    /// Ends the session, if the application is there.
    pub(super) fn log_out(&self) {
        let request = self.agent.post(format!("{}/api/logout", self.url)).content_type("application/json");
        let request = request.header("Cookie", &self.cookies).header("X-CSRF-Token", &self.csrf);
        let _ = request.config().timeout_global(Some(FAREWELL)).build().send("{}");
    }
}

fn offline(error: ureq::Error) -> Trouble {
    let message = format!("the application can't be reached: {error}");
    Trouble { code: "offline".to_owned(), message, passes: true }
}

fn read(answer: &mut Response<ureq::Body>) -> Result<Value, Trouble> {
    let status = answer.status().as_u16();
    let text = answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string().map_err(offline)?;
    let told: Value = serde_json::from_str(&text).unwrap_or_default();
    if status == 200 && told.is_object() {
        return Ok(told);
    }
    let said = |name: &str| told["error"][name].as_str().map(str::to_owned);
    Err(Trouble {
        code: said("code").unwrap_or_else(|| "broken".to_owned()),
        message: said("message")
            .unwrap_or_else(|| format!("the application answered {status}, and not as a chat does")),
        passes: status >= 500 || status == 429,
    })
}

/// An agent for one URL, which trusts whom the machine trusts.
pub(super) fn agent(
    url: &str,
    config: ureq::config::ConfigBuilder<ureq::typestate::AgentScope>,
) -> Result<Agent, String> {
    let config = config.http_status_as_error(false).max_redirects(0).proxy(None).user_agent("fantail-chat");
    if url.starts_with("http://") {
        return Ok(config.build().into());
    }
    if !url.starts_with("https://") {
        return Err(format!("a URL begins with http:// or https://: {url}"));
    }
    let found = rustls_native_certs::load_native_certs().certs;
    let roots: Vec<_> =
        found.iter().map(|found: &CertificateDer<'_>| Certificate::from_der(found).to_owned()).collect();
    let tls = TlsConfig::builder()
        .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()))
        .root_certs(RootCerts::Specific(Arc::new(roots)))
        .build();
    Ok(config.tls_config(tls).build().into())
}
