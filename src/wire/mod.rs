//! Bytes: HTTP heads, PROXY headers, the upgrade, WebSocket frames, masking, deflate, UTF-8. Pure;
//! never a clock or a socket.
//!
//! Everything here is a function of the bytes given; whoever owns a connection drives it. The server
//! and the load generator share this room, so it builds without the `server` feature.

pub mod close;
#[cfg(feature = "deflate")]
pub mod deflate;
pub mod frame;
pub mod http;
pub mod mask;
pub mod nearest;
pub mod network;
pub mod proxy;
pub mod upgrade;
pub mod utf8;
