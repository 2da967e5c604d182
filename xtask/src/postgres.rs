//! A PostgreSQL of its own for a benchmark, and the CPU time that it used.

use std::fs;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

const START_DEADLINE: Duration = Duration::from_secs(30);

/// Makes a server in a new directory and becomes it. With its own defaults: it waits for the disk at each commit.
const START: &str = r#"
    "$1/initdb" --pgdata "$2/data" --username dunlin --auth trust --encoding UTF8 --no-locale >/dev/null &&
    exec "$1/postgres" -D "$2/data" -p "$3" -c listen_addresses=127.0.0.1 -c unix_socket_directories=
"#;

/// A running PostgreSQL; dropping it kills the process and removes what it stored.
#[derive(Debug)]
pub(crate) struct Postgres {
    child: Child,
    folder: PathBuf,
    port: u16,
}

impl Postgres {
    /// Starts one on a free port and waits until it listens.
    ///
    /// # Errors
    /// It is not installed, or does not listen in time.
    pub(crate) fn start() -> Result<Self> {
        let programs = newest_programs().context("PostgreSQL is needed; Debian has it as postgresql")?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let folder = std::env::temp_dir().join(format!("dunlin-bench-{}", std::process::id()));
        drop(fs::remove_dir_all(&folder));
        fs::create_dir(&folder)?;
        // The server refuses to run as root.
        let owner = fs::metadata("/proc/self").map(|it| std::os::unix::fs::MetadataExt::uid(&it))?;
        let mut command = if owner == 0 {
            std::os::unix::fs::chown(&folder, Some(id_of("-u")?), Some(id_of("-g")?))?;
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "sh"]);
            command
        } else {
            Command::new("sh")
        };
        let child = command
            .args(["-c", START, "sh"])
            .arg(programs)
            .arg(&folder)
            .arg(port.to_string())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot run a shell")?;
        let mut postgres = Self { child, folder, port };
        let end = Instant::now() + START_DEADLINE;
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if let Some(status) = postgres.child.try_wait()? {
                bail!("PostgreSQL ended with {status}");
            }
            if Instant::now() > end {
                bail!("PostgreSQL did not listen within {START_DEADLINE:?}");
            }
            std::thread::park_timeout(Duration::from_millis(20));
        }
        Ok(postgres)
    }

    /// As the nodes are told of it.
    pub(crate) fn url(&self) -> String {
        format!(
            "postgres://dunlin@127.0.0.1:{}/postgres?sslmode=disable",
            self.port
        )
    }

    /// CPU time of all its processes so far, those that ended included, in seconds.
    ///
    /// # Errors
    /// It has ended.
    pub(crate) fn cpu_seconds(&self) -> Result<f64> {
        let main = self.child.id();
        let mut ticks = 0;
        for entry in fs::read_dir("/proc")? {
            // What ends meanwhile is counted by its parent.
            let Ok(text) = fs::read_to_string(entry?.path().join("stat")) else {
                continue;
            };
            let pid = text.split(' ').next().and_then(|pid| pid.parse::<u32>().ok());
            // Behind the name, which is in brackets and may hold spaces: state, parent, and as 12th to 15th the times of
            // itself and of children that ended.
            let Some((_, rest)) = text.rsplit_once(") ") else {
                continue;
            };
            let fields: Vec<u64> = rest.split(' ').map(|field| field.parse().unwrap_or(0)).collect();
            let parent = fields.get(1).copied();
            if pid == Some(main) || parent == Some(u64::from(main)) {
                ticks += fields.iter().skip(11).take(4).sum::<u64>();
            }
        }
        Ok(Duration::from_millis(10 * ticks).as_secs_f64())
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // Its other processes end when they see it gone, and are given a moment for that.
        drop(self.child.kill());
        drop(self.child.wait());
        let end = Instant::now() + Duration::from_secs(2);
        while fs::remove_dir_all(&self.folder).is_err() && Instant::now() < end {
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }
}

/// Where Debian keeps the programs of a version; they are not in the PATH.
fn newest_programs() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let newest = versions
        .filter_map(|entry| Some(entry.ok()?.path()))
        .max_by_key(|path| path.file_name()?.to_str()?.parse::<u32>().ok())?;
    Some(newest.join("bin"))
}

/// The user's (`-u`) or the group's (`-g`) number of `postgres`.
fn id_of(which: &str) -> Result<u32> {
    let output = Command::new("id").args([which, "postgres"]).output()?;
    let text = String::from_utf8(output.stdout)?;
    text.trim()
        .parse()
        .context("there is no user postgres, as which PostgreSQL runs")
}
