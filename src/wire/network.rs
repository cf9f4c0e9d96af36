//! Networks written as `10.0.0.0/8` (RFC 4632, RFC 4291 section 2.3), and which addresses lie in them.
//!
//! Pure. The configuration's proxies and the admin port's filters are both read here, so that they mean the same.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// One network: an address and how many of its leading bits count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Network {
    /// The address with all other bits zero; an IPv4-mapped one is kept as IPv4.
    address: IpAddr,
    prefix_bits: u32,
}

impl Network {
    /// Reads `address/bits`, or a lone address as the network of itself. `None` for anything else, bits set
    /// behind the prefix included, since they are a sign that another prefix was meant.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let written: IpAddr = address.parse().ok()?;
        let width = if written.is_ipv4() { 32 } else { 128 };
        let prefix_bits: u32 = match bits {
            // `parse` alone would take a sign.
            Some(digits) if (1..=3).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()) => {
                digits.parse().ok().filter(|bits| *bits <= width)?
            }
            Some(_) => return None,
            None => width,
        };
        let (address, prefix_bits) = match written.to_canonical() {
            // ::ffff:0:0/96 is where IPv4 begins; a shorter prefix is a network of IPv6.
            IpAddr::V4(mapped) if written.is_ipv6() && prefix_bits >= 96 => {
                (IpAddr::V4(mapped), prefix_bits - 96)
            }
            _ => (written, prefix_bits),
        };
        let network = Self { address, prefix_bits };
        (network.masked(address) == address).then_some(network)
    }

    /// Whether `address` lies inside; an IPv4-mapped IPv6 address is the IPv4 address it stands for.
    #[must_use]
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.address.is_ipv4() && self.masked(address) == self.address
    }

    fn masked(&self, address: IpAddr) -> IpAddr {
        match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - self.prefix_bits.min(32)).unwrap_or(0);
                Ipv4Addr::from(u32::from(v4) & mask).into()
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - self.prefix_bits.min(128)).unwrap_or(0);
                Ipv6Addr::from(u128::from(v6) & mask).into()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lies_in(network: &str, address: &str) -> bool {
        Network::parse(network).expect(network).contains(address.parse().expect(address))
    }

    #[test]
    fn addresses_lie_in_their_networks() {
        for (network, address) in [
            ("10.0.0.0/8", "10.255.0.1"),
            ("10.0.0.0/8", "::ffff:10.0.0.1"),
            ("0.0.0.0/0", "203.0.113.9"),
            ("0.0.0.0/0", "255.255.255.255"),
            ("::/0", "2001:db8::1"),
            ("::1", "::1"),
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1/32", "::ffff:127.0.0.1"),
            ("::ffff:10.0.0.0/104", "10.1.2.3"),
            ("::ffff:0:0/96", "203.0.113.9"),
            ("::ffff:10.1.2.3", "10.1.2.3"),
            ("2001:db8::/32", "2001:db8:ffff::1"),
            ("192.168.1.128/25", "192.168.1.255"),
        ] {
            assert!(lies_in(network, address), "{address} in {network}");
        }
        for (network, address) in [
            ("10.0.0.0/8", "11.0.0.0"),
            ("127.0.0.1", "127.0.0.2"),
            ("0.0.0.0/0", "2001:db8::1"),
            ("::/0", "10.0.0.1"),
            ("::/0", "::ffff:10.0.0.1"),
            ("192.168.1.128/25", "192.168.1.127"),
            ("2001:db8::/32", "2001:db9::"),
            ("2001:db8::/33", "2001:db8:8000::1"),
        ] {
            assert!(!lies_in(network, address), "{address} in {network}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for bad in [
            "",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "10.0.0.0/8/8",
            "10.0.0.0/0x8",
            "10.0.0.0/99999999999",
            "10/8",
            "010.0.0.0/8",
            "::/129",
            "::ffff:1.2.3.4/95",
            "[::1]",
            "fe80::1%eth0",
            "2001:db8::1/32",
            "localhost",
            "*",
            " 10.0.0.0/8",
        ] {
            assert_eq!(Network::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn each_prefix_length_ends_where_it_says() {
        for bits in 0..=32_u32 {
            let all: u32 = 0xC0A8_FFFF;
            let base = if bits == 0 { 0 } else { all & (u32::MAX << (32 - bits)) };
            let network = Network::parse(&format!("{}/{bits}", Ipv4Addr::from(base))).unwrap();
            assert!(network.contains(Ipv4Addr::from(all).into()));
            if bits > 0 {
                let neighbour = base ^ (1 << (32 - bits));
                assert!(!network.contains(Ipv4Addr::from(neighbour).into()), "/{bits}");
            }
        }
    }
}
