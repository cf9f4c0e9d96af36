//! HTTP/1.1 as far as the server needs it: request heads, targets, chunked bodies, responses.
//!
//! Pure functions over bytes. Never a socket, and never a decision about what a path means.

pub mod chunked;
pub mod date;
pub mod head;
pub mod params;
pub mod response;
pub mod uri;
