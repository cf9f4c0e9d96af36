//! What a test says that can't be done where it runs. Used by the unit tests and the integration tests; owns nothing.

/// Says that a test, or a part of it, is left out for want of `what`. Where `CI_MAY_SKIP` is set, as `.ci/run` sets it,
/// it lists all that this machine is known to lack, and anything else is a failure: it could have been had.
///
/// # Panics
/// It may not be left out.
pub(crate) fn skipped(what: &str) {
    eprintln!("skipped: this machine has no {what}");
    if let Ok(list) = std::env::var("CI_MAY_SKIP") {
        let may = list.split_whitespace().any(|listed| listed == what);
        assert!(may, "nothing may be skipped here for want of {what}, only of: {list:?}");
    }
}
