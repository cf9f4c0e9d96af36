//! The tables of docs/configuration.md, written from the sections themselves, so that page and program
//! cannot disagree. Pure text; `tests/docs.rs` puts it between the page's markers.

use super::section::Section;
use super::settings::{Settings, lists};

/// Every section as Markdown: heading, doc, and a table of its keys with the values in `settings`; then the
/// keys of each list.
pub fn markdown_tables(settings: &Settings) -> String {
    let mut text = String::new();
    for section in settings.sections() {
        push_table(&mut text, &format!("[{}]", section.name()), section, |key| section.is_live(key));
    }
    // Lists apply as a whole, with all their keys.
    for rule in lists() {
        push_table(&mut text, &format!("[[{}]]", rule.name()), &*rule, |_| true);
    }
    text
}

fn push_table(text: &mut String, heading: &str, section: &dyn Section, live: impl Fn(&str) -> bool) {
    text.push_str(&format!("## {heading}\n\n{}\n\n", section.doc()));
    text.push_str("| key | default | SIGHUP | meaning |\n| --- | --- | --- | --- |\n");
    for key in section.reference() {
        text.push_str(&format!(
            "| `{}.{}` | `{}` | {} | {} |\n",
            section.name(),
            key.key,
            in_cell(&key.value),
            if live(key.key) { "applies" } else { "restart" },
            in_cell(key.doc)
        ));
    }
    text.push('\n');
}

/// A bar would end the cell, inside code too.
fn in_cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_has_a_row_of_four_cells() {
        let text = markdown_tables(&Settings::default());
        assert!(text.contains("## [server]\n\nWhere the server listens"), "{text}");
        assert!(text.contains("\n| `server.loops` | `0` | restart | Number of event loops"), "{text}");
        let rows = text.lines().filter(|line| line.starts_with("| `")).count();
        let keys: usize = Settings::default().sections().iter().map(|section| section.keys().len()).sum();
        let of_lists: usize = lists().iter().map(|list| list.keys().len()).sum();
        assert_eq!(rows, keys + of_lists);
        for row in text.lines().filter(|line| line.starts_with('|')) {
            assert_eq!(row.replace("\\|", "").matches('|').count(), 5, "{row}");
        }
    }
}
