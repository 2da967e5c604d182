//! The scripts: every change of the shared state is one of them, whole or not at all.

use std::sync::LazyLock;

use redis::{Cmd, RedisError, ServerErrorKind, Value};

use super::lane::Lane;

/// A script and the digest by which Redis knows it.
#[derive(Debug)]
pub struct Script {
    source: String,
    digest: String,
}

/// A node says what it holds.
pub static HOLD: LazyLock<Script> =
    LazyLock::new(|| Script::about_a_channel(include_str!("scripts/hold.lua")));
/// An event for a channel.
pub static PUBLISH: LazyLock<Script> =
    LazyLock::new(|| Script::about_a_channel(include_str!("scripts/publish.lua")));
/// Something that was put off is told.
pub static SETTLE: LazyLock<Script> =
    LazyLock::new(|| Script::about_a_channel(include_str!("scripts/settle.lua")));
/// A channel's history is read.
pub static PAST: LazyLock<Script> =
    LazyLock::new(|| Script::about_a_channel(include_str!("scripts/past.lua")));
/// A node is alive.
pub static LEASE: LazyLock<Script> =
    LazyLock::new(|| Script::about_a_channel(include_str!("scripts/lease.lua")));
/// What was read of an outbox is forgotten.
pub static FORGET: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/forget.lua").to_owned()));
/// One of several requests with the same idempotency key.
pub static ONCE: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/once.lua").to_owned()));
/// Something for all nodes.
pub static TELL_ALL: LazyLock<Script> =
    LazyLock::new(|| Script::new(include_str!("scripts/tell_all.lua").to_owned()));

impl Script {
    fn about_a_channel(source: &str) -> Self {
        Self::new(format!("{}\n{source}", include_str!("scripts/prelude.lua")))
    }

    fn new(source: String) -> Self {
        let digest = redis::Script::new(&source).get_hash().to_owned();
        Self { source, digest }
    }

    /// Makes sure that Redis knows the script, so that its first run is not slower than the others.
    ///
    /// # Errors
    /// As for [`Lane::call`].
    pub async fn load(&self, lane: &Lane) -> Result<(), RedisError> {
        let mut command = redis::cmd("SCRIPT");
        command.arg("LOAD").arg(&self.source);
        lane.call(&command).await.map(|_| ())
    }

    fn command(name: &str, script: &str, keys: &[&str], args: &[&[u8]]) -> Cmd {
        let mut command = redis::cmd(name);
        command.arg(script).arg(keys.len()).arg(keys).arg(args);
        command
    }

    /// Runs the script. A Redis that does not know it (it is new, or was restarted) has not run it, and gets its text.
    ///
    /// # Errors
    /// Redis says no, or says nothing in time: then it may have run or not.
    pub async fn run(&self, lane: &Lane, keys: &[&str], args: &[&[u8]]) -> Result<Value, RedisError> {
        let answer = lane
            .call(&Self::command("EVALSHA", &self.digest, keys, args))
            .await;
        match answer {
            Err(error) if error.kind() == redis::ErrorKind::Server(ServerErrorKind::NoScript) => {
                lane.call(&Self::command("EVAL", &self.source, keys, args)).await
            }
            answer => answer,
        }
    }
}
