//! An HTTP client that sends exactly the bytes it is given, and one on top that signs.

use crate::sign::{hmac_sha256_hex, md5_hex, unix_now};
use crate::world::{App, DEADLINE, World};
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// One HTTP answer, its body already put together.
#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(error) => panic!(
                "status {}: body is not JSON ({error}): {}",
                self.status,
                self.text()
            ),
        }
    }

    /// Insists on the status and on a piece of the text.
    #[track_caller]
    pub(crate) fn assert(&self, status: u16, text: &str) {
        let body = self.text();
        assert!(
            self.status == status && body.contains(text),
            "expected {status} with {text:?}, got {} with {body:?}",
            self.status
        );
    }
}

/// One TCP connection that speaks HTTP/1.1.
pub(crate) struct Http {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Http {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        Self::open_if_possible(address).await.expect("the server listens")
    }

    pub(crate) async fn open_if_possible(address: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(address).await.ok()?;
        stream.set_nodelay(true).expect("a TCP option can be set");
        Some(Self {
            stream,
            buffer: Vec::new(),
        })
    }

    /// Whether all bytes were taken; a server that has refused may have closed already.
    pub(crate) async fn send(&mut self, bytes: &[u8]) -> bool {
        matches!(timeout(DEADLINE, self.stream.write_all(bytes)).await, Ok(Ok(())))
    }

    /// The next answer; interim answers (100) count as answers of their own.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        self.answer_to("GET").await
    }

    pub(crate) async fn answer_to(&mut self, method: &str) -> Option<Answer> {
        let mut answer = self.head().await?;
        let bodiless = method == "HEAD" || answer.status < 200 || matches!(answer.status, 204 | 304);
        if bodiless {
        } else if answer.header("transfer-encoding").is_some() {
            while let Some(chunk) = self.chunk().await.filter(|chunk| !chunk.is_empty()) {
                answer.body.extend(chunk);
            }
        } else if let Some(length) = answer.header("content-length").and_then(|text| text.parse().ok()) {
            answer.body = self.take(length).await?;
        } else {
            while self.fill().await {}
            answer.body = std::mem::take(&mut self.buffer);
        }
        Some(answer)
    }

    /// The status line and headers only; the body can then be read piece by piece.
    pub(crate) async fn head(&mut self) -> Option<Answer> {
        let end = loop {
            if let Some(end) = find(&self.buffer, b"\r\n\r\n") {
                break end;
            }
            if !self.fill().await {
                return None;
            }
        };
        let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
        let head = String::from_utf8(head).expect("header fields are ASCII");
        let mut lines = head.trim_end().split("\r\n");
        let status_line = lines.next().expect("split yields at least one piece");
        let status = status_line.split(' ').nth(1).and_then(|code| code.parse().ok());
        let headers = lines
            .map(|line| line.split_once(':').expect("a header line has a colon"))
            .map(|(name, value)| (name.to_owned(), value.trim().to_owned()))
            .collect();
        Some(Answer {
            status: status.expect("a status line has a code"),
            headers,
            body: Vec::new(),
        })
    }

    /// The next chunk of a chunked body, empty at its end; `None` when the connection ended or stalled.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        self.chunk_within(DEADLINE).await
    }

    pub(crate) async fn chunk_within(&mut self, limit: Duration) -> Option<Vec<u8>> {
        let end = loop {
            if let Some(end) = find(&self.buffer, b"\r\n") {
                break end;
            }
            if !self.fill_within(limit).await {
                return None;
            }
        };
        let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
        let size = std::str::from_utf8(&line).expect("a chunk size is ASCII").trim();
        let size = usize::from_str_radix(size, 16).expect("a chunk size is hexadecimal");
        let mut chunk = self.take(size + 2).await?;
        chunk.truncate(size);
        Some(chunk)
    }

    /// Whatever comes next of a body that lasts as long as the connection.
    pub(crate) async fn piece_within(&mut self, limit: Duration) -> Option<Vec<u8>> {
        if self.buffer.is_empty() && !self.fill_within(limit).await {
            return None;
        }
        Some(std::mem::take(&mut self.buffer))
    }

    /// Ends our side only.
    pub(crate) async fn half_close(&mut self) {
        self.stream
            .shutdown()
            .await
            .expect("an open connection can be half-closed");
    }

    /// Whether the server has ended the connection; pending bytes are thrown away.
    pub(crate) async fn ends_within(&mut self, limit: Duration) -> bool {
        let read = async {
            let mut bytes = [0; 4096];
            while !matches!(self.stream.read(&mut bytes).await, Ok(0) | Err(_)) {}
        };
        timeout(limit, read).await.is_ok()
    }

    async fn take(&mut self, length: usize) -> Option<Vec<u8>> {
        while self.buffer.len() < length {
            if !self.fill().await {
                return None;
            }
        }
        Some(self.buffer.drain(..length).collect())
    }

    async fn fill(&mut self) -> bool {
        self.fill_within(DEADLINE).await
    }

    async fn fill_within(&mut self, limit: Duration) -> bool {
        matches!(timeout(limit, self.stream.read_buf(&mut self.buffer)).await, Ok(Ok(read)) if read > 0)
    }
}

/// A request of the signed API, with every part open to tampering.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub(crate) method: String,
    /// As it stands on the request line, percent-encoding included.
    pub(crate) path: String,
    /// Names and values before any encoding, `auth_signature` excluded.
    pub(crate) query: Vec<(String, String)>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    pub(crate) secret: String,
    pub(crate) encoding: Encoding,
}

/// How a client library writes its query on the wire. All sign the plain text.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Encoding {
    /// As it is (old Go, Node).
    Raw,
    /// Percent-encoded (Ruby, Python, PHP).
    Percent,
    /// As an HTML form would: a space becomes `+` (Java).
    Form,
}

impl Call {
    fn new(method: &str, app: &App, rest: &str, body: Vec<u8>) -> Self {
        let mut call = Self {
            method: method.to_owned(),
            path: app.path(rest),
            query: Vec::new(),
            headers: vec![("Content-Type".to_owned(), "application/json".to_owned())],
            body,
            secret: app.secret.clone(),
            encoding: Encoding::Percent,
        };
        call = call.param("auth_key", &app.key);
        call = call.param("auth_timestamp", &unix_now().to_string());
        call = call.param("auth_version", "1.0");
        if !call.body.is_empty() {
            let digest = md5_hex(&call.body);
            call = call.param("body_md5", &digest);
        }
        call
    }

    /// A POST of a JSON value below the app's path.
    pub(crate) fn post(app: &App, rest: &str, body: &Value) -> Self {
        Self::new("POST", app, rest, body.to_string().into_bytes())
    }

    /// A POST of any bytes below the app's path.
    pub(crate) fn post_bytes(app: &App, rest: &str, body: impl Into<Vec<u8>>) -> Self {
        Self::new("POST", app, rest, body.into())
    }

    pub(crate) fn get(app: &App, rest: &str) -> Self {
        Self::new("GET", app, rest, Vec::new())
    }

    /// Sets a parameter, in place when it is there already.
    pub(crate) fn param(mut self, name: &str, value: &str) -> Self {
        match self.query.iter_mut().find(|(key, _)| key == name) {
            Some((_, old)) => value.clone_into(old),
            None => self.query.push((name.to_owned(), value.to_owned())),
        }
        self
    }

    /// Adds a parameter even when one of that name is there.
    pub(crate) fn also(mut self, name: &str, value: &str) -> Self {
        self.query.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn without(mut self, name: &str) -> Self {
        self.query.retain(|(key, _)| key != name);
        self
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub(crate) fn encoded(mut self, encoding: Encoding) -> Self {
        self.encoding = encoding;
        self
    }

    pub(crate) fn signed_with(mut self, secret: &str) -> Self {
        secret.clone_into(&mut self.secret);
        self
    }

    pub(crate) fn string_to_sign(&self) -> String {
        let mut pairs: Vec<_> = self
            .query
            .iter()
            .map(|(name, value)| (name.to_lowercase(), value.as_str()))
            .collect();
        pairs.sort_by(|left, right| left.0.cmp(&right.0));
        let query: Vec<_> = pairs
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        format!("{}\n{}\n{}", self.method, self.path, query.join("&"))
    }

    pub(crate) fn signature(&self) -> String {
        hmac_sha256_hex(&self.secret, self.string_to_sign().as_bytes())
    }

    /// The bytes on the wire, signed.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        self.bytes_with(Some(&self.signature()))
    }

    /// The bytes on the wire with this signature, or with none.
    pub(crate) fn bytes_with(&self, signature: Option<&str>) -> Vec<u8> {
        let mut pairs: Vec<_> = self
            .query
            .iter()
            .map(|(name, value)| format!("{name}={}", self.encode(value)))
            .collect();
        pairs.extend(signature.map(|signature| format!("auth_signature={signature}")));
        let mut head = format!(
            "{} {}?{} HTTP/1.1\r\nHost: test\r\n",
            self.method,
            self.path,
            pairs.join("&")
        );
        for (name, value) in &self.headers {
            head.push_str(name);
            head.push_str(": ");
            head.push_str(value);
            head.push_str("\r\n");
        }
        let length_given = self.headers.iter().any(|(name, _)| {
            name.eq_ignore_ascii_case("content-length") || name.eq_ignore_ascii_case("transfer-encoding")
        });
        if !length_given && (self.method != "GET" || !self.body.is_empty()) {
            head.push_str("Content-Length: ");
            head.push_str(&self.body.len().to_string());
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }

    fn encode(&self, value: &str) -> String {
        match self.encoding {
            Encoding::Raw => value.to_owned(),
            Encoding::Percent => percent_encode(value),
            Encoding::Form => percent_encode(value).replace("%20", "+"),
        }
    }

    pub(crate) async fn send(&self, world: &World) -> Answer {
        self.send_to(world.nodes[0].address).await
    }

    pub(crate) async fn send_to(&self, address: SocketAddr) -> Answer {
        exchange(address, &self.bytes()).await
    }

    /// Sends it with this signature, or with none.
    pub(crate) async fn send_forged(&self, world: &World, signature: Option<&str>) -> Answer {
        exchange(world.nodes[0].address, &self.bytes_with(signature)).await
    }
}

/// One request of exactly these bytes on a connection of its own.
pub(crate) async fn exchange(address: SocketAddr, bytes: &[u8]) -> Answer {
    let mut http = Http::open(address).await;
    http.send(bytes).await;
    let method = if bytes.starts_with(b"HEAD ") {
        "HEAD"
    } else {
        "GET"
    };
    match http.answer_to(method).await {
        Some(answer) => answer,
        None => panic!(
            "no answer to {:?}",
            String::from_utf8_lossy(&bytes[..bytes.len().min(300)])
        ),
    }
}

/// An unsigned request without a body.
pub(crate) async fn plain(world: &World, method: &str, path: &str) -> Answer {
    let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nContent-Length: 0\r\n\r\n");
    exchange(world.address, head.as_bytes()).await
}

pub(crate) fn percent_encode(text: &str) -> String {
    use std::fmt::Write as _;
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("a string grows");
        }
    }
    out
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}
