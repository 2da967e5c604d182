//! A TCP proxy that breaks the network on command, between a node and Redis or between a client and a node.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

/// Pieces that are on their way in one direction of one connection; the sender waits behind them.
const IN_FLIGHT: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Traffic {
    Flows,
    /// Connections stay open and are accepted, and no byte comes through, as if every packet were lost.
    Stalls,
    /// Nobody listens.
    Refused,
}

#[derive(Clone, Copy, Debug)]
struct Rules {
    traffic: Traffic,
    /// Added to each direction.
    latency: Duration,
    /// Goes up whenever the connections there are are to be torn down.
    cuts: usize,
}

/// A proxy in front of one address, on a thread of its own. Dropping it ends all its connections.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    rules: watch::Sender<Rules>,
}

impl Proxy {
    pub(crate) fn to(upstream: SocketAddr) -> Self {
        let (rules, orders) = watch::channel(Rules {
            traffic: Traffic::Flows,
            latency: Duration::ZERO,
            cuts: 0,
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime can be made");
        // Never listened on: it keeps the port ours while nobody listens.
        let place = reserve((Ipv4Addr::LOCALHOST, 0).into(), &runtime);
        let address = place.local_addr().expect("a bound socket has an address");
        let listener = listen(address, &runtime);
        std::thread::Builder::new()
            .name("proxy".to_owned())
            .spawn(move || {
                let _place = place;
                runtime.block_on(serve(address, listener, upstream, orders));
            })
            .expect("a thread can be started");
        Self { address, rules }
    }

    /// Tears down (RST) all connections; new ones are welcome.
    pub(crate) fn cut(&self) {
        self.rules.send_modify(|rules| rules.cuts += 1);
    }

    /// Tears down all connections and lets nobody connect until `heal`.
    pub(crate) fn refuse(&self) {
        self.rules.send_modify(|rules| {
            rules.cuts += 1;
            rules.traffic = Traffic::Refused;
        });
    }

    /// Holds back every byte, and every end, in both directions until `heal`, which then lets them through.
    pub(crate) fn stall(&self) {
        self.rules.send_modify(|rules| rules.traffic = Traffic::Stalls);
    }

    pub(crate) fn heal(&self) {
        self.rules.send_modify(|rules| rules.traffic = Traffic::Flows);
    }

    /// Delays every byte by so much in each direction.
    pub(crate) fn delay(&self, latency: Duration) {
        self.rules.send_modify(|rules| rules.latency = latency);
    }
}

fn reserve(address: SocketAddr, runtime: &tokio::runtime::Runtime) -> TcpSocket {
    let _context = runtime.enter();
    bind(address)
}

fn listen(address: SocketAddr, runtime: &tokio::runtime::Runtime) -> TcpListener {
    let _context = runtime.enter();
    bind(address).listen(1024).expect("a bound socket can listen")
}

/// Sockets with this option, which all of one port have to have, may come and go beside each other.
fn bind(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket can be made");
    socket
        .set_reuseport(true)
        .and_then(|()| socket.bind(address))
        .expect("a port of ours can be bound");
    socket
}

/// Accepts until the proxy is dropped.
async fn serve(
    address: SocketAddr,
    listener: TcpListener,
    upstream: SocketAddr,
    mut orders: watch::Receiver<Rules>,
) {
    let mut listener = Some(listener);
    let mut links = JoinSet::new();
    loop {
        let accepted = async {
            match &listener {
                Some(listener) => listener.accept().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            order = orders.changed() => {
                let rules = *orders.borrow_and_update();
                if order.is_err() {
                    return;
                }
                if rules.traffic == Traffic::Refused {
                    listener = None;
                } else if listener.is_none() {
                    listener = bind(address).listen(1024).ok();
                }
            }
            Ok((client, _)) = accepted => {
                links.spawn(link(client, upstream, orders.clone()));
            }
            Some(_) = links.join_next() => {}
        }
    }
}

async fn link(mut client: TcpStream, upstream: SocketAddr, orders: watch::Receiver<Rules>) {
    let cuts = orders.borrow().cuts;
    let Ok(mut server) = TcpStream::connect(upstream).await else {
        return;
    };
    for stream in [&client, &server] {
        // The peer may be gone already.
        drop(stream.set_nodelay(true));
    }
    let was_cut = {
        let (client_in, client_out) = client.split();
        let (server_in, server_out) = server.split();
        let both = async {
            tokio::join!(
                forward(client_in, server_out, orders.clone()),
                forward(server_in, client_out, orders.clone())
            )
        };
        let mut orders = orders.clone();
        tokio::select! {
            _ = both => false,
            _ = orders.wait_for(|rules| rules.cuts != cuts) => true,
        }
    };
    if was_cut {
        // Makes closing a RST, not an orderly end.
        drop(client.set_zero_linger());
        drop(server.set_zero_linger());
    }
}

/// Passes on everything up to the end of the input, and then the end.
async fn forward(mut input: ReadHalf<'_>, mut output: WriteHalf<'_>, mut orders: watch::Receiver<Rules>) {
    let (sender, mut pieces) = mpsc::channel::<(Instant, Vec<u8>)>(IN_FLIGHT);
    let read = async move {
        loop {
            let mut piece = Vec::with_capacity(16 * 1024);
            let read = input.read_buf(&mut piece).await.unwrap_or_default();
            if sender.send((Instant::now(), piece)).await.is_err() || read == 0 {
                return;
            }
        }
    };
    let write = async move {
        while let Some((arrived, piece)) = pieces.recv().await {
            let latency = orders.borrow().latency;
            tokio::time::sleep_until(arrived + latency).await;
            if orders
                .wait_for(|rules| rules.traffic == Traffic::Flows)
                .await
                .is_err()
            {
                return;
            }
            let passed = if piece.is_empty() {
                output.shutdown().await
            } else {
                output.write_all(&piece).await
            };
            if passed.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
}
