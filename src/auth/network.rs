//! Networks written as `10.0.0.0/8`, and which addresses lie in them. Compiled once from the settings; pure.

use std::net::{IpAddr, Ipv4Addr};

use super::PatternError;

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
                std::net::Ipv6Addr::from(u128::from(v6) & mask).into()
            }
        }
    }
}

/// A list of networks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// Compiles the list.
    ///
    /// # Errors
    /// When an entry is not a network.
    pub fn compile(list: &[String]) -> Result<Self, PatternError> {
        let problem = "expects a network such as \"10.0.0.0/8\" or \"2001:db8::/32\", with no bit set behind its \
                       prefix, or an address";
        let network = |text: &String| Network::parse(text).ok_or_else(|| PatternError::new(text, problem));
        list.iter().map(network).collect::<Result<_, _>>().map(Self)
    }

    /// Whether no network is listed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `address` lies in one of them.
    #[must_use]
    pub fn contain(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lies_in(network: &str, address: &str) -> bool {
        Network::parse(network).unwrap().contains(address.parse().unwrap())
    }

    #[test]
    fn addresses_lie_in_their_networks() {
        let inside = [
            ("10.0.0.0/8", "10.255.0.1"),
            ("0.0.0.0/0", "203.0.113.9"),
            ("::/0", "2001:db8::1"),
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1", "::ffff:127.0.0.1"),
            ("::ffff:10.0.0.0/104", "10.1.2.3"),
            ("2001:db8::/32", "2001:db8:ffff::1"),
            ("192.168.1.128/25", "192.168.1.255"),
        ];
        for (network, address) in inside {
            assert!(lies_in(network, address), "{address} in {network}");
        }
        let outside = [
            ("10.0.0.0/8", "11.0.0.0"),
            ("0.0.0.0/0", "2001:db8::1"),
            ("::/0", "10.0.0.1"),
            ("::/0", "::ffff:10.0.0.1"),
            ("192.168.1.128/25", "192.168.1.127"),
            ("2001:db8::/32", "2001:db9::"),
        ];
        for (network, address) in outside {
            assert!(!lies_in(network, address), "{address} in {network}");
        }
    }

    #[test]
    fn what_is_no_network_does_not_compile() {
        for bad in [
            "",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.1/8",
            "10.0.0.0/+8",
            "10.0.0.0/-1",
            "10.0.0.0/8/8",
            "10.0.0.0/0x8",
            "10/8",
            "::/129",
            "2001:db8::1/32",
            "localhost",
            "*",
            "10.0.0.0/99999999999",
            " 10.0.0.0/8",
        ] {
            assert!(Networks::compile(&[bad.to_owned()]).is_err(), "{bad:?}");
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
