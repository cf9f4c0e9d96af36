//! The index of patterns against each pattern by itself, and its bounds.

use super::level_pattern::LevelPattern;
use super::patterns::{Patterns, Unwatched};
use super::sync::Arc;

fn pattern(text: &str) -> LevelPattern {
    LevelPattern::parse(text).unwrap()
}

fn watch(patterns: &Patterns, text: &str, loop_index: u32) -> u64 {
    patterns.watch(&pattern(text), 1 << loop_index, || true).unwrap()
}

#[test]
fn the_index_finds_what_each_pattern_by_itself_does() {
    let levels = ["a", "b", "", "*"];
    let mut texts: Vec<String> = vec!["**".into()];
    for one in levels {
        texts.push(one.into());
        texts.push(format!("{one}/**"));
        for two in levels {
            texts.push(format!("{one}/{two}"));
            texts.push(format!("{one}/{two}/**"));
            texts.extend(levels.map(|three| format!("{one}/{two}/{three}")));
        }
    }
    texts.retain(|text| LevelPattern::parse(text).is_ok());
    let patterns = Patterns::new(1_000);
    let ids: Vec<u64> = texts.iter().map(|text| watch(&patterns, text, 1)).collect();
    assert_eq!(patterns.count(), texts.len());
    for name in ["a", "b", "c", "a/b", "a/", "/", "/b", "a/b/a", "c/c/c", "a//b", "a/b/c/d", "d/e/f/g/h"] {
        let fits = |at: &usize| pattern(&texts[*at]).fits(name);
        let expected: Vec<u64> = (0..texts.len()).filter(fits).map(|at| ids[at]).collect();
        let found = patterns.matching(name);
        assert_eq!(found.map_or(Vec::new(), |matched| matched.ids.to_vec()), expected, "{name}");
    }
    texts.iter().for_each(|text| patterns.unwatch(&pattern(text), 1 << 1));
    assert_eq!(patterns.count(), 0);
    assert!(patterns.is_bare(), "nothing stays of patterns that are gone");
}

#[test]
fn loops_come_and_go_and_each_change_is_an_edition() {
    let patterns = Patterns::new(10);
    assert_eq!((patterns.edition(), patterns.matching("a/b")), (0, None));
    let id = watch(&patterns, "a/*", 0);
    let first = patterns.edition();
    assert_ne!(first, 0);
    assert_eq!(watch(&patterns, "a/*", 0), id);
    assert_eq!(patterns.edition(), first, "a loop that has it already changes nothing");
    assert_eq!(watch(&patterns, "a/*", 63), id);
    assert_ne!(patterns.edition(), first);
    let wide = watch(&patterns, "**", 2);
    let matched = patterns.matching("a/b").unwrap();
    assert_eq!((matched.loops, &*matched.ids), (1 | 1 << 63 | 1 << 2, &[id, wide][..]));
    let other = patterns.matching("a/c").unwrap();
    assert!(Arc::ptr_eq(&matched, &other), "topics of the same patterns share what is kept of them");
    patterns.unwatch(&pattern("a/*"), 1);
    assert_eq!(patterns.matching("a/b").unwrap().loops, 1 << 63 | 1 << 2);
    patterns.unwatch(&pattern("a/*"), 1 << 63);
    assert_eq!(&*patterns.matching("a/b").unwrap().ids, &[wide]);
    assert_ne!(watch(&patterns, "a/*", 0), id, "an id is nobody else's");
}

#[test]
fn there_are_no_more_than_may_be() {
    let patterns = Patterns::new(1);
    let ask = |text: &str, may: bool| patterns.watch(&pattern(text), 1, || may);
    assert_eq!(ask("a/*", false), Err(Unwatched::TooFast));
    let id = ask("a/*", true).unwrap();
    assert_eq!(ask("a/*", false), Ok(id), "what somebody has already is not made");
    assert_eq!(ask("b/*", true), Err(Unwatched::Full));
    patterns.unwatch(&pattern("a/*"), 1);
    assert!(ask("b/*", true).is_ok());
    patterns.unwatch(&pattern("a/*"), 1);
    assert_eq!(patterns.count(), 1, "what is not there can't go");
}

#[test]
fn a_look_is_bounded_whatever_patterns_there_are() {
    // All patterns of one letter and stars that fit the longest name a look goes through.
    let patterns = Patterns::new(usize::MAX);
    let mut made = 0;
    for choice in 0_u32..1 << 16 {
        if (1..=4).contains(&choice.count_ones()) {
            let level = |at: u32| if choice >> at & 1 == 1 { "*" } else { "a" };
            let text: Vec<&str> = (0..16).map(level).collect();
            watch(&patterns, &text.join("/"), 0);
            made += 1;
        }
    }
    assert_eq!(made, 16 + 120 + 560 + 1_820);
    assert_eq!(patterns.matching(&["a"; 16].join("/")).map(|matched| matched.ids.len()), Some(made));
}
