//! One connection of the generator: upgrade, frames in, pongs and messages out.
//!
//! Small at rest, because there may be a million: buffers live in a box that exists only during the
//! upgrade, while a frame is incomplete or while the kernel takes no more output, and for as long as a connection of
//! TLS lives, whose session is in it. A worker drives it with bytes and writable events; it owns no poll.

mod greeting;
mod listening;
mod receiving;

use std::io::{self, Read, Write};

use fantail::sys::socket;
use fantail::wire::frame::{self, FrameHeader, Opcode, Sender};
use mio::net::TcpStream;

pub(crate) use listening::{Listening, Position};

use super::answer;
use crate::base::schedule::Schedule;
use crate::base::trouble::Trouble;
use crate::engine::inflating::Inflating;
use crate::engine::recent::Recent;
use crate::engine::sequence::Sequence;
use crate::engine::text::Filling;
use crate::engine::trace::{Traced, Way};
use crate::engine::visits::Account;
use crate::engine::worker::Plan;
use crate::result::tally::Tally;
use crate::tls::{Moment, Session};

/// Output that one connection may have waiting before further messages count as unsent.
const OUTPUT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// The largest frame or fragmented message that is accepted.
const INPUT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What arriving messages are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// They are not looked at.
    Idle,
    /// They come from the publisher of this run.
    Subscribe,
    /// They are this connection's own, coming back.
    Echo,
    /// The same, but they are pings and come back as pongs.
    Ping,
}

impl Role {
    /// Whether connections send messages themselves.
    pub(crate) fn sends(self) -> bool {
        matches!(self, Self::Echo | Self::Ping)
    }
}

/// How far a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// TCP is not there yet.
    Connecting,
    /// The request is sent.
    Upgrading,
    /// The 101 has come, the message of `--await` has not.
    Greeting,
    /// The 101 has come, and what is awaited behind it.
    Open,
    /// It failed before it was open.
    Failed,
    /// It was open.
    Ended,
}

/// What a connection needs from its worker to handle input. Made for each read, so that only what differs from one to the
/// next is in it.
pub(crate) struct Context<'a> {
    /// What is the same for all connections.
    pub(crate) plan: &'a Plan,
    /// What arriving messages are for.
    pub(crate) role: Role,
    /// The connection's number among all of the run.
    pub(crate) number: u64,
    /// Set if what it says and hears is shown.
    pub(crate) traced: Option<Traced>,
    /// The only topic it is about, as a publisher's is; all of its own if there is none.
    pub(crate) topic: Option<u32>,
    /// Where it is in several topics, what has come of each.
    pub(crate) subscriptions: &'a mut [Sequence],
    /// Where compression was offered, what inflates.
    pub(crate) inflating: Option<&'a mut Inflating>,
    /// What the worker read last, where many connections get the same.
    pub(crate) recent: Option<&'a mut Recent>,
    /// When the bytes at hand were read.
    pub(crate) now_ns: u64,
    /// The publisher's plan, if ticks are to be measured.
    pub(crate) schedule: Option<&'a Schedule>,
    /// Where to count.
    pub(crate) tally: &'a mut Tally,
}

impl Context<'_> {
    /// What names stand for, with what this connection has caught.
    fn filling<'c>(&'c self, caught: &'c [(String, String)]) -> Filling<'c> {
        Filling { topic: self.topic, ..self.plan.conversation.filling(self.number, caught) }
    }
}

/// One connection. See the module's head.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: Option<TcpStream>,
    state: State,
    /// Whether it, or one that it came back for, was ever open.
    opened: bool,
    sent: u32,
    sequence: Sequence,
    extra: Option<Box<Extra>>,
    /// Set if it comes back whenever it ends.
    account: Option<Box<Account>>,
}

/// What the answer to a request is judged by.
#[derive(Clone, Copy, Debug)]
struct Handshake {
    key: [u8; 16],
    started_ns: u64,
    away: Option<Away>,
    /// The step of the greeting that is awaited, and how many messages more have to match.
    step: u16,
    left: u16,
}

/// A connection that was dropped on purpose and is to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Away {
    /// When it was dropped, in ns.
    pub(crate) since_ns: u64,
    /// Attempts to come back that have failed.
    pub(crate) failures: u32,
}

impl Away {
    /// One whose client has missed nothing by it, as between two polls: nobody counts it as returned.
    pub(crate) const UNCOUNTED: Self = Self { since_ns: u64::MAX, failures: 0 };
}

/// What a connection needs only now and then.
#[derive(Debug, Default)]
struct Extra {
    handshake: Option<Handshake>,
    input: Vec<u8>,
    tls: Option<Box<Session>>,
    /// Set for a client of HTTP.
    listening: Option<Box<Listening>>,
    fragments: Option<Vec<u8>>,
    /// Whether the fragments are of a compressed message, and whether of a binary one.
    deflated: bool,
    binary: bool,
    output: Vec<u8>,
    /// The code of the close frame that has come, and its reason.
    close: Option<(u16, String)>,
    /// What groups of `--await` caught, as long as it is needed.
    caught: Vec<(String, String)>,
}

// One for each connection of up to a million. Debug builds of mio add bookkeeping to the stream.
#[cfg(not(debug_assertions))]
const _: () = assert!(size_of::<Connection>() <= 48);

impl Connection {
    /// A connection whose TCP connect began at `started_ns`; `request` leaves when it is made, sealed by `tls` if
    /// there is one. `away` is set for one that comes back, `listening` for a client of HTTP.
    pub(crate) fn new(
        stream: TcpStream,
        tls: Option<Box<Session>>,
        key: [u8; 16],
        request: Vec<u8>,
        started_ns: u64,
        away: Option<Away>,
        listening: Option<Box<Listening>>,
    ) -> Self {
        let handshake = Some(Handshake { key, started_ns, away, step: 0, left: 0 });
        let extra = Extra { handshake, tls, listening, output: request, ..Extra::default() };
        Self {
            stream: Some(stream),
            state: State::Connecting,
            opened: false,
            sent: 0,
            sequence: Sequence::default(),
            extra: Some(Box::new(extra)),
            account: None,
        }
    }

    /// A connection that could not even be begun.
    pub(crate) fn failed() -> Self {
        Self {
            stream: None,
            state: State::Failed,
            opened: false,
            sent: 0,
            sequence: Sequence::default(),
            extra: None,
            account: None,
        }
    }

    /// Puts a further attempt of the same client in its place.
    pub(crate) fn replace(&mut self, next: Self) {
        let (account, sequence) = (self.account.take(), std::mem::take(&mut self.sequence));
        *self = Self { account, sequence, opened: self.opened, ..next };
    }

    /// What it should have got, if it comes back whenever it ends.
    pub(crate) fn account_mut(&mut self) -> Option<&mut Account> {
        self.account.as_deref_mut()
    }

    /// The code of the close frame that has ended it, 1005 if that had none, and its reason.
    pub(crate) fn close(&self) -> Option<&(u16, String)> {
        self.extra.as_ref()?.close.as_ref()
    }

    /// Whether nothing that was sent waits for the kernel to take it.
    pub(crate) fn is_drained(&self) -> bool {
        self.extra.as_ref().is_none_or(|extra| extra.output.is_empty())
    }

    /// How far it is.
    pub(crate) fn state(&self) -> State {
        self.state
    }

    /// When its connect began; `None` once it is open or over.
    pub(crate) fn connecting_since_ns(&self) -> Option<u64> {
        self.extra.as_ref()?.handshake.map(|handshake| handshake.started_ns)
    }

    /// Set while a dropped connection comes back.
    pub(crate) fn away(&self) -> Option<Away> {
        self.extra.as_ref()?.handshake?.away
    }

    /// Ends the connection with a reset, as when a client's machine or network goes away.
    pub(crate) fn vanish(&mut self) {
        if let Some(stream) = &self.stream {
            // Without it the socket closes in order, and its port waits for a minute.
            let _ = socket::reset_on_close(stream);
        }
        self.state = State::Ended;
        self.stream = None;
        self.extra = None;
    }

    /// Reads at most `most` bytes of what the server sent, unsealed if they came by TLS; `WouldBlock` once the
    /// connection is over.
    pub(crate) fn read(&mut self, into: &mut [u8], most: usize) -> io::Result<usize> {
        let Some(stream) = &mut self.stream else { return Err(io::ErrorKind::WouldBlock.into()) };
        match self.extra.as_mut().and_then(|extra| extra.tls.as_mut()) {
            None => {
                let room = into.len().min(most);
                stream.read(into.get_mut(..room).unwrap_or_default())
            }
            Some(tls) => tls.read(stream, into, most),
        }
    }

    /// Whether a read of less than there was room for has taken all there is. What TLS unsealed says nothing of what
    /// is behind it.
    pub(crate) fn short_reads_drain(&self) -> bool {
        self.extra.as_ref().is_none_or(|extra| extra.tls.is_none())
    }

    /// What it is called when this connection is not open in time.
    pub(crate) fn timeout_trouble(&self) -> Trouble {
        let tls = self.extra.as_ref().and_then(|extra| extra.tls.as_ref());
        match self.state {
            State::Greeting => Trouble::AwaitTimeout,
            State::Upgrading if tls.is_some_and(|tls| tls.secured().is_none()) => Trouble::TlsTimeout,
            _ => Trouble::ConnectTimeout,
        }
    }

    /// Whether it was ever open.
    pub(crate) fn was_open(&self) -> bool {
        self.opened
    }

    /// Messages that it sent itself.
    pub(crate) fn sent(&self) -> u32 {
        self.sent
    }

    /// What groups of `--await` caught, if it is needed.
    pub(crate) fn caught(&self) -> &[(String, String)] {
        self.extra.as_ref().map_or(&[], |extra| &extra.caught)
    }

    /// What has come of its only topic, or of its own.
    pub(crate) fn sequence(&self) -> &Sequence {
        &self.sequence
    }

    /// The same, to forget something of it.
    pub(crate) fn sequence_mut(&mut self) -> &mut Sequence {
        &mut self.sequence
    }

    /// Whether it is connected and nothing waits to be sent: every event says that there is room.
    #[inline]
    pub(crate) fn has_nothing_to_say(&self) -> bool {
        self.state != State::Connecting && self.extra.is_none()
    }

    /// What has come of its only topic, if it is open, has begun nothing that is not finished, and keeps no account: what a read
    /// brings is then where a frame begins.
    #[inline]
    pub(crate) fn plain_sequence_mut(&mut self) -> Option<&mut Sequence> {
        let plain = self.state == State::Open && self.extra.is_none() && self.account.is_none();
        plain.then_some(&mut self.sequence)
    }

    /// The socket became writable: finishes the connect, sends the request, drains waiting output.
    pub(crate) fn on_writable(&mut self) -> Result<(), Trouble> {
        let Some(stream) = &mut self.stream else { return Ok(()) };
        if self.state == State::Connecting {
            if let Some(error) = stream.take_error().unwrap_or_else(Some) {
                return Err(Trouble::of_connect(&error));
            }
            match stream.peer_addr() {
                Ok(_) => {}
                // Registration reports an event before the connect has finished.
                Err(error) if error.kind() == io::ErrorKind::NotConnected => return Ok(()),
                Err(error) => return Err(Trouble::of_connect(&error)),
            }
            // Messages are sent one at a time and must not wait for an acknowledgement of the last.
            let _ = stream.set_nodelay(true);
            self.state = State::Upgrading;
            if let Some(tls) = self.extra.as_mut().and_then(|extra| extra.tls.as_mut()) {
                tls.on_connected();
            }
        }
        self.flush()
    }

    /// Takes what was read; answers to it are sent before this returns.
    pub(crate) fn on_bytes(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> Result<(), Trouble> {
        let mut held = self.extra.as_mut().map(|extra| std::mem::take(&mut extra.input)).unwrap_or_default();
        if held.is_empty() {
            let used = self.parse(bytes, cx)?;
            if let Some(rest) = bytes.get(used..).filter(|rest| !rest.is_empty()) {
                held.extend_from_slice(rest);
                self.extra.get_or_insert_default().input = held;
            }
        } else {
            held.extend_from_slice(bytes);
            let used = self.parse(&held, cx)?;
            if used < held.len() {
                held.drain(..used);
                self.extra.get_or_insert_default().input = held;
            }
        }
        self.flush()
    }

    /// Sends a frame, or keeps what the kernel does not take. False if too much is waiting already.
    pub(crate) fn try_send(&mut self, frame: &[u8]) -> Result<bool, Trouble> {
        let Some(stream) = &mut self.stream else { return Ok(false) };
        let waiting = self.extra.as_ref().map_or(0, |extra| extra.output.len());
        if waiting > 0 {
            if waiting + frame.len() > OUTPUT_BYTES_MAX {
                return Ok(false);
            }
            self.extra.get_or_insert_default().output.extend_from_slice(frame);
            return Ok(true);
        }
        let written = match self.extra.as_mut().and_then(|extra| extra.tls.as_mut()) {
            None => write_some(stream, frame),
            Some(tls) => tls.send(stream, frame),
        };
        let written = match written {
            Ok(written) => written,
            Err(error) => return Err(self.trouble(&error)),
        };
        if let Some(rest) = frame.get(written..).filter(|rest| !rest.is_empty()) {
            self.extra.get_or_insert_default().output.extend_from_slice(rest);
        }
        Ok(true)
    }

    /// The next sequence number of this connection's own messages; call it once per message sent.
    pub(crate) fn take_send_number(&mut self) -> u32 {
        let number = self.sent;
        self.sent = self.sent.saturating_add(1);
        number
    }

    /// Takes back the number of a message that was not sent.
    pub(crate) fn return_send_number(&mut self) {
        self.sent = self.sent.saturating_sub(1);
    }

    /// Ends the connection, with a close frame if it is open, and frees what it held.
    pub(crate) fn end(&mut self) {
        if self.state == State::Open
            && self.extra.as_ref().is_none_or(|extra| extra.output.is_empty() && extra.listening.is_none())
            && let Some(stream) = &mut self.stream
        {
            let mut close = Vec::new();
            frame::push_frame(&mut close, Opcode::Close, &1000u16.to_be_bytes(), Some(mask()));
            // Politeness only: a full send queue or a reset changes nothing.
            match self.extra.as_mut().and_then(|extra| extra.tls.as_mut()) {
                None => drop(write_some(stream, &close)),
                Some(tls) => {
                    drop(tls.send(stream, &close));
                    tls.close(stream);
                }
            }
        }
        self.state = match self.state {
            State::Open | State::Ended => State::Ended,
            _ => State::Failed,
        };
        self.stream = None;
        self.extra = None;
    }

    /// The kind of an error, which depends on whether the connection was open.
    pub(crate) fn trouble(&self, error: &io::Error) -> Trouble {
        let tls = self.extra.as_ref().and_then(|extra| extra.tls.as_ref());
        if let Some(trouble) = tls.and_then(|tls| tls.trouble(error, self.moment())) {
            return trouble;
        }
        match self.state {
            State::Open => Trouble::LostReset,
            State::Greeting => Trouble::AwaitClosed,
            _ => Trouble::of_connect(error),
        }
    }

    fn moment(&self) -> Moment {
        match self.state {
            State::Upgrading => Moment::Upgrading,
            State::Open => Moment::Open,
            _ => Moment::Other,
        }
    }

    /// Handles whole heads and frames and returns how many bytes they took.
    fn parse(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> Result<usize, Trouble> {
        if self.extra.as_ref().is_some_and(|extra| extra.listening.is_some()) {
            return self.listen(bytes, cx);
        }
        let mut used = 0;
        if self.state == State::Upgrading {
            match self.parse_answer(bytes, cx)? {
                Some(head) => used = head,
                None => return Ok(0),
            }
        }
        loop {
            let rest = bytes.get(used..).unwrap_or_default();
            let header = frame::decode_header(rest, Sender::Server).map_err(|_| Trouble::LostProtocol)?;
            let Some(header) = header else { return Ok(used) };
            // Where no extension was agreed to, RSV1 has no meaning (RFC 6455 section 5.2).
            if header.rsv1 && cx.inflating.is_none() {
                return Err(Trouble::LostProtocol);
            }
            let len = usize::try_from(header.payload_len).unwrap_or(usize::MAX);
            if len > INPUT_BYTES_MAX {
                return Err(Trouble::LostProtocol);
            }
            let end = header.header_len + len;
            let Some(payload) = rest.get(header.header_len..end) else { return Ok(used) };
            self.on_frame(&header, payload, cx)?;
            used += end;
        }
    }

    fn parse_answer(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> Result<Option<usize>, Trouble> {
        let handshake = self.extra.as_ref().and_then(|extra| extra.handshake);
        let Some(Handshake { key, .. }) = handshake else { return Err(Trouble::LostProtocol) };
        // An alert or a handshake record of TLS (RFC 8446 section 5.1), whose first byte no HTTP answer has.
        if matches!(bytes, [21 | 22, 3, ..]) {
            return Err(Trouble::ServerSpeaksTls);
        }
        let trouble = match answer::judge(bytes, &key, &cx.plan.conversation, cx.inflating.is_some()) {
            Ok(None) => return Ok(None),
            Ok(Some(head_len)) => {
                if let Some(traced) = cx.traced {
                    traced.head(Way::In, bytes.get(..head_len).unwrap_or_default());
                }
                self.greet(cx);
                return Ok(Some(head_len));
            }
            Err(trouble) => trouble,
        };
        if let Some(traced) = cx.traced {
            traced.head(Way::In, bytes);
        }
        cx.plan.details.note(trouble, || answer::detail(trouble, bytes));
        Err(trouble)
    }

    fn on_open(&mut self, cx: &mut Context<'_>) {
        self.state = State::Open;
        self.opened = true;
        // Publishers are clients, too, and are owed nothing.
        if cx.role == Role::Subscribe && cx.plan.keeps_accounts() {
            let account = self.account.get_or_insert_default();
            account.on_open(cx.plan.bulletins_of(cx.number), &mut cx.tally.counts);
        }
        let Some(extra) = &mut self.extra else { return };
        let Some(Handshake { started_ns, away, .. }) = extra.handshake.take() else { return };
        if !cx.plan.conversation.keeps_caught() {
            extra.caught = Vec::new();
        }
        if let Some(secured) = extra.tls.as_ref().and_then(|tls| tls.secured()) {
            cx.tally.on_secured(secured.took_ns, secured.resumed);
        }
        let took_ns = cx.now_ns.saturating_sub(started_ns);
        match away {
            Some(away) if away.since_ns == Away::UNCOUNTED.since_ns => {}
            Some(away) => {
                let away_ns = cx.now_ns.saturating_sub(away.since_ns);
                cx.tally.on_return(cx.now_ns, took_ns, away_ns);
            }
            None => {
                cx.tally.connect.saturating_record(took_ns);
                cx.tally.counts.opened += 1;
                cx.tally.counts.settled_ns = cx.now_ns;
                cx.tally.counts.subscriptions += cx.plan.conversation.topics().of(cx.number).count() as u64;
            }
        }
    }

    /// Queues a message that is part of the conversation and counted nowhere.
    fn say(&mut self, opcode: Opcode, text: &[u8], traced: Option<Traced>) {
        if let Some(traced) = traced {
            traced.frame(Way::Out, opcode, text);
        }
        let extra = self.extra.get_or_insert_default();
        if extra.output.len() < OUTPUT_BYTES_MAX {
            frame::push_frame(&mut extra.output, opcode, text, Some(mask()));
        }
    }

    /// Says what has to be said every so often.
    pub(crate) fn say_again(
        &mut self,
        text: &crate::engine::text::Text,
        cx: &Context<'_>,
    ) -> Result<(), Trouble> {
        if self.state == State::Open {
            let caught = self.extra.as_ref().map_or(&[][..], |extra| &extra.caught);
            let said = text.fill(&cx.filling(caught)).into_owned();
            self.say(greeting::kind(text), &said, cx.traced);
            return self.flush();
        }
        Ok(())
    }

    fn on_frame(
        &mut self,
        header: &FrameHeader,
        payload: &[u8],
        cx: &mut Context<'_>,
    ) -> Result<(), Trouble> {
        let FrameHeader { fin, rsv1: deflated, opcode, .. } = *header;
        if let Some(traced) = cx.traced {
            traced.frame(Way::In, opcode, payload);
        }
        match opcode {
            Opcode::Ping => {
                // RFC 6455 section 5.5.3: a pong carries the ping's payload.
                let extra = self.extra.get_or_insert_default();
                if extra.output.len() < OUTPUT_BYTES_MAX {
                    frame::push_frame(&mut extra.output, Opcode::Pong, payload, Some(mask()));
                }
                Ok(())
            }
            Opcode::Pong => {
                if cx.role == Role::Ping && self.state == State::Open {
                    self.on_pong(payload, cx);
                }
                Ok(())
            }
            Opcode::Close if self.state == State::Greeting => {
                self.on_close(payload);
                Err(Trouble::AwaitClosed)
            }
            Opcode::Close => {
                self.on_close(payload);
                Err(Trouble::LostClose)
            }
            Opcode::Continuation => {
                let Some(extra) = &mut self.extra else { return Err(Trouble::LostProtocol) };
                let Some(mut message) = extra.fragments.take() else { return Err(Trouble::LostProtocol) };
                if message.len() + payload.len() > INPUT_BYTES_MAX {
                    return Err(Trouble::LostProtocol);
                }
                message.extend_from_slice(payload);
                if fin {
                    let deflated = std::mem::take(&mut extra.deflated);
                    let binary = std::mem::take(&mut extra.binary);
                    return self.on_data(deflated, binary, &message, cx);
                }
                extra.fragments = Some(message);
                Ok(())
            }
            Opcode::Text | Opcode::Binary => {
                // RFC 6455 section 5.4: messages are not interleaved.
                if self.extra.as_ref().is_some_and(|extra| extra.fragments.is_some()) {
                    return Err(Trouble::LostProtocol);
                }
                if fin {
                    return self.on_data(deflated, opcode == Opcode::Binary, payload, cx);
                }
                let extra = self.extra.get_or_insert_default();
                extra.fragments = Some(payload.to_vec());
                extra.deflated = deflated;
                extra.binary = opcode == Opcode::Binary;
                Ok(())
            }
        }
    }

    fn on_close(&mut self, payload: &[u8]) {
        // RFC 6455 section 7.1.5: without a code it counts as 1005.
        let (code, reason) = match payload.split_first_chunk() {
            Some((code, reason)) => (u16::from_be_bytes(*code), String::from_utf8_lossy(reason).into_owned()),
            None => (1005, String::new()),
        };
        self.extra.get_or_insert_default().close = Some((code, reason));
    }

    /// Takes a whole message as it came.
    fn on_data(
        &mut self,
        deflated: bool,
        binary: bool,
        payload: &[u8],
        cx: &mut Context<'_>,
    ) -> Result<(), Trouble> {
        if !deflated {
            return self.on_message(payload, binary, cx);
        }
        cx.tally.counts.deflated += 1;
        cx.tally.counts.deflated_bytes += payload.len() as u64;
        let Some(inflating) = cx.inflating.take() else { return Err(Trouble::LostProtocol) };
        let content = inflating.inflate(payload, INPUT_BYTES_MAX).map_err(|_| Trouble::LostProtocol);
        let outcome = content.and_then(|content| self.on_message(content, binary, cx));
        cx.inflating = Some(inflating);
        outcome
    }

    fn flush(&mut self) -> Result<(), Trouble> {
        let (Some(stream), Some(extra)) = (&mut self.stream, &mut self.extra) else { return Ok(()) };
        let written = match &mut extra.tls {
            // Sealed bytes may wait although no others do.
            Some(tls) => tls.send(stream, &extra.output),
            None if extra.output.is_empty() => Ok(0),
            None => write_some(stream, &extra.output),
        };
        match written {
            // Where the box stays, as with TLS, the buffer does not.
            Ok(written) if written == extra.output.len() => extra.output = Vec::new(),
            Ok(written) => drop(extra.output.drain(..written)),
            Err(error) => return Err(self.trouble(&error)),
        }
        let empty = extra.handshake.is_none()
            && extra.tls.is_none()
            && extra.listening.is_none()
            && extra.input.is_empty()
            && extra.output.is_empty()
            && extra.caught.is_empty()
            && extra.fragments.is_none();
        if empty {
            self.extra = None;
        }
        Ok(())
    }
}

/// The stream number of one echo connection, so that another connection's echo is not taken for its own.
pub(crate) fn echo_stream(run_id: u64, number: u64) -> u64 {
    run_id.wrapping_add(number)
}

/// A masking key. It need not be unpredictable here (RFC 6455 section 10.3 protects proxies from
/// scripts); it must not be zero, which would let a server that never unmasks pass.
pub(crate) fn mask() -> [u8; 4] {
    use std::cell::Cell;
    thread_local!(static STATE: Cell<u32> = const { Cell::new(0x9e37_79b9) });
    STATE.with(|state| {
        let mut next = state.get();
        next ^= next << 13;
        next ^= next >> 17;
        next ^= next << 5;
        state.set(next);
        next.to_ne_bytes()
    })
}

/// Writes until the kernel takes no more and returns how much it took.
fn write_some(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match stream.write(rest) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(written)
}
