//! Autobahn 5: fragmentation.

use super::{Expect, PUSHER_PING, case, ping_of, raw, run};
use crate::websocket::{BINARY, CONTINUATION, Draft, PONG, TEXT};

/// A message in frames of these payloads.
fn fragments(payloads: &[&[u8]]) -> Vec<Draft> {
    let last = payloads.len() - 1;
    payloads
        .iter()
        .enumerate()
        .map(|(index, payload)| {
            let draft = Draft::new(if index == 0 { TEXT } else { CONTINUATION }, payload);
            if index == last { draft } else { draft.more() }
        })
        .collect()
}

fn halves(text: &str) -> (&[u8], &[u8]) {
    text.as_bytes().split_at(text.len() / 2)
}

#[tokio::test]
async fn fragments_make_one_message() {
    let mut cases = Vec::new();
    for cut in [0, 1, 5, 16, 32, PUSHER_PING.len()] {
        let (left, right) = PUSHER_PING.as_bytes().split_at(cut);
        cases.push(case(
            format!("cut at {cut}"),
            &fragments(&[left, right]),
            Expect::PusherPongs(1),
        ));
    }
    let bytes: Vec<&[u8]> = PUSHER_PING.as_bytes().chunks(1).collect();
    cases.push(case(
        "one byte a frame",
        &fragments(&bytes),
        Expect::PusherPongs(1),
    ));
    for size in [125, 126, 1024, 16_384] {
        let text = ping_of(65_536);
        let pieces: Vec<&[u8]> = text.as_bytes().chunks(size).collect();
        cases.push(case(
            format!("64 KiB in frames of {size}"),
            &fragments(&pieces),
            Expect::PusherPongs(1),
        ));
    }
    let (left, right) = halves(PUSHER_PING);
    let with_empties = fragments(&[b"", left, b"", b"", right, b""]);
    cases.push(case(
        "empty fragments between",
        &with_empties,
        Expect::PusherPongs(1),
    ));
    cases.push(case(
        "only empty fragments",
        &fragments(&[b"", b"", b""]),
        Expect::Errors(1),
    ));
    let together = fragments(&[left, right]).iter().flat_map(Draft::bytes).collect();
    cases.push(raw("all in one segment", vec![together], Expect::PusherPongs(1)));
    let single = fragments(&[left, right])
        .iter()
        .flat_map(Draft::bytes)
        .map(|byte| vec![byte])
        .collect();
    cases.push(raw("byte by byte", single, Expect::PusherPongs(1)));
    let twice: Vec<Draft> = [fragments(&[left, right]), fragments(&[left, right])].concat();
    cases.push(case("two messages", &twice, Expect::PusherPongs(2)));
    let mixed = [fragments(&[left, right]), vec![Draft::text(PUSHER_PING)]].concat();
    cases.push(case("fragmented, then whole", &mixed, Expect::PusherPongs(2)));
    run(cases).await;
}

#[tokio::test]
async fn control_frames_may_come_between_fragments() {
    let (left, right) = halves(PUSHER_PING);
    let parts = fragments(&[left, right]);
    let (first, second) = (parts[0].clone(), parts[1].clone());
    let mut cases = vec![
        case(
            "pong between",
            &[first.clone(), Draft::new(PONG, "x"), second.clone()],
            Expect::PusherPongs(1),
        ),
        case(
            "close between",
            &[first, Draft::close(1000, "bye"), second],
            Expect::Closed(&[1000]),
        ),
    ];
    // A Pusher pong is a message that nobody answers, so that only the WebSocket pongs come.
    let (left, right) = halves(r#"{"event":"pusher:pong","data":{}}"#);
    let around = |pings: Vec<Draft>| {
        let parts = fragments(&[left, right]);
        [&parts[..1], &pings, &parts[1..]].concat()
    };
    for length in [0, 1, 125] {
        let payload = vec![b'p'; length];
        let drafts = around(vec![Draft::ping(&payload)]);
        cases.push(case(
            format!("ping of {length} between"),
            &drafts,
            Expect::Pongs(vec![payload]),
        ));
    }
    let payloads: Vec<Vec<u8>> = (0..20).map(|number| format!("{number}").into_bytes()).collect();
    let drafts = around(payloads.iter().map(Draft::ping).collect());
    cases.push(case("twenty pings between", &drafts, Expect::Pongs(payloads)));
    run(cases).await;
}

#[tokio::test]
async fn a_broken_order_of_fragments_fails_the_connection() {
    let close = || Expect::Close(&[1002]);
    run(vec![
        case(
            "continuation of nothing",
            &[Draft::new(CONTINUATION, "x")],
            close(),
        ),
        case(
            "empty continuation of nothing",
            &[Draft::new(CONTINUATION, "")],
            close(),
        ),
        case(
            "unfinished continuation of nothing",
            &[Draft::new(CONTINUATION, "x").more()],
            close(),
        ),
        case(
            "continuation after a whole message",
            &[Draft::text(PUSHER_PING), Draft::new(CONTINUATION, PUSHER_PING)],
            close(),
        ),
        case(
            "continuation after a finished fragmented message",
            &[fragments(&[b"{", b"}"]), vec![Draft::new(CONTINUATION, "x")]].concat(),
            close(),
        ),
        case(
            "text inside a message",
            &[Draft::text("{").more(), Draft::text("}")],
            close(),
        ),
        case(
            "unfinished text inside a message",
            &[Draft::text("{").more(), Draft::text("}").more()],
            close(),
        ),
        case(
            "binary inside a message",
            &[Draft::text("{").more(), Draft::new(BINARY, "}")],
            close(),
        ),
        case(
            "text inside a message after a ping",
            &[Draft::text("{").more(), Draft::ping("x"), Draft::text("}")],
            close(),
        ),
        case(
            "text after empty fragments",
            &[
                Draft::text("").more(),
                Draft::new(CONTINUATION, "").more(),
                Draft::text("{}"),
            ],
            close(),
        ),
    ])
    .await;
}
