//! Schemas: what they take and refuse, and that no message makes one cost more than its constants say.

use super::schema::{FILE_BYTES_MAX, Misfit, PLACE_BYTES_MAX, Refused, Schema};
use super::strict::{self, DEPTH_MAX};

fn compile(schema: &str) -> Schema {
    Schema::compile(schema.as_bytes()).unwrap_or_else(|problem| panic!("{schema}: {problem}"))
}

fn check(schema: &Schema, message: &str) -> Result<(), Refused> {
    schema.check(&strict::read(message).expect("JSON"))
}

fn nested(levels: usize, inner: &str) -> String {
    format!("{}{inner}{}", "[".repeat(levels), "]".repeat(levels))
}

const ORDER: &str = r##"{
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "required": ["id", "price"],
    "properties": {
        "id": { "type": "string", "pattern": "^[a-z]{1,8}$" },
        "price": { "$ref": "#/$defs/price" },
        "tags": { "type": "array", "items": { "type": "string" }, "uniqueItems": true }
    },
    "additionalProperties": false,
    "$defs": { "price": { "type": "number", "minimum": 0 } }
}"##;

#[test]
fn a_misfit_is_told_with_its_place_and_keyword() {
    let schema = compile(ORDER);
    assert_eq!(check(&schema, r#"{"id":"a","price":1.5,"tags":["x","y"]}"#), Ok(()));
    for (message, pointer, keyword) in [
        ("5", "", "type"),
        (r#"{"id":"a"}"#, "", "required"),
        (r#"{"id":"a","price":-1}"#, "/price", "minimum"),
        (r#"{"id":"a","price":"1"}"#, "/price", "type"),
        (r#"{"id":"AAA","price":1}"#, "/id", "pattern"),
        (r#"{"id":"a","price":1,"tags":["x",5]}"#, "/tags/1", "type"),
        (r#"{"id":"a","price":1,"tags":["x","x"]}"#, "/tags", "uniqueItems"),
        (r#"{"id":"a","price":1,"more":1}"#, "", "additionalProperties"),
    ] {
        let expected = Misfit { pointer: pointer.into(), keyword: keyword.into() };
        assert_eq!(check(&schema, message), Err(Refused::Misfit(Some(expected))), "{message}");
    }
    let long = format!("{{\"type\":\"object\",\"additionalProperties\":{}}}", r#"{"type":"null"}"#);
    let message = format!("{{\"{}\":1}}", "é".repeat(500));
    let Err(Refused::Misfit(Some(misfit))) = check(&compile(&long), &message) else { panic!("it fits") };
    assert!(misfit.pointer.len() <= PLACE_BYTES_MAX && misfit.pointer.starts_with("/éé"), "{misfit:?}");
}

#[test]
fn drafts_are_told_apart_and_formats_are_notes() {
    let list = r#"{"$schema":"http://json-schema.org/draft-07/schema#","items":[{"type":"null"}]}"#;
    assert!(check(&compile(list), "[1]").is_err());
    let closed =
        r#"{"$schema":"http://json-schema.org/draft-04/schema#","minimum":1,"exclusiveMinimum":true}"#;
    assert!(check(&compile(closed), "1").is_err());
    assert_eq!(check(&compile(r#"{"format":"email"}"#), "\"nobody\""), Ok(()));
}

#[test]
fn what_is_no_schema_or_would_lead_elsewhere_is_refused_with_its_place() {
    for (schema, said) in [
        ("{\n  \"type\": \"object\",\n}", "is not JSON: trailing comma at line 3 column 1"),
        ("{\"type\":\"object\",\"type\":\"array\"}", "a name is twice"),
        ("5", "is no JSON Schema: at its top"),
        (r#"{"properties":{"a":{"type":"numbr"}}}"#, "at /properties/a/type: \"numbr\""),
        (r#"{"$schema":"https://example.com/mine"}"#, "https://example.com/mine"),
        (r#"{"$ref":"http://127.0.0.1:1/a.json"}"#, "names a place in the same file"),
        (r#"{"items":{"$ref":"file:///etc/passwd"}}"#, "names a place in the same file"),
        (r#"{"pattern":"(?=a)b"}"#, "at /pattern: "),
        (r#"{"pattern":"(a)\\1"}"#, "no back references"),
        (r#"{"patternProperties":{"^\\p{L}{1,500}{1,500}$":{}}}"#, "is no JSON Schema: at "),
    ] {
        let problem = Schema::compile(schema.as_bytes()).map(|_| ()).unwrap_err();
        assert!(problem.contains(said), "{schema}: {problem}");
        assert!(problem.len() < 600, "{problem}");
    }
    assert_eq!(Schema::compile(&vec![b' '; FILE_BYTES_MAX + 1]).unwrap_err(), "has more than 256 KiB");
    assert_eq!(Schema::compile(b"\xff").unwrap_err(), "is not UTF-8");
}

/// Where each level can be of two kinds, a checker that keeps nothing takes 2^n steps: on 60 levels for years.
#[test]
fn a_schema_that_doubles_with_each_level_ends_and_does_not_tell_where() {
    let twice = r##"{"anyOf":[{"type":"array","items":{"$ref":"#"}},
                              {"type":"array","items":{"$ref":"#"},"minItems":1},{"type":"string"}]}"##;
    let schema = compile(twice);
    let deep = schema.depth_max as usize;
    assert!(deep >= 30, "{deep}");
    assert_eq!(check(&schema, &nested(deep, "\"x\"")), Ok(()));
    assert_eq!(check(&schema, &nested(deep, "1")), Err(Refused::Misfit(None)));
    assert!(matches!(check(&schema, &nested(3, "1")), Err(Refused::Misfit(Some(_)))), "here it is cheap");
    let unevaluated = compile(
        r##"{"properties":{"x":{"$ref":"#"}},"anyOf":[{"properties":{"x":{"$ref":"#"}}},{"maxProperties":9}],
             "unevaluatedProperties":false}"##,
    );
    let deep = "{\"x\":".repeat(20) + "{\"z\":1}" + &"}".repeat(20);
    assert_eq!(check(&unevaluated, &deep), Err(Refused::Misfit(None)));
}

#[test]
fn the_deepest_message_fits_into_the_stack_of_a_loop() {
    let link = |at: usize| format!("\"{at}\":{{\"$ref\":\"#/$defs/{}\"}},", at + 1);
    let chain: String = (0..100).map(link).collect();
    let schemas = [
        r##"{"items":{"$ref":"#"}}"##.to_owned(),
        r##"{"prefixItems":[{"$ref":"#"}],"unevaluatedItems":false}"##.to_owned(),
        r##"{"allOf":[{"if":{"type":"array"},"then":{"not":{"not":{"contains":{"$ref":"#"}}}}}]}"##
            .to_owned(),
        format!("{{\"$ref\":\"#/$defs/0\",\"$defs\":{{{chain}\"100\":{{\"type\":\"null\"}}}}}}"),
    ];
    // As the loops are started.
    let small = std::thread::Builder::new().stack_size(512 * 1024);
    let schemas = schemas.map(|text| (compile(&text), text));
    let work = move || {
        for (schema, text) in schemas {
            let message = nested(schema.depth_max as usize, "\"x\"");
            let _ = check(&schema, &message);
            let deeper = nested(schema.depth_max as usize + 1, "\"x\"");
            if schema.depth_max < DEPTH_MAX {
                assert_eq!(check(&schema, &deeper), Err(Refused::TooDeep(schema.depth_max)), "{text}");
            }
        }
    };
    small.spawn(work).unwrap().join().unwrap();
}

#[test]
fn a_message_of_too_many_values_for_a_large_schema_is_refused_unseen() {
    let kinds: Vec<String> = (0..500).map(|kind| format!("{{\"const\":{kind}}}")).collect();
    let schema = compile(&format!("{{\"items\":{{\"anyOf\":[{}]}}}}", kinds.join(",")));
    let list = |count: usize| format!("[{}1]", "1,".repeat(count));
    assert_eq!(check(&schema, &list(1_000)), Ok(()));
    assert_eq!(check(&schema, &list(30_000)), Err(Refused::TooMuch));
    assert_eq!(check(&compile(ORDER), &list(30_000)).map_err(|refused| refused.to_string()), {
        Err("the message does not fit the topic's schema: type".to_owned())
    });
}

/// Each of these is compared with each number of the list: on 16,000 of them for seconds.
#[test]
fn a_message_of_many_values_for_a_long_list_of_numbers_is_refused_unseen() {
    let numbers: Vec<String> = (0..30_000).map(|number| number.to_string()).collect();
    let schema = compile(&format!("{{\"items\":{{\"enum\":[{}]}}}}", numbers.join(",")));
    let list = |count: usize| format!("[{}1]", "29999e0,".repeat(count));
    assert_eq!(check(&schema, &list(100)), Ok(()));
    assert_eq!(check(&schema, &list(8_000)), Err(Refused::TooMuch));
}

/// `[]`, `[[]]`, `[[],[]]` and so on have one hash in the crate, so that each of them is compared with all others.
#[test]
fn a_list_whose_items_would_be_compared_each_with_each_is_refused_unseen() {
    let unique = compile(r#"{"uniqueItems":true}"#);
    let list = |count: usize| {
        let items: Vec<String> = (1..=count).map(|number| format!("[{number}]")).collect();
        format!("[{}]", items.join(","))
    };
    assert_eq!(check(&unique, &list(1_000)), Ok(()));
    assert_eq!(check(&unique, &list(2_000)), Err(Refused::TooMuch));
    assert_eq!(check(&compile("{}"), &list(2_000)), Ok(()));
    let numbers: Vec<String> = (0..8_000).map(|number| number.to_string()).collect();
    assert_eq!(check(&unique, &format!("[{}]", numbers.join(","))), Ok(()), "these are told apart at once");
}
