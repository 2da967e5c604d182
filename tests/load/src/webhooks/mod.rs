//! Webhooks: every published message is told to endpoints, and a receiver of ours counts what comes.
//!
//! The receiver is driven by the generator's own thread: what it costs is in nobody's figures but the generator's, and one
//! clock stands at both ends of a lag.

mod backlog;
mod beside;
mod config;
mod fair;
pub(crate) mod receiver;
mod steady;
mod stream;

use anyhow::{Context, Result};

use crate::report::Report;
use crate::scenario::{Effort, WebhookLoad, Webhooks};
use crate::target::Target;
use crate::wire::Wire;

/// Where the receiver's requests go. What goes elsewhere is never answered.
const PATH: &str = "/hook";

pub(crate) fn webhooks(wire: &mut Wire, target: &Target, shape: Webhooks, effort: &Effort) -> Result<Report> {
    let receiver = target
        .receiver
        .context("the server has to be told of an endpoint: it cannot be one that already runs")?;
    wire.listen_at(receiver)?;
    match shape.load {
        WebhookLoad::Steady(pace) => steady::steady(wire, target, pace, effort),
        WebhookLoad::Backlog(shape) => backlog::backlog(wire, target, shape),
        WebhookLoad::Fair(shape) => {
            for hole in config::holes(receiver, shape) {
                wire.listen_at(hole)?;
            }
            fair::fair(wire, target, shape)
        }
        WebhookLoad::Fanout(shape) => beside::beside(wire, target, shape, effort),
    }
}
