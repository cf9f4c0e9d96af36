//! Fakes and presets held to the clients that the makers of the protocols publish: each of these clients gets along with
//! the fake, and a preset says nothing that its client does not say in the same form.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::fakes::{Fake, Said};

/// The client's own account of a run against a fake, and what the fake heard of it; `None` without the client.
pub(crate) fn run(kind: &str, fake: &Fake, credentials: &[&str]) -> Option<(Value, Said)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/presets");
    if !folder.join("node_modules").exists() {
        return None;
    }
    let mut node = Command::new("timeout");
    node.args(["120", "node"]).arg(folder.join("clients.mjs")).args([kind, &fake.url]).args(credentials);
    let output = node.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let account = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{kind}: {said}"));
    Some((account, fake.take_said()))
}

/// Asserts that a preset has said nothing but what the client says, too.
#[track_caller]
pub(crate) fn assert_alike(preset: &Said, client: &Said) {
    assert!(!preset.messages.is_empty() && !preset.paths.is_empty());
    for path in &preset.paths {
        let known = client.paths.iter().any(|known| {
            let (preset, client) = (parts(path), parts(known));
            preset.0 == client.0 && preset.1.is_subset(&client.1)
        });
        assert!(known, "{path} is none of {:?}", client.paths);
    }
    for message in &preset.messages {
        let known = client.messages.iter().any(|known| is_covered(message, known));
        assert!(known, "{message} is said by none of its clients, which say {:#?}", kinds(client));
    }
}

/// The path of a URL, and the names of its parameters.
fn parts(path: &str) -> (&str, BTreeSet<&str>) {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    (path, query.split('&').map(|pair| pair.split('=').next().unwrap_or_default()).collect())
}

/// Whether all that is in a message is in another, too: the same names, the same kinds of values, and the same words
/// where a protocol has words.
fn is_covered(said: &Value, known: &Value) -> bool {
    match (said, known) {
        (Value::Object(said), Value::Object(known)) => {
            // An empty object is a message of its own.
            said.is_empty() == known.is_empty()
                && said
                    .iter()
                    .all(|(name, value)| known.get(name).is_some_and(|known| is_covered(value, known)))
        }
        (Value::Array(said), Value::Array(known)) => {
            said.len() == known.len() && said.iter().zip(known).all(|(said, known)| is_covered(said, known))
        }
        (Value::String(said), Value::String(known)) => said == known || !(is_word(said) || is_word(known)),
        (Value::Number(_), Value::Number(_)) => true,
        _ => said == known,
    }
}

/// Whether a text is one of a protocol's own.
fn is_word(text: &str) -> bool {
    ["pusher:", "client-", "phx_"].iter().any(|begin| text.starts_with(begin))
        || ["phoenix", "heartbeat", "say"].contains(&text)
}

/// One message of each kind, to be read by a person.
fn kinds(said: &Said) -> Vec<&Value> {
    let mut kinds: Vec<&Value> = Vec::new();
    for message in &said.messages {
        if !kinds.iter().any(|known| is_covered(message, known)) {
            kinds.push(message);
        }
    }
    kinds
}
