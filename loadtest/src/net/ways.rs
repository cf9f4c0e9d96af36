//! `--connect-to`: where connections to a host and port really go, as curl's flag of that name says it. Pure.

use super::target::split_port;

/// What was asked for; nothing goes elsewhere by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Ways(Vec<Way>);

/// One of them; what is not given fits any, or stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Way {
    host: Option<String>,
    port: Option<u16>,
    to_host: Option<String>,
    to_port: Option<u16>,
}

impl Ways {
    /// Reads `HOST:PORT:ADDRESS:PORT` as often as it is given; an IPv6 address stands in brackets.
    pub(crate) fn parse(texts: &[String]) -> Result<Self, String> {
        texts.iter().map(|text| Way::parse(text)).collect::<Result<_, _>>().map(Self)
    }

    /// Hosts and ports that are connected to for this one: all that are said, or itself.
    pub(crate) fn of<'a>(&'a self, host: &'a str, port: u16) -> Vec<(&'a str, u16)> {
        let fitting = self.0.iter().filter(|way| {
            way.host.as_ref().is_none_or(|known| known.eq_ignore_ascii_case(host))
                && way.port.is_none_or(|known| known == port)
        });
        let to = |way: &'a Way| (way.to_host.as_deref().unwrap_or(host), way.to_port.unwrap_or(port));
        let places: Vec<_> = fitting.map(to).collect();
        if places.is_empty() { vec![(host, port)] } else { places }
    }
}

impl Way {
    fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("--connect-to {text}: has to be HOST:PORT:ADDRESS:PORT, of which any may be empty");
        let (host, rest) = host(text).ok_or_else(wrong)?;
        let (port, rest) = rest.split_once(':').ok_or_else(wrong)?;
        let (to_host, to_port) = self::host(rest).ok_or_else(wrong)?;
        let number = |text: &str| match text {
            "" => Ok(None),
            digits => {
                split_port(&format!("x:{digits}")).and_then(|(_, port)| port).map(Some).ok_or_else(wrong)
            }
        };
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Ok(Self {
            host: given(host),
            port: number(port)?,
            to_host: given(to_host),
            to_port: number(to_port)?,
        })
    }
}

/// The host that a text begins with, without brackets, and what stands behind its colon.
fn host(text: &str) -> Option<(&str, &str)> {
    match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest.split_once(']')?;
            Some((host, rest.strip_prefix(':')?))
        }
        None => text.split_once(':'),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ways(texts: &[&str]) -> Result<Ways, String> {
        Ways::parse(&texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn what_fits_goes_where_it_is_said() {
        let some =
            ways(&["chat.example:443:127.0.0.1:9443", "Chat.Example:443:[::1]:", ":81:other:"]).unwrap();
        assert_eq!(some.of("chat.example", 443), [("127.0.0.1", 9443), ("::1", 443)]);
        assert_eq!(some.of("chat.example", 80), [("chat.example", 80)]);
        assert_eq!(some.of("elsewhere", 81), [("other", 81)]);
        assert_eq!(ways(&["::127.0.0.1:1"]).unwrap().of("any", 7), [("127.0.0.1", 1)]);
        assert_eq!(ways(&["[::1]:9::10"]).unwrap().of("::1", 9), [("::1", 10)]);
        assert_eq!(Ways::default().of("a", 1), [("a", 1)]);
    }

    #[test]
    fn what_is_no_way_is_refused() {
        for wrong in ["", "a:1", "a:1:b", "a:x:b:1", "a:1:b:x", "a:1:b:0", "a:1:b:1:2", "[::1:9:a:1"] {
            assert!(ways(&[wrong]).unwrap_err().contains("--connect-to"), "{wrong}");
        }
    }
}
