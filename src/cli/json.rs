//! The little JSON that subcommands write: strings, escaped. Pure.

/// `text` as a JSON string, with its quotes (RFC 8259, 7).
pub(super) fn string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            control if u32::from(control) < 0x20 => {
                out.push_str(&format!("\\u{:04x}", u32::from(control)));
            }
            other => out.push(other),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parser_reads_back_what_was_written() {
        for text in ["", "plain", "a\"b\\c\nd\te\u{1}\u{7f}é😀", "\u{2028}"] {
            let value: serde_json::Value = serde_json::from_str(&string(text)).unwrap();
            assert_eq!(value.as_str(), Some(text));
        }
    }
}
