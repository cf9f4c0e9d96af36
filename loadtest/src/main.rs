//! The `fantail-loadtest` binary.
fn main() {}
