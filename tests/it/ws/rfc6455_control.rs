//! Autobahn 2: pings and pongs.

use super::{Expect, PUSHER_PING, case, raw, run};
use crate::websocket::{CONTINUATION, Draft, PONG};

#[tokio::test]
async fn a_ping_is_answered_with_its_own_payload() {
    let mut cases = Vec::new();
    for length in [0, 1, 2, 3, 4, 7, 8, 31, 32, 33, 63, 64, 100, 123, 124, 125] {
        let payload: Vec<u8> = (0..=255).cycle().skip(0xf0).take(length).collect();
        let expect = Expect::Pongs(vec![payload.clone()]);
        cases.push(case(
            format!("ping of {length} bytes"),
            &[Draft::ping(&payload)],
            expect,
        ));
    }
    for payload in [
        &b"\x00\xff\xfe\xfd\xfc\xfb\x00\xff"[..],
        b"\xed\xa0\x80",
        b"{\"event\":\"pusher:ping\"}",
    ] {
        let expect = Expect::Pongs(vec![payload.to_vec()]);
        cases.push(case(
            format!("ping {payload:x?}"),
            &[Draft::ping(payload)],
            expect,
        ));
    }
    run(cases).await;
}

#[tokio::test]
async fn a_ping_that_comes_byte_by_byte_is_answered() {
    let pieces = Draft::ping("piecemeal")
        .bytes()
        .iter()
        .map(|byte| vec![*byte])
        .collect();
    run(vec![raw(
        "byte by byte",
        pieces,
        Expect::Pongs(vec![b"piecemeal".to_vec()]),
    )])
    .await;
}

#[tokio::test]
async fn pings_in_a_row_are_each_answered_in_order() {
    let payloads: Vec<Vec<u8>> = (0..10)
        .map(|number| format!("payload-{number}").into_bytes())
        .collect();
    let drafts: Vec<Draft> = payloads.iter().map(Draft::ping).collect();
    let together = drafts.iter().flat_map(Draft::bytes).collect();
    run(vec![
        case("in ten writes", &drafts, Expect::Pongs(payloads.clone())),
        raw("in one write", vec![together], Expect::Pongs(payloads)),
    ])
    .await;
}

#[tokio::test]
async fn unsolicited_pongs_are_ignored() {
    run(vec![
        case("empty pong", &[Draft::new(PONG, "")], Expect::Nothing),
        case(
            "pong with payload",
            &[Draft::new(PONG, "nobody asked")],
            Expect::Nothing,
        ),
        case(
            "pong of 125 bytes",
            &[Draft::new(PONG, [0xff; 125])],
            Expect::Nothing,
        ),
        case("many pongs", &vec![Draft::new(PONG, "x"); 50], Expect::Nothing),
        case(
            "pong, then ping",
            &[Draft::new(PONG, "one"), Draft::ping("two")],
            Expect::Pongs(vec![b"two".to_vec()]),
        ),
    ])
    .await;
}

#[tokio::test]
async fn a_control_frame_must_not_be_fragmented() {
    let mut cases = Vec::new();
    for opcode in [0x8, 0x9, 0xA] {
        let drafts = [Draft::new(opcode, "").more(), Draft::new(CONTINUATION, "")];
        cases.push(case(
            format!("opcode {opcode}, empty"),
            &drafts,
            Expect::Close(&[1002]),
        ));
        let drafts = [Draft::new(opcode, "ab").more()];
        cases.push(case(
            format!("opcode {opcode}, first fragment"),
            &drafts,
            Expect::Close(&[1002]),
        ));
        let drafts = [Draft::text(PUSHER_PING).more(), Draft::new(opcode, "ab").more()];
        cases.push(case(
            format!("opcode {opcode} inside a message"),
            &drafts,
            Expect::Close(&[1002]),
        ));
    }
    run(cases).await;
}
