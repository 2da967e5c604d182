//! A WebSocket, seen from the client: text messages in and out, and how it ended.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, bail};
use dunlin_load::frame::{CLOSE, PING, PONG, TEXT, close_code, first_frame, push_masked};
use dunlin_load::http::head;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// From the first packet to the answer of the handshake.
const OPENING: Duration = Duration::from_secs(5);
const READ_BYTES: usize = 16 * 1024;

/// Why a connection is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The server sent a close frame; 1005 stands for one without a code.
    Closed(u16),
    /// The stream ended or was reset.
    Cut,
    /// It never came about.
    NotOpened,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(code) => write!(f, "close {code}"),
            Self::Cut => f.write_str("end of the stream"),
            Self::NotOpened => f.write_str("no connection"),
        }
    }
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Socket {
    stream: TcpStream,
    received: Vec<u8>,
    unsent: Vec<u8>,
}

impl Socket {
    /// Connects to the app as an official client does.
    ///
    /// # Errors
    /// Nobody listens, or it is no upgrade.
    pub(crate) async fn open(address: SocketAddr, app_key: &str) -> Result<Self> {
        match timeout(OPENING, Self::try_open(address, app_key)).await {
            Ok(opened) => opened,
            Err(_) => bail!("no handshake within {OPENING:?}"),
        }
    }

    async fn try_open(address: SocketAddr, app_key: &str) -> Result<Self> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET /app/{app_key}?protocol=7&client=dunlin-chaos&version=1.0.0&flash=false HTTP/1.1\r\n\
             Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: ZHVubGluLWNoYW9zLTAwMQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await?;
        let mut received = Vec::with_capacity(READ_BYTES);
        let length = loop {
            if let Some(head) = head(&received)? {
                if head.status != 101 {
                    bail!("the handshake was answered with {}", head.status);
                }
                break head.length;
            }
            if stream.read_buf(&mut received).await? == 0 {
                bail!("the connection ended in the handshake");
            }
        };
        received.drain(..length);
        Ok(Self {
            stream,
            received,
            unsent: Vec::new(),
        })
    }

    /// Puts a text message where [`Socket::turn`] sends it from.
    pub(crate) fn say(&mut self, text: &str) {
        push_masked(&mut self.unsent, TEXT, text.as_bytes());
    }

    /// Sends what is to be sent, then hands every whole message that is there to `on`, or waits for more. Returns how
    /// the connection ended, once it has. Not to be given up half-way.
    pub(crate) async fn turn(&mut self, on: &mut impl FnMut(&[u8])) -> Option<End> {
        let unsent = std::mem::take(&mut self.unsent);
        if self.stream.write_all(&unsent).await.is_err() {
            return Some(End::Cut);
        }
        let mut walked = 0;
        let end = loop {
            let frame = match first_frame(&self.received[walked..]) {
                Ok(Some(frame)) => frame,
                Ok(None) => break None,
                Err(_) => break Some(End::Cut),
            };
            walked += frame.length;
            match frame.opcode {
                TEXT => on(frame.payload),
                PING => push_masked(&mut self.unsent, PONG, frame.payload),
                CLOSE => break Some(End::Closed(close_code(frame.payload).unwrap_or(1005))),
                _ => {}
            }
        };
        self.received.drain(..walked);
        if end.is_some() || walked > 0 {
            return end;
        }
        match self.stream.read_buf(&mut self.received).await {
            Ok(0) | Err(_) => Some(End::Cut),
            Ok(_) => None,
        }
    }
}
