//! The tables of docs/configuration.md, written from the sections themselves, so that page and program
//! cannot disagree. Pure text; `tests/docs.rs` puts it between the page's markers.

use super::reload::is_live;
use super::settings::Settings;

/// Every section as Markdown: heading, doc, and a table of its keys with the values in `settings`.
pub fn markdown_tables(settings: &Settings) -> String {
    let mut text = String::new();
    for section in settings.sections() {
        text.push_str(&format!("## [{}]\n\n{}\n\n", section.name(), section.doc()));
        text.push_str("| key | default | SIGHUP | meaning |\n| --- | --- | --- | --- |\n");
        for key in section.reference() {
            text.push_str(&format!(
                "| `{}.{}` | `{}` | {} | {} |\n",
                section.name(),
                key.key,
                in_cell(&key.value),
                if is_live(section.name(), key.key) { "applies" } else { "restart" },
                in_cell(key.doc)
            ));
        }
        text.push('\n');
    }
    text
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
        assert_eq!(rows, keys);
        for row in text.lines().filter(|line| line.starts_with('|')) {
            assert_eq!(row.replace("\\|", "").matches('|').count(), 5, "{row}");
        }
    }
}
