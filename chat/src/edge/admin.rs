//! Calls of the edge's admin port: publish, revoke, who is there, since when it runs. They may wait, so each is made on a
//! thread for such.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use ureq::Agent;

/// A whole call, with connecting.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer that is read.
const ANSWER_BYTES_MAX: u64 = 4 << 20;
/// Members that are told at a time.
const MEMBERS_MAX: usize = 200;

/// A call that brought no answer of use.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

/// What became of one message of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Published,
    /// There was no room: later.
    Busy,
    /// It will never be taken.
    Refused(String),
}

/// Who is on a topic.
#[derive(Debug, Default)]
pub(crate) struct Present {
    pub(crate) count: u64,
    /// Some of them.
    pub(crate) ids: Vec<String>,
    /// Behind whom there are more.
    pub(crate) next: Option<String>,
}

/// The admin port.
#[derive(Clone)]
pub(crate) struct Admin {
    agent: Agent,
    /// `None` while there is none, so that nobody who takes its port is shown the key.
    url: Arc<Mutex<Option<String>>>,
    key: Option<String>,
}

impl Admin {
    /// At `url`, `http://HOST:PORT`, with a key that opens everything, if it needs one.
    pub(crate) fn new(url: &str, key: Option<String>) -> Self {
        let config = Agent::config_builder().timeout_global(Some(TIMEOUT)).proxy(None);
        let agent = config.http_status_as_error(false).max_redirects(0).build().into();
        Self { agent, url: Arc::new(Mutex::new(Some(url.trim_end_matches('/').to_owned()))), key }
    }

    /// It is elsewhere now, or nowhere.
    pub(super) fn moved(&self, url: Option<String>) {
        *self.url.lock().unwrap_or_else(PoisonError::into_inner) = url;
    }

    /// Publishes text messages, each with its topic; tells what became of each.
    pub(crate) async fn publish(&self, messages: Vec<(String, String)>) -> Result<Vec<Outcome>, Failure> {
        let lines = messages
            .iter()
            .map(|(topic, payload)| format!("{}\n", json!({"topic": topic, "payload": payload})));
        let body: String = lines.collect();
        let answer = self.post("/publish", body).await?;
        let outcomes: Vec<_> = answer.lines().map(outcome).collect();
        if outcomes.len() == messages.len() {
            Ok(outcomes)
        } else {
            Err(Failure(format!("{} messages were answered by {} lines", messages.len(), outcomes.len())))
        }
    }

    /// Takes every token of `sub` that was issued until now back, and closes its connections.
    pub(crate) async fn revoke(&self, sub: &str, seconds: i64) -> Result<(), Failure> {
        // What is revoked here are names of people in this program's own alphabet.
        self.post(&format!("/revoke?identity={sub}&seconds={seconds}"), String::new()).await.map(drop)
    }

    /// How many are on a topic, and some of them in the order of their ids, from behind one on.
    pub(crate) async fn present(&self, topic: &str, after: &str) -> Result<Present, Failure> {
        #[derive(Deserialize)]
        struct Member {
            id: String,
        }
        #[derive(Deserialize)]
        struct Told {
            count: u64,
            #[serde(default)]
            members: Vec<Member>,
            next: Option<String>,
        }
        let after = if after.is_empty() { String::new() } else { format!("&after={after}") };
        let (status, answer) =
            self.call(format!("/presence?topic={topic}&limit={MEMBERS_MAX}{after}"), None).await?;
        // A topic that nobody is on does not exist.
        if status == 404 {
            return Ok(Present::default());
        }
        let answer = good(status, answer)?;
        let told: Told = serde_json::from_str(&answer).map_err(|error| Failure(error.to_string()))?;
        let ids = told.members.into_iter().map(|member| member.id).collect();
        Ok(Present { count: told.count, ids, next: told.next })
    }

    /// Which process it is: when it was started, as it says.
    pub(crate) async fn started(&self) -> Result<String, Failure> {
        let (status, answer) = self.call("/metrics".to_owned(), None).await?;
        let answer = good(status, answer)?;
        let line = answer.lines().find_map(|line| line.strip_prefix("process_start_time_seconds "));
        line.map(str::to_owned).ok_or_else(|| Failure("/metrics does not tell when it started".to_owned()))
    }

    async fn post(&self, path: &str, body: String) -> Result<String, Failure> {
        let (status, answer) = self.call(path.to_owned(), Some(body)).await?;
        good(status, answer)
    }

    async fn call(&self, path: String, body: Option<String>) -> Result<(u16, String), Failure> {
        let url = self.url.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let url = url.ok_or_else(|| Failure("it is being started again".to_owned()))? + &path;
        let this = self.clone();
        let work = move || this.call_here(&url, body);
        match tokio::task::spawn_blocking(work).await {
            Ok(answer) => answer.map_err(|error| Failure(error.to_string())),
            Err(error) => Err(Failure(error.to_string())),
        }
    }

    fn call_here(&self, url: &str, body: Option<String>) -> Result<(u16, String), ureq::Error> {
        let bearer = self.key.as_ref().map(|key| format!("Bearer {key}"));
        let mut answer = match body {
            Some(body) => {
                let request = self.agent.post(url);
                let request =
                    bearer.iter().fold(request, |request, bearer| request.header("Authorization", bearer));
                request.send(body)?
            }
            None => {
                let request = self.agent.get(url);
                let request =
                    bearer.iter().fold(request, |request, bearer| request.header("Authorization", bearer));
                request.call()?
            }
        };
        let status = answer.status().as_u16();
        Ok((status, answer.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string()?))
    }
}

fn good(status: u16, answer: String) -> Result<String, Failure> {
    let line = || answer.lines().next().unwrap_or_default().to_owned();
    if status == 200 { Ok(answer) } else { Err(Failure(format!("it answered {status}: {}", line()))) }
}

fn outcome(line: &str) -> Outcome {
    let said: Value = serde_json::from_str(line).unwrap_or_default();
    match said.get("error").and_then(Value::as_str) {
        None if said.get("offset").is_some() => Outcome::Published,
        Some("busy") => Outcome::Busy,
        _ => Outcome::Refused(line.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_a_batch_are_understood() {
        let said = |line: &str| outcome(line);
        assert_eq!(said(r#"{"epoch":"4b36d6a91d694722","offset":3,"subscribers":2}"#), Outcome::Published);
        assert_eq!(said(r#"{"error":"busy","message":"later"}"#), Outcome::Busy);
        assert!(matches!(said(r#"{"error":"too_large","message":"x"}"#), Outcome::Refused(_)));
        assert!(matches!(said("nonsense"), Outcome::Refused(_)));
    }
}
