//! A Redis Cluster of three masters.

use super::server::RedisServer;
use crate::process::poll_until;
use std::time::Duration;

/// The hash slots of a Redis Cluster.
const SLOTS: usize = 16_384;
const MASTERS: usize = 3;

/// Three masters that share the slots. Dropping it kills them.
pub(crate) struct RedisCluster {
    pub(crate) masters: Vec<RedisServer>,
}

impl RedisCluster {
    /// Starts it and waits until each master serves, and names all three with their slots.
    pub(crate) fn start() -> Self {
        let start = |_| RedisServer::options().clustered().start();
        let cluster = Self {
            masters: (0..MASTERS).map(start).collect(),
        };
        let first = &cluster.masters[0];
        for (number, master) in cluster.masters.iter().enumerate() {
            let from = number * SLOTS / MASTERS;
            let to = (number + 1) * SLOTS / MASTERS - 1;
            master.ask::<()>(&format!("CLUSTER ADDSLOTSRANGE {from} {to}"));
            let bus: Vec<String> = first.ask("CONFIG GET cluster-port");
            master.ask::<()>(&format!("CLUSTER MEET 127.0.0.1 {} {}", first.port, bus[1]));
        }
        let formed = poll_until(Duration::from_secs(20), || {
            cluster
                .masters
                .iter()
                .all(|master| cluster.is_complete_for(master))
                .then_some(())
        });
        assert!(formed.is_some(), "the Redis Cluster does not come together");
        cluster
    }

    pub(crate) fn url(&self) -> String {
        let addresses: Vec<String> = self
            .masters
            .iter()
            .map(|master| master.address().to_string())
            .collect();
        format!("redis-cluster://{}", addresses.join(","))
    }

    /// All keys that begin so, of all masters, sorted.
    pub(crate) fn keys(&self, prefix: &str) -> Vec<String> {
        let mut keys: Vec<String> = self
            .masters
            .iter()
            .flat_map(|master| master.keys(prefix))
            .collect();
        keys.sort();
        keys
    }

    fn is_complete_for(&self, master: &RedisServer) -> bool {
        let info: String = master.ask("CLUSTER INFO");
        if !info.contains("cluster_state:ok") {
            return false;
        }
        // Each shard is a list of names and values: "slots" with the ends of its ranges, and "nodes".
        let shards: Vec<Vec<redis::Value>> = master.ask("CLUSTER SHARDS");
        let ranges: Vec<Vec<usize>> = shards
            .iter()
            .filter_map(|shard| redis::from_redis_value(shard.get(1)?.clone()).ok())
            .collect();
        let covered: usize = ranges
            .iter()
            .flat_map(|ends| ends.chunks_exact(2))
            .map(|ends| ends[1] - ends[0] + 1)
            .sum();
        shards.len() == self.masters.len() && ranges.iter().all(|ends| ends.len() == 2) && covered == SLOTS
    }
}
