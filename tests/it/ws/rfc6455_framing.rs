//! Autobahn 1 (framing), 3 (reserved bits), 4 (opcodes), and masking.

use super::{Expect, PUSHER_PING, case, ping_of, raw, run};
use crate::websocket::{BINARY, CLOSE, CONTINUATION, Draft, PING, PONG, TEXT};

#[tokio::test]
async fn text_of_every_length_form_is_read() {
    let mut cases = vec![case(
        "empty text is invalid JSON",
        &[Draft::text("")],
        Expect::Errors(1),
    )];
    for length in [
        33, 34, 39, 40, 41, 124, 125, 126, 127, 128, 255, 256, 4095, 4096, 4097, 16_384, 65_534, 65_535,
    ] {
        let name = format!("text of {length} bytes");
        cases.push(case(
            name,
            &[Draft::text(ping_of(length))],
            Expect::PusherPongs(1),
        ));
    }
    cases.push(case(
        "text of 65536 bytes",
        &[Draft::text(ping_of(65_536))],
        Expect::PusherPongs(1),
    ));
    for length in [1, 5, 32] {
        let name = format!("{length} bytes that are not JSON");
        cases.push(case(name, &[Draft::text("x".repeat(length))], Expect::Errors(1)));
    }
    run(cases).await;
}

#[tokio::test]
async fn frames_are_read_however_tcp_cuts_them() {
    let mut cases = Vec::new();
    for length in [33, 125, 126, 127, 1000] {
        let bytes = Draft::text(ping_of(length)).bytes();
        let single = bytes.iter().map(|byte| vec![*byte]).collect();
        cases.push(raw(
            format!("{length} bytes one by one"),
            single,
            Expect::PusherPongs(1),
        ));
    }
    let large = Draft::text(ping_of(65_536)).bytes();
    for size in [997, 4096, 65_535] {
        let pieces = large.chunks(size).map(<[u8]>::to_vec).collect();
        cases.push(raw(
            format!("65536 bytes in pieces of {size}"),
            pieces,
            Expect::PusherPongs(1),
        ));
    }
    for count in [2, 3, 10, 100] {
        let together = Draft::text(PUSHER_PING).bytes().repeat(count);
        cases.push(raw(
            format!("{count} messages in one segment"),
            vec![together],
            Expect::PusherPongs(count),
        ));
    }
    for cut in 1..12 {
        // Two frames in two segments, the cut anywhere in the second header.
        let bytes = Draft::text(ping_of(300)).bytes().repeat(2);
        let (left, right) = bytes.split_at(bytes.len() / 2 + cut);
        let pieces = vec![left.to_vec(), right.to_vec()];
        cases.push(raw(
            format!("cut {cut} bytes into the second frame"),
            pieces,
            Expect::PusherPongs(2),
        ));
    }
    run(cases).await;
}

#[tokio::test]
async fn any_masking_key_is_applied() {
    let keys: [[u8; 4]; 6] = [
        [0; 4],
        [0xff; 4],
        [1, 0, 0, 0],
        [0, 0, 0, 1],
        [0x80, 0x7f, 0xc3, 0x28],
        [0x0d, 0x0a, 0x0d, 0x0a],
    ];
    let mut cases = Vec::new();
    for key in keys {
        for length in [33, 200, 65_535] {
            let draft = Draft::text(ping_of(length)).mask(key);
            cases.push(case(
                format!("key {key:02x?}, {length} bytes"),
                &[draft],
                Expect::PusherPongs(1),
            ));
        }
    }
    run(cases).await;
}

#[tokio::test]
async fn an_unmasked_frame_fails_the_connection() {
    let cases = vec![
        case(
            "unmasked text",
            &[Draft::text(PUSHER_PING).unmasked()],
            Expect::Close(&[1002]),
        ),
        case(
            "unmasked empty text",
            &[Draft::text("").unmasked()],
            Expect::Close(&[1002]),
        ),
        case(
            "unmasked long text",
            &[Draft::text(ping_of(300)).unmasked()],
            Expect::Close(&[1002]),
        ),
        case(
            "unmasked ping",
            &[Draft::ping("x").unmasked()],
            Expect::Close(&[1002]),
        ),
        case(
            "unmasked pong",
            &[Draft::new(PONG, "x").unmasked()],
            Expect::Close(&[1002]),
        ),
        case(
            "unmasked close",
            &[Draft::close(1000, "").unmasked()],
            Expect::Close(&[1002]),
        ),
        case(
            "unmasked after masked",
            &[Draft::ping("").mask([0; 4]), Draft::text("x").unmasked()],
            Expect::Close(&[1002]),
        ),
    ];
    run(cases).await;
}

#[tokio::test]
async fn reserved_bits_fail_the_connection() {
    let mut cases = Vec::new();
    for bits in 1..=7 {
        for (kind, draft) in [
            ("text", Draft::text(PUSHER_PING)),
            ("empty text", Draft::text("")),
            ("ping", Draft::ping("x")),
            ("pong", Draft::new(PONG, "")),
            ("close", Draft::close(1000, "")),
        ] {
            let name = format!("reserved bits {bits:03b} on {kind}");
            cases.push(case(name, &[draft.reserved(bits)], Expect::Close(&[1002])));
        }
    }
    let fragments = [Draft::text("{").more(), Draft::new(CONTINUATION, "}").reserved(4)];
    cases.push(case(
        "reserved bit on a continuation",
        &fragments,
        Expect::Close(&[1002]),
    ));
    run(cases).await;
}

#[tokio::test]
async fn reserved_opcodes_fail_the_connection() {
    let mut cases = Vec::new();
    for opcode in [3, 4, 5, 6, 7, 11, 12, 13, 14, 15] {
        for payload in ["", "x"] {
            let name = format!("opcode {opcode} with {} bytes", payload.len());
            cases.push(case(name, &[Draft::new(opcode, payload)], Expect::Close(&[1002])));
        }
        let between = [Draft::text("{\"event\"").more(), Draft::new(opcode, "")];
        cases.push(case(
            format!("opcode {opcode} between fragments"),
            &between,
            Expect::Close(&[1002]),
        ));
    }
    run(cases).await;
}

#[tokio::test]
async fn binary_is_refused_with_1003() {
    let cases = vec![
        case("empty binary", &[Draft::new(BINARY, "")], Expect::Close(&[1003])),
        case(
            "binary that is JSON",
            &[Draft::new(BINARY, PUSHER_PING)],
            Expect::Close(&[1003]),
        ),
        case(
            "binary of 65536 bytes",
            &[Draft::new(BINARY, vec![0xfe; 65_536])],
            Expect::Close(&[1003]),
        ),
        case(
            "fragmented binary",
            &[Draft::new(BINARY, "a").more(), Draft::new(CONTINUATION, "b")],
            Expect::Close(&[1003]),
        ),
    ];
    run(cases).await;
}

#[tokio::test]
async fn a_length_in_a_longer_form_than_needed_is_read_or_refused_but_never_misread() {
    let (world, app) = crate::world::shared();
    let drafts = [
        Draft::text(PUSHER_PING).sixteen_bit_length(),
        Draft::text(PUSHER_PING).sixty_four_bit_length(),
        Draft::text(ping_of(125)).sixteen_bit_length(),
        Draft::text(ping_of(126)).sixty_four_bit_length(),
        Draft::text(ping_of(65_535)).sixty_four_bit_length(),
    ];
    for draft in drafts {
        let mut socket = super::established(world, &app).await;
        socket.send_frame(&draft).await;
        let crate::websocket::Seen::Frame(frame) = socket.next().await else {
            panic!("no answer")
        };
        match frame.opcode {
            TEXT => assert!(frame.text().contains("pusher:pong")),
            CLOSE => assert_eq!(frame.close().map(|(code, _)| code), Some(1002)),
            other => panic!("opcode {other}"),
        }
    }
}

#[tokio::test]
async fn control_frames_with_a_long_length_form_fail_the_connection() {
    let mut cases = Vec::new();
    for opcode in [PING, PONG, CLOSE] {
        for length in [126, 127, 1000] {
            let draft = Draft::new(opcode, vec![b'x'; length]);
            cases.push(case(
                format!("opcode {opcode} with {length} bytes"),
                &[draft],
                Expect::Close(&[1002]),
            ));
        }
        let draft = Draft::new(opcode, vec![b'x'; 70_000]);
        let name = format!("opcode {opcode} with 70000 bytes");
        cases.push(case(name, &[draft], Expect::Close(&[1002, 1009])));
    }
    run(cases).await;
}
