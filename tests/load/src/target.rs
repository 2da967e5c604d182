//! The server under load and the app that the load belongs to.

use std::net::SocketAddr;

use anyhow::{Result, bail};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// One process of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Node {
    /// Where it serves sockets and the HTTP API, without TLS.
    pub addr: SocketAddr,
    /// Its process, for the figures of CPU time and memory; without it those are left out.
    pub pid: Option<u32>,
    /// Where its metrics are, for the gauges that are back at zero when all have left; without it nobody looks.
    pub metrics: Option<SocketAddr>,
}

/// A server of one or several nodes and one app of it.
#[derive(Clone, Debug)]
pub struct Target {
    /// Connections are dealt out over the nodes in turn.
    pub nodes: Vec<Node>,
    /// Appears in the path of the HTTP API.
    pub app_id: String,
    /// The public key, which clients connect with.
    pub app_key: String,
    /// Signs publishes and subscriptions.
    pub app_secret: String,
    /// Where the endpoints that the server was told of are served, by us; `None`: it has none.
    pub receiver: Option<SocketAddr>,
}

impl Target {
    /// # Errors
    /// No node, or one that is not on this machine: a load generator that reaches further is a weapon, and its
    /// figures would be those of the network.
    pub fn check(&self) -> Result<()> {
        if self.nodes.is_empty() {
            bail!("no address to put load on");
        }
        let of_nodes = self
            .nodes
            .iter()
            .flat_map(|node| std::iter::once(node.addr).chain(node.metrics));
        for addr in of_nodes.chain(self.receiver) {
            if !addr.ip().to_canonical().is_loopback() {
                bail!("{addr} is not a loopback address: load is generated on this machine only");
            }
        }
        Ok(())
    }

    /// The `auth` member of a subscription (Pusher docs, "Auth signatures"): `key:hex`.
    pub fn channel_auth(&self, socket_id: &str, channel: &str, channel_data: Option<&str>) -> String {
        let mut mac = keyed(&self.app_secret);
        mac.update(format!("{socket_id}:{channel}").as_bytes());
        if let Some(data) = channel_data {
            mac.update(b":");
            mac.update(data.as_bytes());
        }
        format!("{}:{}", self.app_key, hex::encode(mac.finalize().into_bytes()))
    }
}

/// An HMAC that knows its key, to be cloned for each text.
pub(crate) fn keyed(secret: &str) -> Hmac<Sha256> {
    Hmac::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length")
}

#[cfg(test)]
impl Target {
    /// The app of the worked examples in the Pusher docs, on a server that is not there.
    pub(crate) fn of_the_documentation() -> Self {
        Self {
            nodes: vec![Node {
                addr: SocketAddr::from(([127, 0, 0, 1], 1)),
                pid: None,
                metrics: None,
            }],
            app_id: "3".into(),
            app_key: "278d425bdf160c739803".into(),
            app_secret: "7ad3773142a6692b25b8".into(),
            receiver: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(addr: &str) -> Target {
        let mut target = Target::of_the_documentation();
        target.nodes[0].addr = addr.parse().unwrap();
        target
    }

    #[test]
    fn only_this_machine_may_be_loaded() {
        for here in [
            "127.0.0.1:80",
            "127.9.8.7:80",
            "[::1]:80",
            "[::ffff:127.0.0.1]:80",
        ] {
            assert!(target(here).check().is_ok(), "{here}");
        }
        for elsewhere in [
            "10.0.0.1:80",
            "0.0.0.0:80",
            "192.168.1.1:80",
            "[::]:80",
            "8.8.8.8:80",
            "[fe80::1]:80",
        ] {
            assert!(target(elsewhere).check().is_err(), "{elsewhere}");
        }
        assert!(
            Target {
                nodes: Vec::new(),
                ..target("127.0.0.1:1")
            }
            .check()
            .is_err()
        );
    }

    #[test]
    fn subscriptions_are_signed_as_the_documentation_shows() {
        let target = target("127.0.0.1:1");
        assert_eq!(
            target.channel_auth("1234.1234", "private-foobar", None),
            "278d425bdf160c739803:58df8b0c36d6982b82c3ecf6b4662e34fe8c25bba48f5369f135bf843651c3a4"
        );
        assert_eq!(
            target.channel_auth(
                "1234.1234",
                "presence-foobar",
                Some(r#"{"user_id":10,"user_info":{"name":"Mr. Pusher"}}"#)
            ),
            "278d425bdf160c739803:afaed3695da2ffd16931f457e338e6c9f2921fa133ce7dac49f529792be6304c"
        );
    }
}
