//! The rules about where connections may go.

use std::net::IpAddr;

use ipnet::IpNet;

use super::address::{self, Range};
use super::host::Hosts;

/// Every port below is a service that speaks something else than HTTP.
const FIRST_FREE_PORT: u16 = 1024;

/// Ends of names that only have a meaning inside a network (RFC 6761, 6762, 7686, 8375, and `internal`).
const PRIVATE_ENDS: [&str; 7] = [
    "home.arpa",
    "internal",
    "invalid",
    "local",
    "localhost",
    "onion",
    "test",
];

/// Which addresses, ports and names may be connected to.
#[derive(Clone, Debug, Default)]
pub struct Guard {
    allow_networks: Vec<IpNet>,
    own_ports: Vec<u16>,
    own_hosts: Vec<Hosts>,
}

/// Why an address may not be connected to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Forbidden {
    /// It is in one that is not for everybody.
    Range(&'static Range),
    /// It is the platform itself.
    OwnHost,
}

impl Guard {
    /// `allow_networks`: let through although not for everybody, for development and tests. When there are any, names of
    /// private networks are let through as well, and judged by their addresses alone.
    ///
    /// `own_ports`: of this platform, its Redis and its database, refused everywhere; 80 and 443 among them have no
    /// effect. `own_hosts`: of this platform, refused on every port, also where they are in `allow_networks`.
    pub fn new(allow_networks: Vec<IpNet>, own_ports: Vec<u16>, own_hosts: Vec<Hosts>) -> Self {
        Self {
            allow_networks,
            own_ports,
            own_hosts,
        }
    }

    pub fn allows_address(&self, address: IpAddr) -> bool {
        self.check_address(address).is_ok()
    }

    /// # Errors
    /// The address may not be connected to.
    pub(super) fn check_address(&self, address: IpAddr) -> Result<(), Forbidden> {
        let reached = address::reached(address);
        if self.own_hosts.iter().any(|hosts| hosts.has_address(reached)) {
            return Err(Forbidden::OwnHost);
        }
        // A mapped address is the same receiver as the one in it.
        let real = address.to_canonical();
        if self.allow_networks.iter().any(|network| network.contains(&real)) {
            return Ok(());
        }
        address::special(address).map_or(Ok(()), |range| Err(Forbidden::Range(range)))
    }

    /// Whether a receiver may be on this port.
    pub fn allows_port(&self, port: u16) -> bool {
        matches!(port, 80 | 443) || (port >= FIRST_FREE_PORT && !self.own_ports.contains(&port))
    }

    /// Whether this is a host of the platform itself. In lower case, without a dot at its end.
    pub fn is_own_name(&self, name: &str) -> bool {
        self.own_hosts.iter().any(|hosts| hosts.has_name(name))
    }

    /// Whether the name, in lower case, has a meaning only inside a network. Its addresses are judged anyway; that it is
    /// refused already when it is written is for the customer, who then need not wait for the first failure.
    pub fn is_private_name(&self, name: &str) -> bool {
        let is_below = |end: &str| name.strip_suffix(end).is_some_and(|above| above.ends_with('.'));
        self.allow_networks.is_empty() && (!name.contains('.') || PRIVATE_ENDS.into_iter().any(is_below))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_networks_of_the_setting_are_let_through() {
        let guard = Guard::new(vec!["127.0.0.2/32".parse().unwrap()], Vec::new(), Vec::new());
        for (address, is_allowed) in [
            ("127.0.0.2", true),
            ("::ffff:127.0.0.2", true),
            ("127.0.0.1", false),
            ("127.0.0.3", false),
            ("64:ff9b::127.0.0.2", false),
            ("2002:7f00:2::", false),
            ("::1", false),
            ("10.0.0.1", false),
            ("8.8.8.8", true),
        ] {
            let allowed = guard.allows_address(address.parse().unwrap());
            assert_eq!(allowed, is_allowed, "{address}");
        }
    }

    #[test]
    fn the_platforms_own_addresses_are_refused_whatever_is_around_them() {
        let own = ["203.0.114.7", "2606:4700::/48", "127.0.0.3"].map(|text| text.parse().unwrap());
        let guard = Guard::new(vec!["127.0.0.0/8".parse().unwrap()], Vec::new(), own.into());
        for (address, is_own) in [
            ("203.0.114.7", true),
            ("::ffff:203.0.114.7", true),
            ("64:ff9b::203.0.114.7", true),
            ("203.0.114.8", false),
            ("2606:4700::1", true),
            ("2606:4700:1::1", false),
            ("127.0.0.3", true),
            ("127.0.0.1", false),
        ] {
            let expected = if is_own { Err(Forbidden::OwnHost) } else { Ok(()) };
            assert_eq!(
                guard.check_address(address.parse().unwrap()),
                expected,
                "{address}"
            );
        }
    }

    #[test]
    fn ports_are_those_of_the_web_and_free_ones_that_are_not_our_own() {
        let guard = Guard::new(Vec::new(), vec![6001, 6379, 443], Vec::new());
        for (port, is_allowed) in [
            (0, false),
            (22, false),
            (25, false),
            (80, true),
            (81, false),
            (443, true),
            (1023, false),
            (1024, true),
            (6001, false),
            (6379, false),
            (8080, true),
            (65535, true),
        ] {
            assert_eq!(guard.allows_port(port), is_allowed, "{port}");
        }
    }

    #[test]
    fn names_of_private_networks_are_for_development() {
        let production = Guard::default();
        let development = Guard::new(vec!["127.0.0.0/8".parse().unwrap()], Vec::new(), Vec::new());
        for (name, is_private) in [
            ("localhost", true),
            ("redis", true),
            ("metadata.google.internal", true),
            ("printer.local", true),
            ("a.localhost", true),
            ("hooks.example.com", false),
            ("notlocal.example.com", false),
            ("internal.example.com", false),
            ("my-internal", true),
            ("thelocalhost.com", false),
        ] {
            assert_eq!(production.is_private_name(name), is_private, "{name}");
            assert!(!development.is_private_name(name), "{name}");
        }
    }
}
