//! Whether the answer to an upgrade is one that fits, and what is wrong with it if it is not. Pure.

use fantail::wire::deflate;
use fantail::wire::upgrade::{self, AnswerError};

use super::conversation::Conversation;
use crate::base::trouble::Trouble;

/// What is quoted of an answer.
const QUOTED_MAX: usize = 200;

/// The length of an answer's head that agrees to what was asked; `None` until it is whole.
pub(super) fn judge(
    bytes: &[u8],
    key: &[u8; 16],
    conversation: &Conversation,
    deflate: bool,
) -> Result<Option<usize>, Trouble> {
    // A banner has no end that an HTTP head would have, and would be waited for.
    let version = b"HTTP/";
    let begun = bytes.get(..version.len().min(bytes.len())).unwrap_or_default();
    if !version.starts_with(begun) {
        return Err(Trouble::NotHttp);
    }
    let answer = upgrade::check_answer(bytes, key).map_err(|error| match error {
        AnswerError::Refused(status) => Trouble::UpgradeRefused(status),
        AnswerError::Malformed => Trouble::NotHttp,
        AnswerError::TooLarge => Trouble::UpgradeTooLarge,
        AnswerError::NotUpgrade => Trouble::UpgradeNotWebsocket,
        AnswerError::BadAccept => match field(bytes, "sec-websocket-accept") {
            Some(_) => Trouble::UpgradeWrongAccept,
            None => Trouble::UpgradeWithoutAccept,
        },
    })?;
    let Some(head_len) = answer else { return Ok(None) };
    let head = bytes.get(..head_len).unwrap_or_default();
    // RFC 6455 section 4.1: an extension that was not offered fails the connection.
    match (upgrade::answer_field(head, "sec-websocket-extensions"), deflate) {
        (None, false) => {}
        (Some(answer), true) if deflate::is_answer(&answer) => {}
        (_, true) => return Err(Trouble::UpgradeNotDeflated),
        (Some(_), false) => return Err(Trouble::UpgradeExtension),
    }
    let chosen = upgrade::answer_field(head, "sec-websocket-protocol");
    if !conversation.accepts_protocol(chosen.as_deref()) {
        return Err(Trouble::UpgradeSubprotocol);
    }
    Ok(Some(head_len))
}

/// What the answer says about a trouble.
pub(super) fn detail(trouble: Trouble, bytes: &[u8]) -> Option<String> {
    let text = |bytes: &[u8]| {
        let line = String::from_utf8_lossy(bytes.get(..QUOTED_MAX.min(bytes.len())).unwrap_or_default());
        let line = line.lines().next().unwrap_or_default().trim().to_owned();
        (!line.is_empty()).then_some(line)
    };
    match trouble {
        Trouble::NotHttp | Trouble::AwaitRefused => text(bytes).map(|line| format!("it says {line:?}")),
        Trouble::AwaitTimeout | Trouble::AwaitClosed => {
            text(bytes).map(|line| format!("it said {line:?} instead"))
        }
        Trouble::UpgradeRefused(300..400) => {
            field(bytes, "location").map(|location| format!("it leads to {location}"))
        }
        Trouble::UpgradeRefused(_) => {
            let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
            text(bytes.get(end + 4..)?).map(|line| format!("it says {line:?}"))
        }
        Trouble::UpgradeSubprotocol => {
            field(bytes, "sec-websocket-protocol").map(|name| format!("it chose {name}"))
        }
        Trouble::UpgradeExtension => {
            field(bytes, "sec-websocket-extensions").map(|name| format!("it uses {name}"))
        }
        _ => None,
    }
}

fn field(bytes: &[u8], name: &str) -> Option<String> {
    upgrade::answer_field(bytes, name)
}
