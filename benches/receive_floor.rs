//! The floor of receiving: what a message costs a client at least. One thread, one edge-triggered epoll, and per
//! event one `recv` into 64 KiB, again only if it was full. Bytes are counted and otherwise not looked at: no frame
//! is parsed, no content compared, no clock read, nothing counted per connection.
//!
//! It connects and upgrades, says `receive ready`, receives `--bytes` in all, says `receive done bytes=N reads=N`,
//! and ends when its standard input does: whoever measures it reads its processor time between the two lines.

#[path = "common/client.rs"]
mod client;

use std::io::{self, Read};
use std::net::SocketAddr;

use clap::Parser;
use fantail::sys::limits;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

/// As the load generator's.
const SCRATCH_BYTES: usize = 64 * 1024;
const EVENTS_PER_TURN: usize = 1_024;

/// A bare receive loop: what a received message costs at least.
#[derive(Parser)]
struct Flags {
    /// The server.
    #[arg(long)]
    connect: SocketAddr,
    /// Path of the upgrade.
    #[arg(long, default_value = "/ws")]
    path: String,
    /// Sockets to hold.
    #[arg(long, default_value_t = 1_000)]
    connections: usize,
    /// Bytes to receive over all sockets, frame headers included.
    #[arg(long)]
    bytes: u64,
}

fn main() -> io::Result<()> {
    let flags = Flags::parse();
    limits::raise_nofile()?;
    let mut poll = Poll::new()?;
    let mut sockets = Vec::with_capacity(flags.connections);
    for index in 0..flags.connections {
        let stream = client::upgrade(flags.connect, &flags.path)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        poll.registry().register(&mut stream, Token(index), Interest::READABLE)?;
        sockets.push(stream);
    }
    println!("receive ready pid={}", std::process::id());
    let (bytes, reads) = receive(&mut poll, &mut sockets, flags.bytes)?;
    println!("receive done bytes={bytes} reads={reads}");
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Ok(())
}

fn receive(poll: &mut Poll, sockets: &mut [TcpStream], wanted: u64) -> io::Result<(u64, u64)> {
    let mut events = Events::with_capacity(EVENTS_PER_TURN);
    let mut scratch = vec![0; SCRATCH_BYTES];
    let (mut bytes, mut reads) = (0, 0);
    while bytes < wanted {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            turn => turn?,
        }
        for event in &events {
            let Some(socket) = sockets.get_mut(event.token().0) else { continue };
            loop {
                match socket.read(&mut scratch) {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    Ok(length) => {
                        bytes += length as u64;
                        reads += 1;
                        if length < SCRATCH_BYTES {
                            break;
                        }
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok((bytes, reads))
}
