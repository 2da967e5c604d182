//! All sockets of a run on one epoll instance, driven by one thread.
//!
//! [`Wire::turn`] waits once and tells a [`Scene`] what happened; the scene may send, open and close on the spot.
//! Connections are named by [`Id`]; a slot may be reused after its connection ended, never before the turn is over.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, EventFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, sockopt};
use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec};
use serde::{Deserialize, Serialize};

use crate::frame::{self, CLOSE, CONTINUATION, PING, PONG, TEXT};
use crate::http;
use crate::payload::position;

/// Names a connection within its [`Wire`].
pub(crate) type Id = usize;

const READ_BYTES: usize = 256 * 1024;
/// Few enough that an answer waits for at most this many reads before the next publish goes out.
const EVENTS_PER_TURN: usize = 256;
/// Connections that wait to be accepted.
const BACKLOG: i32 = 1024;
const TIMER_TOKEN: u64 = u64::MAX;
const SEND_FLAGS: SendFlags = SendFlags::NOSIGNAL.union(SendFlags::DONTWAIT);

/// What a connection speaks.
#[derive(Clone, Debug)]
pub(crate) enum Dialect {
    /// A WebSocket, with the request that opens it.
    WebSocket {
        request: Vec<u8>,
    },
    Http,
    /// A socket that others connect to.
    Listener,
    /// One that came to a listener of ours, and asks.
    Served,
}

impl Dialect {
    /// The Pusher endpoint of an app.
    pub(crate) fn pusher(app_key: &str) -> Self {
        let request = format!(
            "GET /app/{app_key}?protocol=7&client=dunlin-load&version=1.0.0&flash=false HTTP/1.1\r\n\
             Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: ZHVubGluLWxvYWQtMDAwMQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        Self::WebSocket {
            request: request.into_bytes(),
        }
    }
}

/// Why a connection is no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum End {
    /// The server sent a close frame; 1005 stands for one without a code.
    Closed(u16),
    /// The server ended the stream without a close frame.
    Cut,
    /// The connection was reset or never came about.
    Reset,
}

impl std::fmt::Display for End {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Closed(code) => write!(f, "close {code}"),
            Self::Cut => f.write_str("end of stream without a close frame"),
            Self::Reset => f.write_str("reset"),
        }
    }
}

/// What happened on a connection.
#[derive(Debug)]
pub(crate) enum News<'a> {
    /// Ready: connected (HTTP) or upgraded (WebSocket).
    Opened,
    /// A text message.
    Message(&'a [u8]),
    /// An HTTP answer; `closes` when the server ends the connection after it.
    Answer {
        status: u16,
        body: &'a [u8],
        closes: bool,
    },
    /// Somebody asks us over HTTP, and waits for what is sent to this connection. That such a connection ends is no news.
    Request(http::Request<'a>),
    /// Gone; the id is free for reuse.
    Ended(End),
}

/// What a run does with the news.
pub(crate) trait Scene {
    fn on(&mut self, wire: &mut Wire, id: Id, news: News<'_>) -> Result<()>;
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum Phase {
    Connecting,
    Upgrading,
    Open,
}

#[derive(Debug)]
struct Connection {
    socket: OwnedFd,
    dialect: Dialect,
    phase: Phase,
    /// Received bytes of an incomplete frame or answer.
    carry: Vec<u8>,
    unsent: Vec<u8>,
}

#[derive(Debug, Default)]
struct Slot {
    /// Tells a connection from the one that had the slot before.
    generation: u32,
    connection: Option<Connection>,
}

pub(crate) struct Wire {
    epoll: OwnedFd,
    timer: OwnedFd,
    wake_at: Option<u64>,
    started: Instant,
    now: u64,
    slots: Vec<Slot>,
    vacant: Vec<Id>,
    /// Freed in this turn: an event of the old connection may still be in hand.
    freed: Vec<Id>,
    events: Vec<epoll::Event>,
    buffer: Vec<u8>,
    scratch: Vec<u8>,
}

impl Wire {
    pub(crate) fn new() -> Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let timer = rustix::time::timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )?;
        epoll::add(
            &epoll,
            &timer,
            epoll::EventData::new_u64(TIMER_TOKEN),
            EventFlags::IN,
        )?;
        Ok(Self {
            epoll,
            timer,
            wake_at: None,
            started: Instant::now(),
            now: 0,
            slots: Vec::new(),
            vacant: Vec::new(),
            freed: Vec::new(),
            events: Vec::with_capacity(EVENTS_PER_TURN),
            buffer: vec![0; READ_BYTES],
            scratch: Vec::new(),
        })
    }

    /// Nanoseconds since this wire was made, as of the latest read.
    pub(crate) fn now(&self) -> u64 {
        self.now
    }

    /// Reads the clock.
    pub(crate) fn tick(&mut self) -> u64 {
        self.now = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.now
    }

    /// Starts to connect. `receive_buffer` shrinks the kernel's buffer, so that a stalled reader is felt early.
    ///
    /// # Errors
    /// The machine refuses a socket, most often for the limit of open files.
    pub(crate) fn connect(
        &mut self,
        addr: SocketAddr,
        dialect: Dialect,
        receive_buffer: Option<usize>,
    ) -> Result<Id> {
        let family = if addr.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)
            .context("cannot open another socket (is the limit of open files too low?)")?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        if let Some(size) = receive_buffer {
            sockopt::set_socket_recv_buffer_size(&socket, size)?;
        }
        match rustix::net::connect(&socket, &addr) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(error) => return Err(error).with_context(|| format!("cannot connect to {addr}")),
        }
        self.keep(socket, dialect, Phase::Connecting, EventFlags::OUT)
    }

    /// Lets others connect to `addr`, whose requests are told as [`News::Request`].
    ///
    /// # Errors
    /// Somebody else listens there, or the machine refuses a socket.
    pub(crate) fn listen_at(&mut self, addr: SocketAddr) -> Result<()> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let family = if addr.is_ipv4() {
            AddressFamily::INET
        } else {
            AddressFamily::INET6
        };
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
        sockopt::set_socket_reuseaddr(&socket, true)?;
        rustix::net::bind(&socket, &addr).with_context(|| format!("cannot listen on {addr}"))?;
        rustix::net::listen(&socket, BACKLOG)?;
        self.keep(socket, Dialect::Listener, Phase::Open, EventFlags::IN)?;
        Ok(())
    }

    fn accept(&mut self, id: Id) -> Result<()> {
        while let Some(listener) = &self.slots[id].connection {
            let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
            match rustix::net::accept_with(&listener.socket, flags) {
                Ok(socket) => {
                    sockopt::set_tcp_nodelay(&socket, true)?;
                    self.keep(socket, Dialect::Served, Phase::Open, EventFlags::IN)?;
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(error) => return Err(error).context("cannot accept a connection"),
            }
        }
        Ok(())
    }

    fn keep(&mut self, socket: OwnedFd, dialect: Dialect, phase: Phase, flags: EventFlags) -> Result<Id> {
        let id = self.vacant.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        epoll::add(&self.epoll, &socket, self.token(id), flags)?;
        self.slots[id].connection = Some(Connection {
            socket,
            dialect,
            phase,
            carry: Vec::new(),
            unsent: Vec::new(),
        });
        Ok(id)
    }

    fn token(&self, id: Id) -> epoll::EventData {
        epoll::EventData::new_u64(u64::from(self.slots[id].generation) << 32 | id as u64)
    }

    /// Sends a text message; what the socket does not take now follows when it can. A connection that has just
    /// ended swallows it: its end is reported by itself.
    pub(crate) fn send_text(&mut self, id: Id, text: &[u8]) -> Result<()> {
        self.send_frame(id, TEXT, text)
    }

    fn send_frame(&mut self, id: Id, opcode: u8, payload: &[u8]) -> Result<()> {
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        frame::push_masked(&mut scratch, opcode, payload);
        let sent = self.send(id, &scratch);
        self.scratch = scratch;
        sent
    }

    /// Sends raw bytes, as [`Wire::send_text`] does.
    pub(crate) fn send(&mut self, id: Id, bytes: &[u8]) -> Result<()> {
        let Some(connection) = self.slots[id].connection.as_mut() else {
            return Ok(());
        };
        if !connection.unsent.is_empty() {
            connection.unsent.extend_from_slice(bytes);
            return Ok(());
        }
        let sent = match rustix::net::send(&connection.socket, bytes, SEND_FLAGS) {
            Ok(sent) => sent,
            Err(Errno::AGAIN) => 0,
            // The read side reports the end, with a close code if there is one to read.
            Err(Errno::PIPE | Errno::CONNRESET) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        if sent < bytes.len() {
            connection.unsent.extend_from_slice(&bytes[sent..]);
            self.listen(id)?;
        }
        Ok(())
    }

    /// Tells epoll what this connection waits for now.
    fn listen(&self, id: Id) -> Result<()> {
        let Some(connection) = &self.slots[id].connection else {
            return Ok(());
        };
        let flags = if connection.unsent.is_empty() {
            EventFlags::IN
        } else {
            EventFlags::IN | EventFlags::OUT
        };
        epoll::modify(&self.epoll, &connection.socket, self.token(id), flags)?;
        Ok(())
    }

    /// Says goodbye with a close frame and drops the connection.
    pub(crate) fn leave(&mut self, id: Id) -> Result<()> {
        self.send_frame(id, CLOSE, &1000_u16.to_be_bytes())?;
        self.hang_up(id);
        Ok(())
    }

    /// Drops a connection without a word; nothing more is reported of it.
    pub(crate) fn hang_up(&mut self, id: Id) {
        if self.slots[id].connection.take().is_some() {
            self.slots[id].generation = self.slots[id].generation.wrapping_add(1);
            self.freed.push(id);
        }
    }

    /// Drops every connection.
    pub(crate) fn hang_up_all(&mut self) {
        for id in 0..self.slots.len() {
            self.hang_up(id);
        }
    }

    fn is_open(&self, id: Id) -> bool {
        self.slots[id].connection.is_some()
    }

    /// Waits until something happens or the clock reaches `wake_at`, and reports all of it.
    ///
    /// # Errors
    /// What the scene returned, a server that breaks its protocol, or the machine refusing a system call.
    pub(crate) fn turn(&mut self, scene: &mut impl Scene, wake_at: u64) -> Result<()> {
        self.vacant.append(&mut self.freed);
        self.set_alarm(wake_at)?;
        let mut events = std::mem::take(&mut self.events);
        events.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut events), None) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.tick();
        for event in &events {
            let (token, flags) = (event.data.u64(), event.flags);
            if token == TIMER_TOKEN {
                self.wake_at = None;
                // Level-triggered and reset by the next alarm; the number of expirations is of no interest.
                let mut expirations = [0_u8; 8];
                match rustix::io::read(&self.timer, &mut expirations[..]) {
                    Ok(_) | Err(Errno::AGAIN) => continue,
                    Err(error) => return Err(error.into()),
                }
            }
            let id = usize::try_from(token & u64::from(u32::MAX))?;
            if token >> 32 == u64::from(self.slots[id].generation) && self.is_open(id) {
                self.on_ready(scene, id, flags)?;
            }
        }
        self.events = events;
        Ok(())
    }

    fn set_alarm(&mut self, wake_at: u64) -> Result<()> {
        if self.wake_at == Some(wake_at) {
            return Ok(());
        }
        self.wake_at = Some(wake_at);
        // Zero would disarm the timer, so a time already past is one nanosecond away.
        let pause = wake_at.saturating_sub(self.tick()).max(1);
        let it_value = Timespec {
            tv_sec: i64::try_from(pause / 1_000_000_000)?,
            tv_nsec: i64::try_from(pause % 1_000_000_000)?,
        };
        let it_interval = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        rustix::time::timerfd_settime(
            &self.timer,
            TimerfdTimerFlags::empty(),
            &Itimerspec {
                it_interval,
                it_value,
            },
        )?;
        Ok(())
    }

    fn on_ready(&mut self, scene: &mut impl Scene, id: Id, flags: EventFlags) -> Result<()> {
        let Some(connection) = self.slots[id].connection.as_mut() else {
            return Ok(());
        };
        if connection.phase == Phase::Connecting {
            if sockopt::socket_error(&connection.socket)?.is_err() {
                return self.ended(scene, id, End::Reset);
            }
            let request = match &connection.dialect {
                Dialect::WebSocket { request } => request.clone(),
                Dialect::Http | Dialect::Listener | Dialect::Served => Vec::new(),
            };
            connection.phase = if request.is_empty() {
                Phase::Open
            } else {
                Phase::Upgrading
            };
            self.listen(id)?;
            return if request.is_empty() {
                scene.on(self, id, News::Opened)
            } else {
                self.send(id, &request)
            };
        }
        if matches!(connection.dialect, Dialect::Listener) {
            return self.accept(id);
        }
        if flags.contains(EventFlags::OUT) && !connection.unsent.is_empty() {
            let bytes = std::mem::take(&mut connection.unsent);
            self.send(id, &bytes)?;
            self.listen(id)?;
        }
        if flags.intersects(EventFlags::IN | EventFlags::HUP | EventFlags::ERR) {
            self.read(scene, id)?;
        }
        Ok(())
    }

    fn read(&mut self, scene: &mut impl Scene, id: Id) -> Result<()> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let outcome = self.read_into(&mut buffer, scene, id);
        self.buffer = buffer;
        outcome
    }

    fn read_into(&mut self, buffer: &mut [u8], scene: &mut impl Scene, id: Id) -> Result<()> {
        let Some(connection) = self.slots[id].connection.as_mut() else {
            return Ok(());
        };
        let received = match rustix::io::read(&connection.socket, &mut *buffer) {
            Ok(0) => return self.ended(scene, id, End::Cut),
            Ok(received) => received,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(_) => return self.ended(scene, id, End::Reset),
        };
        let mut carry = std::mem::take(&mut connection.carry);
        self.tick();
        let generation = self.slots[id].generation;
        let bytes = if carry.is_empty() {
            &buffer[..received]
        } else {
            carry.extend_from_slice(&buffer[..received]);
            carry.as_slice()
        };
        let used = self.walk(bytes, scene, id)?;
        if self.slots[id].generation != generation {
            return Ok(());
        }
        let rest = bytes.len() - used;
        if carry.is_empty() {
            carry.extend_from_slice(&buffer[used..received]);
        } else {
            carry.copy_within(used.., 0);
            carry.truncate(rest);
        }
        if let Some(connection) = self.slots[id].connection.as_mut() {
            connection.carry = carry;
        }
        Ok(())
    }

    /// Reports everything complete in `bytes` and returns how many bytes that was.
    fn walk(&mut self, bytes: &[u8], scene: &mut impl Scene, id: Id) -> Result<usize> {
        let mut used = 0;
        while let Some(connection) = &self.slots[id].connection {
            let rest = &bytes[used..];
            if rest.is_empty() {
                break;
            }
            let step = match (connection.phase, &connection.dialect) {
                (Phase::Upgrading, _) => self.on_upgrade(rest, scene, id)?,
                (_, Dialect::Http) => self.on_answer(rest, scene, id)?,
                (_, Dialect::Listener | Dialect::Served) => self.on_request(rest, scene, id)?,
                (_, Dialect::WebSocket { .. }) => self.on_frame(rest, scene, id)?,
            };
            if step == 0 {
                break;
            }
            used += step;
        }
        Ok(used)
    }

    fn on_upgrade(&mut self, bytes: &[u8], scene: &mut impl Scene, id: Id) -> Result<usize> {
        let Some(end) = position(bytes, b"\r\n\r\n") else {
            return Ok(0);
        };
        if !bytes.starts_with(b"HTTP/1.1 101") {
            let line = bytes.split(|byte| *byte == b'\r').next().unwrap_or_default();
            bail!(
                "the server refused the upgrade: {}",
                String::from_utf8_lossy(line)
            );
        }
        if let Some(connection) = self.slots[id].connection.as_mut() {
            connection.phase = Phase::Open;
        }
        scene.on(self, id, News::Opened)?;
        Ok(end + 4)
    }

    fn on_answer(&mut self, bytes: &[u8], scene: &mut impl Scene, id: Id) -> Result<usize> {
        let Some(head) = http::head(bytes)? else {
            return Ok(0);
        };
        let length = head.length
            + head
                .body_length
                .context("an HTTP answer without Content-Length")?;
        let Some(body) = bytes.get(head.length..length) else {
            return Ok(0);
        };
        scene.on(
            self,
            id,
            News::Answer {
                status: head.status,
                body,
                closes: head.closes,
            },
        )?;
        Ok(length)
    }

    fn on_request(&mut self, bytes: &[u8], scene: &mut impl Scene, id: Id) -> Result<usize> {
        let Some((request, length)) = http::request(bytes)? else {
            return Ok(0);
        };
        scene.on(self, id, News::Request(request))?;
        Ok(length)
    }

    fn on_frame(&mut self, bytes: &[u8], scene: &mut impl Scene, id: Id) -> Result<usize> {
        let Some(frame) = frame::first_frame(bytes)? else {
            return Ok(0);
        };
        match frame.opcode {
            TEXT if frame.payload.len() < 80 && frame.payload.starts_with(b"{\"event\":\"pusher:ping\"") => {
                self.send_text(id, b"{\"event\":\"pusher:pong\",\"data\":{}}")?;
            }
            TEXT => scene.on(self, id, News::Message(frame.payload))?,
            PING => self.send_frame(id, PONG, frame.payload)?,
            CLOSE => {
                let code = frame::close_code(frame.payload).unwrap_or(1005);
                self.send_frame(id, CLOSE, frame.payload)?;
                self.ended(scene, id, End::Closed(code))?;
            }
            PONG => {}
            CONTINUATION => bail!("the server sent a fragmented message"),
            other => bail!("the server sent a frame of unknown kind {other}"),
        }
        Ok(frame.length)
    }

    fn ended(&mut self, scene: &mut impl Scene, id: Id, end: End) -> Result<()> {
        let connection = self.slots[id].connection.as_ref();
        let is_served = connection.is_some_and(|it| matches!(it.dialect, Dialect::Served));
        self.hang_up(id);
        if is_served {
            return Ok(());
        }
        scene.on(self, id, News::Ended(end))
    }
}
