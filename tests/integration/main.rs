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
mod hostile;
mod http;
mod memory;
mod observe;
mod preflight;
mod pressure;
mod process;
mod publish;
mod reload;
mod server;
mod sizes;
mod slow;
mod supervised;
mod sysctl;
