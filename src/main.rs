//! The `fantail` binary; everything is in the library.
fn main() {}
