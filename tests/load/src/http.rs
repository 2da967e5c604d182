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
pub(crate) const EVENT_NAME: &str = "bench";

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
pub(crate) struct Signer {
    key: String,
    mac: Hmac<Sha256>,
    events_path: String,
    batch_path: String,
    body: Vec<u8>,
}

/// One event to publish.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Event<'a> {
    pub(crate) channel: &'a str,
    pub(crate) stamp: Stamp,
    pub(crate) payload_bytes: usize,
}

impl Signer {
    pub(crate) fn new(target: &Target) -> Self {
        Self {
            key: target.app_key.clone(),
            mac: keyed(&target.app_secret),
            events_path: format!("/apps/{}/events", target.app_id),
            batch_path: format!("/apps/{}/batch_events", target.app_id),
            body: Vec::new(),
        }
    }

    /// Appends a request that publishes one event.
    pub(crate) fn push_event(&mut self, out: &mut Vec<u8>, event: Event<'_>) {
        let mut body = std::mem::take(&mut self.body);
        body.clear();
        push_event_body(&mut body, event);
        self.push_request(out, &self.events_path, &body, unix_seconds());
        self.body = body;
    }

    /// Appends a request that publishes several events.
    pub(crate) fn push_batch<'a>(&mut self, out: &mut Vec<u8>, events: impl Iterator<Item = Event<'a>>) {
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

    fn push_request(&self, out: &mut Vec<u8>, path: &str, body: &[u8], seconds: i64) {
        let md5 = hex::encode(Md5::digest(body));
        let query = format!(
            "auth_key={}&auth_timestamp={seconds}&auth_version=1.0&body_md5={md5}",
            self.key
        );
        let mut mac = self.mac.clone();
        for part in ["POST\n", path, "\n", &query] {
            mac.update(part.as_bytes());
        }
        let signature = hex::encode(mac.finalize().into_bytes());
        let length = body.len().to_string();
        for part in [
            "POST ",
            path,
            "?",
            &query,
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
pub(crate) struct Head {
    pub(crate) status: u16,
    /// Bytes up to and including the empty line.
    pub(crate) length: usize,
    pub(crate) body_length: Option<usize>,
    /// The server closes the connection after this answer.
    pub(crate) closes: bool,
}

/// The head at the start of `bytes`, or `None` while it is incomplete.
///
/// # Errors
/// Bytes that are not an HTTP/1 answer.
pub(crate) fn head(bytes: &[u8]) -> Result<Option<Head>> {
    let Some(end) = position(bytes, b"\r\n\r\n") else {
        if bytes.len() > 64 * 1024 {
            bail!("the head of an HTTP answer does not end");
        }
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
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.eq_ignore_ascii_case(b"content-length") {
            head.body_length = number(value).and_then(|length| usize::try_from(length).ok());
        } else if name.eq_ignore_ascii_case(b"connection") && value.eq_ignore_ascii_case(b"close") {
            head.closes = true;
        }
    }
    Ok(Some(head))
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
}
