//! A WebSocket client that can break every rule of RFC 6455, and that insists on them from the server.

use crate::request::Answer;
use crate::world::DEADLINE;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

pub(crate) const CONTINUATION: u8 = 0x0;
pub(crate) const TEXT: u8 = 0x1;
pub(crate) const BINARY: u8 = 0x2;
pub(crate) const CLOSE: u8 = 0x8;
pub(crate) const PING: u8 = 0x9;
pub(crate) const PONG: u8 = 0xA;

/// A frame about to be sent, legal until a method makes it otherwise.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    first: u8,
    mask: Option<[u8; 4]>,
    length: LengthForm,
    payload: Vec<u8>,
}

#[derive(Clone, Copy, Debug)]
enum LengthForm {
    Minimal,
    Sixteen,
    SixtyFour,
    /// A 64-bit length that need not be true.
    Claimed(u64),
}

impl Draft {
    pub(crate) fn new(opcode: u8, payload: impl AsRef<[u8]>) -> Self {
        Self {
            first: 0x80 | opcode,
            mask: Some([0x37, 0xfa, 0x21, 0x3d]),
            length: LengthForm::Minimal,
            payload: payload.as_ref().to_vec(),
        }
    }

    pub(crate) fn text(payload: impl AsRef<[u8]>) -> Self {
        Self::new(TEXT, payload)
    }

    pub(crate) fn ping(payload: impl AsRef<[u8]>) -> Self {
        Self::new(PING, payload)
    }

    pub(crate) fn close(code: u16, reason: impl AsRef<[u8]>) -> Self {
        let mut payload = code.to_be_bytes().to_vec();
        payload.extend_from_slice(reason.as_ref());
        Self::new(CLOSE, payload)
    }

    /// Not the last frame of its message.
    pub(crate) fn more(mut self) -> Self {
        self.first &= 0x7f;
        self
    }

    /// Sets the reserved bits, 1 to 7.
    pub(crate) fn reserved(mut self, bits: u8) -> Self {
        self.first |= bits << 4;
        self
    }

    pub(crate) fn mask(mut self, key: [u8; 4]) -> Self {
        self.mask = Some(key);
        self
    }

    pub(crate) fn unmasked(mut self) -> Self {
        self.mask = None;
        self
    }

    pub(crate) fn sixteen_bit_length(mut self) -> Self {
        self.length = LengthForm::Sixteen;
        self
    }

    pub(crate) fn sixty_four_bit_length(mut self) -> Self {
        self.length = LengthForm::SixtyFour;
        self
    }

    pub(crate) fn claiming(mut self, length: u64) -> Self {
        self.length = LengthForm::Claimed(length);
        self
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let masked = if self.mask.is_some() { 0x80 } else { 0 };
        let length = self.payload.len();
        let mut bytes = vec![self.first];
        match (self.length, u8::try_from(length), u16::try_from(length)) {
            (LengthForm::Minimal, Ok(short @ 0..=125), _) => bytes.push(masked | short),
            (LengthForm::Minimal | LengthForm::Sixteen, _, Ok(medium)) => {
                bytes.push(masked | 0x7e);
                bytes.extend(medium.to_be_bytes());
            }
            (LengthForm::Claimed(claimed), ..) => {
                bytes.push(masked | 0x7f);
                bytes.extend(claimed.to_be_bytes());
            }
            _ => {
                bytes.push(masked | 0x7f);
                bytes.extend((length as u64).to_be_bytes());
            }
        }
        let start = bytes.len() + if self.mask.is_some() { 4 } else { 0 };
        bytes.extend(self.mask.into_iter().flatten());
        bytes.extend_from_slice(&self.payload);
        if let Some(key) = self.mask {
            for (byte, key) in bytes[start..].iter_mut().zip(key.iter().cycle()) {
                *byte ^= key;
            }
        }
        bytes
    }
}

/// A frame as the server sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) opcode: u8,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn text(&self) -> String {
        String::from_utf8(self.payload.clone()).expect("the server sends UTF-8")
    }

    /// The code and the reason of a close frame.
    pub(crate) fn close(&self) -> Option<(u16, String)> {
        let (code, reason) = self.payload.split_first_chunk::<2>()?;
        let reason = String::from_utf8(reason.to_vec()).expect("a close reason is UTF-8");
        (self.opcode == CLOSE).then(|| (u16::from_be_bytes(*code), reason))
    }
}

/// What came next on the wire.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Frame(Frame),
    /// The server ended its side in an orderly way.
    End,
    /// The connection was torn down (RST).
    Reset,
    /// Nothing within the time given.
    Silence,
}

/// A TCP connection that has been upgraded.
pub(crate) struct Socket {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a WebSocket at this path and checks the server's part of the handshake.
    pub(crate) async fn open(address: SocketAddr, path: &str) -> Self {
        let (socket, answer) = Self::shake(address, &handshake(path, "")).await;
        assert_eq!(answer.status, 101, "{}", answer.text());
        // The value that RFC 6455 derives from its example key.
        assert_eq!(
            answer.header("sec-websocket-accept"),
            Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
        assert!(
            answer
                .header("upgrade")
                .is_some_and(|value| value.eq_ignore_ascii_case("websocket"))
        );
        assert!(
            answer
                .header("connection")
                .is_some_and(|value| value.eq_ignore_ascii_case("upgrade"))
        );
        socket
    }

    /// Opens a WebSocket whose receive buffer is as small as the kernel allows, to be a slow reader early.
    pub(crate) async fn open_with_small_window(address: SocketAddr, path: &str) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket can be made");
        socket
            .set_recv_buffer_size(4096)
            .expect("a TCP option can be set");
        let stream = socket.connect(address).await.expect("the server listens");
        let (socket, answer) = Self::shake_on(stream, &handshake(path, "")).await;
        assert_eq!(answer.status, 101);
        socket
    }

    /// Sends these bytes as the handshake and returns whatever the server said to it.
    pub(crate) async fn shake(address: SocketAddr, request: &[u8]) -> (Self, Answer) {
        let stream = TcpStream::connect(address).await.expect("the server listens");
        Self::shake_on(stream, request).await
    }

    async fn shake_on(stream: TcpStream, request: &[u8]) -> (Self, Answer) {
        stream.set_nodelay(true).expect("a TCP option can be set");
        let mut socket = Self {
            stream,
            buffer: Vec::new(),
        };
        socket.send(request).await;
        let answer = socket.handshake_answer().await;
        (socket, answer)
    }

    async fn handshake_answer(&mut self) -> Answer {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end;
            }
            match timeout(DEADLINE, self.stream.read_buf(&mut self.buffer)).await {
                Ok(Ok(read)) if read > 0 => {}
                other => panic!("the handshake was not answered: {other:?}"),
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
        let head = String::from_utf8(head).expect("header fields are ASCII");
        let mut lines = head.trim_end().split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1))
            .and_then(|code| code.parse().ok());
        let headers = lines
            .map(|line| line.split_once(':').expect("a header line has a colon"))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        Answer {
            status: status.expect("a status line has a code"),
            headers,
            body: Vec::new(),
        }
    }

    /// Whether all bytes were taken; a server that has refused may have closed already.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> bool {
        matches!(timeout(DEADLINE, self.stream.write_all(bytes)).await, Ok(Ok(())))
    }

    pub(crate) async fn send_frame(&mut self, draft: &Draft) -> bool {
        self.send(&draft.bytes()).await
    }

    pub(crate) async fn next(&mut self) -> Seen {
        self.next_within(DEADLINE).await
    }

    pub(crate) async fn next_within(&mut self, limit: Duration) -> Seen {
        let until = tokio::time::Instant::now() + limit;
        loop {
            if let Some(frame) = self.parse() {
                return Seen::Frame(frame);
            }
            match tokio::time::timeout_at(until, self.stream.read_buf(&mut self.buffer)).await {
                Err(_) => return Seen::Silence,
                Ok(Ok(0)) if self.buffer.is_empty() => return Seen::End,
                Ok(Ok(0)) => panic!("the server ended inside a frame: {:?}", self.buffer),
                Ok(Err(_)) => return Seen::Reset,
                Ok(Ok(_)) => {}
            }
        }
    }

    /// Takes one whole frame off the buffer and holds it against what RFC 6455 asks of a server.
    fn parse(&mut self) -> Option<Frame> {
        let (&first, rest) = self.buffer.split_first()?;
        let (&second, rest) = rest.split_first()?;
        let (length, extra) = match second & 0x7f {
            126 => (u64::from(u16::from_be_bytes(*rest.first_chunk()?)), 2),
            127 => (u64::from_be_bytes(*rest.first_chunk()?), 8),
            short => (u64::from(short), 0),
        };
        assert_eq!(second & 0x80, 0, "a server does not mask its frames");
        assert_eq!(
            first & 0xf0,
            0x80,
            "a server here never fragments and never sets reserved bits"
        );
        let minimal = match length {
            0..=125 => 0,
            126..=0xffff => 2,
            _ => 8,
        };
        assert_eq!(extra, minimal, "a length is written in its shortest form");
        let start = 2 + extra;
        let end = start + usize::try_from(length).expect("the server's frames fit into memory");
        if self.buffer.len() < end {
            return None;
        }
        let payload = self.buffer[start..end].to_vec();
        self.buffer.drain(..end);
        Some(Frame {
            opcode: first & 0x0f,
            payload,
        })
    }

    /// Reads up to the server's close frame, answers it, and insists that the connection then ends in order.
    pub(crate) async fn closed(&mut self) -> (u16, String) {
        loop {
            match self.next().await {
                Seen::Frame(frame) if frame.opcode == CLOSE => {
                    let close = frame.close().expect("this server always gives a code");
                    self.send_frame(&Draft::new(CLOSE, &frame.payload)).await;
                    assert_eq!(self.next().await, Seen::End, "after close {close:?}");
                    return close;
                }
                Seen::Frame(_) => {}
                other => panic!("expected a close frame, saw {other:?}"),
            }
        }
    }

    /// Ends our side only.
    pub(crate) async fn half_close(&mut self) {
        // The server may have ended the connection already.
        drop(self.stream.shutdown().await);
    }

    /// Ends the connection without a closing handshake.
    pub(crate) fn abandon(self) {
        drop(self.stream);
    }

    /// Tears the connection down (RST).
    pub(crate) fn reset(self) {
        self.stream.set_zero_linger().expect("a TCP option can be set");
        drop(self.stream);
    }
}

/// An opening handshake with the example key of RFC 6455; `extra` is further header lines, each with CRLF.
pub(crate) fn handshake(path: &str, extra: &str) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.1\r\nHost: test\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{extra}\r\n"
    )
    .into_bytes()
}
