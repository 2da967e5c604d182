//! Hosts that an operator names.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

use super::url::check_name;

/// One host or many: a name, every name below one, or addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// In lower case.
    Name(String),
    /// Every name that ends with it, in lower case and with a dot at its beginning.
    Below(String),
    Addresses(IpNet),
}

/// Neither a name nor an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write a name, *. and a name for all below it, an address, or a network as 203.0.113.0/24")]
pub struct NoHosts;

impl FromStr for Hosts {
    type Err = NoHosts;

    fn from_str(text: &str) -> Result<Self, NoHosts> {
        let address = text
            .parse::<IpAddr>()
            .map(|address| address.to_canonical().into());
        if let Ok(network) = address.or_else(|_| text.parse()) {
            return Ok(Self::Addresses(network));
        }
        let name = |name: &str| match check_name(name) {
            Ok(()) if !is_number(name) => Ok(name.to_ascii_lowercase()),
            Ok(()) | Err(_) => Err(NoHosts),
        };
        match text.strip_prefix("*.") {
            Some(parent) => Ok(Self::Below(format!(".{}", name(parent)?))),
            None => Ok(Self::Name(name(text)?)),
        }
    }
}

/// Whether URLs take it for an address in an unusual notation.
fn is_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    last.bytes().all(|byte| byte.is_ascii_digit()) || last.starts_with("0x") || last.starts_with("0X")
}

impl From<IpAddr> for Hosts {
    fn from(address: IpAddr) -> Self {
        Self::Addresses(address.into())
    }
}

impl Hosts {
    /// `name`: in lower case, without a dot at its end.
    pub(super) fn has_name(&self, name: &str) -> bool {
        match self {
            Self::Name(own) => own == name,
            Self::Below(end) => name.ends_with(end.as_str()),
            Self::Addresses(_) => false,
        }
    }

    pub(super) fn has_address(&self, address: IpAddr) -> bool {
        matches!(self, Self::Addresses(network) if network.contains(&address))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_all_below_one_or_addresses() {
        for (text, name, is_meant) in [
            ("ws.example.com", "ws.example.com", true),
            ("WS.Example.com", "ws.example.com", true),
            ("ws.example.com", "a.ws.example.com", false),
            ("ws.example.com", "aws.example.com", false),
            ("*.example.com", "a.b.example.com", true),
            ("*.example.com", "example.com", false),
            ("*.example.com", "an-example.com", false),
        ] {
            let hosts: Hosts = text.parse().unwrap();
            assert_eq!(hosts.has_name(name), is_meant, "{text} {name}");
        }
        for (text, address, is_meant) in [
            ("1.2.3.4", "1.2.3.4", true),
            ("1.2.3.4", "1.2.3.5", false),
            ("1.2.3.0/24", "1.2.3.5", true),
            ("2606:4700::/32", "2606:4700::1", true),
            ("2606:4700::1", "1.2.3.4", false),
            ("::ffff:1.2.3.4", "1.2.3.4", true),
        ] {
            let hosts: Hosts = text.parse().unwrap();
            assert_eq!(
                hosts.has_address(address.parse().unwrap()),
                is_meant,
                "{text} {address}"
            );
        }
        for text in [
            "",
            "*",
            "*.",
            "a.*",
            "https://a.example",
            "a.example:443",
            "[::1]",
            "a b",
            "a.example.",
            "127.1",
            "0x7f000001",
        ] {
            assert_eq!(text.parse::<Hosts>(), Err(NoHosts), "{text}");
        }
    }
}
