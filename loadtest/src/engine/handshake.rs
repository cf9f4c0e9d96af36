//! The nonce of the client's side of the upgrade (RFC 6455 section 4.1). `conversation` writes the request.

/// The nonce of one connection. It only has to differ from connection to connection here.
pub(crate) fn key(seed: u64) -> [u8; 16] {
    // Two rounds of splitmix64, so that neighbouring seeds share no bytes.
    let mix = |value: u64| {
        let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    };
    let high = mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15));
    let low = mix(high.wrapping_add(0x9e37_79b9_7f4a_7c15));
    ((u128::from(high) << 64) | u128::from(low)).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ() {
        let keys: std::collections::BTreeSet<_> = (0..1000).map(key).collect();
        assert_eq!(keys.len(), 1000);
    }
}
