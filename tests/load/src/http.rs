//! Raw HTTP/1.1 towards the publish endpoints: signed requests out, the head of an answer in. And one simple question.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use hmac::{Hmac, Mac};
use md5::{Digest, Md5};
use sha2::Sha256;

use crate::payload::{self, Stamp, number, position};
use crate::target::{Target, keyed};

/// Name of every published event; together with [`crate::fanout::CHANNEL`] it makes a message of 175 bytes.
pub const EVENT_NAME: &str = "bench";

/// How long a server may take to connect, and between two pieces of its answer.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// Asks for `path` and waits for the whole answer, head included.
///
/// # Errors
/// Nobody listens, the answer takes longer than five seconds, or it is not a 200.
pub fn get(addr: SocketAddr, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect_timeout(&addr, ANSWER_DEADLINE)?;
    stream.set_read_timeout(Some(ANSWER_DEADLINE))?;
    write!(
        stream,
        "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    if !answer.starts_with("HTTP/1.1 200") {
        let line = answer.lines().next().unwrap_or_default();
        bail!("{addr} answered {path} with {line:?}");
    }
    Ok(answer)
}

/// Writes signed requests for one app (Pusher docs, "HTTP API reference", authentication).
#[derive(Debug)]
pub struct Signer {
    key: String,
    mac: Hmac<Sha256>,
    app_path: String,
    events_path: String,
    batch_path: String,
    body: Vec<u8>,
}

/// One event to publish.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    pub channel: &'a str,
    pub stamp: Stamp,
    pub payload_bytes: usize,
}

impl Signer {
    pub fn new(target: &Target) -> Self {
        let app_path = format!("/apps/{}", target.app_id);
        Self {
            key: target.app_key.clone(),
            mac: keyed(&target.app_secret),
            events_path: format!("{app_path}/events"),
            batch_path: format!("{app_path}/batch_events"),
            app_path,
            body: Vec::new(),
        }
    }

    /// Appends a request that publishes one event.
    pub fn push_event(&mut self, out: &mut Vec<u8>, event: Event<'_>) {
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        push_event_body(&mut body, event);
        self.push_request(out, &self.events_path, &body, unix_seconds());
        self.body = body;
    }

    /// Appends a request that publishes several events.
    pub fn push_batch<'a>(&mut self, out: &mut Vec<u8>, events: impl Iterator<Item = Event<'a>>) {
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        body.extend_from_slice(b"{\"batch\":[");
        for (at, event) in events.enumerate() {
            if at > 0 {
                body.push(b',');
            }
            push_event_body(&mut body, event);
        }
        body.extend_from_slice(b"]}");
        self.push_request(out, &self.batch_path, &body, unix_seconds());
        self.body = body;
    }

    /// Appends a request that reads below the app's path; `query` needs no escaping, or is refused by the server.
    pub fn push_read(&self, out: &mut Vec<u8>, path: &str, query: &[(&str, &str)]) {
        let seconds = unix_seconds().to_string();
        let mut parameters = vec![
            ("auth_key", self.key.as_str()),
            ("auth_timestamp", &seconds),
            ("auth_version", "1.0"),
        ];
        parameters.extend_from_slice(query);
        parameters.sort_unstable();
        let query: Vec<String> = parameters
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        self.push_signed(
            out,
            "GET",
            &format!("{}{path}", self.app_path),
            &query.join("&"),
            b"",
        );
    }

    fn push_request(&self, out: &mut Vec<u8>, path: &str, body: &[u8], seconds: i64) {
        let md5 = hex::encode(Md5::digest(body));
        let query = format!(
            "auth_key={}&auth_timestamp={seconds}&auth_version=1.0&body_md5={md5}",
            self.key
        );
        self.push_signed(out, "POST", path, &query, body);
    }

    /// `query`: sorted by name.
    fn push_signed(&self, out: &mut Vec<u8>, method: &str, path: &str, query: &str, body: &[u8]) {
        let mut mac = self.mac.clone();
        for part in [method, "\n", path, "\n", query] {
            mac.update(part.as_bytes());
        }
        let signature = hex::encode(mac.finalize().into_bytes());
        let length = body.len().to_string();
        for part in [
            method,
            " ",
            path,
            "?",
            query,
            "&auth_signature=",
            &signature,
            " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ",
            &length,
            "\r\n\r\n",
        ] {
            out.extend_from_slice(part.as_bytes());
        }
        out.extend_from_slice(body);
    }
}

fn push_event_body(out: &mut Vec<u8>, event: Event<'_>) {
    for part in [
        "{\"name\":\"",
        EVENT_NAME,
        "\",\"channel\":\"",
        event.channel,
        "\",\"data\":\"",
    ] {
        out.extend_from_slice(part.as_bytes());
    }
    payload::push(out, event.stamp, event.payload_bytes);
    out.extend_from_slice(b"\"}");
}

fn unix_seconds() -> i64 {
    rustix::time::clock_gettime(rustix::time::ClockId::Realtime).tv_sec
}

/// The start of an answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    pub status: u16,
    /// Bytes up to and including the empty line.
    pub length: usize,
    pub body_length: Option<usize>,
    /// The server closes the connection after this answer.
    pub closes: bool,
}

/// The head at the start of `bytes`, or `None` while it is incomplete.
///
/// # Errors
/// Bytes that are not an HTTP/1 answer.
pub fn head(bytes: &[u8]) -> Result<Option<Head>> {
    let Some(end) = head_end(bytes)? else {
        return Ok(None);
    };
    let mut lines = bytes[..end].split(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let status = first
        .strip_prefix(b"HTTP/1.1 ")
        .or_else(|| first.strip_prefix(b"HTTP/1.0 "))
        .and_then(|rest| number(rest.get(..3)?))
        .and_then(|status| u16::try_from(status).ok())
        .context("the answer is not HTTP/1")?;
    let mut head = Head {
        status,
        length: end + 4,
        body_length: None,
        closes: first.starts_with(b"HTTP/1.0"),
    };
    for (name, value) in lines.filter_map(header) {
        if name.eq_ignore_ascii_case(b"content-length") {
            head.body_length = number(value).and_then(|length| usize::try_from(length).ok());
        } else if name.eq_ignore_ascii_case(b"connection") && value.eq_ignore_ascii_case(b"close") {
            head.closes = true;
        }
    }
    Ok(Some(head))
}

/// A webhook that came to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// With its query, if it has one.
    pub path: &'a [u8],
    /// Its `webhook-id`; empty if it has none.
    pub webhook_id: &'a [u8],
    pub body: &'a [u8],
}

/// The answer that takes a request.
pub const TAKEN: &[u8] = b"HTTP/1.1 204 No Content\r\n\r\n";

/// The request at the start of `bytes` with its length, or `None` while it is incomplete.
///
/// # Errors
/// Bytes that are not a POST over HTTP/1.1 with a `Content-Length`.
pub fn request(bytes: &[u8]) -> Result<Option<(Request<'_>, usize)>> {
    let Some(end) = head_end(bytes)? else {
        return Ok(None);
    };
    let mut lines = bytes[..end].split(|byte| *byte == b'\n');
    let path = lines
        .next()
        .and_then(|line| line.strip_prefix(b"POST "))
        .and_then(|line| line.split(|byte| *byte == b' ').next())
        .context("a request that is no POST")?;
    let (mut webhook_id, mut body_length): (&[u8], _) = (b"", None);
    for (name, value) in lines.filter_map(header) {
        if name.eq_ignore_ascii_case(b"content-length") {
            body_length = number(value).and_then(|length| usize::try_from(length).ok());
        } else if name.eq_ignore_ascii_case(b"webhook-id") {
            webhook_id = value;
        }
    }
    let length = end + 4 + body_length.context("a request without Content-Length")?;
    let request = bytes.get(end + 4..length).map(|body| Request {
        path,
        webhook_id,
        body,
    });
    Ok(request.map(|request| (request, length)))
}

/// Where the empty line begins that ends a head; `None`: not yet.
fn head_end(bytes: &[u8]) -> Result<Option<usize>> {
    let end = position(bytes, b"\r\n\r\n");
    if end.is_none() && bytes.len() > 64 * 1024 {
        bail!("the head of an HTTP message does not end");
    }
    Ok(end)
}

/// Name and value of a line of a head.
fn header(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|byte| *byte == b':')?;
    Some((&line[..colon], line[colon + 1..].trim_ascii()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer() -> Signer {
        Signer::new(&Target::of_the_documentation())
    }

    #[test]
    fn a_request_is_signed_as_in_the_worked_example_of_the_documentation() {
        let signer = signer();
        let body = br#"{"name":"foo","channels":["project-3"],"data":"{\"some\":\"data\"}"}"#;
        let mut out = Vec::new();
        signer.push_request(&mut out, &signer.events_path, body, 1_353_088_179);
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with(
            "POST /apps/3/events?auth_key=278d425bdf160c739803&auth_timestamp=1353088179&auth_version=1.0\
             &body_md5=ec365a775a4cd0599faeb73354201b6f\
             &auth_signature=da454824c97ba181a32ccc17a72625ba02771f50b50e1e7430e47a1f3f457e6c HTTP/1.1\r\n"
        ));
        assert!(text.ends_with(std::str::from_utf8(body).unwrap()));
        assert!(text.contains(&format!("\r\nContent-Length: {}\r\n", body.len())));
    }

    #[test]
    fn a_request_that_reads_is_signed_with_its_parameters_in_order() {
        let signer = signer();
        let mut out = Vec::new();
        signer.push_read(&mut out, "/channels", &[("info", "user_count"), ("after", "7")]);
        let text = String::from_utf8(out).unwrap();
        let start = "GET /apps/3/channels?after=7&auth_key=278d425bdf160c739803&auth_timestamp=";
        assert!(text.starts_with(start), "{text}");
        let (query, signature) = text
            .split_once('?')
            .and_then(|(_, rest)| rest.split_once(" HTTP/1.1"))
            .and_then(|(query, _)| query.split_once("&auth_signature="))
            .unwrap();
        assert!(query.ends_with("&auth_version=1.0&info=user_count"), "{query}");
        let mut mac = keyed("7ad3773142a6692b25b8");
        mac.update(format!("GET\n/apps/3/channels\n{query}").as_bytes());
        assert_eq!(signature, hex::encode(mac.finalize().into_bytes()));
    }

    #[test]
    fn a_batch_is_one_json_body() {
        let mut out = Vec::new();
        let stamps = [1, 2].map(|sequence| Stamp { sequence, sent_at: 5 });
        signer().push_batch(
            &mut out,
            stamps.into_iter().map(|stamp| Event {
                channel: "a",
                stamp,
                payload_bytes: 128,
            }),
        );
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with("POST /apps/3/batch_events?"));
        let body: serde_json::Value = serde_json::from_str(text.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!(body["batch"].as_array().unwrap().len(), 2);
        assert_eq!(body["batch"][1]["data"].as_str().unwrap().len(), 128);
    }

    #[test]
    fn an_answer_is_read_once_its_head_is_complete() {
        let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nConnection: Close\r\n\r\n{}";
        assert_eq!(head(&answer[..20]).unwrap(), None);
        assert_eq!(
            head(answer).unwrap().unwrap(),
            Head {
                status: 200,
                length: answer.len() - 2,
                body_length: Some(2),
                closes: true
            }
        );
        assert!(head(b"SSH-2.0\r\n\r\n").is_err());
    }

    #[test]
    fn a_request_is_read_once_it_is_complete() {
        let bytes = b"POST /hook HTTP/1.1\r\nWebhook-Id: msg_1\r\ncontent-length: 2\r\n\r\n{}POST";
        assert_eq!(request(&bytes[..30]).unwrap(), None);
        let complete = bytes.len() - 4;
        assert_eq!(request(&bytes[..complete - 1]).unwrap(), None);
        let expected = Request {
            path: b"/hook",
            webhook_id: b"msg_1",
            body: b"{}",
        };
        assert_eq!(request(bytes).unwrap(), Some((expected, complete)));
        assert!(request(b"GET / HTTP/1.1\r\n\r\n").is_err());
        assert!(request(b"POST / HTTP/1.1\r\n\r\n").is_err(), "without a length");
    }
}
