//! The floor of a fan-out: what a delivery costs at least. For each message and each socket there
//! is exactly one `send(MSG_NOSIGNAL)` (that is what `TcpStream::write` does) with TCP_NODELAY set,
//! and on the way to it nothing else: no epoll call between the sends, no queue per connection, no
//! joining of messages. What the kernel refuses is lost and counted. Sixty messages at once are
//! sixty sends a socket, message by message.
//!
//! It answers real upgrades and publishes (`POST /publish/ANY` on the admin port, or any client's
//! text or binary frame), so that the load generator of a real server drives it. There is one topic:
//! every upgraded socket gets every message, its publisher too unless it asked for `echo=0`.
//! Fragmented messages are ignored.
//!
//! `GET /stats` on the admin port answers what was sent and lost; a signal prints it and ends.
//! `benches/check_floor.sh` holds the promise of the first paragraph with strace.

#[path = "floor/admin.rs"]
mod admin;
mod common;
#[path = "floor/frames.rs"]
mod frames;

use std::collections::HashMap;
use std::io::{self, Read, Write};
use std::mem;
use std::net::{SocketAddr, TcpListener as BlockingListener};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread;

use clap::Parser;
use fantail::sys::signals;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token, Waker};

use frames::Input;

const LISTENER: Token = Token(usize::MAX);
const WAKER: Token = Token(usize::MAX - 1);

/// Exactly one send per socket and message: what a fan-out costs at least.
#[derive(Parser)]
struct Flags {
    /// Where clients connect.
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where messages are published.
    #[arg(long, default_value = "127.0.0.1:8081")]
    admin: SocketAddr,
    /// Sending threads, each with a listener of its own.
    #[arg(long, default_value_t = 1)]
    threads: usize,
}

/// The way into one sending thread, and what it tells about itself.
pub(crate) struct Mailbox {
    frames: Mutex<Vec<Arc<[u8]>>>,
    waker: Waker,
    /// Upgraded sockets.
    pub(crate) subscribers: AtomicU64,
    /// Frames that the kernel took whole.
    pub(crate) sent: AtomicU64,
    /// Frames that it refused, or took in part.
    pub(crate) lost: AtomicU64,
}

impl Mailbox {
    /// Hands `frames` over; only whoever fills an empty mailbox makes the system call of a wake.
    pub(crate) fn push(&self, frames: &[Arc<[u8]>], is_own: bool) {
        let mut waiting = self.frames.lock().unwrap_or_else(PoisonError::into_inner);
        let was_empty = waiting.is_empty();
        waiting.extend_from_slice(frames);
        drop(waiting);
        if was_empty
            && !is_own
            && let Err(error) = self.waker.wake()
        {
            eprintln!("floor: a wake failed: {error}");
        }
    }

    fn take(&self, into: &mut Vec<Arc<[u8]>>) {
        mem::swap(&mut *self.frames.lock().unwrap_or_else(PoisonError::into_inner), into);
    }
}

fn main() -> io::Result<()> {
    let flags = Flags::parse();
    signals::block_all()?;
    // Polls and wakers come first: a split table keeps everything opened before `prepare`.
    let mut polls = Vec::new();
    let mut mailboxes = Vec::new();
    for _ in 0..flags.threads.max(1) {
        let poll = Poll::new()?;
        mailboxes.push(Mailbox {
            frames: Mutex::default(),
            waker: Waker::new(poll.registry(), WAKER)?,
            subscribers: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        });
        polls.push(poll);
    }
    let mailboxes: Arc<[Mailbox]> = mailboxes.into();
    let table = common::Table::prepare()?;
    let mut address = flags.listen;
    for (own, poll) in polls.into_iter().enumerate() {
        let (bound, is_bound) = mpsc::channel();
        let mailboxes = Arc::clone(&mailboxes);
        thread::spawn(move || {
            let error = Floor::start(poll, own, mailboxes, address, table).and_then(|mut floor| {
                bound.send(floor.listener.local_addr()?).map_err(io::Error::other)?;
                floor.run()
            });
            // A floor with a thread missing would be measured as if it were whole.
            eprintln!("floor: {error:?}");
            std::process::exit(1);
        });
        // The first thread settles the port, the others join it.
        address = is_bound.recv().map_err(io::Error::other)?;
    }
    let admin = BlockingListener::bind(flags.admin)?;
    common::print_ready(address, admin.local_addr()?);
    let served = Arc::clone(&mailboxes);
    thread::spawn(move || {
        let error = admin::serve(&admin, &served);
        eprintln!("floor: admin: {error:?}");
        std::process::exit(1);
    });
    signals::wait()?;
    eprintln!("{}", admin::stats(&mailboxes));
    Ok(())
}

/// One sending thread.
struct Floor {
    poll: Poll,
    listener: TcpListener,
    own: usize,
    mailboxes: Arc<[Mailbox]>,
    /// Upgraded sockets by descriptor: dense, and in the order of the accepts.
    sockets: Vec<Option<TcpStream>>,
    /// Sockets whose head is not whole yet, with what has come of it.
    heads: HashMap<usize, (TcpStream, Vec<u8>)>,
    /// Upgraded sockets that only publish.
    publishers: HashMap<usize, TcpStream>,
    /// Beginnings of frames, of the few clients that publish.
    inputs: HashMap<usize, Input>,
    scratch: Vec<u8>,
}

impl Floor {
    fn start(
        poll: Poll,
        own: usize,
        mailboxes: Arc<[Mailbox]>,
        address: SocketAddr,
        table: common::Table,
    ) -> io::Result<Self> {
        table.split_off();
        let mut listener = common::listen(address)?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        Ok(Self {
            poll,
            listener,
            own,
            mailboxes,
            sockets: Vec::new(),
            heads: HashMap::new(),
            publishers: HashMap::new(),
            inputs: HashMap::new(),
            scratch: vec![0; 64 * 1024],
        })
    }

    fn run(&mut self) -> io::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut frames = Vec::new();
        loop {
            match self.poll.poll(&mut events, None) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                turn => turn?,
            }
            for event in &events {
                match event.token() {
                    WAKER => {}
                    LISTENER => self.accept_all()?,
                    Token(descriptor) => self.read(descriptor),
                }
            }
            self.mailboxes[self.own].take(&mut frames);
            for frame in frames.drain(..) {
                self.send_to_all(&frame);
            }
        }
    }

    /// The floor itself.
    fn send_to_all(&mut self, frame: &[u8]) {
        let (mut sent, mut lost) = (0, 0);
        for socket in self.sockets.iter_mut().flatten() {
            match socket.write(frame) {
                Ok(length) if length == frame.len() => sent += 1,
                _ => lost += 1,
            }
        }
        self.mailboxes[self.own].sent.fetch_add(sent, Relaxed);
        self.mailboxes[self.own].lost.fetch_add(lost, Relaxed);
    }

    fn accept_all(&mut self) -> io::Result<()> {
        loop {
            let mut socket = match self.listener.accept() {
                Ok((socket, _)) => socket,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => continue,
                Err(error) => return Err(error),
            };
            let descriptor = socket.as_raw_fd() as usize;
            self.poll.registry().register(&mut socket, Token(descriptor), Interest::READABLE)?;
            self.heads.insert(descriptor, (socket, Vec::new()));
        }
    }

    /// Reads a socket dry and forgets it when its peer has left.
    fn read(&mut self, descriptor: usize) {
        let mut scratch = mem::take(&mut self.scratch);
        while let Some(socket) = self.socket(descriptor) {
            let stays = match socket.read(&mut scratch) {
                Ok(length) if length > 0 => self.on_bytes(descriptor, &scratch[..length]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                _ => false,
            };
            if !stays {
                self.forget(descriptor);
            }
        }
        self.scratch = scratch;
    }

    /// Takes bytes of a head or of frames; `false` if the connection ends here.
    fn on_bytes(&mut self, descriptor: usize, bytes: &[u8]) -> bool {
        let Some((socket, head)) = self.heads.get_mut(&descriptor) else {
            return self.on_frames(descriptor, bytes);
        };
        head.extend_from_slice(bytes);
        let Some(end) = common::head_end(head) else {
            return head.len() <= common::HEAD_BYTES_MAX;
        };
        let Some(answer) = common::upgrade_answer(&head[..end]) else { return false };
        if socket.write_all(answer.as_bytes()).is_err() {
            return false;
        }
        let Some((socket, head)) = self.heads.remove(&descriptor) else { return false };
        if admin::request_line(&head).ends_with(b"echo=0 HTTP/1.1") {
            self.publishers.insert(descriptor, socket);
        } else {
            if self.sockets.len() <= descriptor {
                self.sockets.resize_with(descriptor + 1, || None);
            }
            self.sockets[descriptor] = Some(socket);
            self.mailboxes[self.own].subscribers.fetch_add(1, Relaxed);
        }
        head.len() == end || self.on_frames(descriptor, &head[end..])
    }

    fn on_frames(&mut self, descriptor: usize, bytes: &[u8]) -> bool {
        let mut input = self.inputs.remove(&descriptor).unwrap_or_default();
        let taken = input.take(bytes);
        if !input.is_empty() {
            self.inputs.insert(descriptor, input);
        }
        if !taken.publish.is_empty() {
            for (index, mailbox) in self.mailboxes.iter().enumerate() {
                mailbox.push(&taken.publish, index == self.own);
            }
        }
        if !taken.answer.is_empty()
            && let Some(socket) = self.socket(descriptor)
        {
            let _ = socket.write(&taken.answer);
        }
        !taken.is_over
    }

    fn socket(&mut self, descriptor: usize) -> Option<&mut TcpStream> {
        if let Some((socket, _)) = self.heads.get_mut(&descriptor) {
            return Some(socket);
        }
        match self.sockets.get_mut(descriptor) {
            Some(Some(socket)) => Some(socket),
            _ => self.publishers.get_mut(&descriptor),
        }
    }

    fn forget(&mut self, descriptor: usize) {
        self.heads.remove(&descriptor);
        self.publishers.remove(&descriptor);
        self.inputs.remove(&descriptor);
        if self.sockets.get_mut(descriptor).and_then(Option::take).is_some() {
            self.mailboxes[self.own].subscribers.fetch_sub(1, Relaxed);
        }
    }
}
