//! The client's side of the upgrade (RFC 6455 section 4.1), for workers and the publisher.
//!
//! A thin layer over `wire::upgrade`: it fills in what is the same for every connection of a target.

use fantail::wire::deflate::OFFER;
use fantail::wire::upgrade::ClientRequest;

use crate::target::Target;

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

/// Appends the request for `target`, with an offer to compress if `deflate` is set.
pub(crate) fn write_request(target: &Target, key: [u8; 16], deflate: bool, out: &mut Vec<u8>) {
    let Target { authority: host, path: target, .. } = target;
    let headers: &[(&str, &str)] = if deflate { &[("Sec-WebSocket-Extensions", OFFER)] } else { &[] };
    ClientRequest { host, target, key, origin: None, protocols: &[], headers }.write_into(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ() {
        let keys: std::collections::BTreeSet<_> = (0..1000).map(key).collect();
        assert_eq!(keys.len(), 1000);
    }

    #[test]
    fn the_request_names_host_and_path() {
        let target = Target::parse("ws://127.0.0.1:81/a?b=c").unwrap();
        let mut request = Vec::new();
        write_request(&target, key(1), false, &mut request);
        let request = String::from_utf8(request).unwrap();
        assert!(!request.contains("Extensions"), "{request}");
        assert!(request.starts_with("GET /a?b=c HTTP/1.1\r\nHost: 127.0.0.1:81\r\n"), "{request}");
        assert!(request.ends_with("\r\n\r\n"));
    }
}
