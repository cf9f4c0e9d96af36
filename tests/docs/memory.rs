//! The memory page shows the structs of a connection as the program has them now.

use std::process::Command;

use super::page;

#[test]
fn the_memory_page_has_every_field_where_it_is() {
    let output = Command::new(env!("CARGO_BIN_EXE_fantail"))
        .args(["sizes", "--layout", "--json"])
        .output()
        .expect("the binary runs");
    let told: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let page = page("memory.md");
    let (_, table) = page.split_once("<!-- table layout:").expect("the table");
    let (table, _) = table.split_once("<!-- end of table -->").expect("its end");
    let mut rows = Vec::new();
    for layout in told["structs"].as_array().expect("structs") {
        let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
        rows.push(format!("| **{}** | | **{}** | ", text(&layout["name"]), layout["bytes"]));
        for field in layout["fields"].as_array().expect("fields") {
            rows.push(format!("| | {} | {} | `{}` |", field["offset"], field["bytes"], text(&field["name"])));
        }
    }
    assert!(rows.len() > 20, "the structs were not understood: {told}");
    let missing: Vec<_> = rows.iter().filter(|row| !table.contains(row.as_str())).collect();
    assert!(missing.is_empty(), "run docs/reproduce.sh --table layout: no {missing:?}");
}
