//! One event of a stream: the form that messages have there. Pure.

use std::io::Write;

use data_encoding::BASE64;
use memchr::memchr2;

use super::places::{DIGITS_MAX, EPOCH_CHARS, decimal};
use crate::topic::{Message, Stamped};

/// Appends the message as one event: `event: binary` in front of what is no text, the message's position as `id`, and
/// its payload, an empty line behind it.
pub(in crate::dialect) fn write(of: Stamped<'_>, out: &mut Vec<u8>) {
    let Stamped { topic, message } = of;
    if message.is_binary() {
        out.extend_from_slice(b"event: binary\n");
    }
    out.extend_from_slice(b"id: ");
    push_position(topic.epoch(), message.offset(), out);
    out.push(b'\n');
    push_data(message, out);
    out.push(b'\n');
}

/// Appends what the events of a message have in common on streams of several topics: without the places in them, and
/// without the empty line, which come behind it for each. The name is in the kind of the event, behind a word and a colon,
/// because some names are those of EventSource's own events.
pub(in crate::dialect) fn write_named(of: Stamped<'_>, out: &mut Vec<u8>) {
    let Stamped { topic, message } = of;
    let kind = if message.is_binary() { "binary" } else { "topic" };
    // A name has no control characters.
    let _ = writeln!(out, "event: {kind}:{}", topic.name());
    push_data(message, out);
}

fn push_data(message: &Message, out: &mut Vec<u8>) {
    if message.is_binary() {
        push_base64(message.payload(), out);
    } else {
        push_lines(message.payload(), out);
    }
}

/// Appends text, a field for each of its lines. They end, as the lines of a stream do, with CR LF, LF or CR (HTML, 9.2.5),
/// and come back with LF; nothing else can end the field and begin another.
fn push_lines(text: &[u8], out: &mut Vec<u8>) {
    let mut rest = text;
    loop {
        let end = memchr2(b'\n', b'\r', rest);
        let (line, behind) = rest.split_at(end.unwrap_or(rest.len()));
        // The first space behind the colon is not the line's. An empty line goes without, six bytes for one at most.
        out.extend_from_slice(if line.is_empty() { b"data:" } else { b"data: " });
        out.extend_from_slice(line);
        out.push(b'\n');
        rest = match behind {
            [] => return,
            [b'\r', b'\n', behind @ ..] | [_, behind @ ..] => behind,
        };
    }
}

/// Appends a position, as its `Display` writes it and in a tenth of the time: it is in every event.
fn push_position(epoch: u64, offset: u64, out: &mut Vec<u8>) {
    let mut digits = [b':'; EPOCH_CHARS];
    for (place, digit) in digits.iter_mut().take(EPOCH_CHARS - 1).enumerate() {
        let nibble = (epoch >> (60 - 4 * place)) as u8 & 15;
        *digit = if nibble < 10 { b'0' + nibble } else { b'a' - 10 + nibble };
    }
    out.extend_from_slice(&digits);
    out.extend_from_slice(decimal(offset, &mut [0; DIGITS_MAX]));
}

fn push_base64(payload: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: ");
    let from = out.len();
    out.resize(from + BASE64.encode_len(payload.len()), 0);
    if let Some(room) = out.get_mut(from..) {
        BASE64.encode_mut(payload, room);
    }
    out.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::Position;

    fn lines(text: &str) -> String {
        let mut out = Vec::new();
        push_lines(text.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_line_of_a_payload_is_a_field() {
        for (text, fields) in [
            ("", "data:\n"),
            ("a", "data: a\n"),
            (" a", "data:  a\n"),
            ("a\n", "data: a\ndata:\n"),
            ("a\r\nb\rc\nd", "data: a\ndata: b\ndata: c\ndata: d\n"),
            ("\n\r", "data:\ndata:\ndata:\n"),
            ("a\n\nevent: forged\n\nid: 7", "data: a\ndata:\ndata: event: forged\ndata:\ndata: id: 7\n"),
            ("\u{feff}\u{2028}\0\u{85}", "data: \u{feff}\u{2028}\0\u{85}\n"),
        ] {
            assert_eq!(lines(text), fields, "{text:?}");
        }
    }

    #[test]
    fn a_position_is_what_its_own_text_is() {
        for epoch in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
            for offset in [0, 9, 10, 99, 12_345_678_901, u64::MAX] {
                let mut out = Vec::new();
                push_position(epoch, offset, &mut out);
                assert_eq!(out, Position { epoch, offset }.to_string().as_bytes());
            }
        }
    }

    #[test]
    fn what_is_no_text_is_base64() {
        let mut out = Vec::new();
        push_base64(b"\x00\xff\n", &mut out);
        assert_eq!(out, b"data: AP8K\n");
        out.clear();
        push_base64(b"", &mut out);
        assert_eq!(out, b"data: \n");
    }
}
