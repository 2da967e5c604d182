//! What addresses are for. Whatever is not for everybody is in these tables.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A range of addresses that is not for receivers on the Internet.
#[derive(Debug, PartialEq, Eq)]
pub struct Range {
    network: IpNet,
    name: &'static str,
    source: &'static str,
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {}, {}", self.network, self.name, self.source)
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8, name: &'static str, source: &'static str) -> Range {
    Range {
        network: IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)),
        name,
        source,
    }
}

/// `start`: the first three groups, the rest of which are zero, as in every range but two.
const fn v6(start: [u16; 3], length: u8, name: &'static str, source: &'static str) -> Range {
    let [a, b, c] = start;
    v6_of(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), length, name, source)
}

const fn v6_of(start: Ipv6Addr, length: u8, name: &'static str, source: &'static str) -> Range {
    Range {
        network: IpNet::V6(Ipv6Net::new_assert(start, length)),
        name,
        source,
    }
}

/// IANA's IPv4 special-purpose registry, and multicast. The few ranges that are reachable by everybody are here as well:
/// they are for infrastructure, and no receiver is in them. `192.0.0.0/24` covers its smaller ones, and with them the
/// metadata service at 192.0.0.192.
const V4: &[Range] = &[
    v4(0, 0, 0, 0, 8, "this network", "RFC 791"),
    v4(10, 0, 0, 0, 8, "private use", "RFC 1918"),
    v4(100, 64, 0, 0, 10, "shared by carriers", "RFC 6598"),
    v4(127, 0, 0, 0, 8, "loopback", "RFC 1122"),
    v4(169, 254, 0, 0, 16, "link-local", "RFC 3927"),
    v4(172, 16, 0, 0, 12, "private use", "RFC 1918"),
    v4(192, 0, 0, 0, 24, "protocol assignments", "RFC 6890"),
    v4(192, 0, 2, 0, 24, "documentation", "RFC 5737"),
    v4(192, 31, 196, 0, 24, "AS112", "RFC 7535"),
    v4(192, 52, 193, 0, 24, "AMT", "RFC 7450"),
    v4(192, 88, 99, 0, 24, "6to4 relays", "RFC 7526"),
    v4(192, 168, 0, 0, 16, "private use", "RFC 1918"),
    v4(192, 175, 48, 0, 24, "AS112", "RFC 7534"),
    v4(198, 18, 0, 0, 15, "benchmarks", "RFC 2544"),
    v4(198, 51, 100, 0, 24, "documentation", "RFC 5737"),
    v4(203, 0, 113, 0, 24, "documentation", "RFC 5737"),
    v4(224, 0, 0, 0, 4, "multicast", "RFC 5771"),
    v4(255, 255, 255, 255, 32, "broadcast", "RFC 919"),
    v4(240, 0, 0, 0, 4, "reserved", "RFC 1112"),
];

/// IANA's IPv6 special-purpose registry, what was once in it, and multicast. `2001::/23` covers Teredo, benchmarks,
/// ORCHID, drones and its other smaller ranges.
///
/// 6to4, Teredo, compatible addresses and networks' own NAT64 also have an IPv4 address in them. They are refused
/// whatever it is: the first three are given up, and in the last its place is known to that network only.
const V6: &[Range] = &[
    v6_of(Ipv6Addr::LOCALHOST, 128, "loopback", "RFC 4291"),
    v6([0, 0, 0], 128, "unspecified", "RFC 4291"),
    v6([0, 0, 0], 96, "IPv4-compatible", "RFC 4291"),
    v6([0x64, 0xff9b, 1], 48, "NAT64 of a network", "RFC 8215"),
    v6([0x100, 0, 0], 64, "discard only", "RFC 6666"),
    v6_of(Ipv6Addr::new(0x100, 0, 0, 1, 0, 0, 0, 0), 64, "dummy", "RFC 9780"),
    v6([0x2001, 0, 0], 32, "Teredo", "RFC 4380"),
    v6([0x2001, 0, 0], 23, "protocol assignments", "RFC 2928"),
    v6([0x2001, 0xdb8, 0], 32, "documentation", "RFC 3849"),
    v6([0x2002, 0, 0], 16, "6to4", "RFC 3056"),
    v6([0x2620, 0x4f, 0x8000], 48, "AS112", "RFC 7534"),
    v6([0x3fff, 0, 0], 20, "documentation", "RFC 9637"),
    v6([0x5f00, 0, 0], 16, "segment routing", "RFC 9602"),
    v6([0xfc00, 0, 0], 7, "unique local", "RFC 4193"),
    v6([0xfe80, 0, 0], 10, "link-local", "RFC 4291"),
    v6([0xfec0, 0, 0], 10, "site-local", "RFC 3879"),
    v6([0xff00, 0, 0], 8, "multicast", "RFC 4291"),
];

/// The only part of IPv6 that is given out for use by everybody.
const GLOBAL_V6: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// What lies outside of it and has no entry of its own.
static UNASSIGNED_V6: Range = v6([0, 0, 0], 0, "not assigned", "RFC 4291");

/// What NAT64 makes of IPv4 (RFC 6052). On a network without IPv4 every old receiver is found here.
const NAT64: Ipv6Net = Ipv6Net::new_assert(Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

/// The range that keeps this address from being for everybody; `None`: it is.
pub(super) fn special(address: IpAddr) -> Option<&'static Range> {
    let find = |table: &'static [Range], address| table.iter().find(|range| range.network.contains(&address));
    match reached(address) {
        v4 @ IpAddr::V4(_) => find(V4, v4),
        IpAddr::V6(v6) if GLOBAL_V6.contains(&v6) => find(V6, v6.into()),
        IpAddr::V6(v6) => find(V6, v6.into()).or(Some(&UNASSIGNED_V6)),
    }
}

/// The address that is really connected to: in place of a mapped one by this machine, of NAT64 by the network.
pub(super) fn reached(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) if NAT64.contains(&v6) => {
            let [.., a, b, c, d] = v6.octets();
            Ipv4Addr::new(a, b, c, d).into()
        }
        _ => address.to_canonical(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name_of(address: &str) -> Option<&'static str> {
        special(address.parse().unwrap()).map(|range| range.name)
    }

    #[test]
    fn every_range_is_refused_from_its_first_to_its_last_address() {
        for range in V4.iter().chain(V6) {
            for address in [range.network.network(), range.network.broadcast()] {
                assert!(special(address).is_some(), "{address} of {range}");
            }
        }
    }

    #[test]
    fn neighbours_of_the_ranges_are_for_everybody() {
        for address in [
            "1.0.0.0",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2000::1",
            "2001:200::1",
            "2001:db7:ffff::1",
            "2001:db9::1",
            "2003::1",
            "2606:4700::1111",
            "3ffe:ffff::1",
            "3fff:1000::1",
        ] {
            assert_eq!(name_of(address), None, "{address}");
        }
    }

    #[test]
    fn addresses_have_the_name_of_their_range() {
        for (address, name) in [
            ("0.0.0.0", "this network"),
            ("10.1.2.3", "private use"),
            ("100.64.0.1", "shared by carriers"),
            ("127.0.0.1", "loopback"),
            ("169.254.169.254", "link-local"),
            ("172.31.255.255", "private use"),
            ("192.0.0.192", "protocol assignments"),
            ("192.88.99.1", "6to4 relays"),
            ("198.19.0.1", "benchmarks"),
            ("239.255.255.250", "multicast"),
            ("250.0.0.1", "reserved"),
            ("255.255.255.255", "broadcast"),
            ("::", "unspecified"),
            ("::1", "loopback"),
            ("::8.8.8.8", "IPv4-compatible"),
            ("64:ff9b:1::1", "NAT64 of a network"),
            ("100::1", "discard only"),
            ("100:0:0:1::1", "dummy"),
            ("2001::1", "Teredo"),
            ("2001:2::1", "protocol assignments"),
            ("2001:20::1", "protocol assignments"),
            ("2001:db8::1", "documentation"),
            ("2002:808:808::1", "6to4"),
            ("3fff::1", "documentation"),
            ("5f00::1", "segment routing"),
            ("fd00:ec2::254", "unique local"),
            ("fe80::1", "link-local"),
            ("fec0::1", "site-local"),
            ("ff02::1", "multicast"),
            ("1::1", "not assigned"),
            ("4000::1", "not assigned"),
        ] {
            assert_eq!(name_of(address), Some(name), "{address}");
        }
    }

    #[test]
    fn an_embedded_address_is_judged_in_place_of_its_wrapping() {
        for (address, name) in [
            ("::ffff:127.0.0.1", Some("loopback")),
            ("::ffff:10.0.0.1", Some("private use")),
            ("::ffff:8.8.8.8", None),
            ("64:ff9b::7f00:1", Some("loopback")),
            ("64:ff9b::169.254.169.254", Some("link-local")),
            ("64:ff9b::8.8.8.8", None),
        ] {
            assert_eq!(name_of(address), name, "{address}");
        }
    }
}
