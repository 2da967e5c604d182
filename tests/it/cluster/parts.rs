//! What these tests are made of does what it says: otherwise they would pass for the wrong reason.

use crate::process::poll_until;
use crate::proxy::Proxy;
use crate::redis::{Data, RedisCluster, RedisServer, Sentinel};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(5);

#[test]
fn a_durable_redis_keeps_what_it_acknowledged_and_another_loses_it() {
    let durable = RedisServer::options().durable().start();
    let forgetful = RedisServer::start();
    for redis in [&durable, &forgetful] {
        redis.ask::<()>("SET key value");
        assert_eq!(redis.keys("k"), ["key"]);
    }
    durable.restart(Data::Kept);
    forgetful.restart(Data::Lost);
    assert_eq!(durable.keys(""), ["key"]);
    assert!(forgetful.keys("").is_empty());
    durable.restart(Data::Lost);
    assert!(durable.keys("").is_empty());
}

#[test]
fn a_paused_redis_answers_when_it_is_resumed() {
    let redis = RedisServer::start();
    redis.pause();
    assert!(redis.try_ask::<String>("PING").is_err());
    redis.resume();
    assert_eq!(redis.ask::<String>("PING"), "PONG");
    redis.kill();
    assert!(redis.try_ask::<String>("PING").is_err());
}

#[test]
fn a_redis_cluster_spreads_its_keys() {
    let cluster = RedisCluster::start();
    for number in 0..30 {
        let taken = cluster
            .masters
            .iter()
            .filter(|master| master.try_ask::<()>(&format!("SET key-{number} x")).is_ok());
        assert_eq!(taken.count(), 1, "one master is responsible");
    }
    assert_eq!(cluster.keys("key-").len(), 30);
    assert!(cluster.masters.iter().all(|master| !master.keys("").is_empty()));
}

#[test]
fn sentinels_promote_the_replica_with_what_it_has() {
    let sentinel = Sentinel::start();
    let [master, replica] = &sentinel.servers;
    assert_eq!(sentinel.master_port(), Some(master.port));
    master.ask::<()>("SET key value");
    let copied = poll_until(SOON, || (replica.keys("") == ["key"]).then_some(()));
    assert!(copied.is_some(), "nothing is replicated");
    assert!(
        replica.try_ask::<()>("SET other value").is_err(),
        "a replica is read-only"
    );
    sentinel.fail_over();
    assert_eq!(sentinel.master_port(), Some(replica.port));
    replica.ask::<()>("SET other value");
    assert_eq!(replica.keys(""), ["key", "other"]);
}

/// A connection through the proxy, and its other end.
async fn connected(proxy: &Proxy, listener: &TcpListener) -> (TcpStream, TcpStream) {
    let near = TcpStream::connect(proxy.address)
        .await
        .expect("the proxy listens");
    let (far, _) = timeout(SOON, listener.accept())
        .await
        .expect("the proxy connects in time")
        .expect("a connection can be accepted");
    (near, far)
}

async fn upstream() -> (TcpListener, Proxy) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let proxy = Proxy::to(listener.local_addr().expect("a listener has an address"));
    (listener, proxy)
}

async fn read(stream: &mut TcpStream, limit: Duration) -> Option<std::io::Result<Vec<u8>>> {
    let mut bytes = vec![0; 64];
    let read = timeout(limit, stream.read(&mut bytes)).await.ok()?;
    Some(read.map(|count| bytes[..count].to_vec()))
}

#[tokio::test]
async fn a_proxy_passes_bytes_and_ends_both_ways() {
    let (listener, proxy) = upstream().await;
    let (mut near, mut far) = connected(&proxy, &listener).await;
    near.write_all(b"there").await.expect("a connection takes bytes");
    assert_eq!(
        read(&mut far, SOON).await.expect("bytes come").ok(),
        Some(b"there".to_vec())
    );
    near.shutdown().await.expect("a connection can be half-closed");
    assert_eq!(
        read(&mut far, SOON).await.expect("an end comes").ok(),
        Some(Vec::new())
    );
    far.write_all(b"back").await.expect("a connection takes bytes");
    assert_eq!(
        read(&mut near, SOON).await.expect("bytes come").ok(),
        Some(b"back".to_vec())
    );
    drop(far);
    assert_eq!(
        read(&mut near, SOON).await.expect("an end comes").ok(),
        Some(Vec::new())
    );
}

#[tokio::test]
async fn a_stalled_proxy_holds_bytes_and_ends_until_it_is_healed() {
    let (listener, proxy) = upstream().await;
    let (mut near, mut far) = connected(&proxy, &listener).await;
    proxy.stall();
    near.write_all(b"held").await.expect("a connection takes bytes");
    near.shutdown().await.expect("a connection can be half-closed");
    assert!(read(&mut far, Duration::from_millis(200)).await.is_none());
    proxy.heal();
    assert_eq!(
        read(&mut far, SOON).await.expect("bytes come").ok(),
        Some(b"held".to_vec())
    );
    assert_eq!(
        read(&mut far, SOON).await.expect("an end comes").ok(),
        Some(Vec::new())
    );
}

#[tokio::test]
async fn a_proxy_that_is_cut_tears_down_what_is_open_and_takes_what_is_new() {
    let (listener, proxy) = upstream().await;
    let (mut near, mut far) = connected(&proxy, &listener).await;
    near.write_all(b"x").await.expect("a connection takes bytes");
    read(&mut far, SOON)
        .await
        .expect("bytes come")
        .expect("bytes come");
    proxy.cut();
    assert!(
        read(&mut near, SOON).await.expect("it ends").is_err(),
        "torn down"
    );
    assert!(read(&mut far, SOON).await.expect("it ends").is_err(), "torn down");
    connected(&proxy, &listener).await;
}

#[tokio::test]
async fn a_proxy_that_refuses_does_not_listen_until_it_is_healed() {
    let (listener, proxy) = upstream().await;
    let (mut near, _far) = connected(&proxy, &listener).await;
    proxy.refuse();
    assert!(
        read(&mut near, SOON).await.expect("it ends").is_err(),
        "torn down"
    );
    crate::world::eventually("nobody listens", || async {
        TcpStream::connect(proxy.address).await.is_err().then_some(())
    })
    .await;
    proxy.heal();
    crate::world::eventually("somebody listens again", || async {
        TcpStream::connect(proxy.address).await.ok()
    })
    .await;
}

#[tokio::test]
async fn a_delay_delays_and_does_not_throttle() {
    let (listener, proxy) = upstream().await;
    proxy.delay(Duration::from_millis(100));
    let (mut near, mut far) = connected(&proxy, &listener).await;
    let start = Instant::now();
    for _ in 0..20 {
        near.write_all(b"0123456789")
            .await
            .expect("a connection takes bytes");
        tokio::task::yield_now().await;
    }
    let mut count = 0;
    while count < 200 {
        count += read(&mut far, SOON)
            .await
            .expect("bytes come")
            .expect("bytes come")
            .len();
        assert!(start.elapsed() >= Duration::from_millis(100), "too early");
    }
    assert!(start.elapsed() < Duration::from_secs(1), "throttled");
}
