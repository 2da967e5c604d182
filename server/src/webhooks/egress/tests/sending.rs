//! What a receiver sees of us, and what we make of receivers that are not there.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpSocket;

use super::receiver::{Receiver, answer, request};
use super::{OUTSIDE, PATIENCE, egress, egress_where_names_are, post, post_within};
use crate::lock::lock;
use crate::webhooks::egress::{Egress, EndpointUrl, FailureKind};

type Requests = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

/// A receiver that takes everything, and what it has got.
async fn recording() -> (Receiver, Requests) {
    let requests = Requests::default();
    let got = Arc::clone(&requests);
    let receiver = Receiver::start(move |mut connection| {
        let got = Arc::clone(&got);
        async move {
            loop {
                let request = request(&mut connection).await?;
                lock(&got).push(request);
                let answer = answer("202 Accepted", "retry-after: 7\r\n", "thank\nyou");
                connection.write_all(answer.as_bytes()).await?;
            }
        }
    })
    .await;
    (receiver, requests)
}

async fn post_with(
    egress: &Egress,
    url: &str,
    headers: &[(&'static str, &'static str)],
    body: &'static [u8],
) {
    let headers: HeaderMap = headers
        .iter()
        .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
        .collect();
    let url = EndpointUrl::parse(url, egress.guard()).unwrap();
    egress
        .post(&url, headers, Bytes::from_static(body), PATIENCE)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_post_arrives_as_it_was_given_and_its_answer_comes_back() {
    let (receiver, requests) = recording().await;
    let egress = egress();
    post_with(&egress, &receiver.url(), &[("x-pusher-key", "a")], b"{}").await;
    let received = post(&egress, &receiver.url()).await.unwrap();
    assert_eq!((received.status, received.is_success()), (202, true));
    assert_eq!(received.retry_after, Some(Duration::from_secs(7)));
    assert_eq!(received.note, "thank you");

    let requests = lock(&requests);
    let (head, body) = &requests[0];
    assert!(head.starts_with("POST /hook?a=b HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nx-pusher-key: a\r\n"), "{head}");
    assert!(head.contains("\r\nuser-agent: Dunlin/"), "{head}");
    assert!(!head.contains("accept-encoding"), "{head}");
    assert_eq!(body, b"{}");
}

#[tokio::test]
async fn connections_are_used_again() {
    let (receiver, requests) = recording().await;
    let egress = egress();
    for _ in 0..5 {
        post(&egress, &receiver.url()).await.unwrap();
    }
    assert_eq!(lock(&requests).len(), 5);
    assert_eq!(receiver.accepted(), 1);
}

#[tokio::test]
async fn no_header_can_smuggle_a_request_into_a_connection_that_others_share() {
    let (receiver, requests) = recording().await;
    let egress = egress();
    let body = b"GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    let headers = [
        ("content-length", "0"),
        ("transfer-encoding", "chunked"),
        ("connection", "x-pusher-key"),
        ("host", "other.example.com"),
        ("expect", "100-continue"),
        ("upgrade", "h2c"),
        ("x-pusher-key", "a"),
    ];
    post_with(&egress, &receiver.url(), &headers, body).await;
    post(&egress, &receiver.url()).await.unwrap();

    let requests = lock(&requests);
    assert_eq!(requests.len(), 2);
    let (head, got) = &requests[0];
    assert_eq!(got, body);
    assert!(
        head.contains(&format!("\r\nhost: {}\r\n", receiver.address)),
        "{head}"
    );
    assert!(head.contains("\r\nx-pusher-key: a\r\n"), "{head}");
    for absent in [
        "transfer-encoding",
        "connection",
        "other.example.com",
        "expect",
        "upgrade",
    ] {
        assert!(!head.contains(absent), "{absent} in {head}");
    }
}

#[tokio::test]
async fn a_port_without_a_receiver_is_a_refused_connection() {
    // Bound, so that nobody else takes the port, and not listening.
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((OUTSIDE, 0).into()).unwrap();
    let address = socket.local_addr().unwrap();
    let failure = post(&egress(), &format!("http://{address}/")).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Connect);
    assert_eq!(failure.note, "The connection was refused.");
    // The same by name, whose address is not told.
    let egress = egress_where_names_are(&[&["127.0.0.2"]]);
    let named = post(&egress, &format!("http://hooks.example.com:{}/", address.port())).await;
    assert_eq!(named.unwrap_err(), failure);
}

#[tokio::test]
async fn a_name_without_an_address_is_a_failure_of_dns() {
    for answers in [&[][..], &[&[][..]]] {
        let failure = post(&egress_where_names_are(answers), "http://hooks.example.com/")
            .await
            .unwrap_err();
        assert_eq!(failure.kind, FailureKind::Dns);
    }
}

#[tokio::test]
async fn a_receiver_that_says_nothing_is_left_at_the_time_limit() {
    let receiver = Receiver::start(|connection| async move {
        let _open = connection;
        std::future::pending().await
    })
    .await;
    let failure = post_within(&egress(), &receiver.url(), Duration::from_millis(300))
        .await
        .unwrap_err();
    assert_eq!(failure.kind, FailureKind::TimedOut);
    assert_eq!(failure.note, "There was no complete answer within 300ms.");
}

#[tokio::test]
async fn a_lookup_that_never_ends_is_left_at_the_time_limit() {
    let lookup: super::Lookup = Arc::new(|_| Box::pin(std::future::pending()));
    let egress = Egress::with_lookup(super::rules(), Vec::new(), lookup).unwrap();
    let url = "http://hooks.example.com/";
    let failure = post_within(&egress, url, Duration::from_millis(100))
        .await
        .unwrap_err();
    assert_eq!(failure.kind, FailureKind::TimedOut);
    tokio::time::pause();
    let failure = post(&egress, url).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Dns, "it has a time limit of its own");
}
