//! Autobahn 9 turned round: what is too large or never ends is refused, and early.

use super::{Expect, case, ping_of, run};
use crate::websocket::{BINARY, CONTINUATION, Draft, Seen, TEXT};
use crate::world::shared;

#[tokio::test]
async fn a_message_over_64_kib_is_refused_with_1009() {
    let half = "x".repeat(40_000);
    let mut cases = vec![
        case(
            "65537 bytes",
            &[Draft::text(ping_of(65_537))],
            Expect::Close(&[1009]),
        ),
        case(
            "100000 bytes",
            &[Draft::text(ping_of(100_000))],
            Expect::Close(&[1009]),
        ),
        case(
            "two fragments that are too large together",
            &[Draft::text(&half).more(), Draft::new(CONTINUATION, &half)],
            Expect::Close(&[1009]),
        ),
        case(
            "three fragments, never finished",
            &[
                Draft::text(&half).more(),
                Draft::new(CONTINUATION, "").more(),
                Draft::new(CONTINUATION, &half).more(),
            ],
            Expect::Close(&[1009]),
        ),
    ];
    let many: Vec<Draft> = std::iter::once(Draft::text("x").more())
        .chain((0..70).map(|_| Draft::new(CONTINUATION, "y".repeat(1000)).more()))
        .collect();
    cases.push(case(
        "seventy fragments of 1000 bytes",
        &many,
        Expect::Close(&[1009]),
    ));
    run(cases).await;
}

#[tokio::test]
async fn no_more_of_a_claimed_length_is_kept_than_a_message_may_have() {
    let mut cases = Vec::new();
    let enough = vec![b' '; 65_600];
    for length in [
        65_600,
        1 << 20,
        8 << 20,
        1 << 31,
        (1 << 32) - 1,
        1 << 32,
        (1 << 32) + 1,
        (1 << 63) - 1,
    ] {
        for opcode in [TEXT, BINARY] {
            let draft = Draft::new(opcode, &enough).claiming(length);
            let codes: &[u16] = if opcode == TEXT { &[1009] } else { &[1003, 1009] };
            cases.push(case(
                format!("opcode {opcode} claiming {length}"),
                &[draft],
                Expect::Close(codes),
            ));
        }
    }
    let fragments = [
        Draft::text("{").more(),
        Draft::new(CONTINUATION, &enough).claiming(1 << 30),
    ];
    cases.push(case(
        "continuation claiming 1 GiB",
        &fragments,
        Expect::Close(&[1009]),
    ));
    run(cases).await;
}

#[tokio::test]
async fn a_64_bit_length_with_the_high_bit_fails_the_connection() {
    let mut cases = Vec::new();
    for length in [1 << 63, (1 << 63) + 5, u64::MAX, u64::MAX - 13] {
        for opcode in [TEXT, BINARY] {
            let draft = Draft::new(opcode, "").claiming(length);
            cases.push(case(
                format!("opcode {opcode} claiming {length}"),
                &[draft],
                Expect::Close(&[1002, 1009]),
            ));
        }
    }
    run(cases).await;
}

#[tokio::test]
async fn endless_empty_fragments_are_refused_within_bounds() {
    let (world, app) = shared();
    let mut socket = super::established(world, &app).await;
    socket.send_frame(&Draft::text("").more()).await;
    let thousand = Draft::new(CONTINUATION, "").more().bytes().repeat(1000);
    for _ in 0..200 {
        if !socket.send(&thousand).await {
            break;
        }
        if let Seen::Frame(frame) = socket.next_within(std::time::Duration::from_millis(1)).await {
            let (code, _) = frame.close().expect("only a close can come");
            assert!([1002, 1008, 1009].contains(&code), "{code}");
            world.assert_calm();
            return;
        }
    }
    let (code, _) = socket.closed().await;
    assert!([1002, 1008, 1009].contains(&code), "{code}");
}

#[tokio::test]
async fn a_socket_that_ends_in_the_middle_of_a_frame_troubles_nobody() {
    let (world, app) = shared();
    let whole = Draft::text(ping_of(300)).bytes();
    for length in 1..20 {
        let mut socket = super::established(world, &app).await;
        socket.send(&whole[..length]).await;
        socket.abandon();
    }
    let mut other = super::established(world, &app).await;
    other.send_frame(&Draft::ping("still there")).await;
    assert!(matches!(other.next().await, Seen::Frame(frame) if frame.payload == b"still there"));
    world.assert_calm();
}
