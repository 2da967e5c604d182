//! A master and its replica, watched by three sentinels.

use super::server::{ANSWER_DEADLINE, RedisServer};
use crate::process::{Process, Scratch, free_ports, poll_until};
use std::net::Ipv4Addr;
use std::process::Command;
use std::time::Duration;

/// What the sentinels call the master.
pub(crate) const MASTER: &str = "the-master";
const SENTINELS: usize = 3;

/// Dropping it kills all five processes.
pub(crate) struct Sentinel {
    /// The one that was the master at first, and the one that takes over.
    pub(crate) servers: [RedisServer; 2],
    sentinels: Vec<Watcher>,
}

struct Watcher {
    _process: Process,
    port: u16,
    _scratch: Scratch,
}

impl Sentinel {
    /// Starts it and waits until a failover would succeed: the replica is in step, and every sentinel knows it and the
    /// other sentinels.
    pub(crate) fn start() -> Self {
        let master = RedisServer::options().eager_to_replicate().start();
        let replica = RedisServer::options()
            .eager_to_replicate()
            .replica_of(&master)
            .start();
        let sentinels: Vec<Watcher> = (0..SENTINELS).map(|_| Watcher::start(master.port)).collect();
        let sentinel = Self {
            servers: [master, replica],
            sentinels,
        };
        let ready = poll_until(Duration::from_secs(20), || {
            sentinel.sentinels.iter().all(Watcher::knows_all).then_some(())
        });
        assert!(ready.is_some(), "the sentinels do not find each other");
        sentinel
    }

    pub(crate) fn url(&self) -> String {
        let addresses: Vec<String> = self
            .sentinels
            .iter()
            .map(|sentinel| format!("127.0.0.1:{}", sentinel.port))
            .collect();
        format!("redis-sentinel://{}/{MASTER}", addresses.join(","))
    }

    /// Kills the master and waits until all sentinels name the other server, which then takes writes. What the master
    /// had not yet told the replica is lost, as it would be.
    pub(crate) fn fail_over(&self) {
        let [old, new] = &self.servers;
        old.kill();
        let promoted = poll_until(Duration::from_secs(20), || {
            let is_named = |sentinel: &Watcher| sentinel.master_port() == Some(new.port);
            let role = || new.ask::<String>("INFO replication");
            (self.sentinels.iter().all(is_named) && role().contains("role:master")).then_some(())
        });
        assert!(promoted.is_some(), "the sentinels promote nobody");
    }

    /// The port of the server that the sentinels take for the master.
    pub(crate) fn master_port(&self) -> Option<u16> {
        self.sentinels[0].master_port()
    }
}

impl Watcher {
    fn start(master: u16) -> Self {
        let scratch = Scratch::new();
        let [port] = free_ports();
        // Sentinels write what they learn into their configuration file.
        let config = format!(
            "port {port}\nbind 127.0.0.1\n\
             sentinel monitor {MASTER} 127.0.0.1 {master} 2\n\
             sentinel down-after-milliseconds {MASTER} 500\n\
             sentinel failover-timeout {MASTER} 3000\n"
        );
        std::fs::write(scratch.file("sentinel.conf"), config).expect("the scratch directory can be written");
        let mut command = Command::new("redis-sentinel");
        command.current_dir(scratch.path()).arg("sentinel.conf");
        Self {
            _process: Process::spawn(&mut command, &scratch.file("log")),
            port,
            _scratch: scratch,
        }
    }

    /// Whether the replica and the other two sentinels have been seen, and are alive.
    fn knows_all(&self) -> bool {
        type Table = Vec<std::collections::HashMap<String, String>>;
        let Ok(replicas) = self.ask::<Table>("REPLICAS") else {
            return false;
        };
        let in_step = |replica: &std::collections::HashMap<String, String>| {
            replica
                .get("master-link-status")
                .is_some_and(|status| status == "ok")
        };
        let others = self.ask::<Table>("SENTINELS").unwrap_or_default();
        let is_alive = |other: &std::collections::HashMap<String, String>| {
            other.get("flags").is_some_and(|flags| flags == "sentinel")
        };
        replicas.len() == 1
            && replicas.iter().all(in_step)
            && others.len() == SENTINELS - 1
            && others.iter().all(is_alive)
    }

    fn master_port(&self) -> Option<u16> {
        let (_, port) = self.ask::<(String, u16)>("GET-MASTER-ADDR-BY-NAME").ok()?;
        Some(port)
    }

    fn ask<T: redis::FromRedisValue>(&self, what: &str) -> redis::RedisResult<T> {
        let url = format!("redis://{}:{}", Ipv4Addr::LOCALHOST, self.port);
        let mut connection = redis::Client::open(url)?.get_connection_with_timeout(ANSWER_DEADLINE)?;
        connection.set_read_timeout(Some(ANSWER_DEADLINE))?;
        redis::cmd("SENTINEL")
            .arg(what)
            .arg(MASTER)
            .query(&mut connection)
    }
}
