//! One `dunlin serve`: its file, its ports, its log; paused, killed, told to stop, started again.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use super::process::Process;
use crate::client::http;
use crate::wait::until_some;

const START_DEADLINE: Duration = Duration::from_secs(20);

/// A node that may or may not run; its addresses stay the same.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    pub(crate) metrics: SocketAddr,
    binary: PathBuf,
    dir: PathBuf,
    redis: Option<SocketAddr>,
    delivers: bool,
    process: Option<Process>,
}

/// Where a node belongs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'a> {
    /// Of the server.
    pub(crate) binary: &'a Path,
    /// What the node writes goes into a folder of its name below this one.
    pub(crate) dir: &'a Path,
    pub(crate) name: &'a str,
    pub(crate) port: u16,
    pub(crate) metrics_port: u16,
    /// Where it finds Redis; without it, it is alone.
    pub(crate) redis: Option<SocketAddr>,
    /// Whether it may deliver webhooks, if there are any.
    pub(crate) delivers: bool,
}

impl Node {
    /// Starts a node with `config` as its file, and waits until it is ready.
    ///
    /// # Errors
    /// It ends or does not become ready; the text holds the end of its log.
    pub(crate) async fn start(place: Place<'_>, config: &str) -> Result<Self> {
        let dir = place.dir.join(place.name);
        fs::create_dir_all(&dir).with_context(|| format!("cannot create {}", dir.display()))?;
        fs::write(dir.join("dunlin.toml"), config)?;
        let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut node = Self {
            name: place.name.to_owned(),
            address: local(place.port),
            metrics: local(place.metrics_port),
            binary: place.binary.to_owned(),
            dir,
            redis: place.redis,
            delivers: place.delivers,
            process: None,
        };
        node.restart().await?;
        Ok(node)
    }

    /// Starts again a node that has ended, and waits until it is ready.
    ///
    /// # Errors
    /// As [`Node::start`].
    pub(crate) async fn restart(&mut self) -> Result<()> {
        let log = self.dir.join("log");
        let process = Process::start(&self.binary, &log, |command| {
            command
                .arg("serve")
                .current_dir(&self.dir)
                .env_clear()
                .env("PATH", std::env::var_os("PATH").unwrap_or_default())
                .env("DUNLIN_CONFIG", self.dir.join("dunlin.toml"))
                .env("DUNLIN_HOST", "127.0.0.1")
                .env("DUNLIN_PORT", self.address.port().to_string())
                .env("DUNLIN_METRICS_PORT", self.metrics.port().to_string())
                .env("DUNLIN_DATA_DIR", self.dir.join("data"));
            if !self.delivers {
                command.env("DUNLIN_WEBHOOKS__DELIVER", "false");
            }
            if let Some(redis) = self.redis {
                command.env("DUNLIN_REDIS_URL", format!("redis://{redis}"));
            }
        })?;
        self.process = Some(process);
        let ready = until_some(START_DEADLINE, async || {
            let ended = self.process.as_mut().and_then(Process::status);
            let is_ready = self.readiness().await == Some(200);
            (ended.is_some() || is_ready).then_some(ended)
        })
        .await;
        match ready {
            Some((_, None)) => Ok(()),
            Some((_, Some(status))) => {
                bail!(
                    "{} ended with {status}; its log ends:\n{}",
                    self.name,
                    self.log_tail()
                )
            }
            None => bail!("{} is not ready; its log ends:\n{}", self.name, self.log_tail()),
        }
    }

    /// The status with which it answers whether it is ready; `None`: no answer.
    pub(crate) async fn readiness(&self) -> Option<u16> {
        http::status(self.address, "/ready").await
    }

    /// How it ended, if it has.
    pub(crate) fn status(&mut self) -> Option<ExitStatus> {
        self.process.as_mut()?.status()
    }

    /// Its process, while it runs.
    pub(crate) fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Stops executing, with every connection open: `SIGSTOP`.
    ///
    /// # Errors
    /// It does not run.
    pub(crate) fn pause(&self) -> Result<()> {
        self.running()?.signal(Signal::STOP)
    }

    /// # Errors
    /// It does not run.
    pub(crate) fn resume(&self) -> Result<()> {
        self.running()?.signal(Signal::CONT)
    }

    /// Asks it to stop: `SIGTERM`.
    ///
    /// # Errors
    /// It does not run.
    pub(crate) fn terminate(&self) -> Result<()> {
        self.running()?.signal(Signal::TERM)
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(process) = &mut self.process {
            process.kill();
        }
    }

    /// Waits for it to end by itself.
    pub(crate) async fn ended_within(&mut self, limit: Duration) -> Option<(Duration, ExitStatus)> {
        self.process.as_mut()?.ended_within(limit).await
    }

    /// Lines of its log that no healthy server prints.
    pub(crate) fn panics(&self) -> usize {
        let log = self.process.as_ref().map(Process::log).unwrap_or_default();
        log.lines().filter(|line| line.contains("panicked at")).count()
    }

    pub(crate) fn log_tail(&self) -> String {
        self.process.as_ref().map(Process::log_tail).unwrap_or_default()
    }

    fn running(&self) -> Result<&Process> {
        self.process
            .as_ref()
            .with_context(|| format!("{} does not run", self.name))
    }
}
