//! One connection to Redis, whatever kind of Redis it is.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster_async::ClusterConnection;
use redis::{Cmd, Pipeline, RedisError, Value, from_redis_value};

/// A connection that many callers write to at the same time; each gets its own answer. Commands of one caller are
/// executed in the order in which they were sent. Cheap to clone.
#[derive(Clone)]
pub struct Lane {
    connection: Connection,
    broken: Arc<AtomicBool>,
}

#[derive(Clone)]
enum Connection {
    One(MultiplexedConnection),
    Cluster(ClusterConnection),
}

impl Lane {
    pub(super) fn one(connection: MultiplexedConnection) -> Self {
        Self::new(Connection::One(connection))
    }

    pub(super) fn cluster(connection: ClusterConnection) -> Self {
        Self::new(Connection::Cluster(connection))
    }

    fn new(connection: Connection) -> Self {
        Self {
            connection,
            broken: Arc::default(),
        }
    }

    /// Whether a command failed in a way that says nothing good of the next.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    fn look_at(&self, error: &RedisError) {
        if error.is_timeout() || error.is_io_error() || error.is_unrecoverable_error() {
            self.broken.store(true, Ordering::Relaxed);
        }
    }

    /// # Errors
    /// Redis says no, or says nothing in time.
    pub async fn call(&self, command: &Cmd) -> Result<Value, RedisError> {
        let answer = match self.connection.clone() {
            Connection::One(mut connection) => connection.req_packed_command(command).await,
            Connection::Cluster(mut connection) => connection.req_packed_command(command).await,
        };
        let answer = answer.and_then(Value::extract_error);
        answer.inspect_err(|error| self.look_at(error))
    }

    /// Several commands about keys of one partition, in one go.
    ///
    /// # Errors
    /// As for [`Lane::call`]; the first error of any.
    pub async fn call_all(&self, commands: &Pipeline) -> Result<Vec<Value>, RedisError> {
        let count = commands.len();
        let answers = match self.connection.clone() {
            Connection::One(mut connection) => connection.req_packed_commands(commands, 0, count).await,
            Connection::Cluster(mut connection) => connection.req_packed_commands(commands, 0, count).await,
        };
        let answers: Result<Vec<_>, _> =
            answers.and_then(|all| all.into_iter().map(Value::extract_error).collect());
        answers.inspect_err(|error| self.look_at(error))
    }

    /// What Redis calls its version, `7.0.15`; a cluster is not asked, because its nodes may differ.
    ///
    /// # Errors
    /// As for [`Lane::call`].
    pub async fn version(&self) -> Result<Option<String>, RedisError> {
        if let Connection::Cluster(_) = self.connection {
            return self.call(&redis::cmd("PING")).await.map(|_| None);
        }
        let info: String = from_redis_value(self.call(redis::cmd("INFO").arg("server")).await?)?;
        let version = info.lines().find_map(|line| line.strip_prefix("redis_version:"));
        Ok(version.map(str::to_owned))
    }

    /// Subscribes to topics, all of one partition on a cluster. Returns when Redis has confirmed: whatever is
    /// published from then on arrives.
    ///
    /// # Errors
    /// As for [`Lane::call`].
    pub async fn subscribe(&self, topics: &[&str]) -> Result<(), RedisError> {
        let done = match self.connection.clone() {
            Connection::One(mut connection) => connection.subscribe(topics).await,
            Connection::Cluster(mut connection) => connection.ssubscribe(topics).await,
        };
        done.inspect_err(|error| self.look_at(error))
    }

    /// # Errors
    /// As for [`Lane::call`].
    pub async fn unsubscribe(&self, topics: &[&str]) -> Result<(), RedisError> {
        let done = match self.connection.clone() {
            Connection::One(mut connection) => connection.unsubscribe(topics).await,
            Connection::Cluster(mut connection) => connection.sunsubscribe(topics).await,
        };
        done.inspect_err(|error| self.look_at(error))
    }
}
