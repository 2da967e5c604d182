//! Faults on purpose: nodes and Redis are paused, killed, cut off and restarted under load, and what Dunlin promises for
//! that is measured. `cargo xtask chaos` builds the server, then this, and runs it.
//!
//! Everything happens in one thread, clients included, so that what they saw needs no locks; only the customer's server for
//! webhooks has one of its own. A scenario sets its
//! stage ([`stage`]), lets its clients ([`client`]) do their work, breaks something, and writes what it found
//! into a [`report::Report`]. Start reading at [`scenarios::CATALOGUE`].

mod client;
mod dev;
mod model;
mod report;
mod scenarios;
mod stage;
mod wait;

use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use dunlin_load::{Node, Target};

use crate::report::Circumstances;
use crate::scenarios::{CATALOGUE, Context, Scenario};
use crate::stage::Scratch;

#[derive(Debug, Parser)]
#[command(
    bin_name = "cargo xtask",
    about = "A cluster on this machine: to try, and to break on purpose."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Break Redis, nodes and the way between them under load, and measure what is promised for that.
    #[command(name = "chaos")]
    Play(Play),
    /// Run Redis, nodes and a balancer until Ctrl-C, for trying it.
    Dev(dev::Arguments),
    /// A part of a scenario, in a process of its own.
    #[command(hide = true)]
    Crowd(Crowd),
}

#[derive(Debug, clap::Args)]
struct Play {
    /// Scenarios, or `all`; none lists them.
    names: Vec<String>,
    /// How long the load of each lasts, instead of the length that belongs to its promise.
    #[arg(long)]
    seconds: Option<u64>,
    /// How many seeds `model` plays …
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// … or the only one.
    #[arg(long)]
    seed: Option<u64>,
    /// Save the report of each as docs/benchmarks/chaos-NAME.md.
    #[arg(long)]
    save: bool,
    /// One node in memory instead of a cluster, for the scenarios whose promise is also that of one node.
    #[arg(long)]
    alone: bool,
    /// Keep the logs of all processes, and say where they are.
    #[arg(long)]
    keep: bool,
    /// The server's binary.
    #[arg(long, hide = true)]
    server: Option<PathBuf>,
}

impl Play {
    /// What plays one scenario in this way.
    fn command(&self, scenario: &Scenario) -> String {
        let seconds = self.seconds.map(|seconds| format!(" --seconds {seconds}"));
        let alone = if self.alone { " --alone" } else { "" };
        format!(
            "cargo xtask chaos {}{}{alone}",
            scenario.name,
            seconds.unwrap_or_default()
        )
    }
}

#[derive(Debug, clap::Args)]
struct Crowd {
    app_id: String,
    app_key: String,
    app_secret: String,
    addresses: Vec<SocketAddr>,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let local = tokio::task::LocalSet::new();
    match command {
        Command::Play(arguments) => local.block_on(&runtime, play(&arguments)),
        Command::Dev(arguments) => local.block_on(&runtime, dev::run(&arguments)),
        Command::Crowd(crowd) => {
            let node = |addr| Node {
                addr,
                pid: None,
                metrics: None,
            };
            let target = Target {
                nodes: crowd.addresses.into_iter().map(node).collect(),
                app_id: crowd.app_id,
                app_key: crowd.app_key,
                app_secret: crowd.app_secret,
                receiver: None,
            };
            local.block_on(&runtime, scenarios::crowd(target, say))
        }
    }
}

async fn play(arguments: &Play) -> Result<()> {
    if arguments.names.is_empty() {
        for scenario in CATALOGUE {
            say(&format!("{:16} {}", scenario.name, scenario.about));
        }
        say("\n`cargo xtask chaos NAME…` plays them, `cargo xtask chaos all --seconds 60` all in short.");
        return Ok(());
    }
    let circumstances = Circumstances::now();
    let mut broken = Vec::new();
    for scenario in select(arguments)? {
        say(&format!("\n== {}: {}", scenario.name, scenario.about));
        let scratch = Scratch::new(&format!("chaos-{}", scenario.name), arguments.keep)?;
        if arguments.keep {
            say(&format!("   logs: {}", scratch.path().display()));
        }
        let context = Context {
            binary: arguments.server.clone().context("--server is needed")?,
            dir: scratch.path().to_owned(),
            seconds: arguments.seconds,
            seeds: arguments.seed.map_or(1..=arguments.seeds, |seed| seed..=seed),
            is_alone: arguments.alone,
        };
        let begin = Instant::now();
        let report = match (scenario.play)(&context).await {
            Ok(report) => report,
            Err(error) => {
                say(&format!("  FAILED {error:#}"));
                broken.push(scenario.name);
                continue;
            }
        };
        say(report.text().trim_end());
        say(&format!("   {:.0} s", begin.elapsed().as_secs_f64()));
        if !report.is_good() {
            broken.push(scenario.name);
        }
        if arguments.save {
            let path = format!("docs/benchmarks/chaos-{}.md", scenario.name);
            let page = report.page(
                scenario.name,
                scenario.about,
                &arguments.command(scenario),
                &circumstances,
            );
            fs::write(&path, page).with_context(|| format!("cannot write {path}"))?;
            say(&format!("   saved {path}"));
        }
    }
    if broken.is_empty() {
        Ok(())
    } else {
        bail!("not as promised: {}", broken.join(", "))
    }
}

fn select(arguments: &Play) -> Result<Vec<&'static Scenario>> {
    let alone = |scenario: &&Scenario| scenario.works_alone || !arguments.alone;
    if arguments.names.iter().any(|name| name == "all") {
        return Ok(CATALOGUE.iter().filter(alone).collect());
    }
    let find = |name: &String| {
        let scenario = CATALOGUE.iter().find(|scenario| scenario.name == name);
        let scenario = scenario
            .with_context(|| format!("there is no scenario `{name}`; `cargo xtask chaos` lists them"))?;
        if !alone(&scenario) {
            bail!("`{name}` needs a cluster");
        }
        Ok(scenario)
    };
    arguments.names.iter().map(find).collect()
}

/// Prints one line (or several). A closed standard output ends nothing: the exit code still tells.
fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    drop(writeln!(out, "{text}").and_then(|()| out.flush()));
}
