//! A server of event streams and long polls that shares no code with the generator, keeps every message, and does to
//! those that come back what it is told to.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use rustls::ServerConfig;

use crate::servers::{Tls, secured};

/// How long a poll waits.
const WAIT: Duration = Duration::from_millis(500);

/// What the server does.
#[derive(Clone, Debug)]
pub(crate) struct Ways {
    /// What ends a line.
    pub(crate) line_end: &'static str,
    /// Whether bodies are chunked; else they end with the connection.
    pub(crate) chunked: bool,
    /// What stands in front of a stream.
    pub(crate) preamble: &'static str,
    /// A connection ends behind so many events.
    pub(crate) ends_behind: Option<usize>,
    /// So much further than it should is where a client goes on that comes back.
    pub(crate) skips: i64,
    /// So often is the 50th message kept.
    pub(crate) fiftieth: usize,
    /// Whether an answer to a poll is the last one on its connection.
    pub(crate) closes: bool,
    /// The answer in place of a stream.
    pub(crate) answer: Option<&'static str>,
}

impl Default for Ways {
    fn default() -> Self {
        Self {
            line_end: "\n",
            chunked: true,
            preamble: "retry: 20\n\n",
            ends_behind: None,
            skips: 0,
            fiftieth: 1,
            closes: false,
            answer: None,
        }
    }
}

#[derive(Default)]
struct Topics {
    messages: Mutex<HashMap<String, Vec<String>>>,
    changed: Condvar,
    posts: AtomicUsize,
    /// First lines and fields of requests that were not posts.
    heads: Mutex<Vec<String>>,
}

/// See the module's head.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) address: String,
    topics: Arc<Topics>,
}

impl Server {
    pub(crate) fn start(ways: Ways) -> Self {
        Self::start_over(None, ways)
    }

    /// The same over TLS.
    pub(crate) fn start_secure(tls: &Tls, ways: Ways) -> Self {
        Self::start_over(Some(tls.config()), ways)
    }

    fn start_over(tls: Option<Arc<ServerConfig>>, ways: Ways) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let topics = Arc::<Topics>::default();
        let shared = topics.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (ways, topics, tls) = (ways.clone(), shared.clone(), tls.clone());
                thread::spawn(move || {
                    let stream = stream.unwrap();
                    stream.set_nodelay(true).unwrap();
                    let ending = stream.try_clone().unwrap();
                    // The generator may be gone at any time.
                    let _ = match &tls {
                        None => serve(BufReader::new(stream), &ways, &topics),
                        Some(tls) => {
                            let mut reader = BufReader::new(secured(stream, tls));
                            let outcome = serve(&mut reader, &ways, &topics);
                            reader.get_mut().conn.send_close_notify();
                            outcome.and(reader.get_mut().flush())
                        }
                    };
                    let _ = ending.shutdown(Shutdown::Both);
                });
            }
        });
        Self { address, topics }
    }

    /// Messages of all topics, as they were published.
    pub(crate) fn published(&self) -> usize {
        self.topics.messages.lock().unwrap().values().map(Vec::len).sum()
    }

    /// The heads of all requests that listen.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.topics.heads.lock().unwrap().clone()
    }
}

/// A connection, which is read and written in turn.
trait Talk: BufRead {
    fn say(&mut self, bytes: &[u8]) -> std::io::Result<()>;
}

impl<S: Read + Write> Talk for BufReader<S> {
    fn say(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.get_mut().write_all(bytes)?;
        self.get_mut().flush()
    }
}

impl<T: Talk> Talk for &mut T {
    fn say(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        (**self).say(bytes)
    }
}

fn serve(mut reader: impl Talk, ways: &Ways, topics: &Topics) -> std::io::Result<()> {
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if reader.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let target = head.split(' ').nth(1).unwrap().to_owned();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        let (kind, topic) = path[1..].split_once('/').unwrap();
        let field = |name: &str| {
            let line = head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
            line.map(str::to_owned)
        };
        match kind {
            "publish" => {
                let mut body = vec![0; field("Content-Length").unwrap().parse().unwrap()];
                reader.read_exact(&mut body)?;
                let text = String::from_utf8(body).unwrap();
                let number = topics.posts.fetch_add(1, Ordering::SeqCst) + 1;
                let times = if number == 50 { ways.fiftieth } else { 1 };
                let mut messages = topics.messages.lock().unwrap();
                messages.entry(topic.to_owned()).or_default().extend(std::iter::repeat_n(text, times));
                drop(messages);
                topics.changed.notify_all();
                reader.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")?;
            }
            "sse" => {
                topics.heads.lock().unwrap().push(head.clone());
                let since = field("Last-Event-ID").map(|id| id.parse().unwrap());
                return stream_events(&mut reader, ways, topics, topic, since);
            }
            _ => {
                topics.heads.lock().unwrap().push(head.clone());
                let since = query.split('&').find_map(|pair| pair.strip_prefix("since="));
                let since = since.or(field("X-Since").as_deref()).map(|since| since.parse().unwrap());
                answer_poll(&mut reader, ways, topics, topic, since)?;
                if ways.closes {
                    return Ok(());
                }
            }
        }
    }
}

fn stream_events(
    stream: &mut impl Talk,
    ways: &Ways,
    topics: &Topics,
    topic: &str,
    since: Option<usize>,
) -> std::io::Result<()> {
    if let Some(answer) = ways.answer {
        return stream.say(answer.as_bytes());
    }
    let framing = if ways.chunked { "Transfer-Encoding: chunked\r\n" } else { "" };
    let kind = "Content-Type: text/event-stream; charset=utf-8\r\n";
    stream.say(format!("HTTP/1.1 200 OK\r\n{kind}{framing}\r\n").as_bytes())?;
    // The end is one with the last event: however long this thread waits behind it, nothing is owed any more.
    let mut say = |text: &str, end: &[u8]| {
        let text = text.replace('\n', ways.line_end);
        // In two pieces, so that no reader may rely on whole ones.
        let (first, second) = text.as_bytes().split_at(text.len() / 2);
        let pieces = [(first, &b""[..]), (second, end)].into_iter();
        for (piece, end) in pieces.filter(|(piece, _)| !piece.is_empty()) {
            match ways.chunked {
                true => {
                    let len = format!("{:x}\r\n", piece.len());
                    stream.say(&[len.as_bytes(), piece, b"\r\n", end].concat())?;
                }
                false => stream.say(piece)?,
            }
        }
        Ok::<(), std::io::Error>(())
    };
    say(ways.preamble, b"")?;
    let mut next = match since {
        Some(since) => usize::try_from(since as i64 + ways.skips).unwrap_or(0),
        None => topics.messages.lock().unwrap().get(topic).map_or(0, Vec::len),
    };
    // Where it is, before anything has come.
    say(&format!("id: {next}\n\n"), b"")?;
    let last = ways.ends_behind.unwrap_or(usize::MAX);
    for number in 1..=last {
        let mut messages = topics.messages.lock().unwrap();
        let message = loop {
            match messages.get(topic).and_then(|all| all.get(next)) {
                Some(message) => break message.clone(),
                None => messages = topics.changed.wait(messages).unwrap(),
            }
        };
        drop(messages);
        next += 1;
        let end = if number == last { &b"0\r\n\r\n"[..] } else { b"" };
        say(&format!(": {next}\nid: {next}\nevent: message\ndata: {message}\n\n"), end)?;
    }
    Ok(())
}

fn answer_poll(
    stream: &mut impl Talk,
    ways: &Ways,
    topics: &Topics,
    topic: &str,
    since: Option<usize>,
) -> std::io::Result<()> {
    let mut messages = topics.messages.lock().unwrap();
    let all = |messages: &HashMap<String, Vec<String>>| messages.get(topic).map_or(0, Vec::len);
    let from = match since {
        Some(since) => usize::try_from(since as i64 + ways.skips).unwrap_or(0),
        None => all(&messages),
    };
    // Who does not know where it is is told at once.
    if since.is_some() && all(&messages) <= from {
        messages =
            topics.changed.wait_timeout_while(messages, WAIT, |messages| all(messages) <= from).unwrap().0;
    }
    let to = all(&messages);
    let new = messages.get(topic).and_then(|all| all.get(from..)).unwrap_or_default();
    let body = format!(
        "{{\"messages\":[{}]}}",
        new.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>().join(",")
    );
    drop(messages);
    let close = if ways.closes { "Connection: close\r\n" } else { "" };
    let body = match ways.chunked {
        true => format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
        false => format!("Content-Length: {}\r\n\r\n{body}", body.len()),
    };
    stream.say(format!("HTTP/1.1 200 OK\r\nFantail-Position: {to}\r\n{close}{body}").as_bytes())
}
