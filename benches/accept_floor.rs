//! The floor of a handshake: per thread one SO_REUSEPORT listener, one edge-triggered epoll, and
//! per connection one accept4, one epoll_ctl, one recv of the head, the accept key, one send of the
//! 101. The socket is kept until its peer leaves. No timeout, no limit, no second read: a head that
//! does not arrive whole is dropped and counted.
//!
//! With `--echo` it is the floor of an echo, too: per event one recv, which has to bring one whole masked frame, and
//! one send of its payload behind a new header.
//!
//! `cargo build --release --examples && target/release/examples/accept_floor --threads 2`

mod common;

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::mpsc;
use std::thread;

use clap::Parser;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

const LISTENER: Token = Token(usize::MAX);

/// A bare accept-and-answer loop: what a WebSocket handshake costs at least.
#[derive(Parser)]
struct Flags {
    /// Where clients connect.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Taken so that harnesses can pass it to every server; nothing listens there.
    #[arg(long, default_value = "127.0.0.1:0")]
    admin: SocketAddr,
    /// Threads, each with a listener of its own.
    #[arg(long, default_value_t = 1)]
    threads: usize,
    /// Echo what comes after the upgrade.
    #[arg(long)]
    echo: bool,
}

fn main() -> io::Result<()> {
    let flags = Flags::parse();
    let table = common::Table::prepare()?;
    let mut address = flags.listen;
    let mut threads = Vec::new();
    for _ in 0..flags.threads.max(1) {
        let (bound, is_bound) = mpsc::channel();
        threads.push(thread::spawn(move || {
            if let Err(error) = serve(address, table, flags.echo, &bound) {
                // A floor with a thread missing would be measured as if it were whole.
                eprintln!("accept_floor: {error}");
                std::process::exit(1);
            }
        }));
        // The first thread settles the port, the others join it.
        address = is_bound.recv().map_err(io::Error::other)?;
    }
    common::print_ready(address, flags.admin);
    for thread in threads {
        let _ = thread.join();
    }
    Ok(())
}

fn serve(
    address: SocketAddr,
    table: common::Table,
    echo: bool,
    bound: &mpsc::Sender<SocketAddr>,
) -> io::Result<()> {
    table.split_off();
    let mut poll = Poll::new()?;
    let mut listener = common::listen(address)?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    bound.send(listener.local_addr()?).map_err(io::Error::other)?;
    let mut events = Events::with_capacity(1024);
    let mut sockets = Sockets { by_descriptor: Vec::new(), head: vec![0; common::HEAD_BYTES_MAX], echo };
    loop {
        if let Err(error) = poll.poll(&mut events, None) {
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        }
        for event in &events {
            match event.token() {
                LISTENER => sockets.accept_all(&listener, &poll)?,
                Token(descriptor) => sockets.answer(descriptor),
            }
        }
    }
}

struct Sockets {
    /// The flag says whether the 101 has been sent.
    by_descriptor: Vec<Option<(TcpStream, bool)>>,
    /// Every head is read here.
    head: Vec<u8>,
    echo: bool,
}

impl Sockets {
    fn accept_all(&mut self, listener: &TcpListener, poll: &Poll) -> io::Result<()> {
        loop {
            let mut socket = match listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            let descriptor = socket.as_raw_fd() as usize;
            poll.registry().register(&mut socket, Token(descriptor), Interest::READABLE)?;
            if self.by_descriptor.len() <= descriptor {
                self.by_descriptor.resize_with(descriptor + 1, || None);
            }
            self.by_descriptor[descriptor] = Some((socket, false));
        }
    }

    /// The first event of a socket brings its head; a later one an echo's frame, or it means that the peer left.
    fn answer(&mut self, descriptor: usize) {
        let Some(slot) = self.by_descriptor.get_mut(descriptor) else { return };
        let Some((socket, answered)) = slot else { return };
        if !*answered
            && let Ok(length) = socket.read(&mut self.head)
            && common::head_end(&self.head[..length]).is_some()
            && let Some(answer) = common::upgrade_answer(&self.head[..length])
            && socket.write(answer.as_bytes()).is_ok()
        {
            *answered = true;
            return;
        }
        if *answered
            && self.echo
            && let Ok(length) = socket.read(&mut self.head)
            && let Some(frame) = unmasked(&mut self.head[..length])
            && socket.write(frame).is_ok()
        {
            return;
        }
        if !*answered {
            eprintln!("accept_floor: a connection without a whole upgrade request was dropped");
        }
        *slot = None;
    }
}

/// The echo of one whole masked frame (RFC 6455, 5.2) of less than 64 KiB, made in its place.
fn unmasked(frame: &mut [u8]) -> Option<&[u8]> {
    let header = match frame.get(1)? & 0x7f {
        0..126 => 2,
        126 => 4,
        _ => return None,
    };
    let mask: [u8; 4] = frame.get(header..header + 4)?.try_into().ok()?;
    for (at, byte) in frame[header + 4..].iter_mut().enumerate() {
        *byte ^= mask[at % 4];
    }
    frame.copy_within(..header, 4);
    frame[5] &= 0x7f;
    Some(&frame[4..])
}
