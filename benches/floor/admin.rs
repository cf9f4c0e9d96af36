//! The floor's admin port: one blocking thread per connection, as little HTTP/1.1 as a load
//! generator speaks (keep-alive, Content-Length). Never a subscriber's socket.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread;

use tungstenite::protocol::frame::coding::{Data, OpCode};

use crate::{Mailbox, common, frames};

const BODY_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Serves the admin port until the process ends.
pub(crate) fn serve(listener: &TcpListener, mailboxes: &Arc<[Mailbox]>) -> io::Result<()> {
    let offset = Arc::new(AtomicU64::new(0));
    loop {
        let (socket, _) = listener.accept()?;
        socket.set_nodelay(true)?;
        let (mailboxes, offset) = (Arc::clone(mailboxes), Arc::clone(&offset));
        thread::spawn(move || {
            // A client that breaks off is the client's affair.
            let _ = answer_all(&socket, &mailboxes, &offset);
        });
    }
}

fn answer_all(socket: &TcpStream, mailboxes: &[Mailbox], offset: &AtomicU64) -> io::Result<()> {
    let mut input = BufReader::new(socket);
    let mut output = socket;
    let mut head = Vec::new();
    loop {
        head.clear();
        while !head.ends_with(b"\r\n\r\n") {
            if input.by_ref().take(common::HEAD_BYTES_MAX as u64).read_until(b'\n', &mut head)? == 0 {
                return Ok(());
            }
        }
        let length = common::header(&head, "Content-Length")
            .and_then(|value| std::str::from_utf8(value).ok())
            .map_or(Ok(0), str::parse)
            .map_err(io::Error::other)?;
        let mut body = Vec::new();
        if input.by_ref().take(length.min(BODY_BYTES_MAX)).read_to_end(&mut body)? as u64 != length {
            return Ok(());
        }
        let (status, json) = answer(&head, &body, mailboxes, offset);
        let length = json.len();
        output.write_all(
            format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{json}"
            )
            .as_bytes(),
        )?;
    }
}

fn answer(head: &[u8], body: &[u8], mailboxes: &[Mailbox], offset: &AtomicU64) -> (&'static str, String) {
    let line = request_line(head);
    if line.starts_with(b"POST /publish/") {
        let is_binary = line.windows(8).any(|eight| eight == b"binary=1");
        let opcode = OpCode::Data(if is_binary { Data::Binary } else { Data::Text });
        let frame = [frames::encode(opcode, body).into()];
        let mut subscribers = 0;
        for mailbox in mailboxes {
            mailbox.push(&frame, false);
            subscribers += mailbox.subscribers.load(Relaxed);
        }
        let offset = offset.fetch_add(1, Relaxed);
        return ("200 OK", format!(r#"{{"epoch":0,"offset":{offset},"subscribers":{subscribers}}}"#));
    }
    if line.starts_with(b"GET /stats") {
        return ("200 OK", stats(mailboxes));
    }
    ("404 Not Found", r#"{"error":"not found"}"#.into())
}

/// What all threads did, as JSON.
pub(crate) fn stats(mailboxes: &[Mailbox]) -> String {
    let total = |count: fn(&Mailbox) -> &AtomicU64| -> u64 {
        mailboxes.iter().map(|mailbox| count(mailbox).load(Relaxed)).sum()
    };
    let (subscribers, sent, lost) = (total(|m| &m.subscribers), total(|m| &m.sent), total(|m| &m.lost));
    format!(r#"{{"subscribers":{subscribers},"sent":{sent},"lost":{lost}}}"#)
}

/// The first line of a head.
pub(crate) fn request_line(head: &[u8]) -> &[u8] {
    head.split(|&byte| byte == b'\r').next().unwrap_or_default()
}
