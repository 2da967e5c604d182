//! Subscribers in a process of their own, which can be stopped as a whole: to the server they look like a suspended
//! laptop or a hung application, whose kernel still acknowledges until its buffers are full.
//!
//! The process is the running program itself, started again with [`ARGUMENT`].

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};

use crate::gather::{gather, seats};
use crate::idle::Bystander;
use crate::target::{Node, Target};
use crate::wire::{End, Wire};

/// A program that runs scenarios calls [`serve`] when this is its first argument.
pub const ARGUMENT: &str = "dunlin-load-readers";

/// Small enough that the server soon feels that nobody reads.
const RECEIVE_BUFFER: usize = 64 * 1024;
/// How long the readers, reading again, are given to reach the end of what waits for them.
const DRAIN_NS: u64 = 10_000_000_000;
const STEP_NS: u64 = 50_000_000;
/// What the process says when all its readers are subscribed.
const SEATED: &str = "seated";

/// The first line that the process is told; the end of its input asks for the fates.
#[derive(Debug, Serialize, Deserialize)]
struct Order {
    addrs: Vec<SocketAddr>,
    app_key: String,
    channel: String,
    connections: u32,
}

/// What became of the readers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Fates {
    pub(crate) ends: Vec<(End, u32)>,
    /// Still connected.
    pub(crate) open: u32,
}

/// The readers' process as its parent sees it; dropping this kills it, stopped or not.
#[derive(Debug)]
pub(crate) struct Readers {
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Readers {
    /// Starts the process and waits until its readers are subscribed to the public `channel`.
    ///
    /// # Errors
    /// The program cannot be started again or does not know [`ARGUMENT`], or its readers are refused.
    pub(crate) fn start(target: &Target, channel: &str, connections: u32) -> Result<Self> {
        let program = std::env::current_exe().context("this program does not know its own file")?;
        let mut child = Command::new(program)
            .arg(ARGUMENT)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the readers")?;
        let (orders, answers) = child.stdin.take().zip(child.stdout.take()).context("no pipes")?;
        let mut readers = Self {
            child,
            orders: Some(orders),
            answers: BufReader::new(answers),
        };
        let order = Order {
            addrs: target.nodes.iter().map(|node| node.addr).collect(),
            app_key: target.app_key.clone(),
            channel: channel.to_owned(),
            connections,
        };
        if let Some(orders) = &mut readers.orders {
            writeln!(orders, "{}", serde_json::to_string(&order)?)?;
        }
        match readers.answer()?.trim() {
            SEATED => Ok(readers),
            other => bail!("the readers did not take their seats: {other:?}"),
        }
    }

    /// Stops the process as `kill -STOP` does.
    pub(crate) fn stop(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets the process go on.
    pub(crate) fn resume(&self) -> Result<()> {
        self.signal(Signal::CONT)
    }

    /// Waits until every reader has ended or has had its time, and tells how they ended.
    pub(crate) fn fates(mut self) -> Result<Fates> {
        self.orders = None;
        let answer = self.answer()?;
        serde_json::from_str(&answer).with_context(|| format!("the readers said {answer:?}"))
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        kill_process(Pid::from_child(&self.child), signal).context("cannot signal the readers")
    }

    fn answer(&mut self) -> Result<String> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(line)
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The readers' process: takes an order from its input, reads, and tells in the end how its connections ended.
///
/// # Errors
/// Whatever keeps it from that; its parent sees no answer.
pub fn serve() -> Result<()> {
    // A stopped process does not see its parent go, and would hold its connections for good.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let order: Order = serde_json::from_str(&line).context("the readers wait for an order on their input")?;
    let target = Target {
        nodes: order
            .addrs
            .iter()
            .map(|addr| Node {
                addr: *addr,
                pid: None,
                metrics: None,
            })
            .collect(),
        app_id: String::new(),
        app_key: order.app_key,
        app_secret: String::new(),
        receiver: None,
    };
    target.check()?;
    let mut seats = seats(&target, order.connections, |_| order.channel.clone());
    for seat in &mut seats {
        seat.receive_buffer = Some(RECEIVE_BUFFER);
    }
    let mut wire = Wire::new()?;
    gather(&mut wire, &target, &seats)?;
    say(SEATED)?;

    let asked = Arc::new(AtomicBool::new(false));
    let ask = Arc::clone(&asked);
    thread::spawn(move || {
        drop(std::io::stdin().lock().read_to_end(&mut Vec::new()));
        ask.store(true, Ordering::Relaxed);
    });
    let mut scene = Bystander::default();
    while !asked.load(Ordering::Relaxed) {
        scene.watch(&mut wire, STEP_NS)?;
    }
    let until = wire.tick() + DRAIN_NS;
    let ended = |scene: &Bystander| scene.ends.values().sum::<u32>();
    while ended(&scene) < order.connections && wire.now() < until {
        scene.watch(&mut wire, STEP_NS)?;
    }
    let fates = Fates {
        open: order.connections - ended(&scene),
        ends: scene.ends.into_iter().collect(),
    };
    say(&serde_json::to_string(&fates)?)
}

fn say(line: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    Ok(out.flush()?)
}
