//! A redis-server of its own for a benchmark, and what it did meanwhile.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

const START_DEADLINE: Duration = Duration::from_secs(10);

/// A running redis-server that keeps nothing on disk; dropping it kills the process.
#[derive(Debug)]
pub(crate) struct Redis {
    child: Child,
    addr: SocketAddr,
}

impl Redis {
    /// Starts one on a free port and waits until it answers.
    ///
    /// # Errors
    /// It is not installed, or does not answer in time.
    pub(crate) fn start(scratch: &Path) -> Result<Self> {
        let addr = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let log = File::create(scratch.join("redis.log"))?;
        let child = Command::new("redis-server")
            .args([
                "--bind",
                "127.0.0.1",
                "--save",
                "",
                "--appendonly",
                "no",
                "--port",
            ])
            .arg(addr.port().to_string())
            .current_dir(scratch)
            .stdin(Stdio::null())
            .stdout(log)
            .spawn()
            .context("cannot run redis-server; Debian has it in the package of this name")?;
        let redis = Self { child, addr };
        let end = Instant::now() + START_DEADLINE;
        while redis.work().is_err() {
            if Instant::now() > end {
                bail!("redis-server did not answer within {START_DEADLINE:?}");
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(redis)
    }

    /// As the nodes are told of it.
    pub(crate) fn url(&self) -> String {
        format!("redis://{}", self.addr)
    }

    /// What it has done so far.
    ///
    /// # Errors
    /// It does not answer.
    pub(crate) fn work(&self) -> Result<Work> {
        let commands = self.info("commandstats")?;
        let read = |line: &str| {
            let (name, figures) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), figures.split(',').next()?.parse().ok()?))
        };
        let cpu = self.info("cpu")?;
        let seconds = |line: &str| {
            let (name, seconds) = line.split_once(':')?;
            ["used_cpu_sys", "used_cpu_user"]
                .contains(&name)
                .then(|| seconds.trim().parse::<f64>().ok())?
        };
        Ok(Work {
            calls: commands.lines().filter_map(read).collect(),
            cpu_seconds: cpu.lines().filter_map(seconds).sum(),
        })
    }

    fn info(&self, section: &str) -> Result<String> {
        let mut stream = TcpStream::connect_timeout(&self.addr, Duration::from_secs(1))?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(format!("INFO {section}\r\n").as_bytes())?;
        let mut reader = BufReader::new(stream);
        let mut length = String::new();
        reader.read_line(&mut length)?;
        let length: usize = length
            .trim()
            .strip_prefix('$')
            .and_then(|digits| digits.parse().ok())
            .context("an answer that is not a text")?;
        let mut text = vec![0; length];
        reader.read_exact(&mut text)?;
        Ok(String::from_utf8(text)?)
    }
}

/// What a Redis did since it began.
#[derive(Debug)]
pub(crate) struct Work {
    /// How often each command was called, those inside scripts among them.
    calls: BTreeMap<String, u64>,
    cpu_seconds: f64,
}

impl Work {
    /// What it did since `before`, as a sentence.
    pub(crate) fn since(&self, before: &Self) -> String {
        let calls: Vec<String> = self
            .calls
            .iter()
            .map(|(name, calls)| (name, calls - before.calls.get(name).unwrap_or(&0)))
            .filter(|(name, calls)| *calls > 0 && *name != "info")
            .map(|(name, calls)| format!("{name} {calls}"))
            .collect();
        let cpu = self.cpu_seconds - before.cpu_seconds;
        format!(
            "Redis used {cpu:.2} s of CPU, warm-up included, for {}",
            calls.join(", ")
        )
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
