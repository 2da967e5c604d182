//! A customer's server for webhooks: keeps what it was sent, and answers as the scenario says.

use std::cell::{Ref, RefCell};
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinSet, spawn_local};
use tokio_util::task::AbortOnDropHandle;

/// More than any request has in front of its body.
const HEAD_BYTES: usize = 16 * 1024;

/// What a request is answered with, and how long that takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) after: Duration,
}

/// A delivery that was answered with 200, whether the answer arrived or not.
#[derive(Clone, Debug)]
pub(crate) struct Taken {
    /// The `webhook-id`.
    pub(crate) id: String,
    pub(crate) body: Value,
}

/// Takes requests until it is dropped.
#[derive(Debug)]
pub(crate) struct Receiver {
    address: SocketAddr,
    book: Rc<RefCell<Book>>,
    _accepting: AbortOnDropHandle<()>,
}

#[derive(Debug, Default)]
struct Book {
    taken: Vec<Taken>,
    refused: usize,
}

impl Receiver {
    /// `reply` is asked once for each request.
    ///
    /// # Errors
    /// No port is free.
    pub(crate) async fn start(reply: impl Fn() -> Reply + 'static) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("no free port")?;
        let address = listener.local_addr()?;
        let book = Rc::<RefCell<Book>>::default();
        let accepting = spawn_local(accept(listener, Rc::new(reply), Rc::clone(&book)));
        Ok(Self {
            address,
            book,
            _accepting: AbortOnDropHandle::new(accepting),
        })
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// In the order in which they came.
    pub(crate) fn taken(&self) -> Ref<'_, [Taken]> {
        Ref::map(self.book.borrow(), |book| book.taken.as_slice())
    }

    /// Requests that were not answered with 200.
    pub(crate) fn refused(&self) -> usize {
        self.book.borrow().refused
    }
}

async fn accept(listener: TcpListener, reply: Rc<impl Fn() -> Reply + 'static>, book: Rc<RefCell<Book>>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn_local(converse(stream, Rc::clone(&reply), Rc::clone(&book)));
        while connections.try_join_next().is_some() {}
    }
}

/// One connection, request by request; it ends with the other side, or with anything that is no webhook.
async fn converse(
    mut stream: TcpStream,
    reply: Rc<impl Fn() -> Reply>,
    book: Rc<RefCell<Book>>,
) -> Option<()> {
    let mut buffer = Vec::new();
    loop {
        let (id, body) = read(&mut stream, &mut buffer).await?;
        let reply = reply();
        if reply.status == 200 {
            // A customer who has it says so: the answer may be lost, the event is not.
            book.borrow_mut().taken.push(Taken { id, body });
        } else {
            book.borrow_mut().refused += 1;
        }
        tokio::time::sleep(reply.after).await;
        let answer = format!("HTTP/1.1 {} Said\r\ncontent-length: 0\r\n\r\n", reply.status);
        stream.write_all(answer.as_bytes()).await.ok()?;
    }
}

async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<(String, Value)> {
    let head_end = loop {
        if let Some(at) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
            break at + 4;
        }
        if buffer.len() > HEAD_BYTES || stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    };
    let head = str::from_utf8(&buffer[..head_end]).ok()?;
    let field = |name: &str| {
        let mut fields = head.lines().filter_map(|line| line.split_once(": "));
        fields.find_map(|(other, value)| other.eq_ignore_ascii_case(name).then(|| value.to_owned()))
    };
    let (id, length) = (
        field("webhook-id")?,
        field("content-length")?.parse::<usize>().ok()?,
    );
    while buffer.len() < head_end + length {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let body = serde_json::from_slice(&buffer[head_end..head_end + length]).ok()?;
    buffer.drain(..head_end + length);
    Some((id, body))
}
