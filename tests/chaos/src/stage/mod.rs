//! What a scenario plays on: Redis, nodes, and what stands between and in front of them.

pub(crate) mod nginx;
pub(crate) mod node;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod redis;

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use dunlin_load::{Node as Address, Target};

use self::node::{Node, Place};
use self::proxy::Proxy;
use self::redis::{Persistence, Redis};

/// A directory that is gone in the end.
#[derive(Debug)]
pub(crate) struct Scratch {
    path: PathBuf,
    is_kept: bool,
}

impl Scratch {
    /// # Errors
    /// The temporary directory cannot be written.
    pub(crate) fn new(name: &str, is_kept: bool) -> Result<Self> {
        let path = std::env::temp_dir().join(format!("dunlin-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self { path, is_kept })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if !self.is_kept {
            drop(fs::remove_dir_all(&self.path));
        }
    }
}

/// What a stage is made of.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    nodes: usize,
    /// `None`: nothing is shared.
    redis: Option<Persistence>,
    /// TOML in front of the app.
    config: String,
    /// Inline tables.
    histories: Vec<String>,
    /// What is in the inline tables of the app's webhook endpoints.
    endpoints: Vec<String>,
    /// They deliver no webhooks.
    silent: Vec<usize>,
    /// Their way to Redis leads through a proxy of their own.
    proxied: Vec<usize>,
    /// Id, key and secret.
    app: [&'static str; 3],
    ports: &'static [u16],
}

impl Plan {
    /// So many nodes that share a Redis which keeps nothing on disk.
    pub(crate) fn cluster(nodes: usize) -> Self {
        Self {
            nodes,
            redis: Some(Persistence::None),
            config: String::new(),
            histories: Vec::new(),
            endpoints: Vec::new(),
            silent: Vec::new(),
            proxied: Vec::new(),
            app: ["1000", "chaos-key", "chaos-secret"],
            ports: &[],
        }
    }

    /// One node with everything in memory.
    pub(crate) fn memory() -> Self {
        Self {
            redis: None,
            ..Self::cluster(1)
        }
    }

    pub(crate) fn config(mut self, toml: &str) -> Self {
        self.config.push_str(toml);
        self.config.push('\n');
        self
    }

    /// Keeps the history of the channels that `pattern` names; the first pattern that fits counts.
    pub(crate) fn history(mut self, pattern: &str, size: u32, age_s: u32) -> Self {
        self.histories.push(format!(
            "{{ channels = \"{pattern}\", size = {size}, age_s = {age_s} }}"
        ));
        self
    }

    pub(crate) fn persistence(mut self, persistence: Persistence) -> Self {
        self.redis = Some(persistence);
        self
    }

    /// Leaves what a customer is to be told in the outbox, where the scenario reads it.
    pub(crate) fn told(mut self) -> Self {
        self.endpoints = vec!["url = \"https://example.com/\"".to_owned()];
        self.config("[webhooks]\ndeliver = false\n[redis]\noutbox_entries = 100000")
    }

    /// Delivers to these endpoints, from a database below `dir` that the nodes share.
    pub(crate) fn delivered(mut self, endpoints: &[String], dir: &Path) -> Self {
        self.endpoints = endpoints.to_vec();
        let url = format!("sqlite://{}", dir.join("shared.db").display());
        self.config(&format!("[database]\nurl = \"{url}\""))
    }

    /// This node leaves the delivery of webhooks to the others.
    pub(crate) fn silent(mut self, node: usize) -> Self {
        self.silent.push(node);
        self
    }

    /// Puts a proxy between this node and Redis.
    pub(crate) fn proxied(mut self, node: usize) -> Self {
        self.proxied.push(node);
        self
    }

    /// Names the app.
    pub(crate) fn app(mut self, id: &'static str, key: &'static str, secret: &'static str) -> Self {
        self.app = [id, key, secret];
        self
    }

    /// The ports of Redis and then of every node, two each, as far as they are free.
    pub(crate) fn ports(mut self, ports: &'static [u16]) -> Self {
        self.ports = ports;
        self
    }

    /// The file of every node: one app that no limit slows down.
    fn toml(&self) -> String {
        let history = if self.histories.is_empty() {
            String::new()
        } else {
            format!("history = [{}]\n", self.histories.join(", "))
        };
        let tables: Vec<String> = self
            .endpoints
            .iter()
            .map(|lines| format!("{{ {lines} }}"))
            .collect();
        let webhooks = format!("webhooks = [{}]\n", tables.join(", "));
        let [id, key, secret] = self.app;
        format!(
            "{}\n[[apps]]\nid = \"{id}\"\nkey = \"{key}\"\nsecret = \"{secret}\"\n{history}{webhooks}\
             [apps.limits]\nclient_events_per_second = 0\npresence_members = 0\nsubscriptions_per_connection = 0\n",
            self.config,
        )
    }
}

/// Everything of a scenario that is not a client. Dropping it ends it all.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) nodes: Vec<Node>,
    /// Between a node and Redis, for those that were planned so.
    proxies: Vec<(usize, Proxy)>,
    redis: Option<Redis>,
    app: [&'static str; 3],
}

impl Stage {
    /// Starts Redis, then the nodes one after the other, and waits until they are ready.
    ///
    /// # Errors
    /// Something is not installed or does not come up.
    pub(crate) async fn start(binary: &Path, dir: &Path, plan: &Plan) -> Result<Self> {
        let mut ports = free_ports(plan.ports, 1 + 2 * plan.nodes)?.into_iter();
        let mut port = || ports.next().context("a port for everything");
        let redis = match plan.redis {
            Some(persistence) => Some(Redis::start(dir, port()?, persistence).await?),
            None => None,
        };
        let mut stage = Self {
            nodes: Vec::new(),
            proxies: Vec::new(),
            redis,
            app: plan.app,
        };
        let config = plan.toml();
        for number in 0..plan.nodes {
            let mut way = stage.redis.as_ref().map(Redis::address);
            if let Some(address) = way
                && plan.proxied.contains(&number)
            {
                let proxy = Proxy::start(vec![address]).await?;
                way = Some(proxy.address);
                stage.proxies.push((number, proxy));
            }
            let place = Place {
                binary,
                dir,
                name: &format!("node-{}", number + 1),
                port: port()?,
                metrics_port: port()?,
                redis: way,
                delivers: !plan.silent.contains(&number),
            };
            stage.nodes.push(Node::start(place, &config).await?);
        }
        Ok(stage)
    }

    /// # Errors
    /// This stage has none.
    pub(crate) fn redis(&mut self) -> Result<&mut Redis> {
        self.redis.as_mut().context("this stage has no Redis")
    }

    /// The proxy between a node and Redis.
    ///
    /// # Errors
    /// None was planned.
    pub(crate) fn proxy(&self, node: usize) -> Result<&Proxy> {
        let found = self.proxies.iter().find(|(number, _)| *number == node);
        found.map(|(_, proxy)| proxy).context("no proxy was planned")
    }

    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.address).collect()
    }

    /// The app and where it is served.
    pub(crate) fn target(&self) -> Target {
        let nodes = self.nodes.iter().map(|node| Address {
            addr: node.address,
            pid: node.id(),
            metrics: Some(node.metrics),
        });
        let [id, key, secret] = self.app;
        Target {
            nodes: nodes.collect(),
            app_id: id.to_owned(),
            app_key: key.to_owned(),
            app_secret: secret.to_owned(),
            receiver: None,
        }
    }

    /// Lines in the logs of all nodes that no healthy server prints.
    pub(crate) fn panics(&self) -> usize {
        self.nodes.iter().map(Node::panics).sum()
    }
}

/// Ports that nobody listens on. They lie below those that the kernel gives to outgoing connections, so that a node
/// that ends and starts again finds its own one free. Those that are wished for come first.
///
/// # Errors
/// There are not so many.
pub(crate) fn free_ports(wished: &[u16], count: usize) -> Result<Vec<u16>> {
    const FIRST: u32 = 12_000;
    const COUNT: u32 = 20_000;
    // Two of us that start at the same moment begin at different places.
    let start = std::process::id().wrapping_mul(89);
    let others = (0..COUNT).filter_map(|step| u16::try_from(FIRST + start.wrapping_add(step) % COUNT).ok());
    let free: Vec<u16> = wished
        .iter()
        .copied()
        .chain(others)
        .filter(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok())
        .take(count)
        .collect();
    ensure!(free.len() == count, "there are no {count} free ports");
    Ok(free)
}
