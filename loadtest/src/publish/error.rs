//! Why a message was not published. The names are stable: they stand in result files.

use std::fmt;
use std::io;

use crate::base::trouble::Trouble;

/// Why a message was not published.
#[derive(Debug)]
pub(crate) enum PublishError {
    /// What was asked for makes no sense.
    Usage(String),
    /// The server answered with this HTTP status, and perhaps said why; nobody gets the message.
    Refused(u16, Option<String>),
    /// The server had closed the WebSocket, with this code and reason; the message was not sent.
    Closed(u16, String),
    /// The WebSocket could not be opened, or broke, and what the server said then; the message was not sent.
    Lost(Trouble, Option<String>),
    /// There was no connection on which to send the message in time.
    Unreached(io::Error),
    /// Nobody knows whether the server took the message.
    Unknown(io::Error),
}

impl PublishError {
    /// A stable name.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Usage(_) => "usage".into(),
            Self::Refused(status, _) => format!("status_{status}"),
            Self::Closed(code, _) => format!("closed_{code}"),
            Self::Lost(trouble, _) => trouble.name(),
            Self::Unreached(error) | Self::Unknown(error) => format!("{:?}", error.kind()).to_lowercase(),
        }
    }

    /// Whether the server was asked and said no.
    pub(crate) fn is_refusal(&self) -> bool {
        matches!(self, Self::Refused(..))
    }
}

impl fmt::Display for PublishError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Usage(what) => out.write_str(what),
            Self::Refused(status, None) => write!(out, "refused with status {status}"),
            Self::Refused(status, Some(why)) => write!(out, "refused with status {status}: {why}"),
            Self::Closed(code, reason) if reason.is_empty() => {
                write!(out, "the publisher's connection was closed by the server with code {code}")
            }
            Self::Closed(code, reason) => {
                write!(
                    out,
                    "the publisher's connection was closed by the server with code {code}, {reason:?}"
                )
            }
            Self::Lost(trouble, detail) => {
                write!(out, "the publisher's connection: {}", trouble.name())?;
                detail.iter().try_for_each(|detail| write!(out, " ({detail})"))
            }
            Self::Unreached(error) | Self::Unknown(error) => error.fmt(out),
        }
    }
}

impl From<io::Error> for PublishError {
    fn from(error: io::Error) -> Self {
        Self::Unknown(error)
    }
}
