//! Connections to the database.

use std::fmt;
use std::fs::{DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use sqlx::any::{AnyConnectOptions, AnyPoolOptions};
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::{
    Any, AnyConnection, AnyPool, AssertSqlSafe, Connection as _, Executor as _, SqlSafeStr as _, Transaction,
};
use tokio::sync::Notify;

use super::target::{BadTarget, Target};
use crate::config::DatabaseSection;

pub(super) static SQLITE_TABLES: Migrator = sqlx::migrate!("migrations/sqlite");
pub(super) static POSTGRES_TABLES: Migrator = sqlx::migrate!("migrations/postgres");

/// How long bringing the tables up to date may take, the wait for another node that does it included.
const MIGRATION_TIME: Duration = Duration::from_mins(1);

/// Pages in SQLite's log from which on a writer moves them into the file, however long it takes: 128 MiB.
const LOG_PAGES: u32 = 32_768;
const PAGE_BYTES: u32 = 4096;

/// Transactions after which that is done beside the writers. The next one then waits for the disk once, to begin the log
/// anew: at a low rate that is to be rare, and at a high one there is to be little to move.
const TENDED_AFTER: u64 = 2000;

/// The database. Cheap to clone.
#[derive(Clone)]
pub struct Database {
    kind: Kind,
    reads: AnyPool,
    writes: AnyPool,
    timeout: Duration,
    log: Arc<Log>,
}

/// How much was written to SQLite's log.
#[derive(Debug, Default)]
struct Log {
    transactions: AtomicU64,
    is_long: Notify,
}

impl Log {
    fn grows(&self) {
        let before = self.transactions.fetch_add(1, Relaxed);
        if (before + 1).is_multiple_of(TENDED_AFTER) {
            self.is_long.notify_one();
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Sqlite,
    Postgres,
}

/// Why there is no database.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("database.url {0}")]
    Target(#[from] BadTarget),
    #[error("{} cannot be made or written", path.display())]
    File {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("the database cannot be reached")]
    Connect(#[source] sqlx::Error),
    #[error("the tables of the database cannot be brought up to date")]
    Tables(#[from] MigrateError),
    #[error("the database did not answer within {0:?}")]
    TooSlow(Duration),
}

/// The database did not do what it was asked. Whether a change took place is not known: ask, or do it again where that
/// does no harm.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error("the database failed")]
    Failed(#[from] sqlx::Error),
    #[error("the database did not answer within {0:?}")]
    TooSlow(Duration),
}

impl Database {
    /// The database of this URL, or without one the file in the data directory; its folder and itself are made if need
    /// be, for nobody else to read. Brings the tables up to date, one node at a time.
    ///
    /// # Errors
    /// It is not there, or its tables are not those of this version.
    pub async fn open(section: &DatabaseSection, data_dir: &Path) -> Result<Self, OpenError> {
        sqlx::any::install_default_drivers();
        let target = Target::of(section, data_dir)?;
        let options = match &target {
            Target::Sqlite(path) => {
                make_file(path).map_err(|source| OpenError::File {
                    path: path.clone(),
                    source,
                })?;
                target.options()
            }
            Target::Postgres(_) => target.options(),
        };
        let options = options.map_err(OpenError::Connect)?;
        let opening = async {
            match target {
                Target::Sqlite(_) => Self::sqlite(options, section).await,
                Target::Postgres(_) => Self::postgres(options, section).await,
            }
        };
        let limit = MIGRATION_TIME + section.timeout;
        tokio::time::timeout(limit, opening)
            .await
            .unwrap_or(Err(OpenError::TooSlow(limit)))
    }

    /// SQLite lets one connection write at a time and the others wait in no order, so that there is one for all writers
    /// of the process, who queue for it. Those of other processes are waited for.
    ///
    /// With a write-ahead log and `synchronous = NORMAL`, what was committed is in the files of the system, and survives
    /// the death of the process at any instant. A power cut may cost the last moments, but leaves no half of a
    /// transaction; to wait for the disk at each commit would buy little, because what has not become a delivery yet
    /// is in memory then.
    async fn sqlite(options: AnyConnectOptions, section: &DatabaseSection) -> Result<Self, OpenError> {
        let setup = format!(
            "PRAGMA busy_timeout = {}; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; \
             PRAGMA foreign_keys = ON; PRAGMA wal_autocheckpoint = {LOG_PAGES}; \
             PRAGMA journal_size_limit = {}",
            section.timeout.as_millis(),
            LOG_PAGES * PAGE_BYTES,
        );
        begin_log(&options).await.map_err(OpenError::Connect)?;
        let pool = |size| {
            pool(section, size, setup.clone())
                .idle_timeout(None)
                .max_lifetime(None)
                .connect_lazy_with(options.clone())
        };
        let writes = pool(1);
        let mut connection = writes.begin_with(BEGIN_WRITE).await.map_err(OpenError::Connect)?;
        SQLITE_TABLES.run(&mut *connection).await?;
        connection.commit().await.map_err(OpenError::Connect)?;
        Ok(Self {
            kind: Kind::Sqlite,
            reads: pool(section.pool_size),
            writes,
            timeout: section.timeout,
            log: Arc::default(),
        })
    }

    /// The server ends what takes too long as well, so that a node that was cut off, or stands still, leaves no locks.
    async fn postgres(options: AnyConnectOptions, section: &DatabaseSection) -> Result<Self, OpenError> {
        let mut connection = AnyConnection::connect_with(&options)
            .await
            .map_err(OpenError::Connect)?;
        POSTGRES_TABLES.run(&mut connection).await?;
        connection.close().await.map_err(OpenError::Connect)?;
        let millis = section.timeout.as_millis();
        let setup =
            format!("SET statement_timeout = {millis}; SET idle_in_transaction_session_timeout = {millis}");
        let pool = pool(section, section.pool_size, setup).connect_lazy_with(options);
        Ok(Self {
            kind: Kind::Postgres,
            reads: pool.clone(),
            writes: pool,
            timeout: section.timeout,
            log: Arc::default(),
        })
    }

    /// Whom to ask what changes nothing.
    pub fn reads(&self) -> &AnyPool {
        &self.reads
    }

    /// Whom to ask for a change that is one statement: a transaction of its own.
    pub fn writes(&self) -> &AnyPool {
        if self.kind == Kind::Sqlite {
            self.log.grows();
        }
        &self.writes
    }

    /// Begins a change of several statements. Dropped without a commit, nothing of it has happened.
    ///
    /// # Errors
    /// The database is away, or others write for too long.
    pub async fn begin(&self) -> Result<Transaction<'static, Any>, sqlx::Error> {
        match self.kind {
            Kind::Sqlite => self.writes().begin_with(BEGIN_WRITE).await,
            Kind::Postgres => self.writes().begin().await,
        }
    }

    /// Moves what is written from SQLite's log into its file, for ever, so that no writer has to: it would wait for the
    /// disk, and all others for it. PostgreSQL needs no such help.
    pub async fn tend(&self) {
        loop {
            self.log.is_long.notified().await;
            // Nobody is kept waiting: what cannot be moved now is moved the next time.
            let moved = sqlx::query("PRAGMA wal_checkpoint(PASSIVE)").execute(&self.reads);
            if let Err(error) = moved.await {
                tracing::warn!(%error, "the database's log could not be moved into its file");
            }
        }
    }

    /// Does one thing within `database.timeout_ms`.
    ///
    /// # Errors
    /// It failed, or it took longer and was dropped.
    pub async fn within<T>(&self, work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Fault> {
        match tokio::time::timeout(self.timeout, work).await {
            Ok(done) => Ok(done?),
            Err(_) => Err(Fault::TooSlow(self.timeout)),
        }
    }

    /// Puts the words behind a `SELECT` that hold its rows until the transaction ends. SQLite knows none and needs none:
    /// there, only one writes.
    pub fn locking(&self, select: &str, words: Locking) -> String {
        match (self.kind, words) {
            (Kind::Sqlite, _) => select.to_owned(),
            (Kind::Postgres, Locking::Wait(table)) => format!("{select} FOR UPDATE OF {table}"),
            (Kind::Postgres, Locking::Skip(table)) => format!("{select} FOR UPDATE OF {table} SKIP LOCKED"),
        }
    }

    /// Closes all connections and waits until they are gone.
    pub async fn close(&self) {
        self.writes.close().await;
        self.reads.close().await;
    }
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database")
            .field("kind", &self.kind)
            .finish_non_exhaustive()
    }
}

/// What becomes of rows of this table that somebody else holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Locking {
    /// They are waited for.
    Wait(&'static str),
    /// They are left out.
    Skip(&'static str),
}

/// SQLite's code for what somebody else has locked, and how long to leave it to them.
const SQLITE_BUSY: &str = "5";
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// SQLite is told at once that this transaction writes. One that begins to read could not wait for its turn to write.
const BEGIN_WRITE: &str = "BEGIN IMMEDIATE";

fn pool(section: &DatabaseSection, size: u32, setup: String) -> AnyPoolOptions {
    let setup = AssertSqlSafe(setup).into_sql_str();
    AnyPoolOptions::new()
        .max_connections(size)
        .acquire_timeout(section.timeout)
        .after_connect(move |connection, _| {
            let setup = setup.clone();
            Box::pin(async move {
                connection.execute(sqlx::raw_sql(setup)).await?;
                Ok(())
            })
        })
}

/// Gives a new file its write-ahead log. That takes the file for itself and waits for nobody, so that of two processes that
/// begin at the same moment one is refused, whatever its `busy_timeout`. A file that has one is left as it is.
async fn begin_log(options: &AnyConnectOptions) -> Result<(), sqlx::Error> {
    loop {
        let mut connection = AnyConnection::connect_with(options).await?;
        match connection
            .execute(sqlx::raw_sql("PRAGMA journal_mode = WAL"))
            .await
        {
            Ok(_) => return connection.close().await,
            Err(error) if is_busy(&error) => tokio::time::sleep(BUSY_PAUSE).await,
            Err(error) => return Err(error),
        }
    }
}

fn is_busy(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(sqlx::error::DatabaseError::code)
        .is_some_and(|code| code == SQLITE_BUSY)
}

/// SQLite would make the file by itself, but for everybody to read; its two companions take its permissions.
fn make_file(path: &Path) -> std::io::Result<()> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)?;
    Ok(())
}
