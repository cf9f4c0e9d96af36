//! `fantail connect` from its first attempt to its end: lines out, messages in, and again after a loss.
//!
//! Three threads: the caller's, which alone writes to the socket and decides; one that reads lines; one per
//! connection that reads the socket and prints. The printing one never waits for the writing one, so a
//! server that stops reading until its echoes are read is no deadlock.

use std::collections::VecDeque;
use std::io::{self, BufRead};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::backoff::{Backoff, BackoffLimits};
use super::dial::{DIAL_TIMEOUT, Dialled, Request, dial, random_bytes};
use super::input::{Credits, read_line};
use super::messages::{Event, Messages};
use super::stream::Stream;
use super::url::Url;
use crate::wire::close::close_payload;
use crate::wire::frame::{CONTROL_BYTES_MAX, Opcode, push_frame};

/// How long the answer to our close frame may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a write may make no progress.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);

/// What to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to.
    pub url: Url,
    /// What to ask for.
    pub request: Request,
    /// Come back after a loss.
    pub reconnect: Option<BackoffLimits>,
    /// Failed attempts in a row after which it is given up; 0 never gives up.
    pub attempts_max: u32,
    /// Leave after so many messages.
    pub count: Option<u64>,
    /// Leave after this time.
    pub timeout: Option<Duration>,
}

/// Where messages and remarks go; called from two threads.
pub trait Screen: Send + Sync {
    /// Shows a text or binary message.
    ///
    /// # Errors
    /// It can't be shown: the session ends, well if it is for a broken pipe, whose reader had enough.
    fn message(&self, event: &Event) -> io::Result<()>;
    /// Shows one line about the connection.
    fn remark(&self, line: &str);
}

/// How it ended when it did not end well: one line.
pub type Failure = String;

enum Note {
    Line(String),
    InputEnded(Option<String>),
    From { connection: u64, what: Incoming },
}

enum Incoming {
    /// A ping waits in the slot.
    PongOwed,
    /// The messages that were asked for have come.
    Enough,
    /// A message could not be shown.
    Unshown(io::Error),
    Closed {
        code: Option<u16>,
        reason: String,
    },
    Violated {
        code: u16,
        reason: &'static str,
    },
    Ended(String),
}

/// How one connection ended.
enum End {
    /// There is nothing left to do.
    Done(Result<(), Failure>),
    /// The server or the network ended it.
    Lost { why: String, again: bool },
}

/// Runs until there is nothing left to do. Without `input`, nothing is sent.
///
/// # Errors
/// It did not end by a normal closure; one line says how.
pub fn run<I>(options: Options, input: Option<I>, screen: Arc<dyn Screen>) -> Result<(), Failure>
where
    I: BufRead + Send + 'static,
{
    let (sender, notes) = mpsc::channel();
    let credits = Arc::new(Credits::default());
    if let Some(input) = input {
        let (sender, credits) = (sender.clone(), Arc::clone(&credits));
        thread::Builder::new()
            .name("input".to_owned())
            .spawn(move || send_lines(input, &sender, &credits))
            .map_err(|error| format!("cannot start a thread: {error}"))?;
    }
    let session = Session {
        deadline: options.timeout.map(|timeout| Instant::now() + timeout),
        left: Arc::new(Mutex::new(options.count)),
        options,
        sender,
        notes,
        credits,
        pending: VecDeque::new(),
        input_ended: false,
        input_result: Ok(()),
        screen,
        connection: 0,
    };
    session.run()
}

struct Session {
    options: Options,
    deadline: Option<Instant>,
    sender: Sender<Note>,
    notes: Receiver<Note>,
    credits: Arc<Credits>,
    /// Lines read while there was no connection; the credits bound their number.
    pending: VecDeque<String>,
    input_ended: bool,
    /// What the session comes to when the input's end ends it.
    input_result: Result<(), Failure>,
    /// Messages still to come, if they are counted.
    left: Arc<Mutex<Option<u64>>>,
    screen: Arc<dyn Screen>,
    /// Number of the connection; notes of earlier ones are void.
    connection: u64,
}

impl Session {
    fn run(mut self) -> Result<(), Failure> {
        let mut backoff = Backoff::new(self.options.reconnect.unwrap_or_default());
        loop {
            let mut least = Duration::ZERO;
            let (why, again) = match dial(&self.options.url, &self.options.request, self.dial_timeout()) {
                Ok(dialled) => {
                    let since = Instant::now();
                    match self.serve(dialled) {
                        End::Done(result) => return result,
                        End::Lost { why, again } => {
                            backoff.on_ended(since.elapsed());
                            (why, again)
                        }
                    }
                }
                Err(error) => {
                    least = error.retry_after.unwrap_or_default();
                    (error.problem, error.try_again)
                }
            };
            let attempts_max = self.options.attempts_max;
            let Some(limits) = self.options.reconnect.filter(|_| again) else { return Err(why) };
            if attempts_max > 0 && backoff.failures() >= attempts_max {
                return Err(format!("{why}; given up after {attempts_max} attempts"));
            }
            let random = random_bytes().map_err(|error| format!("cannot get random bytes: {error}"))?;
            // A server that asks for a pause gets it, but no longer a one than we would ever take ourselves.
            let delay = backoff.next_delay(u32::from_ne_bytes(random)).max(least.min(limits.cap));
            self.screen.remark(&format!("{why}; reconnecting in {:.1} s", delay.as_secs_f64()));
            if let Some(result) = self.wait(delay) {
                return result;
            }
        }
    }

    /// Waits between two connections; a result when there is nothing to come back for.
    fn wait(&mut self, delay: Duration) -> Option<Result<(), Failure>> {
        let until = Instant::now() + delay;
        loop {
            if self.deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return Some(self.count_reached("time is over"));
            }
            if self.input_ended && self.pending.is_empty() && !self.listens() {
                return Some(self.input_result.clone());
            }
            match self.next_note(self.deadline.map_or(until, |deadline| deadline.min(until))) {
                Some(Note::Line(line)) => self.pending.push_back(line),
                Some(Note::InputEnded(problem)) => self.on_input_ended(problem),
                Some(Note::From { .. }) => {}
                None if Instant::now() >= until => return None,
                None => {}
            }
        }
    }

    /// Serves one connection to its end.
    fn serve(&mut self, dialled: Dialled) -> End {
        self.connection += 1;
        let Dialled { stream, rest, subprotocol } = dialled;
        let with = subprotocol.map(|name| format!(", subprotocol {name}")).unwrap_or_default();
        self.screen.remark(&format!("connected to {}{with}", self.options.url.authority));
        let mut writer = match self.start_reader(&stream, rest) {
            Ok(writer) => writer,
            Err(error) => return End::Done(Err(format!("cannot start reading: {error}"))),
        };
        let end = loop {
            self.send_pending(&mut writer);
            // Looked at before any note: a server that never pauses must not put the end off.
            match (writer.close_until, self.deadline) {
                // It was in the middle of a write, which ends then, and so can't say goodbye.
                (Some(_), Some(deadline)) if writer.result.is_none() && deadline <= Instant::now() => {
                    break End::Done(self.count_reached("time is over"));
                }
                (Some(until), _) if until <= Instant::now() => {
                    break match writer.result.take() {
                        Some(_) => End::Done(Err("the server did not answer the close frame".to_owned())),
                        None => End::Lost { why: "the connection broke".to_owned(), again: true },
                    };
                }
                (None, Some(deadline)) if deadline <= Instant::now() => {
                    let result = self.count_reached("time is over");
                    writer.close(1000, "", result);
                    continue;
                }
                _ => {}
            }
            let note = match writer.close_until.or(self.deadline) {
                Some(until) => self.next_note(until),
                None => self.notes.recv().ok(),
            };
            match note {
                Some(Note::Line(line)) => self.pending.push_back(line),
                Some(Note::InputEnded(problem)) => self.on_input_ended(problem),
                Some(Note::From { connection, what }) if connection == self.connection => {
                    if let Some(end) = self.on_incoming(what, &mut writer) {
                        break end;
                    }
                }
                Some(Note::From { .. }) | None => {}
            }
        };
        // Ends the reading thread, wherever it is.
        writer.stream.end();
        end
    }

    fn start_reader(&self, stream: &Stream, rest: Vec<u8>) -> io::Result<Writer> {
        let pong = Arc::new(Mutex::new(None));
        let reader = Reader {
            stream: stream.clone(),
            sender: self.sender.clone(),
            connection: self.connection,
            pong: Arc::clone(&pong),
            left: Arc::clone(&self.left),
            screen: Arc::clone(&self.screen),
        };
        thread::Builder::new().name("reader".to_owned()).spawn(move || reader.run(&rest))?;
        let deadline = self.deadline;
        Ok(Writer { stream: stream.clone(), pong, deadline, close_until: None, result: None })
    }

    /// Sends what was read, and the close frame behind the last line.
    fn send_pending(&mut self, writer: &mut Writer) {
        while writer.close_until.is_none() {
            let Some(line) = self.pending.pop_front() else { break };
            self.credits.give();
            writer.send(Opcode::Text, line.as_bytes());
        }
        if self.input_ended && !self.listens() && writer.close_until.is_none() {
            writer.close(1000, "", self.input_result.clone());
        }
    }

    fn on_incoming(&mut self, what: Incoming, writer: &mut Writer) -> Option<End> {
        match what {
            Incoming::PongOwed => {
                let payload = writer.pong.lock().unwrap_or_else(PoisonError::into_inner).take();
                // RFC 6455, 5.5.1: nothing follows our close frame.
                if let Some(payload) = payload.filter(|_| writer.close_until.is_none()) {
                    writer.send(Opcode::Pong, &payload);
                }
                None
            }
            Incoming::Enough => {
                if writer.close_until.is_none() {
                    writer.close(1000, "", Ok(()));
                }
                None
            }
            Incoming::Unshown(error) => {
                if writer.close_until.is_none() {
                    let gone = error.kind() == io::ErrorKind::BrokenPipe;
                    let result = if gone {
                        Ok(())
                    } else {
                        Err(format!("standard output cannot be written: {error}"))
                    };
                    writer.close(1000, "", result);
                }
                None
            }
            Incoming::Closed { code, reason } => Some(self.on_closed(code, &reason, writer)),
            Incoming::Violated { code, reason } => {
                if writer.close_until.is_none() {
                    writer.close(code, reason, Ok(()));
                }
                Some(End::Done(Err(format!("the server broke the protocol: {reason}"))))
            }
            Incoming::Ended(why) => Some(End::Lost { why, again: true }),
        }
    }

    fn on_closed(&self, code: Option<u16>, reason: &str, writer: &mut Writer) -> End {
        // RFC 6455, 7.1.5: 1005 reports a close frame without a code.
        let said = format!("closed {} {reason}", code.unwrap_or(1005));
        let said = said.trim_end().to_owned();
        if let Some(result) = writer.result.take() {
            self.screen.remark(&said);
            return End::Done(result);
        }
        writer.answer_close(code);
        match code {
            Some(1000) => {}
            Some(1001) if self.options.reconnect.is_none() => {}
            // These say that the same connection would be ended again.
            Some(1002 | 1003 | 1007..=1010) => return End::Lost { why: said, again: false },
            _ => return End::Lost { why: said, again: true },
        }
        let result = self.count_reached(&said);
        if result.is_ok() {
            self.screen.remark(&said);
        }
        End::Done(result)
    }

    /// Who waits for a number of messages or for a time goes on when the input has ended.
    fn listens(&self) -> bool {
        self.options.count.is_some() || self.options.timeout.is_some()
    }

    fn on_input_ended(&mut self, problem: Option<String>) {
        self.input_ended = true;
        if let Some(problem) = problem {
            let problem = format!("standard input: {problem}");
            self.screen.remark(&format!("{problem}; nothing more is sent"));
            self.input_result = Err(problem);
        }
    }

    /// An attempt ends with the session's own time.
    fn dial_timeout(&self) -> Duration {
        let left = self.deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        left.unwrap_or(DIAL_TIMEOUT).clamp(Duration::from_millis(1), DIAL_TIMEOUT)
    }

    /// What an end comes to that is a good one once all messages that were asked for have come.
    fn count_reached(&self, end: &str) -> Result<(), Failure> {
        match *self.left.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(left) if left > 0 => Err(format!("{end}, {left} messages have not come")),
            _ => Ok(()),
        }
    }

    fn next_note(&self, until: Instant) -> Option<Note> {
        // It never disconnects: this session holds a sender itself.
        self.notes.recv_timeout(until.saturating_duration_since(Instant::now())).ok()
    }
}

/// The writing side of one connection.
struct Writer {
    stream: Stream,
    /// The latest ping; an answer to it answers all before it (RFC 6455, 5.5.3).
    pong: Arc<Mutex<Option<Vec<u8>>>>,
    /// When the session is over: a write ends with it, however slowly the server reads.
    deadline: Option<Instant>,
    /// Set when nothing more is sent: how long the server has to end it.
    close_until: Option<Instant>,
    /// What the session comes to, once our close frame is answered.
    result: Option<Result<(), Failure>>,
}

impl Writer {
    fn send(&mut self, opcode: Opcode, payload: &[u8]) {
        let mut frame = Vec::new();
        let written = random_bytes().and_then(|mask| {
            push_frame(&mut frame, opcode, payload, Some(mask));
            self.stream.write_by(&frame, WRITE_TIMEOUT, self.deadline)
        });
        if written.is_err() {
            // What the server said before is still to be read; its end is the reader's to report.
            self.stream.end_writing();
            self.close_until = Some(Instant::now() + CLOSE_TIMEOUT);
        }
    }

    /// Starts the closing handshake.
    fn close(&mut self, code: u16, reason: &str, result: Result<(), Failure>) {
        let mut payload = [0; CONTROL_BYTES_MAX];
        let len = close_payload(&mut payload, code, reason);
        // What is over is what was said before.
        self.deadline = Some(Instant::now() + CLOSE_TIMEOUT);
        self.send(Opcode::Close, payload.get(..len).unwrap_or_default());
        self.close_until = Some(Instant::now() + CLOSE_TIMEOUT);
        self.result = Some(result);
    }

    /// Answers the server's close frame with the same code (RFC 6455, 5.5.1).
    fn answer_close(&mut self, code: Option<u16>) {
        match code {
            Some(code) => self.send(Opcode::Close, &code.to_be_bytes()),
            None => self.send(Opcode::Close, &[]),
        }
    }
}

/// The reading side of one connection, on its own thread.
struct Reader {
    stream: Stream,
    sender: Sender<Note>,
    connection: u64,
    pong: Arc<Mutex<Option<Vec<u8>>>>,
    left: Arc<Mutex<Option<u64>>>,
    screen: Arc<dyn Screen>,
}

impl Reader {
    fn run(self, rest: &[u8]) {
        let mut messages = Messages::default();
        messages.push(rest);
        let mut some = vec![0; 64 * 1024];
        loop {
            match messages.try_next() {
                Ok(Some(Event::Close { code, reason })) => {
                    return self.note(Incoming::Closed { code, reason });
                }
                Ok(Some(event)) => {
                    self.on_event(event);
                    continue;
                }
                Err(violation) => {
                    let (code, reason) = (violation.code, violation.reason);
                    return self.note(Incoming::Violated { code, reason });
                }
                Ok(None) => {}
            }
            match self.stream.read_by(&mut some, None) {
                Ok(0) => {
                    return self.note(Incoming::Ended("the server ended the stream without a close".into()));
                }
                Ok(count) => messages.push(some.get(..count).unwrap_or_default()),
                Err(error) => return self.note(Incoming::Ended(format!("the connection broke: {error}"))),
            }
        }
    }

    fn on_event(&self, event: Event) {
        match event {
            Event::Ping(payload) => {
                let earlier = self.pong.lock().unwrap_or_else(PoisonError::into_inner).replace(payload);
                if earlier.is_none() {
                    self.note(Incoming::PongOwed);
                }
            }
            Event::Pong | Event::Close { .. } => {}
            message => self.on_message(&message),
        }
    }

    fn on_message(&self, message: &Event) {
        let left = || self.left.lock().unwrap_or_else(PoisonError::into_inner);
        if *left() == Some(0) {
            return;
        }
        // Not under the lock: where nobody reads the output it waits, and the session's time has to end it.
        let shown = self.screen.message(message);
        let mut left = left();
        match shown {
            Err(error) => {
                // Nothing further is shown, whatever still comes.
                *left = Some(0);
                self.note(Incoming::Unshown(error));
            }
            Ok(()) => {
                *left = left.map(|left| left.saturating_sub(1));
                if *left == Some(0) {
                    self.note(Incoming::Enough);
                }
            }
        }
    }

    fn note(&self, what: Incoming) {
        // Nobody listens when the session is over.
        let _ = self.sender.send(Note::From { connection: self.connection, what });
    }
}

fn send_lines(mut input: impl BufRead, sender: &Sender<Note>, credits: &Credits) {
    loop {
        credits.take();
        let note = match read_line(&mut input) {
            Ok(Some(line)) => Note::Line(line),
            Ok(None) => Note::InputEnded(None),
            Err(error) => Note::InputEnded(Some(error.to_string())),
        };
        let ended = matches!(note, Note::InputEnded(_));
        if sender.send(note).is_err() || ended {
            return;
        }
    }
}
