//! The server from outside: the real binary on free ports, raw sockets, a deadline on every wait.

mod admin;
mod admin_keys;
mod admission;
mod answers;
mod batch;
mod bodies;
mod client;
mod conformance;
mod connect;
mod connect_hostile;
mod deflate;
mod delivery;
mod health;
mod history;
mod hostile;
mod http;
mod json;
mod memory;
mod observe;
mod page;
mod poll;
mod preflight;
mod pressure;
mod process;
mod publish;
mod reload;
mod rolling;
mod server;
mod sizes;
#[path = "../skip/mod.rs"]
mod skip;
mod slow;
mod sse;
mod stopped;
mod supervised;
mod sysctl;
