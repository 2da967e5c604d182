//! A receiver that does what a test wants.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::OUTSIDE;
use crate::tasks::Tasks;

/// Listens at [`OUTSIDE`].
pub(super) struct Receiver {
    pub(super) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
}

pub(super) type Connection = BufReader<TcpStream>;

impl Receiver {
    /// `serve` has each connection to itself; the connection is closed when it returns.
    pub(super) async fn start<F>(serve: impl Fn(Connection) -> F + Send + 'static) -> Self
    where
        F: Future<Output = io::Result<()>> + Send + 'static,
    {
        let listener = TcpListener::bind((OUTSIDE, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&accepted);
        // They end with the test's runtime.
        let tasks = Tasks::default();
        let connections = tasks.clone();
        tasks.spawn("receiver", async move {
            while let Ok((stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let serving = serve(BufReader::new(stream));
                // What becomes of it is for the other side to judge.
                connections.spawn("connection", async move { drop(serving.await) });
            }
        });
        Self { address, accepted }
    }

    /// Reads a request, sends this, and so on.
    pub(super) async fn answering(answer: impl Into<Vec<u8>>) -> Self {
        let answer: Arc<[u8]> = answer.into().into();
        Self::start(move |mut connection| {
            let answer = Arc::clone(&answer);
            async move {
                loop {
                    request(&mut connection).await?;
                    connection.write_all(&answer).await?;
                }
            }
        })
        .await
    }

    /// Reads a request, sends this, and closes the connection.
    pub(super) async fn answering_once(answer: impl Into<Vec<u8>>) -> Self {
        let answer: Arc<[u8]> = answer.into().into();
        Self::start(move |mut connection| {
            let answer = Arc::clone(&answer);
            async move {
                request(&mut connection).await?;
                connection.write_all(&answer).await?;
                connection.shutdown().await
            }
        })
        .await
    }

    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    pub(super) fn url(&self) -> String {
        format!("http://{}/hook?a=b", self.address)
    }
}

/// The head of a request, without its body.
pub(super) async fn head(connection: &mut Connection) -> io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if connection.read_line(&mut head).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}

/// A request: its head, in which the names of headers are in lower case, and its body.
pub(super) async fn request(connection: &mut Connection) -> io::Result<(String, Vec<u8>)> {
    let head = head(connection).await?;
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    connection.read_exact(&mut body).await?;
    Ok((head, body))
}

/// An answer with this status line's end, these headers, each with its line's end, and a body.
pub(super) fn answer(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {length}\r\n\r\n{body}")
}
