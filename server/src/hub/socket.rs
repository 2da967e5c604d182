//! What a connection's bytes go through.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use actix_tls::accept::rustls_0_23::TlsStream;
use bytes::BytesMut;
use tokio::io::AsyncWrite;
use tokio::net::TcpStream;
use tokio_util::io::poll_read_buf;

use super::pipe::Pipe;

/// The transport of one connection. Writing never waits.
pub enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
    /// A client that fetches its messages by HTTP requests.
    Pipe(Arc<Pipe>),
}

impl Socket {
    /// Writes what fits. `waker` is woken when more fits, after `WouldBlock`, except on a plain socket, whose owner
    /// polls [`Socket::poll_writable`]: a plain write then costs one system call and no bookkeeping.
    pub fn try_write(&mut self, bytes: &[u8], waker: &Waker) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.try_write(bytes),
            Self::Tls(stream) => {
                let mut cx = Context::from_waker(waker);
                now(Pin::new(&mut **stream).poll_write(&mut cx, bytes))
            }
            Self::Pipe(pipe) => pipe.push(bytes),
        }
    }

    /// Sends what the transport itself holds back; whether nothing is left. `waker` as for [`Socket::try_write`].
    pub fn try_flush(&mut self, waker: &Waker) -> io::Result<bool> {
        let Self::Tls(stream) = self else { return Ok(true) };
        match Pin::new(&mut **stream).poll_flush(&mut Context::from_waker(waker)) {
            Poll::Ready(result) => result.map(|()| true),
            Poll::Pending => Ok(false),
        }
    }

    pub fn poll_writable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(stream) => stream.poll_write_ready(cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_flush(cx),
            Self::Pipe(pipe) => pipe.poll_writable(cx),
        }
    }

    /// Reads what is there into the spare capacity of `buffer`; 0 is the end of the stream.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut BytesMut) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(stream) => poll_read_buf(Pin::new(stream), cx, buffer),
            Self::Tls(stream) => poll_read_buf(Pin::new(&mut **stream), cx, buffer),
            Self::Pipe(_) => Poll::Pending,
        }
    }

    /// Says that nothing more will be sent, as far as that goes without waiting.
    pub fn end(&mut self, waker: &Waker) {
        let mut cx = Context::from_waker(waker);
        // Whether it worked makes no difference: the connection is over, and a deadline ends it in any case.
        drop(match self {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(&mut cx),
            Self::Tls(stream) => Pin::new(&mut **stream).poll_shutdown(&mut cx),
            Self::Pipe(pipe) => {
                pipe.close();
                Poll::Ready(Ok(()))
            }
        });
    }
}

fn now<T>(poll: Poll<io::Result<T>>) -> io::Result<T> {
    match poll {
        Poll::Ready(result) => result,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}
