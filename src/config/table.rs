//! One table of a list, such as `[[topic]]`, as the file has it, and how it is read into the section that it is one of.
//!
//! Driven by the readers of the lists. Pure; says what is wrong with each key, and where.

use super::error::{ConfigError, Place};
use super::load::Assignment;
use super::section::Section;
use crate::wire::nearest::nearest;

/// One table of a list.
#[derive(Debug)]
pub(super) struct Table {
    /// Where it begins.
    pub(super) place: Place,
    /// Its keys, with their places.
    pub(super) keys: Vec<Assignment>,
}

impl Table {
    /// Sets what the table says, and checks it by itself. `false`: something was wrong, and is among the errors.
    pub(super) fn fill(&self, rule: &mut dyn Section, errors: &mut Vec<ConfigError>) -> bool {
        let before = errors.len();
        for Assignment { key, value, place, .. } in &self.keys {
            let Some((key, value)) = key.as_deref().zip(value.as_ref()) else { continue };
            let problem = if !rule.keys().contains(&key) {
                unknown_key(rule, key)
            } else if let Err(expects) = rule.set(key, value) {
                format!("expects {expects}, got {}", value.quoted())
            } else {
                continue;
            };
            let key = Some(format!("{}.{key}", rule.name()));
            errors.push(ConfigError { place: place.clone(), key, problem });
        }
        if errors.len() > before {
            return false;
        }
        let mut unfit = Vec::new();
        rule.check(&mut unfit);
        errors.extend(unfit.into_iter().map(|unfit| ConfigError {
            place: self.place_of(unfit.key),
            key: Some(format!("{}.{}", rule.name(), unfit.key)),
            problem: unfit.problem,
        }));
        errors.len() == before
    }

    /// Where each key is set.
    pub(super) fn places(&self) -> impl Iterator<Item = (&str, &Place)> {
        self.keys.iter().filter_map(|set| Some((set.key.as_deref()?, &set.place)))
    }

    /// Where a key is set, or where the table begins.
    pub(super) fn place_of(&self, key: &str) -> Place {
        let set = self.places().filter(|(set, _)| *set == key).last();
        set.map_or_else(|| self.place.clone(), |(_, place)| place.clone())
    }
}

fn unknown_key(rule: &dyn Section, key: &str) -> String {
    match nearest(key, rule.keys().iter().copied()) {
        Some(meant) => format!("unknown key; did you mean {meant}?"),
        None => format!("unknown key; [[{}]] expects one of {}", rule.name(), rule.keys().join(", ")),
    }
}
