//! One event of a stream: the form that messages have there. Pure.

use std::io::Write;

use data_encoding::BASE64;
use memchr::memchr2;

use crate::dialect::text::push_decimal;
use crate::topic::{Message, Stamped, Topic};

/// Appends what the id of each event of a topic begins with.
pub(in crate::dialect) fn start(topic: &Topic, out: &mut Vec<u8>) {
    // Writing into memory does not fail.
    let _ = write!(out, "id: {:016x}:", topic.epoch());
}

/// Appends the message as one event: `event: binary` in front of what is no text, the message's position as `id`, and
/// its payload, an empty line behind it.
pub(in crate::dialect) fn write(of: Stamped<'_>, out: &mut Vec<u8>) {
    if of.message.is_binary() {
        out.extend_from_slice(b"event: binary\n");
    }
    out.extend_from_slice(of.start);
    push_decimal(of.message.offset(), out);
    out.push(b'\n');
    push_data(of.message, out);
    out.push(b'\n');
}

/// Appends what the kinds of events of a topic end with, behind what kind it is: the name is in it, behind a colon, because
/// some names are those of EventSource's own events.
pub(in crate::dialect) fn start_named(topic: &Topic, out: &mut Vec<u8>) {
    // A name has no control characters.
    let _ = writeln!(out, ":{}", topic.name());
}

/// Appends what the events of a message have in common on streams of several topics: without the places in them, and
/// without the empty line, which come behind it for each.
pub(in crate::dialect) fn write_named(of: Stamped<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(if of.message.is_binary() { b"event: binary" } else { b"event: topic" });
    out.extend_from_slice(of.start);
    push_data(of.message, out);
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
    use crate::topic::{Draft, Position, TopicName};

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
    fn an_id_is_the_position_as_its_own_text_is() {
        for epoch in [0, 1, 0x0123_4567_89ab_cdef, u64::MAX] {
            for offset in [0, 9, 10, 99, 12_345_678_901, u64::MAX] {
                let (mut begins, mut out) = (Vec::new(), Vec::new());
                let topic = Topic::new(1, epoch, &TopicName::of("a"), 0);
                start(&topic, &mut begins);
                let message = Message::placed(Draft::encode(None, false, b"x"), 1, offset);
                write(Stamped { topic: &topic, message: &message, start: &begins }, &mut out);
                let event = format!("id: {}\ndata: x\n\n", Position { epoch, offset });
                assert_eq!(String::from_utf8(out), Ok(event));
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
