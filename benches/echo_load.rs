//! Echoes in a closed loop: each connection sends its next message when the one before has come back, so that the
//! server is never without work and never behind. One thread and one epoll; per echo one `recv` and one `send`.
//!
//! It connects, warms up, and prints one line: echoes, seconds, and the processor time of the server and its own, all
//! between the same two moments. `benches/echo.py` runs it.

#[path = "common/client.rs"]
mod client;

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use clap::Parser;
use fantail::sys::clock::process_cpu_time;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};

const EVENTS_PER_TURN: usize = 1_024;

/// Echoes in a closed loop: how many a second, and what each costs the server.
#[derive(Parser)]
struct Flags {
    /// The server.
    #[arg(long)]
    connect: SocketAddr,
    /// Path of the upgrade.
    #[arg(long, default_value = "/echo")]
    path: String,
    /// Connections, each with one message under way.
    #[arg(long, default_value_t = 100)]
    connections: usize,
    /// Bytes of a message.
    #[arg(long, default_value_t = 128)]
    size: usize,
    /// Seconds before the measured ones.
    #[arg(long, default_value_t = 0.5)]
    warm: f64,
    /// Seconds measured.
    #[arg(long, default_value_t = 3.0)]
    seconds: f64,
    /// The server's process, for its processor time.
    #[arg(long)]
    pid: u32,
}

struct Load {
    poll: Poll,
    events: Events,
    /// With the bytes of the echo that have come.
    sockets: Vec<(TcpStream, usize)>,
    frame: Vec<u8>,
    /// Bytes of an echo on the wire.
    answer: usize,
    scratch: Vec<u8>,
    echoes: u64,
    polls: u64,
}

fn main() -> io::Result<()> {
    let flags = Flags::parse();
    let mut load = Load::connect(&flags)?;
    for index in 0..load.sockets.len() {
        load.send(index)?;
    }
    load.run_for(Duration::from_secs_f64(flags.warm))?;
    let before = Reading::now(&load, flags.pid)?;
    load.run_for(Duration::from_secs_f64(flags.seconds))?;
    let after = Reading::now(&load, flags.pid)?;
    println!(
        "echoes={} seconds={:.6} server_ns={} client_ns={} polls={}",
        after.echoes - before.echoes,
        (after.at - before.at).as_secs_f64(),
        (after.server - before.server).as_nanos(),
        (after.own - before.own).as_nanos(),
        after.polls - before.polls,
    );
    Ok(())
}

struct Reading {
    at: Instant,
    server: Duration,
    own: Duration,
    echoes: u64,
    polls: u64,
}

impl Reading {
    fn now(load: &Load, server: u32) -> io::Result<Self> {
        Ok(Self {
            at: Instant::now(),
            server: process_cpu_time(Some(server))?,
            own: process_cpu_time(None)?,
            echoes: load.echoes,
            polls: load.polls,
        })
    }
}

impl Load {
    fn connect(flags: &Flags) -> io::Result<Self> {
        let poll = Poll::new()?;
        let mut sockets = Vec::with_capacity(flags.connections);
        for index in 0..flags.connections {
            let stream = client::upgrade(flags.connect, &flags.path)?;
            stream.set_nonblocking(true)?;
            let mut stream = TcpStream::from_std(stream);
            poll.registry().register(&mut stream, Token(index), Interest::READABLE)?;
            sockets.push((stream, 0));
        }
        let (frame, answer) = frame(flags.size);
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS_PER_TURN),
            sockets,
            frame,
            answer,
            scratch: vec![0; 64 * 1024],
            echoes: 0,
            polls: 0,
        })
    }

    fn send(&mut self, index: usize) -> io::Result<()> {
        let Some((socket, _)) = self.sockets.get_mut(index) else { return Ok(()) };
        // One message under way always fits the socket's buffer.
        socket.write_all(&self.frame)
    }

    fn run_for(&mut self, time: Duration) -> io::Result<()> {
        let until = Instant::now() + time;
        while Instant::now() < until {
            match self.poll.poll(&mut self.events, Some(Duration::from_secs(5))) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                turn => turn?,
            }
            self.polls += 1;
            if self.events.is_empty() {
                return Err(io::Error::other("no echo has come for five seconds"));
            }
            let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
            for event in &events {
                self.receive(event.token().0)?;
            }
            self.events = events;
        }
        Ok(())
    }

    fn receive(&mut self, index: usize) -> io::Result<()> {
        let Some((socket, come)) = self.sockets.get_mut(index) else { return Ok(()) };
        match socket.read(&mut self.scratch) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => *come += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
        if *come < self.answer {
            return Ok(());
        }
        *come -= self.answer;
        self.echoes += 1;
        self.send(index)
    }
}

/// A masked binary frame (RFC 6455, 5.2) of `size` bytes, and the bytes of its echo, which has no mask.
fn frame(size: usize) -> (Vec<u8>, usize) {
    let mut frame = vec![0x82];
    match (u8::try_from(size), u16::try_from(size)) {
        (Ok(size @ 0..126), _) => frame.push(0x80 | size),
        (_, Ok(size)) => {
            frame.push(0x80 | 126);
            frame.extend(size.to_be_bytes());
        }
        _ => {
            frame.push(0x80 | 127);
            frame.extend((size as u64).to_be_bytes());
        }
    }
    let answer = frame.len() + size;
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    frame.extend(mask);
    frame.extend((0..size).map(|at| b'a' ^ mask[at % 4]));
    (frame, answer)
}
