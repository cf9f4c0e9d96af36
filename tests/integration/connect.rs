//! `fantail connect` against the running server and against servers that misbehave.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::Receiver;
use std::thread;
use std::time::SystemTime;

use fantail::wire::frame::{Opcode, push_frame};
use fantail::wire::http::date::Date;
use fantail::wire::http::head::{HeadLimits, field_store, parse_head};
use fantail::wire::http::response::ResponseBuffer;
use fantail::wire::upgrade::{check, write_accept};

use crate::secure;
use crate::server::{PATIENCE, Server, command, lines, nobody, wait_for};

/// A running `fantail connect`.
pub(crate) struct Connect {
    child: Child,
    input: Option<ChildStdin>,
    out: Receiver<String>,
    said: Receiver<String>,
}

impl Connect {
    pub(crate) fn to(address: SocketAddr, path: &str, flags: &[&str]) -> Self {
        let Some(at) = secure::instead_of(address) else { return Self::plainly_to(address, path, flags) };
        let url = format!("wss://{at}{path}");
        let mut arguments = vec!["connect", &url];
        arguments.extend_from_slice(flags);
        let ca = secure::usual().ca();
        arguments.extend(["--ca", &ca]);
        Self::spawn(command(&arguments, &[]))
    }

    /// Without TLS even where all peers speak it.
    fn plainly_to(address: SocketAddr, path: &str, flags: &[&str]) -> Self {
        let url = format!("ws://{address}{path}");
        let arguments = [&["connect"], flags, &[&url]].concat();
        Self::spawn(command(&arguments, &[]))
    }

    pub(crate) fn spawn(mut command: Command) -> Self {
        let mut child = command.stdin(Stdio::piped()).spawn().expect("the binary starts");
        let out = lines(child.stdout.take().expect("piped"));
        let said = lines(child.stderr.take().expect("piped"));
        let input = child.stdin.take();
        Self { child, input, out, said }
    }

    pub(crate) fn take_input(&mut self) -> ChildStdin {
        self.input.take().expect("open")
    }

    pub(crate) fn send(&mut self, text: &str) {
        self.input.as_mut().expect("still open").write_all(text.as_bytes()).expect("it reads");
    }

    fn end_input(&mut self) {
        self.input = None;
    }

    pub(crate) fn line(&self) -> String {
        self.out.recv_timeout(PATIENCE).expect("a line")
    }

    fn await_remark(&self, part: &str) -> String {
        loop {
            let remark = self.said.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("no {part:?}"));
            if remark.contains(part) {
                return remark;
            }
        }
    }

    /// Waits for its end: the code and what was still to read.
    pub(crate) fn end(mut self) -> Ended {
        let mut status = None;
        wait_for("connect to end", || {
            status = self.child.try_wait().expect("a child");
            status.is_some()
        });
        let said: Vec<String> = self.said.iter().collect();
        (status.expect("just waited for").code(), self.out.iter().collect(), said.join("\n"))
    }
}

impl Drop for Connect {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a run ended.
pub(crate) type Ended = (Option<i32>, Vec<String>, String);

/// Runs with a longer and longer `--timeout`, until it was long enough to connect within: it counts from the start.
pub(crate) fn in_time_to_connect(run: impl Fn(&str) -> Ended) -> Ended {
    let connected = |ended: &Ended| ended.2.contains("connected to");
    ["0.3", "1", "4", "16"].into_iter().map(run).find(connected).expect("it connects in time")
}

#[test]
fn lines_go_out_and_come_back() {
    let server = Server::start(&[], &[]);
    let mut client = Connect::to(server.listen, "/echo", &[]);
    client.send("one\n");
    assert_eq!(client.line(), "one");
    client.send("\nzwei é\r\nlast without an end");
    client.end_input();
    let (code, out, said) = client.end();
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(out, ["", "zwei é", "last without an end"]);
    assert!(said.contains("connected to") && said.contains("closed 1000"), "{said}");
}

#[test]
fn a_flood_of_echoes_is_no_deadlock() {
    let server = Server::start(&[], &[]);
    let mut client = Connect::to(server.listen, "/echo", &["--count", "20000"]);
    let mut input = client.take_input();
    let writer = thread::spawn(move || {
        for number in 0..20_000 {
            input.write_all(format!("{number:01000}\n").as_bytes()).expect("it reads");
        }
    });
    for number in 0..20_000 {
        assert_eq!(client.line(), format!("{number:01000}"));
    }
    writer.join().expect("written");
    assert_eq!(client.end().0, Some(0));
}

#[test]
fn messages_are_printed_and_counted() {
    let server = Server::start(&[], &[]);
    let client = Connect::to(server.listen, "/ws/t", &["--listen", "--count", "2"]);
    client.await_remark("connected");
    server.publish("t", "text é".as_bytes());
    server.publish("t?binary=1", &[0, 255, 16]);
    let (code, out, said) = client.end();
    assert_eq!((code, out), (Some(0), vec!["text é".to_owned(), "00ff10".to_owned()]), "{said}");

    let client = Connect::to(server.listen, "/ws/t", &["--listen", "--count", "1", "--binary-out"]);
    client.await_remark("connected");
    server.publish("t?binary=1", b"raw\nbytes\n");
    assert_eq!(client.end().1, ["raw", "bytes"]);

    // A time without enough messages is a failure, and without a count it is not.
    let listen = |more: &[&str]| {
        let run = |time: &str| {
            let flags = [&["--listen", "--timeout", time], more].concat();
            Connect::to(server.listen, "/ws/t", &flags).end()
        };
        in_time_to_connect(run)
    };
    assert_eq!(listen(&[]).0, Some(0));
    let (code, _, said) = listen(&["--count", "1"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("1 messages have not come"), "{said}");
}

#[test]
fn wrong_usage_is_2_and_no_connection_is_1() {
    for arguments in [
        &["connect"][..],
        &["connect", "wss:/127.0.0.1:1/"],
        &["connect", "http://127.0.0.1:1/"],
        &["connect", "-H", "no colon", "ws://127.0.0.1:1/"],
        &["connect", "--attempts", "3", "ws://127.0.0.1:1/"],
        &["connect", "--header-file", "/nonexistent", "ws://127.0.0.1:1/"],
    ] {
        let (code, _, said) = Connect::spawn(command(arguments, &[])).end();
        assert_eq!(code, Some(2), "{arguments:?}: {said}");
    }
    let (_held, nobody) = nobody();
    let (code, _, said) = Connect::to(nobody, "/", &[]).end();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cannot connect to"), "{said}");
    let server = Server::start(&[], &[]);
    let (code, _, said) = Connect::to(server.listen, "/ws", &["--origin", "https://page.example"]).end();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("answered 403: origin not allowed"), "{said}");
    let (code, _, said) = Connect::to(server.listen, "/ws?topics=a", &[]).end();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("answered 400: unknown parameter \"topics\"; did you mean \"topic\"?"), "{said}");
    // 403 would be 403 again.
    let flags = ["--reconnect", "--origin", "https://page.example"];
    assert_eq!(Connect::to(server.listen, "/ws", &flags).end().0, Some(1));
}

/// Takes one upgrade and gives the request's text and the stream.
pub(crate) fn accept(listener: &TcpListener, protocol: Option<&str>) -> (String, TcpStream) {
    accept_with(listener, protocol, "")
}

/// The same with further fields in the answer.
fn accept_with(listener: &TcpListener, protocol: Option<&str>, more: &str) -> (String, TcpStream) {
    let (mut stream, _) = listener.accept().expect("a client");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    let mut held = Vec::new();
    let mut byte = [0];
    while !held.ends_with(b"\r\n\r\n") {
        assert_eq!(stream.read(&mut byte).expect("a request"), 1);
        held.push(byte[0]);
    }
    let text = String::from_utf8(held).expect("text");
    let mut answer = answer_upgrade_with(&text, protocol);
    let end = answer.len() - 2;
    answer.splice(end..end, more.bytes());
    stream.write_all(&answer).expect("it reads");
    (text, stream)
}

/// The answer to a request that asks for an upgrade.
pub(crate) fn answer_upgrade(head: &str) -> Vec<u8> {
    answer_upgrade_with(head, None)
}

fn answer_upgrade_with(head: &str, protocol: Option<&str>) -> Vec<u8> {
    let mut store = field_store();
    let (head, _) =
        parse_head(head.as_bytes(), &mut store, &HeadLimits::default()).expect("legal").expect("whole");
    let mut answer = ResponseBuffer::new(Vec::new(), Date::at(SystemTime::now()));
    write_accept(&mut answer, &check(&head).expect("an upgrade"), protocol, None);
    answer.to_vec()
}

/// What bounds an answer is its bytes, not how many fields they make.
#[test]
fn an_answer_may_have_many_fields() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let client = Connect::to(listener.local_addr().expect("bound"), "/", &["--listen"]);
    let (_, mut stream) = accept_with(&listener, None, &"A: b\r\n".repeat(2_000));
    stream.write_all(&server_frame(Opcode::Text, b"well")).expect("it reads");
    assert_eq!(client.line(), "well");
    stream.write_all(&server_frame(Opcode::Close, &1000_u16.to_be_bytes())).expect("it reads");
    let (code, _, said) = client.end();
    assert_eq!(code, Some(0), "{said}");
}

pub(crate) fn server_frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    push_frame(&mut out, opcode, payload, None);
    out
}

/// The next client frame, unmasked; small ones only.
pub(crate) fn client_frame(stream: &mut TcpStream) -> (u8, Vec<u8>) {
    let mut head = [0; 6];
    stream.read_exact(&mut head).expect("a frame");
    assert_eq!(head[1] & 0x80, 0x80, "a client masks (RFC 6455, 5.3)");
    let mut payload = vec![0; usize::from(head[1] & 0x7f)];
    stream.read_exact(&mut payload).expect("a payload");
    for (at, byte) in payload.iter_mut().enumerate() {
        *byte ^= head[2 + at % 4];
    }
    (head[0] & 0x0f, payload)
}

#[test]
fn the_request_the_pong_and_the_code_are_right() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let flags = ["-H", "X-One: 1", "--origin", "https://a.example", "-s", "v2", "-s", "v1"];
    let client = Connect::to(listener.local_addr().expect("bound"), "/p?q=1", &flags);
    let (request, mut stream) = accept(&listener, Some("v1"));
    assert!(request.starts_with("GET /p?q=1 HTTP/1.1\r\n"), "{request}");
    for field in ["X-One: 1", "Origin: https://a.example", "Sec-WebSocket-Protocol: v2"] {
        assert!(request.contains(field), "{request}");
    }
    client.await_remark("subprotocol v1");
    // A ping inside a fragmented message.
    stream.write_all(&[0x01, 2, b'a', b'b']).expect("it reads");
    stream.write_all(&server_frame(Opcode::Ping, b"mid")).expect("it reads");
    assert_eq!(client_frame(&mut stream), (0xA, b"mid".to_vec()));
    stream.write_all(&[0x80, 1, b'c']).expect("it reads");
    assert_eq!(client.line(), "abc");
    stream.write_all(&server_frame(Opcode::Close, b"\x0f\xa0enough")).expect("it reads");
    assert_eq!(client_frame(&mut stream), (0x8, vec![0x0f, 0xa0]), "the code comes back");
    let (code, _, said) = client.end();
    assert_eq!(code, Some(1));
    assert!(said.contains("closed 4000 enough"), "{said}");
}

#[test]
fn a_server_that_breaks_the_protocol_is_told_and_left() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let client = Connect::to(listener.local_addr().expect("bound"), "/", &["--listen", "--reconnect"]);
    let (_, mut stream) = accept(&listener, None);
    stream.write_all(&[0x81, 1, 0xff]).expect("it reads");
    let (opcode, payload) = client_frame(&mut stream);
    assert_eq!((opcode, payload.get(..2)), (0x8, Some(&1007_u16.to_be_bytes()[..])));
    assert_eq!(client.end().0, Some(1));
}

#[test]
fn it_comes_back_after_a_restart() {
    // At an address where nobody else takes a port while it is away.
    let start = ["--listen", "127.0.43.6:0", "--admin", "127.0.0.1:0"];
    let mut server = Server::spawn(command(&start, &[("FANTAIL_DRAIN_SECONDS", "0")]));
    let (listen, path) = (server.listen.to_string(), "/ws/t");
    let client = Connect::plainly_to(server.listen, path, &["--listen", "--reconnect", "--count", "2"]);
    client.await_remark("connected");
    server.publish("t", b"before");
    assert_eq!(client.line(), "before");
    server.terminate();
    assert_eq!(server.await_exit().code(), Some(0));
    let remark = client.await_remark("reconnecting in");
    assert!(remark.contains("closed 1001"), "{remark}");
    let server = Server::spawn(command(&["--listen", &listen, "--admin", "127.0.0.1:0"], &[]));
    client.await_remark("connected");
    server.publish("t", b"after");
    let (code, out, said) = client.end();
    assert_eq!((code, out), (Some(0), vec!["after".to_owned()]), "{said}");
}

#[test]
fn attempts_are_counted_and_spread() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    // Accepts and ends each connection at once: no handshake ever succeeds.
    let attempts = thread::spawn(move || {
        let mut count = 0;
        while count < 4 {
            drop(listener.accept().expect("an attempt"));
            count += 1;
        }
        count
    });
    let (code, _, said) = Connect::to(address, "/", &["--listen", "--reconnect", "--attempts", "3"]).end();
    assert_eq!(code, Some(1));
    assert!(said.contains("given up after 3 attempts"), "{said}");
    assert_eq!(said.matches("reconnecting in").count(), 3, "{said}");
    assert_eq!(attempts.join().expect("counted"), 4, "the first one and three more");
}
