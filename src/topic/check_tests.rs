//! What each check takes and refuses.

use super::check::{Check, check};
use super::schema::Schema;
use super::sync::Arc;
use crate::metrics::InvalidReason;

fn reason(what: Check, binary: bool, payload: &[u8]) -> Option<InvalidReason> {
    let schema = Schema::compile(br#"{"type":"object","required":["id"]}"#).unwrap();
    check(what, &[Arc::new(schema)], binary, payload).err().map(|invalid| invalid.reason)
}

#[test]
fn each_check_takes_what_the_one_before_takes_and_less() {
    use InvalidReason::{NotJson, NotText, Schema};
    for (binary, payload, expected) in [
        (true, &b"{\"id\":1}"[..], [None, Some(NotText), Some(NotText), Some(NotText)]),
        (false, b"\xff", [None, Some(NotText), Some(NotText), Some(NotText)]),
        (false, b"", [None, None, Some(NotJson), Some(NotJson)]),
        (false, b"hello", [None, None, Some(NotJson), Some(NotJson)]),
        (false, b"{\"id\":1,\"id\":2}", [None, None, Some(NotJson), Some(NotJson)]),
        (false, b"5", [None, None, None, Some(Schema)]),
        (false, b"{}", [None, None, None, Some(Schema)]),
        (false, b"{\"id\":1}", [None; 4]),
    ] {
        let checks = [Check::Nothing, Check::Text, Check::Json, Check::Schema(0)];
        assert_eq!(checks.map(|check| reason(check, binary, payload)), expected, "{payload:?}");
    }
}
