//! The opening handshake, good and bad.

use crate::client::QUERY;
use crate::request::{Http, exchange};
use crate::websocket::{Draft, Seen, Socket, handshake};
use crate::world::shared;

fn with_headers(path: &str, headers: &str) -> Vec<u8> {
    format!("GET {path} HTTP/1.1\r\nHost: test\r\n{headers}\r\n").into_bytes()
}

#[tokio::test]
async fn header_names_and_values_are_matched_without_regard_to_case_and_neighbours() {
    let (world, app) = shared();
    let path = format!("/app/{}?{QUERY}", app.key);
    for headers in [
        "upgrade: WebSocket\r\nconnection: keep-alive, Upgrade\r\nSEC-WEBSOCKET-KEY: dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-version: 13\r\n",
        "Upgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\nOrigin: http://example.com\r\nCookie: a=b\r\n",
        "Upgrade:websocket\r\nConnection:Upgrade\r\nSec-WebSocket-Key:dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version:13\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n",
    ] {
        let (mut socket, answer) = Socket::shake(world.address, &with_headers(&path, headers)).await;
        assert_eq!(answer.status, 101, "{headers}");
        assert_eq!(
            answer.header("sec-websocket-accept"),
            Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
        );
        assert!(matches!(socket.next().await, Seen::Frame(_)), "{headers}");
    }
}

#[tokio::test]
async fn another_websocket_version_is_answered_426_with_the_version_we_speak() {
    let (world, app) = shared();
    for version in ["8", "0", "14", "255", "13.0", "abc"] {
        let headers = format!(
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Sec-WebSocket-Version: {version}\r\n"
        );
        let path = format!("/app/{}?{QUERY}", app.key);
        let answer = exchange(world.address, &with_headers(&path, &headers)).await;
        assert_eq!(answer.status, 426, "version {version}");
        assert_eq!(
            answer.header("sec-websocket-version"),
            Some("13"),
            "version {version}"
        );
    }
}

#[tokio::test]
async fn an_incomplete_upgrade_is_answered_400() {
    let (world, app) = shared();
    let path = format!("/app/{}?{QUERY}", app.key);
    for (what, headers) in [
        (
            "no key",
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n",
        ),
        (
            "empty key",
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: \r\nSec-WebSocket-Version: 13\r\n",
        ),
    ] {
        let answer = exchange(world.address, &with_headers(&path, headers)).await;
        assert_eq!(answer.status, 400, "{what}: {}", answer.text());
    }
}

#[tokio::test]
async fn an_upgrade_by_post_is_refused_as_an_ordinary_http_error() {
    let (world, app) = shared();
    let bytes = String::from_utf8(handshake(
        &format!("/app/{}?{QUERY}", app.key),
        "Content-Length: 0\r\n",
    ))
    .expect("the handshake is ASCII")
    .replacen("GET", "POST", 1);
    let answer = exchange(world.address, bytes.as_bytes()).await;
    assert!((400..500).contains(&answer.status), "{}", answer.status);
}

#[tokio::test]
async fn a_plain_get_of_a_socket_path_is_an_http_error_and_the_server_goes_on() {
    let (world, app) = shared();
    let answer = exchange(world.address, &with_headers(&format!("/app/{}", app.key), "")).await;
    assert!((400..500).contains(&answer.status), "{}", answer.status);
}

#[tokio::test]
async fn frames_that_arrive_together_with_the_handshake_are_not_lost() {
    let (world, app) = shared();
    let mut bytes = handshake(&format!("/app/{}?{QUERY}", app.key), "");
    bytes.extend(Draft::ping("early").bytes());
    bytes.extend(Draft::text(super::PUSHER_PING).bytes());
    let (mut socket, answer) = Socket::shake(world.address, &bytes).await;
    assert_eq!(answer.status, 101);
    let Seen::Frame(hello) = socket.next().await else {
        panic!("no first frame")
    };
    assert!(
        hello.text().contains("pusher:connection_established"),
        "nothing may precede it"
    );
    let Seen::Frame(pong) = socket.next().await else {
        panic!("no pong")
    };
    assert_eq!(pong.payload, b"early");
    let Seen::Frame(pong) = socket.next().await else {
        panic!("no pusher:pong")
    };
    assert!(pong.text().contains("pusher:pong"));
}

#[tokio::test]
async fn a_handshake_that_comes_byte_by_byte_succeeds() {
    let (world, app) = shared();
    let bytes = handshake(&format!("/app/{}?{QUERY}", app.key), "");
    let (last, first) = bytes.split_last().expect("a handshake is not empty");
    let mut http = Http::open(world.address).await;
    for byte in first {
        http.send(&[*byte]).await;
    }
    http.send(&[*last]).await;
    let answer = http.head().await.expect("an answer");
    assert_eq!(answer.status, 101);
}

#[tokio::test]
async fn the_offered_pusher_subprotocol_is_echoed_and_none_is_invented() {
    let (world, app) = shared();
    let path = format!("/app/{}?{QUERY}", app.key);
    let offer = "Sec-WebSocket-Protocol: pusher-channels-protocol-7\r\n";
    let (_, answer) = Socket::shake(world.address, &handshake(&path, offer)).await;
    assert_eq!(answer.status, 101);
    assert_eq!(
        answer.header("sec-websocket-protocol"),
        Some("pusher-channels-protocol-7")
    );
    let (_, answer) = Socket::shake(world.address, &handshake(&path, "")).await;
    assert_eq!(answer.header("sec-websocket-protocol"), None);
}

#[tokio::test]
async fn an_extension_that_is_not_spoken_is_not_accepted() {
    let (world, app) = shared();
    let offer = "Sec-WebSocket-Extensions: x-webkit-deflate-frame, foo\r\n";
    let path = format!("/app/{}?{QUERY}", app.key);
    let (_, answer) = Socket::shake(world.address, &handshake(&path, offer)).await;
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("sec-websocket-extensions"), None);
}
