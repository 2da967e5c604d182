//! A TCP proxy that can stop carrying, or cut what it carries.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinSet, spawn_local};
use tokio_util::task::AbortOnDropHandle;

const PIECE_BYTES: usize = 16 * 1024;

/// What becomes of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Carriage {
    /// They are carried.
    Running,
    /// They stay where they are, in both directions, ends of streams included, as when packets are dropped. New
    /// connections are accepted by the kernel and hear nothing.
    Stalled,
}

/// How a connection is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Both ends see an orderly end.
    End,
    /// Both ends see a reset.
    Reset,
}

#[derive(Clone, Copy, Debug)]
struct State {
    carriage: Carriage,
    /// How often everything was cut, and how the last time.
    cuts: (u64, Cut),
}

/// Forwards connections to one of several addresses in turn.
#[derive(Debug)]
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    state: watch::Sender<State>,
    _accepting: AbortOnDropHandle<()>,
}

impl Proxy {
    /// # Errors
    /// No port is free.
    pub(crate) async fn start(targets: Vec<SocketAddr>) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("no free port")?;
        let address = listener.local_addr()?;
        let state = watch::Sender::new(State {
            carriage: Carriage::Running,
            cuts: (0, Cut::End),
        });
        let accepting = spawn_local(accept(listener, targets, state.subscribe()));
        Ok(Self {
            address,
            state,
            _accepting: AbortOnDropHandle::new(accepting),
        })
    }

    pub(crate) fn stall(&self) {
        self.state.send_modify(|state| state.carriage = Carriage::Stalled);
    }

    /// Carries again what waited.
    pub(crate) fn heal(&self) {
        self.state.send_modify(|state| state.carriage = Carriage::Running);
    }

    /// Cuts every present connection; new ones are carried.
    pub(crate) fn cut(&self, how: Cut) {
        self.state
            .send_modify(|state| state.cuts = (state.cuts.0 + 1, how));
    }
}

async fn accept(listener: TcpListener, targets: Vec<SocketAddr>, state: watch::Receiver<State>) {
    // Ends with us, and its connections with it.
    let mut connections = JoinSet::new();
    let turn = Rc::new(Cell::new(0_usize));
    while let Ok((stream, _)) = listener.accept().await {
        let (turn, targets, state) = (Rc::clone(&turn), targets.clone(), state.clone());
        connections.spawn_local(async move {
            let mut watching = state.clone();
            if watching.wait_for(is_running).await.is_err() {
                return;
            }
            turn.set(turn.get() + 1);
            let target = targets[turn.get() % targets.len()];
            if let Ok(upstream) = TcpStream::connect(target).await {
                carry(stream, upstream, state).await;
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

fn is_running(state: &State) -> bool {
    state.carriage == Carriage::Running
}

/// Carries both directions until both have ended, or the connection is cut.
async fn carry(mut client: TcpStream, mut upstream: TcpStream, mut state: watch::Receiver<State>) {
    drop(client.set_nodelay(true));
    drop(upstream.set_nodelay(true));
    let cuts = state.borrow().cuts.0;
    let how = {
        let (client_read, client_write) = client.split();
        let (upstream_read, upstream_write) = upstream.split();
        let (there, back) = (state.clone(), state.clone());
        let both = async {
            tokio::join!(
                pump(client_read, upstream_write, there),
                pump(upstream_read, client_write, back)
            )
        };
        tokio::select! {
            // The cut first: what waits in a stall that ends right after it is lost.
            biased;
            cut = state.wait_for(|state| state.cuts.0 > cuts) => cut.map_or(Cut::End, |state| state.cuts.1),
            _ = both => return,
        }
    };
    if how == Cut::Reset {
        drop(client.set_zero_linger());
        drop(upstream.set_zero_linger());
    }
}

/// Carries one direction until its end, and passes the end on.
async fn pump(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, mut state: watch::Receiver<State>) {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        let read = from.read(&mut piece).await.unwrap_or(0);
        // What was read when the stall began stays here until it ends.
        if state.wait_for(is_running).await.is_err() {
            return;
        }
        if read == 0 {
            drop(to.shutdown().await);
            return;
        }
        if to.write_all(&piece[..read]).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::time::timeout;

    /// A proxy in front of a server that sends everything back, and a connection through it.
    async fn with_echo(test: impl AsyncFnOnce(Proxy, TcpStream)) {
        let echo = async {
            let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let address = server.local_addr().unwrap();
            let _serving = AbortOnDropHandle::new(spawn_local(async move {
                let mut connections = JoinSet::new();
                while let Ok((mut stream, _)) = server.accept().await {
                    connections.spawn_local(async move {
                        let (mut read, mut write) = stream.split();
                        drop(tokio::io::copy(&mut read, &mut write).await);
                    });
                }
            }));
            let proxy = Proxy::start(vec![address]).await.unwrap();
            let stream = TcpStream::connect(proxy.address).await.unwrap();
            timeout(Duration::from_secs(10), test(proxy, stream))
                .await
                .unwrap();
        };
        tokio::task::LocalSet::new().run_until(echo).await;
    }

    async fn echoed(stream: &mut TcpStream, byte: u8) -> bool {
        let mut answer = [0];
        let sent = stream.write_all(&[byte]).await.is_ok();
        sent && stream.read_exact(&mut answer).await.is_ok() && answer == [byte]
    }

    #[tokio::test]
    async fn what_waits_in_a_stall_arrives_when_it_ends() {
        with_echo(async |proxy, mut stream| {
            assert!(echoed(&mut stream, b'a').await);
            proxy.stall();
            let mut other = TcpStream::connect(proxy.address).await.unwrap();
            let early = timeout(Duration::from_millis(100), echoed(&mut stream, b'b')).await;
            assert!(early.is_err());
            proxy.heal();
            let mut answer = [0];
            stream.read_exact(&mut answer).await.unwrap();
            assert_eq!(answer, [b'b']);
            assert!(echoed(&mut other, b'c').await);
        })
        .await;
    }

    #[tokio::test]
    async fn a_cut_ends_what_is_there_in_the_way_that_was_asked_for() {
        with_echo(async |proxy, mut stream| {
            assert!(echoed(&mut stream, b'a').await);
            proxy.cut(Cut::Reset);
            assert!(
                stream
                    .read_u8()
                    .await
                    .is_err_and(|error| { error.kind() == std::io::ErrorKind::ConnectionReset })
            );
            let mut stream = TcpStream::connect(proxy.address).await.unwrap();
            assert!(echoed(&mut stream, b'b').await);
            proxy.cut(Cut::End);
            assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
        })
        .await;
    }

    #[tokio::test]
    async fn a_cut_in_a_stall_loses_what_waited() {
        with_echo(async |proxy, mut stream| {
            assert!(echoed(&mut stream, b'a').await);
            proxy.stall();
            stream.write_all(b"b").await.unwrap();
            proxy.cut(Cut::Reset);
            proxy.heal();
            assert!(stream.read_u8().await.is_err());
        })
        .await;
    }
}
