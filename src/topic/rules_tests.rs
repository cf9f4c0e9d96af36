//! Which policy a topic has, by its name and the rules it is used under.

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
        Rule { client_publish: Some(true), ..rule("prices/open") },
        Rule { slow: Some(SlowPolicy::Latest), bytes_max: Some(1000), ..rule("prices/*") },
        Rule { slow: Some(SlowPolicy::Disconnect), client_publish: Some(false), ..rule("*") },
    ];
    let open = vec![TopicPattern::compile("prices/eur").unwrap(), TopicPattern::compile("lobby").unwrap()];
    let rules = TopicRules::new(rules, open, TopicPolicy { messages_max: 7, ..TopicPolicy::default() });
    let of = |name: &str| {
        let policy = rules.policy_of(name);
        (policy.slow, policy.client_publish, policy.messages_max, policy.bytes_max)
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
    assert_eq!(cell.policy(|| "a", &third), TopicPolicy::default());
    // Rules that are nobody's are looked at each time.
    assert_eq!(cell.policy(|| "a", &TopicRules::default()), TopicPolicy::default());
}
