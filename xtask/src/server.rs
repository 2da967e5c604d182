//! A fresh `dunlin serve` for one suite of foreign clients or one round of a benchmark, and how a suite is told about it.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::{cargo, succeed};

const START_DEADLINE: Duration = Duration::from_secs(20);
/// Lines of the server's log that are shown when something is wrong with it.
const LOG_TAIL: usize = 20;

/// The apps of the configuration file: the prefix of their environment variables, and what the file says.
const APPS: [(&str, &str); 5] = [
    (
        "DUNLIN_TEST",
        "id = \"1001\"\nkey = \"main-key\"\nsecret = \"main-secret\"",
    ),
    (
        "DUNLIN_TEST_OTHER",
        "id = \"1002\"\nkey = \"other-key\"\nsecret = \"other-secret\"",
    ),
    (
        "DUNLIN_TEST_DISABLED",
        "id = \"1003\"\nkey = \"disabled-key\"\nsecret = \"disabled-secret\"\nenabled = false",
    ),
    (
        "DUNLIN_TEST_HISTORY",
        "id = \"1004\"\nkey = \"history-key\"\nsecret = \"history-secret\"\n\
         history = [{ channels = \"tiny-*\", size = 5, age_s = 600 }, { channels = \"*\", size = 1000, age_s = 600 }]",
    ),
    (
        "DUNLIN_TEST_WEBHOOKS",
        "id = \"1005\"\nkey = \"webhooks-key\"\nsecret = \"webhooks-secret\"\n\
         [[apps.webhooks]]\nurl = \"http://127.0.0.1:{receiver}/app-secret\"\n\
         [[apps.webhooks]]\nurl = \"http://127.0.0.1:{receiver}/own-secret\"\n\
         secret = \"{secret}\"\nprevious_secret = \"{previous}\"",
    ),
];

/// The suites are on this machine, and have no time to wait for members who might return.
const WEBHOOKS: &str = "[webhooks]\nallow_networks = [\"127.0.0.1/32\"]\nsettle_ms = 300\n";
/// Of the endpoint that is about to change its secret: the new one and the old one.
const ENDPOINT_SECRET: &str = "whsec_bmV3IHNlY3JldCBvZiB0aGlydHktdHdvIGJ5dGVzICE=";
const ENDPOINT_PREVIOUS_SECRET: &str = "whsec_b2xkIHNlY3JldCBvZiB0aGlydHktdHdvIGJ5dGVzICE=";
/// Below those that systems give to outgoing connections, so that none of them takes a port before its suite listens.
const RECEIVER_PORTS: Range<u16> = 20_000..30_000;

/// The app that a server has in development when none is configured.
const READY_MADE: [(&str, &str); 1] = [(
    "DUNLIN_TEST",
    "id = \"app-id\"\nkey = \"app-key\"\nsecret = \"app-secret\"",
)];

/// A running server; dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    binary: PathBuf,
    config: Option<PathBuf>,
    apps: &'static [(&'static str, &'static str)],
    receiver: Option<u16>,
    port: u16,
    metrics_port: u16,
    log: PathBuf,
}

impl Server {
    /// Starts the binary with the apps above, in a directory of its own below `scratch`, and waits until it is ready.
    ///
    /// # Errors
    /// The directory cannot be written, or the server ends or stays not ready; the text holds the end of its log.
    pub(crate) fn start(binary: &Path, scratch: &Path) -> Result<Self> {
        Self::start_with_apps(binary, scratch, None, receiver_port()?)
    }

    /// The same as one node of the cluster of that Redis. What the apps' endpoints are told goes to the port `receiver`,
    /// which all nodes have to agree on.
    ///
    /// # Errors
    /// As `start`.
    pub(crate) fn start_in_cluster(
        binary: &Path,
        scratch: &Path,
        redis: &str,
        receiver: u16,
    ) -> Result<Self> {
        Self::start_with_apps(binary, scratch, Some(redis), receiver)
    }

    fn start_with_apps(binary: &Path, scratch: &Path, redis: Option<&str>, receiver: u16) -> Result<Self> {
        let mut server = Self::spawn(binary, scratch, Some(&apps(receiver)), redis, &APPS)?;
        server.receiver = Some(receiver);
        Ok(server)
    }

    /// Starts the binary with `config` as its file, in the cluster of that Redis if one is named; no suite is told of
    /// the apps in it.
    ///
    /// # Errors
    /// As `start`.
    pub(crate) fn start_with(
        binary: &Path,
        scratch: &Path,
        config: &str,
        redis: Option<&str>,
    ) -> Result<Self> {
        Self::spawn(binary, scratch, Some(config), redis, &[])
    }

    /// Starts the binary as a newcomer does: no file, no apps, only other ports than the usual ones.
    ///
    /// # Errors
    /// As `start`.
    pub(crate) fn start_bare(binary: &Path, scratch: &Path) -> Result<Self> {
        Self::spawn(binary, scratch, None, None, &READY_MADE)
    }

    fn spawn(
        binary: &Path,
        scratch: &Path,
        config: Option<&str>,
        redis: Option<&str>,
        apps: &'static [(&'static str, &'static str)],
    ) -> Result<Self> {
        fs::create_dir_all(scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
        let config = match config {
            Some(text) => {
                let file = scratch.join("dunlin.toml");
                fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
                Some(file)
            }
            None => None,
        };
        let [port, dashboard, metrics] = free_ports()?;
        let log = scratch.join("server.log");
        let out = File::create(&log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut command = Command::new(binary);
        command
            .arg("serve")
            .current_dir(scratch)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("DUNLIN_HOST", "127.0.0.1")
            .env("DUNLIN_PORT", port.to_string())
            .env("DUNLIN_DASHBOARD_PORT", dashboard.to_string())
            .env("DUNLIN_METRICS_PORT", metrics.to_string())
            .env("DUNLIN_DATA_DIR", scratch.join("data"))
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out);
        if let Some(config) = &config {
            command.env("DUNLIN_CONFIG", config);
        }
        if let Some(url) = redis {
            command.env("DUNLIN_REDIS_URL", url);
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot run {}", binary.display()))?;
        let mut server = Self {
            child,
            binary: binary.to_path_buf(),
            config,
            apps,
            receiver: None,
            port,
            metrics_port: metrics,
            log,
        };
        let end = Instant::now() + START_DEADLINE;
        while !server.is_ready() {
            if let Some(status) = server.child.try_wait()? {
                bail!(
                    "the server ended with {status}; its log ends:\n{}",
                    server.log_tail()
                );
            }
            if Instant::now() > end {
                bail!(
                    "the server was not ready within {START_DEADLINE:?}; its log ends:\n{}",
                    server.log_tail()
                );
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// Where it serves sockets and the HTTP API.
    pub(crate) fn addr(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.port))
    }

    /// Where its metrics are.
    pub(crate) fn metrics_addr(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.metrics_port))
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The variables by which a suite finds the server, its apps and its binary.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let mut variables = vec![
            ("DUNLIN_TEST_HOST".to_owned(), "127.0.0.1".to_owned()),
            ("DUNLIN_TEST_PORT".to_owned(), self.port.to_string()),
            ("DUNLIN_TEST_BINARY".to_owned(), self.binary.display().to_string()),
        ];
        if let Some(config) = &self.config {
            variables.push(("DUNLIN_TEST_CONFIG".to_owned(), config.display().to_string()));
        }
        if let Some(port) = self.receiver {
            variables.extend([
                ("DUNLIN_TEST_RECEIVER_PORT".to_owned(), port.to_string()),
                (
                    "DUNLIN_TEST_RECEIVER_SECRET".to_owned(),
                    ENDPOINT_SECRET.to_owned(),
                ),
                (
                    "DUNLIN_TEST_RECEIVER_PREVIOUS_SECRET".to_owned(),
                    ENDPOINT_PREVIOUS_SECRET.to_owned(),
                ),
            ]);
        }
        for (prefix, app) in self.apps {
            // Endpoints follow, with secrets of their own.
            for line in app.lines().take_while(|line| !line.starts_with('[')) {
                if let Some((name @ ("id" | "key" | "secret"), value)) = line.split_once(" = ") {
                    variables.push((
                        format!("{prefix}_APP_{}", name.to_uppercase()),
                        value.trim_matches('"').to_owned(),
                    ));
                }
            }
        }
        variables
    }

    /// What is wrong with the server after its use: it ended, or its log tells of a panic.
    pub(crate) fn complaint(&mut self) -> Option<String> {
        let ended = self
            .child
            .try_wait()
            .ok()
            .flatten()
            .map(|status| format!("the server ended with {status}"));
        let panicked = self
            .log_text()
            .contains("panicked at")
            .then(|| "the server panicked".to_owned());
        ended
            .or(panicked)
            .map(|what| format!("{what}; its log ends:\n{}", self.log_tail()))
    }

    fn is_ready(&self) -> bool {
        dunlin_load::get(self.addr(), "/ready").is_ok()
    }

    fn log_text(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// The last lines of its log.
    pub(crate) fn log_tail(&self) -> String {
        let text = self.log_text();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_TAIL)..].join("\n")
    }
}

/// Builds the server as it is measured, below `target`, and returns its binary.
///
/// # Errors
/// It does not build.
pub(crate) fn build_release(target: &Path) -> Result<PathBuf> {
    succeed(
        cargo()
            .args(["build", "--release", "--package", "dunlin", "--bin", "dunlin"])
            .arg("--target-dir")
            .arg(target),
    )?;
    Ok(target.join("release/dunlin"))
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The configuration that holds the apps, with endpoints on the port `receiver`.
fn apps(receiver: u16) -> String {
    let apps = APPS.iter().map(|(_, app)| format!("\n[[apps]]\n{app}\n"));
    let apps: String = apps.collect();
    let apps = apps
        .replace("{receiver}", &receiver.to_string())
        .replace("{secret}", ENDPOINT_SECRET)
        .replace("{previous}", ENDPOINT_PREVIOUS_SECRET);
    format!("{WEBHOOKS}{apps}")
}

/// A port that nobody listens on and that stays free for as long as a suite needs to compile.
///
/// # Errors
/// There is none.
pub(crate) fn receiver_port() -> Result<u16> {
    // Runs of this program at the same time begin at different places.
    let width = u32::from(RECEIVER_PORTS.end - RECEIVER_PORTS.start);
    let begin = std::process::id().wrapping_mul(7919) % width;
    (0..width)
        .filter_map(|step| u16::try_from((begin + step) % width).ok())
        .map(|offset| RECEIVER_PORTS.start + offset)
        .find(|&port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        .context("no free port for a receiver")
}

/// Three ports that nobody listens on; held together while they are chosen, so that they differ.
pub(crate) fn free_ports() -> Result<[u16; 3]> {
    let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no free port");
    let held = [bind()?, bind()?, bind()?];
    let [a, b, c] = &held;
    Ok([
        a.local_addr()?.port(),
        b.local_addr()?.port(),
        c.local_addr()?.port(),
    ])
}
