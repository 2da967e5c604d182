//! The client that sends.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::HeaderMap;
use reqwest::{Certificate, Client, redirect, retry};

use super::answer::Received;
use super::failure::Failure;
use super::guard::Guard;
use super::resolver::{self, Lookup, Resolver};
use super::url::EndpointUrl;

/// How long a connection with its lookup and its TLS handshake may take. It may outlive the request that wanted it.
const CONNECT_TIME: Duration = Duration::from_secs(10);

/// How long a connection without work is kept, and how many to each host.
const IDLE_TIME: Duration = Duration::from_secs(30);
const IDLE_PER_HOST: usize = 8;

/// An answer may have this many headers over HTTP/1.1, which holds at most 408 KiB of them, and as many bytes of them
/// over HTTP/2.
const MAX_HEADERS: usize = 64;
const MAX_HEADER_BYTES: u32 = 32 * 1024;

/// What a receiver may send over HTTP/2 before we have read it, of one answer and of all.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;

/// A connection of HTTP/2 whose other side has gone away silently would be chosen again and again: it is asked while a
/// request waits.
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIME: Duration = Duration::from_secs(5);

/// Headers that say where a request ends and to whom it goes. They are the client's own: connections are shared by all who
/// have an endpoint at a host, and a wrong length in one's request would be the beginning of the next one's.
const OURS: [&str; 11] = [
    "connection",
    "content-length",
    "expect",
    "host",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Sends POSTs to customers' endpoints. Cheap to clone; clones share connections.
#[derive(Clone, Debug)]
pub struct Egress {
    client: Client,
    guard: Arc<Guard>,
}

impl Egress {
    /// `authorities` are trusted besides the system's, for tests and for receivers inside a company.
    ///
    /// # Errors
    /// An authority is of no use, or the system's cannot be read.
    pub fn new(guard: Arc<Guard>, authorities: Vec<Certificate>) -> Result<Self, reqwest::Error> {
        Self::with_lookup(guard, authorities, resolver::system())
    }

    pub(super) fn with_lookup(
        guard: Arc<Guard>,
        authorities: Vec<Certificate>,
        lookup: Lookup,
    ) -> Result<Self, reqwest::Error> {
        let resolver = Resolver {
            guard: Arc::clone(&guard),
            lookup,
        };
        let client = Client::builder()
            .user_agent(concat!("Dunlin/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(resolver)
            // A proxy would connect in our place, to what we have not judged; a redirection leads there as well.
            .no_proxy()
            .redirect(redirect::Policy::none())
            // An attempt is one request; when there is another one is decided elsewhere.
            .retry(retry::never())
            // Also when another crate of the build turns these features on.
            .no_gzip()
            .no_brotli()
            .no_zstd()
            .no_deflate()
            .tls_certs_merge(authorities)
            .connect_timeout(CONNECT_TIME)
            .pool_idle_timeout(IDLE_TIME)
            .pool_max_idle_per_host(IDLE_PER_HOST)
            .http1_max_headers(MAX_HEADERS)
            .http2_max_header_list_size(MAX_HEADER_BYTES)
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .http2_initial_connection_window_size(CONNECTION_WINDOW)
            .http2_keep_alive_interval(PING_INTERVAL)
            .http2_keep_alive_timeout(PING_TIME)
            .build()?;
        Ok(Self { client, guard })
    }

    /// The rules, to parse URLs with.
    pub fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Sends `body`, and hears the answer out as far as [`Received`] wants it. All of it takes at most `time`.
    ///
    /// A status of any kind is an answer. Headers that belong to the connection are left out.
    ///
    /// # Errors
    /// There was no answer, or only a part of one. Nothing was sent if the kind is `Refused`, `Dns` or `Connect`.
    pub async fn post(
        &self,
        url: &EndpointUrl,
        mut headers: HeaderMap,
        body: Bytes,
        time: Duration,
    ) -> Result<Received, Failure> {
        // The resolver is not asked for a literal address, and the rules may be others than when the URL was parsed.
        url.judge(&self.guard).map_err(|why| Failure::refused(&why))?;
        for name in OURS {
            headers.remove(name);
        }
        let exchange = async {
            let request = self.client.post(url.as_url().clone()).headers(headers).body(body);
            Received::read(request.send().await?).await
        };
        match tokio::time::timeout(time, exchange).await {
            Ok(answer) => answer.map_err(|error| Failure::of(&error)),
            Err(_) => Err(Failure::timed_out(time)),
        }
    }
}
