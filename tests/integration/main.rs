//! The server from outside: the real binary on free ports, raw sockets, a deadline on every wait.

mod admission;
mod client;
mod conformance;
mod deflate;
mod delivery;
mod hostile;
mod http;
mod memory;
mod observe;
mod pressure;
mod process;
mod server;
mod slow;
