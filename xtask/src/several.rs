//! Two nodes that share a Redis, behind the balancer that operators are given: for suites of foreign clients, which know of
//! one address and cross nodes without noticing.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use crate::redis::Redis;
use crate::root;
use crate::server::{Server, free_ports, receiver_port};

const START_DEADLINE: Duration = Duration::from_secs(10);

/// Dropping it ends everything.
#[derive(Debug)]
pub(crate) struct Several {
    balancer: Child,
    port: u16,
    servers: [Server; 2],
    _redis: Redis,
}

impl Several {
    /// Starts them in directories below `scratch`, and waits until they answer through the balancer.
    ///
    /// # Errors
    /// A part is missing or does not come up.
    pub(crate) fn start(binary: &Path, scratch: &Path) -> Result<Self> {
        fs::create_dir_all(scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
        let redis = Redis::start(scratch)?;
        let url = redis.url();
        let receiver = receiver_port()?;
        let node = |name| Server::start_in_cluster(binary, &scratch.join(name), &url, receiver);
        let servers = [node("node-1")?, node("node-2")?];
        let [port, ..] = free_ports()?;
        let addresses = [servers[0].addr(), servers[1].addr()];
        let balancer = balancer(&scratch.join("balancer"), port, addresses)?;
        let several = Self {
            balancer,
            port,
            servers,
            _redis: redis,
        };
        let end = Instant::now() + START_DEADLINE;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        while dunlin_load::get(address, "/ready").is_err() {
            if Instant::now() > end {
                bail!("the balancer did not come up within {START_DEADLINE:?}");
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(several)
    }

    /// As [`Server::environment`]; the address is the balancer's.
    pub(crate) fn environment(&self) -> Vec<(String, String)> {
        let mut variables = self.servers[0].environment();
        for (name, value) in &mut variables {
            if name == "DUNLIN_TEST_PORT" {
                *value = self.port.to_string();
            }
        }
        variables
    }

    /// As [`Server::complaint`], of either node.
    pub(crate) fn complaint(&mut self) -> Option<String> {
        self.servers.iter_mut().find_map(Server::complaint)
    }
}

impl Drop for Several {
    fn drop(&mut self) {
        drop(self.balancer.kill());
        drop(self.balancer.wait());
    }
}

/// nginx with the rules from `deploy/nginx`, one process in the foreground that writes nowhere but below `folder`.
fn balancer(folder: &Path, port: u16, nodes: [SocketAddr; 2]) -> Result<Child> {
    let rules = folder.join("dunlin");
    fs::create_dir_all(&rules).with_context(|| format!("cannot create {}", rules.display()))?;
    fs::copy(root().join("deploy/nginx/dunlin.conf"), rules.join("dunlin.conf"))?;
    let [one, two] = nodes;
    fs::write(
        rules.join("nodes.conf"),
        format!("server {one};\nserver {two};\n"),
    )?;
    fs::write(rules.join("listen.conf"), format!("listen 127.0.0.1:{port};\n"))?;
    let own = folder.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {own}/{kind};\n"))
        .concat();
    let main = folder.join("nginx.conf");
    let text = format!(
        "daemon off;\nmaster_process off;\npid {own}/pid;\nevents {{}}\n\
         http {{\naccess_log off;\n{temporary}include dunlin/dunlin.conf;\n}}\n"
    );
    fs::write(&main, text)?;
    Command::new("nginx")
        .args(["-e", "stderr", "-c"])
        .arg(&main)
        .stdin(Stdio::null())
        .stderr(File::create(folder.join("log"))?)
        .spawn()
        .context("cannot run nginx; Debian has it in the package nginx-light")
}
