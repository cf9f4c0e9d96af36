//! Checks a value against the schemas in `schema/`: the part of JSON Schema 2020-12 that they use. A keyword that is
//! not known here fails the test, so that none is written that nobody checks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde_json::Value;

/// All schema files by their name.
pub(crate) struct Schemas {
    documents: BTreeMap<String, Value>,
}

impl Schemas {
    /// Reads them.
    pub(crate) fn load() -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema");
        let mut documents = BTreeMap::new();
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let name = path.file_name().unwrap().to_str().unwrap().to_owned();
            let document: Value =
                serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
            let id = document["$id"].as_str().unwrap_or_else(|| panic!("{name} has no $id"));
            assert!(id.ends_with(&format!("/{name}")), "{name}: {id}");
            documents.insert(name, document);
        }
        Self { documents }
    }

    /// The commands that have one; a plan is made by a flag of theirs.
    pub(crate) fn commands(&self) -> BTreeSet<String> {
        let names = self.documents.keys().filter_map(|name| name.strip_suffix(".json"));
        names.filter(|name| !matches!(*name, "common" | "plan")).map(str::to_owned).collect()
    }

    /// What is wrong with a value by the schema of a command.
    pub(crate) fn errors(&self, command: &str, value: &Value) -> Vec<String> {
        let file = format!("{command}.json");
        let mut errors = Vec::new();
        if value["schema"] != self.documents[&file]["$id"] {
            errors.push(format!(".schema: {} is not the $id of {file}", value["schema"]));
        }
        self.check(&file, &self.documents[&file], value, "", &mut errors);
        errors
    }

    /// Adds what is wrong, and returns the properties that some schema has looked at.
    fn check(
        &self,
        file: &str,
        schema: &Value,
        value: &Value,
        path: &str,
        errors: &mut Vec<String>,
    ) -> BTreeSet<String> {
        let mut seen = BTreeSet::new();
        for (keyword, wanted) in schema.as_object().expect("a schema is an object") {
            match keyword.as_str() {
                "$schema"
                | "$id"
                | "title"
                | "description"
                | "$defs"
                | "properties"
                | "additionalProperties"
                | "unevaluatedProperties" => {}
                "$ref" => {
                    let (file, schema) = self.referred(file, wanted.as_str().unwrap());
                    seen.extend(self.check(&file, schema, value, path, errors));
                }
                "allOf" => {
                    for part in wanted.as_array().unwrap() {
                        seen.extend(self.check(file, part, value, path, errors));
                    }
                }
                "anyOf" => {
                    let parts = wanted.as_array().unwrap();
                    let tried = parts.iter().map(|part| {
                        let mut wrong = Vec::new();
                        let seen = self.check(file, part, value, path, &mut wrong);
                        (wrong, seen)
                    });
                    let tried: Vec<_> = tried.collect();
                    match tried.iter().find(|(wrong, _)| wrong.is_empty()) {
                        Some((_, found)) => seen.extend(found.iter().cloned()),
                        None => errors.extend(tried.into_iter().flat_map(|(wrong, _)| wrong)),
                    }
                }
                _ => errors.extend(plain(keyword, wanted, value).map(|wrong| format!("{path}: {wrong}"))),
            }
            if keyword == "items" {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    self.check(file, wanted, item, &format!("{path}[{index}]"), errors);
                }
            }
        }
        self.check_fields(file, schema, value, path, &mut seen, errors);
        seen
    }

    fn check_fields(
        &self,
        file: &str,
        schema: &Value,
        value: &Value,
        path: &str,
        seen: &mut BTreeSet<String>,
        errors: &mut Vec<String>,
    ) {
        let Some(fields) = value.as_object() else { return };
        let properties = schema.get("properties").and_then(Value::as_object);
        for (name, field) in fields {
            let path = format!("{path}.{name}");
            if let Some(known) = properties.and_then(|properties| properties.get(name)) {
                self.check(file, known, field, &path, errors);
                seen.insert(name.clone());
                continue;
            }
            match schema.get("additionalProperties") {
                None => {}
                Some(Value::Bool(false)) => errors.push(format!("{path}: not in the schema")),
                Some(more) => {
                    self.check(file, more, field, &path, errors);
                    seen.insert(name.clone());
                }
            }
        }
        if schema.get("unevaluatedProperties") == Some(&Value::Bool(false)) {
            let unknown = fields.keys().filter(|name| !seen.contains(*name));
            errors.extend(unknown.map(|name| format!("{path}.{name}: not in the schema")));
        }
    }

    fn referred(&self, file: &str, reference: &str) -> (String, &Value) {
        let (other, pointer) = reference.split_once('#').expect("a reference has a fragment");
        let file = if other.is_empty() { file } else { other };
        let document = self.documents.get(file).unwrap_or_else(|| panic!("no schema {file}"));
        let schema = document.pointer(pointer).unwrap_or_else(|| panic!("nothing at {reference}"));
        (file.to_owned(), schema)
    }
}

/// What one keyword without schemas in it has against a value.
fn plain(keyword: &str, wanted: &Value, value: &Value) -> Option<String> {
    let right = match keyword {
        "type" => match wanted {
            Value::String(one) => is_type(one, value),
            several => several.as_array().unwrap().iter().any(|one| is_type(one.as_str().unwrap(), value)),
        },
        "const" => wanted == value,
        "enum" => wanted.as_array().unwrap().contains(value),
        "minimum" => value.as_f64().is_none_or(|number| number >= wanted.as_f64().unwrap()),
        "required" => {
            let names = wanted.as_array().unwrap().iter().map(|name| name.as_str().unwrap());
            let missing = names.filter(|name| value.is_object() && value.get(name).is_none());
            let missing: Vec<&str> = missing.collect();
            return (!missing.is_empty()).then(|| format!("without {}", missing.join(", ")));
        }
        "items" => true,
        other => panic!("keyword {other} is not known to the test"),
    };
    (!right).then(|| {
        format!("{keyword} {wanted}, but {}", value.to_string().chars().take(80).collect::<String>())
    })
}

fn is_type(name: &str, value: &Value) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("type {other} is not known to the test"),
    }
}
