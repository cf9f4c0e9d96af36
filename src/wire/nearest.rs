//! The word somebody meant who wrote another one: keys of a file, parameters of a query.

/// Letters of a word that are looked at; no known one is longer.
const LETTERS_MAX: usize = 64;

/// The nearest of `candidates` if it is near enough to be what was meant.
pub fn nearest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let letters = word.chars().take(LETTERS_MAX).map(|c| if c == '-' { '_' } else { c.to_ascii_lowercase() });
    let word: String = letters.collect();
    // One slip in three letters; more than that is another word.
    let allowed = (word.chars().count() / 3).clamp(1, 4);
    candidates
        .into_iter()
        .map(|candidate| (strsim::osa_distance(&word, candidate), candidate))
        .filter(|(slips, _)| *slips <= allowed)
        .min_by_key(|(slips, _)| *slips)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn suggestions_are_near_or_absent() {
        let keys = ["listen", "admin", "loops", "connections_max"];
        assert_eq!(nearest("lisen", keys), Some("listen"));
        assert_eq!(nearest("lsiten", keys), Some("listen"));
        assert_eq!(nearest("connections-max", keys), Some("connections_max"));
        assert_eq!(nearest("Loops", keys), Some("loops"));
        assert_eq!(nearest("colour", keys), None);
        assert_eq!(nearest("", keys), None);
        assert_eq!(nearest(&"x".repeat(100_000), keys), None);
    }
}
