//! The server from outside: the real binary on free ports, raw sockets, a deadline on every wait.

mod answers;
mod client;
mod conformance;
mod connect;
mod delivery;
mod http;
mod observe;
mod pressure;
mod process;
mod publish;
mod reload;
mod server;
mod sizes;
mod slow;
