//! A small server that errs on purpose, and drops a subscriber that does not read.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use dunlin_load::{Node, Target};

/// A write that takes longer meets a subscriber that does not read.
const SLOW: Duration = Duration::from_millis(200);

/// What the server does wrong.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Vice {
    None,
    /// Keeps every 10th message from its last subscriber.
    Loses,
    /// Sends every 10th message twice to its last subscriber.
    Repeats,
    /// Lets its last subscriber have every 10th message one message late.
    Swaps,
    /// Tells the members twice of everybody whose name ends in 7.
    AddsTwice,
    /// Closes the connection after each HTTP answer.
    ForgetsKeepAlive,
    Refuses,
}

/// Threads and locks, nothing else: a connection is read by a thread and written to under one lock.
struct Server {
    vice: Vice,
    subscribers: Mutex<Vec<Subscriber>>,
    published: AtomicU32,
    sockets: AtomicU32,
}

struct Subscriber {
    socket: u32,
    stream: TcpStream,
    channel: String,
    user: String,
    held_back: Option<Vec<u8>>,
}

pub(crate) fn start(vice: Vice) -> Target {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr: SocketAddr = listener.local_addr().unwrap();
    let server = Arc::new(Server {
        vice,
        subscribers: Mutex::default(),
        published: AtomicU32::new(0),
        sockets: AtomicU32::new(0),
    });
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let server = Arc::clone(&server);
            thread::spawn(move || server.serve(stream));
        }
    });
    Target {
        nodes: vec![Node {
            addr,
            pid: Some(std::process::id()),
            metrics: None,
        }],
        app_id: "1".into(),
        app_key: "key".into(),
        app_secret: "secret".into(),
        receiver: None,
    }
}

impl Server {
    fn serve(&self, mut stream: TcpStream) -> Option<()> {
        stream.set_nodelay(true).ok()?;
        stream.set_write_timeout(Some(SLOW)).ok()?;
        let mut buffer = Vec::new();
        loop {
            let head = take_until(&mut stream, &mut buffer, b"\r\n\r\n")?;
            if head.starts_with("GET /app/") {
                return self.serve_socket(stream, buffer);
            }
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("Content-Length: "))?
                .parse()
                .ok()?;
            let body = take(&mut stream, &mut buffer, length)?;
            let body: serde_json::Value = serde_json::from_slice(&body).ok()?;
            self.publish(&body);
            let (status, connection) = match self.vice {
                Vice::ForgetsKeepAlive => ("200 OK", "close"),
                Vice::Refuses => ("401 Unauthorized", "keep-alive"),
                _ => ("200 OK", "keep-alive"),
            };
            let answer =
                format!("HTTP/1.1 {status}\r\nConnection: {connection}\r\nContent-Length: 2\r\n\r\n{{}}");
            stream.write_all(answer.as_bytes()).ok()?;
            if self.vice == Vice::ForgetsKeepAlive {
                return None;
            }
        }
    }

    fn publish(&self, body: &serde_json::Value) {
        let mut subscribers = self.subscribers.lock().unwrap();
        // Counted in the order in which they are sent: two wrong ones in a row would be another vice.
        let number = self.published.fetch_add(1, Ordering::Relaxed) + 1;
        let wrong = number.is_multiple_of(10);
        let last = subscribers.len().saturating_sub(1);
        let message = serde_json::json!({
            "event": body["name"], "channel": body["channel"], "data": body["data"],
        });
        let bytes = frame(&message.to_string());
        let channel = body["channel"].as_str().unwrap_or_default();
        let mut place = 0;
        subscribers.retain_mut(|subscriber| {
            let is_last = place == last;
            place += 1;
            subscriber.channel != channel || self.deliver(subscriber, &bytes, wrong && is_last)
        });
    }

    /// False when the subscriber was too slow and has been dropped.
    fn deliver(&self, subscriber: &mut Subscriber, bytes: &[u8], wrong: bool) -> bool {
        let copies = match self.vice {
            Vice::Loses if wrong => 0,
            Vice::Repeats if wrong => 2,
            Vice::Swaps if wrong => {
                subscriber.held_back = Some(bytes.to_vec());
                return true;
            }
            _ => 1,
        };
        let late = subscriber.held_back.take().unwrap_or_default();
        let sent = [bytes.repeat(copies), late].concat();
        if subscriber.stream.write_all(&sent).is_err() {
            // It is gone already, or it is told that way.
            drop(subscriber.stream.shutdown(Shutdown::Both));
            return false;
        }
        true
    }

    fn serve_socket(&self, mut stream: TcpStream, mut buffer: Vec<u8>) -> Option<()> {
        let socket = self.sockets.fetch_add(1, Ordering::Relaxed);
        stream
            .write_all(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")
            .ok()?;
        let hello = format!(
            r#"{{"event":"pusher:connection_established","data":"{{\"socket_id\":\"1.{socket}\",\"activity_timeout\":120}}"}}"#
        );
        stream.write_all(&frame(&hello)).ok()?;
        while let Some(text) = take_masked(&mut stream, &mut buffer) {
            let message: serde_json::Value = serde_json::from_slice(&text).ok()?;
            if message["event"] == "pusher:subscribe" {
                self.subscribe(socket, &stream, &message["data"]);
            } else {
                self.relay(socket, &message);
            }
        }
        self.leave(socket)
    }

    fn subscribe(&self, socket: u32, stream: &TcpStream, data: &serde_json::Value) {
        let channel = data["channel"].as_str().unwrap().to_owned();
        let user = data["channel_data"]
            .as_str()
            .map(|text| serde_json::from_str::<serde_json::Value>(text).unwrap()["user_id"].clone());
        let user = user
            .and_then(|user| Some(user.as_str()?.to_owned()))
            .unwrap_or_default();
        let mut subscribers = self.subscribers.lock().unwrap();
        let mut own = "{}".to_owned();
        if channel.starts_with("presence-") {
            let others = subscribers.iter_mut().filter(|other| other.channel == channel);
            let mut ids = vec![user.clone()];
            let added = serde_json::json!({
                "event": "pusher_internal:member_added", "channel": channel,
                "data": serde_json::json!({"user_id": user}).to_string(),
            });
            let times = if self.vice == Vice::AddsTwice && user.ends_with('7') {
                2
            } else {
                1
            };
            for other in others {
                ids.push(other.user.clone());
                for _ in 0..times {
                    other.stream.write_all(&frame(&added.to_string())).unwrap();
                }
            }
            own = serde_json::json!({"presence": {"count": ids.len(), "ids": ids, "hash": {}}}).to_string();
        }
        let reply = serde_json::json!({
            "event": "pusher_internal:subscription_succeeded", "channel": channel, "data": own,
        });
        let mut stream = stream.try_clone().unwrap();
        stream.write_all(&frame(&reply.to_string())).unwrap();
        subscribers.push(Subscriber {
            socket,
            stream,
            channel,
            user,
            held_back: None,
        });
    }

    fn relay(&self, sender: u32, message: &serde_json::Value) {
        let bytes = frame(&message.to_string());
        for other in self
            .subscribers
            .lock()
            .unwrap()
            .iter_mut()
            .filter(|other| other.socket != sender)
        {
            other.stream.write_all(&bytes).unwrap();
        }
    }

    fn leave(&self, gone: u32) -> Option<()> {
        let mut subscribers = self.subscribers.lock().unwrap();
        let at = subscribers
            .iter()
            .position(|subscriber| subscriber.socket == gone)?;
        let leaver = subscribers.remove(at);
        let removed = serde_json::json!({
            "event": "pusher_internal:member_removed", "channel": leaver.channel,
            "data": serde_json::json!({"user_id": leaver.user}).to_string(),
        });
        for other in subscribers
            .iter_mut()
            .filter(|other| other.channel == leaver.channel)
        {
            // The other side may be leaving as well.
            drop(other.stream.write_all(&frame(&removed.to_string())));
        }
        Some(())
    }
}

fn fill(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let mut chunk = [0; 4096];
    match stream.read(&mut chunk) {
        Ok(0) | Err(_) => None,
        Ok(bytes) => {
            buffer.extend_from_slice(&chunk[..bytes]);
            Some(())
        }
    }
}

fn take(stream: &mut TcpStream, buffer: &mut Vec<u8>, length: usize) -> Option<Vec<u8>> {
    while buffer.len() < length {
        fill(stream, buffer)?;
    }
    Some(buffer.drain(..length).collect())
}

fn take_until(stream: &mut TcpStream, buffer: &mut Vec<u8>, end: &[u8]) -> Option<String> {
    loop {
        if let Some(at) = buffer.windows(end.len()).position(|window| window == end) {
            return String::from_utf8(buffer.drain(..at + end.len()).collect()).ok();
        }
        fill(stream, buffer)?;
    }
}

/// The payload of the next client frame; the close frame ends the stream.
fn take_masked(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let head = take(stream, buffer, 2)?;
    if head[0] & 0x0F == 0x8 {
        return None;
    }
    let length = match head[1] & 0x7F {
        126 => {
            let length = take(stream, buffer, 2)?;
            usize::from(u16::from_be_bytes([length[0], length[1]]))
        }
        short => usize::from(short),
    };
    let key = take(stream, buffer, 4)?;
    let masked = take(stream, buffer, length)?;
    Some(
        masked
            .iter()
            .zip(key.iter().cycle())
            .map(|(byte, key)| byte ^ key)
            .collect(),
    )
}

fn frame(text: &str) -> Vec<u8> {
    let mut bytes = vec![0x81];
    match u16::try_from(text.len()).unwrap() {
        short @ 0..126 => bytes.push(u8::try_from(short).unwrap()),
        long => {
            bytes.push(126);
            bytes.extend_from_slice(&long.to_be_bytes());
        }
    }
    bytes.extend_from_slice(text.as_bytes());
    bytes
}
