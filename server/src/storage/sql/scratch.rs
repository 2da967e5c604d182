//! Databases of a test's own: files that are removed, and a PostgreSQL that all tests of the process share.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use sqlx::{AnyConnection, AssertSqlSafe, Connection as _, Executor as _};
use tokio::sync::OnceCell;

use super::Database;
use crate::config::DatabaseSection;
use crate::told::eventually;

/// A directory that goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("dunlin-sql-{:016x}", rand::random::<u64>()));
        std::fs::create_dir_all(&path).expect("the temporary directory can be written");
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// An empty database that several can open.
#[derive(Debug)]
pub(crate) struct Scratch {
    section: DatabaseSection,
    folder: Folder,
}

impl Scratch {
    pub(crate) fn sqlite() -> Self {
        Self::of(None)
    }

    /// A database of its own on the shared server.
    pub(crate) async fn postgres() -> Self {
        let name = format!("scratch_{:016x}", rand::random::<u64>());
        let server = Server::shared().await;
        let mut connection = server.connect().await.expect("the server runs");
        connection
            .execute(sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}"))))
            .await
            .expect("the name is new");
        connection.close().await.expect("the server runs");
        Self::of(Some(server.url(&name).as_str().into()))
    }

    fn of(url: Option<crate::config::ConfigSecret>) -> Self {
        Self {
            section: DatabaseSection {
                url,
                pool_size: 4,
                // Tests share their machine with builds.
                timeout: Duration::from_secs(30),
            },
            folder: Folder::new(),
        }
    }

    /// As one process opens it.
    pub(crate) async fn open(&self) -> Database {
        Database::open(&self.section, self.folder.path())
            .await
            .expect("it is there")
    }

    pub(crate) fn section(&self) -> &DatabaseSection {
        &self.section
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

/// A PostgreSQL that ends with the process, however that ends.
struct Server {
    port: u16,
    /// Holds the pipe whose end the server waits for.
    _keeper: Child,
}

/// Makes a server in a directory of its own; when nobody holds our end of the pipe any more, ends it and removes it.
const KEEPER: &str = r#"
    dir=$(mktemp -d) || exit
    "$1/initdb" --pgdata "$dir/data" --username dunlin --auth trust --encoding UTF8 --no-locale --no-sync >/dev/null
    "$1/postgres" -D "$dir/data" -p "$2" -c listen_addresses=127.0.0.1 -c unix_socket_directories= \
        -c fsync=off -c max_connections=300 -c log_min_messages=panic &
    cat >/dev/null
    kill -QUIT $!
    wait
    rm -rf "$dir"
"#;

impl Server {
    async fn shared() -> &'static Self {
        static SERVER: OnceCell<Server> = OnceCell::const_new();
        SERVER.get_or_init(Self::start).await
    }

    async fn start() -> Self {
        let programs = newest_programs().expect("PostgreSQL is needed: `apt-get install postgresql`");
        let port = free_port();
        // The server refuses to run as root.
        let is_root = rustix::process::geteuid().is_root();
        let mut command = if is_root {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "sh"]);
            command
        } else {
            Command::new("sh")
        };
        let keeper = command
            .args(["-c", KEEPER, "sh"])
            .arg(programs)
            .arg(port.to_string())
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell can be run");
        let server = Self {
            port,
            _keeper: keeper,
        };
        sqlx::any::install_default_drivers();
        eventually("PostgreSQL listens", async || server.connect().await.is_ok()).await;
        server
    }

    fn url(&self, database: &str) -> String {
        format!(
            "postgres://dunlin@127.0.0.1:{}/{database}?sslmode=disable",
            self.port
        )
    }

    async fn connect(&self) -> Result<AnyConnection, sqlx::Error> {
        AnyConnection::connect(&self.url("postgres")).await
    }
}

/// Where Debian keeps the programs of a version; they are not in the PATH.
fn newest_programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let newest = versions
        .filter_map(|entry| Some(entry.ok()?.path()))
        .max_by_key(|path| path.file_name()?.to_str()?.parse::<u32>().ok())?;
    Some(newest.join("bin"))
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
    listener.local_addr().expect("it is bound").port()
}
