//! A client that listens by HTTP: an event stream, or one long poll after the other.
//!
//! The request has left like that of an upgrade; here is what the answers mean. Where it goes on when it comes back is its
//! [`Position`], which outlives the connection.

use std::time::Duration;

use fantail::wire::frame::Opcode;
use fantail::wire::upgrade;

use super::{Connection, Context, Extra, INPUT_BYTES_MAX, State};
use crate::base::trouble::Trouble;
use crate::engine::answer;
use crate::engine::conversation::{Client, POSITION};
use crate::engine::trace::Way;
use crate::net::body::Body;
use crate::net::event_stream::EventStream;
use crate::net::http_answer::{Head, Incoming};

/// When an answer that brought nothing new came sooner than this, the next poll waits for as long: a server that does not hold
/// requests would be asked without a pause.
const PAUSE_NS: u64 = 100_000_000;

/// Where a client goes on: what its texts may name, and how long the server wants it to wait.
#[derive(Clone, Debug, Default)]
pub(crate) struct Position {
    /// Values by name.
    pub(crate) caught: Vec<(String, String)>,
    /// The time that an event stream's `retry` says.
    pub(crate) retry: Option<Duration>,
}

/// What a client of HTTP keeps as long as its connection lives.
#[derive(Debug)]
pub(crate) enum Listening {
    /// An event stream, and how its body is framed once its head has come.
    Events(Option<Body>, EventStream),
    /// A poll, and when the next one may leave if that is not at once.
    Poll(Poll),
}

/// See [`Listening::Poll`].
#[derive(Debug, Default)]
pub(crate) struct Poll {
    answer: Incoming,
    asked_ns: u64,
    caught: Vec<(String, String)>,
    pauses_until_ns: Option<u64>,
}

impl Listening {
    /// Of a connection whose request leaves now and goes on at this position; `None` for WebSocket.
    pub(crate) fn of(client: Client, position: &Position, now_ns: u64) -> Option<Box<Self>> {
        match client {
            Client::Ws => None,
            Client::Sse => {
                let known = position.caught.iter().find(|(name, _)| name == POSITION);
                let id = known.map_or("", |(_, id)| id.as_str());
                Some(Box::new(Self::Events(None, EventStream::behind(id))))
            }
            Client::Poll => {
                let caught = position.caught.clone();
                Some(Box::new(Self::Poll(Poll { asked_ns: now_ns, caught, ..Poll::default() })))
            }
        }
    }
}

impl Extra {
    fn position(&self) -> Option<Position> {
        match self.listening.as_deref()? {
            Listening::Events(_, stream) => {
                let id = String::from_utf8_lossy(stream.last_id()).into_owned();
                Some(Position { caught: vec![(POSITION.to_owned(), id)], retry: stream.retry() })
            }
            Listening::Poll(poll) => Some(Position { caught: poll.caught.clone(), retry: None }),
        }
    }
}

impl Connection {
    /// Where its client goes on when it comes back; `None` for WebSocket.
    pub(crate) fn position(&self) -> Option<Position> {
        self.extra.as_ref()?.position()
    }

    /// When the next poll leaves, if it waits.
    pub(crate) fn pauses_until_ns(&self) -> Option<u64> {
        match self.extra.as_ref()?.listening.as_deref()? {
            Listening::Poll(poll) => poll.pauses_until_ns,
            Listening::Events(..) => None,
        }
    }

    /// A client that polls counts as open once its first request has left: the answer may be long in coming.
    pub(crate) fn open_if_asked(&mut self, cx: &mut Context<'_>) {
        let Some(extra) = self.extra.as_ref().filter(|_| self.state == State::Upgrading) else { return };
        let secured = extra.tls.as_ref().is_none_or(|tls| tls.secured().is_some());
        if secured
            && extra.output.is_empty()
            && matches!(extra.listening.as_deref(), Some(Listening::Poll(_)))
        {
            self.on_open(cx);
        }
    }

    /// The pause is over: the next poll leaves.
    pub(crate) fn ask_again(&mut self, cx: &Context<'_>) -> Result<(), Trouble> {
        if self.state != State::Open {
            return Ok(());
        }
        let Some(extra) = self.extra.as_deref_mut() else { return Ok(()) };
        if let Some(Listening::Poll(poll)) = extra.listening.as_deref_mut() {
            poll.pauses_until_ns = None;
            poll.ask(&mut extra.output, cx);
        }
        self.flush()
    }

    /// Takes what came for a client of HTTP, and returns how much of it was used.
    pub(super) fn listen(&mut self, bytes: &[u8], cx: &mut Context<'_>) -> Result<usize, Trouble> {
        let listening = self.extra.as_mut().and_then(|extra| extra.listening.take());
        let Some(mut listening) = listening else { return Err(Trouble::LostProtocol) };
        let outcome = match &mut *listening {
            Listening::Events(body, stream) => self.on_stream(body, stream, bytes, cx),
            Listening::Poll(poll) => self.on_polled(poll, bytes, cx),
        };
        // Whatever became of it, its position is where it goes on.
        self.extra.get_or_insert_default().listening = Some(listening);
        if self.state == State::Upgrading && outcome.is_ok() {
            self.open_if_asked(cx);
        }
        outcome
    }

    fn on_stream(
        &mut self,
        body: &mut Option<Body>,
        stream: &mut EventStream,
        bytes: &[u8],
        cx: &mut Context<'_>,
    ) -> Result<usize, Trouble> {
        let mut used = 0;
        let body = match body {
            Some(body) => body,
            None => {
                let Some((head, len)) = stream_head(bytes, cx)? else { return Ok(0) };
                used = len;
                if let Some(traced) = cx.traced {
                    traced.head(Way::In, bytes.get(..used).unwrap_or_default());
                }
                self.on_open(cx);
                body.insert(head.framing())
            }
        };
        let mut outcome = Ok(());
        let over = body.on_bytes(bytes.get(used..).unwrap_or_default(), |content| {
            let taken = stream.on_bytes(content, INPUT_BYTES_MAX, |event| {
                if let Some(traced) = cx.traced {
                    traced.frame(Way::In, Opcode::Text, event.data);
                }
                outcome = outcome.and(self.on_message(event.data, false, cx));
            });
            if taken.is_err() {
                outcome = Err(Trouble::LostProtocol);
            }
        });
        outcome?;
        match over {
            Ok(false) => Ok(bytes.len()),
            Ok(true) => Err(Trouble::LostEnd),
            Err(_) => Err(Trouble::LostProtocol),
        }
    }

    fn on_polled(&mut self, poll: &mut Poll, bytes: &[u8], cx: &mut Context<'_>) -> Result<usize, Trouble> {
        if self.state == State::Upgrading {
            // The answer was quicker than the event that says that the request has left.
            self.on_open(cx);
        }
        let head = poll.answer.on_bytes(bytes, INPUT_BYTES_MAX).map_err(|_| Trouble::LostProtocol)?;
        match head {
            Some(head) => self.on_answered(poll, &head, cx).map(|()| bytes.len()),
            None => Ok(bytes.len()),
        }
    }

    /// A poll was answered: takes what is in the answer, and asks for what comes behind it.
    fn on_answered(&mut self, poll: &mut Poll, head: &Head, cx: &mut Context<'_>) -> Result<(), Trouble> {
        let answer = std::mem::take(&mut poll.answer);
        let (lines, body) = answer.parts(head);
        if let Some(traced) = cx.traced {
            traced.head(Way::In, lines);
            if !body.is_empty() {
                traced.frame(Way::In, Opcode::Text, &body);
            }
        }
        // 408 is what nchan says, and 304 what caches say, when nothing has come in time.
        if !matches!(head.status, 200..300 | 304 | 408) {
            let trouble = Trouble::Answered(head.status);
            cx.plan.details.note(trouble, || answer.first_line(head).map(|line| format!("it says {line:?}")));
            return Err(trouble);
        }
        let mut moved = false;
        for (name, value) in cx.plan.conversation.positions_in(lines, &body) {
            match poll.caught.iter_mut().find(|(known, _)| *known == name) {
                Some((_, known)) if *known == value => continue,
                Some((_, known)) => *known = value,
                None => poll.caught.push((name, value)),
            }
            moved = true;
        }
        if !body.is_empty() {
            self.on_test_message(&body, false, true, cx);
        }
        if !moved && cx.now_ns.saturating_sub(poll.asked_ns) < PAUSE_NS {
            poll.pauses_until_ns = Some(cx.now_ns + PAUSE_NS);
        } else if !head.close {
            poll.ask(&mut self.extra.get_or_insert_default().output, cx);
        }
        if head.close { Err(Trouble::PolledLast) } else { Ok(()) }
    }
}

impl Poll {
    fn ask(&mut self, output: &mut Vec<u8>, cx: &Context<'_>) {
        self.asked_ns = cx.now_ns;
        let from = output.len();
        let filling = cx.plan.conversation.filling(cx.number, &self.caught);
        cx.plan.conversation.write_get(&cx.plan.target, &filling, output);
        if let Some(traced) = cx.traced {
            traced.head(Way::Out, output.get(from..).unwrap_or_default());
        }
    }
}

/// The head of an answer that is an event stream, and where it ends; `None` until it is whole.
fn stream_head(mut bytes: &[u8], cx: &Context<'_>) -> Result<Option<(Head, usize)>, Trouble> {
    // An alert or a handshake record of TLS (RFC 8446 section 5.1).
    if matches!(bytes, [21 | 22, 3, ..]) {
        return Err(Trouble::ServerSpeaksTls);
    }
    let mut before = 0;
    let head = loop {
        let begun = bytes.get(..5.min(bytes.len())).unwrap_or_default();
        match Head::parse(bytes) {
            // RFC 9110 section 15.2: interim answers come before the final one.
            Ok(Some(head)) if head.status < 200 => {
                before += head.len();
                bytes = bytes.get(head.len()..).unwrap_or_default();
            }
            Ok(Some(head)) => break head,
            Ok(None) if b"HTTP/".starts_with(begun) => return Ok(None),
            Ok(None) | Err(_) => {
                cx.plan.details.note(Trouble::NotHttp, || answer::detail(Trouble::NotHttp, bytes));
                return Err(Trouble::NotHttp);
            }
        }
    };
    let field = |name| upgrade::answer_field(bytes, name);
    if head.status != 200 {
        let trouble = Trouble::Answered(head.status);
        cx.plan.details.note(trouble, || answer::detail(Trouble::UpgradeRefused(head.status), bytes));
        return Err(trouble);
    }
    // HTML standard section 9.2.2: an answer of another type fails the connection.
    let kind = field("content-type").unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    let coding = field("content-encoding").filter(|coding| !coding.eq_ignore_ascii_case("identity"));
    if !essence.eq_ignore_ascii_case("text/event-stream") || coding.is_some() {
        let what = match coding {
            Some(coding) => format!("its Content-Encoding is {coding}"),
            None => format!("its Content-Type is {kind:?}"),
        };
        cx.plan.details.note(Trouble::AnsweredNoEvents, || Some(what));
        return Err(Trouble::AnsweredNoEvents);
    }
    Ok(Some((head, before + head.len())))
}
