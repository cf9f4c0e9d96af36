//! An event stream as the HTML standard defines it (section 9.2.6, "Interpreting an event stream"), read as it comes.
//!
//! Whoever has a body feeds it in pieces of any size and is told each event once it is whole; what is unfinished when
//! the stream ends is nobody's. It keeps the last event ID and the time to wait before coming back. No socket, no clock.

use std::time::Duration;

use memchr::memchr2;

/// A byte order mark in UTF-8, one of which may stand in front of a stream.
const BOM: &[u8] = b"\xef\xbb\xbf";

/// One event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Event<'a> {
    /// Its type; empty for `message`.
    pub(crate) kind: &'a [u8],
    /// Its lines, with a line feed between them.
    pub(crate) data: &'a [u8],
}

/// An event has more bytes than it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooLarge;

/// See the module's head.
#[derive(Debug, Default)]
pub(crate) struct EventStream {
    /// What has come of a line whose end has not.
    line: Vec<u8>,
    /// The lines of the event under way, each with a line feed behind it.
    data: Vec<u8>,
    kind: Vec<u8>,
    /// The last ID that was said; it counts from the end of its event on.
    id_said: Vec<u8>,
    id: Vec<u8>,
    retry: Option<Duration>,
    /// A CR has ended the last line, so that a LF now is a part of that end.
    after_cr: bool,
    /// Whether the beginning is over, where a BOM may stand.
    begun: bool,
}

impl EventStream {
    /// One that goes on behind the event of this ID, which stays the last one until another is said.
    pub(crate) fn behind(id: &str) -> Self {
        Self { id_said: id.into(), id: id.into(), ..Self::default() }
    }

    /// The ID of the last event, or of a block without data; empty if there was none.
    pub(crate) fn last_id(&self) -> &[u8] {
        &self.id
    }

    /// How long the server wants clients to wait before they come back.
    pub(crate) fn retry(&self) -> Option<Duration> {
        self.retry
    }

    /// Takes what has come, and tells each event that is whole by now. An event has at most `most` bytes.
    pub(crate) fn on_bytes(
        &mut self,
        mut bytes: &[u8],
        most: usize,
        mut on_event: impl FnMut(Event<'_>),
    ) -> Result<(), TooLarge> {
        if !self.begun {
            self.line.extend_from_slice(bytes);
            if self.line.len() < BOM.len() && BOM.starts_with(&self.line) {
                return Ok(());
            }
            self.begun = true;
            let all = std::mem::take(&mut self.line);
            return self.on_bytes(all.strip_prefix(BOM).unwrap_or(&all), most, on_event);
        }
        if std::mem::take(&mut self.after_cr) {
            bytes = match bytes.split_first() {
                Some((b'\n', rest)) => rest,
                Some(_) => bytes,
                // Nothing has come, so that it may still follow.
                None => {
                    self.after_cr = true;
                    return Ok(());
                }
            };
        }
        while let Some(end) = memchr2(b'\r', b'\n', bytes) {
            let (line, behind) = bytes.split_at(end);
            if self.line.is_empty() {
                self.on_line(line, &mut on_event);
            } else {
                let mut whole = std::mem::take(&mut self.line);
                whole.extend_from_slice(line);
                self.on_line(&whole, &mut on_event);
            }
            bytes = match behind {
                [b'\r', b'\n', rest @ ..] | [_, rest @ ..] => rest,
                [] => behind,
            };
            self.after_cr = behind == b"\r";
            if self.data.len() > most {
                return Err(TooLarge);
            }
        }
        self.line.extend_from_slice(bytes);
        if self.line.len() > most { Err(TooLarge) } else { Ok(()) }
    }

    fn on_line(&mut self, line: &[u8], on_event: &mut impl FnMut(Event<'_>)) {
        if line.is_empty() {
            return self.dispatch(on_event);
        }
        let (name, value) = match memchr::memchr(b':', line) {
            Some(at) => {
                let (name, value) = line.split_at(at);
                let value = value.get(1..).unwrap_or_default();
                (name, value.strip_prefix(b" ").unwrap_or(value))
            }
            None => (line, &b""[..]),
        };
        match name {
            b"data" => {
                self.data.extend_from_slice(value);
                self.data.push(b'\n');
            }
            b"event" => {
                self.kind.clear();
                self.kind.extend_from_slice(value);
            }
            b"id" if !value.contains(&0) => {
                self.id_said.clear();
                self.id_said.extend_from_slice(value);
            }
            b"retry" if value.iter().all(u8::is_ascii_digit) => {
                let ms = std::str::from_utf8(value).ok().and_then(|digits| digits.parse().ok());
                self.retry = ms.map(Duration::from_millis).or(self.retry);
            }
            // A comment, whose name is empty, or a field that nobody knows.
            _ => {}
        }
    }

    /// An empty line: the event is whole.
    fn dispatch(&mut self, on_event: &mut impl FnMut(Event<'_>)) {
        // The ID counts for a block without data, too.
        self.id.clone_from(&self.id_said);
        if let Some(data) = self.data.strip_suffix(b"\n") {
            on_event(Event { kind: &self.kind, data });
        }
        self.data.clear();
        self.kind.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The events of a stream that comes in pieces of `step` bytes, with its last ID and the time to wait.
    fn read_in(text: &[u8], step: usize) -> (Vec<(String, String)>, String, Option<u64>) {
        let (mut stream, mut events) = (EventStream::default(), Vec::new());
        let text_of = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        for piece in text.chunks(step) {
            let on_event = |event: Event<'_>| events.push((text_of(event.kind), text_of(event.data)));
            stream.on_bytes(piece, 1_000, on_event).unwrap();
            stream.on_bytes(b"", 1_000, |event| panic!("{event:?} of nothing")).unwrap();
        }
        let retry = stream.retry().map(|retry| retry.as_millis() as u64);
        (events, text_of(stream.last_id()), retry)
    }

    #[track_caller]
    fn check(text: &[u8], events: &[(&str, &str)], id: &str, retry: Option<u64>) {
        for step in [1, 2, 3, 7, text.len().max(1)] {
            let (found, last, waits) = read_in(text, step);
            let found: Vec<_> = found.iter().map(|(kind, data)| (&kind[..], &data[..])).collect();
            let shown = String::from_utf8_lossy(text);
            assert_eq!((&found[..], &last[..], waits), (events, id, retry), "{shown:?} by {step}");
        }
    }

    #[test]
    fn the_examples_of_the_standard_are_read_as_it_says() {
        check(b"data: YHOO\ndata: +2\ndata: 10\n\n", &[("", "YHOO\n+2\n10")], "", None);
        check(
            b": test stream\n\ndata: first event\nid: 1\n\ndata:second event\nid\n\ndata:  third event\n\n",
            &[("", "first event"), ("", "second event"), ("", " third event")],
            "",
            None,
        );
        check(b"data\n\ndata\ndata\n\ndata:", &[("", ""), ("", "\n")], "", None);
        check(b"data:test\n\ndata: test\n\n", &[("", "test"), ("", "test")], "", None);
        check(b"event: add\ndata: 7\n\nevent: add\n\ndata: 8\n\n", &[("add", "7"), ("", "8")], "", None);
    }

    #[test]
    fn lines_end_in_three_ways_wherever_a_piece_ends() {
        for end in ["\n", "\r", "\r\n"] {
            let text = format!("id: 4{end}data: a{end}data: b{end}{end}data: c{end}{end}");
            check(text.as_bytes(), &[("", "a\nb"), ("", "c")], "4", None);
        }
        check(b"data: a\r\n\rdata: b\n\r\ndata: c\r\r", &[("", "a"), ("", "b"), ("", "c")], "", None);
        // These end no line.
        check("data: a\u{2028}b\u{85}c\x0bd\n\n".as_bytes(), &[("", "a\u{2028}b\u{85}c\x0bd")], "", None);
    }

    #[test]
    fn one_mark_in_front_is_no_part_of_the_stream() {
        check(b"\xef\xbb\xbfdata: a\n\ndata: \xef\xbb\xbf\n\n", &[("", "a"), ("", "\u{feff}")], "", None);
        check(b"\xef\xbb\xbf\xef\xbb\xbfdata: a\n\ndata: b\n\n", &[("", "b")], "", None);
        check(b"\xef\xbb", &[], "", None);
        check(b"\xefdata: a\n\ndata: b\n\n", &[("", "b")], "", None);
    }

    #[test]
    fn an_id_counts_once_its_block_is_whole() {
        check(b"id: 8\n\n", &[], "8", None);
        check(b"id: 8\n\nid: 9\ndata: x\n", &[], "8", None);
        check(b"id: 8\ndata: a\n\nid: 9\x00\ndata: b\n\n", &[("", "a"), ("", "b")], "8", None);
        check(b"id: 8\ndata: a\n\ndata: b\n\n", &[("", "a"), ("", "b")], "8", None);
        check(b"id: 8\n\nid:\n\n", &[], "", None);
        let mut stream = EventStream::behind("7");
        stream.on_bytes(b"data: a\n\n", 100, |_| ()).unwrap();
        assert_eq!(stream.last_id(), b"7");
    }

    #[test]
    fn only_digits_say_how_long_to_wait() {
        check(b"retry: 100\nretry: 1.5\nretry: -1\nretry: 1e3\nretry:\nretry\n", &[], "", Some(100));
        check(b"retry: 5", &[], "", None);
        check(b"Retry: 5\n retry: 6\nretry: 99999999999999999999999\n", &[], "", None);
    }

    #[test]
    fn an_event_without_an_end_is_given_up() {
        let mut stream = EventStream::default();
        let long = b"data: 0123456789\n";
        let outcome = (0..20).try_for_each(|_| stream.on_bytes(long, 100, |_| panic!("it has no end")));
        assert_eq!(outcome, Err(TooLarge));
        assert_eq!(EventStream::default().on_bytes(&[b'x'; 101], 100, |_| ()), Err(TooLarge));
    }
}
