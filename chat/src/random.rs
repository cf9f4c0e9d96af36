//! Random bytes as text, and hashes of what must be found again without being kept.

use aws_lc_rs::digest;
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};

/// `N` random bytes. The system gives them or the process can't go on: a session key that can be guessed is worse.
pub(crate) fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).expect("the system gives random bytes");
    bytes
}

/// A name that nobody can guess: 128 bits, hexadecimal.
pub(crate) fn id() -> String {
    HEXLOWER.encode(&bytes::<16>())
}

/// A key that nobody can guess: 256 bits, base64url.
pub(crate) fn key() -> String {
    BASE64URL_NOPAD.encode(&bytes::<32>())
}

/// SHA-256 of a purpose and a key, hexadecimal: neither is had back from it.
pub(crate) fn hash(purpose: &str, key: &str) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(purpose.as_bytes());
    context.update(&[0]);
    context.update(key.as_bytes());
    HEXLOWER.encode(context.finish().as_ref())
}
