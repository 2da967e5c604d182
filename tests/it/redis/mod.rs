//! Real Redis servers for the tests: one alone, a cluster, a master that sentinels watch. They and whatever they wrote
//! are gone with the test. `redis-server`, `redis-cli` and `redis-sentinel` are taken from the PATH.

mod cluster;
mod sentinel;
mod server;

pub(crate) use cluster::RedisCluster;
pub(crate) use sentinel::Sentinel;
pub(crate) use server::{Data, RedisServer};
