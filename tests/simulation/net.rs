//! The fake kernel: one link per connection with a bounded send queue, edges as epoll gives them, listeners, and
//! the faults that a run may plant.
//!
//! What it promises is what Linux promises: an edge for every arrival, and an edge after a write that was
//! refused or taken in part. Everything else is chance.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use fantail::edition::Router;
use fantail::event_loop::core::Readiness;
use fantail::event_loop::listener::Listen;
use fantail::topic::{Key, TopicName, Wake};
use fantail::transport::{Received, Socket};

use super::rng::Rng;

/// What a run plants to see that it is caught.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// One wake-up towards a sleeping loop is lost.
    LostWake,
    /// Now and then the bytes of a write reach the peer twice.
    DoubledWrite,
    /// Now and then the bytes of a write never reach the peer.
    LostWrite,
    /// Now and then an edge never comes.
    LostEdge,
}

/// What a run is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plan {
    /// What is wrong with it.
    pub(crate) fault: Fault,
    /// Whether the server speaks the dialects of tests, too.
    pub(crate) test_dialects: bool,
    /// Whether peers are waited for and nobody is closed for being slow, so that everything has to arrive.
    pub(crate) patient: bool,
}

/// Wake-ups that loops are owed.
pub(crate) struct Wakes {
    owed: Vec<AtomicBool>,
    /// Wake-ups to lose from now on.
    lose: AtomicUsize,
}

impl Wakes {
    /// None owed to any of `loops`.
    pub(crate) fn new(loops: usize) -> Arc<Self> {
        Arc::new(Self {
            owed: (0..loops).map(|_| AtomicBool::new(false)).collect(),
            lose: AtomicUsize::new(0),
        })
    }

    /// Loses the next `count` wake-ups.
    pub(crate) fn lose(&self, count: usize) {
        self.lose.store(count, Ordering::Relaxed);
    }

    /// Whether this loop's poll would return.
    pub(crate) fn is_owed(&self, index: usize) -> bool {
        self.owed[index].load(Ordering::Relaxed)
    }

    /// The poll has returned.
    pub(crate) fn take(&self, index: usize) {
        self.owed[index].store(false, Ordering::Relaxed);
    }
}

/// What the router is given.
pub(crate) struct Waker(pub(crate) Arc<Wakes>);

impl Wake for Waker {
    fn wake(&self, loop_index: usize) {
        let lose = self.0.lose.load(Ordering::Relaxed);
        if lose > 0 {
            self.0.lose.store(lose - 1, Ordering::Relaxed);
        } else {
            self.0.owed[loop_index].store(true, Ordering::Relaxed);
        }
    }
}

/// What all links share.
pub(crate) struct Hub {
    /// Chance inside the kernel.
    pub(crate) rng: RefCell<Rng>,
    /// Links with an edge to report, per loop.
    ready: RefCell<Vec<VecDeque<usize>>>,
    /// The planted fault.
    pub(crate) fault: Fault,
    /// How often it struck.
    pub(crate) struck: Cell<usize>,
    /// How much was published so far.
    published: Cell<u64>,
    /// The same when everything was delivered last.
    rested: Cell<u64>,
    /// Asked for offsets when a 101 goes out.
    pub(crate) router: Arc<Router>,
}

impl Hub {
    /// A kernel without links.
    pub(crate) fn new(seed: u64, loops: usize, fault: Fault, router: Arc<Router>) -> Rc<Self> {
        Rc::new(Self {
            rng: RefCell::new(Rng::new(seed ^ 0x5EED)),
            ready: RefCell::new(vec![VecDeque::new(); loops]),
            fault,
            struck: Cell::new(0),
            published: Cell::new(0),
            rested: Cell::new(0),
            router,
        })
    }

    /// Counts a message that was published: how many that makes.
    pub(crate) fn count(&self) -> u64 {
        self.published.set(self.published.get() + 1);
        self.published.get()
    }

    /// Everything is delivered.
    pub(crate) fn rest(&self) {
        self.rested.set(self.published.get());
    }

    /// Links of a loop that have an edge to report.
    pub(crate) fn take_ready(&self, index: usize) -> VecDeque<usize> {
        std::mem::take(&mut self.ready.borrow_mut()[index])
    }

    /// Whether this loop's poll would return.
    pub(crate) fn has_ready(&self, index: usize) -> bool {
        !self.ready.borrow()[index].is_empty()
    }

    fn strikes(&self, fault: Fault, one_in: usize) -> bool {
        let strikes = self.fault == fault && self.rng.borrow_mut().one_in(one_in);
        self.struck.set(self.struck.get() + usize::from(strikes));
        strikes
    }
}

/// Both directions of one connection.
pub(crate) struct Pipe {
    /// On its way to the server.
    pub(crate) to_server: VecDeque<u8>,
    /// The peer ended its side.
    pub(crate) fin: bool,
    /// The send queue: taken by the kernel, not read by the peer.
    pub(crate) to_peer: VecDeque<u8>,
    /// Bytes the send queue holds.
    pub(crate) capacity: usize,
    /// Bytes one write takes at most, however much room there is, so that a turn runs out of writes.
    pub(crate) per_write: usize,
    /// A write was refused or cut: an edge is promised.
    pub(crate) no_space: bool,
    /// The server ended its side.
    pub(crate) shut: bool,
    /// The server closed.
    pub(crate) closed: bool,
    /// The stream is broken.
    pub(crate) reset: bool,
    /// The peer does not exist any more: what is written to it breaks the stream.
    pub(crate) gone: bool,
}

/// One connection.
pub(crate) struct Link {
    /// Index among all links.
    pub(crate) id: usize,
    /// The loop that accepted it.
    pub(crate) loop_index: usize,
    /// From where it comes.
    pub(crate) address: IpAddr,
    /// Topics its head asks for.
    pub(crate) topics: Vec<String>,
    /// The first offset of each topic that is the subscriber's; set when the head of the answer goes out.
    pub(crate) joined: RefCell<Option<Vec<u64>>>,
    /// Its peer wants to know who is on its topic.
    pub(crate) watches_presence: Cell<bool>,
    /// The place in its first topic that it goes on from.
    pub(crate) since: Cell<Option<u64>>,
    /// The server's name for it.
    pub(crate) key: Cell<Option<Key>>,
    /// The bytes.
    pub(crate) pipe: RefCell<Pipe>,
    /// What the server did and may not do.
    pub(crate) misuse: RefCell<Option<&'static str>>,
    hub: Rc<Hub>,
}

impl Link {
    /// A fresh connection.
    pub(crate) fn new(
        id: usize,
        loop_index: usize,
        address: IpAddr,
        topics: Vec<String>,
        (capacity, per_write): (usize, usize),
        hub: Rc<Hub>,
    ) -> Rc<Self> {
        let pipe = Pipe {
            to_server: VecDeque::new(),
            fin: false,
            to_peer: VecDeque::new(),
            capacity,
            per_write,
            no_space: false,
            shut: false,
            closed: false,
            reset: false,
            gone: false,
        };
        Rc::new(Self {
            id,
            loop_index,
            address,
            topics,
            joined: RefCell::new(None),
            watches_presence: Cell::new(false),
            since: Cell::new(None),
            key: Cell::new(None),
            pipe: RefCell::new(pipe),
            misuse: RefCell::new(None),
            hub,
        })
    }

    /// Something changed that epoll reports once.
    pub(crate) fn edge(&self) {
        let mut ready = self.hub.ready.borrow_mut();
        let ready = &mut ready[self.loop_index];
        if !ready.contains(&self.id) {
            ready.push_back(self.id);
        }
    }

    /// What an event says: the state now, whichever edge it is for.
    pub(crate) fn readiness(&self) -> Readiness {
        let pipe = self.pipe.borrow();
        Readiness {
            readable: !pipe.to_server.is_empty() || pipe.fin || pipe.reset,
            writable: pipe.to_peer.len() < pipe.capacity || pipe.reset,
            read_closed: pipe.fin || pipe.reset,
            error: pipe.reset,
        }
    }

    /// Reports room in the send queue if that was promised; at a third of the queue, as TCP does.
    pub(crate) fn report_space(&self) {
        let mut pipe = self.pipe.borrow_mut();
        let room = pipe.capacity - pipe.to_peer.len();
        if pipe.no_space && room >= pipe.capacity.div_ceil(3) {
            pipe.no_space = false;
            drop(pipe);
            if !self.hub.strikes(Fault::LostEdge, 8) {
                self.edge();
            }
        }
    }

    /// How much was published so far.
    pub(crate) fn published(&self) -> u64 {
        self.hub.published.get()
    }

    /// How much of it was delivered for certain.
    pub(crate) fn rested(&self) -> u64 {
        self.hub.rested.get()
    }

    fn note_upgrade(&self, bytes: &[u8]) {
        let begins = bytes.starts_with(b"HTTP/1.1 101") || bytes.starts_with(b"HTTP/1.1 200");
        if self.joined.borrow().is_none() && begins {
            let next = |name: &String| {
                self.hub
                    .router
                    .find(&TopicName::parse(name.as_str()).unwrap())
                    .map_or(0, |topic| topic.next_offset())
            };
            let mut joined: Vec<u64> = self.topics.iter().map(next).collect();
            if let (Some(since), Some(first)) = (self.since.get(), joined.first_mut())
                && let Some(name) = self.topics.first()
                && let Some(topic) = self.hub.router.find(&TopicName::parse(name.as_str()).unwrap())
            {
                // What is not kept any more is told as a gap.
                *first = (since + 1).max(topic.oldest());
            }
            *self.joined.borrow_mut() = Some(joined);
        }
    }
}

/// The server's end of a link: the kernel's socket, or a layer above it that holds back what it has taken and what it
/// has opened, as one that encrypts does.
pub(crate) struct FakeSocket {
    /// Its link.
    pub(crate) link: Rc<Link>,
    layered: bool,
    /// Taken, and not with the kernel.
    sealed: VecDeque<u8>,
    /// Read from the kernel, and not given.
    opened: VecDeque<u8>,
}

/// Bytes that a layer takes or opens at a time.
const RECORD: usize = 700;

impl FakeSocket {
    /// The server's end of `link`.
    pub(crate) fn new(link: Rc<Link>, layered: bool) -> Self {
        Self { link, layered, sealed: VecDeque::new(), opened: VecDeque::new() }
    }

    /// Hands the kernel what is sealed.
    fn flush(&mut self) -> io::Result<()> {
        while !self.sealed.is_empty() {
            let sealed = self.sealed.make_contiguous();
            let count = self.link.kernel_write(sealed)?;
            self.sealed.drain(..count);
        }
        Ok(())
    }
}

impl Socket for FakeSocket {
    type Shared = ();

    fn read(&mut self, (): &mut (), into: &mut [u8]) -> io::Result<Received> {
        if !self.layered {
            return Ok(match self.link.kernel_read(into)? {
                0 => Received::End,
                count => Received::Bytes { count, more: count == into.len() },
            });
        }
        if self.opened.is_empty() {
            let mut record = [0; RECORD];
            let count = self.link.kernel_read(&mut record)?;
            if count == 0 {
                return Ok(Received::End);
            }
            self.opened.extend(&record[..count]);
        }
        let count = self.opened.len().min(into.len()).min(RECORD / 3);
        for (place, byte) in into.iter_mut().zip(self.opened.drain(..count)) {
            *place = byte;
        }
        let more = !self.opened.is_empty() || !self.link.pipe.borrow().to_server.is_empty();
        Ok(Received::Bytes { count, more })
    }

    fn write(&mut self, (): &mut (), bytes: &[u8]) -> io::Result<usize> {
        self.link.note_upgrade(bytes);
        if !self.layered {
            if bytes.is_empty() {
                *self.link.misuse.borrow_mut() = Some("wrote nothing");
            }
            return self.link.kernel_write(bytes);
        }
        let mut taken = 0;
        loop {
            match self.flush() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && taken > 0 => return Ok(taken),
                Ok(()) if taken == bytes.len() => return Ok(taken),
                other => other?,
            }
            let record = RECORD.min(bytes.len() - taken);
            self.sealed.extend(&bytes[taken..taken + record]);
            taken += record;
        }
    }

    fn pending(&self, (): &()) -> bool {
        !self.sealed.is_empty()
    }

    fn end(&mut self, (): &mut ()) -> io::Result<()> {
        self.flush()?;
        self.link.kernel_shutdown()
    }

    fn peer(&self) -> Option<SocketAddr> {
        Some((self.link.address, 1_024 + self.link.id as u16).into())
    }
}

impl Link {
    fn kernel_read(&self, into: &mut [u8]) -> io::Result<usize> {
        let mut pipe = self.pipe.borrow_mut();
        if pipe.reset {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        if pipe.to_server.is_empty() {
            return if pipe.fin { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        let count = pipe.to_server.len().min(into.len());
        let (front, back) = pipe.to_server.as_slices();
        let first = count.min(front.len());
        into[..first].copy_from_slice(&front[..first]);
        into[first..count].copy_from_slice(&back[..count - first]);
        pipe.to_server.drain(..count);
        Ok(count)
    }

    fn kernel_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let link = self;
        let mut pipe = link.pipe.borrow_mut();
        if pipe.shut {
            *link.misuse.borrow_mut() = Some("wrote behind the end of stream");
        }
        if pipe.reset {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if pipe.gone {
            // The answer to this write is a reset, seen by the next call.
            pipe.reset = true;
            drop(pipe);
            link.edge();
            return Ok(bytes.len());
        }
        let room = pipe.capacity - pipe.to_peer.len();
        let (refuse, cut) = {
            let mut rng = link.hub.rng.borrow_mut();
            (rng.one_in(12), rng.one_in(6))
        };
        if room == 0 || refuse {
            pipe.no_space = true;
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut count = room.min(bytes.len());
        if cut {
            count = 1 + link.hub.rng.borrow_mut().below(count);
        }
        count = count.min(pipe.per_write);
        pipe.no_space |= count < bytes.len();
        if !link.hub.strikes(Fault::LostWrite, 40) {
            pipe.to_peer.extend(&bytes[..count]);
        }
        if link.hub.strikes(Fault::DoubledWrite, 40) {
            pipe.to_peer.extend(&bytes[..count]);
            pipe.capacity = pipe.capacity.max(pipe.to_peer.len());
        }
        Ok(count)
    }

    fn kernel_shutdown(&self) -> io::Result<()> {
        let mut pipe = self.pipe.borrow_mut();
        if pipe.reset {
            return Err(io::ErrorKind::NotConnected.into());
        }
        pipe.shut = true;
        Ok(())
    }
}

impl Drop for FakeSocket {
    fn drop(&mut self) {
        let mut pipe = self.link.pipe.borrow_mut();
        pipe.closed = true;
        if !pipe.to_server.is_empty() {
            // Closing with unread input resets the connection, and the send queue is thrown away.
            pipe.to_peer.clear();
        }
    }
}

/// Who has connected to a listener and is not accepted yet.
#[derive(Default)]
pub(crate) struct Queue {
    links: RefCell<VecDeque<Rc<Link>>>,
    /// Nobody can connect: the listener is closed, or ignores who does.
    refuses: Cell<bool>,
}

impl Queue {
    /// Somebody connects.
    pub(crate) fn push(&self, link: Rc<Link>) {
        if self.refuses.get() {
            link.pipe.borrow_mut().closed = true;
        } else {
            self.links.borrow_mut().push_back(link);
        }
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.links.borrow().is_empty()
    }
}

/// A listener.
pub(crate) struct FakeListener {
    /// Its queue.
    pub(crate) queue: Rc<Queue>,
    open: bool,
    hub: Rc<Hub>,
}

impl FakeListener {
    /// Open, with nobody in its queue.
    pub(crate) fn new(hub: Rc<Hub>) -> Self {
        Self { queue: Rc::default(), open: true, hub }
    }
}

impl Listen for FakeListener {
    type Stream = FakeSocket;
    type Registry = ();

    fn is_open(&self) -> bool {
        self.open
    }

    fn open(&mut self, (): &()) -> io::Result<()> {
        if self.hub.rng.borrow_mut().one_in(4) {
            return Err(io::ErrorKind::AddrInUse.into());
        }
        self.open = true;
        self.queue.refuses.set(false);
        Ok(())
    }

    fn close(&mut self) {
        self.open = false;
        self.queue.refuses.set(true);
        for link in self.queue.links.borrow_mut().drain(..) {
            link.pipe.borrow_mut().closed = true;
        }
    }

    fn ignore_connects(&self) -> io::Result<()> {
        self.queue.refuses.set(true);
        Ok(())
    }

    fn accept(&self) -> io::Result<(FakeSocket, IpAddr)> {
        if self.hub.rng.borrow_mut().one_in(40) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let link = self.queue.links.borrow_mut().pop_front().ok_or(io::ErrorKind::WouldBlock)?;
        let (address, layered) = (link.address, self.hub.rng.borrow_mut().one_in(3));
        Ok((FakeSocket::new(link, layered), address))
    }

    fn register(&self, key: Key, stream: &FakeSocket, (): &()) -> io::Result<()> {
        stream.link.key.set(Some(key));
        // Registering reports what is there already.
        stream.link.edge();
        Ok(())
    }
}
