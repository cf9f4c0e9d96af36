//! A message as lines of a terminal, which no message can forge: what is said stands behind a name, further lines are
//! indented, and control characters are escapes.

use std::io::{Result, Write, stdout};

use serde_json::Value;

/// How messages are printed.
pub(super) struct Style {
    pub(super) is_json: bool,
    pub(super) has_times: bool,
}

impl Style {
    /// Prints a message that is new, or what has become of one that is not.
    pub(super) fn print(&self, message: &Value, is_new: bool) -> Result<()> {
        let text = if self.is_json { message.to_string() } else { text(message, is_new) };
        let time = if self.has_times {
            format!("{} ", time(message["sent"].as_i64().unwrap_or_default()))
        } else {
            String::new()
        };
        let mut out = stdout().lock();
        writeln!(out, "{time}{text}")?;
        out.flush()
    }
}

fn text(message: &Value, is_new: bool) -> String {
    let field = |name: &str| message[name].as_str().unwrap_or_default();
    let who = shown(message["author"]["name"].as_str().unwrap_or("somebody who has left"));
    let kind = field("kind");
    if kind != "text" {
        return format!("* {}", notice(kind, &who, &shown(field("text"))));
    }
    if message["deleted"] == true {
        return if is_new {
            format!("* a message of {who} was deleted")
        } else {
            format!("* a message of {who} was deleted: number {}", message["seq"])
        };
    }
    let said: Vec<_> = field("text").lines().map(shown).collect();
    let how = if is_new { String::new() } else { format!(" (number {}, edited)", message["seq"]) };
    format!("{who}{how}: {}", said.join("\n  "))
}

/// What the page says of it, too.
fn notice(kind: &str, who: &str, by: &str) -> String {
    match kind {
        "made" => format!("{who} made this room"),
        "joined" => format!("{who} joined"),
        "left" => format!("{who} left"),
        "removed" => format!("{who} was removed by {by}"),
        "banned" => format!("{who} was banned by {by}"),
        "unbanned" => format!("{by} lets {who} come back"),
        "uninvited" => format!("{by} took the invitation of {who} back"),
        "member" => format!("{by} made {who} a member"),
        "moderator" => format!("{by} made {who} a moderator"),
        "owner" if by.is_empty() => format!("{who} owns this room now"),
        "owner" => format!("{by} made {who} the owner"),
        kind => format!("{who}: {}", shown(kind)),
    }
}

/// A text without what a terminal obeys, or what turns the order of a line around.
pub(super) fn shown(text: &str) -> String {
    let is_odd = |one: char| {
        one.is_control()
            || matches!(one, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2028}' | '\u{2029}' | '\u{2066}'..='\u{2069}')
    };
    text.chars()
        .map(|one| if is_odd(one) { one.escape_default().to_string() } else { one.to_string() })
        .collect()
}

/// Milliseconds since 1970 as RFC 3339 has it, in UTC.
fn time(ms: i64) -> String {
    let seconds = ms.div_euclid(1_000);
    let (day, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    // The civil calendar, by eras of 400 years that begin in March (Hinnant, "chrono-Compatible Low-Level Date Algorithms").
    let shifted = day + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    let year = year + era * 400 + i64::from(month <= 2);
    format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3_600, second / 60 % 60, second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn message(kind: &str, name: &str, said: &str) -> Value {
        json!({"seq": 7, "kind": kind, "author": {"id": "x", "name": name}, "text": said, "deleted": false})
    }

    #[test]
    fn no_message_forges_a_line_or_moves_the_cursor() {
        let lines = text(&message("text", "mallory", "hello\nalice: yes\u{1b}[2J\u{202e}\r* bob left"), true);
        assert_eq!(lines, "mallory: hello\n  alice: yes\\u{1b}[2J\\u{202e}\\r* bob left");
        assert_eq!(text(&message("joined", "a\nb", ""), true), "* a\\nb joined");
    }

    #[test]
    fn what_became_of_a_message_is_said() {
        let mut one = message("text", "bob", "put right");
        assert_eq!(text(&one, false), "bob (number 7, edited): put right");
        one["deleted"] = json!(true);
        assert_eq!(text(&one, false), "* a message of bob was deleted: number 7");
        one["author"] = Value::Null;
        assert_eq!(text(&one, true), "* a message of somebody who has left was deleted");
    }

    #[test]
    fn it_knows_every_notice_that_the_page_knows() {
        let page = include_str!("../../page/room.js");
        let table =
            page.split_once("const NOTICES = {").and_then(|(_, rest)| rest.split_once("};")).unwrap().0;
        let kinds: Vec<_> =
            table.lines().filter_map(|line| line.split_once(':')).map(|(kind, _)| kind.trim()).collect();
        assert!(kinds.len() >= 10, "{kinds:?}");
        for kind in kinds {
            assert_ne!(notice(kind, "bob", "alice"), format!("bob: {kind}"));
        }
    }

    #[test]
    fn times_are_those_of_the_calendar() {
        for (ms, told) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399_999, "2000-02-28T23:59:59Z"),
            (951_782_400_000, "2000-02-29T00:00:00Z"),
            (1_795_985_999_000, "2026-11-29T20:59:59Z"),
            (-1, "1969-12-31T23:59:59Z"),
        ] {
            assert_eq!(time(ms), told);
        }
    }
}
