//! The balancer in front of the nodes: nginx with the configuration that we give to operators.

use std::fmt::Write as _;
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

use super::process::Process;
use crate::client::http;
use crate::wait::until_some;

const START_DEADLINE: Duration = Duration::from_secs(10);

/// What operators get, word for word.
const RULES: &str = include_str!("../../../../deploy/nginx/dunlin.conf");

#[derive(Debug)]
pub(crate) struct Nginx {
    pub(crate) address: SocketAddr,
    process: Process,
}

impl Nginx {
    /// Starts it in `dir`, and waits until a node answers through it.
    ///
    /// # Errors
    /// It is not installed, or does not come up.
    pub(crate) async fn start(dir: &Path, port: u16, nodes: &[SocketAddr]) -> Result<Self> {
        let dir = dir.join("nginx");
        fs::create_dir_all(dir.join("dunlin")).with_context(|| format!("cannot create {}", dir.display()))?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let mut servers = String::new();
        for node in nodes {
            writeln!(servers, "server {node} max_fails=2 fail_timeout=2s;")?;
        }
        for (file, text) in [
            ("nginx.conf", main(&dir)),
            ("dunlin/dunlin.conf", RULES.to_owned()),
            ("dunlin/nodes.conf", servers),
            ("dunlin/listen.conf", format!("listen {address};\n")),
        ] {
            fs::write(dir.join(file), text).with_context(|| format!("cannot write {file}"))?;
        }
        let process = Process::start(Path::new("nginx"), &dir.join("log"), |command| {
            command.args(["-e", "stderr", "-c"]).arg(dir.join("nginx.conf"));
        })
        .context("is nginx installed?")?;
        let mut nginx = Self { address, process };
        let ready = until_some(START_DEADLINE, async || {
            let ended = nginx.process.status().is_some();
            let answers = http::status(address, "/ready").await == Some(200);
            (ended || answers).then_some(answers)
        });
        if ready.await.is_none_or(|(_, answers)| !answers) {
            bail!(
                "nginx did not come up; its log ends:\n{}",
                nginx.process.log_tail()
            );
        }
        Ok(nginx)
    }

    pub(crate) fn log_tail(&self) -> String {
        self.process.log_tail()
    }
}

/// What is around the rules: one process in the foreground that writes nowhere else.
fn main(dir: &Path) -> String {
    let dir = dir.display();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("    {kind}_temp_path {dir}/{kind};\n"))
        .concat();
    format!(
        "daemon off;\nmaster_process off;\npid {dir}/pid;\nerror_log stderr warn;\n\
         events {{\n    worker_connections 16384;\n}}\n\
         http {{\n    access_log off;\n{temporary}    include dunlin/dunlin.conf;\n}}\n"
    )
}
