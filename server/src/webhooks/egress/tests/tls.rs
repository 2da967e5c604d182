//! Receivers with TLS, and HTTP/2.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread;

use actix_web::dev::ServerHandle;
use actix_web::{App, HttpRequest, HttpServer, web};
use reqwest::Certificate;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;

use super::receiver::{Receiver, answer};
use super::{OUTSIDE, PATIENCE, egress, post, rules};
use crate::webhooks::egress::{Egress, FailureKind, resolver};

/// A receiver that speaks HTTP/2, in a thread of its own. Its answers are the version and the client's address.
struct Secure {
    address: SocketAddr,
    certificate: Certificate,
    server: ServerHandle,
}

impl Secure {
    /// With a certificate for this name or address.
    fn start(name: &str) -> Self {
        let pair = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        let certificate = Certificate::from_der(pair.cert.der()).unwrap();
        let (tell, told) = mpsc::channel();
        thread::spawn(move || {
            let key = PrivateKeyDer::try_from(pair.signing_key.serialize_der()).unwrap();
            let config = ServerConfig::builder()
                .with_no_client_auth()
                .with_single_cert(vec![pair.cert.der().clone()], key)
                .unwrap();
            let echo = |request: HttpRequest| async move {
                format!("{:?} {:?}", request.version(), request.peer_addr())
            };
            let server = HttpServer::new(move || App::new().default_service(web::to(echo)))
                .workers(1)
                .disable_signals()
                .bind_rustls_0_23((OUTSIDE, 0), config)
                .unwrap();
            let address = server.addrs()[0];
            actix_web::rt::System::new().block_on(async move {
                let server = server.run();
                tell.send((address, server.handle())).unwrap();
                server.await.unwrap();
            });
        });
        let (address, server) = told.recv_timeout(PATIENCE).unwrap();
        Self {
            address,
            certificate,
            server,
        }
    }

    fn trusting(&self) -> Egress {
        Egress::new(rules(), vec![self.certificate.clone()]).unwrap()
    }

    fn url(&self) -> String {
        format!("https://{}/", self.address)
    }
}

#[tokio::test]
async fn http_2_is_spoken_where_it_is_understood_and_its_connection_is_used_again() {
    let receiver = Secure::start(&OUTSIDE.to_string());
    let egress = receiver.trusting();
    let first = post(&egress, &receiver.url()).await.unwrap();
    assert!(first.note.starts_with("HTTP/2.0 "), "{first:?}");
    assert_eq!(post(&egress, &receiver.url()).await.unwrap(), first);
    receiver.server.stop(false).await;
}

#[tokio::test]
async fn a_receiver_is_known_by_a_certificate_for_its_name_from_an_authority_that_is_trusted() {
    let receiver = Secure::start("hooks.example.com");
    let by_name = format!("https://hooks.example.com:{}/", receiver.address.port());
    let lookup: resolver::Lookup = std::sync::Arc::new(|_| Box::pin(async { Ok(vec![OUTSIDE]) }));
    let trusting = Egress::with_lookup(rules(), vec![receiver.certificate.clone()], lookup.clone()).unwrap();
    assert_eq!(post(&trusting, &by_name).await.unwrap().status, 200);

    let other = post(&trusting, &receiver.url()).await.unwrap_err();
    assert_eq!(
        (other.kind, &*other.note),
        (
            FailureKind::Tls,
            "The receiver's certificate is for another name than the URL's."
        )
    );
    let usual = Egress::with_lookup(rules(), Vec::new(), lookup).unwrap();
    let unknown = post(&usual, &by_name).await.unwrap_err();
    assert_eq!(unknown.kind, FailureKind::Tls);
    assert!(unknown.note.contains("unknown authority"), "{unknown}");
    receiver.server.stop(false).await;
}

#[tokio::test]
async fn a_receiver_without_tls_at_an_https_url_is_a_failure_of_tls() {
    let receiver = Receiver::start(|mut connection| async move {
        use tokio::io::AsyncWriteExt as _;
        connection
            .write_all(answer("400 Bad Request", "", "").as_bytes())
            .await?;
        std::future::pending().await
    })
    .await;
    let failure = post(&egress(), &format!("https://{}/", receiver.address))
        .await
        .unwrap_err();
    assert_eq!(failure.kind, FailureKind::Tls, "{failure}");
}
