//! A server that answers after an exact time, and writes down when it really did.
//!
//! `/echo` gives every message back to who sent it, any other path to all subscribers; `?echo=0` is for publishers.
//! One thread per connection reads, one thread for all of them waits and answers. It ends with the test process.
//!
//! A witness waits for a byte behind each answer and writes down when it had it: how late the machine lets a thread be
//! that has something to read, while it is let for the generator as well.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use fantail::wire::frame::{Opcode, push_frame};
use tungstenite::handshake::server::{Request, Response};
use tungstenite::{Message, WebSocket};

use crate::favour::{favour_server, favour_witness};

/// A sleep ends late by some ten microseconds, so the last part is spent looking at the clock.
const SPIN: Duration = Duration::from_micros(150);
/// How long the witness may take for its last bytes.
const PATIENCE: Duration = Duration::from_secs(30);

/// One message: when it came, when each of its answers was given to the kernel, and how late the witness was.
#[derive(Clone, Debug)]
pub(crate) struct Answered {
    pub(crate) arrived: Instant,
    pub(crate) answers: Vec<Instant>,
    pub(crate) witness_late: Duration,
}

/// What was written down of one message, and when the witness was told.
type Record = Arc<Mutex<Vec<(Answered, Instant)>>>;

/// The server; what it wrote down is complete when the generator has ended.
pub(crate) struct Delaying {
    pub(crate) address: SocketAddr,
    answered: Record,
    witnessed: Arc<Mutex<Vec<Instant>>>,
}

impl Delaying {
    /// Starts it.
    pub(crate) fn start(delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (answered, witnessed) = (Record::default(), Arc::<Mutex<Vec<Instant>>>::default());
        let (told, heard) = UnixStream::pair().unwrap();
        let seen = witnessed.clone();
        thread::spawn(move || witness(heard, &seen));
        let (jobs, waiting) = channel();
        let subscribers = Arc::<Mutex<Vec<TcpStream>>>::default();
        let (list, record) = (subscribers.clone(), answered.clone());
        thread::spawn(move || answer_in_time(&waiting, &list, &record, told));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                stream.set_nodelay(true).unwrap();
                let (socket, path) = accept(stream);
                let writer = socket.get_ref().try_clone().unwrap();
                let to = match path.as_str() {
                    "/echo" => Some(writer),
                    path if path.ends_with("?echo=0") => None,
                    _ => {
                        subscribers.lock().unwrap().push(writer);
                        None
                    }
                };
                let jobs = jobs.clone();
                thread::spawn(move || read(socket, to.as_ref(), delay, &jobs));
            }
        });
        Self { address, answered, witnessed }
    }

    /// What it wrote down, in the order of arrival.
    pub(crate) fn answered(&self) -> Vec<Answered> {
        let (all, until) = (self.answered.lock().unwrap().clone(), Instant::now() + PATIENCE);
        while self.witnessed.lock().unwrap().len() < all.len() {
            assert!(Instant::now() < until, "the witness has not come");
            thread::sleep(Duration::from_millis(1));
        }
        let witnessed = self.witnessed.lock().unwrap();
        let both = all.into_iter().zip(witnessed.iter());
        let late = both
            .map(|((one, told), at)| Answered { witness_late: at.saturating_duration_since(told), ..one });
        let mut all: Vec<Answered> = late.collect();
        all.sort_by_key(|one| one.arrived);
        all
    }
}

/// A message that waits for its answer.
struct Job {
    arrived: Instant,
    due: Instant,
    frame: Vec<u8>,
    /// Who gets it; all subscribers if nobody.
    to: Option<TcpStream>,
}

#[expect(clippy::result_large_err, reason = "the callback's type is the library's")]
fn accept(stream: TcpStream) -> (WebSocket<TcpStream>, String) {
    let mut path = String::new();
    let callback = |request: &Request, response: Response| {
        path = request.uri().to_string();
        Ok(response)
    };
    (tungstenite::accept_hdr(stream, callback).unwrap(), path)
}

fn read(mut socket: WebSocket<TcpStream>, to: Option<&TcpStream>, delay: Duration, jobs: &Sender<Job>) {
    favour_server();
    while let Ok(message) = socket.read() {
        let arrived = Instant::now();
        let opcode = match message {
            Message::Text(_) => Opcode::Text,
            Message::Binary(_) => Opcode::Binary,
            _ => continue,
        };
        let mut frame = Vec::new();
        push_frame(&mut frame, opcode, &message.into_data(), None);
        let to = to.map(|stream| stream.try_clone().unwrap());
        jobs.send(Job { arrived, due: arrived + delay, frame, to }).unwrap();
    }
}

/// The delay is the same for all, so the first to come is the first to be due.
fn answer_in_time(
    waiting: &Receiver<Job>,
    subscribers: &Mutex<Vec<TcpStream>>,
    record: &Mutex<Vec<(Answered, Instant)>>,
    mut witness: UnixStream,
) {
    favour_server();
    while let Ok(job) = waiting.recv() {
        let now = Instant::now();
        thread::sleep(job.due.saturating_duration_since(now).saturating_sub(SPIN));
        while Instant::now() < job.due {
            std::hint::spin_loop();
        }
        let mut answers = Vec::new();
        let mut send = |stream: &mut TcpStream| {
            // Afterwards the generator may already have taken the processor from this thread.
            let now = Instant::now();
            // The generator may have gone.
            if stream.write_all(&job.frame).is_ok() {
                answers.push(now);
            }
        };
        match job.to {
            Some(mut stream) => send(&mut stream),
            None => subscribers.lock().unwrap().iter_mut().for_each(&mut send),
        }
        let told = Instant::now();
        witness.write_all(&[0]).unwrap();
        let answered = Answered { arrived: job.arrived, answers, witness_late: Duration::ZERO };
        record.lock().unwrap().push((answered, told));
    }
}

/// Writes down when each byte was there to see.
fn witness(mut told: UnixStream, witnessed: &Mutex<Vec<Instant>>) {
    favour_witness();
    while told.read_exact(&mut [0]).is_ok() {
        witnessed.lock().unwrap().push(Instant::now());
    }
}
