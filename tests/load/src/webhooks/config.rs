//! What the server has to know of the endpoints.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::PATH;
use crate::scenario::{Fair, WebhookLoad, Webhooks};
use crate::target::Target;

/// The app beside the one of the target: id, key and secret.
const OTHER: (&str, &str, &str) = ("1001", "other-key", "other-secret");

impl Webhooks {
    /// TOML to stand behind the entry of the target's app: its endpoint, which our receiver at `receiver` serves, an app
    /// beside it where there is one, and what makes addresses of this machine possible.
    pub fn config(&self, receiver: SocketAddr) -> String {
        let mut text = String::new();
        let own = endpoint(receiver, PATH, self.batch_size);
        match self.load {
            WebhookLoad::Steady(_) | WebhookLoad::Backlog(_) => text += &own,
            WebhookLoad::Fair(shape) => {
                text += &own;
                text += &other_app();
                for (number, hole) in (0..).zip(holes(receiver, shape)) {
                    text += &endpoint(hole, "/hole", self.batch_size);
                    writeln!(text, "channel_prefix = \"{}\"", prefix_of_hole(number))
                        .expect("writing to a String succeeds");
                }
            }
            // The target's app has none, so that it is the one to compare with.
            WebhookLoad::Fanout(_) => text = other_app() + &own,
        }
        text += "\n[webhooks]\nallow_networks = [\"127.0.0.0/8\"]\n";
        if let WebhookLoad::Backlog(_) = self.load {
            // The receiver keeps the first requests waiting until everything is queued, less than a minute.
            text += "timeout_ms = 60000\n";
        }
        text
    }
}

fn endpoint(at: SocketAddr, path: &str, batch_size: u32) -> String {
    format!(
        "\n[[apps.webhooks]]\nformat = \"yalgaar\"\nmessage_url = \"http://{at}{path}\"\nbatch_size = {batch_size}\n"
    )
}

fn other_app() -> String {
    let (id, key, secret) = OTHER;
    let mut text = String::new();
    writeln!(
        text,
        "\n[[apps]]\nid = \"{id}\"\nkey = \"{key}\"\nsecret = \"{secret}\""
    )
    .expect("writing to a String succeeds");
    text
}

/// The same server with the app beside that of `target`.
pub(super) fn other(target: &Target) -> Target {
    let (id, key, secret) = OTHER;
    Target {
        app_id: id.into(),
        app_key: key.into(),
        app_secret: secret.into(),
        ..target.clone()
    }
}

/// How the names of the channels begin that an endpoint is told of, so that each has events of its own.
pub(super) fn prefix_of_hole(number: u32) -> String {
    format!("hole-{number:03}-")
}

/// Addresses at which nobody is ever answered: hosts of their own, as those of different customers are.
pub(super) fn holes(receiver: SocketAddr, shape: Fair) -> impl Iterator<Item = SocketAddr> {
    (0..shape.holes).map(move |number| {
        let [_, _, high, low] = (number + 1).to_be_bytes();
        let host = Ipv4Addr::new(127, 1, high, low);
        SocketAddr::new(IpAddr::V4(host), receiver.port())
    })
}
