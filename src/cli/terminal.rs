//! Text of a peer on the user's terminal: what a terminal would obey is shown instead. Pure.

use std::borrow::Cow;

/// `text` with each character that would do something on a terminal written as its escape, such as `\u{1b}`.
/// Line breaks and tabs stay where `breaks` says so; a carriage return never does, because it would let a
/// peer write over what stands on the line.
pub(super) fn shown(text: &str, breaks: bool) -> Cow<'_, str> {
    let acts = |c: char| is_obeyed(c) && !(breaks && matches!(c, '\n' | '\t'));
    if !text.contains(acts) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if acts(character) {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    Cow::Owned(out)
}

/// Controls of C0 and C1, line and paragraph separators, and what changes the direction of writing.
fn is_obeyed(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown() {
        for (text, line, lines) in [
            ("plain é 😀", "plain é 😀", "plain é 😀"),
            ("a\tb\nc", "a\\tb\\nc", "a\tb\nc"),
            ("a\r\nb\rc", "a\\r\\nb\\rc", "a\\r\nb\\rc"),
            ("\u{1b}]0;title\u{7}", "\\u{1b}]0;title\\u{7}", "\\u{1b}]0;title\\u{7}"),
            ("\u{9b}31m\u{7f}\0", "\\u{9b}31m\\u{7f}\\u{0}", "\\u{9b}31m\\u{7f}\\u{0}"),
            ("a\u{202e}b\u{2066}", "a\\u{202e}b\\u{2066}", "a\\u{202e}b\\u{2066}"),
        ] {
            assert_eq!((shown(text, false).as_ref(), shown(text, true).as_ref()), (line, lines));
        }
        assert!(matches!(shown("nothing to do", false), Cow::Borrowed(_)));
    }
}
