//! Which Redis, from its URL.

use std::path::Path;
use std::time::Duration;

use deadpool::Runtime;
use deadpool::managed::{Metrics, RecycleError, RecycleResult};
use redis::aio::{AsyncPushSender, MultiplexedConnection};
use redis::cluster::ClusterClientBuilder;
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{
    AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo as _, ProtocolVersion,
    RedisError, TlsCertificates, TlsMode,
};

use super::lane::Lane;

/// How long a connection may take to be there.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(1500);

/// What Redis listens on unless it is told otherwise.
const DEFAULT_PORT: u16 = 6379;

/// Commands that wait to be written to one connection; more wait in their callers.
const WRITE_QUEUE: usize = 4096;

/// A Redis that was named by a URL:
/// `redis://[user:password@]host[:port][/db]`, `redis-cluster://host[:port],host…`,
/// `redis-sentinel://host[:port],host…/master-name`, each with `rediss` in front for TLS.
#[derive(Clone, Debug)]
pub struct Target {
    kind: Kind,
    /// PEM of the authority that signed the servers' certificates; without it the system's.
    authority: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
enum Kind {
    One(ConnectionInfo),
    Cluster(Vec<ConnectionInfo>),
    Sentinel {
        sentinels: Vec<ConnectionAddr>,
        master: String,
        user: Option<(String, String)>,
        is_tls: bool,
    },
}

/// Why a URL names no Redis. The text does not repeat it, because it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadTarget {
    #[error(
        "must begin with redis://, rediss://, redis-cluster://, rediss-cluster://, redis-sentinel:// or rediss-sentinel://"
    )]
    Scheme,
    #[error("must name at least one host")]
    NoHost,
    #[error("must end with the name of the master that the sentinels watch: redis-sentinel://host,host/NAME")]
    NoMaster,
    #[error("is not a valid address: {0}")]
    Address(String),
    #[error("cannot be used with a cluster, whose certificates are checked against the system's authorities")]
    AuthorityOfCluster,
    #[error("cannot be read: {0}")]
    Authority(String),
}

impl Target {
    /// `authority`: path of a PEM file, empty for the system's.
    ///
    /// # Errors
    /// The URL or the file is of no use.
    pub fn parse(url: &str, authority: &Path) -> Result<Self, BadTarget> {
        let (scheme, rest) = url.split_once("://").ok_or(BadTarget::Scheme)?;
        let kind = match scheme {
            "redis" | "rediss" => Kind::One(address(url)?),
            "redis-cluster" | "rediss-cluster" => {
                let scheme = scheme.trim_end_matches("-cluster");
                Kind::Cluster(split(rest, |host| address(&format!("{scheme}://{host}")))?)
            }
            "redis-sentinel" | "rediss-sentinel" => {
                let is_tls = scheme == "rediss-sentinel";
                let (hosts, master) = rest.rsplit_once('/').ok_or(BadTarget::NoMaster)?;
                let (login, hosts) = hosts
                    .rsplit_once('@')
                    .map_or((None, hosts), |(login, hosts)| (Some(login), hosts));
                if master.is_empty() {
                    return Err(BadTarget::NoMaster);
                }
                let scheme = if is_tls { "rediss" } else { "redis" };
                let user = login.map(|login| {
                    let (user, password) = login.split_once(':').unwrap_or(("", login));
                    (user.to_owned(), password.to_owned())
                });
                Kind::Sentinel {
                    sentinels: split(hosts, |host| {
                        let host = if host.contains(':') {
                            host.to_owned()
                        } else {
                            format!("{host}:26379")
                        };
                        address(&format!("{scheme}://{host}")).map(|info| info.addr().clone())
                    })?,
                    master: master.to_owned(),
                    user,
                    is_tls,
                }
            }
            _ => return Err(BadTarget::Scheme),
        };
        let authority = if authority.as_os_str().is_empty() {
            None
        } else if matches!(kind, Kind::Cluster(_)) {
            return Err(BadTarget::AuthorityOfCluster);
        } else {
            Some(std::fs::read(authority).map_err(|error| BadTarget::Authority(error.to_string()))?)
        };
        Ok(Self { kind, authority })
    }

    /// The ports that its servers are on, as far as the URL tells. A master that is found by Sentinel, and nodes of a
    /// cluster that it does not name, are taken to be on the port that Redis has where nobody chose another.
    pub fn ports(&self) -> Vec<u16> {
        let port = |address: &ConnectionAddr| match address {
            ConnectionAddr::Tcp(_, port) | ConnectionAddr::TcpTls { port, .. } => Some(*port),
            _ => None,
        };
        match &self.kind {
            Kind::One(info) => port(info.addr()).into_iter().collect(),
            Kind::Cluster(nodes) => nodes
                .iter()
                .filter_map(|node| port(node.addr()))
                .chain([DEFAULT_PORT])
                .collect(),
            Kind::Sentinel { sentinels, .. } => {
                sentinels.iter().filter_map(port).chain([DEFAULT_PORT]).collect()
            }
        }
    }

    /// Whether publications go by shard (`SPUBLISH`), as on a Redis Cluster.
    pub fn is_cluster(&self) -> bool {
        matches!(self.kind, Kind::Cluster(_))
    }

    fn certificates(&self) -> TlsCertificates {
        TlsCertificates {
            client_tls: None,
            root_cert: self.authority.clone(),
        }
    }

    fn client(&self, info: &ConnectionInfo) -> Result<Client, RedisError> {
        match info.addr() {
            ConnectionAddr::TcpTls { .. } => Client::build_with_tls(info.clone(), self.certificates()),
            _ => Client::open(info.clone()),
        }
    }

    fn sentinel(&self) -> Result<SentinelClient, RedisError> {
        let Kind::Sentinel {
            sentinels,
            master,
            user,
            is_tls,
        } = &self.kind
        else {
            unreachable!("asked of sentinels only");
        };
        let mut builder =
            SentinelClientBuilder::new(sentinels.clone(), master.clone(), SentinelServerType::Master)?
                .set_client_to_redis_protocol(ProtocolVersion::RESP3);
        if *is_tls {
            builder = builder
                .set_client_to_redis_tls_mode(TlsMode::Secure)
                .set_client_to_redis_certificates(self.certificates())
                .set_client_to_sentinel_tls_mode(TlsMode::Secure)
                .set_client_to_sentinel_certificates(self.certificates());
        }
        if let Some((user, password)) = user {
            if !user.is_empty() {
                builder = builder.set_client_to_redis_username(user);
            }
            builder = builder.set_client_to_redis_password(password);
        }
        builder.build()
    }

    /// A connection for commands, or, with somebody to push to, for subscriptions. `time` bounds every command.
    ///
    /// # Errors
    /// It is not there within its time.
    pub async fn connect(
        &self,
        time: Duration,
        pushes: Option<impl AsyncPushSender>,
    ) -> Result<Lane, RedisError> {
        let connecting = async {
            match &self.kind {
                Kind::Cluster(nodes) => {
                    let mut builder = ClusterClientBuilder::new(nodes.clone())
                        .connection_timeout(CONNECT_TIMEOUT)
                        .response_timeout(time)
                        .overall_response_timeout(Some(time))
                        // Enough for a redirection. A command whose answer was lost is not repeated here, because
                        // whoever sent it knows whether it may be.
                        .retries(2)
                        .use_protocol(ProtocolVersion::RESP3);
                    if let Some(pushes) = pushes {
                        builder = builder.push_sender(pushes);
                    }
                    Ok(Lane::cluster(builder.build()?.get_async_connection().await?))
                }
                Kind::One(_) | Kind::Sentinel { .. } => {
                    let mut config = AsyncConnectionConfig::new()
                        .set_connection_timeout(Some(CONNECT_TIMEOUT))
                        .set_response_timeout(Some(time))
                        .set_pipeline_buffer_size(WRITE_QUEUE);
                    if let Some(pushes) = pushes {
                        config = config.set_push_sender(pushes);
                    }
                    Ok(Lane::one(self.connect_one(&config).await?))
                }
            }
        };
        let limit = CONNECT_TIMEOUT + Duration::from_millis(500);
        match tokio::time::timeout(limit, connecting).await {
            Ok(connected) => connected,
            Err(_) => Err(RedisError::from(std::io::Error::from(
                std::io::ErrorKind::TimedOut,
            ))),
        }
    }

    async fn connect_one(&self, config: &AsyncConnectionConfig) -> Result<MultiplexedConnection, RedisError> {
        match &self.kind {
            Kind::One(info) => {
                let client = self.client(info)?;
                client.get_multiplexed_async_connection_with_config(config).await
            }
            Kind::Sentinel { .. } => self.sentinel()?.get_async_connection_with_config(config).await,
            Kind::Cluster(_) => unreachable!("a cluster has connections of its own kind"),
        }
    }

    /// A pool for whoever reads, so that a long answer to one is not in front of the others' commands. Connects when it
    /// is first asked.
    pub fn pool(self, size: usize, time: Duration) -> Pool {
        Pool::builder(Lanes { target: self, time })
            .max_size(size)
            .runtime(Runtime::Tokio1)
            .wait_timeout(Some(time))
            .build()
            .expect("a pool with timeouts has a runtime")
    }
}

/// Connections to read with, each lent to one reader at a time.
pub type Pool = deadpool::managed::Pool<Lanes>;

/// Makes the connections of a [`Pool`]. The managers that exist know no time limits for Sentinel and no certificates for
/// a cluster; and they ask each connection whether it is well before they lend it, where we see it by the command.
#[derive(Debug)]
pub struct Lanes {
    target: Target,
    time: Duration,
}

impl deadpool::managed::Manager for Lanes {
    type Type = Lane;
    type Error = RedisError;

    async fn create(&self) -> Result<Lane, RedisError> {
        self.target.connect(self.time, None::<NoPushes>).await
    }

    async fn recycle(&self, lane: &mut Lane, _: &Metrics) -> RecycleResult<RedisError> {
        if lane.is_broken() {
            return Err(RecycleError::message("the connection broke"));
        }
        Ok(())
    }
}

/// The type of "nobody" where somebody could be pushed to.
pub type NoPushes = fn(redis::PushInfo) -> Result<(), redis::aio::SendError>;

fn address(url: &str) -> Result<ConnectionInfo, BadTarget> {
    let info = url
        .into_connection_info()
        .map_err(|error| BadTarget::Address(error.detail().unwrap_or("no host").to_owned()))?;
    let settings = info.redis_settings().clone().set_protocol(ProtocolVersion::RESP3);
    Ok(info.set_redis_settings(settings))
}

fn split<T>(hosts: &str, parse: impl Fn(&str) -> Result<T, BadTarget>) -> Result<Vec<T>, BadTarget> {
    let hosts = hosts.trim_end_matches('/');
    if hosts.is_empty() {
        return Err(BadTarget::NoHost);
    }
    hosts.split(',').map(|host| parse(host.trim())).collect()
}
