//! A platform as a test sees it: one real node, or several that share a Redis, and their apps.

use crate::node::Node;
use crate::process::Scratch;
use crate::redis::RedisServer;
use crate::request::Answer;
use crate::topology::{Topology, report_exception};
use rustix::process::Signal;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

/// How long a condition may take before a test gives up on it. Generous, because test machines are shared.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);

/// How many apps of each kind the shared server knows; one test takes one or a few of them.
const POOL: usize = 300;

/// A tenant as the configuration file declares it.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) id: String,
    pub(crate) key: String,
    pub(crate) secret: String,
    pub(crate) settings: Vec<String>,
    pub(crate) limits: Vec<String>,
    /// Patterns of the channels that have a history, a default one.
    pub(crate) histories: Vec<String>,
    /// The lines of each endpoint.
    pub(crate) webhooks: Vec<String>,
}

impl App {
    /// An app with default settings but without `subscription_count`, whose events would stand between
    /// the frames that most tests are about.
    pub(crate) fn new(id: usize) -> Self {
        Self::counting(id).with("subscription_count = false")
    }

    /// An app with every setting at its default.
    pub(crate) fn counting(id: usize) -> Self {
        Self {
            id: id.to_string(),
            key: format!("key-of-{id}"),
            secret: format!("secret-of-{id}"),
            settings: Vec::new(),
            limits: Vec::new(),
            histories: Vec::new(),
            webhooks: Vec::new(),
        }
    }

    /// Adds a line to the app's table, such as `tls_only = true`.
    pub(crate) fn with(mut self, line: &str) -> Self {
        self.settings.push(line.to_owned());
        self
    }

    /// Adds a line to the app's limits, such as `connections = 2`.
    pub(crate) fn limit(mut self, line: &str) -> Self {
        self.limits.push(line.to_owned());
        self
    }

    /// Keeps the last 1,000 events of two minutes on these channels: a name, or the beginning of names and `*`.
    pub(crate) fn history(mut self, channels: &str) -> Self {
        self.histories.push(channels.to_owned());
        self
    }

    /// Adds an endpoint, lines such as `url = "http://…"`.
    pub(crate) fn webhook(mut self, lines: &str) -> Self {
        self.webhooks.push(lines.to_owned());
        self
    }

    /// The path that an API call of this app starts with.
    pub(crate) fn path(&self, rest: &str) -> String {
        format!("/apps/{}{rest}", self.id)
    }

    fn to_toml(&self) -> String {
        let Self { id, key, secret, .. } = self;
        let mut text = format!("[[apps]]\nid = \"{id}\"\nkey = \"{key}\"\nsecret = \"{secret}\"\n");
        for line in &self.settings {
            text.push_str(line);
            text.push('\n');
        }
        for channels in &self.histories {
            text.push_str("[[apps.history]]\nchannels = \"");
            text.push_str(channels);
            text.push_str("\"\nsize = 1000\nage_s = 120\n");
        }
        for lines in &self.webhooks {
            text.push_str("[[apps.webhooks]]\n");
            text.push_str(lines);
            text.push('\n');
        }
        if !self.limits.is_empty() {
            text.push_str("[apps.limits]\n");
            for line in &self.limits {
                text.push_str(line);
                text.push('\n');
            }
        }
        text
    }
}

/// What a world is made of; `start` makes it real.
#[derive(Default)]
pub(crate) struct Builder {
    apps: Vec<App>,
    config: String,
    environment: Vec<(String, String)>,
    nodes: Option<usize>,
    node_environments: Vec<(usize, String, String)>,
    redis: Option<String>,
    prefix: Option<String>,
    is_troubled: bool,
}

impl Builder {
    pub(crate) fn app(mut self, app: &App) -> Self {
        self.apps.push(app.clone());
        self
    }

    /// Adds a piece of TOML in front of the apps, such as `[sockets]\nactivity_timeout_s = 1`.
    pub(crate) fn config(mut self, toml: &str) -> Self {
        self.config.push_str(toml);
        self.config.push('\n');
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// So many nodes that share a Redis, whatever the topology of the run.
    pub(crate) fn nodes(mut self, count: usize) -> Self {
        self.nodes = Some(count);
        self
    }

    /// One node even where other worlds have two: what the test is about is a single process. The run says why.
    pub(crate) fn only_one_node(mut self, why: &str) -> Self {
        if Topology::of_this_run() == Topology::Cluster {
            report_exception(why);
            self.nodes = Some(1);
        }
        self
    }

    /// A variable of one node alone, counted from 0.
    pub(crate) fn node_env(mut self, node: usize, name: &str, value: &str) -> Self {
        self.node_environments
            .push((node, name.to_owned(), value.to_owned()));
        self
    }

    /// The Redis that the nodes share, instead of the one that the tests of this process share.
    pub(crate) fn redis(mut self, url: &str) -> Self {
        self.redis = Some(url.to_owned());
        self
    }

    /// What all keys of this world begin with, instead of something that no other world has.
    pub(crate) fn prefix(mut self, prefix: &str) -> Self {
        self.prefix = Some(prefix.to_owned());
        self
    }

    /// The test breaks something on purpose: the nodes may log errors, though they may not panic.
    pub(crate) fn troubled(mut self) -> Self {
        self.is_troubled = true;
        self
    }

    fn toml(&self) -> String {
        let mut text = self.config.clone();
        for app in &self.apps {
            text.push_str(&app.to_toml());
        }
        text
    }

    /// Starts the nodes and waits until all of them say that they are ready.
    pub(crate) fn start(self) -> World {
        // Between choosing a free port and binding it another test may take it: then choose again.
        let mut last_log = String::new();
        for _ in 0..5 {
            match self.try_start() {
                Ok(world) => return world,
                Err(log) => last_log = log,
            }
            if !last_log.contains("cannot listen") {
                break;
            }
        }
        panic!("a node did not become ready; its log:\n{last_log}");
    }

    fn try_start(&self) -> Result<World, String> {
        let count = self.nodes.unwrap_or(match Topology::of_this_run() {
            Topology::OneNode => 1,
            Topology::Cluster => 2,
        });
        let is_cluster =
            self.nodes.is_some() || self.redis.is_some() || Topology::of_this_run() == Topology::Cluster;
        let prefix = self.prefix.clone().unwrap_or_else(unique_prefix);
        let mut environment = self.environment.clone();
        if is_cluster {
            let url = self.redis.clone().unwrap_or_else(|| RedisServer::shared().url());
            environment.push(("DUNLIN_REDIS_URL".to_owned(), url));
            environment.push(("DUNLIN_REDIS__PREFIX".to_owned(), prefix.clone()));
        }
        // Nodes of one platform share what they know of webhooks.
        let shared = Scratch::new();
        if count > 1 {
            let url = format!("sqlite://{}", shared.file("shared.db").display());
            environment.push(("DUNLIN_DATABASE_URL".to_owned(), url));
        }
        let config = self.toml();
        let start = |number: usize| {
            let own = self.node_environments.iter().filter(|(node, ..)| *node == number);
            let own = own.map(|(_, name, value)| (name.clone(), value.clone()));
            Node::start(&config, environment.iter().cloned().chain(own).collect())
        };
        let nodes: Vec<Node> = (0..count).map(start).collect();
        for node in &nodes {
            node.wait_until_ready()?;
        }
        Ok(World {
            address: nodes[nodes.len() - 1].address,
            nodes,
            prefix,
            is_troubled: self.is_troubled,
            seats: Mutex::default(),
            _shared: shared,
        })
    }
}

/// Running nodes. Dropping it kills them and fails the test if a log holds what no healthy node prints.
pub(crate) struct World {
    /// At least one.
    pub(crate) nodes: Vec<Node>,
    /// Where connections go that a test opens by hand: the last node, while signed requests go to the first.
    pub(crate) address: SocketAddr,
    /// What all its keys in Redis begin with.
    pub(crate) prefix: String,
    is_troubled: bool,
    /// How many sockets of each app were opened, so that every test, having an app of its own, begins on the same node.
    seats: Mutex<HashMap<String, usize>>,
    /// What the nodes share on disk.
    _shared: Scratch,
}

impl World {
    pub(crate) fn builder() -> Builder {
        Builder::default()
    }

    /// A world of its own with these apps and nothing else changed.
    pub(crate) fn with_app(app: &App) -> Self {
        Self::builder().app(app).start()
    }

    /// A world of its own with a piece of configuration, and one plain app.
    pub(crate) fn with_config(toml: &str) -> (Self, App) {
        let app = App::new(1);
        (Self::builder().config(toml).app(&app).start(), app)
    }

    /// The first two nodes.
    pub(crate) fn pair(&self) -> (&Node, &Node) {
        (&self.nodes[0], &self.nodes[1])
    }

    /// Where the app's next socket goes: round robin, and not first to the node that answers requests.
    pub(crate) fn seat(&self, app: &App) -> SocketAddr {
        let mut seats = self.seats.lock().expect("no holder of this lock panics");
        let taken = seats.entry(app.key.clone()).or_default();
        *taken += 1;
        self.nodes[*taken % self.nodes.len()].address
    }

    /// Everything the nodes have printed so far.
    pub(crate) fn log(&self) -> String {
        self.nodes.iter().map(Node::log).collect()
    }

    /// Fails when a node has panicked or has logged something that a person should look at, since this was last asked.
    #[track_caller]
    pub(crate) fn assert_calm(&self) {
        if let Some(line) = self.nodes.iter().find_map(Node::new_trouble) {
            panic!("a log holds: {line}");
        }
    }

    /// Sends a signal to every node.
    pub(crate) fn signal(&self, signal: Signal) {
        for node in &self.nodes {
            node.signal(signal);
        }
    }

    /// Waits for all nodes to end by themselves; if one did not end well, that is its status.
    pub(crate) async fn exit_within(&self, limit: Duration) -> Option<ExitStatus> {
        let start = Instant::now();
        let mut worst = None;
        for node in &self.nodes {
            let status = node.exit_within(limit.saturating_sub(start.elapsed())).await?;
            if worst.is_none_or(|worst: ExitStatus| worst.success()) {
                worst = Some(status);
            }
        }
        worst
    }

    /// Resident memory of all nodes in KiB.
    pub(crate) fn resident_kib(&self) -> usize {
        self.nodes.iter().map(Node::resident_kib).sum()
    }

    /// Publishes one event on the first node and insists that it accepts it.
    #[track_caller]
    pub(crate) fn publish(
        &self,
        app: &App,
        channel: &str,
        name: &str,
        data: &str,
    ) -> impl Future<Output = ()> + use<> {
        self.nodes[0].publish(app, channel, name, data)
    }

    /// A signed GET below the app's path, asked of the first node; `query` is a list of names and values.
    pub(crate) async fn get(&self, app: &App, rest: &str, query: &[(&str, &str)]) -> Answer {
        self.nodes[0].get(app, rest, query).await
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for node in &self.nodes {
            node.kill();
        }
        let complaint = if self.is_troubled {
            let panicked = self.nodes.iter().any(Node::has_panicked);
            panicked.then(|| "a panic".to_owned())
        } else {
            self.nodes.iter().find_map(Node::new_trouble)
        };
        if let Some(line) = complaint
            && !std::thread::panicking()
        {
            panic!("a log holds: {line}");
        }
    }
}

fn unique_prefix() -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("it-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The server that tests without special configuration share, and an app that no other test uses.
pub(crate) fn shared() -> (&'static World, App) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(number < POOL, "raise POOL: more tests than shared apps");
    (shared_world(), App::new(1000 + number))
}

/// As `shared`, but the app has `subscription_count` on, which is its default.
pub(crate) fn shared_counting() -> (&'static World, App) {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    assert!(number < POOL, "raise POOL: more tests than shared apps");
    (shared_world(), App::counting(2000 + number))
}

fn shared_world() -> &'static World {
    static SHARED: OnceLock<World> = OnceLock::new();
    SHARED.get_or_init(|| {
        let mut builder = World::builder();
        for number in 0..POOL {
            builder = builder
                .app(&App::new(1000 + number))
                .app(&App::counting(2000 + number));
        }
        builder.start()
    })
}

/// Polls until `probe` yields something, or gives up after `DEADLINE`.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, probe: impl FnMut() -> F) -> T {
    match eventually_within(DEADLINE, probe).await {
        Some(value) => value,
        None => panic!("never happened: {what}"),
    }
}

pub(crate) async fn eventually_within<T, F: Future<Output = Option<T>>>(
    limit: Duration,
    mut probe: impl FnMut() -> F,
) -> Option<T> {
    let start = Instant::now();
    let mut turn = tokio::time::interval(Duration::from_millis(10));
    while start.elapsed() < limit {
        turn.tick().await;
        if let Some(value) = probe().await {
            return Some(value);
        }
    }
    None
}
