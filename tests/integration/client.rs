//! A raw peer: bytes out, answers and frames in, each with a deadline.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};

use fantail::wire::frame::{Opcode, Sender, decode_header, push_frame};
use flate2::read::DeflateDecoder;
use flate2::{Compress, Compression, FlushCompress};

use crate::secure::{self, Secure};
use crate::server::{dial, dial_from};

/// The key of RFC 6455, 1.3, and the accept value it calls for.
pub(crate) const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A field that offers compression, and the answer that accepts it.
pub(crate) const OFFER: &str = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";
pub(crate) const ACCEPTED: &str = "permessage-deflate; client_no_context_takeover";

/// One TCP connection to a server.
pub(crate) struct Peer {
    pub(crate) stream: TcpStream,
    /// What lies over it, if it is TLS.
    secure: Option<Box<Secure>>,
    host: SocketAddr,
    held: Vec<u8>,
}

/// One HTTP response.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

/// One frame of the server.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: Opcode,
    /// Whether RSV1 is set, which tells that the payload is compressed (RFC 7692, 6).
    pub(crate) deflated: bool,
    pub(crate) payload: Vec<u8>,
}

impl Answer {
    /// The value of a header field.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.fields(name).next()
    }

    /// The values of all header fields of this name.
    pub(crate) fn fields(&self, name: &str) -> impl Iterator<Item = &str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.filter(move |(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.text()))
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.body.clone()).expect("UTF-8")
    }
}

impl Frame {
    /// The close code; 1005 stands for an empty close frame, as in RFC 6455, 7.1.5.
    pub(crate) fn close_code(&self) -> Option<u16> {
        match (self.opcode, self.payload.as_slice()) {
            (Opcode::Close, [high, low, ..]) => Some(u16::from_be_bytes([*high, *low])),
            (Opcode::Close, []) => Some(1005),
            _ => None,
        }
    }

    /// The payload, inflated if it is compressed.
    pub(crate) fn content(&self) -> Vec<u8> {
        if !self.deflated {
            return self.payload.clone();
        }
        let mut out = Vec::new();
        let whole = [self.payload.as_slice(), &[0, 0, 0xff, 0xff]].concat();
        let mut reader = DeflateDecoder::new(&whole[..]);
        let mut piece = [0; 4096];
        // A message is flushed and not ended: the decoder has it all and then asks for more.
        while let Ok(count @ 1..) = reader.read(&mut piece) {
            out.extend_from_slice(piece.get(..count).expect("read"));
        }
        out
    }
}

/// A whole message as a client with compression sends it: masked, RSV1 set.
pub(crate) fn deflated_frame(opcode: Opcode, content: &[u8]) -> Vec<u8> {
    compressed_frame(&mut Compress::new(Compression::default(), false), opcode, content)
}

fn compressed_frame(state: &mut Compress, opcode: Opcode, content: &[u8]) -> Vec<u8> {
    let mut deflated = Vec::with_capacity(content.len() + 1024);
    state.compress_vec(content, &mut deflated, FlushCompress::Sync).expect("room");
    deflated.truncate(deflated.len() - 4);
    let mut out = frame(opcode, &deflated);
    out[0] |= 0x40;
    out
}

/// A client that keeps its window over messages, whatever was agreed.
pub(crate) struct Persistent(Compress);

impl Persistent {
    pub(crate) fn new() -> Self {
        Self(Compress::new(Compression::default(), false))
    }

    /// Its next message.
    pub(crate) fn frame(&mut self, opcode: Opcode, content: &[u8]) -> Vec<u8> {
        compressed_frame(&mut self.0, opcode, content)
    }
}

/// The upgrade request for a path.
pub(crate) fn upgrade_request(host: SocketAddr, path: &str, more: &str) -> String {
    format!(
        "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n{more}\r\n"
    )
}

/// A masked frame, as a client sends it.
pub(crate) fn frame(opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    push_frame(&mut out, opcode, payload, Some([0x37, 0xfa, 0x21, 0x3d]));
    out
}

impl Peer {
    pub(crate) fn connect(to: SocketAddr) -> Self {
        match secure::instead_of(to) {
            Some(there) => Self::over(dial(there), to),
            None => Self::connect_plain(to),
        }
    }

    /// Connects without TLS, whatever all peers speak: to a server whose certificate they do not trust.
    pub(crate) fn connect_plain(to: SocketAddr) -> Self {
        Self { stream: dial(to), secure: None, host: to, held: Vec::new() }
    }

    /// Connects with TLS to where it is spoken.
    pub(crate) fn connect_secure(to: SocketAddr) -> Self {
        Self::over(dial(to), to)
    }

    /// A peer that speaks TLS over `stream`. A handshake that fails shows in what follows.
    fn over(mut stream: TcpStream, host: SocketAddr) -> Self {
        let (secure, _) = Secure::new(&secure::usual().client, "127.0.0.1", &mut stream);
        Self { stream, secure: Some(Box::new(secure)), host, held: Vec::new() }
    }

    /// Connects from a source address.
    pub(crate) fn connect_from(source: IpAddr, to: SocketAddr) -> Self {
        match secure::instead_of(to) {
            Some(there) => Self::over(dial_from(source, there), to),
            None => Self { stream: dial_from(source, to), secure: None, host: to, held: Vec::new() },
        }
    }

    /// Sends all bytes.
    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.write(bytes).expect("the server reads");
    }

    /// Sends what the peer may have stopped to take.
    pub(crate) fn try_send(&mut self, bytes: &[u8]) {
        let _ = self.write(bytes);
    }

    /// Sends all bytes, unless the server has gone or has stopped to take them.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.secure {
            Some(secure) => secure.send(bytes, &mut self.stream),
            None => self.stream.write_all(bytes),
        }
    }

    pub(crate) fn send_frame(&mut self, opcode: Opcode, payload: &[u8]) {
        self.send(&frame(opcode, payload));
    }

    /// Asks for an upgrade and gives the answer.
    pub(crate) fn ask_upgrade(&mut self, path: &str, more: &str) -> Answer {
        self.send(upgrade_request(self.host, path, more).as_bytes());
        self.answer()
    }

    /// Upgrades, which must work.
    pub(crate) fn upgrade(&mut self, path: &str) {
        let answer = self.ask_upgrade(path, "");
        assert_upgraded(&answer);
    }

    /// Upgrades with compression, which must be accepted.
    pub(crate) fn upgrade_deflated(&mut self, path: &str) {
        let answer = self.ask_upgrade(path, OFFER);
        assert_upgraded(&answer);
        assert_eq!(answer.field("sec-websocket-extensions"), Some(ACCEPTED));
    }

    /// The next response.
    pub(crate) fn answer(&mut self) -> Answer {
        self.answer_to(false)
    }

    /// The next response; to a `HEAD` it has no body, whatever its length says.
    pub(crate) fn answer_to(&mut self, head_only: bool) -> Answer {
        let end = loop {
            if let Some(at) = self.held.windows(4).position(|window| window == b"\r\n\r\n") {
                break at + 4;
            }
            let came = self.read_more();
            assert!(came, "the server ended the stream before a response; held {:?}", lossy(&self.held));
        };
        let head = String::from_utf8(self.held.drain(..end).collect()).expect("a head is text");
        let status = head.get(9..12).and_then(|text| text.parse().ok()).expect("a status");
        assert!(head.starts_with("HTTP/1.1 "), "{head:?}");
        let mut answer = Answer { status, head, body: Vec::new() };
        // RFC 9110, 6.6.1, of every answer but one that only says to go on.
        assert_eq!(answer.field("date").is_some(), status != 100, "{answer:?}");
        if !head_only && status >= 200 && status != 204 {
            if answer.field("transfer-encoding") == Some("chunked") {
                answer.body = self.chunks();
                return answer;
            }
            let length: usize =
                answer.field("content-length").and_then(|text| text.parse().ok()).expect("a length");
            while self.held.len() < length {
                assert!(self.read_more(), "the server ended the stream inside a body");
            }
            answer.body = self.held.drain(..length).collect();
        }
        answer
    }

    /// A body in chunks, without extensions and trailers, up to its end.
    fn chunks(&mut self) -> Vec<u8> {
        std::iter::from_fn(|| self.chunk()).flatten().collect()
    }

    /// The next chunk of a body; `None` for the one that ends it.
    pub(crate) fn chunk(&mut self) -> Option<Vec<u8>> {
        let end = loop {
            if let Some(at) = self.held.windows(2).position(|window| window == b"\r\n") {
                break at;
            }
            assert!(self.read_more(), "the server ended the stream before a chunk");
        };
        let digits = String::from_utf8(self.held.drain(..end + 2).collect()).expect("text");
        let length = usize::from_str_radix(digits.trim_end(), 16).expect("a size");
        while self.held.len() < length + 2 {
            assert!(self.read_more(), "the server ended the stream inside a chunk");
        }
        let data = self.held.drain(..length).collect();
        assert_eq!(self.held.drain(..2).collect::<Vec<_>>(), b"\r\n");
        (length > 0).then_some(data)
    }

    /// Everything up to the end of the stream.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.read_more() {}
        std::mem::take(&mut self.held)
    }

    /// The next frame; `None` at the end of the stream.
    pub(crate) fn next_frame(&mut self) -> Option<Frame> {
        loop {
            if let Some(header) =
                decode_header(&self.held, Sender::Server).expect("the server's frames are legal")
            {
                let start = header.header_len;
                let end = start + header.payload_len as usize;
                while self.held.len() < end {
                    assert!(self.read_more(), "the server ended the stream inside a frame");
                }
                let payload = self.held.get(start..end).expect("arrived").to_vec();
                self.held.drain(..end);
                assert!(header.fin, "the server never fragments");
                return Some(Frame { opcode: header.opcode, deflated: header.rsv1, payload });
            }
            if !self.read_more() {
                return None;
            }
        }
    }

    /// The next frame, which must come.
    pub(crate) fn frame(&mut self) -> Frame {
        self.next_frame().expect("a frame before the end of the stream")
    }

    /// The next frame's payload, which must be text.
    pub(crate) fn text(&mut self) -> String {
        let frame = self.frame();
        assert_eq!(frame.opcode, Opcode::Text, "{frame:?}");
        String::from_utf8(frame.payload).expect("UTF-8")
    }

    /// Proves that the connection lives and that everything before was taken.
    pub(crate) fn ping_pong(&mut self) {
        self.send_frame(Opcode::Ping, b"there?");
        let frame = self.frame();
        assert_eq!((frame.opcode, frame.payload.as_slice()), (Opcode::Pong, &b"there?"[..]));
    }

    /// Waits for the end of the stream; nothing else may come.
    pub(crate) fn expect_end(&mut self) {
        assert!(!self.read_more(), "more came: {:?}", lossy(&self.held));
        assert!(self.held.is_empty(), "left over: {:?}", lossy(&self.held));
    }

    /// What has come and was not looked at yet; at least a byte.
    pub(crate) fn some(&mut self) -> Vec<u8> {
        assert!(!self.held.is_empty() || self.read_more(), "the server ended the stream");
        std::mem::take(&mut self.held)
    }

    /// Reads what is there; `false` at the end of the stream, by reset too.
    fn read_more(&mut self) -> bool {
        let mut some = vec![0; 64 * 1024];
        // A process that was stopped and goes on finds its timed read interrupted.
        let read = loop {
            let read = match &mut self.secure {
                Some(secure) => secure.read(&mut some, &mut self.stream),
                None => self.stream.read(&mut some),
            };
            match read {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        match read {
            Ok(0) => false,
            Ok(count) => {
                self.held.extend_from_slice(some.get(..count).expect("read"));
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("no answer: {error}; held {:?}", lossy(&self.held)),
        }
    }
}

/// Publishes lines through an admin port, for threads that can't have the server.
pub(crate) fn publish_lines(admin: SocketAddr, lines: &str) {
    let mut peer = Peer::connect(admin);
    let head = format!("POST /publish HTTP/1.1\r\nHost: {admin}\r\nContent-Length: {}\r\n\r\n", lines.len());
    peer.send((head + lines).as_bytes());
    assert_eq!(peer.answer().status, 200);
}

/// An answer that must be a correct 101.
pub(crate) fn assert_upgraded(answer: &Answer) {
    assert_eq!(answer.status, 101, "{answer:?}");
    assert_eq!(answer.field("sec-websocket-accept"), Some(ACCEPT));
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes.get(..bytes.len().min(400)).unwrap_or_default()).into_owned()
}
