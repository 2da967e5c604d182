//! Nothing reaches this machine, whatever is written, whatever a name leads to, and wherever a receiver points.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, Ipv6Addr, TcpListener};
use std::sync::Arc;

use bytes::Bytes;
use reqwest::header::HeaderMap;

use super::receiver::{Receiver, answer};
use super::refused::{REFUSED, own_hosts};
use super::{OUTSIDE, PATIENCE, egress, egress_under, egress_where_names_are, post};
use crate::webhooks::egress::{EndpointUrl, FailureKind, Guard};

const PORTS: usize = 20;

/// Listens on 20 ports, each of 127.0.0.1 and of `::1`.
struct Canary(Vec<(u16, [TcpListener; 2])>);

impl Canary {
    fn new() -> Self {
        let mut all = Vec::new();
        while all.len() < PORTS {
            let v4 = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let port = v4.local_addr().unwrap().port();
            match TcpListener::bind((Ipv6Addr::LOCALHOST, port)) {
                Ok(v6) => all.push((port, [v4, v6])),
                Err(error) => assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}"),
            }
        }
        Self(all)
    }

    fn ports(&self) -> impl Iterator<Item = u16> {
        self.0.iter().map(|(port, _)| *port)
    }

    fn assert_untouched(&self) {
        self.0
            .iter()
            .flat_map(|(_, both)| both)
            .for_each(assert_untouched);
    }
}

/// A connection is in the listener's queue when the other side believes that it is there, so nothing can come later.
fn assert_untouched(listener: &TcpListener) {
    listener.set_nonblocking(true).unwrap();
    let accepted = listener.accept().map_err(|error| error.kind());
    assert_eq!(accepted.unwrap_err(), ErrorKind::WouldBlock, "{listener:?}");
}

#[tokio::test]
async fn no_url_of_the_table_reaches_it() {
    let canary = Canary::new();
    // These rules let names of private networks through, which then are looked up.
    let rules = Guard::new(vec![OUTSIDE.into()], Vec::new(), own_hosts());
    let egress = egress_under(Arc::new(rules), &[&["127.0.0.1"]]);
    for port in canary.ports() {
        for (url, _) in REFUSED {
            let url = url.replace("PORT", &port.to_string());
            // Those that are refused for the platform's ports, which this guard does not have, or for a name.
            if let Ok(url) = EndpointUrl::parse(&url, egress.guard()) {
                let failure = post(&egress, url.as_str()).await.unwrap_err();
                assert_eq!(failure.kind, FailureKind::Refused, "{url}");
            }
        }
    }
    canary.assert_untouched();
}

#[tokio::test]
async fn a_name_that_leads_to_it_is_refused_and_the_address_is_not_told() {
    let canary = Canary::new();
    for addresses in [
        &["127.0.0.1"][..],
        &["::1"],
        &["::ffff:127.0.0.1"],
        &["64:ff9b::7f00:1"],
        &["2002:7f00:1::"],
        &["0.0.0.0"],
        &["::"],
        &["10.0.0.1"],
        &["169.254.169.254"],
        &["fd00:ec2::254"],
        &["127.0.0.2", "127.0.0.1"],
        &["127.0.0.1", "127.0.0.2"],
        &["127.0.0.2", "::1"],
    ] {
        let egress = egress_where_names_are(&[addresses]);
        for port in canary.ports() {
            let failure = post(&egress, &format!("http://hooks.example.com:{port}/"))
                .await
                .unwrap_err();
            assert_eq!(failure.kind, FailureKind::Refused, "{addresses:?}");
            for address in addresses {
                assert!(!failure.note.contains(address), "{failure}");
            }
        }
    }
    canary.assert_untouched();
}

#[tokio::test]
async fn the_systems_own_names_for_it_are_refused() {
    let canary = Canary::new();
    let egress = egress();
    for port in canary.ports() {
        let failure = post(&egress, &format!("http://localhost:{port}/"))
            .await
            .unwrap_err();
        assert_eq!(failure.kind, FailureKind::Refused, "{failure}");
    }
    canary.assert_untouched();
}

#[tokio::test]
async fn a_literal_address_is_judged_again_before_it_is_connected_to() {
    let canary = Canary::new();
    let networks = vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()];
    let laxer = Guard::new(networks, Vec::new(), Vec::new());
    let egress = egress();
    for port in canary.ports() {
        for host in ["127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"] {
            let url = EndpointUrl::parse(&format!("http://{host}:{port}/"), &laxer).unwrap();
            let posted = egress.post(&url, HeaderMap::new(), Bytes::new(), PATIENCE).await;
            assert_eq!(posted.unwrap_err().kind, FailureKind::Refused, "{url}");
        }
    }
    canary.assert_untouched();
}

#[tokio::test]
async fn one_bad_address_among_good_ones_keeps_the_good_ones_from_being_connected_to() {
    let receiver = Receiver::answering(answer("200 OK", "", "")).await;
    let egress = egress_where_names_are(&[&["127.0.0.2", "10.0.0.1"]]);
    let url = format!("http://hooks.example.com:{}/", receiver.address.port());
    assert_eq!(post(&egress, &url).await.unwrap_err().kind, FailureKind::Refused);
    assert_eq!(receiver.accepted(), 0);
}

#[tokio::test]
async fn the_platforms_own_hosts_are_reached_by_no_name_and_no_address() {
    let receiver = Receiver::answering(answer("200 OK", "", "")).await;
    let own = ["sockets.example.com", "127.0.0.2"].map(|text| text.parse().unwrap());
    let rules = |own| Arc::new(Guard::new(vec![OUTSIDE.into()], Vec::new(), own));
    let (egress, laxer) = (
        egress_under(rules(own.into()), &[&["127.0.0.2"]]),
        rules(Vec::new()),
    );
    for host in [
        "sockets.example.com",
        "another.example.com",
        "127.0.0.2",
        "[::ffff:7f00:2]",
    ] {
        let url = format!("http://{host}:{}/", receiver.address.port());
        // As it was before the operator named them.
        let url = EndpointUrl::parse(&url, &laxer).unwrap();
        let posted = egress.post(&url, HeaderMap::new(), Bytes::new(), PATIENCE).await;
        let failure = posted.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Refused, "{host}");
        assert!(failure.note.contains("this platform itself"), "{failure}");
    }
    assert_eq!(receiver.accepted(), 0);
}

#[tokio::test]
async fn a_name_that_leads_elsewhere_at_the_next_lookup_gains_nothing() {
    // Both at one port, so that nothing but the address keeps the second from being reached.
    let (receiver, inside) = loop {
        let receiver = Receiver::answering_once(answer("200 OK", "connection: close\r\n", "")).await;
        match TcpListener::bind((Ipv4Addr::LOCALHOST, receiver.address.port())) {
            Ok(inside) => break (receiver, inside),
            Err(error) => assert_eq!(error.kind(), ErrorKind::AddrInUse, "{error}"),
        }
    };
    let egress = egress_where_names_are(&[&["127.0.0.2"], &["127.0.0.1"]]);
    let url = format!("http://rebinding.example.com:{}/", receiver.address.port());
    assert_eq!(post(&egress, &url).await.unwrap().status, 200);
    assert_eq!(post(&egress, &url).await.unwrap_err().kind, FailureKind::Refused);
    assert_eq!(receiver.accepted(), 1);
    assert_untouched(&inside);
}

#[tokio::test]
async fn a_redirection_is_an_answer_and_is_not_followed() {
    let canary = Canary::new();
    let egress = egress();
    let hosts = ["127.0.0.1", "[::1]", "localhost", "2130706433"];
    for status in [301, 302, 303, 307, 308] {
        for (port, host) in canary.ports().zip(hosts.into_iter().cycle()) {
            let headers =
                format!("location: http://{host}:{port}/\r\nrefresh: 0;url=http://{host}:{port}/\r\n");
            let receiver =
                Receiver::answering(answer(&format!("{status} Elsewhere"), &headers, "moved")).await;
            let received = post(&egress, &receiver.url()).await.unwrap();
            assert_eq!((received.status, received.is_success()), (status, false));
        }
    }
    canary.assert_untouched();
}

#[tokio::test]
async fn a_redirection_is_not_followed_even_where_the_rules_would_let_it_go() {
    let target = Receiver::answering(answer("200 OK", "", "")).await;
    let headers = format!("location: {}\r\n", target.url());
    let receiver = Receiver::answering(answer("307 Elsewhere", &headers, "")).await;
    assert_eq!(post(&egress(), &receiver.url()).await.unwrap().status, 307);
    assert_eq!((receiver.accepted(), target.accepted()), (1, 0));
}
