//! Where the load goes and how answers of HTTP are read. No run, no result.

pub(crate) mod body;
pub(crate) mod event_stream;
pub(crate) mod header;
pub(crate) mod http_answer;
pub(crate) mod target;
pub(crate) mod ways;
