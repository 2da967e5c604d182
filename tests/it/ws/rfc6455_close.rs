//! Autobahn 7: the closing handshake.

use super::{Expect, PUSHER_PING, case, raw, run};
use crate::client::{Client, QUERY};
use crate::request::Http;
use crate::websocket::{CLOSE, Draft, Seen, handshake};
use crate::world::{DEADLINE, shared};

#[tokio::test]
async fn a_valid_close_code_is_answered_and_the_connection_ends() {
    // Which code the answer carries is the server's choice between an echo and 1000.
    const ECHO: [(u16, &[u16]); 13] = [
        (1000, &[1000]),
        (1001, &[1001, 1000]),
        (1002, &[1002, 1000]),
        (1003, &[1003, 1000]),
        (1007, &[1007, 1000]),
        (1008, &[1008, 1000]),
        (1009, &[1009, 1000]),
        (1010, &[1010, 1000]),
        (1011, &[1011, 1000]),
        (3000, &[3000, 1000]),
        (3999, &[3999, 1000]),
        (4000, &[4000, 1000]),
        (4999, &[4999, 1000]),
    ];
    let mut cases = Vec::new();
    for (code, answers) in ECHO {
        cases.push(case(
            format!("close {code}"),
            &[Draft::close(code, "")],
            Expect::Closed(answers),
        ));
        let draft = Draft::close(code, "a reason");
        cases.push(case(
            format!("close {code} with a reason"),
            &[draft],
            Expect::Closed(answers),
        ));
    }
    run(cases).await;
}

#[tokio::test]
async fn an_invalid_close_code_is_a_protocol_error() {
    let mut cases = Vec::new();
    for code in [
        0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535,
    ] {
        cases.push(case(
            format!("close {code}"),
            &[Draft::close(code, "")],
            Expect::Close(&[1002]),
        ));
        let draft = Draft::close(code, "why");
        cases.push(case(
            format!("close {code} with a reason"),
            &[draft],
            Expect::Close(&[1002]),
        ));
    }
    run(cases).await;
}

#[tokio::test]
async fn the_payload_of_a_close_is_checked() {
    run(vec![
        case(
            "no payload",
            &[Draft::new(CLOSE, "")],
            Expect::Closed(&[1000, 1005]),
        ),
        case("one byte", &[Draft::new(CLOSE, [3])], Expect::Close(&[1002])),
        case(
            "a reason of 123 bytes",
            &[Draft::close(1000, "r".repeat(123))],
            Expect::Closed(&[1000]),
        ),
        case(
            "a reason of 124 bytes",
            &[Draft::close(1000, "r".repeat(124))],
            Expect::Close(&[1002]),
        ),
        case(
            "a reason of several alphabets",
            &[Draft::close(1000, "tschüß 日本")],
            Expect::Closed(&[1000]),
        ),
        case(
            "a reason that is not UTF-8",
            &[Draft::close(1000, b"\xce\xba\xed\xa0\x80")],
            Expect::Close(&[1007, 1002]),
        ),
        case(
            "a reason that ends inside a character",
            &[Draft::close(1000, b"ok\xe2\x82")],
            Expect::Close(&[1007, 1002]),
        ),
        case(
            "a reason of stray bytes",
            &[Draft::close(1000, b"\xff\xfe")],
            Expect::Close(&[1007, 1002]),
        ),
    ])
    .await;
}

#[tokio::test]
async fn whatever_follows_a_close_is_ignored() {
    let close = Draft::close(1000, "");
    let together = |drafts: &[Draft]| vec![drafts.iter().flat_map(Draft::bytes).collect()];
    run(vec![
        case(
            "a message",
            &[close.clone(), Draft::text(PUSHER_PING)],
            Expect::Closed(&[1000]),
        ),
        case(
            "a ping",
            &[close.clone(), Draft::ping("x")],
            Expect::Closed(&[1000]),
        ),
        case(
            "another close",
            &[close.clone(), Draft::close(1001, "")],
            Expect::Closed(&[1000]),
        ),
        case(
            "a broken frame",
            &[close.clone(), Draft::text("x").reserved(7)],
            Expect::Closed(&[1000]),
        ),
        raw(
            "a message in the same segment",
            together(&[close.clone(), Draft::text(PUSHER_PING)]),
            Expect::Closed(&[1000]),
        ),
        raw(
            "garbage in the same segment",
            vec![[close.bytes(), vec![0xff; 500]].concat()],
            Expect::Closed(&[1000]),
        ),
    ])
    .await;
}

#[tokio::test]
async fn nothing_is_answered_after_the_close_frame() {
    let (world, app) = shared();
    let mut socket = super::established(world, &app).await;
    let mut bytes = Draft::text(PUSHER_PING).bytes();
    bytes.extend(Draft::close(1000, "").bytes());
    bytes.extend(Draft::text(PUSHER_PING).bytes());
    bytes.extend(Draft::ping("late").bytes());
    socket.send(&bytes).await;
    let Seen::Frame(pong) = socket.next().await else {
        panic!("no answer to what came before the close")
    };
    assert!(pong.text().contains("pusher:pong"));
    let Seen::Frame(close) = socket.next().await else {
        panic!("no close")
    };
    assert_eq!(close.close().map(|(code, _)| code), Some(1000));
    assert_eq!(socket.next().await, Seen::End);
}

#[tokio::test]
async fn a_client_that_half_closes_is_let_go() {
    let (world, app) = shared();
    let mut watcher = Client::connect(world, &app).await;
    let mut http = Http::open(world.address).await;
    http.send(&handshake(&format!("/app/{}?{QUERY}", app.key), ""))
        .await;
    http.head().await.expect("the handshake is answered");
    http.half_close().await;
    assert!(
        http.ends_within(DEADLINE).await,
        "the server keeps a half-closed connection"
    );
    watcher.expect_quiet().await;
}
