//! Feeds `fantail_fuzz::forwarded` with what libFuzzer makes up.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| fantail_fuzz::forwarded::check(data));
