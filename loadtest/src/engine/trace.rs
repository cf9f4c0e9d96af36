//! `--trace N`: what the first connections and the publisher say and hear, a line for each frame on standard error.

use fantail::wire::frame::Opcode;

use crate::base::note::note;

/// Bytes of a payload that are shown.
const SHOWN_MAX: usize = 200;

/// Whose frames are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Traced {
    /// A connection's, by its number.
    Connection(u64),
    /// A publisher's, by its place among them.
    Publisher(usize),
}

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// To the server.
    Out,
    /// From the server.
    In,
}

impl Traced {
    /// Shows a frame.
    pub(crate) fn frame(self, way: Way, opcode: Opcode, payload: &[u8]) {
        let kind = match opcode {
            Opcode::Continuation => "continuation",
            Opcode::Text => "text",
            Opcode::Binary => "binary",
            Opcode::Close => "close",
            Opcode::Ping => "ping",
            Opcode::Pong => "pong",
        };
        let shown = match (opcode, payload.split_first_chunk()) {
            (Opcode::Close, Some((code, reason))) => {
                format!("{} {}", u16::from_be_bytes(*code), readable(reason))
            }
            _ => readable(payload),
        };
        self.line(way, &format!("{kind} {}: {shown}", payload.len()));
    }

    /// Shows the head of a request or an answer.
    pub(crate) fn head(self, way: Way, head: &[u8]) {
        for line in String::from_utf8_lossy(head).lines().filter(|line| !line.is_empty()) {
            self.line(way, line);
        }
    }

    fn line(self, way: Way, text: &str) {
        let way = if way == Way::Out { '>' } else { '<' };
        match self {
            Self::Connection(number) => note(&format!("{number} {way} {text}")),
            Self::Publisher(place) => note(&format!("publisher {place} {way} {text}")),
        }
    }
}

/// Text as it is on one line, anything else in hexadecimal digits; not more than is shown.
fn readable(payload: &[u8]) -> String {
    let shown = payload.get(..SHOWN_MAX).unwrap_or(payload);
    let more = if shown.len() < payload.len() { " …" } else { "" };
    // A letter may have been cut in its middle.
    let text = match std::str::from_utf8(shown) {
        Ok(text) => Some(text),
        Err(error) if error.error_len().is_none() && !more.is_empty() => {
            shown.get(..error.valid_up_to()).and_then(|whole| std::str::from_utf8(whole).ok())
        }
        Err(_) => None,
    };
    let control = |letter: char| letter.is_control() && !letter.is_ascii_whitespace();
    match text.filter(|text| !text.chars().any(control)) {
        Some(text) => {
            text.chars()
                .flat_map(|letter| {
                    let line: Vec<char> =
                        if letter.is_control() { letter.escape_default().collect() } else { vec![letter] };
                    line
                })
                .collect::<String>()
                + more
        }
        None => shown.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + more,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_text_and_bytes_are_digits() {
        assert_eq!(readable(b"PUB a 1\r\nx"), "PUB a 1\\r\\nx");
        assert_eq!(readable(b"\x10\xff\x00"), "10ff00");
        assert_eq!(readable("grün".as_bytes()), "grün");
        assert_eq!(readable(&[b'a'; 201]), "a".repeat(200) + " …");
        let cut = "a".repeat(199) + "ü";
        assert_eq!(readable(cut.as_bytes()), "a".repeat(199) + " …");
    }
}
