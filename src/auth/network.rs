//! Lists of networks in the settings. Compiled once; pure.

use std::net::IpAddr;

use super::PatternError;
use crate::wire::network::Network;

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

    #[test]
    fn an_address_lies_in_one_of_them_or_in_none() {
        let list = ["10.0.0.0/8", "fd00::/8"].map(str::to_owned);
        let networks = Networks::compile(&list).unwrap();
        assert!(
            networks.contain("10.1.2.3".parse().unwrap()) && networks.contain("fd00::1".parse().unwrap())
        );
        assert!(!networks.contain("192.0.2.1".parse().unwrap()));
        assert!(Networks::default().is_empty() && !networks.is_empty());
    }

    #[test]
    fn a_list_with_a_slip_does_not_compile() {
        let error = Networks::compile(&["10.0.0.0/8".to_owned(), "10.0.0.1/8".to_owned()]).unwrap_err();
        assert_eq!(error.pattern, "10.0.0.1/8");
    }
}
