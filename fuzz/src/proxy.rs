//! PROXY headers and forwarded addresses: `wire::proxy` and `auth::forwarded`.

use fantail::auth::forwarded::client_of;
use fantail::auth::network::Networks;
use fantail::wire::proxy::{V1_BYTES_MAX, V2_BYTES_MAX, parse_proxy};

/// Parses the bytes as a header at every cut, and as values of `X-Forwarded-For`, a line each.
pub fn check(data: &[u8]) {
    let mut decided = None;
    for cut in 0..=data.len().min(V2_BYTES_MAX + 1) {
        let now = parse_proxy(&data[..cut]);
        if let Some(before) = decided {
            assert_eq!(now, before, "decided before {cut} bytes");
        } else if now != Ok(None) {
            if let Ok(Some(header)) = now {
                assert_eq!(header.len, cut, "taken before or after its last byte");
                assert!(cut <= V1_BYTES_MAX || data.starts_with(b"\r\n"), "a line of {cut} bytes");
            }
            decided = Some(now);
        } else {
            assert!(cut < V2_BYTES_MAX, "undecided at {cut} bytes");
        }
    }

    let trusted = ["10.0.0.0/8".to_owned(), "::1".to_owned()];
    let trusted = Networks::compile(&trusted).unwrap_or_default();
    if let Some(client) = client_of(data.split(|byte| *byte == b'\n'), &trusted) {
        assert!(!trusted.contain(client), "{client} is a proxy");
    }
    let network = String::from_utf8_lossy(data).into_owned();
    if let Ok(networks) = Networks::compile(std::slice::from_ref(&network)) {
        let address = network.split('/').next().and_then(|text| text.parse().ok());
        assert!(
            address.is_some_and(|address| networks.contain(address)),
            "{network} without its own address"
        );
    }
}
