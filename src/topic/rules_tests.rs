//! Which policy a topic has, by its name and the rules it is used under.

use super::level_pattern::LevelPattern;
use super::pattern::TopicPattern;
use super::rules::*;

fn rule(pattern: &str) -> Rule {
    Rule::of(TopicPattern::compile(pattern).unwrap())
}

fn edition(before: &TopicRules, rules: Vec<Rule>) -> TopicRules {
    TopicRules::new(rules, Vec::new(), TopicPolicy::default()).following(before)
}

#[test]
fn the_first_rule_that_fits_holds_and_leaves_the_rest_to_the_base() {
    let rules = vec![
        Rule { publish: Some(Access::Anyone), ..rule("prices/open") },
        Rule { slow: Some(SlowPolicy::Latest), bytes_max: Some(1000), ..rule("prices/*") },
        Rule { slow: Some(SlowPolicy::Disconnect), publish: Some(Access::Nobody), ..rule("*") },
    ];
    let open = vec![TopicPattern::compile("prices/eur").unwrap(), TopicPattern::compile("lobby").unwrap()];
    let rules = TopicRules::new(rules, open, TopicPolicy { messages_max: 7, ..TopicPolicy::default() });
    let of = |name: &str| {
        let policy = rules.policy_of(name);
        (policy.slow, policy.publish == Access::Anyone, policy.messages_max, policy.bytes_max)
    };
    assert_eq!(of("prices/open"), (SlowPolicy::DropNewest, true, 7, 256 << 10));
    assert_eq!(of("prices/eur"), (SlowPolicy::Latest, true, 7, 1000));
    assert_eq!(of("prices/usd"), (SlowPolicy::Latest, false, 7, 1000));
    assert_eq!(of("lobby"), (SlowPolicy::Disconnect, false, 7, 256 << 10));
}

#[test]
fn a_topic_follows_the_rules_it_is_used_under() {
    let first = edition(&TopicRules::default(), Vec::new());
    let latest = Rule { slow: Some(SlowPolicy::Latest), ..rule("a*") };
    let second = edition(&first, vec![rule("x"), latest]);
    let cell = PolicyCell::new();
    assert_eq!(cell.policy(|| "a", &first).slow, SlowPolicy::DropNewest);
    assert_eq!(cell.policy(|| "a", &second).slow, SlowPolicy::Latest);
    // A loop that has not seen the new rules yet changes nothing for the others.
    assert_eq!(cell.policy(|| "a", &first).slow, SlowPolicy::DropNewest);
    // Looked up once: under another name the place that was found still holds.
    assert_eq!(cell.policy(|| "not looked at", &second).slow, SlowPolicy::Latest);
    let third = edition(&second, Vec::new());
    assert_eq!(cell.policy(|| "a", &third), &TopicPolicy::default());
    // Rules that are nobody's are looked at each time.
    assert_eq!(cell.policy(|| "a", &TopicRules::default()), &TopicPolicy::default());
}

#[test]
fn a_pattern_is_for_whom_all_it_can_mean_is_for() {
    let none = |pattern: &str| Rule { subscribe: Some(Access::Nobody), ..rule(pattern) };
    let all = |pattern: &str| Rule { subscribe: Some(Access::Anyone), ..rule(pattern) };
    let of = |rules: Vec<Rule>, pattern: &str| {
        let rules = TopicRules::new(rules, Vec::new(), TopicPolicy::default());
        rules.watchers_of(&LevelPattern::parse(pattern).unwrap()) == Access::Anyone
    };
    for (pattern, may) in [
        ("**", false),
        ("*", false),
        ("a/*", false),
        ("a/b/*", true),
        ("a/b/c/**", true),
        ("b/*", true),
        ("*/b", false),
        ("*/c", false),
        ("x/*", false),
        ("x/y/**", false),
        ("xx/**", false),
    ] {
        assert_eq!(of(vec![none("a/b"), none("x*")], pattern), may, "{pattern}");
    }
    // What an earlier rule has whole, a later one does not get.
    let open_first = || vec![all("public/*"), none("*")];
    assert!(of(open_first(), "public/**") && of(open_first(), "public/a/*"));
    assert!(!of(open_first(), "*/x") && !of(open_first(), "other/*"));
    assert!(!of(vec![none("public/secret*"), all("public/*")], "public/*"));
    assert!(of(vec![none("public/secret*"), all("public/*")], "public/open/*"));
    let loosest = |rules: Vec<Rule>, pattern: &str| {
        let rules = TopicRules::new(rules, Vec::new(), TopicPolicy::default());
        rules.loosest_of(&LevelPattern::parse(pattern).unwrap())
    };
    assert_eq!(loosest(vec![none("a/*")], "a/**"), Access::Nobody, "nothing of it is for anybody");
    assert_eq!(loosest(vec![none("a/*")], "*/b"), Access::Anyone);
    assert_eq!(loosest(vec![all("a/b"), none("a/*")], "a/*"), Access::Anyone);
    // The simple twin: a pattern that somebody may have means no topic that they may not.
    let rules = || vec![none("a/b*"), all("a*"), none("b"), none("c/*"), all("d/x"), none("d/*")];
    let by_rules = TopicRules::new(rules(), Vec::new(), TopicPolicy::default());
    let levels = ["a", "b", "c", "d", "x", ""];
    let names: Vec<String> = levels
        .iter()
        .flat_map(|one| levels.iter().map(move |two| format!("{one}/{two}")))
        .chain(levels.iter().filter(|name| !name.is_empty()).map(ToString::to_string))
        .collect();
    for pattern in ["*", "**", "a/*", "a/**", "b/*", "c/*", "*/a", "*/b", "*/x", "d/*", "x/*", "*/*"] {
        let parsed = LevelPattern::parse(pattern).unwrap();
        let meant = names.iter().filter(|name| parsed.fits(name));
        let closed: Vec<_> =
            meant.filter(|name| by_rules.subscribers_of(name.as_str()) == Access::Nobody).collect();
        let may = by_rules.watchers_of(&parsed) == Access::Anyone;
        assert!(!may || closed.is_empty(), "{pattern} means {closed:?}");
        let most = names.iter().filter(|name| parsed.fits(name)).map(|name| by_rules.subscribers_of(name));
        assert!(by_rules.loosest_of(&parsed) >= most.max().unwrap(), "{pattern}");
    }
}

#[test]
fn what_is_listed_is_open_to_those_who_are_named_and_the_rest_to_whom_the_base_says() {
    let pattern = |text| TopicPattern::compile(text).unwrap();
    let rules = vec![Rule { publish: Some(Access::Anyone), ..rule("public/*") }, rule("lob*")];
    let base =
        TopicPolicy { publish: Access::Claim, subscribe: Access::Identified, ..TopicPolicy::default() };
    let rules =
        TopicRules::open_to(rules, vec![pattern("lobby"), pattern("public/*")], Access::Identified, base);
    let of = |name: &str| (rules.policy_of(name).publish, rules.subscribers_of(name));
    assert_eq!(of("public/a"), (Access::Anyone, Access::Identified));
    assert_eq!(of("lobby"), (Access::Identified, Access::Identified));
    assert_eq!(of("lobbies"), (Access::Claim, Access::Identified));
    assert_eq!(of("x"), (Access::Claim, Access::Identified));
    assert_eq!(rules.watchers_of(&LevelPattern::parse("x/*").unwrap()), Access::Identified);
    assert_eq!(rules.loosest_of(&LevelPattern::parse("x/*").unwrap()), Access::Identified);
}
