//! A cluster to try things with: Redis, nodes, and a balancer in front, until Ctrl-C.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::signal::unix::{SignalKind, signal};

use crate::say;
use crate::stage::nginx::Nginx;
use crate::stage::{Plan, Scratch, Stage, free_ports};
use crate::wait::last;

/// Where people look first; another port is taken when one of these is not free.
const BALANCER_PORT: u16 = 6001;
/// Redis, then a port for sockets and one for metrics of every node.
const PORTS: &[u16] = &[6390, 6011, 9611, 6012, 9612, 6013, 9613, 6014, 9614];
/// Nobody waits for a node of his own to drain.
const DRAIN: &str = "[server]\ndrain_window_ms = 500\nshutdown_timeout_ms = 2000";
const STOPPING: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many nodes.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    nodes: u8,
    /// The server's binary.
    #[arg(long, hide = true)]
    server: PathBuf,
}

/// Runs until it is told to end.
///
/// # Errors
/// Something does not come up.
pub(crate) async fn run(arguments: &Arguments) -> Result<()> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let scratch = Scratch::new("dev", false)?;
    let plan = Plan::cluster(arguments.nodes.into())
        .config(DRAIN)
        .app("app-id", "app-key", "app-secret")
        .history("history-*", 1000, 120)
        .ports(PORTS);
    let mut stage = Stage::start(&arguments.server, scratch.path(), &plan).await?;
    let port = free_ports(&[BALANCER_PORT], 1)?;
    let port = *port.first().context("a port for the balancer")?;
    let nginx = Nginx::start(scratch.path(), port, &stage.addresses()).await?;
    announce(&arguments.server, &scratch, &mut stage, nginx.address)?;

    let mut gone = vec![false; stage.nodes.len()];
    loop {
        tokio::select! {
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            () = last(LOOK) => tell_who_ended(&mut stage, &mut gone),
        }
    }
    say("\nstopping");
    drop(nginx);
    for node in &stage.nodes {
        drop(node.terminate());
    }
    for node in &mut stage.nodes {
        node.ended_within(STOPPING).await;
    }
    Ok(())
}

fn announce(server: &Path, scratch: &Scratch, stage: &mut Stage, balancer: SocketAddr) -> Result<()> {
    let (binary, first) = (server.display(), stage.nodes[0].address.port());
    let last = stage.nodes[stage.nodes.len() - 1].address.port();
    let redis = stage.redis()?.address();
    say(&format!(
        "balancer  http://{balancer}  (demo: http://{balancer}/demo)"
    ));
    for node in &stage.nodes {
        let id = node.id().unwrap_or(0);
        say(&format!(
            "{}    http://{}  metrics http://{}/metrics  process {id}",
            node.name, node.address, node.metrics
        ));
    }
    say(&format!("redis     redis://{redis}"));
    say(&format!("logs      {}", scratch.path().display()));
    say("app       app-id / app-key / app-secret; channels history-* keep 1,000 events for 2 minutes");
    say("\nTry, in two other terminals, what is published on one node and heard on the other:\n");
    say(&format!(
        "  {binary} subscribe --host 127.0.0.1 --port {last} hello"
    ));
    say(&format!(
        "  {binary} trigger --host 127.0.0.1 --port {first} hello greeting '{{\"from\":\"node 1\"}}'"
    ));
    say("\nThen kill or stop (kill -STOP) a process, and see who notices. Ctrl-C ends everything.");
    Ok(())
}

fn tell_who_ended(stage: &mut Stage, gone: &mut [bool]) {
    for (node, gone) in stage.nodes.iter_mut().zip(gone) {
        if !*gone && let Some(status) = node.status() {
            *gone = true;
            say(&format!(
                "{} ended with {status}; its log ends:\n{}",
                node.name,
                node.log_tail()
            ));
        }
    }
}
