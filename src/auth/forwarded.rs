//! Who a trusted proxy speaks for: the client's address out of `X-Forwarded-For`. Pure; asked only about
//! connections that come from a trusted network.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use super::network::Networks;

/// Addresses looked at, from the right; more proxies in a row than this are a loop or an attack.
const HOPS_MAX: usize = 32;

/// The right-most address that is not a trusted proxy's: every trusted proxy appends whom it was reached by, so
/// what stands left of that address is what the client claimed. `None` when an element that matters is no
/// address, or all are trusted.
///
/// `fields` are the values of all `X-Forwarded-For` fields in their order, which read as one list (RFC 9110,
/// 5.3).
pub fn client_of<'a>(fields: impl Iterator<Item = &'a [u8]>, trusted: &Networks) -> Option<IpAddr> {
    let fields: Vec<&[u8]> = fields.collect();
    let elements = fields.iter().rev().flat_map(|value| value.rsplit(|byte| *byte == b','));
    for element in elements.take(HOPS_MAX) {
        let address = address_of(element.trim_ascii())?;
        if !trusted.contain(address) {
            return Some(address);
        }
    }
    None
}

/// An address with or without a port: some proxies add it.
fn address_of(element: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(element).ok()?;
    let address = match text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(bare) => IpAddr::V6(bare.parse::<Ipv6Addr>().ok()?),
        None => match text.parse::<IpAddr>() {
            Ok(address) => address,
            Err(_) => text.parse::<SocketAddr>().ok()?.ip(),
        },
    };
    Some(address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(fields: &[&str]) -> Option<String> {
        let trusted = Networks::compile(&["10.0.0.0/8".to_owned(), "fd00::/8".to_owned()]).unwrap();
        client_of(fields.iter().map(|field| field.as_bytes()), &trusted).map(|address| address.to_string())
    }

    #[test]
    fn the_right_most_untrusted_address_counts() {
        for (fields, expected) in [
            (&["203.0.113.7"][..], "203.0.113.7"),
            // What the client claimed about itself stands to the left.
            (&["1.1.1.1, 203.0.113.7"], "203.0.113.7"),
            (&["1.1.1.1, 203.0.113.7, 10.0.0.2,10.9.9.9"], "203.0.113.7"),
            (&["1.1.1.1", "203.0.113.7, 10.0.0.2", "10.0.0.3"], "203.0.113.7"),
            (&["garbage, 203.0.113.7"], "203.0.113.7"),
            (&["203.0.113.7:4711"], "203.0.113.7"),
            (&["[2001:db8::1]:4711"], "2001:db8::1"),
            (&["[2001:db8::1]"], "2001:db8::1"),
            (&["2001:db8::1"], "2001:db8::1"),
            (&["::ffff:203.0.113.7, ::ffff:10.0.0.1, fd00::1"], "203.0.113.7"),
        ] {
            assert_eq!(client(fields).as_deref(), Some(expected), "{fields:?}");
        }
    }

    #[test]
    fn without_an_address_there_is_no_client() {
        let many = vec!["10.0.0.1"; 1_000].join(",");
        for fields in [
            &[][..],
            &[""],
            &["10.0.0.1"],
            &["203.0.113.7, unknown"],
            &["203.0.113.7, "],
            &["203.0.113.7, 10.0.0.1, x, 10.0.0.2"],
            &["1.2.3.4:99999"],
            &["[1.2.3.4]"],
            &[many.as_str()],
        ] {
            assert_eq!(client(fields), None, "{fields:?}");
        }
    }
}
