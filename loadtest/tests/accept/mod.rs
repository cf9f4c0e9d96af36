//! A connection of a test's own server: upgraded by tungstenite, which shares no code with the generator. Included by
//! the tests that need it.

use std::net::TcpStream;

use tungstenite::WebSocket;
use tungstenite::handshake::server::{Request, Response};

/// Answers the upgrade; the connection, and the path that was asked for.
#[expect(clippy::result_large_err, reason = "the callback's type is the library's")]
pub(crate) fn accept(stream: TcpStream) -> (WebSocket<TcpStream>, String) {
    stream.set_nodelay(true).unwrap();
    let mut path = String::new();
    let callback = |request: &Request, response: Response| {
        path = request.uri().to_string();
        Ok(response)
    };
    (tungstenite::accept_hdr(stream, callback).unwrap(), path)
}
