//! The server from outside: the real binary on free ports, raw sockets, a deadline on every wait.

mod admin;
mod admin_keys;
mod batch;
mod client;
mod conformance;
mod delivery;
mod http;
mod observe;
mod pressure;
mod process;
mod server;
mod slow;
