//! Cuts a line that is too long, so that what is left is still a line of its format. Pure functions.
//!
//! A text line loses its end. Of a JSON line, one flat object as the formatter writes it, the longest strings lose
//! theirs, so that every field stays and whoever reads the log can still parse it.

use std::ops::Range;

use crate::config::LogFormat;

/// What stands where something was cut away.
const MARK: &str = "…";

/// The line, with its end, in `bytes_max` bytes at the most.
pub(super) fn cut(line: &[u8], format: LogFormat, bytes_max: usize) -> Vec<u8> {
    if line.len() <= bytes_max {
        return line.to_vec();
    }
    let json = if format == LogFormat::Json { cut_json(line, bytes_max) } else { None };
    json.unwrap_or_else(|| {
        let mut kept = upto(line, bytes_max.saturating_sub(MARK.len() + 1)).to_vec();
        kept.extend_from_slice(MARK.as_bytes());
        kept.push(b'\n');
        kept
    })
}

/// `None`: even without its strings it is too long.
fn cut_json(line: &[u8], bytes_max: usize) -> Option<Vec<u8>> {
    let strings = strings(line);
    let of_strings: usize = strings.iter().map(Range::len).sum();
    let room = bytes_max.checked_sub(line.len() - of_strings)?;
    let most = share(strings.iter().map(Range::len).collect(), room).checked_sub(MARK.len())?;
    let mut kept = Vec::with_capacity(bytes_max);
    let mut from = 0;
    for string in strings.into_iter().filter(|string| string.len() > most + MARK.len()) {
        kept.extend_from_slice(line.get(from..string.start)?);
        let whole = line.get(string.clone())?;
        kept.extend_from_slice(upto(whole, escape_at(whole, most)));
        kept.extend_from_slice(MARK.as_bytes());
        from = string.end;
    }
    kept.extend_from_slice(line.get(from..)?);
    Some(kept)
}

/// Where the strings of the line are, without their quotes. Names of fields are strings, too, and short.
fn strings(line: &[u8]) -> Vec<Range<usize>> {
    let mut found = Vec::new();
    let mut start = None;
    let mut at = 0;
    while let Some(&byte) = line.get(at) {
        match (byte, start) {
            // What follows a backslash never ends the string.
            (b'\\', Some(_)) => at += 1,
            (b'"', Some(from)) => {
                found.push(from..at);
                start = None;
            }
            (b'"', None) => start = Some(at + 1),
            _ => {}
        }
        at += 1;
    }
    found
}

/// The length to which the longest have to be cut so that all together have `room`.
fn share(mut lengths: Vec<usize>, mut room: usize) -> usize {
    lengths.sort_unstable();
    let mut left = lengths.len();
    for length in lengths {
        if length > room / left {
            return room / left;
        }
        room -= length;
        left -= 1;
    }
    usize::MAX
}

/// Where to cut a string with escapes so that none is cut in two: at `most` or a little before.
fn escape_at(string: &[u8], most: usize) -> usize {
    let mut at = 0;
    while at < most {
        let next = match (string.get(at), string.get(at + 1)) {
            // Half a surrogate pair would be no text; the formatter writes such characters as they are.
            (Some(b'\\'), Some(b'u')) => at + 6,
            (Some(b'\\'), _) => at + 2,
            _ => at + 1,
        };
        if next > most {
            break;
        }
        at = next;
    }
    at
}

/// The first `most` bytes, or up to three fewer: a character is not cut in two.
fn upto(text: &[u8], most: usize) -> &[u8] {
    let continues = |at: usize| text.get(at).is_some_and(|byte| byte & 0xC0 == 0x80);
    let end = (most.saturating_sub(3)..=most).rev().find(|&at| !continues(at)).unwrap_or(most);
    text.get(..end).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(message: &str, other: &str) -> Vec<u8> {
        let value = serde_json::json!({"level": "INFO", "message": message, "number": 7, "other": other});
        let mut line = serde_json::to_vec(&value).unwrap();
        line.push(b'\n');
        line
    }

    #[test]
    fn the_longest_string_of_a_json_line_is_cut() {
        let line = json(&"y".repeat(10_000), "kept");
        let kept = cut(&line, LogFormat::Json, 1_000);
        assert!((990..=1_000).contains(&kept.len()) && kept.ends_with(b"\n"), "{}", kept.len());
        let value: serde_json::Value = serde_json::from_slice(&kept).unwrap();
        assert_eq!((value["other"].as_str(), value["number"].as_u64()), (Some("kept"), Some(7)));
        assert!(
            value["message"].as_str().is_some_and(|text| text.starts_with("yyy") && text.ends_with("y…"))
        );
    }

    #[test]
    fn a_text_line_ends_with_the_mark() {
        let line = format!("INFO {}\n", "é".repeat(1_000));
        for most in 100..110 {
            let kept = String::from_utf8(cut(line.as_bytes(), LogFormat::Text, most)).unwrap();
            assert!(kept.ends_with("é…\n") && (most - 3..=most).contains(&kept.len()), "{}", kept.len());
        }
        assert_eq!(cut(b"short\n", LogFormat::Text, 6), b"short\n");
    }

    #[test]
    fn what_can_be_no_json_within_the_bound_is_cut_as_text() {
        let line = format!("{{{}}}\n", vec!["\"a\":1"; 1_000].join(","));
        let kept = cut(line.as_bytes(), LogFormat::Json, 100);
        assert!(kept.len() <= 100 && kept.ends_with("…\n".as_bytes()));
    }

    proptest! {
        #[test]
        fn any_json_line_stays_json(
            message in "(?s)[\\x00-\\x7f]{0,300}|.{0,200}",
            other in "[\"\\\\\n\u{1}é😀a]{0,200}",
            most in 90_usize..1_000,
        ) {
            let line = json(&message, &other);
            let kept = cut(&line, LogFormat::Json, most);
            prop_assert!(kept.len() <= most, "{} of {most}", kept.len());
            let value: serde_json::Value = serde_json::from_slice(&kept).expect("JSON");
            for (field, whole) in [("message", &message), ("other", &other)] {
                let text = value[field].as_str().expect("a text");
                let start = text.strip_suffix(MARK).unwrap_or(text);
                prop_assert!(whole.starts_with(start) && (text == whole.as_str() || kept.len() < line.len()));
            }
        }
    }
}
