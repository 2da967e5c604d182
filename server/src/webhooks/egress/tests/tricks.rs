//! Receivers that mean harm, or are broken.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::HeaderMap;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::oneshot;

use super::receiver::{Receiver, answer, head, request};
use super::{PATIENCE, egress, post, post_within};
use crate::lock::lock;
use crate::webhooks::egress::{EndpointUrl, FailureKind};

/// What is sent at a time by those that send without end.
const PIECE: usize = 16 * 1024;

/// Sends `start`, then `piece` until the other side has had enough. The second value becomes how many bytes that took.
async fn endless(start: &'static str, piece: Vec<u8>) -> (Receiver, oneshot::Receiver<usize>) {
    let (tell, told) = oneshot::channel();
    let tell = Arc::new(std::sync::Mutex::new(Some(tell)));
    let piece: Arc<[u8]> = piece.into();
    let receiver = Receiver::start(move |mut connection| {
        let (tell, piece) = (Arc::clone(&tell), Arc::clone(&piece));
        async move {
            request(&mut connection).await?;
            connection.write_all(start.as_bytes()).await?;
            let mut sent = 0;
            while connection.write_all(&piece).await.is_ok() {
                sent += piece.len();
            }
            if let Some(tell) = lock(&tell).take() {
                tell.send(sent).ok();
            }
            Ok(())
        }
    })
    .await;
    (receiver, told)
}

/// What the system may hold between the two sides, and more.
const MOST: usize = 32 * 1024 * 1024;

async fn had_enough(told: oneshot::Receiver<usize>) {
    let sent = tokio::time::timeout(PATIENCE, told).await;
    let sent = sent.expect("the connection is closed").unwrap();
    assert!(sent < MOST, "{sent} bytes were taken");
}

#[tokio::test]
async fn an_endless_body_is_read_up_to_a_bound_and_the_answer_counts() {
    let (receiver, told) = endless("HTTP/1.1 200 OK\r\n\r\n", vec![b'a'; PIECE]).await;
    let received = post(&egress(), &receiver.url()).await.unwrap();
    assert_eq!((received.status, received.note.len()), (200, 1024));
    had_enough(told).await;
}

#[tokio::test]
async fn an_endless_body_in_chunks_is_read_up_to_a_bound_and_the_answer_counts() {
    let mut chunk = format!("{PIECE:x}\r\n").into_bytes();
    chunk.resize(chunk.len() + PIECE, b'a');
    chunk.extend(b"\r\n");
    let (receiver, told) = endless("HTTP/1.1 500 No\r\ntransfer-encoding: chunked\r\n\r\n", chunk).await;
    let received = post(&egress(), &receiver.url()).await.unwrap();
    assert_eq!((received.status, received.note.len()), (500, 1024));
    had_enough(told).await;
}

#[tokio::test]
async fn endless_headers_are_a_broken_answer() {
    for (start, piece) in [
        ("HTTP/1.1 200 OK\r\n", &b"a: b\r\n"[..]),
        ("HTTP/1.1 200 OK\r\na: ", &[b'a'; PIECE]),
        ("HTTP/1.1 200 ", &[b'a'; PIECE]),
        ("", &[b'a'; PIECE]),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;",
            &[b'a'; PIECE],
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n",
            b"trailer: b\r\n",
        ),
    ] {
        let (receiver, told) = endless(start, piece.to_vec()).await;
        let failure = post(&egress(), &receiver.url()).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Broken, "{start}");
        had_enough(told).await;
    }
}

#[tokio::test]
async fn endless_interim_answers_are_cut_at_the_time_limit() {
    let (receiver, told) = endless("", b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(100)).await;
    let failure = post_within(&egress(), &receiver.url(), Duration::from_millis(500))
        .await
        .unwrap_err();
    assert_eq!(failure.kind, FailureKind::TimedOut);
    let sent = tokio::time::timeout(PATIENCE, told).await;
    assert!(sent.is_ok(), "the connection is closed");
}

#[tokio::test]
async fn a_dripping_answer_is_cut_at_the_time_limit() {
    for start in [
        "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n",
        "HTTP/1.1 200 OK\r\na: ",
    ] {
        let receiver = Receiver::start(move |mut connection| async move {
            request(&mut connection).await?;
            connection.write_all(start.as_bytes()).await?;
            let mut drip = tokio::time::interval(Duration::from_millis(20));
            loop {
                drip.tick().await;
                connection.write_all(b"a").await?;
                connection.flush().await?;
            }
        })
        .await;
        let failure = post_within(&egress(), &receiver.url(), Duration::from_millis(500))
            .await
            .unwrap_err();
        assert_eq!(failure.kind, FailureKind::TimedOut, "{start}");
    }
}

#[tokio::test]
async fn a_compressed_answer_is_not_inflated() {
    // "inflated " twenty times, made by gzip.
    let body = hex::decode("1f8b0800000000000203cbcc4bcb492c494d51c81c3a0c00b2751ee0b4000000").unwrap();
    let length = body.len();
    let mut answer =
        format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {length}\r\n\r\n").into_bytes();
    answer.extend(body);
    let receiver = Receiver::answering(answer).await;
    let received = post(&egress(), &receiver.url()).await.unwrap();
    assert_eq!((received.status, &*received.note), (200, "(a compressed body)"));
}

#[tokio::test]
async fn a_connection_that_ends_before_the_answer_is_broken() {
    for answer in [
        "",
        "HTTP/1.1",
        "HTTP/1.1 200 OK\r\na: b\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        "SSH-2.0-OpenSSH_9.2\r\n",
        "-ERR unknown command 'POST'\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 999999 OK\r\n\r\n",
    ] {
        let receiver = Receiver::answering_once(answer).await;
        let failure = post(&egress(), &receiver.url()).await.unwrap_err();
        assert_eq!(failure.kind, FailureKind::Broken, "{answer:?}");
    }
}

#[tokio::test]
async fn a_reset_is_a_broken_answer() {
    let receiver = Receiver::start(|mut connection| async move {
        head(&mut connection).await?;
        connection.write_all(b"HTTP/1.1 200 OK\r\n").await?;
        connection.get_ref().set_zero_linger()
    })
    .await;
    let failure = post(&egress(), &receiver.url()).await.unwrap_err();
    assert_eq!(failure.kind, FailureKind::Broken);
}

#[tokio::test]
async fn an_answer_to_a_request_that_was_not_read_counts() {
    let receiver = Receiver::start(|mut connection| async move {
        head(&mut connection).await?;
        let answer = answer("413 Too Large", "connection: close\r\n", "no");
        connection.write_all(answer.as_bytes()).await?;
        // Keeps the connection open, so that the rest is neither sent nor fails.
        std::future::pending().await
    })
    .await;
    let egress = egress();
    let url = EndpointUrl::parse(&receiver.url(), egress.guard()).unwrap();
    let large = Bytes::from(vec![b'a'; MOST]);
    let received = egress
        .post(&url, HeaderMap::new(), large, PATIENCE)
        .await
        .unwrap();
    assert_eq!((received.status, &*received.note), (413, "no"));
}
