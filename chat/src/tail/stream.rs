//! A topic of the edge as an event stream: its messages, or that nothing has been heard for too long. A thread reads, which
//! nothing could wake from a connection that is dead without a word; it is left alone then, and ends by itself.

use std::io::{BufRead, BufReader, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use ureq::Agent;

use super::client::agent;

/// To connect, and again for the head of the answer.
const OPENS: Duration = Duration::from_secs(10);
/// A stream is longer than a token lives in no case.
const LIVES: Duration = Duration::from_secs(600);
/// The edge writes a comment each 15 seconds.
const SILENCE: Duration = Duration::from_secs(45);
/// The longest line: a message of 64 KiB.
const LINE_BYTES_MAX: u64 = 128 << 10;
/// Lines that wait to be printed.
const LINES_MAX: usize = 64;

/// An open stream.
pub(super) struct Stream(Receiver<Result<Vec<u8>, String>>);

impl Stream {
    /// Returns once the subscription stands: what is published from then on is in it.
    pub(super) fn open(url: &str, token: &str, topic: &str) -> Result<Self, String> {
        let config = Agent::config_builder()
            .timeout_connect(Some(OPENS))
            .timeout_recv_response(Some(OPENS))
            .timeout_recv_body(Some(LIVES));
        let request = agent(url, config)?.get(format!("{url}/sse/{topic}"));
        let request = request.header("Authorization", format!("Bearer {token}"));
        let answer = request.call().map_err(|error| format!("the edge can't be reached: {error}"))?;
        if answer.status() != 200 {
            return Err(format!("the edge answered {}", answer.status().as_u16()));
        }
        let (sender, receiver) = sync_channel(LINES_MAX);
        let mut body = BufReader::new(answer.into_body().into_reader());
        thread::spawn(move || {
            loop {
                let line = line(&mut body);
                let is_over = !matches!(line, Ok(Some(_)));
                let said = line.transpose();
                if said.is_some_and(|said| sender.send(said).is_err()) || is_over {
                    return;
                }
            }
        });
        Ok(Self(receiver))
    }

    /// The next message, or `None` where the stream ends.
    pub(super) fn next(&mut self) -> Result<Option<Value>, String> {
        let mut data = Vec::new();
        loop {
            let line = match self.0.recv_timeout(SILENCE) {
                Ok(line) => line?,
                Err(RecvTimeoutError::Disconnected) => return Ok(None),
                Err(RecvTimeoutError::Timeout) => return Err("the edge says nothing any more".to_owned()),
            };
            // The chat's messages are JSON, one line each. All other fields say nothing that changes do not.
            if let Some(value) = line.strip_prefix(b"data:") {
                data = value.to_vec();
            } else if line.is_empty()
                && let Ok(message) = serde_json::from_slice(&std::mem::take(&mut data))
            {
                return Ok(Some(message));
            }
        }
    }
}

fn line(body: &mut impl BufRead) -> Result<Option<Vec<u8>>, String> {
    let mut line = Vec::new();
    let read = body.take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
    read.map_err(|error| format!("the connection to the edge is lost: {error}"))?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => {
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            Ok(Some(line))
        }
        Some(_) => Err("the connection to the edge is lost within a line".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_an_end_and_a_bound() {
        let mut body: &[u8] = b": x\r\ndata: y\n\nhalf";
        let mut next = || line(&mut body);
        for expected in [": x", "data: y", ""] {
            assert_eq!(next().unwrap().unwrap(), expected.as_bytes());
        }
        assert!(next().is_err());
        let long = vec![b'x'; 1 << 20];
        assert!(line(&mut &*long).is_err());
        assert_eq!(line(&mut &b""[..]).unwrap(), None);
    }
}
