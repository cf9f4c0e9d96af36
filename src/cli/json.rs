//! The little JSON that subcommands write: strings, escaped. Pure.

use crate::wire::json::push_text;

/// `text` as a JSON string, with its quotes.
pub(super) fn string(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len() + 2);
    push_text(&mut out, text);
    String::from_utf8_lossy(&out).into_owned()
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
