//! Load for a Pusher-compatible server on this machine, and what it costs the server.
//!
//! One thread drives all sockets through epoll and never parses JSON, so that the generator is not the bottleneck;
//! each [`Report`] says how busy it was. Runs are bounded in time and count and end by themselves; addresses off
//! this machine are refused.
//!
//! The figure that matters is the server's CPU time per unit of work, as a multiple of [`floor::measure`] (F1):
//! both stand on the same machine in the same minute, so that noise and speed cancel.
//!
//! Start reading at [`run`]; the scenarios and their budgets are in [`scenario`].

mod aftermath;
mod churn;
mod fanout;
pub mod floor;
pub mod frame;
mod gather;
mod histogram;
mod hostile;
pub mod http;
mod idle;
pub mod ledger;
mod mutation;
pub mod payload;
mod presence;
mod process;
mod publish;
mod publishers;
pub mod readers;
mod report;
pub mod scenario;
mod stalled;
mod target;
mod webhooks;
mod wire;

pub use histogram::Latency;
pub use http::get;
pub use process::machine;
pub use report::{Memory, Report};
pub use scenario::{Budget, CATALOGUE, Database, Effort, Entry, Pace, Scenario};
pub use target::{Node, Target};

use anyhow::Result;

/// Two measurements of the floor that differ by more than this share of it tell of a machine that did other work.
const UNQUIET: f64 = 0.25;

/// Runs one scenario against a server that is already up, with the floor measured before and after.
///
/// It takes the CPU of one core for [`Effort::measure`] and some seconds more.
///
/// # Errors
/// An address that is not loopback, a machine without enough open files, a server that refuses, drops or leaves
/// clients or publishes without an answer. Losses are no errors: they are in the report.
pub fn run(target: &Target, name: &str, scenario: &Scenario, effort: &Effort) -> Result<Report> {
    target.check()?;
    let floor_before = floor::measure(effort.floor_rounds)?;
    let mut wire = wire::Wire::new()?;
    let wire = &mut wire;
    let mut report = match *scenario {
        Scenario::Fanout(shape) => fanout::publications(wire, target, shape, effort),
        Scenario::ClientEvents(shape) => fanout::client_events(wire, target, shape, effort),
        Scenario::Presence(shape) => presence::joins(wire, target, shape, effort),
        Scenario::Publish(shape) => publish::requests(wire, target, shape, effort),
        Scenario::Idle(shape) => idle::hold(wire, target, shape),
        Scenario::Churn(shape) => churn::churn(wire, target, shape),
        Scenario::Stalled(shape) => stalled::stall(wire, target, shape, effort),
        Scenario::Hostile(shape) => hostile::hostile(wire, target, shape, effort),
        Scenario::Webhooks(shape) => webhooks::webhooks(wire, target, shape, effort),
    }?;
    wire.hang_up_all();
    name.clone_into(&mut report.scenario);
    let floor_after = floor::measure(effort.floor_rounds)?;
    report.f1_us = f64::midpoint(floor_before, floor_after);
    if (floor_before - floor_after).abs() > UNQUIET * report.f1_us {
        report.remarks.push(format!(
            "the machine was not quiet: F1 was {floor_before:.1} µs before and {floor_after:.1} µs after, so the \
             multiples are rough"
        ));
    }
    Ok(report)
}
