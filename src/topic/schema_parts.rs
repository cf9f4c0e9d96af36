//! What a JSON Schema can cost at most: how deep its parts lie in one another, and how often they can be applied.
//!
//! Driven by [`Schema::compile`](super::schema::Schema::compile), with the operator's file. A schema may be written
//! innocently and still cost a stack or a day for the message of a hostile client, because it comes back to itself; so
//! both are computed before, for every depth of a message. Pure; it never applies a schema.

use std::collections::HashMap;

use serde_json::{Map, Value};

/// Parts of a schema that can be reached from its top.
const PARTS_MAX: usize = 2_000;

/// What all parts cost for one value of a message, each once.
const SHARED_WORK_MAX: u64 = 10_000;

/// Keywords whose value is a schema for the same value of the message.
const SAME: [&str; 4] = ["if", "then", "else", "not"];
/// Keywords whose value is a list of such schemas.
const SAME_LISTS: [&str; 3] = ["allOf", "anyOf", "oneOf"];
/// Keywords whose value has such schemas by name, beside lists of names.
const SAME_NAMED: [&str; 2] = ["dependentSchemas", "dependencies"];
/// Keywords whose value is a schema for any of the values inside it.
const INSIDE: [&str; 7] = [
    "additionalProperties",
    "additionalItems",
    "unevaluatedProperties",
    "unevaluatedItems",
    "propertyNames",
    "contains",
    "items",
];
/// Keywords that make the others be looked at twice.
const TWICE: [&str; 2] = ["unevaluatedProperties", "unevaluatedItems"];
/// Keywords whose value has lists of names by name, each looked for in every object.
const NAMED_LISTS: [&str; 2] = ["dependentRequired", "dependencies"];
/// What would lead out of what is looked at here.
const REFUSED: [(&str, &str); 3] = [
    ("$dynamicRef", "write $ref"),
    ("$recursiveRef", "write $ref"),
    ("contentSchema", "what is inside of texts is not looked at"),
];

/// What a schema costs at most, by the depth of a message: levels of objects and lists, from 0.
#[derive(Debug)]
pub(super) struct Costs {
    /// Parts that are applied inside one another.
    pub(super) levels: Vec<u32>,
    /// Parts that are applied to any one value of the message.
    pub(super) work: Vec<u64>,
    /// The same where the result of what `$ref` names is kept.
    pub(super) shared_work: u64,
    /// Whether items of lists are compared with one another.
    pub(super) compares_items: bool,
}

/// One part: a schema in the schema.
struct Part<'a> {
    value: &'a Value,
    path: String,
    /// Applied to the same value.
    same: Vec<usize>,
    /// The same by `$ref`.
    reference: Option<usize>,
    /// Each applied to another of the values inside.
    one: Vec<usize>,
    /// Applied to any of the values inside.
    any: Vec<usize>,
    twice: bool,
    /// Steps that it takes itself.
    own: u64,
}

/// Everything that can be reached from the top.
struct Parts<'a> {
    root: &'a Value,
    parts: Vec<Part<'a>>,
    known: HashMap<*const Value, usize>,
    draft4: bool,
}

/// What a schema costs on messages of up to `depth_max` levels.
///
/// # Errors
/// Where in the schema something is that can't be bounded, and what to write instead.
pub(super) fn costs(root: &Value, depth_max: u32) -> Result<Costs, String> {
    let draft4 = root.get("$schema").and_then(Value::as_str).is_some_and(|name| name.contains("draft-04"));
    let mut all = Parts { root, parts: Vec::new(), known: HashMap::new(), draft4 };
    all.part(root, String::new());
    let mut next = 0;
    while next < all.parts.len() {
        if all.parts.len() > PARTS_MAX {
            return Err(format!("has more than {PARTS_MAX} schemas in it"));
        }
        all.fill(next)?;
        next += 1;
    }
    let order = all.inside_first()?;
    let shared_work = all.shared_work();
    if shared_work > SHARED_WORK_MAX {
        return Err(
            "takes too much work: unevaluatedProperties or unevaluatedItems inside one another, or an enum with \
             tens of thousands of numbers"
                .into()
        );
    }
    let (levels, work) = all.by_depth(&order, depth_max);
    let compares = |part: &Part<'_>| part.value.get("uniqueItems") == Some(&Value::Bool(true));
    let compares_items = all.parts.iter().any(compares);
    Ok(Costs { levels, work, shared_work, compares_items })
}

impl<'a> Parts<'a> {
    /// The place of the part that is written there.
    fn part(&mut self, value: &'a Value, path: String) -> usize {
        let next = self.parts.len();
        *self.known.entry(std::ptr::from_ref(value)).or_insert_with(|| {
            let (same, one, any) = (Vec::new(), Vec::new(), Vec::new());
            self.parts.push(Part { value, path, same, reference: None, one, any, twice: false, own: 1 });
            next
        })
    }

    /// Finds what a part applies.
    fn fill(&mut self, place: usize) -> Result<(), String> {
        let Some(Part { value, path, .. }) = self.parts.get(place) else { return Ok(()) };
        let (Value::Object(members), path) = (*value, path.clone()) else { return Ok(()) };
        for (word, instead) in REFUSED {
            if members.contains_key(word) {
                return Err(format!("{}: {word} is not taken here; {instead}", at(&path)));
            }
        }
        let renamed = |word: &str| members.get(word).is_some_and(Value::is_string) && !path.is_empty();
        if renamed("$id") || (self.draft4 && renamed("id")) {
            return Err(format!("{}: only the whole schema may have an $id", at(&path)));
        }
        let mut same: Vec<usize> = Vec::new();
        for word in SAME {
            same.extend(members.get(word).map(|value| self.part(value, format!("{path}/{word}"))));
        }
        for word in SAME_LISTS {
            same.extend(self.list(members, word, &path));
        }
        for word in SAME_NAMED {
            same.extend(self.named(members, word, &path));
        }
        let mut one = self.named(members, "properties", &path);
        one.extend(self.list(members, "prefixItems", &path));
        one.extend(self.list(members, "items", &path));
        let mut any = self.named(members, "patternProperties", &path);
        for word in INSIDE {
            let value = members.get(word).filter(|value| !value.is_array());
            any.extend(value.map(|value| self.part(value, format!("{path}/{word}"))));
        }
        let reference = match members.get("$ref").and_then(Value::as_str) {
            Some(reference) => Some(self.target(reference, &path)?),
            None => None,
        };
        let twice = TWICE.iter().any(|word| members.contains_key(*word));
        if let Some(part) = self.parts.get_mut(place) {
            (part.same, part.reference, part.one, part.any, part.twice) = (same, reference, one, any, twice);
            part.own = own_steps(members);
        }
        Ok(())
    }

    fn list(&mut self, members: &'a Map<String, Value>, word: &str, path: &str) -> Vec<usize> {
        let Some(Value::Array(items)) = members.get(word) else { return Vec::new() };
        items.iter().enumerate().map(|(at, item)| self.part(item, format!("{path}/{word}/{at}"))).collect()
    }

    fn named(&mut self, members: &'a Map<String, Value>, word: &str, path: &str) -> Vec<usize> {
        let Some(Value::Object(schemas)) = members.get(word) else { return Vec::new() };
        let schemas = schemas.iter().filter(|(_, schema)| !schema.is_array());
        let escaped = |name: &str| name.replace('~', "~0").replace('/', "~1");
        schemas.map(|(name, schema)| self.part(schema, format!("{path}/{word}/{}", escaped(name)))).collect()
    }

    /// The part that a `$ref` names.
    fn target(&mut self, reference: &str, path: &str) -> Result<usize, String> {
        let pointer = reference.strip_prefix('#').filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let Some(pointer) = pointer.filter(|pointer| !pointer.contains('%')) else {
            return Err(format!(
                "{}: $ref {reference:?} is not taken; it names a place in the same file, such as \"#/$defs/price\"",
                at(path)
            ));
        };
        let Some(value) = self.root.pointer(pointer) else {
            return Err(format!("{}: $ref {reference:?} names a place that is not there", at(path)));
        };
        Ok(self.part(value, pointer.to_owned()))
    }

    /// The parts, each behind those that it applies to the same value.
    fn inside_first(&self) -> Result<Vec<usize>, String> {
        let mut open: Vec<usize> = self.parts.iter().map(|part| part.to_same().count()).collect();
        let mut users: Vec<Vec<usize>> = vec![Vec::new(); self.parts.len()];
        for (place, part) in self.parts.iter().enumerate() {
            part.to_same().for_each(|inner| users[inner].push(place));
        }
        let mut order: Vec<usize> = (0..open.len()).filter(|place| open[*place] == 0).collect();
        let mut done = 0;
        while let Some(place) = order.get(done).copied() {
            done += 1;
            for user in &users[place] {
                open[*user] -= 1;
                if open[*user] == 0 {
                    order.push(*user);
                }
            }
        }
        let Some(mut place) = (0..open.len()).find(|place| open[*place] > 0) else { return Ok(order) };
        // Whoever waits for one that waits comes into the circle in the end.
        for _ in 0..open.len() {
            place = self.parts[place].to_same().find(|inner| open[*inner] > 0).unwrap_or(place);
        }
        let place = at(&self.parts[place].path);
        Err(format!("{place}: comes back to itself for the same value, by $ref, without an end"))
    }

    /// What every part costs for one value, where what `$ref` names is applied once.
    fn shared_work(&self) -> u64 {
        // What lies inside a part has a longer path.
        let mut order: Vec<usize> = (0..self.parts.len()).collect();
        order.sort_by_key(|place| std::cmp::Reverse(self.parts[*place].path.split('/').count()));
        let mut work = vec![0_u64; self.parts.len()];
        for place in order {
            let part = &self.parts[place];
            let inside = part.same.iter().chain(&part.one).chain(&part.any);
            let sum = inside.fold(0_u64, |sum, inner| sum.saturating_add(work[*inner]));
            work[place] = sum.saturating_mul(part.times()).saturating_add(part.own);
        }
        let named = self.parts.iter().filter_map(|part| part.reference);
        let mut tops: Vec<usize> = named.chain([0]).collect();
        tops.sort_unstable();
        tops.dedup();
        tops.into_iter().fold(0, |sum, top| sum.saturating_add(work[top]))
    }

    /// What the top costs, in levels and in work, by the depth of a message.
    fn by_depth(&self, order: &[usize], depth_max: u32) -> (Vec<u32>, Vec<u64>) {
        let none = (vec![0_u32; self.parts.len()], vec![0_u64; self.parts.len()]);
        let (mut levels, mut work) = (Vec::new(), Vec::new());
        let mut before = none.clone();
        for _ in 0..=depth_max {
            let mut now = none.clone();
            for place in order {
                let part = &self.parts[*place];
                let inside = part.one.iter().chain(&part.any).map(|inner| before.0[*inner]);
                let deepest = part.to_same().map(|inner| now.0[inner]).chain(inside).max().unwrap_or(0);
                now.0[*place] = deepest.saturating_add(1);
                let same = part.to_same().fold(0_u64, |sum, inner| sum.saturating_add(now.1[inner]));
                let one = part.one.iter().map(|inner| before.1[*inner]).max().unwrap_or(0);
                let any = part.any.iter().fold(one, |sum, inner| sum.saturating_add(before.1[*inner]));
                now.1[*place] =
                    same.saturating_add(any).saturating_mul(part.times()).saturating_add(part.own);
            }
            levels.push(now.0[0]);
            work.push(now.1[0]);
            before = now;
        }
        (levels, work)
    }
}

impl Part<'_> {
    /// The parts that are applied to the same value.
    fn to_same(&self) -> impl Iterator<Item = usize> {
        self.same.iter().copied().chain(self.reference)
    }

    fn times(&self) -> u64 {
        if self.twice { 2 } else { 1 }
    }
}

/// Steps of a part by itself. What an enum has is compared one after the other, unless all of it is text: a number of another
/// form (`1.0`) is not looked up by the crate. Four comparisons are a step.
fn own_steps(members: &Map<String, Value>) -> u64 {
    let alike = |value: &Value| value.is_string() || value.is_null();
    let items = members.get("enum").and_then(Value::as_array).filter(|items| !items.iter().all(alike));
    let lists = NAMED_LISTS.iter().filter_map(|word| members.get(*word)?.as_object().map(Map::len));
    let compared = items.map_or(0, Vec::len) + lists.sum::<usize>();
    (compared / 4) as u64 + 1
}

/// How a place is told: a JSON pointer (RFC 6901), whose empty one is the whole.
fn at(path: &str) -> String {
    if path.is_empty() { "at its top".to_owned() } else { format!("at {path}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(schema: &Value) -> Costs {
        costs(schema, 8).unwrap()
    }

    #[test]
    fn what_does_not_come_back_to_itself_costs_no_more_on_deeper_messages() {
        let costs = of(&json!({
            "properties": { "a": { "items": { "type": "number" } }, "b": {} },
            "anyOf": [{ "required": ["a"] }, { "$ref": "#/$defs/b" }],
            "$defs": { "b": { "not": { "required": ["c"] } }, "unused": { "$ref": "nowhere" } }
        }));
        assert_eq!(costs.levels, [4, 4, 4, 4, 4, 4, 4, 4, 4], "top, anyOf, $ref, not");
        assert_eq!(costs.work[..3], [5, 6, 7], "of the names a value has one");
        assert_eq!(costs.work[8], 7);
        assert_eq!(costs.shared_work, 8);
    }

    #[test]
    fn what_comes_back_to_itself_costs_by_the_depth_of_the_message() {
        let tree = of(&json!({ "properties": { "left": { "$ref": "#" }, "right": { "$ref": "#" } } }));
        assert_eq!(tree.levels[..4], [1, 3, 5, 7]);
        assert_eq!(tree.work[..4], [1, 3, 5, 7], "each value is of one side");
        let twice = of(&json!({ "anyOf": [{ "items": { "$ref": "#" } }, { "items": { "$ref": "#" } }] }));
        assert_eq!(twice.work[..4], [3, 11, 27, 59], "doubles with each level");
        let unevaluated = of(&json!({ "items": { "$ref": "#" }, "unevaluatedItems": false }));
        assert!(unevaluated.work[8] > 256, "{:?}", unevaluated.work);
    }

    #[test]
    fn what_is_compared_one_after_the_other_costs_by_how_much_there_is() {
        let numbers: Vec<u32> = (0..400).collect();
        let texts: Vec<String> = numbers.iter().map(u32::to_string).collect();
        let costs = |schema| of(&schema).work[0];
        assert_eq!(costs(json!({ "enum": numbers })), 101);
        assert_eq!(costs(json!({ "enum": texts })), 1, "these are looked up");
        let named: Map<String, Value> = texts.iter().map(|name| (name.clone(), json!(["a"]))).collect();
        assert_eq!(costs(json!({ "dependentRequired": named })), 101);
    }

    #[test]
    fn what_can_not_be_bounded_is_refused_with_its_place() {
        let deep = (0..20).fold(json!({}), |inner, _| json!({ "unevaluatedItems": false, "allOf": [inner] }));
        let many: Vec<Value> = (0..2_000).map(|_| json!({})).collect();
        for (schema, said) in [
            (json!({ "$ref": "#" }), "at its top: comes back to itself"),
            (json!({ "allOf": [{ "$ref": "#/allOf/0" }] }), "at /allOf/0: comes back to itself"),
            (
                json!({ "$ref": "#/$defs/a", "$defs": { "a": { "not": { "$ref": "#/$defs/a" } } } }),
                "at /$defs/a",
            ),
            (
                json!({ "properties": { "a/b": { "$ref": "x.json" } } }),
                "at /properties/a~1b: $ref \"x.json\"",
            ),
            (json!({ "$ref": "http://127.0.0.1/x" }), "names a place in the same file"),
            (json!({ "$ref": "#anchor" }), "names a place in the same file"),
            (
                json!({ "items": { "$ref": "#/$defs/a" } }),
                "at /items: $ref \"#/$defs/a\" names a place that is not",
            ),
            (
                json!({ "items": { "$dynamicRef": "#a" } }),
                "at /items: $dynamicRef is not taken here; write $ref",
            ),
            (json!({ "items": { "$id": "x" } }), "only the whole schema may have an $id"),
            (json!({ "anyOf": many }), "more than 2000 schemas"),
            (deep, "too much work"),
        ] {
            let error = costs(&schema, 8).unwrap_err();
            assert!(error.contains(said), "{said}: {error}");
        }
        assert!(
            costs(&json!({ "$id": "https://example.com/a", "properties": { "$ref": {}, "$id": {} } }), 8)
                .is_ok()
        );
    }
}
