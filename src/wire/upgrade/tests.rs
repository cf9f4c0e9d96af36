//! Tests of the opening handshake, with tungstenite on the other side.

use super::*;
use crate::wire::http::date::Date;
use crate::wire::http::head::{HeadLimits, field_store, parse_head};
use std::io::{self, Read, Write};
use tungstenite::handshake::{HandshakeError, client::generate_key};

/// The request of RFC 6455 section 1.3.
const SAMPLE: &str = "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\n\
    Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://example.com\r\n\
    Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Version: 13\r\n\r\n";

fn with_upgrade<T>(request: &[u8], then: impl FnOnce(Result<Upgrade<'_>, UpgradeRefusal>) -> T) -> T {
    let mut store = field_store();
    let (head, len) = parse_head(request, &mut store, &HeadLimits::default()).unwrap().unwrap();
    assert_eq!(len, request.len());
    then(check(&head))
}

fn buffer() -> ResponseBuffer {
    ResponseBuffer::new(Vec::new(), Date::at(std::time::SystemTime::UNIX_EPOCH))
}

#[test]
fn the_sample_of_the_rfc_is_accepted_as_there() {
    with_upgrade(SAMPLE.as_bytes(), |upgrade| {
        let upgrade = upgrade.unwrap();
        assert_eq!(&upgrade.accept, b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(upgrade.protocols().collect::<Vec<_>>(), ["chat", "superchat"]);
        assert_eq!(upgrade.extensions().count(), 0);
        let mut out = buffer();
        write_accept(&mut out, &upgrade, Some("chat"), None);
        let expected = "HTTP/1.1 101 Switching Protocols\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n";
        assert_eq!(String::from_utf8(out.into_bytes()).unwrap(), expected);
    });
}

#[test]
fn each_thing_missing_or_wrong_has_its_refusal() {
    use UpgradeRefusal::*;
    let cases: [(&str, &str, UpgradeRefusal, u16); 17] = [
        ("GET /", "POST /", NotGet, 405),
        ("GET /", "HEAD /", NotGet, 405),
        ("Upgrade: websocket\r\n", "", NotUpgrade, 426),
        ("Upgrade: websocket", "Upgrade: h2c", NotUpgrade, 426),
        ("Connection: Upgrade\r\n", "", NotUpgrade, 426),
        ("Connection: Upgrade", "Connection: keep-alive", NotUpgrade, 426),
        ("HTTP/1.1", "HTTP/1.0", Http10, 400),
        ("Version: 13", "Version: 8", BadVersion, 426),
        ("Version: 13", "Version: 13, 8", BadVersion, 426),
        ("Version: 13", "Version: 13\r\nSec-WebSocket-Version: 13", BadVersion, 426),
        ("Sec-WebSocket-Version: 13\r\n", "", BadVersion, 426),
        ("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", MissingKey, 400),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ", BadKey, 400),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: a", BadKey, 400),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQA=", BadKey, 400),
        ("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZS_ub25jZQ==", BadKey, 400),
        ("Origin:", "Content-Length: 1\r\nOrigin:", BodyPresent, 400),
    ];
    for (from, to, refusal, status) in cases {
        assert!(SAMPLE.contains(from));
        let request = SAMPLE.replacen(from, to, 1);
        with_upgrade(request.as_bytes(), |upgrade| {
            assert_eq!(upgrade.err(), Some(refusal), "{from:?} -> {to:?}");
        });
        assert_eq!((refusal.status(), refusal.reason().is_empty()), (status, false));
    }
}

#[test]
fn tokens_are_found_whatever_their_case_and_place() {
    for (from, to) in [
        ("Connection: Upgrade", "Connection: keep-alive, UPGRADE"),
        ("Connection: Upgrade", "connection: keep-alive\r\nConnection: x ,upgrade"),
        ("Upgrade: websocket", "UPGRADE: WebSocket"),
        ("Upgrade: websocket", "Upgrade: h2c, websocket"),
        ("Origin:", "Content-Length: 0\r\nOrigin:"),
        ("dGhlIHNhbXBsZSBub25jZQ==", "AAAAAAAAAAAAAAAAAAAAA/=="),
    ] {
        let request = SAMPLE.replacen(from, to, 1);
        with_upgrade(request.as_bytes(), |upgrade| assert!(upgrade.is_ok(), "{to}"));
    }
    let several = "Sec-WebSocket-Protocol: a,,b \r\nSec-WebSocket-Protocol:c\r\n\
                   Sec-WebSocket-Extensions: x; y=1, z";
    let request = SAMPLE.replacen("Sec-WebSocket-Protocol: chat, superchat", several, 1);
    with_upgrade(request.as_bytes(), |upgrade| {
        let upgrade = upgrade.unwrap();
        assert_eq!(upgrade.protocols().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(upgrade.extensions().collect::<Vec<_>>(), ["x; y=1, z"]);
    });
}

#[test]
fn keys_are_encoded_as_base64_is() {
    assert_eq!(&encode_key(b"the sample nonce"), b"dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(&encode_key(&[0xFF; 16]), b"/////////////////////w==");
    assert_eq!(&encode_key(&[0; 16]), b"AAAAAAAAAAAAAAAAAAAAAA==");
    for _ in 0..100 {
        assert!(is_key(generate_key().as_bytes()));
    }
}

const KEY: [u8; 16] = *b"the sample nonce";
const ANSWER: &str = "HTTP/1.1 101 Switching Protocols\r\nupgrade: WebSocket\r\nconnection: x, upgrade\r\n\
    sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

#[test]
fn answers_are_judged_as_a_client_must() {
    for cut in 0..ANSWER.len() {
        assert_eq!(check_answer(&ANSWER.as_bytes()[..cut], &KEY), Ok(None));
    }
    let behind = [ANSWER.as_bytes(), &[0x81, 0]].concat();
    assert_eq!(check_answer(&behind, &KEY), Ok(Some(ANSWER.len())));
    assert_eq!(check_answer(ANSWER.as_bytes(), &[0; 16]), Err(AnswerError::BadAccept));
    for (from, to, error) in [
        ("101", "503", AnswerError::Refused(503)),
        ("101", "200", AnswerError::Refused(200)),
        ("upgrade: W", "x: W", AnswerError::NotUpgrade),
        ("connection", "konnection", AnswerError::NotUpgrade),
        ("accept:", "except:", AnswerError::BadAccept),
        ("xOo=", "xOo", AnswerError::BadAccept),
        ("HTTP", "SSH-", AnswerError::Malformed),
    ] {
        let answer = ANSWER.replacen(from, to, 1);
        assert_eq!(check_answer(answer.as_bytes(), &KEY), Err(error), "{from} -> {to}");
    }
    let endless = [b"HTTP/1.1 101 X\r\nX: ".as_slice(), &[b'y'; ANSWER_BYTES_MAX]].concat();
    assert_eq!(check_answer(&endless, &KEY), Err(AnswerError::TooLarge));
    assert_eq!(AnswerError::Refused(503).status(), Some(503));
}

/// An in-memory peer: reads what it was given, keeps what is written.
#[derive(Default)]
struct Peer {
    input: io::Cursor<Vec<u8>>,
    output: Vec<u8>,
}

impl Read for Peer {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.input.read(buffer)? {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            n => Ok(n),
        }
    }
}

impl Write for Peer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn our_client_and_tungstenites_server_agree() {
    let request = ClientRequest {
        host: "a:8080",
        target: "/ws/x?y=1",
        key: [0xE7; 16],
        origin: Some("http://a"),
        protocols: &["p", "q"],
        headers: &[("X-Test", "1")],
    };
    let mut bytes = Vec::new();
    request.write_into(&mut bytes);
    with_upgrade(&bytes, |upgrade| {
        assert_eq!(upgrade.unwrap().protocols().collect::<Vec<_>>(), ["p", "q"]);
    });
    let mut peer = Peer { input: io::Cursor::new(bytes), output: Vec::new() };
    assert!(tungstenite::accept(&mut peer).is_ok());
    assert_eq!(check_answer(&peer.output, &request.key), Ok(Some(peer.output.len())));
    assert_eq!(check_answer(&peer.output, &[0; 16]), Err(AnswerError::BadAccept));
}

#[test]
fn tungstenites_client_and_our_server_agree() {
    let Err(HandshakeError::Interrupted(waiting)) = tungstenite::client("ws://a/ws/x", Peer::default())
    else {
        panic!("the client waits for an answer");
    };
    let mut waiting = waiting;
    let request = waiting.get_ref().get_ref().output.clone();
    with_upgrade(&request, |upgrade| {
        let mut out = buffer();
        write_accept(&mut out, &upgrade.unwrap(), None, None);
        *waiting.get_mut().get_mut().input.get_mut() = out.into_bytes();
    });
    assert!(waiting.handshake().is_ok());
}
