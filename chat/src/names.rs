//! What names, passwords and messages may be, with errors that say what to do; and the key under which names that only
//! look different are one. Owns no state.

use unicode_normalization::UnicodeNormalization;
use unicode_security::confusable_detection::skeleton;

const NAME_CHARS: std::ops::RangeInclusive<usize> = 2..=24;
const ROOM_CHARS: std::ops::RangeInclusive<usize> = 2..=40;
/// Argon2 takes more; what a person types is shorter.
const PASSWORD_BYTES_MAX: usize = 512;
const PASSWORD_CHARS_MIN: usize = 10;
/// What a message has at most, in characters.
pub(crate) const MESSAGE_CHARS_MAX: usize = 4_000;

/// A name of a person in the form it is shown (NFC), or what is wrong with it.
pub(crate) fn person(text: &str) -> Result<String, String> {
    let name: String = text.trim().nfc().collect();
    let count = name.chars().count();
    if !NAME_CHARS.contains(&count) {
        return Err(format!("a name has 2 to 24 characters, this one has {count}"));
    }
    if let Some(wrong) =
        name.chars().find(|&one| is_invisible(one) || !(one.is_alphanumeric() || "_-.".contains(one)))
    {
        return Err(format!("a name has letters, digits, and _ - . between them: leave out {wrong:?}"));
    }
    if !name.starts_with(char::is_alphanumeric) || !name.ends_with(char::is_alphanumeric) {
        return Err("a name begins and ends with a letter or a digit".to_owned());
    }
    Ok(name)
}

/// A name of a room in the form it is shown, or what is wrong with it.
pub(crate) fn room(text: &str) -> Result<String, String> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let name: String = words.join(" ").nfc().collect();
    let count = name.chars().count();
    if !ROOM_CHARS.contains(&count) {
        return Err(format!("a room's name has 2 to 40 characters, this one has {count}"));
    }
    if let Some(wrong) = name.chars().find(|&one| one.is_control() || is_invisible(one)) {
        return Err(format!("a room's name has characters that can be seen: leave out {wrong:?}"));
    }
    if !name.chars().any(char::is_alphanumeric) {
        return Err("a room's name has at least one letter or digit".to_owned());
    }
    Ok(name)
}

/// The name of a device, of whatever a page calls it: what can be seen of that, 40 characters at most.
pub(crate) fn device(text: &str) -> String {
    let shown =
        text.chars().take(200).filter(|&one| one.is_whitespace() || !(one.is_control() || is_invisible(one)));
    let words: Vec<String> = shown.collect::<String>().split_whitespace().map(str::to_owned).collect();
    let name: String = words.join(" ").nfc().take(*ROOM_CHARS.end()).collect();
    if name.is_empty() { "a browser".to_owned() } else { name }
}

/// What names that look alike or differ in case only have in common.
///
/// UTS 39's skeleton makes a capital I an l, and an i of itself: since case may not make two names of one either, i and
/// l are one letter here.
pub(crate) fn key(name: &str) -> String {
    let folded = |text: &str| text.nfkc().collect::<String>().to_lowercase();
    let alike: String = skeleton(&folded(&skeleton(name).collect::<String>())).collect();
    folded(&alike).chars().map(|one| if one == 'i' || one == 'ı' { 'l' } else { one }).collect()
}

/// The key of a name that somebody is asked for by. No name is longer than what is looked at, and none has control
/// characters, which PostgreSQL's text can't even ask for.
pub(crate) fn asked(name: &str) -> String {
    let most = NAME_CHARS.end() * 4;
    key(&name.trim().chars().filter(|one| !one.is_control()).take(most).collect::<String>())
}

/// The key of a part of a room's name.
pub(crate) fn part(name: &str) -> String {
    let words: Vec<&str> = name.split_whitespace().take(*ROOM_CHARS.end()).collect();
    let shown = words.join(" ");
    key(&shown.chars().filter(|one| !one.is_control()).take(*ROOM_CHARS.end()).collect::<String>())
}

/// What is wrong with a password that somebody wants to have.
pub(crate) fn check_password(password: &str, name: &str) -> Result<(), String> {
    let count = password.chars().count();
    if count < PASSWORD_CHARS_MIN {
        return Err(format!("a password has at least 10 characters, this one has {count}: a few words do"));
    }
    if password.len() > PASSWORD_BYTES_MAX {
        return Err("a password has at most 512 bytes".to_owned());
    }
    if key(password) == key(name) {
        return Err("the password must not be the name".to_owned());
    }
    Ok(())
}

/// A message as it is kept, without blanks at its end, or what is wrong with it.
pub(crate) fn message(text: &str) -> Result<String, String> {
    let text = text.replace("\r\n", "\n");
    let text = text.trim_end();
    if text.chars().all(|one| one.is_whitespace() || is_invisible(one)) {
        return Err("there is nothing in this message: write something".to_owned());
    }
    let count = text.chars().count();
    if count > MESSAGE_CHARS_MAX {
        return Err(format!(
            "a message has at most 4,000 characters, this one has {count}: send it in parts"
        ));
    }
    if let Some(wrong) = text.chars().find(|&one| one.is_control() && !matches!(one, '\n' | '\t')) {
        return Err(format!("a message has no control characters: leave out {wrong:?}"));
    }
    Ok(text.to_owned())
}

/// Characters that take no room, are blank, or turn the direction of those around them, so that a name looks like
/// another: Unicode's Default_Ignorable_Code_Point but for the selectors that emoji have, and the blank of braille.
fn is_invisible(one: char) -> bool {
    matches!(one,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
        | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{2800}' | '\u{3164}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}'
        | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e001f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_look_alike_are_one() {
        for [one, other] in [
            ["alice", "ALICE"],
            ["Ivan", "lvan"],
            ["Ivan", "ivan"],
            ["paul", "раul"],
            ["b0b", "bOb"],
            ["modern", "modem"],
            ["ﬁsh", "fish"],
            ["José", "Jose\u{301}"],
            ["１２a", "12a"],
        ] {
            assert_eq!(key(one), key(other), "{one} {other}");
        }
        for [one, other] in [["alice", "bob"], ["anna", "hanna"], ["jose", "josé"], ["tom", "tim"]] {
            assert_ne!(key(one), key(other), "{one} {other}");
        }
    }

    #[test]
    fn what_is_wrong_with_a_name_is_said() {
        assert_eq!(person(" alice "), Ok("alice".to_owned()));
        assert_eq!(person("Jose\u{301}"), Ok("José".to_owned()));
        for (name, said) in [
            ("a", "2 to 24"),
            (&"a".repeat(25), "this one has 25"),
            ("a b", "leave out ' '"),
            ("a\u{202e}b", "leave out"),
            ("<b>", "leave out '<'"),
            // Letters, as Unicode has it, that nobody sees.
            ("\u{3164}\u{3164}", "leave out"),
            ("al\u{115f}ice", "leave out"),
            ("alice\u{ffa0}", "leave out"),
            ("-ab", "begins and ends"),
            ("ab.", "begins and ends"),
        ] {
            assert!(person(name).unwrap_err().contains(said), "{name}");
        }
        assert_eq!(room("  the  red   room "), Ok("the red room".to_owned()));
        for name in
            ["x", "a\u{2800}", "a\u{34f}b", "\u{3164}a", "a\u{200b}b", "a\u{202e}b", "!!!", &"a".repeat(41)]
        {
            assert!(room(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_device_has_a_name_that_can_be_seen() {
        for (text, name) in [
            (" Chromium  on\tLinux ", "Chromium on Linux"),
            ("a\u{202e}b\u{7}", "ab"),
            ("\u{3164}", "a browser"),
            (&"x".repeat(300), &*"x".repeat(40)),
        ] {
            assert_eq!(device(text), name);
        }
    }

    #[test]
    fn what_is_asked_for_is_bounded_and_can_be_asked() {
        assert_eq!(asked(" ALICE\u{0} "), key("alice"));
        assert!(asked(&"\u{fdfa}".repeat(20_000)).chars().count() < 4_000);
        assert_eq!(part("  the  RED "), key("The Red"));
        assert!(part(&"a b".repeat(20_000)).chars().count() <= 40);
        let name = &"m".repeat(24);
        assert_eq!(asked(name), key(name));
    }

    #[test]
    fn messages_keep_their_lines_and_have_no_control_characters() {
        assert_eq!(message("a\r\n\tb \n"), Ok("a\n\tb".to_owned()));
        for text in ["", " \n ", "\u{200b} \u{2060}", "\u{3164}", "a\u{0}", "a\u{1b}[31m", &"a".repeat(4_001)]
        {
            assert!(message(text).is_err(), "{text:?}");
        }
        assert!(message(&"ä".repeat(4_000)).is_ok());
        assert!(check_password("short", "alice").unwrap_err().contains("at least 10"));
        assert!(check_password("alice.alice", "ALICE.alice").is_err());
        assert!(check_password("correct horse", "alice").is_ok());
    }
}
