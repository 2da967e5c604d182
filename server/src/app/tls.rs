//! The certificate of the port with TLS: read at the start, and again whenever its files change.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::config::TlsSection;
use crate::lock::lock;

/// A certificate with its key, which may be exchanged while connections use it: those that are open keep the old one.
#[derive(Debug)]
pub struct Certificate {
    cert_path: PathBuf,
    key_path: PathBuf,
    current: ArcSwap<CertifiedKey>,
    /// What the files looked like when they were last read, whether they were any good or not.
    seen: Mutex<Option<[Fingerprint; 2]>>,
}

/// Tells a file from what it was before, without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fingerprint {
    device: u64,
    inode: u64,
    bytes: u64,
    modified: (i64, i64),
}

impl Certificate {
    /// # Errors
    /// A file cannot be read, is not PEM, or the key is not the certificate's. The text names the option.
    pub fn load(section: &TlsSection) -> anyhow::Result<Arc<Self>> {
        let (cert_path, key_path) = (section.cert_path.clone(), section.key_path.clone());
        let seen = fingerprints(&cert_path, &key_path).ok();
        let current = ArcSwap::from_pointee(read(&cert_path, &key_path)?);
        Ok(Arc::new(Self {
            cert_path,
            key_path,
            current,
            seen: Mutex::new(seen),
        }))
    }

    /// Looks whether the files have changed, and takes them over if they are a pair. Whoever replaces two files does so
    /// one after the other: a pair that does not fit is warned of once, and looked at again when either changes.
    pub fn look(&self) {
        let mut seen = lock(&self.seen);
        let now = fingerprints(&self.cert_path, &self.key_path).ok();
        if *seen == now {
            return;
        }
        *seen = now;
        match read(&self.cert_path, &self.key_path) {
            Ok(pair) => {
                self.current.store(Arc::new(pair));
                tracing::info!("the certificate was read again: new connections get the new one");
            }
            Err(error) => {
                tracing::warn!("the certificate has changed and is no good; the one before stays: {error:#}");
            }
        }
    }

    /// What a listener is built from.
    ///
    /// # Errors
    /// The cryptography does not support the versions of TLS; it does.
    pub fn server_config(self: &Arc<Self>) -> Result<ServerConfig, rustls::Error> {
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(self) as Arc<dyn ResolvesServerCert>);
        Ok(config)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load_full())
    }
}

fn fingerprints(cert_path: &Path, key_path: &Path) -> io::Result<[Fingerprint; 2]> {
    Ok([fingerprint(cert_path)?, fingerprint(key_path)?])
}

/// Follows symbolic links: that is how secrets are mounted and exchanged in containers.
fn fingerprint(path: &Path) -> io::Result<Fingerprint> {
    let file = fs::metadata(path)?;
    Ok(Fingerprint {
        device: file.dev(),
        inode: file.ino(),
        bytes: file.size(),
        modified: (file.mtime(), file.mtime_nsec()),
    })
}

fn read(cert_path: &Path, key_path: &Path) -> anyhow::Result<CertifiedKey> {
    let of_certificate = || format!("tls.cert_path: {}", cert_path.display());
    let of_key = || format!("tls.key_path: {}", key_path.display());
    let chain = CertificateDer::pem_file_iter(cert_path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .with_context(of_certificate)?;
    anyhow::ensure!(!chain.is_empty(), "{}: holds no certificate", of_certificate());
    let key = PrivateKeyDer::from_pem_file(key_path).with_context(of_key)?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
        .with_context(|| format!("{} is not the key of {}", of_key(), of_certificate()))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::time::Duration;

    use dunlin_protocol::signature::Secret;
    use futures_util::{SinkExt as _, StreamExt as _};
    use md5::{Digest as _, Md5};
    use rustls::pki_types::ServerName;
    use rustls::{ClientConfig, RootCertStore};
    use serde_json::{Value, json};
    use tokio::net::{TcpSocket, TcpStream};
    use tokio_rustls::TlsConnector;
    use tokio_rustls::client::TlsStream;
    use tokio_tungstenite::tungstenite::Message;
    use tokio_tungstenite::{WebSocketStream, client_async};

    use super::*;
    use crate::app::run::{Node, Stop};
    use crate::app::tests::{self, DEADLINE};
    use crate::clock;

    /// A directory with a pair of files, gone when dropped.
    struct Files(PathBuf);

    impl Files {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("dunlin-tls-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn section(&self) -> TlsSection {
            TlsSection {
                port: 1,
                cert_path: self.0.join("cert.pem"),
                key_path: self.0.join("key.pem"),
                reload_interval: Duration::ZERO,
            }
        }

        /// Writes a fresh pair for `localhost` and returns the certificate.
        fn renew(&self) -> CertificateDer<'static> {
            let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            fs::write(self.0.join("key.pem"), pair.signing_key.serialize_pem()).unwrap();
            fs::write(self.0.join("cert.pem"), pair.cert.pem()).unwrap();
            pair.cert.der().clone()
        }
    }

    impl Drop for Files {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    fn connector(trusted: &CertificateDer<'static>) -> TlsConnector {
        let mut roots = RootCertStore::empty();
        roots.add(trusted.clone()).unwrap();
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        TlsConnector::from(Arc::new(config))
    }

    /// Fails if the server shows another certificate. The kernel keeps little for a reader that does not read.
    async fn connect(at: SocketAddr, trusted: &CertificateDer<'static>) -> io::Result<TlsStream<TcpStream>> {
        let socket = TcpSocket::new_v4()?;
        socket.set_recv_buffer_size(4096)?;
        let stream = socket.connect(at).await?;
        let name = ServerName::try_from("localhost").unwrap();
        connector(trusted).connect(name, stream).await
    }

    type Client = WebSocketStream<TlsStream<TcpStream>>;

    /// The event of the next message and its data.
    async fn next(client: &mut Client) -> (String, String) {
        let message = tokio::time::timeout(DEADLINE, client.next())
            .await
            .expect("within the deadline");
        let frame: Value = serde_json::from_str(message.unwrap().unwrap().to_text().unwrap()).unwrap();
        let text = |name: &str| frame[name].as_str().unwrap_or_default().to_owned();
        (text("event"), text("data"))
    }

    /// Connects by `wss://` and subscribes to `room`.
    async fn subscriber(at: SocketAddr, trusted: &CertificateDer<'static>) -> Client {
        let stream = connect(at, trusted).await.unwrap();
        let url = format!("wss://localhost:{}/app/app-key?protocol=7", at.port());
        let (mut client, _) = client_async(url, stream).await.unwrap();
        assert_eq!(next(&mut client).await.0, "pusher:connection_established");
        let subscribe = json!({ "event": "pusher:subscribe", "data": { "channel": "room" } });
        client.send(Message::text(subscribe.to_string())).await.unwrap();
        loop {
            if next(&mut client).await.0 == "pusher_internal:subscription_succeeded" {
                return client;
            }
        }
    }

    /// Publishes to `room` by `https://`.
    async fn publish(at: SocketAddr, trusted: &CertificateDer<'static>, event: &str, data: &str) {
        let body = json!({ "name": event, "channel": "room", "data": data }).to_string();
        let query = format!(
            "auth_key=app-key&auth_timestamp={}&auth_version=1.0&body_md5={}",
            clock::unix_seconds(),
            hex::encode(Md5::digest(&body))
        );
        let signed = format!("POST\n/apps/app-id/events\n{query}");
        let signature = Secret::new("app-secret").sign_hex(&[signed.as_bytes()]);
        let signature = String::from_utf8(signature.to_vec()).unwrap();
        let https = reqwest::Client::builder()
            .no_proxy()
            .https_only(true)
            .tls_certs_only([reqwest::Certificate::from_der(trusted).unwrap()])
            .resolve("localhost", at)
            .timeout(DEADLINE)
            .build()
            .unwrap();
        let url = format!(
            "https://localhost:{}/apps/app-id/events?{query}&auth_signature={signature}",
            at.port()
        );
        let answer = https.post(url).body(body).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
    }

    async fn node(files: &Files, options: &[(&str, &str)]) -> Node {
        let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = free.local_addr().unwrap().port().to_string();
        let section = files.section();
        let (cert, key) = (
            section.cert_path.to_str().unwrap(),
            section.key_path.to_str().unwrap(),
        );
        let ours = [
            ("DUNLIN_TLS__PORT", port.as_str()),
            ("DUNLIN_TLS__CERT_PATH", cert),
            ("DUNLIN_TLS__KEY_PATH", key),
            ("DUNLIN_TLS__RELOAD_INTERVAL_MS", "100"),
            ("DUNLIN_APP_DEFAULTS__SUBSCRIPTION_COUNT", "false"),
        ];
        drop(free);
        tests::node(&[&ours, options].concat()).await
    }

    #[test]
    fn events_arrive_over_tls_and_the_certificate_is_exchanged_without_a_restart() {
        actix_rt::System::new().block_on(async {
            let files = Files::new("exchange");
            let first = files.renew();
            let node = node(&files, &[]).await;
            let at = node.tls_address.unwrap();
            let mut client = subscriber(at, &first).await;
            publish(at, &first, "one", "1").await;
            assert_eq!(next(&mut client).await, ("one".to_owned(), "1".to_owned()));

            let second = files.renew();
            let exchanged = async {
                while connect(at, &second).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(DEADLINE, exchanged)
                .await
                .expect("the new certificate is shown");
            assert!(connect(at, &first).await.is_err(), "nobody is shown the old one");
            publish(at, &second, "two", "2").await;
            assert_eq!(
                next(&mut client).await,
                ("two".to_owned(), "2".to_owned()),
                "to the old connection"
            );
            node.stop(Stop::Now).await.unwrap();
        });
    }

    const EVENTS: usize = 64;
    const BYTES: usize = 128 * 1024;

    /// Data that repeats would hide a piece that is lost or sent twice.
    fn data_of(number: usize) -> String {
        use std::fmt::Write as _;
        (0..BYTES / 8).fold(String::with_capacity(BYTES), |mut data, n| {
            write!(data, "{:08x}", n * EVENTS + number).unwrap();
            data
        })
    }

    #[test]
    fn a_slow_reader_over_tls_gets_everything_in_order() {
        actix_rt::System::new().block_on(async {
            let files = Files::new("slow");
            let certificate = files.renew();
            let options = [
                ("DUNLIN_SOCKETS__OUTBOX_BYTES", "33554432"),
                ("DUNLIN_APP_DEFAULTS__LIMITS__PAYLOAD_BYTES", "200000"),
            ];
            let node = node(&files, &options).await;
            let at = node.tls_address.unwrap();
            let mut slow = subscriber(at, &certificate).await;
            for number in 0..EVENTS {
                let data = data_of(number);
                publish(at, &certificate, &format!("e{number}"), &data).await;
            }
            assert!(
                node.written_bytes() < (EVENTS * BYTES) as u64,
                "the kernel took everything: nothing was slow"
            );
            for number in 0..EVENTS {
                let (event, data) = next(&mut slow).await;
                assert_eq!(event, format!("e{number}"));
                let expected = data_of(number);
                assert!(data == expected, "the data of event {number}");
            }
            publish(at, &certificate, "last", "!").await;
            assert_eq!(
                next(&mut slow).await.0,
                "last",
                "the connection is not stuck afterwards"
            );
            node.stop(Stop::Now).await.unwrap();
        });
    }

    #[test]
    fn a_bad_pair_is_passed_over_until_it_is_whole() {
        let files = Files::new("bad");
        let first = files.renew();
        let certificate = Certificate::load(&files.section()).unwrap();
        let shown = || certificate.current.load().cert[0].clone();
        fs::write(files.0.join("cert.pem"), "no certificate").unwrap();
        certificate.look();
        assert_eq!(shown(), first);
        let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(files.0.join("cert.pem"), other.cert.pem()).unwrap();
        certificate.look();
        assert_eq!(shown(), first, "the key is still the first one's");
        fs::write(files.0.join("key.pem"), other.signing_key.serialize_pem()).unwrap();
        certificate.look();
        assert_eq!(shown(), other.cert.der().clone());
        fs::remove_file(files.0.join("key.pem")).unwrap();
        certificate.look();
        assert_eq!(shown(), other.cert.der().clone());
    }

    #[test]
    fn a_bad_pair_at_the_start_is_an_error_that_names_the_option() {
        let files = Files::new("start");
        files.renew();
        fs::write(files.0.join("key.pem"), "no key").unwrap();
        let error = Certificate::load(&files.section()).unwrap_err();
        assert!(format!("{error:#}").contains("tls.key_path"), "{error:#}");
    }
}
