#!/usr/bin/env bash
# crates.io tungstenite 0.30.0: a connection that has read nothing yet has its whole read buffer in memory, 128 KiB as it
# comes, because each read fills what it offers the kernel with zeros first. tokio-tungstenite and what is built on it
# inherit that. `WebSocketConfig::read_buffer_size` is the remedy.
#
# Output seen:
#   made, not read: 4546 bytes a connection
#   read once, nothing there: 135618 bytes a connection
#   the same with a read buffer of 4 KiB: 4392 bytes a connection
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
mkdir "$folder/src"
cat >"$folder/Cargo.toml" <<'TOML'
[package]
name = "touches"
version = "0.0.0"
edition = "2024"

[dependencies]
tungstenite = { version = "=0.30.0", default-features = false }

[workspace]
TOML
cat >"$folder/src/main.rs" <<'RUST'
use std::fs;
use std::mem::forget;
use std::os::unix::net::UnixStream;
use std::process::exit;

use tungstenite::WebSocket;
use tungstenite::protocol::{Role, WebSocketConfig};

const CONNECTIONS: usize = 400;

/// Memory that this process has written to.
fn used() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("RssAnon:")).unwrap();
    1024 * line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap()
}

/// Bytes of each connection as made, and after one read that finds nothing.
fn measured(config: WebSocketConfig) -> (usize, usize) {
    let pairs: Vec<_> = (0..CONNECTIONS).map(|_| UnixStream::pair().unwrap()).collect();
    let before = used();
    let mut peers = Vec::new();
    let mut sockets = Vec::new();
    for (ours, theirs) in pairs {
        ours.set_nonblocking(true).unwrap();
        peers.push(theirs);
        sockets.push(WebSocket::from_raw_socket(ours, Role::Server, Some(config)));
    }
    let made = used();
    for socket in &mut sockets {
        assert!(socket.read().is_err(), "nothing was sent");
    }
    let after = used();
    // What is freed here would be used again by the next.
    forget((sockets, peers));
    ((made - before) / CONNECTIONS, (after - before) / CONNECTIONS)
}

fn main() {
    let (_, small) = measured(WebSocketConfig::default().read_buffer_size(4096));
    let (made, read) = measured(WebSocketConfig::default());
    println!("made, not read: {made} bytes a connection");
    println!("read once, nothing there: {read} bytes a connection");
    println!("the same with a read buffer of 4 KiB: {small} bytes a connection");
    if !(made < 16 * 1024 && read >= 128 * 1024 && read < 160 * 1024 && small < 16 * 1024) {
        println!("CHANGED: this is not what was seen before");
        exit(1);
    }
}
RUST
cd "$folder"
cargo run --release --quiet
