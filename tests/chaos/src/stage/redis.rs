//! A redis-server of our own: paused, killed, brought back with its data or without.

use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use redis::{ConnectionLike as _, FromRedisValue, Value};
use rustix::process::Signal;

use super::process::Process;
use crate::wait::until;

const START_DEADLINE: Duration = Duration::from_secs(10);
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// What outlives a crash of Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Persistence {
    /// Nothing.
    None,
    /// Every write that was answered.
    AppendOnly,
}

/// What Redis finds when it comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    Kept,
    Lost,
}

#[derive(Debug)]
pub(crate) struct Redis {
    process: Option<Process>,
    port: u16,
    dir: PathBuf,
    persistence: Persistence,
}

impl Redis {
    /// Starts a server in `dir` and waits until it answers.
    ///
    /// # Errors
    /// It is not installed, or does not come up.
    pub(crate) async fn start(dir: &Path, port: u16, persistence: Persistence) -> Result<Self> {
        let mut redis = Self {
            process: None,
            port,
            dir: dir.join("redis"),
            persistence,
        };
        redis.spawn().await?;
        Ok(redis)
    }

    async fn spawn(&mut self) -> Result<()> {
        fs::create_dir_all(&self.dir).with_context(|| format!("cannot create {}", self.dir.display()))?;
        let log = self.dir.with_extension("log");
        let append_only = match self.persistence {
            Persistence::None => "no",
            Persistence::AppendOnly => "yes",
        };
        let process = Process::start(Path::new("redis-server"), &log, |command| {
            command
                .args([
                    "--bind",
                    "127.0.0.1",
                    "--port",
                    &self.port.to_string(),
                    "--save",
                    "",
                ])
                .args(["--appendonly", append_only, "--appendfsync", "always"])
                .arg("--dir")
                .arg(&self.dir);
        })
        .context("is redis-server installed?")?;
        self.process = Some(process);
        if until(START_DEADLINE, || self.ask::<String>(&["PING"]).is_ok())
            .await
            .is_none()
        {
            let tail = self.process.as_ref().map(Process::log_tail).unwrap_or_default();
            bail!("redis-server did not answer; its log ends:\n{tail}");
        }
        Ok(())
    }

    pub(crate) fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
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

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        // Dropping it kills it.
        self.process = None;
    }

    /// Starts again after [`Redis::kill`], and waits until it answers.
    ///
    /// # Errors
    /// It does not come up.
    pub(crate) async fn restart(&mut self, data: Data) -> Result<()> {
        if data == Data::Lost {
            fs::remove_dir_all(&self.dir).with_context(|| format!("cannot remove {}", self.dir.display()))?;
        }
        self.spawn().await
    }

    fn running(&self) -> Result<&Process> {
        self.process.as_ref().context("redis-server does not run")
    }

    /// Runs one command on a connection of its own.
    ///
    /// # Errors
    /// It is not there, is busy, or refuses.
    pub(crate) fn ask<T: FromRedisValue>(&self, words: &[&str]) -> Result<T> {
        let client = redis::Client::open(format!("redis://{}/", self.address()))?;
        let mut connection = client.get_connection_with_timeout(ANSWER_DEADLINE)?;
        connection.set_read_timeout(Some(ANSWER_DEADLINE))?;
        let mut command = redis::Cmd::new();
        for word in words {
            command.arg(*word);
        }
        let answer: Value = connection.req_command(&command)?;
        T::from_redis_value(answer).map_err(|error| anyhow::anyhow!("{words:?}: {error}"))
    }

    /// How many channels somebody is subscribed to, sharded ones included.
    ///
    /// # Errors
    /// As [`Redis::ask`].
    pub(crate) fn channels(&self) -> Result<usize> {
        let plain: Vec<String> = self.ask(&["PUBSUB", "CHANNELS"])?;
        let sharded: Vec<String> = self.ask(&["PUBSUB", "SHARDCHANNELS"])?;
        Ok(plain.len() + sharded.len())
    }
}

/// What a customer is to be told, as it stands in the outbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) channel: String,
    pub(crate) event: String,
    /// Of events about a member.
    pub(crate) user: Option<String>,
}

impl Redis {
    /// The names of all keys.
    ///
    /// # Errors
    /// As [`Redis::ask`].
    pub(crate) fn names(&self) -> Result<Vec<String>> {
        self.ask(&["KEYS", "*"])
    }

    /// How often customers are to be told this event about each user of a channel.
    ///
    /// # Errors
    /// As [`Redis::ask`].
    pub(crate) fn told(&self, channel: &str, event: &str) -> Result<BTreeMap<String, u32>> {
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        for entry in self.outbox()? {
            if entry.event == event && entry.channel == channel {
                *counts.entry(entry.user.unwrap_or_default()).or_default() += 1;
            }
        }
        Ok(counts)
    }

    /// Everything in the outboxes of all partitions; in order only within a channel.
    ///
    /// # Errors
    /// As [`Redis::ask`].
    pub(crate) fn outbox(&self) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for name in self.names()?.iter().filter(|name| name.ends_with("}:outbox")) {
            let stream: Vec<(String, Vec<String>)> = self.ask(&["XRANGE", name, "-", "+"])?;
            for (_, fields) in stream {
                let field = |wanted: &str| {
                    let pair = fields.chunks_exact(2).find(|pair| pair[0] == wanted);
                    pair.map(|pair| pair[1].clone())
                };
                entries.push(Entry {
                    channel: field("channel").unwrap_or_default(),
                    event: field("event").unwrap_or_default(),
                    user: field("user"),
                });
            }
        }
        Ok(entries)
    }
}
